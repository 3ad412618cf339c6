"""From names to things: the device, a model that fits the data, and data that fit the model."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..train.trained import Plan, Shape
from ..words import counted
from . import UsageError, did_you_mean

if TYPE_CHECKING:
    from ..data import Dataset

HIDDEN = (256, 128)  # of the mlp
MOST_BYTES = 2**31  # that enlarged images may take
IMAGENET = ("alexnet", "googlenet", "vgg", "resnet18", "resnet34", "resnet50", "resnet101")


def check_model(name: str) -> None:
    """Raise a sentence for a model that does not exist."""
    from .. import models

    known = models.names()
    if name not in known:
        hint = did_you_mean(name, known)
        raise UsageError(f"unknown model '{name}'{hint}   (models: {', '.join(known)})")


def plan_for(
    name: str, shape: Shape, classes: tuple[str, ...] = (), count: int | None = None
) -> Plan:
    """The model of that name for images of this shape, which it may want in another size.

    count: how many classes there are, where their names do not matter.
    """
    from .. import models

    check_model(name)
    height, width, channels = shape
    count = len(classes) if count is None else count
    if name == "mlp":
        return Plan(name, (height * width * channels, *HIDDEN, count), {}, shape, classes)
    side = _side(name, height, width)
    parameters = inspect.signature(models.MODELS[name]).parameters
    options: dict[str, Any] = {"classes": count}
    options |= {"channels": channels} if "channels" in parameters else {}
    options |= {"size": side} if side is not None and "size" in parameters else {}
    seen = shape if side is None else (side, side, channels)
    return Plan(name, (), options, seen, classes)


def _side(name: str, height: int, width: int) -> int | None:
    """The height and width that a model wants for such images; None takes them as they are."""
    largest, least = max(height, width), min(height, width)
    if name in ("lenet5", "lenet_bn"):
        return 32 if height == width == 32 else 28
    if name == "lenet1":
        return 28
    if name == "alexnet":
        return 227
    if name.startswith("vgg"):
        return max(1, -(-largest // 32)) * 32
    if name.startswith(IMAGENET):  # they halve five times
        return 32 if least < 32 else None
    return None


def load_data(
    data: str, root: str | None, model: str, size: tuple[int, int] | None, quiet: bool
) -> tuple[Dataset, Dataset, Plan, str]:
    """The training and the test part of a data set, the plan of a model that fits both, and what
    a person should know of how they were brought together."""
    check_model(model)
    if data == "digits" and root is not None:
        raise UsageError("--root has no effect: the digits come with deepkit")
    with _reading(data, quiet):
        train, test = (_load(data, root, part, size) for part in ("train", "test"))
        if train.images.shape[1:] != test.images.shape[1:]:
            raise UsageError(
                f"{train.name}: training images are {shown(train.images.shape[1:])} but test "
                f"images {shown(test.images.shape[1:])}; --size H,W makes them one size"
            )
        plan = plan_for(model, train.images.shape[1:], _all_classes(train, test))
        if size is not None and plan.shape[:2] != tuple(size):
            raise UsageError(
                f"--size: {model} does not take images of {shown(size)}; the nearest that it takes "
                f"are of {shown(plan.shape[:2])}"
            )
        note = "" if size is None else f" (as --size {size[0]},{size[1]} wants)"
        if train.images.shape[1:3] != plan.shape[:2]:
            note = f" (resized from {shown(train.images.shape[1:3])})"
        train, test = (
            _sized(part, plan, data, root, split)
            for part, split in ((train, "train"), (test, "test"))
        )
        return train, test, plan, note


def load_for(
    plan: Plan, data: str, root: str | None, split: str | None, quiet: bool
) -> tuple[Dataset, str]:
    """A part of a data set as a model that is already trained wants to see it, and what a person
    should know of that. Its labels are indices into the model's classes."""
    from ..data import DataError

    with _reading(data, quiet):
        try:
            found = _load(data, root, split, None)
            note = f" (resized from {shown(found.images.shape[1:3])})"
        except DataError:  # such as images of several sizes
            note = " (resized)"
            found = _load(data, root, split, plan.shape[:2])
        else:
            if found.images.shape[1:3] == plan.shape[:2]:
                note = ""
            else:
                found = _sized(found, plan, data, root, split)
    if found.images.shape[3] != plan.shape[2]:
        has = counted(found.images.shape[3], "channel")
        raise UsageError(
            f"{found.name}: images have {has} but the checkpoint's "
            f"{plan.model} sees {shown(plan.shape)}"
        )
    matched, remark = _matched(found, plan)
    return matched, note + remark


def _matched(found: Dataset, plan: Plan) -> tuple[Dataset, str]:
    """The same images with labels that index the model's classes.

    Classes are matched by name, in any order; data may lack some. Labels that are mere numbers, as
    those of an npz file without `classes`, are matched by number.
    """
    from ..data import Dataset

    remark = ""
    present = [int(label) for label in np.unique(found.labels)]
    named = [found.classes[label] for label in present]
    if all(
        found.classes[label : label + 1] == plan.classes[label : label + 1] for label in present
    ):
        labels = found.labels
    elif set(named) <= set(plan.classes):
        index = np.zeros(len(found.classes), np.int64)
        index[present] = [plan.classes.index(name) for name in named]
        labels = index[found.labels]
    elif _are_numbers(found) and present[-1] < len(plan.classes):
        labels = found.labels
        remark = f"; labels without names, matched by number: {listed(plan.classes)}"
    else:
        raise UsageError(
            f"{found.name} has classes that the model does not know: the data have "
            f"{listed(found.classes)}; the model was trained on {listed(plan.classes)}"
        )
    return Dataset(found.images, labels, plan.classes, found.name), remark


def _are_numbers(found: Dataset) -> bool:
    """Whether its classes have no names; to the sets of digits, the numbers are names."""
    numbers = tuple(map(str, range(len(found.classes))))
    return found.classes == numbers and found.name not in ("digits", "mnist")


def listed(classes: tuple[str, ...], most: int = 12) -> str:
    """('ant', 'bee') as "2 classes (ant, bee)"; of many, the first; of numbers, the ends."""
    names = ", ".join(classes[:most]) + (", ..." if len(classes) > most else "")
    if len(classes) > 2 and classes == tuple(map(str, range(len(classes)))):
        names = f"0 to {len(classes) - 1}"
    return f"{counted(len(classes), 'class')} ({names})"


def shown(shape: tuple[int, ...]) -> str:
    """(28, 28, 1) as 28x28x1."""
    return "x".join(map(str, shape))


@contextmanager
def _reading(data: str, quiet: bool) -> Iterator[None]:
    """Around reading data: what is doubtful about them is said once, also to a quiet run."""
    from ..data import DataWarning
    from ..train.progress import waiting

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        with waiting(f"reading {data} ...", not quiet):
            yield
    for text in dict.fromkeys(str(w.message) for w in caught if w.category is DataWarning):
        print(f"warning: {text}", file=sys.stderr)
    for other in caught:
        if other.category is not DataWarning:
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)


def _load(data: str, root: str | None, split: str | None, size: Any) -> Dataset:
    from ..data import Dataset, load

    found = load(data, root, split, size=size)
    if found.images.dtype == np.uint8:
        return found
    with np.errstate(over="ignore"):
        images = found.images.astype(np.float32)
    if not np.isfinite(images).all():
        raise UsageError(f"{found.name}: images hold values beyond the range of float32")
    return Dataset(images, found.labels, found.classes, found.name)


def _sized(found: Dataset, plan: Plan, data: str, root: str | None, split: str | None) -> Dataset:
    """The same data in the size that the model wants."""
    if found.images.shape[1:3] == plan.shape[:2]:
        return found
    needed = len(found.images) * int(np.prod(plan.shape)) * found.images.itemsize
    if needed > MOST_BYTES:
        raise UsageError(
            f"{plan.model} sees images of {shown(plan.shape[:2])}; the {len(found.images):,} of "
            f"{found.name} would take {needed / 2**30:.1f} GiB in that size; choose another model"
        )
    return _load(data, root, split, plan.shape[:2])


def _all_classes(train: Dataset, test: Dataset) -> tuple[str, ...]:
    """The classes of both parts; where only labels tell, a part may lack the last ones."""
    longer, shorter = sorted((train.classes, test.classes), key=len, reverse=True)
    if longer[: len(shorter)] != shorter:
        only = sorted(set(longer) ^ set(shorter))
        raise UsageError(
            f"{train.name}: class '{only[0]}' is in only one of the training and the test part"
            if only
            else f"{train.name}: training and test part have their classes in different orders"
        )
    return longer


# devices ------------------------------------------------------------------------------------------


def choose_device(name: str, quiet: bool) -> tuple[str, str]:
    """The device to use, and a few words on why it is that one."""
    from .. import backends
    from ..train.progress import waiting

    with waiting("loading the backend ...", not quiet):
        chosen = backends.get(name).name
        if name != "auto":
            return chosen, ""
        better = backends.PREFERENCE[: backends.PREFERENCE.index(chosen)]
        reasons = [f"; {other}: {backends.why_not(other)}" for other in better]
    return chosen, f"chosen by auto{''.join(reasons)}"
