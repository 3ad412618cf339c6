"""The run-time compiler of CUDA C++, which needs neither a driver nor a GPU: a thin binding."""

from __future__ import annotations

import ctypes
import functools
import re
from typing import Any, NamedTuple

from .. import DeviceError
from .libraries import load
from .sources import placeholders, source

MISSING = (
    "NVRTC, the run-time compiler of CUDA, was not found"
    "   (pip install nvidia-cuda-nvrtc brings it, and so does the CUDA toolkit)"
)


class Binary(NamedTuple):
    """What a file compiled to, and what the assembler said about each kernel."""

    image: bytes  # a cubin, or PTX for a GPU that the compiler does not know yet
    log: str


class Resources(NamedTuple):
    """What a thread, and a block, of one kernel take."""

    registers: int
    stack: int  # bytes
    spills: int  # bytes stored and loaded
    shared: int  # bytes of arrays with a fixed size


@functools.cache
def library() -> Any:
    """libnvrtc.  Errors: DeviceError where there is none."""
    found = load("nvrtc")
    if found is None:
        raise DeviceError(MISSING)
    found.nvrtcGetErrorString.restype = ctypes.c_char_p
    return found


def version() -> tuple[int, int]:
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


def architectures() -> list[int]:
    """The GPUs that this compiler knows: 75, 80, ..."""
    count = ctypes.c_int()
    _check(library().nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    found = (ctypes.c_int * count.value)()
    _check(library().nvrtcGetSupportedArchs(found))
    return list(found)


def target(capability: int) -> str:
    """What to compile for on a GPU: 90 -> "sm_90a"; PTX where it is newer than the compiler."""
    known = architectures()
    if capability in known:
        return f"sm_{capability}{'a' if capability >= 90 else ''}"
    older = [a for a in known if a < capability]
    if not older:
        raise DeviceError(
            f"NVRTC {'.'.join(map(str, version()))} no longer compiles for this GPU, which has "
            f"compute capability {capability / 10}; the oldest that it knows is {known[0] / 10}"
        )
    return f"compute_{older[-1]}"


def compile_file(stem: str, types: tuple[tuple[str, str], ...], arch: str) -> Binary:
    """kernels/<stem>.cu with these names standing for these types, for a GPU such as "sm_80".

    Errors: RuntimeError with what the compiler says.
    """
    nvrtc = library()
    named = f"{source(stem).stem}.cu"
    code = f'{placeholders(types)}#line 1 "{named}"\n{source(stem).text}'
    program = ctypes.c_void_p()
    _check(
        nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), code.encode(), named.encode(), 0, None, None
        )
    )
    try:
        options = [f"-arch={arch}", "-std=c++17", "-default-device"]
        options += ["--ptxas-options=-v"] if arch.startswith("sm") else []
        words = (ctypes.c_char_p * len(options))(*[o.encode() for o in options])
        status = nvrtc.nvrtcCompileProgram(program, len(options), words)
        log = _text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).decode()
        if status:
            raise RuntimeError(f"{named} does not compile for {arch}: {log[:4000]}")
        if arch.startswith("sm"):
            image = _text(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
        else:
            image = _text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)
        return Binary(image, log)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


_ENTRY = re.compile(r"Compiling entry function '(?:deepkit_)?(\w+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")


def resources(log: str) -> dict[str, Resources]:
    """Kernel -> what it takes, from the assembler's log."""
    found: dict[str, Resources] = {}
    name, stack, spills = "", 0, 0
    for line in log.splitlines():
        if entry := _ENTRY.search(line):
            name, stack, spills = entry[1], 0, 0
        elif frame := _STACK.search(line):
            stack, spills = int(frame[1]), int(frame[2]) + int(frame[3])
        elif used := _USED.search(line):
            found[name] = Resources(int(used[1]), stack, spills, int(used[2] or 0))
    return found


def _text(size_of: Any, read: Any, program: Any) -> bytes:
    size = ctypes.c_size_t()
    _check(size_of(program, ctypes.byref(size)))
    room = ctypes.create_string_buffer(size.value)
    _check(read(program, room))
    return room.raw.rstrip(b"\0") if read.__name__ == "nvrtcGetProgramLog" else room.raw


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"NVRTC: {library().nvrtcGetErrorString(status).decode()}")
