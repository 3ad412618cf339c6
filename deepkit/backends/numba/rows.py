"""What elementwise kernels, reductions and copies share: axes, types, and rows of a broadcast.

Every operand is described by its strides over the axes of the result.  Axes that follow each
other in all operands are merged, so that few remain:

    x (128, 28, 28, 6) + b (6,)       C order: rows 128*28*28, columns 6
                                      lanes:   for each chunk, rows 28*28 x 6, columns 64

A row is a stretch of the result that is contiguous; in an operand it is contiguous as well or one
number, which is spread over a small tile on the stack first.  So each op is one plain loop
`y[i] = a[i] + b[i]`, which LLVM vectorises.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .lanes import CHUNK, Lanes, elements
from .launch import Kernel
from .simd import at

TILE = 256  # elements of a tile on the stack
ROW_AXES = 3  # axes that a kernel walks itself; the host walks the others

# types --------------------------------------------------------------------------------------------

_WHOLE = {"i8": "i64ptr", "i4": "i32ptr", "u1": "u8ptr", "b1": "u8ptr"}
_BITS = {1: np.dtype("u1"), 4: np.dtype("f4"), 8: np.dtype("f8")}


@functools.cache
def typed(kernel: Kernel, dtype: np.dtype, result: np.dtype | None = None) -> Kernel:
    """The kernel whose `ptr` parameters point to this dtype: floats are what it is made for.

    The first one, the result, may be another integer type.
    """
    if dtype.kind == "f":
        return kernel
    kind = _whole(dtype)
    other = copy.copy(kernel)
    other.kinds = [kind if k == "ptr" else k for k in kernel.kinds]
    if result is not None:
        other.kinds[0] = _whole(result)
    other.addresses = {}
    return other


def _whole(dtype: np.dtype) -> str:
    kind = _WHOLE.get(dtype.str[1:])
    if kind is None:
        raise NotImplementedError(
            f"backend 'numba' does not compute with {dtype}; cast it with x.astype('int64')"
        )
    return kind


def bits_type(dtype: np.dtype) -> np.dtype:
    """A type of the same size that a copy can use instead."""
    found = _BITS.get(dtype.itemsize)
    if found is None:
        raise NotImplementedError(
            f"backend 'numba' does not copy {dtype}; cast it with x.astype('int64')"
        )
    return found


def word(value: Any, dtype: np.dtype) -> int | float:
    """A number as an argument for `number` in a kernel of this dtype."""
    return float(value) if dtype.kind == "f" else int(bool(value) if dtype.kind == "b" else value)


def by_type(choose: Callable) -> Callable:
    """A function for kernels that differs between types: `choose` is given those of the arguments
    and returns what is compiled for them, of the same parameters.  An `if` within one function
    would not do, since Numba compiles both sides of it for every type."""

    @functools.wraps(choose)
    def chosen(*args: Any) -> Any:
        raise NotImplementedError(f"{choose.__name__} is for kernels")

    numba.extending.overload(chosen)(choose)
    return chosen


@intrinsic
def like(typing: Any, pointer: Any, value: Any) -> Any:
    """A constant in the pointer's element type: float32 arithmetic stays float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.cast(builder, args[1], types.float64, pointer.dtype)

    return pointer.dtype(pointer, types.float64), generate


@intrinsic
def number(typing: Any, pointer: Any, bits: Any) -> Any:
    """An argument in the pointer's element type: a float64's bits for floats, else the integer."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not isinstance(pointer.dtype, types.Float):
            return context.cast(builder, args[1], types.int64, pointer.dtype)
        value = builder.bitcast(args[1], ir.DoubleType())
        return context.cast(builder, value, types.float64, pointer.dtype)

    return pointer.dtype(pointer, types.int64), generate


@intrinsic
def view(typing: Any, pointer: Any, kind: Any) -> Any:
    """The same address as a pointer to another type."""
    target = types.CPointer(kind.instance_type)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(target))

    return target(pointer, kind), generate


def _on_stack(pointer: Any, dtype: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return cgutils.alloca_once(builder, context.get_data_type(dtype), size=TILE)

    return types.CPointer(dtype)(pointer), generate


@intrinsic
def tile(typing: Any, pointer: Any) -> Any:
    """TILE elements of the pointer's type on the stack."""
    return _on_stack(pointer, pointer.dtype)


@intrinsic
def wide_tile(typing: Any, pointer: Any) -> Any:
    """TILE float64 or int64 on the stack, to sum elements of the pointer's type."""
    real = isinstance(pointer.dtype, types.Float)
    return _on_stack(pointer, types.float64 if real else types.int64)


# axes ---------------------------------------------------------------------------------------------

Shape = tuple[int, ...]
Axis = tuple[int, ...]  # (length, stride in the first operand, stride in the second, ...)


def strides(shape: Shape) -> list[int]:
    """Strides in C order, counted in elements."""
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


def merged(axes: Sequence[Axis]) -> list[Axis]:
    """The same walk with fewer axes: without those of length 1, neighbours joined where every
    operand goes on where the inner axis ends."""
    found: list[Axis] = []
    for axis in axes:
        if axis[0] == 1:
            continue
        if found and all(s == axis[0] * r for s, r in zip(found[-1][1:], axis[1:], strict=True)):
            found[-1] = (found[-1][0] * axis[0], *axis[1:])
        else:
            found.append(axis)
    return found


def walked(axes: Sequence[Axis], operands: int) -> Iterator[tuple[list[int], list[Axis]]]:
    """Exactly ROW_AXES axes for a kernel, for every position of the axes before those, with where
    it begins in each operand."""
    one = (1,) + (0,) * operands
    inner = [one] * (ROW_AXES - len(axes)) + list(axes[-ROW_AXES:])
    outer = axes[:-ROW_AXES]
    for position in product(*[range(axis[0]) for axis in outer]):
        starts = [
            sum(i * axis[1 + k] for i, axis in zip(position, outer, strict=True))
            for k in range(operands)
        ]
        yield starts, inner


# broadcasting -------------------------------------------------------------------------------------

NOTHING = (0, 0, 0, 0, 0, 1)  # describes an operand that is not there


def _spread(shape: Shape, out: Shape) -> list[int]:
    """Strides of an array of `shape` over the axes of `out`: 0 along those that it lacks."""
    own = [0 if d == 1 else s for d, s in zip(shape, strides(shape), strict=True)]
    return [0] * (len(out) - len(shape)) + own


@functools.lru_cache(maxsize=4096)
def _plan(out: Shape, lanes: bool, *operands: tuple[Shape, bool]) -> tuple[tuple[int, ...], ...]:
    count = elements(out) if lanes else math.prod(out)
    if count == 0:
        return ()
    if all(
        (s, there) == (out, lanes) or (math.prod(s) == 1 and not there) for s, there in operands
    ):
        steps = [int((s, there) == (out, lanes)) for s, there in operands]
        flat = [(0, 0, 0, 0, 0, step) for step in steps]
        return ((count, count, 1, 0, 1, 1, 1, *_flattened(flat)),)
    inside = out[1:] if lanes else out
    spread = [
        _spread(s[1:] if there else s, out if lanes and not there else inside)[-len(inside) :]
        for s, there in operands
    ]
    if not inside:
        spread = [[] for _ in operands]
    axes = merged(list(zip(inside, strides(inside), *spread, strict=True)))
    inners = [math.prod(s[1:]) if there else 0 for s, there in operands]
    if lanes:
        columns, span, steps = count // math.prod(inside), CHUNK, [int(i > 0) for i in inners]
    else:
        last = axes.pop() if axes else (1, 1, *[0] * len(operands))
        columns, span, steps = last[0], last[0], list(last[2:])
        axes = [(length, s // columns, *others) for length, s, *others in axes]
    rows = math.prod(inside) if lanes else count // columns
    words = []
    for starts, inner in walked(axes, 1 + len(operands)):
        described = [
            (starts[1 + k], inners[k], *[axis[2 + k] for axis in inner], steps[k])
            for k in range(len(operands))
        ]
        lengths = [axis[0] for axis in inner]
        words.append((columns, span, rows, starts[0], *lengths, *_flattened(described)))
    return tuple(words)


def _flattened(lists: Sequence[Sequence[int]]) -> list[int]:
    return [value for values in lists for value in values]


def plan(y: Any, *operands: Any) -> tuple[tuple[int, ...], ...]:
    """The arguments of `sweep`, one tuple for each launch (mostly one):

    columns, span, all rows, first row, three lengths of axes, and for each operand its start,
    its elements per image (0: not in lanes), three strides and whether rows are contiguous (1).
    """
    described = [(o.shape, isinstance(o, Lanes)) for o in operands]
    return _plan(y.shape, isinstance(y, Lanes), *described)


@numba.njit
def _spread_number(target, source, offset, count):
    value = source[offset]
    for i in range(count):
        target[i] = value


@numba.njit(
    forceinline=True
)  # so that `combine` is no address at run time, which no cache can keep
def sweep(t, n, combine, op, y, a, b, c, space, counts, in_a, in_b, in_c):
    """combine(op, y, a, b, c, count) for every row of y, with everything contiguous.

    space    columns (all lanes, or the length of a row), columns of a chunk, rows of y, first row
    counts   lengths of the three axes over which the rows are walked
    in_a     start, elements per image (0: not in lanes), three strides, 1 if rows are contiguous
    """
    columns, span, all_rows, first_row = space
    n2, n1, n0 = counts
    start_a, inner_a, a2, a1, a0, step_a = in_a
    start_b, inner_b, b2, b1, b0, step_b = in_b
    start_c, inner_c, c2, c1, c0, step_c = in_c
    tile_a, tile_b, tile_c = tile(a), tile(b), tile(c)
    rows = n2 * n1 * n0
    for first in range(0, columns, span):
        width = min(span, columns - first)
        low, high, begin, end = 0, rows, 0, width
        if rows >= n:
            low, high = t * rows // n, (t + 1) * rows // n
        else:
            begin, end = t * width // n, (t + 1) * width // n
        piece = 256 if step_a * step_b * step_c == 0 else max(1, end - begin)
        wide_a = width if inner_a > 0 else 1
        wide_b = width if inner_b > 0 else 1
        wide_c = width if inner_c > 0 else 1
        i0, i1, i2 = low % n0, low // n0 % n1, low // (n0 * n1)
        at_a = first * inner_a + (start_a + i2 * a2 + i1 * a1 + i0 * a0) * wide_a
        at_b = first * inner_b + (start_b + i2 * b2 + i1 * b1 + i0 * b0) * wide_b
        at_c = first * inner_c + (start_c + i2 * c2 + i1 * c1 + i0 * c0) * wide_c
        for row in range(low, high):
            from_a, from_b, from_c = at(a, at_a), at(b, at_b), at(c, at_c)
            if step_a == 0:
                _spread_number(tile_a, a, at_a, min(256, end - begin))
                from_a = tile_a
            if step_b == 0:
                _spread_number(tile_b, b, at_b, min(256, end - begin))
                from_b = tile_b
            if step_c == 0:
                _spread_number(tile_c, c, at_c, min(256, end - begin))
                from_c = tile_c
            target = at(y, first * all_rows + (first_row + row) * width)
            for i in range(begin, end, piece):
                combine(op, at(target, i), at(from_a, i * step_a), at(from_b, i * step_b),
                        at(from_c, i * step_c), min(piece, end - i))  # fmt: skip
            i0 += 1
            at_a, at_b, at_c = at_a + a0 * wide_a, at_b + b0 * wide_b, at_c + c0 * wide_c
            if i0 == n0:
                i0 = 0
                i1 += 1
                at_a += (a1 - n0 * a0) * wide_a
                at_b += (b1 - n0 * b0) * wide_b
                at_c += (c1 - n0 * c0) * wide_c
                if i1 == n1:
                    i1 = 0
                    at_a += (a2 - n1 * a1) * wide_a
                    at_b += (b2 - n1 * b1) * wide_b
                    at_c += (c2 - n1 * c1) * wide_c
