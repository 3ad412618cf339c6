"""Pooling: a thread an element of the result, or 16 bytes of channels."""

from __future__ import annotations

import ctypes

from .grids import BLOCK, blocks_of
from .launch import Kernels
from .structures import structure

_pool = Kernels("pool")

_both = ctypes.c_int * 2
Pooling = structure(
    "Pooling",
    [
        *[(name, _both) for name in ("size", "outputs", "window", "stride", "dilation")],
        *[(name, _both) for name in ("before", "after")],
        ("channels", ctypes.c_int),
    ],
)


def _launch(name, result, *others, x, y, window, stride, padding, dilation=(1, 1), options=()):
    """x and y: the arrays of pixels and of windows, whichever of them is the result."""
    if not result.size:
        return
    pooling = Pooling(
        x.shape[1:3], y.shape[1:3], window, stride, dilation, *zip(*padding, strict=True),
        channels=x.shape[3],
    )  # fmt: skip
    grid = blocks_of(result.size)
    arrays = (result, *others)
    _pool.run(name, grid, BLOCK, *arrays, x.shape[0], pooling, *options, T=result.dtype)


# the largest --------------------------------------------------------------------------------------


def max_pool2d(y, index, x, *, window, stride, padding, dilation, ceil_mode):
    windows = dict(window=window, stride=stride, padding=padding, dilation=dilation)
    _launch("max_pool2d", y, index, x, x=x, y=y, **windows)


def max_pool2d_dx(dx, g, index, *, size, window, stride, padding, dilation):
    windows = dict(window=window, stride=stride, padding=padding, dilation=dilation)
    _launch("max_pool2d_dx", dx, g, index, x=dx, y=g, **windows)


def max_pool2d_gather(y, x, index, *, window, stride, padding, dilation):
    windows = dict(window=window, stride=stride, padding=padding, dilation=dilation)
    _launch("max_pool2d_gather", y, x, index, x=x, y=y, **windows)


# the mean -----------------------------------------------------------------------------------------


def avg_pool2d(y, x, *, window, stride, padding, ceil_mode, count_include_pad):
    windows = dict(window=window, stride=stride, padding=padding)
    _launch("avg_pool2d", y, x, x=x, y=y, **windows, options=(count_include_pad,))


def avg_pool2d_dx(dx, g, *, size, window, stride, padding, ceil_mode, count_include_pad):
    windows = dict(window=window, stride=stride, padding=padding)
    _launch("avg_pool2d_dx", dx, g, x=dx, y=g, **windows, options=(count_include_pad,))
