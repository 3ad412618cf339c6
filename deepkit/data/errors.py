"""The one exception of the data package, and what turns a library's complaint into it."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike


class DataError(ValueError):
    """A data set that is missing, damaged or not what it claims to be; the text is one sentence."""


# What opening, unpacking and parsing can raise when a file is missing, damaged or hostile.
_TROUBLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextmanager
def reading(what: str, path: str | PathLike[str]) -> Iterator[None]:
    """Run a block that reads `path`; whatever goes wrong there becomes one :class:`DataError`."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{what}: {path} does not exist") from error
    except MemoryError as error:
        raise DataError(f"{what}: {path} does not fit into memory") from error
    except OSError as error:
        raise DataError(f"{what}: {path} cannot be read ({error.strerror or error})") from error
    except _TROUBLE as error:
        raise DataError(f"{what}: {path} is damaged ({error})") from error
