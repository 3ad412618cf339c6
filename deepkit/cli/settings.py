"""How settings become an optimiser, a schedule, a loss and an augmentation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import UsageError, did_you_mean

RATES = {"sgd": 0.05, "adam": 3e-3, "adamw": 3e-3, "rmsprop": 1e-3, "adagrad": 1e-2}
GENTLE = ("alexnet", "vgg11", "vgg13", "vgg16", "vgg19", "googlenet")  # deep, without batch norm
WITH_MOMENTUM = ("sgd", "rmsprop")
UNIT = {"step": "epoch"}  # what a schedule counts, where it is not batches
SCHEDULES = ("constant", "cosine", "onecycle", "step")
AUGMENTATIONS = {  # name -> (what its number means, its default)
    "shift": ("pixels", 2),
    "crop": ("pixels of padding", 4),
    "flip": ("probability", 0.5),
    "rotate": ("degrees", 10),
    "elastic": ("strength in pixels", 34),
}


def usual_rate(optimizer: str, model: str) -> float:
    """The highest learning rate where none is given: a tenth for nets in which a rate that suits
    the others leaves every image looking the same."""
    return RATES[optimizer] / 10 if model in GENTLE else RATES[optimizer]


def complete(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with the numbers that depend on the optimiser and the model."""
    name = settings["optimizer"]
    if settings["momentum"] is not None and name not in WITH_MOMENTUM:
        raise UsageError(f"--momentum is for {' and '.join(WITH_MOMENTUM)}, not for {name}")
    usual = {
        "lr": usual_rate(name, settings["model"]),
        "momentum": 0.9 if name in WITH_MOMENTUM else None,
        "weight_decay": 0.01 if name == "adamw" else 0.0,
    }
    return settings | {k: v for k, v in usual.items() if settings[k] is None}


def _count(value: Any, least: int = 1) -> bool:
    return type(value) is int and least <= value < 2**63


def _number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < float("inf")


RECORDED: dict[str, Callable[[Any], bool]] = {  # what a checkpoint may say of a setting
    "model": lambda v: isinstance(v, str),
    "data": lambda v: isinstance(v, str),
    "root": lambda v: v is None or isinstance(v, str),
    "size": lambda v: v is None or (isinstance(v, list) and len(v) == 2 and all(map(_count, v))),
    "epochs": _count,
    "batch_size": _count,
    "optimizer": lambda v: isinstance(v, str) and v in RATES,
    "lr": lambda v: _number(v) and v > 0,
    "momentum": lambda v: v is None or _number(v),
    "weight_decay": _number,
    "schedule": lambda v: v in SCHEDULES,
    "augment": lambda v: isinstance(v, str),
    "label_smoothing": lambda v: _number(v) and v < 1,
    "seed": lambda v: _count(v, least=0),
    "device": lambda v: isinstance(v, str),
}


def check_recorded(settings: dict[str, Any]) -> None:
    """ValueError for settings of a checkpoint that no command line could have given."""
    for name, good in RECORDED.items():
        if not good(settings[name]):
            raise ValueError(f"its {name} is {settings[name]!r}")
    try:
        complete(settings)
        build_augmentation(settings["augment"])
    except UsageError as error:
        raise ValueError(str(error)) from error


def build_optimizer(params: Any, settings: dict[str, Any]) -> Any:
    """The optimiser that complete settings name, over these parameters."""
    from .. import optim

    kinds = {
        "sgd": optim.SGD,
        "adam": optim.Adam,
        "adamw": optim.AdamW,
        "rmsprop": optim.RMSprop,
        "adagrad": optim.Adagrad,
    }
    own = {"lr": settings["lr"], "weight_decay": settings["weight_decay"]}
    if settings["momentum"] is not None:
        own["momentum"] = settings["momentum"]
    return kinds[settings["optimizer"]](params, **own)


def build_schedule(optimizer: Any, settings: dict[str, Any], batches: int) -> Any:
    """The schedule that settings name, for epochs of so many batches; None for a constant rate.

    All schedules but "step", which counts epochs, are counted in batches.
    """
    from .. import optim

    name, epochs = settings["schedule"], settings["epochs"]
    if name == "cosine":
        return optim.CosineLR(optimizer, epochs * batches)
    if name == "onecycle":
        return optim.OneCycleLR(optimizer, settings["lr"], epochs * batches)
    if name == "step":
        return optim.StepLR(optimizer, max(1, -(-epochs // 3)), gamma=0.1)
    return None


def build_loss(settings: dict[str, Any]) -> Any:
    """Cross-entropy, with smoothed labels where settings say so."""
    from .. import nn, ops

    smoothing = settings["label_smoothing"]
    return nn.CrossEntropyLoss(label_smoothing=smoothing) if smoothing else ops.cross_entropy


def build_augmentation(text: str) -> Any:
    """`shift,rotate:15` -> one augmentation for the Loader; `none` -> None."""
    from ..data import augment

    makers: dict[str, Callable[[float], Any]] = {
        "shift": lambda n: augment.random_shift(_whole(n)),
        "crop": lambda n: augment.random_crop(_whole(n)),
        "flip": augment.random_flip,
        "rotate": augment.random_rotate,
        "elastic": lambda n: augment.elastic(n, sigma=4),
    }
    if text == "none":
        return None
    parts = []
    for word in text.split(","):
        name, _, number = word.partition(":")
        if name not in makers:
            hint = did_you_mean(name, list(makers))
            raise UsageError(
                f"unknown augmentation '{name}'{hint}   (there are: {', '.join(makers)})"
            )
        meaning, default = AUGMENTATIONS[name]
        try:
            parts.append(makers[name](float(number or default)))
        except ValueError as error:
            problem = (
                str(error) if "augment" in str(error) else f"a number ({meaning}) was expected"
            )
            raise UsageError(f"--augment {word}: {problem}") from None
    return augment.compose(*parts)


def _whole(number: float) -> Any:
    """2.0 -> 2; any other number stays, for the augmentation to refuse."""
    return int(number) if number.is_integer() else number
