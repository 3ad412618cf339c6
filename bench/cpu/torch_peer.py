"""PyTorch's contenders, each with the settings that suit it best.

ReLU in place, fused SGD, gradients set to None, inference mode; eager in both layouts; compiled,
for inference with weights frozen; traced and frozen.  Threads are set before these are made.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .measure import Contender, Offer
from .networks import EPS, Average, Batch, Block, Conv, Flatten, Network, Weights
from .ours import LR, MOMENTUM

LAST = torch.channels_last


class _Block(nn.Module):
    def __init__(self, inp: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inp, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out, EPS)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out, EPS)
        self.stride, self.more = stride, (out - inp) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.more:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more, self.more))
        return F.relu(y.add_(x), inplace=True)


class _Average(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def model_of(network: Network) -> nn.Sequential:
    layers: list[nn.Module] = []
    for layer in network.layers:
        if isinstance(layer, Conv):
            options: dict[str, Any] = {"padding": layer.padding, "bias": not layer.norm}
            layers.append(nn.Conv2d(*layer[:3], **options))
            layers += [nn.BatchNorm2d(layer.out, EPS)] if layer.norm else []
            layers.append(nn.ReLU(inplace=True))
            layers += [nn.MaxPool2d(2)] if layer.pool else []
        elif isinstance(layer, Block):
            layers.append(_Block(*layer))
        elif isinstance(layer, Average):
            layers.append(_Average())
        elif isinstance(layer, Flatten):
            layers.append(nn.Flatten())
        else:
            layers.append(nn.Linear(layer.inp, layer.out))
            layers += [nn.ReLU(inplace=True)] if layer.relu else []
    return nn.Sequential(*layers)


def model_with(weights: Weights) -> nn.Sequential:
    """The network with these weights, in training mode."""
    model = model_of(weights.network).to(getattr(torch, weights.dtype))
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("batches_tracked")}
    values = zip(state, weights.first, strict=True)
    model.load_state_dict({name: torch.from_numpy(a) for name, a in values}, strict=False)
    return model


def _ready(weights: Weights, batch: Batch, last: bool) -> tuple[nn.Sequential, torch.Tensor]:
    torch.manual_seed(0)
    model, x = model_with(weights), torch.from_numpy(batch.x_first)
    if last:
        model = model.to(memory_format=LAST)
        x = x.contiguous(memory_format=LAST)
    return model, x


def train_step(name: str, weights: Weights, batch: Batch, last: bool, compiled: bool) -> Contender:
    model, x = _ready(weights, batch, last)
    y = torch.from_numpy(batch.y)
    optimizer = torch.optim.SGD(model.parameters(), LR, momentum=MOMENTUM, fused=True)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    run: Callable = loss_of
    if compiled:
        torch._dynamo.reset()  # what was compiled for other shapes and threads is no use here
        run = torch.compile(loss_of)
        run(x, y).backward()  # what cannot be compiled says so now

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = run(x, y)
        loss.backward()
        optimizer.step()
        return loss

    return Contender(name, step, lambda loss: loss.detach().numpy())


def _frozen(model: nn.Module, x: torch.Tensor) -> Callable:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is old, and still the faster one at times
        traced = torch.jit.freeze(torch.jit.trace(model, x))
        return torch.jit.optimize_for_inference(traced)


def _compiled(model: nn.Module, x: torch.Tensor) -> Callable:
    from torch._inductor import config

    torch._dynamo.reset()
    config.freezing = True
    try:
        run = torch.compile(model)
        run(x)
    finally:
        config.freezing = False
    return run


def answer(name: str, weights: Weights, batch: Batch, last: bool, how: str) -> Contender:
    model, x = _ready(weights, batch, last)
    model.eval()
    with torch.inference_mode():
        run = {"eager": lambda m, x: m, "frozen": _frozen, "compiled": _compiled}[how](model, x)
        for _ in range(3):
            run(x)

    def step() -> np.ndarray:
        with torch.inference_mode():
            return run(x).numpy()

    return Contender(name, step, np.asarray)


def offers(mode: str, weights: Weights, batch: Batch, compile: bool) -> list[Offer]:
    """Two layouts matter where there are images."""
    images = batch.x.ndim == 4
    found: list[Offer] = []

    def offer(name: str, last: bool, how: str) -> None:
        def make() -> Contender:
            if mode == "train":
                return train_step(name, weights, batch, last, how == "compiled")
            return answer(name, weights, batch, last, how)

        found.append((name, make))

    offer("torch", False, "eager")
    if images:
        offer("torch channels last", True, "eager")
    if mode == "infer":
        offer("torch frozen", False, "frozen")
    if compile:
        offer("torch compiled", images, "compiled")
    return found
