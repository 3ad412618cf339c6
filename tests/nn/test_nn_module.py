"""Modules: what they hold, how they are called, how their state travels."""

import copy

import numpy as np
import pytest

import deepkit as dk
from deepkit import nn


class Net(nn.Module):
    """Shared parameters, a shared module, a list of modules and a buffer."""

    def __init__(self):
        self.first = nn.Linear(3, 4)
        self.again = self.first
        self.blocks = [nn.Linear(4, 4), nn.Sequential(act=nn.ReLU(), last=nn.Linear(4, 4))]
        self.head = nn.Linear(4, 4, bias=False)
        self.head.weight = self.blocks[0].weight
        self.scale = nn.Parameter([2.0])
        self.register_buffer("offset", np.array([1.0, 2.0, 3.0, 4.0], np.float32))

    def forward(self, x):
        x = self.again(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x) * self.scale + self.offset


NAMES = [
    "scale",
    "first.weight",
    "first.bias",
    "blocks.0.weight",
    "blocks.0.bias",
    "blocks.1.last.weight",
    "blocks.1.last.bias",
]


def test_members_come_once_in_the_order_of_their_definition():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert [name for name, _ in net.named_buffers()] == ["offset"]
    assert [name for name, _ in net.named_modules()] == [
        "",
        "first",
        "blocks.0",
        "blocks.1",
        "blocks.1.act",
        "blocks.1.last",
        "head",
    ]
    assert list(net.state_dict()) == ["scale", "offset", *NAMES[1:]]


def test_super_init_may_be_called_or_not():
    class Calls(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

    assert len(list(Calls().parameters())) == 2


def test_state_travels():
    dk.seed(0)
    first, second = Net(), Net()
    second.blocks[0].weight.write(np.zeros((4, 4)))
    x = dk.randn(5, 3)
    assert not np.array_equal(first(x).numpy(), second(x).numpy())
    assert second.load_state_dict(first.state_dict()) == ([], [])
    np.testing.assert_array_equal(first(x).numpy(), second(x).numpy())
    assert second.head.weight is second.blocks[0].weight


def test_state_is_a_copy():
    net = nn.Linear(2, 2)
    state = net.state_dict()
    state["weight"][:] = 7
    assert not (net.weight.numpy() == 7).any()
    net.load_state_dict(state)
    state["weight"][:] = 8
    np.testing.assert_array_equal(net.weight.numpy(), 7)


def test_loading_what_does_not_fit_changes_nothing():
    net = Net()
    before = net.state_dict()
    wrong = {**{name: v + 1 for name, v in before.items()}, "first.bias": np.zeros(5), "more": 1}
    del wrong["scale"]
    with pytest.raises(ValueError) as error:
        net.load_state_dict(wrong)
    assert str(error.value) == (
        "load_state_dict: 'first.bias' has shape (5,) where (4,) is expected, "
        "'scale' is missing, 'more' is not known here"
    )
    with pytest.raises(ValueError, match="and 5 more such"):
        net.load_state_dict({})
    with pytest.raises(ValueError, match=r"'offset' holds <U1, which are no numbers"):
        net.load_state_dict({**before, "offset": np.array(["a", "b", "c", "d"])})
    for name, values in net.state_dict().items():
        np.testing.assert_array_equal(values, before[name])


def test_loading_loosely_names_what_differs():
    net = Net()
    missing, unexpected = net.load_state_dict({"scale": [5.0], "more": 1}, strict=False)
    assert unexpected == ["more"]
    assert missing == ["offset", *NAMES[1:]]
    assert net.scale.item() == 5.0
    with pytest.raises(ValueError, match=r"'scale' has shape \(2,\)"):
        net.load_state_dict({"scale": [5.0, 6.0]}, strict=False)


def test_train_and_eval_reach_every_module():
    net = Net()
    assert all(m.training for m in net.modules())
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    net.blocks[1].train()
    assert [m.training for m in net.modules()].count(True) == 3
    net.training = True
    assert all(m.training for m in net.modules())
    net.training = False
    assert not any(m.training for m in net.modules())


def test_a_captured_step_follows_train_and_eval_and_changed_layers():
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    step = dk.capture(lambda x: net(x))
    x = dk.ones(3, 4)
    plain = net[0](x).numpy()
    assert (step(x).numpy() == 0).any()
    net.eval()
    np.testing.assert_array_equal(step(x).numpy(), plain)
    np.testing.assert_array_equal(step(x).numpy(), plain)
    net.train()
    assert (step(x).numpy() == 0).any()
    net[1].p = 0.0
    np.testing.assert_array_equal(step(x).numpy(), plain)
    setattr(net, "0", nn.Identity())
    np.testing.assert_array_equal(step(x).numpy(), x.numpy())


def test_hooks_see_and_replace():
    net = nn.Linear(2, 2)
    seen = []
    before = net.register_forward_pre_hook(lambda m, args: seen.append(args[0].shape))
    after = net.register_forward_hook(lambda m, args, y: y * 0.0)
    x = dk.ones(3, 2)
    np.testing.assert_array_equal(net(x).numpy(), 0)
    assert seen == [(3, 2)]
    before.remove()
    after.remove()
    assert (net(x).numpy() != 0).any()
    assert seen == [(3, 2)]


def test_astype_takes_weights_gradients_and_buffers_along():
    net = Net()
    net(dk.ones(2, 3)).sum().backward()
    before, g = net.state_dict(), net.scale.grad.numpy()
    params = list(net.parameters())
    assert net.astype("float64") is net
    assert [id(p) for p in net.parameters()] == [id(p) for p in params]
    for name, values in net.state_dict().items():
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, before[name])
    np.testing.assert_array_equal(net.scale.grad.numpy(), g)
    assert net.scale.grad.dtype == np.float64
    assert net(dk.ones(2, 3, dtype="float64")).dtype == np.float64
    with pytest.raises(TypeError, match="must be floats, not int64"):
        net.astype("int64")


def test_to_moves_the_same_parameters_to_another_device():
    for touched in (False, True):
        dk.seed(6)
        net = Net()
        params = list(net.parameters())
        before = net.state_dict() if touched else {}
        assert net.to("numba") is net
        assert {p.device for p in params} == {b.device for b in net.buffers()} == {"numba"}
        assert [id(p) for p in net.parameters()] == [id(p) for p in params]
        assert all(p.is_lazy for p in params) != touched
        state = net.to("numpy").state_dict()
        for name, values in before.items():
            np.testing.assert_array_equal(state[name], values)
        assert net(dk.ones(2, 3)).device == "numpy"
    with pytest.raises(dk.DeviceError, match="unknown device 'tpu'"):
        net.to("tpu")


def test_a_model_is_born_with_the_same_values_on_every_device():
    states = []
    for device in ("numpy", "numba"):
        dk.seed(7)
        with dk.device(device):
            net = Net()
        assert net.scale.device == net.offset.device == device
        states.append(net.state_dict())
    for name, values in states[0].items():
        np.testing.assert_array_equal(values, states[1][name])


def test_moving_inside_of_a_capture_is_an_error():
    net = nn.Linear(2, 2)
    with pytest.raises(dk.CaptureError, match="a module was moved"):
        dk.capture(lambda x: net.astype("float64")(x))(dk.ones(1, 2))


def test_a_captured_step_survives_a_move_and_back():
    net = nn.Linear(2, 2)
    step = dk.capture(lambda x: net(x))
    x = dk.ones(1, 2)
    step(x)
    net.astype("float64")
    net.astype("float32")
    net.weight.write(np.zeros((2, 2)))
    np.testing.assert_array_equal(step(x).numpy()[0], net.bias.numpy())


def test_deepcopy_is_another_model_with_the_same_values():
    for touched in (False, True):
        dk.seed(1)
        net = Net()
        if touched:
            net.eval()(dk.ones(1, 3))
        twin = copy.deepcopy(net)
        assert twin.head.weight is twin.blocks[0].weight
        assert twin.again is twin.first
        assert twin.training == net.training
        for (name, a), (_, b) in zip(
            net.state_dict().items(), twin.state_dict().items(), strict=True
        ):
            np.testing.assert_array_equal(a, b, err_msg=name)
        twin.scale.write([9.0])
        twin.offset.write(np.zeros(4))
        assert net.scale.item() == 2.0
        assert net.offset.numpy()[3] == 4.0


def test_zero_grad_and_requires_grad():
    net = Net()
    net.first.requires_grad_(False)
    net(dk.ones(2, 3)).sum().backward()
    assert net.first.weight.grad is None
    assert net.scale.grad is not None
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_apply_runs_children_first():
    order = []
    Net().apply(lambda m: order.append(type(m).__name__))
    assert order == ["Linear"] * 3 + ["ReLU", "Linear", "Sequential", "Linear", "Net"]


def test_the_text_is_a_tree():
    net = nn.Sequential(a=nn.Linear(3, 4, activation="relu"), b=nn.Sequential(nn.Dropout(0.25)))
    assert repr(net) == (
        "Sequential(\n"
        "  (a): Linear(3 -> 4, activation='relu')\n"
        "  (b): Sequential(\n"
        "    (0): Dropout(p=0.25)\n"
        "  )\n"
        ")"
    )


def test_sequential_is_a_list():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
    assert len(net) == 3
    assert isinstance(net[1], nn.ReLU)
    assert [type(m).__name__ for m in net[1:]] == ["ReLU", "Linear"]
    assert net[1:][1].weight is net[2].weight
    with pytest.raises(TypeError, match="Sequential: expected modules, but '1' is a function"):
        nn.Sequential(nn.ReLU(), lambda x: x)


def test_a_module_without_forward_says_so():
    class Empty(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match="Empty has no forward"):
        Empty()(1)


def test_a_buffer_stays_a_tensor():
    net = Net()
    with pytest.raises(TypeError, match="offset is a buffer: expected a tensor, not ndarray"):
        net.offset = np.zeros(3)
