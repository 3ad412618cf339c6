"""One comparison after the other: makes the contenders, lets them agree, times them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import deepkit as dk

from . import jax_peer, measure, operators, ours, roofline, served, targets
from .measure import BUSY, Contender, Left, Offer
from .networks import NETWORKS, batch_of
from .report import Row
from .roofline import Roofline

START_SECONDS = 8.0
TRIES = 3  # while other processes use the machine
TOLERANCE = {"train": 1e-3, "infer": 1e-3, "ops": 1e-3}  # of float32, Winograd among it


def _absent(*packages: str) -> list[Left]:
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    return [Left(p, "it is not installed") for p in missing]


def settle(threads: int) -> AbstractContextManager:
    """All libraries that are here use so many threads; BLAS until the context is left."""
    dk.set_num_threads(threads)
    if not _absent("torch"):
        import torch

        torch.set_num_threads(threads)
    if _absent("threadpoolctl"):
        return nullcontext()
    from threadpoolctl import threadpool_limits

    return threadpool_limits(threads, user_api="blas")


class Roofs(dict[int, Roofline]):
    """The roofline for each number of threads.  One that was taken while others used the machine is
    taken again before the next comparison."""

    def __init__(self, threads: Sequence[int]) -> None:
        super().__init__({t: roofline.measured(t) for t in sorted(threads)})

    def now(self, threads: int) -> Roofline:
        if not self[threads].quiet:
            self[threads] = roofline.measured(threads, before=self[threads])
        return self[threads]


def compare(
    offers: Sequence[Offer], tolerance: float, seconds: float
) -> tuple[list[Contender], list[Left], dict[str, Any]]:
    """-> (who took part, who did not, what a row says of it)."""
    contenders, left = measure.made(offers)
    measure.agree(contenders, tolerance)
    tries = []
    for _ in range(TRIES):
        neighbours = measure.Neighbours()
        timings = measure.take_turns(contenders, seconds)
        tries.append((round(neighbours.processors(), 2), timings))
        if tries[-1][0] <= BUSY:
            break
    others, timings = min(tries, key=lambda one: one[0])
    return contenders, left, {"timings": timings, "others": others}


def network(
    mode: str,
    name: str,
    size: int,
    threads: int,
    seconds: float,
    roof: Roofline,
    *,
    devices: Sequence[str] = ("numba",),
    compile: bool = True,
) -> Row:
    """One network in one mode, at one batch size and number of threads."""
    described, packages = NETWORKS[name], ["torch", "jax"]
    with settle(threads):
        weights, batch = ours.born(described), batch_of(described, size)
        offers = ours.offers(mode, weights, batch, list(devices))
        packages += ["onnxruntime", "openvino", "onnx"] if mode == "infer" else []
        absent = _absent(*packages)
        missing = {left.name for left in absent}
        if "torch" not in missing:
            from . import torch_peer

            offers += torch_peer.offers(mode, weights, batch, compile)
        if "jax" not in missing:
            offers += jax_peer.offers(mode, weights, batch, threads)
        if mode == "infer" and not {"torch", "onnx"} & missing:
            offers += [o for o in served.offers(weights, batch, threads) if o[0] not in missing]
        contenders, left, measured = compare(offers, TOLERANCE[mode], seconds)
        eager = next(c for c in contenders if c.name.endswith("eager"))
        work = ours.work_of(eager.work or eager.step)
    return Row(
        mode, name, described.title, size, threads, **measured, **work._asdict(),
        bound_ms=roof.least_ms(work.operations, 0),  # a whole step is bound by arithmetic
        target=targets.of_network(mode, name, size, threads),
        left_out={one.name: one.why for one in [*absent, *left]},
    )  # fmt: skip


def ops(
    names: Sequence[str], threads: Sequence[int], seconds: float, roofs: Roofs
) -> Iterator[Row]:
    """The cards' bench samples."""
    absent = _absent("torch")
    for case in operators.cases(names):
        arrays = case.arrays()
        for count in sorted(threads):
            with settle(count):
                offers = [
                    o for o in operators.offers(case, arrays) if not absent or measure.is_ours(o[0])
                ]
                contenders, left, measured = compare(offers, TOLERANCE["ops"], seconds)
                work = ours.work_of(contenders[0].step)
            yield Row(
                "ops", case.name, case.detail, 0, count, **measured, **work._asdict(),
                bound_ms=roofs.now(count).least_ms(*work),
                target=targets.of_op(case, count),
                left_out={one.name: one.why for one in [*absent, *left]},
            )  # fmt: skip


# a process that starts ----------------------------------------------------------------------------

OUR_START = """
import numpy as np, deepkit as dk
dk.set_device("numba")
model = dk.models.lenet5()
optimizer = dk.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
loss = dk.ops.cross_entropy(model(dk.randn(64, 28, 28, 1)), dk.tensor(np.arange(64) % 10))
loss.backward()
optimizer.step()
print(loss.item())
"""

THEIR_START = """
import torch
from torch import nn
layers = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5)]
layers += [nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU()]
model = nn.Sequential(*layers, nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9, fused=True)
loss = nn.functional.cross_entropy(model(torch.randn(64, 1, 28, 28)), torch.arange(64) % 10)
loss.backward()
optimizer.step()
print(loss.item())
"""


def _process(name: str, program: str) -> Contender:
    command = [sys.executable, "-c", program]
    return Contender(name, lambda: subprocess.run(command, check=True, capture_output=True))


def start(threads: Sequence[int]) -> Iterator[Row]:
    """From nothing to the first step of LeNet-5, the interpreter's own start included; kernels are
    read from the cache, since each runs once before."""
    offers: list[Offer] = [("deepkit eager", lambda: _process("deepkit eager", OUR_START))]
    absent = _absent("torch")
    if not absent:
        offers.append(("torch", lambda: _process("torch", THEIR_START)))
    _, left, measured = compare(offers, 0.0, START_SECONDS)
    yield Row(
        "start", "lenet5", "import and first step", 64, max(threads), **measured,
        left_out={one.name: one.why for one in [*absent, *left]},
    )  # fmt: skip
