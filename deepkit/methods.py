"""What a tensor can be asked: operators and methods, each a name for an op in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .card import ShapeError, axes_of, registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .tape import Tensor


# NumPy's functions that a tensor beside an array turns into ops
UFUNCS = {"subtract": "sub", "multiply": "mul", "divide": "div", "power": "pow"}
UFUNCS |= {name: name for name in ("add", "matmul", "less", "less_equal", "greater")}
UFUNCS |= {name: name for name in ("greater_equal", "equal", "not_equal", "maximum", "minimum")}


class Methods:
    """Mixed into Tensor.  Where PyTorch has the name, it means the same, with `axis` for `dim`."""

    __slots__ = ()

    if TYPE_CHECKING:
        shape: tuple[int, ...]
        dtype: np.dtype

        @property
        def ndim(self) -> int: ...
        def numpy(self) -> np.ndarray: ...
        def item(self) -> Any: ...

    # arithmetic -------------------------------------------------------------------------------
    def __add__(self, other: Any) -> Tensor:
        return registry["add"](self, other)

    def __radd__(self, other: Any) -> Tensor:
        return registry["add"](other, self)

    def __sub__(self, other: Any) -> Tensor:
        return registry["sub"](self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return registry["sub"](other, self)

    def __mul__(self, other: Any) -> Tensor:
        return registry["mul"](self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return registry["mul"](other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return registry["div"](self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return registry["div"](other, self)

    def __pow__(self, other: Any) -> Tensor:
        if isinstance(other, int) and other == 2:
            return registry["mul"](self, self)
        return registry["pow"](self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return registry["pow"](other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return registry["matmul"](self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return registry["matmul"](other, self)

    def __neg__(self) -> Tensor:
        return registry["neg"](self)

    def __abs__(self) -> Tensor:
        return registry["abs"](self)

    # comparisons, elementwise, -> bool tensors -------------------------------------------------
    def __lt__(self, other: Any) -> Tensor:
        return registry["less"](self, other)

    def __le__(self, other: Any) -> Tensor:
        return registry["less_equal"](self, other)

    def __gt__(self, other: Any) -> Tensor:
        return registry["greater"](self, other)

    def __ge__(self, other: Any) -> Tensor:
        return registry["greater_equal"](self, other)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return registry["equal"](self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return registry["not_equal"](self, other)

    __hash__ = object.__hash__

    # the host ---------------------------------------------------------------------------------
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a tensor's values are always copied to the host")
        values = self.numpy()
        return values if dtype is None else values.astype(dtype)

    __array_priority__ = 1000  # numpy_array * tensor is the tensor's business

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        name = UFUNCS.get(ufunc.__name__)
        if method == "__call__" and name is not None and not kwargs:
            return registry[name](*inputs)
        plain = [x.numpy() if isinstance(x, Methods) else x for x in inputs]
        return getattr(ufunc, method)(*plain, **kwargs)

    def __dlpack__(self, **options: Any) -> Any:
        return self.numpy().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # the values are handed over in host memory

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a tensor without axes")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def tolist(self) -> Any:
        return self.numpy().tolist()

    # shape ------------------------------------------------------------------------------------
    def __getitem__(self, index: Any) -> Tensor:
        return registry["getitem"](self, index)

    def reshape(self, *shape: Any) -> Tensor:
        return registry["reshape"](self, _flat(shape))

    def flatten(self, start: int = 0) -> Tensor:
        """Join the axes from `start` on."""
        return registry["reshape"](self, (*self.shape[:start], -1))

    def transpose(self, *axes: Any) -> Tensor:
        """Permute the axes; without arguments, reverse them."""
        return registry["transpose"](self, _flat(axes) or None)

    @property
    def T(self) -> Tensor:
        return registry["transpose"](self, None)

    def squeeze(self, axis: int | None = None) -> Tensor:
        """Drop axes of length 1: `axis`, or all of them."""
        axes = axes_of("squeeze", axis, self.ndim)
        if axis is not None and self.shape[axes[0]] != 1:
            raise ShapeError(f"squeeze: axis {axis} of shape {self.shape} is not of length 1")
        return self.reshape([d for i, d in enumerate(self.shape) if i not in axes or d != 1])

    def expand_dims(self, axis: int) -> Tensor:
        """A new axis of length 1 at `axis`."""
        (at,) = axes_of("expand_dims", axis, self.ndim + 1)
        return self.reshape((*self.shape[:at], 1, *self.shape[at:]))

    def broadcast_to(self, *shape: Any) -> Tensor:
        return registry["broadcast_to"](self, _flat(shape))

    def pad(self, widths: Any, value: float = 0.0) -> Tensor:
        return registry["pad"](self, widths, value)

    # reductions -------------------------------------------------------------------------------
    def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return registry["sum"](self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return registry["mean"](self, axis=axis, keepdims=keepdims)

    def var(self, axis: Any = None, keepdims: bool = False, correction: int = 0) -> Tensor:
        return registry["var"](self, axis=axis, keepdims=keepdims, correction=correction)

    def max(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return registry["max"](self, axis=axis, keepdims=keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return registry["min"](self, axis=axis, keepdims=keepdims)

    def argmax(self, axis: int | None = None) -> Tensor:
        return registry["argmax"](self, axis=axis)

    def argmin(self, axis: int | None = None) -> Tensor:
        return registry["argmax"](registry["neg"](self), axis=axis)

    # elementwise ------------------------------------------------------------------------------
    def exp(self) -> Tensor:
        return registry["exp"](self)

    def log(self) -> Tensor:
        return registry["log"](self)

    def sqrt(self) -> Tensor:
        return registry["sqrt"](self)

    def sin(self) -> Tensor:
        return registry["sin"](self)

    def cos(self) -> Tensor:
        return registry["cos"](self)

    def abs(self) -> Tensor:
        return registry["abs"](self)

    def tanh(self) -> Tensor:
        return registry["tanh"](self)

    def sigmoid(self) -> Tensor:
        return registry["sigmoid"](self)

    def relu(self) -> Tensor:
        return registry["relu"](self)

    def clip(self, low: float | None = None, high: float | None = None) -> Tensor:
        return registry["clip"](self, low, high)

    def softmax(self, axis: int = -1) -> Tensor:
        return registry["softmax"](self, axis=axis)

    def log_softmax(self, axis: int = -1) -> Tensor:
        return registry["log_softmax"](self, axis=axis)

    def astype(self, dtype: Any) -> Tensor:
        return registry["astype"](self, dtype)

    def to(self, device: Any) -> Tensor:
        """The same values on another device; gradients flow back."""
        return registry["to"](cast("Tensor", self), device)


def _flat(shape: tuple) -> Any:
    """Accept x.f(2, 3) and x.f((2, 3))."""
    return shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
