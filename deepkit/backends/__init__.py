"""The contract: what a backend is, and how devices are named.

A backend is a name, a way to get memory, and a table of kernels.  A kernel is a function
`kernel(*outs, *ins, **params)` that writes into arrays it is given and returns nothing: it
validates nothing (the op's card did) and allocates nothing that a caller could see.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

Kernel = Callable[..., None]

MOST_THREADS = 1024  # more than any machine has processors; a number with a typing error has more

ALIGNMENT = 64  # bytes: one cache line, and the widest SIMD register


class DeviceError(RuntimeError):
    """A device that is unknown, or that does not work on this machine."""


class OutOfMemory(DeviceError, MemoryError):
    """A device has not as much memory as was asked for."""


class SettingError(DeviceError):
    """An environment variable of deepkit's with a value that it cannot have.

    That is a mistake of whoever set it, not a device that is missing: nothing turns to another one.
    """


def scratch(shapes: Callable[..., Sequence[tuple[tuple[int, ...], Any]]]) -> Callable:
    """Declare the working memory of a kernel: `shapes(*outs, *ins, **params)` -> [(shape, dtype)].

    The kernel receives it as `scratch=(array, ...)`.  Because it is declared and not allocated
    inside, a captured program plans it together with everything else.
    """

    def mark(kernel: Kernel) -> Kernel:
        kernel.scratch = shapes  # type: ignore[attr-defined]
        return kernel

    return mark


class Ahead(NamedTuple):
    """A kernel in two parts: what it makes of some inputs alone, and what is left to do then.

    reads    which inputs those are, by position
    kept     shapes of what is made, of the dtype of the kernel's output
    make     kernel(*kept, *those inputs, **params)
    run      kernel(*outs, *ins, *kept, **params of the whole)
    """

    reads: tuple[int, ...]
    kept: tuple[tuple[int, ...], ...]
    make: Kernel
    run: Kernel
    params: tuple[tuple[str, Any], ...] = ()


def ahead(parts: Callable[..., Ahead | None]) -> Callable:
    """Declare what a kernel can do ahead where its weights are constant, in inference:
    `parts(*outs, *ins, rounding, **params)`; rounding: it may round otherwise than the whole."""

    def mark(kernel: Kernel) -> Kernel:
        kernel.ahead = parts  # type: ignore[attr-defined]
        return kernel

    return mark


class Variants:
    """Several kernels for one op, and the readable function that chooses among them.

    `choose(*ins, **params)` returns the name of a variant; a caller names one with `algorithm=`,
    or for all calls with `using`.  A variant for some cases only has an attribute `takes`:
    (*shapes of ins, **params) -> bool, with a docstring that begins by saying which they are.
    """

    def __init__(self, choose: Callable[..., str], kernels: dict[str, Kernel]) -> None:
        self.choose, self.kernels = choose, kernels

    def pick(self, backend: str, op: str, ins: Sequence[Any], params: dict[str, Any]) -> Kernel:
        name = params.get("algorithm", "auto")
        if name == "auto":
            name = self._wished(op, ins, params) or self.choose(*ins, **params)
        try:
            kernel = self.kernels[name]
        except KeyError:
            known = ", ".join(self.kernels)
            raise ValueError(
                f"{op}: backend '{backend}' has no algorithm '{name}'   (it has: {known})"
            ) from None
        if not _takes(kernel, ins, params):
            cases = (kernel.takes.__doc__ or "some cases only").split(";")[0]  # type: ignore[attr-defined]
            raise ValueError(f"{op}: algorithm '{name}' is for {cases}   (see `algorithm`)")
        return kernel

    def _wished(self, op: str, ins: Sequence[Any], params: dict[str, Any]) -> str | None:
        """What `using` says about an op, or about the one whose gradient it is."""
        name = wished(op)
        if name is None or (name not in self.kernels and op not in _algorithms):
            return None
        kernel = self.kernels.get(name)
        return name if kernel is None or _takes(kernel, ins, params) else None


def _takes(kernel: Kernel, ins: Sequence[Any], params: dict[str, Any]) -> bool:
    takes = getattr(kernel, "takes", None)
    return takes is None or takes(*[None if a is None else a.shape for a in ins], **params)


_algorithms: dict[str, str] = {}  # op -> the variant that `using` names


def algorithms() -> tuple[tuple[str, str], ...]:
    """What `using` has named, as a key: (op, algorithm) in order."""
    return tuple(sorted(_algorithms.items())) if _algorithms else ()


def wished(op: str) -> str | None:
    """What `using` has named for an op, or for the one whose gradient it is."""
    if not _algorithms:
        return None
    return _algorithms.get(op) or _algorithms.get(op.removesuffix("_dx").removesuffix("_dw"))


class using:
    """`dk.using(conv2d="direct")`: the algorithm of every call of an op that names none itself.

    It holds for the whole process and from here on, or, as `with dk.using(conv2d="direct"):`, until
    the end of the block.  An op's gradients follow it, as long as they run while it holds and have
    that algorithm; a case that the algorithm does not take goes its usual way.  "auto" leaves the
    choice to the backend again.

    Errors: ValueError for an op that has no algorithms to choose from; an algorithm that a backend
    does not have is an error of the call.
    """

    def __init__(self, **names: str) -> None:
        for op, name in names.items():
            if not isinstance(name, str):
                raise ValueError(f"using: an algorithm has a name, not {name!r}   ({op}=...)")
            if not _has_variants(op):
                raise ValueError(f"using: there is no op '{op}' with algorithms to choose from")
        global _algorithms
        self._before = _algorithms
        _algorithms = {k: v for k, v in (_algorithms | names).items() if v != "auto"}

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: Any) -> None:
        global _algorithms
        _algorithms = self._before


PRECISIONS = ("float32", "tf32", "3xtf32", "bfloat16", "float16")
_precision = "float32"


class precision:
    """`dk.precision("tf32")`: how exactly products and convolutions of float32 tensors multiply.

        float32    plain arithmetic, 24 bits of mantissa
        3xtf32     tensor cores, three products of 11 bits: errors as of float32, infinity is NaN
        tf32       tensor cores, factors of 11 bits
        bfloat16   tensor cores, factors of 8 bits and the range of float32
        float16    tensor cores, factors of 11 bits, either scaled into their narrow range

    Sums are float32 in all of them, as are all tensors.  It holds for the whole process and from
    here on, or, as `with dk.precision("tf32"):`, until the end of the block, and for the gradients
    that are computed while it holds.  A device without tensor cores, such as "numba", computes in
    float32, which is at least as exact.  Errors: ValueError for another name.
    """

    def __init__(self, name: str) -> None:
        global _precision
        if name not in PRECISIONS:
            known = ", ".join(f"'{p}'" for p in PRECISIONS)
            raise ValueError(f"precision: expected one of {known}, not {name!r}")
        self._before = _precision
        _precision = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: Any) -> None:
        global _precision
        _precision = self._before


def current_precision() -> str:
    return _precision


def _has_variants(op: str) -> bool:
    made = [get("numpy"), *_made.values()]
    if any(isinstance(b.table.get(op), Variants) for b in made):
        return True
    return any(isinstance(get(name).table.get(op), Variants) for name in devices())


def variants(**kernels: Kernel) -> Callable[[Callable[..., str]], Variants]:
    """`@variants(direct=conv2d_direct, im2col=conv2d_im2col)` over the function that chooses."""
    return lambda choose: Variants(choose, kernels)


def table_of(modules: list[ModuleType]) -> dict[str, Any]:
    """The kernels of some modules: every public function and `Variants` that they define."""
    table: dict[str, Any] = {}
    for module in modules:
        for name, value in vars(module).items():
            ours = isinstance(value, Variants) or (
                callable(value) and getattr(value, "__module__", None) == module.__name__
            )
            if ours and not name.startswith("_"):
                table[name] = value
    return table


class Backend:
    """Memory in C order, as NumPy has it, and a table of kernels; others override what differs.

    `layout` is None for C order.  A backend that arranges batches in a way of its own (see the
    Numba backend) answers `arrange` and gives its layouts names.
    """

    name = ""
    arranges = False  # whether any layout other than C order exists here
    resident = False  # whether data sets should lie here, since the way from the host is long

    def __init__(self, table: dict[str, Any]) -> None:
        self.table = table

    # memory -----------------------------------------------------------------------------------
    def memory(self, nbytes: int) -> Any:
        """`nbytes` of uninitialised memory, aligned, as a flat array of bytes."""
        raw = np.empty(nbytes + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        return raw[start : start + nbytes]

    def nbytes(self, shape: tuple[int, ...], dtype: np.dtype, layout: Any = None) -> int:
        count = 1
        for d in shape:
            count *= d
        return count * dtype.itemsize

    def view(self, memory: Any, shape: tuple[int, ...], dtype: np.dtype, layout: Any = None) -> Any:
        """The kernel's view of the first bytes of `memory`."""
        return memory[: self.nbytes(shape, dtype)].view(dtype).reshape(shape)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, layout: Any = None) -> Any:
        return np.empty(shape, dtype)

    def upload(self, values: np.ndarray) -> Any:
        """A new array on this device with these values, in C order."""
        out = np.empty(values.shape, values.dtype)
        out[...] = values
        return out

    def write(self, array: Any, values: np.ndarray) -> None:
        """Copy `values` from the host into an existing array in C order."""
        array[...] = values

    def download(self, array: Any) -> np.ndarray:
        """A new NumPy array with the logical values."""
        return np.array(array)

    def copy(self, array: Any) -> Any:
        """A new array with the same values, in the same layout."""
        return np.array(array)

    def copy_into(self, array: Any, source: Any) -> None:
        """Overwrite an array with another of the same shape and layout."""
        array[...] = source

    def reshape(self, array: Any, shape: tuple[int, ...]) -> Any:
        """The same memory under another shape (C order, or a layout that allows it)."""
        return array.reshape(shape)

    def overlap(self, a: Any, b: Any) -> bool:
        """Whether two arrays in C order share any byte, for all that is known."""
        known = isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
        return not known or np.may_share_memory(a, b)

    # layouts ----------------------------------------------------------------------------------
    def arrange(
        self,
        op: Any,
        shapes: Sequence[tuple[int, ...] | None],
        layouts: Sequence[Any],
        out_shapes: Sequence[tuple[int, ...]],
        params: dict[str, Any],
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        """The layouts in which `op`'s kernel wants its inputs and gives its outputs."""
        raise NotImplementedError

    # kernels ----------------------------------------------------------------------------------
    def kernel(self, op: str, ins: Sequence[Any], params: dict[str, Any]) -> Kernel:
        """The kernel for `op` on these inputs.  A missing one is an error that says so."""
        entry = self.table.get(op)
        if entry is None:
            raise NotImplementedError(f"backend '{self.name}' has no kernel for '{op}'")
        if isinstance(entry, Variants):
            return entry.pick(self.name, op, ins, params)
        return entry

    def scratch(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Working memory for one eager call; its contents do not outlive the call."""
        return np.empty(shape, dtype)

    def again(
        self, kernel: Kernel, arrays: Sequence[Any], params: dict[str, Any]
    ) -> Callable[[list[Any]], bool] | None:
        """A function that does what `kernel(*arrays, **params)` does, working memory included, for
        lists of other arrays of the same shapes, dtypes and layouts, and says whether it did;
        None where nothing is faster than the kernel itself."""
        return None

    def bind(self, steps: Sequence[tuple[Kernel, tuple, dict[str, Any]]]) -> Callable[[], None]:
        """One function that runs `kernel(*arrays, **params)` for every step, in order."""

        def replay() -> None:
            for kernel, arrays, params in steps:
                kernel(*arrays, **params)

        return replay

    def orders(self) -> Iterator[None]:
        """Once for each way of running kernels that must not change a bit; tests use them all."""
        yield

    def set_num_threads(self, count: int) -> None:
        """How many threads the kernels may use; a backend without threads of its own ignores it."""

    @property
    def preparing(self) -> float:
        """Seconds so far in which kernels were made ready, which no later step spends again."""
        return 0.0

    @property
    def advice(self) -> str | None:
        """What a user could do to make it faster on this machine, in one sentence."""
        return None

    def __repr__(self) -> str:
        return f"<backend '{self.name}'>"


# devices ------------------------------------------------------------------------------------------

# name -> module that has `create(name) -> Backend` (raising DeviceError where it cannot work here)
HOMES = {
    "numpy": "deepkit.backends.numpy",
    "numba": "deepkit.backends.numba",
    "cuda": "deepkit.backends.cuda",
    "cuda-sim": "deepkit.backends.cuda",
}
PREFERENCE = ("cuda", "numba", "numpy")  # what "auto" takes: the first that works

_made: dict[str, Backend] = {}
_lock = threading.Lock()
_born = threading.local()
_process_default = "numpy"


def get(name: str | Backend) -> Backend:
    """The backend behind a device name such as "numpy", "numba" or "auto"."""
    if isinstance(name, Backend):
        return name
    backend = _made.get(name)
    if backend is None:
        if name == "auto":
            return get(next(n for n in PREFERENCE if why_not(n) is None))
        if name == "cuda:0":
            return get("cuda")
        several = isinstance(name, str) and name.startswith("cuda:")
        home = HOMES.get("cuda" if several else name) if isinstance(name, str) else None
        if home is None:
            known = ", ".join(f"'{n}'" for n in HOMES)
            hint = "; processors are 'numpy' or 'numba' here" if name == "cpu" else ""
            raise DeviceError(f"unknown device {name!r}{hint}   (known devices: {known})")
        with _lock:
            if name not in _made:
                _made[name] = importlib.import_module(home).create(name)
            backend = _made[name]
    return backend


def why_not(name: str) -> str | None:
    """None when the device works here, otherwise one sentence that says why it does not.

    Errors: SettingError for an environment variable with a wrong value.
    """
    try:
        get(name)
    except SettingError:
        raise
    except DeviceError as error:
        return str(error)
    return None


def devices() -> list[str]:
    """The devices that work here, e.g. ["numpy", "numba"]."""
    return [name for name in HOMES if why_not(name) is None]


def current() -> Backend:
    """The backend on which new tensors and modules are born."""
    return get(getattr(_born, "backend", None) or _process_default)


def set_device(name: str) -> None:
    """New tensors and modules of this process are born on `name` from here on."""
    global _process_default
    _process_default = get(name).name


@contextlib.contextmanager
def device(name: str | Backend) -> Iterator[None]:
    """`with device("numba"):` new tensors and modules are born there, in this thread."""
    before = getattr(_born, "backend", None)
    _born.backend = get(name)
    try:
        yield
    finally:
        _born.backend = before


def set_num_threads(count: int) -> None:
    """How many processor cores kernels may use, from 1 to 1024."""
    whole = isinstance(count, int) and not isinstance(count, bool)
    if not whole or not 1 <= count <= MOST_THREADS:
        raise ValueError(
            f"set_num_threads: expected a whole number from 1 to {MOST_THREADS}, not {count!r}"
        )
    global num_threads
    num_threads = count
    for backend in _made.values():
        backend.set_num_threads(count)


PREPARING = "preparing the kernels of '{device}' (compiled once, then kept for later runs) ..."
told_preparing = False  # whether the user knows that kernels are being made ready


def tell_preparing(name: str) -> None:
    """Say so on stderr, once a process, where there is one."""
    global told_preparing
    if not told_preparing:
        told_preparing = True
        with contextlib.suppress(AttributeError, OSError, ValueError):  # none, full, closed
            sys.stderr.write(f"deepkit: {PREPARING.format(device=name)}\n")
            sys.stderr.flush()


num_threads: int | None = None  # None: as many as a backend finds sensible
