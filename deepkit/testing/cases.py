"""What a kernel is run on: normalised inputs and parameters, from samples or from a backward pass.

A card's `Sample` says shapes and options as users write them; a `Case` is what is left after the
public function has read them: the arrays and the static parameters that a kernel receives.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from .. import random
from ..backends import get
from ..card import Draw, Sample, integers, sample
from ..ops.common import tensor_on
from ..tape import Log, Op, Tensor, enable_grad, grad, mode, no_grad, registry

Arrays = list[np.ndarray | None]

# Ops that the tape and the optimisers use on memory, or that only arrange a call of another op:
# a card for people, without samples of its own.
PLUMBING: dict[str, tuple[Sample, ...]] = {
    "fill_": (sample((4, 3), value=2.5), sample((), value=0.0)),
    "assign_": (sample((4, 3), (4, 3)), sample((17, 2, 3), (17, 2, 3))),
    "accumulate_": (sample((4, 3), (4, 3)), sample((17, 2, 3), (17, 2, 3))),
    "zeros_like": (sample((4, 3)), sample(())),
    "join": (
        sample((2, 3), (4, 3), (1, 3), axis=0),
        sample((4, 2, 3), (4, 1, 3), axis=1),
        sample((17, 3), (17, 2), axis=1),
    ),
    "concat": (sample((2, 3), (4, 3), axis=0), sample((4, 2), (4, 1), (4, 3), axis=-1)),
    "stack": (sample((2, 3), (2, 3), axis=0), sample((2, 3), (2, 3), (2, 3), axis=-1)),
    "to": (sample((4, 3), "numpy"),),
    "next_key_": (sample(integers(2, high=2**31)),),
}


class Case(NamedTuple):
    """One launch: an op, the arrays that its kernel reads, its parameters."""

    op: Op
    ins: Arrays
    params: dict[str, Any]

    def __str__(self) -> str:
        names = [o.name for o in self.op.ins]
        if self.op.variadic:
            names = [f"{names[0]}{i}" for i in range(len(self.ins))]
        shown = [
            f"{n} {None if a is None else a.shape}" for n, a in zip(names, self.ins, strict=True)
        ]
        shown += [f"{k}={v!r}" for k, v in self.params.items()]
        return ", ".join(shown)


def shapes_of(arrays: Arrays) -> list[Any]:
    return [None if a is None else a.shape for a in arrays]


def dtypes_of(arrays: Arrays) -> list[Any]:
    return [None if a is None else a.dtype for a in arrays]


def op_of(op: Op | str) -> Op:
    if isinstance(op, Op):
        return op
    if op not in registry:
        raise ValueError(f"there is no op {op!r}   (dk.ops holds those there are)")
    return registry[op]


def samples_of(op: Op | str) -> tuple[Sample, ...]:
    """The samples of a card that are for tests."""
    op = op_of(op)
    samples = op.samples or PLUMBING.get(op.name, ())
    return tuple(s for s in samples if not s.bench)


def is_tensor(op: Op, given: Sample) -> list[bool]:
    """For each positional argument of a sample, whether it is a tensor or a plain value.

    `layer_norm(x, shape, gamma)` has a plain value between two operands, which the names tell;
    where a card names its operands otherwise than its function does, the operands come first.
    """
    if op.variadic:
        return [isinstance(a, Draw | tuple) for a in given.args]
    operands = [o.name for o in op.ins]
    names = list(inspect.signature(op.prepare).parameters)[: len(given.args)]
    if set(operands[:1]) <= set(names):
        return [n in operands for n in names]
    return [i < len(operands) for i in range(len(given.args))]


def drawn(op: Op, given: Sample, rng: np.random.Generator, dtype: Any) -> Arrays:
    """Fresh random arrays for the tensors of a sample."""
    chosen = zip(given.args, is_tensor(op, given), strict=True)
    return Sample(tuple(a for a, tensor in chosen if tensor), {}).arrays(rng, dtype)


def arguments(op: Op, given: Sample, tensors: Sequence[Any]) -> list[Any]:
    """The positional arguments of a call: `tensors`, and the plain values of the sample."""
    rest = iter(tensors)
    mask = is_tensor(op, given)
    args = [next(rest) if tensor else a for a, tensor in zip(given.args, mask, strict=True)]
    first = next(iter(inspect.signature(op.prepare).parameters.values()))
    if op.variadic and first.kind is not first.VAR_POSITIONAL:  # concat([...], axis)
        return [args[: sum(mask)], *args[sum(mask) :]]
    return args


def call(op: Op, given: Sample, tensors: Sequence[Any]) -> tuple[Tensor, ...]:
    """The op as a user calls it -> its results, one or several."""
    found = op(*arguments(op, given, tensors), **given.params)
    return tuple(found) if isinstance(found, tuple | list) else () if found is None else (found,)


def fixed(arrays: Sequence[Any], params: dict[str, Any]) -> Sample:
    """A sample that draws these arrays; float ones are cast to the type under test."""

    def one(a: np.ndarray) -> Draw:
        return Draw(a.shape, lambda rng, shape: a, cast=a.dtype.kind == "f")

    return Sample(tuple(None if a is None else one(np.asarray(a)) for a in arrays), params)


def case_of(op: Op, given: Sample, rng: np.random.Generator, dtype: Any) -> Case:
    """What the kernel of an op (no composite one) gets for a sample."""
    host = get("numpy")
    tensors = [None if a is None else tensor_on(host, a) for a in drawn(op, given, rng, dtype)]
    with seeded(rng), no_grad():
        ins, params = op.prepare(*arguments(op, given, tensors), **given.params)
        arrays = [None if t is None else t.numpy() for t in ins]
        op.shape(*shapes_of(arrays), **params)
    return Case(op, arrays, params)


@contextmanager
def seeded(rng: np.random.Generator | int) -> Iterator[None]:
    """deepkit's own random numbers start from `rng` in here, and go on as before afterwards."""
    before = random.get_state()
    random.seed(rng if isinstance(rng, int) else int(rng.integers(2**31)))
    try:
        yield
    finally:
        random.set_state(before)


def launched(op: Op, given: Sample, rng: np.random.Generator, dtype: Any) -> list[Case]:
    """Every kernel that an op and its gradient launch for a sample, on what they were given.

    This is how gradient kernels meet random shapes, which could not be drawn for them alone.
    """
    host = get("numpy")
    tensors: list[Tensor | None] = []
    for a in drawn(op, given, rng, dtype):
        t = None if a is None else tensor_on(host, a)
        tensors.append(t)
        if t is not None and t.dtype.kind == "f":
            t.requires_grad = True
    _leave_inplace(op, tensors)
    with seeded(rng), enable_grad():
        mode.log = log = Log()
        try:
            outs = [t for t in call(op, given, tensors) if t.requires_grad]
            asked = [t for t in tensors if t is not None and t.requires_grad]
            if outs and asked:
                weights = [tensor_on(host, rng.standard_normal(t.shape), t.dtype) for t in outs]
                grad(outs, asked, weights)
        finally:
            mode.log = None
    return _unlike(log)


def _leave_inplace(op: Op, tensors: Sequence[Tensor | None]) -> None:
    for i in op.inplace:
        t = tensors[i]
        if t is not None and t.requires_grad:
            t.requires_grad = False


def _unlike(log: Log) -> list[Case]:
    """The launches of a log, those that differ in nothing but values left out."""
    found: dict[Any, Case] = {}
    for launch in log.launches:
        ins: Arrays = [None if t is None else np.array(t.array) for t in launch.ins]
        key = (
            launch.name,
            tuple(None if a is None else (a.shape, a.dtype) for a in ins),
            tuple(launch.params.items()),
        )
        found.setdefault(key, Case(registry[launch.name], ins, launch.params))
    return list(found.values())
