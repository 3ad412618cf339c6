"""The loader: every item once a pass, an order that seed and epoch fix, and exact resuming."""

import itertools
import json

import numpy as np
import pytest
from data.make_files import one_sentence, random_set
from hypothesis import given, settings
from hypothesis import strategies as st

from deepkit.data import DataError, Dataset, Loader, augment, load


def numbered(count, **options):
    """A loader whose float images carry their own index."""
    images = np.arange(count, dtype=np.float32).reshape(count, 1, 1, 1)
    labels = np.arange(count) % 3
    options.setdefault("batch_size", 4)
    return Loader(images, labels, **options)


def one_pass(loader):
    return [(x.ravel().astype(int).tolist(), y.tolist()) for x, y in loader.batches()]


def indices(loader):
    return [index for batch, _ in one_pass(loader) for index in batch]


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 40),
    batch_size=st.integers(1, 45),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    seed=st.integers(0, 2**70),
)
def test_a_pass_gives_every_item_once_with_its_label(count, batch_size, shuffle, drop_last, seed):
    if drop_last and count < batch_size:
        with pytest.raises(DataError, match="no batch of"):
            numbered(count, batch_size=batch_size, drop_last=True)
        return
    loader = numbered(count, batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, seed=seed)
    batches = one_pass(loader)
    sizes = [len(x) for x, _ in batches]
    rest = count % batch_size
    assert sizes == [batch_size] * (count // batch_size) + [rest] * (rest > 0 and not drop_last)
    assert len(loader) == len(batches)
    items = [index for x, _ in batches for index in x]
    assert [label for _, y in batches for label in y] == [index % 3 for index in items]
    if not drop_last:
        assert sorted(items) == list(range(count))
    assert len(set(items)) == len(items)
    if not shuffle:
        assert items == list(range(len(items)))


def test_the_order_depends_on_seed_and_epoch_alone():
    first, second = numbered(50, seed=3), numbered(50, seed=3, batch_size=7)
    passes = [indices(first) for _ in range(3)]
    assert passes == [indices(second) for _ in range(3)]  # whatever the batch size
    assert len({tuple(order) for order in passes}) == 3
    assert indices(numbered(50, seed=4)) != passes[0]
    first.epoch = 1
    assert indices(first) == passes[1]
    assert first.epoch == 2


def test_the_order_is_the_same_on_every_machine_and_version():
    assert indices(numbered(12, seed=7)) == [2, 0, 6, 5, 10, 1, 8, 4, 7, 9, 11, 3]


def test_shuffling_is_fair():
    loader = numbered(6, batch_size=6)
    places = np.zeros((6, 6))
    for order in (indices(loader) for _ in range(3000)):
        places[np.arange(6), order] += 1
    # each item in each place 500 times; five standard deviations are about 102
    assert np.abs(places - 500).max() < 102


def test_types_and_scale():
    images, labels = random_set(10, (3, 4, 1))
    images[0, 0, 0, 0], images[0, 0, 1, 0] = 0, 255
    x, y = next(Loader(images, labels.tolist(), 10, shuffle=False).batches())
    assert (x.dtype, y.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(x, images.astype(np.float32) / np.float32(255))
    assert (x.min(), x.max()) == (0, 1)
    for dtype in (np.float32, np.float64):
        x, _ = next(Loader(images.astype(dtype), labels, 10, shuffle=False).batches())
        assert x.dtype == dtype
        np.testing.assert_array_equal(x, images)
    rows = Loader(images.reshape(10, -1), labels.astype(np.uint8), 4)
    assert next(rows.batches())[0].shape == (4, 12)


def test_lists_of_numbers_are_float32():
    for images in ([[0, 1], [1, 0]], [[0.5, 1.0], [1.0, 0.0]], [(0, 1), (1, 0)]):
        loader = Loader(images, [0, 1], 2, shuffle=False)
        ((x, y),) = loader.batches()
        assert (x.dtype, y.dtype) == (np.float32, np.int64)
        np.testing.assert_array_equal(x, images)
    pictures = list(np.full((2, 3, 3, 1), 255, np.uint8))
    ((x, _),) = Loader(pictures, [0, 1], 2).batches()
    np.testing.assert_array_equal(x, np.ones((2, 3, 3, 1), np.float32))


def test_lists_that_form_no_array_are_one_sentence():
    with pytest.raises(DataError) as error:
        Loader([[1.0], [1.0, 2.0]], [0, 1], 2)
    assert one_sentence(error).startswith("Loader: the images form no array: ")


def test_a_batch_is_a_copy_of_its_own():
    images = np.ones((8, 2, 2, 1), np.float32)
    for x, y in Loader(images, np.zeros(8, int), 4, shuffle=False).batches():
        x[...], y[...] = 7, 7
    assert (images == 1).all()


def test_iterating_gives_tensors():
    deepkit = pytest.importorskip("deepkit")
    images, labels = random_set(10, (3, 4, 1))
    loader = Loader(images, labels, 4, seed=5)
    arrays = list(loader.batches())
    loader.epoch = 0
    tensors = list(loader)
    assert len(tensors) == 3
    for (x, y), (a, b) in zip(tensors, arrays, strict=True):
        assert isinstance(x, deepkit.Tensor)
        assert (x.numpy().dtype, y.numpy().dtype) == (np.float32, np.int64)
        np.testing.assert_array_equal(x.numpy(), a)
        np.testing.assert_array_equal(y.numpy(), b)
    assert loader.epoch == 1


def test_a_dataset_brings_its_labels_and_its_number_of_classes():
    images, labels = random_set(10, (3, 4, 1), classes=3)
    data = Dataset(images, labels, ("a", "b", "c"), "abc")
    ours, theirs = Loader(data, batch_size=4, seed=5), Loader(images, labels, 4, seed=5)
    for (x, y), (a, b) in zip(ours.batches(), theirs.batches(), strict=True):
        np.testing.assert_array_equal(x, a)
        np.testing.assert_array_equal(y, b)
    with pytest.raises(DataError, match=r"has label 2 at index \d+"):
        Loader(Dataset(images, labels, ("a", "b"), "ab"), batch_size=4)


# --- epochs and resuming ----------------------------------------------------------------


def test_only_a_full_pass_counts():
    loader = numbered(10)
    assert loader.epoch == 0
    first = [next(loader.batches())[0].ravel().tolist() for _ in range(2)]
    assert first[0] == first[1]  # a pass that was left is begun anew
    assert loader.epoch == 0
    one_pass(loader)
    assert loader.epoch == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2), st.integers(0, 4), st.booleans())
def test_resuming_continues_with_the_very_next_batch(epochs, position, augmented):
    images, labels = random_set(18, (6, 6, 1))
    options = {"seed": 11, "augment": augment.random_shift(2) if augmented else None}

    def batches(loader, passes):
        return [b for _ in range(passes) for b in loader.batches()]

    expected = batches(Loader(images, labels, 4, **options), 4)
    loader = Loader(images, labels, 4, **options)
    seen = batches(loader, epochs) + list(itertools.islice(loader.batches(), position))
    state = json.loads(json.dumps(loader.state_dict()))
    resumed = Loader(images, labels, 4, **{**options, "seed": 0})
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    seen += batches(resumed, 4 - epochs)
    assert resumed.epoch == 4
    assert len(seen) == len(expected)
    for (x, y), (a, b) in zip(seen, expected, strict=True):
        np.testing.assert_array_equal(x, a)
        np.testing.assert_array_equal(y, b)


def test_a_state_saved_at_the_last_batch_resumes_with_an_empty_rest():
    loader = numbered(10)
    for _ in loader.batches():
        state = loader.state_dict()  # what a checkpoint inside the loop would save
    assert (state["epoch"], state["position"]) == (0, 3)
    resumed = numbered(10)
    resumed.load_state_dict(state)
    assert one_pass(resumed) == []
    assert resumed.epoch == 1
    assert indices(resumed) == indices(loader)


def test_setting_the_epoch_forgets_a_resumed_position():
    loader = numbered(10)
    loader.load_state_dict({**loader.state_dict(), "position": 2})
    loader.epoch = 5
    assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (5, 0)
    assert len(indices(loader)) == 10


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing():
    loader = numbered(10)
    own = loader.state_dict()
    for change, expected in [
        ({"items": 11}, "the state is of a loader of 11 images, but this one has 10"),
        ({"batch_size": 5}, "of a loader of 5 images a batch, but this one has 4"),
        ({"position": 4}, "the state is at batch 4 of an epoch, but it has 3"),
        ({"epoch": -1}, "epoch must be a whole number of at least 0, not -1"),
        ({"seed": 1.5}, "seed must be a whole number of at least 0, not 1.5"),
    ]:
        with pytest.raises(DataError) as error:
            loader.load_state_dict({**own, **change})
        assert expected in one_sentence(error)
    with pytest.raises(DataError, match="the state has no 'position'"):
        loader.load_state_dict({key: own[key] for key in own if key != "position"})
    assert loader.state_dict() == own


# --- augmentation -----------------------------------------------------------------------


def test_augmentation_sees_stored_values_and_its_batch_alone():
    images, labels = random_set(12, (4, 4, 1))
    calls = []

    def spy(batch, rng):
        calls.append((batch.dtype, batch.shape, rng.random()))
        return batch[:, 1:]

    loader = Loader(images, labels, 5, augment=spy, seed=2)
    shapes = [x.shape for x, _ in loader.batches()]
    assert shapes == [(5, 3, 4, 1), (5, 3, 4, 1), (2, 3, 4, 1)]
    assert {(dtype, shape[1:]) for dtype, shape, _ in calls} == {(np.dtype(np.uint8), (4, 4, 1))}
    one_pass(loader)
    draws = [draw for *_, draw in calls]
    assert len(set(draws)) == 6  # a batch, an epoch: each its own numbers
    # the numbers of epoch 1, batch 2 do not depend on what was drawn before
    calls.clear()
    loader.epoch = 1
    loader.load_state_dict({**loader.state_dict(), "position": 2})
    one_pass(loader)
    assert [draw for *_, draw in calls] == draws[5:]


def test_an_augmentation_that_loses_images_is_named():
    loader = Loader(*random_set(8, (4, 4, 1)), 4, augment=lambda images, rng: images[1:])
    with pytest.raises(DataError, match="augment made 3 images of 4"):
        next(loader.batches())


# --- bad input --------------------------------------------------------------------------

IMAGES, LABELS = random_set(6, (4, 4, 1))
NAN = IMAGES.astype(np.float32)
NAN[2, 0, 0] = np.nan
INF = IMAGES.astype(np.float64)
INF[5, 3, 3] = -np.inf


DATA = Dataset(IMAGES, LABELS, tuple("abcdef"), "letters")


@pytest.mark.parametrize(
    "arguments, options, expected",
    [
        ((DATA, 2), {}, "got a Dataset and an int as labels"),
        ((DATA, LABELS, 2), {}, "got a Dataset and a ndarray as labels"),
        ((IMAGES,), {"batch_size": 2}, "got a ndarray and no labels"),
        (
            ((IMAGES, LABELS), 2),
            {},
            "an int as labels; a * takes the pair apart: Loader(*data, 64)",
        ),
        ((DATA,), {}, "batch_size must be a whole number of at least 1, not None"),
        ((IMAGES, LABELS), {}, "batch_size must be a whole number of at least 1, not None"),
    ],
)
def test_arguments_that_are_neither_arrays_nor_a_dataset_are_one_sentence(
    arguments, options, expected
):
    with pytest.raises(DataError) as error:
        Loader(*arguments, **options)
    assert expected in one_sentence(error)


@pytest.mark.parametrize(
    "images, labels, options, expected",
    [
        (IMAGES[:0], LABELS[:0], {}, "images of shape (0, 4, 4, 1) are no data"),
        ([], [], {}, "images of shape (0,) are no data"),
        (IMAGES[:0].astype(int), LABELS[:0], {}, "images of shape (0, 4, 4, 1) are no data"),
        (DATA, None, {"num_classes": 5}, "has label 5 at index"),
        (IMAGES, LABELS[:5], {}, "6 images in images but 5 labels in labels"),
        (NAN, LABELS, {}, "images hold NaN (image 2); finite numbers were expected"),
        (INF, LABELS, {}, "images hold an infinity (image 5)"),
        (IMAGES, LABELS - 1, {}, "labels has label -1 at index"),
        (IMAGES, LABELS, {"num_classes": 5}, "has label 5 at index"),
        (IMAGES, LABELS > 2, {}, "labels are (6,) of bool; whole numbers, one an image, or floats"),
        (IMAGES, np.array([0, 1, np.inf, 0, 0, 0]), {}, "labels hold an infinity (image 2)"),
        (IMAGES, LABELS[:, None], {}, "labels are (6, 1) of int64"),
        (IMAGES.astype(int), LABELS, {}, "images are int64; uint8 (0 to 255) or float"),
        (IMAGES, LABELS, {"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        (IMAGES, LABELS, {"batch_size": 2.5}, "batch_size must be a whole number of at least 1"),
        (IMAGES, LABELS, {"batch_size": True}, "at least 1, not True"),
        (IMAGES, LABELS, {"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        (IMAGES, LABELS, {"batch_size": 7, "drop_last": True}, "no batch of 7 from 6 images"),
    ],
)
def test_bad_input_is_one_sentence(images, labels, options, expected):
    with pytest.raises(DataError) as error:
        Loader(images, labels, **{"batch_size": 2, **options})
    text = one_sentence(error)
    assert text.startswith("Loader: ")
    assert expected in text


def test_a_dataset_has_a_length_and_parts():
    data = load("digits", split="test")
    assert len(data) == 360
    image, label = data[-1]
    np.testing.assert_array_equal(image, data.images[359])
    assert label == data.labels[359]
    assert isinstance(label, int)
    for index in (slice(0, 20, 2), data.labels == 3, [5, 2]):
        part = data[index]
        np.testing.assert_array_equal(part.images, data.images[index])
        np.testing.assert_array_equal(part.labels, data.labels[index])
        assert (part.classes, part.name) == (data.classes, data.name)
        assert len(Loader(part, batch_size=1)) == len(part)
    with pytest.raises(IndexError):
        data[360]
    assert sum(label for _, label in data) == data.labels.sum()


def test_datasets_and_loaders_are_shown_in_a_line():
    data = load("digits", split="test")
    assert repr(data) == (
        "<dataset 'digits': 360 images of 8x8x1 uint8, classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9>"
    )
    assert repr(Loader(data, batch_size=64, seed=3)) == (
        "<loader: 360 images of 8x8x1 uint8 in batches of 64, shuffled; seed 3, epoch 0>"
    )
    odd = Loader(
        np.zeros((5, 4)), [0] * 5, 2, shuffle=False, drop_last=True, augment=lambda x, rng: x
    )
    assert repr(odd) == (
        "<loader: 5 images of 4 float64 in batches of 2, in order, augmented, "
        "without a short last batch; seed 0, epoch 0>"
    )
