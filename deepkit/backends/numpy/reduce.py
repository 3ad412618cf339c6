"""Reductions and broadcasting."""

from __future__ import annotations

import numpy as np


def _kept(y, x, axes):
    """y with its reduced axes as axes of length 1."""
    return y.reshape([1 if i in axes else d for i, d in enumerate(x.shape)])


def sum(y, x, *, axes, keepdims):
    np.sum(x, axis=axes, keepdims=True, out=_kept(y, x, axes))


def mean(y, x, *, axes, keepdims):
    np.mean(x, axis=axes, keepdims=True, out=_kept(y, x, axes))


def max(y, x, *, axes, keepdims):
    np.max(x, axis=axes, keepdims=True, out=_kept(y, x, axes))


def min(y, x, *, axes, keepdims):
    np.min(x, axis=axes, keepdims=True, out=_kept(y, x, axes))


def argmax(index, x, *, axes, keepdims):
    np.argmax(x, axis=axes[0], out=index)


def broadcast_to(y, x, *, shape):
    y[...] = x


def sum_to(y, x, *, shape):
    lead = x.ndim - y.ndim
    axes = tuple(range(lead)) + tuple(
        i + lead for i, d in enumerate(shape) if d == 1 and x.shape[i + lead] != 1
    )
    sum(y, x, axes=axes, keepdims=False)
