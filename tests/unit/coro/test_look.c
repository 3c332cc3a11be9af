/* The frames of a suspended coroutine: those that a debugger would find, in every build, from a copy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "base/peek.h"
#include "coro/coro.h"
#include "coro/look.h"

#define DEEP 6

static struct heist__stack_cache cache;
static struct heist__host host;
static struct heist__coro *sleeper;
static void *expected[DEEP + 2];
static int expected_count;

static int begin(void **state) {
    (void)state;
    memset(&cache, 0, sizeof cache);
    heist__host_init(&host);
    expected_count = 0;
    return 0;
}

static int nothing_is_left(void **state) {
    (void)state;
    heist__stack_cache_flush(&cache);
    return heist__stack_pool_release() ? 0 : -1;
}

/* Each level notes where it will return to, which is what a walk must find of its caller. */
HEIST_NOINLINE static int dive(int depth, volatile char *outer);
static int (*volatile dive_again)(int depth, volatile char *outer) = dive;

static int dive(int depth, volatile char *outer) {
    expected[expected_count++] = __builtin_return_address(0);
    volatile char room[96];
    memset((void *)(uintptr_t)room, depth, sizeof room);
    int sum = outer ? outer[0] : 0;
    if (depth > 0) sum += dive_again(depth - 1, room);
    else heist__coro_leave(&host, sleeper, NULL);
    return sum + room[depth];
}

HEIST_NOINLINE static int dive_aligned(int depth) {
    HEIST_ALIGNED(64) volatile char room[128];
    memset((void *)(uintptr_t)room, 1, sizeof room);
    int sum = dive_again(depth, room) + room[5];
    return sum + (int)((uintptr_t)room % 64);
}

static void body(void *payload) {
    (void)payload;
    int sum = dive_again(DEEP - 1, NULL);
    if (sum < 100) sum += dive_aligned(2);
    heist__coro_exit(&host, sleeper, (void *)(intptr_t)sum);
}

static void aligned_body(void *payload) {
    (void)payload;
    heist__coro_exit(&host, sleeper, (void *)(intptr_t)dive_aligned(DEEP - 2));
}

static void make(void (*entry)(void *)) {
    struct heist__stack *s;
    assert_int_equal(heist__stack_get(&cache, 65536, &s), 0);
    sleeper = heist__coro_new(s, entry);
}

static void drop(void) {
    struct heist__stack *s = sleeper->stack;
    heist__coro_free(sleeper);
    heist__stack_put(&cache, s);
}

static int take(const struct heist__coro *c, struct heist__look *look) {
    int err = heist__look_begin(c, look);
    return err ? err : heist__look_take(look);
}

static void expect_frames(void) {
    struct heist__look look;
    void *frames[32];
    assert_int_equal(take(sleeper, &look), 0);
    size_t n = heist__look_frames(&look, NULL, frames, 32);
    heist__look_release(&look);
    assert_true(n >= (size_t)expected_count);
    /* The innermost expected one is dive's last caller; before it stands what leads to the switch. */
    size_t at = 0;
    while (at < n && frames[at] != expected[expected_count - 1]) at++;
    assert_true(at < n);
    for (int i = expected_count - 1; i >= 0; i--) {
        assert_true(at < n);
        assert_ptr_equal(frames[at++], expected[i]);
    }
    assert_true(n < 32);
    assert_true(n - at < 4); /* the body's first frames, and the trampoline */
}

static void frames_of_a_suspended_coroutine_are_found_each(void **state) {
    (void)state;
    make(body);
    heist__coro_enter(&host, sleeper, NULL);
    expect_frames();
    expect_frames(); /* nothing was changed */
    expected_count = 0;
    heist__coro_enter(&host, sleeper, NULL);
    expect_frames(); /* the second dive */
    heist__coro_enter(&host, sleeper, NULL);
    assert_true(sleeper->exited);
    drop();
}

static void frames_that_align_their_stack_are_walked_too(void **state) {
    (void)state;
    make(aligned_body);
    heist__coro_enter(&host, sleeper, NULL);
    expect_frames();
    heist__coro_enter(&host, sleeper, NULL);
    assert_true(sleeper->exited);
    drop();
}

static void a_coroutine_that_ran_meanwhile_is_seen(void **state) {
    (void)state;
    struct heist__look look;
    make(body);
    heist__coro_enter(&host, sleeper, NULL);
    assert_int_equal(heist__look_begin(sleeper, &look), 0);
    expected_count = 0;
    heist__coro_enter(&host, sleeper, NULL);
    assert_int_equal(heist__look_take(&look), -EBUSY);
    assert_null(look.room);
    assert_int_equal(heist__look_begin(sleeper, &look), 0);
    assert_int_equal(heist__look_take(&look), 0);
    heist__look_release(&look);
    drop();
}

static void max_cuts_the_list_at_the_outer_end(void **state) {
    (void)state;
    struct heist__look look;
    void *all[32], *some[4];
    make(body);
    heist__coro_enter(&host, sleeper, NULL);
    assert_int_equal(take(sleeper, &look), 0);
    size_t n = heist__look_frames(&look, NULL, all, 32);
    heist__look_release(&look);
    assert_true(n > 4);
    assert_int_equal(take(sleeper, &look), 0);
    assert_int_equal(heist__look_frames(&look, NULL, some, 4), 4);
    heist__look_release(&look);
    assert_memory_equal(all, some, sizeof some);
    assert_int_equal(take(sleeper, &look), 0);
    assert_int_equal(heist__look_frames(&look, NULL, some, 0), 0);
    heist__look_release(&look);
    drop();
}

static void a_part_lies_between_two_calls_of_a_function(void **state) {
    (void)state;
    struct heist__look look;
    void *all[32], *part[32];
    make(body);
    heist__coro_enter(&host, sleeper, NULL);
    assert_int_equal(take(sleeper, &look), 0);
    size_t n = heist__look_frames(&look, NULL, all, 32);
    heist__look_release(&look);
    size_t first = 0; /* the frame of the innermost dive */
    while (first < n && all[first + 1] != expected[DEEP - 1]) first++;
    struct heist__look_part which = {(const void *)(uintptr_t)dive, 0};
    assert_int_equal(take(sleeper, &look), 0);
    assert_int_equal(heist__look_frames(&look, &which, part, 32), first);
    heist__look_release(&look);
    which.pass = 2;
    assert_int_equal(take(sleeper, &look), 0);
    assert_int_equal(heist__look_frames(&look, &which, part, 32), 1);
    assert_ptr_equal(part[0], all[first + 1]);
    heist__look_release(&look);
    which.pass = DEEP; /* the outermost: from there on to the end */
    assert_int_equal(take(sleeper, &look), 0);
    assert_int_equal(heist__look_frames(&look, &which, part, 32), n - first - DEEP + 1);
    heist__look_release(&look);
    drop();
}

static void what_is_not_mapped_is_an_answer(void **state) {
    (void)state;
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(page != MAP_FAILED);
    memset(page, 7, 8192);
    assert_int_equal(munmap(page + 4096, 4096), 0);
    char to[64];
    /* valgrind takes a write from where nothing is mapped for a mistake, whatever the kernel answers */
    for (int pipe_only = 0; pipe_only <= !HEIST_VALGRIND; pipe_only++) {
        heist__peek_force_pipe(pipe_only);
        assert_int_equal(heist__peek(page, to, sizeof to), 0);
        assert_int_equal(to[63], 7);
        assert_int_equal(heist__peek(page + 4096, to, 8), -EFAULT);
        assert_int_equal(heist__peek(page + 4096 - 8, to, 16), -EFAULT);
        assert_int_equal(heist__peek(NULL, to, 8), -EFAULT);
    }
    struct heist__look look;
    assert_int_equal(take(NULL, &look), -EBUSY);
    assert_int_equal(take((void *)(page + 4096), &look), -EBUSY);
    assert_int_equal(take((void *)page, &look), -EBUSY); /* bytes that are no coroutine */
    make(body);
    heist__coro_enter(&host, sleeper, NULL);
    expect_frames(); /* by way of the pipe */
    drop();
    heist__peek_force_pipe(0);
    munmap(page, 4096);
}

static void the_caller_s_own_frames(void **state) {
    (void)state;
    void *frames[32];
    size_t n = heist__look_here(__builtin_return_address(0), NULL, frames, 32);
    assert_true(n >= 1);
    assert_ptr_equal(frames[0], __builtin_return_address(0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(frames_of_a_suspended_coroutine_are_found_each, begin, nothing_is_left),
        cmocka_unit_test_setup_teardown(frames_that_align_their_stack_are_walked_too, begin, nothing_is_left),
        cmocka_unit_test_setup_teardown(a_coroutine_that_ran_meanwhile_is_seen, begin, nothing_is_left),
        cmocka_unit_test_setup_teardown(max_cuts_the_list_at_the_outer_end, begin, nothing_is_left),
        cmocka_unit_test_setup_teardown(a_part_lies_between_two_calls_of_a_function, begin, nothing_is_left),
        cmocka_unit_test_setup_teardown(what_is_not_mapped_is_an_answer, begin, nothing_is_left),
        cmocka_unit_test_setup_teardown(the_caller_s_own_frames, begin, nothing_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
