"""The gradient of a fused op from its formula, for gradients of gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..tape import Tensor, enable_grad, grad, is_grad_enabled
from .shape import reshape


def by_formula(formula: Callable[..., tuple[Tensor, ...]]) -> Callable:
    """A rule for all inputs at once: write the op as `formula`, made of ops, and differentiate it.

    For ops whose gradient is rarely asked for, as a gradient's own: short, and right to any order.
    """

    def together(g: Any, y: Any, *ins: Any, asked: Sequence[bool], **params: Any) -> list[Any]:
        again = is_grad_enabled()
        with enable_grad():
            # views stand for the inputs, so that one input's gradient ignores that another one
            # may have been computed from it
            fresh = [None if t is None else reshape(t, t.shape) for t in ins]
            outs = formula(*fresh, **params)
        arrived = g if isinstance(g, tuple) else (g,)
        pairs = [
            (o, a) for o, a in zip(outs, arrived, strict=True) if a is not None and o.requires_grad
        ]
        wanted: list[Any] = [t for t, want in zip(fresh, asked, strict=True) if want]
        found = iter(grad([o for o, _ in pairs], wanted, [a for _, a in pairs], create_graph=again))
        return [next(found) if want else None for want in asked]

    return together
