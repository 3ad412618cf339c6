"""Data sets in memory: readers, downloads with checksums, batches and augmentation.

Every reader returns whole NumPy arrays: images uint8 ``(N, H, W, C)`` and labels int64 ``(N,)``.
Nothing is read or downloaded before a function is called, and every file that cannot be used is
one sentence, raised as :class:`DataError`.
"""

from . import augment
from .errors import DataError, DataWarning
from .folder import image_folder
from .loader import Loader
from .sets import Dataset, cifar10, digits, fashion_mnist, load, mnist

__all__ = [
    "DataError",
    "DataWarning",
    "Dataset",
    "Loader",
    "augment",
    "cifar10",
    "digits",
    "fashion_mnist",
    "image_folder",
    "load",
    "mnist",
]


def __dir__() -> list[str]:
    return __all__
