"""What an argument is called elsewhere and here: for the one sentence of a call that does not fit.

Nothing here runs in a call that fits.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Container
from typing import Any, NoReturn, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

# PyTorch's name, or NumPy's -> those that it may have here
OURS = {
    "dim": ("axis",),
    "keepdim": ("keepdims",),
    "axes": ("axis",),
    "kernel_size": ("size",),
    "in_channels": ("inp",),
    "in_features": ("inp",),
    "out_channels": ("out",),
    "out_features": ("out",),
    "num_features": ("channels", "features"),
    "normalized_shape": ("shape",),
    "start_dim": ("start",),
    "negative_slope": ("slope",),
    "input": ("x", "logits"),
    "weight": ("w",),
    "weights": ("w",),
    "min": ("low",),
    "max": ("high",),
    "p": ("rate", "probability"),
    "params": ("parameters",),
    "learning_rate": ("lr",),
    "num_classes": ("classes",),
    "dataset": ("data", "images"),
    "train_data": ("train",),
    "validation_data": ("test",),
}
WHY = {
    "lr": "an optimizer has it: optimizer=dk.optim.Adam(model.parameters(), lr=1e-3)",
    "inplace": "ops give new memory",
    "unbiased": "the divisor is n - correction",
}
EXAMPLES = {"lr": "lr=0.01"}  # for arguments that have no default

# attributes that are missing here -> what does it
ATTRIBUTES = {
    "numel": "size",
    "dim": "ndim",
    "view": "reshape(...)",
    "permute": "transpose(...)",
    "unsqueeze": "expand_dims(axis)",
    "repeat": "broadcast_to(...)",
    "t": "T",
    "mm": "x @ y",
    "matmul": "x @ y",
    "clamp": "clip(low, high)",
    "clone": "copy.deepcopy(x)",
    "copy_": "write(values)",
    "masked_fill": "dk.ops.where(mask, value, x)",
    "cuda": "to(device), one of dk.devices()",
    "cpu": "to('numpy'), or numpy() for an array",
    "float": "astype('float32')",
    "double": "astype('float64')",
    "int": "astype('int32')",
    "long": "astype('int64')",
    "zero_": "x.grad = None, or optimizer.zero_grad()",
    "append": "Sequential(*model, layer)",
    "extend": "Sequential(*model, *layers)",
}


def missing(owner: Any, name: str) -> NoReturn:
    """Raise the AttributeError of an attribute that is not there, with our name for it."""
    ours = f"; it is {ATTRIBUTES[name]} here" if name in ATTRIBUTES else ""
    raise AttributeError(
        f"'{type(owner).__name__}' object has no attribute '{name}'{ours}", name=name, obj=owner
    )


def refuse(name: str, function: Callable, args: tuple, options: dict[str, Any]) -> None:
    """Raise a sentence if `function` does not take these arguments; otherwise do nothing."""
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **options)
    except TypeError:
        kinds = signature.parameters.values()
        named = [p.name for p in kinds if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        placed = [p.name for p in kinds if p.kind is p.POSITIONAL_OR_KEYWORD]
        methodical = bool(named) and named[0] == "self"
        known = named[methodical:]
        for option in options:
            if option not in named and not any(p.kind is p.VAR_KEYWORD for p in kinds):
                _unknown(name, option, known)
        if len(args) > len(placed) and not any(p.kind is p.VAR_POSITIONAL for p in kinds):
            _too_many(name, placed[methodical:], known, len(args) - methodical)
        needed = [p.name for p in kinds if p.name in named and p.default is p.empty]
        lacking = [word for word in needed if word not in {*placed[: len(args)], *options}]
        if lacking:
            _lacking(name, lacking, known)


def our_name(option: str, known: Container[str]) -> str | None:
    """What an argument of PyTorch is called here, in a call that takes those of `known`."""
    return next((word for word in OURS.get(option, ()) if word in known), None)


def _unknown(name: str, option: str, known: list[str]) -> NoReturn:
    ours = our_name(option, known)
    if ours is not None:
        raise TypeError(f"{name}: there is no '{option}' here; it is '{ours}'") from None
    why = f"; {WHY[option]}" if option in WHY else ""
    has = ", ".join(known) or "nothing"
    raise TypeError(f"{name}: there is no '{option}' here{why}   (it takes: {has})") from None


def _too_many(name: str, placed: list[str], known: list[str], count: int) -> NoReturn:
    rest = [word for word in known if word not in placed]
    named = f"; by name: {', '.join(rest)}" if rest else ""
    raise TypeError(
        f"{name}: {count} arguments by place are too many   "
        f"(by place: {', '.join(placed) or 'none'}{named})"
    ) from None


def _lacking(name: str, lacking: list[str], known: list[str]) -> NoReturn:
    words = " and ".join(f"'{word}'" for word in lacking)
    verb = "is" if len(lacking) == 1 else "are"
    example = next((f", such as {EXAMPLES[word]}" for word in lacking if word in EXAMPLES), "")
    raise TypeError(
        f"{name}: {words} {verb} missing{example}   (it takes: {', '.join(known)})"
    ) from None


def explained(function: F) -> F:
    """A decorator: arguments that do not fit are answered by `refuse`."""
    name = function.__qualname__.removeprefix("Methods.")

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except TypeError:
            refuse(name, function, args, options)
            raise

    return cast(F, call)


def nothing(self: Any) -> None:
    """The signature of a class without arguments."""
