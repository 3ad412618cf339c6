"""Activations as layers; the equations are those of the ops."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..tape import Tensor
from .init import constant
from .layers import whole
from .module import Module
from .parameter import Parameter


class ReLU(Module):
    """y = max(0, x)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.relu(x)


class LeakyReLU(Module):
    """y = x where x > 0, else slope * x.  Maas, Hannun, Ng 2013."""

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = float(slope)

    def forward(self, x: Tensor) -> Tensor:
        return ops.leaky_relu(x, self.slope)

    def extra_repr(self) -> str:
        return f"{self.slope:g}"


class PReLU(Module):
    """y = x where x > 0, else weight * x, the slopes learned: one a channel, or one in all.

    He et al. 2015, who start them at 0.25 and let no weight decay act on them.
    """

    def __init__(self, channels: int = 1, init: float = 0.25) -> None:
        self.weight = Parameter((whole("PReLU", "channels", channels),), constant.of(init))

    def forward(self, x: Tensor) -> Tensor:
        return ops.prelu(x, self.weight)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}"


class ELU(Module):
    """y = x where x > 0, else alpha * (e^x - 1).  Clevert, Unterthiner, Hochreiter 2015."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = float(alpha)

    def forward(self, x: Tensor) -> Tensor:
        return ops.elu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"{self.alpha:g}"


class GELU(Module):
    """y = x * P(Z <= x) for a standard normal Z.  Hendrycks, Gimpel 2016."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.gelu(x)


class Sigmoid(Module):
    """y = 1 / (1 + e^-x)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.sigmoid(x)


class Tanh(Module):
    """y = tanh x."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.tanh(x)


class Softplus(Module):
    """y = ln(1 + e^x)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.softplus(x)


class Softmax(Module):
    """y_i = e^x_i / sum_j e^x_j along `axis`.  A network that is trained with `CrossEntropyLoss`
    ends without it: the loss takes logits."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return ops.softmax(x, axis=self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


class LogSoftmax(Module):
    """y_i = x_i - ln sum_j e^x_j along `axis`.  `CrossEntropyLoss` takes logits, and does it too;
    for `ops.nll`."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return ops.log_softmax(x, axis=self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


ACTIVATIONS: dict[str, Any] = {
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "prelu": PReLU,
    "elu": ELU,
    "gelu": GELU,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "softplus": Softplus,
}
