"""Depthwise convolutions: as many groups as channels."""

from __future__ import annotations

import math

from .conv_parts import divided, sum_parts
from .conv_sizes import conv
from .grids import MOST_BLOCKS, blocks_of
from .launch import Kernels

_kernels = Kernels("conv_depthwise")


def _grid(pixels, channels):
    """Blocks of 32 channels and 8 pixels, which go on from the end of the grid."""
    across = -(-channels // 32)
    return across * blocks_of(pixels, 8, max(1, MOST_BLOCKS // across))


def conv2d(y, x, w, b, **settings):
    sizes = conv(x, y, w.shape[1:3], **settings)
    grid = _grid(math.prod(y.shape[:3]), y.shape[3])
    _kernels.run("depthwise", grid, (32, 8), y, x, w, b, sizes, T=y.dtype)


def conv2d_dx(dx, g, w, *, size, **settings):
    sizes = conv(dx, g, w.shape[1:3], **settings)
    grid = _grid(math.prod(dx.shape[:3]), dx.shape[3])
    _kernels.run("depthwise_dx", grid, (32, 8), dx, g, w, sizes, T=dx.dtype)


def _divided(dw, g):
    """Blocks of 32 filters x up to 32 taps, parts of the pixels, the length of one."""
    taps = math.prod(dw.shape[1:])
    tiles = -(-dw.shape[0] // 32) * -(-taps // 32)
    return tiles, *divided(math.prod(g.shape[:3]), tiles, dw.size)


def parts(dw, g):
    """Scratch of conv2d_dw."""
    count = _divided(dw, g)[1]
    return [((count, *dw.shape) if count > 1 else (0,), dw.dtype)]


def conv2d_dw(dw, g, x, *, scratch, window, **settings):
    sizes = conv(x, g, window, **settings)
    tiles, count, length = _divided(dw, g)
    sums = scratch[0] if count > 1 else dw
    block = (32, min(32, math.prod(window)))
    _kernels.run("depthwise_dw", tiles * count, block, sums, g, x, count, length, sizes, T=dw.dtype)
    if count > 1:
        sum_parts(dw, sums, count)
