"""gelu(x) = x P(Z <= x), Z a standard normal variable, and its gradient.

With a = |x|, float32 computes the rarer side P(Z > a) = e^(-a^2 / 2) m(a) in registers, where the
factor m (half Mills' ratio over sqrt(pi / 2)) is smooth and positive: a polynomial in
t = 1 / (1 + 0.35 a).  So the left tail keeps the digits that 1 + erf(x / sqrt 2) loses.  float64
calls the standard library.
"""

from __future__ import annotations

import math
from typing import Any

import numba

from .functions import exp, polynomial
from .lanes import stored
from .launch import kernel, launch, ptr, size
from .rows import by_type
from .vector import abreast, four, lanes_of, load_some, magnitude, one, select, store_first

# m(a) / t in t, within 3.2e-8: least squares, weighted again and again where the error was largest
_factor = polynomial(
    [
        0.139621258,
        0.139864337,
        0.119815489,
        0.105574833,
        -0.0232638831,
        0.159392925,
        -0.255901809,
        0.144060737,
        -0.029163903,
    ],
    [],
)
DENSITY = (2 * math.pi) ** -0.5  # of Z at 0


@numba.njit
def _normal(x):
    """Registers of P(Z <= x) and of the density at x."""
    a = magnitude(x)
    t = 1.0 / (1.0 + 0.35 * a)
    bell = exp(a * a * -0.5)
    above = t * _factor(t) * bell
    return select(x > 0.0, 1.0 - above, above), DENSITY * bell


@numba.njit
def _values(unit, y, x, low, high):
    for i in range(low, high, lanes_of(unit)):
        value = load_some(unit, x, i, high - i, 0.0)
        below, _ = _normal(value)
        store_first(y, i, high - i, value * below)


@numba.njit
def _slopes(unit, dx, g, x, low, high):
    for i in range(low, high, lanes_of(unit)):
        value = load_some(unit, x, i, high - i, 0.0)
        below, density = _normal(value)
        store_first(
            dx, i, high - i, load_some(unit, g, i, high - i, 0.0) * (below + value * density)
        )


@by_type
def _forward(y, x, low, high):
    def double(y, x, low, high):
        for i in range(low, high):
            y[i] = 0.5 * (x[i] * (1.0 + math.erf(x[i] * 0.5**0.5)))

    def single(y, x, low, high):
        middle = low + abreast(x, high - low)
        _values(four(x), y, x, low, middle)
        _values(one(x), y, x, middle, high)

    return double if y.dtype == numba.types.float64 else single


@by_type
def _backward(dx, g, x, low, high):
    def double(dx, g, x, low, high):
        for i in range(low, high):
            below = 0.5 * (1.0 + math.erf(x[i] * 0.5**0.5))
            dx[i] = g[i] * (below + x[i] * (DENSITY * math.exp(x[i] * x[i] * -0.5)))

    def single(dx, g, x, low, high):
        middle = low + abreast(x, high - low)
        _slopes(four(x), dx, g, x, low, middle)
        _slopes(one(x), dx, g, x, middle, high)

    return double if dx.dtype == numba.types.float64 else single


@kernel
def _gelu(t, n, y: ptr, x: ptr, count: size):
    _forward(y, x, t * count // n, (t + 1) * count // n)


@kernel
def _gelu_dx(t, n, dx: ptr, g: ptr, x: ptr, count: size):
    """dx = g * (P(Z <= x) + x p(x)), p the density of Z."""
    _backward(dx, g, x, t * count // n, (t + 1) * count // n)


def gelu(y: Any, x: Any) -> None:
    launch(_gelu, y.dtype, y, x, stored(y))


def gelu_dx(dx: Any, g: Any, x: Any) -> None:
    launch(_gelu_dx, dx.dtype, dx, g, x, stored(dx))
