"""Layers against PyTorch's, with the same weights, in float64; and their errors."""

import numpy as np
import pytest
import torch

import deepkit as dk
from deepkit import nn

T = torch.nn


def first(x):
    """Channels-last values -> PyTorch's channels-first tensor."""
    return torch.tensor(np.moveaxis(x, -1, 1) if x.ndim > 2 else x)


def last(y):
    y = y.detach().numpy()
    return np.moveaxis(y, 1, -1) if y.ndim > 2 else y


def copied(ours, theirs):
    """PyTorch's layer with the weights of ours: (out, ..., in) -> (out, in, ...)."""
    state = {}
    for name, v in ours.state_dict().items():
        state[name] = torch.tensor(np.moveaxis(v, -1, 1) if v.ndim > 2 else v)
    theirs.double().load_state_dict(state, strict=False)
    return theirs


IMAGES, ROWS, SEQUENCES = (3, 9, 8, 4), (5, 4), (3, 7, 4)

PAIRS = {
    "linear": (nn.Linear(4, 6), T.Linear(4, 6), ROWS),
    "linear without bias": (nn.Linear(4, 6, bias=False), T.Linear(4, 6, bias=False), ROWS),
    "conv2d": (nn.Conv2d(4, 6, 3), T.Conv2d(4, 6, 3), IMAGES),
    "conv2d with options": (
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=2, groups=2, bias=False),
        T.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=2, groups=2, bias=False),
        IMAGES,
    ),
    "conv2d same": (nn.Conv2d(4, 6, 3, padding="same"), T.Conv2d(4, 6, 3, padding="same"), IMAGES),
    "conv1d": (
        nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2),
        T.Conv1d(4, 6, 3, stride=2, padding=1, groups=2),
        SEQUENCES,
    ),
    "conv transpose": (
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        T.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        IMAGES,
    ),
    "max pool": (
        nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
        T.MaxPool2d(3, 2, 1, ceil_mode=True),
        IMAGES,
    ),
    "max pool dilated": (
        nn.MaxPool2d(2, stride=1, dilation=2),
        T.MaxPool2d(2, 1, dilation=2),
        IMAGES,
    ),
    "avg pool": (
        nn.AvgPool2d((3, 2), padding=1, count_include_pad=False),
        T.AvgPool2d((3, 2), padding=1, count_include_pad=False),
        IMAGES,
    ),
    "global avg pool": (
        nn.GlobalAvgPool2d(),
        T.Sequential(T.AdaptiveAvgPool2d(1), T.Flatten()),
        IMAGES,
    ),
    "batch norm 2d": (nn.BatchNorm2d(4, momentum=0.3), T.BatchNorm2d(4, momentum=0.3), IMAGES),
    "batch norm 1d": (nn.BatchNorm1d(4, eps=1e-2), T.BatchNorm1d(4, eps=1e-2), ROWS),
    "batch norm of sequences": (nn.BatchNorm1d(4), T.BatchNorm1d(4), SEQUENCES),
    "layer norm": (nn.LayerNorm(4), T.LayerNorm(4), ROWS),
    "local response norm": (
        nn.LocalResponseNorm(3, alpha=0.5, beta=0.6, k=2.0),
        T.LocalResponseNorm(3, 0.5, 0.6, 2.0),
        IMAGES,
    ),
    "relu": (nn.ReLU(), T.ReLU(), ROWS),
    "leaky relu": (nn.LeakyReLU(0.2), T.LeakyReLU(0.2), ROWS),
    "prelu": (nn.PReLU(4), T.PReLU(4), IMAGES),
    "one prelu": (nn.PReLU(), T.PReLU(), IMAGES),
    "elu": (nn.ELU(0.7), T.ELU(0.7), ROWS),
    "gelu": (nn.GELU(), T.GELU(), ROWS),
    "sigmoid": (nn.Sigmoid(), T.Sigmoid(), ROWS),
    "tanh": (nn.Tanh(), T.Tanh(), ROWS),
    "softplus": (nn.Softplus(), T.Softplus(), ROWS),
    "softmax": (nn.Softmax(), T.Softmax(1), IMAGES),
    "log softmax": (nn.LogSoftmax(), T.LogSoftmax(1), IMAGES),
    "identity": (nn.Identity(), T.Identity(), ROWS),
}


@pytest.mark.parametrize("name", PAIRS)
def test_layers_equal_pytorch(name):
    ours, theirs, shape = PAIRS[name]
    ours.astype("float64")
    copied(ours, theirs)
    for seed in (0, 1):
        x = np.random.default_rng(seed).standard_normal(shape)
        np.testing.assert_allclose(ours(dk.tensor(x)).numpy(), last(theirs(first(x))), atol=1e-12)
    ours.eval()
    theirs.eval()
    np.testing.assert_allclose(ours(dk.tensor(x)).numpy(), last(theirs(first(x))), atol=1e-12)
    for key, buffer in ours.named_buffers():
        np.testing.assert_allclose(buffer.numpy(), theirs.state_dict()[key].numpy(), atol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda a: nn.Linear(4, 3, activation=a), ROWS),
        (lambda a: nn.Conv2d(4, 3, 3, activation=a), IMAGES),
        (lambda a: nn.Conv1d(4, 3, 3, activation=a), SEQUENCES),
        (lambda a: nn.BatchNorm2d(4, activation=a), IMAGES),
    ],
)
def test_a_fused_activation_is_the_activation(make, shape, activation):
    layer, plain = make(activation).astype("float64"), make(None).astype("float64")
    plain.load_state_dict(layer.state_dict())
    x = dk.tensor(np.random.default_rng(0).standard_normal(shape))
    expected = getattr(plain(x), activation)()
    np.testing.assert_allclose(layer(x).numpy(), expected.numpy(), atol=1e-12)


def test_batch_norm_adds_a_residual_before_its_activation():
    layer = nn.BatchNorm2d(4, activation="relu").astype("float64").eval()
    rng = np.random.default_rng(0)
    x, r = dk.tensor(rng.standard_normal(IMAGES)), dk.tensor(rng.standard_normal(IMAGES))
    expected = (x / (1 + 1e-5) ** 0.5 + r).relu()
    np.testing.assert_allclose(layer(x, residual=r).numpy(), expected.numpy(), atol=1e-12)


@pytest.mark.parametrize(
    "padding, outputs", [(0, (3, 4)), ("same", (4, 4)), (((1, 0), (0, 2)), (3, 5))]
)
def test_locally_connected_equals_a_loop(padding, outputs):
    layer = nn.LocallyConnected2d(2, 5, (3, 2), (7, 8), stride=2, padding=padding)
    layer.astype("float64")
    p, q = outputs
    assert layer.weight.shape == (p, q, 5, 3, 2, 2)
    x = np.random.default_rng(0).standard_normal((2, 7, 8, 2))
    y = layer(dk.tensor(x)).numpy()
    assert y.shape == (2, p, q, 5)
    before = {0: (0, 0), "same": (1, 0)}.get(padding, (1, 0)) if padding else (0, 0)
    wide = np.pad(x, ((0, 0), (before[0], 3), (before[1], 3), (0, 0)))
    w, b = layer.weight.numpy(), layer.bias.numpy()
    for i in range(p):
        for j in range(q):
            window = wide[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 2]
            expected = np.tensordot(window, w[i, j], ((1, 2, 3), (1, 2, 3))) + b[i, j]
            np.testing.assert_allclose(y[:, i, j], expected, atol=1e-12)


def test_flatten_keeps_the_batch():
    assert nn.Flatten()(dk.ones(3, 4, 5, 2)).shape == (3, 40)


@pytest.mark.parametrize("device", dk.devices())
def test_flatten_takes_no_images(device):
    x = dk.zeros(0, 4, 4, 2, device=device)
    assert x.flatten(1).shape == nn.Flatten()(x).shape == (0, 32)
    assert x.flatten().shape == (0,)
    assert dk.zeros(3, 0, 2, device=device).flatten(1).shape == (3, 0)
    assert dk.tensor(2.0, device).flatten().shape == (1,)


@pytest.mark.parametrize("device", dk.devices())
@pytest.mark.parametrize("captured", [False, True])
def test_linear_takes_one_example_without_a_batch(device, captured):
    layer, theirs = nn.Linear(5, 3, activation="tanh").to(device), torch.nn.Linear(5, 3)
    theirs.load_state_dict({k: torch.tensor(v) for k, v in layer.state_dict().items()})
    values = np.random.default_rng(2).standard_normal(5).astype(np.float32)

    def step(x):
        y = layer(x)
        layer.zero_grad()
        (y * y).sum().backward()
        return y

    y = (dk.capture(step) if captured else step)(dk.tensor(values, device))
    expected = torch.tanh(theirs(torch.tensor(values)))
    (expected**2).sum().backward()
    assert y.shape == (3,)
    np.testing.assert_allclose(y.numpy(), expected.detach().numpy(), rtol=1e-5)
    for p, q in zip(layer.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(dk.ShapeError, match="x has 4 features but w expects 5"):
        layer(dk.zeros(4, device=device))


def test_dropout_of_everything():
    x = dk.randn(5, 4).requires_grad_()
    y = nn.Dropout(1.0)(x)
    y.sum().backward()
    assert (y.numpy() == 0).all()
    assert (x.grad.numpy() == 0).all()


def test_dropout_drops_in_training_only():
    dk.seed(0)
    layer = nn.Dropout(0.25)
    x = dk.ones(100, 100)
    y = layer(x).numpy()
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    assert (y == 0).mean() == pytest.approx(0.25, abs=0.02)
    assert not np.array_equal(layer(x).numpy(), y)
    np.testing.assert_array_equal(layer.eval()(x).numpy(), 1)


LABELS = np.array([0, 2, 1, 1, 2])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_equal_pytorch(reduction):
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((5, 3)), rng.random((5, 3))
    both = [
        (
            nn.CrossEntropyLoss(reduction, label_smoothing=0.1)(dk.tensor(x), dk.tensor(LABELS)),
            T.CrossEntropyLoss(reduction=reduction, label_smoothing=0.1)(
                torch.tensor(x), torch.tensor(LABELS)
            ),
        ),
        (
            nn.MSELoss(reduction)(dk.tensor(x), dk.tensor(t)),
            T.MSELoss(reduction=reduction)(torch.tensor(x), torch.tensor(t)),
        ),
        (
            nn.BCEWithLogitsLoss(reduction)(dk.tensor(x), dk.tensor(t)),
            T.BCEWithLogitsLoss(reduction=reduction)(torch.tensor(x), torch.tensor(t)),
        ),
    ]
    for ours, theirs in both:
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-12)


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: nn.Sequential(train=nn.ReLU()), "Sequential: 'train' is the name of a method"),
        (lambda: nn.Linear(0, 3), "Linear: inp must be a whole number of at least 1, not 0"),
        (lambda: nn.Linear(3, 2.5), "Linear: out must be a whole number of at least 1, not 2.5"),
        (lambda: nn.Linear(3, 2, activation="swish"), "Linear: unknown activation 'swish'"),
        (lambda: nn.Conv2d(3, 4, 0), "Conv2d: size must be at least 1, not 0"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "3 and 4 channels cannot be divided into 2 groups"),
        (lambda: nn.Conv1d(3, 4, (3, 3)), "Conv1d: size must be a whole number"),
        (lambda: nn.LocallyConnected2d(1, 1, 5, 3), "LocallyConnected2d: a window of height 5"),
        (lambda: nn.MaxPool2d("2"), "MaxPool2d: size must be a whole number or a pair"),
        (lambda: nn.Conv2d(1, 1, 3, padding="sam"), "Conv2d: padding must be .* not 'sam'"),
        (lambda: nn.Conv2d(1, 1, 3, padding=-1), "Conv2d: padding must not be negative"),
        (lambda: nn.Conv2d(1, 1, 3, stride=0), "Conv2d: stride must be at least 1, not 0"),
        (lambda: nn.Conv1d(1, 1, 3, padding="sam"), "Conv1d: padding must be .* not 'sam'"),
        (lambda: nn.ConvTranspose2d(1, 1, 3, dilation=(1,)), "ConvTranspose2d: dilation must be"),
        (lambda: nn.MaxPool2d(2, padding=0.5), "MaxPool2d: padding must be .* not 0.5"),
        (lambda: nn.AvgPool2d(2, stride="2"), "AvgPool2d: stride must be a whole number"),
        (lambda: nn.Dropout(1.5), "Dropout: p must be from 0 to 1, not 1.5"),
        (lambda: nn.Dropout(None), "Dropout: p must be from 0 to 1, not None"),
        (lambda: nn.BatchNorm2d(0), "BatchNorm2d: channels must be a whole number"),
        (lambda: nn.BatchNorm2d(3, momentum=2), "BatchNorm2d: momentum must be from 0 to 1, not 2"),
        (
            lambda: nn.BatchNorm1d(3, momentum=None),
            "BatchNorm1d: momentum must be from 0 to 1, not None",
        ),
        (lambda: nn.BatchNorm1d(3, eps=0), "BatchNorm1d: eps must be above 0, not 0"),
        (lambda: nn.LayerNorm(3, eps=float("nan")), "LayerNorm: eps must be above 0, not nan"),
        (
            lambda: nn.LocalResponseNorm(3, k=float("inf")),
            "LocalResponseNorm: k must be finite, not inf",
        ),
        (lambda: nn.BatchNorm2d(4)(dk.ones(2, 4)), r"x is \(2, 4\), expected \(N, H, W, C\)"),
        (lambda: nn.BatchNorm1d(4)(dk.ones(4)), r"expected \(N, C\) or \(N, L, C\)"),
        (lambda: nn.LayerNorm((3, 0)), "LayerNorm: a length of shape must be"),
        (lambda: nn.MSELoss("max"), "MSELoss: reduction must be one of 'mean', 'sum', 'none'"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=2), "label_smoothing must be from 0 to 1"),
        (
            lambda: nn.Conv2d(3, 4, 3)(dk.ones(1, 5, 5, 2)),
            "conv2d: x has 2 channels but w expects 3",
        ),
    ],
)
def test_bad_options_are_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_module_list_is_a_list_of_modules():
    layers = nn.ModuleList([nn.Linear(3, 4)]).append(nn.ReLU()).extend([nn.Linear(4, 2)])
    net = nn.Sequential(layers=layers)
    assert [name for name, _ in net.named_parameters()] == [
        "layers.0.weight",
        "layers.0.bias",
        "layers.2.weight",
        "layers.2.bias",
    ]
    assert len(layers) == len(list(layers)) == 3
    assert layers[-1] is list(layers)[2]
    assert isinstance(layers[1:], nn.ModuleList)
    assert layers[1:][1] is layers[2]
    with pytest.raises(TypeError, match="ModuleList: expected modules, but '3' is the class ReLU"):
        layers.append(nn.ReLU)
    with pytest.raises(NotImplementedError, match="ModuleList has no forward"):
        layers(dk.ones(1, 3))


def test_layers_say_what_is_unusual():
    assert repr(nn.Conv2d(1, 6, 5)) == "Conv2d(1 -> 6, 5x5)"
    layer = nn.Conv2d(4, 6, (3, 2), stride=2, padding="same", groups=2, bias=False)
    assert repr(layer) == "Conv2d(4 -> 6, 3x2, stride=2, padding='same', groups=2, bias=False)"
    assert (
        repr(nn.MaxPool2d(3, stride=2, ceil_mode=True))
        == "MaxPool2d(3x3, stride=2, ceil_mode=True)"
    )
    assert repr(nn.AvgPool2d(2)) == "AvgPool2d(2x2, stride=(2, 2))"
    assert repr(nn.BatchNorm2d(4, activation="relu")) == "BatchNorm2d(4, activation='relu')"
