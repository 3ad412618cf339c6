"""The typed vector: every operation against NumPy, both element types, from the cache as well."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("numba")
import numba

from deepkit.backends.numba.launch import kernel, launch, ptr, size
from deepkit.backends.numba.simd import at, vector_lanes
from deepkit.backends.numba.vector import (
    broadcast,
    fma,
    load,
    load_first,
    maximum,
    room,
    select,
    store,
    store_first,
)

LENGTH = 64
OPERATIONS = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "negate": lambda a, b: -a,
    "fma": lambda a, b: a * b + 2,
    "numbers": lambda a, b: 4 * a - b / 2 + 1,
    "less": lambda a, b: np.where(a < b, a, 0),
    "not equal": lambda a, b: np.where(a != b, 1, b),
    "at most": lambda a, b: np.where(a <= 0, 0, a),
    "maximum": lambda a, b: np.maximum(a, b),
}


@numba.njit
def _both(a, b):
    return a * b, a / b


@kernel
def _operations(t, n, y: ptr, x: ptr, length: size):
    for i in range(0, length, vector_lanes(x)):
        a, b = load(x, i), load(x, length + i)
        out, (product, quotient) = at(y, i), _both(a, b)
        store(out, 0, a + b)
        store(out, length, a - b)
        store(out, 2 * length, product)
        store(out, 3 * length, quotient)
        store(out, 4 * length, -a)
        store(out, 5 * length, fma(a, b, 2))
        store(out, 6 * length, 4.0 * a - b / 2 + broadcast(x, 1))
        store(out, 7 * length, select(a < b, a, 0.0))
        store(out, 8 * length, select(a != b, 1.0, b))
        store(out, 9 * length, select(a <= 0.0, 0.0, a))
        store(out, 10 * length, maximum(a, b))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_operations(dtype):
    x = np.random.default_rng(0).standard_normal((2, LENGTH)).astype(dtype)
    x[1, :8] = x[0, :8]
    x[0, 9], x[1, 10], x[:, 11] = np.nan, np.nan, np.nan
    x[0, 12], x[1, 13] = np.inf, -np.inf
    y = np.full((len(OPERATIONS), LENGTH), 7, dtype)
    launch(_operations, x.dtype, y, x, LENGTH)
    for row, (name, operation) in zip(y, OPERATIONS.items(), strict=True):
        want = operation(*x).astype(dtype)
        np.testing.assert_allclose(row, want, rtol=4 * np.finfo(dtype).eps, atol=1e-6, err_msg=name)


@kernel
def _copy_first(t, n, y: ptr, x: ptr, length: size):
    half = room(x, 128)
    vector = vector_lanes(x)
    for i in range(0, length, vector):
        store(half, i, load_first(x, i, length - i))
    for i in range(0, length, vector):
        store_first(y, i, length - i, load(half, i))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("length", [1, 2, 3, 15, 16, 17, 63, 128])
def test_the_rest_of_a_row(dtype, length):
    x = np.arange(1, length + 1).astype(dtype)
    y = np.full(length + 64, -1, dtype)
    launch(_copy_first, x.dtype, y, x, length)
    np.testing.assert_array_equal(y[:length], x)
    np.testing.assert_array_equal(y[length:], -1)


def test_vectors_of_different_types_do_not_mix():
    from deepkit.backends.numba.launch import Kernel

    with pytest.raises(numba.core.errors.TypingError):
        Kernel(_mixed).address("f4")


def _mixed(t, n, y: ptr, x: ptr):
    store(y, 0, load(x, 0) + load(_twice(x), 0))


@numba.extending.intrinsic
def _twice(typing, pointer):
    kind = numba.types.CPointer(numba.types.float64)

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(kind))

    return kind(pointer), generate


CACHED = """

from deepkit.backends.numba import cache, winograd
winograd._multiply_tiles.address("f4")
print(*[name for name in cache.compiled if "multiply_tiles" in name])
"""


def test_kernels_of_vectors_come_from_the_cache(tmp_path):
    said = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", CACHED],
            env={**os.environ, "DEEPKIT_CACHE": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        said.append(len(done.stdout.split()))
    assert said == [1, 0]  # compiled, and then found
