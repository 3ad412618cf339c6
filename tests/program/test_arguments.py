"""What happens to the arguments and results of a captured step: the same as without the capture."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_capture import DEVICES

import deepkit as dk
from deepkit import nn, ops


@pytest.fixture(params=DEVICES)
def device(request):
    with dk.device(request.param):
        yield request.param


@pytest.mark.parametrize("step", [lambda x: x, lambda x: x.reshape(2, 1), lambda x: (x, [x])])
def test_a_returned_argument_is_a_copy(device, step):
    captured = dk.capture(step)
    found = [captured(dk.tensor([v, v])) for v in (1.0, 2.0, 3.0)]
    for v, result in zip((1.0, 2.0, 3.0), found, strict=True):
        first = result[0] if isinstance(result, tuple) else result
        assert np.all(first.numpy() == v)


def test_an_argument_changed_in_place_is_changed(device):
    def run(step):
        mean, var = dk.zeros(2), dk.ones(2)
        for k in range(3):
            step(dk.tensor(np.float32([[1, 2], [3, 5 + k]])), mean, var)
        return mean.tolist() + var.tolist()

    def step(x, mean, var):
        return ops.batch_norm(x, None, None, mean, var, training=True)

    assert run(dk.capture(step)) == run(step)


def test_a_parameter_as_argument_moves(device):
    def run(wrap):
        p = nn.Parameter(np.ones(2, np.float32))
        opt = dk.optim.SGD([p], 0.1)

        def step(w, x):
            opt.zero_grad()
            (w * x).sum().backward()
            opt.step()

        step = wrap(step)
        for _ in range(3):
            step(p, dk.tensor([1.0, 2.0]))
        return p.tolist()

    assert run(dk.capture) == run(lambda step: step) != [1, 1]


def test_gradients_of_an_argument_are_seen_inside(device):
    x = dk.tensor([1.0, 2.0], requires_grad=True)
    step = dk.capture(lambda x: ((x * x * x).sum().backward(), x.grad)[1])
    assert [step(x).tolist() for _ in range(3)] == [[3, 12], [6, 24], [9, 36]]


def test_weights_of_a_moved_module_are_found_again(device):
    model = nn.Linear(3, 2)
    penalty = dk.capture(lambda: (model.weight * model.weight).sum())
    assert penalty().item() > 0
    model.astype("float64").astype("float32")
    model.load_state_dict({name: v * 0 for name, v in model.state_dict().items()})
    assert penalty().item() == 0


def test_a_history_cannot_be_passed_in(device):
    p = dk.tensor([1.0], requires_grad=True)
    with pytest.raises(dk.CaptureError, match=r"has a history.*pass x.detach\(\)"):
        dk.capture(lambda h: (h * h).sum().backward())(p * 3)


def test_tensors_cannot_hide_in_a_result():
    @dataclasses.dataclass
    class Out:
        loss: object

    with pytest.raises(dk.CaptureError, match="not Out"):
        dk.capture(lambda x: Out(x.sum()))(dk.ones(2))


@pytest.mark.parametrize(
    "call",
    [
        lambda: ops.conv2d(dk.tensor(np.ones((2, 4, 4, 1), np.uint8)), dk.ones(2, 3, 3, 1)),
        lambda: ops.linear(dk.ones(2, 3), dk.ones(2, 3), dk.tensor([1, 2])),
        lambda: ops.linear(dk.tensor(np.ones((2, 3), bool)), dk.ones(2, 3)),
        lambda: nn.BatchNorm1d(3)(dk.tensor(np.ones((4, 3), np.int64))),
    ],
)
def test_whole_numbers_among_floats_are_refused(device, call):
    with pytest.raises(TypeError, match="expected float inputs, not"):
        call()


def test_an_index_tensor_out_of_range_is_refused(device):
    with pytest.raises(IndexError, match=r"-1\.\.5 is out of range for axis 0 of length 3"):
        dk.tensor([1.0, 2.0, 3.0])[dk.tensor([5, -1])]


def test_an_output_changed_in_place_has_no_gradient(device):
    x = dk.tensor([1.0, 2.0], requires_grad=True)
    y = x.exp()
    loss = (y * 1.0).sum()
    y.detach().write([7.0, 7.0])
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()
