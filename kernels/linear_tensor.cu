// Matrix products, the fourth rung: tensor cores, fed by asynchronous copies.  float32 in memory,
// TF32, three times TF32, bfloat16 or float16 in the multiplication, float32 in the sums.  Ampere and later.
//
//                        b    k [ 32 x 128 ]       a block of 8 warps has a tile of 128 x 128 of y;
//                                                  a warp has 64 x 32 of it (#): 4 x 4 squares of
//         a                      n                 16 x 8, in 64 registers a thread
//            k                y  #### . . .
//         [ 128  ]            m  #### . . .
//         [ x 32 ]               . .  . . .
//
//      shared memory, in turns   | being multiplied | has landed | in flight |     three stages
//
// Either operand may lie along k or across it: its tile in shared memory lies as it does, with rows
// that are 16 or 32 bytes longer, so that the lanes of a warp read 32 different banks.
//
// 3xTF32 and the scales of float16: see fragments.cuh.
#include "async.cuh"
#include "fragments.cuh"
#include "linear.cuh"

#if defined(DEEPKIT_SIM) || __CUDA_ARCH__ >= 800

constexpr int TILE = 128, DEEP = 32, STAGES = 3, THREADS = 256;
constexpr int Y_ROW = TILE + 8;  // of a tile of y in shared memory, on its way out

// A tile x[r, k] of 128 x 32 in shared memory.  along_k: rows of k, else rows of r.
template <bool along_k>
struct Tile {
    static constexpr int LONG = along_k ? DEEP : TILE;                // of a row
    static constexpr int ROW = along_k ? DEEP + 4 : TILE + 8;         // with its padding
    static constexpr int SIZE = along_k ? TILE * ROW : DEEP * ROW;

    __device__ static float at(const float* tile, int r, int k) {
        return tile[along_k ? r * ROW + k : k * ROW + r];
    }

    // Begin to copy x[r0 ..., k0 ...]; zeros where r >= most_r or k >= most_k.
    __device__ static void fetch(float* tile, const float* x, i64 step, i64 r0, i64 k0, i64 most_r,
                                 i64 most_k, bool packs) {
        constexpr int A_ROW = LONG / 4;  // copies of 16 bytes
        #pragma unroll
        for (int i = 0; i < TILE * DEEP / 4 / THREADS; i++) {
            int q = threadIdx.x + i * THREADS, row = q / A_ROW, column = q % A_ROW * 4;
            i64 r = r0 + (along_k ? row : column), k = k0 + (along_k ? column : row);
            const float* from = x + (along_k ? r * step + k : k * step + r);
            float* to = tile + row * ROW + column;
            i64 left = r < most_r && k < most_k ? (along_k ? most_k - k : most_r - r) : 0;
            if (packs) {
                async_copy16(to, left ? from : x, left < 4 ? 4 * (int)left : 16);
            } else {
                for (int j = 0; j < 4; j++) async_copy4(to + j, j < left ? from + j : x, j < left);
            }
        }
    }
};

template <bool transposed_a, bool transposed_b>
__device__ inline void product(float* y, const float* a, const float* b, const float* bias,
                               const unsigned* largest, const Product& p) {
    typedef Tile<!transposed_a> TileA;
    typedef Tile<transposed_b> TileB;
    float scale_a = precision == FLOAT16 ? scale_of(largest[0]) : 1.0f;
    float scale_b = precision == FLOAT16 ? scale_of(largest[1]) : 1.0f;
    DYNAMIC_SHARED(float, shared);  // STAGES of a tile of a and a tile of b
    i64 step_a = transposed_a ? p.a_k : p.a_m, step_b = transposed_b ? p.b_n : p.b_k;
    int warp = threadIdx.x / WARP, row = threadIdx.x % WARP / 4, pair = threadIdx.x % 4;
    int warp_m = warp / 4 * 64, warp_n = warp % 4 * 32;
    i64 across = (p.n + TILE - 1) / TILE, down = (p.m + TILE - 1) / TILE;

    for (i64 i = blockIdx.x; i < p.splits * p.matrices * down * across; i += gridDim.x) {
        i64 n0 = i % across * TILE, m0 = i / across % down * TILE;
        i64 part = i / (across * down), matrix = part % p.matrices, begin[2];
        place<2>(p.walk, matrix, begin);
        const float *from_a = a + begin[0], *from_b = b + begin[1];
        bool packs_a = aligned16(from_a) && step_a % 4 == 0;
        bool packs_b = aligned16(from_b) && step_b % 4 == 0;
        i64 first = part / p.matrices * p.chunk, last = first + p.chunk < p.k ? first + p.chunk : p.k;
        i64 steps = (last - first + DEEP - 1) / DEEP;

        auto fetch = [&](i64 step) {  // into its stage; a group of copies, be it empty
            if (step < steps) {
                float* stage = shared + step % STAGES * (TileA::SIZE + TileB::SIZE);
                i64 k = first + step * DEEP;
                TileA::fetch(stage, from_a, step_a, m0, k, p.m, last, packs_a);
                TileB::fetch(stage + TileA::SIZE, from_b, step_b, n0, k, p.n, last, packs_b);
            }
            async_commit();
        };

        float sum[4][4][4] = {};
        for (int step = 0; step < STAGES - 1; step++) fetch(step);
        for (i64 step = 0; step < steps; step++) {
            async_wait<STAGES - 2>();
            __syncthreads();  // this stage has landed for all, and the one before is read by none
            fetch(step + STAGES - 1);
            const float* tile_a = shared + step % STAGES * (TileA::SIZE + TileB::SIZE);
            const float* tile_b = tile_a + TileA::SIZE;
            #pragma unroll
            for (int k = 0; k < DEEP; k += STEP) {
                Fragment of_a[4], of_b[4];
                #pragma unroll
                for (int r = 0; r < 4; r++)
                    load_a<TileA>(of_a[r], tile_a, warp_m + 16 * r, k, scale_a);
                #pragma unroll
                for (int c = 0; c < 4; c++)
                    load_b<TileB>(of_b[c], tile_b, warp_n + 8 * c, k, scale_b);
                #pragma unroll
                for (int r = 0; r < 4; r++)
                    #pragma unroll
                    for (int c = 0; c < 4; c++) multiply(sum[r][c], of_a[r], of_b[c]);
            }
        }
        async_wait<0>();
        __syncthreads();  // nobody reads the stages any more: the tile of y goes there,
        #pragma unroll
        for (int r = 0; r < 4; r++)
            #pragma unroll
            for (int c = 0; c < 4; c++)
                #pragma unroll
                for (int e = 0; e < 4; e++) {
                    int m = warp_m + 16 * r + row + e / 2 * 8, n = warp_n + 8 * c + 2 * pair + e % 2;
                    shared[m * Y_ROW + n] = sum[r][c][e];
                }
        __syncthreads();
        float* out = y + part * p.m * p.n;
        for (int q = threadIdx.x; q < TILE * TILE; q += THREADS) {  // and leaves it row by row
            i64 m = m0 + q / TILE, n = n0 + q % TILE;
            if (m >= p.m || n >= p.n) continue;
            float v = shared[q / TILE * Y_ROW + q % TILE];
            if (precision == FLOAT16) v = unscaled(v, scale_a, scale_b);
            out[m * p.n + n] = activated(v + (bias ? bias[n] : 0.0f), p.activation);
        }
        __syncthreads();  // before the next tile of y begins to fill the stages
    }
}

// n, t: whether an operand lies along its rows (a: along k, b: along n) or is transposed.
// largest: the largest |a| and |b| as their bits, for float16 alone
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

// largest = the larger of what it is and the largest |x|: bits of floats without a sign are in the
// order of the floats, and a maximum does not depend on the order in which it is taken.
LIMITED_KERNEL(256, product_largest)(unsigned* largest, const float* x, i64 n) {
    __shared__ unsigned work[WARP];
    unsigned most = 0;
    GRID_LOOP(i, n) {
        unsigned bits = __float_as_int(x[i]) & 0x7fffffff;
        if (bits < 0x7f800000 && bits > most) most = bits;  // what is not finite stays so unscaled
    }
    most = over_block(most, work, Larger());
    if (threadIdx.x == 0) atomicMax(largest, most);
}

#endif
