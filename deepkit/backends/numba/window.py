"""Which taps of a window are inside, and which outputs reach a position."""

from __future__ import annotations

from typing import Any

import numba


@numba.njit
def first_tap(start: int, dilation: int) -> int:
    """The first tap r with start + r * dilation >= 0."""
    return max(0, (dilation - 1 - start) // dilation)


@numba.njit
def last_tap(start: int, dilation: int, taps: int, length: int) -> int:
    """One past the last tap r < taps with start + r * dilation < length."""
    return min(taps, (length - 1 - start) // dilation + 1)


@numba.njit
def first_output(tap: int, stride: int, padding: int) -> int:
    """The first output whose tap at offset `tap` is inside: p * stride + tap - padding >= 0."""
    return max(0, (padding - tap + stride - 1) // stride)


@numba.njit
def last_output(tap: int, stride: int, padding: int, length: int, outputs: int) -> int:
    """One past the last output whose tap at offset `tap` is inside."""
    return min(outputs, (length - 1 + padding - tap) // stride + 1)


@numba.njit
def first_reaching(
    at_: int, stride: int, dilation: int, padding: int, taps: int, outputs: int
) -> int:
    """The first tap through which some output reads position `at_`, or `taps` if none does."""
    for tap in range(taps):
        reach = at_ + padding - tap * dilation
        if reach < 0:
            return taps
        if reach % stride == 0 and reach // stride < outputs:
            return tap
    return taps


@numba.njit
def common_divisor(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


@numba.njit
def reached(position, stride, dilation, padding, taps, outputs, tap_step, output_step):
    """The first tap that reaches a position, the output whose it is, and how many taps do."""
    tap = first_reaching(position, stride, dilation, padding, taps, outputs)
    output = (position + padding - tap * dilation) // stride
    if tap >= taps:
        return tap, output, 0
    return tap, output, min((taps - 1 - tap) // tap_step, output // output_step) + 1


def geometry(stride: Any, padding: Any, dilation: Any, groups: int) -> tuple[int, ...]:
    """The options of a convolution, as kernels take them."""
    return (*stride, padding[0][0], padding[1][0], *dilation, groups)
