"""What was promised: how many times faster than whom, at least ("must") and better ("stretch").

Promised for two threads; an op should not be slower than PyTorch's best at any number of them.
Printed beside what was measured, and never a reason to fail.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

TORCH = ("torch", "torch channels last", "torch compiled", "torch frozen")
SERVERS = ("onnxruntime", "openvino")


class Target(NamedTuple):
    must: float
    stretch: float
    against: tuple[str, ...]  # the best of these


TRAIN = {
    "mlp": (2.5, 3.3),
    "lenet5": (5.0, 8.0),
    "vgg_small": (2.3, 3.5),
    "resnet20": (1.5, 2.0),
}
START_MS = 1000.0  # cached import and the first step of LeNet-5


def of_network(mode: str, name: str, batch: int, threads: int) -> Target | None:
    if threads != 2:
        return None
    if mode == "train" and name in TRAIN and batch >= 64:
        return Target(*TRAIN[name], TORCH)
    if mode == "infer" and batch >= 16:
        return Target(1.2, 3.5 if name == "lenet5" else 2.5, SERVERS)
    if mode == "infer" and batch == 1:
        return Target(1.0, 1.5, SERVERS)
    return None


def of_op(case: Any, threads: int) -> Target:
    """For a `operators.Case`."""
    must, stretch = _of_op(case.op.name, case.sample) if threads == 2 else (1.0, 1.3)
    return Target(must, stretch, TORCH)


def _of_op(name: str, sample: Any) -> tuple[float, float]:
    shapes = [None if a is None else getattr(a, "shape", a) for a in sample.args]
    params = sample.params
    if name in ("product", "matmul") and min(*shapes[0], *shapes[1]) >= 128:
        return 2.0, 2.2
    if name == "conv2d":
        k, r, s, c = shapes[1]
        if c == 1 and params.get("groups", 1) == k > 1:
            return 3.0, 5.0
        if (r, s) == (3, 3) and np.prod(params.get("stride", 1)) == 1 and min(k, c) >= 64:
            return 1.9, 2.5
    relu = name == "batch_norm_train" and params.get("activation") == "relu"
    if relu or name in ("max_pool2d", "avg_pool2d", "label_cross_entropy"):
        return 3.0, 5.0
    return 1.0, 1.3
