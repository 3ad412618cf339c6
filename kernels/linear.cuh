// What the kernels of matrix products share: the shapes of one, and the end of one.
#pragma once
#include "common.cuh"

// y[m, n] = act(bias[n] + sum_k a[m, k] b[k, n]), in each of `matrices` that lie together in y.
//
// The strides say how a and b lie, so a transposed operand is one with its strides exchanged: of
// a_m and a_k one is 1, and so of b_k and b_n.
struct Product {
    i64 m, n, k, matrices;
    i64 a_m, a_k, b_k, b_n;
    i64 splits, chunk;  // k is cut in `splits` parts of `chunk`, each a y of its own
    Walk walk;          // where a and b of a matrix begin, when their leading axes are broadcast
    int activation, unused;
};

enum Activation { NONE, RELU, TANH, SIGMOID };

__device__ inline T activated(T v, int activation) {
    switch (activation) {
        case RELU: return v < 0 ? T(0) : v;
        case TANH: return tanh(v);
        case SIGMOID: return T(1) / (T(1) + exp(-v));
        default: return v;
    }
}
