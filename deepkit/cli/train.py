"""`deepkit train`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..train.trained import Plan, recorded
from ..words import counted
from . import UsageError
from .build import check_model, choose_device, listed, load_data, shown
from .options import add_data, add_device, number, size, whole
from .recipes import RECIPES, settings_of
from .settings import (
    AUGMENTATIONS,
    GENTLE,
    RATES,
    SCHEDULES,
    UNIT,
    build_augmentation,
    build_loss,
    build_optimizer,
    build_schedule,
    check_recorded,
    complete,
)

if TYPE_CHECKING:
    from ..data import Dataset
    from ..nn import Module
    from ..train import RunFolder

DESCRIPTION = """Train a model, test it after each epoch, and leave a folder:
checkpoint.safetensors, metrics.csv, metrics.jsonl, run.json, learning_curves.png and
errors.png, the misclassified test images."""
EXAMPLES = (
    "deepkit train lenet5 --data digits --out runs/digits",
    "deepkit train lenet5 --data mnist --root data/mnist --device numba --epochs 12",
    "deepkit train --recipe mnist-99 --root data/mnist",
    "deepkit train --resume runs/digits/checkpoint.safetensors",
)

DEFAULTS: dict[str, Any] = {
    "recipe": None,
    "data": "digits",
    "root": None,
    "size": None,
    "epochs": 20,
    "batch_size": 64,
    "optimizer": "adamw",
    "lr": None,
    "momentum": None,
    "weight_decay": None,
    "schedule": "onecycle",
    "label_smoothing": 0.0,
    "augment": "none",
    "seed": 0,
    "device": "auto",
}
MAY_CHANGE = {"root", "epochs", "device"}  # when a run is resumed; the rest is what the run is


def _goals() -> str:
    goals = "; ".join(f"{name}: {recipe.goal}" for name, recipe in RECIPES.items())
    return goals.replace("%", "%%")  # argparse formats its help


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options are None unless given, so that a resumed run can tell."""
    from .. import models

    parser.add_argument("model", nargs="?", metavar="MODEL", help=", ".join(models.names()))
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help=f"settings that reach a goal; any option given here takes their place ({_goals()})",
    )
    add_data(parser, "digits, which deepkit brings along")
    parser.add_argument(
        "--size", type=size, metavar="H[,W]", help="resize all images to this height and width"
    )
    add_device(parser)
    parser.add_argument("--epochs", type=whole(1), metavar="N", help="passes over the data (20)")
    parser.add_argument("--batch-size", type=whole(1), metavar="B", help="images a step (64)")
    parser.add_argument("--optimizer", choices=tuple(RATES), help="(adamw)")
    rates = ", ".join(f"{name} {rate:g}" for name, rate in RATES.items())
    parser.add_argument(
        "--lr",
        type=number(above=0),
        metavar="R",
        help=f"the highest learning rate ({rates}; a tenth for {', '.join(GENTLE)})",
    )
    parser.add_argument("--momentum", type=number(least=0), metavar="M", help="sgd, rmsprop (0.9)")
    parser.add_argument(
        "--weight-decay", type=number(least=0), metavar="W", help="(adamw 0.01, others 0)"
    )
    parser.add_argument("--schedule", choices=SCHEDULES, help="of the learning rate (onecycle)")
    parser.add_argument(
        "--label-smoothing",
        type=number(least=0, most=1),
        metavar="S",
        help="share of each label that is spread over all classes (0)",
    )
    names = ", ".join(f"{name}:{default:g}" for name, (_, default) in AUGMENTATIONS.items())
    parser.add_argument(
        "--augment",
        metavar="LIST",
        help=f"random changes to training images, with commas: {names}; each number, in pixels, "
        "degrees or as a probability, may be left out (none)",
    )
    parser.add_argument("--seed", type=whole(0), metavar="S", help="of all random numbers (0)")
    parser.add_argument(
        "--out", metavar="DIR", help="the run's folder (runs/MODEL-DATA, or runs/RECIPE)"
    )
    parser.add_argument(
        "--resume",
        metavar="FILE",
        help="go on from this checkpoint, bit for bit, in its folder and with its options; with "
        "more --epochs only where the schedule is constant",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the run that is in the folder, once the first epoch is done",
    )
    parser.add_argument(
        "--no-capture", action="store_true", help="run every step eagerly: same numbers, slower"
    )
    parser.add_argument("--quiet", action="store_true", help="print only errors")


def run(arguments: argparse.Namespace) -> int:
    """Train; -> 0."""
    from .. import random
    from ..backends import device
    from ..train import Normalize, RunFolder, RunFolderError, fit

    resume = _checkpoint(arguments)
    earlier = None if resume is None else _earlier(resume)
    settings = _settings(arguments, resume, earlier)
    check_model(settings["model"])
    settings["device"], why = choose_device(settings["device"], arguments.quiet)
    folder = RunFolder(_out(arguments, settings, resume), overwrite=arguments.overwrite)
    try:
        folder.check(resume)
    except RunFolderError as error:
        if arguments.out is not None or resume is not None:
            raise
        named = "recipe" if settings["recipe"] else "model and the data set, of any kind"
        raise RunFolderError(f"{error}   (the default, after the {named})") from None
    augment = build_augmentation(settings["augment"])
    quiet = arguments.quiet
    if earlier is not None and settings["epochs"] <= earlier["epoch"] == folder.finished():
        if not quiet:
            print(f"nothing to do: {_done(folder.path, earlier)}")
        return 0

    train, test, plan, note = load_data(
        settings["data"], settings["root"], settings["model"], settings["size"], quiet
    )
    if earlier is not None:
        _check_classes(plan, train.name, earlier, resume)
    random.seed(settings["seed"])
    with device(settings["device"]):
        model = plan.build()
    optimizer = build_optimizer(model.parameters(), settings)
    batches = -(-len(train.images) // settings["batch_size"])
    normalize = Normalize.of(train.images)

    record = {"settings": settings, "plan": plan.as_dict()}
    folder.title = f"{settings['model']} on {train.name}"
    folder.classes = plan.classes
    folder.about = {"command": ["deepkit", *sys.argv[1:]], **record}
    if not quiet:
        _introduce(model, train, test, plan, note, settings, why, folder.path)
    try:
        history = fit(
            model,
            train,
            test,
            epochs=settings["epochs"],
            optimizer=optimizer,
            loss=build_loss(settings),
            batch_size=settings["batch_size"],
            schedule=build_schedule(optimizer, settings, batches),
            schedule_step=UNIT.get(settings["schedule"], "batch"),
            augment=augment,
            normalize=normalize,
            capture=not arguments.no_capture,
            progress=not quiet,
            seed=settings["seed"],
            out=folder,
            resume=resume,
            details={"run": record},
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_interrupted(folder)) from None
    hint = guessed(test.labels, history.last["errors"], settings["lr"])
    if hint and not quiet:
        print(hint)
    return 0


def guessed(labels: np.ndarray, errors: int, lr: float) -> str:
    """A hint where a model is no better than to name the most frequent class each time, within
    a standard deviation of what that gets on so many images; otherwise nothing."""
    total, most = len(labels), int(np.bincount(labels).max())
    if total - errors > most + (most * (1 - most / total)) ** 0.5 or most == total:
        return ""
    return (
        f"no better than guessing, which gets {most / total:.2%}: try a smaller --lr (it was "
        f"{lr:g}) or more --epochs"
    )


def _checkpoint(arguments: argparse.Namespace) -> Path | None:
    """The file from which to resume; a run's folder stands for the checkpoint in it."""
    from .. import checkpoint

    if arguments.resume is None:
        return None
    if arguments.overwrite:
        raise UsageError("--resume goes on with a run and --overwrite replaces it; choose one")
    return checkpoint.file_of(arguments.resume)


def _earlier(resume: Path) -> dict[str, Any]:
    """What the checkpoint of an earlier run records of it: its settings, its plan, its epochs."""
    from .. import checkpoint

    extra = checkpoint.load(resume).extra
    run = extra.get("run")
    if run is None:
        raise UsageError(f"--resume: {resume} was not written by 'deepkit train'")
    with recorded(resume):
        names = ("model", *DEFAULTS)
        settings = {name: run["settings"][name] for name in names}
        check_recorded(settings)
        epoch = len(extra["training"]["history"])
        return {"settings": settings, "plan": Plan.recorded(run["plan"]), "epoch": epoch}


def _check_classes(plan: Plan, name: str, earlier: dict[str, Any], resume: Path | None) -> None:
    """The data of a run may lie elsewhere when it goes on, but must be the same data."""
    classes = earlier["plan"].classes
    if plan.classes != classes:
        raise UsageError(
            f"{name} has {listed(plan.classes)}, but the run in {resume} learned "
            f"{listed(classes)}; --resume goes on with the same data"
        )


def _settings(
    arguments: argparse.Namespace, resume: Path | None, earlier: dict[str, Any] | None
) -> dict[str, Any]:
    """The options given, completed by those of the run to resume, or by the defaults."""
    names = ["model", *DEFAULTS]
    given = {k: getattr(arguments, k) for k in names if getattr(arguments, k) is not None}
    if earlier is None:
        recipe = settings_of(given["recipe"], given) if "recipe" in given else {}
        if "model" not in {**recipe, **given}:
            raise UsageError(
                "which model?   (deepkit train MODEL, such as lenet5; deepkit train --help)"
            )
        return complete({**DEFAULTS, **recipe, **given})

    earlier_run = earlier["settings"]
    for name, value in given.items():
        before = earlier_run[name]
        constant = earlier_run["schedule"] == "constant"
        fixed = name not in MAY_CHANGE or (name == "epochs" and not constant)
        if fixed and value != (tuple(before) if isinstance(before, list) else before):
            option = name if name == "model" else f"--{name.replace('_', '-')}"
            also = " and its schedule was made for them" if name == "epochs" else ""
            raise UsageError(
                f"{option} cannot be {value}: the run in {resume} has {before}{also}; "
                "leave it out, or start a new run"
            )
    return earlier_run | given


def _done(path: Path, earlier: dict[str, Any]) -> str:
    """That a run is at its end, and whether it can go on."""
    count, schedule = earlier["epoch"], earlier["settings"]["schedule"]
    on = "--epochs N goes on" if schedule == "constant" else f"its schedule, {schedule}, ends there"
    return f"the run in {path} has done all of its {counted(count, 'epoch')}; {on}"


def _out(arguments: argparse.Namespace, settings: dict[str, Any], resume: Path | None) -> Path:
    if arguments.out is not None:
        return Path(arguments.out)
    if resume is not None:
        return resume.parent
    if settings["recipe"] is not None:
        return Path("runs", settings["recipe"])
    return Path("runs", f"{settings['model']}-{Path(settings['data']).name.split('.')[0]}")


def _introduce(
    model: Module,
    train: Dataset,
    test: Dataset,
    plan: Plan,
    note: str,
    settings: dict[str, Any],
    why: str,
    out: Path,
) -> None:
    """What is about to happen, before it does."""
    parameters = sum(p.size for p in model.parameters())
    recipe = [settings["optimizer"], f"lr {settings['lr']:g}", settings["schedule"]]
    recipe += [f"momentum {settings['momentum']:g}"] if settings["momentum"] else []
    recipe += [f"weight decay {settings['weight_decay']:g}"] if settings["weight_decay"] else []
    smoothing = settings["label_smoothing"]
    recipe += [f"label smoothing {smoothing:g}"] if smoothing else []
    recipe += [f"batches of {settings['batch_size']}", f"augment {settings['augment']}"]
    print(f"model   {plan.model}, {parameters:,} parameters")
    print(
        f"data    {train.name}: {len(train.images):,} training and {len(test.images):,} test "
        f"images of {shown(plan.shape)}{note}, {_classes(train, plan)}"
    )
    print(f"device  {settings['device']}{f' ({why})' if why else ''}")
    name = f"{settings['recipe']}: " if settings["recipe"] else ""
    print(f"recipe  {name}{', '.join(recipe)}, seed {settings['seed']}")
    print(f"out     {out}", flush=True)


def _classes(train: Dataset, plan: Plan) -> str:
    """How many classes there are, and which have no image to learn from."""
    counts = np.bincount(train.labels, minlength=len(plan.classes))
    empty = [name for name, n in zip(plan.classes, counts, strict=True) if not n]
    without = f" (no training image of {', '.join(empty)})" if empty else ""
    return f"{counted(len(plan.classes), 'class')}{without}"


def _interrupted(folder: RunFolder) -> str:
    if folder.replaces:
        return f"interrupted before the end of an epoch; {folder.path} holds the earlier run still"
    if not folder.saved:
        return f"interrupted before the end of an epoch; {folder.path} holds no checkpoint"
    return (
        f"interrupted; {folder.path} holds the run up to epoch {folder.saved}; go on with: "
        f"deepkit train --resume {folder.path / 'checkpoint.safetensors'}"
    )
