"""Convolutions on tensor cores, on the simulator: right within what their rounding may cost."""

import numpy as np
import pytest

import deepkit as dk
from deepkit.backends import get
from deepkit.backends.cuda.sim import ORDERS

if "cuda-sim" not in dk.devices():
    pytest.skip("no C++ compiler here", allow_module_level=True)

from deepkit.backends.cuda import conv_parts, conv_tensor

# the error of one product of two rounded factors, relative to the product of their sizes
UNITS = {"3xtf32": 2**-21, "tf32": 2**-10, "float16": 2**-10, "bfloat16": 2**-7}

CASES = [
    ((3, 9, 8, 16), (140, 3, 3, 16), {"padding": 1}, 0),
    ((3, 9, 8, 12), (60, 3, 3, 12), {"padding": 1, "stride": 2}, 1),
    ((2, 17, 13, 8), (34, 3, 2, 8), {"padding": (2, 1), "stride": (2, 3), "dilation": (1, 2)}, 1),
    ((2, 14, 14, 3), (20, 5, 5, 3), {"stride": 2, "padding": 3}, 2),
    ((3, 12, 12, 6), (16, 5, 5, 6), {}, 2),
    ((3, 9, 9, 24), (72, 3, 3, 8), {"groups": 3, "padding": 1, "stride": 2}, 2),
]


@pytest.mark.parametrize("precision", UNITS)
@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_convolutions_and_their_gradients(case, precision, large, monkeypatch):
    x_shape, w_shape, options, tile = case
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype("f") for s in (x_shape, w_shape))
    b = rng.standard_normal(w_shape[0]).astype("f")
    monkeypatch.setattr(get("cuda-sim").driver, "order", ORDERS[CASES.index(case) % 3])
    monkeypatch.setattr(conv_parts, "LEAST", 64)
    if large:
        monkeypatch.setattr(conv_tensor, "ENOUGH", 1)
        channels = w_shape[0] // options.get("groups", 1)
        assert conv_tensor._tile(100, channels, 1) == conv_tensor.LARGE[tile]

    def answers(device, x, w, b, g=None):
        x, w, b = (dk.tensor(a, device, requires_grad=True) for a in (x, w, b))
        y = dk.ops.conv2d(x, w, b, **options)
        g = rng.standard_normal(y.shape).astype("f") if g is None else g
        return g, [y, *dk.grad(y, [x, w], [dk.tensor(g, device)])]

    with dk.precision(precision):
        g, found = answers("cuda-sim", x, w, b)
    doubles = [a.astype("d") for a in (x, w, b, g)]
    _, wanted = answers("numpy", *doubles)
    _, size = answers("numpy", *[np.abs(a) for a in doubles])  # what the rounding is relative to
    for name, a, right, most in zip(("y", "dx", "dw"), found, wanted, size, strict=True):
        length = x.size if name == "dw" else w.size
        allowed = (UNITS[precision] + 2**-24 * (2 + np.sqrt(length))) * most.numpy() + 1e-30
        off = np.abs(a.numpy() - right.numpy())
        assert np.all(off <= allowed), (name, float((off / allowed).max()))


def test_rounding_is_there_at_all():
    rng = np.random.default_rng(0)
    x = dk.tensor(rng.standard_normal((2, 8, 8, 16)).astype("f"), "cuda-sim", requires_grad=True)
    w = dk.tensor(rng.standard_normal((16, 3, 3, 16)).astype("f"), "cuda-sim", requires_grad=True)
    found = {}
    for precision in ("float32", *UNITS):
        with dk.precision(precision):
            y = dk.ops.conv2d(x, w)
            found[precision] = [a.numpy() for a in (y, *dk.grad(y.sum(), [x, w]))]
    for i in range(3):
        exact = found["float32"][i]
        off = {p: np.abs(found[p][i] - exact).max() / np.abs(exact).max() for p in UNITS}
        assert off["3xtf32"] < 1e-6
        assert 1e-6 < off["tf32"] < off["bfloat16"]
        assert off["float16"] < off["bfloat16"]
