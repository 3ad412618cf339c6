"""Single ops of PyTorch on the device: cuDNN's convolutions, cuBLAS's products, and what memory
bounds.  Every row has its bytes and operations, so that a roofline can be drawn from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from .timing import device_us, sets_for

Row = dict[str, Any]
PRECISIONS = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}
LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


@contextmanager
def precision(name: str) -> Iterator[torch.dtype]:
    """float32 in plain arithmetic, tf32, or bfloat16 arrays."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
    try:
        yield PRECISIONS[name]
    finally:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


class Conv(NamedTuple):
    """N images of size x size x C, K filters of window x window."""

    n: int
    size: int
    c: int
    k: int
    window: int
    stride: int = 1
    padding: int = 0
    groups: int = 1

    @property
    def out(self) -> int:
        return (self.size + 2 * self.padding - self.window) // self.stride + 1

    @property
    def operations(self) -> float:
        return 2.0 * self.n * self.out**2 * self.k * self.window**2 * self.c / self.groups

    @property
    def numbers(self) -> float:
        """Of x, w and y together."""
        w = self.k * self.window**2 * self.c / self.groups
        return self.n * (self.size**2 * self.c + self.out**2 * self.k) + w


CONVOLUTIONS = (
    Conv(64, 32, 64, 64, 3, 1, 1),  # those that the CPU backend is measured on
    Conv(64, 16, 64, 128, 3, 1, 1),
    Conv(64, 8, 256, 256, 3, 1, 1),
    Conv(128, 32, 16, 16, 3, 1, 1),
    Conv(64, 32, 3, 64, 3, 1, 1),
    Conv(16, 56, 256, 64, 1),
    Conv(16, 56, 64, 256, 1),
    Conv(16, 227, 3, 96, 11, 4),
    Conv(16, 224, 3, 64, 7, 2, 3),
    Conv(16, 56, 64, 64, 3, 1, 1, groups=64),
    Conv(256, 32, 64, 64, 3, 1, 1),  # enough work for a large GPU
    Conv(128, 56, 64, 64, 3, 1, 1),  # ResNet-50
    Conv(128, 28, 128, 128, 3, 1, 1),
    Conv(128, 14, 256, 256, 3, 1, 1),
    Conv(128, 7, 512, 512, 3, 1, 1),
    Conv(128, 56, 64, 256, 1),
    Conv(128, 28, 512, 128, 1),
    Conv(128, 56, 128, 128, 3, 2, 1),
)


def _conv_calls(shape: Conv, dtype: torch.dtype, layout: str, mask: list[bool] | None) -> list:
    """Calls on several sets of arrays; `mask`: which gradients, or None for the forward pass."""
    memory = LAYOUTS[layout]
    options = ([shape.stride] * 2, [shape.padding] * 2, [1, 1])
    rest = (None, *options, False, [0, 0], shape.groups, mask)
    backward = torch.ops.aten.convolution_backward
    calls = []
    for _ in range(sets_for(shape.numbers * dtype.itemsize)):
        x = torch.randn(shape.n, shape.c, shape.size, shape.size, device="cuda", dtype=dtype)
        w = torch.randn(shape.k, shape.c // shape.groups, shape.window, shape.window,
                        device="cuda", dtype=dtype)  # fmt: skip
        x, w = x.contiguous(memory_format=memory), w.contiguous(memory_format=memory)
        if mask is None:
            calls.append(lambda x=x, w=w: F.conv2d(x, w, None, *options, shape.groups))
            continue
        g = torch.randn(shape.n, shape.k, shape.out, shape.out, device="cuda", dtype=dtype)
        g = g.contiguous(memory_format=memory)
        calls.append(lambda x=x, w=w, g=g: backward(g, x, w, *rest))
    return calls


DIRECTIONS = {"forward": None, "dx": [True, False, False], "dw": [False, True, False]}


def convolutions(precisions: Sequence[str]) -> Iterator[Row]:
    """cuDNN's fastest algorithm for each shape, as its own search finds it."""
    torch.backends.cudnn.benchmark = True
    for shape in CONVOLUTIONS:
        for kind in precisions:
            for layout in LAYOUTS:
                if kind == "bfloat16" and layout == "channels first":
                    continue
                for direction, mask in DIRECTIONS.items():
                    with precision(kind) as dtype:
                        us = device_us(_conv_calls(shape, dtype, layout, mask))
                    yield _row(f"conv2d {direction}", shape._asdict(), kind, us, shape.operations,
                               shape.numbers * dtype.itemsize, layout=layout)  # fmt: skip


def products(precisions: Sequence[str]) -> Iterator[Row]:
    """Square matrix products of cuBLAS."""
    for kind in precisions:
        for n in (128, 256, 512, 1024, 2048, 4096, 8192):
            with precision(kind) as dtype:
                nbytes = 3.0 * n * n * dtype.itemsize
                calls = []
                for _ in range(sets_for(nbytes)):
                    a, b, c = (torch.randn(n, n, device="cuda", dtype=dtype) for _ in range(3))
                    calls.append(lambda a=a, b=b, c=c: torch.mm(a, b, out=c))
                us = device_us(calls)
            yield _row("matmul", {"n": n}, kind, us, 2.0 * n**3, nbytes)


def _elements(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device="cuda")


def _copy(n: int) -> tuple[Callable, float]:
    a, b = _elements(n), torch.empty(n, device="cuda")
    return lambda: b.copy_(a), 8.0 * n


def _softmax(rows: int, cols: int, forward: bool) -> tuple[Callable, float]:
    x = _elements(rows, cols)
    if forward:
        return lambda: torch.softmax(x, 1), 8.0 * rows * cols
    y, g = torch.softmax(x, 1), _elements(rows, cols)
    back = torch.ops.aten._softmax_backward_data
    return lambda: back(g, y, 1, torch.float32), 12.0 * rows * cols


def _cross_entropy(rows: int, cols: int) -> tuple[Callable, float]:
    x = _elements(rows, cols)
    y = torch.randint(0, cols, (rows,), device="cuda")
    return lambda: F.cross_entropy(x, y), 4.0 * rows * cols


def _layer_norm(rows: int, cols: int) -> tuple[Callable, float]:
    x, w, b = _elements(rows, cols), _elements(cols), _elements(cols)
    return lambda: F.layer_norm(x, (cols,), w, b), 8.0 * rows * cols


def _batch_norm(n: int, size: int, c: int) -> tuple[Callable, float]:
    x = _elements(n, c, size, size).contiguous(memory_format=torch.channels_last)
    w, b, m, v = (torch.ones(c, device="cuda") for _ in range(4))
    # The batch is read for its statistics, read again and written.
    return lambda: F.relu(F.batch_norm(x, m, v, w, b, True)), 12.0 * x.numel()


def _max_pool(n: int, size: int, c: int, window: int, stride: int) -> tuple[Callable, float]:
    x = _elements(n, c, size, size).contiguous(memory_format=torch.channels_last)
    out = (size - window) // stride + 1
    return lambda: F.max_pool2d(x, window, stride), 4.0 * n * c * (size**2 + out**2)


def _adam(numbers: int) -> tuple[Callable, float]:
    w, m, v, g = (_elements(numbers).abs() for _ in range(4))
    t = torch.ones((), device="cuda")
    return lambda: torch._fused_adam_(
        [w], [g], [m], [v], [], [t], lr=1e-3, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8,
        amsgrad=False, maximize=False,
    ), 28.0 * numbers  # fmt: skip


BOUND_BY_MEMORY: tuple[tuple[str, Callable, tuple], ...] = (
    ("copy", _copy, (2**28,)),
    ("softmax", _softmax, (16384, 4096, True)),
    ("softmax dx", _softmax, (16384, 4096, False)),
    ("softmax", _softmax, (4096, 1000, True)),
    ("cross entropy", _cross_entropy, (4096, 1000)),
    ("cross entropy", _cross_entropy, (16384, 4096)),
    ("layer norm", _layer_norm, (16384, 1024)),
    ("batch norm, relu", _batch_norm, (128, 56, 64)),
    ("max-pool", _max_pool, (128, 112, 64, 3, 2)),
    ("max-pool", _max_pool, (128, 112, 64, 2, 2)),
    ("adam", _adam, (11_200_000,)),
)


def bound_by_memory() -> Iterator[Row]:
    for name, make, args in BOUND_BY_MEMORY:
        _, nbytes = make(*args)
        calls = [make(*args)[0] for _ in range(min(4, sets_for(nbytes)))]
        yield _row(name, {"args": args}, "float32", device_us(calls), 0.0, nbytes)


def _row(
    op: str, shape: dict, kind: str, us: float, operations: float, nbytes: float, **more: Any
) -> Row:
    found: Row = {"op": op, "shape": shape, "precision": kind, **more, "us": round(us, 3)}
    found["tflops"] = round(1e-6 * operations / us, 2)
    found["gbytes_per_second"] = round(1e-3 * nbytes / us, 1)
    return found
