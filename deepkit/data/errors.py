"""The one exception of the data package, and what turns a library's complaint into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike


class DataError(ValueError):
    """A data set that is missing, damaged or not what it claims to be; the text is one sentence."""


class DataWarning(UserWarning):
    """Data that can be used and are probably not what they were meant to be."""


@contextmanager
def reading(what: str, path: str | PathLike[str]) -> Iterator[None]:
    """Run a block that reads `path`; whatever goes wrong there becomes one :class:`DataError`.

    The block should do little else: on damaged bytes gzip, zip, tar and npy readers raise whatever
    their parsing stumbles over, so that every exception is taken for the file's.
    """
    check_kind(what, path)
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{what}: {path} does not exist") from error
    except MemoryError as error:
        raise DataError(f"{what}: {path} does not fit into memory") from error
    except OSError as error:
        # an errno means the system refused; libraries also raise bare OSErrors about the contents
        state = "cannot be read" if error.errno else "is damaged"
        raise DataError(f"{what}: {path} {state} ({reason(error)})") from error
    except Exception as error:
        raise DataError(f"{what}: {path} is damaged ({reason(error)})") from error


def check_kind(what: str, path: str | PathLike[str]) -> None:
    """DataError for a pipe or a device, which a reader would wait on for ever."""
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise DataError(f"{what}: {path} is neither a regular file nor a folder")


def reason(error: BaseException) -> str:
    """What an exception says, on one line; its type where it says nothing."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
