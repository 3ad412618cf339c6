"""The layout of batches: the batch axis last, in SIMD lanes.

    logical            x[n, h, w, c]
    in memory          chunk 0                      chunk 1                 (the last one, narrower)
                       [h][w][c][ 64 images ]       [h][w][c][ 64 images ]  [h][w][c][ 16 .. 64 ]

One lane carries one image, so every width, channel count, border and window vectorises: a loop
over images is innermost everywhere, and contiguous.  A chunk holds 64 images (what a 4-vector
tile of 512-bit registers takes at a time), the last one as many as remain, rounded up to 16; the
lanes past the last image hold anything, and kernels that sum over the batch leave them out.

    x[n, i] (i over h, w, c) is element  first * inner + i * width + (n - first)
    with first = 64 * (n // 64), width = min(64, padded - first), padded = 16 * ceil(N / 16)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from .. import wished
from .launch import address_of, kernel, launch, ptr, size, u8ptr
from .simd import at, transpose_square, vector_lanes

CHUNK = 64  # images in a chunk
QUANTUM = 16  # the last chunk is a multiple of this

FEW = 4  # images that leave so many of 16 lanes empty that C order is faster

LANES = "lanes"  # the name of the layout; None is C order

Shape = tuple[int, ...]


def padded(count: int) -> int:
    """Images and the unused lanes after them."""
    return -(-count // QUANTUM) * QUANTUM


@numba.njit
def chunk_width(first: int, lanes: int) -> int:
    """How many lanes the chunk that begins at lane `first` has, of `lanes` in all."""
    return min(64, lanes - first)


@numba.njit
def share(t: int, n: int, first: int, lanes: int, chunk: int, parts: int):
    """Thread t's parts of the chunk that begins at lane `first`: low, high of 0 .. parts.

    All chunks are one stretch of lanes * parts, of which each thread has one piece: so a thread
    meets the same chunks, in its own cache, in every kernel, and a narrow last chunk counts less.
    """
    width = min(chunk, lanes - first)
    begin = t * lanes * parts // n - first * parts
    end = (t + 1) * lanes * parts // n - first * parts
    low, high = -(-begin // width), -(-end // width)
    return min(max(low, 0), parts), min(max(high, 0), parts)


class Lanes:
    """An array in this layout: its logical shape and dtype, and its memory, flat."""

    __slots__ = ("address", "dtype", "inner", "lanes", "memory", "shape")

    def __init__(self, memory: np.ndarray, shape: Shape) -> None:
        self.memory, self.shape, self.dtype = memory, shape, memory.dtype
        self.inner, self.lanes = math.prod(shape[1:]), padded(shape[0])
        self.address = address_of(memory)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def numpy(self) -> np.ndarray:
        """A new array with the logical values, in C order."""
        count = self.shape[0]
        out = np.empty((count, self.inner), self.dtype)
        for first in range(0, count, CHUNK):
            width = min(CHUNK, self.lanes - first)
            start, some = first * self.inner, min(CHUNK, count - first)
            chunk = self.memory[start : start + width * self.inner].reshape(self.inner, width)
            out[first : first + some] = chunk[:, :some].T
        return out.reshape(self.shape)


def stored(array: Any) -> int:
    """Elements in memory, with spare lanes."""
    return getattr(array, "memory", array).size


def elements(shape: Shape) -> int:
    """What an array of this logical shape takes in this layout."""
    return padded(shape[0]) * math.prod(shape[1:])


# conversion ---------------------------------------------------------------------------------------


@numba.njit
def transpose(target, row_target, source, row_source, rows, columns):
    """target[j * row_target + i] = source[i * row_source + j] for i below rows, j below columns."""
    side = vector_lanes(source)
    whole_rows, whole_columns = rows // side * side, columns // side * side
    for j in range(0, whole_columns, side):
        for i in range(0, whole_rows, side):
            transpose_square(at(target, j * row_target + i), row_target,
                             at(source, i * row_source + j), row_source)  # fmt: skip
    for i in range(rows):
        for j in range(whole_columns if i < whole_rows else 0, columns):
            target[j * row_target + i] = source[i * row_source + j]


STRIPE = 64  # positions that a thread takes at a time


@kernel
def to_lanes(t, n, y: ptr, x: ptr, count: size, inner: size, lanes: size):
    """y (lanes) = x (C order)."""
    stripes = (inner + STRIPE - 1) // STRIPE
    tasks = (lanes + 63) // 64 * stripes
    for task in range(t * tasks // n, (t + 1) * tasks // n):
        first, low = 64 * (task // stripes), STRIPE * (task % stripes)
        width = chunk_width(first, lanes)
        transpose(at(y, first * inner + low * width), width, at(x, first * inner + low), inner,
                  min(width, count - first), min(STRIPE, inner - low))  # fmt: skip


@kernel
def from_lanes(t, n, y: ptr, x: ptr, count: size, inner: size, lanes: size):
    """y (C order) = x (lanes)."""
    stripes = (inner + STRIPE - 1) // STRIPE
    tasks = (lanes + 63) // 64 * stripes
    for task in range(t * tasks // n, (t + 1) * tasks // n):
        first, low = 64 * (task // stripes), STRIPE * (task % stripes)
        width = chunk_width(first, lanes)
        transpose(at(y, first * inner + low), inner, at(x, first * inner + low * width), width,
                  min(STRIPE, inner - low), min(width, count - first))  # fmt: skip


@kernel
def clear_spare_lanes(t, n, x: ptr, count: size, inner: size, lanes: size):
    """Zeros in the lanes past the last image, so that sums over whole vectors are right."""
    first = 64 * ((lanes - 1) // 64)
    width = chunk_width(first, lanes)
    chunk = at(x, first * inner)
    for i in range(t * inner // n, (t + 1) * inner // n):
        for lane in range(count - first, width):
            chunk[i * width + lane] = 0


@kernel
def _copy_bytes_to_lanes(t, n, y: u8ptr, x: u8ptr, count: size, inner: size, lanes: size):
    for image in range(count):
        first = 64 * (image // 64)
        width = chunk_width(first, lanes)
        for i in range(inner):
            y[first * inner + i * width + image - first] = x[image * inner + i]


@kernel
def _copy_bytes_from_lanes(t, n, y: u8ptr, x: u8ptr, count: size, inner: size, lanes: size):
    for image in range(count):
        first = 64 * (image // 64)
        width = chunk_width(first, lanes)
        for i in range(inner):
            y[image * inner + i] = x[first * inner + i * width + image - first]


_AS_REAL = {1: None, 4: np.dtype("f4"), 8: np.dtype("f8")}  # bit patterns move as floats do


def arrange(y: Any, x: Any) -> None:
    """The same values in the other layout."""
    there = isinstance(y, Lanes)
    array = y if there else x
    real = _AS_REAL[array.dtype.itemsize]
    if real is None:
        move = _copy_bytes_to_lanes if there else _copy_bytes_from_lanes
        real = np.dtype("f4")
    else:
        move = to_lanes if there else from_lanes
    launch(move, real, y, x, array.shape[0], array.inner, array.lanes)


def clear_spare(*arrays: Lanes) -> None:
    """Before a sum over the batch: only where the last vector is not full."""
    for x in arrays:
        if x.shape[0] % QUANTUM:
            launch(clear_spare_lanes, x.dtype, x, x.shape[0], x.inner, x.lanes)


# which operands are in lanes ----------------------------------------------------------------------

Layouts = Sequence[str | None]


def arrangement(
    op: Any,
    shapes: Sequence[Shape | None],
    layouts: Layouts,
    out_shapes: Sequence[Shape],
    params: dict[str, Any],
) -> tuple[Layouts, Layouts]:
    """The layouts of an op's inputs and outputs.

    A signature that begins with N puts that operand in lanes.  Elementwise ops go where their
    inputs are.  A few ops that only move or reduce stay in lanes where the batch axis is left
    alone; everything else is in C order.
    """
    plain_in, plain_out = (None,) * len(shapes), (None,) * len(out_shapes)
    special = _KEEPS_LANES.get(op.name)
    if LANES not in layouts and (op.elementwise or special is not None or not op.batched):
        return plain_in, plain_out
    if op.elementwise:
        return _elementwise(op, shapes, layouts, out_shapes, plain_in, plain_out)
    if special is not None:
        return special(shapes, layouts, out_shapes, params) or (plain_in, plain_out)
    if op.batched:
        if op.name in _AS_THEY_COME and layouts[_AS_THEY_COME[op.name]] is None:
            return plain_in, plain_out
        if _along_batch(op, shapes, params) or _few(op, shapes, params):
            return plain_in, plain_out
        wanted = tuple(LANES if o.batched else None for o in op.ins)
        return wanted, tuple(LANES if o.batched else None for o in op.outs)
    return plain_in, plain_out


def _few(op: Any, shapes: Sequence[Shape | None], params: dict[str, Any]) -> bool:
    """Whether so few images are better off in C order, with channels in the lanes."""
    count = next(s[0] for o, s in zip(op.ins, shapes, strict=False) if o.batched and s is not None)
    algorithm = params.get("algorithm", "auto")
    if algorithm == "auto":
        algorithm = wished(op.name) or "auto"
    return count <= FEW and op.name in _TAKE_FEW and algorithm in ("auto", "direct")


def _along_batch(op: Any, shapes: Sequence[Shape | None], params: dict[str, Any]) -> bool:
    """softmax(x, axis=0) and its like reduce over the batch axis, and a lone number has no such
    axis: C order."""
    if any(o.batched and s == () for o, s in zip(op.ins, shapes, strict=False)):
        return True
    axis = params.get("axis")
    return isinstance(axis, int) and shapes[0] is not None and axis % len(shapes[0]) == 0


def _elementwise(
    op: Any,
    shapes: Sequence[Shape | None],
    layouts: Layouts,
    out_shapes: Sequence[Shape],
    plain_in: Layouts,
    plain_out: Layouts,
) -> tuple[Layouts, Layouts]:
    target = out_shapes[0] if out_shapes else shapes[0]
    full = [s is not None and len(s) == len(target) > 0 and s[0] == target[0] for s in shapes]
    if op.inplace:
        there = layouts[op.inplace[0]] == LANES
    else:
        there = any(layout == LANES and f for layout, f in zip(layouts, full, strict=True))
    if not there:
        return plain_in, plain_out
    return tuple(LANES if f else None for f in full), (LANES,) * len(out_shapes)


def _same_batch(shapes: Any, layouts: Any, out_shapes: Any, params: Any) -> Any:
    return ((LANES,), (LANES,)) if out_shapes[0][:1] == shapes[0][:1] else None


def _reduced(shapes: Any, layouts: Any, out_shapes: Any, params: Any) -> Any:
    """Without the batch axis the result stays in lanes; with it, it is in C order."""
    return (LANES,), (None if 0 in params["axes"] else LANES,)


def _reduced_to(shapes: Any, layouts: Any, out_shapes: Any, params: Any) -> Any:
    """As `_reduced`: the batch axis stays where the result has it."""
    stays = len(shapes[0]) == len(out_shapes[0]) and shapes[0][0] == out_shapes[0][0]
    return (LANES,), (LANES if stays else None,)


def _joined(shapes: Any, layouts: Any, out_shapes: Any, params: Any) -> Any:
    return None if params["axis"] == 0 else ((LANES,) * len(shapes), (LANES,))


def _padded_inside(shapes: Any, layouts: Any, out_shapes: Any, params: Any) -> Any:
    return ((LANES,), (LANES,)) if params["widths"][0] == (0, 0) else None


def _sliced_inside(shapes: Any, layouts: Any, out_shapes: Any, params: Any) -> Any:
    return ((LANES,), (LANES,)) if params["slices"][0] == (0, shapes[0][0], 1) else None


def _transposed_inside(shapes: Any, layouts: Any, out_shapes: Any, params: Any) -> Any:
    return ((LANES,), (LANES,)) if params["axes"][0] == 0 else None


def _unsliced_inside(shapes: Any, layouts: Any, out_shapes: Any, params: Any) -> Any:
    return ((LANES,), (LANES,)) if params["slices"][0] == (0, out_shapes[0][0], 1) else None


_TAKE_FEW = {  # the ops whose kernels take C order, too
    *("conv2d", "conv2d_dx", "conv2d_dw", "linear", "linear_dx", "linear_dw"),
    *("max_pool2d", "max_pool2d_dx", "max_pool2d_gather", "avg_pool2d", "avg_pool2d_dx"),
    "batch_norm_infer",
}

_AS_THEY_COME = {  # ops whose kernels take both, and the operand whose layout they follow
    **dict.fromkeys(("softmax", "log_softmax", "label_cross_entropy", "layer_norm_over"), 0),
    "drop": 0,
    **dict.fromkeys(("softmax_dx", "log_softmax_dx", "label_cross_entropy_dx", "layer_norm_dx"), 1),
}

_KEEPS_LANES = {
    "reshape": _same_batch,
    "sum": _reduced,
    "mean": _reduced,
    "max": _reduced,
    "min": _reduced,
    "sum_to": _reduced_to,
    "broadcast_to": lambda shapes, layouts, outs, params: (
        _same_batch(shapes, layouts, outs, params) if len(shapes[0]) == len(outs[0]) else None
    ),
    "join": _joined,
    "pad": _padded_inside,
    "transpose": _transposed_inside,
    "slice": _sliced_inside,
    "unslice": _unsliced_inside,
}

__all__ = ["CHUNK", "LANES", "QUANTUM", "Lanes", "arrange", "arrangement", "clear_spare"]
