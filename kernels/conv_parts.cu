// The sum of parts that blocks left in memory: without atomics, so that runs agree bit for bit.
//
//    parts   0  [ . . . . . . ... ]     a block: 32 results (threadIdx.x) x 8 shares (threadIdx.y)
//            1  [ . . . . . . ... ]
//            2  [ . . . . . . ... ]     share y adds up parts y, y + 8, y + 16, ...
//            ...                        then the first one adds up the 8 shares
//    y          [ . . . . . . ... ]
//
// Whether memory held a sum already, to which these come, says `adds`.
#include "common.cuh"

LIMITED_KERNEL(256, sum_parts)(T* y, const T* parts, i64 n, int count, int adds) {
    __shared__ T shares[8][WARP];
    for (i64 first = (i64)blockIdx.x * WARP; first < n; first += (i64)gridDim.x * WARP) {
        i64 i = first + threadIdx.x;
        T sum = 0;
        if (i < n)
            for (int part = threadIdx.y; part < count; part += 8) sum += parts[part * n + i];
        shares[threadIdx.y][threadIdx.x] = sum;
        __syncthreads();
        if (threadIdx.y == 0 && i < n) {
            for (int share = 1; share < 8; share++) sum += shares[share][threadIdx.x];
            y[i] = adds ? y[i] + sum : sum;
        }
        __syncthreads();  // before the next turn writes
    }
}
