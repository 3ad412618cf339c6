"""What happens to the arguments and results of a captured step: the same as without the capture."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

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


class Pair(NamedTuple):
    left: dk.Tensor
    right: dk.Tensor


def test_tuples_with_names_keep_them(device):
    swap = dk.capture(lambda pair: [Pair(pair.right, pair.left * 2.0)])
    for k in range(3):
        (found,) = swap(Pair(dk.tensor([float(k)]), dk.tensor([5.0])))
        assert isinstance(found, Pair)
        assert (found.left.item(), found.right.item()) == (5, 2 * k)


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


def test_a_gradient_that_an_argument_brings_is_added_to(device):
    step = dk.capture(lambda x: ((x * x).sum().backward(), x.grad)[1])
    for _ in range(3):
        x = dk.tensor([1.0, 2.0], requires_grad=True)
        x.grad = dk.tensor([10.0, 20.0])
        assert step(x).tolist() == x.grad.tolist() == [12, 24]
    y = dk.tensor([1.0, 2.0], requires_grad=True)
    assert step(y).tolist() == [2, 4]


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
    with pytest.raises(RuntimeError, match=r"mul: an input .* was changed in place"):
        loss.backward()
    with pytest.raises(RuntimeError, match=r"exp: its output .* was changed in place"):
        y.backward(dk.ones(2))  # nobody has read it, but its own gradient is made of it


# what a step finds in Python objects --------------------------------------------------------------


def both(run):
    """The same with and without the capture."""
    return run(dk.capture), run(lambda step: step)


def test_a_captured_optimiser_step_sees_gradients_that_come_later(device):
    def run(wrap):
        p = nn.Parameter(np.ones(2, np.float32))
        q = nn.Parameter(np.ones(2, np.float32))
        opt = dk.optim.SGD([p, q], 0.1)
        step, seen = wrap(opt.step), []
        for backward in (None, p, q, None):
            if backward is not None:
                (backward * 2.0).sum().backward()
            step()
            seen.append(p.tolist() + q.tolist())
        opt.zero_grad()
        step()
        return [*seen, p.tolist() + q.tolist()]

    captured, eager = both(run)
    assert captured == eager
    assert len({tuple(row) for row in eager}) == 4  # nothing moves before the first gradient


def test_clipping_sees_gradients_that_come_later(device):
    def run(wrap):
        p = nn.Parameter(np.ones(2, np.float32))
        clip = wrap(lambda: dk.optim.clip_grad_norm([p], 1.0))
        norms = [clip().item()]
        (p * 3.0).sum().backward()
        return [*norms, clip().item(), *p.grad.tolist()]

    captured, eager = both(run)
    assert captured == eager
    assert eager[1] == pytest.approx(18**0.5)


def test_modules_appended_to_a_list_are_seen(device):
    class Net(nn.Module):
        def __init__(self):
            self.layers = [nn.Linear(3, 2)]

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    model, x = Net(), dk.ones(4, 3)
    run = dk.capture(lambda x: model(x))
    assert run(x).shape == (4, 2)
    model.layers.append(nn.Linear(2, 5))
    for _ in range(3):
        assert run(x).shape == (4, 5)
        assert np.array_equal(run(x).numpy(), model(x).numpy())
    assert sum(map(len, run.programs.values())) == 2  # a list that stays as it is costs nothing


def test_modules_in_dictionaries_and_nested_lists_are_seen(device):
    class Net(nn.Module):
        def __init__(self):
            self.heads = {"a": nn.Linear(3, 2)}
            self.blocks = ([nn.Linear(2, 2)],)

        def forward(self, x):
            for layer in [*self.heads.values(), *self.blocks[0]]:
                x = layer(x)
            return x

    model, x = Net(), dk.ones(4, 3)
    run = dk.capture(lambda x: model(x))
    run(x)
    model.heads["a"] = nn.Linear(3, 2)
    assert np.array_equal(run(x).numpy(), model(x).numpy())
    model.blocks[0].append(nn.Linear(2, 5))
    assert run(x).shape == (4, 5)
    assert np.array_equal(run(x).numpy(), model(x).numpy())


def test_a_result_without_history_says_so(device):
    w = dk.tensor([1.0, 2.0], requires_grad=True)
    loss = dk.capture(lambda x: (w * x).sum())(dk.ones(2))
    with pytest.raises(ValueError, match="for what a captured step computes, call"):
        loss.backward()


def test_modules_in_dictionaries_and_nested_lists_belong_to_a_model():
    class Net(nn.Module):
        def __init__(self):
            self.heads = {"a": nn.Linear(3, 2), "b": [nn.Linear(3, 1), (nn.Linear(2, 2),)]}

    names = [name for name, _ in Net().named_parameters()]
    assert names[:3] == ["heads.a.weight", "heads.a.bias", "heads.b.0.weight"]
    assert names[-1] == "heads.b.1.0.bias"


def test_adam_goes_on_after_its_model_has_moved(device):
    def run(wrap):
        dk.seed(0)
        model = nn.Linear(3, 2)
        opt = dk.optim.Adam(model.parameters(), 0.1)

        def step(x):
            opt.zero_grad()
            loss = (model(x) ** 2).mean()
            loss.backward()
            opt.step()
            return loss

        step, seen = wrap(step), []
        for dtype in ("float32", "float32", "float64", "float64", "float32"):
            model.astype(dtype)
            seen.append(step(dk.ones(4, 3, dtype=dtype)).item())
        return seen

    captured, eager = both(run)
    assert captured == eager


@pytest.mark.parametrize("fresh", [True, False])
def test_a_schedule_inside_of_a_capture_is_refused(fresh):
    p = nn.Parameter(np.ones(1, np.float32))
    opt = dk.optim.SGD([p], 0.5)
    schedule = dk.optim.StepLR(opt, 1, 0.5)
    (p * 2.0).sum().backward()
    if not fresh:
        opt.step()
    with pytest.raises(dk.CaptureError, match="outside of the step"):
        dk.capture(schedule.step)()


def test_changes_in_place_move_a_leaf(device):
    p = nn.Parameter(np.float32([1, 2]))
    same = p
    (p * 3.0).sum().backward()
    with pytest.raises(RuntimeError, match=r"dk.no_grad\(\)"):
        p -= 0.5 * p.grad
    with dk.no_grad():
        p -= 0.5 * p.grad
    assert p is same
    assert p.tolist() == [-0.5, 0.5]
    y = dk.tensor([1.0])
    z = y
    y += 1
    assert (y.item(), z.item()) == (2.0, 1.0)  # other tensors: a new one, as numbers do
