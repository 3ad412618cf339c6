"""fit and evaluate: what they compute, what they refuse, and that nothing is left running."""

import re
import time

import numpy as np
import pytest
from train.small import CLASSES, TEST, TRAIN, same_weights, small_model, without_times

import deepkit as dk
from deepkit import nn
from deepkit.backends import Backend
from deepkit.data import DataError, Dataset, Loader
from deepkit.ops import cross_entropy
from deepkit.optim import SGD, OneCycleLR, StepLR
from deepkit.train import Normalize, TrainingError, evaluate, fit


def quiet(model, *data, **options):
    return fit(model, *data, progress=False, **options)


def sgd(model, lr=0.05):
    return SGD(model.parameters(), lr=lr, momentum=0.9)


def test_learns_and_says_how_well():
    model = small_model()
    history = quiet(
        model, TRAIN, TEST, epochs=40, batch_size=32, seed=3, normalize=Normalize.of(TRAIN[0])
    )
    assert history["epoch"] == list(range(1, 41))
    assert history["train_loss"][-1] < 0.5 * history["train_loss"][0]
    assert history.last["test_accuracy"] == 1 - history.last["errors"] / 41
    assert history.last["errors"] <= 4
    assert history.last["lr"] == pytest.approx(1e-3)  # Adam, the default
    assert history.last["images_per_second"] == pytest.approx(100 / history.last["seconds"])


def test_the_loss_of_an_epoch_is_the_mean_over_images_not_over_batches():
    """With frozen weights, 100 images in batches of 32, 32, 32 and 4."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES))
    expected = evaluate(model, TRAIN)
    history = quiet(model, TRAIN, epochs=1, batch_size=32, optimizer=SGD(model.parameters(), lr=0))
    assert history.last["train_loss"] == pytest.approx(expected.loss, rel=1e-6)
    assert history.last["train_accuracy"] == pytest.approx(expected.accuracy)


def test_making_kernels_ready_is_not_training_time(monkeypatch):
    """The augmentation takes a tenth of a second a batch, and the backend says it was its own."""
    spent = []

    def slow(images, rng):
        time.sleep(0.1)
        spent.append(0.1)
        return images

    monkeypatch.setattr(Backend, "preparing", property(lambda _: sum(spent)))
    model = small_model()
    history = quiet(model, TRAIN, epochs=1, batch_size=10, augment=slow, device="numpy")
    assert len(spent) == 10
    assert 0 < history.last["seconds"] < 0.9


def test_evaluate_counts_as_numpy_does():
    model = small_model()
    images, labels = TEST
    model.eval()
    logits = model(dk.tensor(images.astype(np.float32) / 255)).numpy().astype(np.float64)
    model.train()
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = evaluate(model, TEST, batch_size=16, predictions=True)
    assert found.total == 41
    assert found.errors == (logits.argmax(axis=1) != labels).sum()
    assert found.accuracy == 1 - found.errors / 41
    assert found.loss == pytest.approx(-np.log(probabilities[np.arange(41), labels]).mean())
    np.testing.assert_array_equal(found.predictions, logits.argmax(axis=1))
    np.testing.assert_allclose(found.confidences, probabilities.max(axis=1), rtol=1e-5)
    assert model.training  # as it was


@pytest.mark.parametrize("capture", [True, False])
def test_evaluate_takes_every_image_of_a_loader_once_and_in_order(capture):
    loader = Loader(*TEST, 16, shuffle=True, drop_last=True, augment=lambda x, rng: 255 - x)
    model = small_model()
    found = evaluate(model, loader, predictions=True, capture=capture)
    plain = evaluate(model, TEST, batch_size=16, predictions=True, capture=capture)
    np.testing.assert_array_equal(found.predictions, plain.predictions)
    assert found[:4] == plain[:4]


def test_captured_training_equals_eager_bit_for_bit():
    """Dropout, batch norm and a short last batch included."""
    runs = []
    for capture in (True, False):
        model = small_model()
        history = quiet(model, TRAIN, TEST, epochs=3, batch_size=32, seed=5, capture=capture)
        runs.append((model, without_times(history)))
    assert same_weights(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


def test_the_seed_decides_the_run():
    models = [small_model() for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        quiet(model, TRAIN, epochs=2, seed=seed)
    assert same_weights(models[0], models[1])
    assert not same_weights(models[0], models[2])


def test_data_may_be_arrays_a_dataset_or_a_loader():
    names = tuple("abc")
    kinds = [TRAIN, Dataset(*TRAIN, names, "stripes"), Loader(*TRAIN, 25, seed=0)]
    losses = []
    for data in kinds:
        history = quiet(small_model(), data, TEST, epochs=1, batch_size=25)
        losses.append(history.last["train_loss"])
    assert losses[0] == losses[1] == losses[2]
    with pytest.raises(TypeError, match=r"Loader, a Dataset or .images, labels. .* not ndarray"):
        quiet(small_model(), TRAIN[0])


def test_augmentation_sees_the_training_images_only():
    seen = []

    def note(images, rng):
        seen.append(len(images))
        return images

    quiet(small_model(), TRAIN, TEST, epochs=2, batch_size=50, augment=note)
    assert seen == [50, 50, 50, 50]


def test_a_custom_loss_and_a_model_without_classes():
    """Regression of one number: a loss, and neither accuracy nor errors."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))

    def loss(output, y):
        return ((output.reshape(-1) - y.astype("float32")) ** 2).mean()

    history = quiet(model, TRAIN, TEST, epochs=2, loss=loss)
    assert history.last["test_loss"] < history["test_loss"][0]
    assert history.last["test_accuracy"] is history.last["errors"] is None
    assert history.last["train_accuracy"] is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_regression_on_float_targets(tmp_path, dtype):
    """y = x w of two numbers, with targets of both types; the loss is all there is to say."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((200, 4)).astype(np.float32), rng.standard_normal((4, 2))
    y = (x @ w).astype(dtype)
    dk.seed(0)
    model = nn.Linear(4, 2)
    options = {"optimizer": SGD(model.parameters(), lr=0.1), "loss": dk.ops.mse, "epochs": 20}
    history = fit(model, (x, y), (x, y), out=tmp_path / "r", progress=False, **options)
    assert history.last["test_loss"] < 1e-3 * history["test_loss"][0]
    assert history.last["test_accuracy"] is history.last["errors"] is None
    assert history.last["train_accuracy"] is None
    np.testing.assert_allclose(model.weight.numpy(), w.T, atol=0.1)
    found = evaluate(model, Loader(x, y, 32), loss=nn.MSELoss())
    assert found.loss == pytest.approx(((model(dk.tensor(x)).numpy() - y) ** 2).mean(), rel=1e-4)
    assert found.accuracy is found.errors is None
    with pytest.raises(DataError, match=r"labels are \(200, 1\) of float32, .* loss=dk.ops.mse"):
        quiet(model, (x, y[:, :1]))


def test_float_targets_of_the_logits_shape_are_probabilities():
    hot = np.eye(CLASSES)[TRAIN[1]]
    losses = [
        quiet(small_model(), (TRAIN[0], labels), epochs=2, seed=0)["train_loss"]
        for labels in (TRAIN[1], hot)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_model_with_several_outputs_is_judged_by_the_first():
    class Two(nn.Module):
        def __init__(self):
            self.body = small_model()

        def forward(self, x):
            y = self.body(x)
            return y, -y

    def loss(outputs, y):
        return cross_entropy(outputs[0], y)

    plain, two = small_model(), Two()
    one = quiet(plain, TRAIN, TEST, epochs=1, seed=0)
    other = quiet(two, TRAIN, TEST, epochs=1, seed=0, loss=loss)
    assert without_times(one) == without_times(other)


def test_schedules_count_epochs_and_one_cycle_counts_batches():
    """100 images in batches of 25; a row has the rate of the epoch's last step."""

    def rates(make, **options):
        model = small_model()
        optimizer = SGD(model.parameters(), lr=1.0)
        schedule = make(optimizer)
        options |= {"optimizer": optimizer, "schedule": schedule, "batch_size": 25}
        return quiet(model, TRAIN, epochs=3, **options)["lr"], schedule.t

    assert rates(lambda o: StepLR(o, 1, gamma=0.5)) == ([1.0, 0.5, 0.25], 3)
    found, steps = rates(lambda o: StepLR(o, 4, gamma=0.5), schedule_step="batch")
    assert (found, steps) == ([1.0, 0.5, 0.25], 12)
    found, steps = rates(lambda o: OneCycleLR(o, 0.1, 12))
    assert steps == 12
    assert found[0] == pytest.approx(0.1, rel=0.05)
    assert found[2] == pytest.approx(0.1 / 25 / 1e4, rel=1e-5)
    with pytest.raises(ValueError, match="'epoch' or 'batch', not 'step'"):
        rates(lambda o: StepLR(o, 1), schedule_step="step")


# bad input ----------------------------------------------------------------------------------------


def test_nan_in_the_images_is_said_before_training():
    images = TRAIN[0].astype(np.float32)
    images[17, 2, 3, 0] = np.nan
    model = small_model()
    before = model.state_dict()
    with pytest.raises(DataError, match="17"):
        quiet(model, (images, TRAIN[1]))
    assert all(np.array_equal(v, before[k]) for k, v in model.state_dict().items())


def test_float_images_of_another_type_are_said_to_be_the_data():
    images = TRAIN[0] / 255
    for call in (quiet, evaluate, lambda model, data: dk.predict(model, data[0])):
        with pytest.raises(DataError, match=r"the images are float64 but the model is float32; .*"):
            call(small_model(), (images, TRAIN[1]))


def test_an_empty_set_is_refused():
    with pytest.raises(DataError, match="no data"):
        quiet(small_model(), (TRAIN[0][:0], TRAIN[1][:0]))


def test_labels_beyond_the_outputs_are_said_before_training():
    model = small_model(outputs=2)
    before = model.state_dict()
    with pytest.raises(ValueError, match=r"labels go up to 2 but the model has 2 outputs .*0\.\.1"):
        quiet(model, TRAIN)
    with pytest.raises(ValueError, match="labels go up to 2"):
        evaluate(model, TEST)
    assert all(np.array_equal(v, before[k]) for k, v in model.state_dict().items())


def test_images_that_do_not_fit_the_model_are_said_in_the_ops_words():
    with pytest.raises(dk.ShapeError, match="linear"):
        quiet(small_model(), (np.zeros((4, 5, 5, 1), np.uint8), np.zeros(4, int)))


def test_an_optimizer_of_another_model_would_train_nothing():
    model, other = small_model(), small_model()
    with pytest.raises(ValueError, match=r"holds 6 parameters, but none of this model's 6"):
        quiet(model, TRAIN, optimizer=sgd(other))
    schedule = StepLR(sgd(model), 1)
    for optimizer, given in ((None, "no optimizer"), (sgd(model), "another one")):
        with pytest.raises(ValueError, match=f"of an optimizer, but {given} was given"):
            quiet(model, TRAIN, optimizer=optimizer, schedule=schedule)
    part = SGD(model[1].parameters(), lr=0.1)  # a part of the model is fine
    quiet(model, TRAIN, epochs=1, optimizer=part, schedule=StepLR(part, 1))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimizer": "adam"}, "optimizer is 'adam'; an optimiser was expected, such as dk.optim"),
        ({"optimizer": SGD}, "optimizer is the class SGD itself; an optimiser was expected"),
        ({"loss": nn.CrossEntropyLoss}, "loss is the class CrossEntropyLoss itself; a function of"),
        ({"loss": "mse"}, "loss is 'mse'; a function of (output, labels) was expected"),
        ({"schedule": "cosine"}, "schedule is 'cosine'; a schedule was expected, such as dk.optim"),
        ({"schedule": StepLR}, "schedule is the class StepLR itself"),
        ({"callbacks": "x"}, "callbacks is 'x'; a list was expected"),
        ({"callbacks": print}, "callbacks is of type builtin_function_or_method; a list"),
        ({"callbacks": [3]}, "a callback is of type int; a Callback or a function of the run"),
    ],
)
def test_arguments_of_a_wrong_kind_are_one_sentence(options, said):
    with pytest.raises(TypeError, match=re.escape(f"fit: {said}")):
        quiet(small_model(), TRAIN, **options)


def test_what_is_no_model_is_said():
    for call in (dk.fit, dk.evaluate):
        with pytest.raises(TypeError, match="model is the class Linear itself; a module was"):
            call(nn.Linear, TRAIN)
    with pytest.raises(TypeError, match="predict: model is of type Op"):
        dk.predict(cross_entropy, TRAIN[0])


@pytest.mark.parametrize("epochs", [0, -1, 2.5, True])
def test_epochs_are_whole_numbers_from_one(epochs):
    with pytest.raises(ValueError, match="epochs must be a whole number from 1"):
        quiet(small_model(), TRAIN, epochs=epochs)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_batch():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES))
    steps = []
    optimizer = sgd(model, lr=1e38)
    original = optimizer.step
    optimizer.step = lambda: (steps.append(1), original())[1]
    with (
        np.errstate(all="ignore"),
        pytest.raises(TrainingError, match=r"became (nan|inf) in epoch 1, batch \d+ of 50;"),
    ):
        quiet(model, TRAIN, epochs=40, batch_size=2, optimizer=optimizer, capture=False)
    assert len(steps) <= 50  # it did not train on through other epochs


def test_the_named_batch_is_the_first_bad_one():
    """The loss itself turns bad at a step that the test chooses."""
    model, calls = small_model(), []

    def loss(output, y):
        calls.append(1)
        value = cross_entropy(output, y)
        return value * float("inf") if len(calls) == 7 else value

    with (
        np.errstate(all="ignore"),
        pytest.raises(TrainingError, match="inf in epoch 2, batch 3 of 4"),
    ):
        quiet(model, TRAIN, epochs=5, batch_size=25, loss=loss, capture=False)


def test_a_test_loss_that_is_no_number_is_an_error_too():
    model = small_model()
    with pytest.raises(TrainingError, match="test data is"), np.errstate(all="ignore"):
        evaluate(model, TEST, loss=lambda output, y: cross_entropy(output, y) * float("nan"))


# devices ------------------------------------------------------------------------------------------


def test_devices_agree_on_the_first_steps():
    """The same seed: 20 steps, one an epoch, whose losses differ by less than 1e-4, relatively."""
    losses = {}
    for device in dk.devices():
        model = small_model()
        options = {"device": device, "optimizer": sgd(model), "normalize": Normalize.of(TRAIN[0])}
        history = quiet(model, TRAIN, epochs=20, batch_size=100, seed=3, **options)
        losses[device] = history["train_loss"]
    for device, found in losses.items():
        np.testing.assert_allclose(found, losses["numpy"], rtol=1e-4, err_msg=device)


def test_fit_moves_the_model_and_trains_it_there():
    for device in dk.devices():
        model = small_model()
        history = quiet(model, TRAIN, TEST, epochs=20, batch_size=32, device=device, seed=0)
        assert {p.device for p in model.parameters()} == {device}
        assert history.last["train_loss"] < 0.6 * history["train_loss"][0]
        assert evaluate(model, TEST).errors == history.last["errors"]


# normalisation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_normalize_measures_each_channel(dtype):
    rng = np.random.default_rng(0)
    images = (rng.random((2100, 5, 4, 3)) * [255, 100, 10]).astype(dtype)
    found = Normalize.of(images)
    unit = images.astype(np.float64) / (255 if dtype == np.uint8 else 1)
    np.testing.assert_allclose(found.mean, unit.mean((0, 1, 2)), rtol=1e-10)
    np.testing.assert_allclose(found.std, unit.std((0, 1, 2)), rtol=1e-10)
    y = found(dk.tensor(unit.astype(np.float32))).numpy().astype(np.float64)
    assert np.abs(y.mean((0, 1, 2))).max() < 1e-5
    assert np.abs(y.std((0, 1, 2)) - 1).max() < 1e-5
    again = Normalize(**found.as_dict())
    assert (again.mean == found.mean).all()
    assert (again.std == found.std).all()


def test_a_constant_channel_stays_finite():
    found = Normalize.of(np.full((3, 2, 2, 1), 51, np.uint8))
    assert found.mean == pytest.approx(0.2)
    assert found.std == 1


def test_normalize_refuses_other_channels():
    with pytest.raises(ValueError, match="x has 3 channels, the images that were measured had 1"):
        Normalize(0.5, 0.2)(dk.zeros(2, 4, 4, 3))
    with pytest.raises(ValueError, match="above 0"):
        Normalize(0.5, 0.0)


def test_plain_lists_are_data():
    dk.seed(0)
    model = nn.Sequential(nn.Linear(2, 8, activation="tanh"), nn.Linear(8, 2))
    xor = ([[0, 0], [0, 1], [1, 0], [1, 1]] * 8, [0, 1, 1, 0] * 8)
    optimizer = dk.optim.Adam(model.parameters(), lr=0.05)
    history = fit(model, xor, xor, epochs=60, optimizer=optimizer, progress=False)
    assert history.last["errors"] == 0
