"""Ops: what is measured, that both sides compute the same, and what was promised."""

import pytest

from bench.cpu import operators, targets
from bench.cpu.measure import agree
from bench.cpu.operators import Case
from bench.torch_table import FUNCTIONS
from deepkit.card import integers, positive, registry, sample

SMALL = [
    Case(registry["conv2d"], sample((2, 6, 5, 3), (4, 3, 3, 3), (4,), padding=1), asked)
    for asked in ((), (0,), (1, 2))
]
SMALL += [
    Case(
        registry["batch_norm_train"],
        sample((2, 3, 2, 5), (5,), (5,), None, (5,), positive(5), activation="relu"),
        asked,
    )
    for asked in ((), (0, 1, 2))
]
SMALL += [
    Case(registry["label_cross_entropy"], sample((4, 3), integers(4, high=3)), asked)
    for asked in ((), (0,))
]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
@pytest.mark.parametrize("first", [True, False])
def test_both_sides_compute_the_same(case, first):
    arrays = case.arrays()
    ours = operators.ours(case, arrays, "numpy")
    agree([ours, operators.theirs(case, arrays, "torch", first)], 1e-5)


def test_layouts_differ_in_memory_and_not_in_shape():
    a = SMALL[0].arrays()[0]
    first, last = operators._placed(a, True), operators._placed(a, False)
    assert first.shape == last.shape == a.shape
    assert last.is_contiguous()
    assert first.permute(0, 3, 1, 2).is_contiguous()


def test_every_op_with_bench_samples_is_measured_and_has_somebody_to_beat():
    found = list(operators.cases())
    named = {case.op.name for case in found}
    wanted = {
        name
        for name, op in registry.items()
        if any(s.bench for s in op.samples) and not name.endswith(operators.GRADIENT_OF)
    }
    assert named == wanted
    assert named <= FUNCTIONS.keys() | operators.NOT_COMPARED.keys()
    assert {"conv2d", "conv2d dx", "conv2d dw"} <= {case.name for case in found}
    assert {case.op.name for case in operators.cases(["relu"])} == {"relu"}


def test_vectors_are_asked_for_with_what_they_belong_to():
    conv = registry["conv2d"]
    assert operators._directions(conv, SMALL[0].sample) == [(0,), (1, 2)]
    norm = registry["batch_norm_train"]
    assert operators._directions(norm, SMALL[3].sample) == [(0, 1, 2)]
    assert SMALL[2].detail == "2x6x5x3, 4x3x3x3, 4, padding=1"


@pytest.mark.parametrize(
    "name,given,must",
    [
        ("product", sample((128, 128), (128, 512)), 2.0),
        ("product", sample((64, 128), (128, 512)), 1.0),
        ("conv2d", sample((2, 8, 8, 64), (64, 3, 3, 64), None), 1.9),
        ("conv2d", sample((2, 8, 8, 64), (64, 3, 3, 64), None, stride=2), 1.0),
        ("conv2d", sample((2, 8, 8, 16), (64, 3, 3, 16), None), 1.0),
        ("conv2d", sample((2, 8, 8, 64), (64, 3, 3, 1), None, groups=64), 3.0),
        ("batch_norm_train", SMALL[3].sample, 3.0),
        ("max_pool2d", sample((2, 4, 4, 1), 2), 3.0),
        ("relu", sample((2, 4)), 1.0),
    ],
)
def test_targets_of_ops(name, given, must):
    case = Case(registry[name], given, ())
    assert targets.of_op(case, 2).must == must
    assert targets.of_op(case, 1).must == 1.0


def test_targets_of_networks():
    assert targets.of_network("train", "lenet5", 64, 2).must == 5.0
    assert targets.of_network("train", "lenet5", 64, 1) is None
    assert targets.of_network("train", "lenet5", 16, 2) is None
    assert targets.of_network("infer", "mlp", 1, 2) == (1.0, 1.5, targets.SERVERS)
    assert targets.of_network("infer", "lenet5", 16, 2).stretch == 3.5
