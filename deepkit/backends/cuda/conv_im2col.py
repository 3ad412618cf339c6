"""Convolutions as products: windows are copied to rows of a matrix, some images at a time."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from typing import Any

from .. import scratch
from .conv_parts import divided, sum_parts
from .conv_sizes import ACTIVATIONS, conv
from .grids import BLOCK, blocks_of
from .launch import Kernels
from .structures import structure

_kernels = Kernels("conv_im2col")

COLUMNS = 1 << 24  # numbers in the columns of one block of images: 64 MB of float32
TILE = 64  # rows and columns of a block of the product

_NUMBERS = (
    "rows", "columns", "depth", "groups", "parts", "part_depth",
    "a_row", "a_step", "a_group", "b_step", "b_column", "b_group", "y_row", "y_group", "y_part",
)  # fmt: skip
GroupedProduct = structure("GroupedProduct", [(name, ctypes.c_int64) for name in _NUMBERS])


def _product(
    y: Any, a: Any, b: Any, bias: Any = None, activation: str | None = None, **numbers: int
) -> None:
    of = GroupedProduct(**{"parts": 1, "part_depth": numbers["depth"]} | numbers)
    grid = -(-of.rows // TILE) * -(-of.columns // TILE) * of.groups * of.parts
    _kernels.run("product", grid, 256, y, a, b, bias, ACTIVATIONS[activation], of, T=y.dtype)


def _copy(name: str, to: Any, source: Any, sizes: Any) -> None:
    _kernels.run(name, blocks_of(to.size), BLOCK, to, source, sizes, T=to.dtype)


def _width(y: Any, x: Any, window: tuple[int, int]) -> int:
    """Numbers in the columns of one image."""
    return math.prod(y.shape[1:3]) * math.prod(window) * x.shape[3]


def _images(y: Any, x: Any, window: tuple[int, int]) -> int:
    """How many images at a time."""
    return max(1, min(y.shape[0], COLUMNS // _width(y, x, window)))


def _columns(y: Any, x: Any, window: tuple[int, int]) -> tuple[tuple[int, ...], Any]:
    return (_images(y, x, window) * _width(y, x, window),), x.dtype


def _blocks(y: Any, x: Any, window: tuple[int, int]) -> Iterator[slice]:
    images = _images(y, x, window)
    for first in range(0, y.shape[0], images):
        yield slice(first, first + images)


@scratch(lambda y, x, w, b, **_: [_columns(y, x, w.shape[1:3])])
def conv2d(y, x, w, b, *, scratch, groups, activation, **settings):
    (columns,) = scratch
    filters, depth = w.shape[0] // groups, math.prod(w.shape[1:])
    for block in _blocks(y, x, w.shape[1:3]):
        part, seen = y[block], x[block]
        pixels = math.prod(part.shape[:3])
        sizes = conv(seen, part, w.shape[1:3], groups=groups, **settings)
        _copy("im2col", columns, seen, sizes)
        _product(
            part, columns, w, b, activation, rows=pixels, columns=filters, depth=depth,
            groups=groups, a_row=depth, a_step=1, a_group=pixels * depth, b_step=1,
            b_column=depth, b_group=filters * depth, y_row=w.shape[0], y_group=filters,
        )  # fmt: skip


@scratch(lambda dx, g, w, **_: [_columns(g, dx, w.shape[1:3])])
def conv2d_dx(dx, g, w, *, scratch, groups, size, **settings):
    (columns,) = scratch
    filters, depth = w.shape[0] // groups, math.prod(w.shape[1:])
    for block in _blocks(g, dx, w.shape[1:3]):
        part, arrived = dx[block], g[block]
        pixels = math.prod(arrived.shape[:3])
        _product(
            columns, arrived, w, rows=pixels, columns=depth, depth=filters, groups=groups,
            a_row=w.shape[0], a_step=1, a_group=filters, b_step=depth, b_column=1,
            b_group=filters * depth, y_row=depth, y_group=pixels * depth,
        )  # fmt: skip
        sizes = conv(part, arrived, w.shape[1:3], groups=groups, **settings)
        _copy("col2im", part, columns, sizes)


def _parts(dw: Any, g: Any, x: Any, window: tuple[int, int], groups: int) -> tuple[int, int]:
    """Parts of the pixels of a block of images, and how many pixels each of them has."""
    pixels = _images(g, x, window) * math.prod(g.shape[1:3])
    filters, depth = dw.shape[0] // groups, math.prod(dw.shape[1:])
    tiles = -(-filters // TILE) * -(-depth // TILE) * groups
    return divided(pixels, tiles, dw.size)


@scratch(
    lambda dw, g, x, *, window, groups, **_: [
        _columns(g, x, window),
        ((_parts(dw, g, x, window, groups)[0], *dw.shape), dw.dtype),
    ]
)
def conv2d_dw(dw, g, x, *, scratch, groups, window, **settings):
    columns, sums = scratch
    filters, depth = dw.shape[0] // groups, math.prod(dw.shape[1:])
    parts, length = _parts(dw, g, x, window, groups)
    if not g.shape[0]:
        sum_parts(dw, sums, 0)
    for block in _blocks(g, x, window):
        arrived, seen = g[block], x[block]
        pixels = math.prod(arrived.shape[:3])
        _copy("im2col", columns, seen, conv(seen, arrived, window, groups=groups, **settings))
        _product(
            sums, arrived, columns, rows=filters, columns=depth, depth=pixels, groups=groups,
            parts=parts, part_depth=length, a_row=1, a_step=dw.shape[0], a_group=filters,
            b_step=depth, b_column=1, b_group=pixels * depth, y_row=depth,
            y_group=filters * depth, y_part=dw.size,
        )  # fmt: skip
        sum_parts(dw, sums, parts, adds=block.start > 0)
