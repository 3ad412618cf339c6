"""Schedules against PyTorch's, step by step."""

import inspect
import json
import warnings

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as reference

import deepkit as dk
from deepkit import nn, optim

CASES = {
    "step": (
        lambda o: optim.StepLR(o, 3, gamma=0.5),
        lambda o: reference.StepLR(o, 3, gamma=0.5),
    ),
    "milestones": (
        lambda o: optim.MultiStepLR(o, [7, 2], gamma=0.3),
        lambda o: reference.MultiStepLR(o, [7, 2], gamma=0.3),
    ),
    "cosine": (
        lambda o: optim.CosineLR(o, 12, eta_min=0.01),
        lambda o: reference.CosineAnnealingLR(o, 12, eta_min=0.01),
    ),
    "one cycle": (
        lambda o: optim.OneCycleLR(o, 0.7, 20),
        lambda o: reference.OneCycleLR(o, 0.7, 20, cycle_momentum=False),
    ),
    "one cycle, linear, three phases": (
        lambda o: optim.OneCycleLR(
            o, 0.7, 20, pct_start=0.4, anneal="linear", div_factor=5, three_phase=True
        ),
        lambda o: reference.OneCycleLR(
            o,
            0.7,
            20,
            pct_start=0.4,
            anneal_strategy="linear",
            div_factor=5,
            three_phase=True,
            cycle_momentum=False,
        ),
    ),
    "warm-up": (
        lambda o: optim.LinearWarmup(o, 5),
        lambda o: reference.LinearLR(o, 1 / 3, total_iters=5),
    ),
    "warm-up, then cosine": (
        lambda o: optim.LinearWarmup(o, 4, start=0.1, after=optim.CosineLR(o, 10)),
        lambda o: reference.SequentialLR(
            o,
            [
                reference.LinearLR(o, 0.1, total_iters=4),
                reference.CosineAnnealingLR(o, 10),
            ],
            [4],
        ),
    ),
}


def optimisers():
    ours = optim.SGD(
        [{"params": [nn.Parameter([1.0])]}, {"params": [nn.Parameter([1.0])], "lr": 0.02}], lr=0.4
    )
    theirs = torch.optim.SGD(
        [
            {"params": [torch.nn.Parameter(torch.ones(1))]},
            {"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.02},
        ],
        lr=0.4,
    )
    return ours, theirs


@pytest.mark.parametrize("case", CASES)
def test_rates_equal_pytorch(case):
    ours, theirs = optimisers()
    make, make_reference = CASES[case]
    schedule = make(ours)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's about its own order of calls
        other = make_reference(theirs)
        for t in range(20):
            expected = [g["lr"] for g in theirs.param_groups]
            np.testing.assert_allclose([g["lr"] for g in ours.groups], expected, 1e-9, err_msg=t)
            theirs.step()
            other.step() if t < 19 else None
            schedule.step()


def test_defaults_are_those_of_pytorch():
    theirs, names = torch.optim.lr_scheduler, {"start_factor": "start", "anneal_strategy": "anneal"}
    for own, other in (
        (optim.StepLR, theirs.StepLR),
        (optim.MultiStepLR, theirs.MultiStepLR),
        (optim.CosineLR, theirs.CosineAnnealingLR),
        (optim.OneCycleLR, theirs.OneCycleLR),
        (optim.LinearWarmup, theirs.LinearLR),
    ):
        expected = {names.get(n, n): p for n, p in inspect.signature(other).parameters.items()}
        for name, parameter in inspect.signature(own).parameters.items():
            if parameter.default is not inspect.Parameter.empty and name != "after":
                assert parameter.default == expected[name].default, (own, name)


@pytest.mark.parametrize("case", CASES)
def test_state_continues(case):
    first, _ = optimisers()
    schedule = CASES[case][0](first)
    for _ in range(6):
        schedule.step()
    state = json.loads(json.dumps(schedule.state_dict()))
    second, _ = optimisers()
    second.lr = 0.9  # as if the optimiser had been made with another rate
    resumed = CASES[case][0](second)
    resumed.load_state_dict(state)
    for _ in range(9):
        assert [g["lr"] for g in second.groups] == [g["lr"] for g in first.groups]
        schedule.step()
        resumed.step()


def test_a_captured_step_follows_the_schedule():
    w = nn.Parameter([0.0])
    opt = optim.SGD([w], lr=1.0)
    schedule = optim.StepLR(opt, 1, gamma=0.5)

    @dk.capture
    def step():
        opt.zero_grad()
        w.sum().backward()
        opt.step()

    seen = []
    for _ in range(4):
        step()
        schedule.step()
        seen.append(w.numpy()[0])
    np.testing.assert_array_equal(seen, [-1.0, -1.5, -1.75, -1.875])


def test_a_schedule_inside_of_a_captured_step_is_an_error():
    w = nn.Parameter([0.0])
    opt = optim.SGD([w], lr=1.0)
    schedule = optim.StepLR(opt, 1)

    @dk.capture
    def step():
        w.sum().backward()
        opt.step()
        schedule.step()

    with pytest.raises(dk.CaptureError):
        step()


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda o: optim.StepLR(o, 0), "StepLR: step_size must be a whole number"),
        (lambda o: optim.CosineLR(o, 2.5), "CosineLR: T_max must be a whole number"),
        (lambda o: optim.MultiStepLR(o, [0]), "MultiStepLR: a milestone must be"),
        (lambda o: optim.OneCycleLR(o, 0.1, 10, pct_start=2), "pct_start is a share"),
        (lambda o: optim.OneCycleLR(o, 0.1, 10, anneal="up"), "'cos' or 'linear', not 'up'"),
        (lambda o: optim.OneCycleLR(o, 0.0, 10), "max_lr and both factors must be above 0"),
        (lambda o: optim.OneCycleLR(o, 0.1, 10, div_factor=0), "both factors must be above 0"),
        (lambda o: optim.OneCycleLR(o, 0.1, 10, final_div_factor=0), "both factors must be above"),
        (lambda o: optim.LinearWarmup(o, 3, start=-1), "start must be from 0 to 1"),
        (
            lambda o: optim.LinearWarmup(o, 3, after=optim.StepLR(optimisers()[0], 1)),
            "`after` is of another optimiser",
        ),
        (
            lambda o: optim.StepLR(o, 1).load_state_dict({"kind": "CosineLR"}),
            "the state is of CosineLR, not of StepLR",
        ),
    ],
)
def test_bad_arguments_are_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(optimisers()[0])


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"t": -1}, "t is a whole number of steps, not -1"),
        ({"t": 2**63}, "t is a whole number of steps, not 9223372036854775808"),
        ({"t": 1.5}, "t is a whole number of steps, not 1.5"),
        ({"bases": [0.1, float("nan")]}, "bases are learning rates, not"),
        ({"bases": [0.1, "fast"]}, "bases are learning rates, not"),
        ({"bases": 0.1}, "bases are learning rates, not 0.1"),
        ({"bases": [0.1]}, "the state is of 1 groups, but this StepLR has 2"),
    ],
)
def test_a_state_that_cannot_be_changes_nothing(change, sentence):
    schedule = optim.StepLR(optimisers()[0], 2)
    before = schedule.state_dict()
    with pytest.raises(ValueError, match=sentence):
        schedule.load_state_dict({**before, **change})
    assert schedule.state_dict() == before


def test_a_schedule_wants_an_optimiser():
    with pytest.raises(TypeError, match="StepLR: expected an optimiser, not a float"):
        optim.StepLR(0.1, 2)


def test_schedules_are_shown_in_a_line():
    optimizer = dk.optim.SGD([dk.nn.Parameter([1.0])], lr=0.5)
    schedule = dk.optim.CosineLR(optimizer, 10)
    schedule.step()
    assert repr(schedule) == "<CosineLR T_max=10, eta_min=0.0; lr 0.48776 at step 1>"
    for other in (
        dk.optim.StepLR(optimizer, 3),
        dk.optim.MultiStepLR(optimizer, [2, 4]),
        dk.optim.OneCycleLR(optimizer, 0.1, 100),
        dk.optim.LinearWarmup(optimizer, 5),
    ):
        assert repr(other).startswith(f"<{type(other).__name__} ")
        assert len(repr(other)) < 200
