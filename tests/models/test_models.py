"""Models: their published sizes, a step through each, and how they are found by name."""

import tracemalloc

import numpy as np
import pytest

import deepkit as dk
from deepkit import models, nn, optim
from deepkit.summary import summary

# parameters, and multiply-adds of convolutions and linear layers in one forward pass, in 1e9
SIZES = {
    "lenet1": ((28, 28, 1), 3_246, None),
    "lenet5": ((28, 28, 1), 61_706, None),
    "alexnet": ((227, 227, 3), 60_965_224, None),
    "vgg11": ((224, 224, 3), 132_863_336, None),
    "vgg13": ((224, 224, 3), 133_047_848, None),
    "vgg16": ((224, 224, 3), 138_357_544, 15.47),
    "vgg19": ((224, 224, 3), 143_667_240, 19.63),
    "googlenet": ((224, 224, 3), 6_998_552, None),
    "resnet18": ((224, 224, 3), 11_689_512, 1.81),
    "resnet34": ((224, 224, 3), 21_797_672, 3.66),
    "resnet50": ((224, 224, 3), 25_557_032, 4.09),
    "resnet101": ((224, 224, 3), 44_549_160, 7.80),
    "resnet152": ((224, 224, 3), 60_192_808, 11.51),
    "lenet_bn": ((28, 28, 1), 6_306, None),  # our own
    "resnet20": ((32, 32, 3), 269_722, None),
    "resnet32": ((32, 32, 3), 464_154, None),
    "resnet44": ((32, 32, 3), 658_586, None),
    "resnet56": ((32, 32, 3), 853_018, None),
    "resnet110": ((32, 32, 3), 1_727_962, None),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_those_published(name):
    shape, parameters, multiplications = SIZES[name]
    model = models.get(name)
    found = summary(model, shape)
    assert found.parameters == sum(p.size for p in model.parameters()) == parameters
    if multiplications is not None:
        weighed = sum(r.operations for r in found.rows if r.kind in ("Conv2d", "Linear"))
        assert round(weighed / 2e9, 2) == multiplications
    assert all(p.is_lazy for p in model.parameters())


def test_variants_have_their_sizes():
    count = lambda model: sum(p.size for p in model.parameters())  # noqa: E731
    assert count(models.alexnet(grouped=False)) == 62_378_344
    assert count(models.googlenet(aux=True)) == 13_378_280
    assert count(models.lenet5(size=32)) == 61_706
    assert count(models.lenet5(26)) == 61_706 + 16 * 85
    assert count(models.mlp(784, 256, 128, 10)) == 235_146
    assert [count(layer) for layer in models.alexnet() if count(layer)] == [
        34_944,
        307_456,
        885_120,
        663_936,
        442_624,
        37_752_832,
        16_781_312,
        4_097_000,
    ]


def test_every_name_is_covered():
    assert {*SIZES, "mlp"} == set(models.names())


SMALL = [
    ("mlp", (12, 9, 4), {}, (3, 4)),
    ("lenet1", (), {"classes": 4}, (28, 28, 1)),
    ("lenet5", (), {"classes": 4}, (28, 28, 1)),
    ("lenet5", (), {"classes": 4, "size": 32, "channels": 3, "pool": "avg"}, (32, 32, 3)),
    ("resnet20", (4,), {}, (8, 8, 3)),
    ("resnet18", (4,), {}, (32, 32, 3)),
    ("resnet50", (4,), {"channels": 1}, (32, 32, 1)),
]


@pytest.mark.parametrize("name, args, options, shape", SMALL)
def test_a_step_trains_every_parameter(name, args, options, shape):
    dk.seed(0)
    model = models.get(name, *args, **options)
    opt = optim.SGD(model.parameters(), lr=0.01)
    before = model.state_dict()
    x = dk.randn(2, *shape)
    y = model(x)
    assert y.shape == (2, 4)
    dk.ops.cross_entropy(y, dk.tensor([1, 3])).backward()
    opt.step()
    after = model.state_dict()
    assert all(np.isfinite(v).all() for v in after.values())
    assert [k for k in before if np.array_equal(before[k], after[k])] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, options, shape",
    [
        ("vgg16", {"size": 32}, (32, 32, 3)),
        ("alexnet", {}, (227, 227, 3)),
        ("googlenet", {"aux": True}, (224, 224, 3)),
    ],
)
def test_large_models_run_forward_and_backward(name, options, shape):
    dk.seed(0)
    model = models.get(name, 5, **options)
    y = model(dk.randn(1, *shape))
    outputs = y if isinstance(y, tuple) else (y,)
    assert [o.shape for o in outputs] == [(1, 5)] * (3 if name == "googlenet" else 1)
    sum(o.sum() for o in outputs).backward()
    assert all(np.isfinite(p.grad.numpy()).all() for p in model.parameters())
    assert model.eval()(dk.randn(1, *shape)).shape == (1, 5)


def test_an_inception_joins_its_four_paths():
    from deepkit.models.googlenet import Inception

    block = Inception(6, 1, 2, 3, 2, 4, 5).astype("float64")
    x = dk.randn(2, 5, 4, 6, dtype="float64")
    y = block(x)
    assert y.shape == (2, 5, 4, 13)
    np.testing.assert_array_equal(y.numpy()[..., 1:4], block.three(x).numpy())


def test_option_a_takes_every_second_pixel_and_adds_zero_channels():
    from deepkit.models.resnet import Subsample

    x = dk.randn(1, 5, 4, 2)
    y = Subsample(6, 2)(x).numpy()
    assert y.shape == (1, 3, 2, 6)
    np.testing.assert_array_equal(y[..., 2:4], x.numpy()[:, ::2, ::2])
    assert not y[..., :2].any()
    assert not y[..., 4:].any()


@pytest.mark.parametrize("name", ["vgg16", "googlenet"])
def test_a_deep_net_without_batch_norm_keeps_the_size_of_a_signal(name):
    dk.seed(0)
    model = models.get(name, 10, channels=1, **({"size": 32} if name == "vgg16" else {}))
    spread = model.eval()(dk.randn(8, 32, 32, 1)).numpy().std(axis=0).mean()
    assert 0.01 < spread < 10  # 1e-4 with the layers' own weights: all images look the same


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: models.get("lenet6"), r"unknown model 'lenet6'   \(known models: mlp, lenet1, "),
        (
            lambda: models.get("lenet5", depth=3),
            r"model 'lenet5' has no option 'depth'   \(it has: classes, channels, size,",
        ),
        (
            lambda: models.get("resnet18", num_classes=3),
            r"model 'resnet18' has no option 'num_classes'; it is 'classes'   \(it has: ",
        ),
        (
            lambda: models.get("mlp", sizes=(1, 2)),
            r"has no option 'sizes'   \(it has: activation\)",
        ),
        (lambda: models.mlp(10), r"expected two or more sizes, such as .*, not \(10,\)"),
        (lambda: models.lenet5(size=30), "lenet5: size must be 28 or 32, not 30"),
        (lambda: models.lenet5(pool="min"), "lenet5: pool must be 'max' or 'avg', not 'min'"),
        (lambda: models.vgg16(size=50), "vgg16: size must be a multiple of 32, not 50"),
        (lambda: models.lenet5(0), "Linear: out must be a whole number of at least 1, not 0"),
    ],
)
def test_bad_names_and_options_are_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


# summary ------------------------------------------------------------------------------------------


def test_vgg16_is_summed_up_without_memory():
    tracemalloc.start()
    model = models.vgg16()
    text = str(summary(model, (224, 224, 3)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "138,357,544" in text
    assert peak < 2_000_000


def test_lenet5_takes_both_sizes_with_the_same_weights():
    def made(size=None):
        dk.seed(3)
        return models.lenet5(size=size)

    model = made()
    for size in (28, 32):
        x = dk.randn(2, size, size, 1)
        assert np.array_equal(model(x).numpy(), made(size)(x).numpy())
        found = summary(model, (size, size, 1))
        named = summary(made(size), (size, size, 1))
        assert found.parameters == 61_706
        assert [r.shape for r in found.rows] == [r.shape for r in named.rows]
        assert (found.connections, found.operations) == (named.connections, named.operations)
    with pytest.raises(dk.ShapeError, match="lenet5: images are 30x30, expected 28x28 or 32x32"):
        model(dk.randn(2, 30, 30, 1))


def test_lenet5_by_hand():
    rows = {row.name: row for row in summary(models.lenet5(), (28, 28, 1)).rows}
    table = [
        ("c1", (28, 28, 6), 156, 122_304, 2 * 117_600, 5),
        ("s2", (14, 14, 6), 0, 4_704, 4_704, 6),
        ("c3", (10, 10, 16), 2_416, 241_600, 2 * 240_000, 14),
        ("s4", (5, 5, 16), 0, 1_600, 1_600, 16),
        ("c5", (120,), 48_120, 48_120, 2 * 48_000, 32),
        ("f6", (84,), 10_164, 10_164, 2 * 10_080, 32),
        ("output", (10,), 850, 850, 2 * 840, 32),
    ]
    for name, shape, parameters, connections, operations, receptive in table:
        row = rows[name]
        assert (row.shape, row.parameters, row.connections) == (shape, parameters, connections)
        assert (row.operations, row.receptive) == (operations, (receptive, receptive))
    assert rows["c1"].weights == 4 * 156
    assert rows["c1"].activations == 4 * 28 * 28 * 6


@pytest.mark.parametrize(
    "layer, shape, parameters, connections",
    [
        # the lecture's 200 x 200 image: 40,000 units fully connected, and 10 x 10 windows
        (nn.Linear(40_000, 40_000, bias=False), (40_000,), 1_600_000_000, 1_600_000_000),
        (
            nn.LocallyConnected2d(1, 1, 10, 200, padding="same", bias=False),
            (200, 200, 1),
            4_000_000,
            4_000_000,
        ),
        (nn.Conv2d(1, 100, 10, bias=False), (200, 200, 1), 10_000, 100 * 191**2 * 100),
        (nn.ConvTranspose2d(3, 2, 4, stride=2), (5, 5, 3), 98, 25 * 3 * 16 * 2),
    ],
)
def test_sizes_of_single_layers(layer, shape, parameters, connections):
    found = summary(layer, shape)
    assert (found.parameters, found.connections) == (parameters, connections)
    assert f"{parameters:,}" in str(found)


class Branches(nn.Module):
    def __init__(self):
        self.wide = nn.Conv2d(1, 2, (5, 3), stride=2, padding=(2, 1))
        self.deep = nn.Sequential(
            nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.Conv2d(2, 2, 3, padding=1, dilation=2)
        )
        self.norm = nn.BatchNorm2d(2)
        self.drop = nn.Dropout(0.5)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        y = self.wide(x)
        return self.drop(self.norm(y + self.deep(x)[:, :1, :1]))


def test_any_module_is_summed_up_and_stays_as_it_was():
    model = nn.Sequential(branches=Branches(), frozen=nn.Conv2d(2, 1, 1).requires_grad_(False))
    model[0].norm(dk.randn(3, 4, 4, 2))  # it has memory and statistics, the others are lazy
    before = {k: v.numpy() for k, v in model.named_buffers()}
    draws = dk.random.get_state()
    found = summary(model, (9, 9, 1))
    rows = {row.name: row for row in found.rows}
    assert rows["branches.wide"].receptive == (5, 3)
    assert rows["branches.deep.1"].receptive == (11, 11)  # 3 + 2 (pixels apart) * 2 * 2
    assert rows["branches"].receptive == (11, 11)  # the most that a branch sees
    assert rows["branches"].operations == 5 * 5 * 2  # the sum in its forward
    assert rows["branches"].shape == (5, 5, 2)
    assert (found.parameters, found.trainable) == (32 + 20 + 38 + 4 + 3, 32 + 20 + 38 + 4)
    assert "3 of them not trained" in str(found)
    assert model.training
    assert model[0].calls == 0
    assert not any(m._hooks or m._pre_hooks for m in model.modules())
    assert model[0].wide.weight.is_lazy
    assert dk.random.get_state() == draws
    for name, values in model.named_buffers():
        np.testing.assert_array_equal(values.numpy(), before[name])
    assert model(dk.ones(2, 9, 9, 1)).shape == (2, 5, 5, 1)


class Maker(nn.Module):
    """Makes tensors as it goes, draws random numbers, and has one that is no buffer."""

    def __init__(self):
        self.a, self.factor = nn.Linear(5, 4), dk.tensor([2.0, 3.0, 4.0, 5.0])

    def forward(self, x):
        kept = dk.ops.dropout(self.a(x) * self.factor, 0.5, training=True)
        return kept @ dk.ones(4, 3) + dk.rand(3) + dk.zeros(3)


@pytest.mark.parametrize("device", dk.devices())
def test_tensors_that_are_made_on_the_way_are_shapes_too(device):
    with dk.device(device):
        dk.seed(3)
        model, before = Maker(), dk.random.get_state()
        table = dk.summary(model, (5,))
        assert table.rows[-1].shape == (4,)
        assert table.rows[0].shape == (3,)
        assert dk.zeros(1).device == device
        assert dk.random.get_state() == before
        y = model(dk.ones(2, 5))
    assert (y.shape, y.device, model.factor.numpy().tolist()) == ((2, 3), device, [2, 3, 4, 5])


def test_the_receptive_field_is_where_the_gradient_goes():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, padding=1),
        nn.AvgPool2d(3, stride=1, padding=1),
        nn.Conv2d(2, 1, (3, 2), dilation=2),
    ).astype("float64")
    height, width = summary(model, (40, 40, 1)).rows[-1].receptive
    x = dk.randn(1, 40, 40, 1, dtype="float64").requires_grad_()
    y = model(x)
    middle = y.shape[1] // 2, y.shape[2] // 2
    (y[0, middle[0], middle[1], 0]).sum().backward()
    _, rows, columns, _ = np.nonzero(x.grad.numpy())
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (height, width)


def test_a_wrong_input_is_one_sentence_and_leaves_the_model_alone():
    model = models.lenet5()
    with pytest.raises(dk.ShapeError, match="conv2d: x has 3 channels but w expects 1"):
        summary(model, (28, 28, 3))
    assert not any(m._hooks for m in model.modules())
    assert all(p.is_lazy and p.device == "numpy" for p in model.parameters())
    with pytest.raises(ValueError, match="the input's shape must be positive numbers"):
        summary(model, (28, 0, 1))

    class Reads(nn.Module):
        def forward(self, x):
            return x * x.sum().item()

    with pytest.raises(ValueError, match="summary: the model reads a value in its forward pass"):
        summary(Reads(), (3,))
