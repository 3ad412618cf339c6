"""Ops whose arguments are axes, shapes or indices, against NumPy, as Hypothesis draws them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import deepkit as dk
from deepkit.testing import check_grad

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=5)
DEVICES = pytest.mark.parametrize("device", dk.devices())


def values(shape, dtype="float32"):
    """Different numbers: a permutation, so that moved elements cannot be confused."""
    count = int(np.prod(shape))
    return np.random.default_rng(count).permutation(count).reshape(shape).astype(dtype)


def same(t, want):
    assert t.shape == want.shape
    np.testing.assert_array_equal(t.numpy(), want)


@st.composite
def shape_and_axes(draw, least=0):
    shape = draw(hnp.array_shapes(min_dims=max(least, 1), max_dims=4, max_side=5))
    axis = draw(
        st.one_of(
            st.none(),
            st.integers(-len(shape), len(shape) - 1),
            hnp.valid_tuple_axes(len(shape), min_size=1),
        )
    )
    return shape, axis


@DEVICES
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "var"])
@given(drawn=shape_and_axes(), keepdims=st.booleans())
def test_reductions(device, name, drawn, keepdims):
    shape, axis = drawn
    x = values(shape, "float64") / 8
    got = getattr(dk.tensor(x, device), name)(axis=axis, keepdims=keepdims)
    want = getattr(x, name)(axis=axis, keepdims=keepdims)
    assert got.shape == want.shape
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "var"])
@given(drawn=shape_and_axes(), keepdims=st.booleans())
def test_reductions_have_gradients(name, drawn, keepdims):
    shape, axis = drawn
    check_grad(name, [values(shape, "float64") / 8], axis=axis, keepdims=keepdims)


@DEVICES
@given(shape=hnp.array_shapes(min_dims=1, max_dims=4, max_side=5), data=st.data())
def test_argmax(device, shape, data):
    axis = data.draw(st.one_of(st.none(), st.integers(-len(shape), len(shape) - 1)))
    x = values(shape) // 2  # in pairs: the first one counts
    same(dk.tensor(x, device).argmax(axis), np.asarray(x.argmax(axis)))


@DEVICES
@given(shape=SHAPES, data=st.data())
def test_transpose(device, shape, data):
    axes = data.draw(st.one_of(st.none(), st.permutations(range(len(shape)))))
    x = values(shape)
    same(dk.tensor(x, device).transpose(*(axes or ())), x.transpose(axes))


@DEVICES
@given(shape=SHAPES, data=st.data())
def test_reshape(device, shape, data):
    x = values(shape)
    factors, left = [], x.size
    while left > 1:
        factor = data.draw(st.sampled_from([d for d in range(1, left + 1) if left % d == 0]))
        factors.append(factor)
        left //= factor
        if len(factors) > 4:
            factors.append(left)
            break
    if factors and data.draw(st.booleans()):
        factors[data.draw(st.integers(0, len(factors) - 1))] = -1
    same(dk.tensor(x, device).reshape(factors), x.reshape(factors))


@DEVICES
@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4))
def test_broadcast_to_and_back(device, shapes):
    (small, _), result = shapes
    x = values(small)
    wide = dk.tensor(x, device).broadcast_to(result)
    same(wide, np.broadcast_to(x, result))
    repeats = int(np.prod(result)) // max(int(np.prod(small)), 1)
    same(dk.ops.sum_to(wide, small), x * repeats)


@DEVICES
@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=4, max_side=4))
def test_where(device, shapes):
    (c, a, b), _ = shapes
    c, a, b = values(c) % 2 == 0, values(a), -values(b)
    same(dk.ops.where(*(dk.tensor(v, device) for v in (c, a, b))), np.where(c, a, b))


@DEVICES
@given(shape=SHAPES, data=st.data())
def test_pad(device, shape, data):
    width = st.integers(0, 3)
    widths = [data.draw(st.tuples(width, width)) for _ in shape]
    x = values(shape)
    got = dk.tensor(x, device).pad(widths, value=-2.5)
    same(got, np.pad(x, widths, constant_values=-2.5) if shape else x)


@DEVICES
@given(shape=hnp.array_shapes(min_dims=1, max_dims=4, max_side=5), data=st.data())
def test_concat(device, shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    parts = []
    for i, length in enumerate(lengths):
        own = list(shape)
        own[axis] = length
        parts.append(values(own) + 1000 * i)
    got = dk.ops.concat([dk.tensor(p, device) for p in parts], axis=axis)
    same(got, np.concatenate(parts, axis=axis))


@DEVICES
@given(shape=SHAPES, count=st.integers(1, 4), data=st.data())
def test_stack(device, shape, count, data):
    axis = data.draw(st.integers(-len(shape) - 1, len(shape)))
    parts = [values(shape) + 1000 * i for i in range(count)]
    got = dk.ops.stack([dk.tensor(p, device) for p in parts], axis=axis)
    same(got, np.stack(parts, axis=axis))


@DEVICES
@given(shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=6), data=st.data())
def test_take(device, shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    index = data.draw(
        hnp.arrays(
            np.int64,
            hnp.array_shapes(min_dims=0, max_dims=2, max_side=4),
            elements=st.integers(-shape[axis], shape[axis] - 1),
        )
    )
    x = values(shape)
    got = dk.ops.take(dk.tensor(x, device), dk.tensor(index, device), axis=axis)
    same(got, np.take(x, index, axis=axis))


INDEXED = hnp.array_shapes(min_dims=1, max_dims=4, max_side=5)


@DEVICES
@given(shape=INDEXED, data=st.data())
def test_basic_indexing(device, shape, data):
    """Integers, slices with any step, `...` and None."""
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    x = values(shape)
    same(dk.tensor(x, device)[index], np.asarray(x[index]))


@given(shape=INDEXED, data=st.data())
def test_basic_indexing_has_gradients(shape, data):
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    check_grad(lambda x: x[index], [values(shape, "float64")])


@DEVICES
@given(shape=INDEXED, data=st.data())
def test_integer_array_indexing(device, shape, data):
    """Arrays over neighbouring axes, with slices before and after them."""
    first = data.draw(st.integers(0, len(shape) - 1))
    count = data.draw(st.integers(1, len(shape) - first))
    among = hnp.array_shapes(min_dims=1, max_dims=2, max_side=3)
    result = data.draw(among)
    arrays = tuple(
        data.draw(hnp.arrays(np.int64, result, elements=st.integers(-d, d - 1)))
        for d in shape[first : first + count]
    )
    before = (slice(None, None, -1),) * first
    index = before + arrays
    x = values(shape)
    same(dk.tensor(x, device)[index], x[index])
    tensors = before + tuple(dk.tensor(a, device) for a in arrays)
    same(dk.tensor(x, device)[tensors], x[index])
    lists = before + tuple(a.tolist() for a in arrays)
    same(dk.tensor(x, device)[lists], x[index])


@given(shape=INDEXED, data=st.data())
def test_integer_array_indexing_adds_gradients_up(shape, data):
    index = data.draw(
        hnp.arrays(np.int64, st.integers(1, 6), elements=st.integers(0, shape[0] - 1))
    )
    check_grad(lambda x: x[index], [values(shape, "float64")])


@DEVICES
@pytest.mark.parametrize("shape", [(3, 4, 2, 0), (3, 0, 2), (0, 4), (4, 0)])
def test_masks_of_nothing(device, shape):
    for axes in range(1, len(shape) + 1):
        x, mask = np.ones(shape, np.float32), np.ones(shape[:axes], bool)
        mask[:1] = False
        same(dk.tensor(x, device)[mask], x[mask])


@DEVICES
@given(shape=INDEXED, data=st.data())
def test_masks(device, shape, data):
    axes = data.draw(st.integers(1, len(shape)))
    mask = data.draw(hnp.arrays(bool, shape[:axes]))
    x = values(shape)
    same(dk.tensor(x, device)[mask], x[mask])
    same(dk.tensor(x, device)[dk.tensor(mask, device)], x[mask])


@pytest.mark.parametrize(
    "index,error",
    [
        (5, "index 5 is out of range for axis 0 of length 4"),
        (-5, "index -5 is out of range for axis 0 of length 4"),
        ((0, 3), "index 3 is out of range for axis 1 of length 3"),
        ((0, 0, 0), r"too many indices for a tensor of shape \(4, 3\)"),
        ((..., ...), r"too many indices for a tensor of shape \(4, 3\)"),
        ([0, 4], r"index 0..4 is out of range for axis 0 of length 4"),
        (np.ones((3, 3), bool), r"a mask of shape \(3, 3\) does not fit shape \(4, 3\)"),
        ([0.5], "an index must be whole numbers or a mask, not float64"),
    ],
)
def test_indices_that_do_not_fit(index, error):
    with pytest.raises(IndexError, match=error):
        dk.tensor(np.zeros((4, 3)))[index]
