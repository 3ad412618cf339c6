"""Optimiser steps, a block of memory at a time: the scratch stays small, and in the cache.

In a block, w, v, g, ... are the letters of the card.
"""

from __future__ import annotations

import math

import numpy as np

from .. import scratch

BLOCK = 16384  # elements


def _work(count):
    """`count` blocks of scratch, each no larger than the memory to step over."""
    return scratch(
        lambda first, *_, **__: [((min(BLOCK, first.size),), first.dtype)] * count,
    )


def _blocks(*arrays):
    """Flat pieces of the same elements of all arrays, one block after the other."""
    for start in range(0, arrays[0].size, BLOCK):
        yield [None if a is None else a.reshape(-1)[start : start + BLOCK] for a in arrays]


def _decayed(g, w, weight_decay, out):
    """g + weight_decay * w, in `out` if it differs from g."""
    if not weight_decay:
        return g
    np.multiply(w, weight_decay, out=out)
    out += g
    return out


def _mix(mean, g, keep, out):
    """mean = keep * mean + (1 - keep) * g."""
    mean *= keep
    np.multiply(g, 1 - keep, out=out)
    mean += out


def _mix_squares(mean, g, keep, out):
    """mean = keep * mean + (1 - keep) * g^2."""
    mean *= keep
    np.multiply(g, g, out=out)
    out *= 1 - keep
    mean += out


@_work(2)
@np.errstate(all="ignore")
def sgd_step(weights, velocities, gradients, lr, *, momentum, nesterov, weight_decay, scratch):
    rate = float(lr)
    for w, v, g in _blocks(weights, velocities, gradients):
        decayed, change = [s[: w.size] for s in scratch]
        g = _decayed(g, w, weight_decay, decayed)
        if v is not None:
            v *= momentum
            v += g
            if nesterov:
                np.multiply(v, momentum, out=change)
                change += g
                g = change
            else:
                g = v
        np.multiply(g, rate, out=change)
        w -= change


@_work(2)
@np.errstate(all="ignore")
def adam_step(
    weights,
    means,
    squares,
    gradients,
    lr,
    t,
    *,
    beta1,
    beta2,
    eps,
    weight_decay,
    decoupled,
    scratch,
):
    t += 1
    rate, step = float(lr), int(t)
    size, root = rate / (1 - beta1**step), math.sqrt(1 - beta2**step)
    for w, m, v, g in _blocks(weights, means, squares, gradients):
        decayed, work = [s[: w.size] for s in scratch]
        if decoupled:
            w *= 1 - rate * weight_decay
        else:
            g = _decayed(g, w, weight_decay, decayed)
        _mix(m, g, beta1, work)
        _mix_squares(v, g, beta2, work)
        np.sqrt(v, out=work)
        work /= root
        work += eps
        np.divide(m, work, out=work)
        work *= size
        w -= work


@_work(2)
@np.errstate(all="ignore")
def rmsprop_step(
    weights,
    squares,
    means,
    velocities,
    gradients,
    lr,
    *,
    alpha,
    eps,
    momentum,
    weight_decay,
    scratch,
):
    rate = float(lr)
    for w, s, m, v, g in _blocks(weights, squares, means, velocities, gradients):
        decayed, work = [a[: w.size] for a in scratch]
        g = _decayed(g, w, weight_decay, decayed)
        _mix_squares(s, g, alpha, work)
        if m is None:
            np.sqrt(s, out=work)
        else:
            _mix(m, g, alpha, work)
            np.multiply(m, m, out=work)
            np.subtract(s, work, out=work)
            np.sqrt(work, out=work)
        work += eps
        np.divide(g, work, out=work)
        if v is not None:
            v *= momentum
            v += work
            np.multiply(v, rate, out=work)
        else:
            work *= rate
        w -= work


@_work(2)
@np.errstate(all="ignore")
def adagrad_step(weights, squares, gradients, lr, t, *, lr_decay, eps, weight_decay, scratch):
    t += 1
    rate = float(lr) / (1 + (int(t) - 1) * lr_decay)
    for w, s, g in _blocks(weights, squares, gradients):
        decayed, work = [a[: w.size] for a in scratch]
        g = _decayed(g, w, weight_decay, decayed)
        np.multiply(g, g, out=work)
        s += work
        np.sqrt(s, out=work)
        work += eps
        np.divide(g, work, out=work)
        work *= rate
        w -= work


# clipping -----------------------------------------------------------------------------------------


@np.errstate(all="ignore")
def l2_norm(y, *xs):
    y[...] = 0
    for x in xs:
        y += np.dot(x.reshape(-1), x.reshape(-1))
    np.sqrt(y, out=y)


@np.errstate(all="ignore")
def clip_step(g, norm, *, max_norm):
    g *= float(np.minimum(max_norm / (float(norm) + 1e-6), 1))  # NaN stays NaN
