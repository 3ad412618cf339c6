// Weights of their own at every position: no window shares its filter with another.
//
//    y[n, p, q, k] = b + x_nhwc[n, the window at (p, q)] . w_pqkrsc[p, q, k]
//
//    w_pqkrsc   [ position (0, 0)     | position (0, 1)     | ... ]     the largest array by far:
//                 filter 0 | filter 1                                   each weight serves N images
//
// One thread for each result, as in conv.cu.  Threads that lie N results apart read the same
// weights, so that these come from a cache for all images but the first.
#include "conv.cuh"

// Where the filter of result k at pixel `at` begins.
__device__ inline i64 own_filter(Conv conv, int row, int column, int k) {
    return (((i64)row * conv.Q + column) * conv.K + k) * conv.R * conv.S * conv.C;
}

// b has as many values as there are filters, or as many as there are of all positions
KERNEL(locally_connected2d)
(T* y_npqk, const T* x_nhwc, const T* w_pqkrsc, const T* b, i64 biases, Conv conv) {
    GRID_LOOP(i, (i64)conv.N * conv.P * conv.Q * conv.K) {
        Pixel at = pixel(i / conv.K, conv.P, conv.Q);
        const T* w = w_pqkrsc + own_filter(conv, at.row, at.column, i % conv.K);
        T sum = b ? b[i % biases] : T(0);
        for (int r = 0; r < conv.R; r++) {
            int row = at.row * conv.stride_h + r - conv.top;
            if (!within(row, conv.H)) continue;
            for (int s = 0; s < conv.S; s++) {
                int column = at.column * conv.stride_w + s - conv.left;
                if (!within(column, conv.W)) continue;
                const T* x = x_nhwc + (((i64)at.image * conv.H + row) * conv.W + column) * conv.C;
                for (int c = 0; c < conv.C; c++) sum += x[c] * w[(r * conv.S + s) * conv.C + c];
            }
        }
        y_npqk[i] = sum;
    }
}

// dx[n,row,column,c] = sum_rsk g[n,p,q,k] w[p,q,k,r,s,c], over the (p, q) whose tap (r, s) read it
KERNEL(locally_connected2d_dx)(T* dx_nhwc, const T* g_npqk, const T* w_pqkrsc, Conv conv) {
    i64 filter = (i64)conv.R * conv.S * conv.C;
    GRID_LOOP(i, (i64)conv.N * conv.H * conv.W * conv.C) {
        Pixel at = pixel(i / conv.C, conv.H, conv.W);
        int c = i % conv.C;
        T sum = 0;
        for (int r = 0; r < conv.R; r++) {
            int down = at.row + conv.top - r, p = down / conv.stride_h;
            if (down < 0 || p >= conv.P || down != p * conv.stride_h) continue;
            for (int s = 0; s < conv.S; s++) {
                int right = at.column + conv.left - s, q = right / conv.stride_w;
                if (right < 0 || q >= conv.Q || right != q * conv.stride_w) continue;
                const T* g = g_npqk + (((i64)at.image * conv.P + p) * conv.Q + q) * conv.K;
                const T* w = w_pqkrsc + own_filter(conv, p, q, 0) + (r * conv.S + s) * conv.C + c;
                for (int k = 0; k < conv.K; k++) sum += g[k] * w[k * filter];
            }
        }
        dx_nhwc[i] = sum;
    }
}

// dw[p,q,k,r,s,c] = sum_n g[n,p,q,k] x[n, row of (p, r), column of (q, s), c]
KERNEL(locally_connected2d_dw)(T* dw_pqkrsc, const T* g_npqk, const T* x_nhwc, Conv conv) {
    i64 filter = (i64)conv.R * conv.S * conv.C;
    i64 g_image = (i64)conv.P * conv.Q * conv.K, x_image = (i64)conv.H * conv.W * conv.C;
    GRID_LOOP(i, g_image * filter) {
        i64 result = i / filter;  // (p, q, k)
        int tap = i % filter / conv.C, c = i % conv.C;
        Pixel at = pixel(result / conv.K, conv.P, conv.Q);
        int row = at.row * conv.stride_h + tap / conv.S - conv.top;
        int column = at.column * conv.stride_w + tap % conv.S - conv.left;
        T sum = 0;
        if (within(row, conv.H) && within(column, conv.W)) {
            const T* x = x_nhwc + ((i64)row * conv.W + column) * conv.C + c;
            for (int n = 0; n < conv.N; n++) sum += g_npqk[n * g_image + result] * x[n * x_image];
        }
        dw_pqkrsc[i] = sum;
    }
}
