// What all kernels share: indices, loops over the grid, packs of 16 bytes, meetings of a block.
//
// T is the element type of the launch, a typedef, as are i64 and u64: the host compiles a file once
// for each type that is used.  Files include no header of the toolkit, so that they compile in
// milliseconds at run time, and on processors under the simulator.
#pragma once

#define WARP 32
#define MOST_AXES 24  // of a Walk, once axes that lie together are one

#ifndef DEEPKIT_SIM
#define DYNAMIC_SHARED(type, name)                                      \
    extern __shared__ __align__(1024) unsigned char dynamic_shared_bytes[]; \
    type* name = reinterpret_cast<type*>(dynamic_shared_bytes)
#endif

// A kernel: the host knows it by `name`.  LIMITED_KERNEL promises at most `threads` a block, and
// RESIDENT_KERNEL wants so few registers that `blocks` of these fit into a multiprocessor.
#define KERNEL(name) extern "C" __global__ void deepkit_##name
#define LIMITED_KERNEL(threads, name) \
    extern "C" __global__ void __launch_bounds__(threads) deepkit_##name

#define RESIDENT_KERNEL(threads, blocks, name) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) deepkit_##name

// for (each i < n), shared among all threads of the grid: right for any n and any grid
#define GRID_LOOP(i, n)                                                            \
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < (n); \
         i += (i64)gridDim.x * blockDim.x)

template <class A, class B>
struct same_type { static constexpr bool value = false; };
template <class A>
struct same_type<A, A> { static constexpr bool value = true; };

// --- packs: one load of 16 bytes ------------------------------------------------------------------

template <class E>
struct __align__(16) Pack {
    static constexpr int size = 16 / sizeof(E);
    E at[16 / sizeof(E)];
};

// What stands for a pack where the addresses or the sizes do not allow one.
template <class E>
struct One {
    static constexpr int size = 1;
    E at[1];
};

__device__ inline bool aligned16(const void* a, const void* b = 0, const void* c = 0) {
    return (((u64)a | (u64)b | (u64)c) & 15) == 0;
}

// y = f(x) over n elements: 16 bytes at a time where the addresses allow it.  y may be x.
template <class E, class F>
__device__ inline void map1(E* y, const E* x, i64 n, F f) {
    constexpr int W = Pack<E>::size;
    i64 packs = aligned16(y, x) ? n / W : 0;
    GRID_LOOP(i, packs) {
        Pack<E> p = reinterpret_cast<const Pack<E>*>(x)[i];
        for (int k = 0; k < W; k++) p.at[k] = f(p.at[k]);
        reinterpret_cast<Pack<E>*>(y)[i] = p;
    }
    GRID_LOOP(i, n - packs * W) y[packs * W + i] = f(x[packs * W + i]);
}

// y = f(a, b), the same
template <class E, class F>
__device__ inline void map2(E* y, const E* a, const E* b, i64 n, F f) {
    constexpr int W = Pack<E>::size;
    i64 packs = aligned16(y, a, b) ? n / W : 0;
    GRID_LOOP(i, packs) {
        Pack<E> p = reinterpret_cast<const Pack<E>*>(a)[i];
        Pack<E> q = reinterpret_cast<const Pack<E>*>(b)[i];
        for (int k = 0; k < W; k++) p.at[k] = f(p.at[k], q.at[k]);
        reinterpret_cast<Pack<E>*>(y)[i] = p;
    }
    GRID_LOOP(i, n - packs * W) {
        i64 j = packs * W + i;
        y[j] = f(a[j], b[j]);
    }
}

// --- walks: element i of an array of any shape, in operands with strides of their own -----------

// i / size, of numbers from 0; the rest is left in i.
__device__ inline i64 divide(i64& i, i64 size) {
    i64 whole;
    if (i <= 0x7fffffff && size <= 0x7fffffff) {  // a division of 32 bits is several times faster
        whole = (unsigned)i / (unsigned)size;
        i = (unsigned)i - (unsigned)whole * (unsigned)size;
    } else {
        whole = i / size;
        i -= whole * size;
    }
    return whole;
}

// The last axis first.  step[k][axis] is how far operand k moves along it: 0 where it is broadcast.
struct Walk {
    i64 size[MOST_AXES];
    i64 step[3][MOST_AXES];
    int axes;
    int unused;
};

// Where element i (in C order) lies in the first `operands` operands.
template <int operands>
__device__ inline void place(const Walk& walk, i64 i, i64* at) {
    for (int k = 0; k < operands; k++) at[k] = 0;
    for (int axis = 0; axis < walk.axes; axis++) {
        i64 next = divide(i, walk.size[axis]);
        for (int k = 0; k < operands; k++) at[k] += i * walk.step[k][axis];
        i = next;
    }
}

// --- meetings ---------------------------------------------------------------------------------------

struct Add {
    template <class A>
    __device__ A operator()(A a, A b) const { return a + b; }
};

// NaN wins, as NumPy has it
struct Larger {
    template <class A>
    __device__ A operator()(A a, A b) const { return a > b || a != a ? a : b; }
};

struct Smaller {
    template <class A>
    __device__ A operator()(A a, A b) const { return a < b || a != a ? a : b; }
};

// The combination over all lanes of a warp, in every lane; always in the same order.
template <class A, class F>
__device__ inline A over_warp(A value, F f) {
    for (int step = WARP / 2; step; step /= 2)
        value = f(value, __shfl_xor_sync(0xffffffffu, value, step));
    return value;
}

// The same over a block of whole warps, in every thread.  `work`: 32 elements of shared memory.
template <class A, class F>
__device__ inline A over_block(A value, A* work, F f) {
    int thread = threadIdx.x + blockDim.x * threadIdx.y, warps = blockDim.x * blockDim.y / WARP;
    value = over_warp(value, f);
    __syncthreads();  // `work` may still be read by an earlier call
    if (thread % WARP == 0) work[thread / WARP] = value;
    __syncthreads();
    value = work[0];
    for (int w = 1; w < warps; w++) value = f(value, work[w]);
    return value;
}
