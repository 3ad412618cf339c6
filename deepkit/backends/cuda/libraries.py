"""Where CUDA's libraries are: wheels of the package index, the toolkit, or the system."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import glob
import importlib
import importlib.util
import os
from typing import Any


def load(name: str) -> Any:
    """The shared library lib<name>, or None where there is none that loads."""
    for place in _places(name):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(place)
    return None


def _places(name: str) -> list[str]:
    found: list[str] = []
    if importlib.util.find_spec("cuda") and importlib.util.find_spec("cuda.pathfinder"):
        pathfinder = importlib.import_module("cuda.pathfinder")
        with contextlib.suppress(Exception):  # it has an error of its own for what it cannot find
            found.append(pathfinder.load_nvidia_dynamic_lib(name).abs_path)
    nvidia = importlib.util.find_spec("nvidia")
    for folder in nvidia.submodule_search_locations or () if nvidia else ():
        found += sorted(glob.glob(f"{folder}/*/lib/lib{name}.so.*"), reverse=True)
    for root in (os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), "/usr/local/cuda"):
        found += [f"{root}/lib64/lib{name}.so"] if root else []
    named = ctypes.util.find_library(name)
    return found + ([named] if named else [])
