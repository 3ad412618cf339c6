"""Pooling: the largest or the mean value of every window, channel by channel."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..card import Draw, Shape, ShapeError, distinct, float_dtypes, op, sample
from ..tape import Tensor
from .common import elements, pair, tensor_in
from .reduce import mean
from .window import Padding, axes_checked, outputs_of, padding_of

INT = np.dtype(np.int32)


def _winners(*shape: int, high: int) -> Draw:
    """An index as max_pool2d leaves it behind."""
    return Draw(shape, lambda rng, s: rng.integers(0, high, s, dtype=INT), cast=False)


def _settings(
    name: str, size: Shape, window: Any, stride: Any, padding: Any, dilation: Any = 1
) -> dict[str, Any]:
    """The options of pooling in the one form that kernels get; a stride of None is the window."""
    window, dilation = pair(name, "size", window), pair(name, "dilation", dilation)
    stride = window if stride is None else pair(name, "stride", stride)
    padding = padding_of(name, padding, size, window, stride, dilation)
    return dict(window=window, stride=stride, padding=padding, dilation=dilation)


def _image(name: str, x: Any) -> Tensor:
    x = tensor_in(name, x)
    axes_checked(name, "x", x.shape, "N,H,W,C")
    return x


def pool_shape(
    name: str,
    x: Shape,
    window: Shape,
    stride: Shape,
    padding: Padding,
    dilation: Shape = (1, 1),
    ceil_mode: bool = False,
) -> Shape:
    """(N, P, Q, C), or an error: every window must hold at least one value of x."""
    axes_checked(name, "x", x, "N,H,W,C")
    p, q = outputs_of(name, x[1:3], window, stride, padding, dilation, ceil_mode)
    for ends, r, d in zip(padding, window, dilation, strict=True):
        if max(ends) > ((r - 1) * d + 1) // 2:
            raise ShapeError(
                f"{name}: padding may be at most half of the window, but it is {padding} "
                f"for a window of {window} with dilation {dilation}"
            )
    for what, size, count, r, s, ends, d in zip(
        ("row", "column"), x[1:3], (p, q), window, stride, padding, dilation, strict=True
    ):
        if d > 1 and max(ends) > 0:  # only then can a window step over all of x
            for at in range(-ends[0], count * s - ends[0], s):
                if not any(0 <= at + i * d < size for i in range(r)):
                    raise ShapeError(
                        f"{name}: the window at {what} {at} reads nothing but padding "
                        f"(x is {x}, window {window}, dilation {dilation}, padding {padding})"
                    )
    return x[0], p, q, x[3]


def _pool_cost(x: Shape, *_: Shape, window: Shape, stride: Shape, **__: Any) -> tuple:
    outputs = elements(x) / elements(stride)
    return outputs * elements(window), elements(x) + outputs


POOL_OPTIONS: dict[str, list[Any]] = dict(
    size=[1, 2, 3, (3, 2)],
    stride=[None, 1, 2, (1, 2), 3],
    padding=[0, 1, (0, 1), ((1, 0), (0, 1)), "same"],
    ceil_mode=[False, True],
)

# the largest --------------------------------------------------------------------------------------


@op(
    "x[N,H,W,C] -> y[N,P,Q,C], index[N,P,Q,C]~",
    shape=lambda x, **params: (pool_shape("max_pool2d", x, **params),) * 2,
    dtype=lambda x, **_: (*float_dtypes("max_pool2d", (), 1)(x), INT),
    grads=(
        lambda g, y, x, ceil_mode, **params: max_pool2d_dx(g, y[1], size=x.shape[1:3], **params),
    ),
    cost=_pool_cost,
    samples=(
        sample(distinct(2, 4, 6, 3), 2),
        sample(distinct(2, 5, 7, 3), 3, stride=2),
        sample(distinct(1, 6, 5, 2), (3, 2), stride=(1, 2), padding=(1, 0)),
        sample(distinct(2, 5, 6, 1), 2, padding=((1, 0), (0, 1)), ceil_mode=True),
        sample(distinct(2, 7, 8, 2), 3, stride=2, padding=1, ceil_mode=True),
        sample(distinct(2, 7, 8, 2), (2, 3), stride=1, dilation=(3, 2), padding=1),
        sample(distinct(2, 5, 5, 2), 2, stride=3),
        sample(distinct(2, 5, 6, 2), 3, stride=2, padding="same"),
        sample(distinct(17, 3, 3, 2), 3),
        sample(distinct(2, 6, 6, 2), 3, padding=1),
        sample(distinct(2, 4, 6, 1), 2, padding=((1, 0), (0, 0))),
        sample(distinct(128, 28, 28, 6), 2, bench=True),
        sample(distinct(64, 32, 32, 64), 2, bench=True),
        sample(distinct(16, 56, 56, 64), 3, stride=2, bench=True),
    ),
    options=POOL_OPTIONS | dict(dilation=[1, 2, (2, 1)]),
    exact=True,
)
def max_pool2d(
    x: Any,
    size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Any:
    """y[n,p,q,c] = the largest x[n, p stride + r dilation - top, ..., c] over the window (r, s).

    x (N, H, W, C) -> (N, P, Q, C); size = (R, S) or one number for both.  NaN if the window holds
    one.  Padding never wins; of equal values the first does, and it gets the whole gradient.

    stride     None: the window's size, so that windows lie side by side
    padding    as in conv2d, at most half of the window
    ceil_mode  also a last window that hangs over the end, if it starts inside of x or of the
               padding before it

    The gradient rules get `index` (N, P, Q, C), int32: the winner's place r S + s in its window
    (the first NaN where there is one).
    """
    x = _image("max_pool2d", x)
    settings = _settings("max_pool2d", x.shape[1:3], size, stride, padding, dilation)
    return (x,), dict(**settings, ceil_mode=bool(ceil_mode))


def _max_dx_shape(g: Shape, index: Shape, *, size: Shape, **_: Any) -> tuple[Shape]:
    if g != index:
        raise ShapeError(f"max_pool2d_dx: g is {g} but index is {index}")
    return ((g[0], *size, g[3]),)


def _index_cost(a: Shape, index: Shape, *, window: Shape, **_: Any) -> tuple[float, float]:
    return float(elements(index) * elements(window)), 2.0 * elements(index) + elements(a)


@op(
    "g[N,P,Q,C], index[N,P,Q,C] -> dx[N,H,W,C]",
    shape=_max_dx_shape,
    grads=(
        lambda h, dx, g, index, size, **params: max_pool2d_gather(h, index, **params),
        None,
    ),
    cost=_index_cost,
    samples=(
        sample((2, 2, 3, 3), _winners(2, 2, 3, 3, high=4), size=(4, 6), window=2),
        sample((2, 2, 3, 3), _winners(2, 2, 3, 3, high=9), size=(5, 7), window=3, stride=2),
        sample(
            (2, 3, 4, 2),
            _winners(2, 3, 4, 2, high=6),
            size=(6, 4),
            window=(3, 2),
            stride=(2, 1),
            padding=((1, 0), (0, 1)),
        ),
        sample(
            (2, 7, 5, 1),
            _winners(2, 7, 5, 1, high=4),
            size=(7, 6),
            window=2,
            stride=1,
            dilation=(2, 3),
            padding=1,
        ),
        sample((2, 2, 2, 2), _winners(2, 2, 2, 2, high=9), size=(6, 6), window=3, padding=1),
        sample(
            (128, 14, 14, 6),
            _winners(128, 14, 14, 6, high=4),
            size=(28, 28),
            window=2,
            bench=True,
        ),
        sample(
            (16, 27, 27, 64),
            _winners(16, 27, 27, 64, high=9),
            size=(56, 56),
            window=3,
            stride=2,
            bench=True,
        ),
    ),
)
def max_pool2d_dx(
    g: Any,
    index: Any,
    *,
    size: Any,
    window: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
) -> Any:
    """Zeros (N, H, W, C) to which every g is added at its window's winner.

    g and index (N, P, Q, C) -> (N, H, W, C), size = (H, W); index as max_pool2d has it.  What
    points outside of (H, W) is dropped.
    """
    size = pair("max_pool2d_dx", "size", size)
    settings = _settings("max_pool2d_dx", size, window, stride, padding, dilation)
    return (g, index), dict(size=size, **settings)


@op(
    "x[N,H,W,C], index[N,P,Q,C] -> y[N,P,Q,C]",
    shape=lambda x, index, **_: (index,),
    grads=(
        lambda h, y, x, index, **params: max_pool2d_dx(h, index, size=x.shape[1:3], **params),
        None,
    ),
    cost=_index_cost,
    samples=(
        sample((2, 4, 6, 3), _winners(2, 2, 3, 3, high=4), window=2),
        sample(
            (2, 6, 4, 2),
            _winners(2, 3, 4, 2, high=6),
            window=(3, 2),
            stride=(2, 1),
            padding=((1, 0), (0, 1)),
        ),
        sample(
            (2, 7, 6, 1),
            _winners(2, 7, 5, 1, high=4),
            window=2,
            stride=1,
            dilation=(2, 3),
            padding=1,
        ),
    ),
    exact=True,
)
def max_pool2d_gather(
    x: Any, index: Any, *, window: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1
) -> Any:
    """y[n,p,q,c] = x at the place `index` in every window: max_pool2d_dx transposed.

    x (N, H, W, C), index (N, P, Q, C) -> (N, P, Q, C); what points outside of x reads 0.
    """
    x = _image("max_pool2d_gather", x)
    settings = _settings("max_pool2d_gather", x.shape[1:3], window, stride, padding, dilation)
    return (x, index), settings


# the mean -----------------------------------------------------------------------------------------


def _avg_settings(
    name: str, size: Shape, window: Any, stride: Any, padding: Any, ceil_mode: bool, counted: bool
) -> dict[str, Any]:
    settings = _settings(name, size, window, stride, padding)
    del settings["dilation"]
    return settings | dict(ceil_mode=bool(ceil_mode), count_include_pad=bool(counted))


def _avg_shape(x: Shape, *, count_include_pad: bool, **params: Any) -> tuple[Shape]:
    return (pool_shape("avg_pool2d", x, **params),)


def _avg_dx_shape(g: Shape, *, size: Shape, **params: Any) -> tuple[Shape]:
    x = (g[0], *size, g[3])
    (y,) = _avg_shape(x, **params)
    if g != y:
        raise ShapeError(f"avg_pool2d_dx: g is {g} but x {x} has an output of {y}")
    return (x,)


@op(
    "x[N,H,W,C] -> y[N,P,Q,C]",
    shape=_avg_shape,
    grads=(lambda g, y, x, **params: avg_pool2d_dx(g, size=x.shape[1:3], **params),),
    cost=_pool_cost,
    samples=(
        sample((2, 4, 6, 3), 2),
        sample((2, 5, 7, 3), 3, stride=2),
        sample((1, 6, 5, 2), (3, 2), stride=(1, 2), padding=(1, 0)),
        sample((1, 6, 5, 2), (3, 2), stride=(1, 2), padding=(1, 0), count_include_pad=False),
        sample((2, 7, 8, 2), 3, stride=2, padding=1, ceil_mode=True),
        sample((2, 6, 5, 1), 2, padding=((1, 0), (0, 1)), ceil_mode=True, count_include_pad=False),
        sample((2, 5, 6, 2), 3, stride=2, padding="same"),
        sample((2, 5, 5, 2), 2, stride=3),
        sample((17, 3, 3, 2), 3),
        sample((2, 6, 6, 2), 3, padding=1),
        sample((128, 28, 28, 6), 2, bench=True),
        sample((64, 32, 32, 64), 2, bench=True),
        sample((16, 56, 56, 64), 3, stride=2, padding=1, bench=True),
    ),
    options=POOL_OPTIONS | dict(count_include_pad=[True, False]),
)
def avg_pool2d(
    x: Any,
    size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """y[n,p,q,c] = the mean of x[n, p stride + r - top, q stride + s - left, c] over the window.

    x (N, H, W, C) -> (N, P, Q, C); size = (R, S) or one number for both; stride, padding and
    ceil_mode as in max_pool2d.  The sum is divided by how much of the window lies in x and its
    padding; with count_include_pad=False by how much lies in x.
    """
    x, name = _image("avg_pool2d", x), "avg_pool2d"
    return (x,), _avg_settings(
        name, x.shape[1:3], size, stride, padding, ceil_mode, count_include_pad
    )


@op(
    "g[N,P,Q,C] -> dx[N,H,W,C]",
    shape=_avg_dx_shape,
    grads=(lambda h, dx, g, size, window, **params: avg_pool2d(h, window, **params),),
    cost=lambda g, *, size, window, **_: (
        float(elements(g) * elements(window)),
        elements(g) + float(g[0] * g[3] * elements(size)),
    ),
    samples=(
        sample((2, 2, 3, 3), size=(4, 6), window=2),
        sample((2, 2, 3, 3), size=(5, 7), window=3, stride=2),
        sample(
            (1, 6, 2, 2),
            size=(6, 5),
            window=(3, 2),
            stride=(1, 2),
            padding=(1, 0),
            count_include_pad=False,
        ),
        sample((2, 4, 5, 2), size=(7, 8), window=3, stride=2, padding=1, ceil_mode=True),
        sample((128, 14, 14, 6), size=(28, 28), window=2, bench=True),
    ),
)
def avg_pool2d_dx(
    g: Any,
    *,
    size: Any,
    window: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """Every g spread evenly over its window: (N, P, Q, C) -> (N, H, W, C), size = (H, W)."""
    g, size = tensor_in("avg_pool2d_dx", g, "g"), pair("avg_pool2d_dx", "size", size)
    return (g,), dict(
        size=size,
        **_avg_settings(
            "avg_pool2d_dx", size, window, stride, padding, ceil_mode, count_include_pad
        ),
    )


@op("x[N,H,W,C] -> y[N,C]", composite=True, samples=(sample((2, 3, 5, 4)), sample((17, 1, 1, 3))))
def global_avg_pool2d(x: Any) -> Any:
    """y[n,c] = the mean of x over H and W: (N, H, W, C) -> (N, C)."""
    x = _image("global_avg_pool2d", x)
    if 0 in x.shape[1:3]:
        raise ShapeError(f"global_avg_pool2d: no pixels to average   (x {x.shape} is N,H,W,C)")
    return mean(x, axis=(1, 2))
