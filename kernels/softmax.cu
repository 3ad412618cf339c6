// Softmax and cross entropy, the first rung: a thread has a row.
//
//      axis 1 of x (a, size, c):      c ->                the rows of neighbouring threads lie side
//                              size   t0 t1 t2 t3         by side: a warp reads what lies together;
//                               |     t0 t1 t2 t3         along the last axis (c = 1) each thread
//                               v     t0 t1 t2 t3         reads far from the next
//
// Three times along the row: for the largest, for the sum of e^(x - largest), and to write.
// softmax_rows.cu and softmax_columns.cu are faster.
#include "softmax.cuh"

__device__ inline i64 begin_of(i64 row, i64 size, i64 step) {
    return row / step * size * step + row % step;
}

// The peak of size elements x, which lie `step` apart
__device__ inline Peak peak_of(const T* x, i64 size, i64 step) {
    T top = x[0], sum = 0;
    for (i64 k = 1; k < size; k++) top = Larger()(top, x[k * step]);
    for (i64 k = 0; k < size; k++) sum += below(x[k * step], top);
    return finished({top, sum});
}

#define SOFTMAX(name, logarithm)                                                            \
    KERNEL(name##_naive)(T* y, const T* x, i64 rows, i64 size, i64 step) {                  \
        GRID_LOOP(row, rows) {                                                              \
            i64 at = begin_of(row, size, step);                                             \
            Softmax<logarithm> softmax(peak_of(x + at, size, step));                        \
            for (i64 k = 0; k < size; k++) y[at + k * step] = softmax(x[at + k * step]);    \
        }                                                                                   \
    }                                                                                       \
    KERNEL(name##_dx_naive)(T* dx, const T* g, const T* y, i64 rows, i64 size, i64 step) {  \
        typedef Gradient<logarithm> Dx;                                                     \
        GRID_LOOP(row, rows) {                                                              \
            i64 at = begin_of(row, size, step), end = at + size * step;                     \
            T total = 0;                                                                    \
            for (i64 i = at; i < end; i += step) total += Dx::term(g[i], y[i]);             \
            for (i64 i = at; i < end; i += step) dx[i] = Dx::of(g[i], y[i], total);         \
        }                                                                                   \
    }

SOFTMAX(softmax, false)
SOFTMAX(log_softmax, true)

KERNEL(entropy_naive)(T* loss, const T* x, const L* labels, i64 rows, i64 classes, T smoothing) {
    GRID_LOOP(row, rows) {
        const T* from = x + row * classes;
        Peak peak = peak_of(from, classes, 1);
        T all = 0;
        for (i64 k = 0; k < classes; k++) all += from[k] - peak.top;
        bool right = valid(labels[row], classes);
        T label = right ? from[labels[row]] - peak.top : T(nan(""));
        loss[row] = Smoothing{smoothing, classes}.loss(peak, label, all);
    }
}

// The gradient of a row is g[row * step_g], times `share`.
KERNEL(entropy_dx_naive)(T* dx, const T* g, const T* x, const L* labels, i64 rows, i64 classes,
                         i64 step_g, T share, T smoothing) {
    GRID_LOOP(row, rows) {
        i64 at = row * classes;
        Softmax<false> softmax(peak_of(x + at, classes, 1));
        Smoothing target = {smoothing, classes};
        T slope = valid(labels[row], classes) ? g[row * step_g] * share : T(nan(""));
        for (i64 k = 0; k < classes; k++)
            dx[at + k] = slope * target.gradient(softmax(x[at + k]), k == (i64)labels[row]);
    }
}
