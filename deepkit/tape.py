"""A call is an op, what it read and what it wrote; a tape is what running a network leaves behind.

Read forward, the list of calls computes; read backward, it differentiates (`sweep`); read again,
it replays (`program.py`).  An `Op` is a card (`ops/`): what the op means.  How it is computed is
the backends' business.
"""

from __future__ import annotations

import heapq
import weakref
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import numpy as np

from .backends import Backend, DeviceError, OutOfMemory, algorithms, current_precision
from .card import Card, ShapeError, registry
from .spellings import refuse
from .tensor import (
    Buffer,
    CaptureError,
    Launch,
    Log,
    Tensor,
    aside,
    enable_grad,
    is_grad_enabled,
    look,
    mode,
    no_grad,
    serials,
)

__all__ = [
    "Buffer",
    "Call",
    "CaptureError",
    "Launch",
    "Log",
    "Op",
    "Tensor",
    "arranged",
    "aside",
    "enable_grad",
    "grad",
    "is_grad_enabled",
    "launch",
    "look",
    "mode",
    "no_grad",
    "registry",
    "serials",
    "sweep",
]

KNOWN = 1024  # kinds of calls that an op remembers


class Call:
    """What ran, for the backward pass: the op, its inputs and parameters, and its outputs.

    An output that is differentiable holds its call, so the call holds it weakly: a graph is freed
    as soon as its last tensor is, without waiting for the garbage collector.
    """

    __slots__ = ("ins", "op", "out_versions", "outs", "params", "serial", "versions")

    def __init__(self, op: Op, ins: tuple, params: dict[str, Any]) -> None:
        self.op, self.ins, self.params, self.serial = op, ins, params, next(serials)
        self.versions = [t.buffer.version for t in self._read_only()]
        self.outs: tuple = ()
        self.out_versions: tuple[int, ...] = ()

    def _read_only(self) -> list[Tensor]:
        inplace = self.op.inplace
        if not inplace:
            return [t for t in self.ins if t is not None]
        return [t for i, t in enumerate(self.ins) if t is not None and i not in inplace]

    def check_outputs(self, outs: Sequence[Tensor | None]) -> None:
        for t, version in zip(outs, self.out_versions, strict=False):
            if t is not None and t.buffer.version != version:
                raise RuntimeError(
                    f"{self.op.called}: its output of shape {t.shape} was changed in place, so its "
                    "gradient would be wrong; run backward before the change"
                )

    def check_versions(self) -> None:
        for t, version in zip(self._read_only(), self.versions, strict=True):
            if t.buffer.version != version:
                raise RuntimeError(
                    f"{self.op.called}: an input of shape {t.shape} was changed in place after it "
                    "was used, so its gradient would be wrong; run backward before the change"
                )


class Known:
    """What a call of an op has shown of the next one with such operands."""

    __slots__ = ("again", "kernel", "outs")

    def __init__(self) -> None:
        self.outs: list[tuple[Any, ...]] | None = None  # (shape, dtype, layout); None: nothing yet
        self.kernel: Any = None  # the entry of the backend's table that `again` stands for
        self.again: Callable[[list[Any]], bool] | None = None


class Op(Card):
    """A card that runs: called with tensors, it runs a kernel and leaves a call on the tape."""

    def __init__(self, prepare: Callable, signature: str, **fields: Any) -> None:
        super().__init__(prepare, signature, **fields)
        registry[self.name] = self
        self.known: dict[Any, Known] = {}

    def __call__(self, *args: Any, **options: Any) -> Any:
        try:
            prepared = self.prepare(*args, **options)
        except TypeError:
            refuse(self.name, self.prepare, args, options)
            raise
        if self.composite or isinstance(prepared, Tensor):  # which other ops have given
            return prepared
        return self.run(*prepared)

    def __reduce__(self) -> str:
        return self.name  # as functions are pickled: by the name of their place

    def __get__(self, owner: Any, kind: Any = None) -> Op:
        """help() takes what has this for a routine, and shows signature and docstring."""
        return self

    def run(self, ins: tuple, params: dict[str, Any]) -> Any:
        """Run on tensors and normalised parameters."""
        backend: Any = ins[0].backend if ins[0] is not None else None
        key: list[Any] = [algorithms(), current_precision()]
        for t in ins:
            if t is None:
                key.append(None)
                continue
            if t.backend is not backend:
                backend = self._common_backend(ins)
            key += (t.shape, t.dtype, t.layout)
        known = None if self.view or mode.log is not None else self._known(backend, key, params)
        if known is None or known.outs is None:
            given = [None if t is None else t.shape for t in ins]
            shapes = self.shape(*given, **params)
        call = None
        if self.differentiable and mode.grad:
            for t in ins:
                if t is not None and t._requires_grad:
                    call = Call(self, ins, params)
                    break
        outs: tuple[Tensor, ...]
        if known is not None and known.outs is not None:
            outs = self._again(backend, ins, known, params)
        elif self.view:
            outs = (self._view(backend, ins[0], shapes[0]),)
        else:
            outs = self._launch(backend, ins, given, shapes, params, known)
        if call is not None:
            if len(outs) == 1 and outs[0].dtype.kind == "f":
                out = outs[0]
                out.call, out._requires_grad, call.outs = call, True, (weakref.ref(out),)
                call.out_versions = (out.buffer.version,)
                return out
            kept: list[Any] = []
            for out, operand in zip(outs, self.outs, strict=False):
                if operand.constant or out.dtype.kind != "f":
                    kept.append(out)
                else:
                    out.call, out._requires_grad = call, True
                    kept.append(weakref.ref(out))
            call.outs = tuple(kept)
            call.out_versions = tuple([out.buffer.version for out in outs])
        if self.public == 1:
            return outs[0]
        return outs[: self.public] if self.public else None

    def _common_backend(self, ins: Sequence[Tensor | None]) -> Backend:
        given = [(i, t) for i, t in enumerate(ins) if t is not None]
        assert given, f"{self.called}: no tensor among the inputs"
        first = given[0][1]
        for i, t in given:
            if t.backend is first.backend:
                continue
            name, to = self.ins[min(i, len(self.ins) - 1)].name, first.backend.name
            if type(t) is not type(first):  # one of them is a parameter
                name, to = "model", (t if type(t) is Tensor else first).backend.name
            raise DeviceError(
                f"{self.called}: inputs are on '{first.backend.name}' and on '{t.backend.name}'; "
                f"move one of them, for example with {name}.to('{to}')"
            )
        return first.backend

    def _view(self, backend: Backend, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        if x.layout is not None:
            wanted, _ = backend.arrange(self, (x.shape,), (x.layout,), (shape,), {})
            x = arranged(x, wanted[0])
        array = backend.reshape(x.array, shape)
        return Tensor(array, backend, shape, x.dtype, x.layout, x.buffer)

    def _launch(
        self,
        backend: Backend,
        ins: tuple,
        given: Sequence[tuple[int, ...] | None],
        shapes: Sequence[tuple[int, ...]],
        params: dict,
        known: Known | None = None,
    ) -> tuple[Tensor, ...]:
        dtypes = self.dtype(*[None if t is None else t.dtype for t in ins], **params)
        layouts: Sequence[Any] = (None,) * len(shapes)
        if backend.arranges:
            there = tuple([None if t is None else t.layout for t in ins])
            wanted, layouts = backend.arrange(self, given, there, shapes, params)
            if wanted != there:
                known = None
                ins = tuple([
                    t if t is None else arranged(t, layout)
                    for t, layout in zip(ins, wanted, strict=True)
                ])  # fmt: skip
        try:
            outs = tuple([
                Tensor(backend.empty(s, d, layout), backend, s, d, layout)
                for s, d, layout in zip(shapes, dtypes, layouts, strict=True)
            ])  # fmt: skip
        except ValueError:  # beyond what can be addressed, not just beyond this machine's memory
            raise ShapeError(f"{self.called}: {shapes[0]} is too large for any memory") from None
        except OutOfMemory as error:
            raise OutOfMemory(f"{self.called}: {error}") from None
        if self.inplace and mode.log is not None:
            for i in self.inplace:
                if ins[i] is not None:
                    mode.log.may_write(ins[i])
        launch(self.name, backend, outs, ins, params)
        for i in self.inplace:
            if ins[i] is not None:
                ins[i].buffer.version += 1
                if mode.log is not None:
                    mode.log.written.append(ins[i].buffer)
        if known is not None:
            known.outs = [(t.shape, t.dtype, t.layout) for t in outs]
        return outs

    def _known(self, backend: Backend, key: list[Any], params: dict[str, Any]) -> Known | None:
        """What is known of a call with such operands: shapes, dtypes, layouts and parameters."""
        try:
            whole = (backend, *key, *params.items()) if params else (backend, *key)
            if params and 0.0 in params.values():  # 0.0 and -0.0 are one key of a dictionary
                whole += (repr(params),)
            known = self.known.get(whole)
        except (TypeError, ValueError):  # a parameter is no key
            return None
        if known is None:
            if len(self.known) >= KNOWN:
                self.known.clear()
            known = self.known[whole] = Known()
        return known

    def _again(
        self, backend: Backend, ins: tuple, known: Known, params: dict[str, Any]
    ) -> tuple[Tensor, ...]:
        """As `_launch`, outside of captures; operands are already as the kernel wants them."""
        try:
            outs = tuple([Tensor(backend.empty(*o), backend, *o) for o in known.outs or ()])
        except OutOfMemory as error:
            raise OutOfMemory(f"{self.called}: {error}") from None
        arrays = [t.array for t in outs]
        arrays += [None if t is None else t.array for t in ins]
        kernel: Any = backend.table.get(self.name)
        if known.kernel is not kernel:
            known.kernel = kernel
            plain = kernel.__class__ is FunctionType
            known.again = backend.again(kernel, arrays, params) if plain else None
        if known.again is None or not known.again(arrays):
            known.kernel = kernel if known.again is None else None
            launch(self.name, backend, outs, ins, params)
        for i in self.inplace:
            if ins[i] is not None:
                ins[i].buffer.version += 1
        return outs


def launch(name: str, backend: Backend, outs: tuple, ins: tuple, params: dict) -> None:
    """Run one kernel, and log it if a capture is under way."""
    arrays_in = [None if t is None else t.array for t in ins]
    kernel = backend.table.get(name)
    if kernel.__class__ is not FunctionType:  # several variants, or none
        kernel = backend.kernel(name, arrays_in, params)
    arrays = [t.array for t in outs] + arrays_in
    needed = kernel.__dict__.get("scratch")
    work: tuple[Tensor, ...] = ()
    if needed is not None:
        spec = [(s, np.dtype(d)) for s, d in needed(*arrays, **params)]
        if mode.log is None:
            kernel(*arrays, scratch=[backend.scratch(s, d) for s, d in spec], **params)
            return
        work = tuple([Tensor(backend.empty(s, d), backend, s, d) for s, d in spec])
        kernel(*arrays, scratch=[t.array for t in work], **params)
    else:
        kernel(*arrays, **params)
    if mode.log is not None:
        mode.log.launches.append(Launch(name, kernel, outs, ins, work, params))


def arranged(x: Tensor, layout: Any) -> Tensor:
    """`x` in a layout.  A copy is kept beside `x` for as long as its memory does not change."""
    if x.layout == layout:
        return x
    capture = mode.log
    stamp = (layout, x.buffer.version, None if capture is None else capture.birth)
    if x.twin is not None and x.twin[0] == stamp:
        return x.twin[1]
    twin = Tensor(x.backend.empty(x.shape, x.dtype, layout), x.backend, x.shape, x.dtype, layout)
    launch("arrange", x.backend, (twin,), (x,), {})
    x.twin = (stamp, twin)
    return twin


# backward -----------------------------------------------------------------------------------------


def sweep(
    outputs: Sequence[Tensor],
    seeds: Sequence[Tensor | None],
    wanted: Sequence[Tensor] | None = None,
    create_graph: bool = False,
) -> dict[Tensor, Tensor]:
    """Gradients of sum(seeds * outputs), newest call first, over any directed acyclic graph.

    Every reader of a tensor is newer than its writer, so by the time a call is reached the
    gradients of its outputs are complete.  `wanted` are the tensors asked for (None: all leaves
    that require gradients).  -> {tensor: gradient}
    """
    gradients: dict[Tensor, Tensor] = {}
    for y, seed in zip(outputs, seeds, strict=True):
        if not y._requires_grad:
            raise ValueError(
                f"backward: the tensor of shape {y.shape} does not require gradients   "
                "(something that it is computed from needs requires_grad=True, outside of "
                "dk.no_grad(); for what a captured step computes, call backward inside of it)"
            )
        if seed is None:
            if y.size != 1:
                raise ValueError(
                    f"backward: a tensor of shape {y.shape} is no scalar; "
                    "reduce it (y.sum()) or give the gradient's weights"
                )
            seed = registry["full_like"](y, value=1.0)
        elif seed.shape != y.shape:
            raise ValueError(f"backward: y has shape {y.shape} but its weights {seed.shape}")
        gradients[y] = registry["add"](gradients[y], seed) if y in gradients else seed
    useful = None if wanted is None else _calls_towards(wanted, outputs)
    targets = set() if wanted is None else set(wanted)
    found: dict[Tensor, Tensor] = {}
    heap: list[tuple[int, Call]] = []
    queued: set[int] = set()

    def visit(t: Tensor) -> None:
        call = t.call
        if call is None:
            if wanted is None or t in targets:
                found[t] = gradients[t]
        elif call.serial not in queued and (useful is None or call.serial in useful):
            queued.add(call.serial)
            heapq.heappush(heap, (-call.serial, call))

    before, mode.grad = mode.grad, create_graph
    try:
        for y in outputs:
            visit(y)
        while heap:
            call = heapq.heappop(heap)[1]
            call.check_versions()
            outs = tuple([o() if isinstance(o, weakref.ref) else o for o in call.outs])
            call.check_outputs(outs)
            arrived = [None if o is None else gradients.pop(o, None) for o in outs]
            for o, g in zip(outs, arrived, strict=True):
                if o is not None and g is not None and o in targets:
                    found[o] = g
            asked = [
                t is not None
                and t._requires_grad
                and (useful is None or t in targets or (t.call and t.call.serial in useful))
                for t in call.ins
            ]
            for t, g in zip(call.ins, call.op.gradient(arrived, outs, call, asked), strict=True):
                if g is None:
                    continue
                gradients[t] = registry["add"](gradients[t], g) if t in gradients else g
                visit(t)
    finally:
        mode.grad = before
    for y in outputs:
        if y in targets and y in gradients:
            found[y] = gradients[y]
    return found


def _calls_towards(wanted: Sequence[Tensor], outputs: Sequence[Tensor]) -> set[int]:
    """Serials of the calls on a path from `wanted` to `outputs`: nothing else need be swept."""
    targets, calls, todo = set(wanted), {}, [y.call for y in outputs if y.call]
    while todo:
        call = todo.pop()
        if call.serial not in calls:
            calls[call.serial] = call
            todo.extend(t.call for t in call.ins if t is not None and t.call)
    useful: set[int] = set()
    for serial in sorted(calls):
        for t in calls[serial].ins:
            if t is not None and (t in targets or (t.call and t.call.serial in useful)):
                useful.add(serial)
                break
    for t in targets:
        if t.call is not None and t.call.serial in calls:
            useful.add(t.call.serial)
    return useful


def grad(
    y: Tensor | Sequence[Tensor],
    xs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    *,
    create_graph: bool = False,
) -> Any:
    """dy/dx for each x in `xs`, without touching any `.grad`.

    With `create_graph=True` the result can be differentiated again.  A tensor on which y does not
    depend gets zeros.  -> a tensor for a tensor, a list for a list, with the shapes of `xs`.
    """
    targets, outputs = _listed(xs), _listed(y)
    seeds = [None] * len(outputs) if grad_outputs is None else _listed(grad_outputs)
    for x in targets:
        if not x.requires_grad:
            raise ValueError(f"grad: the tensor of shape {x.shape} does not require gradients")
    found = sweep(outputs, seeds, targets, create_graph)
    result = [found[x] if x in found else registry["zeros_like"](x) for x in targets]
    return result[0] if isinstance(xs, Tensor) else result


def _listed(tensors: Any) -> list[Any]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)
