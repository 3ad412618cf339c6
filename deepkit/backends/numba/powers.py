"""y = a ** b, element by element; what an element becomes depends on nothing but a and b.

Small whole exponents and 1/2 are products, quotients and the root.  Other powers of float32 are
2^(b log2 |a|), the exponent in float64, since an error of its last digit in float32 would be one of
five digits in the result; those of float64 are the standard library's.  The ends are IEEE's.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from .functions import polynomial, power_of_two, root, split
from .rows import by_type, like
from .vector import (
    abreast,
    four,
    lanes_of,
    load_some,
    magnitude,
    narrowed,
    one,
    select,
    store_first,
    widened,
)

# log2(m) / s in s^2, for s = (m - 1) / (m + 1) with |s| < 0.172
_log2_series = polynomial([], [2 / math.log(2) / (2 * k + 1) for k in range(7)])
LEAST = 2.0**-126  # normal number of float32
ROUND = 2.0**23  # added to a smaller positive float32, it rounds it
ROUND64 = 1.5 * 2.0**52


@numba.extending.register_jitable
def _whole_power(a, b):
    """a ** b for integers; below 1 it is cut off to 0."""
    if b < 0:
        return 1 if a == 1 else 0 if a != -1 else 1 - 2 * (b & 1)
    power = 1
    while b > 0:
        if b & 1:
            power *= a
        a *= a
        b >>= 1
    return power


@numba.njit
def _by_products(a, b, otherwise):
    """The power where b is one of the exponents that need no logarithm."""
    inverse, square = 1.0 / a, a * a
    side = select(a == -math.inf, math.inf, root(a) + 0.0)  # of -0 it is 0
    value = select(b == -2.0, inverse * inverse, otherwise)
    value = select(b == -1.0, inverse, value)
    value = select(b == 0.0, 1.0, value)
    value = select(b == -0.5, 1.0 / side, value)
    value = select(b == 0.5, side, value)
    value = select(b == 1.0, a, value)
    value = select(b == 2.0, square, value)
    value = select(b == 3.0, square * a, value)
    return select(b == 4.0, square * square, value)


@numba.njit
def _exponent(n, m, b):
    """b * log2(2^n m) as a whole number and a rest, in float64."""
    s = (m - 1.0) / (m + 1.0)
    value = b * (n + s * _log2_series(s * s))
    value = select(value < -200.0, -200.0, value)  # 0 in any case
    value = select(value > 200.0, 200.0, value)
    whole = (value + ROUND64) - ROUND64
    return whole, value - whole


@numba.njit
def _by_logarithm(a, b):
    size, exponent = magnitude(a), magnitude(b)
    small = size < LEAST
    n, m = split(select(small, size * 2.0**64, size))
    n0, n1 = widened(n - select(small, 64.0, n * 0.0))
    m0, m1 = widened(m)
    b0, b1 = widened(b)
    whole0, rest0 = _exponent(n0, m0, b0)
    whole1, rest1 = _exponent(n1, m1, b1)
    value = power_of_two(narrowed(whole0, whole1), narrowed(rest0, rest1))
    value = select(size == 1.0, 1.0, value)
    # 1.0 where b is a whole number, an odd one; from 2^24 on all are even
    half = exponent * 0.5
    whole = select((exponent + ROUND) - ROUND == exponent, 1.0, 0.0)
    whole = select(exponent < ROUND, whole, 1.0)
    odd = select((half + ROUND) - ROUND == half, 0.0, whole)
    odd = select(exponent < 2.0 * ROUND, odd, 0.0)
    value = select(a < 0.0, select(whole == 0.0, math.nan, value), value)
    value = select(size == math.inf, select(b < 0.0, 0.0, math.inf), value)
    value = select(size == 0.0, select(b < 0.0, math.inf, 0.0), value)
    value = select(a < 0.0, select(odd == 1.0, -value, value), value)
    value = select(a == 0.0, select(odd == 1.0, select(b < 0.0, 1.0 / a, a), value), value)
    value = select(a == a, select(b == b, value, b), a)
    return select(a == 1.0, 1.0, value)


@numba.njit
def _registers(unit, y, a, b, low, high):
    for i in range(low, high, lanes_of(unit)):
        base = load_some(unit, a, i, high - i, 1.0)
        exponent = load_some(unit, b, i, high - i, 1.0)
        value = _by_products(base, exponent, _by_logarithm(base, exponent))
        store_first(y, i, high - i, value)


@numba.njit
def _of_double(a, b):
    if b == 0.5 or b == -0.5:
        side = math.inf if a == -math.inf else math.sqrt(a) + 0.0
        return side if b > 0 else 1.0 / side
    if b == -1.0:
        return 1.0 / a
    if b == -2.0:
        return (1.0 / a) * (1.0 / a)
    square = a * a
    return square if b == 2 else square * a if b == 3 else square * square if b == 4 else a**b


@numba.njit
def _by_one(y, a, b, count):
    """y = a ** b[0] -> True, where b is one of the exponents that need no logarithm."""
    one, far, zero = like(y, 1.0), like(y, math.inf), like(y, 0.0)
    if b[0] == 2:
        for i in range(count):
            y[i] = a[i] * a[i]
    elif b[0] == 3:
        for i in range(count):
            y[i] = a[i] * a[i] * a[i]
    elif b[0] == 4:
        for i in range(count):
            square = a[i] * a[i]
            y[i] = square * square
    elif b[0] == -1:
        for i in range(count):
            y[i] = one / a[i]
    elif b[0] == -2:
        for i in range(count):
            inverse = one / a[i]
            y[i] = inverse * inverse
    elif b[0] == 0.5:
        for i in range(count):
            y[i] = far if a[i] == -far else math.sqrt(a[i]) + zero
    elif b[0] == -0.5:
        for i in range(count):
            y[i] = one / (far if a[i] == -far else math.sqrt(a[i]) + zero)
    else:
        return False
    return True


@numba.njit
def _are_one(b, count):
    same = True
    for i in range(count):
        same &= b[i] == b[0]
    return same


@by_type
def powers(y, a, b, count, alike):
    """y = a ** b for contiguous elements of any type that computes; alike: all of b are equal."""

    def single(y, a, b, count, alike):
        if not ((alike or _are_one(b, count)) and _by_one(y, a, b, count)):
            middle = abreast(a, count)
            _registers(four(a), y, a, b, 0, middle)
            _registers(one(a), y, a, b, middle, count)

    def double(y, a, b, count, alike):
        if not ((alike or _are_one(b, count)) and _by_one(y, a, b, count)):
            for i in range(count):
                y[i] = _of_double(a[i], b[i])

    def whole(y, a, b, count, alike):
        for i in range(count):
            y[i] = _whole_power(np.int64(a[i]), np.int64(b[i]))

    kind = y.dtype
    return single if kind == numba.float32 else double if kind == numba.float64 else whole
