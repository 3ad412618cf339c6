"""Normalisation: over the batch, over an example, over neighbouring channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..card import ShapeError
from ..ops.common import number
from ..ops.fused import checked_activation
from ..tape import Tensor
from .init import ones, zeros
from .layers import whole
from .module import Module
from .parameter import Parameter


class _BatchNorm(Module):
    axes: tuple[int, ...] = (2, 4)  # how many axes x may have
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        channels: int,
        *,
        momentum: float = 0.1,
        eps: float = 1e-5,
        activation: str | None = None,
    ) -> None:
        name = type(self).__name__
        self.channels = whole(name, "channels", channels)
        self.momentum = number(name, "momentum", momentum, "from 0 to 1")
        self.eps = number(name, "eps", eps, "above 0")
        self.activation = checked_activation(name, activation)
        self.weight, self.bias = Parameter((channels,), ones), Parameter((channels,), zeros)
        self.register_buffer("running_mean", np.zeros(channels, np.float32))
        self.register_buffer("running_var", np.ones(channels, np.float32))

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if x.ndim not in self.axes:
            expected = " or ".join(
                {2: "(N, C)", 3: "(N, L, C)", 4: "(N, H, W, C)"}[n] for n in self.axes
            )
            raise ShapeError(f"{type(self).__name__}: x is {x.shape}, expected {expected}")
        return ops.batch_norm(
            x,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
            activation=self.activation,
            residual=residual,
        )

    def extra_repr(self) -> str:
        return f"{self.channels}" + (f", activation='{self.activation}'" * bool(self.activation))


class BatchNorm1d(_BatchNorm):
    """y = act(weight * (x - mean) / sqrt(var + eps) + bias), a channel at a time.

    x (N, C) or (N, L, C) -> as x.  In training mean and variance are those of the batch, and
    running = (1 - momentum) * running + momentum * batch (PyTorch's convention; others write 0.9
    for our 0.1); in `eval()` the running ones are used.  `forward(x, residual)` adds the residual
    before the activation.  Ioffe, Szegedy 2015.
    """

    axes = (2, 3)


class BatchNorm2d(_BatchNorm):
    """`BatchNorm1d` for images: x (N, H, W, C) -> as x, statistics over N, H and W."""

    axes = (4,)


class LayerNorm(Module):
    """y = weight * (x - mean) / sqrt(var + eps) + bias over the last axes, of lengths `shape`.

    x (..., *shape) -> as x; weight and bias have `shape`.  Ba, Kiros, Hinton 2016.
    """

    def __init__(self, shape: Any, *, eps: float = 1e-5, affine: bool = True) -> None:
        lengths = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
        self.shape = tuple(whole("LayerNorm", "a length of shape", d) for d in lengths)
        self.eps = number("LayerNorm", "eps", eps, "above 0")
        self.weight = Parameter(self.shape, ones) if affine else None
        self.bias = Parameter(self.shape, zeros) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        return ops.layer_norm(x, self.shape, self.weight, self.bias, eps=self.eps)

    def extra_repr(self) -> str:
        return f"{self.shape}"


class LocalResponseNorm(Module):
    """y_c = x_c / (k + alpha/size * sum of x_j^2 over the `size` channels around c)^beta.

    x (N, ..., C) -> as x.  Krizhevsky, Sutskever, Hinton 2012, section 3.3; as in PyTorch, `alpha`
    is divided by `size`, so their alpha = 1e-4 with n = 5 is 5e-4 here.
    """

    def __init__(
        self, size: int = 5, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
    ) -> None:
        self.size = whole("LocalResponseNorm", "size", size)
        self.alpha, self.beta, self.k = (
            number("LocalResponseNorm", what, value)
            for what, value in (("alpha", alpha), ("beta", beta), ("k", k))
        )

    def forward(self, x: Tensor) -> Tensor:
        return ops.local_response_norm(x, self.size, alpha=self.alpha, beta=self.beta, k=self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha:g}, beta={self.beta:g}, k={self.k:g}"
