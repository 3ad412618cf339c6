"""Softmax, and the losses."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..card import WHOLE, Shape, ShapeError, axes_of, integers, normal, op, probabilities, sample
from ..tape import Tensor, look
from .common import elements, operands, tensor_in, tensor_on
from .elementwise import abs, astype, equal, exp, full_like, softplus, where
from .reduce import mean
from .reduce import sum as sum_over

INT = np.dtype(np.int64)
UNSIGNED = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}
REDUCTIONS = ("mean", "sum", "none")

# softmax ------------------------------------------------------------------------------------------


def _cost(operations: float, arrays: int) -> Any:
    return lambda x, *_, **__: (operations * elements(x), float(arrays * elements(x)))


def _same_shapes(name: str) -> Any:
    def shape(g: Shape, y: Shape, **_: Any) -> tuple[Shape]:
        if g != y:
            raise ShapeError(f"{name}: g is {g} but y is {y}")
        return (y,)

    return shape


def _one_axis(name: str, x: Tensor, axis: Any) -> int:
    if not isinstance(axis, WHOLE) or x.ndim == 0:
        raise ShapeError(f"{name}: expected one axis of a tensor with axes, not axis {axis!r}")
    return axes_of(name, axis, x.ndim)[0]


SOFTMAX_SAMPLES = (
    sample((4, 3)),
    sample((2, 3, 5), axis=1),
    sample((5, 3), axis=0),
    sample((3, 2, 1, 7), axis=-1),
    sample((6,)),
    sample(normal(3, 5, scale=200.0)),
)
DX_SAMPLES = (
    sample((4, 3), (4, 3)),
    sample((2, 3, 5), (2, 3, 5), axis=1),
    sample((5, 3), (5, 3), axis=0),
    sample((6,), (6,)),
)


@op(
    "x[N,...] -> y[N,...]",
    grads=(lambda g, y, x, axis: softmax_dx(g, y, axis),),
    cost=_cost(12, 2),
    samples=(*SOFTMAX_SAMPLES, *(sample((n, 1000), bench=True) for n in (128, 4096))),
    options=dict(axis=[0, -1]),
)
def softmax(x: Any, axis: int = -1) -> Any:
    """y_i = e^x_i / sum_j e^x_j along `axis`, without overflow at any finite x.

    x of any shape with axes -> the same shape.
    """
    x = tensor_in("softmax", x)
    return (x,), dict(axis=_one_axis("softmax", x, axis))


@op(
    "g[N,...], y[N,...] -> dx[N,...]",
    shape=_same_shapes("softmax_dx"),
    grads=(
        lambda h, dx, g, y, axis: softmax_dx(h, y, axis),
        lambda h, dx, g, y, axis: h * g - h * _dot(g, y, axis) - g * _dot(h, y, axis),
    ),
    cost=_cost(4, 3),
    samples=DX_SAMPLES,
)
def softmax_dx(g: Any, y: Any, axis: int = -1) -> Any:
    """dx_i = y_i * (g_i - sum_j g_j * y_j) along `axis`, y being the softmax."""
    return (g, y), dict(axis=_one_axis("softmax_dx", y, axis))


def _dot(a: Tensor, b: Tensor, axis: int) -> Tensor:
    return sum_over(a * b, axis=axis, keepdims=True)


@op(
    "x[N,...] -> y[N,...]",
    grads=(lambda g, y, x, axis: log_softmax_dx(g, y, axis),),
    cost=_cost(12, 2),
    samples=SOFTMAX_SAMPLES,
    options=dict(axis=[0, -1]),
)
def log_softmax(x: Any, axis: int = -1) -> Any:
    """y_i = x_i - ln sum_j e^x_j along `axis`, without overflow at any finite x.

    x of any shape with axes -> the same shape.
    """
    x = tensor_in("log_softmax", x)
    return (x,), dict(axis=_one_axis("log_softmax", x, axis))


@op(
    "g[N,...], y[N,...] -> dx[N,...]",
    shape=_same_shapes("log_softmax_dx"),
    grads=(
        lambda h, dx, g, y, axis: h - _dot(h, exp(y), axis),
        lambda h, dx, g, y, axis: -(h * exp(y) * sum_over(g, axis=axis, keepdims=True)),
    ),
    cost=_cost(13, 3),
    samples=DX_SAMPLES,
)
def log_softmax_dx(g: Any, y: Any, axis: int = -1) -> Any:
    """dx_i = g_i - e^y_i * sum_j g_j along `axis`, y being the log-softmax."""
    return (g, y), dict(axis=_one_axis("log_softmax_dx", y, axis))


# cross entropy ------------------------------------------------------------------------------------


def _loss_shape(name: str, x: Shape, labels: Shape, reduction: str, what: str) -> Shape:
    if len(x) < 2 or x[-1] == 0:
        raise ShapeError(f"{name}: {what} is {x}, expected (N, ..., classes)")
    if labels != x[:-1]:
        raise ShapeError(
            f"{name}: {what} {x} needs labels of shape {x[:-1]}, not {labels}   "
            f"({what} is N,...,C; labels are N,...)"
        )
    if reduction == "mean" and elements(labels) == 0:
        raise ShapeError(f"{name}: no mean over no labels   ({what} is {x})")
    return labels if reduction == "none" else ()


def _labelled_shape(
    logits: Shape, labels: Shape, *, reduction: str, label_smoothing: float
) -> tuple[Shape]:
    return (_loss_shape("cross_entropy", logits, labels, reduction, "logits"),)


def _labelled_dx_shape(
    g: Shape, logits: Shape, labels: Shape, *, reduction: str, label_smoothing: float
) -> tuple[Shape]:
    y = _loss_shape("cross_entropy", logits, labels, reduction, "logits")
    if g != y:
        raise ShapeError(f"cross_entropy: its gradient is {g}, expected {y}")
    return (logits,)


def _spread(g: Tensor, logits: Tensor, reduction: str) -> Tensor:
    """The gradient that reaches every row, as a tensor that broadcasts over the logits."""
    rows = elements(logits.shape[:-1])
    if reduction == "none":
        return g.expand_dims(-1)
    return g * (1.0 / rows) if reduction == "mean" else g


def _dg(h: Tensor, dx: Tensor, g: Tensor, logits: Tensor, labels: Tensor, **params: Any) -> Tensor:
    """dx is linear in g: its slope is dx at g = 1."""
    slope = h * label_cross_entropy_dx(full_like(g, value=1.0), logits, labels, **params)
    return sum_over(slope, axis=-1) if params["reduction"] == "none" else sum_over(slope)


def _dlogits(h: Tensor, dx: Tensor, g: Tensor, logits: Tensor, labels: Tensor, **p: Any) -> Tensor:
    return softmax_dx(h * _spread(g, logits, p["reduction"]), softmax(logits))


LABELLED = (
    sample((4, 3), integers(4, high=3)),
    sample((4, 3), integers(4, high=3), reduction="sum"),
    sample((5, 7), integers(5, high=7), reduction="none", label_smoothing=0.1),
    sample((2, 3, 2, 5), integers(2, 3, 2, high=5), label_smoothing=0.3),
    sample((2, 3, 5), integers(2, 3, high=5), reduction="none"),
    sample((3, 1), integers(3, high=1)),
)
OPTIONS: dict[str, Any] = dict(reduction=list(REDUCTIONS), label_smoothing=[0.0, 0.1, 1.0])


@op(
    "logits[N,...,C], labels[N,...] -> y[...]",
    shape=_labelled_shape,
    grads=(lambda g, y, *ins, **params: label_cross_entropy_dx(g, *ins, **params), None),
    cost=_cost(12, 1),
    samples=(
        *LABELLED,
        sample(normal(3, 5, scale=200.0), integers(3, high=5)),
        sample((128, 10), integers(128, high=10), bench=True),
        sample((128, 1000), integers(128, high=1000), bench=True),
        sample((4096, 1000), integers(4096, high=1000), bench=True),
    ),
    options=OPTIONS,
)
def label_cross_entropy(
    logits: Any, labels: Any, *, reduction: str = "mean", label_smoothing: float = 0.0
) -> Any:
    """Cross entropy against class labels: the kernel of `cross_entropy`.

    With p = softmax(logits) along the last axis and a row's label t, its loss is
    -(1 - s) ln p_t - s/C sum_c ln p_c, s = label_smoothing.
    logits (N, ..., C), labels int64 (N, ...) -> (), or (N, ...) with reduction "none".

    Kernels read nothing outside of the logits: the loss of a row whose label is out of range is
    NaN, and so is its gradient.  Labels in the host's memory are looked at here, and a wrong one
    is a ValueError; see `cross_entropy`.
    """
    logits = tensor_in("cross_entropy", logits, "logits")
    labels = _labels("cross_entropy", labels, logits.shape[-1] if logits.ndim else 0)
    return (logits, labels), _loss_params("cross_entropy", reduction, label_smoothing)


@op(
    "g[...], logits[N,...,C], labels[N,...] -> dx[N,...,C]",
    shape=_labelled_dx_shape,
    grads=(_dg, _dlogits, None),
    cost=lambda g, x, labels, **_: (14.0 * elements(x), 2.0 * elements(x)),
    samples=[
        s._replace(args=((s.args[1].shape if s.params.get("reduction") == "none" else ()), *s.args))
        for s in LABELLED
    ],
    options=OPTIONS,
)
def label_cross_entropy_dx(
    g: Any, logits: Any, labels: Any, *, reduction: str = "mean", label_smoothing: float = 0.0
) -> Any:
    """dx = g * (softmax(logits) - q), over the number of rows for "mean".

    q is 1 - s + s/C at the label and s/C elsewhere; the softmax is recomputed, nothing is kept.
    """
    return (g, logits, labels), _loss_params("cross_entropy", reduction, label_smoothing)


def _loss_params(name: str, reduction: str, label_smoothing: float) -> dict[str, Any]:
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"{name}: label_smoothing must be from 0 to 1, not {label_smoothing}")
    return dict(reduction=_reduction(name, reduction), label_smoothing=float(label_smoothing))


def _labels(name: str, labels: Any, classes: int) -> Tensor:
    labels = tensor_in(name, labels, "target")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name}: labels must be integers, not {labels.dtype}")
    plain = UNSIGNED[labels.dtype.itemsize]
    bound = min(classes, 2 ** (8 * plain.itemsize - (labels.dtype.kind == "i")))

    def check(values: np.ndarray) -> None:
        # read without its sign, -1 is the largest of all; the ufunc is the fastest way to ask
        if values.size and np.maximum.reduce(values.view(plain), axis=None) >= bound:
            wrong = values[(values < 0) | (values >= classes)].flat[0]
            raise ValueError(f"{name}: label {wrong} is out of range for {classes} classes")

    look(labels, check)
    return labels if labels.dtype == INT else astype(labels, INT)


@op(
    "logits[N,...,C], target[N,...] -> y[...]",
    composite=True,
    samples=(
        sample((4, 3), integers(4, high=3)),
        sample((4, 3), probabilities(4, 3)),
        sample((2, 3, 5), probabilities(2, 3, 5), reduction="none", label_smoothing=0.2),
        sample((4, 3), probabilities(4, 3), reduction="sum", label_smoothing=0.1),
    ),
    options=OPTIONS,
)
def cross_entropy(
    logits: Any, target: Any, *, reduction: str = "mean", label_smoothing: float = 0.0
) -> Any:
    """-sum_c q_c ln p_c with p = softmax(logits) over the last axis, as PyTorch's.

    logits (N, ..., C); target: class labels, integers (N, ...) from 0 below C, or probabilities
    (N, ..., C), q itself -> (), or (N, ...) with reduction "none".
    reduction: "mean" over all rows, "sum" or "none".
    label_smoothing s, from 0 to 1: q becomes (1 - s) q + s/C (Szegedy et al. 2016, section 7).

    Errors: ValueError for a label out of range, where labels lie in the host's memory; elsewhere
    its loss is NaN.  A captured step looks before each replay, at labels that it is given or that
    are older than it; where it computes them itself, only the first call looks, and a replay's loss
    is NaN.
    """
    logits = tensor_in("cross_entropy", logits, "logits")
    target = tensor_in("cross_entropy", target, "target")
    params = _loss_params("cross_entropy", reduction, label_smoothing)
    if target.dtype.kind in "iu":
        return label_cross_entropy(logits, target, **params)
    if target.dtype.kind != "f":
        raise TypeError(
            f"cross_entropy: target must be class labels or probabilities, not {target.dtype}"
        )
    if target.shape == logits.shape[:-1]:
        raise TypeError(
            f"cross_entropy: labels must be integers, not {target.dtype}; cast them with "
            f"target.astype('int64')   (logits {logits.shape}; target {target.shape}; "
            "probabilities have the shape of logits)"
        )
    _equal_shapes("cross_entropy", logits, target, "logits", "target")
    if label_smoothing:
        target = target * (1.0 - label_smoothing) + label_smoothing / logits.shape[-1]
    return _reduced("cross_entropy", -sum_over(target * log_softmax(logits), axis=-1), reduction)


# other losses -------------------------------------------------------------------------------------


def _reduction(name: str, reduction: str) -> str:
    if reduction not in REDUCTIONS:
        known = ", ".join(f"'{r}'" for r in REDUCTIONS)
        raise ValueError(f"{name}: unknown reduction {reduction!r}   (known: {known})")
    return reduction


def _reduced(name: str, loss: Tensor, reduction: str) -> Tensor:
    if _reduction(name, reduction) == "none":
        return loss
    if reduction == "mean" and 0 in loss.shape:
        raise ShapeError(f"{name}: no mean over no elements   (the losses are {loss.shape})")
    return mean(loss) if reduction == "mean" else sum_over(loss)


def _equal_shapes(name: str, x: Tensor, y: Tensor, first: str = "x", second: str = "y") -> None:
    """A loss broadcasts nothing: (N, 1) against (N,) would silently give N * N differences."""
    if x.shape != y.shape:
        raise ShapeError(f"{name}: {first} has shape {x.shape} but {second} has {y.shape}")


@op(
    "logits[N,...], target[N,...] -> y[...]",
    composite=True,
    samples=(
        sample((4, 3), probabilities(4, 3)),
        sample((4, 3), probabilities(4, 3), reduction="sum"),
        sample((5,), probabilities(5), reduction="none"),
    ),
    options=dict(reduction=list(REDUCTIONS)),
)
def binary_cross_entropy_with_logits(logits: Any, target: Any, *, reduction: str = "mean") -> Any:
    """-t ln p - (1 - t) ln(1 - p) with p = sigmoid(logits), accurate at any finite logit.

    logits and target of one shape, target from 0 to 1 -> (), or that shape with "none".
    """
    name = "binary_cross_entropy_with_logits"
    logits, target = operands(name, logits, target)
    _equal_shapes(name, logits, target, "logits", "target")
    loss = target * softplus(-logits) + (1.0 - target) * softplus(logits)
    return _reduced(name, loss, reduction)


PAIRS = (
    sample((4, 3), (4, 3)),
    sample((2, 3, 5), (2, 3, 5), reduction="sum"),
    sample((4, 3), (4, 3), reduction="none"),
)


@op("x[N,...], y[N,...] -> loss[...]", composite=True, samples=PAIRS)
def mse(x: Any, y: Any, *, reduction: str = "mean") -> Any:
    """(x - y)^2: the squared error.  x and y of one shape -> (), or that shape with "none"."""
    x, y = operands("mse", x, y)
    _equal_shapes("mse", x, y)
    difference = x - y
    return _reduced("mse", difference * difference, reduction)


@op("x[N,...], y[N,...] -> loss[...]", composite=True, samples=PAIRS)
def l1(x: Any, y: Any, *, reduction: str = "mean") -> Any:
    """|x - y|: the absolute error.  x and y of one shape -> (), or that shape with "none"."""
    x, y = operands("l1", x, y)
    _equal_shapes("l1", x, y)
    return _reduced("l1", abs(x - y), reduction)


@op(
    "x[N,...], y[N,...] -> loss[...]",
    composite=True,
    samples=(*PAIRS, sample((4, 3), (4, 3), beta=0.3)),
    options=dict(reduction=list(REDUCTIONS), beta=[0.3, 1.0]),
)
def smooth_l1(x: Any, y: Any, *, reduction: str = "mean", beta: float = 1.0) -> Any:
    """(x - y)^2 / (2 beta) where |x - y| < beta, else |x - y| - beta / 2.

    x and y of one shape -> (), or that shape with "none"; beta > 0.  Girshick 2015, equation 3.
    """
    if not beta > 0:
        raise ValueError(f"smooth_l1: beta must be above 0, not {beta}; at 0 it is l1")
    x, y = operands("smooth_l1", x, y)
    _equal_shapes("smooth_l1", x, y)
    difference = x - y
    distance = abs(difference)
    loss = where(distance < beta, difference * difference * (0.5 / beta), distance - 0.5 * beta)
    return _reduced("smooth_l1", loss, reduction)


@op(
    "log_p[N,...,C], labels[N,...] -> y[...]",
    composite=True,
    samples=(
        sample((4, 3), integers(4, high=3)),
        sample((2, 3, 5), integers(2, 3, high=5), reduction="none"),
    ),
    options=dict(reduction=list(REDUCTIONS)),
)
def nll(log_p: Any, labels: Any, *, reduction: str = "mean") -> Any:
    """-log_p[..., label]: cross entropy for logarithms of probabilities (from `log_softmax`).

    log_p (N, ..., C), labels integers (N, ...) -> (), or (N, ...) with "none".
    """
    log_p = tensor_in("nll", log_p, "log_p")
    labels = _labels("nll", labels, log_p.shape[-1] if log_p.ndim else 0)
    _loss_shape("nll", log_p.shape, labels.shape, _reduction("nll", reduction), "log_p")
    classes = tensor_on(log_p.backend, np.arange(log_p.shape[-1]))
    chosen = where(equal(labels.expand_dims(-1), classes), log_p, 0.0)
    return _reduced("nll", -sum_over(chosen, axis=-1), reduction)
