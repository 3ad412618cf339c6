"""Time a LeNet-5 training step on every device, alternated in one run; print and keep the medians.

    python bench/training_step.py --batch 128 --threads 2

Every contender takes one step in turn, so that a busy machine is busy for all; what is compared
are medians.  PyTorch takes part where it is installed, with its default layout and channels-last.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def deepkit_step(device: str, batch: int, capture: bool) -> Callable[[], Any]:
    import numpy as np

    import deepkit as dk

    dk.seed(0)
    with dk.device(device):
        model = dk.models.lenet5()
        optimizer = dk.optim.SGD(model.parameters(), 0.01, momentum=0.9)
        x = dk.randn(batch, 28, 28, 1)
        y = dk.tensor(np.random.default_rng(0).integers(0, 10, batch))

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = dk.ops.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = dk.capture(step) if capture else step
    return lambda: run(x, y)


def torch_step(batch: int, channels_last: bool) -> Callable[[], Any]:
    import torch
    from torch import nn

    layers = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5)]
    layers += [nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
    x, y = torch.randn(batch, 1, 28, 28), torch.randint(0, 10, (batch,))
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def contenders(batch: int, threads: int) -> dict[str, Callable[[], Any]]:
    import deepkit as dk

    found = {}
    for device in dk.devices():
        found[f"deepkit {device}, eager"] = deepkit_step(device, batch, capture=False)
        found[f"deepkit {device}, captured"] = deepkit_step(device, batch, capture=True)
    try:
        import torch
    except ImportError:
        print("torch is not installed: left out")
    else:
        torch.set_num_threads(threads)
        found["torch, eager"] = torch_step(batch, channels_last=False)
        found["torch, eager, channels last"] = torch_step(batch, channels_last=True)
    return found


def measure(steps: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    for step in steps.values():
        for _ in range(3):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def versions() -> dict[str, str]:
    from importlib import metadata

    found = {"python": platform.python_version()}
    for package in ("deepkit", "numpy", "numba", "torch"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128, help="images in a step (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="for BLAS and torch (%(default)s)")
    parser.add_argument("--rounds", type=int, default=60, help="timed steps of each (%(default)s)")
    parser.add_argument("--out", type=Path, help="write the figures there as JSON")
    asked = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(asked.threads)  # before NumPy is imported
    times = measure(contenders(asked.batch, asked.threads), asked.rounds)
    medians = {name: statistics.median(found) for name, found in times.items()}
    slowest = max(medians.values())
    print(f"LeNet-5 training step, batch {asked.batch}, {asked.threads} threads at most, ms")
    print(f"{'':32} {'median':>9} {'best 10 %':>10} {'images/s':>10} {'times faster':>13}")
    for name, median in sorted(medians.items(), key=lambda item: -item[1]):
        best = sorted(times[name])[len(times[name]) // 10]
        rate = asked.batch / median * 1e3
        print(f"{name:32} {median:9.3f} {best:10.3f} {rate:10,.0f} {slowest / median:13.1f}")
    if asked.out:
        record = {
            "benchmark": "LeNet-5 training step",
            "batch": asked.batch,
            "threads": asked.threads,
            "rounds": asked.rounds,
            "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
            "versions": versions(),
            "median_ms": medians,
        }
        asked.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
