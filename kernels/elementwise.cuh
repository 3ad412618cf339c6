// How an elementwise kernel is made of an expression: of v, or of p and q.
#pragma once
#include "common.cuh"

#define UNARY(name, expression)                              \
    KERNEL(name)(T* y, const T* x, i64 n) {                  \
        map1(y, x, n, [](T v) -> T { return expression; });  \
    }

// flat, and `name_walk` for operands that are broadcast
#define BINARY(name, expression)                                           \
    KERNEL(name)(T* y, const T* a, const T* b, i64 n) {                    \
        map2(y, a, b, n, [](T p, T q) -> T { return expression; });        \
    }                                                                      \
    KERNEL(name##_walk)(T* y, const T* a, const T* b, i64 n, Walk walk) {  \
        GRID_LOOP(i, n) {                                                  \
            i64 at[2];                                                     \
            place<2>(walk, i, at);                                         \
            T p = a[at[0]], q = b[at[1]];                                  \
            y[i] = expression;                                             \
        }                                                                  \
    }
