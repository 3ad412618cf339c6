"""The guide for users: its code runs, and its table of differences from PyTorch is true."""

import inspect
import re

import numpy as np
import pytest
import torch
from docs.test_examples import ROOT, blocks

import deepkit as dk
from deepkit import nn, ops, optim

X = np.random.default_rng(0).standard_normal((2, 5, 6, 4)).astype(np.float32)


@pytest.fixture
def default_device():
    before = dk.backends.current().name
    yield
    dk.set_device(before)


def test_the_guide_runs(tmp_path, monkeypatch, default_device, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in blocks("docs/guide.md"):
        exec(compile(code, "docs/guide.md", "exec"), names)
    assert names["z"].device == names["y"].device == dk.backends.get("auto").name
    assert names["photos"].classes == ("cat", "dog")
    assert "read on the host while a step was being captured" in capsys.readouterr().out
    found = names["history"].rows[-1]
    assert found["test_accuracy"] > 0.8


def test_the_guide_is_short_and_linked():
    assert len((ROOT / "docs/guide.md").read_text().splitlines()) < 230
    assert "(docs/guide.md)" in (ROOT / "README.md").read_text()


# the table of differences, from above to below ----------------------------------------------------


def test_layouts():
    conv, theirs = nn.Conv2d(4, 8, (3, 5)), torch.nn.Conv2d(4, 8, (3, 5))
    assert conv.weight.shape == (8, 3, 5, 4)
    assert theirs.weight.shape == (8, 4, 3, 5)
    assert nn.ConvTranspose2d(4, 8, (3, 5)).weight.shape == (4, 3, 5, 8)
    assert torch.nn.ConvTranspose2d(4, 8, (3, 5)).weight.shape == (4, 8, 3, 5)
    assert nn.Linear(3, 2).weight.shape == torch.nn.Linear(3, 2).weight.shape
    flat = nn.Flatten()(dk.tensor(X)).numpy()
    np.testing.assert_array_equal(flat, X.reshape(2, -1))
    target = np.arange(60).reshape(2, 5, 6) % 4
    want = torch.nn.functional.cross_entropy(
        torch.tensor(X.transpose(0, 3, 1, 2)), torch.tensor(target)
    )
    found = ops.cross_entropy(dk.tensor(X), dk.tensor(target)).item()
    assert found == pytest.approx(want.item(), rel=1e-5)


@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d])
def test_what_follows_size_goes_by_name(layer):
    parameters = inspect.signature(layer).parameters
    names = list(parameters)
    after = names[names.index("size") + 1 :]
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in after)


def test_shapes_reductions_and_indices():
    x = dk.tensor(X)
    assert (x.shape, x.shape[0], x.size) == (X.shape, len(X), X.size)
    assert x.expand_dims(1).shape == (2, 1, 5, 6, 4)
    assert not any(hasattr(x, name) for name in ("view", "permute", "unsqueeze", "clone"))
    assert x.sum(axis=(1, 2), keepdims=True).shape == (2, 1, 1, 4)
    np.testing.assert_array_equal(x.max(axis=1).numpy(), X.max(axis=1))
    assert x.var().item() == pytest.approx(X.var(), rel=1e-5)
    assert x.var(correction=1).item() == pytest.approx(torch.tensor(X).var().item(), rel=1e-5)
    assert x.transpose(3, 0, 1, 2).shape == (4, 2, 5, 6)
    assert x.pad(((1, 0), (0, 0), (0, 0), (0, 2))).shape == (3, 5, 6, 6)
    shares = [y.buffer is x.buffer for y in (x[0], x.T, x.reshape(-1))]
    assert shares == [False, False, True]
    with pytest.raises(TypeError, match="item assignment"):
        x[0] = 1


def test_gradients():
    w, given = dk.tensor([1.0, 2.0], requires_grad=True), dk.ones(2)
    y = (w * w).sum()
    for times in (1, 2):
        y.backward()
        assert w.grad.tolist() == [2.0 * times, 4.0 * times]
    memory = w.grad
    w.grad = None
    assert w.grad is None
    w.grad = given
    assert w.grad is memory
    assert memory.tolist() == [1, 1]


def test_dropout():
    drop = dk.capture(lambda x: ops.dropout(x, 0.5))
    masks = {}
    for device in dk.devices():
        dk.seed(3)
        masks[device] = [drop(dk.ones(64, device=device)).tolist() for _ in range(3)]
        assert masks[device][1] != masks[device][2]  # replays, both
    assert all(found == masks["numpy"] for found in masks.values())


def test_learning_rates():
    groups = [{"params": [nn.Parameter([1.0])]}, {"params": [nn.Parameter([1.0])], "lr": 0.5}]
    sgd = optim.SGD(groups, lr=1.0)
    schedule = optim.StepLR(sgd, 1)
    schedule.step()
    assert [g["lr"] for g in sgd.groups] == pytest.approx([0.1, 0.05])
    sgd.lr = 7.0
    assert [g["lr"] for g in sgd.groups] == [7.0, 7.0]
    schedule.step()
    assert [g["lr"] for g in sgd.groups] == pytest.approx([0.01, 0.005])


def test_names():
    theirs = torch.nn.BatchNorm2d(2).state_dict().keys() - nn.BatchNorm2d(2).state_dict().keys()
    assert theirs == {"num_batches_tracked"}
    page = (ROOT / "docs/guide.md").read_text().split("## Names and meanings")[1]
    ours = re.findall(r"\| `(\w+)`, `(\w+)` \|\n", page)
    assert ours == [("clip_grad_norm", "CosineLR")]
    assert all(hasattr(optim, name) for name in ours[0])
    assert dk.data.Loader(X, [0, 1], 2).shuffle
