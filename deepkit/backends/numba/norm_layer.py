"""Layer normalisation: images in the lanes, or rows of C order.

    strips   [positions][D][64 images]       64 rows of D at once, one in each lane
    rows     [rows][D]                       a row in the lanes, which are added up at its end

Sums of strips are taken in float64; those of rows begin in registers, for up to 16 vectors, and go
on in float64.  Sums for dgamma and dbeta are those of strips for whole columns, or of parts of the
rows, as many as there are for any number of threads.
"""

from __future__ import annotations

import math

import numba

from .lanes import chunk_width
from .launch import flt, i64ptr, kernel, ptr, size
from .norm_batch import clear, in_all
from .rows import like, tile, view, wide_tile
from .simd import at, real, vector_lanes
from .vector import (
    abreast,
    fma,
    four,
    lanes_of,
    load_some,
    one,
    prefetch,
    product,
    spread,
    store,
    store_first,
)

BLOCK = 16

# images in the lanes ------------------------------------------------------------------------------


@numba.njit
def _added(sums):
    """64 partial sums in one."""
    total = 0.0
    for i in range(64):
        total += sums[i]
    return total


@kernel
def strips(
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
        clear(sums, width)
        for j in range(length):
            for i in range(width):
                sums[i] += source[j * width + i]
        for i in range(width):
            middle[i] = sums[i] / length
        clear(sums, width)
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


@kernel
def strips_sums(
    t, n, dgamma: ptr, dbeta: ptr, g: ptr, x: ptr, mean: ptr, invstd: ptr, count: size,
    lanes: size, positions: size, length: size,
):  # fmt: skip
    products, sums = wide_tile(x), wide_tile(x)
    groups = (length + 3) // 4
    for group in range(t * groups // n, (t + 1) * groups // n):
        low, high = 4 * group, min(4 * group + 4, length)
        clear(products, 256)
        clear(sums, 256)
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
def strips_dx(
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
        clear(products, width)
        clear(sums, width)
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


# rows of C order ----------------------------------------------------------------------------------


@numba.njit
def _row_sum(unit, x, length):
    """x_0 + x_1 + ..."""
    total = 0.0
    step = lanes_of(unit)
    for low in range(0, length, BLOCK * step):
        part = unit
        for j in range(low, min(low + BLOCK * step, length), step):
            part += load_some(unit, x, j, length - j, 0.0)
        total += in_all(part)
    return total


@numba.njit
def _row_squares(unit, x, length, middle):
    """(x_0 - middle)^2 + (x_1 - middle)^2 + ..."""
    total = 0.0
    step = lanes_of(unit)
    for low in range(0, length, BLOCK * step):
        part = unit
        for j in range(low, min(low + BLOCK * step, length), step):
            away = load_some(unit, x, j, length - j, middle) - middle
            part = fma(away, away, part)
        total += in_all(part)
    return total


@numba.njit
def _or(unit, x, given, j, count, instead):
    """x where it is given."""
    return load_some(unit, x, j, count, 0.0) if given else spread(unit, instead)


@numba.njit
def _row(unit, y, x, gamma, beta, length, given, middle, inverse):
    for j in range(0, length, lanes_of(unit)):
        hat = (load_some(unit, x, j, length - j, 0.0) - middle) * inverse
        scale = _or(unit, gamma, given & 1, j, length - j, 1.0)
        shift = _or(unit, beta, given & 2, j, length - j, 0.0)
        store_first(y, j, length - j, fma(hat, scale, shift))


@kernel
def rows(
    t, n, y: ptr, mean: ptr, invstd: ptr, x: ptr, gamma: ptr, beta: ptr, count: size,
    length: size, given: size, eps: flt,
):  # fmt: skip
    stats = tile(x)  # where numbers are rounded to the element type
    wide = length >= 4 * vector_lanes(x)
    for row in range(t * count // n, (t + 1) * count // n):
        source, target = at(x, row * length), at(y, row * length)
        total = _row_sum(four(x), source, length) if wide else _row_sum(one(x), source, length)
        stats[0] = total / length
        middle = stats[0]
        if wide:
            square = _row_squares(four(x), source, length, middle)
        else:
            square = _row_squares(one(x), source, length, middle)
        stats[1] = 1 / math.sqrt(square / length + real(eps))
        inverse = stats[1]
        if wide:
            _row(four(x), target, source, gamma, beta, length, given, middle, inverse)
        else:
            _row(one(x), target, source, gamma, beta, length, given, middle, inverse)
        mean[row], invstd[row] = middle, inverse


@numba.njit
def _scaled(unit, g, gamma, given, j, count):
    """g * gamma, rounded, as its mean is: so a row of one has gradient 0."""
    value = load_some(unit, g, j, count, 0.0)
    return product(value, load_some(unit, gamma, j, count, 0.0)) if given else value


@numba.njit
def _row_products(unit, g, x, gamma, length, scaled, middle, inverse):
    """The sums of g * gamma and of g * gamma * (x - middle) * inverse."""
    total, along = 0.0, 0.0
    step = lanes_of(unit)
    for low in range(0, length, BLOCK * step):
        s, q = unit, unit
        for j in range(low, min(low + BLOCK * step, length), step):
            value = _scaled(unit, g, gamma, scaled, j, length - j)
            hat = (load_some(unit, x, j, length - j, 0.0) - middle) * inverse
            s, q = s + value, fma(value, hat, q)
        total, along = total + in_all(s), along + in_all(q)
    return total, along


@numba.njit
def _means(unit, levels, slopes, dx, g, x, gamma, mean, invstd, low, high, length, scaled):
    """Of the rows low .. high: the means of g * gamma, and of g * gamma * (x - mean) * invstd,
    rounded to the element type.  Memory of dx is asked for."""
    for row in range(low, high):
        place = row * length
        for j in range(0, length, vector_lanes(g)):
            prefetch(dx, place + j)
        total, along = _row_products(unit, at(g, place), at(x, place), gamma, length, scaled,
                                     mean[row], invstd[row])  # fmt: skip
        levels[row - low], slopes[row - low] = total / length, along / length


@numba.njit
def _block_dx(
    unit, dx, sums, products, levels, slopes, g, x, gamma, mean, invstd, low, high, length, scaled,
    begin, end,
):  # fmt: skip
    """Of the rows low .. high and the columns begin .. end: dx, and in each column the sums of g
    and of g * (x - mean) * invstd."""
    part = tile(g)
    for j in range(begin, end, lanes_of(unit)):
        count = end - j
        scale = _or(unit, gamma, scaled, j, count, 1.0)
        s, q = unit, unit
        for row in range(low, high):
            place, inverse = row * length + j, invstd[row]
            arrived = load_some(unit, g, place, count, 0.0)
            hat = (load_some(unit, x, place, count, 0.0) - mean[row]) * inverse
            value = product(arrived, scale) - levels[row - low] - hat * slopes[row - low]
            store_first(dx, place, count, value * inverse)
            s, q = s + arrived, fma(arrived, hat, q)
        store(part, 0, s)
        for i in range(min(lanes_of(unit), count)):
            sums[j + i] += part[i]
        store(part, 0, q)
        for i in range(min(lanes_of(unit), count)):
            products[j + i] += part[i]


ROWS = 8  # that are done together: of g, x and dx, they fit the nearest cache
PARTS = 32  # of the rows: each has sums for dgamma and dbeta of its own, whoever takes it


@kernel
def rows_dx(
    t, n, dx: ptr, sums: i64ptr, g: ptr, x: ptr, gamma: ptr, mean: ptr, invstd: ptr, count: size,
    length: size, scaled: size, parts: size,
):  # fmt: skip
    """dx, and sums[part][2][length], float64, for dgamma and dbeta: g and x of a few rows are read
    from memory once."""
    levels, slopes = tile(x), tile(x)
    wide = abreast(x, length)
    for part in range(t * parts // n, (t + 1) * parts // n):
        products = at(view(sums, numba.float64), 2 * part * length)
        totals = at(products, length)
        clear(products, 2 * length)
        stop = (part + 1) * count // parts
        for low in range(part * count // parts, stop, ROWS):
            high = min(low + ROWS, stop)
            if wide > 0:
                _means(four(x), levels, slopes, dx, g, x, gamma, mean, invstd, low, high, length,
                       scaled)  # fmt: skip
            else:
                _means(one(x), levels, slopes, dx, g, x, gamma, mean, invstd, low, high, length,
                       scaled)  # fmt: skip
            _block_dx(four(x), dx, totals, products, levels, slopes, g, x, gamma, mean, invstd,
                      low, high, length, scaled, 0, wide)  # fmt: skip
            _block_dx(one(x), dx, totals, products, levels, slopes, g, x, gamma, mean, invstd,
                      low, high, length, scaled, wide, length)  # fmt: skip


@kernel
def rows_sums(t, n, dgamma: ptr, dbeta: ptr, sums: i64ptr, length: size, parts: size):
    """The sums over all parts."""
    products, totals = wide_tile(dgamma), wide_tile(dgamma)
    start, stop = t * length // n, (t + 1) * length // n
    for first in range(start, stop, 256):
        some = min(256, stop - first)
        clear(products, some)
        clear(totals, some)
        for part in range(parts):
            row = at(view(sums, numba.float64), 2 * part * length + first)
            for j in range(some):
                products[j] += row[j]
            for j in range(some):
                totals[j] += row[length + j]
        for j in range(some):
            dgamma[first + j], dbeta[first + j] = products[j], totals[j]
