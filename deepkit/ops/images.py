"""Batches of images out of a data set that lies on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..card import Draw, Shape, ShapeError, integers, op, sample
from .common import elements, tensor_in

FLOAT = np.dtype(np.float32)


def _gathered(images: Shape, index: Shape, moves: Shape | None, *, reflect: bool) -> tuple[Shape]:
    if len(images) != 4:
        raise ShapeError(f"gather_images: images are (M, H, W, C), not {images}")
    if len(index) != 1:
        raise ShapeError(f"gather_images: the index is (N,), not {index}")
    if moves is not None and moves != (*index, 3):
        raise ShapeError(
            f"gather_images: moves are {(*index, 3)} for {index[0]} images, not {moves}"
        )
    return ((*index, *images[1:]),)


def _dtype(images: Any, index: Any, moves: Any, **_: Any) -> tuple[Any]:
    if images != np.uint8:
        raise TypeError(f"gather_images: images are uint8, not {images}")
    for name, given in (("index", index), ("moves", moves)):
        if given is not None and given != np.int64:
            raise TypeError(f"gather_images: the {name} must be int64, not {given}")
    return (FLOAT,)


def _pixels(*shape: int) -> Draw:
    return Draw(shape, lambda rng, s: rng.integers(0, 256, s).astype(np.uint8), cast=False)


def _moves(*shape: int) -> Draw:
    """Down and right by up to two pixels, mirrored or not."""

    def values(rng: np.random.Generator, s: Shape) -> np.ndarray:
        drawn = rng.integers(-2, 3, s)
        drawn[..., 2] &= 1
        return drawn

    return Draw(shape, values, cast=False)


@op(
    "images[M,H,W,C], index[n], moves[n,three]? -> y[n,H,W,C]",
    shape=_gathered,
    dtype=_dtype,
    cost=lambda images, index, moves, **_: (0.0, 2.0 * index[0] * elements(images[1:])),
    samples=(
        sample(_pixels(5, 4, 3, 2), integers(7, high=5), _moves(7, 3)),
        sample(_pixels(5, 4, 3, 1), integers(6, high=5), _moves(6, 3)),
        sample(_pixels(3, 5, 6, 3), integers(4, high=3), _moves(4, 3)),
        sample(_pixels(3, 5, 4, 3), integers(4, high=3), _moves(4, 3), reflect=True),
        sample(_pixels(1, 1, 1, 9), integers(3, high=1), None),
    ),
    options=dict(reflect=[False, True]),
    exact=True,
)
def gather_images(images: Any, index: Any, moves: Any = None, reflect: bool = False) -> Any:
    """y[n,r,c] = images[index[n], r + down[n], c' + right[n]] / 255, a batch of a data set.

    c' is c, or W - 1 - c if mirrored.  images uint8 (M,H,W,C); index int64 (N,); moves int64 (N,3):
    down, right, mirrored (0 or 1) -> float32 (N,H,W,C) in [0, 1].  What lies outside of an image is
    0, or mirrored at its border with `reflect`.  An index outside of the images reads as clipped.
    """
    images = tensor_in("gather_images", images, "images")
    return (images, index, moves), dict(reflect=bool(reflect))
