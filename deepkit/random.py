"""Random numbers that are counted, not stored: the same seed gives the same draws on every device.

Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) turns a key
(seed, draw) and the number of an element into random bits.  Each draw takes the next number:
on the host a counter of this module, on a device a small tensor that captured steps advance too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from .backends import Backend, get, why_not
from .ops.common import tensor_on
from .tape import CaptureError, Tensor, aside, mode, registry

_seed = 0
_host_draws = 0
_states: dict[str, Tensor] = {}  # device -> (seed, draws so far), int64


def seed(value: int) -> None:
    """Start every random stream anew: weights, dropout, `rand` and `randn`, on all devices."""
    global _seed, _host_draws
    if not isinstance(value, int | np.integer) or not 0 <= value < 2**63:
        raise ValueError(f"seed: expected a whole number from 0 below 2**63, not {value!r}")
    _seed, _host_draws = int(value), 0
    for state in _states.values():
        state.write([_seed, 0])


def host_generator() -> np.random.Generator:
    """The generator of the next draw on the host; each call gives an independent one."""
    global _host_draws
    if mode.log is not None:
        raise CaptureError(
            "random numbers were drawn on the host while a step was being captured; every replay "
            "would repeat them: use dk.ops.random_uniform, random_normal or dropout"
        )
    _host_draws += 1
    return np.random.Generator(np.random.Philox(key=[_seed, _host_draws]))


def next_key(backend: Backend) -> Tensor:
    """A fresh key (seed, draw) on a device, int64; a captured step takes a new one each replay."""
    state = _states.get(backend.name)
    if state is None:
        with aside():
            state = _states[backend.name] = tensor_on(backend, np.array([_seed, 0], np.int64))
    return registry["next_key_"](state)


@contextlib.contextmanager
def untouched(backend: Backend) -> Iterator[None]:
    """What is drawn inside, on the host or on a backend without values, was never drawn."""
    global _host_draws
    before = _host_draws
    try:
        yield
    finally:
        _host_draws = before
        _states.pop(backend.name, None)


def get_state() -> dict[str, Any]:
    """The seed and all counters, for a checkpoint: JSON-like, without arrays."""
    if mode.log is not None:
        raise CaptureError("the random state cannot be read while a step is being captured")
    devices = {name: [int(v) for v in state.numpy()] for name, state in _states.items()}
    return {"seed": _seed, "host_draws": _host_draws, "devices": devices}


def check_state(state: dict[str, Any]) -> None:
    """ValueError if this is nothing that `get_state` returns."""
    counts = [
        state["seed"],
        state["host_draws"],
        *(n for two in state["devices"].values() for n in two),
    ]
    if not all(type(n) is int and 0 <= n < 2**63 for n in counts):
        raise ValueError("random: the counters are whole numbers from 0 below 2**63")
    if any(len(two) != 2 for two in state["devices"].values()):
        raise ValueError("random: a device has a seed and a number of draws")


def set_state(state: dict[str, Any]) -> None:
    """Continue where `get_state` was called."""
    global _seed, _host_draws
    check_state(state)
    _seed, _host_draws = state["seed"], state["host_draws"]
    for name in _states.keys() - state["devices"].keys():
        _states[name].write([_seed, 0])
    for name, (value, draws) in state["devices"].items():
        if name in _states:
            _states[name].write([value, draws])
        elif why_not(name) is None:  # a stream of a device that is not here will not be missed
            _states[name] = tensor_on(get(name), np.array([value, draws], np.int64))
