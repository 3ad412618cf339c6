"""Softmax and cross entropy: the largest of each row goes first, so that no exponential overflows.

Infinities and NaN in the input come out as NaN, without a warning.
"""

from __future__ import annotations

import numpy as np

from .. import scratch

INT = np.dtype(np.int64)


def _per_row(x, axis):
    """The shape of one number for each row along `axis`."""
    return tuple(1 if i == axis else d for i, d in enumerate(x.shape))


def _softmax(y, x, row, axis):
    """y = softmax of x; `row` holds the largest, then the sum, of every row."""
    np.max(x, axis=axis, keepdims=True, out=row, initial=-np.inf)
    np.subtract(x, row, out=y)
    np.exp(y, out=y)
    np.sum(y, axis=axis, keepdims=True, out=row)
    y /= row


@scratch(lambda y, x, *, axis: [(_per_row(x, axis), x.dtype)])
@np.errstate(all="ignore")
def softmax(y, x, *, axis, scratch):
    _softmax(y, x, scratch[0], axis)


@scratch(lambda dx, g, y, *, axis: [(_per_row(y, axis), y.dtype)])
@np.errstate(all="ignore")
def softmax_dx(dx, g, y, *, axis, scratch):
    (row,) = scratch
    np.multiply(g, y, out=dx)
    np.sum(dx, axis=axis, keepdims=True, out=row)
    np.subtract(g, row, out=dx)
    dx *= y


@scratch(lambda y, x, *, axis: [(_per_row(x, axis), x.dtype), (x.shape, x.dtype)])
@np.errstate(all="ignore")
def log_softmax(y, x, *, axis, scratch):
    row, powers = scratch
    np.max(x, axis=axis, keepdims=True, out=row, initial=-np.inf)
    np.subtract(x, row, out=y)
    np.exp(y, out=powers)
    np.sum(powers, axis=axis, keepdims=True, out=row)
    np.log(row, out=row)
    y -= row


@scratch(lambda dx, g, y, *, axis: [(_per_row(y, axis), y.dtype)])
@np.errstate(all="ignore")
def log_softmax_dx(dx, g, y, *, axis, scratch):
    (row,) = scratch
    np.sum(g, axis=axis, keepdims=True, out=row)
    np.exp(y, out=dx)
    dx *= row
    np.subtract(g, dx, out=dx)


# cross entropy ------------------------------------------------------------------------------------


def _locate(at, safe, wrong, labels, classes):
    """at[r]: where row r's label lies in the flat logits, moved into its row if it was outside."""
    labels = labels.reshape(-1)
    np.clip(labels, 0, classes - 1, out=safe)
    np.not_equal(labels, safe, out=wrong)
    at[...] = classes
    np.cumsum(at, out=at)
    at -= classes
    at += safe


def _rows(logits, labels):
    """Scratch for one row each: a float column, the floats chosen, two indices, one truth."""
    rows = labels.size
    return [
        ((rows, 1), logits.dtype),
        ((rows,), logits.dtype),
        ((rows,), INT),
        ((rows,), INT),
        ((rows,), bool),
    ]


@scratch(lambda y, logits, labels, **_: [*_rows(logits, labels), (logits.shape, logits.dtype)])
@np.errstate(all="ignore")
def label_cross_entropy(y, logits, labels, *, reduction, label_smoothing, scratch):
    row, loss, at, safe, wrong, z = scratch
    classes = logits.shape[-1]
    x, z = logits.reshape(-1, classes), z.reshape(-1, classes)
    _locate(at, safe, wrong, labels, classes)
    np.max(x, axis=1, keepdims=True, out=row)
    np.subtract(x, row, out=z)  # ln p = z - ln sum e^z
    np.take(z.reshape(-1), at, out=loss, mode="clip")
    loss *= label_smoothing - 1
    if label_smoothing:
        np.sum(z, axis=1, keepdims=True, out=row)
        row *= label_smoothing / classes
        loss -= row[:, 0]
    np.exp(z, out=z)
    np.sum(z, axis=1, keepdims=True, out=row)
    np.log(row, out=row)
    loss += row[:, 0]
    np.copyto(loss, np.nan, where=wrong)
    if reduction == "none":
        y[...] = loss.reshape(y.shape)
    else:
        np.sum(loss, out=y)
        if reduction == "mean":
            y /= labels.size


@scratch(lambda dx, g, logits, labels, **_: _rows(logits, labels))
@np.errstate(all="ignore")
def label_cross_entropy_dx(dx, g, logits, labels, *, reduction, label_smoothing, scratch):
    row, chosen, at, safe, wrong = scratch
    classes = logits.shape[-1]
    d = dx.reshape(-1, classes)
    _locate(at, safe, wrong, labels, classes)
    _softmax(d, logits.reshape(-1, classes), row, 1)
    flat = d.reshape(-1)
    np.take(flat, at, out=chosen, mode="clip")
    chosen -= 1 - label_smoothing
    np.put(flat, at, chosen, mode="clip")
    if label_smoothing:
        d -= label_smoothing / classes
    d *= g.reshape(-1, 1)
    if reduction == "mean":
        d /= labels.size
    np.copyto(d, np.nan, where=wrong[:, None])
