"""Functions that a kernel calls are compiled as parts of it."""

from __future__ import annotations

import ctypes

import numba
import pytest
from numba.core import types

from deepkit.backends.numba import compiler


@numba.njit
def _twice(x):
    return x + x


@numba.njit
def _of_python(x):
    return x * x


@numba.njit
def _thrice(x):
    return _twice(x) + x


def _both(x):
    return _twice(x) + _of_python(x)


def test_kernels_and_python_share_functions():
    assert _of_python(3) == 9  # compiled for Python, and only then a part
    made = compiler.compiled(_both, types.int64(types.int64))
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(made.address)(5) == 35
    assert _of_python(4) == 16
    assert _thrice(5) == 15  # it calls a part
    with pytest.raises(TypeError):  # which is no function for Python
        _twice(3)
