"""Reductions and broadcasting.

Sums of floats begin in registers, 16 rows at a time, and go on in float64, in a tile of 64 or 256
totals side by side (so that the loops over them are vectors); those of integers in int64.

    _columns   what is contiguous stays (columns, or images in lanes): the tile holds one total for
               each, and rows are added to it
    _runs      what is contiguous is summed as well: the tile holds 64 partial totals of one result,
               added up at the end.  Spare lanes are left out
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .elementwise import broadcast_copy
from .lanes import CHUNK, Lanes, padded
from .launch import flt, i64ptr, kernel, launch, ptr, size
from .rows import Shape, by_type, merged, number, strides, tile, typed, walked, wide_tile, word
from .simd import INT, at
from .vector import abreast, add_up, four, lanes_of, load_some, one, store, widened

SUM, MAX, MIN = range(3)
BLOCK = 16  # rows that are added up in registers before they join their total

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
                            _add_rows(totals, line, m0, s0 * wide, some)
                            continue
                        for i0 in range(m0):
                            _absorb(op, totals, at(line, i0 * s0 * wide), some)
                for j in range(some):
                    totals[j] *= factor
                if more:
                    _absorb(op, totals, at(result, i), some)
                for j in range(some):
                    result[i + j] = totals[j]


@intrinsic
def _sum_floats(typing: Any, x: Any, count: Any) -> Any:
    """x[0] + ... + x[count - 1] in float64: 32 sums side by side, then 8, then what is left."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, length = args
        double, size_of = ir.DoubleType(), context.get_abi_sizeof(context.get_value_type(x.dtype))
        source = ir.VectorType(context.get_value_type(x.dtype), 8)
        vector = ir.VectorType(double, 8)

        def vector_at(offset: Any) -> Any:
            where = builder.bitcast(builder.gep(pointer, [offset]), source.as_pointer())
            value = builder.load(where, align=size_of)
            return value if x.dtype == types.float64 else builder.fpext(value, vector)

        def add(total: Any, value: Any) -> None:
            builder.store(builder.fadd(builder.load(total), value), total)

        zeros = ir.Constant(vector, [0.0] * 8)
        totals = [cgutils.alloca_once_value(builder, zeros) for _ in range(4)]
        most, whole = (builder.and_(length, INT(-step)) for step in (32, 8))
        with cgutils.for_range_slice(builder, INT(0), most, INT(32), INT) as (i, _):
            for k, total in enumerate(totals):
                add(total, vector_at(builder.add(i, INT(8 * k))))
        with cgutils.for_range_slice(builder, most, whole, INT(8), INT) as (i, _):
            add(totals[0], vector_at(i))
        one, two, three, four = (builder.load(total) for total in totals)
        both = builder.fadd(builder.fadd(one, two), builder.fadd(three, four))
        reduce = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(double, [double, vector]),
            "llvm.vector.reduce.fadd.v8f64",
        )
        start = ir.Constant(double, 0.0)
        result = cgutils.alloca_once_value(
            builder, builder.call(reduce, [start, both], fastmath=("reassoc",))
        )
        with cgutils.for_range_slice(builder, whole, length, INT(1), INT) as (i, _):
            value = builder.load(builder.gep(pointer, [i]))
            add(result, value if x.dtype == types.float64 else builder.fpext(value, double))
        return builder.load(result)

    return types.float64(x, types.int64), generate


@by_type
def _sum_run(x, count):
    if isinstance(x.dtype, types.Float):
        return lambda x, count: _sum_floats(x, count)

    def whole(x, count):
        total = 0
        for i in range(count):
            total += np.int64(x[i])
        return total

    return whole


@numba.njit
def _add_rows_of(unit, totals, x, low, high, stride, begin, end):
    part = tile(x)
    for i in range(begin, end, lanes_of(unit)):
        total = unit
        for row in range(low, high):
            total += load_some(unit, x, row * stride + i, end - i, 0.0)
        store(part, 0, total)
        for j in range(_least(lanes_of(unit), end - i)):
            totals[i + j] += part[j]


@by_type
def _add_rows(totals, x, rows, stride, count):
    """totals[i] += x[i] + x[stride + i] + ..., i below count."""
    if isinstance(x.dtype, types.Float):

        def floats(totals, x, rows, stride, count):
            wide = abreast(x, count)
            for low in range(0, rows, BLOCK):
                high = _least(low + BLOCK, rows)
                _add_rows_of(four(x), totals, x, low, high, stride, 0, wide)
                _add_rows_of(one(x), totals, x, low, high, stride, wide, count)

        return floats

    def whole(totals, x, rows, stride, count):
        for row in range(rows):
            _absorb(SUM, totals, at(x, row * stride), count)

    return whole


@numba.njit
def _narrow_of(unit, x, low, high, stride, begin, end):
    total = 0.0
    for i in range(begin, end, lanes_of(unit)):
        part = unit
        for run in range(low, high):
            part += load_some(unit, x, run * stride + i, end - i, 0.0)
        near, far = widened(part)
        total += add_up(near + far)
    return total


@by_type
def _sum_runs(x, runs, stride, count):
    """The sum of x[i] + x[stride + i] + ..., i below count; runs of images side by side are added
    up lane by lane before lanes are."""
    if isinstance(x.dtype, types.Float):

        def floats(x, runs, stride, count):
            total = 0.0
            if runs > 1 and count <= CHUNK:
                wide = abreast(x, count)
                for low in range(0, runs, BLOCK):
                    high = _least(low + BLOCK, runs)
                    total += _narrow_of(four(x), x, low, high, stride, 0, wide)
                    total += _narrow_of(one(x), x, low, high, stride, wide, count)
            else:
                for run in range(runs):
                    total += _sum_run(at(x, run * stride), count)
            return total

        return floats

    def whole(x, runs, stride, count):
        total = 0
        for run in range(runs):
            total += _sum_run(at(x, run * stride), count)
        return total

    return whole


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
                        total += _sum_runs(line, m0, s0 * wide, valid)
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


def sum(y: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> None:
    _reduce(SUM, y, x, axes, 0, 1)


def mean(y: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> None:
    _reduce(SUM, y, x, axes, 0, 1 / math.prod(x.shape[a] for a in axes))


def max(y: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> None:
    _reduce(MAX, y, x, axes, -math.inf if x.dtype.kind == "f" else -(1 << 63), 1)


def min(y: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> None:
    _reduce(MIN, y, x, axes, math.inf if x.dtype.kind == "f" else (1 << 63) - 1, 1)


def sum_to(y: Any, x: Any, *, shape: tuple[int, ...]) -> None:
    lead = len(x.shape) - len(shape)
    axes = tuple(i for i, d in enumerate(x.shape) if i < lead or (shape[i - lead] == 1 != d))
    _reduce(SUM, y, x, axes, 0, 1)


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
