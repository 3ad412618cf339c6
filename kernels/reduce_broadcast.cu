// y = x repeated, 16 bytes of y at a time.
//
//      x  a b c d      y  a b c d      a thread has a pack of y, where the last axis is a multiple
//                         a b c d      of one: its elements lie together in x as well, or are one
//      x  e            y  e e e e      and the same (e), and one Walk says where
#include "common.cuh"

KERNEL(broadcast)(T* y, const T* x, i64 packs, Walk walk) {
    i64 step = walk.step[0][0];
    GRID_LOOP(i, packs) {
        i64 at[1];
        place<1>(walk, i * Pack<T>::size, at);
        Pack<T> p;
        #pragma unroll
        for (int k = 0; k < Pack<T>::size; k++) p.at[k] = x[at[0] + k * step];
        reinterpret_cast<Pack<T>*>(y)[i] = p;
    }
}
