"""What optimisers share: groups of parameters, state beside the weights, one call for many weights.

A group's parameters are taken as runs, neighbours in memory that move in one call (see
`nn/parameter.py`).  What changes from step to step, the learning rate and the number of the step,
lives on the device, so that a captured step replays with the value of the day.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..nn.module import Module
from ..nn.parameter import Flat, Run, materialise, runs, zero_gradients
from ..ops.common import tensor_on
from ..spellings import refuse
from ..tape import CaptureError, Log, Tensor, aside, mode


class Piece:
    """A run of parameters, its state (flat, in the same order) and the number of its step."""

    def __init__(
        self, run: Run, flats: dict[str, tuple[Flat, int]] | None = None, t: Tensor | None = None
    ) -> None:
        self.run, self.t = run, t
        self.flats = flats or {}  # name -> the memory, and where in it the run begins
        self._shown: dict[str, Tensor] = {}

    def state(self, name: str) -> Tensor:
        """The state of that name for all weights of the run; zeros at first."""
        if name not in self._shown:
            if name not in self.flats:
                w = self.run.weights
                self.flats[name] = Flat(w.backend, w.dtype, w.size), 0
            flat, start = self.flats[name]
            self._shown[name] = flat.part(start, self.run.shape)
        return self._shown[name]

    def count(self) -> Tensor:
        """The number of steps so far, int64."""
        if self.t is None:
            with aside():
                self.t = tensor_on(self.run.weights.backend, np.int64(0))
        return self.t

    def part(self, name: str, p: Tensor) -> Tensor:
        """The state of one parameter."""
        self.state(name)
        flat, start = self.flats[name]
        return flat.part(start + self.run.offset(p), p.shape)

    def split(self, keys: Sequence[Hashable]) -> list[Piece]:
        """Pieces of neighbours with equal keys; the state stays where it is."""
        pieces, paired = [], zip(keys, self.run.params, strict=True)
        for _, members in itertools.groupby(paired, key=lambda pair: pair[0]):
            params = [p for _, p in members]
            at = self.run.offset(params[0])
            flats = {name: (flat, start + at) for name, (flat, start) in self.flats.items()}
            t = self.t
            if t is not None:
                t = Tensor(t.backend.copy(t.array), t.backend, t.shape, t.dtype)
            pieces.append(Piece(Run(params), flats, t))
        return pieces


class Group:
    """Parameters with settings of their own: `group["lr"] = 0.01`, `group["weight_decay"]`."""

    def __init__(
        self, optimizer: Optimizer, params: list[Tensor], settings: dict[str, Any]
    ) -> None:
        self.optimizer, self.params, self.settings = optimizer, params, settings
        self._rates: dict[tuple[str, np.dtype], Tensor] = {}
        self._pieces: list[Piece] | None = None

    def __getitem__(self, name: str) -> Any:
        return self.params if name == "params" else self.settings[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self.settings:
            known = ", ".join(map(repr, self.settings))
            raise KeyError(f"a group has no setting {name!r}   (it has: {known})")
        self.optimizer._check({**self.settings, name: value})
        if name == "lr":
            if mode.log is not None:
                raise CaptureError(
                    "the learning rate was set while a step was being captured; a replay would "
                    "not repeat it: set it, or step the schedule, outside of the step"
                )
            for rate in self._rates.values():
                rate.write(value)
        else:
            Log.changed()
        self.settings[name] = value

    @property
    def fixed(self) -> tuple:
        """The settings that a captured step holds fixed."""
        return tuple((name, value) for name, value in self.settings.items() if name != "lr")

    def rate(self, w: Tensor) -> Tensor:
        """The learning rate on the device of these weights."""
        key = w.backend.name, w.dtype
        if key not in self._rates:
            with aside():
                self._rates[key] = tensor_on(w.backend, np.asarray(self.settings["lr"], w.dtype))
        return self._rates[key]

    def pieces(self) -> list[Piece]:
        """Where the parameters lie, with their state, which moves with them."""
        if self._pieces is None:
            self._pieces = [Piece(run) for run in runs(self.params)]
        elif any(piece.run.moved for piece in self._pieces):
            with aside():
                self.place(self.states())
        return self._pieces

    def states(self) -> list[dict[str, np.ndarray]]:
        """{name: values} for each parameter; empty before the first step."""
        found = {}
        for piece in self._pieces or []:
            count = None if piece.t is None else np.asarray(piece.t.numpy())
            for p in piece.run.params:
                own = {name: piece.part(name, p).numpy() for name in piece.flats}
                found[id(p)] = own if count is None else {**own, "t": count}
        return [found.get(id(p), {}) for p in self.params]

    def place(self, states: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Lay the pieces out anew, with the given state."""
        known = {id(p): state for p, state in zip(self.params, states, strict=True)}
        self._pieces = []
        for run in runs(self.params):
            steps = [int(known[id(p)]["t"]) if "t" in known[id(p)] else None for p in run.params]
            for piece in Piece(run).split(steps):
                for p in piece.run.params:
                    for name, values in known[id(p)].items():
                        if name == "t":
                            piece.count().write(values)
                        else:
                            piece.part(name, p).write(values)
                self._pieces.append(piece)
        self.optimizer._laid_out()


class Optimizer:
    """The base: subclasses say what settings they check, what state they keep, how they step.

    params: an iterable of parameters, or a list of groups such as
    `[{"params": head.parameters(), "lr": 0.1}, {"params": body.parameters()}]`, each with
    settings of its own.  Parameters whose `grad` is None do not move, not by weight decay either.
    """

    _layout = 0  # counts changes of the pieces, which captured programs hold

    def __new__(cls, *args: Any, **options: Any) -> Any:
        if args or options:
            refuse(cls.__name__, cls.__init__, (None, *args), options)
        return super().__new__(cls)

    def __init__(self, params: Any, **settings: Any) -> None:
        self.groups: list[Group] = []
        for given, own in _grouped(type(self).__name__, params, settings):
            self._check({**settings, **own})
            self.groups.append(Group(self, given, {**settings, **own}))
        materialise(p for group in self.groups for p in group.params)

    # for subclasses ---------------------------------------------------------------------------
    def _check(self, settings: dict[str, Any]) -> None:
        """Raise a sentence for settings that make no sense."""
        self._number(settings, "lr", "weight_decay")

    def _update(self, piece: Piece, lr: Tensor, settings: dict[str, Any]) -> None:
        raise NotImplementedError

    def _number(self, settings: dict[str, Any], *names: str, below: float = math.inf) -> None:
        for name in names:
            value = settings[name]
            number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            if not number or not 0 <= value < below:
                limit = "" if below == math.inf else f" and below {below:g}"
                raise ValueError(
                    f"{type(self).__name__}: {name} must be a number of at least 0{limit}, "
                    f"not {value!r}"
                )

    def _positive(self, settings: dict[str, Any], name: str) -> None:
        """For eps: at 0, a weight whose gradient was always 0 would become 0 / 0."""
        self._number(settings, name)
        if not settings[name] > 0:
            raise ValueError(f"{type(self).__name__}: {name} must be above 0, not {settings[name]}")

    # for users --------------------------------------------------------------------------------
    @property
    def param_groups(self) -> list[Group]:
        """`groups`, by PyTorch's name."""
        return self.groups

    @property
    def lr(self) -> float:
        """The learning rate: of the first group when read, of all groups when set."""
        return self.groups[0]["lr"]

    @lr.setter
    def lr(self, value: float) -> None:
        for group in self.groups:
            group["lr"] = value

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for group in self.groups:
            settings = {name: value for name, value in group.settings.items() if name != "lr"}
            for piece in self._moving(group):
                self._update(piece, group.rate(piece.run.weights), settings)
            if mode.log is not None:
                mode.log.depends(group, "fixed", group.fixed)
        if mode.log is not None:
            mode.log.depends(self, "_layout", self._layout)

    def _moving(self, group: Group) -> list[Piece]:
        """The pieces with gradients; one where only some have them falls apart, for good, so that
        every parameter keeps its own number of steps."""
        pieces, mixed = group.pieces(), False
        for piece in pieces:
            flags = [p.has_grad for p in piece.run.params]
            mixed = mixed or any(f != flags[0] for f in flags)
        if mixed:
            pieces = [
                part
                for piece in pieces
                for part in piece.split([p._has_grad for p in piece.run.params])
            ]
            group._pieces = pieces
            self._laid_out()
        return [piece for piece in pieces if piece.run.params[0]._has_grad]

    def _laid_out(self) -> None:
        self._layout += 1
        Log.changed()

    def zero_grad(self) -> None:
        """As if no backward pass had been: every `.grad` is None again."""
        for group in self.groups:
            zero_gradients(piece.run for piece in group.pieces())

    # state ------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """{"kind": ..., "groups": [settings], "state": {"0.m": values}}, parameters by number."""
        groups, state = [], {}
        numbers = itertools.count()
        for group in self.groups:
            group.pieces()
            own = [next(numbers) for _ in group.params]
            groups.append({**group.settings, "params": own})
            for number, values in zip(own, group.states(), strict=True):
                state.update({f"{number}.{name}": v for name, v in values.items()})
        return {"kind": type(self).__name__, "groups": groups, "state": state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict()` of such an optimiser over such parameters.

        ValueError, and nothing is changed, if it does not fit.
        """
        found = list(self._read(state))
        for group, settings, states in found:
            group.settings.update(settings)
            for rate in group._rates.values():
                rate.write(settings["lr"])
            group.place(states)

    def check_state_dict(self, state: Mapping[str, Any]) -> None:
        """ValueError if `load_state_dict` would refuse this state; nothing is changed."""
        list(self._read(state))

    def _read(self, state: Mapping[str, Any]) -> Iterator[tuple[Group, dict, list[dict]]]:
        name = type(self).__name__
        kind, groups = state.get("kind"), state.get("groups")
        if kind != name or not isinstance(groups, list):
            raise ValueError(f"load_state_dict: the state is of {kind or 'nothing'}, not of {name}")
        sizes = [len(g.params) for g in self.groups]
        given = [len(g.get("params", ())) for g in groups]
        if given != sizes:
            raise ValueError(
                f"load_state_dict: the state is of groups with {given} parameters, "
                f"but this {name} has {sizes}"
            )
        values: dict[str, dict[str, np.ndarray]] = {}
        for key, array in state["state"].items():
            number, _, what = key.partition(".")
            values.setdefault(number, {})[what] = np.asarray(array)
        numbers = itertools.count()
        for group, g in zip(self.groups, groups, strict=True):
            settings = {k: v for k, v in g.items() if k != "params"}
            settings = {
                k: tuple(v) if isinstance(group.settings.get(k), tuple) else v
                for k, v in settings.items()
            }
            if settings.keys() != group.settings.keys():
                raise ValueError(f"load_state_dict: the settings are not those of {name}")
            self._check(settings)
            states = []
            for p in group.params:
                number = str(next(numbers))
                states.append(values.pop(number, {}))
                for what, v in states[-1].items():
                    shape = () if what == "t" else p.shape
                    if v.shape != shape:
                        raise ValueError(
                            f"load_state_dict: '{number}.{what}' has shape {v.shape} "
                            f"where {shape} is expected"
                        )
            yield group, settings, states
        if values:
            raise ValueError(f"load_state_dict: there is no parameter number {next(iter(values))}")

    def __repr__(self) -> str:
        settings = ", ".join(f"{k}={v!r}" for k, v in self.groups[0].settings.items())
        return f"{type(self).__name__}({settings})"


def _grouped(
    name: str, params: Any, settings: dict[str, Any]
) -> list[tuple[list[Tensor], dict[str, Any]]]:
    """What users write -> [(parameters, settings of their own)], checked."""
    if isinstance(params, Module):
        raise TypeError(f"{name}: expected parameters, not a module; give model.parameters()")
    if isinstance(params, Tensor) or not isinstance(params, Iterable):
        raise TypeError(f"{name}: expected a list of parameters, not a {type(params).__name__}")
    given = list(params)
    dicts = [g for g in given if isinstance(g, Mapping)]
    if dicts and len(dicts) != len(given):
        raise TypeError(f"{name}: expected parameters or groups of them, not both")
    groups = [dict(g) for g in dicts] if dicts else [{"params": given}]
    found, seen = [], set()
    for group in groups:
        own = group.pop("params", ())
        tensors = [own] if isinstance(own, Tensor) else list(own)
        unknown = [k for k in group if k not in settings]
        if unknown:
            known = ", ".join(map(repr, settings))
            raise ValueError(f"{name}: a group has no setting {unknown[0]!r}   (it has: {known})")
        for p in tensors:
            if not isinstance(p, Tensor):
                raise TypeError(f"{name}: expected parameters, but one is a {type(p).__name__}")
            if not p.is_leaf or p.dtype.kind != "f":
                raise ValueError(f"{name}: a {p.dtype} tensor of shape {p.shape} is no parameter")
            if id(p) in seen:
                raise ValueError(f"{name}: a parameter of shape {p.shape} was given twice")
            seen.add(id(p))
        found.append((tensors, group))
    if not seen:
        raise ValueError(f"{name}: expected at least one parameter")
    return found
