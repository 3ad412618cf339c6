"""The driver without a GPU: kernels are compiled by the C++ compiler of the machine (sim.h)."""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from .. import DeviceError
from .cache import file, load, store
from .launch import Call
from .sources import placeholders, source

HEADERS = [Path(__file__).with_name(name) for name in ("sim.h", "sim_builtin.h")]
ORDERS = ("forward", "backward", "shuffled")  # of the threads of a block
MOST_SHARED = 227 * 1024  # bytes a block: what Hopper has
FLAGS = ("-std=c++17", "-O1", "-shared", "-fPIC", "-fno-strict-aliasing", "-ffp-contract=off", "-w")
# indices of arrays and the like, checked; a fault ends the process, so this is for a child
STRICT = (
    "-fsanitize=bounds,shift,alignment,integer-divide-by-zero,float-cast-overflow",
    "-fsanitize-undefined-trap-on-error",
)


class Simulator:
    """Builds, loads and runs kernels, one launch at a time."""

    capability = 90  # what it emulates
    blas = None  # it has no libraries

    def __init__(self, strict: bool = False) -> None:
        self.compiler = compiler()
        self.flags = FLAGS + (STRICT if strict else ())
        self._order = 0
        self.seconds = 0.0  # of compiling
        self._libraries: dict[Any, Any] = {}
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):  # a child has no thread that could give it back
            os.register_at_fork(after_in_child=self._forget_lock)

    def _forget_lock(self) -> None:
        self._lock = threading.Lock()

    @property
    def order(self) -> str:
        """In which the threads of a block run: one of ORDERS."""
        return ORDERS[self._order]

    @order.setter
    def order(self, name: str) -> None:
        if name not in ORDERS:
            raise ValueError(f"order: expected one of {', '.join(map(repr, ORDERS))}, not {name!r}")
        self._order = ORDERS.index(name)

    def function(self, stem: str, name: str, types: tuple[tuple[str, str], ...]) -> Any:
        with self._lock:
            library = self._libraries.get((stem, types))
            if library is None:
                library = self._libraries[stem, types] = self._load(stem, types)
        return getattr(library, f"deepkit_run_{name}"), library

    def used(self) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
        """The files that were compiled, and what their placeholders stand for."""
        return list(self._libraries)

    def start(self, call: Call) -> None:
        run, library = call.function
        if call.shared > MOST_SHARED:
            raise ValueError(f"{call.name}: {call.shared} bytes of shared memory a block")
        with self._lock:
            wrong = run(call.arguments, call.grid, call.block, call.shared, self._order)
            message = library.deepkit_message() if wrong else b""
        if wrong:
            raise RuntimeError(f"kernel {call.name}: {message.decode()}")

    def _load(self, stem: str, types: tuple[tuple[str, str], ...]) -> Any:
        start = time.perf_counter()
        label, names = source(stem).stem, list(source(stem).kernels)
        text = "\n".join([
            *[header.read_text(encoding="utf-8") for header in HEADERS],
            placeholders(types),
            f'#line 1 "{label}.cu"',
            source(stem).text,
            *[f"DEEPKIT_RUN({n})" for n in names],
        ])  # fmt: skip
        label = "-".join([label, *[v.replace(" ", "_") for _, v in types]])
        made_by = (*self.compiler, version_of(tuple(self.compiler)), *self.flags)
        path = file("sim", label, ".so", text, *made_by)
        library = self._opened(text, path)
        library.deepkit_message.restype = ctypes.c_char_p
        self.seconds += time.perf_counter() - start
        return library

    def _opened(self, text: str, path: Path) -> Any:
        if load(path) is None and store(path, made := self._built(text, path)) is None:
            with tempfile.TemporaryDirectory() as here:  # nothing can be kept
                aside = Path(here, path.name)
                aside.write_bytes(made)
                return ctypes.CDLL(str(aside))
        try:
            return ctypes.CDLL(str(path))
        except OSError as error:
            raise RuntimeError(f"{path.stem} cannot be loaded: {error}") from None

    def _built(self, text: str, path: Path) -> bytes:
        with tempfile.TemporaryDirectory() as here:
            code, made = Path(here, "kernel.cpp"), Path(here, path.name)
            code.write_text(text, encoding="utf-8")
            command = [*self.compiler, *self.flags, str(code), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode or not made.exists():
                said = done.stderr[:4000] or f"{self.compiler[0]} made nothing"
                raise RuntimeError(f"{path.stem} does not compile: {said}")
            return made.read_bytes()


def compiler() -> list[str]:
    """The command of a C++ compiler: CXX, or the first one that is there.  Errors: DeviceError."""
    named = os.environ.get("CXX", "").strip()
    try:
        commands = [shlex.split(named)] if named else [["g++"], ["clang++"], ["c++"]]
    except ValueError as error:
        raise DeviceError(f"device 'cuda-sim': CXX={named!r} is no command: {error}") from None
    for command in commands:
        if shutil.which(command[0]):
            return command
    raise DeviceError(
        "device 'cuda-sim' needs a C++ compiler, g++ or clang++, which was not found here"
        f"   (CXX names {f'another one, now {named!r}' if named else 'another one'})"
    )


@functools.cache
def version_of(command: tuple[str, ...]) -> str:
    """What a compiler says that it is; what it makes is kept under this name."""
    try:
        done = subprocess.run(
            [*command, "--version"],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        raise DeviceError(f"device 'cuda-sim': {command[0]} does not run: {error}") from None
    return done.stdout.partition("\n")[0]
