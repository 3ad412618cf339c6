// Tensor cores: a warp multiplies small matrices, d = a b + d, sums in float32.
//
//   m16n8k8 (TF32)          k           who holds what: lane = 4 * row + pair
//                    b   n . . . . 8 columns      a: rows `row` and `row` + 8, k `pair` and `pair` + 4
//        k           k   |                        b: column `row`, k `pair` and `pair` + 4
//   a  m . . . .         v                        d: rows `row` and `row` + 8, columns 2 `pair`, + 1
//      16 rows       d  16 x 8
//
//   m16n8k16 (bfloat16, float16) is the same with two numbers in each register of a and b: k is 2 `pair` and
//   2 `pair` + 1, then these + 8.
//
// (PTX ISA, "Matrix Fragments for mma.m16n8k8" and "... m16n8k16".)  The simulator multiplies by the
// same layouts, so it proves that loads and stores agree with them, not that a GPU does.
#pragma once

// float32 -> TF32, 10 bits of mantissa, to nearest
__device__ inline unsigned to_tf32(float x) {
#if defined(DEEPKIT_SIM)
    unsigned bits = __float_as_int(x);
    if ((bits & 0x7f800000u) == 0x7f800000u) return bits & 0xffffe000u;
    return (bits + 0x1000u) & 0xffffe000u;
#else
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
#endif
}

// two float32 -> two bfloat16 in one register, to nearest even; `low` is in the lower half
__device__ inline unsigned to_bfloat16x2(float low, float high) {
#if defined(DEEPKIT_SIM)
    unsigned halves[2], given[2] = {(unsigned)__float_as_int(low), (unsigned)__float_as_int(high)};
    for (int i = 0; i < 2; i++)
        halves[i] = (given[i] & 0x7fffffffu) > 0x7f800000u ? 0x7fffu
                    : (given[i] + 0x7fffu + (given[i] >> 16 & 1)) >> 16;
    return halves[1] << 16 | halves[0];
#else
    unsigned bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
#endif
}

// the same for float16
__device__ inline unsigned to_float16x2(float low, float high) {
#if defined(DEEPKIT_SIM)
    unsigned short halves[2];
    _Float16 given[2] = {(_Float16)low, (_Float16)high};
    memcpy(halves, given, 4);
    return (unsigned)halves[1] << 16 | halves[0];
#else
    unsigned bits;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
#endif
}

#if defined(DEEPKIT_SIM)

namespace sim {

enum class Kind { tf32, bfloat16, float16 };

// k-th element of what a register of a lane holds
inline float held(unsigned bits, int k, Kind kind) {
    if (kind == Kind::tf32) return __int_as_float((int)bits);
    unsigned short half = k % 2 ? bits >> 16 : bits & 0xffff;
    if (kind == Kind::bfloat16) return __int_as_float((int)((unsigned)half << 16));
    _Float16 value;
    memcpy(&value, &half, 2);
    return (float)value;
}

// d[4] += a b, K = 8 with one number in a register, K = 16 with two
inline void multiply(float* d, const unsigned* a, const unsigned* b, Kind kind) {
    struct {
        unsigned a[4], b[2];
    } mine;
    memcpy(mine.a, a, sizeof mine.a);
    memcpy(mine.b, b, sizeof mine.b);
    auto words = exchange(0xffffffffu, &mine, sizeof mine);
    auto of = [&](int lane) { return reinterpret_cast<unsigned*>(words[lane]); };
    int row = current->lane / 4, pair = current->lane % 4, width = kind == Kind::tf32 ? 1 : 2;
    for (int i = 0; i < 4; i++) {
        int upper = i / 2, column = 2 * pair + i % 2;
        float sum = d[i];
        for (int half = 0; half < 2; half++)
            for (int from = 0; from < 4; from++)
                for (int k = 0; k < width; k++)
                    sum += held(of(4 * row + from)[2 * half + upper], k, kind) *
                           held(of(4 * column + from)[4 + half], k, kind);
        d[i] = sum;
    }
}

}  // namespace sim

__device__ inline void mma_tf32(float* d, const unsigned* a, const unsigned* b) {
    sim::multiply(d, a, b, sim::Kind::tf32);
}
__device__ inline void mma_bfloat16(float* d, const unsigned* a, const unsigned* b) {
    sim::multiply(d, a, b, sim::Kind::bfloat16);
}
__device__ inline void mma_float16(float* d, const unsigned* a, const unsigned* b) {
    sim::multiply(d, a, b, sim::Kind::float16);
}

#elif __CUDA_ARCH__ >= 800

__device__ inline void mma_tf32(float* d, const unsigned* a, const unsigned* b) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ inline void mma_bfloat16(float* d, const unsigned* a, const unsigned* b) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ inline void mma_float16(float* d, const unsigned* a, const unsigned* b) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif
