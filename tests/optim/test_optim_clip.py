"""Clipping against PyTorch's."""

import numpy as np
import pytest
import torch

import deepkit as dk
from deepkit import nn, optim


def gradients(skip=()):
    rng = np.random.default_rng(0)
    ours, theirs = [], []
    for i, shape in enumerate([(4, 3), (4,), (2, 4)]):
        p, q = nn.Parameter(np.zeros(shape)), torch.nn.Parameter(torch.zeros(shape).double())
        ours.append(p)
        theirs.append(q)
        if i not in skip:
            g = rng.standard_normal(shape)
            p.grad, q.grad = dk.tensor(g), torch.tensor(g)
    return ours, theirs


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 100.0])
@pytest.mark.parametrize("skip", [(), (1,)])
def test_the_norm_is_clipped_as_in_pytorch(max_norm, skip):
    ours, theirs = gradients(skip)
    norm = optim.clip_grad_norm(ours, max_norm)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    assert norm.shape == ()
    np.testing.assert_allclose(norm.item(), expected.item(), rtol=1e-12)
    for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
        if i in skip:
            assert p.grad is None
        else:
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-12)


def test_values_are_clipped():
    ours, _ = gradients((0,))
    before = [None if p.grad is None else p.grad.numpy() for p in ours]
    optim.clip_grad_value(ours, 0.25)
    assert ours[0].grad is None
    for p, g in zip(ours[1:], before[1:], strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), np.clip(g, -0.25, 0.25))


def test_without_gradients_the_norm_is_zero():
    assert optim.clip_grad_norm([nn.Parameter([1.0])], 1.0).item() == 0.0


def test_bad_arguments_are_one_sentence():
    with pytest.raises(ValueError, match="max_norm must be at least 0, not -1"):
        optim.clip_grad_norm(gradients()[0], -1)
    with pytest.raises(TypeError, match="expected parameters"):
        optim.clip_grad_norm([], 1)
