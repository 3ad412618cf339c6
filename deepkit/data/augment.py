"""Random changes to whole batches of images, in NumPy.

Each maker returns a function ``(images, rng) -> images`` for ``Loader(augment=...)``: images
(N, H, W, C) in, new images of the same shape and dtype out, every image changed by its own random
numbers. uint8 and float both work. What comes in from outside the image is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .resize import to_uint8

MOST_PIXELS = 1024  # further than that no pixel moves: it is a mistake, and would take memory

Augmentation = Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]


class Moves(NamedTuple):
    """What `gather_images` does to a batch: (N, 3) down, right, mirrored; the border's kind."""

    table: NDArray[np.int64]
    reflect: bool
    cropped: bool  # so that nothing may be cropped after it: what has left an image is gone


def moves_of(augmentation: Augmentation | None, n: int, rng: np.random.Generator) -> Moves | None:
    """The same random change as `augmentation(images, rng)` would make, as moves of n images.

    None where it is more than moving and mirroring; then `rng` may have been used.
    """
    still = Moves(np.zeros((n, 3), np.int64), False, False)
    if augmentation is None:
        return still
    plan = getattr(augmentation, "moves", None)
    return None if plan is None else plan(still, rng)


def compose(*augmentations: Augmentation) -> Augmentation:
    """One augmentation after another, from left to right, with one source of random numbers."""

    def apply(images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        for augmentation in augmentations:
            images = augmentation(images, rng)
        return images

    def moves(before: Moves, rng: np.random.Generator) -> Moves | None:
        found: Moves | None = before
        for augmentation in augmentations:
            plan = getattr(augmentation, "moves", None)
            found = None if found is None or plan is None else plan(found, rng)
        return found

    apply.moves = moves  # type: ignore[attr-defined]
    return apply


def random_shift(pixels: int) -> Augmentation:
    """Shift by whole pixels, down and right each uniform in -pixels .. pixels."""
    _whole("pixels", pixels)
    return random_crop(pixels)


def random_crop(padding: int, mode: Literal["constant", "reflect"] = "constant") -> Augmentation:
    """Pad each border by `padding` pixels (zeros, or mirrored), then cut the size out at random.

    He et al., Deep Residual Learning (2016), section 4.2, with padding 4 on CIFAR-10.
    """
    _whole("padding", padding)
    if mode not in ("constant", "reflect"):
        raise DataError(f"augment: mode must be 'constant' or 'reflect', not {mode!r}")

    def apply(images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        n, height, width, _ = images.shape
        top, left = rng.integers(0, 2 * padding + 1, (2, n))
        border = (padding, padding)
        padded = np.pad(images, ((0, 0), border, border, (0, 0)), mode=mode)
        rows = top[:, None] + np.arange(height)
        columns = left[:, None] + np.arange(width)
        cut: NDArray[Any] = padded[
            np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]
        ]
        return cut

    def moves(before: Moves, rng: np.random.Generator) -> Moves | None:
        if before.cropped:
            return None
        table = before.table.copy()
        top, left = rng.integers(0, 2 * padding + 1, (2, len(table)))
        table[:, 0] += top - padding
        table[:, 1] += np.where(table[:, 2], padding - left, left - padding)
        return Moves(table, mode == "reflect", True)

    apply.moves = moves  # type: ignore[attr-defined]
    return apply


def random_flip(probability: float = 0.5) -> Augmentation:
    """Mirror left and right, with the given probability."""
    if not 0 <= probability <= 1:
        raise DataError(f"augment: probability must be in [0, 1], not {probability!r}")

    def apply(images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        flipped = rng.random(len(images)) < probability
        return np.where(flipped[:, None, None, None], images[:, :, ::-1], images)

    def moves(before: Moves, rng: np.random.Generator) -> Moves | None:
        table = before.table.copy()
        table[:, 2] ^= rng.random(len(table)) < probability
        return before._replace(table=table)

    apply.moves = moves  # type: ignore[attr-defined]
    return apply


def random_rotate(degrees: float) -> Augmentation:
    """Rotate about the centre by an angle uniform in [-degrees, degrees], bilinear."""
    _within("degrees", degrees, 360)

    def apply(images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        n, height, width, _ = images.shape
        angle = np.deg2rad(rng.uniform(-degrees, degrees, n))[:, None, None]
        row = np.arange(height)[:, None] - (height - 1) / 2
        column = np.arange(width) - (width - 1) / 2
        cosine, sine = np.cos(angle), np.sin(angle)
        rows = cosine * row - sine * column + (height - 1) / 2
        columns = sine * row + cosine * column + (width - 1) / 2
        return _sample(images, rows, columns)

    return apply


def elastic(alpha: float, sigma: float) -> Augmentation:
    """Bend: each pixel moves by noise in [-1, 1], smoothed by a Gaussian of `sigma`, times `alpha`.

    Both are in pixels; alpha 34, sigma 4 suits 28x28 digits.
    Simard, Steinkraus, Platt, Best Practices for Convolutional Neural Networks (2003), section 2.
    """
    _within("alpha", alpha, MOST_PIXELS)
    if not 0 < sigma <= MOST_PIXELS:
        raise DataError(
            f"augment: sigma must be above 0 and at most {MOST_PIXELS}, not {sigma!r:.20}"
        )

    def apply(images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        n, height, width, _ = images.shape
        noise = rng.uniform(-alpha, alpha, (2, n, height, width))
        moved = _gaussian(height, sigma) @ noise @ _gaussian(width, sigma).T
        return _sample(images, np.arange(height)[:, None] + moved[0], np.arange(width) + moved[1])

    return apply


def _gaussian(size: int, sigma: float) -> NDArray[np.float64]:
    """The matrix (size, size) that smooths one axis; what lies outside counts as 0."""
    distance = np.arange(size) - np.arange(size)[:, None]
    weights: NDArray[np.float64] = np.exp(-0.5 * (distance / sigma) ** 2)
    weights /= sigma * np.sqrt(2 * np.pi)
    return weights


def _sample(
    images: NDArray[Any], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[Any]:
    """Bilinear values of images (N, H, W, C) at positions (N, H, W) -> (N, H, W, C)."""
    n, height, width, channels = images.shape
    # one pixel of zeros all round, where everything outside lands
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(-1, channels)
    rows = np.clip(rows, -1, height) + 1
    columns = np.clip(columns, -1, width) + 1
    top = np.minimum(rows.astype(np.intp), height)
    left = np.minimum(columns.astype(np.intp), width)
    work = np.float64 if images.dtype == np.float64 else np.float32
    down = (rows - top).astype(work)[..., None]
    right = (columns - left).astype(work)[..., None]
    stride = width + 2
    corner = (np.arange(n)[:, None, None] * (height + 2) + top) * stride + left
    above = padded[corner] * (1 - right) + padded[corner + 1] * right
    below = padded[corner + stride] * (1 - right) + padded[corner + stride + 1] * right
    result = above * (1 - down) + below * down
    return to_uint8(result) if images.dtype == np.uint8 else result.astype(images.dtype)


def _whole(name: str, value: float) -> None:
    _within(name, value, MOST_PIXELS)
    if not isinstance(value, int | np.integer):
        raise DataError(f"augment: {name} must be a whole number of pixels, not {value!r}")


def _within(name: str, value: float, most: float) -> None:
    if not 0 <= value <= most:
        raise DataError(f"augment: {name} must be from 0 to {most}, not {value!r:.20}")
