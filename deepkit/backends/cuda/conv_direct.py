"""Convolutions as products of tiles that gather what they need: no columns in memory.

Depthwise ones, and those on tensor cores (`dk.precision`), have modules of their own.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from .. import scratch
from . import conv_depthwise, conv_tensor
from .conv_parts import divided, sum_parts
from .conv_sizes import conv
from .launch import Kernels

_tiled = Kernels("conv_tiled")
_tiled_dw = Kernels("conv_tiled_dw")


class Tile(NamedTuple):
    """What conv_tile.cuh is compiled for."""

    LONG: int  # results of a block
    SHORT: int
    ROWS: int  # of these, a thread's
    COLUMNS: int
    BLOCKS: int  # that a multiprocessor holds

    def cover(self, long: int, short: int) -> int:
        """How many of them so many results take."""
        return -(-long // self.LONG) * -(-short // self.SHORT)


LARGE = (Tile(128, 64, 8, 8, 3), Tile(128, 32, 8, 4, 3), Tile(128, 16, 4, 4, 4))
SMALL = Tile(64, 32, 4, 4, 5)
DOUBLE = Tile(64, 32, 4, 4, 3)  # numbers of 8 bytes take twice the registers
MULTIPROCESSORS = 132  # of an H200; with fewer tiles than that, some of them would be idle


@functools.cache
def _types(tile: Tile, dtype: Any) -> dict[str, Any]:
    return {"T": dtype} | {name: str(size) for name, size in tile._asdict().items()}


def _wide(channels: int) -> Tile:
    """The widest large tile of which these channels fill more than half."""
    return next((t for t in LARGE if channels > t.SHORT // 2), LARGE[-1])


def _tile(pixels: int, channels: int, groups: int, dtype: Any) -> Tile:
    """For so many results a group: large ones, unless there would be too few of them."""
    if dtype.itemsize > 4:
        return DOUBLE
    tile = _wide(channels)
    return tile if tile.cover(pixels, channels) * groups >= MULTIPROCESSORS else SMALL


def _depthwise(inside: int, groups: int) -> bool:
    """Whether a group has no channels to sum over.  (One channel without groups is tiled.)"""
    return groups > 1 and inside == 1


@scratch(lambda y, x, w, b, **_: conv_tensor.scratch_of(y))
def conv2d(y, x, w, b, *, scratch, groups, **settings):
    if _depthwise(w.shape[3], groups):
        conv_depthwise.conv2d(y, x, w, b, groups=groups, **settings)
        return
    if conv_tensor.wanted(y):
        conv_tensor.conv2d(y, x, w, b, scratch=scratch, groups=groups, **settings)
        return
    sizes = conv(x, y, w.shape[1:3], groups=groups, **settings)
    pixels, channels = math.prod(y.shape[:3]), y.shape[3] // groups
    tile = _tile(pixels, channels, groups, y.dtype)
    grid = tile.cover(pixels, channels) * groups
    _tiled.run("conv2d_tiled", grid, 128, y, x, w, b, sizes, **_types(tile, y.dtype))


@scratch(lambda dx, g, w, **_: conv_tensor.scratch_of(dx))
def conv2d_dx(dx, g, w, *, scratch, groups, stride, size, **settings):
    if _depthwise(w.shape[3], groups):
        conv_depthwise.conv2d_dx(dx, g, w, groups=groups, stride=stride, size=size, **settings)
        return
    if conv_tensor.wanted(dx):
        settings |= dict(groups=groups, stride=stride, size=size)
        conv_tensor.conv2d_dx(dx, g, w, scratch=scratch, **settings)
        return
    sizes = conv(dx, g, w.shape[1:3], groups=groups, stride=stride, **settings)
    phases = math.prod(stride)
    pixels = dx.shape[0] * math.prod(-(-d // s) for d, s in zip(size, stride, strict=True))
    tile = _tile(pixels, w.shape[3], groups * phases, dx.dtype)
    grid = tile.cover(pixels, w.shape[3]) * groups * phases
    _tiled.run("conv2d_dx_tiled", grid, 128, dx, g, w, sizes, **_types(tile, dx.dtype))


class _Divided(NamedTuple):
    """How the gradient for filters is computed: in parts of so many pixels."""

    tile: Tile
    tiles: int
    parts: int
    length: int


def _divided(dw: Any, g: Any, groups: int) -> _Divided:
    filters, depth = dw.shape[0] // groups, math.prod(dw.shape[1:])
    tile = _wide(filters)
    if dw.dtype.itemsize > 4:
        tile = DOUBLE
    elif depth <= SMALL.LONG and filters <= SMALL.SHORT:
        tile = SMALL
    tiles = tile.cover(depth, filters) * groups
    return _Divided(tile, tiles, *divided(math.prod(g.shape[:3]), tiles, dw.size))


def _parts(dw: Any, g: Any, x: Any, *, groups: int, **_: Any) -> list[tuple[Any, Any]]:
    if _depthwise(dw.shape[3], groups):
        return conv_depthwise.parts(dw, g)
    if conv_tensor.wanted(dw):
        return conv_tensor.dw_scratch(dw, g, groups)
    parts = _divided(dw, g, groups).parts
    return [((parts, *dw.shape) if parts > 1 else (0,), dw.dtype)]


@scratch(_parts)
def conv2d_dw(dw, g, x, *, scratch, groups, window, **settings):
    if _depthwise(dw.shape[3], groups):
        conv_depthwise.conv2d_dw(
            dw, g, x, scratch=scratch, groups=groups, window=window, **settings
        )
        return
    if conv_tensor.wanted(dw):
        settings |= dict(groups=groups, window=window)
        conv_tensor.conv2d_dw(dw, g, x, scratch=scratch, **settings)
        return
    sizes = conv(x, g, window, groups=groups, **settings)
    tile, tiles, parts, length = _divided(dw, g, groups)
    sums = scratch[0] if parts > 1 else dw
    _tiled_dw.run("conv2d_dw_tiled", tiles * parts, 128, sums, g, x, parts, length, sizes,
                  **_types(tile, dw.dtype))  # fmt: skip
    if parts > 1:
        sum_parts(dw, sums, parts)
