// The gradient for the filters as a product of tiles: its depth is the pixels, which are many.
//
//                               SHORT filters
//                             +---------+
//                             |    g    | 16 pixels (n, p, q)     a thread loads 4 neighbouring
//      16 pixels              +---------+                         filters of a pixel of g, and 4
//      +-------------+        +---------+                         neighbouring (r, s, c) that a pixel
//      | what these  |        |  sums   |                         sees of x: always the same ones,
//      | see of x    |        |   dw    |  LONG of (r, s, c)      of other pixels each time
//      +-------------+        +---------+
//
// dw has few tiles, so that pixels are divided among blocks (`parts`).  Each leaves its sums in
// memory of its own; sum_parts (conv_parts.cu) adds them up in a fixed order.
#include "conv_tile.cuh"
#include "conv_gather.cuh"

RESIDENT_KERNEL(128, BLOCKS, conv2d_dw_tiled)
(T* dw, const T* g_npqk, const T* x_nhwc, int parts, i64 length, Conv conv) {
    __shared__ __align__(16) T x_tile[2 * DEPTH * (LONG + PAD)];
    __shared__ __align__(16) T g_tile[2 * DEPTH * (SHORT + PAD)];
    constexpr int X_APART = THREADS / (LONG / 4), X_LOADS = DEPTH / X_APART;  // pixels, quads
    constexpr int G_APART = THREADS / (SHORT / 4), G_LOADS = DEPTH > G_APART ? DEPTH / G_APART : 1;
    int thread = threadIdx.x, inside = conv.C / conv.groups, filters = conv.K / conv.groups;
    int depth = conv.R * conv.S * inside;  // of a filter

    // Which tile: filters fastest, so that neighbours read the same x.
    int across = (filters + SHORT - 1) / SHORT, down = (depth + LONG - 1) / LONG;
    i64 block = blockIdx.x;
    int first_filter = block % across * SHORT, first_row = block / across % down * LONG;
    int part = block / across / down % parts, group = block / across / down / parts;
    i64 first_pixel = part * length, pixels = (i64)conv.N * conv.P * conv.Q;
    int count = pixels - first_pixel < length ? pixels - first_pixel : length;

    // This thread's 4 of (r, s, c): where they lie beside the pixel that the window begins at.  One
    // image has fewer than 2^31 elements; all of them together may have more.
    int quad = first_row + thread % (LONG / 4) * 4, row[4], column[4], place[4];
    bool x_whole = conv.C % 4 == 0 && inside % 4 == 0 && aligned16(x_nhwc);
#pragma unroll
    for (int k = 0; k < 4; k++) {
        int tap = (quad + k) / inside, r = tap / conv.S, s = tap % conv.S;
        row[k] = r * conv.dilation_h - conv.top;
        column[k] = s * conv.dilation_w - conv.left;
        place[k] = (row[k] * conv.W + column[k]) * conv.C + group * inside + (quad + k) % inside;
        if (quad + k >= depth) row[k] = -(1 << 30);  // outside, whatever the pixel
    }

    // And its pixels: one, and others X_APART on.
    int mine = thread / (LONG / 4);
    Pixel at = pixel(first_pixel, conv.P, conv.Q);
    Walker first = {at.image, at.row, at.column};
    first.move(mine, conv);

    // Of g: 4 filters from g_filter on, of pixel g_pixel and others G_APART on.
    int g_pixel = thread / (SHORT / 4), g_filter = first_filter + thread % (SHORT / 4) * 4;
    bool g_mine = g_pixel < DEPTH && g_filter < filters;
    bool g_whole = conv.K % 4 == 0 && filters % 4 == 0 && aligned16(g_npqk);
    const T* g = g_npqk + first_pixel * conv.K + group * filters + g_filter;

    Quad x_next[X_LOADS], g_next[G_LOADS];
    auto fetch = [&](int done) {  // the next tiles, into registers
        Walker here = first;
#pragma unroll
        for (int i = 0; i < X_LOADS; i++) {
            int top = here.row * conv.stride_h, left = here.column * conv.stride_w;
            const T* corner = x_nhwc + (((i64)here.image * conv.H + top) * conv.W + left) * conv.C;
            bool there = done + mine + i * X_APART < count;
            x_next[i] = zeros();
            if (x_whole) {
                if (there && within(top + row[0], conv.H) && within(left + column[0], conv.W))
                    x_next[i] = load(corner + place[0], 4, true);
            } else {
#pragma unroll
                for (int k = 0; k < 4; k++)
                    if (there && within(top + row[k], conv.H) && within(left + column[k], conv.W))
                        x_next[i].at[k] = corner[place[k]];
            }
            here.move(X_APART, conv);
        }
        first.move(DEPTH, conv);
#pragma unroll
        for (int i = 0; i < G_LOADS; i++) {
            int number = done + g_pixel + i * G_APART;
            g_next[i] = zeros();
            if (g_mine && number < count)
                g_next[i] = load(g + (i64)number * conv.K, filters - g_filter, g_whole);
        }
    };
    auto put = [&](int pair) {  // from there into shared memory
#pragma unroll
        for (int i = 0; i < X_LOADS; i++)
            store(x_tile + (pair * DEPTH + mine + i * X_APART) * (LONG + PAD) +
                      thread % (LONG / 4) * 4, x_next[i], 4, true);
#pragma unroll
        for (int i = 0; i < G_LOADS; i++)
            if (g_pixel < DEPTH)
                store(g_tile + (pair * DEPTH + g_pixel + i * G_APART) * (SHORT + PAD) +
                          thread % (SHORT / 4) * 4, g_next[i], 4, true);
    };

    Sums sums;
    int steps = (count + DEPTH - 1) / DEPTH;
    if (steps) {
        fetch(0);
        put(0);
    }
    __syncthreads();
    for (int step = 0; step < steps; step++) {
        if (step + 1 < steps) fetch((step + 1) * DEPTH);
        sums.add_product(x_tile + step % 2 * DEPTH * (LONG + PAD),
                         g_tile + step % 2 * DEPTH * (SHORT + PAD));
        if (step + 1 < steps) put((step + 1) % 2);
        __syncthreads();
    }

    dw += ((i64)part * conv.K + group * filters) * depth;
    bool dw_whole = depth % 4 == 0 && aligned16(dw);
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) {
        int k = first_filter + sums.column(j);
        if (k >= filters) continue;
#pragma unroll
        for (int i = 0; i < ROWS; i += 4) {
            int first_of = first_row + sums.row(i);
            Quad four = {{sums.at[i][j], sums.at[i + 1][j], sums.at[i + 2][j], sums.at[i + 3][j]}};
            if (first_of < depth)
                store(dw + (i64)k * depth + first_of, four, depth - first_of, dw_whole);
        }
    }
}
