"""Softmax and cross entropy in CUDA: rows of all lengths, columns, infinities, wrong labels."""

from __future__ import annotations

import numpy as np
import pytest

import deepkit as dk
from deepkit.backends import get, why_not
from deepkit.backends.cuda.sim import ORDERS
from deepkit.card import integers, sample
from deepkit.testing import check_op

if why_not("cuda-sim"):
    pytest.skip(str(why_not("cuda-sim")), allow_module_level=True)
from deepkit.backends.cuda import softmax

RUNGS = ("naive", "blocks")
OPS = ("softmax", "softmax_dx", "log_softmax", "log_softmax_dx")
LENGTHS = [1, 2, 5, 33, 128, 129, 260, 512, 513, 1000, 8192, 9001, 8200]
SHAPES = [((70, 10), 0), ((2, 300, 33), 1), ((3, 1, 5), 1), ((2, 7, 2), 1), ((513, 1, 1), 0)]


@pytest.fixture(params=ORDERS)
def order(request):
    driver = get("cuda-sim").driver
    driver.order = request.param
    yield
    driver.order = "forward"


def operands(op, shape):
    return (shape, shape) if op.endswith("_dx") else (shape,)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("length", LENGTHS)
def test_rows(op, length, order):
    rows = 3 if length > 128 else 35  # more than one block has
    check_op(op, sample(*operands(op, (rows, length))), "cuda-sim")


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("length", [5, 130, 600, 8194])
def test_rows_of_float64(op, length):
    check_op(op, sample(*operands(op, (3, length))), "cuda-sim", "float64")


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("shape, axis", SHAPES, ids=str)
def test_columns(op, shape, axis, order):
    check_op(op, sample(*operands(op, shape), axis=axis), "cuda-sim")


@pytest.mark.parametrize("op", OPS)
def test_naive(op):
    with dk.using(**{op: "naive"}):
        for shape, axis in [((3, 130), 1), ((300, 10), 0), ((2, 20, 33), 1)]:
            for dtype in ("float32", "float64"):
                check_op(op, sample(*operands(op, shape), axis=axis), "cuda-sim", dtype)


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("length", [6, 600, 9000])
@pytest.mark.parametrize("op", [dk.ops.softmax, dk.ops.log_softmax])
def test_what_is_not_finite(op, length, rung):
    """A masked element has the probability 0; a row has NaN all over where there is no softmax."""
    x = np.random.default_rng(0).standard_normal((6, length)).astype(np.float32)
    x[0, ::2] = -np.inf
    x[1] = -np.inf
    x[2, 3] = np.inf
    x[3, 4] = np.nan
    x[4, :-1] = -np.inf
    for values, axis in ((x, 1), (x.T.copy(), 0)):
        with dk.using(softmax=rung, log_softmax=rung):
            want, got = (
                op(dk.tensor(values, device), axis=axis).numpy() for device in ("numpy", "cuda-sim")
            )
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("classes", [3, 10, 600, 8200])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy(rung, classes, reduction, smoothing):
    options = dict(reduction=reduction, label_smoothing=smoothing)
    labels = integers(7, high=classes)
    with dk.using(label_cross_entropy=rung):
        check_op("label_cross_entropy", sample((7, classes), labels, **options), "cuda-sim")
        g = (7,) if reduction == "none" else ()
        check_op("label_cross_entropy_dx", sample(g, (7, classes), labels, **options), "cuda-sim")


def test_many_rows_have_one_mean(order):
    given = sample((9000, 3), integers(9000, high=3))
    check_op("label_cross_entropy", given, "cuda-sim")
    check_op("label_cross_entropy", given, "cuda-sim", "float64")


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("classes", [5, 600, 9000])
@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "uint64"])
def test_a_wrong_label_is_nan_in_its_row(rung, classes, dtype):
    """Called as a GPU would: labels in the memory of this simulator are looked at beforehand."""
    x = np.random.default_rng(0).standard_normal((4, classes)).astype(np.float32)
    info = np.iinfo(dtype)
    labels = np.array([0, info.min, 3, info.max], dtype)
    wrong = [not 0 <= int(label) < classes for label in labels]
    assert any(wrong) or classes > 127

    table, options = get("cuda-sim").table, dict(reduction="none", label_smoothing=0.1)
    loss, dx = np.zeros(4, np.float32), np.zeros_like(x)
    table["label_cross_entropy"].kernels[rung](loss, x, labels, scratch=[], **options)
    one = np.ones(4, np.float32)
    table["label_cross_entropy_dx"].kernels[rung](dx, one, x, labels, **options)
    assert np.isnan(loss).tolist() == wrong
    assert np.isnan(dx).all(axis=1).tolist() == wrong
    assert np.isnan(dx).any(axis=1).tolist() == wrong


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("shape", [(70, 10), (70, 200), (5, 600), (3, 9000)])
def test_a_block_goes_on_from_the_end_of_the_grid(op, shape, order, monkeypatch):
    monkeypatch.setattr(softmax, "MOST_BLOCKS", 1)
    for axis in (0, 1):
        check_op(op, sample(*operands(op, shape), axis=axis), "cuda-sim")


def test_nothing():
    with dk.device("cuda-sim"):
        assert dk.ops.softmax(dk.tensor(np.ones((0, 3)))).shape == (0, 3)
        none = dk.tensor(np.ones(0, np.int64))
        logits = dk.tensor(np.ones((0, 3)))
        assert dk.ops.label_cross_entropy(logits, none, reduction="sum").item() == 0
