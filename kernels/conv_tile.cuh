// What the tiled convolutions share: a block's product of two tiles, summed up in registers.
//
// The host says how large a block's tile is (LONG x SHORT) and a thread's part of it (ROWS x COLUMNS);
// a file is compiled once for each that is used.  Drawn here are 128 x 64 and 8 x 8.
//
//                          SHORT
//                      +------------+
//              DEPTH   |   b_tile   |          Both tiles lie in shared memory, twice: while all
//                      +------------+          threads multiply one pair, the next one arrives in
//            DEPTH                             registers, and is then put into the other pair, so
//         +--------+   +------------+          that one meeting a step is enough.
//         |        |   |            |
//   LONG  | a_tile |   |    sums    |          For one step of depth a thread reads 8 + 8 numbers,
//         |        |   |            |          four at a time, and adds up 64 products.
//         +--------+   +------------+
//
//         warp 0  warp 2          8 rows of 4 threads are a warp.  A thread's rows come in packs of
//         warp 1  warp 3          4 neighbours, LONG / 2 apart, and its columns in packs SHORT / 2
//                                 apart: so the threads of a warp read neighbouring packs.
//
// A tile is kept with its depth as the outer axis, PAD numbers apart: threads that write one number
// each, of 16 neighbouring rows and of depths 4 apart, then meet in no bank of shared memory.
#pragma once
#include "conv.cuh"

#ifndef LONG
#define LONG 64
#define SHORT 32
#define ROWS 4
#define COLUMNS 4
#define BLOCKS 3  // so many fit into a multiprocessor
#endif

#define DEPTH 16
#define THREADS 128
#define PAD 4

struct __align__(16) Quad {
    T at[4];
};

__device__ inline Quad zeros() {
    return {{T(0), T(0), T(0), T(0)}};
}

// The first `count` of 4 numbers, zeros after them; in one load where `whole` promises that all 4
// are there and begin at 16 bytes.
__device__ inline Quad load(const T* from, int count, bool whole) {
    if (whole) return *reinterpret_cast<const Quad*>(from);
    Quad quad = zeros();
    for (int i = 0; i < 4; i++)
        if (i < count) quad.at[i] = from[i];
    return quad;
}

__device__ inline void store(T* to, Quad quad, int count, bool whole) {
    if (whole) *reinterpret_cast<Quad*>(to) = quad;
    else
        for (int i = 0; i < 4; i++)
            if (i < count) to[i] = quad.at[i];
}

static_assert(LONG / ROWS * (SHORT / COLUMNS) == THREADS, "a thread for each part");

struct Sums {
    T at[ROWS][COLUMNS];
    int down, across;  // this thread among those that share the rows, and the columns

    __device__ Sums() {
        constexpr int warps_down = LONG / ROWS / 8;
        int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
        down = warp % warps_down * 8 + lane % 8;
        across = warp / warps_down * 4 + lane / 8;
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < COLUMNS; j++) at[i][j] = 0;
    }

    // The row of at[i] in the tile; rows i to i + 3 are neighbours where 4 divides i.
    __device__ int row(int i) const { return i / 4 * (LONG * 4 / ROWS) + down * 4 + i % 4; }
    __device__ int column(int j) const { return j / 4 * (SHORT * 4 / COLUMNS) + across * 4 + j % 4; }

    __device__ void add_product(const T* a_tile, const T* b_tile) {
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            Quad a[ROWS / 4], b[COLUMNS / 4];
#pragma unroll
            for (int i = 0; i < ROWS / 4; i++)
                a[i] = *reinterpret_cast<const Quad*>(a_tile + d * (LONG + PAD) + row(4 * i));
#pragma unroll
            for (int j = 0; j < COLUMNS / 4; j++)
                b[j] = *reinterpret_cast<const Quad*>(b_tile + d * (SHORT + PAD) + column(4 * j));
#pragma unroll
            for (int i = 0; i < ROWS; i++)
#pragma unroll
                for (int j = 0; j < COLUMNS; j++)
                    at[i][j] += a[i / 4].at[i % 4] * b[j / 4].at[j % 4];
        }
    }
};
