"""The data sets by name, where their files are looked for, and `load` for the command line."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from . import download, readers
from .errors import DataError, check_kind, reading
from .folder import image_folder, subfolders
from .readers import Images, Labels, Pair, described
from .resize import bilinear, pair, to_uint8

_DIGITS = tuple("0123456789")
_FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_CIFAR = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
# Both data sets use the same file names, so their labels (CRC-32) must tell them apart.
_LABELS = {
    0xBA07E8EF: "mnist",
    0xEE8604D9: "mnist",
    0x2ED6E46A: "fashion-mnist",
    0x242BC73F: "fashion-mnist",
}
_IDX_RANK = {"images": "idx3", "labels": "idx1"}
_TAR = "cifar-10-binary.tar.gz"


@dataclass(frozen=True, repr=False)
class Dataset:
    """Images (N, H, W, C), labels int64 (N,), the classes' names, and the data set's own name.

    `len(data)` is N; `data[3]` is an image and its label, and `data[:100]`, or an array of indices
    or a mask, a Dataset of those images. `data.images, data.labels` are what `digits` and `mnist`
    return.
    """

    images: Images
    labels: Labels
    classes: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int | np.integer):
            return self.images[index], int(self.labels[index])
        where = np.arange(len(self))[index]
        return Dataset(self.images[where], self.labels[where], self.classes, self.name)

    def __repr__(self) -> str:
        shown = ", ".join(self.classes[:10]) + (", ..." if len(self.classes) > 10 else "")
        return f"<dataset '{self.name}': {described(self.images)}, classes {shown}>"


def digits(split: str | None = None, *, size: int | tuple[int, int] | None = None) -> Pair:
    """UCI optical digits, embedded: 1,797 of them -> images uint8 (N, 8, 8, 1), labels int64 (N,).

    The file's values v, 0 (paper) to 16 (ink), become round(255 v / 16), halves up.
    `split`: None, all; "test", 360 digits; "train", the other 1,437. Put into the order of their
    labels (ties in the order of the file), every fifth digit, from the first on, is a test digit;
    so each class gives its fifth, give or take one. Both parts keep the order of the file. The same
    13 people wrote both, so errors are lower than on a stranger's hand.
    `size` (28 or 32 for LeNet-5, or (height, width)) resizes by centre-aligned bilinear
    interpolation, before the one rounding.

    E. Alpaydin, C. Kaynak, UCI Machine Learning Repository, CC BY 4.0, doi 10.24432/C50P49.
    """
    _check_split("digits", split)
    packed = resources.files(__package__).joinpath("files", "optdigits.csv.gz")
    with resources.as_file(packed) as path, reading("digits", path):
        table = np.loadtxt(path, np.uint8, delimiter=",")
    images = table[:, :64].reshape(-1, 8, 8, 1) * (255 / 16)
    labels = table[:, 64].astype(np.int64)
    if size is not None:
        images = bilinear(images, size)
    return _part("digits", to_uint8(images), labels, split)


def mnist(root: str | PathLike[str] | None = None, split: str | None = "train") -> Pair:
    """MNIST -> images uint8 (N, 28, 28, 1), labels int64 (N,) in 0 .. 9.

    `split`: "train" (60,000), "test" (10,000) or None (both, train first). `root` is the folder of
    the IDX files (plain or .gz), or a parent with a subfolder ``mnist``; without it, the folder in
    the environment variable DEEPKIT_DATA; without that, the files are downloaded once, checked and
    cached. Raises :class:`DataError`.

    Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST database of handwritten digits.
    """
    return _idx_set("mnist", root, split, download.MNIST)


def fashion_mnist(root: str | PathLike[str] | None = None, split: str | None = "train") -> Pair:
    """Fashion-MNIST -> images uint8 (N, 28, 28, 1), labels int64 (N,); see :func:`mnist`.

    H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST (2017), arXiv:1708.07747. MIT licence.
    """
    return _idx_set("fashion-mnist", root, split, download.FASHION_MNIST)


def cifar10(root: str | PathLike[str] | None = None, split: str | None = "train") -> Pair:
    """CIFAR-10 -> images uint8 (N, 32, 32, 3) RGB, labels int64 (N,) in 0 .. 9.

    `split`: "train" (50,000), "test" (10,000) or None (both, train first). `root`, DEEPKIT_DATA and
    the download work as in :func:`mnist`; a folder holds either ``data_batch_*.bin`` (as many as
    there are, plain or .gz) and ``test_batch.bin``, or ``cifar-10-binary.tar.gz``.

    A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009).
    """
    _check_split("cifar10", split)
    subfolders_tried = ("cifar10", "cifar-10-batches-bin", "cifar-10", "cifar10-jpeg")
    folder = _locate("cifar10", root, subfolders_tried, _holds_cifar, download.CIFAR10)
    return _cifar_folder("cifar10", folder, split)


def load(
    name_or_path: str | PathLike[str],
    root: str | PathLike[str] | None = None,
    split: str | None = None,
    *,
    size: int | tuple[int, int] | None = None,
) -> Dataset:
    """Read a data set by name or by path.

    Names: digits, mnist, fashion-mnist, cifar10; `root` says where the files of a name are, as in
    :func:`mnist`. Paths: an .npz file (arrays images, labels and perhaps classes), a folder of
    class folders (perhaps within ``train`` and ``test``), a folder of IDX or CIFAR-10 files, an IDX
    file of images (its labels lie beside it), or a CIFAR-10 .bin file.
    `split`: "train", "test", or None for all. Where a path has no test part of its own, every fifth
    image of each class is the test part, as in :func:`digits`. `size` resizes the images.
    """
    name = os.fspath(name_or_path)
    key = name.lower().replace("_", "-").replace("cifar-10", "cifar10")
    if key == "digits":
        return Dataset(*digits(split, size=size), _DIGITS, key)
    if key in _NAMED:
        reader, classes = _NAMED[key]
        data = Dataset(*reader(root, split), classes, key)
    else:
        data = _load_path(name, split, size)
    if size is None or data.images.shape[1:3] == pair(size):
        return data
    return Dataset(bilinear(data.images, size), data.labels, data.classes, data.name)


_NAMED: dict[str, tuple[Callable[..., Pair], tuple[str, ...]]] = {
    "mnist": (mnist, _DIGITS),
    "fashion-mnist": (fashion_mnist, _FASHION),
    "cifar10": (cifar10, _CIFAR),
}


def _load_path(name: str, split: str | None, size: int | tuple[int, int] | None) -> Dataset:
    import difflib  # slow to import, and rarely needed

    path = Path(name).expanduser()
    _check_split(name, split)
    if not path.exists():
        known = ["digits", *_NAMED]
        near = difflib.get_close_matches(name, known, n=1)
        raise DataError(
            f"data: {name!r} is neither a data set ({', '.join(known)}) nor a file or folder"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    check_kind("data", path)
    stem = path.resolve().name.split(".")[0]
    if path.is_dir():
        if _holds_idx(path):
            return _idx_dataset(stem, *_idx_folder(stem, path, split))
        if _holds_cifar(path):
            return Dataset(*_cifar_folder(stem, path, split), _CIFAR, stem)
        return _load_class_folders(stem, path, split, size)
    if path.suffix == ".npz":
        images, labels, classes = readers.npz(stem, path)
    elif "images" in path.name and path.name.removesuffix(".gz").endswith("ubyte"):
        images, labels = readers.idx_pair(stem, path, _labels_beside(stem, path))
        classes = _idx_dataset(stem, images, labels, _set_of(labels)).classes
    elif path.name.removesuffix(".gz").endswith(".bin"):
        images, labels = readers.cifar(stem, path)
        classes = _CIFAR
    else:
        raise DataError(
            f"data: {path} is of no known kind; an .npz file, IDX images "
            "(*-images-idx3-ubyte, perhaps .gz), a CIFAR-10 .bin file or a folder was expected"
        )
    return Dataset(*_part(stem, images, labels, split), classes, stem)


def _load_class_folders(
    stem: str, path: Path, split: str | None, size: int | tuple[int, int] | None
) -> Dataset:
    parts = [path / "train", path / "test"]
    if not all(part.is_dir() and subfolders(part) for part in parts):
        images, labels, classes = image_folder(path, size)
        return Dataset(*_part(stem, images, labels, split), classes, stem)
    if split is not None:
        return Dataset(*image_folder(path / split, size), stem)
    train, test = (image_folder(part, size) for part in parts)
    if train[2] != test[2]:
        only = sorted(set(train[2]) ^ set(test[2]))[0]
        raise DataError(f"{stem}: class {only!r} is in only one of {parts[0]} and {parts[1]}")
    return Dataset(*_joined(stem, path, [train[:2], test[:2]]), train[2], stem)


def _part(name: str, images: Images, labels: Labels, split: str | None) -> Pair:
    """All, or the stratified fifth ("test"), or the other four fifths ("train")."""
    if split is None:
        return images, labels
    in_test = np.zeros(len(labels), bool)
    in_test[np.argsort(labels, kind="stable")[::5]] = True
    if in_test.all():
        raise DataError(f"{name}: {len(labels)} image is too few for a train and a test part")
    chosen = in_test if split == "test" else ~in_test
    return images[chosen], labels[chosen]


def _check_split(name: str, split: str | None) -> None:
    if split not in ("train", "test", None):
        raise DataError(f"{name}: split must be 'train', 'test' or None, not {split!r}")


def _locate(
    name: str,
    root: str | PathLike[str] | None,
    within: tuple[str, ...],
    holds: Callable[[Path], bool],
    source: download.Source,
) -> Path:
    """The folder of a data set's files: `root`, DEEPKIT_DATA, or a download."""
    named = root if root is not None else os.environ.get("DEEPKIT_DATA") or None
    if named is None:
        return download.fetch(name, source)
    base = Path(named).expanduser()
    origin = "" if root is not None else " (named by DEEPKIT_DATA)"
    if not base.is_dir():
        state = "is not a folder" if base.exists() else "does not exist"
        if root in ("train", "test"):
            state += f"; the folder comes first: {name.replace('-', '_')}(split={root!r})"
        raise DataError(f"{name}: {base}{origin} {state}")
    for folder in (base, *(base / sub for sub in within)):
        if holds(folder):
            return folder
    raise DataError(
        f"{name}: neither {base}{origin} nor its subfolder {within[0]} holds the data set's files "
        f"({', '.join(source.md5)})"
    )


def _idx_set(
    name: str, root: str | PathLike[str] | None, split: str | None, source: download.Source
) -> Pair:
    _check_split(name, split)
    within = (name, name.replace("-", "_"))
    folder = _locate(name, root, within, _holds_idx, source)
    images, labels, published = _idx_folder(name, folder, split, classes=10)
    if published not in (None, name):
        raise DataError(f"{name}: the files in {folder} are those of {published}")
    return images, labels


def _idx_folder(
    name: str, folder: Path, split: str | None, classes: int | None = None
) -> tuple[Images, Labels, str | None]:
    """Images, labels, and the name of the published data set, if it is one."""
    prefixes = {"train": ["train"], "test": ["t10k"], None: ["train", "t10k"]}[split]
    parts = []
    for prefix in prefixes:
        images, labels = (_idx_file(folder, prefix, kind) for kind in _IDX_RANK)
        if images is None or labels is None:
            missing = "images-idx3" if images is None else "labels-idx1"
            raise DataError(f"{name}: {folder} holds no {prefix}-{missing}-ubyte, plain or .gz")
        parts.append(readers.idx_pair(name, images, labels, classes))
    return *_joined(name, folder, parts), _set_of(parts[0][1])


def _idx_file(folder: Path, prefix: str, kind: str) -> Path | None:
    rank = _IDX_RANK[kind]
    for stem in (f"{prefix}-{kind}-{rank}-ubyte", f"{prefix}-{kind}.{rank}-ubyte"):
        for path in (folder / stem, folder / f"{stem}.gz"):
            if path.is_file():
                return path
    return None


def _holds_idx(folder: Path) -> bool:
    return any(
        _idx_file(folder, prefix, kind) is not None
        for prefix in ("train", "t10k")
        for kind in _IDX_RANK
    )


def _labels_beside(name: str, images: Path) -> Path:
    """The labels' file that belongs to an IDX file of images, by the published names."""
    plain = images.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    for path in (images.with_name(plain), images.with_name(f"{plain}.gz")):
        if path.is_file():
            return path
    raise DataError(f"{name}: {images} has no {plain}, plain or .gz, beside it")


def _set_of(labels: Labels) -> str | None:
    """The published data set with these labels, if there is one."""
    return _LABELS.get(zlib.crc32(labels.astype(np.uint8).tobytes()))


def _idx_dataset(stem: str, images: Images, labels: Labels, published: str | None) -> Dataset:
    """A published set gets its own name and class names; any other its numbers."""
    if published is not None:
        return Dataset(images, labels, _NAMED[published][1], published)
    numbers = tuple(str(label) for label in range(int(labels.max()) + 1))
    return Dataset(images, labels, numbers, stem)


def _holds_cifar(folder: Path) -> bool:
    return bool(_cifar_files(folder, "")) or (folder / _TAR).is_file()


def _cifar_files(folder: Path, kind: str) -> list[Path]:
    """Batches in order; of a batch that is there twice (plain and .gz), the shorter name."""
    found: dict[str, Path] = {}
    for pattern in (f"{kind}*_batch*.bin", f"{kind}*_batch*.bin.gz"):
        for path in sorted(folder.glob(pattern)):
            found.setdefault(path.name.split(".")[0], path)
    return [found[batch] for batch in sorted(found)]


def _cifar_folder(name: str, folder: Path, split: str | None) -> Pair:
    kinds = {"train": ["data"], "test": ["test"], None: ["data", "test"]}[split]
    if not _cifar_files(folder, ""):
        return _joined(name, folder, _cifar_tar(name, folder / _TAR, kinds))
    parts = []
    for kind in kinds:
        files = _cifar_files(folder, kind)
        if not files:
            missing = "test_batch.bin" if kind == "test" else "data_batch_*.bin"
            raise DataError(f"{name}: {folder} holds no {missing}, plain or .gz")
        parts += [readers.cifar(name, file) for file in files]
    return _joined(name, folder, parts)


def _cifar_tar(name: str, path: Path, kinds: list[str]) -> list[Pair]:
    """The batches of the published archive, unpacked in memory only."""
    import tarfile  # slow to import, and rarely needed

    batches = {}
    with reading(name, path), tarfile.open(path, "r:gz") as archive:
        for member in archive:
            batch = Path(member.name).name
            if batch.endswith("_batch.bin") or batch.startswith("data_batch"):
                stream = archive.extractfile(member)
                if stream is not None:
                    batches[batch] = stream.read(readers.CIFAR_LIMIT + 1)
    wanted = [batch for kind in kinds for batch in sorted(batches) if batch.startswith(kind)]
    if not wanted:
        raise DataError(f"{name}: {path} holds no {' or '.join(kinds)} batch")
    return [readers.cifar_records(f"{name}: {path} {batch}", batches[batch]) for batch in wanted]


def _joined(name: str, folder: Path, parts: list[Pair]) -> Pair:
    if len(parts) == 1:
        return parts[0]
    shapes = {images.shape[1:] for images, _ in parts}
    if len(shapes) > 1:
        raise DataError(f"{name}: {folder} holds images of different shapes: {sorted(shapes)}")
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
