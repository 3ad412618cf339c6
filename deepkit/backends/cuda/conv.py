"""Convolutions: which kernels there are, and which of them a call takes."""

from __future__ import annotations

from .. import variants
from . import conv_direct, conv_im2col, conv_winograd
from .conv_sizes import conv
from .grids import BLOCK, blocks_of
from .launch import Kernels

_naive = Kernels("conv")


def _conv2d_naive(y, x, w, b, **settings):
    sizes = conv(x, y, w.shape[1:3], **settings)
    _naive.run("conv2d_naive", blocks_of(y.size), BLOCK, y, x, w, b, sizes, T=y.dtype)


def _conv2d_dx_naive(dx, g, w, *, size, **settings):
    sizes = conv(dx, g, w.shape[1:3], **settings)
    _naive.run("conv2d_dx_naive", blocks_of(dx.size), BLOCK, dx, g, w, sizes, T=dx.dtype)


def _conv2d_dw_naive(dw, g, x, *, window, **settings):
    sizes = conv(x, g, window, **settings)
    _naive.run("conv2d_dw_naive", blocks_of(dw.size), BLOCK, dw, g, x, sizes, T=dw.dtype)


@variants(
    naive=_conv2d_naive, direct=conv_direct.conv2d, im2col=conv_im2col.conv2d,
    winograd=conv_winograd.conv2d,
)  # fmt: skip
def conv2d(x, w, b, **_):
    return "direct"


@variants(
    naive=_conv2d_dx_naive, direct=conv_direct.conv2d_dx, im2col=conv_im2col.conv2d_dx,
    winograd=conv_winograd.conv2d_dx,
)  # fmt: skip
def conv2d_dx(g, w, **_):
    return "direct"


@variants(
    naive=_conv2d_dw_naive, direct=conv_direct.conv2d_dw, im2col=conv_im2col.conv2d_dw,
    winograd=conv_winograd.conv2d_dw,
)  # fmt: skip
def conv2d_dw(g, x, **_):
    return "direct"
