"""The card of an op: its signature, shapes, gradient rules, samples; nothing that runs.

A signature such as `x[N,H,W,C], w[K,R,S,C/groups], b[K]? -> y[N,P,Q,K]` is read by people, by the
generated tests and by the backends' layouts.  In it

    x[N,...]   a leading N is the batch axis        x[*]    any shape, broadcast elementwise
    b[K]?      may be None                          w[*]!   updated in place
    i[N,P]~    an output that is no function to differentiate (an index, saved statistics);
               it is handed to the gradient rules and not to the caller
    xs[*]+     one or more inputs
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Shape = tuple[int, ...]

registry: dict[str, Any] = {}  # every op by its name
WHOLE = (int, np.integer)  # types of whole numbers; a union takes longer to ask


class ShapeError(ValueError):
    """Shapes or options that an op cannot take, in one sentence."""


def axes_of(name: str, axis: Any, ndim: int) -> tuple[int, ...]:
    """None, an int or several -> sorted axes, each in 0..ndim-1."""
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, tuple | list) else (axis,)
    found = []
    for a in given:
        if not isinstance(a, WHOLE) or not -ndim <= a < ndim:
            raise ShapeError(f"{name}: axis {a} does not exist in a tensor of {ndim} axes")
        found.append(int(a) % ndim)
    if len(set(found)) != len(found):
        raise ShapeError(f"{name}: axis {axis} names one axis twice")
    return tuple(sorted(found))


class Operand(NamedTuple):
    name: str
    axes: tuple[str, ...]
    optional: bool = False
    inplace: bool = False
    constant: bool = False
    many: bool = False

    @property
    def batched(self) -> bool:
        return bool(self.axes) and self.axes[0] == "N"

    @property
    def elementwise(self) -> bool:
        return self.axes == ("*",)


_OPERAND = re.compile(r"\s*(\w+)\[([^\]]*)\]([?!~+]*)\s*")


def parse(signature: str) -> tuple[tuple[Operand, ...], tuple[Operand, ...]]:
    """'x[N,C], b[C]? -> y[N,C]' -> (inputs, outputs)."""

    def operands(side: str) -> tuple[Operand, ...]:
        found, at = [], 0
        while at < len(side):
            match = _OPERAND.match(side, at)
            if not match:
                raise ValueError(f"signature {signature!r} cannot be read at {side[at:]!r}")
            name, axes, marks = match.groups()
            axes = tuple(a.strip() for a in axes.split(",")) if axes.strip() else ()
            found.append(
                Operand(name, axes, "?" in marks, "!" in marks, "~" in marks, "+" in marks)
            )
            at = match.end() + 1  # past the comma
        return tuple(found)

    left, _, right = signature.partition("->")
    return operands(left.strip()), operands(right.strip())


# samples ------------------------------------------------------------------------------------------


class Draw(NamedTuple):
    """How to draw the values of one input of a sample."""

    shape: Shape
    values: Callable[[np.random.Generator, Shape], np.ndarray]
    cast: bool = True  # to the float type under test

    def draw(self, rng: np.random.Generator, dtype: Any) -> np.ndarray:
        array = np.asarray(self.values(rng, self.shape))
        return array.astype(dtype) if self.cast else array


def normal(*shape: int, scale: float = 1.0) -> Draw:
    return Draw(shape, lambda rng, s: scale * rng.standard_normal(s))


def positive(*shape: int, low: float = 0.5, high: float = 2.0) -> Draw:
    return Draw(shape, lambda rng, s: rng.uniform(low, high, s))


def distinct(*shape: int) -> Draw:
    """Values that differ by at least 0.1: a maximum without ties, safe for finite differences."""
    return Draw(shape, lambda rng, s: rng.permutation(int(np.prod(s))).reshape(s) / 10 - 1)


def integers(*shape: int, high: int, low: int = 0) -> Draw:
    return Draw(shape, lambda rng, s: rng.integers(low, high, s), cast=False)


def booleans(*shape: int) -> Draw:
    return Draw(shape, lambda rng, s: rng.random(s) < 0.5, cast=False)


def probabilities(*shape: int) -> Draw:
    """Rows (last axis) that sum to one."""

    def values(rng: np.random.Generator, s: Shape) -> np.ndarray:
        raw = rng.uniform(0.1, 1, s)
        return raw / raw.sum(axis=-1, keepdims=True)

    return Draw(shape, values)


def key() -> Draw:
    """A key of the counter-based generator: (seed, counter)."""
    return Draw((2,), lambda rng, s: rng.integers(0, 2**31, s), cast=False)


class Sample(NamedTuple):
    """Arguments for an op, for tests, gradient checks and benches (`bench=True`)."""

    args: tuple
    params: dict[str, Any]
    bench: bool = False

    def arrays(self, rng: np.random.Generator, dtype: Any) -> list[np.ndarray | None]:
        """Fresh random inputs of this sample."""
        return [None if a is None else _draw(a).draw(rng, dtype) for a in self.args]


def _draw(arg: Any) -> Draw:
    return arg if isinstance(arg, Draw) else normal(*arg)


def sample(*args: Any, bench: bool = False, **params: Any) -> Sample:
    """`sample((2, 6, 5, 3), (4, 3, 3, 3), None, stride=2)`: a shape means normal values."""
    return Sample(args, params, bench)


# the card -----------------------------------------------------------------------------------------


def float_dtypes(name: str, whole: Sequence[int], public: int) -> Callable:
    """The usual rule: inputs are floats of one dtype, and the outputs have it too.

    `whole` are the positions of inputs that hold whole numbers: labels, indices, keys.  Kernels
    read memory by the dtype that this rule grants, so nothing else may slip through.
    """

    def rule(*dtypes: Any, **_: Any) -> tuple[Any, ...]:
        found = None
        for i, d in enumerate(dtypes):
            if d is None or i in whole:
                continue
            if d.kind != "f":
                raise TypeError(
                    f"{name}: expected float inputs, not {d}; cast with x.astype('float32')"
                )
            if found is None:
                found = d
            elif d is not found and d != found:
                names = ", ".join(str(d) for d in dtypes if d is not None)
                raise TypeError(f"{name}: inputs are {names}; cast them to one with x.astype(...)")
        if found is None:
            raise TypeError(f"{name}: expected float inputs, not {dtypes[0]}")
        return (found,) * public

    return rule


# NumPy's numbers of the types with which every backend computes
COMPUTING = frozenset(
    np.dtype(code).num
    for code in "?BiIlLqQfd"
    if np.dtype(code) in ("bool", "uint8", "int32", "int64", "float32", "float64")
)


def computing(name: str, rule: Callable, whole: Sequence[int], bools: bool) -> Callable:
    """A card's own rule, after a look at the inputs: one rule on all backends.

    uint8, int32, int64, bool and the floats compute; other integer types are for holding values
    (astype, to, reshape) and, at the positions `whole`, for labels and indices.
    """

    passed: set[tuple[Any, ...]] = set()  # looked at once: an op of microseconds runs often

    def checked(*dtypes: Any, **params: Any) -> tuple[Any, ...]:
        if dtypes in passed:
            return rule(*dtypes, **params)
        for i, d in enumerate(dtypes):
            if d is None:
                continue
            if d.num not in COMPUTING and i not in whole:
                raise TypeError(
                    f"{name}: {d} holds values but does not compute; cast with x.astype('int64')"
                )
            if not bools and d.kind == "b":
                raise TypeError(f"{name}: not defined for bool; cast with x.astype('int64')")
        passed.add(dtypes)
        return rule(*dtypes, **params)

    return checked


class Card:
    """What an op means.  `Op` in tape.py adds what it takes to run.

    prepare     the public function: it turns what users write into (inputs, parameters);
                its name, signature and docstring are the op's
    signature   the operands, see above
    shape       (*input shapes, **parameters) -> (output shapes...): the only judge of shapes
    grads       one rule an input, `rule(g, y, *inputs, **parameters)`, made of ops; None where an
                input has no gradient.  y is the output, or the tuple of all of them
    together    instead of `grads`: one rule for all inputs at once, which gets `asked=`
                (which inputs need it) and returns a gradient or None for each
    incoming    what every rule would do to g first: `incoming(g, y, **parameters)` -> g
    dtype       (*input dtypes, **parameters) -> (output dtypes...)
    cost        (*input shapes, **parameters) -> (floating-point operations, bytes moved in floats)
    samples     small odd ones for tests and gradient checks, `bench=True` ones for benches
    options     {parameter: values to draw from} for tests over random shapes
    view        no kernel runs: the output is the input's memory under another shape
    composite   the public function is itself made of ops
    bools       whether it is defined for truth values, where `dtype` says more than floats
    anything    whether it takes integers of every type too; see `computing`
    called      what users call it, if that is another op, made of this one
    exact       results are equal to the reference, not just close (copies, integers)
    """

    def __init__(
        self,
        prepare: Callable,
        signature: str,
        *,
        shape: Callable[..., tuple[Shape, ...]] | None = None,
        grads: Sequence[Callable | None] = (),
        together: Callable | None = None,
        incoming: Callable | None = None,
        dtype: Callable[..., tuple] | None = None,
        cost: Callable[..., tuple[float, float]] | None = None,
        samples: Sequence[Sample] = (),
        options: dict[str, Any] | None = None,
        view: bool = False,
        composite: bool = False,
        exact: bool = False,
        tolerance: float = 1.0,
        bools: bool = True,
        anything: bool = False,
        called: str = "",
    ) -> None:
        self.prepare, self.signature = prepare, signature
        self.name, self.called = prepare.__name__, called or prepare.__name__
        self.__name__, self.__doc__ = prepare.__name__, prepare.__doc__
        self.__module__, self.__signature__ = prepare.__module__, inspect.signature(prepare)
        self.ins, self.outs = parse(signature)
        self.public = sum(not o.constant for o in self.outs)
        self.inplace = tuple(i for i, operand in enumerate(self.ins) if operand.inplace)
        self.variadic = any(o.many for o in self.ins)
        self.elementwise = any(o.elementwise for o in self.ins) and not self.variadic
        self.batched = any(o.batched for o in (*self.ins, *self.outs))
        self._shape = shape
        self.grads, self.together, self.incoming = tuple(grads), together, incoming
        self.differentiable = bool(grads) or together is not None
        whole = [
            i
            for i in range(len(self.ins))
            if any(
                i < len(s.args) and isinstance(s.args[i], Draw) and not s.args[i].cast
                for s in samples
            )
        ]
        self.dtype = dtype or float_dtypes(self.called, whole, len(self.outs))
        if dtype is not None and not anything:
            self.dtype = computing(self.called, dtype, whole, bools)
        self.cost, self.samples, self.options = cost, tuple(samples), options or {}
        self.view, self.composite, self.exact = view, composite, exact
        self.tolerance = tolerance

    def shape(self, *shapes: Any, **params: Any) -> tuple[Shape, ...]:
        """Unless the card says otherwise: every output has the shape of the first input."""
        if self._shape is not None:
            return self._shape(*shapes, **params)
        return (shapes[0],) * len(self.outs)

    def gradient(
        self, arrived: Sequence[Any], outs: Sequence[Any], call: Any, asked: Sequence[bool]
    ) -> Sequence[Any]:
        """The gradients of the inputs of `call`, given those of its outputs."""
        nothing = [None] * len(call.ins)
        if all(g is None for g in arrived):
            return nothing
        g = arrived[0] if self.public == 1 else tuple(arrived[: self.public])
        y = outs[0] if len(outs) == 1 else tuple(outs)
        if self.incoming is not None:
            g = self.incoming(g, y, **call.params)
        if self.together is not None:
            found = self.together(g, y, *call.ins, asked=tuple(asked), **call.params)
        else:
            found = [
                rule(g, y, *call.ins, **call.params) if rule is not None and want else None
                for rule, want in zip(self.grads, asked, strict=True)
            ]
        return [
            None if dx is None or not want else fit(dx, t)
            for dx, t, want in zip(found, call.ins, asked, strict=True)
        ]

    def __repr__(self) -> str:
        return f"<op {self.name}: {self.signature}>"


def fit(g: Any, x: Any) -> Any:
    """Sum a gradient over the axes along which x was broadcast."""
    if g.shape == x.shape:
        return g
    return registry["sum_to"](g, shape=x.shape)


def op(signature: str, **fields: Any) -> Callable[[Callable], Any]:
    """Declare an op: `@op("x[*] -> y[*]", grads=..., samples=...)` over its public function."""
    from .tape import Op

    return lambda prepare: Op(prepare, signature, **fields)
