"""Elementwise kernels: flat where all operands have one shape, else by a Walk."""

from __future__ import annotations

import numpy as np

from .grids import BLOCK, blocks_of, flat, walked
from .launch import Kernels

_numbers = Kernels("elementwise")
_curves = Kernels("elementwise_curves")
_cast = Kernels("elementwise_astype")


def _binary(kernels, name):
    def kernel(y, a, b):
        if a.shape == b.shape:
            flat(kernels, name, y, a, b, T=y.dtype)
        else:
            walked(kernels, f"{name}_walk", y, a, b, T=y.dtype)

    kernel.__name__ = name
    return kernel


def _comparison(name):
    def kernel(y, a, b):
        walked(_numbers, f"{name}_walk", y, a, b, T=a.dtype)

    kernel.__name__ = name
    return kernel


def _unary(kernels, name):
    def kernel(y, x):
        flat(kernels, name, y, x, T=y.dtype)

    kernel.__name__ = name
    return kernel


def _gradient(name):
    def kernel(dx, g, y):
        flat(_curves, name, dx, g, y, T=dx.dtype)

    kernel.__name__ = name
    return kernel


add = _binary(_numbers, "add")
sub = _binary(_numbers, "sub")
mul = _binary(_numbers, "mul")
maximum = _binary(_numbers, "maximum")
minimum = _binary(_numbers, "minimum")
share = _binary(_numbers, "share")
div = _binary(_curves, "div")
_of_floats, _of_integers = _binary(_curves, "pow"), _binary(_numbers, "power")
prelu = _binary(_curves, "prelu")

less = _comparison("less")
less_equal = _comparison("less_equal")
greater = _comparison("greater")
greater_equal = _comparison("greater_equal")
equal = _comparison("equal")
not_equal = _comparison("not_equal")

neg = _unary(_numbers, "neg")
sign = _unary(_numbers, "sign")
abs = _unary(_numbers, "abs")
relu = _unary(_numbers, "relu")
exp = _unary(_curves, "exp")
log = _unary(_curves, "log")
sqrt = _unary(_curves, "sqrt")
sin = _unary(_curves, "sin")
cos = _unary(_curves, "cos")
tanh = _unary(_curves, "tanh")
erf = _unary(_curves, "erf")
sigmoid = _unary(_curves, "sigmoid")
softplus = _unary(_curves, "softplus")
gelu = _unary(_curves, "gelu")

relu_dx = _gradient("relu_dx")
tanh_dx = _gradient("tanh_dx")
sigmoid_dx = _gradient("sigmoid_dx")
gelu_dx = _gradient("gelu_dx")


def pow(y, a, b):
    (_of_floats if y.dtype.kind == "f" else _of_integers)(y, a, b)


def where(y, c, a, b):
    walked(_numbers, "where_walk", y, c, a, b, T=y.dtype)


def leaky_relu(y, x, *, slope):
    flat(_curves, "leaky_relu", y, x, options=(slope,), T=y.dtype)


def elu(y, x, *, alpha):
    flat(_curves, "elu", y, x, options=(alpha,), T=y.dtype)


def clip(y, x, *, low, high):
    ends = (-np.inf, np.inf)
    if x.dtype.kind != "f":
        ends = (np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
    low, high = (end if b is None else b for b, end in zip((low, high), ends, strict=True))
    flat(_numbers, "clip", y, x, options=(low, high), T=y.dtype)


def astype(y, x, *, dtype):
    if y.size:
        grid = blocks_of(y.size)
        _cast.run("astype", grid, BLOCK, y, x, y.size, T=y.dtype, S=x.dtype)


# in place -----------------------------------------------------------------------------------------


def fill_(x, *, value):
    flat(_numbers, "fill_", x, options=(value,), T=x.dtype)


def full_like(y, x, *, value):
    fill_(y, value=value)


def assign_(x, y):
    flat(_numbers, "assign_", x, y, T=x.dtype)


def accumulate_(x, g):
    flat(_numbers, "add", x, x, g, T=x.dtype)
