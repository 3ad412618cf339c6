// What the kernels of softmax and cross entropy share: the formulas, and how parts of a row meet.
#pragma once
#include "rows.cuh"

// All that a softmax has to know of a row, or of a part of it: its largest x, and the sum of
// e^(x - top).  No exponential of it overflows.
struct Peak {
    T top, sum;
};

// e^(x - top), 1 for an infinite x that is the top: it may be masked out by a larger one later
__device__ inline T below(T x, T top) { return x == top ? T(1) : exp(x - top); }

struct Join {
    __device__ Peak operator()(Peak p, Peak q) const {
        T top = Larger()(p.top, q.top);
        return {top, p.sum * below(p.top, top) + q.sum * below(q.top, top)};
    }
};

__device__ inline Peak of_lane(Peak p, int step) {
    return {of_lane(p.top, step), of_lane(p.sum, step)};
}

// One element more
__device__ inline Peak with(Peak p, T x) {
    T top = Larger()(p.top, x);
    return {top, p.sum * below(p.top, top) + below(x, top)};
}

// Where the largest is infinite, there is no softmax: NaN, as from inf - inf
__device__ inline Peak finished(Peak p) { return {p.top, p.sum + (p.top - p.top)}; }

// y of one x
template <bool logarithm>
struct Softmax {
    T top, scale;
    __device__ Softmax(Peak p) : top(p.top), scale(logarithm ? log(p.sum) : T(1) / p.sum) {}
    __device__ T operator()(T x) const {
        return logarithm ? x - top - scale : exp(x - top) * scale;
    }
};

// dx = y (g - sum g y), of the logarithm dx = g - e^y sum g: what is summed, and dx of one element
template <bool logarithm>
struct Gradient {
    __device__ static T term(T g, T y) { return logarithm ? g : g * y; }
    __device__ static T of(T g, T y, T total) {
        return logarithm ? g - exp(y) * total : y * (g - total);
    }
};

// The loss of a row with label t: -(1 - s) ln p_t - s / classes sum ln p; ln p = x - top - ln sum
struct Smoothing {
    T s;
    i64 classes;
    // label: x_t - top; all: the sum of x - top
    __device__ T loss(Peak p, T label, T all) const {
        T found = log(p.sum) + (s - T(1)) * label;
        return s == 0 ? found : found - s / T(classes) * all;
    }
    // of the probability p of a class
    __device__ T gradient(T p, bool label) const {
        return p - (label ? T(1) - s : T(0)) - s / T(classes);
    }
};

// A label is one of the classes, or the row is NaN: nothing outside of x is read.  A negative one
// is among the largest of all when it is read without its sign.
__device__ inline bool valid(L label, i64 classes) { return (u64)label < (u64)classes; }
