"""The driver without a GPU: kernels are compiled by the C++ compiler of the machine (sim.h)."""

from __future__ import annotations

import contextlib
import ctypes
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
from .cache import file
from .launch import Call
from .sources import placeholders, source

HEADER = Path(__file__).with_name("sim.h")
ORDERS = (0, 1, 2)  # of the threads: forward, backward, shuffled
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
        self.order = 0
        self.seconds = 0.0  # of compiling
        self._libraries: dict[Any, Any] = {}
        self._lock = threading.Lock()

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
            wrong = run(call.arguments, call.grid, call.block, call.shared, self.order)
            message = library.deepkit_message() if wrong else b""
        if wrong:
            raise RuntimeError(f"kernel {call.name}: {message.decode()}")

    def _load(self, stem: str, types: tuple[tuple[str, str], ...]) -> Any:
        start = time.perf_counter()
        label, names = source(stem).stem, list(source(stem).kernels)
        text = "\n".join([
            HEADER.read_text(encoding="utf-8"),
            placeholders(types),
            f'#line 1 "{label}.cu"',
            source(stem).text,
            *[f"DEEPKIT_RUN({n})" for n in names],
        ])  # fmt: skip
        label = "-".join([label, *[v.replace(" ", "_") for _, v in types]])
        path = file("sim", label, ".so", text, *self.compiler, *self.flags)
        if not path.exists():
            self._build(text, path)
        try:
            library = ctypes.CDLL(str(path))
        except OSError:  # damaged: build it anew
            self._build(text, path)
            library = ctypes.CDLL(str(path))
        library.deepkit_message.restype = ctypes.c_char_p
        self.seconds += time.perf_counter() - start
        return library

    def _build(self, text: str, path: Path) -> None:
        """Write the library aside, then move it into place: two processes may do so at once."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as aside:
            code, made = Path(aside, "kernel.cpp"), Path(aside, path.name)
            code.write_text(text, encoding="utf-8")
            command = [*self.compiler, *self.flags, str(code), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{path.stem} does not compile: {done.stderr[:4000]}")
            with contextlib.suppress(FileExistsError):
                os.replace(made, path)


def compiler() -> list[str]:
    """The command of a C++ compiler: CXX, or the first one that is there."""
    named = os.environ.get("CXX")
    for command in [shlex.split(named)] if named else [["g++"], ["clang++"], ["c++"]]:
        if shutil.which(command[0]):
            return command
    raise DeviceError(
        "device 'cuda-sim' needs a C++ compiler, g++ or clang++, which was not found here"
        "   (CXX names another one)"
    )
