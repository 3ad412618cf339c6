"""Sums over many pixels, divided among blocks: how many parts, and the kernel that adds them up."""

from __future__ import annotations

from typing import Any

from .grids import blocks_of
from .launch import Kernels

_kernels = Kernels("conv_parts")

BLOCKS = 396  # 3 for each of the 132 multiprocessors of an H200: all run at once
LEAST = 256  # pixels in a part: less is not worth its sum
MEMORY = 1 << 24  # numbers in all parts together


def divided(pixels: int, tiles: int, results: int) -> tuple[int, int]:
    """Into how many parts so many pixels are divided -> (parts, pixels in each but the last).

    tiles: blocks that a part occupies; results: numbers that it leaves
    """
    wanted = min(BLOCKS // tiles, -(-pixels // LEAST), MEMORY // results)
    length = -(-pixels // max(1, wanted))
    length = max(16, -(-length // 16) * 16)  # whole steps of the kernels
    return max(1, -(-pixels // length)), length


def sum_parts(y: Any, parts: Any, count: int, adds: bool = False) -> None:
    grid = blocks_of(y.size, 32)
    _kernels.run("sum_parts", grid, (32, 8), y, parts, y.size, count, int(adds), T=y.dtype)
