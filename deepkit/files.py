"""Files written whole: a reader, or a crash, meets the old file or the new one."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import stat
import threading
import zlib
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

LONGEST = 200  # bytes of a name to which a temporary one can add its own; file systems take 255


@contextlib.contextmanager
def whole(path: str | PathLike[str]) -> Iterator[Path]:
    """`with whole("a.png") as temporary:` fill `temporary`; then it takes the name of `path`.

    The folder of `path` is made if need be; the temporary file lies in it, under a name of its own.
    It is gone if the block raises; one that a killed process left goes with the next. Contents and
    name are on the disk before the end. A link stays a link, to a new file; an old file's mode bits
    become the new one's. OSError for what exists and is no regular file: a folder, device or pipe.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    mode = _mode(target)
    temporary = temporary_name(target)
    try:
        # nobody reads in the new file, half written, what only its owner may read in the old one
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o666 if mode is None else 0o600))
        yield temporary
        _sync(temporary)
        if mode is not None:
            temporary.chmod(mode)
        os.replace(temporary, target)
        if os.name == "posix":  # elsewhere a folder cannot be opened
            _sync(target.parent)  # so that the new name survives a loss of power
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def check_regular(path: str | PathLike[str]) -> None:
    """OSError for what exists and is no regular file, such as a pipe, which would be waited on."""
    with contextlib.suppress(FileNotFoundError):
        found = os.stat(path).st_mode
        if stat.S_ISDIR(found):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(found):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))


def _mode(path: Path) -> int | None:
    """The mode bits of a regular file; None if there is none yet."""
    check_regular(path)
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else None


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no other writer uses; what killed writers left behind goes away."""
    name = path.name
    if len(os.fsencode(name)) > LONGEST:
        name = f"{zlib.crc32(os.fsencode(name)):08x}"
    for stray in path.parent.glob(f".{glob.escape(name)}.*.part"):
        pid = stray.name.split(".")[-3]
        if os.name == "posix" and pid.isdigit() and not _alive(int(pid)):
            stray.unlink(missing_ok=True)
    return path.with_name(f".{name}.{os.getpid()}.{threading.get_ident()}.part")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _sync(path: Path) -> None:
    # Windows syncs only what may be written
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
