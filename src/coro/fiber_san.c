/* The slow half of fiber_san.h: birth, first frame and death of what the detectors
 * keep.  Empty in a build without one.
 *
 * Called by coro.c; the first frame runs in the coroutine.
 * Invariant: in a build for ThreadSanitizer a stack's san_fiber is its fibre or NULL,
 * and whoever drops the header's page (mem/stack.c) ends the fibre first. */
#include "coro/fiber_san.h"

#if HEIST__SAN_ANY

#include <pthread.h>

#if HEIST_VALGRIND
#include <valgrind/valgrind.h>
#endif

/* The first frame of a coroutine is called with its payload only; the thread that
 * enters leaves word here of whom.  Each access is a call, so that no address of a
 * thread-local is kept across a switch. */
static _Thread_local struct heist__san_coro *entering;
static _Thread_local struct heist__san_host *entering_from; /* nested, or NULL */

HEIST_NOINLINE void heist__san_set_entering(struct heist__san_coro *c, struct heist__san_host *nested) {
    entering = c;
    entering_from = nested;
}

static HEIST_NOINLINE struct heist__san_coro *get_entering(struct heist__san_host **from) {
    *from = entering_from;
    return entering;
}

static void first_frame(void *payload) {
    struct heist__san_host *from;
    struct heist__san_coro *c = get_entering(&from);
#if HEIST_ASAN
    __sanitizer_finish_switch_fiber(NULL, from ? &from->lo : NULL, from ? &from->bytes : NULL);
#else
    (void)from;
#endif
    c->entry(payload);
}

#if HEIST_TSAN
/* How many runs a fibre serves.  Each leaves a few entries of the 65,536 that a fibre's
 * record of calls has room for. */
#define RUNS_PER_FIBER 256u

static void end_fiber(struct heist__stack *s) {
    if (s->san_fiber) __tsan_destroy_fiber(s->san_fiber);
    s->san_fiber = NULL;
}
#endif

void heist__san_host_init(struct heist__san_host *h) {
    h->lo = NULL;
    h->bytes = 0;
    h->fake_stack = NULL;
    h->fiber = NULL;
    h->asks = 0;
#if HEIST_ASAN
    pthread_attr_t attr;
    if (pthread_getattr_np(pthread_self(), &attr) == 0) {
        void *lo;
        if (pthread_attr_getstack(&attr, &lo, &h->bytes) == 0) h->lo = lo;
        pthread_attr_destroy(&attr);
    }
#endif
#if HEIST_TSAN
    h->fiber = __tsan_get_current_fiber();
#endif
}

void (*heist__san_coro_init(struct heist__san_coro *c, struct heist__stack *s, void (*entry)(void *payload)))(void *) {
    (void)s;
    c->entry = entry;
    c->fake_stack = NULL;
    c->fiber = NULL;
#if HEIST_TSAN
    if (!s->san_fiber) {
        s->san_fiber = __tsan_create_fiber(0);
        c->runs = 0;
    }
    c->runs++;
    c->fiber = s->san_fiber;
#endif
#if HEIST_VALGRIND
    c->valgrind_id = (unsigned)VALGRIND_STACK_REGISTER(s->lo, heist__stack_top(s));
#endif
    return first_frame;
}

void heist__san_coro_deinit(struct heist__san_coro *c, struct heist__stack *s, int exited) {
    (void)c;
    (void)s;
    (void)exited;
#if HEIST_TSAN
    if (!exited || c->runs >= RUNS_PER_FIBER) end_fiber(s);
    c->fiber = NULL;
#endif
#if HEIST_VALGRIND
    VALGRIND_STACK_DEREGISTER(c->valgrind_id);
#endif
}

#else

typedef int heist__fiber_san_is_empty; /* a file needs a declaration */

#endif
