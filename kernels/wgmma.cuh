// Hopper's tensor cores: four warps (a warpgroup) multiply tiles that lie in shared memory,
//
//      d[64 x 128] += a[64 x K] b[K x 128]       K: 32 bytes of numbers, 8 of TF32 or 16 of 16 bits
//
//   a tile   rows of 128 bytes along k; 8 rows are an atom of 1024 bytes, which begins at a multiple of
//            that.  In row r, 16 bytes number p lie at place p ^ (r % 8), so that a column of 8 rows
//            lies in all banks:
//                          row 0   [ 0 1 2 3 4 5 6 7 ]
//                          row 1   [ 1 0 3 2 5 4 7 6 ]
//                          row 2   [ 2 3 0 1 6 7 4 5 ]  ...
//   d        d[i] of a thread: row 16 * warp + lane / 4 + 8 * (i / 2 % 2), column 8 * (i / 4) +
//            2 * (lane % 4) + i % 2
//
// (PTX ISA, "wgmma.mma_async", "Matrix Descriptor Format", "128-Byte swizzling mode".)  The product
// runs on after it was issued and reads its operands until it is waited for; the simulator reads
// them then, as late as it may, so that a tile which is overwritten too early shows.
#pragma once

// where 16 bytes number `piece` of row r lie in a tile
__device__ inline int swizzled(int r, int piece) {
    return r / 8 * 1024 + r % 8 * 128 + (piece ^ (r % 8)) * 16;
}

#if defined(DEEPKIT_SIM)

typedef u64 Descriptor;

__device__ inline Descriptor descriptor(const void* tile) {
    u64 at = static_cast<const char*>(tile) - sim::dynamic_shared;
    if (at % 1024) sim::fail("a tile of a warpgroup's product begins at %d", (int)at);
    return at;
}

// the next 32 bytes along k
__device__ inline Descriptor along_k(Descriptor tile, int steps) { return tile + 32 * steps; }

namespace sim {

// the number at byte `at` of the row r of a tile that was entered `inside` bytes along k
template <class Number>
inline Number number(u64 tile, int r, int at) {
    u64 base = tile & ~u64(1023), inside = tile & 127;
    int byte = inside + at;
    Number value;
    memcpy(&value, dynamic_shared + base + swizzled(r, byte / 16) + byte % 16, sizeof value);
    return value;
}

template <int kind>  // 0: TF32, 1: bfloat16, 2: float16
inline float operand(u64 tile, int r, int k) {
    if (kind == 0) return __int_as_float(number<int>(tile, r, 4 * k) & 0xffffe000);
    unsigned short half = number<unsigned short>(tile, r, 2 * k);
    if (kind == 1) return __int_as_float((int)((unsigned)half << 16));
    _Float16 value;
    memcpy(&value, &half, 2);
    return (float)value;
}

template <int kind>
inline void multiply_group(const Issued& product) {
    int thread = current->thread.x % 128, warp = thread / 32, lane = thread % 32;
    for (int i = 0; i < 64; i++) {
        int row = 16 * warp + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        float sum = product.d[i];
        for (int k = 0; k < (kind ? 16 : 8); k++)
            sum += operand<kind>(product.a, row, k) * operand<kind>(product.b, column, k);
        product.d[i] = sum;
    }
}

}  // namespace sim

__device__ inline void group_fence() {}
__device__ inline void shared_fence() {}
__device__ inline void group_commit() { sim::current->issued_group++; }

// until at most `running` of the products committed so far are not done
template <int running>
__device__ inline void group_wait() {
    sim::Fiber& fiber = *sim::current;
    size_t kept = 0;
    for (sim::Issued& product : fiber.issued) {
        if (product.group < fiber.issued_group - running) product.finish(product);
        else fiber.issued[kept++] = product;
    }
    fiber.issued.resize(kept);
}

#define GROUP_PRODUCT(name, kind, instruction, rest)                                               \
    __device__ inline void name(float* d, Descriptor a, Descriptor b) {                            \
        sim::Fiber& fiber = *sim::current;                                                         \
        fiber.issued.push_back({&sim::multiply_group<kind>, d, a, b, fiber.issued_group});         \
    }

#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)

typedef u64 Descriptor;

__device__ inline Descriptor descriptor(const void* tile) {
    u64 at = __cvta_generic_to_shared(tile);
    return (at & 0x3ffff) >> 4 | 1ull << 16 | (1024ull >> 4) << 32 | 1ull << 62;  // 128-byte swizzle
}

__device__ inline Descriptor along_k(Descriptor tile, int steps) { return tile + 2 * steps; }

// registers of d are ready; what was written to shared memory is visible to the tensor cores
__device__ inline void group_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void shared_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ inline void group_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int running>
__device__ inline void group_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(running) : "memory");
}

#define D_REGISTERS                                                                              \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "  \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "  \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "  \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

#define D_OPERANDS                                                     \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]),  \
    "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),  \
    "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),  \
    "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),  \
    "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]),  \
    "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),  \
    "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),  \
    "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),  \
    "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]),  \
    "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),  \
    "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]),  \
    "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),  \
    "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]),  \
    "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),  \
    "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]),  \
    "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])

#define GROUP_PRODUCT(name, kind, instruction, rest)                                              \
    __device__ inline void name(float* d, Descriptor a, Descriptor b) {                           \
        asm volatile("wgmma.mma_async.sync.aligned." instruction " {" D_REGISTERS                  \
                     "}, %64, %65, 1, 1, 1" rest ";"                                              \
                     : D_OPERANDS                                                                 \
                     : "l"(a), "l"(b));                                                           \
    }

#endif

#if defined(DEEPKIT_SIM) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
GROUP_PRODUCT(group_tf32, 0, "m64n128k8.f32.tf32.tf32", "")
GROUP_PRODUCT(group_bfloat16, 1, "m64n128k16.f32.bf16.bf16", ", 0, 0")
GROUP_PRODUCT(group_float16, 2, "m64n128k16.f32.f16.f16", ", 0, 0")
#endif
