"""Normalisation over the batch, over trailing axes, and over neighbouring channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..card import Shape, ShapeError, op, positive, sample
from ..tape import Tensor, is_grad_enabled
from .common import elements, number, tensor_in
from .elementwise import pow, relu_dx, sqrt
from .formula import by_formula
from .fused import activation_dx, checked_activation
from .reduce import mean, var
from .reduce import sum as sum_over
from .shape import pad
from .shape import slice as cut

# batch normalisation ------------------------------------------------------------------------------


def _channel_shapes(x: Shape, residual: Shape | None, **others: Shape | None) -> None:
    if len(x) < 2:
        raise ShapeError(f"batch_norm: x is {x}, expected (N, ..., C)")
    if x[-1] == 0:
        raise ShapeError(f"batch_norm: at least one channel was expected   (x {x} is N,...,C)")
    for name, s in others.items():
        if s is not None and s != x[-1:]:
            raise ShapeError(
                f"batch_norm: {name} is {s}, {x[-1:]} was expected   (x {x} is N,...,C)"
            )
    if residual is not None and residual != x:
        raise ShapeError(f"batch_norm: residual is {residual} but x is {x}")


def _training_shape(
    x: Shape,
    gamma: Shape | None,
    beta: Shape | None,
    residual: Shape | None,
    running_mean: Shape | None,
    running_var: Shape | None,
    **_: Any,
) -> tuple[Shape, ...]:
    _channel_shapes(
        x, residual, gamma=gamma, beta=beta, running_mean=running_mean, running_var=running_var
    )
    if elements(x[:-1]) < 2:
        raise ShapeError(
            f"batch_norm: training needs 2 or more values a channel   (x {x} is N,...,C)"
        )
    return x, x[-1:], x[-1:]


def _leading(x: Tensor) -> tuple[int, ...]:
    return tuple(range(x.ndim - 1))


def _statistics(x: Tensor, axes: tuple[int, ...], eps: float, keepdims: bool) -> tuple:
    """Mean and 1 / standard deviation, made of ops: functions of x that can be differentiated."""
    middle = mean(x, axis=axes, keepdims=keepdims)
    return middle, 1.0 / sqrt(var(x, axis=axes, keepdims=keepdims) + eps)


def _training_grads(
    g: Any, y: Any, x: Any, gamma: Any, beta: Any, residual: Any, *_: Any, asked: Any, **p: Any
) -> list[Any]:
    y, middle, invstd = y
    again = is_grad_enabled()
    if again:  # a gradient of this gradient has to see that x moves them
        middle, invstd = _statistics(x, _leading(x), p["eps"], False)
    relu = p["activation"] == "relu" and residual is None and not again
    if not relu:
        g, beta = activation_dx(g, y, p["activation"]), None
    dx, dgamma, dbeta = batch_norm_dx(g, x, gamma, middle, invstd, beta, relu=relu)
    return [dx, dgamma, dbeta, g, None, None]


def _cost(operations: float, arrays: int) -> Any:
    return lambda x, *_, **__: (operations * elements(x), float(arrays * elements(x)))


@op(
    "x[N,...,C], gamma[C]?, beta[C]?, residual[N,...,C]?, running_mean[C]!?, running_var[C]!?"
    " -> y[N,...,C], mean[C]~, invstd[C]~",
    shape=_training_shape,
    called="batch_norm",
    together=_training_grads,
    cost=_cost(7, 3),
    samples=(
        sample((4, 3), (3,), (3,), None, (3,), positive(3)),
        sample((2, 3, 2, 5), (5,), (5,), (2, 3, 2, 5), (5,), positive(5), activation="relu"),
        sample((5, 7), None, (7,), None, (7,), positive(7), momentum=0.3, eps=1e-3),
        sample((5, 7), (7,), None, (5, 7), None, None, activation="tanh"),
        sample((19, 2, 3), None, None, None, (3,), positive(3), activation="sigmoid"),
        sample((128, 28, 28, 16), (16,), (16,), None, (16,), positive(16), bench=True),
        sample(
            (64, 32, 32, 64), (64,), (64,), None, (64,), positive(64), activation="relu", bench=True
        ),
    ),
    options=dict(
        momentum=[0.1, 0.5], eps=[1e-5, 1e-3], activation=[None, "relu", "tanh", "sigmoid"]
    ),
)
def batch_norm_train(
    x: Any,
    gamma: Any,
    beta: Any,
    residual: Any,
    running_mean: Any,
    running_var: Any,
    *,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
) -> Any:
    """`batch_norm` by the statistics of the batch, of which it also moves the running ones.

    x, residual (N, ..., C), all others (C,) -> y (N, ..., C), and for the gradient the batch's
    mean and 1 / sqrt(variance + eps), (C,) each.  The variance is the mean of squared distances
    from the mean, in two passes: sum(x^2) - n mean^2 would cancel.
    """
    return (x, gamma, beta, residual, running_mean, running_var), dict(
        momentum=number("batch_norm", "momentum", momentum, "from 0 to 1"),
        eps=number("batch_norm", "eps", eps, "above 0"),
        activation=checked_activation("batch_norm", activation),
    )


def _batch_dx_formula(
    g: Any, x: Any, gamma: Any, middle: Any, invstd: Any, beta: Any, *, relu: bool
) -> tuple:
    axes = _leading(x)
    hat = (x - middle) * invstd
    if relu:
        y = hat if gamma is None else hat * gamma
        g = relu_dx(g, y if beta is None else y + beta)
    dgamma, dbeta = sum_over(g * hat, axis=axes), sum_over(g, axis=axes)
    scale = invstd if gamma is None else gamma * invstd
    dx = (g - (dbeta + hat * dgamma) * (1.0 / elements(x.shape[:-1]))) * scale
    return dx, dgamma, dbeta


@op(
    "g[N,...,C], x[N,...,C], gamma[C]?, mean[C], invstd[C], beta[C]?"
    " -> dx[N,...,C], dgamma[C], dbeta[C]",
    shape=lambda g, x, *_, **__: (x, x[-1:], x[-1:]),
    together=by_formula(_batch_dx_formula),
    cost=_cost(12, 3),
    samples=(
        sample((4, 3), (4, 3), (3,), (3,), positive(3), None),
        sample((2, 3, 2, 5), (2, 3, 2, 5), None, (5,), positive(5), None),
        sample((19, 2, 3), (19, 2, 3), (3,), (3,), positive(3), (3,), relu=True),
        sample((70, 17, 3), (70, 17, 3), (3,), (3,), positive(3), None, relu=True),
        sample((17, 2, 20), (17, 2, 20), None, (20,), positive(20), (20,), relu=True),
    ),
)
def batch_norm_dx(
    g: Any, x: Any, gamma: Any, mean: Any, invstd: Any, beta: Any = None, *, relu: bool = False
) -> Any:
    """With h = (x - mean) * invstd, n values a channel and sums over all axes but the last:

    dgamma = sum g h,  dbeta = sum g,  dx = gamma * invstd * (g - dbeta/n - h * dgamma/n).
    Ioffe and Szegedy 2015, section 3.  With relu, g counts as 0 where gamma h + beta is not
    above 0.
    """
    return (g, x, gamma, mean, invstd, beta), dict(relu=bool(relu))


def _inference_shape(
    x: Shape,
    gamma: Shape | None,
    beta: Shape | None,
    residual: Shape | None,
    running_mean: Shape,
    running_var: Shape,
    **_: Any,
) -> tuple[Shape]:
    _channel_shapes(
        x, residual, gamma=gamma, beta=beta, running_mean=running_mean, running_var=running_var
    )
    return (x,)


def _scale(gamma: Tensor | None, variance: Tensor, eps: float) -> Tensor:
    invstd = 1.0 / sqrt(variance + eps)
    return invstd if gamma is None else gamma * invstd


def _inference_grads(
    g: Any, y: Any, x: Any, gamma: Any, beta: Any, residual: Any, middle: Any, variance: Any, *,
    asked: Any, eps: float, activation: str | None,
) -> list[Any]:  # fmt: skip
    scale, dgamma, dvariance = _scale(gamma, variance, eps), None, None
    if asked[1] or asked[5]:
        moved = sum_over(g * (x - middle), axis=_leading(x))
        dgamma = moved / sqrt(variance + eps)
        dvariance = moved * scale / (variance + eps) * -0.5
    dx = g * scale
    return [dx, dgamma, g, g, -dx, dvariance]  # each is summed to the shape of its input


@op(
    "x[N,...,C], gamma[C]?, beta[C]?, residual[N,...,C]?, running_mean[C], running_var[C]"
    " -> y[N,...,C]",
    shape=_inference_shape,
    called="batch_norm",
    incoming=lambda g, y, activation, **_: activation_dx(g, y, activation),
    together=_inference_grads,
    cost=_cost(3, 2),
    samples=(
        sample((4, 3), (3,), (3,), None, (3,), positive(3)),
        sample((2, 3, 2, 5), (5,), (5,), (2, 3, 2, 5), (5,), positive(5), activation="relu"),
        sample((1, 7), None, (7,), None, (7,), positive(7), eps=1e-3),
        sample((5, 7), (7,), None, (5, 7), (7,), positive(7), activation="tanh"),
        sample((19, 2, 3), None, None, None, (3,), positive(3), activation="sigmoid"),
    ),
    options=dict(eps=[1e-5, 1e-3], activation=[None, "relu", "tanh", "sigmoid"]),
)
def batch_norm_infer(
    x: Any,
    gamma: Any,
    beta: Any,
    residual: Any,
    running_mean: Any,
    running_var: Any,
    *,
    eps: float = 1e-5,
    activation: str | None = None,
) -> Any:
    """`batch_norm` by the running statistics, which stay as they are.

    x, residual (N, ..., C), all others (C,) -> (N, ..., C).
    """
    return (x, gamma, beta, residual, running_mean, running_var), dict(
        eps=number("batch_norm", "eps", eps, "above 0"),
        activation=checked_activation("batch_norm", activation),
    )


@op(
    "x[N,...,C], gamma[C]?, beta[C]?, running_mean[C]!?, running_var[C]!? -> y[N,...,C]",
    composite=True,
    samples=(
        sample((4, 3), (3,), (3,), None, None, training=True),
        sample((4, 2, 3), (3,), (3,), (3,), positive(3), training=False, activation="relu"),
    ),
)
def batch_norm(
    x: Any,
    gamma: Any,
    beta: Any,
    running_mean: Any,
    running_var: Any,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
    residual: Any = None,
) -> Any:
    """y = act(gamma * (x - mean) / sqrt(variance + eps) + beta + residual), a channel at a time.

    x (N, ..., C), gamma, beta, running_mean, running_var (C,), residual as x -> as x; gamma, beta
    and residual may be None, and in training both running statistics.

    training=True: mean and (biased) variance are those of the batch, and in place
    running = (1 - momentum) * running + momentum * batch, where the variance is the unbiased one.
    training=False: the running ones are used.  As in PyTorch; Ioffe and Szegedy 2015.
    activation: None, "relu", "tanh" or "sigmoid", computed in the same pass.
    """
    x = tensor_in("batch_norm", x)
    if (running_mean is None) != (running_var is None):
        raise ValueError("batch_norm: expected running_mean and running_var, or neither")
    ins, options = (x, gamma, beta, residual, running_mean, running_var), dict(eps=eps)
    if training:
        return batch_norm_train(*ins, momentum=momentum, activation=activation, **options)
    if running_mean is None:
        raise ValueError("batch_norm: without running statistics it can only be training=True")
    return batch_norm_infer(*ins, activation=activation, **options)


# layer normalisation ------------------------------------------------------------------------------


def _trailing_shape(
    x: Shape, gamma: Shape | None, beta: Shape | None, *, axes: int, eps: float
) -> tuple[Shape, ...]:
    if not 0 < axes < len(x):
        raise ShapeError(f"layer_norm: cannot normalise the last {axes} axes of x {x}")
    if elements(x[-axes:]) == 0:
        raise ShapeError(f"layer_norm: nothing to normalise over in x {x}")
    for name, s in (("gamma", gamma), ("beta", beta)):
        if s is not None and s != x[-axes:]:
            raise ShapeError(f"layer_norm: {name} is {s}, expected {x[-axes:]}   (x is {x})")
    rows = (*x[:-axes], *(1,) * axes)
    return x, rows, rows


def _trailing(x: Tensor, axes: int) -> tuple[int, ...]:
    return tuple(range(x.ndim - axes, x.ndim))


def _trailing_grads(
    g: Any, y: Any, x: Any, gamma: Any, beta: Any, *, asked: Any, axes: int, eps: float
) -> list[Any]:
    middle, invstd = y[1:]
    if is_grad_enabled():
        middle, invstd = _statistics(x, _trailing(x, axes), eps, True)
    return list(layer_norm_dx(g, x, gamma, middle, invstd, axes=axes))


@op(
    "x[N,...], gamma[...]?, beta[...]? -> y[N,...], mean[N,...]~, invstd[N,...]~",
    shape=_trailing_shape,
    called="layer_norm",
    together=_trailing_grads,
    cost=_cost(7, 2),
    samples=(
        sample((4, 3), (3,), (3,)),
        sample((2, 3, 5), (3, 5), (3, 5), axes=2, eps=1e-3),
        sample((19, 2, 7), (7,), None),
        sample((3, 2, 2, 3), None, (2, 2, 3), axes=3),
        sample((5, 6), None, None),
        sample((64, 128, 256), (256,), (256,), bench=True),
    ),
    options=dict(eps=[1e-5, 1e-3]),
)
def layer_norm_over(x: Any, gamma: Any, beta: Any, *, axes: int = 1, eps: float = 1e-5) -> Any:
    """`layer_norm` over the last `axes` axes, before which at least one more stands.

    x (N, ..., D...), gamma, beta (D...) -> y as x, and for the gradient the mean and
    1 / sqrt(variance + eps) of every row, (N, ..., 1...).
    """
    return (x, gamma, beta), dict(axes=int(axes), eps=number("layer_norm", "eps", eps, "above 0"))


def _layer_dx_formula(g: Any, x: Any, gamma: Any, middle: Any, invstd: Any, *, axes: int) -> tuple:
    inner, outer = _trailing(x, axes), tuple(range(x.ndim - axes))
    hat = (x - middle) * invstd
    dgamma, dbeta = sum_over(g * hat, axis=outer), sum_over(g, axis=outer)
    scaled = g if gamma is None else g * gamma
    along = mean(scaled * hat, axis=inner, keepdims=True)
    dx = (scaled - mean(scaled, axis=inner, keepdims=True) - hat * along) * invstd
    return dx, dgamma, dbeta


@op(
    "g[N,...], x[N,...], gamma[...]?, mean[N,...], invstd[N,...] -> dx[N,...], dgamma[...],"
    " dbeta[...]",
    shape=lambda g, x, gamma, mean, invstd, *, axes: (x, x[-axes:], x[-axes:]),
    together=by_formula(_layer_dx_formula),
    cost=_cost(14, 3),
    samples=(
        sample((4, 3), (4, 3), (3,), (4, 1), positive(4, 1)),
        sample((2, 3, 5), (2, 3, 5), (3, 5), (2, 1, 1), positive(2, 1, 1), axes=2),
        sample((19, 2, 7), (19, 2, 7), None, (19, 2, 1), positive(19, 2, 1)),
    ),
)
def layer_norm_dx(g: Any, x: Any, gamma: Any, mean: Any, invstd: Any, *, axes: int = 1) -> Any:
    """With h = (x - mean) * invstd and means over the last `axes` axes:

    dx = invstd * (g gamma - mean(g gamma) - h * mean(g gamma h)); over the axes before them,
    dgamma = sum g h and dbeta = sum g.
    """
    return (g, x, gamma, mean, invstd), dict(axes=int(axes))


@op(
    "x[...], gamma[...]?, beta[...]? -> y[...]",
    composite=True,
    samples=(sample((4, 3), 3), sample((2, 5, 3), 3, (3,), (3,)), sample((7,), 7, (7,), eps=0.1)),
)
def layer_norm(x: Any, shape: Any, gamma: Any = None, beta: Any = None, eps: float = 1e-5) -> Any:
    """y = gamma * (x - mean) / sqrt(variance + eps) + beta, over the trailing axes of `shape`.

    x (..., *shape), gamma and beta `shape` or None -> as x; an int is one axis.  The variance is
    the biased one, as in PyTorch; Ba, Kiros and Hinton 2016.
    """
    x = tensor_in("layer_norm", x)
    shape = (int(shape),) if isinstance(shape, int | np.integer) else tuple(shape)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ShapeError(f"layer_norm: x {x.shape} does not end in the axes {shape}")
    rows = x.expand_dims(0) if x.ndim == len(shape) else x
    y = layer_norm_over(rows, gamma, beta, axes=len(shape), eps=eps)
    return y.reshape(x.shape)


# local response normalisation ---------------------------------------------------------------------


def _window_sum(x: Tensor, before: int, after: int) -> Tensor:
    """y_c = x_(c - before) + ... + x_(c + after) over the channels, zeros beyond their ends."""
    lead = tuple((0, d, 1) for d in x.shape[:-1])
    wide = pad(x, (*((0, 0),) * (x.ndim - 1), (before, after)))
    total: Any = None
    for j in range(before + after + 1):
        part = cut(wide, (*lead, (j, j + x.shape[-1], 1)))
        total = part if total is None else total + part
    return total


def _response_dx_formula(
    g: Any, x: Any, *, size: int, alpha: float, beta: float, k: float
) -> tuple:
    before, after = size // 2, (size - 1) // 2
    scale = _window_sum(x * x, before, after) * (alpha / size) + k
    spread = _window_sum(g * x * pow(scale, -beta - 1.0), after, before)
    return (g * pow(scale, -beta) - x * spread * (2 * alpha * beta / size),)


def _response_shape(*shapes: Shape, **_: Any) -> tuple[Shape]:
    if len(shapes[-1]) < 2:
        raise ShapeError(f"local_response_norm: x is {shapes[-1]}, expected (N, ..., C)")
    return (shapes[-1],)


def _response_params(size: int, alpha: float, beta: float, k: float) -> dict[str, Any]:
    if not isinstance(size, int | np.integer) or size < 1:
        raise ShapeError(f"local_response_norm: size must be a whole number from 1, not {size!r}")
    numbers = {"alpha": alpha, "beta": beta, "k": k}
    found = {what: number("local_response_norm", what, v) for what, v in numbers.items()}
    return dict(size=int(size), **found)


RESPONSES: dict[str, Any] = dict(size=[1, 2, 3, 5], alpha=[1e-4, 0.5], beta=[0.75, 1.0], k=[1.0])


@op(
    "x[N,...,C] -> y[N,...,C]",
    shape=_response_shape,
    grads=(lambda g, y, x, **params: local_response_norm_dx(g, x, **params),),
    cost=lambda x, size, **_: ((size + 20.0) * elements(x), 2.0 * elements(x)),
    samples=(
        sample((2, 3, 3, 7), size=5),
        sample((3, 7), size=4, alpha=0.5, beta=0.6, k=2.0),
        sample((2, 3, 2), size=3, alpha=1.0),
        sample((5, 1), size=1, alpha=0.3),
        sample((2, 3), size=9, alpha=1.0),
        sample((32, 27, 27, 96), size=5, bench=True),
    ),
    options=RESPONSES,
    tolerance=2,
)
def local_response_norm(
    x: Any, size: int, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Any:
    """y_c = x_c / (k + alpha/size * sum of x_j^2)^beta, j from c - size//2 to c + (size-1)//2.

    x (N, ..., C) -> the same shape; channels that do not exist count as 0.  As in PyTorch, alpha
    is divided by `size`: for the figures of Krizhevsky et al. 2012, section 3.3, give
    alpha=5 * 1e-4, beta=0.75, k=2, size=5.
    """
    return (tensor_in("local_response_norm", x),), _response_params(size, alpha, beta, k)


@op(
    "g[N,...,C], x[N,...,C] -> dx[N,...,C]",
    shape=_response_shape,
    together=by_formula(_response_dx_formula),
    cost=lambda g, x, size, **_: ((2.0 * size + 30) * elements(x), 3.0 * elements(x)),
    samples=(
        sample((2, 3, 3, 7), (2, 3, 3, 7), size=5),
        sample((3, 7), (3, 7), size=4, alpha=0.5, beta=0.6, k=2.0),
        sample((2, 3), (2, 3), size=9, alpha=1.0),
    ),
    options=RESPONSES,
    tolerance=2,
)
def local_response_norm_dx(
    g: Any, x: Any, size: int, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Any:
    """With s = k + alpha/size * (the sum over the window of x^2):

    dx_c = g_c s_c^-beta - 2 alpha beta / size * x_c * sum_j g_j x_j s_j^(-beta - 1), over the j
    whose windows hold c: from c - (size-1)//2 to c + size//2.
    """
    return (g, x), _response_params(size, alpha, beta, k)
