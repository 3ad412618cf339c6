"""Pictures: that they show what they should, by their pixels."""

import numpy as np
import pytest

from deepkit import plot
from deepkit.train import History

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")


def rows(count, **fixed):
    history = History()
    for e in range(1, count + 1):
        row = {
            "epoch": e,
            "train_loss": 1 / e,
            "train_accuracy": 1 - 0.5 / e,
            "test_loss": 1.2 / e,
            "test_accuracy": 1 - 0.6 / e,
            "lr": 0.1 / e,
        }
        history.append(**(row | fixed))
    return history


def colours(path):
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    return {tuple(c) for c in np.unique(pixels, axis=0)}


BLUE, ORANGE = (0, 0x72, 0xB2), (0xD5, 0x5E, 0)


def test_curves_show_both_parts(tmp_path):
    plot.learning_curves(rows(8), tmp_path / "a.png", "A model on data", subtitle="99 %")
    assert {BLUE, ORANGE} <= colours(tmp_path / "a.png")


@pytest.mark.parametrize(
    "fixed",
    [
        {"test_loss": None, "test_accuracy": None},
        {"test_loss": None, "test_accuracy": None, "train_accuracy": None},
    ],
)
def test_curves_without_a_test_show_training_alone(tmp_path, fixed):
    plot.learning_curves(rows(3, **fixed), tmp_path / "a.png", "A model")
    found = colours(tmp_path / "a.png")
    assert BLUE in found
    assert ORANGE not in found


@pytest.mark.parametrize(
    "fixed",
    [{"test_accuracy": 1.0}, {"train_accuracy": 1.0, "test_accuracy": 1.0}, {"train_loss": 0.0}],
)
def test_curves_survive_a_faultless_run_and_a_single_epoch(tmp_path, fixed):
    plot.learning_curves(rows(1, **fixed), tmp_path / "a.png", "A model")
    plot.learning_curves(rows(50, **fixed), tmp_path / "b.png", "A model")


def shown(path, values):
    """How many pixels of the picture have each of these grey values or colours."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    return [int((pixels == np.array(v)).all(axis=2).sum()) for v in values]


def test_the_sheet_shows_the_wrong_images_and_only_those(tmp_path):
    images = np.zeros((6, 4, 4, 3), np.uint8)
    tones = [(20 + 30 * i, 90, 10 + i) for i in range(6)]
    images[...] = np.array(tones)[:, None, None]
    labels = np.array([0, 1, 2, 0, 1, 2])
    predictions = np.array([0, 2, 2, 1, 1, 0])
    plot.contact_sheet(images, labels, predictions, tmp_path / "e.png", "Errors")
    area = (4 * 24) ** 2  # 96 / 4 pixels a pixel
    assert shown(tmp_path / "e.png", tones) == [0, area, 0, area, 0, area]


def test_the_surest_errors_come_first(tmp_path):
    images = np.zeros((3, 8, 8, 1), np.uint8)
    images[...] = np.array([100, 150, 200])[:, None, None, None]
    sure = np.array([0.5, 0.9, 0.7])
    wrong, right = np.array([1, 1, 1]), np.array([0, 0, 0])
    plot.contact_sheet(images, right, wrong, tmp_path / "e.png", "Errors", confidences=sure)
    with Image.open(tmp_path / "e.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    first = [np.flatnonzero((pixels == v).sum(axis=0) > 90)[0] for v in (150, 200, 100)]
    assert first == sorted(first)


def test_a_sheet_holds_at_most_a_hundred(tmp_path):
    images = np.full((300, 2, 2, 1), 77, np.uint8)
    zeros, ones = np.zeros(300, int), np.ones(300, int)
    plot.contact_sheet(images, zeros, ones, tmp_path / "e.png", "Errors")
    assert shown(tmp_path / "e.png", [(77, 77, 77)]) == [100 * 96**2]


def test_a_sheet_without_errors_says_so(tmp_path):
    labels = np.zeros(5, int)
    plot.contact_sheet(np.zeros((5, 8, 8, 1)), labels, labels, tmp_path / "e.png", "Errors")
    with Image.open(tmp_path / "e.png") as picture:
        assert picture.height < 200


def test_names_of_any_alphabet_and_float_images_are_drawn(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((4, 9, 5, 2)).astype(np.float32)
    plot.contact_sheet(
        images,
        np.array([0, 1, 0, 1]),
        np.array([1, 0, 1, 0]),
        tmp_path / "e.png",
        "Errors",
        classes=("Ёлка", "île à vélo"),
    )
    with Image.open(tmp_path / "e.png") as picture:
        assert picture.width > 4 * 60
