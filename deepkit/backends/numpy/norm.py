"""Normalisation: the mean first, then the squared distances from it.

Sums over a whole batch are taken in float64: in float32 they would lose digits as it grows.
"""

from __future__ import annotations

import numpy as np

from .. import scratch
from .linear import _activate

DOUBLE = np.dtype(np.float64)


def _matrix(x):
    """(N, ..., C) -> (rows, C)."""
    return x.reshape(-1, x.shape[-1])


def _column_sums(total, *factors):
    """total[c] = the sum over all rows of the product of the factors at c."""
    terms = ",".join(["rc"] * len(factors))
    np.einsum(f"{terms}->c", *factors, out=total, dtype=DOUBLE, casting="same_kind")


# batch normalisation ------------------------------------------------------------------------------


@scratch(lambda y, *_, **__: [(y.shape[-1:], DOUBLE), (y.shape[-1:], DOUBLE)])
@np.errstate(all="ignore")
def batch_norm_train(
    y, mean, invstd, x, gamma, beta, residual, running_mean, running_var,
    *, momentum, eps, activation, scratch,
):  # fmt: skip
    total, work = scratch
    x, out = _matrix(x), _matrix(y)
    rows = x.shape[0]
    _column_sums(total, x)
    np.divide(total, rows, out=mean)
    if running_mean is not None:
        _move(running_mean, mean, momentum, work)
    np.subtract(x, mean, out=out)
    _column_sums(total, out, out)
    if running_var is not None:
        np.divide(total, rows - 1, out=work)
        _move(running_var, work, momentum, work)
    total /= rows
    total += eps
    np.sqrt(total, out=total)
    np.divide(1, total, out=invstd)
    out *= invstd
    _finish(y, gamma, beta, residual, activation)


def _move(running, batch, momentum, work):
    """running = (1 - momentum) * running + momentum * batch, in place."""
    np.multiply(batch, momentum, out=work)
    running *= 1 - momentum
    np.add(running, work, out=running)


def _finish(y, gamma, beta, residual, activation):
    if gamma is not None:
        y *= gamma
    if beta is not None:
        y += beta
    if residual is not None:
        y += residual
    _activate(y, activation)


def _work(dx, *_, relu):
    return [(dx.shape[-1:], dx.dtype), *([(_matrix(dx).shape, dx.dtype)] if relu else [])]


@scratch(_work)
@np.errstate(all="ignore")
def batch_norm_dx(dx, dgamma, dbeta, g, x, gamma, mean, invstd, beta, *, relu, scratch):
    work, *passing = scratch
    x, g, out = _matrix(x), _matrix(g), _matrix(dx)
    rows = x.shape[0]
    np.subtract(x, mean, out=out)
    out *= invstd
    if relu:
        y = passing[0]
        y[...] = out
        _finish(y, gamma, beta, None, None)
        np.copyto(y, np.where(y > 0, g, 0))
        g = y
    _column_sums(dgamma, g, out)
    _column_sums(dbeta, g)
    np.divide(dgamma, -rows, out=work)
    out *= work
    np.divide(dbeta, rows, out=work)
    out -= work
    out += g
    out *= invstd
    if gamma is not None:
        out *= gamma


@scratch(lambda y, *_, **__: [(y.shape[-1:], y.dtype)])
@np.errstate(all="ignore")
def batch_norm_infer(
    y, x, gamma, beta, residual, running_mean, running_var, *, eps, activation, scratch
):
    (std,) = scratch
    np.add(running_var, eps, out=std)
    np.sqrt(std, out=std)
    np.subtract(x, running_mean, out=y)
    y /= std
    _finish(y, gamma, beta, residual, activation)


# layer normalisation ------------------------------------------------------------------------------


def _rows(x, axes):
    """(N, ..., D...) -> (rows, the elements of a row)."""
    rows = 1
    for d in x.shape[: x.ndim - axes]:
        rows *= d
    return x.reshape(rows, -1) if rows else x.reshape(0, 1)


@np.errstate(all="ignore")
def layer_norm_over(y, mean, invstd, x, gamma, beta, *, axes, eps):
    rows, out = _rows(x, axes), _rows(y, axes)
    middle, inverse = mean.reshape(-1), invstd.reshape(-1)
    np.mean(rows, axis=1, out=middle)
    np.subtract(rows, middle[:, None], out=out)
    np.einsum("rc,rc->r", out, out, out=inverse)
    inverse /= rows.shape[1]
    inverse += eps
    np.sqrt(inverse, out=inverse)
    np.divide(1, inverse, out=inverse)
    out *= inverse[:, None]
    _finish(y, gamma, beta, None, None)


@scratch(
    lambda dx, dgamma, dbeta, g, x, gamma, mean, *_, **__: [
        (dx.shape, dx.dtype),
        (mean.shape, dx.dtype),
    ]
)
@np.errstate(all="ignore")
def layer_norm_dx(dx, dgamma, dbeta, g, x, gamma, mean, invstd, *, axes, scratch):
    scaled, row = scratch
    np.subtract(x, mean, out=dx)
    dx *= invstd  # h, until the end
    _column_sums(dgamma.reshape(-1), _rows(g, axes), _rows(dx, axes))
    _column_sums(dbeta.reshape(-1), _rows(g, axes))
    np.multiply(g, 1 if gamma is None else gamma, out=scaled)
    flat, hat, size = _rows(scaled, axes), _rows(dx, axes), dgamma.size
    np.einsum("rc,rc->r", flat, hat, out=row.reshape(-1))
    row /= -size
    dx *= row
    dx += scaled
    np.sum(flat, axis=1, out=row.reshape(-1))
    row /= size
    dx -= row
    dx *= invstd


# local response normalisation ---------------------------------------------------------------------


def _window_sums(total, x, before, after):
    """total_c = x_(c - before) + ... + x_(c + after) over the last axis."""
    channels = x.shape[-1]
    total[...] = x
    for j in range(1, min(before, channels - 1) + 1):
        total[..., j:] += x[..., :-j]
    for j in range(1, min(after, channels - 1) + 1):
        total[..., :-j] += x[..., j:]


def _response_scale(scale, squares, x, size, alpha, k):
    """k + alpha / size * the sum of squares over each window."""
    np.multiply(x, x, out=squares)
    _window_sums(scale, squares, size // 2, (size - 1) // 2)
    scale *= alpha / size
    scale += k


@scratch(lambda y, x, **_: [(x.shape, x.dtype)])
@np.errstate(all="ignore")
def local_response_norm(y, x, *, size, alpha, beta, k, scratch):
    _response_scale(y, scratch[0], x, size, alpha, k)
    np.power(y, -beta, out=y)
    y *= x


@scratch(lambda dx, g, x, **_: [(x.shape, x.dtype)] * 2)
@np.errstate(all="ignore")
def local_response_norm_dx(dx, g, x, *, size, alpha, beta, k, scratch):
    scale, spread = scratch
    _response_scale(scale, spread, x, size, alpha, k)
    np.power(scale, -beta, out=dx)
    dx *= g  # g s^-beta
    np.divide(dx, scale, out=spread)
    spread *= x
    _window_sums(scale, spread, (size - 1) // 2, size // 2)
    scale *= x
    scale *= 2 * alpha * beta / size
    dx -= scale
