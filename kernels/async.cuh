// Copies from global to shared memory that go on while the block computes (cp.async).
//
//      async_copy(stage 0) commit   async_copy(stage 1) commit   ...
//                                                        async_wait<1>() -> stage 0 has landed
//
// A thread waits for its own copies; a barrier then makes those of the others visible.
#pragma once

#if defined(DEEPKIT_SIM)

// 16 bytes from global to shared memory; only the first `bytes` are read, the rest are zeros.
__device__ inline void async_copy16(void* shared, const void* global, int bytes = 16) {
    sim::Fiber& fiber = *sim::current;
    if (bytes < 16) sim::copy(fiber, {shared, nullptr, 16, fiber.group});
    if (bytes > 0) sim::copy(fiber, {shared, global, bytes, fiber.group});
}
// 4 bytes, or a zero
__device__ inline void async_copy4(void* shared, const void* global, bool read = true) {
    sim::Fiber& fiber = *sim::current;
    sim::copy(fiber, {shared, read ? global : nullptr, 4, fiber.group});
}
__device__ inline void async_commit() { sim::current->group++; }

// Until at most `flying` of the groups committed so far have not landed.
template <int flying>
__device__ inline void async_wait() { sim::land(*sim::current, flying); }

#elif __CUDA_ARCH__ >= 800

__device__ inline void async_copy16(void* shared, const void* global, int bytes = 16) {
    unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes)
                 : "memory");
}
__device__ inline void async_copy4(void* shared, const void* global, bool read = true) {
    unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(global),
                 "r"(read ? 4 : 0)
                 : "memory");
}
__device__ inline void async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int flying>
__device__ inline void async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(flying) : "memory");
}

#else  // before Ampere: at once

__device__ inline void async_copy16(void* shared, const void* global, int bytes = 16) {
    for (int i = 0; i < 4; i++)
        static_cast<int*>(shared)[i] = i * 4 < bytes ? static_cast<const int*>(global)[i] : 0;
}
__device__ inline void async_copy4(void* shared, const void* global, bool read = true) {
    *static_cast<int*>(shared) = read ? *static_cast<const int*>(global) : 0;
}
__device__ inline void async_commit() {}

template <int flying>
__device__ inline void async_wait() {}

#endif
