"""Softmax and cross entropy along one axis, in every layout with the same loops over registers.

    a register holds              reduced over                         layout
    part of a row                 the row's registers, then lanes      C order, the last axis
    neighbours of other axes      the steps of the axis                C order, any other axis
    images                        the steps of the axis                lanes
    rows, up to 16 of them        the steps of the axis                C order, a short last axis

A *strip* is `length` steps of up to 64 neighbours, walked with four registers abreast as far as
they are filled, and one at a time beyond (`_parts`).  A row of C order is a strip one vector wide
whose steps are its parts; its lanes are combined at the end, and at step j there are `slope` * j
fewer elements left, so that the last vector may be partly filled.

Short rows, as of ten classes, are turned on the stack, so that 16 of them are a strip.

A strip is walked several times: for its largest numbers, for the sum of powers, to be written.  It
is read from memory once, since it fits the cache, unless it is very long.
"""

from __future__ import annotations

import math
from typing import Any

import numba

from .. import scratch
from .functions import exp, log
from .lanes import Lanes, chunk_width, transpose
from .launch import flt, i64ptr, kernel, launch, ptr, size
from .rows import like, number, tile, wide_tile
from .simd import at, vector_lanes
from .vector import (
    abreast,
    add_up,
    four,
    lanes_of,
    larger,
    largest,
    load_as,
    load_some,
    one,
    spread,
    store,
    store_first,
)

LANES, TURNED = 1, 2  # arrangements of strips; 0: C order as it is
SHORT = 16  # rows that are turned together, and their length at most: a tile is their square
LOG = 1  # the logarithm of the softmax instead
BLOCK = 32  # so many powers are added up before their sum joins the large one

# strips -------------------------------------------------------------------------------------------


@numba.njit
def _strip(task, columns, arrangement, outer, length, inner):
    """Of strip number `task`: where it begins, its columns, the elements from step to step; a row
    of C order has 0 columns."""
    if arrangement == TURNED:
        return SHORT * task * length, SHORT, SHORT
    if arrangement == LANES:
        positions = outer * inner
        first = 64 * (task // positions)
        width = chunk_width(first, columns)
        i, j = task % positions // inner, task % inner
        return first * positions * length + (i * length * inner + j) * width, width, inner * width
    if inner == 1:
        return task * length, 0, 0
    pieces = (inner + 63) // 64
    first = 64 * (task % pieces)
    return task // pieces * length * inner + first, min(64, inner - first), inner


@numba.njit
def _parts(x, width, step, length):
    """(columns, steps, step, elements at step 0, slope) of what is walked four registers abreast,
    and of what comes after that, one at a time; 0 columns: nothing."""
    lanes = vector_lanes(x)
    if width == 0:
        some = 4 * lanes if length >= 4 * lanes else lanes
        row, nothing = (1, (length + some - 1) // some, some, length, some), (0, 0, 0, 0, 0)
        return (row, nothing) if some > lanes else (nothing, row)
    wide = abreast(x, width)
    return (wide, length, step, wide, 0), (width - wide, length, step, width - wide, 0)


@numba.njit
def _powers(unit, y, totals, peaks, x, part, keep):
    """peaks = the largest x of each lane, totals = the sum of e^(x - peak) there, and, to `keep`,
    y = e^(x - peak).  Where an x is NaN, so is its total.

    In blocks, so that many small powers are not lost one by one beside a large sum.
    """
    width, steps, step, extent, slope = part
    for i in range(0, width, lanes_of(unit)):
        a = spread(unit, -math.inf)
        b = a
        for j in range(steps):
            value = load_some(unit, x, j * step + i, extent - i - j * slope, -math.inf)
            a, b = larger(b, value), a
        peak = larger(a, b)
        if slope > 0:
            peak = spread(unit, largest(peak))
        store(peaks, i, peak)
        total = unit
        for low in range(0, steps, BLOCK):
            block = unit
            for j in range(low, min(low + BLOCK, steps)):
                place, count = j * step + i, extent - i - j * slope
                power = exp(load_some(unit, x, place, count, -math.inf) - peak)
                if keep:
                    store_first(y, place, count, power)
                block += power
            total += block
        if slope > 0:
            total = spread(unit, add_up(total))
        store(totals, i, total)


@numba.njit
def _softmax(unit, y, x, peaks, totals, part, op):
    width, steps, step, extent, slope = part
    _powers(unit, y, totals, peaks, x, part, op != LOG)
    for i in range(0, width, lanes_of(unit)):
        peak, total = load_as(unit, peaks, i), load_as(unit, totals, i)
        total = log(total) if op == LOG else 1.0 / total
        for j in range(steps):
            place, count = j * step + i, extent - i - j * slope
            if op == LOG:
                value = load_some(unit, x, place, count, 0.0) - peak - total
            else:
                value = load_some(unit, y, place, count, 0.0) * total
            store_first(y, place, count, value)


@numba.njit
def _softmax_dx(unit, dx, g, y, part, op):
    width, steps, step, extent, slope = part
    for i in range(0, width, lanes_of(unit)):
        a, b = unit, unit
        for j in range(steps):
            place, count = j * step + i, extent - i - j * slope
            arrived = load_some(unit, g, place, count, 0.0)
            if op == LOG:
                a, b = arrived + b, a
            else:
                a, b = arrived * load_some(unit, y, place, count, 0.0) + b, a
        total = a + b
        if slope > 0:
            total = spread(unit, add_up(total))
        for j in range(steps):
            place, count = j * step + i, extent - i - j * slope
            arrived = load_some(unit, g, place, count, 0.0)
            result = load_some(unit, y, place, count, 0.0)
            if op == LOG:
                store_first(dx, place, count, arrived - exp(result) * total)
            else:
                store_first(dx, place, count, (arrived - total) * result)


@numba.njit
def _turn(turned, x, task, rows, length):
    """The rows of a strip into a tile, [step][row]."""
    some = min(SHORT, rows - SHORT * task)
    transpose(turned, SHORT, at(x, SHORT * task * length), length, some, length)


@numba.njit
def _turn_back(y, turned, task, rows, length):
    some = min(SHORT, rows - SHORT * task)
    transpose(at(y, SHORT * task * length), length, turned, SHORT, length, some)


@kernel
def _forward(
    t, n, y: ptr, x: ptr, op: size, strips: size, columns: size, arrangement: size, outer: size,
    length: size, inner: size,
):  # fmt: skip
    peaks, totals, turned = tile(x), tile(x), tile(x)
    for task in range(t * strips // n, (t + 1) * strips // n):
        start, width, step = _strip(task, columns, arrangement, outer, length, inner)
        wide, narrow = _parts(x, width, step, length)
        source, target = at(x, start), at(y, start)
        if arrangement == TURNED:
            _turn(turned, x, task, outer, length)
            source, target = turned, turned
        if wide[0] > 0:
            _softmax(four(x), target, source, peaks, totals, wide, op)
        if narrow[0] > 0:
            some = wide[0]
            _softmax(one(x), at(target, some), at(source, some), peaks, totals, narrow, op)
        if arrangement == TURNED:
            _turn_back(y, turned, task, outer, length)


@kernel
def _backward(
    t, n, dx: ptr, g: ptr, y: ptr, op: size, strips: size, columns: size, arrangement: size,
    outer: size, length: size, inner: size,
):  # fmt: skip
    for task in range(t * strips // n, (t + 1) * strips // n):
        start, width, step = _strip(task, columns, arrangement, outer, length, inner)
        wide, narrow = _parts(g, width, step, length)
        if wide[0] > 0:
            _softmax_dx(four(g), at(dx, start), at(g, start), at(y, start), wide, op)
        if narrow[0] > 0:
            start += wide[0]
            _softmax_dx(one(g), at(dx, start), at(g, start), at(y, start), narrow, op)


def _sizes(x: Any, axis: int, turn: bool = True) -> tuple[int, ...]:
    """strips, columns, arrangement, outer, length, inner: see `_strip`."""
    length, inner = x.shape[axis], math.prod(x.shape[axis + 1 :])
    if isinstance(x, Lanes):
        outer = math.prod(x.shape[1:axis])
        return -(-x.lanes // 64) * outer * inner, x.lanes, LANES, outer, length, inner
    outer = math.prod(x.shape[:axis])
    if turn and inner == 1 and length <= SHORT:
        return -(-outer // SHORT), 0, TURNED, outer, length, inner
    return outer * (1 if inner == 1 else -(-inner // 64)), 0, 0, outer, length, inner


def softmax(y: Any, x: Any, *, axis: int) -> None:
    if x.size:
        launch(_forward, y.dtype, y, x, 0, *_sizes(x, axis))


def log_softmax(y: Any, x: Any, *, axis: int) -> None:
    if x.size:
        launch(_forward, y.dtype, y, x, LOG, *_sizes(x, axis))


def softmax_dx(dx: Any, g: Any, y: Any, *, axis: int) -> None:
    if y.size:
        launch(_backward, y.dtype, dx, g, y, 0, *_sizes(y, axis, turn=False))


def log_softmax_dx(dx: Any, g: Any, y: Any, *, axis: int) -> None:
    if y.size:
        launch(_backward, y.dtype, dx, g, y, LOG, *_sizes(y, axis, turn=False))


# cross entropy ------------------------------------------------------------------------------------


@numba.njit
def _sums(unit, sums, x, peaks, part):
    """sums = the sum of x - peak in each lane."""
    width, steps, step, extent, slope = part
    for i in range(0, width, lanes_of(unit)):
        peak, total = load_as(unit, peaks, i), unit
        for j in range(steps):
            # where there is no x, the peak, which adds nothing
            rest = peaks[i] if slope > 0 else like(x, 0.0)
            total += load_some(unit, x, j * step + i, extent - i - j * slope, rest) - peak
        store(sums, i, spread(unit, add_up(total)) if slope > 0 else total)


@numba.njit
def _strip_powers(y, totals, peaks, x, wide, narrow, keep):
    """`_powers` of both parts of a strip."""
    if wide[0] > 0:
        _powers(four(x), y, totals, peaks, x, wide, keep)
    if narrow[0] > 0:
        at_ = wide[0]
        _powers(one(x), at(y, at_), at(totals, at_), at(peaks, at_), at(x, at_), narrow, keep)


@numba.njit
def _clear(sums):
    for i in range(64):
        sums[i] = 0.0


@numba.njit
def _added(sums):
    """The 64 partial sums, in float64, in one."""
    total = 0.0
    for i in range(64):
        total += sums[i]
    return total


@numba.njit
def _row(task, i, arrangement, width, positions):
    """Of column i of a strip of classes: its image, the number of its row in C order, and where
    its label is.  In C order all rows belong to one image, number 0, and what is no row to 1."""
    if arrangement != LANES:
        row = task + i if arrangement == 0 else SHORT * task + i
        return 0 if row < positions else 1, row, row
    first, position = 64 * (task // positions), task % positions
    image = first + i
    return image, image * positions + position, first * positions + position * width + i


@numba.njit
def _class(label, classes, i, width, step):
    """The label, or one near it that is a class, and where its number is in the strip."""
    inside = min(max(label, 0), classes - 1)
    return inside, inside if width == 0 else inside * step + i


@numba.njit
def _differences(unit, dx, totals, scales, part, share):
    """dx = (dx * total - share) * scale."""
    width, steps, step, extent, slope = part
    for i in range(0, width, lanes_of(unit)):
        inverse, scale = load_as(unit, totals, i), load_as(unit, scales, i)
        for j in range(steps):
            place, count = j * step + i, extent - i - j * slope
            value = (load_some(unit, dx, place, count, 0.0) * inverse - share) * scale
            store_first(dx, place, count, value)


LOSS, MEAN, GRADIENT = 1, 2, 4  # what is wanted


@kernel
def _cross_entropy(
    t, n, y: ptr, loss: ptr, dx: ptr, g: ptr, x: ptr, labels: i64ptr, count: size, strips: size,
    lanes: size, arrangement: size, positions: size, classes: size, smoothing: flt,
    one_each: size, divisor: size, wanted: size,
):  # fmt: skip
    """loss[row] = (s - 1) z_label - s/C sum z + ln sum e^z, z = x - max x; or, in one thread,
    y = the sum of losses / divisor, and no loss is kept.

    dx = g / divisor * (softmax - q): q is 1 - s + s/C at the label, s/C elsewhere.
    """
    peaks, totals, sums, base, scales = tile(x), tile(x), tile(x), tile(x), tile(x)
    right, turned, powers, whole = tile(x), tile(x), tile(x), wide_tile(x)
    _clear(whole)
    s = number(x, smoothing)
    share, gradient = s / like(x, classes), wanted & GRADIENT > 0
    for task in range(t * strips // n, (t + 1) * strips // n):
        start, width, step = _strip(task, lanes, arrangement, positions, classes, 1)
        wide, narrow = _parts(x, width, step, classes)
        source, target, columns = at(x, start), at(dx, start), max(width, 1)
        if arrangement == TURNED:
            _turn(turned, x, task, positions, classes)
            source, target = turned, powers
        _strip_powers(target, totals, peaks, source, wide, narrow, gradient)
        if wanted & (LOSS | MEAN):
            if s > 0:
                _sums(four(x), sums, source, peaks, wide)
                some = wide[0]
                _sums(one(x), at(sums, some), at(source, some), at(peaks, some), narrow)
            for i in range(0, columns, vector_lanes(x)):
                value = log(load_as(one(x), totals, i))
                store(base, i, value - share * load_as(one(x), sums, i) if s > 0 else value)
        for i in range(columns):
            image, row, place = _row(task, i, arrangement, width, positions)
            totals[i], scales[i] = like(x, 1.0) / totals[i], 0
            if image >= count:
                continue
            label = labels[place]
            inside, chosen = _class(label, classes, i, width, step)
            if wanted & (LOSS | MEAN):
                value = (s - like(x, 1.0)) * (source[chosen] - peaks[i]) + base[i]
                value = value if inside == label else like(x, math.nan)
                if wanted & MEAN:
                    whole[row % 64] += value
                else:
                    loss[row] = value
            if gradient:
                scale = g[row * one_each] / like(x, divisor)
                scales[i] = scale if inside == label else like(x, math.nan)
                away = target[chosen] * totals[i] - (like(x, 1.0) - s) - share
                right[i] = away * scales[i]
        if not gradient:
            continue
        if width == 0:
            store(totals, 0, spread(four(x), totals[0]))
            store(scales, 0, spread(four(x), scales[0]))
        _differences(four(x), target, totals, scales, wide, share)
        some = wide[0]
        _differences(one(x), at(target, some), at(totals, some), at(scales, some), narrow, share)
        for i in range(columns):
            image, row, place = _row(task, i, arrangement, width, positions)
            if image < count:
                target[_class(labels[place], classes, i, width, step)[1]] = right[i]
        if arrangement == TURNED:
            _turn_back(dx, powers, task, positions, classes)
    if wanted & MEAN:
        y[0] = _added(whole) / divisor


@kernel
def _total(t, n, y: ptr, loss: ptr, count: size, divisor: size):
    """y = sum of losses / divisor, in one thread."""
    whole = wide_tile(loss)
    _clear(whole)
    for start in range(0, count // 64 * 64, 64):
        for i in range(64):
            whole[i] += loss[start + i]
    for i in range(count // 64 * 64, count):
        whole[i % 64] += loss[i]
    y[0] = _added(whole) / divisor


def _rows(logits: Any) -> tuple[int, ...]:
    """Images, strips, lanes, arrangement, positions, classes; C order is one image of many
    positions."""
    strips, lanes, arrangement, positions, classes, _ = _sizes(logits, logits.ndim - 1)
    images = logits.shape[0] if arrangement == LANES else 1
    return images, strips, lanes, arrangement, positions, classes


ALONE = 16384  # logits that one thread handles, with their mean, sooner than two kernels in a row


def _one_each(y: Any, logits: Any, labels: Any, *, reduction: str, **_: Any) -> list:
    alone = reduction == "none" or logits.size <= ALONE
    return [] if alone else [((labels.size,), logits.dtype)]


def _launch(
    y: Any, loss: Any, dx: Any, g: Any, logits: Any, labels: Any, wanted: int, reduction: str,
    label_smoothing: float,
) -> None:  # fmt: skip
    launch(_cross_entropy, logits.dtype, y, loss, dx, g, logits, labels, *_rows(logits),
           label_smoothing, int(reduction == "none"), labels.size if reduction == "mean" else 1,
           wanted, most=1 if wanted & MEAN else None)  # fmt: skip


def _losses(
    y: Any, dx: Any, g: Any, logits: Any, labels: Any, wanted: int, reduction: str,
    label_smoothing: float, scratch: Any,
) -> None:  # fmt: skip
    """The loss, with what else is wanted."""
    wanted |= LOSS if reduction == "none" or scratch else MEAN
    loss = scratch[0] if scratch else y
    _launch(y, loss, dx, g, logits, labels, wanted, reduction, label_smoothing)
    if scratch:
        divisor = labels.size if reduction == "mean" else 1
        launch(_total, logits.dtype, y, loss, labels.size, divisor, most=1)


@scratch(_one_each)
def label_cross_entropy(
    y: Any, logits: Any, labels: Any, *, reduction: str, label_smoothing: float, scratch: Any = ()
) -> None:
    _losses(y, None, None, logits, labels, 0, reduction, label_smoothing, scratch)


def label_cross_entropy_dx(
    dx: Any, g: Any, logits: Any, labels: Any, *, reduction: str, label_smoothing: float
) -> None:
    _launch(None, None, dx, g, logits, labels, GRADIENT, reduction, label_smoothing)


@scratch(lambda y, dx, g, *ins, **params: _one_each(y, *ins, **params))
def _both(
    y: Any, dx: Any, g: Any, logits: Any, labels: Any, *, reduction: str, label_smoothing: float,
    scratch: Any = (),
) -> None:  # fmt: skip
    _losses(y, dx, g, logits, labels, GRADIENT, reduction, label_smoothing, scratch)


label_cross_entropy.with_dx = _both  # type: ignore[attr-defined]
