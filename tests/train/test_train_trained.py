"""predict and load_model: what a trained model says of raw images, scaled as in training."""

import numpy as np
import pytest
from cli.commands import FAST, ran
from train.small import TEST, TRAIN, small_model

import deepkit as dk
from deepkit import nn
from deepkit.checkpoint import CheckpointError
from deepkit.data import DataError
from deepkit.train import Normalize, RunFolder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the command line on enlarged digits, whose images are normalised."""
    out = tmp_path_factory.mktemp("runs") / "a"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "_draw", lambda self, run: None)
        assert dk_train("lenet_bn", out) == 0
    return out


def dk_train(model, out):
    from deepkit.cli import main

    return main(["train", model, *FAST, "--epochs", "6", "--quiet", "--out", str(out)])


@pytest.mark.parametrize("capture", [True, False])
def test_predict_says_what_evaluate_finds_without_labels(capture):
    model, scale = small_model(), Normalize.of(TRAIN[0])
    found = dk.evaluate(model, TEST, normalize=scale, predictions=True)
    said = dk.predict(model, TEST[0], normalize=scale, batch_size=16, capture=capture)
    np.testing.assert_array_equal(said.labels, found.predictions)
    np.testing.assert_allclose(said.confidences, found.confidences, rtol=1e-5)
    assert said.outputs.shape == (41, 3)
    assert model.training  # as it was


def test_predict_of_a_model_without_classes_gives_its_outputs():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
    said = dk.predict(model, TEST[0].astype(np.float32))
    assert said.labels is said.confidences is None
    want = TEST[0].reshape(41, 36) @ model.state_dict()["1.weight"].T
    np.testing.assert_allclose(said.outputs, want + model.state_dict()["1.bias"], rtol=1e-4)
    with pytest.raises(DataError, match="uint8"):
        dk.predict(model, TEST[1])


def test_a_run_predicts_raw_images_as_well_as_it_was_tested(capsys, run):
    """The files are 8x8, the model sees 28x28, and its images were normalised."""
    images, labels = dk.data.digits("test")
    trained = dk.load_model(run)
    said = trained.predict(images)
    assert trained.classes == tuple("0123456789")
    assert trained.shape == (28, 28, 1)
    assert not trained.model.training
    printed = ran(capsys, "eval", run, "--device", "numpy")[1].splitlines()[-1]
    errors = int(printed.split(", ")[2].split()[0])
    assert errors < 100
    assert abs((said.labels != labels).sum() - errors) <= 2  # resized before or after a rounding
    one = trained.predict(images[3:4])
    assert one.labels.tolist() == said.labels[3:4].tolist()
    for wrong in (images[0], np.zeros((2, 8, 8, 3), np.uint8)):
        with pytest.raises(DataError, match=r"\(N, H, W, 1\) was expected"):
            trained.predict(wrong)


def test_loading_a_model_leaves_the_random_counters_alone(run):
    dk.seed(5)
    want = dk.rand(3).numpy()
    dk.seed(5)
    dk.load_model(run)
    np.testing.assert_array_equal(dk.rand(3).numpy(), want)


def test_a_run_of_fit_gives_its_weights_and_scale_to_a_model_like_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(RunFolder, "_draw", lambda self, run: None)
    model, scale = small_model(), Normalize.of(TRAIN[0])
    options = {"epochs": 3, "normalize": scale, "progress": False}
    dk.fit(model, TRAIN, out=tmp_path / "r", **options)
    want = dk.predict(model, TEST[0], normalize=scale)
    trained = dk.load_model(tmp_path / "r", small_model(seed=9))
    np.testing.assert_array_equal(trained.predict(TEST[0]).outputs, want.outputs)
    assert trained.classes is trained.shape is None
    with pytest.raises(CheckpointError, match=r"give it: load_model\(path, model\)"):
        dk.load_model(tmp_path / "r")
    with pytest.raises(CheckpointError, match="another model"):
        dk.load_model(tmp_path / "r", small_model(outputs=4))


def test_a_folder_stands_for_its_checkpoint(run, tmp_path):
    assert dk.load(run).path == run / "checkpoint.safetensors"
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors does not exist"):
        dk.load(tmp_path)
