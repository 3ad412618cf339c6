"""Native functions: compiled by Numba once, then loaded from files without it.

    <base>/numba/<state>/<module>.<function>-<types>.o

`state` stands for everything that shapes the code: the backend's sources, the versions of Numba,
LLVM's binding and Python, the processor, Numba's settings.  A file holds a digest of what follows:
the names that the code defines and that it needs, and object code.  It is written aside and moved
into place, so processes that start at once, or that lose the folder, at worst compile the same
thing twice.  A file that is not what its digest says is compiled anew.  Where nothing can be
written, functions live in memory.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from llvmlite import binding

from ... import backends as contract
from . import compiler
from .machine import FEATURES, VECTOR_BYTES

KEPT = 12  # folders of other states that stay: other versions, processors, widths
PATIENCE = 1.0  # seconds of compiling in all before a user is told
MAGIC = b"deepkit kernel 1\n"
CODEGEN = ("CPU_NAME", "CPU_FEATURES", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "ENABLE_AVX")
CODEGEN += ("DEBUGINFO", "BOUNDSCHECK")  # settings of Numba that change what it makes

compiled: list[str] = []  # what this process has compiled, rather than found
seconds = 0.0  # that this took, reading from the cache included

_lock = threading.RLock()
_alive: list[Any] = []  # what Numba compiled belongs to these objects
_told = False  # that nothing can be kept


# where --------------------------------------------------------------------------------------------


@functools.cache
def state() -> str:
    """The name for the state of everything that the code depends on."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    settings = [os.environ.get(f"NUMBA_{name}") for name in CODEGEN]
    versions = [numba.__version__, importlib.metadata.version("llvmlite"), sys.version]
    machine = [binding.get_process_triple(), binding.get_host_cpu_name(), VECTOR_BYTES]
    digest.update(repr((settings, versions, machine, sorted(FEATURES))).encode())
    return digest.hexdigest()[:16]


@functools.cache
def folder() -> Path:
    """Where the functions of this state are kept, whether it exists or not.

    The base is DEEPKIT_CACHE, else `deepkit` in XDG_CACHE_HOME, else in ~/.cache.
    """
    base = os.environ.get("DEEPKIT_CACHE")
    if not base:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        base = os.path.join(home, "deepkit")
    return Path(base, "numba", state())


def _file(function: Callable, signature: Any) -> Path:
    types = hashlib.sha256(str(signature).encode()).hexdigest()[:12]
    module = function.__module__.removeprefix(f"{__package__}.")
    return folder() / f"{module}.{function.__qualname__}-{types}.o"


# what ---------------------------------------------------------------------------------------------


def native(function: Callable, signature: Any, **options: Any) -> int:
    """The address of `function` as a C function of this signature."""
    global seconds
    start = time.perf_counter()
    with _lock:
        path = _file(function, signature)
        address = _load(path)
        if address is None:
            with _telling():
                made = compiler.compiled(function, signature, _nrt=False, **options)
            _alive.append(made)
            compiled.append(path.stem)
            _store(path, made)
            address = made.address
        seconds += time.perf_counter() - start
    return address


def exists(function: Callable, signature: Any) -> bool:
    """Whether a file is there for it, be it damaged or not."""
    return _file(function, signature).exists()


def _head(path: Path, body: bytes) -> bytes:
    """How a file begins: what it is, and a digest of its name and of the rest."""
    return MAGIC + hashlib.sha256(path.name.encode() + b"\n" + body).digest()


def _load(path: Path) -> int | None:
    """The address of a function that was kept; None if there is none that can be used."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    head = _head(path, b"")
    body = content[len(head) :]
    if content[: len(head)] != _head(path, body):
        return None
    names, _, code = body.partition(b"\n")
    symbol, *needed = names.decode().split()
    if not all(map(binding.address_of_symbol, needed)):  # LLVM would end the process
        return None
    engine = _engine()
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine.get_function_address(symbol) or None


@functools.cache
def _engine() -> Any:
    """Which holds the functions that were loaded, for as long as the process lives."""
    machine = binding.Target.from_default_triple().create_target_machine()
    with contextlib.suppress(OSError):
        os.utime(folder())  # so that it is seen to be in use
    return binding.create_mcjit_compiler(binding.parse_assembly(""), machine)


def _store(path: Path, made: Any) -> None:
    """Keep what Numba has made; say so, once, if that cannot be."""
    global _told
    module = made._library._final_module
    needed = [
        item.name
        for item in (*module.functions, *module.global_variables)
        if item.is_declaration and not item.name.startswith("llvm.")
    ]
    names = " ".join([made.native_name, *needed]).encode()
    body = names + b"\n" + made._library._get_compiled_object()
    try:
        write(path, _head(path, body) + body)
    except OSError as error:
        if not _told:
            print(
                f"deepkit: compiled kernels cannot be kept in {path.parent} ({error.strerror}), so "
                "every process compiles its own; DEEPKIT_CACHE may name another folder",
                file=sys.stderr,
            )
        _told = True
    else:
        _prune()


def write(path: Path, content: bytes) -> None:
    """Write a file of the cache, all of it or nothing.  Raises OSError."""
    if not path.is_absolute():  # there is no home
        raise FileNotFoundError(2, "there is no home folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise


@functools.cache
def _prune() -> None:
    """Once a process: of the folders of other states keep the few that were used last.

    A process that loses its folder this way has its functions in memory, and makes it again.
    """
    others = []
    with contextlib.suppress(OSError):
        for other in folder().parent.iterdir():
            if re.fullmatch("[0-9a-f]{16}", other.name) and other != folder():
                others.append((other.stat().st_mtime, other))
    for _, old in sorted(others, reverse=True)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    """Tell the user, once a process, that kernels have been compiling for a while."""
    timer = threading.Timer(max(0.0, PATIENCE - seconds), contract.tell_preparing, ["numba"])
    timer.daemon = True
    if not contract.told_preparing:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _forget() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
