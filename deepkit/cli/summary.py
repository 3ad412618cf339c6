"""`deepkit summary`."""

from __future__ import annotations

import argparse

from . import UsageError
from .build import check_model, plan_for
from .options import shape, whole

DESCRIPTION = """Show a model's layers: output shapes, parameters, connections, operations,
receptive fields, memory. Nothing is allocated or computed, however large the model."""
EXAMPLES = ("deepkit summary lenet5", "deepkit summary vgg16 --input 224,224,3 --classes 1000")

INPUTS = {"lenet1": (28, 28, 1), "lenet5": (28, 28, 1), "mlp": (28, 28, 1)}
SMALL = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")  # made for 32 x 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    from .. import models

    parser.add_argument("model", metavar="MODEL", help=", ".join(models.names()))
    parser.add_argument(
        "--input",
        type=shape,
        metavar="H,W,C",
        help="height, width and channels of an image (what the model's paper had)",
    )
    parser.add_argument(
        "--classes", type=whole(2), metavar="K", help="how many (what the model's paper had)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the table; -> 0."""
    from ..summary import summary

    name = arguments.model
    check_model(name)
    usual = (32, 32, 3) if name in SMALL else (227, 227, 3) if name == "alexnet" else (224, 224, 3)
    seen = arguments.input or INPUTS.get(name, usual)
    if len(seen) != 3:
        raise UsageError(f"--input: height, width and channels were expected, not {seen}")
    known = 10 if name in INPUTS or name in SMALL else 1000
    plan = plan_for(name, seen, count=arguments.classes or known)
    print(summary(plan.build(), seen))
    return 0
