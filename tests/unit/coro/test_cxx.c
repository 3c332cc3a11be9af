/* The C++ runtime's words of a thread follow the coroutine: here the test is that runtime.
 *
 * It defines the one function by which the real one is asked, so the test needs no C++;
 * tests/migration throws real exceptions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "coro/coro.h"

/* The library refers to it weakly; a program with a C++ runtime has it from there. */
struct heist__cxx_globals *__cxa_get_globals(void);

static _Thread_local struct heist__cxx_globals globals;

/* Never inlined: who asks gets the words of the thread on which it runs now. */
HEIST_NOINLINE struct heist__cxx_globals *__cxa_get_globals(void) {
    struct heist__cxx_globals *g = &globals;
    __asm__ volatile("" : "+r"(g) : : "memory");
    return g;
}

static struct heist__stack_cache cache;

struct job {
    struct heist__coro *coro;
    struct heist__host *host; /* whoever entered last */
    struct heist__cxx_globals seen[3];
};

static char exception[2]; /* two, by address */

static bool is(struct heist__cxx_globals g, void *caught, unsigned uncaught) {
    return g.caught == caught && g.uncaught == uncaught;
}

/* Catches one exception, leaves, has another in flight, leaves, ends both. */
static void catches(void *payload) {
    struct job *j = payload;
    j->seen[0] = *__cxa_get_globals();
    __cxa_get_globals()->caught = &exception[0];
    j = heist__coro_leave(j->host, j->coro, j);
    j->seen[1] = *__cxa_get_globals();
    __cxa_get_globals()->uncaught = 1;
    j = heist__coro_leave(j->host, j->coro, j);
    j->seen[2] = *__cxa_get_globals();
    *__cxa_get_globals() = (struct heist__cxx_globals){NULL, 0};
    heist__coro_exit(j->host, j->coro, NULL);
}

static void make(struct job *j) {
    struct heist__stack *s;
    memset(j, 0, sizeof *j);
    assert_int_equal(heist__stack_get(&cache, 65536, &s), 0);
    j->coro = heist__coro_new(s, catches);
}

static void end(struct job *j) {
    struct heist__stack *s = j->coro->stack;
    heist__coro_free(j->coro);
    heist__stack_put(&cache, s);
}

static void *enter_once(void *arg) {
    struct job *j = arg;
    struct heist__host host;
    heist__host_init(&host);
    j->host = &host;
    heist__coro_enter(&host, j->coro, j);
    j->host = NULL;
    return NULL;
}

static void enter_in_another_thread(struct job *j) {
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, enter_once, j), 0);
    pthread_join(thread, NULL);
}

static int nothing_is_left(void **state) {
    (void)state;
    globals = (struct heist__cxx_globals){NULL, 0};
    heist__stack_cache_flush(&cache);
    return heist__stack_pool_release() ? 0 : -1;
}

static void exceptions_stay_with_their_coroutine(void **state) {
    (void)state;
    struct job a, b;
    make(&a);
    make(&b);
    globals = (struct heist__cxx_globals){&exception[1], 7}; /* the host's own */
    for (int step = 0; step < 3; step++) {
        enter_once(&a);
        assert_true(is(globals, &exception[1], 7));
        enter_once(&b);
        assert_true(is(globals, &exception[1], 7));
    }
    for (struct job *j = &a; j; j = j == &a ? &b : NULL) {
        assert_true(is(j->seen[0], NULL, 0));
        assert_true(is(j->seen[1], &exception[0], 0));
        assert_true(is(j->seen[2], &exception[0], 1));
        end(j);
    }
}

static void exceptions_follow_to_another_thread(void **state) {
    (void)state;
    struct job j;
    make(&j);
    enter_once(&j);
    assert_true(is(globals, NULL, 0));
    enter_in_another_thread(&j);
    assert_true(is(globals, NULL, 0));
    enter_once(&j);
    assert_true(is(globals, NULL, 0));
    assert_true(is(j.seen[1], &exception[0], 0));
    assert_true(is(j.seen[2], &exception[0], 1));
    end(&j);
}

/* ---- nested: one coroutine drives another, and leaves its thread from within it ---- */

struct nest {
    struct heist__coro *outer, *inner;
    struct heist__host *thread; /* whoever entered the outer one last */
    struct heist__host between; /* where the outer one stands while the inner one runs */
    struct heist__cxx_globals inner_seen[2], outer_seen[2];
};

static void inner(void *payload) {
    struct nest *n = payload;
    n->inner_seen[0] = *__cxa_get_globals();
    __cxa_get_globals()->caught = &exception[1];
    heist__coro_leave(n->thread, n->outer, n); /* all that stands here waits; another thread may enter */
    n->inner_seen[1] = *__cxa_get_globals();
    *__cxa_get_globals() = (struct heist__cxx_globals){NULL, 0};
    heist__coro_exit(&n->between, n->inner, NULL);
}

static void drives(void *payload) {
    struct nest *n = payload;
    struct heist__coro_below below;
    n->outer_seen[0] = *__cxa_get_globals();
    __cxa_get_globals()->caught = &exception[0];
    heist__coro_push(n->outer, n->inner, &below);
    heist__coro_enter_nested(&n->between, n->inner, n);
    heist__coro_pop(n->outer, &below);
    n->outer_seen[1] = *__cxa_get_globals();
    *__cxa_get_globals() = (struct heist__cxx_globals){NULL, 0};
    heist__coro_exit(n->thread, n->outer, NULL);
}

static void *enter_nest(void *arg) {
    struct nest *n = arg;
    struct heist__host host;
    heist__host_init(&host);
    n->thread = &host;
    *__cxa_get_globals() = (struct heist__cxx_globals){n, 9}; /* this thread's own */
    heist__coro_enter(&host, n->outer, n);
    return is(*__cxa_get_globals(), n, 9) ? n : NULL;
}

static void exceptions_of_nested_ones_stay_with_each_across_threads(void **state) {
    (void)state;
    struct nest n;
    struct heist__stack *s[2];
    pthread_t thread;
    void *kept = NULL;
    memset(&n, 0, sizeof n);
    for (int i = 0; i < 2; i++) assert_int_equal(heist__stack_get(&cache, 65536, &s[i]), 0);
    n.outer = heist__coro_new(s[0], drives);
    n.inner = heist__coro_new(s[1], inner);
    assert_ptr_equal(enter_nest(&n), &n);
    assert_ptr_equal(n.outer->stack, s[1]); /* the one on top */
    assert_int_equal(pthread_create(&thread, NULL, enter_nest, &n), 0);
    pthread_join(thread, &kept);
    assert_ptr_equal(kept, &n);
    assert_ptr_equal(n.outer->stack, s[0]);
    assert_true(is(n.inner_seen[0], NULL, 0));
    assert_true(is(n.inner_seen[1], &exception[1], 0));
    assert_true(is(n.outer_seen[0], NULL, 0));
    assert_true(is(n.outer_seen[1], &exception[0], 0));
    heist__coro_free(n.inner);
    heist__coro_free(n.outer);
    for (int i = 0; i < 2; i++) heist__stack_put(&cache, s[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(exceptions_stay_with_their_coroutine, nothing_is_left),
        cmocka_unit_test_teardown(exceptions_follow_to_another_thread, nothing_is_left),
        cmocka_unit_test_teardown(exceptions_of_nested_ones_stay_with_each_across_threads, nothing_is_left),
    };
    return cmocka_run_group_tests_name("coro/cxx", tests, NULL, NULL);
}
