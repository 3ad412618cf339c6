"""Compiled kernels on disk, and compilers that are none."""

import os
import subprocess
import sys

import numpy as np
import pytest

import deepkit as dk
from deepkit.backends.cuda import cache

if "cuda-sim" not in dk.devices():
    pytest.skip("no C++ compiler here", allow_module_level=True)

ADD = "import deepkit as dk; x = dk.tensor([1.0, 2.0], 'cuda-sim'); print((x + x).numpy().tolist())"


def child(code, **environment):
    given = {**os.environ, **environment}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=given, capture_output=True, text=True, check=False)


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "some" / "file.so"
    assert cache.load(path) is None
    assert cache.store(path, b"content") == path
    assert cache.load(path) == b"content"
    for damaged in (b"", b"content", path.read_bytes()[:-1], b"X" + path.read_bytes()[1:]):
        path.write_bytes(damaged)
        assert cache.load(path) is None
    (tmp_path / "file").write_text("in the way")
    assert cache.store(tmp_path / "file" / "x.so", b"content") is None


def test_a_library_that_was_cut_off_is_built_anew(tmp_path):
    for _ in range(2):
        assert child(ADD, DEEPKIT_CACHE=str(tmp_path)).stdout == "[2.0, 4.0]\n"
        (kept,) = (tmp_path / "cuda" / "sim").glob("elementwise-float-*.so")
        kept.write_bytes(kept.read_bytes()[:4096])


def test_where_nothing_can_be_kept_it_runs_all_the_same(tmp_path):
    (tmp_path / "cuda").write_text("in the way")
    assert child(ADD, DEEPKIT_CACHE=str(tmp_path)).stdout == "[2.0, 4.0]\n"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("no-such-compiler", "now 'no-such-compiler'"),
        ("'", "is no command"),
    ],
)
def test_a_compiler_that_is_none_is_one_sentence(command, said):
    done = child("import deepkit as dk; print(dk.backends.why_not('cuda-sim'))", CXX=command)
    assert done.stdout.startswith("device 'cuda-sim'")
    assert said in done.stdout
    assert done.stdout.count("\n") == 1


def test_a_compiler_that_makes_nothing(tmp_path):
    done = child(ADD, CXX="true", DEEPKIT_CACHE=str(tmp_path))
    assert "does not compile: true made nothing" in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_of_a_fork_does_not_wait_for_its_parents_threads():
    code = """
import os, threading, time
import numpy as np
import deepkit as dk
x = dk.tensor(np.ones((200, 200), np.float32), "cuda-sim")
x @ x
threading.Thread(target=lambda: [x @ x for _ in range(40)], daemon=True).start()
for _ in range(4):
    child = os.fork()
    if child == 0:
        os._exit(0 if (x + x).numpy()[0, 0] == 2 else 1)
    ended = 0
    for _ in range(200):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.05)
    assert ended and status == 0, (ended, status)
print("done", flush=True)  # _exit flushes nothing
os._exit(0)
"""
    assert child(code).stdout.endswith("done\n")


def test_numbers_of_many_axes():
    x, y = np.ones((1, 2) * 6, np.float32), np.arange(64, dtype=np.float32).reshape((2, 1) * 6)
    z = dk.tensor(x, "cuda-sim") + dk.tensor(y, "cuda-sim")
    assert np.array_equal(z.numpy(), x + y)
