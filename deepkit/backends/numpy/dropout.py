"""Philox 4x32-10 on rows of counters, and what is made of its bits.

The stream of a key is walked in pieces of at most PIECE words, so that scratch stays small.
"""

from __future__ import annotations

import math

import numpy as np

from .. import scratch

PIECE = 16384  # words at a time; a multiple of 4
LOW = 0xFFFFFFFF

BITS, LANES = np.dtype(np.uint32), np.dtype(np.uint64)
DOUBLE = np.dtype(np.float64)


def _philox(counter, product, key0, key1):
    """Ten rounds over counters [4][n], in place: 32-bit words, each in a lane of 64 bits."""
    c0, c1, c2, c3 = counter
    p0, p2 = product
    for _ in range(10):
        np.multiply(c0, 0xD2511F53, out=p0)
        np.multiply(c2, 0xCD9E8D57, out=p2)
        np.right_shift(p2, 32, out=c0)
        c0 ^= c1
        c0 ^= key0
        np.right_shift(p0, 32, out=c2)
        c2 ^= c3
        c2 ^= key1
        np.bitwise_and(p2, LOW, out=c1)
        np.bitwise_and(p0, LOW, out=c3)
        key0, key1 = (key0 + 0x9E3779B9) & LOW, (key1 + 0xBB67AE85) & LOW


def _stream_scratch(words):
    """The memory that `_stream` needs for so many words."""
    blocks = -(-min(words, PIECE) // 4)
    return [((4, blocks), LANES), ((3, blocks), LANES), ((blocks, 4), BITS)]


def _stream(key, words, scratch):
    """Yield (first word, bits) until so many words of the key's stream are through."""
    counter, work, bits = scratch
    product, numbers = work[:2], work[2]
    seed, draw = int(key[0]), int(key[1])
    numbers[...] = 1
    np.cumsum(numbers, out=numbers)
    numbers -= 1  # 0, 1, 2, ...
    for start in range(0, words, PIECE):
        np.add(numbers, start // 4, out=counter[3])
        np.bitwise_and(counter[3], LOW, out=counter[0])
        np.right_shift(counter[3], 32, out=counter[1])
        counter[2], counter[3] = draw & LOW, draw >> 32
        _philox(counter, product, seed & LOW, seed >> 32)
        bits.T[...] = counter
        yield start, bits.reshape(-1)[: words - start]


def next_key_(key, state):
    key[...] = state
    state[1] += 1


def _drop_scratch(y, x, key, *, p):
    piece = min(x.size, PIECE)
    return [*_stream_scratch(x.size), ((piece,), np.dtype(bool)), ((piece,), x.dtype)]


@scratch(_drop_scratch)
@np.errstate(all="ignore")
def drop(y, x, key, *, p, scratch):
    *stream, keep, factor = scratch
    least, scale = math.ceil(p * 2**32), 1 / (1 - p) if p < 1 else 0.0
    flat, out = x.reshape(-1), y.reshape(-1)
    for start, bits in _stream(key, x.size, stream):
        part = slice(start, start + bits.size)
        np.greater_equal(bits, least, out=keep[: bits.size])
        factor[...] = 0
        np.copyto(factor, scale, where=keep)
        np.multiply(flat[part], factor[: bits.size], out=out[part])


# random tensors -----------------------------------------------------------------------------------


def _words(dtype):
    """How many words a uniform draw takes."""
    return 1 if dtype == "float32" else 2


def _uniform(u, bits, dtype):
    """Bits become numbers from [0, 1), exact in `dtype`."""
    if dtype == "float32":
        bits >>= 8
        np.multiply(bits, 2.0**-24, out=u, casting="same_kind")
    else:
        high, low = bits[0::2], bits[1::2]
        high >>= 5
        low >>= 6
        np.multiply(high, 2.0**26, out=u)
        u += low
        u *= 2.0**-53


@scratch(lambda y, key, *, shape, dtype: _stream_scratch(y.size * _words(dtype)))
def random_uniform(y, key, *, shape, dtype, scratch):
    out, each = y.reshape(-1), _words(dtype)
    for start, bits in _stream(key, y.size * each, scratch):
        _uniform(out[start // each : (start + bits.size) // each], bits, dtype)


def _normal_scratch(y, key, *, shape, dtype):
    words = (y.size + y.size % 2) * _words(dtype)
    return [*_stream_scratch(words), *[((min(words, PIECE) // _words(dtype),), DOUBLE)] * 2]


@scratch(_normal_scratch)
def random_normal(y, key, *, shape, dtype, scratch):
    """In float64 throughout, rounded once."""
    *stream, u, z = scratch
    out, each = y.reshape(-1), _words(dtype)
    for start, bits in _stream(key, (y.size + y.size % 2) * each, stream):
        first, count = start // each, bits.size // each
        _uniform(u[:count], bits, dtype)
        radius, angle = u[0:count:2], u[1:count:2]
        np.subtract(1, radius, out=radius)
        np.log(radius, out=radius)
        radius *= -2
        np.sqrt(radius, out=radius)
        angle *= 2 * np.pi
        np.cos(angle, out=z[0:count:2])
        np.sin(angle, out=z[1:count:2])
        z[0:count:2] *= radius
        z[1:count:2] *= radius
        out[first : first + count] = z[: min(count, out.size - first)]
