"""The gradient for the filters where kernels walk in blocks, larger than any sample."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

import deepkit as dk
from deepkit.backends.numba import launch, threads

CASES = {  # images, height, width, channels, filters, window, options
    "rows of 1 x 1": (16, 9, 7, 32, 32, (1, 1), {}),
    "stride and padding": (17, 9, 11, 33, 40, (3, 2), {"stride": 2, "padding": 1}),
    "groups, dilation": (70, 6, 6, 64, 96, (3, 3), {"padding": 1, "dilation": 2, "groups": 2}),
    "more filters than taps": (5, 30, 31, 70, 100, (1, 1), {"stride": 2}),
    "large windows": (130, 5, 5, 32, 200, (5, 5), {"padding": 2}),
    "blocks of a row": (64, 16, 16, 3, 64, (7, 7), {"padding": 3}),
    "depthwise": (20, 9, 11, 5, 5, (3, 3), {"padding": 1, "groups": 5}),
    "depthwise, two filters a channel": (70, 8, 14, 3, 6, (3, 3), {"padding": 2, "groups": 3}),
}


def _gradient(device: str, x: np.ndarray, w: np.ndarray, dtype: str, options: dict) -> np.ndarray:
    images = dk.tensor(x.astype(dtype), device)
    filters = dk.tensor(w.astype(dtype), device, requires_grad=True)
    with dk.using(conv2d="direct", conv2d_dw="direct"):
        y = dk.ops.conv2d(images, filters, None, **options)
        g = np.random.default_rng(1).standard_normal(y.shape)
        (dw,) = dk.grad(y, [filters], dk.tensor(g.astype(dtype), device))
    return dw.numpy()


@pytest.mark.parametrize("case", CASES)
def test_gradients_for_filters_and_any_number_of_threads(case, monkeypatch):
    monkeypatch.setattr(launch, "GRAIN", 1)  # threads even for small work
    count, height, width, channels, filters, window, options = CASES[case]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, height, width, channels))
    w = rng.standard_normal((filters, *window, channels // options.get("groups", 1)))
    expected = _gradient("numpy", x, w, "float64", options)
    before = threads.count()
    try:
        found = []
        for n in (1, 2, 3, 7):
            dk.set_num_threads(n)
            found.append(_gradient("numba", x, w, "float32", options))
    finally:
        dk.set_num_threads(before)
    error = np.abs(found[0] - expected).max() / np.abs(expected).max()
    assert error < 2e-6
    assert all(np.array_equal(found[0], other) for other in found[1:])
