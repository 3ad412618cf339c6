"""The history: rows, columns, files."""

import csv
import json

import pytest

from deepkit.train import History
from deepkit.train.files import whole, write_text
from deepkit.train.history import COLUMNS


def history(*losses):
    made = History()
    for epoch, loss in enumerate(losses, 1):
        made.append(epoch=epoch, train_loss=loss, test_accuracy=1 - loss)
    return made


def test_rows_have_all_columns_and_none_where_nothing_was_measured():
    row = history(0.5).last
    assert tuple(row) == COLUMNS
    assert row["train_loss"] == 0.5
    assert row["errors"] is None


def test_a_column_is_a_list():
    assert history(0.5, 0.25)["train_loss"] == [0.5, 0.25]
    with pytest.raises(KeyError, match="no column 'los'"):
        history(0.5)["los"]


def test_an_unknown_column_is_refused():
    with pytest.raises(ValueError, match=r"no column 'accuracy'.*columns: epoch, train_loss"):
        History().append(epoch=1, accuracy=0.5)


def test_best_looks_down_for_losses_and_up_for_accuracies_and_takes_the_first():
    made = history(0.5, 0.1, 0.3, 0.1)
    assert made.best("train_loss")["epoch"] == 2
    assert made.best("test_accuracy")["epoch"] == 2
    assert made.best("test_loss") is None


def test_no_epoch_has_no_last_row():
    with pytest.raises(IndexError, match="no epoch"):
        _ = History().last


def test_csv_keeps_every_digit(tmp_path):
    made = history(0.1, 1 / 3)
    text = made.to_csv(tmp_path / "m.csv")
    assert (tmp_path / "m.csv").read_text() == text
    rows = list(csv.DictReader(text.splitlines()))
    assert [float(row["train_loss"]) for row in rows] == [0.1, 1 / 3]
    assert rows[0]["errors"] == ""


def test_json_lines_are_one_object_an_epoch(tmp_path):
    made = history(0.1, 1 / 3)
    made.to_jsonl(tmp_path / "m.jsonl")
    lines = (tmp_path / "m.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == made.rows


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail():
        with whole(path) as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
