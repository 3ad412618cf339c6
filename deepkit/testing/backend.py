"""`check_backend`: all laws over all samples of all ops, for one device."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..backends import get
from ..card import Sample
from ..tape import Op, registry
from ..words import counted
from .cases import launched, op_of, samples_of
from .drawing import draw_sample, drawable
from .gradients import check_grad, check_grad2
from .kernels import CheckError, check_case, check_op
from .pages import check_pages


class Report(NamedTuple):
    """What `check_backend` looked at, and what it found wrong, in sentences."""

    device: str
    ops: int
    checks: int
    missing: tuple[str, ...]  # ops for which the backend has no kernel
    findings: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        lines = [
            f"'{self.device}': {counted(self.ops, 'op')}, {counted(self.checks, 'check')} in "
            f"{self.seconds:.0f} s, {counted(len(self.findings), 'finding')}, "
            f"{counted(len(self.missing), 'kernel')} missing"
        ]
        lines += [f"  missing: {', '.join(self.missing)}"] if self.missing else []
        return "\n".join(lines + [f"  {f}" for f in self.findings])


def check_backend(
    device: str,
    ops: Sequence[Op | str] | None = None,
    *,
    dtypes: Sequence[str] = ("float32", "float64"),
    random: int = 3,
    pages: bool = False,
    seed: int = 0,
    strict: bool = True,
) -> Report:
    """Hold a backend to the laws, over all samples of `ops` (None: of all ops) and more.

    random   so many samples with random shapes and options for each op that allows it, together
             with every kernel that its gradient launches
    pages    also beside unmapped pages, in a child process (backends on the processor only)
    strict   raise CheckError with the whole report if anything is wrong; otherwise return it

    The gradient rules do not depend on the backend: `check_grad` and `check_grad2` run on the
    samples when `device` is "numpy", the only one that they need.
    """
    backend, started = get(device), time.perf_counter()
    chosen = [op_of(o) for o in (list(registry) if ops is None else ops)]
    missing = [
        op.name for op in chosen if not (op.composite or op.view or op.name in backend.table)
    ]
    findings: list[str] = []
    checks = 0

    def attempt(check: Callable, op: Op, *args: object, **options: object) -> None:
        nonlocal checks
        checks += 1
        try:
            check(*args, **options)
        except CheckError as error:
            findings.append(str(error))
        except Exception as error:
            found = f"{op.name}: {type(error).__name__}: {error}"
            if found not in findings:
                findings.append(found)

    for op in chosen:
        if op.name in missing:
            continue
        if not samples_of(op):
            findings.append(f"{op.name}: its card has no samples")
        for given in samples_of(op):
            for dtype in dtypes:
                attempt(check_op, op, op, given, backend, dtype, seed=seed)
            if device == "numpy":
                attempt(check_grad, op, op, given, seed=seed)
                attempt(check_grad2, op, op, given, seed=seed)
        rng = np.random.default_rng([seed, *op.name.encode()])
        for given in random_samples(op, random, rng):
            for case in launched(op, given, rng, np.dtype(dtypes[0])):
                if case.op.name in backend.table:
                    attempt(check_case, case.op, case, backend)
    if pages:
        findings += check_pages(device, [op for op in chosen if op.name not in missing])
    report = Report(
        device,
        len(chosen),
        checks,
        tuple(missing),
        tuple(findings),
        time.perf_counter() - started,
    )
    if strict and (findings or missing):
        raise CheckError(str(report))
    return report


def random_samples(op: Op, count: int, rng: np.random.Generator) -> list[Sample]:
    """Up to `count` samples with random shapes and options; none if the card does not tell how."""
    if not drawable(op):
        return []
    found: list[Sample] = []
    for _ in range(20 * count):
        given = draw_sample(op, lambda values: values[int(rng.integers(len(values)))])
        if given is not None:
            found.append(given)
        if len(found) == count:
            break
    return found
