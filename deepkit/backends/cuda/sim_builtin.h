// What CUDA C++ has built in, for the simulator (sim.h).
#pragma once

#define threadIdx (sim::current->thread)
#define blockIdx (sim::block_index)
#define blockDim (sim::block_size)
#define gridDim (sim::grid_size)
#define SIM_TEXT_OF(x) #x
#define SIM_TEXT(x) SIM_TEXT_OF(x)
// a place of its own for each barrier in the source, be it on the line of another one
#define __syncthreads()                                                                \
    sim::block_barrier([]() -> const char* {                                            \
        static const char place[] = __FILE__ ":" SIM_TEXT(__LINE__);                    \
        return place;                                                                   \
    }())

inline void __syncwarp(unsigned mask = 0xffffffffu) { sim::warp_barrier(mask); }

template <class A>
A __shfl_sync(unsigned mask, A value, int from, int width = 32) {
    int lane = sim::current->lane;
    return sim::shuffle(mask, value, (lane & ~(width - 1)) | (from & (width - 1)));
}

template <class A>
A __shfl_xor_sync(unsigned mask, A value, int bits, int width = 32) {
    int lane = sim::current->lane, from = lane ^ bits;
    return sim::shuffle(mask, value, from / width == lane / width ? from : lane);
}

template <class A>
A __shfl_down_sync(unsigned mask, A value, int by, int width = 32) {
    int lane = sim::current->lane, from = lane + by;
    return sim::shuffle(mask, value, from / width == lane / width ? from : lane);
}

inline unsigned __ballot_sync(unsigned mask, int yes) {
    unsigned word = yes != 0, bits = 0;
    int lanes = sim::warps[sim::current->warp].lanes;
    auto words = sim::exchange(mask, &word, sizeof word);
    for (int i = 0; i < lanes; i++) bits |= (unsigned)(words[i][0] & 1) << i;
    return bits;
}

template <class A>
A __ldg(const A* p) { return *p; }

template <class A>
A atomicAdd(A* p, A value) {
    A before = *p;
    *p = before + value;
    return before;
}

template <class A>
A atomicMax(A* p, A value) {
    A before = *p;
    *p = value > before ? value : before;
    return before;
}

inline void __threadfence() {}
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline void sincospi(double x, double* s, double* c) {  // sine and cosine of pi x
    double rest = x - 2 * floor(x / 2);
    *s = sin(M_PI * rest);
    *c = cos(M_PI * rest);
}
inline void sincospif(float x, float* s, float* c) {
    double sine, cosine;
    sincospi(x, &sine, &cosine);
    *s = (float)sine;
    *c = (float)cosine;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return ((uint64_t)a * b) >> 32; }
inline int __float_as_int(float x) { int i; memcpy(&i, &x, 4); return i; }
inline float __int_as_float(int i) { float x; memcpy(&x, &i, 4); return x; }
