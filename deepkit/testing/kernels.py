"""`check_op`: one kernel against the float64 reference, and the promises that all kernels make."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..backends import Backend, Variants, get
from ..card import Sample
from ..tape import Op, Tensor, arranged, launch, no_grad, registry
from .cases import Arrays, Case, call, case_of, drawn, dtypes_of, fixed, op_of, seeded, shapes_of
from .memory import Allocate, Place, guard_words

POISONS = (0xFF, 0x5A)  # bytes: NaN for floats and -1 for integers; then about 1.5e16 (1.9e127)
RELATIVE_STEP = 1e-7  # of the perturbations that measure an op's condition, in float64


class CheckError(AssertionError):
    """What a check found, in one sentence."""


def check_op(
    op: Op | str,
    given: Sample | Sequence[np.ndarray | None],
    device: str | Backend = "numpy",
    dtype: Any = "float32",
    *,
    seed: int = 0,
    allocate: Allocate = guard_words,
    **params: Any,
) -> None:
    """Run an op's kernel on `device` and hold it to the laws; CheckError says which one it broke.

    given    a sample of the card (fresh random inputs are drawn from `seed`), or the arrays
             themselves, with the op's options as `params`
    dtype    of the float inputs: float32 or float64

    1. It equals the NumPy backend in float64 on the same values, within `allowed`; cards marked
       `exact` to the last bit.
    2. Outputs, filled with garbage beforehand, are fully written, and do not depend on it, nor on
       garbage in scratch memory or in the padding of a layout.
    3. Nothing around inputs, outputs and scratch is written (`allocate` may place them otherwise:
       `memory.page_after`), and inputs keep their values, those that the card marks `!` excepted.
    4. Two runs agree bit for bit; on the simulator of CUDA, in every order of the threads.

    All variants of the kernel are run, in all layouts in which it may find its inputs.  A variant
    for some cases only has an attribute `takes`: (*input shapes, **parameters) -> bool; one that is
    less exact than its card allows has `tolerance`, which takes the place of the card's.
    """
    op, backend, rng = op_of(op), get(device), np.random.default_rng(seed)
    if not isinstance(given, Sample):
        given = fixed(given, params)
    if op.composite or op.view:
        _check_whole(op, given, backend, rng, np.dtype(dtype))
    else:
        check_case(case_of(op, given, rng, np.dtype(dtype)), backend, allocate)


def check_case(case: Case, backend: Backend, allocate: Allocate = guard_words) -> None:
    """`check_op` for inputs that are already normalised."""
    expected = reference(case)
    for variant, params in _variants(case, backend):
        named = case._replace(params=params)
        for wanted, given in _layouts(named, backend):
            where = f"{case.op.name}{variant} on '{backend.name}'"
            where += f" in layouts {wanted}" if any(wanted) else ""
            plan = _Plan(named, backend, wanted, given, allocate)
            first: list[np.ndarray] | None = None
            for _ in backend.orders():
                for poison in POISONS:
                    found = plan.run(poison, where)
                    first = found if first is None else first
                    for name, a, b in zip(_result_names(case), first, found, strict=True):
                        _same_bits(f"{where}: {name}", a, b, case)
            assert first is not None
            for name, want, a in zip(_result_names(case), expected, first, strict=True):
                _close(f"{where}: {name}", a, want, case, plan.tolerance)


# the reference ------------------------------------------------------------------------------------


class Expected(NamedTuple):
    values: np.ndarray  # float64, or integers
    magnitude: np.ndarray | None  # of what the rounding errors scale with; None: no errors at all
    length: float  # operations per element


def reference(case: Case) -> list[Expected]:
    """The results of a case on the NumPy backend in float64, and how exactly they can be known."""
    ins = [_as_float64(a) for a in case.ins]
    values = _on_numpy(case, ins)
    if case.op.exact:
        return [Expected(v, None, 0.0) for v in values]
    conditions = _conditions(case, ins, values)
    length = _length(case)
    largest = max((_largest(a) for a in ins if a is not None), default=0.0)
    found = []
    for v, condition in zip(values, conditions, strict=True):
        if v.dtype.kind != "f":
            found.append(Expected(v, None, 0.0))
            continue
        finite = v[np.isfinite(v)]
        typical = math.sqrt(np.mean(finite**2)) if finite.size else 0.0
        if typical < 1e-8 * largest:  # all terms cancel, so only the inputs have a size
            typical = largest
        found.append(Expected(v, np.abs(v) + condition + typical, length))
    return found


def allowed(expected: Expected, dtype: np.dtype, tolerance: float) -> np.ndarray:
    """The error bound of each element: tolerance * eps * (4 + 2 sqrt(length)) * magnitude.

    length: operations per element, from the card's cost; rounding errors add up like a random walk.
    magnitude: |y|, plus the typical size of y (of the inputs, where y is nothing but what is left
    of terms that cancel), plus how far y moves per relative change of the inputs (so that a sum
    which cancels is not asked for digits that nobody can know).
    """
    eps = np.finfo(dtype).eps
    assert expected.magnitude is not None
    return tolerance * eps * (4 + 2 * math.sqrt(expected.length)) * expected.magnitude


def _largest(a: np.ndarray) -> float:
    if a.dtype.kind != "f":
        return 0.0
    return float(np.max(np.abs(a), initial=0.0, where=np.isfinite(a)))


def _as_float64(a: np.ndarray | None) -> np.ndarray | None:
    if a is None or a.dtype.kind != "f":
        return None if a is None else a.copy()
    return a.astype(np.float64)


def _on_numpy(case: Case, ins: Arrays) -> list[np.ndarray]:
    """Outputs, then the operands that are updated in place, of the reference."""
    host = get("numpy")
    params = dict(case.params)
    if "algorithm" in params:
        params["algorithm"] = "auto"
    shapes = case.op.shape(*shapes_of(ins), **params)
    dtypes = case.op.dtype(*dtypes_of(ins), **params)
    own = [None if a is None else a.copy() for a in ins]
    outs = tuple(_tensor(np.full(s, 7, d), host) for s, d in zip(shapes, dtypes, strict=True))
    launch(case.op.name, host, outs, tuple(_tensor(a, host) for a in own), params)
    return [t.array for t in outs] + [a for i in case.op.inplace if (a := own[i]) is not None]


def _tensor(array: Any, backend: Backend) -> Any:
    return None if array is None else Tensor(array, backend, array.shape, array.dtype)


def _conditions(case: Case, ins: Arrays, values: list[np.ndarray]) -> list[np.ndarray]:
    """Root of the sum over inputs of (x dy/dx)^2, estimated by random relative perturbations."""
    rng, rounds = np.random.default_rng(1), 8
    squares = [np.zeros(v.shape) for v in values]
    for _ in range(rounds):
        moved = [
            a
            if a is None or a.dtype.kind != "f"
            else a * (1 + RELATIVE_STEP * rng.choice((-1.0, 1.0), a.shape))
            for a in ins
        ]
        for total, before, after in zip(squares, values, _on_numpy(case, moved), strict=True):
            if before.dtype.kind == "f":
                with np.errstate(invalid="ignore"):
                    change = (after - before) / RELATIVE_STEP
                total += np.where(np.isfinite(change), change, 0.0) ** 2
    return [np.sqrt(s / rounds) for s in squares]


def _length(case: Case) -> float:
    shapes = shapes_of(case.ins)
    results = [math.prod(s) for s in case.op.shape(*shapes, **case.params)]
    results += [a.size for i in case.op.inplace if (a := case.ins[i]) is not None]
    if case.op.cost is not None:
        total = case.op.cost(*shapes, **case.params)[0]
    else:
        total = sum(a.size for a in case.ins if a is not None)
    return max(1.0, total / max(1, min(results, default=1)))


# running ------------------------------------------------------------------------------------------


class _Plan:
    """One case in one arrangement of memory, ready to run."""

    def __init__(
        self, case: Case, backend: Backend, wanted: Sequence, given: Sequence, allocate: Allocate
    ) -> None:
        self.case, self.backend, self.allocate = case, backend, allocate
        self.wanted, self.given = wanted, given
        self.tolerance = case.op.tolerance  # of the kernel, once it has run

    def run(self, poison: int, where: str) -> list[np.ndarray]:
        """The results: outputs, then operands updated in place, as logical arrays on the host."""
        case, backend = self.case, self.backend
        shapes, dtypes = shapes_of(case.ins), dtypes_of(case.ins)
        places: list[tuple[str, Place]] = []

        def born(name: str, shape: tuple, dtype: Any, layout: Any) -> Tensor:
            dtype = np.dtype(dtype)
            nbytes = backend.nbytes(shape, dtype, layout)
            place = self.allocate(backend, nbytes)
            places.append((name, place))
            backend.write(place.memory, np.full(nbytes, poison, np.uint8))
            array = backend.view(place.memory, shape, dtype, layout)
            return Tensor(array, backend, shape, dtype, layout)

        outs = tuple(
            born(operand.name, s, d, layout)
            for operand, s, d, layout in zip(
                case.op.outs,
                case.op.shape(*shapes, **case.params),
                case.op.dtype(*dtypes, **case.params),
                self.given,
                strict=True,
            )
        )
        ins: list[Tensor | None] = []
        for name, a, layout in zip(_in_names(case), case.ins, self.wanted, strict=True):
            if a is None:
                ins.append(None)
                continue
            t = born(name, a.shape, a.dtype, layout)
            _fill(t, a, places[-1][1].memory, poison)
            ins.append(t)
        arrays_in = [None if t is None else t.array for t in ins]
        kernel = backend.kernel(case.op.name, arrays_in, case.params)
        self.tolerance = getattr(kernel, "tolerance", case.op.tolerance)
        arrays = [t.array for t in outs] + arrays_in
        params = dict(case.params)
        if getattr(kernel, "scratch", None) is not None:
            spec = kernel.scratch(*arrays, **params)  # type: ignore[attr-defined]
            work = [born(f"scratch {i}", s, d, None) for i, (s, d) in enumerate(spec)]
            params["scratch"] = [t.array for t in work]
        kernel(*arrays, **params)
        for name, place in places:
            damage = place.damage()
            if damage:
                raise CheckError(f"{where}: beside {name}, {damage}   ({case})")
        results = [t.numpy() for t in outs]
        for i, (name, before, read) in enumerate(zip(_in_names(case), case.ins, ins, strict=True)):
            if read is None or before is None:
                continue
            after = read.numpy()
            if i in case.op.inplace:
                results.append(after)
            elif not np.array_equal(_bits(after), _bits(before)):
                raise CheckError(f"{where}: the input {name} was changed   ({case})")
        return results


def _fill(t: Tensor, values: np.ndarray, memory: Any, poison: int) -> None:
    """Give a tensor its values, and poison whatever its layout leaves unused."""
    backend = t.backend
    if t.layout is None:
        backend.write(t.array, values)
        return

    def arrange(source: np.ndarray) -> np.ndarray:
        plain = Tensor(backend.upload(source), backend, t.shape, t.dtype)
        launch("arrange", backend, (t,), (plain,), {})
        return backend.download(memory)

    one = np.zeros(values.shape, np.dtype(f"u{values.dtype.itemsize}"))
    low = arrange(one.view(values.dtype))
    high = arrange((~one).view(values.dtype))
    filled = arrange(values)
    filled[low == high] = poison  # bytes that no value reaches are padding
    backend.write(memory, filled)


def _variants(case: Case, backend: Backend) -> Iterator[tuple[str, dict[str, Any]]]:
    """The parameters with each algorithm that the backend has and that takes this case."""
    entry = backend.table.get(case.op.name)
    if not isinstance(entry, Variants):
        yield "", case.params
        return
    if "algorithm" not in case.params:
        yield "", case.params
        return
    named = case.params["algorithm"]
    shapes = shapes_of(case.ins)
    for name, kernel in entry.kernels.items():
        takes: Callable | None = getattr(kernel, "takes", None)
        rest = {k: v for k, v in case.params.items() if k != "algorithm"}
        if named in ("auto", name) and (takes is None or takes(*shapes, **rest)):
            yield f" ({name})", case.params | {"algorithm": name}


def _layouts(case: Case, backend: Backend) -> list[tuple[tuple, tuple]]:
    """(layouts of the inputs, layouts of the outputs), for inputs that come in any layout."""
    if not backend.arranges:
        shapes = case.op.shape(*shapes_of(case.ins), **case.params)
        return [((None,) * len(case.ins), (None,) * len(shapes))]
    known = _known_layouts(backend)
    found: list[tuple[tuple, tuple]] = []
    floats = [a is not None and a.ndim > 0 and a.size > 0 for a in case.ins]
    for given in [
        [None] * len(case.ins),
        *[[layout if f else None for f in floats] for layout in known],
        *[[layout if f and i == 0 else None for i, f in enumerate(floats)] for layout in known],
    ]:
        pair = _arrangement(case, backend, given)
        if pair not in found:
            found.append(pair)
    return found


def _arrangement(case: Case, backend: Backend, given: Sequence[Any]) -> tuple[tuple, tuple]:
    shapes = shapes_of(case.ins)
    out_shapes = case.op.shape(*shapes, **case.params)
    wanted, outs = backend.arrange(case.op, shapes, given, out_shapes, case.params)
    return tuple(wanted), tuple(outs)


def _known_layouts(backend: Backend) -> list[Any]:
    """The layouts other than C order that a backend gives to a batch."""
    shapes, params = ((100, 3), (5, 3), (5,)), {"activation": None}
    wanted, _ = backend.arrange(registry["linear"], shapes, [None] * 3, ((100, 5),), params)
    return [layout for layout in wanted if layout is not None][:1]


def _in_names(case: Case) -> list[str]:
    if case.op.variadic:
        return [f"{case.op.ins[0].name}{i}" for i in range(len(case.ins))]
    return [operand.name for operand in case.op.ins]


def _result_names(case: Case) -> list[str]:
    names = [operand.name for operand in case.op.outs]
    return names + [case.op.ins[i].name for i in case.op.inplace if case.ins[i] is not None]


# judging ------------------------------------------------------------------------------------------


def _bits(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a).reshape(-1).view(np.uint8)


def _same_bits(what: str, a: np.ndarray, b: np.ndarray, case: Any) -> None:
    if a.dtype != b.dtype or a.shape != b.shape:
        raise CheckError(f"{what} is {a.shape} {a.dtype} and then {b.shape} {b.dtype}   ({case})")
    if not a.size or np.array_equal(_bits(a), _bits(b)):
        return
    rows = [_bits(v).reshape(a.size, a.dtype.itemsize) for v in (a, b)]
    differ = np.any(rows[0] != rows[1], axis=1)
    left = np.all(rows[0] == POISONS[0], axis=1) & np.all(rows[1] == POISONS[1], axis=1)
    if left.any():
        at = np.unravel_index(int(np.argmax(left)), a.shape)
        raise CheckError(
            f"{what} is not fully written: {int(left.sum())} of {a.size} elements, the first at "
            f"{_index(at)}   ({case})"
        )
    at = np.unravel_index(int(np.argmax(differ)), a.shape)
    raise CheckError(
        f"{what} depends on what was in memory before, or on chance: {int(differ.sum())} of "
        f"{a.size} elements, the first at {_index(at)}: {a[at]} and then {b[at]}   ({case})"
    )


def _close(what: str, got: np.ndarray, expected: Expected, case: Any, tolerance: float) -> None:
    want = expected.values
    if got.shape != want.shape:
        raise CheckError(f"{what} has shape {got.shape}, expected {want.shape}   ({case})")
    if expected.magnitude is None or got.dtype.kind != "f":
        with np.errstate(over="ignore", invalid="ignore"):
            want = want.astype(got.dtype)
        bad = ~((got == want) | ((got != got) & (want != want)))
        limit = np.zeros(got.shape)
    else:
        limit = allowed(expected, got.dtype, tolerance)
        with np.errstate(invalid="ignore"):
            off = np.abs(got.astype(np.float64) - want)
            near = np.isfinite(want) & (off <= limit)  # an infinite number is met by itself alone
            bad = ~(near | (got == want) | (np.isnan(got) & np.isnan(want)))
    if not bad.any():
        return
    at = np.unravel_index(int(np.argmax(bad)), got.shape)
    raise CheckError(
        f"{what} is wrong in {int(bad.sum())} of {got.size} elements; at {_index(at)} it is "
        f"{got[at]!s}, expected {want[at]!s} within {limit[at]:.2g}   ({case})"
    )


def _index(at: tuple) -> tuple[int, ...]:
    return tuple(int(i) for i in at)


# ops without a kernel of their own ----------------------------------------------------------------


def _check_whole(
    op: Op, given: Sample, backend: Backend, rng: np.random.Generator, dtype: np.dtype
) -> None:
    """Composite ops and views: values, inputs and repetition, through the public function."""
    arrays = drawn(op, given, rng, dtype)
    shown = ", ".join("None" if a is None else str(a.shape) for a in arrays) + f", {given.params}"

    def results(where: Backend, inputs: Arrays, layout: Any) -> tuple[list[np.ndarray], Arrays]:
        tensors = [None if a is None else _tensor(where.upload(a), where) for a in inputs]
        for i, t in enumerate(tensors):
            if layout is not None and t is not None and t.shape and t.size and i not in op.inplace:
                tensors[i] = arranged(t, layout)
        with seeded(0), no_grad():
            found = list(call(op, given, tensors))
        found += [t for i in op.inplace if i < len(tensors) and (t := tensors[i]) is not None]
        return [t.numpy() for t in found], [None if t is None else t.numpy() for t in tensors]

    wanted, _ = results(get("numpy"), [_as_float64(a) for a in arrays], None)
    length = max(1.0, sum(a.size for a in arrays if a is not None))
    for layout in [None, *(_known_layouts(backend) if backend.arranges else ())]:
        where = f"{op.name} on '{backend.name}'" + (f" in layout {layout!r}" if layout else "")
        first, after = results(backend, arrays, layout)
        for _ in backend.orders():
            again, _ = results(backend, arrays, layout)
            for i, (a, b) in enumerate(zip(first, again, strict=True)):
                _same_bits(f"{where}: result {i}", a, b, shown)
        for i, (a, want) in enumerate(zip(first, wanted, strict=True)):
            what = f"{where}: result {i}"
            magnitude = None
            if want.dtype.kind == "f" and not op.exact:
                magnitude = np.abs(want) + np.max(np.abs(want), initial=1.0)
            _close(what, a, Expected(want, magnitude, length), shown, op.tolerance)
        for i, (before, now) in enumerate(zip(arrays, after, strict=True)):
            if before is None or now is None or i in op.inplace:
                continue
            if not np.array_equal(_bits(before), _bits(now)):
                raise CheckError(f"{where}: an input was changed   ({shown})")
