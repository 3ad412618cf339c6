"""Minutes of random networks and batch sizes: memory stays where it was, and no step stalls.

`make soak` runs it for ten minutes; MINUTES in the environment for another time.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import resource
import sys
import time

import numpy as np
import pytest

pytest.importorskip("numba")

import deepkit as dk
from deepkit import nn, ops
from deepkit.backends.numba import threads

MINUTES = float(os.environ.get("MINUTES", "10"))
STALL = 120  # seconds that no network takes, kernels already compiled or not
GROWTH = 24 << 20  # bytes that the allocator may keep more in the second half than in the first


class Residual(nn.Module):
    """x + convolution(x): a diamond."""

    def __init__(self, channels):
        super().__init__()
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return ops.relu(self.norm(self.inner(x)) + x)


def drawn_network(draw):
    """(model, shape of an image): up to five layers of any kind, on small images."""
    size, channels = draw.randint(6, 20), draw.randint(1, 5)
    shape = (size, draw.randint(6, 20), channels)
    layers = []
    for _ in range(draw.randint(1, 5)):
        kind = draw.choice(["conv", "conv", "strided", "depthwise", "residual", "norm", "pool"])
        if kind == "conv":
            wide = draw.randint(1, 40)
            relu = draw.choice([None, "relu"])
            layers.append(nn.Conv2d(channels, wide, draw.choice([1, 3, 5]), padding="same",
                                    activation=relu))  # fmt: skip
            channels = wide
        elif kind == "strided":
            wide = draw.randint(1, 24)
            layers.append(nn.Conv2d(channels, wide, 3, stride=2, padding=1))
            channels = wide
        elif kind == "depthwise":
            layers.append(nn.Conv2d(channels, channels, 3, padding=1, groups=channels))
        elif kind == "residual":
            layers.append(Residual(channels))
        elif kind == "norm":
            layers += [nn.BatchNorm2d(channels), draw.choice([nn.ReLU, nn.Tanh, nn.GELU])()]
        else:
            window = draw.choice([2, 3])
            pool = draw.choice([nn.MaxPool2d, nn.AvgPool2d])
            layers.append(pool(window, stride=draw.choice([1, 2]), padding=window // 2))
    layers.append(draw.choice([nn.GlobalAvgPool2d, nn.Flatten])())
    trunk = nn.Sequential(*layers)
    with dk.no_grad():
        features = trunk.eval()(dk.zeros(1, *shape)).reshape(1, -1).shape[1]
    head = [nn.Dropout(draw.choice([0.0, 0.3])), nn.Linear(features, 5)]
    return nn.Sequential(*layers, *head).train(), shape


def train_a_little(draw):
    """A network of its own, eager and captured, with a few batch sizes in between each other."""
    dk.seed(draw.randint(0, 1 << 30))
    rng = np.random.default_rng(draw.randint(0, 1 << 30))
    with dk.device("numba"):
        model, shape = drawn_network(draw)
    kind = draw.choice([dk.optim.SGD, dk.optim.Adam])
    optimizer = kind(model.parameters(), lr=1e-3)

    def step(x, y):
        optimizer.zero_grad()
        loss = ops.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    captured = dk.capture(step)
    sizes = [draw.randint(1, 70) for _ in range(draw.randint(1, 3))]
    batches = [
        (
            dk.tensor(rng.standard_normal((n, *shape)).astype(np.float32), "numba"),
            dk.tensor(rng.integers(0, 5, n), "numba"),
        )
        for n in sizes
    ]
    for _ in range(draw.randint(1, 4)):
        for x, y in batches:
            call = draw.choice([step, captured, captured])
            assert np.isfinite(call(x, y).item())


def resident():
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.soak
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_random_networks_neither_grow_nor_stall():
    seed = random.SystemRandom().randint(0, 1 << 30)
    draw, before = random.Random(seed), threads.count()
    begin, count, seen = time.monotonic(), 0, []
    try:
        while (passed := time.monotonic() - begin) < 60 * MINUTES:
            faulthandler.dump_traceback_later(STALL, exit=True)
            dk.set_num_threads(draw.choice([1, 2, 2, 3]))
            train_a_little(draw)
            count += 1
            if count % 20 == 0:
                gc.collect()
                seen.append((passed, resident()))
    finally:
        faulthandler.cancel_dump_traceback_later()
        dk.set_num_threads(before)
        dk.backends.num_threads = None
    half = 30 * MINUTES
    early = max(size for when, size in seen if when < half)
    late = max(size for when, size in seen if when >= half)
    print(f"{count} networks, seed {seed}: {early >> 20} MB at most, then {late >> 20} MB")
    assert late < early + GROWTH, f"seed {seed}: {seen}"
