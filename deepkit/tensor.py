"""A tensor is a handle on memory; what happens to it while a step is captured goes to a log."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

import numpy as np

from .backends import Backend, Kernel
from .card import registry
from .methods import Methods

BOOL = np.dtype(bool)
UNPICKLED = (
    "tensors and models are not pickled: dk.save(path, model) keeps a model's values and dk.load "
    "reads them; x.numpy() copies a tensor's into an array that may be pickled"
)
serials = itertools.count(1)  # births and calls in one order: what is older has a smaller number


class CaptureError(RuntimeError):
    """Something that a captured step cannot do, such as reading a value on the host."""


class Launch(NamedTuple):
    """What ran, for replays: the kernel, and the tensors whose memory it touches."""

    name: str
    kernel: Kernel
    outs: tuple[Tensor, ...]
    ins: tuple[Tensor | None, ...]
    scratch: tuple[Tensor, ...]
    params: dict[str, Any]


class Log:
    """A capture under way: the launches so far, and what their being right depends on."""

    stamp = 0  # counts changes of anything that a program may depend on
    structure = 0  # counts parts of modules that were exchanged for others

    def __init__(self) -> None:
        self.birth = next(serials)
        self.launches: list[Launch] = []
        self.written: list[Buffer] = []
        self.graded: dict[int, Tensor] = {}  # leaves that got a gradient, or lost it
        self.constants: dict[int, Buffer] = {}  # memory that the step filled from the host
        self.guards: dict[tuple[int, str], tuple[Any, str, Any]] = {}
        self.containers: dict[int, tuple[Any, tuple]] = {}  # lists and dictionaries, as they were
        self.looks: list[tuple[Tensor, Callable[[np.ndarray], None]]] = []

    def depends(self, owner: Any, attribute: str, value: Any) -> None:
        """The step read `owner.attribute`: a program holds only while it stays `value`."""
        self.guards[id(owner), attribute] = (owner, attribute, value)

    def walks(self, value: Any) -> None:
        """The step may walk this attribute: where it is a list or a dictionary, a program holds
        only while its elements, and those of the ones inside it, stay the same objects."""
        if isinstance(value, list | dict):
            if id(value) in self.containers:
                return
            self.containers[id(value)] = value, elements(value)
        if isinstance(value, list | dict | tuple):
            for element in elements(value):
                self.walks(element)

    def may_write(self, t: Tensor) -> None:
        """CaptureError for memory that a replay would not find as the step found it."""
        if id(t.buffer) in self.constants:
            raise CaptureError(
                f"a tensor of shape {t.shape} that was made from values of the host inside of the "
                "captured step is changed in place, and a replay would go on from the changed "
                "values; make it before the step, or inside with dk.zeros, ones, full or zeros_like"
            )

    def source_of(self, t: Tensor) -> str:
        """Which op of the step gave a tensor, in words."""
        for launch in reversed(self.launches):
            if any(out.buffer is t.buffer for out in launch.outs):
                return f" (the result of '{launch.name}')"
        return ""

    @classmethod
    def changed(cls) -> None:
        cls.stamp += 1


def elements(container: Any) -> tuple:
    """What a list holds, or the keys and values of a dictionary."""
    if isinstance(container, dict):
        return (*container.keys(), *container.values())
    return tuple(container)


class _Mode(threading.local):
    grad = True  # whether calls are recorded for the backward pass
    log: Log | None = None  # the capture under way in this thread


mode = _Mode()


@contextmanager
def aside() -> Iterator[None]:
    """Work on state that is no part of the step being captured, such as moving it to a device."""
    before, mode.log = mode.log, None
    try:
        yield
    finally:
        mode.log = before


@contextmanager
def no_grad() -> Iterator[None]:
    """`with dk.no_grad():` nothing in here is recorded for a backward pass."""
    before, mode.grad = mode.grad, False
    try:
        yield
    finally:
        mode.grad = before


@contextmanager
def enable_grad(on: bool = True) -> Iterator[None]:
    """Recording on (or off), whatever it was outside."""
    before, mode.grad = mode.grad, on
    try:
        yield
    finally:
        mode.grad = before


def is_grad_enabled() -> bool:
    return mode.grad


def look(t: Tensor, check: Callable[[np.ndarray], None]) -> None:
    """Show `check` the values, where they are at hand; anything else would wait for the device.

    A captured step looks again before each replay, where the values are not its own work.
    """
    if isinstance(t.array, np.ndarray):
        check(t.array)
        if mode.log is not None:
            mode.log.looks.append((t, check))


class Buffer:
    """The identity of a piece of memory: when it was born, and how often it was overwritten."""

    __slots__ = ("__weakref__", "birth", "version")

    def __init__(self) -> None:
        self.birth, self.version = next(serials), 0


class Tensor(Methods):
    """A handle on an array of a device: shape, dtype, and how it came to be.

    Made by `dk.tensor`, `zeros`, `ones`, `full`, `arange`, `rand`, `randn`, and by `dk.ops`, of
    which the methods are short names.  Operands broadcast as in NumPy; all of them lie on one
    device, where the result is born.  `axis` is an int, several, or None for all.

    what it is    shape  ndim  size  dtype  device  is_leaf  requires_grad; len(x), iteration
    values        numpy()  item()  tolist()  write(values)  np.asarray(x)  float(x)  int(x)  bool(x)
                  to(device)  astype(dtype)  detach(); to read a value is an error in a capture
    arithmetic    + - * / ** @ and unary -; abs exp log sqrt sin cos; clip(low, high)
                  < <= > >= == != are elementwise -> bool; on a leaf += -= *= /= need dk.no_grad()
    activations   relu()  sigmoid()  tanh()  softmax(axis)  log_softmax(axis)
    reductions    sum  mean  var  max  min (axis=None, keepdims=False)  argmax(axis)  argmin(axis)
    shape         x[index]  reshape  flatten  transpose  T  squeeze  expand_dims  broadcast_to  pad
    gradients     backward()  grad  requires_grad_(); also dk.grad, dk.no_grad, dk.enable_grad

    For the tape and the backends: array, backend, buffer, call, layout, twin, has_grad, own_grad().
    """

    __slots__ = {  # names and what `help` says about them
        "__weakref__": None,
        "_grad": None,
        "_has_grad": None,
        "_requires_grad": None,
        "array": "The memory, as the backend has it.",
        "backend": "The backend on which it lies.",
        "buffer": "The identity of the memory: its birth, and how often it was overwritten.",
        "call": "The call that made it, for the backward pass; None for a leaf.",
        "dtype": "The type of its elements, a NumPy dtype.",
        "layout": "How the backend arranges the memory; None is C order.  Shapes are logical.",
        "shape": "Lengths of its axes, logical and channels-last on every device.",
        "twin": "A copy in another layout, kept until the memory changes.",
    }

    array: Any
    buffer: Buffer

    def __init__(
        self,
        array: Any,
        backend: Backend | None = None,
        shape: tuple[int, ...] = (),
        dtype: np.dtype = BOOL,
        layout: Any = None,
        buffer: Buffer | None = None,
    ) -> None:
        if backend is None:
            raise TypeError(
                "Tensor: memory of a device was expected; dk.tensor(values) makes a tensor of "
                "values, dk.zeros(shape) and others of a shape"
            )
        self.array, self.backend, self.shape, self.dtype = array, backend, shape, dtype
        self.layout = layout
        self.twin: Any = None  # (stamp, this tensor in another layout)
        self.call: Any = None  # the tape.Call that made it
        self.buffer = buffer or Buffer()
        self._requires_grad = self._has_grad = False
        self._grad: Tensor | None = None

    # what it is -------------------------------------------------------------------------------
    @property
    def device(self) -> str:
        """The name of the device on which it lies, such as "numpy"."""
        return self.backend.name

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many elements it has: the product of `shape`."""
        count = 1
        for d in self.shape:
            count *= d
        return count

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded op made it; backward adds into `.grad` of leaves."""
        return self.call is None

    @property
    def requires_grad(self) -> bool:
        """Whether what is computed from it is recorded for a backward pass; may be set."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, on: bool) -> None:
        if on and self.dtype.kind != "f":
            raise ValueError(f"requires_grad: only float tensors have gradients, not {self.dtype}")
        if self.call is not None and not on:
            raise ValueError("requires_grad: only leaves can be switched off; use x.detach()")
        self._requires_grad = bool(on)
        Log.changed()

    @property
    def grad(self) -> Tensor | None:
        """The gradient that backward passes have added up here, or None before the first.

        As x, and always in the same memory: `x.grad = None` clears it, `x.grad = g` copies g there.
        """
        return self._grad if self.has_grad else None

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is None:
            self.has_grad = False  # the memory stays, for captured steps, and is overwritten
            return
        if value.shape != self.shape:
            raise ValueError(f"grad: expected shape {self.shape}, not {value.shape}")
        registry["assign_"](self.own_grad(), value)

    def own_grad(self) -> Tensor:
        """The memory of the gradient: born as zeros, kept as long as the tensor."""
        if self._grad is None:
            if mode.log is not None and self.buffer.birth > mode.log.birth:
                self._grad = registry["zeros_like"](self)  # born in the step, so zeroed by it
            else:
                zeros = np.zeros(self.shape, self.dtype)
                array = self.backend.upload(zeros)
                self._grad = Tensor(array, self.backend, self.shape, self.dtype)
                self._grad.buffer.birth = self.buffer.birth  # state, also when a capture meets it
        self.has_grad = True
        return self._grad

    @property
    def has_grad(self) -> bool:
        """Whether there is a gradient.  A step that asks before it makes one depends on it."""
        log = mode.log
        if log is not None and id(self) not in log.graded:
            log.depends(self, "_has_grad", self._has_grad)
        return self._has_grad

    @has_grad.setter
    def has_grad(self, there: bool) -> None:
        if mode.log is not None:
            mode.log.graded[id(self)] = self
        if self._has_grad != there:
            self._has_grad = there
            Log.changed()

    # the host ---------------------------------------------------------------------------------
    def numpy(self) -> np.ndarray:
        """A new NumPy array with the values, of this shape and dtype; never a view."""
        if mode.log is not None:
            source = mode.log.source_of(self)
            raise CaptureError(
                f"a tensor of shape {self.shape}{source} was read on the host while a step was "
                "being captured; return it from the step and read it outside"
            )
        return self.backend.download(self.array)

    def item(self) -> Any:
        """The only element, as a Python number."""
        if self.size != 1:
            raise ValueError(f"item: expected one element, not shape {self.shape}")
        return self.numpy().reshape(()).item()

    def write(self, values: Any) -> None:
        """Overwrite the memory with values from the host; the tensor stays the same tensor."""
        if mode.log is not None:
            raise CaptureError(
                "a value was written from the host while a step was being captured; "
                "a replay would not repeat it: do it outside of the step"
            )
        if self.layout is not None:
            raise ValueError("write: only a tensor in C order can be written from the host")
        values = np.asarray(values.numpy() if isinstance(values, Tensor) else values, self.dtype)
        if values.shape != self.shape:
            raise ValueError(f"write: expected shape {self.shape}, not {values.shape}")
        self.backend.write(self.array, values)
        self.buffer.version += 1

    def detach(self) -> Tensor:
        """The same memory, without history."""
        return Tensor(self.array, self.backend, self.shape, self.dtype, self.layout, self.buffer)

    def requires_grad_(self, on: bool = True) -> Tensor:
        """Set `requires_grad` -> this tensor."""
        self.requires_grad = on
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(UNPICKLED)

    def __copy__(self) -> Tensor:
        return self.detach()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        """A leaf with memory of its own, the same values and gradient."""
        if self.call is not None:
            raise ValueError(
                "deepcopy: this tensor has a history, which is not copied; copy x.detach()"
            )
        if mode.log is not None:
            raise CaptureError("a tensor was copied while a step was being captured; x + 0 copies")
        array = self.backend.copy(self.array)
        twin = Tensor(array, self.backend, self.shape, self.dtype, self.layout)
        memo[id(self)] = twin
        twin._requires_grad = self._requires_grad
        if self._grad is not None and self._has_grad:
            twin.own_grad().write(self._grad.numpy())
        return twin

    # in place: a leaf that requires gradients is moved where it lies, as by an optimiser ----------
    def __iadd__(self, other: Any) -> Tensor:
        """self = self + other; in place for a leaf that requires gradients."""
        return self._moved("+=", lambda: self + other)

    def __isub__(self, other: Any) -> Tensor:
        """self = self - other; in place for a leaf that requires gradients."""
        return self._moved("-=", lambda: self - other)

    def __imul__(self, other: Any) -> Tensor:
        """self = self * other; in place for a leaf that requires gradients."""
        return self._moved("*=", lambda: self * other)

    def __itruediv__(self, other: Any) -> Tensor:
        """self = self / other; in place for a leaf that requires gradients."""
        return self._moved("/=", lambda: self / other)

    def _moved(self, sign: str, value: Callable[[], Tensor]) -> Tensor:
        if not (self.is_leaf and self._requires_grad):
            return value()
        if mode.grad:
            raise RuntimeError(
                f"{sign}: a tensor that requires gradients is changed in place only inside of "
                "'with dk.no_grad():', where nothing is recorded"
            )
        registry["assign_"](self, value())
        return self

    # differentiation --------------------------------------------------------------------------
    def backward(self, gradient: Any = None) -> None:
        """Add d(self)/d(leaf) into `.grad` of every leaf that requires it.

        `gradient` (a tensor or an array of this shape) is the weight of each element of a tensor
        that is no scalar.
        """
        from .tape import sweep  # what a tensor leads back to is the tape's business

        if gradient is not None and not isinstance(gradient, Tensor):
            values = np.asarray(gradient, self.dtype)
            array = self.backend.upload(values)
            gradient = Tensor(array, self.backend, values.shape, self.dtype)
        found = sweep((self,), (gradient,), create_graph=False)
        for leaf, g in found.items():
            write = registry["accumulate_" if leaf.has_grad else "assign_"]
            write(leaf.own_grad(), g)

    def __repr__(self) -> str:
        extra = ", requires_grad=True" if self.requires_grad else ""
        if mode.log is not None:
            return f"<tensor {self.shape} {self.dtype} on '{self.device}'{extra}>"
        values = np.array2string(self.backend.download(self.array), prefix="tensor(")
        return f"tensor({values}, dtype={self.dtype}, device='{self.device}'{extra})"
