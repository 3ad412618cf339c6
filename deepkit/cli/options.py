"""Types of option values, which say what they expected."""

from __future__ import annotations

import argparse
from collections.abc import Callable

MOST = 2**63 - 1  # what a counter holds
LONGEST = 2**31 - 1  # pixels in a row


def whole(least: int) -> Callable[[str], int]:
    """A whole number of at least `least`, and below 2^63."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= MOST:
            bound = f"of at least {least}" if value < least else "below 2^63"
            raise argparse.ArgumentTypeError(f"a whole number {bound} was expected, not '{text}'")
        return value

    return convert


def number(
    above: float | None = None, least: float | None = None, most: float | None = None
) -> Callable[[str], float]:
    """A finite number, above one bound or at least another, and at most a third."""
    bound = f"above {above:g}" if above is not None else f"of at least {least:g}"
    bound += "" if most is None else f" and at most {most:g}"

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        good = value > above if above is not None else value >= (least or 0)
        if not good or value == float("inf") or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"a number {bound} was expected, not '{text}'")
        return value

    return convert


def shape(text: str) -> tuple[int, ...]:
    """ "28,28,1" -> (28, 28, 1)."""
    try:
        found = tuple(int(d) for d in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1 or max(found) > LONGEST:
        raise argparse.ArgumentTypeError(
            f"whole numbers with commas, such as 28,28,1 (height, width, channels), were expected, "
            f"not '{text}'"
        )
    return found


def size(text: str) -> tuple[int, int]:
    """ "28" or "28,32" -> (28, 28) or (28, 32)."""
    found = shape(text)
    if len(found) > 2:
        raise argparse.ArgumentTypeError(f"one or two numbers were expected, not '{text}'")
    return found[0], found[-1]


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device, the same in every command that has it."""
    parser.add_argument(
        "--device",
        metavar="D",
        help="numpy, numba, cuda (cuda:1 is the second GPU), cuda-sim (slow, to find mistakes), or "
        "auto, the default: cuda where it works, else numba, else numpy ('deepkit devices' says "
        "what works here)",
    )


def add_data(parser: argparse.ArgumentParser, default: str) -> None:
    """--data and --root."""
    parser.add_argument(
        "--data",
        metavar="NAME|PATH",
        help="digits, mnist, fashion-mnist, cifar10, or a path: .npz (images, labels), IDX files, "
        f"CIFAR-10 batches, a folder with a folder of images for each class (default: {default})",
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="the folder that holds the files of a named data set (default: DEEPKIT_DATA, else a "
        "download)",
    )
