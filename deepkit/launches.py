"""Facts about a list of launches that passes ask for, and what they make new launches with."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from .tape import Buffer, Launch, Tensor, registry

Launches = list[Launch]

SHAPE_ALONE = ("full_like",)  # ops that ask their input for its shape and type, and read no value


class Facts:
    """Who reads and who writes each buffer of a list, and which of them no pass may do without."""

    def __init__(
        self,
        launches: Sequence[Launch],
        untouchable: Iterable[Buffer],
        changing: Collection[int] | None = None,
    ) -> None:
        self.launches = launches
        self.readers: dict[int, list[int]] = {}
        self.writers: dict[int, list[int]] = {}
        self.untouchable = {id(b) for b in untouchable}
        for i, launch in enumerate(launches):
            for t in launch.ins if launch.name not in SHAPE_ALONE else ():
                if t is not None and i not in self.readers.setdefault(id(t.buffer), []):
                    self.readers[id(t.buffer)].append(i)
            op = registry.get(launch.name)
            changed = [launch.ins[k] for k in op.inplace] if op is not None else []
            for t in (*launch.outs, *launch.scratch, *changed):
                if t is not None:
                    self.writers.setdefault(id(t.buffer), []).append(i)
        self.changing = changing
        self.known: set[int] = set()  # what the list computes of constants alone
        for launch in launches:
            if self.lasts(launch):
                self.known |= {id(t.buffer) for t in launch.outs}

    def constant(self, t: Tensor | None) -> bool:
        """Whether `t` is the same in every replay, until somebody writes into weights.

        `changing` are the ids of the buffers of arguments and of what the step itself writes; all
        other memory that no launch gives birth to is state.
        """
        if t is None or id(t.buffer) in self.known:
            return True
        key = id(t.buffer)
        return self.changing is not None and key not in self.changing and key not in self.writers

    def lasts(self, launch: Launch) -> bool:
        """Whether a launch gives constants: it reads nothing else, and nobody writes there."""
        given = [t for t in launch.ins if t is not None]
        op = registry.get(launch.name)
        return (
            bool(given)
            and all(map(self.constant, given))
            and not (op is not None and op.inplace)
            and all(self.written_once(t) for t in launch.outs)
            and not any(id(t.buffer) in self.untouchable for t in launch.outs)
        )

    def only_reader(self, t: Tensor) -> int | None:
        """The one launch that needs `t`, if there is no more to it than that."""
        readers = self.readers.get(id(t.buffer), [])
        free = id(t.buffer) not in self.untouchable
        return readers[0] if free and len(readers) == 1 and self.written_once(t) else None

    def written_once(self, t: Tensor) -> bool:
        return len(self.writers.get(id(t.buffer), [])) == 1

    def unchanged(self, t: Tensor | None, i: int, k: int) -> bool:
        """Whether no launch between numbers i and k writes `t`."""
        return t is None or not any(i < w < k for w in self.writers.get(id(t.buffer), ()))

    def free(self, x: Tensor, i: int, k: int) -> bool:
        """Whether no launch from number i on and before k reads or writes any byte of `x`."""
        key = id(x.buffer)
        near = {n for n in (*self.readers.get(key, ()), *self.writers.get(key, ())) if i <= n < k}
        return not any(
            t.buffer is x.buffer and x.backend.overlap(t.array, x.array)
            for n in near
            for t in (*self.launches[n].outs, *self.launches[n].ins, *self.launches[n].scratch)
            if t is not None
        )

    def may_move(self, launch: Launch, i: int, k: int) -> bool:
        """Whether launch number i may as well run right before number k: nothing in between
        changes what it reads, or reads or writes what it writes."""
        between = range(i + 1, k)
        op = registry.get(launch.name)
        gives = [*launch.outs, *(launch.ins[n] for n in op.inplace)] if op else [*launch.outs]
        for t in (*launch.ins, *gives):
            if t is not None and any(w in between for w in self.writers.get(id(t.buffer), [])):
                return False
        return not any(
            r in between for t in gives if t is not None for r in self.readers.get(id(t.buffer), [])
        )


def fresh(like: Tensor, shape: tuple[int, ...] | None = None, layout: Any = None) -> Tensor:
    """A tensor, of the device and dtype of another, whose memory a new launch fills."""
    shape = like.shape if shape is None else shape
    memory = like.backend.empty(shape, like.dtype, layout)
    return Tensor(memory, like.backend, shape, like.dtype, layout)


def changed(launch: Launch, **fields: Any) -> Launch:
    """A launch with other operands, or another kernel, and the working memory it needs for them."""
    other = launch._replace(**fields)
    needed = getattr(other.kernel, "scratch", None)
    if needed is None:
        return other._replace(scratch=())
    arrays = [None if t is None else t.array for t in (*other.outs, *other.ins)]
    backend = next(t.backend for t in (*other.outs, *other.ins) if t is not None)
    spec = [(s, np.dtype(d)) for s, d in needed(*arrays, **other.params)]
    work = tuple([Tensor(backend.empty(s, d), backend, s, d) for s, d in spec])
    return other._replace(scratch=work)


def same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and a.buffer is b.buffer and a.shape == b.shape
