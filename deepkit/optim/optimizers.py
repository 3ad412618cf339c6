"""The optimisers; their equations stand in `ops/step.py`."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..tape import Tensor
from .base import Optimizer, Piece


class SGD(Optimizer):
    """g' = g + weight_decay w;  v = momentum v + g';  w = w - lr v.

    nesterov: w = w - lr (g' + momentum v).  PyTorch's convention: the learning rate is not inside
    the velocity, and the first step moves by lr g'.  momentum from 0 below 1 (usually 0.9).
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay
        )

    def _check(self, settings: dict[str, Any]) -> None:
        super()._check(settings)
        self._number(settings, "momentum", below=1)
        if settings["nesterov"] and not settings["momentum"]:
            raise ValueError("SGD: nesterov needs a momentum above 0")

    def _update(self, piece: Piece, lr: Tensor, settings: dict[str, Any]) -> None:
        v = piece.state("v") if settings["momentum"] else None
        ops.sgd_step(piece.run.weights, v, piece.run.gradients, lr, **settings)


class Adam(Optimizer):
    """m and v, running means of g' and g'^2 with g' = g + weight_decay w, both corrected for their
    start at zero:  w = w - lr m / (sqrt(v) + eps).

    betas: how much of m and v is kept at each step, from 0 below 1.  eps above 0.
    Kingma, Ba 2015, algorithm 1; weight decay as in PyTorch, see `AdamW` for the other one.
    """

    decoupled = False

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _check(self, settings: dict[str, Any]) -> None:
        super()._check(settings)
        self._positive(settings, "eps")
        betas = settings["betas"]
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ValueError(f"{type(self).__name__}: betas must be two numbers, not {betas!r}")
        self._number({"betas[0]": betas[0], "betas[1]": betas[1]}, "betas[0]", "betas[1]", below=1)

    def _update(self, piece: Piece, lr: Tensor, settings: dict[str, Any]) -> None:
        beta1, beta2 = settings["betas"]
        ops.adam_step(
            piece.run.weights,
            piece.state("m"),
            piece.state("v"),
            piece.run.gradients,
            lr,
            piece.count(),
            beta1=beta1,
            beta2=beta2,
            eps=settings["eps"],
            weight_decay=settings["weight_decay"],
            decoupled=self.decoupled,
        )


class AdamW(Adam):
    """Adam whose weight decay acts on the weights alone: w = (1 - lr weight_decay) w first, g' = g.

    Loshchilov, Hutter 2019, algorithm 2; as in PyTorch, `weight_decay` is multiplied by lr.
    """

    decoupled = True

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)


class RMSprop(Optimizer):
    """s = alpha s + (1 - alpha) g'^2;  d = g' / (sqrt(s) + eps);  w = w - lr d.

    With momentum v = momentum v + d and w = w - lr v.  g' = g + weight_decay w.
    centered: s minus the square of the running mean of g' stands for s in d.
    alpha, momentum from 0 below 1; eps above 0.  Tieleman, Hinton 2012; as PyTorch's.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
        )

    def _check(self, settings: dict[str, Any]) -> None:
        super()._check(settings)
        self._positive(settings, "eps")
        self._number(settings, "alpha", "momentum", below=1)

    def _update(self, piece: Piece, lr: Tensor, settings: dict[str, Any]) -> None:
        options = {name: value for name, value in settings.items() if name != "centered"}
        m = piece.state("m") if settings["centered"] else None
        v = piece.state("v") if settings["momentum"] else None
        run = piece.run
        ops.rmsprop_step(run.weights, piece.state("s"), m, v, run.gradients, lr, **options)


class Adagrad(Optimizer):
    """s = s + g'^2;  w = w - lr / (1 + (t - 1) lr_decay) * g' / (sqrt(s) + eps).

    g' = g + weight_decay w; t counts the steps from 1.  eps above 0.  Duchi, Hazan, Singer 2011;
    as PyTorch's.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        super().__init__(params, lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, eps=eps)

    def _check(self, settings: dict[str, Any]) -> None:
        super()._check(settings)
        self._number(settings, "lr_decay")
        self._positive(settings, "eps")

    def _update(self, piece: Piece, lr: Tensor, settings: dict[str, Any]) -> None:
        run = piece.run
        ops.adagrad_step(
            run.weights, piece.state("s"), run.gradients, lr, piece.count(), **settings
        )
