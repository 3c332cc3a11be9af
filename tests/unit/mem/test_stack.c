/* Guarded stacks: sizes, places, guards, caches, trimming, running out.
 *
 * After each test nothing may be left: the pool is released, which it refuses while
 * a stack is out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "mem/stack.h"

static struct heist__stack_cache cache;

static int begin(void **state) {
    (void)state;
    memset(&cache, 0, sizeof cache);
    return 0;
}

static int nothing_is_left(void **state) {
    (void)state;
    heist__stack_cache_flush(&cache);
    if (heist__stack_outside() != 0) return -1;
    return heist__stack_pool_release() && heist__stack_mapped() == 0 && heist__stack_trimmable() == 0 ? 0 : -1;
}

/* Asked of the kernel, so that nothing faults: false in a guard page. */
static bool readable(const void *at) {
    const struct timespec no_wait = {0, 0};
    void *word = (void *)((uintptr_t)at & ~(uintptr_t)3);
    return syscall(SYS_futex, word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 77, &no_wait, NULL, 0) == 0 || errno != EFAULT;
}

static int count_mappings(void) {
    FILE *f = fopen("/proc/self/maps", "re");
    int n = 0, c;
    while ((c = getc(f)) != EOF) n += c == '\n';
    fclose(f);
    return n;
}

static size_t resident_pages(char *lo, char *hi) {
    unsigned char map[64];
    size_t n = 0, page = (size_t)sysconf(_SC_PAGESIZE);
    for (; lo < hi; lo += page)
        if (mincore(lo, page, map) == 0) n += map[0] & 1;
    return n;
}

static char *page_of(void *p) { return (char *)((uintptr_t)p & ~((uintptr_t)sysconf(_SC_PAGESIZE) - 1)); }

static void sizes_round_up_and_outliers_are_refused(void **state) {
    (void)state;
    struct heist__stack *s = NULL;
    assert_int_equal(heist__stack_get(&cache, HEIST__STACK_MIN - 1, &s), -EINVAL);
    assert_int_equal(heist__stack_get(&cache, HEIST__STACK_MAX + 1, &s), -EINVAL);
    assert_int_equal(heist__stack_get(NULL, 0, &s), -EINVAL);
    assert_null(s);
    const size_t asked[] = {16384, 16385, 40000, 65536, 1 << 20, (8 << 20) - 1, 8 << 20};
    const size_t given[] = {16384, 32768, 65536, 65536, 1 << 20, 8 << 20, 8 << 20};
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        assert_int_equal(heist__stack_get(&cache, asked[i], &s), 0);
        assert_true(s->bytes >= given[i]);
        assert_int_equal(s->bytes & (s->bytes - 1), 0);
        assert_int_equal((uintptr_t)heist__stack_top(s) % 16, 0);
        /* All of it can be used, and the page below cannot. */
        s->lo[0] = 1;
        assert_true(readable(s->lo));
        assert_false(readable(s->lo - 1));
        assert_true((size_t)((char *)heist__stack_top(s) - s->lo) >= s->bytes - 4096 - 2048);
        heist__stack_put(&cache, s);
    }
}

static void guards_are_known_with_their_owner(void **state) {
    (void)state;
    struct heist__stack *s[100], *owner;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < 100; i++) assert_int_equal(heist__stack_get(&cache, 65536, &s[i]), 0);
    for (int i = 0; i < 100; i++) {
        assert_true(heist__stack_contains_guard(s[i]->lo - 1, &owner));
        assert_ptr_equal(owner, s[i]);
        assert_true(heist__stack_contains_guard(s[i]->lo - page, &owner));
        assert_ptr_equal(owner, s[i]);
        assert_false(heist__stack_contains_guard(s[i]->lo, &owner));
        assert_false(heist__stack_contains_guard(s[i], &owner));
    }
    assert_false(heist__stack_contains_guard(&page, &owner));
    assert_false(heist__stack_contains_guard(NULL, &owner));
    for (int i = 0; i < 100; i++) heist__stack_put(&cache, s[i]);
    assert_true(heist__stack_contains_guard(s[7]->lo - 1, &owner));
    assert_null(owner);
}

static void warm_stacks_come_back_last_in_first_out(void **state) {
    (void)state;
    struct heist__stack *s[20], *again;
    for (int i = 0; i < 20; i++) assert_int_equal(heist__stack_get(&cache, 65536, &s[i]), 0);
    for (int i = 0; i < 20; i++) heist__stack_put(&cache, s[i]);
    for (int i = 20; i-- > 0;) {
        assert_int_equal(heist__stack_get(&cache, 65536, &again), 0);
        assert_ptr_equal(again, s[i]);
    }
    for (int i = 0; i < 20; i++) heist__stack_put(&cache, s[i]);
}

static void no_page_is_touched_but_the_headers(void **state) {
    (void)state;
    enum { N = 100 };
    struct heist__stack *s[N];
    for (int i = 0; i < N; i++) {
        assert_int_equal(heist__stack_get(&cache, 65536, &s[i]), 0);
        /* The whole header lies in the highest page, with room for some frames. */
        assert_ptr_equal(page_of(s[i]), s[i]->lo - sysconf(_SC_PAGESIZE) + s[i]->bytes - sysconf(_SC_PAGESIZE));
        assert_true((char *)s[i] - page_of(s[i]) >= 2048);
    }
    for (int i = 0; i < N; i++) {
        assert_int_equal(resident_pages(s[i]->lo, page_of(s[i])), 0);
        assert_int_equal(heist__stack_high_water(s[i]), sysconf(_SC_PAGESIZE));
    }
    for (int i = 0; i < N; i++) heist__stack_put(&cache, s[i]);
    for (int i = 0; i < N; i++) assert_int_equal(resident_pages(s[i]->lo, page_of(s[i])), 0);
}

static void high_water_follows_the_deepest_page(void **state) {
    (void)state;
    struct heist__stack *s;
    assert_int_equal(heist__stack_get(&cache, 4 << 20, &s), 0);
    char *end = s->lo - sysconf(_SC_PAGESIZE) + s->bytes;
    end[-100000] = 1;
    size_t high = heist__stack_high_water(s);
    assert_true(high >= 100000 && high < 100000 + (size_t)sysconf(_SC_PAGESIZE));
    s->lo[0] = 1;
    assert_ptr_equal(end - heist__stack_high_water(s), s->lo);
    heist__stack_put(&cache, s);
}

static void caches_keep_no_more_than_their_bound(void **state) {
    (void)state;
    enum { N = 500 };
    static struct heist__stack *s[N];
    for (int i = 0; i < N; i++) assert_int_equal(heist__stack_get(&cache, 65536, &s[i]), 0);
    assert_int_equal(heist__stack_trimmable(), 0);
    for (int i = 0; i < N; i++) heist__stack_put(&cache, s[i]);
    assert_true(heist__stack_trimmable() >= N - 64);
    heist__stack_cache_flush(&cache);
    assert_int_equal(heist__stack_trimmable(), N);
    assert_int_equal(heist__stack_outside(), 0);
}

static void stacks_travel_between_caches(void **state) {
    (void)state;
    enum { N = 200 };
    static struct heist__stack *s[N];
    struct heist__stack_cache other;
    memset(&other, 0, sizeof other);
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < N; i++) {
            assert_int_equal(heist__stack_get(&cache, 32768, &s[i]), 0);
            *(int *)(void *)s[i]->user = round * N + i;
        }
        for (int i = 0; i < N; i++) {
            assert_int_equal(*(int *)(void *)s[i]->user, round * N + i);
            heist__stack_put(&other, s[i]);
        }
    }
    /* One hands out, the other takes back, and still no more than a few were made. */
    heist__stack_cache_flush(&other);
    heist__stack_cache_flush(&cache);
    assert_true(heist__stack_trimmable() <= N + 128);
}

static void callers_without_cache_use_the_pool(void **state) {
    (void)state;
    enum { N = 100 };
    struct heist__stack *s[N];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++) {
            assert_int_equal(heist__stack_get(NULL, 65536, &s[i]), 0);
            *(int *)(void *)s[i]->user = i;
        }
        for (int i = 0; i < N; i++) assert_int_equal(*(int *)(void *)s[i]->user, i);
        assert_int_equal(heist__stack_outside(), N);
        for (int i = 0; i < N; i++) heist__stack_put(NULL, s[i]);
        assert_int_equal(heist__stack_trimmable(), N);
    }
    /* A cache takes what they left by the chain. */
    struct heist__stack *one;
    assert_int_equal(heist__stack_get(&cache, 65536, &one), 0);
    assert_true(heist__stack_trimmable() < N - 1);
    heist__stack_put(&cache, one);
}

static void trim_gives_pages_back_and_keeps_guards(void **state) {
    (void)state;
    enum { N = 300 };
    static struct heist__stack *s[N];
    static char *lo[N], *end[N];
    for (int i = 0; i < N; i++) {
        assert_int_equal(heist__stack_get(&cache, 65536, &s[i]), 0);
        lo[i] = s[i]->lo;
        end[i] = s[i]->lo - sysconf(_SC_PAGESIZE) + s[i]->bytes;
        lo[i][0] = 1;
    }
    /* Two of three go back: neighbours and gaps. */
    for (int i = 0; i < N; i++)
        if (i % 3) heist__stack_put(&cache, s[i]);
    heist__stack_cache_flush(&cache);
    assert_int_equal(heist__stack_trimmable(), N - N / 3);
    assert_int_equal(heist__stack_trim(), (size_t)(N - N / 3) * 65536);
    assert_int_equal(heist__stack_trimmable(), 0);
    assert_int_equal(heist__stack_trim(), 0);
    for (int i = 0; i < N; i++) {
        assert_int_equal(resident_pages(lo[i], end[i]), i % 3 ? 0 : 2);
        assert_false(readable(lo[i] - 1));
    }
    /* They come back as if new, from where they were. */
    size_t mapped = heist__stack_mapped();
    for (int i = 0; i < N; i++) {
        if (i % 3 == 0) continue;
        assert_int_equal(heist__stack_get(&cache, 65536, &s[i]), 0);
        assert_int_equal(s[i]->lo[0], 0);
        assert_false(readable(s[i]->lo - 1));
    }
    assert_int_equal(heist__stack_mapped(), mapped);
    for (int i = 0; i < N; i++) heist__stack_put(&cache, s[i]);
}

static void trim_some_stops_when_it_has_enough(void **state) {
    (void)state;
    enum { N = 320 };
    static struct heist__stack *s[N];
    for (int i = 0; i < N; i++) assert_int_equal(heist__stack_get(&cache, 65536, &s[i]), 0);
    for (int i = 0; i < N; i++) heist__stack_put(&cache, s[i]);
    heist__stack_cache_flush(&cache);
    size_t bytes = heist__stack_trim_some(100);
    assert_true(bytes >= 100 * 65536 && bytes < 140 * 65536);
    assert_int_equal(heist__stack_trimmable(), N - bytes / 65536);
}

static void release_refuses_while_a_stack_is_out(void **state) {
    (void)state;
    struct heist__stack *s;
    assert_int_equal(heist__stack_get(NULL, 65536, &s), 0);
    assert_false(heist__stack_pool_release());
    assert_true(heist__stack_mapped() > 0);
    s->lo[0] = 1; /* still there */
    heist__stack_put(NULL, s);
    assert_true(heist__stack_pool_release());
    assert_int_equal(heist__stack_mapped(), 0);
}

static void release_leaves_no_mapping(void **state) {
    (void)state;
    enum { N = 2000 };
    static struct heist__stack *s[N];
    int before = 0;
    long live = heist__alloc_live_maps();
    /* The first round warms the C library up. */
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++) assert_int_equal(heist__stack_get(&cache, (size_t)16384 << i % 5, &s[i]), 0);
        for (int i = 0; i < N; i++) heist__stack_put(&cache, s[i]);
        heist__stack_cache_flush(&cache);
        if (round == 1) assert_true(heist__stack_trim() > 0);
        assert_true(heist__stack_pool_release());
        int now = count_mappings();
        if (round > 0) assert_int_equal(now, before);
        before = now;
        assert_int_equal(heist__alloc_live_maps(), live);
    }
}

static void many_stacks_cost_few_mappings(void **state) {
    (void)state;
    enum { N = 20000 };
    static struct heist__stack *s[N];
    int before = count_mappings();
    for (int i = 0; i < N; i++) assert_int_equal(heist__stack_get(&cache, 65536, &s[i]), 0);
    bool by_advice = count_mappings() - before < 100;
    /* Where the kernel has no guard advice, two for each stack. */
    if (!by_advice) assert_true(count_mappings() - before < 2 * N + 200);
    for (int i = 0; i < N; i++) heist__stack_put(&cache, s[i]);
}

static void each_failing_mapping_is_a_clean_error(void **state) {
    (void)state;
    enum { N = 300 };
    static struct heist__stack *s[N];
    /* No mapping at all from the nth on. */
    for (long nth = 1; nth <= 4; nth++) {
        int got = 0, err = 0;
        heist__alloc_fail_from(nth);
        while (got < N && (err = heist__stack_get(&cache, 65536, &s[got])) == 0) got++;
        heist__alloc_fail_from(-1);
        if (got < N) assert_int_equal(err, -ENOMEM);
        if (nth == 1) assert_int_equal(got, 0);
        /* What was got can be used, and more can be had once there is room. */
        for (int i = 0; i < got; i++) s[i]->lo[0] = 1;
        while (got < N) assert_int_equal(heist__stack_get(&cache, 65536, &s[got++]), 0);
        for (int i = 0; i < N; i++) heist__stack_put(&cache, s[i]);
        heist__stack_cache_flush(&cache);
        assert_true(heist__stack_pool_release());
    }
    /* One that fails is made good by a smaller one. */
    for (long nth = 1; nth <= 3; nth++) {
        heist__alloc_fail_after(nth);
        for (int i = 0; i < N; i++) assert_int_equal(heist__stack_get(&cache, 65536, &s[i]), 0);
        heist__alloc_fail_after(-1);
        for (int i = 0; i < N; i++) heist__stack_put(&cache, s[i]);
        heist__stack_cache_flush(&cache);
        assert_true(heist__stack_pool_release());
    }
}

static void without_guard_advice_mprotect_serves_up_to_a_limit(void **state) {
    (void)state;
    enum { LIMIT = 150, N = 300 };
    static struct heist__stack *s[N];
    struct heist__stack *owner;
    heist__stack_force_mprotect(true, LIMIT);
    int got = 0, err = 0;
    while (got < N && (err = heist__stack_get(&cache, 65536, &s[got])) == 0) {
        assert_false(readable(s[got]->lo - 1));
        assert_true(heist__stack_contains_guard(s[got]->lo - 1, &owner));
        got++;
    }
    assert_int_equal(err, -ENOMEM);
    assert_int_equal(got, LIMIT);
    /* A stack that comes back serves again, trimmed or not. */
    heist__stack_put(&cache, s[--got]);
    assert_int_equal(heist__stack_get(&cache, 65536, &s[got]), 0);
    heist__stack_put(&cache, s[got]);
    heist__stack_cache_flush(&cache);
    assert_true(heist__stack_trim() > 0);
    assert_int_equal(heist__stack_get(&cache, 65536, &s[got]), 0);
    assert_false(readable(s[got]->lo - 1));
    got++;
    while (got > 0) heist__stack_put(&cache, s[--got]);
    heist__stack_cache_flush(&cache);
    heist__stack_force_mprotect(false, 0);
}

/* Several threads, each with a cache, pass stacks on through a shared board. */
enum { THREADS = 4, SLOTS = 64, ROUNDS = 20000 };
static struct heist__stack *_Atomic board[SLOTS];
static _Atomic int errors;

static void *trader(void *arg) {
    struct heist__stack_cache mine;
    unsigned seed = (unsigned)(uintptr_t)arg;
    memset(&mine, 0, sizeof mine);
    for (int i = 0; i < ROUNDS; i++) {
        seed = seed * 1664525u + 1013904223u;
        struct heist__stack *s;
        if (heist__stack_get(seed >> 20 & 7 ? &mine : NULL, (size_t)16384 << (seed >> 28 & 3), &s) < 0) {
            errors++;
            continue;
        }
        memset(s->user, (int)(uintptr_t)arg, sizeof s->user);
        s = atomic_exchange(&board[seed >> 8 & (SLOTS - 1)], s);
        if (s) heist__stack_put(seed >> 16 & 3 ? &mine : NULL, s);
        if (i % 500 == 0) heist__stack_trim_some(64);
        if (i % 3000 == 0) heist__stack_cache_flush(&mine);
    }
    heist__stack_cache_flush(&mine);
    return NULL;
}

static void threads_trade_stacks_without_losing_one(void **state) {
    (void)state;
    pthread_t t[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, trader, (void *)(uintptr_t)(i + 1)), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(t[i], NULL);
    for (int i = 0; i < SLOTS; i++) {
        struct heist__stack *s = atomic_exchange(&board[i], NULL);
        if (s) heist__stack_put(&cache, s);
    }
    assert_int_equal(errors, 0);
    heist__stack_cache_flush(&cache);
    assert_int_equal(heist__stack_outside(), 0);
}

int main(void) {
#define STACK_TEST(fn) cmocka_unit_test_setup_teardown(fn, begin, nothing_is_left)
    const struct CMUnitTest tests[] = {
        STACK_TEST(sizes_round_up_and_outliers_are_refused),
        STACK_TEST(guards_are_known_with_their_owner),
        STACK_TEST(warm_stacks_come_back_last_in_first_out),
        STACK_TEST(no_page_is_touched_but_the_headers),
        STACK_TEST(high_water_follows_the_deepest_page),
        STACK_TEST(caches_keep_no_more_than_their_bound),
        STACK_TEST(stacks_travel_between_caches),
        STACK_TEST(callers_without_cache_use_the_pool),
        STACK_TEST(trim_gives_pages_back_and_keeps_guards),
        STACK_TEST(trim_some_stops_when_it_has_enough),
        STACK_TEST(release_refuses_while_a_stack_is_out),
        STACK_TEST(release_leaves_no_mapping),
        STACK_TEST(many_stacks_cost_few_mappings),
        STACK_TEST(each_failing_mapping_is_a_clean_error),
        STACK_TEST(without_guard_advice_mprotect_serves_up_to_a_limit),
        STACK_TEST(threads_trade_stacks_without_losing_one),
    };
    return cmocka_run_group_tests_name("mem/stack", tests, NULL, NULL);
}
