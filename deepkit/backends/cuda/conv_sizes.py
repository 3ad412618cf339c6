"""The sizes and options of a convolution, as the kernels take them (`Conv` in conv.cuh)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from .structures import structure

_SIZES = (*"NHWCPQKRS",)
_OPTIONS = ("stride_h", "stride_w", "dilation_h", "dilation_w", "top", "left", "groups")
Conv = structure("Conv", [(f, ctypes.c_int) for f in (*_SIZES, *_OPTIONS, "activation")])

Shape = tuple[int, ...]

ACTIVATIONS = {None: 0, "relu": 1, "tanh": 2, "sigmoid": 3}


def conv(
    x: Any,
    y: Any,
    window: tuple[int, int],
    *,
    stride: tuple[int, int],
    padding: Any,
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    activation: str | None = None,
    **_: Any,
) -> Any:
    """y, or its gradient, is what a window sees of x, or of its gradient."""
    (top, _), (left, _) = padding
    sizes = (*x.shape, *y.shape[1:], *window, *stride, *dilation, top, left)
    return Conv(*sizes, groups, ACTIVATIONS[activation])


def _outputs(
    x: Shape, w: Shape, *_: Any, stride: Any, padding: Any, dilation: Any, **__: Any
) -> Shape:
    sizes = zip(x[1:3], w[1:3], stride, padding, dilation, strict=True)
    return (x[0], *[(n + sum(p) - d * (r - 1) - 1) // s + 1 for n, r, s, p, d in sizes], w[0])


OUTPUTS: dict[str, Callable[..., Shape]] = {  # (*shapes of ins, **params) -> shape of the output
    "conv2d": _outputs,
    "conv2d_dx": lambda g, w, *, size, groups, **_: (g[0], *size, w[3] * groups),
    "conv2d_dw": lambda g, x, *, window, groups, **_: (g[3], *window, x[3] // groups),
}
