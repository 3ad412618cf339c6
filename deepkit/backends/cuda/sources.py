"""The `.cu` files: where they are, what one holds once its headers are written into it, and the
parameters of its kernels, so that the host cannot call one with others."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

TYPES = {  # dtype -> its name in CUDA C++
    "bool": "bool",
    "int8": "signed char",
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned",
    "int64": "i64",
    "uint64": "u64",
    "float32": "float",
    "float64": "double",
}


class Parameter(NamedTuple):
    """`const T* x` -> ("x", "T", True)."""

    name: str
    type: str
    pointer: bool


class Signature(NamedTuple):
    parameters: tuple[Parameter, ...]
    most_threads: int  # of a block


class Source(NamedTuple):
    stem: str
    text: str  # without #include
    kernels: dict[str, Signature]


@functools.cache
def folder() -> Path:
    """`kernels/` of the repository, or the copy that an installed package carries."""
    package = Path(__file__).resolve().parents[2]
    inside = package / "kernels"
    return inside if inside.is_dir() else package.parent / "kernels"


def stems() -> list[str]:
    """All `.cu` files."""
    return sorted(path.stem for path in folder().glob("*.cu"))


@functools.cache
def source(stem: str) -> Source:
    """A file of kernels/ by its stem, or any other by its path, read once."""
    path = Path(stem) if stem.endswith(".cu") else folder() / f"{stem}.cu"
    text = _joined(path, set())
    return Source(path.stem, text, _signatures(text))


def placeholders(types: tuple[tuple[str, str], ...]) -> str:
    """What stands before a file: T is float, and so on; numbers are macros, for `#if`."""
    lines = [f"#define {k} {v}" if v.isdigit() else f"typedef {v} {k};" for k, v in types]
    return "\n".join(["typedef long long i64;", "typedef unsigned long long u64;", *lines, ""])


_INCLUDE = re.compile(r'^#include "([\w.]+)"[^\n]*$', re.MULTILINE)


def _joined(path: Path, seen: set[str]) -> str:
    """A file with the headers that it names written into it, each of them once.

    So a compiler needs no folder, and what is cached by its text is never old.
    """

    def replace(match: re.Match) -> str:
        name = match[1]
        if name in seen:
            return ""
        seen.add(name)
        beside = path.parent / name
        header = _joined(beside if beside.exists() else folder() / name, seen)
        return f'#line 1 "{name}"\n{header}\n#line {_line_after(match)} "{path.name}"'

    text = path.read_text(encoding="utf-8")
    return _INCLUDE.sub(replace, text.replace("#pragma once\n", "\n"))


def _line_after(match: re.Match) -> int:
    return match.string.count("\n", 0, match.start()) + 2


_KERNEL = re.compile(
    r"\b(?:KERNEL\(|(?:LIMITED|RESIDENT)_KERNEL\((?P<threads>\w+),\s*(?:\w+,\s*)?)"
    r"(?P<name>[\w#]+)\)[\s\\]*\("
)
_MACRO = re.compile(r"^#define (\w+)\(name\b[^)]*\)((?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE)
_COMMENT = re.compile(r"//[^\n]*")


def _signatures(text: str) -> dict[str, Signature]:
    """Every KERNEL(name)(parameters), those that a macro over `name` makes included."""
    text = _COMMENT.sub("", text)
    found: dict[str, Signature] = {}
    for macro, body in _MACRO.findall(text):
        made = [(m, _parameters(body, m.end())) for m in _KERNEL.finditer(body)]
        for name in re.findall(rf"^{macro}\((\w+)", text, re.MULTILINE):
            for match, parameters in made:
                full = re.sub(r"\bname\b", name, match["name"]).replace("##", "")
                found[full] = Signature(parameters, _most_threads(match))
    plain = re.sub(r"^#define(?:[^\n]*\\\n)*[^\n]*", "", text, flags=re.MULTILINE)
    for match in _KERNEL.finditer(plain):
        parameters = _parameters(plain, match.end())
        found[match["name"]] = Signature(parameters, _most_threads(match))
    return found


def _most_threads(match: re.Match) -> int:
    """What a kernel promises, where that is a number and not a constant of its file."""
    given = match["threads"] or ""
    return int(given) if given.isdigit() else 1024


def _parameters(text: str, start: int) -> tuple[Parameter, ...]:
    inside = text[start : text.index(")", start)].replace("\\\n", " ")
    found = []
    for part in inside.split(","):
        words = part.replace("*", " * ").replace("__restrict__", " ").split()
        words = [w for w in words if w != "const"]
        found.append(
            Parameter(words[-1], " ".join(w for w in words[:-1] if w != "*"), "*" in words)
        )
    return tuple(found)
