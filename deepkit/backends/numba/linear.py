"""Matrix products: everything is `panel` and `dot_panel` (simd.py), swept over chunks.

linear       y[o][64 images] = w[o, i] * x[i][64 images]     one number of w meets 64 images
linear_dx    dx[i][64 images] = w[o, i] * g[o][64 images]    w is read along its columns
linear_dw    dw[o][i] = g[o, images] * x[images][i]          x is turned first: vectors along i
product      b is packed to columns of 64, which take the place of the images
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import scratch
from .elementwise import activate
from .lanes import CHUNK, Lanes, chunk_width, share, transpose
from .launch import kernel, launch, ptr, size
from .simd import ACCUMULATE, BIAS, RELU, at, dot_panel, panel

DEPTH = 256  # terms of a product that are summed before moving on: what fits the first cache


def epilogue(bias: Any, activation: str | None) -> int:
    """The flags with which `panel` writes its results."""
    return (BIAS if bias is not None else 0) | (RELU if activation == "relu" else 0)


@kernel
def _rows_times_lanes(
    t, n, y: ptr, a: ptr, x: ptr, bias: ptr, lanes: size, positions: size,
    rows: size, inner: size, row_a: size, column_a: size, flags: size,
):  # fmt: skip
    """y[position][rows][lanes] = a[rows, inner] x[position][inner][lanes], chunk by chunk."""
    for first in range(0, lanes, 64):
        width = chunk_width(first, lanes)
        x_chunk, y_chunk = at(x, first * positions * inner), at(y, first * positions * rows)
        low, high = share(t, n, first, lanes, 64, rows)
        for position in range(positions):
            source = at(x_chunk, position * inner * width)
            target = at(y_chunk, (position * rows + low) * width)
            panel(at(a, low * row_a), source, target, at(bias, low), high - low, width,
                  1, 0, 0, 1, 0, 0, inner, column_a, width, row_a, width, flags)  # fmt: skip


@kernel
def _rows_of_dots(
    t, n, y: ptr, x: ptr, w: ptr, bias: ptr, count: size, rows: size, inner: size, flags: size
):  # fmt: skip
    """y[image, o] = bias[o] + <w[o], x[image]>, vectors along `inner`: for a few images."""
    low, high = t * rows // n, (t + 1) * rows // n
    for image in range(count):
        for o in range(low, high):
            y[image * rows + o] = bias[o] if flags & BIAS else 0
    dot_panel(at(w, low * inner), x, at(y, low), high - low, count, 1, 0, 0, 1, 0, 0, inner,
              inner, inner, 1, rows)  # fmt: skip
    for image in range(count if flags & RELU else 0):
        for o in range(low, high):
            value = y[image * rows + o]
            y[image * rows + o] = 0 if value <= 0 else value


def linear(y: Any, x: Any, w: Any, b: Any, *, activation: str | None) -> None:
    rows, inner = w.shape
    if isinstance(y, Lanes):
        launch(_rows_times_lanes, y.dtype, y, w, x, b, x.lanes, math.prod(x.shape[1:-1]),
               rows, inner, inner, 1, epilogue(b, activation), work=x.size * rows)  # fmt: skip
    else:
        launch(_rows_of_dots, y.dtype, y, x, w, b, math.prod(x.shape[:-1]), rows, inner,
               epilogue(b, activation), work=x.size * rows)  # fmt: skip
    activate(y, activation)


@kernel
def _product(
    t, n, c: ptr, a: ptr, b: ptr, rows: size, inner: size, columns: size, row_a: size,
    column_a: size,
):  # fmt: skip
    """c[m, j] = sum_k a[m, k] b[k, j], b in C order and not packed; threads share the columns."""
    blocks = (columns + 63) // 64
    low, high = 64 * (t * blocks // n), min(64 * ((t + 1) * blocks // n), columns)
    panel(a, at(b, low), at(c, low), c, rows, high - low, 1, 0, 0, 1, 0, 0, inner, column_a,
          columns, row_a, columns, 0)  # fmt: skip


def linear_dx(dx: Any, g: Any, w: Any) -> None:
    rows, inner = w.shape
    if isinstance(dx, Lanes):
        launch(_rows_times_lanes, dx.dtype, dx, w, g, None, g.lanes, math.prod(g.shape[1:-1]),
               inner, rows, 1, inner, 0, work=g.size * inner)  # fmt: skip
    else:
        launch(_product, dx.dtype, dx, g, w, math.prod(g.shape[:-1]), rows, inner, rows, 1,
               work=g.size * inner)  # fmt: skip


@kernel
def _turn(t, n, turned: ptr, x: ptr, count: size, lanes: size, positions: size, inner: size):
    """turned[position][image][inner] = x, so that a panel finds vectors along `inner`."""
    chunks = (lanes + 63) // 64
    for task in range(t * chunks * positions // n, (t + 1) * chunks * positions // n):
        first, position = 64 * (task // positions), task % positions
        width = chunk_width(first, lanes)
        transpose(at(turned, (position * count + first) * inner), inner,
                  at(x, (first * positions + position * width) * inner), width,
                  inner, min(width, count - first))  # fmt: skip


@kernel
def _outer_products(
    t, n, dw: ptr, g: ptr, turned: ptr, count: size, lanes: size, positions: size, rows: size,
    inner: size,
):  # fmt: skip
    """dw[o, i] = sum over positions and images of g[position][o] turned[position][image][i]."""
    low, high = t * rows // n, (t + 1) * rows // n
    if lanes == 0:
        for i in range(low * inner, high * inner):
            dw[i] = 0
    for first in range(0, lanes, 64):
        width = chunk_width(first, lanes)
        g_chunk = at(g, first * positions * rows + low * width)
        panel(g_chunk, at(turned, first * inner), at(dw, low * inner), dw, high - low, inner,
              1, 0, 0, positions, rows * width, count * inner, min(width, count - first), 1, inner,
              width, inner, ACCUMULATE if first > 0 else 0)  # fmt: skip


@scratch(lambda dw, g, x: [(x.shape, x.dtype)] if isinstance(x, Lanes) else [])
def linear_dw(dw: Any, g: Any, x: Any, *, scratch: Any) -> None:
    if not isinstance(x, Lanes):
        launch(_product, dw.dtype, dw, g, x, dw.shape[0], math.prod(x.shape[:-1]), dw.shape[1], 1,
               dw.shape[0], work=x.size * dw.shape[0])  # fmt: skip
        return
    positions, rows, inner = math.prod(x.shape[1:-1]), *dw.shape
    launch(_turn, dw.dtype, scratch[0], x, x.shape[0], x.lanes, positions, inner)
    launch(_outer_products, dw.dtype, dw, g, scratch[0], x.shape[0], x.lanes, positions, rows,
           inner, work=g.size * inner)  # fmt: skip


# C order ------------------------------------------------------------------------------------------


@kernel
def _pack(
    t, n, packed: ptr, b: ptr, inner: size, columns: size, row: size, column: size
):  # fmt: skip
    """b[k, j] to packed[j // 64][k][64 columns], with zeros past the last column."""
    chunks = (columns + 63) // 64
    for chunk in range(t * chunks // n, (t + 1) * chunks // n):
        for k in range(inner):
            target = at(packed, (chunk * inner + k) * 64)
            some = min(64, columns - chunk * 64)
            for j in range(some):
                target[j] = b[k * row + (chunk * 64 + j) * column]
            for j in range(some, 64):
                target[j] = 0


@kernel
def _multiply_packed(
    t, n, y: ptr, a: ptr, packed: ptr, spill: ptr, rows: size, inner: size,
    columns: size, row_a: size, column_a: size,
):  # fmt: skip
    """y[m, j] = sum_k a[m, k] packed[j // 64][k][j % 64]; a last chunk that is not full goes
    through `spill`, 64 columns wide."""
    low, high = t * rows // n, (t + 1) * rows // n
    for chunk in range((columns + 63) // 64):
        some = min(64, columns - chunk * 64)
        target, row_y = at(y, low * columns + chunk * 64), columns
        if some < 64:
            target, row_y = at(spill, low * 64), 64
        for start in range(0, max(inner, 1), 256):
            depth = min(256, inner - start)
            source = at(packed, (chunk * inner + start) * 64)
            panel(at(a, low * row_a + start * column_a), source, target, target, high - low, 64,
                  1, 0, 0, 1, 0, 0, depth, column_a, 64, row_a, row_y,
                  ACCUMULATE if start > 0 else 0)  # fmt: skip
        if some < 64:
            for m in range(low, high):
                for j in range(some):
                    y[m * columns + chunk * 64 + j] = spill[m * 64 + j]


def _packed(y: Any, a: Any, b: Any, *, ta: bool, tb: bool) -> list:
    inner, columns = (b.shape[-1], b.shape[-2]) if tb else (b.shape[-2], b.shape[-1])
    chunks = -(-columns // CHUNK)
    return [((chunks, max(inner, 1), CHUNK), y.dtype), ((y.shape[-2], CHUNK), y.dtype)]


@scratch(_packed)
def product(y: Any, a: Any, b: Any, *, ta: bool, tb: bool, scratch: Any) -> None:
    packed, spill = scratch
    rows, columns = y.shape[-2:]
    inner = a.shape[-2] if ta else a.shape[-1]
    row_a, column_a = (1, rows) if ta else (inner, 1)
    row_b, column_b = (1, inner) if tb else (columns, 1)
    lead = y.shape[:-2]
    a_lead = np.broadcast_to(a, (*lead, *a.shape[-2:])) if lead else a
    b_lead = np.broadcast_to(b, (*lead, *b.shape[-2:])) if lead else b
    for i in np.ndindex(lead):
        launch(_pack, y.dtype, packed, b_lead[i], inner, columns, row_b, column_b)
        launch(_multiply_packed, y.dtype, y[i], a_lead[i], packed, spill, rows, inner, columns,
               row_a, column_a)  # fmt: skip
