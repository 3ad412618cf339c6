"""Where Winograd's convolution beats the direct one: ratios of times, in each direction.

    python bench/winograd.py --threads 1 --channels 3 16 64 --sizes 4 8 16 --batches 16 64

3x3 windows at stride 1 and padding 1, as many channels out as in (3 channels in: 64 out), float32.
Both take turns, and the times that a fifth of their runs stay below are compared: above 1,
Winograd is faster.  A star means that "auto" takes it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import deepkit as dk


def steps(batch: int, size: int, channels: int, algorithm: str) -> dict[str, Callable[[], Any]]:
    """The three directions of one convolution, on memory that stays."""
    filters = 64 if channels == 3 else channels
    rng = np.random.default_rng(0)

    def lanes(*shape: int) -> Any:
        return dk.tensor(rng.standard_normal(shape, np.float32)) * 1.0

    x, g = lanes(batch, size, size, channels), lanes(batch, size, size, filters)
    w = dk.tensor(rng.standard_normal((filters, 3, 3, channels), np.float32))
    options = dict(padding=1, algorithm=algorithm)
    ops = dk.ops
    return {
        "forward": (lambda: ops.conv2d(x, w, **options)),
        "dx": (lambda: ops.conv2d_dx(g, w, size=(size, size), **options)),
        "dw": (lambda: ops.conv2d_dw(g, x, window=3, **options)),
    }


def chosen(batch: int, size: int, channels: int) -> dict[str, bool]:
    """Whether "auto" means Winograd's algorithm, for each direction."""
    from deepkit.backends.numba import winograd

    filters = 64 if channels == 3 else channels
    x, w = (batch, size, size, channels), (filters, 3, 3, channels)
    settings = dict(stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1)
    return {
        direction: winograd.pays(direction, x, w, np.dtype("f4"), **settings)
        for direction in ("forward", "dx", "dw")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--channels", type=int, nargs="+", default=[3, 16, 32, 64, 128, 256])
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64, 128])
    parser.add_argument("--seconds", type=float, default=0.2, help="for each pair")
    args = parser.parse_args()
    dk.set_num_threads(args.threads)
    dk.set_device("numba")
    clock = time.thread_time if args.threads == 1 else time.perf_counter
    print("batch  size  channels   forward      dx      dw   (direct / winograd)")
    for batch in args.batches:
        for size in args.sizes:
            for channels in args.channels:
                both = [steps(batch, size, channels, a) for a in ("direct", "winograd")]
                shown = "".join(
                    f"{ratio(*[b[d] for b in both], clock, args.seconds):7.2f}{'*' if on else ' '}"
                    for d, on in chosen(batch, size, channels).items()
                )
                print(f"{batch:5d} {size:5d} {channels:9d}  {shown}", flush=True)


def ratio(
    a: Callable[[], Any], b: Callable[[], Any], clock: Callable[[], float], seconds: float
) -> float:
    """How many times longer a takes than b."""
    times: tuple[list[float], list[float]] = ([], [])
    with dk.no_grad():
        a(), b()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times[0]) < 5:
            for run, found in zip((a, b), times, strict=True):
                start = clock()
                run()
                found.append(clock() - start)
    first, second = (statistics.quantiles(t, n=5)[0] for t in times)
    return first / second


if __name__ == "__main__":
    main()
