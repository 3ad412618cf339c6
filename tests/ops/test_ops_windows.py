"""Every small geometry of a window in one direction: forward and backward, NumPy against the rest.

Options that go together in a special way (windows that tile a map with a border, say) are a few in
thousands, and random samples miss them.
"""

import itertools

import numpy as np
import pytest

import deepkit as dk

BORDERS = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
OTHERS = [d for d in dk.devices() if d != "numpy"]


def answers(device, function, arrays, seed):
    """The result, the gradients for all arrays, and those of the square of them all."""
    tensors = [dk.tensor(a, device, requires_grad=True) for a in arrays]
    y = function(*tensors)
    g = np.random.default_rng(seed).standard_normal(y.shape).astype(np.float32)
    weights = dk.tensor(g, device, requires_grad=True)
    firsts = dk.grad(y, tensors, weights, create_graph=True)
    total = sum((d * d).sum() for d in firsts)
    return [t.numpy() for t in (y, *firsts, *dk.grad(total, [weights]))]


def agree(device, function, arrays, what):
    try:
        wanted = answers("numpy", function, arrays, 1)
    except dk.ShapeError:
        with pytest.raises(dk.ShapeError):
            answers(device, function, arrays, 1)
        return 0
    for a, b in zip(answers(device, function, arrays, 1), wanted, strict=True):
        scale = max(1.0, float(np.abs(b).max(initial=0)))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * scale, err_msg=str(what))
    return 1


@pytest.mark.parametrize("images", [1, 17])
@pytest.mark.parametrize("device", OTHERS)
def test_pooling(device, images):
    rng, done = np.random.default_rng(0), 0
    for size, window, stride, border in itertools.product(
        range(1, 7), range(1, 5), range(1, 4), BORDERS
    ):
        x = rng.permutation(images * size * 3 * 2).reshape(images, size, 3, 2).astype(np.float32)
        ceil_mode = bool(rng.integers(2))
        for op, more in (
            (dk.ops.max_pool2d, {}),
            (dk.ops.avg_pool2d, {"count_include_pad": False}),
        ):
            options = {"stride": (stride, 1), "padding": (border, (0, 0)), "ceil_mode": ceil_mode}

            def pooled(x, op=op, window=window, options=options | more):
                return op(x, (window, 1), **options)

            done += agree(device, pooled, [x], (op.name, size, window, options))
    assert done > 400


@pytest.mark.parametrize("images", [1, 17])
@pytest.mark.parametrize("device", OTHERS)
def test_convolution(device, images):
    rng, done = np.random.default_rng(0), 0
    for size, rows, stride, border in itertools.product(
        (1, 2, 3, 5, 6), (1, 2, 3), (1, 2, 3), BORDERS
    ):
        groups, channels, filters = [(1, 2, 3), (2, 4, 2), (3, 3, 3)][rng.integers(3)]
        x = rng.standard_normal((images, size, 4, channels)).astype(np.float32)
        w = rng.standard_normal((filters, rows, 2, channels // groups)).astype(np.float32)
        options = {"stride": (stride, 1), "padding": (border, (0, 1)), "groups": groups}
        options["dilation"] = (int(rng.integers(1, 3)), 1)

        def convolved(x, w, options=options):
            return dk.ops.conv2d(x, w, **options)

        done += agree(device, convolved, [x, w], (size, rows, options))
    assert done > 100
