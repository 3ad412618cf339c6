"""Convolutions as products of tiles that gather what they need: no columns in memory."""

from __future__ import annotations

import math
from typing import Any

from .conv_sizes import conv
from .launch import Kernels

_tiled = Kernels("conv_tiled")

MULTIPROCESSORS = 132  # of an H200; with fewer tiles than that, some of them would be idle


def _tiles(pixels: int, channels: int, groups: int, dtype: Any) -> tuple[str, int]:
    """The tile (pixels x channels) for so many results, and how many of them there are."""
    across = 64 if channels > 32 else 32 if channels > 16 else 16
    count = -(-pixels // 128) * -(-channels // across) * groups
    if dtype.itemsize == 4 and count >= MULTIPROCESSORS:
        return f"128x{across}", count
    return "64x32", -(-pixels // 64) * -(-channels // 32) * groups


def conv2d(y, x, w, b, *, groups, **settings):
    sizes = conv(x, y, w.shape[1:3], groups=groups, **settings)
    tile, grid = _tiles(math.prod(y.shape[:3]), y.shape[3] // groups, groups, y.dtype)
    _tiled.run(f"conv2d_{tile}", grid, 128, y, x, w, b, sizes, T=y.dtype)


def conv2d_dx(dx, g, w, *, groups, stride, size, **settings):
    sizes = conv(dx, g, w.shape[1:3], groups=groups, stride=stride, **settings)
    rows, columns = (-(-d // s) for d, s in zip(size, stride, strict=True))
    tile, grid = _tiles(dx.shape[0] * rows * columns, w.shape[3], groups, dx.dtype)
    phases = math.prod(stride)
    _tiled.run(f"conv2d_{tile}_dx", grid * phases, 128, dx, g, w, sizes, T=dx.dtype)
