"""Sums of floats, and those of C order that are split for threads.

_parts     few columns of many rows: each part of the rows has totals of its own, as many for
           any number of threads, which `_of_parts` adds up
_lines     the last axes are summed: a row is a line of memory
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

from .lanes import CHUNK, Lanes
from .launch import flt, i64ptr, kernel, launch, ptr, size
from .rows import Shape, by_type, tile, view
from .simd import INT, at, real, vector_lanes
from .vector import abreast, add_up, four, lanes_of, load_some, one, store, widened

BLOCK = 16  # rows, or registers, that are added up before they join their total


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
def sum_run(x, count):
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
        for j in range(min(lanes_of(unit), end - i)):
            totals[i + j] += part[j]


@by_type
def add_rows(totals, x, rows, stride, count):
    """totals[i] += x[i] + x[stride + i] + ..., i below count."""
    if isinstance(x.dtype, types.Float):

        def floats(totals, x, rows, stride, count):
            wide = abreast(x, count)
            for low in range(0, rows, BLOCK):
                high = min(low + BLOCK, rows)
                _add_rows_of(four(x), totals, x, low, high, stride, 0, wide)
                _add_rows_of(one(x), totals, x, low, high, stride, wide, count)

        return floats

    def whole(totals, x, rows, stride, count):
        for row in range(rows):
            for i in range(count):
                totals[i] += x[row * stride + i]

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
def sum_runs(x, runs, stride, count):
    """The sum of x[i] + x[stride + i] + ..., i below count; runs of images side by side are added
    up lane by lane before lanes are."""
    if isinstance(x.dtype, types.Float):

        def floats(x, runs, stride, count):
            total = 0.0
            if runs > 1 and count <= CHUNK:
                wide = abreast(x, count)
                for low in range(0, runs, BLOCK):
                    high = min(low + BLOCK, runs)
                    total += _narrow_of(four(x), x, low, high, stride, 0, wide)
                    total += _narrow_of(one(x), x, low, high, stride, wide, count)
            else:
                for run in range(runs):
                    total += sum_run(at(x, run * stride), count)
            return total

        return floats

    def whole(x, runs, stride, count):
        total = 0
        for run in range(runs):
            total += sum_run(at(x, run * stride), count)
        return total

    return whole


PARTS = 32
FEW_COLUMNS = 1024  # with more of them, each thread has columns enough
MANY = 1 << 16  # elements that two threads sum sooner, though one adds up what both found


@kernel
def _parts(t, n, sums: i64ptr, x: ptr, rows: size, columns: size, rest: size):
    """sums[part][columns], float64, of the rows of each part; the last has `rest` numbers more."""
    for part in range(t * PARTS // n, (t + 1) * PARTS // n):
        totals = at(view(sums, numba.float64), part * columns)
        for i in range(columns):
            totals[i] = 0.0
        low, high = part * rows // PARTS, (part + 1) * rows // PARTS
        add_rows(totals, at(x, low * columns), high - low, columns, columns)
        if part == PARTS - 1:
            add_rows(totals, at(x, rows * columns), 1, columns, rest)


@kernel
def _of_parts(t, n, y: ptr, sums: i64ptr, columns: size, all_: size, scale: flt):
    """y[columns] = scale * the sums over all parts, or y[0] that of all columns."""
    totals, factor = view(sums, numba.float64), real(scale)
    for part in range(1, PARTS):
        for i in range(columns):
            totals[i] += totals[part * columns + i]
    if all_:
        for i in range(1, columns):
            totals[0] += totals[i]
    for i in range(1 if all_ else columns):
        y[i] = totals[i] * factor


@numba.njit
def _short_run(unit, x, count):
    """The sum of at most BLOCK registers."""
    part = unit
    for i in range(0, count, lanes_of(unit)):
        part += load_some(unit, x, i, count - i, 0.0)
    near, far = widened(part)
    return add_up(near + far)


@kernel
def _lines(t, n, y: ptr, x: ptr, rows: size, length: size, scale: flt):
    """y[row] = scale * the sum of x[row, :]."""
    short = BLOCK * vector_lanes(x)
    for row in range(t * rows // n, (t + 1) * rows // n):
        line = at(x, row * length)
        total = _short_run(one(x), line, length) if length <= short else sum_run(line, length)
        y[row] = total * real(scale)


@functools.lru_cache(maxsize=4096)
def _whole_lines(shape: Shape, axes: tuple[int, ...]) -> tuple[int, int] | None:
    """Rows and their length where the last axes are summed, in C order."""
    kept = [i for i, d in enumerate(shape) if d > 1 and i not in axes]
    if not axes or 0 in shape or (kept and kept[-1] > min(axes)):
        return None
    length = math.prod(shape[a] for a in axes)
    return math.prod(shape) // length, length


@functools.lru_cache(maxsize=4096)
def _few_columns(shape: Shape, axes: tuple[int, ...]) -> tuple[int, ...] | None:
    """Rows, columns, the numbers that fill no row, and whether all are summed, for `_parts`; None
    where that does not fit."""
    count = math.prod(shape)
    kept = [i for i, d in enumerate(shape) if d > 1 and i not in axes]
    if count < MANY or (kept and max(axes, default=-1) > kept[0]):
        return None
    columns = math.prod(shape[i] for i in kept) if kept else CHUNK
    return (count // columns, columns, count % columns, not kept) if columns < FEW_COLUMNS else None


def _of_columns(x: Any, axes: tuple[int, ...]) -> tuple[int, ...] | None:
    plain = not isinstance(x, Lanes) and x.dtype.kind == "f"
    return _few_columns(x.shape, tuple(axes)) if plain else None


def room(y: Any, x: Any, *, axes: tuple[int, ...], **_: Any) -> list:
    fits = _of_columns(x, axes)
    return [] if fits is None else [((PARTS * fits[1],), np.dtype("f8"))]


def in_c_order(y: Any, x: Any, axes: tuple[int, ...], scale: float, scratch: Any) -> bool:
    """y = scale * the sum of x over `axes`, where a kernel here is for that -> whether one is."""
    if scratch:
        rows, columns, rest, all_ = _few_columns(x.shape, axes) or ()
        launch(_parts, x.dtype, scratch[0], x, rows, columns, rest)
        launch(_of_parts, x.dtype, y, scratch[0], columns, int(all_), float(scale), most=1)
        return True
    plain = x.dtype.kind == "f" and not isinstance(x, Lanes)
    lines = _whole_lines(x.shape, axes) if plain else None
    if lines is not None:
        launch(_lines, x.dtype, y, x, *lines, float(scale))
    return lines is not None
