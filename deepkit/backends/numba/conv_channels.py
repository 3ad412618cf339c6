"""Convolution of a few images in C order: where a batch cannot fill the lanes, channels do.

    forward   y[p, q..][k] = sum over taps (r, s, c) of x[h, v..][c] turned[r, s, c][k]
    dx        dx[h, v..][c] = sum over (r, s, k) of g[p, q..][k] w[k, r, s][c]
    dw        dw[k.., r, s][c] = sum over images and (p, q) of g[p, q][k..] x[h, v][c]

In each the rows of a panel are what stands with `..`: neighbouring places that meet all the same
taps, or the filters.  The last brackets are the columns, contiguous in memory.
"""

from __future__ import annotations

from typing import Any

from .lanes import transpose
from .launch import kernel, launch, ptr, size
from .simd import ACCUMULATE, COLUMN_BIAS, RELU, at, panel
from .window import (
    common_divisor,
    first_output,
    first_tap,
    last_output,
    last_tap,
    reached,
)


@kernel
def _turn_filters(t, n, turned: ptr, w: ptr, filters: size, taps: size, groups: size):
    """turned[group][tap][k] = w[group][k][tap]."""
    some, blocks = filters // groups, (taps + 63) // 64
    for task in range(t * groups * blocks // n, (t + 1) * groups * blocks // n):
        group, low = task // blocks, 64 * (task % blocks)
        start = group * some * taps
        transpose(at(turned, start + low * some), some, at(w, start + low), taps, some,
                  min(64, taps - low))  # fmt: skip


@kernel
def _forward(
    t, n, y: ptr, x: ptr, turned: ptr, bias: ptr, count: size, height: size, width: size,
    channels: size, outputs_h: size, outputs_w: size, filters: size, rows: size, columns: size,
    stride_h: size, stride_w: size, top: size, left: size, dilation_h: size, dilation_w: size,
    groups: size, flags: size,
):  # fmt: skip
    inside, some = channels // groups, filters // groups
    side_by_side = groups == 1 and dilation_w == 1  # the taps of a row, with all their channels
    upper = first_output(0, stride_h, top)  # outputs whose taps are all inside: from here on
    lower = last_output((rows - 1) * dilation_h, stride_h, top, height, outputs_h)
    middle = first_output(0, stride_w, left)
    middle_end = last_output((columns - 1) * dilation_w, stride_w, left, width, outputs_w)
    row, row_end = t * count * outputs_h // n, (t + 1) * count * outputs_h // n
    while row < row_end:
        image, p = row // outputs_h, row % outputs_h
        down = min(lower - p, row_end - row) if upper <= p < lower else 1
        h = p * stride_h - top
        r = first_tap(h, dilation_h)
        r_count = last_tap(h, dilation_h, rows, height) - r
        line = at(x, (image * height + h + r * dilation_h) * width * channels)
        q = 0
        while q < outputs_w:
            across = middle_end - q if middle <= q < middle_end else 1
            v = q * stride_w - left
            s = first_tap(v, dilation_w)
            s_count = last_tap(v, dilation_w, columns, width) - s
            long = inside * s_count if side_by_side else inside
            s_count = 1 if side_by_side else s_count
            a_down, y_down = stride_h * width * channels, outputs_w * filters
            a_step, y_step = stride_w * channels, filters
            lines, together = down, across
            if across == 1:  # at the edges the outputs of a panel lie below each other
                a_step, y_step, lines, together = a_down, y_down, 1, down
            for group in range(groups):
                tap = (group * rows + r) * columns + s
                k = group * some
                for i in range(lines):
                    panel(at(line, i * a_down + (v + s * dilation_w) * channels + group * inside),
                          at(turned, tap * inside * some),
                          at(y, i * y_down + (row * outputs_w + q) * filters + k), at(bias, k),
                          together, some, r_count, dilation_h * width * channels,
                          columns * inside * some, s_count, dilation_w * channels, inside * some,
                          long, 1, some, a_step, y_step, flags)  # fmt: skip
            q += across
        row += down


def turn(turned: Any, w: Any, groups: int) -> None:
    """The filters as `forward` reads them."""
    launch(_turn_filters, w.dtype, turned, w, w.shape[0], w[0].size, groups)


def forward(
    y: Any, x: Any, w: Any, b: Any, turned: Any, options: tuple[int, ...], activation: str | None
) -> None:
    flags = (COLUMN_BIAS if b is not None else 0) | (RELU if activation == "relu" else 0)
    launch(_forward, y.dtype, y, x, turned, b, *x.shape, *y.shape[1:], *w.shape[1:3],
           *options, flags, work=y.size * w[0].size)  # fmt: skip


@kernel
def _dx(
    t, n, dx: ptr, g: ptr, w: ptr, count: size, height: size, width: size, channels: size,
    outputs_h: size, outputs_w: size, filters: size, rows: size, columns: size, stride_h: size,
    stride_w: size, top: size, left: size, dilation_h: size, dilation_w: size, groups: size,
):  # fmt: skip
    inside, some = channels // groups, filters // groups
    divisor_h = common_divisor(stride_h, dilation_h)
    divisor_w = common_divisor(stride_w, dilation_w)
    r_step, p_step = stride_h // divisor_h, dilation_h // divisor_h
    s_step, q_step = stride_w // divisor_w, dilation_w // divisor_w
    taps = rows * columns * inside
    middle, middle_end = (columns - 1) * dilation_w - left, outputs_w - left  # reached by all taps
    for line in range(t * count * height // n, (t + 1) * count * height // n):
        image, h = line // height, line % height
        r, p, r_count = reached(h, stride_h, dilation_h, top, rows, outputs_h, r_step, p_step)
        v = 0
        while v < width:
            together = 1
            if stride_w == 1 and middle <= v < middle_end:
                together = min(middle_end, width) - v
            s, q, s_count = reached(v, stride_w, dilation_w, left, columns, outputs_w, s_step,
                                     q_step)  # fmt: skip
            for group in range(groups):
                k = group * some
                panel(at(g, ((image * outputs_h + p) * outputs_w + q) * filters + k),
                      at(w, k * taps + (r * columns + s) * inside),
                      at(dx, (line * width + v) * channels + group * inside), dx, together, inside,
                      r_count, -p_step * outputs_w * filters, r_step * columns * inside,
                      s_count, -q_step * filters, s_step * inside,
                      some, 1, taps, filters, channels, 0)  # fmt: skip
            v += together


def dx(dx: Any, g: Any, w: Any, options: tuple[int, ...]) -> None:
    launch(_dx, dx.dtype, dx, g, w, *dx.shape, *g.shape[1:], *w.shape[1:3], *options,
           work=g.size * w[0].size)  # fmt: skip


@kernel
def _dw(
    t, n, dw: ptr, g: ptr, x: ptr, count: size, height: size, width: size, channels: size,
    outputs_h: size, outputs_w: size, filters: size, rows: size, columns: size, stride_h: size,
    stride_w: size, top: size, left: size, dilation_h: size, dilation_w: size, groups: size,
):  # fmt: skip
    inside, some = channels // groups, filters // groups
    taps = rows * columns * inside
    middle, middle_end = 0, 0
    if groups == 1 and dilation_w == 1:  # the taps of a row lie side by side
        middle = first_output(0, stride_w, left)
        middle_end = max(middle, last_output(columns - 1, stride_w, left, width, outputs_w))
    for group in range(groups):
        k = max(group * some, t * filters // n)
        k_count = min((group + 1) * some, (t + 1) * filters // n) - k
        for r in range(rows if k_count > 0 else 0):
            p = first_output(r * dilation_h, stride_h, top)
            p_count = last_output(r * dilation_h, stride_h, top, height, outputs_h) - p
            line = at(x, (p * stride_h + r * dilation_h - top) * width * channels + group * inside)
            arrived = at(g, p * outputs_w * filters + k)
            target = at(dw, k * taps + r * columns * inside)
            if middle_end > middle:
                v = middle * stride_w - left
                panel(at(arrived, middle * filters), at(line, v * channels), target, dw, k_count,
                      columns * inside, count, outputs_h * outputs_w * filters,
                      height * width * channels, p_count, outputs_w * filters,
                      stride_h * width * channels, middle_end - middle, filters,
                      stride_w * channels, 1, taps, 0)  # fmt: skip
            for s in range(columns):
                first = first_output(s * dilation_w, stride_w, left)
                last = last_output(s * dilation_w, stride_w, left, width, outputs_w)
                for side in range(2):
                    q, q_end, flags = first, last, 0
                    if middle_end > middle:
                        flags = ACCUMULATE
                        if side == 0:
                            q_end = min(last, middle)
                        else:
                            q = max(first, middle_end)
                        if q >= q_end:
                            continue
                    elif side == 1:
                        continue
                    v = q * stride_w + s * dilation_w - left
                    panel(at(arrived, q * filters), at(line, v * channels),
                          at(target, s * inside), dw, k_count, inside,
                          count, outputs_h * outputs_w * filters, height * width * channels,
                          p_count, outputs_w * filters, stride_h * width * channels,
                          q_end - q, filters, stride_w * channels, 1, taps, flags)  # fmt: skip


def dw(dw: Any, g: Any, x: Any, options: tuple[int, ...]) -> None:
    launch(_dw, dw.dtype, dw, g, x, *x.shape, *g.shape[1:], *dw.shape[1:3], *options,
           work=g.size * dw[0].size)  # fmt: skip
