"""Files written whole: in what order, in place of what, under which names."""

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import deepkit as dk
from deepkit import nn
from deepkit.checkpoint import CheckpointError
from deepkit.train.files import whole, write_text


def save(path):
    dk.save(path, nn.Linear(2, 2))


def write(path):
    write_text(path, "new")


WRITERS = pytest.mark.parametrize(
    ("writer", "refusal"), [(save, CheckpointError), (write, OSError)], ids=["save", "write_text"]
)
POSIX = pytest.mark.skipif(os.name != "posix", reason="pipes, modes and folders of POSIX")


@POSIX
@WRITERS
def test_a_pipe_is_refused_and_stays(tmp_path, writer, refusal):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for path in (pipe, tmp_path / "link"):
        with pytest.raises(refusal, match="not a regular file"):
            writer(path)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


@POSIX
@WRITERS
def test_a_link_stays_a_link(tmp_path, writer, refusal):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "file", tmp_path / "link"
    link.symlink_to(Path("elsewhere") / "file")
    for _ in range(2):  # the target is new at first, then replaced
        writer(link)
        assert link.is_symlink()
        assert target.stat().st_size > 0
        target.write_text("")
    assert os.listdir(tmp_path / "elsewhere") == ["file"]


@POSIX
@WRITERS
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_mode_bits_are_kept(tmp_path, writer, refusal, mode):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(mode)
    writer(path)
    assert path.read_bytes() != b"old"
    assert stat.S_IMODE(path.stat().st_mode) == mode


@POSIX
def test_what_only_its_owner_may_read_is_never_open_to_others(tmp_path):
    path = tmp_path / "file"
    path.write_text("secret")
    path.chmod(0o600)
    with whole(path) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        temporary.write_text("new secret")


@POSIX
def test_a_new_file_has_the_usual_mode(tmp_path):
    (tmp_path / "usual").write_text("")
    save(tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "usual").stat().st_mode


@WRITERS
@pytest.mark.parametrize("name", ["a" * 240 + ".st", "é" * 120, "b" * 255])
def test_names_as_long_as_they_can_be(tmp_path, writer, refusal, name):
    writer(tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    with pytest.raises(refusal):
        writer(tmp_path / ("a" * 256))


def test_a_long_name_s_strays_go_away_too(tmp_path):
    path = tmp_path / ("a" * 240)
    with whole(path) as temporary:
        temporary.write_text("")
    pid, rest = temporary.name.split(".")[-3:-1]
    stray = tmp_path / temporary.name.replace(f".{pid}.{rest}", f".{2**22 + 1}.{rest}")
    stray.write_text("")  # of a process that cannot be
    write(path)
    assert os.listdir(tmp_path) == [path.name]


@POSIX
@pytest.mark.parametrize("name", ["a[1].st", "a*", "[ab]?"])
def test_strays_of_a_name_with_wildcards_are_those_of_that_name(tmp_path, name):
    own, others = (tmp_path / f".{n}.{2**22 + 1}.1.part" for n in (name, "ab"))
    own.write_text("")
    others.write_text("")
    write(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == sorted([name, others.name])


@POSIX
def test_strays_of_processes_that_live_stay(tmp_path, monkeypatch):
    stray = tmp_path / f".a.{os.getppid()}.1.part"
    stray.write_text("")
    write(tmp_path / "a")
    assert stray.exists()

    def forbidden(pid, number):  # somebody else's process
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    write(tmp_path / "a")
    assert stray.exists()


def test_threads_that_write_one_file_do_not_meet(tmp_path):
    barrier, path = threading.Barrier(2), tmp_path / "a"

    def fill(text):
        with whole(path) as temporary:
            barrier.wait(60)
            temporary.write_text(text)
            barrier.wait(60)
            assert temporary.read_text() == text
        return path.read_text()

    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(fill, ["one", "two"])) <= {"one", "two"}
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_is_made_if_need_be(tmp_path):
    write(tmp_path / "new" / "folder" / "a")
    assert (tmp_path / "new" / "folder" / "a").read_text() == "new"


def test_a_name_with_a_nul_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="NUL"):
        save(f"{tmp_path}/a\0b")
    with pytest.raises(CheckpointError, match="does not exist"):
        dk.load(f"{tmp_path}/a\0b")


def test_what_json_cannot_nest_is_one_sentence(tmp_path):
    nested = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(CheckpointError, match=r"JSON cannot hold .* nested too deeply"):
        dk.save(tmp_path / "a", nn.Linear(2, 2), nested=nested)
    assert not os.listdir(tmp_path)


@POSIX
@WRITERS
def test_contents_then_name_then_folder_reach_the_disk(tmp_path, monkeypatch, writer, refusal):
    """A file whose name is on the disk before its bytes would be empty after a loss of power."""
    done, sync, replace = [], os.fsync, os.replace

    def noted_sync(descriptor):
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        size = None if folder else os.fstat(descriptor).st_size
        done.append(
            ("folder", os.path.samestat(os.fstat(descriptor), os.stat(tmp_path)))
            if folder
            else ("file", size)
        )
        sync(descriptor)

    def noted_replace(source, target):
        done.append(("name", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_replace)
    writer(tmp_path / "a")
    size = (tmp_path / "a").stat().st_size
    assert done == [("file", size), ("name", "a"), ("folder", True)]
