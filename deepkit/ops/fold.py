"""What inference makes of weights once: `deepkit/inference.py`."""

from __future__ import annotations

from typing import Any

from ..card import Shape, ShapeError, op, positive, sample
from ..tape import Tensor
from .elementwise import sqrt
from .formula import by_formula
from .shape import reshape


def _fold_shape(w: Shape, *vectors: Shape | None, eps: float) -> tuple[Shape, Shape]:
    for name, s in zip(("b", "gamma", "beta", "mean", "var"), vectors, strict=True):
        if s is not None and s != w[:1]:
            raise ShapeError(
                f"fold_batch_norm: {name} is {s} but w has {w[0]} outputs   (w {w} is K,...)"
            )
    return w, w[:1]


def _formula(
    w: Tensor, b: Any, gamma: Any, beta: Any, mean: Tensor, var: Tensor, *, eps: float
) -> tuple[Tensor, Tensor]:
    scale = 1.0 / sqrt(var + eps)
    if gamma is not None:
        scale = gamma * scale
    shift = (-mean if b is None else b - mean) * scale
    rows = reshape(scale, (w.shape[0], *(1,) * (w.ndim - 1)))
    return w * rows, shift if beta is None else shift + beta


@op(
    "w[K,...], b[K]?, gamma[K]?, beta[K]?, mean[K], var[K] -> y[K,...], shift[K]",
    shape=_fold_shape,
    together=by_formula(_formula),
    samples=(
        sample((4, 3, 3, 2), (4,), (4,), (4,), (4,), positive(4)),
        sample((5, 7), None, (5,), (5,), (5,), positive(5), eps=1e-3),
        sample((3, 2, 1, 19), (3,), None, None, (3,), positive(3)),
        sample((1, 1), None, None, (1,), (1,), positive(1)),
    ),
    options=dict(eps=[1e-5, 1e-3]),
)
def fold_batch_norm(
    w: Any, b: Any, gamma: Any, beta: Any, mean: Any, var: Any, *, eps: float = 1e-5
) -> Any:
    """y = w * s and shift = (b - mean) * s + beta with s = gamma / sqrt(var + eps), by rows of w.

    The filters w[K, ...] and the bias b[K] of a product, which then gives what a batch norm by
    running statistics would make of it:  x * y + shift = batch_norm(x * w + b).  -> (w's, (K,)).
    s is computed in float64.
    """
    return (w, b, gamma, beta, mean, var), dict(eps=float(eps))
