"""Multilayer perceptrons."""

from __future__ import annotations

import itertools

import numpy as np

from ..nn import Flatten, Linear, Sequential
from ..spellings import explained


@explained
def mlp(*sizes: int, activation: str | None = "relu") -> Sequential:
    """mlp(784, 256, 128, 10): linear layers with an activation between them.

    (N, ...) with sizes[0] values an example -> (N, sizes[-1]).
    """
    if len(sizes) < 2 or not all(isinstance(s, int | np.integer) and s > 0 for s in sizes):
        raise ValueError(f"mlp: expected two or more sizes, such as mlp(784, 100, 10), not {sizes}")
    layers = [
        Linear(inp, out, activation=None if i == len(sizes) - 2 else activation)
        for i, (inp, out) in enumerate(itertools.pairwise(sizes))
    ]
    return Sequential(Flatten(), *layers)
