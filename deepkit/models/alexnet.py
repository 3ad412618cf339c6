"""AlexNet: Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural
networks", 2012, section 3.5 and figure 2."""

from __future__ import annotations

from ..nn import Conv2d, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool2d, Sequential
from ..spellings import explained


@explained
def alexnet(classes: int = 1000, *, channels: int = 3, grouped: bool = True) -> Sequential:
    """60,965,224 parameters, or 62,378,344 without the groups that stood for two graphics cards.

    (N, 227, 227, channels) -> (N, classes).  The paper writes 224, with which its figures do not
    come out.
    """
    groups = 2 if grouped else 1

    def response() -> LocalResponseNorm:
        return LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)  # the paper's 1e-4, times size

    return Sequential(
        conv1=Conv2d(channels, 96, 11, stride=4, activation="relu"),  # 55 x 55 x 96
        norm1=response(),
        pool1=MaxPool2d(3, stride=2),  # 27 x 27
        conv2=Conv2d(96, 256, 5, padding=2, groups=groups, activation="relu"),
        norm2=response(),
        pool2=MaxPool2d(3, stride=2),  # 13 x 13
        conv3=Conv2d(256, 384, 3, padding=1, activation="relu"),
        conv4=Conv2d(384, 384, 3, padding=1, groups=groups, activation="relu"),
        conv5=Conv2d(384, 256, 3, padding=1, groups=groups, activation="relu"),
        pool5=MaxPool2d(3, stride=2),  # 6 x 6
        flatten=Flatten(),
        drop6=Dropout(0.5),
        fc6=Linear(6 * 6 * 256, 4096, activation="relu"),
        drop7=Dropout(0.5),
        fc7=Linear(4096, 4096, activation="relu"),
        fc8=Linear(4096, classes),
    )
