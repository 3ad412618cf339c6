"""Batches out of arrays in memory: shuffled, augmented and resumable, all by one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..words import counted
from .augment import Augmentation
from .errors import DataError
from .readers import described, finite, in_range, same_count
from .sets import Dataset

if TYPE_CHECKING:
    from ..tape import Tensor

_ORDER, _AUGMENT = 0, 1  # what a random stream is for


class Loader:
    """Cut images (N, ...) and labels into batches -> (x, y) tensors, a pass an epoch.

        Loader(images, labels, 64)
        Loader(dataset, batch_size=64)      # a Dataset brings labels and the number of classes

    x is float32 in [0, 1] where the images are uint8, else of their own float type (float32 where
    they are lists of numbers). Labels that are whole numbers (N,) are classes, and y is int64;
    floats (N, ...) are targets, of a regression for one, and y is of the type of x.
    The order of a pass depends on (seed, epoch) alone, and the random numbers that
    ``augment(images, rng) -> images`` gets for a batch (as stored, before scaling) on (seed, epoch,
    index of the batch) alone. `epoch` counts the full passes, and may be set. Each ``iter`` starts
    a pass from its beginning, except the first after :meth:`load_state_dict`.

    `num_classes`, if given or known from a Dataset, bounds the labels. Raises :class:`DataError`
    for an empty set, lengths that differ, NaN or infinity in float images or targets, labels out
    of range, or a batch size below 1.
    """

    def __init__(
        self,
        images: ArrayLike | Dataset,
        labels: ArrayLike | None = None,
        batch_size: int | None = None,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        augment: Augmentation | None = None,
        seed: int = 0,
        num_classes: int | None = None,
    ):
        if isinstance(images, Dataset) and labels is None:
            data = images
            images, labels = data.images, data.labels
            num_classes = len(data.classes) if num_classes is None else num_classes
        elif isinstance(images, Dataset) or labels is None or isinstance(labels, int):
            paired = isinstance(images, tuple) and len(images) == 2
            raise DataError(
                "Loader: expected (images, labels, batch_size), or a Dataset, which brings its "
                f"labels, and batch_size=...; got {_one(images)} and "
                f"{'no labels' if labels is None else f'{_one(labels)} as labels'}"
                + ("; a * takes the pair apart: Loader(*data, 64)" if paired else "")
            )
        self.images: NDArray[Any] = _array("images", images)
        self.labels: NDArray[Any] = _labels(_array("labels", labels), self.images.dtype)
        self.batch_size = _whole("batch_size", batch_size, at_least=1)
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.augment = augment
        self.seed = _whole("seed", seed, at_least=0)
        _check(self.images, self.labels, num_classes)
        if len(self) == 0:
            raise DataError(
                f"Loader: no batch of {self.batch_size} from {counted(len(self.images), 'image')} "
                "with drop_last"
            )
        self._epoch = 0
        self._position = 0  # batches of this epoch already handed out
        self._resume = 0  # where the next pass starts, once

    def __len__(self) -> int:
        """Batches in a full pass."""
        full, rest = divmod(len(self.images), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __repr__(self) -> str:
        parts = [f"{described(self.images)} in batches of {self.batch_size}"]
        parts += ["shuffled"] if self.shuffle else ["in order"]
        parts += ["augmented"] if self.augment is not None else []
        parts += ["without a short last batch"] if self.drop_last else []
        return f"<loader: {', '.join(parts)}; seed {self.seed}, epoch {self._epoch}>"

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        from ..create import tensor

        for x, y in self.batches():
            yield tensor(x), tensor(y)

    def batches(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """One pass, or the rest of a resumed one, as NumPy arrays."""
        return self._pass(self._batch)

    def picks(self) -> Iterator[tuple[NDArray[np.intp], np.random.Generator]]:
        """The same pass as the numbers of each batch's images, and what augments them."""
        return self._pass(lambda chosen, epoch, index: (chosen, self._augmenting(epoch, index)))

    def _pass(self, made: Callable[[NDArray[np.intp], int, int], Any]) -> Iterator[Any]:
        epoch, start, self._resume = self._epoch, self._resume, 0
        order = self._order(epoch)
        for index in range(start, len(self)):
            chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
            batch = made(chosen, epoch, index)
            self._position = index + 1  # before the caller runs: its checkpoint counts this batch
            yield batch
        self._epoch, self._position = epoch + 1, 0

    @property
    def epoch(self) -> int:
        """Full passes so far; the number of the present one. Setting it starts that pass anew."""
        return self._epoch

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._epoch = _whole("epoch", value, at_least=0)
        self._position = self._resume = 0

    def state_dict(self) -> dict[str, int]:
        """Whole numbers from which :meth:`load_state_dict` continues with the very next batch."""
        return {
            "seed": self.seed,
            "epoch": self._epoch,
            "position": self._position,
            "items": len(self.images),
            "batch_size": self.batch_size,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from a :meth:`state_dict`; the next ``iter`` yields the rest of its epoch.

        After the last batch of an epoch that rest is empty. Raises :class:`DataError` if the state
        is of a loader with other data or another batch size.
        """
        own = self.state_dict()
        missing = [key for key in own if key not in state]
        if missing:
            raise DataError(f"Loader: the state has no {', '.join(map(repr, missing))}")
        for key, meaning in (("items", "images"), ("batch_size", "images a batch")):
            if state[key] != own[key]:
                raise DataError(
                    f"Loader: the state is of a loader of {state[key]} {meaning}, "
                    f"but this one has {own[key]}"
                )
        seed, epoch, position = (
            _whole(key, state[key], at_least=0) for key in ("seed", "epoch", "position")
        )
        if position > len(self):
            raise DataError(
                f"Loader: the state is at batch {position} of an epoch, but it has {len(self)}"
            )
        self.seed, self._epoch = seed, epoch
        self._position = self._resume = position

    def _order(self, epoch: int) -> NDArray[np.intp]:
        if not self.shuffle:
            return np.arange(len(self.images))
        # sorting raw random words, since NumPy promises those to stay the same in every version
        words = self._stream(_ORDER, epoch).random_raw(len(self.images))
        return np.argsort(words, kind="stable")

    def _augmenting(self, epoch: int, index: int) -> np.random.Generator:
        return np.random.Generator(self._stream(_AUGMENT, epoch, index))

    def _batch(
        self, chosen: NDArray[np.intp], epoch: int, index: int
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        x, y = self.images[chosen], self.labels[chosen]
        if self.augment is not None:
            x = np.asarray(self.augment(x, self._augmenting(epoch, index)))
            if len(x) != len(y):
                raise DataError(f"Loader: augment made {counted(len(x), 'image')} of {len(y)}")
        if x.dtype == np.uint8:
            x = np.divide(x, 255, dtype=np.float32)
        return x, y

    def _stream(self, *key: int) -> np.random.Philox:
        return np.random.Philox(np.random.SeedSequence(self.seed, spawn_key=key))


def _one(value: object) -> str:
    """A value's type with its article."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeioAEIO' else 'a'} {name}"


def _array(what: str, values: ArrayLike) -> NDArray[Any]:
    """The values as an array; numbers in lists are float32 as images, as `dk.tensor` has it."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DataError(f"Loader: the {what} form no array: {error}") from None
    listed = what == "images" and isinstance(values, list | tuple)
    return array.astype(np.float32) if listed and array.dtype in (np.int64, np.float64) else array


def _labels(labels: NDArray[Any], images: np.dtype) -> NDArray[Any]:
    if labels.dtype.kind == "f" and labels.ndim and labels.size:
        with np.errstate(over="ignore"):  # an infinity is found later
            return labels.astype(images if images.kind == "f" else np.float32, copy=False)
    if labels.ndim != 1 or (labels.dtype.kind not in "iu" and labels.size):
        raise DataError(
            f"Loader: labels are {labels.shape} of {labels.dtype}; whole numbers, one an image, "
            "or floats were expected"
        )
    return labels.astype(np.int64, copy=False)


def _check(images: NDArray[Any], labels: NDArray[Any], num_classes: int | None) -> None:
    if images.dtype != np.uint8 and images.dtype.kind != "f" and images.size:
        raise DataError(
            f"Loader: images are {images.dtype}; uint8 (0 to 255) or float was expected"
        )
    if images.ndim < 2 or images.size == 0:
        raise DataError(
            f"Loader: images of shape {images.shape} are no data; (N, H, W, C) or (N, features) "
            "was expected"
        )
    same_count("Loader", images, labels, "images", "labels")
    if images.dtype.kind == "f":
        finite("Loader: images", images)
    if labels.dtype.kind == "f":
        return finite("Loader: labels", labels)
    limit = np.iinfo(np.int64).max if num_classes is None else num_classes
    return in_range("Loader: labels", labels, limit)


def _whole(name: str, value: object, at_least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < at_least:
        raise DataError(
            f"Loader: {name} must be a whole number of at least {at_least}, not {value!r}"
        )
    return int(value)
