"""Convolutions on 'cuda-sim' in sizes that samples do not reach: every tile, several blocks of
images, many parts, more than one step of the depth."""

import math

import numpy as np
import pytest

from deepkit import tensor
from deepkit.backends import DeviceError, get
from deepkit.backends.cuda.sim import ORDERS
from deepkit.card import sample
from deepkit.ops import conv2d
from deepkit.testing import check_op

try:
    backend = get("cuda-sim")
    from deepkit.backends.cuda import conv_direct, conv_im2col, conv_parts
except DeviceError as error:
    pytest.skip(str(error), allow_module_level=True)

# x, w, options -> which of the large tiles y and dx get
CASES = [
    ((5, 9, 8, 12), (20, 3, 3, 12), {"padding": 1}, 1, 2),
    ((5, 9, 8, 12), (70, 3, 3, 12), {"padding": 1, "stride": 2}, 0, 2),
    ((3, 17, 13, 8), (34, 3, 2, 8), {"padding": (2, 1), "stride": (2, 3), "dilation": (1, 2)},
     0, 2),
    ((3, 17, 13, 8), (34, 3, 3, 8), {"padding": 2, "stride": 4, "dilation": 2}, 0, 2),
    ((3, 17, 13, 8), (34, 2, 2, 8), {"padding": 2, "stride": 4, "dilation": 3}, 0, 2),
    ((2, 20, 20, 3), (65, 7, 7, 3), {"stride": 2, "padding": 3}, 0, 2),
    ((3, 12, 12, 6), (16, 5, 5, 6), {}, 2, 2),
    ((3, 9, 9, 24), (72, 3, 3, 8), {"groups": 3, "padding": 1, "stride": 2}, 1, 2),
    ((4, 9, 9, 64), (72, 1, 1, 64), {}, 0, 0),
    ((40, 5, 5, 20), (60, 5, 5, 20), {}, 0, 1),
    ((3, 9, 9, 20), (40, 3, 3, 1), {"groups": 20, "padding": 1}, None, None),
    ((3, 9, 9, 36), (36, 5, 3, 1), {"groups": 36, "stride": 2, "dilation": 2}, None, None),
    ((2, 12, 12, 3), (6, 9, 9, 1), {"groups": 3, "padding": 2}, None, None),
    ((0, 5, 5, 16), (12, 5, 5, 16), {}, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("x", "w", "options", "tile", "tile_dx"), CASES)
@pytest.mark.parametrize("plain", [True, False])
def test_convolution(x, w, options, tile, tile_dx, plain, monkeypatch):
    monkeypatch.setattr(backend.driver, "order", ORDERS[(len(options) + plain) % 3])  # of threads
    y = conv2d(
        tensor(np.zeros(x, "f"), "numpy"), tensor(np.zeros(w, "f"), "numpy"), **options
    ).shape
    if not plain:  # large tiles for few pixels, small blocks of images, many parts
        monkeypatch.setattr(conv_direct, "MULTIPROCESSORS", 1)
        monkeypatch.setattr(conv_im2col, "COLUMNS", 2 * y[1] * y[2] * math.prod(w[1:3]) * x[3] + 5)
        monkeypatch.setattr(conv_parts, "LEAST", 16)
        groups = options.get("groups", 1)
        if tile is not None:
            used = conv_direct._tile(math.prod(y[:3]), w[0] // groups, groups, np.dtype("f"))
            assert used == conv_direct.LARGE[tile]
            used = conv_direct._tile(math.prod(x[:3]), w[3], groups, np.dtype("f"))
            assert used == conv_direct.LARGE[tile_dx]
    for dtype in ("float32", "float64"):
        given = sample(x, w, (w[0],), activation="relu", **options)
        check_op("conv2d", given, backend, dtype)
        check_op("conv2d_dx", sample(y, w, size=x[1:3], **options), backend, dtype)
        check_op("conv2d_dw", sample(y, x, window=w[1:3], **options), backend, dtype)


def test_parts_hold_all_pixels():
    for pixels in [0, 1, 15, 16, 17, 255, 256, 257, 100_352, 1 << 22]:
        for tiles in [1, 7, 396, 5000]:
            for results in [1, 150, 1 << 20, 1 << 26]:
                parts, length = conv_parts.divided(pixels, tiles, results)
                assert parts * length >= pixels > (parts - 1) * length or (pixels, parts) == (0, 1)
                assert parts == 1 or parts * results <= conv_parts.MEMORY
                assert length % 16 == 0


def test_parts_are_summed_in_one_order():
    rng = np.random.default_rng(0)
    for count in [0, 1, 7, 8, 9, 100]:
        parts = rng.standard_normal((max(count, 1), 45)).astype("f")
        before = rng.standard_normal(45).astype("f")
        for adds in (False, True):
            y = before.copy()
            conv_parts.sum_parts(y, parts, count, adds)
            wanted = parts[:count].sum(0, dtype="d") + (before if adds else 0)
            np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)
