"""Training steps of PyTorch on the device: eager, compiled, and whole as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F

from bench.cpu.networks import CLASSES, NETWORKS
from bench.cpu.torch_peer import model_of

from .ops import Row, precision
from .timing import graph_of, in_turns

LR, MOMENTUM = 1e-3, 0.9
CASES = (("mlp", 128), ("lenet5", 64), ("lenet5", 128), ("vgg_small", 64), ("resnet20", 128))
NEAR = {"float32": 1e-3, "tf32": 1e-2, "bfloat16": 5e-2}
STEPS = 4  # whose losses must agree with those of the first contender


class Step:
    """A model, its data and its optimiser; `kind`: eager, compiled or graph."""

    def __init__(self, name: str, size: int, last: bool, kind: str, half: bool) -> None:
        torch.manual_seed(0)
        model = model_of(NETWORKS[name]).cuda()
        shape = NETWORKS[name].shape
        x = torch.randn(size, *shape, device="cuda")
        if len(shape) == 3:
            memory = torch.channels_last if last else torch.contiguous_format
            x = x.permute(0, 3, 1, 2).contiguous(memory_format=memory)
            model = model.to(memory_format=memory)
        self.model, self.x, self.half = model, x, half
        self.y = torch.randint(0, CLASSES, (size,), device="cuda")
        self.optimizer = torch.optim.SGD(model.parameters(), LR, momentum=MOMENTUM, fused=True)
        self.loss = torch.zeros((), device="cuda")
        self.forward: Callable[[], torch.Tensor] = self._forward
        self.run: Callable[[], Any] = self.step
        if kind == "compiled":
            torch._dynamo.reset()
            self.forward = torch.compile(self._forward, mode="max-autotune")
        elif kind == "graph":
            state = [t.clone() for t in model.state_dict().values()]
            graph = graph_of([self.step])
            for kept, was in zip(model.state_dict().values(), state, strict=True):
                kept.copy_(was)
            for slot in self.optimizer.state.values():
                slot["momentum_buffer"].zero_()
            self.run = graph.replay

    def _forward(self) -> torch.Tensor:
        half: AbstractContextManager = torch.autocast("cuda", torch.bfloat16, enabled=self.half)
        with half if self.half else nullcontext():
            return F.cross_entropy(self.model(self.x), self.y)

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.forward()
        loss.backward()
        self.optimizer.step()
        self.loss.copy_(loss.detach())

    def losses(self) -> list[float]:
        found = []
        for _ in range(STEPS):
            self.run()
            found.append(self.loss.item())
        return found


def training(
    kinds: Sequence[str], networks: Sequence[str], precisions: Sequence[str]
) -> Iterator[Row]:
    """One row a network, batch and precision: the contenders' times, in turns."""
    torch.backends.cudnn.benchmark = True
    for name, size in CASES:
        for arithmetic in precisions if name in networks else ():
            steps: dict[str, Callable[[], Any]] = {}
            alive = []  # a graph reads the arrays of its step, and holds none of them
            left: dict[str, str] = {}
            wanted: list[float] = []
            with precision(arithmetic):
                for kind in kinds:
                    for last in (False, True) if len(NETWORKS[name].shape) == 3 else (False,):
                        if kind == "compiled" and not last and len(NETWORKS[name].shape) == 3:
                            continue  # it chooses layouts of its own; minutes are short
                        title = kind + " channels last" * last
                        try:
                            step = Step(name, size, last, kind, arithmetic == "bfloat16")
                            losses = step.losses()
                        except Exception as error:  # whatever a library finds to complain about
                            left[title] = (str(error).strip() or repr(error)).splitlines()[0][:160]
                            continue
                        wanted = wanted or losses
                        away = max(abs(a - b) / abs(a) for a, b in zip(wanted, losses, strict=True))
                        if not away <= NEAR[arithmetic]:
                            left[title] = f"its losses are {away:.1e} away: {losses}, {wanted}"
                            continue
                        steps[title] = step.run
                        alive.append(step)
                times = in_turns(steps)
            yield {"network": name, "batch": size, "precision": arithmetic, "times": times,
                   "left_out": left}  # fmt: skip
