"""PyTorch as a second oracle: results and gradients of every op that it has."""

import numpy as np
import pytest
import torch

import deepkit as dk
from bench.torch_table import ELSEWHERE, FUNCTIONS, GRADIENT_OF
from deepkit.card import registry
from deepkit.testing import samples_of
from deepkit.testing.cases import arguments, call, drawn

SAMPLES = [
    (name, i) for name in FUNCTIONS if name in registry for i in range(len(samples_of(name)))
]

# Where PyTorch's float32 is itself the less exact one, the comparison allows for it.
BOUNDS = {"float32": 3e-5, "float64": 1e-11}


def test_every_op_has_an_oracle_or_a_reason():
    known = FUNCTIONS.keys() | ELSEWHERE.keys()
    missing = [n for n in registry if n not in known and not n.endswith(GRADIENT_OF)]
    assert missing == [], "put these into torch_table.py"


def test_every_gradient_op_belongs_to_one_with_an_oracle():
    for name in registry:
        if name.endswith(GRADIENT_OF):
            family = name.rsplit("_", 1)[0]
            assert any(n.startswith(family) for n in FUNCTIONS), name


def test_no_name_is_out_of_date():
    assert [n for n in [*FUNCTIONS, *ELSEWHERE] if n not in registry] == []


def close(what, got, want, bound):
    assert got.shape == want.shape, what
    if want.dtype.kind != "f":
        np.testing.assert_array_equal(got, want, err_msg=what)
        return
    scale = float(np.max(np.abs(want), initial=0.0))
    np.testing.assert_allclose(got, want, rtol=bound, atol=bound * scale, err_msg=what)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name,number", SAMPLES, ids=[f"{n}-{i}" for n, i in SAMPLES])
@pytest.mark.parametrize("device", dk.devices())
def test_against_torch(device, name, number, dtype):
    op, sample = registry[name], samples_of(name)[number]
    rng, bound = np.random.default_rng([number, *name.encode()]), BOUNDS[dtype]
    arrays = drawn(op, sample, rng, np.dtype(dtype))
    ours, theirs = [], []
    for i, a in enumerate(arrays):
        need = a is not None and a.dtype.kind == "f" and i not in _updated(op)
        ours.append(None if a is None else dk.tensor(a, device, requires_grad=need))
        theirs.append(None if a is None else torch.tensor(a, requires_grad=need))
    (y, *_) = call(op, sample, ours)
    z = FUNCTIONS[name](*arguments(op, sample, theirs), **sample.params)
    close(f"{name}: result", y.numpy(), z.detach().numpy(), bound)
    for i in _updated(op):
        if arrays[i] is not None:
            close(f"{name}: {op.ins[i].name}", ours[i].numpy(), theirs[i].numpy(), bound)
    if not y.requires_grad:
        assert not op.differentiable or not z.requires_grad
        return
    weights = rng.standard_normal(y.shape).astype(dtype)
    y.backward(dk.tensor(weights, device))
    z.backward(torch.tensor(weights))
    for i, (t, u) in enumerate(zip(ours, theirs, strict=True)):
        if t is None or not t.requires_grad:
            continue
        want = np.zeros(t.shape, dtype) if u.grad is None else u.grad.numpy()
        got = np.zeros(t.shape, dtype) if t.grad is None else t.grad.numpy()
        close(f"{name}: gradient of input {i}", got, want, bound * 10)


@pytest.mark.parametrize("device", dk.devices())
def test_powers_of_every_kind_of_exponent(device):
    """One exponent, many and few side by side give an element the same power, within an ulp or two
    of the true one, up to the ends of float32."""
    rng = np.random.default_rng(0)
    a = np.exp(rng.uniform(-40, 40, 1000)).astype(np.float32)
    exponents = [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0, -3.0, 5.0, 1.7, -0.3]
    b = np.array(exponents, np.float32)[np.arange(1000) % len(exponents)]
    a *= np.where((b == np.round(b)) & (rng.random(1000) < 0.5), -1, 1).astype(np.float32)
    side_by_side = (dk.tensor(a, device) ** dk.tensor(b, device)).numpy()
    with np.errstate(over="ignore", under="ignore"):
        true = a.astype(np.float64) ** b.astype(np.float64)
        np.testing.assert_allclose(side_by_side, true.astype(np.float32), rtol=5e-7, atol=1e-44)
    for exponent in exponents:
        chosen = b == np.float32(exponent)
        got = (dk.tensor(a, device) ** exponent).numpy()[chosen]
        if device == "numba":
            np.testing.assert_array_equal(got, side_by_side[chosen])


@pytest.mark.parametrize("device", dk.devices())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_powers_at_the_ends_are_those_of_ieee(device, dtype):
    """As PyTorch has them for two tensors; beside one number it takes sqrt for a power of 0.5."""
    values = [-np.inf, -0.0, 0.0, np.inf, -4.0, 4.0, np.nan]
    for power in (0.5, -0.5, 3.0, -1.0, 0.0, np.inf, -np.inf):
        for a in (values, [[v] for v in values], values[:1], values[1:2], values[0], values[1]):
            x = np.array(a, dtype)
            want = torch.pow(
                torch.tensor(x), torch.full(x.shape, power, dtype=torch.tensor(x).dtype)
            )
            for y in (
                dk.tensor(x, device) ** power,
                dk.tensor(x, device) ** dk.full(x.shape, power, device=device, dtype=dtype),
            ):
                np.testing.assert_array_equal(y.numpy(), want.numpy())
                zeros = want.numpy() == 0
                np.testing.assert_array_equal(
                    np.signbit(y.numpy()[zeros]), np.signbit(want.numpy()[zeros])
                )


def _updated(op):
    """Inputs that the op updates: batch_norm moves its running statistics when it trains."""
    names = [o.name for o in op.ins]
    running = [i for i, n in enumerate(names) if n in ("running_mean", "running_var")]
    return running if op.name in ("batch_norm", "batch_norm_train") else op.inplace
