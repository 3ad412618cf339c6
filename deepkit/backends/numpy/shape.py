"""Kernels that move values."""

from __future__ import annotations

import numpy as np


def transpose(y, x, *, axes):
    y[...] = x.transpose(axes)


def _cut(x, slices):
    """x[start:stop:step] on every axis, where -1 as a stop of a negative step is before 0."""
    index = [np.s_[a : (b if b >= 0 else None) : s] for a, b, s in slices]
    return x[tuple(index)]


def slice(y, x, *, slices):
    y[...] = _cut(x, slices)


def unslice(x, g, *, shape, slices):
    x[...] = 0
    _cut(x, slices)[...] = g


def take(y, x, index, *, axis):
    length = x.shape[axis]
    for at in np.ndindex(index.shape):
        i = min(max(int(index[at]), -length), length - 1)
        y[(np.s_[:],) * axis + at] = x[(np.s_[:],) * axis + (i,)]


def take_dx(dx, g, index, *, shape, axis):
    dx[...] = 0
    length = shape[axis]
    for at in np.ndindex(index.shape):
        i = min(max(int(index[at]), -length), length - 1)
        dx[(np.s_[:],) * axis + (i,)] += g[(np.s_[:],) * axis + at]


def join(y, *xs, axis):
    start = 0
    for x in xs:
        stop = start + x.shape[axis]
        y[(np.s_[:],) * axis + (np.s_[start:stop],)] = x
        start = stop


def pad(y, x, *, widths, value):
    y[...] = value
    y[tuple(np.s_[a : a + d] for d, (a, _) in zip(x.shape, widths, strict=True))] = x
