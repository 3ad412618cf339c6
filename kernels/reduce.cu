// Reductions, the first rung, over any axes.
//
//      x  . . . . .        y        one thread has one element of y: it asks a Walk where the
//         . # # # .  --->  # #      elements lie that belong to it, and takes one after the other
//         . # # # .
//
// Threads far apart in x read far apart from each other, and where y is small most of the GPU has
// nothing to do: reduce_blocks.cu is for that.
#include "reduce.cuh"

// kept: where element i of y begins in x; along: where element j of those that it takes lies
template <class R>
__device__ inline void naive(const R& r, i64 n, i64 count, const Walk& kept, const Walk& along) {
    GRID_LOOP(i, n) {
        i64 begin[1], more[1];
        place<1>(kept, i, begin);
        typename R::Value total = r.first(begin[0], 0);
        for (i64 j = 0; j < count; j++) {
            place<1>(along, j, more);
            total = r(total, r.at(begin[0] + more[0], j));
        }
        r.write(i, total);
    }
}

KERNEL(sum_naive)(T* y, const S* x, i64 n, i64 count, Walk kept, Walk along, T divisor) {
    naive(Sum{y, x, divisor}, n, count, kept, along);
}
KERNEL(max_naive)(T* y, const S* x, i64 n, i64 count, Walk kept, Walk along) {
    naive(Extreme<Larger>{y, x}, n, count, kept, along);
}
KERNEL(min_naive)(T* y, const S* x, i64 n, i64 count, Walk kept, Walk along) {
    naive(Extreme<Smaller>{y, x}, n, count, kept, along);
}
KERNEL(argmax_naive)(i64* y, const S* x, i64 n, i64 count, Walk kept, Walk along) {
    naive(ArgMax{y, 0, x, 0}, n, count, kept, along);
}
