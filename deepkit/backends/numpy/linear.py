"""Matrix products."""

from __future__ import annotations

import math

import numpy as np

from .elementwise import relu, sigmoid, tanh

ACTIVATIONS = {"relu": relu, "tanh": tanh, "sigmoid": sigmoid}


def _activate(y, activation):
    """A fused activation: in place, over what the op computed."""
    if activation is not None:
        ACTIVATIONS[activation](y, y)


def product(y, a, b, *, ta, tb):
    np.matmul(a.swapaxes(-1, -2) if ta else a, b.swapaxes(-1, -2) if tb else b, out=y)


def linear(y, x, w, b, *, activation):
    np.matmul(x, w.T, out=y)
    if b is not None:
        y += b
    _activate(y, activation)


def linear_dx(dx, g, w):
    np.matmul(g, w, out=dx)


def linear_dw(dw, g, x):
    rows, inner = dw.shape
    count = math.prod(x.shape[:-1])  # for reshape to know where there are no elements
    np.matmul(g.reshape(count, rows).T, x.reshape(count, inner), out=dw)
