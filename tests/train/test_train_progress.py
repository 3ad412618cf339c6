"""What a person sees: rows everywhere, a bar on a terminal, a line now and then elsewhere."""

import os
import subprocess
import sys
import time

import pytest
from train.small import TEST, TRAIN, small_model

from deepkit.train import fit, progress
from deepkit.train.progress import Progress, waiting


def test_a_row_an_epoch_and_nothing_else_on_a_pipe(capsys):
    fit(small_model(), TRAIN, TEST, epochs=3)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 4
    assert lines[0].split()[:3] == ["epoch", "train", "loss"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3"]
    assert len({len(line) for line in lines}) == 1  # a table
    assert err == ""


def test_columns_that_were_not_measured_are_dashes(capsys):
    fit(small_model(), TRAIN, epochs=1)
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row[3:6] == ["-", "-", "-"]


def test_no_progress_prints_nothing(capsys):
    fit(small_model(), TRAIN, TEST, epochs=2, progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_long_epoch_says_now_and_then_where_it_is(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PULSE", 0.05)
    with Progress(True) as show:
        show.begin("epoch 1/1", 3)
        show.done(1, 0.5)
        time.sleep(0.1)
        show.done(2, 0.25)
        show.done(3, 0.125)
    assert capsys.readouterr().err == "epoch 1/1: 2 of 3 batches, loss 0.2500\n"


def test_the_first_batch_after_a_wait_that_was_explained_is_not_told(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PULSE", 0.05)
    with Progress(True) as show:
        show.begin("epoch 1/1", 3)
        show.expect_wait("preparing ...")
        time.sleep(0.1)
        show.done(1, 0.5)
        time.sleep(0.1)
        show.done(2, 0.25)
    assert capsys.readouterr().err == "epoch 1/1: 2 of 3 batches, loss 0.2500\n"


def test_the_rate_is_said_to_be_that_of_the_end(capsys):
    fit(small_model(), TRAIN, epochs=1)
    assert "lr at end" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize("slow", [True, False])
def test_a_wait_is_explained_when_it_is_one(capsys, monkeypatch, slow):
    monkeypatch.setattr(progress, "PATIENCE", 0.05)
    with waiting("reading ..."):
        time.sleep(0.3 if slow else 0)
    with Progress(True) as show:
        show.begin("epoch 1/1", 1)
        show.expect_wait("preparing ...")
        time.sleep(0.3 if slow else 0)
        show.done(1)
        time.sleep(0.2)
    assert capsys.readouterr().err == ("reading ...\npreparing ...\n" if slow else "")


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX's")
def test_a_terminal_shows_a_bar():
    """Also one that does not know its size."""
    import pty

    code = (
        "import time\n"
        "from deepkit.train.progress import Progress\n"
        "with Progress(True) as show:\n"
        "    show.begin('epoch 1/1', 8)\n"
        "    for i in range(8):\n"
        "        time.sleep(0.1)\n"
        "        show.done(i + 1, 0.5)\n"
    )
    terminal, theirs = pty.openpty()
    child = subprocess.Popen([sys.executable, "-c", code], stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        seen += part
    os.close(terminal)
    assert child.wait() == 0
    text = seen.decode()
    assert "epoch 1/1: " in text
    assert "/8 [" in text
    assert "loss 0.5000" in text
