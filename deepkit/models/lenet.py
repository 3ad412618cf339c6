"""LeNet: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition",
1998; LeNet-1 is of LeCun et al., "Handwritten digit recognition with a back-propagation network",
1990, and its successors to 1993."""

from __future__ import annotations

from .. import ops
from ..card import ShapeError
from ..nn import AvgPool2d, BatchNorm2d, Conv2d, Flatten, Linear, MaxPool2d, Module, Sequential
from ..spellings import explained
from ..tape import Tensor


def _pool(name: str, pool: str) -> Module:
    if pool not in ("max", "avg"):
        raise ValueError(f"{name}: pool must be 'max' or 'avg', not {pool!r}")
    return MaxPool2d(2) if pool == "max" else AvgPool2d(2)


class PaddedConv2d(Conv2d):
    """A convolution over the paper's 32 x 32 input field: images of 28 x 28 are padded to it, those
    of 32 x 32 taken as they are.  x (N, 28, 28, inp) or (N, 32, 32, inp) -> (N, P, Q, out)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4 and x.shape[1:3] not in ((28, 28), (32, 32)):
            raise ShapeError(
                f"lenet5: images are {x.shape[1]}x{x.shape[2]}, expected 28x28 or 32x32   "
                f"(x {x.shape} is N,H,W,C)"
            )
        padding = (32 - x.shape[1]) // 2 if x.ndim == 4 else 0
        return ops.conv2d(x, self.weight, self.bias, padding=padding, activation=self.activation)


@explained
def lenet5(
    classes: int = 10,
    *,
    channels: int = 1,
    size: int | None = None,
    activation: str | None = "relu",
    pool: str = "max",
) -> Sequential:
    """LeNet-5 as it is built today: 61,706 parameters.  (N, H, W, channels) -> (N, classes).

    H = W = 28, which the first layer pads to 32, or 32; `size` says that it is only one of them,
    with the same weights.  The paper's net has trained averages for
    pooling ("avg" here, without coefficients), scaled tanh, a sparse C3 and radial basis outputs.
    """
    if size not in (None, 28, 32):
        raise ValueError(f"lenet5: size must be 28 or 32, not {size!r}")
    if size is None:
        c1: Module = PaddedConv2d(channels, 6, 5, activation=activation)
    else:
        c1 = Conv2d(channels, 6, 5, padding=(32 - size) // 2, activation=activation)
    return Sequential(
        c1=c1,  # 28 x 28 x 6
        s2=_pool("lenet5", pool),  # 14 x 14 x 6
        c3=Conv2d(6, 16, 5, activation=activation),  # 10 x 10 x 16
        s4=_pool("lenet5", pool),  # 5 x 5 x 16
        flatten=Flatten(),
        c5=Linear(400, 120, activation=activation),
        f6=Linear(120, 84, activation=activation),
        output=Linear(84, classes),
    )


@explained
def lenet1(
    classes: int = 10,
    *,
    channels: int = 1,
    activation: str | None = "tanh",
    pool: str = "avg",
) -> Sequential:
    """LeNet-1 with a full second convolution: 3,246 parameters.

    (N, 28, 28, channels) -> (N, classes).  In the original, H3 reads 20 of the 48 pairs of maps and
    the averages are trained: 2,578 parameters.
    """
    return Sequential(
        h1=Conv2d(channels, 4, 5, activation=activation),  # 24 x 24 x 4
        h2=_pool("lenet1", pool),  # 12 x 12 x 4
        h3=Conv2d(4, 12, 5, activation=activation),  # 8 x 8 x 12
        h4=_pool("lenet1", pool),  # 4 x 4 x 12
        flatten=Flatten(),
        output=Linear(192, classes),
    )


@explained
def lenet_bn(classes: int = 10, *, channels: int = 1, size: int = 28) -> Sequential:
    """A LeNet that learns within an epoch: 6,306 parameters.  (N, size, size, channels) ->
    (N, classes).

    Batch norm (Ioffe, Szegedy 2015) after each convolution, of which the second is two of 3 x 3,
    and one linear layer.  Pooling comes before batch norm, which then has a quarter to read.
    size: 28 or 32.
    """
    if size not in (28, 32):
        raise ValueError(f"lenet_bn: size must be 28 or 32, not {size!r}")
    side = (size - 4) // 2  # 12 for 28
    return Sequential(
        c1=Conv2d(channels, 8, 5, bias=False),  # 24 x 24 x 8
        s2=MaxPool2d(2),  # 12 x 12 x 8
        n2=BatchNorm2d(8, activation="relu"),
        c3=Conv2d(8, 16, 3, bias=False),  # 10 x 10 x 16
        n3=BatchNorm2d(16, activation="relu"),
        c4=Conv2d(16, 16, 3, bias=False),  # 8 x 8 x 16
        s4=MaxPool2d(2),  # 4 x 4 x 16
        n4=BatchNorm2d(16, activation="relu"),
        flatten=Flatten(),
        output=Linear(((side - 4) // 2) ** 2 * 16, classes),
    )
