"""Kernels that move values: as unsigned numbers of their size, whatever they are."""

from __future__ import annotations

import math

import numpy as np

from .. import scratch
from .elementwise import fill_
from .grids import BLOCK, blocks_of, flat
from .launch import Kernels
from .structures import Walk, contiguous, strides, walk

_shape = Kernels("shape")
_take = Kernels("shape_take")

INT = np.dtype(np.int64)
TILE, ROWS = 32, 8  # as in shape.cu
LEAST_TILED = 8  # lanes of a tile's row that must have work


def _raw(array):
    return array.view(f"u{array.dtype.itemsize}")


def _copy(y, x):
    y, x = _raw(y), _raw(x)
    flat(_shape, "copy", y, x, T=y.dtype)


def _part(array, offset, size):
    return array.reshape(-1)[offset : offset + size]


def _gather(y, x, steps, offset=0):
    """y = the elements of x that lie `steps` apart along the axes of y, from `offset` on."""
    if not y.size:
        return
    way = walk(y.shape, steps)
    if contiguous(way, 0):
        _copy(y, _part(x, offset, y.size))
    else:
        y, x = _raw(y), _raw(x)
        _shape.run("gather", blocks_of(y.size), BLOCK, y, x, y.size, offset, way, T=y.dtype)


def _scatter(y, x, steps, offset=0):
    """x goes into y, where its elements lie `steps` apart, from `offset` on."""
    if not x.size:
        return
    way = walk(x.shape, steps)
    if contiguous(way, 0):
        _copy(_part(y, offset, x.size), x)
    else:
        y, x = _raw(y), _raw(x)
        _shape.run("scatter", blocks_of(x.size), BLOCK, y, x, x.size, offset, way, T=y.dtype)


# permuted axes ------------------------------------------------------------------------------------


def transpose(y, x, *, axes):
    along = strides(x.shape)
    steps = [along[a] for a in axes]
    way = walk(y.shape, steps, strides(y.shape))
    turned = next((i for i in range(1, way.axes) if way.step[0][i] == 1), 0)
    if y.size and turned and min(way.size[0], way.size[turned]) >= LEAST_TILED:
        _transpose_tiled(y, x, way, turned)
    else:
        _gather(y, x, steps)


def _transpose_tiled(y, x, way, turned):
    """`turned` is the axis of the walk along which x is contiguous, as y is along the first."""
    down, across = way.size[0], way.size[turned]
    others, count = Walk(), 1
    for i in range(1, way.axes):
        if i != turned:
            others.size[others.axes] = way.size[i]
            for k in range(2):
                others.step[k][others.axes] = way.step[k][i]
            others.axes += 1
            count *= way.size[i]
    tiles = -(-down // TILE) * -(-across // TILE) * count
    sizes = (down, way.step[0][0], across, way.step[1][turned], count, others)
    y, x = _raw(y), _raw(x)
    grid = blocks_of(tiles, 1)
    _shape.run("transpose_tiled", grid, (TILE, ROWS), y, x, *sizes, T=y.dtype)


# slices -------------------------------------------------------------------------------------------


def _cut(shape, slices):
    """How far apart the elements of a slice lie along each axis, and where the first one is."""
    along = strides(shape)
    steps = [a * step for a, (_, _, step) in zip(along, slices, strict=True)]
    return steps, sum(a * start for a, (start, _, _) in zip(along, slices, strict=True))


def slice(y, x, *, slices):
    _gather(y, x, *_cut(x.shape, slices))


def unslice(x, g, *, shape, slices):
    if g.size < x.size:
        fill_(x, value=0)
    _scatter(x, g, *_cut(x.shape, slices))


def join(y, *xs, axis):
    steps, offset = strides(y.shape), 0
    for x in xs:
        _scatter(y, x, steps, offset)
        offset += x.shape[axis] * steps[axis]


def pad(y, x, *, widths, value):
    if x.size < y.size:
        fill_(y, value=value)
    steps = strides(y.shape)
    _scatter(y, x, steps, sum(s * before for s, (before, _) in zip(steps, widths, strict=True)))


# rows by their numbers ----------------------------------------------------------------------------


def _sizes(shape, index, axis):
    """(outer, length, count, inner), see shape_take.cu."""
    return math.prod(shape[:axis]), shape[axis], index.size, math.prod(shape[axis + 1 :])


def take(y, x, index, *, axis):
    sizes, types = _sizes(x.shape, index, axis), dict(S=index.dtype)
    y, x = _raw(y), _raw(x)
    _take.run("take", blocks_of(y.size), BLOCK, y, x, index, *sizes, T=y.dtype, **types)


@scratch(lambda dx, g, index, *, shape, axis: [((2, shape[axis]), INT), ((index.size,), INT)])
def take_dx(dx, g, index, *, shape, axis, scratch):
    if not dx.size:
        return
    (first, last), following = scratch
    sizes, types = _sizes(shape, index, axis), dict(T=dx.dtype, S=index.dtype)
    fill_(scratch[0], value=-1)
    block = min(1024, -(-index.size // 32) * 32)
    chains = (first, last, following, index, index.size, shape[axis])
    _take.run("take_dx_chains", min(1, index.size), block, *chains, **types)
    _take.run("take_dx", blocks_of(dx.size), BLOCK, dx, g, first, following, *sizes, **types)
