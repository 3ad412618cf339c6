"""Contenders take turns, are compared by medians, and must agree before they are timed.

A round gives each contender one turn: some milliseconds of calls, each timed by itself.  Rounds go
up and down the list, so that nobody always follows the same neighbour.  Before a turn all is quiet
for a moment, in which the threads of the one before stop spinning, and the first call of a turn,
which wakes the threads of this one, is not counted where it is short.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PAUSE = 0.015  # seconds of quiet before a turn; OpenMP's threads spin for about 5 ms
TURN = 0.04  # seconds that a turn lasts, or one call
LEAST_ROUNDS = 3
BUSY = 0.15  # processors taken by others, from which on a measurement is doubtful
AGREEING = 3  # calls of each contender whose results are compared
LEFT = 1e-3  # of the largest number: what is smaller is the rest of a float32 difference


class Contender(NamedTuple):
    """`step` runs once and gives a result; `read` turns that into numbers to compare by."""

    name: str
    step: Callable[[], Any]
    read: Callable[[Any], np.ndarray] | None = None
    work: Callable[[], Any] | None = None  # what of `step` is work, if not all of it


class Timing(NamedTuple):
    """Milliseconds a call: the median, the fastest tenth; the middle half's width, relative."""

    median_ms: float
    best_ms: float
    spread: float
    calls: int


class Disagreement(AssertionError):
    """Two contenders do not compute the same."""


class Left(NamedTuple):
    """A contender that does not take part, and why."""

    name: str
    why: str


def timing_of(seconds: Sequence[float]) -> Timing:
    ordered = sorted(seconds)
    median = statistics.median(ordered)
    quarter, last = len(ordered) // 4, len(ordered) - 1
    spread = (ordered[last - quarter] - ordered[quarter]) / median if median else 0.0
    return Timing(1e3 * median, 1e3 * ordered[len(ordered) // 10], spread, len(ordered))


def agree(contenders: Sequence[Contender], tolerance: float, calls: int = AGREEING) -> None:
    """Run each some times; results must be within `tolerance` of the first one's, relative to its
    largest number.  For a training step this follows the loss as the weights move.

    A loss of 5e-6 is what float32 leaves of log(1 + 5e-6), a multiple of 1.2e-7, so a call's
    results are judged by no less than `LEFT` of the largest number in all calls.
    """
    wanted: list[np.ndarray] | None = None
    for contender in contenders:
        if contender.read is None:
            for _ in range(calls):
                contender.step()
            continue
        got = [np.asarray(contender.read(contender.step()), np.float64) for _ in range(calls)]
        if wanted is None:
            wanted, first = got, contender.name
            least = max(LEFT * max(_largest(a) for a in wanted), 1e-30)
            continue
        for call, (a, b) in enumerate(zip(wanted, got, strict=True)):
            if a.shape != b.shape:
                raise Disagreement(f"{contender.name} gives {b.shape}, {first} {a.shape}")
            error = _largest(a - b) / max(_largest(a), least)
            if not error <= tolerance:
                raise Disagreement(
                    f"{contender.name} is {error:.1e} away from {first} in call {call + 1}; "
                    f"{tolerance:.0e} is allowed"
                )


def _largest(a: np.ndarray) -> float:
    return float(np.max(np.abs(a), initial=0.0))


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection in here."""
    gc.collect()
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class Neighbours:
    """How many processors others kept busy since this was made: 0.0 is a quiet machine.

    A barrier of OpenMP waits for a thread that another process has pushed aside, so on a busy
    machine medians tell more about the neighbours than about the contenders.  Linux only.
    """

    def __init__(self) -> None:
        self.before = self._used()

    @staticmethod
    def _used() -> tuple[float, float, float]:
        """Seconds: the clock, all processors' work (stolen time too), ours, our children's."""
        stat = Path("/proc/stat")
        if not stat.exists():
            return time.perf_counter(), 0.0, 0.0
        ticks = [int(n) for n in stat.read_text().split("\n", 1)[0].split()[1:9]]
        work = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # no idling, waiting
        return time.perf_counter(), work, sum(os.times()[:4])

    def processors(self) -> float:
        clock, work, own = (b - a for a, b in zip(self.before, self._used(), strict=True))
        return max(0.0, (work - own) / clock) if clock else 0.0


def _turn(step: Callable[[], Any], long: bool, clock: Callable[[], float]) -> list[float]:
    if not long:
        step()
    times: list[float] = []
    end = clock() + TURN
    now = 0.0
    while not times or now < end:
        start = clock()
        step()
        now = clock()
        times.append(now - start)
    return times


def take_turns(
    contenders: Sequence[Contender],
    seconds: float,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Timing]:
    """Rounds of turns until `seconds` have passed, at least three -> {name: timing}."""
    times: dict[str, list[float]] = {c.name: [] for c in contenders}
    order = list(contenders)
    with quiet():
        end, rounds = clock() + seconds, 0
        while rounds < LEAST_ROUNDS or clock() < end:
            for contender in order:
                known = times[contender.name]
                sleep(PAUSE)
                known += _turn(contender.step, bool(known) and known[-1] > TURN / 4, clock)
            order.reverse()
            rounds += 1
    return {name: timing_of(found) for name, found in times.items()}


Offer = tuple[str, Callable[[], Contender]]  # a name, and what makes that contender ready


def made(offers: Sequence[Offer]) -> tuple[list[Contender], list[Left]]:
    """The contenders that can be made and run once here; why the others cannot.

    Ours must run; that another library does not is worth a line, no failure.
    """
    found: list[Contender] = []
    left: list[Left] = []
    for name, make in offers:
        if is_ours(name):
            found.append(make())
            continue
        try:
            found.append(make())
        except Exception as error:  # whatever a library finds to complain about
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            left.append(Left(name, said[:160]))
    return found, left


def is_ours(name: str) -> bool:
    return name.startswith("deepkit")
