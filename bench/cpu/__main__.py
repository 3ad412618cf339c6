"""python -m bench.cpu [train|infer|ops|start|all|draw]: see --help."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MODES = ("train", "infer", "ops", "start")
BATCHES = {"train": (1, 16, 64, 100, 128), "infer": (1, 16, 64, 128)}
SECONDS = {"train": 3.0, "infer": 3.0, "ops": 1.0, "start": 0.0}
NAMES = ("mlp", "lenet5", "vgg_small", "vgg_small_bn", "resnet20")
RESULTS = Path(__file__).resolve().parents[1] / "results"
CORES = os.cpu_count() or 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.cpu",
        description="deepkit's Numba backend beside torch, jax, onnxruntime and openvino, where "
        "they are installed: alternated in one process, compared by medians.",
    )
    parser.add_argument("mode", nargs="?", default="all", choices=[*MODES, "all", "draw"])
    parser.add_argument("file", nargs="?", type=Path, help="for draw: the JSON to draw")
    add = parser.add_argument
    add("--network", nargs="+", choices=NAMES, default=list(NAMES))
    add("--batch", nargs="+", type=int, help="default: 1 16 64 100 128; for infer without 100")
    add("--threads", nargs="+", type=int, default=sorted({1, min(2, CORES)}))
    add("--op", nargs="+", default=[], help="for ops: only these")
    add("--seconds", type=float, help="for each comparison (3; ops: 1)")
    add("--device", nargs="+", default=["numba"], help="of deepkit: numba, numpy (%(default)s)")
    add("--no-compile", action="store_true", help="leave torch.compile out: it takes most minutes")
    add("--out", type=Path, help="JSON; a picture goes beside it")
    asked = parser.parse_args()
    if (asked.mode == "draw") != (asked.file is not None):
        parser.error("a file goes with draw, and only with it")
    if min(asked.threads) < 1 or min(asked.batch or [1]) < 1:
        parser.error("threads and batches are whole numbers from 1")
    return asked


def main() -> int:
    asked = arguments()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(max(asked.threads))  # read when NumPy and torch are imported
    from . import draw, report, run

    if asked.mode == "draw":
        found, rows = report.load(asked.file)
        draw.draw(found, rows, asked.file.with_suffix(".png"))
        return 0
    out = asked.out
    if out is None and asked.mode == "all":
        out = RESULTS / f"cpu-{CORES}core.json"
    table, rows = report.Table(), []
    roofs = run.Roofs(asked.threads)
    for threads, roof in roofs.items():
        bands = ", ".join(f"{band:.0f} ({1e-6 * size:.1f} MB)" for size, band in roof.bands.items())
        print(f"{threads} threads: {roof.peak:.0f} GFLOP/s of multiply-adds at most; GB/s {bands}")
    command = " ".join(["python -m bench.cpu", *sys.argv[1:]])
    for row in _rows(asked, run, roofs):
        rows.append(row)
        table.add(row)
        if out is not None:
            report.save(out, report.record(rows, roofs, command))
    if len(rows) == 1:
        report.listed(rows[0])
    report.summary(rows)
    if out is not None and rows:
        draw.draw(report.record(rows, roofs, command), rows, out.with_suffix(".png"))
        print(f"\nwritten: {out} and {out.with_suffix('.png').name}")
    return 0


def _rows(asked: argparse.Namespace, run: Any, roofs: Any) -> Iterator[Any]:
    for mode in MODES if asked.mode == "all" else (asked.mode,):
        seconds = SECONDS[mode] if asked.seconds is None else asked.seconds
        if mode == "ops":
            yield from run.ops(asked.op, asked.threads, seconds, roofs)
        elif mode == "start":
            yield from run.start(asked.threads)
        else:
            batches = asked.batch or BATCHES[mode]
            for name in asked.network:
                for batch in batches:
                    for threads in asked.threads:
                        yield run.network(
                            mode, name, batch, threads, seconds, roofs.now(threads),
                            devices=asked.device, compile=not asked.no_compile,
                        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
