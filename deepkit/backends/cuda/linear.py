"""Matrix products: every op here is one, y = act(bias + a b), with operands as they lie or turned.

product      y[m, n]  = a[m, k] b[k, n]        each turned by ta, tb; leading axes broadcast
linear       y[m, n]  = x[m, k] w[n, k]        w turned
linear_dx    dx[m, n] = g[m, k] w[k, n]
linear_dw    dw[m, n] = g[k, m] x[k, n]        g turned; k counts the rows of the batch

`naive`, `tiled` and `registers` are the rungs of the ladder in kernels/linear*.cu, `dk.using(
product="naive", linear="naive")` takes one of them, and `_rung` chooses otherwise.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from .. import Variants, scratch, variants
from .grids import BLOCK, blocks_of
from .launch import Kernels
from .structures import Walk, broadcast_strides, structure, walk

_naive = Kernels("linear")
_tiled = Kernels("linear_tiled")
_registers = Kernels("linear_registers")

ACTIVATIONS = (None, "relu", "tanh", "sigmoid")  # as in linear.cuh
MOST_BLOCKS = 1 << 30
ENOUGH_BLOCKS = 264  # two for each of the 132 processors of an H200
LEAST_CHUNK = 128  # of k: a shorter part would not be worth its addition

_sizes = ("m", "n", "k", "matrices", "a_m", "a_k", "b_k", "b_n", "splits", "chunk")
_Product = structure(
    "Product",
    [
        *[(name, ctypes.c_int64) for name in _sizes],
        ("walk", Walk),
        ("activation", ctypes.c_int),
        ("unused", ctypes.c_int),
    ],
)


class _Task(NamedTuple):
    """The shapes of a product: y (matrices, m, n), a and b with k; turned or not."""

    m: int
    n: int
    k: int
    matrices: int = 1
    ta: bool = False
    tb: bool = False


def _matrices(y: Any, a: Any, ta: bool, tb: bool) -> _Task:
    k = a.shape[-2] if ta else a.shape[-1]
    return _Task(y.shape[-2], y.shape[-1], k, math.prod(y.shape[:-2]), ta, tb)


def _task(op: str, first: Any, second: Any) -> _Task:
    """Of a linear layer: which of its three products, and the two that are multiplied."""
    rows = math.prod(first.shape[:-1])
    if op == "linear":
        return _Task(rows, second.shape[0], second.shape[1], tb=True)
    if op == "linear_dx":
        return _Task(rows, second.shape[1], second.shape[0])
    return _Task(first.shape[-1], second.shape[-1], rows, ta=True)


# the choice ---------------------------------------------------------------------------------------


def _rung(t: _Task) -> str:
    """Which kernels: tiles of 128 x 64 are for products that fill a good part of one."""
    if min(t.m, t.n) >= 32 and t.k >= 8:
        return "registers"
    return "tiled" if min(t.m, t.n, t.k) >= 8 else "naive"


def _tile(t: _Task) -> tuple[int, int]:
    """Of y, for a block: the large one where there are enough of them."""
    large = t.matrices * -(-t.m // 128) * -(-t.n // 128)
    return (128, 128) if large >= ENOUGH_BLOCKS else (128, 64)


def _split(t: _Task) -> tuple[int, int]:
    """-> (in how many parts k is cut, their length): only where there are few tiles."""
    tile_m, tile_n = _tile(t)
    tiles = t.matrices * -(-t.m // tile_m) * -(-t.n // tile_n)
    splits = max(1, min(ENOUGH_BLOCKS // max(1, tiles), t.k // LEAST_CHUNK))
    chunk = -(-max(1, t.k) // splits)
    chunk = -(-chunk // 32) * 32  # so that loads of 16 bytes begin where the parts do
    return max(1, -(-t.k // chunk)), chunk


# the launches -------------------------------------------------------------------------------------


def _described(t: _Task, starts: Any, activation: str | None = None) -> Any:
    splits, chunk = 1, max(1, t.k)
    a = (1, t.m) if t.ta else (t.k, 1)
    b = (1, t.k) if t.tb else (t.n, 1)
    return _Product(
        t.m, t.n, t.k, t.matrices, *a, *b, splits, chunk, starts, ACTIVATIONS.index(activation)
    )


def _run_naive(t: _Task, p: Any, y: Any, a: Any, b: Any, bias: Any, parts: Any) -> None:
    _naive.run("product_naive", blocks_of(y.size), BLOCK, y, a, b, bias, p, T=y.dtype)


def _run_tiled(t: _Task, p: Any, y: Any, a: Any, b: Any, bias: Any, parts: Any) -> None:
    tiles = t.matrices * -(-t.m // 16) * -(-t.n // 16)
    grid = min(tiles, MOST_BLOCKS)
    _tiled.run("product_tiled", grid, (16, 16), y, a, b, bias, p, T=y.dtype)


def _run_registers(t: _Task, p: Any, y: Any, a: Any, b: Any, bias: Any, parts: Any) -> None:
    tile_m, tile_n = _tile(t)
    p.splits, p.chunk = _split(t)
    grid = min(p.splits * t.matrices * -(-t.m // tile_m) * -(-t.n // tile_n), MOST_BLOCKS)
    name = f"product_{tile_n}_{'nt'[t.ta]}{'nt'[t.tb]}"
    if p.splits == 1:
        _registers.run(name, grid, 2 * tile_n, y, a, b, bias, p, T=y.dtype)
        return
    activation, p.activation = p.activation, 0
    _registers.run(name, grid, 2 * tile_n, parts, a, b, None, p, T=y.dtype)
    p.activation = activation
    _naive.run("product_join", blocks_of(y.size), BLOCK, y, parts, bias, p, T=y.dtype)


def _parts(y: Any, t: _Task) -> list[tuple[tuple[int, ...], Any]]:
    """Scratch: y of every part of k."""
    splits, _ = _split(t)
    return [((splits, *y.shape), y.dtype)] if splits > 1 else []


_RUNGS: dict[str, Callable[..., None]] = {
    "naive": _run_naive, "tiled": _run_tiled, "registers": _run_registers,
}  # fmt: skip


def _product_on(rung: str) -> Callable[..., None]:
    def kernel(y, a, b, *, ta, tb, scratch=()):
        if not y.size:
            return
        lead = y.shape[:-2]
        steps = [
            [s * (x.shape[-2] * x.shape[-1]) for s in broadcast_strides(x.shape[:-2], lead)]
            for x in (a, b)
        ]
        t = _matrices(y, a, ta, tb)
        p = _described(t, walk(lead, *steps))
        _RUNGS[rung](t, p, y, a, b, None, scratch[0] if scratch else None)

    if rung == "registers":
        return scratch(lambda y, a, b, *, ta, tb: _parts(y, _matrices(y, a, ta, tb)))(kernel)
    return kernel


def _linear_on(rung: str, op: str) -> Callable[..., None]:
    def kernel(y, a, b, bias=None, *, activation=None, scratch=()):
        if y.size:
            t = _task(op, a, b)
            p = _described(t, walk(()), activation)
            _RUNGS[rung](t, p, y, a, b, bias, scratch[0] if scratch else None)

    if rung == "registers":
        return scratch(lambda y, a, b, *_, **__: _parts(y, _task(op, a, b)))(kernel)
    return kernel


@variants(**{rung: _product_on(rung) for rung in _RUNGS})
def product(a, b, *, ta, tb):
    m, k = a.shape[-2:] if not ta else a.shape[:-3:-1]
    n = b.shape[-2] if tb else b.shape[-1]
    return _rung(_Task(m, n, k))


def _linear(op: str) -> Variants:
    def choose(a, b, bias=None, *, activation=None):
        return _rung(_task(op, a, b))

    return variants(**{rung: _linear_on(rung, op) for rung in _RUNGS})(choose)


linear = _linear("linear")
linear_dx = _linear("linear_dx")
linear_dw = _linear("linear_dw")
