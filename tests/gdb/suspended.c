/* A program with one suspended coroutine, for test_backtrace.sh to look at: it stops
 * in look_here, first inside the coroutine, then outside with the coroutine asleep. */
#include <stdlib.h>
#include <string.h>

#include "coro/coro.h"

void look_here(void);
int inner_body(int depth);
void outer_body(void *payload);

static struct heist__host host;
struct heist__coro *sleeper;

HEIST_NOINLINE void look_here(void) { __asm__ volatile("" ::: "memory"); }

HEIST_NOINLINE int inner_body(int depth) {
    volatile int here = depth;
    if (depth > 0) return inner_body(depth - 1) + here;
    look_here();
    heist__coro_leave(&host, sleeper, NULL);
    return here;
}

HEIST_NOINLINE void outer_body(void *payload) {
    (void)payload;
    int sum = inner_body(2);
    heist__coro_exit(&host, sleeper, &sum);
}

int main(void) {
    struct heist__stack *s;
    if (heist__stack_get(NULL, 65536, &s) < 0) return 1;
    heist__host_init(&host);
    sleeper = heist__coro_new(s, outer_body);
    heist__coro_enter(&host, sleeper, NULL);
    look_here();
    heist__coro_enter(&host, sleeper, NULL);
    heist__coro_free(sleeper);
    heist__stack_put(NULL, s);
    return heist__stack_pool_release() ? 0 : 1;
}
