"""Kernels of 'cuda-sim' on sizes that the samples of the cards do not reach."""

import numpy as np
import pytest

from deepkit.backends import get
from deepkit.testing import check_op

backend = pytest.importorskip("deepkit.backends.cuda.sim") and get("cuda-sim")


@pytest.fixture(params=[0, 1, 2], ids=["forward", "backward", "shuffled"], autouse=True)
def order(request):
    """The order in which the simulator runs threads."""
    backend.driver.order = request.param
    yield
    backend.driver.order = 0


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
