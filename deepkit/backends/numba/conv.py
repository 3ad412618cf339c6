"""Convolution in lanes: no im2col is needed, every tap is a row of images.

    forward   y[p, q][k][64 images] = sum over taps (r, s, c) of w[k, r, s, c] x[h, w][c][64 images]
              with h = p * stride + r * dilation - padding: borders only shorten the loops over taps
    dx        the same with the taps that reach (h, w), and the filters as [c][r][s][k]
    dw        dw[k, r, s, c] = sum over (p, q) of <g[p, q][k][images], x[h, w][c][images]>

`direct` walks the taps in place, `im2col` copies them side by side first (one output row at a
time) and is kept as the plain way to say the same.  `winograd` (winograd.py) is for 3 x 3 windows.
"""

from __future__ import annotations

from typing import Any

import numba

from .. import ahead, scratch, variants
from . import conv_ahead, conv_channels, conv_depthwise, conv_packed, winograd
from .elementwise import activate
from .lanes import Lanes, chunk_width, clear_spare, share
from .launch import kernel, launch, ptr, size
from .linear import epilogue
from .simd import at, dot_panel, panel
from .window import (
    common_divisor,
    first_output,
    first_reaching,
    first_tap,
    geometry,
    last_output,
    last_tap,
)

BLOCK = 1 << 18  # bytes of g and x that a sweep of dw touches: what fits the second cache


# forward ------------------------------------------------------------------------------------------


@kernel
def _direct(
    t, n, y: ptr, x: ptr, w: ptr, bias: ptr, lanes: size, height: size, width: size,
    channels: size, outputs_h: size, outputs_w: size, filters: size, rows: size, columns: size,
    stride_h: size, stride_w: size, top: size, left: size, dilation_h: size, dilation_w: size,
    groups: size, flags: size,
):  # fmt: skip
    inside, some = channels // groups, filters // groups
    taps = rows * columns * inside
    for first in range(0, lanes, 64):
        images = chunk_width(first, lanes)
        x_chunk = at(x, first * height * width * channels)
        y_chunk = at(y, first * outputs_h * outputs_w * filters)
        low, high = share(t, n, first, lanes, 64, outputs_h)
        for p in range(low, high):
            h = p * stride_h - top
            r = first_tap(h, dilation_h)
            r_count = last_tap(h, dilation_h, rows, height) - r
            for q in range(outputs_w):
                v = q * stride_w - left
                s = first_tap(v, dilation_w)
                s_count = last_tap(v, dilation_w, columns, width) - s
                runs, run = s_count, inside
                if groups == 1 and dilation_w == 1:  # the taps of a row lie side by side
                    runs, run = 1, s_count * inside
                corner = ((h + r * dilation_h) * width + v + s * dilation_w) * channels
                place = (p * outputs_w + q) * filters
                for group in range(groups):
                    k = group * some
                    panel(at(w, k * taps + (r * columns + s) * inside),
                          at(x_chunk, (corner + group * inside) * images),
                          at(y_chunk, (place + k) * images), at(bias, k), some, images,
                          r_count, columns * inside, dilation_h * width * channels * images,
                          runs, inside, dilation_w * channels * images,
                          run, 1, images, taps, images, flags)  # fmt: skip


def _depthwise(x: Any, groups: int) -> bool:
    """Whether each channel has filters of its own."""
    return groups == x.shape[-1] > 1


def _turned(y: Any, x: Any, w: Any, *_: Any, **__: Any) -> list:
    """Scratch of the direct way: none in lanes, the filters turned in C order."""
    return [] if isinstance(y, Lanes) else [(w.shape, w.dtype)]


@ahead(conv_ahead.parts)
@scratch(_turned)
def _conv2d_direct(
    y: Any, x: Any, w: Any, b: Any, residual: Any = None, *, stride: Any, padding: Any,
    dilation: Any, groups: int, activation: str | None, algorithm: str, scratch: Any,
) -> None:  # fmt: skip
    options = geometry(stride, padding, dilation, groups)
    inside = activation if residual is None else None
    if not isinstance(y, Lanes):
        conv_channels.turn(scratch[0], w, groups)
        conv_channels.forward(y, x, w, b, scratch[0], options, inside)
    elif _depthwise(x, groups):
        conv_depthwise.forward(y, x, w, b, options, inside)
    else:
        launch(_direct, y.dtype, y, x, w, b, x.lanes, *x.shape[1:], *y.shape[1:], *w.shape[1:3],
               *options, epilogue(b, inside), work=y.size * w[0].size)  # fmt: skip
    conv_ahead.finish(y, residual, activation)


_conv2d_direct.takes_residual = True  # type: ignore[attr-defined]


# im2col: one output row of taps side by side, [q][group][r][s][c][images] ------------------------


@numba.njit
def unfold_row(
    columns_, x, p, images, height, width, channels, outputs_w, rows, columns, stride_h, stride_w,
    top, left, dilation_h, dilation_w, groups,
):  # fmt: skip
    inside = channels // groups
    to = 0
    for q in range(outputs_w):
        for group in range(groups):
            for r in range(rows):
                h = p * stride_h + r * dilation_h - top
                for s in range(columns):
                    v = q * stride_w + s * dilation_w - left
                    count = inside * images
                    if 0 <= h < height and 0 <= v < width:
                        source = at(x, ((h * width + v) * channels + group * inside) * images)
                        for i in range(count):
                            columns_[to + i] = source[i]
                    else:
                        for i in range(count):
                            columns_[to + i] = 0
                    to += count


@kernel
def _im2col(
    t, n, y: ptr, x: ptr, w: ptr, bias: ptr, work: ptr, lanes: size, height: size, width: size,
    channels: size, outputs_h: size, outputs_w: size, filters: size, rows: size, columns: size,
    stride_h: size, stride_w: size, top: size, left: size, dilation_h: size, dilation_w: size,
    groups: size, flags: size,
):  # fmt: skip
    if t > 0:
        return  # the plain variant: one row of scratch, one thread
    some, taps = filters // groups, rows * columns * (channels // groups)
    for first in range(0, lanes, 64):
        images = chunk_width(first, lanes)
        x_chunk = at(x, first * height * width * channels)
        y_chunk = at(y, first * outputs_h * outputs_w * filters)
        for p in range(outputs_h):
            unfold_row(work, x_chunk, p, images, height, width, channels, outputs_w, rows,
                       columns, stride_h, stride_w, top, left, dilation_h, dilation_w,
                       groups)  # fmt: skip
            for q in range(outputs_w):
                for group in range(groups):
                    k = group * some
                    panel(at(w, k * taps), at(work, (q * groups + group) * taps * images),
                          at(y_chunk, ((p * outputs_w + q) * filters + k) * images), at(bias, k),
                          some, images, 1, 0, 0, 1, 0, 0, taps, 1, images, taps, images,
                          flags)  # fmt: skip


def _row_of_taps(y: Any, x: Any, w: Any, *_: Any, groups: int, **__: Any) -> list:
    """Scratch for one output row: every image's taps."""
    return [((y.shape[2], groups, *w.shape[1:], 64), y.dtype)]


@scratch(_row_of_taps)
def _conv2d_im2col(
    y: Lanes, x: Lanes, w: Any, b: Any, *, stride: Any, padding: Any, dilation: Any, groups: int,
    activation: str | None, algorithm: str, scratch: Any,
) -> None:  # fmt: skip
    launch(_im2col, y.dtype, y, x, w, b, scratch[0], x.lanes, *x.shape[1:], *y.shape[1:],
           *w.shape[1:3], *geometry(stride, padding, dilation, groups),
           epilogue(b, activation))  # fmt: skip
    activate(y, activation)


@variants(direct=_conv2d_direct, im2col=_conv2d_im2col, winograd=winograd.conv2d)
def conv2d(x: Any, w: Any, b: Any, **params: Any) -> str:
    return _faster("forward", x, x.shape, w.shape, params)


def _faster(direction: str, images: Any, x: tuple, w: tuple, params: dict[str, Any]) -> str:
    """Winograd's algorithm where it pays and the images are in lanes."""
    there = isinstance(images, Lanes)
    pays = there and winograd.pays(direction, x, w, images.dtype, **params)
    return "winograd" if pays else "direct"


# the gradient for x -------------------------------------------------------------------------------


@kernel
def _filters_by_channel(
    t, n, turned: ptr, w: ptr, filters: size, taps: size, inside: size, groups: size
):  # fmt: skip
    """turned[group][c][tap][k] = w[group][k][tap][c]."""
    some = filters // groups
    for group in range(groups):
        for c in range(t * inside // n, (t + 1) * inside // n):
            for tap in range(taps):
                target = at(turned, ((group * inside + c) * taps + tap) * some)
                source = at(w, (group * some * taps + tap) * inside + c)
                for k in range(some):
                    target[k] = source[k * taps * inside]


@kernel
def _direct_dx(
    t, n, dx: ptr, g: ptr, turned: ptr, lanes: size, height: size, width: size, channels: size,
    outputs_h: size, outputs_w: size, filters: size, rows: size, columns: size, stride_h: size,
    stride_w: size, top: size, left: size, dilation_h: size, dilation_w: size, groups: size,
):  # fmt: skip
    inside, some = channels // groups, filters // groups
    divisor_h = common_divisor(stride_h, dilation_h)
    divisor_w = common_divisor(stride_w, dilation_w)
    r_step, p_step = stride_h // divisor_h, dilation_h // divisor_h
    s_step, q_step = stride_w // divisor_w, dilation_w // divisor_w
    taps = rows * columns * some
    for first in range(0, lanes, 64):
        images = chunk_width(first, lanes)
        g_chunk = at(g, first * outputs_h * outputs_w * filters)
        dx_chunk = at(dx, first * height * width * channels)
        low, high = share(t, n, first, lanes, 64, height)
        for h in range(low, high):
            r = first_reaching(h, stride_h, dilation_h, top, rows, outputs_h)
            p = (h + top - r * dilation_h) // stride_h
            r_count = 0 if r >= rows else min((rows - 1 - r) // r_step, p // p_step) + 1
            for v in range(width):
                s = first_reaching(v, stride_w, dilation_w, left, columns, outputs_w)
                q = (v + left - s * dilation_w) // stride_w
                s_count = 0 if s >= columns else min((columns - 1 - s) // s_step, q // q_step) + 1
                for group in range(groups):
                    c = group * inside
                    panel(at(turned, c * taps + (r * columns + s) * some),
                          at(g_chunk, ((p * outputs_w + q) * filters + group * some) * images),
                          at(dx_chunk, ((h * width + v) * channels + c) * images), turned,
                          inside, images,
                          r_count, r_step * columns * some, -p_step * outputs_w * filters * images,
                          s_count, s_step * some, -q_step * filters * images,
                          some, 1, images, taps, images, 0)  # fmt: skip


@scratch(lambda dx, g, w, **_: [(w.shape, w.dtype)] if isinstance(dx, Lanes) else [])
def _conv2d_dx_direct(
    dx: Any, g: Any, w: Any, *, size: Any, stride: Any, padding: Any, dilation: Any,
    groups: int, algorithm: str, scratch: Any,
) -> None:  # fmt: skip
    options = geometry(stride, padding, dilation, groups)
    if not isinstance(dx, Lanes):
        conv_channels.dx(dx, g, w, options)
        return
    if _depthwise(dx, groups):
        conv_depthwise.dx(dx, g, w, options)
        return
    filters, rows, columns, inside = w.shape
    launch(_filters_by_channel, w.dtype, scratch[0], w, filters, rows * columns, inside, groups)
    launch(_direct_dx, dx.dtype, dx, g, scratch[0], g.lanes, *dx.shape[1:], *g.shape[1:],
           rows, columns, *options, work=g.size * w[0].size)  # fmt: skip


@kernel
def _im2col_dx(
    t, n, dx: ptr, g: ptr, turned: ptr, work: ptr, lanes: size, height: size, width: size,
    channels: size, outputs_h: size, outputs_w: size, filters: size, rows: size, columns: size,
    stride_h: size, stride_w: size, top: size, left: size, dilation_h: size, dilation_w: size,
    groups: size,
):  # fmt: skip
    """Products for every tap, then added up where the taps came from."""
    if t > 0:
        return
    inside, some = channels // groups, filters // groups
    for first in range(0, lanes, 64):
        images = chunk_width(first, lanes)
        dx_chunk = at(dx, first * height * width * channels)
        g_chunk = at(g, first * outputs_h * outputs_w * filters)
        for i in range(height * width * channels * images):
            dx_chunk[i] = 0
        for place in range(outputs_h * outputs_w):
            p, q = place // outputs_w, place % outputs_w
            for group in range(groups):
                count = inside * rows * columns
                panel(at(turned, group * count * some),
                      at(g_chunk, (place * filters + group * some) * images), work, turned,
                      count, images, 1, 0, 0, 1, 0, 0, some, 1, images, some, images,
                      0)  # fmt: skip
                for c in range(inside):
                    for r in range(rows):
                        h = p * stride_h + r * dilation_h - top
                        for s in range(columns):
                            v = q * stride_w + s * dilation_w - left
                            if 0 <= h < height and 0 <= v < width:
                                source = at(work, ((c * rows + r) * columns + s) * images)
                                where = (h * width + v) * channels + group * inside + c
                                target = at(dx_chunk, where * images)
                                for i in range(images):
                                    target[i] += source[i]


@scratch(lambda dx, g, w, **_: [(w.shape, w.dtype), ((*w.shape[1:], 64), w.dtype)])
def _conv2d_dx_im2col(
    dx: Lanes, g: Lanes, w: Any, *, size: Any, stride: Any, padding: Any, dilation: Any,
    groups: int, algorithm: str, scratch: Any,
) -> None:  # fmt: skip
    turned, work = scratch
    filters, rows, columns, inside = w.shape
    launch(_filters_by_channel, w.dtype, turned, w, filters, rows * columns, inside, groups)
    launch(_im2col_dx, dx.dtype, dx, g, turned, work, g.lanes, *dx.shape[1:], *g.shape[1:],
           rows, columns, *geometry(stride, padding, dilation, groups))  # fmt: skip


@variants(direct=_conv2d_dx_direct, im2col=_conv2d_dx_im2col, winograd=winograd.conv2d_dx)
def conv2d_dx(g: Any, w: Any, **params: Any) -> str:
    return _faster("dx", g, (g.shape[0], *params["size"], w.shape[3]), w.shape, params)


# the gradient for w -------------------------------------------------------------------------------


@numba.njit
def _row_parts(rows, filters, n):
    """Into how many parts n threads divide the rows of the window, and the filters into n over
    that: to read what it multiplies takes a thread as long as one filter more."""
    best, least = 1, rows * ((filters + n - 1) // n + 1)
    for parts in range(2, min(rows, n) + 1):
        others = n // parts
        cost = (rows + parts - 1) // parts * ((filters + others - 1) // others + 1)
        if cost < least:
            best, least = parts, cost
    return best


@kernel
def _direct_dw(
    t, n, dw: ptr, g: ptr, x: ptr, lanes: size, height: size, width: size, channels: size,
    outputs_h: size, outputs_w: size, filters: size, rows: size, columns: size, stride_h: size,
    stride_w: size, top: size, left: size, dilation_h: size, dilation_w: size, groups: size,
    block: size,
):  # fmt: skip
    inside, some = channels // groups, filters // groups
    taps = rows * columns * inside
    merged = groups == 1 and dilation_w == 1
    middle = first_output(0, stride_w, left)  # outputs of a row whose taps are all inside
    middle_end = max(middle, last_output(columns - 1, stride_w, left, width, outputs_w))
    parts = _row_parts(rows, filters, n)
    n, t, part = n // parts, t // parts, t % parts
    if t == n:
        return  # threads that are left over
    r_begin, r_end = part * rows // parts, (part + 1) * rows // parts
    for k in range(t * filters // n, (t + 1) * filters // n):
        for i in range(r_begin * columns * inside, r_end * columns * inside):
            dw[k * taps + i] = 0
    for first in range(0, lanes, 64):
        images = chunk_width(first, lanes)
        g_chunk = at(g, first * outputs_h * outputs_w * filters)
        x_chunk = at(x, first * height * width * channels)
        for start in range(0, outputs_h, block):
            for group in range(groups):
                k = max(group * some, t * filters // n)
                count = min((group + 1) * some, (t + 1) * filters // n) - k
                if count <= 0:
                    continue
                for r in range(r_begin, r_end):
                    p = max(start, first_output(r * dilation_h, stride_h, top))
                    p_end = last_output(r * dilation_h, stride_h, top, height, outputs_h)
                    p_count = min(start + block, p_end) - p
                    if p_count <= 0:
                        continue
                    h = p * stride_h + r * dilation_h - top
                    if merged and middle_end > middle:
                        v = middle * stride_w - left
                        dot_panel(at(g_chunk, ((p * outputs_w + middle) * filters + k) * images),
                                  at(x_chunk, (h * width + v) * channels * images),
                                  at(dw, k * taps + r * columns * inside),
                                  count, columns * inside,
                                  p_count, outputs_w * filters * images,
                                  stride_h * width * channels * images,
                                  middle_end - middle, filters * images,
                                  stride_w * channels * images,
                                  images, images, images, taps, 1)  # fmt: skip
                    for s in range(columns):
                        q_first = first_output(s * dilation_w, stride_w, left)
                        q_last = last_output(s * dilation_w, stride_w, left, width, outputs_w)
                        for side in range(2):
                            q, q_end = q_first, q_last
                            if merged and middle_end > middle:
                                if side == 0:
                                    q_end = min(q_last, middle)
                                else:
                                    q = max(q_first, middle_end)
                            elif side == 1:
                                continue
                            if q_end <= q:
                                continue
                            v = q * stride_w + s * dilation_w - left
                            corner = (h * width + v) * channels + group * inside
                            dot_panel(at(g_chunk, ((p * outputs_w + q) * filters + k) * images),
                                      at(x_chunk, corner * images),
                                      at(dw, k * taps + (r * columns + s) * inside),
                                      count, inside,
                                      p_count, outputs_w * filters * images,
                                      stride_h * width * channels * images,
                                      q_end - q, filters * images, stride_w * channels * images,
                                      images, images, images, taps, 1)  # fmt: skip


def _packs(dw: Any, groups: int) -> bool:
    return conv_packed.pays(dw.shape[0], dw.shape[3] * groups, groups)


def _dw_scratch(dw: Any, g: Any, x: Any, *, groups: int, **_: Any) -> list:
    if not isinstance(x, Lanes):
        return []
    if _depthwise(x, groups):
        return [conv_depthwise.sums_of(dw)]
    return [conv_packed.room(dw)] if _packs(dw, groups) else []


@scratch(_dw_scratch)
def _conv2d_dw_direct(
    dw: Any, g: Any, x: Any, *, window: Any, stride: Any, padding: Any, dilation: Any,
    groups: int, algorithm: str, scratch: Any,
) -> None:  # fmt: skip
    options = geometry(stride, padding, dilation, groups)
    if not isinstance(g, Lanes):
        conv_channels.dw(dw, g, x, options)
        return
    if _depthwise(x, groups):
        conv_depthwise.dw(dw, scratch[0], g, x, options)
        return
    if _packs(dw, groups):
        conv_packed.dw(dw, scratch[0], g, x, options)
        return
    clear_spare(g, x)
    images = min(64, x.lanes)
    row = images * (g.shape[2] * g.shape[3] + stride[0] * x.shape[2] * x.shape[3])
    block = max(1, BLOCK // (max(row, 1) * x.dtype.itemsize))
    launch(_direct_dw, dw.dtype, dw, g, x, x.lanes, *x.shape[1:], *g.shape[1:], *dw.shape[1:3],
           *options, block, work=g.size * dw[0].size)  # fmt: skip


@kernel
def _im2col_dw(
    t, n, dw: ptr, g: ptr, x: ptr, work: ptr, lanes: size, height: size, width: size,
    channels: size, outputs_h: size, outputs_w: size, filters: size, rows: size, columns: size,
    stride_h: size, stride_w: size, top: size, left: size, dilation_h: size, dilation_w: size,
    groups: size,
):  # fmt: skip
    if t > 0:
        return
    some, taps = filters // groups, rows * columns * (channels // groups)
    for i in range(filters * taps):
        dw[i] = 0
    for first in range(0, lanes, 64):
        images = chunk_width(first, lanes)
        x_chunk = at(x, first * height * width * channels)
        g_chunk = at(g, first * outputs_h * outputs_w * filters)
        for p in range(outputs_h):
            unfold_row(work, x_chunk, p, images, height, width, channels, outputs_w, rows,
                       columns, stride_h, stride_w, top, left, dilation_h, dilation_w,
                       groups)  # fmt: skip
            for group in range(groups):
                k = group * some
                dot_panel(at(g_chunk, (p * outputs_w * filters + k) * images),
                          at(work, group * taps * images), at(dw, k * taps), some, taps,
                          1, 0, 0, outputs_w, filters * images, groups * taps * images,
                          images, images, images, taps, 1)  # fmt: skip


@scratch(lambda dw, g, x, *, groups, **_: _row_of_taps(g, x, dw, groups=groups))
def _conv2d_dw_im2col(
    dw: Any, g: Lanes, x: Lanes, *, window: Any, stride: Any, padding: Any, dilation: Any,
    groups: int, algorithm: str, scratch: Any,
) -> None:  # fmt: skip
    clear_spare(g, x)
    launch(_im2col_dw, dw.dtype, dw, g, x, scratch[0], x.lanes, *x.shape[1:], *g.shape[1:],
           *dw.shape[1:3], *geometry(stride, padding, dilation, groups))  # fmt: skip


@variants(direct=_conv2d_dw_direct, im2col=_conv2d_dw_im2col, winograd=winograd.conv2d_dw)
def conv2d_dw(g: Any, x: Any, **params: Any) -> str:
    return _faster("dw", g, x.shape, (g.shape[3], *params["window"], x.shape[3]), params)
