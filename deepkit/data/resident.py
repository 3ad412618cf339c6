"""A loader's data in the memory of a device: a batch is a list of numbers, gathered there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends import OutOfMemory, get
from .augment import moves_of
from .loader import Loader

if TYPE_CHECKING:
    from ..tape import Tensor


class Resident:
    """Batches as tensors (index, moves), and what they stand for: the batches of the loader itself,
    bit for bit.

        data = resident(loader, "cuda")
        for index, moves in data.batches():
            x, y = data.gather(index, moves)      # launches alone: it can be captured
    """

    def __init__(self, loader: Loader, device: str) -> None:
        from ..create import tensor

        self.loader, self.device = loader, device
        self.images, self.labels = tensor(loader.images, device), tensor(loader.labels, device)
        probe = moves_of(loader.augment, 1, np.random.default_rng(0))
        assert probe is not None
        self.reflect = probe.reflect

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        from ..create import tensor

        for chosen, rng in self.loader.picks():
            moves = moves_of(self.loader.augment, len(chosen), rng)
            assert moves is not None
            index = tensor(chosen.astype(np.int64), self.device)
            yield index, tensor(moves.table, self.device)

    def gather(self, index: Tensor, moves: Tensor) -> tuple[Any, Any]:
        """-> (x, y) as `Loader.batches` has them."""
        from .. import ops

        x = ops.gather_images(self.images, index, moves, reflect=self.reflect)
        return x, ops.take(self.labels, index)


def resident(loader: Loader, device: str) -> Resident | None:
    """A loader's data on a device that wants it there, or None: images that are not uint8
    (M, H, W, C), an augmentation that is more than moving and mirroring, not enough memory."""
    plain = loader.images.dtype == np.uint8 and loader.images.ndim == 4
    if not (get(device).resident and plain):
        return None
    if moves_of(loader.augment, 1, np.random.default_rng(0)) is None:
        return None
    try:
        return Resident(loader, device)
    except OutOfMemory:
        return None
