"""GoogLeNet: Szegedy et al., "Going deeper with convolutions", 2014, table 1 and section 5."""

from __future__ import annotations

from typing import Any

from ..nn import (
    AvgPool2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Module,
    Sequential,
)
from ..ops import concat
from ..spellings import explained
from ..tape import Tensor
from .start import for_relu

# Table 1: channels of 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection.
TABLE = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def conv(inp: int, out: int, size: int, stride: int = 1) -> Conv2d:
    return Conv2d(inp, out, size, stride=stride, padding=size // 2, activation="relu")


class Inception(Module):
    """Four paths side by side, their channels joined; figure 2b."""

    def __init__(self, inp: int, one: int, r3: int, three: int, r5: int, five: int, pool: int):
        self.one = conv(inp, one, 1)
        self.three = Sequential(reduce=conv(inp, r3, 1), conv=conv(r3, three, 3))
        self.five = Sequential(reduce=conv(inp, r5, 1), conv=conv(r5, five, 5))
        self.pool = Sequential(pool=MaxPool2d(3, stride=1, padding=1), project=conv(inp, pool, 1))
        self.out = one + three + five + pool

    def forward(self, x: Tensor) -> Tensor:
        return concat([self.one(x), self.three(x), self.five(x), self.pool(x)], axis=3)


def _auxiliary(inp: int, classes: int) -> Sequential:
    """A classifier beside the net, on 14 x 14 maps, that helps to train what lies below it."""
    return Sequential(
        pool=AvgPool2d(5, stride=3),  # 4 x 4
        conv=conv(inp, 128, 1),
        flatten=Flatten(),
        fc1=Linear(4 * 4 * 128, 1024, activation="relu"),
        drop=Dropout(0.7),
        fc2=Linear(1024, classes),
    )


class GoogLeNet(Module):
    """See `googlenet`."""

    def __init__(self, classes: int, channels: int, aux: bool) -> None:
        self.stem = Sequential(
            conv1=conv(channels, 64, 7, 2),  # 112 x 112 x 64
            pool1=MaxPool2d(3, stride=2, ceil_mode=True),  # 56 x 56
            norm1=LocalResponseNorm(5),
            reduce2=conv(64, 64, 1),
            conv2=conv(64, 192, 3),
            norm2=LocalResponseNorm(5),
            pool2=MaxPool2d(3, stride=2, ceil_mode=True),  # 28 x 28 x 192
        )
        inp = 192
        inceptions: dict[str, Inception] = {}
        for name, widths in TABLE.items():
            inceptions[name] = Inception(inp, *widths)
            inp = inceptions[name].out
        self.to_4a = Sequential(
            i3a=inceptions["3a"],
            i3b=inceptions["3b"],
            pool3=MaxPool2d(3, stride=2, ceil_mode=True),  # 14 x 14
            i4a=inceptions["4a"],
        )
        self.to_4d = Sequential(i4b=inceptions["4b"], i4c=inceptions["4c"], i4d=inceptions["4d"])
        self.to_end = Sequential(
            i4e=inceptions["4e"],
            pool4=MaxPool2d(3, stride=2, ceil_mode=True),  # 7 x 7
            i5a=inceptions["5a"],
            i5b=inceptions["5b"],
            pool5=GlobalAvgPool2d(),
            drop=Dropout(0.4),
            fc=Linear(inp, classes),
        )
        self.aux1 = _auxiliary(inceptions["4a"].out, classes) if aux else None
        self.aux2 = _auxiliary(inceptions["4d"].out, classes) if aux else None

    def forward(self, x: Tensor) -> Any:
        a = self.to_4a(self.stem(x))
        d = self.to_4d(a)
        y = self.to_end(d)
        if self.aux1 is None or self.aux2 is None or not self.training:
            return y
        return y, self.aux1(a), self.aux2(d)


@explained
def googlenet(classes: int = 1000, *, channels: int = 3, aux: bool = False) -> GoogLeNet:
    """6,998,552 parameters; 13,378,280 with both auxiliary classifiers.

    (N, 224, 224, channels) -> (N, classes).  aux: in training the output is (logits, aux1, aux2),
    and the paper's loss is that of logits plus 0.3 times those of the others.
    """
    return for_relu(GoogLeNet(classes, channels, aux))
