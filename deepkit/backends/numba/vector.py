"""A SIMD register as a value in Numba functions: what kernels other than products are written with.

    x = load(pointer, offset)               one register of the pointer's type, float32 or float64
    y = 4.0 * x - fma(x, x, 1.0)            a number stands for a register full of it
    y = select(y > 0.0, y, 0.1 * y)         comparisons give masks
    store(pointer, offset, y)

A register has `VECTOR_BYTES` (machine.py), so `vector_lanes(pointer)` elements (simd.py).  Offsets
count elements; nothing needs to be aligned.  `a * b + c` becomes one instruction where the machine
has it, as in scalar code of kernels; `fma` says so outright.

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
from .simd import vector_lanes

FLOATS = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}
CONTRACT = ("contract",)  # a product and a sum may become one instruction


def _lanes(dtype: Any) -> int:
    return 8 * VECTOR_BYTES // dtype.bitwidth


class Vector(types.Type):
    """The type of a register of float32 or float64."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(f"Vector({dtype})")


class Mask(types.Type):
    """The type of a comparison: one truth a lane."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(f"Mask({dtype})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _register(kind))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.VectorType(ir.IntType(1), _lanes(kind.dtype)))


def _register(kind: Any) -> ir.VectorType:
    return ir.VectorType(FLOATS[kind.dtype], _lanes(kind.dtype))


def _spread(context: Any, builder: Any, value: Any, source: Any, kind: Vector) -> Any:
    """`value` as a register of type `kind`: it is one already, or a number for all lanes."""
    if isinstance(source, Vector):
        return value
    number = context.cast(builder, value, source, kind.dtype)
    empty = ir.Constant(_register(kind), ir.Undefined)
    one = builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), _lanes(kind.dtype)), None)
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
def load(typing: Any, pointer: Any, offset: Any) -> Any:
    """The register of elements from `offset` on."""
    kind = Vector(pointer.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where = _where(builder, *args, kind)
        return builder.load(where, align=pointer.dtype.bitwidth // 8)

    return kind(pointer, types.int64), generate


@intrinsic
def store(typing: Any, pointer: Any, offset: Any, value: Any) -> Any:
    """Write a register (or a number, into all lanes) to the elements from `offset` on."""
    kind = Vector(pointer.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = _spread(context, builder, args[2], value, kind)
        where = _where(builder, args[0], args[1], kind)
        builder.store(vector, where, align=pointer.dtype.bitwidth // 8)
        return context.get_dummy_value()

    if _common(kind, value) is None:
        return None
    return types.void(pointer, types.int64, value), generate


@intrinsic
def broadcast(typing: Any, pointer: Any, number: Any) -> Any:
    """A number in all lanes of a register of the pointer's type."""
    kind = Vector(pointer.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _spread(context, builder, args[1], number, kind)

    return kind(pointer, number), generate


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
    lanes, whole = _lanes(kind.dtype), ir.IntType(64)
    numbers = ir.Constant(ir.VectorType(whole, lanes), list(range(lanes)))
    empty = ir.Constant(numbers.type, ir.Undefined)
    one = builder.insert_element(empty, count, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)
    return builder.icmp_signed("<", numbers, builder.shuffle_vector(one, empty, zeros))


def _masked(builder: Any, kind: Vector, which: str, result: Any, *args: Any) -> Any:
    name = f"llvm.masked.{which}.v{_lanes(kind.dtype)}f{kind.dtype.bitwidth}.p0"
    declared = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, declared, name), args)


@intrinsic
def _load_first(typing: Any, pointer: Any, offset: Any, count: Any) -> Any:
    kind = Vector(pointer.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where = _where(builder, args[0], args[1], kind)
        align = ir.IntType(32)(pointer.dtype.bitwidth // 8)
        zeros, mask = ir.Constant(_register(kind), None), _first(builder, args[2], kind)
        return _masked(builder, kind, "load", _register(kind), where, align, mask, zeros)

    return kind(pointer, types.int64, types.int64), generate


@intrinsic
def _store_first(typing: Any, pointer: Any, offset: Any, count: Any, value: Any) -> Any:
    kind = Vector(pointer.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where = _where(builder, args[0], args[1], kind)
        align = ir.IntType(32)(pointer.dtype.bitwidth // 8)
        mask = _first(builder, args[2], kind)
        _masked(builder, kind, "store", ir.VoidType(), args[3], where, align, mask)
        return context.get_dummy_value()

    return types.void(pointer, types.int64, types.int64, kind), generate


@numba.njit
def load_first(pointer, offset, count):
    """The first `count` elements from `offset` on, or as many as there are lanes; then zeros."""
    if count >= vector_lanes(pointer):
        return load(pointer, offset)
    return _load_first(pointer, offset, count)


@numba.njit
def store_first(pointer, offset, count, value):
    """Write the first `count` lanes, or all if there are fewer, from `offset` on."""
    if count >= vector_lanes(pointer):
        store(pointer, offset, value)
    else:
        _store_first(pointer, offset, count, value)


# arithmetic ---------------------------------------------------------------------------------------


def _arithmetic(name: str, instruction: str) -> None:
    function = getattr(operator, name)

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
        name = f"llvm.fma.v{_lanes(kind.dtype)}f{kind.dtype.bitwidth}"
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
            return None if kind is None else Mask(kind.dtype)

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
    kind = Vector(mask.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, y = (
            _spread(context, builder, v, s, kind)
            for v, s in zip(args[1:], signature.args[1:], strict=True)
        )
        return builder.select(args[0], x, y)

    return None if _common(kind, a, b) is None else (kind(mask, a, b), generate)


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
def add_up(typing: Any, a: Any) -> Any:
    """The sum of all lanes, as a number; in which order they are added is the machine's choice."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = FLOATS[a.dtype]
        kind = ir.FunctionType(number, [number, _register(a)])
        name = f"llvm.vector.reduce.fadd.v{_lanes(a.dtype)}f{a.dtype.bitwidth}"
        add = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(add, [ir.Constant(number, -0.0), args[0]], fastmath=("reassoc",))

    return a.dtype(a), generate
