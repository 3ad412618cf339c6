// The convolution on tensor cores: the tiles of conv_tiled.cu, fed by asynchronous copies.  float32 in
// memory, and less in the multiplication (fragments.cuh).  Ampere and later.
//
//                     channels                 a block has LONG pixels x SHORT channels; a warp has
//                   32    32                   DOWN x 32 of them, in squares of 16 x 8:
//                 +-----+-----+
//    DOWN pixels  |  w0 |  w2 |                   4 x 4 squares, a step of 8 along the depth: 16 + 8
//                 +-----+-----+                   numbers from shared memory for 16 products of
//    DOWN pixels  |  w1 |  w3 |                   16 x 8 x 8
//                 +-----+-----+
//
//    shared memory, in turns   | being multiplied | has landed | in flight |      three stages
//
// What a pixel sees lies in its tile along the depth (r, s, c), as it comes: 4 channels, 16 bytes, are
// one copy, or zeros where the window stands outside.  Filters lie along the depth too, or across it
// for the gradient.  Rows are 16 or 32 bytes longer, so that lanes read 32 different banks.
#include "conv_tensor.cuh"

#if defined(DEEPKIT_SIM) || __CUDA_ARCH__ >= 800

// One tile of results, as gather_product in conv_tiled.cu.  largest: |x| and |filters|, for float16.
template <bool across>
__device__ inline void gather_tensor(
    float* y, const float* x, const float* filters, const float* bias, const unsigned* largest,
    const Conv& conv, Pixels to, Pixels from, Axis down, Axis right, i64 first_pixel,
    int first_channel) {
    typedef Tile<LONG, false> TileX;
    typedef Tile<SHORT, across> TileW;
    constexpr int QUADS = DEEP / 4, APART = THREADS / QUADS;  // of a row; rows from load to load
    constexpr int LOADS = LONG / APART, W_QUADS = across ? SHORT / 4 : QUADS;
    constexpr int W_APART = THREADS / W_QUADS, W_LOADS = (across ? DEEP : SHORT) / W_APART;
    DYNAMIC_SHARED(float, shared);  // STAGES of both tiles
    i64 pixels = (i64)conv.N * down.results * right.results;
    if (first_pixel >= pixels) return;  // the whole block: other phases have more
    int count = pixels - first_pixel < LONG ? pixels - first_pixel : LONG;
    Pixel begin = pixel(first_pixel, down.results, right.results);
    int start = begin.row * right.results + begin.column;  // from here on, of this image and on
    x += (i64)begin.image * from.rows * from.columns * from.channels + from.first;
    y += (i64)begin.image * to.rows * to.columns * to.channels + to.first;

    // What this thread copies of x: 4 of the depth, for LOADS pixels.
    int thread = threadIdx.x, quad = thread % QUADS * 4, row[LOADS], column[LOADS], corner[LOADS];
    #pragma unroll
    for (int i = 0; i < LOADS; i++) {
        int number = thread / QUADS + APART * i;
        Pixel at = pixel(start + number, down.results, right.results);
        row[i] = down.from + at.row * down.stride;
        column[i] = right.from + at.column * right.stride;
        corner[i] = (at.image * from.rows + row[i]) * from.columns + column[i];
        if (number >= count) row[i] = -(1 << 30);  // outside, whatever the tap
    }
    bool x_whole = from.channels % 4 == 0 && from.count % 4 == 0 && aligned16(x);

    // And of the filters: 4 of the depth, or, across, 4 channels.
    int inside = conv.C / conv.groups, w_quad = thread % W_QUADS * 4, w_row = thread / W_QUADS;
    i64 filter = (i64)conv.R * conv.S * inside;
    filters += (across ? from.first : to.first) * filter;
    filters += (i64)(down.tap * conv.S + right.tap) * inside;
    bool w_whole = inside % 4 == 0 && aligned16(filters);

    Tap first = {0, 0, 0};  // of the next stage
    int steps = ((i64)down.taps * right.taps * from.count + DEEP - 1) / DEEP;
    auto fetch = [&](int step) {  // into its stage; a group of copies, be it empty
        if (step < steps) {
            float* x_tile = shared + step % STAGES * (TileX::SIZE + TileW::SIZE);
            float* w_tile = x_tile + TileX::SIZE;
            Tap each = first;
            each.move(quad, right.taps, from.count);
            #pragma unroll
            for (int k = 0; k < 4; k++) {  // channels, or once for 4 of them
                int r = each.r * down.step, s = each.s * right.step, tap = r * from.columns + s;
                #pragma unroll
                for (int i = 0; i < LOADS; i++) {
                    bool there = each.r < down.taps && within(row[i] + r, from.rows) &&
                                 within(column[i] + s, from.columns);
                    const float* at = x + (i64)(corner[i] + tap) * from.channels + each.c;
                    float* put = x_tile + (thread / QUADS + APART * i) * TileX::ROW + quad + k;
                    if (x_whole) async_copy16(put, there ? at : x, there ? 16 : 0);
                    else async_copy4(put, there ? at : x, there);
                }
                if (x_whole) break;
                each.move(1, right.taps, from.count);
            }
            each = first;
            each.move(across ? w_row : quad, right.taps, from.count);
            #pragma unroll
            for (int i = 0; i < W_LOADS; i++) {
                int tap = (each.r * down.tap_step * conv.S + each.s * right.tap_step) * inside;
                int channel = first_channel + (across ? w_quad : w_row + W_APART * i);
                const float* at = filters + (across ? each.c * filter + tap + channel
                                                    : channel * filter + tap + each.c);
                int exist = across ? to.count - channel : (int)(filter - (tap + each.c));
                bool there = each.r < down.taps && channel < to.count;
                copy4(w_tile + (w_row + W_APART * i) * TileW::ROW + w_quad, there ? at : filters,
                      there ? exist : 0, w_whole);
                if (across) each.move(W_APART, right.taps, from.count);
            }
            first.move(DEEP, right.taps, from.count);
        }
        async_commit();
    };

    float x_scale = precision == FLOAT16 ? scale_of(largest[0]) : 1.0f;
    float w_scale = precision == FLOAT16 ? scale_of(largest[1]) : 1.0f;
    int warp = thread / WARP;
    int warp_row = warp % (LONG / DOWN) * DOWN, warp_column = warp / (LONG / DOWN) * 32;
    float sum[DOWN / 16][4][4] = {};
    for (int step = 0; step < STAGES - 1; step++) fetch(step);
    for (int step = 0; step < steps; step++) {
        async_wait<STAGES - 2>();
        __syncthreads();  // this stage has landed for all, and the one before is read by none
        fetch(step + STAGES - 1);
        add_product<TileX, TileW>(sum, shared + step % STAGES * (TileX::SIZE + TileW::SIZE), warp_row,
                                  warp_column, x_scale, w_scale);
    }
    async_wait<0>();

    // A lane has channels 2 pair and 2 pair + 1 of rows `lane / 4` and 8 on, of every square.
    #pragma unroll
    for (int i = 0; i < DOWN / 8; i++) {
        int number = warp_row + 8 * i + thread % WARP / 4;
        if (number >= count) continue;
        Pixel at = pixel(start + number, down.results, right.results);
        int there = at.image * to.rows + down.to + at.row * down.to_step;
        there = there * to.columns + right.to + at.column * right.to_step;
        #pragma unroll
        for (int j = 0; j < 8; j++) {
            int channel = first_channel + warp_column + j / 2 * 8 + thread % 4 * 2 + j % 2;
            if (channel >= to.count) continue;
            float value = sum[i / 2][j / 2][i % 2 * 2 + j % 2];
            if (precision == FLOAT16) value = unscaled(value, x_scale, w_scale);
            if (bias) value += bias[to.first + channel];
            y[(i64)there * to.channels + channel] = activate(value, conv.activation);
        }
    }
}

RESIDENT_KERNEL(THREADS, 1, conv2d_tensor)
(float* y_npqk, const float* x_nhwc, const float* w_krsc, const float* b_k, const unsigned* largest,
 Conv conv) {
    int inside = conv.C / conv.groups, filters = conv.K / conv.groups;
    i64 pixels = (i64)conv.N * conv.P * conv.Q;
    Block at = block_at(blockIdx.x, filters, pixels, conv.groups);
    gather_tensor<false>(
        y_npqk, x_nhwc, w_krsc, b_k, largest, conv,
        {conv.P, conv.Q, conv.K, at.group * filters, filters},
        {conv.H, conv.W, conv.C, at.group * inside, inside},
        forward(conv.P, conv.R, conv.stride_h, conv.dilation_h, conv.top),
        forward(conv.Q, conv.S, conv.stride_w, conv.dilation_w, conv.left), at.pixel, at.channel);
}

RESIDENT_KERNEL(THREADS, 1, conv2d_dx_tensor)
(float* dx_nhwc, const float* g_npqk, const float* w_krsc, const unsigned* largest, Conv conv) {
    int inside = conv.C / conv.groups, filters = conv.K / conv.groups;
    i64 rows = (conv.H + conv.stride_h - 1) / conv.stride_h;  // of the first phase, the largest
    i64 columns = (conv.W + conv.stride_w - 1) / conv.stride_w;
    Block at = block_at(blockIdx.x, inside, conv.N * rows * columns, conv.groups);
    int down = at.phase / conv.stride_w, right = at.phase % conv.stride_w;
    gather_tensor<true>(
        dx_nhwc, g_npqk, w_krsc, nullptr, largest, conv,
        {conv.H, conv.W, conv.C, at.group * inside, inside},
        {conv.P, conv.Q, conv.K, at.group * filters, filters},
        backward(down, conv.H, conv.R, conv.stride_h, conv.dilation_h, conv.top),
        backward(right, conv.W, conv.S, conv.stride_w, conv.dilation_w, conv.left), at.pixel,
        at.channel);
}

#endif
