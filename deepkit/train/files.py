"""Small files, written whole: a reader, or a crash, meets the old file or the new one."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from ..checkpoint import temporary_name


@contextlib.contextmanager
def whole(path: str | PathLike[str]) -> Iterator[Path]:
    """`with whole("a.png") as temporary:` fill `temporary`; then it takes the name of `path`.

    The temporary file lies beside `path`, under a name of its own. It is gone if the block raises;
    one that a killed process left goes with the next.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | PathLike[str], text: str) -> None:
    """Write `text` (UTF-8, line ends as they are) whole."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(path: str | PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, whole."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
