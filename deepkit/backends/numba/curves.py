"""y = f(x) for the functions of calculus, in place as well.

Where LLVM can vectorise a function, it is plain arithmetic, through a tile on the stack: y may be
x, and a tile is certainly no other memory.  sin, cos, and erf of float64, call the standard
library.

    expm1    its series below 1, e^x - 1 above
    tanh     -e / (2 + e) with e = expm1(-2|x|)
    log      x = 2^n m with m around 1; log m = 2 artanh((m - 1) / (m + 1))
    log1p    2 artanh(u / (2 + u)), for u in 0..1
"""

from __future__ import annotations

import math

import numba

from .functions import LN2_HIGH, LN2_LOW, artanh_rest, exp, polynomial, split
from .launch import flt, kernel, ptr, size
from .rows import like, number, tile
from .simd import at

EXP, LOG, SQRT, SIN, COS, TANH, ERF, SIGMOID, SOFTPLUS, ELU = range(10)

inlined = numba.njit(forceinline=True)  # LLVM vectorises no loop with a call in it

# x^2 / 2! + x^3 / 3! + ... over x^2, for |x| < 1
_exp_rest = polynomial(
    [1 / math.factorial(k + 2) for k in range(9)], [1 / math.factorial(k + 2) for k in range(17)]
)
# erf(x) / x in x^2, for |x| <= 1
_erf_near = polynomial(
    [2 / math.sqrt(math.pi) * (-1) ** k / (math.factorial(k) * (2 * k + 1)) for k in range(11)], []
)
# ln(1 - erf(x)) in x - 2.5, for 1 < x < 4: least squares at Chebyshev nodes, weighted by 1 - erf
_ERFC = [
    -7.8068153,
    -5.35268077,
    -0.943892643,
    -0.0108544596,
    0.00216799384,
    -0.000426088158,
    6.66940677e-05,
    -1.94654762e-05,
    3.87770462e-07,
]
_erf_far = polynomial(_ERFC, [])


@inlined
def _artanh(p, s):
    square = s * s
    return s + s * square * artanh_rest(square)


@inlined
def _log(p, x):
    """p is a pointer of the type in which to compute."""
    small = x < like(p, 2.0**-100)  # numbers below the smallest normal one are scaled up
    shift = like(p, 64.0) if small else like(p, 0.0)
    n, m = split(x * like(p, 2.0**64) if small else x)
    n -= shift
    one, two = like(p, 1.0), like(p, 2.0)
    value = n * like(p, LN2_HIGH) + (two * _artanh(p, (m - one) / (m + one)) + n * like(p, LN2_LOW))
    value = like(p, -math.inf) if x == like(p, 0.0) else value
    value = like(p, math.nan) if x < like(p, 0.0) else value
    return value if x < like(p, math.inf) else x  # infinity and NaN stay


@inlined
def _expm1(p, x):
    near = x * (like(p, 1.0) + x * _exp_rest(x))  # which keeps -0
    return near if abs(x) < like(p, 1.0) else exp(x) - like(p, 1.0)


@inlined
def _tanh(p, x):
    e = _expm1(p, like(p, -2.0) * abs(x))
    value = -e / (like(p, 2.0) + e)
    return -value if x < like(p, 0.0) else value


@inlined
def _softplus(p, x):
    """max(0, x) + log(1 + e^-|x|)."""
    zero = like(p, 0.0)
    u = exp(-abs(x))
    return (zero if x <= zero else x) + like(p, 2.0) * _artanh(p, u / (like(p, 2.0) + u))


def _erf(p, x):
    raise NotImplementedError


@numba.extending.overload(_erf, jit_options={"forceinline": True})
def _erf_of(p, x):
    """float32 without branches, so that it vectorises; float64 by the standard library."""
    if p.dtype == numba.types.float64:
        return lambda p, x: math.erf(x)

    def narrow(p, x):
        a, one = abs(x), like(p, 1.0)
        tail = a if a < like(p, 4.0) else like(p, 4.0)
        far = one - exp(_erf_far(tail - like(p, 2.5)))
        value = a * _erf_near(a * a) if a < one else far
        return math.copysign(value, x) if x == x else x

    return narrow


@numba.njit
def _piece(op, y, x, count, scale):
    zero, one = like(y, 0.0), like(y, 1.0)
    if op == EXP:
        for i in range(count):
            y[i] = exp(x[i])
    elif op == LOG:
        for i in range(count):
            y[i] = _log(y, x[i])
    elif op == SQRT:
        for i in range(count):
            y[i] = math.sqrt(x[i])
    elif op == SIN:
        for i in range(count):
            y[i] = math.sin(x[i])
    elif op == COS:
        for i in range(count):
            y[i] = math.cos(x[i])
    elif op == TANH:
        for i in range(count):
            y[i] = _tanh(y, x[i])
    elif op == ERF:
        for i in range(count):
            y[i] = _erf(y, x[i])
    elif op == SIGMOID:
        for i in range(count):
            y[i] = one / (one + exp(-x[i]))
    elif op == SOFTPLUS:
        for i in range(count):
            y[i] = _softplus(y, x[i])
    elif op == ELU:
        for i in range(count):
            y[i] = x[i] if x[i] > zero else scale * _expm1(y, x[i])


@kernel
def curve(t, n, op: size, y: ptr, x: ptr, count: size, p: flt):
    values, scale = tile(y), number(y, p)
    high = (t + 1) * count // n
    for low in range(t * count // n, high, 256):
        some = min(256, high - low)
        _piece(op, values, at(x, low), some, scale)
        target = at(y, low)
        for i in range(some):
            target[i] = values[i]
