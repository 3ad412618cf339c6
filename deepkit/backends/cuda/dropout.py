"""Random numbers: a thread makes four words of Philox at a time, and 16 bytes of them."""

from __future__ import annotations

import math

from .grids import BLOCK, blocks_of
from .launch import Kernels

_dropout = Kernels("dropout")


def next_key_(key, state):
    _dropout.run("next_key_", 1, 1, key, state, T="float")


def drop(y, x, key, *, p):
    least, scale = math.ceil(p * 2**32), 1 / (1 - p) if p < 1 else 0.0
    grid = blocks_of(-(-x.size // 4))
    _dropout.run("drop", grid, BLOCK, y, x, key, x.size, least, scale, T=y.dtype)


def _random(name, y, key):
    grid = blocks_of(-(-y.size * y.dtype.itemsize // 16))
    _dropout.run(name, grid, BLOCK, y, key, y.size, T=y.dtype)


def random_uniform(y, key, *, shape, dtype):
    _random("random_uniform", y, key)


def random_normal(y, key, *, shape, dtype):
    _random("random_normal", y, key)
