"""A trained model again, from its checkpoint: the network, and the images as it wants them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import backends, checkpoint, models, random
from ..data import DataError
from ..data.resize import bilinear
from ..nn import Module
from ..spellings import explained
from .evaluate import Prediction, predict
from .normalize import Normalize

Shape = tuple[int, int, int]  # height, width, channels


@dataclass(frozen=True)
class Plan:
    """What a checkpoint has to say of a model so that it can be built and fed again."""

    model: str
    sizes: tuple[int, ...]  # what its function takes by place
    options: dict[str, Any]  # and by name
    shape: Shape  # of the images that it sees
    classes: tuple[str, ...]

    @classmethod
    def recorded(cls, saved: dict[str, Any]) -> Plan:
        """The plan that a checkpoint holds as plain values; ValueError if they are no plan."""
        sizes, shape, classes = (tuple(saved[name]) for name in ("sizes", "shape", "classes"))
        if not (
            len(shape) == 3
            and all(type(n) is int and n > 0 for n in (*sizes, *shape))
            and all(isinstance(name, str) for name in (saved["model"], *classes, *saved["options"]))
        ):
            raise ValueError("its plan of the model has wrong values")
        return cls(saved["model"], sizes, dict(saved["options"]), shape, classes)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return asdict(self)

    def build(self) -> Module:
        """A new model, on the device in force."""
        return models.get(self.model, *self.sizes, **self.options)


@contextmanager
def recorded(path: Any) -> Iterator[None]:
    """Around reading what a checkpoint says of its run: what is wrong there is one sentence."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        lacking = f"there is no {error}" if isinstance(error, KeyError) else error
        raise checkpoint.CheckpointError(
            f"{path} does not hold what 'deepkit train' records ({lacking}), so it cannot be used"
        ) from error


@dataclass
class Trained:
    """What `load_model` found: a model with its weights, in eval mode, and how it was fed.

    normalize: that of the training, for `predict` and `evaluate`; None if there was none.
    shape: (height, width, channels) of the images that it saw, and classes: the names of its
    outputs; both None for a run of `fit`, which does not know them.
    """

    model: Module
    normalize: Normalize | None = None
    shape: Shape | None = None
    classes: tuple[str, ...] | None = None

    def predict(self, images: ArrayLike, **options: Any) -> Prediction:
        """`dk.predict` of images as they are in their files, uint8 (N, H, W, C), brought to the
        size and the scale that the model was trained on.  DataError for other channels."""
        found = np.asarray(images)
        if self.shape is not None:
            if found.ndim != 4 or found.shape[3] != self.shape[2]:
                raise DataError(
                    f"predict: images of shape {found.shape} do not fit; (N, H, W, "
                    f"{self.shape[2]}) was expected   (one image is images[None])"
                )
            if found.shape[1:3] != self.shape[:2] and len(found):
                found = bilinear(found, self.shape[:2])
        return predict(self.model, found, normalize=self.normalize, **options)


@explained
def load_model(
    path: str | os.PathLike[str], model: Module | None = None, *, device: str | None = None
) -> Trained:
    """The trained model of a checkpoint or a run's folder, with its normalisation -> Trained.

        digits = dk.load_model("runs/digits")
        digits.predict(images).labels  # images uint8 (N, H, W, C), of any size

    A checkpoint of `deepkit train` says how its model is built. One of `fit`, whose model may be
    any module, does not: give a `model` built like it, which then gets the weights.
    device: where the model goes; without it, the device in force, or where a given model is.
    The random counters stay as they are. Raises CheckpointError.
    """
    loaded = checkpoint.load(path)
    record, training = (loaded.extra.get(name) for name in ("run", "training"))
    if model is None and record is None:
        raise checkpoint.CheckpointError(
            f"{loaded.path} does not say how its model is built, since 'deepkit train' did not "
            "write it; build the model and give it: load_model(path, model)"
        )
    before = random.get_state()
    try:
        with recorded(loaded.path), backends.device(device or backends.current().name):
            plan = None if record is None else Plan.recorded(record["plan"])
            scale = None if training is None else training["normalize"]
            normalize = None if scale is None else Normalize(**scale)
            if model is None and plan is not None:
                model = plan.build()
        assert model is not None
        loaded.restore(model)
    finally:
        random.set_state(before)
    if device is not None:
        model.to(device)
    model.eval()
    if plan is None:
        return Trained(model, normalize)
    return Trained(model, normalize, plan.shape, plan.classes)
