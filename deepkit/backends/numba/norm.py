"""Normalisation over the batch, over trailing axes, and over neighbouring channels.

batch   norm_batch.py
layer   norm_layer.py
local   [positions][C][64 images]       windows of channels, 64 at once
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from .. import scratch
from . import norm_batch as batch
from . import norm_layer as layer
from .elementwise import activate
from .lanes import Lanes, chunk_width
from .launch import flt, kernel, launch, ptr, size
from .rows import like, number, tile
from .simd import at, real

# batch normalisation ------------------------------------------------------------------------------


def _given(*operands: Any) -> int:
    """Which of them are there, a bit each."""
    return sum(2**i for i, operand in enumerate(operands) if operand is not None)


def _shape(x: Lanes) -> tuple[int, int, int, int]:
    """Images, lanes, positions, channels."""
    return x.shape[0], x.lanes, math.prod(x.shape[1:-1]), x.shape[-1]


def _floor(activation: str | None) -> float:
    return 0.0 if activation == "relu" else -math.inf


def batch_norm_train(
    y: Lanes, mean: Any, invstd: Any, x: Lanes, gamma: Any, beta: Any, residual: Any,
    running_mean: Any, running_var: Any, *, momentum: float, eps: float, activation: str | None,
) -> None:  # fmt: skip
    given = _given(gamma, beta, residual, running_mean, running_var)
    launch(batch.train, y.dtype, y, mean, invstd, x, gamma, beta, residual, running_mean,
           running_var, *_shape(x), given, momentum, eps, _floor(activation))  # fmt: skip
    activate(y, activation)


def batch_norm_infer(
    y: Any, x: Any, gamma: Any, beta: Any, residual: Any, running_mean: Any, running_var: Any,
    *, eps: float, activation: str | None,
) -> None:  # fmt: skip
    given = _given(gamma, beta, residual)
    if isinstance(x, Lanes):
        launch(batch.infer, y.dtype, y, x, gamma, beta, residual, running_mean, running_var,
               *_shape(x), given, eps, _floor(activation))  # fmt: skip
    else:
        channels = x.shape[-1]
        launch(batch.infer_channels, y.dtype, y, x, gamma, beta, residual, running_mean,
               running_var, x.size // channels, channels, given, eps,
               _floor(activation))  # fmt: skip
    activate(y, activation)


def batch_norm_dx(
    dx: Lanes, dgamma: Any, dbeta: Any, g: Lanes, x: Lanes, gamma: Any, mean: Any, invstd: Any,
    beta: Any, *, relu: bool,
) -> None:  # fmt: skip
    launch(batch.train_dx, dx.dtype, dx, dgamma, dbeta, g, x, gamma, mean, invstd, beta,
           *_shape(x), _given(gamma, beta), int(relu))  # fmt: skip


# layer normalisation ------------------------------------------------------------------------------


def _row_sizes(x: Any, axes: int) -> tuple[int, int]:
    """Positions (in C order: rows), and the elements of a row."""
    cut = x.ndim - axes
    first = 1 if isinstance(x, Lanes) else 0
    return math.prod(x.shape[first:cut]), math.prod(x.shape[cut:])


def layer_norm_over(
    y: Any, mean: Any, invstd: Any, x: Any, gamma: Any, beta: Any, *, axes: int, eps: float
) -> None:
    given, sizes = _given(gamma, beta), _row_sizes(x, axes)
    if isinstance(x, Lanes):
        launch(layer.strips, y.dtype, y, mean, invstd, x, gamma, beta, x.lanes, *sizes, given, eps)
    else:
        launch(layer.rows, y.dtype, y, mean, invstd, x, gamma, beta, *sizes, given, eps)


def _parts(x: Any, axes: int) -> tuple[int, int]:
    """Parts of the rows that have sums of their own, and elements of a row."""
    rows, length = _row_sizes(x, axes)
    return max(1, min(layer.PARTS, -(-rows // layer.BLOCK))), length


def _sums(dx: Any, dgamma: Any, dbeta: Any, g: Any, x: Any, *_: Any, axes: int) -> list:
    if isinstance(x, Lanes):
        return []
    parts, length = _parts(x, axes)
    return [((parts, 2, length), np.dtype(np.float64))]


@scratch(_sums)
def layer_norm_dx(
    dx: Any, dgamma: Any, dbeta: Any, g: Any, x: Any, gamma: Any, mean: Any, invstd: Any, *,
    axes: int, scratch: Any,
) -> None:  # fmt: skip
    sizes, scaled = _row_sizes(x, axes), int(gamma is not None)
    if isinstance(x, Lanes):
        launch(layer.strips_sums, dx.dtype, dgamma, dbeta, g, x, mean, invstd, x.shape[0], x.lanes,
               *sizes)  # fmt: skip
        launch(layer.strips_dx, dx.dtype, dx, g, x, gamma, mean, invstd, x.lanes, *sizes, scaled)
    else:
        parts, length = _parts(x, axes)
        launch(layer.rows_dx, dx.dtype, dx, *scratch, g, x, gamma, mean, invstd, *sizes, scaled,
               parts)  # fmt: skip
        launch(layer.rows_sums, dx.dtype, dgamma, dbeta, *scratch, length, parts)


# local response normalisation ---------------------------------------------------------------------


@numba.njit
def _scales(scale, x, c, channels, before, after, width, rate, k):
    """scale = k + rate * (x_(c - before)^2 + ... + x_(c + after)^2) in each lane."""
    for i in range(width):
        scale[i] = 0
    for j in range(max(c - before, 0), min(c + after + 1, channels)):
        row = at(x, j * width)
        for i in range(width):
            scale[i] += row[i] * row[i]
    for i in range(width):
        scale[i] = k + rate * scale[i]


@numba.njit(error_model="numpy")  # where 1 / 0 is infinite
def _power(y, x, beta, width):
    """y = x^-beta; 0.75, the customary one, vectorises."""
    if beta == 0.75:
        for i in range(width):
            root = math.sqrt(x[i])
            y[i] = 1 / (root * math.sqrt(root))
    else:
        for i in range(width):
            y[i] = x[i] ** -beta


@kernel
def _local(
    t, n, y: ptr, x: ptr, lanes: size, positions: size, channels: size, before: size, after: size,
    rate: flt, beta: flt, k: flt,
):  # fmt: skip
    scale, power = tile(x), tile(x)
    strips = (lanes + 63) // 64 * positions
    for task in range(t * strips // n, (t + 1) * strips // n):
        first, position = 64 * (task // positions), task % positions
        width = chunk_width(first, lanes)
        start = first * positions * channels + position * channels * width
        source, target = at(x, start), at(y, start)
        for c in range(channels):
            _scales(scale, source, c, channels, before, after, width, number(x, rate), number(x, k))
            _power(power, scale, number(x, beta), width)
            for i in range(width):
                target[c * width + i] = source[c * width + i] * power[i]


def local_response_norm(
    y: Lanes, x: Lanes, *, size: int, alpha: float, beta: float, k: float
) -> None:
    _, lanes, positions, channels = _shape(x)
    launch(_local, y.dtype, y, x, lanes, positions, channels, size // 2, (size - 1) // 2,
           alpha / size, beta, k)  # fmt: skip


@kernel
def _local_dx(
    t, n, dx: ptr, spread: ptr, g: ptr, x: ptr, lanes: size, positions: size, channels: size,
    before: size, after: size, rate: flt, beta: flt, k: flt,
):  # fmt: skip
    """spread[position][c][lane] holds g x s^(-beta - 1) of the strip at hand."""
    scale, power = tile(x), tile(x)
    slope = like(x, 2 * real(rate) * real(beta))
    for position in range(t * positions // n, (t + 1) * positions // n):
        work = at(spread, position * channels * 64)
        for first in range(0, lanes, 64):
            width = chunk_width(first, lanes)
            start = first * positions * channels + position * channels * width
            arrived, source, target = at(g, start), at(x, start), at(dx, start)
            for c in range(channels):
                row = c * width
                _scales(scale, source, c, channels, before, after, width, number(x, rate),
                        number(x, k))  # fmt: skip
                _power(power, scale, number(x, beta), width)
                for i in range(width):
                    value = arrived[row + i] * power[i]
                    target[row + i] = value
                    work[row + i] = value / scale[i] * source[row + i]
            for c in range(channels):
                row = c * width
                for i in range(width):
                    scale[i] = 0
                for j in range(max(c - after, 0), min(c + before + 1, channels)):
                    for i in range(width):
                        scale[i] += work[j * width + i]
                for i in range(width):
                    target[row + i] -= slope * source[row + i] * scale[i]


@scratch(lambda dx, g, x, **_: [((math.prod(x.shape[1:]), 64), x.dtype)])
def local_response_norm_dx(
    dx: Lanes, g: Lanes, x: Lanes, *, size: int, alpha: float, beta: float, k: float, scratch: Any
) -> None:
    _, lanes, positions, channels = _shape(x)
    launch(_local_dx, dx.dtype, dx, scratch[0], g, x, lanes, positions, channels, size // 2,
           (size - 1) // 2, alpha / size, beta, k)  # fmt: skip
