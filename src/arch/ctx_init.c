/* Writes the first frame of an empty stack.
 *
 * Called by coro/ on any thread, once for each coroutine; touches the
 * HEIST__CTX_FIRST_FRAME bytes below stack_top and nothing else, so that a coroutine
 * that has not run yet costs the one page its stack's header lies in.
 * Invariant: what is written here is what heist__ctx_switch pops; the frames are
 * drawn in ctx_x86_64.S and ctx_aarch64.S. */
#include "arch/ctx.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)

struct frame {
    uint32_t mxcsr, pad0;
    uint16_t x87cw, pad1[3];
    uint64_t r15, r14, r13, r12, rbx, rbp;
    uint64_t return_address;
    uint64_t end[2]; /* 0 where a walk without tables looks for the entry's caller; two, so that the stack
                      * pointer is a multiple of 16 where the trampoline calls */
};

#elif defined(__aarch64__)

struct frame {
    uint64_t fpcr, pad;
    uint64_t x19_x28[10];
    uint64_t x29, x30;
    uint64_t d8_d15[8];
    uint64_t end[2]; /* the frame record at which frame-pointer walks end */
};

#endif

_Static_assert(sizeof(struct frame) == HEIST__CTX_FIRST_FRAME, "the frame is drawn in the assembly");
_Static_assert(offsetof(struct frame, end) == HEIST__CTX_FRAME, "what a switch pops");
/* The entry finds its stack aligned: what is left when the frame was popped is whole. */
_Static_assert(sizeof(((struct frame *)0)->end) % 16 == 0, "the stack stays aligned");
_Static_assert(sizeof(((struct frame *)0)->end) % 16 == 0, "the stack is aligned at the entry");

/* A new coroutine starts with the control words of the thread that makes it, as a
 * new thread would. */
void *heist__ctx_init(void *stack_top, void (*entry)(void *payload)) {
    struct frame *f = (struct frame *)stack_top - 1;
    memset(f, 0, sizeof *f);
#if defined(__x86_64__)
    __asm__ volatile("stmxcsr %0" : "=m"(f->mxcsr));
    __asm__ volatile("fnstcw %0" : "=m"(f->x87cw));
    f->rbx = (uint64_t)(uintptr_t)entry;
    f->return_address = (uint64_t)(uintptr_t)heist__ctx_entry;
#elif defined(__aarch64__)
    __asm__ volatile("mrs %0, fpcr" : "=r"(f->fpcr));
    f->x19_x28[0] = (uint64_t)(uintptr_t)entry;
    f->x30 = (uint64_t)(uintptr_t)heist__ctx_entry;
#endif
    return f;
}

/* x86-64: the frame moves down by a word, so that the return address stays where a call would have pushed it, and a
 * jump to the entry leaves the stack as after that call.  AArch64: a call leaves its return address in x30, where the
 * switch finds whither it goes; the entry loads both registers that it costs. */
void *heist__ctx_look_from(void *saved, struct heist__ctx_look *look) {
    struct frame f;
    memcpy(&f, saved, HEIST__CTX_FRAME);
#if defined(__x86_64__)
    look->return_address = f.return_address;
    f.return_address = (uint64_t)(uintptr_t)heist__ctx_look_entry;
    saved = (char *)saved - HEIST__CTX_LOOK_ROOM;
#elif defined(__aarch64__)
    look->return_address = f.x30;
    look->kept = f.x19_x28[0];
    f.x30 = (uint64_t)(uintptr_t)heist__ctx_look_entry;
#endif
    memcpy(saved, &f, HEIST__CTX_FRAME);
    return saved;
}
