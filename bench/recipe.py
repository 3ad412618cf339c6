"""Train a recipe with several seeds; print the errors and the seconds of training of each.

    python bench/recipe.py mnist-99 --root data/mnist --seeds 5

Every run is a `deepkit train --recipe NAME --seed S` in a process of its own.  `seconds` is
what its history says: the training loop with cutting and scaling the batches, recording the step
and planning its memory; without compiling kernels, without testing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def trained(recipe: str, seed: int, options: list[str], out: Path) -> dict[str, Any]:
    """One run -> its errors, its seconds of training, and on what device."""
    command = [sys.executable, "-m", "deepkit", "train", "--recipe", recipe, *options]
    subprocess.run([*command, "--seed", str(seed), "--out", str(out), "--quiet"], check=True)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    about = json.loads((out / "run.json").read_text())
    return {
        "seed": seed,
        "errors": rows[-1]["errors"],
        "accuracy": rows[-1]["test_accuracy"],
        "seconds": sum(row["seconds"] for row in rows),
        "device": about["device"],
        "versions": about["versions"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="mnist-99", help="(%(default)s)")
    parser.add_argument("--root", help="the folder that holds the data set's files")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--out", type=Path, help="write the figures there as JSON")
    asked = parser.parse_args()
    for name in ("DEEPKIT_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(asked.threads)
    options = ["--root", asked.root] if asked.root else []
    print(f"{asked.recipe}, {asked.threads} threads")
    print(f"{'seed':>6} {'errors':>7} {'accuracy':>9} seconds")
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(asked.seeds):
            run = trained(asked.recipe, seed, options, Path(folder, str(seed)))
            print("{seed:6} {errors:7} {accuracy:9.2%} {seconds:7.2f}".format(**run), flush=True)
            runs.append(run)
    mean = {key: statistics.mean(r[key] for r in runs) for key in ("errors", "accuracy", "seconds")}
    print("  mean {errors:7.1f} {accuracy:9.3%} {seconds:7.2f}".format(**mean))
    if asked.out:
        record = {
            "benchmark": f"deepkit train --recipe {asked.recipe}",
            "threads": asked.threads,
            "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
            "mean": mean,
            "runs": runs,
        }
        asked.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
