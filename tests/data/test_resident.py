"""Data sets in a device's memory: the batches are those of the loader, bit for bit."""

import numpy as np
import pytest

import deepkit as dk
from deepkit.backends import get
from deepkit.data import Loader, augment
from deepkit.data.resident import Resident, resident

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 7, 6, 3)).astype(np.uint8)
LABELS = np.random.default_rng(1).integers(0, 5, 23)

PLANNED = {
    "none": None,
    "shift": augment.random_shift(2),
    "far": augment.random_shift(9),
    "reflect": augment.random_crop(2, "reflect"),
    "flip": augment.random_flip(),
    "crop, flip": augment.compose(augment.random_crop(3), augment.random_flip()),
    "flip, crop": augment.compose(augment.random_flip(), augment.random_crop(3)),
    "flips": augment.compose(augment.random_flip(), augment.random_shift(1), augment.random_flip()),
}  # fmt: skip


def loader(change, **options):
    return Loader(IMAGES, LABELS, 5, augment=change, seed=3, **options)


@pytest.mark.parametrize("device", dk.devices())
@pytest.mark.parametrize("name", PLANNED)
def test_batches_are_the_loaders(device, name):
    plain, there = loader(PLANNED[name]), Resident(loader(PLANNED[name]), device)
    for _ in range(2):
        count = 0
        for (x, y), (index, moves) in zip(plain.batches(), there.batches(), strict=True):
            gathered_x, gathered_y = there.gather(index, moves)
            assert np.array_equal(gathered_x.numpy(), x)
            assert np.array_equal(gathered_y.numpy(), y)
            count += 1
        assert count == 5


def test_a_pass_is_resumed_where_it_was():
    plain, there = loader(PLANNED["crop, flip"]), Resident(loader(PLANNED["crop, flip"]), "numpy")
    passing = there.batches()
    for _ in range(2):
        next(passing)
    again = Resident(loader(PLANNED["crop, flip"]), "numpy")
    again.loader.load_state_dict(there.loader.state_dict())
    wanted = list(plain.batches())[2:]
    found = [again.gather(*batch) for batch in again.batches()]
    for (x, y), (gathered_x, gathered_y) in zip(wanted, found, strict=True):
        assert np.array_equal(gathered_x.numpy(), x)
        assert np.array_equal(gathered_y.numpy(), y)


def test_what_does_not_live_there(monkeypatch):
    monkeypatch.setattr(type(get("numpy")), "resident", True, raising=False)
    assert resident(loader(None), "numpy") is not None
    two_crops = augment.compose(augment.random_shift(1), augment.random_shift(1))
    for change in (augment.random_rotate(5), two_crops, lambda images, rng: images):
        assert resident(loader(change), "numpy") is None
    assert resident(Loader(IMAGES / np.float32(255), LABELS, 5), "numpy") is None
    assert resident(Loader(IMAGES.reshape(23, -1), LABELS, 5), "numpy") is None
    monkeypatch.setattr(type(get("numpy")), "resident", False)
    assert resident(loader(None), "numpy") is None


def test_training_is_the_same(monkeypatch):
    found = []
    for lives_there in (True, False):
        monkeypatch.setattr(type(get("numba" if "numba" in dk.devices() else "numpy")), "resident",
                            lives_there, raising=False)  # fmt: skip
        dk.seed(0)
        model = dk.nn.Sequential(dk.nn.Conv2d(3, 4, 3), dk.nn.Flatten(), dk.nn.Linear(80, 5))
        model.to("numba" if "numba" in dk.devices() else "numpy")
        rows = dk.fit(model, loader(PLANNED["crop, flip"]), epochs=2, progress=False).rows
        found.append([row["train_loss"] for row in rows])
    assert found[0] == found[1]
