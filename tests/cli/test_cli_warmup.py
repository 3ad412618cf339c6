"""`deepkit warmup`: afterwards nothing is compiled any more."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("numba")

from deepkit.backends.numba import cache, launch, warm
from deepkit.cli import main

LIMIT = 600


def python(script, **environment):
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


TRAIN = """
import numpy as np
import deepkit as dk
from deepkit.backends.numba import cache

drawn = np.random.default_rng(1)
labels = drawn.integers(0, 10, 81)
gray = drawn.integers(0, 256, (81, 28, 28, 1), dtype=np.uint8)
small = drawn.integers(0, 256, (81, 9, 7, 3), dtype=np.uint8)
dk.set_device("numba")

def train(model, images, batch_size, optimizer):
    fit = dict(epochs=1, batch_size=batch_size, optimizer=optimizer, progress=False)
    dk.fit(model, (images, labels), (images, labels), **fit)
    dk.evaluate(model, (images, labels), batch_size=5, predictions=True)

for batch_size in (64, 17):  # with 81 images, also batches of 17 and 13
    model = dk.models.lenet5()
    train(model, gray, batch_size, dk.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))
model = dk.nn.Sequential(
    dk.nn.Flatten(), dk.nn.Linear(784, 33), dk.nn.ReLU(), dk.nn.Linear(33, 10)
)
train(model, gray, 64, dk.optim.AdamW(model.parameters(), lr=0.01))
model = dk.nn.Sequential(
    dk.nn.Conv2d(3, 5, 3, padding=1), dk.nn.BatchNorm2d(5), dk.nn.ReLU(), dk.nn.MaxPool2d(2),
    dk.nn.Flatten(), dk.nn.Dropout(0.3), dk.nn.Linear(60, 10),
)
train(model, small, 32, dk.optim.Adam(model.parameters(), lr=0.01))
model = dk.nn.Sequential(dk.nn.Conv2d(3, 4, 3, stride=2), dk.nn.GELU(), dk.nn.Flatten(),
                         dk.nn.Linear(48, 10))
x = dk.tensor(small / np.float32(255))
loss = dk.ops.cross_entropy(model(x), dk.tensor(labels))
loss.backward()  # eager
print("compiled:", *cache.compiled)
"""


def test_after_it_new_networks_and_batch_sizes_compile_nothing(capsys):
    """In the cache of these tests, which mostly has the kernels by now."""
    assert main(["warmup"]) == 0
    said = capsys.readouterr()
    assert f"{len(warm.tasks(('f4',)))} kernels are ready in {cache.folder()}" in said.out
    assert all(task.kept for task in warm.tasks(("f4",)))
    done = python(TRAIN)
    assert done.stderr == ""
    assert done.stdout == "compiled:\n"


def test_a_second_time_there_is_nothing_to_do(capsys):
    assert main(["warmup", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["warmup"]) == 0
    out, err = capsys.readouterr()
    assert out.endswith(", none compiled\n")
    assert err == ""


def test_every_kernel_is_among_its_tasks():
    single, both = warm.tasks(("f4",)), warm.tasks(("f4", "f8"))
    assert {task.number for task in single} == set(range(len(warm.kernels())))
    assert set(both) > set(single)
    real = [task for task in both if "ptr" in task.kernel.kinds]
    assert len(real) == 2 * len({task.number for task in real})


def test_kernels_are_known_by_where_they_stand_not_by_when_they_were_imported():
    """The processes that compile import ours alone: a user's kernel, declared before them, must
    not shift their numbers."""
    ours = warm.kernels()

    @launch.kernel
    def of_a_user(t, n, y: launch.ptr):
        pass

    launch.kernels.insert(0, launch.kernels.pop())
    try:
        assert warm.kernels() == ours
    finally:
        launch.kernels.remove(of_a_user)


FEW = """
import sys
from deepkit import backends
backends.get("numba")
from deepkit.backends.numba import warm
everything = warm.tasks
few = ("step.count", "step.root", "step.clip", "softmax.total")
warm.tasks = lambda reals: [task for task in everything(reals) if task.name in few]
from deepkit.cli import main
if __name__ == "__main__":
    sys.exit(main(["warmup", *sys.argv[1:]]))
"""


def test_progress_and_float64(tmp_path):
    script = tmp_path / "few.py"
    script.write_text(FEW)
    folder = str(tmp_path / "cache")

    def few(*arguments):
        return subprocess.run(
            [sys.executable, str(script), *arguments],
            env={**os.environ, "DEEPKIT_CACHE": folder, "PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )

    done = few()
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.endswith(" ...")]
    assert [line.split()[:3] for line in lines] == [[str(i), "of", "5"] for i in range(1, 6)]
    assert {"step.count", "step.root", "step.clip", "softmax.total"} < {
        line.split()[3] for line in lines
    }
    assert done.stdout.startswith(f"4 kernels are ready in {folder}")
    assert ", 4 compiled now, in " in done.stdout
    done = few("--float64", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert few("--float64").stdout.endswith(", none compiled\n")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    done = python(
        "import sys; from deepkit.cli import main; sys.exit(main(['warmup', '--quiet']))",
        DEEPKIT_CACHE=str(tmp_path / "file"),
    )
    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert said[-1].startswith("deepkit warmup: compiled kernels cannot be kept in ")
    assert "DEEPKIT_CACHE may name another folder" in said[-1]


def test_without_numba_it_is_a_sentence():
    script = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "numba" else find(name, *rest)
from deepkit.cli import main
sys.exit(main(["warmup"]))
"""
    done = python(script)
    assert done.returncode == 2
    assert done.stderr == ("deepkit warmup: device 'numba' needs Numba: pip install numba\n")
