"""The code in README and docs runs as it stands."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import deepkit as dk
from deepkit import backends
from deepkit.backends import HOMES, Backend
from deepkit.cli.options import add_device

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
    assert rows[-1]["errors"] <= 15  # of 360; the README's run had 8
    page = (ROOT / "README.md").read_text()
    for epoch, shown in re.findall(r"^ +([12]) +(\d\.\d+) .*%", page, re.MULTILINE):
        # later epochs differ between machines: training amplifies the rounding
        assert rows[int(epoch) - 1]["train_loss"] == pytest.approx(float(shown), rel=1e-3)


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
        assert named == {name.removesuffix("-sim") for name in HOMES}, where


@pytest.fixture
def mine(monkeypatch):
    """The backend of docs/adding-a-backend.md, as if its two files were there."""
    for code in blocks("docs/adding-a-backend.md")[:2]:
        path, room = re.match(r"# (deepkit/backends/mine/(\w+)\.py)\n", code).groups()
        name = "deepkit.backends.mine" + ("" if room == "__init__" else f".{room}")
        module = ModuleType(name)
        module.__package__ = "deepkit.backends.mine"
        exec(compile(code, path, "exec"), vars(module))
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(HOMES, "mine", "deepkit.backends.mine")
    yield "mine"
    backends._made.pop("mine", None)


def test_the_backend_of_the_guide_keeps_the_laws(mine, capsys):
    assert mine in dk.devices()
    exec(blocks("docs/adding-a-backend.md")[2], {})
    assert re.search(
        r"'mine': 3 ops, \d\d+ checks in .* 0 findings, 0 kernels missing", capsys.readouterr().out
    )


def test_the_backend_of_the_guide_runs_and_replays(mine):
    def step(x):
        return dk.ops.softplus(dk.ops.relu(x) + x).reshape(2, -1)

    x = np.float32([[-1, 0, 2, 5]])
    captured = dk.capture(step)
    for scale in np.float32([1, 2, 3]):
        on_numpy, here = (dk.tensor(scale * x, device=device) for device in ("numpy", mine))
        eager = step(here)
        assert eager.device == mine
        np.testing.assert_allclose(eager.numpy(), step(on_numpy).numpy(), rtol=1e-6)
        np.testing.assert_array_equal(captured(here).numpy(), eager.numpy())
    with pytest.raises(NotImplementedError, match="backend 'mine' has no kernel for 'exp'"):
        dk.tensor(x, device=mine).exp()


def test_the_guide_tells_the_contract_as_it_is():
    page = (ROOT / "docs/adding-a-backend.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)(\(.*\))?` \|", page, re.MULTILINE))
    members = [n for n in vars(Backend) if not n.startswith("_")]
    assert set(rows) == {"table", *members}
    for name in members:
        member = inspect.getattr_static(Backend, name)
        if inspect.isfunction(member):
            _, *parameters = inspect.signature(member).parameters
            assert rows[name] == f"({', '.join(parameters)})", name
        else:
            assert rows[name] == "", name
