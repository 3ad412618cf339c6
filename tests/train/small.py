"""Small things to train: three kinds of 6x6 images, and a model with dropout and batch norm."""

import numpy as np

import deepkit as dk
from deepkit import nn

CLASSES = 3


def stripes(count, seed):
    """Noisy uint8 images (N, 6, 6, 1) with a bright row, column or diagonal, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    images = rng.integers(0, 60, (count, 6, 6, 1), np.uint8)
    for image, label in zip(images, labels, strict=True):
        at = rng.integers(0, 6)
        if label == 0:
            image[at] = 250
        elif label == 1:
            image[:, at] = 250
        else:
            image[np.arange(6), np.arange(6)] = 250
    return images, labels


TRAIN, TEST = stripes(100, 1), stripes(41, 2)


def small_model(seed=0, outputs=CLASSES):
    """Dropout draws random numbers and batch norm keeps state: what resuming could forget."""
    dk.seed(seed)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(36, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(16, outputs),
    )


def same_weights(a, b):
    """Bit for bit."""
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(
        one[name].tobytes() == other[name].tobytes() for name in one
    )


def without_times(history):
    """Rows without what differs from run to run."""
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")}
        for row in history
    ]
