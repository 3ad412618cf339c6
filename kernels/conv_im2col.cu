// The convolution as a product of matrices: every window of x becomes a row of `columns`.
//
//    x_nhwc             columns, of one group            filters of that group
//                          R S C/groups                     K/groups
//    +-----------+      +-----------------+            +-----------------+
//    | 1 2 . . . |      | 1 2 5 6         |  pixel 0   |   w_krsc,       |     y = columns * filters
//    | 5 6 . . . |  ->  | 2 . 6 .         |  pixel 1   |   transposed    |
//    | . . . . . |      | . . . .         |  ...       +-----------------+
//    +-----------+      +-----------------+
//
//    conv2d      im2col, then y = columns * filters, with bias and activation
//    conv2d_dx   columns = g * filters, then col2im: dx gathers what belongs to each pixel
//    conv2d_dw   im2col, then dw = g * columns, both read across; in parts of the pixels
//
// The columns hold every number of x up to R S times, for some images at once: what this costs is
// their way through memory.
#include "conv.cuh"

// columns (groups, N P Q, R S C/groups); zeros where a window stands outside
KERNEL(im2col)(T* columns, const T* x_nhwc, Conv conv) {
    int inside = conv.C / conv.groups;
    i64 depth = (i64)conv.R * conv.S * inside, pixels = (i64)conv.N * conv.P * conv.Q;
    GRID_LOOP(i, conv.groups * pixels * depth) {
        i64 line = i / depth;
        int j = i - line * depth, group = line / pixels;
        int c = j % inside, tap = j / inside;
        Pixel at = pixel(line - group * pixels, conv.P, conv.Q);
        int row = at.row * conv.stride_h + tap / conv.S * conv.dilation_h - conv.top;
        int column = at.column * conv.stride_w + tap % conv.S * conv.dilation_w - conv.left;
        bool there = within(row, conv.H) && within(column, conv.W);
        i64 from = ((i64)at.image * conv.H + row) * conv.W + column;
        columns[i] = there ? x_nhwc[from * conv.C + group * inside + c] : T(0);
    }
}

// dx[n,row,column,c] = the sum of all places of `columns` to which im2col would copy it
KERNEL(col2im)(T* dx_nhwc, const T* columns, Conv conv) {
    int inside = conv.C / conv.groups;
    i64 depth = (i64)conv.R * conv.S * inside, pixels = (i64)conv.N * conv.P * conv.Q;
    GRID_LOOP(i, (i64)conv.N * conv.H * conv.W * conv.C) {
        Pixel at = pixel(i / conv.C, conv.H, conv.W);
        int c = i % conv.C, group = c / inside;
        T sum = 0;
        for (int r = 0; r < conv.R; r++) {
            int down = at.row + conv.top - r * conv.dilation_h, p = down / conv.stride_h;
            if (down < 0 || p >= conv.P || down != p * conv.stride_h) continue;
            for (int s = 0; s < conv.S; s++) {
                int right = at.column + conv.left - s * conv.dilation_w, q = right / conv.stride_w;
                if (right < 0 || q >= conv.Q || right != q * conv.stride_w) continue;
                i64 line = group * pixels + ((i64)at.image * conv.P + p) * conv.Q + q;
                sum += columns[line * depth + (r * conv.S + s) * inside + c % inside];
            }
        }
        dx_nhwc[i] = sum;
    }
}

// --- the product ----------------------------------------------------------------------------------
//
//                          16 deep
//                        +---------+ b_tile       A block computes 64 x 64 results.  It takes both
//                        |         |              factors in steps of 16: all threads copy a tile of
//         16 deep        |   64    |              each into shared memory, meet, and every thread
//        +---------+     +---------+              adds to its 4 x 4 results, 16 apart:
//    64  | a_tile  |     +---------+
//        |         |     |  64x64  |                 thread (x, y): rows y, y + 16, ...
//        +---------+     +---------+                                columns x, x + 16, ...
//
// Each number that is copied serves 64 results; a copy in registers serves 4.

// a(row, d) = a[row a_row + d a_step], b(d, column) = b[d b_step + column b_column], in every group;
// part i of the results sums up the steps from i part_depth on.
struct GroupedProduct {
    i64 rows, columns, depth, groups, parts, part_depth;
    i64 a_row, a_step, a_group, b_step, b_column, b_group, y_row, y_group, y_part;
};

#define TILE 64
#define DEPTH 16

RESIDENT_KERNEL(256, 1, product)
(T* y, const T* a, const T* b, const T* bias, int activation, GroupedProduct of) {
    __shared__ T a_tile[DEPTH][TILE + 1], b_tile[DEPTH][TILE + 1];  // + 1: another bank each row
    int thread = threadIdx.x, x = thread % 16, y_of = thread / 16;

    i64 across = (of.columns + TILE - 1) / TILE, down = (of.rows + TILE - 1) / TILE;
    i64 block = blockIdx.x;
    i64 first_column = block % across * TILE, first_row = block / across % down * TILE;
    i64 part = block / across / down % of.parts, group = block / across / down / of.parts;
    i64 d_begin = part * of.part_depth, d_end = d_begin + of.part_depth;
    if (d_end > of.depth) d_end = of.depth;

    T sum[4][4] = {};
    for (i64 d = d_begin; d < d_end; d += DEPTH) {
        for (int i = thread; i < TILE * DEPTH; i += 256) {  // along the axis that lies in one piece
            int row = of.a_step == 1 ? i / DEPTH : i % TILE;
            int step = of.a_step == 1 ? i % DEPTH : i / TILE;
            bool there = first_row + row < of.rows && d + step < d_end;
            i64 from = group * of.a_group + (first_row + row) * of.a_row + (d + step) * of.a_step;
            a_tile[step][row] = there ? a[from] : T(0);
        }
        for (int i = thread; i < TILE * DEPTH; i += 256) {
            int column = of.b_step == 1 ? i / DEPTH : i % TILE;
            int step = of.b_step == 1 ? i % DEPTH : i / TILE;
            bool there = first_column + column < of.columns && d + step < d_end;
            i64 from = (first_column + column) * of.b_column + (d + step) * of.b_step;
            b_tile[step][column] = there ? b[group * of.b_group + from] : T(0);
        }
        __syncthreads();
        for (int step = 0; step < DEPTH; step++)
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++)
                    sum[i][j] += a_tile[step][y_of + 16 * i] * b_tile[step][x + 16 * j];
        __syncthreads();
    }

    y += group * of.y_group + part * of.y_part;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            i64 row = first_row + y_of + 16 * i, column = first_column + x + 16 * j;
            if (row >= of.rows || column >= of.columns) continue;
            T value = bias ? sum[i][j] + bias[group * of.columns + column] : sum[i][j];
            y[row * of.y_row + column] = activate(value, activation);
        }
}
