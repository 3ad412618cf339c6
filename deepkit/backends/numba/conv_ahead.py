"""What convolutions make of constant filters once, in inference, and what they end with."""

from __future__ import annotations

from typing import Any

from .. import Ahead, scratch, wished
from . import conv_channels, winograd, winograd_few
from .elementwise import activate
from .lanes import Lanes
from .launch import kernel, launch, ptr, size
from .linear import epilogue
from .window import geometry


@kernel
def _add_residual(t, n, y: ptr, residual: ptr, count: size, relu: size):
    """y += residual, then ReLU."""
    for i in range(t * count // n, (t + 1) * count // n):
        value = y[i] + residual[i]
        y[i] = 0 if relu and value <= 0 else value


def finish(y: Any, residual: Any, activation: str | None) -> None:
    """The end of a convolution whose kernel adds no residual itself."""
    if residual is not None:
        count = y.memory.size if isinstance(y, Lanes) else y.size
        launch(_add_residual, y.dtype, y, residual, count, int(activation == "relu"))
    activate(y, activation)


@scratch(lambda y, x, *_, **__: [(winograd_few.work(y, x), y.dtype)])
def _winograd_few(
    y: Any, x: Any, w: Any, b: Any, *more: Any, padding: Any, activation: str | None,
    scratch: Any, **_: Any,
) -> None:  # fmt: skip
    *residual, u = more
    winograd_few.multiply(y, x, u, b, residual[0] if residual else None, scratch[0],
                          padding[0][0], padding[1][0], epilogue(b, activation))  # fmt: skip
    activate(y, activation)


def _turned(
    y: Any, x: Any, w: Any, b: Any, *more: Any, stride: Any, padding: Any, dilation: Any,
    groups: int, activation: str | None, algorithm: str,
) -> None:  # fmt: skip
    *residual, turned = more
    added = residual[0] if residual else None
    options = geometry(stride, padding, dilation, groups)
    conv_channels.forward(y, x, w, b, turned, options, None if residual else activation)
    finish(y, added, activation)


def parts(
    y: Any, x: Any, w: Any, *_: Any, rounding: bool, groups: int, algorithm: str, **params: Any
) -> Ahead | None:
    """For a few images, whose kernel reads filters in an order of its own."""
    if isinstance(y, Lanes):
        return None
    if not rounding:
        return Ahead((1,), (w.shape,), conv_channels.turn, _turned, (("groups", groups),))
    free = algorithm == "auto" and wished("conv2d") in (None, "winograd")
    taken = free and winograd.takes(x.shape, w.shape, groups=groups, **params)
    if not taken or not winograd_few.pays(y, x, w):
        return None
    return Ahead((1,), (winograd_few.kept(w),), winograd_few.make, _winograd_few)
