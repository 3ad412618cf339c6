"""Bilinear resizing of whole batches in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

MOST_BYTES = 2**33  # that resized images may take
_PART_BYTES = 2**26  # of the float copies that are made on the way


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """`size` as (height, width); one number is a square."""
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise DataError(f"data: size {size} must be at least 1 in height and width")
    return int(height), int(width)


def check_size(count: int, height: int, width: int, channels: int, itemsize: int = 1) -> None:
    """Raise a sentence before so many images of that size take all memory."""
    needed = count * height * width * channels * itemsize
    if needed > MOST_BYTES:
        raise DataError(
            f"data: {count:,} images of {height}x{width}x{channels} would take "
            f"{needed / 2**30:,.1f} GiB; a size that needs at most {MOST_BYTES // 2**30} GiB "
            "was expected"
        )


def bilinear(images: NDArray[Any], size: int | tuple[int, int]) -> NDArray[Any]:
    """Resize images (N, H, W, C) -> (N, height, width, C), the same dtype.

    Centre-aligned: output pixel i of n lies at input position ``(i + 1/2) * H / n - 1/2``, where
    pixel centres are whole numbers; beyond the outermost centres the edge is repeated. Enlarging
    interpolates between the two nearest pixels an axis. Shrinking widens the same triangle by the
    scale, so that no pixel is skipped. uint8 results are rounded, halves up.
    """
    height, width = pair(size)
    check_size(len(images), height, width, images.shape[3], images.itemsize)
    batch = max(1, _PART_BYTES // (8 * height * max(width, images.shape[2]) * images.shape[3]))
    rows = _weights(images.shape[1], height)
    columns = _weights(images.shape[2], width)
    out = np.empty((len(images), height, width, images.shape[3]), images.dtype)
    for start in range(0, len(images), batch):
        part = images[start : start + batch].astype(np.float64)
        part = np.tensordot(part, rows, (1, 1))  # (n, W, C, height)
        part = np.tensordot(part, columns, (1, 1))  # (n, C, height, width)
        part = part.transpose(0, 2, 3, 1)
        out[start : start + batch] = to_uint8(part) if images.dtype == np.uint8 else part
    return out


def to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Round to 0 .. 255, halves up.

    The small addend makes a half that arithmetic blurred round alike on every machine.
    """
    return np.clip(np.floor(values + (0.5 + 1e-6)), 0, 255).astype(np.uint8)


def _weights(inp: int, out: int) -> NDArray[np.float64]:
    """The matrix (out, inp) that resizes one axis; each row sums to 1."""
    scale = inp / out
    position = (np.arange(out) + 0.5) * scale - 0.5
    distance = np.abs(np.arange(inp) - position[:, np.newaxis]) / max(scale, 1.0)
    triangle = np.maximum(0.0, 1.0 - distance)
    # at the border a part of the triangle lies outside: dividing by what is left repeats the edge
    triangle /= triangle.sum(axis=1, keepdims=True)
    return triangle
