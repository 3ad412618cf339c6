// What convolutions on tensor cores share: tiles in shared memory, and a warp's product of two of them.
//
// The host says how large a block's tile is (LONG x SHORT results), how many rows of it a warp has
// (DOWN; it has 32 columns), and the PRECISION; a file is compiled once for each that is used.
#pragma once
#include "async.cuh"
#include "fragments.cuh"

#ifndef LONG
#define LONG 128
#define SHORT 64
#define DOWN 64
#endif

#include "conv_gather.cuh"

#if defined(DEEPKIT_SIM) || __CUDA_ARCH__ >= 800

constexpr int DEEP = 32, STAGES = 3, THREADS = LONG / DOWN * (SHORT / 32) * WARP;

// Element k of row r, in rows along the depth, or across it.
template <int COUNT, bool across>
struct Tile {
    static constexpr int ROW = across ? COUNT + 8 : DEEP + 4, SIZE = (across ? DEEP : COUNT) * ROW;
    __device__ static float at(const float* tile, int r, int k) {
        return tile[across ? k * ROW + r : r * ROW + k];
    }
};

// Begin to copy 4 numbers, of which `count` exist; at once where `whole` promises 16 aligned bytes.
__device__ inline void copy4(float* to, const float* from, int count, bool whole) {
    if (whole) async_copy16(to, from, count > 0 ? 16 : 0);
    else
        for (int k = 0; k < 4; k++) async_copy4(to + k, k < count ? from + k : from, k < count);
}

// A stage holds a tile of each factor.
template <class TileA, class TileB>
__device__ inline void add_product(float (&sum)[DOWN / 16][4][4], const float* stage, int row,
                                   int column, float a_scale, float b_scale) {
    #pragma unroll
    for (int k = 0; k < DEEP; k += STEP) {
        Fragment a[DOWN / 16], b[4];
        #pragma unroll
        for (int i = 0; i < DOWN / 16; i++) load_a<TileA>(a[i], stage, row + 16 * i, k, a_scale);
        #pragma unroll
        for (int j = 0; j < 4; j++)
            load_b<TileB>(b[j], stage + TileA::SIZE, column + 8 * j, k, b_scale);
        #pragma unroll
        for (int i = 0; i < DOWN / 16; i++)
            #pragma unroll
            for (int j = 0; j < 4; j++) multiply(sum[i][j], a[i], b[j]);
    }
}

#endif
