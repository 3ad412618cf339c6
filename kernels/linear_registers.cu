// Matrix products, the third rung: a thread has 8 x 8 elements of y in registers.
//
//                           b   [ 8 x 64 ]       a block of 128 threads has a tile of 128 x 64
//                                                 of y, and takes 8 of k at a time
//          a                        n
//          [ 128 ]          y   #### .... ####    a thread (#) has 2 x 2 squares of 4 x 4, half a
//          [ x 8 ]              #### .... ####    tile apart: so what the lanes of a warp read
//                             m ....      ....    from b lies together
//                               #### .... ####
//
//      shared memory   [ a and b of these 8 ]  [ of the next 8 ]     two of each: while one is
//                        being multiplied       being filled         multiplied, the other fills
//
// 16 loads from shared memory now serve 64 multiplications.  The next tiles are fetched into
// registers before the multiplications begin and stored after them, so there is something to do
// while memory answers.  Large products have tiles of 128 x 128 and 256 threads: the same for each.
//
// Where y is small and k long there would be few blocks: k is cut in p.splits parts, which
// product_join (linear.cu) adds in a fixed order.
#include "linear.cuh"

constexpr int DEEP = 32 / sizeof(T);   // of k at a time: 8 floats, 4 doubles
constexpr int WIDE = Pack<T>::size;    // elements of 16 bytes
constexpr int PAD = WIDE;              // keeps rows of shared memory at 16 bytes, in unlike banks

// What a thread carries from an operand to shared memory.  The operand is read as x[r, k], r being
// a row of a or a column of b; along_k: k has stride 1, and so 16 bytes lie along k, else along r.
// In shared memory r lies together either way: tile[k][r].
template <int SIZE, int THREADS, bool along_k>
struct Carrier {
    static constexpr int PACKS = SIZE * DEEP / WIDE / THREADS;
    static constexpr int ROW = SIZE + PAD;
    Pack<T> held[PACKS];

    __device__ static int r_of(int q) {
        return along_k ? q / (DEEP / WIDE) : q % (SIZE / WIDE) * WIDE;
    }
    __device__ static int k_of(int q) {
        return along_k ? q % (DEEP / WIDE) * WIDE : q / (SIZE / WIDE);
    }

    // the tile of x that begins at `corner`: of it `rows` r and `deep` k exist, the others are 0
    __device__ void fetch(const T* corner, i64 step, int rows, int deep, bool packs) {
        #pragma unroll
        for (int i = 0; i < PACKS; i++) {
            int q = threadIdx.x + i * THREADS, r = r_of(q), k = k_of(q);
            const T* from = corner + (along_k ? r * step + k : k * step + r);
            int left = r >= rows || k >= deep ? 0 : along_k ? deep - k : rows - r;
            if (packs && left > 0) {
                held[i] = *reinterpret_cast<const Pack<T>*>(from);
                continue;
            }
            #pragma unroll
            for (int j = 0; j < WIDE; j++) held[i].at[j] = j < left ? from[j] : T(0);
        }
    }

    __device__ void store(T* tile) const {
        #pragma unroll
        for (int i = 0; i < PACKS; i++) {
            int q = threadIdx.x + i * THREADS;
            T* to = tile + k_of(q) * ROW + r_of(q);
            if constexpr (along_k) {
                #pragma unroll
                for (int j = 0; j < WIDE; j++) to[j * ROW] = held[i].at[j];
            } else {
                *reinterpret_cast<Pack<T>*>(to) = held[i];
            }
        }
    }
};

// The 8 of a row of shared memory that a thread has: 4, and 4 half a tile further on.
template <int SIZE>
__device__ inline void eight(T* to, const T* row) {
    #pragma unroll
    for (int i = 0; i < 8; i += WIDE) {
        Pack<T> p = *reinterpret_cast<const Pack<T>*>(row + i / 4 * (SIZE / 2) + i % 4);
        #pragma unroll
        for (int j = 0; j < WIDE; j++) to[i + j] = p.at[j];
    }
}

// 4 neighbours of y, those of them that exist.
__device__ inline void write4(T* y, const T* values, i64 left, bool packs) {
    #pragma unroll
    for (int i = 0; i < 4; i += WIDE) {
        Pack<T> p;
        #pragma unroll
        for (int j = 0; j < WIDE; j++) p.at[j] = values[i + j];
        if (packs && i < left) {
            *reinterpret_cast<Pack<T>*>(y + i) = p;
            continue;
        }
        #pragma unroll
        for (int j = 0; j < WIDE; j++)
            if (i + j < left) y[i + j] = p.at[j];
    }
}

__device__ inline i64 at_most(i64 value, i64 most) { return value < most ? value : most; }

// transposed_a: a_m is 1, not a_k; transposed_b: b_k is 1, not b_n
template <int TILE_M, int TILE_N, bool transposed_a, bool transposed_b>
__device__ inline void product(T* y, const T* a, const T* b, const T* bias, const Product& p,
                               T* shared_a, T* shared_b) {
    constexpr int THREADS = TILE_M * TILE_N / 64;
    typedef Carrier<TILE_M, THREADS, !transposed_a> CarrierA;
    typedef Carrier<TILE_N, THREADS, transposed_b> CarrierB;
    CarrierA carrier_a;
    CarrierB carrier_b;
    i64 step_a = transposed_a ? p.a_k : p.a_m, step_b = transposed_b ? p.b_n : p.b_k;
    bool packs_a = aligned16(a) && step_a % WIDE == 0;  // then a pack is inside or outside, whole
    bool packs_b = aligned16(b) && step_b % WIDE == 0;
    bool packs_y = aligned16(y) && p.n % WIDE == 0;

    // where a thread's squares begin: a warp has 4 x 8 of them
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int square_m = 4 * (lane / 8 + 4 * (warp / (TILE_N / 64)));
    int square_n = 4 * (lane % 8 + 8 * (warp % (TILE_N / 64)));

    i64 across = (p.n + TILE_N - 1) / TILE_N, down = (p.m + TILE_M - 1) / TILE_M;
    for (i64 i = blockIdx.x; i < p.splits * p.matrices * down * across; i += gridDim.x) {
        i64 n0 = i % across * TILE_N, m0 = i / across % down * TILE_M;
        i64 part = i / (across * down), matrix = part % p.matrices, begin[2];
        place<2>(p.walk, matrix, begin);
        i64 first = part / p.matrices * p.chunk;
        int rows_a = at_most(p.m - m0, TILE_M), rows_b = at_most(p.n - n0, TILE_N);
        const T* from_a = a + begin[0] + m0 * p.a_m + first * p.a_k;
        const T* from_b = b + begin[1] + n0 * p.b_n + first * p.b_k;

        T sum[8][8] = {};
        i64 left = at_most(p.k - first, p.chunk);  // of this part's k
        carrier_a.fetch(from_a, step_a, rows_a, at_most(left, DEEP), packs_a);
        carrier_b.fetch(from_b, step_b, rows_b, at_most(left, DEEP), packs_b);
        carrier_a.store(shared_a);
        carrier_b.store(shared_b);
        __syncthreads();
        int now = 0;
        for (; left > 0; left -= DEEP) {
            bool more = left > DEEP;
            if (more) {
                from_a += DEEP * p.a_k;
                from_b += DEEP * p.b_k;
                carrier_a.fetch(from_a, step_a, rows_a, at_most(left - DEEP, DEEP), packs_a);
                carrier_b.fetch(from_b, step_b, rows_b, at_most(left - DEEP, DEEP), packs_b);
            }
            const T* tile_a = shared_a + now * DEEP * CarrierA::ROW + square_m;
            const T* tile_b = shared_b + now * DEEP * CarrierB::ROW + square_n;
            #pragma unroll
            for (int k = 0; k < DEEP; k++) {
                T of_a[8], of_b[8];
                eight<TILE_M>(of_a, tile_a + k * CarrierA::ROW);
                eight<TILE_N>(of_b, tile_b + k * CarrierB::ROW);
                #pragma unroll
                for (int r = 0; r < 8; r++)
                    #pragma unroll
                    for (int c = 0; c < 8; c++) sum[r][c] += of_a[r] * of_b[c];
            }
            now ^= 1;
            if (more) {
                carrier_a.store(shared_a + now * DEEP * CarrierA::ROW);
                carrier_b.store(shared_b + now * DEEP * CarrierB::ROW);
            }
            __syncthreads();  // the next tiles are complete, and nobody reads these any more
        }

        T* out = y + part * p.m * p.n;
        #pragma unroll
        for (int r = 0; r < 8; r++) {
            i64 m = m0 + square_m + r / 4 * (TILE_M / 2) + r % 4;
            #pragma unroll
            for (int c = 0; c < 8; c += 4) {
                i64 n = n0 + square_n + c / 4 * (TILE_N / 2);
                if (m >= p.m || n >= p.n) continue;
                #pragma unroll
                for (int j = 0; j < 4; j++) {
                    T bias_n = bias && n + j < p.n ? bias[n + j] : T(0);
                    sum[r][c + j] = activated(sum[r][c + j] + bias_n, p.activation);
                }
                write4(out + m * p.n + n, sum[r] + c, p.n - n, packs_y);
            }
        }
    }
}

#define PRODUCT_64(name, transposed_a, transposed_b)                                            \
    LIMITED_KERNEL(128, name)(T* y, const T* a, const T* b, const T* bias, Product p) {         \
        __shared__ __align__(16) T shared_a[2 * DEEP * (128 + PAD)];                            \
        __shared__ __align__(16) T shared_b[2 * DEEP * (64 + PAD)];                             \
        product<128, 64, transposed_a, transposed_b>(y, a, b, bias, p, shared_a, shared_b);     \
    }

#define PRODUCT_128(name, transposed_a, transposed_b)                                           \
    LIMITED_KERNEL(256, name)(T* y, const T* a, const T* b, const T* bias, Product p) {         \
        __shared__ __align__(16) T shared_a[2 * DEEP * (128 + PAD)];                            \
        __shared__ __align__(16) T shared_b[2 * DEEP * (128 + PAD)];                            \
        product<128, 128, transposed_a, transposed_b>(y, a, b, bias, p, shared_a, shared_b);    \
    }

PRODUCT_64(product_64_nn, false, false)
PRODUCT_64(product_64_nt, false, true)
PRODUCT_64(product_64_tn, true, false)
PRODUCT_64(product_64_tt, true, true)
PRODUCT_128(product_128_nn, false, false)
PRODUCT_128(product_128_nt, false, true)
PRODUCT_128(product_128_tn, true, false)
PRODUCT_128(product_128_tt, true, true)
