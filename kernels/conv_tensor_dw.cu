// The gradient for the filters on tensor cores: the tiles of conv_tiled_dw.cu, fed as in conv_tensor.cu.
//
//                                SHORT filters
//                              +---------+
//                              |    g    | 32 pixels (n, p, q)     both tiles lie across the depth,
//      32 pixels               +---------+                         which is the pixels: as they come,
//      +-------------+         +---------+                         4 channels or 4 filters of a pixel
//      | what these  |         |  sums   |                         in a copy
//      | see of x    |         |   dw    |  LONG of (r, s, c)
//      +-------------+         +---------+
//
// Pixels are divided among blocks (`parts`); sum_parts (conv_parts.cu) adds up what they leave.
#include "conv_tensor.cuh"

#if defined(DEEPKIT_SIM) || __CUDA_ARCH__ >= 800

// largest: |x| and |g|, for float16
RESIDENT_KERNEL(THREADS, 1, conv2d_dw_tensor)
(float* dw, const float* g_npqk, const float* x_nhwc, const unsigned* largest, int parts, i64 length,
 Conv conv) {
    typedef Tile<LONG, true> TileX;
    typedef Tile<SHORT, true> TileG;
    constexpr int X_APART = THREADS / (LONG / 4), X_LOADS = DEEP / X_APART;  // pixels, quads
    constexpr int G_APART = THREADS / (SHORT / 4), G_LOADS = DEEP / G_APART;
    DYNAMIC_SHARED(float, shared);  // STAGES of both tiles
    int thread = threadIdx.x, inside = conv.C / conv.groups, filters = conv.K / conv.groups;
    int depth = conv.R * conv.S * inside;  // of a filter

    // Which tile: filters fastest, so that neighbours read the same x.
    int across = (filters + SHORT - 1) / SHORT, down = (depth + LONG - 1) / LONG;
    i64 block = blockIdx.x;
    int first_filter = block % across * SHORT, first_row = block / across % down * LONG;
    int part = block / across / down % parts, group = block / across / down / parts;
    i64 first_pixel = part * length, pixels = (i64)conv.N * conv.P * conv.Q;
    int count = pixels - first_pixel < length ? pixels - first_pixel : length;

    // This thread's 4 of (r, s, c): where they lie beside the pixel that the window begins at.
    int x_quad = thread % (LONG / 4) * 4, row[4], column[4], place[4];
    bool x_whole = conv.C % 4 == 0 && inside % 4 == 0 && aligned16(x_nhwc);
    #pragma unroll
    for (int k = 0; k < 4; k++) {
        int at = first_row + x_quad + k, tap = at / inside, r = tap / conv.S, s = tap % conv.S;
        row[k] = r * conv.dilation_h - conv.top;
        column[k] = s * conv.dilation_w - conv.left;
        place[k] = (row[k] * conv.W + column[k]) * conv.C + group * inside + at % inside;
        if (at >= depth) row[k] = -(1 << 30);  // outside, whatever the pixel
    }
    int x_pixel = thread / (LONG / 4);  // and others X_APART on
    Pixel at = pixel(first_pixel, conv.P, conv.Q);
    Walker first = {at.image, at.row, at.column};
    first.move(x_pixel, conv);

    // Of g: 4 filters of pixel g_pixel and others G_APART on.
    int g_quad = thread % (SHORT / 4) * 4, g_pixel = thread / (SHORT / 4);
    int left = filters - first_filter - g_quad;
    bool g_whole = conv.K % 4 == 0 && filters % 4 == 0 && aligned16(g_npqk);
    const float* g = g_npqk + first_pixel * conv.K + group * filters + first_filter + g_quad;

    int steps = (count + DEEP - 1) / DEEP;
    auto fetch = [&](int step) {  // into its stage; a group of copies, be it empty
        if (step < steps) {
            float* x_tile = shared + step % STAGES * (TileX::SIZE + TileG::SIZE);
            float* g_tile = x_tile + TileX::SIZE;
            Walker here = first;
            #pragma unroll
            for (int i = 0; i < X_LOADS; i++) {
                int top = here.row * conv.stride_h, start = here.column * conv.stride_w;
                const float* corner =
                    x_nhwc + (((i64)here.image * conv.H + top) * conv.W + start) * conv.C;
                bool mine = step * DEEP + x_pixel + i * X_APART < count;
                float* put = x_tile + (x_pixel + i * X_APART) * TileX::ROW + x_quad;
                #pragma unroll
                for (int k = 0; k < 4; k++) {  // numbers, or once for 4 of them
                    bool there = mine && within(top + row[k], conv.H) &&
                                 within(start + column[k], conv.W);
                    const float* from = there ? corner + place[k] : x_nhwc;
                    if (x_whole) {
                        async_copy16(put, from, there ? 16 : 0);
                        break;
                    }
                    async_copy4(put + k, from, there);
                }
                here.move(X_APART, conv);
            }
            first.move(DEEP, conv);
            #pragma unroll
            for (int i = 0; i < G_LOADS; i++) {
                int number = step * DEEP + g_pixel + i * G_APART;
                bool there = number < count && left > 0;
                copy4(g_tile + (g_pixel + i * G_APART) * TileG::ROW + g_quad,
                      there ? g + (i64)number * conv.K : g_npqk, there ? left : 0, g_whole);
            }
        }
        async_commit();
    };

    float x_scale = precision == FLOAT16 ? scale_of(largest[0]) : 1.0f;
    float g_scale = precision == FLOAT16 ? scale_of(largest[1]) : 1.0f;
    int warp = thread / WARP;
    int warp_row = warp % (LONG / DOWN) * DOWN, warp_column = warp / (LONG / DOWN) * 32;
    float sum[DOWN / 16][4][4] = {};
    for (int step = 0; step < STAGES - 1; step++) fetch(step);
    for (int step = 0; step < steps; step++) {
        async_wait<STAGES - 2>();
        __syncthreads();  // this stage has landed for all, and the one before is read by none
        fetch(step + STAGES - 1);
        add_product<TileX, TileG>(sum, shared + step % STAGES * (TileX::SIZE + TileG::SIZE), warp_row,
                                  warp_column, x_scale, g_scale);
    }
    async_wait<0>();

    // A lane has rows `lane / 4` and 8 on of columns 2 pair and 2 pair + 1, of every square.
    dw += ((i64)part * conv.K + group * filters) * depth;
    #pragma unroll
    for (int i = 0; i < DOWN / 8; i++) {
        int of = first_row + warp_row + 8 * i + thread % WARP / 4;
        #pragma unroll
        for (int j = 0; j < 8; j++) {
            int k = first_filter + warp_column + j / 2 * 8 + thread % 4 * 2 + j % 2;
            float value = sum[i / 2][j / 2][i % 2 * 2 + j % 2];
            if (precision == FLOAT16) value = unscaled(value, x_scale, g_scale);
            if (of < depth && k < filters) dw[(i64)k * depth + of] = value;
        }
    }
}

#endif
