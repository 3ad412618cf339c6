"""Initialisers: the values with which weights are born.

Each is a function of a target.  A parameter or tensor is overwritten and returned (a parameter
without memory only remembers what to draw); a shape gives a new tensor:

    he_normal(layer.weight)          w = he_normal((64, 3, 3, 16))

Fans are counted for weights (out, in) and (out, height, width, in): fan_in = in * height * width,
fan_out = out * height * width.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backends import current
from ..ops.common import tensor_on
from ..random import host_generator
from ..tape import Tensor
from .parameter import Draw, Parameter

__all__ = [
    "constant",
    "fans",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "ones",
    "orthogonal",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]

Shape = tuple[int, ...]


def fans(shape: Shape) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (out, in) or (out, ..., in): what one output reads, and how
    many outputs read one input."""
    if len(shape) < 2:
        raise ValueError(f"init: a fan needs a weight of two or more axes, not shape {shape}")
    window = math.prod(shape[1:-1])
    return shape[-1] * window, shape[0] * window


def draw_normal(shape: Shape, rng: np.random.Generator, dtype: np.dtype, std: float) -> np.ndarray:
    """Drawn in float32 for every dtype, so that a float64 model is the same model."""
    return rng.standard_normal(shape, np.float32).astype(dtype, copy=False) * dtype.type(std)


def draw_uniform(
    shape: Shape, rng: np.random.Generator, dtype: np.dtype, low: float, high: float
) -> np.ndarray:
    values = rng.random(shape, np.float32).astype(dtype, copy=False)
    values *= dtype.type(high - low)
    values += dtype.type(low)
    return values


def _initialiser(make: Callable[..., Draw]) -> Any:
    """A function of a target and options, from one of options that gives what to draw."""

    @functools.wraps(make)
    def initialise(target: Any, *args: Any, **options: Any) -> Tensor:
        return fill(target, make(*args, **options))

    initialise.of = make  # type: ignore[attr-defined]
    initialise.draw = lambda shape, rng, dtype: make()(shape, rng, dtype)  # type: ignore[attr-defined]
    return initialise


def fill(target: Any, draw: Draw) -> Tensor:
    """Write drawn values into a tensor, or into a new one of a shape."""
    if isinstance(target, Parameter):
        target.redraw(draw)
        return target
    if isinstance(target, Tensor):
        target.write(draw(target.shape, host_generator(), target.dtype))
        return target
    lengths = (target,) if isinstance(target, int | np.integer) else target
    shape = tuple(int(d) for d in lengths)
    return tensor_on(current(), draw(shape, host_generator(), np.dtype(np.float32)))


# whatever the shape -------------------------------------------------------------------------------


@_initialiser
def constant(value: float) -> Draw:
    """Every element is `value`."""
    return lambda shape, rng, dtype: np.full(shape, value, dtype)


@_initialiser
def zeros() -> Draw:
    """Every element is 0."""
    return lambda shape, rng, dtype: np.zeros(shape, dtype)


@_initialiser
def ones() -> Draw:
    """Every element is 1."""
    return lambda shape, rng, dtype: np.ones(shape, dtype)


@_initialiser
def normal(mean: float = 0.0, std: float = 1.0) -> Draw:
    """w ~ N(mean, std^2)."""
    return lambda shape, rng, dtype: draw_normal(shape, rng, dtype, std) + dtype.type(mean)


@_initialiser
def uniform(low: float = -1.0, high: float = 1.0) -> Draw:
    """w ~ U[low, high)."""
    if not low <= high:
        raise ValueError(f"uniform: low {low} is above high {high}")
    return lambda shape, rng, dtype: draw_uniform(shape, rng, dtype, low, high)


# by the fan ---------------------------------------------------------------------------------------


def _scaled(variance: Callable[[Shape], float], uniformly: bool) -> Draw:
    """Mean 0 and a variance given by the shape; U(-b, b) has the variance b^2 / 3."""

    def draw(shape: Shape, rng: np.random.Generator, dtype: np.dtype) -> np.ndarray:
        std = math.sqrt(variance(shape))
        if uniformly:
            bound = math.sqrt(3.0) * std
            return draw_uniform(shape, rng, dtype, -bound, bound)
        return draw_normal(shape, rng, dtype, std)

    return draw


def _he(slope: float) -> Callable[[Shape], float]:
    return lambda shape: 2.0 / ((1 + slope**2) * fans(shape)[0])


@_initialiser
def he_normal(slope: float = 0.0) -> Draw:
    """w ~ N(0, 2 / ((1 + slope^2) * fan_in)): keeps the variance through ReLUs, or leaky ones.

    He, Zhang, Ren, Sun, "Delving deep into rectifiers", 2015, equations 10 and 15.
    """
    return _scaled(_he(slope), uniformly=False)


@_initialiser
def he_uniform(slope: float = 0.0) -> Draw:
    """w ~ U(-b, b), b = sqrt(6 / ((1 + slope^2) * fan_in)): the variance of `he_normal`."""
    return _scaled(_he(slope), uniformly=True)


def _xavier(gain: float) -> Callable[[Shape], float]:
    return lambda shape: gain**2 * 2.0 / sum(fans(shape))


@_initialiser
def xavier_normal(gain: float = 1.0) -> Draw:
    """w ~ N(0, gain^2 * 2 / (fan_in + fan_out)).

    Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    2010, equation 12.
    """
    return _scaled(_xavier(gain), uniformly=False)


@_initialiser
def xavier_uniform(gain: float = 1.0) -> Draw:
    """w ~ U(-b, b), b = gain * sqrt(6 / (fan_in + fan_out)).  Glorot, Bengio 2010, equation 16."""
    return _scaled(_xavier(gain), uniformly=True)


@_initialiser
def lecun_normal() -> Draw:
    """w ~ N(0, 1 / fan_in): an output of variance 1 for inputs of variance 1.

    LeCun, Bottou, Orr, Müller, "Efficient backprop", 1998, equation 16.
    """
    return _scaled(lambda shape: 1.0 / fans(shape)[0], uniformly=False)


@_initialiser
def lecun_uniform() -> Draw:
    """w ~ U(-b, b), b = sqrt(3 / fan_in): the variance of `lecun_normal`."""
    return _scaled(lambda shape: 1.0 / fans(shape)[0], uniformly=True)


def within_fan(fan_in: int) -> Draw:
    """w ~ U(-b, b), b = 1 / sqrt(fan_in): what PyTorch gives the weights and biases of its linear
    and convolution layers, and so do ours."""
    bound = 1.0 / math.sqrt(fan_in)
    return lambda shape, rng, dtype: draw_uniform(shape, rng, dtype, -bound, bound)


@_initialiser
def orthogonal(gain: float = 1.0) -> Draw:
    """gain times a random matrix with orthonormal rows (or columns, where there are fewer), the
    weight read as (out, everything else).

    Saxe, McClelland, Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks", 2013.
    """

    def draw(shape: Shape, rng: np.random.Generator, dtype: np.dtype) -> np.ndarray:
        if len(shape) < 2:
            raise ValueError(
                f"orthogonal: expected a weight of two or more axes, not shape {shape}"
            )
        rows, columns = shape[0], math.prod(shape[1:])
        a = rng.standard_normal((max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(a)
        q *= np.sign(np.diag(r))  # makes the distribution uniform over all such matrices
        return (gain * (q if rows >= columns else q.T)).reshape(shape).astype(dtype)

    return draw
