"""What may happen beside training: early stopping, checkpoints, logs.

A callback is any object with some of the methods of `Callback`, or a function of the run, called
after each epoch.  They are called in the order in which `fit` was given them.
"""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .history import COLUMNS, rises

if TYPE_CHECKING:
    from .run import Run


class Callback:
    """Does nothing; override what you need."""

    def on_train_begin(self, run: Run) -> None:
        """Before the first step, when the model, the data and a resumed state are in place."""

    def on_epoch_end(self, run: Run) -> None:
        """After an epoch and its test: `run.history.last` is its row."""

    def on_train_end(self, run: Run) -> None:
        """After the last epoch, also when a callback stopped the run; not after an exception."""

    def close(self) -> None:
        """At the very end, whatever happened."""


class FunctionCallback(Callback):
    """A function of the run, as a callback."""

    def __init__(self, function: Callable[[Run], Any]) -> None:
        self.function = function

    def on_epoch_end(self, run: Run) -> None:
        self.function(run)


class EarlyStopping(Callback):
    """Stop when `monitor` has not improved for `patience` epochs; give the best weights back.

    An improvement is one by more than `min_delta`: downwards, or upwards for an accuracy. The best
    weights go into checkpoints, so that a resumed run ends as it would have without a break.
    """

    def __init__(
        self,
        patience: int = 5,
        monitor: str = "test_loss",
        *,
        min_delta: float = 0.0,
        restore_best: bool = True,
    ) -> None:
        if not isinstance(patience, int) or patience < 1:
            raise ValueError(
                f"EarlyStopping: patience is a number of epochs from 1, not {patience!r}"
            )
        check_column("EarlyStopping", monitor)
        self.patience, self.monitor = patience, monitor
        self.min_delta, self.restore_best = min_delta, restore_best
        self._forget()

    def _forget(self) -> None:
        self.best: float | None = None
        self.best_epoch = 0
        self._weights: dict[str, Any] | None = None

    def on_train_begin(self, run: Run) -> None:
        self._forget()
        for row in run.history:
            self._look(row)
        begin = self._name("")
        kept = {k.removeprefix(begin): a for k, a in run.arrays.items() if k.startswith(begin)}
        self._weights = kept or None
        if run.epoch:
            self._decide(run)

    def on_epoch_end(self, run: Run) -> None:
        self._look(run.history.last)
        self._decide(run)

    def _decide(self, run: Run) -> None:
        """Keep the weights of the last epoch, or stop, or neither."""
        if self.best_epoch == run.epoch:
            if self.restore_best:
                self._weights = run.model.state_dict()
                run.arrays |= {self._name(name): a for name, a in self._weights.items()}
        elif run.epoch - self.best_epoch >= self.patience:
            run.stop(
                f"{self.monitor} has not improved since epoch {self.best_epoch} ({self.best:.5g})"
            )

    def _name(self, name: str) -> str:
        """Of an array in a checkpoint."""
        return f"early_stopping.{self.monitor}.{name}"

    def on_train_end(self, run: Run) -> None:
        if self._weights is not None and run.epoch != self.best_epoch:
            run.model.load_state_dict(self._weights)
            run.say(f"the model has the weights of epoch {self.best_epoch}, the best, again")

    def _look(self, row: dict[str, Any]) -> None:
        value = measured("EarlyStopping", self.monitor, row)
        gain = 0.0 if self.best is None else self.best - value
        if rises(self.monitor):
            gain = -gain
        if self.best is None or gain > self.min_delta:
            self.best, self.best_epoch = value, row["epoch"]


class Checkpoint(Callback):
    """Save model, optimiser and the state of the run to `path`, after every `every` epochs.

    `path` may hold the epoch: "epoch-{epoch:03d}.safetensors". With `best_only`, only when
    `monitor` is better than ever. `fit(resume=path)` continues from such a file.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        every: int = 1,
        *,
        best_only: bool = False,
        monitor: str = "test_loss",
    ) -> None:
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"Checkpoint: every is a number of epochs from 1, not {every!r}")
        check_column("Checkpoint", monitor)
        self.path, self.every = fspath(path), every
        self.best_only, self.monitor = best_only, monitor

    def on_epoch_end(self, run: Run) -> None:
        if run.epoch % self.every:
            return
        if self.best_only:
            measured("Checkpoint", self.monitor, run.history.last)
            if run.history.best(self.monitor) is not run.history.last:
                return
        path = Path(self.path.format(epoch=run.epoch))
        path.parent.mkdir(parents=True, exist_ok=True)
        run.save(path)


class CSVLog(Callback):
    """Keep the history in a CSV file, rewritten whole after each epoch."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = fspath(path)

    def on_epoch_end(self, run: Run) -> None:
        run.history.to_csv(self.path)


class JSONLinesLog(Callback):
    """Keep the history in a file of JSON lines, one an epoch, rewritten whole after each."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = fspath(path)

    def on_epoch_end(self, run: Run) -> None:
        run.history.to_jsonl(self.path)


def check_column(what: str, column: str) -> None:
    """A name that is no column of the history is an error that lists them."""
    if column not in COLUMNS:
        raise ValueError(f"{what}: cannot monitor {column!r}   (choose from: {', '.join(COLUMNS)})")


def measured(what: str, column: str, row: dict[str, Any]) -> float:
    """The value of a column, or a sentence that says that nobody measured it."""
    value = row[column]
    if value is None:
        raise ValueError(
            f"{what}: {column!r} was not measured; give `fit` test data, or monitor 'train_loss'"
        )
    return float(value)
