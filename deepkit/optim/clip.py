"""Gradients held within bounds, without a look at them on the host."""

from __future__ import annotations

from collections.abc import Iterable

from .. import ops
from ..nn.parameter import Run, runs
from ..ops.common import promoted, tensor_on
from ..tape import Tensor, no_grad


def _with_gradients(name: str, params: Tensor | Iterable[Tensor]) -> tuple[list[Tensor], list[Run]]:
    given = [params] if isinstance(params, Tensor) else list(params)
    if not given or not all(isinstance(p, Tensor) for p in given):
        raise TypeError(f"{name}: expected parameters, such as model.parameters()")
    return given, runs(p for p in given if p.has_grad)


def clip_grad_norm(params: Tensor | Iterable[Tensor], max_norm: float) -> Tensor:
    """g = g * min(1, max_norm / (norm + 1e-6)), norm = sqrt(the sum of all squares) -> norm, ().

    Over all gradients together, of both float types too, in place; parameters without a gradient
    do not count.  The norm before the clipping stays on the device, so that this can be part of a
    captured step.
    Pascanu, Mikolov, Bengio 2013; as PyTorch's clip_grad_norm_.
    """
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm: max_norm must be at least 0, not {max_norm!r}")
    given, found = _with_gradients("clip_grad_norm", params)
    if not found:
        return tensor_on(given[0].backend, 0.0, given[0].dtype)
    with no_grad():
        norm = _norm([run.gradients for run in found])
        for run in found:
            g = run.gradients
            own = norm if norm.dtype == g.dtype else norm.astype(g.dtype)
            ops.clip_step(g, own, max_norm=float(max_norm))
    return norm


def _norm(gradients: list[Tensor]) -> Tensor:
    """Of all of them together, in the widest dtype that one has."""
    dtypes = list(dict.fromkeys(g.dtype for g in gradients))
    if len(dtypes) == 1:
        return ops.l2_norm(*gradients)
    widest = promoted(dtypes)
    norms = [ops.l2_norm(*[g for g in gradients if g.dtype == dtype]) for dtype in dtypes]
    return ops.l2_norm(*[norm.astype(widest) for norm in norms])


def clip_grad_value(params: Tensor | Iterable[Tensor], limit: float) -> None:
    """Every element of every gradient is held within [-limit, limit], in place."""
    if not limit >= 0:
        raise ValueError(f"clip_grad_value: limit must be at least 0, not {limit!r}")
    with no_grad():
        for run in _with_gradients("clip_grad_value", params)[1]:
            ops.assign_(run.gradients, ops.clip(run.gradients, -float(limit), float(limit)))
