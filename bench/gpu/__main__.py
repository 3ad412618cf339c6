"""python -m bench.gpu [memory|products|convolutions|train|compiled]: see --help."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.cpu.networks import NETWORKS

PARTS = ("memory", "products", "convolutions", "train", "compiled")
PRECISIONS = ("float32", "tf32", "bfloat16")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description="PyTorch, with cuDNN and cuBLAS, on the GPU of this machine: what our own "
        "kernels are to be compared with. Device time of ops, steps of networks in turns.",
    )
    parser.add_argument("part", nargs="*", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--seconds", type=float, default=600.0, help="begin no row after these")
    parser.add_argument("--out", type=Path, required=True, help="JSON, whole after every row")
    asked = parser.parse_args()
    for part in asked.part:
        if part not in PARTS:
            parser.error(f"{part!r} is no part of this bench: {', '.join(PARTS)}")
    return asked


def rows_of(part: str, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from . import networks, ops

    if part == "memory":
        return ops.bound_by_memory()
    if part == "products":
        return ops.products(asked.precision)
    if part == "convolutions":
        return ops.convolutions(asked.precision)
    kinds = ("eager", "graph", "compiled") if part == "compiled" else ("eager", "graph")
    return networks.training(kinds, asked.network, asked.precision)


def main() -> int:
    asked = arguments()
    try:
        import torch
    except ImportError:
        sys.exit("bench.gpu compares with PyTorch, which is not installed")
    if not torch.cuda.is_available():
        sys.exit("bench.gpu needs a CUDA GPU: PyTorch sees none here")
    from bench.cpu import report

    about = torch.cuda.get_device_properties(0)
    machine = report.machine() | {"gpu": about.name, "gpu_bytes": about.total_memory}
    versions = report.versions() | {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
    rows: list[dict[str, Any]] = []
    found = {
        "benchmark": "gpu",
        "schema": 1,
        "command": "python -m bench.gpu " + " ".join(sys.argv[1:]),
        "machine": machine,
        "versions": versions,
        "rows": rows,
    }
    end = time.monotonic() + asked.seconds
    for part in asked.part:
        for row in rows_of(part, asked):
            rows.append({"part": part, **row})
            report.save(asked.out, found)
            print(*(f"{k}={v}" for k, v in rows[-1].items()), flush=True)
            if time.monotonic() > end:
                print(f"stopped in {part}: {asked.seconds:g} s are over")
                return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
