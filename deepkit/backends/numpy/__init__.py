"""The reference: every op in the plainest NumPy that is right, and the oracle in float64."""

from __future__ import annotations

import importlib

from .. import Backend, table_of

ROOMS = (
    "elementwise",
    "shape",
    "reduce",
    "linear",
    "conv",
    "pool",
    "softmax",
    "norm",
    "fold",
    "images",
    "dropout",
    "step",
)


class NumpyBackend(Backend):
    name = "numpy"

    @property
    def advice(self) -> str | None:
        return importlib.import_module(f"{__name__}.blas").advice()


def create(name: str) -> Backend:
    rooms = [importlib.import_module(f"{__name__}.{room}") for room in ROOMS]
    return NumpyBackend(table_of(rooms))
