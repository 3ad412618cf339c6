"""What this machine can do at most: multiply-adds from registers, and bytes from each cache.

Measured with kernels of our own at the moment of the run, because a rented processor's clock is
anybody's guess.  An operation of f operations and b bytes takes at least max(f / peak, b / band),
with the bandwidth of the smallest memory that holds b bytes; what it takes more is the share that
the table shows.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

import deepkit as dk
from deepkit.backends.numba.launch import kernel, launch, ptr, size
from deepkit.backends.numba.machine import HAS_FMA, VECTOR_BYTES
from deepkit.backends.numba.simd import at

from .measure import BUSY, Neighbours, quiet

CHAINS = (
    12  # sums that do not wait for one another: latency times ports, and 16 registers hold them
)
LANES = VECTOR_BYTES // 4
FOOTPRINTS = (3 << 17, 3 << 21, 3 << 23, 3 << 27)  # bytes of a triad: 0.4, 6, 25, 400 MB
WORK = 1 << 40  # every thread is worth it


class Roofline(NamedTuple):
    """GFLOP/s, and {bytes of the working set: GB/s}; `quiet`: measured while nobody else ran."""

    peak: float
    bands: dict[int, float]
    quiet: bool = True

    def band(self, nbytes: float) -> float:
        fitting = [size for size in sorted(self.bands) if nbytes <= size]
        return self.bands[fitting[0] if fitting else max(self.bands)]

    def least_ms(self, operations: float, nbytes: float) -> float:
        """No kernel that does all these operations and moves all these bytes is faster."""
        moving = nbytes / self.band(nbytes) if nbytes else 0.0
        return 1e-6 * max(operations / self.peak, moving)


@intrinsic
def _chains(typing: Any, out: Any, count: Any) -> Any:
    """`count` times: each of CHAINS vectors becomes vector * factor + term; at the end, stored."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(ir.FloatType(), LANES)
        multiply_add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{LANES}f32"
        )
        memory = builder.bitcast(args[0], vector.as_pointer())

        def slot(i: int) -> Any:
            return builder.gep(memory, [ir.Constant(ir.IntType(64), i)])

        factor, term = builder.load(slot(0), align=4), builder.load(slot(1), align=4)
        sums = [cgutils.alloca_once_value(builder, term) for _ in range(CHAINS)]
        with cgutils.for_range(builder, args[1], intp=ir.IntType(64)):
            for i in sums:
                old = builder.load(i)
                if HAS_FMA:
                    new = builder.call(multiply_add, [old, factor, term])
                else:
                    new = builder.fadd(builder.fmul(old, factor), term)
                builder.store(new, i)
        total = builder.load(sums[0])
        for i in sums[1:]:
            total = builder.fadd(total, builder.load(i))
        builder.store(total, slot(2), align=4)
        return context.get_dummy_value()

    return types.void(out, types.int64), generate


@kernel
def _multiply_adds(t, n, memory: ptr, count: size, room: size):
    """Every thread runs its own chains in its own part of `memory`."""
    _chains(at(memory, t * room), count)


@kernel
def _triad(t, n, a: ptr, b: ptr, c: ptr, count: size, times: size):
    """a = b + 1.5 c, so many times; a thread keeps to its share."""
    low, high = t * count // n, (t + 1) * count // n
    for _ in range(times):
        for i in range(low, high):
            a[i] = b[i] + np.float32(1.5) * c[i]


def _best(kernel: Any, *args: Any, repeats: int) -> float:
    """Seconds of the fastest of some launches, after one that compiles and warms."""
    found = []
    for i in range(repeats + 1):
        start = time.perf_counter()
        launch(kernel, np.dtype(np.float32), *args, work=WORK)
        found.append(time.perf_counter() - start)
        if i == 0:
            found.clear()
        time.sleep(0.002)  # whoever else runs here has a moment to get it over with
    return min(found)


def measured(threads: int, repeats: int = 40, before: Roofline | None = None) -> Roofline:
    """The roofline of so many threads, in about two seconds: short runs of which the fastest
    counts, here or `before`."""
    neighbours = Neighbours()
    found = _measured(threads, repeats)
    quiet = neighbours.processors() <= BUSY
    if before is None:
        return found._replace(quiet=quiet)
    bands = {size: max(band, before.bands[size]) for size, band in found.bands.items()}
    return Roofline(max(found.peak, before.peak), bands, quiet)


def _measured(threads: int, repeats: int) -> Roofline:
    dk.devices()  # the Numba backend is there
    dk.set_num_threads(threads)
    room = 64 * LANES  # floats a thread, many cache lines from the next one's
    memory = np.ones(room * threads, np.float32)
    memory[:] = 0.5
    count = 500_000
    with quiet():
        seconds = _best(_multiply_adds, memory, count, room, repeats=repeats)
        peak = 2e-9 * LANES * CHAINS * count * threads / seconds
        bands = {}
        for footprint in FOOTPRINTS:
            length = footprint // 12
            a, b, c = (np.ones(length, np.float32) for _ in range(3))
            times = max(1, (1 << 26) // footprint)
            seconds = _best(_triad, a, b, c, length, times, repeats=repeats)
            bands[footprint] = 1e-9 * footprint * times / seconds
    return Roofline(peak, bands)
