// Batch normalisation: y = act(gamma (x - mean) / sqrt(variance + eps) + beta + residual).
//
//      x (rows, channels)      1. two sums down every channel, in pieces: norm.cuh
//        [ . . . . ]           2. of the pieces, the numbers of a channel: mean, invstd, ...
//        [ . . . . ]           3. a thread has one channel, reads its numbers once, and goes down
//        [ . . . . ]              the rows: a warp's threads lie side by side in memory
//
// The variance is summed about the first value of the channel, not about the mean, which is not
// known yet:  sum (x - mean)^2 = sum d^2 - (sum d)^2 / n  with  d = x - x_0.  As x_0 is one of the
// values, (x_0 - mean)^2 is at most n times the variance: what cancels costs a relative n 2^-53 at
// most.
#include "norm.cuh"

__device__ inline T activated(T v, int activation) {  // numbered as in norm.py
    switch (activation) {
        case 1: return v < 0 ? T(0) : v;
        case 2: return tanh(v);
        case 3: return T(1) / (T(1) + exp(-v));
        default: return v;
    }
}

// What a thread knows about its channel; gamma and beta may be absent.
struct Channel {
    T mean, invstd, scale, shift;
    __device__ Channel(T mean, T invstd, const T* gamma, const T* beta, i64 c)
        : mean(mean), invstd(invstd), scale(gamma ? invstd * gamma[c] : invstd),
          shift(beta ? beta[c] : T(0)) {}
    __device__ T hat(T x) const { return (x - mean) * invstd; }
    __device__ T normal(T x) const { return (x - mean) * scale + shift; }
};

#define AT_ONCE 4  // elements that a thread has under way

// y[i] = end(f(i)) for every element i of the thread's column.  Loads come before stores, over
// which a compiler may not move them.
template <class F, class G>
__device__ inline void map_column(T* y, i64 rows, i64 columns, F f, G end) {
    i64 size = rows * columns, step = (i64)gridDim.y * blockDim.y * columns;
    i64 i = ((i64)blockIdx.y * blockDim.y + threadIdx.y) * columns + column_of_thread();
    for (; i < size; i += AT_ONCE * step) {
        T held[AT_ONCE];
        for (int k = 0; k < AT_ONCE; k++)
            if (i + k * step < size) held[k] = f(i + k * step);
        for (int k = 0; k < AT_ONCE; k++)
            if (i + k * step < size) y[i + k * step] = end(held[k]);
    }
}

// --- training ------------------------------------------------------------------------------------

__device__ inline double pivot_of(const T* x, i64 column) {  // x_0, or 0 where it is no number
    double first = double(x[column]);
    return first - first == 0 ? first : 0;
}

LIMITED_KERNEL(256, batch_norm_sums)(Two* pieces, const T* x, i64 rows, i64 columns) {
    __shared__ Two work[256];
    Two sum = down_columns(rows, columns, work, [=](Two& sum, i64 row, i64 column) {
        double d = double(x[row * columns + column]) - pivot_of(x, column);
        sum.first += d;
        sum.second += d * d;
    });
    write_piece(pieces, columns, sum);
}

LIMITED_KERNEL(1024, batch_norm_statistics)(T* mean, T* invstd, T* running_mean, T* running_var,
                                            const Two* pieces, i64 count, const T* x, i64 rows,
                                            i64 columns, double momentum, double eps) {
    __shared__ Two work[1024];
    Two sum = over_pieces(pieces, count, columns, work);
    i64 c = column_of_thread();
    if (threadIdx.y == 0 && c < columns) {
        double offset = sum.first / double(rows), middle = pivot_of(x, c) + offset;
        double squares = sum.second - sum.first * offset;  // of the distances from the mean
        if (squares < 0) squares = 0;
        mean[c] = T(middle);
        invstd[c] = T(1 / sqrt(squares / double(rows) + eps));
        double keep = 1 - momentum, unbiased = squares / double(rows - 1);
        if (running_mean) running_mean[c] = T(keep * running_mean[c] + momentum * middle);
        if (running_var) running_var[c] = T(keep * running_var[c] + momentum * unbiased);
    }
}

__device__ inline void apply(T* y, const T* x, const T* residual, const Channel& channel, i64 rows,
                             i64 columns, int activation) {
    auto end = [=](T v) { return activated(v, activation); };
    if (residual)
        map_column(y, rows, columns,
                   [=](i64 i) { return channel.normal(x[i]) + residual[i]; }, end);
    else
        map_column(y, rows, columns, [=](i64 i) { return channel.normal(x[i]); }, end);
}

LIMITED_KERNEL(256, batch_norm_train)(T* y, const T* x, const T* gamma, const T* beta,
                                      const T* residual, const T* mean, const T* invstd, i64 rows,
                                      i64 columns, int activation) {
    i64 c = column_of_thread();
    if (c < columns)
        apply(y, x, residual, Channel(mean[c], invstd[c], gamma, beta, c), rows, columns,
              activation);
}

// --- the gradient --------------------------------------------------------------------------------

// The gradient that reaches an element through the relu, where there is one.
__device__ inline T passed(T g, T x, const Channel& channel, bool relu) {
    return relu && !(channel.normal(x) > 0) ? T(0) : g;
}

LIMITED_KERNEL(256, batch_norm_dx_sums)(Two* pieces, const T* g, const T* x, const T* gamma,
                                        const T* mean, const T* invstd, const T* beta, i64 rows,
                                        i64 columns, bool relu) {
    __shared__ Two work[256];
    i64 c = column_of_thread() < columns ? column_of_thread() : 0;
    Channel channel(mean[c], invstd[c], gamma, beta, c);
    Two sum = down_columns(rows, columns, work, [=](Two& sum, i64 row, i64 column) {
        i64 i = row * columns + column;
        T reached = passed(g[i], x[i], channel, relu);
        sum.first += double(reached) * double(channel.hat(x[i]));
        sum.second += double(reached);
    });
    write_piece(pieces, columns, sum);
}

LIMITED_KERNEL(256, batch_norm_dx)(T* dx, const T* g, const T* x, const T* gamma, const T* mean,
                                   const T* invstd, const T* beta, const T* dgamma, const T* dbeta,
                                   i64 rows, i64 columns, bool relu) {
    i64 c = column_of_thread();
    if (c < columns) {
        Channel channel(mean[c], invstd[c], gamma, beta, c);
        T along = dgamma[c] / T(rows), all = dbeta[c] / T(rows);
        map_column(dx, rows, columns, [=](i64 i) {
            T reached = passed(g[i], x[i], channel, relu);
            return channel.scale * (reached - all - channel.hat(x[i]) * along);
        }, [](T v) { return v; });
    }
}

// --- inference -----------------------------------------------------------------------------------

LIMITED_KERNEL(256, batch_norm_infer)(T* y, const T* x, const T* gamma, const T* beta,
                                      const T* residual, const T* running_mean,
                                      const T* running_var, i64 rows, i64 columns, double eps,
                                      int activation) {
    i64 c = column_of_thread();
    if (c < columns) {
        T invstd = T(1) / sqrt(running_var[c] + T(eps));
        Channel channel(running_mean[c], invstd, gamma, beta, c);
        apply(y, x, residual, channel, rows, columns, activation);
    }
}
