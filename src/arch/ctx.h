/* A machine context: a stack pointer below which the registers of a suspended
 * function are saved.
 *
 * Two functions and the frame they agree on; ctx_x86_64.S and ctx_aarch64.S draw
 * the frame, ctx_init.c writes the first one.  Called by coro/ only, on any
 * thread.  Knows nothing of stacks' owners, tasks or threads.
 *
 * Saved: the registers that a function must preserve, and the control words of
 * the floating-point unit (rounding, masks), so that a coroutine that changes them
 * changes them for itself.  Not saved: the flags of past floating-point operations
 * (as across any call), the signal mask (a system call each way) and anything
 * thread-local.
 *
 * Invariant: a saved sp is used by exactly one switch, once; whoever hands it to
 * another thread orders the hand-over (release before acquire) himself. */
#ifndef HEIST_ARCH_CTX_H
#define HEIST_ARCH_CTX_H

#include <stddef.h>
#include <stdint.h>

/* Bytes that heist__ctx_init writes below stack_top; and how many of them every suspended context has. */
#if defined(__x86_64__)
#define HEIST__CTX_FIRST_FRAME 88
#define HEIST__CTX_FRAME 72
#elif defined(__aarch64__)
#define HEIST__CTX_FIRST_FRAME 192
#define HEIST__CTX_FRAME 176
#else
#error "no context switch for this machine: see ctx_x86_64.S for what one must do"
#endif

/* Said in the declaration too, so that no call goes by way of a table. */
#define HEIST__CTX_HIDDEN __attribute__((visibility("hidden")))

/* Saves the caller's context on its stack and its stack pointer in *save, then
 * continues at the context `to`, where the switch that saved it returns payload.
 * Returns when somebody switches back, with the payload that he passed. */
HEIST__CTX_HIDDEN void *heist__ctx_switch(void **save, void *to, void *payload);

/* The same without a call instruction, where the machine gains by it.  The processor remembers where each call came
 * from and predicts the next return with it; of a call that ends in a jump to another stack the memory stays behind,
 * and the next return goes wrong.  So the return address is pushed by hand.  Nothing of the caller may stand below the
 * stack pointer: what includes this is compiled with -mno-red-zone.  A debugger sees the same frame either way. */
static inline __attribute__((always_inline)) void *heist__ctx_jump(void **save, void *to, void *payload) {
#if defined(__x86_64__)
    void *answer;
    __asm__ volatile("leaq 1f(%%rip), %%rax\n\t"
                     "pushq %%rax\n\t"
                     "jmp heist__ctx_switch\n"
                     "1:"
                     : "=a"(answer), "+D"(save), "+S"(to), "+d"(payload)
                     :
                     : "rcx", "r8", "r9", "r10", "r11", "cc", "memory", "st", "st(1)", "st(2)", "st(3)", "st(4)",
                       "st(5)", "st(6)", "st(7)", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
#if defined(__AVX512F__)
                       ,
                       "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25",
                       "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6", "k7"
#endif
    );
    return answer;
#else
    return heist__ctx_switch(save, to, payload);
#endif
}

/* Prepares an empty stack: the first switch to the returned context calls
 * entry(payload) there.  entry never returns.  stack_top is aligned to 16 bytes;
 * the frame lies just below it. */
HEIST__CTX_HIDDEN void *heist__ctx_init(void *stack_top, void (*entry)(void *payload));

/* A look at a suspended context from its own side: in a copy of its stack, for what stands there must not run.
 * Rewrites the copied context `saved`, so that a switch to what is returned, with `look` as payload, calls
 * look->fn(look) as if the suspended function called it where it stands: an unwinder finds that one as the caller.
 * fn must leave by a switch.  HEIST__CTX_LOOK_ROOM bytes below `saved` are overwritten. */
#define HEIST__CTX_LOOK_ROOM 8
struct heist__ctx_look {
    void (*fn)(struct heist__ctx_look *look); /* the first three are known to the assembly */
    uint64_t return_address, kept;
};
HEIST__CTX_HIDDEN void *heist__ctx_look_from(void *saved, struct heist__ctx_look *look);
/* Where it arrives: no function to call. */
HEIST__CTX_HIDDEN extern const char heist__ctx_look_entry[];

/* The control words of the floating-point unit, packed: now, and those of a saved context. */
static inline uint64_t heist__ctx_fp(void) {
#if defined(__x86_64__)
    uint32_t mxcsr;
    uint16_t x87cw;
    __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(mxcsr), "=m"(x87cw));
    return (uint64_t)(mxcsr & 0xffc0) << 16 | x87cw; /* without the flags of past operations */
#else
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    return fpcr;
#endif
}

static inline uint64_t heist__ctx_fp_of(const void *saved) {
#if defined(__x86_64__)
    const uint32_t *words = saved; /* the foot of the frame */
    return (uint64_t)(words[0] & 0xffc0) << 16 | (words[2] & 0xffff);
#else
    return *(const uint64_t *)saved;
#endif
}

static inline void heist__ctx_set_fp(uint64_t fp) {
#if defined(__x86_64__)
    uint32_t mxcsr = (uint32_t)(fp >> 16);
    uint16_t x87cw = (uint16_t)fp;
    /* fnclex: flags that were raised under another mask would trap under this one; see ctx_x86_64.S */
    __asm__ volatile("fnclex\n\tldmxcsr %0\n\tfldcw %1" : : "m"(mxcsr), "m"(x87cw));
#else
    __asm__ volatile("msr fpcr, %0" : : "r"(fp));
#endif
}

/* Where a first frame starts: no function to call, an address to jump to. */
HEIST__CTX_HIDDEN extern const char heist__ctx_entry[];

#endif
