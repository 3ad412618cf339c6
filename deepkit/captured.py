"""Capture: a function of tensors that is run once for each kind of arguments, and then replayed."""

from __future__ import annotations

import copy
import functools
import threading
import types
import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from .backends import algorithms, current, current_precision
from .fusion import chosen
from .nested import rebuilt
from .ops.common import tensor_on
from .program import Program, is_state
from .tape import CaptureError, Log, Tensor, mode, registry
from .words import counted

MANY_PROGRAMS = 32  # more of them for one step: something that should be a tensor is a number


def _key(tree: Any, found: list[Tensor]) -> Any:
    """What a program holds for: tensors by shape, dtype, layout and device, the rest by value.

    `found` gets the tensors, in order; NumPy arrays become some, so that replays see their values.
    """
    if isinstance(tree, list | tuple):
        return (type(tree), *[_key(v, found) for v in tree])
    if isinstance(tree, dict):
        return (dict, *[(k, _key(v, found)) for k, v in tree.items()])
    if isinstance(tree, np.ndarray):
        tree = tensor_on(current(), tree)
    if isinstance(tree, Tensor):
        for number, before in enumerate(found):
            if before is tree:  # given twice, so what happens to one of them happens to both
                return ("again", number)
        found.append(tree)
        if is_state(tree):
            return (tree.backend.name, tree.dtype, tree)  # equal as a key if it is the same one
        grads = tree._requires_grad, tree._has_grad
        return (tree.shape, tree.dtype, tree.layout, tree.backend.name, *grads)
    if isinstance(tree, float):
        return (float, tree.hex())  # which tells 0.0 from -0.0, and finds NaN again
    try:
        hash(tree)
    except TypeError:
        raise CaptureError(
            f"a captured step takes tensors, arrays, numbers and hashable objects, not "
            f"{type(tree).__name__}"
        ) from None
    return (type(tree), tree)


def capture(
    step: Callable[..., Any] | None = None, *, fuse: bool | str | Collection[str] = True
) -> Any:
    """`step = dk.capture(step)`, or `@dk.capture`: the same numbers, replayed.

    `step` is a function of tensors (also in tuples, lists and dictionaries), NumPy arrays, numbers
    and other hashable objects, for training or for inference.  The first call with new shapes,
    dtypes, device, numbers, train/eval mode, algorithms (`dk.using`) or precision runs it as it
    stands and notes what runs; the next ones replay that.  What changes between steps must live in
    tensors, not in Python: optimisers, dropout, batch normalisation and random draws of deepkit do.
    Results are copied out.

    A step with a backward pass, or one that changes anything in place, gives the bits of the eager
    one.  In others, inference, batch norms are folded into the filters before them, and a few
    images take Winograd's convolution where that is faster, both with the same bits in every call;
    `fuse="exact"` leaves out what rounds otherwise than the eager step.

    fuse: which passes make the list of launches shorter (True: all, "exact": those that change no
    bit, False: none, or their names, see `fusion.py` and `inference.py`).

    Errors: CaptureError where the step reads a value on the host, writes one from it, or changes
    devices.  What an op says of the values of labels and indices is said on replays too, before
    anything is changed, where the values come from outside of the step.

    `.programs`, printed, is a line for each program; `.dump()` tells all of them whole.
    """
    names = chosen(fuse)
    if step is not None and not callable(step):
        raise TypeError(f"capture: expected a function, not {step!r}")
    return (lambda own: Captured(own, names)) if step is None else Captured(step, names)


class Programs(dict[Any, list[Program]]):
    """What a step was captured for, by shapes, dtypes, device and mode; a line for each as text."""

    def __repr__(self) -> str:
        return "\n".join(p.line for found in self.values() for p in found) or "no programs yet"


class Captured:
    """A step that `capture` replays; a method, where the step is one."""

    def __init__(self, step: Callable[..., Any], fuse: Collection[str] = ()) -> None:
        functools.update_wrapper(self, step, updated=())
        self.step, self.programs, self.lock = step, Programs(), threading.Lock()
        self.fuse = fuse

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if mode.log is not None:
            return self.step(*args, **kwargs)  # inside another capture: part of it
        arguments: list[Tensor] = []
        settings = (mode.grad, current().name, algorithms(), current_precision())
        key = (_key((args, kwargs), arguments), *settings)
        with self.lock:
            for program in self.programs.get(key, ()):
                if program.holds():
                    return _replay(program, arguments)
            known = self.programs.setdefault(key, [])
            result, program = _record(self.step, (args, kwargs), arguments, self.fuse)
            program.line = _line(program, (args, kwargs))
            known.append(program)
            count = sum(map(len, self.programs.values()))
        if count == MANY_PROGRAMS:
            warnings.warn(
                f"{getattr(self.step, '__name__', 'a step')} was captured {count} times; a number "
                "that changes from call to call should be passed as a tensor",
                stacklevel=2,
            )
        return result

    def __reduce__(self) -> str:
        return self.step.__qualname__  # as functions are pickled: by the name of their place

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else types.MethodType(self, owner)

    def __deepcopy__(self, memo: dict[int, Any]) -> Captured:
        # the method of a copied model is its own
        return Captured(copy.deepcopy(self.step, memo), self.fuse)

    def dump(self) -> str:
        """What runs in every program, where in memory, and how good its plan is."""
        return "\n\n".join(p.dump() for found in self.programs.values() for p in found)

    def __repr__(self) -> str:
        name = getattr(self.step, "__name__", type(self.step).__name__)
        return f"<captured {name}>\n{self.programs}"


def _line(program: Program, given: Any) -> str:
    """For which arguments and in which mode a program is, and how large it is."""
    told: list[str] = []
    rebuilt(given, lambda t: told.append(str(t.shape)))
    rebuilt(given, lambda value: told.append(repr(value)), int | float | str)
    modes = {value for _, name, value in program.guards if name == "training"}
    told += ["training"] * (True in modes) + ["eval"] * (False in modes)
    told += ["no_grad"] * (not mode.grad) + [f"on '{program.backend.name}'"]
    size = f"{counted(len(program.lines), 'launch')}, arena {program.peak:,} B"
    return f"{', '.join(told)}: {size}"


def _record(
    step: Callable[..., Any], given: Any, arguments: Sequence[Tensor], fuse: Collection[str]
) -> tuple[Any, Program]:
    def own(t: Tensor) -> Tensor:
        """Replays read their arguments from memory of the program; parameters are state."""
        if t.requires_grad and not t.is_leaf:
            raise CaptureError(
                f"an argument of shape {t.shape} has a history, which a replay could not follow "
                "back; pass x.detach(), or compute it inside of the step"
            )
        mine = t
        if not is_state(t):
            mine = Tensor(t.backend.copy(t.array), t.backend, t.shape, t.dtype, t.layout)
            mine._requires_grad = t.requires_grad
        return mine

    inputs = [own(t) for t in arguments]
    left, known = iter(inputs), {}

    def placed(leaf: Any) -> Tensor:
        """The input that stands for a leaf: they come in order, and a tensor again if again."""
        if isinstance(leaf, np.ndarray):
            return next(left)
        if id(leaf) not in known:
            known[id(leaf)] = next(left)
        return known[id(leaf)]

    args, kwargs = rebuilt(given, placed, Tensor | np.ndarray)
    _gradients_in(inputs, arguments)
    log = mode.log = Log()
    try:
        result = step(*args, **kwargs)
    finally:
        mode.log = None
    _check_result(result)
    program = Program(log, inputs, result, fuse)
    first = program(arguments) if program.rounds else program.first_result()
    _hand_over(program, arguments)
    return first, program


def _replay(program: Program, arguments: Sequence[Tensor]) -> Any:
    program.look(arguments)
    if program.passes_gradients:
        _gradients_in(program.inputs, arguments)
    result = program(arguments)
    if program.passes_gradients or program.changes_inputs:
        _hand_over(program, arguments)
    return result


def _gradients_in(inputs: Sequence[Tensor], arguments: Sequence[Tensor]) -> None:
    """The program's own inputs begin with the gradients that the arguments have."""
    for mine, given in zip(inputs, arguments, strict=True):
        if mine is given or not given.requires_grad:
            continue
        if given.grad is not None:
            registry["assign_"](mine.own_grad(), given.grad)
        elif mine.grad is not None:
            mine.grad = None


def _hand_over(program: Program, arguments: Sequence[Tensor]) -> None:
    """What the step did to the program's own inputs happens to the arguments."""
    written = {id(buffer) for buffer in program.written}
    for mine, given in zip(program.inputs, arguments, strict=True):
        if mine is given:
            continue
        if id(mine.buffer) in written:
            given.backend.copy_into(given.array, mine.array)
            given.buffer.version += 1
        if given.requires_grad and mine.grad is not None:
            registry["assign_"](given.own_grad(), mine.grad)


def _check_result(tree: Any) -> None:
    """Only what is known to hold no tensors may come out beside them."""
    if isinstance(tree, list | tuple):
        for value in tree:
            _check_result(value)
    elif isinstance(tree, dict):
        for value in tree.values():
            _check_result(value)
    elif not isinstance(tree, Tensor | str | bytes | bool | int | float | None):
        raise CaptureError(
            f"a captured step returns tensors and numbers, also in tuples, lists and dictionaries, "
            f"not {type(tree).__name__}"
        )
