"""How a kernel is compiled, called and replayed.

A kernel is a module-level function whose first two parameters are `t` and `n`: which of n threads
runs it, so that each takes its share.  The others are annotated

    `real`-typed data   ptr: pointer to the element type (float32 or float64) of the launch
    other data          i64ptr, i32ptr, u8ptr
    numbers             size (int64); flt (a float64, which travels as the bits of an int64 and is
                        read with simd.real)

It is compiled once per element type to a C function that takes 64-bit integers, and cached on
disk.  A replay is then a flat list of (function, argument block) that `walk` runs without Python.
The caller passes more arguments than a function takes; the C calling conventions of x86-64 and
AArch64 allow that, since the caller cleans up.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import pickle
import shutil
import struct
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba.core import config, types
from numba.extending import intrinsic

from .machine import VECTOR_BYTES

MOST_ARGUMENTS = 32

REALS = {"f4": types.float32, "f8": types.float64}
FIXED = {
    "i64ptr": types.CPointer(types.int64),
    "i32ptr": types.CPointer(types.int32),
    "u8ptr": types.CPointer(types.uint8),
    "size": types.int64,
    "flt": types.int64,
}

ptr = i64ptr = i32ptr = u8ptr = size = flt = Any  # what kernels annotate their parameters with


def _cache_folder() -> str:
    """One folder for each state of the sources, Numba version and processor."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    digest.update(importlib.metadata.version("numba").encode())
    digest.update(f"{binding.get_host_cpu_name()} {VECTOR_BYTES}".encode())
    for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"):
        digest.update(os.environ.get(name, "").encode())
    base = os.environ.get("DEEPKIT_CACHE")
    if base is None:
        base = os.path.join(
            os.environ.get("XDG_CACHE_HOME", os.path.join(os.path.expanduser("~"), ".cache")),
            "deepkit",
        )
    return os.path.join(base, "numba", digest.hexdigest()[:16])


CACHE_FOLDER = _cache_folder()


DAMAGED = (pickle.UnpicklingError, EOFError, AttributeError, IndexError, ValueError)


def cached(decorate: Callable, function: Callable) -> Any:
    """`decorate(function)` with Numba's cache in our folder, and nobody else's setting changed.

    A cache that cannot be read (cut off, overwritten) is thrown away, and everything compiled anew.
    """
    before = config.CACHE_DIR
    config.CACHE_DIR = CACHE_FOLDER
    try:
        return decorate(function)
    except DAMAGED:
        shutil.rmtree(CACHE_FOLDER, ignore_errors=True)
        return decorate(function)
    finally:
        config.CACHE_DIR = before


class Kernel:
    """A kernel function, compiled for an element type when it is first launched with it."""

    preparing = 0.0  # seconds in all that kernels took to be compiled, or read from the cache

    def __init__(self, function: Callable) -> None:
        self.function, self.name = function, function.__name__
        names = function.__code__.co_varnames[2 : function.__code__.co_argcount]
        self.kinds = [function.__annotations__[name] for name in names]
        self.floats = [i for i, kind in enumerate(self.kinds) if kind == "flt"]
        assert len(names) <= MOST_ARGUMENTS, f"{self.name} takes {len(names)} arguments"
        self.compiled: dict[str, Any] = {}

    def address(self, real: str) -> int:
        made = self.compiled.get(real)
        if made is None:
            kinds = [
                types.CPointer(REALS[real]) if kind == "ptr" else FIXED[kind] for kind in self.kinds
            ]
            signature = types.void(types.int64, types.int64, *kinds)
            options = {"cache": True, "error_model": "numpy", "fastmath": {"contract"}}
            start = time.perf_counter()
            made = cached(numba.cfunc(signature, **options), self.function)
            Kernel.preparing += time.perf_counter() - start
            self.compiled[real] = made
        return made.address


def kernel(function: Callable) -> Kernel:
    """Declare a kernel, see above."""
    return Kernel(function)


@intrinsic
def _word(typing: Any, address: Any, index: Any) -> Any:
    """The 64-bit integer at `address`, `index` words further."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        base = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.load(builder.gep(base, [args[1]]))

    return types.int64(types.int64, types.int64), generate


@intrinsic
def _call(typing: Any, function: Any, block: Any, t: Any, n: Any) -> Any:
    """function(t, n, *block)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        base = builder.inttoptr(args[1], word.as_pointer())
        values = [
            builder.load(builder.gep(base, [ir.Constant(word, i)])) for i in range(MOST_ARGUMENTS)
        ]
        kind = ir.FunctionType(ir.VoidType(), [word] * (2 + MOST_ARGUMENTS))
        target = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(target, [args[2], args[3], *values])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


def _walk(steps, count, t, n):
    for i in range(count):
        _call(_word(steps, 2 * i), _word(steps, 2 * i + 1), t, n)


walk = cached(numba.njit("void(int64, int64, int64, int64)", nogil=True, cache=True), _walk)


class _State(threading.local):
    def __init__(self) -> None:
        self.recording: list[tuple[int, list[int]]] | None = None
        self.block = np.zeros(MOST_ARGUMENTS, np.int64)
        self.step = np.array([0, self.block.ctypes.data], np.int64)
        self.address = self.step.ctypes.data


_state = _State()


def bits(value: float) -> int:
    """A float64 as the integer that carries it to a kernel."""
    return struct.unpack("<q", struct.pack("<d", value))[0]


def launch(kernel: Kernel, dtype: np.dtype, *args: Any) -> None:
    """Run a kernel: arrays and `Lanes` are passed by address, None as 0.

    While a program is bound, the launch is only written down.
    """
    words = [a if type(a) is int else bits(a) if type(a) is float else address(a) for a in args]
    target = kernel.address(dtype.str[1:] if dtype.kind == "f" else "f4")
    if _state.recording is not None:
        _state.recording.append((target, words))
        return
    _state.block[: len(words)] = words
    _state.step[0] = target
    walk(_state.address, 1, 0, 1)


def address(array: Any) -> int:
    """Where an array's memory begins; 0 for None."""
    if array is None:
        return 0
    if isinstance(array, np.ndarray):
        return array.__array_interface__["data"][0]
    return array.address


def bind(steps: Sequence[tuple[Callable, tuple, dict[str, Any]]]) -> Callable[[], None]:
    """Write down the launches of every step once; the function returned runs them all."""
    recording: list[tuple[int, list[int]]] = []
    _state.recording = recording
    kept = []
    try:
        for function, arrays, params in steps:
            kept.append((arrays, params))
            function(*arrays, **params)
    finally:
        _state.recording = None
    blocks = np.zeros((max(len(recording), 1), MOST_ARGUMENTS), np.int64)
    table = np.zeros((max(len(recording), 1), 2), np.int64)
    for i, (target, words) in enumerate(recording):
        blocks[i, : len(words)] = words
        table[i] = target, blocks[i].ctypes.data
    where, count = table.ctypes.data, len(recording)

    def replay() -> None:
        walk(where, count, 0, 1)

    replay.kept = (kept, blocks, table)  # type: ignore[attr-defined]
    return replay
