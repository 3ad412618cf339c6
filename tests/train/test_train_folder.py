"""The folder that a run leaves, and what it refuses."""

import csv
import errno
import json
import sys

import numpy as np
import pytest
from train.small import TEST, TRAIN, small_model

from deepkit import plot
from deepkit.train import RunFolder, RunFolderError, TrainingError, fit
from deepkit.train.folder import FILES

PIL = pytest.importorskip("PIL.Image")


def run(out, **options):
    options = {"epochs": 2, "progress": False, "seed": 0} | options
    return fit(small_model(), TRAIN, TEST, out=out, **options)


def test_a_run_leaves_its_folder(tmp_path):
    out = tmp_path / "runs" / "a"
    history = run(RunFolder(out, about={"seed": 7}, classes=tuple("abc")))
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
    with open(out / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(r["test_loss"]) for r in rows] == history["test_loss"]
    about = json.loads((out / "run.json").read_text())
    assert about["seed"] == 7
    assert about["device"] == "numpy"
    assert about["last"] == history.last
    assert about["versions"]["numpy"] == np.__version__
    for name in ("learning_curves.png", "errors.png"):
        with PIL.open(out / name) as picture:
            assert picture.width > 300
            assert picture.format == "PNG"


def test_a_picture_that_fails_takes_nothing_else_along(tmp_path, capsys, monkeypatch):
    def learning_curves(*args, **options):
        raise ValueError("Axis limits cannot be\nNaN or Inf")

    monkeypatch.setattr(plot, "learning_curves", learning_curves)
    history = run(tmp_path)
    assert capsys.readouterr().err == (
        "skipped learning_curves.png: it could not be drawn "
        "(ValueError: Axis limits cannot be NaN or Inf)\n"
    )
    assert {p.name for p in tmp_path.iterdir()} == set(FILES) - {"learning_curves.png"}
    assert json.loads((tmp_path / "run.json").read_text())["last"] == history.last


def test_one_epoch_is_one_epoch(tmp_path, capsys):
    run(tmp_path, epochs=1, progress=True)
    assert "after 1 epoch, " in capsys.readouterr().out


def test_a_folder_that_is_not_empty_is_refused_before_training(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="not empty"):
        run(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_overwriting_removes_the_earlier_run_and_nothing_else(tmp_path):
    run(tmp_path)
    (tmp_path / "thesis.txt").write_text("mine")
    for name in FILES:
        (tmp_path / name).touch()
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    seen = []

    class Look(RunFolder):
        def on_epoch_end(self, r):
            seen.append({p.name: p.read_bytes() for p in tmp_path.iterdir()} == before)
            super().on_epoch_end(r)
            seen.append(sorted(p.name for p in tmp_path.iterdir()))

    run(Look(tmp_path, overwrite=True), epochs=1)
    left = ["checkpoint.safetensors", "metrics.csv", "metrics.jsonl", "run.json", "thesis.txt"]
    assert seen == [True, left]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
    assert json.loads((tmp_path / "run.json").read_text())["epochs_done"] == 1


def test_an_earlier_run_outlives_one_that_comes_to_nothing(tmp_path):
    run(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def fail(r):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(RunFolder(tmp_path, overwrite=True), callbacks=[fail])
    model = small_model()
    model.load_state_dict({k: v * np.nan for k, v in model.state_dict().items()})
    with pytest.raises(TrainingError):
        fit(model, TRAIN, TEST, out=RunFolder(tmp_path, overwrite=True), progress=False)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_finished_run_replaces_an_earlier_one_elsewhere(tmp_path):
    run(tmp_path / "a", epochs=1)
    run(tmp_path / "b")
    checkpoint = tmp_path / "b" / "checkpoint.safetensors"
    run(RunFolder(tmp_path / "a", overwrite=True), resume=checkpoint)
    assert len((tmp_path / "a" / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(RunFolderError, match="is a file"):
        run(tmp_path / "a")
    with pytest.raises(RunFolderError, match="cannot be written"):
        run(tmp_path / "a" / "b")


def test_a_full_disk_is_one_sentence_and_leaves_whole_files(tmp_path, monkeypatch):
    import os

    real, writes = os.replace, []

    def full(source, target):
        writes.append(target)
        if len(writes) > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunFolderError, match=r"cannot be written .No space left on device."):
        run(tmp_path / "a", epochs=5)
    monkeypatch.undo()
    left = {p.name for p in (tmp_path / "a").iterdir()}
    assert left <= set(FILES)  # no temporary file stays
    for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines():
        json.loads(line)
    again = fit(
        small_model(),
        TRAIN,
        TEST,
        epochs=5,
        out=tmp_path / "a",
        resume=tmp_path / "a" / "checkpoint.safetensors",
        progress=False,
        seed=0,
    )
    assert len(again) == 5


def test_a_resumed_run_goes_on_in_its_folder(tmp_path):
    def cut(r):
        if r.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, callbacks=[cut], epochs=3)  # in epoch 1, before anything was saved
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]

    class Interrupt(RunFolder):
        def on_epoch_end(self, r):
            super().on_epoch_end(r)
            if r.epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Interrupt(tmp_path, overwrite=True), epochs=3)
    checkpoint = tmp_path / "checkpoint.safetensors"
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    history = run(tmp_path, epochs=3, resume=checkpoint)
    assert len(history) == 3
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    other = tmp_path / "other"
    other.mkdir()
    (other / "x").write_text("")
    with pytest.raises(RunFolderError, match="not empty"):
        run(other, epochs=3, resume=checkpoint)


def test_without_the_plotting_packages_the_run_says_what_it_skipped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plot, "missing", lambda: ["matplotlib", "pillow"])
    run(tmp_path)
    said = capsys.readouterr().err
    assert "skipped learning_curves.png and errors.png" in said
    assert "pip install matplotlib pillow" in said
    assert not list(tmp_path.glob("*.png"))


def test_missing_names_what_is_not_installed(monkeypatch):
    assert plot.missing() == []
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert plot.missing() == ["pillow"]
