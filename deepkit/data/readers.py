"""File formats: IDX, CIFAR-10 binary and npz, each plain or compressed, into NumPy arrays.

A reader trusts no number in a file before it has counted the bytes that are really there, so a
header that promises terabytes costs nothing.
"""

from __future__ import annotations

import gzip
import math
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..words import counted
from .errors import DataError, DataWarning, reading

Images = NDArray[Any]
Labels = NDArray[np.int64]
Pair = tuple[Images, Labels]

_CHUNK = 1 << 20
_CIFAR_RECORD = 1 + 3 * 32 * 32
CIFAR_LIMIT = 60_000 * _CIFAR_RECORD  # the whole data set; no single file of it is larger
_DEFLATE_RATIO = 1100  # deflate never shrinks by more than about 1032 to 1
_MAX_CLASSES = 65_536  # without a list of names, a larger label is taken for a mistake


def unpack(what: str, path: str | PathLike[str], limit: int) -> tuple[bytearray, str]:
    """The first `limit` bytes of a file, unzipped if it is gzip, and what is wrong with it.

    The second value is "" for a sound file, else a few words on its damage; the bytes before the
    damage are returned. Memory grows with what the file holds, never with `limit`.
    """
    data = bytearray()
    with reading(what, path), open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]
        try:
            while len(data) < limit:
                chunk = stream.read(min(_CHUNK, limit - len(data)))
                if not chunk:
                    break
                data += chunk
        except EOFError:
            return data, "its gzip stream is cut short"
        except (gzip.BadGzipFile, zlib.error) as error:
            return data, f"its gzip stream is damaged: {error}"
    return data, ""


def idx(what: str, path: str | PathLike[str], ndim: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes with `ndim` dimensions, plain or gzip, by its content.

    The format: bytes 0, 0, 8 (the type: unsigned byte), ndim; then each dimension as a big-endian
    32-bit number; then the values. Raises :class:`DataError` unless the file holds exactly that.
    """
    start = 4 + 4 * ndim
    header, damage = unpack(what, path, start)
    if len(header) < start:
        raise DataError(
            f"{what}: {path} holds {_bytes(len(header))}{_aside(damage)}, "
            f"too few for an IDX header of {start}"
        )
    magic = bytes([0, 0, 8, ndim])
    if header[:4] != magic:
        raise DataError(
            f"{what}: {path} starts with 0x{header[:4].hex()}, not with 0x{magic.hex()} "
            f"(IDX, unsigned bytes, {counted(ndim, 'dimension')})"
        )
    shape = tuple(int(n) for n in np.frombuffer(header, ">u4", count=ndim, offset=4))
    promised = start + math.prod(shape)
    contents = counted(shape[0], "label" if ndim == 1 else "image")
    contents += "" if ndim == 1 else f" of {_by(shape[1:])}"
    if promised == start:
        raise DataError(f"{what}: {path} is empty: its header says {contents}")
    data, damage = unpack(what, path, promised + 1)
    if len(data) < promised:
        raise DataError(
            f"{what}: {path} holds {_bytes(len(data))}{_aside(damage)} "
            f"but its header promises {promised:,} ({contents})"
        )
    if len(data) > promised:
        raise DataError(
            f"{what}: {path} holds more than the {promised:,} bytes "
            f"that its header promises ({contents})"
        )
    if damage:
        raise DataError(f"{what}: {path} is damaged: {damage}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def idx_pair(
    what: str,
    images_path: str | PathLike[str],
    labels_path: str | PathLike[str],
    classes: int | None = None,
) -> Pair:
    """Read IDX images and their labels -> uint8 (N, H, W, 1), int64 (N,), checked together."""
    labels = idx(what, labels_path, ndim=1).astype(np.int64)
    images = idx(what, images_path, ndim=3)[..., np.newaxis]
    same_count(what, images, labels, images_path, labels_path)
    if classes is not None:
        in_range(f"{what}: {labels_path}", labels, classes)
    return images, labels


def cifar(what: str, path: str | PathLike[str]) -> Pair:
    """Read CIFAR-10's binary format, plain or gzip -> uint8 (N, 32, 32, 3), int64 (N,)."""
    data, damage = unpack(what, path, CIFAR_LIMIT + 1)
    if damage:
        raise DataError(f"{what}: {path} is damaged: {damage} after {_bytes(len(data))}")
    return cifar_records(f"{what}: {path}", data)


def cifar_records(where: str, data: bytes | bytearray) -> Pair:
    """Decode CIFAR-10 records: a label byte, then 32x32 bytes each of red, green and blue."""
    if len(data) > CIFAR_LIMIT:
        raise DataError(
            f"{where} holds more than {CIFAR_LIMIT:,} bytes, which is 60,000 images, "
            "the whole of CIFAR-10"
        )
    if not data or len(data) % _CIFAR_RECORD:
        raise DataError(
            f"{where} holds {_bytes(len(data))}; a whole number of {_CIFAR_RECORD:,}-byte records "
            "was expected (a label, then 3 planes of 32x32)"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, _CIFAR_RECORD)
    labels = records[:, 0].astype(np.int64)
    in_range(where, labels, 10)
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels


def npz(what: str, path: str | PathLike[str]) -> tuple[Images, Labels, tuple[str, ...]]:
    """Read arrays `images`, `labels` and, if there, `classes` (names) from an npz file.

    images: uint8 or float, (N, H, W) or (N, H, W, C), returned as (N, H, W, C); labels: whole
    numbers (N,), returned as int64. Nothing is unpickled.
    """
    with reading(what, path):
        if not zipfile.is_zipfile(path):
            Path(path).stat()  # a missing file says so, before "is not an npz"
            raise DataError(f"{what}: {path} is not an npz file (a zip archive of arrays)")
        with zipfile.ZipFile(path) as archive:
            names = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            missing = [name for name in ("images", "labels") if name not in names]
            if missing:
                raise DataError(
                    f"{what}: {path} has no array {' or '.join(map(repr, missing))}; it has "
                    f"{', '.join(map(repr, sorted(names))) or 'none'}"
                )
            images, labels = (_npy(what, path, archive, names[n]) for n in ("images", "labels"))
            given = _npy(what, path, archive, names["classes"]) if "classes" in names else None
    where = f"{what}: {path}"
    if images.ndim not in (3, 4) or not (images.dtype == np.uint8 or images.dtype.kind == "f"):
        raise DataError(
            f"{where} has images {images.shape} of {images.dtype}; "
            "(N, H, W) or (N, H, W, C) of uint8 or float was expected"
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{where} has labels {labels.shape} of {labels.dtype}; "
            "whole numbers, one an image, were expected"
        )
    if images.size == 0:
        raise DataError(f"{where} is empty: its images are {images.shape}")
    same_count(what, images, labels, f"{path} (images)", f"{path} (labels)")
    images = images.astype(images.dtype.newbyteorder("="), copy=False)
    if images.dtype.kind == "f":
        finite(f"{where} images", images)
    if given is None:
        in_range(where, labels, _MAX_CLASSES)
        classes = tuple(str(label) for label in range(int(labels.max()) + 1))
    else:
        classes = tuple(str(name) for name in given.ravel())
        in_range(where, labels, len(classes))
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.shape[1] in (1, 3, 4) and images.shape[3] > 4:
        warnings.warn(
            f"{where} has images {images.shape}, read as (N, H, W, C), with {images.shape[3]} "
            "channels; if they are (N, C, H, W), images.transpose(0, 2, 3, 1) turns them",
            DataWarning,
            stacklevel=2,
        )
    return images, labels.astype(np.int64), classes


def _npy(what: str, path: Any, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    """One array of an npz, its promised size compared with its real one before any allocation."""
    headers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    where = f"{what}: {path} array {entry.filename.removesuffix('.npy')!r}"
    packed = min(entry.compress_size, Path(path).stat().st_size)
    if entry.file_size > _DEFLATE_RATIO * packed + 1000:
        raise DataError(
            f"{where} holds {_bytes(packed)} but promises to unpack to {entry.file_size:,}"
        )
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in headers:
            raise DataError(f"{where} is in npy version {version}; 1.0 or 2.0 was expected")
        shape, _, dtype = headers[version](stream)
        promised = math.prod(shape) * dtype.itemsize
        held = entry.file_size - stream.tell()
        if promised != held and not dtype.hasobject:
            raise DataError(
                f"{where} holds {_bytes(held)} but its header promises {promised:,} "
                f"({dtype} {shape})"
            )
        if dtype.hasobject:
            raise DataError(f"{where} holds Python objects, which deepkit does not unpickle")
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)


def in_range(where: str, labels: NDArray[Any], classes: int) -> None:
    """Raise :class:`DataError` if a label is not in 0 .. classes - 1; names the first that is not.

    `labels` (N,) must not be empty.
    """
    if labels.min() < 0 or labels.max() >= classes:
        first = int(np.argmax((labels < 0) | (labels >= classes)))
        raise DataError(
            f"{where} has label {labels[first]} at index {first}; 0 to {classes - 1} was expected"
        )


def finite(where: str, images: NDArray[Any]) -> None:
    """Raise :class:`DataError` if an image holds NaN or an infinity; names the first that does."""
    # min and max hand NaN on, so that sound data costs no temporary array
    if np.isfinite(images.min()) and np.isfinite(images.max()):
        return
    for index, image in enumerate(images):
        if not np.isfinite(image).all():
            kind = "NaN" if np.isnan(image).any() else "an infinity"
            raise DataError(f"{where} hold {kind} (image {index}); finite numbers were expected")


def same_count(what: str, images: Images, labels: Labels, *paths: object) -> None:
    """Raise :class:`DataError` unless there are as many labels as images."""
    if len(images) != len(labels):
        raise DataError(
            f"{what}: {counted(len(images), 'image')} in {paths[0]} but "
            f"{counted(len(labels), 'label')} in {paths[1]}"
        )


def described(images: Images) -> str:
    """How many images there are, of which shape and dtype."""
    return f"{counted(len(images), 'image')} of {_by(images.shape[1:])} {images.dtype}"


def _bytes(count: int) -> str:
    return counted(count, "byte")


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _aside(damage: str) -> str:
    return f" ({damage})" if damage else ""
