"""What people write who come from PyTorch: it works, or one sentence names our spelling."""

import copy
import inspect
import re

import numpy as np
import pytest

import deepkit as dk
from deepkit import nn, ops

X = np.arange(12, dtype=np.float32).reshape(4, 3)


def x():
    return dk.tensor(X)


def net():
    return nn.Sequential(nn.Linear(3, 2))


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (
            lambda: nn.Conv2d(16, 32, kernel_size=3),
            ["Conv2d: there is no 'kernel_size' here; it is 'size'"],
        ),
        (
            lambda: nn.Conv2d(1, 8, 3, 1, 1),
            ["Conv2d: 5 arguments by place", "by place: inp, out, size; by name: stride, padding"],
        ),
        (lambda: nn.Conv2d(in_channels=1, out=8, size=3), ["it is 'inp'"]),
        (lambda: nn.MaxPool2d(kernel_size=2), ["MaxPool2d", "it is 'size'"]),
        (lambda: nn.Linear(in_features=2, out_features=3), ["Linear", "it is 'inp'"]),
        (lambda: nn.BatchNorm2d(num_features=2), ["BatchNorm2d", "it is 'channels'"]),
        (
            lambda: nn.Conv2d(1, 2, 3, padding_mode="zeros"),
            ["no 'padding_mode'", "(it takes: inp, out, size, stride"],
        ),
        (lambda: nn.ReLU(inplace=True), ["ReLU", "no 'inplace'", "ops give new memory"]),
        (lambda: nn.ReLU(1), ["ReLU: 1 arguments by place are too many"]),
        (lambda: x().mean(dim=1), ["mean: there is no 'dim' here; it is 'axis'"]),
        (lambda: x().sum(-1, keepdim=True), ["sum: there is no 'keepdim' here; it is 'keepdims'"]),
        (lambda: x().clip(min=0), ["clip", "it is 'low'"]),
        (lambda: ops.softmax(x(), dim=1), ["softmax: there is no 'dim' here; it is 'axis'"]),
        (lambda: x().reshape(shape=(3, 4)), ["Tensor.reshape"]),
        (lambda: dk.Tensor([1.0, 2.0]), ["dk.tensor(values)"]),
        (
            lambda: dk.save(net().state_dict(), "a.safetensors"),
            ["save: the path comes first", "not a state dictionary"],
        ),
        (
            lambda: dk.save("a.safetensors", net().state_dict()),
            ["save: expected a module", "not a state dictionary"],
        ),
        (
            lambda: dk.optim.Adam(net().parameters(), learning_rate=0.1),
            ["Adam: there is no 'learning_rate' here; it is 'lr'"],
        ),
        (
            lambda: dk.optim.SGD(net().parameters()),
            ["SGD: 'lr' is missing, such as lr=0.01   (it takes: params, lr, momentum,"],
        ),
        (lambda: nn.Conv2d(3), ["Conv2d: 'out' and 'size' are missing   (it takes: inp, out,"]),
        (
            lambda: dk.models.resnet18(num_classes=3),
            ["resnet18: there is no 'num_classes' here; it is 'classes'"],
        ),
        (lambda: dk.models.mlp(3, 2, inplace=True), ["mlp: there is no 'inplace' here"]),
        (lambda: x().to("cpu"), ["unknown device 'cpu'; processors are 'numpy' or 'numba' here"]),
        (lambda: nn.Sequential(nn.Linear(3, 2), ops.relu), ["'1' is the op 'relu'", "nn.ReLU()"]),
        (lambda: nn.Sequential(nn.ReLU), ["'0' is the class ReLU; make one: ReLU(...)"]),
        (
            lambda: dk.fit(net(), (X, [0] * 4), lr=1),
            ["fit: there is no 'lr' here", "Adam(model.parameters(), lr="],
        ),
        (
            lambda: dk.evaluate(net(), (X, [0] * 4), batchsize=1),
            ["evaluate: there is no 'batchsize' here", "batch_size"],
        ),
    ],
)
def test_one_sentence_names_our_spelling(call, parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((TypeError, dk.DeviceError)) as caught:
        call()
    text = str(caught.value)
    assert "Methods" not in text
    assert "\n" not in text
    for part in parts:
        assert part in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: x().view(3, 4), "'Tensor' object has no attribute 'view'; it is reshape(...) h"),
        (lambda: x().permute(1, 0), "it is transpose(...) here"),
        (lambda: x().unsqueeze(0), "it is expand_dims(axis) here"),
        (lambda: x().float(), "it is astype('float32') here"),
        (lambda: x().cuda(), "it is to(device), one of dk.devices() here"),
        (lambda: net()[0].weight.cpu(), "'Parameter' object has no attribute 'cpu'; it is to('n"),
        (lambda: net().cuda(), "'Sequential' object has no attribute 'cuda'; it is to(device)"),
        (lambda: x().zero_(), "it is x.grad = None, or optimizer.zero_grad() here"),
        (lambda: x().numel(), "it is size here"),
        (lambda: x().dim(), "it is ndim here"),
        (lambda: x().t(), "it is T here"),
        (lambda: x().matmul(x()), "it is x @ y here"),
        (lambda: x().clamp(0, 1), "it is clip(low, high) here"),
        (lambda: x().clone(), "it is copy.deepcopy(x) here"),
        (lambda: net().extend([nn.ReLU()]), "it is Sequential(*model, *layers) here"),
        (lambda: net().append(nn.ReLU()), "it is Sequential(*model, layer) here"),
        (lambda: x().nonsense, "'Tensor' object has no attribute 'nonsense'"),
    ],
)
def test_an_attribute_of_pytorch_names_ours(call, sentence):
    with pytest.raises(AttributeError, match=re.escape(sentence)):
        call()


def test_no_item_is_assigned():
    with pytest.raises(TypeError, match=r"item assignment; make a new one with dk.ops.where"):
        x()[0] = 1


def test_what_fits_is_not_looked_at():
    assert nn.Conv2d(inp=1, out=2, size=3).weight.shape == (2, 3, 3, 1)
    assert copy.copy(nn.ReLU()).training
    assert list(inspect.signature(dk.Tensor.sum).parameters) == ["self", "axis", "keepdims"]

    class Net(nn.Module):
        def __init__(self, *sizes, **options):
            self.seen = sizes, options

    assert Net(1, 2, kernel_size=3).seen == ((1, 2), {"kernel_size": 3})


def test_a_type_error_from_within_stays_what_it_is():
    with pytest.raises(TypeError, match=re.escape("exp: x must be a tensor, not ndarray")):
        ops.exp(X)


@pytest.mark.parametrize("device", dk.devices())
def test_tensors_are_copied_deep(device):
    w = dk.tensor(X, device=device, requires_grad=True)
    (w * w).sum().backward()
    twin = copy.deepcopy({"a": w, "b": [w]})
    assert twin["a"] is twin["b"][0]
    found = twin["a"]
    assert found.requires_grad
    assert found.device == device
    np.testing.assert_array_equal(found.grad.numpy(), 2 * X)
    with dk.no_grad():
        w -= 1.0
    w.grad = None
    np.testing.assert_array_equal(found.numpy(), X)
    np.testing.assert_array_equal(found.grad.numpy(), 2 * X)
    for y in (dk.tensor(X, device=device) + 1, ops.relu(dk.tensor(X[:, None], device=device))):
        np.testing.assert_array_equal(copy.deepcopy(y).numpy(), y.numpy())
    with pytest.raises(ValueError, match=re.escape("copy x.detach()")):
        copy.deepcopy(w * 2)


def test_the_truth_of_many_is_not_clear():
    with pytest.raises(ValueError, match=r"the truth of a tensor of shape \(4, 3\) is not clear"):
        bool(x() > 1)
    assert bool(x().sum() > 0)
