"""Laws 1 and 2 over shapes and options that Hypothesis draws from the cards."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import deepkit as dk
from deepkit.backends import get
from deepkit.card import registry
from deepkit.testing import (
    check_case,
    check_grad,
    draw_sample,
    drawable,
    drawing,
    launched,
)

OPS = [name for name, op in registry.items() if drawable(op)]
RULED = [name for name in OPS if registry[name].outs]
OTHERS = [d for d in dk.devices() if d != "numpy"]


def a_sample(data, name):
    def pick(values):
        return data.draw(st.sampled_from(list(values)))

    found = draw_sample(registry[name], pick)
    assume(found is not None)
    return found


def kernels_agree(data, device, name):
    """All kernels that an op and its gradient launch, on a device."""
    sample = a_sample(data, name)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    dtype = np.dtype(data.draw(st.sampled_from(["float32", "float64"])))
    for case in launched(registry[name], sample, rng, dtype):
        check_case(case, get(device))


def rules_agree(data, name):
    sample = a_sample(data, name)
    elements = sum(np.prod(d.shape) for d in sample.args if d is not None)
    assume(elements < 2000)
    check_grad(name, sample, seed=data.draw(st.integers(0, 2**20)))


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("device", dk.devices())
@given(data=st.data())
def test_kernels(device, name, data):
    kernels_agree(data, device, name)


@pytest.mark.parametrize("name", RULED)
@given(data=st.data())
def test_rules(name, data):
    rules_agree(data, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("device", dk.devices())
@settings(settings.get_profile("slow"))
@given(data=st.data())
def test_kernels_at_length(device, name, data):
    kernels_agree(data, device, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", RULED)
@settings(settings.get_profile("slow"))
@given(data=st.data())
def test_rules_at_length(name, data):
    rules_agree(data, name)


# Ops whose arguments are axes, shapes or slices: test_ops_shapes.py draws those.
BY_HAND = """
    reshape slice unslice broadcast_to sum_to getitem join concat stack pad to astype fill_
    full_like batch_norm layer_norm l2_norm clip_step random_uniform random_normal
    max_pool2d_gather
"""


def test_shapes_are_drawn_for_most_ops():
    """Gradient ops, too, are left out: they are met through their forward op."""
    left = {n for n in registry if n not in OPS and not n.endswith(("_dx", "_dw", "_db"))}
    assert left <= set(BY_HAND.split())


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("device", dk.devices())
def test_axes_without_elements(device, name, monkeypatch):
    """All compute of nothing what NumPy does; what is refused has a sentence."""
    monkeypatch.setattr(drawing, "SIZES", (0, 1, 2))
    monkeypatch.setattr(drawing, "BATCHES", (0, 1, 17))
    rng, found = np.random.default_rng(0), 0
    for _ in range(60):
        sample = draw_sample(registry[name], lambda values: values[rng.integers(len(values))])
        if sample is None or all(0 not in d.shape for d in sample.args if d is not None):
            continue
        for case in launched(registry[name], sample, rng, np.dtype(np.float32)):
            check_case(case, get(device))
        found += 1
        if found == 8:
            break
