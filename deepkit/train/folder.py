"""The folder that a training run leaves behind."""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
import time
from os import PathLike
from pathlib import Path
from typing import Any

from ..checkpoint import IN_FOLDER
from ..optim import Schedule
from ..words import counted
from .callbacks import Callback
from .errors import RunFolderError
from .files import write_json
from .run import Run

if sys.platform != "win32":  # which has no such locks
    import fcntl

CHECKPOINT = IN_FOLDER
CSV, JSON_LINES, ABOUT = "metrics.csv", "metrics.jsonl", "run.json"
CURVES, ERRORS = "learning_curves.png", "errors.png"
CURVE = 500  # points of the learning rate's curve
FILES = (CHECKPOINT, CSV, JSON_LINES, ABOUT, CURVES, ERRORS)


class RunFolder(Callback):
    """Keeps a run in a folder, every file written whole:

    checkpoint.safetensors   after each epoch; `fit(resume=...)` continues from it
    metrics.csv, .jsonl      the history
    run.json                 `about` (arguments, seed, ...), device, versions, times, the last row
    learning_curves.png      at the end, with the extra `plot`; and, if there is test data,
    errors.png               a contact sheet of misclassified test images

    A folder that is not empty is refused, unless the run was resumed from its checkpoint, or with
    `overwrite`, which removes these files of an earlier run and nothing else, once the first
    checkpoint of the new one is written: until then the earlier run is whole. (A run that ended
    before its first epoch did leaves run.json alone: that counts as empty.)
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        overwrite: bool = False,
        title: str | None = None,
        classes: tuple[str, ...] | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.path, self.overwrite = Path(path), overwrite
        self.title, self.classes, self.about = title, classes, dict(about or {})
        self.saved = 0  # the epoch of the checkpoint
        self.replaces = False  # whether an earlier run is still there, until the first checkpoint
        self._held: int | None = None  # the folder's descriptor, while a run holds it

    def check(self, resumed: str | PathLike[str] | None = None) -> None:
        """Raise RunFolderError if the folder cannot take this run; change nothing."""
        try:
            if not self.path.exists():
                return
            if not self.path.is_dir():
                raise RunFolderError(f"out: {self.path} is a file; a folder was expected")
            if self.overwrite or (
                resumed and Path(resumed).resolve().parent == self.path.resolve()
            ):
                return
            if any(entry.name != ABOUT for entry in self.path.iterdir()):
                raise RunFolderError(
                    f"out: the folder {self.path} is not empty; name another (--out), go on with "
                    "its run (--resume), or replace it (--overwrite)"
                )
        except OSError as error:
            raise self._unwritable(error) from error

    def finished(self) -> int | None:
        """Of how many epochs the run in the folder is, if it came to its end, pictures and all."""
        try:
            about = json.loads((self.path / ABOUT).read_text("utf-8"))
            return int(about["epochs_done"]) if "finished" in about else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def on_train_begin(self, run: Run) -> None:
        self.check(run.resumed)
        self.saved = run.epoch
        own = run.resumed and Path(run.resumed).resolve().parent == self.path.resolve()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._hold()
            earlier = any((self.path / name).exists() for name in FILES if name != ABOUT)
            self.replaces = earlier and not own
            if self.replaces and not os.access(self.path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise self._unwritable(error) from error
        self.about |= {
            "device": run.device,
            "versions": versions(),
            "platform": platform.platform(),
            "started": now(),
        }
        if not self.replaces:
            self._describe(run)

    def _hold(self) -> None:
        """One run at a time in a folder; the system lets go when the process ends."""
        if sys.platform == "win32":
            return
        self._held = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(
                f"out: another run is writing into {self.path} at this moment; name another folder"
            ) from None

    def close(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def on_epoch_end(self, run: Run) -> None:
        # the checkpoint first: it holds the history, from which the tables can be written again
        try:
            run.save(self.path / CHECKPOINT)
            self.saved = run.epoch
            if self.replaces:
                for name in FILES:
                    if name != CHECKPOINT:
                        (self.path / name).unlink(missing_ok=True)
                self.replaces = False
                self._describe(run)
            run.history.to_csv(self.path / CSV)
            run.history.to_jsonl(self.path / JSON_LINES)
        except OSError as error:
            raise self._unwritable(error) from error

    def on_train_end(self, run: Run) -> None:
        if self.replaces:  # a resumed run that had no epoch to go
            self.on_epoch_end(run)
        self.about["finished"] = now()
        self._describe(run)
        run.say(f"{summary(run)}; the run is in {self.path}")
        from .. import plot

        lacking = plot.missing()
        if lacking:
            run.warn(
                f"skipped {CURVES} and {ERRORS}: they need {' and '.join(lacking)} "
                f"(pip install {' '.join(lacking)})"
            )
            return
        try:
            self._draw(run)
        except OSError as error:
            raise self._unwritable(error) from error

    def _draw(self, run: Run) -> None:
        for name, draw in ((CURVES, self._draw_curves), (ERRORS, self._draw_errors)):
            try:
                draw(run)
            except OSError:
                raise
            except Exception as error:  # a picture that fails takes nothing else of the run along
                why = " ".join(f"{type(error).__name__}: {error}".split())
                run.warn(f"skipped {name}: it could not be drawn ({why})")

    def _heading(self, run: Run) -> str:
        from .. import plot

        return plot.drawable(self.title or type(run.model).__name__)

    def _draw_curves(self, run: Run) -> None:
        from .. import plot
        from ..ops import cross_entropy

        entropy = run.loss is cross_entropy
        plot.learning_curves(
            run.history,
            self.path / CURVES,
            self._heading(run),
            subtitle=summary(run),
            loss="mean cross-entropy (nats)" if entropy else "mean loss",
            rates=rates(run),
        )

    def _draw_errors(self, run: Run) -> None:
        from .. import plot

        if run.test is None or run.history.last["errors"] is None:
            return
        found = run.evaluate(predictions=True)
        assert found is not None
        assert found.predictions is not None
        plot.contact_sheet(
            run.test.images,
            run.test.labels,
            found.predictions,
            self.path / ERRORS,
            f"{self._heading(run)}: misclassified test images",
            classes=self.classes,
            confidences=found.confidences,
        )

    def _describe(self, run: Run) -> None:
        last = run.history.last if len(run.history) else None
        try:
            write_json(self.path / ABOUT, {**self.about, "epochs_done": run.epoch, "last": last})
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> RunFolderError:
        return RunFolderError(
            f"out: {self.path} cannot be written ({error.strerror or error}); "
            "a folder that can take files was expected"
        )


def rates(run: Run) -> tuple[list[float], list[float]] | None:
    """(epochs from 0 on, the learning rate from there), as the schedule has it; None without."""
    schedule = run.schedule
    if not isinstance(schedule, Schedule):
        return None
    unit = len(run.loader) if run.schedule_step == "batch" else 1
    count = run.epoch * unit
    steps = sorted({round(k * count / CURVE) for k in range(CURVE + 1)})
    return [t / unit for t in steps], [schedule.rate(schedule.bases[0], t) for t in steps]


def summary(run: Run) -> str:
    """What the run reached, in a line."""
    last, rows = run.history.last, run.history.rows
    seconds = sum(row["seconds"] for row in rows)
    effort = f"{counted(run.epoch, 'epoch')}, {seconds:.1f} s of training on {run.device}"
    if last["test_accuracy"] is None:
        return effort
    count = len(run.test.images) if run.test else 0
    errors = counted(last["errors"], "error")
    reached = f"{last['test_accuracy']:.2%} test accuracy ({errors} of {count:,})"
    return f"{reached} after {effort}"


def versions() -> dict[str, str]:
    """Python's version, and those of the packages that a run's numbers depend on."""
    from importlib import metadata  # slow to import, and rarely needed

    own = sys.modules[__name__.split(".")[0]].__version__
    found = {"deepkit": own, "python": platform.python_version()}
    for name in ("numpy", "numba", "cupy-cuda12x", "cupy-cuda13x"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def now() -> str:
    """The time here, with its offset from UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
