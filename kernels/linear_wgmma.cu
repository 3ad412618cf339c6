// Matrix products, the fifth rung: Hopper's warpgroups, which read both operands from shared memory.
//
//                      b    k [ 128 bytes x 128 ]      a block of two warpgroups (256 threads) has a
//        a                     n                       tile of 128 x 128 of y, a group 64 rows of it;
//           k              y  # # # # group 0          a thread has 64 sums
//        [ 128 x 128 ]     m  # # # #
//        [  bytes    ]        * * * * group 1
//                             * * * *
//
//      registers       fetch the next tiles, float32, either way round
//      shared memory   | being multiplied | the next, rounded to TF32 or 16 bits, swizzled |
//
// The numbers pass through registers, where they are rounded and turned along k, because the tensor
// cores take TF32 along k alone.  PRECISION is that of fragments.cuh, without 3xTF32.
#include "fragments.cuh"
#include "linear.cuh"
#include "wgmma.cuh"

#if defined(DEEPKIT_SIM) || defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int TILE = 128, THREADS = 256, ROW_BYTES = 128, TILE_BYTES = TILE * ROW_BYTES;
constexpr int NUMBER = pairs ? 2 : 4, DEEP = ROW_BYTES / NUMBER, FOURS = TILE * DEEP / 4 / THREADS;
constexpr int Y_ROW = TILE + 4;

// What a thread carries of a tile x[r, k] of 128 x DEEP: fours of numbers that lie together.
template <bool lies_along_k>
struct Carrier {
    float held[FOURS][4];

    __device__ static int r_of(int q) { return lies_along_k ? q / (DEEP / 4) : q % (TILE / 4) * 4; }
    __device__ static int k_of(int q) { return lies_along_k ? q % (DEEP / 4) * 4 : q / (TILE / 4); }

    __device__ void fetch(const float* x, i64 step, i64 r0, i64 k0, i64 most_r, i64 most_k, bool packs) {
        #pragma unroll
        for (int i = 0; i < FOURS; i++) {
            int q = threadIdx.x + i * THREADS;
            i64 r = r0 + r_of(q), k = k0 + k_of(q);
            const float* from = x + (lies_along_k ? r * step + k : k * step + r);
            i64 left = r < most_r && k < most_k ? (lies_along_k ? most_k - k : most_r - r) : 0;
            if (packs && left >= 4) {
                Pack<float> p = *reinterpret_cast<const Pack<float>*>(from);
                for (int j = 0; j < 4; j++) held[i][j] = p.at[j];
            } else {
                for (int j = 0; j < 4; j++) held[i][j] = j < left ? from[j] : 0.0f;
            }
        }
    }

    __device__ void store(char* tile, float scale) const {
        #pragma unroll
        for (int i = 0; i < FOURS; i++) {
            int q = threadIdx.x + i * THREADS, r = r_of(q), k = k_of(q);
            if (lies_along_k) {
                unsigned* to = reinterpret_cast<unsigned*>(place_of(tile, r, k));
                if (pairs) {
                    to[0] = rounded2(held[i][0] * scale, held[i][1] * scale);
                    to[1] = rounded2(held[i][2] * scale, held[i][3] * scale);
                } else {
                    for (int j = 0; j < 4; j++) to[j] = to_tf32(held[i][j]);
                }
            } else {
                for (int j = 0; j < 4; j++) {
                    char* to = place_of(tile, r + j, k);
                    if (pairs)
                        *reinterpret_cast<unsigned short*>(to) = rounded2(held[i][j] * scale, 0);
                    else
                        *reinterpret_cast<unsigned*>(to) = to_tf32(held[i][j]);
                }
            }
        }
    }

    __device__ static char* place_of(char* tile, int r, int k) {
        return tile + swizzled(r, k * NUMBER / 16) + k * NUMBER % 16;
    }
    __device__ static unsigned rounded2(float low, float high) {
        return precision == FLOAT16 ? to_float16x2(low, high) : to_bfloat16x2(low, high);
    }
};

__device__ inline void multiply_tiles(float* sum, const char* a, const char* b) {
    Descriptor of_a = descriptor(a), of_b = descriptor(b);
    group_fence();
    #pragma unroll
    for (int step = 0; step < ROW_BYTES / 32; step++) {
        Descriptor at_a = along_k(of_a, step), at_b = along_k(of_b, step);
        if (precision == FLOAT16) group_float16(sum, at_a, at_b);
        else if (precision == BFLOAT16) group_bfloat16(sum, at_a, at_b);
        else group_tf32(sum, at_a, at_b);
    }
    group_commit();
}

template <bool transposed_a, bool transposed_b>
__device__ inline void product(float* y, const float* a, const float* b, const float* bias,
                               const unsigned* largest, const Product& p) {
    DYNAMIC_SHARED(char, shared);  // two of: a tile of a, a tile of b
    Carrier<!transposed_a> carrier_a;
    Carrier<transposed_b> carrier_b;
    float scale_a = precision == FLOAT16 ? scale_of(largest[0]) : 1.0f;
    float scale_b = precision == FLOAT16 ? scale_of(largest[1]) : 1.0f;
    i64 step_a = transposed_a ? p.a_k : p.a_m, step_b = transposed_b ? p.b_n : p.b_k;
    int group = threadIdx.x / 128, warp = threadIdx.x % 128 / WARP, lane = threadIdx.x % WARP;
    i64 across = (p.n + TILE - 1) / TILE, down = (p.m + TILE - 1) / TILE;

    for (i64 i = blockIdx.x; i < p.splits * p.matrices * down * across; i += gridDim.x) {
        i64 n0 = i % across * TILE, m0 = i / across % down * TILE;
        i64 part = i / (across * down), matrix = part % p.matrices, begin[2];
        place<2>(p.walk, matrix, begin);
        const float *from_a = a + begin[0], *from_b = b + begin[1];
        bool packs_a = aligned16(from_a) && step_a % 4 == 0;
        bool packs_b = aligned16(from_b) && step_b % 4 == 0;
        i64 first = part / p.matrices * p.chunk, last = first + p.chunk < p.k ? first + p.chunk : p.k;

        float sum[64] = {};
        carrier_a.fetch(from_a, step_a, m0, first, p.m, last, packs_a);
        carrier_b.fetch(from_b, step_b, n0, first, p.n, last, packs_b);
        carrier_a.store(shared, scale_a);
        carrier_b.store(shared + TILE_BYTES, scale_b);
        shared_fence();
        __syncthreads();
        int now = 0;
        for (i64 k0 = first; k0 < last; k0 += DEEP) {
            char* tile_a = shared + now * 2 * TILE_BYTES;
            multiply_tiles(sum, tile_a + group * (TILE_BYTES / 2), tile_a + TILE_BYTES);
            now ^= 1;
            if (k0 + DEEP < last) {
                carrier_a.fetch(from_a, step_a, m0, k0 + DEEP, p.m, last, packs_a);
                carrier_b.fetch(from_b, step_b, n0, k0 + DEEP, p.n, last, packs_b);
                carrier_a.store(shared + now * 2 * TILE_BYTES, scale_a);
                carrier_b.store(shared + now * 2 * TILE_BYTES + TILE_BYTES, scale_b);
                shared_fence();
            }
            group_wait<0>();
            __syncthreads();  // the next tiles are complete, and nobody reads these any more
        }

        float* tile = reinterpret_cast<float*>(shared);
        #pragma unroll
        for (int e = 0; e < 64; e++) {
            int m = 64 * group + 16 * warp + lane / 4 + e / 2 % 2 * 8, n = e / 4 * 8 + lane % 4 * 2 + e % 2;
            tile[m * Y_ROW + n] = sum[e];
        }
        __syncthreads();
        float* out = y + part * p.m * p.n;
        for (int q = threadIdx.x; q < TILE * TILE; q += THREADS) {
            i64 m = m0 + q / TILE, n = n0 + q % TILE;
            if (m >= p.m || n >= p.n) continue;
            float v = tile[q / TILE * Y_ROW + q % TILE];
            if (precision == FLOAT16) v = unscaled(v, scale_a, scale_b);
            out[m * p.n + n] = activated(v + (bias ? bias[n] : 0.0f), p.activation);
        }
        __syncthreads();  // before the next tile of y fills the stages
    }
}

// n, t: whether an operand lies along its rows (a: along k, b: along n) or is transposed
#define PRODUCT(name, transposed_a, transposed_b)                                                 \
    LIMITED_KERNEL(256, name)                                                                     \
    (float* y, const float* a, const float* b, const float* bias, const unsigned* largest,        \
     Product p) {                                                                                 \
        product<transposed_a, transposed_b>(y, a, b, bias, largest, p);                           \
    }

PRODUCT(product_nn, false, false)
PRODUCT(product_nt, false, true)
PRODUCT(product_tn, true, false)
PRODUCT(product_tt, true, true)

#endif
