"""Convolutions as products of tiles that gather what they need: no columns in memory."""

from __future__ import annotations

import math
from typing import Any

from .. import scratch
from . import conv_depthwise
from .conv_parts import divided, sum_parts
from .conv_sizes import conv
from .launch import Kernels

_tiled = Kernels("conv_tiled")
_tiled_dw = Kernels("conv_tiled_dw")

MULTIPROCESSORS = 132  # of an H200; with fewer tiles than that, some of them would be idle


def _tiles(pixels: int, channels: int, groups: int, dtype: Any) -> tuple[str, int]:
    """The tile (pixels x channels) for so many results, and how many of them there are."""
    across = _across(channels)
    count = -(-pixels // 128) * -(-channels // across) * groups
    if dtype.itemsize == 4 and count >= MULTIPROCESSORS:
        return f"128x{across}", count
    return "64x32", -(-pixels // 64) * -(-channels // 32) * groups


def _across(channels: int) -> int:
    return 64 if channels > 32 else 32 if channels > 16 else 16


def _depthwise(inside: int, groups: int) -> bool:
    """Whether a group has no channels to sum over.  (One channel without groups is tiled.)"""
    return groups > 1 and inside == 1


def conv2d(y, x, w, b, *, groups, **settings):
    if _depthwise(w.shape[3], groups):
        conv_depthwise.conv2d(y, x, w, b, groups=groups, **settings)
        return
    sizes = conv(x, y, w.shape[1:3], groups=groups, **settings)
    tile, grid = _tiles(math.prod(y.shape[:3]), y.shape[3] // groups, groups, y.dtype)
    _tiled.run(f"conv2d_{tile}", grid, 128, y, x, w, b, sizes, T=y.dtype)


def conv2d_dx(dx, g, w, *, groups, stride, size, **settings):
    if _depthwise(w.shape[3], groups):
        conv_depthwise.conv2d_dx(dx, g, w, groups=groups, stride=stride, size=size, **settings)
        return
    sizes = conv(dx, g, w.shape[1:3], groups=groups, stride=stride, **settings)
    rows, columns = (-(-d // s) for d, s in zip(size, stride, strict=True))
    tile, grid = _tiles(dx.shape[0] * rows * columns, w.shape[3], groups, dx.dtype)
    phases = math.prod(stride)
    _tiled.run(f"conv2d_{tile}_dx", grid * phases, 128, dx, g, w, sizes, T=dx.dtype)


def _dw_tiles(dw: Any, g: Any, groups: int) -> tuple[str, int, int, int]:
    """The tile ((r, s, c) x filters), how many there are, parts of the pixels and their length."""
    filters, depth = dw.shape[0] // groups, math.prod(dw.shape[1:])
    down, across = 128, _across(filters)
    if dw.dtype.itemsize != 4 or (depth <= 64 and filters <= 32):
        down, across = 64, 32
    count = -(-depth // down) * -(-filters // across) * groups
    return f"{down}x{across}", count, *divided(math.prod(g.shape[:3]), count, dw.size)


def _dw_parts(dw: Any, g: Any, x: Any, *, groups: int, **_: Any) -> list[tuple[Any, Any]]:
    if _depthwise(dw.shape[3], groups):
        return conv_depthwise.parts(dw, g)
    parts = _dw_tiles(dw, g, groups)[2]
    return [((parts, *dw.shape) if parts > 1 else (0,), dw.dtype)]


@scratch(_dw_parts)
def conv2d_dw(dw, g, x, *, scratch, groups, window, **settings):
    if _depthwise(dw.shape[3], groups):
        conv_depthwise.conv2d_dw(
            dw, g, x, scratch=scratch, groups=groups, window=window, **settings
        )
        return
    sizes = conv(x, g, window, groups=groups, **settings)
    tile, count, parts, length = _dw_tiles(dw, g, groups)
    sums = scratch[0] if parts > 1 else dw
    name = f"conv2d_dw_{tile}"
    _tiled_dw.run(name, count * parts, 128, sums, g, x, parts, length, sizes, T=dw.dtype)
    if parts > 1:
        sum_parts(dw, sums, parts)
