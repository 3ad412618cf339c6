"""How many threads a launch has, for kernels in which a thread has an element (or 16 bytes)."""

from __future__ import annotations

from typing import Any

from .launch import Kernels
from .structures import broadcast_strides, walk

BLOCK = 256  # threads
MOST_BLOCKS = 2048  # enough to fill any GPU; kernels go on from there themselves


def blocks_of(threads: int, block: int = BLOCK, most: int = MOST_BLOCKS) -> int:
    """How many blocks have so many threads; none for no threads, else at most `most`."""
    return min(most, -(-threads // block))


def flat(kernels: Kernels, name: str, *arrays: Any, options: tuple = (), **types: Any) -> None:
    """A kernel over elements of arrays of one size, 16 bytes a thread and turn."""
    n = arrays[0].size
    if n:
        per_thread = max(1, 16 // arrays[0].dtype.itemsize)
        threads = -(-n // per_thread)
        block = min(BLOCK, -(-threads // 32) * 32)
        grid = blocks_of(threads, block)
        kernels.run(name, grid, block, *arrays, n, *options, **types)


def walked(kernels: Kernels, name: str, y: Any, *operands: Any, **types: Any) -> None:
    """A kernel over the elements of y, in operands that are broadcast to it."""
    if y.size:
        steps = [broadcast_strides(a.shape, y.shape) for a in operands]
        grid = blocks_of(y.size)
        kernels.run(name, grid, BLOCK, y, *operands, y.size, walk(y.shape, *steps), **types)
