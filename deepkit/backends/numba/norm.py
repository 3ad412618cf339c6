"""Normalisation in lanes.

    batch   [positions][C][64 images]       4 channels at a time: their values are read for mean
                                            and variance together, and to be written
    layer   [positions][D][64 images]       64 rows of D at once, one in each lane
    local   [positions][C][64 images]       windows of channels, 64 at once

Sums over a batch are taken in float64, in 64 partial sums; spare lanes are left out of them.
A thread has whole channels, so how many threads there are changes no sum.
"""

from __future__ import annotations

import math
from typing import Any

import numba

from .. import scratch
from .elementwise import activate
from .lanes import Lanes, chunk_width
from .launch import flt, kernel, launch, ptr, size
from .rows import like, number, tile, wide_tile
from .simd import at, real

# batch normalisation ------------------------------------------------------------------------------


@numba.njit
def _clear(sums, count):
    for i in range(count):
        sums[i] = 0.0


@numba.njit
def _added(sums):
    """The partial sums in one."""
    total = 0.0
    for i in range(64):
        total += sums[i]
    return total


@numba.njit
def _normalise(y, x, residual, add, middle, scale, shift, floor, width):
    """y = max(floor, (x - middle) * scale + shift + residual), which keeps NaN."""
    if add:
        for i in range(width):
            value = (x[i] - middle) * scale + shift + residual[i]
            y[i] = floor if value < floor else value
    else:
        for i in range(width):
            value = (x[i] - middle) * scale + shift
            y[i] = floor if value < floor else value


@numba.njit
def _normalise_channels(
    y, x, residual, add, lanes, positions, channels, low, high, middle, scale, shift, floor
):
    for first in range(0, lanes, 64):
        width = chunk_width(first, lanes)
        for p in range(positions):
            start = first * positions * channels + p * channels * width
            for c in range(low, high):
                row = start + c * width
                _normalise(at(y, row), at(x, row), at(residual, row), add, middle[c - low],
                           scale[c - low], shift[c - low], floor, width)  # fmt: skip


@numba.njit
def _moments(sums, squares, x, origin, count, lanes, positions, channels, low, high):
    """sums[c][64] and squares[c][64] of x - origin[c] over channels low .. high, in each lane.

    In one pass: the origin is a value of the channel, so that little cancels in the variance.
    """
    _clear(sums, 64 * (high - low))
    _clear(squares, 64 * (high - low))
    for first in range(0, lanes, 64):
        width = chunk_width(first, lanes)
        some = min(width, count - first)
        for p in range(positions):
            block = at(x, first * positions * channels + (p * channels + low) * width)
            for c in range(high - low):
                row, start = at(block, c * width), origin[c]
                total, square = at(sums, c * 64), at(squares, c * 64)
                for i in range(some):
                    distance = numba.float64(row[i] - start)
                    total[i] += distance
                    square[i] += distance * distance


@kernel
def _train(
    t, n, y: ptr, mean: ptr, invstd: ptr, x: ptr, gamma: ptr, beta: ptr, residual: ptr,
    running_mean: ptr, running_var: ptr, count: size, lanes: size, positions: size,
    channels: size, given: size, momentum: flt, eps: flt, floor: flt,
):  # fmt: skip
    sums, squares = wide_tile(x), wide_tile(x)
    middle, scale, shift = tile(x), tile(x), tile(x)
    rows, move = float(count * positions), real(momentum)
    groups = (channels + 3) // 4
    for group in range(t * groups // n, (t + 1) * groups // n):
        low, high = 4 * group, min(4 * group + 4, channels)
        width = chunk_width(0, lanes)
        for c in range(low, high):
            middle[c - low] = x[c * width]  # of the first image, at its first position
        _moments(sums, squares, x, middle, count, lanes, positions, channels, low, high)
        for c in range(low, high):
            k = c - low
            total = _added(at(sums, k * 64))
            spread = max(_added(at(squares, k * 64)) - total * total / rows, 0.0)
            middle[k] = numba.float64(middle[k]) + total / rows
            mean[c] = middle[k]
            invstd[c] = 1 / math.sqrt(spread / rows + real(eps))
            if given & 8:
                running_mean[c] = (1 - move) * running_mean[c] + move * middle[k]
            if given & 16:
                running_var[c] = (1 - move) * running_var[c] + move * (spread / (rows - 1))
            scale[k] = invstd[c] * gamma[c] if given & 1 else invstd[c]
            shift[k] = beta[c] if given & 2 else like(x, 0.0)
        _normalise_channels(y, x, residual, given & 4, lanes, positions, channels, low, high,
                            middle, scale, shift, number(x, floor))  # fmt: skip


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
    launch(_train, y.dtype, y, mean, invstd, x, gamma, beta, residual, running_mean, running_var,
           *_shape(x), given, momentum, eps, _floor(activation))  # fmt: skip
    activate(y, activation)


@kernel
def _infer(
    t, n, y: ptr, x: ptr, gamma: ptr, beta: ptr, residual: ptr, running_mean: ptr,
    running_var: ptr, count: size, lanes: size, positions: size, channels: size, given: size,
    eps: flt, floor: flt,
):  # fmt: skip
    middle, scale, shift = tile(x), tile(x), tile(x)
    groups = (channels + 3) // 4
    for group in range(t * groups // n, (t + 1) * groups // n):
        low, high = 4 * group, min(4 * group + 4, channels)
        for c in range(low, high):
            factor = like(x, 1.0) / math.sqrt(running_var[c] + number(x, eps))
            middle[c - low] = running_mean[c]
            scale[c - low] = factor * gamma[c] if given & 1 else factor
            shift[c - low] = beta[c] if given & 2 else like(x, 0.0)
        _normalise_channels(y, x, residual, given & 4, lanes, positions, channels, low, high,
                            middle, scale, shift, number(x, floor))  # fmt: skip


@kernel
def _infer_channels(
    t, n, y: ptr, x: ptr, gamma: ptr, beta: ptr, residual: ptr, running_mean: ptr,
    running_var: ptr, rows: size, channels: size, given: size, eps: flt, floor: flt,
):  # fmt: skip
    """C order, for a few images: [rows][C], the channels in the lanes."""
    scale, shift = tile(x), tile(x)
    least = number(x, floor)
    for first in range(0, channels, 256):
        some = min(256, channels - first)
        for c in range(some):
            factor = like(x, 1.0) / math.sqrt(running_var[first + c] + number(x, eps))
            scale[c] = factor * gamma[first + c] if given & 1 else factor
            shift[c] = beta[first + c] if given & 2 else like(x, 0.0)
        middle = at(running_mean, first)
        for row in range(t * rows // n, (t + 1) * rows // n):
            source, target = at(x, row * channels + first), at(y, row * channels + first)
            more = at(residual, row * channels + first)
            for c in range(some):
                value = (source[c] - middle[c]) * scale[c] + shift[c]
                if given & 4:
                    value += more[c]
                target[c] = least if value < least else value


def batch_norm_infer(
    y: Any, x: Any, gamma: Any, beta: Any, residual: Any, running_mean: Any, running_var: Any,
    *, eps: float, activation: str | None,
) -> None:  # fmt: skip
    given = _given(gamma, beta, residual)
    if isinstance(x, Lanes):
        launch(_infer, y.dtype, y, x, gamma, beta, residual, running_mean, running_var, *_shape(x),
               given, eps, _floor(activation))  # fmt: skip
    else:
        channels = x.shape[-1]
        launch(_infer_channels, y.dtype, y, x, gamma, beta, residual, running_mean, running_var,
               x.size // channels, channels, given, eps, _floor(activation))  # fmt: skip
    activate(y, activation)


@numba.njit
def _normalise_dx(dx, g, x, middle, inverse, slope, level, scale, width):
    for i in range(width):
        hat = (x[i] - middle) * inverse
        dx[i] = (g[i] - level - hat * slope) * scale


@kernel
def _train_dx(
    t, n, dx: ptr, dgamma: ptr, dbeta: ptr, g: ptr, x: ptr, gamma: ptr, mean: ptr, invstd: ptr,
    count: size, lanes: size, positions: size, channels: size, scaled: size,
):  # fmt: skip
    products, sums, slope, level, scale = wide_tile(x), wide_tile(x), tile(x), tile(x), tile(x)
    rows = like(x, count * positions)
    groups = (channels + 3) // 4
    for group in range(t * groups // n, (t + 1) * groups // n):
        low, high = 4 * group, min(4 * group + 4, channels)
        _clear(products, 256)
        _clear(sums, 256)
        for first in range(0, lanes, 64):
            width = chunk_width(first, lanes)
            for p in range(positions):
                start = first * positions * channels + p * channels * width
                for c in range(low, high):
                    arrived, row = at(g, start + c * width), at(x, start + c * width)
                    product, total = at(products, (c - low) * 64), at(sums, (c - low) * 64)
                    middle, inverse = mean[c], invstd[c]
                    for i in range(min(width, count - first)):
                        value = numba.float64(arrived[i])
                        total[i] += value
                        product[i] += value * numba.float64((row[i] - middle) * inverse)
        for c in range(low, high):
            k = c - low
            dgamma[c], dbeta[c] = _added(at(products, k * 64)), _added(at(sums, k * 64))
            slope[k], level[k] = dgamma[c] / rows, dbeta[c] / rows
            scale[k] = invstd[c] * gamma[c] if scaled else invstd[c]
        for first in range(0, lanes, 64):
            width = chunk_width(first, lanes)
            for p in range(positions):
                start = first * positions * channels + p * channels * width
                for c in range(low, high):
                    place, k = start + c * width, c - low
                    _normalise_dx(at(dx, place), at(g, place), at(x, place), mean[c], invstd[c],
                                  slope[k], level[k], scale[k], width)  # fmt: skip


def batch_norm_dx(
    dx: Lanes, dgamma: Any, dbeta: Any, g: Lanes, x: Lanes, gamma: Any, mean: Any, invstd: Any
) -> None:
    launch(_train_dx, dx.dtype, dx, dgamma, dbeta, g, x, gamma, mean, invstd, *_shape(x),
           int(gamma is not None))  # fmt: skip


# layer normalisation ------------------------------------------------------------------------------


@kernel
def _layer(
    t, n, y: ptr, mean: ptr, invstd: ptr, x: ptr, gamma: ptr, beta: ptr, lanes: size,
    positions: size, length: size, given: size, eps: flt,
):  # fmt: skip
    sums, middle, inverse = wide_tile(x), tile(x), tile(x)
    one, nothing = like(x, 1.0), like(x, 0.0)
    strips = (lanes + 63) // 64 * positions
    for task in range(t * strips // n, (t + 1) * strips // n):
        first, position = 64 * (task // positions), task % positions
        width = chunk_width(first, lanes)
        start = first * positions * length + position * length * width
        source, target = at(x, start), at(y, start)
        _clear(sums, width)
        for j in range(length):
            for i in range(width):
                sums[i] += source[j * width + i]
        for i in range(width):
            middle[i] = sums[i] / length
        _clear(sums, width)
        for j in range(length):
            for i in range(width):
                distance = numba.float64(source[j * width + i] - middle[i])
                sums[i] += distance * distance
        for i in range(width):
            inverse[i] = 1 / math.sqrt(sums[i] / length + real(eps))
        for j in range(length):
            scale = gamma[j] if given & 1 else one
            shift = beta[j] if given & 2 else nothing
            for i in range(width):
                hat = (source[j * width + i] - middle[i]) * inverse[i]
                target[j * width + i] = hat * scale + shift
        for i in range(width):
            mean[first * positions + position * width + i] = middle[i]
            invstd[first * positions + position * width + i] = inverse[i]


def _row_sizes(x: Lanes, axes: int) -> tuple[int, int]:
    """Positions, and the elements of a row."""
    cut = x.ndim - axes
    return math.prod(x.shape[1:cut]), math.prod(x.shape[cut:])


def layer_norm_over(
    y: Lanes, mean: Lanes, invstd: Lanes, x: Lanes, gamma: Any, beta: Any, *, axes: int, eps: float
) -> None:
    launch(_layer, y.dtype, y, mean, invstd, x, gamma, beta, x.lanes, *_row_sizes(x, axes),
           _given(gamma, beta), eps)  # fmt: skip


@kernel
def _layer_sums(
    t, n, dgamma: ptr, dbeta: ptr, g: ptr, x: ptr, mean: ptr, invstd: ptr, count: size,
    lanes: size, positions: size, length: size,
):  # fmt: skip
    products, sums = wide_tile(x), wide_tile(x)
    groups = (length + 3) // 4
    for group in range(t * groups // n, (t + 1) * groups // n):
        low, high = 4 * group, min(4 * group + 4, length)
        _clear(products, 256)
        _clear(sums, 256)
        for first in range(0, lanes, 64):
            width = chunk_width(first, lanes)
            for p in range(positions):
                middle = at(mean, first * positions + p * width)
                inverse = at(invstd, first * positions + p * width)
                for j in range(low, high):
                    place = first * positions * length + (p * length + j) * width
                    arrived, row = at(g, place), at(x, place)
                    product, total = at(products, (j - low) * 64), at(sums, (j - low) * 64)
                    for i in range(min(width, count - first)):
                        value = numba.float64(arrived[i])
                        total[i] += value
                        product[i] += value * numba.float64((row[i] - middle[i]) * inverse[i])
        for j in range(low, high):
            dgamma[j] = _added(at(products, (j - low) * 64))
            dbeta[j] = _added(at(sums, (j - low) * 64))


@kernel
def _layer_dx(
    t, n, dx: ptr, g: ptr, x: ptr, gamma: ptr, mean: ptr, invstd: ptr, lanes: size,
    positions: size, length: size, scaled: size,
):  # fmt: skip
    products, sums = wide_tile(x), wide_tile(x)
    slope, level, middle, inverse = tile(x), tile(x), tile(x), tile(x)
    one = like(x, 1.0)
    strips = (lanes + 63) // 64 * positions
    for task in range(t * strips // n, (t + 1) * strips // n):
        first, position = 64 * (task // positions), task % positions
        width = chunk_width(first, lanes)
        start = first * positions * length + position * length * width
        arrived, source, target = at(g, start), at(x, start), at(dx, start)
        for i in range(width):
            middle[i] = mean[first * positions + position * width + i]
            inverse[i] = invstd[first * positions + position * width + i]
        _clear(products, width)
        _clear(sums, width)
        for j in range(length):
            scale = gamma[j] if scaled else one
            for i in range(width):
                value = arrived[j * width + i] * scale
                hat = (source[j * width + i] - middle[i]) * inverse[i]
                target[j * width + i] = value  # rounded, as `level` is: a row of one gives 0
                sums[i] += value
                products[i] += value * hat
        for i in range(width):
            slope[i], level[i] = products[i] / length, sums[i] / length
        for j in range(length):
            for i in range(width):
                hat = (source[j * width + i] - middle[i]) * inverse[i]
                rest = target[j * width + i] - level[i] - hat * slope[i]
                target[j * width + i] = rest * inverse[i]


def layer_norm_dx(
    dx: Lanes, dgamma: Any, dbeta: Any, g: Lanes, x: Lanes, gamma: Any, mean: Lanes, invstd: Lanes,
    *, axes: int,
) -> None:  # fmt: skip
    sizes = _row_sizes(x, axes)
    launch(_layer_sums, dx.dtype, dgamma, dbeta, g, x, mean, invstd, x.shape[0], x.lanes, *sizes)
    launch(_layer_dx, dx.dtype, dx, g, x, gamma, mean, invstd, x.lanes, *sizes,
           int(gamma is not None))  # fmt: skip


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
