"""Checkpoints: what is saved comes back, bit for bit, and a file is whole or there is an error."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import deepkit as dk
from deepkit import checkpoint, nn, optim
from deepkit.checkpoint import CheckpointError


def net(seed=0, width=8):
    dk.seed(seed)
    return nn.Sequential(
        nn.Linear(4, width, activation="relu"),
        nn.BatchNorm1d(width),
        nn.Dropout(0.4),
        nn.Linear(width, 3),
    )


def make(seed=0):
    model = net(seed)
    opt = optim.Adam(
        [
            {"params": model[0].parameters(), "weight_decay": 0.1},
            {"params": [*model[1].parameters(), *model[3].parameters()], "lr": 0.02},
        ],
        lr=0.01,
    )
    return model, opt, optim.LinearWarmup(opt, 3, after=optim.CosineLR(opt, 10))


BATCHES = np.random.default_rng(1).standard_normal((9, 6, 4)).astype(np.float32)


def train(model, opt, schedule, batches, captured=False):
    def step(x):
        loss = (model(x) ** 2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        return loss

    step = dk.capture(step) if captured else step
    losses = []
    for x in batches:
        losses.append(step(dk.tensor(x)).item())
        schedule.step()
    return losses


@pytest.mark.parametrize("captured", [False, True])
def test_a_resumed_run_continues_bit_for_bit(tmp_path, captured):
    path = tmp_path / "run.safetensors"
    model, opt, schedule = make()
    losses = train(model, opt, schedule, BATCHES[:5], captured)
    checkpoint.save(path, model, opt, step=5, schedule=schedule.state_dict())
    losses += train(model, opt, schedule, BATCHES[5:], captured)
    end = model.state_dict()

    model, opt, schedule = make(seed=99)
    found = checkpoint.load(path)
    assert found.restore(model, opt) is found
    schedule.load_state_dict(found.extra["schedule"])
    resumed = train(model, opt, schedule, BATCHES[found.extra["step"] :], captured)
    assert resumed == losses[5:]
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(values, end[name])
    # and the random numbers of the host go on where they were
    assert dk.random.get_state()["host_draws"] == found.random["host_draws"]


def test_everything_comes_back(tmp_path):
    path = tmp_path / "a.safetensors"
    model, opt, schedule = make()
    train(model, opt, schedule, BATCHES[:2])
    extra = {"epoch": np.int64(3), "loss": 0.1, "options": {"sizes": [1, 2], "name": "née"}}
    checkpoint.save(path, model, opt, **extra)
    found = checkpoint.load(str(path))
    assert found.extra == {**extra, "epoch": 3}
    for name, values in model.state_dict().items():
        assert found.model[name].dtype == values.dtype
        np.testing.assert_array_equal(found.model[name], values)
    state = opt.state_dict()
    assert found.optimizer["kind"] == "Adam"
    assert found.optimizer["state"].keys() == state["state"].keys()
    for name, values in state["state"].items():
        np.testing.assert_array_equal(found.optimizer["state"][name], values)
    # any program that reads safetensors can read the weights
    np.testing.assert_array_equal(load_file(path)["model.3.bias"], model[3].bias.numpy())


def test_arrays_of_others_come_back(tmp_path):
    path = tmp_path / "a.safetensors"
    arrays = {"best.0.weight": np.arange(6.0).reshape(2, 3), "count": np.int64(7)}
    checkpoint.save(path, net(5), arrays=arrays, epoch=3)
    found = checkpoint.load(path)
    assert found.extra == {"epoch": 3}
    assert found.arrays.keys() == arrays.keys()
    for name, values in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], values)


def test_a_model_alone(tmp_path):
    path = tmp_path / "a.safetensors"
    model, opt, _ = make()
    checkpoint.save(path, model)
    found = checkpoint.load(path)
    assert found.optimizer is None
    other = net(5)
    found.restore(other)
    for name, values in other.state_dict().items():
        np.testing.assert_array_equal(values, found.model[name])
    with pytest.raises(CheckpointError, match="holds no state of an optimiser"):
        found.restore(model, opt)


def test_as_text_it_is_one_line_without_values(tmp_path):
    path = tmp_path / "a.safetensors"
    model, opt, _ = make()
    dk.save(path, model, opt, epoch=3, note="x")
    # two linear layers, and a batch norm with its running statistics: 40 + 32 + 27
    assert repr(dk.load(path)) == (
        f"<checkpoint '{path}': 8 tensors with 99 values; optimiser Adam; extra: epoch, note>"
    )
    dk.save(path, model)
    assert repr(dk.load(path)).endswith("; no optimiser; extra: nothing>")


def test_files_of_other_programs_are_models(tmp_path):
    path = tmp_path / "a.safetensors"
    state = net(3).state_dict()
    save_file(state, path, {"format": "pt"})
    found = checkpoint.load(path)
    assert found.extra == {}
    model = net(4)
    found.restore(model)
    np.testing.assert_array_equal(model[0].weight.numpy(), state["0.weight"])


def test_another_model_is_refused_and_stays_as_it_was(tmp_path):
    path = tmp_path / "a.safetensors"
    model, opt, _ = make()
    checkpoint.save(path, model, opt)
    other = net(1, width=5)
    before, seed = other.state_dict(), dk.random.get_state()
    with pytest.raises(CheckpointError) as error:
        checkpoint.load(path).restore(other)
    assert str(error.value).startswith(
        f"{path} is a checkpoint of another model: "
        "'0.weight' has shape (8, 4) where (5, 4) is expected, "
    )
    with pytest.raises(CheckpointError, match=r"another model: .*'1.running_mean' is not known"):
        checkpoint.load(path).restore(nn.Sequential(nn.Linear(4, 8)))
    model = net(2)
    values = model.state_dict()
    with pytest.raises(
        CheckpointError, match="another optimiser: the state is of Adam, not of SGD"
    ):
        checkpoint.load(path).restore(model, optim.SGD(model.parameters(), 0.1))
    with pytest.raises(CheckpointError, match=r"another optimiser: .* groups with \[2, 4\]"):
        checkpoint.load(path).restore(model, optim.Adam(model.parameters()))
    for module, kept in ((other, before), (model, values)):
        for name, v in module.state_dict().items():
            np.testing.assert_array_equal(v, kept[name])
    assert dk.random.get_state()["seed"] == 2
    assert seed["seed"] == 1


# damage -------------------------------------------------------------------------------------------


def header(text, data=b""):
    return struct.pack("<Q", len(text)) + text + data


TERABYTES = json.dumps(
    {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
).encode()
MORE = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()

FILES = {
    "empty": b"",
    "short": b"\x05\x00",
    "text": b"this is a text and no tensors at all, but long enough for a header",
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05hello\x94.",
    "header of terabytes": struct.pack("<Q", 2**42) + b"{}",
    "header longer than the file": struct.pack("<Q", 1000) + b"{}",
    "tensor of terabytes": header(TERABYTES, b"\0" * 16),
    "tensor longer than the file": header(MORE, b"\0" * 8),
    "no JSON": header(b"{what}"),
    "JSON, but a list": header(b"[1,2,3]"),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_checkpoint_is_one_sentence(tmp_path, kind):
    path = tmp_path / "a.safetensors"
    path.write_bytes(FILES[kind])
    with pytest.raises(CheckpointError) as error:
        checkpoint.load(path)
    said = str(error.value)
    assert said.startswith(f"{path} is damaged, or no safetensors file (")
    assert "\n" not in said


def test_missing_files_and_folders_are_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing\.safetensors does not exist"):
        checkpoint.load(tmp_path / "nothing.safetensors")
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors does not exist"):
        checkpoint.load(tmp_path)
    (tmp_path / "checkpoint.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="is no file"):
        checkpoint.load(tmp_path)


def test_any_truncation_is_noticed(tmp_path):
    path = tmp_path / "a.safetensors"
    model, opt, _ = make()
    checkpoint.save(path, model, opt)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            checkpoint.load(path)


def test_any_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "a.safetensors"
    model, opt, _ = make()
    checkpoint.save(path, model, opt, epoch=3)
    whole = path.read_bytes()
    start = 8 + struct.unpack("<Q", whole[:8])[0]
    rng = np.random.default_rng(0)
    for at in [*range(start), *rng.integers(start, len(whole), 50)]:
        flipped = bytearray(whole)
        flipped[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            found = checkpoint.load(path)
        except CheckpointError:
            continue
        # a flip that says the same: another space in the header's padding, for example
        checkpoint.save(tmp_path / "b.safetensors", model, opt, **found.extra)
        assert at < start
        for name, values in model.state_dict().items():
            np.testing.assert_array_equal(found.model[name], values)
        assert found.extra == {"epoch": 3}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1},
        {"seed": "one"},
        {"host_draws": 1.5},
        {"host_draws": 2**63},
        {"devices": {"numpy": [1]}},
        {"devices": {"numpy": [1, -1]}},
        {"devices": None},
    ],
    ids=str,
)
def test_random_counters_that_cannot_be_are_refused_when_read(tmp_path, change):
    path, before = tmp_path / "a.safetensors", dk.random.get_state()
    about = {"format": 1, "extra": {}, "random": {**before, **change}}
    text = json.dumps(about)
    save_file({}, path, {"deepkit": text, "crc32": checkpoint._digest({}, text)})
    with pytest.raises(CheckpointError, match="is no checkpoint of deepkit"):
        checkpoint.load(path)


def test_tensors_lie_aligned_in_the_file(tmp_path):
    """So that a reader may map them into memory."""
    path = tmp_path / "a.safetensors"
    for width in range(1, 6):
        model, opt, _ = make()
        model.steps = nn.Module()
        model.steps.register_buffer("seen", dk.tensor(np.zeros(width, np.uint8)))
        model.steps.register_buffer("count", dk.tensor(np.int64(7)))
        checkpoint.save(path, model, opt, note="x" * width)
        whole = path.read_bytes()
        (length,) = struct.unpack("<Q", whole[:8])
        assert length % 8 == 0
        sizes = {"F32": 4, "I64": 8, "U8": 1}
        for name, entry in json.loads(whole[8 : 8 + length]).items():
            if name != "__metadata__":
                assert entry["data_offsets"][0] % sizes[entry["dtype"]] == 0, name


def test_a_newer_format_says_so(tmp_path):
    path = tmp_path / "a.safetensors"
    text = json.dumps({"format": 99})
    save_file({}, path, {"deepkit": text, "crc32": checkpoint._digest({}, text)})
    with pytest.raises(CheckpointError, match="has format 99, but this deepkit reads up to 1"):
        checkpoint.load(path)


# writing ------------------------------------------------------------------------------------------


def test_what_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.safetensors"
    model = net()
    checkpoint.save(path, model, epoch=1)
    old = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"JSON cannot hold .* \(a Linear\)"):
        checkpoint.save(path, model, layer=model[0])
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_unusable_places_are_one_sentence(tmp_path):
    model = net()
    with pytest.raises(CheckpointError, match=r"there is no folder .*nowhere"):
        checkpoint.save(tmp_path / "nowhere" / "a.safetensors", model)
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"folder.safetensors cannot be written \("):
        checkpoint.save(tmp_path / "folder.safetensors", model)
    assert os.listdir(tmp_path) == ["folder.safetensors"]
    if Path("/proc/self").is_dir():  # where not even the superuser can write
        with pytest.raises(CheckpointError, match=r"/proc/self/a.safetensors cannot be written \("):
            checkpoint.save("/proc/self/a.safetensors", model)


def python(program, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


FULL = """
import resource, sys
import deepkit as dk
from deepkit import checkpoint, nn
model = nn.Linear(100, 100)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    checkpoint.save(sys.argv[1], model)
except checkpoint.CheckpointError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of a process are POSIX's")
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, nn.Linear(2, 2))
    old = path.read_bytes()
    said, _ = python(FULL, path).communicate(timeout=60)
    assert re.fullmatch(rf"{re.escape(str(path))} cannot be written \(.*\)\n", said), said
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["a.safetensors"]


ENDLESS = """
import sys
import numpy as np
from deepkit import checkpoint, nn
model = nn.Linear(500, 1000)
round = 0
while True:
    round += 1
    for p in model.parameters():
        p.write(np.full(p.shape, round))
    checkpoint.save(sys.argv[1], model, round=round)
    print(round, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX's")
def test_a_kill_at_any_time_leaves_a_whole_file(tmp_path):
    path = tmp_path / "a.safetensors"
    delays = np.random.default_rng(0).uniform(0, 0.05, 6)
    for delay in delays:
        process = python(ENDLESS, path)
        try:
            for _ in range(3):
                done = int(process.stdout.readline())
            time.sleep(delay)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        done = max([done, *map(int, process.stdout.read().split())])
        process.stdout.close()
        found = checkpoint.load(path)
        assert found.extra["round"] >= done
        for values in found.model.values():
            assert (values == found.extra["round"]).all()
    # what the kills left behind disappears with the next save
    checkpoint.save(path, nn.Linear(2, 2))
    assert os.listdir(tmp_path) == ["a.safetensors"]
