"""Matrix products: every op here is one, y = act(bias + a b), with operands as they lie or turned.

product      y[m, n]  = a[m, k] b[k, n]        each turned by ta, tb; leading axes broadcast
linear       y[m, n]  = x[m, k] w[n, k]        w turned
linear_dx    dx[m, n] = g[m, k] w[k, n]
linear_dw    dw[m, n] = g[k, m] x[k, n]        g turned; k counts the rows of the batch

`naive`, `tiled`, `registers` and `tensor` are the rungs of the ladder in kernels/linear*.cu, and
`library` is cuBLAS.  `dk.using(product="naive", linear="naive")` takes one of them; otherwise
`_rung` chooses, by size and by `dk.precision`.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import DeviceError, Variants, current_precision, scratch, variants
from .elementwise import fill_
from .grids import BLOCK, blocks_of
from .launch import Kernels, driver_of, library
from .structures import Walk, broadcast_strides, structure, walk

_naive = Kernels("linear")
_tiled = Kernels("linear_tiled")
_registers = Kernels("linear_registers")
_tensor = Kernels("linear_tensor")

ACTIVATIONS = (None, "relu", "tanh", "sigmoid")  # as in linear.cuh
MOST_BLOCKS = 1 << 30
ENOUGH_BLOCKS = 264  # two for each of the 132 processors of an H200
LEAST_CHUNK = 128  # of k: a shorter part would not be worth its addition
LEAST_LIBRARY = 256  # of m, n and k: smaller products are launches more than arithmetic

FLOAT32 = np.dtype(np.float32)
TENSOR_CORES = 80  # the compute capability from which on linear_tensor.cu compiles
PRECISIONS = {"float32": 1, "tf32": 0, "3xtf32": 1, "bfloat16": 2, "float16": 3}  # as there
TENSOR_TILE = 128
TENSOR_SHARED = 3 * 4 * 2 * TENSOR_TILE * (32 + 4)  # bytes: three stages of a tile of a and of b

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


def _rung(t: _Task, y: Any) -> str:
    """Which kernels; `y` or another operand says on what device and of what type.

    Tensor cores where less than float32 is asked for, cuBLAS where it is there and the product is
    large; tiles of 128 x 64 are for products that fill a good part of one.
    """
    driver: Any = driver_of(y)[0]
    small = min(t.m, t.n, t.k) < LEAST_LIBRARY
    if driver.blas is not None and not small and current_precision() != "3xtf32":
        return "library"
    if current_precision() != "float32" and _has_tensor_cores(driver, y):
        return "tensor"
    if min(t.m, t.n) >= 32 and t.k >= 8:
        return "registers"
    return "tiled" if min(t.m, t.n, t.k) >= 8 else "naive"


def _has_tensor_cores(driver: Any, y: Any) -> bool:
    return driver.capability >= TENSOR_CORES and y.dtype == FLOAT32


def _tile(t: _Task) -> tuple[int, int]:
    """Of y, for a block: the large one where there are enough of them."""
    large = t.matrices * -(-t.m // 128) * -(-t.n // 128)
    return (128, 128) if large >= ENOUGH_BLOCKS else (128, 64)


def _split(t: _Task, tile: tuple[int, int] | None = None) -> tuple[int, int]:
    """-> (in how many parts k is cut, their length): only where there are few tiles."""
    tile_m, tile_n = tile or _tile(t)
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


def _in_parts(
    t: _Task, p: Any, y: Any, bias: Any, work: Any, tile: tuple[int, int],
    run: Callable[[int, Any, Any], None],
) -> None:  # fmt: skip
    """`run(grid, y, bias)`, k in one piece; or into parts, which a second launch adds."""
    p.splits, p.chunk = _split(t, tile)
    tiles = p.splits * t.matrices * -(-t.m // tile[0]) * -(-t.n // tile[1])
    grid = min(tiles, MOST_BLOCKS)
    if p.splits == 1:
        run(grid, y, bias)
        return
    activation, p.activation = p.activation, 0
    run(grid, work[0], None)
    p.activation = activation
    _naive.run("product_join", blocks_of(y.size), BLOCK, y, work[0], bias, p, T=y.dtype)


def _run_registers(t: _Task, p: Any, y: Any, a: Any, b: Any, bias: Any, work: Any) -> None:
    tile = _tile(t)
    name = f"product_{tile[1]}_{_turned(t)}"

    def run(grid: int, to: Any, with_bias: Any) -> None:
        _registers.run(name, grid, 2 * tile[1], to, a, b, with_bias, p, T=y.dtype)

    _in_parts(t, p, y, bias, work, tile, run)


def _run_tensor(t: _Task, p: Any, y: Any, a: Any, b: Any, bias: Any, work: Any) -> None:
    if not _has_tensor_cores(driver_of(y)[0], y):
        return _run_registers(t, p, y, a, b, bias, work)
    precision, largest = PRECISIONS[current_precision()], None
    types: dict[str, Any] = dict(T=FLOAT32, PRECISION=precision)
    if current_precision() == "float16":
        largest = work[-1]
        fill_(largest, value=0)
        for i, x in enumerate((a, b)):
            place = largest[i : i + 1]
            _tensor.run("product_largest", blocks_of(x.size), BLOCK, place, x, x.size, **types)

    def run(grid: int, to: Any, with_bias: Any) -> None:
        _tensor.run(
            f"product_{_turned(t)}", grid, 256, to, a, b, with_bias, largest, p,
            shared=TENSOR_SHARED, **types,
        )  # fmt: skip

    _in_parts(t, p, y, bias, work, (TENSOR_TILE, TENSOR_TILE), run)
    return None


def _run_library(t: _Task, p: Any, y: Any, a: Any, b: Any, bias: Any, work: Any) -> None:
    driver, address = driver_of(y)
    blas = driver.blas  # type: ignore[attr-defined]
    if blas is None:
        raise DeviceError("algorithm 'library' needs cuBLAS, which is not there")
    if p.walk.axes > 1 or not t.k:  # batches that do not lie evenly; cuBLAS wants a k
        return _run_registers(t, p, y, a, b, bias, work)
    steps = [p.walk.step[i][0] if p.walk.axes else 0 for i in range(2)]
    library(
        "cublasGemm", blas.product, address(y), address(a), address(b), t.m, t.n, t.k, t.ta, t.tb,
        t.matrices, *steps, y.dtype.name, current_precision(), keep=(y, a, b),
    )  # fmt: skip
    if bias is not None or p.activation:
        p.splits = 1
        _naive.run("product_join", blocks_of(y.size), BLOCK, y, y, bias, p, T=y.dtype)
    return None


def _turned(t: _Task) -> str:
    return f"{'nt'[t.ta]}{'nt'[t.tb]}"


Shapes = list[tuple[tuple[int, ...], Any]]


def _work_registers(y: Any, t: _Task) -> Shapes:
    """Scratch: y of every part of k."""
    splits, _ = _split(t)
    return [((splits, *y.shape), y.dtype)] if splits > 1 else []


def _work_tensor(y: Any, t: _Task) -> Shapes:
    """The same, and the largest elements for float16."""
    if not _has_tensor_cores(driver_of(y)[0], y):
        return _work_registers(y, t)
    splits, _ = _split(t, (TENSOR_TILE, TENSOR_TILE))
    parts = [((splits, *y.shape), y.dtype)] if splits > 1 else []
    return parts + ([((2,), np.dtype(np.uint32))] if current_precision() == "float16" else [])


_RUNGS: dict[str, Callable[..., None]] = {
    "naive": _run_naive, "tiled": _run_tiled, "registers": _run_registers, "tensor": _run_tensor,
    "library": _run_library,
}  # fmt: skip
_WORK: dict[str, Callable[[Any, _Task], Shapes]] = {
    "registers": _work_registers, "tensor": _work_tensor, "library": _work_registers,
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
        _RUNGS[rung](t, p, y, a, b, None, scratch)

    if rung in _WORK:
        return scratch(lambda y, a, b, *, ta, tb: _WORK[rung](y, _matrices(y, a, ta, tb)))(kernel)
    return kernel


def _linear_on(rung: str, op: str) -> Callable[..., None]:
    def kernel(y, a, b, bias=None, *, activation=None, scratch=()):
        if y.size:
            t = _task(op, a, b)
            p = _described(t, walk(()), activation)
            _RUNGS[rung](t, p, y, a, b, bias, scratch)

    if rung in _WORK:
        return scratch(lambda y, a, b, *_, **__: _WORK[rung](y, _task(op, a, b)))(kernel)
    return kernel


@variants(**{rung: _product_on(rung) for rung in _RUNGS})
def product(a, b, *, ta, tb):
    m, k = a.shape[-2:] if not ta else a.shape[:-3:-1]
    n = b.shape[-2] if tb else b.shape[-1]
    return _rung(_Task(m, n, k), a)


def _linear(op: str) -> Variants:
    def choose(a, b, bias=None, *, activation=None):
        return _rung(_task(op, a, b), a)

    return variants(**{rung: _linear_on(rung, op) for rung in _RUNGS})(choose)


linear = _linear("linear")
linear_dx = _linear("linear_dx")
linear_dw = _linear("linear_dw")
