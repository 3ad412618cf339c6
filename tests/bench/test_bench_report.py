"""Rows: what they say, the table, JSON there and back, the picture; and the command's errors."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cpu import draw, report, run
from bench.cpu.measure import Timing
from bench.cpu.report import Row
from bench.cpu.roofline import Roofline
from bench.cpu.targets import TORCH, Target

ROOT = Path(__file__).parents[2]


def timing(ms):
    return Timing(ms, 0.9 * ms, 0.1, 30)


ROW = Row(
    "train",
    "lenet5",
    "LeNet-5",
    64,
    2,
    {
        "deepkit captured": timing(0.5),
        "deepkit eager": timing(0.8),
        "torch": timing(3.0),
        "torch channels last": timing(2.0),
        "jax": timing(1.5),
    },
    operations=1e8,
    nbytes=1e7,
    bound_ms=0.25,
    target=Target(5.0, 8.0, TORCH),
    left_out={"torch compiled": "no compiler"},
)
ALONE = dataclasses.replace(ROW, name="mlp", timings={"deepkit eager": timing(1.0)}, target=None)
OP = dataclasses.replace(
    ROW, mode="ops", name="conv2d dw", detail="128x14x14x6", batch=0, others=0.9
)


def test_a_row_compares_the_fastest_of_both_sides():
    assert (ROW.ours, ROW.peer) == ("deepkit captured", "jax")
    assert ROW.ratio == pytest.approx(3.0)
    assert ROW.judged == pytest.approx(4.0)  # against PyTorch alone
    assert ROW.gflops == pytest.approx(200.0)
    assert ROW.share == pytest.approx(0.5)


def test_verdicts():
    assert ROW.verdict == "below"
    assert dataclasses.replace(ROW, target=Target(4.0, 8.0, TORCH)).verdict == "ok"
    assert dataclasses.replace(ROW, target=Target(4.0, 8.0, ("openvino",))).verdict == ""
    assert OP.verdict == "busy"
    assert ALONE.verdict == ""
    assert math.isnan(ALONE.ratio)


def test_json_there_and_back(tmp_path):
    rows, path = [ROW, ALONE, OP], tmp_path / "deeper" / "cpu.json"
    roofs = {2: Roofline(400.0, {1000: 200.0, 10**9: 40.0})}
    report.save(path, report.record(rows, roofs, "python -m bench.cpu"))
    found, back = report.load(path)
    assert back == rows
    assert found["roofline"]["2"]["peak_gflops"] == 400.0
    assert found["rows"][0]["ratio"] == 3.0
    assert found["rows"][1]["ratio"] is None  # JSON has no NaN
    assert {"architecture", "cores"} <= found["machine"].keys()
    assert "node" not in json.dumps(found["machine"])  # no name of a host
    assert list(path.parent.iterdir()) == [path]


def test_another_schema_is_refused(tmp_path):
    path = tmp_path / "old.json"
    path.write_text('{"benchmark": "cpu", "schema": 0, "rows": []}')
    with pytest.raises(ValueError, match="schema 1"):
        report.load(path)


def test_the_table(capsys):
    table = report.Table()
    for row in (ROW, ROW, ALONE, OP):
        table.add(row)
    report.summary([ROW, ALONE, OP])
    said = capsys.readouterr().out
    assert said.count("torch compiled is left out: no compiler") == 1
    assert said.count("train: milliseconds") == 2  # a new head where others take part
    line = next(line for line in said.splitlines() if line.startswith("lenet5"))
    figures = "64 2 0.500 0.800 3.00 2.00 - 1.50 3.00 200.0 50% 5.0 4.00 below"
    assert line.split()[1:] == figures.split()
    assert "0 of 1 targets are met" in said
    assert "1 of 3 comparisons were made while other processes used the machine" in said


def test_the_picture(tmp_path):
    path = tmp_path / "cpu.png"
    rows = [ROW, OP, ALONE]
    draw.draw(report.record(rows, {}, ""), rows, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    draw.draw(report.record([ALONE], {}, ""), [ALONE], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()  # nobody to compare with


def test_the_roofline_takes_the_smallest_memory_that_holds_it():
    roof = Roofline(100.0, {1000: 50.0, 10**6: 20.0})
    assert roof.band(1000) == 50.0
    assert roof.band(1001) == 20.0
    assert roof.band(10**9) == 20.0
    assert roof.least_ms(1e9, 1000) == pytest.approx(10.0)  # arithmetic
    assert roof.least_ms(0, 2e7) == pytest.approx(1.0)  # memory


@pytest.mark.parametrize(
    "words,said",
    [
        (["train", "--network", "lenet9"], "lenet9"),
        (["draw"], "a file goes with draw"),
        (["train", "--threads", "0"], "from 1"),
    ],
)
def test_wrong_words_end_with_a_sentence(words, said):
    command = [sys.executable, "-m", "bench.cpu", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_roofline_taken_on_a_busy_machine_is_taken_again(monkeypatch):
    taken = []

    def measured(threads, before=None):
        taken.append(before)
        return Roofline(1.0 + len(taken), {1000: 50.0}, quiet=len(taken) == 2)

    monkeypatch.setattr("bench.cpu.roofline.measured", measured)
    roofs = run.Roofs([2])
    assert [roofs.now(2).peak for _ in range(3)] == [3.0, 3.0, 3.0]
    assert [before and before.peak for before in taken] == [None, 2.0]
