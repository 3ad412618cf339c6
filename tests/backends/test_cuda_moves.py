"""Kernels of 'cuda-sim' on sizes that the samples of the cards do not reach."""

import numpy as np
import pytest

from deepkit.backends import DeviceError, get
from deepkit.backends.cuda.sim import ORDERS
from deepkit.testing import check_op

try:
    backend = get("cuda-sim")
except DeviceError as missing:
    pytest.skip(str(missing), allow_module_level=True)


@pytest.fixture(params=ORDERS, autouse=True)
def order(request):
    """The order in which the simulator runs threads."""
    backend.driver.order = request.param
    yield
    backend.driver.order = "forward"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def check(op, *arrays, dtype="float32", **params):
    check_op(op, arrays, backend, dtype, **params)


@pytest.mark.parametrize("channels", [3, 4, 8])
def test_the_first_of_equal_values_wins_and_nan_before_all(rng, channels):
    x = rng.choice([0.0, 1.0, -np.inf, np.nan], (2, 6, 7, channels), p=[0.4, 0.3, 0.2, 0.1])
    check("max_pool2d", x, size=3, stride=2, padding=1)
    check("max_pool2d", np.full_like(x, -np.inf), size=2, padding=1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_numbers_in_many_blocks_with_a_rest(rng, dtype):
    key = np.array([2**62 + 5, 3 * 2**32 + 1])
    for n in (4099, 5002):
        check("random_uniform", key, shape=(n,), dtype=dtype)
        check("random_normal", key, shape=(n,), dtype=dtype)
        check("drop", rng.standard_normal(n), key, p=0.3, dtype=dtype)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((33, 70), (1, 0)),
        ((3, 9, 40), (0, 2, 1)),
        ((2, 3, 35, 8), (3, 1, 0, 2)),
        ((2, 33, 3, 4), (0, 2, 1, 3)),
        ((40, 3), (1, 0)),
    ],
)
def test_axes_of_any_length_are_turned(rng, dtype, shape, axes):
    x = rng.integers(0, 100, shape).astype(dtype)
    kind = "float64" if dtype == "float64" else "float32"
    check("transpose", x, axes=axes, dtype=kind)


def test_moves_that_lie_together_or_apart(rng):
    x = rng.standard_normal((37, 9, 3))
    check("slice", x, slices=((3, 33, 1), (0, 9, 1), (0, 3, 1)))
    check("slice", x, slices=((36, -1, -2), (1, 9, 3), (0, 3, 1)))
    check("unslice", x[:30], shape=x.shape, slices=((3, 33, 1), (0, 9, 1), (0, 3, 1)))
    check("unslice", x, shape=x.shape, slices=((36, -1, -1), (0, 9, 1), (0, 3, 1)))
    check("pad", x, widths=((1, 2), (0, 3), (0, 0)), value=-2.5)
    for axis in range(3):
        check("join", x, x + 1, axis=axis)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int64"])
def test_rows_come_in_the_order_of_their_places(rng, kind):
    for axis, inner in [(0, 4), (1, 3), (1, 1)]:
        shape = (2, 7, inner) if axis else (7, inner)
        for count in (3, 2500):
            index = rng.integers(0 if kind == "uint8" else -9, 9, count).astype(kind)
            check("take", rng.standard_normal(shape), index, axis=axis)
            g = rng.standard_normal((*shape[:axis], count, inner))
            check("take_dx", g, index, shape=shape, axis=axis)


@pytest.mark.parametrize(("rows", "channels"), [(700, 3), (5000, 1), (300, 70), (2, 33)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batch_norm_in_pieces_and_far_from_zero(rng, dtype, rows, channels):
    x = (1000 if rows > 2 else 10) + rng.standard_normal((rows, channels)) * np.arange(channels)
    x[0] += 50  # the first value is the pivot of the sums
    g, gamma, beta = rng.standard_normal((rows, channels)), *rng.standard_normal((2, channels))
    running = [np.zeros(channels), np.ones(channels)]
    check("batch_norm_train", x, gamma, beta, g, *running, activation="relu", dtype=dtype)
    mean, invstd = x.mean(0), 1 / np.sqrt(x.var(0) + 1)
    check("batch_norm_dx", g, x, gamma, mean, invstd, beta, relu=True, dtype=dtype)


@pytest.mark.parametrize("size", [33, 1024, 1025, 3000])
def test_rows_of_a_warp_and_of_a_block(rng, size):
    x, g = 10 + rng.standard_normal((2, 19, size))
    gamma, beta = rng.standard_normal((2, size))
    check("layer_norm_over", x, gamma, beta)
    mean, invstd = x.mean(1, keepdims=True), 1 / x.std(1, keepdims=True)
    check("layer_norm_dx", g, x, gamma, mean, invstd)


# steps that are replayed --------------------------------------------------------------------------


def test_a_replay_reads_the_rate_of_the_day_and_counts_once(rng):
    w, m, g = rng.standard_normal((3, 40_000))
    v, lr, t = m**2, np.array(0.1), np.array(3)
    params = dict(beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.1, decoupled=True)
    expected = [a.copy() for a in (w, m, v)]
    count = t.copy()
    kernel, reference = (b.table["adam_step"] for b in (backend, get("numpy")))
    replay = backend.bind([(kernel, (w, m, v, g, lr, t), params | dict(scratch=[np.empty(2)]))])
    assert t == 3
    for rate in (0.1, 0.5, 0.01):
        lr[...] = rate
        replay()
        reference(*expected, g, lr, count, **params, scratch=np.empty((2, 16384)))
    assert t == count == 6
    for got, want in zip((w, m, v), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_steps_go_one_by_one_where_no_16_bytes_begin(rng):
    arrays = [a[1:] for a in rng.standard_normal((3, 1000)).astype(np.float32)]
    w, v, g = arrays
    assert w.ctypes.data % 16
    expected = w - np.float32(0.1) * (np.float32(0.9) * v + g)
    options = dict(momentum=0.9, nesterov=False, weight_decay=0.0)
    backend.table["sgd_step"](w, v, g, np.array(0.1, np.float32), **options)
    np.testing.assert_allclose(w, expected, rtol=1e-6)


def test_a_norm_of_many_arrays(rng):
    check("l2_norm", *[rng.standard_normal(n) for n in (1, 5000, 0, 70_001)])
