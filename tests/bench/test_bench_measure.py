"""Turns, statistics, agreement: with a clock that the tests wind."""

import math

import numpy as np
import pytest

from bench.cpu import measure
from bench.cpu.measure import Contender, Disagreement, agree, made, take_turns, timing_of


class Time:
    """A clock that stands still but for what `passes` says, and a record of who ran when."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def clock(self):
        return self.now

    def passes(self, seconds):
        self.now += seconds

    def contender(self, name, seconds):
        def step():
            self.log.append(name)
            self.passes(seconds)

        return Contender(name, step)

    def turns(self, *contenders, seconds=0.0):
        return take_turns(contenders, seconds, clock=self.clock, sleep=self.passes)


def without_repeats(log):
    return [name for i, name in enumerate(log) if i == 0 or name != log[i - 1]]


def test_rounds_go_up_and_down():
    time = Time()
    time.turns(*[time.contender(name, 0.03) for name in "abc"])
    assert "".join(without_repeats(time.log)) == "abcba" + "bc"


def test_a_short_call_has_a_turn_of_many_and_the_first_is_not_counted():
    time = Time()
    timings = time.turns(time.contender("short", 1e-3), time.contender("long", 0.2))
    runs = time.log.count("short")
    assert timings["short"].calls == runs - measure.LEAST_ROUNDS
    assert timings["short"].calls >= measure.LEAST_ROUNDS * measure.TURN / 1e-3 - 1
    assert timings["long"].calls == measure.LEAST_ROUNDS  # one a turn
    assert time.log.count("long") == measure.LEAST_ROUNDS + 1  # its length was not known at first
    assert timings["short"].median_ms == pytest.approx(1.0)
    assert timings["long"].median_ms == pytest.approx(200.0)


def test_rounds_end_when_the_time_is_spent():
    time = Time()
    time.turns(time.contender("a", 0.1), time.contender("b", 0.1), seconds=5.0)
    assert 5.0 <= time.now < 5.5


def test_garbage_collection_is_off_meanwhile_and_back_afterwards():
    import gc

    seen = []
    take_turns([Contender("a", lambda: seen.append(gc.isenabled()))], 0.0)
    assert seen
    assert not any(seen)
    assert gc.isenabled()


def test_statistics():
    timing = timing_of([0.009, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008, 0.010, 0.1])
    assert timing.median_ms == pytest.approx(6.0)
    assert timing.best_ms == pytest.approx(2.0)
    assert timing.calls == 11
    assert timing.spread == pytest.approx((0.009 - 0.003) / 0.006)
    assert timing_of([0.5]).spread == 0


def counter(name, values):
    left = iter(values)
    return Contender(name, lambda: next(left), np.asarray)


def test_contenders_that_agree_may_run():
    agree([counter("a", [1.0, 0.5, 0.2]), counter("b", [1.0001, 0.5, 0.2])], 1e-3)


def test_a_loss_near_0_is_known_to_what_float32_leaves_of_it():
    ones = 2.0**-23  # log(1 + p) is a multiple of it
    agree([counter("a", [1.5, 3e-3, 44 * ones]), counter("b", [1.5, 3e-3, 45 * ones])], 1e-3)
    for other in ([1.5, 3e-3, 88 * ones], [1.5, 3.02e-3, 44 * ones]):
        with pytest.raises(Disagreement):
            agree([counter("a", [1.5, 3e-3, 44 * ones]), counter("b", other)], 1e-3)


@pytest.mark.parametrize("other", [[1.0, 0.5, 0.21], [1.0, 0.5, math.nan]])
def test_a_contender_that_computes_something_else_is_named(other):
    with pytest.raises(Disagreement, match=r"b is .* away from a in call 3"):
        agree([counter("a", [1.0, 0.5, 0.2]), counter("b", other)], 1e-3)


def test_shapes_must_agree_too():
    with pytest.raises(Disagreement, match=r"b gives \(2,\), a \(\)"):
        agree([counter("a", [1.0] * 3), counter("b", [[1.0, 1.0]] * 3)], 1e-3)


def test_what_cannot_be_made_is_left_out_with_its_reason_but_ours_must_run():
    def broken():
        raise RuntimeError("no such thing\nand much more")

    found, left = made([("deepkit eager", lambda: "ours"), ("torch", broken)])
    assert found == ["ours"]
    assert left == [("torch", "no such thing")]
    with pytest.raises(RuntimeError):
        made([("deepkit eager", broken)])


def test_neighbours_are_not_ourselves():
    neighbours = measure.Neighbours()
    neighbours.before = (neighbours.before[0] - 2.0, *neighbours.before[1:])
    clock, work, own = neighbours.before
    neighbours._used = lambda: (clock + 2.0, work + 3.0, own + 2.0)
    assert neighbours.processors() == pytest.approx(0.5)
