"""Batch norm by running statistics, as a part of the filters and the bias before it."""

from __future__ import annotations

import math
from typing import Any

import numba

from .launch import flt, kernel, launch, ptr, size
from .simd import at, real


@kernel
def _fold(
    t, n, y: ptr, shift: ptr, w: ptr, b: ptr, gamma: ptr, beta: ptr, mean: ptr, var: ptr,
    filters: size, taps: size, given: size, eps: flt,
):  # fmt: skip
    """In float64, since it is done once and read again and again."""
    for k in range(t * filters // n, (t + 1) * filters // n):
        factor = 1.0 / math.sqrt(numba.float64(var[k]) + real(eps))
        if given & 2:
            factor *= gamma[k]
        moved = numba.float64(b[k]) if given & 1 else 0.0
        moved = (moved - mean[k]) * factor
        shift[k] = moved + beta[k] if given & 4 else moved
        source, target = at(w, k * taps), at(y, k * taps)
        for i in range(taps):
            target[i] = source[i] * factor


def fold_batch_norm(
    y: Any, shift: Any, w: Any, b: Any, gamma: Any, beta: Any, mean: Any, var: Any, *, eps: float
) -> None:
    given = sum(bit for bit, a in ((1, b), (2, gamma), (4, beta)) if a is not None)
    launch(_fold, y.dtype, y, shift, w, b, gamma, beta, mean, var, w.shape[0],
           w.size // max(1, w.shape[0]), given, eps)  # fmt: skip
