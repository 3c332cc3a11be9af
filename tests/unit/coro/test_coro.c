/* Coroutines by hand: enter, leave, exit, abandon, and one that moves between threads.
 *
 * What runs on a coroutine's stack records; the test asserts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coro/coro.h"
#include "support/pace.h"

static struct heist__stack_cache cache;
static struct heist__host host;

/* What each test's coroutine is given at its first enter. */
struct job {
    struct heist__coro *coro;
    struct heist__host *host; /* whoever entered last */
    long a, b;
};

static int begin(void **state) {
    (void)state;
    memset(&cache, 0, sizeof cache);
    heist__host_init(&host);
    return 0;
}

static int nothing_is_left(void **state) {
    (void)state;
    heist__stack_cache_flush(&cache);
    return heist__stack_pool_release() ? 0 : -1;
}

static int try_make(struct job *j, size_t stack_bytes, void (*entry)(void *)) {
    struct heist__stack *s;
    memset(j, 0, sizeof *j);
    int err = heist__stack_get(&cache, stack_bytes, &s);
    if (err < 0) return err;
    j->coro = heist__coro_new(s, entry);
    j->host = &host;
    return 0;
}

static void make(struct job *j, size_t stack_bytes, void (*entry)(void *)) {
    assert_int_equal(try_make(j, stack_bytes, entry), 0);
}

static void end(struct job *j) {
    struct heist__stack *s = j->coro->stack;
    heist__coro_free(j->coro);
    heist__stack_put(&cache, s);
}

static void *enter(struct job *j) { return heist__coro_enter(j->host, j->coro, j); }

static void count_to_three(void *payload) {
    struct job *j = payload;
    for (j->a = 1; j->a < 3; j->a++) j = heist__coro_leave(j->host, j->coro, &j->a);
    heist__coro_exit(j->host, j->coro, NULL);
}

static void enter_returns_what_leave_and_exit_pass(void **state) {
    (void)state;
    struct job j;
    make(&j, 65536, count_to_three);
    assert_ptr_equal(enter(&j), &j.a);
    assert_int_equal(j.a, 1);
    assert_ptr_equal(enter(&j), &j.a);
    assert_int_equal(j.a, 2);
    assert_null(enter(&j));
    assert_int_equal(j.a, 3);
    assert_true(j.coro->exited);
    end(&j);
}

static void a_stack_serves_many_coroutines_in_turn(void **state) {
    (void)state;
    struct job j;
    for (int i = 0; i < 2000; i++) {
        make(&j, 16384, count_to_three);
        while (enter(&j)) continue;
        end(&j);
    }
    heist__stack_cache_flush(&cache);
    assert_true(heist__stack_trimmable() == 1);
}

static void abandoned_coroutines_leave_their_stack_to_others(void **state) {
    (void)state;
    struct job j;
    for (int i = 0; i < 200; i++) {
        make(&j, 16384, count_to_three);
        for (int n = 0; n < i % 3; n++) enter(&j);
        assert_false(j.coro->exited);
        end(&j);
    }
}

static long deepen(volatile char *above, long left) {
    volatile char frame[256];
    frame[0] = above[0];
    if (left < 700) return 1;
    long depth = deepen(frame, left - (above - frame));
    return depth + frame[0];
}

static void use_the_stack_up(void *payload) {
    struct job *j = payload;
    volatile char here[1] = {0};
    long room = (long)((char *)here - j->coro->stack->lo);
#if HEIST_ASAN || HEIST_TSAN || HEIST_VALGRIND
    room -= 4096; /* the detectors' own calls */
#endif
    j->a = deepen(here, room - 512);
    heist__coro_exit(j->host, j->coro, NULL);
}

static void recursion_may_use_the_whole_stack(void **state) {
    (void)state;
    for (size_t bytes = 16384; bytes <= 1 << 20; bytes *= 4) {
        struct job j;
        make(&j, bytes, use_the_stack_up);
        enter(&j);
        assert_true(j.a > 0);
        assert_true(heist__stack_high_water(j.coro->stack) >= bytes / 2);
        end(&j);
    }
}

/* ThreadSanitizer has room for 8,000 fibres and threads; valgrind looks through all
 * stacks at each switch. */
#define MANY (HEIST_TSAN ? 2000 : HEIST_VALGRIND ? 300 : 100000)

static void many_coroutines_sleep_at_once_in_a_page_each(void **state) {
    (void)state;
    struct job *j = calloc(MANY, sizeof *j);
    int n = 0;
    /* On a kernel without guard advice the limit of mappings comes earlier. */
    while (n < MANY && try_make(&j[n], 65536, count_to_three) == 0) enter(&j[n++]);
    assert_true(n >= 300);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < n; i += n / 100) {
        size_t high = heist__stack_high_water(j[i].coro->stack);
#if HEIST__SAN_ANY || !defined(__OPTIMIZE__)
        assert_true(high <= 2 * page);
#else
        assert_int_equal(high, page);
#endif
    }
    /* In another order than they came. */
    for (int i = n; i-- > 0;) {
        assert_int_equal(j[i].a, 1);
        enter(&j[i]);
    }
    for (int i = 0; i < n; i++) {
        assert_null(enter(&j[i]));
        end(&j[i]);
    }
    free(j);
}

static void coroutines_enter_each_other_from_one_host(void *payload) {
    struct job *outer = payload;
    /* A coroutine may itself be a host. */
    struct heist__host here = *outer->host;
    struct job inner;
    struct heist__stack *s;
    if (heist__stack_get(&cache, 65536, &s) < 0) abort();
    memset(&inner, 0, sizeof inner);
    inner.coro = heist__coro_new(s, count_to_three);
    inner.host = &here;
#if HEIST__SAN_ANY
    /* The detectors' host is the stack we are on. */
    here.san.lo = outer->coro->stack->lo;
    here.san.bytes = (size_t)((char *)heist__stack_top(outer->coro->stack) - outer->coro->stack->lo);
    here.san.fiber = outer->coro->san.fiber;
#endif
    while (heist__coro_enter(&here, inner.coro, &inner)) outer = heist__coro_leave(outer->host, outer->coro, outer);
    outer->a = inner.a;
    heist__coro_free(inner.coro);
    heist__stack_put(&cache, s);
    heist__coro_exit(outer->host, outer->coro, NULL);
}

static void hosts_nest(void **state) {
    (void)state;
    struct job j;
    make(&j, 65536, coroutines_enter_each_other_from_one_host);
    assert_non_null(enter(&j));
    assert_non_null(enter(&j));
    assert_null(enter(&j));
    assert_int_equal(j.a, 3);
    end(&j);
}

/* One coroutine, entered by turns from two threads. */
static HEIST_NOINLINE void note_thread(struct job *j) {
    static __thread char local;
    if (j->b && j->b != (long)(uintptr_t)&local) j->a++;
    j->b = (long)(uintptr_t)&local;
}

struct turn {
    struct pace pace; /* each turn is a hand-over between threads */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int whose;
    bool over;
    struct job job;
};

static void walk_about(void *payload) {
    struct job *j = payload;
    char kept[512];
    memset(kept, 0x33, sizeof kept);
    struct turn *t = heist_container_of(j, struct turn, job);
    while (pace_goes_on(&t->pace)) {
        note_thread(j);
        j = heist__coro_leave(j->host, j->coro, j);
        for (size_t n = 0; n < sizeof kept; n++)
            if (kept[n] != 0x33) j->a = -1000000;
    }
    heist__coro_exit(j->host, j->coro, NULL);
}

static void take_turns(struct turn *t, int me) {
    struct heist__host mine;
    heist__host_init(&mine);
    pthread_mutex_lock(&t->mutex);
    while (!t->over) {
        if (t->whose != me) {
            pthread_cond_wait(&t->changed, &t->mutex);
            continue;
        }
        t->job.host = &mine;
        if (!enter(&t->job)) t->over = true;
        t->whose = 1 - me;
        pthread_cond_signal(&t->changed);
    }
    pthread_mutex_unlock(&t->mutex);
}

static void *second_thread(void *t) {
    take_turns(t, 1);
    return NULL;
}

static void a_coroutine_resumes_on_another_thread(void **state) {
    (void)state;
    static struct turn t = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    pthread_t other;
    t.pace = pace_of(1000, 10, 3);
    make(&t.job, 65536, walk_about);
    assert_int_equal(pthread_create(&other, NULL, second_thread, &t), 0);
    take_turns(&t, 0);
    pthread_join(other, NULL);
    assert_int_equal(t.job.a, t.pace.played - 1);
    assert_true(t.job.coro->exited);
    end(&t.job);
}

int main(void) {
#define CORO_TEST(fn) cmocka_unit_test_setup_teardown(fn, begin, nothing_is_left)
    const struct CMUnitTest tests[] = {
        CORO_TEST(enter_returns_what_leave_and_exit_pass),
        CORO_TEST(a_stack_serves_many_coroutines_in_turn),
        CORO_TEST(abandoned_coroutines_leave_their_stack_to_others),
        CORO_TEST(recursion_may_use_the_whole_stack),
        CORO_TEST(many_coroutines_sleep_at_once_in_a_page_each),
        CORO_TEST(hosts_nest),
        CORO_TEST(a_coroutine_resumes_on_another_thread),
    };
    return cmocka_run_group_tests_name("coro/coro", tests, NULL, NULL);
}
