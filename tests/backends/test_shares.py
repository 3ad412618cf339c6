"""Every kernel with its work cut into the shares of 3 and 7 threads, however small the sample."""

import pytest

import deepkit as dk
from deepkit.card import registry
from deepkit.testing import check_op, samples_of

if "numba" not in dk.devices():
    pytest.skip("Numba does not work here", allow_module_level=True)

from deepkit.backends.numba import launch, threads


@pytest.fixture(params=[3, 7])
def shared(request, monkeypatch):
    monkeypatch.setattr(launch, "GRAIN", 1)
    before = threads.count()
    threads.set_count(request.param)
    yield request.param
    threads.set_count(before)


@pytest.mark.parametrize("name", sorted(n for n, op in registry.items() if samples_of(op)))
def test_all_samples(shared, name):
    for number, sample in enumerate(samples_of(registry[name])):
        check_op(name, sample, "numba", "float32", seed=number)
