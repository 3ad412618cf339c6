"""deepkit: deep learning in Python, on NumPy, Numba and CUDA, under one tape."""

from . import data, models, nn, ops, optim, train
from .backends import (
    DeviceError,
    device,
    devices,
    precision,
    set_device,
    set_num_threads,
    using,
)
from .captured import capture
from .card import ShapeError
from .checkpoint import load, save
from .create import arange, from_dlpack, full, ones, rand, randn, tensor, zeros
from .random import seed
from .summary import summary
from .tape import CaptureError, Tensor, enable_grad, grad, is_grad_enabled, no_grad
from .train import History, evaluate, fit, load_model, predict

__version__ = "0.1.0"

__all__ = [
    "CaptureError",
    "DeviceError",
    "History",
    "ShapeError",
    "Tensor",
    "arange",
    "capture",
    "data",
    "device",
    "devices",
    "enable_grad",
    "evaluate",
    "fit",
    "from_dlpack",
    "full",
    "grad",
    "is_grad_enabled",
    "load",
    "load_model",
    "models",
    "nn",
    "no_grad",
    "ones",
    "ops",
    "optim",
    "precision",
    "predict",
    "rand",
    "randn",
    "save",
    "seed",
    "set_device",
    "set_num_threads",
    "summary",
    "tensor",
    "train",
    "using",
    "zeros",
]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
