"""The gradient for the filters as products of rows that were copied side by side.

    dw[k][tap] = sum over positions (p, q) and images of g[p, q][k][images] x[tap of p, q][images]

In memory the neighbours [p, q], [p, q + 1] of one filter lie filters * images elements apart, often
a power of two, so that a few of them fall into the same cache sets and push each other out.  Here
some positions at a time are copied: each filter's g to a row, and what each tap reads of x (zeros
outside).  Rows of the fewer, filters or taps, stay, those of the others pass by, a few at a time;
what passes next is fetched from memory while the ones before are multiplied.
"""

from __future__ import annotations

from typing import Any

import numba

from . import threads
from .lanes import Lanes, chunk_width, clear_spare
from .launch import kernel, launch, ptr, size
from .simd import at, dot_panel, vector_lanes
from .vector import load, prefetch, store

LENGTH = 1024  # elements of a row: four of them stay in the first cache
LINE = 16  # elements of a cache line, or more
ROW = LENGTH + LINE  # from row to row, so that they do not fall into the same cache sets
STAY, PASS = 64, 32  # rows that are copied: what stays in the second cache
TOGETHER = 8  # of those that stay, multiplied between two fetches
LEAST = 32  # filters and channels of a group from which on copying pays


def pays(filters: int, channels: int, groups: int) -> bool:
    return min(filters, channels) >= LEAST * groups


@numba.njit
def _copy_lines(rows, source, count, images):
    """A line of `images` to each of `count` rows."""
    for i in range(count):
        for lane in range(0, images, vector_lanes(source)):
            store(rows, i * ROW + lane, load(source, i * images + lane))


@numba.njit
def _empty_lines(rows, count, images):
    for i in range(count):
        for lane in range(0, images, vector_lanes(rows)):
            store(rows, i * ROW + lane, 0.0)


@numba.njit
def _fetch(source, count, images):
    for i in range(0, count * images, LINE):
        prefetch(source, i)


@numba.njit
def _rows_of_g(rows, g, start, count, k, together, filters, images, fetch):
    """Rows of filters from k on, for `count` positions from `start` on; or only fetched."""
    for i in range(count):
        source = at(g, ((start + i) * filters + k) * images)
        if fetch:
            _fetch(source, together, images)
        else:
            _copy_lines(at(rows, i * images), source, together, images)


@numba.njit
def _rows_of_x(rows, x, start, count, tap, together, group, images, outputs_w, height, width,
               channels, inside, columns, stride_h, stride_w, top, left, dilation_h, dilation_w,
               fetch):  # fmt: skip
    """Rows of taps from `tap` on, for `count` positions from `start` on; or only fetched."""
    done = 0
    while done < together:
        window, c = (tap + done) // inside, (tap + done) % inside
        run = min(inside - c, together - done)  # taps of neighbouring channels
        down = window // columns * dilation_h - top
        across = window % columns * dilation_w - left
        p, q = start // outputs_w, start % outputs_w
        for i in range(count):
            h, v = p * stride_h + down, q * stride_w + across
            target = at(rows, done * ROW + i * images)
            source = at(x, ((h * width + v) * channels + group * inside + c) * images)
            if fetch:
                _fetch(source, run, images)
            elif 0 <= h < height and 0 <= v < width:
                _copy_lines(target, source, run, images)
            else:
                _empty_lines(target, run, images)
            q += 1
            if q == outputs_w:
                p, q = p + 1, 0
        done += run


@numba.njit
def _parts(few, blocks, n):
    """Into how many parts n threads divide the rows that stay, and the blocks of those that pass
    into n over that: each thread copies its own rows of both."""
    best, least = 1, few + (blocks + n - 1) // n * PASS
    for parts in range(2, min(few, n) + 1):
        others = n // parts
        cost = (few + parts - 1) // parts + (blocks + others - 1) // others * PASS
        if cost < least:
            best, least = parts, cost
    return best


@kernel
def _dw(
    t, n, dw: ptr, g: ptr, x: ptr, work: ptr, lanes: size, height: size, width: size,
    channels: size, outputs_h: size, outputs_w: size, filters: size, rows: size, columns: size,
    stride_h: size, stride_w: size, top: size, left: size, dilation_h: size, dilation_w: size,
    groups: size,
):  # fmt: skip
    inside, some = channels // groups, filters // groups
    taps, outputs = rows * columns * inside, outputs_h * outputs_w
    staying = at(work, t * (STAY + PASS) * ROW)
    passing = at(staying, STAY * ROW)
    swap = groups == 1 and filters > taps  # filters pass by, taps stay
    few, many = (taps, filters) if swap else (filters, taps)
    blocks = (many + PASS - 1) // PASS  # divided as a whole: sums depend on where blocks begin
    parts = _parts(few, blocks, n)
    n, t, part = n // parts, t // parts, t % parts
    if t == n:
        return  # threads that are left over
    k_begin, k_end = part * few // parts, (part + 1) * few // parts
    begin, end = t * blocks // n * PASS, min(many, (t + 1) * blocks // n * PASS)
    if swap:
        k_begin, k_end, begin, end = begin, end, k_begin, k_end
    for k in range(k_begin, k_end):
        for i in range(begin, end):
            dw[k * taps + i] = 0
    for first in range(0, lanes, 64):
        images = chunk_width(first, lanes)
        g_chunk = at(g, first * outputs * filters)
        x_chunk = at(x, first * height * width * channels)
        length = LENGTH // images
        for group in range(groups):
            low, high = max(k_begin, group * some), min(k_end, (group + 1) * some)
            few, many, row_c, column_c = high - low, end - begin, taps, 1
            if swap:
                few, many, row_c, column_c = many, few, 1, taps
            corner = at(dw, low * taps + begin)
            for start in range(0, outputs, length):
                count = min(length, outputs - start)
                for stay in range(0, few, STAY):
                    a = min(STAY, few - stay)
                    if swap:
                        _rows_of_x(staying, x_chunk, start, count, begin + stay, a, group, images,
                                   outputs_w, height, width, channels, inside, columns, stride_h,
                                   stride_w, top, left, dilation_h, dilation_w, 0)  # fmt: skip
                    else:
                        _rows_of_g(staying, g_chunk, start, count, low + stay, a, filters, images,
                                   0)  # fmt: skip
                    for beside in range(0, many, PASS):
                        b = min(PASS, many - beside)
                        if swap:
                            _rows_of_g(passing, g_chunk, start, count, low + beside, b, filters,
                                       images, 0)  # fmt: skip
                        else:
                            _rows_of_x(passing, x_chunk, start, count, begin + beside, b, group,
                                       images, outputs_w, height, width, channels, inside, columns,
                                       stride_h, stride_w, top, left, dilation_h, dilation_w,
                                       0)  # fmt: skip
                        soon, soon_start = beside + PASS, start
                        if soon >= many:
                            soon, soon_start = 0, start + (count if stay + STAY >= few else 0)
                        soon_count = min(count, outputs - soon_start)
                        soon_rows = min(PASS, many - soon)
                        call, calls = 0, (a + TOGETHER - 1) // TOGETHER * max(1, b // 4)
                        for j in range(0, max(1, b - 3), 4):
                            wide = 4 if b - j >= 8 else b - j
                            for m in range(0, a, TOGETHER):
                                done = call * soon_count // calls
                                call += 1
                                some_more = call * soon_count // calls - done
                                done += soon_start
                                if swap:
                                    _rows_of_g(passing, g_chunk, done, some_more, low + soon,
                                               soon_rows, filters, images, 1)  # fmt: skip
                                else:
                                    _rows_of_x(passing, x_chunk, done, some_more, begin + soon,
                                               soon_rows, group, images, outputs_w, height, width,
                                               channels, inside, columns, stride_h, stride_w, top,
                                               left, dilation_h, dilation_w, 1)  # fmt: skip
                                where = (stay + m) * row_c + (beside + j) * column_c
                                dot_panel(at(staying, m * ROW), at(passing, j * ROW),
                                          at(corner, where), min(TOGETHER, a - m), wide,
                                          1, 0, 0, 1, 0, 0, count * images, ROW, ROW, row_c,
                                          column_c)  # fmt: skip


def room(dw: Any) -> tuple[tuple[int, ...], Any]:
    """The scratch that `dw` needs: rows for each thread."""
    return (threads.count(), (STAY + PASS) * ROW), dw.dtype


def dw(dw: Any, work: Any, g: Lanes, x: Lanes, options: tuple[int, ...]) -> None:
    clear_spare(g, x)
    launch(_dw, dw.dtype, dw, g, x, work, x.lanes, *x.shape[1:], *g.shape[1:], *dw.shape[1:3],
           *options, work=g.size * dw[0].size, most=len(work))  # fmt: skip
