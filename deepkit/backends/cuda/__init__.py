"""CUDA: kernels/*.cu under the same tape, layers and optimisers, on a GPU or on the simulator.

`"cuda"` and `"cuda:1"` are GPUs: CuPy holds the memory and the streams, NVRTC compiles.
`"cuda-sim"` runs the same host code and the same `.cu` files on the processor, with NumPy arrays
and sim.h in place of the driver: slow, and made to find mistakes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import Backend, Kernel, table_of
from . import launch

ROOMS = ("elementwise", "linear")


class SimulatedBackend(Backend):
    """Arrays are NumPy's, in C order; a launch has ended when it returns."""

    name = "cuda-sim"

    def __init__(self, table: dict[str, Any], driver: Any) -> None:
        super().__init__(table)
        self.driver = driver

    def bind(self, steps: Sequence[tuple[Kernel, tuple, dict[str, Any]]]) -> Callable[[], None]:
        """A list of recorded launches, where a GPU has a graph."""
        calls = launch.record(steps)

        def replay() -> None:
            for call in calls:
                self.driver.start(call)

        return replay

    @property
    def preparing(self) -> float:
        return self.driver.seconds


def _table() -> dict[str, Any]:
    return table_of([importlib.import_module(f"{__name__}.{room}") for room in ROOMS])


def create(name: str) -> Backend:
    if name == "cuda-sim":
        sim = importlib.import_module(f"{__name__}.sim")
        driver = sim.Simulator()
        launch.serve(driver, lambda a: isinstance(a, np.ndarray), _address)
        return SimulatedBackend(_table(), driver)
    raise NotImplementedError


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]
