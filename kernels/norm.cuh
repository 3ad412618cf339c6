// Two sums for every column of a matrix, in two stages and always in the same order.
//
//               columns ->                first stage: block (b, p) has `blockDim.x` columns and
//          [ block 0,0 | block 1,0 ]      every gridDim.y-th group of rows; a thread goes down
//      rows[ block 0,1 | block 1,1 ]      its column, then the block folds its rows of threads
//        | [ block 0,0 | block 1,0 ]
//        v [ block 0,1 | block 1,1 ]      second stage: the same over `pieces`, a row for each p,
//          [    ...    |    ...    ]      by blocks that have all rows to themselves
//
//      pieces [p][column]
//
// A block is as wide as the matrix, up to 32 columns, so a warp reads what lies together even where
// there are few channels.  Sums are float64: in float32 they would lose digits as a batch grows.
#pragma once
#include "common.cuh"

struct Two {
    double first, second;
};

__device__ inline i64 column_of_thread() {
    return (i64)blockIdx.x * blockDim.x + threadIdx.x;
}

// add(sum, row, column) for the rows of this block -> the sums, in the threads of the first row.
// `work` is shared, an element a thread; blockDim.y is a power of two.
template <class F>
__device__ inline Two down_columns(i64 rows, i64 columns, Two* work, F add) {
    i64 column = column_of_thread();
    Two sum = {0, 0};
    if (column < columns) {
#pragma unroll 4
        for (i64 row = (i64)blockIdx.y * blockDim.y + threadIdx.y; row < rows;
             row += (i64)gridDim.y * blockDim.y)
            add(sum, row, column);
    }
    int thread = threadIdx.x + blockDim.x * threadIdx.y;
    work[thread] = sum;
    __syncthreads();
    for (int half = blockDim.y / 2; half; half /= 2) {
        if (threadIdx.y < half) {
            Two other = work[thread + half * blockDim.x];
            work[thread].first += other.first;
            work[thread].second += other.second;
        }
        __syncthreads();
    }
    return work[threadIdx.x];
}

// The end of the first stage
__device__ inline void write_piece(Two* pieces, i64 columns, Two sum) {
    i64 column = column_of_thread();
    if (threadIdx.y == 0 && column < columns) pieces[blockIdx.y * columns + column] = sum;
}

// The second stage
__device__ inline Two over_pieces(const Two* pieces, i64 count, i64 columns, Two* work) {
    return down_columns(count, columns, work, [=](Two& sum, i64 piece, i64 column) {
        Two part = pieces[piece * columns + column];
        sum.first += part.first;
        sum.second += part.second;
    });
}
