"""deepkit's own contenders, and how much work a step of theirs is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import deepkit as dk
from deepkit.card import registry
from deepkit.tape import Log, mode

from .measure import Contender, Offer
from .networks import Batch, Network, Weights, deepkit_model, weights_of

LR, MOMENTUM = 1e-3, 0.9


def born(network: Network) -> Weights:
    """The weights with which every library begins."""
    dk.seed(0)
    return weights_of(network, deepkit_model(network))


def _named(device: str, how: str) -> str:
    return f"deepkit {how}" if device == "numba" else f"deepkit {device} {how}"


def _model(network: Network, weights: Weights) -> Any:
    model = deepkit_model(network).astype(weights.dtype)
    model.load_state_dict(weights.arrays)
    return model


def train_step(device: str, weights: Weights, batch: Batch, capture: bool) -> Contender:
    """One step of SGD with momentum on softmax cross-entropy; its result is the loss."""
    with dk.device(device):
        model = _model(weights.network, weights)
        optimizer = dk.optim.SGD(model.parameters(), LR, momentum=MOMENTUM)
        x, y = dk.tensor(batch.x), dk.tensor(batch.y)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = dk.ops.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = dk.capture(step) if capture else step
    name = _named(device, "captured" if capture else "eager")
    return Contender(name, lambda: run(x, y), lambda loss: loss.numpy())


def answer(device: str, weights: Weights, batch: Batch, capture: bool) -> Contender:
    """One forward pass in evaluation, from a tensor to logits in an array of NumPy."""
    with dk.device(device):
        model = _model(weights.network, weights).eval()
        x = dk.tensor(batch.x)

    def forward(x: Any) -> Any:
        with dk.no_grad():
            return model(x)

    run = dk.capture(forward) if capture else forward
    name = _named(device, "captured" if capture else "eager")
    return Contender(name, lambda: run(x).numpy(), np.asarray, work=lambda: run(x))


def offers(mode_: str, weights: Weights, batch: Batch, devices: list[str]) -> list[Offer]:
    """Captured and eager, on each device."""
    make = {"train": train_step, "infer": answer}[mode_]
    found: list[Offer] = []
    for device in devices:
        for how, capture in (("captured", True), ("eager", False)):

            def ready(device: str = device, capture: bool = capture) -> Contender:
                return make(device, weights, batch, capture)

            found.append((_named(device, how), ready))
    return found


class Work(NamedTuple):
    """Floating-point operations, and bytes that kernels read and write, as the cards count them."""

    operations: float
    nbytes: float


def work_of(step: Callable[[], Any]) -> Work:
    """What all launches of a step add up to.  Winograd's are counted as the plain ones; a backend
    that fuses launches moves fewer bytes than this."""
    operations = floats = 0.0
    before, mode.log = mode.log, Log()
    try:
        step()
        launches = mode.log.launches
    finally:
        mode.log = before
    for launch in launches:
        card = registry.get(launch.name)
        if card is None or card.cost is None:
            continue
        shapes = [None if t is None else t.shape for t in launch.ins]
        some, moved = card.cost(*shapes, **launch.params)
        operations, floats = operations + some, floats + moved
    return Work(operations, 4 * floats)
