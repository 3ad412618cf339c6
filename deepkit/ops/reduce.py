"""Reductions over axes, and their opposite, broadcasting."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..card import Shape, ShapeError, axes_of, distinct, op, sample
from ..tape import Tensor
from .common import broadcast, elements, tensor_in
from .elementwise import astype

INT = np.dtype(np.int64)


def reduced(x: Shape, *, axes: tuple[int, ...], keepdims: bool) -> tuple[Shape]:
    if keepdims:
        return (tuple(1 if i in axes else d for i, d in enumerate(x)),)
    return (tuple(d for i, d in enumerate(x) if i not in axes),)


def _kept_shape(x: Shape, axes: tuple[int, ...]) -> Shape:
    return reduced(x, axes=axes, keepdims=True)[0]


SAMPLES = (
    sample((4, 3)),
    sample((4, 3), axis=0),
    sample((2, 3, 5), axis=-1),
    sample((2, 3, 5), axis=(0, 2), keepdims=True),
    sample((5, 4, 3, 2), axis=(1, 2)),
    sample(()),
)
MAX_SAMPLES = (
    sample(distinct(4, 3)),
    sample(distinct(4, 3), axis=0),
    sample(distinct(2, 3, 5), axis=-1),
    sample(distinct(2, 3, 5), axis=(0, 2), keepdims=True),
)


def _cost(x: Shape, **_: Any) -> tuple[float, float]:
    return elements(x), elements(x)


@op(
    "x[...] -> y[...]",
    shape=reduced,
    dtype=lambda x, **_: (INT if x.kind in "iub" else x,),
    grads=(lambda g, y, x, axes, keepdims: expand(g, x.shape, axes),),
    cost=_cost,
    samples=(*SAMPLES, sample((64, 32, 32, 64), axis=(0, 1, 2), bench=True)),
)
def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """y = the sum over `axis` (an int, several, or all)."""
    x = tensor_in("sum", x)
    return (x,), dict(axes=axes_of("sum", axis, x.ndim), keepdims=bool(keepdims))


@op(
    "x[...] -> y[...]",
    shape=reduced,
    grads=(
        lambda g, y, x, axes, keepdims: expand(
            g * (1.0 / elements([x.shape[a] for a in axes])), x.shape, axes
        ),
    ),
    cost=_cost,
    samples=SAMPLES,
)
def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """y = the mean over `axis` (an int, several, or all)."""
    x = tensor_in("mean", x)
    axes = axes_of("mean", axis, x.ndim)
    _not_empty("mean", x, axes)
    if x.dtype.kind != "f":
        x = astype(x, np.float32)
    return (x,), dict(axes=axes, keepdims=bool(keepdims))


def _extreme_grad(g: Any, y: Any, x: Any, axes: Any, keepdims: bool) -> Any:
    """The gradient goes to the extreme element; equal ones share it."""
    top = expand(y, x.shape, axes)
    hit = astype(x == top, x.dtype)
    return expand(g, x.shape, axes) * hit / sum(hit, axis=axes, keepdims=True)


def _extreme(name: str, doc: str) -> Any:
    def prepare(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        x = tensor_in(name, x)
        axes = axes_of(name, axis, x.ndim)
        _not_empty(name, x, axes)
        return (x,), dict(axes=axes, keepdims=bool(keepdims))

    prepare.__name__, prepare.__doc__ = name, doc
    return op(
        "x[...] -> y[...]",
        shape=reduced,
        dtype=lambda x, **_: (x,),
        grads=(_extreme_grad,),
        cost=_cost,
        samples=MAX_SAMPLES,
        exact=True,
    )(prepare)


max = _extreme("max", "y = the largest element along `axis`; NaN if one is; ties share gradients.")
min = _extreme("min", "y = the smallest element along `axis`; NaN if one is; ties share gradients.")


@op(
    "x[...] -> index[...]",
    shape=reduced,
    dtype=lambda x, **_: (INT,),
    samples=(sample(distinct(4, 3), axis=1), sample(distinct(2, 3, 5), axis=0), sample((4, 3))),
    exact=True,
)
def argmax(x: Any, axis: int | None = None) -> Any:
    """The index of the first largest element along `axis`, or in the flattened tensor -> int64."""
    x = tensor_in("argmax", x)
    if axis is None:
        x = x.reshape(-1)
        axis = 0
    axes = axes_of("argmax", axis, x.ndim)
    _not_empty("argmax", x, axes)
    return (x,), dict(axes=axes, keepdims=False)


def _not_empty(name: str, x: Tensor, axes: tuple[int, ...]) -> None:
    if any(x.shape[a] == 0 for a in axes):
        raise ShapeError(f"{name}: nothing to reduce over axis {axes} of shape {x.shape}")


@op("x[...] -> y[...]", composite=True, samples=(sample((4, 3)), sample((5, 3), axis=0)))
def var(x: Any, axis: Any = None, keepdims: bool = False, correction: int = 0) -> Any:
    """The variance over `axis`: the sum of squared distances from the mean, over n - correction."""
    x = tensor_in("var", x)
    axes = axes_of("var", axis, x.ndim)
    count = elements([x.shape[a] for a in axes])
    if count <= correction:
        raise ShapeError(f"var: {count} elements are too few for a correction of {correction}")
    distance = x - mean(x, axis=axes, keepdims=True)
    return sum(distance * distance, axis=axes, keepdims=keepdims) * (1.0 / (count - correction))


# broadcasting -------------------------------------------------------------------------------------


def _broadcast_shape(x: Shape, *, shape: Shape) -> tuple[Shape]:
    if broadcast("broadcast_to", x, shape) != shape:
        raise ShapeError(f"broadcast_to: {x} does not broadcast to {shape}")
    return (shape,)


@op(
    "x[...] -> y[...]",
    shape=_broadcast_shape,
    dtype=lambda x, **_: (x,),
    grads=(lambda g, y, x, shape: g if g.shape == x.shape else sum_to(g, x.shape),),
    samples=(sample((3,), (4, 3)), sample((2, 1, 3), (2, 5, 3)), sample((), (2, 2))),
    exact=True,
)
def broadcast_to(x: Any, shape: Any) -> Any:
    """x repeated along axes of length 1 and new leading axes, so that it has `shape`."""
    return (tensor_in("broadcast_to", x),), dict(shape=tuple(int(d) for d in shape))


@op(
    "x[...] -> y[...]",
    shape=lambda x, *, shape: (_broadcast_shape(shape, shape=x) and shape,),
    grads=(lambda g, y, x, shape: broadcast_to(g, x.shape),),
    cost=_cost,
    samples=(sample((4, 3), (3,)), sample((2, 5, 3), (2, 1, 3)), sample((2, 2), ())),
)
def sum_to(x: Any, shape: Any) -> Any:
    """The opposite of broadcast_to: the sum over the axes along which `shape` would be repeated."""
    return (tensor_in("sum_to", x),), dict(shape=tuple(int(d) for d in shape))


def expand(g: Tensor, shape: Shape, axes: tuple[int, ...]) -> Tensor:
    """A reduced tensor, repeated again along the axes that were reduced."""
    return broadcast_to(g.reshape(_kept_shape(shape, axes)), shape)
