"""Softmax and cross entropy: rows side by side in SIMD lanes, so that nothing is summed across.

lanes                        [outer][length][inner][64 images]     a strip is 64 lanes wide and
axis 0 of C order            [length][64 of the other axes]        `length` rows of lanes long
"""

from __future__ import annotations

import math
from typing import Any

import numba

from .. import scratch
from .functions import exp
from .lanes import Lanes, chunk_width
from .launch import flt, i64ptr, kernel, launch, ptr, size
from .rows import like, number, tile, wide_tile
from .simd import at

LOG = 1  # the logarithm of the softmax instead


@numba.njit
def _strip(task, columns, batched, outer, length, inner):
    """Where strip number `task` begins, the elements between its rows, and its width."""
    positions = outer * inner
    first = 64 * (task // positions)
    width = chunk_width(first, columns)
    if not batched:
        return first, columns, width
    i, j = task % positions // inner, task % inner
    return first * positions * length + (i * length * inner + j) * width, inner * width, width


@numba.njit
def _largest(most, x, length, step, width):
    """most = the largest of each lane; where one is NaN, so will be everything made of it."""
    for i in range(width):
        most[i] = x[i]
    for j in range(1, length):
        row = at(x, j * step)
        for i in range(width):
            most[i] = row[i] if row[i] > most[i] else most[i]


@numba.njit
def _powers(y, step_y, total, x, step, most, length, width):
    """y = e^(x - most), and its sum in each lane, taken in blocks of 16 rows: so that many small
    powers are not lost one by one beside a large sum.  With step_y = 0, y is a row of scratch."""
    part = tile(x)
    for i in range(width):
        total[i] = 0
    for start in range(0, length, 16):
        for i in range(width):
            part[i] = 0
        for j in range(start, min(start + 16, length)):
            row, target = at(x, j * step), at(y, j * step_y)
            for i in range(width):
                power = exp(row[i] - most[i])
                target[i] = power
                part[i] += power
        for i in range(width):
            total[i] += part[i]


@numba.njit
def _logarithm(y, x, width):
    for i in range(width):
        y[i] = math.log(x[i])


@kernel
def _forward(
    t, n, y: ptr, x: ptr, op: size, columns: size, batched: size, outer: size, length: size,
    inner: size,
):  # fmt: skip
    most, total, power = tile(x), tile(x), tile(x)
    strips = (columns + 63) // 64 * outer * inner
    for task in range(t * strips // n, (t + 1) * strips // n):
        start, step, width = _strip(task, columns, batched, outer, length, inner)
        source, target = at(x, start), at(y, start)
        _largest(most, source, length, step, width)
        if op == 1:
            _powers(power, 0, total, source, step, most, length, width)
            _logarithm(total, total, width)
            for j in range(length):
                for i in range(width):
                    target[j * step + i] = source[j * step + i] - most[i] - total[i]
        else:
            _powers(target, step, total, source, step, most, length, width)
            for j in range(length):
                for i in range(width):
                    target[j * step + i] /= total[i]


@kernel
def _backward(
    t, n, dx: ptr, g: ptr, y: ptr, op: size, columns: size, batched: size, outer: size,
    length: size, inner: size,
):  # fmt: skip
    total = tile(g)
    strips = (columns + 63) // 64 * outer * inner
    for task in range(t * strips // n, (t + 1) * strips // n):
        start, step, width = _strip(task, columns, batched, outer, length, inner)
        arrived, result, target = at(g, start), at(y, start), at(dx, start)
        for i in range(width):
            total[i] = 0
        for j in range(length):
            row, other = at(arrived, j * step), at(result, j * step)
            if op == 1:
                for i in range(width):
                    total[i] += row[i]
            else:
                for i in range(width):
                    total[i] += row[i] * other[i]
        for j in range(length):
            row, other, out = at(arrived, j * step), at(result, j * step), at(target, j * step)
            if op == 1:
                for i in range(width):
                    out[i] = row[i] - exp(other[i]) * total[i]
            else:
                for i in range(width):
                    out[i] = (row[i] - total[i]) * other[i]


def _sizes(x: Any, axis: int) -> tuple[int, ...]:
    """columns, batched, outer, length, inner: see `_strip`."""
    if not isinstance(x, Lanes):  # the axis is the first one
        return math.prod(x.shape[1:]), 0, 1, x.shape[0], 1
    return x.lanes, 1, math.prod(x.shape[1:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])


def softmax(y: Any, x: Any, *, axis: int) -> None:
    if x.size:
        launch(_forward, y.dtype, y, x, 0, *_sizes(x, axis))


def log_softmax(y: Any, x: Any, *, axis: int) -> None:
    if x.size:
        launch(_forward, y.dtype, y, x, LOG, *_sizes(x, axis))


def softmax_dx(dx: Any, g: Any, y: Any, *, axis: int) -> None:
    if y.size:
        launch(_backward, y.dtype, dx, g, y, 0, *_sizes(y, axis))


def log_softmax_dx(dx: Any, g: Any, y: Any, *, axis: int) -> None:
    if y.size:
        launch(_backward, y.dtype, dx, g, y, LOG, *_sizes(y, axis))


# cross entropy ------------------------------------------------------------------------------------


@kernel
def _losses(
    t, n, loss: ptr, x: ptr, labels: i64ptr, count: size, lanes: size, positions: size,
    classes: size, smoothing: flt,
):  # fmt: skip
    """loss[image, position] = (s - 1) z_label - s/C sum z + ln sum e^z, z = x - max x."""
    most, total, spread = tile(x), tile(x), tile(x)
    s = number(x, smoothing)
    share = s / like(x, classes)
    strips = (lanes + 63) // 64 * positions
    for task in range(t * strips // n, (t + 1) * strips // n):
        start, _, width = _strip(task, lanes, 1, positions, classes, 1)
        first, position = 64 * (task // positions), task % positions
        source = at(x, start)
        label = at(labels, first * positions + position * width)
        _largest(most, source, classes, width, width)
        _powers(spread, 0, total, source, width, most, classes, width)
        _logarithm(total, total, width)
        for i in range(width):
            spread[i] = 0
        if s > 0:
            for j in range(classes):
                for i in range(width):
                    spread[i] += source[j * width + i] - most[i]
            for i in range(width):
                total[i] -= share * spread[i]
        for i in range(min(width, count - first)):
            inside = min(max(label[i], 0), classes - 1)
            z = source[inside * width + i] - most[i]
            value = (s - like(x, 1.0)) * z + total[i]
            loss[(first + i) * positions + position] = (
                value if inside == label[i] else like(x, math.nan)
            )


@kernel
def _total(t, n, y: ptr, loss: ptr, count: size, divisor: size):
    """y = the sum over all losses / divisor: 64 partial sums in float64, whatever n is."""
    if t > 0:
        return
    sums = wide_tile(y)
    for i in range(64):
        sums[i] = 0.0
    whole = count // 64 * 64
    for start in range(0, whole, 64):
        for i in range(64):
            sums[i] += loss[start + i]
    for i in range(count - whole):
        sums[i] += loss[whole + i]
    total = 0.0
    for i in range(64):
        total += sums[i]
    y[0] = total / divisor


def _one_each(y: Any, logits: Any, labels: Any, *, reduction: str, **_: Any) -> list:
    return [] if reduction == "none" else [((labels.size,), logits.dtype)]


@scratch(_one_each)
def label_cross_entropy(
    y: Any,
    logits: Lanes,
    labels: Lanes,
    *,
    reduction: str,
    label_smoothing: float,
    scratch: Any = (),
) -> None:
    loss = y if reduction == "none" else scratch[0]
    classes = logits.shape[-1]
    launch(_losses, logits.dtype, loss, logits, labels, logits.shape[0], logits.lanes,
           logits.inner // classes, classes, label_smoothing)  # fmt: skip
    if reduction != "none":
        rows = labels.size
        launch(_total, logits.dtype, y, loss, rows, rows if reduction == "mean" else 1)


@kernel
def _losses_dx(
    t, n, dx: ptr, g: ptr, x: ptr, labels: i64ptr, count: size, lanes: size, positions: size,
    classes: size, smoothing: flt, one_each: size, divisor: size,
):  # fmt: skip
    """dx = g / divisor * (softmax - q): q is 1 - s + s/C at the label, s/C elsewhere."""
    most, total, scale, chosen = tile(x), tile(x), tile(x), tile(x)
    s = number(x, smoothing)
    share = s / like(x, classes)
    strips = (lanes + 63) // 64 * positions
    for task in range(t * strips // n, (t + 1) * strips // n):
        start, _, width = _strip(task, lanes, 1, positions, classes, 1)
        first, position = 64 * (task // positions), task % positions
        source, target = at(x, start), at(dx, start)
        label = at(labels, first * positions + position * width)
        valid = min(width, count - first)
        _largest(most, source, classes, width, width)
        _powers(target, width, total, source, width, most, classes, width)
        for i in range(width):
            scale[i] = 0
        for i in range(valid):
            inside = min(max(label[i], 0), classes - 1)
            arrived = g[((first + i) * positions + position) * one_each]
            scale[i] = arrived / like(x, divisor) if inside == label[i] else like(x, math.nan)
            probability = target[inside * width + i] / total[i]
            chosen[i] = (probability - (like(x, 1.0) - s) - share) * scale[i]
        for j in range(classes):
            for i in range(width):
                target[j * width + i] = (target[j * width + i] / total[i] - share) * scale[i]
        for i in range(valid):
            inside = min(max(label[i], 0), classes - 1)
            target[inside * width + i] = chosen[i]


def label_cross_entropy_dx(
    dx: Lanes, g: Any, logits: Lanes, labels: Lanes, *, reduction: str, label_smoothing: float
) -> None:
    classes, rows = logits.shape[-1], labels.size
    launch(_losses_dx, dx.dtype, dx, g, logits, labels, logits.shape[0], logits.lanes,
           logits.inner // classes, classes, label_smoothing, int(reduction == "none"),
           rows if reduction == "mean" else 1)  # fmt: skip
