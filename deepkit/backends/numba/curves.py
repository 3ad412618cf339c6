"""y = f(x) for the functions of calculus, in place as well: plain arithmetic in registers.

    expm1    its series below 1, e^x - 1 above
    tanh     -e / (2 + e) with e = expm1(-2|x|)
    log      x = 2^n m with m around 1; log m = 2 artanh((m - 1) / (m + 1))
    log1p    2 artanh(u / (2 + u)), for u in 0..1
    erf      its series below 1, 1 - e^p(x) above, p a polynomial
    sin, cos x = n pi / 2 + r with |r| <= pi / 4; their series, or each other's, in r

The last three are float32's; float64, and angles beyond `FAR`, call the standard library.
"""

from __future__ import annotations

import math

import numba

from .functions import LN2_HIGH, LN2_LOW, artanh_rest, exp, polynomial, root, split
from .launch import flt, kernel, ptr, size
from .machine import HAS_FMA
from .rows import by_type, number, tile
from .vector import (
    abreast,
    fma,
    four,
    lanes_of,
    largest,
    load_some,
    magnitude,
    one,
    select,
    store,
    store_first,
)

EXP, LOG, SQRT, SIN, COS, TANH, ERF, SIGMOID, SOFTPLUS, ELU = range(10)

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
# sin(r) / r and cos(r) in r^2, for |r| <= pi / 4
_sin_series = polynomial([(-1) ** k / math.factorial(2 * k + 1) for k in range(6)], [])
_cos_series = polynomial([(-1) ** k / math.factorial(2 * k) for k in range(7)], [])
# pi / 2 in float32 parts: n times the first two is exact in a multiply-add, up to FAR
PI_HIGH, PI_MIDDLE, PI_LOW = 1.57079637050628662109375, -4.37113900018624e-8, -1.71512447e-15
FAR = 30000.0 if HAS_FMA else 0.0  # of angles
ROUND = 1.5 * 2.0**23  # added to a small float32, it rounds it


@numba.njit
def _artanh(s):
    square = s * s
    return s + s * square * artanh_rest(square)


@numba.njit
def _log(x):
    small = x < 2.0**-100  # numbers below the smallest normal one are scaled up
    n, m = split(select(small, x * 2.0**64, x))
    n -= select(small, 64.0, x * 0.0)
    value = n * LN2_HIGH + (2.0 * _artanh((m - 1.0) / (m + 1.0)) + n * LN2_LOW)
    value = select(x == 0.0, -math.inf, value)
    value = select(x < 0.0, math.nan, value)
    return select(x < math.inf, value, x)  # infinity and NaN stay


@numba.njit
def _expm1(x):
    near = x * (1.0 + x * _exp_rest(x))  # which keeps -0
    return select(magnitude(x) < 1.0, near, exp(x) - 1.0)


@numba.njit
def _tanh(x):
    e = _expm1(-2.0 * magnitude(x))
    value = -e / (2.0 + e)
    return select(x < 0.0, -value, value)


@numba.njit
def _softplus(x):
    """max(0, x) + log(1 + e^-|x|)."""
    u = exp(-magnitude(x))
    return select(x <= 0.0, 0.0, x) + 2.0 * _artanh(u / (2.0 + u))


@numba.njit
def _erf(x):
    a = magnitude(x)
    far = 1.0 - exp(_erf_far(select(a < 4.0, a, 4.0) - 2.5))
    value = select(a < 1.0, a * _erf_near(a * a), far)
    return select(x == x, select(x < 0.0, -value, value), x)


@numba.njit
def _wave(x, quarter):
    """sin(x), or with quarter 1.0 cos(x) = sin(x + pi / 2), for |x| <= FAR."""
    n = (x * (2 / math.pi) + ROUND) - ROUND
    r = fma(n, -PI_LOW, fma(n, -PI_MIDDLE, fma(n, -PI_HIGH, x)))
    square = r * r
    sine, cosine = select(r == 0.0, x, r * _sin_series(square)), _cos_series(square)
    k = n + quarter
    k -= 4.0 * ((k * 0.25 + ROUND) - ROUND)  # -2, -1, 0, 1, 2
    odd = k * k == 1.0
    value = select(odd, cosine, sine)
    return select(odd, k * value, (1.0 - 0.5 * k * k) * value)


@numba.njit
def _value(op, x, scale):
    if op == EXP:
        return exp(x)
    if op == LOG:
        return _log(x)
    if op == SQRT:
        return root(x)
    if op == TANH:
        return _tanh(x)
    if op == SIGMOID:
        return 1.0 / (1.0 + exp(-x))
    if op == SOFTPLUS:
        return _softplus(x)
    return select(x > 0.0, x, scale * _expm1(x))


@numba.njit
def _values(unit, op, y, x, low, high, scale):
    for i in range(low, high, lanes_of(unit)):
        store_first(y, i, high - i, _value(op, load_some(unit, x, i, high - i, 0.0), scale))


@numba.njit
def _by_library(op, x):
    return math.sin(x) if op == SIN else math.cos(x) if op == COS else math.erf(x)


@numba.njit
def _special_of(unit, op, y, x, low, high):
    """erf, sin and cos of float32."""
    angles = tile(x)
    for i in range(low, high, lanes_of(unit)):
        value = load_some(unit, x, i, high - i, 0.0)
        if op == ERF:
            store_first(y, i, high - i, _erf(value))
            continue
        store_first(y, i, high - i, _wave(value, 1.0 if op == COS else 0.0))
        if largest(select(magnitude(value) > FAR, 1.0, unit)) > 0.0:
            store(angles, 0, value)
            for j in range(min(lanes_of(unit), high - i)):
                if abs(angles[j]) > FAR:
                    y[i + j] = _by_library(op, angles[j])


@by_type
def _special(op, y, x, low, high):
    """erf, sin and cos."""

    def double(op, y, x, low, high):
        for i in range(low, high):
            y[i] = _by_library(op, x[i])

    def single(op, y, x, low, high):
        middle = low + abreast(x, high - low)
        _special_of(four(x), op, y, x, low, middle)
        _special_of(one(x), op, y, x, middle, high)

    return double if y.dtype == numba.types.float64 else single


@kernel
def curve(t, n, op: size, y: ptr, x: ptr, count: size, p: flt):
    low, high = t * count // n, (t + 1) * count // n
    if op in (SIN, COS, ERF):
        _special(op, y, x, low, high)
    else:
        middle = low + abreast(x, high - low)
        _values(four(x), op, y, x, low, middle, number(y, p))
        _values(one(x), op, y, x, middle, high, number(y, p))
