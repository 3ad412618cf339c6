"""`dk.using`: what it names, for how long, and that captured steps follow."""

from __future__ import annotations

import pytest

import deepkit as dk
from deepkit.backends import Variants, algorithms


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    assert algorithms() == ()


def test_it_holds_until_the_end_of_the_block():
    with dk.using(conv2d="direct"):
        assert algorithms() == (("conv2d", "direct"),)
        with dk.using(conv2d="im2col", conv2d_dw="direct"):
            assert algorithms() == (("conv2d", "im2col"), ("conv2d_dw", "direct"))
        with dk.using(conv2d="auto"):
            assert algorithms() == ()
        assert algorithms() == (("conv2d", "direct"),)


def test_without_a_block_it_stays():
    dk.using(conv2d="direct")
    assert algorithms() == (("conv2d", "direct"),)
    dk.using(conv2d="auto")


def test_unknown_ops_and_algorithms_are_refused():
    with pytest.raises(ValueError, match="there is no op 'conv3d' with algorithms to choose from"):
        dk.using(conv3d="direct")
    with pytest.raises(ValueError, match="there is no op 'relu' with algorithms"):
        dk.using(relu="direct")
    with pytest.raises(ValueError, match="an algorithm has a name, not 1"):
        dk.using(conv2d=1)
    x, w = dk.randn(1, 4, 4, 1), dk.randn(1, 3, 3, 1)
    with (
        dk.using(conv2d="quick"),
        pytest.raises(ValueError, match="conv2d: backend 'numpy' has no algorithm 'quick'"),
    ):
        dk.ops.conv2d(x, w)


def first(y, *_, **__): ...
def second(y, *_, **__): ...
def only_small(y, *_, **__): ...


only_small.takes = lambda x, **_: x[0] < 3
ENTRY = Variants(lambda *_, **__: "first", dict(first=first, second=second, small=only_small))


@pytest.mark.parametrize(
    ("named", "algorithm", "size", "found"),
    [
        ({}, "auto", 2, first),
        (dict(conv2d="second"), "auto", 2, second),
        (dict(conv2d="second"), "first", 2, first),
        (dict(conv2d="small"), "auto", 2, only_small),
        (dict(conv2d="small"), "auto", 3, first),
        (dict(conv2d="second", conv2d_dx="first"), "auto", 2, second),
    ],
)
def test_who_decides(named, algorithm, size, found):
    x = dk.randn(size).array
    with dk.using(**named):
        assert ENTRY.pick("numpy", "conv2d", [x], dict(algorithm=algorithm)) is found


def test_gradients_follow_an_op_where_they_can():
    x = dk.randn(2).array
    two = Variants(lambda *_, **__: "first", dict(first=first, second=second))
    one = Variants(lambda *_, **__: "first", dict(first=first))
    with dk.using(conv2d="second"):
        assert two.pick("numpy", "conv2d_dx", [x], dict(algorithm="auto")) is second
        assert one.pick("numpy", "conv2d_dw", [x], dict(algorithm="auto")) is first
    with dk.using(conv2d="second", conv2d_dx="first"):
        assert two.pick("numpy", "conv2d_dx", [x], dict(algorithm="auto")) is first


def test_a_captured_step_is_captured_anew():
    w = dk.randn(2, 3, 3, 1)
    step = dk.capture(lambda x: dk.ops.conv2d(x, w))
    x = dk.randn(1, 4, 4, 1)

    def kernels():
        return [p.lines[0].scratch for ps in step.programs.values() for p in ps]

    step(x)
    with dk.using(conv2d="direct"):
        step(x)
        step(x)
    step(x)
    assert len(kernels()) == 2
    assert len(set(kernels())) == 2
