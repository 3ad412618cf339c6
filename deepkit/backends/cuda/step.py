"""Optimiser steps over flat memory, 16 bytes of every array a thread and turn.

The learning rate and the number of the step stay on the device: nothing waits for the host.
"""

from __future__ import annotations

import numpy as np

from .. import scratch
from .grids import BLOCK, blocks_of, flat
from .launch import Kernels

_step = Kernels("step")

DOUBLE = np.dtype(np.float64)
NORM_BLOCKS = 512  # at most so many partial sums of one array


def sgd_step(w, v, g, lr, *, momentum, nesterov, weight_decay):
    options = (momentum, nesterov, weight_decay)
    flat(_step, "sgd_step", w, v, g, lr, options=options, T=w.dtype, S=lr.dtype)


@scratch(lambda *_, **__: [((2,), DOUBLE)])
def adam_step(w, m, v, g, lr, t, *, beta1, beta2, eps, weight_decay, decoupled, scratch):
    (now,) = scratch
    types = dict(T=w.dtype, S=lr.dtype)
    _step.run("adam_begin", 1, 1, now, lr, t, beta1, beta2, **types)
    options = (beta1, beta2, eps, weight_decay, decoupled)
    flat(_step, "adam_step", w, m, v, g, lr, now, options=options, **types)


def rmsprop_step(w, s, m, v, g, lr, *, alpha, eps, momentum, weight_decay):
    options = (alpha, eps, momentum, weight_decay)
    flat(_step, "rmsprop_step", w, s, m, v, g, lr, options=options, T=w.dtype, S=lr.dtype)


@scratch(lambda *_, **__: [((1,), DOUBLE)])
def adagrad_step(w, s, g, lr, t, *, lr_decay, eps, weight_decay, scratch):
    (now,) = scratch
    types = dict(T=w.dtype, S=lr.dtype)
    _step.run("adagrad_begin", 1, 1, now, lr, t, lr_decay, **types)
    flat(_step, "adagrad_step", w, s, g, now, options=(eps, weight_decay), **types)


# clipping -----------------------------------------------------------------------------------------


def _norm_blocks(x):
    """How many blocks square and sum x: a matter of its size alone, so that no device differs."""
    return blocks_of(-(-x.size * x.dtype.itemsize // 16), BLOCK, NORM_BLOCKS)


@scratch(lambda y, *xs: [((max(1, sum(_norm_blocks(x) for x in xs)),), DOUBLE)])
def l2_norm(y, *xs, scratch):
    (blocks,) = scratch
    types, start = dict(T=y.dtype, S=y.dtype), 0
    for x in xs:
        stop = start + _norm_blocks(x)
        _step.run("l2_norm_blocks", stop - start, BLOCK, blocks[start:stop], x, x.size, **types)
        start = stop
    _step.run("l2_norm", 1, BLOCK, y, blocks, start, **types)


def clip_step(g, norm, *, max_norm):
    flat(_step, "clip_step", g, norm, options=(max_norm,), T=g.dtype, S=norm.dtype)
