"""Module: a function with state, put together from others."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from ..backends import Backend, current, get
from ..ops.common import checked_dtype, tensor_on
from ..spellings import missing, nothing, refuse
from ..tape import CaptureError, Log, Tensor, mode
from .parameter import Parameter, materialise, rebind, runs, zero_gradients

M = TypeVar("M", bound="Module")


class Differences(NamedTuple):
    """What a state dictionary and a module do not share."""

    missing: list[str]
    unexpected: list[str]


class Hook:
    """A function that runs with every call of a module, until `remove()`."""

    def __init__(self, module: Module, table: str, function: Callable) -> None:
        self.module, self.table, self.function = module, table, function
        setattr(module, table, (*getattr(module, table), self))

    def remove(self) -> None:
        left = tuple(h for h in getattr(self.module, self.table) if h is not self)
        setattr(self.module, self.table, left)


class Module:
    """The base of all layers and models: write `forward`, and what it needs as attributes.

        class Net(dk.nn.Module):
            def __init__(self):
                self.hidden = dk.nn.Linear(784, 100)
                self.out = dk.nn.Linear(100, 10)

            def forward(self, x):
                return self.out(self.hidden(x).relu())

    Attributes that are parameters or modules, or lists, tuples or dictionaries of them, belong to
    the module, in the order of their definition; `register_buffer` adds state that is not trained.
    """

    # Defaults on the class, so that a subclass need not call super().__init__().
    _training = True
    _settled = False  # whether its parameters have been given memory together
    _version = 0  # changes of anything that a captured step would not see
    _buffer_names: tuple[str, ...] = ()
    _hooks: tuple[Hook, ...] = ()
    _pre_hooks: tuple[Hook, ...] = ()

    def __new__(cls, *args: Any, **options: Any) -> Any:
        if args or options:
            init = nothing if cls.__init__ is object.__init__ else cls.__init__
            refuse(cls.__name__, init, (None, *args), options)
        return super().__new__(cls)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; subclasses write it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._settled:
            self.materialise()
        if mode.log is not None:
            mode.log.depends(self, "_version", self._version)
            for value in vars(self).values():
                mode.log.walks(value)
        for hook in self._pre_hooks:
            hook.function(self, args)
        y = self.forward(*args, **kwargs)
        for hook in self._hooks:
            replaced = hook.function(self, args, y)
            y = y if replaced is None else replaced
        return y

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            missing(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        parts = isinstance(value, Module | Parameter)
        if parts:
            self.__dict__["_settled"] = False
            if isinstance(self.__dict__.get(name), Module | Parameter):
                Log.structure += 1  # no program knows by which way its step came to this part
        if parts or mode.log is None:  # what `forward` sets while it is captured is its own affair
            self._changed()
        if name in self._buffer_names and not isinstance(value, Tensor):
            raise TypeError(f"{name} is a buffer: expected a tensor, not {type(value).__name__}")
        if name in self._buffer_names and mode.log is not None and hasattr(self, name):
            raise CaptureError(
                f"the buffer '{name}' was bound to another tensor while a step was being captured, "
                f"which no replay would do; write into it: dk.ops.assign_(self.{name}, ...)"
            )
        super().__setattr__(name, value)

    def _changed(self) -> None:
        self.__dict__["_version"] = self._version + 1
        Log.changed()

    # what it holds ----------------------------------------------------------------------------
    def _members(self, kind: type) -> Iterator[tuple[str, Any]]:
        for name, value in vars(self).items():
            yield from _inside(name, value, kind)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules right below this one."""
        yield from self._members(Module)

    def children(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, each once, a parent before its children."""
        seen: set[int] = set()

        def walk(module: Module, name: str) -> Iterator[tuple[str, Module]]:
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module
                for child_name, child in module.named_children():
                    yield from walk(child, f"{name}.{child_name}" if name else child_name)

        yield from walk(self, prefix)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def _named(
        self, own: Callable[[Module], Iterable[tuple[str, Any]]]
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, value in own(module):
                if id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{prefix}.{name}" if prefix else name), value

    def _own_parameters(self) -> Iterator[tuple[str, Parameter]]:
        return self._members(Parameter)

    def _own_buffers(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, getattr(self, name)) for name in self._buffer_names)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters by their names, such as "conv1.weight"; a shared one once."""
        return self._named(Module._own_parameters)

    def parameters(self) -> Iterator[Parameter]:
        return (p for _, p in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """State that is not trained, such as "bn1.running_mean"."""
        return self._named(Module._own_buffers)

    def buffers(self) -> Iterator[Tensor]:
        return (b for _, b in self.named_buffers())

    def register_buffer(self, name: str, values: Any) -> Tensor:
        """Add state that is saved with the module and moves with it, but is not trained."""
        tensor = values if isinstance(values, Tensor) else tensor_on(current(), values)
        self._buffer_names = (*self._buffer_names, name)
        setattr(self, name, tensor)
        return tensor

    # memory -----------------------------------------------------------------------------------
    def materialise(self: M) -> M:
        """Give all parameters that have none yet their memory, side by side."""
        materialise(self.parameters())
        self.__dict__["_settled"] = True
        return self

    def to(self: M, device: str | Backend) -> M:
        """Move parameters, their gradients and buffers to a device, in place; returns the module.

        Parameters stay the same objects, so optimisers that hold them move along.
        """
        return self._move(get(device), None)

    def astype(self: M, dtype: Any) -> M:
        """Turn parameters, their gradients and float buffers into "float32" or "float64"."""
        found = checked_dtype(dtype)
        if found.kind != "f":
            raise TypeError(f"astype: a module's parameters must be floats, not {found}")
        return self._move(None, found)

    def _move(self: M, backend: Backend | None, dtype: np.dtype | None) -> M:
        if mode.log is not None:
            raise CaptureError("a module was moved while a step was being captured; do it outside")
        rebind(self.parameters(), backend, dtype)
        for b in self.buffers():
            kind = dtype if dtype is not None and b.dtype.kind == "f" else b.dtype
            moved = tensor_on(backend or b.backend, b.numpy(), kind)
            b.array, b.backend, b.dtype = moved.array, moved.backend, moved.dtype
            b.buffer, b.twin = moved.buffer, None
        for module in self.modules():
            module._changed()
        return self

    def zero_grad(self) -> None:
        """As if no backward pass had been: every `.grad` is None again."""
        zero_gradients(runs(self.parameters()))

    def requires_grad_(self: M, on: bool = True) -> M:
        """Whether its parameters are trained, all at once."""
        for p in self.parameters():
            p.requires_grad = on
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Module:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update({k: copy.deepcopy(v, memo) for k, v in vars(self).items()})
        twin.__dict__["_settled"] = False
        return twin

    # state ------------------------------------------------------------------------------------
    def _named_state(self) -> dict[str, Tensor]:
        """Parameters and buffers by their names, module by module."""
        own = lambda m: itertools.chain(m._own_parameters(), m._own_buffers())  # noqa: E731
        return dict(self._named(own))

    def state_dict(self) -> dict[str, np.ndarray]:
        """{name: values} of all parameters and buffers, as copies on the host."""
        self.materialise()
        return {name: t.numpy() for name, t in self._named_state().items()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> Differences:
        """Take all values from {name: array or tensor}, cast to the module's dtypes.

        strict: names that are missing or not known are errors; otherwise they are returned.
        ValueError, and nothing is changed, if the dictionary does not fit.
        """
        own = self._named_state()
        differences = Differences(
            [name for name in own if name not in state], [name for name in state if name not in own]
        )
        values = {name: _on_host(state[name]) for name in own if name in state}
        problems = [
            f"'{name}' has shape {v.shape} where {own[name].shape} is expected"
            for name, v in values.items()
            if v.shape != own[name].shape
        ]
        problems += [
            f"'{name}' holds {v.dtype}, which are no numbers"
            for name, v in values.items()
            if v.dtype.kind not in "fiub"
        ]
        if strict:
            problems += [f"'{name}' is missing" for name in differences.missing]
            problems += [f"'{name}' is not known here" for name in differences.unexpected]
        if problems:
            more = f", and {len(problems) - 3} more such" if len(problems) > 3 else ""
            raise ValueError(f"load_state_dict: {', '.join(problems[:3])}{more}")
        for name, v in values.items():
            t = own[name]
            if isinstance(t, Parameter) and t.is_lazy:
                t.draw = _given(v)
            else:
                t.write(v)
        self.materialise()
        return differences

    # behaviour --------------------------------------------------------------------------------
    @property
    def training(self) -> bool:
        """Whether dropout drops and batch normalisation uses the batch.  Setting it is `train(on)`:
        it switches all modules below as well."""
        if mode.log is not None:
            mode.log.depends(self, "training", self._training)
        return self._training

    @training.setter
    def training(self, on: bool) -> None:
        self.train(on)

    def train(self: M, on: bool = True) -> M:
        """Switch this module and all below it to training (or not)."""
        for module in self.modules():
            module.__dict__["_training"] = bool(on)
        Log.changed()
        return self

    def eval(self: M) -> M:
        """Switch this module and all below it to inference."""
        return self.train(False)

    def apply(self: M, function: Callable[[Module], Any]) -> M:
        """Run `function` on every module below this one, children first, and on it itself."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def register_forward_hook(self, function: Callable[[Module, tuple, Any], Any]) -> Hook:
        """Run `function(module, inputs, output)` after every call; what it returns, if anything,
        replaces the output.  `.remove()` of the result ends that."""
        return Hook(self, "_hooks", function)

    def register_forward_pre_hook(self, function: Callable[[Module, tuple], Any]) -> Hook:
        """Run `function(module, inputs)` before every call, until `.remove()` of the result."""
        return Hook(self, "_pre_hooks", function)

    # as text ----------------------------------------------------------------------------------
    def extra_repr(self) -> str:
        """What a layer says about itself between the parentheses."""
        return ""

    def __repr__(self) -> str:
        lines = [
            f"  ({name}): " + repr(m).replace("\n", "\n  ") for name, m in self._members(Module)
        ]
        about = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({about})"
        return "\n".join([f"{type(self).__name__}({about}", *lines, ")"])


def _inside(name: str, value: Any, kind: type) -> Iterator[tuple[str, Any]]:
    """Everything of a kind in an attribute, also in lists, tuples and dictionaries."""
    if isinstance(value, kind):
        yield name, value
    elif isinstance(value, list | tuple):
        for i, element in enumerate(value):
            yield from _inside(f"{name}.{i}", element, kind)
    elif isinstance(value, dict):
        for key, element in value.items():
            yield from _inside(f"{name}.{key}", element, kind)


def _on_host(values: Any) -> np.ndarray:
    return values.numpy() if isinstance(values, Tensor) else np.asarray(values)


def _given(values: np.ndarray) -> Callable[..., np.ndarray]:
    return lambda shape, rng, dtype: values.astype(dtype, copy=False)
