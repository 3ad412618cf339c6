"""Kernels that move values, as bits: the same code for every type of a size.

Every one but `take` copies a block whose axes have a stride in y and one in x:

    y[start_y + i . strides_y] = x[start_x + i . strides_x]        strides may be negative

In lanes, an "element" is a row of images, so the batch axis itself is never touched.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba

from .elementwise import full_like
from .lanes import CHUNK, Lanes
from .launch import kernel, launch, ptr, size, u8ptr
from .rows import Shape, bits_type, merged, strides, typed, view, walked
from .simd import at


@kernel
def _copy_block(
    t, n, y: ptr, x: ptr, start_y: size, start_x: size,
    n2: size, n1: size, n0: size, y2: size, y1: size, y0: size, x2: size, x1: size, x0: size,
    rows: size, row_y: size, row_x: size, columns: size, column_y: size, column_x: size,
):  # fmt: skip
    """In C order: planes over (n2, n1, n0), each rows x columns, copied in squares of 16, of which
    both sides stay in the cache when one is read along its columns (a transposed matrix)."""
    planes, blocks = n2 * n1 * n0, (rows + 15) // 16
    count = planes * blocks
    for place in range(t * count // n, (t + 1) * count // n):
        plane, top = place // blocks, place % blocks * 16
        i2, i1, i0 = plane // (n0 * n1), plane // n0 % n1, plane % n0
        target = at(y, start_y + i2 * y2 + i1 * y1 + i0 * y0)
        source = at(x, start_x + i2 * x2 + i1 * x1 + i0 * x0)
        if column_y == 1 and column_x == 1:
            for i in range(top, min(top + 16, rows)):
                to, of = at(target, i * row_y), at(source, i * row_x)
                for j in range(columns):
                    to[j] = of[j]
        else:
            for left in range(0, columns, 16):
                for i in range(top, min(top + 16, rows)):
                    to, of = at(target, i * row_y), at(source, i * row_x)
                    for j in range(left, min(left + 16, columns)):
                        to[j * column_y] = of[j * column_x]


@kernel
def _copy_lanes(
    t, n, y: ptr, x: ptr, lanes: size, span: size, inner_y: size, inner_x: size,
    start_y: size, start_x: size, n2: size, n1: size, n0: size,
    y2: size, y1: size, y0: size, x2: size, x1: size, x0: size,
):  # fmt: skip
    """Rows of images over (n2, n1, n0), chunk by chunk."""
    rows = n2 * n1 * n0
    low, high = t * rows // n, (t + 1) * rows // n
    for first in range(0, lanes, span):
        width = min(span, lanes - first)
        for row in range(low, high):
            i2, i1, i0 = row // (n0 * n1), row // n0 % n1, row % n0
            to = at(y, first * inner_y + (start_y + i2 * y2 + i1 * y1 + i0 * y0) * width)
            of = at(x, first * inner_x + (start_x + i2 * x2 + i1 * x1 + i0 * x0) * width)
            for i in range(width):
                to[i] = of[i]


@functools.lru_cache(maxsize=4096)
def _plan(lanes: bool, lengths: Shape, in_y: Shape, in_x: Shape) -> list[tuple[int, ...]]:
    """The numbers of each launch: starts, and lengths and strides of the axes."""
    if 0 in lengths:
        return []
    axes = merged(list(zip(lengths, in_y, in_x, strict=True)))
    plane: list[int] = []
    if not lanes:
        columns = axes.pop() if axes else (1, 1, 1)
        # rows: the axis along which x is contiguous where its columns are not, else the next one
        along = [i for i, axis in enumerate(axes) if axis[2] == 1]
        rows = axes.pop(along[0] if along else -1) if axes else (1, 0, 0)
        plane = [*rows, *columns]
    return [
        (*starts, *[axis[k] for k in range(3) for axis in inner], *plane)
        for starts, inner in walked(axes, 2)
    ]


def _copy(
    y: Any, x: Any, lengths: Shape, in_y: Any, in_x: Any, start_y: int = 0, start_x: int = 0
) -> None:
    """Copy a block; in lanes, everything is without the batch axis."""
    bits = bits_type(y.dtype)
    there = isinstance(y, Lanes)
    for own_y, own_x, *numbers in _plan(there, tuple(lengths), tuple(in_y), tuple(in_x)):
        starts = start_y + own_y, start_x + own_x
        if there:
            launch(typed(_copy_lanes, bits), bits, y, x, y.lanes, CHUNK, y.inner, x.inner,
                   *starts, *numbers)  # fmt: skip
        else:
            launch(typed(_copy_block, bits), bits, y, x, *starts, *numbers)


def _inside(array: Any) -> Shape:
    """The axes that a copy walks: all, in lanes all but the batch."""
    return array.shape[1:] if isinstance(array, Lanes) else array.shape


def transpose(y: Any, x: Any, *, axes: tuple[int, ...]) -> None:
    if isinstance(x, Lanes):
        axes = tuple(a - 1 for a in axes[1:])
    own = strides(_inside(x))
    _copy(y, x, _inside(y), strides(_inside(y)), [own[a] for a in axes])


def _cut(array: Any, slices: Any) -> tuple[int, list[int]]:
    """Where a slice of an array begins, and its strides."""
    slices = slices[1:] if isinstance(array, Lanes) else slices
    pairs = list(zip(slices, strides(_inside(array)), strict=True))
    return sum(start * s for (start, _, _), s in pairs), [step * s for (_, _, step), s in pairs]


def slice(y: Any, x: Any, *, slices: Any) -> None:
    start, own = _cut(x, slices)
    _copy(y, x, _inside(y), strides(_inside(y)), own, 0, start)


def unslice(x: Any, g: Any, *, shape: Any, slices: Any) -> None:
    full_like(x, x, value=0)
    start, own = _cut(x, slices)
    _copy(x, g, _inside(g), own, strides(_inside(g)), start, 0)


def join(y: Any, *xs: Any, axis: int) -> None:
    own = strides(_inside(y))
    step = own[axis - (len(y.shape) - len(own))]
    start = 0
    for x in xs:
        _copy(y, x, _inside(x), own, strides(_inside(x)), start, 0)
        start += x.shape[axis] * step


def pad(y: Any, x: Any, *, widths: Any, value: float) -> None:
    full_like(y, y, value=value)
    own = strides(_inside(y))
    before = [before for before, _ in widths][len(widths) - len(own) :]
    start = sum(b * s for b, s in zip(before, own, strict=True))
    _copy(y, x, _inside(x), own, strides(_inside(x)), start, 0)


# indices ------------------------------------------------------------------------------------------

_KINDS = {"u1": 1, "b1": 1, "i1": 2, "u2": 3, "i2": 4, "u4": 5, "i4": 6, "i8": 8, "u8": 8}


@numba.njit
def _index(index, kind, i, length):
    """index[i] of some integer type; from the end where negative, clipped to the axis."""
    if kind == 1:
        found = numba.int64(view(index, numba.uint8)[i])
    elif kind == 2:
        found = numba.int64(view(index, numba.int8)[i])
    elif kind == 3:
        found = numba.int64(view(index, numba.uint16)[i])
    elif kind == 4:
        found = numba.int64(view(index, numba.int16)[i])
    elif kind == 5:
        found = numba.int64(view(index, numba.uint32)[i])
    elif kind == 6:
        found = numba.int64(view(index, numba.int32)[i])
    else:
        found = view(index, numba.int64)[i]
    if found < 0:
        found += length
    return min(max(found, 0), length - 1)


@kernel
def _take(
    t, n, y: ptr, x: ptr, index: u8ptr, kind: size, rows: size, length: size, count: size,
    columns: size,
):  # fmt: skip
    """y[row, i, :] = x[row, index[i], :]."""
    for place in range(t * rows * count // n, (t + 1) * rows * count // n):
        row, i = place // count, place % count
        source = at(x, (row * length + _index(index, kind, i, length)) * columns)
        target = at(y, place * columns)
        for j in range(columns):
            target[j] = source[j]


@kernel
def _take_dx(
    t, n, dx: ptr, g: ptr, index: u8ptr, kind: size, rows: size, length: size, count: size,
    columns: size,
):  # fmt: skip
    """dx[row, index[i], :] += g[row, i, :] in the order of i; each thread has a part of `length`
    and looks for it in all of `index`."""
    low, high = t * length // n, (t + 1) * length // n
    for row in range(rows):
        own = at(dx, row * length * columns)
        for j in range(low * columns, high * columns):
            own[j] = 0
        for i in range(count):
            found = _index(index, kind, i, length)
            if low <= found < high:
                target = at(own, found * columns)
                source = at(g, (row * count + i) * columns)
                for j in range(columns):
                    target[j] += source[j]


def _around(shape: Shape, axis: int, index: Any) -> tuple[int, int, int, int, int]:
    """The kind of index, then rows, length, count and columns."""
    kind = _KINDS[index.dtype.str[1:]]
    return kind, math.prod(shape[:axis]), shape[axis], index.size, math.prod(shape[axis + 1 :])


def take(y: Any, x: Any, index: Any, *, axis: int) -> None:
    bits = bits_type(y.dtype)
    launch(typed(_take, bits), bits, y, x, index, *_around(x.shape, axis, index))


def take_dx(dx: Any, g: Any, index: Any, *, shape: Shape, axis: int) -> None:
    launch(typed(_take_dx, dx.dtype), dx.dtype, dx, g, index, *_around(shape, axis, index))
