"""Initialisers: the moments that their equations promise."""

import math

import numpy as np
import pytest

import deepkit as dk
from deepkit import nn
from deepkit.nn import init

CONV, LINEAR = (64, 5, 3, 40), (300, 500)  # fan_in 600 and 500, fan_out 960 and 300


@pytest.mark.parametrize("shape, fan_in, fan_out", [(CONV, 600, 960), (LINEAR, 500, 300)])
def test_variances(shape, fan_in, fan_out):
    assert init.fans(shape) == (fan_in, fan_out)
    variances = {
        "he": 2 / fan_in,
        "xavier": 2 / (fan_in + fan_out),
        "lecun": 1 / fan_in,
    }
    for family, variance in variances.items():
        bell = getattr(init, f"{family}_normal")(shape).numpy().astype(np.float64)
        flat = getattr(init, f"{family}_uniform")(shape).numpy().astype(np.float64)
        for w in (bell, flat):
            # 6 standard errors of the mean and of the variance, the larger one being the bell's
            assert abs(w.mean()) < 6 * math.sqrt(variance / w.size)
            assert abs(w.var() / variance - 1) < 6 * math.sqrt(2 / w.size)
        bound = math.sqrt(3 * variance)
        assert bound * 0.999 < np.abs(flat).max() <= bound * 1.00001
        share = (np.abs(bell) < math.sqrt(variance)).mean()
        assert share == pytest.approx(0.6827, abs=0.01)


def test_slope_and_gain():
    w = init.he_normal(LINEAR, slope=1.0).numpy()
    assert w.std() == pytest.approx(math.sqrt(1 / 500), rel=0.02)
    w = init.xavier_normal(LINEAR, gain=3.0).numpy()
    assert w.std() == pytest.approx(3 * math.sqrt(2 / 800), rel=0.02)


def test_plain_ones():
    np.testing.assert_array_equal(init.zeros((2, 3)).numpy(), np.zeros((2, 3)))
    np.testing.assert_array_equal(init.ones(4).numpy(), np.ones(4))
    np.testing.assert_array_equal(init.constant((2,), 0.5).numpy(), [0.5, 0.5])
    w = init.normal((200, 200), mean=3.0, std=0.1).numpy()
    assert w.mean() == pytest.approx(3.0, abs=0.005)
    assert w.std() == pytest.approx(0.1, rel=0.02)
    w = init.uniform((200, 200), 2.0, 4.0).numpy()
    assert 2 <= w.min() < 2.01
    assert 3.99 < w.max() <= 4
    assert w.mean() == pytest.approx(3.0, abs=0.02)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 3, 3, 2)])
def test_orthogonal(shape):
    w = init.orthogonal(nn.Parameter(np.zeros(shape)), gain=2.0).numpy()
    m = w.reshape(shape[0], -1)
    m = m @ m.T if shape[0] <= m.shape[1] else m.T @ m
    np.testing.assert_allclose(m, 4 * np.eye(len(m)), atol=1e-12)


def test_targets():
    lazy = nn.Linear(500, 300).weight
    assert init.he_normal(lazy) is lazy
    assert lazy.is_lazy
    assert lazy.numpy().std() == pytest.approx(math.sqrt(2 / 500), rel=0.02)
    assert init.zeros(lazy) is lazy  # it has memory now
    assert not lazy.numpy().any()
    tensor = dk.ones(3, 2)
    assert init.constant(tensor, 7.0) is tensor
    np.testing.assert_array_equal(tensor.numpy(), 7)


def test_draws_follow_the_seed():
    dk.seed(5)
    first = init.he_uniform((4, 4)).numpy()
    second = init.he_uniform((4, 4)).numpy()
    dk.seed(5)
    np.testing.assert_array_equal(init.he_uniform((4, 4)).numpy(), first)
    assert not np.array_equal(first, second)


def test_layers_are_born_as_in_pytorch():
    dk.seed(0)
    for layer, fan_in in [(nn.Linear(400, 100), 400), (nn.Conv2d(32, 64, (3, 5), groups=2), 240)]:
        for p in (layer.weight, layer.bias):
            w = p.numpy()
            assert np.abs(w).max() <= 1 / math.sqrt(fan_in)
        assert layer.weight.numpy().var() == pytest.approx(1 / (3 * fan_in), rel=0.05)


def test_wrong_targets_and_options_are_one_sentence():
    with pytest.raises(
        ValueError, match=r"a fan needs a weight of two or more axes, not .* \(3,\)"
    ):
        init.he_normal((3,))
    with pytest.raises(ValueError, match="low 2 is above high 1"):
        init.uniform((3,), 2, 1)
    with pytest.raises(ValueError, match=r"orthogonal: expected a weight of two or more axes"):
        init.orthogonal((3,))
