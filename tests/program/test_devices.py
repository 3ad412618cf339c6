"""One seed, one training run, whatever the device: the same losses, and the same run again."""

from __future__ import annotations

import numpy as np
import pytest
from test_capture import DEVICES, Net, lenet, training

import deepkit as dk


def losses(make, device, steps=20, capture=True, optimiser="sgd"):
    images, labels = dk.data.digits("train", size=28 if make is lenet else 8)
    with dk.device(device):
        _, step, _ = training(make, device, optimiser)
        loader = dk.data.Loader(images, labels, 32, seed=3)
        step = dk.capture(step) if capture else step
        return np.array(
            [step(x, y).item() for (x, y), _ in zip(loader, range(steps), strict=False)]
        )


class DropNet(Net):
    """Ten classes for the digits; dropout and batch norm as in Net."""

    def __init__(self) -> None:
        super().__init__()
        self.out = dk.nn.Linear(64, 10)


@pytest.mark.parametrize("make", [lenet, DropNet])
@pytest.mark.parametrize("device", [d for d in DEVICES if d != "numpy"])
def test_every_device_gives_the_losses_of_numpy(make, device):
    """Dropout included: masks come from counters, not from a device's own generator."""
    np.testing.assert_allclose(losses(make, device), losses(make, "numpy"), rtol=1e-4)


@pytest.mark.parametrize("capture", [True, False])
@pytest.mark.parametrize("device", DEVICES)
def test_a_run_repeats_bit_for_bit(device, capture):
    first = losses(DropNet, device, capture=capture)
    assert first.tobytes() == losses(DropNet, device, capture=capture).tobytes()
    assert first[-1] < first[0]
