"""Captured inference: what depends on weights alone is kept, and follows every change of them."""

import numpy as np
import pytest

import deepkit as dk
from deepkit import nn
from deepkit.ops import relu

EVERY = pytest.mark.parametrize("device", dk.devices())
EXACT = 2e-6  # of the largest result, float32 against float64, where nothing but sums is rounded
WINOGRAD = 2e-5


@pytest.fixture(autouse=True)
def here(request):
    found = getattr(request.node, "callspec", None)
    with dk.device("numba" if found is None else found.params.get("device", "numba")):
        yield


def lines(run):
    return [line.name for found in run.programs.values() for p in found for line in p.lines]


def ahead(run):
    return [line.name for found in run.programs.values() for p in found for line in p.ahead_lines]


def settled(model, seed=0):
    """Running statistics as after some training, in eval mode."""
    rng = np.random.default_rng(seed)
    values = model.state_dict()
    for name, array in values.items():
        if name.endswith("running_mean"):
            values[name] = rng.standard_normal(array.shape).astype(array.dtype)
        elif name.endswith("running_var"):
            values[name] = rng.uniform(0.3, 3, array.shape).astype(array.dtype)
        elif array.ndim == 1:
            values[name] = rng.uniform(-2, 2, array.shape).astype(array.dtype)
    model.load_state_dict(values)
    return model.eval()


class Net(nn.Module):
    """Convolutions of all kinds before batch norms, with and without residual and activation."""

    def __init__(self, wide=16, activation="relu"):
        self.conv1, self.bn1 = nn.Conv2d(3, wide, 3, padding=1), nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide, activation=activation)
        self.conv3, self.bn3 = nn.Conv2d(wide, wide, 3, padding=1), nn.BatchNorm2d(wide)
        self.conv4 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False)
        self.bn4 = nn.BatchNorm2d(wide)
        self.conv5, self.bn5 = nn.Conv2d(wide, 6, 2, stride=2), nn.BatchNorm2d(6)
        self.out, self.norm = nn.Linear(6 * 4 * 5, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        x = relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(x))
        x = relu(x + self.bn3(self.conv3(y)))
        x = relu(x + self.bn4(self.conv4(x)))
        x = self.bn5(self.conv5(x))
        return self.norm(self.out(x.reshape(len(x), -1)))


def images(count, seed=1):
    values = np.random.default_rng([seed, count]).standard_normal((count, 9, 11, 3))
    return dk.tensor(values, dtype="float32")


def in_float64(model, x):
    """What the NumPy backend computes, eagerly, with the same weights."""
    with dk.device("numpy"), dk.no_grad():
        twin = type(model)(**getattr(model, "made_with", {})).astype("float64")
        twin.load_state_dict({k: v.astype(v.dtype) for k, v in model.state_dict().items()})
        return twin.eval()(dk.tensor(x.numpy().astype(np.float64))).numpy()


def close(got, want, bound):
    assert np.max(np.abs(got.numpy() - want)) <= bound * np.max(np.abs(want))


def captured(model, **options):
    def forward(x):
        with dk.no_grad():
            return model(x)

    return dk.capture(forward, **options)


@EVERY
@pytest.mark.parametrize("activation", [None, "relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("wide", [16, 5])
def test_folded_equals_float64_within_rounding(device, wide, activation):
    model = settled(Net(wide, activation))
    model.made_with = {"wide": wide, "activation": activation}
    run = captured(model)
    for count in (1, 3, 17, 5, 1):
        x = images(count)
        first = run(x)
        close(first, in_float64(model, x), WINOGRAD)
        np.testing.assert_array_equal(run(x).numpy(), first.numpy())
    each = 6 if device == "numba" else 4  # whose kernels add residuals
    assert ahead(run).count("fold_batch_norm") == each * 4


@EVERY
def test_exact_passes_change_no_bit(device):
    model = settled(Net())
    run = captured(model, fuse="exact")
    for count in (1, 3, 17):
        x = images(count)
        with dk.no_grad():
            want = model(x).numpy()
        for _ in range(3):
            np.testing.assert_array_equal(run(x).numpy(), want)
    assert "fold_batch_norm" not in ahead(run)


@EVERY
def test_a_folded_layer_is_as_exact_as_the_two(device):
    conv, norm = nn.Conv2d(4, 7, 3), nn.BatchNorm2d(7)
    model = settled(nn.Sequential(conv, norm))
    values = np.random.default_rng(0).standard_normal((9, 6, 5, 4))
    run, x = captured(model), dk.tensor(values, dtype="float32")
    run(x)
    assert lines(run)[-1] == "conv2d"
    w, b = (np.asarray(p.numpy(), np.float64) for p in (conv.weight, conv.bias))
    with dk.device("numpy"):
        y = dk.ops.conv2d(dk.tensor(x.numpy().astype("f8")), dk.tensor(w), dk.tensor(b)).numpy()
    gamma, beta, mean, var = (
        np.asarray(t.numpy(), np.float64)
        for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    close(run(x), (y - mean) / np.sqrt(var + norm.eps) * gamma + beta, EXACT)


@EVERY
def test_every_way_to_change_weights_is_seen(device):
    model = settled(Net())
    run, x = captured(model), images(2)
    run(x)

    def optimise():
        optimizer = dk.optim.SGD(model.parameters(), lr=0.3)
        model(x).sum().backward()
        optimizer.step()

    def train_captured():
        optimizer = dk.optim.Adam(model.parameters(), lr=0.05)

        @dk.capture
        def step(x):
            optimizer.zero_grad()
            model(x).sum().backward()
            optimizer.step()

        model.train()
        for _ in range(3):
            step(images(8))
        model.eval()

    def train_alone():
        model.train()
        model(images(6))
        model.eval()

    def write():
        model.conv2.weight.write(model.conv2.weight.numpy() * 2)

    def write_statistics():
        model.bn3.running_var.write(model.bn3.running_var.numpy() * 3)

    def in_place():
        with dk.no_grad():
            model.conv1.bias += 1.0

    def load():
        model.load_state_dict(settled(Net(), seed=5).state_dict())

    before = run(x).numpy()
    for change in (optimise, train_captured, train_alone, write, write_statistics, in_place, load):
        change()
        for _ in range(2):
            got = run(x)
            close(got, in_float64(model, x), WINOGRAD)
        assert not np.allclose(got.numpy(), before), change.__name__
        before = got.numpy()


@EVERY
def test_train_after_eval_uses_the_batch(device):
    model = settled(Net())
    run, x = captured(model), images(8)
    run(x)
    run(x)
    twin = settled(Net())
    twin.load_state_dict(model.state_dict())
    for mode in (True, False, True):
        model.train(mode)
        twin.train(mode)
        with dk.no_grad():
            want = twin(x).numpy()
        close(run(x), want, WINOGRAD)


def test_weights_are_prepared_only_when_they_changed():
    model = settled(Net())
    run, x = captured(model), images(1)
    run(x)
    ((program,),) = run.programs.values()
    count, prepare = [], program.prepare

    def counting():
        count.append(1)
        prepare()

    program.prepare = counting
    for expected in range(3):
        for _ in range(3):
            run(x)
        assert len(count) == expected
        model.conv1.weight.write(model.conv1.weight.numpy())


def test_a_backward_pass_keeps_every_launch():
    model = settled(Net())

    def step(x):
        y = model(x)
        y.sum().backward()
        return y

    run, x = dk.capture(step), images(2)
    want = model(x).numpy()
    for _ in range(2):
        np.testing.assert_array_equal(run(x).numpy(), want)
    assert ahead(run) == []


@EVERY
def test_what_a_step_writes_is_no_constant(device):
    w, scale = dk.randn(4, 3), dk.ones(4, 1)

    def step(x):
        with dk.no_grad():
            y = dk.ops.linear(x, w * scale)
            dk.ops.assign_(w, w + 1.0)
            return y

    run, twin, x = dk.capture(step), w.numpy(), dk.randn(2, 3)
    for _ in range(4):
        np.testing.assert_allclose(run(x).numpy(), x.numpy() @ twin.T, rtol=1e-5, atol=1e-5)
        twin = twin + 1


@EVERY
def test_constants_are_computed_once_and_results_are_fresh(device):
    w = dk.randn(4, 3)

    def step(x):
        doubled = w * 2.0
        return dk.ops.linear(x, doubled * 0.5), doubled + 0.0

    run, x = dk.capture(step), dk.randn(2, 3)
    first = run(x)
    second = run(x)
    assert "mul" in ahead(run)
    second[1].write(np.zeros((4, 3)))
    third = run(x)
    for a, b in zip(first, third, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_wish_for_direct_convolutions_is_respected():
    model = settled(nn.Sequential(nn.Conv2d(32, 32, 3, padding=1)))
    x = dk.randn(1, 12, 12, 32)
    run = captured(model)
    with dk.no_grad():
        exact = model(x).numpy()
    run(x)
    assert not np.array_equal(run(x).numpy(), exact)  # Winograd's
    with dk.using(conv2d="direct"):
        run(x)
        np.testing.assert_array_equal(run(x).numpy(), exact)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("size", [(4, 4), (9, 14), (7, 5), (17, 3)])
@pytest.mark.parametrize("channels,filters", [(16, 16), (16, 48), (128, 80), (32, 144)])
def test_winograd_of_a_few_images(count, size, channels, filters, monkeypatch):
    """Every shape of tiles and shares, against float64."""
    from deepkit.backends.numba import winograd_few

    monkeypatch.setattr(winograd_few, "pays", lambda *_: True)
    rng = np.random.default_rng([count, *size, channels, filters])
    conv = nn.Conv2d(channels, filters, 3, padding=(1, 0) if size[1] > 3 else 1)
    x = dk.tensor(rng.standard_normal((count, *size, channels)), dtype="float32")
    r = rng.standard_normal((count, *conv(x).shape[1:])).astype(np.float32)
    norm = nn.BatchNorm2d(filters)
    settled(norm)
    run = captured(lambda both: relu(norm(conv(both[0])) + both[1]))
    both = (x, dk.tensor(r))
    run(both)
    got = run(both).numpy()
    assert lines(run) == ["conv2d"]
    w, b = (t.numpy().astype(np.float64) for t in (conv.weight, conv.bias))
    with dk.device("numpy"):
        y = dk.ops.conv2d(
            dk.tensor(x.numpy().astype("f8")), dk.tensor(w), dk.tensor(b), padding=conv.padding
        ).numpy()
    gamma, beta, mean, var = (
        t.numpy().astype(np.float64)
        for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    want = np.maximum((y - mean) / np.sqrt(var + norm.eps) * gamma + beta + r, 0)
    assert np.max(np.abs(got - want)) <= WINOGRAD * np.max(np.abs(want))
