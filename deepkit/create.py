"""Where tensors come from: values of the host, constants, random draws, other libraries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .backends import current, get
from .card import ShapeError
from .ops.common import checked_dtype, tensor_on
from .random import host_generator
from .tape import Tensor, launch, mode

FLOAT = np.dtype(np.float32)


def tensor(
    values: Any, device: str | None = None, dtype: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor with a copy of `values`: a number, nested lists, a NumPy array, another tensor.

    Floats become float32 unless the input is a float64 array or `dtype` says otherwise; integers
    and booleans keep their type.  `device`: where, if not on the device in force.
    """
    if isinstance(values, Tensor):
        backend = values.backend if device is None else get(device)
        made = values.detach().to(backend)
        made = made.astype(dtype or values.dtype)
    else:
        backend = current() if device is None else get(device)
        try:
            array = values if isinstance(values, np.ndarray | np.generic) else _host(values)
        except (ValueError, TypeError) as error:
            raise ValueError(f"tensor: the values form no array: {error}") from None
        made = tensor_on(backend, array, dtype)
    if requires_grad:
        made.requires_grad = True
    return made


def _host(values: Any) -> Any:
    if isinstance(values, list | tuple) and any(isinstance(v, Tensor) for v in values):
        return np.array([v.numpy() if isinstance(v, Tensor) else v for v in values])
    array = np.asarray(values)
    listed = isinstance(values, list | tuple | float)
    return array.astype(np.float32) if listed and array.dtype == np.float64 else array


def full(
    shape: Any,
    value: Any,
    device: str | None = None,
    dtype: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of `shape` filled with `value`."""
    kind = dtype or (FLOAT if isinstance(value, float) else None)
    if mode.log is not None and isinstance(value, int | float):
        return _filled(_shape(shape), value, device, kind, requires_grad)
    return tensor(np.full(_shape(shape), value, kind), device, dtype, requires_grad)


def _filled(
    shape: Any, value: float, device: str | None, dtype: Any, requires_grad: bool
) -> Tensor:
    """Filled by a launch, which a captured step repeats with every replay."""
    backend = current() if device is None else get(device)
    kind = checked_dtype(np.asarray(value).dtype if dtype is None else dtype)
    made = Tensor(backend.empty(shape, kind), backend, shape, kind)
    launch("full_like", backend, (made,), (None,), {"value": value})
    if requires_grad:
        made.requires_grad = True
    return made


def zeros(
    *shape: Any, device: str | None = None, dtype: Any = None, requires_grad: bool = False
) -> Tensor:
    """zeros(2, 3) or zeros((2, 3)), float32 unless `dtype` says otherwise."""
    return full(shape, 0, device, dtype or FLOAT, requires_grad)


def ones(
    *shape: Any, device: str | None = None, dtype: Any = None, requires_grad: bool = False
) -> Tensor:
    """ones(2, 3) or ones((2, 3)), float32 unless `dtype` says otherwise."""
    return full(shape, 1, device, dtype or FLOAT, requires_grad)


def randn(
    *shape: Any, device: str | None = None, dtype: Any = None, requires_grad: bool = False
) -> Tensor:
    """Standard normal draws, the same on every device after the same `dk.seed`."""
    values = host_generator().standard_normal(_shape(shape))
    return tensor(values.astype(dtype or FLOAT), device, None, requires_grad)


def rand(
    *shape: Any, device: str | None = None, dtype: Any = None, requires_grad: bool = False
) -> Tensor:
    """Uniform draws from [0, 1), the same on every device after the same `dk.seed`."""
    kind = checked_dtype(dtype or FLOAT)
    values = host_generator().random(_shape(shape), kind)
    return tensor(values, device, None, requires_grad)


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1,
    device: str | None = None,
    dtype: Any = None,
) -> Tensor:
    """start, start + step, ... below `stop`; one number counts from 0.  int64 for whole numbers."""
    if step == 0:
        raise ValueError("arange: step must not be 0")
    values = np.arange(start) if stop is None else np.arange(start, stop, step)
    if values.dtype.kind == "f":
        values = values.astype(FLOAT)
    return tensor(values, device, dtype)


def from_dlpack(source: Any, device: str | None = None) -> Tensor:
    """A copy of another library's tensor (torch, JAX, CuPy, NumPy, ...) through DLPack."""
    return tensor(np.from_dlpack(source), device)


def _shape(shape: Any) -> tuple[int, ...]:
    if isinstance(shape, int | np.integer):
        lengths: tuple[int, ...] = (int(shape),)
    else:
        if len(shape) == 1 and not isinstance(shape[0], int | np.integer):
            shape = shape[0]
        lengths = tuple(int(d) for d in shape)
    if math.prod(max(d, 0) for d in lengths) >= 2**59:
        raise ShapeError(f"{lengths} is too large for any memory")
    return lengths
