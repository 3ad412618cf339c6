"""Reductions: along rows where the reduced elements lie together, else down columns."""

from __future__ import annotations

import ctypes
import math

from .. import scratch
from .elementwise import fill_
from .grids import BLOCK, blocks_of
from .launch import Kernels
from .shape import _gather
from .structures import Walk, broadcast_strides, contiguous, strides, structure, walk

_reduce = Kernels("reduce")
_argmax = Kernels("reduce_argmax")

_Reduction = structure(
    "Reduction",
    [
        *[(name, ctypes.c_int64) for name in ("count", "length", "splits", "chunk")],
        ("kept", Walk),
        ("reduced", Walk),
    ],
)

WARP = 32
SHORT = 1024  # elements of a row: a warp has it
LEAST_PART = 4096  # elements of a part of a row
LEAST_ROWS = 64  # of a part of columns
ENOUGH_BLOCKS = 528  # four for each of the 132 processors of an H200
MOST_BLOCKS = 1 << 30

_most, _least = max, min  # the names are those of kernels below


def _described(x, axes):
    """The reduction of x over axes, and whether it is one along rows."""
    along = strides(x.shape)
    kept = [i for i in range(len(x.shape)) if i not in axes]
    reduced = walk([x.shape[a] for a in axes], [along[a] for a in axes])
    rest = walk([x.shape[a] for a in kept], [along[a] for a in kept])
    length = math.prod(x.shape[a] for a in axes)
    return _Reduction(
        math.prod(x.shape[a] for a in kept), length, 1, _most(1, length), rest, reduced
    ), contiguous(reduced, 0)


def _split(count, length, rows):
    """-> (in how many parts the elements of one result are cut, their length)."""
    if rows:
        splits = 1 if length <= SHORT else _least(ENOUGH_BLOCKS // count, length // LEAST_PART)
    else:
        splits = _least(ENOUGH_BLOCKS // -(-count // WARP), length // LEAST_ROWS)
    chunk = -(-_most(1, length) // _most(1, splits))
    chunk = -(-chunk // 16) * 16  # so that packs begin where the parts do
    return _most(1, -(-length // chunk)), chunk


def _stage(name, y, x, r, rows, divisor):
    if rows and r.length <= SHORT:
        grid, kind = -(-r.count // (BLOCK // WARP)), "warps"
    elif rows:
        grid, kind = r.count * r.splits, "rows"
    else:
        grid, kind = -(-r.count // WARP) * r.splits, "columns"
    block = (WARP, 8) if kind == "columns" else BLOCK
    _reduce.run(
        f"{name}_{kind}", _least(grid, MOST_BLOCKS), block, y, x, r, divisor, T=y.dtype, S=x.dtype
    )


def _parts(y, x, axes):
    r, rows = _described(x, axes)
    if not r.count:
        return []
    splits, _ = _split(r.count, r.length, rows)
    return [((splits * r.count,), y.dtype)] if splits > 1 else []


def _reduced(name, y, x, axes, work, divisor=1):
    """One launch, or two: the second takes the parts together."""
    r, rows = _described(x, axes)
    if not r.count:
        return
    r.splits, r.chunk = _split(r.count, r.length, rows)
    if r.splits == 1:
        _stage(name, y, x, r, rows, divisor)
        return
    (parts,) = work
    _stage(name, parts, x, r, rows, 1)
    shape = (r.count, r.splits) if rows else (r.splits, r.count)
    joined, _ = _described(parts.reshape(shape), (1,) if rows else (0,))
    _stage(name, y, parts, joined, rows, divisor)


def _kernel(name):
    @scratch(lambda y, x, *, axes, keepdims: _parts(y, x, axes))
    def kernel(y, x, *, axes, keepdims, scratch):
        _reduced(name, y, x, axes, scratch)

    kernel.__name__ = name
    return kernel


sum = _kernel("sum")
max = _kernel("max")
min = _kernel("min")


@scratch(lambda y, x, *, axes, keepdims: _parts(y, x, axes))
def mean(y, x, *, axes, keepdims, scratch):
    count = math.prod(x.shape[a] for a in axes)
    _reduced("sum", y, x, axes, scratch, count)


def argmax(index, x, *, axes, keepdims):
    (axis,) = axes
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    if inner == 1:
        grid = _least(-(-outer // (BLOCK // WARP)), MOST_BLOCKS)
        _argmax.run("argmax_warps", grid, BLOCK, index, x, outer, x.shape[axis], T=x.dtype)
    else:
        sizes = (outer, x.shape[axis], inner)
        _argmax.run("argmax_columns", blocks_of(outer * inner), BLOCK, index, x, *sizes, T=x.dtype)


def broadcast_to(y, x, *, shape):
    _gather(y, x, broadcast_strides(x.shape, shape))


def _summed(x, shape):
    """The axes of x along which `shape` would be repeated."""
    lead = len(x.shape) - len(shape)
    repeated = [i + lead for i, d in enumerate(shape) if d == 1 and x.shape[i + lead] != 1]
    return (*range(lead), *repeated)


@scratch(lambda y, x, *, shape: _parts(y, x, _summed(x, shape)))
def sum_to(y, x, *, shape, scratch):
    if x.size:
        _reduced("sum", y, x, _summed(x, shape), scratch)
    else:
        fill_(y, value=0)
