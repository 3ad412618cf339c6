"""A captured step gives the numbers of the eager one, bit for bit, and says what it cannot do."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import tracemalloc

import numpy as np
import pytest

import deepkit as dk
from deepkit import nn, ops

DEVICES = dk.devices()


class Net(nn.Module):
    """A little of everything that keeps state: batch norm, dropout, pooling, shared weights."""

    def __init__(self) -> None:
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.3)
        self.shared = nn.Linear(4 * 16, 4 * 16)
        self.out = nn.Linear(4 * 16, 5)

    def forward(self, x):
        h = self.drop(self.pool(ops.relu(self.norm(self.conv(x))))).flatten(1)
        return self.out(ops.relu(self.shared(ops.relu(self.shared(h)))))


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2, activation="relu"),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5, activation="relu"),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120, activation="relu"),
        nn.Linear(120, 84, activation="relu"),
        nn.Linear(84, 10),
    )


OPTIMISERS = {
    "sgd": lambda p: dk.optim.SGD(p, 0.05, momentum=0.9, weight_decay=1e-3),
    "adam": lambda p: dk.optim.Adam(p, 1e-2),
}


def training(make, device, optimiser):
    """A model, its training step and its optimiser, the same for the same arguments."""
    dk.seed(7)
    with dk.device(device):
        model = make()
        opt = OPTIMISERS[optimiser](model.parameters())

    def step(x, y):
        opt.zero_grad()
        loss = ops.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    return model, step, opt


def batches(sizes, size, classes, device, seed=0):
    rng = np.random.default_rng(seed)
    for n in sizes:
        x = rng.standard_normal((n, size, size, 1)).astype(np.float32)
        y = rng.integers(0, classes, n)
        yield dk.tensor(x, device=device), dk.tensor(y, device=device)


def state_of(model):
    return {name: values.copy() for name, values in model.state_dict().items()}


def same_states(a, b):
    a, b = state_of(a), state_of(b)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


def programs_of(captured):
    return [program for found in captured.programs.values() for program in found]


def poison(captured):
    """Every byte of every arena: NaN to floats, -1 to integers."""
    for program in programs_of(captured):
        program.arena[:] = 255


SIZES = (16, 16, 5, 16, 5, 1, 16, 1, 16)  # short batches, interleaved


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("device", DEVICES)
def test_replay_equals_eager_bit_for_bit(device, optimiser):
    data = list(batches(SIZES, 8, 5, device))
    eager_model, eager, _ = training(Net, device, optimiser)
    expected = [eager(x, y).numpy() for x, y in data]
    model, step, _ = training(Net, device, optimiser)  # seeds again: dropout draws the same masks
    step = dk.capture(step)
    for (x, y), loss in zip(data, expected, strict=True):
        assert step(x, y).numpy().tobytes() == loss.tobytes()
        poison(step)
    same_states(model, eager_model)
    assert len(programs_of(step)) == len(set(SIZES))


@pytest.mark.parametrize("device", DEVICES)
def test_lenet_replays(device):
    eager_model, eager, _ = training(lenet, device, "sgd")
    model, step, _ = training(lenet, device, "sgd")
    step = dk.capture(step)
    for x, y in batches((32, 32, 7, 32, 7), 28, 10, device):
        assert step(x, y).numpy().tobytes() == eager(x, y).numpy().tobytes()
        poison(step)
    same_states(model, eager_model)
    for program in programs_of(step):
        assert program.bound <= program.peak <= 1.05 * program.bound
        assert f"lower bound {program.bound:,} B" in program.dump()


@pytest.mark.parametrize("device", DEVICES)
def test_a_steady_step_allocates_nothing(device):
    _, step, _ = training(lenet, device, "sgd")
    step = dk.capture(step)
    ((x, y),) = batches((64,), 28, 10, device)
    for _ in range(3):
        step(x, y)
    tracemalloc.start()
    try:
        for _ in range(3):
            step(x, y)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(3):
            step(x, y)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # What remains are Python's own objects (views, tuples, the tensor that carries the loss out)
    # and, on NumPy, the buffers through which its ufuncs walk strided operands: of fixed size, and
    # far smaller than the first layer's output (1.2 MB).
    ufuncs = 4 * np.getbufsize() * 8 if device == "numpy" else 0
    assert peak - before < 8192 + ufuncs


@pytest.mark.parametrize("device", DEVICES)
def test_a_long_run_does_not_grow(device):
    _, step, _ = training(Net, device, "adam")
    step = dk.capture(step)
    ((x, y),) = batches((2,), 8, 5, device)
    for _ in range(400):  # until Python's own free lists are full
        step(x, y)
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(400):
        step(x, y)
    gc.collect()
    assert sys.getallocatedblocks() - before < 400  # less than one object a step


@pytest.mark.parametrize("device", DEVICES)
def test_inference_replays_and_follows_the_weights(device):
    model, step, _ = training(Net, device, "sgd")
    data = list(batches((6, 6), 8, 5, device))
    predict = dk.capture(lambda x: model(x), fuse="exact")
    model.eval()
    with dk.no_grad():
        first = predict(data[0][0]).numpy()
        assert np.array_equal(first, model(data[0][0]).numpy())
    model.train()
    step(*data[1])
    model.eval()
    with dk.no_grad():
        again = predict(data[0][0]).numpy()
        assert not np.array_equal(first, again)
        assert np.array_equal(again, model(data[0][0]).numpy())


@pytest.mark.parametrize("device", DEVICES)
def test_train_and_eval_have_programs_of_their_own(device):
    model, _, _ = training(Net, device, "sgd")
    ((x, _),) = batches((16,), 8, 5, device)
    run = dk.capture(lambda x: model(x), fuse="exact")
    with dk.no_grad():
        for _ in range(2):
            model.train()
            trained = run(x).numpy()
            model.eval()
            evaluated = run(x).numpy()
            assert np.array_equal(evaluated, model(x).numpy())
            assert not np.array_equal(trained, evaluated)


def test_frozen_parameters_stop_a_program():
    model, step, _ = training(lenet, "numpy", "sgd")
    step = dk.capture(step)
    ((x, y),) = batches((8,), 28, 10, "numpy")
    step(x, y)
    step(x, y)
    first = next(iter(model.parameters()))
    first.requires_grad = False
    before = first.numpy()
    step(x, y)
    step(x, y)
    assert np.array_equal(first.numpy(), before)
    assert len(programs_of(step)) == 2


def test_results_are_copies():
    double = dk.capture(lambda x: x * 2)
    first = double(dk.tensor([1.0, 2.0]))
    second = double(dk.tensor([3.0, 4.0]))
    third = double(dk.tensor([5.0, 6.0]))
    assert [t.tolist() for t in (first, second, third)] == [[2, 4], [6, 8], [10, 12]]


def test_nested_arguments_and_results():
    @dk.capture
    def step(pair, *, scale, options):
        a, b = pair
        return {"sum": a + b, "scaled": [a * scale, options["shift"] + b], "note": "kept"}

    for k in range(3):
        a, b = np.float32([k, 1]), dk.tensor([2.0, k])
        out = step((a, b), scale=3, options={"shift": b})
        assert out["sum"].tolist() == [k + 2, k + 1]
        assert out["scaled"][0].tolist() == [3 * k, 3]
        assert out["scaled"][1].tolist() == [4, 2 * k]
        assert out["note"] == "kept"


def test_numbers_are_part_of_the_key():
    step = dk.capture(lambda x, factor: x * factor)
    x = dk.tensor([1.0])
    assert [step(x, f).item() for f in (2.0, 3.0, 2.0)] == [2.0, 3.0, 2.0]
    assert len(programs_of(step)) == 2
    for f in range(4, 33):
        step(x, float(f))
    with pytest.warns(UserWarning, match="passed as a tensor"):
        step(x, 0.0)


def test_gradients_of_the_arguments():
    x = dk.tensor([1.0, 2.0], requires_grad=True)
    step = dk.capture(lambda x: (x * x).sum().backward())
    for k in range(1, 4):
        step(x)
        assert x.grad.tolist() == [2.0 * k, 4.0 * k]


def test_gradients_accumulate_as_in_eager():
    w = dk.tensor([3.0], requires_grad=True)
    step = dk.capture(lambda x: (w * x).sum().backward())
    for k in range(1, 4):
        step(dk.tensor([2.0]))
        assert w.grad.tolist() == [2.0 * k]
    w.grad = None
    step(dk.tensor([2.0]))
    assert w.grad.tolist() == [2.0]


def test_setting_the_gradient_to_none_inside():
    w = dk.tensor([3.0], requires_grad=True)

    @dk.capture
    def step(x):
        w.grad = None
        (w * x).sum().backward()

    for k in range(1, 4):
        step(dk.tensor([float(k)]))
        assert w.grad.tolist() == [k]


def test_second_derivatives_inside():
    @dk.capture
    def curvature(x):
        with dk.enable_grad():
            x.requires_grad = True
            (g,) = dk.grad((x**2 * x).sum(), [x], create_graph=True)
            (h,) = dk.grad(g.sum(), [x])
        return h

    for k in range(3):
        assert curvature(dk.tensor([1.0 + k])).tolist() == [6.0 * (1 + k)]


def test_the_learning_rate_may_change_between_steps():
    eager_model, eager, eager_opt = training(lenet, "numpy", "adam")
    model, step, opt = training(lenet, "numpy", "adam")
    step = dk.capture(step)
    for i, (x, y) in enumerate(batches((8,) * 5, 28, 10, "numpy")):
        opt.lr = eager_opt.lr = 0.01 / (i + 1)
        assert step(x, y).item() == eager(x, y).item()
    same_states(model, eager_model)
    assert len(programs_of(step)) == 1


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (lambda x: float((x * 2).sum()), r"the result of 'sum'.*read on the host while a step"),
        (lambda x: np.asarray(x * 2), r"read on the host while a step was being captured"),
        (lambda x: bool((x > 0).sum() > 1), r"read on the host"),
        (lambda x: x + dk.rand(2), r"random numbers were drawn on the host"),
        (lambda x: x[x > 0], r"a boolean mask has no fixed shape"),
        (lambda x: dk.zeros(2).write([1, 2]), r"a value was written from the host"),
    ],
)
def test_what_a_capture_refuses(bad, sentence):
    step = dk.capture(bad)
    for _ in range(2):
        with pytest.raises(dk.CaptureError, match=sentence):
            step(dk.tensor([1.0, 2.0]))
    assert not programs_of(step)
    assert float(dk.tensor([1.0]).sum()) == 1.0  # the capture is over


@pytest.mark.skipif("numba" not in DEVICES, reason="needs a second device")
def test_a_step_stays_on_one_device():
    step = dk.capture(lambda x: x.to("numba"))
    with pytest.raises(dk.CaptureError, match=r"devices cannot be changed inside"):
        step(dk.ones(2, device="numpy"))


@pytest.mark.skipif("numba" not in DEVICES, reason="needs a second device")
def test_arguments_are_on_one_device():
    step = dk.capture(lambda x, y: (x * 2.0, y * 2.0))
    with pytest.raises(dk.CaptureError, match="this one uses 'numba' and 'numpy'"):
        step(dk.ones(2, device="numpy"), dk.ones(2, device="numba"))


@pytest.mark.parametrize("thing", [3, "step"])
def test_only_functions_are_captured(thing):
    with pytest.raises(TypeError, match=f"capture: expected a function, not {thing!r}"):
        dk.capture(thing)


def test_unhashable_arguments_are_refused():
    with pytest.raises(dk.CaptureError, match="not set"):
        dk.capture(lambda x, s: x)(dk.ones(1), {1, 2})


@dk.capture
def doubled(x):
    return x * 2.0


def test_a_captured_function_is_pickled_by_its_name():
    assert pickle.loads(pickle.dumps(doubled)) is doubled


def test_a_capture_inside_a_capture_is_part_of_it():
    inner = dk.capture(lambda x: x + 1)
    outer = dk.capture(lambda x: inner(x) * 2)
    assert [outer(dk.tensor([k])).item() for k in (1.0, 2.0)] == [4.0, 6.0]
    assert not inner.programs


# a captured step as an object ---------------------------------------------------------------------


def test_as_text_a_step_is_one_line_a_program():
    model, step, _ = training(Net, "numpy", "sgd")
    step = dk.capture(step)
    assert repr(step) == "<captured step>\nno programs yet"
    for x, y in batches((4, 3, 4), 8, 5, "numpy"):
        step(x, y)
    first, second = repr(step.programs).splitlines()
    assert repr(step) == f"<captured step>\n{first}\n{second}"
    (program, _) = programs_of(step)
    assert first == (
        f"(4, 8, 8, 1), (4,), training, on 'numpy': {len(program.lines)} launches, "
        f"arena {program.peak:,} B"
    )
    assert second.startswith("(3, 8, 8, 1), (3,), training, on 'numpy': ")
    assert step.dump().count("program on 'numpy'") == 2

    predict = dk.capture(lambda x, options: model(x) * options["scale"])
    model.eval()
    with dk.no_grad():
        predict(dk.ones(1, 8, 8, 1), {"scale": 0.5})
    assert repr(predict.programs).startswith("(1, 8, 8, 1), 0.5, eval, no_grad, on 'numpy': ")


def test_a_captured_step_keeps_the_name_and_the_words_of_the_step():
    @dk.capture
    def double(x):
        """y = 2 x."""
        return x * 2

    assert (double.__name__, double.__doc__) == ("double", "y = 2 x.")
    model = nn.Sequential(nn.Linear(2, 1))
    captured = dk.capture(model)
    assert captured(dk.ones(3, 2)).shape == (3, 1)
    assert repr(captured).startswith("<captured Sequential>")


class Scaled(nn.Module):
    def __init__(self, factor):
        self.factor = nn.Parameter([factor])

    def forward(self, x):
        return x * self.factor

    @dk.capture
    def loss(self, x, power=1):
        """The mean of the result's power."""
        return (self(x) ** power).mean()


def test_a_method_may_be_captured():
    two, three = Scaled(2.0), Scaled(3.0)
    x = dk.tensor([1.0, 3.0])
    for _ in range(2):
        assert [m.loss(x).item() for m in (two, three)] == [4.0, 6.0]
        assert two.loss(x, power=2).item() == 20.0
        assert Scaled.loss(three, x).item() == 6.0
    assert len(programs_of(Scaled.loss)) == 3
    assert two.loss.programs is Scaled.loss.programs
    assert two.loss.__doc__ == "The mean of the result's power."
    two.factor.write([10.0])
    assert two.loss(x).item() == 20.0


def test_a_bound_method_may_be_captured_and_a_copy_of_its_object_has_its_own():
    model = Scaled(2.0)
    model.fast = dk.capture(model.forward)
    twin = copy.deepcopy(model)
    twin.factor.write([5.0])
    for _ in range(2):
        assert model.fast(dk.tensor([1.0])).item() == 2.0
        assert twin.fast(dk.tensor([1.0])).item() == 5.0
    assert len(programs_of(model.fast)) == 1
