"""Matrix products in CUDA, every rung: sizes that fill no tile, k cut in parts, batches, orders."""

from __future__ import annotations

import numpy as np
import pytest

import deepkit as dk
from deepkit.backends import get, why_not
from deepkit.backends.cuda.sim import ORDERS
from deepkit.card import sample
from deepkit.testing import check_op

if why_not("cuda-sim"):
    pytest.skip(str(why_not("cuda-sim")), allow_module_level=True)
from deepkit.backends.cuda import products

RUNGS = ("naive", "tiled", "registers")
TURNED = [(False, False), (False, True), (True, False), (True, True)]
SIZES = [(1, 1, 1), (16, 16, 16), (5, 70, 9), (132, 68, 20), (130, 65, 31), (3, 4, 400)]


@pytest.fixture(params=ORDERS)
def order(request):
    driver = get("cuda-sim").driver
    driver.order = request.param
    yield
    driver.order = "forward"


def operands(m, n, k, ta=False, tb=False, lead_a=(), lead_b=()):
    return (*lead_a, k, m) if ta else (*lead_a, m, k), (*lead_b, n, k) if tb else (*lead_b, k, n)


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("ta, tb", TURNED)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_product(rung, ta, tb, size):
    given = sample(*operands(*size, ta, tb), ta=ta, tb=tb)
    with dk.using(product=rung):
        for dtype in ("float32", "float64"):
            check_op("product", given, "cuda-sim", dtype)


@pytest.mark.parametrize("rung", RUNGS)
def test_threads_in_any_order(rung, order):
    given = sample(*operands(70, 40, 33))
    with dk.using(product=rung):
        check_op("product", given, "cuda-sim")


@pytest.mark.parametrize("ta, tb", TURNED)
def test_large_tiles(ta, tb, monkeypatch):
    monkeypatch.setattr(products, "ENOUGH_BLOCKS", 1)
    given = sample(*operands(140, 132, 20, ta, tb), ta=ta, tb=tb)
    with dk.using(product="registers"):
        for dtype in ("float32", "float64"):
            check_op("product", given, "cuda-sim", dtype)


@pytest.mark.parametrize("rung", RUNGS)
def test_a_block_goes_on_from_the_end_of_the_grid(rung, order, monkeypatch):
    monkeypatch.setattr(products, "MOST_BLOCKS", 1)
    given = sample(*operands(130, 70, 300, lead_a=(2,)))
    with dk.using(product=rung):
        check_op("product", given, "cuda-sim")


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize(
    "leads", [((3,), (3,)), ((2, 1), (5,)), ((), (2, 3)), ((2, 3, 1), (2, 1, 2))]
)
def test_batches(rung, leads):
    given = sample(*operands(33, 35, 12, lead_a=leads[0], lead_b=leads[1]))
    with dk.using(product=rung):
        check_op("product", given, "cuda-sim")


@pytest.mark.parametrize("activation", [None, "relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("inner", [19, 1000])  # the long one is cut in parts by "registers"
def test_linear(activation, rung, inner):
    given = sample((34, inner), (36, inner), (36,), activation=activation)
    with dk.using(linear=rung):
        check_op("linear", given, "cuda-sim")


@pytest.mark.parametrize("rung", RUNGS)
def test_gradients(rung):
    with dk.using(linear=rung):
        check_op("linear_dx", sample((5, 7, 20), (20, 33)), "cuda-sim")
        check_op("linear_dw", sample((1025, 20), (1025, 33)), "cuda-sim", "float64")
        check_op("linear_dw", sample((9, 115, 20), (9, 115, 36)), "cuda-sim")


def test_a_long_k_is_cut_in_parts_that_cover_it():
    splits, chunk = products.split(products.Task(32, 32, 1000))
    assert splits == 7
    assert (splits - 1) * chunk < 1000 <= splits * chunk
    for k in (0, 1, 127, 128, 257, 100_000):
        splits, chunk = products.split(products.Task(64, 64, k))
        assert (splits - 1) * chunk < max(1, k) <= splits * chunk
    assert products.split(products.Task(8192, 8192, 8192))[0] == 1


def test_nothing_to_multiply():
    with dk.device("cuda-sim"):
        for rung in RUNGS:
            with dk.using(product=rung):
                y = dk.tensor(np.ones((3, 0))) @ dk.tensor(np.ones((0, 5)))
                assert np.array_equal(y.numpy(), np.zeros((3, 5)))
                assert (dk.tensor(np.ones((0, 3))) @ dk.tensor(np.ones((3, 5)))).shape == (0, 5)


def test_not_a_number_is_kept():
    x = np.ones((40, 40), np.float32)
    x[3, 5] = np.nan
    with dk.device("cuda-sim"):
        y = dk.ops.linear(dk.tensor(x), dk.tensor(np.eye(40, dtype=np.float32)), activation="relu")
    assert np.isnan(y.numpy()[3]).all()
    assert not np.isnan(np.delete(y.numpy(), 3, 0)).any()
