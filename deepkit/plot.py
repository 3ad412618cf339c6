"""Pictures of a training run: learning curves (matplotlib) and a contact sheet of errors (Pillow).

Both are the extra `plot` of this package, and are imported when a picture is drawn.
Colours are Okabe and Ito's, which people with any colour vision can tell apart; lines differ in
their dashes and markers as well.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from .train.files import whole

BLUE, ORANGE, INK, GREY = "#0072B2", "#D55E00", "#1A1A1A", "#5F5F5F"
PARTS = {"train": (BLUE, "--", "o"), "test": (ORANGE, "-", "s")}  # colour, line, marker


def missing() -> list[str]:
    """The packages that pictures need and that are not installed."""
    packages = {"matplotlib": "matplotlib", "pillow": "PIL"}
    return [name for name, module in packages.items() if not importlib.util.find_spec(module)]


# learning curves ----------------------------------------------------------------------------------


def learning_curves(
    rows: Iterable[dict[str, Any]],
    path: str | PathLike[str],
    title: str,
    *,
    subtitle: str = "",
    loss: str = "loss",
    rates: tuple[Sequence[float], Sequence[float]] | None = None,
) -> None:
    """Draw the loss, the error rate and the learning rate of each epoch into a PNG.

    `rows` are those of a `History`, at least one; `loss` names the loss and its unit on the axis.
    `rates`: (epochs from 0 on, learning rates from there), where more is known than the rows say,
    which is the rate of the last step of each epoch.
    Loss and error rate have logarithmic axes where they fall by more than a factor of ten: the last
    epochs, which matter, are not flattened by the first. Below the smallest number above 0 such an
    axis is linear, down to 0.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = list(rows)
    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(14, 5), dpi=110)
    FigureCanvasAgg(figure)
    figure.text(0.045, 0.955, title, va="top", fontsize=16, weight="bold", color=INK)
    figure.text(0.045, 0.88, subtitle, va="top", fontsize=11.5, color=GREY)
    panels = figure.subplots(1, 3, width_ratios=(5, 5, 3.2))
    figure.subplots_adjust(left=0.065, right=0.97, top=0.73, bottom=0.12, wspace=0.32)
    losses = {part: [row[f"{part}_loss"] for row in rows] for part in PARTS}
    _frame(panels[0], "Loss", loss, epochs)
    _curves(panels[0], epochs, losses)
    _frame(panels[1], "Error rate", "wrong images (%)", epochs)
    _curves(panels[1], epochs, {part: _error_rates(rows, part) for part in PARTS}, "%.3g %%")
    _rates(panels[2], epochs, [row["lr"] for row in rows], rates)
    with whole(path) as temporary:
        figure.savefig(temporary, format="png")


def _rates(
    axes: Any,
    epochs: list[int],
    ends: list[float],
    steps: tuple[Sequence[float], Sequence[float]] | None,
) -> None:
    style = {"color": GREY, "linewidth": 1.8, "clip_on": False}
    if steps is None:
        _frame(axes, "Learning rate", "at the end of the epoch", epochs)
        axes.plot(epochs, ends, ".-", **style)
    else:
        _frame(axes, "Learning rate", "of each step", [0, *epochs])
        axes.plot(*steps, "-", drawstyle="steps-post", **style)
        axes.set_xlim(0, max(epochs))
    _linear(axes, 0, max(ends if steps is None else steps[1]))


def _error_rates(rows: Sequence[dict[str, Any]], part: str) -> list[float | None]:
    accuracies = [row[f"{part}_accuracy"] for row in rows]
    return [None if a is None else 100 * (1 - a) for a in accuracies]


def _frame(axes: Any, title: str, label: str, epochs: list[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left", fontsize=12.5, color=INK, pad=10)
    axes.set_xlabel("epoch", fontsize=11)
    axes.set_ylabel(label, fontsize=11)
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.xaxis.set_major_locator(
        MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    )
    axes.tick_params(labelsize=10, colors=INK)
    axes.grid(True, color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _curves(
    axes: Any, epochs: list[int], series: dict[str, list[float | None]], last: str = "%.3g"
) -> None:
    """One line a part; the legend, above the panel, says where each ended."""
    measured = [v for values in series.values() for v in values if v is not None]
    positive = [v for v in measured if v > 0]
    if not positive:
        axes.set_yticks([])
        words = "0 in every epoch" if measured else "not measured"
        axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", fontsize=11, color=GREY)
        return
    low, high = min(measured), max(positive)
    if high < 10 * min(positive):
        _linear(axes, low, high)
    else:
        _logarithmic(axes, low, min(positive), high)
    for part, values in series.items():
        known = [(e, v) for e, v in zip(epochs, values, strict=True) if v is not None]
        if not known:
            continue
        colour, line, marker = PARTS[part]
        axes.plot(
            [e for e, _ in known],
            [v for _, v in known],
            line,
            color=colour,
            marker=marker if len(known) <= 40 else "",
            markersize=4.5,
            linewidth=1.8,
            clip_on=False,
            label=f"{part}: {last % known[-1][1]} at the end",
        )
    axes.legend(
        frameon=False, fontsize=10.5, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2
    )


def _linear(axes: Any, low: float, high: float) -> None:
    """Plain ticks over the range, with room for the markers at its ends."""
    from matplotlib.ticker import MaxNLocator

    room = 0.06 * ((high - low) or abs(high) or 1.0)
    axes.set_ylim(low - room, high + room)
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(_plain)


def _logarithmic(axes: Any, low: float, least: float, high: float) -> None:
    """A logarithmic axis from `least` above 0; where there are zeros, it goes on to 0 linearly."""
    from matplotlib.ticker import FixedLocator, NullLocator

    bend = max(least, 1e-6 * high)
    if low >= bend:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.25, high * 1.25)
    else:
        bend = 10.0 ** math.floor(math.log10(bend))  # a float: matplotlib cannot take large ints
        axes.set_yscale("symlog", linthresh=bend, linscale=0.6)
        axes.set_ylim(min(low, 0.0) - 0.08 * bend, high * 1.25)
    bottom, top = bend / 1.25, high * 1.25
    powers = range(math.floor(math.log10(bottom)), math.ceil(math.log10(top)) + 1)
    steps = (1, 2, 5) if math.log10(top / bottom) < 2.5 else (1,)
    every = -(-len(powers) // 8)
    ticks = [k * 10.0**n for n in powers[::every] for k in steps if bottom <= k * 10.0**n <= top]
    axes.yaxis.set_major_locator(FixedLocator([*([0.0] if low < bend else []), *ticks]))
    axes.yaxis.set_major_formatter(_plain)
    axes.yaxis.set_minor_locator(NullLocator())


def _plain(value: float, _: Any) -> str:
    """A tick's number, whole: no factor at the end of the axis."""
    return f"{value + 0.0:.6g}"


# contact sheet ------------------------------------------------------------------------------------

PAPER, FRAME = "#FFFFFF", "#BBBBBB"
MARGIN, GAP, COLUMNS, MOST = 36, 18, 10, 100  # pixels, pixels, images a row, images on a sheet
SHORT, LONG = 6, 14  # characters of a name: more than one line has, more than a name keeps


def contact_sheet(
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    path: str | PathLike[str],
    title: str,
    *,
    classes: Sequence[str] | None = None,
    confidences: np.ndarray | None = None,
) -> None:
    """Draw the images that were taken for something else, captioned "4 → 6", into a PNG.

    images (N, H, W, C), uint8 or float in any range, C 1, 3 or whatever is averaged to grey;
    labels and predictions (N,), class indices into `classes`; a name that the font cannot draw
    becomes "class 6", and a long one loses its end. `confidences` (N,), the probabilities of the
    predictions, in [0, 1]: the surest errors come first. At most 100.
    """
    from PIL import Image, ImageDraw

    wrong = np.flatnonzero(labels != predictions)
    order = wrong if confidences is None else wrong[np.argsort(-confidences[wrong], kind="stable")]
    shown = order[:MOST]
    names = classes or [str(k) for k in range(int(max(labels.max(), predictions.max())) + 1)]
    names = [_name(name, k) for k, name in enumerate(names)]
    long = max(map(len, names)) > SHORT
    arrow = "\n→ " if long else " → "
    captions = [f"{names[labels[i]]}{arrow}{names[predictions[i]]}" for i in shown]
    heading, text, small = _font(24, bold=True), _font(17), _font(13)
    title = drawable(title)

    height, width = images.shape[1:3]
    scale = max(1, round(96 / max(height, width)))  # whole, so that every pixel stays a square
    words = [line for caption in captions for line in caption.splitlines()]
    cell = max([width * scale, *(math.ceil(text.getlength(w)) for w in words)])
    below = 48 if long else 26
    row = height * scale + below + (18 if confidences is not None else 0)
    columns = max(1, min(COLUMNS, len(shown), (1500 - 2 * MARGIN) // (cell + GAP)))
    rows = math.ceil(len(shown) / columns)
    lines = _lines(len(shown), len(wrong), len(labels), confidences is not None)
    top = MARGIN + 40 + 24 * len(lines) + 14
    wide = max([heading.getlength(title), *(text.getlength(line) for line in lines)])
    wide = max(math.ceil(wide), columns * (cell + GAP) - GAP)
    sheet = Image.new("RGB", (wide + 2 * MARGIN, top + rows * (row + GAP) - GAP + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 8), title, font=heading, fill=INK)
    for k, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + 32 + 24 * k), line, font=text, fill=GREY)

    for k, i in enumerate(shown):
        x, y = MARGIN + (k % columns) * (cell + GAP), top + (k // columns) * (row + GAP)
        middle, left = x + cell // 2, x + (cell - width * scale) // 2
        tile = Image.fromarray(_pixels(images[i]))
        tile = tile.resize((width * scale, height * scale), Image.Resampling.NEAREST)
        draw.rectangle((left - 1, y - 1, left + tile.width, y + tile.height), outline=FRAME)
        sheet.paste(tile, (left, y))
        y += tile.height + 4
        for n, words_of in enumerate(captions[k].splitlines()):
            draw.text((middle, y + 22 * n), words_of, font=text, fill=INK, anchor="ma")
        if confidences is not None:
            share = _percent(confidences[i])
            draw.text((middle, y + below - 4), share, font=small, fill=GREY, anchor="ma")
    with whole(path) as temporary:
        sheet.save(temporary, format="PNG")


def _percent(share: float) -> str:
    """A probability so that only 1 is 100 %: with a digit where whole percents say too little."""
    if 0.99 <= share < 1:
        return f"{min(math.floor(1000 * share) / 10, 99.9):.1f} %"
    return f"{math.floor(100 * share)} %"


def _lines(shown: int, wrong: int, count: int, sure: bool) -> list[str]:
    if not wrong:
        return [f"None of {count:,} test images was taken for another class."]
    part = "" if shown == wrong else f", the {shown} surest" if sure else f", the first {shown}"
    lines = [f"{wrong:,} of {count:,} test images ({100 * wrong / count:.2f} %){part}"]
    caption = "Captions: true class → predicted class"
    return [*lines, caption + (", and its probability; the surest come first" if sure else "")]


def _pixels(image: np.ndarray) -> np.ndarray:
    """One image (H, W, C) as uint8 that Pillow takes: (H, W) or (H, W, 3)."""
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = ((image - low) * (255 / (high - low or 1))).round().astype(np.uint8)
    if image.shape[2] == 3:
        return np.ascontiguousarray(image)
    return image.mean(axis=2).round().astype(np.uint8)


def drawable(text: str) -> str:
    """The text with an escape for every character that the pictures' font lacks."""
    known = _characters()
    return "".join(
        c if ord(c) in known else c.encode("ascii", "backslashreplace").decode() for c in text
    )


def _name(name: str, index: int) -> str:
    """A class's name as a caption has it."""
    if drawable(name) != name:
        return f"class {index}"
    return name if len(name) <= LONG else f"{name[: LONG - 1]}…"


@functools.cache
def _characters() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(_font(12).path).get_charmap())


def _font(size: int, bold: bool = False) -> Any:
    """matplotlib's own DejaVu Sans, which knows the arrow and most of the world's letters."""
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)
