// The convolution as a product of tiles, without its columns: they are gathered on their way into
// shared memory (an implicit matrix product).
//
//                             SHORT output channels
//                           +---------+
//                           | filters | 16 of (r, s, c)    (r, s, c) is the depth, c the fastest: a
//      16 of (r, s, c)      +---------+                    thread has 4 neighbouring channels of
//      +-------------+      +---------+                    one tap, for some pixels, in one load of
//      | what these  |      |  sums   |                    16 bytes each
//      | pixels see  |      |  y      |  LONG pixels
//      | of x        |      |         |  (n, p, q)
//      +-------------+      +---------+
//
// The gradient for x is the same product, of g with the filters read across: dx[n, row, column, c]
// sums up the (r, s, k) of the g that saw it.  With stride 2 every pixel was seen through a part of
// the taps only, and which these are is alike for every second row and column:
//
//      1 2 1 2     a phase: pixels of one number.  Each is a convolution of its own, of stride 1,
//      3 4 3 4     with its taps (3 x 3: phase 1 has 4, 2 and 3 have 2, 4 has 1), and blocks of its
//      1 2 1 2     own, so that nothing is multiplied in vain.
#include "conv_tile.cuh"
#include "conv_gather.cuh"

// One tile of results.  `filters` is (K, R, S, C/groups); across: its depth is K (gradient for x).
template <bool across>
__device__ inline void gather_product(
    T* y, const T* x, const T* filters, const T* bias, T* x_tile, T* w_tile, Conv conv, Pixels to,
    Pixels from, Axis down, Axis right, i64 first_pixel, int first_channel) {
    constexpr int LOADS = LONG / 32, W_LOADS = SHORT <= 32 ? 1 : SHORT / 32;  // quads a thread
    int thread = threadIdx.x, inside = conv.C / conv.groups;
    i64 pixels = (i64)conv.N * down.results * right.results;
    i64 filter = (i64)conv.R * conv.S * inside;
    if (first_pixel >= pixels) return;  // the whole block: other phases have more

    // From here on pixels are counted from the image with the first one on.
    int count = pixels - first_pixel < LONG ? pixels - first_pixel : LONG;
    Pixel begin = pixel(first_pixel, down.results, right.results);
    int start = begin.row * right.results + begin.column;
    x += (i64)begin.image * from.rows * from.columns * from.channels + from.first;
    y += (i64)begin.image * to.rows * to.columns * to.channels + to.first;

    // What this thread loads of x: 4 channels, from quarter * 4 on, for pixels 32 apart.
    int quarter = thread % 2 + thread / 64 * 2, row[LOADS], column[LOADS], corner[LOADS];
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        int number = thread / 2 % 32 + 32 * i;
        Pixel at = pixel(start + number, down.results, right.results);
        row[i] = down.from + at.row * down.stride;
        column[i] = right.from + at.column * right.stride;
        corner[i] = (at.image * from.rows + row[i]) * from.columns + column[i];
        if (number >= count) row[i] = -(1 << 30);  // outside, whatever the tap
    }
    bool x_whole = from.channels % 4 == 0 && from.count % 4 == 0 && aligned16(x);

    // And of the filters: 4 of the depth for a channel; across, 4 channels for one of the depth.
    constexpr int W_APART = across ? THREADS / (SHORT / 4) : 32;
    int w_depth = across ? thread / (SHORT / 4) : quarter * 4;
    int w_channel = across ? thread % (SHORT / 4) * 4 : thread / 2 % 32;
    bool w_mine = across ? w_depth < DEPTH : w_channel < SHORT;
    filters += (across ? from.first : to.first) * filter;
    filters += (i64)(down.tap * conv.S + right.tap) * inside;
    bool w_whole = inside % 4 == 0 && aligned16(filters);

    Tap first = {0, 0, 0};  // of the next tiles
    Quad x_next[LOADS], w_next[W_LOADS];
    auto fetch = [&]() {  // the next tiles, into registers
        Tap each = first;
        each.move(quarter * 4, right.taps, from.count);
        if (x_whole) {
            int r = each.r * down.step, s = each.s * right.step;
            int tap = r * from.columns + s;
            const T* x_c = x + each.c;
#pragma unroll
            for (int i = 0; i < LOADS; i++) {
                bool there = each.r < down.taps && within(row[i] + r, from.rows) &&
                             within(column[i] + s, from.columns);
                x_next[i] = zeros();
                if (there) x_next[i] = load(x_c + (i64)(corner[i] + tap) * from.channels, 4, true);
            }
        } else {
#pragma unroll
            for (int k = 0; k < 4; k++) {
                int r = each.r * down.step, s = each.s * right.step;
                int tap = r * from.columns + s;
                const T* x_c = x + each.c;
#pragma unroll
                for (int i = 0; i < LOADS; i++) {
                    bool there = each.r < down.taps && within(row[i] + r, from.rows) &&
                                 within(column[i] + s, from.columns);
                    x_next[i].at[k] = there ? x_c[(i64)(corner[i] + tap) * from.channels] : T(0);
                }
                each.move(1, right.taps, from.count);
            }
        }

        each = first;
        each.move(w_depth, right.taps, from.count);
#pragma unroll
        for (int i = 0; i < W_LOADS; i++) {
            int tap = each.r * down.tap_step * conv.S + each.s * right.tap_step;
            int channel = first_channel + w_channel + (across ? 0 : 32 * i);
            w_next[i] = zeros();
            if (w_mine && each.r < down.taps && channel < to.count) {
                if (across)
                    w_next[i] = load(filters + each.c * filter + (i64)tap * inside + channel,
                                     to.count - channel, w_whole);
                else  // the taps of a filter are one piece
                    w_next[i] = load(filters + channel * filter + (i64)tap * inside + each.c,
                                     filter - (tap * inside + each.c), w_whole);
            }
            if (across) each.move(W_APART, right.taps, from.count);
        }
        first.move(DEPTH, right.taps, from.count);
    };
    T* x_put = x_tile + quarter * 4 * (LONG + PAD) + thread / 2 % 32;
    T* w_put = w_tile + w_depth * (SHORT + PAD) + w_channel;
    auto put = [&](int pair) {  // from there into shared memory
#pragma unroll
        for (int i = 0; i < LOADS; i++)
#pragma unroll
            for (int k = 0; k < 4; k++)
                x_put[(pair * DEPTH + k) * (LONG + PAD) + 32 * i] = x_next[i].at[k];
#pragma unroll
        for (int i = 0; i < W_LOADS; i++) {
            if (!w_mine) continue;
            if (across)
                store(w_put + (pair * DEPTH + W_APART * i) * (SHORT + PAD), w_next[i], 4, true);
            else
#pragma unroll
                for (int k = 0; k < 4; k++)
                    w_put[(pair * DEPTH + k) * (SHORT + PAD) + 32 * i] = w_next[i].at[k];
        }
    };

    Sums sums;
    int steps = ((i64)down.taps * right.taps * from.count + DEPTH - 1) / DEPTH;
    if (steps) {
        fetch();
        put(0);
    }
    __syncthreads();
    for (int step = 0; step < steps; step++) {
        if (step + 1 < steps) fetch();
        sums.add_product(x_tile + step % 2 * DEPTH * (LONG + PAD),
                         w_tile + step % 2 * DEPTH * (SHORT + PAD));
        if (step + 1 < steps) put((step + 1) % 2);
        __syncthreads();
    }

    bool y_whole = to.channels % 4 == 0 && to.count % 4 == 0 && aligned16(y);
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        if (sums.row(i) >= count) continue;
        Pixel at = pixel(start + sums.row(i), down.results, right.results);
        int there = at.image * to.rows + down.to + at.row * down.to_step;
        there = there * to.columns + right.to + at.column * right.to_step;
#pragma unroll
        for (int j = 0; j < COLUMNS; j += 4) {
            int channel = first_channel + sums.column(j);
            if (channel >= to.count) continue;
            Quad quad;
#pragma unroll
            for (int k = 0; k < 4; k++) {
                T b = bias && channel + k < to.count ? bias[to.first + channel + k] : T(0);
                quad.at[k] = activate(sums.at[i][j + k] + b, conv.activation);
            }
            store(y + (i64)there * to.channels + channel, quad, to.count - channel, y_whole);
        }
    }
}

RESIDENT_KERNEL(128, BLOCKS, conv2d_tiled)
(T* y_npqk, const T* x_nhwc, const T* w_krsc, const T* b_k, Conv conv) {
    __shared__ __align__(16) T x_tile[2 * DEPTH * (LONG + PAD)];
    __shared__ __align__(16) T w_tile[2 * DEPTH * (SHORT + PAD)];
    int inside = conv.C / conv.groups, filters = conv.K / conv.groups;
    i64 pixels = (i64)conv.N * conv.P * conv.Q;
    Block at = block_at(blockIdx.x, filters, pixels, conv.groups);
    gather_product<false>(
        y_npqk, x_nhwc, w_krsc, b_k, x_tile, w_tile, conv,
        {conv.P, conv.Q, conv.K, at.group * filters, filters},
        {conv.H, conv.W, conv.C, at.group * inside, inside},
        forward(conv.P, conv.R, conv.stride_h, conv.dilation_h, conv.top),
        forward(conv.Q, conv.S, conv.stride_w, conv.dilation_w, conv.left), at.pixel, at.channel);
}

RESIDENT_KERNEL(128, BLOCKS, conv2d_dx_tiled)
(T* dx_nhwc, const T* g_npqk, const T* w_krsc, Conv conv) {
    __shared__ __align__(16) T g_tile[2 * DEPTH * (LONG + PAD)];
    __shared__ __align__(16) T w_tile[2 * DEPTH * (SHORT + PAD)];
    int inside = conv.C / conv.groups, filters = conv.K / conv.groups;
    i64 rows = (conv.H + conv.stride_h - 1) / conv.stride_h;  // of the first phase, the largest
    i64 columns = (conv.W + conv.stride_w - 1) / conv.stride_w;
    Block at = block_at(blockIdx.x, inside, conv.N * rows * columns, conv.groups);
    int down = at.phase / conv.stride_w, right = at.phase % conv.stride_w;
    gather_product<true>(
        dx_nhwc, g_npqk, w_krsc, nullptr, g_tile, w_tile, conv,
        {conv.H, conv.W, conv.C, at.group * inside, inside},
        {conv.P, conv.Q, conv.K, at.group * filters, filters},
        backward(down, conv.H, conv.R, conv.stride_h, conv.dilation_h, conv.top),
        backward(right, conv.W, conv.S, conv.stride_w, conv.dilation_w, conv.left), at.pixel,
        at.channel);
}
