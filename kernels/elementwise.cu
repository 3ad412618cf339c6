// Elementwise kernels for any type of number.
//
//      a  [ . . . . | . . . . | . . . . | . . ]      each thread takes 16 bytes (a pack), then those
//      b  [ . . . . | . . . . | . . . . | . . ]      that lie one grid further on; what is left over
//            f         f         f       f f         at the end goes one by one
//      y  [ . . . . | . . . . | . . . . | . . ]
//
// Where operands are broadcast, `<name>_walk` asks a Walk where each element lies.
#include "elementwise.cuh"

#define COMPARISON(name, expression)                                          \
    KERNEL(name##_walk)(bool* y, const T* a, const T* b, i64 n, Walk walk) {  \
        GRID_LOOP(i, n) {                                                     \
            i64 at[2];                                                        \
            place<2>(walk, i, at);                                            \
            T p = a[at[0]], q = b[at[1]];                                     \
            y[i] = expression;                                                \
        }                                                                     \
    }

BINARY(add, p + q)
BINARY(sub, p - q)
BINARY(mul, p * q)
BINARY(maximum, (p > q || p != p ? p : q))  // NaN wins, as NumPy has it
BINARY(minimum, (p < q || p != p ? p : q))
BINARY(share, (p > q ? T(1) : p == q ? T(0.5) : T(0)))  // of the gradient of a maximum, for a

// p^q of whole numbers, by squaring; it wraps as products do.  Of a negative q only what is whole
// is left of the fraction.
__device__ inline T whole_power(T p, T q) {
    if (q < 0) return p == 1 ? T(1) : p == T(-1) ? T((i64)q % 2 ? -1 : 1) : T(0);
    T power = 1;
    for (u64 left = (u64)q; left; left /= 2) {
        if (left % 2) power *= p;
        p *= p;
    }
    return power;
}
BINARY(power, whole_power(p, q))

COMPARISON(less, p < q)
COMPARISON(less_equal, p <= q)
COMPARISON(greater, p > q)
COMPARISON(greater_equal, p >= q)
COMPARISON(equal, p == q)
COMPARISON(not_equal, p != q)

UNARY(neg, -v)
UNARY(sign, (v > 0 ? T(1) : v < 0 ? T(-1) : v == 0 ? T(0) : v))
UNARY(abs, (v < 0 ? T(-v) : v == 0 ? T(0) : v))
UNARY(relu, (v < 0 ? T(0) : v))

KERNEL(clip)(T* y, const T* x, i64 n, T low, T high) {
    map1(y, x, n, [=](T v) -> T { return v < low ? low : v > high ? high : v; });
}

KERNEL(where_walk)(T* y, const bool* c, const T* a, const T* b, i64 n, Walk walk) {
    GRID_LOOP(i, n) {
        i64 at[3];
        place<3>(walk, i, at);
        y[i] = c[at[0]] ? a[at[1]] : b[at[2]];
    }
}

KERNEL(fill_)(T* x, i64 n, T value) {
    map1(x, x, n, [=](T) -> T { return value; });
}

KERNEL(assign_)(T* x, const T* y, i64 n) {
    map1(x, y, n, [](T v) -> T { return v; });
}
