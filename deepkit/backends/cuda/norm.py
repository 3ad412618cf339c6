"""Normalisation: sums in two stages, always in the same order, then a pass over the elements.

The grids depend on shapes alone, so that one result is had on every GPU.
"""

from __future__ import annotations

import math

import numpy as np

from .. import scratch
from .grids import BLOCK, MOST_BLOCKS, blocks_of
from .launch import Kernels

_batch = Kernels("norm")
_layer = Kernels("norm_layer")
_gradients = Kernels("norm_gradients")
_response = Kernels("norm_response")

DOUBLE = np.dtype(np.float64)
MOST_PIECES = 1024  # blocks of a first stage
LEAST_ROWS = 4  # that a thread of it has, where there are enough
WARP = 32
LONG_ROW = 1024  # elements from which on a row has a block, not a warp
ACTIVATIONS = (None, "relu", "tanh", "sigmoid")  # by their numbers in norm.cu

# columns ------------------------------------------------------------------------------------------


def _power(n):
    """The smallest power of two that is not below n."""
    return 1 << max(0, n - 1).bit_length()


def _matrix(x, axes=1):
    """(rows, columns) of x, where the last axes together are the columns."""
    columns = math.prod(x.shape[x.ndim - axes :])
    return math.prod(x.shape[: x.ndim - axes]), columns


def _down(size, most=MOST_PIECES):
    """(grid, block) to go down columns: as wide as the matrix, up to 32."""
    rows, columns = size
    wide = min(WARP, _power(columns))
    high = BLOCK // wide
    across = -(-columns // wide)
    pieces = min(most // across, -(-rows // (high * LEAST_ROWS)))
    return (across, max(1, pieces)), (wide, high)


def _pieces(x, axes=1):
    """The scratch between the stages of norm.cuh: two sums for every piece and column."""
    size = _matrix(x, axes)
    (_, count), _ = _down(size)
    return (count, size[1], 2), DOUBLE


def _together(pieces):
    """(grid, block) of a second stage."""
    count, columns, _ = pieces.shape
    wide = min(WARP, _power(columns))
    return -(-columns // wide), (wide, min(1024 // wide, _power(count)))


# batch normalisation ------------------------------------------------------------------------------


@scratch(lambda y, *_, **__: [_pieces(y)])
def batch_norm_train(
    y, mean, invstd, x, gamma, beta, residual, running_mean, running_var,
    *, momentum, eps, activation, scratch,
):  # fmt: skip
    (pieces,) = scratch
    size, types = _matrix(x), dict(T=x.dtype)
    _batch.run("batch_norm_sums", *_down(size), pieces, x, *size, **types)
    results = (mean, invstd, running_mean, running_var)
    of = (pieces, len(pieces), x, *size, momentum, eps)
    _batch.run("batch_norm_statistics", *_together(pieces), *results, *of, **types)
    ins = (x, gamma, beta, residual, mean, invstd)
    act = ACTIVATIONS.index(activation)
    _batch.run("batch_norm_train", *_down(size, MOST_BLOCKS), y, *ins, *size, act, **types)


@scratch(lambda dx, *_, **__: [_pieces(dx)])
def batch_norm_dx(dx, dgamma, dbeta, g, x, gamma, mean, invstd, beta, *, relu, scratch):
    (pieces,) = scratch
    size, types = _matrix(x), dict(T=x.dtype)
    ins = (g, x, gamma, mean, invstd, beta)
    _batch.run("batch_norm_dx_sums", *_down(size), pieces, *ins, *size, relu, **types)
    _norm_gradients(dgamma, dbeta, pieces)
    of = (*ins, dgamma, dbeta, *size, relu)
    _batch.run("batch_norm_dx", *_down(size, MOST_BLOCKS), dx, *of, **types)


def _norm_gradients(dgamma, dbeta, pieces):
    of = (pieces, len(pieces), dgamma.size)
    _gradients.run("norm_gradients", *_together(pieces), dgamma, dbeta, *of, T=dgamma.dtype)


def batch_norm_infer(
    y, x, gamma, beta, residual, running_mean, running_var, *, eps, activation
):  # fmt: skip
    size, act = _matrix(x), ACTIVATIONS.index(activation)
    of = (x, gamma, beta, residual, running_mean, running_var, *size, eps, act)
    _batch.run("batch_norm_infer", *_down(size, MOST_BLOCKS), y, *of, T=x.dtype)


# layer normalisation ------------------------------------------------------------------------------


def _row_by_row(name, rows, size, *arguments, **types):
    """A warp for each row of up to LONG_ROW elements, a block for each longer one."""
    high = BLOCK // WARP
    if size <= LONG_ROW:
        _layer.run(f"{name}_warps", blocks_of(rows, high), (WARP, high), *arguments, **types)
    else:
        _layer.run(f"{name}_blocks", blocks_of(rows, 1), (WARP, high), *arguments, **types)


def layer_norm_over(y, mean, invstd, x, gamma, beta, *, axes, eps):
    size = _matrix(x, axes)
    of = (y, mean, invstd, x, gamma, beta, *size, 1 / size[1], eps)
    _row_by_row("layer_norm", *size, *of, T=x.dtype)


@scratch(lambda dx, *_, axes: [_pieces(dx, axes)])
def layer_norm_dx(dx, dgamma, dbeta, g, x, gamma, mean, invstd, *, axes, scratch):
    (pieces,) = scratch
    size, types = _matrix(x, axes), dict(T=x.dtype)
    of = (dx, g, x, gamma, mean, invstd, *size, 1 / size[1])
    _row_by_row("layer_norm_dx", *size, *of, **types)
    _layer.run("layer_norm_sums", *_down(size), pieces, g, x, mean, invstd, *size, **types)
    _norm_gradients(dgamma, dbeta, pieces)


# local response normalisation ---------------------------------------------------------------------


def _window(x, size):
    return x.size, x.shape[-1], size


def local_response_norm(y, x, *, size, alpha, beta, k):
    of = (y, x, *_window(x, size), alpha / size, beta, k)
    _response.run("local_response_norm", blocks_of(x.size), BLOCK, *of, T=x.dtype)


@scratch(lambda dx, *_, **__: [(dx.shape, dx.dtype)])
def local_response_norm_dx(dx, g, x, *, size, alpha, beta, k, scratch):
    (spread,) = scratch
    grid, window, types = blocks_of(x.size), _window(x, size), dict(T=x.dtype)
    parts = (dx, spread, g, x, *window, alpha / size, beta, k)
    _response.run("local_response_norm_parts", grid, BLOCK, *parts, **types)
    share = 2 * alpha * beta / size
    _response.run("local_response_norm_dx", grid, BLOCK, dx, spread, x, *window, share, **types)
