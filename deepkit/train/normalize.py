"""Pixels on the scale that networks learn from, the same in training and in every later test."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..create import tensor
from ..tape import Tensor
from ..words import counted

_PART = 1024  # images at a time, so that the float copies stay small


class Normalize:
    """y = (x - mean) / std for images (N, H, W, C) or rows (N, C), one mean and std a channel.

    `mean` and `std` (positive) are in the units of the batches that a Loader makes: [0, 1] for
    uint8 images. `Normalize.of(images)` measures them.
    """

    def __init__(self, mean: Any, std: Any) -> None:
        self.mean = np.asarray(mean, np.float64).reshape(-1)
        self.std = np.asarray(std, np.float64).reshape(-1)
        if self.mean.shape != self.std.shape or not self.mean.size:
            raise ValueError(
                f"Normalize: {self.mean.size} means and {self.std.size} standard deviations; "
                "one of each a channel was expected"
            )
        if not (
            np.isfinite(self.mean).all() and np.isfinite(self.std).all() and self.std.min() > 0
        ):
            raise ValueError("Normalize: means must be finite, standard deviations above 0")
        self._on: dict[str, tuple[Tensor, Tensor]] = {}

    @classmethod
    def of(cls, images: NDArray[Any]) -> Normalize:
        """The mean and standard deviation of each channel, the last axis, over all images.

        A channel that never changes gets the standard deviation 1.
        """
        scale = 255.0 if images.dtype == np.uint8 else 1.0
        parts = range(0, len(images), _PART)
        axes = tuple(range(images.ndim - 1))
        count = images.size // images.shape[-1]
        mean = sum(images[i : i + _PART].sum(axes, np.float64) for i in parts) / (count * scale)
        square = sum(((images[i : i + _PART] / scale - mean) ** 2).sum(axes) for i in parts)
        std = np.sqrt(square / count)
        return cls(mean, np.where(std > 0, std, 1.0))

    def to(self, device: str) -> Normalize:
        """Put the two numbers a channel onto `device`, before a step there is captured."""
        if device not in self._on:
            shift, factor = (np.float32(v) for v in (self.mean, 1 / self.std))
            self._on[device] = (tensor(shift, device), tensor(factor, device))
        return self

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.mean.size:
            raise ValueError(
                f"Normalize: x has {counted(x.shape[-1], 'channel')}, the images that were "
                f"measured had {self.mean.size}   (x {x.shape} has its channels last)"
            )
        shift, factor = self.to(x.device)._on[x.device]
        return (x - shift) * factor

    def as_dict(self) -> dict[str, list[float]]:
        """Plain numbers, for a checkpoint: `Normalize(**saved)` is this one again."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean.tolist()}, std={self.std.tolist()})"
