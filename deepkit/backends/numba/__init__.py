"""The fast backend for processors: Numba kernels, batches in SIMD lanes (see lanes.py)."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ... import backends as contract
from .. import ALIGNMENT, Backend, DeviceError, Kernel, table_of

ROOMS = (
    "elementwise",
    "gelu",
    "shape",
    "reduce",
    "linear",
    "conv",
    "conv_local",
    "pool",
    "softmax",
    "norm",
    "fold",
    "images",
    "dropout",
    "step",
)

SMALL = 1024  # elements: to align fewer takes longer than it saves


# Bytes more than an array needs.  Where sizes are multiples of a page, malloc puts the next array
# 64 bytes behind, but for whole pages: what is stored to one then looks like what is loaded from
# the other a moment later, and processors wait for it (4K aliasing).
APART = 256


class NumbaBackend(Backend):
    name = "numba"
    arranges = True

    def __init__(self, table: dict[str, Any], lanes: Any, launch: Any) -> None:
        super().__init__(table)
        self.lanes, self.launch = lanes, launch
        self._work: dict[int, Any] = {}

    # memory -----------------------------------------------------------------------------------
    def nbytes(self, shape: tuple[int, ...], dtype: np.dtype, layout: Any = None) -> int:
        count = math.prod(shape) if layout is None else self.lanes.elements(shape)
        return count * dtype.itemsize

    def view(self, memory: Any, shape: tuple[int, ...], dtype: np.dtype, layout: Any = None) -> Any:
        flat = memory[: self.nbytes(shape, dtype, layout)].view(dtype)
        return flat.reshape(shape) if layout is None else self.lanes.Lanes(flat, shape)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, layout: Any = None) -> Any:
        if layout is None and math.prod(shape) < SMALL:
            return np.empty(shape, dtype)
        stored = shape if layout is None else (self.lanes.elements(shape),)
        raw = np.empty(math.prod(stored) * dtype.itemsize + ALIGNMENT + APART, np.uint8)
        array = np.ndarray(stored, dtype, raw, -self.launch.address_of(raw) % ALIGNMENT)
        return array if layout is None else self.lanes.Lanes(array, shape)

    def upload(self, values: np.ndarray) -> Any:
        out = self.empty(values.shape, values.dtype)
        out[...] = values
        return out

    def download(self, array: Any) -> np.ndarray:
        return array.numpy() if isinstance(array, self.lanes.Lanes) else np.array(array)

    def copy(self, array: Any) -> Any:
        plain = not isinstance(array, self.lanes.Lanes)
        out = self.empty(array.shape, array.dtype, None if plain else self.lanes.LANES)
        self.copy_into(out, array)
        return out

    def copy_into(self, array: Any, source: Any) -> None:
        if isinstance(array, self.lanes.Lanes):
            array.memory[...] = source.memory
        else:
            array[...] = source

    def reshape(self, array: Any, shape: tuple[int, ...]) -> Any:
        if isinstance(array, self.lanes.Lanes):
            return self.lanes.Lanes(array.memory, shape)
        return array.reshape(shape)

    def scratch(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self.empty(shape, np.dtype(dtype))

    def arrange(
        self,
        op: Any,
        shapes: Sequence[tuple[int, ...] | None],
        layouts: Sequence[Any],
        out_shapes: Sequence[tuple[int, ...]],
        params: dict[str, Any],
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        return self.lanes.arrangement(op, shapes, layouts, out_shapes, params)

    def bind(self, steps: Sequence[tuple[Kernel, tuple, dict[str, Any]]]) -> Callable[[], None]:
        return self.launch.bind(steps)

    def again(self, kernel: Kernel, arrays: Sequence[Any], params: dict[str, Any]) -> Any:
        plain, lanes = np.ndarray, self.lanes.LANES
        twins = [
            a if a is None else self.empty(a.shape, a.dtype, None if type(a) is plain else lanes)
            for a in arrays
        ]
        needed = getattr(kernel, "scratch", None)
        spec = needed and [(s, np.dtype(d)) for s, d in needed(*twins, **params)]
        try:
            return self.launch.Again(kernel, twins, spec, params, self.empty)
        except LookupError:  # it reads memory that is no operand's
            return None

    def set_num_threads(self, count: int) -> None:
        self.launch.threads.set_count(count)

    @property
    def preparing(self) -> float:
        return self.launch.cache.seconds


def create(name: str) -> Backend:
    asked = contract.num_threads  # by dk.set_num_threads, before this backend was there
    if importlib.util.find_spec("numba") is None:
        raise DeviceError("device 'numba' needs Numba: pip install numba")
    try:
        import numba  # noqa: F401
    except ImportError as error:
        raise DeviceError(f"device 'numba': Numba cannot be imported here: {error}") from None
    lanes, launch, *rooms = (
        importlib.import_module(f"{__name__}.{room}") for room in ("lanes", "launch", *ROOMS)
    )
    table = table_of(rooms)
    table["arrange"] = lanes.arrange
    if asked is not None:
        launch.threads.set_count(asked)
    launch.threads.count()  # a DEEPKIT_NUM_THREADS that is no number is an error now
    return NumbaBackend(table, lanes, launch)
