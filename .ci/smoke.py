"""deepkit as a user installs it, with NumPy alone: imports light and fast, and trains."""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

HEAVY = {"numba", "llvmlite", "cupy", "matplotlib", "torch", "PIL", "requests", "pooch"}
TIMED = "import time; t = time.perf_counter(); import deepkit; print(time.perf_counter() - t)"


def check_import(most_seconds: float | None) -> None:
    import deepkit

    package = Path(deepkit.__file__).parent
    assert "site-packages" in package.parts, f"not the installed package: {package}"
    assert (package / "py.typed").is_file()
    assert (package / "kernels").is_dir()
    loaded = HEAVY & set(sys.modules)
    assert not loaded, f"import deepkit loads {', '.join(sorted(loaded))}"
    if most_seconds is not None:
        run = [sys.executable, "-c", TIMED]
        times = [float(subprocess.check_output(run, text=True)) for _ in range(9)]
        median = statistics.median(times)
        print(f"import deepkit: {median:.3f} s, the median of 9 (the most is {most_seconds} s)")
        assert median < most_seconds


def check_training() -> None:
    import deepkit as dk

    dk.seed(0)
    images, labels = dk.data.digits()
    model = dk.models.mlp(64, 32, 10)
    optimizer = dk.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    @dk.capture
    def step(x, y):
        loss = dk.ops.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    losses = []
    for _ in range(3):
        for first in range(0, len(images), 128):
            batch = slice(first, first + 128)
            x = dk.tensor(images[batch].reshape(-1, 64).astype("float32") / 255)
            losses.append(step(x, dk.tensor(labels[batch])).item())
    print(f"training on {model_device(model)}: loss {losses[0]:.3f} to {losses[-1]:.3f}")
    assert losses[-1] < 0.5 * losses[0]


def model_device(model) -> str:
    return str(next(iter(model.parameters())).device)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--import-seconds", type=float, help="the most `import deepkit` may take")
    check_import(parser.parse_args().import_seconds)
    check_training()
    print(f"Python {sys.version.split()[0]}: fine")
