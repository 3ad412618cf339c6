"""Winograd's convolution F(4x4, 3x3): 36 products where 4 x 4 outputs of 3 x 3 taps need 144.

    y = At [ (G w Gt) * (Bt x B) ] A      x: 6 x 6 inputs, w: 3 x 3 taps, y: 4 x 4 outputs, one
                                          channel; * is elementwise (Lavin, Gray 2016)

Summed over channels, the 36 elementwise products are 36 matrix products over channels:

    u[36][k][c] = G w Gt      v[36][c][tiles, images] = Bt x B      m[f] = u[f] v[f]     y = At m A
    dx   the same with g for x and filters that are turned by 180 degrees and transposed
    dw   Gt [ sum over tiles and images of (A g At) (Bt x B) ] G

The transforms cost additions, and digits: `TOLERANCE`.  An infinity or NaN in x reaches all 16
outputs of its tiles instead of the 9 that it belongs to.
"""

from __future__ import annotations

from typing import Any

import numba

from .. import Ahead, ahead, scratch
from . import threads
from .elementwise import activate
from .lanes import CHUNK, QUANTUM, Lanes, chunk_width, clear_spare, padded
from .launch import kernel, launch, ptr, size
from .linear import epilogue
from .simd import at, dot_panel, panel, vector_lanes
from .vector import room, store, store_first
from .winograd_tiles import (
    RESIDUAL,
    filters_,
    filters_back,
    gather_outputs,
    load_column,
    load_filters,
    load_six,
    spread_gradients,
    spread_inputs,
    store_filters,
)

TOLERANCE = 4.0  # times the error bound of a card; one channel needs most of it
TILE = 4  # outputs of a tile in each direction; it reads 6 inputs
LINE = 16  # elements between positions, so that they do not all fall into the same cache sets

# filters ------------------------------------------------------------------------------------------


@kernel
def _spread_filters(t, n, u: ptr, w: ptr, filters: size, channels: size, turn: size):
    """u[36][k][c] = G w Gt; turn: the last tap first."""
    step = filters * channels + 16
    first, tap = (8 * channels, -channels) if turn else (0, channels)
    vector = vector_lanes(w)
    for k in range(t * filters // n, (t + 1) * filters // n):
        for c in range(0, channels, vector):
            some = channels - c
            source, target = at(w, 9 * k * channels + first + c), at(u, k * channels + c)
            left = filters_(*load_column(source, 3 * tap, some))
            middle = filters_(*load_column(at(source, tap), 3 * tap, some))
            right = filters_(*load_column(at(source, 2 * tap), 3 * tap, some))
            for i in range(6):
                six = filters_(left[i], middle[i], right[i])
                store_filters(at(target, 6 * i * step), step, some, six)


@kernel
def _transpose_filters(t, n, turned: ptr, w: ptr, filters: size, channels: size):
    """turned[c][tap][k] = w[k][tap][c], in squares of 16 that stay in the cache."""
    blocks = (channels + 15) // 16
    for block in range(t * blocks // n, (t + 1) * blocks // n):
        for start in range(0, filters, 16):
            for tap in range(9):
                for c in range(16 * block, min(16 * block + 16, channels)):
                    target = at(turned, (c * 9 + tap) * filters)
                    source = at(w, tap * channels + c)
                    for k in range(start, min(start + 16, filters)):
                        target[k] = source[k * 9 * channels]


# forward, and the gradient for x ------------------------------------------------------------------


@numba.njit
def count_tasks(lanes, tiles, columns):
    """How many pieces of work there are: some tiles of some images, `columns` together."""
    count = 0
    for first in range(0, lanes, 64):
        images = chunk_width(first, lanes)
        block = max(1, columns // images)
        count += ((images + columns - 1) // columns) * ((tiles + block - 1) // block)
    return count


@kernel
def _multiply_tiles(
    t, n, y: ptr, x: ptr, u: ptr, bias: ptr, residual: ptr, work: ptr, lanes: size, height: size,
    width: size, channels: size, outputs_h: size, outputs_w: size, filters: size, top: size,
    left: size, columns: size, rows: size, each: size, flags: size,
):  # fmt: skip
    """The convolution, given u: threads share tiles and images; `each` elements of work a thread,
    for `rows` filters at a time."""
    across = (outputs_w + 3) // 4
    tiles = across * ((outputs_h + 3) // 4)
    total = count_tasks(lanes, tiles, columns)
    low, high = t * total // n, (t + 1) * total // n
    task = -1
    v = at(work, t * each)
    for first in range(0, lanes, 64):
        images = chunk_width(first, lanes)
        block = max(1, columns // images)
        for start in range(0, images, columns):
            some = min(columns, images - start)
            x_part = at(x, first * height * width * channels + start)
            y_part = at(y, first * outputs_h * outputs_w * filters + start)
            more = at(residual, first * outputs_h * outputs_w * filters + start)
            for tile in range(0, tiles, block):
                task += 1
                if task < low or task >= high:
                    continue
                count = min(block, tiles - tile)
                row = count * some
                v_step, m_step = channels * row + 16, rows * row + 16
                m = at(v, 36 * v_step)
                for i in range(count):
                    h, w = 4 * ((tile + i) // across) - top, 4 * ((tile + i) % across) - left
                    spread_inputs(at(v, i * some), x_part, h, w, images, some, height, width,
                                  channels, 0, channels, v_step, row)  # fmt: skip
                for k in range(0, filters, rows):
                    k_end = min(k + rows, filters)
                    for f in range(36):
                        u_part = at(u, f * (filters * channels + 16) + k * channels)
                        panel(u_part, at(v, f * v_step), at(m, f * m_step), u_part, k_end - k, row,
                              1, 0, 0, 1, 0, 0, channels, 1, row, channels, row, 0)  # fmt: skip
                    for i in range(count):
                        p, q = 4 * ((tile + i) // across), 4 * ((tile + i) % across)
                        gather_outputs(y_part, at(m, i * some), more, p, q, images, some,
                                       outputs_h, outputs_w, filters, k, k_end, bias, flags,
                                       m_step, row)  # fmt: skip


# launches -----------------------------------------------------------------------------------------

COLUMNS = 64  # images x tiles of a piece of work: what the micro-kernel takes at its best
ROWS = 48  # filters that are multiplied before their outputs are gathered


def takes(*shapes: Any, stride: Any, dilation: Any, groups: int, **params: Any) -> bool:
    """3x3 windows at stride 1, dilation 1, in one group; shapes are those of any direction."""
    window = params.get("window") or shapes[1][1:3]
    return (*window, *stride, *dilation, groups) == (3, 3, 1, 1, 1, 1, 1)


# The processor's time for the transforms, in multiplications of the micro-kernel: for an input of a
# tile, an output of it, and once for a weight.  Measured with bench/winograd.py, which also shows
# what the rule makes of them.
COSTS = {"forward": (600, 300, 800), "dx": (600, 300, 1000), "dw": (600, 500, 1200)}
WORTH = 1.1  # how much faster is worth the lost digits


def pays(
    direction: str, x: tuple, w: tuple, dtype: Any, *, stride: Any, padding: Any, dilation: Any,
    groups: int, **_: Any,
) -> bool:  # fmt: skip
    """Whether this is the faster way for x (N, H, W, C) and w (K, R, S, C).

    float64 is asked for by those who want digits, so it never is.
    """
    if dtype.itemsize != 4 or (*w[1:3], *stride, *dilation, groups) != (3, 3, 1, 1, 1, 1, 1):
        return False
    filters, channels = w[0], w[3]
    tiles, taps = padded(x[0]), padded(x[0])
    for length, (before, after) in zip(x[1:3], padding, strict=True):
        outputs = length + before + after - 2
        tiles *= -(-outputs // TILE)
        reach = [min(outputs, length - r + before) - max(0, before - r) for r in range(3)]
        taps *= sum(max(0, count) for count in reach)  # those that are not outside
    of_input, of_output, of_weight = COSTS[direction]
    read, written = (filters, channels) if direction == "dx" else (channels, filters)
    cost = tiles * (36 * filters * channels + of_input * read + of_output * written)
    return WORTH * (cost + of_weight * filters * channels) < taps * filters * channels


def _columns(batch: int, height: int, width: int, threads_: int) -> int:
    """The width of a piece of work: narrower where there would not be one for every thread."""
    tiles = -(-height // TILE) * -(-width // TILE)
    columns = COLUMNS
    while columns > QUANTUM and tiles * padded(batch) < columns * threads_:
        columns //= 2
    return columns


def _work(y: Any, channels: int, filters: int) -> list:
    """u, and v and m for each thread."""
    each = 36 * (COLUMNS * (channels + min(ROWS, filters)) + 2 * LINE)
    return [
        ((36 * (filters * channels + LINE),), y.dtype),
        ((threads.count(), each), y.dtype),
    ]


def multiply(
    y: Lanes, x: Lanes, u: Any, b: Any, residual: Any, work: Any, top: int, left: int, flags: int
) -> None:
    """y = At m A + b (+ residual) of the transformed filters u and of x, zeros around it."""
    flags |= RESIDUAL if residual is not None else 0
    columns = _columns(y.shape[0], *y.shape[1:3], len(work))
    launch(_multiply_tiles, y.dtype, y, x, u, b, residual, work, x.lanes, *x.shape[1:],
           *y.shape[1:], top, left, columns, min(ROWS, y.shape[3]), work.shape[1], flags,
           work=x.size + y.size, most=len(work))  # fmt: skip


def spread(u: Any, w: Any) -> None:
    """The transformed filters, which `conv2d_spread` takes."""
    launch(_spread_filters, w.dtype, u, w, w.shape[0], w.shape[3], 0)


@scratch(lambda y, x, w, *_, **__: _work(y, w.shape[3], w.shape[0])[1:])
def conv2d_spread(
    y: Lanes, x: Lanes, w: Any, b: Any, *more: Any, padding: Any, activation: str | None,
    scratch: Any, **_: Any,
) -> None:  # fmt: skip
    """The convolution, given u as the last input."""
    *residual, u = more
    multiply(y, x, u, b, residual[0] if residual else None, scratch[0], padding[0][0],
             padding[1][0], epilogue(b, activation))  # fmt: skip
    activate(y, activation)


def _spread_ahead(y: Any, x: Any, w: Any, *_: Any, **__: Any) -> Ahead:
    return Ahead((1,), (_work(y, w.shape[3], w.shape[0])[0][0],), spread, conv2d_spread)


@ahead(_spread_ahead)
@scratch(lambda y, x, w, *_, **__: _work(y, w.shape[3], w.shape[0]))
def conv2d(
    y: Lanes, x: Lanes, w: Any, b: Any, residual: Any = None, *, scratch: Any, **params: Any
) -> None:
    u, work = scratch
    spread(u, w)
    conv2d_spread(y, x, w, b, residual, u, scratch=[work], **params)


conv2d.takes_residual = True  # type: ignore[attr-defined]


@scratch(lambda dx, g, w, **_: [*_work(dx, w.shape[0], w.shape[3]), (w.shape, w.dtype)])
def conv2d_dx(
    dx: Lanes, g: Lanes, w: Any, *, size: Any, stride: Any, padding: Any, dilation: Any,
    groups: int, algorithm: str, scratch: Any,
) -> None:  # fmt: skip
    """The convolution of g with turned filters, of which 2 - padding taps begin outside."""
    u, work, turned = scratch
    filters, channels = w.shape[0], w.shape[3]
    launch(_transpose_filters, w.dtype, turned, w, filters, channels)
    launch(_spread_filters, w.dtype, u, turned, channels, filters, 1)
    multiply(dx, g, u, None, None, work, 2 - padding[0][0], 2 - padding[1][0], 0)


# the gradient for w -------------------------------------------------------------------------------


@kernel
def _spread_both(
    t, n, v_x: ptr, v_g: ptr, x: ptr, g: ptr, first: size, images: size, height: size, width: size,
    channels: size, outputs_h: size, outputs_w: size, filters: size, top: size, left: size,
    tile: size, count: size,
):  # fmt: skip
    """The transforms of `count` tiles of a chunk; threads share channels and filters."""
    across, row = (outputs_w + 3) // 4, count * images
    x_chunk = at(x, first * height * width * channels)
    g_chunk = at(g, first * outputs_h * outputs_w * filters)
    for i in range(count):
        p, q = 4 * ((tile + i) // across), 4 * ((tile + i) % across)
        spread_inputs(at(v_x, i * images), x_chunk, p - top, q - left, images, images, height,
                      width, channels, t * channels // n, (t + 1) * channels // n,
                      channels * row + 16, row)  # fmt: skip
        spread_gradients(at(v_g, i * images), g_chunk, p, q, images, outputs_h, outputs_w, filters,
                         t * filters // n, (t + 1) * filters // n, filters * row + 16,
                         row)  # fmt: skip


@kernel
def _add_products(
    t, n, u: ptr, v_x: ptr, v_g: ptr, channels: size, filters: size, row: size, fresh: size
):  # fmt: skip
    """u[36][k][c] += <v_g[k], v_x[c]>: threads share positions and, within them, filters by four;
    fresh: u begins at zero."""
    blocks = (filters + 3) // 4
    low, high = t * 36 * blocks // n, (t + 1) * 36 * blocks // n
    for f in range(36):
        k = 4 * max(0, low - f * blocks)
        count = min(filters, 4 * (high - f * blocks)) - k
        if count > 0:
            target = at(u, f * (filters * channels + 16) + k * channels)
            if fresh:
                for i in range(count * channels):
                    target[i] = 0
            dot_panel(at(v_g, f * (filters * row + 16) + k * row),
                      at(v_x, f * (channels * row + 16)), target, count, channels,
                      1, 0, 0, 1, 0, 0, row, row, row, channels, 1)  # fmt: skip


@kernel
def _gather_filters(t, n, dw: ptr, u: ptr, filters: size, channels: size):
    """dw[k][tap][c] = Gt u G."""
    step, vector = filters * channels + 16, vector_lanes(u)
    half = room(u, 288)
    for k in range(t * filters // n, (t + 1) * filters // n):
        for c in range(0, channels, vector):
            some = channels - c
            source, target = at(u, k * channels + c), at(dw, 9 * k * channels + c)
            for j in range(6):
                three = filters_back(*load_filters(at(source, j * step), 6 * step, some))
                store(half, j * vector, three[0])
                store(half, (6 + j) * vector, three[1])
                store(half, (12 + j) * vector, three[2])
            for i in range(3):
                three = filters_back(*load_six(half, 6 * i * vector, vector))
                store_first(target, 3 * i * channels, some, three[0])
                store_first(target, (3 * i + 1) * channels, some, three[1])
                store_first(target, (3 * i + 2) * channels, some, three[2])


GROUP = 1 << 15  # elements of x and g in every position that are transformed before they are
LEAST = 256  # multiplied: what stays in the caches, but sums of so many terms at least


def _group(g: Any, channels: int) -> int:
    """How many tiles of a full chunk are transformed before they are multiplied."""
    tiles = -(-g.shape[1] // TILE) * -(-g.shape[2] // TILE)
    row = max(LEAST, GROUP // (g.shape[3] + channels))
    return min(tiles, max(1, row // max(QUANTUM, min(CHUNK, g.lanes))))


def _dw_scratch(dw: Any, g: Any, x: Any, **_: Any) -> list:
    """u, and v of x and of g for a group of tiles."""
    filters, channels = g.shape[3], x.shape[3]
    row = min(CHUNK, g.lanes) * _group(g, channels)
    return [
        ((36 * (filters * channels + LINE),), dw.dtype),
        ((36 * (channels * row + LINE),), dw.dtype),
        ((36 * (filters * row + LINE),), dw.dtype),
    ]


@scratch(_dw_scratch)
def conv2d_dw(
    dw: Any, g: Lanes, x: Lanes, *, window: Any, stride: Any, padding: Any, dilation: Any,
    groups: int, algorithm: str, scratch: Any,
) -> None:  # fmt: skip
    u, v_x, v_g = scratch
    filters, channels = g.shape[3], x.shape[3]
    tiles, group = -(-g.shape[1] // TILE) * -(-g.shape[2] // TILE), _group(g, channels)
    clear_spare(g, x)
    fresh = 1
    for first in range(0, x.lanes, CHUNK):
        images = min(CHUNK, x.lanes - first)
        for tile in range(0, tiles, group):
            count = min(group, tiles - tile)
            row = count * images
            launch(_spread_both, dw.dtype, v_x, v_g, x, g, first, images, *x.shape[1:],
                   *g.shape[1:], padding[0][0], padding[1][0], tile, count,
                   work=36 * row * (filters + channels))  # fmt: skip
            launch(_add_products, dw.dtype, u, v_x, v_g, channels, filters, row, fresh,
                   work=36 * row * filters * channels)  # fmt: skip
            fresh = 0
    if fresh:  # no images, or no outputs
        u[...] = 0
    launch(_gather_filters, dw.dtype, dw, u, filters, channels)


for _variant in (conv2d, conv2d_dx, conv2d_dw):
    _variant.takes, _variant.tolerance = takes, TOLERANCE  # type: ignore[attr-defined]
