"""The kernel on the page about the CPU backend compiles, runs, and shares its work right."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

import deepkit as dk

PAGE = Path(__file__).parents[2] / "docs/cpu.md"
IMPORTS = """from __future__ import annotations
from deepkit.backends.numba.launch import flt, kernel, launch, ptr, size
from deepkit.backends.numba.rows import number
"""


@pytest.mark.skipif("numba" not in dk.devices(), reason="Numba does not work here")
@pytest.mark.parametrize("threads", [1, 3])
def test_the_kernel_of_the_page(tmp_path, monkeypatch, threads):
    from deepkit.backends.numba import lanes
    from deepkit.backends.numba import launch as launching
    from deepkit.backends.numba import threads as pool

    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path / "scaling.py"
    file.write_text(IMPORTS + block)
    spec = importlib.util.spec_from_file_location("scaling", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(launching, "GRAIN", 1)
    before = pool.count()
    pool.set_count(threads)
    try:
        x = np.random.default_rng(0).standard_normal((17, 3, 5)).astype(np.float32)
        memory = [np.full(lanes.elements(x.shape), np.nan, np.float32) for _ in range(2)]
        source, target = (lanes.Lanes(m, x.shape) for m in memory)
        lanes.arrange(source, x)
        module.scale(target, source, factor=2.5)
        np.testing.assert_array_equal(target.numpy(), x * np.float32(2.5))
    finally:
        pool.set_count(before)
