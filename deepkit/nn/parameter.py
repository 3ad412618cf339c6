"""Parameters: lazy until they are touched, and then neighbours in one flat piece of memory.

A model's parameters are born together in an arena, one after the other, each on a cache line of
its own; beside it lies a second piece of memory for their gradients, in the same order:

    weights    [ conv1.weight |conv1.bias| conv2.weight  |conv2.bias| ... ]
    gradients  [ d conv1.weight | ...                                     ]

So one call of an optimiser moves all weights, and one message carries all gradients.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..backends import ALIGNMENT, Backend, current
from ..random import host_generator
from ..spellings import missing
from ..tape import Buffer, Log, Tensor, mode

Draw = Callable[[tuple[int, ...], np.random.Generator, np.dtype], np.ndarray]


class Flat:
    """A piece of memory of one dtype, zeros at first, of which tensors show parts."""

    def __init__(self, backend: Backend, dtype: np.dtype, size: int) -> None:
        nbytes = size * dtype.itemsize
        self.backend, self.dtype, self.memory = backend, dtype, backend.memory(nbytes)
        self.buffer = Buffer()
        self.buffer.birth = 0  # state, also where a capture was the first to touch it
        whole = self.part(0, (size,))
        backend.write(whole.array, np.zeros(size, dtype))

    def part(self, start: int, shape: tuple[int, ...]) -> Tensor:
        """The tensor of `shape` whose first element is element `start`."""
        memory = self.memory[start * self.dtype.itemsize :]
        array = self.backend.view(memory, shape, self.dtype)
        return Tensor(array, self.backend, shape, self.dtype, None, self.buffer)


class Arena:
    """The flat memory of parameters of one device and dtype, and that of their gradients."""

    def __init__(self, params: Sequence[Parameter]) -> None:
        first = params[0]
        line = ALIGNMENT // first.dtype.itemsize
        ends = np.cumsum([-(-p.size // line) * line for p in params]).tolist()
        self.starts, self.size = [0, *ends], ends[-1]
        self.weights = Flat(first.backend, first.dtype, self.size)
        self.gradients: Flat | None = None
        parts = [
            self.weights.part(start, p.shape) for p, start in zip(params, self.starts, strict=False)
        ]
        for p, part in zip(params, parts, strict=True):
            part.backend.write(part.array, p.initial())
        for i, (p, part) in enumerate(zip(params, parts, strict=True)):  # from here nothing fails
            p.array, p.buffer, p.arena, p.index, p.draw = part.array, part.buffer, self, i, None

    def gradient_memory(self) -> Flat:
        """Zeros before the first backward pass; not made at all for a model that never has one."""
        if self.gradients is None:
            self.gradients = Flat(self.weights.backend, self.weights.dtype, self.size)
        return self.gradients


class Parameter(Tensor):
    """A leaf that is trained: `Parameter(values)`, or `Parameter(shape, init)` for drawn values.

    With `init` (see `nn.init`) it holds no memory until it is first touched, or until its module is
    first called, given to an optimiser or asked for its state.  Its random numbers are reserved at
    once, so its values do not depend on when that happens.  float32 unless `dtype` or the values
    say otherwise; on the device in force where it was made.
    """

    # `array`, `buffer` and `_grad` of Tensor stay unset until they are needed: Python then calls
    # __getattr__, and afterwards never again.
    __slots__ = ("arena", "draw", "index", "rng")

    arena: Arena | None
    draw: Draw | None
    _grad: Any

    def __init__(self, values: Any, init: Any = None, *, dtype: Any = None) -> None:
        self.rng = host_generator()
        if init is None:
            fixed = _host(values, dtype)
            self._bare(fixed.shape, fixed.dtype, current(), lambda *_: fixed)
            if isinstance(values, Tensor):
                self.backend = values.backend
        else:
            shape = (values,) if isinstance(values, int | np.integer) else values
            shape = tuple(int(d) for d in shape)
            if any(d < 1 for d in shape):
                raise ValueError(
                    f"Parameter: every length of a shape must be positive, not {shape}"
                )
            found = np.dtype(dtype or np.float32)
            self._bare(shape, found, current(), getattr(init, "draw", init))
        if self.dtype.kind != "f":
            raise TypeError(f"Parameter: expected float values, not {self.dtype}")

    def _bare(self, shape: tuple[int, ...], dtype: np.dtype, backend: Backend, draw: Draw) -> None:
        self.backend, self.shape, self.dtype, self.draw = backend, shape, dtype, draw
        self.layout = self.call = self.twin = None
        self.arena = None
        self._requires_grad, self._has_grad, self.index = True, False, 0

    def __getattr__(self, name: str) -> Any:
        if name in ("array", "buffer") and self.arena is None:
            materialise([self])
        elif name == "_grad":
            if self.arena is None:
                materialise([self])
            assert self.arena is not None
            memory = self.arena.gradient_memory()
            self._grad = memory.part(self.arena.starts[self.index], self.shape)
        else:
            missing(self, name)
        return getattr(self, name)

    @property
    def is_lazy(self) -> bool:
        """Whether it still holds no memory."""
        return self.arena is None

    def initial(self) -> np.ndarray:
        """The values with which it is born."""
        assert self.draw is not None
        values = np.asarray(self.draw(self.shape, self.rng, self.dtype))
        if values.shape != self.shape:
            raise ValueError(
                f"Parameter: the initialiser gave shape {values.shape} instead of {self.shape}"
            )
        return values.astype(self.dtype, copy=False)

    def redraw(self, draw: Draw) -> None:
        """Take new values: now if there is memory, otherwise at birth."""
        self.rng = host_generator()
        if self.arena is None:
            self.draw = draw
        else:
            self.write(draw(self.shape, self.rng, self.dtype))

    def release(self, backend: Backend, dtype: np.dtype) -> None:
        """Become lazy again, with the present values, on another device or of another dtype."""
        if self.arena is not None:
            values = self.numpy()
            self.draw, self.arena = lambda *_: values, None
            del self.array, self.buffer
            with contextlib.suppress(AttributeError):  # it may never have been needed
                del self._grad
        self.backend, self.dtype, self.twin, self._has_grad = backend, dtype, None, False
        Log.changed()  # programs that read the old memory hold no longer

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        twin = Parameter.__new__(Parameter)
        memo[id(self)] = twin
        twin.rng = copy.deepcopy(self.rng)
        if self.draw is not None:
            twin._bare(self.shape, self.dtype, self.backend, self.draw)
        else:
            values = self.numpy()
            twin._bare(self.shape, self.dtype, self.backend, lambda *_: values)
        twin._requires_grad = self._requires_grad
        return twin

    def __repr__(self) -> str:
        if self.arena is None:
            return f"<parameter {self.shape} {self.dtype} on '{self.device}', without memory yet>"
        return super().__repr__().replace("tensor", "parameter", 1)


def _host(values: Any, dtype: Any) -> np.ndarray:
    """A copy on the host; floats become float32 unless an array or `dtype` says otherwise."""
    array = np.array(values.numpy() if isinstance(values, Tensor) else values)
    if dtype is not None:
        return array.astype(dtype)
    typed = isinstance(values, Tensor | np.ndarray | np.generic)
    return array if typed and array.dtype.kind == "f" else array.astype(np.float32)


def materialise(params: Iterable[Tensor]) -> None:
    """Give those that are still lazy their memory: one arena for each device and dtype."""
    kinds: dict[tuple[str, np.dtype], dict[int, Parameter]] = {}
    for p in params:
        if isinstance(p, Parameter) and p.arena is None:
            kinds.setdefault((p.backend.name, p.dtype), {})[id(p)] = p
    for found in kinds.values():
        Arena(list(found.values()))


def rebind(params: Iterable[Parameter], backend: Backend | None, dtype: np.dtype | None) -> None:
    """Move parameters, and the gradients that they have, to a device or a dtype, together."""
    moving = [
        p
        for p in params
        if (backend or p.backend) is not p.backend or (dtype or p.dtype) != p.dtype
    ]
    held = [p for p in moving if p.arena is not None]
    gradients = [(p, p.grad.numpy()) for p in held if p.grad is not None]
    for p in moving:
        p.release(backend or p.backend, dtype or p.dtype)
    materialise(held)
    for p, g in gradients:
        p.own_grad().write(g)


# runs ---------------------------------------------------------------------------------------------


class Run:
    """Tensors that lie side by side, and so can be read and written as one.

    A run of parameters is a part of their arena; any other tensor is a run of its own.
    """

    def __init__(self, params: Sequence[Tensor]) -> None:
        self.params = list(params)
        first, last = self.params[0], self.params[-1]
        self.arena = first.arena if isinstance(first, Parameter) else None
        if isinstance(first, Parameter) and isinstance(last, Parameter) and self.arena is not None:
            self.start = self.arena.starts[first.index]
            self.shape: tuple[int, ...] = (self.arena.starts[last.index + 1] - self.start,)
            self.weights = self.arena.weights.part(self.start, self.shape)
            self._gradients: Tensor | None = None
        else:
            self.start, self.shape, self.weights = 0, first.shape, first

    @property
    def gradients(self) -> Tensor:
        """The gradients of all of them as one tensor."""
        if self.arena is None:
            owner: Any = self.params[0]
            if owner._grad is None:
                had = owner._has_grad
                owner.own_grad()
                owner._has_grad = had
            return owner._grad
        if self._gradients is None:
            self._gradients = self.arena.gradient_memory().part(self.start, self.shape)
        return self._gradients

    @property
    def moved(self) -> bool:
        """Whether a parameter got other memory since."""
        return any(isinstance(p, Parameter) and p.arena is not self.arena for p in self.params)

    def offset(self, p: Tensor) -> int:
        """Where a parameter starts in the run, in elements."""
        if self.arena is None or not isinstance(p, Parameter):
            return 0
        return self.arena.starts[p.index] - self.start


def runs(params: Iterable[Tensor]) -> list[Run]:
    """The fewest runs that hold these tensors, in their order; gives lazy ones their memory."""
    given = list(params)
    materialise(given)
    groups: list[list[Tensor]] = []
    for p in given:
        before = groups[-1][-1] if groups else None
        if (
            isinstance(p, Parameter)
            and isinstance(before, Parameter)
            and before.arena is p.arena
            and before.index + 1 == p.index
        ):
            groups[-1].append(p)
        else:
            groups.append([p])
    return [Run(group) for group in groups]


def zero_gradients(found: Iterable[Run]) -> None:
    """As if no backward pass had been: the memory stays, and the next one overwrites it."""
    for run in found:
        for p in run.params:
            p.has_grad = False
            if mode.log is not None:
                mode.log.graded[id(p)] = p
