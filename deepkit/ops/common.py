"""What several cards share: constants, promotion, broadcasting, axes, pairs."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backends import Backend
from ..card import Shape, ShapeError
from ..tape import Tensor, mode, registry

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def tensor_on(backend: Backend, values: Any, dtype: Any = None) -> Tensor:
    """A new tensor on `backend`: float32 unless the values say float64 or are no floats."""
    from_array = isinstance(values, np.ndarray | np.generic)
    array = np.asarray(values)
    if dtype is not None:
        array = array.astype(checked_dtype(dtype), copy=False)
    elif array.dtype.kind == "f" and not (from_array and array.dtype == np.float64):
        array = array.astype(np.float32, copy=False)
    checked_dtype(array.dtype)
    made = Tensor(backend.upload(array), backend, array.shape, array.dtype)
    if mode.log is not None:
        mode.log.constants[id(made.buffer)] = made.buffer
    return made


def checked_dtype(dtype: Any) -> np.dtype:
    """float32, float64, bool and the integers; anything else is an error that lists them."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or (found not in FLOATS and found.kind not in "iub"):
        raise TypeError(f"expected dtype float32, float64, an integer type or bool, not {dtype}")
    return found


@functools.lru_cache(maxsize=1024)
def _constant(backend: Backend, dtype: np.dtype, value: Any) -> Tensor:
    return tensor_on(backend, value, dtype)


def constant(value: Any, like: Tensor) -> Tensor:
    """A Python number beside a tensor: it takes the tensor's dtype (float32 beside integers)."""
    dtype = like.dtype
    if isinstance(value, float) and dtype.kind != "f":
        dtype = FLOATS[0]
    elif isinstance(value, int) and not isinstance(value, bool) and dtype.kind == "b":
        dtype = np.dtype(np.int64)
    if isinstance(value, float) and value == 0.0:
        return tensor_on(like.backend, value, dtype)  # 0.0 and -0.0 are one key of a cache
    return _constant(like.backend, dtype, value)


def operands(name: str, *values: Any) -> tuple[Tensor, ...]:
    """Numbers and NumPy arrays beside tensors become tensors; dtypes are promoted to one.

    A float array beside float tensors takes their dtype, as a number does: the tensors decide.
    """
    if len(values) == 2:  # the common case, without ceremony
        a, b = values
        if isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype:
            return a, b
    like = next((v for v in values if isinstance(v, Tensor)), None)
    if like is None:
        raise TypeError(f"{name}: expected at least one tensor, not {type(values[0]).__name__}")
    tensors = []
    for v in values:
        if isinstance(v, Tensor):
            tensors.append(v)
        elif isinstance(v, bool | int | float):
            tensors.append(constant(v, like))
        elif isinstance(v, np.ndarray | np.generic | list | tuple):
            tensors.append(tensor_on(like.backend, _float_like(values, np.asarray(v))))
        else:
            raise TypeError(f"{name}: expected a tensor or a number, not {type(v).__name__}")
    dtype = tensors[0].dtype
    if any(t.dtype != dtype for t in tensors):
        dtype = promoted([t.dtype for t in tensors])
        tensors = [registry["astype"](t, dtype) for t in tensors]
    return tuple(tensors)


def _float_like(values: Sequence[Any], array: np.ndarray) -> np.ndarray:
    """A float array in the dtype of the float tensors beside it, if there are any."""
    floats = [v.dtype for v in values if isinstance(v, Tensor) and v.dtype.kind == "f"]
    if array.dtype.kind != "f" or not floats:
        return array
    return array.astype(promoted(floats), copy=False)


def promoted(dtypes: Sequence[np.dtype]) -> np.dtype:
    """float64 beside any float64, float32 beside any float32, else what NumPy says."""
    floats = [d for d in dtypes if d.kind == "f"]
    return max(floats, key=lambda d: d.itemsize) if floats else np.result_type(*dtypes)


def tensor_in(name: str, x: Any, what: str = "x") -> Tensor:
    """`x` as a tensor, or a sentence that says what was given instead."""
    if isinstance(x, Tensor):
        return x
    why = ""
    if isinstance(x, np.ndarray):
        why = "   (an array becomes a tensor by itself only beside one: it goes to its device)"
    raise TypeError(
        f"{name}: {what} must be a tensor, not {type(x).__name__}; use dk.tensor({what}){why}"
    )


def broadcast(name: str, *shapes: Shape) -> Shape:
    """The shape to which all of them broadcast, as NumPy does it."""
    first = shapes[0]
    for s in shapes:
        if s != first:
            break
    else:
        return first
    out: list[int] = []
    for i in range(1, max(map(len, shapes)) + 1):
        sizes = {s[-i] for s in shapes if len(s) >= i} - {1}
        if len(sizes) > 1:
            listed = " and ".join(str(s) for s in shapes)
            raise ShapeError(f"{name}: shapes {listed} do not broadcast together")
        out.append(sizes.pop() if sizes else 1)
    return tuple(out[::-1])


def pair(name: str, what: str, value: Any, least: int = 1) -> tuple[int, int]:
    """3 -> (3, 3); (1, 2) -> (1, 2); anything else, or a number below `least`, is an error."""
    both = (value, value) if isinstance(value, int | np.integer) else value
    if (
        not isinstance(both, tuple | list)
        or len(both) != 2
        or not all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in both)
    ):
        raise ShapeError(f"{name}: {what} must be a whole number or a pair of them, not {value!r}")
    if min(both) < least:
        raise ShapeError(f"{name}: {what} must be at least {least}, not {value!r}")
    return int(both[0]), int(both[1])


def number(name: str, what: str, value: Any, within: str = "finite") -> float:
    """`value` as a float that is "finite", "above 0" or "from 0 to 1", or a sentence."""
    good = isinstance(value, int | float | np.integer | np.floating) and math.isfinite(value)
    if good and within != "finite":
        good = value > 0 if within == "above 0" else 0 <= value <= 1
    if not good:
        raise ValueError(f"{name}: {what} must be {within}, not {value!r}")
    return float(value)


def elements(shape: Sequence[int]) -> int:
    return math.prod(shape)
