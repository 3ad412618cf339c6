"""Whole trainings on the simulator: the same program as on the other devices."""

import numpy as np
import pytest

import deepkit as dk
from deepkit import nn

if "cuda-sim" not in dk.devices():
    pytest.skip("no C++ compiler here", allow_module_level=True)


def losses(device, steps, *, captured, model_of, size, optimizer=dk.optim.SGD, **options):
    dk.seed(0)
    images, labels = dk.data.digits("train", size=size)
    with dk.device(device):
        model = model_of()
        optimizer = optimizer(model.parameters(), **options)

        def step(x, y):
            loss = dk.ops.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        step = dk.capture(step) if captured else step
        found = []
        for i in range(steps):
            part = slice(8 * i, 8 * i + 8)
            x = dk.tensor(images[part].astype(np.float32) / 255)
            found.append(step(x, dk.tensor(labels[part])).item())
    return found


LENET = dict(model_of=dk.models.lenet5, size=28, lr=0.05, momentum=0.9)


def test_lenet5_learns_as_on_numpy():
    wanted = losses("numpy", 20, captured=False, **LENET)
    found = losses("cuda-sim", 20, captured=False, **LENET)
    assert wanted[-1] < wanted[0]
    assert np.max(np.abs(np.subtract(found, wanted)) / np.abs(wanted)) < 1e-3


def test_a_captured_training_gives_the_same_bits():
    eager = losses("cuda-sim", 6, captured=False, **LENET)
    assert losses("cuda-sim", 6, captured=True, **LENET) == eager


def small():
    """Batch norm, a stride, groups, dropout, softmax over channels: what LeNet-5 has not."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8), nn.LayerNorm(8), nn.GELU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(128, 10),
    )  # fmt: skip


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "RMSprop", "Adagrad"])
def test_other_layers_and_optimisers(optimizer):
    options = dict(model_of=small, size=16, optimizer=getattr(dk.optim, optimizer), lr=0.01)
    wanted = losses("numpy", 8, captured=False, **options)
    found = losses("cuda-sim", 8, captured=False, **options)
    assert np.max(np.abs(np.subtract(found, wanted)) / np.abs(wanted)) < 1e-3
    assert losses("cuda-sim", 8, captured=True, **options) == found


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float16"])
def test_training_on_tensor_cores(precision):
    wanted = losses("numpy", 10, captured=False, **LENET)
    with dk.precision(precision):
        found = losses("cuda-sim", 10, captured=True, **LENET)
    assert found != wanted
    assert np.max(np.abs(np.subtract(found, wanted)) / np.abs(wanted)) < 0.03


def test_the_command_line(tmp_path, capsys):
    from deepkit.cli import main

    images, labels = dk.data.digits("train", size=8)
    data = tmp_path / "few.npz"
    np.savez(data, images=images[:240], labels=labels[:240])
    command = ["train", "mlp", "--data", str(data), "--device", "cuda-sim", "--epochs", "3"]
    assert main([*command, "--out", str(tmp_path / "run"), "--seed", "1"]) == 0
    said = capsys.readouterr().out
    assert "cuda-sim" in said
    assert (tmp_path / "run" / "checkpoint.safetensors").exists() or list(
        (tmp_path / "run").iterdir()
    )
