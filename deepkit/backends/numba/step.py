"""Optimiser steps: flat memory, each thread a stretch of it, one pass over every array.

The common steps keep what they do to an element in registers.  Others are plain loops over pieces
of 256, whose intermediate values stay on the stack.
"""

from __future__ import annotations

import math
from typing import Any

import numba

from .. import scratch
from .functions import root
from .launch import flt, i64ptr, kernel, launch, ptr, size, u8ptr
from .rows import like, number, tile, view, wide_tile
from .simd import at, real
from .vector import abreast, four, lanes_of, load_some, one, store_first

PIECE = 256  # elements, see `tile`
BLOCK = 16384  # elements that are squared and summed at a time


@numba.njit
def _scalar(address, narrow):
    """A float32 or float64 number in memory: the learning rate need not have the type of w."""
    if narrow:
        return numba.float64(view(address, numba.float32)[0])
    return view(address, numba.float64)[0]


@numba.njit
def _decayed(out, g, w, decay, count):
    """g + decay * w.  Without decay w plays no part, even if it is infinite."""
    if decay == 0:
        for i in range(count):
            out[i] = g[i]
    else:
        for i in range(count):
            out[i] = g[i] + decay * w[i]


@numba.njit
def _descend(w, change, rate, count):
    for i in range(count):
        w[i] -= rate * change[i]


@numba.njit
def _gather(v, change, momentum, count):
    """v = momentum v + change."""
    for i in range(count):
        v[i] = momentum * v[i] + change[i]


@numba.njit
def _mix(mean, g, keep, rest, count):
    """mean = keep * mean + rest * g."""
    for i in range(count):
        mean[i] = keep * mean[i] + rest * g[i]


@numba.njit
def _mix_squares(mean, g, keep, rest, count):
    for i in range(count):
        mean[i] = keep * mean[i] + rest * (g[i] * g[i])


@kernel
def _count(t, n, steps: i64ptr):
    if t == 0:
        steps[0] += 1


def _narrow(array: Any) -> int:
    return int(array.dtype.itemsize == 4)


# steps --------------------------------------------------------------------------------------------


@numba.njit
def _stretch(t, n, count):
    """Thread t's part of a flat array: whole pieces of 256."""
    pieces = (count + 255) // 256
    return 256 * (t * pieces // n), min(256 * ((t + 1) * pieces // n), count)


@numba.njit
def _sgd_on(unit, w, v, g, low, high, rate, keep, nesterov, shrink):
    for i in range(low, high, lanes_of(unit)):
        weight = load_some(unit, w, i, high - i, 0.0)
        change = load_some(unit, g, i, high - i, 0.0)
        if shrink != 0:  # without decay w plays no part, even if it is infinite
            change += shrink * weight
        if keep != 0:
            speed = keep * load_some(unit, v, i, high - i, 0.0) + change
            store_first(v, i, high - i, speed)
            change = change + keep * speed if nesterov else speed
        store_first(w, i, high - i, weight - rate * change)


@kernel
def _sgd(
    t, n, w: ptr, v: ptr, g: ptr, lr: u8ptr, narrow: size, count: size, momentum: flt,
    nesterov: size, decay: flt,
):  # fmt: skip
    rate, keep, shrink = like(w, _scalar(lr, narrow)), number(w, momentum), number(w, decay)
    low, high = _stretch(t, n, count)
    middle = low + abreast(w, high - low)
    _sgd_on(four(w), w, v, g, low, middle, rate, keep, nesterov != 0, shrink)
    _sgd_on(one(w), w, v, g, middle, high, rate, keep, nesterov != 0, shrink)


def sgd_step(
    w: Any, v: Any, g: Any, lr: Any, *, momentum: float, nesterov: bool, weight_decay: float
) -> None:
    launch(_sgd, w.dtype, w, v, g, lr, _narrow(lr), w.size, momentum, int(nesterov), weight_decay)


@numba.njit
def _adam_on(unit, w, m, v, g, low, high, means, squares, stride, kept, root_of, least, shrink):
    for i in range(low, high, lanes_of(unit)):
        weight = load_some(unit, w, i, high - i, 0.0)
        change = load_some(unit, g, i, high - i, 0.0)
        if shrink != 0:
            change += shrink * weight
        first = means[0] * load_some(unit, m, i, high - i, 0.0) + means[1] * change
        square = change * change
        second = squares[0] * load_some(unit, v, i, high - i, 0.0) + squares[1] * square
        store_first(m, i, high - i, first)
        store_first(v, i, high - i, second)
        change = first / (root(second) * root_of + least)
        store_first(w, i, high - i, kept * weight - stride * change)


@kernel
def _adam(
    t, n, w: ptr, m: ptr, v: ptr, g: ptr, lr: u8ptr, narrow: size, steps: i64ptr, count: size,
    beta1: flt, beta2: flt, eps: flt, decay: flt, decoupled: size,
):  # fmt: skip
    b1, b2, rate, step = real(beta1), real(beta2), _scalar(lr, narrow), float(steps[0])
    means, squares = (like(w, b1), like(w, 1 - b1)), (like(w, b2), like(w, 1 - b2))
    stride = like(w, rate / (1 - b1**step))
    root_of, least = like(w, 1 / math.sqrt(1 - b2**step)), number(w, eps)
    shrink = like(w, 0.0) if decoupled else number(w, decay)
    kept = like(w, 1 - rate * real(decay)) if decoupled else like(w, 1.0)
    low, high = _stretch(t, n, count)
    middle = low + abreast(w, high - low)
    _adam_on(four(w), w, m, v, g, low, middle, means, squares, stride, kept, root_of, least,
             shrink)  # fmt: skip
    _adam_on(one(w), w, m, v, g, middle, high, means, squares, stride, kept, root_of, least,
             shrink)  # fmt: skip


def adam_step(
    w: Any, m: Any, v: Any, g: Any, lr: Any, t: Any, *, beta1: float, beta2: float, eps: float,
    weight_decay: float, decoupled: bool,
) -> None:  # fmt: skip
    launch(_count, w.dtype, t)
    launch(_adam, w.dtype, w, m, v, g, lr, _narrow(lr), t, w.size, beta1, beta2, eps,
           weight_decay, int(decoupled))  # fmt: skip


@kernel
def _rmsprop(
    t, n, w: ptr, s: ptr, m: ptr, v: ptr, g: ptr, lr: u8ptr, narrow: size, count: size,
    alpha: flt, eps: flt, momentum: flt, decay: flt, centred: size,
):  # fmt: skip
    change, spread = tile(w), tile(w)
    rate, shrink, least = like(w, _scalar(lr, narrow)), number(w, decay), number(w, eps)
    keep, rest, gather = number(w, alpha), like(w, 1 - real(alpha)), number(w, momentum)
    pieces = (count + 255) // 256
    for piece in range(t * pieces // n, (t + 1) * pieces // n):
        start, some = 256 * piece, min(256, count - 256 * piece)
        weights, squares, mean, speed = at(w, start), at(s, start), at(m, start), at(v, start)
        _decayed(change, at(g, start), weights, shrink, some)
        _mix_squares(squares, change, keep, rest, some)
        for i in range(some):
            spread[i] = squares[i]
        if centred:
            _mix(mean, change, keep, rest, some)
            for i in range(some):
                spread[i] -= mean[i] * mean[i]
        for i in range(some):
            change[i] /= math.sqrt(spread[i]) + least
        if real(momentum) == 0:
            _descend(weights, change, rate, some)
        else:
            _gather(speed, change, gather, some)
            _descend(weights, speed, rate, some)


def rmsprop_step(
    w: Any, s: Any, m: Any, v: Any, g: Any, lr: Any, *, alpha: float, eps: float, momentum: float,
    weight_decay: float,
) -> None:  # fmt: skip
    launch(_rmsprop, w.dtype, w, s, m, v, g, lr, _narrow(lr), w.size, alpha, eps, momentum,
           weight_decay, int(m is not None))  # fmt: skip


@kernel
def _adagrad(
    t, n, w: ptr, s: ptr, g: ptr, lr: u8ptr, narrow: size, steps: i64ptr, count: size,
    lr_decay: flt, eps: flt, decay: flt,
):  # fmt: skip
    change = tile(w)
    rate = like(w, _scalar(lr, narrow) / (1 + (steps[0] - 1) * real(lr_decay)))
    shrink, least = number(w, decay), number(w, eps)
    pieces = (count + 255) // 256
    for piece in range(t * pieces // n, (t + 1) * pieces // n):
        start, some = 256 * piece, min(256, count - 256 * piece)
        weights, squares = at(w, start), at(s, start)
        _decayed(change, at(g, start), weights, shrink, some)
        for i in range(some):
            squares[i] += change[i] * change[i]
        for i in range(some):
            change[i] /= math.sqrt(squares[i]) + least
        _descend(weights, change, rate, some)


def adagrad_step(
    w: Any, s: Any, g: Any, lr: Any, t: Any, *, lr_decay: float, eps: float, weight_decay: float
) -> None:
    launch(_count, w.dtype, t)
    launch(_adagrad, w.dtype, w, s, g, lr, _narrow(lr), t, w.size, lr_decay, eps, weight_decay)


# clipping -----------------------------------------------------------------------------------------


@kernel
def _squares(t, n, sums: u8ptr, x: ptr, count: size):
    """One float64 for each block of x: the sum of its squares."""
    total, partial = view(sums, numba.float64), wide_tile(x)
    blocks = (count + 16383) // 16384
    for block in range(t * blocks // n, (t + 1) * blocks // n):
        start, stop = 16384 * block, min(16384 * (block + 1), count)
        for i in range(64):
            partial[i] = 0.0
        for begin in range(start, stop, 64):
            row = at(x, begin)
            for i in range(min(64, stop - begin)):
                value = numba.float64(row[i])
                partial[i] += value * value
        total[block] = 0.0
        for i in range(64):
            total[block] += partial[i]


@kernel
def _root(t, n, y: ptr, sums: u8ptr, count: size):
    if t == 0:
        total = 0.0
        for i in range(count):
            total += view(sums, numba.float64)[i]
        y[0] = math.sqrt(total)


def _blocks(x: Any) -> int:
    return -(-x.size // BLOCK)


@scratch(lambda y, *xs: [((max(sum(map(_blocks, xs)), 1),), "float64")])
def l2_norm(y: Any, *xs: Any, scratch: Any) -> None:
    (sums,) = scratch
    done = 0
    for x in xs:
        launch(_squares, y.dtype, sums[done:], x, x.size)
        done += _blocks(x)
    launch(_root, y.dtype, y, sums, done)


@kernel
def _clip(t, n, g: ptr, norm: u8ptr, narrow: size, count: size, most: flt):
    factor = real(most) / (_scalar(norm, narrow) + 1e-6)
    scale = like(g, 1.0 if factor > 1 else factor)
    pieces = (count + 255) // 256
    low, high = t * pieces // n * 256, min((t + 1) * pieces // n * 256, count)
    for i in range(low, high):
        g[i] *= scale


def clip_step(g: Any, norm: Any, *, max_norm: float) -> None:
    launch(_clip, g.dtype, g, norm, _narrow(norm), g.size, max_norm)
