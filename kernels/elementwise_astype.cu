// y = x in another type: S is the type of x, T that of y.  One thread, one element, then the next
// one grid further on.
#include "common.cuh"

KERNEL(astype)(T* y, const S* x, i64 n) {
    GRID_LOOP(i, n) y[i] = static_cast<T>(x[i]);
}
