// Rows by their numbers, and their gradient.  S is the type of an index.
//
//      x (outer, length, inner)    index (count)    y (outer, count, inner)
//
//        0 [ . . . . ]               2                [ x2 x2 x2 x2 ]    a thread an element
//        1 [ . . . . ]               0                [ x0 x0 x0 x0 ]    of y, or 16 bytes of it
//        2 [ . . . . ]               2                [ x2 x2 x2 x2 ]
//
// The gradient of a row is the sum of the gradients of all places where it was taken, in their
// order, so that it never differs.  First one block makes a chain of these places for every row,
//
//      row 2:  first[2] = 0 -> next[0] = 2 -> next[2] = -1
//
// then each element of the gradient goes along the chain of its row and adds.
#include "common.cuh"

// A negative index counts from the end; one outside is read as clipped.
__device__ inline i64 row_of(S index, i64 length) {
    i64 row = (i64)index;
    if (row < -length) row = -length;
    if (row >= length) row = length - 1;
    return row < 0 ? row + length : row;
}

template <class P>
__device__ inline void rows(P* y, const P* x, const S* index, i64 outer, i64 length, i64 count,
                            i64 inner) {
    GRID_LOOP(i, outer * count * inner) {
        i64 column = i, place = divide(column, inner);
        i64 o = divide(place, count);
        y[i] = x[(o * length + row_of(index[place], length)) * inner + column];
    }
}

KERNEL(take)(T* y, const T* x, const S* index, i64 outer, i64 length, i64 count, i64 inner) {
    using P = Pack<T>;
    if (inner % P::size == 0 && aligned16(y, x))
        rows((P*)y, (const P*)x, index, outer, length, count, inner / P::size);
    else
        rows(y, x, index, outer, length, count, inner);
}

// One block.  first and last begin as -1; the places come in pieces, a place a thread.
LIMITED_KERNEL(1024, take_dx_chains)(i64* first, i64* last, i64* next, const S* index, i64 count,
                                     i64 length) {
    __shared__ i64 row[1024];
    __shared__ bool followed[1024];  // by a place of the same row and piece
    int t = threadIdx.x;
    for (i64 start = 0; start < count; start += blockDim.x) {
        i64 here = start + t;
        bool one = here < count;
        row[t] = one ? row_of(index[here], length) : -1;
        followed[t] = false;
        __syncthreads();
        if (one) {
            int before = t - 1;  // the last place in front that has the same row
            while (before >= 0 && row[before] != row[t]) before--;
            if (before >= 0) followed[before] = true;
            i64 previous = before >= 0 ? start + before : last[row[t]];
            if (previous >= 0) next[previous] = here;
            else first[row[t]] = here;
        }
        __syncthreads();
        if (one && !followed[t]) {
            last[row[t]] = here;
            next[here] = -1;  // until a later piece has another
        }
    }
}

KERNEL(take_dx)(T* dx, const T* g, const i64* first, const i64* next, i64 outer, i64 length,
                i64 count, i64 inner) {
    GRID_LOOP(i, outer * length * inner) {
        i64 column = i, row = divide(column, inner);
        i64 o = divide(row, length);
        T sum = 0;
        for (i64 place = first[row]; place >= 0; place = next[place])
            sum += g[(o * count + place) * inner + column];
        dx[i] = sum;
    }
}
