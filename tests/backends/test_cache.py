"""Compiled kernels on the disk: whatever happens to them there, everything computes."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")

from deepkit import backends
from deepkit.backends.numba import cache, elementwise, machine, step

NEGATE = """
import sys
import numpy as np
import deepkit as dk
from deepkit.backends.numba import cache
cache.PATIENCE = 1000.0  # stderr is for what goes wrong
assert ((-dk.ones((5, 3), device="numba")).numpy() == -1.0).all()
print(*cache.compiled)
"""
THREADS = ["threads._alone", "threads._go", "threads._end", "threads._serve"]
ALL = sorted([*THREADS, "elementwise._each"])
LIMIT = 120


def started(script=NEGATE, **environment):
    given = {k: v for k, v in {**os.environ, **environment}.items() if v is not None}
    command = [sys.executable, "-c", script]
    return subprocess.Popen(
        command, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process):
    """What it compiled, and what it said on stderr."""
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    return sorted(name.rpartition("-")[0] for name in out.split()), err


def ran(folder, script=NEGATE, **environment):
    return ended(started(script, DEEPKIT_CACHE=str(folder), **environment))


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache with what NEGATE needs."""
    folder = tmp_path_factory.mktemp("cache")
    assert ran(folder) == (ALL, "")
    return folder


def files(folder):
    return sorted(folder.glob("numba/*/*.o"))


def test_what_was_compiled_is_found_again(filled):
    assert len(files(filled)) == len(ALL)
    assert ran(filled) == ([], "")


def test_processes_that_start_at_once_with_an_empty_cache(tmp_path):
    processes = [started(DEEPKIT_CACHE=str(tmp_path)) for _ in range(3)]
    for process in processes:
        assert ended(process)[1] == ""
    assert len(files(tmp_path)) == len(ALL)
    assert list(tmp_path.rglob("*.part")) == []
    assert ran(tmp_path) == ([], "")


# no folder ----------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    """As root no folder is read-only; a file in its place is the same for everybody."""
    occupied = tmp_path / "file"
    occupied.write_text("mine")
    names, said = ran(occupied)
    assert names == ALL
    assert len(said.splitlines()) == 1
    assert f"deepkit: compiled kernels cannot be kept in {occupied}" in said
    assert occupied.read_text() == "mine"


def test_a_home_that_cannot_be_written(tmp_path):
    home = tmp_path / "file"
    home.write_text("")
    nowhere = {"DEEPKIT_CACHE": None, "XDG_CACHE_HOME": None, "HOME": str(home)}
    names, said = ended(started(**nowhere))
    assert names == ALL
    assert len(said.splitlines()) == 1
    assert str(home / ".cache" / "deepkit") in said


def test_without_a_home_nothing_is_written_to_the_folder_at_hand():
    with pytest.raises(OSError, match="no home"):
        cache.write(Path("~", "kernel.o"), b"")
    assert not Path("~").exists()


READ_ONLY = """
import tempfile
def refuse(**where):
    raise OSError(30, "Read-only file system")
tempfile.mkstemp = refuse
"""


def test_a_full_cache_serves_where_it_cannot_be_written(filled):
    assert ran(filled, READ_ONLY + NEGATE) == ([], "")


def test_what_a_read_only_cache_lacks_is_compiled_in_memory(filled):
    script = (
        READ_ONLY
        + NEGATE
        + """
from deepkit.backends.numba import softmax, step
for kernel in (step._count, step._root):
    kernel.address("f4")
print(*cache.compiled)
"""
    )
    names, said = ran(filled, script)
    assert names == ["step._count", "step._root"]
    assert len(said.splitlines()) == 1
    assert "Read-only file system" in said


# damage -------------------------------------------------------------------------------------------

DAMAGES = {
    "zero bytes": lambda content: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "one byte cut off": lambda content: content[:-1],
    "another bit": lambda content: content[:-40] + bytes([content[-40] ^ 1]) + content[-39:],
    "garbage": lambda content: np.random.default_rng(0).bytes(5000),
    "a pickle": lambda content: pickle.dumps({"something": "else"}),
    "text": lambda content: b"deepkit kernel 1\n" + b"x" * 500,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_compiled_anew(filled, damage):
    before = {path: path.read_bytes() for path in files(filled)}
    for path, content in before.items():
        path.write_bytes(DAMAGES[damage](content))
    assert ran(filled) == (ALL, "")
    assert ran(filled) == ([], "")


def test_files_under_each_others_names_are_compiled_anew(filled):
    paths = files(filled)
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)
    assert ran(filled) == (ALL, "")


def test_a_folder_in_the_place_of_a_file(filled):
    path = next(p for p in files(filled) if p.name.startswith("elementwise"))
    path.unlink()
    path.mkdir()
    names, said = ran(filled)
    assert names == ["elementwise._each"]
    assert len(said.splitlines()) == 1
    path.rmdir()


def test_a_function_that_the_process_lacks_is_not_called(tmp_path):
    """LLVM would end the process if code needed a name that nobody defines."""
    path = tmp_path / "f.o"
    body = b"f no_such_function_anywhere\nobject code"
    path.write_bytes(cache._head(path, body) + body)
    assert cache._load(path) is None


# states -------------------------------------------------------------------------------------------


def test_the_folder_changes_with_everything_that_shapes_the_code(tmp_path, monkeypatch):
    states = [cache.state.__wrapped__()]

    def another():
        states.append(cache.state.__wrapped__())

    with monkeypatch.context() as patch:
        patch.setattr("numba.__version__", "0.99.0")
        another()
    with monkeypatch.context() as patch:
        patch.setattr("importlib.metadata.version", lambda name: f"{name} 0.99.0")
        another()
    with monkeypatch.context() as patch:
        patch.setattr(cache.binding, "get_host_cpu_name", lambda: "pentium")
        another()
    with monkeypatch.context() as patch:
        patch.setattr(cache, "VECTOR_BYTES", machine.VECTOR_BYTES // 2)
        another()
    with monkeypatch.context() as patch:
        patch.setenv("NUMBA_OPT", "1")
        another()
    for source in Path(cache.__file__).parent.glob("*.py"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "cache.py"))
    assert cache.state.__wrapped__() == states[0]
    for name in ("simd.py", "conv.py", "another.py"):
        with open(tmp_path / name, "a") as file:
            file.write("# changed\n")
        another()
    assert len(set(states)) == len(states) == 9


def test_folders_of_other_states_do_not_pile_up(tmp_path):
    (tmp_path / "numba").mkdir()
    now = time.time()
    for i in range(30):
        other = tmp_path / "numba" / f"{i:016x}"
        other.mkdir()
        (other / "kernel.o").write_bytes(b"")
        os.utime(other, (now - 100 * i, now - 100 * i))
    mine = tmp_path / "numba" / "notes"
    mine.mkdir()
    assert ran(tmp_path) == (ALL, "")
    left = {path.name for path in (tmp_path / "numba").iterdir()}
    assert left >= {f"{i:016x}" for i in range(cache.KEPT)} | {"notes"}
    assert len(left) == cache.KEPT + 2  # and the one of this state


def test_a_process_goes_on_whose_folder_is_removed(tmp_path):
    script = (
        NEGATE
        + """
import shutil
shutil.rmtree(cache.folder().parent)
from deepkit.backends.numba import step
step._count.address("f4")
assert ((-dk.ones((5, 3), device="numba")).numpy() == -1.0).all()
"""
    )
    assert ran(tmp_path, script) == (ALL, "")
    assert [path.name.rpartition("-")[0] for path in files(tmp_path)] == ["step._count"]


# telling ------------------------------------------------------------------------------------------


TOLD = "deepkit: preparing the kernels of 'numba' (compiled once, then kept for later runs) ...\n"
LOOP = """
import deepkit as dk
from deepkit.backends.numba import cache
cache.PATIENCE = {patience}
w = dk.tensor([1.0, 2.0], device="numba", requires_grad=True)
(w * w).sum().backward()
print("done")
"""


@pytest.mark.parametrize("patience", [0.0, 1000.0])
def test_any_program_says_once_that_kernels_have_been_compiling_for_a_while(tmp_path, patience):
    env = {**os.environ, "DEEPKIT_CACHE": str(tmp_path)}
    for told in (patience == 0, False):  # the second finds them
        code = LOOP.format(patience=patience)
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("done\n", TOLD if told else "")


@pytest.mark.parametrize("stderr", [None, "closed"])
def test_a_program_without_stderr_goes_on(monkeypatch, stderr):
    if stderr is not None:
        stderr = io.StringIO()
        stderr.close()
    monkeypatch.setattr(backends, "told_preparing", False)
    monkeypatch.setattr(sys, "stderr", stderr)
    backends.tell_preparing("numba")
    assert backends.told_preparing


def test_nobody_is_told_of_what_is_in_the_cache(monkeypatch, capsys):
    found = [
        (kernel.function, kernel.signature("f4")) for kernel in (elementwise._each, step._count)
    ]
    for one in found:
        cache.native(*one)
    before = len(cache.compiled)
    monkeypatch.setattr(backends, "told_preparing", False)
    monkeypatch.setattr(cache, "PATIENCE", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for one in found:
        assert cache.native(*one)
    assert capsys.readouterr().err == ""
    assert len(cache.compiled) == before
