/* Two threads that grew the pool of stacks at once took the other's success for exhaustion.
 *
 * A thread that finds the pool empty maps an arena with the lock dropped.  When another had
 * been quicker, it unmapped its own and looked into the other's arena once; if that had been
 * drained meanwhile, it answered -ENOMEM, and a task ended without ever running although
 * memory was plenty.
 *
 * Several threads start from an empty pool and together want more stacks than one arena
 * holds, so that they grow it side by side, many times over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "mem/stack.h"

enum { THREADS = 4, STACKS = 200, ROUNDS = 150 };

static pthread_barrier_t barrier;
static bool pool_was_empty = true;

struct grower {
    struct heist__stack_cache cache;
    struct heist__stack *stacks[STACKS];
    int number, refused;
};

static void *grow(void *arg) {
    struct grower *g = arg;
    for (int round = 0; round < ROUNDS; round++) {
        int got = 0;
        pthread_barrier_wait(&barrier);
        for (int i = 0; i < STACKS; i++) {
            if (heist__stack_get(&g->cache, HEIST__STACK_MIN << (round % 3), &g->stacks[got]) == 0) got++;
            else g->refused++;
        }
        for (int i = 0; i < got; i++) heist__stack_put(&g->cache, g->stacks[i]);
        heist__stack_cache_flush(&g->cache);
        pthread_barrier_wait(&barrier);
        if (g->number == 0 && !heist__stack_pool_release()) pool_was_empty = false;
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

static void threads_that_grow_the_pool_together_are_not_refused(void **state) {
    (void)state;
    static struct grower growers[THREADS];
    pthread_t threads[THREADS];
    memset(growers, 0, sizeof growers);
    assert_int_equal(pthread_barrier_init(&barrier, NULL, THREADS), 0);
    for (int i = 0; i < THREADS; i++) {
        growers[i].number = i;
        if (pthread_create(&threads[i], NULL, grow, &growers[i]) != 0) abort();
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&barrier);
    for (int i = 0; i < THREADS; i++) assert_int_equal(growers[i].refused, 0);
    assert_true(pool_was_empty);
    assert_int_equal(heist__stack_outside(), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_that_grow_the_pool_together_are_not_refused),
    };
    return cmocka_run_group_tests_name("bug_stack_pool_growth", tests, NULL, NULL);
}
