// How the threads of a row meet.
//
//      blockDim (8, 32):   row 0  t t t t t t t t   row 1  t t t t t t t t   ...    4 rows a warp
//      blockDim (256, 1):  row 0  t t t t ...       one row, 8 warps of a block
//
// A row has blockDim.x threads, a power of 2, and blockDim.y rows share a block.  Where a row has more
// than a warp, its warps meet in a part of `work` that is the row's own.
#pragma once
#include "common.cuh"

// What the lane `lane ^ step` has.
template <class A>
__device__ inline A of_lane(A value, int step) {
    return static_cast<A>(__shfl_xor_sync(0xffffffffu, value, step));
}

// The combination over the threads of a row, in each of them, always in the same order.
// `work`: 32 elements of shared memory.
template <class A, class F>
__device__ inline A over_row(A value, A* work, F f) {
    int lanes = blockDim.x < WARP ? blockDim.x : WARP;
    for (int step = lanes / 2; step; step /= 2) value = f(value, of_lane(value, step));
    if (blockDim.x <= WARP) return value;
    work += threadIdx.y * (blockDim.x / WARP);
    __syncthreads();  // `work` may still be read by an earlier call
    if (threadIdx.x % WARP == 0) work[threadIdx.x / WARP] = value;
    __syncthreads();
    value = work[0];
    for (int w = 1; w < blockDim.x / WARP; w++) value = f(value, work[w]);
    return value;
}
