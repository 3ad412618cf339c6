"""A step that was run once, its memory planned, ready to be read again.

`capture(step)` (captured.py) runs the step eagerly the first time it meets inputs of some shapes,
noting every launch.  Memory that a launch of the step gave birth to is planned into one arena,
where pieces share bytes if they never live at the same time; all other memory is older than the
step, so it is state (weights, statistics, optimiser memory, counters) and stays where it is.  A
replay is the list of kernels on that memory, and nothing else.  In inference, what depends on
state alone (inference.py) is a list of its own, which runs again when somebody wrote to that state.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from .backends import ALIGNMENT, Backend, current
from .fusion import fused
from .nested import leaves, rebuilt
from .tape import Buffer, CaptureError, Launch, Log, Tensor
from .tensor import elements
from .words import counted

TRIES = 30  # orders of placing that a memory plan looks at, twice


class Piece(NamedTuple):
    """A buffer to place: it lives from launch `born` to launch `dies`, both included."""

    nbytes: int
    born: int
    dies: int


def _rounded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def plan(pieces: Sequence[Piece]) -> tuple[list[int], int]:
    """Byte offsets such that pieces that live together never overlap, and the bytes needed.

    First fit into gaps.  Large pieces first is nearly always close to the lower bound; from there,
    the piece that stands highest is placed earlier, again and again, while that may still help.
    """
    bound, best = lower_bound(pieces), ([0] * len(pieces), 0)
    sizes = [_rounded(p.nbytes) for p in pieces]
    beside = [  # who lives at the same time
        [j for j, q in enumerate(pieces) if q.born <= p.dies and p.born <= q.dies] for p in pieces
    ]
    for key in (lambda p: (-p.nbytes, p.born), lambda p: (p.born - p.dies, -p.nbytes)):
        order = sorted(range(len(pieces)), key=lambda i: key(pieces[i]))
        for _ in range(TRIES):
            offsets, ends = _first_fit(sizes, beside, order)
            peak = max(ends, default=0)
            if peak < best[1] or not best[1]:
                best = offsets, peak
            if best[1] <= bound:
                return best
            highest = ends.index(peak)
            if order[0] == highest:
                break
            order.remove(highest)
            order.insert(0, highest)
    return best


def _first_fit(
    sizes: Sequence[int], beside: Sequence[Sequence[int]], order: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Where each piece begins and ends if they are placed in this order."""
    offsets, ends = [0] * len(sizes), [0] * len(sizes)  # one that is not placed ends at 0
    for i in order:
        at, size = 0, sizes[i]
        for low, high in sorted([(offsets[j], ends[j]) for j in beside[i] if ends[j]]):
            if at + size <= low:
                break
            if high > at:
                at = high
        offsets[i], ends[i] = at, at + size
    return offsets, ends


def lower_bound(pieces: Sequence[Piece]) -> int:
    """The most bytes that are alive at one launch: no plan can need less."""
    change: dict[int, int] = {}
    for p in pieces:
        change[p.born] = change.get(p.born, 0) + _rounded(p.nbytes)
        change[p.dies + 1] = change.get(p.dies + 1, 0) - _rounded(p.nbytes)
    alive = most = 0
    for at in sorted(change):
        alive += change[at]
        most = max(most, alive)
    return most


def nbytes(t: Tensor) -> int:
    return t.backend.nbytes(t.shape, t.dtype, t.layout)


class Line(NamedTuple):
    """A launch as `dump` tells it, once its tensors are gone."""

    name: str
    ins: tuple[Any, ...]
    outs: tuple[tuple[Any, ...], ...]  # (shape, dtype, offset in the arena or None) each
    scratch: int

    def __str__(self) -> str:
        places = [f"{s} {d}" + ("" if at is None else f" at {at:,}") for s, d, at in self.outs]
        ins = ", ".join(str(s) for s in self.ins)
        work = f"  + {self.scratch:,} B scratch" if self.scratch else ""
        return f"{self.name}({ins}) -> {', '.join(places) or '(in place)'}{work}"


class Slot(NamedTuple):
    """Where a result lies: in the arena, from where it is copied, or in memory that is state."""

    tensor: Tensor
    array: Any
    born: bool


class Program:
    """The launches of one step for one set of shapes, bound to planned memory."""

    def __init__(
        self, log: Log, inputs: Sequence[Tensor], result: Any, fuse: Collection[str] = ()
    ) -> None:
        untouchable = [*log.written, *(t.buffer for t in leaves(result))]
        changing = {id(b) for b in (*log.written, *_arguments(inputs))}
        writes = bool(log.written or log.graded)
        ahead, launches, self.rounds = fused(log.launches, untouchable, changing, fuse, writes)
        self.inputs = inputs
        self.backend = _only_backend([*ahead, *launches], inputs)
        self.written = list({id(b): b for b in log.written}.values())
        self.graded = [(t, t._has_grad) for t in log.graded.values()]
        self.line = ""  # about it, among the programs of a step
        buffers, self.pieces = _lifetimes(launches, leaves(result), log.birth)
        self.offsets, self.peak = plan(self.pieces) if self.pieces else ([], 0)
        self.bound = lower_bound(self.pieces)
        self.arena = self.backend.memory(self.peak)
        place = dict(zip(map(id, buffers), self.offsets, strict=True))
        self.looks = _looks(log, inputs)
        arrays: dict[int, Any] = {}

        def at(t: Tensor | None) -> Any:
            """The array of a tensor: in the arena if it was born in the step."""
            if t is None or id(t.buffer) not in place:
                return None if t is None else t.array
            if id(t) not in arrays:
                start = place[id(t.buffer)]
                memory = self.arena[start : start + nbytes(t)]
                arrays[id(t)] = self.backend.view(memory, t.shape, t.dtype, t.layout)
            return arrays[id(t)]

        def step(launch: Launch) -> tuple[Any, tuple, dict[str, Any]]:
            params = dict(launch.params)
            if hasattr(launch.kernel, "scratch"):  # also where this case needs none
                params["scratch"] = [at(t) for t in launch.scratch]
            return launch.kernel, tuple(at(t) for t in (*launch.outs, *launch.ins)), params

        def line(launch: Launch) -> Line:
            return Line(
                launch.name,
                tuple(None if t is None else t.shape for t in launch.ins),
                tuple((t.shape, t.dtype, place.get(id(t.buffer))) for t in launch.outs),
                sum(nbytes(t) for t in launch.scratch),
            )

        self.lines, self.ahead_lines = [line(f) for f in launches], [line(f) for f in ahead]
        for launch in (*ahead, *launches):
            for x in launch.ins:
                if x is not None and x.is_leaf and x.dtype.kind == "f":
                    if id(x.buffer) not in place:
                        log.depends(x, "requires_grad", x.requires_grad)
                        log.depends(x, "buffer", x.buffer)
                    x.twin = None  # a copy in another layout that only this run has made
        log.depends(Log, "structure", Log.structure)
        for t in inputs:  # the key of a program says which arguments come with a gradient
            if not is_state(t):
                log.guards.pop((id(t), "_has_grad"), None)
        self.guards, self.stamp = list(log.guards.values()), -1  # the step may have changed some
        self.containers = list(log.containers.values())
        self.replay = self.backend.bind([step(launch) for launch in launches])
        self.prepare = self.backend.bind([step(launch) for launch in ahead]) if ahead else None
        made = {id(t.buffer) for launch in ahead for t in launch.outs}
        read = [t.buffer for launch in ahead for t in launch.ins if t is not None]
        self.constants = list({id(b): b for b in read if id(b) not in made}.values())
        self.prepared_for: list[int] = []  # versions of the constants
        # overwritten by the next call, like the arena; or of the program alone
        own = {id(t.buffer) for t in inputs} | log.constants.keys()
        own |= {id(t._grad.buffer) for t in inputs if not is_state(t) and t._grad is not None}
        self.passes_gradients = any(t.requires_grad and not is_state(t) for t in inputs)
        self.changes_inputs = any(id(b) in own for b in self.written)
        self.result = rebuilt(
            result,
            lambda t: (
                Slot(t.detach(), at(t), True)
                if id(t.buffer) in place or id(t.buffer) in own
                else Slot(t, t.array, False)
            ),
        )

    def look(self, arguments: Sequence[Tensor]) -> None:
        """Raise what the step itself would say of the values that it is about to read."""
        for number, array, check in self.looks:
            check(array if number is None else arguments[number].array)

    def holds(self) -> bool:
        """Whether everything that the step read from Python objects is as it was."""
        for container, then in self.containers:
            now = elements(container)
            if len(now) != len(then) or any(a is not b for a, b in zip(now, then, strict=True)):
                return False
        if self.stamp == Log.stamp:
            return True
        if all(getattr(owner, name) == value for owner, name, value in self.guards):
            self.stamp = Log.stamp
            return True
        return False

    def __call__(self, arguments: Sequence[Tensor]) -> Any:
        for mine, given in zip(self.inputs, arguments, strict=True):
            if mine is not given:
                self.backend.copy_into(mine.array, given.array)
        if self.prepare is not None:
            versions = [b.version for b in self.constants]
            if versions != self.prepared_for:
                self.prepare()
                self.prepared_for = versions
        self.replay()
        for buffer in self.written:
            buffer.version += 1
        for t, has_grad in self.graded:
            t.has_grad = has_grad
        return rebuilt(self.result, self._copied, Slot)

    def first_result(self) -> Any:
        """What the recording itself returned, without its history."""
        return rebuilt(
            self.result,
            lambda s: (
                Tensor(
                    self.backend.copy(s.tensor.array),
                    self.backend,
                    s.tensor.shape,
                    s.tensor.dtype,
                    s.tensor.layout,
                )
                if s.born
                else s.tensor
            ),
            Slot,
        )

    def _copied(self, slot: Slot) -> Tensor:
        """A result leaves the arena as a copy, since the next replay overwrites it."""
        t = slot.tensor
        if not slot.born:
            return t
        array = self.backend.copy(slot.array)
        return Tensor(array, self.backend, t.shape, t.dtype, t.layout)

    def dump(self) -> str:
        """What runs, where its outputs lie, and how good the plan is."""
        lines = [f"program on '{self.backend.name}': {counted(len(self.lines), 'launch')}"]
        lines += [f"{i:4d}  {line}" for i, line in enumerate(self.lines)]
        if self.ahead_lines:
            lines.append("when weights have changed:")
            lines += [f"      {line}" for line in self.ahead_lines]
        total = sum(_rounded(p.nbytes) for p in self.pieces)
        over = 100 * (self.peak / self.bound - 1) if self.bound else 0.0
        lines.append(
            f"arena: {self.peak:,} B for {len(self.pieces)} buffers of {total:,} B together; "
            f"lower bound {self.bound:,} B, {over:.1f} % above it"
        )
        return "\n".join(lines)


def _looks(log: Log, inputs: Sequence[Tensor]) -> list[tuple[int | None, Any, Callable]]:
    """(number of the argument, or the array of a state, what looks at it): what is older than the
    step and not written by it, so that a replay's look sees what the step will read."""
    numbers = {id(t.buffer): i for i, t in enumerate(inputs)}
    written = {id(b) for b in log.written}
    return [
        (numbers.get(id(t.buffer)), t.array, check)
        for t, check in log.looks
        if t.buffer.birth < log.birth and id(t.buffer) not in written
    ]


def _arguments(inputs: Sequence[Tensor]) -> list[Buffer]:
    """The program's own memory for arguments, and for the gradients that come with them."""
    own = [t for t in inputs if not is_state(t)]
    return [t.buffer for t in own] + [t._grad.buffer for t in own if t._grad is not None]


def _only_backend(launches: Sequence[Launch], inputs: Sequence[Tensor]) -> Backend:
    found = {t.backend.name: t.backend for t in inputs}
    for launch in launches:
        for t in (*launch.outs, *launch.ins):
            if t is not None:
                found[t.backend.name] = t.backend
    if len(found) > 1:
        names = " and ".join(f"'{n}'" for n in sorted(found))
        raise CaptureError(f"a captured step stays on one device, but this one uses {names}")
    return next(iter(found.values())) if found else current()


def _lifetimes(
    launches: Sequence[Launch], results: Sequence[Tensor], since: int
) -> tuple[list[Buffer], list[Piece]]:
    """The buffers to which launches gave birth, and from when to when they live.  Memory that is
    older than `since` is none of them: a launch may write into state."""
    buffers: dict[int, Buffer] = {}
    sizes: dict[int, int] = {}
    born: dict[int, int] = {}
    dies: dict[int, int] = {}
    for i, launch in enumerate(launches):
        for t in (*launch.outs, *launch.scratch):
            if id(t.buffer) not in born and t.buffer.birth > since:
                buffers[id(t.buffer)], born[id(t.buffer)] = t.buffer, i
                sizes[id(t.buffer)] = nbytes(t)
        for used in (*launch.outs, *launch.scratch, *launch.ins):
            if used is not None and id(used.buffer) in born:
                dies[id(used.buffer)] = i
    for t in results:
        if id(t.buffer) in born:
            dies[id(t.buffer)] = len(launches)
    order = list(born)
    return (
        [buffers[k] for k in order],
        [Piece(sizes[k], born[k], dies[k]) for k in order],
    )


def is_state(t: Tensor) -> bool:
    """Parameters, and whatever else is more than a plain tensor, are used where they lie."""
    return type(t) is not Tensor
