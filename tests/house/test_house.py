"""The repository keeps the laws of `laws.py`; one test a file, so that a failure names it."""

import pytest
from house import laws

FILES = laws.tracked_files()
PACKAGE = [n for n in FILES if n.startswith("deepkit/") and n.endswith(".py")]
SOURCES = [n for n in FILES if laws.is_source(n)]
CARDS = [n for n in PACKAGE if n.startswith("deepkit/ops/")]
KERNELS = [n for n in FILES if n.startswith("kernels/") and n.endswith(".cu")]
CORE, EXTRAS = laws.declared_modules(laws.read("pyproject.toml"))


def is_text(name):
    return b"\0" not in (laws.ROOT / name).read_bytes()[:8192]


def test_the_lists_of_files_are_not_empty():
    assert "pyproject.toml" in FILES
    assert "deepkit/backends/__init__.py" in PACKAGE
    assert "tests/house/laws.py" in SOURCES
    assert {"numpy", "safetensors"} <= CORE
    assert {"numba", "cupy", "PIL"} <= EXTRAS


@pytest.mark.parametrize("name", PACKAGE)
def test_imports_go_down(name):
    assert laws.wrong_directions(laws.read(name), name) == []


@pytest.mark.parametrize("name", PACKAGE)
def test_imports_are_declared_and_the_heavy_ones_lazy(name):
    assert laws.undeclared_imports(laws.read(name), name, CORE, EXTRAS) == []


@pytest.mark.parametrize("name", PACKAGE)
def test_only_the_cuda_backend_imports_cupy(name):
    assert laws.cupy_imports(laws.read(name), name) == []


@pytest.mark.parametrize("name", SOURCES)
def test_no_source_is_too_long(name):
    assert laws.too_long(laws.read(name), name) == []


@pytest.mark.parametrize("name", [n for n in FILES if is_text(n)])
def test_no_path_of_one_machine(name):
    assert laws.machine_paths(laws.read(name), name, here=laws.ROOT.parent) == []


@pytest.mark.parametrize("name", [n for n in PACKAGE if "pip install" in laws.read(n)])
def test_hints_name_packages_that_are_what_they_say(name):
    """On the package index, "deepkit" is another project."""
    assert "deepkit[" not in laws.read(name)


def test_kernels_have_the_stems_of_their_cards():
    assert laws.strange_stems(KERNELS, CARDS) == []


def test_import_deepkit_is_light():
    assert laws.heavy_after("import deepkit", laws.HEAVY) == set()
