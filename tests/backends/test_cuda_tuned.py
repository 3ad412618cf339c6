"""The choice of a convolution by measurement, with a clock that says what the test wants."""

from __future__ import annotations

import json
import shutil
import threading

import numpy as np
import pytest
from backends import fake_cupy

import deepkit as dk
from deepkit.backends import get
from deepkit.card import registry
from deepkit.testing.kernels import case_of

if "cuda-sim" not in dk.devices():
    pytest.skip("no C++ compiler here", allow_module_level=True)
from deepkit.backends.cuda import launch, tuned

FASTEST = {"direct": 3.0, "im2col": 2.0, "winograd": 1.0}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def machine(monkeypatch, cache):
    """One that has compiled kernels, and measured nothing."""
    shutil.rmtree(cache / "cuda" / "tuned", ignore_errors=True)
    monkeypatch.setenv("DEEPKIT_CACHE", str(cache))
    fake_cupy.install(monkeypatch)
    return monkeypatch


class Clock:
    """Seconds by name of a variant; remembers which were asked for."""

    def __init__(self, seconds):
        self.seconds, self.asked = seconds, []

    def __call__(self, gpu, run, budget):
        assert 0 < budget <= tuned.BUDGET
        run()
        table = get("cuda").table
        while not hasattr(run, "func") or hasattr(run.func, "func"):
            run = run.func
        kernels = {k: n for op in tuned.OPS for n, k in table[op].kernels.items()}
        name = kernels[run.func]
        self.asked.append(name)
        if isinstance(self.seconds[name], Exception):
            raise self.seconds[name]
        return self.seconds[name]


def clock(**seconds):
    """The clock of a process that has just begun."""
    made = get("cuda").tuner.clock = Clock(FASTEST | seconds)
    return made


def began(machine):
    fake_cupy.install(machine)


def operands(dtype="float32", channels=4, size=6):
    rng = np.random.default_rng(0)
    shapes = (2, size, size, channels), (3, 3, 3, channels)
    return [dk.tensor(rng.standard_normal(s).astype(dtype), device="cuda") for s in shapes]


def picked(op="conv2d", *ins, **options):
    """The variant that the kernel of a call is."""
    backend, ins = get("cuda"), ins or operands()
    params = dict(stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1)
    params |= dict(activation=None, algorithm="auto") | options
    arrays = [x.array for x in ins]
    kernel = backend.kernel(op, [*arrays, None], params)
    return next(n for n, k in backend.table[op].kernels.items() if k is kernel)


def lines(cache):
    (path,) = (cache / "cuda" / "tuned").iterdir()
    return path, [json.loads(line) for line in path.read_bytes().splitlines() if line]


def test_the_fastest_is_measured_once_and_remembered(machine, cache):
    seen = clock()
    assert picked() == "winograd"
    assert sorted(seen.asked) == ["direct", "im2col", "winograd"]
    assert picked() == "winograd"
    assert len(seen.asked) == 3
    assert picked(stride=(2, 2)) == "im2col"  # which Winograd's is not for
    assert len(seen.asked) == 5
    path, kept = lines(cache)
    assert path.name.startswith("Stand-in_of_a_GPU-")
    assert [entry["algorithm"] for entry in kept] == ["winograd", "im2col"]

    began(machine)
    seen = clock()
    assert picked() == "winograd"
    assert picked(stride=(2, 2)) == "im2col"
    assert seen.asked == []
    with dk.precision("tf32"):
        picked()
    assert len(seen.asked) == 3  # another precision is another key


def test_what_it_computes_is_right(machine):
    clock()
    x, w = operands()
    x.requires_grad = w.requires_grad = True
    y = dk.ops.conv2d(x, w, padding=1)
    got = [y, *dk.grad(y.sum(), [x, w])]
    a, b = (dk.tensor(t.numpy(), device="numpy", requires_grad=True) for t in (x, w))
    y = dk.ops.conv2d(a, b, padding=1)
    for one, want in zip(got, [y, *dk.grad(y.sum(), [a, b])], strict=True):
        np.testing.assert_allclose(one.numpy(), want.numpy(), rtol=1e-4, atol=1e-4)
    tuner = get("cuda").tuner
    assert {key[0]: name for key, name in tuner.known.items()} == dict.fromkeys(
        tuned.OPS, "winograd"
    )


@pytest.mark.parametrize("op", tuned.OPS)
def test_outputs_have_the_shapes_of_the_cards(op):
    for given in registry[op].samples:
        if not given.bench:
            case = case_of(registry[op], given, np.random.default_rng(0), np.dtype("float32"))
            shapes = [None if a is None else a.shape for a in case.ins]
            assert (tuned.OPS[op](*shapes, **case.params),) == registry[op].shape(
                *shapes, **case.params
            )


def test_lost_digits_have_a_price(machine):
    clock(direct=1.05, im2col=2.0, winograd=1.0)
    assert picked() == "direct"
    seen = clock()
    assert picked("conv2d", *operands("float64")) == "im2col"
    assert "winograd" not in seen.asked


def test_who_names_an_algorithm_gets_it(machine):
    seen = clock()
    assert picked(algorithm="naive") == "naive"
    with dk.using(conv2d="direct"):
        assert picked() == "direct"
    with dk.using(conv2d="winograd"):
        assert picked() == "winograd"
        assert not seen.asked
        assert picked(stride=(2, 2)) == "im2col"  # which the wish is not for
    with pytest.raises(ValueError, match="has no algorithm 'fastest'"):
        picked(algorithm="fastest")


def test_it_can_be_refused(machine, cache):
    began(machine)
    seen = clock()
    with dk.using(conv2d="direct"):
        assert picked() == "direct"
    assert seen.asked == []
    assert not (cache / "cuda" / "tuned").exists()


def test_nothing_is_measured_while_launches_are_recorded_or_captured(machine):
    seen, ins = clock(), operands()
    found = []
    launch.record([(lambda: found.append(picked("conv2d", *ins)), (), {})])
    stream = get("cuda").driver.stream
    stream.begin_capture()
    found.append(picked("conv2d", *ins))
    stream.end_capture()
    assert found == ["direct", "direct"]
    assert seen.asked == []
    assert picked() == "winograd"  # the usual choice was not remembered


def test_nothing_is_measured_for_nothing(machine):
    seen = clock()
    dk.ops.conv2d(dk.zeros(0, 6, 6, 4, device="cuda"), operands()[1])
    assert seen.asked == []


def test_a_captured_step_runs_the_winner(machine):
    seen = clock()
    x, w = operands()
    step = dk.capture(lambda x: dk.ops.conv2d(x, w, padding=1))
    first = step(x).numpy()
    assert len(seen.asked) == 3
    np.testing.assert_array_equal(step(x).numpy(), first)
    (program,) = step.programs.popitem()[1]
    assert [c.name for c in program.replay.calls][-1] == "winograd_outputs"
    assert len(seen.asked) == 3


def test_what_has_no_memory_is_not_chosen(machine, cache):
    clock(winograd=dk.DeviceError("no memory left"))
    assert picked() == "im2col"
    assert not (cache / "cuda" / "tuned").exists()  # there may be more another time
    clock(**{n: dk.DeviceError("no memory left") for n in FASTEST})
    assert picked(padding=((0, 0), (0, 0))) == "direct"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: b"\xff\x00\n[]\n{}\n1\n" + text.replace(b'"winograd"', b'"forgotten"'),
        lambda text: text.replace(b'"winograd"', b"[1]"),
        lambda text: b"",
    ],
)
def test_lines_that_say_nothing_are_measured_anew(machine, cache, spoil):
    clock()
    picked()
    path, _ = lines(cache)
    path.write_bytes(spoil(path.read_bytes()))
    began(machine)
    seen = clock()
    assert picked() == "winograd"
    assert len(seen.asked) == 3
    began(machine)
    seen = clock()
    assert picked() == "winograd"  # and the new line is read, after half a one too
    assert seen.asked == []


def test_a_folder_that_cannot_be_written(machine, cache):
    path = cache / "cuda" / "tuned"
    path.write_text("a file where the folder would be")
    try:
        clock()
        assert picked() == "winograd"
        assert picked() == "winograd"
    finally:
        path.unlink()


def test_other_kernels_are_other_measurements(machine):
    before = get("cuda").tuner.path
    began(machine)
    assert get("cuda").tuner.path == before
    began(machine)
    machine.setattr(tuned, "stems", lambda: ["conv"])
    assert get("cuda").tuner.path != before


def test_lines_of_several_writers_do_not_mix(machine, cache):
    tuners = [tuned.Tuner(get("cuda").driver, None) for _ in range(4)]
    parts = [
        threading.Thread(
            target=lambda t=t, i=i: [
                t._keep({"key": [i, j] * 99, "algorithm": "a"}) for j in range(50)
            ]
        )
        for i, t in enumerate(tuners)
    ]
    for part in parts:
        part.start()
    for part in parts:
        part.join()
    _, kept = lines(cache)
    assert sorted(entry["key"][:2] for entry in kept) == [
        [i, j] for i in range(4) for j in range(50)
    ]


def test_the_time_of_measuring_is_time_of_preparing(machine):
    get("cuda").tuner.clock = lambda gpu, run, budget: (run(), 1.0)[1]
    before = get("cuda").preparing
    picked()
    assert get("cuda").preparing > before


def test_between_events(machine):
    gpu, runs = get("cuda").driver, []
    assert tuned.between_events(gpu, lambda: runs.append(0), 1.0) > 0
    assert len(runs) == 2 + tuned.MOST_RUNS
    machine.setattr(fake_cupy, "get_elapsed_time", None)
    runs.clear()
    gpu.cupy.cuda.get_elapsed_time = lambda begin, end: 30.0  # ms
    assert tuned.between_events(gpu, lambda: runs.append(0), 0.1) == pytest.approx(0.01)
    assert len(runs) == 2 + 3


def test_the_simulator_measures_nothing():
    assert not hasattr(get("cuda-sim"), "tuner")
