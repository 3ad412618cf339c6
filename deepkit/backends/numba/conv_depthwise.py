"""Depthwise convolution in lanes: every channel has filters of its own and is summed with no other.

    forward   y[p, q][f][images] = sum over taps (r, s) of w[f, r, s] x[h, v][c][images]
    dx        dx[h, v][c][images] = sum over the filters f of c and taps of w[f, r, s] g[p, q][f]
    dw        dw[f, r, s] = sum over (p, q) and images of g[p, q][f][images] x[h, v][c][images]

A product has nothing to share here, so there is no panel: sums of four neighbouring places stand
in registers (or, for dw, those of a tap in memory), and each weight that is read serves all four.
"""

from __future__ import annotations

import math
from typing import Any

import numba

from .lanes import Lanes, chunk_width, clear_spare, share
from .launch import flt, kernel, launch, ptr, size
from .machine import VECTOR_BYTES
from .rows import like, number
from .simd import at, vector_lanes
from .vector import add_up, broadcast, fma, load, select, store
from .window import (
    common_divisor,
    first_output,
    first_tap,
    last_output,
    last_tap,
    reached,
)


@numba.njit(forceinline=True)
def _put(y, step, floor, a, b, c, d):
    """Four sums, cut off below `floor`, to neighbours."""
    store(y, 0, select(a < floor, broadcast(y, floor), a))
    store(y, step, select(b < floor, broadcast(y, floor), b))
    store(y, 2 * step, select(c < floor, broadcast(y, floor), c))
    store(y, 3 * step, select(d < floor, broadcast(y, floor), d))


@numba.njit(forceinline=True)
def _eight(y, x, w, start, floor, y_row, y_step, x_step, r_count, x_row, w_row, s_count, x_column,
           w_column):  # fmt: skip
    """y[i] = max(floor, start + sum over taps of w x[i]), two rows of four neighbours, which share
    what they read: the row x of tap r is the one of tap r - 1 a row of y below."""
    a = b = c = d = e = f = g = h = broadcast(x, start)
    for s in range(s_count):
        weight, place = broadcast(x, w[s * w_column]), s * x_column
        a = fma(weight, load(x, place), a)
        b = fma(weight, load(x, place + x_step), b)
        c = fma(weight, load(x, place + 2 * x_step), c)
        d = fma(weight, load(x, place + 3 * x_step), d)
    for r in range(1, r_count):
        for s in range(s_count):
            which, place = r * w_row + s * w_column, r * x_row + s * x_column
            weight, above = broadcast(x, w[which]), broadcast(x, w[which - w_row])
            one, two = load(x, place), load(x, place + x_step)
            three, four = load(x, place + 2 * x_step), load(x, place + 3 * x_step)
            a, b = fma(weight, one, a), fma(weight, two, b)
            c, d = fma(weight, three, c), fma(weight, four, d)
            e, f = fma(above, one, e), fma(above, two, f)
            g, h = fma(above, three, g), fma(above, four, h)
    for s in range(s_count):
        above = broadcast(x, w[(r_count - 1) * w_row + s * w_column])
        place = r_count * x_row + s * x_column
        e = fma(above, load(x, place), e)
        f = fma(above, load(x, place + x_step), f)
        g = fma(above, load(x, place + 2 * x_step), g)
        h = fma(above, load(x, place + 3 * x_step), h)
    _put(y, y_step, floor, a, b, c, d)
    _put(at(y, y_row), y_step, floor, e, f, g, h)


@numba.njit
def _four(y, x, w, start, floor, more, y_step, x_step, r_count, x_row, w_row, s_count, x_column,
          w_column):  # fmt: skip
    """y[i] = max(floor, start + sum over taps of w x[i]), four neighbours; `more` adds to y."""
    a = b = c = d = broadcast(x, start)
    if more:
        a, b, c, d = load(y, 0), load(y, y_step), load(y, 2 * y_step), load(y, 3 * y_step)
    for r in range(r_count):
        for s in range(s_count):
            weight = broadcast(x, w[r * w_row + s * w_column])
            place = r * x_row + s * x_column
            a = fma(weight, load(x, place), a)
            b = fma(weight, load(x, place + x_step), b)
            c = fma(weight, load(x, place + 2 * x_step), c)
            d = fma(weight, load(x, place + 3 * x_step), d)
    _put(y, y_step, floor, a, b, c, d)


@numba.njit
def _one(y, x, w, start, floor, more, r_count, x_row, w_row, s_count, x_column, w_column):
    a = broadcast(x, start)
    if more:
        a = load(y, 0)
    for r in range(r_count):
        for s in range(s_count):
            weight = broadcast(x, w[r * w_row + s * w_column])
            a = fma(weight, load(x, r * x_row + s * x_column), a)
    store(y, 0, select(a < floor, broadcast(x, floor), a))


@numba.njit
def _eights(y, x, w, bias, biased, floor, channels, some, images, y_row, x_row, x_step, w_row,
            w_column):  # fmt: skip
    """All filters of 3 x 3 taps at two rows of four places: a loop with the registers to itself."""
    for c in range(channels):
        for f in range(c * some, (c + 1) * some):
            weights, start = at(w, 9 * f), bias[f] if biased else like(x, 0.0)
            for i in range(0, images, vector_lanes(x)):
                _eight(at(y, f * images + i), at(x, c * images + i), weights, start, floor, y_row,
                       channels * some * images, x_step, 3, x_row, w_row, 3, x_step,
                       w_column)  # fmt: skip


@kernel
def _forward(
    t, n, y: ptr, x: ptr, w: ptr, bias: ptr, lanes: size, height: size, width: size,
    channels: size, outputs_h: size, outputs_w: size, filters: size, rows: size, columns: size,
    stride_h: size, stride_w: size, top: size, left: size, dilation_h: size, dilation_w: size,
    biased: size, turn: size, floor: flt,
):  # fmt: skip
    """turn: the last tap first."""
    some, taps, side = filters // channels, rows * columns, vector_lanes(x)
    least = number(x, floor)
    shared = rows == columns == 3 and stride_h == dilation_h and stride_w == dilation_w
    upper = first_output(0, stride_h, top)  # outputs whose taps are all inside: from here on
    lower = last_output((rows - 1) * dilation_h, stride_h, top, height, outputs_h)
    middle = first_output(0, stride_w, left)
    middle_end = last_output((columns - 1) * dilation_w, stride_w, left, width, outputs_w)
    w_row, w_column, begin = columns, 1, 0
    if turn:
        w_row, w_column, begin = -columns, -1, rows * columns - 1
    for first in range(0, lanes, 64):
        images = chunk_width(first, lanes)
        x_chunk = at(x, first * height * width * channels)
        y_chunk = at(y, first * outputs_h * outputs_w * filters)
        x_row = dilation_h * width * channels * images
        x_column, x_step = dilation_w * channels * images, stride_w * channels * images
        y_step = filters * images
        y_row = outputs_w * y_step
        p, high = share(t, n, first, lanes, 64, outputs_h)
        while p < high:
            h = p * stride_h - top
            r = first_tap(h, dilation_h)
            r_count = last_tap(h, dilation_h, rows, height) - r
            both = shared and upper <= p and p + 2 <= min(lower, high)
            q = 0
            while q < outputs_w:
                if q < middle_end < q + 4 and middle + 4 <= middle_end:
                    q = middle_end - 4  # some once more
                four = middle <= q and q + 4 <= middle_end
                v = q * stride_w - left
                s = first_tap(v, dilation_w)
                s_count = last_tap(v, dilation_w, columns, width) - s
                corner = ((h + r * dilation_h) * width + v + s * dilation_w) * channels
                source = at(x_chunk, corner * images)
                target = at(y_chunk, (p * outputs_w + q) * y_step)
                weights = at(w, begin + r * w_row + s * w_column)
                if four and both:
                    _eights(target, source, weights, bias, biased, least, channels, some, images,
                            y_row, x_row, x_step, w_row, w_column)  # fmt: skip
                    q += 4
                    continue
                for c in range(channels):
                    for f in range(c * some, (c + 1) * some):
                        start = bias[f] if biased else like(x, 0.0)
                        for row in range(2 if both else 1):
                            to = at(target, row * y_row + f * images)
                            out_of = at(source, row * x_row + c * images)
                            for i in range(0, images, side):
                                if four:
                                    _four(at(to, i), at(out_of, i), at(weights, f * taps), start,
                                          least, 0, y_step, x_step, r_count, x_row, w_row,
                                          s_count, x_column, w_column)  # fmt: skip
                                else:
                                    _one(at(to, i), at(out_of, i), at(weights, f * taps), start,
                                         least, 0, r_count, x_row, w_row, s_count, x_column,
                                         w_column)  # fmt: skip
                q += 4 if four else 1
            p += 2 if both else 1


def forward(
    y: Lanes, x: Lanes, w: Any, b: Any, options: tuple[int, ...], activation: str | None
) -> None:
    floor = 0.0 if activation == "relu" else -math.inf
    launch(_forward, y.dtype, y, x, w, b, x.lanes, *x.shape[1:], *y.shape[1:], *w.shape[1:3],
           *options[:-1], int(b is not None), 0, floor, work=y.size * w[0].size)  # fmt: skip


@kernel
def _dx(
    t, n, dx: ptr, g: ptr, w: ptr, lanes: size, height: size, width: size, channels: size,
    outputs_h: size, outputs_w: size, filters: size, rows: size, columns: size, stride_h: size,
    stride_w: size, top: size, left: size, dilation_h: size, dilation_w: size,
):  # fmt: skip
    some, side, zero, least = filters // channels, vector_lanes(g), like(g, 0.0), like(g, -math.inf)
    divisor_h = common_divisor(stride_h, dilation_h)
    divisor_w = common_divisor(stride_w, dilation_w)
    r_step, p_step = stride_h // divisor_h, dilation_h // divisor_h
    s_step, q_step = stride_w // divisor_w, dilation_w // divisor_w
    middle = (columns - 1) * dilation_w - left  # what all taps reach
    middle_end = min(outputs_w - left, width) if stride_w == 1 else middle
    for first in range(0, lanes, 64):
        images = chunk_width(first, lanes)
        g_chunk = at(g, first * outputs_h * outputs_w * filters)
        dx_chunk = at(dx, first * height * width * channels)
        g_row, g_column = -p_step * outputs_w * filters * images, -q_step * filters * images
        low, high = share(t, n, first, lanes, 64, height)
        for h in range(low, high):
            r, p, r_count = reached(h, stride_h, dilation_h, top, rows, outputs_h, r_step, p_step)
            v = 0
            while v < width:
                four = middle <= v and v + 4 <= middle_end
                s, q, s_count = reached(v, stride_w, dilation_w, left, columns, outputs_w, s_step,
                                        q_step)  # fmt: skip
                for f in range(filters):
                    weights = at(w, (f * rows + r) * columns + s)
                    source = at(g_chunk, ((p * outputs_w + q) * filters + f) * images)
                    target = at(dx_chunk, ((h * width + v) * channels + f // some) * images)
                    more = f % some
                    for i in range(0, images, side):
                        if four:
                            _four(at(target, i), at(source, i), weights, zero, least, more,
                                  channels * images, filters * images, r_count, g_row,
                                  r_step * columns, s_count, g_column, s_step)  # fmt: skip
                        else:
                            _one(at(target, i), at(source, i), weights, zero, least, more,
                                 r_count, g_row, r_step * columns, s_count, g_column,
                                 s_step)  # fmt: skip
                v += 4 if four else 1


def dx(dx: Lanes, g: Lanes, w: Any, options: tuple[int, ...]) -> None:
    stride_h, stride_w, top, left, *dilation, _ = options
    if stride_h == stride_w == 1 and dx.shape[3] == g.shape[3]:
        # a convolution of g with the filters turned
        (_, rows, columns, _), (down, across) = w.shape, dilation
        launch(_forward, dx.dtype, dx, g, w, None, g.lanes, *g.shape[1:], *dx.shape[1:], rows,
               columns, 1, 1, (rows - 1) * down - top, (columns - 1) * across - left, down, across,
               0, 1, -math.inf, work=g.size * w[0].size)  # fmt: skip
        return
    launch(_dx, dx.dtype, dx, g, w, g.lanes, *dx.shape[1:], *g.shape[1:], *w.shape[1:3],
           *options[:-1], work=g.size * w[0].size)  # fmt: skip


@numba.njit(forceinline=True)
def _neighbours(x, step):
    return load(x, 0), load(x, step), load(x, 2 * step), load(x, 3 * step)


@numba.njit(forceinline=True)
def _row(x, step):
    """Six neighbours."""
    return (*_neighbours(x, step), load(x, 4 * step), load(x, 5 * step))


@numba.njit(forceinline=True)
def _add_row(sums, g, x):
    """The sums of a row of three taps, with the products of four neighbours of g added."""
    a, b, c = sums
    a, b, c = fma(g[0], x[0], a), fma(g[0], x[1], b), fma(g[0], x[2], c)
    a, b, c = fma(g[1], x[1], a), fma(g[1], x[2], b), fma(g[1], x[3], c)
    a, b, c = fma(g[2], x[2], a), fma(g[2], x[3], b), fma(g[2], x[4], c)
    return fma(g[3], x[3], a), fma(g[3], x[4], b), fma(g[3], x[5], c)


@numba.njit
def _nine_sums(sums, g, x, low, high, some, images, g_row, g_step, x_row, x_step):
    """Filters low .. high of 3 x 3 taps, two rows of four places: what these share is read once."""
    side = vector_lanes(x)
    for f in range(low, high):
        total = at(sums, 9 * f * side)
        first = load(total, 0), load(total, side), load(total, 2 * side)
        second = load(total, 3 * side), load(total, 4 * side), load(total, 5 * side)
        third = load(total, 6 * side), load(total, 7 * side), load(total, 8 * side)
        for i in range(0, images, side):
            arrived, line = at(g, f * images + i), at(x, f // some * images + i)
            upper, lower = _neighbours(arrived, g_step), _neighbours(at(arrived, g_row), g_step)
            read = _row(line, x_step)
            first = _add_row(first, upper, read)
            read = _row(at(line, x_row), x_step)
            second, first = _add_row(second, upper, read), _add_row(first, lower, read)
            read = _row(at(line, 2 * x_row), x_step)
            third, second = _add_row(third, upper, read), _add_row(second, lower, read)
            read = _row(at(line, 3 * x_row), x_step)
            third = _add_row(third, lower, read)
        for j in range(3):
            store(total, j * side, first[j])
            store(total, (3 + j) * side, second[j])
            store(total, (6 + j) * side, third[j])


@kernel
def _dw(
    t, n, dw: ptr, sums: ptr, g: ptr, x: ptr, lanes: size, height: size, width: size,
    channels: size, outputs_h: size, outputs_w: size, filters: size, rows: size, columns: size,
    stride_h: size, stride_w: size, top: size, left: size, dilation_h: size, dilation_w: size,
):  # fmt: skip
    """sums[filter][tap][one register], added across lanes at the end; threads share filters."""
    some, side, taps = filters // channels, vector_lanes(x), rows * columns
    low, high = t * filters // n, (t + 1) * filters // n
    for i in range(low * taps, high * taps):
        store(sums, i * side, broadcast(x, like(x, 0.0)))
    shared = rows == columns == 3 and stride_h == dilation_h and stride_w == dilation_w
    upper = first_output(0, stride_h, top)  # outputs whose taps are all inside: from here on
    lower = last_output((rows - 1) * dilation_h, stride_h, top, height, outputs_h)
    middle = first_output(0, stride_w, left)
    middle_end = last_output((columns - 1) * dilation_w, stride_w, left, width, outputs_w)
    for first in range(0, lanes, 64):
        images = chunk_width(first, lanes)
        x_chunk = at(x, first * height * width * channels)
        g_chunk = at(g, first * outputs_h * outputs_w * filters)
        g_step, x_step = filters * images, stride_w * channels * images
        g_row, x_row = outputs_w * g_step, dilation_h * width * channels * images
        p = 0
        while p < outputs_h:
            h = p * stride_h - top
            r = first_tap(h, dilation_h)
            r_end = last_tap(h, dilation_h, rows, height)
            both = shared and upper <= p and p + 2 <= lower
            q = 0
            while q < outputs_w:
                four = middle <= q and q + 4 <= middle_end
                v = q * stride_w - left
                s = first_tap(v, dilation_w)
                s_end = last_tap(v, dilation_w, columns, width)
                if four and both:
                    _nine_sums(sums, at(g_chunk, (p * outputs_w + q) * g_step),
                               at(x_chunk, (h * width + v) * channels * images), low, high, some,
                               images, g_row, g_step, x_row, x_step)  # fmt: skip
                    q += 4
                    continue
                for row in range(2 if both else 1):
                    for f in range(low, high):
                        place = ((p + row) * outputs_w + q) * filters + f
                        source = at(g_chunk, place * images)
                        for tap_row in range(r, r_end):
                            line = (h + (row + tap_row) * dilation_h) * width + v
                            for tap in range(s, s_end):
                                place = (line + tap * dilation_w) * channels + f // some
                                other = at(x_chunk, place * images)
                                where = (f * taps + tap_row * columns + tap) * side
                                total = load(sums, where)
                                for i in range(0, images, side):
                                    total = fma(load(source, i), load(other, i), total)
                                    if four:
                                        for j in range(1, 4):
                                            total = fma(load(source, i + j * g_step),
                                                        load(other, i + j * x_step),
                                                        total)  # fmt: skip
                                store(sums, where, total)
                q += 4 if four else 1
            p += 2 if both else 1
    for i in range(low * taps, high * taps):
        dw[i] = add_up(load(sums, i * side))


def sums_of(dw: Any) -> tuple[tuple[int, ...], Any]:
    """The scratch that `dw` needs."""
    return (dw.size, VECTOR_BYTES // dw.dtype.itemsize), dw.dtype


def dw(dw: Any, sums: Any, g: Lanes, x: Lanes, options: tuple[int, ...]) -> None:
    clear_spare(g, x)
    launch(_dw, dw.dtype, dw, sums, g, x, x.lanes, *x.shape[1:], *g.shape[1:], *dw.shape[1:3],
           *options[:-1], work=g.size * dw[0].size)  # fmt: skip
