"""`fit`: the loop over epochs and batches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from typing import Any

import numpy as np

from .. import random
from ..backends import get
from ..captured import capture as captured
from ..create import tensor
from ..data.augment import Augmentation
from ..data.resident import Resident, resident
from ..nn import Module
from ..ops import cross_entropy
from ..optim import Adam, LinearWarmup, OneCycleLR
from ..spellings import explained
from ..tape import Tensor
from ..words import counted
from .arguments import callbacks_of, check_loss, check_model, check_optimizer
from .callbacks import Callback
from .errors import TrainingError
from .evaluate import (
    WAIT,
    Data,
    Loss,
    Tester,
    check_data,
    count_correct,
    device_of,
    in_order,
    loader_of,
)
from .folder import RunFolder
from .history import History
from .normalize import Normalize
from .progress import Progress
from .run import Run

GLANCE = 0.1  # seconds between two looks at the losses, which wait on the device until then


@explained
def fit(
    model: Module,
    train: Data,
    test: Data | None = None,
    *,
    epochs: int = 10,
    optimizer: Any = None,
    loss: Loss = cross_entropy,
    device: str | None = None,
    batch_size: int = 128,
    callbacks: Iterable[Callback | Callable[[Run], Any]] = (),
    schedule: Any = None,
    schedule_step: str | None = None,
    augment: Augmentation | None = None,
    normalize: Normalize | None = None,
    capture: bool = True,
    progress: bool = True,
    seed: int | None = None,
    out: str | PathLike[str] | RunFolder | None = None,
    resume: str | PathLike[str] | None = None,
    details: dict[str, Any] | None = None,
) -> History:
    """Train `model` for `epochs` passes over `train`, test after each -> the History.

    train, test: (images, labels), a Dataset, or a Loader. Labels are classes, whole numbers (N,),
        or floats (N, ...), the targets of a regression, which needs a `loss`.
        A Loader keeps its own batch size, seed and augmentation; otherwise `batch_size`, `augment`
        and `seed` make one that shuffles.
    optimizer: Adam(model.parameters(), lr=1e-3) if not given.
    loss: `loss(output, labels)`, a mean over the batch.
    device: moves the model there first. Without it, training runs where the model is.
    schedule: one of `dk.optim`'s for this optimizer; schedule_step is what its numbers count,
        "epoch" or "batch" (if not given, batches for OneCycleLR and LinearWarmup, else epochs).
    normalize: a `Normalize` for the images of both, as in Normalize.of(images).
    capture: replay the training step, see `dk.capture`: the same numbers, sooner.
    progress: a bar on a terminal, and a row an epoch.
    seed: `dk.seed(seed)` before anything else; of a model that is already there, the weights stay.
    out: a folder for checkpoint, metrics and pictures, see `RunFolder`. `load_model(out, model)`
        reads it; `deepkit eval` does not, since the folder does not say how to build the model.
    resume: a checkpoint of an earlier run with the same arguments, which goes on bit for bit until
        `epochs` in all.
    details: plain values (JSON) that go into every checkpoint.

    Raises DataError, ShapeError, ValueError or TypeError for arguments that do not fit, before
    training; and TrainingError, at the batch where it happened, when the loss is no longer a
    finite number.
    """
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise ValueError(f"fit: epochs must be a whole number from 1, not {epochs!r}")
    check_model("fit", model)
    check_loss("fit", loss)
    check_optimizer(model, optimizer, schedule)
    parts = callbacks_of(callbacks)
    if schedule_step not in (None, "epoch", "batch"):
        raise ValueError(f"fit: schedule_step is 'epoch' or 'batch', not {schedule_step!r}")
    if seed is not None:
        random.seed(seed)
    if device is not None:
        model.to(device)
    loader = loader_of(train, batch_size, augment=augment, seed=seed or 0)
    tests = None if test is None else in_order(test, loader.batch_size)
    for shown in (loader, tests):
        if shown is not None:
            check_data("fit", model, shown, normalize, loss)
    run = Run(
        model=model,
        optimizer=Adam(model.parameters(), lr=1e-3) if optimizer is None else optimizer,
        loader=loader,
        test=tests,
        tester=Tester(model, loss, normalize, capture),
        loss=loss,
        epochs=epochs,
        schedule=schedule,
        schedule_step=schedule_step or _unit(schedule),
        normalize=normalize,
        details=dict(details or {}),
        quiet=not progress,
    )
    if resume is not None:
        run.resume(resume)
        if run.epoch >= epochs:
            run.say(f"{run.resumed} has done all of its {counted(run.epoch, 'epoch')}")
    if out is not None:
        parts.append(out if isinstance(out, RunFolder) else RunFolder(out))
    try:
        for part in parts:
            part.on_train_begin(run)
        # a run that diverges ends with a sentence, not with NumPy's warnings before it
        with np.errstate(all="ignore"), Progress(progress) as show:
            _epochs(run, parts, capture, show)
        if run.stopped:
            run.say(f"stopped after epoch {run.epoch}: {run.stopped}")
        for part in parts:
            part.on_train_end(run)
    finally:
        for part in parts:
            part.close()
    return run.history


def _unit(schedule: Any) -> str:
    """What the steps of a schedule usually are."""
    return "batch" if isinstance(schedule, OneCycleLR | LinearWarmup) else "epoch"


def _step(run: Run, capture: bool, there: Resident | None) -> Callable[..., Any]:
    """One training step -> (mean loss, how many of the batch were right)."""
    model, optimizer, normalize = run.model, run.optimizer, run.normalize
    if normalize is not None:
        normalize.to(run.device)

    def step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
        if there is not None:
            x, y = there.gather(x, y)
        output = model(x if normalize is None else normalize(x))
        value = run.loss(output, y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return value.detach(), count_correct(output, y)

    return captured(step) if capture else step


def _epochs(run: Run, callbacks: list[Callback], capture: bool, show: Progress) -> None:
    there = resident(run.loader, run.device)
    step = _step(run, capture, there)
    while run.epoch < run.epochs and run.stopped is None:
        epoch = run.epoch + 1
        label = f"epoch {epoch}/{run.epochs}"
        show.begin(label, len(run.loader))
        show.expect_wait(WAIT.format(device=run.device))
        row = _train(run, step, epoch, show, there)
        if run.test is not None:
            show.begin(f"{label}, test", len(run.test))
            found = run.tester(run.test, done=show.done)
            row |= {
                "test_loss": found.loss,
                "test_accuracy": found.accuracy,
                "errors": found.errors,
            }
        show.end()
        show.row(run.history.append(epoch=epoch, **row))
        for callback in callbacks:
            callback.on_epoch_end(run)


def _train(
    run: Run, step: Callable[..., Any], epoch: int, show: Progress, there: Resident | None
) -> dict[str, Any]:
    """One pass over the training data -> its part of the history's row."""
    run.model.train()
    device = device_of(run.model)
    tally = _Tally(epoch, len(run.loader), show)
    backend = get(run.device)
    start = time.perf_counter() - backend.preparing
    for x, y in _batches(run, device, there):
        tally.add(x.shape[0], *step(x, y))
        lr = run.optimizer.lr
        if run.schedule is not None and run.schedule_step == "batch":
            run.schedule.step()
    tally.look()
    if run.schedule is not None and run.schedule_step == "epoch":
        run.schedule.step()
    seconds = time.perf_counter() - backend.preparing - start
    return {
        "train_loss": tally.loss,
        "train_accuracy": tally.accuracy,
        "lr": float(lr),
        "seconds": seconds,
        "images_per_second": tally.count / seconds,
    }


def _batches(
    run: Run, device: str | None, there: Resident | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """What the step is called with: images and labels, or what gathers them on the device."""
    if there is not None:
        yield from there.batches()
        return
    for x, y in run.loader.batches():
        yield tensor(x, device), tensor(y, device)


class _Tally:
    """Losses and hits of an epoch. They stay on the device, and are read now and then."""

    def __init__(self, epoch: int, batches: int, show: Progress) -> None:
        self.epoch, self.batches, self.show = epoch, batches, show
        self.count = self.done = self.right = 0
        self.total = 0.0
        self.classes = True
        self._waiting: list[tuple[int, Tensor, Tensor | None]] = []
        self._last = 0.0  # so that the first loss is looked at

    def add(self, count: int, loss: Tensor, right: Tensor | None) -> None:
        self._waiting.append((count, loss, right))
        if time.perf_counter() - self._last > GLANCE:
            self.look()

    def look(self) -> None:
        """Read what is waiting; a loss that is no finite number ends the run."""
        for count, loss, right in self._waiting:
            value = loss.item()
            self.done += 1
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss became {value} in epoch {self.epoch}, batch {self.done} of "
                    f"{self.batches}; a smaller learning rate or clipped gradients may help"
                )
            self.total += count * value
            self.count += count
            if right is None:
                self.classes = False
            else:
                self.right += int(right.item())
        self._waiting.clear()
        self._last = time.perf_counter()
        self.show.done(self.done, self.loss)

    @property
    def loss(self) -> float:
        """The mean over the images so far."""
        return self.total / self.count

    @property
    def accuracy(self) -> float | None:
        return self.right / self.count if self.classes else None
