"""Convolutions on tensor cores: `direct` where `dk.precision` asks for less than float32."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from .. import current_precision
from .conv_sizes import conv
from .elementwise import fill_
from .grids import BLOCK, blocks_of
from .launch import Kernels, driver_of
from .products import FLOAT32, PRECISIONS, TENSOR_CORES

_kernels = Kernels("conv_tensor")
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

    def shared(self, across: bool) -> int:
        """Bytes of shared memory: stages of a tile of x and of one of filters."""
        filters = DEEP * (self.SHORT + 8) if across else self.SHORT * (DEEP + 4)
        return 4 * STAGES * (self.LONG * (DEEP + 4) + filters)


LARGE = (Tile(128, 128, 64), Tile(128, 64, 64), Tile(128, 32, 32))
SMALL = Tile(64, 64, 32)
ENOUGH = 132  # tiles: one for each multiprocessor of an H200


def wanted(y: Any) -> bool:
    """Whether less than float32 is asked for, and there."""
    if current_precision() == "float32" or y.dtype != FLOAT32:
        return False
    return driver_of(y)[0].capability >= TENSOR_CORES  # type: ignore[attr-defined]


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
        _kernels.run("conv2d_tensor", grid, tile.threads, y, x, w, b, largest, sizes,
                     shared=tile.shared(False), **_types(tile, current_precision()))  # fmt: skip


def conv2d_dx(dx, g, w, *, scratch, groups, stride, size, **settings):
    sizes = conv(dx, g, w.shape[1:3], groups=groups, stride=stride, **settings)
    phases = math.prod(stride)
    pixels = dx.shape[0] * math.prod(-(-d // s) for d, s in zip(size, stride, strict=True))
    tile = _tile(pixels, w.shape[3], groups * phases)
    grid = tile.cover(pixels, w.shape[3]) * groups * phases
    if grid:
        largest = _measured(scratch, g, w)
        _kernels.run("conv2d_dx_tensor", grid, tile.threads, dx, g, w, largest, sizes,
                     shared=tile.shared(True), **_types(tile, current_precision()))  # fmt: skip
