"""Pooling in lanes: every window position is a row of images, so maxima need no shuffles."""

from __future__ import annotations

from typing import Any

import numba

from .lanes import CHUNK, Lanes, share
from .launch import i32ptr, kernel, launch, ptr, size
from .rows import like, wide_tile
from .simd import at


def _geometry(x: Any) -> tuple[int, ...]:
    """Lanes, lanes of a chunk, height, width, channels.

    A few images come in C order: each is a chunk of one channel, whose lanes are its channels.
    """
    if isinstance(x, Lanes):
        return x.lanes, CHUNK, *x.shape[1:]
    count, height, width, channels = x.shape
    return count * channels, max(channels, 1), height, width, 1


# which windows and taps meet ----------------------------------------------------------------------
#
# Channels and images of a pixel lie in a row of memory, of which PIECE elements are done at a time.
# A kernel that goes back looks from each pixel at the windows that reach it, so that it writes
# every element once, and threads share rows.

PIECE = 512  # what is compared again and again stays in the nearest cache


@numba.njit
def _reaching(low, place, stride, extent):
    """The first window from `low` on whose last tap, `extent` after its first, is at `place` or
    beyond; places count from the edge of the padding."""
    while low * stride + extent < place:
        low += 1
    return low


@numba.njit
def _tap(place, window, stride, dilation):
    """Which tap of a window is at `place`, or -1."""
    away = place - window * stride
    if dilation > 1:
        return -1 if away % dilation != 0 else away // dilation
    return away


# maximum ------------------------------------------------------------------------------------------


@numba.njit(forceinline=True)
def _larger(best, tap, new, new_tap):
    """The larger of both, the first of equals, the first NaN; and its tap."""
    better = (not new <= best) & (best == best)
    return (new if better else best), (new_tap if better else tap)


@numba.njit
def _largest_of(best, where, x, offsets, taps, fresh, count):
    """The largest of x at four offsets and, unless fresh, of what `best` holds; and its tap."""
    a, b, c, d = at(x, offsets[0]), at(x, offsets[1]), at(x, offsets[2]), at(x, offsets[3])
    first, second = numba.int32(taps[0]), numba.int32(taps[1])
    third, fourth = numba.int32(taps[2]), numba.int32(taps[3])
    if fresh:
        for i in range(count):
            value, tap = _larger(a[i], first, b[i], second)
            value, tap = _larger(value, tap, c[i], third)
            best[i], where[i] = _larger(value, tap, d[i], fourth)
    else:
        for i in range(count):
            value, tap = _larger(best[i], where[i], a[i], first)
            value, tap = _larger(value, tap, b[i], second)
            value, tap = _larger(value, tap, c[i], third)
            best[i], where[i] = _larger(value, tap, d[i], fourth)


@kernel
def _max(
    t, n, y: ptr, index: i32ptr, x: ptr, lanes: size, chunk: size, height: size, width: size,
    channels: size, outputs_h: size, outputs_w: size, rows: size, columns: size, stride_h: size,
    stride_w: size, top: size, left: size, dilation_h: size, dilation_w: size,
):  # fmt: skip
    offsets, taps = wide_tile(index), wide_tile(index)  # of four taps that are looked at together
    for first in range(0, lanes, chunk):
        row = channels * min(chunk, lanes - first)
        x_chunk = at(x, first * height * width * channels)
        y_chunk = at(y, first * outputs_h * outputs_w * channels)
        index_chunk = at(index, first * outputs_h * outputs_w * channels)
        low, high = share(t, n, first, lanes, chunk, outputs_h)
        for p in range(low, high):
            for q in range(outputs_w):
                for start in range(0, row, PIECE):
                    count, place = min(PIECE, row - start), (p * outputs_w + q) * row + start
                    best, where = at(y_chunk, place), at(index_chunk, place)
                    fresh, found = True, 0
                    for r in range(rows):
                        h = p * stride_h + r * dilation_h - top
                        if h < 0 or h >= height:
                            continue
                        for s in range(columns):
                            v = q * stride_w + s * dilation_w - left
                            if v < 0 or v >= width:
                                continue
                            offsets[found] = (h * width + v) * row + start
                            taps[found] = r * columns + s
                            found += 1
                            if found == 4:
                                _largest_of(best, where, x_chunk, offsets, taps, fresh, count)
                                fresh, found = False, 0
                    if found > 0:
                        for k in range(found, 4):  # the first once more
                            offsets[k], taps[k] = offsets[0], taps[0]
                        _largest_of(best, where, x_chunk, offsets, taps, fresh, count)


def max_pool2d(
    y: Lanes, index: Lanes, x: Lanes, *, window: Any, stride: Any, padding: Any, dilation: Any,
    **_: Any,
) -> None:  # fmt: skip
    launch(_max, y.dtype, y, index, x, *_geometry(x), *y.shape[1:3], *window, *stride,
           padding[0][0], padding[1][0], *dilation)  # fmt: skip


@numba.njit
def _put_where(target, g, where, tap, count):
    """target = g in the images whose maximum was at `tap`, else 0."""
    for i in range(count):
        target[i] = g[i] if where[i] == tap else 0


@numba.njit
def _add_where(target, g, where, tap, count):
    for i in range(count):
        target[i] += g[i] if where[i] == tap else 0


@kernel
def _max_dx(
    t, n, dx: ptr, g: ptr, index: i32ptr, lanes: size, chunk: size, height: size, width: size,
    channels: size, outputs_h: size, outputs_w: size, rows: size, columns: size, stride_h: size,
    stride_w: size, top: size, left: size, dilation_h: size, dilation_w: size,
):  # fmt: skip
    tall, wide = (rows - 1) * dilation_h, (columns - 1) * dilation_w
    for first in range(0, lanes, chunk):
        row = channels * min(chunk, lanes - first)
        dx_chunk = at(dx, first * height * width * channels)
        g_chunk = at(g, first * outputs_h * outputs_w * channels)
        index_chunk = at(index, first * outputs_h * outputs_w * channels)
        low, high = share(t, n, first, lanes, chunk, height)
        p_low = 0
        for h in range(low, high):
            p_low, q_low = _reaching(p_low, h + top, stride_h, tall), 0
            p_end = min(outputs_h, (h + top) // stride_h + 1)
            for v in range(width):
                q_low = _reaching(q_low, v + left, stride_w, wide)
                for start in range(0, row, PIECE):
                    target = at(dx_chunk, (h * width + v) * row + start)
                    count, fresh = min(PIECE, row - start), True
                    for p in range(p_low, p_end):
                        r = _tap(h + top, p, stride_h, dilation_h)
                        if r < 0:
                            continue
                        q = q_low
                        while q < outputs_w and q * stride_w <= v + left:
                            s = _tap(v + left, q, stride_w, dilation_w)
                            if s >= 0:
                                place = (p * outputs_w + q) * row + start
                                arrived, where = at(g_chunk, place), at(index_chunk, place)
                                if fresh:
                                    _put_where(target, arrived, where, r * columns + s, count)
                                else:
                                    _add_where(target, arrived, where, r * columns + s, count)
                                fresh = False
                            q += 1
                    if fresh:
                        for i in range(count):
                            target[i] = 0


def max_pool2d_dx(
    dx: Lanes, g: Lanes, index: Lanes, *, size: Any, window: Any, stride: Any, padding: Any,
    dilation: Any, **_: Any,
) -> None:  # fmt: skip
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


@numba.njit
def _put(target, source, factor, count):
    for i in range(count):
        target[i] = factor * source[i]


@numba.njit
def _add(target, source, factor, count):
    for i in range(count):
        target[i] += factor * source[i]


@kernel
def _mean(
    t, n, y: ptr, x: ptr, lanes: size, chunk: size, height: size, width: size,
    channels: size, outputs_h: size, outputs_w: size, rows: size, columns: size, stride_h: size,
    stride_w: size, top: size, bottom: size, left: size, right: size, include_padding: size,
):  # fmt: skip
    for first in range(0, lanes, chunk):
        row = channels * min(chunk, lanes - first)
        x_chunk = at(x, first * height * width * channels)
        y_chunk = at(y, first * outputs_h * outputs_w * channels)
        low, high = share(t, n, first, lanes, chunk, outputs_h)
        for p in range(low, high):
            tall = counted(p, stride_h, top, bottom, rows, height, include_padding)
            h_low, h_end = max(p * stride_h - top, 0), min(p * stride_h - top + rows, height)
            for q in range(outputs_w):
                wide = counted(q, stride_w, left, right, columns, width, include_padding)
                v_low = max(q * stride_w - left, 0)
                v_end = min(q * stride_w - left + columns, width)
                factor = like(y, 1.0) / like(y, tall * wide)
                for start in range(0, row, PIECE):
                    target = at(y_chunk, (p * outputs_w + q) * row + start)
                    count, fresh = min(PIECE, row - start), True
                    for h in range(h_low, h_end):
                        for v in range(v_low, v_end):
                            source = at(x_chunk, (h * width + v) * row + start)
                            if fresh:
                                _put(target, source, factor, count)
                            else:
                                _add(target, source, factor, count)
                            fresh = False
                    if fresh:
                        for i in range(count):
                            target[i] = 0


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
    for first in range(0, lanes, chunk):
        row = channels * min(chunk, lanes - first)
        dx_chunk = at(dx, first * height * width * channels)
        g_chunk = at(g, first * outputs_h * outputs_w * channels)
        low, high = share(t, n, first, lanes, chunk, height)
        p_low = 0
        for h in range(low, high):
            p_low, q_low = _reaching(p_low, h + top, stride_h, rows - 1), 0
            p_end = min(outputs_h, (h + top) // stride_h + 1)
            for v in range(width):
                q_low = _reaching(q_low, v + left, stride_w, columns - 1)
                for start in range(0, row, PIECE):
                    target = at(dx_chunk, (h * width + v) * row + start)
                    count, fresh = min(PIECE, row - start), True
                    for p in range(p_low, p_end):
                        tall = counted(p, stride_h, top, bottom, rows, height, include_padding)
                        q = q_low
                        while q < outputs_w and q * stride_w <= v + left:
                            wide = counted(q, stride_w, left, right, columns, width,
                                           include_padding)  # fmt: skip
                            factor = like(dx, 1.0) / like(dx, tall * wide)
                            source = at(g_chunk, (p * outputs_w + q) * row + start)
                            if fresh:
                                _put(target, source, factor, count)
                            else:
                                _add(target, source, factor, count)
                            fresh = False
                            q += 1
                    if fresh:
                        for i in range(count):
                            target[i] = 0


def avg_pool2d_dx(
    dx: Lanes, g: Lanes, *, size: Any, window: Any, stride: Any, padding: Any, ceil_mode: bool,
    count_include_pad: bool,
) -> None:  # fmt: skip
    launch(_mean_dx, dx.dtype, dx, g, *_geometry(dx), *g.shape[1:3],
           *_mean_geometry(window, stride, padding, count_include_pad))  # fmt: skip
