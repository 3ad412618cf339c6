"""Pooling in lanes: every window position is a row of images, so maxima need no shuffles."""

from __future__ import annotations

from typing import Any

import numba

from .lanes import CHUNK, Lanes, share
from .launch import i32ptr, kernel, launch, ptr, size
from .simd import at


def _geometry(x: Any) -> tuple[int, ...]:
    """Lanes, lanes of a chunk, height, width, channels.

    A few images come in C order: each is a chunk of one channel, whose lanes are its channels.
    """
    if isinstance(x, Lanes):
        return x.lanes, CHUNK, *x.shape[1:]
    count, height, width, channels = x.shape
    return count * channels, channels, height, width, 1


# maximum ------------------------------------------------------------------------------------------


@numba.njit
def take_larger(best, where, x, tap, images):
    """Where x is larger, or the first NaN, it becomes the best, and `tap` its place."""
    for i in range(images):
        old, new = best[i], x[i]
        better = (new > old) | ((new != new) & (old == old))
        best[i] = new if better else old
        where[i] = tap if better else where[i]


@kernel
def _max(
    t, n, y: ptr, index: i32ptr, x: ptr, lanes: size, chunk: size, height: size, width: size,
    channels: size, outputs_h: size, outputs_w: size, rows: size, columns: size, stride_h: size,
    stride_w: size, top: size, left: size, dilation_h: size, dilation_w: size,
):  # fmt: skip
    for first in range(0, lanes, chunk):
        images = min(chunk, lanes - first)
        x_chunk = at(x, first * height * width * channels)
        y_chunk = at(y, first * outputs_h * outputs_w * channels)
        index_chunk = at(index, first * outputs_h * outputs_w * channels)
        low, high = share(t, n, first, lanes, chunk, outputs_h)
        for p in range(low, high):
            for q in range(outputs_w):
                for c in range(channels):
                    place = ((p * outputs_w + q) * channels + c) * images
                    best, where = at(y_chunk, place), at(index_chunk, place)
                    fresh = True
                    for r in range(rows):
                        h = p * stride_h + r * dilation_h - top
                        if h < 0 or h >= height:
                            continue
                        for s in range(columns):
                            v = q * stride_w + s * dilation_w - left
                            if v < 0 or v >= width:
                                continue
                            source = at(x_chunk, ((h * width + v) * channels + c) * images)
                            if fresh:
                                fresh = False
                                for i in range(images):
                                    best[i] = source[i]
                                    where[i] = r * columns + s
                            else:
                                take_larger(best, where, source, r * columns + s, images)


def max_pool2d(
    y: Lanes, index: Lanes, x: Lanes, *, window: Any, stride: Any, padding: Any, dilation: Any,
    **_: Any,
) -> None:  # fmt: skip
    launch(_max, y.dtype, y, index, x, *_geometry(x), *y.shape[1:3], *window, *stride,
           padding[0][0], padding[1][0], *dilation)  # fmt: skip


@numba.njit
def add_where(target, g, where, tap, images):
    """target += g in the images whose maximum was at `tap`."""
    for i in range(images):
        target[i] += g[i] if where[i] == tap else 0


@kernel
def _max_dx(
    t, n, dx: ptr, g: ptr, index: i32ptr, lanes: size, chunk: size, height: size, width: size,
    channels: size, outputs_h: size, outputs_w: size, rows: size, columns: size, stride_h: size,
    stride_w: size, top: size, left: size, dilation_h: size, dilation_w: size,
):  # fmt: skip
    """Windows may overlap, so threads share channels, not rows."""
    for first in range(0, lanes, chunk):
        low, high = share(t, n, first, lanes, chunk, channels)
        images = min(chunk, lanes - first)
        dx_chunk = at(dx, first * height * width * channels)
        g_chunk = at(g, first * outputs_h * outputs_w * channels)
        index_chunk = at(index, first * outputs_h * outputs_w * channels)
        for place in range(height * width):
            for i in range((place * channels + low) * images, (place * channels + high) * images):
                dx_chunk[i] = 0
        for p in range(outputs_h):
            for q in range(outputs_w):
                for c in range(low, high):
                    place = ((p * outputs_w + q) * channels + c) * images
                    for r in range(rows):
                        h = p * stride_h + r * dilation_h - top
                        if h < 0 or h >= height:
                            continue
                        for s in range(columns):
                            v = q * stride_w + s * dilation_w - left
                            if v < 0 or v >= width:
                                continue
                            target = at(dx_chunk, ((h * width + v) * channels + c) * images)
                            add_where(target, at(g_chunk, place), at(index_chunk, place),
                                      r * columns + s, images)  # fmt: skip


@kernel
def _max_dx_of_tiles(
    t, n, dx: ptr, g: ptr, index: i32ptr, lanes: size, chunk: size, outputs_h: size,
    outputs_w: size, channels: size, rows: size, columns: size,
):  # fmt: skip
    """The windows lie side by side and cover everything: each element is written once."""
    for first in range(0, lanes, chunk):
        images = min(chunk, lanes - first)
        dx_chunk = at(dx, first * outputs_h * rows * outputs_w * columns * channels)
        low, high = share(t, n, first, lanes, chunk, outputs_h)
        for p in range(low, high):
            for r in range(rows):
                for q in range(outputs_w):
                    place = (p * outputs_w + q) * channels * images
                    arrived = at(g, first * outputs_h * outputs_w * channels + place)
                    where = at(index, first * outputs_h * outputs_w * channels + place)
                    for s in range(columns):
                        target = at(dx_chunk, (((p * rows + r) * outputs_w + q) * columns + s)
                                    * channels * images)  # fmt: skip
                        tap = r * columns + s
                        for i in range(channels * images):
                            target[i] = arrived[i] if where[i] == tap else 0


def max_pool2d_dx(
    dx: Lanes, g: Lanes, index: Lanes, *, size: Any, window: Any, stride: Any, padding: Any,
    dilation: Any, **_: Any,
) -> None:  # fmt: skip
    tiles = (g.shape[1] * window[0], g.shape[2] * window[1])
    first = (padding[0][0], padding[1][0])
    apart = (tuple(stride), tuple(dilation), first) == (tuple(window), (1, 1), (0, 0))
    if apart and dx.shape[1:3] == tiles:
        launch(_max_dx_of_tiles, dx.dtype, dx, g, index, *_geometry(g), *window)
        return
    launch(_max_dx, dx.dtype, dx, g, index, *_geometry(dx), *g.shape[1:3], *window,
           *stride, padding[0][0], padding[1][0], *dilation)  # fmt: skip


@kernel
def _gather(
    t, n, y: ptr, x: ptr, index: i32ptr, lanes: size, chunk: size, height: size, width: size,
    channels: size, outputs_h: size, outputs_w: size, rows: size, columns: size, stride_h: size,
    stride_w: size, top: size, left: size, dilation_h: size, dilation_w: size,
):  # fmt: skip
    for first in range(0, lanes, chunk):
        images = min(chunk, lanes - first)
        x_chunk = at(x, first * height * width * channels)
        y_chunk = at(y, first * outputs_h * outputs_w * channels)
        index_chunk = at(index, first * outputs_h * outputs_w * channels)
        low, high = share(t, n, first, lanes, chunk, outputs_h)
        for p in range(low, high):
            for q in range(outputs_w):
                for c in range(channels):
                    place = ((p * outputs_w + q) * channels + c) * images
                    target, where = at(y_chunk, place), at(index_chunk, place)
                    for i in range(images):
                        target[i] = 0
                    for r in range(rows):
                        h = p * stride_h + r * dilation_h - top
                        if h < 0 or h >= height:
                            continue
                        for s in range(columns):
                            v = q * stride_w + s * dilation_w - left
                            if v < 0 or v >= width:
                                continue
                            source = at(x_chunk, ((h * width + v) * channels + c) * images)
                            tap = r * columns + s
                            for i in range(images):
                                target[i] = source[i] if where[i] == tap else target[i]


def max_pool2d_gather(
    y: Lanes, x: Lanes, index: Lanes, *, window: Any, stride: Any, padding: Any, dilation: Any
) -> None:
    launch(_gather, y.dtype, y, x, index, *_geometry(x), *y.shape[1:3], *window, *stride,
           padding[0][0], padding[1][0], *dilation)  # fmt: skip


# mean ---------------------------------------------------------------------------------------------


@numba.njit
def counted(at_, stride, before, after, window, length, include_padding):
    """How many positions along one axis the mean of window number `at_` is over."""
    first = at_ * stride - before
    last = min(first + window, length + after)
    return last - first if include_padding else min(last, length) - max(first, 0)


@kernel
def _mean(
    t, n, y: ptr, x: ptr, lanes: size, chunk: size, height: size, width: size,
    channels: size, outputs_h: size, outputs_w: size, rows: size, columns: size, stride_h: size,
    stride_w: size, top: size, bottom: size, left: size, right: size, include_padding: size,
):  # fmt: skip
    for first in range(0, lanes, chunk):
        images = min(chunk, lanes - first)
        x_chunk = at(x, first * height * width * channels)
        y_chunk = at(y, first * outputs_h * outputs_w * channels)
        low, high = share(t, n, first, lanes, chunk, outputs_h)
        for p in range(low, high):
            high = counted(p, stride_h, top, bottom, rows, height, include_padding)
            for q in range(outputs_w):
                wide = counted(q, stride_w, left, right, columns, width, include_padding)
                for c in range(channels):
                    target = at(y_chunk, ((p * outputs_w + q) * channels + c) * images)
                    for i in range(images):
                        target[i] = 0
                    for h in range(
                        max(p * stride_h - top, 0), min(p * stride_h - top + rows, height)
                    ):
                        start = q * stride_w - left
                        for v in range(max(start, 0), min(start + columns, width)):
                            source = at(x_chunk, ((h * width + v) * channels + c) * images)
                            for i in range(images):
                                target[i] += source[i]
                    for i in range(images):
                        target[i] /= high * wide


def _mean_geometry(window: Any, stride: Any, padding: Any, include_padding: bool) -> tuple:
    return (*window, *stride, *padding[0], *padding[1], int(include_padding))


def avg_pool2d(
    y: Lanes, x: Lanes, *, window: Any, stride: Any, padding: Any, ceil_mode: bool,
    count_include_pad: bool,
) -> None:  # fmt: skip
    launch(_mean, y.dtype, y, x, *_geometry(x), *y.shape[1:3],
           *_mean_geometry(window, stride, padding, count_include_pad))  # fmt: skip


@kernel
def _mean_dx(
    t, n, dx: ptr, g: ptr, lanes: size, chunk: size, height: size, width: size,
    channels: size, outputs_h: size, outputs_w: size, rows: size, columns: size, stride_h: size,
    stride_w: size, top: size, bottom: size, left: size, right: size, include_padding: size,
):  # fmt: skip
    """Windows may overlap, so threads share channels, not rows."""
    for first in range(0, lanes, chunk):
        low, high = share(t, n, first, lanes, chunk, channels)
        images = min(chunk, lanes - first)
        dx_chunk = at(dx, first * height * width * channels)
        g_chunk = at(g, first * outputs_h * outputs_w * channels)
        for place in range(height * width):
            for i in range((place * channels + low) * images, (place * channels + high) * images):
                dx_chunk[i] = 0
        for p in range(outputs_h):
            tall = counted(p, stride_h, top, bottom, rows, height, include_padding)
            for q in range(outputs_w):
                wide = counted(q, stride_w, left, right, columns, width, include_padding)
                start = q * stride_w - left
                for h in range(max(p * stride_h - top, 0), min(p * stride_h - top + rows, height)):
                    for v in range(max(start, 0), min(start + columns, width)):
                        for c in range(low, high):
                            source = at(g_chunk, ((p * outputs_w + q) * channels + c) * images)
                            target = at(dx_chunk, ((h * width + v) * channels + c) * images)
                            for i in range(images):
                                target[i] += source[i] / (tall * wide)


def avg_pool2d_dx(
    dx: Lanes, g: Lanes, *, size: Any, window: Any, stride: Any, padding: Any, ceil_mode: bool,
    count_include_pad: bool,
) -> None:  # fmt: skip
    launch(_mean_dx, dx.dtype, dx, g, *_geometry(dx), *g.shape[1:3],
           *_mean_geometry(window, stride, padding, count_include_pad))  # fmt: skip
