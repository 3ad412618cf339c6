"""Which of its kernels NumPy's OpenBLAS runs: it may take a new processor for an older one.

OpenBLAS chooses when NumPy is imported, so only a variable that is set before Python starts
(OPENBLAS_CORETYPE) changes that: this module looks, and changes nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# OpenBLAS's names for processors without AVX-512 that it may take one with it for
OLDER = ("Haswell", "Zen", "Sandybridge", "Nehalem", "Excavator", "Prescott", "Core2")
PREFIXES, SUFFIXES = ("scipy_openblas", "openblas"), ("64_", "")


def advice() -> str | None:
    """What would make products faster here, in one sentence; None where nothing is known to."""
    if os.environ.get("OPENBLAS_CORETYPE"):
        return None  # somebody has chosen
    core = openblas_core()
    if core not in OLDER or not has_avx512():
        return None
    return (
        f"its OpenBLAS runs kernels for {core} on a processor with AVX-512; "
        "OPENBLAS_CORETYPE=SkylakeX, set before Python starts, may make products faster"
    )


def openblas_core() -> str | None:
    """The processor for which OpenBLAS has chosen its kernels; None if it cannot choose or say."""
    for path in _libraries():
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(str(path))  # it is loaded already: this only counts a reference
            if "DYNAMIC_ARCH" in (_say(library, "get_config") or ""):
                return _say(library, "get_corename")
    return None


def has_avx512() -> bool:
    """Whether NumPy's own kernels found AVX-512 (Skylake's, or more)."""
    found: dict[str, Any] = np.show_config(mode="dicts")  # type: ignore[assignment]
    names = found.get("SIMD Extensions", {}).get("found", [])
    return any(name == "X86_V4" or name.startswith("AVX512") for name in names)


def _libraries() -> Iterator[Path]:
    """Files of OpenBLAS that this process uses: those that are mapped, or came with NumPy."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        package = Path(np.__file__).parent
        yield from (package.parent / "numpy.libs").glob("*openblas*")
        yield from (package / ".dylibs").glob("*openblas*")
    else:
        names = (line.split(maxsplit=5)[5] for line in lines if "openblas" in line)
        yield from (Path(name) for name in dict.fromkeys(names))


def _say(library: Any, question: str) -> str | None:
    """What a function of OpenBLAS without arguments answers, under whichever name it has."""
    for prefix in PREFIXES:
        for suffix in SUFFIXES:
            function = getattr(library, f"{prefix}_{question}{suffix}", None)
            if function is not None:
                function.restype, function.argtypes = ctypes.c_char_p, []
                answer: bytes | None = function()
                return None if answer is None else answer.decode()
    return None
