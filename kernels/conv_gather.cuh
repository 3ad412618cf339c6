// What the tiled convolutions share with those on tensor cores: which pixel of the input, and which tap
// of the filters, belongs to a result.  y and dx are the same here: both gather.
//
//    forward    result (p, q) of y    reads  x at (p stride + r dilation - top, ...)   all r, s
//    backward   pixel (row, column)   reads  g at ((row + top - r dilation) / stride, ...)
//               of dx                        for those r and s where this is a whole number
//
// In a phase, the pixels of dx that lie `stride` apart, these r are every so many-th one.
#pragma once
#include "conv.cuh"

// Along one axis: result i goes to pixel `to + i to_step` of the output; through its tap t it reads
// pixel `from + i stride + t step` of the input, times tap `tap + t tap_step` of the filter.
struct Axis {
    int results, to, to_step, from, stride, step, taps, tap, tap_step;
};

__device__ inline Axis forward(int outputs, int window, int stride, int dilation, int before) {
    return {outputs, 0, 1, -before, stride, dilation, window, 0, 1};
}

// p = (row + before - r dilation) / stride, for the rows phase + i stride and the r that divide
__device__ inline Axis backward(
    int phase, int size, int window, int stride, int dilation, int before) {
    int tap = 0, tap_step = 1;
    while (tap < window && (phase + before - tap * dilation) % stride) tap++;
    while (tap_step * dilation % stride) tap_step++;
    int taps = tap < window ? (window - tap + tap_step - 1) / tap_step : 0;
    int results = phase < size ? (size - phase + stride - 1) / stride : 0;
    int from = (phase + before - tap * dilation) / stride;
    return {results, phase, stride, from, 1, -(tap_step * dilation / stride), taps, tap, tap_step};
}

// A place in the depth: channel c of tap (r, s).
struct Tap {
    int r, s, c;

    __device__ void move(int by, int taps, int channels) {
        c += by;
        while (c >= channels) {
            c -= channels;
            if (++s == taps) s = 0, r++;
        }
    }
};

// A pixel of g that a thread is at.
struct Walker {
    int image, row, column;

    __device__ void move(int by, Conv conv) {
        column += by;
        while (column >= conv.Q) {
            column -= conv.Q;
            if (++row == conv.P) row = 0, image++;
        }
    }
};

// An array of pixels, and which of its channels this block's group has.
struct Pixels {
    int rows, columns, channels, first, count;
};

// Which tile a block has: channels of one group fastest, then pixels, groups, phases.
struct Block {
    i64 pixel;
    int channel, group, phase;
};

__device__ inline Block block_at(i64 block, int channels, i64 pixels, int groups) {
    int across = (channels + SHORT - 1) / SHORT;
    i64 down = (pixels + LONG - 1) / LONG, rest = block / across;
    return {rest % down * LONG, (int)(block % across) * SHORT, (int)(rest / down % groups),
            (int)(rest / down / groups)};
}
