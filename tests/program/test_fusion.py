"""Passes make programs shorter and change no bit; where they may not, they do not."""

import numpy as np
import pytest

import deepkit as dk
from deepkit import nn
from deepkit.fusion import PASSES
from deepkit.ops import max_pool2d, relu

EVERY = pytest.mark.parametrize("device", dk.devices())


@pytest.fixture(autouse=True)
def here(request):
    found = getattr(request.node, "callspec", None)
    with dk.device("numpy" if found is None else found.params["device"]):
        yield


def names(step):
    """What the programs of a captured step launch, in order."""
    return [line.name for found in step.programs.values() for p in found for line in p.lines]


def trained(make, fuse, batches=(17, 17, 5)):
    """Losses and weights after a few steps, and what was launched; fuse=None: eager."""
    dk.seed(3)
    rng = np.random.default_rng(0)
    model = make()
    optimizer = dk.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def step(x, y):
        loss = dk.ops.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    run = step if fuse is None else dk.capture(step, fuse=fuse)
    losses = []
    for count in batches:
        x = dk.tensor(rng.standard_normal((count, 9, 8, 3)), dtype="float32")
        losses.append(run(x, dk.tensor(rng.integers(0, 4, count))).item())
    return losses, model.state_dict(), [] if fuse is None else names(run)


class Block(nn.Module):
    """conv -> batch norm -> (+ shortcut) -> relu -> max-pool, every part a layer of its own."""

    def __init__(self, window=2, stride=2):
        self.conv1, self.bn1 = nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.conv2, self.bn2 = nn.Conv2d(5, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.conv3 = nn.Conv2d(5, 4, 3, activation="relu")
        self.pool = nn.MaxPool2d(window, stride=stride)
        self.out = nn.Linear(4 * 3 * 3 if stride == 2 else 4 * 5 * 4, 4)

    def forward(self, x):
        x = relu(self.bn1(self.conv1(x)))
        x = relu(x + self.bn2(self.conv2(x)))
        x = self.pool(self.conv3(x))
        return self.out(x.reshape(len(x), -1))


@EVERY
@pytest.mark.parametrize("fuse", [True, False, *PASSES], ids=str)
@pytest.mark.parametrize("window,stride", [(2, 2), (3, 1)], ids=["tiles", "overlapping windows"])
def test_no_pass_changes_a_bit(device, fuse, window, stride):
    def make():
        return Block(window, stride)

    eager_losses, eager_weights, _ = trained(make, None)
    losses, weights, _ = trained(make, fuse)
    assert losses == eager_losses
    for name, values in eager_weights.items():
        np.testing.assert_array_equal(weights[name], values, err_msg=name)


@EVERY
def test_each_pass_finds_its_pattern(device):
    plain = trained(Block, False, (17,))[2]
    assert plain.count("relu") == 2
    assert trained(Block, "activation", (17,))[2].count("relu") == 1
    joined = trained(Block, "residual", (17,))[2]
    assert joined.count("relu") == 1
    assert joined.count("add") == plain.count("add") - 1
    turned = trained(Block, "relu_pool", (17,))[2]
    assert turned.index("relu_dx") < turned.index("max_pool2d_dx")
    assert plain.index("max_pool2d_dx") < plain.index("relu_dx")
    masked = trained(Block, ("activation", "relu_norm"), (17,))[2]
    assert masked.count("relu_dx") == plain.count("relu_dx") - 1
    assert "relu" not in trained(Block, True, (17,))[2]
    assert plain.count("assign_") == len(list(Block().parameters()))
    assert "assign_" not in trained(Block, "assign", (17,))[2]


def both(step, *arguments):
    """The results of a step, eager and replayed, which must be equal; and what was launched."""
    run = dk.capture(step)
    eager = step(*arguments)
    for _ in range(2):
        for a, b in zip(eager, run(*arguments), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    return names(run)


@EVERY
def test_what_is_seen_elsewhere_is_not_fused_away(device):
    conv, x = nn.Conv2d(3, 4, 3), dk.randn(17, 6, 6, 3)

    def returned(x):
        y = conv(x)
        return y, relu(y)

    def used_twice(x):
        y = conv(x)
        return (relu(y) * y,)

    def viewed(x):
        y = conv(x)
        return y.reshape(17, -1), relu(y)

    for step in (returned, used_twice, viewed):
        with dk.no_grad():
            assert "relu" in both(step, x)


@EVERY
def test_a_sum_with_a_batch_norm_stays_unless_relu_follows_alone(device):
    norm, x, r = nn.BatchNorm2d(3), dk.randn(17, 4, 4, 3), dk.randn(17, 4, 4, 3)
    for after in (
        lambda y: (y,),
        lambda y: (y.tanh(),),
        lambda y: (relu(y), y * 2.0),
        lambda y: (relu(y), relu(y)),
    ):
        with dk.no_grad():
            norm.eval()
            assert "add" in both(lambda x, r, after=after: after(norm(x) + r), x, r)
    with dk.no_grad():
        assert "add" not in both(lambda x, r: (relu(norm(x) + r),), x, r)


@EVERY
def test_of_two_batch_norms_in_a_sum_one_takes_the_other(device):
    """As in a residual block whose shortcut has a norm of its own."""
    left, right, x = nn.BatchNorm2d(3), nn.BatchNorm2d(3), dk.randn(17, 4, 4, 3)
    left.eval(), right.eval()
    with dk.no_grad():
        found = both(lambda x: (relu(left(x) + right(x * 2.0)),), x)
    assert found.count("batch_norm_infer") == 2
    assert not {"add", "relu"} & set(found)


@EVERY
def test_an_activation_of_another_shape_is_no_part_of_a_layer(device):
    conv, x = nn.Conv2d(3, 4, 3), dk.randn(17, 6, 6, 3)
    with dk.no_grad():
        assert "relu" in both(lambda x: (relu(conv(x).reshape(17, -1)),), x)
        assert "relu" not in both(lambda x: (relu(conv(x)).reshape(17, -1),), x)


@EVERY
def test_a_batch_norm_does_not_pass_what_reads_its_statistics(device):
    norm, x, r = nn.BatchNorm2d(3), dk.randn(17, 4, 4, 3), dk.randn(17, 4, 4, 3)
    eager = nn.BatchNorm2d(3)

    def step(norm, x, r):
        y = norm(x)
        before = norm.running_mean * 1.0
        return relu(y + r * before), before

    run = dk.capture(lambda x, r: step(norm, x, r))
    with dk.no_grad():
        for _ in range(3):
            for a, b in zip(step(eager, x, r), run(x, r), strict=True):
                np.testing.assert_array_equal(a.numpy(), b.numpy())


@EVERY
def test_the_mask_of_another_tensor_stays_where_it_is(device):
    """relu backward of something else than what was pooled."""
    x = dk.tensor(np.random.default_rng(0).standard_normal((17, 4, 4, 2)), requires_grad=True)

    def step(x):
        y = relu(x)
        loss = (max_pool2d(y * 2.0, 2) * 3.0).sum()
        loss.backward()
        return loss, x.grad

    x.grad = None
    eager = step(x)[1].numpy()
    run = dk.capture(step)
    for _ in range(2):
        x.grad = None
        np.testing.assert_array_equal(run(x)[1].numpy(), eager)


@EVERY
def test_the_mask_of_a_summand_stays_where_it_is(device):
    """A sum hands its gradient on as it is, but the pooled values are not those of the relu."""
    rng = np.random.default_rng(0)
    x = dk.tensor(rng.standard_normal((17, 4, 4, 2)), requires_grad=True)
    r = dk.tensor(rng.standard_normal((17, 4, 4, 2)))

    def step(x, r):
        return (dk.grad((max_pool2d(relu(x) + r, 2) * 3.0).sum(), x),)

    assert both(step, x, r).count("relu_dx") == 1


@EVERY
def test_what_is_assigned_to_is_written_at_once_only_where_nobody_looks_in_between(device):
    w, x = dk.ones(4, 3), dk.randn(4, 3)

    def alone(x):
        dk.ops.assign_(w, x * 2.0)
        return (w + 0.0,)

    def made_of_itself(x):  # by way of a sum, which reads w before the product is there
        dk.ops.assign_(w, (w + x) * 0.5)
        return (w + 0.0,)

    def again(x):
        dk.ops.assign_(w, x * 2.0)
        dk.ops.assign_(w, x * 3.0)
        return (w + 0.0,)

    def read_by_its_source(x):
        dk.ops.assign_(w, w * x)
        return (w + 0.0,)

    def read_before(x):
        y, old = x * 2.0, w + 1.0
        dk.ops.assign_(w, y)
        return old, w + 0.0

    def read_after(x):
        y = x * 2.0
        dk.ops.assign_(w, y)
        return y + w, w + 0.0

    def written_before(x):
        y = x * 2.0
        dk.ops.fill_(w, value=7.0)
        z = w + y
        dk.ops.assign_(w, y)
        return z, w + 0.0

    def returned(x):
        y = x * 2.0
        dk.ops.assign_(w, y)
        return (y,)

    at_once = (alone, made_of_itself, again)
    for step in (*at_once, read_by_its_source, read_before, read_after, written_before, returned):
        run, seen = dk.capture(step, fuse="assign"), []
        for call in (step, run):
            w.write(np.ones((4, 3)))
            seen.append([[t.numpy() for t in (*call(x + float(k)), w)] for k in range(3)])
        np.testing.assert_array_equal(*seen, err_msg=step.__name__)
        assert ("assign_" not in names(run)) == (step in at_once), step.__name__


def test_neighbours_in_flat_memory_do_not_stand_in_each_others_way():
    with dk.device("numba"):
        model, x = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), dk.randn(5, 3)

        def step(x):
            model.zero_grad()
            model(x).sum().backward()
            (model(x) ** 2).sum().backward()

        run = dk.capture(step)
        step(x)
        want = [p.grad.numpy() for p in model.parameters()]
        for _ in range(3):
            run(x)
            for p, g in zip(model.parameters(), want, strict=True):
                np.testing.assert_array_equal(p.grad.numpy(), g)
        assert "assign_" not in names(run)
        assert names(run).count("accumulate_") == 4  # what the second pass adds


@pytest.mark.parametrize("device", ["numba"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "shape",
    [(17, 10), (70, 4, 21), (40, 1000), (3, 10), (2, 3, 17), (3, 1000), (1, 1), (2, 19, 16)],
    ids=str,
)
def test_a_loss_and_its_gradient_are_one_launch(shape, dtype, smoothing, reduction, device):
    """In lanes and, a few images, in C order; with short rows and with long ones."""
    rng = np.random.default_rng(shape)

    def step(x, labels, weights):
        x = x.detach().requires_grad_()
        loss = dk.ops.cross_entropy(x, labels, reduction=reduction, label_smoothing=smoothing)
        return loss, dk.grad((loss * weights).sum() if reduction == "none" else loss, x)

    logits, weights = (dk.tensor(rng.standard_normal(s), dtype=dtype) for s in (shape, shape[:-1]))
    launched = both(step, logits, dk.tensor(rng.integers(0, shape[-1], shape[:-1])), weights)
    # where the losses are read before the gradient is there, they are launches of their own
    assert ("label_cross_entropy_both" in launched) == (reduction != "none")


def test_an_unknown_pass_is_refused():
    with pytest.raises(ValueError, match=r"there is no pass 'magic'   \(there are: 'activation'"):
        dk.capture(lambda x: x, fuse="magic")


def test_capture_with_options_decorates():
    @dk.capture(fuse=False)
    def step(x):
        return relu(x * 2.0)

    assert step(dk.ones(3)).numpy().tolist() == [2, 2, 2]
