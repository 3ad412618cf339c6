"""What a tensor can be asked: operators and methods, each a name for an op in the registry."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .card import ShapeError, axes_of, registry
from .spellings import explained, missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .tape import Tensor


# NumPy's functions that are ops here: of two operands, of one float tensor, and as methods
UFUNCS = {"subtract": "sub", "multiply": "mul", "divide": "div", "power": "pow"}
UFUNCS |= {name: name for name in ("add", "matmul", "less", "less_equal", "greater")}
UFUNCS |= {name: name for name in ("greater_equal", "equal", "not_equal", "maximum", "minimum")}
FLOAT_UFUNCS = {"absolute": "abs", "negative": "neg"}
FLOAT_UFUNCS |= {name: name for name in ("exp", "log", "sqrt", "sin", "cos", "tanh")}
FUNCTIONS = {"amax": "max", "amin": "min", "shape": "shape", "ndim": "ndim", "size": "size"}
FUNCTIONS |= {name: name for name in ("sum", "mean", "var", "max", "min", "argmax", "argmin")}
FUNCTIONS |= {name: name for name in ("reshape", "transpose", "squeeze", "expand_dims", "clip")}


class Methods:
    """Mixed into Tensor.  Where PyTorch has the name, it means the same, with `axis` for `dim`."""

    __slots__ = ()

    if TYPE_CHECKING:
        shape: tuple[int, ...]
        dtype: np.dtype

        @property
        def ndim(self) -> int: ...
        @property
        def requires_grad(self) -> bool: ...
        def numpy(self) -> np.ndarray: ...
        def item(self) -> Any: ...
    else:

        def __getattr__(self, name: str) -> Any:
            missing(self, name)

    # arithmetic -------------------------------------------------------------------------------
    def __add__(self, other: Any) -> Tensor:
        """y = self + other."""
        return registry["add"](self, other)

    def __radd__(self, other: Any) -> Tensor:
        """y = other + self."""
        return registry["add"](other, self)

    def __sub__(self, other: Any) -> Tensor:
        """y = self - other."""
        return registry["sub"](self, other)

    def __rsub__(self, other: Any) -> Tensor:
        """y = other - self."""
        return registry["sub"](other, self)

    def __mul__(self, other: Any) -> Tensor:
        """y = self * other, elementwise."""
        return registry["mul"](self, other)

    def __rmul__(self, other: Any) -> Tensor:
        """y = other * self, elementwise."""
        return registry["mul"](other, self)

    def __truediv__(self, other: Any) -> Tensor:
        """y = self / other, always a float."""
        return registry["div"](self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        """y = other / self, always a float."""
        return registry["div"](other, self)

    def __pow__(self, other: Any) -> Tensor:
        """y = self ** other, elementwise."""
        if isinstance(other, int) and other == 2:
            return registry["mul"](self, self)
        return registry["pow"](self, other)

    def __rpow__(self, other: Any) -> Tensor:
        """y = other ** self, elementwise."""
        return registry["pow"](other, self)

    def __matmul__(self, other: Any) -> Tensor:
        """The matrix product: (..., M, K) @ (..., K, N) -> (..., M, N)."""
        return registry["matmul"](self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        """The matrix product other @ self."""
        return registry["matmul"](other, self)

    def __neg__(self) -> Tensor:
        """y = -self."""
        return registry["neg"](self)

    def __abs__(self) -> Tensor:
        """y = |self|."""
        return registry["abs"](self)

    # comparisons, elementwise, -> bool tensors -------------------------------------------------
    def __lt__(self, other: Any) -> Tensor:
        """self < other, elementwise -> bool."""
        return registry["less"](self, other)

    def __le__(self, other: Any) -> Tensor:
        """self <= other, elementwise -> bool."""
        return registry["less_equal"](self, other)

    def __gt__(self, other: Any) -> Tensor:
        """self > other, elementwise -> bool."""
        return registry["greater"](self, other)

    def __ge__(self, other: Any) -> Tensor:
        """self >= other, elementwise -> bool."""
        return registry["greater_equal"](self, other)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        """self == other, elementwise -> bool.  None is no number: False."""
        if other is None:  # as in `x in [None, ...]`
            return cast("Tensor", False)
        return registry["equal"](self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        """self != other, elementwise -> bool.  None is no number: True."""
        if other is None:
            return cast("Tensor", True)
        return registry["not_equal"](self, other)

    __hash__ = object.__hash__

    # the host ---------------------------------------------------------------------------------
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a tensor's values are always copied to the host")
        values = self._leaving("NumPy")
        return values if dtype is None else values.astype(dtype)

    __array_priority__ = 1000  # numpy_array * tensor is the tensor's business

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """np.exp(x), array + x, ...: an op where there is one, else NumPy's own, of the values."""
        name = UFUNCS.get(ufunc.__name__)
        if self.dtype.kind == "f" and name is None:
            name = FLOAT_UFUNCS.get(ufunc.__name__)
        if method == "__call__" and name is not None and not kwargs:
            return registry[name](*inputs)
        what = f"np.{ufunc.__name__}"
        return getattr(ufunc, method)(*_plain(inputs, what), **_plain(kwargs, what))

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """np.sum(x), np.stack([x, y]), ...: a method where it has the options, else NumPy's own."""
        name = FUNCTIONS.get(function.__name__)
        if name is not None and args and isinstance(args[0], Methods):
            own = getattr(args[0], name)
            if not callable(own):
                return own
            try:
                inspect.signature(own).bind(*args[1:], **kwargs)
            except TypeError:  # an option that only NumPy has
                pass
            else:
                return own(*args[1:], **kwargs)
        what = f"np.{function.__name__}"
        return function(*_plain(args, what), **_plain(kwargs, what))

    def _leaving(self, what: str) -> np.ndarray:
        """The values for what computes on the host, where gradients would end without a word."""
        from .tensor import mode  # which is made of this module

        if self.requires_grad and mode.grad and mode.log is None:
            raise RuntimeError(
                f"{what} would take the values of a tensor that requires gradients to the host, "
                "where no gradient is recorded; use dk.ops, or x.detach() if none is wanted"
            )
        return self.numpy()

    def __dlpack__(self, **options: Any) -> Any:
        return self.numpy().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # the values are handed over in host memory

    def __bool__(self) -> bool:
        if math.prod(self.shape) != 1:
            raise ValueError(
                f"the truth of a tensor of shape {self.shape} is not clear; say what of it is "
                "meant, such as x.sum() > 0 or (x > 0).min()"
            )
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    def __len__(self) -> int:
        """The length of the first axis."""
        if not self.shape:
            raise TypeError("len() of a tensor without axes")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        """x[0], x[1], ... along the first axis."""
        return (self[i] for i in range(len(self)))

    def tolist(self) -> Any:
        """The values as nested Python lists; a number for a tensor without axes."""
        return self.numpy().tolist()

    # shape ------------------------------------------------------------------------------------
    def __getitem__(self, index: Any) -> Tensor:
        """x[index], a copy: integers, slices, `...`, None, integer lists or tensors, a mask."""
        return registry["getitem"](self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        """A TypeError that names what makes a changed tensor."""
        raise TypeError(
            "a tensor does not support item assignment; make a new one with dk.ops.where, or write "
            "all of it with x.write(values)"
        )

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in row-major order, a view: reshape(2, -1) or reshape((2, -1))."""
        return registry["reshape"](self, _flat(shape))

    @explained
    def flatten(self, start: int = 0) -> Tensor:
        """Join the axes from `start` on: (A, B, C).flatten(1) -> (A, B * C)."""
        return registry["reshape"](self, (*self.shape[:start], math.prod(self.shape[start:])))

    def transpose(self, *axes: Any) -> Tensor:
        """y[i_axes[0], i_axes[1], ...] = x[i_0, i_1, ...]; without arguments, all in reverse."""
        return registry["transpose"](self, _flat(axes) or None)

    @property
    def T(self) -> Tensor:
        """The axes in reverse: (A, B) -> (B, A)."""
        return registry["transpose"](self, None)

    @explained
    def squeeze(self, axis: int | None = None) -> Tensor:
        """Drop axes of length 1: `axis`, or all of them."""
        axes = axes_of("squeeze", axis, self.ndim)
        if axis is not None and self.shape[axes[0]] != 1:
            raise ShapeError(f"squeeze: axis {axis} of shape {self.shape} is not of length 1")
        return self.reshape([d for i, d in enumerate(self.shape) if i not in axes or d != 1])

    @explained
    def expand_dims(self, axis: int) -> Tensor:
        """A new axis of length 1 at `axis`."""
        (at,) = axes_of("expand_dims", axis, self.ndim + 1)
        return self.reshape((*self.shape[:at], 1, *self.shape[at:]))

    def broadcast_to(self, *shape: Any) -> Tensor:
        """The values repeated along axes of length 1 and new leading ones -> `shape`."""
        return registry["broadcast_to"](self, _flat(shape))

    @explained
    def pad(self, widths: Any, value: float = 0.0) -> Tensor:
        """A border of `value`: `widths` is one number, or (before, after) for every axis."""
        return registry["pad"](self, widths, value)

    # reductions -------------------------------------------------------------------------------
    @explained
    def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """y = the sum over `axis`; keepdims leaves axes of length 1."""
        return registry["sum"](self, axis=axis, keepdims=keepdims)

    @explained
    def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """y = the sum over `axis` / how many they are."""
        return registry["mean"](self, axis=axis, keepdims=keepdims)

    @explained
    def var(self, axis: Any = None, keepdims: bool = False, correction: int = 0) -> Tensor:
        """y = the sum of (x - mean)^2 over `axis` / (n - correction)."""
        return registry["var"](self, axis=axis, keepdims=keepdims, correction=correction)

    @explained
    def max(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """y = the largest element along `axis`; ties share the gradient."""
        return registry["max"](self, axis=axis, keepdims=keepdims)

    @explained
    def min(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """y = the smallest element along `axis`; ties share the gradient."""
        return registry["min"](self, axis=axis, keepdims=keepdims)

    @explained
    def argmax(self, axis: int | None = None) -> Tensor:
        """The index of the first largest element along `axis`, or of all -> int64."""
        return registry["argmax"](self, axis=axis)

    @explained
    def argmin(self, axis: int | None = None) -> Tensor:
        """The index of the first smallest element along `axis`, or of all -> int64."""
        if self.dtype.kind == "f":
            return registry["argmax"](registry["neg"](self), axis=axis)
        # the negative of a whole number or a truth value may not exist
        return registry["argmax"](self == self.min(axis=axis, keepdims=True), axis=axis)

    # elementwise ------------------------------------------------------------------------------
    def exp(self) -> Tensor:
        """y = e^x."""
        return registry["exp"](self)

    def log(self) -> Tensor:
        """y = ln x."""
        return registry["log"](self)

    def sqrt(self) -> Tensor:
        """y = x^(1/2)."""
        return registry["sqrt"](self)

    def sin(self) -> Tensor:
        """y = sin x, x in radians."""
        return registry["sin"](self)

    def cos(self) -> Tensor:
        """y = cos x, x in radians."""
        return registry["cos"](self)

    def abs(self) -> Tensor:
        """y = |x|."""
        return registry["abs"](self)

    def tanh(self) -> Tensor:
        """y = (e^x - e^-x) / (e^x + e^-x)."""
        return registry["tanh"](self)

    def sigmoid(self) -> Tensor:
        """y = 1 / (1 + e^-x)."""
        return registry["sigmoid"](self)

    def relu(self) -> Tensor:
        """y = max(x, 0)."""
        return registry["relu"](self)

    @explained
    def clip(self, low: float | None = None, high: float | None = None) -> Tensor:
        """y = min(max(x, low), high); None leaves that side open."""
        return registry["clip"](self, low, high)

    @explained
    def softmax(self, axis: int = -1) -> Tensor:
        """y_i = e^x_i / sum_j e^x_j along `axis`."""
        return registry["softmax"](self, axis=axis)

    @explained
    def log_softmax(self, axis: int = -1) -> Tensor:
        """y_i = x_i - ln sum_j e^x_j along `axis`."""
        return registry["log_softmax"](self, axis=axis)

    def astype(self, dtype: Any) -> Tensor:
        """The values as another dtype, such as "float64"; gradients flow back between floats."""
        return registry["astype"](self, dtype)

    def to(self, device: Any) -> Tensor:
        """The same values on another device; gradients flow back."""
        return registry["to"](cast("Tensor", self), device)


for _method in vars(Methods).values():  # which is what messages call it
    if inspect.isfunction(_method):
        _method.__qualname__ = f"Tensor.{_method.__name__}"


def _flat(shape: tuple) -> Any:
    """Accept x.f(2, 3) and x.f((2, 3))."""
    return shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape


def _plain(tree: Any, what: str) -> Any:
    """Host values in the place of tensors, also in lists, tuples and dictionaries."""
    if isinstance(tree, Methods):
        return tree._leaving(what)
    if isinstance(tree, list):
        return [_plain(value, what) for value in tree]
    if isinstance(tree, tuple):
        return tuple(_plain(value, what) for value in tree)
    if isinstance(tree, dict):
        out = tree.get("out")
        if any(isinstance(o, Methods) for o in (out if isinstance(out, tuple) else (out,))):
            raise TypeError(f"{what}: a tensor cannot be `out`; use x.write(values)")
        return {key: _plain(value, what) for key, value in tree.items()}
    return tree
