"""The transforms of Winograd's convolution (winograd.py), of one tile or filter at a time.

For the points 0, a, -a, b, -b and infinity (Lavin, Gray 2016, "Fast algorithms for convolutional
neural networks", section 4.3, takes a = 1, b = 2),

    Bt = aabb     0 -aa-bb  0  1  0     At = 1  1   1   1   1  0     G =  1/aabb    0     0
           0  -abb     -bb  a  1  0          0  a  -a   b  -b  0          1/m     a/m  aa/m
           0   abb     -bb -a  1  0          0 aa  aa  bb  bb  0          1/m    -a/m  aa/m
           0  -aab     -aa  b  1  0          0 aaa-aaa bbb-bbb 1          1/n     b/n  bb/n
           0   aab     -aa -b  1  0                                       1/n    -b/n  bb/n
           0  aabb  0 -aa-bb  0   1     m = 2aa(aa-bb), n = 2bb(bb-aa)     0       0     1

The points decide how many digits are lost.  Those here, found by trying, lose half as many in the
mean and a quarter in the worst case as 1 and 2, at the same cost, and their powers are exact in
float32.  A transform from both sides is one of the columns, kept in `half`, and one of the rows.
"""

from __future__ import annotations

import numba

from .simd import BIAS, RELU, at, vector_lanes
from .vector import broadcast, load, load_first, room, select, store, store_first

RESIDUAL = 16  # beside the flags of simd.py: what is added to the outputs before ReLU

# transforms: 1-D, of vectors or of numbers --------------------------------------------------------


A, B = 5 / 8, 3 / 2
AA, BB, AAA, BBB, AABB = A * A, B * B, A * A * A, B * B * B, A * A * B * B
M, N = 2 * AA * (AA - BB), 2 * BB * (BB - AA)


@numba.njit
def inputs_(a, b, c, d, e, f):
    """Bt: six inputs in the places that the products are taken at."""
    p, q, r, s = e - BB * c, d - BB * b, e - AA * c, d - AA * b
    return (
        AABB * a - (AA + BB) * c + e,
        p + A * q,
        p - A * q,
        r + B * s,
        r - B * s,
        AABB * b - (AA + BB) * d + f,
    )


@numba.njit
def outputs_(a, b, c, d, e, f):
    """At: six products to four outputs."""
    p, q, r, s = b + c, b - c, d + e, d - e
    return a + p + r, A * q + B * s, AA * p + BB * r, AAA * q + BBB * s + f


@numba.njit
def gradients(a, b, c, d):
    """A: gradients of four outputs to those of six products."""
    p, q, r, s = a + AA * c, A * b + AAA * d, a + BB * c, B * b + BBB * d
    return a, p + q, p - q, r + s, r - s, d


@numba.njit
def filters_(a, b, c):
    """G: three taps in the places that the products are taken at."""
    p, q, r, s = a + AA * c, A * b, a + BB * c, B * b
    return (
        (1 / AABB) * a,
        (1 / M) * (p + q),
        (1 / M) * (p - q),
        (1 / N) * (r + s),
        (1 / N) * (r - s),
        c,
    )


@numba.njit
def filters_back(a, b, c, d, e, f):
    """Gt: gradients of six products to those of three taps."""
    p, q, r, s = (1 / M) * (b + c), (1 / M) * (b - c), (1 / N) * (d + e), (1 / N) * (d - e)
    return (1 / AABB) * a + p + r, A * q + B * s, AA * p + BB * r + f


@numba.njit
def load_six(p, o, step):
    return (load(p, o), load(p, o + step), load(p, o + 2 * step), load(p, o + 3 * step),
            load(p, o + 4 * step), load(p, o + 5 * step))  # fmt: skip


@numba.njit
def load_four(p, o, step):
    return load(p, o), load(p, o + step), load(p, o + 2 * step), load(p, o + 3 * step)


@numba.njit
def store_six(p, o, step, values):
    store(p, o, values[0])
    store(p, o + step, values[1])
    store(p, o + 2 * step, values[2])
    store(p, o + 3 * step, values[3])
    store(p, o + 4 * step, values[4])
    store(p, o + 5 * step, values[5])


@numba.njit
def load_inside(p, o, inside):
    return load(p, o) if inside else broadcast(p, 0.0)


# filters ------------------------------------------------------------------------------------------


@numba.njit
def load_column(w, row, count):
    """Three taps, `row` apart, of up to `count` channels."""
    return load_first(w, 0, count), load_first(w, row, count), load_first(w, 2 * row, count)


@numba.njit
def load_filters(u, step, count):
    """Six positions, `step` apart, of up to `count` channels."""
    return (load_first(u, 0, count), load_first(u, step, count), load_first(u, 2 * step, count),
            load_first(u, 3 * step, count), load_first(u, 4 * step, count),
            load_first(u, 5 * step, count))  # fmt: skip


@numba.njit
def store_filters(u, step, count, values):
    """Six positions, `step` apart, of up to `count` channels."""
    store_first(u, 0, count, values[0])
    store_first(u, step, count, values[1])
    store_first(u, 2 * step, count, values[2])
    store_first(u, 3 * step, count, values[3])
    store_first(u, 4 * step, count, values[4])
    store_first(u, 5 * step, count, values[5])


@numba.njit
def inputs_down(x, o, line, top, bottom):
    """Bt times the column of six inputs from o on, zeros above `top` and from `bottom` on."""
    if top == 0 and bottom == 6:
        return inputs_(*load_six(x, o, line))
    return inputs_(load_inside(x, o, top <= 0 < bottom),
                   load_inside(x, o + line, top <= 1 < bottom),
                   load_inside(x, o + 2 * line, top <= 2 < bottom),
                   load_inside(x, o + 3 * line, top <= 3 < bottom),
                   load_inside(x, o + 4 * line, top <= 4 < bottom),
                   load_inside(x, o + 5 * line, top <= 5 < bottom))  # fmt: skip


# tiles: a few channels at a time, so that few streams of memory are read or written at once ------

BLOCK = 128  # elements of every position between the two halves of a transform
HALF_X, HALF_G, HALF_Y = 36 * BLOCK, 24 * BLOCK, 24 * 16


@numba.njit
def spread_inputs(
    v, x, h, w, images, some, height, width, channels, first, last, step, row
):  # fmt: skip
    """v[36][c][some images] = Bt x B for channels `first` to `last` of the tile whose inputs begin
    at (h, w); positions are `step` apart in v, channels `row`; zeros beyond the border."""
    vector, line = vector_lanes(x), width * channels * images
    half = room(x, HALF_X)
    for i in range(0, HALF_X, vector):
        store(half, i, 0.0)
    top, bottom = max(0, -h), min(6, height - h)
    block = BLOCK // some
    for begin in range(first, last, block):
        end = min(begin + block, last)
        for j in range(max(0, -w), min(6, width - w)):
            to = j * BLOCK
            for c in range(begin, end):
                start = ((h * width + w + j) * channels + c) * images
                for o in range(start, start + some, vector):
                    store_six(half, to, 6 * BLOCK, inputs_down(x, o, line, top, bottom))
                    to += vector
        for i in range(6):
            source = 6 * i * BLOCK
            for c in range(begin, end):
                for o in range(0, some, vector):
                    six = inputs_(*load_six(half, source, BLOCK))
                    store_six(v, 6 * i * step + c * row + o, step, six)
                    source += vector


@numba.njit
def spread_gradients(
    v, g, p, q, images, outputs_h, outputs_w, filters, first, last, step, row
):  # fmt: skip
    """v[36][k][images] = A g At for filters `first` to `last` of the tile at (p, q)."""
    vector, line = vector_lanes(g), outputs_w * filters * images
    half = room(g, HALF_G)
    for i in range(0, HALF_G, vector):
        store(half, i, 0.0)
    bottom = outputs_h - p
    block = BLOCK // images
    for begin in range(first, last, block):
        end = min(begin + block, last)
        for j in range(min(4, outputs_w - q)):
            o = ((p * outputs_w + q + j) * filters + begin) * images
            for i in range(0, (end - begin) * images, vector):
                six = gradients(load(g, o + i), load_inside(g, o + i + line, bottom > 1),
                                load_inside(g, o + i + 2 * line, bottom > 2),
                                load_inside(g, o + i + 3 * line, bottom > 3))  # fmt: skip
                store_six(half, j * BLOCK + i, 4 * BLOCK, six)
        for i in range(6):
            source = 4 * i * BLOCK
            for k in range(begin, end):
                for o in range(0, images, vector):
                    six = gradients(*load_four(half, source, BLOCK))
                    store_six(v, 6 * i * step + k * row + o, step, six)
                    source += vector


@numba.njit
def gather_outputs(
    y, m, residual, p, q, images, some, outputs_h, outputs_w, filters, first, last, bias, flags,
    step, row,
):  # fmt: skip
    """y = At m A + bias (+ residual) for filters `first` to `last` of the tile at (p, q), inside
    the border."""
    vector = vector_lanes(y)
    half = room(y, HALF_Y)
    bottom, right = min(4, outputs_h - p), min(4, outputs_w - q)
    for k in range(first, last):
        shift = broadcast(y, bias[k] if flags & BIAS else 0.0)
        for start in range(0, some, vector):
            source = at(m, (k - first) * row + start)
            for j in range(6):
                four = outputs_(*load_six(source, j * step, 6 * step))
                store(half, j * vector, four[0])
                store(half, (6 + j) * vector, four[1])
                store(half, (12 + j) * vector, four[2])
                store(half, (18 + j) * vector, four[3])
            for i in range(bottom):
                four = outputs_(*load_six(half, 6 * i * vector, vector))
                a, b, c, d = four[0] + shift, four[1] + shift, four[2] + shift, four[3] + shift
                o = (((p + i) * outputs_w + q) * filters + k) * images + start
                if flags & RESIDUAL:
                    a = a + load(residual, o)
                    b = b + load_inside(residual, o + filters * images, right > 1)
                    c = c + load_inside(residual, o + 2 * filters * images, right > 2)
                    d = d + load_inside(residual, o + 3 * filters * images, right > 3)
                if flags & RELU:
                    a, b = select(a <= 0.0, 0.0, a), select(b <= 0.0, 0.0, b)
                    c, d = select(c <= 0.0, 0.0, c), select(d <= 0.0, 0.0, d)
                store(y, o, a)
                if right > 1:
                    store(y, o + filters * images, b)
                if right > 2:
                    store(y, o + 2 * filters * images, c)
                if right > 3:
                    store(y, o + 3 * filters * images, d)
