"""`check_grad`: every gradient rule against a directional finite difference, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..backends import get
from ..card import Sample
from ..ops.common import tensor_on
from ..tape import Op, Tensor, enable_grad, grad
from .cases import Arrays, call, drawn, fixed, op_of, seeded
from .kernels import CheckError

STEPS = (1e-4, 1e-5, 1e-6)  # a kink may lie within one of them, hardly within all
TOLERANCE = 1e-6


def check_grad(
    function: Op | str | Callable,
    given: Sample | Sequence[np.ndarray | None],
    *,
    seed: int = 0,
    skip: Sequence[int] = (),
    **params: Any,
) -> None:
    """d<v, f(x)>/dx, along a random direction for each input, is what f's rules say it is.

    function   an op, its name, or any function of tensors that returns a tensor or several
    given      a sample of the card, or the inputs as arrays, with the options as `params`
    skip       inputs that are not looked at; integers and operands updated in place never are

    An input without a rule counts as one with gradient zero, and has to be flat.  Errors:
    CheckError, with the input, the slope that was measured and the one that the rule gave.
    """
    _Check(function, given, params, seed, skip).first_order()


def check_grad2(
    function: Op | str | Callable,
    given: Sample | Sequence[np.ndarray | None],
    *,
    seed: int = 0,
    skip: Sequence[int] = (),
    **params: Any,
) -> None:
    """The gradient, taken as a function of the inputs and of its weights v, passes `check_grad`."""
    check = _Check(function, given, params, seed, skip)
    shapes = [y.shape for y in check.run(check.arrays)[0] if y.requires_grad]
    if not shapes:
        return  # nothing to differentiate: check_grad holds it to being flat
    count = len(check.arrays)

    def first_gradient(*tensors: Any) -> list[Tensor]:
        outs = [y for y in check.call(tensors[:count]) if y.requires_grad]
        xs = [tensors[i] for i in check.asked]
        return grad(outs, xs, tensors[count:], create_graph=True)

    first_gradient.__name__ = f"{check.name}, second order"
    weights = [np.random.default_rng([seed, 2]).standard_normal(s) for s in shapes]
    check_grad(first_gradient, [*check.arrays, *weights], seed=seed, skip=check.skip)


class _Check:
    """A function of tensors, its inputs in float64, and which of them are differentiated."""

    def __init__(
        self, function: Any, given: Any, params: dict, seed: int, skip: Sequence[int]
    ) -> None:
        self.seed, self.rng = seed, np.random.default_rng(seed)
        function = op_of(function) if isinstance(function, str) else function
        self.function, self.name = function, str(getattr(function, "__name__", "the function"))
        if isinstance(function, Op):
            given = given if isinstance(given, Sample) else fixed(given, params)
            self.arrays = drawn(function, given, self.rng, np.float64)
            self.call: Callable[..., Any] = lambda tensors: call(function, given, tensors)
            self.skip = (*skip, *function.inplace)
            self.shown = given.params
        else:
            self.arrays = Sample(fixed(given, {}).args, {}).arrays(self.rng, np.float64)
            self.call = lambda tensors: _listed(function(*tensors, **params))
            self.skip, self.shown = tuple(skip), params
        floats = [i for i, a in enumerate(self.arrays) if a is not None and a.dtype.kind == "f"]
        self.asked = [i for i in floats if i not in self.skip]

    def run(self, arrays: Arrays) -> tuple[list[Tensor], list[Any]]:
        """The float results, and the tensors that were given."""
        tensors = _tensors(arrays, self.asked)
        with seeded(self.seed), enable_grad():
            return [t for t in self.call(tensors) if t.dtype.kind == "f"], tensors

    def first_order(self) -> None:
        outs, tensors = self.run(self.arrays)
        weights = [self.rng.standard_normal(t.shape) for t in outs]
        slopes = _slopes(outs, tensors, weights, self.asked)
        values = [t.numpy() for t in outs]
        size = sum(float(np.sum(np.abs(w * v))) for w, v in zip(weights, values, strict=True))

        def along(i: int, direction: np.ndarray, s: float) -> float:
            moved = list(self.arrays)
            moved[i] = np.asarray(moved[i]) + s * direction
            found, _ = self.run(moved)
            return sum(float(np.sum(w * t.numpy())) for w, t in zip(weights, found, strict=True))

        for i in self.asked:
            direction = self.rng.standard_normal(slopes[i].shape)
            told = float(np.sum(slopes[i] * direction))
            room = TOLERANCE * float(np.sum(np.abs(slopes[i] * direction))) + 1e-15
            measured = []
            for h in STEPS:
                measured.append(_central(partial(along, i, direction), h))
                if abs(measured[-1] - told) <= room + 1e-14 * size / h:
                    break
            else:
                raise CheckError(
                    f"{self.name}: the gradient of {self._input(i)} says {told:.9g} along a "
                    f"direction in which the value changes by {measured[1]:.9g}: the rule "
                    f"or the NumPy kernel, which is the oracle, is wrong   ({self})"
                )

    def _input(self, i: int) -> str:
        op = self.function
        if isinstance(op, Op) and not op.variadic and i < len(op.ins):
            return f"'{op.ins[i].name}'"
        return f"input {i}"

    def __str__(self) -> str:
        shapes = ["None" if a is None else str(a.shape) for a in self.arrays]
        return ", ".join(shapes + [f"{k}={v!r}" for k, v in self.shown.items()])


def _listed(found: Any) -> list[Tensor]:
    return list(found) if isinstance(found, tuple | list) else [found]


def _tensors(arrays: Arrays, asked: Sequence[int]) -> list[Any]:
    host = get("numpy")
    tensors = [None if a is None else tensor_on(host, a) for a in arrays]
    for i in asked:
        t = tensors[i]
        if t is not None:
            t.requires_grad = True
    return tensors


def _slopes(
    outs: Sequence[Tensor], tensors: Sequence[Any], weights: Sequence, asked: Sequence[int]
) -> dict[int, np.ndarray]:
    """d<weights, outs>/dx for every input that is asked for."""
    host = get("numpy")
    live = [(y, tensor_on(host, w)) for y, w in zip(outs, weights, strict=True) if y.requires_grad]
    xs = [tensors[i] for i in asked]
    if not live or not xs:
        return {i: np.zeros(tensors[i].shape) for i in asked}
    found = grad([y for y, _ in live], xs, [w for _, w in live])
    return {i: g.numpy() for i, g in zip(asked, found, strict=True)}


def _central(value: Callable[[float], float], h: float) -> float:
    """The slope at 0, from two central differences, whose errors of order h^2 cancel."""
    wide = (value(h) - value(-h)) / (2 * h)
    narrow = (value(h / 2) - value(-h / 2)) / h
    return (4 * narrow - wide) / 3
