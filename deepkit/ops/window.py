"""What every op with a window shares: its options as users write them, and how often it fits."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..card import Shape, ShapeError

Padding = tuple[tuple[int, int], tuple[int, int]]


def padding_of(
    name: str, padding: Any, size: Shape, window: Shape, stride: Shape, dilation: Shape = (1, 1)
) -> Padding:
    """What users write -> ((top, bottom), (left, right)).

    "same" makes ceil(size / stride) outputs; an odd rest goes to the bottom and to the right, as in
    TensorFlow.
    """
    if isinstance(padding, str) and padding == "valid":
        return (0, 0), (0, 0)
    if isinstance(padding, str) and padding == "same":
        (top, bottom), (left, right) = (
            _same(*axis) for axis in zip(size, window, stride, dilation, strict=True)
        )
        return (top, bottom), (left, right)
    both = (padding, padding) if whole(padding) else padding
    if isinstance(both, tuple | list) and len(both) == 2:
        ends = [(p, p) if whole(p) else p for p in both]
        if all(isinstance(e, tuple | list) and len(e) == 2 and all(map(whole, e)) for e in ends):
            if min(map(min, ends)) < 0:
                raise ShapeError(f"{name}: padding must not be negative, got {padding!r}")
            (top, bottom), (left, right) = ends
            return (int(top), int(bottom)), (int(left), int(right))
    raise ShapeError(
        f"{name}: padding must be a whole number, (height, width), ((top, bottom), (left, right)), "
        f"'same' or 'valid', not {padding!r}"
    )


def whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _same(size: int, window: int, stride: int, dilation: int) -> tuple[int, int]:
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + (window - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def outputs_of(
    name: str,
    size: Shape,
    window: Shape,
    stride: Shape,
    padding: Padding,
    dilation: Shape = (1, 1),
    ceil_mode: bool = False,
) -> tuple[int, int]:
    """(P, Q): how often a window of (R, S) fits into (H, W), or an error that says why it does not.

    ceil_mode counts a last window that hangs over the end, if it starts inside of the input or of
    the padding before it.
    """
    if 0 in size:
        raise ShapeError(f"{name}: at least one pixel was expected, not {size[0]} x {size[1]}")
    found = []
    for what, d, r, s, ends, dil in zip(
        ("height", "width"), size, window, stride, padding, dilation, strict=True
    ):
        if r < 1:
            raise ShapeError(
                f"{name}: the window must be at least 1x1, not {window[0]}x{window[1]}"
            )
        span, room = (r - 1) * dil + 1, d + sum(ends)
        count = (room - span + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (count - 1) * s >= d + ends[0]:
            count -= 1
        if count < 1:
            dilated = f" ({r} with dilation {dil})" if dil > 1 else ""
            padded = f" ({d} with padding {ends[0]} and {ends[1]})" if sum(ends) else ""
            raise ShapeError(
                f"{name}: a window of {what} {span}{dilated} does not fit into "
                f"{what} {room}{padded}"
            )
        found.append(count)
    return found[0], found[1]


def axes_checked(name: str, what: str, shape: Shape, axes: str) -> None:
    count = axes.count(",") + 1
    if len(shape) != count:
        raise ShapeError(f"{name}: {what} must have {count} axes, {axes}, not shape {shape}")
