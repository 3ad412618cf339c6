"""The laws of the house, as functions over source text: each answers with a list of sentences.

They judge text and not files, so that `test_laws.py` can show each of them a small bad example.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]

# --- the files ------------------------------------------------------------------------


def tracked_files() -> list[str]:
    """Paths from the root, as git has them; in an unpacked sdist, which has no git, all files."""
    git = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if git.returncode == 0 and git.stdout:
        names = git.stdout.decode().rstrip("\0").split("\0")
    else:
        files = (p.relative_to(ROOT) for p in ROOT.rglob("*"))
        names = [p.as_posix() for p in files if not any(s.startswith(".") for s in p.parts)]
    return sorted(n for n in names if (ROOT / n).is_file())


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# --- which imports a source has -------------------------------------------------------


@dataclass(frozen=True)
class Import:
    """One imported module, by its full name."""

    module: str
    line: int
    at_top: bool  # runs when the module is imported; False inside a function


def imports_of(source: str, path: str) -> list[Import]:
    """All imports of a file, those in functions and by `import_module("...")` included.

    `from a import b` counts as `a.b`, whether b is a module or a name in one: both lie in a's room
    or below it.  What stands under `if TYPE_CHECKING:` is for people and checkers, and left out.
    """
    package = list(PurePosixPath(path).parent.parts)
    return list(_imports(ast.parse(source).body, package, at_top=True))


def _imports(nodes: Iterable[ast.AST], package: list[str], at_top: bool) -> Iterator[Import]:
    for node in nodes:
        if isinstance(node, ast.If) and _is_type_checking(node.test):
            yield from _imports(node.orelse, package, at_top)
            continue
        for module in _modules(node, package):
            yield Import(module, getattr(node, "lineno", 0), at_top)
        in_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _imports(ast.iter_child_nodes(node), package, at_top and not in_function)


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _modules(node: ast.AST, package: list[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        start = package[: len(package) - node.level + 1] if node.level else []
        base = ".".join([*start, *(node.module or "").split(".")]).strip(".")
        yield from (base if a.name == "*" else f"{base}.{a.name}" for a in node.names)
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else None
        called = node.func.id if isinstance(node.func, ast.Name) else called
        if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
            name = node.args[0].value
            dots = len(name) - len(name.lstrip("."))
            start = package[: len(package) - dots + 1] if dots else []
            yield ".".join([*start, name.lstrip(".")])


# --- law: the direction of imports ----------------------------------------------------

# From the ground up. A room imports from its own floor and from those below it, never from above.
FLOORS = [
    {"backends"},
    {"tape", "tensor", "card", "methods", "spellings", "words"},
    {"ops", "random", "create"},
    {"program", "captured", "fusion", "inference", "launches", "nested"},
    {"nn", "optim"},
    {"train", "models", "data", "plot", "testing", "summary", "checkpoint", "files"},
    {"cli", "__main__"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# Imports that go up all the same, inside a function: (file, module) -> why it may.
MAY_GO_UP: dict[tuple[str, str], str] = {}


def room_of(module: str) -> str:
    """The room of a module: `deepkit.ops.conv.conv2d` -> `ops`; the package itself -> ``."""
    return module.split(".")[1] if "." in module else ""


def module_of(path: str) -> str:
    """`deepkit/ops/conv.py` -> `deepkit.ops.conv`."""
    return ".".join(PurePosixPath(path).with_suffix("").parts).removesuffix(".__init__")


def wrong_directions(source: str, path: str) -> list[str]:
    """What this file of the package imports from above, or from another backend."""
    here = module_of(path)
    if here == "deepkit":
        return []  # the public names: the roof, which sees all rooms
    room = room_of(here)
    if room not in FLOOR_OF:
        return [f"{path}: the room '{room}' has no floor; give it one in FLOORS"]
    found = []
    for imported in imports_of(source, path):
        if imported.module.split(".")[0] != "deepkit":
            continue
        if (path, imported.module) in MAY_GO_UP and not imported.at_top:
            continue
        why = _why_not(here, imported.module)
        if why:
            found.append(f"{path}:{imported.line} imports {imported.module}: {why}")
    return found


def _why_not(here: str, module: str) -> str:
    room, other = room_of(here), room_of(module)
    if room == "backends":
        return _why_not_in_backend(here, module)
    if other not in FLOOR_OF:
        return "this is the package's public face, or a room without a floor; import from the room"
    if FLOOR_OF[other] > FLOOR_OF[room]:
        return f"'{other}' lies above '{room}'"
    return ""


def _why_not_in_backend(here: str, module: str) -> str:
    """A backend knows the contract and itself, nothing else: so that its name stays a promise."""
    if module.split(".")[:2] != ["deepkit", "backends"]:
        known = FLOOR_OF.get(room_of(module), 1)
        return "" if known == 0 else "a backend imports nothing above the contract"
    backends = {"numpy", "numba", "cuda"}
    own = next(iter(here.split(".")[2:3]), "")
    named = next(iter(module.split(".")[2:3]), "")
    if named in backends and named != own:
        return "a backend does not borrow from another" if own else "the contract knows no backend"
    return ""


# --- law: what is imported is declared, and the heavy only where it is needed ---------

MODULE_OF_PACKAGE = {
    "cupy-cuda12x": "cupy",
    "cupy-cuda13x": "cupy",
    "nvidia-cuda-nvrtc": "nvidia",  # a library, found by its file
    "nvidia-cuda-nvrtc-cu12": "nvidia",
    "pillow": "PIL",
}


def declared_modules(pyproject: str) -> tuple[set[str], set[str]]:
    """Modules that the core depends on, and those that the extras for users add: not what only the
    tests and the benches need, which the package does without."""
    project = tomllib.loads(pyproject)["project"]
    extras = project["optional-dependencies"]
    users = [r for extra, rs in extras.items() if extra not in ("dev", "bench") for r in rs]
    return _module_names(project["dependencies"]), _module_names(users)


def _module_names(requirements: Iterable[str]) -> set[str]:
    names = (re.split(r"[\[<>=!~; ]", r, maxsplit=1)[0] for r in requirements)
    return {MODULE_OF_PACKAGE.get(n, n) for n in names} - {"deepkit"}


def undeclared_imports(source: str, path: str, core: set[str], extras: set[str]) -> list[str]:
    """Third-party modules that no requirement names, or extras that importing the file would need.

    The Numba and CUDA backends may need their extra at once: the registry imports them on demand.
    """
    own_extra = {"numba": {"numba", "llvmlite"}, "cuda": {"cupy", "cupyx", "cupy_backends", "cuda"}}
    parts = PurePosixPath(path).parts
    free = own_extra.get(PurePosixPath(parts[2]).stem, set()) if parts[1] == "backends" else set()
    found = []
    for imported in imports_of(source, path):
        top = imported.module.split(".")[0]
        if top in sys.stdlib_module_names or top == "deepkit" or top in core | free:
            continue
        if top not in extras:
            found.append(
                f"{path}:{imported.line} imports {top}, which pyproject.toml does not name"
            )
        elif imported.at_top:
            found.append(f"{path}:{imported.line} imports {top} at the top; import it where used")
    return found


def cupy_imports(source: str, path: str) -> list[str]:
    """Imports of CuPy outside backends/cuda/: arrays of the device stay behind the contract."""
    if path.startswith("deepkit/backends/cuda/"):
        return []
    tops = [(i.line, i.module.split(".")[0]) for i in imports_of(source, path)]
    return [f"{path}:{line} imports {top}" for line, top in tops if top.startswith("cupy")]


# --- law: `import deepkit` is light ---------------------------------------------------

HEAVY = {"numba", "llvmlite", "cupy", "matplotlib", "torch", "PIL", "requests", "pooch"}


def heavy_after(statement: str, heavy: set[str]) -> set[str]:
    """Which of these modules are loaded after a statement, in a fresh interpreter."""
    program = f"import sys\n{statement}\nprint(*sorted(sys.modules))"
    run = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return heavy & set(done.stdout.split())


# --- laws about text ------------------------------------------------------------------

SOURCE_SUFFIXES = {".py", ".pyi", ".c", ".cpp", ".h", ".hpp", ".cu", ".cuh", ".sh", ".js", ".css"}
MOST_LINES = 500


def is_source(name: str) -> bool:
    return PurePosixPath(name).suffix in SOURCE_SUFFIXES or name in ("Makefile", ".ci/run")


def too_long(text: str, path: str) -> list[str]:
    lines = len(text.splitlines())
    return [f"{path} has {lines} lines; the most is {MOST_LINES}"] if lines > MOST_LINES else []


# A path in somebody's home or in a temporary folder holds on one machine only. An address or a
# longer path (`~/x`, `docs/home/x`, `https://.../home/`) does not count.
_MACHINE = re.compile(r"(?<![\w.~:/$}-])/(?:home|root|Users|tmp|var/tmp)(?:/|\b(?![\w/]))")


def machine_paths(text: str, path: str, here: Path | None = None) -> list[str]:
    """Lines with a path of one machine: the usual places, and the one of this checkout."""
    patterns = [_MACHINE]
    if here is not None and len(here.parts) > 1:
        patterns.append(re.compile(rf"(?<![\w.~:/$}}-]){re.escape(str(here))}(?:/|\b(?![\w/]))"))
    return [
        f"{path}:{number} names a path of one machine: {line.strip()[:80]}"
        for number, line in enumerate(text.splitlines(), 1)
        if any(pattern.search(line) for pattern in patterns)
    ]


def strange_stems(kernels: Iterable[str], cards: Iterable[str]) -> list[str]:
    """Kernel files whose stem no file of cards has: a family has one stem in every room, with or
    without a word after it (`conv_tiled.cu`)."""
    known = {PurePosixPath(card).stem for card in cards}
    return [
        f"{name}: no deepkit/ops/{stem}.py"
        for name in kernels
        if (stem := PurePosixPath(name).stem) not in known and stem.split("_")[0] not in known
    ]
