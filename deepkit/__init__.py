"""deepkit: deep learning in Python, on NumPy, Numba and CUDA, under one tape."""

from . import data, nn, ops, optim
from .backends import DeviceError, device, devices, set_device, set_num_threads
from .card import ShapeError
from .create import arange, from_dlpack, full, ones, rand, randn, tensor, zeros
from .program import CaptureError, capture
from .random import seed
from .tape import Tensor, enable_grad, grad, is_grad_enabled, no_grad

__version__ = "0.1.0"

__all__ = [
    "CaptureError",
    "DeviceError",
    "ShapeError",
    "Tensor",
    "arange",
    "capture",
    "data",
    "device",
    "devices",
    "enable_grad",
    "from_dlpack",
    "full",
    "grad",
    "is_grad_enabled",
    "nn",
    "no_grad",
    "ones",
    "ops",
    "optim",
    "rand",
    "randn",
    "seed",
    "set_device",
    "set_num_threads",
    "tensor",
    "zeros",
]
