"""A folder of images, one subfolder a class, read with Pillow."""

from __future__ import annotations

import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, check_kind, reading, reason
from .resize import check_size, pair

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_GREY = {"1", "L", "LA"}
_DEEP = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}


def image_folder(
    root: str | PathLike[str],
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...]]:
    """Read ``root/CLASS/IMAGE`` -> images uint8 (N, H, W, C), labels int64 (N,), class names.

    Classes are the subfolders in sorted order, images follow in sorted order within them; other
    files and hidden ones are passed over. `size`, one number or (height, width), resizes every
    image to it (bilinear, the aspect is not kept); without it all must have one size. `channels`
    is 1 (grey) or 3 (RGB); without it, 1 if all images are grey. Transparency is dropped; an
    animation gives its first frame. Raises :class:`DataError` for a folder without images, sizes
    that differ, and an image that cannot be decoded.
    """
    what = "image_folder"
    if channels not in (None, 1, 3):
        raise DataError(f"{what}: channels must be 1, 3 or None, not {channels!r}")
    wanted = None if size is None else pair(size)
    files, labels, classes = _list(what, Path(root).expanduser())
    headers = [_header(what, file) for file in files]
    if wanted is None:
        for file, (shape, _) in zip(files, headers, strict=True):
            if shape != headers[0][0]:
                raise DataError(
                    f"{what}: {file} is {shape[0]}x{shape[1]} but {files[0]} is "
                    f"{headers[0][0][0]}x{headers[0][0][1]}; a size (on the command line "
                    "--size H,W) resizes all of them"
                )
        wanted = headers[0][0]
    if channels is None:
        channels = 1 if all(mode in _GREY for _, mode in headers) else 3
    check_size(len(files), *wanted, channels)
    images = np.empty((len(files), *wanted, channels), np.uint8)
    for image, file in zip(images, files, strict=True):
        image[...] = _pixels(what, file, wanted, channels)
    return images, np.array(labels, np.int64), classes


def _list(what: str, root: Path) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """All image files, their labels, and the names of the classes."""
    files: list[Path] = []
    labels: list[int] = []
    with reading(what, root):
        folders = subfolders(root)
        if not folders:
            raise DataError(f"{what}: {root} has no subfolders; one a class was expected")
        for label, folder in enumerate(folders):
            found = sorted(
                file
                for file in folder.iterdir()
                if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
            )
            if not found:
                raise DataError(
                    f"{what}: class folder {folder} holds no images; "
                    f"some ({' '.join(sorted(SUFFIXES))}) were expected"
                )
            files += found
            labels += [label] * len(found)
    return files, labels, tuple(folder.name for folder in folders)


def subfolders(root: Path) -> list[Path]:
    """The folders in `root` that are not hidden, sorted."""
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            "image_folder: reading images needs the package pillow (pip install pillow)"
        ) from error
    return Image


def _header(what: str, file: Path) -> tuple[tuple[int, int], str]:
    """(height, width) and mode of an image, without decoding it.

    A PNG must have all its parts, whole: the decoder stops after the last pixel.
    """
    with _decoding(what, file) as image:
        if image.mode in _DEEP:
            raise DataError(
                f"{what}: {file} has more than 8 bits a channel (mode {image.mode}); "
                "8 bits were expected"
            )
        found = (image.height, image.width), image.mode
        image.verify()
        return found


def _pixels(what: str, file: Path, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """Decode one image -> uint8 (height, width, channels)."""
    with _decoding(what, file) as image:
        image = image.convert("L" if channels == 1 else "RGB")
        if (image.height, image.width) != size:
            image = image.resize((size[1], size[0]), _pillow().Resampling.BILINEAR)
        return np.asarray(image, np.uint8).reshape(*size, channels)


class _decoding:
    """Open an image; whatever a decoder raises, and they raise anything, becomes one sentence."""

    def __init__(self, what: str, file: Path):
        self.what, self.file = what, file

    def __enter__(self) -> Any:
        Image = _pillow()
        check_kind(self.what, self.file)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                self.image = Image.open(self.file)
        except Exception as error:
            raise self._sentence(error) from error
        return self.image

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.image.close()
        if isinstance(error, Exception) and not isinstance(error, DataError):
            raise self._sentence(error) from error

    def _sentence(self, error: Exception) -> DataError:
        if isinstance(error, _pillow().UnidentifiedImageError):
            return DataError(f"{self.what}: {self.file} is not an image that Pillow can read")
        return DataError(f"{self.what}: {self.file} cannot be decoded ({reason(error)})")
