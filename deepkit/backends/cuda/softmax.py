"""Softmax and cross entropy: rows in registers along the last axis, columns along any other.

`naive` gives a thread a row, `blocks` gives it several threads, a warp or a block;
`dk.using(softmax="naive")` takes the former.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .. import Variants, scratch, variants
from .grids import BLOCK, blocks_of
from .launch import Kernels
from .reduce import _parts, _reduced

_naive = Kernels("softmax")
_rows = Kernels("softmax_rows")
_columns = Kernels("softmax_columns")

WARP = 32
MOST_THREADS = 512  # of a block, as softmax_rows.cu says
FEW, MANY = 4, 64  # elements of a row that a thread has in registers; bytes of them
MOST_BLOCKS = 1 << 30
INT64 = "i64"  # labels of a file's kernels that have none


def _power_of_2(n: int) -> int:
    """The next one that is not smaller."""
    return 1 << max(0, n - 1).bit_length()


def _row_block(size: int, itemsize: int) -> tuple[str, tuple[int, int]]:
    """Which kernels have rows of this size, and a block: (threads of a row, rows)."""
    many = MANY // itemsize
    if size <= FEW * WARP:
        kind, along = "few", _power_of_2(-(-size // FEW))
    elif size <= many * WARP:
        kind, along = "many", _power_of_2(-(-size // many))
    elif size <= many * MOST_THREADS:
        kind, along = "many", WARP * -(-size // (many * WARP))
    else:
        kind, along = "long", MOST_THREADS
    return kind, (along, max(1, 4 * WARP // along) if along <= WARP else 1)


def _run_rows(name: str, count: int, size: int, *arguments: Any, **types: Any) -> None:
    kind, block = _row_block(size, types["T"].itemsize)
    grid = min(-(-count // block[1]), MOST_BLOCKS)
    _rows.run(f"{name}_{kind}", grid, block, *arguments, **types)


def _run_columns(name: str, a: int, size: int, c: int, *arrays: Any) -> None:
    along = min(WARP, _power_of_2(c))
    block = (along, min(BLOCK // along, _power_of_2(size)))
    grid = min(a * -(-c // along), MOST_BLOCKS)
    types = dict(T=arrays[0].dtype, L=INT64)
    _columns.run(f"{name}_columns", grid, block, *arrays, a, size, c, **types)


def _sizes(x: Any, axis: int) -> tuple[int, int, int]:
    """x as (a, size, c): what comes before the axis, the axis, what comes after it."""
    return math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])


def _both(name: str) -> Variants:
    """The two variants of an op (y, *of the shape of y, axis)."""

    def naive(y, *ins, axis):
        a, size, c = _sizes(y, axis)
        if y.size:
            types = dict(T=y.dtype, L=INT64)
            grid = blocks_of(a * c)
            _naive.run(f"{name}_naive", grid, BLOCK, y, *ins, a * c, size, c, **types)

    def blocks(y, *ins, axis):
        a, size, c = _sizes(y, axis)
        if not y.size:
            return
        if c == 1:
            _run_rows(name, a, size, y, *ins, a, size, T=y.dtype, L=INT64)
        else:
            _run_columns(name, a, size, c, y, *ins)

    return variants(naive=naive, blocks=blocks)(_blocks)


def _blocks(*ins: Any, **params: Any) -> str:
    """The choice of all ops here: a thread a row is to read, not to wait for."""
    return "blocks"


softmax = _both("softmax")
softmax_dx = _both("softmax_dx")
log_softmax = _both("log_softmax")
log_softmax_dx = _both("log_softmax_dx")


# cross entropy ------------------------------------------------------------------------------------


def _run(naive: bool, name: str, logits: Any, labels: Any, *arguments: Any) -> None:
    """A kernel over the rows of the logits, if there are any."""
    types = dict(T=logits.dtype, L=labels.dtype)
    if labels.size and naive:
        _naive.run(f"{name}_naive", blocks_of(labels.size), BLOCK, *arguments, **types)
    elif labels.size:
        _run_rows(name, labels.size, logits.shape[-1], *arguments, **types)


def _loss_scratch(y, logits, labels, *, reduction, label_smoothing):
    """The losses of all rows, and what their sum needs."""
    if reduction == "none":
        return []
    return [(labels.shape, logits.dtype), *_parts(y, labels, range(len(labels.shape)))]


def _loss(naive: bool) -> Callable[..., None]:
    @scratch(_loss_scratch)
    def kernel(y, logits, labels, *, reduction, label_smoothing, scratch):
        loss, *work = scratch or [y]
        sizes = (labels.size, logits.shape[-1])
        _run(naive, "entropy", logits, labels, loss, logits, labels, *sizes, label_smoothing)
        if reduction != "none":
            rows = labels.size if reduction == "mean" else 1
            _reduced("sum", y, loss, range(len(labels.shape)), work, rows)

    return kernel


def _loss_dx(naive: bool) -> Callable[..., None]:
    def kernel(dx, g, logits, labels, *, reduction, label_smoothing):
        step, share = int(reduction == "none"), 1.0
        if reduction == "mean":
            share /= labels.size
        sizes = (labels.size, logits.shape[-1], step, share, label_smoothing)
        _run(naive, "entropy_dx", logits, labels, dx, g, logits, labels, *sizes)

    return kernel


label_cross_entropy = variants(naive=_loss(True), blocks=_loss(False))(_blocks)
label_cross_entropy_dx = variants(naive=_loss_dx(True), blocks=_loss_dx(False))(_blocks)
