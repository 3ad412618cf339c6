"""Winograd's convolution: borders, channels and batches that fill nothing, threads, error bound."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import deepkit as dk
from deepkit.card import registry, sample
from deepkit.testing import check_op

pytest.importorskip("numba")
from deepkit.backends.numba import launch, threads, winograd

DIRECTIONS = ("conv2d", "conv2d_dx", "conv2d_dw")
PADDINGS = (0, 1, 2, ((0, 2), (1, 0)), ((3, 0), (0, 4)))
SIZES = [(h, 1 + (4 * h) % 9) for h in range(1, 10)]
CHANNELS = ((1, 3), (3, 17), (17, 1), (64, 5), (5, 64), (17, 33))
BATCHES = (1, 16, 17, 64, 65, 100)

CASES = [
    ((BATCHES[(i + j) % 6], *size), CHANNELS[(i + 2 * j) % 6], padding)
    for i, size in enumerate(SIZES)
    for j, padding in enumerate(PADDINGS)
]


def outputs(size, padding):
    ends = ((padding, padding),) * 2 if isinstance(padding, int) else padding
    return tuple(n + sum(e) - 2 for n, e in zip(size, ends, strict=True))


def samples(image, channels, padding):
    """The three directions of one convolution; nothing where it has no outputs."""
    (n, *size), (c, k) = image, channels
    pq = outputs(size, padding)
    if min(pq) < 1:
        return {}
    options = dict(padding=padding, algorithm="winograd")
    x, w, g = (n, *size, c), (k, 3, 3, c), (n, *pq, k)
    return {
        "conv2d": sample(x, w, (k,), activation="relu", **options),
        "conv2d_dx": sample(g, w, size=tuple(size), **options),
        "conv2d_dw": sample(g, x, window=3, **options),
    }


@pytest.mark.parametrize("case", CASES, ids=str)
def test_edges(case):
    for op, given in samples(*case).items():
        check_op(op, given, "numba", "float32")


@pytest.mark.parametrize("activation", [None, "relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("bias", [None, (6,)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_epilogues(activation, bias, dtype):
    options = dict(padding=1, activation=activation, algorithm="winograd")
    check_op("conv2d", sample((3, 6, 7, 4), (6, 3, 3, 4), bias, **options), "numba", dtype)


@pytest.mark.parametrize("case", CASES[::7], ids=str)
def test_float64(case):
    for op, given in samples(*case).items():
        check_op(op, given, "numba", "float64")


PAGES = """
from deepkit.testing import check_op
from deepkit.testing.memory import page_after, page_before
from tests_of_winograd import CASES, samples

for case in CASES[::3]:
    for op, given in samples(*case).items():
        for side in (page_after, page_before):
            print(case, op, side.__name__, flush=True)
            check_op(op, given, "numba", "float32", allocate=side)
print("done")
"""


def test_beside_unmapped_pages(tmp_path):
    (tmp_path / "tests_of_winograd.py").write_text(Path(__file__).read_text())
    run = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{PAGES}"]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.stdout.endswith("done\n"), (done.stdout[-300:], done.returncode, done.stderr)


# threads ------------------------------------------------------------------------------------------


@pytest.fixture
def thread_count(monkeypatch):
    """A function that sets how many threads there are, even for small work."""
    monkeypatch.setattr(launch, "GRAIN", 1)
    before = threads.count()
    yield threads.set_count
    threads.set_count(before)


def results(n, size, c, k):
    rng = np.random.default_rng(n)
    with dk.device("numba"):
        x, g = (dk.tensor(rng.standard_normal((n, size, size, m), np.float32)) for m in (c, k))
        w = dk.tensor(rng.standard_normal((k, 3, 3, c), np.float32))
        options = dict(padding=1, algorithm="winograd")
        return [
            dk.ops.conv2d(x, w, **options).numpy(),
            dk.ops.conv2d_dx(g, w, size=size, **options).numpy(),
            dk.ops.conv2d_dw(g, x, window=3, **options).numpy(),
        ]


@pytest.mark.parametrize("shape", [(100, 9, 17, 33), (16, 4, 64, 5), (64, 4, 3, 64), (1, 1, 1, 1)])
def test_the_number_of_threads_changes_no_bit(shape, thread_count):
    thread_count(1)
    alone = results(*shape)
    for count in (2, 3, 7):
        thread_count(count)
        for a, b in zip(alone, results(*shape), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_program_keeps_its_scratch_when_there_are_more_threads(thread_count):
    thread_count(2)
    with dk.device("numba"):
        x, w = dk.randn(64, 9, 9, 5), dk.randn(7, 3, 3, 5)
    step = dk.capture(lambda x: dk.ops.conv2d(x, w, padding=1, algorithm="winograd"))
    step(x)
    before = step(x).numpy()
    (program,) = step.programs.popitem()[1]
    written = program.replay.written
    for count in (7, 1, 3):
        thread_count(count)
        np.testing.assert_array_equal(program([x]).numpy(), before)
        tiles = winograd._multiply_tiles.address("f4")
        assert [row[2] for row in written.table if row[0] == tiles] == [min(2, count)]


# choosing -----------------------------------------------------------------------------------------


def kernel_of(op, ins, **options):
    """What "auto" runs for shapes of float32."""
    backend = dk.backends.get("numba")
    batched = [operand.batched for operand in registry[op].ins]
    arrays = [
        None if s is None else backend.empty(s, np.dtype("f4"), "lanes" if there else None)
        for s, there in zip(ins, batched, strict=True)
    ]
    settings = dict(stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1)
    params = settings | dict(algorithm="auto") | options
    found = backend.kernel(op, arrays, params)
    return next(n for n, k in backend.table[op].kernels.items() if k is found)


X, W, G = (64, 8, 8, 64), (128, 3, 3, 64), (64, 8, 8, 128)
CALLS = {
    "conv2d": ((X, W, None), dict(activation=None)),
    "conv2d_dx": ((G, W), dict(size=(8, 8))),
    "conv2d_dw": ((G, X), dict(window=(3, 3))),
}


@pytest.mark.parametrize("op", DIRECTIONS)
def test_many_channels_take_winograd_unless_it_is_refused(op):
    ins, options = CALLS[op]
    assert kernel_of(op, ins, **options) == "winograd"
    assert kernel_of(op, ins, **options, algorithm="direct") == "direct"
    assert kernel_of(op, ins, **options, dilation=(2, 2)) == "direct"
    with dk.using(conv2d="direct"):
        assert kernel_of(op, ins, **options) == "direct"
    assert kernel_of(op, ins, **options) == "winograd"


def test_few_channels_and_small_images_go_directly():
    assert kernel_of("conv2d", ((64, 32, 32, 3), (64, 3, 3, 3), None), activation=None) == "direct"
    assert kernel_of("conv2d", ((1, 4, 4, 16), (16, 3, 3, 16), None), activation=None) == "direct"


def test_what_is_asked_for_by_name_is_said_where_it_cannot_be():
    with dk.device("numba"):
        x, w = dk.randn(2, 8, 8, 3), dk.randn(4, 3, 3, 3)
    with pytest.raises(ValueError, match="conv2d: algorithm 'winograd' is for 3x3 windows at stri"):
        dk.ops.conv2d(x, w, stride=2, algorithm="winograd")


def test_gradients_follow_the_algorithm_of_their_call(monkeypatch):
    launched = []
    before = launch.launch

    def spy(kernel, *args, **options):
        launched.append(kernel.name)
        before(kernel, *args, **options)

    for module in ("conv", "winograd"):
        monkeypatch.setattr(sys.modules[f"deepkit.backends.numba.{module}"], "launch", spy)
    with dk.device("numba"):
        x, w = dk.randn(*X), dk.randn(*W)
    x.requires_grad = w.requires_grad = True
    for algorithm, products in (("direct", 0), ("winograd", 3), ("auto", 3)):
        launched.clear()
        dk.ops.conv2d(x, w, padding=1, algorithm=algorithm).sum().backward()
        wanted = {"_multiply_tiles", "_gather_filters"}
        assert len([n for n in launched if n in wanted]) == products


# exactness ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [64, 128, 256])
def test_its_error_is_what_the_documentation_says(channels):
    rng = np.random.default_rng(channels)
    n, size, filters = 16, 8, 32
    shapes = (n, size, size, channels), (filters, 3, 3, channels), (n, size, size, filters)
    x, w, g = (rng.standard_normal(s, np.float32) for s in shapes)

    def found(device, dtype, algorithm):
        a, b, c = (dk.tensor(v.astype(dtype), device=device) for v in (x, w, g))
        options = dict(padding=1, algorithm=algorithm)
        return (
            dk.ops.conv2d(a, b, **options).numpy(),
            dk.ops.conv2d_dx(c, b, size=size, **options).numpy(),
            dk.ops.conv2d_dw(c, a, window=3, **options).numpy(),
        )

    exact = found("numpy", "float64", "im2col")
    for y, fast, plain in zip(
        exact,
        found("numba", "float32", "winograd"),
        found("numba", "float32", "direct"),
        strict=True,
    ):
        errors = [np.sqrt(np.mean((v - y) ** 2) / np.mean(y**2)) for v in (fast, plain)]
        assert errors[0] < 2e-6
        assert errors[1] < 1e-6
        assert np.max(np.abs(fast - y)) < 2e-5 * np.sqrt(np.mean(y**2))


def test_the_wider_bound_is_winograds_alone():
    kernels = dk.backends.get("numba").table["conv2d"].kernels
    assert kernels["winograd"].tolerance == winograd.TOLERANCE > registry["conv2d"].tolerance
    assert not hasattr(kernels["direct"], "tolerance")
