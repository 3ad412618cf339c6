// Local response normalisation, over windows of neighbouring channels.
//
//      x  [ . . . . . . . . ]    channels of a pixel    s_c = k + alpha/size (x_a^2 + ... + x_b^2)
//             |_______|          the window of c        y_c = x_c s_c^-beta
//             a   c   b
//
// A thread has an element; what its neighbours read as well comes from the cache.
//
// The gradient takes two launches, since all channels of a window have to be known:
//      1.  dx_c = g_c s_c^-beta,   spread_c = g_c x_c s_c^(-beta - 1)
//      2.  dx_c -= 2 alpha beta / size x_c (the sum of spread_j over the j whose windows hold c)
#include "common.cuh"

// The sum of f(j) over the channels j of a pixel from c - before to c + after, for element i.
template <class F>
__device__ inline T over_window(i64 i, i64 channels, i64 before, i64 after, F f) {
    i64 c = i, pixel = divide(c, channels);
    i64 first = c > before ? c - before : 0, last = c + after < channels ? c + after : channels - 1;
    T sum = 0;
    for (i64 j = pixel * channels + first; j <= pixel * channels + last; j++) sum += f(j);
    return sum;
}

__device__ inline T scale_of(const T* x, i64 i, i64 channels, i64 size, T rate, T k) {
    T squares = over_window(i, channels, size / 2, (size - 1) / 2,
                            [=](i64 j) { return x[j] * x[j]; });
    return squares * rate + k;
}

// rate: alpha / size
KERNEL(local_response_norm)(T* y, const T* x, i64 n, i64 channels, i64 size, T rate, T beta, T k) {
    GRID_LOOP(i, n) y[i] = x[i] * pow(scale_of(x, i, channels, size, rate, k), -beta);
}

KERNEL(local_response_norm_parts)(T* dx, T* spread, const T* g, const T* x, i64 n, i64 channels,
                                  i64 size, T rate, T beta, T k) {
    GRID_LOOP(i, n) {
        T scale = scale_of(x, i, channels, size, rate, k), own = g[i] * pow(scale, -beta);
        dx[i] = own;
        spread[i] = own * x[i] / scale;
    }
}

// share: 2 alpha beta / size
KERNEL(local_response_norm_dx)(T* dx, const T* spread, const T* x, i64 n, i64 channels, i64 size,
                               T share) {
    GRID_LOOP(i, n)
        dx[i] -= share * x[i] * over_window(i, channels, (size - 1) / 2, size / 2,
                                            [=](i64 j) { return spread[j]; });
}
