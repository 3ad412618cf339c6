"""Few images put channels in the lanes, many put images there: both ways for any batch."""

import numpy as np
import pytest

import deepkit as dk
from deepkit import nn
from deepkit.testing import check_backend

if "numba" not in dk.devices():
    pytest.skip("Numba does not work here", allow_module_level=True)

from deepkit.backends.numba import lanes

OPS = sorted(lanes._TAKE_FEW)


@pytest.mark.parametrize("few", [0, 1000], ids=["images in lanes", "channels in lanes"])
@pytest.mark.parametrize("op", OPS)
def test_all_laws_hold_either_way(monkeypatch, op, few):
    monkeypatch.setattr(lanes, "FEW", few)
    check_backend("numba", [op])


def small_net():
    return nn.Sequential(
        nn.Conv2d(3, 20, 3, padding=1, bias=False),
        nn.BatchNorm2d(20),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 10, 3, stride=2, groups=2, activation="relu"),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(10, 5),
    )


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_a_network_of_few_images(count):
    """Training and inference, eager and captured, against float64."""
    dk.seed(0)
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((count, 12, 12, 3)), rng.integers(0, 5, count)
    found = {}
    for device, dtype in (("numpy", "float64"), ("numba", "float32")):
        dk.seed(0)
        with dk.device(device):
            model = small_net().astype(dtype)
        inputs, labels = dk.tensor(x, device, dtype=dtype), dk.tensor(y, device)
        loss = dk.ops.cross_entropy(model(inputs), labels)
        loss.backward()
        model.eval()
        found[device] = [loss, *(p.grad for p in model.parameters()), model(inputs)]
        with dk.no_grad():
            exact, folded = (
                dk.capture(lambda x, model=model: model(x), fuse=fuse) for fuse in ("exact", True)
            )
            for _ in range(2):
                np.testing.assert_array_equal(exact(inputs).numpy(), model(inputs).numpy())
                found[device].append(folded(inputs))
    for want, got in zip(found["numpy"], found["numba"], strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=2e-4, atol=2e-5)
