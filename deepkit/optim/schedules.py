"""Schedules: the learning rate as a function of the steps so far.

`step()` is called after an epoch or after a batch, whichever is the unit of the numbers given, and
outside of a captured step: it writes the rate into the memory from which the step reads it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .base import Optimizer


class Schedule:
    """The base: a subclass says what `rate` a group has after `t` steps, given the one it began
    with.  The formulas are those of PyTorch's schedulers."""

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"{type(self).__name__}: expected an optimiser, not a {type(optimizer).__name__}"
            )
        self.optimizer, self.t = optimizer, 0
        self.bases = [float(group["lr"]) for group in optimizer.groups]
        self._write()

    def rate(self, base: float, t: int) -> float:
        """The learning rate after t steps of a group that began with `base`."""
        raise NotImplementedError

    def step(self) -> None:
        """One epoch, or one batch, later."""
        self.t += 1
        self._write()

    def __repr__(self) -> str:
        own = [f"{k}={v}" for k, v in vars(self).items() if k not in ("optimizer", "t", "bases")]
        rates = ", ".join(f"{group['lr']:.5g}" for group in self.optimizer.groups)
        return f"<{type(self).__name__} {', '.join(own)}; lr {rates} at step {self.t}>"

    def _write(self) -> None:
        for group, base in zip(self.optimizer.groups, self.bases, strict=True):
            group["lr"] = self.rate(base, self.t)

    def state_dict(self) -> dict[str, Any]:
        """How far it is, and where the rates began: plain numbers."""
        return {"kind": type(self).__name__, "t": self.t, "bases": list(self.bases)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was called; the settings are those of this schedule.

        ValueError, and nothing is changed, if the state is not of such a schedule.
        """
        self.check_state_dict(state)
        self.t, self.bases = int(state["t"]), [float(b) for b in state["bases"]]
        self._write()

    def check_state_dict(self, state: Mapping[str, Any]) -> None:
        """ValueError if `load_state_dict` would refuse this state; nothing is changed."""
        name = type(self).__name__
        if not isinstance(state, Mapping) or state.get("kind") != name:
            kind = state.get("kind") if isinstance(state, Mapping) else repr(state)
            raise ValueError(f"load_state_dict: the state is of {kind}, not of {name}")
        t, bases = state.get("t"), state.get("bases")
        if not (isinstance(t, int | np.integer) and 0 <= t < 2**63):
            raise ValueError(f"load_state_dict: t is a whole number of steps, not {t!r}")
        if not isinstance(bases, Sequence) or not all(
            isinstance(b, int | float | np.number) and math.isfinite(b) for b in bases
        ):
            raise ValueError(f"load_state_dict: bases are learning rates, not {bases!r}")
        if len(bases) != len(self.bases):
            raise ValueError(
                f"load_state_dict: the state is of {len(bases)} groups, "
                f"but this {name} has {len(self.bases)}"
            )


def _positive(schedule: Any, what: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        name = type(schedule).__name__
        raise ValueError(f"{name}: {what} must be a whole number of at least 1, not {value!r}")
    return int(value)


class StepLR(Schedule):
    """lr = base * gamma^(t // step_size)."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size, self.gamma = _positive(self, "step_size", step_size), float(gamma)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return base * self.gamma ** (t // self.step_size)


class MultiStepLR(Schedule):
    """lr = base * gamma^(how many milestones have been reached)."""

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1) -> None:
        self.milestones = sorted(_positive(self, "a milestone", m) for m in milestones)
        self.gamma = float(gamma)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return base * self.gamma ** sum(m <= t for m in self.milestones)


class CosineLR(Schedule):
    """lr = eta_min + (base - eta_min) * (1 + cos(pi t / T_max)) / 2; it rises again after T_max.

    Loshchilov, Hutter 2017, equation 5, without restarts.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max, self.eta_min = _positive(self, "T_max", T_max), float(eta_min)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        wave = (1 + math.cos(math.pi * t / self.T_max)) / 2
        return self.eta_min + (base - self.eta_min) * wave


class OneCycleLR(Schedule):
    """Up from max_lr / div_factor to max_lr, and down to max_lr / div_factor / final_div_factor.

    The rise takes the share pct_start of total_steps; three_phase: a fall as long as the rise, back
    to the start, comes before the last one.  anneal: "cos" or "linear" in between.  Beyond
    total_steps the rate stays.  Smith, Topin 2019; the momentum is not cycled.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float,
        total_steps: int,
        pct_start: float = 0.3,
        anneal: str = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ) -> None:
        total = _positive(self, "total_steps", total_steps)
        if not 0 <= pct_start <= (0.5 if three_phase else 1):
            raise ValueError(f"OneCycleLR: pct_start is a share of the steps, not {pct_start!r}")
        if anneal not in ("cos", "linear"):
            raise ValueError(f"OneCycleLR: anneal must be 'cos' or 'linear', not {anneal!r}")
        if not (max_lr > 0 and div_factor > 0 and final_div_factor > 0):
            raise ValueError("OneCycleLR: max_lr and both factors must be above 0")
        self.anneal, self.total_steps = anneal, total
        first = max_lr / div_factor
        last, turn = first / final_div_factor, pct_start * total - 1
        # (step, rate) at the corners
        self.corners = [(0.0, first), (turn, max_lr)]
        if three_phase:
            self.corners.append((2 * pct_start * total - 2, first))
        self.corners.append((total - 1.0, last))
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        t = min(t, self.total_steps - 1)
        for (start, low), (end, high) in zip(self.corners, self.corners[1:], strict=False):
            if t <= end:
                share = (t - start) / (end - start) if end > start else 1.0
                if self.anneal == "linear":
                    return low + (high - low) * share
                return high + (low - high) / 2 * (1 + math.cos(math.pi * share))
        return self.corners[-1][1]


class LinearWarmup(Schedule):
    """lr = base * (start + (1 - start) t / steps) for t < steps, then base, or what `after` says:

        LinearWarmup(optimizer, 500, after=CosineLR(optimizer, 10_000))

    `after` counts its steps from the end of the warm-up, and is not stepped by itself.
    start: from 0 to 1 (a third, as in PyTorch's LinearLR).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        steps: int,
        start: float = 1 / 3,
        after: Schedule | None = None,
    ) -> None:
        if not 0 <= start <= 1:
            raise ValueError(f"LinearWarmup: start must be from 0 to 1, not {start!r}")
        if after is not None and after.optimizer is not optimizer:
            raise ValueError("LinearWarmup: `after` is of another optimiser")
        self.steps, self.start, self.after = _positive(self, "steps", steps), float(start), after
        if after is not None:  # some schedules begin below the rate that they were given
            for group, base in zip(optimizer.groups, after.bases, strict=True):
                group["lr"] = base
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        if t < self.steps:
            return self._target(base, 0) * (self.start + (1 - self.start) * t / self.steps)
        return self._target(base, t - self.steps)

    def _target(self, base: float, t: int) -> float:
        return base if self.after is None else self.after.rate(base, t)
