"""What the command line is given, and should not have been: always one sentence."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from cli.commands import FAST, ran, refused, train

from deepkit import checkpoint
from deepkit.train import RunFolder
from deepkit.train.progress import print_line

# checkpoints with a right checksum and wrong values -----------------------------------------------


@pytest.fixture
def altered(finished, tmp_path):
    """-> the path of a checkpoint of which a function has changed the description."""

    def write(change):
        path = tmp_path / "altered.safetensors"
        tensors, metadata = checkpoint._read(finished[0] / "checkpoint.safetensors")
        about = json.loads(metadata["deepkit"])
        text = change(about) or json.dumps(about)
        crc = checkpoint._digest(tensors, text)
        checkpoint._write(path, tensors, {"deepkit": text, "crc32": crc})
        return path

    return write


def put(*keys, value):
    """A function that sets about[key][key]... to a value."""

    def change(about):
        for key in keys[:-1]:
            about = about[key]
        about[keys[-1]] = value

    return change


RUN, TRAINING = ("extra", "run"), ("extra", "training")
NESTED = "[" * 100_000 + "]" * 100_000
SETTINGS = [
    *(("model", v) for v in (5, None, ["lenet5"], "zap")),
    *(("data", v) for v in (["x"], 5, None)),
    *(("root", v) for v in (5, ["x"])),
    *(("size", v) for v in ([1, 2, 3], "28", [0, 1], 5)),
    *(("epochs", v) for v in (0, "x", 2.5, [1])),
    *(("batch_size", v) for v in (0, -1, "x", None, 10**400)),
    *(("optimizer", v) for v in ("zap", 5, ["sgd"])),
    *(("lr", v) for v in ("x", 0, None, [1], float("nan"))),
    *(("momentum", v) for v in ("x", 0.9, [1])),
    *(("weight_decay", v) for v in ("x", -1, None)),
    *(("schedule", v) for v in (7, "zap", ["step"])),
    *(("augment", v) for v in (5, None, "zap", "shift:x", "rotate:inf")),
    *(("seed", v) for v in (-1, "x", 10**400)),
    *(("device", v) for v in (5, None, ["numpy"], "zap")),
]


@pytest.mark.parametrize(("name", "value"), SETTINGS)
def test_a_setting_with_a_wrong_value(capsys, altered, name, value):
    path = altered(put(*RUN, "settings", name, value=value))
    said = refused(capsys, "train", "--resume", path, "--quiet")
    if value != "zap":
        assert str(path) in said
        assert name in said


WRONG = {
    "nested": lambda about: NESTED,
    "settings of nothing": put(*RUN, "settings", value=[]),
    "random numbers": put("random", value=5),
    "random counters": put("random", "seed", value="x"),
    "random devices": put("random", "devices", value={"numpy": [0]}),
    "optimizer": put("optimizer", value=5),
    "optimizer's groups": put("optimizer", "groups", value=[5]),
    "optimizer's rate": put("optimizer", "groups", 0, "lr", value="x"),
    "no training": put(*TRAINING, value={}),
    "training is a list": put(*TRAINING, value=[1]),
    "schedule": put(*TRAINING, "schedule", value=7),
    "schedule's steps": put(*TRAINING, "schedule", "t", value="x"),
    "schedule's steps to come": put(*TRAINING, "schedule", "t", value=-1),
    "schedule's rates": put(*TRAINING, "schedule", "bases", value=["x"]),
    "loader": put(*TRAINING, "loader", value=5),
    "loader's epoch": put(*TRAINING, "loader", "epoch", value="x"),
    "history": put(*TRAINING, "history", value=5),
    "history of numbers": put(*TRAINING, "history", value=[1, 2]),
    "history's epochs": put(*TRAINING, "history", 0, "epoch", value=7),
    "history's values": put(*TRAINING, "history", 1, "seconds", value="x"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_run_with_wrong_values_is_not_resumed(capsys, altered, what):
    path = altered(WRONG[what])
    before = path.read_bytes()
    assert str(path) in refused(capsys, "train", "--resume", path, "--quiet")
    assert path.read_bytes() == before


UNUSABLE = {
    "nested": lambda about: NESTED,
    "run": put(*RUN, value=5),
    "plan": put(*RUN, "plan", value=[]),
    "model": put(*RUN, "plan", "model", value=5),
    "sizes": put(*RUN, "plan", "sizes", value=["x"]),
    "no sizes": put(*RUN, "plan", "sizes", value=[]),
    "huge sizes": put(*RUN, "plan", "sizes", value=[64, 10**14, 10]),
    "options": put(*RUN, "plan", "options", value={"zap": 1}),
    "shape": put(*RUN, "plan", "shape", value=[8, 8]),
    "shape of words": put(*RUN, "plan", "shape", value=["x", 8, 1]),
    "classes": put(*RUN, "plan", "classes", value=[1, 2]),
    "data": put(*RUN, "settings", "data", value=["x"]),
    "normalize": put(*TRAINING, "normalize", value=5),
    "no normalize": put(*TRAINING, "normalize", value=None),
    "means": put(*TRAINING, "normalize", "mean", value=["x"]),
    "history": put(*TRAINING, "history", value=5),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_a_run_with_wrong_values_is_not_tested(capsys, altered, what):
    path = altered(UNUSABLE[what])
    assert str(path) in refused(capsys, "eval", path, "--device", "numpy", "--quiet")


# numbers without measure --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word",
    ["rotate:inf", "rotate:1e9", "rotate:nan", "shift:1e300", "shift:inf", "crop:99999"]
    + ["elastic:1e30", "elastic:inf", "elastic:-1", "flip:inf"],
)
def test_augmentations_keep_within_bounds(capsys, tmp_path, word):
    said = refused(capsys, "train", "mlp", *FAST, "--augment", word, "--out", tmp_path / "a")
    assert f"--augment {word}: augment: " in said
    assert len(said) < 150
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("model", ["mlp", "lenet5", "alexnet", "vgg11", "googlenet", "resnet18"])
def test_a_summary_takes_no_memory_for_classes(capsys, model):
    """A hundred trillion of them: a list of their names would not fit."""
    code, out, _ = ran(capsys, "summary", model, "--classes", 10**14)
    assert code == 0
    total = next(line for line in out.splitlines() if line.startswith("total"))
    assert int(total.split()[1].replace(",", "")) > 10**14


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["summary", "alexnet", "--classes", "1" + "0" * 400], "--classes: a whole number below"),
        (["summary", "lenet5", "--input", "1" + "0" * 400 + ",28,1"], "--input: whole numbers"),
        (["train", "mlp", *FAST, "--size", "9" * 400], "--size: whole numbers"),
        (["train", "mlp", *FAST, "--epochs", "9" * 400], "--epochs: a whole number below 2^63"),
        (["train", "mlp", *FAST, "--seed", str(2**63)], "--seed: a whole number below 2^63"),
    ],
)
def test_numbers_too_large_to_count_are_one_sentence(capsys, tmp_path, arguments, part):
    more = ["--out", tmp_path / "a"] if arguments[0] == "train" else []
    assert part in refused(capsys, *arguments, *more)


# names that are no text ---------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes on Linux")
def test_a_folder_whose_name_is_no_text(tmp_path):
    """The bytes come back out of run.json, and the checkpoint can be resumed and tested."""
    out = os.fsencode(tmp_path) + b"/r\xff"
    assert command("train", "mlp", *FAST, "--epochs", "1", "--out", out).returncode == 0
    with open(out + b"/run.json") as file:
        about = json.load(file)
    assert os.fsencode(about["command"][-1]) == out
    done = command("eval", out, "--device", "numpy")
    assert (done.returncode, done.stderr) == (0, b"")
    data = os.fsencode(tmp_path) + b"/d\xff.npz"
    with open(data, "wb") as file:
        np.savez(file, images=np.zeros((40, 8, 8), np.uint8), labels=np.arange(40) % 4)
    again = out + b"2"
    done = command("train", "mlp", *FAST, "--epochs", "1", "--data", data, "--out", again)
    assert (done.returncode, done.stderr) == (0, b"")
    refusal = command("train", "mlp", *FAST, "--out", out)
    assert refusal.returncode == 2
    assert b"r\\udcff is not empty" in refusal.stderr


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}],
)
def test_a_name_that_the_terminal_cannot_show(tmp_path, environment):
    out = os.fsencode(tmp_path / "D\N{LATIN SMALL LETTER U WITH DIAERESIS}")
    done = command("train", "mlp", *FAST, "--epochs", "1", "--out", out, **environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"out     " in done.stdout
    assert done.stdout.rstrip().endswith((b"D\\xfc", b"D\\udcc3\\udcbc"))


def command(*arguments, timeout=None, **environment):
    run = [sys.executable, "-m", "deepkit", *arguments]
    env = os.environ | environment
    return subprocess.run(run, env=env, capture_output=True, check=False, timeout=timeout)


def test_a_line_that_a_stream_cannot_hold_is_escaped():
    stream = io.TextIOWrapper(io.BytesIO(), "ascii", write_through=True)
    print_line("D\xfc", stream)
    assert stream.buffer.getvalue().decode().splitlines() == ["D\\xfc"]


# files that are none ------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
@pytest.mark.parametrize(
    "name",
    ["d.npz", "train-images-idx3-ubyte", "data_batch_1.bin", "folder/data_batch_1.bin.gz"]
    + ["folder/a/x.png", "folder/a/y.jpg", "checkpoint.safetensors"],
)
def test_a_pipe_is_not_waited_on(tmp_path, name):
    """In a process of its own, which can be ended where it waits."""
    pipe = tmp_path / name
    pipe.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(pipe)
    given = tmp_path / "folder" if "folder" in name else pipe
    if name.endswith("safetensors"):
        runs = [("eval", given), ("train", "--resume", given)]
    else:
        runs = [("train", "mlp", "--data", given, "--out", tmp_path / "a")]
    for arguments in runs:
        done = command(*arguments, timeout=30)
        assert done.returncode == 2
        assert done.stderr.decode().count("\n") == 1
        assert os.fsencode(pipe) in done.stderr
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(os.name != "posix", reason="limits of a process are POSIX's")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["eval", "--help"], []])
@pytest.mark.parametrize("buffered", ["", "1"])
def test_help_that_cannot_be_written_is_no_success(tmp_path, arguments, buffered):
    """The process may write no byte into a file, as on a disk that is full."""
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "from deepkit.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    run = [sys.executable, "-c", code, *arguments]
    env = {**os.environ, "PYTHONUNBUFFERED": buffered, "PYTHONDONTWRITEBYTECODE": "1"}
    with open(tmp_path / "out", "w") as out:
        done = subprocess.run(run, stdout=out, stderr=subprocess.PIPE, text=True, env=env)
    assert done.returncode == 2
    assert "the output cannot be written (File too large)" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_run_that_diverges_or_is_cut_leaves_the_earlier_one(capsys, tmp_path, monkeypatch):
    out = tmp_path / "a"
    assert train(capsys, out, "--quiet")[0] == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    more = ["--optimizer", "sgd", "--lr", "1e38", "--schedule", "constant", "--overwrite"]
    assert "the loss became" in refused(capsys, "train", "mlp", *FAST, "--out", out, *more)
    monkeypatch.setattr(RunFolder, "on_epoch_end", interrupted)
    code, _, err = train(capsys, out, "--overwrite", "--quiet")
    assert code == 130
    assert "holds the earlier run still" in err
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def interrupted(self, run):
    raise KeyboardInterrupt
