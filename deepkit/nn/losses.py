"""Losses as modules; the equations are those of the ops."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..tape import Tensor
from .module import Module

REDUCTIONS = ("mean", "sum", "none")


class _Loss(Module):
    def __init__(self, reduction: str = "mean") -> None:
        if reduction not in REDUCTIONS:
            known = ", ".join(f"'{r}'" for r in REDUCTIONS)
            name = type(self).__name__
            raise ValueError(f"{name}: reduction must be one of {known}, not {reduction!r}")
        self.reduction = reduction

    def extra_repr(self) -> str:
        return "" if self.reduction == "mean" else f"reduction='{self.reduction}'"


class CrossEntropyLoss(_Loss):
    """-ln softmax(logits)[target], of logits (N, C) and class indices (N,) or probabilities (N, C).

    label_smoothing: the share of the target that is spread over all classes, from 0 to 1.
    """

    def __init__(self, reduction: str = "mean", label_smoothing: float = 0.0) -> None:
        super().__init__(reduction)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(
                f"CrossEntropyLoss: label_smoothing must be from 0 to 1, not {label_smoothing!r}"
            )
        self.label_smoothing = float(label_smoothing)

    def forward(self, logits: Tensor, target: Any) -> Tensor:
        return ops.cross_entropy(
            logits, target, reduction=self.reduction, label_smoothing=self.label_smoothing
        )


class MSELoss(_Loss):
    """(x - target)^2, of two tensors of one shape."""

    def forward(self, x: Tensor, target: Any) -> Tensor:
        return ops.mse(x, target, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """-t ln sigmoid(x) - (1 - t) ln(1 - sigmoid(x)), of logits x and targets t of one shape."""

    def forward(self, logits: Tensor, target: Any) -> Tensor:
        return ops.binary_cross_entropy_with_logits(logits, target, reduction=self.reduction)
