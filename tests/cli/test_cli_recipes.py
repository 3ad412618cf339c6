"""`deepkit train --recipe NAME`: what a recipe sets, what goes before it, what a run records."""

import json

import numpy as np
import pytest
from cli.commands import ran, refused

from deepkit import models
from deepkit.cli.recipes import RECIPES, Recipe
from deepkit.cli.train import DEFAULTS

TINY = Recipe(
    "the digits, nearly right, in no time",
    dict(model="mlp", epochs=1, batch_size=128, optimizer="sgd", lr=0.1, momentum=0.8),
)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(RECIPES, "digits-tiny", TINY)
    return ["train", "--recipe", "digits-tiny", "--device", "numpy"]


def settings(out):
    return json.loads((out / "run.json").read_text())["settings"]


def test_a_recipe_trains_and_is_recorded(capsys, tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    code, text, _ = ran(capsys, *tiny)
    assert code == 0
    assert "recipe  digits-tiny: sgd, lr 0.1" in text
    found = settings(tmp_path / "runs" / "digits-tiny")
    assert found["recipe"] == "digits-tiny"
    assert TINY.settings.items() <= found.items()
    assert found["schedule"] == DEFAULTS["schedule"]  # what a recipe leaves out


def test_options_go_before_the_recipe(capsys, tmp_path, tiny):
    options = ["--epochs", 2, "--lr", 0.2, "--batch-size", 256, "--label-smoothing", 0.1]
    assert ran(capsys, *tiny, *options, "--out", tmp_path / "a", "--quiet") == (0, "", "")
    found = settings(tmp_path / "a")
    assert (found["epochs"], found["lr"], found["batch_size"]) == (2, 0.2, 256)
    assert (found["label_smoothing"], found["momentum"], found["model"]) == (0.1, 0.8, "mlp")
    assert len((tmp_path / "a" / "metrics.jsonl").read_text().splitlines()) == 2


def test_another_model_and_other_data_go_before_the_recipe(capsys, tmp_path, tiny):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 28, 28, 1), np.uint8)
    np.savez(tmp_path / "noise.npz", images=images, labels=np.arange(60) % 3)
    more = ["--data", tmp_path / "noise.npz", "--out", tmp_path / "a"]
    code, text, _ = ran(capsys, tiny[0], "lenet1", *tiny[1:], *more)
    assert code == 0
    assert "model   lenet1" in text
    assert "of 28x28x1, 3 classes" in text


def test_the_numbers_of_a_recipe_are_of_its_optimizer(capsys, tmp_path, tiny):
    """A momentum is nothing to adamw, and a rate for sgd would be far too high for it."""
    assert ran(capsys, *tiny, "--optimizer", "adamw", "--out", tmp_path / "a", "--quiet")[0] == 0
    found = settings(tmp_path / "a")
    assert (found["lr"], found["momentum"], found["weight_decay"]) == (3e-3, None, 0.01)


def test_a_run_of_a_recipe_is_resumed_as_what_it_was(capsys, tmp_path, monkeypatch, tiny):
    assert ran(capsys, *tiny, "--out", tmp_path / "a", "--quiet")[0] == 0
    monkeypatch.delitem(RECIPES, "digits-tiny")  # as in a later version without it
    before = (tmp_path / "a" / "metrics.csv").read_text()
    assert ran(capsys, "train", "--resume", tmp_path / "a", "--quiet")[0] == 0
    assert (tmp_path / "a" / "metrics.csv").read_text() == before
    sentence = refused(capsys, "train", "--resume", tmp_path / "a", "--recipe", "mnist-99")
    assert "--recipe cannot be mnist-99" in sentence
    assert "has digits-tiny" in sentence


def test_help_lists_every_recipe_with_its_goal(capsys):
    _, text, _ = ran(capsys, "train", "--help")
    words = " ".join(text.split())
    assert all(f"{name}: {recipe.goal}" in words for name, recipe in RECIPES.items())


@pytest.mark.parametrize("name", RECIPES)
def test_what_ships_names_options_and_models_that_exist(name):
    found = RECIPES[name].settings
    assert found.keys() <= {"model", *DEFAULTS} - {"recipe", "root", "seed"}
    assert found["model"] in models.names()


@pytest.mark.parametrize("name", RECIPES)
def test_what_ships_trains_on_small_data(capsys, tmp_path, name):
    """An image of the size it is for, with a bright square at a place that tells the class."""
    rng = np.random.default_rng(1)
    labels = np.arange(480) % 10
    images = rng.integers(0, 80, (480, 28, 28, 1), np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(label, 4)
        image[9 * row : 9 * row + 7, 7 * column : 7 * column + 7] += 150
    np.savez(tmp_path / "squares.npz", images=images, labels=labels)
    more = ["--data", tmp_path / "squares.npz", "--device", "numpy", "--epochs", 8]
    code, _, _ = ran(capsys, "train", "--recipe", name, *more, "--out", tmp_path / "a")
    assert code == 0
    rows = [json.loads(x) for x in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["test_accuracy"] > 0.9
