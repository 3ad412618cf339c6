"""Functions of calculus where their formulas change: far angles, zeros of sine, tails, specials."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("numba")

import deepkit as dk
from deepkit import ops

SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e30, -1e30, 1e-40, -1e-40]


def on_numba(name, x):
    return getattr(ops, name)(dk.tensor(x, device="numba")).numpy()


def ulps(y, exact):
    return np.abs(y - exact) / np.spacing(np.abs(exact).astype(np.float32))


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_sine_and_cosine_beside_their_zeros_and_far_out(name):
    near = (np.arange(1, 19_000) * np.pi / 2).astype(np.float32)
    far = np.float32([29_999, 30_000, 30_001, 1e6, 3e9, 1e30])
    angles = np.concatenate([near, -near, far, -far])
    exact = getattr(np, name)(angles.astype(np.float64))
    assert ulps(on_numba(name, angles), exact).max() < 2.5


def test_the_left_tail_of_gelu_keeps_its_digits():
    x = np.linspace(-12, -1, 20_001, dtype=np.float32)
    exact = np.array([v * 0.5 * math.erfc(-v * 0.5**0.5) for v in x.astype(np.float64)])
    y = on_numba("gelu", x)
    assert (np.abs(y - exact) / np.abs(exact)).max() < 1e-5


@pytest.mark.parametrize(
    "name",
    ["exp", "log", "sqrt", "sin", "cos", "tanh", "erf", "sigmoid", "softplus", "elu", "gelu"],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values_are_those_of_numpy(name, dtype):
    x = np.array(SPECIAL, dtype)
    with np.errstate(all="ignore"):
        expected = getattr(ops, name)(dk.tensor(x, device="numpy")).numpy()
    np.testing.assert_allclose(on_numba(name, x), expected, rtol=1e-6, atol=0)
