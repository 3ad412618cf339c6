"""Numbers in sentences."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """1 epoch, 2 epochs, 1,437 errors; also classes, batches, launches."""
    several = noun + ("es" if noun.endswith(("s", "tch", "nch")) else "s")
    return f"{count:,} {noun if count == 1 else several}"
