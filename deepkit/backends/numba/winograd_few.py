"""Winograd's convolution (winograd.py) of a few images in C order: channels are in the lanes.

    u[36][c][k] = G w Gt     v[36][tile][c] = Bt x B     m[36][tile][k] = v u     y = At m A

Transforming filters costs more than it saves for so few tiles, so this is for filters that are
transformed once and kept: inference in captured steps (`ahead`, conv_ahead.py).
"""

from __future__ import annotations

from typing import Any

import numba

from . import threads
from .launch import kernel, launch, ptr, size
from .machine import VECTOR_BYTES
from .simd import BIAS, RELU, at, panel, vector_lanes
from .vector import broadcast, load, room, select, store
from .winograd import LINE, RESIDUAL, TILE
from .winograd_tiles import (
    filters_,
    inputs_,
    inputs_down,
    load_inside,
    load_six,
    outputs_,
    store_six,
)

TILES = 16  # of a piece of work
COLUMNS = 64  # filters that are multiplied before their outputs are gathered
LARGE = 1 << 19  # bytes of u from which on threads share the filters, and not the tiles


@numba.njit
def _spread_column(w, row):
    return filters_(numba.float64(w[0]), numba.float64(w[row]), numba.float64(w[2 * row]))


@kernel
def spread_filters(t, n, u: ptr, w: ptr, filters: size, channels: size):
    """u[36][c][k] = G w Gt, in float64, since it is done once and read again and again."""
    step = filters * channels + 16
    for k in range(t * filters // n, (t + 1) * filters // n):
        for c in range(channels):
            source, target = at(w, 9 * k * channels + c), at(u, c * filters + k)
            left = _spread_column(source, 3 * channels)
            middle = _spread_column(at(source, channels), 3 * channels)
            right = _spread_column(at(source, 2 * channels), 3 * channels)
            for i in range(6):
                six = filters_(left[i], middle[i], right[i])
                for j in range(6):
                    target[(6 * i + j) * step] = six[j]


@numba.njit
def _spread_tile(v, x, h, w, height, width, channels, step):
    """v[36][c] = Bt x B of the tile whose inputs begin at (h, w), zeros beyond the border."""
    vector, line = vector_lanes(x), width * channels
    half = room(x, 36 * 16)
    top, bottom = max(0, -h), min(6, height - h)
    for c in range(0, channels, vector):
        for j in range(6):
            if 0 <= w + j < width:
                o = (h * width + w + j) * channels + c
                store_six(half, j * vector, 6 * vector, inputs_down(x, o, line, top, bottom))
            else:
                for i in range(6):
                    store(half, (6 * i + j) * vector, 0.0)
        for i in range(6):
            six = inputs_(*load_six(half, 6 * i * vector, vector))
            store_six(v, 6 * i * step + c, step, six)


@numba.njit
def _gather_tile(y, m, residual, bias, bottom, right, outputs_w, filters, count, flags, step):
    """y = At m A + bias (+ residual) for `count` filters of the tile at y, inside the border."""
    vector = vector_lanes(y)
    half = room(y, 24 * 16)
    for k in range(0, count, vector):
        for j in range(6):
            four = outputs_(*load_six(m, k + j * step, 6 * step))
            store(half, j * vector, four[0])
            store(half, (6 + j) * vector, four[1])
            store(half, (12 + j) * vector, four[2])
            store(half, (18 + j) * vector, four[3])
        shift = load(bias, k) if flags & BIAS else broadcast(y, 0.0)
        for i in range(bottom):
            four = outputs_(*load_six(half, 6 * i * vector, vector))
            a, b, c, d = four[0] + shift, four[1] + shift, four[2] + shift, four[3] + shift
            o = i * outputs_w * filters + k
            if flags & RESIDUAL:
                a = a + load(residual, o)
                b = b + load_inside(residual, o + filters, right > 1)
                c = c + load_inside(residual, o + 2 * filters, right > 2)
                d = d + load_inside(residual, o + 3 * filters, right > 3)
            if flags & RELU:
                a, b = select(a <= 0.0, 0.0, a), select(b <= 0.0, 0.0, b)
                c, d = select(c <= 0.0, 0.0, c), select(d <= 0.0, 0.0, d)
            store(y, o, a)
            if right > 1:
                store(y, o + filters, b)
            if right > 2:
                store(y, o + 2 * filters, c)
            if right > 3:
                store(y, o + 3 * filters, d)


@kernel
def _multiply_few(
    t, n, y: ptr, x: ptr, u: ptr, bias: ptr, residual: ptr, work: ptr, count: size, height: size,
    width: size, channels: size, outputs_h: size, outputs_w: size, filters: size, top: size,
    left: size, block: size, parts: size, each: size, flags: size,
):  # fmt: skip
    """The convolution, given u: a task is `block` tiles and one of `parts` stretches of filters;
    `each` elements of work a thread."""
    across, down = (outputs_w + 3) // 4, (outputs_h + 3) // 4
    tiles = count * across * down
    pieces = (tiles + block - 1) // block
    vector = vector_lanes(y)
    vectors = filters // vector
    v_step, m_step, u_step = block * channels + 16, block * 64 + 16, filters * channels + 16
    v = at(work, t * each)
    m = at(v, 36 * v_step)
    done = -1
    for task in range(t * pieces * parts // n, (t + 1) * pieces * parts // n):
        part, piece = task // pieces, task % pieces
        first, some = piece * block, min(block, tiles - piece * block)
        if piece != done:
            for i in range(some):
                image, tile = (first + i) // (across * down), (first + i) % (across * down)
                h, w = 4 * (tile // across) - top, 4 * (tile % across) - left
                _spread_tile(at(v, i * channels), at(x, image * height * width * channels), h, w,
                             height, width, channels, v_step)  # fmt: skip
            done = piece
        last = (part + 1) * vectors // parts * vector
        for k in range(part * vectors // parts * vector, last, 64):
            columns = min(64, last - k)
            for f in range(36):
                panel(at(v, f * v_step), at(u, f * u_step + k), at(m, f * m_step), bias, some,
                      columns, 1, 0, 0, 1, 0, 0, channels, 1, filters, channels, columns,
                      0)  # fmt: skip
            for i in range(some):
                image, tile = (first + i) // (across * down), (first + i) % (across * down)
                p, q = 4 * (tile // across), 4 * (tile % across)
                o = ((image * outputs_h + p) * outputs_w + q) * filters + k
                _gather_tile(at(y, o), at(m, i * columns), at(residual, o), at(bias, k),
                             min(4, outputs_h - p), min(4, outputs_w - q), outputs_w, filters,
                             columns, flags, m_step)  # fmt: skip


def _tiles(y: tuple[int, ...]) -> int:
    return y[0] * -(-y[1] // TILE) * -(-y[2] // TILE)


def pays(y: Any, x: Any, w: Any) -> bool:
    """Whether this is the faster way, once filters are transformed: for float32, and whole vectors
    of channels.  The costs are processor cycles, for registers of 16 numbers."""
    filters, channels = w.shape[0], w.shape[3]
    lanes = VECTOR_BYTES // 4
    if y.dtype.itemsize != 4 or filters % lanes or channels % lanes or 0 in y.shape:
        return False
    tiles = _tiles(y.shape)
    transforms = tiles * (200 * channels + 150 * filters) // 16
    products = 36 * channels * filters // 16 * (tiles + 4)  # u is read from memory once
    direct = 9 * y.shape[0] * y.shape[1] * y.shape[2] * channels * filters // 16
    return 1.1 * (transforms + products) < direct


def kept(w: Any) -> tuple[int, ...]:
    """The shape of u: 36 matrices, a little apart."""
    return (36 * (w.shape[0] * w.shape[3] + LINE),)


def make(u: Any, w: Any) -> None:
    launch(spread_filters, w.dtype, u, w, w.shape[0], w.shape[3])


def _shares(y: tuple[int, ...], channels: int) -> tuple[int, int]:
    """Tiles of a piece of work, and parts of the filters: such that there is one for a thread."""
    count, tiles, filters = threads.count(), _tiles(y), y[3]
    large = 4 * 36 * filters * channels >= LARGE
    block = TILES
    while not large and block > 4 and tiles <= block * (count - 1):
        block //= 2
    pieces = -(-tiles // block)
    return block, 1 if pieces >= count and not large else min(count, -(-filters // 64) * 4)


def work(y: Any, x: Any) -> tuple[int, int]:
    """The shape of v and m for every thread."""
    return threads.count(), 36 * (TILES * (x.shape[3] + COLUMNS) + 2 * LINE)


def multiply(
    y: Any, x: Any, u: Any, b: Any, residual: Any, work: Any, top: int, left: int, flags: int
) -> None:
    """y = At m A + b (+ residual) of the transformed filters u and of x, zeros around it."""
    block, parts = _shares(y.shape, x.shape[3])
    flags |= RESIDUAL if residual is not None else 0
    launch(_multiply_few, y.dtype, y, x, u, b, residual, work, *x.shape, *y.shape[1:], top, left,
           block, parts, work.shape[1], flags, work=8 * y.size * x.shape[3],
           most=len(work))  # fmt: skip
