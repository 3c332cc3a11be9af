/* A coroutine: a stack and a context.  Create, enter, leave; no tasks, no scheduler.
 *
 * The *host* is the side that enters: one for each thread that does, in whatever
 * frame calls heist__coro_enter.  A coroutine runs on one host at a time, and may
 * be entered by another host, on another thread, after it left: the caller orders
 * the two (release before acquire), for nothing here is atomic.
 *
 * The structure lies in the header of its stack, so a sleeping coroutine costs one
 * page and no other memory; it is gone when the stack is put back.
 *
 * C++ exceptions that are caught and not ended, or in flight, are kept by the C++ runtime
 * in two words of the thread.  They belong to whoever threw, so enter exchanges them with
 * the coroutine's own, and exchanges them back when it left: an exception follows its
 * coroutine to another thread, and the host's stay where they are.  Without a C++ runtime
 * in the process that is one test of a NULL pointer.
 *
 * Nested: the host may itself stand on a coroutine's stack (flow/generator.c drives a second coroutine from the first).
 * Then what the worker enters and leaves is the stack on top: the outermost coroutine's structure stays the one that
 * stands for them all, and its `stack` (and the detector's fibre) are the topmost's while that runs.
 *
 * Invariant: c->sp is valid exactly while c is suspended, h->sp exactly while h is
 * inside a coroutine; c->caught and c->uncaught are the coroutine's while it is
 * suspended, and the host's while it runs. */
#ifndef HEIST_CORO_CORO_H
#define HEIST_CORO_CORO_H

#include <stdbool.h>

#include "arch/ctx.h"
#include "base/macros.h"
#include "coro/fiber_san.h"
#include "mem/stack.h"

/* The C++ runtime's words of a thread, as the Itanium C++ ABI lays them out (2.2.2). */
struct heist__cxx_globals {
    void *caught;
    unsigned uncaught;
};

/* Of the C++ runtime, when the program has one: libstdc++, libc++abi. */
extern struct heist__cxx_globals *__cxa_get_globals(void) __attribute__((weak));

struct heist__host {
    void *sp;
    struct heist__cxx_globals *cxx; /* of the thread that enters; NULL without a C++ runtime */
#if HEIST__SAN_ANY
    struct heist__san_host san;
#endif
};

struct heist__coro {
    void *sp;
    struct heist__stack *stack; /* the one it lies in, or the topmost of those nested in it */
    void *caught;               /* see heist__cxx_globals */
    unsigned uncaught;
    bool exited;                /* it made its last leave */
    unsigned entries;           /* how often it was entered: who copies its stack (look.h) sees that it ran meanwhile */
#if HEIST__SAN_ANY
    struct heist__san_coro san;
#endif
};

/* On the thread that will enter. */
void heist__host_init(struct heist__host *h);

/* A coroutine on the stack s, whose first enter calls entry(payload).  entry never
 * returns: it ends with heist__coro_exit.  Touches the page of s's header only. */
struct heist__coro *heist__coro_new(struct heist__stack *s, void (*entry)(void *payload));

/* After exit, or for a suspended coroutine that nobody will enter again (its frames
 * are dropped as they are).  The stack stays the caller's, to be put back. */
void heist__coro_free(struct heist__coro *c);

/* Host side, before and after c runs. */
static HEIST__SWITCH_INLINE void heist__coro_exchange_exceptions(struct heist__cxx_globals *g, struct heist__coro *c) {
    void *caught = g->caught;
    unsigned uncaught = g->uncaught;
    g->caught = c->caught;
    g->uncaught = c->uncaught;
    c->caught = caught;
    c->uncaught = uncaught;
}

/* On the host's thread: what runs there has caught an exception that has not ended, or one is in flight. */
static inline bool heist__coro_in_exception(const struct heist__host *h) {
    return h->cxx && (h->cxx->caught || h->cxx->uncaught);
}

/* Host: runs c until it leaves or exits; returns what c passes then. */
static HEIST__SWITCH_INLINE void *heist__coro_enter(struct heist__host *h, struct heist__coro *c, void *payload) {
    c->entries++;
    if (h->cxx) heist__coro_exchange_exceptions(h->cxx, c);
#if HEIST__SAN_ANY
    heist__san_enter(&h->san, &c->san, c->stack);
#endif
    void *answer = heist__ctx_jump(&h->sp, c->sp, payload);
#if HEIST__SAN_ANY
    heist__san_entered(&h->san);
#endif
    if (h->cxx) heist__coro_exchange_exceptions(h->cxx, c);
    return answer;
}

/* Coroutine c, entered from h: back to h's enter, which returns payload.  Returns the
 * payload of the next enter, perhaps on ANOTHER thread and from another host: the
 * address of anything thread-local is stale, h included. */
static HEIST__SWITCH_INLINE void *heist__coro_leave(struct heist__host *h, struct heist__coro *c, void *payload) {
#if HEIST__SAN_ANY
    heist__san_leave(&h->san, &c->san, 0);
    void *answer = heist__ctx_switch(&c->sp, h->sp, payload);
    heist__san_left(&c->san);
    return answer;
#else
    return heist__ctx_jump(&c->sp, h->sp, payload);
#endif
}

/* The last leave. */
static HEIST__SWITCH_INLINE HEIST_NORETURN void heist__coro_exit(struct heist__host *h, struct heist__coro *c,
                                                                 void *payload) {
    c->exited = true;
#if HEIST__SAN_ANY
    heist__san_leave(&h->san, &c->san, 1);
#endif
    heist__ctx_switch(&c->sp, h->sp, payload);
    __builtin_unreachable();
}

/* Before the host makes the first enter of a coroutine from where the caller stands, be it a coroutine's stack.  The
 * caller keeps a copy of what the host was, and puts it back before he leaves that stack. */
static HEIST__SWITCH_INLINE void heist__host_stands_here(struct heist__host *h) {
    (void)h;
#if HEIST__SAN_ANY
    h->san.asks = 1;
#endif
#if HEIST_TSAN
    h->san.fiber = __tsan_get_current_fiber();
#endif
}

/* ---- nested ----
 *
 * As enter and leave, from wherever the caller stands: a thread's own stack, or a coroutine's.  Between the two the
 * thread may have become another, when c left it for a worker and was entered by another one; the host is the
 * caller's frame, and stays where it is.  So nothing of a thread is kept in *h: whose exceptions are the caller's
 * stands in his frame, and the bounds of his stack are told by the detector when c is entered. */

static HEIST__SWITCH_INLINE void *heist__coro_enter_nested(struct heist__host *h, struct heist__coro *c,
                                                           void *payload) {
    struct heist__cxx_globals *g, callers = {NULL, 0};
    if (__cxa_get_globals) {
        g = __cxa_get_globals();
        callers = *g;
        g->caught = c->caught;
        g->uncaught = c->uncaught;
    }
#if HEIST__SAN_ANY
    heist__san_enter_nested(&h->san, &c->san, c->stack);
#endif
    void *answer = heist__ctx_jump(&h->sp, c->sp, payload);
#if HEIST__SAN_ANY
    heist__san_entered(&h->san);
#endif
    if (__cxa_get_globals) {
        g = __cxa_get_globals(); /* of this thread, perhaps another */
        c->caught = g->caught;
        c->uncaught = g->uncaught;
        g->caught = callers.caught;
        g->uncaught = callers.uncaught;
    }
    return answer;
}

static HEIST__SWITCH_INLINE void *heist__coro_leave_nested(struct heist__host *h, struct heist__coro *c,
                                                           void *payload) {
#if HEIST__SAN_ANY
    heist__san_leave(&h->san, &c->san, 0);
    void *answer = heist__ctx_switch(&c->sp, h->sp, payload);
    heist__san_left_nested(&h->san, &c->san);
    return answer;
#else
    return heist__ctx_jump(&c->sp, h->sp, payload);
#endif
}

/* Around enter_nested, in a task whose coroutine is root: who suspends leaves with the stack of c on top. */
struct heist__coro_below {
    struct heist__stack *stack;
#if HEIST_TSAN
    void *fiber;
#endif
};

static HEIST__SWITCH_INLINE void heist__coro_push(struct heist__coro *root, struct heist__coro *c,
                                                  struct heist__coro_below *below) {
    below->stack = root->stack;
    root->stack = c->stack;
#if HEIST_TSAN
    below->fiber = root->san.fiber;
    root->san.fiber = c->san.fiber;
#endif
}

static HEIST__SWITCH_INLINE void heist__coro_pop(struct heist__coro *root, const struct heist__coro_below *below) {
    root->stack = below->stack;
#if HEIST_TSAN
    root->san.fiber = below->fiber;
#endif
}

#endif
