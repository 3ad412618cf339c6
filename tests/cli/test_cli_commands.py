"""The command line: what it prints, what it leaves, its exit codes."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cli.commands import FAST, ran, refused, train

import deepkit as dk
from deepkit import backends, checkpoint
from deepkit.cli import COMMANDS, main
from deepkit.cli.settings import complete
from deepkit.cli.train import DEFAULTS, guessed
from deepkit.train import RunFolder

# help and usage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(capsys, command):
    code, out, _ = ran(capsys, command, "--help")
    assert code == 0
    assert f"  deepkit {command}" in out.partition("examples:")[2]


def test_help_and_version_without_a_command(capsys):
    code, out, _ = ran(capsys, "--help")
    assert code == 0
    assert all(command in out for command in COMMANDS)
    assert ran(capsys, "--version")[:2] == (0, f"deepkit {dk.__version__}\n")
    code, out, _ = ran(capsys)
    assert code == 2
    assert "COMMAND" in out


@pytest.mark.parametrize("command", ["train", "summary"])
def test_help_lists_the_models(capsys, command):
    words = ran(capsys, command, "--help")[1].replace(",", " ").split()
    assert set(dk.models.names()) <= set(words)


def test_help_says_when_more_epochs_are_possible(capsys):
    text = " ".join(ran(capsys, "train", "--help")[1].split())
    assert "with more --epochs only where the schedule is constant" in text


def test_help_of_the_examples_names_options_that_exist(capsys):
    """Every example's options are in the same help text."""
    for command in COMMANDS:
        _, text, _ = ran(capsys, command, "--help")
        options, _, examples = text.partition("examples:")
        used = {word for word in examples.split() if word.startswith("--")}
        assert all(option in options for option in used)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["trian"], ["unknown command 'trian'", "did you mean train?"]),
        (["train"], ["which model?"]),
        (["train", "lenet6"], ["unknown model 'lenet6'", "did you mean lenet5?", "resnet20"]),
        (["train", "mlp", "--epoch", "3"], ["unknown option --epoch", "did you mean --epochs?"]),
        (["train", "mlp", "3"], ["unknown argument 3"]),
        (["train", "mlp", "--epochs", "0"], ["--epochs", "at least 1", "'0'"]),
        (["train", "mlp", "--batch-size", "x"], ["--batch-size", "'x'"]),
        (["train", "mlp", "--lr", "-1"], ["--lr", "above 0", "'-1'"]),
        (["train", "mlp", "--lr", "nan"], ["--lr", "above 0", "'nan'"]),
        (["train", "mlp", "--optimizer", "lion"], ["--optimizer", "lion", "adamw"]),
        (["train", "mlp", "--label-smoothing", "1.5"], ["--label-smoothing", "at most 1", "'1.5'"]),
        (["train", "--recipe", "mnist-98"], ["unknown recipe 'mnist-98'", "mean mnist-99?"]),
        (["train", "--recipe", "mnist-99", "--optimizer", "sgd", "--momentum", "x"], ["'x'"]),
        (["train", "mlp", "--momentum", "0.9"], ["--momentum is for sgd and rmsprop"]),
        (["train", "mlp", "--device", "tpu"], ["unknown device 'tpu'", "numpy"]),
        (["train", "mlp", "--device", "numba:3"], ["unknown device 'numba:3'", "numpy"]),
        (["train", "mlp", "--root", "."], ["--root has no effect", "digits"]),
        (["train", "mlp", *FAST, "--size", "100000000"], ["GiB"]),
        (["train", "mlp", "--augment", "shfit"], ["'shfit'", "did you mean shift?"]),
        (["train", "mlp", "--augment", "flip:2"], ["flip:2", "[0, 1]"]),
        (["train", "mlp", "--augment", "shift:x"], ["shift:x", "a number (pixels)"]),
        (["train", "mlp", "--augment", "shift:1.5"], ["shift:1.5", "whole number"]),
        (["train", "mlp", "--data", "minst"], ["'minst'", "did you mean 'mnist'?"]),
        (["train", "mlp", "--data", "mnist", "--root", "nowhere"], ["nowhere does not exist"]),
        (["train", "mlp", "--resume", "nowhere.safetensors"], ["nowhere", "does not exist"]),
        (["train", "mlp", "--resume", "x", "--overwrite"], ["choose one"]),
        (["eval", "nowhere"], ["nowhere does not exist"]),
        (["eval"], ["CHECKPOINT"]),
        (["summary", "lenet6"], ["unknown model 'lenet6'"]),
        (["summary", "lenet5", "--input", "28"], ["height, width and channels"]),
        (["summary", "lenet5", "--input", "28,x,1"], ["28,28,1", "'28,x,1'"]),
        (["summary", "lenet5", "--input", "9,9,1"], ["conv2d", "height 4"]),
    ],
)
def test_bad_usage_is_one_sentence(capsys, tmp_path, monkeypatch, arguments, parts):
    monkeypatch.chdir(tmp_path)
    sentence = refused(capsys, *arguments)
    assert sentence.startswith("deepkit")
    for part in parts:
        assert part in sentence
    assert not list(tmp_path.iterdir())


def test_bugs_are_not_dressed_up_as_bad_input(capsys, monkeypatch):
    monkeypatch.setattr(backends, "why_not", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["devices"])


# devices and summary ------------------------------------------------------------------------------


def test_devices_says_which_work_and_why_others_do_not(capsys, monkeypatch):
    def create(name):
        raise backends.DeviceError("no such processor was found")

    broken = type(sys)("broken")
    broken.create = create
    monkeypatch.setitem(sys.modules, "broken", broken)
    monkeypatch.setitem(backends.HOMES, "wish", "broken")
    code, out, _ = ran(capsys, "devices")
    assert code == 0
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["numpy"].startswith("works")
    assert lines["wish"] == "does not work: no such processor was found"


def test_summary_counts_the_parameters_of_lenet(capsys):
    code, out, _ = ran(capsys, "summary", "lenet5")
    assert code == 0
    assert "61,706" in out
    _, out, _ = ran(capsys, "summary", "lenet5", "--input", "32,32,3", "--classes", 26)
    assert f"{61_706 + 2 * 150 + 16 * 85:,}" in out  # in c1, and in the last layer


def test_summary_of_a_large_model_takes_no_memory(capsys):
    code, out, _ = ran(capsys, "summary", "vgg16")
    assert code == 0
    assert "138,357,544" in out


# train --------------------------------------------------------------------------------------------


def test_a_run_prints_a_table_and_leaves_its_folder(finished):
    out, text = finished
    assert "digits: 1,437 training and 360 test images of 8x8x1, 10 classes" in text
    assert "device  numpy" in text
    table = [line for line in text.splitlines() if line.strip()[:2] in ("1 ", "2 ")]
    assert len(table) == 2
    names = ["checkpoint.safetensors", "errors.png", "learning_curves.png", "metrics.csv"]
    names += ["metrics.jsonl", "run.json"]
    assert sorted(p.name for p in out.iterdir()) == names
    about = json.loads((out / "run.json").read_text())
    assert about["settings"]["optimizer"] == "adamw"
    assert about["settings"]["seed"] == 0
    assert about["device"] == "numpy"


def test_auto_says_what_it_chose(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "PREFERENCE", ("wish", "numpy"))
    monkeypatch.setitem(backends.HOMES, "wish", "deepkit.nothing")
    monkeypatch.setattr(
        backends, "why_not", lambda name: "it is only a wish" if name == "wish" else None
    )
    backends._made.pop("auto", None)
    code, out, _ = ran(capsys, "train", "mlp", "--epochs", 1, "--out", tmp_path / "a")
    assert code == 0
    assert "device  numpy (chosen by auto; wish: it is only a wish)" in out


def test_quiet_prints_nothing(capsys, tmp_path):
    assert train(capsys, tmp_path / "a", "--quiet") == (0, "", "")
    assert (tmp_path / "a" / "metrics.csv").exists()


def test_the_same_seed_gives_the_same_weights_and_no_capture_too(capsys, tmp_path):
    for name, more in (("a", []), ("b", ["--no-capture"]), ("c", ["--seed", 1])):
        assert train(capsys, tmp_path / name, "--quiet", *more)[0] == 0
    a, b, c = (checkpoint.load(tmp_path / n / "checkpoint.safetensors").model for n in "abc")
    assert all(a[name].tobytes() == b[name].tobytes() for name in a)
    assert any(a[name].tobytes() != c[name].tobytes() for name in a)


@pytest.mark.parametrize(
    "recipe",
    [
        ["--optimizer", "sgd", "--momentum", 0.8, "--schedule", "step", "--weight-decay", 1e-4],
        ["--optimizer", "adam", "--schedule", "cosine", "--lr", 0.001],
        ["--optimizer", "rmsprop", "--schedule", "constant", "--augment", "shift:1,rotate"],
        ["--optimizer", "adagrad", "--augment", "elastic,crop:1,flip:0.1"],
        ["--label-smoothing", 0.1],
    ],
)
def test_every_part_of_a_recipe_trains(capsys, tmp_path, recipe):
    assert train(capsys, tmp_path / "a", *recipe)[0] == 0
    rows = [json.loads(x) for x in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert rows[1]["train_loss"] < rows[0]["train_loss"]


def test_lenet_sees_the_digits_enlarged(capsys, tmp_path):
    arguments = ["--device", "numpy", "--epochs", 1, "--batch-size", 512, "--out", tmp_path / "a"]
    code, out, _ = ran(capsys, "train", "lenet5", *arguments)
    assert code == 0
    assert "of 28x28x1" in out


# what a folder goes through -----------------------------------------------------------------------


def test_a_run_is_not_overwritten_unless_asked(capsys, finished, tmp_path):
    out, _ = finished
    before = (out / "checkpoint.safetensors").read_bytes()
    sentence = refused(capsys, "train", "mlp", *FAST, "--out", out)
    assert "--overwrite" in sentence
    assert "--resume" in sentence
    assert (out / "checkpoint.safetensors").read_bytes() == before
    assert train(capsys, tmp_path / "a", "--quiet")[0] == 0
    assert train(capsys, tmp_path / "a", "--quiet", "--overwrite", "--seed", 3)[0] == 0
    assert json.loads((tmp_path / "a" / "run.json").read_text())["settings"]["seed"] == 3


def test_a_folder_that_cannot_be_made_is_one_sentence(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert str(out) in refused(capsys, "train", "mlp", *FAST, "--out", out)


def test_a_full_disk_is_one_sentence(tmp_path):
    """The process may write no file above 20 kB: the checkpoint does not fit."""
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from deepkit.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    run = [sys.executable, "-c", code, "train", "mlp", *FAST, "--out", tmp_path / "a", "--quiet"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot be written" in done.stderr
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["run.json"]


def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(capsys, tmp_path, monkeypatch):
    """Through the command line, with augmentation and a schedule."""
    options = [*FAST, "--epochs", 5, "--augment", "shift:1", "--quiet"]
    assert ran(capsys, "train", "mlp", *options, "--out", tmp_path / "whole")[0] == 0

    def interrupt(self, run):
        original(self, run)
        if run.epoch == 2:
            raise KeyboardInterrupt

    original = RunFolder.on_epoch_end
    monkeypatch.setattr(RunFolder, "on_epoch_end", interrupt)
    code, _, err = ran(capsys, "train", "mlp", *options, "--out", tmp_path / "cut")
    monkeypatch.undo()
    assert code == 130
    assert "up to epoch 2" in err
    command = err.partition("go on with: ")[2].split()
    assert command[0] == "deepkit"
    assert ran(capsys, *command[1:], "--quiet")[0] == 0

    whole, cut = (
        checkpoint.load(tmp_path / n / "checkpoint.safetensors") for n in ("whole", "cut")
    )
    assert all(whole.model[k].tobytes() == cut.model[k].tobytes() for k in whole.model)
    states = (whole.optimizer["state"], cut.optimizer["state"])
    assert all(states[0][k].tobytes() == states[1][k].tobytes() for k in states[0])
    assert whole.random == cut.random
    assert len((tmp_path / "cut" / "metrics.csv").read_text().splitlines()) == 6


def test_control_c_leaves_a_whole_folder_and_says_how_to_go_on(capsys, tmp_path):
    out = tmp_path / "a"
    run = [sys.executable, "-m", "deepkit", "train", "mlp", *FAST, "--out", out]
    run += ["--epochs", "100000", "--schedule", "constant", "--lr", "0.0001"]
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    checkpoint_file = out / "checkpoint.safetensors"
    for _ in range(600):
        if checkpoint_file.exists():
            break
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "go on with: deepkit train --resume" in err
    assert "Traceback" not in err
    rows = checkpoint.load(checkpoint_file).extra["training"]["history"]
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, len(lines) + 1))
    assert len(rows) - len(lines) in (0, 1)  # cut between the two files at worst
    more = ["--epochs", len(rows) + 1, "--quiet"]
    assert ran(capsys, "train", "--resume", out, *more)[0] == 0
    assert len((out / "metrics.jsonl").read_text().splitlines()) == len(rows) + 1


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["--lr", "1"], ["--lr cannot be 1", "has 0.003"]),
        (["--seed", "1"], ["--seed cannot be 1", "has 0"]),
        (["--epochs", "9"], ["--epochs cannot be 9", "its schedule"]),
        (["--batch-size", "9"], ["--batch-size cannot be 9", "has 256"]),
        (["--data", "mnist"], ["--data cannot be mnist", "has digits"]),
    ],
)
def test_what_a_run_is_cannot_change_when_it_is_resumed(capsys, finished, more, parts):
    sentence = refused(capsys, "train", "--resume", finished[0], *more)
    for part in parts:
        assert part in sentence


def test_a_checkpoint_of_another_model_is_refused(capsys, finished):
    assert "has mlp" in refused(capsys, "train", "lenet5", "--resume", finished[0])


def test_a_finished_run_is_resumed_to_no_effect(capsys, finished):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in finished[0].iterdir()}
    code, out, _ = ran(capsys, "train", "mlp", "--resume", finished[0])
    assert code == 0
    assert out == (
        f"nothing to do: the run in {finished[0]} has done all of its 2 epochs; its schedule, "
        "onecycle, ends there\n"
    )
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in finished[0].iterdir()}
    assert after == before
    assert ran(capsys, "train", "--resume", finished[0], "--quiet")[:2] == (0, "")


def test_a_run_cut_after_its_last_epoch_gets_what_it_lacks(capsys, tmp_path, monkeypatch):
    """Killed while it drew its pictures: resumed, it has no epoch to go, and comes to its end."""
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "on_train_end", lambda self, run: None)
        assert train(capsys, tmp_path / "r", "--schedule", "constant")[0] == 0
    assert "finished" not in json.loads((tmp_path / "r" / "run.json").read_text())
    code, out, _ = ran(capsys, "train", "--resume", tmp_path / "r")
    assert code == 0
    assert f"{tmp_path / 'r' / 'checkpoint.safetensors'} has done all of its 2 epochs" in out
    assert "finished" in json.loads((tmp_path / "r" / "run.json").read_text())
    assert "2 epochs; --epochs N goes on\n" in ran(capsys, "train", "--resume", tmp_path / "r")[1]
    code, out, _ = ran(capsys, "train", "--resume", tmp_path / "r", "--epochs", 3)
    assert "after 3 epochs" in out


# eval ---------------------------------------------------------------------------------------------


def test_eval_finds_what_the_run_found(capsys, finished, tmp_path):
    out, _ = finished
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    picture = tmp_path / "e.png"
    more = ["--device", "numpy", "--errors", picture]
    code, text, _ = ran(capsys, "eval", out / "checkpoint.safetensors", *more)
    assert code == 0
    assert text.splitlines()[-1] == (
        f"loss {last['test_loss']:.5f}, accuracy {last['test_accuracy']:.2%}, "
        f"{last['errors']} errors of 360"
    )
    assert picture.stat().st_size > 1000
    assert "exists already" in refused(capsys, "eval", out, *more)
    code, text, _ = ran(capsys, "eval", out, "--device", "numpy", "--split", "all", "--quiet")
    assert code == 0
    assert text.endswith("errors of 1,797\n")


def test_eval_refuses_data_that_do_not_fit(capsys, finished, tmp_path):
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (20, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "colour.npz", images=colour, labels=np.arange(20) % 10)
    sentence = refused(capsys, "eval", finished[0], "--data", tmp_path / "colour.npz")
    assert "3 channels" in sentence
    assert "8x8x1" in sentence
    np.savez(tmp_path / "many.npz", images=colour[..., :1], labels=np.arange(20))
    sentence = refused(capsys, "eval", finished[0], "--data", tmp_path / "many.npz")
    assert "20 classes (0 to 19)" in sentence
    assert "10 classes (0 to 9)" in sentence


def test_a_checkpoint_of_weights_alone_is_refused(capsys, tmp_path):
    dk.seed(0)
    checkpoint.save(tmp_path / "w.safetensors", dk.models.mlp(4, 2))
    sentence = refused(capsys, "eval", tmp_path / "w.safetensors")
    assert "its model is unknown; in Python, dk.load_model(path, model) gives" in sentence
    sentence = refused(capsys, "train", "mlp", "--resume", tmp_path / "w.safetensors")
    assert "was not written by" in sentence


def test_a_damaged_checkpoint_is_one_sentence(capsys, finished, tmp_path):
    whole = (finished[0] / "checkpoint.safetensors").read_bytes()
    for name, content in (("cut", whole[:-100]), ("empty", b""), ("text", b"hello " * 99)):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        assert str(path) in refused(capsys, "eval", path)
        assert str(path) in refused(capsys, "train", "--resume", path)


def test_an_incomplete_checkpoint_is_one_sentence(capsys, finished, tmp_path, monkeypatch):
    """Whole, with the right checksum, but written by something else."""
    whole = checkpoint.load(finished[0] / "checkpoint.safetensors")
    for part in ("run", "training"):
        extra = {**whole.extra, part: {"not": "much"}}
        model = dk.nn.Linear(4, 2)
        path = tmp_path / f"{part}.safetensors"
        checkpoint.save(path, model, **extra)
        assert str(path) in refused(capsys, "eval", path)
    assert "records" in refused(capsys, "train", "--resume", tmp_path / "run.safetensors")

    monkeypatch.setattr(checkpoint.json, "loads", lambda text: {"format": 1})
    with pytest.raises(checkpoint.CheckpointError, match="description is incomplete"):
        checkpoint.load(path)


def test_eval_does_not_test_for_a_picture_that_cannot_be_written(capsys, finished, tmp_path):
    sentence = refused(capsys, "eval", finished[0], "--errors", tmp_path / "no" / "errors.png")
    assert "there is no folder" in sentence


def test_an_exploding_run_says_so_and_keeps_its_last_checkpoint(capsys, tmp_path):
    more = ["--optimizer", "sgd", "--lr", "1e38", "--schedule", "constant"]
    sentence = refused(capsys, "train", "mlp", *FAST, "--out", tmp_path / "a", *more)
    assert "the loss became" in sentence
    assert "epoch 1, batch" in sentence
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["run.json"]


def test_a_run_that_learned_nothing_says_what_to_try(capsys, tmp_path):
    hint = "no better than guessing, which gets 10.28%: try a smaller --lr (it was 1e-09) or more"
    assert hint in train(capsys, tmp_path / "a", "--lr", "1e-9")[1]
    assert hint not in train(capsys, tmp_path / "b", "--lr", "1e-9", "--quiet")[1]
    assert "guessing" not in train(capsys, tmp_path / "c")[1]
    labels = np.repeat([0, 1], [90, 10])
    assert guessed(labels, 8, 0.1)  # 92 are right, 90 without looking, give or take 3
    assert not guessed(labels, 6, 0.1)
    assert not guessed(labels[:9], 0, 0.1)  # a single class


@pytest.mark.parametrize("model, rate", [("vgg16", 3e-4), ("googlenet", 3e-4), ("lenet5", 3e-3)])
def test_deep_nets_without_batch_norm_get_a_smaller_rate(model, rate):
    settings = complete({**DEFAULTS, "model": model})
    assert settings["lr"] == pytest.approx(rate)


def test_two_runs_do_not_share_a_folder(capsys, tmp_path):
    folder = RunFolder(tmp_path, overwrite=True)
    folder._hold()
    try:
        sentence = refused(capsys, "train", "mlp", *FAST, "--out", tmp_path, "--overwrite")
        assert "another run is writing" in sentence
        assert not list(tmp_path.iterdir())
    finally:
        folder.close()
    assert train(capsys, tmp_path)[0] == 0


@pytest.mark.skipif(os.name != "posix", reason="shells of POSIX close streams like this")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_outputs_are_no_traceback(tmp_path, closed):
    command = f"'{sys.executable}' -m deepkit summary lenet5 {closed}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Traceback" not in done.stdout + done.stderr


def test_the_command_imports_lazily():
    code = "import sys\nfrom deepkit.cli import main\nmain(['summary', 'lenet5'])\n"
    code += "print(*sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numba", "matplotlib", "PIL", "torch", "requests", "pooch", "cupy"}
    assert not heavy & set(done.stderr.split())


def test_a_reader_that_goes_away_is_no_traceback():
    read, write = os.pipe()
    os.close(read)
    run = [sys.executable, "-m", "deepkit", "summary", "resnet110"]
    done = subprocess.run(run, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert "Traceback" not in done.stderr
    assert done.returncode != 0
