"""What an op says of values on the host, labels and indices, it says on a replay too."""

from __future__ import annotations

import numpy as np
import pytest

import deepkit as dk
from deepkit import nn, ops


@pytest.fixture(params=dk.devices())
def device(request):
    with dk.device(request.param):
        yield request.param


def trained():
    """A model, and its captured training step."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    optimizer = dk.optim.Adam(model.parameters(), lr=0.1)

    @dk.capture
    def step(x, labels):
        loss = ops.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return model, step


@pytest.mark.parametrize("dtype", ["int64", "int32", "int8", "uint8"])
@pytest.mark.parametrize("wrong", [3, -1, 127])
def test_a_replay_refuses_labels_as_the_step_does_and_changes_nothing(device, dtype, wrong):
    def run(steps):
        dk.seed(0)
        model, step = trained()
        x, losses = dk.ones(2, 4), []
        for labels in steps:
            if max(labels) > 2:
                with pytest.raises(ValueError, match=f"label {labels[1]} is out of range for 3 cl"):
                    step(x, dk.tensor(labels))
            else:
                losses.append(step(x, dk.tensor(labels)).item())
        return losses, [p.tolist() for p in model.parameters()]

    bad = np.array([0, wrong]).astype(dtype)  # -1 of a type without signs is 255
    good = np.array([0, 1]).astype(dtype), np.array([2, 1]).astype(dtype)
    model, step = trained()
    step(dk.ones(2, 4), dk.tensor(good[0]))
    before = [p.tolist() for p in model.parameters()]
    with pytest.raises(ValueError, match=f"cross_entropy: label {bad[1]} is out of range for 3 cl"):
        step(dk.ones(2, 4), dk.tensor(bad))
    assert [p.tolist() for p in model.parameters()] == before
    if wrong >= 0:  # neither did the random numbers move, nor what the optimiser counts
        assert run([good[0], bad, good[1]]) == run([good[0], good[1]])


def test_labels_may_be_far_below_the_number_of_classes(device):
    logits = dk.zeros(2, 300)
    assert ops.cross_entropy(logits, dk.tensor(np.int8([1, 127]))).item() > 0
    with pytest.raises(ValueError, match="label -2 is out of range for 300 classes"):
        ops.cross_entropy(logits, dk.tensor(np.int8([1, -2])))


def test_a_view_an_array_and_another_loss_are_looked_at(device):
    step = dk.capture(lambda p, y: ops.nll(p, y.reshape(-1)))
    assert step(dk.zeros(4, 3), np.array([[0, 1], [2, 0]])).item() == 0.0
    with pytest.raises(ValueError, match="nll: label 7 is out of range for 3 classes"):
        step(dk.zeros(4, 3), np.array([[0, 1], [7, 0]]))


def test_labels_that_are_older_than_the_step_are_looked_at(device):
    labels = dk.tensor([0, 1])
    step = dk.capture(lambda x: ops.cross_entropy(x, labels))
    assert step(dk.zeros(2, 3)).item() == step(dk.zeros(2, 3)).item()
    labels.write([0, 3])
    with pytest.raises(ValueError, match="label 3 is out of range"):
        step(dk.zeros(2, 3))


def test_labels_that_the_step_computes_are_looked_at_once(device):
    step = dk.capture(lambda x, y: ops.cross_entropy(x, y + 1))
    with pytest.raises(ValueError, match="label 3 is out of range"):
        step(dk.zeros(2, 3), dk.tensor([0, 2]))
    assert step(dk.zeros(2, 3), dk.tensor([0, -1])).item() > 0
    assert np.isnan(step(dk.zeros(2, 3), dk.tensor([0, 2])).item())  # as cross_entropy documents


def test_labels_that_the_step_overwrites_are_what_it_makes_of_them(device):
    def mended(x, y):
        ops.fill_(y, value=1)
        return ops.cross_entropy(x, y)

    step = dk.capture(mended)
    for _ in range(3):
        assert step(dk.zeros(2, 3), dk.tensor([0, 9])).item() > 0


def test_an_index_out_of_range_is_refused_in_captures_and_replays(device):
    step = dk.capture(lambda x, i: x[i])
    with pytest.raises(IndexError, match=r"index 0\.\.3 is out of range"):
        step(dk.ones(3), dk.tensor([0, 3]))
    assert step(dk.ones(3), dk.tensor([0, -3])).tolist() == [1.0, 1.0]
    with pytest.raises(IndexError, match=r"index 0\.\.3 is out of range for axis 0 of length 3"):
        step(dk.ones(3), dk.tensor([0, 3]))
