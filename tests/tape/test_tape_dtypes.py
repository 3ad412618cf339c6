"""Which dtypes compute is one rule for all devices; and what else users write by mistake."""

import re

import numpy as np
import pytest

import deepkit as dk

DEVICES = [d for d in dk.devices() if d in ("numpy", "numba")]


def says(error, sentence):
    return pytest.raises(error, match="^" + re.escape(sentence) + "$")


@pytest.fixture(params=DEVICES, autouse=True)
def device(request):
    with dk.device(request.param):
        yield request.param


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "uint32", "uint64"])
def test_other_integers_hold_values(dtype):
    x = dk.tensor(np.array([[3, 1], [2, 0]], dtype=dtype))
    cast = f"{dtype} holds values but does not compute; cast with x.astype('int64')"
    for name, call in {
        "add": lambda: x + x,
        "mul": lambda: x * 2,
        "greater": lambda: x > x,
        "sum": lambda: x.sum(),
        "transpose": lambda: x.T,
        "concat": lambda: dk.ops.concat([x, x]),
    }.items():
        with says(TypeError, f"{name}: {cast}"):
            call()
    assert x.dtype == x.reshape(4).dtype == np.dtype(dtype)
    np.testing.assert_array_equal((x.astype("int64") * 2).numpy(), [[6, 2], [4, 0]])
    rows = dk.tensor([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(rows[dk.tensor(np.array([1], dtype))].numpy(), [[3, 4]])
    labels = dk.tensor(np.array([0, 1], dtype))
    assert dk.ops.cross_entropy(rows, labels).item() == pytest.approx(0.813262, rel=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_computing_integers(dtype):
    x = dk.tensor(np.array([3, 1], dtype=dtype))
    assert (x * x).dtype == np.dtype(dtype)
    np.testing.assert_array_equal((x * x + x).numpy(), [12, 2])


def test_booleans():
    b = dk.tensor(np.array([True, False]))
    for name, call in {
        "sub": lambda: b - b,
        "neg": lambda: -b,
        "pow": lambda: b**b,
        "sign": lambda: dk.ops.sign(b),
    }.items():
        with says(TypeError, f"{name}: not defined for bool; cast with x.astype('int64')"):
            call()
    np.testing.assert_array_equal((b + b).numpy(), [True, False])
    assert b.sum().item() == 1


def test_names_of_ops_are_those_that_users_call():
    whole = dk.tensor(np.array([[1, 2], [3, 4]]))
    with pytest.raises(TypeError, match=r"^dropout: expected float inputs, not int64"):
        dk.ops.dropout(whole, 0.5)
    with pytest.raises(TypeError, match=r"^matmul: "):
        whole @ whole.T
    for training, running in ((True, None), (False, dk.ones(2))):
        with pytest.raises(TypeError, match=r"^batch_norm: expected float inputs, not int64"):
            dk.ops.batch_norm(whole, None, None, running, running, training=training)
    with pytest.raises(TypeError, match=r"^layer_norm: expected float inputs, not int64"):
        dk.ops.layer_norm(whole, 2)


def test_none_is_no_number():
    x = dk.ones(2)
    assert (x == None) is False  # noqa: E711
    assert (x != None) is True  # noqa: E711
    assert x not in [None, "a"][:1]
    assert None not in [x]
    with pytest.raises(TypeError, match=r"^equal: expected a tensor or a number, not NoneType"):
        dk.ops.equal(x, None)


def test_indices_that_are_no_positions():
    x = dk.ones(2, 3)
    for index in (True, np.False_, np.array(True), dk.tensor(np.array(False)), (0, True)):
        with says(IndexError, "x[True] and x[False] are no positions; None makes a new axis"):
            x[index]


def test_widths_of_pad():
    x = dk.ones(2, 3)
    assert x.pad(np.int64(1)).shape == (4, 5)
    assert x.pad((1, (0, np.int32(2)))).shape == (4, 5)
    for widths in (1.5, "1", (1, (1, 2, 3)), ((1,), (2,)), True):
        with pytest.raises(dk.ShapeError, match=r"^pad: widths must be a whole number, or one or"):
            x.pad(widths)


def test_what_no_memory_holds():
    image, filters = dk.ones(1, 4, 4, 1), dk.ones(2, 3, 3, 1)
    for call in (
        lambda: dk.zeros(10**9, 10**9, 10**9),
        lambda: dk.ones(2, 3).pad(10**12),
        lambda: dk.ops.conv2d(image, filters, padding=10**9),
    ):
        with pytest.raises(dk.ShapeError, match=r"is too large for any memory$"):
            call()


def test_numpy_functions_that_are_methods_here():
    x = dk.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert np.sum(x).item() == 10
    assert np.mean(x).item() == 2.5
    assert np.max(x).item() == 4
    np.testing.assert_array_equal(np.asarray(np.sum(x, axis=0)), [4, 6])
