/* What the detectors must be told when a thread changes stacks.
 *
 * Each detector believes that a thread has one stack.  AddressSanitizer wants the
 * bounds of the stack that is entered, before and after; ThreadSanitizer a fibre
 * for each; valgrind a registration of the memory.  Called by coro.h around each
 * switch and by coro.c at birth and death; on the thread that switches.
 *
 * In a build without detectors every function here is empty and the structures
 * have no members; enter and leave are then the bare switch.
 *
 * ThreadSanitizer: a fibre is dear to make and the detector has room for about 8,000,
 * so it is kept in the stack's header and serves the next coroutine there.  A run
 * leaves the few calls of its last frames on the fibre's record, so after some runs,
 * or when a coroutine is abandoned in mid-flight, it is replaced.  The switch itself
 * counts as synchronisation (flag 0): whoever resumes has seen what was done before.
 *
 * AddressSanitizer with detect_stack_use_after_return: the fake frames of a coroutine
 * that is abandoned while suspended are not given back. */
#ifndef HEIST_CORO_FIBER_SAN_H
#define HEIST_CORO_FIBER_SAN_H

#include <stddef.h>

#include "base/macros.h"
#include "mem/stack.h"

#ifndef HEIST_VALGRIND
#define HEIST_VALGRIND 0
#endif
#define HEIST__SAN_ANY (HEIST_ASAN || HEIST_TSAN || HEIST_VALGRIND)

/* Whatever tells a detector of a switch must not be a call: ThreadSanitizer notes a
 * function's entry on the fibre that ran then and its end on the fibre that runs then. */
#define HEIST__SWITCH_INLINE inline __attribute__((always_inline))

#if HEIST_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#if HEIST_TSAN
#include <sanitizer/tsan_interface.h>
#endif

#if HEIST__SAN_ANY
struct heist__san_host {
    const void *lo; /* the thread's own stack */
    size_t bytes;
    void *fake_stack; /* of the host while a coroutine runs */
    void *fiber;      /* the thread itself */
    int asks;         /* the first frame that it enters tells it the bounds above */
};
struct heist__san_coro {
    void (*entry)(void *payload);
    void *fake_stack; /* of the coroutine while it is suspended */
    void *fiber;
    unsigned valgrind_id;
    unsigned runs; /* on this fibre; outlives the coroutine */
};

void heist__san_host_init(struct heist__san_host *h);
/* Returns the function to start instead of entry. */
void (*heist__san_coro_init(struct heist__san_coro *c, struct heist__stack *s, void (*entry)(void *payload)))(void *);
void heist__san_coro_deinit(struct heist__san_coro *c, struct heist__stack *s, int exited);

/* The coroutine that this thread enters, for its first frame, and the host that wants to know the bounds of the stack
 * it enters from (nested), or NULL: written at each enter. */
void heist__san_set_entering(struct heist__san_coro *c, struct heist__san_host *nested);

/* Host side, right before and right after the switch into c. */
static HEIST__SWITCH_INLINE void heist__san_enter(struct heist__san_host *h, struct heist__san_coro *c,
                                                  struct heist__stack *s) {
    (void)s;
    heist__san_set_entering(c, h->asks ? h : NULL);
#if HEIST_ASAN
    __sanitizer_start_switch_fiber(&h->fake_stack, s->lo, (size_t)((char *)heist__stack_top(s) - s->lo));
#endif
#if HEIST_TSAN
    __tsan_switch_to_fiber(c->fiber, 0);
#endif
}

static HEIST__SWITCH_INLINE void heist__san_entered(struct heist__san_host *h) {
    (void)h;
#if HEIST_ASAN
    __sanitizer_finish_switch_fiber(h->fake_stack, NULL, NULL);
#endif
}

/* Coroutine side, right before leaving for h (last: it never comes back), and right after coming back. */
static HEIST__SWITCH_INLINE void heist__san_leave(struct heist__san_host *h, struct heist__san_coro *c, int last) {
    (void)h;
    (void)c;
    (void)last;
#if HEIST_ASAN
    __sanitizer_start_switch_fiber(last ? NULL : &c->fake_stack, h->lo, h->bytes);
#endif
#if HEIST_TSAN
    __tsan_switch_to_fiber(h->fiber, 0);
#endif
}

static HEIST__SWITCH_INLINE void heist__san_left(struct heist__san_coro *c) {
    (void)c;
#if HEIST_ASAN
    __sanitizer_finish_switch_fiber(c->fake_stack, NULL, NULL);
#endif
}

/* The same two where the host stands on any stack (coro.h, nested). */
static HEIST__SWITCH_INLINE void heist__san_enter_nested(struct heist__san_host *h, struct heist__san_coro *c,
                                                         struct heist__stack *s) {
    (void)s;
    heist__san_set_entering(c, h);
#if HEIST_ASAN
    __sanitizer_start_switch_fiber(&h->fake_stack, s->lo, (size_t)((char *)heist__stack_top(s) - s->lo));
#endif
#if HEIST_TSAN
    h->fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(c->fiber, 0);
#endif
}

static HEIST__SWITCH_INLINE void heist__san_left_nested(struct heist__san_host *h, struct heist__san_coro *c) {
    (void)h;
    (void)c;
#if HEIST_ASAN
    __sanitizer_finish_switch_fiber(c->fake_stack, &h->lo, &h->bytes);
#endif
}
#endif

#endif
