// Pooling: the largest or the mean value of every window, channel by channel.
//
//      x (N, H, W, C)                       y (N, P, Q, C)
//
//      . . . . . . .      a window (R, S)   y[n,p,q,c] is over the places (r, s) of its window:
//      . 0 1 . . . .      of 3 x 2, with    x[n, p stride + r dilation - top,
//      . 2 3 . . . .      the number of        q stride + s dilation - left, c]
//      . 4 5 . . . .      each place,       where that lies in x; the rest is padding
//      . . . . . . .      r S + s
//
// A thread has an element of the result, or 16 bytes of channels where C is a multiple of them: a
// warp reads and writes neighbouring channels, then neighbouring pixels.  Gradients are gathered, a
// pixel from the windows that hold it: so nothing is added to one address by two threads.
#include "common.cuh"

struct Pooling {
    int size[2], outputs[2];  // (H, W) and (P, Q): axis 0 is down, axis 1 across
    int window[2], stride[2], dilation[2];
    int before[2], after[2];  // the padding
    int channels;
};

__device__ inline int begin(const Pooling& pool, int axis, int output) {
    return output * pool.stride[axis] - pool.before[axis];
}

__device__ inline bool inside(const Pooling& pool, int axis, int position) {
    return position >= 0 && position < pool.size[axis];
}

// The windows that reach over a position: from first to last.
__device__ inline int first_over(const Pooling& pool, int axis, int position) {
    int reach = (pool.window[axis] - 1) * pool.dilation[axis] + 1, stride = pool.stride[axis];
    int past = position + pool.before[axis] - reach;  // the last start that does not reach it
    return past < 0 ? 0 : past / stride + 1;
}

__device__ inline int last_over(const Pooling& pool, int axis, int position) {
    int last = (position + pool.before[axis]) / pool.stride[axis];
    return last < pool.outputs[axis] ? last : pool.outputs[axis] - 1;
}

// Which place of such a window it is: -1 where dilation steps over it.
__device__ inline int place_of(const Pooling& pool, int axis, int output, int position) {
    int offset = position - begin(pool, axis, output), dilation = pool.dilation[axis];
    if (dilation == 1) return offset;
    return offset % dilation == 0 ? offset / dilation : -1;
}

// --- what a thread has ---------------------------------------------------------------------------

struct Spot {
    i64 image;
    int row, column, pack;
};

__device__ inline Spot spot_of(i64 i, const int* size, int packs) {
    Spot spot;
    i64 pixel = divide(i, packs);
    spot.pack = (int)i;
    i64 row = divide(pixel, size[1]);
    spot.column = (int)pixel;
    spot.image = divide(row, size[0]);
    spot.row = (int)row;
    return spot;
}

// Where the same channels of the same image lie, at another pixel of an array of `size`.
__device__ inline i64 at(const Spot& spot, const int* size, int packs, int row, int column) {
    return ((spot.image * size[0] + row) * size[1] + column) * packs + spot.pack;
}

template <int n>
struct __align__(4 * n) Places {
    int at[n];
};

// f(a pack): its type is the widest that the channels and the addresses allow
template <class F>
__device__ inline void in_packs(const Pooling& pool, const void* a, const void* b, const void* c,
                                F f) {
    if (pool.channels % Pack<T>::size == 0 && aligned16(a, b, c)) f(Pack<T>());
    else f(One<T>());
}

// --- the largest ---------------------------------------------------------------------------------

// In reading order: a later value has to be larger; after the first NaN nothing counts.
template <class P>
__device__ inline void largest(P* y, Places<P::size>* index, const P* x, i64 images,
                               const Pooling& pool) {
    int packs = pool.channels / P::size;
    GRID_LOOP(i, images * pool.outputs[0] * pool.outputs[1] * packs) {
        Spot spot = spot_of(i, pool.outputs, packs);
        int top = begin(pool, 0, spot.row), left = begin(pool, 1, spot.column);
        P best = {};
        Places<P::size> winner;
        for (int k = 0; k < P::size; k++) winner.at[k] = -1;
        for (int r = 0; r < pool.window[0]; r++) {
            int row = top + r * pool.dilation[0];
            if (!inside(pool, 0, row)) continue;
            for (int s = 0; s < pool.window[1]; s++) {
                int column = left + s * pool.dilation[1];
                if (!inside(pool, 1, column)) continue;
                P seen = x[at(spot, pool.size, packs, row, column)];
                for (int k = 0; k < P::size; k++) {
                    T v = seen.at[k], b = best.at[k];
                    if (winner.at[k] < 0 || (!(v <= b) && b == b)) {
                        best.at[k] = v;
                        winner.at[k] = r * pool.window[1] + s;
                    }
                }
            }
        }
        y[i] = best;
        index[i] = winner;
    }
}

KERNEL(max_pool2d)(T* y, int* index, const T* x, i64 images, Pooling pool) {
    in_packs(pool, y, index, x, [&](auto pack) {
        using P = decltype(pack);
        largest((P*)y, (Places<P::size>*)index, (const P*)x, images, pool);
    });
}

template <class P>
__device__ inline void from_winners(P* dx, const P* g, const Places<P::size>* index, i64 images,
                                    const Pooling& pool) {
    int packs = pool.channels / P::size;
    GRID_LOOP(i, images * pool.size[0] * pool.size[1] * packs) {
        Spot spot = spot_of(i, pool.size, packs);
        int first_p = first_over(pool, 0, spot.row), first_q = first_over(pool, 1, spot.column);
        P sum = {};
        for (int p = last_over(pool, 0, spot.row); p >= first_p; p--) {
            int r = place_of(pool, 0, p, spot.row);
            if (r < 0) continue;
            for (int q = last_over(pool, 1, spot.column); q >= first_q; q--) {
                int s = place_of(pool, 1, q, spot.column);
                if (s < 0) continue;
                i64 window = at(spot, pool.outputs, packs, p, q);
                Places<P::size> winner = index[window];
                P gradient = g[window];
                for (int k = 0; k < P::size; k++)
                    if (winner.at[k] == r * pool.window[1] + s) sum.at[k] += gradient.at[k];
            }
        }
        dx[i] = sum;
    }
}

KERNEL(max_pool2d_dx)(T* dx, const T* g, const int* index, i64 images, Pooling pool) {
    in_packs(pool, dx, g, index, [&](auto pack) {
        using P = decltype(pack);
        from_winners((P*)dx, (const P*)g, (const Places<P::size>*)index, images, pool);
    });
}

KERNEL(max_pool2d_gather)(T* y, const T* x, const int* index, i64 images, Pooling pool) {
    int places = pool.window[0] * pool.window[1];
    GRID_LOOP(i, images * pool.outputs[0] * pool.outputs[1] * pool.channels) {
        Spot spot = spot_of(i, pool.outputs, pool.channels);
        int place = index[i], r = place / pool.window[1], s = place % pool.window[1];
        int row = begin(pool, 0, spot.row) + r * pool.dilation[0];
        int column = begin(pool, 1, spot.column) + s * pool.dilation[1];
        bool there = place >= 0 && place < places;
        there = there && inside(pool, 0, row) && inside(pool, 1, column);
        y[i] = there ? x[at(spot, pool.size, pool.channels, row, column)] : T(0);
    }
}

// --- the mean ------------------------------------------------------------------------------------

// How much of a window lies in x and, where padding is counted, in its padding.
__device__ inline int length(const Pooling& pool, int axis, int output, bool counted) {
    int first = begin(pool, axis, output), last = first + pool.window[axis];
    int end = pool.size[axis] + (counted ? pool.after[axis] : 0);
    if (!counted && first < 0) first = 0;
    return (last < end ? last : end) - first;
}

template <class P>
__device__ inline void means(P* y, const P* x, i64 images, const Pooling& pool, bool counted) {
    int packs = pool.channels / P::size;
    GRID_LOOP(i, images * pool.outputs[0] * pool.outputs[1] * packs) {
        Spot spot = spot_of(i, pool.outputs, packs);
        int top = begin(pool, 0, spot.row), left = begin(pool, 1, spot.column);
        P sum = {};
        for (int row = top; row < top + pool.window[0]; row++) {
            if (!inside(pool, 0, row)) continue;
            for (int column = left; column < left + pool.window[1]; column++) {
                if (!inside(pool, 1, column)) continue;
                P seen = x[at(spot, pool.size, packs, row, column)];
                for (int k = 0; k < P::size; k++) sum.at[k] += seen.at[k];
            }
        }
        T count = T(length(pool, 0, spot.row, counted) * length(pool, 1, spot.column, counted));
        for (int k = 0; k < P::size; k++) sum.at[k] /= count;
        y[i] = sum;
    }
}

KERNEL(avg_pool2d)(T* y, const T* x, i64 images, Pooling pool, bool counted) {
    in_packs(pool, y, x, 0, [&](auto pack) {
        using P = decltype(pack);
        means((P*)y, (const P*)x, images, pool, counted);
    });
}

template <class P>
__device__ inline void from_means(P* dx, const P* g, i64 images, const Pooling& pool,
                                  bool counted) {
    int packs = pool.channels / P::size;
    GRID_LOOP(i, images * pool.size[0] * pool.size[1] * packs) {
        Spot spot = spot_of(i, pool.size, packs);
        int first_p = first_over(pool, 0, spot.row), first_q = first_over(pool, 1, spot.column);
        P sum = {};
        for (int p = last_over(pool, 0, spot.row); p >= first_p; p--) {
            for (int q = last_over(pool, 1, spot.column); q >= first_q; q--) {
                P gradient = g[at(spot, pool.outputs, packs, p, q)];
                T count = T(length(pool, 0, p, counted) * length(pool, 1, q, counted));
                for (int k = 0; k < P::size; k++) sum.at[k] += gradient.at[k] / count;
            }
        }
        dx[i] = sum;
    }
}

KERNEL(avg_pool2d_dx)(T* dx, const T* g, i64 images, Pooling pool, bool counted) {
    in_packs(pool, dx, g, 0, [&](auto pack) {
        using P = decltype(pack);
        from_means((P*)dx, (const P*)g, images, pool, counted);
    });
}
