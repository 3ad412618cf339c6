"""Time on the device, and of whole steps.

An op is timed inside a CUDA graph of several calls on as many sets of arrays, so that neither the
launches nor what the last call left in the cache count; a step by the clock, contenders in turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

CACHED = 200e6  # bytes that the sets of arrays of one graph exceed: several times the L2
REPLAYS = 9
ROUNDS = 7
TURN = 0.04  # seconds that a contender's turn lasts


def sets_for(nbytes: float) -> int:
    """How many sets of arrays of `nbytes` outgrow the cache; at most 16."""
    return max(2, min(16, round(CACHED / max(nbytes, 1.0))))


def graph_of(calls: Sequence[Callable[[], Any]]) -> torch.cuda.CUDAGraph:
    """One graph that runs all calls in order; each has run three times before."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            for call in calls:
                call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return graph


def device_us(calls: Sequence[Callable[[], Any]]) -> float:
    """Microseconds of one call by device events: the median over replays of their graph."""
    graph = graph_of(calls)
    graph.replay()
    found = []
    for _ in range(REPLAYS):
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        graph.replay()
        after.record()
        after.synchronize()
        found.append(1e3 * before.elapsed_time(after) / len(calls))
    return statistics.median(found)


def in_turns(steps: dict[str, Callable[[], Any]]) -> dict[str, dict[str, float]]:
    """{name: step} -> {name: us a step, us of it that the host was busy, steps a turn}.

    A turn is some steps and one wait for the device; contenders take turns, medians are kept.
    """
    counts = {}
    for name, step in steps.items():
        step()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(5):
            step()
        torch.cuda.synchronize()
        counts[name] = max(3, int(5 * TURN / (time.perf_counter() - start)))
    whole: dict[str, list[float]] = {name: [] for name in steps}
    host: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(counts[name]):
                step()
            issued = time.perf_counter()
            torch.cuda.synchronize()
            end = time.perf_counter()
            whole[name].append(1e6 * (end - start) / counts[name])
            host[name].append(1e6 * (issued - start) / counts[name])
    return {
        name: {
            "us": round(statistics.median(whole[name]), 2),
            "best_us": round(min(whole[name]), 2),
            "host_us": round(statistics.median(host[name]), 2),
            "steps": counts[name],
        }
        for name in steps
    }
