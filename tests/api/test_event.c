/* Events: a flag to wait for. */
#include "support/harness.h"

#include <string.h>

struct waiter {
    heist_event *event;
    struct record *record;
    const char *word;
    int err;
};

static int wait_for(void *arg, void **out) {
    struct waiter *w = arg;
    (void)out;
    w->err = heist_event_wait(w->event);
    record_add(w->record, "%s:%d", w->word, w->err);
    return w->err;
}

static heist_task *new_task(heist_loop *loop, heist_coro_fn fn, void *arg) {
    heist_task *task = NULL;
    assert_int_equal(heist_loop_create_task(loop, fn, arg, NULL, &task), 0);
    return task;
}

static void set_lets_all_go_on_and_a_set_event_makes_nobody_wait_SYNC_10(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_event event = HEIST_EVENT_INIT;
    static const char *const words[] = {"a", "b", "c", "d"};
    struct waiter w[4];
    heist_task *t[4];
    for (int i = 0; i < 4; i++) w[i] = (struct waiter){&event, &record, words[i], 1};
    for (int i = 0; i < 3; i++) t[i] = new_task(loop, wait_for, &w[i]);
    harness_one_pass(loop);
    assert_int_equal(record_words(&record), 0);
    assert_int_equal(heist_event_destroy(&event), -EBUSY);
    assert_int_equal(heist_event_set(&event), 0);
    t[3] = new_task(loop, wait_for, &w[3]);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(heist_loop_run_until_complete(loop, t[i], NULL), 0);
        heist_unref(t[i]);
    }
    assert_string_equal(record_text(&record), "a:0 b:0 c:0 d:0");
    assert_int_equal(heist_event_wait(&event), 0);
    assert_int_equal(heist_event_destroy(&event), 0);
    harness_loop_end(loop);
}

static void clear_makes_later_waits_wait_and_set_is_idempotent_SYNC_11(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_event event;
    memset(&event, 0xff, sizeof(event));
    heist_event_init(&event);
    assert_int_equal(heist_event_is_set(&event), 0);
    assert_int_equal(heist_event_set(&event), 0);
    assert_int_equal(heist_event_set(&event), 0);
    assert_int_equal(heist_event_is_set(&event), 1);
    assert_int_equal(heist_event_clear(&event), 0);
    assert_int_equal(heist_event_clear(&event), 0);
    assert_int_equal(heist_event_is_set(&event), 0);
    assert_int_equal(heist_event_wait_until(&event, heist_time() + 0.001), -ETIMEDOUT);
    /* Set and cleared before the waiter runs: it was let go on all the same. */
    struct waiter w = {&event, &record, "w", 1};
    heist_task *t = new_task(loop, wait_for, &w);
    harness_one_pass(loop);
    assert_int_equal(heist_event_set(&event), 0);
    assert_int_equal(heist_event_clear(&event), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, t, NULL), 0);
    heist_unref(t);
    harness_loop_end(loop);
}

static int wait_until(void *arg, void **out) {
    (void)out;
    return heist_event_wait_until(arg, heist_time() + 3);
}

static void cancelled_waiter_does_not_touch_the_others_SYNC_12(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_event event = HEIST_EVENT_INIT;
    struct waiter a = {&event, &record, "a", 1}, b = {&event, &record, "b", 1}, c = {&event, &record, "c", 1};
    heist_task *ta = new_task(loop, wait_for, &a), *tb = new_task(loop, wait_for, &b),
               *tc = new_task(loop, wait_for, &c);
    heist_task *late = new_task(loop, wait_until, &event);
    assert_int_equal(heist_loop_run_until_complete(loop, late, NULL), -ETIMEDOUT);
    assert_int_equal(heist_cancel(tb), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, tb, NULL), -ECANCELED);
    assert_int_equal(heist_event_set(&event), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, ta, NULL), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, tc, NULL), 0);
    assert_int_equal(b.err, -ECANCELED);
    heist_unref(ta);
    heist_unref(tb);
    heist_unref(tc);
    heist_unref(late);
    harness_loop_end(loop);
}

/* ---- from everywhere; and an event that is gone with the wait ---- */

static void *set_thread(void *arg) {
    heist_event_set(arg);
    return NULL;
}
static int set_callback(void *arg) { return heist_event_set(arg); }
static int set_task(void *arg, void **out) {
    (void)out;
    return heist_event_set(arg);
}

static int wait_for_each(void *arg, void **out) {
    (void)arg, (void)out;
    for (int i = 0; i < 60; i++) {
        heist_event on_the_stack = HEIST_EVENT_INIT;
        heist_loop *loop;
        int err = heist_get_running_loop(&loop);
        if (err == 0 && i % 2) err = heist_loop_call_soon(loop, set_callback, &on_the_stack, NULL, NULL);
        if (err == 0 && i % 2 == 0) err = heist_create_task(set_task, &on_the_stack, NULL, NULL);
        if (err == 0) err = heist_event_wait(&on_the_stack);
        memset(&on_the_stack, 0xff, sizeof(on_the_stack));
        if (err < 0) return err;
    }
    return 0;
}

static int wait_for_thread(void *arg, void **out) {
    (void)out;
    return heist_event_wait(arg);
}

static void set_from_any_thread_and_not_touched_after_the_wait_SYNC_13(void **state) {
    (void)state;
    assert_int_equal(harness_run(wait_for_each, NULL, NULL), 0);
    heist_runtime *one = harness_runtime(0), *two = harness_runtime(0);
    for (int i = 0; i < 30; i++) {
        heist_event event = HEIST_EVENT_INIT;
        heist_task *a, *b;
        assert_int_equal(heist_runtime_run_coroutine(one, wait_for_thread, &event, NULL, &a), 0);
        assert_int_equal(heist_runtime_run_coroutine(two, wait_for_thread, &event, NULL, &b), 0);
        pthread_t thread = harness_thread(set_thread, &event);
        assert_int_equal(heist_event_wait(&event), 0);
        assert_int_equal(heist_await(a, NULL), 0);
        assert_int_equal(heist_await(b, NULL), 0);
        heist_unref(a);
        heist_unref(b);
        harness_join(thread);
    }
    harness_runtime_end(one);
    harness_runtime_end(two);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        API_TEST(set_lets_all_go_on_and_a_set_event_makes_nobody_wait_SYNC_10),
        API_TEST(clear_makes_later_waits_wait_and_set_is_idempotent_SYNC_11),
        API_TEST(cancelled_waiter_does_not_touch_the_others_SYNC_12),
        API_TEST(set_from_any_thread_and_not_touched_after_the_wait_SYNC_13),
    };
    return HARNESS_MAIN("event", tests);
}
