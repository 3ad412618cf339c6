"""deepkit's own kernels and training steps on the device, timed as PyTorch's are (timing.py)."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from bench.cpu.networks import CLASSES, NETWORKS, deepkit_model

from .timing import REPLAYS, sets_for

Row = dict[str, Any]
LR, MOMENTUM = 1e-3, 0.9


def device_us(device: str, op: str, ins: Callable[[], Sequence[Any]], nbytes: float,
              **params: Any) -> float:  # fmt: skip
    """Microseconds of one launch of an op's kernel, by device events around a graph of several on
    arrays of their own.  `ins()` makes its inputs as tensors; `params` are those of the kernel."""
    from deepkit.backends import get
    from deepkit.tape import registry

    backend: Any = get(device)
    card, steps, alive = registry[op], [], []
    for _ in range(sets_for(nbytes)):
        tensors = ins()
        arrays_in = [None if t is None else t.array for t in tensors]
        shapes = card.shape(*[None if t is None else t.shape for t in tensors], **params)
        dtypes = card.dtype(*[None if t is None else t.dtype for t in tensors], **params)
        outs = [backend.empty(s, d) for s, d in zip(shapes, dtypes, strict=True)]
        kernel = backend.kernel(op, arrays_in, params)
        given = dict(params)
        needed = getattr(kernel, "scratch", None)
        if needed is not None:
            spec = needed(*outs, *arrays_in, **params)
            given["scratch"] = [backend.scratch(s, np.dtype(d)) for s, d in spec]
        steps.append((kernel, (*outs, *arrays_in), given))
        alive.append(tensors)
    replay = backend.bind(steps)
    return timed(backend, replay, len(steps))


def timed(backend: Any, replay: Callable[[], None], count: int) -> float:
    """The median over replays, in microseconds, of one of `count` launches."""
    cupy, stream = backend.cupy, backend.driver.stream
    replay()
    found = []
    for _ in range(REPLAYS):
        before, after = cupy.cuda.Event(), cupy.cuda.Event()
        before.record(stream)
        replay()
        after.record(stream)
        after.synchronize()
        found.append(1e3 * cupy.cuda.get_elapsed_time(before, after) / count)
    return statistics.median(found)


def normal(device: str, *shape: int) -> Any:
    import deepkit as dk

    with dk.device(device):
        return dk.randn(*shape)


def product(device: str, n: int) -> float:
    def ins() -> list[Any]:
        return [normal(device, n, n), normal(device, n, n)]

    return device_us(device, "product", ins, 12.0 * n * n, ta=False, tb=False)


def convolution(device: str, shape: Any, direction: str, algorithm: str) -> float:
    """One of `bench.gpu.ops.CONVOLUTIONS`; direction: forward, dx or dw."""
    sides = ((shape.padding, shape.padding),) * 2
    params: dict[str, Any] = {
        "stride": (shape.stride,) * 2, "padding": sides, "dilation": (1, 1),
        "groups": shape.groups, "algorithm": algorithm,
    }  # fmt: skip
    x = (shape.n, shape.size, shape.size, shape.c)
    w = (shape.k, shape.window, shape.window, shape.c // shape.groups)
    y = (shape.n, shape.out, shape.out, shape.k)

    def ins() -> list[Any]:
        if direction == "forward":
            return [normal(device, *x), normal(device, *w), None]
        return [normal(device, *y), normal(device, *(w if direction == "dx" else x))]

    if direction == "forward":
        params["activation"] = None
    elif direction == "dx":
        params["size"] = (shape.size,) * 2
    else:
        params["window"] = (shape.window,) * 2
    op = "conv2d" if direction == "forward" else f"conv2d_{direction}"
    return device_us(device, op, ins, 4.0 * shape.numbers, **params)


def bound_by_memory(device: str) -> Iterator[tuple[str, dict[str, Any], float, float]]:
    """(name, shape, microseconds, bytes) under the names of `bench.gpu.ops.BOUND_BY_MEMORY`."""
    n = 2**28
    yield "copy", {"args": [n]}, device_us(
        device, "neg", lambda: [normal(device, n)], 8.0 * n
    ), 8.0 * n  # fmt: skip
    for rows, cols in ((16384, 4096), (4096, 1000)):
        nbytes = 8.0 * rows * cols

        def one(rows: int = rows, cols: int = cols) -> list[Any]:
            return [normal(device, rows, cols)]

        us = device_us(device, "softmax", one, nbytes, axis=1)
        yield "softmax", {"args": [rows, cols, True]}, us, nbytes
    rows, cols = 16384, 4096
    nbytes = 12.0 * rows * cols
    us = device_us(
        device, "softmax_dx", lambda: [*one(rows, cols), *one(rows, cols)], nbytes, axis=1
    )
    yield "softmax dx", {"args": [rows, cols, False]}, us, nbytes


class Step:
    """A training step of one of the networks; `captured` or eager."""

    def __init__(self, device: str, name: str, size: int, captured: bool) -> None:
        import deepkit as dk

        network = NETWORKS[name]
        rng = np.random.default_rng(0)
        dk.seed(0)
        with dk.device(device):
            model: Any = deepkit_model(network)
            optimizer = dk.optim.SGD(model.parameters(), LR, momentum=MOMENTUM)
            self.x = dk.tensor(rng.standard_normal((size, *network.shape), dtype=np.float32))
            self.y = dk.tensor(rng.integers(0, CLASSES, size))

        def step(x: Any, y: Any) -> Any:
            loss = dk.ops.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        self.step = dk.capture(step) if captured else step

    def run(self) -> Any:
        return self.step(self.x, self.y)

    def losses(self, count: int) -> list[float]:
        return [self.run().item() for _ in range(count)]
