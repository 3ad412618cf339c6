// CUDA C++ on a processor: every thread of a block is a fiber, blocks run one after the other.
//
//   scheduler --switch--> thread 0 ... runs until it meets others (a barrier, a warp) or is done
//             --switch--> thread 1 ...        in one of three orders
//
//   forward    thread 0 first; warps run as far ahead as they can; asynchronous copies land late
//   backward   the last thread first; warps run ahead; copies land at once
//   shuffled   anew for each block; warps take turns; copies land late
//
// It finds what a GPU would not tell: shared memory that is read before it was written (0xff in every
// byte before each block: NaN, -1), races between barriers (results differ between the orders), barriers that a
// part of a block misses, warps that meet incompletely, asynchronous copies that nobody waited for,
// accesses past the end of dynamic shared memory (an unmapped page).  It knows nothing of time, bank
// conflicts, races between blocks, or the memory model.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#define DEEPKIT_SIM 1
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __restrict__
#define __grid_constant__
// arrays of a fixed size share a section, so that all of them can be poisoned before each block
#define __shared__ static __attribute__((section("deepkit_shared")))
#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(sim::dynamic_shared)

using std::max;
using std::min;

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
struct __align__(8) float2 { float x, y; };
struct __align__(16) float4 { float x, y, z, w; };
struct __align__(16) double2 { double x, y; };
struct __align__(8) int2 { int x, y; };
struct __align__(16) int4 { int x, y, z, w; };
struct __align__(16) uint4 { unsigned x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

extern "C" char __start_deepkit_shared[] __attribute__((weak));
extern "C" char __stop_deepkit_shared[] __attribute__((weak));

// --- fibers -----------------------------------------------------------------------------------------

// Save the registers that a call preserves and the stack of one side, and go on with the other.
extern "C" void deepkit_switch(void** save, void* load);
#if defined(__x86_64__)
asm(R"(
.text
.p2align 4
.globl deepkit_switch
.hidden deepkit_switch
.type deepkit_switch,@function
deepkit_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size deepkit_switch, .-deepkit_switch
)");
constexpr int SAVED = 6, RETURN = 6, FRAME = 8;  // words; where the return address lies; of a frame
#elif defined(__aarch64__)
asm(R"(
.text
.p2align 4
.globl deepkit_switch
.hidden deepkit_switch
.type deepkit_switch,%function
deepkit_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size deepkit_switch, .-deepkit_switch
)");
constexpr int SAVED = 20, RETURN = 11, FRAME = 20;
#else
#error "the simulator runs on x86-64 and on AArch64"
#endif

namespace sim {

constexpr int STACK = 64 << 10, MOST_THREADS = 1024, MOST_SHARED = 227 << 10;
constexpr int CANARY = 256;  // bytes before dynamic shared memory that must stay what they are

enum class State : uint8_t { fresh, ready, at_block, at_warp, done };

struct Copy { void* to; const void* from; int bytes, group; };  // cp.async, not landed yet

// A product of a warpgroup that has been issued and whose operands are still being read.
struct Issued {
    void (*finish)(const Issued&);
    float* d;
    uint64_t a, b;
    int group;
};

struct Fiber {
    void* stack_pointer = nullptr;
    char* stack = nullptr;
    State state = State::fresh;
    uint3 thread{};
    int lane = 0, warp = 0;
    unsigned meetings = 0;        // exchanges within the warp so far
    const char* where = nullptr;  // the barrier it waits at
    int group = 0;                // of asynchronous copies: the one being filled
    std::vector<Copy> copies;
    int issued_group = 0;
    std::vector<Issued> issued;
};

struct Warp {
    int lanes = 0, alive = 0, waiting = 0;
    uint64_t words[2][32][4];  // what lanes show each other; two, since one may still be read
};

inline Fiber fibers[MOST_THREADS];
inline Warp warps[32];
inline std::vector<char*> stacks;
inline Fiber* current = nullptr;
inline void* scheduler = nullptr;
inline uint3 block_index{};
inline dim3 block_size{}, grid_size{};
inline void (*body)(void*) = nullptr;
inline void* body_argument = nullptr;
inline int alive = 0, at_barrier = 0;
inline bool copies_land_at_once = false;
inline char message[400] = "";
inline bool failed = false;
inline char* dynamic_shared = nullptr;

// A kernel did what it must not: the scheduler stops the launch and says so.
inline void fail(const char* format, ...) {
    if (failed) return;
    failed = true;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
}

inline void leave(State state) {
    Fiber* fiber = current;
    fiber->state = state;
    deepkit_switch(&fiber->stack_pointer, scheduler);
}

inline void entry() {
    body(body_argument);
    leave(State::done);
    __builtin_trap();
}

inline void start(Fiber& fiber) {
    if (stacks.empty()) stacks.push_back(static_cast<char*>(aligned_alloc(64, STACK)));
    fiber.stack = stacks.back();
    stacks.pop_back();
    void** frame = reinterpret_cast<void**>(fiber.stack + STACK) - FRAME;
    for (int i = 0; i < FRAME; i++) frame[i] = nullptr;
    frame[RETURN] = reinterpret_cast<void*>(&entry);
    fiber.stack_pointer = frame;
}

// --- meetings ---------------------------------------------------------------------------------------

inline void block_barrier(const char* where) {
    current->where = where;
    at_barrier++;
    leave(State::at_block);
}

inline void warp_barrier(unsigned mask) {
    Warp& warp = warps[current->warp];
    unsigned all = warp.lanes == 32 ? 0xffffffffu : (1u << warp.lanes) - 1;
    if (mask != all) fail("a warp meets with mask %08x, but it has %d lanes", mask, warp.lanes);
    warp.waiting++;
    leave(State::at_warp);
}

// Show the lanes of the warp some words -> what each of them shows.
inline uint64_t (*exchange(unsigned mask, const void* value, int bytes))[4] {
    Warp& warp = warps[current->warp];
    uint64_t(*words)[4] = warp.words[current->meetings++ & 1];
    memcpy(words[current->lane], value, bytes);
    warp_barrier(mask);
    return words;
}

template <class A>
A shuffle(unsigned mask, A value, int from) {
    static_assert(sizeof(A) <= 32);
    auto words = exchange(mask, &value, sizeof(A));
    A result;
    memcpy(&result, words[from & 31], sizeof(A));
    return result;
}

// An asynchronous copy; no bytes from anywhere are zeros.
inline void copy(Fiber& fiber, Copy one) {
    fiber.copies.push_back(one);
    if (!copies_land_at_once) return;
    if (one.from) memcpy(one.to, one.from, one.bytes);
    else memset(one.to, 0, one.bytes);
}

// Copies land when they are waited for, as late as they may, or landed when they were issued.
inline void land(Fiber& fiber, int groups_that_may_fly) {
    size_t kept = 0;
    for (Copy& copy : fiber.copies) {
        if (copy.group < fiber.group - groups_that_may_fly) {
            if (copies_land_at_once) continue;
            if (copy.from) memcpy(copy.to, copy.from, copy.bytes);
            else memset(copy.to, 0, copy.bytes);
        } else {
            fiber.copies[kept++] = copy;
        }
    }
    fiber.copies.resize(kept);
}

// --- the scheduler ----------------------------------------------------------------------------------

inline char* shared_memory(unsigned bytes) {  // ends where an unmapped page begins
    static char* pages = nullptr;
    constexpr int room = (MOST_SHARED + CANARY + 4095) / 4096 * 4096, guard = 1 << 16;
    if (!pages) {
        pages = static_cast<char*>(
            mmap(nullptr, room + guard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (mprotect(pages, room, PROT_READ | PROT_WRITE)) abort();
    }
    return pages + room - (bytes + 15) / 16 * 16;
}

inline void begin_block(int threads, unsigned shared) {
    alive = threads;
    at_barrier = 0;
    if (__start_deepkit_shared)
        memset(__start_deepkit_shared, 0xff, __stop_deepkit_shared - __start_deepkit_shared);
    dynamic_shared = shared_memory(shared);
    memset(dynamic_shared, 0xff, shared);
    memset(dynamic_shared - CANARY, 0xa5, CANARY);
    for (int w = 0; w * 32 < threads; w++)
        warps[w].lanes = warps[w].alive = std::min(32, threads - w * 32), warps[w].waiting = 0;
    for (int i = 0; i < threads; i++) {
        Fiber& fiber = fibers[i];
        fiber.state = State::fresh;
        fiber.lane = i % 32;
        fiber.warp = i / 32;
        fiber.meetings = 0;
        fiber.group = 0;
        fiber.copies.clear();
        fiber.issued_group = 0;
        fiber.issued.clear();
        unsigned x = block_size.x, y = block_size.y;
        fiber.thread = {i % x, i / x % y, i / (x * y)};
    }
}

inline bool release_warp(Warp& warp, int first, int threads) {
    if (!warp.waiting || warp.waiting < warp.alive) return false;
    if (warp.alive < warp.lanes)
        fail("%d lanes of a warp were gone when the others met", warp.lanes - warp.alive);
    warp.waiting = 0;
    for (int i = first; i < std::min(first + 32, threads); i++)
        if (fibers[i].state == State::at_warp) fibers[i].state = State::ready;
    return true;
}

inline void release_block(int threads) {
    const char* where = nullptr;
    for (int i = 0; i < threads; i++) {
        if (fibers[i].state != State::at_block) continue;
        if (where && where != fibers[i].where)
            fail("threads of one block met at different barriers: %s and %s", where, fibers[i].where);
        where = fibers[i].where;
        fibers[i].state = State::ready;
    }
    if (alive < threads)
        fail("%d of %d threads were gone when the others met at %s", threads - alive, threads, where);
    at_barrier = 0;
}

// eager: a warp whose lanes have met goes on before any other, so that one that needs no others
// runs far ahead of them, as on a GPU it may
inline void run_block(const std::vector<int>& order, bool eager) {
    int threads = order.size();
    while (alive && !failed) {
        bool moved = false;
        for (int i : order) {
            Fiber& fiber = fibers[i];
            if (fiber.state != State::fresh && fiber.state != State::ready) continue;
            if (fiber.state == State::fresh) start(fiber);
            moved = true;
            current = &fiber;
            deepkit_switch(&scheduler, fiber.stack_pointer);
            if (fiber.state == State::done) {
                stacks.push_back(fiber.stack);
                fiber.stack = nullptr;
                alive--;
                warps[fiber.warp].alive--;
                if (!fiber.copies.empty()) fail("asynchronous copies were never waited for");
                if (!fiber.issued.empty()) fail("products of a warpgroup were never waited for");
            }
            bool met = release_warp(warps[fiber.warp], fiber.warp * 32, threads);
            if (failed) return;
            if (met && eager) break;
        }
        if (alive && at_barrier == alive) {
            release_block(threads);
        } else if (alive && !moved) {
            fail("deadlock: %d threads wait at a barrier of the block, %d in their warps", at_barrier,
                 alive - at_barrier);
        }
    }
}

// A kernel that touches memory which is not mapped, or divides by zero, ends its launch.
inline sigjmp_buf escape;
inline volatile sig_atomic_t escaping = 0;

inline void on_signal(int number, siginfo_t*, void*) {
    if (!escaping) {
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    siglongjmp(escape, number);
}

struct Guard {  // while it lives, those signals lead back to the scheduler
    static constexpr int SIGNALS[4] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    struct sigaction before[4];
    Guard() {
        struct sigaction action = {};
        action.sa_sigaction = on_signal;
        action.sa_flags = SA_SIGINFO | SA_NODEFER;
        for (int i = 0; i < 4; i++) sigaction(SIGNALS[i], &action, &before[i]);
    }
    ~Guard() {
        for (int i = 0; i < 4; i++) sigaction(SIGNALS[i], &before[i], nullptr);
    }
};

// order: 0 forward, 1 backward, from 2 on shuffled, anew for each block
inline int run(void (*kernel)(void*), void* argument, const unsigned* grid, const unsigned* block,
               unsigned shared, unsigned order) {
    body = kernel;
    body_argument = argument;
    grid_size = {grid[0], grid[1], grid[2]};
    block_size = {block[0], block[1], block[2]};
    failed = false;
    Guard guard;
    copies_land_at_once = order == 1;
    int threads = block[0] * block[1] * block[2];
    std::vector<int> sequence(threads);
    for (int i = 0; i < threads; i++) sequence[i] = order == 1 ? threads - 1 - i : i;
    uint64_t random = 0x9e3779b97f4a7c15ull * (order + 1);
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = 0; x < grid[0]; x++) {
                block_index = {x, y, z};
                begin_block(threads, shared);
                for (int i = threads - 1; order >= 2 && i > 0; i--) {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    std::swap(sequence[i], sequence[random % (i + 1)]);
                }
                if (int number = sigsetjmp(escape, 1)) {
                    uint3 t = current->thread;
                    fail(number == SIGFPE   ? "thread (%u, %u, %u) divided by zero"
                         : number == SIGILL ? "thread (%u, %u, %u) did what is not defined"
                                            : "thread (%u, %u, %u) touched memory that is not mapped",
                         t.x, t.y, t.z);
                } else {
                    escaping = 1;
                    run_block(sequence, order < 2);
                }
                escaping = 0;
                for (int i = 1; i <= CANARY && !failed; i++)
                    if (dynamic_shared[-i] != char(0xa5))
                        fail("bytes before dynamic shared memory were overwritten");
                if (failed) {
                    for (int i = 0; i < threads; i++)  // their frames are lost, their stacks are not
                        if (fibers[i].stack) {
                            stacks.push_back(fibers[i].stack);
                            fibers[i].stack = nullptr;
                        }
                    size_t length = strlen(message);
                    snprintf(message + length, sizeof message - length, "   (block %u, %u, %u)", x, y, z);
                    return 1;
                }
            }
    return 0;
}

template <class... A, size_t... I>
int launch(void (*kernel)(A...), void** arguments, std::index_sequence<I...>, const unsigned* grid,
           const unsigned* block, unsigned shared, unsigned order) {
    struct Call {
        void (*kernel)(A...);
        void** arguments;
    } call{kernel, arguments};
    auto one = [](void* p) {
        Call* c = static_cast<Call*>(p);
        c->kernel(*static_cast<std::remove_reference_t<A>*>(c->arguments[I])...);
    };
    return run(one, &call, grid, block, shared, order);
}

template <class... A>
int launch(void (*kernel)(A...), void** arguments, const unsigned* grid, const unsigned* block,
           unsigned shared, unsigned order) {
    return launch(kernel, arguments, std::index_sequence_for<A...>{}, grid, block, shared, order);
}

}  // namespace sim

#define DEEPKIT_RUN(name)                                                                       \
    extern "C" int deepkit_run_##name(void** arguments, const unsigned* grid,                   \
                                      const unsigned* block, unsigned shared, unsigned order) { \
        return sim::launch(&deepkit_##name, arguments, grid, block, shared, order);             \
    }
extern "C" inline __attribute__((used)) const char* deepkit_message() { return sim::message; }
