"""The choice by measurement: which variant of a convolution is the fastest one on this GPU.

    the first call of (op, shapes, dtype, options, precision)
        -> every variant that takes them runs a few times between two events
        -> the fastest is remembered, in memory and, for later processes, in a file:
           cuda/tuned/<GPU>-<digest of compiler, kernels and host code>.jsonl, a line for each key

What a call names (`algorithm=`) or `dk.using` comes first: with `dk.using(conv2d="direct")` nothing
depends on a clock.  Nothing is measured while launches are recorded or captured.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import DeviceError, Variants, current_precision
from . import launch
from .cache import file
from .conv_sizes import OUTPUTS
from .sources import source, stems

BUDGET = 0.05  # seconds for the variants of one key, their first runs aside
MOST_RUNS = 10  # of a variant
WORTH = 1.1  # how much faster a variant must be that has an error bound of its own
OPS = OUTPUTS  # op -> the shape of what it computes


def between_events(gpu: Any, run: Callable[[], None], budget: float) -> float:
    """Seconds of the device for one run; where launches are slower than that, seconds of them."""
    cuda = gpu.cupy.cuda

    def of(count: int) -> float:
        begin, end = cuda.Event(), cuda.Event()
        begin.record(gpu.stream)
        for _ in range(count):
            run()
        end.record(gpu.stream)
        end.synchronize()
        return cuda.get_elapsed_time(begin, end) / 1000 / count

    with gpu.at_work("a measurement"):
        run()  # compiles and loads what is needed
        once = of(1)
        return min(once, of(min(MOST_RUNS, int(budget / max(once, 1e-6)) or 1)))


class Tuner:
    """What has been measured on one GPU.  empty(shape, dtype): memory for outputs and scratch."""

    def __init__(self, gpu: Any, empty: Callable[[tuple[int, ...], Any], Any]) -> None:
        self.gpu, self.empty = gpu, empty
        self.clock: Callable[[Any, Callable[[], None], float], float] = between_events
        self.known: dict[Any, str] = {}
        self._lock = threading.RLock()

    def tuned(self, table: dict[str, Any]) -> dict[str, Any]:
        """A backend's table, in which these ops choose by measurement."""
        chosen = {op: functools.partial(self.choose, op, table[op]) for op in OPS}
        return table | {op: Variants(choose, table[op].kernels) for op, choose in chosen.items()}

    def choose(self, op: str, entry: Variants, *ins: Any, **params: Any) -> str:
        shapes, dtype = [None if a is None else a.shape for a in ins], ins[0].dtype
        key = (op, *shapes, dtype.name, *sorted(params.items()), current_precision())
        name = self.known.get(key)
        if name is not None:
            return name
        usual = entry.choose(*ins, **params)
        nothing = any(a is not None and not a.size for a in ins)
        if nothing or launch.recording() or self.gpu.stream.is_capturing():
            return usual
        kernels = {n: k for n, k in entry.kernels.items() if _contends(n, k, shapes, dtype, params)}
        text = json.dumps(key, default=int)
        with self._lock:
            name = self.kept.get(text, "")
            if name not in kernels:
                found = self._measured(kernels, OPS[op](*shapes, **params), ins, params)
                name = min(found, key=found.__getitem__, default=usual)
                if len(found) == len(kernels):  # else there may be more memory another time
                    self.kept[text] = name
                    self._keep({"key": key, "algorithm": name, "seconds": found})
            self.known[key] = name
        return name

    def _measured(
        self, kernels: Any, shape: tuple[int, ...], ins: Any, params: Any
    ) -> dict[str, float]:
        """Seconds of each, lost digits priced in; without those that have no memory here."""
        before, start = self.gpu.seconds, time.perf_counter()
        found: dict[str, float] = {}
        for name, kernel in kernels.items():
            with contextlib.suppress(DeviceError):
                arrays = (self.empty(shape, ins[0].dtype), *ins)
                run = functools.partial(kernel, *arrays, **params)
                if hasattr(kernel, "scratch"):
                    needed = kernel.scratch(*arrays, **params)
                    run = functools.partial(run, scratch=[self.empty(s, d) for s, d in needed])
                worth = WORTH if hasattr(kernel, "tolerance") else 1.0
                found[name] = worth * self.clock(self.gpu, run, BUDGET / len(kernels))
        self.gpu.seconds = before + time.perf_counter() - start
        return found

    # between processes ------------------------------------------------------------------------
    @functools.cached_property
    def path(self) -> Path:
        named = self.gpu.cupy.cuda.runtime.getDeviceProperties(self.gpu.number)["name"].decode()
        code = [p.read_text(encoding="utf-8") for p in sorted(Path(__file__).parent.glob("*.py"))]
        shaped_by = [named, self.gpu.compiler, *code, *[source(s).text for s in stems()]]
        return file("tuned", "_".join(named.split()), ".jsonl", *shaped_by)

    @functools.cached_property
    def kept(self) -> dict[str, str]:
        """Key, as JSON -> variant.  Lines that cannot be read are none."""
        found: dict[str, str] = {}
        with contextlib.suppress(OSError):
            for line in self.path.read_bytes().splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    entry = json.loads(line)
                    found[json.dumps(entry["key"])] = str(entry["algorithm"])
        return found

    def _keep(self, entry: dict[str, Any]) -> None:
        """One write at the end of the file, so lines of several processes do not mix."""
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            to = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            with os.fdopen(to, "wb", buffering=0) as out:
                out.write(f"\n{json.dumps(entry, default=int)}\n".encode())


def _contends(name: str, kernel: Any, shapes: Any, dtype: Any, params: Any) -> bool:
    """All that take the case, but `naive`; who asks for float64 wants digits."""
    takes = getattr(kernel, "takes", None)
    exact = dtype.itemsize == 4 or not hasattr(kernel, "tolerance")
    return name != "naive" and exact and (takes is None or takes(*shapes, **params))
