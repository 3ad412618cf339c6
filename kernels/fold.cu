// Batch norm by running statistics, as a part of the filters and the bias before it.
//
//      w (K, inner)          s_k = gamma_k / sqrt(var_k + eps)      shift
//        [ . . . . . . ]     y_k = w_k s_k                          (b_k - mean_k) s_k + beta_k
//        [ . . . . . . ]
//
// A block has a row: all its threads make s_k, in float64, and the first one makes the shift.
#include "common.cuh"

KERNEL(fold_batch_norm)(T* y, T* shift, const T* w, const T* b, const T* gamma, const T* beta,
                        const T* mean, const T* var, i64 rows, i64 inner, double eps) {
    for (i64 k = blockIdx.x; k < rows; k += gridDim.x) {
        double scale = (gamma ? double(gamma[k]) : 1.0) / sqrt(double(var[k]) + eps);
        for (i64 i = threadIdx.x; i < inner; i += blockDim.x)
            y[k * inner + i] = T(double(w[k * inner + i]) * scale);
        if (threadIdx.x == 0) {
            double moved = ((b ? double(b[k]) : 0.0) - double(mean[k])) * scale;
            shift[k] = T(moved + (beta ? double(beta[k]) : 0.0));
        }
    }
}
