"""Compile all kernels ahead of their use, in as many processes as there are threads.

Numba compiles one function at a time in a process, so threads would not help.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ... import backends as contract
from . import cache, launch, threads


class Task(NamedTuple):
    """A kernel, by its number, for an element type."""

    number: int
    real: str

    @property
    def kernel(self) -> launch.Kernel:
        return kernels()[self.number]

    @property
    def name(self) -> str:
        """As in "conv.direct"."""
        return f"{self.kernel.function.__module__.split('.')[-1]}.{self.kernel.name.strip('_')}"

    @property
    def kept(self) -> bool:
        """Whether the cache has it."""
        return cache.exists(self.kernel.function, self.kernel.signature(self.real))


def kernels() -> list[launch.Kernel]:
    """Those of the package, in an order that every process finds, whatever it imported first;
    kernels of users are not known to the processes that compile."""
    own = [k for k in launch.kernels if k.function.__module__.startswith("deepkit.")]
    return sorted(own, key=lambda k: k.function.__module__)


def tasks(reals: tuple[str, ...]) -> list[Task]:
    """All kernels for these element types ("f4", "f8"), each function once."""
    found = {}
    for real in reals:
        for number, kernel in enumerate(kernels()):
            found.setdefault((kernel, str(kernel.signature(real))), Task(number, real))
    return list(found.values())


def compiling(todo: list[Task], midway: Callable[[], Any]) -> Iterator[tuple[str, float]]:
    """Compile them, and run `midway` in between; -> (name, seconds) as they end."""
    contract.told_preparing = True  # by whoever shows them
    count, half = min(threads.count(), len(todo)), len(todo) // 2
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(count, context, initializer=_begin)
    try:
        futures = [pool.submit(_compile, *task) for task in todo[:half]]
        futures += [pool.submit(_timed, "whole numbers", midway)]
        futures += [pool.submit(_compile, *task) for task in todo[half:]]
        for future in concurrent.futures.as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _begin() -> None:
    """In a process that compiles: Ctrl-C is its parent's matter, and so is telling the user."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    contract.told_preparing = True
    contract.get("numba")


def _compile(number: int, real: str) -> tuple[str, float]:
    task = Task(number, real)
    return _timed(task.name, lambda: task.kernel.address(real))


def _timed(name: str, work: Callable[[], Any]) -> tuple[str, float]:
    start = time.perf_counter()
    work()
    return name, time.perf_counter() - start
