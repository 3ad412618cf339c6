"""Several threads of Python call one captured step: each gets the result of its own arguments."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import deepkit as dk

WAIT = 0.5  # seconds that a caller inside waits for another one to come in as well


class Meeting:
    """Callers that pass here wait for each other; it notes whether two were here together."""

    def __init__(self):
        self.barrier, self.met = threading.Barrier(2), False

    def attend(self):
        try:
            self.barrier.wait(WAIT)
            self.met = True
        except threading.BrokenBarrierError:  # nobody came, and nobody waits any more
            pass


@pytest.fixture(autouse=True, params=dk.devices())
def device(request):
    with dk.device(request.param):
        yield request.param


def test_threads_replay_one_after_the_other(device):
    step, meeting = dk.capture(lambda x: x * 2.0 + 1.0), Meeting()
    step(dk.zeros(3))
    (program,) = (p for found in step.programs.values() for p in found)
    replay = program.replay

    def slow():  # between the copies of the arguments in and those of the results out
        meeting.attend()
        replay()

    program.replay = slow

    def call(k):
        with dk.device(device):
            return step(dk.full(3, float(k))).tolist()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(call, range(4))) == [[2 * k + 1] * 3 for k in range(4)]
    assert not meeting.met


def test_threads_that_come_first_together_record_once(device):
    meeting = Meeting()

    @dk.capture
    def step(x):
        meeting.attend()
        return x * 2.0

    def call(k):
        with dk.device(device):
            return step(dk.full(3, float(k))).tolist()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(call, range(2))) == [[0] * 3, [2] * 3]
    assert [len(found) for found in step.programs.values()] == [1]
