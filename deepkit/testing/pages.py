"""Kernels beside unmapped pages, in a child process, so that a crash is a finding.

python -m deepkit.testing.pages DEVICE [OP ...] is that child: before each check it says which.
"""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
from collections.abc import Sequence

from ..backends import get
from ..card import Sample
from ..tape import Op, registry
from .cases import op_of, samples_of
from .kernels import CheckError, check_op
from .memory import Allocate, page_after, page_before

SIDES: dict[str, Allocate] = {"after": page_after, "before": page_before}
DTYPES = ("float32", "float64")
SECONDS = 600.0  # a child that takes longer hangs


def check_pages(
    device: str, ops: Sequence[Op | str] | None = None, modules: Sequence[str] = ()
) -> list[str]:
    """Run ops (None: all) on a CPU device with every array against an unmapped page.

    -> a sentence for every sample that read or wrote past an array, or was wrong in another way.
    `modules` are imported by the child first: those that declare ops of your own.
    """
    names = [op_of(o).name for o in (registry if ops is None else ops)]
    todo = [n for n in names if samples_of(n) and not (registry[n].composite or registry[n].view)]
    findings: list[str] = []
    skip = 0  # checks of the first op in `todo` that are done
    while todo:
        command = [sys.executable, "-m", "deepkit.testing.pages", device, str(skip), *todo]
        command += [f"+{m}" for m in modules]
        run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        said = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
        findings += [line["wrong"] for line in said if "wrong" in line]
        if run.returncode == 0:
            break
        begun = [line for line in said if "op" in line]
        if not begun:
            raise RuntimeError(f"the child process could not start: {run.stderr[-2000:]}")
        last = begun[-1]
        findings.append(f"{last['about']}: {_ending(run.returncode)}")
        todo, skip = todo[todo.index(last["op"]) :], last["number"] + 1
    return findings


def _ending(code: int) -> str:
    if code in (-signal.SIGSEGV, -signal.SIGBUS):
        return "it touched memory that is not its own"
    return f"the process ended with {code}"


def _checks(op: Op) -> list[tuple[Sample, str, str]]:
    return [(s, d, side) for s in samples_of(op) for d in DTYPES for side in SIDES]


def main(arguments: Sequence[str]) -> None:
    """The child: DEVICE, how many checks of the first op to leave out, ops, +modules."""
    device, skip = arguments[0], int(arguments[1])
    importlib.import_module("deepkit.ops")
    for name in arguments[2:]:
        if name.startswith("+"):
            importlib.import_module(name[1:])
    backend = get(device)
    for name in arguments[2:]:
        if name.startswith("+"):
            continue
        op = registry[name]
        for number, (given, dtype, side) in enumerate(_checks(op)):
            if number < skip:
                continue
            about = f"{name} on '{device}', {dtype}, {given.args} {given.params}, page {side}"
            print(json.dumps({"op": name, "number": number, "about": about}), flush=True)
            try:
                check_op(op, given, backend, dtype, allocate=SIDES[side])
            except CheckError as error:
                print(json.dumps({"wrong": f"{error}, page {side}"}), flush=True)
            except Exception as error:
                wrong = f"{about}: {type(error).__name__}: {error}"
                print(json.dumps({"wrong": wrong}), flush=True)
        skip = 0


if __name__ == "__main__":
    main(sys.argv[1:])
