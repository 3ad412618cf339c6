// Matrix products, the second rung: a block has a tile of y, and shares what it reads.
//
//                         b     [ tile ]
//                               [ tile ] |      16 x 16 threads take 16 of k at once: the
//                                 ...    v      block copies a tile of a and one of b to shared
//          a                                    memory, waits, multiplies, waits, and goes on
//          [ tile ][ tile ]..   [ tile ] y
//          ------->                             each thread has one element of the tile of y
//
// An element that was read once from far away is used 16 times.  What bounds it now is shared
// memory: two loads for one multiplication.
#include "linear.cuh"

constexpr int TILE = 16;

// tile[i][j] = x[i0 + i, j0 + j], 0 where i or j is outside.  Neighbouring threads read along the
// axis with stride 1, whichever it is: that is what makes 64 bytes one load.
__device__ inline void copy_tile(T (*tile)[TILE + 1], const T* x, i64 i0, i64 j0, i64 most_i,
                                 i64 most_j, i64 step_i, i64 step_j) {
    int i = step_j == 1 ? threadIdx.y : threadIdx.x;
    int j = step_j == 1 ? threadIdx.x : threadIdx.y;
    bool inside = i0 + i < most_i && j0 + j < most_j;
    tile[i][j] = inside ? x[(i0 + i) * step_i + (j0 + j) * step_j] : T(0);
}

LIMITED_KERNEL(256, product_tiled)(T* y, const T* a, const T* b, const T* bias, Product p) {
    __shared__ T tile_a[TILE][TILE + 1], tile_b[TILE][TILE + 1];  // + 1: columns in unlike banks
    i64 across = (p.n + TILE - 1) / TILE, down = (p.m + TILE - 1) / TILE;
    for (i64 tile = blockIdx.x; tile < p.matrices * down * across; tile += gridDim.x) {
        i64 n0 = tile % across * TILE, m0 = tile / across % down * TILE, begin[2];
        i64 matrix = tile / (across * down);
        place<2>(p.walk, matrix, begin);
        T sum = 0;
        for (i64 k0 = 0; k0 < p.k; k0 += TILE) {
            copy_tile(tile_a, a + begin[0], m0, k0, p.m, p.k, p.a_m, p.a_k);
            copy_tile(tile_b, b + begin[1], k0, n0, p.k, p.n, p.b_k, p.b_n);
            __syncthreads();  // the tiles are complete
            for (int k = 0; k < TILE; k++) sum += tile_a[threadIdx.y][k] * tile_b[k][threadIdx.x];
            __syncthreads();  // nobody reads them any more
        }
        i64 m = m0 + threadIdx.y, n = n0 + threadIdx.x;
        if (m < p.m && n < p.n)
            y[(matrix * p.m + m) * p.n + n] =
                activated(bias ? sum + bias[n] : sum, p.activation);
    }
}
