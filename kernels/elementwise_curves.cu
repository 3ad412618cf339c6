// Elementwise kernels for floats: exponentials, activations and their gradients.
//
// The drawing is that of elementwise.cu: a thread takes 16 bytes, then those one grid further on.
// Everything is computed in T; -use_fast_math is not set, so `exp` and the like are right to a few
// units in the last place.
#include "elementwise.cuh"

#define GRADIENT(name, expression)                                    \
    KERNEL(name)(T* dx, const T* g, const T* y, i64 n) {              \
        map2(dx, g, y, n, [](T d, T v) -> T { return expression; });  \
    }

#define HALF_ROOT T(0.70710678118654752440)     // 1 / sqrt(2)
#define ROOT_TWO_PI T(0.39894228040143267794)   // 1 / sqrt(2 pi)

BINARY(div, p / q)
BINARY(pow, pow(p, q))
BINARY(prelu, (p > 0 ? p : p * q))

UNARY(exp, exp(v))
UNARY(log, log(v))
UNARY(sqrt, sqrt(v))
UNARY(sin, sin(v))
UNARY(cos, cos(v))
UNARY(tanh, tanh(v))
UNARY(erf, erf(v))
UNARY(sigmoid, T(1) / (T(1) + exp(-v)))
UNARY(softplus, (v != v ? v : (v > 0 ? v : T(0)) + log1p(exp(-fabs(v)))))
UNARY(gelu, T(0.5) * v * (T(1) + erf(v * HALF_ROOT)))

GRADIENT(relu_dx, (v > 0 ? d : T(0)))
GRADIENT(tanh_dx, d * (T(1) - v * v))
GRADIENT(sigmoid_dx, d * v * (T(1) - v))
GRADIENT(gelu_dx, d * (T(0.5) * (T(1) + erf(v * HALF_ROOT)) +
                       v * ROOT_TWO_PI * exp(T(-0.5) * v * v)))

KERNEL(leaky_relu)(T* y, const T* x, i64 n, T slope) {
    map1(y, x, n, [=](T v) -> T { return v > 0 ? v : v * slope; });
}

KERNEL(elu)(T* y, const T* x, i64 n, T alpha) {
    map1(y, x, n, [=](T v) -> T { return v > 0 ? v : alpha * expm1(v); });
}
