/* The door to memory with another allocator behind it: a program of its own, for the table is set once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <heist/alloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

/* An allocator that counts, hands out what is aligned to 16 bytes and not by chance to more, spoils errno,
 * and can be told to have nothing. */
static struct ledger {
    long live, calls;
    bool empty;
} ledger;

static void *count_malloc(size_t bytes, void *user) {
    struct ledger *l = user;
    l->calls++;
    if (l->empty) return NULL;
    char *raw;
    if (posix_memalign((void **)&raw, 4096, bytes + 16) != 0) return NULL;
    l->live++;
    return raw + 16;
}

static void count_free(void *block, void *user) {
    struct ledger *l = user;
    l->live--;
    free((char *)block - 16);
    errno = 99;
}

static void *count_realloc(void *block, size_t bytes, void *user) {
    struct ledger *l = user;
    l->calls++;
    if (l->empty) return NULL;
    char *grown = realloc((char *)block - 16, bytes + 16);
    return grown ? grown + 16 : NULL;
}

static int replace(void **state) {
    heist_allocator table = HEIST_ALLOCATOR_INIT;
    table.malloc = count_malloc;
    table.realloc = count_realloc;
    table.free = count_free;
    table.user = &ledger;
    *state = NULL;
    return heist_set_allocator(&table);
}

static void every_block_comes_from_the_table_and_goes_back(void **state) {
    (void)state;
    long calls = ledger.calls;
    char *a = heist__alloc(100), *b = heist__zalloc(1000), *c = heist__realloc(NULL, 7);
    assert_true(a && b && c);
    assert_int_equal(ledger.live, 3);
    assert_int_equal(ledger.calls - calls, 3);
    for (int i = 0; i < 1000; i++) assert_int_equal(b[i], 0);
    memset(a, 1, 100);
    memcpy(c, "seven.", 7);
    c = heist__realloc(c, 50000);
    assert_non_null(c);
    assert_string_equal(c, "seven.");
    assert_int_equal(ledger.live, 3);
    heist__free(a);
    heist__free(b);
    heist__free(c);
    assert_int_equal(ledger.live, 0);
}

static void alignment_is_made_on_top_of_the_table(void **state) {
    (void)state;
    for (size_t align = 1; align <= 8192; align *= 2) {
        for (size_t bytes = 0; bytes < 300; bytes += 37) {
            char *block = heist__aligned_alloc(align, bytes);
            assert_non_null(block);
            assert_int_equal((uintptr_t)block % align, 0);
            memset(block, 0x5a, bytes);
            heist__free(block);
        }
    }
    assert_int_equal(ledger.live, 0);
}

static void bytes_are_counted_as_asked_for(void **state) {
    (void)state;
    if (!HEIST_ALLOC_STATS) skip();
    long bytes = heist__alloc_live_bytes(), blocks = heist__alloc_live();
    void *a = heist__alloc(100), *b = heist__aligned_alloc(256, 11);
    assert_true(a && b);
    assert_int_equal(heist__alloc_live_bytes() - bytes, 111);
    a = heist__realloc(a, 40);
    assert_non_null(a);
    assert_int_equal(heist__alloc_live_bytes() - bytes, 51);
    assert_int_equal(heist__alloc_live() - blocks, 2);
    heist__free(a);
    heist__free(b);
    assert_int_equal(heist__alloc_live_bytes(), bytes);
}

static void an_empty_table_gives_null_and_harms_nothing(void **state) {
    (void)state;
    char *block = heist__alloc(10);
    assert_non_null(block);
    memcpy(block, "kept", 5);
    long live = heist__alloc_live();
    ledger.empty = true;
    assert_null(heist__alloc(1));
    assert_null(heist__zalloc(1));
    assert_null(heist__aligned_alloc(64, 1));
    assert_null(heist__realloc(block, 100));
    ledger.empty = false;
    assert_int_equal(heist__alloc_live(), live);
    assert_string_equal(block, "kept");
    heist__free(block);
}

static void a_size_that_leaves_no_room_for_the_header_is_refused(void **state) {
    (void)state;
    volatile size_t huge = (size_t)PTRDIFF_MAX - 3; /* hidden from the compiler, which would warn */
    long calls = ledger.calls;
    assert_null(heist__alloc(huge));
    assert_null(heist__zalloc(huge));
    assert_null(heist__aligned_alloc(4096, huge));
    assert_null(heist__realloc(NULL, huge));
    assert_int_equal(ledger.calls, calls);
}

static void free_keeps_errno(void **state) {
    (void)state;
    void *block = heist__alloc(1);
    assert_non_null(block);
    errno = 4321;
    heist__free(block);
    assert_int_equal(errno, 4321);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_block_comes_from_the_table_and_goes_back),
        cmocka_unit_test(alignment_is_made_on_top_of_the_table),
        cmocka_unit_test(bytes_are_counted_as_asked_for),
        cmocka_unit_test(an_empty_table_gives_null_and_harms_nothing),
        cmocka_unit_test(a_size_that_leaves_no_room_for_the_header_is_refused),
        cmocka_unit_test(free_keeps_errno),
    };
    return cmocka_run_group_tests(tests, replace, NULL);
}
