// Winograd's convolution F(4x4, 3x3): 36 products where 4 x 4 outputs of 3 x 3 taps need 144.
//
//    x_nhwc, a tile        6 x 6 places            36 products of matrices        y_npqk
//
//    +-------------+      +-------------+                channels    filters      +---------+
//    | . . . . . . |      | 0 1 2 3 4 5 |               +--------+  +-------+     | . . . . |
//    | . # # # # . |      | 6 7 ...     |        tiles  | v[f]   |  | u[f]t |     | . . . . |
//    | . # # # # . |  ->  |             |  ->           |        |  |       |  -> | . . . . |
//    | . # # # # . |      |     f       |               +--------+  +-------+     | . . . . |
//    | . # # # # . |      |             |                m[f] = v[f] u[f]t        +---------+
//    | . . . . . . |      |          35 |
//    +-------------+      +-------------+
//     Bt x B, and G w Gt for the filters                                           At m A
//
//    dx   the same of g, with filters whose last tap comes first: m[f] = v[f] u[f]
//    dw   Gt [ (A g At)[f] t  (Bt x B)[f], summed over the tiles by the product ] G
//
// Tiles lie 4 apart, so their inputs overlap by 2.  In all kernels a thread has one tile (or filter)
// of one channel, and neighbours have neighbouring channels:
//
//    v    place 0   [ tile 0: channel 0 1 2 ... | tile 1: ... | ... ]       thread  0 1 2 ...
//         place 1   [ ...                                           ]       writes  v v v
//         ...                                                                       v v v
//
// Each of its 36 loads or stores is therefore, over a warp, one of 128 bytes that lie together.
//
// For the points 0, a, -a, b, -b and infinity (Lavin, Gray 2016, "Fast algorithms for convolutional
// neural networks", section 4.3, takes a = 1, b = 2; these lose fewer digits),
//
//    Bt = aabb     0 -aa-bb  0  1  0     At = 1  1   1   1   1  0     G =  1/aabb    0     0
//           0  -abb     -bb  a  1  0          0  a  -a   b  -b  0          1/m     a/m  aa/m
//           0   abb     -bb -a  1  0          0 aa  aa  bb  bb  0          1/m    -a/m  aa/m
//           0  -aab     -aa  b  1  0          0 aaa-aaa bbb-bbb 1          1/n     b/n  bb/n
//           0   aab     -aa -b  1  0                                       1/n    -b/n  bb/n
//           0  aabb  0 -aa-bb  0   1     m = 2aa(aa-bb), n = 2bb(bb-aa)     0       0     1
#include "conv.cuh"

#define STEP 4     // outputs of a tile in each direction
#define PLACES 36  // of a tile, in which products are taken

constexpr T A = T(5) / 8, B = T(3) / 2;
constexpr T AA = A * A, BB = B * B, AAA = A * AA, BBB = B * BB, AABB = AA * BB;
constexpr T OVER_M = 1 / (2 * AA * (AA - BB)), OVER_N = 1 / (2 * BB * (BB - AA));

// --- one side of a transform ------------------------------------------------------------------------

// Bt: six inputs in the places that the products are taken at
struct OfInputs {
    static constexpr int from = 6, to = 6;
    __device__ void operator()(T (&v)[6], const T (&x)[6]) const {
        T p = x[4] - BB * x[2], q = A * (x[3] - BB * x[1]);
        T r = x[4] - AA * x[2], s = B * (x[3] - AA * x[1]);
        v[0] = AABB * x[0] - (AA + BB) * x[2] + x[4];
        v[1] = p + q;
        v[2] = p - q;
        v[3] = r + s;
        v[4] = r - s;
        v[5] = AABB * x[1] - (AA + BB) * x[3] + x[5];
    }
};

// At: six products to four outputs
struct ToOutputs {
    static constexpr int from = 6, to = 4;
    __device__ void operator()(T (&y)[4], const T (&m)[6]) const {
        T p = m[1] + m[2], q = m[1] - m[2], r = m[3] + m[4], s = m[3] - m[4];
        y[0] = m[0] + p + r;
        y[1] = A * q + B * s;
        y[2] = AA * p + BB * r;
        y[3] = AAA * q + BBB * s + m[5];
    }
};

// A: gradients of four outputs to those of six products
struct OfGradients {
    static constexpr int from = 4, to = 6;
    __device__ void operator()(T (&v)[6], const T (&g)[4]) const {
        T p = g[0] + AA * g[2], q = A * g[1] + AAA * g[3];
        T r = g[0] + BB * g[2], s = B * g[1] + BBB * g[3];
        v[0] = g[0];
        v[1] = p + q;
        v[2] = p - q;
        v[3] = r + s;
        v[4] = r - s;
        v[5] = g[3];
    }
};

// G: three taps in the places that the products are taken at
struct OfFilters {
    static constexpr int from = 3, to = 6;
    __device__ void operator()(T (&u)[6], const T (&w)[3]) const {
        T p = w[0] + AA * w[2], q = A * w[1], r = w[0] + BB * w[2], s = B * w[1];
        u[0] = 1 / AABB * w[0];
        u[1] = OVER_M * (p + q);
        u[2] = OVER_M * (p - q);
        u[3] = OVER_N * (r + s);
        u[4] = OVER_N * (r - s);
        u[5] = w[2];
    }
};

// Gt: gradients of six products to those of three taps
struct ToFilters {
    static constexpr int from = 6, to = 3;
    __device__ void operator()(T (&w)[3], const T (&u)[6]) const {
        T p = OVER_M * (u[1] + u[2]), q = OVER_M * (u[1] - u[2]);
        T r = OVER_N * (u[3] + u[4]), s = OVER_N * (u[3] - u[4]);
        w[0] = 1 / AABB * u[0] + p + r;
        w[1] = A * q + B * s;
        w[2] = AA * p + BB * r + u[5];
    }
};

// Both sides: read(i, j) of a square, transformed, to write(i, j, value); all of it in registers.
template <class Side, class Read, class Write>
__device__ inline void transform(Side side, Read read, Write write) {
    T half[Side::to][Side::from];
#pragma unroll
    for (int j = 0; j < Side::from; j++) {
        T column[Side::from], made[Side::to];
#pragma unroll
        for (int i = 0; i < Side::from; i++) column[i] = read(i, j);
        side(made, column);
#pragma unroll
        for (int i = 0; i < Side::to; i++) half[i][j] = made[i];
    }
#pragma unroll
    for (int i = 0; i < Side::to; i++) {
        T made[Side::to];
        side(made, half[i]);
#pragma unroll
        for (int j = 0; j < Side::to; j++) write(i, j, made[j]);
    }
}

// --- tiles --------------------------------------------------------------------------------------------

__device__ inline int tiles_of(int outputs) { return (outputs + STEP - 1) / STEP; }

// Where the outputs of a tile begin: the tile is a pixel of the image of tiles.
__device__ inline Pixel outputs_of(i64 tile, const Conv& conv) {
    Pixel at = pixel(tile, tiles_of(conv.P), tiles_of(conv.Q));
    return {at.image, STEP * at.row, STEP * at.column};
}

__device__ inline i64 count_tiles(const Conv& conv) {
    return (i64)conv.N * tiles_of(conv.P) * tiles_of(conv.Q);
}

// v[36][tiles][C] = Bt x B
LIMITED_KERNEL(256, winograd_inputs)(T* v, const T* x_nhwc, Conv conv) {
    i64 step = count_tiles(conv) * conv.C;
    GRID_LOOP(i, step) {
        i64 tile = i / conv.C;
        int c = i - tile * conv.C;
        Pixel at = outputs_of(tile, conv);
        int top = at.row - conv.top, left = at.column - conv.left;
        const T* x = x_nhwc + (((i64)at.image * conv.H + top) * conv.W + left) * conv.C + c;
        transform(
            OfInputs(),
            [&](int row, int column) {
                bool there = within(top + row, conv.H) && within(left + column, conv.W);
                return there ? x[((i64)row * conv.W + column) * conv.C] : T(0);
            },
            [&](int row, int column, T value) { v[(6 * row + column) * step + i] = value; });
    }
}

// v[36][tiles][K] = A g At
LIMITED_KERNEL(256, winograd_gradients)(T* v, const T* g_npqk, Conv conv) {
    i64 step = count_tiles(conv) * conv.K;
    GRID_LOOP(i, step) {
        i64 tile = i / conv.K;
        int k = i - tile * conv.K;
        Pixel at = outputs_of(tile, conv);
        const T* g = g_npqk + (((i64)at.image * conv.P + at.row) * conv.Q + at.column) * conv.K + k;
        transform(
            OfGradients(),
            [&](int row, int column) {
                bool there = at.row + row < conv.P && at.column + column < conv.Q;
                return there ? g[((i64)row * conv.Q + column) * conv.K] : T(0);
            },
            [&](int row, int column, T value) { v[(6 * row + column) * step + i] = value; });
    }
}

// y = act(b[k] + At m A), of m[36][tiles][K]
LIMITED_KERNEL(256, winograd_outputs)(T* y_npqk, const T* m, const T* b_k, Conv conv) {
    i64 step = count_tiles(conv) * conv.K;
    GRID_LOOP(i, step) {
        i64 tile = i / conv.K;
        int k = i - tile * conv.K;
        Pixel at = outputs_of(tile, conv);
        T* y = y_npqk + (((i64)at.image * conv.P + at.row) * conv.Q + at.column) * conv.K + k;
        T bias = b_k ? b_k[k] : T(0);
        transform(
            ToOutputs(), [&](int row, int column) { return m[(6 * row + column) * step + i]; },
            [&](int row, int column, T value) {
                if (at.row + row < conv.P && at.column + column < conv.Q)
                    y[((i64)row * conv.Q + column) * conv.K] =
                        activate(value + bias, conv.activation);
            });
    }
}

// --- filters ------------------------------------------------------------------------------------------

// u[36][K][C] = G w Gt; turned: the last tap first
LIMITED_KERNEL(256, winograd_filters)(T* u, const T* w_krsc, int filters, int channels, bool turned) {
    i64 step = (i64)filters * channels;
    GRID_LOOP(i, step) {
        i64 k = i / channels;
        const T* w = w_krsc + 9 * k * channels + (i - k * channels);
        int first = turned ? 8 : 0, tap = turned ? -channels : channels;
        w += first * channels;
        transform(
            OfFilters(), [&](int r, int s) { return w[(3 * r + s) * tap]; },
            [&](int row, int column, T value) { u[(6 * row + column) * step + i] = value; });
    }
}

// dw = Gt u G, or what is there already and that
LIMITED_KERNEL(256, winograd_filters_back)
(T* dw_krsc, const T* u, int filters, int channels, bool adds) {
    i64 step = (i64)filters * channels;
    GRID_LOOP(i, step) {
        i64 k = i / channels;
        T* dw = dw_krsc + 9 * k * channels + (i - k * channels);
        transform(
            ToFilters(), [&](int row, int column) { return u[(6 * row + column) * step + i]; },
            [&](int r, int s, T value) {
                T* to = dw + (3 * r + s) * channels;
                *to = adds ? *to + value : value;
            });
    }
}
