// Softmax and cross entropy along the last axis: the threads of a row have it in registers.
//
//      x  [ . . . . | . . . . | . . . . | . . . . ]     a thread loads 16 bytes, then those that
//           t0        t1        t0        t1            lie blockDim.x packs further on: 4 elements
//                                                       in all, or 16 (8 of float64), read once
//      rows of up to 512:      some lanes of a warp, with other rows beside it (rows.cuh)
//      of up to 8192:          whole warps of a block
//      longer:                 a block reads the row twice: once for its peak, once to write
//
// So memory is all that bounds it: x is read once, y written once.  A long row keeps, as it goes
// along, the largest so far and the sum that belongs to it, and scales the sum where the largest
// grows ("online": Milakov and Gimelshein 2018).
#include "softmax.cuh"

constexpr int FEW = 4, MANY = 64 / sizeof(T);  // elements that a thread has in registers

// A row of one or two operands in registers: PACKS packs P of each in each of its threads.
template <class P, int PACKS, int OPERANDS>
struct Held {
    P held[OPERANDS][PACKS];
    int packs;

    __device__ Held(const T* const* from, i64 size) : packs((int)(size / P::size)) {
        #pragma unroll
        for (int i = 0; i < PACKS; i++) {
            int at = i * blockDim.x + threadIdx.x;
            #pragma unroll
            for (int o = 0; o < OPERANDS; o++)
                if (at < packs) held[o][i] = reinterpret_cast<const P*>(from[o])[at];
        }
    }

    // f(k, a, b) for the elements k of this thread; b is a of the second operand, if there is one
    template <class F>
    __device__ void each(F f) const {
        #pragma unroll
        for (int i = 0; i < PACKS; i++) {
            int at = i * blockDim.x + threadIdx.x;
            if (at >= packs) continue;
            #pragma unroll
            for (int j = 0; j < P::size; j++)
                f((i64)at * P::size + j, held[0][i].at[j], held[OPERANDS - 1][i].at[j]);
        }
    }

    // y[k] = f(k, a, b)
    template <class F>
    __device__ void write(T* y, F f) const {
        #pragma unroll
        for (int i = 0; i < PACKS; i++) {
            int at = i * blockDim.x + threadIdx.x;
            if (at >= packs) continue;
            P out;
            #pragma unroll
            for (int j = 0; j < P::size; j++)
                out.at[j] = f((i64)at * P::size + j, held[0][i].at[j], held[OPERANDS - 1][i].at[j]);
            reinterpret_cast<P*>(y)[at] = out;
        }
    }

    // The largest of all first: the exponentials are then taken once.
    __device__ Peak peak(T first, Peak* work) const {
        T top = first, sum = 0, *numbers = reinterpret_cast<T*>(work);
        each([&](i64, T x, T) { top = Larger()(top, x); });
        top = over_row(top, numbers, Larger());
        each([&](i64, T x, T) { sum += below(x, top); });
        return finished({top, over_row(sum, numbers, Add())});
    }
};

// A row that is read anew each time.
template <class P, int OPERANDS>
struct Long {
    const P* from[OPERANDS];
    i64 packs;

    __device__ Long(const T* const* operands, i64 size) : packs(size / P::size) {
        for (int o = 0; o < OPERANDS; o++) from[o] = reinterpret_cast<const P*>(operands[o]);
    }

    template <class F>
    __device__ void each(F f) const {
        #pragma unroll 1
        for (i64 at = threadIdx.x; at < packs; at += blockDim.x) {
            P a = from[0][at], b = OPERANDS == 2 ? from[OPERANDS - 1][at] : a;
            #pragma unroll
            for (int j = 0; j < P::size; j++) f(at * P::size + j, a.at[j], b.at[j]);
        }
    }

    template <class F>
    __device__ void write(T* y, F f) const {
        #pragma unroll 1
        for (i64 at = threadIdx.x; at < packs; at += blockDim.x) {
            P a = from[0][at], b = OPERANDS == 2 ? from[OPERANDS - 1][at] : a, out;
            #pragma unroll
            for (int j = 0; j < P::size; j++) out.at[j] = f(at * P::size + j, a.at[j], b.at[j]);
            reinterpret_cast<P*>(y)[at] = out;
        }
    }

    __device__ Peak peak(T first, Peak* work) const {
        Peak p = {first, 0};
        each([&](i64, T x, T) { p = with(p, x); });
        return finished(over_row(p, work, Join()));
    }
};

// The sum of f(k, a, b) over a row
template <class Row, class F>
__device__ inline T total_of(const Row& row, Peak* work, F f) {
    T sum = 0;
    row.each([&](i64 k, T a, T b) { sum += f(k, a, b); });
    return over_row(sum, reinterpret_cast<T*>(work), Add());
}

// f(row, its index, where it begins, whether it is there) for the rows of this block: N elements of
// a thread in registers, or none of them (0).  One too many is the first, so that no thread leaves.
template <class P, int N, int OPERANDS, class F>
__device__ inline void for_rows(const T* a, const T* b, i64 rows, i64 size, F f) {
    for (i64 i0 = (i64)blockIdx.x * blockDim.y; i0 < rows; i0 += (i64)gridDim.x * blockDim.y) {
        bool exists = i0 + threadIdx.y < rows;
        i64 i = exists ? i0 + threadIdx.y : 0;
        const T* from[2] = {a + i * size, b + i * size};
        if constexpr (N > 0)
            f(Held<P, N / P::size, OPERANDS>(from, size), i, i * size, exists);
        else
            f(Long<P, OPERANDS>(from, size), i, i * size, exists);
    }
}

// By 16 bytes where that goes. y is what will be written.
template <int N, int OPERANDS, class F>
__device__ inline void for_rows(const T* a, const T* b, const T* y, i64 rows, i64 size, F f) {
    if (aligned16(a, b, y) && size % Pack<T>::size == 0)
        for_rows<Pack<T>, N, OPERANDS>(a, b, rows, size, f);
    else
        for_rows<One<T>, N, OPERANDS>(a, b, rows, size, f);
}

template <int N, bool logarithm>
__device__ inline void softmax(T* y, const T* x, i64 rows, i64 size, Peak* work) {
    for_rows<N, 1>(x, x, y, rows, size, [=](const auto& row, i64, i64 at, bool exists) {
        Softmax<logarithm> softmax(row.peak(x[at], work));
        if (exists) row.write(y + at, [=](i64, T v, T) { return softmax(v); });
    });
}

template <int N, bool logarithm>
__device__ inline void softmax_dx(T* dx, const T* g, const T* y, i64 rows, i64 size, Peak* work) {
    typedef Gradient<logarithm> Dx;
    for_rows<N, 2>(g, y, dx, rows, size, [=](const auto& row, i64, i64 at, bool exists) {
        T total = total_of(row, work, [](i64, T a, T b) { return Dx::term(a, b); });
        if (exists) row.write(dx + at, [=](i64, T a, T b) { return Dx::of(a, b, total); });
    });
}

template <int N>
__device__ inline void entropy(T* loss, const T* x, const L* labels, i64 rows, i64 size,
                               Smoothing target, Peak* work) {
    for_rows<N, 1>(x, x, x, rows, size, [=](const auto& row, i64 i, i64 at, bool exists) {
        Peak peak = row.peak(x[at], work);
        T all = 0;
        if (target.s != 0)
            all = total_of(row, work, [=](i64, T v, T) { return v - peak.top; });
        bool right = valid(labels[i], size);
        T label = right ? x[at + (i64)labels[i]] - peak.top : T(nan(""));
        if (exists && threadIdx.x == 0) loss[i] = target.loss(peak, label, all);
    });
}

template <int N>
__device__ inline void entropy_dx(T* dx, const T* g, const T* x, const L* labels, i64 rows,
                                  i64 size, i64 step_g, T share, Smoothing target, Peak* work) {
    for_rows<N, 1>(x, x, dx, rows, size, [=](const auto& row, i64 i, i64 at, bool exists) {
        Softmax<false> softmax(row.peak(x[at], work));
        i64 label = (i64)labels[i];
        T slope = valid(labels[i], size) ? g[i * step_g] * share : T(nan(""));
        if (exists)
            row.write(dx + at, [=](i64 k, T v, T) {
                return slope * target.gradient(softmax(v), k == label);
            });
    });
}

// One block of 512 has to fit, no more: where the compiler aims at more, it spills in float64.
#define SOFTMAX(name, n, logarithm)                                        \
    RESIDENT_KERNEL(512, 1, name)(T* y, const T* x, i64 rows, i64 size) {  \
        __shared__ Peak work[WARP];                                        \
        softmax<n, logarithm>(y, x, rows, size, work);                     \
    }

#define SOFTMAX_DX(name, n, logarithm)                                                  \
    RESIDENT_KERNEL(512, 1, name)(T* dx, const T* g, const T* y, i64 rows, i64 size) {  \
        __shared__ Peak work[WARP];                                                     \
        softmax_dx<n, logarithm>(dx, g, y, rows, size, work);                           \
    }

#define ENTROPY(name, n)                                                           \
    RESIDENT_KERNEL(512, 1, name)(T* loss, const T* x, const L* labels, i64 rows,  \
                              i64 classes, T smoothing) {                          \
        __shared__ Peak work[WARP];                                                \
        entropy<n>(loss, x, labels, rows, classes, {smoothing, classes}, work);    \
    }

// The gradient of a row is g[row * step_g], times `share`.
#define ENTROPY_DX(name, n)                                                                  \
    RESIDENT_KERNEL(512, 1, name)(T* dx, const T* g, const T* x, const L* labels, i64 rows,  \
                              i64 classes, i64 step_g, T share, T smoothing) {               \
        __shared__ Peak work[WARP];                                                          \
        entropy_dx<n>(dx, g, x, labels, rows, classes, step_g, share,                        \
                      {smoothing, classes}, work);                                           \
    }

SOFTMAX(softmax_few, FEW, false)
SOFTMAX(softmax_many, MANY, false)
SOFTMAX(softmax_long, 0, false)
SOFTMAX(log_softmax_few, FEW, true)
SOFTMAX(log_softmax_many, MANY, true)
SOFTMAX(log_softmax_long, 0, true)
SOFTMAX_DX(softmax_dx_few, FEW, false)
SOFTMAX_DX(softmax_dx_many, MANY, false)
SOFTMAX_DX(softmax_dx_long, 0, false)
SOFTMAX_DX(log_softmax_dx_few, FEW, true)
SOFTMAX_DX(log_softmax_dx_many, MANY, true)
SOFTMAX_DX(log_softmax_dx_long, 0, true)
ENTROPY(entropy_few, FEW)
ENTROPY(entropy_many, MANY)
ENTROPY(entropy_long, 0)
ENTROPY_DX(entropy_dx_few, FEW)
ENTROPY_DX(entropy_dx_many, MANY)
ENTROPY_DX(entropy_dx_long, 0)
