"""The simulator of CUDA finds what it says it finds: seeded faults, each beside its right twin."""

import ctypes
import subprocess
import sys

import numpy as np
import pytest

import deepkit as dk
from deepkit.backends import get
from deepkit.testing import guarded_memory

if "cuda-sim" not in dk.devices():
    pytest.skip("no C++ compiler here", allow_module_level=True)

from deepkit.backends.cuda.launch import Kernels
from deepkit.backends.cuda.sim import ORDERS

# y = x backwards, within each block of 128: what all of these kernels are meant to compute
REVERSE = """
#include "common.cuh"
#include "async.cuh"
LIMITED_KERNEL(128, reverse)(float* y, const float* x, i64 n) {{
    __shared__ __align__(16) float tile[128];
    int t = threadIdx.x;
    i64 first = 128ll * blockIdx.x;
    {body}
}}
"""
RIGHT = "tile[t] = x[first + t]; __syncthreads(); y[first + t] = tile[127 - t];"

# twice a sum over the block, in one piece of shared memory: 3 (0 + ... + 127) if all is well
TWICE = (
    "__shared__ int sums[4]; int total = 0; for (int round = 1; round < 3; round++) {{"
    "int sum = over_warp(t * round, Add()); if (t % 32 == 0) sums[t / 32] = sum; __syncthreads();"
    "for (int w = 0; w < 4; w++) total += sums[w]; {barrier} }}"
    "tile[t] = 0; y[first + t] = total == 24384 ? x[first + 127 - t] : 0;"
)

FAULTS = {  # what is wrong -> the body, and what is said (None: the result is not the right one)
    "a missing barrier": ("tile[t] = x[first + t]; y[first + t] = tile[127 - t];", None),
    "a barrier that half of the block misses": (
        "tile[t] = x[first + t]; if (t < 64) __syncthreads(); y[first + t] = tile[127 - t];",
        "were gone when the others met",
    ),
    "two barriers for one meeting": (
        "tile[t] = x[first + t]; if (t < 64) {\n __syncthreads(); } else {\n __syncthreads(); }\n"
        "y[first + t] = tile[127 - t];",
        "different barriers",
    ),
    "a thread that leaves before the barrier": (
        "if (t == 5) return; tile[t] = x[first + t]; __syncthreads();y[first + t] = tile[127 - t];",
        "1 of 128 threads were gone",
    ),
    "shared memory used again too early": (
        "for (int half = 0; half < 2; half++) { if (t < 64) tile[t] = x[first + half * 64 + t];"
        "__syncthreads(); if (t < 64) y[first + 64 * (1 - half) + t] = tile[63 - t]; }",
        None,
    ),
    "a warp that runs ahead into memory that others still read": (TWICE.format(barrier=""), None),
    "a shuffle with lanes missing": (
        "float v = x[first + t]; if (t % 32 < 16) v = __shfl_xor_sync(0xffff, v, 1);"
        "tile[t] = v; __syncthreads(); y[first + t] = tile[127 - t];",
        "a warp meets with mask",
    ),
    "a warp that is incomplete when it meets": (
        "tile[t] = x[first + t]; if (t == 40) return; __syncwarp();",
        "were gone when the others met",
    ),
    "an asynchronous copy that nobody waits for": (
        "if (t < 32) { async_copy16(tile + 4 * t, x + first + 4 * t); async_commit(); }"
        "__syncthreads(); y[first + t] = tile[127 - t];",
        "never waited for",
    ),
    "a wait for too few copies": (
        "if (t < 32) { async_copy16(tile + 4 * t, x + first + 4 * t); async_commit();"
        "async_wait<1>(); } __syncthreads(); y[first + t] = tile[127 - t];"
        "if (t < 32) async_wait<0>();",
        None,
    ),
    "a stage that is filled while others still read it": (
        "async_copy16(tile + t / 4 * 4, x + first + t / 4 * 4); async_commit(); async_wait<0>();"
        "__syncthreads(); float v = tile[127 - t]; if (t % 32 == 0) "
        "async_copy16(tile + 4 * (t / 32), x + first + 64); async_commit(); v = tile[127 - t];"
        "async_wait<0>(); y[first + t] = v;",
        None,
    ),
    "two barriers on one line": (
        "tile[t] = x[first + t]; if (t < 64) __syncthreads(); else __syncthreads();"
        "y[first + t] = tile[127 - t];",
        "different barriers",
    ),
    "a mask with lanes that are not there": (
        "tile[t] = x[first + t]; __syncthreads(); y[first + t] = tile[127 - t];"
        "if (t == 0) __syncwarp(1);",
        "a warp meets with mask",
    ),
    "a warp that reads before another has written": (
        "if (t >= 96) tile[t - 96] = x[first + t]; __syncwarp(); float v = t < 32 ? tile[t] : 0;"
        "__syncthreads(); tile[t] = x[first + t]; __syncthreads(); y[first + t] = tile[127 - t];"
        "if (t < 32) y[first + 31 - t] = v;",
        None,
    ),
    "a write before dynamic shared memory": (
        "DYNAMIC_SHARED(float, more); more[t - 1] = x[first + t]; tile[t] = x[first + t];"
        "__syncthreads(); y[first + t] = tile[127 - t];",
        "bytes before dynamic shared memory",
    ),
    "a result that is not written": (
        "tile[t] = x[first + t]; __syncthreads(); if (t) y[first + t] = tile[127 - t];",
        None,
    ),
    "a deadlock of a warp and the block": (
        "tile[t] = x[first + t]; if (t == 0) __syncwarp(); else __syncthreads();",
        "deadlock",
    ),
}


@pytest.fixture(autouse=True)
def order():
    driver = get("cuda-sim").driver
    yield driver
    driver.order = "forward"


def kernel(tmp_path, body):
    path = tmp_path / "reverse.cu"
    path.write_text(REVERSE.format(body=body))
    return Kernels(str(path))


def run(kernels, order, blocks=2):
    """-> (y, what y should be)."""
    get("cuda-sim").driver.order = order
    x = np.random.default_rng().standard_normal(128 * blocks).astype(np.float32)
    y = np.full_like(x, np.nan)
    kernels.run("reverse", blocks, 128, y, x, x.size, shared=512)
    return y, x.reshape(blocks, 128)[:, ::-1].reshape(-1)


@pytest.mark.parametrize("body", [RIGHT, TWICE.format(barrier="__syncthreads();")])
@pytest.mark.parametrize("order", ORDERS)
def test_what_is_right_is_right_in_every_order(tmp_path, order, body):
    y, wanted = run(kernel(tmp_path, body), order)
    assert np.array_equal(y, wanted)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(tmp_path, name):
    body, said = FAULTS[name]
    made = kernel(tmp_path, body)
    found = []
    for order in ORDERS:
        try:
            y, wanted = run(made, order)
            found.append("" if np.array_equal(y, wanted, equal_nan=False) else "wrong")
        except RuntimeError as error:
            found.append(str(error))
    assert all(f in ("", "wrong") or f.startswith("kernel reverse: ") for f in found)
    if said is None:
        assert "wrong" in found
    else:
        assert any(said in f for f in found), found


def test_the_simulator_works_on_after_a_fault(tmp_path):
    for folder, body in (("a", FAULTS["a deadlock of a warp and the block"][0]), ("b", RIGHT)):
        (tmp_path / folder).mkdir()
        made = kernel(tmp_path / folder, body)
        if folder == "a":
            with pytest.raises(RuntimeError, match=r"block 0, 0, 0"):
                run(made, "forward")
        else:
            y, wanted = run(made, "forward")
            assert np.array_equal(y, wanted)


CHILD = """
import sys
import numpy as np
from deepkit.backends import get
from deepkit.backends.cuda.launch import Kernels
from deepkit.testing import guarded_memory
backend = get("cuda-sim")
if sys.argv[2] == "strict":
    backend.driver.flags = type(backend.driver)(strict=True).flags
x = guarded_memory(4 * 256).view(np.float32)
x[:] = 1
y = np.empty_like(x)
Kernels(sys.argv[1]).run("reverse", 2, 128, y, x, 256, shared=int(sys.argv[3]))
print("done", *y[:1])
"""

CRASHES = {  # body, whether indices are checked, bytes of dynamic shared memory, what is said
    "right": (RIGHT, "strict", 0, None),
    "a read past the end of an input": (
        "y[first + t] = x[first + t + (t == 127)]; tile[t] = 0;",
        "plain",
        0,
        "touched memory that is not mapped",
    ),
    "a division by zero": (
        "tile[t] = (int)n / ((int)n - 256); y[first + t] = tile[t];",
        "plain",
        0,
        "divided by zero",
    ),
    "an index past the end of a shared array": (
        "tile[t + (t == 127 && n)] = x[first + t]; __syncthreads(); y[first + t] = tile[127 - t];",
        "strict",
        0,
        "did what is not defined",
    ),
    "dynamic shared memory that is too small": (
        "DYNAMIC_SHARED(float, more); more[t] = x[first + t]; __syncthreads();"
        "y[first + t] = more[127 - t]; tile[t] = 0;",
        "plain",
        256,
        "touched memory that is not mapped",
    ),
}


@pytest.mark.parametrize("name", CRASHES)
def test_memory_that_is_not_the_kernels_own_is_told(tmp_path, name):
    body, strict, shared, said = CRASHES[name]
    path = tmp_path / "reverse.cu"
    path.write_text(REVERSE.format(body=body))
    command = [sys.executable, "-c", CHILD, str(path), strict, str(shared)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if said is None:
        assert done.stdout == "done 1.0\n", done.stderr
    else:
        assert done.returncode == 1, done.stdout + done.stderr
        assert "RuntimeError: kernel reverse: thread (" in done.stderr
        assert said in done.stderr


def test_arguments_are_checked_against_the_source(tmp_path):
    made = kernel(tmp_path, RIGHT)
    x = np.zeros(128, np.float32)
    with pytest.raises(TypeError, match=r"reverse takes \(y, x, n\), not 2 arguments"):
        made.run("reverse", 1, 128, x, x)
    with pytest.raises(TypeError, match="x is float\\*, not an array of float64"):
        made.run("reverse", 1, 128, x, x.astype(np.float64), 128)
    with pytest.raises(ValueError, match="256 threads a block, at most 128"):
        made.run("reverse", 1, 256, x, x, 128)
    with pytest.raises(KeyError):
        made.run("absent", 1, 128, x, x, 128)


def test_a_file_that_does_not_compile_says_so(tmp_path):
    made = kernel(tmp_path, "tile[t] = nothing;")
    x = np.zeros(128, np.float32)
    with pytest.raises(RuntimeError, match=r"reverse.*does not compile.*\n?.*nothing"):
        made.run("reverse", 1, 128, x, x, 128)


def test_structures_are_as_large_as_in_the_source(tmp_path):
    """Each one beside the file that declares it, and its fields in their order."""
    from deepkit.backends.cuda.sources import folder
    from deepkit.backends.cuda.structures import STRUCTURES

    files = {f.name: f.read_text() for f in folder().glob("*.cu*")}
    assert len(STRUCTURES) >= 5
    for name, made in STRUCTURES.items():
        (home,) = [f for f, text in files.items() if f"struct {name} {{" in text]
        path = tmp_path / f"{name}.cu"
        fields = [field for field, *_ in made._fields_]
        lines = [f"sizes[0] = sizeof({name});"]
        lines += [f"sizes[{i}] = offsetof({name}, {f});" for i, f in enumerate(fields, 1)]
        text = files[home]
        start = text.index(f"struct {name} {{")
        included = [line for line in text.splitlines() if line.startswith("#include")]
        declared = "\n".join([*included, text[start : text.index("};", start) + 2]])
        declared = '#include "common.cuh"\n' + (declared if name != "Walk" else "")
        path.write_text(f"#include <stddef.h>\n{declared}\nKERNEL(sizes)(i64* sizes) {{\n"
                        + "\n".join(lines) + "\n}\n")  # fmt: skip
        sizes = np.zeros(len(lines), np.int64)
        Kernels(str(path)).run("sizes", 1, 1, sizes, T="float", S="float")
        assert sizes[0] == ctypes.sizeof(made), name
        assert [int(s) for s in sizes[1:]] == [getattr(made, f).offset for f in fields], name


def test_guarded_memory_is_what_the_simulator_reads():
    x = guarded_memory(40).view(np.float32)
    x[:] = np.arange(10)
    y = np.empty_like(x)
    get("cuda-sim").table["neg"](y, x)
    assert np.array_equal(y, -x)
