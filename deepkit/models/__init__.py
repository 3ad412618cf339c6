"""Models, each of which reads like its paper's table; `get("lenet5")` finds one by its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..nn import Module
from ..spellings import our_name
from .alexnet import alexnet
from .googlenet import googlenet
from .lenet import lenet1, lenet5, lenet_bn
from .mlp import mlp
from .resnet import (
    resnet18,
    resnet20,
    resnet32,
    resnet34,
    resnet44,
    resnet50,
    resnet56,
    resnet101,
    resnet110,
    resnet152,
)
from .vgg import vgg11, vgg13, vgg16, vgg19

MODELS: dict[str, Callable[..., Module]] = {
    make.__name__: make
    for make in (
        mlp,
        lenet1,
        lenet5,
        lenet_bn,
        alexnet,
        vgg11,
        vgg13,
        vgg16,
        vgg19,
        googlenet,
        resnet18,
        resnet34,
        resnet50,
        resnet101,
        resnet152,
        resnet20,
        resnet32,
        resnet44,
        resnet56,
        resnet110,
    )
}

__all__ = [*MODELS, "MODELS", "get", "names"]


def __dir__() -> list[str]:
    return __all__


def names() -> list[str]:
    """The names that `get` knows."""
    return list(MODELS)


def get(name: str, *args: Any, **options: Any) -> Module:
    """A new model by its name: get("lenet5", classes=26).  ValueError, in one sentence, for a name
    or an option that does not exist."""
    make = MODELS.get(name)
    if make is None:
        raise ValueError(f"unknown model {name!r}   (known models: {', '.join(MODELS)})")
    parameters = inspect.signature(make).parameters
    for option in options:
        if option not in parameters or option == "sizes":
            known = [p for p in parameters if p != "sizes"]
            ours = our_name(option, known)
            hint = "" if ours is None else f"; it is {ours!r}"
            raise ValueError(
                f"model {name!r} has no option {option!r}{hint}   (it has: {', '.join(known)})"
            )
    return make(*args, **options)
