"""The Numba kernels on other processors: narrower vectors, fewer registers, no fused multiply-add.

Each runs in a process of its own, since the processor is chosen when kernels are compiled.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("numba")

MACHINES = {
    "256 bits forced": {"DEEPKIT_SIMD": "256"},
    "128 bits forced": {"DEEPKIT_SIMD": "128"},
    "AVX2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"},
    "baseline": {"NUMBA_CPU_NAME": "generic"},
}

CHECK = """
import sys
from deepkit.backends.numba import machine
from deepkit.card import sample
from deepkit.tape import registry
from deepkit.testing import check_op
import deepkit.ops

checked = 0
for name in ("product", "linear", "linear_dx", "linear_dw", "conv2d", "conv2d_dx", "conv2d_dw"):
    for given in registry[name].samples:
        if not given.bench:
            check_op(registry[name], given, device="numba", dtype=sys.argv[1])
            checked += 1
for batch, channels in ((100, 17), (16, 64)):
    for op, given in {
        "conv2d": sample((batch, 5, 8, channels), (19, 3, 3, channels), (19,), padding=1),
        "conv2d_dx": sample((batch, 5, 8, 19), (19, 3, 3, channels), size=(5, 8), padding=1),
        "conv2d_dw": sample((batch, 5, 8, 19), (batch, 5, 8, channels), window=3, padding=1),
    }.items():
        check_op(registry[op], given, device="numba", dtype=sys.argv[1])
        checked += 1
print(machine.VECTOR_BYTES, machine.REGISTERS, checked)
"""


@pytest.mark.parametrize("machine", MACHINES)
def test_products_and_convolutions_on_another_machine(machine):
    expected = "16" if machine in ("128 bits forced", "baseline") else "32"
    done = subprocess.run(
        [sys.executable, "-c", CHECK, "float32"],
        env={**os.environ, **MACHINES[machine]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    width, _, checked = done.stdout.split()
    assert width == expected
    assert int(checked) > 25


def test_an_unknown_width_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "deepkit", "devices"],
        env={**os.environ, "DEEPKIT_SIMD": "100"},
        capture_output=True,
        text=True,
    )
    assert "DEEPKIT_SIMD must be one of 512, 256, 128, not '100'" in done.stderr
