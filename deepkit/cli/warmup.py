"""`deepkit warmup`."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from . import UsageError

DESCRIPTION = """Compile every kernel of the Numba backend into the cache, so that no network and no
batch size has to wait for it later. What is there already is not compiled again."""
EXAMPLES = ("deepkit warmup", "deepkit warmup --float64")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--float64", action="store_true", help="kernels for float64 as well")
    parser.add_argument("--quiet", action="store_true", help="print only errors")


def run(arguments: argparse.Namespace) -> int:
    """Compile; -> 0."""
    from .. import backends
    from ..train.progress import waiting

    start = time.perf_counter()
    with waiting("loading the backend ...", not arguments.quiet):
        backends.get("numba")
    from ..backends.numba import cache, warm

    folder = cache.folder()
    try:
        cache.write(folder / "warm", b"")
    except OSError as error:
        raise UsageError(
            f"compiled kernels cannot be kept in {folder} ({error.strerror}); DEEPKIT_CACHE may "
            "name another folder"
        ) from error
    reals = ("f4", "f8") if arguments.float64 else ("f4",)
    wanted = warm.tasks(reals)
    todo = [task for task in wanted if not task.kept]
    if todo:
        _compile(todo, warm.compiling(todo, labels), arguments.quiet)
    labels()
    if not arguments.quiet:
        took = f"{len(todo)} compiled now, in {time.perf_counter() - start:.1f} s"
        print(f"{len(wanted)} kernels are ready in {folder}, {took if todo else 'none compiled'}")
    return 0


def labels() -> None:
    """What training does with whole numbers: labels, and how often the model is right."""
    from .. import ops
    from ..create import tensor, zeros
    from ..train.evaluate import count_correct

    for images in 70, 1:  # a sum of one number is a copy
        outputs = ops.linear(zeros(images, 2, device="numba"), zeros(4, 2, device="numba"))
        y = tensor([0] * images, "numba")
        loss: Any = ops.cross_entropy(outputs, y)  # puts labels in lanes
        right: Any = count_correct(outputs, y)
        assert loss.item() > 0
        assert right.item() == images


def _compile(todo: list[Any], finished: Any, quiet: bool) -> None:
    """Show each kernel as it is finished: over each other on a terminal, else line by line."""
    total, live = len(todo) + 1, sys.stderr.isatty()
    for done, (name, seconds) in enumerate(finished, 1):
        line = f"{done:3} of {total}  {name:28} {seconds:5.1f} s"
        if not quiet:
            print(f"\r{line}" if live else line, end="" if live else "\n", file=sys.stderr)
            sys.stderr.flush()
    if live and not quiet:
        print(f"\r{' ' * 60}\r", end="", file=sys.stderr, flush=True)
