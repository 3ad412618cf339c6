// What the kernels of a convolution share: its sizes, where its window lies, its activation.
//
//    x_nhwc, with its padding        w_krsc, filter k         y_npqk
//
//    . . . . . . . .  . a zero       +---+---+---+
//    . a x b x c x .                 | A | B | C |            y[n, p, q, k] =
//    . x x x x x x .                 +---+---+---+               a A + b B + c C
//    . d x e x f x .        *        | D | E | F |      =      + d D + e E + f F
//    . x x x x x x .                 +---+---+---+             + g G + h H + i I
//    . g x h x i x .                 | G | H | I |
//    . . . . . . . .                 +---+---+---+            for every place (p, q) of the window
//
// Every letter stands for the channels of one pixel.  Tap (r, s) of the window at (p, q) reads
//
//    row    p stride_h + r dilation_h - top        (above, the dilation is 2)
//    column q stride_w + s dilation_w - left
//
// and filter k, in group k / (K / groups), reads C / groups channels of it.
#pragma once
#include "common.cuh"

struct Conv {
    int N, H, W, C, P, Q, K, R, S;
    int stride_h, stride_w, dilation_h, dilation_w, top, left;
    int groups, activation;
};

struct Pixel {
    int image, row, column;
};

// Pixel number i of images with so many rows and columns.
__device__ inline Pixel pixel(i64 i, int rows, int columns) {
    if (i <= 0x7fffffff) {  // a division of 32 bits is several times faster
        unsigned row = (unsigned)i / columns, image = row / rows;
        return {(int)image, (int)(row - image * rows), (int)((unsigned)i - row * columns)};
    }
    i64 row = i / columns, image = row / rows;
    return {(int)image, (int)(row - image * rows), (int)(i - row * columns)};
}

__device__ inline bool within(int position, int size) {
    return (unsigned)position < (unsigned)size;
}

enum Activation { NONE, RELU, TANH, SIGMOID };

// Called, not inlined: a thread has dozens of results, and this is long.
template <class A>
__device__ __noinline__ A curve(A v, int activation) {
    return activation == TANH ? tanh(v) : A(1) / (A(1) + exp(-v));
}

template <class A>
__device__ inline A activate(A v, int activation) {
    if (activation == RELU) return v < 0 ? A(0) : v;
    return activation == NONE ? v : curve(v, activation);
}
