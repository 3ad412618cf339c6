"""What a model makes of data: its predictions; and how well it does: loss, accuracy, errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..backends import PREPARING
from ..captured import capture as captured
from ..create import tensor
from ..data import DataError, Dataset, Loader
from ..nn import Module
from ..ops import cross_entropy
from ..spellings import explained
from ..tape import Tensor, no_grad
from .arguments import check_loss, check_model
from .errors import TrainingError
from .normalize import Normalize
from .progress import Progress

Loss = Callable[[Any, Tensor], Tensor]
Data = Loader | Dataset | tuple[Any, Any]


WAIT = PREPARING


class Evaluation(NamedTuple):
    """Mean loss, accuracy (0 to 1), errors of `total` images; the last two (N,) if asked for.

    Accuracy and errors are None for a model whose output is not one row of logits an image.
    `confidences` are the softmax probabilities of the predictions.
    """

    loss: float
    accuracy: float | None
    errors: int | None
    total: int
    predictions: NDArray[np.int64] | None = None
    confidences: NDArray[np.float64] | None = None


@explained
def evaluate(
    model: Module,
    data: Data,
    *,
    loss: Loss = cross_entropy,
    device: str | None = None,
    batch_size: int = 128,
    normalize: Normalize | None = None,
    capture: bool = True,
    predictions: bool = False,
    progress: bool = False,
) -> Evaluation:
    """Run `model` in eval mode over every image, in order -> loss, accuracy, errors, total.

    `data`: a Loader (its images are taken in order, without augmentation), (images, labels) or a
    Dataset. `loss(output, labels)` is a mean over the batch; float labels are targets, of which
    there is a loss alone. `device`: where to, if the model is to
    move. `normalize`: as in training. `predictions=True` adds the class of each image and its
    probability. `progress` shows a bar. Raises DataError for bad data, TrainingError for a loss
    that is no number.
    """
    check_model("evaluate", model)
    check_loss("evaluate", loss)
    if device is not None:
        model.to(device)
    loader = in_order(data, batch_size)
    check_data("evaluate", model, loader, normalize, loss)
    with Progress(progress) as show:
        show.begin("test", len(loader))
        show.expect_wait(WAIT.format(device=device_of(model)))
        return Tester(model, loss, normalize, capture)(loader, predictions, show.done)


class Prediction(NamedTuple):
    """What a model says of N images: its outputs, here the logits (N, K), as a NumPy array.

    `labels` (N,) are the classes with the largest logits, `confidences` (N,) their softmax
    probabilities; both None for a model whose output is not one row of logits an image.
    """

    labels: NDArray[np.int64] | None
    confidences: NDArray[np.float64] | None
    outputs: NDArray[Any]


@explained
def predict(
    model: Module,
    images: ArrayLike,
    *,
    normalize: Normalize | None = None,
    device: str | None = None,
    batch_size: int = 128,
    capture: bool = True,
) -> Prediction:
    """Run `model` in eval mode over images (N, ...), in order -> labels, confidences, outputs.

    Images as in training: uint8, which becomes [0, 1], or float. `normalize`: as in training, too;
    `load_model` finds it in a checkpoint. `device`: where to, if the model is to move. Raises
    DataError for bad images.
    """
    check_model("predict", model)
    if device is not None:
        model.to(device)
    array = np.asarray(images)
    loader = Loader(array, np.zeros(array.shape[:1], np.int64), batch_size, shuffle=False)

    check_type("predict", model, loader.images)

    def step(x: Tensor) -> Tensor:
        return logits_of(model(x if normalize is None else normalize(x)))

    run = captured(step, fuse="exact") if capture else step
    device = device_of(model)
    if normalize is not None and device is not None:
        normalize.to(device)
    with testing(model), no_grad():
        parts = [run(tensor(x, device)).numpy() for x, _ in loader.batches()]
    outputs = np.concatenate(parts)
    several = outputs.ndim == 2 and outputs.shape[1] > 1
    labels, sure = _predicted(outputs) if several else (None, None)
    return Prediction(labels, sure, outputs)


class Tester:
    """Evaluates a model again and again, and keeps the captured step in between."""

    def __init__(
        self, model: Module, loss: Loss, normalize: Normalize | None, capture: bool
    ) -> None:
        self.model = model

        def step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
            output = model(x if normalize is None else normalize(x))
            return loss(output, y), count_correct(output, y), logits_of(output)

        self.step = captured(step, fuse="exact") if capture else step

    def __call__(
        self,
        loader: Loader,
        predictions: bool = False,
        done: Callable[[int], None] = lambda batches: None,
    ) -> Evaluation:
        """`loader` must be in order, see `in_order`; `done` hears how many batches are finished."""
        device = device_of(self.model)
        results, logits = [], []
        with testing(self.model), no_grad():
            for x, y in loader.batches():
                value, right, output = self.step(tensor(x, device), tensor(y, device))
                results.append((len(y), value, right))
                done(len(results))
                if predictions:
                    logits.append(output.numpy())
        total = sum(n for n, _, _ in results)
        mean = sum(n * value.item() for n, value, _ in results) / total
        if not math.isfinite(mean):
            raise TrainingError(f"the loss on the test data is {mean}; the weights have diverged")
        hits = [None if right is None else int(right.item()) for _, _, right in results]
        errors = None if None in hits else total - sum(h for h in hits if h is not None)
        accuracy = None if errors is None else 1 - errors / total
        classes, sure = _predicted(np.concatenate(logits)) if predictions else (None, None)
        return Evaluation(mean, accuracy, errors, total, classes, sure)


def _predicted(logits: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Classes (N,) and their probabilities (N,) from logits (N, K)."""
    if logits.ndim != 2:
        raise ValueError(
            f"evaluate: predictions need one row of logits an image, not {logits.shape}"
        )
    classes = logits.argmax(axis=1)
    wide = logits.astype(np.float64)
    top = wide.max(axis=1, keepdims=True)
    return classes, 1 / np.exp(wide - top).sum(axis=1)


@contextmanager
def testing(model: Module) -> Iterator[None]:
    """Eval mode inside, and afterwards the mode in which the model was."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def logits_of(output: Any) -> Tensor:
    """The main output of a model that may give several, as those with auxiliary classifiers do."""
    return output[0] if isinstance(output, tuple | list) else output


def count_correct(output: Any, y: Tensor) -> Tensor | None:
    """In how many rows the largest logit is that of the label -> int64 (); None without classes."""
    logits = logits_of(output)
    if logits.ndim != 2 or logits.shape[1] < 2 or y.ndim != 1 or y.dtype.kind == "f":
        return None
    return (logits.detach().argmax(axis=-1) == y).sum()


def device_of(model: Module) -> str | None:
    """Where the model's parameters are; None, the device in force, if it has none."""
    first = next(iter(model.parameters()), None)
    return None if first is None else first.device


# data ---------------------------------------------------------------------------------------------


def loader_of(data: Data, batch_size: int, **options: Any) -> Loader:
    """A Loader as it is; (images, labels) or a Dataset as a Loader with these options."""
    if isinstance(data, Loader):
        return data
    if isinstance(data, Dataset):
        return Loader(data, batch_size=batch_size, **options)
    if isinstance(data, tuple | list) and len(data) == 2:
        return Loader(*data, batch_size, **options)
    raise TypeError(
        f"expected a Loader, a Dataset or (images, labels) as data, not {type(data).__name__}"
    )


def in_order(data: Data, batch_size: int) -> Loader:
    """All of the data in its own order, without augmentation."""
    if isinstance(data, Loader):
        return Loader(data.images, data.labels, data.batch_size, shuffle=False)
    return loader_of(data, batch_size, shuffle=False)


def check_type(what: str, model: Module, images: NDArray[Any]) -> None:
    """DataError for float images of another type than the model's weights."""
    weights = next((p.dtype for p in model.parameters() if p.dtype.kind == "f"), images.dtype)
    if images.dtype.kind == "f" and images.dtype != weights:
        raise DataError(
            f"{what}: the images are {images.dtype} but the model is {weights}; "
            f"images.astype('{weights}') fits it"
        )


def check_data(
    what: str, model: Module, loader: Loader, normalize: Normalize | None, loss: Loss
) -> None:
    """Show one image to the model: what does not fit is said before anything else happens."""
    images, labels = loader.images[:1], loader.labels
    check_type(what, model, images)
    scaled = np.divide(images, 255, dtype=np.float32) if images.dtype == np.uint8 else images
    x = tensor(scaled, device_of(model))
    with testing(model), no_grad():
        logits = logits_of(model(x if normalize is None else normalize(x)))
    if labels.dtype.kind == "f":
        if loss is cross_entropy and labels.shape[1:] != logits.shape[1:]:
            raise DataError(
                f"{what}: labels are {labels.shape} of {labels.dtype}, but cross_entropy, the "
                "default, takes whole numbers, one an image; for a regression give a loss, such "
                "as loss=dk.ops.mse"
            )
        return
    highest = int(labels.max())
    if logits.ndim == 2 and 1 < logits.shape[1] <= highest:
        raise ValueError(
            f"{what}: labels go up to {highest} but the model has {logits.shape[1]} outputs   "
            f"(labels must be in 0..{logits.shape[1] - 1})"
        )
