"""Recipes: settings that reach a named goal, for `deepkit train --recipe NAME`.

A recipe is data. Its settings are the options of `deepkit train` under their long names; what it
leaves out has the usual default, and an option on the command line goes before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import UsageError, did_you_mean


@dataclass(frozen=True)
class Recipe:
    """What it reaches, in one line for `--help`, and how."""

    goal: str
    settings: dict[str, Any]


RECIPES = {
    "mnist-99": Recipe(
        "99 % of MNIST's test images right after one epoch",
        dict(
            model="lenet_bn",
            data="mnist",
            epochs=1,
            batch_size=96,  # divides 60,000, so that all steps are of one size
            optimizer="adamw",
            lr=0.04,
            schedule="onecycle",
            label_smoothing=0.1,
        ),
    ),
}

OF_OPTIMIZER = ("lr", "momentum", "weight_decay")  # numbers that mean nothing to another one


def settings_of(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a recipe that hold beside the options given."""
    if name not in RECIPES:
        hint = did_you_mean(name, list(RECIPES))
        raise UsageError(f"unknown recipe '{name}'{hint}   (recipes: {', '.join(RECIPES)})")
    settings = RECIPES[name].settings
    if given.get("optimizer", settings["optimizer"]) == settings["optimizer"]:
        return settings
    return {k: v for k, v in settings.items() if k not in OF_OPTIMIZER}
