"""Where compiled kernels are kept: named by everything that shapes them, so never old."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


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
