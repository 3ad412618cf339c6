"""A run that was cut and resumed equals one that was not, bit for bit."""

import numpy as np
import pytest
from train.small import TEST, TRAIN, same_weights, small_model, without_times

import deepkit as dk
from deepkit import nn, optim
from deepkit.data import DataError, Loader
from deepkit.data.augment import random_shift
from deepkit.train import Checkpoint, Normalize, fit
from deepkit.train.run import Run, checksum

EPOCHS = 6


def run(model, epochs, make_schedule=None, **options):
    optimizer = optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)
    schedule = None if make_schedule is None else make_schedule(optimizer)
    return fit(
        model,
        TRAIN,
        TEST,
        epochs=epochs,
        optimizer=optimizer,
        schedule=schedule,
        batch_size=32,
        augment=random_shift(1),
        normalize=Normalize.of(TRAIN[0]),
        seed=4,
        progress=False,
        **options,
    )


def cut(after):
    def stop(r):
        if r.epoch == after:
            r.stop("cut")

    return stop


SCHEDULES = {
    "none": None,
    "epochs": lambda optimizer: optim.CosineLR(optimizer, EPOCHS),
    "batches": lambda optimizer: optim.OneCycleLR(optimizer, 0.02, EPOCHS * 4),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("capture", [True, False])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, capture, schedule):
    """Dropout, batch norm, Adam's moments, shuffling, augmentation: all go on where they were."""
    options = {"capture": capture, "make_schedule": SCHEDULES[schedule]}
    whole = small_model()
    expected = run(whole, EPOCHS, **options)

    path = tmp_path / "c.safetensors"
    run(small_model(), EPOCHS, callbacks=[Checkpoint(path), cut(2)], **options)
    resumed = small_model(seed=99)  # other weights, other random numbers: all come from the file
    dk.randn(5)
    history = run(resumed, EPOCHS, resume=path, **options)

    assert same_weights(whole, resumed)
    assert without_times(history) == without_times(expected)


@pytest.mark.parametrize("device", [d for d in dk.devices() if d != "numpy"])
def test_resuming_is_exact_on_every_device(tmp_path, device):
    options = {"device": device, "make_schedule": SCHEDULES["batches"]}
    whole, path = small_model(), tmp_path / "c.safetensors"
    expected = run(whole, EPOCHS, **options)
    run(small_model(), EPOCHS, callbacks=[Checkpoint(path), cut(3)], **options)
    resumed = small_model(seed=99)
    history = run(resumed, EPOCHS, resume=path, **options)
    assert {p.device for p in resumed.parameters()} == {device}
    assert same_weights(whole, resumed)
    assert without_times(history) == without_times(expected)


def test_a_run_can_be_cut_twice(tmp_path):
    whole, path = small_model(), tmp_path / "c.safetensors"
    expected = run(whole, EPOCHS)
    run(small_model(), EPOCHS, callbacks=[Checkpoint(path), cut(1)])
    run(small_model(), EPOCHS, callbacks=[Checkpoint(path), cut(4)], resume=path)
    model = small_model()
    history = run(model, EPOCHS, resume=path)
    assert same_weights(whole, model)
    assert without_times(history) == without_times(expected)


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    path = tmp_path / "c.safetensors"
    model = small_model()
    run(model, 2, callbacks=[Checkpoint(path)])
    again = small_model(seed=1)
    assert len(run(again, 2, resume=path)) == 2
    assert same_weights(model, again)


def test_checkpoints_every_so_often_and_of_the_best_only(tmp_path):
    every = Checkpoint(tmp_path / "some" / "e{epoch:02d}.safetensors", every=2)
    best = Checkpoint(tmp_path / "best.safetensors", best_only=True)
    history = run(small_model(), 5, callbacks=[every, best])
    names = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*"))
    assert names == ["best.safetensors", "some/e02.safetensors", "some/e04.safetensors"]
    loaded = dk.checkpoint.load(tmp_path / "best.safetensors")
    rows = loaded.extra["training"]["history"]
    assert rows[-1]["epoch"] == history.best("test_loss")["epoch"]


def test_a_checkpoint_of_another_model_or_data_set_is_refused_and_changes_nothing(tmp_path):
    path = tmp_path / "c.safetensors"
    run(small_model(), 1, callbacks=[Checkpoint(path)])
    other = nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.Linear(5, 3))
    before = other.state_dict()
    with pytest.raises(ValueError, match=r"c.safetensors"):
        run(other, 2, resume=path)
    assert all(np.array_equal(v, before[k]) for k, v in other.state_dict().items())

    model = small_model()
    before = model.state_dict()
    with pytest.raises(DataError, match="100 images, but this one has 41"):
        fit(model, TEST, resume=path, batch_size=32, progress=False)
    assert all(np.array_equal(v, before[k]) for k, v in model.state_dict().items())


def test_other_images_or_labels_of_the_same_number_are_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    run(small_model(), 1, callbacks=[Checkpoint(path)])
    images, labels = (a.copy() for a in TRAIN)
    images[-1, 5, 5] += 1
    labels[0] = (labels[0] + 1) % 3
    model = small_model()
    before = model.state_dict()
    for data in ((images, TRAIN[1]), (TRAIN[0], labels)):
        with pytest.raises(DataError, match=r"resume: .*c.safetensors: the training images or lab"):
            fit(model, data, resume=path, batch_size=32, progress=False)
    assert all(np.array_equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_checkpoint_without_a_checksum_of_its_data_goes_on(tmp_path, monkeypatch):
    path, state = tmp_path / "c.safetensors", Run.state
    old = lambda run: {k: v for k, v in state(run).items() if k != "data"}  # noqa: E731
    monkeypatch.setattr(Run, "state", old)
    run(small_model(), 1, callbacks=[Checkpoint(path)])
    assert "data" not in dk.checkpoint.load(path).extra["training"]
    assert len(run(small_model(), 2, resume=path)) == 2


def test_the_checksum_of_large_images_reads_some_of_them(monkeypatch):
    images, labels = np.zeros((5000, 4, 4), np.uint8), np.zeros(5000, int)
    before = checksum(Loader(images, labels, 10))
    monkeypatch.setattr("deepkit.train.run.READ", images.nbytes // 3)
    some = checksum(Loader(images, labels, 10))
    images[1] += 1
    assert checksum(Loader(images, labels, 10)) == some
    images[4] += 1  # every 4th, the number of bytes being no multiple of 3
    assert checksum(Loader(images, labels, 10)) not in (some, before)


def test_a_run_with_a_schedule_does_not_go_on_without_it(tmp_path):
    path = tmp_path / "c.safetensors"
    run(small_model(), 1, callbacks=[Checkpoint(path)], make_schedule=SCHEDULES["epochs"])
    with pytest.raises(ValueError, match="has a schedule but this one has none"):
        run(small_model(), 2, resume=path)
    run(small_model(), 1, callbacks=[Checkpoint(path)])
    with pytest.raises(ValueError, match="has no schedule but this one has one"):
        run(small_model(), 2, resume=path, make_schedule=SCHEDULES["epochs"])


def test_weights_alone_are_no_run(tmp_path):
    path = tmp_path / "w.safetensors"
    dk.checkpoint.save(path, small_model())
    with pytest.raises(ValueError, match="not the state of a training run"):
        run(small_model(), 2, resume=path)
