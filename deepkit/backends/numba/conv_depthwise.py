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
    store(y, 0, select(a < floor, broadcast(x, floor), a))
    store(y, y_step, select(b < floor, broadcast(x, floor), b))
    store(y, 2 * y_step, select(c < floor, broadcast(x, floor), c))
    store(y, 3 * y_step, select(d < floor, broadcast(x, floor), d))


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


@kernel
def _forward(
    t, n, y: ptr, x: ptr, w: ptr, bias: ptr, lanes: size, height: size, width: size,
    channels: size, outputs_h: size, outputs_w: size, filters: size, rows: size, columns: size,
    stride_h: size, stride_w: size, top: size, left: size, dilation_h: size, dilation_w: size,
    biased: size, floor: flt,
):  # fmt: skip
    some, side, least = filters // channels, vector_lanes(x), number(x, floor)
    middle = first_output(0, stride_w, left)  # outputs of a row whose taps are all inside
    middle_end = last_output((columns - 1) * dilation_w, stride_w, left, width, outputs_w)
    for first in range(0, lanes, 64):
        images = chunk_width(first, lanes)
        x_chunk = at(x, first * height * width * channels)
        y_chunk = at(y, first * outputs_h * outputs_w * filters)
        x_row = dilation_h * width * channels * images
        x_column, x_step = dilation_w * channels * images, stride_w * channels * images
        low, high = share(t, n, first, lanes, 64, outputs_h)
        for p in range(low, high):
            h = p * stride_h - top
            r = first_tap(h, dilation_h)
            r_count = last_tap(h, dilation_h, rows, height) - r
            q = 0
            while q < outputs_w:
                four = middle <= q and q + 4 <= middle_end
                v = q * stride_w - left
                s = first_tap(v, dilation_w)
                s_count = last_tap(v, dilation_w, columns, width) - s
                corner = ((h + r * dilation_h) * width + v + s * dilation_w) * channels
                for f in range(filters):
                    weights = at(w, (f * rows + r) * columns + s)
                    start = bias[f] if biased else like(x, 0.0)
                    source = at(x_chunk, (corner + f // some) * images)
                    target = at(y_chunk, ((p * outputs_w + q) * filters + f) * images)
                    for i in range(0, images, side):
                        if four:
                            _four(at(target, i), at(source, i), weights, start, least, 0,
                                  filters * images, x_step, r_count, x_row, columns, s_count,
                                  x_column, 1)  # fmt: skip
                        else:
                            _one(at(target, i), at(source, i), weights, start, least, 0, r_count,
                                 x_row, columns, s_count, x_column, 1)  # fmt: skip
                q += 4 if four else 1


def forward(
    y: Lanes, x: Lanes, w: Any, b: Any, options: tuple[int, ...], activation: str | None
) -> None:
    floor = 0.0 if activation == "relu" else -math.inf
    launch(_forward, y.dtype, y, x, w, b, x.lanes, *x.shape[1:], *y.shape[1:], *w.shape[1:3],
           *options[:-1], int(b is not None), floor, work=y.size * w[0].size)  # fmt: skip


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
    launch(_dx, dx.dtype, dx, g, w, g.lanes, *dx.shape[1:], *g.shape[1:], *w.shape[1:3],
           *options[:-1], work=g.size * w[0].size)  # fmt: skip


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
    middle = first_output(0, stride_w, left)
    middle_end = last_output((columns - 1) * dilation_w, stride_w, left, width, outputs_w)
    for first in range(0, lanes, 64):
        images = chunk_width(first, lanes)
        x_chunk = at(x, first * height * width * channels)
        g_chunk = at(g, first * outputs_h * outputs_w * filters)
        g_step, x_step = filters * images, stride_w * channels * images
        for p in range(outputs_h):
            h = p * stride_h - top
            r = first_tap(h, dilation_h)
            r_end = last_tap(h, dilation_h, rows, height)
            q = 0
            while q < outputs_w:
                four = middle <= q and q + 4 <= middle_end
                v = q * stride_w - left
                s = first_tap(v, dilation_w)
                s_end = last_tap(v, dilation_w, columns, width)
                for f in range(low, high):
                    source = at(g_chunk, ((p * outputs_w + q) * filters + f) * images)
                    for tap_row in range(r, r_end):
                        line = (h + tap_row * dilation_h) * width + v
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
    for i in range(low * taps, high * taps):
        dw[i] = add_up(load(sums, i * side))


def sums_of(dw: Any) -> tuple[tuple[int, ...], Any]:
    """The scratch that `dw` needs."""
    return (dw.size, VECTOR_BYTES // dw.dtype.itemsize), dw.dtype


def dw(dw: Any, sums: Any, g: Lanes, x: Lanes, options: tuple[int, ...]) -> None:
    clear_spare(g, x)
    launch(_dw, dw.dtype, dw, sums, g, x, x.lanes, *x.shape[1:], *g.shape[1:], *dw.shape[1:3],
           *options[:-1], work=g.size * dw[0].size)  # fmt: skip
