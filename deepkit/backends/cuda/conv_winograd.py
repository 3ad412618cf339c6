"""Winograd's convolution F(4x4, 3x3): tiles transformed, 36 products over channels, and back.

    y = At [ (G w Gt) * (Bt x B) ] A      of every tile of 4 x 4 outputs; * is elementwise; summed
                                          over channels, these are 36 products of matrices
    dx   the same of g, with filters that are turned by 180 degrees
    dw   Gt [ sum over tiles of (A g At) * (Bt x B) ] G

The transforms cost digits: `TOLERANCE`.  An infinity or NaN reaches all 16 outputs of its tiles.
`dk.precision` changes nothing here: the products are of float32, because rounded factors would lose
what the transforms have left.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .. import scratch
from . import products
from .conv_sizes import conv
from .grids import BLOCK, blocks_of
from .launch import Kernels
from .structures import walk

_kernels = Kernels("conv_winograd")

TOLERANCE = 4.0  # times the error bound of a card; one channel needs most of it
STEP = 4  # outputs of a tile in each direction
PLACES = 36  # of a tile, in which products are taken
# In the transforms of one block of images: 32 MB of float32, so that they are still in the second
# cache (50 MB on an H200) when the next launch reads them.
NUMBERS = 1 << 23


def takes(*shapes: Any, stride: Any, dilation: Any, groups: int, **params: Any) -> bool:
    """3x3 windows at stride 1, dilation 1, in one group; shapes are those of any direction."""
    window = params.get("window") or shapes[1][1:3]
    return (*window, *stride, *dilation, groups) == (3, 3, 1, 1, 1, 1, 1)


# blocks -------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """Some images; or, where one is too large, some rows of its outputs."""

    images: slice
    rows: slice
    tiles: int


def blocks(shape: tuple[int, ...], channels: int) -> list[Block]:
    """Of outputs (N, P, Q, K) from so many channels; one that is empty for none."""
    images, height, width, filters = shape
    down, across = -(-height // STEP), -(-width // STEP)
    most = max(1, NUMBERS // (PLACES * (channels + filters) * across))  # rows of tiles
    if images and down > most:
        return [
            Block(slice(n, n + 1), slice(STEP * row, STEP * (row + most)),
                  min(most, down - row) * across)
            for n in range(images) for row in range(0, down, most)
        ]  # fmt: skip
    pieces = max(1, -(-images // max(1, most // max(1, down))))
    each = max(1, -(-images // pieces))  # of one size, but for the last
    return [
        Block(slice(n, n + each), slice(None), min(each, images - n) * down * across)
        for n in range(0, max(1, images), each)
    ]


# the launches -------------------------------------------------------------------------------------


def _each(name: str, count: int, to: Any, *arguments: Any) -> None:
    """A kernel in which a thread has a channel of a tile, or of a filter."""
    _kernels.run(name, blocks_of(count), BLOCK, to, *arguments, T=to.dtype)


def _multiply(task: products.Task, y: Any, a: Any, b: Any, work: Any) -> None:
    starts = walk((PLACES,), [task.m * task.k], [task.k * task.n])
    products.run(products.choose(task, y), task, y, a, b, starts=starts, work=[work])


def _memory(tasks: list[products.Task], like: Any, *counts: int) -> list[tuple[Any, Any]]:
    """PLACES times so many numbers each, and what any of the products needs to work in."""
    wanted = [products.working(products.choose(t, like), t, like) for t in {*tasks}]
    parts = max((math.prod(shape) for shapes in wanted for shape, _ in shapes), default=0)
    return [*[((PLACES * n,), like.dtype) for n in counts], ((parts,), like.dtype)]


def _tasks(y: Any, x: Any, turned: bool) -> list[products.Task]:
    channels, filters = x.shape[3], y.shape[3]
    return [
        products.Task(block.tiles, filters, channels, PLACES, tb=not turned)
        for block in blocks(y.shape, channels)
    ]


def _working(y: Any, x: Any, w: Any, turned: bool) -> list[tuple[Any, Any]]:
    """u, v, m."""
    tasks = _tasks(y, x, turned)
    tiles = max(t.m for t in tasks)
    return _memory(tasks, y, w.shape[0] * w.shape[3], tiles * x.shape[3], tiles * y.shape[3])


def _convolve(
    y: Any, x: Any, w: Any, b: Any, top: int, left: int, activation: Any, turned: bool, work: Any
) -> None:
    """y = act(b + x * w); turned: of w (C, 3, 3, K), the last tap first."""
    u, v, m, parts = work
    rows, columns = w.shape[0], w.shape[3]
    _each("winograd_filters", rows * columns, u, w, rows, columns, turned)
    for block, task in zip(blocks(y.shape, x.shape[3]), _tasks(y, x, turned), strict=True):
        part, seen = y[block.images, block.rows], x[block.images]
        sizes = _sizes(seen, part, block, top, left, activation)
        _each("winograd_inputs", task.m * task.k, v, seen, sizes)
        _multiply(task, m, v, u, parts)
        _each("winograd_outputs", task.m * task.n, part, m, b, sizes)


def _sizes(x: Any, y: Any, block: Block, top: int, left: int, activation: Any = None) -> Any:
    begins = ((top - (block.rows.start or 0), 0), (left, 0))
    return conv(x, y, (3, 3), stride=(1, 1), padding=begins, activation=activation)


@scratch(lambda y, x, w, b, **_: _working(y, x, w, False))
def conv2d(y, x, w, b, *, scratch, padding, activation, **_):
    (top, _), (left, _) = padding
    _convolve(y, x, w, b, top, left, activation, False, scratch)


@scratch(lambda dx, g, w, **_: _working(dx, g, w, True))
def conv2d_dx(dx, g, w, *, scratch, padding, **_):
    (top, _), (left, _) = padding
    _convolve(dx, g, w, None, 2 - top, 2 - left, None, True, scratch)


def _dw_tasks(g: Any, x: Any) -> list[products.Task]:
    filters, channels = g.shape[3], x.shape[3]
    return [
        products.Task(filters, channels, block.tiles, PLACES, ta=True)
        for block in blocks(g.shape, channels)
    ]


def _dw_working(dw: Any, g: Any, x: Any, **_: Any) -> list[tuple[Any, Any]]:
    """u, and v of x and of g."""
    tasks = _dw_tasks(g, x)
    tiles = max(t.k for t in tasks)
    counts = g.shape[3] * x.shape[3], tiles * x.shape[3], tiles * g.shape[3]
    return _memory(tasks, dw, *counts)


@scratch(_dw_working)
def conv2d_dw(dw, g, x, *, scratch, padding, **_):
    u, v_x, v_g, parts = scratch
    (top, _), (left, _) = padding
    for i, (block, task) in enumerate(
        zip(blocks(g.shape, x.shape[3]), _dw_tasks(g, x), strict=True)
    ):
        arrived, seen = g[block.images, block.rows], x[block.images]
        sizes = _sizes(seen, arrived, block, top, left)
        _each("winograd_inputs", task.k * task.n, v_x, seen, sizes)
        _each("winograd_gradients", task.k * task.m, v_g, arrived, sizes)
        _multiply(task, u, v_g, v_x, parts)
        _each("winograd_filters_back", task.m * task.n, dw, u, task.m, task.n, i > 0)


for _variant in (conv2d, conv2d_dx, conv2d_dw):
    _variant.takes, _variant.tolerance = takes, TOLERANCE
