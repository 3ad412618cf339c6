// Reductions of one axis, the second rung: many threads have one element of y.
//
//   rows, x (a, k):         k -->                       columns, x (a, k, c):      c -->
//       t t t t t t t t t t t t t t                      k  t t t t      threads lie along c, where
//       blockDim.x threads go along the row,             |  u u u u      neighbours in memory are;
//       then meet (rows.cuh)                             v  t t t t      blockDim.y rows of threads
//                                                           u u u u      go along k, then meet
//
//   k in chunks:    [ block 0 | block 1 | block 2 ]  -->  [ . . . ]  -->  [ . ]
//
// Where there are few rows or columns, k is cut in chunks for more blocks, and a second launch
// reduces what they found: so the order of an addition depends on the shape alone, and no number is
// the sum of more than a few thousand others one by one, which keeps rounding small.
// Several axes that do not lie together are reduced one after the other (reduce.py).
#include "reduce.cuh"

// Elements `from`, `from + step`, ... below `most` of one thread, which lie `stride` apart in x:
// four at a time, so that four loads are under way.
template <class R>
__device__ inline typename R::Value taken(const R& r, i64 place, i64 stride, i64 k, i64 from,
                                          int step, i64 most) {
    typename R::Value of[4];
    #pragma unroll
    for (int j = 0; j < 4; j++) of[j] = r.first(place, k);
    i64 i = from;
    for (; i + 3 * step < most; i += 4 * step) {
        #pragma unroll
        for (int j = 0; j < 4; j++) {
            i64 here = i + j * step;
            of[j] = r(of[j], r.at(place + here * stride, k + here));
        }
    }
    for (; i < most; i += step) of[0] = r(of[0], r.at(place + i * stride, k + i));
    return r(r(of[0], of[1]), r(of[2], of[3]));
}

template <class R>
__device__ inline void rows(const R& r, const Reduced& s, typename R::Value* work) {
    i64 count = s.a * s.chunks;
    for (i64 i0 = (i64)blockIdx.x * blockDim.y; i0 < count; i0 += (i64)gridDim.x * blockDim.y) {
        bool exists = i0 + threadIdx.y < count;
        i64 i = exists ? i0 + threadIdx.y : 0;  // one too many: no thread leaves its warp
        i64 k = i % s.chunks * s.chunk, left = s.k - k;
        i64 most = left < s.chunk ? left : s.chunk;
        auto total = taken(r, i / s.chunks * s.k + k, 1, k, threadIdx.x, blockDim.x, most);
        total = over_row(total, work, r);
        if (exists && threadIdx.x == 0) r.write(i, total);
    }
}

template <class R>
__device__ inline void columns(const R& r, const Reduced& s, typename R::Value* work) {
    i64 across = (s.c + blockDim.x - 1) / blockDim.x;
    for (i64 block = blockIdx.x; block < s.a * s.chunks * across; block += gridDim.x) {
        i64 column = block % across * blockDim.x + threadIdx.x, i = block / across;
        bool exists = column < s.c;
        i64 k = i % s.chunks * s.chunk, left = s.k - k;
        i64 most = left < s.chunk ? left : s.chunk;
        i64 place = (i / s.chunks * s.k + k) * s.c + (exists ? column : 0);
        auto* mine = work + threadIdx.y * blockDim.x + threadIdx.x;
        __syncthreads();  // of the last turn nothing is read any more
        *mine = taken(r, place, s.c, k, threadIdx.y, blockDim.y, most);
        for (int step = blockDim.y / 2; step; step /= 2) {
            __syncthreads();
            if (threadIdx.y < step) *mine = r(*mine, mine[step * blockDim.x]);
        }
        if (exists && threadIdx.y == 0) r.write(i * s.c + column, *mine);
    }
}

LIMITED_KERNEL(256, sum_rows)(T* y, const S* x, Reduced s, T divisor) {
    __shared__ T work[WARP];
    rows(Sum{y, x, divisor}, s, work);
}
LIMITED_KERNEL(256, max_rows)(T* y, const S* x, Reduced s) {
    __shared__ T work[WARP];
    rows(Extreme<Larger>{y, x}, s, work);
}
LIMITED_KERNEL(256, min_rows)(T* y, const S* x, Reduced s) {
    __shared__ T work[WARP];
    rows(Extreme<Smaller>{y, x}, s, work);
}
RESIDENT_KERNEL(256, 1, argmax_rows)(i64* y, S* top, const S* x, const i64* index, Reduced s) {
    __shared__ Candidate work[WARP];
    rows(ArgMax{y, top, x, index}, s, work);
}

LIMITED_KERNEL(256, sum_columns)(T* y, const S* x, Reduced s, T divisor) {
    __shared__ T work[256];
    columns(Sum{y, x, divisor}, s, work);
}
LIMITED_KERNEL(256, max_columns)(T* y, const S* x, Reduced s) {
    __shared__ T work[256];
    columns(Extreme<Larger>{y, x}, s, work);
}
LIMITED_KERNEL(256, min_columns)(T* y, const S* x, Reduced s) {
    __shared__ T work[256];
    columns(Extreme<Smaller>{y, x}, s, work);
}
LIMITED_KERNEL(256, argmax_columns)(i64* y, S* top, const S* x, const i64* index, Reduced s) {
    __shared__ Candidate work[256];
    columns(ArgMax{y, top, x, index}, s, work);
}
