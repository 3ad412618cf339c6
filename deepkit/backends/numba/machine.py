"""What the processor offers: vector width and registers, and the tiles that suit them."""

from __future__ import annotations

import os

from llvmlite import binding

from .. import SettingError

WIDTHS = (512, 256, 128)


def _features() -> set[str]:
    """Names of the features that code may use: Numba's settings first, then the processor's."""
    named = os.environ.get("NUMBA_CPU_FEATURES")
    if named is not None:
        return {f[1:] for f in named.split(",") if f.startswith("+")}
    if os.environ.get("NUMBA_CPU_NAME") == "generic":
        return set()
    return {name for name, on in binding.get_host_cpu_features().items() if on}


def _vector_bits(features: set[str]) -> int:
    forced = os.environ.get("DEEPKIT_SIMD")
    if forced:  # an empty one counts as unset
        if forced not in map(str, WIDTHS):
            raise SettingError(f"DEEPKIT_SIMD must be one of 512, 256, 128, not {forced!r}")
        return int(forced)
    return 512 if "avx512f" in features else 256 if "avx" in features else 128


FEATURES = _features()
VECTOR_BYTES = _vector_bits(FEATURES) // 8
HAS_FMA = "fma" in FEATURES or "neon" in FEATURES or "avx512f" in FEATURES
REGISTERS = 32 if "avx512vl" in FEATURES or "neon" in FEATURES else 16

# {vectors side by side: rows of accumulators, largest first}; rows * vectors accumulators, the
# vectors and one broadcast operand must fit the registers
TILES = (
    {4: (6, 4, 2, 1), 2: (8, 4, 2, 1), 1: (8, 4, 2, 1)}
    if REGISTERS == 32
    else {2: (6, 4, 2, 1), 1: (8, 4, 2, 1)}
)
DOT_TILES = {4: (4, 3, 2, 1), 1: (4, 1)} if REGISTERS == 32 else {2: (4, 2, 1), 1: (4, 1)}
