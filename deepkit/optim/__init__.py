"""Optimisers, schedules of their learning rate, and clipping of gradients."""

from .base import Optimizer
from .clip import clip_grad_norm, clip_grad_value
from .optimizers import SGD, Adagrad, Adam, AdamW, RMSprop
from .schedules import CosineLR, LinearWarmup, MultiStepLR, OneCycleLR, Schedule, StepLR

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "CosineLR",
    "LinearWarmup",
    "MultiStepLR",
    "OneCycleLR",
    "Optimizer",
    "RMSprop",
    "Schedule",
    "StepLR",
    "clip_grad_norm",
    "clip_grad_value",
]


def __dir__() -> list[str]:
    return __all__
