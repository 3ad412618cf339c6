"""Batch normalisation in lanes, [positions][C][64 images], and of a few images in C order.

Some channels are done at a time: their values are read for the sums, and again to be written.
Sums begin in registers, over up to 16 positions, and go on in float64; spare lanes are left out.
A thread has whole channels, so how many threads there are changes no sum.
"""

from __future__ import annotations

import math

import numba

from .lanes import chunk_width
from .launch import flt, kernel, ptr, size
from .rows import like, number, tile, wide_tile
from .simd import at, real, vector_lanes
from .vector import (
    abreast,
    add_up,
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

BLOCK = 16  # positions whose sums stay in registers
GROUP = 8  # channels that are done at a time, where there are enough: as memory likes to be read


# which channels, in which order -------------------------------------------------------------------


@numba.njit
def _group(channels, n):
    """How many channels are done at a time, so that n threads have some."""
    return max(1, min(GROUP, channels // n))


@numba.njit
def _ahead(y, start, p, channels, width, low, high):
    """In a walk from the last position to the first, ask for what is written four positions on."""
    if p >= 4:
        for i in range(low * width, high * width, vector_lanes(y)):
            prefetch(y, start - 4 * channels * width + i)


# sums ---------------------------------------------------------------------------------------------


@numba.njit
def clear(sums, count):
    for i in range(count):
        sums[i] = 0.0


@numba.njit
def _fetch(x, low, positions, row, width):
    """Ask for the next block, in the order of memory."""
    for p in range(low + BLOCK, min(low + 2 * BLOCK, positions)):
        for i in range(0, width, vector_lanes(x)):
            prefetch(x, p * row + i)


@numba.njit
def in_all(a):
    """The sum of all lanes, as a float64."""
    low, high = widened(a)
    return add_up(low + high)


@numba.njit
def _moments_of(unit, x, row, low, high, begin, end, some, origin):
    """The sum of x - origin and of its square over the positions low .. high."""
    total, square = 0.0, 0.0
    for i in range(begin, min(end, some), lanes_of(unit)):
        s, q = unit, unit
        for p in range(low, high):
            away = load_some(unit, x, p * row + i, some - i, origin) - origin
            s, q = s + away, fma(away, away, q)
        total, square = total + in_all(s), square + in_all(q)
    return total, square


@numba.njit
def _moments(sums, squares, x, origin, count, lanes, positions, channels, low, high):
    """The sums of x - origin[c], and of its square, over channels low .. high.

    In one pass: the origin is a value of the channel, so that little cancels in the variance.
    """
    clear(sums, high - low)
    clear(squares, high - low)
    for first in range(0, lanes, 64):
        width = chunk_width(first, lanes)
        some, row, wide = min(width, count - first), channels * width, abreast(x, width)
        block = at(x, first * positions * channels + low * width)
        for p in range(0, positions, BLOCK):
            _fetch(block, p, positions, row, (high - low) * width)
            end = min(p + BLOCK, positions)
            for c in range(high - low):
                column, start = at(block, c * width), origin[c]
                s, q = _moments_of(four(x), column, row, p, end, 0, wide, some, start)
                more, r = _moments_of(one(x), column, row, p, end, wide, width, some, start)
                sums[c] += s + more
                squares[c] += q + r


@numba.njit
def _arrived(unit, g, place, some, relu, away, scale, shift):
    """g, or with relu's gradient g where the result, away * scale + shift, is above 0."""
    value = load_some(unit, g, place, some, 0.0)
    if relu:
        value = select(fma(away, scale, shift) > 0.0, value, 0.0)
    return value


@numba.njit
def _products_of(unit, g, x, row, low, high, begin, end, some, middle, inverse, relu, scale, shift):
    """The sum of g, and of g * (x - middle) * inverse, over the positions low .. high."""
    total, product = 0.0, 0.0
    for i in range(begin, min(end, some), lanes_of(unit)):
        s, q = unit, unit
        for p in range(low, high):
            place = p * row + i
            away = load_some(unit, x, place, some - i, middle) - middle
            arrived = _arrived(unit, g, place, some - i, relu, away, scale, shift)
            s, q = s + arrived, fma(arrived, away * inverse, q)
        total, product = total + in_all(s), product + in_all(q)
    return total, product


@numba.njit
def _products(
    sums, products, g, x, mean, invstd, relu, scale, shift, count, lanes, positions, channels,
    low, high,
):  # fmt: skip
    """The sums of g, and of g * (x - mean) * invstd, over channels low .. high."""
    clear(products, high - low)
    clear(sums, high - low)
    for first in range(0, lanes, 64):
        width = chunk_width(first, lanes)
        some, row, wide = min(width, count - first), channels * width, abreast(x, width)
        start = first * positions * channels + low * width
        for p in range(0, positions, BLOCK):
            end, next_to = min(p + BLOCK, positions), (high - low) * width
            _fetch(at(g, start), p, positions, row, next_to)
            _fetch(at(x, start), p, positions, row, next_to)
            for c in range(high - low):
                place, middle, inverse = start + c * width, mean[low + c], invstd[low + c]
                gc, xc = at(g, place), at(x, place)
                s, q = _products_of(four(x), gc, xc, row, p, end, 0, wide, some, middle, inverse,
                                    relu, scale[c], shift[c])  # fmt: skip
                more, r = _products_of(one(x), gc, xc, row, p, end, wide, width, some, middle,
                                       inverse, relu, scale[c], shift[c])  # fmt: skip
                sums[c] += s + more
                products[c] += q + r


# kernels ------------------------------------------------------------------------------------------


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
            _ahead(y, start, p, channels, width, low, high)
            for c in range(low, high):
                row, k = start + c * width, c - low
                target, source, more = at(y, row), at(x, row), at(residual, row)
                _normalise(four(x), target, source, more, add, middle[k], scale[k], shift[k],
                           floor, 0, wide)  # fmt: skip
                _normalise(one(x), target, source, more, add, middle[k], scale[k], shift[k],
                           floor, wide, width)  # fmt: skip


@kernel
def train(
    t, n, y: ptr, mean: ptr, invstd: ptr, x: ptr, gamma: ptr, beta: ptr, residual: ptr,
    running_mean: ptr, running_var: ptr, count: size, lanes: size, positions: size,
    channels: size, given: size, momentum: flt, eps: flt, floor: flt,
):  # fmt: skip
    sums, squares = wide_tile(x), wide_tile(x)
    middle, scale, shift = tile(x), tile(x), tile(x)
    rows, move = float(count * positions), real(momentum)
    group = _group(channels, n)
    groups = (channels + group - 1) // group
    for number_of in range(t * groups // n, (t + 1) * groups // n):
        low, high = group * number_of, min(group * (number_of + 1), channels)
        width = chunk_width(0, lanes)
        for c in range(low, high):
            middle[c - low] = x[c * width]  # of the first image, at its first position
        _moments(sums, squares, x, middle, count, lanes, positions, channels, low, high)
        for c in range(low, high):
            k = c - low
            total = sums[k]
            spread = max(squares[k] - total * total / rows, 0.0)
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


@kernel
def infer(
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
def infer_channels(
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


@numba.njit
def _normalise_dx(unit, dx, g, x, middle, inverse, slope, level, relu, scale, shift, begin, end):
    for i in range(begin, end, lanes_of(unit)):
        away = load_as(unit, x, i) - middle
        arrived = _arrived(unit, g, i, end - i, relu, away, scale, shift)
        store(dx, i, (arrived - level - away * inverse * slope) * scale)


@kernel
def train_dx(
    t, n, dx: ptr, dgamma: ptr, dbeta: ptr, g: ptr, x: ptr, gamma: ptr, mean: ptr, invstd: ptr,
    beta: ptr, count: size, lanes: size, positions: size, channels: size, given: size,
    relu: size,
):  # fmt: skip
    products, sums, slope, level = wide_tile(x), wide_tile(x), tile(x), tile(x)
    scale, shift = tile(x), tile(x)
    rows = like(x, count * positions)
    group = _group(channels, n)
    groups = (channels + group - 1) // group
    for number_of in range(t * groups // n, (t + 1) * groups // n):
        low, high = group * number_of, min(group * (number_of + 1), channels)
        for c in range(low, high):
            scale[c - low] = invstd[c] * gamma[c] if given & 1 else invstd[c]
            shift[c - low] = beta[c] if given & 2 else like(x, 0.0)
        _products(sums, products, g, x, mean, invstd, relu, scale, shift, count, lanes, positions,
                  channels, low, high)  # fmt: skip
        for c in range(low, high):
            k = c - low
            dgamma[c], dbeta[c] = products[k], sums[k]
            slope[k], level[k] = dgamma[c] / rows, dbeta[c] / rows
        for first in range((lanes - 1) // 64 * 64, -1, -64):
            width = chunk_width(first, lanes)
            wide = abreast(x, width)
            for p in range(positions - 1, -1, -1):
                start = first * positions * channels + p * channels * width
                _ahead(dx, start, p, channels, width, low, high)
                for c in range(low, high):
                    place, k = start + c * width, c - low
                    d, gc, xc = at(dx, place), at(g, place), at(x, place)
                    _normalise_dx(four(x), d, gc, xc, mean[c], invstd[c], slope[k], level[k],
                                  relu, scale[k], shift[k], 0, wide)  # fmt: skip
                    _normalise_dx(one(x), d, gc, xc, mean[c], invstd[c], slope[k], level[k],
                                  relu, scale[k], shift[k], wide, width)  # fmt: skip
