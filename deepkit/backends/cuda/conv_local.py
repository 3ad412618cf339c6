"""Convolutions with weights of their own at every position."""

from __future__ import annotations

from .conv_sizes import conv
from .grids import BLOCK, blocks_of
from .launch import Kernels

_kernels = Kernels("conv_local")


def locally_connected2d(y, x, w, b, **settings):
    sizes = conv(x, y, w.shape[3:5], **settings)
    biases = 0 if b is None else b.size
    _kernels.run("locally_connected2d", blocks_of(y.size), BLOCK, y, x, w, b, biases, sizes,
                 T=y.dtype)  # fmt: skip


def locally_connected2d_dx(dx, g, w, *, size, **settings):
    sizes = conv(dx, g, w.shape[3:5], **settings)
    grid = blocks_of(dx.size)
    _kernels.run("locally_connected2d_dx", grid, BLOCK, dx, g, w, sizes, T=dx.dtype)


def locally_connected2d_dw(dw, g, x, *, window, **settings):
    sizes = conv(x, g, window, **settings)
    grid = blocks_of(dw.size)
    _kernels.run("locally_connected2d_dw", grid, BLOCK, dw, g, x, sizes, T=dw.dtype)
