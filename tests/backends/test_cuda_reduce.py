"""Reductions on the simulator where they are cut into parts, which samples are too small for."""

import numpy as np
import pytest

import deepkit as dk
from deepkit.backends import get
from deepkit.backends.cuda.sim import ORDERS
from deepkit.testing import check_op

if "cuda-sim" not in dk.devices():
    pytest.skip("no C++ compiler here", allow_module_level=True)
from deepkit.backends.cuda import reduce

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
    ((8, 200), 1),  # several rows a block, several warps a row
    ((5, 129), 1),
    ((7, 512), -1),
    ((16, 16, 16), (1, 2)),
    ((2, 190_000), 1),
]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
def test_parts_make_a_whole(name, order):
    backend = get("cuda-sim")
    backend.driver.order = order
    try:
        for seed, (shape, axis) in enumerate(SHAPES):
            x = np.random.default_rng([seed, ORDERS.index(order)]).standard_normal(shape)
            check_op(name, [x], backend, "float32", axis=axis)
    finally:
        backend.driver.order = "forward"


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


@pytest.mark.parametrize("rung", ["naive", "blocks"])
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
def test_both_rungs(name, rung):
    with dk.using(**{name: rung}):
        for shape, axis in [*SHAPES, ((2, 3, 4, 5), (0, 2)), ((4, 1, 9), ()), ((3, 5), None)]:
            x = np.random.default_rng(0).standard_normal(shape)
            for dtype in ("float32", "float64"):
                check_op(name, [x], "cuda-sim", dtype, axis=axis)


@pytest.mark.parametrize("rung", ["naive", "blocks"])
def test_the_first_of_many(rung):
    x = np.random.default_rng(0).integers(0, 9, 70_001).astype(np.uint8)
    with dk.using(argmax=rung):
        for shape, axis in [((70_001,), 0), ((70_001, 1), 0), ((1, 70_001), 1)]:
            found = dk.tensor(x.reshape(shape), "cuda-sim").argmax(axis=axis).numpy()
            assert found.reshape(-1).tolist() == [np.argmax(x)]
        y = np.random.default_rng(0).integers(0, 3000, (9_000, 3)).astype(np.float32)
        y[[5, 8_000], 1] = np.nan
        found = dk.tensor(y, "cuda-sim").argmax(axis=0).numpy()
        assert np.array_equal(found, np.argmax(y, axis=0))


@pytest.mark.parametrize("order", ORDERS)
def test_a_block_goes_on_from_the_end_of_the_grid(order, monkeypatch):
    monkeypatch.setattr(reduce, "MOST_BLOCKS", 1)
    driver = get("cuda-sim").driver
    driver.order = order
    try:
        for shape, axis in SHAPES:
            x = np.random.default_rng(0).standard_normal(shape)
            check_op("sum", [x], "cuda-sim", axis=axis)
            check_op("max", [x], "cuda-sim", axis=axis)
    finally:
        driver.order = "forward"


def test_a_long_sum_keeps_its_digits():
    """300,000 numbers that are alike: one after the other in float32 they lose four digits."""
    for x in (np.full((1, 300_000), 0.1, np.float32), np.full((300_000, 2), 0.1, np.float32)):
        total = dk.tensor(x, "cuda-sim").sum(axis=int(x.shape[0] == 1)).numpy()
        np.testing.assert_allclose(total, 300_000 * np.float64(x.flat[0]), rtol=5e-7)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float32", "float64"])
def test_broadcasting(dtype):
    rng = np.random.default_rng(0)
    for shape, to in [
        ((32,), (5, 32)),
        ((5, 1), (5, 48)),
        ((), (3, 16)),
        ((3, 1, 7), (2, 3, 4, 7)),
    ]:
        x = rng.integers(0, 2, shape).astype(dtype)
        y = dk.ops.broadcast_to(dk.tensor(x, "cuda-sim"), to).numpy()
        assert y.dtype == dtype
        assert np.array_equal(y, np.broadcast_to(x, to))


@pytest.mark.parametrize("length", [100, 129, 200, 256, 400, 512, 513, 1000])
def test_rows_of_every_length(length):
    x = np.random.default_rng().standard_normal((9, length)).astype(np.float32)
    t = dk.tensor(x, "cuda-sim")
    assert np.allclose(t.sum(axis=1).numpy(), x.sum(1, dtype=np.float64), atol=1e-4)
    assert np.array_equal(t.max(axis=1).numpy(), x.max(1))
    assert np.array_equal(t.argmax(axis=1).numpy(), x.argmax(1))
