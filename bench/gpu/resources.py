"""What every CUDA kernel takes of a GPU, from the compiler's log: no driver and no GPU needed.

    python -m bench.gpu.resources            # compare with the table that is checked in
    python -m bench.gpu.resources --write    # after a change that is meant to be

A file is compiled for every combination of types that the ops' samples use with floats in it, for
each generation of GPU: float32 for all of them, float64 for one.  A kernel that spills, that needs
a stack, or that takes more registers than the table says is a finding.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parents[1] / "results" / "cuda-resources.json"
TARGETS = ("sm_75", "sm_80", "sm_90", "sm_100")
TARGETS_64 = ("sm_90",)  # of files in float64
TARGETS_TENSOR = ("sm_80", "sm_90")  # of files that multiply on tensor cores
TENSOR_OPS = ("linear", "linear_dx", "linear_dw", "conv2d", "conv2d_dx", "conv2d_dw")
ONLY_90A = ("wgmma",)  # instructions of sm_90a alone: files that have them in their text
# CUDA's own sine of large float64 arguments keeps its reduction on a stack
ALLOWED_STACKS = {("sin", "double"), ("cos", "double")}
REGISTERS, WARPS = 65536, 64  # of a multiprocessor
THREADS = 256  # of a block whose kernel promises no number

Types = tuple[tuple[str, str], ...]


def used() -> list[tuple[str, Types]]:
    """(file, what its placeholders stand for), as the samples of all ops launch them."""
    from deepkit.backends import PRECISIONS, get, precision
    from deepkit.testing import check_backend

    check_backend("cuda-sim", random=0)
    for name in PRECISIONS[1:]:  # what float32's tolerances make of them is not the question here
        with precision(name):
            check_backend("cuda-sim", TENSOR_OPS, random=0, dtypes=["float32"], strict=False)
    found = set(get("cuda-sim").driver.used()) | set(larger())
    floats = {"float", "double"}
    return sorted((s, t) for s, t in found if not t or floats & {v for _, v in t})


def larger() -> list[tuple[str, Types]]:
    """Tiles that samples are too small for."""
    from deepkit.backends.cuda import conv_direct, conv_tensor
    from deepkit.backends.cuda.products import PRECISIONS

    def types(tile: Any, **first: Any) -> Types:
        return tuple((k, str(v)) for k, v in ({"T": "float"} | first | tile._asdict()).items())

    found = [(f, types(t)) for t in conv_direct.LARGE for f in ("conv_tiled", "conv_tiled_dw")]
    for precision in sorted(set(PRECISIONS.values())):
        tile = types(conv_tensor.LARGE[0], PRECISION=precision)
        found += [("conv_tensor", tile), ("conv_tensor_dw", tile)]
        if precision != PRECISIONS["3xtf32"]:  # which warpgroups do not have
            found.append(("linear_wgmma", (("T", "float"), ("PRECISION", str(precision)))))
    return found


def targets(stem: str, types: Types) -> tuple[str, ...]:
    from deepkit.backends.cuda.sources import source

    if any(word in source(stem).text for word in ONLY_90A):
        return ("sm_90a",)
    if "PRECISION" in dict(types):
        return TARGETS_TENSOR
    return TARGETS_64 if ("T", "double") in types else TARGETS


def label(stem: str, types: Types) -> str:
    return " ".join([stem, *[f"{k}={v}" for k, v in types]])


def compiled(combinations: list[tuple[str, Types]]) -> dict[str, Any]:
    """label -> target -> kernel -> [registers, stack, spills, shared]."""
    from deepkit.backends.cuda import nvrtc

    def one(job: tuple[str, Types, str]) -> tuple[str, str, dict[str, list[int]]]:
        stem, types, target = job
        log = nvrtc.compile_file(stem, types, target).log
        return label(stem, types), target, {k: list(v) for k, v in nvrtc.resources(log).items()}

    jobs = [(s, t, target) for s, t in combinations for target in targets(s, t)]
    found: dict[str, Any] = {}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for name, target, kernels in pool.map(one, jobs):
            found.setdefault(name, {})[target] = dict(sorted(kernels.items()))
    return found


def parse(name: str) -> tuple[str, Types]:
    """The combination of a label."""
    stem, *types = name.split(" ")
    joined: list[list[str]] = []
    for word in types:  # "T=unsigned char" has a space of its own
        if "=" in word:
            joined.append(word.split("="))
        else:
            joined[-1][1] += f" {word}"
    return stem, tuple((k, v) for k, v in joined)


def findings(now: dict[str, Any], table: dict[str, Any]) -> Iterator[str]:
    """What is wrong with kernels as they compile now, in sentences."""
    for name, by_target in now.items():
        for target, kernels in by_target.items():
            known = table.get(name, {}).get(target, {})
            for kernel, (registers, stack, spills, shared) in kernels.items():
                where = f"{kernel} of {name} on {target}"
                allowed = (kernel, dict(parse(name)[1]).get("T")) in ALLOWED_STACKS
                if spills or (stack and not allowed):
                    yield f"{where}: {spills} bytes spilled, {stack} bytes of stack"
                if kernel not in known:
                    yield f"{where} is not in the table"
                elif registers > known[kernel][0] or shared > known[kernel][3]:
                    yield (
                        f"{where}: {registers} registers and {shared} bytes of shared memory; the "
                        f"table has {known[kernel][0]} and {known[kernel][3]}"
                    )


def occupancy(registers: int, threads: int) -> float:
    """The share of a multiprocessor's warps that its registers allow."""
    a_warp = -(-registers * 32 // 256) * 256  # registers are given out 256 at a time
    warps = threads // 32
    return min(WARPS, REGISTERS // a_warp // warps * warps) / WARPS


def show(now: dict[str, Any]) -> None:
    from deepkit.backends.cuda.sources import source

    print(f"{'kernel':44} {'registers':>22} {'shared':>7} {'occupancy':>9}   (sm_75 ... sm_100)")
    for name, by_target in now.items():
        signatures = source(parse(name)[0]).kernels
        for kernel in next(iter(by_target.values())):
            found = [by_target[t][kernel] for t in by_target]
            most = signatures[kernel].most_threads
            threads = THREADS if most == 1024 else most
            registers = " ".join(str(f[0]) for f in found)
            share = occupancy(max(f[0] for f in found), threads)
            print(f"{f'{kernel} ({name})':44} {registers:>22} {found[0][3]:7} {share:8.0%}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.resources", description=__doc__)
    parser.add_argument("--write", action="store_true", help="make the table what is compiled now")
    asked = parser.parse_args()
    from deepkit.backends.cuda import nvrtc

    try:
        nvrtc.library()
    except RuntimeError as error:
        sys.exit(str(error))
    print("compiling every kernel for every generation of GPU: a minute or two", flush=True)
    now = compiled(used())
    show(now)
    version = ".".join(map(str, nvrtc.version()))
    if asked.write:
        found = list(findings(now, now))
        TABLE.write_text(json.dumps({"nvrtc": version, "kernels": now}, indent=1) + "\n")
    else:
        found = list(findings(now, json.loads(TABLE.read_text())["kernels"]))
    print(*found, f"NVRTC {version}: {len(found)} findings", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
