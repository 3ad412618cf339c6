"""What of a captured step is state, what is its own, and what it was captured for."""

import numpy as np
import pytest

import deepkit as dk
from deepkit import nn


@pytest.fixture(autouse=True, params=dk.devices())
def device(request):
    with dk.device(request.param):
        yield request.param


def test_the_gradient_of_an_argument_is_copied_out():
    @dk.capture
    def saliency(x):
        (x * x).sum().backward()
        return x.grad

    first = saliency(dk.tensor([1.0, 2.0], requires_grad=True))
    for scale in (10.0, 100.0):
        saliency(dk.tensor([scale, scale], requires_grad=True))
    assert first.numpy().tolist() == [2, 4]


def test_constants_made_inside_are_new_in_every_replay():
    """An adversarial step: d starts at zero each time."""

    def attack(x):
        d = dk.zeros(2, requires_grad=True)
        for _ in range(2):
            d.grad = None
            ((x + d) ** 2).sum().backward()
            with dk.no_grad():
                d += 0.1 * d.grad
        return x + d.detach()

    run = dk.capture(attack)
    for _ in range(3):
        np.testing.assert_array_equal(run(dk.ones(2)).numpy(), attack(dk.ones(2)).numpy())


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_filled_inside(dtype):
    def step(x):
        return (
            dk.zeros(3, 2, dtype=dtype),
            dk.ones((2,), dtype=dtype),
            dk.full((2, 2), 1, None, dtype),
        )

    run = dk.capture(step)
    for _ in range(2):
        for a, b in zip(run(dk.ones(1)), step(dk.ones(1)), strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_constant_is_returned_as_a_copy():
    run = dk.capture(lambda x, y: (x + 0.0, dk.tensor([3.0, 4.0]), dk.zeros(2) + y))
    for _ in range(2):
        constant = run(dk.ones(2), dk.ones(2))[1]
        constant.write([9.0, 9.0])
    assert run(dk.ones(2), dk.ones(2))[1].numpy().tolist() == [3, 4]


def test_values_of_the_host_are_not_changed_in_place():
    def step(x):
        d = dk.tensor([1.0, 2.0], requires_grad=True)
        with dk.no_grad():
            d += x
        return d * 1.0

    with pytest.raises(dk.CaptureError, match="made from values of the host inside"):
        dk.capture(step)(dk.ones(2))


def test_adam_begins_inside_of_a_capture():
    """Its counters and moments, and the random state, are born there and stay."""

    def run(capture):
        dk.seed(1)
        model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        optimizer = dk.optim.Adam(model.parameters(), lr=0.1)

        def step(x):
            optimizer.zero_grad()
            loss = (model(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        step = dk.capture(step) if capture else step
        return [step(dk.ones(5, 3)).item() for _ in range(4)]

    assert run(True) == run(False)


def test_one_tensor_given_twice():
    @dk.capture
    def both(a, b):
        (a * 2.0 + b * 3.0).sum().backward()

    for _ in range(2):
        x = dk.tensor([1.0], requires_grad=True)
        both(x, x)
        assert x.grad.item() == 5
    x, y = (dk.tensor([1.0], requires_grad=True) for _ in range(2))
    both(x, y)
    assert (x.grad.item(), y.grad.item()) == (2, 3)

    @dk.capture
    def changed(a, b):
        with dk.no_grad():
            a += 1.0
            return b * 1.0

    for _ in range(2):
        x = dk.tensor([1.0], requires_grad=True)
        assert changed(x, x).item() == 2


def test_the_same_array_given_twice():
    run = dk.capture(lambda a, b, c: (a + 2.0 * b, c))
    array = np.ones(2, np.float32)
    for scale in (1.0, 3.0):
        total, last = run(array * scale, array, dk.tensor([7.0]))
        assert total.numpy().tolist() == [scale + 2] * 2
        assert last.item() == 7
    assert run(array, array, dk.tensor([8.0]))[0].numpy().tolist() == [3, 3]


def test_the_sign_of_zero_is_part_of_the_key():
    run = dk.capture(lambda x, s: x * s)
    signs = [np.signbit(run(dk.ones(1), s).numpy())[0] for s in (0.0, -0.0, 0.0)]
    assert signs == [False, True, False]
    assert len(run.programs) == 2
    for _ in range(2):
        assert np.isnan(run(dk.ones(1), float("nan")).item())
    assert len(run.programs) == 3


def test_the_device_in_force_is_part_of_the_key():
    run = dk.capture(lambda n: dk.ones(n).exp())
    for name in dk.devices():
        with dk.device(name):
            assert run(3).device == name


def test_an_exchanged_module_is_seen_however_the_step_reaches_it():
    class Net(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(2, 2)

        @dk.capture
        def predict(self, x):  # the module itself is never called
            return self.layer(x)

    net, x = Net(), dk.ones(1, 2)
    around = dk.capture(lambda x: net.layer(x))
    net.predict(x), around(x)
    net.layer = nn.Linear(2, 2)
    for run in (net.predict, around):
        np.testing.assert_array_equal(run(x).numpy(), net.layer(x).numpy())


def test_a_buffer_is_not_bound_anew_inside():
    class Mean(nn.Module):
        def __init__(self):
            self.register_buffer("mean", dk.zeros(1))

        def forward(self, x):
            self.mean = self.mean * 0.5 + x.mean() * 0.5
            return x - self.mean

    model = Mean()
    with pytest.raises(dk.CaptureError, match="the buffer 'mean' was bound to another tensor"):
        dk.capture(lambda x: model(x))(dk.ones(1))

    class Written(Mean):
        def forward(self, x):
            with dk.no_grad():
                dk.ops.assign_(self.mean, self.mean * 0.5 + x.mean() * 0.5)
            return x - self.mean

    model = Written()
    run = dk.capture(lambda x: model(x))
    assert [run(dk.ones(1)).item() for _ in range(3)] == [0.5, 0.25, 0.125]


def test_no_images_give_no_gradient():
    x, w = dk.zeros(0, 64, requires_grad=True), dk.ones(10, 64, requires_grad=True)
    junk = [dk.randn(10, 64) for _ in range(20)]
    del junk
    dk.ops.linear(x, w).sum().backward()
    assert not w.grad.numpy().any()


# memory that a replay changes under a graph -------------------------------------------------------


def test_a_graph_over_weights_that_a_replay_moved_is_refused():
    w = nn.Parameter(np.float32([1, 2]))
    opt = dk.optim.SGD([w], 0.5)

    @dk.capture
    def step(x):
        opt.zero_grad()
        (w * x).sum().backward()
        opt.step()

    for _ in range(3):  # recorded once, replayed twice
        loss = (w * w).sum()
        step(dk.ones(2))
        with pytest.raises(RuntimeError, match=r"mul: an input .* was changed in place"):
            loss.backward()


def test_a_graph_over_an_argument_that_a_replay_changed_is_refused():
    @dk.capture
    def shift(x):
        dk.ops.assign_(x, x + 1.0)

    w = dk.ones(2, requires_grad=True)
    for _ in range(3):
        x = dk.ones(2)
        loss = (x * w).sum()
        shift(x)
        assert x.tolist() == [2, 2]
        with pytest.raises(RuntimeError, match=r"mul: an input .* was changed in place"):
            loss.backward()


def test_a_graph_over_an_argument_that_a_replay_only_read_is_sound():
    read = dk.capture(lambda x: x * 3.0)
    x, w = dk.ones(2), dk.ones(2, requires_grad=True)
    for k in range(1, 4):
        loss = (x * w).sum()
        read(x)
        loss.backward()
        assert w.grad.tolist() == [k, k]


def test_whether_gradients_are_recorded_is_part_of_the_key():
    w = dk.tensor([3.0], requires_grad=True)

    @dk.capture
    def step(x):
        y = (w * x).sum()
        if y.requires_grad:
            y.backward()
        return y

    for k in range(1, 4):
        with dk.no_grad():
            assert step(dk.ones(1)).item() == 3
        assert step(dk.ones(1)).item() == 3
        assert w.grad.item() == k
    assert len(step.programs) == 2
