"""Every optimiser against PyTorch's, over several steps, and what flat memory must not change."""

import inspect

import numpy as np
import pytest
import torch

import deepkit as dk
from deepkit import nn, optim

CASES = {
    "sgd": (optim.SGD, torch.optim.SGD, {"lr": 0.1}),
    "sgd momentum": (
        optim.SGD,
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.02},
    ),
    "sgd nesterov": (
        optim.SGD,
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
    ),
    "adam": (optim.Adam, torch.optim.Adam, {"lr": 0.02}),
    "adam decay": (
        optim.Adam,
        torch.optim.Adam,
        {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1},
    ),
    "adamw": (optim.AdamW, torch.optim.AdamW, {"lr": 0.02, "weight_decay": 0.3}),
    "rmsprop": (optim.RMSprop, torch.optim.RMSprop, {"lr": 0.01, "weight_decay": 0.1}),
    "rmsprop centered": (
        optim.RMSprop,
        torch.optim.RMSprop,
        {"lr": 0.01, "alpha": 0.9, "momentum": 0.7, "centered": True, "eps": 1e-5},
    ),
    "adagrad": (
        optim.Adagrad,
        torch.optim.Adagrad,
        {"lr": 0.1, "lr_decay": 0.2, "weight_decay": 0.05},
    ),
}

SHAPES = [(5, 3), (5,), (2, 5), (2,)]


def pair(seed=0):
    """Parameters of deepkit and of PyTorch with the same values, in float64."""
    rng = np.random.default_rng(seed)
    values = [rng.standard_normal(s) for s in SHAPES]
    ours = [nn.Parameter(v) for v in values]
    theirs = [torch.nn.Parameter(torch.tensor(v)) for v in values]
    return ours, theirs, rng


def give(ours, theirs, rng, skip=()):
    """Fresh gradients for both, but for the parameters to skip."""
    for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
        if i not in skip:
            g = rng.standard_normal(p.shape)
            p.grad, q.grad = dk.tensor(g), torch.tensor(g)


def assert_equal(ours, theirs):
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-12, atol=1e-12)


def both(case, ours, theirs):
    make, reference, options = CASES[case]
    return make(ours, **options), reference(theirs, **options)


def advance(opt, ref, ours, theirs, rng, steps, skip=()):
    for _ in range(steps):
        opt.zero_grad()
        ref.zero_grad()
        give(ours, theirs, rng, skip)
        opt.step()
        ref.step()
        assert_equal(ours, theirs)


@pytest.mark.parametrize("case", CASES)
def test_steps_equal_pytorch(case):
    ours, theirs, rng = pair()
    opt, ref = both(case, ours, theirs)
    advance(opt, ref, ours, theirs, rng, 6)
    opt.lr = 0.003
    ref.param_groups[0]["lr"] = 0.003
    assert opt.lr == 0.003
    advance(opt, ref, ours, theirs, rng, 3)


@pytest.mark.parametrize("case", CASES)
def test_parameters_without_gradient_stay_and_keep_their_own_count(case):
    ours, theirs, rng = pair(1)
    opt, ref = both(case, ours, theirs)
    advance(opt, ref, ours, theirs, rng, 2, skip=(1,))
    np.testing.assert_array_equal(ours[1].numpy(), theirs[1].detach().numpy())
    advance(opt, ref, ours, theirs, rng, 2)  # parameter 1 takes its first step here
    advance(opt, ref, ours, theirs, rng, 2, skip=(0, 3))


@pytest.mark.parametrize("case", CASES)
def test_neighbours_that_part_step_by_step_keep_their_own_state(case):
    ours, theirs, rng = pair(6)
    opt, ref = both(case, ours, theirs)
    for skip in ((), (0,), (0, 1), (0, 1, 2), (3,), ()):
        advance(opt, ref, ours, theirs, rng, 1, skip)


@pytest.mark.parametrize("case", CASES)
def test_state_continues_bit_for_bit(case):
    ours, theirs, rng = pair(2)
    opt, ref = both(case, ours, theirs)
    advance(opt, ref, ours, theirs, rng, 2, skip=(2,))
    advance(opt, ref, ours, theirs, rng, 1)
    state = opt.state_dict()
    copies = [nn.Parameter(p.numpy()) for p in ours]
    resumed = CASES[case][0](copies, **{**CASES[case][2], "lr": 0.5})
    resumed.load_state_dict(state)
    assert resumed.lr == opt.lr
    for _ in range(3):
        for p, q in zip(ours, copies, strict=True):
            g = dk.tensor(rng.standard_normal(p.shape))
            p.grad, q.grad = g, g
        opt.step()
        resumed.step()
    for p, q in zip(ours, copies, strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


def test_defaults_are_those_of_pytorch():
    for make, reference, _ in CASES.values():
        own = inspect.signature(make).parameters
        for name, parameter in inspect.signature(reference).parameters.items():
            if name in own and own[name].default is not inspect.Parameter.empty:
                assert own[name].default == parameter.default, (make, name)


def test_a_state_reaches_an_optimiser_that_has_already_moved():
    """Its rate lies on the device, and a captured step is bound to the memory of its state."""

    def train(captured):
        model, x = net(), dk.ones(2, 3)
        opt = optim.Adam(model.parameters(), lr=0.1)

        def step(x):
            opt.zero_grad()
            (model(x) ** 2).mean().backward()
            opt.step()

        step = dk.capture(step) if captured else step
        step(x)
        weights, state = model.state_dict(), opt.state_dict()
        step(x)
        after = model.state_dict(), opt.state_dict()
        opt.lr = 0.5
        step(x)
        model.load_state_dict(weights)
        opt.load_state_dict(state)
        step(x)
        return after, (model.state_dict(), opt.state_dict())

    for captured in (False, True):
        (weights, state), (again, state_again) = train(captured)
        assert state_again["groups"] == state["groups"]
        for before, after in ((weights, again), (state["state"], state_again["state"])):
            for name, values in before.items():
                np.testing.assert_array_equal(after[name], values, err_msg=name)


def test_a_new_rate_is_no_new_program():
    w = nn.Parameter(np.ones(2, np.float32))
    opt, other = optim.SGD([w], lr=0.5), optim.SGD([nn.Parameter([1.0])], lr=0.5)

    @dk.capture
    def step():
        opt.zero_grad()
        w.sum().backward()
        opt.step()

    for rate in (0.5, 0.25, 0.125):
        opt.lr = rate
        other.groups[0]["weight_decay"] = rate  # so that the program looks at what it depends on
        step()
    assert w.tolist() == [0.125, 0.125]
    assert sum(map(len, step.programs.values())) == 1


def test_groups_have_their_own_settings():
    ours, theirs, rng = pair(3)
    split = lambda ps: [  # noqa: E731
        {"params": [ps[0], ps[2]], "weight_decay": 0.1},
        {"params": [ps[1], ps[3]], "lr": 0.5, "weight_decay": 0},
    ]
    opt = optim.SGD(split(ours), lr=0.1, momentum=0.9)
    ref = torch.optim.SGD(split(theirs), lr=0.1, momentum=0.9)
    advance(opt, ref, ours, theirs, rng, 3)
    opt.param_groups[1]["lr"] = ref.param_groups[1]["lr"] = 0.05
    opt.groups[0]["weight_decay"] = ref.param_groups[0]["weight_decay"] = 0.3
    advance(opt, ref, ours, theirs, rng, 3)
    opt.lr = 0.2
    assert [g["lr"] for g in opt.groups] == [0.2, 0.2]
    # each group's parameters became neighbours, so two calls move all four
    assert [len(g.pieces()) for g in opt.groups] == [1, 1]


def test_a_group_of_one_parameter_needs_no_list():
    w, b = nn.Parameter(np.ones((2, 3))), nn.Parameter(np.ones(2))
    opt = optim.SGD([{"params": w}, {"params": b, "lr": 0.5}], lr=0.1)
    assert [g["params"] for g in opt.groups] == [[w], [b]]


def test_plain_tensors_can_be_optimised():
    w = dk.tensor(np.array([[1.0, -2.0]]), requires_grad=True)
    opt = optim.Adam([w], lr=0.1)
    for _ in range(200):
        opt.zero_grad()
        ((w - 3.0) ** 2).sum().backward()
        opt.step()
    np.testing.assert_allclose(w.numpy(), 3.0, atol=1e-2)


def net():
    dk.seed(4)
    return nn.Sequential(nn.Linear(3, 8, activation="tanh"), nn.Linear(8, 2))


def test_one_call_moves_the_whole_model(monkeypatch):
    from deepkit import ops

    model = net()
    opt = optim.SGD(model.parameters(), lr=0.1)
    sizes = []
    real = ops.sgd_step
    monkeypatch.setattr(
        ops, "sgd_step", lambda w, *args, **kw: (sizes.append(w.shape), real(w, *args, **kw))
    )
    model(dk.randn(4, 3)).sum().backward()
    opt.step()
    arena = model[0].weight.arena
    assert sizes == [(arena.size,)]
    assert arena.size >= sum(p.size for p in model.parameters())


@pytest.mark.parametrize("case", ["sgd momentum", "adam", "adamw", "rmsprop centered", "adagrad"])
def test_captured_steps_equal_eager_ones(case):
    make, _, options = CASES[case]
    rng = np.random.default_rng(5)
    batches = [rng.standard_normal((n, 3)).astype(np.float32) for n in (4, 4, 2, 4, 2, 4)]

    def train(captured):
        model = net()
        opt = make(model.parameters(), **options)

        def step(x):
            loss = (model(x) ** 2).mean()
            opt.zero_grad()
            loss.backward()
            optim.clip_grad_norm(model.parameters(), 0.3)
            opt.step()
            return loss

        step = dk.capture(step) if captured else step
        losses = []
        for i, x in enumerate(batches):
            losses.append(step(dk.tensor(x)).item())
            opt.lr = options["lr"] / (i + 1)
        return losses, model.state_dict()

    eager, replayed = train(False), train(True)
    assert eager[0] == replayed[0]
    for name, values in eager[1].items():
        np.testing.assert_array_equal(values, replayed[1][name])


def test_gradients_add_up_over_captured_parts_of_a_step():
    def train(captured):
        model = net()
        opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        parts = [lambda x: (model(x) ** 2).mean().backward(), opt.zero_grad, opt.step]
        backward, zero, move = map(dk.capture, parts) if captured else parts
        for i in range(9):
            backward(dk.tensor(np.full((2, 3), i, np.float32)))
            if i % 3 == 2:
                move()
                zero()
                assert all(p.grad is None for p in model.parameters())
        return model.state_dict()

    eager, replayed = train(False), train(True)
    for name, values in eager.items():
        np.testing.assert_array_equal(values, replayed[name])


def test_a_program_from_before_neighbours_parted_is_not_replayed():
    """Its one counter for both stood still while they moved apart."""

    def train(captured):
        p, q = (nn.Parameter(np.ones(2, np.float32)) for _ in range(2))
        opt = optim.Adam([p, q], lr=0.1)
        step = dk.capture(opt.step) if captured else opt.step
        for moving in ([p, q], [p], [p], [p, q], [q], [p, q]):
            opt.zero_grad()
            for w in moving:
                (w * w).sum().backward()
            step()
        return opt.state_dict()["state"] | {"p": p.numpy(), "q": q.numpy()}

    eager, replayed = train(False), train(True)
    assert (eager["0.t"], eager["1.t"]) == (5, 4)
    for name, values in eager.items():
        np.testing.assert_array_equal(replayed[name], values, err_msg=name)


def test_a_captured_step_sees_changed_settings():
    def train(captured):
        model = net()
        opt = optim.SGD(model.parameters(), lr=0.1, weight_decay=0.0)

        def step(x):
            opt.zero_grad()
            (model(x) ** 2).mean().backward()
            opt.step()

        step = dk.capture(step) if captured else step
        x = dk.tensor(np.ones((2, 3), np.float32))
        for decay in (0.0, 0.0, 0.5, 0.5):
            opt.groups[0]["weight_decay"] = decay
            step(x)
        return model.state_dict()["0.weight"]

    np.testing.assert_array_equal(train(False), train(True))


def test_an_optimiser_follows_its_model_to_another_dtype():
    model = net()
    opt = optim.Adam(model.parameters(), lr=0.1)

    def step():
        opt.zero_grad()
        x = dk.ones(2, 3, dtype=model[0].weight.dtype)
        (model(x) ** 2).mean().backward()
        opt.step()

    step()
    before = opt.state_dict()["state"]
    model.astype("float64")
    after = opt.state_dict()["state"]
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values)
    assert after["0.m"].dtype == np.float64
    assert after["0.t"] == 1
    step()
    assert opt.state_dict()["state"]["0.t"] == 2


def test_the_rate_is_as_exact_as_the_weights():
    w = nn.Parameter(np.ones(3, np.float32))
    opt = optim.SGD([w], lr=0.1)
    model = nn.Module()
    model.w = w
    for dtype, left in (("float32", np.float32(1) - np.float32(0.1)), ("float64", 1 - 0.1)):
        model.astype(dtype)
        w.write(np.ones(3))
        opt.zero_grad()
        w.sum().backward()
        opt.step()
        np.testing.assert_array_equal(w.numpy(), left)


def test_zero_grad_forgets_all_gradients():
    model = net()
    opt = optim.SGD(model.parameters(), lr=0.1)
    x = dk.ones(2, 3)
    model(x).sum().backward()
    once = [p.grad.numpy() for p in model.parameters()]
    opt.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    model(x).sum().backward()
    for p, g in zip(model.parameters(), once, strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), g)


BAD = [
    (lambda p: optim.SGD(p, lr=-1), "SGD: lr must be a number of at least 0, not -1"),
    (lambda p: optim.SGD(p, lr="fast"), "SGD: lr must be a number of at least 0, not 'fast'"),
    (lambda p: optim.SGD(p, 0.1, momentum=1.5), "momentum must be .* below 1, not 1.5"),
    (lambda p: optim.SGD(p, 0.1, nesterov=True), "SGD: nesterov needs a momentum above 0"),
    (lambda p: optim.Adam(p, betas=(0.9, 1.0)), r"betas\[1\] must be .* below 1, not 1.0"),
    (lambda p: optim.Adam(p, betas=0.9), "betas must be two numbers, not 0.9"),
    (lambda p: optim.AdamW(p, weight_decay=float("nan")), "AdamW: weight_decay .* not nan"),
    (lambda p: optim.RMSprop(p, eps=0), "RMSprop: eps must be above 0, not 0"),
    (lambda p: optim.Adagrad(p, lr_decay=-0.1), "Adagrad: lr_decay .* not -0.1"),
    (lambda p: optim.Adagrad(p, eps=0), "Adagrad: eps must be above 0, not 0"),
    (lambda p: optim.SGD([], 0.1), "SGD: expected at least one parameter"),
    (lambda p: optim.SGD(p + p[:1], 0.1), r"a parameter of shape \(5, 3\) was given twice"),
    (lambda p: optim.SGD([p[0] * 2], 0.1), r"a float64 tensor of shape \(5, 3\) is no parameter"),
    (lambda p: optim.SGD([{"params": p, "decay": 1}], 0.1), "a group has no setting 'decay'"),
]


@pytest.mark.parametrize("make, sentence", BAD)
def test_bad_arguments_are_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(pair()[0])


def test_wrong_kinds_of_parameters_are_one_sentence():
    with pytest.raises(TypeError, match=r"give model\.parameters\(\)"):
        optim.SGD(net(), lr=0.1)
    with pytest.raises(TypeError, match="one is a float"):
        optim.SGD([1.0], lr=0.1)
    with pytest.raises(TypeError, match="not both"):
        optim.SGD([{"params": []}, pair()[0][0]], lr=0.1)


def test_a_wrong_setting_changes_nothing():
    opt = optim.SGD(pair()[0], lr=0.1)
    with pytest.raises(ValueError, match="lr must be"):
        opt.lr = -1
    assert opt.lr == 0.1
    with pytest.raises(KeyError, match="no setting 'rate'"):
        opt.groups[0]["rate"] = 1


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda s: s.update(kind="Adagrad"), "the state is of Adagrad, not of Adam"),
        (lambda s: s["groups"][0]["params"].pop(), r"groups with \[3\] parameters, but .* \[4\]"),
        (
            lambda s: s["state"].update({"0.m": np.zeros(2)}),
            r"'0.m' has shape \(2,\) where \(5, 3\)",
        ),
        (lambda s: s["state"].update({"9.m": np.zeros(2)}), "there is no parameter number 9"),
        (lambda s: s["groups"][0].pop("eps"), "the settings are not those of Adam"),
        (lambda s: s["groups"][0].update(lr=-1), "lr must be"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, sentence):
    ours, theirs, rng = pair()
    opt, ref = both("adam", ours, theirs)
    advance(opt, ref, ours, theirs, rng, 2)
    before, state = opt.state_dict(), opt.state_dict()
    change(state)
    with pytest.raises(ValueError, match=sentence):
        opt.load_state_dict(state)
    after = opt.state_dict()
    assert after["groups"] == before["groups"]
    for name, values in before["state"].items():
        np.testing.assert_array_equal(after["state"][name], values)
