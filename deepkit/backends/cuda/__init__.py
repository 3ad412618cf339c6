"""CUDA: kernels/*.cu under the same tape, layers and optimisers, on a GPU or on the simulator.

`"cuda"` and `"cuda:1"` are GPUs: CuPy holds the memory and the streams, NVRTC compiles.
`"cuda-sim"` runs the same host code and the same `.cu` files on the processor, with NumPy arrays
and sim.h in place of the driver: slow, and made to find mistakes.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import Backend, DeviceError, Kernel, OutOfMemory, table_of
from . import launch
from .sim import ORDERS
from .tuned import Tuner

ROOMS = (
    "images",
    "elementwise",
    "shape",
    "reduce",
    "linear",
    "conv",
    "conv_local",
    "pool",
    "softmax",
    "norm",
    "fold",
    "dropout",
    "step",
)


class SimulatedBackend(Backend):
    """Arrays are NumPy's, in C order; a launch has ended when it returns."""

    name = "cuda-sim"
    resident = True

    def __init__(self, table: dict[str, Any], driver: Any) -> None:
        super().__init__(table)
        self.driver = driver

    def bind(self, steps: Sequence[tuple[Kernel, tuple, dict[str, Any]]]) -> Callable[[], None]:
        """A list of recorded launches, where a GPU has a graph."""
        calls = launch.record(steps)

        def replay() -> None:
            for call in calls:
                self.driver.start(call)

        return replay

    def orders(self) -> Iterator[None]:
        before = self.driver.order
        try:
            for order in ORDERS:
                self.driver.order = order
                yield
        finally:
            self.driver.order = before

    @property
    def preparing(self) -> float:
        return self.driver.seconds


class CudaBackend(Backend):
    """Arrays are CuPy's, in C order; launches go to one stream, and nothing waits for them but
    `download`."""

    resident = True

    def __init__(self, table: dict[str, Any], driver: Any) -> None:
        self.driver, self.name, self.cupy = driver, driver.name, driver.cupy
        self.tuner = Tuner(driver, self.scratch)
        super().__init__(self.tuner.tuned(table))

    # memory -----------------------------------------------------------------------------------
    def _new(self, shape: tuple[int, ...], dtype: Any) -> Any:
        with self.driver.at_work("memory"):
            try:
                return self.cupy.empty(shape, dtype)
            except self.cupy.cuda.memory.OutOfMemoryError:
                asked = math.prod(shape) * np.dtype(dtype).itemsize
                free, total = self.cupy.cuda.runtime.memGetInfo()
        free += self.cupy.get_default_memory_pool().free_bytes()
        raise OutOfMemory(
            f"device '{self.name}' has no memory left: {asked:,} bytes were asked for, of "
            f"{total:,} there are {free:,} free"
        )

    def memory(self, nbytes: int) -> Any:
        return self._new((nbytes,), np.uint8)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, layout: Any = None) -> Any:
        return self._new(shape, dtype)

    def scratch(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._new(shape, np.dtype(dtype))

    def upload(self, values: np.ndarray) -> Any:
        out = self._new(values.shape, values.dtype)
        self.write(out, values)
        return out

    def write(self, array: Any, values: np.ndarray) -> None:
        values = np.broadcast_to(np.asarray(values, array.dtype), array.shape)
        with self.driver.at_work("a copy to the device"):
            array.set(np.asarray(values, order="C"), stream=self.driver.stream)

    def download(self, array: Any) -> np.ndarray:
        with self.driver.at_work("a copy from the device"):
            return array.get(stream=self.driver.stream)

    def copy(self, array: Any) -> Any:
        out = self._new(array.shape, array.dtype)
        self.copy_into(out, array)
        return out

    def copy_into(self, array: Any, source: Any) -> None:
        with self.driver.at_work("a copy on the device"):
            array.data.copy_from_device_async(source.data, array.nbytes, self.driver.stream)

    def overlap(self, a: Any, b: Any) -> bool:
        first, second = a.data.ptr, b.data.ptr
        return first < second + b.nbytes and second < first + a.nbytes

    # kernels ----------------------------------------------------------------------------------
    def bind(self, steps: Sequence[tuple[Kernel, tuple, dict[str, Any]]]) -> Callable[[], None]:
        """One CUDA graph of all launches."""
        calls, stream, driver = launch.record(steps), self.driver.stream, self.driver
        if not calls:
            return lambda: None
        with driver.at_work("the capture of a graph"), stream:
            stream.begin_capture()
            try:
                for call in calls:
                    driver.start(call)
            finally:
                graph = stream.end_capture()
        names = f"a graph of {len(calls)} launches"

        def replay() -> None:
            with driver.lock:
                driver.enter()
                driver.started.append(names)
                try:
                    graph.launch(stream)
                except driver.errors as error:
                    raise driver.error(names, error) from None

        replay.calls = calls  # type: ignore[attr-defined]  # whose arguments lie in their memory
        return replay

    @property
    def preparing(self) -> float:
        return self.driver.seconds


def _table() -> dict[str, Any]:
    return table_of([importlib.import_module(f"{__name__}.{room}") for room in ROOMS])


def create(name: str) -> Backend:
    """ "cuda-sim", "cuda", or "cuda:<number of the GPU>"."""
    if name == "cuda-sim":
        sim = importlib.import_module(f"{__name__}.sim")
        driver = sim.Simulator()
        launch.serve(driver, lambda a: isinstance(a, np.ndarray), _address)
        return SimulatedBackend(_table(), driver)
    number = name.removeprefix("cuda").removeprefix(":") or "0"
    if not number.isdecimal():
        raise DeviceError(f"device {name!r}: GPUs are 'cuda', 'cuda:0', 'cuda:1' and so on")
    gpu = importlib.import_module(f"{__name__}.device").gpu(int(number))
    array = gpu.cupy.ndarray
    launch.serve(
        gpu,
        lambda a: isinstance(a, array) and a.device.id == gpu.number,
        lambda a: a.data.ptr,
    )
    return CudaBackend(_table(), gpu)


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]
