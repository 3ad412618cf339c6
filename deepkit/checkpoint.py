"""Checkpoints: a model, its optimiser and all random counters in one safetensors file.

The tensors are named "model.NAME" and "optimizer.NUMBER.NAME"; what is not a tensor stands as JSON
in the file's metadata.  No pickle: reading a file runs nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import random
from .files import whole
from .nn.module import Module
from .optim import Optimizer
from .words import counted

FORMAT = 1
IN_FOLDER = "checkpoint.safetensors"  # what the folder of a run calls its own


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, read or used; the text is one sentence."""


@dataclass
class Checkpoint:
    """What `load` found.  `model` and `optimizer` are state dictionaries of NumPy arrays."""

    path: Path
    model: dict[str, np.ndarray]
    optimizer: dict[str, Any] | None = None
    random: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def restore(self, model: Module, optimizer: Optimizer | None = None) -> Checkpoint:
        """Give model, optimiser and the random counters this state.

        CheckpointError, and nothing is changed, if they do not fit.
        """
        if optimizer is not None and self.optimizer is None:
            raise CheckpointError(f"{self.path} holds no state of an optimiser")
        with _fitting(self.path, "optimiser"):
            if optimizer is not None and self.optimizer is not None:
                optimizer.check_state_dict(self.optimizer)
        with _fitting(self.path, "model"):
            model.load_state_dict(self.model)
        if optimizer is not None and self.optimizer is not None:
            optimizer.load_state_dict(self.optimizer)
        if self.random is not None:
            random.set_state(self.random)
        return self

    def __repr__(self) -> str:
        count = sum(values.size for values in self.model.values())
        parts = [f"{counted(len(self.model), 'tensor')} with {counted(count, 'value')}"]
        state = self.optimizer
        parts.append("no optimiser" if state is None else f"optimiser {state.get('kind')}")
        parts.append(f"extra: {', '.join(self.extra) or 'nothing'}")
        return f"<checkpoint '{self.path}': {'; '.join(parts)}>"


@contextlib.contextmanager
def _fitting(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        why = str(error).removeprefix("load_state_dict: ")
        raise CheckpointError(f"{path} is a checkpoint of another {what}: {why}") from error


# writing ------------------------------------------------------------------------------------------


def save(
    path: str | os.PathLike[str],
    model: Module,
    optimizer: Optimizer | None = None,
    *,
    arrays: Mapping[str, np.ndarray] | None = None,
    **extra: Any,
) -> None:
    """Write model, optimiser, random counters, more `arrays` and `extra` (values that JSON has)
    into one file.

    The file is written under a temporary name in the same folder, synced, and renamed: whatever
    happens, there is the old file or the new one, whole.  CheckpointError if that is impossible,
    or where `path` is something else than a file: a folder, a device, a pipe.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"save: the path comes first, then the model: save(path, model), not {_kind(path)}"
        )
    if not isinstance(model, Module):
        raise TypeError(
            f"save: expected a module, whose state is kept, not {_kind(model)}: save(path, model)"
        )
    where = Path(path)
    tensors = {f"model.{name}": values for name, values in model.state_dict().items()}
    tensors |= {f"arrays.{name}": np.asarray(a) for name, a in (arrays or {}).items()}
    about: dict[str, Any] = {"format": FORMAT, "random": random.get_state(), "extra": extra}
    if optimizer is not None:
        state = optimizer.state_dict()
        tensors |= {f"optimizer.{name}": values for name, values in state.pop("state").items()}
        about["optimizer"] = state
    try:
        text = json.dumps(about, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise CheckpointError(f"{where}: JSON cannot hold what was given to keep ({why})") from None
    _write(where, tensors, {"deepkit": text, "crc32": _digest(tensors, text)})


def _kind(value: Any) -> str:
    return "a state dictionary" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def _plain(value: Any) -> Any:
    """NumPy's numbers are numbers too."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__}")


def _digest(tensors: Mapping[str, np.ndarray], text: str) -> str:
    """A checksum of everything, so that a flipped bit is found."""
    crc = zlib.crc32(text.encode())
    for name in sorted(tensors):
        values = tensors[name]
        crc = zlib.crc32(f"{name} {values.dtype} {values.shape}".encode(), crc)
        crc = zlib.crc32(_bytes(values), crc)
    return f"{crc:08x}"


# NumPy's names of the types that a tensor can have -> the format's
KINDS = {"f4": "F32", "f8": "F64", "b1": "BOOL"}
KINDS |= {"i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64"}
KINDS |= {"u1": "U8", "u2": "U16", "u4": "U32", "u8": "U64"}


def _write(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """The format: the length of the header (8 bytes), the header (JSON), the tensors' bytes.

    Not by the library: a kill inside of its writer would leave files with names of its own.
    """
    if "\0" in str(path):
        raise CheckpointError(f"{path!r} cannot be written: no name of a file holds a NUL")
    if not path.parent.is_dir():
        raise CheckpointError(f"{path} cannot be written: there is no folder {path.parent}")
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))  # keeps all aligned
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in order:
        v, start, end = tensors[name], end, end + tensors[name].nbytes
        kind = KINDS[v.dtype.str[1:]]
        header[name] = {"dtype": kind, "shape": v.shape, "data_offsets": (start, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    try:
        with whole(path) as temporary, open(temporary, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name in order:
                file.write(_bytes(tensors[name]))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written ({error.strerror or error})") from error


def _bytes(values: np.ndarray) -> memoryview:
    """The values as the file holds them: in C order, the lowest byte first."""
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


# reading ------------------------------------------------------------------------------------------


def file_of(path: str | os.PathLike[str]) -> Path:
    """A run's folder stands for the checkpoint in it."""
    where = Path(path)
    return where / IN_FOLDER if where.is_dir() else where


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint -> Checkpoint, with `.model`, `.optimizer`, `.extra` and `.restore(...)`.

    path: the file, or the folder of a run (`fit(out=...)`, `deepkit train`), for the one in it.
    A safetensors file of another program is a checkpoint of a model alone.  CheckpointError if
    there is no such file, or it is damaged, or no safetensors at all.
    """
    where = file_of(path)
    tensors, metadata = _read(where)
    if not metadata.keys() & {"deepkit", "crc32"}:
        return Checkpoint(where, tensors)
    text = metadata.get("deepkit", "")
    if _digest(tensors, text) != metadata.get("crc32"):
        raise CheckpointError(f"{where} is damaged: its checksum is not that of its contents")
    try:
        about = json.loads(text)
        if about["format"] > FORMAT:
            newer = f"{where} has format {about['format']}, but this deepkit reads up to {FORMAT}"
            raise CheckpointError(newer)
        counters, extra = about["random"], dict(about["extra"])
        random.check_state(counters)
        parts: dict[str, dict[str, np.ndarray]] = {"model": {}, "optimizer": {}, "arrays": {}}
        for name, values in tensors.items():
            kind, _, rest = name.partition(".")
            parts[kind][rest] = values
        optimizer = about.get("optimizer")
        if optimizer is not None:
            optimizer["state"] = parts["optimizer"]
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{where} is no checkpoint of deepkit: its description is incomplete, or not what "
            f"deepkit writes ({error})"
        ) from error
    return Checkpoint(where, parts["model"], optimizer, counters, extra, parts["arrays"])


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    if not path.is_file():
        raise CheckpointError(f"{path} is no file")
    try:
        with safe_open(path, framework="numpy") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error})") from error
    except MemoryError as error:
        raise CheckpointError(f"{path} does not fit into memory") from error
    except (SafetensorError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged, or no safetensors file ({error})") from error
