"""Elementwise kernels: an opcode selects one of a kernel's plain loops.

_pair     y = a op b, where a and b may be broadcast (rows.py), any arithmetic type
_compare  the same with a bool result
_choose   y = a where c else b
_each     y = f(x) for the functions that integers have too, flat over memory, spare lanes too
_curve    y = f(x) for floats, in place as well (activations that were fused)
_cast     y = x as another type
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from . import casts, curves
from .lanes import stored
from .launch import flt, kernel, launch, ptr, size, u8ptr
from .powers import powers
from .rows import NOTHING, bits_type, like, number, plan, sweep, typed, word

ADD, SUB, MUL, DIV, POW, MAXIMUM, MINIMUM, SHARE, COPY = range(9)
RELU_DX, TANH_DX, SIGMOID_DX, PRELU, POWER = range(9, 14)  # POWER: of one exponent
LESS, LESS_EQUAL, EQUAL, NOT_EQUAL = range(4)
FILL, NEG, ABS, SIGN, RELU, CLIP, LEAKY, ACCUMULATE = range(8)

_magnitude = abs  # here `abs` is an op

# two arrays ---------------------------------------------------------------------------------------


@numba.njit
def _combine(op, y, a, b, c, count):
    zero, half, one = like(y, 0.0), like(y, 0.5), like(y, 1.0)
    if op == ADD:
        for i in range(count):
            y[i] = a[i] + b[i]
    elif op == SUB:
        for i in range(count):
            y[i] = a[i] - b[i]
    elif op == MUL:
        for i in range(count):
            y[i] = a[i] * b[i]
    elif op == DIV:
        for i in range(count):
            y[i] = a[i] / b[i]
    elif op in (POW, POWER):
        powers(y, a, b, count, op == POWER)
    elif op == MAXIMUM:
        for i in range(count):
            y[i] = a[i] if a[i] >= b[i] or a[i] != a[i] else b[i]
    elif op == MINIMUM:
        for i in range(count):
            y[i] = a[i] if a[i] <= b[i] or a[i] != a[i] else b[i]
    elif op == SHARE:
        for i in range(count):
            y[i] = one if a[i] > b[i] else half if a[i] == b[i] else zero
    elif op == COPY:
        for i in range(count):
            y[i] = a[i]
    elif op == RELU_DX:
        for i in range(count):
            y[i] = a[i] if b[i] > zero else zero
    elif op == TANH_DX:
        for i in range(count):
            y[i] = a[i] * (one - b[i] * b[i])
    elif op == SIGMOID_DX:
        for i in range(count):
            y[i] = a[i] * ((one - b[i]) * b[i])
    elif op == PRELU:
        for i in range(count):
            y[i] = a[i] if a[i] > zero else a[i] * b[i]


@kernel
def _pair(
    t, n, y: ptr, a: ptr, b: ptr, op: size, columns: size, span: size, rows: size, row: size,
    n2: size, n1: size, n0: size,
    start_a: size, inner_a: size, a2: size, a1: size, a0: size, step_a: size,
    start_b: size, inner_b: size, b2: size, b1: size, b0: size, step_b: size,
):  # fmt: skip
    in_a = (start_a, inner_a, a2, a1, a0, step_a)
    in_b = (start_b, inner_b, b2, b1, b0, step_b)
    sweep(t, n, _combine, op, y, a, b, a, (columns, span, rows, row), (n2, n1, n0),
          in_a, in_b, NOTHING)  # fmt: skip


# a bool that is added or multiplied stays one: or, and
_BOOL = {ADD: MAXIMUM, MUL: MINIMUM, MAXIMUM: MAXIMUM, MINIMUM: MINIMUM, COPY: COPY}


def _apply(op: int, y: Any, a: Any, b: Any) -> None:
    dtype = y.dtype
    if dtype.kind == "b":
        op = _BOOL[op]
    for words in plan(y, a, b):
        launch(typed(_pair, dtype), dtype, y, a, b, op, *words)


def add(y: Any, a: Any, b: Any) -> None:
    _apply(ADD, y, a, b)


def sub(y: Any, a: Any, b: Any) -> None:
    _apply(SUB, y, a, b)


def mul(y: Any, a: Any, b: Any) -> None:
    _apply(MUL, y, a, b)


def div(y: Any, a: Any, b: Any) -> None:
    _apply(DIV, y, a, b)


def pow(y: Any, a: Any, b: Any) -> None:
    _apply(POWER if b.__class__ is np.ndarray and b.size == 1 else POW, y, a, b)


def maximum(y: Any, a: Any, b: Any) -> None:
    _apply(MAXIMUM, y, a, b)


def minimum(y: Any, a: Any, b: Any) -> None:
    _apply(MINIMUM, y, a, b)


def share(y: Any, a: Any, b: Any) -> None:
    _apply(SHARE, y, a, b)


def relu_dx(dx: Any, g: Any, y: Any) -> None:
    _apply(RELU_DX, dx, g, y)


def tanh_dx(dx: Any, g: Any, y: Any) -> None:
    _apply(TANH_DX, dx, g, y)


def sigmoid_dx(dx: Any, g: Any, y: Any) -> None:
    _apply(SIGMOID_DX, dx, g, y)


def prelu(y: Any, x: Any, slope: Any) -> None:
    _apply(PRELU, y, x, slope)


def broadcast_copy(y: Any, x: Any) -> None:
    """y = x, repeated: the values move as bits."""
    bits = bits_type(y.dtype)
    for words in plan(y, x, x):
        launch(typed(_pair, bits), bits, y, x, x, COPY, *words)


# comparisons --------------------------------------------------------------------------------------


@numba.njit
def _comparison(op, y, a, b, c, count):
    if op == LESS:
        for i in range(count):
            y[i] = a[i] < b[i]
    elif op == LESS_EQUAL:
        for i in range(count):
            y[i] = a[i] <= b[i]
    elif op == EQUAL:
        for i in range(count):
            y[i] = a[i] == b[i]
    elif op == NOT_EQUAL:
        for i in range(count):
            y[i] = a[i] != b[i]


@kernel
def _compare(
    t, n, y: u8ptr, a: ptr, b: ptr, op: size, columns: size, span: size, rows: size, row: size,
    n2: size, n1: size, n0: size,
    start_a: size, inner_a: size, a2: size, a1: size, a0: size, step_a: size,
    start_b: size, inner_b: size, b2: size, b1: size, b0: size, step_b: size,
):  # fmt: skip
    in_a = (start_a, inner_a, a2, a1, a0, step_a)
    in_b = (start_b, inner_b, b2, b1, b0, step_b)
    sweep(t, n, _comparison, op, y, a, b, a, (columns, span, rows, row), (n2, n1, n0),
          in_a, in_b, NOTHING)  # fmt: skip


def _judge(op: int, y: Any, a: Any, b: Any) -> None:
    for words in plan(y, a, b):
        launch(typed(_compare, a.dtype), a.dtype, y, a, b, op, *words)


def less(y: Any, a: Any, b: Any) -> None:
    _judge(LESS, y, a, b)


def less_equal(y: Any, a: Any, b: Any) -> None:
    _judge(LESS_EQUAL, y, a, b)


def greater(y: Any, a: Any, b: Any) -> None:
    _judge(LESS, y, b, a)


def greater_equal(y: Any, a: Any, b: Any) -> None:
    _judge(LESS_EQUAL, y, b, a)


def equal(y: Any, a: Any, b: Any) -> None:
    _judge(EQUAL, y, a, b)


def not_equal(y: Any, a: Any, b: Any) -> None:
    _judge(NOT_EQUAL, y, a, b)


@numba.njit
def _choice(op, y, c, a, b, count):
    for i in range(count):
        y[i] = a[i] if c[i] != 0 else b[i]


@kernel
def _choose(
    t, n, y: ptr, c: u8ptr, a: ptr, b: ptr, columns: size, span: size, rows: size, row: size,
    n2: size, n1: size, n0: size,
    start_c: size, inner_c: size, c2: size, c1: size, c0: size, step_c: size,
    start_a: size, inner_a: size, a2: size, a1: size, a0: size, step_a: size,
    start_b: size, inner_b: size, b2: size, b1: size, b0: size, step_b: size,
):  # fmt: skip
    in_c = (start_c, inner_c, c2, c1, c0, step_c)
    in_a = (start_a, inner_a, a2, a1, a0, step_a)
    in_b = (start_b, inner_b, b2, b1, b0, step_b)
    sweep(t, n, _choice, 0, y, c, a, b, (columns, span, rows, row), (n2, n1, n0),
          in_c, in_a, in_b)  # fmt: skip


def where(y: Any, c: Any, a: Any, b: Any) -> None:
    bits = bits_type(y.dtype)
    for words in plan(y, c, a, b):
        launch(typed(_choose, bits), bits, y, c, a, b, *words)


# one array ----------------------------------------------------------------------------------------


@kernel
def _each(t, n, op: size, y: ptr, x: ptr, count: size, p: flt, q: flt):
    low, high = t * count // n, (t + 1) * count // n
    first, second = number(y, p), number(y, q)
    zero, one = like(y, 0.0), like(y, 1.0)
    if op == FILL:
        for i in range(low, high):
            y[i] = first
    elif op == NEG:
        for i in range(low, high):
            y[i] = -x[i]
    elif op == ABS:
        for i in range(low, high):
            y[i] = _magnitude(x[i])
    elif op == SIGN:
        for i in range(low, high):
            y[i] = one if x[i] > zero else -one if x[i] < zero else x[i]
    elif op == RELU:
        for i in range(low, high):
            y[i] = zero if x[i] <= zero else x[i]
    elif op == CLIP:
        for i in range(low, high):
            held = first if x[i] < first else x[i]
            y[i] = second if held > second else held
    elif op == LEAKY:
        for i in range(low, high):
            y[i] = x[i] if x[i] > zero else x[i] * first
    elif op == ACCUMULATE:
        for i in range(low, high):
            y[i] += x[i]


def _map(op: int, y: Any, x: Any, p: Any = 0.0, q: Any = 0.0) -> None:
    dtype = y.dtype
    launch(typed(_each, dtype), dtype, op, y, x, stored(y), word(p, dtype), word(q, dtype))


def neg(y: Any, x: Any) -> None:
    _map(NEG, y, x)


def abs(y: Any, x: Any) -> None:
    _map(ABS, y, x)


def sign(y: Any, x: Any) -> None:
    _map(SIGN, y, x)


def relu(y: Any, x: Any) -> None:
    _map(RELU, y, x)


def leaky_relu(y: Any, x: Any, *, slope: float) -> None:
    _map(LEAKY, y, x, slope)


def clip(y: Any, x: Any, *, low: float | None, high: float | None) -> None:
    if y.dtype.kind == "f":
        least, most = -math.inf, math.inf
    else:
        least, most = np.iinfo(y.dtype).min, np.iinfo(y.dtype).max
    _map(CLIP, y, x, least if low is None else low, most if high is None else high)


def fill_(x: Any, *, value: float) -> None:
    _map(FILL, x, x, value)


def full_like(y: Any, x: Any, *, value: float) -> None:
    _map(FILL, y, y, value)


def accumulate_(x: Any, g: Any) -> None:
    _map(ACCUMULATE, x, g)


def assign_(x: Any, y: Any) -> None:
    broadcast_copy(x, y)


# functions of floats ------------------------------------------------------------------------------


def _bend(op: int, y: Any, x: Any, p: float = 0.0) -> None:
    launch(curves.curve, y.dtype, op, y, x, stored(y), p)


def exp(y: Any, x: Any) -> None:
    _bend(curves.EXP, y, x)


def log(y: Any, x: Any) -> None:
    _bend(curves.LOG, y, x)


def sqrt(y: Any, x: Any) -> None:
    _bend(curves.SQRT, y, x)


def sin(y: Any, x: Any) -> None:
    _bend(curves.SIN, y, x)


def cos(y: Any, x: Any) -> None:
    _bend(curves.COS, y, x)


def tanh(y: Any, x: Any) -> None:
    _bend(curves.TANH, y, x)


def erf(y: Any, x: Any) -> None:
    _bend(curves.ERF, y, x)


def sigmoid(y: Any, x: Any) -> None:
    _bend(curves.SIGMOID, y, x)


def softplus(y: Any, x: Any) -> None:
    _bend(curves.SOFTPLUS, y, x)


def elu(y: Any, x: Any, *, alpha: float) -> None:
    _bend(curves.ELU, y, x, alpha)


def activate(y: Any, activation: str | None) -> None:
    """A fused activation in place.  relu is applied by the micro-kernel that writes y."""
    if activation == "tanh":
        tanh(y, y)
    elif activation == "sigmoid":
        sigmoid(y, y)


def astype(y: Any, x: Any, *, dtype: str) -> None:
    to, of = casts.CODES[y.dtype.str[1:]], casts.CODES[x.dtype.str[1:]]
    launch(casts.cast, y.dtype, y, x, to, of, stored(y))
