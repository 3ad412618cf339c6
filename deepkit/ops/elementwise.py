"""Elementwise arithmetic, comparisons and activations; all broadcast as NumPy does."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..card import Shape, ShapeError, booleans, op, positive, sample
from ..tape import Tensor, registry
from .common import broadcast, checked_dtype, elements, operands, tensor_in

BOOL = np.dtype(bool)

SAMPLES = (sample((4, 3)), sample((2, 3, 5)))
PAIRS = (sample((4, 3), (4, 3)), sample((2, 3, 4), (3, 1)), sample((3,), (5, 2, 3)))


def _cost(operations: float, arrays: int = 3) -> Any:
    def cost(*shapes: Shape, **_: Any) -> tuple[float, float]:
        count = elements(broadcast("cost", *[s for s in shapes if s is not None]))
        return operations * count, arrays * count

    return cost


def _two(name: str) -> Any:
    return lambda a, b, **_: (broadcast(name, a, b),)


def _kept(*dtypes: Any, **_: Any) -> tuple:
    """The output has the dtype of the (already promoted) inputs."""
    return (dtypes[0],)


def _truth(*_: Any, **__: Any) -> tuple:
    return (BOOL,)


# arithmetic ---------------------------------------------------------------------------------------


@op(
    "a[*], b[*] -> y[*]",
    shape=_two("add"),
    dtype=_kept,
    cost=_cost(1),
    grads=(lambda g, y, a, b: g, lambda g, y, a, b: g),
    samples=(*PAIRS, sample((1000, 1000), (1000, 1000), bench=True)),
)
def add(a: Any, b: Any) -> Any:
    """y = a + b."""
    return operands("add", a, b), {}


@op(
    "a[*], b[*] -> y[*]",
    shape=_two("sub"),
    dtype=_kept,
    cost=_cost(1),
    grads=(lambda g, y, a, b: g, lambda g, y, a, b: -g),
    samples=PAIRS,
    bools=False,
)
def sub(a: Any, b: Any) -> Any:
    """y = a - b."""
    return operands("sub", a, b), {}


@op(
    "a[*], b[*] -> y[*]",
    shape=_two("mul"),
    dtype=_kept,
    cost=_cost(1),
    grads=(lambda g, y, a, b: g * b, lambda g, y, a, b: g * a),
    samples=PAIRS,
)
def mul(a: Any, b: Any) -> Any:
    """y = a * b."""
    return operands("mul", a, b), {}


@op(
    "a[*], b[*] -> y[*]",
    shape=_two("div"),
    cost=_cost(1),
    grads=(lambda g, y, a, b: g / b, lambda g, y, a, b: -(g * y / b)),
    samples=(sample((4, 3), positive(4, 3)), sample((2, 3, 4), positive(3, 1))),
)
def div(a: Any, b: Any) -> Any:
    """y = a / b, always a float."""
    a, b = operands("div", a, b)
    if a.dtype.kind != "f":
        a, b = astype(a, np.float32), astype(b, np.float32)
    return (a, b), {}


@op(
    "a[*], b[*] -> y[*]",
    shape=_two("pow"),
    dtype=_kept,
    cost=_cost(10),
    grads=(
        lambda g, y, a, b: g * where(b == 0, 0.0, b * pow(a, b - 1)),
        lambda g, y, a, b: g * where(a == 0, 0.0, y * log(where(a == 0, 1.0, a))),
    ),
    samples=(sample(positive(4, 3), (4, 3)), sample(positive(2, 3), positive(1, 3))),
    tolerance=4,
    bools=False,
)
def pow(a: Any, b: Any) -> Any:
    """y = a ** b.  d/db at a = 0 is 0, as in PyTorch.  Integers take powers from 0."""
    a, b = operands("pow", a, b) if not isinstance(b, int) or b >= 0 else _negative_power(a, b)
    return (a, b), {}


def _negative_power(a: Any, b: int) -> tuple[Tensor, ...]:
    if isinstance(a, Tensor) and a.dtype.kind != "f":
        raise ValueError(f"pow: integers have no power {b}; cast with x.astype('float32')")
    return operands("pow", a, b)


@op(
    "a[*], b[*] -> y[*]",
    shape=_two("maximum"),
    dtype=_kept,
    cost=_cost(1),
    grads=(
        lambda g, y, a, b: g * share(a, b),
        lambda g, y, a, b: g * share(b, a),
    ),
    samples=PAIRS,
)
def maximum(a: Any, b: Any) -> Any:
    """y = max(a, b); NaN if either is.  Where a = b the gradient is shared in halves."""
    return operands("maximum", a, b), {}


@op(
    "a[*], b[*] -> y[*]",
    shape=_two("minimum"),
    dtype=_kept,
    cost=_cost(1),
    grads=(
        lambda g, y, a, b: g * share(b, a),
        lambda g, y, a, b: g * share(a, b),
    ),
    samples=PAIRS,
)
def minimum(a: Any, b: Any) -> Any:
    """y = min(a, b); NaN if either is.  Where a = b the gradient is shared in halves."""
    return operands("minimum", a, b), {}


@op(
    "a[*], b[*] -> y[*]",
    shape=_two("share"),
    dtype=_kept,
    samples=PAIRS,
    exact=True,
    bools=False,
)
def share(a: Any, b: Any) -> Any:
    """y = 1 where a > b, 1/2 where a = b, else 0: whose maximum it was."""
    return operands("share", a, b), {}


@op(
    "c[*], a[*], b[*] -> y[*]",
    shape=lambda c, a, b: (broadcast("where", c, a, b),),
    dtype=lambda c, a, b: (a,),
    cost=_cost(1, 4),
    grads=(
        None,
        lambda g, y, c, a, b: where(c, g, 0.0),
        lambda g, y, c, a, b: where(c, 0.0, g),
    ),
    samples=(sample(booleans(4, 3), (4, 3), (4, 3)), sample(booleans(4, 1), (3,), (2, 4, 3))),
    exact=True,
)
def where(condition: Any, a: Any, b: Any) -> Any:
    """y = a where the condition holds, else b."""
    tensors = [t for t in (condition, a, b) if isinstance(t, Tensor)]
    if not tensors:
        raise TypeError("where: expected at least one tensor")
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        kind = np.result_type(np.asarray(a), np.asarray(b)).kind
        dtype = np.float32 if kind == "f" else np.result_type(np.asarray(a), np.asarray(b))
        a = _filled(tensors[0], a, dtype)
    a, b = operands("where", a, b)
    if not isinstance(condition, Tensor):
        (condition,) = (_filled(tensors[0], condition, BOOL),)
    if condition.dtype != BOOL:
        condition = condition != 0
    return (condition, a, b), {}


def _filled(like: Tensor, value: Any, dtype: Any) -> Tensor:
    from .common import tensor_on

    return tensor_on(like.backend, value, dtype)


# comparisons: -> bool -----------------------------------------------------------------------------


def _comparison(name: str, meaning: str) -> Any:
    def prepare(a: Any, b: Any) -> Any:
        return operands(name, a, b), {}

    prepare.__name__, prepare.__doc__ = name, f"y = ({meaning}), elementwise -> bool."
    return op(
        "a[*], b[*] -> y[*]",
        shape=_two(name),
        dtype=_truth,
        samples=PAIRS,
        exact=True,
    )(prepare)


less = _comparison("less", "a < b")
less_equal = _comparison("less_equal", "a <= b")
greater = _comparison("greater", "a > b")
greater_equal = _comparison("greater_equal", "a >= b")
equal = _comparison("equal", "a == b")
not_equal = _comparison("not_equal", "a != b")


# functions of one tensor --------------------------------------------------------------------------


def _unary(
    name: str,
    doc: str,
    grad: Any,
    samples: Any = SAMPLES,
    operations: float = 10,
    dtype: Any = None,
    **fields: Any,
) -> Any:
    def prepare(x: Any) -> Any:
        return (tensor_in(name, x),), {}

    prepare.__name__, prepare.__doc__ = name, doc
    grads = () if grad is None else (grad,)
    cost = _cost(operations, 2)
    return op("x[*] -> y[*]", grads=grads, samples=samples, cost=cost, dtype=dtype, **fields)(
        prepare
    )


_BENCHED = (*SAMPLES, sample((64, 32, 32, 64), bench=True))
_POSITIVE = (sample(positive(4, 3)), sample(positive(2, 3, 5)))

neg = _unary(
    "neg", "y = -x.", lambda g, y, x: -g, operations=1, dtype=_kept, exact=True, bools=False
)
sign = _unary("sign", "y = -1, 0 or 1, the sign of x.", None, dtype=_kept, exact=True, bools=False)
abs = _unary("abs", "y = |x|; the gradient at 0 is 0.", lambda g, y, x: g * sign(x), dtype=_kept)
exp = _unary("exp", "y = e^x.", lambda g, y, x: g * y, _BENCHED, tolerance=2)
log = _unary("log", "y = ln x; -inf at 0, NaN below.", lambda g, y, x: g / x, _POSITIVE)
sqrt = _unary("sqrt", "y = sqrt(x); NaN below 0.", lambda g, y, x: g / (y * 2.0), _POSITIVE)
sin = _unary("sin", "y = sin x, x in radians.", lambda g, y, x: g * cos(x))
cos = _unary("cos", "y = cos x, x in radians.", lambda g, y, x: -(g * sin(x)))
erf = _unary(
    "erf",
    "y = 2/sqrt(pi) * integral of e^(-t^2) from 0 to x.",
    lambda g, y, x: g * exp(-(x * x)) * (2 / np.pi**0.5),
)
tanh = _unary("tanh", "y = tanh x.", lambda g, y, x: tanh_dx(g, y))
sigmoid = _unary(
    "sigmoid", "y = 1 / (1 + e^-x), without overflow at any x.", lambda g, y, x: sigmoid_dx(g, y)
)
softplus = _unary("softplus", "y = ln(1 + e^x), without overflow.", lambda g, y, x: g * sigmoid(x))
relu = _unary(
    "relu",
    "y = max(0, x); NaN stays NaN; the gradient at 0 is 0.",
    lambda g, y, x: relu_dx(g, y),
    _BENCHED,
    operations=1,
    exact=True,
)


gelu = _unary(
    "gelu",
    "y = x * P(Z <= x) for a standard normal Z, exact (Hendrycks and Gimpel 2016).",
    lambda g, y, x: gelu_dx(g, x),
    _BENCHED,
    tolerance=4,
)

GRAD_PAIRS = (sample((4, 3), (4, 3)), sample((2, 3, 5), (2, 3, 5)))


def _backward_op(name: str, doc: str, grads: Any, **fields: Any) -> Any:
    def prepare(g: Any, y: Any) -> Any:
        return (g, y), {}

    prepare.__name__, prepare.__doc__ = name, doc
    return op(
        "g[*], y[*] -> dx[*]",
        shape=_two(name),
        grads=grads,
        samples=GRAD_PAIRS,
        cost=_cost(3),
        **fields,
    )(prepare)


relu_dx = _backward_op(
    "relu_dx",
    "dx = g where y > 0, else 0.",
    (lambda g, dx, g0, y: relu_dx(g, y), None),
    exact=True,
)
tanh_dx = _backward_op(
    "tanh_dx",
    "dx = g * (1 - y^2), y = tanh x.",
    (lambda g, dx, g0, y: tanh_dx(g, y), lambda g, dx, g0, y: g * g0 * y * -2.0),
)
sigmoid_dx = _backward_op(
    "sigmoid_dx",
    "dx = g * y * (1 - y), y = sigmoid x.",
    (lambda g, dx, g0, y: sigmoid_dx(g, y), lambda g, dx, g0, y: g * g0 * (1.0 - y * 2.0)),
)


def _normal_density(x: Tensor) -> Tensor:
    return exp(x * x * -0.5) * (1 / (2 * np.pi) ** 0.5)


def _pair_of_gelu(g: Shape, x: Shape) -> tuple[Shape]:
    if g != x:
        raise ShapeError(f"gelu_dx: g is {g} but x is {x}")
    return (x,)


@op(
    "g[*], x[*] -> dx[*]",
    shape=_pair_of_gelu,
    grads=(
        lambda h, dx, g, x: gelu_dx(h, x),
        lambda h, dx, g, x: h * g * _normal_density(x) * (2.0 - x * x),
    ),
    samples=GRAD_PAIRS,
    cost=_cost(20),
    tolerance=4,
)
def gelu_dx(g: Any, x: Any) -> Any:
    """dx = g * (P(Z <= x) + x p(x)), p being the density of the standard normal Z."""
    return (g, x), {}


@op(
    "x[*] -> y[*]",
    grads=(lambda g, y, x, slope: where(x > 0, g, g * slope),),
    cost=_cost(2, 2),
    samples=(sample((4, 3)), sample((4, 3), slope=0.3)),
)
def leaky_relu(x: Any, slope: float = 0.01) -> Any:
    """y = x where x > 0, else slope * x."""
    return (tensor_in("leaky_relu", x),), dict(slope=float(slope))


@op(
    "x[*] -> y[*]",
    grads=(lambda g, y, x, alpha: where(x > 0, g, g * (y + alpha)),),
    cost=_cost(10, 2),
    samples=(sample((4, 3)), sample((4, 3), alpha=0.5)),
)
def elu(x: Any, alpha: float = 1.0) -> Any:
    """y = x where x > 0, else alpha * (e^x - 1)."""
    return (tensor_in("elu", x),), dict(alpha=float(alpha))


@op(
    "x[*] -> y[*]",
    dtype=_kept,
    grads=(lambda g, y, x, low, high: where(_within(x, low, high), g, 0.0),),
    cost=_cost(2, 2),
    samples=(sample((4, 3), -0.5, 0.5), sample((4, 3), None, 0.2), sample((4, 3), 0.1)),
    exact=True,
)
def clip(x: Any, low: float | None = None, high: float | None = None) -> Any:
    """y = x held within [low, high]; None leaves that side open."""
    if low is not None and high is not None and low > high:
        raise ValueError(f"clip: low {low} is above high {high}")
    x = tensor_in("clip", x)
    if x.dtype.kind == "b":
        raise TypeError("clip: a bool tensor has nothing to clip; cast it with x.astype(...)")
    if x.dtype.kind in "iu":
        if any(isinstance(bound, float) for bound in (low, high)):
            x = astype(x, np.float32)
        else:  # a bound that the type cannot hold becomes its nearest number
            ends = np.iinfo(x.dtype)
            low, high = (
                None if b is None else min(max(int(b), int(ends.min)), int(ends.max))
                for b in (low, high)
            )
    return (x,), dict(low=low, high=high)


def _within(x: Tensor, low: float | None, high: float | None) -> Tensor:
    inside = (x == x) if low is None else (x >= low)
    return inside if high is None else registry["mul"](inside, x <= high)


@op(
    "x[*], slope[*] -> y[*]",
    shape=_two("prelu"),
    grads=(
        lambda g, y, x, slope: where(x > 0, g, g * slope),
        lambda g, y, x, slope: where(x > 0, 0.0, g * x),
    ),
    cost=_cost(2),
    samples=(sample((4, 3), (3,)), sample((2, 3, 5), (1,))),
)
def prelu(x: Any, slope: Any) -> Any:
    """y = x where x > 0, else slope * x, the slope learned, one a channel or one in all.

    x (..., C), slope (C,) or (1,) -> (..., C).  He et al. 2015, equation 1.
    """
    return operands("prelu", x, slope), {}


@op(
    "x[*] -> y[*]",
    dtype=lambda x, *, dtype: (np.dtype(dtype),),
    grads=(lambda g, y, x, dtype: astype(g, x.dtype),),
    samples=(sample((4, 3), "float64"), sample((4, 3), "int64")),
    exact=True,
    anything=True,
)
def astype(x: Any, dtype: Any) -> Any:
    """The values as another type.  Floats become integers by cutting off the fraction."""
    return (tensor_in("astype", x),), dict(dtype=checked_dtype(dtype).name)


# memory that is written in place ------------------------------------------------------------------


@op("x[*]! ->", shape=lambda *_, **__: (), dtype=lambda *_, **__: (), exact=True)
def fill_(x: Any, value: float) -> Any:
    """Every element of x becomes `value`."""
    return (x,), dict(value=value)


@op("x[*]!, y[*] ->", shape=lambda *_, **__: (), dtype=lambda *_, **__: (), exact=True)
def assign_(x: Any, y: Any) -> Any:
    """x takes the values of y, which has its shape and dtype."""
    return (x, _same("assign_", x, y)), {}


@op("x[*]!, g[*] ->", shape=lambda *_, **__: (), dtype=lambda *_, **__: ())
def accumulate_(x: Any, g: Any) -> Any:
    """x += g, in place; both have one shape and dtype."""
    return (x, _same("accumulate_", x, g)), {}


def _same(name: str, x: Tensor, y: Tensor) -> Tensor:
    if x.shape != y.shape or x.dtype != y.dtype:
        raise ValueError(f"{name}: expected {x.shape} {x.dtype}, not {y.shape} {y.dtype}")
    return y


@op("x[*] -> y[*]", dtype=_kept, samples=(sample((4, 3), value=2.5),), exact=True)
def full_like(x: Any, value: float) -> Any:
    """A tensor of x's shape, dtype and device, every element `value`."""
    return (x,), dict(value=value)


@op("x[*] -> y[*]", dtype=_kept, composite=True)
def zeros_like(x: Any) -> Any:
    """Zeros of x's shape, dtype and device."""
    return full_like(x, value=0.0)
