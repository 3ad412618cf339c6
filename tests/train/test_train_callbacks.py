"""Callbacks: when they are called, early stopping, logs."""

import csv
import json

import numpy as np
import pytest
from train.small import TEST, TRAIN, same_weights, small_model

from deepkit.optim import SGD
from deepkit.train import Callback, CSVLog, EarlyStopping, JSONLinesLog, evaluate, fit
from deepkit.train.history import History


def quiet(model, *data, **options):
    return fit(model, *data, progress=False, **options)


class Diary(Callback):
    def __init__(self):
        self.entries = []

    def on_train_begin(self, run):
        self.entries.append(("begin", run.epoch))

    def on_epoch_end(self, run):
        assert run.history.last["epoch"] == run.epoch
        self.entries.append(("epoch", run.epoch))

    def on_train_end(self, run):
        self.entries.append(("end", run.epoch))


def test_callbacks_hear_of_begin_epochs_and_end():
    diary, seen = Diary(), []
    quiet(small_model(), TRAIN, epochs=2, callbacks=[diary, lambda run: seen.append(run.epoch)])
    assert diary.entries == [("begin", 0), ("epoch", 1), ("epoch", 2), ("end", 2)]
    assert seen == [1, 2]


def test_a_callback_can_stop_the_run(capsys):
    def stop(run):
        if run.epoch == 2:
            run.stop("that is enough")

    assert len(fit(small_model(), TRAIN, epochs=9, callbacks=[stop])) == 2
    assert "stopped after epoch 2: that is enough" in capsys.readouterr().out


class Script:
    """Plays test losses to a callback, with a model whose weights tell the epoch."""

    def __init__(self, callback, losses, start=(), arrays=None):
        self.history, self.stopped, self.said = History(), None, []
        self.arrays = arrays or {}
        self.model = self
        self.loaded = None
        for loss in start:
            self._row(loss)
        callback.on_train_begin(self)
        for loss in losses:
            if self.stopped:
                break
            self._row(loss)
            callback.on_epoch_end(self)
        callback.on_train_end(self)

    def _row(self, loss):
        self.history.append(epoch=len(self.history) + 1, test_loss=loss, test_accuracy=-loss)

    @property
    def epoch(self):
        return len(self.history)

    def stop(self, why):
        self.stopped = why

    def state_dict(self):
        return {"epoch": np.array(self.epoch)}

    def load_state_dict(self, state):
        self.loaded = int(state["epoch"])

    def say(self, text):
        self.said.append(text)


@pytest.mark.parametrize("monitor", ["test_loss", "test_accuracy"])
def test_early_stopping_waits_for_its_patience_and_restores_the_best(monitor):
    script = Script(EarlyStopping(2, monitor), [5, 3, 4, 2, 2, 3, 1])
    assert script.epoch == 6
    assert "since epoch 4" in script.stopped
    assert script.loaded == 4


def test_early_stopping_leaves_the_weights_alone_when_the_last_are_the_best():
    script = Script(EarlyStopping(3), [5, 4, 3])
    assert script.stopped is None
    assert script.loaded is None


def test_early_stopping_restores_the_best_also_when_the_epochs_run_out():
    assert Script(EarlyStopping(9), [5, 3, 4]).loaded == 2


def test_early_stopping_can_demand_an_improvement():
    script = Script(EarlyStopping(2, min_delta=0.5), [5, 4.8, 4.6, 1])
    assert script.epoch == 3


@pytest.mark.parametrize("broken", range(1, 7))
@pytest.mark.parametrize("losses", [[5, 3, 4, 2, 2, 3, 1], [5, 4, 3, 2, 1, 0], [1, 2, 3, 4, 5, 6]])
def test_early_stopping_after_a_break_is_as_without_one(losses, broken):
    """Also where the run was broken between its stop and its end."""
    whole = Script(EarlyStopping(2), losses)
    first = Script(EarlyStopping(2), losses[:broken])
    rest = losses[first.epoch :]
    again = Script(EarlyStopping(2), rest, start=losses[: first.epoch], arrays=first.arrays)
    assert (again.epoch, again.stopped) == (whole.epoch, whole.stopped)
    assert again.loaded == whole.loaded


def test_the_weights_for_early_stopping_go_through_checkpoints(tmp_path):
    def run(epochs, **options):
        model = small_model()
        optimizer = SGD(model.parameters(), lr=0.5, momentum=0.9)
        calls = [EarlyStopping(2), lambda run: run.save(tmp_path / f"{run.epoch}.safetensors")]
        options |= {"optimizer": optimizer, "callbacks": calls}
        return quiet(model, TRAIN, TEST, epochs=epochs, **options), model

    history, model = run(30)
    assert history.best("test_loss")["epoch"] < len(history)
    for epoch in range(1, len(history) + 1):
        again, twin = run(30, resume=tmp_path / f"{epoch}.safetensors")
        assert len(again) == len(history)
        assert same_weights(model, twin)


def test_early_stopping_really_gives_the_best_weights_back():
    model = small_model()
    stopping = EarlyStopping(3)
    optimizer = SGD(model.parameters(), lr=0.5, momentum=0.9)
    history = quiet(model, TRAIN, TEST, epochs=40, optimizer=optimizer, callbacks=[stopping])
    best = history.best("test_loss")
    assert stopping.best_epoch == best["epoch"]
    assert evaluate(model, TEST).loss == pytest.approx(best["test_loss"], rel=1e-6)
    twin = small_model()
    quiet(
        twin,
        TRAIN,
        TEST,
        epochs=best["epoch"],
        optimizer=SGD(twin.parameters(), lr=0.5, momentum=0.9),
    )
    assert same_weights(model, twin)


def test_what_was_not_measured_cannot_be_monitored():
    with pytest.raises(ValueError, match="'test_loss' was not measured"):
        quiet(small_model(), TRAIN, epochs=2, callbacks=[EarlyStopping(2)])
    with pytest.raises(ValueError, match=r"cannot monitor 'val_loss' .*choose from: epoch"):
        EarlyStopping(2, "val_loss")
    with pytest.raises(ValueError, match="patience"):
        EarlyStopping(0)


def test_logs_hold_the_history_after_every_epoch(tmp_path):
    rows = []

    def look(run):
        with open(tmp_path / "a.csv", newline="") as file:
            rows.append(len(list(csv.DictReader(file))))

    logs = [CSVLog(tmp_path / "a.csv"), JSONLinesLog(tmp_path / "deep" / "a.jsonl"), look]
    history = quiet(small_model(), TRAIN, TEST, epochs=3, callbacks=logs)
    assert rows == [1, 2, 3]
    lines = (tmp_path / "deep" / "a.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history.rows
