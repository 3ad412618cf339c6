"""What a training run measured: one row an epoch."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from os import PathLike
from typing import Any

from ..words import counted
from .files import write_text

COLUMNS = (
    "epoch",
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "errors",
    "lr",
    "seconds",
    "images_per_second",
)
MAY_LACK = ("train_accuracy", "test_loss", "test_accuracy", "errors")  # where nobody measured it

Row = dict[str, Any]


class History:
    """One row (a dict with the keys `COLUMNS`) an epoch; what was not measured is None.

    Losses are means over the images of the epoch; `train_loss` and `train_accuracy` were measured
    while the weights changed. Accuracies are fractions, 0 to 1; `errors` counts wrong test images.
    `lr` is the learning rate of the epoch's last step. `seconds` and `images_per_second` are those
    of the training pass alone, without the test and without compiling kernels, which is done once.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.rows: list[Row] = []
        for row in rows:
            self.append(**row)

    @classmethod
    def of_epochs(cls, rows: list[Row]) -> History:
        """The history of a run from its first epoch on; ValueError where these are no such rows."""
        found = cls(rows)
        for number, row in enumerate(found.rows, 1):
            if row["epoch"] != number:
                raise ValueError(f"History: row {number} is of epoch {row['epoch']!r}")
            for column, value in row.items():
                known = value is None and column in MAY_LACK
                if not known and (isinstance(value, bool) or not isinstance(value, int | float)):
                    raise ValueError(f"History: {column} of epoch {number} is {value!r}")
        return found

    def append(self, **row: Any) -> Row:
        """Add the row of the next epoch; columns that are not given are None."""
        unknown = sorted(set(row) - set(COLUMNS))
        if unknown:
            raise ValueError(f"History: no column {unknown[0]!r}   (columns: {', '.join(COLUMNS)})")
        full = {column: row.get(column) for column in COLUMNS}
        self.rows.append(full)
        return full

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, column: str) -> list[Any]:
        """The values of a column, one an epoch: history["test_loss"]."""
        if column not in COLUMNS:
            raise KeyError(f"History: no column {column!r}   (columns: {', '.join(COLUMNS)})")
        return [row[column] for row in self.rows]

    @property
    def last(self) -> Row:
        """The row of the latest epoch."""
        if not self.rows:
            raise IndexError("History: no epoch has been finished")
        return self.rows[-1]

    def best(self, column: str) -> Row | None:
        """The earliest row with the lowest value of `column` (the highest of an accuracy)."""
        values = self[column]
        known = [r for r, value in zip(self.rows, values, strict=True) if value is not None]
        sign = -1 if rises(column) else 1
        return min(known, key=lambda row: sign * row[column], default=None)

    def to_csv(self, path: str | PathLike[str] | None = None) -> str:
        """The table as CSV with a header, also written to `path`; floats keep every digit."""
        out = io.StringIO()
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        if path is not None:
            write_text(path, out.getvalue())
        return out.getvalue()

    def to_jsonl(self, path: str | PathLike[str] | None = None) -> str:
        """The table as JSON lines, one object an epoch, also written to `path`."""
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        if path is not None:
            write_text(path, text)
        return text

    def __repr__(self) -> str:
        if not self.rows:
            return "History(no epochs)"
        values = ", ".join(f"{k}={_short(v)}" for k, v in self.last.items() if v is not None)
        return f"History({counted(len(self), 'epoch')}; the last: {values})"


def rises(column: str) -> bool:
    """Whether a larger value of this column is a better one."""
    return column.endswith("accuracy") or column == "images_per_second"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
