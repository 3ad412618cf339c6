"""What was measured: rows, a table that grows as they come, and JSON."""

from __future__ import annotations

import json
import math
import os
import platform
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from .measure import BUSY, Timing, is_ours
from .targets import START_MS, Target

SCHEMA = 1
PACKAGES = ("deepkit", "numpy", "numba", "torch", "jax", "onnxruntime", "openvino")
HEADS = {
    "deepkit captured": "captured",
    "deepkit eager": "eager",
    "deepkit numpy captured": "np capt.",
    "deepkit numpy eager": "np eager",
    "torch": "torch",
    "torch channels last": "torch cl",
    "torch compiled": "compiled",
    "torch frozen": "frozen",
    "jax": "jax",
    "onnxruntime": "onnxrt",
    "openvino": "openvino",
}


@dataclass(frozen=True)
class Row:
    """One comparison.  `operations` and `nbytes` of one call; `bound_ms`: the roofline's least."""

    mode: str
    name: str
    detail: str
    batch: int
    threads: int
    timings: dict[str, Timing]
    operations: float = 0.0
    nbytes: float = 0.0
    bound_ms: float = 0.0
    target: Target | None = None
    others: float = 0.0  # processors that other processes kept busy meanwhile
    left_out: dict[str, str] = field(default_factory=dict)

    def fastest(self, names: Any) -> str | None:
        here = [n for n in names if n in self.timings]
        return min(here, key=lambda n: self.timings[n].median_ms, default=None)

    @property
    def ours(self) -> str:
        found = self.fastest([n for n in self.timings if is_ours(n)])
        assert found is not None, "deepkit did not take part"
        return found

    @property
    def ours_ms(self) -> float:
        return self.timings[self.ours].median_ms

    @property
    def peer(self) -> str | None:
        return self.fastest([n for n in self.timings if not is_ours(n)])

    def ratio_to(self, name: str | None) -> float:
        return math.nan if name is None else self.timings[name].median_ms / self.ours_ms

    @property
    def ratio(self) -> float:
        """How many times faster than the best of all others; NaN without others."""
        return self.ratio_to(self.peer)

    @property
    def judged(self) -> float:
        """The same against the best of those whom the target names."""
        return math.nan if self.target is None else self.ratio_to(self.fastest(self.target.against))

    @property
    def verdict(self) -> str:
        """ok, below, busy (nothing can be said), or "" where nothing was promised."""
        if self.target is None or math.isnan(self.judged):
            return ""
        if self.busy:
            return "busy"
        return "ok" if self.judged >= self.target.must else "below"

    @property
    def gflops(self) -> float:
        return 1e-6 * self.operations / self.ours_ms

    @property
    def share(self) -> float:
        """How much of the roofline is used; above 1 where an algorithm saves operations."""
        return self.bound_ms / self.ours_ms

    @property
    def busy(self) -> bool:
        """Whether others took enough of the machine to make the figures doubtful."""
        return self.others > BUSY

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        found["timings"] = {name: t._asdict() for name, t in self.timings.items()}
        found["target"] = None if self.target is None else self.target._asdict()
        derived = {"ratio": self.ratio, "judged": self.judged, "gflops": self.gflops}
        derived["share"] = self.share
        numbers = {k: None if math.isnan(v) else round(v, 4) for k, v in derived.items()}
        return found | {"ours": self.ours, "peer": self.peer, **numbers, "verdict": self.verdict}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Row:
        fields = {name: found[name] for name in cls.__dataclass_fields__}
        fields["timings"] = {name: Timing(**t) for name, t in found["timings"].items()}
        if found["target"] is not None:
            against = tuple(found["target"]["against"])
            fields["target"] = Target(**found["target"] | {"against": against})
        return cls(**fields)


# the table ----------------------------------------------------------------------------------------


def _number(value: float, width: int) -> str:
    """Three digits that matter: 0.0123, 1.23, 123."""
    if math.isnan(value):
        return f"{'-':>{width}}"
    digits = min(4, max(0, 2 - math.floor(math.log10(value)))) if value > 0 else 0
    return f"{value:{width}.{digits}f}"


class Table:
    """Prints a head before the first row and wherever other contenders take part."""

    def __init__(self) -> None:
        self.shown: Any = None
        self.said: set[tuple[str, str]] = set()

    def add(self, row: Row) -> None:
        for name, why in row.left_out.items():
            if (name, why) not in self.said:
                self.said.add((name, why))
                print(f"  {name} is left out: {why}")
        columns = [n for n in HEADS if n in row.timings or n in row.left_out]
        columns += [n for n in row.timings if n not in HEADS]
        wide = 66 if row.mode == "ops" else 22
        if self.shown != (row.mode, columns):
            self.shown = row.mode, columns
            print(f"\n{row.mode}: milliseconds, medians; ratio to the best of the others")
            heads = "".join(f"{HEADS.get(n, n)[:9]:>10}" for n in columns)
            print(f"{'':{wide}}{'batch':>6}{'thr':>4}{heads}{'ratio':>8}{'GFLOP/s':>9}{'roof':>6}"
                  f"{'must':>6}{'is':>8}")  # fmt: skip
        label = row.name if row.mode != "ops" else f"{row.name}  {row.detail}"
        if len(label) > wide - 1:
            label = label[: wide - 2] + "…"
        times = "".join(
            _number(row.timings[n].median_ms if n in row.timings else math.nan, 10) for n in columns
        )
        must, judged = ("", "") if not row.verdict else (f"{row.target.must:.1f}", row.judged)  # type: ignore[union-attr]
        end = f"{must:>6}{_number(judged, 8)} {row.verdict}" if row.verdict else ""
        end += f"  (others: {row.others:.1f} processors)" * row.busy
        print(f"{label:{wide}}{row.batch or '':>6}{row.threads:4d}{times}{_number(row.ratio, 8)}"
              f"{row.gflops:9.1f}{100 * row.share:5.0f}%{end}", flush=True)  # fmt: skip


def listed(row: Row) -> None:
    """One comparison, a contender a line."""
    print(f"\n{row.name}, {row.mode}, batch {row.batch}, {row.threads} threads at most, ms")
    print(f"{'':28}{'median':>9}{'best 10 %':>11}{'spread':>8}{'calls':>7}{'a second':>11}"
          f"{'times faster':>14}")  # fmt: skip
    slowest = max(t.median_ms for t in row.timings.values())
    for name, t in sorted(row.timings.items(), key=lambda item: -item[1].median_ms):
        rate = f"{max(row.batch, 1) * 1e3 / t.median_ms:,.0f}"
        print(f"{name:28}{t.median_ms:9.3f}{t.best_ms:11.3f}{100 * t.spread:7.0f}%{t.calls:7d}"
              f"{rate:>11}{slowest / t.median_ms:14.1f}")  # fmt: skip


def summary(rows: list[Row]) -> None:
    """How many promises hold, and which do not."""
    busy = sum(r.busy for r in rows)
    if busy:
        print(f"\n{busy} of {len(rows)} comparisons were made while other processes used the "
              "machine: measure those again")  # fmt: skip
    for r in rows:
        if r.mode == "start":
            least, most = 1e-3 * r.ours_ms, 1e-3 * START_MS
            print(f"\nimport and first step: {least:.2f} s; {most:g} s is the most")
    judged = [r for r in rows if r.verdict in ("ok", "below")]
    below = [r for r in judged if r.verdict == "below"]
    if not judged:
        return
    print(f"\n{len(judged) - len(below)} of {len(judged)} targets are met")
    for r in below:
        what = f"{r.mode}: {r.name}" + (f" {r.detail}" if r.mode == "ops" else f", batch {r.batch}")
        print(f"  below  {what}, {r.threads} threads: {r.judged:.2f} of {r.target.must}")  # type: ignore[union-attr]


# JSON ---------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    found: dict[str, Any] = {"architecture": platform.machine(), "cores": os.cpu_count()}
    about = Path("/proc/cpuinfo")
    if about.exists():
        lines = [line.partition(":") for line in about.read_text().splitlines()]
        models = [value.strip() for name, _, value in lines if name.strip() == "model name"]
        found |= {"processor": models[0]} if models else {}
    try:
        from deepkit.backends.numba.machine import VECTOR_BYTES
    except ImportError:
        return found
    return found | {"vector_bits": 8 * VECTOR_BYTES}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def record(rows: list[Row], roofs: dict[int, Any], command: str) -> dict[str, Any]:
    """Everything, as JSON holds it."""
    return {
        "benchmark": "cpu",
        "schema": SCHEMA,
        "command": command,
        "machine": machine(),
        "versions": versions(),
        "roofline": {
            str(threads): {
                "peak_gflops": round(roof.peak, 1),
                "gbytes_per_second": {
                    str(size): round(band, 1) for size, band in roof.bands.items()
                },
            }
            for threads, roof in roofs.items()
        },
        "rows": [row.to_json() for row in rows],
    }


def save(path: Path, found: dict[str, Any]) -> None:
    """Written aside and moved, so that an interrupted run leaves a whole file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(found, indent=1) + "\n")
    aside.replace(path)


def load(path: Path) -> tuple[dict[str, Any], list[Row]]:
    found = json.loads(path.read_text())
    if found.get("benchmark") != "cpu" or found.get("schema") != SCHEMA:
        raise ValueError(f"{path} is no record of this benchmark, schema {SCHEMA}")
    return found, [Row.from_json(row) for row in found["rows"]]
