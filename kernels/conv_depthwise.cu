// Depthwise convolutions: every channel is seen by filters of its own, `each` = K / C of them.
//
//    y_npqk     k ->              a block: 32 neighbouring filters (threadIdx.x), so that a tap is
//             +--------+--------+ one load of 128 bytes, and 8 pixels (threadIdx.y) at a time
//    pixel 0  | y = 0  |        |
//    pixel 1  | y = 1  |        | There is no sum over channels to make a product of: an output is
//       ...   |  ...   |        | R S products of numbers that only windows beside it need, so that
//    pixel 7  | y = 7  |        | x comes from caches and not from tiles.  The filters, R S numbers
//             +--------+--------+ each, are turned around once, into shared memory.
//
// The gradient for x is the same with 32 channels of x; for the filters, see further down.
#include "conv.cuh"

#define PIXELS 8
#define MOST 64  // numbers a filter that have a place in shared memory; others stay where they are

// Filters first, first + 1, ... of `size` numbers each, as tile[number][filter].
__device__ inline void copy_filters(T (*tile)[WARP], const T* w, int first, int count, int size) {
    for (int i = threadIdx.y * WARP + threadIdx.x; i < size * WARP; i += PIXELS * WARP) {
        int filter = i / size, number = i % size;
        bool there = first + filter < count;
        tile[number][filter] = there ? w[(i64)(first + filter) * size + number] : T(0);
    }
    __syncthreads();
}

LIMITED_KERNEL(256, depthwise)
(T* y_npqk, const T* x_nhwc, const T* w_krs, const T* b_k, Conv conv) {
    __shared__ T tile[MOST][WARP];
    int taps = conv.R * conv.S, across = (conv.K + WARP - 1) / WARP;
    int first = blockIdx.x % across * WARP, k = first + threadIdx.x, c = k / (conv.K / conv.C);
    if (taps <= MOST) copy_filters(tile, w_krs, first, conv.K, taps);
    if (k >= conv.K) return;

    i64 pixels = (i64)conv.N * conv.P * conv.Q, apart = (i64)(gridDim.x / across) * PIXELS;
    for (i64 i = (i64)(blockIdx.x / across) * PIXELS + threadIdx.y; i < pixels; i += apart) {
        Pixel at = pixel(i, conv.P, conv.Q);
        T sum = b_k ? b_k[k] : T(0);
        for (int r = 0; r < conv.R; r++) {
            int row = at.row * conv.stride_h + r * conv.dilation_h - conv.top;
            if (!within(row, conv.H)) continue;
            for (int s = 0; s < conv.S; s++) {
                int column = at.column * conv.stride_w + s * conv.dilation_w - conv.left;
                if (!within(column, conv.W)) continue;
                i64 there = ((i64)at.image * conv.H + row) * conv.W + column;
                int tap = r * conv.S + s;
                T w = taps <= MOST ? tile[tap][threadIdx.x] : w_krs[(i64)k * taps + tap];
                sum += x_nhwc[there * conv.C + c] * w;
            }
        }
        y_npqk[i * conv.K + k] = activate(sum, conv.activation);
    }
}

// The filters of one channel lie together, as one filter of each R S numbers.
LIMITED_KERNEL(256, depthwise_dx)(T* dx_nhwc, const T* g_npqk, const T* w_krs, Conv conv) {
    __shared__ T tile[MOST][WARP];
    int taps = conv.R * conv.S, each = conv.K / conv.C, size = each * taps;
    int across = (conv.C + WARP - 1) / WARP, first = blockIdx.x % across * WARP;
    int c = first + threadIdx.x;
    if (size <= MOST) copy_filters(tile, w_krs, first, conv.C, size);
    if (c >= conv.C) return;

    i64 pixels = (i64)conv.N * conv.H * conv.W, apart = (i64)(gridDim.x / across) * PIXELS;
    for (i64 i = (i64)(blockIdx.x / across) * PIXELS + threadIdx.y; i < pixels; i += apart) {
        Pixel at = pixel(i, conv.H, conv.W);
        T sum = 0;
        for (int r = 0; r < conv.R; r++) {
            int down = at.row + conv.top - r * conv.dilation_h, p = down / conv.stride_h;
            if (down < 0 || p >= conv.P || down != p * conv.stride_h) continue;
            for (int s = 0; s < conv.S; s++) {
                int right = at.column + conv.left - s * conv.dilation_w, q = right / conv.stride_w;
                if (right < 0 || q >= conv.Q || right != q * conv.stride_w) continue;
                const T* g = g_npqk + (((i64)at.image * conv.P + p) * conv.Q + q) * conv.K;
                for (int k = 0; k < each; k++) {
                    int number = k * taps + r * conv.S + s;
                    T w = size <= MOST ? tile[number][threadIdx.x] : w_krs[(i64)c * size + number];
                    sum += g[c * each + k] * w;
                }
            }
        }
        dx_nhwc[i * conv.C + c] = sum;
    }
}

// dw[k, tap]: a block has 32 filters (threadIdx.x), up to 32 taps (threadIdx.y) and a part of the
// pixels.  All of its taps read one g at a time.  sum_parts (conv_parts.cu) adds up the parts.
LIMITED_KERNEL(1024, depthwise_dw)
(T* dw_krs, const T* g_npqk, const T* x_nhwc, int parts, i64 length, Conv conv) {
    int taps = conv.R * conv.S, across = (conv.K + WARP - 1) / WARP;
    int down = (taps + blockDim.y - 1) / blockDim.y;
    int k = blockIdx.x % across * WARP + threadIdx.x, c = k / (conv.K / conv.C);
    int tap = blockIdx.x / across % down * blockDim.y + threadIdx.y;
    int part = blockIdx.x / across / down;
    if (k >= conv.K || tap >= taps) return;

    i64 i = part * length, end = i + length, pixels = (i64)conv.N * conv.P * conv.Q;
    if (end > pixels) end = pixels;
    Pixel at = pixel(i, conv.P, conv.Q);
    int r = tap / conv.S * conv.dilation_h - conv.top;
    int s = tap % conv.S * conv.dilation_w - conv.left;
    T sum = 0;
    for (; i < end; i++) {
        int row = at.row * conv.stride_h + r, column = at.column * conv.stride_w + s;
        if (within(row, conv.H) && within(column, conv.W)) {
            i64 there = ((i64)at.image * conv.H + row) * conv.W + column;
            sum += g_npqk[i * conv.K + k] * x_nhwc[there * conv.C + c];
        }
        if (++at.column == conv.Q) {
            at.column = 0;
            if (++at.row == conv.P) at.row = 0, at.image++;
        }
    }
    dw_krs[((i64)part * conv.K + k) * taps + tap] = sum;
}
