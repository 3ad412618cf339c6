"""The picture: how many times faster than the best of the others, a bar a comparison."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from .report import Row

COLOURS = {1: "#9ecae1", 2: "#2171b5"}  # by threads
MORE = "#08306b"
MUST = "#d94801"


def draw(found: dict[str, Any], rows: list[Row], path: Path) -> None:
    """Networks in one column of panels, ops in another; only those that had somebody to beat."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawn = [r for r in rows if r.mode != "start" and not math.isnan(_ratio(r))]
    panels = {mode: _labels(drawn, mode) for mode in ("train", "infer", "ops")}
    panels = {mode: labels for mode, labels in panels.items() if labels}
    if not panels:
        return
    networks = [mode for mode in panels if mode != "ops"]
    heights = [len(panels[m]) for m in networks]
    tall = max(sum(heights) + 4 * len(networks), len(panels.get("ops", ())) + 4)
    columns = bool(networks) + ("ops" in panels)
    figure = plt.figure(figsize=(8.5 * columns, 1.5 + 0.21 * tall), layout="constrained")
    parts = figure.subfigures(1, columns, squeeze=False)[0]
    if networks:
        axes = parts[0].subplots(len(networks), 1, height_ratios=heights, squeeze=False)[:, 0]
        for ax, mode in zip(axes, networks, strict=True):
            _panel(ax, [r for r in drawn if r.mode == mode], panels[mode], TITLES[mode])
    if "ops" in panels:
        ax = parts[-1].subplots()
        _panel(ax, [r for r in drawn if r.mode == "ops"], panels["ops"], TITLES["ops"])
    about = found["machine"]
    libraries = {k: v for k, v in found["versions"].items() if k not in ("python", "deepkit")}
    figure.suptitle(
        f"deepkit on Numba, times faster than the best of the others   "
        f"({about.get('processor', about['architecture'])}, {about['cores']} cores, "
        f"{about.get('vector_bits', '?')}-bit vectors)\n"
        + ", ".join(f"{name} {version}" for name, version in libraries.items()),
        fontsize=9,
    )
    _legend(figure, drawn)
    figure.savefig(path, dpi=110)
    plt.close(figure)


TITLES = {
    "train": "training steps: against the best of torch and jax",
    "infer": "inference: against torch, onnxruntime, openvino, jax",
    "ops": "ops, forward and backward: against torch",
}


def _ratio(row: Row) -> float:
    """What its target judges, where it has one; else against everybody."""
    return row.ratio if math.isnan(row.judged) else row.judged


def _label(row: Row) -> str:
    if row.mode == "ops":
        label = f"{row.name}  {row.detail}"
        return label if len(label) <= 62 else label[:61] + "…"
    return f"{row.detail}, batch {row.batch}"


def _labels(rows: list[Row], mode: str) -> list[str]:
    return list(dict.fromkeys(_label(r) for r in rows if r.mode == mode))


def _panel(ax: Any, rows: list[Row], labels: list[str], title: str) -> None:
    threads = sorted({r.threads for r in rows})
    thick = 0.8 / len(threads)
    for row in rows:
        ratio, place = _ratio(row), threads.index(row.threads)
        y = labels.index(_label(row)) - 0.4 + thick * (place + 0.5)
        colour = COLOURS.get(row.threads, MORE)
        # from 1, the line of equals: to the right is faster
        ax.barh(y, math.log2(ratio), thick, color=colour, alpha=0.4 if row.busy else 1.0)
        at = max(math.log2(ratio), 0.0)
        ax.text(at, y, f" {ratio:.2g}", va="center", fontsize=5.5)
        if row.target is not None:
            must = math.log2(row.target.must)
            ax.plot([must, must], [y - thick / 2, y + thick / 2], color=MUST, linewidth=1.6)
    ax.axvline(0, color="black", linewidth=0.8)
    low = min(-1.0, *(math.log2(_ratio(r)) for r in rows))
    musts = [r.target.must for r in rows if r.target is not None]
    high = max(1.0, *(math.log2(ratio) for ratio in [*musts, *map(_ratio, rows)]))
    ticks = range(math.floor(low), math.ceil(high) + 1)
    ax.set_xticks(ticks, [f"{2.0**t:g}" for t in ticks], fontsize=7)
    ax.set_xlim(low - 0.2, high + 0.6)
    ax.set_yticks(range(len(labels)), labels, fontsize=6.5)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.grid(axis="x", linewidth=0.3)
    ax.set_axisbelow(True)
    ax.set_title(title, fontsize=9)


def _legend(figure: Any, rows: list[Row]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    known: list[Any] = [
        Patch(color=COLOURS.get(count, MORE), label=f"{count} thread{'s' * (count > 1)}")
        for count in sorted({r.threads for r in rows})
    ]
    if any(r.target for r in rows):
        known.append(Line2D([], [], color=MUST, label="the least that we aim at"))
    if any(r.busy for r in rows):
        known.append(Patch(color="#888888", alpha=0.4, label="paler: others used the machine"))
    figure.legend(handles=known, loc="outside lower center", ncols=len(known), fontsize=8)
