"""Convolutions on tensor cores: `direct` where `dk.precision` asks for less than float32."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from .. import current_precision
from .conv_parts import divided, sum_parts
from .conv_sizes import conv
from .elementwise import fill_
from .grids import BLOCK, blocks_of
from .launch import Kernels, driver_of
from .products import FLOAT32, PRECISIONS, TENSOR_CORES

_kernels = Kernels("conv_tensor")
_dw_kernels = Kernels("conv_tensor_dw")
_largest = Kernels("linear_tensor")

DEEP, STAGES = 32, 3  # as in conv_tensor.cu


class Tile(NamedTuple):
    """What conv_tensor.cu is compiled for."""

    LONG: int  # results of a block
    SHORT: int
    DOWN: int  # rows of a warp, which has 32 columns

    @property
    def threads(self) -> int:
        return self.LONG // self.DOWN * self.SHORT

    def cover(self, long: int, short: int) -> int:
        """How many of them so many results take."""
        return -(-long // self.LONG) * -(-short // self.SHORT)

    def shared(self, *across: bool) -> int:
        """Bytes of shared memory: stages of two tiles, along the depth or across it."""
        rows = zip((self.LONG, self.SHORT), across, strict=True)
        return 4 * STAGES * sum(DEEP * (n + 8) if turned else n * (DEEP + 4) for n, turned in rows)


LARGE = (Tile(128, 128, 64), Tile(128, 64, 64), Tile(128, 32, 32))
SMALL = Tile(64, 64, 32)
ENOUGH = 132  # tiles: one for each multiprocessor of an H200


def wanted(y: Any) -> bool:
    """Whether less than float32 is asked for, and there."""
    if current_precision() == "float32" or y.dtype != FLOAT32:
        return False
    return driver_of(y)[0].capability >= TENSOR_CORES


def scratch_of(y: Any) -> list[tuple[Any, Any]]:
    """The largest elements of two operands, which float16 is scaled by."""
    return [((2,), np.dtype(np.uint32))] if wanted(y) and current_precision() == "float16" else []


@functools.cache
def _types(tile: Tile, precision: str) -> dict[str, Any]:
    sizes = {name: str(size) for name, size in tile._asdict().items()}
    return {"T": FLOAT32, "PRECISION": PRECISIONS[precision]} | sizes


def _measured(scratch: Any, a: Any, b: Any) -> Any:
    """The largest |a| and |b|, where float16 needs them."""
    if current_precision() != "float16":
        return None
    largest = scratch[-1]
    fill_(largest, value=0)
    for i, x in enumerate((a, b)):
        _largest.run("product_largest", blocks_of(x.size), BLOCK, largest[i : i + 1], x, x.size,
                     T=FLOAT32, PRECISION=PRECISIONS["float16"])  # fmt: skip
    return largest


def _tile(pixels: int, channels: int, groups: int) -> Tile:
    """The widest one that these channels fill more than half, if there are enough of them."""
    wide = next((t for t in LARGE if channels > t.SHORT // 2), LARGE[-1])
    for tile in LARGE[LARGE.index(wide) :]:
        if tile.cover(pixels, channels) * groups >= ENOUGH:
            return tile
    return SMALL if channels > 32 else LARGE[-1]


def conv2d(y, x, w, b, *, scratch, groups, **settings):
    sizes = conv(x, y, w.shape[1:3], groups=groups, **settings)
    pixels, channels = math.prod(y.shape[:3]), y.shape[3] // groups
    tile = _tile(pixels, channels, groups)
    grid = tile.cover(pixels, channels) * groups
    if grid:
        largest = _measured(scratch, x, w)
        types = _types(tile, current_precision())
        _kernels.run("conv2d_tensor", grid, tile.threads, y, x, w, b, largest, sizes,
                     shared=tile.shared(False, False), **types)  # fmt: skip


def conv2d_dx(dx, g, w, *, scratch, groups, stride, size, **settings):
    sizes = conv(dx, g, w.shape[1:3], groups=groups, stride=stride, **settings)
    phases = math.prod(stride)
    pixels = dx.shape[0] * math.prod(-(-d // s) for d, s in zip(size, stride, strict=True))
    tile = _tile(pixels, w.shape[3], groups * phases)
    grid = tile.cover(pixels, w.shape[3]) * groups * phases
    if grid:
        largest = _measured(scratch, g, w)
        types = _types(tile, current_precision())
        _kernels.run("conv2d_dx_tensor", grid, tile.threads, dx, g, w, largest, sizes,
                     shared=tile.shared(False, True), **types)  # fmt: skip


class _Divided(NamedTuple):
    """How the gradient for filters is computed: in parts of so many pixels."""

    tile: Tile
    tiles: int
    parts: int
    length: int


def _divided(dw: Any, g: Any, groups: int) -> _Divided:
    filters, depth = dw.shape[0] // groups, math.prod(dw.shape[1:])
    tile = next((t for t in LARGE if filters > t.SHORT // 2), LARGE[-1])
    tiles = tile.cover(depth, filters) * groups
    return _Divided(tile, tiles, *divided(math.prod(g.shape[:3]), tiles, dw.size))


def dw_scratch(dw: Any, g: Any, groups: int) -> list[tuple[Any, Any]]:
    parts = _divided(dw, g, groups).parts
    return [((parts, *dw.shape) if parts > 1 else (0,), dw.dtype), *scratch_of(dw)]


def conv2d_dw(dw, g, x, *, scratch, groups, window, **settings):
    sizes = conv(x, g, window, groups=groups, **settings)
    tile, tiles, parts, length = _divided(dw, g, groups)
    sums = scratch[0] if parts > 1 else dw
    largest = _measured(scratch, x, g)
    types = _types(tile, current_precision())
    _dw_kernels.run("conv2d_dw_tensor", tiles * parts, tile.threads, sums, g, x, largest, parts,
                    length, sizes, shared=tile.shared(True, True), **types)  # fmt: skip
    if parts > 1:
        sum_parts(dw, sums, parts)
