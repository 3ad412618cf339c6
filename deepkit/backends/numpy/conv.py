"""Convolutions as matrix products.

    im2col   every window of x becomes a row of R S C values, so that y = columns @ w.T is one
             product; the gradients go the same way back
    direct   one product of (pixels, C) with (C, K) for every place (r, s) in the window

Groups are a leading axis of all of these matrices.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .. import scratch, variants
from .linear import _activate

COLUMNS = 1 << 20  # numbers in the columns of one block of images: 4 MB of float32
PATCHES = 1 << 18  # numbers in the pixels of one block of images: what caches hold


# windows ------------------------------------------------------------------------------------------


def _windows(x, y, window, stride, dilation, groups):
    """The windows of (padded) x as a view (n, P, Q, R, S, groups, C/groups) of its memory."""
    n, _, _, c = x.shape
    image, row, column, channel = x.strides
    steps = (row * stride[0], column * stride[1], row * dilation[0], column * dilation[1])
    shape = (n, *y.shape[1:3], *window, groups, c // groups)
    return as_strided(x, shape, (image, *steps, channel * (c // groups), channel))


def _block(images, rows, width, limit):
    """How many images, and how many rows of each, hold at most `limit` numbers, `width` a row."""
    count = max(1, min(images, limit // (rows * width)))
    return count, rows if count > 1 else max(1, min(rows, limit // width))


def _slices(length, step):
    return [np.s_[i : min(i + step, length)] for i in range(0, length, step)]


def _padded_shape(x, images, padding):
    """A padded block of images; nothing where there is no padding."""
    (top, bottom), (left, right) = padding
    if not any((top, bottom, left, right)):
        return (0,)
    return (images, x.shape[1] + top + bottom, x.shape[2] + left + right, x.shape[3])


def _inside(padded, x, padding):
    """The part of padded images that is not padding."""
    (top, _), (left, _) = padding
    return padded[:, top : top + x.shape[1], left : left + x.shape[2]]


def _padded(x, memory, padding):
    if not memory.size:
        return x
    memory = memory[: len(x)]
    memory[...] = 0
    _inside(memory, x, padding)[...] = x
    return memory


def _grouped(a, groups):
    """(n, p, q, channels) -> (groups, n p q, channels/groups), a view."""
    return a.reshape(-1, groups, a.shape[-1] // groups).swapaxes(0, 1)


def _finish(y, b, activation, row):
    """Bias and activation.  `row` holds b for every pixel of a row: longer rows add faster."""
    if b is not None:
        row[...] = b
        rows = y.reshape(-1, row.size)
        np.add(rows, row.reshape(-1), out=rows)
    _activate(y, activation)


# im2col -------------------------------------------------------------------------------------------


def _columns_memory(y, x, window, padding):
    """Scratch: the columns of a block, and its padded images."""
    width = y.shape[2] * window[0] * window[1] * x.shape[3]
    images, rows = _block(y.shape[0], y.shape[1], width, COLUMNS)
    return [((images * rows * width,), x.dtype), (_padded_shape(x, images, padding), x.dtype)]


def _columns(windows, memory):
    """Windows (n, P, Q, R, S, groups, C) -> columns (groups, n P Q, R S C), copied to `memory`."""
    n, p, q, r, s, groups, c = windows.shape
    if groups == 1 and windows.flags.c_contiguous:  # one window an image, or one pixel a window
        return windows.reshape(1, n * p * q, r * s * c)
    memory = memory[: windows.size]
    if q > 3 * s * c:  # the longest run is copied innermost: here along a row of windows
        np.copyto(memory.reshape(groups, r, s, c, n, p, q), windows.transpose(5, 3, 4, 6, 0, 1, 2))
        return memory.reshape(groups, r * s * c, n * p * q).swapaxes(1, 2)
    np.copyto(memory.reshape(groups, n, p, q, r, s, c), windows.transpose(5, 0, 1, 2, 3, 4, 6))
    return memory.reshape(groups, n * p * q, r * s * c)


def _blocks(y, x, memory, window, stride, padding, dilation, groups):
    """Blocks of y as (groups, pixels, K/groups), and the columns of x that they see."""
    columns, padded = memory
    width = y.shape[2] * window[0] * window[1] * x.shape[3]
    images, rows = _block(y.shape[0], y.shape[1], width, COLUMNS)
    for i in _slices(len(y), images):
        windows = _windows(_padded(x[i], padded, padding), y, window, stride, dilation, groups)
        for j in _slices(y.shape[1], rows):
            yield _grouped(y[i, j], groups), _columns(windows[:, j], columns)


@scratch(
    lambda y, x, w, b, *, padding, **_: [
        *_columns_memory(y, x, w.shape[1:3], padding),
        (y.shape[2:], y.dtype),
    ]
)
def _conv2d_im2col(
    y, x, w, b, *, stride, padding, dilation, groups, activation, algorithm, scratch
):
    *memory, row = scratch
    filters = w.reshape(groups, w.shape[0] // groups, -1).swapaxes(1, 2)
    for out, columns in _blocks(y, x, memory, w.shape[1:3], stride, padding, dilation, groups):
        np.matmul(columns, filters, out=out)
    _finish(y, b, activation, row)


def _spread(windows, columns, stride, dilation):
    """Add columns, in the shape of `windows`, to the memory that the windows share.

    Windows that are `apart` in a row do not overlap, so that they take one addition together.
    """
    r, s = windows.shape[3:5]
    apart = -(-((s - 1) * dilation[1] + 1) // stride[1])
    for row in range(r):
        for first in range(min(apart, windows.shape[2])):
            part = windows[:, :, first::apart, row]
            np.add(part, columns[:, :, first::apart, row], out=part)


@scratch(lambda dx, g, w, *, padding, **_: _columns_memory(g, dx, w.shape[1:3], padding))
def _conv2d_dx_im2col(dx, g, w, *, size, stride, padding, dilation, groups, algorithm, scratch):
    columns, padded = scratch
    filters = w.reshape(groups, w.shape[0] // groups, -1)
    images, rows = _block(g.shape[0], g.shape[1], g.shape[2] * w[0].size * groups, COLUMNS)
    for i in _slices(len(g), images):
        target = padded[: len(dx[i])] if padded.size else dx[i]
        target[...] = 0
        windows = _windows(target, g, w.shape[1:3], stride, dilation, groups)
        for j in _slices(g.shape[1], rows):
            here = windows[:, j]
            n, p, q, r, s, _, c = here.shape
            part = columns[: here.size].reshape(groups, n * p * q, r * s * c)
            np.matmul(_grouped(g[i, j], groups), filters, out=part)
            part = part.reshape(groups, n, p, q, r, s, c).transpose(1, 2, 3, 4, 5, 0, 6)
            _spread(here, part, stride, dilation)
        if padded.size:
            dx[i] = _inside(target, dx, padding)


@scratch(
    lambda dw, g, x, *, window, padding, **_: [
        *_columns_memory(g, x, window, padding),
        (dw.shape, dw.dtype),
    ]
)
def _conv2d_dw_im2col(dw, g, x, *, window, stride, padding, dilation, groups, algorithm, scratch):
    *memory, part = scratch
    part = part.reshape(groups, dw.shape[0] // groups, -1)
    dw[...] = 0
    for arrived, columns in _blocks(g, x, memory, window, stride, padding, dilation, groups):
        np.matmul(arrived.swapaxes(1, 2), columns, out=part)
        np.add(dw, part.reshape(dw.shape), out=dw)


# direct -------------------------------------------------------------------------------------------


def _taps(y, x, window, stride, padding, dilation):
    """(r, s), the outputs that read x through this place of the window, and what they read."""
    for r in range(window[0]):
        rows = _reach(r * dilation[0] - padding[0][0], stride[0], y.shape[1], x.shape[1])
        for s in range(window[1]):
            columns = _reach(s * dilation[1] - padding[1][0], stride[1], y.shape[2], x.shape[2])
            if rows and columns:
                yield (r, s), np.s_[:, rows[0], columns[0]], np.s_[:, rows[1], columns[1]]


def _reach(offset, stride, outputs, size):
    """The slice of p with 0 <= p * stride + offset < size, and the slice of these positions."""
    first = max(0, -(offset // stride))
    last = min(outputs, (size - 1 - offset) // stride + 1)
    if first >= last:
        return None
    start = first * stride + offset
    return np.s_[first:last], np.s_[start : start + (last - first - 1) * stride + 1 : stride]


def _pixels_memory(y, x):
    """Scratch: for a block of images, one pixel of x and one of y for every output."""
    n, p, q, k = y.shape
    images, _ = _block(n, p, q * max(k, x.shape[3]), PATCHES)
    return [((images, p, q, x.shape[3]), x.dtype), ((images, p, q, k), y.dtype)]


def _seen(patch, x, out, at):
    """What every output reads through one place of the window; 0 where that is padding."""
    seen = patch[: len(x)]
    if seen[out].shape != seen.shape:
        seen[...] = 0
    seen[out] = x[at]
    return seen


def _product(a, b, out):
    """Matrix products of (groups, m, i) and (groups, i, n); with i = 1 there is nothing to sum."""
    (np.multiply if b.shape[1] == 1 else np.matmul)(a, b, out=out)


@scratch(lambda y, x, w, b, **_: [*_pixels_memory(y, x), (y.shape[2:], y.dtype)])
def _conv2d_direct(
    y, x, w, b, *, stride, padding, dilation, groups, activation, algorithm, scratch
):
    patch, part, row = scratch
    taps = list(_taps(y, x, w.shape[1:3], stride, padding, dilation))
    filters = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    y[...] = 0
    for i in _slices(len(y), len(patch)):
        add = part[: len(y[i])]
        for (r, s), out, at in taps:
            seen = _seen(patch, x[i], out, at)
            weights = filters[:, :, r, s].swapaxes(1, 2)
            _product(_grouped(seen, groups), weights, _grouped(add, groups))
            np.add(y[i], add, out=y[i])
    _finish(y, b, activation, row)


@scratch(lambda dx, g, w, **_: _pixels_memory(g, dx)[:1])
def _conv2d_dx_direct(dx, g, w, *, size, stride, padding, dilation, groups, algorithm, scratch):
    (patch,) = scratch
    taps = list(_taps(g, dx, w.shape[1:3], stride, padding, dilation))
    filters = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    dx[...] = 0
    for i in _slices(len(g), len(patch)):
        add = patch[: len(g[i])]
        for (r, s), out, at in taps:
            _product(_grouped(g[i], groups), filters[:, :, r, s], _grouped(add, groups))
            dx[i][at] += add[out]


@scratch(lambda dw, g, x, **_: [_pixels_memory(g, x)[0], ((*dw.shape[:1], dw.shape[3]), dw.dtype)])
def _conv2d_dw_direct(dw, g, x, *, window, stride, padding, dilation, groups, algorithm, scratch):
    patch, part = scratch
    taps = list(_taps(g, x, window, stride, padding, dilation))
    add = part.reshape(groups, dw.shape[0] // groups, -1)
    dw[...] = 0
    for i in _slices(len(g), len(patch)):
        for (r, s), out, at in taps:
            seen = _seen(patch, x[i], out, at)
            np.matmul(_grouped(g[i], groups).swapaxes(1, 2), _grouped(seen, groups), out=add)
            dw[:, r, s] += part


# the choice ---------------------------------------------------------------------------------------


def _best(groups, channels):
    """With one input channel a group there is nothing to sum but the window: no product pays."""
    return "direct" if groups > 1 and groups == channels else "im2col"


@variants(direct=_conv2d_direct, im2col=_conv2d_im2col)
def conv2d(x, w, b, *, groups, **_):
    return _best(groups, x.shape[3])


@variants(direct=_conv2d_dx_direct, im2col=_conv2d_dx_im2col)
def conv2d_dx(g, w, *, groups, **_):
    return _best(groups, w.shape[3] * groups)


@variants(direct=_conv2d_dw_direct, im2col=_conv2d_dw_im2col)
def conv2d_dw(g, x, **_):
    return "im2col"


# weights of their own: a product for every position, over all images ------------------------------


def _local_memory(y, x, window, padding):
    """Scratch: the columns of some rows of all images, and all padded images."""
    width = y.shape[2] * window[0] * window[1] * x.shape[3]
    rows = _local_rows(y, width)
    return [
        ((len(y) * rows * width,), x.dtype),
        (_padded_shape(x, len(x), padding), x.dtype),
    ]


def _local_rows(y, width):
    return max(1, min(y.shape[1], COLUMNS // max(1, len(y) * width)))


def _positions(a):
    """(n, p, q, channels) -> (p, q, n, channels), a view."""
    return a.transpose(1, 2, 0, 3)


def _local_blocks(y, x, columns, window, stride):
    """Slices of rows, their windows, and memory for these as (p, q, n, R S C)."""
    windows = _windows(x, y, window, stride, (1, 1), 1)
    rows = _local_rows(y, windows[:1, :1].size)
    for j in _slices(y.shape[1], rows):
        n, p, q, r, s, _, c = windows[:, j].shape
        yield j, windows[:, j], columns[: windows[:, j].size].reshape(p, q, n, r * s * c)


def _as_windows(columns, windows):
    n, p, q, r, s, _, c = windows.shape
    return columns.reshape(p, q, n, r, s, 1, c).transpose(2, 0, 1, 3, 4, 5, 6)


@scratch(lambda y, x, w, b, *, padding, **_: _local_memory(y, x, w.shape[3:5], padding))
def locally_connected2d(y, x, w, b, *, stride, padding, scratch):
    memory, padded = scratch
    filters = w.reshape(*w.shape[:3], -1)
    x = _padded(x, padded, padding)
    for j, windows, columns in _local_blocks(y, x, memory, w.shape[3:5], stride):
        np.copyto(_as_windows(columns, windows), windows)
        np.matmul(columns, filters[j].swapaxes(2, 3), out=_positions(y[:, j]))
    if b is not None:
        np.add(y, b, out=y)


@scratch(lambda dx, g, w, *, padding, **_: _local_memory(g, dx, w.shape[3:5], padding))
def locally_connected2d_dx(dx, g, w, *, size, stride, padding, scratch):
    memory, padded = scratch
    filters = w.reshape(*w.shape[:3], -1)
    target = padded if padded.size else dx
    target[...] = 0
    for j, windows, columns in _local_blocks(g, target, memory, w.shape[3:5], stride):
        np.matmul(_positions(g[:, j]), filters[j], out=columns)
        _spread(windows, _as_windows(columns, windows), stride, (1, 1))
    if padded.size:
        dx[...] = _inside(target, dx, padding)


@scratch(lambda dw, g, x, *, window, padding, **_: _local_memory(g, x, window, padding))
def locally_connected2d_dw(dw, g, x, *, window, stride, padding, scratch):
    memory, padded = scratch
    x = _padded(x, padded, padding)
    out = dw.reshape(*dw.shape[:3], -1)
    for j, windows, columns in _local_blocks(g, x, memory, window, stride):
        np.copyto(_as_windows(columns, windows), windows)
        np.matmul(_positions(g[:, j]).swapaxes(2, 3), columns, out=out[j])
