"""Philox 4x32-10 in SIMD lanes: one block of four words in each lane, and what is made of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .lanes import Lanes, chunk_width
from .launch import flt, i64ptr, kernel, launch, ptr, size
from .rows import like, number, tile
from .simd import INT, at

LOW = 0xFFFFFFFF


@intrinsic
def _philox(typing: Any, block: Any, seed: Any, draw: Any) -> Any:
    """The four words of a block of the stream of the key (seed, draw), as int64 from 0.

    Words stand in 64 bits each, since a product needs them; LLVM sees that the upper halves are 0.
    """
    four = types.UniTuple(types.int64, 4)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_tuple(builder, four, _rounds(builder, args, INT))

    return four(types.int64, types.int64, types.int64), generate


def _rounds(builder: Any, args: Any, number: Callable[[int], Any]) -> list[Any]:
    low, shift = number(LOW), number(32)
    c0, c2, key0 = [builder.and_(a, low) for a in (args[0], args[2], args[1])]
    c1, c3, key1 = [builder.lshr(a, shift) for a in (args[0], args[2], args[1])]
    for _ in range(10):
        p0 = builder.mul(c0, number(0xD2511F53))
        p2 = builder.mul(c2, number(0xCD9E8D57))
        c0 = builder.xor(builder.xor(builder.lshr(p2, shift), c1), key0)
        c2 = builder.xor(builder.xor(builder.lshr(p0, shift), c3), key1)
        c1, c3 = builder.and_(p2, low), builder.and_(p0, low)
        key0 = builder.and_(builder.add(key0, number(0x9E3779B9)), low)
        key1 = builder.and_(builder.add(key1, number(0xBB67AE85)), low)
    return [c0, c1, c2, c3]


@intrinsic
def _keep_sixteen(
    typing: Any, keep: Any, first: Any, seed: Any, draw: Any, least: Any, factor: Any
) -> Any:
    """keep[4 i + k] = factor where word k of block first + i is at least `least`, else 0, for 16
    blocks side by side."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        whole = ir.VectorType(ir.IntType(64), 16)

        def spread(value: Any) -> Any:
            empty = ir.Constant(ir.VectorType(value.type, 16), ir.Undefined)
            one = builder.insert_element(empty, value, ir.IntType(32)(0))
            return builder.shuffle_vector(
                one, empty, ir.Constant(ir.VectorType(ir.IntType(32), 16), None)
            )

        pointer, first, seed, draw, least, factor = args
        index = builder.add(spread(first), ir.Constant(whole, list(range(16))))
        words = _rounds(
            builder, [index, spread(seed), spread(draw)], lambda n: ir.Constant(whole, [n] * 16)
        )
        least, factor = spread(least), spread(factor)
        zero = ir.Constant(factor.type, None)
        rows = [builder.select(builder.icmp_signed(">=", w, least), factor, zero) for w in words]

        def joined(a: Any, b: Any, places: list[int]) -> Any:
            lanes = ir.VectorType(ir.IntType(32), len(places))
            return builder.shuffle_vector(a, b, ir.Constant(lanes, places))

        everything = list(range(32))
        pairs = [joined(a, b, everything) for a, b in (rows[:2], rows[2:])]
        turned = joined(*pairs, [16 * k + i for i in range(16) for k in range(4)])
        where = builder.bitcast(pointer, turned.type.as_pointer())
        builder.store(turned, where, align=keep.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(keep, *[types.int64] * 4, keep.dtype), generate


# keys ---------------------------------------------------------------------------------------------


@kernel
def _next(t, n, key: i64ptr, state: i64ptr):
    if t == 0:
        key[0], key[1] = state[0], state[1]
        state[1] += 1


def next_key_(key: Any, state: Any) -> None:
    launch(_next, key.dtype, key, state)


# dropout ------------------------------------------------------------------------------------------


@numba.njit(inline="always")
def _word(index, seed, draw):
    """Word `index` of the stream."""
    a, b, c, d = _philox(index >> 2, seed, draw)
    low, high = b if index & 1 else a, d if index & 1 else c
    return high if index & 2 else low


@numba.njit
def _drop_blocks(y, x, seed, draw, low, high, least, factor):
    """C order, where the four words of a block belong to neighbours."""
    keep = tile(x)
    for first in range(low, high, 16):
        _keep_sixteen(keep, first, seed, draw, least, factor)
        source, target = at(x, 4 * first), at(y, 4 * first)
        for i in range(min(64, 4 * (high - first))):
            target[i] = source[i] * keep[i]


@kernel
def _drop(
    t, n, y: ptr, x: ptr, key: i64ptr, lanes: size, inner: size, least: size, scale: flt
):  # fmt: skip
    """Element i of image k has word k * inner + i: blocks of four words lie along i."""
    seed, draw = key[0], key[1]
    factor, zero, keep = number(x, scale), like(x, 0.0), tile(x)
    blocks = inner // 4
    if lanes == 1:
        _drop_blocks(y, x, seed, draw, t * blocks // n, (t + 1) * blocks // n, least, factor)
        return
    for first in range(0, lanes, 64):
        width = chunk_width(first, lanes)
        for block in range(t * blocks // n, (t + 1) * blocks // n):
            for i in range(width):
                a, b, c, d = _philox((first + i) * blocks + block, seed, draw)
                keep[i] = factor if a >= least else zero
                keep[64 + i] = factor if b >= least else zero
                keep[128 + i] = factor if c >= least else zero
                keep[192 + i] = factor if d >= least else zero
            start = first * inner + 4 * block * width
            for row in range(4):
                source, target = at(x, start + row * width), at(y, start + row * width)
                for i in range(width):
                    target[i] = source[i] * keep[64 * row + i]


@kernel
def _drop_any(
    t, n, y: ptr, x: ptr, key: i64ptr, lanes: size, inner: size, least: size, scale: flt
):  # fmt: skip
    """`_drop` where images do not begin with a block: one word of each block is used."""
    seed, draw = key[0], key[1]
    factor, zero = number(x, scale), like(x, 0.0)
    for first in range(0, lanes, 64):
        width = chunk_width(first, lanes)
        for row in range(t * inner // n, (t + 1) * inner // n):
            start = first * inner + row * width
            source, target = at(x, start), at(y, start)
            for i in range(width):
                word = _word((first + i) * inner + row, seed, draw)
                target[i] = source[i] * (factor if word >= least else zero)


def drop(y: Any, x: Any, key: Any, *, p: float) -> None:
    least, scale = math.ceil(p * 2**32), 1 / (1 - p) if p < 1 else 0.0
    lanes, inner = (x.lanes, x.inner) if isinstance(x, Lanes) else (1, x.size)
    launch(_drop if inner % 4 == 0 else _drop_any, y.dtype, y, x, key, lanes, inner, least, scale)


# random tensors -----------------------------------------------------------------------------------


@numba.njit(inline="always")
def _single(word):
    """A number from [0, 1) that is exact in float32."""
    return (word >> 8) * 2.0**-24


@numba.njit(inline="always")
def _double(high, low):
    return ((high >> 5) * 2.0**26 + (low >> 6)) * 2.0**-53


@kernel
def _uniform_single(t, n, y: ptr, key: i64ptr, count: size):
    seed, draw = key[0], key[1]
    blocks = count // 4
    for block in range(t * blocks // n, (t + 1) * blocks // n):
        a, b, c, d = _philox(block, seed, draw)
        y[4 * block], y[4 * block + 1] = _single(a), _single(b)
        y[4 * block + 2], y[4 * block + 3] = _single(c), _single(d)
    if t == 0:
        for i in range(4 * blocks, count):
            y[i] = _single(_word(i, seed, draw))


@kernel
def _uniform_double(t, n, y: ptr, key: i64ptr, count: size):
    seed, draw = key[0], key[1]
    blocks = count // 2
    for block in range(t * blocks // n, (t + 1) * blocks // n):
        a, b, c, d = _philox(block, seed, draw)
        y[2 * block], y[2 * block + 1] = _double(a, b), _double(c, d)
    if t == 0 and count > 2 * blocks:
        a, b, _, _ = _philox(blocks, seed, draw)
        y[2 * blocks] = _double(a, b)


def random_uniform(y: Any, key: Any, *, shape: Any, dtype: str) -> None:
    launch(_uniform_single if dtype == "float32" else _uniform_double, y.dtype, y, key, y.size)


@kernel
def _normal(t, n, y: ptr, key: i64ptr, count: size, words: size):
    """Pairs of elements, in float64 throughout, rounded once."""
    seed, draw = key[0], key[1]
    pairs = (count + 1) // 2
    for pair in range(t * pairs // n, (t + 1) * pairs // n):
        if words == 1:
            a, b, c, d = _philox(pair >> 1, seed, draw)
            first, second = (_single(c), _single(d)) if pair & 1 else (_single(a), _single(b))
        else:
            a, b, c, d = _philox(pair, seed, draw)
            first, second = _double(a, b), _double(c, d)
        radius, angle = math.sqrt(-2 * math.log(1 - first)), 2 * math.pi * second
        y[2 * pair] = radius * math.cos(angle)
        if 2 * pair + 1 < count:
            y[2 * pair + 1] = radius * math.sin(angle)


def random_normal(y: Any, key: Any, *, shape: Any, dtype: str) -> None:
    launch(_normal, y.dtype, y, key, y.size, 1 if dtype == "float32" else 2)
