/* Birth and death of a coroutine; enter and leave are in the header.
 *
 * Called by whoever runs coroutines (sched/), on any thread: a coroutine is nobody's
 * between its last leave and its next enter.  Owns nothing: the structure and the
 * frames lie in the caller's stack.
 * Invariant: a coroutine that was not entered yet has touched no page but the one of
 * its stack's header. */
#include "coro/coro.h"

_Static_assert(sizeof(struct heist__coro) <= HEIST__STACK_USER_BYTES, "a coroutine lies in its stack's header");

void heist__host_init(struct heist__host *h) {
    h->sp = NULL;
    h->cxx = __cxa_get_globals ? __cxa_get_globals() : NULL;
#if HEIST__SAN_ANY
    heist__san_host_init(&h->san);
#endif
}

struct heist__coro *heist__coro_new(struct heist__stack *s, void (*entry)(void *payload)) {
    struct heist__coro *c = (void *)s->user;
    c->stack = s;
    c->caught = NULL;
    c->uncaught = 0;
    c->exited = false;
    c->entries = 0;
#if HEIST__SAN_ANY
    entry = heist__san_coro_init(&c->san, s, entry);
#endif
    c->sp = heist__ctx_init(heist__stack_top(s), entry);
    return c;
}

void heist__coro_free(struct heist__coro *c) {
#if HEIST__SAN_ANY
    heist__san_coro_deinit(&c->san, c->stack, c->exited);
#endif
    c->sp = NULL;
}
