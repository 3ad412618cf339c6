// The place of the largest element along an axis: x[outer, length, inner] -> index[outer, inner].
//
//      inner = 1, a warp a row:   [ 0 1 2 ... 31 | 0 1 2 ... 31 | ... ]   each lane keeps its largest
//                                                                        and where it was; lanes meet
//      else, a thread a column:   neighbouring threads have neighbouring columns
//
// The first of equal elements wins, and NaN over all numbers, as NumPy has it.
#include "common.cuh"

// whether b, which comes from place j, takes the lead from a at place i
__device__ inline bool beats(T b, i64 j, T a, i64 i) {
    bool a_nan = a != a, b_nan = b != b;
    if (a_nan || b_nan) return b_nan && (!a_nan || j < i);
    return b > a || (b == a && j < i);
}

LIMITED_KERNEL(256, argmax_warps)(i64* index, const T* x, i64 outer, i64 length) {
    i64 warps = (i64)gridDim.x * (blockDim.x / WARP);
    i64 first = (i64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    int lane = threadIdx.x % WARP;
    for (i64 row = first; row < outer; row += warps) {
        const T* from = x + row * length;
        i64 best = 0;
        T value = from[0];
        for (i64 k = lane; k < length; k += WARP)
            if (beats(from[k], k, value, best)) value = from[k], best = k;
        for (int step = WARP / 2; step; step /= 2) {
            T other = __shfl_xor_sync(0xffffffffu, value, step);
            i64 place = __shfl_xor_sync(0xffffffffu, best, step);
            if (beats(other, place, value, best)) value = other, best = place;
        }
        if (lane == 0) index[row] = best;
    }
}

KERNEL(argmax_columns)(i64* index, const T* x, i64 outer, i64 length, i64 inner) {
    GRID_LOOP(i, outer * inner) {
        const T* from = x + i / inner * length * inner + i % inner;
        i64 best = 0;
        for (i64 k = 1; k < length; k++)
            if (beats(from[k * inner], k, from[best * inner], best)) best = k;
        index[i] = best;
    }
}
