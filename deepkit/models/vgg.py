"""VGG: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition",
2014, table 1."""

from __future__ import annotations

from ..nn import Conv2d, Dropout, Flatten, Linear, MaxPool2d, Module, Sequential
from ..spellings import explained
from .start import for_relu

# The columns of table 1: channels of the 3x3 convolutions, block by block; a pool ends each.
TABLE = {
    11: ((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2),  # A
    13: ((64,) * 2, (128,) * 2, (256,) * 2, (512,) * 2, (512,) * 2),  # B
    16: ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),  # D
    19: ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4),  # E
}


def vgg(depth: int, classes: int = 1000, *, channels: int = 3, size: int = 224) -> Sequential:
    """VGG of 11, 13, 16 or 19 layers with weights.  (N, size, size, channels) -> (N, classes).

    size: a multiple of 32, which the five pools divide by 32.  The weights begin as He's; the paper
    trained the shallow nets first and began the deep ones with their layers.
    """
    if depth not in TABLE:
        raise ValueError(f"vgg: depth must be one of {', '.join(map(str, TABLE))}, not {depth!r}")
    if not isinstance(size, int) or size < 32 or size % 32:
        raise ValueError(f"vgg{depth}: size must be a multiple of 32, not {size!r}")
    layers: dict[str, Module] = {}
    for block, widths in enumerate(TABLE[depth], 1):
        for i, out in enumerate(widths, 1):
            layers[f"conv{block}_{i}"] = Conv2d(channels, out, 3, padding=1, activation="relu")
            channels = out
        layers[f"pool{block}"] = MaxPool2d(2)
    net = Sequential(
        **layers,
        flatten=Flatten(),
        fc6=Linear((size // 32) ** 2 * channels, 4096, activation="relu"),
        drop6=Dropout(0.5),
        fc7=Linear(4096, 4096, activation="relu"),
        drop7=Dropout(0.5),
        fc8=Linear(4096, classes),
    )
    return for_relu(net)


@explained
def vgg11(classes: int = 1000, *, channels: int = 3, size: int = 224) -> Sequential:
    """Configuration A: 132,863,336 parameters."""
    return vgg(11, classes, channels=channels, size=size)


@explained
def vgg13(classes: int = 1000, *, channels: int = 3, size: int = 224) -> Sequential:
    """Configuration B: 133,047,848 parameters."""
    return vgg(13, classes, channels=channels, size=size)


@explained
def vgg16(classes: int = 1000, *, channels: int = 3, size: int = 224) -> Sequential:
    """Configuration D: 138,357,544 parameters."""
    return vgg(16, classes, channels=channels, size=size)


@explained
def vgg19(classes: int = 1000, *, channels: int = 3, size: int = 224) -> Sequential:
    """Configuration E: 143,667,240 parameters."""
    return vgg(19, classes, channels=channels, size=size)
