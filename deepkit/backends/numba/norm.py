"""Normalisation in lanes.

    batch   [positions][C][64 images]       up to 4 channels at a time: their values are read for
                                            the sums, and again to be written
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
from .simd import at, real, vector_lanes
from .vector import (
    abreast,
    fma,
    four,
    lanes_of,
    load_as,
    load_some,
    one,
    prefetch,
    select,
    store,
    widened,
)

# batch normalisation ------------------------------------------------------------------------------


BLOCK = 16  # positions whose sums stay in registers
CACHED = 1 << 17  # numbers that a core's cache surely holds until they are read again


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
def _fetch(x, low, positions, row, width):
    """Ask for the next block, in the order of memory."""
    for p in range(low + BLOCK, min(low + 2 * BLOCK, positions)):
        for i in range(0, width, vector_lanes(x)):
            prefetch(x, p * row + i)


@numba.njit
def _add(sums, at_, low, high):
    """Two vectors of float64 join the partial sums from `at_` on."""
    store(sums, at_, load_as(low, sums, at_) + (low + high))


@numba.njit
def _moments_of(unit, sums, squares, x, row, low, high, begin, end, some, origin):
    for i in range(begin, min(end, some), lanes_of(unit)):
        s, t = widened(unit)
        q, r = s, t
        for p in range(low, high):
            near, far = widened(load_some(unit, x, p * row + i, some - i, origin) - origin)
            s, t = s + near, t + far
            q, r = fma(near, near, q), fma(far, far, r)
        _add(sums, i, s, t)
        _add(squares, i, q, r)


@numba.njit
def _moments(sums, squares, x, origin, count, lanes, positions, channels, low, high):
    """sums[c][64] and squares[c][64] of x - origin[c] over channels low .. high, in each lane.

    In one pass: the origin is a value of the channel, so that little cancels in the variance.
    """
    _clear(sums, 64 * (high - low))
    _clear(squares, 64 * (high - low))
    for first in range(0, lanes, 64):
        width = chunk_width(first, lanes)
        some, row, wide = min(width, count - first), channels * width, abreast(x, width)
        block = at(x, first * positions * channels + low * width)
        for p in range(0, positions, BLOCK):
            _fetch(block, p, positions, row, (high - low) * width)
            end = min(p + BLOCK, positions)
            for c in range(high - low):
                s, q, start = at(sums, c * 64), at(squares, c * 64), origin[c]
                column = at(block, c * width)
                _moments_of(four(x), s, q, column, row, p, end, 0, wide, some, start)
                _moments_of(one(x), s, q, column, row, p, end, wide, width, some, start)


@numba.njit
def _normalise(unit, y, x, residual, add, middle, scale, shift, floor, begin, end):
    """y = max(floor, (x - middle) * scale + shift + residual), which keeps NaN."""
    for i in range(begin, end, lanes_of(unit)):
        value = fma(load_as(unit, x, i) - middle, scale, shift)
        if add:
            value += load_as(unit, residual, i)
        store(y, i, select(value < floor, floor, value))


@numba.njit
def _normalise_channels(
    y, x, residual, add, lanes, positions, channels, low, high, middle, scale, shift, floor
):
    """From the last position to the first: those read last are still in the cache."""
    for first in range((lanes - 1) // 64 * 64, -1, -64):
        width = chunk_width(first, lanes)
        wide = abreast(x, width)
        for p in range(positions - 1, -1, -1):
            start = first * positions * channels + p * channels * width
            if p >= 4:
                for i in range(low * width, high * width, vector_lanes(x)):
                    prefetch(y, start - 4 * channels * width + i)
            for c in range(low, high):
                row, k = start + c * width, c - low
                target, source, more = at(y, row), at(x, row), at(residual, row)
                _normalise(four(x), target, source, more, add, middle[k], scale[k], shift[k],
                           floor, 0, wide)  # fmt: skip
                _normalise(one(x), target, source, more, add, middle[k], scale[k], shift[k],
                           floor, wide, width)  # fmt: skip


@kernel
def _train(
    t, n, y: ptr, mean: ptr, invstd: ptr, x: ptr, gamma: ptr, beta: ptr, residual: ptr,
    running_mean: ptr, running_var: ptr, count: size, lanes: size, positions: size,
    channels: size, group: size, given: size, momentum: flt, eps: flt, floor: flt,
):  # fmt: skip
    sums, squares = wide_tile(x), wide_tile(x)
    middle, scale, shift = tile(x), tile(x), tile(x)
    rows, move = float(count * positions), real(momentum)
    groups = (channels + group - 1) // group
    for number_of in range(t * groups // n, (t + 1) * groups // n):
        low, high = group * number_of, min(group * (number_of + 1), channels)
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


def _group(x: Lanes, arrays: int) -> int:
    """How many channels are done at a time, so that what is read twice stays in the cache."""
    _, lanes, positions, channels = _shape(x)
    return max(1, min(4, CACHED // max(1, arrays * lanes * positions)))


def _floor(activation: str | None) -> float:
    return 0.0 if activation == "relu" else -math.inf


def batch_norm_train(
    y: Lanes, mean: Any, invstd: Any, x: Lanes, gamma: Any, beta: Any, residual: Any,
    running_mean: Any, running_var: Any, *, momentum: float, eps: float, activation: str | None,
) -> None:  # fmt: skip
    given = _given(gamma, beta, residual, running_mean, running_var)
    launch(_train, y.dtype, y, mean, invstd, x, gamma, beta, residual, running_mean, running_var,
           *_shape(x), _group(x, 1), given, momentum, eps, _floor(activation))  # fmt: skip
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
def _arrived(unit, g, y, masked, place, some):
    """g, or with relu's gradient g where y > 0."""
    value = load_some(unit, g, place, some, 0.0)
    if masked:
        value = select(load_some(unit, y, place, some, 0.0) > 0.0, value, 0.0)
    return value


@numba.njit
def _products_of(
    unit, sums, products, g, x, y, masked, row, low, high, begin, end, some, middle, inverse
):
    for i in range(begin, min(end, some), lanes_of(unit)):
        s, t = widened(unit)
        q, r = s, t
        for p in range(low, high):
            place = p * row + i
            near, far = widened(_arrived(unit, g, y, masked, place, some - i))
            hat = (load_some(unit, x, place, some - i, middle) - middle) * inverse
            near_hat, far_hat = widened(hat)
            s, t = s + near, t + far
            q, r = fma(near, near_hat, q), fma(far, far_hat, r)
        _add(sums, i, s, t)
        _add(products, i, q, r)


@numba.njit
def _products(
    sums, products, g, x, y, masked, mean, invstd, count, lanes, positions, channels, low, high
):
    """sums[c][64] of g, and products[c][64] of g * (x - mean) * invstd, in each lane."""
    _clear(products, 256)
    _clear(sums, 256)
    for first in range(0, lanes, 64):
        width = chunk_width(first, lanes)
        some, row, wide = min(width, count - first), channels * width, abreast(x, width)
        start = first * positions * channels + low * width
        for p in range(0, positions, BLOCK):
            end, next_to = min(p + BLOCK, positions), (high - low) * width
            _fetch(at(g, start), p, positions, row, next_to)
            _fetch(at(x, start), p, positions, row, next_to)
            if masked:
                _fetch(at(y, start), p, positions, row, next_to)
            for c in range(high - low):
                s, q, place = at(sums, c * 64), at(products, c * 64), start + c * width
                gc, xc, yc = at(g, place), at(x, place), at(y, place)
                middle, inverse = mean[low + c], invstd[low + c]
                _products_of(four(x), s, q, gc, xc, yc, masked, row, p, end, 0, wide, some,
                             middle, inverse)  # fmt: skip
                _products_of(one(x), s, q, gc, xc, yc, masked, row, p, end, wide, width, some,
                             middle, inverse)  # fmt: skip


@numba.njit
def _normalise_dx(unit, dx, g, x, y, masked, middle, inverse, slope, level, scale, begin, end):
    for i in range(begin, end, lanes_of(unit)):
        hat = (load_as(unit, x, i) - middle) * inverse
        arrived = _arrived(unit, g, y, masked, i, end - i)
        store(dx, i, (arrived - level - hat * slope) * scale)


@kernel
def _train_dx(
    t, n, dx: ptr, dgamma: ptr, dbeta: ptr, g: ptr, x: ptr, gamma: ptr, mean: ptr, invstd: ptr,
    y: ptr, count: size, lanes: size, positions: size, channels: size, group: size, scaled: size,
    masked: size,
):  # fmt: skip
    products, sums, slope, level, scale = wide_tile(x), wide_tile(x), tile(x), tile(x), tile(x)
    rows = like(x, count * positions)
    groups = (channels + group - 1) // group
    for number_of in range(t * groups // n, (t + 1) * groups // n):
        low, high = group * number_of, min(group * (number_of + 1), channels)
        _products(sums, products, g, x, y, masked, mean, invstd, count, lanes, positions,
                  channels, low, high)  # fmt: skip
        for c in range(low, high):
            k = c - low
            dgamma[c], dbeta[c] = _added(at(products, k * 64)), _added(at(sums, k * 64))
            slope[k], level[k] = dgamma[c] / rows, dbeta[c] / rows
            scale[k] = invstd[c] * gamma[c] if scaled else invstd[c]
        for first in range((lanes - 1) // 64 * 64, -1, -64):
            width = chunk_width(first, lanes)
            wide = abreast(x, width)
            for p in range(positions - 1, -1, -1):
                start = first * positions * channels + p * channels * width
                if p >= 4:
                    for i in range(low * width, high * width, vector_lanes(x)):
                        prefetch(dx, start - 4 * channels * width + i)
                for c in range(low, high):
                    place, k = start + c * width, c - low
                    d, gc, xc, yc = at(dx, place), at(g, place), at(x, place), at(y, place)
                    _normalise_dx(four(x), d, gc, xc, yc, masked, mean[c], invstd[c], slope[k],
                                  level[k], scale[k], 0, wide)  # fmt: skip
                    _normalise_dx(one(x), d, gc, xc, yc, masked, mean[c], invstd[c], slope[k],
                                  level[k], scale[k], wide, width)  # fmt: skip


def batch_norm_dx(
    dx: Lanes, dgamma: Any, dbeta: Any, g: Lanes, x: Lanes, gamma: Any, mean: Any, invstd: Any,
    y: Lanes | None,
) -> None:  # fmt: skip
    masked = y is not None
    launch(_train_dx, dx.dtype, dx, dgamma, dbeta, g, x, gamma, mean, invstd, y, *_shape(x),
           _group(x, 2 + masked), int(gamma is not None), int(masked))  # fmt: skip


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
