// Layer normalisation: y = gamma (x - mean) / sqrt(variance + eps) + beta, a row at a time.
//
//      x (rows, size)      up to 1024 elements: a warp has a row      more: a block has it
//        [ . . . . . ]       [ 0 1 2 ... 31 0 1 2 ... ]                 [ 0 1 2 ... 255 0 1 ... ]
//        [ . . . . . ]         lanes                                      threads
//
// Its threads read it three times, the second and third time from the cache: for the mean, for the
// distances from the mean, and to write.  `share` is 1 / size.  dgamma and dbeta are sums down
// columns: norm.cuh.
#include "norm.cuh"

// The threads that have a row together; A is what they sum in.
struct ByWarp {
    using A = T;
    int first = threadIdx.x, step = WARP;
    __device__ T sum(T value) const { return over_warp(value, Add()); }
};

struct ByBlock {
    using A = double;
    double* work;
    int first = threadIdx.x + WARP * threadIdx.y, step = WARP * blockDim.y;
    __device__ ByBlock(double* work) : work(work) {}
    __device__ double sum(double value) const { return over_block(value, work, Add()); }
};

template <class By>
__device__ inline void normalise(By by, T* y, T* mean, T* invstd, const T* x, const T* gamma,
                                 const T* beta, i64 row, i64 size, double share, double eps) {
    using A = typename By::A;
    x += row * size;
    y += row * size;
    A total = 0, squares = 0;
    for (i64 i = by.first; i < size; i += by.step) total += x[i];
    T middle = T(by.sum(total) * A(share));
    for (i64 i = by.first; i < size; i += by.step) {
        T d = x[i] - middle;
        squares += A(d) * A(d);
    }
    T scale = T(rsqrt(double(by.sum(squares) * A(share)) + eps));
#pragma unroll 2  // four turns at once would not fit into the registers
    for (i64 i = by.first; i < size; i += by.step) {
        T v = (x[i] - middle) * scale;
        if (gamma) v *= gamma[i];
        if (beta) v += beta[i];
        y[i] = v;
    }
    if (by.first == 0) {
        mean[row] = middle;
        invstd[row] = scale;
    }
}

LIMITED_KERNEL(256, layer_norm_warps)(T* y, T* mean, T* invstd, const T* x, const T* gamma,
                                      const T* beta, i64 rows, i64 size, double share,
                                      double eps) {
    i64 first = (i64)blockIdx.x * blockDim.y + threadIdx.y;
    for (i64 row = first; row < rows; row += (i64)gridDim.x * blockDim.y)
        normalise(ByWarp(), y, mean, invstd, x, gamma, beta, row, size, share, eps);
}

LIMITED_KERNEL(256, layer_norm_blocks)(T* y, T* mean, T* invstd, const T* x, const T* gamma,
                                       const T* beta, i64 rows, i64 size, double share,
                                       double eps) {
    __shared__ double work[32];
    for (i64 row = blockIdx.x; row < rows; row += gridDim.x)
        normalise(ByBlock(work), y, mean, invstd, x, gamma, beta, row, size, share, eps);
}

// --- the gradient --------------------------------------------------------------------------------

template <class By>
__device__ inline void gradient(By by, T* dx, const T* g, const T* x, const T* gamma, const T* mean,
                                const T* invstd, i64 row, i64 size, double share) {
    using A = typename By::A;
    T middle = mean[row], scale = invstd[row];
    dx += row * size;
    g += row * size;
    x += row * size;
    A along = 0, all = 0;
    for (i64 i = by.first; i < size; i += by.step) {
        T scaled = gamma ? g[i] * gamma[i] : g[i], hat = (x[i] - middle) * scale;
        along += A(scaled) * A(hat);
        all += A(scaled);
    }
    T mean_along = T(by.sum(along) * A(share)), mean_all = T(by.sum(all) * A(share));
#pragma unroll 2
    for (i64 i = by.first; i < size; i += by.step) {
        T scaled = gamma ? g[i] * gamma[i] : g[i], hat = (x[i] - middle) * scale;
        dx[i] = scale * (scaled - mean_all - hat * mean_along);
    }
}

LIMITED_KERNEL(256, layer_norm_dx_warps)(T* dx, const T* g, const T* x, const T* gamma,
                                         const T* mean, const T* invstd, i64 rows, i64 size,
                                         double share) {
    i64 first = (i64)blockIdx.x * blockDim.y + threadIdx.y;
    for (i64 row = first; row < rows; row += (i64)gridDim.x * blockDim.y)
        gradient(ByWarp(), dx, g, x, gamma, mean, invstd, row, size, share);
}

LIMITED_KERNEL(256, layer_norm_dx_blocks)(T* dx, const T* g, const T* x, const T* gamma,
                                          const T* mean, const T* invstd, i64 rows, i64 size,
                                          double share) {
    __shared__ double work[32];
    for (i64 row = blockIdx.x; row < rows; row += gridDim.x)
        gradient(ByBlock(work), dx, g, x, gamma, mean, invstd, row, size, share);
}

LIMITED_KERNEL(256, layer_norm_sums)(Two* pieces, const T* g, const T* x, const T* mean,
                                     const T* invstd, i64 rows, i64 columns) {
    __shared__ Two work[256];
    Two sum = down_columns(rows, columns, work, [=](Two& sum, i64 row, i64 column) {
        T reached = g[row * columns + column];
        T hat = (x[row * columns + column] - mean[row]) * invstd[row];
        sum.first += double(reached) * double(hat);
        sum.second += double(reached);
    });
    write_piece(pieces, columns, sum);
}
