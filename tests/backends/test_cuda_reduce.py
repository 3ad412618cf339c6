"""Reductions on the simulator where they are cut into parts, which samples are too small for."""

import numpy as np
import pytest

import deepkit as dk
from deepkit.backends import get
from deepkit.testing import check_op

if "cuda-sim" not in dk.devices():
    pytest.skip("no C++ compiler here", allow_module_level=True)

SHAPES = [  # shape, axis: rows and columns, whole and cut, of odd lengths
    ((1, 70_001), 1),
    ((3, 9_000), 1),
    ((70_001,), 0),
    ((2, 1025), -1),
    ((5_003, 3), 0),
    ((300, 40), 0),
    ((40, 300, 3), (0, 1)),
    ((7, 90, 5), (0, 2)),
    ((33, 2, 65), 1),
]


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
def test_parts_make_a_whole(name, order):
    backend = get("cuda-sim")
    backend.driver.order = order
    try:
        for seed, (shape, axis) in enumerate(SHAPES):
            x = np.random.default_rng([seed, order]).standard_normal(shape)
            check_op(name, [x], backend, "float32", axis=axis)
    finally:
        backend.driver.order = 0


def test_integers_and_bools():
    rng = np.random.default_rng(0)
    for shape, axis in SHAPES:
        for x in (rng.integers(-9, 9, shape), rng.random(shape) < 0.5):
            y = dk.tensor(x, "cuda-sim").sum(axis=axis).numpy()
            assert y.dtype == np.int64
            assert np.array_equal(y, x.sum(axis=axis))


def test_not_a_number_wins():
    x = np.random.default_rng(0).standard_normal((3, 9_000)).astype(np.float32)
    x[0, 8_999] = x[1, 0] = np.nan
    for t in (dk.tensor(x, "cuda-sim"), dk.tensor(x.T, "cuda-sim")):
        axis = int(t.shape[1] > t.shape[0])
        assert np.array_equal(np.isnan(t.max(axis=axis).numpy()), [True, True, False])
        assert np.array_equal(np.isnan(t.min(axis=axis).numpy()), [True, True, False])
        assert np.array_equal(t.argmax(axis=axis).numpy(), np.argmax(t.numpy(), axis=axis))


def test_ties_go_to_the_first():
    x = np.zeros((4, 100), np.float32)
    x[1, [7, 40, 71]] = 1
    assert dk.tensor(x, "cuda-sim").argmax(axis=1).numpy().tolist() == [0, 7, 0, 0]
    assert dk.tensor(x.T.copy(), "cuda-sim").argmax(axis=0).numpy().tolist() == [0, 7, 0, 0]
