"""The state of a training run: what callbacks see, and what a checkpoint keeps."""

from __future__ import annotations

import functools
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np

from ..data import DataError, Loader
from ..nn import Module
from .evaluate import Evaluation, Loss, Tester
from .history import History
from .normalize import Normalize
from .progress import print_line

READ = 2**28  # bytes of images, at most, of which a checksum is taken


@dataclass
class Run:
    """A training run under way; `fit` hands it to every callback."""

    model: Module
    optimizer: Any
    loader: Loader
    test: Loader | None
    tester: Tester
    loss: Loss
    epochs: int
    schedule: Any = None
    schedule_step: str = "epoch"  # or "batch": what the schedule counts
    normalize: Normalize | None = None
    details: dict[str, Any] = field(default_factory=dict)  # go into every checkpoint
    resumed: str | None = None  # the checkpoint from which this run continues
    quiet: bool = False
    history: History = field(default_factory=History)
    arrays: dict[str, Any] = field(default_factory=dict)  # of callbacks, kept in checkpoints
    stopped: str | None = None  # why a callback ended the run

    @property
    def epoch(self) -> int:
        """Epochs finished so far."""
        return self.history.last["epoch"] if len(self.history) else 0

    @property
    def device(self) -> str:
        return next(iter(self.model.parameters())).device

    def stop(self, why: str) -> None:
        """End the run after this epoch."""
        self.stopped = why

    def evaluate(self, predictions: bool = False) -> Evaluation | None:
        """The test data with the present weights; None without test data."""
        return None if self.test is None else self.tester(self.test, predictions)

    def say(self, text: str) -> None:
        """A line for the person who watches, unless the run is quiet."""
        if not self.quiet:
            print_line(text)

    def warn(self, text: str) -> None:
        """A line that a person should see even when the run is quiet."""
        print_line(text, sys.stderr)

    # checkpoints ------------------------------------------------------------------------------
    @functools.cached_property
    def checksum(self) -> int:
        """By which a resumed run knows the training data again."""
        return checksum(self.loader)

    def save(self, path: str | PathLike[str]) -> None:
        """Everything from which `fit(resume=path)` continues bit for bit, in one file."""
        from .. import checkpoint

        state, arrays = self.state(), self.arrays
        checkpoint.save(
            path, self.model, self.optimizer, arrays=arrays, training=state, **self.details
        )

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds besides model, optimiser and random counters."""
        return {
            "loader": self.loader.state_dict(),
            "data": self.checksum,
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "normalize": None if self.normalize is None else self.normalize.as_dict(),
            "history": self.history.rows,
        }

    def resume(self, path: str | PathLike[str]) -> None:
        """Continue from a checkpoint that `save` wrote."""
        from .. import checkpoint

        loaded = checkpoint.load(path)
        state = loaded.extra.get("training")
        if state is None:
            raise ValueError(f"resume: {path} holds weights but not the state of a training run")
        before = self.loader.state_dict()
        try:
            with _as_recorded(path):
                history = History.of_epochs(state["history"])
                if (state["schedule"] is None) != (self.schedule is None):
                    both = ("no", "has one") if self.schedule is not None else ("a", "has none")
                    raise ValueError("the run has {} schedule but this one {}".format(*both))
                if self.schedule is not None:
                    self.schedule.check_state_dict(state["schedule"])
                self.loader.load_state_dict(state["loader"])
                if state.get("data", self.checksum) != self.checksum:  # older ones have none
                    raise DataError(
                        "the training images or labels are others than those of the run, which "
                        "goes on with the same data alone"
                    )
            loaded.restore(self.model, self.optimizer)
        except ValueError:
            self.loader.load_state_dict(before)
            raise
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.history, self.arrays = history, loaded.arrays
        self.resumed = str(loaded.path)


def checksum(loader: Loader) -> int:
    """CRC-32 of labels and images; of images of more than 256 MiB, of every n-th."""
    images, labels = loader.images, loader.labels
    step = -(-images.nbytes // READ)
    crc = zlib.crc32(f"{images.dtype} {images.shape} {labels.dtype} {labels.shape}".encode())
    crc = zlib.crc32(np.ascontiguousarray(labels).data, crc)
    for start in range(0, len(images), 1024 * step):
        part = images[start : start + 1024 * step : step]
        crc = zlib.crc32(np.ascontiguousarray(part).data, crc)
    return crc


@contextmanager
def _as_recorded(path: str | PathLike[str]) -> Iterator[None]:
    """Around reading what a checkpoint says of its run: what is wrong there is one sentence."""
    try:
        yield
    except DataError as error:
        raise DataError(f"resume: {path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        missing = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"resume: the run in {path} cannot be continued: {missing}") from error
