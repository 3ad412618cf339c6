"""How a kernel is compiled, called and replayed.

A kernel is a module-level function whose first two parameters are `t` and `n`: which of n threads
runs it, so that each takes its share.  The others are annotated

    `real`-typed data   ptr: pointer to the element type (float32 or float64) of the launch
    other data          i64ptr, i32ptr, u8ptr
    numbers             size (int64); flt (a float64, which travels as the bits of an int64 and is
                        read with simd.real)

It is compiled once per element type to a C function that takes 64-bit integers, and cached on
disk.  A replay is then a flat list of launches that threads walk without Python (threads.py).
The caller passes more arguments than a function takes; the C calling conventions of x86-64 and
AArch64 allow that, since the caller cleans up.
"""

from __future__ import annotations

import ctypes
import math
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba.core import types

from . import cache, threads
from .threads import MOST_ARGUMENTS

GRAIN = 8192  # numbers that each of two threads should have to read, write or multiply

REALS = {"f4": types.float32, "f8": types.float64}
_NAMES = {"f": "f4", "d": "f8"}  # of floats; asking a dtype takes time
FIXED = {
    "i64ptr": types.CPointer(types.int64),
    "i32ptr": types.CPointer(types.int32),
    "u8ptr": types.CPointer(types.uint8),
    "size": types.int64,
    "flt": types.int64,
}

ptr = i64ptr = i32ptr = u8ptr = size = flt = Any  # what kernels annotate their parameters with


class Kernel:
    """A kernel function, compiled for an element type when it is first launched with it."""

    def __init__(self, function: Callable) -> None:
        self.function, self.name = function, function.__name__
        names = function.__code__.co_varnames[2 : function.__code__.co_argcount]
        self.kinds = [function.__annotations__[name] for name in names]
        if not all(isinstance(kind, str) for kind in self.kinds):
            raise TypeError(
                f"{self.name}: annotations of kernels are read as words; begin the module with "
                "'from __future__ import annotations'"
            )
        self.pointers = [i for i, kind in enumerate(self.kinds) if kind.endswith("ptr")]
        self.floats = [i for i, kind in enumerate(self.kinds) if kind == "flt"]
        assert len(names) <= MOST_ARGUMENTS, f"{self.name} takes {len(names)} arguments"
        self.addresses: dict[str, int] = {}

    def address(self, real: str) -> int:
        """Of the C function for an element type, "f4" or "f8"; compiled if need be."""
        found = self.addresses.get(real)
        if found is None:
            options = {"error_model": "numpy", "fastmath": {"contract"}}
            found = cache.native(self.function, self.signature(real), **options)
            self.addresses[real] = found
        return found

    def signature(self, real: str) -> Any:
        kinds = [types.CPointer(REALS[real]) if k == "ptr" else FIXED[k] for k in self.kinds]
        return types.void(types.int64, types.int64, *kinds)


kernels: list[Kernel] = []  # all that there are


def kernel(function: Callable) -> Kernel:
    """Declare a kernel, see above."""
    made = Kernel(function)
    kernels.append(made)
    return made


class _Step:
    """A list of one launch, to be written and walked again and again."""

    def __init__(self) -> None:
        self.words: Any = np.zeros(threads.STEP_WORDS + MOST_ARGUMENTS, np.int64)
        self.address = self.words.ctypes.data
        self.block = self.address + 8 * threads.STEP_WORDS  # the arguments lie behind


class Recorded(NamedTuple):
    """A launch that was written down: the C function, its arguments, which of them are pointers,
    and how many threads it is for."""

    target: int
    words: list[int]
    pointers: list[int]
    wanted: int


class _State(threading.local):
    def __init__(self) -> None:
        self.recording: list[Recorded] | None = None
        self.spare: list[_Step] = []  # one, or more where signal handlers launch in between


_state = _State()


_byte_of: Any = ctypes.c_char.from_buffer
_address = ctypes.addressof
_PACKED = [struct.Struct(f"{threads.STEP_WORDS + k}q") for k in range(MOST_ARGUMENTS + 1)]


def address_of(array: np.ndarray) -> int:
    """Where the elements of a contiguous array are; several times faster than asking NumPy."""
    try:
        return ctypes.addressof(_byte_of(array))
    except (TypeError, ValueError):  # it is read-only, or empty
        return array.__array_interface__["data"][0]


_DOUBLE, _WORD = struct.Struct("<d"), struct.Struct("<q")


def bits(value: float) -> int:
    """A float64 as the integer that carries it to a kernel."""
    return _WORD.unpack(_DOUBLE.pack(value))[0]


def launch(
    kernel: Kernel, dtype: np.dtype, *args: Any, work: int | None = None, most: int | None = None
) -> None:
    """Run a kernel: arrays and `Lanes` are passed by address, None as 0.

    `work` is about how many numbers are read, written or multiplied, by default the elements of
    all arrays: it decides how many threads are worth their meeting, which takes longer the more
    there are, so that their number goes with the root of the work.  `most` is how many there may
    be, where the kernel's scratch has a part for each: a program that is bound to more threads
    than it was captured with keeps its scratch.  While a program is bound, the launch is only
    written down.
    """
    words, elements = list(args), 0
    for i in kernel.pointers:
        a = words[i]
        if a.__class__ is np.ndarray:
            words[i] = address_of(a)
            elements += a.size
        elif a is None:
            words[i] = 0
        else:
            words[i] = a.address
            elements += a.lanes * a.inner
    for i in kernel.floats:
        if words[i].__class__ is float:  # a kernel of integers gets one
            words[i] = bits(words[i])
    real = _NAMES.get(dtype.char) or (dtype.str[1:] if dtype.kind == "f" else "f4")
    target = kernel.addresses.get(real) or kernel.address(real)
    halves = 2 * (elements if work is None else work) // GRAIN
    wanted = 1 if halves < 4 else min(threads.count(), math.isqrt(halves))
    if most is not None:
        wanted = min(wanted, most)
    if _state.recording is not None:
        _state.recording.append(Recorded(target, words, kernel.pointers, wanted))
        return
    step = _state.spare.pop() if _state.spare else _Step()
    _PACKED[len(words)].pack_into(step.words, 0, target, step.block, wanted, 0, *words)
    threads.run(step.address, 1, wanted)
    _state.spare.append(step)


def bind(steps: Sequence[tuple[Callable, tuple, dict[str, Any]]]) -> Callable[[], None]:
    """Write down the launches of every step once; the function returned runs them all."""
    written = Written(steps)

    def replay() -> None:
        if written.threads != threads.count():
            written.write()
        threads.run(written.address, len(written.table), written.widest)

    replay.written = written  # type: ignore[attr-defined]
    return replay


def recorded(steps: Sequence[tuple[Callable, tuple, dict[str, Any]]]) -> list[Recorded]:
    """The launches of some steps, none of which runs, for the number of threads that there is."""
    recording: list[Recorded] = []
    _state.recording = recording
    try:
        for function, arrays, params in steps:
            function(*arrays, **params)
    finally:
        _state.recording = None
    return recording


class Table:
    """Launches as a table that `threads.run` walks, and what it points to."""

    def __init__(self, recording: Sequence[Recorded]) -> None:
        self.blocks = np.zeros((len(recording), MOST_ARGUMENTS), np.int64)
        self.table = np.zeros((len(recording), threads.STEP_WORDS), np.int64)
        wide = [r.wanted > 1 for r in recording] + [False]
        for i, (target, words, _, wanted) in enumerate(recording):
            self.blocks[i, : len(words)] = words
            meet = wide[i] or wide[i + 1]
            self.table[i] = target, self.blocks[i].ctypes.data, wanted, meet
        self.address = self.table.ctypes.data  # asking takes time
        self.widest = max((r.wanted for r in recording), default=1)
        self.words = self.blocks.reshape(-1).data  # which are written faster this way


class Written(Table):
    """The launches of some steps."""

    def __init__(self, steps: Sequence[tuple[Callable, tuple, dict[str, Any]]]) -> None:
        self.steps = list(steps)
        self.write()

    def write(self) -> None:
        """For the number of threads that there are now."""
        super().__init__(recorded(self.steps))
        self.threads = threads.count()


class Again:
    """A kernel on arrays of certain shapes, types and layouts, without its Python: what it launches
    for some of them, in which addresses alone are written anew for others.

    It is recorded with arrays of its own (`twins`), so that no two addresses are alike.
    """

    def __init__(
        self, kernel: Callable, twins: list[Any], spec: Any, params: dict[str, Any], room: Any
    ) -> None:
        self.spec, self.room, self.threads = spec or [], room, threads.count()
        scratch = [room(*s) for s in self.spec]
        given = params if spec is None else dict(params, scratch=scratch)
        self.recording = recorded([(kernel, tuple(twins), given)])
        spans = [(i, *_span(a)) for i, a in enumerate([*twins, *scratch]) if a is not None]
        self.places = []  # (which word, of which array, how many bytes on)
        for k, step in enumerate(self.recording):
            for at in step.pointers:
                word = step.words[at]
                if word:  # not one that is absent
                    i, start = _owner(spans, word)
                    self.places.append((k * MOST_ARGUMENTS + at, i, word - start))
        self.spare = [Table(self.recording)]

    def __call__(self, arrays: list[Any]) -> bool:
        """Whether it ran: it does not if the number of threads has changed."""
        if self.threads != threads.count():
            return False
        if self.spec:
            arrays = [*arrays, *[self.room(*s) for s in self.spec]]
        try:
            table = self.spare.pop()
        except IndexError:  # others are in here too
            table = Table(self.recording)
        words, found = table.words, []
        for a in arrays:
            if a.__class__ is np.ndarray:
                try:
                    found.append(_address(_byte_of(a)))
                except (TypeError, ValueError):
                    found.append(address_of(a))
            else:
                found.append(0 if a is None else a.address)
        for at, i, offset in self.places:
            words[at] = found[i] + offset
        threads.run(table.address, len(self.recording), table.widest)
        self.spare.append(table)
        return True


def _owner(spans: list[tuple[int, int, int]], word: int) -> tuple[int, int]:
    """The number of the array into which an address points, and where that begins."""
    for i, low, high in spans:
        if low <= word < high:
            return i, low
    raise LookupError("a kernel reads memory that is no operand's")


def _span(array: Any) -> tuple[int, int]:
    memory = array if array.__class__ is np.ndarray else array.memory
    start = address_of(memory)
    return start, start + max(memory.nbytes, 1)
