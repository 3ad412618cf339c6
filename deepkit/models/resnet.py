"""ResNet: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2015: table 1 for
ImageNet, section 4.2 for CIFAR-10."""

from __future__ import annotations

from ..nn import (
    BatchNorm2d,
    Conv2d,
    GlobalAvgPool2d,
    Identity,
    Linear,
    MaxPool2d,
    Module,
    Sequential,
    init,
)
from ..ops import pad
from ..spellings import explained
from ..tape import Tensor


def conv(inp: int, out: int, size: int, stride: int = 1) -> Conv2d:
    """A convolution that a batch norm follows: without bias, padded to keep the size, He's init."""
    layer = Conv2d(inp, out, size, stride=stride, padding=size // 2, bias=False)
    init.he_normal(layer.weight)
    return layer


class Subsample(Module):
    """Option A of a shortcut: every `stride`-th pixel, and zeros for the channels that are new.

    (N, H, W, C) -> (N, ceil(H / stride), ceil(W / stride), out), without parameters.
    """

    def __init__(self, out: int, stride: int) -> None:
        self.out, self.stride = out, stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :: self.stride, :: self.stride]
        more = self.out - x.shape[3]
        return pad(x, ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2)))


class Projection(Sequential):
    """Option B of a shortcut: a 1x1 convolution with batch norm."""

    def __init__(self, inp: int, out: int, stride: int) -> None:
        super().__init__(conv=conv(inp, out, 1, stride), bn=BatchNorm2d(out))


class BasicBlock(Module):
    """y = relu(bn(3x3(relu(bn(3x3(x))))) + shortcut(x)); figure 5, left."""

    expansion = 1

    def __init__(self, inp: int, width: int, stride: int, shortcut: Module) -> None:
        self.conv1 = conv(inp, width, 3, stride)
        self.bn1 = BatchNorm2d(width, activation="relu")
        self.conv2 = conv(width, width, 3)
        self.bn2 = BatchNorm2d(width, activation="relu")
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x))
        return self.bn2(self.conv2(y), residual=self.shortcut(x))


class Bottleneck(Module):
    """1x1, 3x3 (which strides), 1x1 to four times the width, and the shortcut; figure 5, right."""

    expansion = 4

    def __init__(self, inp: int, width: int, stride: int, shortcut: Module) -> None:
        self.conv1, self.bn1 = conv(inp, width, 1), BatchNorm2d(width, activation="relu")
        self.conv2 = conv(width, width, 3, stride)
        self.bn2 = BatchNorm2d(width, activation="relu")
        self.conv3 = conv(width, 4 * width, 1)
        self.bn3 = BatchNorm2d(4 * width, activation="relu")
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        return self.bn3(self.conv3(y), residual=self.shortcut(x))


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    inp: int,
    width: int,
    count: int,
    stride: int,
    option: str = "B",
) -> Sequential:
    """`count` blocks, of which the first strides and widens."""
    blocks: list[Module] = []
    out = width * block.expansion
    for i in range(count):
        step = stride if i == 0 else 1
        shortcut: Module = Identity()
        if step != 1 or inp != out:
            shortcut = Subsample(out, step) if option == "A" else Projection(inp, out, step)
        blocks.append(block(inp, width, step, shortcut))
        inp = out
    return Sequential(*blocks)


# Table 1: the block, and how many of them in conv2_x to conv5_x.
TABLE: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


def resnet_imagenet(depth: int, classes: int = 1000, *, channels: int = 3) -> Sequential:
    """ResNet of 18, 34, 50, 101 or 152 layers.  (N, H, W, channels) -> (N, classes), usually 224.

    Shortcuts of option B; where a bottleneck strides, its 3x3 convolution does, as in most programs
    since (the paper's 1x1 does).
    """
    if depth not in TABLE:
        raise ValueError(
            f"resnet: depth must be one of {', '.join(map(str, TABLE))}, not {depth!r}"
        )
    block, counts = TABLE[depth]
    stages, inp = {}, 64
    for i, count in enumerate(counts):
        width = 64 * 2**i
        stages[f"conv{i + 2}_x"] = _stage(block, inp, width, count, 1 if i == 0 else 2)
        inp = width * block.expansion
    return Sequential(
        conv1=conv(channels, 64, 7, 2),  # 112 x 112 x 64
        bn1=BatchNorm2d(64, activation="relu"),
        pool1=MaxPool2d(3, stride=2, padding=1),  # 56 x 56
        **stages,
        pool=GlobalAvgPool2d(),
        fc=Linear(inp, classes),
    )


def resnet_cifar(depth: int, classes: int = 10, *, channels: int = 3) -> Sequential:
    """ResNet of 6n + 2 layers for small images: three stages of n blocks of 16, 32, 64 channels.

    (N, H, W, channels) -> (N, classes), usually 32.  Shortcuts of option A.
    """
    if not isinstance(depth, int) or depth < 8 or (depth - 2) % 6:
        raise ValueError(f"resnet: depth must be 6n + 2, such as 20, 32 or 56, not {depth!r}")
    n = (depth - 2) // 6
    return Sequential(
        conv1=conv(channels, 16, 3),  # 32 x 32 x 16
        bn1=BatchNorm2d(16, activation="relu"),
        stage1=_stage(BasicBlock, 16, 16, n, 1, "A"),
        stage2=_stage(BasicBlock, 16, 32, n, 2, "A"),  # 16 x 16 x 32
        stage3=_stage(BasicBlock, 32, 64, n, 2, "A"),  # 8 x 8 x 64
        pool=GlobalAvgPool2d(),
        fc=Linear(64, classes),
    )


@explained
def resnet18(classes: int = 1000, *, channels: int = 3) -> Sequential:
    """11,689,512 parameters."""
    return resnet_imagenet(18, classes, channels=channels)


@explained
def resnet34(classes: int = 1000, *, channels: int = 3) -> Sequential:
    """21,797,672 parameters."""
    return resnet_imagenet(34, classes, channels=channels)


@explained
def resnet50(classes: int = 1000, *, channels: int = 3) -> Sequential:
    """25,557,032 parameters."""
    return resnet_imagenet(50, classes, channels=channels)


@explained
def resnet101(classes: int = 1000, *, channels: int = 3) -> Sequential:
    """44,549,160 parameters."""
    return resnet_imagenet(101, classes, channels=channels)


@explained
def resnet152(classes: int = 1000, *, channels: int = 3) -> Sequential:
    """60,192,808 parameters."""
    return resnet_imagenet(152, classes, channels=channels)


@explained
def resnet20(classes: int = 10, *, channels: int = 3) -> Sequential:
    """For CIFAR-10: 269,722 parameters."""
    return resnet_cifar(20, classes, channels=channels)


@explained
def resnet32(classes: int = 10, *, channels: int = 3) -> Sequential:
    """For CIFAR-10: 464,154 parameters."""
    return resnet_cifar(32, classes, channels=channels)


@explained
def resnet44(classes: int = 10, *, channels: int = 3) -> Sequential:
    """For CIFAR-10: 658,586 parameters."""
    return resnet_cifar(44, classes, channels=channels)


@explained
def resnet56(classes: int = 10, *, channels: int = 3) -> Sequential:
    """For CIFAR-10: 853,018 parameters."""
    return resnet_cifar(56, classes, channels=channels)


@explained
def resnet110(classes: int = 10, *, channels: int = 3) -> Sequential:
    """For CIFAR-10: 1,727,962 parameters."""
    return resnet_cifar(110, classes, channels=channels)
