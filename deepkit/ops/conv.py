"""Convolutions, with shared weights and with weights of their own at every position.

Each is bilinear in x and w, so its two gradients and their gradients are again one another:
y = conv2d(x, w), dx = conv2d_dx(g, w), dw = conv2d_dw(g, x).
"""

from __future__ import annotations

from typing import Any

from ..card import Shape, ShapeError, op, sample
from ..tape import Tensor
from ..words import counted
from .common import elements, pair, tensor_in
from .fused import activation_dx, checked_activation
from .reduce import sum as sum_over
from .window import Padding, axes_checked, outputs_of, padding_of, whole


def _matched(
    name: str, x: Shape, w: Shape, b: Shape | None, groups: int, axes: str = "H,W"
) -> None:
    """Axes, channels, groups and bias of x (N, ..., C), w (K, ..., C/groups), b (K,)."""
    window = {"H,W": "R,S", "L": "R"}[axes]
    axes_checked(name, "x", x, f"N,{axes},C")
    axes_checked(name, "w", w, f"K,{window},C/groups" if groups > 1 else f"K,{window},C")
    shapes = f"(x {x} is N,{axes},C; w {w} is K,{window},C{'/groups' if groups > 1 else ''})"
    for count, what in ((x[-1], "input"), (w[0], "output")):
        if count % groups:
            channels = counted(count, f"{what} channel")
            raise ShapeError(f"{name}: {groups} groups cannot divide {channels}   {shapes}")
    if 0 in (x[-1], w[0]):
        raise ShapeError(f"{name}: at least one channel in and out was expected   {shapes}")
    if x[-1] != w[-1] * groups:
        wanted = f"{groups} groups of {w[-1]}" if groups > 1 else f"{w[-1]}"
        has = counted(x[-1], "channel")
        raise ShapeError(f"{name}: x has {has} but w expects {wanted}   {shapes}")
    if b is not None and b != (w[0],):
        raise ShapeError(f"{name}: b is {b} but y has {counted(w[0], 'channel')}   {shapes}")


def optional(name: str, b: Any) -> Tensor | None:
    return None if b is None else tensor_in(name, b, "b")


def conv_settings(
    name: str, size: Shape, window: Shape, stride: Any, padding: Any, dilation: Any, groups: Any
) -> dict[str, Any]:
    """The options of a convolution in the one form that kernels get."""
    if not whole(groups) or groups < 1:
        raise ShapeError(f"{name}: groups must be a whole number from 1, not {groups!r}")
    stride, dilation = pair(name, "stride", stride), pair(name, "dilation", dilation)
    padding = padding_of(name, padding, size, window, stride, dilation)
    return dict(stride=stride, padding=padding, dilation=dilation, groups=int(groups))


def _onwards(algorithm: str, **settings: Any) -> dict[str, Any]:
    """The options for another direction of the same convolution; every direction has these."""
    known = algorithm in ("direct", "im2col", "winograd")
    return settings | dict(algorithm=algorithm if known else "auto")


# convolution --------------------------------------------------------------------------------------


def conv2d_shape(
    x: Shape,
    w: Shape,
    b: Shape | None,
    *,
    stride: Shape,
    padding: Padding,
    dilation: Shape,
    groups: int,
    **_: Any,
) -> tuple[Shape]:
    _matched("conv2d", x, w, b, groups)
    p, q = outputs_of("conv2d", x[1:3], w[1:3], stride, padding, dilation)
    return ((x[0], p, q, w[0]),)


def _conv2d_cost(x: Shape, w: Shape, b: Shape | None = None, **params: Any) -> tuple[float, float]:
    (y,) = conv2d_shape(x, w, b, **params)
    return 2.0 * elements(y) * elements(w[1:]), elements(x) + elements(w) + elements(y)


def _conv2d_dx_of(g: Tensor, w: Tensor, size: Shape, activation: Any = None, **p: Any) -> Tensor:
    return conv2d_dx(g, w, size=size, **_onwards(**p))


def _conv2d_dw_of(g: Tensor, x: Tensor, window: Shape, activation: Any = None, **p: Any) -> Tensor:
    return conv2d_dw(g, x, window=window, **_onwards(**p))


OPTIONS: dict[str, list[Any]] = dict(
    stride=[1, 2, (2, 1), 3],
    padding=[0, 1, (1, 2), ((0, 1), (2, 1)), "same", "valid"],
    dilation=[1, 2, (1, 2)],
    groups=[1, 2, 3],
)

CONV_SAMPLES = (
    sample((2, 6, 5, 3), (4, 3, 3, 3), (4,)),
    sample((2, 6, 5, 3), (4, 3, 3, 3), None, stride=2),
    sample((1, 7, 8, 2), (3, 2, 3, 2), (3,), stride=(3, 2), padding=1, activation="relu"),
    sample((3, 5, 6, 2), (3, 3, 2, 2), (3,), padding=((0, 2), (1, 0)), activation="tanh"),
    sample((2, 7, 6, 2), (2, 3, 3, 2), None, stride=2, padding="same", activation="sigmoid"),
    sample((2, 5, 4, 1), (2, 2, 4, 1), (2,), padding="same", dilation=(2, 1)),
    sample((2, 7, 7, 2), (3, 3, 2, 2), (3,), padding=(2, 1), dilation=2, stride=2),
    sample((2, 5, 5, 4), (6, 3, 3, 2), (6,), groups=2, padding=1),
    sample((2, 5, 6, 3), (3, 3, 3, 1), (3,), groups=3, padding="same"),
    sample((2, 5, 6, 3), (6, 2, 2, 1), None, groups=3, stride=2, dilation=(1, 2)),
    sample((2, 4, 3, 5), (7, 1, 1, 5), (7,)),
    sample((2, 5, 5, 3), (4, 1, 1, 3), None, stride=2, padding="valid"),
    sample((2, 3, 4, 4), (6, 1, 1, 2), (6,), groups=2),
    sample((3, 5, 5, 2), (4, 5, 5, 2), (4,)),
    sample((17, 4, 4, 3), (5, 2, 2, 3), (5,), stride=3),
    sample((2, 9, 9, 1), (2, 3, 3, 1), (2,), stride=2, algorithm="direct"),
    sample((2, 9, 9, 1), (2, 3, 3, 1), (2,), padding=1, algorithm="im2col"),
)
CONV_BENCHES = (
    sample((128, 32, 32, 1), (6, 5, 5, 1), (6,), bench=True),  # LeNet-5
    sample((128, 14, 14, 6), (16, 5, 5, 6), (16,), bench=True),
    sample((128, 5, 5, 16), (120, 5, 5, 16), (120,), bench=True),
    sample((64, 32, 32, 64), (64, 3, 3, 64), None, padding=1, bench=True),
    sample((64, 16, 16, 64), (128, 3, 3, 64), None, padding=1, bench=True),
    sample((64, 8, 8, 256), (256, 3, 3, 256), None, padding=1, bench=True),
    sample((128, 32, 32, 16), (16, 3, 3, 16), None, padding=1, bench=True),
    sample((64, 32, 32, 3), (64, 3, 3, 3), (64,), padding=1, activation="relu", bench=True),
    sample((16, 56, 56, 256), (64, 1, 1, 256), None, bench=True),
    sample((16, 56, 56, 64), (256, 1, 1, 64), None, bench=True),
    sample((16, 227, 227, 3), (64, 11, 11, 3), (64,), stride=4, bench=True),  # AlexNet
    sample((16, 224, 224, 3), (64, 7, 7, 3), None, stride=2, padding=3, bench=True),
    sample((16, 56, 56, 64), (64, 3, 3, 1), None, padding=1, groups=64, bench=True),
)


@op(
    "x[N,H,W,C], w[K,R,S,C/groups], b[K]? -> y[N,P,Q,K]",
    shape=conv2d_shape,
    incoming=lambda g, y, *, activation, **_: activation_dx(g, y, activation),
    grads=(
        lambda g, y, x, w, b, **params: _conv2d_dx_of(g, w, x.shape[1:3], **params),
        lambda g, y, x, w, b, **params: _conv2d_dw_of(g, x, w.shape[1:3], **params),
        lambda g, y, x, w, b, **params: sum_over(g, axis=(0, 1, 2)),
    ),
    cost=_conv2d_cost,
    samples=(*CONV_SAMPLES, *CONV_BENCHES),
    options=OPTIONS | dict(activation=[None, "relu", "tanh", "sigmoid"]),
)
def conv2d(
    x: Any,
    w: Any,
    b: Any = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    activation: str | None = None,
    algorithm: str = "auto",
) -> Any:
    """y[n,p,q,k] = act(b[k] + sum_rsc w[k,r,s,c] x[n, p stride + r dilation - top, ..., c]).

    x (N, H, W, C), w (K, R, S, C/groups), b (K,) or None -> (N, P, Q, K), where
    P = (H + top + bottom - dilation (R - 1) - 1) // stride + 1, and Q likewise.

    stride, dilation  a whole number from 1, or (height, width)
    padding           zeros around x: a number, (height, width), ((top, bottom), (left, right)),
                      "same" (P = ceil(H / stride), an odd zero goes to the bottom and to the right)
                      or "valid" (none)
    groups            output channels [k K/groups, (k+1) K/groups) see only input channels
                      [k C/groups, (k+1) C/groups); groups = C is a depthwise convolution
    activation        None, "relu", "tanh" or "sigmoid", computed in the same pass
    algorithm         "auto", or what the backend has: "direct", "im2col", "winograd" (3x3 windows
                      at stride 1, numba and cuda; faster, less exact); the gradients follow

    ShapeError if the shapes or options do not go together.
    """
    x, w = tensor_in("conv2d", x), tensor_in("conv2d", w, "w")
    axes_checked("conv2d", "x", x.shape, "N,H,W,C")
    axes_checked("conv2d", "w", w.shape, "K,R,S,C")
    settings = conv_settings(
        "conv2d", x.shape[1:3], w.shape[1:3], stride, padding, dilation, groups
    )
    activation = checked_activation("conv2d", activation)
    return (x, w, optional("conv2d", b)), settings | dict(
        activation=activation, algorithm=algorithm
    )


def _conv2d_dx_shape(
    g: Shape, w: Shape, *, size: Shape, groups: int, algorithm: str, **settings: Any
) -> tuple[Shape]:
    x = (g[0], *size, w[-1] * groups)
    (y,) = conv2d_shape(x, w, None, groups=groups, **settings)
    _arrived("conv2d_dx", g, y, x, w)
    return (x,)


def _conv2d_dw_shape(
    g: Shape, x: Shape, *, window: Shape, groups: int, algorithm: str, **settings: Any
) -> tuple[Shape]:
    w = (g[-1], *window, x[-1] // groups)
    (y,) = conv2d_shape(x, w, None, groups=groups, **settings)
    _arrived("conv2d_dw", g, y, x, w)
    return (w,)


def _arrived(name: str, g: Shape, y: Shape, x: Shape, w: Shape) -> None:
    if g != y:
        raise ShapeError(
            f"{name}: g is {g} but the output that it belongs to is {y}   (x is {x}, w is {w})"
        )


def _conv2d_grad_cost(g: Shape, other: Shape, **params: Any) -> tuple[float, float]:
    """As many operations as the convolution itself."""
    if "size" in params:
        (x,), w = _conv2d_dx_shape(g, other, **params), other
    else:
        (w,), x = _conv2d_dw_shape(g, other, **params), other
    return 2.0 * elements(g) * elements(w[1:]), elements(x) + elements(w) + elements(g)


@op(
    "g[N,P,Q,K], w[K,R,S,C/groups] -> dx[N,H,W,C]",
    shape=_conv2d_dx_shape,
    grads=(
        lambda h, dx, g, w, size, **params: conv2d(h, w, **_onwards(**params)),
        lambda h, dx, g, w, size, **params: _conv2d_dw_of(g, h, w.shape[1:3], **params),
    ),
    cost=_conv2d_grad_cost,
    samples=(
        sample((2, 4, 3, 4), (4, 3, 3, 3), size=(6, 5)),
        sample((2, 3, 4, 4), (4, 3, 2, 3), size=(7, 8), stride=2, padding=((0, 1), (1, 0))),
        sample((1, 3, 3, 2), (2, 3, 3, 2), size=(8, 7), stride=3, padding="same"),
        sample((2, 3, 3, 6), (6, 3, 3, 2), size=(7, 7), groups=2, dilation=2),
        sample((2, 5, 6, 3), (3, 3, 3, 1), size=(5, 6), groups=3, padding=1),
        sample((2, 4, 3, 5), (5, 1, 1, 7), size=(4, 3)),
        sample((3, 1, 1, 4), (4, 5, 5, 2), size=(5, 5)),
        sample((2, 7, 7, 2), (2, 3, 3, 2), size=(9, 9), algorithm="direct"),
        sample((2, 7, 7, 2), (2, 3, 3, 2), size=(9, 9), algorithm="im2col"),
        sample((128, 10, 10, 16), (16, 5, 5, 6), size=(14, 14), bench=True),
        sample((64, 16, 16, 128), (128, 3, 3, 64), size=(16, 16), padding=1, bench=True),
    ),
)
def conv2d_dx(
    g: Any,
    w: Any,
    *,
    size: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    algorithm: str = "auto",
) -> Any:
    """dx[n,h,w,c] = sum of g[n,p,q,k] w[k,r,s,c] where h = p stride + r dilation - top, w likewise.

    g (N, P, Q, K), w (K, R, S, C/groups) -> (N, H, W, C), with size = (H, W); see conv2d.
    """
    g, w = tensor_in("conv2d_dx", g, "g"), tensor_in("conv2d_dx", w, "w")
    axes_checked("conv2d_dx", "g", g.shape, "N,P,Q,K")
    axes_checked("conv2d_dx", "w", w.shape, "K,R,S,C")
    size = pair("conv2d_dx", "size", size)
    settings = conv_settings("conv2d_dx", size, w.shape[1:3], stride, padding, dilation, groups)
    return (g, w), dict(size=size, **settings, algorithm=algorithm)


@op(
    "g[N,P,Q,K], x[N,H,W,C] -> dw[K,R,S,C/groups]",
    shape=_conv2d_dw_shape,
    grads=(
        lambda h, dw, g, x, window, **params: conv2d(x, h, **_onwards(**params)),
        lambda h, dw, g, x, window, **params: _conv2d_dx_of(g, h, x.shape[1:3], **params),
    ),
    cost=_conv2d_grad_cost,
    samples=(
        sample((2, 4, 3, 4), (2, 6, 5, 3), window=3),
        sample((2, 3, 4, 4), (2, 7, 8, 3), window=(3, 2), stride=2, padding=((0, 1), (1, 0))),
        sample((1, 3, 3, 2), (1, 8, 7, 2), window=3, stride=3, padding="same"),
        sample((2, 3, 3, 6), (2, 7, 7, 4), window=3, groups=2, dilation=2),
        sample((2, 5, 6, 3), (2, 5, 6, 3), window=3, groups=3, padding=1),
        sample((2, 4, 3, 5), (2, 4, 3, 7), window=1),
        sample((3, 1, 1, 4), (3, 5, 5, 2), window=5),
        sample((2, 7, 7, 2), (2, 9, 9, 2), window=3, algorithm="direct"),
        sample((2, 7, 7, 2), (2, 9, 9, 2), window=3, algorithm="im2col"),
        sample((128, 28, 28, 6), (128, 32, 32, 1), window=5, bench=True),
        sample((64, 16, 16, 128), (64, 16, 16, 64), window=3, padding=1, bench=True),
    ),
)
def conv2d_dw(
    g: Any,
    x: Any,
    *,
    window: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    algorithm: str = "auto",
) -> Any:
    """dw[k,r,s,c] = sum_npq g[n,p,q,k] x[n, p stride + r dilation - top, ..., c].

    g (N, P, Q, K), x (N, H, W, C) -> (K, R, S, C/groups), with window = (R, S); see conv2d.
    """
    g, x = tensor_in("conv2d_dw", g, "g"), tensor_in("conv2d_dw", x)
    axes_checked("conv2d_dw", "g", g.shape, "N,P,Q,K")
    axes_checked("conv2d_dw", "x", x.shape, "N,H,W,C")
    window = pair("conv2d_dw", "window", window)
    settings = conv_settings("conv2d_dw", x.shape[1:3], window, stride, padding, dilation, groups)
    return (g, x), dict(window=window, **settings, algorithm=algorithm)


@op(
    "x[N,L,C], w[K,R,C/groups], b[K]? -> y[N,P,K]",
    composite=True,
    samples=(
        sample((2, 7, 3), (4, 3, 3), (4,)),
        sample((2, 8, 4), (6, 3, 2), None, stride=2, padding=(2, 1), groups=2),
        sample((2, 7, 2), (3, 2, 2), (3,), padding="same", dilation=2, activation="relu"),
    ),
)
def conv1d(
    x: Any,
    w: Any,
    b: Any = None,
    *,
    stride: int = 1,
    padding: Any = 0,
    dilation: int = 1,
    groups: int = 1,
    activation: str | None = None,
    algorithm: str = "auto",
) -> Any:
    """y[n,p,k] = act(b[k] + sum_rc w[k,r,c] x[n, p stride + r dilation - before, c]).

    x (N, L, C), w (K, R, C/groups), b (K,) or None -> (N, P, K).  padding: a number,
    (before, after), "same" or "valid"; all else as in conv2d, of which it is the flat case.
    """
    x, w, b = tensor_in("conv1d", x), tensor_in("conv1d", w, "w"), optional("conv1d", b)
    for what, value in (("stride", stride), ("dilation", dilation)):
        if not whole(value) or value < 1:
            raise ShapeError(f"conv1d: {what} must be a whole number from 1, not {value!r}")
    ends = (padding, padding) if whole(padding) else padding
    if ends not in ("same", "valid") and not (
        isinstance(ends, tuple | list) and len(ends) == 2 and all(whole(e) and e >= 0 for e in ends)
    ):
        raise ShapeError(
            "conv1d: padding must be a whole number from 0, (before, after), 'same' or 'valid', "
            f"not {padding!r}"
        )
    axes_checked("conv1d", "x", x.shape, "N,L,C")
    axes_checked("conv1d", "w", w.shape, "K,R,C")
    ends = ends if isinstance(ends, str) else ((0, 0), ends)
    flat_x, flat_w = (1, x.shape[1]), (1, w.shape[1])
    settings = conv_settings("conv1d", flat_x, flat_w, (1, stride), ends, (1, dilation), groups)
    _matched("conv1d", x.shape, w.shape, None if b is None else b.shape, groups, axes="L")
    settings.pop("groups")
    outputs_of("conv1d", flat_x, flat_w, **settings)
    y = conv2d(
        x.reshape((x.shape[0], *flat_x, x.shape[2])),
        w.reshape((w.shape[0], *flat_w, w.shape[2])),
        b,
        **settings,
        groups=groups,
        activation=activation,
        algorithm=algorithm,
    )
    return y.reshape((y.shape[0], y.shape[2], y.shape[3]))


# weights of their own -----------------------------------------------------------------------------


def local_shape(
    x: Shape, w: Shape, b: Shape | None, *, stride: Shape, padding: Padding
) -> tuple[Shape]:
    name = "locally_connected2d"
    axes_checked(name, "x", x, "N,H,W,C")
    axes_checked(name, "w", w, "P,Q,K,R,S,C")
    shapes = f"(x {x} is N,H,W,C; w {w} is P,Q,K,R,S,C)"
    if x[3] != w[5]:
        raise ShapeError(f"{name}: x has {counted(x[3], 'channel')} but w has {w[5]}   {shapes}")
    p, q = outputs_of(name, x[1:3], w[3:5], stride, padding)
    if w[:2] != (p, q):
        raise ShapeError(
            f"{name}: w has weights for {w[0]}x{w[1]} positions but there are {p}x{q}   {shapes}"
        )
    if b is not None and b not in (w[2:3], w[:3]):
        raise ShapeError(f"{name}: b is {b}, expected {w[2:3]} or {w[:3]}   {shapes}")
    return ((x[0], p, q, w[2]),)


def _local_cost(x: Shape, w: Shape, *_: Any, **__: Any) -> tuple[float, float]:
    y = x[0] * elements(w[:3])
    return 2.0 * x[0] * elements(w), elements(x) + elements(w) + y


def _local_dx_shape(g: Shape, w: Shape, *, size: Shape, **settings: Any) -> tuple[Shape]:
    x = (g[0], *size, w[5])
    (y,) = local_shape(x, w, None, **settings)
    _arrived("locally_connected2d_dx", g, y, x, w)
    return (x,)


def _local_dw_shape(g: Shape, x: Shape, *, window: Shape, **settings: Any) -> tuple[Shape]:
    w = (*g[1:], *window, x[3])
    (y,) = local_shape(x, w, None, **settings)
    _arrived("locally_connected2d_dw", g, y, x, w)
    return (w,)


LOCAL_OPTIONS: dict[str, list[Any]] = dict(stride=[1, 2, (2, 1)], padding=[0, 1, "same"])


@op(
    "x[N,H,W,C], w[P,Q,K,R,S,C], b[...]? -> y[N,P,Q,K]",
    shape=local_shape,
    grads=(
        lambda g, y, x, w, b, **params: locally_connected2d_dx(g, w, size=x.shape[1:3], **params),
        lambda g, y, x, w, b, **params: locally_connected2d_dw(g, x, window=w.shape[3:5], **params),
        lambda g, y, x, w, b, **params: g,  # summed to b's shape
    ),
    cost=_local_cost,
    samples=(
        sample((2, 4, 5, 3), (2, 3, 4, 3, 3, 3), (4,)),
        sample((3, 5, 4, 2), (3, 2, 3, 3, 2, 2), (3, 2, 3), stride=2, padding=((1, 1), (0, 1))),
        sample((2, 3, 5, 1), (3, 3, 2, 2, 3, 1), None, stride=(1, 2), padding="same"),
        sample((17, 3, 3, 2), (1, 1, 5, 3, 3, 2), None),
        sample((64, 12, 12, 16), (10, 10, 16, 3, 3, 16), (16,), bench=True),
    ),
    options=LOCAL_OPTIONS,
)
def locally_connected2d(x: Any, w: Any, b: Any = None, *, stride: Any = 1, padding: Any = 0) -> Any:
    """y[n,p,q,k] = b + sum_rsc w[p,q,k,r,s,c] x[n, p stride + r - top, q stride + s - left, c].

    x (N, H, W, C), w (P, Q, K, R, S, C), b (K,) or (P, Q, K) or None -> (N, P, Q, K).
    stride and padding are as in conv2d.
    """
    name = "locally_connected2d"
    x, w = tensor_in(name, x), tensor_in(name, w, "w")
    axes_checked(name, "x", x.shape, "N,H,W,C")
    axes_checked(name, "w", w.shape, "P,Q,K,R,S,C")
    stride = pair(name, "stride", stride)
    padding = padding_of(name, padding, x.shape[1:3], w.shape[3:5], stride)
    return (x, w, optional(name, b)), dict(stride=stride, padding=padding)


@op(
    "g[N,P,Q,K], w[P,Q,K,R,S,C] -> dx[N,H,W,C]",
    shape=_local_dx_shape,
    grads=(
        lambda h, dx, g, w, size, **params: locally_connected2d(h, w, **params),
        lambda h, dx, g, w, size, **params: locally_connected2d_dw(
            g, h, window=w.shape[3:5], **params
        ),
    ),
    cost=_local_cost,
    samples=(
        sample((2, 2, 3, 4), (2, 3, 4, 3, 3, 3), size=(4, 5)),
        sample((3, 3, 2, 3), (3, 2, 3, 3, 2, 2), size=(6, 4), stride=2, padding=((1, 1), (0, 1))),
    ),
)
def locally_connected2d_dx(g: Any, w: Any, *, size: Any, stride: Any = 1, padding: Any = 0) -> Any:
    """The gradient for x: (N, P, Q, K), (P, Q, K, R, S, C) -> (N, H, W, C), size = (H, W)."""
    name = "locally_connected2d_dx"
    size, stride = pair(name, "size", size), pair(name, "stride", stride)
    padding = padding_of(name, padding, size, w.shape[3:5], stride)
    return (g, w), dict(size=size, stride=stride, padding=padding)


@op(
    "g[N,P,Q,K], x[N,H,W,C] -> dw[P,Q,K,R,S,C]",
    shape=_local_dw_shape,
    grads=(
        lambda h, dw, g, x, window, **params: locally_connected2d(x, h, **params),
        lambda h, dw, g, x, window, **params: locally_connected2d_dx(
            g, h, size=x.shape[1:3], **params
        ),
    ),
    cost=lambda g, x, *, window, **_: (
        2.0 * elements(g) * elements(window) * x[3],
        elements(g) + elements(x) + elements(g[1:]) * elements(window) * x[3],
    ),
    samples=(
        sample((2, 2, 3, 4), (2, 4, 5, 3), window=3),
        sample((3, 3, 2, 3), (3, 6, 4, 2), window=(3, 2), stride=2, padding=((1, 1), (0, 1))),
    ),
)
def locally_connected2d_dw(
    g: Any, x: Any, *, window: Any, stride: Any = 1, padding: Any = 0
) -> Any:
    """The gradient for w: (N, P, Q, K), (N, H, W, C) -> (P, Q, K, R, S, C), window = (R, S)."""
    name = "locally_connected2d_dw"
    window, stride = pair(name, "window", window), pair(name, "stride", stride)
    padding = padding_of(name, padding, x.shape[1:3], window, stride)
    return (g, x), dict(window=window, stride=stride, padding=padding)
