"""Classes of data and of a model are matched by name, whatever their order and number."""

import numpy as np
import pytest
from cli.commands import FAST, ran, refused

from deepkit import checkpoint, plot
from deepkit.cli import UsageError
from deepkit.cli.build import Plan, load_for

Image = pytest.importorskip("PIL.Image")

TONES = {"brick": (200, 60, 40), "leaf": (40, 180, 60), "sky": (60, 90, 220)}


def folder(path, names, count=12):
    """Images of one tone a class: a model learns these without an error."""
    rng = np.random.default_rng(len(names))
    for name in names:
        (path / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.array(TONES[name]) + rng.integers(-20, 20, (8, 8, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(path / name / f"{i}.png")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model that knows bricks, leaves and skies."""
    where = tmp_path_factory.mktemp("classes")
    own = folder(where / "own", TONES)
    from deepkit.cli import main

    options = [*FAST, "--epochs", "12", "--quiet", "--data", str(own), "--out", str(where / "run")]
    assert main(["train", "mlp", *options]) == 0
    return where / "run"


def results(text):
    return text.splitlines()[-1].partition("accuracy ")[2]


@pytest.mark.parametrize("names", [("leaf", "sky"), ("sky",), tuple(TONES)])
def test_a_subset_in_a_folder_is_matched_by_name(capsys, run, tmp_path, names):
    sub = folder(tmp_path / "sub", names)
    code, out, _ = ran(capsys, "eval", run, "--data", sub, "--split", "all", "--device", "numpy")
    assert code == 0
    assert results(out) == f"100.00%, 0 errors of {12 * len(names)}"


def arrays(path, order, shift=0, **more):
    """An npz of the classes in that order -> its path."""
    labels = np.arange(30) % len(order)
    tones = np.array([TONES[name] for name in order], np.uint8)[labels]
    images = np.broadcast_to(tones[:, None, None], (30, 8, 8, 3))
    np.savez(path, images=images, labels=labels + shift, **more)
    return path


def test_another_order_is_matched_by_name(capsys, run, tmp_path):
    order = ["sky", "brick", "leaf"]
    data = arrays(tmp_path / "other.npz", order, classes=order)
    code, out, _ = ran(capsys, "eval", run, "--data", data, "--device", "numpy")
    assert code == 0
    assert results(out) == "100.00%, 0 errors of 6"


def test_labels_without_names_are_matched_by_number(capsys, run, tmp_path):
    data = arrays(tmp_path / "bare.npz", ["leaf", "sky"], shift=1)
    code, out, _ = ran(capsys, "eval", run, "--data", data, "--device", "numpy")
    assert code == 0
    assert "matched by number" in out
    assert results(out) == "100.00%, 0 errors of 6"


@pytest.mark.parametrize("classes", [["leaf", "moss"], ["Leaf", "Sky"]])
def test_unknown_names_are_one_sentence_with_both_sets(capsys, run, tmp_path, classes):
    data = arrays(tmp_path / "new.npz", ["leaf", "sky"], classes=classes)
    sentence = refused(capsys, "eval", run, "--data", data)
    assert f"2 classes ({', '.join(classes)})" in sentence
    assert "3 classes (brick, leaf, sky)" in sentence


def test_digits_are_not_garments(capsys, run):
    record = checkpoint.load(run / "checkpoint.safetensors").extra["run"]["plan"]
    plan = Plan.recorded({**record, "shape": (8, 8, 1), "classes": tuple("abcdefghij")})
    with pytest.raises(UsageError, match="10 classes"):
        load_for(plan, "digits", None, "test", quiet=True)


def test_captions_name_the_true_class_of_the_data(capsys, run, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        plot,
        "contact_sheet",
        lambda images, labels, found, path, title, **k: seen.update(
            true=[k["classes"][i] for i in labels]
        ),
    )
    sub = folder(tmp_path / "sub", ("leaf", "sky"), count=3)
    more = ["--split", "all", "--errors", tmp_path / "e.png", "--device", "numpy"]
    assert ran(capsys, "eval", run, "--data", sub, *more)[0] == 0
    assert seen["true"] == ["leaf"] * 3 + ["sky"] * 3


def test_a_run_goes_on_with_its_own_classes_only(capsys, run, tmp_path):
    own = folder(tmp_path / "own", TONES)
    options = [*FAST, "--epochs", 1, "--schedule", "constant", "--quiet"]
    assert ran(capsys, "train", "mlp", *options, "--data", own, "--out", tmp_path / "r")[0] == 0
    (own / "brick").rename(own / "wall")
    sentence = refused(capsys, "train", "--resume", tmp_path / "r", "--epochs", 2)
    assert "(leaf, sky, wall)" in sentence
    assert "(brick, leaf, sky)" in sentence
