"""dk.precision: tensor cores on the simulator, and what their rounding may cost."""

import numpy as np
import pytest

import deepkit as dk
from deepkit.backends import get
from deepkit.backends.cuda.sim import ORDERS

if "cuda-sim" not in dk.devices():
    pytest.skip("no C++ compiler here", allow_module_level=True)

# the error of one product of two rounded factors, relative to the product of their sizes
UNITS = {"float32": 2**-24, "3xtf32": 2**-21, "tf32": 2**-10, "float16": 2**-10, "bfloat16": 2**-7}
SIZES = [(40, 50, 64), (130, 66, 37), (9, 33, 300), (64, 128, 1030)]


@pytest.fixture(params=ORDERS)
def order(request):
    driver = get("cuda-sim").driver
    driver.order = request.param
    yield
    driver.order = "forward"


def within(y, a, b, precision):
    """Whether y = a b, as exactly as the precision promises, sums in float32 included."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    size = np.abs(a) @ np.abs(b)
    allowed = (UNITS[precision] + 2**-24 * (2 + np.sqrt(a.shape[-1]))) * size
    return bool(np.all(np.abs(y - a @ b) <= allowed))


@pytest.mark.parametrize("precision", UNITS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products_and_their_gradients(precision, size, order):
    m, n, k = size
    rng = np.random.default_rng()
    x, w, g = (rng.standard_normal(s).astype(np.float32) for s in ((m, k), (n, k), (m, n)))
    with dk.precision(precision), dk.device("cuda-sim"):
        xt, wt = dk.tensor(x, requires_grad=True), dk.tensor(w, requires_grad=True)
        y = dk.ops.linear(xt, wt)
        assert within(y.numpy(), x, w.T, precision)
        dx, dw = dk.grad(y, [xt, wt], [dk.tensor(g)])
        assert within(dx.numpy(), g, w, precision)
        assert within(dw.numpy(), g.T, x, precision)
        batched = dk.tensor(np.stack([x, -x])) @ dk.tensor(w.T.copy())
        assert within(batched.numpy()[1], -x, w.T, precision)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    "size", [(128, 128, 64), (130, 200, 77), (150, 129, 300), (3, 5, 9)], ids=str
)
def test_warpgroups(precision, size, order):
    """The same on Hopper's warpgroups, every way round, with bias, activation and batches."""
    m, n, k = size
    rng = np.random.default_rng()
    a, b = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype("f4")
    used = get("cuda-sim").driver.used
    with dk.precision(precision), dk.device("cuda-sim"), dk.using(product="wgmma", linear="wgmma"):
        for left, right in ((a, b), (np.stack([a, a[::-1]]), b)):
            y = dk.tensor(left) @ dk.tensor(right)
            assert within(y.numpy().reshape(-1, n), left.reshape(-1, k), b, precision)
        for ta, tb in ((False, True), (True, False), (True, True)):
            left, right = (a.T.copy() if ta else a), (b.T.copy() if tb else b)
            y = dk.ops.product(dk.tensor(left), dk.tensor(right), ta=ta, tb=tb)
            assert within(y.numpy(), a, b, precision)
        bias = rng.standard_normal(n).astype(np.float32)
        w = dk.tensor(b.T.copy())
        y = dk.ops.linear(dk.tensor(a), w, dk.tensor(bias), activation="relu").numpy()
        plain = dk.ops.linear(dk.tensor(a), w).numpy()
        assert np.array_equal(y, np.maximum(plain + bias, 0))
    assert any(stem == "linear_wgmma" for stem, _ in used())


def test_rounding_is_there_at_all():
    rng = np.random.default_rng(0)
    a, b = (dk.tensor(rng.standard_normal((64, 64)).astype(np.float32), "cuda-sim") for _ in "ab")
    exact = a.numpy().astype(np.float64) @ b.numpy()
    errors = {}
    for precision in UNITS:
        with dk.precision(precision):
            errors[precision] = np.abs((a @ b).numpy() - exact).max()
    assert errors["3xtf32"] < 10 * errors["float32"]
    assert 100 * errors["float32"] < errors["tf32"] < errors["bfloat16"]
    assert errors["float16"] < errors["bfloat16"] / 2


@pytest.mark.parametrize("size", [1e-12, 1e-30, 1e12, 1e30])
def test_float16_brings_its_factors_into_range(size):
    rng = np.random.default_rng(0)
    a = (size * rng.standard_normal((40, 64))).astype(np.float32)
    b = rng.standard_normal((64, 40)).astype(np.float32)
    with dk.precision("float16"), dk.device("cuda-sim"):
        assert within((dk.tensor(a) @ dk.tensor(b)).numpy(), a, b, "float16")


@pytest.mark.parametrize(
    "left, right", [(1e36, 1e-36), (1e-38, 1e38), (1e-40, 1e38), (3e38, 1e-38)]
)
@pytest.mark.parametrize("rung", ["tensor", "wgmma"])
def test_float16_with_factors_at_the_ends(left, right, rung):
    a, b = np.full((40, 64), left, np.float32), np.full((64, 40), right, np.float32)
    with dk.precision("float16"), dk.device("cuda-sim"), dk.using(product=rung):
        y = (dk.tensor(a) @ dk.tensor(b)).numpy()
    assert np.allclose(y, 64 * np.float64(a[0, 0]) * b[0, 0], rtol=4e-3)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
@pytest.mark.parametrize("size", [1e5, 1e-8])
def test_float16_scales_by_what_is_finite(odd, size):
    a = np.full((40, 64), size, np.float32)
    a[0, 0] = odd
    with dk.precision("float16"), dk.device("cuda-sim"):
        y = (dk.tensor(a) @ dk.tensor(np.ones((64, 40), np.float32))).numpy()
    assert np.allclose(y[1:], 64 * size, rtol=2e-3)
    assert not np.isfinite(y[0]).any()


def test_what_is_not_finite_stays_so():
    a = np.ones((40, 40), np.float32)
    a[3, 5], a[7, 1] = np.nan, np.inf
    for precision in UNITS:
        with dk.precision(precision), dk.device("cuda-sim"), np.errstate(all="ignore"):
            y = (dk.tensor(a) @ dk.tensor(np.ones((40, 40), np.float32))).numpy()
        assert np.isnan(y[3]).all(), precision
        infinite = np.isnan if precision == "3xtf32" else np.isinf  # infinity less itself
        assert infinite(y[7]).all(), precision
        assert np.isfinite(np.delete(y, [3, 7], 0)).all(), precision


def test_float64_stays_float64():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((40, 40)), rng.standard_normal((40, 40))
    with dk.precision("bfloat16"), dk.device("cuda-sim"):
        y = (dk.tensor(a) @ dk.tensor(b)).numpy()
    assert np.abs(y - a @ b).max() < 1e-12


def test_a_captured_step_is_kept_for_each_precision():
    rng = np.random.default_rng(0)
    a = dk.tensor(rng.standard_normal((64, 64)).astype(np.float32), "cuda-sim")
    step = dk.capture(lambda x: x @ x)
    found = {}
    for precision in ("float32", "tf32", "float32", "tf32"):
        with dk.precision(precision):
            y = step(a).numpy()
            assert np.array_equal(y, (a @ a).numpy())
            assert np.array_equal(found.setdefault(precision, y), y)
    assert not np.array_equal(found["float32"], found["tf32"])


def test_processors_compute_in_float32():
    a = dk.tensor(np.random.default_rng(0).standard_normal((20, 20)).astype(np.float32))
    with dk.precision("bfloat16"):
        less = (a @ a).numpy()
    assert np.array_equal(less, (a @ a).numpy())


def test_names():
    with pytest.raises(ValueError, match=r"expected one of 'float32', 'tf32', .* not 'half'"):
        dk.precision("half")
    dk.precision("tf32")
    try:
        with dk.precision("bfloat16"):
            pass
        from deepkit.backends import current_precision

        assert current_precision() == "tf32"
    finally:
        dk.precision("float32")
