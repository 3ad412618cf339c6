"""Ops on their own: the cards' bench samples, forward, and backward towards each large input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

import deepkit as dk
from deepkit.card import Sample, registry
from deepkit.testing.cases import Arrays, arguments, call, drawn

from .measure import Contender, Offer

# Ops that stand for others: their parts are measured as the forward or backward pass of these.
GRADIENT_OF = ("_dx", "_dw", "_db", "_gather")

LAZY = ("add", "sum")  # their gradient is g, or g spread out: PyTorch hands out a view of it


class Case(NamedTuple):
    """One op on one sample; `asked`: the inputs whose gradients are wanted, () for forward."""

    op: Any
    sample: Sample
    asked: tuple[int, ...]

    @property
    def name(self) -> str:
        if not self.asked:
            return self.op.name
        return f"{self.op.name} d{self.op.ins[self.asked[0]].name}"

    @property
    def detail(self) -> str:
        """64x32x32x64, 64x3x3x64, padding=1."""
        shapes = [None if a is None else getattr(a, "shape", a) for a in self.sample.args]
        said = ["x".join(map(str, s)) if isinstance(s, tuple) else str(s) for s in shapes]
        while said and said[-1] in ("None", ""):
            said.pop()
        options = [f"{k}={v}" for k, v in self.sample.params.items()]
        return ", ".join([s for s in said if s != "None"] + options)

    def arrays(self) -> Arrays:
        rng = np.random.default_rng(len(self.detail))
        return drawn(self.op, self.sample, rng, np.dtype(np.float32))


def cases(names: Sequence[str] = ()) -> Iterator[Case]:
    """Every op that has bench samples, or those named."""
    for name, op in registry.items():
        samples = [s for s in op.samples if s.bench]
        if name.endswith(GRADIENT_OF) or (names and name not in names):
            continue
        for given in samples:
            yield Case(op, given, ())
            for asked in _directions(op, given):
                yield Case(op, given, asked)


def _directions(op: Any, given: Sample) -> list[tuple[int, ...]]:
    """Inputs that want a gradient; vectors (bias, scale, shift) together with the one before."""
    if not op.differentiable or op.name in LAZY:
        return []
    found: list[tuple[int, ...]] = []
    for i, arg in enumerate(given.args[: len(op.ins)]):
        shape = getattr(arg, "shape", arg)
        if not _learns(op, i, arg) or not isinstance(shape, tuple):
            continue
        if len(shape) > 1 or not found:
            found.append((i,))
        else:
            found[-1] = (*found[-1], i)
    return found


def _learns(op: Any, i: int, arg: Any) -> bool:
    has_rule = op.together is not None or op.grads[i] is not None
    return arg is not None and has_rule and not op.ins[i].inplace and getattr(arg, "cast", True)


# deepkit ------------------------------------------------------------------------------------------


def _all_of(gradients: Sequence[Any]) -> np.ndarray:
    return np.concatenate([np.asarray(g).ravel() for g in gradients])


def ours(case: Case, arrays: Arrays, device: str = "numba") -> Contender:
    """The op as a user calls it.  What it reads keeps the layout that the backend gave it once,
    as between the layers of a network."""
    op, given = case.op, case.sample
    tensors = [
        None if a is None else dk.tensor(a, device, requires_grad=i in case.asked)
        for i, a in enumerate(arrays)
    ]
    if not case.asked:
        args, params = arguments(op, given, tensors), given.params
        read = None if op.inplace and not op.outs else lambda y: _first(y).numpy()
        return Contender("deepkit eager", lambda: op(*args, **params), read)
    (y, *_) = call(op, given, tensors)
    g = dk.tensor(_weights(y.shape), device)
    asked = [tensors[i] for i in case.asked]

    def read_all(gradients: Any) -> np.ndarray:
        return _all_of([d.numpy() for d in gradients])

    return Contender("deepkit eager", lambda: dk.grad(y, asked, g), read_all)


def _first(y: Any) -> Any:
    return y[0] if isinstance(y, tuple | list) else y


def _weights(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


# PyTorch ------------------------------------------------------------------------------------------


def _sgd(w: Any, v: Any, g: Any, lr: Any, *, momentum: float) -> None:
    import torch

    torch._fused_sgd_(
        [w], [g], [v], weight_decay=0.0, momentum=momentum, lr=float(lr), dampening=0.0,
        nesterov=False, maximize=False, is_first_step=False,
    )  # fmt: skip


def _adam(w: Any, m: Any, v: Any, g: Any, lr: Any, t: Any) -> None:
    import torch

    torch._fused_adam_(
        [w], [g], [m], [v], [], [t.float()], lr=float(lr), beta1=0.9, beta2=0.999,
        weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False,
    )  # fmt: skip


def _dropout(x: Any, key: Any, *, p: float) -> Any:
    import torch

    return torch.nn.functional.dropout(x, p)


# PyTorch has these with numbers of its own, or in place: they are timed and not compared.
NOT_COMPARED: dict[str, Callable] = {"sgd_step": _sgd, "adam_step": _adam, "drop": _dropout}


def theirs(case: Case, arrays: Arrays, name: str, first: bool) -> Contender:
    """`first`: images lie in memory as (N, C, H, W); otherwise as ours, channels last."""
    import torch

    from bench.torch_table import FUNCTIONS

    function = NOT_COMPARED.get(case.op.name) or FUNCTIONS[case.op.name]
    tensors = [None if a is None else _placed(a, first) for a in arrays]
    for i in case.asked:
        tensors[i].requires_grad_()
    args, params = arguments(case.op, case.sample, tensors), case.sample.params
    compared = case.op.name not in NOT_COMPARED
    if not case.asked:
        read = (lambda y: _first(y).numpy()) if compared else None
        return Contender(name, lambda: function(*args, **params), read)
    z = function(*args, **params)
    g = torch.empty_like(z, requires_grad=False)  # in the layout of z
    g.copy_(torch.from_numpy(_weights(tuple(z.shape))))
    asked = [tensors[i] for i in case.asked]

    def step() -> Any:
        return torch.autograd.grad(z, asked, g, retain_graph=True)

    return Contender(name, step, _all_of if compared else None)


def _placed(a: np.ndarray, first: bool) -> Any:
    import torch

    t = torch.from_numpy(a.copy())
    if first and a.ndim == 4:
        return t.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    return t


def offers(case: Case, arrays: Arrays) -> list[Offer]:
    found: list[Offer] = [("deepkit eager", lambda: ours(case, arrays))]
    found.append(("torch", lambda: theirs(case, arrays, "torch", True)))
    if any(a is not None and a.ndim == 4 for a in arrays):
        name = "torch channels last"
        found.append((name, lambda: theirs(case, arrays, name, False)))
    return found
