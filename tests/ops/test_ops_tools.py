"""The tools of deepkit.testing bite: each is shown a kernel or a rule with one fault."""

import ctypes
import subprocess
import sys

import numpy as np
import pytest

from deepkit.backends import Variants, get, scratch
from deepkit.backends.numpy import NumpyBackend
from deepkit.card import registry, sample
from deepkit.ops import exp, linear
from deepkit.ops import sum as sum_over
from deepkit.testing import (
    CheckError,
    check_backend,
    check_grad,
    check_grad2,
    check_op,
    check_pages,
    guarded_memory,
)
from deepkit.testing.kernels import reference


class Broken(NumpyBackend):
    name = "broken"


def broken(**kernels):
    return Broken({**get("numpy").table, **kernels})


def past_the_end(y, pieces=1):
    """The same memory, longer by some elements: what a raw pointer can reach."""
    shape, strides = (y.size + pieces,), (y.itemsize,)
    return np.lib.stride_tricks.as_strided(y.reshape(-1), shape, strides)


def leaves_one(y, x):
    np.maximum(x.reshape(-1)[:-1], 0, out=y.reshape(-1)[:-1])


def writes_past(y, x):
    np.maximum(x, 0, out=y)
    past_the_end(y)[-1] = 0


def writes_before(y, x):
    np.maximum(x, 0, out=y)
    base = y.__array_interface__["data"][0]
    ctypes.c_uint8.from_address(base - 1).value = 0


def changes_its_input(y, x):
    np.maximum(x, 0, out=y)
    x[...] = 0


def adds_to_what_is_there(y, x):
    y += np.maximum(x, 0)


def is_off(y, x):
    np.maximum(x, 0, out=y)
    y *= 1 + 1e-6


def knows_no_nan(y, x):
    np.maximum(x, 0, out=y)
    y.flat[0] = np.nan


CHANCE = np.random.default_rng(0)


def throws_dice(y, x):
    np.maximum(x, 0, out=y)
    y += 1e-9 * CHANCE.random(y.shape)


@scratch(lambda y, x: [(y.shape, y.dtype)])
def trusts_its_scratch(y, x, *, scratch):
    np.maximum(x, 0, out=y)
    y += np.where(np.isfinite(scratch[0]), scratch[0], 0)


@scratch(lambda y, x: [(y.shape, y.dtype)])
def overruns_its_scratch(y, x, *, scratch):
    np.maximum(x, 0, out=y)
    past_the_end(scratch[0])[-1] = 0


FAULTS = {
    leaves_one: "not fully written",
    writes_past: r"beside y, \d+ bytes after it",
    writes_before: r"beside y, \d+ bytes before it",
    changes_its_input: "the input x was changed",
    adds_to_what_is_there: "not fully written",
    is_off: "is wrong in",
    knows_no_nan: "expected .* within",
    throws_dice: "depends on what was in memory before, or on chance",
    trusts_its_scratch: "depends on what was in memory",
    overruns_its_scratch: r"beside scratch 0, \d+ bytes after it",
}


@pytest.mark.parametrize("kernel", FAULTS, ids=lambda k: k.__name__)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_fault_is_found(kernel, dtype):
    with pytest.raises(CheckError, match=FAULTS[kernel]):
        check_op("relu", sample((4, 3)), broken(relu=kernel), dtype)


def test_a_right_kernel_passes():
    check_op("relu", sample((4, 3)), broken(), "float32")
    check_op(registry["relu"], [np.array([[1.0, -2.0]])], broken())


def test_infinity_is_met_by_infinity_alone():
    def largest(y, x):
        np.maximum(x, 0, out=y)
        y[np.isinf(y)] = np.finfo(y.dtype).max

    given = [np.array([[np.inf, -2.0]])]
    exact = registry["leaky_relu"]
    check_op(exact, given, broken(), slope=0.1)
    with pytest.raises(CheckError, match="expected inf"):
        check_op(exact, given, broken(leaky_relu=lambda y, x, *, slope: largest(y, x)), slope=0.1)


def test_a_fault_in_one_variant_is_found():
    good = get("numpy").table["conv2d"]
    right = next(iter(good.kernels.values()))

    def off(y, *ins, scratch=(), **params):
        right(y, *ins, scratch=scratch, **params)
        y *= 2

    off.__dict__ |= right.__dict__
    backend = broken(conv2d=Variants(good.choose, {**good.kernels, "off": off}))
    given = sample((2, 6, 5, 3), (4, 3, 3, 3), None)
    with pytest.raises(CheckError, match=r"conv2d \(off\) on 'broken': y is wrong"):
        check_op("conv2d", given, backend)
    check_op("conv2d", given._replace(params={"algorithm": next(iter(good.kernels))}), backend)


def test_a_variant_that_does_not_take_a_case_is_left_out():
    good = get("numpy").table["conv2d"]

    def never(*_, **__):
        raise AssertionError("it said that it does not take this")

    never.takes = lambda x, w, b, *, stride, **_: stride == (2, 2)
    backend = broken(conv2d=Variants(good.choose, {**good.kernels, "never": never}))
    check_op("conv2d", sample((2, 6, 5, 3), (4, 3, 3, 3), None), backend)
    with pytest.raises(AssertionError, match="it said"):
        check_op("conv2d", sample((2, 6, 5, 3), (4, 3, 3, 3), None, stride=2), backend)


def test_float32_sums_that_lose_digits_are_found():
    """Summing in half precision is off by 1e-3: far above the bound for float32."""

    def half(y, x, *, axes, keepdims):
        y[...] = x.astype(np.float16).sum(axis=axes, keepdims=keepdims)

    with pytest.raises(CheckError, match="is wrong"):
        check_op(sum_over, sample((40, 30)), broken(sum=half), "float32")


def test_the_bound_allows_for_cancellation():
    """A sum of large terms that cancels has no right digits, and none are asked for."""
    x = np.array([1e8, 1.0, -1e8, 1.0])
    check_op(sum_over, [x], "numpy", "float32")
    (expected,) = reference(_case(sum_over, x))
    assert expected.values == 2.0
    assert expected.magnitude > 1e8


def _case(op, *arrays):
    from deepkit.testing import case_of
    from deepkit.testing.cases import fixed

    return case_of(op, fixed(arrays, {}), np.random.default_rng(0), np.float32)


# gradients ----------------------------------------------------------------------------------------


def test_a_wrong_rule_is_found(monkeypatch):
    monkeypatch.setattr(exp, "grads", (lambda g, y, x: g * y * 1.001,))
    with pytest.raises(CheckError, match="exp: the gradient of 'x' says"):
        check_grad("exp", sample((4, 3)))


def test_a_missing_rule_is_found(monkeypatch):
    rules = linear.grads
    monkeypatch.setattr(linear, "grads", (rules[0], None, rules[2]))
    with pytest.raises(
        CheckError, match=r"linear: the gradient of 'w' says 0 along.* the rule or the NumPy kernel"
    ):
        check_grad("linear", sample((4, 3), (5, 3), (5,)))


def test_a_rule_wrong_in_second_order_is_found(monkeypatch):
    """y.detach() gives the right gradient, and hides x from the gradient of the gradient."""
    monkeypatch.setattr(exp, "grads", (lambda g, y, x: g * y.detach(),))
    check_grad("exp", sample((4, 3)))
    with pytest.raises(CheckError, match="exp, second order: the gradient of input 0"):
        check_grad2("exp", sample((4, 3)))


def test_functions_are_checked_too():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((4, 3)), rng.standard_normal((3, 2))
    check_grad(lambda x, w: (x @ w).tanh(), [x, w])
    check_grad2(lambda x, w: (x @ w).tanh(), [x, w])
    with pytest.raises(CheckError, match="input 0"):
        check_grad(lambda x, w: (x.detach() * x) @ w, [x, w])


# pages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["after", "before"])
@pytest.mark.parametrize("nbytes", [1, 20, 4096, 5000])
def test_guarded_memory_can_be_used_up_to_its_ends(side, nbytes):
    memory = guarded_memory(nbytes, side)
    assert memory.shape == (nbytes,)
    memory[...] = 7
    assert int(memory.sum()) == 7 * nbytes


@pytest.mark.parametrize("side,at", [("after", 20), ("before", -1)])
def test_guarded_memory_ends_the_process_past_its_ends(side, at):
    program = f"""
import ctypes
from deepkit.testing import guarded_memory
memory = guarded_memory(20, {side!r})
print(ctypes.c_uint8.from_address(memory.ctypes.data + {at - 1 if at > 0 else 0}).value)
print("alive", flush=True)
print(ctypes.c_uint8.from_address(memory.ctypes.data + {at}).value)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["0", "alive"]
    assert done.returncode < 0


READS_PAST = """
import numpy as np
from deepkit.backends import get

def relu(y, x):
    np.maximum(x, 0, out=y)
    longer = np.lib.stride_tricks.as_strided(x.reshape(-1), (x.size + 1,), (x.itemsize,))
    float(longer[-1])

get("numpy").table["relu"] = relu
"""


def test_a_read_past_the_end_is_a_finding(tmp_path, monkeypatch):
    (tmp_path / "reads_past.py").write_text(READS_PAST)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    findings = check_pages("numpy", ["exp", "relu", "log"], modules=["reads_past"])
    assert len(findings) == 4  # two samples in two types, a page after; none before
    for finding in findings:
        assert finding.startswith("relu on 'numpy'")
        assert finding.endswith("page after: it touched memory that is not its own")


# the whole backend --------------------------------------------------------------------------------


def test_check_backend_reports_what_it_finds(monkeypatch):
    some = ["relu", "exp", "log"]
    table = dict(get("numpy").table)
    del table["log"]
    backend = Broken({**table, "relu": leaves_one})
    monkeypatch.setitem(__import__("deepkit.backends").backends._made, "broken", backend)
    report = check_backend("broken", some, strict=False)
    assert report.missing == ("log",)
    assert any("relu on 'broken'" in f for f in report.findings)
    assert not any("exp" in f for f in report.findings)
    with pytest.raises(CheckError, match="missing: log"):
        check_backend("broken", some)


def test_check_backend_passes_the_reference():
    report = check_backend("numpy", [n for n in registry if n in ("relu", "linear", "sum")])
    assert report.findings == ()
    assert report.checks > 40
