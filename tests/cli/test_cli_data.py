"""The command line with other people's data, good and bad."""

import gzip
import warnings

import numpy as np
import pytest
from cli.commands import FAST, ran, refused, train

from deepkit.data import DataWarning, load


def npz(path, images, labels):
    np.savez(path, images=images, labels=labels)
    return path


def test_bad_data_are_one_sentence_and_leave_no_folder(capsys, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.random((40, 8, 8, 1)).astype(np.float32)
    labels = np.arange(40) % 4
    broken = images.copy()
    broken[3, 1, 1] = np.nan
    bad = {
        npz(tmp_path / "nan.npz", broken, labels): "NaN",
        npz(tmp_path / "below.npz", images, labels - 1): "-1",
        npz(tmp_path / "empty.npz", images[:0], labels[:0]): "empty",
        npz(tmp_path / "few.npz", images[:7], labels): "40",
    }
    cut = tmp_path / "cut.npz"
    cut.write_bytes((tmp_path / "nan.npz").read_bytes()[:500])
    bad[cut] = "cut.npz"
    idx = tmp_path / "idx"
    idx.mkdir()
    (idx / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x03" + b"\x7f" * 12))
    bad[idx] = "idx"
    for data, part in bad.items():
        out = tmp_path / "out"
        assert part in refused(capsys, "train", "mlp", *FAST, "--data", data, "--out", out)
        assert not out.exists()


def test_any_images_train_the_models_that_can_take_them(capsys, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 12, 9, 3), np.uint8)
    data = npz(tmp_path / "d.npz", images, np.arange(60) % 3)
    for model, seen in (
        ("lenet5", "28x28x3 (resized from 12x9)"),
        ("resnet20", "12x9x3"),
        ("mlp", "12x9x3"),
    ):
        arguments = [*FAST, "--epochs", 1, "--data", data, "--out", tmp_path / model]
        code, out, _ = ran(capsys, "train", model, *arguments)
        assert code == 0
        assert f"of {seen}, 3 classes" in out
        code, out, _ = ran(capsys, "eval", tmp_path / model, "--device", "numpy")
        assert code == 0
        assert f"images of {seen}\n" in out


@pytest.mark.parametrize(
    ("model", "size", "nearest"),
    [("lenet5", "10", "28x28"), ("lenet1", "32", "28x28"), ("vgg11", "16", "32x32")],
)
def test_a_size_that_the_model_cannot_take_is_refused(capsys, tmp_path, model, size, nearest):
    sentence = refused(capsys, "train", model, *FAST, "--size", size, "--out", tmp_path / "r")
    assert f"{model} does not take images of {size}x{size}" in sentence
    assert f"that it takes are of {nearest}" in sentence
    assert not (tmp_path / "r").exists()


def test_a_size_that_the_model_takes_is_that_of_its_images(capsys, tmp_path):
    arguments = [*FAST, "--epochs", 1, "--size", 32, "--out", tmp_path / "r"]
    code, out, _ = ran(capsys, "train", "lenet_bn", *arguments)
    assert code == 0
    assert "of 32x32x1 (resized from 32x32)" not in out
    assert "of 32x32x1 (as --size 32,32 wants)" in out


def test_a_class_without_training_images_is_said(capsys, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (30, 6, 6, 1), np.uint8)
    data = npz(tmp_path / "d.npz", images, 1 + np.arange(30) % 3)
    code, out, _ = ran(capsys, "train", "mlp", *FAST, "--data", data, "--out", tmp_path / "a")
    assert code == 0
    assert "4 classes (no training image of 0)\n" in out


def test_channels_first_are_warned_of(capsys, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 3, 6, 8), np.uint8)
    data = npz(tmp_path / "first.npz", images, np.arange(40) % 4)
    code, _, err = ran(capsys, "train", "mlp", *FAST, "--data", data, "--out", tmp_path / "a")
    assert code == 0
    (said,) = [line for line in err.splitlines() if "warning" in line]
    assert "(40, 3, 6, 8)" in said
    assert "transpose(0, 2, 3, 1)" in said
    with pytest.warns(DataWarning, match="with 8 channels"):
        load(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(npz(tmp_path / "last.npz", images.transpose(0, 2, 3, 1), np.arange(40) % 4))
        load(npz(tmp_path / "thin.npz", images[:, :, :, :1], np.arange(40) % 4))


def test_the_default_folder_of_another_kind_of_data_is_said_to_be_the_default(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 1), np.uint8)
    npz("own.npz", images, np.arange(40) % 4)
    arguments = ["train", "mlp", *FAST, "--epochs", 1, "--data"]
    assert ran(capsys, *arguments, "own.npz")[0] == 0
    (tmp_path / "own").mkdir()
    sentence = refused(capsys, *arguments, "own")
    assert "runs/mlp-own is not empty" in sentence
    assert "(the default, after the model and the data set, of any kind)" in sentence
    assert "default" not in refused(capsys, *arguments, "own", "--out", "runs/mlp-own")


def test_a_run_does_not_go_on_with_other_images(capsys, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1), np.uint8)
    labels = np.arange(40) % 4
    data, out = npz(tmp_path / "own.npz", images, labels), tmp_path / "a"
    assert train(capsys, out, "--data", data, "--schedule", "constant")[0] == 0
    npz(tmp_path / "own.npz", images[::-1], labels)
    sentence = refused(capsys, "train", "--resume", out, "--epochs", 3)
    assert "the training images or labels are others than those of the run" in sentence
    npz(tmp_path / "own.npz", images, labels)
    assert ran(capsys, "train", "--resume", out, "--epochs", 3)[0] == 0


def test_a_model_that_would_need_huge_images_is_refused(capsys, tmp_path, monkeypatch):
    from deepkit.cli import build

    monkeypatch.setattr(build, "MOST_BYTES", 10_000_000)
    sentence = refused(capsys, "train", "alexnet", *FAST, "--out", tmp_path / "a")
    assert "227x227" in sentence
    assert "GiB" in sentence


def test_values_beyond_float32_are_refused(capsys, tmp_path):
    images = np.full((40, 4, 4, 1), 1e300)
    data = npz(tmp_path / "large.npz", images, np.arange(40) % 4)
    sentence = refused(capsys, "train", "mlp", *FAST, "--data", data, "--out", tmp_path / "a")
    assert "beyond the range of float32" in sentence
