"""`deepkit eval`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..train.trained import Plan, recorded
from ..words import counted
from . import UsageError
from .build import choose_device, load_for, shown
from .options import add_data, add_device, whole
from .settings import check_recorded

DESCRIPTION = "Test a checkpoint that `deepkit train` wrote: mean loss, accuracy, errors."
EXAMPLES = (
    "deepkit eval runs/digits/checkpoint.safetensors",
    "deepkit eval runs/mnist --data mnist --root data/mnist --device numba --errors errors.png",
)
SPLITS = {"train": "train", "test": "test", "all": None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the file, or its run's folder")
    add_data(parser, "that of the training")
    parser.add_argument("--split", choices=tuple(SPLITS), default="test", help="which part (test)")
    add_device(parser)
    parser.add_argument("--batch-size", type=whole(1), default=128, metavar="B", help="(128)")
    parser.add_argument(
        "--errors", metavar="PNG", help="also draw the misclassified images into this file"
    )
    parser.add_argument("--quiet", action="store_true", help="print the one line of results only")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate; -> 0."""
    from .. import checkpoint
    from ..backends import device
    from ..train import Normalize, evaluate

    loaded = checkpoint.load(arguments.checkpoint)
    record = loaded.extra.get("run")
    if record is None:
        raise UsageError(
            f"{loaded.path} was not written by 'deepkit train', so its model is unknown; in "
            "Python, dk.load_model(path, model) gives a model like it these weights"
        )
    with recorded(loaded.path):
        plan, settings = Plan.recorded(record["plan"]), record["settings"]
        check_recorded(settings)
        used, where = settings["data"], settings["root"]
        training = loaded.extra["training"]
        normalize, epoch = Normalize(**training["normalize"]), len(training["history"])
    _check_picture(arguments.errors)
    name, why = choose_device(arguments.device or "auto", arguments.quiet)
    root = arguments.root or (where if arguments.data is None else None)
    split = SPLITS[arguments.split]
    data, note = load_for(plan, arguments.data or used, root, split, arguments.quiet)
    with device(name), recorded(loaded.path):
        model = plan.build()
    loaded.restore(model)
    if not arguments.quiet:
        print(f"model   {plan.model}, epoch {epoch}")
        images = f"{counted(len(data.images), 'image')} of {shown(plan.shape)}"
        print(f"data    {data.name}: {images}{note}")
        print(f"device  {name}{f' ({why})' if why else ''}", flush=True)
    found = evaluate(
        model,
        (data.images, data.labels),
        batch_size=arguments.batch_size,
        normalize=normalize,
        predictions=arguments.errors is not None,
        progress=not arguments.quiet,
    )
    assert found.errors is not None  # these models classify
    print(
        f"loss {found.loss:.5f}, accuracy {found.accuracy:.2%}, "
        f"{counted(found.errors, 'error')} of {found.total:,}"
    )
    if arguments.errors is not None:
        _draw(arguments.errors, data, plan, found)
    return 0


def _check_picture(path: str | None) -> None:
    if path is None:
        return
    from .. import plot

    lacking = plot.missing()
    if lacking:
        raise UsageError(
            f"--errors needs {' and '.join(lacking)} (pip install {' '.join(lacking)})"
        )
    if Path(path).suffix.lower() != ".png":
        raise UsageError(f"--errors: a file name that ends in .png was expected, not {path}")
    if not Path(path).absolute().parent.is_dir():
        raise UsageError(f"--errors: there is no folder {Path(path).parent} for {path}")
    if Path(path).exists():
        raise UsageError(f"--errors: {path} exists already; name another file")


def _draw(path: str, data: Any, plan: Plan, found: Any) -> None:
    from .. import plot

    plot.contact_sheet(
        data.images,
        data.labels,
        found.predictions,
        path,
        f"{plan.model} on {data.name}: misclassified images",
        classes=plan.classes,
        confidences=found.confidences,
    )
