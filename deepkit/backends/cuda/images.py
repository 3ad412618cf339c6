"""Batches of images out of a data set that lies on the device."""

from __future__ import annotations

from .grids import BLOCK, blocks_of
from .launch import Kernels

_images = Kernels("images")


def gather_images(y, images, index, moves, *, reflect):
    if y.size:
        sizes = (y.shape[0], *images.shape, reflect)
        arrays = (y, images, index, moves)
        _images.run("gather_images", blocks_of(y.size), BLOCK, *arrays, *sizes, T=y.dtype)
