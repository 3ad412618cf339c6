import subprocess
import sys

import pytest
from cli.commands import FAST

from deepkit.train import RunFolder


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take most of the time of such short runs; `finished` has them."""
    monkeypatch.setattr(RunFolder, "_draw", lambda self, run: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two epochs on the digits, and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "a"
    run = [sys.executable, "-m", "deepkit", "train", "mlp", *FAST, "--epochs", "2", "--out", out]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    return out, done.stdout
