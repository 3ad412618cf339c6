"""Matrix products: every op here is one, y = act(bias + a b), with operands as they lie or turned.

product      y[m, n]  = a[m, k] b[k, n]        each turned by ta, tb; leading axes broadcast
linear       y[m, n]  = x[m, k] w[n, k]        w turned
linear_dx    dx[m, n] = g[m, k] w[k, n]
linear_dw    dw[m, n] = g[k, m] x[k, n]        g turned; k counts the rows of the batch

`dk.using(product="naive", linear="naive")` takes one rung of the ladder (products.py); otherwise
`products.choose` does, by size and by `dk.precision`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .. import Variants, current_precision, scratch, variants
from .products import RUNGS, Task, choose, run, working
from .structures import broadcast_strides, walk


def _matrices(y: Any, a: Any, ta: bool, tb: bool) -> Task:
    k = a.shape[-2] if ta else a.shape[-1]
    lead = math.prod(y.shape[:-2])
    return Task(y.shape[-2], y.shape[-1], k, lead, ta, tb, current_precision())


def _task(op: str, first: Any, second: Any) -> Task:
    """Of a linear layer: which of its three products, and the two that are multiplied."""
    rows, precision = math.prod(first.shape[:-1]), current_precision()
    if op == "linear":
        return Task(rows, second.shape[0], second.shape[1], tb=True, precision=precision)
    if op == "linear_dx":
        return Task(rows, second.shape[1], second.shape[0], precision=precision)
    return Task(first.shape[-1], second.shape[-1], rows, ta=True, precision=precision)


def _product_on(rung: str) -> Callable[..., None]:
    @scratch(lambda y, a, b, *, ta, tb: working(rung, _matrices(y, a, ta, tb), y))
    def kernel(y, a, b, *, ta, tb, scratch=()):
        if not y.size:
            return
        lead = y.shape[:-2]
        steps = [
            [s * (x.shape[-2] * x.shape[-1]) for s in broadcast_strides(x.shape[:-2], lead)]
            for x in (a, b)
        ]
        task = _matrices(y, a, ta, tb)
        run(rung, task, y, a, b, starts=walk(lead, *steps), work=scratch)

    return kernel


def _linear_on(rung: str, op: str) -> Callable[..., None]:
    @scratch(lambda y, a, b, *_, **__: working(rung, _task(op, a, b), y))
    def kernel(y, a, b, bias=None, *, activation=None, scratch=()):
        if y.size:
            run(rung, _task(op, a, b), y, a, b, bias, activation=activation, work=scratch)

    return kernel


@variants(**{rung: _product_on(rung) for rung in RUNGS})
def product(a, b, *, ta, tb):
    m, k = a.shape[-2:] if not ta else a.shape[:-3:-1]
    n = b.shape[-2] if tb else b.shape[-1]
    return choose(Task(m, n, k, precision=current_precision()), a)


def _linear(op: str) -> Variants:
    def rung(a, b, bias=None, *, activation=None):
        return choose(_task(op, a, b), a)

    return variants(**{rung: _linear_on(rung, op) for rung in RUNGS})(rung)


linear = _linear("linear")
linear_dx = _linear("linear_dx")
linear_dw = _linear("linear_dw")
