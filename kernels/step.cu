// One step of an optimiser, in place over flat memory, and what gradient clipping needs.
//
//      w  [ . . . . | . . . . | . . . . | . . ]    each thread takes 16 bytes of every array, then
//      v  [ . . . . | . . . . | . . . . | . . ]    those that lie one grid further on; what is left
//      g  [ . . . . | . . . . | . . . . | . . ]    over at the end goes one by one
//
//      lr [ . ]   t [ . ]                          S and i64, read where they lie: a captured step
//                                                  takes the value of the day
//
// A step that counts has a launch of one thread before it.  It moves t, which no block of the other
// may do while the rest still reads it, and makes of lr and t the numbers that all elements need.
#include "common.cuh"

__device__ inline void put(const T*, i64, Pack<T>) {}  // what is only read stays
__device__ inline void put(const T*, i64, One<T>) {}

template <class P>
__device__ inline void put(T* array, i64 i, P pack) {
    if (array) reinterpret_cast<P*>(array)[i] = pack;
}

// Pack i of an array, until `store`; of an array that is absent it is zeros, and goes nowhere.
template <class P, class E>
struct Held {
    E* array;
    i64 i;
    P pack = {};
    __device__ Held(E* array, i64 i) : array(array), i(i) {
        if (array) pack = reinterpret_cast<const P*>(array)[i];
    }
    __device__ void store() const { put(array, i, pack); }
};

template <class P, class F, class... E>
__device__ inline void update_pack(F f, i64 i, E*... arrays) {
    auto change = [f](auto... held) {
        for (int k = 0; k < P::size; k++) f(held.pack.at[k]...);
        (held.store(), ...);
    };
    change(Held<P, E>(arrays, i)...);
}

// f(w, g, ...) over the elements of arrays of one size; all are written but those of const T.
template <class F, class... E>
__device__ inline void update(i64 n, F f, E*... arrays) {
    constexpr int W = Pack<T>::size;
    i64 packs = (((u64)arrays | ...) & 15) == 0 ? n / W : 0;
    GRID_LOOP(i, packs) update_pack<Pack<T>>(f, i, arrays...);
    GRID_LOOP(i, n - packs * W) update_pack<One<T>>(f, packs * W + i, arrays...);
}

// Without decay w plays no part, even if it is infinite.
__device__ inline T decayed(T g, T w, T decay) {
    return decay == 0 ? g : g + decay * w;
}

// --- steps ---------------------------------------------------------------------------------------

KERNEL(sgd_step)(T* w, T* v, const T* g, const S* lr, i64 n, T momentum, bool nesterov, T decay) {
    T rate = T(*lr);
    bool moves = v != 0;
    update(n, [=](T& w, T& v, T g) {
        g = decayed(g, w, decay);
        v = momentum * v + g;
        w -= rate * (!moves ? g : nesterov ? g + momentum * v : v);
    }, w, v, g);
}

// now: the step size lr / (1 - beta1^t), and sqrt(1 - beta2^t)
KERNEL(adam_begin)(double* now, const S* lr, i64* t, double beta1, double beta2) {
    i64 step = *t + 1;
    *t = step;
    now[0] = double(*lr) / (1 - pow(beta1, double(step)));
    now[1] = sqrt(1 - pow(beta2, double(step)));
}

KERNEL(adam_step)(T* w, T* m, T* v, const T* g, const S* lr, const double* now, i64 n, double beta1,
                  double beta2, T eps, double weight_decay, bool decoupled) {
    T keep1 = T(beta1), rest1 = T(1 - beta1), keep2 = T(beta2), rest2 = T(1 - beta2);
    T size = T(now[0]), root = T(now[1]);
    T shrink = decoupled ? T(1 - double(*lr) * weight_decay) : T(1);
    T decay = decoupled ? T(0) : T(weight_decay);
    update(n, [=](T& w, T& m, T& v, T g) {
        g = decayed(g, w, decay);
        m = keep1 * m + rest1 * g;
        v = keep2 * v + rest2 * (g * g);
        w = shrink * w - size * (m / (sqrt(v) / root + eps));
    }, w, m, v, g);
}

KERNEL(rmsprop_step)(T* w, T* s, T* m, T* v, const T* g, const S* lr, i64 n, double alpha, T eps,
                     T momentum, T decay) {
    T rate = T(*lr), keep = T(alpha), rest = T(1 - alpha);
    bool centred = m != 0, moves = v != 0;
    update(n, [=](T& w, T& s, T& m, T& v, T g) {
        g = decayed(g, w, decay);
        s = keep * s + rest * (g * g);
        m = keep * m + rest * g;
        T spread = centred ? s - m * m : s;
        T change = g / (sqrt(spread) + eps);
        v = momentum * v + change;
        w -= rate * (moves ? v : change);
    }, w, s, m, v, g);
}

// now: the step size lr / (1 + (t - 1) lr_decay)
KERNEL(adagrad_begin)(double* now, const S* lr, i64* t, double lr_decay) {
    now[0] = double(*lr) / (1 + double(*t) * lr_decay);
    *t += 1;
}

KERNEL(adagrad_step)(T* w, T* s, const T* g, const double* now, i64 n, T eps, T decay) {
    T rate = T(now[0]);
    update(n, [=](T& w, T& s, T g) {
        g = decayed(g, w, decay);
        s += g * g;
        w -= rate * (g / (sqrt(s) + eps));
    }, w, s, g);
}

// --- clipping ------------------------------------------------------------------------------------

// A number for each block: what its threads have met, squared and summed.
LIMITED_KERNEL(256, l2_norm_blocks)(double* blocks, const T* x, i64 n) {
    __shared__ double work[32];
    double sum = 0;
    update(n, [&sum](T v) { sum += double(v) * double(v); }, x);
    sum = over_block(sum, work, Add());
    if (threadIdx.x == 0) blocks[blockIdx.x] = sum;
}

// One block: the sum of those numbers, always in the same order.
LIMITED_KERNEL(256, l2_norm)(T* y, const double* blocks, i64 count) {
    __shared__ double work[32];
    double sum = 0;
    GRID_LOOP(i, count) sum += blocks[i];
    sum = over_block(sum, work, Add());
    if (threadIdx.x == 0) *y = T(sqrt(sum));
}

KERNEL(clip_step)(T* g, const S* norm, i64 n, double max_norm) {
    double factor = max_norm / (double(*norm) + 1e-6);
    T scale = factor > 1 ? T(1) : T(factor);  // NaN stays NaN
    update(n, [=](T& v) { v *= scale; }, g);
}
