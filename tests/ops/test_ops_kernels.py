"""Law 1: every kernel on every device against the float64 reference, generated from the cards."""

import pytest

import deepkit as dk
from deepkit.card import registry
from deepkit.testing import check_op, check_pages, samples_of

SAMPLES = [(name, i) for name, op in registry.items() for i in range(len(samples_of(op)))]
ON_THE_PROCESSOR = [d for d in dk.devices() if not d.startswith("cuda") or d == "cuda-sim"]
FAMILIES = sorted({op.__module__ for op in registry.values()})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name,number", SAMPLES, ids=[f"{n}-{i}" for n, i in SAMPLES])
@pytest.mark.parametrize("device", dk.devices())
def test_kernel(device, name, number, dtype):
    check_op(name, samples_of(name)[number], device, dtype, seed=number)


@pytest.mark.parametrize("device", dk.devices())
def test_every_op_has_a_kernel(device):
    table = dk.backends.get(device).table
    kernels = [n for n, op in registry.items() if not (op.composite or op.view)]
    assert [name for name in kernels if name not in table] == []


@pytest.mark.parametrize("family", FAMILIES, ids=[f.split(".")[-1] for f in FAMILIES])
@pytest.mark.parametrize("device", ON_THE_PROCESSOR)
def test_kernels_stay_within_their_pages(device, family):
    table = dk.backends.get(device).table
    ops = [op for n, op in registry.items() if op.__module__ == family and n in table]
    findings = check_pages(device, ops)
    assert findings == [], "\n".join(findings)
