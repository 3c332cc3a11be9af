/* max_inbox refused what the engine itself posts, and its count lost its way.
 *
 * The limit is for those who submit callbacks.  It stood in the function through which the
 * engine posts too, so with a full inbox a done callback was refused with -EAGAIN (which
 * its contract does not know) or dropped.  The wake-ups of pinned tasks went around the
 * count on their way in and were subtracted on their way out: the unsigned count fell below
 * zero, and from then on every submission was refused.
 *
 * A loop that does not run keeps its inbox full; a pinned task that another thread wakes
 * many times would bring the count below zero. */
#include "regress/workers.h"

static int note(void *arg) {
    _Atomic(int) *count = arg;
    ++*count;
    return 0;
}

static void note_done(heist_future *f, void *user) {
    _Atomic(int) *count = user;
    (void)f;
    ++*count;
}

static void done_callbacks_are_not_refused_by_a_full_inbox(void **state) {
    (void)state;
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_loop *loop = NULL;
    heist_future *future = NULL, *done = NULL;
    _Atomic(int) posted = 0, called = 0;
    opts.max_inbox = 4;
    opts.flags = HEIST_RUNTIME_VIRTUAL_TIME;
    assert_int_equal(heist_loop_new(&opts, &loop), 0);
    assert_int_equal(heist_future_new(loop, &future), 0);
    assert_int_equal(heist_future_new(loop, &done), 0);
    assert_int_equal(heist_future_add_done_callback(future, note_done, &called, NULL), 0);
    assert_int_equal(heist_future_set_result(done, NULL, NULL), 0);

    for (int i = 0; i < 4; i++) assert_int_equal(heist_loop_call_soon_threadsafe(loop, note, &posted, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_soon_threadsafe(loop, note, &posted, NULL, NULL), -EAGAIN);
    for (int i = 0; i < 10; i++) assert_int_equal(heist_future_add_done_callback(done, note_done, &called, NULL), 0);
    assert_int_equal(heist_future_set_result(future, NULL, NULL), 0);

    harness_one_pass(loop);
    harness_one_pass(loop);
    assert_int_equal(posted, 4);
    assert_int_equal(called, 11);
    for (int i = 0; i < 4; i++) /* and there is room again, for exactly as many */
        assert_int_equal(heist_loop_call_soon_threadsafe(loop, note, &posted, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_soon_threadsafe(loop, note, &posted, NULL, NULL), -EAGAIN);
    harness_one_pass(loop);
    assert_int_equal(posted, 8);
    heist_unref(future);
    heist_unref(done);
    harness_loop_end(loop);
}

enum { WAKES = 100 };

struct woken {
    heist_future *futures[WAKES];
    _Atomic(int) waits_for;
};

static int wait_for_each(void *arg, void **out) {
    struct woken *woken = arg;
    (void)out;
    for (int i = 0; i < WAKES; i++) {
        woken->waits_for = i;
        int err = heist_await(woken->futures[i], NULL);
        if (err < 0) return err;
    }
    return 0;
}

static void wakes_of_pinned_tasks_leave_the_count_alone(void **state) {
    (void)state;
    for (EACH_WORKER_COUNT(workers)) {
        heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
        heist_task_options pinned = HEIST_TASK_OPTIONS_INIT;
        heist_runtime *rt = NULL;
        heist_task *task = NULL;
        struct woken woken = {.waits_for = -1};
        _Atomic(int) posted = 0;
        opts.workers = workers;
        opts.max_inbox = 4;
        pinned.flags = HEIST_TASK_PINNED;
        assert_int_equal(heist_runtime_new(&opts, &rt), 0);
        heist_loop *loop = heist_runtime_loop(rt, 0);
        for (int i = 0; i < WAKES; i++) assert_int_equal(heist_future_new(NULL, &woken.futures[i]), 0);
        assert_int_equal(heist_loop_create_task(loop, wait_for_each, &woken, &pinned, &task), 0);
        for (int i = 0; i < WAKES; i++) {
            while (woken.waits_for < i) heist_sleep(0.0001);
            assert_int_equal(heist_future_set_result(woken.futures[i], NULL, NULL), 0);
        }
        assert_int_equal(heist_await(task, NULL), 0);
        for (int i = 0; i < 20; i++) {
            assert_int_equal(heist_loop_call_soon_threadsafe(loop, note, &posted, NULL, NULL), 0);
            while (posted <= i) heist_sleep(0.0001);
        }
        heist_unref(task);
        for (int i = 0; i < WAKES; i++) heist_unref(woken.futures[i]);
        harness_runtime_end(rt);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(done_callbacks_are_not_refused_by_a_full_inbox),
        API_TEST(wakes_of_pinned_tasks_leave_the_count_alone),
    };
    return HARNESS_MAIN("bug_inbox_limit", tests);
}
