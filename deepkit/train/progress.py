"""What a person sees of a run: a bar on terminals, a row an epoch everywhere."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from .. import backends
from ..words import counted

TABLE = (  # heading, column, format, width
    ("epoch", "epoch", "{:d}", 6),
    ("train loss", "train_loss", "{:.5f}", 11),
    ("accuracy", "train_accuracy", "{:.2%}", 9),
    ("test loss", "test_loss", "{:.5f}", 11),
    ("accuracy", "test_accuracy", "{:.2%}", 9),
    ("errors", "errors", "{:,d}", 7),
    ("lr at end", "lr", "{:.2e}", 10),
    ("seconds", "seconds", "{:.2f}", 8),
    ("images/s", "images_per_second", "{:,.0f}", 9),
)
PATIENCE = 1.0  # seconds in which a first step needs no explanation
PULSE = 10.0  # seconds between two lines where there is no terminal


@contextlib.contextmanager
def waiting(note: str, on: bool = True) -> Iterator[None]:
    """Print `note` to stderr if the block takes longer than a second."""
    timer = threading.Timer(PATIENCE, print_note, [note])
    timer.daemon = True
    if on:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Progress:
    """Shows a run: `with Progress(on): ...`. Rows go to stdout; bar and notes go to stderr."""

    def __init__(self, on: bool) -> None:
        self.on = on
        self._bar: Any = None
        self._timer: threading.Timer | None = None
        self._headed = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def begin(self, label: str, batches: int) -> None:
        """A pass over the data begins."""
        self._close()
        self.label, self.batches, self._last = label, batches, time.perf_counter()

    def expect_wait(self, note: str) -> None:
        """Print `note` unless a batch is finished within a second.

        Backends then say nothing of their own, whether this does or not.
        """
        backends.told_preparing = True
        if self.on:
            self._timer = threading.Timer(PATIENCE, print_note, [note])
            self._timer.daemon = True
            self._timer.start()

    def done(self, batches: int, loss: float | None = None) -> None:
        """So many batches of the pass are finished, with this mean loss so far."""
        if not self.on:
            return
        if self._timer is not None:  # what was waited for has been said, and is no progress
            self._last = time.perf_counter()
        self._cancel()
        if sys.stderr.isatty():
            if self._bar is None:
                from tqdm import tqdm

                size = shutil.get_terminal_size()  # tqdm draws nothing where it is unknown
                self._bar = tqdm(
                    total=self.batches,
                    desc=self.label,
                    unit="batch",
                    leave=False,
                    delay=0.3,
                    ncols=min(100, size.columns),
                    nrows=size.lines,
                )
            if loss is not None:
                self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            self._bar.update(batches - self._bar.n)
        elif time.perf_counter() - self._last > PULSE:
            self._last = time.perf_counter()
            ending = "" if loss is None else f", loss {loss:.4f}"
            print_note(f"{self.label}: {batches} of {counted(self.batches, 'batch')}{ending}")

    def end(self) -> None:
        """The pass is over."""
        self._close()

    def row(self, row: dict[str, Any]) -> None:
        """The row of a finished epoch."""
        if not self.on:
            return
        if not self._headed:
            self._headed = True
            print(" ".join(f"{heading:>{width}}" for heading, _, _, width in TABLE))
        cells = (
            "-" if row[column] is None else form.format(row[column]) for _, column, form, _ in TABLE
        )
        widths = (width for *_, width in TABLE)
        print(" ".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True)), flush=True)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        self._cancel()
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def print_note(text: str) -> None:
    """A line on stderr, at once."""
    print_line(text, sys.stderr)


def print_line(text: str, stream: Any = None) -> None:
    """A line on stdout (or `stream`), at once.  What its encoding lacks is escaped: the name of a
    file never ends a run."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except UnicodeEncodeError:
        coding = stream.encoding or "ascii"
        safe = text.encode(coding, "backslashreplace").decode(coding)
        print(safe, file=stream, flush=True)
