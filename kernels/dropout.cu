// Random numbers by Philox 4x32-10, and dropout.
//
//      key = (seed, draw), 64 bits each
//
//      block b:  counter (b, b >> 32, draw, draw >> 32), key (seed, seed >> 32)
//                       | ten rounds
//                words 4b, 4b + 1, 4b + 2, 4b + 3
//
//      words     [ 0 1 2 3 | 4 5 6 7 | 8 9 ...      a thread makes a block of four words, then the
//      float32   [ . . . . | . . . . | . . ...      one that lies one grid further on; of them it
//      float64   [  .   .  |  .   .  |  .  ...      makes 16 bytes of uniform or normal draws
//
// So any word can be had without those before it, and all devices have the same ones.
#include "common.cuh"

struct Words {
    unsigned at[4];
};

__device__ inline Words philox(i64 block, const i64* key) {
    u64 seed = (u64)key[0], draw = (u64)key[1];
    unsigned key0 = (unsigned)seed, key1 = (unsigned)(seed >> 32);
    u64 number = (u64)block;
    Words c = {(unsigned)number, (unsigned)(number >> 32), (unsigned)draw, (unsigned)(draw >> 32)};
    for (int round = 0; round < 10; round++) {
        u64 p = 0xD2511F53ull * c.at[0], q = 0xCD9E8D57ull * c.at[2];
        c = {(unsigned)(q >> 32) ^ c.at[1] ^ key0, (unsigned)q,
             (unsigned)(p >> 32) ^ c.at[3] ^ key1, (unsigned)p};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

// Pack i of an array of n elements; less of it at the end, and one by one off 16 bytes.
__device__ inline void store(T* y, i64 i, i64 n, const Pack<T>& pack) {
    constexpr int W = Pack<T>::size;
    if ((i + 1) * W <= n && aligned16(y)) {
        reinterpret_cast<Pack<T>*>(y)[i] = pack;
    } else {
        for (int k = 0; k < W; k++)
            if (i * W + k < n) y[i * W + k] = pack.at[k];
    }
}

// key = state; the next one has the next draw.  One thread.
KERNEL(next_key_)(i64* key, i64* state) {
    key[0] = state[0];
    key[1] = state[1];
    state[1] += 1;
}

// Kept is an element whose word is at least `least`: 2^32 at p = 1, where none is.
KERNEL(drop)(T* y, const T* x, const i64* key, i64 n, u64 least, T scale) {
    constexpr int W = Pack<T>::size;
    bool packs = aligned16(y, x);
    GRID_LOOP(block, (n + 3) / 4) {
        Words words = philox(block, key);
        if (packs && block * 4 + 4 <= n) {
            for (int part = 0; part < 4 / W; part++) {
                i64 i = block * (4 / W) + part;
                Pack<T> p = reinterpret_cast<const Pack<T>*>(x)[i];
                for (int k = 0; k < W; k++)
                    p.at[k] *= words.at[part * W + k] >= least ? scale : T(0);
                reinterpret_cast<Pack<T>*>(y)[i] = p;
            }
        } else {
            for (int k = 0; k < 4; k++) {
                i64 i = block * 4 + k;
                if (i < n) y[i] = x[i] * (words.at[k] >= least ? scale : T(0));
            }
        }
    }
}

// --- random tensors ------------------------------------------------------------------------------

// Four words -> four floats or two doubles from [0, 1), all bits of which are random.
__device__ inline void uniform(const Words& w, Pack<float>& u) {
    for (int k = 0; k < 4; k++) u.at[k] = float(w.at[k] >> 8) * 0x1p-24f;
}

__device__ inline void uniform(const Words& w, Pack<double>& u) {
    for (int k = 0; k < 2; k++)
        u.at[k] = (double(w.at[2 * k] >> 5) * 0x1p26 + double(w.at[2 * k + 1] >> 6)) * 0x1p-53;
}

KERNEL(random_uniform)(T* y, const i64* key, i64 n) {
    constexpr int W = Pack<T>::size;
    GRID_LOOP(block, (n + W - 1) / W) {
        Pack<T> u;
        uniform(philox(block, key), u);
        store(y, block, n, u);
    }
}

// The point at a turn of u: of 2 pi u, a sine would have to find out how many turns that is.
__device__ inline void circle(float u, float* sine, float* cosine) {
    sincospif(2 * u, sine, cosine);
}

__device__ inline void circle(double u, double* sine, double* cosine) {
    sincospi(2 * u, sine, cosine);
}

// Box and Muller: two uniform draws are the radius and the angle of two normal ones.
KERNEL(random_normal)(T* y, const i64* key, i64 n) {
    constexpr int W = Pack<T>::size;
    GRID_LOOP(block, (n + W - 1) / W) {
        Pack<T> u;
        uniform(philox(block, key), u);
        for (int k = 0; k < W; k += 2) {
            T radius = sqrt(T(-2) * log(T(1) - u.at[k])), sine, cosine;
            circle(u.at[k + 1], &sine, &cosine);
            u.at[k] = radius * cosine;
            u.at[k + 1] = radius * sine;
        }
        store(y, block, n, u);
    }
}
