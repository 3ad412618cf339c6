// The convolution and its two gradients as their formulas have them: one thread for each result.
//
//    y_npqk  [ 0 1 2 3 ... | 256 ...   | ... ]       thread i sums up what belongs to result i, then
//              ^ ^ ^ ^       ^                       goes on one grid further
//    block     0 0 0 0       1
//
// Neighbours have neighbouring channels.  Nothing that one thread has read serves another, caches
// aside: these are slow, and what all others are read and tested against.
#include "conv.cuh"

// y[n,p,q,k] = act(b[k] + sum_rsc x[n, row of (p, r), column of (q, s), c] w[k,r,s,c])
KERNEL(conv2d_naive)(T* y_npqk, const T* x_nhwc, const T* w_krsc, const T* b_k, Conv conv) {
    int inside = conv.C / conv.groups, filters = conv.K / conv.groups;
    GRID_LOOP(i, (i64)conv.N * conv.P * conv.Q * conv.K) {
        Pixel at = pixel(i / conv.K, conv.P, conv.Q);
        int k = i % conv.K, first = k / filters * inside;
        const T* w = w_krsc + (i64)k * conv.R * conv.S * inside;
        T sum = b_k ? b_k[k] : T(0);
        for (int r = 0; r < conv.R; r++) {
            int row = at.row * conv.stride_h + r * conv.dilation_h - conv.top;
            if (!within(row, conv.H)) continue;
            for (int s = 0; s < conv.S; s++) {
                int column = at.column * conv.stride_w + s * conv.dilation_w - conv.left;
                if (!within(column, conv.W)) continue;
                i64 there = ((i64)at.image * conv.H + row) * conv.W + column;
                const T* x = x_nhwc + there * conv.C + first;
                for (int c = 0; c < inside; c++) sum += x[c] * w[(r * conv.S + s) * inside + c];
            }
        }
        y_npqk[i] = activate(sum, conv.activation);
    }
}

// dx[n,row,column,c] = sum_rsk g[n,p,q,k] w[k,r,s,c], over the (p, q) whose tap (r, s) read it
KERNEL(conv2d_dx_naive)(T* dx_nhwc, const T* g_npqk, const T* w_krsc, Conv conv) {
    int inside = conv.C / conv.groups, filters = conv.K / conv.groups;
    i64 filter = (i64)conv.R * conv.S * inside;
    GRID_LOOP(i, (i64)conv.N * conv.H * conv.W * conv.C) {
        Pixel at = pixel(i / conv.C, conv.H, conv.W);
        int c = i % conv.C, first = c / inside * filters;
        T sum = 0;
        for (int r = 0; r < conv.R; r++) {
            int down = at.row + conv.top - r * conv.dilation_h, p = down / conv.stride_h;
            if (down < 0 || p >= conv.P || down != p * conv.stride_h) continue;
            for (int s = 0; s < conv.S; s++) {
                int right = at.column + conv.left - s * conv.dilation_w, q = right / conv.stride_w;
                if (right < 0 || q >= conv.Q || right != q * conv.stride_w) continue;
                i64 there = ((i64)at.image * conv.P + p) * conv.Q + q;
                const T* g = g_npqk + there * conv.K + first;
                const T* w = w_krsc + first * filter + (r * conv.S + s) * inside + c % inside;
                for (int k = 0; k < filters; k++) sum += g[k] * w[k * filter];
            }
        }
        dx_nhwc[i] = sum;
    }
}

// dw[k,r,s,c] = sum_npq g[n,p,q,k] x[n, row of (p, r), column of (q, s), c]
KERNEL(conv2d_dw_naive)(T* dw_krsc, const T* g_npqk, const T* x_nhwc, Conv conv) {
    int inside = conv.C / conv.groups, filters = conv.K / conv.groups;
    GRID_LOOP(i, (i64)conv.K * conv.R * conv.S * inside) {
        int c = i % inside, s = i / inside % conv.S, r = i / inside / conv.S % conv.R;
        int k = i / inside / conv.S / conv.R;
        const T* x = x_nhwc + k / filters * inside + c;
        T sum = 0;
        for (int n = 0; n < conv.N; n++)
            for (int p = 0; p < conv.P; p++) {
                int row = p * conv.stride_h + r * conv.dilation_h - conv.top;
                if (!within(row, conv.H)) continue;
                T part = 0;  // of one row: sums of sums lose fewer digits than one long sum
                for (int q = 0; q < conv.Q; q++) {
                    int column = q * conv.stride_w + s * conv.dilation_w - conv.left;
                    if (!within(column, conv.W)) continue;
                    part += g_npqk[(((i64)n * conv.P + p) * conv.Q + q) * conv.K + k] *
                            x[(((i64)n * conv.H + row) * conv.W + column) * conv.C];
                }
                sum += part;
            }
        dw_krsc[i] = sum;
    }
}
