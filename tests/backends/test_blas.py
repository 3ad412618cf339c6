"""Whether OpenBLAS takes the processor for an older one: told, never changed."""

import ctypes
import os
from pathlib import Path

import numpy as np
import pytest

from deepkit import backends
from deepkit.backends.numpy import blas
from deepkit.cli import main


class Function:
    def __init__(self, answer):
        self.answer = answer

    def __call__(self):
        assert self.restype is ctypes.c_char_p
        return self.answer


class Library:
    """A loaded OpenBLAS that has chosen `core`."""

    def __init__(self, core, prefix="scipy_openblas", suffix="64_", config="OpenBLAS DYNAMIC_ARCH"):
        setattr(self, f"{prefix}_get_config{suffix}", Function(config.encode()))
        setattr(self, f"{prefix}_get_corename{suffix}", Function(core.encode()))


@pytest.fixture
def machine(monkeypatch):
    """machine(core, features, ...): NumPy on a processor, with an OpenBLAS or (None) without."""
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)

    def make(core, features, **options):
        config = {"SIMD Extensions": {"baseline": ["X86_V2"], "found": features}}
        monkeypatch.setattr(np, "show_config", lambda mode: config)
        paths = [] if core is None else [Path("libopenblas.so")]
        monkeypatch.setattr(blas, "_libraries", lambda: iter(paths))
        monkeypatch.setattr(ctypes, "CDLL", lambda path: Library(core, **options))

    return make


@pytest.mark.parametrize("features", [["X86_V3", "X86_V4"], ["AVX2", "AVX512F", "AVX512_SKX"]])
@pytest.mark.parametrize("prefix", blas.PREFIXES)
@pytest.mark.parametrize("suffix", blas.SUFFIXES)
def test_a_new_processor_that_is_taken_for_an_older_one(machine, features, prefix, suffix):
    machine("Haswell", features, prefix=prefix, suffix=suffix)
    assert blas.advice() == (
        "its OpenBLAS runs kernels for Haswell on a processor with AVX-512; "
        "OPENBLAS_CORETYPE=SkylakeX, set before Python starts, may make products faster"
    )


@pytest.mark.parametrize(
    "core,features",
    [
        ("SkylakeX", ["X86_V3", "X86_V4"]),
        ("SapphireRapids", ["X86_V4"]),
        ("Haswell", ["X86_V3"]),
        ("Zen", ["AVX2", "FMA3"]),
        ("neoversev1", ["NEON", "SVE"]),
        ("armv8", []),
        (None, ["X86_V4"]),
    ],
)
def test_nothing_to_say(machine, core, features):
    machine(core, features)
    assert blas.advice() is None


def test_a_library_that_cannot_choose_or_say(machine, monkeypatch):
    machine("Haswell", ["X86_V4"], config="OpenBLAS Haswell")
    assert blas.advice() is None
    monkeypatch.setattr(ctypes, "CDLL", lambda path: object())
    assert blas.advice() is None

    def refuse(path):
        raise OSError("cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert blas.advice() is None


def test_who_has_chosen_is_not_advised(machine, monkeypatch):
    machine("Haswell", ["X86_V4"])
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert blas.advice() is None


def test_devices_says_it(machine, capsys):
    machine("Zen", ["X86_V4"])
    assert main(["devices"]) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("numpy"))
    assert line.startswith("numpy     works")
    assert "runs kernels for Zen on a processor with AVX-512; OPENBLAS_CORETYPE=Skyl" in line
    assert backends.Backend({}).advice is None


def test_looking_changes_nothing():
    before = dict(os.environ)
    blas.advice()
    assert dict(os.environ) == before


def test_this_machine_answers():
    """Whatever it is: one of OpenBLAS's names, or nothing."""
    config = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    core = blas.openblas_core()
    if config["name"] == "scipy-openblas" and "DYNAMIC_ARCH" in str(config):
        assert core
    assert blas.has_avx512() in (True, False)
