"""docs/adding-an-op.md to the letter, in a copy of the repository: what `make test` and
`make lint` would say of the new op."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
from docs.test_examples import ROOT, blocks

import deepkit as dk

EDITS, CHECK = blocks("docs/adding-an-op.md")
NEW = "swish"
CARD = "deepkit/ops/elementwise.py"
DEVICES = [d for d in ("numpy", "numba", "cuda-sim") if d in dk.devices()]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository in which somebody has followed the page."""
    root = tmp_path_factory.mktemp("copy")
    for room in ("deepkit", "tests", "bench", "kernels"):
        shutil.copytree(ROOT / room, root / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    _, *edits = re.split(r"^# (\w+/\S+\.(?:py|cu))\n", EDITS, flags=re.MULTILINE)
    assert len(edits) == 2 * 6
    for where, code in zip(edits[::2], edits[1::2], strict=True):
        if where.startswith(("deepkit/", "kernels/")):
            with open(root / where, "a") as file:
                file.write(f"\n\n{code.strip()}\n")
        else:
            insert(root / where, "FUNCTIONS = {\n", code.strip("\n"))
    names = root / "deepkit/ops/__init__.py"
    insert(names, "from .elementwise import (\n", f"    {NEW},")
    insert(names, "__all__ = [\n", f'    "{NEW}",')
    return root


def insert(path, after, line):
    text = path.read_text()
    assert text.count(after) == 1
    path.write_text(text.replace(after, f"{after}{line}\n"))


def ran(root, *command):
    """What a command says in the copy, which must be to its content."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_generated_tests_accept_it(copy):
    """Kernels, gradients and cards of this op, and the tests that count all ops."""
    said = ran(copy, "-m", "pytest", "-q", "tests/ops", "-k", f"{NEW} or every or date or public")
    passed = int(re.search(r"(\d+) passed", said).group(1))
    assert passed > 8 * len(DEVICES)


@pytest.mark.skipif(len(DEVICES) < 3, reason="the page checks it on all of them")
def test_its_own_check_runs(copy):
    said = ran(copy, "-c", CHECK)
    for device in DEVICES:
        assert re.search(rf"'{device}': 1 op, \d+ checks .* 0 findings, 0 kernels missing", said)


def test_it_is_to_the_linters_taste(copy):
    files = re.findall(r"^# (deepkit/\S+\.py)$", EDITS, re.MULTILINE)
    ran(copy, "-m", "ruff", "check", *files)
    ran(copy, "-m", "ruff", "format", "--check", *files)
    ran(copy, "-m", "ruff", "check", "--fix", "--select", "I,RUF022", "deepkit/ops/__init__.py")
    ran(copy, "-m", "mypy", CARD)
