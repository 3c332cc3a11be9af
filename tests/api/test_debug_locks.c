/* heist/debug.h: a task that suspends or ends while its thread holds a lock is reported, by a
 * hook that counts for the test.  What libheist-debugmutex counts: tests/debugmutex. */
#include "support/harness.h"

#include <heist/debug.h>
#include <stdio.h>
#include <string.h>

static _Thread_local int held;

static __attribute__((noinline)) int *held_here(void) {
    int *place = &held;
    __asm__ volatile("" : "+r"(place) : : "memory");
    return place;
}

static int count_held(char *text, size_t size) {
    if (size) snprintf(text, size, "the test's own");
    return *held_here();
}

struct seen {
    int reports;
    char message[128], name[32], place[256], locks[64];
};

static void keep_report(heist_loop *loop, const heist_report *report, void *user) {
    struct seen *seen = user;
    (void)loop;
    if (seen->reports++) return;
    snprintf(seen->message, sizeof(seen->message), "%s", report->message);
    snprintf(seen->name, sizeof(seen->name), "%s", report->name ? report->name : "");
    for (const char *const *e = report->extra; e && e[0]; e += 2) {
        if (strcmp(e[0], "created at") == 0) snprintf(seen->place, sizeof(seen->place), "%s", e[1]);
        if (strcmp(e[0], "held") == 0) snprintf(seen->locks, sizeof(seen->locks), "%s", e[1]);
    }
}

/* Runs fn as a task called "holder" on a loop of its own, where a step is one thread's. */
static void run(heist_coro_fn fn, bool debug, struct seen *seen) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_task_options task = HEIST_TASK_OPTIONS_INIT;
    heist_loop *loop;
    memset(seen, 0, sizeof(*seen));
    opts.flags = HEIST_RUNTIME_VIRTUAL_TIME | (debug ? HEIST_RUNTIME_DEBUG : 0u);
    opts.exception_handler = keep_report;
    opts.exception_user = seen;
    task.name = "holder";
    assert_int_equal(heist_loop_new(&opts, &loop), 0);
    assert_int_equal(heist_loop_set_slow_callback_duration(loop, 1e6), 0);
    assert_int_equal(heist_loop_run_coroutine(loop, fn, NULL, &task, NULL), 0);
    harness_loop_end(loop);
}

static int holds_over_a_sleep(void *arg, void **out) {
    (void)arg, (void)out;
    ++*held_here();
    int err = heist_sleep(1);
    --*held_here();
    return err;
}

static int holds_over_an_await(void *arg, void **out) {
    heist_future *f;
    (void)arg, (void)out;
    int err = heist_future_new(NULL, &f);
    if (err) return err;
    ++*held_here();
    err = heist_await_until(f, heist_time() + 1, NULL);
    --*held_here();
    heist_unref(f);
    return err == -ETIMEDOUT ? 0 : err;
}

static int ends_with_it(void *arg, void **out) {
    (void)arg, (void)out;
    ++*held_here();
    return 0;
}

static int gives_it_back(void *arg, void **out) {
    (void)arg, (void)out;
    for (int i = 0; i < 10; i++) {
        ++*held_here();
        --*held_here();
        int err = heist_sleep(1);
        if (err) return err;
    }
    return 0;
}

static void a_task_that_suspends_with_a_lock_is_reported(void **state) {
    (void)state;
    struct seen seen;
    heist_coro_fn holders[] = {holds_over_a_sleep, holds_over_an_await};
    assert_int_equal(heist_debug_set_locks_hook(count_held, HEIST_DEBUG_LOCKS_GO_ON), 0);
    for (int i = 0; i < 2; i++) {
        run(holders[i], true, &seen);
        assert_int_equal(seen.reports, 1);
        assert_non_null(strstr(seen.message, "suspends while its thread holds a lock"));
        assert_string_equal(seen.name, "holder");
        assert_non_null(strchr(seen.place, ':'));
        assert_string_equal(seen.locks, "the test's own");
        assert_int_equal(held, 0);
    }
    assert_int_equal(heist_debug_set_locks_hook(NULL, 0), 0);
}

static void a_task_that_ends_with_a_lock_is_reported(void **state) {
    (void)state;
    struct seen seen;
    assert_int_equal(heist_debug_set_locks_hook(count_held, HEIST_DEBUG_LOCKS_GO_ON), 0);
    run(ends_with_it, true, &seen);
    assert_int_equal(seen.reports, 1);
    assert_non_null(strstr(seen.message, "ends while its thread holds a lock"));
    held = 0;
    assert_int_equal(heist_debug_set_locks_hook(NULL, 0), 0);
}

static void nobody_else_is_reported(void **state) {
    (void)state;
    struct seen seen;
    assert_int_equal(heist_debug_set_locks_hook(count_held, HEIST_DEBUG_LOCKS_GO_ON), 0);
    run(gives_it_back, true, &seen);
    assert_int_equal(seen.reports, 0);
    held = 3; /* the caller of the loop holds some: not the task's doing */
    run(gives_it_back, true, &seen);
    assert_int_equal(seen.reports, 0);
    run(holds_over_a_sleep, true, &seen);
    assert_int_equal(seen.reports, 1);
    held = 0;
    run(holds_over_a_sleep, false, &seen); /* without debug mode */
    assert_int_equal(seen.reports, 0);
    assert_int_equal(heist_debug_set_locks_hook(NULL, 0), 0);
    run(holds_over_a_sleep, true, &seen); /* without a hook */
    assert_int_equal(seen.reports, 0);
}

static void unknown_flags_are_refused(void **state) {
    (void)state;
    assert_int_equal(heist_debug_set_locks_hook(count_held, 0x80u), -EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(a_task_that_suspends_with_a_lock_is_reported),
        API_TEST(a_task_that_ends_with_a_lock_is_reported),
        API_TEST(nobody_else_is_reported),
        API_TEST(unknown_flags_are_refused),
    };
    return HARNESS_MAIN("debug_locks", tests);
}
