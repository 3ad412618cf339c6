"""NumPy's functions of tensors: ops where there are some, and never a gradient lost in silence."""

import numpy as np
import pytest

import deepkit as dk

A = np.random.default_rng(3).uniform(0.5, 2.0, (3, 4)).astype(np.float32)

ONE = {
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "abs": np.abs,
    "negative": np.negative,
    "sum": np.sum,
    "sum of rows": lambda x: np.sum(x, axis=1, keepdims=True),
    "mean": np.mean,
    "var": np.var,
    "max": np.max,
    "min of columns": lambda x: np.min(x, 0),
    "reshape": lambda x: np.reshape(x, (2, 6)),
    "transpose": np.transpose,
    "squeeze": lambda x: np.squeeze(np.expand_dims(x, 1), axis=1),
    "clip": lambda x: np.clip(x, 0.7, 1.5),
}
HOST = {
    "arctan": np.arctan,
    "expm1": np.expm1,
    "add.reduce": np.add.reduce,
    "asarray": np.asarray,
    "linalg": lambda x: np.linalg.norm(x),
    "concatenate": lambda x: np.concatenate([x, x]),
    "sum as float64": lambda x: np.sum(x, dtype=np.float64),
    "var with ddof": lambda x: np.var(x, ddof=1),
}


@pytest.fixture(params=dk.devices())
def device(request):
    return request.param


@pytest.mark.parametrize("name", ONE)
def test_functions_that_are_ops_keep_the_history(device, name):
    x = dk.tensor(A, device, requires_grad=True)
    y = ONE[name](x)
    assert isinstance(y, dk.Tensor)
    np.testing.assert_allclose(y.numpy(), ONE[name](A), rtol=1e-5)
    assert dk.grad(y.sum(), x).shape == A.shape


@pytest.mark.parametrize("name", HOST)
def test_others_compute_on_the_host_but_not_where_gradients_would_be_lost(device, name):
    x = dk.tensor(A, device, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"requires gradients to the host.* x\.detach\(\)"):
        HOST[name](x)
    np.testing.assert_allclose(HOST[name](x.detach()), HOST[name](A), rtol=1e-5)
    with dk.no_grad():
        np.testing.assert_allclose(HOST[name](x), HOST[name](A), rtol=1e-5)


def test_values_can_be_read_on_purpose(device):
    x = dk.tensor(A, device, requires_grad=True)
    np.testing.assert_array_equal(x.numpy(), A)
    assert x[0, 0].item() == A[0, 0]
    y = dk.zeros(3, 4, device=device, requires_grad=True)
    y.write(x)
    np.testing.assert_array_equal(y.numpy(), A)
    layer, other = (dk.nn.Linear(4, 3).to(device) for _ in range(2))
    other.load_state_dict(dict(layer.named_parameters()))
    np.testing.assert_array_equal(other.weight.numpy(), layer.weight.numpy())


def test_whole_numbers_and_shapes(device):
    x = dk.tensor([1, 4], device)
    np.testing.assert_array_equal(np.sqrt(x), [1.0, 2.0])
    assert (np.shape(x), np.ndim(x), np.size(x)) == ((2,), 1, 2)


def test_a_tensor_is_not_written_by_numpy(device):
    x = dk.zeros(3, 4, device=device)
    for function in (np.add, np.arctan2):
        with pytest.raises(TypeError, match=r"a tensor cannot be `out`"):
            function(A, A, out=x)
    with pytest.raises(TypeError, match=r"a tensor cannot be `out`"):
        np.sum(A, out=x)
