"""Elementwise kernels."""

from __future__ import annotations

import math

import numpy as np

from .. import scratch

# two arrays ---------------------------------------------------------------------------------------


def add(y, a, b):
    np.add(a, b, out=y)


def sub(y, a, b):
    np.subtract(a, b, out=y)


def mul(y, a, b):
    np.multiply(a, b, out=y)


def div(y, a, b):
    with np.errstate(all="ignore"):
        np.divide(a, b, out=y)


def pow(y, a, b):
    y[...] = b  # beside a single power NumPy takes sqrt for 0.5, which differs at -inf and -0
    power = np.float_power if y.size == 1 and y.dtype.kind == "f" else np.power
    with np.errstate(all="ignore"):
        power(a, y, out=y, casting="same_kind")


def maximum(y, a, b):
    np.maximum(a, b, out=y)


def minimum(y, a, b):
    np.minimum(a, b, out=y)


@scratch(lambda y, a, b: [(y.shape, bool)])
def share(y, a, b, *, scratch):
    np.greater(a, b, out=scratch[0])
    y[...] = scratch[0]
    np.equal(a, b, out=scratch[0])
    np.add(y, 0.5, out=y, where=scratch[0], casting="unsafe")


def less(y, a, b):
    np.less(a, b, out=y)


def less_equal(y, a, b):
    np.less_equal(a, b, out=y)


def greater(y, a, b):
    np.greater(a, b, out=y)


def greater_equal(y, a, b):
    np.greater_equal(a, b, out=y)


def equal(y, a, b):
    np.equal(a, b, out=y)


def not_equal(y, a, b):
    np.not_equal(a, b, out=y)


def where(y, c, a, b):
    y[...] = b
    np.copyto(y, a, where=c)


# one array ----------------------------------------------------------------------------------------


def neg(y, x):
    np.negative(x, out=y)


def sign(y, x):
    np.sign(x, out=y)


def abs(y, x):
    np.abs(x, out=y)


def exp(y, x):
    with np.errstate(over="ignore", under="ignore"):
        np.exp(x, out=y)


def log(y, x):
    with np.errstate(divide="ignore", invalid="ignore"):
        np.log(x, out=y)


def sqrt(y, x):
    with np.errstate(invalid="ignore"):
        np.sqrt(x, out=y)


def sin(y, x):
    with np.errstate(invalid="ignore"):
        np.sin(x, out=y)


def cos(y, x):
    with np.errstate(invalid="ignore"):
        np.cos(x, out=y)


def tanh(y, x):
    np.tanh(x, out=y)


def erf(y, x):
    """The standard library's erf, one element at a time: plain, and right to the last digit."""
    flat, source = y.reshape(-1), x.reshape(-1)
    for i in range(flat.size):
        flat[i] = math.erf(source[i])


def sigmoid(y, x):
    """(tanh(x / 2) + 1) / 2 cannot overflow."""
    np.multiply(x, 0.5, out=y)
    np.tanh(y, out=y)
    y += 1
    y *= 0.5


def softplus(y, x):
    """ln(e^0 + e^x) without overflow."""
    with np.errstate(under="ignore"):
        np.logaddexp(x, 0, out=y)


def relu(y, x):
    np.maximum(x, 0, out=y)


def _truths(y, *_, **__):
    return [(y.shape, bool)]


@scratch(_truths)
def relu_dx(dx, g, y, *, scratch):
    np.greater(y, 0, out=scratch[0])
    dx[...] = 0
    np.copyto(dx, g, where=scratch[0])


def tanh_dx(dx, g, y):
    """g - g y^2."""
    np.multiply(y, y, out=dx)
    np.subtract(1, dx, out=dx)
    np.multiply(dx, g, out=dx)


def sigmoid_dx(dx, g, y):
    np.subtract(1, y, out=dx)
    np.multiply(dx, y, out=dx)
    np.multiply(dx, g, out=dx)


@scratch(_truths)
def leaky_relu(y, x, *, slope, scratch):
    np.greater(x, 0, out=scratch[0])
    np.multiply(x, slope, out=y)
    np.copyto(y, x, where=scratch[0])


@scratch(_truths)
def elu(y, x, *, alpha, scratch):
    np.minimum(x, 0, out=y)
    np.expm1(y, out=y)
    y *= alpha
    np.greater(x, 0, out=scratch[0])
    np.copyto(y, x, where=scratch[0])


@scratch(_truths)
def prelu(y, x, slope, *, scratch):
    np.multiply(x, slope, out=y)
    np.greater(x, 0, out=scratch[0])
    np.copyto(y, x, where=scratch[0])


@scratch(lambda y, x: [(y.shape, y.dtype)])
def gelu(y, x, *, scratch):
    np.multiply(x, 0.5**0.5, out=scratch[0])
    erf(y, scratch[0])
    y += 1
    y *= x
    y *= 0.5


def gelu_dx(dx, g, x):
    """g * (P(Z <= x) + x e^(-x^2/2) / sqrt(2 pi)), in two steps of one array each."""
    density = np.exp(x * x * -0.5) * (x * (1 / (2 * np.pi) ** 0.5))
    np.multiply(x, 0.5**0.5, out=dx)
    erf(dx, dx)
    dx += 1
    dx *= 0.5
    dx += density
    dx *= g


def clip(y, x, *, low, high):
    np.clip(x, low, high, out=y)


def astype(y, x, *, dtype):
    with np.errstate(invalid="ignore", over="ignore"):
        np.copyto(y, x, casting="unsafe")


# in place -----------------------------------------------------------------------------------------


def fill_(x, *, value):
    x[...] = value


def assign_(x, y):
    x[...] = y


def accumulate_(x, g):
    x += g


def full_like(y, x, *, value):
    y[...] = value
