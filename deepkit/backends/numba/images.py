"""Batches of images out of a data set."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .launch import i64ptr, kernel, launch, ptr, size, u8ptr


@numba.njit(inline="always")
def _inside(at, size):
    """A position mirrored at the borders until it is within 0 .. size - 1."""
    period = max(1, 2 * size - 2)
    at %= period
    return at if at < size else period - at


@kernel
def _gather(
    t, n, y: ptr, pixels: u8ptr, index: i64ptr, moves: i64ptr, moved: size, count: size,
    images: size, height: size, width: size, channels: size, reflect: size,
):  # fmt: skip
    for row in range(t * count * height // n, (t + 1) * count * height // n):
        i, r = row // height, row % height
        image = min(max(index[i], 0), images - 1)
        down, right, mirrored = 0, 0, 0
        if moved:
            down, right, mirrored = moves[3 * i], moves[3 * i + 1], moves[3 * i + 2]
        at_r = r + down
        row_inside = 0 <= at_r < height
        source = (image * height + _inside(at_r, height)) * width
        for c in range(width):
            at_c = (width - 1 - c if mirrored else c) + right
            shown = reflect != 0 or (row_inside and 0 <= at_c < width)
            start = (source + _inside(at_c, width)) * channels
            to = (row * width + c) * channels
            for k in range(channels):
                y[to + k] = np.float32(pixels[start + k]) / np.float32(255) if shown else 0


def gather_images(y: Any, images: Any, index: Any, moves: Any, *, reflect: bool) -> None:
    sizes = (int(moves is not None), y.shape[0], *images.shape, int(reflect))
    launch(_gather, y.dtype, y, images, index, moves, *sizes, work=2 * y.size)
