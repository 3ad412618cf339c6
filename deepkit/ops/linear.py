"""Matrix products."""

from __future__ import annotations

from typing import Any

from ..card import Shape, ShapeError, op, sample
from ..tape import Tensor
from .common import broadcast, elements, operands, tensor_in
from .fused import activation_dx, checked_activation
from .reduce import sum as sum_over

# matmul -------------------------------------------------------------------------------------------


def matmul_shape(a: Shape, b: Shape, *, ta: bool, tb: bool) -> tuple[Shape]:
    m, k = (a[-1], a[-2]) if ta else (a[-2], a[-1])
    k2, n = (b[-1], b[-2]) if tb else (b[-2], b[-1])
    if k != k2:
        at, bt = ".T" if ta else "", ".T" if tb else ""
        raise ShapeError(
            f"matmul: inner sizes {k} and {k2} differ   "
            f"(a{at} is {(*a[:-2], m, k)}, b{bt} is {(*b[:-2], k2, n)})"
        )
    return ((*broadcast("matmul", a[:-2], b[:-2]), m, n),)


def matmul_cost(a: Shape, b: Shape, *, ta: bool, tb: bool) -> tuple[float, float]:
    (y,) = matmul_shape(a, b, ta=ta, tb=tb)
    inner = a[-2] if ta else a[-1]
    return 2.0 * elements(y) * inner, elements(a) + elements(b) + elements(y)


def _da(g: Tensor, y: Tensor, a: Tensor, b: Tensor, ta: bool, tb: bool) -> Tensor:
    return product(b, g, ta=tb, tb=True) if ta else product(g, b, tb=not tb)


def _db(g: Tensor, y: Tensor, a: Tensor, b: Tensor, ta: bool, tb: bool) -> Tensor:
    return product(g, a, ta=True, tb=ta) if tb else product(a, g, ta=not ta)


@op(
    "a[...,M,K], b[...,K,N] -> y[...,M,N]",
    shape=matmul_shape,
    grads=(_da, _db),
    cost=matmul_cost,
    samples=(
        sample((4, 3), (3, 5)),
        sample((4, 3), (5, 3), tb=True),
        sample((3, 4), (3, 5), ta=True),
        sample((3, 4), (5, 3), ta=True, tb=True),
        sample((2, 1, 4, 3), (5, 3, 2)),
        sample((1, 1), (1, 1)),
        sample((17, 33), (33, 19)),
        *(sample((n, n), (n, n), bench=True) for n in (128, 512, 1024)),
    ),
    called="matmul",
)
def product(a: Any, b: Any, ta: bool = False, tb: bool = False) -> Any:
    """y = a @ b over the last two axes, either one read transposed; leading axes broadcast."""
    return (tensor_in("matmul", a, "a"), tensor_in("matmul", b, "b")), dict(ta=ta, tb=tb)


@op(
    "a[...], b[...] -> y[...]",
    composite=True,
    samples=(sample((4, 3), (3,)), sample((3,), (3, 2)), sample((3,), (3,))),
)
def matmul(a: Any, b: Any) -> Any:
    """y[..., m, n] = sum_k a[..., m, k] * b[..., k, n], as NumPy's @.

    a (..., M, K), b (..., K, N) -> (..., M, N); leading axes broadcast; an operand with one axis
    is a row on the left and a column on the right, and its axis is dropped from the result.
    """
    a, b = operands("matmul", a, b)
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeError("matmul: a scalar has no matrix product; use *")
    row, column = a.ndim == 1, b.ndim == 1
    y = product(a.expand_dims(0) if row else a, b.expand_dims(1) if column else b)
    if row and column:
        return y.reshape(y.shape[:-2])
    if row:
        return y.reshape((*y.shape[:-2], y.shape[-1]))
    return y.reshape(y.shape[:-1]) if column else y


# linear -------------------------------------------------------------------------------------------


def linear_shape(x: Shape, w: Shape, b: Shape | None, *, activation: str | None) -> tuple[Shape]:
    if len(x) < 2 or len(w) != 2:
        raise ShapeError(f"linear: x is {x} and w {w}, expected x (N, ..., in) and w (out, in)")
    if x[-1] != w[1]:
        raise ShapeError(
            f"linear: x has {x[-1]} features but w expects {w[1]}   "
            f"(x {x} is N,in; w {w} is out,in)"
        )
    if b is not None and b != (w[0],):
        raise ShapeError(f"linear: b is {b} but w has {w[0]} outputs   (w {w} is out,in)")
    return ((*x[:-1], w[0]),)


def _linear_cost(x: Shape, w: Shape, b: Shape | None, **_: Any) -> tuple[float, float]:
    rows = elements(x[:-1])
    return 2.0 * rows * elements(w), elements(x) + elements(w) + rows * w[0]


@op(
    "x[N,...,I], w[O,I], b[O]? -> y[N,...,O]",
    shape=linear_shape,
    incoming=lambda g, y, activation: activation_dx(g, y, activation),
    grads=(
        lambda g, y, x, w, b, activation: linear_dx(g, w),
        lambda g, y, x, w, b, activation: linear_dw(g, x),
        lambda g, y, x, w, b, activation: sum_over(g, axis=tuple(range(g.ndim - 1))),
    ),
    cost=_linear_cost,
    samples=(
        sample((4, 3), (5, 3), (5,)),
        sample((1, 7), (3, 7), None),
        sample((19, 33), (18, 33), (18,), activation="relu"),
        sample((3, 2, 5), (4, 5), (4,), activation="tanh"),
        sample((128, 784), (256, 784), (256,), activation="relu", bench=True),
    ),
    options=dict(activation=[None, "relu", "tanh", "sigmoid"]),
)
def linear(x: Any, w: Any, b: Any = None, activation: str | None = None) -> Any:
    """y[n, o] = act(b[o] + sum_i w[o, i] * x[n, i]).

    x (N, ..., in) or (in,), w (out, in), b (out,) or None -> (N, ..., out) or (out,).
    activation: None, "relu", "tanh" or "sigmoid", computed in the same pass.
    """
    x, w = tensor_in("linear", x), tensor_in("linear", w, "w")
    if x.ndim == 1 and w.ndim == 2:
        return linear(x.expand_dims(0), w, b, activation).reshape((w.shape[0],))
    return (x, w, b), dict(activation=checked_activation("linear", activation))


@op(
    "g[N,...,O], w[O,I] -> dx[N,...,I]",
    shape=lambda g, w: ((*g[:-1], w[1]),),
    grads=(lambda h, dx, g, w: linear(h, w), lambda h, dx, g, w: linear_dw(g, h)),
    cost=lambda g, w: (2.0 * elements(g[:-1]) * elements(w), elements(g) + elements(w)),
    samples=(sample((4, 5), (5, 3)), sample((19, 18), (18, 33)), sample((3, 2, 4), (4, 5))),
)
def linear_dx(g: Any, w: Any) -> Any:
    """dx[n, i] = sum_o g[n, o] * w[o, i]."""
    return (g, w), {}


@op(
    "g[N,...,O], x[N,...,I] -> dw[O,I]",
    shape=lambda g, x: ((g[-1], x[-1]),),
    grads=(lambda h, dw, g, x: linear(x, h), lambda h, dw, g, x: linear_dx(g, h)),
    cost=lambda g, x: (2.0 * elements(g) * x[-1], elements(g) + elements(x)),
    samples=(sample((4, 5), (4, 3)), sample((19, 18), (19, 33)), sample((3, 2, 4), (3, 2, 5))),
)
def linear_dw(g: Any, x: Any) -> Any:
    """dw[o, i] = sum_n g[n, o] * x[n, i]."""
    return (g, x), {}
