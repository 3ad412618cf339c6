"""Activations that other ops fuse into their own kernels."""

from __future__ import annotations

from ..tape import Tensor
from .elementwise import relu_dx, sigmoid_dx, tanh_dx

ACTIVATIONS = {"relu": relu_dx, "tanh": tanh_dx, "sigmoid": sigmoid_dx}


def activation_dx(g: Tensor, y: Tensor, activation: str | None) -> Tensor:
    """The gradient before an activation that was fused into an op, given the op's output."""
    return g if activation is None else ACTIVATIONS[activation](g, y)


def checked_activation(name: str, activation: str | None) -> str | None:
    """The activations that can be fused: those whose gradient needs only the output."""
    if activation is not None and activation not in ACTIVATIONS:
        known = ", ".join(f"'{a}'" for a in ACTIVATIONS)
        raise ValueError(f"{name}: unknown activation {activation!r}   (known: {known}, or None)")
    return activation
