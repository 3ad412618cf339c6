"""Pooling: one pass over all windows at once for every place (r, s) in the window."""

from __future__ import annotations

import numpy as np

from .. import scratch
from .conv import _taps

BITS = {4: np.int32, 8: np.int64}


def _places(y, x, window, stride, padding, dilation=(1, 1)):
    """(r S + s, the outputs that see x through this place, what they see), in reading order."""
    for (r, s), out, at in _taps(y, x, window, stride, padding, dilation):
        yield r * window[1] + s, out, at


def _where(hit, values, out):
    """out = values where hit, else 0.  As bits, since infinity * 0 would be NaN."""
    bits = BITS[out.itemsize]
    np.multiply(values.view(bits), hit, out=out.view(bits))


@scratch(
    lambda y, index, x, **_: [
        (y.shape, y.dtype),
        (y.shape, index.dtype),
        (y.shape, bool),
        (y.shape, bool),
    ]
)
def max_pool2d(y, index, x, *, window, stride, padding, dilation, ceil_mode, scratch):
    """Backwards over the places, so that the first of equal values stays."""
    y[...] = -np.inf
    index[...] = 0
    for i, out, at in reversed(list(_places(y, x, window, stride, padding, dilation))):
        seen, change, won, is_nan = [a[out] for a in scratch]
        seen[...] = x[at]
        np.greater_equal(seen, y[out], out=won)
        np.not_equal(seen, seen, out=is_nan)
        np.logical_or(won, is_nan, out=won)
        np.maximum(y[out], seen, out=y[out])
        np.subtract(i, index[out], out=change)  # where won: index = i
        np.multiply(change, won, out=change)
        np.add(index[out], change, out=index[out])


@scratch(lambda dx, g, index, **_: [(g.shape, g.dtype), (g.shape, bool)])
def max_pool2d_dx(dx, g, index, *, size, window, stride, padding, dilation, scratch):
    part, hit = scratch
    dx[...] = 0
    for i, out, at in _places(g, dx, window, stride, padding, dilation):
        np.equal(index, i, out=hit)
        _where(hit, g, part)
        dx[at] += part[out]


@scratch(lambda y, x, index, **_: [(y.shape, y.dtype), (y.shape, bool)])
def max_pool2d_gather(y, x, index, *, window, stride, padding, dilation, scratch):
    y[...] = 0
    for i, out, at in _places(y, x, window, stride, padding, dilation):
        seen, hit = [a[out] for a in scratch]
        seen[...] = x[at]
        np.equal(index[out], i, out=hit)
        np.copyto(y[out], seen, where=hit)


# the mean -----------------------------------------------------------------------------------------


def _count(counts, size, window, stride, padding, count_include_pad):
    """How many values the mean of each window is over: counts (P, Q, C)."""
    lengths = []
    for d, r, s, ends, outputs in zip(size, window, stride, padding, counts.shape[:2], strict=True):
        first = np.arange(outputs) * s - ends[0]
        last = np.minimum(first + r, d + ends[1])
        if not count_include_pad:
            first, last = np.maximum(first, 0), np.minimum(last, d)
        lengths.append(last - first)
    np.multiply(lengths[0][:, None, None], lengths[1][:, None], out=counts, casting="unsafe")


@scratch(lambda y, x, **_: [(y.shape[1:], y.dtype)])
def avg_pool2d(y, x, *, window, stride, padding, ceil_mode, count_include_pad, scratch):
    y[...] = 0
    for _, out, at in _places(y, x, window, stride, padding):
        y[out] += x[at]
    _count(scratch[0], x.shape[1:3], window, stride, padding, count_include_pad)
    np.divide(y, scratch[0], out=y)


@scratch(lambda dx, g, **_: [(g.shape[1:], g.dtype), (g.shape, g.dtype)])
def avg_pool2d_dx(dx, g, *, size, window, stride, padding, ceil_mode, count_include_pad, scratch):
    counts, part = scratch
    _count(counts, size, window, stride, padding, count_include_pad)
    np.divide(g, counts, out=part)
    dx[...] = 0
    for _, out, at in _places(g, dx, window, stride, padding):
        dx[at] += part[out]
