/* The door to memory with malloc behind it: what is live is counted, the nth request fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <heist/alloc.h>
#include <pthread.h>
#include <string.h>

#include "base/alloc.h"

static void *none(size_t bytes, void *user) { return (void)bytes, (void)user, NULL; }
static void *none_again(void *block, size_t bytes, void *user) { return (void)block, (void)bytes, (void)user, NULL; }
static void nothing(void *block, void *user) { (void)block, (void)user; }

/* Runs first: afterwards the library has allocated. */
static void set_allocator_is_refused_after_the_first_block(void **state) {
    (void)state;
    heist_allocator whole = HEIST_ALLOCATOR_INIT;
    whole.malloc = none;
    whole.realloc = none_again;
    whole.free = nothing;
    heist_allocator part = whole;
    part.realloc = NULL;
    assert_int_equal(heist_set_allocator(&part), -EINVAL);
    part = whole;
    part.size = 3;
    assert_int_equal(heist_set_allocator(&part), -EINVAL);
    assert_int_equal(heist_set_allocator(&whole), 0);
    assert_int_equal(heist_set_allocator(NULL), 0); /* the default again */

    void *block = heist__alloc(10);
    assert_non_null(block);
    assert_int_equal(heist_set_allocator(&whole), -EBUSY);
    heist__free(block);
    assert_int_equal(heist_set_allocator(NULL), -EBUSY);
}

static void blocks_are_usable_and_aligned(void **state) {
    (void)state;
    for (size_t bytes = 0; bytes < 5000; bytes = bytes * 2 + 1) {
        char *block = heist__alloc(bytes), *zero = heist__zalloc(bytes);
        assert_non_null(block);
        assert_non_null(zero);
        assert_int_equal((uintptr_t)block % 16, 0);
        assert_int_equal((uintptr_t)zero % 16, 0);
        memset(block, 0xa5, bytes);
        for (size_t i = 0; i < bytes; i++) assert_int_equal(zero[i], 0);
        heist__free(block);
        heist__free(zero);
    }
    for (size_t align = 1; align <= 65536; align *= 2) {
        char *block = heist__aligned_alloc(align, 100);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % align, 0);
        memset(block, 1, 100);
        heist__free(block);
    }
    heist__free(NULL);
}

static void realloc_keeps_the_content(void **state) {
    (void)state;
    unsigned char *block = heist__realloc(NULL, 10);
    assert_non_null(block);
    for (unsigned i = 0; i < 10; i++) block[i] = (unsigned char)i;
    unsigned char *grown = heist__realloc(block, 100000);
    assert_non_null(grown);
    for (unsigned i = 0; i < 10; i++) assert_int_equal(grown[i], i);
    unsigned char *shrunk = heist__realloc(grown, 5);
    assert_non_null(shrunk);
    for (unsigned i = 0; i < 5; i++) assert_int_equal(shrunk[i], i);
    heist__free(shrunk);
}

static void free_keeps_errno(void **state) {
    (void)state;
    void *block = heist__alloc((size_t)1 << 22); /* large enough to be a mapping of malloc's own */
    assert_non_null(block);
    errno = 4321;
    heist__free(block);
    assert_int_equal(errno, 4321);
}

static void live_counts_follow_blocks_and_mappings(void **state) {
    (void)state;
    if (!HEIST_ALLOC_STATS) {
        assert_int_equal(heist__alloc_live(), -1);
        skip();
    }
    long blocks = heist__alloc_live(), bytes = heist__alloc_live_bytes();
    long maps = heist__alloc_live_maps(), map_bytes = heist__alloc_live_map_bytes();
    void *a = heist__alloc(100), *b = heist__zalloc(50), *c = heist__aligned_alloc(64, 128);
    assert_true(a && b && c);
    assert_int_equal(heist__alloc_live() - blocks, 3);
    assert_true(heist__alloc_live_bytes() - bytes >= 278);
    a = heist__realloc(a, 3000);
    assert_non_null(a);
    assert_int_equal(heist__alloc_live() - blocks, 3);
    assert_true(heist__alloc_live_bytes() - bytes >= 3178);
    heist__free(a);
    heist__free(b);
    heist__free(c);
    assert_int_equal(heist__alloc_live(), blocks);
    assert_int_equal(heist__alloc_live_bytes(), bytes);

    char *map = heist__map(1 << 20);
    assert_non_null(map);
    assert_int_equal(map[0] | map[(1 << 20) - 1], 0);
    map[12345] = 1;
    assert_int_equal(heist__alloc_live_maps() - maps, 1);
    assert_int_equal(heist__alloc_live_map_bytes() - map_bytes, 1 << 20);
    heist__unmap(map, 1 << 20);
    heist__unmap(NULL, 4096);
    assert_int_equal(heist__alloc_live_maps(), maps);
    assert_int_equal(heist__alloc_live_map_bytes(), map_bytes);
}

static void a_mapping_that_cannot_be_is_null(void **state) {
    (void)state;
    assert_null(heist__map(0));
    assert_null(heist__map(SIZE_MAX / 2));
}

static bool request(int kind) {
    switch (kind) {
    case 0: {
        void *block = heist__alloc(8);
        heist__free(block);
        return block != NULL;
    }
    case 1: {
        void *block = heist__zalloc(8);
        heist__free(block);
        return block != NULL;
    }
    case 2: {
        void *block = heist__aligned_alloc(64, 8);
        heist__free(block);
        return block != NULL;
    }
    case 3: {
        void *block = heist__realloc(NULL, 8);
        heist__free(block);
        return block != NULL;
    }
    default: {
        void *map = heist__map(4096);
        heist__unmap(map, 4096);
        return map != NULL;
    }
    }
}

static void the_nth_request_of_any_kind_fails_once(void **state) {
    (void)state;
    for (int kind = 0; kind < 5; kind++) {
        for (int n = 1; n < 5; n++) {
            heist__alloc_fail_after(n);
            for (int i = 1; i < 8; i++) assert_int_equal(request(i == n ? kind : (kind + i) % 5), i != n);
            assert_int_equal(heist__alloc_failed(), 1);
        }
    }
    heist__alloc_fail_after(0);
    assert_false(request(0));
    assert_true(request(0));
    heist__alloc_fail_after(2);
    heist__alloc_fail_after(-1);
    for (int i = 0; i < 10; i++) assert_true(request(i % 5));
    assert_int_equal(heist__alloc_failed(), 0);
}

static void from_the_nth_on_all_requests_fail(void **state) {
    (void)state;
    heist__alloc_fail_from(3);
    for (int i = 1; i < 20; i++) assert_int_equal(request(i % 5), i < 3);
    assert_int_equal(heist__alloc_failed(), 17);
    heist__alloc_fail_from(-1);
    assert_true(request(0));
}

static void a_refused_realloc_leaves_the_old_block(void **state) {
    (void)state;
    char *block = heist__alloc(16);
    assert_non_null(block);
    memcpy(block, "as it was", 10);
    long live = heist__alloc_live();
    heist__alloc_fail_after(1);
    assert_null(heist__realloc(block, 1000));
    heist__alloc_fail_after(-1);
    assert_string_equal(block, "as it was");
    assert_int_equal(heist__alloc_live(), live);
    heist__free(block);
}

enum { THREADS = 4, REQUESTS = 2000 };

static void *make_requests(void *arg) {
    long *refused = arg;
    for (int i = 0; i < REQUESTS; i++) *refused += !request(i % 5);
    return NULL;
}

static void of_several_threads_exactly_one_request_fails(void **state) {
    (void)state;
    pthread_t thread[THREADS];
    long refused[THREADS] = {0}, sum = 0, live = heist__alloc_live(), bytes = heist__alloc_live_bytes();
    heist__alloc_fail_after(THREADS * REQUESTS / 2);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, make_requests, &refused[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
        sum += refused[i];
    }
    assert_int_equal(sum, 1);
    assert_int_equal(heist__alloc_failed(), 1);
    heist__alloc_fail_after(-1);
    assert_int_equal(heist__alloc_live(), live);
    assert_int_equal(heist__alloc_live_bytes(), bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_allocator_is_refused_after_the_first_block),
        cmocka_unit_test(blocks_are_usable_and_aligned),
        cmocka_unit_test(realloc_keeps_the_content),
        cmocka_unit_test(free_keeps_errno),
        cmocka_unit_test(live_counts_follow_blocks_and_mappings),
        cmocka_unit_test(a_mapping_that_cannot_be_is_null),
        cmocka_unit_test(the_nth_request_of_any_kind_fails_once),
        cmocka_unit_test(from_the_nth_on_all_requests_fail),
        cmocka_unit_test(a_refused_realloc_leaves_the_old_block),
        cmocka_unit_test(of_several_threads_exactly_one_request_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
