"""Functions of a number, or of a register of them: plain arithmetic, without branches or calls.

LLVM can vectorise loops over numbers with them; registers are those of vector.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .machine import FEATURES, VECTOR_BYTES
from .vector import CONTRACT, Vector, select

# type -> (bits, bits of the mantissa, terms of the series, least and largest x that matter)
_EXP = {
    types.float32: (32, 23, 7, -104.0, 89.0),
    types.float64: (64, 52, 13, -746.0, 710.0),
}
# ln 2 in two parts: a whole number times the first is exact, the second adds digits beyond float64
LN2_HIGH = 0x162E4 / 2**17
LN2_LOW = (math.log(2) - LN2_HIGH) + 2.3190468138462996e-17


class Arithmetic:
    """The operations of an element type on numbers or registers of the type of `x`."""

    def __init__(self, context: Any, builder: Any, x: Any) -> None:
        self.builder = builder
        self.element = x.dtype if isinstance(x, Vector) else x
        self.kind = context.get_value_type(x)
        self.lanes = self.kind.count if isinstance(x, Vector) else 0
        self.bits, self.mantissa = (32, 23) if self.element == types.float32 else (64, 52)
        whole = ir.IntType(self.bits)
        self.whole = ir.VectorType(whole, self.lanes) if self.lanes else whole

    def number(self, value: float) -> Any:
        return ir.Constant(self.kind, [value] * self.lanes if self.lanes else value)

    def integer(self, value: int) -> Any:
        return ir.Constant(self.whole, [value] * self.lanes if self.lanes else value)

    def plus(self, a: Any, b: Any) -> Any:
        return self.builder.fadd(a, b, flags=CONTRACT)

    def times(self, a: Any, b: Any) -> Any:
        return self.builder.fmul(a, b, flags=CONTRACT)

    def clamp(self, value: Any, bound: float, side: str) -> Any:
        outside = self.builder.fcmp_ordered(side, value, self.number(bound))
        return self.builder.select(outside, self.number(bound), value)

    def series(self, x: Any, coefficients: Sequence[float]) -> Any:
        """c[0] + c[1] x + c[2] x^2 + ..."""
        total = self.number(coefficients[-1])
        for c in reversed(coefficients[:-1]):
            total = self.plus(self.times(total, x), self.number(c))
        return total


def polynomial(single: Sequence[float], double: Sequence[float]) -> Any:
    """c[0] + c[1] x + c[2] x^2 + ..., as many terms as the type of x needs."""

    @intrinsic
    def polynomial(typing: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            on = Arithmetic(context, builder, x)
            return on.series(args[0], single if on.bits == 32 else double)

        return x(x), generate

    return polynomial


def _scaled(on: Arithmetic, value: Any, n: Any, magic: Any) -> Any:
    """value * 2^n, for a value around 1."""
    builder, bits = on.builder, on.bits
    if on.lanes and VECTOR_BYTES == 64 and "avx512f" in FEATURES:  # one instruction
        name = f"llvm.x86.avx512.mask.scalef.p{'s' if bits == 32 else 'd'}.512"
        count = 512 // bits
        register, mask = ir.VectorType(on.kind.element, count), ir.IntType(count)
        now = ir.IntType(32)(4)  # rounding as it is set
        kind = ir.FunctionType(register, [register] * 3 + [mask, now.type])
        scale = cgutils.get_or_insert_function(builder.module, kind, name)
        parts = []
        for low in range(0, on.lanes, count):
            cut = ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(low, low + count)))
            a, b = (builder.shuffle_vector(v, v, cut) for v in (value, n))
            parts.append(builder.call(scale, [a, b, a, mask(-1), now]))
        while len(parts) > 1:
            whole = ir.VectorType(ir.IntType(32), 2 * parts[0].type.count)
            join = ir.Constant(whole, list(range(whole.count)))
            pairs = zip(parts[::2], parts[1::2], strict=True)
            parts = [builder.shuffle_vector(a, b, join) for a, b in pairs]
        return parts[0]

    def two_to(rounded: Any) -> Any:
        """2^n from n + magic, whose last bits are n."""
        bias = on.integer(2 ** (bits - on.mantissa - 2) - 1)
        exponent = builder.add(builder.bitcast(rounded, on.whole), bias)
        return builder.bitcast(builder.shl(exponent, on.integer(on.mantissa)), on.kind)

    # in two factors, so that results below the smallest normal number come out as well
    half = builder.fadd(on.times(n, on.number(0.5)), magic)
    rest = builder.fadd(builder.fsub(n, builder.fsub(half, magic)), magic)
    return builder.fmul(builder.fmul(value, two_to(half)), two_to(rest))


@intrinsic
def exp(typing: Any, x: Any) -> Any:
    """e^x within about an ulp; overflow, 0, infinities and NaN as usual.

    x = n ln 2 + r with |r| <= ln 2 / 2, so e^x = 2^n e^r; e^r is its Taylor series.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        on = Arithmetic(context, builder, x)
        _, mantissa, terms, least, most = _EXP[on.element]
        magic = on.number(1.5 * 2.0**mantissa)  # added to a small number, it rounds it
        value = on.clamp(on.clamp(args[0], least, "<"), most, ">")
        n = builder.fsub(on.plus(on.times(value, on.number(1 / math.log(2))), magic), magic)
        r = on.plus(value, on.times(n, on.number(-LN2_HIGH)))
        r = on.plus(r, on.times(n, on.number(-LN2_LOW)))
        series = on.series(r, [1 / math.factorial(k) for k in range(terms + 1)])
        return _scaled(on, series, n, magic)

    return x(x), generate


@intrinsic
def power_of_two(typing: Any, n: Any, rest: Any) -> Any:
    """2^(n + rest) for a whole number n of at most 200 and |rest| <= 1/2, in float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        on = Arithmetic(context, builder, n)
        _, mantissa, terms, *_ = _EXP[on.element]
        series = [math.log(2) ** k / math.factorial(k) for k in range(terms + 1)]
        return _scaled(on, on.series(args[1], series), args[0], on.number(1.5 * 2.0**mantissa))

    return (n(n, rest), generate) if n == rest else None


@intrinsic
def root(typing: Any, x: Any) -> Any:
    """The square root; NaN of negative numbers."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        on = Arithmetic(context, builder, x)
        name = f"llvm.sqrt.{f'v{on.lanes}' if on.lanes else ''}f{on.bits}"
        kind = ir.FunctionType(on.kind, [on.kind])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)

    return x(x), generate


@intrinsic
def split(typing: Any, x: Any) -> Any:
    """(n, m) with x = 2^n m and m in sqrt(1/2)..sqrt(2), for normal positive x."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        on = Arithmetic(context, builder, x)
        root = on.integer(0x3F3504F3 if on.bits == 32 else 0x3FE6A09E667F3BCD)
        image, mantissa = builder.bitcast(args[0], on.whole), on.integer(on.mantissa)
        n = builder.ashr(builder.sub(image, root), mantissa)
        m = builder.bitcast(builder.sub(image, builder.shl(n, mantissa)), on.kind)
        if on.bits == 64:
            short = ir.IntType(32)
            n = builder.trunc(n, ir.VectorType(short, on.lanes) if on.lanes else short)
        return context.make_tuple(builder, signature.return_type, [builder.sitofp(n, on.kind), m])

    return types.UniTuple(x, 2)(x), generate


# (artanh(s) - s) / s^3 in s^2, for |s| <= 1/3
artanh_rest = polynomial([1 / (2 * k + 3) for k in range(7)], [1 / (2 * k + 3) for k in range(16)])


@numba.njit
def log(x):
    """ln x of a register of normal positive numbers; NaN stays.

    x = 2^n m with m around 1, and ln m = 2 artanh((m - 1) / (m + 1)).
    """
    n, m = split(x)
    s = (m - 1.0) / (m + 1.0)
    square = s * s
    value = n * LN2_HIGH + (2.0 * (s + s * square * artanh_rest(square)) + n * LN2_LOW)
    return select(x != x, x, value)
