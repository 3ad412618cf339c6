"""Functions of one number that LLVM can vectorise: plain arithmetic, without branches or calls."""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

# type -> (bits, bits of the mantissa, terms of the series, least and largest x that matter)
_EXP = {
    types.float32: (32, 23, 7, -104.0, 89.0),
    types.float64: (64, 52, 13, -746.0, 710.0),
}
# ln 2 in two parts: a whole number times the first is exact, the second adds digits beyond float64
_LN2_HIGH = 0x162E4 / 2**17
_LN2_LOW = (math.log(2) - _LN2_HIGH) + 2.3190468138462996e-17


@intrinsic
def exp(typing: Any, x: Any) -> Any:
    """e^x of a float32 or float64 within about an ulp; overflow, 0, infinities and NaN as usual.

    x = n ln 2 + r with |r| <= ln 2 / 2, so e^x = 2^n e^r; e^r is its Taylor series.  2^n is made
    of two factors, so that results below the smallest normal number come out as well.
    """
    bits, mantissa, terms, least, most = _EXP[x]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, whole = context.get_value_type(x), ir.IntType(bits)

        def number(value: float) -> Any:
            return ir.Constant(kind, value)

        def plus(a: Any, b: Any) -> Any:
            return builder.fadd(a, b, flags=("contract",))

        def times(a: Any, b: Any) -> Any:
            return builder.fmul(a, b, flags=("contract",))

        def clamp(value: Any, bound: Any, side: str) -> Any:
            return builder.select(builder.fcmp_ordered(side, value, bound), bound, value)

        magic = number(1.5 * 2.0**mantissa)  # added to a small number, it rounds it to a whole one

        def two_to(rounded: Any) -> Any:
            """2^n from n + magic, whose last bits are n."""
            n = builder.add(builder.bitcast(rounded, whole), whole(2 ** (bits - mantissa - 2) - 1))
            return builder.bitcast(builder.shl(n, whole(mantissa)), kind)

        value = clamp(clamp(args[0], number(least), "<"), number(most), ">")
        n = builder.fsub(plus(times(value, number(1 / math.log(2))), magic), magic)
        r = plus(value, times(n, number(-_LN2_HIGH)))
        r = plus(r, times(n, number(-_LN2_LOW)))
        series = number(1 / math.factorial(terms))
        for k in range(terms - 1, -1, -1):
            series = plus(times(series, r), number(1 / math.factorial(k)))
        half = builder.fadd(times(n, number(0.5)), magic)
        rest = builder.fadd(builder.fsub(n, builder.fsub(half, magic)), magic)
        return builder.fmul(builder.fmul(series, two_to(half)), two_to(rest))

    return x(x), generate
