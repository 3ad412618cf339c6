"""The pool of threads: same numbers for any number of them, and a clean end whatever happens."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("numba")

import deepkit as dk
from deepkit.backends.numba import launch, threads

LIMIT = 120  # seconds; what hangs, hangs longer


@pytest.fixture(autouse=True)
def all_take_part(monkeypatch):
    """Small arrays use every thread; afterwards the number is what it was."""
    monkeypatch.setattr(launch, "GRAIN", 1)
    before = threads.count()
    yield
    dk.set_num_threads(before)
    dk.backends.num_threads = None


def network():
    """A small network with everything that sums over a batch, a captured training step, data."""
    dk.seed(5)
    with dk.device("numba"):
        model = dk.nn.Sequential(
            dk.nn.Conv2d(2, 5, 3, padding=1),
            dk.nn.BatchNorm2d(5),
            dk.nn.ReLU(),
            dk.nn.MaxPool2d(2),
            dk.nn.Flatten(),
            dk.nn.Dropout(0.2),
            dk.nn.Linear(45, 7),
        )
    optimizer = dk.optim.Adam(model.parameters(), lr=0.01)

    @dk.capture
    def step(x, y):
        loss = dk.ops.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    drawn = np.random.default_rng(3)
    x = dk.tensor(drawn.standard_normal((70, 6, 6, 2)).astype(np.float32), "numba")
    y = dk.tensor(drawn.integers(0, 7, 70), "numba")
    return model, step, x, y


def trained(counts):
    """Losses and weights after a step with each of these numbers of threads."""
    model, step, x, y = network()
    losses = []
    for count in counts:
        dk.set_num_threads(count)
        losses.append(step(x, y).item())
    assert np.isfinite(losses).all()
    assert len({id(p) for ps in step.programs.values() for p in ps}) == 1
    return losses, [p.numpy() for p in model.parameters()]


def assert_same(a, b):
    assert a[0] == b[0]
    for mine, other in zip(a[1], b[1], strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_training_is_the_same_for_any_number_of_threads_and_in_every_run(count):
    alone = trained([1] * 6)
    assert_same(trained([count] * 6), alone)
    assert_same(trained([count] * 6), alone)


def test_a_program_follows_changes_of_the_number_of_threads():
    assert_same(trained([2, 2, 7, 1, 3, 2]), trained([1] * 6))


def test_a_program_uses_as_many_threads_as_there_are_now():
    dk.set_num_threads(3)
    _, step, x, y = network()
    step(x, y)
    (program,) = next(iter(step.programs.values()))
    written = program.replay.written
    assert written.widest == 3
    dk.set_num_threads(2)
    step(x, y)
    assert written.widest == 2
    assert threads._pool.count == 2


def workers():
    return [t for t in threading.enumerate() if t.name.startswith("deepkit-")]


def test_the_pool_has_as_many_workers_as_were_asked_for():
    x = dk.ones((64, 100), device="numba")
    for count in (2, 5, 1, 7, 3):
        dk.set_num_threads(count)
        np.testing.assert_array_equal((x + 1.0).numpy(), 2.0)
        assert len(workers()) == count - 1


def test_a_small_launch_does_not_start_the_pool(monkeypatch):
    monkeypatch.setattr(launch, "GRAIN", 8192)
    dk.set_num_threads(4)
    np.testing.assert_array_equal((dk.ones((4, 100), device="numba") + 1.0).numpy(), 2.0)
    assert workers() == []


def test_threads_that_the_system_refuses_are_a_sentence(monkeypatch):
    start = threading.Thread.start

    def at_most_two(thread):
        if thread.name == "deepkit-3":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", at_most_two)
    dk.set_num_threads(7)
    with pytest.raises(dk.DeviceError, match="no more than 3 of 7 threads"):
        dk.ones((64, 100), device="numba") + 1.0
    assert workers() == []
    dk.set_num_threads(2)
    np.testing.assert_array_equal((dk.ones((64, 100), device="numba") + 1.0).numpy(), 2.0)


# many callers -------------------------------------------------------------------------------------


def test_many_python_threads_compute_at_once():
    dk.set_num_threads(3)
    expected = trained([3] * 6)
    wrong = []

    def eager(number):
        x = dk.full((70, 33), float(number), device="numba")
        for i in range(60):
            if not (((x * 2.0 + float(i)).numpy()) == 2.0 * number + i).all():
                wrong.append(("eager", number, i))

    def captured(number):
        step = dk.capture(lambda x, b: (x * 3.0 + b).sum(axis=0))
        for i in range(60):
            x, b = dk.full((70, 33), 2.0, device="numba"), dk.full((33,), float(i), device="numba")
            if not (step(x, b).numpy() == 70 * (6.0 + i)).all():
                wrong.append(("captured", number, i))

    def change():
        for i in range(30):
            dk.set_num_threads(1 + i % 4)
            time.sleep(0.001)

    def run(function, *args):
        try:
            function(*args)
        except BaseException as error:
            wrong.append(error)

    callers = [
        threading.Thread(target=run, args=(f, n)) for n in range(3) for f in (eager, captured)
    ]
    callers.append(threading.Thread(target=run, args=(change,)))
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(LIMIT)
    assert not any(caller.is_alive() for caller in callers)
    assert wrong == []
    assert_same(trained([3] * 6), expected)


# sleep and waking ---------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5])
def test_nobody_is_lost_between_falling_asleep_and_being_woken(count):
    """Thousands of lists, shown about when the workers lie down."""
    dk.set_num_threads(count)
    w = dk.nn.Parameter(dk.zeros((64, 64), device="numba"))
    step = dk.capture(lambda: w.sum().backward())
    for _ in range(2):  # the first gradient is assigned, the second is added to it, as all to come
        step()
    program = next(iter(step.programs.values()))[-1]
    drawn = random.Random(1)
    begin = time.monotonic()
    runs = 0
    while runs < 4000 and time.monotonic() - begin < 6:
        until = time.perf_counter() + drawn.choice((0, 0, 1e-4, 1e-3, 2e-3)) * drawn.random() * 2
        while time.perf_counter() < until:
            pass
        program.replay()
        runs += 1
    assert runs > 200
    assert time.monotonic() - begin < 30
    np.testing.assert_array_equal(w.grad.numpy(), 2.0 + runs)


def test_an_idle_process_uses_no_processor():
    dk.set_num_threads(3)
    x = dk.ones((64, 100), device="numba")
    for _ in range(20):
        x = x * 1.0
    assert len(workers()) == 2
    time.sleep(0.5)
    before = time.process_time()
    time.sleep(1)
    assert time.process_time() - before < 0.05


def test_a_signal_handler_may_compute():
    """It can come between any two lists, with the pool's lock held."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("no timers here")
    dk.set_num_threads(3)
    found = []

    def handler(number, frame):
        found.append((dk.full((64, 40), 3.0, device="numba") * 2.0).numpy())

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        x, until = dk.ones((64, 50), device="numba"), time.monotonic() + 1
        while time.monotonic() < until:
            np.testing.assert_array_equal((x + 4.0).numpy(), 5.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(found) > 10
    assert all((f == 6.0).all() for f in found)


# processes ----------------------------------------------------------------------------------------

PROLOGUE = """
import os, signal, sys, threading, time
import numpy as np
import deepkit as dk
from deepkit.backends.numba import launch, threads
launch.GRAIN = 1
dk.set_device("numba")

def right():
    return bool((((dk.ones((70, 30)) * 2.0).numpy()) == 2.0).all())

def trainer():
    model = dk.nn.Sequential(dk.nn.Linear(30, 40), dk.nn.ReLU(), dk.nn.Linear(40, 5))
    optimizer = dk.optim.SGD(model.parameters(), lr=0.01)
    @dk.capture
    def step(x, y):
        loss = dk.ops.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss
    x, y = dk.ones((70, 30)), dk.tensor(np.arange(70) % 5)
    step(x, y)
    return lambda: step(x, y)
"""


def ran(script, threads="3", **environment):
    """A script after PROLOGUE, in a process of its own -> the finished process."""
    return subprocess.run(
        [sys.executable, "-c", PROLOGUE + script],
        env={**os.environ, "DEEPKIT_NUM_THREADS": threads, **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def clean(done, said):
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.split() == said.split()


def test_the_environment_says_how_many():
    clean(ran("print(threads.count(), right(), threads._pool.count)", "5"), "5 True 5")


def test_an_empty_number_of_threads_counts_as_none():
    script = "del os.environ['DEEPKIT_NUM_THREADS']; print(threads.sensible_count() == count)"
    clean(ran(f"count = threads.count(); {script}", ""), "True")


@pytest.mark.parametrize("value", ["0", "-1", "many", "2.5", "99999"])
def test_a_number_of_threads_that_is_none_is_a_sentence(value):
    sentence = f"DEEPKIT_NUM_THREADS: a whole number from 1 to 1024 was expected, not {value!r}"
    environment = {**os.environ, "DEEPKIT_NUM_THREADS": value}

    def deepkit(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "deepkit", *arguments],
            env=environment, capture_output=True, text=True, timeout=LIMIT,
        )  # fmt: skip

    commands = [("devices",), ("train", "mlp", "--out", "never", "--quiet")]
    for arguments in commands if value in ("0", "many") else commands[:1]:
        done = deepkit(*arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr == f"deepkit {arguments[0]}: {sentence}\n"
    if value == "many":
        script = "import deepkit as dk\ntry: dk.devices()\nexcept dk.DeviceError as e: print(e)"
        told = subprocess.run(
            [sys.executable, "-c", script],
            env=environment, capture_output=True, text=True, timeout=LIMIT,
        )  # fmt: skip
        assert told.stdout == f"{sentence}\n"


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@needs_fork
def test_a_forked_child_computes_and_its_parent_goes_on():
    script = """
step = trainer()
assert right() and len(threads._pool.workers) == 2
child = os.fork()
if child == 0:
    assert threads._pool is None
    step()
    good = right() and len(threads._pool.workers) == 2
    sys.exit(7 if good else 1)
step()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), right())
"""
    clean(ran(script), "7 True")


@needs_fork
def test_a_fork_in_the_middle_of_another_threads_training():
    script = """
step, go_on = trainer(), [True]
def train():
    while go_on:
        step()
other = threading.Thread(target=train)
other.start()
for _ in range(5):
    time.sleep(0.02)
    child = os.fork()
    if child == 0:
        os._exit(0 if right() else 1)
    assert os.waitpid(child, 0)[1] == 0
go_on.clear()
other.join()
print(right())
"""
    clean(ran(script, PYTHONWARNINGS="ignore"), "True")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(method, tmp_path):
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    path = tmp_path / "pool.py"
    path.write_text(
        PROLOGUE
        + f"""
def work(i):
    return float((dk.ones((70, 30)) * float(i)).numpy().sum())

if __name__ == "__main__":
    import multiprocessing
    assert right()
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        print(pool.map(work, range(4)) == [2100.0 * i for i in range(4)], right())
"""
    )
    done = subprocess.run(
        [sys.executable, str(path)],
        env={
            **os.environ,
            "DEEPKIT_NUM_THREADS": "3",
            "PYTHONPATH": os.getcwd(),
            "PYTHONWARNINGS": "ignore",
        },
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    clean(done, "True True")


@pytest.mark.parametrize("daemon", [True, False])
@pytest.mark.parametrize("eager", [True, False])
def test_the_interpreter_ends_in_the_middle_of_training(daemon, eager):
    script = f"""
step = trainer()
work = right if {eager} else step
def train():
    until = time.monotonic() + ({daemon} and 1000 or 0.5)
    while time.monotonic() < until:
        work()
threading.Thread(target=train, daemon={daemon}).start()
time.sleep(0.1)
print("end", flush=True)
"""
    clean(ran(script), "end")


def test_computing_while_the_interpreter_goes_down():
    script = """
import atexit
@atexit.register
def late():  # registered after the pool's own, so it comes before
    print("before", right())
atexit.unregister(threads._at_exit)
atexit._run_exitfuncs()
threads._at_exit()
print("after", right(), len([t for t in threading.enumerate() if t.name.startswith("deepkit-")]))
"""
    clean(ran(script), "before True after True 0")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupt_in_captured_steps():
    """Many times: whatever it hits, the process goes on to compute."""
    script = """
step = trainer()
main = threading.get_ident()
for i in range(40):
    timer = threading.Timer(0.004 + 0.0003 * i, lambda: signal.pthread_kill(main, signal.SIGINT))
    try:
        timer.start()
        while True:
            step()
            if i % 2:
                time.sleep(0.003)  # so that the workers sleep
    except KeyboardInterrupt:
        timer.join()
    assert right() and np.isfinite(step().item())
print("went on")
raise SystemExit(0)
"""
    clean(ran(script), "went on")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupt_ends_a_program():
    script = """
step = trainer()
print("ready", flush=True)
while True:
    step()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", PROLOGUE + script],
        env={**os.environ, "DEEPKIT_NUM_THREADS": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=LIMIT)
    assert said.splitlines()[-1] == "KeyboardInterrupt"
    assert process.returncode == -signal.SIGINT


def test_seven_threads_on_few_processors_finish():
    begin = time.monotonic()
    script = """
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
step = trainer()
for _ in range(200):
    loss = step()
print(threads._pool.count, right(), np.isfinite(loss.item()))
"""
    clean(ran(script, "7"), "7 True True")
    assert time.monotonic() - begin < 60
