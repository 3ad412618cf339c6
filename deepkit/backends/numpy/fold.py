"""Batch norm by running statistics, as a part of the filters and the bias before it."""

from __future__ import annotations

import numpy as np

from .. import scratch

DOUBLE = np.dtype(np.float64)


@scratch(lambda y, shift, *_, **__: [(shift.shape, DOUBLE), (shift.shape, DOUBLE)])
@np.errstate(all="ignore")
def fold_batch_norm(y, shift, w, b, gamma, beta, mean, var, *, eps, scratch):
    scale, moved = scratch
    np.add(var, eps, out=scale)
    np.sqrt(scale, out=scale)
    np.divide(1.0 if gamma is None else gamma, scale, out=scale)
    rows = scale.reshape(-1, *(1,) * (w.ndim - 1))
    np.multiply(w, rows, out=y, casting="same_kind")
    np.subtract(0.0 if b is None else b, mean, out=moved)
    moved *= scale
    np.add(moved, 0.0 if beta is None else beta, out=shift, casting="same_kind")
