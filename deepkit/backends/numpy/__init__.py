"""The reference: every op in the plainest NumPy that is right, and the oracle in float64."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from .. import Backend, Variants

ROOMS = ("elementwise", "shape", "reduce", "linear", "conv", "pool", "softmax", "norm", "step")


def table_of(modules: list[ModuleType]) -> dict[str, Any]:
    """The kernels of some modules: every public function and `Variants` that they define."""
    table: dict[str, Any] = {}
    for module in modules:
        for name, value in vars(module).items():
            ours = isinstance(value, Variants) or (
                callable(value) and getattr(value, "__module__", None) == module.__name__
            )
            if ours and not name.startswith("_"):
                table[name] = value
    return table


class NumpyBackend(Backend):
    name = "numpy"


def create(name: str) -> Backend:
    rooms = [importlib.import_module(f"{__name__}.{room}") for room in ROOMS]
    return NumpyBackend(table_of(rooms))
