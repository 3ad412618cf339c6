"""Convolution with weights of its own at every position (locally connected layers), in lanes."""

from __future__ import annotations

from typing import Any

from .. import scratch
from .conv import first_tap, last_tap
from .lanes import Lanes, chunk_width, transpose
from .launch import kernel, launch, ptr, size
from .simd import ACCUMULATE, BIAS, at, panel


@kernel
def _bias_everywhere(t, n, spread: ptr, bias: ptr, positions: size, filters: size, own: size):
    """spread[position][k]: the bias, which may be one for all positions or one for each."""
    for position in range(t * positions // n, (t + 1) * positions // n):
        for k in range(filters):
            spread[position * filters + k] = bias[(position * own) * filters + k]


@kernel
def _forward(
    t, n, y: ptr, x: ptr, w: ptr, bias: ptr, lanes: size, height: size, width: size,
    channels: size, outputs_h: size, outputs_w: size, filters: size, rows: size, columns: size,
    stride_h: size, stride_w: size, top: size, left: size, flags: size,
):  # fmt: skip
    taps = rows * columns * channels
    for first in range(0, lanes, 64):
        images = chunk_width(first, lanes)
        x_chunk = at(x, first * height * width * channels)
        y_chunk = at(y, first * outputs_h * outputs_w * filters)
        for p in range(t * outputs_h // n, (t + 1) * outputs_h // n):
            h = p * stride_h - top
            r = first_tap(h, 1)
            r_count = last_tap(h, 1, rows, height) - r
            for q in range(outputs_w):
                v = q * stride_w - left
                s = first_tap(v, 1)
                s_count = last_tap(v, 1, columns, width) - s
                place = (p * outputs_w + q) * filters
                panel(at(w, place * taps + (r * columns + s) * channels),
                      at(x_chunk, ((h + r) * width + v + s) * channels * images),
                      at(y_chunk, place * images), at(bias, place), filters, images,
                      1, 0, 0, r_count, columns * channels, width * channels * images,
                      s_count * channels, 1, images, taps, images, flags)  # fmt: skip


@scratch(lambda y, x, w, b, **_: [(y.shape[1:] if b is not None else (0,), y.dtype)])
def locally_connected2d(
    y: Lanes, x: Lanes, w: Any, b: Any, *, stride: Any, padding: Any, scratch: Any
) -> None:
    _, p, q, k = y.shape
    if b is not None:
        launch(_bias_everywhere, y.dtype, scratch[0], b, p * q, k, int(b.ndim > 1))
    launch(_forward, y.dtype, y, x, w, scratch[0], x.lanes, *x.shape[1:], p, q, k, *w.shape[3:5],
           *stride, padding[0][0], padding[1][0], BIAS if b is not None else 0)  # fmt: skip


@kernel
def _dx(
    t, n, dx: ptr, g: ptr, w: ptr, lanes: size, height: size, width: size, channels: size,
    outputs_h: size, outputs_w: size, filters: size, rows: size, columns: size, stride_h: size,
    stride_w: size, top: size, left: size,
):  # fmt: skip
    """Windows may overlap, so threads share channels, not rows."""
    taps = rows * columns * channels
    low, high = t * channels // n, (t + 1) * channels // n
    for first in range(0, lanes, 64):
        images = chunk_width(first, lanes)
        g_chunk = at(g, first * outputs_h * outputs_w * filters)
        dx_chunk = at(dx, first * height * width * channels)
        for place in range(height * width):
            for i in range((place * channels + low) * images, (place * channels + high) * images):
                dx_chunk[i] = 0
        for p in range(outputs_h):
            for q in range(outputs_w):
                place = (p * outputs_w + q) * filters
                for r in range(rows):
                    h = p * stride_h + r - top
                    if h < 0 or h >= height:
                        continue
                    for s in range(columns):
                        v = q * stride_w + s - left
                        if v < 0 or v >= width:
                            continue
                        target = at(dx_chunk, ((h * width + v) * channels + low) * images)
                        panel(at(w, place * taps + (r * columns + s) * channels + low),
                              at(g_chunk, place * images), target, w, high - low, images,
                              1, 0, 0, 1, 0, 0, filters, taps, images, 1, images,
                              ACCUMULATE)  # fmt: skip


def locally_connected2d_dx(
    dx: Lanes, g: Lanes, w: Any, *, size: Any, stride: Any, padding: Any
) -> None:
    launch(_dx, dx.dtype, dx, g, w, g.lanes, *dx.shape[1:], *g.shape[1:], *w.shape[3:5],
           *stride, padding[0][0], padding[1][0])  # fmt: skip


STRIPE = 64  # positions that a thread turns at a time


@kernel
def _turn(t, n, turned: ptr, x: ptr, lanes: size, inner: size, row: size):
    """turned[image][i] = x[i][image], rows being `row` apart."""
    stripes = (inner + STRIPE - 1) // STRIPE
    for first in range(0, lanes, 64):
        images = chunk_width(first, lanes)
        for stripe in range(t * stripes // n, (t + 1) * stripes // n):
            low = STRIPE * stripe
            transpose(at(turned, first * row + low), row, at(x, first * inner + low * images),
                      images, min(STRIPE, inner - low), images)  # fmt: skip


@kernel
def _dw(
    t, n, dw: ptr, g: ptr, turned: ptr, count: size, lanes: size, row: size, height: size,
    width: size, channels: size, outputs_h: size, outputs_w: size, filters: size, rows: size,
    columns: size, stride_h: size, stride_w: size, top: size, left: size,
):  # fmt: skip
    """A sum has no more terms than there are images, too few to be worth adding up across lanes:
    the lanes hold neighbouring taps."""
    taps = rows * columns * channels
    for p in range(t * outputs_h // n, (t + 1) * outputs_h // n):
        line = outputs_w * filters * taps
        for i in range(p * line, (p + 1) * line):
            dw[i] = 0
        for first in range(0, count, 64):
            images = chunk_width(first, lanes)
            g_chunk = at(g, first * outputs_h * outputs_w * filters)
            for q in range(outputs_w):
                v = q * stride_w - left
                s = first_tap(v, 1)
                s_count = last_tap(v, 1, columns, width) - s
                place = (p * outputs_w + q) * filters
                for r in range(rows):
                    h = p * stride_h + r - top
                    if h < 0 or h >= height or s_count <= 0:
                        continue
                    panel(at(g_chunk, place * images),
                          at(turned, first * row + (h * width + v + s) * channels),
                          at(dw, place * taps + (r * columns + s) * channels), dw, filters,
                          s_count * channels, 1, 0, 0, 1, 0, 0, min(64, count - first), 1, row,
                          images, taps, ACCUMULATE)  # fmt: skip


def _row(x: Lanes) -> int:
    """From image to image, so that they do not all fall into the same cache sets."""
    return x.inner + 16


@scratch(lambda dw, g, x, **_: [((x.lanes, _row(x)), x.dtype)])
def locally_connected2d_dw(
    dw: Any, g: Lanes, x: Lanes, *, window: Any, stride: Any, padding: Any, scratch: Any
) -> None:
    launch(_turn, x.dtype, scratch[0], x, x.lanes, x.inner, _row(x))
    launch(_dw, dw.dtype, dw, g, scratch[0], x.shape[0], x.lanes, _row(x), *x.shape[1:],
           *g.shape[1:], *window, *stride, padding[0][0], padding[1][0])  # fmt: skip
