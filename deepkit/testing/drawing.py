"""Random shapes and options for an op, from its signature and the `options` of its card."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..card import Draw, Operand, Sample, Shape, normal
from ..tape import Op
from .cases import case_of, is_tensor, launched, samples_of

Pick = Callable[[Sequence[Any]], Any]  # one of these: a random generator's choice, or Hypothesis's

BATCHES = (1, 2, 3, 15, 16, 17, 33)  # around the widths of SIMD vectors and blocks
WINDOWS = (1, 2, 3, 5)
SIZES = (1, 2, 3, 4, 5, 6, 7)
MOST_ELEMENTS = 20_000


def drawable(op: Op) -> bool:
    """Whether shapes can be drawn for an op: what it needs to know stands in its card.

    Gradient ops, whose shapes follow from a forward pass, are met through `cases.launched`.
    """
    if not samples_of(op) or op.variadic or op.name.endswith(("_dx", "_dw", "_db")):
        return False
    if len(_operands(op, samples_of(op)[0])) < len(op.ins):
        return False
    parameters = list(inspect.signature(op.prepare).parameters.values())[len(op.ins) :]
    return all(p.default is not p.empty or p.name in op.options for p in parameters)


def _operands(op: Op, given: Sample) -> list[Any]:
    """How a sample draws each operand."""
    chosen = zip(given.args, is_tensor(op, given), strict=True)
    return [a for a, tensor in chosen if tensor]


def draw_sample(op: Op, pick: Pick) -> Sample | None:
    """A random sample, or None if the shapes and options that were picked do not go together.

    Which values an input may take (positive, distinct, integers) is as in the card's first sample.
    """
    template = samples_of(op)[0]
    params = {name: pick(values) for name, values in op.options.items()}
    sizes = _Sizes(op, template, params, pick)
    drawn: list[Draw | None] = []
    absent = pick((False, True))  # what is updated in place comes together, or not at all
    for operand, like in zip(op.ins, _operands(op, template), strict=True):
        if operand.optional and (absent if operand.inplace else pick((False, True))):
            drawn.append(None)
            continue
        how = like if isinstance(like, Draw) else normal()
        drawn.append(how._replace(shape=sizes.of(operand)))
    if sum(math.prod(d.shape) for d in drawn if d is not None) > MOST_ELEMENTS:
        return None
    found = Sample(tuple(drawn), params)
    return found if _fits(op, found) else None


def _fits(op: Op, given: Sample) -> bool:
    """Whether the op takes it; a composite one has to be called to know."""
    rng = np.random.default_rng(0)
    try:
        if op.composite:
            launched(op, given, rng, np.float32)
        else:
            case_of(op, given, rng, np.float32)
    except (ValueError, IndexError):
        return False
    return True


def _named(axes: Sequence[str], shape: Shape) -> list[tuple[str, int]]:
    """The axes of a shape that have a name: those before "..." and those after it."""
    if "..." not in axes:
        return list(zip(axes, shape, strict=False))
    before = axes.index("...")
    after = len(axes) - before - 1
    named = list(zip(axes[:before], shape, strict=False))
    return named + (list(zip(axes[-after:], shape[-after:], strict=True)) if after else [])


class _Sizes:
    """The length of every axis symbol, picked when it is first met."""

    def __init__(self, op: Op, template: Sample, params: dict[str, Any], pick: Pick) -> None:
        self.pick, self.params, self.op = pick, params, op
        self.known: dict[str, int] = {}
        self.more: Shape | None = None  # what "..." stands for
        self.all: Shape | None = None  # what every [*] broadcasts to
        self._keep_ranges(template)

    def _keep_ranges(self, template: Sample) -> None:
        """Integers index an axis of another input, so only the axes that both have may change."""
        tensors = _operands(self.op, template)
        whole = [isinstance(t, Draw) and not t.cast for t in tensors]
        if not any(whole):
            return
        indices = [a for o, w in zip(self.op.ins, whole, strict=True) if w for a in o.axes]
        others = {a for o, w in zip(self.op.ins, whole, strict=True) if not w for a in o.axes}
        free = others.intersection(indices)
        for operand, t in zip(self.op.ins, tensors, strict=True):
            shape = t.shape if isinstance(t, Draw) else t
            for axis, size in _named(operand.axes, shape or ()):
                if axis not in free and axis.isidentifier():
                    self.known.setdefault(axis, size)

    def of(self, operand: Operand) -> Shape:
        if operand.elementwise:
            return self._broadcast()
        shape: list[int] = []
        for axis in operand.axes:
            if axis == "...":
                if self.more is None:
                    self.more = self._any(self.pick((0, 1, 2)))
                shape.extend(self.more)
            else:
                shape.append(self._size(axis))
        return tuple(shape)

    def _size(self, axis: str) -> int:
        if axis.isdigit():
            return int(axis)
        symbol, _, divisor = axis.partition("/")
        if symbol not in self.known:
            self.known[symbol] = self._new(symbol)
        return self.known[symbol] // int(self.params.get(divisor, 1) if divisor else 1)

    def _new(self, symbol: str) -> int:
        if symbol == "N":
            return self.pick(BATCHES)
        if symbol in ("R", "S"):
            return self.pick(WINDOWS)
        groups = self.params.get("groups", 1) if symbol in ("C", "K") else 1
        return self.pick(SIZES) * groups

    def _any(self, ndim: int) -> Shape:
        return tuple(self.pick(SIZES[:5]) for _ in range(ndim))

    def _broadcast(self) -> Shape:
        if self.all is None:
            ndim = self.pick((0, 1, 2, 3, 4))
            self.all = (self.pick(BATCHES), *self._any(ndim - 1)) if ndim else ()
            return self.all
        if self.op.inplace or not self.all or self.pick((True, False)):
            return self.all
        shape = self.all[self.pick(range(len(self.all) + 1)) :]
        return tuple(1 if self.pick((False, False, True)) else d for d in shape)
