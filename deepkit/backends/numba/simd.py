"""Pointers for Numba kernels, and the micro-kernels that all matrix products are made of.

Both are `@intrinsic`s that emit LLVM IR.  They cut the result into tiles whose accumulators stay
in registers (`machine.TILES`: large tiles first, smaller ones for what remains).

    panel        C[m, v] (+)= sum_r A[m, r] * B[r, v]     B and C hold vectors along v,
                                                          A is broadcast, one number at a time
    dot_panel    C[m, j]  += sum_r A[m, r] * B[j, r]      A and B hold vectors along r,
                                                          summed across lanes at the end

The reduction r is walked by three nested loops with strides of their own, which is what a
convolution needs: window rows, window columns, channels.  Strides count elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .machine import DOT_TILES, HAS_FMA, TILES, VECTOR_BYTES

INT = ir.IntType(64)

ACCUMULATE, BIAS, RELU, COLUMN_BIAS = 1, 2, 4, 8  # what `panel` does when it writes


def _float(pointer: Any) -> ir.Type:
    return ir.FloatType() if pointer.dtype == types.float32 else ir.DoubleType()


@intrinsic
def at(typing: Any, pointer: Any, offset: Any) -> Any:
    """The pointer `offset` elements further."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.int64), generate


@intrinsic
def real(typing: Any, bits: Any) -> Any:
    """A float64 that travelled in an integer argument."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), generate


@intrinsic
def vector_lanes(typing: Any, pointer: Any) -> Any:
    """Elements of the pointer's type in one vector register."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(INT, VECTOR_BYTES // context.get_abi_sizeof(_float(pointer)))

    return types.int64(pointer), generate


class _Emit:
    """What the micro-kernels are written with."""

    def __init__(self, context: Any, builder: Any, pointer: Any) -> None:
        self.builder, self.float = builder, _float(pointer)
        self.lanes = VECTOR_BYTES // context.get_abi_sizeof(self.float)
        self.vector = ir.VectorType(self.float, self.lanes)
        self.bytes = context.get_abi_sizeof(self.float)
        self.suffix = f"v{self.lanes}{'f32' if self.float == ir.FloatType() else 'f64'}"

    def load(self, pointer: Any, offset: Any, mask: Any = None) -> Any:
        """A vector from memory; where the mask is off, zeros, and nothing is read."""
        where = self.builder.gep(pointer, [offset])
        where = self.builder.bitcast(where, self.vector.as_pointer())
        if mask is None:
            return self.builder.load(where, align=self.bytes)
        kinds = [where.type, ir.IntType(32), mask.type, self.vector]
        kind = ir.FunctionType(self.vector, kinds)
        function = self._function(kind, f"llvm.masked.load.{self.suffix}.p0")
        zero = ir.Constant(self.vector, [0.0] * self.lanes)
        return self.builder.call(function, [where, ir.IntType(32)(self.bytes), mask, zero])

    def store(self, value: Any, pointer: Any, offset: Any, mask: Any = None) -> None:
        """A vector to memory; where the mask is off, nothing is written."""
        where = self.builder.gep(pointer, [offset])
        where = self.builder.bitcast(where, self.vector.as_pointer())
        if mask is None:
            self.builder.store(value, where, align=self.bytes)
            return
        kinds = [self.vector, where.type, ir.IntType(32), mask.type]
        kind = ir.FunctionType(ir.VoidType(), kinds)
        function = self._function(kind, f"llvm.masked.store.{self.suffix}.p0")
        self.builder.call(function, [value, where, ir.IntType(32)(self.bytes), mask])

    def _function(self, kind: Any, name: str) -> Any:
        return cgutils.get_or_insert_function(self.builder.module, kind, name)

    def first_lanes(self, count: Any) -> Any:
        """A mask that is on in the first `count` lanes."""
        narrow = self.builder.trunc(count, ir.IntType(32))
        kind = ir.VectorType(ir.IntType(32), self.lanes)
        empty = ir.Constant(kind, ir.Undefined)
        one = self.builder.insert_element(empty, narrow, ir.Constant(ir.IntType(32), 0))
        spread = self.builder.shuffle_vector(one, empty, ir.Constant(kind, [0] * self.lanes))
        numbers = ir.Constant(kind, list(range(self.lanes)))
        return self.builder.icmp_signed("<", numbers, spread)

    def broadcast(self, number: Any) -> Any:
        empty = ir.Constant(self.vector, ir.Undefined)
        one = self.builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one, empty, zeros)

    def shuffle(self, a: Any, b: Any, lanes: Sequence[int]) -> Any:
        kind = ir.VectorType(ir.IntType(32), self.lanes)
        return self.builder.shuffle_vector(a, b, ir.Constant(kind, list(lanes)))

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        if not HAS_FMA:
            return self.builder.fadd(self.builder.fmul(a, b), c)
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        fma = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.fma.{self.suffix}")
        return self.builder.call(fma, [a, b, c])

    def sum_lanes(self, value: Any) -> Any:
        kind = ir.FunctionType(self.float, [self.float, self.vector])
        name = f"llvm.vector.reduce.fadd.{self.suffix}"
        add = cgutils.get_or_insert_function(self.builder.module, kind, name)
        zero = ir.Constant(self.float, -0.0)
        return self.builder.call(add, [zero, value], fastmath=("reassoc",))

    def relu(self, value: Any) -> Any:
        """max(0, x) that keeps NaN: x unless x <= 0."""
        zero = ir.Constant(self.vector, [0.0] * self.lanes)
        return self.builder.select(self.builder.fcmp_unordered(">", value, zero), value, zero)

    def add_times(self, start: Any, count: Any, stride: Any) -> Any:
        """start + count * stride, for integers."""
        count = INT(count) if isinstance(count, int) else count
        return self.builder.add(start, self.builder.mul(count, stride))

    def accumulators(self, count: int) -> list[Any]:
        zero = ir.Constant(self.vector, [0.0] * self.lanes)
        return [cgutils.alloca_once_value(self.builder, zero) for _ in range(count)]

    def step(self, total: Any, a: Any, b: Any) -> None:
        """total += a * b."""
        self.builder.store(self.multiply_add(a, b, self.builder.load(total)), total)

    @contextmanager
    def cut(self, start: Any, stop: Any, size: int) -> Iterator[tuple[Any, Any]]:
        """A loop over whole pieces of `size` from start on: (where a piece is, where they end)."""
        whole = self.builder.sdiv(self.builder.sub(stop, start), INT(size))
        end = self.add_times(start, whole, INT(size))
        with cgutils.for_range_slice(self.builder, start, end, INT(size), INT) as (index, _):
            yield index, end

    @contextmanager
    def loops(self, *counts: Any) -> Iterator[list[Any]]:
        """The body of nested loops, outermost first: their indices."""
        with ExitStack() as stack:
            ranges = [cgutils.for_range(self.builder, n, intp=INT) for n in counts]
            yield [stack.enter_context(r).index for r in ranges]


@intrinsic
def transpose_square(
    typing: Any, target: Any, row_target: Any, source: Any, row_source: Any
) -> Any:
    """target[i * row_target + j] = source[j * row_source + i], i and j below the lanes of a vector.

    In registers: with each round, halves, quarters, ... of neighbouring rows change places.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = _Emit(context, builder, target)
        into, row_into, out_of, row_out_of = args
        lanes, zero = emit.lanes, INT(0)
        rows = [emit.load(out_of, emit.add_times(zero, i, row_out_of)) for i in range(lanes)]
        half = lanes // 2
        while half:
            low = [i if not i & half else lanes + i - half for i in range(lanes)]
            high = [i + half if not i & half else lanes + i for i in range(lanes)]
            for i in range(lanes):
                if not i & half:
                    a, b = rows[i], rows[i + half]
                    rows[i] = emit.shuffle(a, b, low)
                    rows[i + half] = emit.shuffle(a, b, high)
            half //= 2
        for i, row in enumerate(rows):
            emit.store(row, into, emit.add_times(zero, i, row_into))
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64), generate


class _Product(NamedTuple):
    """The arguments of a panel: pointers, (count, stride in a, stride in b) per loop, strides."""

    a: Any
    b: Any
    c: Any
    bias: Any
    n2: Any
    a2: Any
    b2: Any
    n1: Any
    a1: Any
    b1: Any
    n0: Any
    a0: Any
    b0: Any
    row_a: Any
    row_c: Any
    flags: Any


def _multiply_tile(
    emit: _Emit, p: _Product, rows: int, vectors: int, m: Any, v: Any, mask: Any = None
) -> None:
    """The tile of C that begins at row m and column v; a mask leaves out columns at its end."""
    builder = emit.builder
    a = builder.gep(p.a, [builder.mul(m, p.row_a)])
    b = builder.gep(p.b, [v])
    c = builder.gep(p.c, [emit.add_times(v, m, p.row_c)])
    bias = builder.gep(p.bias, [m])
    tile = [(i, j) for i in range(rows) for j in range(vectors)]
    sums = dict(zip(tile, emit.accumulators(len(tile)), strict=True))
    with emit.loops(p.n2, p.n1, p.n0) as (i2, i1, i0):
        in_a = emit.add_times(emit.add_times(builder.mul(i2, p.a2), i1, p.a1), i0, p.a0)
        in_b = emit.add_times(emit.add_times(builder.mul(i2, p.b2), i1, p.b1), i0, p.b0)
        side = [emit.load(b, builder.add(in_b, INT(j * emit.lanes)), mask) for j in range(vectors)]
        for i in range(rows):
            number = builder.load(builder.gep(a, [emit.add_times(in_a, i, p.row_a)]))
            spread = emit.broadcast(number)
            for j in range(vectors):
                emit.step(sums[i, j], spread, side[j])

    def place(i: int, j: int) -> Any:
        return emit.add_times(INT(j * emit.lanes), i, p.row_c)

    def when(bit: int, change: Callable[[int, int, Any], Any]) -> None:
        wanted = builder.icmp_signed("!=", builder.and_(p.flags, INT(bit)), INT(0))
        with builder.if_then(wanted):
            for i, j in tile:
                builder.store(change(i, j, builder.load(sums[i, j])), sums[i, j])

    def add_bias(i: int, j: int, value: Any) -> Any:
        return builder.fadd(value, emit.broadcast(builder.load(builder.gep(bias, [INT(i)]))))

    when(ACCUMULATE, lambda i, j, value: builder.fadd(value, emit.load(c, place(i, j), mask)))

    def add_column_bias(i: int, j: int, value: Any) -> Any:
        offset = builder.add(v, INT(j * emit.lanes))
        return builder.fadd(value, emit.load(p.bias, offset, mask))

    when(BIAS, add_bias)
    when(COLUMN_BIAS, add_column_bias)
    when(RELU, lambda i, j, value: emit.relu(value))
    for i, j in tile:
        emit.store(builder.load(sums[i, j]), c, place(i, j), mask)


@intrinsic
def _panel(typing, a, b, c, bias, n2, a2, b2, n1, a1, b1, n0, a0, b0, row_a, row_c, flags, m, v):
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit, p, (rows, columns) = _Emit(context, builder, a), _Product(*args[:16]), args[16:]

        def column_of_tiles(vectors: int, heights: Any, column: Any, mask: Any = None) -> None:
            top = INT(0)
            for height in heights:
                with emit.cut(top, rows, height) as (row, rows_end):
                    _multiply_tile(emit, p, height, vectors, row, column, mask)
                top = rows_end

        first = INT(0)
        for vectors, heights in TILES.items():
            with emit.cut(first, columns, vectors * emit.lanes) as (column, columns_end):
                column_of_tiles(vectors, heights, column)
            first = columns_end
        rest = builder.sub(columns, first)
        with builder.if_then(builder.icmp_signed(">", rest, INT(0))):
            column_of_tiles(1, TILES[1], first, emit.first_lanes(rest))
        return context.get_dummy_value()

    return types.void(a, b, c, bias, *[types.int64] * 14), generate


@numba.njit
def panel(a, b, c, bias, rows, columns, n2, a2, b2, n1, a1, b1, n0, a0, b0, row_a, row_c, flags):
    """C[m, v] (+)= sum A[m, r] B[r, v] for `rows` rows and `columns` columns.

    r runs over n2 x n1 x n0 with strides a2, a1, a0 in A and b2, b1, b0 in B; `row_a` and `row_c`
    lie between rows; columns are contiguous in B and C.  flags: ACCUMULATE adds to C, BIAS adds
    bias[m], RELU cuts off below 0.
    """
    _panel(a, b, c, bias, n2, a2, b2, n1, a1, b1, n0, a0, b0, row_a, row_c, flags, rows, columns)


class _Dots(NamedTuple):
    """The arguments of a dot panel; the innermost loop walks vectors of neighbours."""

    a: Any
    b: Any
    c: Any
    n2: Any
    a2: Any
    b2: Any
    n1: Any
    a1: Any
    b1: Any
    n0: Any
    row_a: Any
    row_b: Any
    row_c: Any
    column_c: Any


def _dots_tile(emit: _Emit, p: _Dots, rows: int, columns: int, m: Any, j: Any) -> None:
    builder = emit.builder
    a = builder.gep(p.a, [builder.mul(m, p.row_a)])
    b = builder.gep(p.b, [builder.mul(j, p.row_b)])
    corner = emit.add_times(builder.mul(m, p.row_c), j, p.column_c)
    tile = [(r, c) for r in range(rows) for c in range(columns)]
    sums = dict(zip(tile, emit.accumulators(len(tile)), strict=True))
    whole = builder.sdiv(p.n0, INT(emit.lanes))
    rest = builder.srem(p.n0, INT(emit.lanes))

    def step(in_a: Any, in_b: Any, mask: Any = None) -> None:
        side = [emit.load(b, emit.add_times(in_b, c, p.row_b), mask) for c in range(columns)]
        for r in range(rows):
            left = emit.load(a, emit.add_times(in_a, r, p.row_a), mask)
            for c in range(columns):
                emit.step(sums[r, c], left, side[c])

    with emit.loops(p.n2, p.n1) as (i2, i1):
        in_a = emit.add_times(builder.mul(i2, p.a2), i1, p.a1)
        in_b = emit.add_times(builder.mul(i2, p.b2), i1, p.b1)
        with emit.loops(whole) as (i0,):
            along = builder.mul(i0, INT(emit.lanes))
            step(builder.add(in_a, along), builder.add(in_b, along))
        with builder.if_then(builder.icmp_signed("!=", rest, INT(0))):
            end = builder.mul(whole, INT(emit.lanes))
            step(builder.add(in_a, end), builder.add(in_b, end), emit.first_lanes(rest))
    for r, c in tile:
        slot = builder.gep(p.c, [emit.add_times(emit.add_times(corner, r, p.row_c), c, p.column_c)])
        total = emit.sum_lanes(builder.load(sums[r, c]))
        builder.store(builder.fadd(builder.load(slot), total), slot)


@intrinsic
def _dot_panel(typing, a, b, c, n2, a2, b2, n1, a1, b1, n0, row_a, row_b, row_c, column_c, m, j):
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit, p, (rows, columns) = _Emit(context, builder, a), _Dots(*args[:14]), args[14:]

        def column_of_tiles(wide: int, heights: Any, column: Any) -> None:
            top = INT(0)
            for height in heights:
                with emit.cut(top, rows, height) as (row, rows_end):
                    _dots_tile(emit, p, height, wide, row, column)
                top = rows_end

        # as many tiles are one wider as columns would be left over: alone they wait for loads
        widest = max(DOT_TILES)
        wider = builder.mul(builder.srem(columns, INT(widest)), INT(widest + 1))
        enough = builder.icmp_signed("<=", wider, columns)
        with emit.cut(INT(0), builder.select(enough, wider, INT(0)), widest + 1) as (column, first):
            column_of_tiles(widest + 1, DOT_TILES[widest], column)
        for wide, heights in DOT_TILES.items():
            with emit.cut(first, columns, wide) as (column, columns_end):
                column_of_tiles(wide, heights, column)
            first = columns_end
        return context.get_dummy_value()

    return types.void(a, b, c, *[types.int64] * 13), generate


@numba.njit
def dot_panel(
    a, b, c, rows, columns, n2, a2, b2, n1, a1, b1, n0, row_a, row_b, row_c, column_c
):  # fmt: skip
    """C[m, j] += sum A[m, r] B[j, r] for `rows` rows and `columns` columns.

    r runs over n2 x n1 loops with strides a2, a1 in A and b2, b1 in B, and over n0 neighbours;
    `row_a` lies between rows of A, `row_b` between those of B, `row_c` and `column_c` in C.
    """
    _dot_panel(a, b, c, n2, a2, b2, n1, a1, b1, n0, row_a, row_b, row_c, column_c, rows, columns)
