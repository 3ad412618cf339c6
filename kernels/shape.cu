// Kernels that move values and look at none of them.
//
// T is an unsigned number as large as an element, whatever that is.
//
//      copy      x [ . . . . | . . . . | . . ]     16 bytes a thread and turn
//                y [ . . . . | . . . . | . . ]
//
//      gather    y [ . . . . . . . . . ]           a thread an element of y: a Walk says where in x
//                    |  \   \                      it comes from (a slice, an axis that has moved)
//                x [ . . . . . . . . . . . . ]
//
//      scatter   the same with x and y exchanged: a smaller array into its place in a larger one
//
//      transpose through a tile: where the last axis moves, one side of `gather` jumps from line to
//      line of memory.  A block reads 32 x 32 elements along x, turns them, and writes along y.
//
//           x    across ->                shared          y    down ->
//         down [ a b c d ]     reads     [ a b c d ]         [ a e i ]
//           |  [ e f g h ]   ======>     [ e f g h ]  =====> [ b f j ]  across
//           v  [ i j k l ]    rows       [ i j k l ]  columns[ c g k ]    |
//                                                            [ d h l ]    v
#include "common.cuh"

KERNEL(copy)(T* y, const T* x, i64 n) {
    map1(y, x, n, [](T v) -> T { return v; });
}

KERNEL(gather)(T* y, const T* x, i64 n, i64 offset, Walk walk) {
    GRID_LOOP(i, n) {
        i64 at;
        place<1>(walk, i, &at);
        y[i] = x[offset + at];
    }
}

KERNEL(scatter)(T* y, const T* x, i64 n, i64 offset, Walk walk) {
    GRID_LOOP(i, n) {
        i64 at;
        place<1>(walk, i, &at);
        y[offset + at] = x[i];
    }
}

#define TILE 32
#define ROWS 8  // of threads: each moves TILE / ROWS elements

// x[b + down_in_x i + j] -> y[b' + i + across_in_y j], i < down, j < across, for all b, b' of a
// walk over `count` such matrices.  Blocks of TILE x ROWS threads.
LIMITED_KERNEL(256, transpose_tiled)(T* y, const T* x, i64 down, i64 down_in_x, i64 across,
                                     i64 across_in_y, i64 count, Walk walk) {
    __shared__ T tile[TILE][TILE + 1];  // one column more, so that a column lies in all banks
    i64 tiles_down = (down + TILE - 1) / TILE, tiles_across = (across + TILE - 1) / TILE;
    for (i64 t = blockIdx.x; t < count * tiles_down * tiles_across; t += gridDim.x) {
        i64 rest = t, at[2];
        i64 others = divide(rest, tiles_across);
        i64 first_j = rest * TILE, matrix = divide(others, tiles_down), first_i = others * TILE;
        place<2>(walk, matrix, at);
        for (int part = 0; part < TILE; part += ROWS) {
            int k = part + threadIdx.y;
            i64 i = first_i + k, j = first_j + threadIdx.x;
            if (i < down && j < across) tile[k][threadIdx.x] = x[at[0] + down_in_x * i + j];
        }
        __syncthreads();
        for (int part = 0; part < TILE; part += ROWS) {
            int k = part + threadIdx.y;
            i64 i = first_i + threadIdx.x, j = first_j + k;
            if (i < down && j < across) y[at[1] + i + across_in_y * j] = tile[threadIdx.x][k];
        }
        __syncthreads();
    }
}
