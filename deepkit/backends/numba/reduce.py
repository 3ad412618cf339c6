"""Reductions and broadcasting.

Sums of floats begin in registers, 16 rows at a time, and go on in float64, in a tile of 64 or 256
totals side by side (so that the loops over them are vectors); those of integers in int64.

    _columns   what is contiguous stays (columns, or images in lanes): the tile holds one total for
               each, and rows are added to it
    _runs      what is contiguous is summed as well: the tile holds 64 partial totals of one result,
               added up at the end.  Spare lanes are left out

What sums of floats have of their own is in reduce_sums.py.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np

from .. import scratch as needs
from . import reduce_sums as sums
from .elementwise import broadcast_copy
from .lanes import CHUNK, Lanes, padded
from .launch import flt, i64ptr, kernel, launch, ptr, size
from .rows import Shape, merged, number, strides, typed, walked, wide_tile, word
from .simd import at

SUM, MAX, MIN = range(3)

_least, _most = min, max  # here `min` and `max` are ops


@numba.njit(forceinline=True)  # where `count` is a constant, LLVM needs no loop
def _absorb(op, totals, x, count):
    if op == SUM:
        for i in range(count):
            totals[i] += x[i]
    elif op == MAX:
        for i in range(count):
            totals[i] = totals[i] if totals[i] >= x[i] or totals[i] != totals[i] else x[i]
    else:
        for i in range(count):
            totals[i] = totals[i] if totals[i] <= x[i] or totals[i] != totals[i] else x[i]


@numba.njit
def _place(row, n1, n0, x2, x1, x0):
    """The offset of a row, numbered over the axes (.., n1, n0)."""
    if row < n0:  # mostly there is one axis only, and divisions take time
        return row * x0
    return row // (n0 * n1) * x2 + row // n0 % n1 * x1 + row % n0 * x0


@numba.njit(forceinline=True)
def _begin(totals, initial, count):
    value = number(totals, initial)
    for i in range(count):
        totals[i] = value


@kernel
def _columns(
    t, n, y: ptr, x: ptr, op: size, columns: size, span: size, inner_y: size, inner_x: size,
    start_y: size, start_x: size, n2: size, n1: size, n0: size, x2: size, x1: size, x0: size,
    m2: size, m1: size, m0: size, s2: size, s1: size, s0: size,
    initial: flt, scale: flt, more: size,
):  # fmt: skip
    """y[row, column] = scale * total of x[row, (m2, m1, m0), column], rows over (n2, n1, n0);
    `more`: combined with what is in y."""
    totals = wide_tile(x)
    factor = number(totals, scale)
    rows = n2 * n1 * n0
    for first in range(0, columns, span):
        width = _least(span, columns - first)
        wide = width if inner_x > 0 else 1
        low, high, begin, end = 0, rows, 0, width
        if rows >= n:
            low, high = t * rows // n, (t + 1) * rows // n
        else:
            begin, end = t * width // n, (t + 1) * width // n
        for row in range(low, high):
            place = start_x + _place(row, n1, n0, x2, x1, x0)
            corner = at(x, first * inner_x + place * wide)
            result = at(y, first * inner_y + (start_y + row) * width)
            for i in range(begin, end, 256):
                some = _least(256, end - i)
                _begin(totals, initial, some)
                for i2 in range(m2):
                    for i1 in range(m1):
                        line = at(corner, (i2 * s2 + i1 * s1) * wide + i)
                        if op == SUM:
                            sums.add_rows(totals, line, m0, s0 * wide, some)
                            continue
                        for i0 in range(m0):
                            _absorb(op, totals, at(line, i0 * s0 * wide), some)
                for j in range(some):
                    totals[j] *= factor
                if more:
                    _absorb(op, totals, at(result, i), some)
                for j in range(some):
                    result[i + j] = totals[j]


@kernel
def _runs(
    t, n, y: ptr, x: ptr, op: size, columns: size, span: size, count: size, inner_x: size,
    start_y: size, start_x: size, n2: size, n1: size, n0: size, x2: size, x1: size, x0: size,
    m2: size, m1: size, m0: size, s2: size, s1: size, s0: size,
    initial: flt, scale: flt, more: size,
):  # fmt: skip
    """y[row] = scale * total of x[row, (m2, m1, m0), column < count]."""
    totals = wide_tile(x)
    factor = number(totals, scale)
    rows = n2 * n1 * n0
    for row in range(t * rows // n, (t + 1) * rows // n):
        place = start_x + _place(row, n1, n0, x2, x1, x0)
        total = number(totals, initial)
        if op != SUM:
            _begin(totals, initial, 64)
        for first in range(0, count, span):
            wide = _least(span, columns - first) if inner_x > 0 else 1
            valid = _least(span, count - first)
            corner = at(x, first * inner_x + place * wide)
            for i2 in range(m2):
                for i1 in range(m1):
                    line = at(corner, (i2 * s2 + i1 * s1) * wide)
                    if op == SUM:
                        total += sums.sum_runs(line, m0, s0 * wide, valid)
                        continue
                    for i0 in range(m0):
                        run = at(line, i0 * s0 * wide)
                        for i in range(0, valid - 63, 64):
                            _absorb(op, totals, at(run, i), 64)
                        rest = valid & -64
                        if rest < valid:
                            _absorb(op, totals, at(run, rest), valid - rest)
        if op == SUM:
            totals[0] = total
        else:
            for i in range(1, 64):
                _absorb(op, totals, at(totals, i), 1)
        totals[0] *= factor
        if more:
            _absorb(op, totals, at(y, start_y + row), 1)
        y[start_y + row] = totals[0]


@functools.lru_cache(maxsize=4096)
def _plan(shape: Shape, lanes: bool, axes: tuple[int, ...]) -> tuple[bool, list[tuple]]:
    """Whether what is contiguous stays (`_columns`) or is summed (`_runs`), and the arguments of
    each launch: the numbers before `initial`, and `more`."""
    first = 1 if lanes else 0
    inside = shape[first:]
    walk = [
        (d, s, i in axes)
        for i, (d, s) in enumerate(zip(inside, strides(inside), strict=True), first)
        if d != 1
    ]
    if lanes:
        stays, span, inner = 0 not in axes, CHUNK, math.prod(inside)
        columns, count = padded(shape[0]), shape[0]
    else:
        run = []  # the innermost axes that stay together, or go together
        while walk and (not run or walk[-1][2] == run[0][2]):
            run.append(walk.pop())
        stays, inner = not (run and run[0][2]), 0
        columns = count = math.prod(axis[0] for axis in run)
        span = _most(1, columns)
    kept = [(d, s) for d, s, summed in walk if not summed]
    summed = merged([(d, s) for d, s, summed in walk if summed]) if 0 not in shape else [(0, 0)]
    rows = math.prod(d for d, _ in kept)
    kept = merged([(d, math.prod(e for e, _ in kept[i + 1 :]), s) for i, (d, s) in enumerate(kept)])
    calls = []
    for starts, out_axes in walked(kept, 2):
        for position, (offsets, in_axes) in enumerate(walked(summed, 1)):
            calls.append((
                columns, span, (rows if lanes else 0) if stays else count, inner,
                starts[0], starts[1] + offsets[0],
                *[axis[0] for axis in out_axes], *[axis[2] for axis in out_axes],
                *[axis[0] for axis in in_axes], *[axis[1] for axis in in_axes],
                int(position > 0),
            ))  # fmt: skip
    return stays, calls


def _reduce(op: int, y: Any, x: Any, axes: tuple[int, ...], initial: Any, scale: Any) -> None:
    if y.size == 0:
        return
    stays, calls = _plan(x.shape, isinstance(x, Lanes), tuple(axes))
    body = typed(_columns if stays else _runs, x.dtype, y.dtype)
    initial, scale = word(initial, _WIDE[x.dtype.kind]), word(scale, _WIDE[x.dtype.kind])
    for *numbers, more in calls:
        launch(body, x.dtype, y, x, op, *numbers, initial, scale, more)


_INT, _FLOAT = np.dtype("i8"), np.dtype("f8")
_WIDE = {"f": _FLOAT, "i": _INT, "u": _INT, "b": _INT}  # what totals are kept in


def _add_up(y: Any, x: Any, axes: tuple[int, ...], scale: float, scratch: Any) -> None:
    if not sums.in_c_order(y, x, tuple(axes), scale, scratch):
        _reduce(SUM, y, x, axes, 0, scale)


@needs(sums.room)
def sum(y: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool, scratch: Any = ()) -> None:
    _add_up(y, x, axes, 1, scratch)


@needs(sums.room)
def mean(y: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool, scratch: Any = ()) -> None:
    _add_up(y, x, axes, 1 / math.prod(x.shape[a] for a in axes), scratch)


def max(y: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> None:
    _reduce(MAX, y, x, axes, -math.inf if x.dtype.kind == "f" else -(1 << 63), 1)


def min(y: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> None:
    _reduce(MIN, y, x, axes, math.inf if x.dtype.kind == "f" else (1 << 63) - 1, 1)


def _axes_gone(x: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    lead = len(x.shape) - len(shape)
    return tuple(i for i, d in enumerate(x.shape) if i < lead or (shape[i - lead] == 1 != d))


@needs(lambda y, x, *, shape: sums.room(y, x, axes=_axes_gone(x, shape)))
def sum_to(y: Any, x: Any, *, shape: tuple[int, ...], scratch: Any = ()) -> None:
    _add_up(y, x, _axes_gone(x, shape), 1, scratch)


def broadcast_to(y: Any, x: Any, *, shape: tuple[int, ...]) -> None:
    broadcast_copy(y, x)


@kernel
def _first_largest(t, n, index: i64ptr, x: ptr, rows: size, length: size, columns: size):
    """index[row, column] of the first largest x[row, :, column]; the first NaN is larger."""
    count = rows * columns
    for place in range(t * count // n, (t + 1) * count // n):
        source = at(x, place // columns * length * columns + place % columns)
        best, found = source[0], 0
        for i in range(1, length):
            value = source[i * columns]
            if best == best and not value <= best:
                best, found = value, i
        index[place] = found


def argmax(index: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> None:
    (axis,) = axes
    rows, columns = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    body = typed(_first_largest, x.dtype)
    launch(body, x.dtype, index, x, rows, x.shape[axis], columns)
