"""Small files of a run, written whole."""

from __future__ import annotations

import json
from os import PathLike
from typing import Any

from ..files import whole

__all__ = ["whole", "write_json", "write_text"]


def write_text(path: str | PathLike[str], text: str) -> None:
    """Write `text` (UTF-8, line ends as they are) whole.

    What UTF-8 cannot hold, such as a byte of a file's name that is no text, becomes an escape like
    \\udcff, as JSON has it.
    """
    with whole(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_json(path: str | PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, whole."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
