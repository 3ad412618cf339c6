"""Pictures: that they show what they should, by their pixels."""

import numpy as np
import pytest
from train.small import TRAIN, small_model

from deepkit import plot
from deepkit.optim import SGD, OneCycleLR
from deepkit.train import History, fit
from deepkit.train.folder import rates

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


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws curves -> the figure, laid out."""
    from matplotlib.figure import Figure

    kept, save = [], Figure.savefig

    def savefig(self, *args, **options):
        kept.append(self)
        save(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)

    def draw(history, **options):
        plot.learning_curves(history, tmp_path / "a.png", "A model", subtitle="99 %", **options)
        return kept.pop()

    return draw


CURVES = {
    "one epoch": rows(1, lr=1.2e-8),
    "usual": rows(30),
    "narrow": rows(30, train_loss=0.693, test_loss=0.691, test_accuracy=0.51, train_accuracy=0.5),
    "zeros": [r | {"test_accuracy": 1 - 0.9 * (r["epoch"] < 5) / 4 ** r["epoch"]} for r in rows(9)],
    "all zeros and tiny": [
        r | {"test_loss": 0.0 if r["epoch"] > 20 else 10.0 ** -r["epoch"], "lr": 0.0}
        for r in rows(30)
    ],
    "huge": rows(3, test_loss=7e31),
    "huge and tiny": rows(3, train_loss=1e-40, test_loss=1e38),
}


@pytest.mark.parametrize("kind", CURVES)
def test_curves_are_legible(drawn, kind):
    """Ticks enough, nothing over anything else, nothing cut."""
    figure = drawn(CURVES[kind])
    renderer = figure.canvas.get_renderer()
    boxes = [axes.get_window_extent(renderer) for axes in figure.axes]
    page = figure.bbox
    for axes, box in zip(figure.axes, boxes, strict=True):
        low, high = axes.get_ylim()
        ticks = [t for t in axes.get_yticks() if low <= t <= high]
        assert len(ticks) >= 3
        assert axes.yaxis.get_offset_text().get_text() == ""
        whole = axes.get_tightbbox(renderer)
        assert page.x0 + 5 < whole.x0
        assert whole.x1 < page.x1 - 5
        assert not any(whole.overlaps(other) for other in boxes if other is not box)
        for line in axes.lines:
            values = line.get_ydata()
            assert low < min(values)
            assert max(values) < high
        if axes.get_legend() is not None:
            legend = axes.get_legend().get_window_extent(renderer)
            assert legend.y0 >= box.y1 - 1
            assert not legend.overlaps(axes._left_title.get_window_extent(renderer))


def test_the_learning_rate_of_a_single_epoch_is_a_curve(drawn, tmp_path):
    """One cycle in one epoch of four batches: it rises and falls."""
    optimizer = SGD((model := small_model()).parameters(), lr=1.0)
    schedule = OneCycleLR(optimizer, 1.0, 4)
    seen = []

    def keep(run):
        seen.append(rates(run))

    options = {"optimizer": optimizer, "schedule": schedule, "batch_size": 25, "epochs": 1}
    fit(model, TRAIN, callbacks=[keep], progress=False, **options)
    times, values = seen[0]
    assert times == [0, 0.25, 0.5, 0.75, 1]
    assert values == [schedule.rate(schedule.bases[0], t) for t in range(5)]
    assert values[0] < max(values) > values[-1]
    axes = drawn(rows(1), rates=seen[0]).axes[2]
    assert list(axes.lines[0].get_ydata()) == values
    assert axes.get_xlim() == (0, 1)


def test_zeros_are_drawn_where_the_axis_says_0(drawn):
    axes = drawn(CURVES["zeros"]).axes[1]
    assert axes.lines[1].get_ydata()[-1] == 0
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert dict(zip(axes.get_yticks(), labels, strict=True))[0.0] == "0"
    assert axes.get_yscale() == "symlog"
    assert "10" in labels


@pytest.mark.parametrize(
    ("share", "caption"),
    [(0.347, "34 %"), (0.9899, "98 %"), (0.9949, "99.4 %"), (0.99999, "99.9 %"), (1.0, "100 %")],
)
def test_only_certainty_is_a_hundred_percent(share, caption):
    assert plot._percent(share) == caption


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


def test_which_hundred_are_shown_is_said():
    assert plot._lines(100, 141, 10_000, True)[0].endswith("(1.41 %), the 100 surest")
    assert plot._lines(100, 141, 10_000, False)[0].endswith("(1.41 %), the first 100")
    assert plot._lines(41, 41, 10_000, True)[0].endswith("(0.41 %)")


def test_names_that_the_font_lacks_are_numbers_and_long_ones_keep_to_a_column(tmp_path):
    assert plot._name("猫", 6) == "class 6"
    assert plot._name("Ёлка → …", 6) == "Ёлка → …"
    assert plot._name("a name as long as a sentence", 1) == "a name as lon…"
    assert plot.drawable("猫 on a\udcff") == "\\u732b on a\\udcff"
    names = ("Sonchus oleraceus subsp. littoralis", "Rhamnus pumila")
    labels = np.zeros(40, int)
    path = tmp_path / "e.png"
    plot.contact_sheet(np.full((40, 8, 8, 1), 77), labels, labels + 1, path, "E", classes=names)
    with Image.open(path) as picture:
        columns = (np.asarray(picture.convert("L")) == 0xBB).sum(axis=0)
    assert (columns > 300).sum() >= 2 * 6  # the frames of six columns at least


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
