"""Winograd's convolution in CUDA: borders, channels that fill nothing, blocks of images and rows,
threads in any order, the error bound."""

from __future__ import annotations

import numpy as np
import pytest

import deepkit as dk
from deepkit.backends import get, why_not
from deepkit.backends.cuda.sim import ORDERS
from deepkit.card import registry, sample
from deepkit.testing import check_op

if why_not("cuda-sim"):
    pytest.skip(str(why_not("cuda-sim")), allow_module_level=True)
from deepkit.backends.cuda import conv_winograd, products

PADDINGS = (0, 1, 2, ((0, 2), (1, 0)), ((3, 0), (0, 4)))
CHANNELS = ((1, 3), (3, 17), (17, 1), (40, 36), (5, 64), (33, 20))
CASES = [
    ((1 + (i + j) % 3, h, 1 + (4 * h) % 9), CHANNELS[(i + 2 * j) % 6], padding)
    for i, h in enumerate(range(1, 10))
    for j, padding in enumerate(PADDINGS)
]


@pytest.fixture(params=ORDERS)
def order(request, monkeypatch):
    monkeypatch.setattr(get("cuda-sim").driver, "order", request.param)


def samples(image, channels, padding):
    """The three directions of one convolution; nothing where it has no outputs."""
    (n, *size), (c, k) = image, channels
    ends = ((padding, padding),) * 2 if isinstance(padding, int) else padding
    pq = [length + sum(e) - 2 for length, e in zip(size, ends, strict=True)]
    if min(pq) < 1:
        return {}
    options = dict(padding=padding, algorithm="winograd")
    x, w, g = (n, *size, c), (k, 3, 3, c), (n, *pq, k)
    return {
        "conv2d": sample(x, w, (k,), activation="relu", **options),
        "conv2d_dx": sample(g, w, size=tuple(size), **options),
        "conv2d_dw": sample(g, x, window=3, **options),
    }


def check(*case, dtype="float32"):
    given = samples(*case)
    for op in given:
        check_op(op, given[op], "cuda-sim", dtype)
    return bool(given)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_borders(case):
    check(*case)


@pytest.mark.parametrize("activation", [None, "relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("bias", [None, (6,)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_epilogues(activation, bias, dtype):
    options = dict(padding=1, activation=activation, algorithm="winograd")
    check_op("conv2d", sample((3, 6, 7, 4), (6, 3, 3, 4), bias, **options), "cuda-sim", dtype)


def test_threads_in_any_order(order):
    assert check(
        (
            3,
            9,
            10,
        ),
        (40, 36),
        1,
    )
    assert check((2, 5, 6), (9, 34), 2, dtype="float64")


# What the numbers below allow: one row of tiles, several, one image, two of three images.
@pytest.mark.parametrize("numbers", [1, 36 * 40 * 2 * 3, 36 * 40 * 3 * 3, 36 * 40 * 2 * 9 + 5])
@pytest.mark.parametrize("padding", [1, ((3, 0), (0, 2))])
def test_blocks_of_images_and_of_rows(numbers, padding, monkeypatch, order):
    monkeypatch.setattr(conv_winograd, "NUMBERS", numbers)
    assert check((3, 11, 10), (4, 36), padding)
    assert check((0, 11, 10), (4, 36), padding)


def test_blocks_hold_every_output_once_and_keep_to_their_bound(monkeypatch):
    monkeypatch.setattr(conv_winograd, "NUMBERS", 36 * 8 * 100)
    for shape in [(0, 5, 5, 3), (1, 3, 3, 3), (7, 9, 21, 3), (3, 201, 37, 3), (1000, 8, 8, 3)]:
        seen = np.zeros(shape, int)
        for images, rows, tiles in conv_winograd.blocks(shape, 5):
            part = seen[images, rows]
            part += 1
            assert tiles == part.shape[0] * -(-part.shape[1] // 4) * -(-part.shape[2] // 4)
            assert tiles <= 100
            assert part.flags.c_contiguous
        assert (seen == 1).all()


def test_many_tiles_are_summed_in_parts():
    task = products.Task(40, 33, 72 * 4, 36, ta=True)
    assert products.split(task)[0] > 1  # of this case's dw
    assert check((8, 24, 24), (33, 40), 1)


def test_many_channels_are_summed_in_parts():
    assert products.split(products.Task(4, 35, 260, 36, tb=True))[0] > 1
    assert check((1, 8, 8), (260, 35), 1)
    assert check((1, 8, 8), (35, 260), 1)


def test_a_captured_step_has_its_memory(monkeypatch):
    monkeypatch.setattr(conv_winograd, "NUMBERS", 36 * 40 * 12)
    rng = np.random.default_rng(0)
    with dk.device("cuda-sim"):
        w = dk.tensor(rng.standard_normal((36, 3, 3, 4), np.float32), requires_grad=True)

        def step(x):
            y = dk.ops.conv2d(x, w, padding=1, activation="tanh", algorithm="winograd")
            return y.sum(), *dk.grad(y.sum(), [w])

        captured = dk.capture(step)
        for _ in range(3):
            x = dk.tensor(rng.standard_normal((5, 9, 10, 4), np.float32))
            for a, b in zip(captured(x), step(x), strict=True):
                np.testing.assert_array_equal(a.numpy(), b.numpy())


# choosing -----------------------------------------------------------------------------------------


def test_what_is_asked_for_by_name_is_said_where_it_cannot_be():
    with dk.device("cuda-sim"):
        x, w = dk.randn(2, 8, 8, 3), dk.randn(4, 3, 3, 3)
    with pytest.raises(ValueError, match="conv2d: algorithm 'winograd' is for 3x3 windows at stri"):
        dk.ops.conv2d(x, w, stride=2, algorithm="winograd")


def test_the_wider_bound_is_winograds_alone():
    kernels = get("cuda-sim").table["conv2d"].kernels
    assert kernels["winograd"].tolerance == conv_winograd.TOLERANCE > registry["conv2d"].tolerance
    assert not hasattr(kernels["direct"], "tolerance")


# exactness ----------------------------------------------------------------------------------------


def results(x, w, g, dtype, device, algorithm):
    a, b, c = (dk.tensor(v.astype(dtype), device=device) for v in (x, w, g))
    options = dict(padding=1, algorithm=algorithm)
    return (
        dk.ops.conv2d(a, b, **options).numpy(),
        dk.ops.conv2d_dx(c, b, size=x.shape[1:3], **options).numpy(),
        dk.ops.conv2d_dw(c, a, window=3, **options).numpy(),
    )


def given(n, size, channels, filters):
    rng = np.random.default_rng(channels)
    shapes = (n, size, size, channels), (filters, 3, 3, channels), (n, size, size, filters)
    return [rng.standard_normal(s, np.float32) for s in shapes]


@pytest.mark.parametrize("channels", [64, 256])
def test_its_error_is_what_the_documentation_says(channels):
    values = given(8, 8, channels, 32)
    exact = results(*values, "float64", "numpy", "im2col")
    found = results(*values, "float32", "cuda-sim", "winograd")
    for y, fast in zip(exact, found, strict=True):
        size = np.sqrt(np.mean(y**2))
        assert np.sqrt(np.mean((fast - y) ** 2)) < 2e-6 * size
        assert np.max(np.abs(fast - y)) < 2e-5 * size


def test_precision_changes_nothing():
    values = given(2, 6, 40, 36)
    before = results(*values, "float32", "cuda-sim", "winograd")
    for precision in ("tf32", "float16"):
        with dk.precision(precision):
            after = results(*values, "float32", "cuda-sim", "winograd")
        for a, b in zip(before, after, strict=True):
            np.testing.assert_array_equal(a, b)
