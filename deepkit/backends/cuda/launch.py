"""How a kernel is found, compiled, called and recorded, the same on a GPU and on the simulator.

    elementwise = Kernels("elementwise")                       # kernels/elementwise.cu
    elementwise.run("relu", 40, 256, y, x, n, T=y.dtype)       # 40 blocks of 256 threads

A call's arguments are checked against the kernel's parameters, which stand in its source: arrays of
the right dtype for pointers, numbers for numbers, a `ctypes.Structure` for a struct, None for a
pointer that is absent.  They are packed into one piece of memory, each in a slot of its own, which
is what cuLaunchKernel and the simulator take.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from .sources import TYPES, Parameter, source
from .structures import STRUCTURES

Size = int | tuple[int, ...]

_FORMATS = {  # C type -> what packs it
    "bool": "?", "signed char": "b", "unsigned char": "B", "short": "h", "unsigned short": "H",
    "int": "i", "unsigned": "I", "i64": "q", "u64": "Q", "float": "f", "double": "d",
}  # fmt: skip
_DTYPES = {text: np.dtype(name) for name, text in TYPES.items()}
_WHOLE = frozenset("?bBhHiIqQ")


class Driver(Protocol):
    """What runs kernels: a GPU (`device.py`) or the simulator (`sim.py`)."""

    capability: int  # compute capability: 90 is 9.0

    @property
    def blas(self) -> Any:
        """cuBLAS there, or None."""

    def function(self, stem: str, name: str, types: tuple[tuple[str, str], ...]) -> Any:
        """A kernel of kernels/<stem>.cu, compiled where these names stand for these C types."""

    def start(self, call: Call) -> None:
        """Launch it, without waiting for it."""


class Call(NamedTuple):
    """One launch, ready to start."""

    name: str
    function: Any
    grid: Any  # 3 unsigned
    block: Any
    shared: int  # bytes of dynamic shared memory
    arguments: Any  # addresses of the packed arguments
    alive: Any  # what these point to


class Function:
    """A compiled kernel and how its arguments are packed."""

    def __init__(self, stem: str, name: str, types: dict[str, str], handle: Any) -> None:
        signature = source(stem).kernels[name]
        self.name, self.handle, self.most_threads = name, handle, signature.most_threads
        self.parameters = signature.parameters
        self.types = [types.get(p.type, p.type) for p in self.parameters]
        self.dtypes = [
            _DTYPES.get(t) if p.pointer else None
            for t, p in zip(self.types, self.parameters, strict=True)
        ]
        parts, self.offsets, at = [], [], 0
        for p, text in zip(self.parameters, self.types, strict=True):
            made = STRUCTURES.get(text)
            size = ctypes.sizeof(made) if made and not p.pointer else 8
            room = -(-size // 16) * 16
            code = "Q" if p.pointer else f"{size}s" if made else _FORMATS[text]
            parts.append(f"{code}{room - struct.calcsize('=' + code)}x")
            self.offsets.append(at)
            at += room
        self.packed = struct.Struct("=" + "".join(parts))
        self.table = ctypes.c_void_p * len(self.offsets)
        self.whole = [not p.pointer and _FORMATS.get(t, "") in _WHOLE
                      for p, t in zip(self.parameters, self.types, strict=True)]  # fmt: skip

    def pack(self, arguments: Sequence[Any], address: Callable[[Any], int]) -> tuple[Any, Any]:
        """-> (addresses of the arguments, the memory that holds them)."""
        if len(arguments) != len(self.parameters):
            names = ", ".join(p.name for p in self.parameters)
            raise TypeError(f"{self.name} takes ({names}), not {len(arguments)} arguments")
        words = [self._word(i, value, address) for i, value in enumerate(arguments)]
        memory = ctypes.create_string_buffer(self.packed.pack(*words), self.packed.size)
        start = ctypes.addressof(memory)
        return self.table(*[start + offset for offset in self.offsets]), memory

    def _word(self, i: int, value: Any, address: Callable[[Any], int]) -> Any:
        if self.parameters[i].pointer:
            if value is None:
                return 0
            dtype = self.dtypes[i]
            if dtype is not None and value.dtype != dtype:
                raise self._mismatch(i, f"an array of {value.dtype}")
            return address(value)
        if isinstance(value, ctypes.Structure):
            if type(value).__name__ != self.types[i]:
                raise self._mismatch(i, type(value).__name__)
            return bytes(value)
        if self.whole[i]:
            return int(value)
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
            return float(np.float32(value)) if self.types[i] == "float" else value

    def _mismatch(self, i: int, found: str) -> TypeError:
        p: Parameter = self.parameters[i]
        wanted = f"{self.types[i]}{'*' if p.pointer else ''}"
        return TypeError(f"{self.name}: {p.name} is {wanted}, not {found}")


class _State(threading.local):
    recording: list[Any] | None = None


_state = _State()
_drivers: list[tuple[Callable[[Any], bool], Driver, Callable[[Any], int]]] = []


def serve(driver: Driver, owns: Callable[[Any], bool], address: Callable[[Any], int]) -> None:
    """Arrays for which `owns` holds are launched on `driver`; `address` says where they lie."""
    _drivers.append((owns, driver, address))


def driver_of(array: Any) -> tuple[Driver, Callable[[Any], int]]:
    for owns, driver, address in _drivers:
        if owns(array):
            return driver, address
    raise TypeError(f"no device of kernels holds a {type(array).__name__}")


class Kernels:
    """The kernels of one file."""

    def __init__(self, stem: str) -> None:
        self.stem = stem
        self._functions: dict[Any, Function] = {}

    def run(
        self, name: str, grid: Size, block: Size, *arguments: Any, shared: int = 0, **types: Any
    ) -> None:
        """Launch a kernel, or write it down while a program is bound.  An empty grid is nothing.

        types: what T and other placeholders of the file stand for: dtypes, C types, numbers
        """
        if isinstance(grid, int) and grid == 0:
            return
        driver, address = driver_of(next(a for a in arguments if hasattr(a, "dtype")))
        key = (driver, name, *types.items())
        function = self._functions.get(key)
        if function is None:
            if name not in source(self.stem).kernels:
                raise KeyError(f"{source(self.stem).stem}.cu has no kernel '{name}'")
            named = {k: _text(v) for k, v in types.items()}
            handle = driver.function(self.stem, name, tuple(named.items()))
            function = self._functions[key] = Function(self.stem, name, named, handle)
        table, memory = function.pack(arguments, address)
        call = Call(
            name, function.handle, _three(grid), _three(block), shared, table, (memory, arguments)
        )
        threads = call.block[0] * call.block[1] * call.block[2]
        if threads > function.most_threads:
            raise ValueError(f"{name}: {threads} threads a block, at most {function.most_threads}")
        if _state.recording is None:
            driver.start(call)
        else:
            _state.recording.append(call)


def _text(value: Any) -> str:
    """What a placeholder stands for, in C: a dtype, a number, or C itself."""
    return str(value) if isinstance(value, str | int) else TYPES[np.dtype(value).name]


def library(name: str, function: Callable[..., None], *arguments: Any, keep: Any) -> None:
    """Call a library that launches on the stream by itself; written down like a launch.

    keep: what the arguments point to, arrays among it, on whose device this is
    """
    driver, _ = driver_of(keep[0])
    call = Call(name, function, None, None, 0, arguments, keep)
    if _state.recording is None:
        driver.start(call)
    else:
        _state.recording.append(call)


_three_type = ctypes.c_uint * 3


def _three(size: Size) -> Any:
    numbers = (size,) if isinstance(size, int) else size
    return _three_type(*numbers, *(1,) * (3 - len(numbers)))


def recording() -> bool:
    """Whether launches of this thread are written down and not started."""
    return _state.recording is not None


def record(steps: Sequence[tuple[Callable, tuple, dict[str, Any]]]) -> list[Any]:
    """The launches of some steps, written down and not started."""
    recording: list[Any] = []
    before, _state.recording = _state.recording, recording
    try:
        for kernel, arrays, params in steps:
            kernel(*arrays, **params)
    finally:
        _state.recording = before
    return recording
