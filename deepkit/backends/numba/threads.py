"""The pool of threads: all of them walk one list of launches, and meet where the next one needs it.

A list is a table of four words a launch: the kernel's address, its argument block, how many
threads it is for, and whether all meet after it.  Thread 0 is the caller's; the others are daemon
threads of Python that hold no interpreter lock while they work or wait.

    caller     publish table ─ ticket + 1 ─ kernel 0 of n ─ meet ─ kernel 0 of n ─ meet ─ return
    worker 1   spin on ticket ───────────── kernel 1 of n ─ meet ─ kernel 1 of n ─ meet ─ spin ...

A worker spins for some microseconds, then lets others run, and after some milliseconds without a
ticket sleeps until it is woken, so an idle process uses no processor.  It sleeps in a lock of
Python's C interface ("bed"), which needs no interpreter lock either: showing a list, waking the
workers and walking is one native call, in whose middle no signal handler of Python can run.
"""

from __future__ import annotations

import atexit
import ctypes
import math
import os
import platform
import sys
import threading
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .. import MOST_THREADS, DeviceError, SettingError
from .cache import native

STEP_WORDS = 4  # kernel, argument block, threads, whether all meet afterwards
MOST_ARGUMENTS = 32

# the board: words that threads share, a cache line (or two) apart
TICKET, TABLE, COUNT, EPOCH = 0, 16, 17, 18
FIRST_LINE, LINE = 32, 32  # of thread t: how many lists it has walked to their end,
ROUNDS = 1  # in each round of a meeting how many times it has met,
SLEEPS, BED = 16, 17  # whether it sleeps, and in which lock

SPINS = 200  # pauses before a waiting thread lets others run: some 10 microseconds
YIELDS = 4_000  # times that it lets others run before it sleeps: some milliseconds


# atomic words -------------------------------------------------------------------------------------


def _word_at(builder: Any, base: Any, index: Any) -> Any:
    return builder.gep(builder.inttoptr(base, ir.IntType(64).as_pointer()), [index])


@intrinsic
def word(typing: Any, base: Any, index: Any) -> Any:
    """The 64-bit integer `index` words after the address `base`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_word_at(builder, *args))

    return types.int64(types.int64, types.int64), generate


@intrinsic
def _read(typing: Any, base: Any, index: Any) -> Any:
    """A word that other threads write; what they wrote before it is visible afterwards.

    All threads see all reads, exchanges and additions in one order.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_word_at(builder, *args), "seq_cst", 8)

    return types.int64(types.int64, types.int64), generate


@intrinsic
def _release(typing: Any, base: Any, index: Any, value: Any) -> Any:
    """Write a word that other threads read, after everything else so far."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where = _word_at(builder, args[0], args[1])
        builder.store_atomic(args[2], where, "release", 8)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), generate


@intrinsic
def _exchange(typing: Any, base: Any, index: Any, value: Any) -> Any:
    """Write a word -> what it was."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where = _word_at(builder, args[0], args[1])
        return builder.atomic_rmw("xchg", where, args[2], "seq_cst")

    return types.int64(*[types.int64] * 3), generate


@intrinsic
def _add(typing: Any, base: Any, index: Any, value: Any) -> Any:
    """Add to a word -> what it was."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where = _word_at(builder, args[0], args[1])
        return builder.atomic_rmw("add", where, args[2], "seq_cst")

    return types.int64(*[types.int64] * 3), generate


_PAUSES = {"x86_64": "llvm.x86.sse2.pause", "AMD64": "llvm.x86.sse2.pause"}


@intrinsic
def _pause(typing: Any) -> Any:
    """Tell the processor that this is a loop that waits, where it has a word for it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        name = _PAUSES.get(platform.machine())
        if name is not None:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), generate


_give_way = types.ExternalFunction(
    "SwitchToThread" if sys.platform == "win32" else "sched_yield", types.int32()
)
_lie_down = types.ExternalFunction("PyThread_acquire_lock", types.int32(types.int64, types.int32))
_get_up = types.ExternalFunction("PyThread_release_lock", types.void(types.int64))


# walking ------------------------------------------------------------------------------------------


@intrinsic
def _call(typing: Any, function: Any, block: Any, t: Any, n: Any) -> Any:
    """function(t, n, *block)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        whole = ir.IntType(64)
        values = [
            builder.load(_word_at(builder, args[1], ir.Constant(whole, i)))
            for i in range(MOST_ARGUMENTS)
        ]
        kind = ir.FunctionType(ir.VoidType(), [whole] * (2 + MOST_ARGUMENTS))
        target = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(target, [args[2], args[3], *values])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


def _alone(table, count):
    """Run a list in this thread, as thread 0 of 1."""
    for i in range(count):
        _call(word(table, STEP_WORDS * i), word(table, STEP_WORDS * i + 1), 0, 1)


@numba.njit
def _line(t):
    """Where the words of thread t begin."""
    return FIRST_LINE + LINE * t


@numba.njit
def _wait(board, index, epoch):
    """Until a word of another thread has reached `epoch`."""
    waited = 0
    while _read(board, index) < epoch:
        waited += 1
        if waited < SPINS:
            _pause()
        else:
            _give_way()  # on a busy machine the thread that is missing may need this core


@numba.njit
def _meet(board, t, n, epoch):
    """Wait until every thread has met `epoch` times, in the logarithm of n rounds.

    In each round thread t hears from one that already knows of 1, 2, 4 ... threads before it
    (Hensgen, Finkel, Manber: Two algorithms for barrier synchronization, 1988).
    """
    distance, told = 1, ROUNDS
    while distance < n:
        _release(board, _line(t) + told, epoch)
        _wait(board, _line((t + n - distance) % n) + told, epoch)
        distance, told = 2 * distance, told + 1


@numba.njit
def _walk(board, table, count, epoch, t, n):
    """Thread t's part of a list -> how many times all have met, the end included."""
    for i in range(count):
        step = STEP_WORDS * i
        wanted = min(word(table, step + 2), n)
        if t < wanted:
            _call(word(table, step), word(table, step + 1), t, wanted)
        if word(table, step + 3):
            epoch += 1
            _meet(board, t, n, epoch)
    epoch += 1
    _release(board, _line(t), epoch)
    if t == 0:  # the caller may give the list's memory back: nobody may still read it
        for other in range(1, n):
            _wait(board, _line(other), epoch)
    return epoch


@numba.njit
def _show(board, table, count, n):
    """Show the workers a list (0: the end), and wake those that sleep."""
    _release(board, TABLE, table)
    _release(board, COUNT, count)
    _add(board, TICKET, 1)
    for t in range(1, n):
        if _read(board, _line(t) + SLEEPS) and _exchange(board, _line(t) + SLEEPS, 0):
            _get_up(word(board, _line(t) + BED))


def _go(board, table, count, n):
    """Walk a list with all workers."""
    _show(board, table, count, n)
    _release(board, EPOCH, _walk(board, table, count, word(board, EPOCH), 0, n))


def _end(board, n):
    """Tell the workers to stop."""
    _show(board, 0, 0, n)


def _serve(board, t, n):
    """Walk lists as they are shown, as thread t of n, until the end.

    A worker says that it sleeps before it looks at the ticket a last time, the caller shows the
    ticket before it looks for sleepers: at least one of them sees the other.  Whoever takes the
    word back decides: the caller, then it opens the bed, or the worker, then it is not closed.
    """
    ticket = 0
    while True:
        waited = 0
        while _read(board, TICKET) == ticket:
            waited += 1
            if waited < SPINS:
                _pause()
            elif waited < SPINS + YIELDS:
                _give_way()
            else:
                waited = 0
                _exchange(board, _line(t) + SLEEPS, 1)
                if _read(board, TICKET) == ticket or _exchange(board, _line(t) + SLEEPS, 0) == 0:
                    _lie_down(word(board, _line(t) + BED), numba.int32(1))
        ticket = _read(board, TICKET)
        table = _read(board, TABLE)
        if table == 0:
            return
        _walk(board, table, _read(board, COUNT), _read(board, EPOCH), t, n)


def _compiled(function: Any, arguments: int) -> Any:
    """As a function of integers that lets go of the interpreter while it runs."""
    address = native(function, types.void(*[types.int64] * arguments))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * arguments)(address)


alone = _compiled(_alone, 2)
go = _compiled(_go, 4)
end = _compiled(_end, 2)
serve = _compiled(_serve, 3)


# the pool -----------------------------------------------------------------------------------------


def _function_of_python(name: str, result: Any, *arguments: Any) -> Any:
    kind = ctypes.PYFUNCTYPE(result, *arguments)
    return kind((name, ctypes.pythonapi))


_new_lock = _function_of_python("PyThread_allocate_lock", ctypes.c_void_p)
_free_lock = _function_of_python("PyThread_free_lock", None, ctypes.c_void_p)
_take_lock = _function_of_python(
    "PyThread_acquire_lock", ctypes.c_int, ctypes.c_void_p, ctypes.c_int
)


class Pool:
    """`count` threads, the caller's among them."""

    def __init__(self, count: int) -> None:
        self.count, self.stopped = count, False
        # one list at a time; a signal handler that comes between two lists may run its own
        self.lock = threading.RLock()
        self.memory = np.zeros(FIRST_LINE + LINE * count + 16, np.int64)
        self.board = -(-self.memory.ctypes.data // 128) * 128
        self.words = self.memory[(self.board - self.memory.ctypes.data) // 8 :]
        self.beds = [_new_lock() for _ in range(1, count)]
        self.workers: list[threading.Thread] = []
        try:
            for t, bed in enumerate(self.beds, 1):
                _take_lock(bed, 1)
                self.words[FIRST_LINE + LINE * t + BED] = bed
                worker = threading.Thread(target=self._work, args=(t,), name=f"deepkit-{t}")
                worker.daemon = True
                self.workers.append(worker)
                worker.start()
        except BaseException as error:
            self.stop()
            if isinstance(error, RuntimeError):  # Python's word for what the system refuses
                raise DeviceError(
                    f"the system starts no more than {t} of {count} threads; ask for fewer with "
                    "dk.set_num_threads or DEEPKIT_NUM_THREADS"
                ) from None
            raise

    def _work(self, t: int) -> None:
        serve(self.board, t, self.count)

    def run(self, table: int, count: int) -> None:
        """Walk a list together, and return when all of it is done."""
        with self.lock:
            if self.stopped:
                alone(table, count)
            else:
                go(self.board, table, count, self.count)

    def stop(self) -> None:
        """End the workers, after the list at hand if there is one."""
        with self.lock:
            if self.stopped:
                return
            self.stopped = True
            end(self.board, self.count)
            for worker in self.workers:
                if worker.ident is not None:  # else it was never started
                    worker.join()
            for bed in self.beds:
                _free_lock(bed)


def sensible_count() -> int:
    """As many threads as DEEPKIT_NUM_THREADS says, or as this process may use processors."""
    asked = os.environ.get("DEEPKIT_NUM_THREADS")
    if asked:  # an empty one counts as unset
        if not asked.isdecimal() or not 1 <= int(asked) <= MOST_THREADS:
            raise SettingError(
                f"DEEPKIT_NUM_THREADS: a whole number from 1 to {MOST_THREADS} was expected, "
                f"not {asked!r}"
            )
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, math.ceil(min(count, _quota(), MOST_THREADS)))


def _quota() -> float:
    """Processors that the control group of a container grants, where there is one."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return int(limit) / int(period)
    except (OSError, ValueError):  # no such groups, or no limit ("max")
        return math.inf


_count: int | None = None
_pool: Pool | None = None
_making = threading.RLock()
_over = False  # the interpreter is going down: nothing is started any more


def count() -> int:
    """How many threads kernels may use."""
    global _count
    if _count is None:
        _count = sensible_count()
    return _count


def set_count(number: int) -> None:
    """From here on, so many; programs that are bound to another number bind themselves anew."""
    global _count
    _count = number
    stop()


def run(table: int, steps: int, threads: int) -> None:
    """Walk a list of launches of which the widest is for so many threads."""
    if threads == 1 or count() == 1 or _over:
        alone(table, steps)
    else:
        _shared().run(table, steps)


def _shared() -> Pool:
    global _pool
    pool = _pool
    if pool is None or pool.count != count():
        with _making:
            if _pool is None:
                _pool = Pool(count())
            pool = _pool
    return pool


def stop() -> None:
    """End the workers; the next launch that wants some starts others."""
    global _pool
    with _making:
        pool, _pool = _pool, None
    if pool is not None:
        pool.stop()


def _forget() -> None:
    """In a forked child there are no workers, and locks may be held by threads that are gone."""
    global _pool, _making
    _pool, _making = None, threading.RLock()


@atexit.register
def _at_exit() -> None:
    global _over
    _over = True
    stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
