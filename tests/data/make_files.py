"""Small data files for the tests: sound ones, and the pieces to make bad ones."""

import gzip
import struct

import numpy as np

from deepkit.data import DataError


def idx_bytes(array):
    array = np.asarray(array, np.uint8)
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(path, data):
    """Write bytes, packed if the name ends in .gz -> the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def random_set(count, shape=(5, 4), classes=10, seed=0):
    """Random images (count, *shape) and labels that hold every class, if there is room."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *shape), np.uint8)
    return images, rng.permutation(np.arange(count, dtype=np.int64) % classes)


def write_idx_set(folder, train=30, test=12, suffix=".gz"):
    """An MNIST-like folder -> {"train": (images, labels), "test": ...}, images (N, H, W)."""
    parts = {}
    for seed, (part, prefix, count) in enumerate(
        [("train", "train", train), ("test", "t10k", test)]
    ):
        images, labels = parts[part] = random_set(count, seed=seed)
        write(folder / f"{prefix}-images-idx3-ubyte{suffix}", idx_bytes(images))
        write(folder / f"{prefix}-labels-idx1-ubyte{suffix}", idx_bytes(labels))
    return parts


def cifar_bytes(images, labels):
    """Images (N, 32, 32, 3), labels (N,), in CIFAR-10's layout, image by image."""
    return b"".join(
        bytes([label]) + b"".join(image[:, :, channel].tobytes() for channel in range(3))
        for image, label in zip(images, labels, strict=True)
    )


def one_sentence(error):
    """The text of an exception, after checking its form: one line, and no stray traceback."""
    text = str(error.value)
    assert text
    assert "\n" not in text
    assert "Traceback" not in text
    return text


def tried(read, *arguments):
    """What a reader returns and None, or None and what its DataError says; others pass through."""
    try:
        return read(*arguments), None
    except DataError as error:
        return None, str(error)
