// Sums and extremes over some axes: x is S, y and everything in between is T.
//
// An element of y (there are `count`) comes of `length` elements of x, walked by r.reduced from where
// r.kept says.  How threads share them depends on which elements lie together:
//
//   rows      a row is reduced:  [ t0 t1 t2 t3 t0 t1 t2 t3 ... ]   neighbouring threads have
//             a block a row, or a warp where rows are short        neighbouring elements
//
//   columns   y lies along x:    t0 t1 t2 ... t31   blocks of 32 x 8 threads: a warp reads 32
//                                t0 t1 t2 ... t31   columns of one row, thread row k every 8th row,
//                                ...                then the block folds its 8 rows of threads
//
//   Where y is small and `length` large, `length` is cut into r.splits parts; a second launch reduces
//   what the parts gave.  Always in the same order, so always to the same bits.
#include "common.cuh"

struct Reduction {
    i64 count, length, splits, chunk;
    Walk kept, reduced;
};

// part p of element i covers [first, last)
struct Range {
    i64 first, last;
};

__device__ inline Range range_of(const Reduction& r, i64 part) {
    i64 first = part * r.chunk, last = first + r.chunk;
    return {first, last < r.length ? last : r.length};
}

// acc = f(acc, x[k]) for every `threads`-th k of [first, last), 16 bytes at a time where that goes
template <class F>
__device__ inline T along(const S* x, Range range, int thread, int threads, T acc, F f) {
    constexpr int W = Pack<S>::size;
    i64 k = range.first;
    if (aligned16(x + k)) {
        i64 packs = (range.last - k) / W;
        for (i64 p = thread; p < packs; p += threads) {
            Pack<S> values = reinterpret_cast<const Pack<S>*>(x + k)[p];
            for (int j = 0; j < W; j++) acc = f(acc, static_cast<T>(values.at[j]));
        }
        k += packs * W;
    }
    for (k += thread; k < range.last; k += threads) acc = f(acc, static_cast<T>(x[k]));
    return acc;
}

__device__ inline T shared_out(T value, T divisor) { return divisor == T(1) ? value : value / divisor; }

// start(first): what a thread begins with, `first` being an element of its range (for an extreme) or 0
#define REDUCTION(name, f, start)                                                                \
    LIMITED_KERNEL(256, name##_rows)(T* y, const S* x, Reduction r, T divisor) {                 \
        __shared__ T work[WARP];                                                                 \
        for (i64 i = blockIdx.x; i < r.count * r.splits; i += gridDim.x) {                       \
            Range range = range_of(r, i % r.splits);                                             \
            i64 at;                                                                              \
            place<1>(r.kept, i / r.splits, &at);                                                 \
            bool any = range.first < range.last;                                                 \
            T acc = start(any ? static_cast<T>(x[at + range.first]) : T(0));                     \
            acc = along(x + at, range, threadIdx.x, blockDim.x, acc, f);                         \
            acc = over_block(acc, work, f);                                                      \
            if (threadIdx.x == 0) y[i] = shared_out(acc, divisor);                               \
        }                                                                                        \
    }                                                                                            \
    LIMITED_KERNEL(256, name##_warps)(T* y, const S* x, Reduction r, T divisor) {                \
        i64 warps = (i64)gridDim.x * (blockDim.x / WARP);                                        \
        i64 first = (i64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;                  \
        for (i64 i = first; i < r.count; i += warps) {                                           \
            i64 at;                                                                              \
            place<1>(r.kept, i, &at);                                                            \
            T acc = start(r.length ? static_cast<T>(x[at]) : T(0));                              \
            acc = along(x + at, {0, r.length}, threadIdx.x % WARP, WARP, acc, f);                \
            acc = over_warp(acc, f);                                                             \
            if (threadIdx.x % WARP == 0) y[i] = shared_out(acc, divisor);                        \
        }                                                                                        \
    }                                                                                            \
    LIMITED_KERNEL(256, name##_columns)(T* y, const S* x, Reduction r, T divisor) {              \
        __shared__ T work[8][WARP];                                                              \
        i64 across = (r.count + WARP - 1) / WARP;                                                \
        for (i64 i = blockIdx.x; i < across * r.splits; i += gridDim.x) {                        \
            i64 column = i % across * WARP + threadIdx.x, part = i / across, at = 0, to = 0;     \
            Range range = range_of(r, part);                                                     \
            bool inside = column < r.count && range.first < range.last;                          \
            if (inside) {                                                                        \
                place<1>(r.kept, column, &at);                                                   \
                place<1>(r.reduced, range.first, &to);                                           \
            }                                                                                    \
            T acc = start(inside ? static_cast<T>(x[at + to]) : T(0));                           \
            for (i64 k = range.first + threadIdx.y; inside && k < range.last; k += 8) {          \
                place<1>(r.reduced, k, &to);                                                     \
                acc = f(acc, static_cast<T>(x[at + to]));                                        \
            }                                                                                    \
            work[threadIdx.y][threadIdx.x] = acc;                                                \
            __syncthreads();                                                                     \
            if (threadIdx.y == 0 && column < r.count) {                                          \
                for (int k = 1; k < 8; k++) acc = f(acc, work[k][threadIdx.x]);                  \
                y[part * r.count + column] = shared_out(acc, divisor);                           \
            }                                                                                    \
            __syncthreads();                                                                     \
        }                                                                                        \
    }

#define FROM_ZERO(first) T(0)
#define FROM_FIRST(first) (first)

REDUCTION(sum, Add(), FROM_ZERO)
REDUCTION(max, Larger(), FROM_FIRST)
REDUCTION(min, Smaller(), FROM_FIRST)
