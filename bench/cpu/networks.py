"""The networks, each written once: a list of layers from which every library's own is built.

Weights are born in deepkit, in its layout; `Weights.first` gives them channels first, as PyTorch
wants them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

CLASSES = 10
EPS = 1e-5  # of every batch norm


class Conv(NamedTuple):
    """A convolution of stride 1 (or 2, in a block), padded by `padding`; `norm`: batch norm, and
    no bias; then ReLU; then a max-pool over 2 x 2, if `pool`."""

    inp: int
    out: int
    size: int
    padding: int = 0
    norm: bool = False
    pool: bool = False


class Block(NamedTuple):
    """A basic block of ResNet for CIFAR, shortcut A: relu(bn(3x3(relu(bn(3x3(x))))) + x)."""

    inp: int
    out: int
    stride: int


class Average(NamedTuple):
    """The mean over all pixels."""


class Flatten(NamedTuple):
    """Pixels and channels become one axis; `image` is the (H, W, C) that it meets."""

    image: tuple[int, int, int]


class Dense(NamedTuple):
    """A linear layer; `relu`: and ReLU."""

    inp: int
    out: int
    relu: bool = True


class Network(NamedTuple):
    """Its name, the shape of one input in our layout, its layers in order."""

    name: str
    title: str
    shape: tuple[int, ...]
    layers: tuple[Any, ...]


def _vgg(norm: bool) -> tuple[Any, ...]:
    widths = ((3, 64), (64, 128), (128, 256))
    convolutions = [Conv(inp, out, 3, 1, norm, pool=True) for inp, out in widths]
    return (*convolutions, Flatten((4, 4, 256)), Dense(4096, CLASSES, relu=False))


def _resnet20() -> tuple[Any, ...]:
    blocks, inp = [], 16
    for out, stride in (
        (16, 1),
        (16, 1),
        (16, 1),
        (32, 2),
        (32, 1),
        (32, 1),
        (64, 2),
        *[(64, 1)] * 2,
    ):
        blocks.append(Block(inp, out, stride))
        inp = out
    return (Conv(3, 16, 3, 1, norm=True), *blocks, Average(), Dense(64, CLASSES, relu=False))


NETWORKS = {
    network.name: network
    for network in (
        Network(
            "mlp",
            "MLP 784-256-128-10",
            (784,),
            (Dense(784, 256), Dense(256, 128), Dense(128, CLASSES, relu=False)),
        ),
        Network(
            "lenet5",
            "LeNet-5",
            (28, 28, 1),
            (
                Conv(1, 6, 5, 2, pool=True),
                Conv(6, 16, 5, pool=True),
                Flatten((5, 5, 16)),
                Dense(400, 120),
                Dense(120, 84),
                Dense(84, CLASSES, relu=False),
            ),
        ),
        Network("vgg_small", "VGG-small", (32, 32, 3), _vgg(norm=False)),
        Network("vgg_small_bn", "VGG-small, batch norm", (32, 32, 3), _vgg(norm=True)),
        Network("resnet20", "ResNet-20", (32, 32, 3), _resnet20()),
    )
}


def deepkit_model(network: Network) -> Any:
    """The network as a user of deepkit writes it, on the current device."""
    import deepkit as dk
    from deepkit import nn

    if network.name == "resnet20":
        return dk.models.resnet20()
    layers: list[Any] = []
    for layer in network.layers:
        if isinstance(layer, Conv):
            activation = None if layer.norm else "relu"
            options: dict[str, Any] = {"bias": not layer.norm, "activation": activation}
            layers.append(nn.Conv2d(*layer[:3], padding=layer.padding, **options))
            layers += [nn.BatchNorm2d(layer.out, activation="relu")] * layer.norm
            layers += [nn.MaxPool2d(2)] * layer.pool
        elif isinstance(layer, Flatten):
            layers.append(nn.Flatten())
        else:
            activation = "relu" if layer.relu else None
            layers.append(nn.Linear(layer.inp, layer.out, activation=activation))
    return nn.Sequential(*layers)


class Weights(NamedTuple):
    """All parameters and running statistics of a network, {name: array} in the order of layers;
    those of a batch norm as in PyTorch: weight, bias, mean, variance."""

    network: Network
    arrays: dict[str, np.ndarray]

    @property
    def dtype(self) -> str:
        return next(iter(self.arrays.values())).dtype.name

    @property
    def first(self) -> list[np.ndarray]:
        """Filters (K, C, R, S); the linear layer after the images reads them as (C, H, W)."""
        image = next((x.image for x in self.network.layers if isinstance(x, Flatten)), None)
        found = []
        for a in self.arrays.values():
            if a.ndim == 4:
                a = a.transpose(0, 3, 1, 2)
            elif image is not None and a.ndim == 2:
                a = a.reshape(len(a), *image).transpose(0, 3, 1, 2).reshape(a.shape)
                image = None  # only the first linear layer meets them
            found.append(np.array(a, order="C"))
        return found


def weights_of(network: Network, model: Any, seed: int = 0) -> Weights:
    """What a model of deepkit holds; batch norms get scales and statistics that are not 1 and 0,
    so that a library which forgets one of them is found out."""
    state, rng = model.state_dict(), np.random.default_rng(seed)
    layers = dict.fromkeys(name.rpartition(".")[0] for name in state)
    leaves = ("weight", "bias", "running_mean", "running_var")
    names = [f"{layer}.{leaf}" for layer in layers for leaf in leaves]
    arrays = {name: state[name] for name in names if name in state}
    assert len(arrays) == len(state), state.keys() - arrays.keys()
    for name, a in arrays.items():
        if name.rpartition(".")[0] + ".running_mean" in state:
            around = 1.0 if name.endswith(("weight", "var")) else 0.0
            a[...] = around + rng.uniform(-0.2, 0.2, a.shape)
    return Weights(network, arrays)


class Batch(NamedTuple):
    """Inputs (N, H, W, C) or (N, features), float32, and labels (N,), int64."""

    x: np.ndarray
    y: np.ndarray

    @property
    def x_first(self) -> np.ndarray:
        """(N, C, H, W), contiguous."""
        x = self.x
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x


def batch_of(network: Network, size: int, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((size, *network.shape)).astype(np.float32)
    return Batch(x, rng.integers(0, CLASSES, size))
