"""One matrix product, or many of the same sizes: which kernels do it, what memory they need, the
launches.

    task = Task(m, n, k, matrices, ta, tb)       y[m, n] = a[m, k] b[k, n], in every matrix
    rung = choose(task, y)                       "registers", say
    work = [scratch of these shapes: working(rung, task, y)]
    run(rung, task, y, a, b, work=work)

`naive`, `tiled`, `registers` and `tensor` are the rungs of the ladder in kernels/linear*.cu, and
`library` is cuBLAS.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import DeviceError
from .elementwise import fill_
from .grids import BLOCK, blocks_of
from .launch import Kernels, driver_of, library
from .structures import Walk, structure, walk

_naive = Kernels("linear")
_tiled = Kernels("linear_tiled")
_registers = Kernels("linear_registers")
_tensor = Kernels("linear_tensor")
_wgmma = Kernels("linear_wgmma")

ACTIVATIONS = (None, "relu", "tanh", "sigmoid")  # as in linear.cuh
MOST_BLOCKS = 1 << 30
ENOUGH_BLOCKS = 264  # two for each of the 132 processors of an H200
LEAST_CHUNK = 128  # of k: a shorter part would not be worth its addition
LEAST_LIBRARY = 256  # of m, n and k: smaller products are launches more than arithmetic

FLOAT32 = np.dtype(np.float32)
WARPGROUPS = 90  # the compute capability that linear_wgmma.cu is for
WARPGROUP_SHARED = 66 * 1024  # bytes: two stages of 128 x 128 bytes each, or a tile of y
LEAST_WARPGROUP = 128  # of m and n: smaller products leave most of a tile empty
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


class Task(NamedTuple):
    """The shapes of a product: y (matrices, m, n), a and b with k; turned or not."""

    m: int
    n: int
    k: int
    matrices: int = 1
    ta: bool = False
    tb: bool = False
    precision: str = "float32"


# the choice ---------------------------------------------------------------------------------------


def choose(t: Task, y: Any) -> str:
    """Which kernels; `y` or another operand says on what device and of what type.

    Tensor cores where less than float32 is asked for, cuBLAS where it is there and the product is
    large; tiles of 128 x 64 are for products that fill a good part of one.
    """
    driver, _ = driver_of(y)
    small = min(t.m, t.n, t.k) < LEAST_LIBRARY
    if driver.blas is not None and not small and t.precision not in ("3xtf32", "float16"):
        return "library"
    if t.precision != "float32" and _has_tensor_cores(driver, y):
        large = min(t.m, t.n) >= LEAST_WARPGROUP and t.k >= 64
        return "wgmma" if large and _has_warpgroups(t, y) else "tensor"
    if min(t.m, t.n) >= 32 and t.k >= 8:
        return "registers"
    return "tiled" if min(t.m, t.n, t.k) >= 8 else "naive"


def _has_tensor_cores(driver: Any, y: Any) -> bool:
    return driver.capability >= TENSOR_CORES and y.dtype == FLOAT32


def _has_warpgroups(t: Task, y: Any) -> bool:
    driver, _ = driver_of(y)
    rounds = t.precision in ("tf32", "bfloat16", "float16")
    return rounds and driver.capability == WARPGROUPS and y.dtype == FLOAT32


def _tile(t: Task) -> tuple[int, int]:
    """Of y, for a block: the large one where there are enough of them, which n fills."""
    large = t.matrices * -(-t.m // 128) * -(-t.n // 128)
    return (128, 128) if t.n > 64 and large >= ENOUGH_BLOCKS else (128, 64)


def split(t: Task, tile: tuple[int, int] | None = None) -> tuple[int, int]:
    """-> (in how many parts k is cut, their length): only where there are few tiles."""
    tile_m, tile_n = tile or _tile(t)
    tiles = t.matrices * -(-t.m // tile_m) * -(-t.n // tile_n)
    splits = max(1, min(ENOUGH_BLOCKS // max(1, tiles), t.k // LEAST_CHUNK))
    chunk = -(-max(1, t.k) // splits)
    chunk = -(-chunk // 32) * 32  # so that loads of 16 bytes begin where the parts do
    return max(1, -(-t.k // chunk)), chunk


# working memory -----------------------------------------------------------------------------------

Shapes = list[tuple[tuple[int, ...], Any]]


def _parts(t: Task, y: Any, tile: tuple[int, int] | None = None) -> Shapes:
    """y of every part of k."""
    splits, _ = split(t, tile)
    return [((splits, t.matrices, t.m, t.n), y.dtype)] if splits > 1 else []


def _work_tensor(t: Task, y: Any) -> Shapes:
    """The same, and the largest elements for float16."""
    if not _has_tensor_cores(driver_of(y)[0], y):
        return _parts(t, y)
    parts = _parts(t, y, (TENSOR_TILE, TENSOR_TILE))
    return parts + ([((2,), np.dtype(np.uint32))] if t.precision == "float16" else [])


_WORK: dict[str, Callable[[Task, Any], Shapes]] = {
    "registers": _parts, "tensor": _work_tensor, "wgmma": _work_tensor, "library": _parts,
}  # fmt: skip


def working(rung: str, t: Task, y: Any) -> Shapes:
    """The shapes of the working memory; `y` or another operand as in `choose`."""
    return _WORK[rung](t, y) if rung in _WORK else []


# the launches -------------------------------------------------------------------------------------


def run(
    rung: str, t: Task, y: Any, a: Any, b: Any, bias: Any = None, *,
    activation: str | None = None, starts: Any = None, work: Any = (),
) -> None:  # fmt: skip
    """y = act(bias + a b).  starts: a walk to where a and b of each matrix begin."""
    splits, chunk = 1, max(1, t.k)
    of_a = (1, t.m) if t.ta else (t.k, 1)
    of_b = (1, t.k) if t.tb else (t.n, 1)
    p = _Product(
        t.m, t.n, t.k, t.matrices, *of_a, *of_b, splits, chunk,
        walk(()) if starts is None else starts, ACTIVATIONS.index(activation),
    )  # fmt: skip
    RUNGS[rung](t, p, y, a, b, bias, work)


def _blocks(t: Task) -> int:
    return blocks_of(t.matrices * t.m * t.n)


def _run_naive(t: Task, p: Any, y: Any, a: Any, b: Any, bias: Any, work: Any) -> None:
    _naive.run("product_naive", _blocks(t), BLOCK, y, a, b, bias, p, T=y.dtype)


def _run_tiled(t: Task, p: Any, y: Any, a: Any, b: Any, bias: Any, work: Any) -> None:
    tiles = t.matrices * -(-t.m // 16) * -(-t.n // 16)
    grid = min(tiles, MOST_BLOCKS)
    _tiled.run("product_tiled", grid, (16, 16), y, a, b, bias, p, T=y.dtype)


def _in_parts(
    t: Task, p: Any, y: Any, bias: Any, work: Any, tile: tuple[int, int],
    launch: Callable[[int, Any, Any], None],
) -> None:  # fmt: skip
    """`launch(grid, y, bias)`, k in one piece; or into parts, which a second launch adds."""
    p.splits, p.chunk = split(t, tile)
    tiles = p.splits * t.matrices * -(-t.m // tile[0]) * -(-t.n // tile[1])
    grid = min(tiles, MOST_BLOCKS)
    if p.splits == 1:
        launch(grid, y, bias)
        return
    activation, p.activation = p.activation, 0
    launch(grid, work[0], None)
    p.activation = activation
    _naive.run("product_join", _blocks(t), BLOCK, y, work[0], bias, p, T=y.dtype)


def _run_registers(t: Task, p: Any, y: Any, a: Any, b: Any, bias: Any, work: Any) -> None:
    tile = _tile(t)
    name = f"product_{tile[1]}_{_turned(t)}"

    def launch(grid: int, to: Any, with_bias: Any) -> None:
        _registers.run(name, grid, 2 * tile[1], to, a, b, with_bias, p, T=y.dtype)

    _in_parts(t, p, y, bias, work, tile, launch)


def _run_tensor(t: Task, p: Any, y: Any, a: Any, b: Any, bias: Any, work: Any) -> None:
    if not _has_tensor_cores(driver_of(y)[0], y):
        return _run_registers(t, p, y, a, b, bias, work)
    return _run_rounded(_tensor, TENSOR_SHARED, t, p, y, a, b, bias, work)


def _run_wgmma(t: Task, p: Any, y: Any, a: Any, b: Any, bias: Any, work: Any) -> None:
    if not _has_warpgroups(t, y):
        return _run_tensor(t, p, y, a, b, bias, work)
    return _run_rounded(_wgmma, WARPGROUP_SHARED, t, p, y, a, b, bias, work)


def _run_rounded(
    kernels: Kernels, shared: int, t: Task, p: Any, y: Any, a: Any, b: Any, bias: Any, work: Any
) -> None:
    """On tensor cores, either kind: tiles of 128 x 128, and for float16 the largest elements."""
    precision, largest = PRECISIONS[t.precision], None
    types: dict[str, Any] = dict(T=FLOAT32, PRECISION=precision)
    if t.precision == "float16":
        largest = work[-1]
        fill_(largest, value=0)
        for i, x in enumerate((a, b)):
            place = largest[i : i + 1]
            _tensor.run("product_largest", blocks_of(x.size), BLOCK, place, x, x.size, **types)

    def launch(grid: int, to: Any, with_bias: Any) -> None:
        kernels.run(
            f"product_{_turned(t)}", grid, 256, to, a, b, with_bias, largest, p,
            shared=shared, **types,
        )  # fmt: skip

    _in_parts(t, p, y, bias, work, (TENSOR_TILE, TENSOR_TILE), launch)


def _run_library(t: Task, p: Any, y: Any, a: Any, b: Any, bias: Any, work: Any) -> None:
    driver, address = driver_of(y)
    blas = driver.blas
    if blas is None:
        raise DeviceError("algorithm 'library' needs cuBLAS, which is not there")
    if p.walk.axes > 1 or not t.k:  # batches that do not lie evenly; cuBLAS wants a k
        return _run_registers(t, p, y, a, b, bias, work)
    precision = "float32" if t.precision == "float16" else t.precision  # cuBLAS scales no factors
    steps = [p.walk.step[i][0] if p.walk.axes else 0 for i in range(2)]
    library(
        "cublasGemm", blas.product, address(y), address(a), address(b), t.m, t.n, t.k, t.ta, t.tb,
        t.matrices, *steps, y.dtype.name, precision, keep=(y, a, b),
    )  # fmt: skip
    if bias is not None or p.activation:
        p.splits = 1
        _naive.run("product_join", _blocks(t), BLOCK, y, y, bias, p, T=y.dtype)
    return None


def _turned(t: Task) -> str:
    return f"{'nt'[t.ta]}{'nt'[t.tb]}"


RUNGS: dict[str, Callable[..., None]] = {
    "naive": _run_naive, "tiled": _run_tiled, "registers": _run_registers, "tensor": _run_tensor,
    "wgmma": _run_wgmma, "library": _run_library,
}  # fmt: skip
