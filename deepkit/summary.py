"""What a model is made of, and what it costs: found by its shapes, without memory or arithmetic.

The model runs once on a backend whose arrays are nothing but shapes.  Every kernel that it asks for
is noted, so costs are those of the ops and not guesses about layers, and any module can be summed
up, whatever its `forward` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import random
from .backends import Backend, device
from .nn import Identity, Module
from .nn.parameter import Parameter
from .tape import Buffer, Tensor, no_grad, registry
from .words import counted

FLOAT = np.dtype(np.float32)


# a backend of shapes ------------------------------------------------------------------------------


@dataclass(slots=True)
class Stub:
    """An array without memory.  `field` is what one element sees of the input, (height, width) in
    pixels, and `step` how far apart two neighbours look; None where that has no meaning."""

    shape: tuple[int, ...]
    dtype: np.dtype
    field: tuple[int, int] | None = None
    step: tuple[int, int] = (1, 1)

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Shapes(Backend):
    """Runs nothing, and notes what it was asked to run."""

    name = "shapes"

    def __init__(self) -> None:
        super().__init__({})
        self.note: Callable[[float, float, int], None] = lambda *_: None

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, layout: Any = None) -> Any:
        return Stub(tuple(shape), np.dtype(dtype))

    def upload(self, values: np.ndarray) -> Any:
        return Stub(values.shape, values.dtype)

    def copy(self, array: Any) -> Any:
        return Stub(array.shape, array.dtype, array.field, array.step)

    def write(self, array: Any, values: np.ndarray) -> None:
        """Nothing is kept."""

    def download(self, array: Any) -> np.ndarray:
        raise ValueError("summary: the model reads a value in its forward pass, but there are none")

    def reshape(self, array: Any, shape: tuple[int, ...]) -> Any:
        made = Stub(tuple(shape), array.dtype, array.field, array.step)
        if len(array.shape) == 4 and len(shape) < 4 and array.field is not None:
            made.field = _over(array.field, array.step, array.shape[1:3])  # the whole map
        return made

    def kernel(self, op: str, ins: Sequence[Any], params: dict[str, Any]) -> Any:
        given = [None if x is None else x.shape for x in ins]

        def run(*arrays: Any, **_: Any) -> None:
            outs = arrays[: len(arrays) - len(ins)]
            card = registry[op]
            operations = 0.0 if card.cost is None else card.cost(*given, **params)[0]
            if outs:
                held = sum(out.size * out.dtype.itemsize for out in outs)
                self.note(_connections(op, outs[0], ins, params), operations, held)
            for out in outs:
                _look(op, out, ins, params)

        return run


def _over(seen: tuple[int, int], step: tuple[int, int], window: tuple[int, ...]) -> tuple[int, int]:
    """What a window sees whose elements see `seen`, `step` apart."""
    return seen[0] + (window[0] - 1) * step[0], seen[1] + (window[1] - 1) * step[1]


_POOLS = {"max_pool2d", "avg_pool2d"}


def _connections(op: str, y: Stub, ins: Sequence[Any], params: dict[str, Any]) -> float:
    """How many values the outputs read, biases included, as LeCun et al. (1998) count."""
    if op in ("conv2d", "linear"):
        w, b = ins[1], ins[2]
        return y.size * (w.size // w.shape[0] + (b is not None))
    if op == "locally_connected2d":
        w, b = ins[1], ins[2]
        return y.shape[0] * w.size + (y.size if b is not None else 0)
    if op == "conv2d_dx":  # a transposed convolution
        return ins[0].size * (ins[1].size // ins[1].shape[0])
    if op == "product":
        return y.size * ins[0].shape[-2 if params["ta"] else -1]
    if op in _POOLS:
        return y.size * math.prod(params["window"])
    return 0


def _window(op: str, ins: Sequence[Any], params: dict[str, Any]) -> tuple[int, ...] | None:
    """The reach of an op that looks at neighbours, dilation included."""
    if op == "conv2d":
        window = ins[1].shape[1:3]
    elif op == "locally_connected2d":
        window = ins[1].shape[3:5]
    elif op in _POOLS:
        window = params["window"]
    elif op == "mean" and len(ins[0].shape) == 4 and params["axes"] == (1, 2):
        return ins[0].shape[1:3]
    else:
        return None
    dilation = params.get("dilation", (1, 1))
    return tuple((r - 1) * d + 1 for r, d in zip(window, dilation, strict=True))


def _look(op: str, out: Stub, ins: Sequence[Any], params: dict[str, Any]) -> None:
    """What an element of the output sees: the most that one of the inputs does, and the window."""
    seeing = [x for x in ins if x is not None and x.field is not None]
    if not seeing:
        return
    out.field = max(x.field[0] for x in seeing), max(x.field[1] for x in seeing)
    out.step = seeing[0].step
    if op == "conv2d_dx":
        out.field = None  # an output sees more or less of its input, depending on where it is
        return
    window, stride = _window(op, ins, params), params.get("stride", (1, 1))
    if window is not None:
        out.field = _over(out.field, out.step, window)
    elif op == "slice" and len(out.shape) == 4:
        stride = params["slices"][1][2], params["slices"][2][2]
    out.step = out.step[0] * stride[0], out.step[1] * stride[1]


@contextmanager
def _shadowed(model: Module, backend: Shapes) -> Iterator[None]:
    """The model in eval(), with tensors that are shapes alone; then as it was."""
    members = [t for module in model.modules() for _, t in module._members(Tensor)]
    tensors = {id(t): t for t in members}.values()  # parameters, buffers and mere attributes
    modules = [(module, dict(vars(module))) for module in model.modules()]
    kept = []
    try:
        for t in tensors:
            lazy = isinstance(t, Parameter) and t.is_lazy
            kept.append((t, t.backend, t.twin, None if lazy else (t.array, t.buffer)))
            t.backend, t.array, t.buffer = backend, Stub(t.shape, t.dtype), Buffer()
            t.twin = None
        for module, _ in modules:
            module.__dict__.update(_training=False, _settled=True)
        yield
    finally:
        for t, own, twin, memory in kept:
            t.backend, t.twin = own, twin
            if memory is None:
                del t.array, t.buffer
            else:
                t.array, t.buffer = memory
        for module, attributes in modules:
            module.__dict__.clear()
            module.__dict__.update(attributes)


# the table ----------------------------------------------------------------------------------------


@dataclass
class Row:
    """One call of a layer.  Connections, operations and activations are for one example."""

    name: str
    kind: str
    shape: tuple[int, ...] | None = None  # of the output, without the batch
    parameters: int = 0
    connections: int = 0
    operations: int = 0
    receptive: tuple[int, int] | None = None  # pixels of the input that one output sees
    weights: int = 0  # bytes
    activations: int = 0  # bytes
    shown: bool = False


class Summary:
    """The rows of a model and their sums; its text is the table.

    `parameters`, `trainable`, `connections`, `operations`; `weights` and `activations` in bytes.
    """

    def __init__(self, model: Module, input_shape: tuple[int, ...], rows: list[Row]) -> None:
        params = list(model.parameters())
        self.name, self.input_shape = type(model).__name__, input_shape
        self.rows = [row for row in rows if row.shown]
        self.parameters = sum(p.size for p in params)
        self.trainable = sum(p.size for p in params if p.requires_grad)
        self.connections = sum(row.connections for row in rows)
        self.operations = sum(row.operations for row in rows)
        self.weights = sum(p.size * p.dtype.itemsize for p in params)
        self.activations = sum(row.activations for row in rows)

    def __str__(self) -> str:
        head = (
            "layer",
            "kind",
            "output",
            "parameters",
            "connections",
            "operations",
            "field",
            "memory",
        )
        table: list[tuple[str, ...]] = [head]
        for row in self.rows:
            table.append(
                (
                    row.name,
                    row.kind,
                    "" if row.shape is None else " x ".join(map(str, row.shape)) or "1",
                    f"{row.parameters:,}" if row.parameters else "",
                    f"{row.connections:,}" if row.connections else "",
                    _short(row.operations),
                    _square(row.receptive),
                    _bytes(row.weights + row.activations),
                )
            )
        total = f"{self.parameters:,}", f"{self.connections:,}", _short(self.operations)
        table.append(("total", "", "", *total, "", _bytes(self.weights + self.activations)))
        widths = [max(len(line[i]) for line in table) for i in range(len(head))]
        left = 3  # columns of words; the others are numbers
        lines = [
            "  ".join(
                cell.ljust(w) if i < left else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in table
        ]
        rule = "-" * max(map(len, lines))
        frozen = self.parameters - self.trainable
        notes = [
            f"{self.name} on {' x '.join(map(str, self.input_shape))}: "
            f"{counted(self.parameters, 'parameter')}"
            + (f", {frozen:,} of them not trained" if frozen else ""),
            f"weights {_bytes(self.weights)}, activations {_bytes(self.activations)} "
            "an example; connections and operations for one example, forward",
        ]
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], "", *notes])

    __repr__ = __str__


def _short(count: float) -> str:
    """1234567 -> 1.23 M."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= size:
            return f"{count / size:.2f}{unit}"
    return f"{count:.0f}" if count else ""


def _bytes(count: int) -> str:
    for size, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _square(seen: tuple[int, int] | None) -> str:
    if seen is None:
        return ""
    return str(seen[0]) if seen[0] == seen[1] else f"{seen[0]}x{seen[1]}"


def summary(model: Module, input_shape: Sequence[int]) -> Summary:
    """A table of layers with output shape, parameters, connections, operations, receptive field
    and memory -> Summary, whose text is that table: `print(dk.summary(model, (28, 28, 1)))`.

    input_shape: of one example, without the batch.  Connections count what each output reads,
    biases and pooling included (LeCun et al. 1998); operations are those of the ops' cards, a
    multiplication and an addition being two.  Nothing is allocated or computed, and the model is
    left as it was.  ShapeError if the model cannot take such an input.
    """
    lengths = (input_shape,) if isinstance(input_shape, int) else tuple(input_shape)
    if not all(isinstance(d, int | np.integer) and d > 0 for d in lengths):
        raise ValueError(f"summary: the input's shape must be positive numbers, not {input_shape}")
    lengths = tuple(int(d) for d in lengths)
    backend = Shapes()
    dtype = next((p.dtype for p in model.parameters()), FLOAT)
    whole = Stub((1, *lengths), dtype, (1, 1) if len(lengths) == 3 else None)
    with _shadowed(model, backend), device(backend), random.untouched(backend), no_grad():
        recorder = _Recorder(model, backend)
        model(Tensor(whole, backend, whole.shape, dtype))
    return Summary(model, lengths, recorder.rows)


class _Recorder:
    """Whose call is under way, and what it has asked for."""

    def __init__(self, model: Module, backend: Shapes) -> None:
        self.names = {id(m): name or "(model)" for name, m in model.named_modules()}
        self.rows: list[Row] = []
        self.calls: list[Row] = []  # under way, the innermost last
        self.seen: set[int] = set()  # parameters that a row has counted
        backend.note = self.note
        for module in model.modules():
            module.register_forward_pre_hook(self.enter)
            module.register_forward_hook(self.leave)

    def enter(self, module: Module, args: tuple) -> None:
        own = [p for _, p in module._own_parameters() if id(p) not in self.seen]
        self.seen.update(id(p) for p in own)
        row = Row(self.names[id(module)], type(module).__name__)
        row.parameters = sum(p.size for p in own)
        row.weights = sum(p.size * p.dtype.itemsize for p in own)
        leaf = not any(module.children()) and not isinstance(module, Identity)
        row.shown = row.parameters > 0 or leaf
        self.calls.append(row)
        self.rows.append(row)

    def note(self, connections: float, operations: float, outputs: int) -> None:
        row = self.calls[-1]
        row.connections += int(connections)
        row.operations += int(operations)
        row.activations += outputs
        row.shown = True  # also a module of modules, where it computes something itself

    def leave(self, module: Module, args: tuple, y: Any) -> None:
        row = self.calls.pop()
        if isinstance(y, Tensor):
            row.shape, row.receptive = y.shape[1:], y.array.field
