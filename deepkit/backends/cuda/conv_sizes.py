"""The sizes and options of a convolution, as the kernels take them (`Conv` in conv.cuh)."""

from __future__ import annotations

import ctypes
from typing import Any

from .structures import structure

_SIZES = (*"NHWCPQKRS",)
_OPTIONS = ("stride_h", "stride_w", "dilation_h", "dilation_w", "top", "left", "groups")
Conv = structure("Conv", [(f, ctypes.c_int) for f in (*_SIZES, *_OPTIONS, "activation")])

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
