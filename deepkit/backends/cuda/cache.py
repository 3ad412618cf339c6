"""Where compiled kernels are kept: named by everything that shapes them, so never old.

A file ends with a digest of what stands before it: one that was cut off or changed is made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

DIGEST = hashlib.sha256().digest_size


def base() -> Path:
    """DEEPKIT_CACHE, else `deepkit` in XDG_CACHE_HOME, else in ~/.cache; where none of them can be
    written, a folder of this user's in the system's temporary one."""
    given = os.environ.get("DEEPKIT_CACHE")
    if not given:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        given = os.path.join(home, "deepkit")
    try:
        Path(given).mkdir(parents=True, exist_ok=True)
        if os.access(given, os.W_OK):
            return Path(given)
    except OSError:
        pass
    return Path(tempfile.gettempdir(), f"deepkit-{os.getuid() if hasattr(os, 'getuid') else 0}")


def file(kind: str, label: str, suffix: str, *shaped_by: str) -> Path:
    """The file for something that depends on `shaped_by` alone."""
    digest = hashlib.sha256("\0".join(shaped_by).encode()).hexdigest()[:20]
    return base() / "cuda" / kind / f"{label}-{digest}{suffix}"


def load(path: Path) -> bytes | None:
    """What `store` has kept there; None if it is not there, or not whole."""
    try:
        found = path.read_bytes()
    except OSError:
        return None
    whole = hashlib.sha256(found[:-DIGEST]).digest() == found[-DIGEST:]
    return found[:-DIGEST] if whole else None


def store(path: Path, content: bytes) -> Path | None:
    """Write aside, then move into place: two processes may do so at once.

    -> the path, or None where nothing can be written.
    """
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as out:
            out.write(content + hashlib.sha256(content).digest())
        os.chmod(aside, 0o755)
        os.replace(aside, path)
        return path
    return None
