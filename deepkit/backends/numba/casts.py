"""Values as another type: tile by tile through int64 or float64, which hold those of all others."""

from __future__ import annotations

import numba
import numpy as np

from .launch import kernel, size, u8ptr
from .rows import tile, view

# a type -> its code in `cast`
CODES = {"b1": 0, "u1": 1, "i1": 2, "u2": 3, "i2": 4, "u4": 5, "i4": 6, "u8": 7, "i8": 7}
CODES |= {"f4": 8, "f8": 9}


@numba.njit
def _store(y, kind, low, values, count):
    if kind == 0:
        for i in range(count):
            view(y, numba.uint8)[low + i] = values[i] != 0
    elif kind == 1 or kind == 2:
        for i in range(count):
            view(y, numba.int8)[low + i] = np.int8(np.int64(values[i]))
    elif kind == 3 or kind == 4:
        for i in range(count):
            view(y, numba.int16)[low + i] = np.int16(np.int64(values[i]))
    elif kind == 5:
        for i in range(count):
            view(y, numba.uint32)[low + i] = np.uint32(np.int64(values[i]))
    elif kind == 6:
        for i in range(count):
            view(y, numba.int32)[low + i] = np.int32(values[i])
    elif kind == 7:
        for i in range(count):
            view(y, numba.int64)[low + i] = np.int64(values[i])
    elif kind == 8:
        for i in range(count):
            view(y, numba.float32)[low + i] = np.float32(values[i])
    else:
        for i in range(count):
            view(y, numba.float64)[low + i] = np.float64(values[i])


@numba.njit
def _load(values, x, kind, low, count):
    if kind == 0 or kind == 1:
        for i in range(count):
            values[i] = view(x, numba.uint8)[low + i]
    elif kind == 2:
        for i in range(count):
            values[i] = view(x, numba.int8)[low + i]
    elif kind == 3:
        for i in range(count):
            values[i] = view(x, numba.uint16)[low + i]
    elif kind == 4:
        for i in range(count):
            values[i] = view(x, numba.int16)[low + i]
    elif kind == 5:
        for i in range(count):
            values[i] = view(x, numba.uint32)[low + i]
    elif kind == 6:
        for i in range(count):
            values[i] = view(x, numba.int32)[low + i]
    else:
        for i in range(count):
            values[i] = view(x, numba.int64)[low + i]


@kernel
def cast(t, n, y: u8ptr, x: u8ptr, to: size, of: size, count: size):
    """Tile by tile through int64 or float64, which hold every value of the other types."""
    whole, real = tile(view(x, numba.int64)), tile(view(x, numba.float64))
    end = (t + 1) * count // n
    for low in range(t * count // n, end, 256):
        some = min(256, end - low)
        if of < 8:
            _load(whole, x, of, low, some)
            _store(y, to, low, whole, some)
        else:
            for i in range(some):
                if of == 8:
                    real[i] = view(x, numba.float32)[low + i]
                else:
                    real[i] = view(x, numba.float64)[low + i]
            _store(y, to, low, real, some)
