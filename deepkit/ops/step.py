"""One step of an optimiser, in place over flat memory, and what gradient clipping needs.

What changes between steps (the learning rate, the number of the step) lives in tensors of shape (),
so that a captured step reads the value of the day.  The formulas are PyTorch's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..card import Draw, Sample, Shape, ShapeError, integers, normal, op, positive, sample
from ..tape import Tensor
from .common import elements, tensor_in
from .elementwise import where

INT = np.dtype(np.int64)


def _checked(name: str, arrays: str) -> dict[str, Any]:
    """The shape and dtype rules of a step: `arrays` names those as large as the first."""
    names = arrays.split()

    def shape(*shapes: Shape | None, **_: Any) -> tuple[Shape, ...]:
        for what, s in zip(names, shapes, strict=False):
            if s is not None and s != shapes[0]:
                raise ShapeError(f"{name}: {what} is {s} but {names[0]} is {shapes[0]}")
        for s in shapes[len(names) :]:
            if s != ():
                raise ShapeError(f"{name}: expected scalars of shape () beside arrays, not {s}")
        return ()

    def dtype(*dtypes: Any, **_: Any) -> tuple[Any, ...]:
        for what, d in zip(names, dtypes, strict=False):
            if d is not None and (d != dtypes[0] or d.kind != "f"):
                raise TypeError(f"{name}: {what} is {d} but {names[0]} is {dtypes[0]}")
        rate, *count = dtypes[len(names) :]
        if rate.kind != "f" or any(d != INT for d in count):
            raise TypeError(
                f"{name}: expected a float scalar, then an int64 one if any, not {rate}"
            )
        return ()

    return dict(shape=shape, dtype=dtype)


def _cost(operations: float, arrays: int) -> Any:
    return lambda w, *_, **__: (operations * elements(w), float(arrays * elements(w)))


def _samples(arrays: str, *options: dict[str, Any]) -> list[Sample]:
    """One sample for each set of options; `arrays` has a letter an operand, see DRAWS."""
    made = []
    for i, given in enumerate(options):
        size = ((7,), (5, 3), (33,))[i % 3]
        absent = given.pop("absent", "")
        made.append(
            sample(*[None if a in absent else DRAWS[a](size) for a in arrays.split()], **given)
        )
    return made


def _bench_sample(arrays: str, **options: Any) -> Sample:
    """All weights of a network of a million, in one flat buffer."""
    return sample(*[DRAWS[a]((1 << 20,)) for a in arrays.split()], **options, bench=True)


DRAWS: dict[str, Any] = dict(
    w=lambda size: normal(*size),
    g=lambda size: normal(*size),
    v=lambda size: normal(*size),
    m=lambda size: normal(*size, scale=0.1),
    s=lambda size: positive(*size),
    lr=lambda size: positive(low=0.01, high=0.1),
    t=lambda size: integers(low=0, high=5),
)


def _rate(name: str, lr: Any) -> Tensor:
    return tensor_in(name, lr, "lr")


def _not_negative(name: str, **values: float) -> dict[str, float]:
    for what, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name}: {what} must be 0 or more, not {value}")
    return {what: float(value) for what, value in values.items()}


def _below_one(name: str, **values: float) -> dict[str, float]:
    for what, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name}: {what} must be from 0 and below 1, not {value}")
    return {what: float(value) for what, value in values.items()}


# steps --------------------------------------------------------------------------------------------


@op(
    "w[...]!, v[...]!?, g[...], lr[] ->",
    **_checked("sgd_step", "w v g"),
    cost=_cost(6, 5),
    samples=[
        *_samples(
            "w v g lr",
            dict(absent="v"),
            dict(absent="v", weight_decay=0.1),
            dict(momentum=0.9),
            dict(momentum=0.9, weight_decay=0.01),
            dict(momentum=0.8, nesterov=True),
            dict(momentum=0.8, nesterov=True, weight_decay=0.1),
        ),
        _bench_sample("w v g lr", momentum=0.9),
    ],
)
def sgd_step(
    w: Any,
    v: Any,
    g: Any,
    lr: Any,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> Any:
    """g' = g + weight_decay w;  v = momentum v + g';  w = w - lr v.

    nesterov: w = w - lr (g' + momentum v).  Without momentum v is None and w = w - lr g'.
    w, v, g of one shape, lr (); v starts as zeros.  As PyTorch's SGD with dampening 0.
    """
    params = _not_negative("sgd_step", momentum=momentum, weight_decay=weight_decay)
    if (v is None) != (momentum == 0):
        raise ValueError("sgd_step: expected v with a momentum above 0, and None without")
    if nesterov and not momentum:
        raise ValueError("sgd_step: nesterov needs a momentum above 0")
    return (w, v, g, _rate("sgd_step", lr)), dict(**params, nesterov=bool(nesterov))


@op(
    "w[...]!, m[...]!, v[...]!, g[...], lr[], t[]! ->",
    **_checked("adam_step", "w m v g"),
    cost=_cost(14, 7),
    samples=[
        *_samples(
            "w m s g lr t",
            {},
            dict(weight_decay=0.1),
            dict(weight_decay=0.1, decoupled=True),
            dict(beta1=0.5, beta2=0.9, eps=1e-3),
        ),
        _bench_sample("w m s g lr t"),
    ],
)
def adam_step(
    w: Any,
    m: Any,
    v: Any,
    g: Any,
    lr: Any,
    t: Any,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> Any:
    """t = t + 1;  m = beta1 m + (1 - beta1) g';  v = beta2 v + (1 - beta2) g'^2;

    w = w' - lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps), where
    g' = g + weight_decay w, w' = w, or decoupled (AdamW) g' = g, w' = (1 - lr weight_decay) w.
    w, m, v, g of one shape, lr (), t int64 (); m, v and t start as zeros.  As PyTorch's Adam and
    AdamW; Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2.
    """
    params = _below_one("adam_step", beta1=beta1, beta2=beta2)
    params |= _not_negative("adam_step", eps=eps, weight_decay=weight_decay)
    return (w, m, v, g, _rate("adam_step", lr), t), dict(**params, decoupled=bool(decoupled))


@op(
    "w[...]!, s[...]!, m[...]!?, v[...]!?, g[...], lr[] ->",
    **_checked("rmsprop_step", "w s m v g"),
    cost=_cost(12, 7),
    samples=[
        *_samples(
            "w s m v g lr",
            dict(absent="mv"),
            dict(absent="mv", alpha=0.9, eps=1e-3, weight_decay=0.1),
            dict(absent="m", momentum=0.9),
        ),
        *_samples(
            "w s m v g lr", dict(absent="v"), dict(momentum=0.5, alpha=0.9, weight_decay=0.1)
        ),
    ],
)
def rmsprop_step(
    w: Any,
    s: Any,
    m: Any,
    v: Any,
    g: Any,
    lr: Any,
    *,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Any:
    """g' = g + weight_decay w;  s = alpha s + (1 - alpha) g'^2;  d = g' / (sqrt(s) + eps);

    w = w - lr d, or with momentum v = momentum v + d, w = w - lr v (v is None without).
    Centred, where m is given: m = alpha m + (1 - alpha) g', and s - m^2 stands for s in d.
    w, s, m, v, g of one shape, lr (); s, m and v start as zeros.  As PyTorch's RMSprop; Tieleman
    and Hinton 2012.
    """
    params = _below_one("rmsprop_step", alpha=alpha)
    params |= _not_negative("rmsprop_step", eps=eps, momentum=momentum, weight_decay=weight_decay)
    if (v is None) != (momentum == 0):
        raise ValueError("rmsprop_step: expected v with a momentum above 0, and None without")
    return (w, s, m, v, g, _rate("rmsprop_step", lr)), params


@op(
    "w[...]!, s[...]!, g[...], lr[], t[]! ->",
    **_checked("adagrad_step", "w s g"),
    cost=_cost(8, 5),
    samples=_samples(
        "w s g lr t", {}, dict(weight_decay=0.1), dict(lr_decay=0.5, eps=1e-3, weight_decay=0.1)
    ),
)
def adagrad_step(
    w: Any,
    s: Any,
    g: Any,
    lr: Any,
    t: Any,
    *,
    lr_decay: float = 0.0,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
) -> Any:
    """t = t + 1;  g' = g + weight_decay w;  s = s + g'^2;

    w = w - lr / (1 + (t - 1) lr_decay) * g' / (sqrt(s) + eps).
    w, s, g of one shape, lr (), t int64 (); s and t start as zeros.  As PyTorch's Adagrad; Duchi
    et al. 2011.
    """
    params = _not_negative("adagrad_step", lr_decay=lr_decay, eps=eps, weight_decay=weight_decay)
    return (w, s, g, _rate("adagrad_step", lr), t), params


# clipping -----------------------------------------------------------------------------------------


@op(
    "xs[...]+ -> y[]",
    shape=lambda *_: ((),),
    together=lambda g, y, *xs, asked: [
        x * where(y == 0, 0.0, g / y) if want else None for x, want in zip(xs, asked, strict=True)
    ],
    cost=lambda *xs: (2.0 * sum(map(elements, xs)), float(sum(map(elements, xs)))),
    samples=(sample((7,)), sample((4, 3), (5,)), sample((1000,), (3, 5), ())),
)
def l2_norm(*xs: Any) -> Any:
    """y = sqrt(the sum of the squares of all elements of all tensors): xs of any shapes -> ()."""
    if not xs:
        raise ValueError("l2_norm: expected at least one tensor")
    return tuple([tensor_in("l2_norm", x) for x in xs]), {}


@op(
    "g[...]!, norm[] ->",
    **_checked("clip_step", "g"),
    cost=_cost(1, 2),
    samples=(
        sample((7,), Draw((), lambda rng, s: np.array(3.5)), max_norm=1.5),
        sample((5, 3), Draw((), lambda rng, s: np.array(0.5)), max_norm=1.0),
    ),
)
def clip_step(g: Any, norm: Any, *, max_norm: float) -> Any:
    """g = g * min(1, max_norm / (norm + 1e-6)), in place: gradients of this norm, held below one.

    g of any shape, norm (), see `l2_norm`.  As PyTorch's clip_grad_norm_; Pascanu et al. 2013.
    """
    return (g, norm), _not_negative("clip_step", max_norm=max_norm)
