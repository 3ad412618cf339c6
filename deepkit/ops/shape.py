"""Ops that move values and compute nothing: reshape, transpose, indexing, joining, padding."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from ..backends import get
from ..card import Shape, ShapeError, axes_of, integers, op, sample
from ..tape import Call, CaptureError, Tensor, look, mode
from .common import elements, operands, tensor_in, tensor_on
from .window import whole


def _kept(*dtypes: Any, **_: Any) -> tuple:
    return (next(d for d in dtypes if d is not None),)


def _moved(*shapes: Shape, **_: Any) -> tuple[float, float]:
    return 0.0, 2.0 * elements(shapes[0])


# the same memory under another shape --------------------------------------------------------------


def _reshaped(x: Shape, *, shape: Shape) -> tuple[Shape]:
    if shape.count(-1) > 1 or any(d < -1 for d in shape):
        raise ShapeError(f"reshape: {shape} is no shape; at most one -1, the rest from 0")
    known = elements([d for d in shape if d != -1])
    if -1 in shape and known and elements(x) % known == 0:
        shape = tuple(elements(x) // known if d == -1 else d for d in shape)
    if -1 in shape or elements(shape) != elements(x):
        raise ShapeError(f"reshape: {x} holds {elements(x)} elements, which do not fit {shape}")
    return (shape,)


@op(
    "x[...] -> y[...]",
    shape=_reshaped,
    dtype=_kept,
    grads=(lambda g, y, x, shape: reshape(g, x.shape),),
    samples=(sample((4, 3), (2, 6)), sample((2, 3, 4), (2, -1)), sample((1,), ())),
    view=True,
    exact=True,
)
def reshape(x: Any, shape: Any) -> Any:
    """The same elements in the same (row-major) order under another shape; one length may be -1."""
    shape = (shape,) if isinstance(shape, int | np.integer) else shape
    return (tensor_in("reshape", x),), dict(shape=tuple(int(d) for d in shape))


@op(
    "x[...] -> y[...]",
    shape=lambda x, *, axes: (tuple(x[a] for a in axes),),
    dtype=_kept,
    grads=(lambda g, y, x, axes: transpose(g, tuple(axes.index(i) for i in range(len(axes)))),),
    cost=_moved,
    samples=(
        sample((4, 3)),
        sample((2, 3, 4), (1, 2, 0)),
        sample((2, 3, 4, 5), (0, 3, 1, 2)),
        sample((3,)),
    ),
    exact=True,
)
def transpose(x: Any, axes: Any = None) -> Any:
    """y[i_axes[0], i_axes[1], ...] = x[i_0, i_1, ...]: permuted axes; None reverses them."""
    x = tensor_in("transpose", x)
    axes = tuple(range(x.ndim))[::-1] if axes is None else tuple(int(a) for a in axes)
    if axes_of("transpose", axes, x.ndim) != tuple(range(x.ndim)):
        raise ShapeError(f"transpose: {axes} does not name each of {x.ndim} axes once")
    return (x,), dict(axes=tuple(a % x.ndim for a in axes))


# indexing -----------------------------------------------------------------------------------------


def _sliced(x: Shape, *, slices: tuple) -> tuple[Shape]:
    return (tuple(len(range(*s)) for s in slices),)


@op(
    "x[...] -> y[...]",
    shape=_sliced,
    dtype=_kept,
    grads=(lambda g, y, x, slices: unslice(g, x.shape, slices),),
    cost=_moved,
    samples=(
        sample((5, 4), ((1, 4, 1), (0, 4, 2))),
        sample((6,), ((5, -1, -1),)),
        sample((3, 4, 2), ((0, 3, 2), (2, 4, 1), (0, 2, 1))),
    ),
    exact=True,
)
def slice(x: Any, slices: Any) -> Any:
    """A copy of x[start:stop:step] along every axis; `slices` holds (start, stop, step) for each,
    as `range` reads them (so a stop of -1 is before the first element)."""
    return (x,), dict(slices=tuple(tuple(int(v) for v in s) for s in slices))


@op(
    "g[...] -> x[...]",
    shape=lambda g, *, shape, slices: (shape,),
    dtype=_kept,
    grads=(lambda h, x, g, shape, slices: slice(h, slices),),
    cost=_moved,
    samples=(
        sample((3, 2), (5, 4), ((1, 4, 1), (0, 4, 2))),
        sample((6,), (6,), ((5, -1, -1),)),
    ),
    exact=True,
)
def unslice(g: Any, shape: Any, slices: Any) -> Any:
    """Zeros of `shape` with g written at the slices: the opposite of `slice`."""
    return (g,), dict(shape=tuple(shape), slices=tuple(tuple(s) for s in slices))


def _taken(x: Shape, index: Shape, *, axis: int) -> tuple[Shape]:
    return ((*x[:axis], *index, *x[axis + 1 :]),)


@op(
    "x[...], index[...] -> y[...]",
    shape=_taken,
    dtype=_kept,
    grads=(lambda g, y, x, index, axis: take_dx(g, index, x.shape, axis), None),
    cost=lambda x, index, axis: (0.0, 2.0 * elements(_taken(x, index, axis=axis)[0])),
    samples=(
        sample((5, 3), integers(4, high=5, low=-5)),
        sample((2, 5, 3), integers(2, 2, high=5), axis=1),
    ),
    exact=True,
)
def take(x: Any, index: Any, axis: int = 0) -> Any:
    """y[..., i, ...] = x[..., index[i], ...] along `axis`; negative indices count from the end.

    An index outside of the axis is the caller's mistake: getitem checks those it gets from the
    host, indices that live on the device are not looked at and read as clipped.
    """
    x = tensor_in("take", x)
    return (x, index), dict(axis=axes_of("take", axis, x.ndim)[0])


@op(
    "g[...], index[...] -> dx[...]",
    shape=lambda g, index, *, shape, axis: (shape,),
    dtype=_kept,
    grads=(lambda h, dx, g, index, shape, axis: take(h, index, axis), None),
    samples=(
        sample((4, 3), integers(4, high=5), (5, 3), 0),
        sample((2, 2, 2, 3), integers(2, 2, high=5), (2, 5, 3), 1),
    ),
)
def take_dx(g: Any, index: Any, shape: Any, axis: int) -> Any:
    """Zeros of `shape` to which the rows of g are added at `index`, in their order."""
    return (g, index), dict(shape=tuple(shape), axis=axis)


@op(
    "x[...] -> y[...]",
    composite=True,
    samples=(
        sample((5, 4), (1,)),
        sample((5, 4), (np.s_[1:4], np.s_[::-1])),
        sample((5, 4, 3), (..., None, 2)),
        sample((5, 4), ([0, 2, 2],)),
        sample((5, 4), ([0, 2], [1, 3])),
    ),
)
def getitem(x: Any, index: Any) -> Any:
    """x[index], a copy: integers, slices, `...`, None, one or more neighbouring lists or integer
    tensors, or a boolean mask over the leading axes."""
    parts = list(index) if isinstance(index, tuple) else [index]
    for p in parts:
        if isinstance(p, bool | np.bool_) or (_mask_axes(p) == 0):
            raise IndexError("x[True] and x[False] are no positions; None makes a new axis")
    ellipses = [i for i, p in enumerate(parts) if p is Ellipsis]
    used = 0
    for p in parts:
        used += _mask_axes(p) if p is not None and p is not Ellipsis else 0
    if len(ellipses) > 1 or used > x.ndim:
        raise IndexError(f"too many indices for a tensor of shape {x.shape}")
    fill = [np.s_[:]] * (x.ndim - used)
    at = ellipses[0] if ellipses else len(parts)
    parts[at : at + len(ellipses)] = fill

    slices: list[tuple[int, int, int]] = []
    shape: list[int] = []
    arrays: list[tuple[int, Any]] = []  # (axis of the sliced, reshaped tensor; the index)
    axis = 0
    for p in parts:
        if p is None:
            shape.append(1)
            continue
        length = x.shape[axis]
        if isinstance(p, _SLICE):
            slices.append(p.indices(length))
            shape.append(len(range(*slices[-1])))
            axis += 1
        elif isinstance(p, int | np.integer) and not isinstance(p, bool):
            if not -length <= p < length:
                raise IndexError(f"index {p} is out of range for axis {axis} of length {length}")
            slices.append((int(p) % length, int(p) % length + 1, 1))
            axis += 1
        else:
            for one in _index_arrays(p, x, axis):
                arrays.append((len(shape), one))
                slices.append((0, x.shape[axis], 1))
                shape.append(x.shape[axis])
                axis += 1
    y = x
    if any(s != (0, d, 1) for s, d in zip(slices, x.shape, strict=True)):
        y = slice(x, tuple(slices))
    if tuple(shape) != y.shape:
        y = reshape(y, tuple(shape))
    return _gather(y, arrays) if arrays else y


_SLICE = type(np.s_[:])


def _mask_axes(part: Any) -> int:
    dtype = getattr(part, "dtype", None)
    return part.ndim if dtype is not None and dtype.kind == "b" else 1


def _index_arrays(part: Any, x: Tensor, axis: int) -> list[Any]:
    """A list, array, integer tensor or mask -> an integer array or tensor for each axis it eats."""
    if isinstance(part, Tensor):
        if part.dtype.kind == "b":
            if mode.log is not None:
                raise CaptureError("a boolean mask has no fixed shape, so it cannot be captured")
            part = part.numpy()
        elif part.dtype.kind in "iu":
            length = x.shape[axis]
            if mode.log is not None:
                look(part, lambda values: _checked_indices(values, length, axis))
            else:
                _checked_indices(part.numpy(), length, axis)
            return [part]
    array = np.asarray(part)
    if array.dtype.kind == "b":
        if array.shape != x.shape[axis : axis + array.ndim]:
            raise IndexError(f"a mask of shape {array.shape} does not fit shape {x.shape}")
        return list(np.nonzero(array))
    if array.dtype.kind not in "iu" and array.size:
        raise IndexError(f"an index must be whole numbers or a mask, not {array.dtype}")
    array = array.astype(np.int64)
    _checked_indices(array, x.shape[axis], axis)
    return [array]


def _checked_indices(array: np.ndarray, length: int, axis: int) -> None:
    if array.size and (array.min() < -length or array.max() >= length):
        raise IndexError(
            f"index {array.min()}..{array.max()} is out of range for axis {axis} of length {length}"
        )


def _gather(y: Tensor, arrays: list[tuple[int, Any]]) -> Tensor:
    axes = [axis for axis, _ in arrays]
    first, count = axes[0], len(axes)
    if axes != list(range(first, first + count)):
        raise IndexError("index lists must stand side by side: x[:, [0, 1], [2, 3]]")
    lengths = y.shape[first : first + count]
    parts = [one if isinstance(one, Tensor) else tensor_on(y.backend, one) for _, one in arrays]
    if count == 1:
        return take(y, parts[0], axis=first)
    # as int64, in which a small type's sums and products cannot overflow
    parts = [one if one.dtype == np.int64 else one.astype(np.int64) for one in parts]
    index: Any = None
    for one, length in zip(parts, lengths, strict=True):
        from .elementwise import where

        one = where(one < 0, one + length, one)
        index = one if index is None else index * length + one
    together = elements(lengths)  # not -1, of which an empty tensor does not say how many it is
    joined = reshape(y, (*y.shape[:first], together, *y.shape[first + count :]))
    return take(joined, index, axis=first)


# joining and padding ------------------------------------------------------------------------------


def _concatenated(*shapes: Shape, axis: int) -> tuple[Shape]:
    first = shapes[0]
    for s in shapes[1:]:
        if len(s) != len(first) or any(
            a != b for i, (a, b) in enumerate(zip(s, first, strict=True)) if i != axis
        ):
            raise ShapeError(f"concat: {s} does not join {first} along axis {axis}")
    return ((*first[:axis], sum(s[axis] for s in shapes), *first[axis + 1 :]),)


def _split(g: Any, y: Any, *xs: Any, asked: Any, axis: int) -> list[Any]:
    found, start = [], 0
    for x, want in zip(xs, asked, strict=True):
        stop = start + x.shape[axis]
        cut = tuple((start, stop, 1) if i == axis else (0, d, 1) for i, d in enumerate(g.shape))
        found.append(slice(g, cut) if want else None)
        start = stop
    return found


@op(
    "xs[...]+ -> y[...]",
    shape=_concatenated,
    dtype=_kept,
    together=_split,
    cost=lambda *shapes, axis: (0.0, 2.0 * sum(elements(s) for s in shapes)),
    exact=True,
    called="concat",
)
def join(*tensors: Any, axis: int) -> Any:
    """The kernel of concat: one input after the other along `axis`."""
    return tensors, dict(axis=axis)


@op("xs[...]+ -> y[...]", composite=True)
def concat(tensors: Any, axis: int = 0) -> Any:
    """Tensors joined along an axis that they have.

    [(..., A, ...), (..., B, ...)] -> (..., A + B, ...).
    """
    tensors = list(tensors)
    if not tensors:
        raise ValueError("concat: expected at least one tensor")
    tensors = operands("concat", *tensors)
    return join(*tensors, axis=axes_of("concat", axis, tensors[0].ndim)[0])


@op("xs[...]+ -> y[...]", composite=True)
def stack(tensors: Any, axis: int = 0) -> Any:
    """Tensors of one shape side by side along a new axis: n of (A, B) -> (n, A, B)."""
    tensors = list(tensors)
    if len({t.shape for t in tensors}) != 1:
        shapes = ", ".join(str(t.shape) for t in tensors)
        raise ShapeError(f"stack: expected tensors of one shape, not {shapes or 'none'}")
    return concat([t.expand_dims(axis) for t in tensors], axis=axis % (tensors[0].ndim + 1))


def _padded(x: Shape, *, widths: tuple, value: float) -> tuple[Shape]:
    if len(widths) != len(x):
        raise ShapeError(f"pad: {len(widths)} widths for {len(x)} axes   (x is {x})")
    return (tuple(d + a + b for d, (a, b) in zip(x, widths, strict=True)),)


def _unpad(g: Any, y: Any, x: Any, widths: Any, value: float) -> Any:
    return slice(g, tuple((a, a + d, 1) for d, (a, _) in zip(x.shape, widths, strict=True)))


@op(
    "x[...] -> y[...]",
    shape=_padded,
    dtype=_kept,
    grads=(_unpad,),
    cost=_moved,
    samples=(sample((4, 3), ((1, 2), (0, 1))), sample((2, 3), 1, value=-1.5)),
    exact=True,
)
def pad(x: Any, widths: Any, value: float = 0.0) -> Any:
    """x with a border of `value`: `widths` is one number, or (before, after) for every axis."""
    x = tensor_in("pad", x)
    given = (widths,) * x.ndim if whole(widths) else widths
    if not isinstance(given, tuple | list):
        raise _no_widths(widths)
    pairs = [(w, w) if whole(w) else w for w in given]
    for both in pairs:
        if not (isinstance(both, tuple | list) and len(both) == 2 and all(map(whole, both))):
            raise _no_widths(widths)
    if any(w < 0 for both in pairs for w in both):
        raise ShapeError(f"pad: widths must not be negative, got {widths}")
    return (x,), dict(widths=tuple((int(a), int(b)) for a, b in pairs), value=float(value))


def _no_widths(widths: Any) -> ShapeError:
    return ShapeError(
        "pad: widths must be a whole number, or one or a pair (before, after) for every axis, "
        f"not {widths!r}"
    )


# devices ------------------------------------------------------------------------------------------


@op("x[...] -> y[...]", composite=True, grads=(lambda g, y, x, device: to(g, x.device),))
def to(x: Any, device: Any) -> Any:
    """The same values on another device, through the host; gradients flow back."""
    backend = get(device)
    if backend is x.backend:
        return x
    if mode.log is not None:
        raise CaptureError(f"x.to('{backend.name}'): devices cannot be changed inside a capture")
    y = tensor_on(backend, x.numpy(), x.dtype)
    if mode.grad and x.requires_grad:
        call = Call(to, (x,), dict(device=backend.name))
        y.call, y._requires_grad = call, True
        call.outs = (weakref.ref(y),)
    return y
