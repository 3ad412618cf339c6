"""The command `deepkit`: one module a command, imported when it is called.

A command's module has `DESCRIPTION`, `EXAMPLES`, `add_arguments(parser)` and
`run(arguments) -> exit code`. Bad input of any kind becomes one sentence on stderr and exit code 2;
Ctrl-C is 130, as shells have it; what is left is a bug, and shows its traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

COMMANDS = {
    "train": "train a model on a data set, into a folder",
    "eval": "test a checkpoint on a data set",
    "warmup": "compile all kernels of the Numba backend now, so that nothing waits later",
    "devices": "which devices work here, and why others do not",
    "summary": "a model's layers, shapes, parameters and operations",
}


class UsageError(Exception):
    """Something that the user gave and that cannot be; one sentence."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence, with the nearest option that exists."""

    def _print_message(self, message: str, file: Any = None) -> None:
        """Without argparse's silence about an output that cannot be written."""
        print(message, end="", file=file or sys.stderr)

    def error(self, message: str) -> NoReturn:
        hint = ""
        if message.startswith("unrecognized arguments: "):
            unknown = message.split(": ", 1)[1].split()
            message = f"unknown {'option' if unknown[0][0] == '-' else 'argument'} {unknown[0]}"
            hint = did_you_mean(unknown[0].split("=")[0], list(self._option_string_actions))
        message = message.removeprefix("argument ")
        raise UsageError(f"{message}{hint}   ({self.prog} --help lists what there is)")


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`; did you mean X?` or nothing."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.65)
    return f"; did you mean {near[0]}?" if near else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (sys.argv's if None) -> its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller: `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (for the whole process)
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):  # a name that cannot be printed is escaped
            stream.reconfigure(errors="backslashreplace")
    name = given[0] if given and given[0] in COMMANDS else ""
    try:
        try:
            code = _run(name, given)
        except SystemExit as stop:  # argparse: after --help and --version
            code = int(stop.code or 0)
        sys.stdout.flush()  # a disk that is full is found here, not after the end
        return code
    except KeyboardInterrupt as stop:
        return _say(name, str(stop) or "interrupted", 130)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        _forget_output()
        return 141
    except Exception as error:
        if "DEEPKIT_TRACEBACK" in os.environ or not isinstance(error, user_errors()):
            raise
        try:
            sys.stdout.flush()
        except OSError:  # or Python would try again at its end, and complain once more
            _forget_output()
        return _say(name, _sentence(error), 2)


def _forget_output() -> None:
    """What is still to be written goes nowhere."""
    with contextlib.suppress(OSError):  # a stdout that is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(name: str, given: list[str]) -> int:
    if not name:
        parser = _top_parser()
        options = [g for g in given if g in ("-h", "--help", "--version")]
        if given and not options:
            hint = did_you_mean(given[0], list(COMMANDS))
            raise UsageError(
                f"unknown command '{given[0]}'{hint}   (commands: {', '.join(COMMANDS)})"
            )
        if not given:
            parser.print_help()
            return 2
        parser.parse_args(options)
    command = importlib.import_module(f".{name}", __name__)
    parser = Parser(
        prog=f"deepkit {name}",
        description=command.DESCRIPTION,
        epilog="examples:\n" + "".join(f"  {line}\n" for line in command.EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    code: int = command.run(parser.parse_args(given[1:]))
    return code


def _top_parser() -> argparse.ArgumentParser:
    version = sys.modules[__name__.split(".")[0]].__version__
    lines = [f"  {name:10}{text}" for name, text in COMMANDS.items()]
    parser = Parser(
        prog="deepkit",
        usage="deepkit COMMAND [options]",
        description="Deep learning on NumPy, Numba and CUDA.",
        epilog="commands (each has --help):\n"
        + "\n".join(lines)
        + "\n\nexample:\n  deepkit train lenet5 --data digits --out runs/digits",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"deepkit {version}")
    return parser


def user_errors() -> tuple[type[Exception], ...]:
    """Exceptions that speak of what the user gave, not of a bug."""
    from ..backends import DeviceError
    from ..train import TrainingError

    # DataError, ShapeError, CheckpointError and RunFolderError are ValueErrors
    # and NotImplementedError is how a backend says that it lacks a kernel
    named = (UsageError, DeviceError, TrainingError)
    return (*named, ValueError, NotImplementedError, OSError, MemoryError)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError):
        return f"the output cannot be written ({error.strerror or error})"
    if isinstance(error, MemoryError):
        return "there is not enough memory; smaller images or a smaller --batch-size need less"
    return " ".join(str(error).split("\n"))


def _say(name: str, text: str, code: int) -> int:
    print(f"deepkit {name}: {text}" if name else f"deepkit: {text}", file=sys.stderr, flush=True)
    return code
