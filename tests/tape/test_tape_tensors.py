"""Tensors beside numbers, NumPy arrays and other libraries; operators on both sides."""

import inspect
import operator
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import deepkit as dk

DEVICES = pytest.mark.parametrize("device", dk.devices())
ARITHMETIC = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
COMPARISONS = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]
BOTH = pytest.mark.parametrize("function", ARITHMETIC + COMPARISONS, ids=lambda f: f.__name__)
A = np.array([[1.5, 2.0, 0.5], [3.0, 2.0, 1.0]], np.float32)


def same(t, want, rtol=1e-6):
    want = np.asarray(want)
    assert isinstance(t, dk.Tensor)
    assert t.shape == want.shape
    assert t.dtype == want.dtype
    np.testing.assert_allclose(t.numpy(), want, rtol=rtol)


# operators ----------------------------------------------------------------------------------------


@DEVICES
@pytest.mark.parametrize("kind", ["int64", "int32", "uint8"])
def test_clip_of_whole_numbers(device, kind):
    values = np.arange(9).astype(kind)
    x = dk.tensor(values, device)
    same(dk.ops.clip(x, 2, 5), values.clip(2, 5))
    same(dk.ops.clip(x, -7, 3), values.clip(0, 3))
    same(dk.ops.clip(x, 4, 10**20), values.clip(4, 8))
    same(dk.ops.clip(x, None, 4), values.clip(0, 4))
    same(dk.ops.clip(x, 1.5, 4.5), values.astype(np.float32).clip(1.5, 4.5))


@DEVICES
@BOTH
def test_tensor_and_number(device, function):
    for number in (2, 2.0, 0.5, np.float32(2.0)):
        same(function(dk.tensor(A, device), number), function(A, np.float32(number)))
        same(function(number, dk.tensor(A, device)), function(np.float32(number), A))


@DEVICES
@BOTH
def test_tensor_and_array(device, function):
    other = np.array([2.0, 2.0, 1.5], np.float32)
    same(function(dk.tensor(A, device), other), function(A, other))
    same(function(other, dk.tensor(A, device)), function(other, A))


@DEVICES
@given(
    shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4),
    function=st.sampled_from(ARITHMETIC + COMPARISONS),
    seed=st.integers(0, 100),
)
def test_broadcasting_everywhere(device, shapes, function, seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(1, 5, s) / 2 for s in shapes.input_shapes)
    want = np.asarray(function(a, b))
    same(function(dk.tensor(a, device), dk.tensor(b, device)), want, 1e-14)
    same(function(np.asarray(a), dk.tensor(b, device)), want, 1e-14)
    same(function(dk.tensor(a, device), np.asarray(b)), want, 1e-14)


@DEVICES
def test_matrix_products_on_both_sides(device):
    b = np.arange(6, dtype=np.float32).reshape(3, 2)
    same(dk.tensor(A, device) @ b, A @ b)
    same(A @ dk.tensor(b, device), A @ b)
    same(dk.tensor(A, device) @ dk.tensor(b[:, 0].copy(), device), A @ b[:, 0])


@DEVICES
@given(
    shapes=hnp.mutually_broadcastable_shapes(signature=np.matmul.signature, max_dims=4, max_side=3)
)
def test_matmul_broadcasts_as_numpy_does(device, shapes):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s) for s in shapes.input_shapes)
    got, want = dk.tensor(a, device) @ dk.tensor(b, device), a @ b
    assert got.shape == np.shape(want)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-12, atol=1e-13)


@DEVICES
def test_unary_operators(device):
    same(-dk.tensor(A - 1, device), 1 - A)
    same(abs(dk.tensor(-A, device)), A)


def test_numbers_take_the_dtype_of_the_tensor():
    for dtype in ("float32", "float64"):
        x = dk.tensor(A, dtype=dtype)
        assert (x * 2).dtype == (2.5 - x).dtype == (x**2).dtype == dtype
    integers = dk.tensor(np.arange(3))
    assert (integers + 1).dtype == np.int64
    assert (integers + 0.5).dtype == np.float32
    assert (integers / 2).dtype == np.float32
    same(dk.tensor(np.arange(3)) + 0.5, np.array([0.5, 1.5, 2.5], np.float32))


def test_zeros_keep_their_sign():
    assert np.signbit((dk.tensor(A) * 0.0 - 0.0).numpy()).sum() == 0
    assert np.signbit((dk.tensor(A) * -0.0).numpy()).all()
    assert not np.signbit((dk.tensor(A) * 0.0).numpy()).any()


def test_gradients_through_numbers_and_arrays_on_the_left():
    x = dk.tensor(A.astype(np.float64), requires_grad=True)
    a = A.astype(np.float64)
    for function, slope in (
        (lambda x: 2.0 - x, -np.ones_like(a)),
        (lambda x: 2.0 / x, -2.0 / a**2),
        (lambda x: 2.0**x, 2.0**a * np.log(2.0)),
        (lambda x: a * x, a),
        (lambda x: x**3, 3 * a**2),
        (lambda x: x**2, 2 * a),
    ):
        np.testing.assert_allclose(dk.grad(function(x).sum(), x).numpy(), slope, rtol=1e-12)


# the array protocols ------------------------------------------------------------------------------


@DEVICES
def test_numpy_reads_tensors(device):
    x = dk.tensor(A, device)
    np.testing.assert_array_equal(np.asarray(x), A)
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    np.testing.assert_allclose(np.exp(x), np.exp(A))
    assert isinstance(np.add(A, x), dk.Tensor)
    with pytest.raises(ValueError, match="always copied"):
        np.asarray(x, copy=False)


@DEVICES
def test_values_are_copied_both_ways(device):
    a = A.copy()
    x = dk.tensor(a, device)
    a[...] = 0
    same(x, A)
    x.numpy()[...] = 0
    same(x, A)


@DEVICES
def test_dlpack(device):
    x = dk.tensor(A, device)
    np.testing.assert_array_equal(torch.from_dlpack(x).numpy(), A)
    np.testing.assert_array_equal(np.from_dlpack(x), A)
    same(dk.from_dlpack(torch.tensor(A), device), A)
    same(dk.from_dlpack(A, device), A)
    same(dk.from_dlpack(torch.tensor(A).T, device), A.T)
    assert dk.from_dlpack(torch.arange(3), device).dtype == np.int64


def test_python_reads_tensors():
    assert float(dk.tensor(2.5)) == 2.5
    assert int(dk.tensor(np.array([7]))) == 7
    assert bool(dk.tensor(np.array(True)))
    assert dk.tensor(A).tolist() == A.tolist()
    assert len(dk.tensor(A)) == 2
    assert [row.shape for row in dk.tensor(A)] == [(3,), (3,)]
    assert f"{dk.tensor(2.5):.2f}" == "2.50"
    assert "2.5" in repr(dk.tensor(2.5))
    assert "device='numpy'" in repr(dk.tensor(2.5, "numpy"))
    with pytest.raises(TypeError, match="without axes"):
        len(dk.tensor(1.0))


def test_tensors_can_be_keys():
    x, y = dk.tensor(A), dk.tensor(A)
    assert {x: 1, y: 2}[x] == 1
    assert len({x, y}) == 2


# where tensors come from --------------------------------------------------------------------------


def test_dtypes_of_new_tensors():
    assert dk.tensor([1.0, 2.0]).dtype == np.float32
    assert dk.tensor(np.array([1.0, 2.0])).dtype == np.float64
    assert dk.tensor(1.5).dtype == np.float32
    assert dk.tensor([1, 2]).dtype == np.int64
    assert dk.tensor([True]).dtype == bool
    assert dk.tensor([1, 2], dtype="float64").dtype == np.float64
    assert dk.tensor(dk.tensor([1.0]), dtype="float64").dtype == np.float64


@pytest.mark.parametrize("make", [dk.zeros, dk.ones, dk.rand, dk.randn], ids=lambda f: f.__name__)
def test_makers(make):
    assert make(2, 3).shape == make((2, 3)).shape == (2, 3)
    assert make(3).shape == (3,)
    assert make(()).shape == make().shape == ()
    assert make(2, dtype="float64").dtype == np.float64
    assert make(2).dtype == np.float32
    assert make(2, requires_grad=True).requires_grad


def test_constants():
    same(dk.full((2,), 2.5), np.full(2, 2.5, np.float32))
    assert dk.full((2,), 3).dtype == np.int64
    same(dk.arange(4), np.arange(4))
    same(dk.arange(1.0, 2.0, 0.25), np.arange(1.0, 2.0, 0.25, dtype=np.float32))


@DEVICES
def test_the_same_seed_gives_the_same_numbers_on_every_device(device):
    dk.seed(3)
    want = [dk.randn(5, device="numpy").numpy(), dk.rand(5, device="numpy").numpy()]
    dk.seed(3)
    got = [dk.randn(5, device=device).numpy(), dk.rand(5, device=device).numpy()]
    np.testing.assert_array_equal(got, want)
    assert not np.array_equal(dk.randn(5, device=device).numpy(), want[0])


def test_where_tensors_are_born():
    for name in dk.devices():
        with dk.device(name):
            assert dk.zeros(2).device == name
        assert dk.zeros(2, device=name).device == name
    assert dk.zeros(2).device == "numpy"


# shapes -------------------------------------------------------------------------------------------


def test_methods_that_change_shapes():
    x = dk.tensor(np.arange(24.0).reshape(2, 3, 4))
    assert x.T.shape == (4, 3, 2)
    assert x.flatten().shape == (24,)
    assert x.flatten(1).shape == (2, 12)
    assert x.reshape(4, -1).shape == x.reshape((4, -1)).shape == (4, 6)
    assert x.expand_dims(-1).shape == (2, 3, 4, 1)
    assert x.expand_dims(0).squeeze(0).shape == (2, 3, 4)
    assert dk.zeros(1, 3, 1).squeeze().shape == (3,)
    assert x.transpose(0, 2, 1).shape == x.transpose((0, 2, 1)).shape == (2, 4, 3)


def test_a_view_shares_memory_and_its_version():
    x = dk.tensor(np.arange(6.0))
    y = x.reshape(2, 3)
    dk.ops.fill_(x, value=1.0)
    same(y, np.ones((2, 3)))
    assert y.buffer is x.buffer


@DEVICES
def test_values_that_change_are_read_anew(device):
    """A backend may keep a copy in a layout of its own, but not of values of the past."""
    x, w = dk.randn(17, 6, 6, 3, device=device), dk.randn(4, 3, 3, 3, device=device)
    before = dk.ops.conv2d(x, w).numpy()
    np.testing.assert_array_equal(dk.ops.conv2d(x, w).numpy(), before)
    x.write(2 * x.numpy())
    np.testing.assert_array_equal(dk.ops.conv2d(x, w).numpy(), 2 * before)


@DEVICES
@pytest.mark.parametrize("shape", [(17 * 36, 4), (4, 17, 6, 6), (17, 144), (1, 17, 6, 24), (-1,)])
def test_results_of_a_convolution_are_reshaped_in_their_logical_order(device, shape):
    """A backend may arrange a batch in a way of its own, which not every shape allows."""
    x, w = dk.randn(17, 6, 6, 3, device=device), dk.randn(4, 3, 3, 3, device=device)
    y = dk.ops.conv2d(x, w, padding=1)
    np.testing.assert_array_equal(y.reshape(shape).numpy(), y.numpy().reshape(shape))


@DEVICES
@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "float32"])
def test_argmin_is_numpys_where_negatives_do_not_exist(dtype, device):
    kind = np.dtype(dtype)
    low = np.iinfo(kind).min if kind.kind in "iu" else 0
    a = np.array([[3, low, 1], [low, 2, low]]).astype(kind)
    for axis in (None, 0, -1):
        same(dk.tensor(a, device=device).argmin(axis), a.argmin(axis))


# what help says -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in dir(dk.Tensor) if not n.startswith("_")])
def test_help_tells_of_every_name_and_the_overview_has_it(name):
    assert inspect.getdoc(getattr(dk.Tensor, name))
    assert re.search(rf"\b{name}\b", inspect.getdoc(dk.Tensor))


def test_help_tells_what_operators_do():
    operators = [n for n in vars(operator) if n.startswith("__") and hasattr(dk.Tensor, n)]
    for name in {*operators, "__getitem__", "__matmul__"} - set(vars(object)):
        assert inspect.getdoc(getattr(dk.Tensor, name)), name
    assert "elementwise" in dk.Tensor.__eq__.__doc__


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays_beside_a_tensor_take_its_dtype(dtype):
    x = dk.tensor(np.ones((2, 3)), dtype=dtype)
    array = np.full((3, 3), 0.1)
    whole = dk.arange(3)
    for y in (x @ array, x + array[0], array[:2] * x, dk.ops.where(x > 0, array[:2], x)):
        assert y.dtype == np.dtype(dtype)
    np.testing.assert_array_equal((x @ array).numpy(), x.numpy() @ array.astype(dtype))
    assert (x + array[0].astype(np.float32)).dtype == np.dtype(dtype)
    assert (x * np.arange(3)).dtype == np.dtype(dtype)
    assert (whole + array[0]).dtype == np.float64  # there is no float tensor to decide
    assert (x + dk.tensor(array[0])).dtype == np.float64  # asked for
