// What a reduction is: what it starts with, an element of it, how two meet, and what it writes.
// S is the type of x and T that in which y is computed.
#pragma once
#include "rows.cuh"

// x (a, k, c) -> y (a, chunks, c): k is cut in `chunks` of length `chunk`.  Where that is more than
// one, y is x of the next launch, which reduces the chunks.
struct Reduced {
    i64 a, k, c, chunks, chunk;
};

// `place` is where an element lies in x and k its index along the axis that is reduced.
struct Sum {
    typedef T Value;
    T* y;
    const S* x;
    T divisor;  // for a mean
    __device__ T first(i64, i64) const { return 0; }
    __device__ T at(i64 place, i64) const { return x[place]; }
    __device__ T operator()(T p, T q) const { return p + q; }
    __device__ void write(i64 i, T total) const { y[i] = total / divisor; }
};

// The first element is one to start with: it does not matter how often it is compared.
template <class F>
struct Extreme {
    typedef T Value;
    T* y;
    const S* x;
    __device__ T first(i64 place, i64) const { return x[place]; }
    __device__ T at(i64 place, i64) const { return x[place]; }
    __device__ T operator()(T p, T q) const { return F()(p, q); }
    __device__ void write(i64 i, T top) const { y[i] = top; }
};

struct Candidate {
    S value;
    i64 index;
};

__device__ inline Candidate of_lane(Candidate c, int step) {
    return {of_lane(c.value, step), of_lane(c.index, step)};
}

// The largest, NaN being larger than all; of equal ones the first.
struct ArgMax {
    typedef Candidate Value;
    i64* y;
    S* top;            // the values as well, for the next launch; or null
    const S* x;
    const i64* index;  // of elements that are chosen already; null: k itself
    __device__ Candidate first(i64 place, i64 k) const { return at(place, k); }
    __device__ Candidate at(i64 place, i64 k) const {
        return {x[place], index ? index[place] : k};
    }
    __device__ Candidate operator()(Candidate p, Candidate q) const {
        bool nan_p = p.value != p.value, nan_q = q.value != q.value;
        bool equal = p.value == q.value || (nan_p && nan_q);
        bool take_p = equal ? p.index < q.index : nan_p || (!nan_q && p.value > q.value);
        return take_p ? p : q;
    }
    __device__ void write(i64 i, Candidate best) const {
        y[i] = best.index;
        if (top) top[i] = best.value;
    }
};
