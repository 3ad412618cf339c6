"""`make gpu-check`: everything that only a GPU can tell, in under ten minutes.

    python -m bench.gpu.check --out bench/results/gpu-check.json

On a machine with a GPU, CuPy and NVRTC (PyTorch as well for the comparisons): all kernels against
the laws, on the device; compute-sanitizer on the ops' samples; LeNet-5 and a small ResNet trained;
kernels and steps beside PyTorch's.  The JSON is whole after every part; the last line says what is
wrong, and the exit status is 0 only if nothing is.

    --device cuda-sim --part laws training     # what of it runs without a GPU
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PARTS = ("laws", "training", "sanitizer", "ops", "networks")
SHARE = {"laws": 0.25, "training": 0.1, "sanitizer": 0.15, "ops": 0.3, "networks": 0.2}
NEAR = 1e-3  # relative, of losses beside those of the NumPy backend
STEPS = 20
SHAPES = (0, 2, 6, 8, 9, 12, 13, 17)  # of bench.gpu.ops.CONVOLUTIONS
SIZES = (128, 512, 1024, 2048, 4096, 8192)
FLOAT32_PEAK = {"H200": 66.9e12, "H100": 66.9e12, "A100": 19.5e12}
SANITIZERS = ("compute-sanitizer", "/usr/local/cuda/bin/compute-sanitizer")

Row = dict[str, Any]


class Clock:
    """How much of its share of the time a part has left."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    @property
    def over(self) -> bool:
        return time.monotonic() > self.end

    @property
    def left(self) -> float:
        return max(1.0, self.end - time.monotonic())


def laws(asked: argparse.Namespace, clock: Clock) -> Iterator[Row]:
    """Every op's samples, in float32 and float64, and random shapes: a row an op."""
    from deepkit.tape import registry
    from deepkit.testing import check_backend

    for name in asked.op or registry:
        if clock.over:
            yield {"op": name, "left_out": "the time was over"}
            continue
        report = check_backend(asked.device, [name], random=2, strict=False)
        yield {"op": name, "checks": report.checks, "wrong": [*report.findings, *report.missing]}


def sanitizer(asked: argparse.Namespace, clock: Clock) -> Iterator[Row]:
    """The same under compute-sanitizer, which watches every access to memory: memcheck for all,
    racecheck for what meets in shared memory."""
    tool = next((t for t in SANITIZERS if shutil.which(t)), None)
    if tool is None:
        yield {"left_out": "compute-sanitizer is not installed"}
        return
    families = {
        "memcheck": ["add", "where", "relu", "transpose", "take_dx", "sum", "max", "product",
                     "linear", "conv2d", "conv2d_dx", "conv2d_dw", "max_pool2d", "max_pool2d_dx",
                     "softmax", "label_cross_entropy", "batch_norm_train", "layer_norm_over",
                     "drop", "sgd_step", "adam_step"],
        "racecheck": ["transpose", "sum", "product", "conv2d", "conv2d_dw", "softmax",
                      "batch_norm_train", "layer_norm_over"],
    }  # fmt: skip
    for kind, ops in families.items():
        command = [tool, "--tool", kind, "--error-exitcode", "9", sys.executable]
        command += ["-m", "bench.gpu.check", "--device", asked.device, "--part", "laws"]
        command += ["--op", *ops]
        started = time.monotonic()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=clock.left, check=False
            )
        except subprocess.TimeoutExpired:
            yield {"tool": kind, "left_out": "the time was over"}
            continue
        said = [line for line in done.stdout.splitlines() if line.startswith("=====")]
        wrong = said[-20:] if done.returncode else []
        yield {"tool": kind, "ops": len(ops), "seconds": time.monotonic() - started, "wrong": wrong}


def training(asked: argparse.Namespace, clock: Clock) -> Iterator[Row]:
    """Losses beside NumPy's, eager beside captured, and the command line as a user calls it."""
    from .ours import Step

    for name, size in (("lenet5", 16), ("resnet20", 4)):
        wanted = Step("numpy", name, size, captured=False).losses(STEPS if name == "lenet5" else 3)
        eager = Step(asked.device, name, size, captured=False).losses(len(wanted))
        captured = Step(asked.device, name, size, captured=True).losses(len(wanted))
        away = max(abs(a - b) / abs(b) for a, b in zip(eager, wanted, strict=True))
        wrong = [f"its losses are {away:.1e} away from NumPy's"] if not away < NEAR else []
        wrong += ["captured and eager losses differ"] if eager != captured else []
        yield {"network": name, "steps": len(wanted), "away": away, "wrong": wrong}
    out = Path("runs", "gpu-check")
    command = [sys.executable, "-m", "deepkit", "train", "lenet5", "--data", "digits", "--device",
               asked.device, "--epochs", "8", "--out", str(out), "--overwrite"]  # fmt: skip
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    started = time.monotonic()
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=clock.left,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        yield {"command": "deepkit train lenet5", "left_out": "the time was over"}
        return
    wrong = [done.stderr[-500:]] if done.returncode else []
    last = [line for line in done.stdout.splitlines() if line.strip()][-3:]
    yield {"command": " ".join(command[2:]), "seconds": time.monotonic() - started, "said": last,
           "wrong": wrong}  # fmt: skip


def ops(asked: argparse.Namespace, clock: Clock) -> Iterator[Row]:
    """Kernels beside cuBLAS, cuDNN and PyTorch's own, in float32."""
    from . import ops as peer
    from . import ours

    peers = {}
    for name, make, args in peer.BOUND_BY_MEMORY:
        if name in ("copy", "softmax", "softmax dx") and not clock.over:
            _, nbytes = make(*args)
            calls = [make(*args)[0] for _ in range(peer.sets_for(nbytes))]
            peers[name, str(args)] = peer.device_us(calls)
    for name, shape, us, nbytes in ours.bound_by_memory(asked.device):
        theirs = peers.get((name, str(tuple(shape["args"]))))
        yield {"op": name, **shape, "us": us, "peer_us": theirs, "gb_s": nbytes / us / 1e3}
    for n, row in zip(SIZES, (r for r in peer.products(["float32"]) if r["shape"]["n"] in SIZES),
                      strict=False):  # fmt: skip
        if clock.over:
            yield {"left_out": f"products from {n} on: the time was over"}
            break
        us = ours.product(asked.device, n)
        yield {
            "op": "product",
            "n": n,
            "us": us,
            "peer_us": row["us"],
            "tflops": 2 * n**3 / us / 1e6,
        }
    for i in SHAPES:
        shape = peer.CONVOLUTIONS[i]
        for direction, mask in peer.DIRECTIONS.items():
            if clock.over:
                yield {"left_out": f"convolutions from {shape} on: the time was over"}
                return
            with peer.precision("float32") as dtype:
                theirs = min(
                    peer.device_us(peer._conv_calls(shape, dtype, layout, mask))
                    for layout in peer.LAYOUTS
                )
            found: dict[str, Any] = {}
            for algorithm in ("direct", "im2col"):
                try:
                    found[algorithm] = ours.convolution(asked.device, shape, direction, algorithm)
                except ValueError as error:  # it is not for this shape
                    found[algorithm] = str(error)
            times = [t for t in found.values() if isinstance(t, float)]
            best = min(times) if times else None
            rate = shape.operations / best / 1e6 if best else None
            yield {"op": f"conv2d {direction}", "shape": shape._asdict(), "us": best,
                   "variants": found, "peer_us": theirs, "tflops": rate}  # fmt: skip


def networks(asked: argparse.Namespace, clock: Clock) -> Iterator[Row]:
    """Whole training steps in float32, in turns with PyTorch's: eager, and one CUDA graph."""
    from . import networks as peer
    from . import ours
    from .timing import in_turns

    for name, size in peer.CASES:
        if clock.over:
            yield {"network": name, "left_out": "the time was over"}
            continue
        alive: list[Any] = [ours.Step(asked.device, name, size, captured) for captured in (0, 1)]
        steps: dict[str, Callable[[], Any]] = {
            f"deepkit {kind}": step.run
            for kind, step in zip(("eager", "captured"), alive, strict=True)
        }
        with peer.precision("float32"):
            for kind in ("eager", "graph"):
                theirs = peer.Step(name, size, False, kind, False)
                theirs.losses()
                steps[f"PyTorch {kind}"] = theirs.run
                alive.append(theirs)
            times = in_turns(steps)
        ratio = times["PyTorch graph"]["us"] / times["deepkit captured"]["us"]
        yield {"network": name, "batch": size, "times": times, "ratio": ratio}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--op", nargs="+", help="the laws for these alone")
    parser.add_argument("--seconds", type=float, default=540.0, help="for all parts together")
    parser.add_argument("--out", type=Path, help="JSON, whole after every row")
    return parser.parse_args()


def main() -> int:
    asked = arguments()
    from bench.cpu import report
    from deepkit import backends

    reason = backends.why_not(asked.device)
    if reason:
        sys.exit(reason)
    driver: Any = getattr(backends.get(asked.device), "driver", None)
    rows: list[Row] = []
    found = {
        "benchmark": "gpu-check",
        "schema": 1,
        "command": "python -m bench.gpu.check " + " ".join(sys.argv[1:]),
        "machine": report.machine() | about(driver),
        "versions": report.versions(),
        "rows": rows,
    }
    wrong: list[str] = []
    whole = sum(SHARE[p] for p in asked.part)
    parts = {"laws": laws, "training": training, "sanitizer": sanitizer, "ops": ops,
             "networks": networks}  # fmt: skip
    for part in asked.part:
        clock = Clock(asked.seconds * SHARE[part] / whole)
        try:
            for row in parts[part](asked, clock):
                rows.append({"part": part, **row})
                wrong += [f"{part}: {w}" for w in row.get("wrong", ())]
                print(*(f"{k}={v}" for k, v in rows[-1].items() if v != []), flush=True)
                if asked.out:
                    report.save(asked.out, found)
        except Exception as error:  # the other parts are still worth their minutes
            wrong.append(f"{part}: {type(error).__name__}: {error}")
            rows.append({"part": part, "wrong": [wrong[-1]]})
            if asked.out:
                report.save(asked.out, found)
    left = [r for r in rows if "left_out" in r]
    print(*wrong, f"{len(rows)} rows, {len(wrong)} findings, {len(left)} left out", sep="\n")
    return 1 if wrong else 0


def about(driver: Any) -> Row:
    """The GPU, its driver and the compiler."""
    if not hasattr(driver, "cupy"):
        return {}
    cupy = driver.cupy
    name = cupy.cuda.runtime.getDeviceProperties(driver.number)["name"].decode()
    return {
        "gpu": name,
        "capability": driver.capability,
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "cupy": cupy.__version__,
        "compiler": driver.compiler,
    }


if __name__ == "__main__":
    sys.exit(main())
