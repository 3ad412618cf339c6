"""Parameters: no memory before they are touched, then one flat piece for all of a model."""

import itertools
import tracemalloc

import numpy as np
import pytest

import deepkit as dk
from deepkit import nn
from deepkit.backends import ALIGNMENT
from deepkit.nn.parameter import runs


def address(t):
    return t.array.__array_interface__["data"][0]


def net():
    return nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 7), nn.Linear(7, 2))


def test_a_large_model_is_built_without_memory():
    tracemalloc.start()
    model = nn.Sequential(nn.Linear(40_000, 40_000, bias=False), nn.Linear(40_000, 10))
    count = sum(p.size for p in model.parameters())
    text = repr(model) + repr(model[0].weight)
    model.eval().astype("float64").astype("float32")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 1_600_400_010
    assert peak < 200_000
    assert "(40000, 40000) float32 on 'numpy', without memory yet" in text


def test_values_do_not_depend_on_when_they_are_touched():
    dk.seed(3)
    together = net().state_dict()
    dk.seed(3)
    model = net()
    dk.randn(10)  # other draws in between
    last = model[2].weight.numpy()
    middle = model[1].bias.numpy()
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(values, together[name])
    np.testing.assert_array_equal(last, together["2.weight"])
    np.testing.assert_array_equal(middle, together["1.bias"])


def test_two_layers_differ_and_a_seed_repeats_them():
    dk.seed(0)
    a, b = nn.Linear(4, 4), nn.Linear(4, 4)
    assert not np.array_equal(a.weight.numpy(), b.weight.numpy())
    dk.seed(0)
    np.testing.assert_array_equal(nn.Linear(4, 4).weight.numpy(), a.weight.numpy())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parameters_lie_side_by_side_on_lines_of_the_cache(dtype):
    model = net().astype(dtype)
    x = dk.ones(2, 3, dtype=dtype)
    model(x).sum().backward()
    params = list(model.parameters())
    arena = params[0].arena
    assert all(p.arena is arena for p in params)
    assert all(p.buffer is arena.weights.buffer for p in params)
    assert all(p.grad.buffer is arena.gradients.buffer for p in params)
    for kind in (lambda p: p, lambda p: p.grad):
        start = address(kind(params[0]))
        for p, after in itertools.pairwise(params):
            assert address(kind(p)) % ALIGNMENT == 0
            gap = address(kind(after)) - address(kind(p)) - p.size * p.dtype.itemsize
            assert 0 <= gap < ALIGNMENT
        assert address(kind(params[-1])) - start < arena.size * params[0].dtype.itemsize
    (run,) = runs(params)
    flat, gradient = run.weights.numpy(), run.gradients.numpy()
    used = np.zeros(flat.size, bool)
    for p, at in zip(params, arena.starts, strict=False):
        np.testing.assert_array_equal(flat[at : at + p.size], p.numpy().ravel())
        np.testing.assert_array_equal(gradient[at : at + p.size], p.grad.numpy().ravel())
        used[at : at + p.size] = True
    assert not flat[~used].any()
    assert not gradient[~used].any()


def test_statistics_do_not_share_the_weights_memory():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model(dk.randn(5, 3))
    assert model[1].running_mean.buffer is not model[1].weight.buffer


def test_no_gradient_memory_without_a_backward_pass():
    model = net()
    model(dk.ones(1, 3))
    assert model[0].weight.arena.gradients is None
    assert model[0].weight.grad is None


def test_runs_are_as_long_as_neighbours_go():
    model = net()
    model.materialise()
    params = list(model.parameters())
    assert [len(r.params) for r in runs(params)] == [6]
    assert [len(r.params) for r in runs([*params[:2], *params[4:]])] == [2, 2]
    assert [len(r.params) for r in runs([params[1], params[0]])] == [1, 1]
    assert [len(r.params) for r in runs([params[0], dk.ones(2), params[1]])] == [1, 1, 1]


def test_what_was_touched_before_stays_where_it_is():
    model = net()
    place = address(model[1].weight)
    model(dk.ones(1, 3))
    assert address(model[1].weight) == place
    assert len(runs(model.parameters())) == 3


def test_a_model_born_inside_a_capture_is_state():
    dk.seed(0)
    model = net()

    @dk.capture
    def step(x):
        y = model(x)
        y.sum().backward()
        return y

    x = dk.ones(2, 3)
    first = step(x).numpy()
    g = model[0].weight.grad.numpy()
    np.testing.assert_array_equal(step(x).numpy(), first)
    np.testing.assert_array_equal(model[0].weight.grad.numpy(), 2 * g)
    model[2].bias.write(np.array([10, 20]))
    assert step(x).numpy()[0, 1] > 10


def test_parameters_from_values():
    p = nn.Parameter([1, 2, 3])
    assert (p.shape, p.dtype, p.requires_grad) == ((3,), np.float32, True)
    np.testing.assert_array_equal(p.numpy(), [1, 2, 3])
    assert nn.Parameter(np.zeros(2)).dtype == np.float64
    assert nn.Parameter(dk.ones(2)).dtype == np.float32
    assert nn.Parameter(3.5).shape == ()
    assert nn.Parameter((2, 3), nn.init.zeros).shape == (2, 3)
    assert nn.Parameter(4, nn.init.zeros, dtype="float64").dtype == np.float64


def test_wrong_parameters_are_one_sentence():
    with pytest.raises(ValueError, match=r"must be positive, not \(2, 0\)"):
        nn.Parameter((2, 0), nn.init.zeros)
    with pytest.raises(TypeError, match="expected float values, not int64"):
        nn.Parameter(np.zeros(2), dtype="int64")
    with pytest.raises(ValueError, match=r"gave shape \(3,\) instead of \(2,\)"):
        nn.Parameter(2, lambda shape, rng, dtype: np.zeros(3)).numpy()
    with pytest.raises(AttributeError, match="no attribute 'data_ptr'"):
        nn.Parameter([1.0]).data_ptr
