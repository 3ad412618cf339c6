"""Dropout, and the counter-based random numbers behind it.

Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) turns a counter
of four 32-bit words and a key of two into four words of random bits.  A key tensor (seed, draw)
stands for the endless stream of words

    word w = output w % 4 of Philox with counter (b % 2^32, b // 2^32, draw % 2^32, draw // 2^32),
             b = w // 4, and key (seed % 2^32, seed // 2^32)

so any word can be had without those before it, in any order, the same on every device.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..card import Shape, ShapeError, key, op, sample
from .common import FLOATS, elements, number, tensor_in

INT = np.dtype(np.int64)
PHILOX = 25.0  # operations for each word

# keys ---------------------------------------------------------------------------------------------


def _two(name: str, given: Shape) -> Shape:
    if given != (2,):
        raise ShapeError(f"{name}: a key is (seed, draw), of shape (2,), not {given}")
    return given


@op(
    "state[two]! -> key[two]",
    shape=lambda state: (_two("next_key_", state),),
    dtype=lambda state: (INT,),
    samples=(sample(key()),),
    exact=True,
)
def next_key_(state: Any) -> Any:
    """key = state = (seed, draws), then draws += 1, in place; int64 (2,) -> int64 (2,).

    Each dropout and each random tensor takes the next key, also in replays of a captured step.
    """
    return (tensor_in("next_key_", state, "state"),), {}


# dropout ------------------------------------------------------------------------------------------


def _drop_shape(x: Shape, key: Shape, *, p: float) -> tuple[Shape]:
    _two("drop", key)
    return (x,)


@op(
    "x[N,...], key[two] -> y[N,...]",
    shape=_drop_shape,
    grads=(lambda g, y, x, key, p: drop(g, key, p=p), None),
    cost=lambda x, key, p: (PHILOX * elements(x), 2.0 * elements(x)),
    samples=(
        sample((4, 3), key(), p=0.5),
        sample((2, 5, 3), key(), p=0.1),
        sample((5,), key(), p=0.0),
        sample((3, 5), key(), p=1.0),
        sample((19, 1, 3), key(), p=0.9),
        sample((128, 512), key(), p=0.5, bench=True),
    ),
    options=dict(p=[0.0, 0.3, 0.5, 1.0]),
    called="dropout",
)
def drop(x: Any, key: Any, *, p: float) -> Any:
    """y = x / (1 - p) where an element is kept, and x * 0 where it is dropped.

    x (N, ...) of any shape, key int64 (2,) -> as x.  Element number i, in row-major order of the
    logical shape, is kept where word i of the key's stream is at least p * 2^32.  It is multiplied
    by the float nearest to 1 / (1 - p), or by 0: so an infinity that is dropped becomes NaN.
    At p = 1 all are dropped.
    """
    return (tensor_in("drop", x), key), dict(p=number("drop", "p", p, "from 0 to 1"))


@op(
    "x[N,...] -> y[N,...]",
    composite=True,
    samples=(sample((4, 3), p=0.5, training=False), sample((4, 3), p=0.0), sample((4, 3), p=1.0)),
)
def dropout(x: Any, p: float = 0.5, training: bool = True) -> Any:
    """Each element is dropped (0) with probability p, and else divided by 1 - p.

    x of any shape -> the same shape; with training=False, x itself.  The same `dk.seed` drops the
    same elements on every device.  Srivastava et al. 2014.
    """
    from ..random import next_key

    x, p = tensor_in("dropout", x), number("dropout", "p", p, "from 0 to 1")
    if not training or p == 0.0:
        return x
    return drop(x, next_key(x.backend), p=p)


# random tensors -----------------------------------------------------------------------------------


def _random_shape(name: str) -> Any:
    def shape(key: Shape, *, shape: Shape, dtype: str) -> tuple[Shape]:
        _two(name, key)
        return (shape,)

    return shape


def _random_params(name: str, shape: Any, dtype: Any) -> dict[str, Any]:
    shape = (int(shape),) if isinstance(shape, int | np.integer) else tuple(map(int, shape))
    if np.dtype(dtype) not in FLOATS:
        raise TypeError(f"{name}: expected dtype float32 or float64, not {dtype}")
    if any(d < 0 for d in shape):
        raise ShapeError(f"{name}: {shape} is no shape")
    return dict(shape=shape, dtype=np.dtype(dtype).name)


RANDOM: dict[str, Any] = dict(
    dtype=lambda key, *, shape, dtype: (np.dtype(dtype),),
    cost=lambda key, *, shape, dtype: (PHILOX * elements(shape), float(elements(shape))),
    samples=(
        sample(key(), (3, 5)),
        sample(key(), (7,), "float64"),
        sample(key(), (2, 2, 3), "float32"),
        sample(key(), ()),
    ),
)


@op("key[two] -> y[...]", shape=_random_shape("random_uniform"), exact=True, **RANDOM)
def random_uniform(key: Any, shape: Any, dtype: Any = "float32") -> Any:
    """Uniform draws from [0, 1): key int64 (2,) -> `shape`.

    Element i, in row-major order, with the words of the key's stream:
    float32: (word_i >> 8) * 2^-24
    float64: ((word_2i >> 5) * 2^26 + (word_(2i+1) >> 6)) * 2^-53
    """
    key = tensor_in("random_uniform", key, "key")
    return (key,), _random_params("random_uniform", shape, dtype)


@op("key[two] -> y[...]", shape=_random_shape("random_normal"), tolerance=4, **RANDOM)
def random_normal(key: Any, shape: Any, dtype: Any = "float32") -> Any:
    """Standard normal draws: key int64 (2,) -> `shape`.

    By Box and Muller 1958, from the uniform draws u of `random_uniform` (one more of them where
    the number of elements is odd): with r = sqrt(-2 ln(1 - u_2j)) and a = 2 pi u_(2j+1),
    element 2j is r cos a and element 2j + 1 is r sin a.
    """
    key = tensor_in("random_normal", key, "key")
    return (key,), _random_params("random_normal", shape, dtype)
