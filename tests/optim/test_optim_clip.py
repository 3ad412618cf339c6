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


@pytest.mark.parametrize("device", dk.devices())
def test_gradients_of_both_float_types_have_one_norm(device):
    ours = [
        dk.zeros(*shape, device=device, dtype=dtype, requires_grad=True)
        for shape, dtype in (((3,), "float32"), ((2, 2), "float64"), ((4,), "float32"))
    ]
    rng = np.random.default_rng(5)
    given = [rng.standard_normal(p.shape).astype(p.dtype) for p in ours]
    step = dk.capture(lambda: optim.clip_grad_norm(ours, 0.5))
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in given))
    for _ in range(2):  # the second is a replay
        for p, g in zip(ours, given, strict=True):
            p.grad = dk.tensor(g, device)
        np.testing.assert_allclose(step().item(), norm, rtol=1e-6)
        for p, g in zip(ours, given, strict=True):
            assert p.grad.dtype == g.dtype
            np.testing.assert_allclose(p.grad.numpy(), g * (0.5 / norm), rtol=1e-5)


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
