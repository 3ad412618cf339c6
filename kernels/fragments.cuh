// What kernels on tensor cores share: how a warp takes its numbers from tiles in shared memory, in the
// precision that was asked for.
//
//      tile, float32  --load_a, load_b-->  Fragment: big (and small)  --multiply-->  d, float32
//
// A tile is a class with at(tile, r, k): element k of row r of a, or of column r of b.
//
// 3xTF32: x = big + small, both TF32; a b = big big + big small + small big (+ small small, which is
// lost): the error is that of float32.  Infinity becomes NaN there.
//
// float16 ends at 65504 and loses digits below 6e-5, so either operand is multiplied by a power of two
// that brings its largest element to 2^14, and the result by what undoes both.
#pragma once
#include "common.cuh"
#include "tensor.cuh"

#if defined(DEEPKIT_SIM) || __CUDA_ARCH__ >= 800

// PRECISION is a placeholder, as T is (which is float): the file is compiled once for each
enum Precision { TF32, TF32X3, BFLOAT16, FLOAT16 };
constexpr Precision precision = static_cast<Precision>(PRECISION);
constexpr bool pairs = precision == BFLOAT16 || precision == FLOAT16;  // two in a register
constexpr int STEP = pairs ? 16 : 8;                                   // along k

// What a warp multiplies at one step along k: 8 numbers of k, or 16.
struct Fragment {
    unsigned big[4], small[4];  // `small` for 3xTF32 alone

    __device__ void set2(int i, float low, float high) {
        big[i] = precision == FLOAT16 ? to_float16x2(low, high) : to_bfloat16x2(low, high);
    }

    __device__ void set(int i, float x) {
        big[i] = to_tf32(x);
        if (precision == TF32X3) small[i] = to_tf32(x - __int_as_float((int)big[i]));
    }
};

__device__ inline void multiply(float* d, const Fragment& a, const Fragment& b) {
    if (pairs) {
        precision == FLOAT16 ? mma_float16(d, a.big, b.big) : mma_bfloat16(d, a.big, b.big);
        return;
    }
    if (precision == TF32X3) {
        mma_tf32(d, a.small, b.big);
        mma_tf32(d, a.big, b.small);
    }
    mma_tf32(d, a.big, b.big);
}

template <class Tile>
__device__ inline void load_a(Fragment& f, const float* tile, int r, int k, float scale) {
    int row = threadIdx.x % WARP / 4, pair = threadIdx.x % 4;
    #pragma unroll
    for (int i = 0; i < 4; i++) {
        int at_r = r + row + i % 2 * 8;
        if (pairs) {
            int at_k = k + 2 * pair + i / 2 * 8;
            f.set2(i, scale * Tile::at(tile, at_r, at_k),
                   scale * Tile::at(tile, at_r, at_k + 1));
        } else {
            f.set(i, Tile::at(tile, at_r, k + pair + i / 2 * 4));
        }
    }
}

template <class Tile>
__device__ inline void load_b(Fragment& f, const float* tile, int r, int k, float scale) {
    int row = threadIdx.x % WARP / 4, pair = threadIdx.x % 4;
    #pragma unroll
    for (int i = 0; i < 2; i++) {
        if (pairs) {
            int at_k = k + 2 * pair + i * 8;
            f.set2(i, scale * Tile::at(tile, r + row, at_k),
                   scale * Tile::at(tile, r + row, at_k + 1));
        } else {
            f.set(i, Tile::at(tile, r + row, k + pair + i * 4));
        }
    }
}

// The power of two that brings the largest element to 2^14; 1 where it is 0, infinite or NaN.
__device__ inline float scale_of(unsigned largest) {
    if (largest == 0) return 1.0f;
    int scale = 127 + 14 - ((int)(largest >> 23) - 127);
    return __int_as_float((scale > 254 ? 254 : scale) << 23);
}

// v / (scale_a scale_b), the larger one first, so that nothing overflows on the way
__device__ inline float unscaled(float v, float scale_a, float scale_b) {
    float larger = scale_a > scale_b ? scale_a : scale_b;
    return v * (1.0f / larger) * (1.0f / (scale_a > scale_b ? scale_b : scale_a));
}

#endif
