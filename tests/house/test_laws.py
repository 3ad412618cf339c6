"""Each law bites: shown a small bad example it names the line, shown a good one it is silent."""

from pathlib import Path

import pytest
from house import laws

# --- reading imports ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("import a.b, c", ["a.b", "c"]),
        ("from a import b, c as d", ["a.b", "a.c"]),
        ("from a.b import *", ["a.b"]),
        ("from . import conv", ["deepkit.ops.conv"]),
        ("from .conv import conv2d", ["deepkit.ops.conv.conv2d"]),
        ("from .. import tape", ["deepkit.tape"]),
        ("from ..tape import Tensor", ["deepkit.tape.Tensor"]),
        ("import importlib\nimportlib.import_module('cupy')", ["importlib", "cupy"]),
        ("__import__('cupy.cuda')", ["cupy.cuda"]),
        ("import_module('..nn', __package__)", ["deepkit.nn"]),
        ("import_module(name)", []),
        ("print('cupy')", []),
        ("if TYPE_CHECKING:\n    import a\nelse:\n    import b", ["b"]),
        ("import typing\nif typing.TYPE_CHECKING:\n    import a", ["typing"]),
        ("class A:\n    def f(self):\n        import a", ["a"]),
        ("try:\n    import a\nexcept ImportError:\n    pass", ["a"]),
    ],
)
def test_imports_of(source, modules):
    assert [i.module for i in laws.imports_of(source, "deepkit/ops/x.py")] == modules


def test_imports_of_tells_top_from_function():
    source = "import a\ntry:\n    import b\nfinally:\n    pass\ndef f():\n    import c"
    found = laws.imports_of(source, "deepkit/x.py")
    assert [(i.module, i.line, i.at_top) for i in found] == [
        ("a", 1, True),
        ("b", 3, True),
        ("c", 7, False),
    ]


def test_a_package_is_its_own_parent():
    found = laws.imports_of("from . import conv\nfrom .. import tape", "deepkit/ops/__init__.py")
    assert [i.module for i in found] == ["deepkit.ops.conv", "deepkit.tape"]


# --- direction ------------------------------------------------------------------------

UP = [
    ("deepkit/tape.py", "from deepkit.ops import conv"),
    ("deepkit/tape.py", "def f():\n    from . import ops"),
    ("deepkit/tape.py", "from deepkit import ops"),
    ("deepkit/ops/conv.py", "from ..captured import capture"),
    ("deepkit/program.py", "import deepkit.nn"),
    ("deepkit/nn/layers.py", "from ..models import lenet"),
    ("deepkit/train.py", "from .cli import main"),
    ("deepkit/nn/layers.py", "import deepkit as dk"),
    ("deepkit/nn/layers.py", "from deepkit import Tensor"),
    ("deepkit/backends/__init__.py", "from deepkit import tape"),
    ("deepkit/backends/__init__.py", "from . import numpy"),
    ("deepkit/backends/numpy.py", "from ..ops import conv"),
    ("deepkit/backends/numba/conv.py", "from ..numpy import conv2d"),
    ("deepkit/backends/numba/conv.py", "def f():\n    from deepkit.backends import numpy"),
    ("deepkit/backends/cuda/blas.py", "import importlib\nimportlib.import_module('deepkit.tape')"),
    ("deepkit/attic.py", ""),
]


@pytest.mark.parametrize(("path", "source"), UP)
def test_an_import_that_goes_up_is_found(path, source):
    (found,) = laws.wrong_directions(source, path)
    assert found.startswith(path)


DOWN = [
    ("deepkit/__init__.py", "from .nn import Module\nfrom . import models, cli"),
    ("deepkit/cli.py", "from . import train, data\nimport numpy as np"),
    ("deepkit/train.py", "from .data import Loader\nfrom .nn import Module"),
    ("deepkit/nn/layers.py", "from .. import ops\nfrom . import init\nfrom ..tape import Tensor"),
    ("deepkit/ops/conv.py", "from ..tape import Op\nfrom ..backends import DeviceError"),
    (
        "deepkit/tape.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import nn",
    ),
    ("deepkit/backends/numba/conv.py", "from .simd import lanes\nfrom .. import scratch"),
    ("deepkit/backends/numpy.py", "import numpy as np\nfrom . import Backend"),
]


@pytest.mark.parametrize(("path", "source"), DOWN)
def test_an_import_that_goes_down_is_fine(path, source):
    assert laws.wrong_directions(source, path) == []


def test_an_explained_import_may_go_up_inside_a_function_only(monkeypatch):
    monkeypatch.setitem(laws.MAY_GO_UP, ("deepkit/tape.py", "deepkit.ops"), "an example")
    inside, at_top = "def f():\n    from . import ops", "from . import ops"
    assert laws.wrong_directions(inside, "deepkit/tape.py") == []
    assert len(laws.wrong_directions(at_top, "deepkit/tape.py")) == 1


# --- what is declared, what is heavy --------------------------------------------------

PYPROJECT = """
[project]
dependencies = ["numpy>=2.0", "safetensors"]
[project.optional-dependencies]
numba = ["numba>=0.61"]
cuda12 = ["cupy-cuda12x"]
plot = ["pillow>=11"]
dev = ["deepkit[numba]", "torch==2.13.0"]
"""


def test_declared_modules():
    core, extras = laws.declared_modules(PYPROJECT)
    assert core == {"numpy", "safetensors"}
    assert extras == {"numba", "cupy", "PIL"}


@pytest.mark.parametrize(
    ("path", "source", "count"),
    [
        ("deepkit/plot.py", "import numpy, json, deepkit.nn", 0),
        ("deepkit/plot.py", "def f():\n    from PIL import Image", 0),
        ("deepkit/plot.py", "from PIL import Image", 1),
        ("deepkit/plot.py", "def f():\n    import rich", 1),
        ("deepkit/plot.py", "def f():\n    import torch", 1),
        ("deepkit/backends/numba/conv.py", "import numba\nfrom llvmlite import ir", 0),
        ("deepkit/backends/numpy.py", "import numba", 1),
        ("deepkit/backends/cuda/blas.py", "import cupy as cp", 0),
        ("deepkit/backends/cuda/blas.py", "import numba", 1),
    ],
)
def test_undeclared_imports(path, source, count):
    found = laws.undeclared_imports(source, path, *laws.declared_modules(PYPROJECT))
    assert len(found) == count


@pytest.mark.parametrize(
    ("path", "source", "count"),
    [
        ("deepkit/backends/numba/x.py", "import cupy", 1),
        ("deepkit/tape.py", "def f():\n    from cupy.cuda import Stream", 1),
        ("deepkit/tape.py", "def f():\n    importlib.import_module('cupyx')", 1),
        ("deepkit/tape.py", "name = 'cupy'", 0),
        ("deepkit/backends/cuda/__init__.py", "import cupy", 0),
    ],
)
def test_cupy_imports(path, source, count):
    assert len(laws.cupy_imports(source, path)) == count


def test_heavy_after_sees_what_is_loaded():
    assert laws.heavy_after("import wave", {"wave", "chunk", "tkinter"}) >= {"wave"}
    assert laws.heavy_after("pass", {"wave", "tkinter"}) == set()


# --- text -----------------------------------------------------------------------------


def test_too_long():
    assert laws.too_long("x\n" * 500, "a.py") == []
    assert laws.too_long("x\n" * 501, "a.py") == ["a.py has 501 lines; the most is 500"]


def slash(*parts):
    return "/" + "/".join(parts)  # so that this file keeps the law itself


@pytest.mark.parametrize(
    "line",
    [
        f"root = '{slash('home', 'ann', 'mnist')}'",
        f"{slash('root', 'x')}",
        f"cd {slash('tmp')}",
        f"--out={slash('tmp', 'run')}",
        f"open({slash('Users', 'ann')!r})",
        f"see {slash('var', 'tmp', 'x')}",
        f"in {slash('srv', 'checkout', 'deepkit')}",
    ],
)
def test_a_path_of_one_machine_is_found(line):
    found = laws.machine_paths(f"first\n{line}\n", "a.md", here=Path(slash("srv", "checkout")))
    assert len(found) == 1
    assert found[0].startswith("a.md:2 ")


@pytest.mark.parametrize(
    "line",
    [
        "https://example.org" + slash("home", "index.html"),
        "docs" + slash("home", "x"),
        "~" + slash("tmp", "x"),
        "a" + slash("root") + " of the tree",
        slash("tmpfile") + " and " + slash("homes", "x"),
        slash("usr", "local", "cuda"),
        "$(pwd)/runs",
    ],
)
def test_other_paths_are_fine(line):
    assert laws.machine_paths(line, "a.md", here=Path(slash("srv", "checkout"))) == []


def test_strange_stems():
    cards = ["deepkit/ops/conv.py", "deepkit/ops/pool.py"]
    assert laws.strange_stems(["kernels/conv.cu", "kernels/conv_tiled.cu"], cards) == []
    assert laws.strange_stems(["kernels/gemm.cu"], cards) == [
        "kernels/gemm.cu: no deepkit/ops/gemm.py"
    ]
