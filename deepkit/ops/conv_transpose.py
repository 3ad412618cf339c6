"""The convolution that enlarges: conv2d's gradient as an op of its own."""

from __future__ import annotations

from typing import Any

from ..card import ShapeError, op, sample
from ..words import counted
from .common import pair, tensor_in
from .conv import conv2d_dx, conv_settings, optional
from .shape import pad
from .window import axes_checked


@op(
    "x[N,P,Q,C], w[C,R,S,K/groups], b[K]? -> y[N,H,W,K]",
    composite=True,
    samples=(
        sample((2, 3, 4, 3), (3, 3, 3, 2), (2,)),
        sample((2, 3, 4, 3), (3, 3, 2, 2), None, stride=2, padding=1, output_padding=1),
        sample((1, 4, 3, 2), (2, 2, 2, 3), (3,), stride=(3, 2), output_padding=(2, 0)),
        sample((2, 3, 3, 4), (4, 3, 3, 3), (6,), groups=2, dilation=2, output_padding=1),
        sample((2, 3, 3, 2), (2, 3, 3, 1), (1,), padding=((0, 1), (2, 0)), stride=2),
        sample((16, 16, 16, 128), (128, 4, 4, 64), (64,), stride=2, padding=1, bench=True),
    ),
    options=dict(
        stride=[1, 2, (2, 1), 3],
        padding=[0, 1, (0, 1), ((0, 1), (1, 0))],
        output_padding=[0, 1, (0, 1)],
        dilation=[1, 2],
        groups=[1, 2],
    ),
)
def conv_transpose2d(
    x: Any,
    w: Any,
    b: Any = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """The gradient of conv2d as a layer: every x[n,p,q,c] spreads w[c] over y at its window.

    x (N, P, Q, C), w (C, R, S, K/groups), b (K,) or None -> (N, H, W, K), where
    H = (P - 1) stride - top - bottom + dilation (R - 1) + output_padding + 1, and W likewise.

    padding         how much is cut off: a number, (height, width), ((top, bottom), (left, right))
    output_padding  rows and columns added at the bottom and right, fewer than stride or dilation
    """
    name = "conv_transpose2d"
    x, w, b = tensor_in(name, x), tensor_in(name, w, "w"), optional(name, b)
    axes_checked(name, "x", x.shape, "N,P,Q,C")
    axes_checked(name, "w", w.shape, "C,R,S,K")
    if padding == "same":
        raise ShapeError(f"{name}: padding 'same' leaves the output's size open; give numbers")
    window = w.shape[1:3]
    settings = conv_settings(name, (1, 1), window, stride, padding, dilation, groups)
    more = pair(name, "output_padding", output_padding, least=0)
    strides, dilations = settings["stride"], settings["dilation"]
    if any(m >= max(s, d) for m, s, d in zip(more, strides, dilations, strict=True)):
        raise ShapeError(
            f"{name}: output_padding {more} must be less than stride {strides} "
            f"or dilation {dilations}"
        )
    shapes = f"(x {x.shape} is N,P,Q,C; w {w.shape} is C,R,S,K{'/groups' if groups > 1 else ''})"
    if x.shape[3] != w.shape[0]:
        raise ShapeError(
            f"{name}: x has {counted(x.shape[3], 'channel')} but w expects {w.shape[0]}   {shapes}"
        )
    if x.shape[3] % groups:
        channels = counted(x.shape[3], "channel")
        raise ShapeError(f"{name}: {groups} groups cannot divide {channels}   {shapes}")
    if b is not None and b.shape != (w.shape[3] * groups,):
        has = counted(w.shape[3] * groups, "channel")
        raise ShapeError(f"{name}: b is {b.shape} but y has {has}   {shapes}")
    ends = settings["padding"]
    spread = [
        (p - 1) * s + (r - 1) * d + 1
        for p, s, r, d in zip(x.shape[1:3], strides, window, dilations, strict=True)
    ]
    h, v = (full - sum(e) + m for full, e, m in zip(spread, ends, more, strict=True))
    if min(h, v) < 1:
        raise ShapeError(f"{name}: padding {ends} leaves an output of {h}x{v}   {shapes}")
    if all(m < s for m, s in zip(more, strides, strict=True)):
        y = conv2d_dx(x, w, size=(h, v), **settings)
    else:  # no convolution of such an input has this output: add zeros and cut by hand
        y = conv2d_dx(x, w, size=tuple(spread), **(settings | dict(padding=0)))
        y = pad(y, ((0, 0), (0, more[0]), (0, more[1]), (0, 0)))
        (top, _), (left, _) = ends
        y = y[:, top : top + h, left : left + v]
    return y if b is None else y + b
