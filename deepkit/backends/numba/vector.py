"""A SIMD register as a value in Numba functions: what kernels other than products are written with.

    x = load(pointer, offset)               one register of the pointer's type, float32 or float64
    y = 4.0 * x - fma(x, x, 1.0)            a number stands for a register full of it
    y = select(y > 0.0, y, 0.1 * y)         comparisons give masks
    store(pointer, offset, y)

A register has `VECTOR_BYTES` (machine.py), so `vector_lanes(pointer)` elements (simd.py).  Four
side by side are a value as well, and take the same operations: `four(pointer)` is zeros in all of
them, and `load_as(like, pointer, offset)` and `spread(like, number)` give as many as `like` has, so
that one function can be compiled for one and for four.  Offsets count elements; nothing needs to be
aligned.  `a * b + c` becomes one instruction where the machine has it, as in scalar code of
kernels; `fma` says so outright.

Everything here is at module level, since Numba does not cache functions that close over an
intrinsic.
"""

from __future__ import annotations

import operator
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.extending import intrinsic, lower_builtin, register_model, type_callable

from .. import ALIGNMENT
from .machine import HAS_FMA, VECTOR_BYTES

FLOATS = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}
CONTRACT = ("contract",)  # a product and a sum may become one instruction


def _lanes(kind: Any) -> int:
    return 8 * VECTOR_BYTES // kind.dtype.bitwidth * kind.registers


class Vector(types.Type):
    """The type of a register of float32 or float64, or of several side by side."""

    def __init__(self, dtype: Any, registers: int = 1) -> None:
        self.dtype, self.registers = dtype, registers
        super().__init__(f"Vector({dtype}, {registers})")


class Mask(types.Type):
    """The type of a comparison of vectors of a kind: one truth a lane."""

    def __init__(self, kind: Vector) -> None:
        self.vector = kind
        super().__init__(f"Mask({kind})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _register(kind))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.VectorType(ir.IntType(1), _lanes(kind.vector)))


def _register(kind: Any) -> ir.VectorType:
    return ir.VectorType(FLOATS[kind.dtype], _lanes(kind))


def _spread(context: Any, builder: Any, value: Any, source: Any, kind: Vector) -> Any:
    """`value` as a register of type `kind`: it is one already, or a number for all lanes."""
    if isinstance(source, Vector):
        return value
    number = context.cast(builder, value, source, kind.dtype)
    empty = ir.Constant(_register(kind), ir.Undefined)
    one = builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), _lanes(kind)), None)
    return builder.shuffle_vector(one, empty, zeros)


def _common(*kinds: Any) -> Vector | None:
    """The type of vectors among operands that may be numbers too; None if they do not fit."""
    vectors = [k for k in kinds if isinstance(k, Vector)]
    fit = all(k == vectors[0] for k in vectors[1:]) and all(
        isinstance(k, Vector | types.Number) for k in kinds
    )
    return vectors[0] if vectors and fit else None


# memory -------------------------------------------------------------------------------------------


def _where(builder: Any, pointer: Any, offset: Any, kind: Any) -> Any:
    where = builder.gep(pointer, [offset])
    return builder.bitcast(where, _register(kind).as_pointer())


@intrinsic
def load_as(typing: Any, like: Any, pointer: Any, offset: Any) -> Any:
    """The elements from `offset` on, as many as `like` has."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where = _where(builder, args[1], args[2], like)
        return builder.load(where, align=pointer.dtype.bitwidth // 8)

    return like(like, pointer, types.int64), generate


@intrinsic
def spread(typing: Any, like: Any, number: Any) -> Any:
    """A number in all lanes of a vector like `like`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _spread(context, builder, args[1], number, like)

    return like(like, number), generate


def _zeros(registers: int) -> Any:
    @intrinsic
    def zeros(typing: Any, pointer: Any) -> Any:
        kind = Vector(pointer.dtype, registers)
        return kind(pointer), lambda *_: ir.Constant(_register(kind), None)

    return zeros


one, four = _zeros(1), _zeros(4)  # registers of zeros, of the pointer's type


@intrinsic
def lanes_of(typing: Any, a: Any) -> Any:
    """How many elements a vector has."""
    return types.int64(a), lambda *_: ir.IntType(64)(_lanes(a))


@numba.njit
def abreast(pointer, count):
    """How many of `count` elements can be walked four registers at a time."""
    step = lanes_of(four(pointer))
    return count // step * step


@numba.njit
def load(pointer, offset):
    """The register of elements from `offset` on."""
    return load_as(one(pointer), pointer, offset)


@intrinsic
def store(typing: Any, pointer: Any, offset: Any, value: Any) -> Any:
    """Write a vector, or a number into a whole register, to the elements from `offset` on."""
    kind = value if isinstance(value, Vector) else Vector(pointer.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = _spread(context, builder, args[2], value, kind)
        where = _where(builder, args[0], args[1], kind)
        builder.store(vector, where, align=pointer.dtype.bitwidth // 8)
        return context.get_dummy_value()

    if kind.dtype != pointer.dtype or _common(kind, value) is None:
        return None
    return types.void(pointer, types.int64, value), generate


@numba.njit
def broadcast(pointer, number):
    """A number in all lanes of a register of the pointer's type."""
    return spread(one(pointer), number)


@intrinsic
def prefetch(typing: Any, pointer: Any, offset: Any) -> Any:
    """Begin to fetch the cache line of an element, which need not exist, to be used later on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte, whole = ir.IntType(8).as_pointer(), ir.IntType(32)
        where = builder.bitcast(builder.gep(args[0], [args[1]]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, whole, whole, whole])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(fetch, [where, whole(0), whole(2), whole(1)])  # to read, level 2, data
        return context.get_dummy_value()

    return types.void(pointer, types.int64), generate


@intrinsic(prefer_literal=True)
def room(typing: Any, pointer: Any, count: Any) -> Any:
    """A pointer to memory for `count` (a literal) elements, until the kernel returns."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        memory = ir.ArrayType(FLOATS[pointer.dtype], count.literal_value)
        where = cgutils.alloca_once(builder, memory)
        where.align = ALIGNMENT
        return builder.bitcast(where, FLOATS[pointer.dtype].as_pointer())

    return pointer(pointer, count), generate


# the rest of a row that is no multiple of a register


def _first(builder: Any, count: Any, kind: Vector) -> Any:
    """The mask of the first `count` lanes."""
    lanes, whole = _lanes(kind), ir.IntType(32)
    numbers = ir.Constant(ir.VectorType(whole, lanes), list(range(lanes)))
    empty = ir.Constant(numbers.type, ir.Undefined)
    first = builder.insert_element(empty, builder.trunc(count, whole), whole(0))
    zeros = ir.Constant(numbers.type, None)
    return builder.icmp_signed("<", numbers, builder.shuffle_vector(first, empty, zeros))


def _masked(builder: Any, kind: Vector, which: str, result: Any, *args: Any) -> Any:
    name = f"llvm.masked.{which}.v{_lanes(kind)}f{kind.dtype.bitwidth}.p0"
    declared = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, declared, name), args)


@intrinsic
def _load_first(typing: Any, like: Any, pointer: Any, offset: Any, count: Any, rest: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where = _where(builder, args[1], args[2], like)
        align = ir.IntType(32)(pointer.dtype.bitwidth // 8)
        mask = _first(builder, args[3], like)
        others = _spread(context, builder, args[4], rest, like)
        return _masked(builder, like, "load", _register(like), where, align, mask, others)

    return like(like, pointer, types.int64, types.int64, rest), generate


@intrinsic
def _store_first(typing: Any, pointer: Any, offset: Any, count: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where = _where(builder, args[0], args[1], value)
        align = ir.IntType(32)(pointer.dtype.bitwidth // 8)
        mask = _first(builder, args[2], value)
        _masked(builder, value, "store", ir.VoidType(), args[3], where, align, mask)
        return context.get_dummy_value()

    return types.void(pointer, types.int64, types.int64, value), generate


@numba.njit
def load_some(like, pointer, offset, count, rest):
    """The first `count` elements from `offset` on, or as many as there are lanes; then `rest`."""
    if count >= lanes_of(like):
        return load_as(like, pointer, offset)
    return _load_first(like, pointer, offset, count, rest)


@numba.njit
def load_first(pointer, offset, count):
    """A register: the first `count` elements, or as many as there are lanes; then zeros."""
    return load_some(one(pointer), pointer, offset, count, 0.0)


@numba.njit
def store_first(pointer, offset, count, value):
    """Write the first `count` lanes, or all if there are fewer, from `offset` on."""
    if count >= lanes_of(value):
        store(pointer, offset, value)
    else:
        _store_first(pointer, offset, count, value)


# arithmetic ---------------------------------------------------------------------------------------


def _arithmetic(name: str, instruction: str) -> None:
    for function in (getattr(operator, name), getattr(operator, f"i{name}")):  # `+` and `+=`
        _operator(function, instruction)


def _operator(function: Any, instruction: str) -> None:
    @type_callable(function)
    def kind_of(context: Any) -> Any:
        return lambda a, b: _common(a, b)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.return_type
        a, b = (
            _spread(context, builder, v, s, kind) for v, s in zip(args, signature.args, strict=True)
        )
        return getattr(builder, instruction)(a, b, flags=CONTRACT)

    for pair in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(function, *pair)(generate)


for _name, _instruction in (("add", "fadd"), ("sub", "fsub"), ("mul", "fmul"), ("truediv", "fdiv")):
    _arithmetic(_name, _instruction)


@type_callable(operator.neg)
def _negative(context: Any) -> Any:
    return lambda a: a if isinstance(a, Vector) else None


@lower_builtin(operator.neg, Vector)
def _negate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.fneg(args[0])


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once where the machine can."""
    kind = _common(a, b, c)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, y, z = (
            _spread(context, builder, v, s, kind) for v, s in zip(args, signature.args, strict=True)
        )
        if not HAS_FMA:
            return builder.fadd(builder.fmul(x, y), z)
        register = _register(kind)
        name = f"llvm.fma.v{_lanes(kind)}f{kind.dtype.bitwidth}"
        declared = ir.FunctionType(register, [register] * 3)
        function = cgutils.get_or_insert_function(builder.module, declared, name)
        return builder.call(function, [x, y, z])

    return None if kind is None else (kind(a, b, c), generate)


# comparisons --------------------------------------------------------------------------------------


def _comparison(name: str, sign: str) -> None:
    function = getattr(operator, name)

    @type_callable(function)
    def kind_of(context: Any) -> Any:
        def typed(a: Any, b: Any) -> Any:
            kind = _common(a, b)
            return None if kind is None else Mask(kind)

        return typed

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = _common(*signature.args)
        assert kind is not None
        a, b = (
            _spread(context, builder, v, s, kind) for v, s in zip(args, signature.args, strict=True)
        )
        compare = builder.fcmp_unordered if sign == "!=" else builder.fcmp_ordered
        return compare(sign, a, b)

    for pair in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(function, *pair)(generate)


for _name, _sign in zip(
    ("lt", "le", "gt", "ge", "eq", "ne"), ("<", "<=", ">", ">=", "==", "!="), strict=True
):
    _comparison(_name, _sign)


@intrinsic
def select(typing: Any, mask: Any, a: Any, b: Any) -> Any:
    """a where the mask is true, b elsewhere."""
    kind = mask.vector

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, y = (
            _spread(context, builder, v, s, kind)
            for v, s in zip(args[1:], signature.args[1:], strict=True)
        )
        return builder.select(args[0], x, y)

    return None if _common(kind, a, b) is None else (kind(mask, a, b), generate)


@numba.njit
def magnitude(a):
    """|a|."""
    return select(a < 0.0, -a, a)


@intrinsic
def maximum(typing: Any, a: Any, b: Any) -> Any:
    """The larger of both in every lane; NaN where one of them is."""
    kind = _common(a, b)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, y = (
            _spread(context, builder, v, s, kind) for v, s in zip(args, signature.args, strict=True)
        )
        larger = builder.select(builder.fcmp_ordered(">", x, y), x, y)  # y where either is NaN
        return builder.select(builder.fcmp_unordered("uno", x, x), x, larger)

    return None if kind is None else (kind(a, b), generate)


@intrinsic
def larger(typing: Any, a: Any, b: Any) -> Any:
    """b where it is larger than a, else a: one instruction, which keeps a's NaN but not b's."""
    kind = _common(a, b)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, y = (
            _spread(context, builder, v, s, kind) for v, s in zip(args, signature.args, strict=True)
        )
        return builder.select(builder.fcmp_ordered(">", y, x), y, x)

    return None if kind is None else (kind(a, b), generate)


# across lanes -------------------------------------------------------------------------------------


@intrinsic
def add_up(typing: Any, a: Any) -> Any:
    """The sum of all lanes, as a number; in which order they are added is the machine's choice."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = FLOATS[a.dtype]
        kind = ir.FunctionType(number, [number, _register(a)])
        name = f"llvm.vector.reduce.fadd.v{_lanes(a)}f{a.dtype.bitwidth}"
        add = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(add, [ir.Constant(number, -0.0), args[0]], fastmath=("reassoc",))

    return a.dtype(a), generate


@intrinsic
def largest(typing: Any, a: Any) -> Any:
    """The largest of all lanes, as a number; which one it is where some are NaN is left open."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = FLOATS[a.dtype]
        kind = ir.FunctionType(number, [_register(a)])
        name = f"llvm.vector.reduce.fmax.v{_lanes(a)}f{a.dtype.bitwidth}"
        find = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(find, [args[0]], fastmath=("nnan",))

    return a.dtype(a), generate


@intrinsic
def widened(typing: Any, a: Any) -> Any:
    """(the lower half, the upper half) of a vector, each of as many registers, of float64; of one
    that is float64 already, (itself, zeros): what is added to two sums can be either."""
    kind = Vector(types.float64, a.registers)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if a.dtype == types.float64:
            halves = [args[0], ir.Constant(_register(kind), None)]
        else:
            empty, count = ir.Constant(_register(a), ir.Undefined), _lanes(kind)
            lanes = ir.VectorType(ir.IntType(32), count)
            cut = [ir.Constant(lanes, list(range(s, s + count))) for s in (0, count)]
            parts = [builder.shuffle_vector(args[0], empty, c) for c in cut]
            halves = [builder.fpext(part, _register(kind)) for part in parts]
        return context.make_tuple(builder, signature.return_type, halves)

    return types.UniTuple(kind, 2)(a), generate


@intrinsic
def narrowed(typing: Any, low: Any, high: Any) -> Any:
    """The two halves of float64 as one vector of float32: what `widened` took apart."""
    kind = Vector(types.float32, low.registers)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        half = ir.VectorType(FLOATS[types.float32], _lanes(low))
        lanes = ir.VectorType(ir.IntType(32), _lanes(kind))
        join = ir.Constant(lanes, list(range(_lanes(kind))))
        return builder.shuffle_vector(*[builder.fptrunc(a, half) for a in args], join)

    return (kind(low, high), generate) if low == high else None


@intrinsic
def product(typing: Any, a: Any, b: Any) -> Any:
    """a * b, rounded: it becomes no part of an `fma`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(*args)

    return (a(a, b), generate) if a == b else None
