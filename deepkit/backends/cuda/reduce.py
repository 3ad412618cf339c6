"""Reductions and broadcasting: a reduction is a sequence of launches, each of one axis.

    x (2, 3, 4, 5), axes (0, 2):    (6, 4, 5) --columns--> (6, 1, 5) = (1, 2, 15) --columns--> (15)
    x (8, 1000000), axis 1:         (8, 1000000, 1) --rows, 123 chunks--> (8, 123, 1) --rows--> (8)

`naive` is one launch for any axes, a thread for each result; `blocks` is the sequence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from ctypes import c_int64
from typing import Any, NamedTuple

from .. import Variants, scratch, variants
from .grids import BLOCK, blocks_of
from .launch import Kernels
from .shape import _gather
from .structures import broadcast_strides, strides, structure, walk

_naive = Kernels("reduce")
_blocks = Kernels("reduce_blocks")
_broadcast = Kernels("reduce_broadcast")

ENOUGH_BLOCKS = 1024  # of 256 threads: what keeps an H200 busy
LEAST, MOST = 32, 4096  # elements one after the other that a thread is given, where k is cut
MOST_UNCUT = 1024  # an axis that is not worth two launches
MOST_BLOCKS = 1 << 30

_most, _least = max, min  # the names are those of kernels below

_Reduced = structure("Reduced", [(name, c_int64) for name in ("a", "k", "c", "chunks", "chunk")])


class _Step(NamedTuple):
    """One launch: x (a, k, c) -> y (a, chunks, c)."""

    a: int
    k: int
    c: int
    chunks: int

    @property
    def block(self) -> tuple[int, int]:
        """Threads along the contiguous axis, and across it: a power of 2 each, 256 together."""
        if self.c == 1:
            along = _least(BLOCK, _power_of_2(-(-self.k // 4)))
        else:
            along = _least(32, _power_of_2(self.c))
        return along, BLOCK // along

    @property
    def threads(self) -> int:
        """Threads that share the k of one result."""
        return self.block[0] if self.c == 1 else self.block[1]

    @property
    def blocks(self) -> int:
        along, across = self.block
        if self.c == 1:
            return -(-self.a * self.chunks // across)
        return self.a * self.chunks * -(-self.c // along)

    @property
    def chunk(self) -> int:
        return -(-self.k // self.chunks)


def _power_of_2(n: int) -> int:
    """The next one that is not smaller."""
    return 1 << _most(0, n - 1).bit_length()


def _in_chunks(a: int, k: int, c: int) -> Iterator[_Step]:
    """The reduction of one axis: in one launch, or in chunks first."""
    step = _Step(a, k, c, 1)
    if k > MOST_UNCUT:
        wanted = _least(ENOUGH_BLOCKS // _most(1, step.blocks), k // (LEAST * step.threads))
        chunks = _most(1, wanted, k // (MOST * step.threads))
        chunks = -(-k // -(-k // chunks))  # so that none is empty
        if chunks > 1:
            yield _Step(a, k, c, chunks)
            yield from _in_chunks(a, chunks, c)
            return
    yield step


def _steps(shape: Sequence[int], axes: Sequence[int]) -> list[_Step]:
    """Neighbours that share a fate are one axis; of those to reduce, the last goes first."""
    groups: list[tuple[int, bool]] = []  # (length, whether it is reduced)
    for axis, d in enumerate(shape):
        reduced = axis in axes
        if d == 1:
            continue
        if groups and groups[-1][1] == reduced:
            groups[-1] = (groups[-1][0] * d, reduced)
        else:
            groups.append((d, reduced))
    found: list[_Step] = []
    while any(reduced for _, reduced in groups):
        at = _most(i for i, (_, reduced) in enumerate(groups) if reduced)
        before, after = groups[:at], groups[at + 1 :]
        a, c = (math.prod(d for d, _ in side) for side in (before, after))
        found += _in_chunks(a, groups[at][0], c)
        if before and after:
            before, after = before[:-1], [(before[-1][0] * after[0][0], False)]
        groups = before + after
    return found or [_Step(1, 1, math.prod(shape), 1)]


def _parts(y: Any, x: Any, axes: Sequence[int]) -> list[tuple[tuple[int], Any]]:
    """Scratch: what one launch leaves for the next."""
    return [((s.a * s.chunks * s.c,), y.dtype) for s in _steps(x.shape, axes)[:-1]]


# the launches -------------------------------------------------------------------------------------


def _run(name: str, s: _Step, *arguments: Any, options: tuple = (), **types: Any) -> None:
    kind = "rows" if s.c == 1 else "columns"
    given = _Reduced(s.a, s.k, s.c, s.chunks, s.chunk)
    grid = _least(s.blocks, MOST_BLOCKS)
    _blocks.run(f"{name}_{kind}", grid, s.block, *arguments, given, *options, **types)


def _reduced(name: str, y: Any, x: Any, axes: Sequence[int], work: Any, *divisor: float) -> None:
    """sum, max or min of x in y; `work`: `_parts`; divisor: of a sum."""
    if not y.size:
        return
    steps = _steps(x.shape, axes)
    for s, target in zip(steps, [*work, y], strict=True):
        options = divisor if target is y else tuple(1 for _ in divisor)
        _run(name, s, target, x, options=options, T=y.dtype, S=x.dtype)
        x = target


def _reduced_naive(name: str, y: Any, x: Any, axes: Sequence[int], *options: Any) -> None:
    if y.size:
        steps = strides(x.shape)
        walks = [walk([x.shape[i] for i in side], [steps[i] for i in side])
                 for side in _sides(x, axes)]  # fmt: skip
        count = _count(x, axes)
        types = dict(T=x.dtype if name == "argmax" else y.dtype, S=x.dtype)
        grid = blocks_of(y.size)
        _naive.run(f"{name}_naive", grid, BLOCK, y, x, y.size, count, *walks, *options, **types)


def _sides(x: Any, axes: Sequence[int]) -> tuple[list[int], list[int]]:
    """Axes that are kept, and those that are reduced."""
    return [i for i in range(x.ndim) if i not in axes], [i for i in range(x.ndim) if i in axes]


def _count(x: Any, axes: Sequence[int]) -> int:
    return math.prod(x.shape[i] for i in axes)


def _both(op: str, name: str, divisor: Callable[..., tuple]) -> Variants:
    """An op's two variants; divisor: (x, axes) -> what a sum is divided by, or nothing."""

    def naive(y, x, *, axes, keepdims):
        _reduced_naive(name, y, x, axes, *divisor(x, axes))

    @scratch(lambda y, x, *, axes, keepdims: _parts(y, x, axes))
    def blocks(y, x, *, axes, keepdims, scratch):
        _reduced(name, y, x, axes, scratch, *divisor(x, axes))

    def choose(x, *, axes, keepdims):
        return "blocks"

    choose.__name__ = op
    return variants(naive=naive, blocks=blocks)(choose)


sum = _both("sum", "sum", lambda x, axes: (1,))
mean = _both("mean", "sum", lambda x, axes: (_count(x, axes),))
max = _both("max", "max", lambda x, axes: ())
min = _both("min", "min", lambda x, axes: ())


def _argmax_naive(index, x, *, axes, keepdims):
    _reduced_naive("argmax", index, x, axes)


def _argmax_scratch(index, x, *, axes, keepdims):
    return [(s, d) for s, index in _parts(index, x, axes) for d in (index, x.dtype)]


@scratch(_argmax_scratch)
def _argmax_blocks(index, x, *, axes, keepdims, scratch):
    if not index.size:
        return
    before = None  # which elements are still in question
    for i, s in enumerate(_steps(x.shape, axes)):
        more = 2 * i < len(scratch)
        found, top = scratch[2 * i : 2 * i + 2] if more else (index, None)
        _run("argmax", s, found, top, x, before, T=x.dtype, S=x.dtype)
        before, x = found, top


@variants(naive=_argmax_naive, blocks=_argmax_blocks)
def argmax(x, *, axes, keepdims):
    return "blocks"


# broadcasting -------------------------------------------------------------------------------------


def broadcast_to(y, x, *, shape):
    if not y.size:
        return
    here = walk(y.shape, broadcast_strides(x.shape, y.shape))
    wide = 16 // y.dtype.itemsize
    if here.axes and here.size[0] % wide == 0:
        packs = y.size // wide
        _broadcast.run("broadcast", blocks_of(packs), BLOCK, y, x, packs, here, T=y.dtype)
    else:
        _gather(y, x, broadcast_strides(x.shape, y.shape))


def _repeated(x: Any, shape: Sequence[int]) -> tuple[int, ...]:
    """The axes of x along which an array of `shape` would be repeated."""
    lead = x.ndim - len(shape)
    return tuple(i for i, d in enumerate(x.shape) if i < lead or (shape[i - lead] == 1 and d != 1))


@scratch(lambda y, x, *, shape: _parts(y, x, _repeated(x, shape)))
def sum_to(y, x, *, shape, scratch):
    _reduced("sum", y, x, _repeated(x, shape), scratch, 1)
