"""Batches of images out of a data set."""

from __future__ import annotations

import numpy as np


def gather_images(y, images, index, moves, *, reflect):
    height, width = images.shape[1:3]
    for n, i in enumerate(index):
        image = images[min(max(int(i), 0), len(images) - 1)]
        down, right, mirrored = (0, 0, 0) if moves is None else moves[n]
        rows = np.arange(height) + down
        columns = (np.arange(width)[::-1] if mirrored else np.arange(width)) + right
        seen = image[_inside(rows, height)][:, _inside(columns, width)]
        if not reflect:
            outside = (rows < 0) | (rows >= height)
            seen = np.where(outside[:, None, None], 0, seen)
            outside = (columns < 0) | (columns >= width)
            seen = np.where(outside[:, None], 0, seen)
        np.divide(seen, 255, out=y[n], dtype=y.dtype)


def _inside(at, size):
    """Positions mirrored at the borders until they are within 0 .. size - 1."""
    period = max(1, 2 * size - 2)
    at = np.mod(at, period)
    return np.where(at < size, at, period - at)
