"""Structures that kernels take by value, as kernels/*.cuh declare them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

MOST_AXES = 24  # as in common.cuh

STRUCTURES: dict[str, type[ctypes.Structure]] = {}


def structure(name: str, fields: Sequence[tuple[str, Any]]) -> Any:
    """A structure under its name in CUDA C++, which no two may share."""
    assert name not in STRUCTURES, f"there is a structure {name} already"
    made = type(name, (ctypes.Structure,), {"_fields_": list(fields)})
    STRUCTURES[name] = made
    return made


_axes = ctypes.c_int64 * MOST_AXES
Walk = structure(
    "Walk",
    [("size", _axes), ("step", _axes * 3), ("axes", ctypes.c_int), ("unused", ctypes.c_int)],
)


def strides(shape: Sequence[int]) -> list[int]:
    """Of an array in C order, in elements."""
    found, step = [], 1
    for d in reversed(shape):
        found.append(step)
        step *= d
    return found[::-1]


def broadcast_strides(shape: Sequence[int], to: Sequence[int]) -> list[int]:
    """Of an array in C order that is read as if it had the shape `to`: 0 where it is repeated."""
    lead = len(to) - len(shape)
    steps = strides(shape)
    return [0] * lead + [0 if d == 1 else s for d, s in zip(shape, steps, strict=True)]


def walk(shape: Sequence[int], *steps: Sequence[int]) -> Any:
    """How to walk an array of `shape` in operands with these strides: see Walk in common.cuh.

    Axes of length 1 go, and neighbours along which every operand moves on evenly become one.
    """
    axes: list[tuple[int, list[int]]] = []  # the last axis first
    for axis in reversed(range(len(shape))):
        size, here = shape[axis], [s[axis] for s in steps]
        if size == 1:
            continue
        if axes:
            inner, before = axes[-1]
            if all(h == b * inner for h, b in zip(here, before, strict=True)):
                axes[-1] = (inner * size, before)
                continue
        axes.append((size, here))
    if len(axes) > MOST_AXES:
        raise NotImplementedError(
            f"on CUDA at most {MOST_AXES} axes may lie apart from each other, not {len(axes)}"
        )
    made = Walk(axes=len(axes))
    for i, (size, here) in enumerate(axes):
        made.size[i] = size
        for k, step in enumerate(here):
            made.step[k][i] = step
    return made


def contiguous(made: Any, operand: int) -> bool:
    """Whether a walk visits the elements of an operand one after the other."""
    return made.axes == 0 or (made.axes == 1 and made.step[operand][0] == 1)
