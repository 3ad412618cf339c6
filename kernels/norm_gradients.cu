// dgamma and dbeta of a batch norm or a layer norm: the second stage of norm.cuh.
#include "norm.cuh"

LIMITED_KERNEL(1024, norm_gradients)(T* dgamma, T* dbeta, const Two* pieces, i64 count,
                                     i64 columns) {
    __shared__ Two work[1024];
    Two sum = over_pieces(pieces, count, columns, work);
    i64 c = column_of_thread();
    if (threadIdx.y == 0 && c < columns) {
        dgamma[c] = T(sum.first);
        dbeta[c] = T(sum.second);
    }
}
