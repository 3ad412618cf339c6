// Softmax along any other axis: x (a, size, c), c > 1.
//
//               c ->                       threads lie along c as neighbours in memory do;
//      size     t t t t | t t t t          blockDim.y rows of threads (t, u) go along the axis and
//       |       u u u u | u u u u          meet in shared memory
//       v       t t t t | t t t t
//               block 0   block 1          read twice: for the peak and to write (the second
//                                          time from the cache, while it has room)
#include "softmax.cuh"

// The columns of this block: f(where one begins, whether it exists).
template <class F>
__device__ inline void for_columns(i64 a, i64 size, i64 c, F f) {
    i64 across = (c + blockDim.x - 1) / blockDim.x;
    for (i64 block = blockIdx.x; block < a * across; block += gridDim.x) {
        i64 column = block % across * blockDim.x + threadIdx.x;
        bool exists = column < c;
        f(block / across * size * c + (exists ? column : 0), exists);
    }
}

// What the threads of a column have, combined, in each of them.  `work`: an element a thread.
template <class A, class F>
__device__ inline A over_column(A value, A* work, F f) {
    __syncthreads();  // `work` may still be read by an earlier call
    A* mine = work + threadIdx.y * blockDim.x + threadIdx.x;
    *mine = value;
    for (int step = blockDim.y / 2; step; step /= 2) {
        __syncthreads();
        if (threadIdx.y < step) *mine = f(*mine, mine[step * blockDim.x]);
    }
    __syncthreads();
    return work[threadIdx.x];
}

template <bool logarithm>
__device__ inline void softmax(T* y, const T* x, i64 a, i64 size, i64 c, Peak* work) {
    for_columns(a, size, c, [=](i64 at, bool exists) {
        Peak peak = {x[at], 0};
        for (i64 k = threadIdx.y; k < size; k += blockDim.y) peak = with(peak, x[at + k * c]);
        Softmax<logarithm> softmax(finished(over_column(peak, work, Join())));
        for (i64 k = threadIdx.y; exists && k < size; k += blockDim.y)
            y[at + k * c] = softmax(x[at + k * c]);
    });
}

template <bool logarithm>
__device__ inline void softmax_dx(T* dx, const T* g, const T* y, i64 a, i64 size, i64 c, T* work) {
    typedef Gradient<logarithm> Dx;
    for_columns(a, size, c, [=](i64 at, bool exists) {
        T total = 0;
        for (i64 k = threadIdx.y; k < size; k += blockDim.y)
            total += Dx::term(g[at + k * c], y[at + k * c]);
        total = over_column(total, work, Add());
        for (i64 k = threadIdx.y; exists && k < size; k += blockDim.y)
            dx[at + k * c] = Dx::of(g[at + k * c], y[at + k * c], total);
    });
}

#define SOFTMAX(name, logarithm)                                                            \
    LIMITED_KERNEL(256, name##_columns)(T* y, const T* x, i64 a, i64 size, i64 c) {         \
        __shared__ Peak work[256];                                                          \
        softmax<logarithm>(y, x, a, size, c, work);                                         \
    }                                                                                       \
    LIMITED_KERNEL(256, name##_dx_columns)(T* dx, const T* g, const T* y, i64 a, i64 size,  \
                                           i64 c) {                                         \
        __shared__ T work[256];                                                             \
        softmax_dx<logarithm>(dx, g, y, a, size, c, work);                                  \
    }

SOFTMAX(softmax, false)
SOFTMAX(log_softmax, true)
