"""Downloads: published checksums, several mirrors tried in turn, one cache for all projects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import DataError, reason


@dataclass(frozen=True)
class Source:
    """Where a data set's files are: MD5 sums by file name, and base addresses that hold them."""

    md5: dict[str, str]
    mirrors: tuple[str, ...]


MNIST = Source(
    md5={
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    ),
)
FASHION_MNIST = Source(
    md5={
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
)
CIFAR10 = Source(
    md5={"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
    mirrors=(
        "https://www.cs.toronto.edu/~kriz/",
        "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
        "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/",
    ),
)


def fetch(name: str, source: Source) -> Path:
    """Make sure that every file of `source` is in the cache -> the folder that holds them.

    The cache is the platform's own (on Linux ``~/.cache/deepkit/NAME``). A file appears there only
    after its MD5 matched. Raises :class:`DataError` if a file comes from no mirror.
    """
    try:
        import pooch
        import requests  # noqa: F401  (pooch does without, until it downloads)
    except ImportError as error:
        raise DataError(
            f"{name}: downloading needs the extra 'data', which is the packages pooch and requests "
            "(pip install pooch requests); or name a folder that has the files, as root or in "
            "DEEPKIT_DATA"
        ) from error
    folder = Path(pooch.os_cache("deepkit")) / name
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # the progress line and our errors say it all
    try:
        for file, md5 in source.md5.items():
            _fetch_one(name, file, md5, source.mirrors, folder)
    finally:
        logger.setLevel(level)
    return folder


def _fetch_one(name: str, file: str, md5: str, mirrors: tuple[str, ...], folder: Path) -> None:
    import pooch
    import requests
    from tqdm import tqdm

    failures = []
    for mirror in mirrors:
        # A passing line on a terminal, nothing elsewhere. pooch sets the true total; until then
        # there must be one, since a bar without a total has no truth value.
        progress = tqdm(
            desc=f"{name}: {file}", total=1, unit="B", unit_scale=True, disable=None, leave=False
        )
        try:
            pooch.retrieve(
                mirror + file,
                known_hash=f"md5:{md5}",
                fname=file,
                path=folder,
                downloader=pooch.HTTPDownloader(
                    progressbar=progress, chunk_size=1 << 16, timeout=20
                ),
            )
            return
        except requests.HTTPError as error:
            failures.append(f"{mirror} refused ({error})")
        except requests.RequestException as error:
            failures.append(f"{mirror} is out of reach ({type(error).__name__})")
        except ValueError:
            failures.append(f"{mirror} sent a file whose MD5 is not {md5}")
        except OSError as error:
            raise DataError(
                f"{name}: the cache {folder} cannot be written ({reason(error)})"
            ) from error
        finally:
            progress.close()
    raise DataError(
        f"{name}: {file} could not be downloaded: {'; '.join(failures)}; "
        "name a folder that has the files, as root or in DEEPKIT_DATA"
    )
