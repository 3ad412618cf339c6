"""What tests of the command line share: running a command, and what it says when it refuses."""

from deepkit.cli import main

FAST = ["--device", "numpy", "--batch-size", "256"]


def ran(capsys, *arguments):
    """-> exit code, stdout, stderr."""
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    return code, *capsys.readouterr()


def refused(capsys, *arguments):
    """The one sentence with which a command is refused."""
    code, _, err = ran(capsys, *arguments)
    assert code == 2
    said = [line for line in err.splitlines() if not line.endswith(" ...")]  # what takes a while
    assert len(said) == 1
    return said[0]


def train(capsys, out, *more):
    return ran(capsys, "train", "mlp", *FAST, "--epochs", 2, "--out", out, *more)
