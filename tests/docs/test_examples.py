"""The code in README and docs runs as it stands."""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path

import deepkit as dk
from deepkit.backends import HOMES
from deepkit.cli.options import add_device
from deepkit.tape import registry
from deepkit.testing import check_grad, check_op

ROOT = Path(__file__).parents[2]


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_readme_trains_lenet():
    (code,) = blocks("README.md")
    if "numba" not in dk.devices():
        code = code.replace('dk.set_device("numba")', 'dk.set_device("numpy")')
    before = dk.backends.current().name
    names: dict = {}
    try:
        exec(compile(code, "README.md", "exec"), names)
    finally:
        dk.set_device(before)
    rows = names["history"].rows
    assert len(rows) == 8
    assert rows[-1]["errors"] <= 15  # of 360; the README's run had 5


def test_the_readme_begins_as_promised():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert lines[0] == "# deepkit"
    assert "```python" in lines[:12]
    assert "errors" in "".join(lines[:30])  # what it printed


def test_only_backends_that_exist_are_offered():
    parser = argparse.ArgumentParser()
    add_device(parser)
    offers = {
        "--device": parser.format_help(),
        "pyproject.toml": tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
            "description"
        ],
        "README.md": (ROOT / "README.md").read_text(),
    }
    for where, text in offers.items():
        named = {name for name in ("numpy", "numba", "cuda") if name in text.lower()}
        assert named == set(HOMES), where


def test_the_op_of_the_guide_works():
    card_and_kernel = blocks("docs/adding-an-op.md")[0]
    card, kernel = card_and_kernel.split("# deepkit/backends/numpy/elementwise.py")
    numpy_backend = dk.backends.get("numpy")
    from deepkit.backends.numpy import elementwise as kernels
    from deepkit.ops import elementwise as cards

    room, workshop = dict(vars(cards)), dict(vars(kernels))
    try:
        exec(card, room)
        exec(kernel, workshop)
        numpy_backend.table["swish"] = workshop["swish"]
        for sample in registry["swish"].samples:
            check_op("swish", sample, device="numpy", dtype="float32")
            check_grad("swish", sample)
    finally:
        registry.pop("swish", None)
        numpy_backend.table.pop("swish", None)
