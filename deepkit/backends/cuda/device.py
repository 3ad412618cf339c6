"""The driver of a GPU: CuPy holds memory, streams and graphs; kernels are compiled by NVRTC.

Everything runs on one stream, in order, so that memory which is freed may be used again at once.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import importlib
import importlib.util
import os
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

from .. import DeviceError
from . import blas, nvrtc
from .cache import file, load, store
from .launch import Call
from .sources import placeholders, source

DEFAULT_SHARED = 48 * 1024  # bytes of dynamic shared memory that a kernel may have unasked
REMEMBERED = 8  # kernels that a message names, where the one at fault is not known
OLDEST_DRIVER = 12000  # CUDA 12.0


# errors after which the context, and with it this device, answers nothing more
_FATAL = re.compile(
    "ILLEGAL_ADDRESS|IllegalAddress|ILLEGAL_INSTRUCTION|IllegalInstruction|LAUNCH_FAILED|LaunchFailure"
    "|LAUNCH_TIMEOUT|LaunchTimeout|MISALIGNED_ADDRESS|MisalignedAddress|ASSERT|Assert|INVALID_PC"
    "|InvalidPc|INVALID_ADDRESS_SPACE|InvalidAddressSpace|HARDWARE_STACK_ERROR|HardwareStackError"
)


class Gpu:
    """Compiles, loads and launches kernels on one GPU."""

    def __init__(self, cupy: Any, number: int) -> None:
        self.cupy, self.number = cupy, number
        self.driver = cupy.cuda.driver
        self._thread = threading.local()
        self.lock = threading.RLock()  # one thread at a time launches, copies or captures
        self._modules: dict[Any, Any] = {}
        self._shared: dict[int, int] = {}  # function -> bytes of shared memory it may have
        self.seconds = 0.0  # of compiling and loading
        self.broken = ""  # why nothing can run here any more
        self.started: collections.deque[str] = collections.deque(maxlen=REMEMBERED)
        self.patient = os.environ.get("DEEPKIT_CUDA_SYNC", "0") not in ("", "0")
        self.errors = (self.driver.CUDADriverError, cupy.cuda.runtime.CUDARuntimeError)
        with self.at_work("the stream"):
            device = cupy.cuda.Device(number)
            self.capability = int(device.compute_capability)
            self.stream = cupy.cuda.Stream(non_blocking=True)
        self.target = nvrtc.target(self.capability)
        self.compiler = f"nvrtc {nvrtc.version()}"

    @functools.cached_property
    def blas(self) -> Any:
        """cuBLAS on this GPU and its stream, or None where it is not installed."""
        return blas.Blas(self) if blas.available() else None

    # kernels ----------------------------------------------------------------------------------
    def function(self, stem: str, name: str, types: tuple[tuple[str, str], ...]) -> int:
        with self.at_work(name):
            module = self._modules.get((stem, types))
            if module is None:
                module = self._modules[stem, types] = self._load(stem, types)
            return self.driver.moduleGetFunction(module, f"deepkit_{name}")

    def _load(self, stem: str, types: tuple[tuple[str, str], ...]) -> int:
        start = time.perf_counter()
        text = placeholders(types) + source(stem).text
        label = "-".join([source(stem).stem, *[v.replace(" ", "_") for _, v in types]])
        path = file(self.target, label, ".cubin", text, self.compiler)
        image = load(path)
        if image is None:
            image = nvrtc.compile_file(stem, types, self.target).image
            store(path, image)
        module = self.driver.moduleLoadData(image)
        self.seconds += time.perf_counter() - start
        return module

    def start(self, call: Call) -> None:
        with self.lock:
            self._start(call)

    def _start(self, call: Call) -> None:
        self.enter()
        self.started.append(call.name)
        if callable(call.function):  # of a library: it launches by itself
            call.function(*call.arguments)
            return
        try:
            if call.shared > DEFAULT_SHARED and self._shared.get(call.function, 0) < call.shared:
                attribute = self.driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                self.driver.funcSetAttribute(call.function, attribute, call.shared)
                self._shared[call.function] = call.shared
            self.driver.launchKernel(
                call.function, *call.grid, *call.block, call.shared, self.stream.ptr,
                ctypes.addressof(call.arguments), 0,
            )  # fmt: skip
            if self.patient and not self.stream.is_capturing():
                self.stream.synchronize()
        except self.errors as error:
            raise self.error(call.name, error) from None

    # what surrounds a call to the driver ------------------------------------------------------
    def enter(self) -> None:
        """This GPU is the current one of the calling thread from here on."""
        if self.broken:
            raise DeviceError(self.broken)
        runtime = self.cupy.cuda.runtime
        if not getattr(self._thread, "ready", False):
            runtime.setDevice(self.number)
            runtime.free(0)  # makes the context, which the driver's own functions need
            self._thread.ready = True
        elif runtime.getDevice() != self.number:
            runtime.setDevice(self.number)

    @contextlib.contextmanager
    def at_work(self, about: str) -> Iterator[None]:
        """What is done in here is done on this GPU, and its errors are sentences."""
        with self.lock:
            self.enter()
            try:
                yield
            except self.errors as error:
                raise self.error(about, error) from None

    def error(self, about: str, error: Exception) -> DeviceError:
        """An error of the driver, told; one that ends the context ends this device."""
        return DeviceError(self._sentence(about, str(error)))

    def _sentence(self, about: str, error: str) -> str:
        fatal = _FATAL.search(error) is not None
        if not fatal:
            return f"device '{self.name}': {about}: {error}"
        at_fault = about if self.patient else f"one of {', '.join(self.started)}"
        hint = "" if self.patient else "; DEEPKIT_CUDA_SYNC=1 waits for each kernel and names it"
        self.broken = (
            f"device '{self.name}': a kernel did what it must not: {at_fault}; no "
            f"more can run there in this process{hint}   ({error})"
        )
        return self.broken

    @property
    def name(self) -> str:
        return f"cuda:{self.number}" if self.number else "cuda"


# is there one? ------------------------------------------------------------------------------------


def gpu(number: int) -> Gpu:
    """GPU `number`, ready.  Errors: DeviceError, one sentence with the remedy."""
    name = f"cuda:{number}" if number else "cuda"
    if importlib.util.find_spec("cupy") is None:
        raise DeviceError(
            f"device '{name}' needs CuPy: pip install cupy-cuda13x, or cupy-cuda12x for a driver "
            "of CUDA 12"
        )
    try:
        cupy = importlib.import_module("cupy")
    except Exception as error:
        raise DeviceError(f"device '{name}': CuPy cannot be imported here: {error}") from None
    runtime = cupy.cuda.runtime
    try:
        version = runtime.driverGetVersion()
        count = runtime.getDeviceCount() if version else 0
    except runtime.CUDARuntimeError as error:
        version, count = _driver_version(runtime), 0
        if version:
            raise DeviceError(_why(name, str(error), version, runtime)) from None
    if not version:
        raise DeviceError(f"device '{name}' needs an NVIDIA GPU and its driver; none was found")
    if version < OLDEST_DRIVER:
        raise DeviceError(_why(name, "the driver is too old", version, runtime))
    if number >= count:
        have = "there is none" if not count else f"there are {count}, numbered from 0"
        raise DeviceError(f"device '{name}' does not exist: of GPUs, {have}")
    try:
        return Gpu(cupy, number)
    except (runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError) as error:
        raise DeviceError(f"device '{name}' does not answer: {error}") from None
    except DeviceError as error:
        raise DeviceError(f"device '{name}': {error}") from None


def _driver_version(runtime: Any) -> int:
    try:
        return runtime.driverGetVersion()
    except runtime.CUDARuntimeError:
        return 0


def _why(name: str, error: str, version: int, runtime: Any) -> str:
    wanted = runtime.runtimeGetVersion()
    if version < wanted or version < OLDEST_DRIVER:
        return (
            f"device '{name}': the driver is for CUDA {_dotted(version)}, but CuPy here is for "
            f"{_dotted(wanted)}: install a newer driver, or cupy-cuda{version // 1000}x   ({error})"
        )
    return f"device '{name}' does not work: {error}"


def _dotted(version: int) -> str:
    """12040 -> "12.4"."""
    return f"{version // 1000}.{version % 1000 // 10}"
