"""Where compiled kernels are kept between runs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llvmlite import binding
from numba.core import config

from .machine import VECTOR_BYTES


def _cache_folder() -> str:
    """One folder for each state of the sources, Numba version and processor."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    digest.update(importlib.metadata.version("numba").encode())
    digest.update(f"{binding.get_host_cpu_name()} {VECTOR_BYTES}".encode())
    for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"):
        digest.update(os.environ.get(name, "").encode())
    base = os.environ.get("DEEPKIT_CACHE")
    if base is None:
        base = os.path.join(
            os.environ.get("XDG_CACHE_HOME", os.path.join(os.path.expanduser("~"), ".cache")),
            "deepkit",
        )
    return os.path.join(base, "numba", digest.hexdigest()[:16])


CACHE_FOLDER = _cache_folder()


DAMAGED = (pickle.UnpicklingError, EOFError, AttributeError, IndexError, ValueError)


def cached(decorate: Callable, function: Callable) -> Any:
    """`decorate(function)` with Numba's cache in our folder, and nobody else's setting changed.

    A cache that cannot be read (cut off, overwritten) is thrown away, and everything compiled anew.
    """
    before = config.CACHE_DIR
    config.CACHE_DIR = CACHE_FOLDER
    try:
        return decorate(function)
    except DAMAGED:
        shutil.rmtree(CACHE_FOLDER, ignore_errors=True)
        return decorate(function)
    finally:
        config.CACHE_DIR = before
