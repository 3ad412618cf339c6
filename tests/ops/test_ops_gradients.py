"""Law 2: every gradient rule against finite differences, first and second order, in float64.

An op without a rule for an input is held to being flat along it, so that no rule can be forgotten.
"""

import pytest

from deepkit.card import registry
from deepkit.testing import check_grad, check_grad2, samples_of

# (op, input): why it has a slope and yet no gradient.
NO_RULE: dict[tuple[str, str], str] = {}

SAMPLES = [
    (name, i)
    for name, op in registry.items()
    for i in range(len(samples_of(op)))
    if not name.endswith("_") and op.outs
]
IDS = [f"{n}-{i}" for n, i in SAMPLES]


def skipped(name):
    names = [o.name for o in registry[name].ins]
    return [names.index(operand) for op, operand in NO_RULE if op == name]


@pytest.mark.parametrize("name,number", SAMPLES, ids=IDS)
def test_first_order(name, number):
    check_grad(name, samples_of(name)[number], seed=number, skip=skipped(name))


@pytest.mark.parametrize("name,number", SAMPLES, ids=IDS)
def test_second_order(name, number):
    check_grad2(name, samples_of(name)[number], seed=number, skip=skipped(name))
