"""What `fit` and `evaluate` were given: whether it is of the right kind, and belongs together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..nn import Module
from ..optim import Optimizer
from .callbacks import Callback, FunctionCallback

ADAM = "dk.optim.Adam(model.parameters(), lr=1e-3)"


def check_model(what: str, model: Any) -> None:
    """TypeError unless it is a module."""
    if not isinstance(model, Module):
        raise _wrong(what, "model", model, "a module", "dk.models.lenet5()")


def check_loss(what: str, loss: Any) -> None:
    """TypeError unless it is a function of an output and labels."""
    if isinstance(loss, type) or not callable(loss):
        raise _wrong(what, "loss", loss, "a function of (output, labels)", "dk.nn.MSELoss()")


def check_optimizer(model: Module, optimizer: Any, schedule: Any) -> None:
    """TypeError, or ValueError where they do not belong together: then nothing would be trained."""
    if isinstance(optimizer, type) or not (optimizer is None or hasattr(optimizer, "zero_grad")):
        raise _wrong("fit", "optimizer", optimizer, "an optimiser", ADAM)
    if isinstance(schedule, type) or not (schedule is None or hasattr(schedule, "step")):
        raise _wrong("fit", "schedule", schedule, "a schedule", "dk.optim.CosineLR(optimizer, 10)")
    if schedule is not None and getattr(schedule, "optimizer", optimizer) is not optimizer:
        given = "no optimizer" if optimizer is None else "another one"
        raise ValueError(
            f"fit: the schedule sets the learning rate of an optimizer, but {given} was given"
        )
    if isinstance(optimizer, Optimizer):
        own = {id(p) for p in model.parameters()}
        held = [p for group in optimizer.groups for p in group["params"]]
        if own.isdisjoint(map(id, held)):
            raise ValueError(
                f"fit: the optimizer holds {len(held)} parameters, but none of this model's "
                f"{len(own)}, which would not be trained; make it of them: {ADAM}"
            )


def callbacks_of(given: Any) -> list[Callback]:
    """A list of callbacks; TypeError for what is none."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise _wrong("fit", "callbacks", given, "a list", "[dk.train.EarlyStopping(3)]")
    found = []
    for callback in given:
        if isinstance(callback, type) or not (isinstance(callback, Callback) or callable(callback)):
            wanted = "a Callback or a function of the run"
            raise _wrong("fit", "a callback", callback, wanted, "dk.train.EarlyStopping(3)")
        found.append(callback if isinstance(callback, Callback) else FunctionCallback(callback))
    return found


def _wrong(what: str, name: str, value: Any, wanted: str, example: str) -> TypeError:
    if isinstance(value, type):
        given = f"the class {value.__name__} itself"
    else:
        given = repr(value) if isinstance(value, str) else f"of type {type(value).__name__}"
    return TypeError(f"{what}: {name} is {given}; {wanted} was expected, such as {example}")
