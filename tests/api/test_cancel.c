/* Cancelling: one request, delivered once, at a suspending call that then took
 * nothing.  Rows TASK-08 to TASK-15, TASK-36 and TASK-37. */
#include "support/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static heist_task *new_task(heist_loop *loop, heist_coro_fn fn, void *arg) {
    heist_task *task = NULL;
    assert_int_equal(heist_loop_create_task(loop, fn, arg, NULL, &task), 0);
    return task;
}

static int sleep_long(void *arg, void **out) {
    struct record *record = arg;
    (void)out;
    int err = heist_sleep(1000);
    if (record) record_add(record, "slept:%d", err == -ECANCELED);
    return err;
}

static void request_is_recorded_and_delivered_where_the_task_waits_TASK_08_TASK_12_TASK_15(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_task *task = new_task(loop, sleep_long, &record);
    harness_one_pass(loop);
    assert_int_equal(heist_cancel(task), 1);
    assert_int_equal(heist_future_cancelled(task), 0); /* asked, not ended */
    assert_int_equal(heist_future_done(task), 0);
    assert_int_equal(heist_cancelling(task), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), -ECANCELED);
    assert_string_equal(record_text(&record), "slept:1");
    assert_int_equal(heist_future_cancelled(task), 1);
    assert_int_equal(heist_cancel(task), 0); /* done: TASK-12 */
    heist_unref(task);
    harness_loop_end(loop);
}

static void task_that_never_ran_ends_without_running_TASK_08(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    struct mark mark = {&record, "arg", loop};
    heist_task *task = NULL;
    opts.arg_free = mark_free;
    assert_int_equal(heist_loop_create_task(loop, sleep_long, &mark, &opts, &task), 0);
    assert_int_equal(heist_cancel(task), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), -ECANCELED);
    assert_string_equal(record_text(&record), "free:arg");
    heist_unref(task);
    harness_loop_end(loop);
}

struct waiting {
    heist_future *future;
    struct record *record;
    double deadline;
    int err;
};

static int await_it(void *arg, void **out) {
    struct waiting *waiting = arg;
    (void)out;
    waiting->err = heist_await(waiting->future, NULL);
    return waiting->err;
}

static int await_it_until(void *arg, void **out) {
    struct waiting *waiting = arg;
    (void)out;
    waiting->err = heist_await_until(waiting->future, waiting->deadline, NULL);
    return waiting->err;
}

static void cancelling_a_waiter_cancels_what_it_awaits_TASK_09(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct waiting plain = {.err = 1}, middle = {.err = 1}, outer = {.err = 1};
    assert_int_equal(heist_future_new(loop, &plain.future), 0);
    heist_task *task = new_task(loop, await_it, &plain);
    harness_one_pass(loop);
    assert_int_equal(heist_cancel(task), 1);
    assert_int_equal(heist_future_cancelled(plain.future), 1); /* a plain future ends at once */
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), -ECANCELED);
    assert_int_equal(plain.err, -ECANCELED);
    heist_unref(task);
    heist_unref(plain.future);

    middle.future = new_task(loop, sleep_long, &record); /* and down a chain of tasks */
    outer.future = new_task(loop, await_it, &middle);
    task = new_task(loop, await_it, &outer);
    harness_one_pass(loop);
    harness_one_pass(loop);
    assert_int_equal(heist_cancel(task), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), -ECANCELED);
    assert_string_equal(record_text(&record), "slept:1");
    assert_int_equal(heist_future_cancelled(middle.future), 1);
    assert_int_equal(heist_future_cancelled(outer.future), 1);
    heist_unref(task);
    heist_unref(middle.future);
    heist_unref(outer.future);
    harness_loop_end(loop);
}

static void await_until_neither_cancels_at_its_deadline_nor_when_cancelled_TASK_09(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    struct waiting waiting = {.err = 1, .deadline = heist_loop_time(loop) + 5};
    assert_int_equal(heist_future_new(loop, &waiting.future), 0);
    assert_int_equal(heist_loop_run_coroutine(loop, await_it_until, &waiting, NULL, NULL), -ETIMEDOUT);
    assert_int_equal(heist_future_state(waiting.future), HEIST_PENDING);

    waiting.deadline = HEIST_FOREVER;
    heist_task *task = new_task(loop, await_it_until, &waiting);
    harness_one_pass(loop);
    assert_int_equal(heist_cancel(task), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), -ECANCELED);
    assert_int_equal(heist_future_state(waiting.future), HEIST_PENDING);
    heist_unref(task);
    heist_unref(waiting.future);
    harness_loop_end(loop);
}

static int await_until_now(void *arg, void **out) {
    struct waiting *waiting = arg;
    (void)out;
    waiting->err = heist_await_until(waiting->future, heist_time() - 1, NULL);
    return 0;
}

static void await_until_takes_a_done_future_even_after_its_deadline(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    struct waiting waiting = {.err = 1};
    assert_int_equal(heist_future_new(loop, &waiting.future), 0);
    assert_int_equal(heist_loop_run_coroutine(loop, await_until_now, &waiting, NULL, NULL), 0);
    assert_int_equal(waiting.err, -ETIMEDOUT);
    assert_int_equal(heist_future_set_result(waiting.future, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_coroutine(loop, await_until_now, &waiting, NULL, NULL), 0);
    assert_int_equal(waiting.err, 0);
    heist_unref(waiting.future);
    harness_loop_end(loop);
}

static int swallow(void *arg, void **out) {
    struct record *record = arg;
    int err = heist_sleep(1000);
    record_add(record, "first:%d", err == -ECANCELED);
    err = heist_sleep(1); /* clean-up awaits work */
    record_add(record, "clean-up:%d", err);
    *out = record;
    return 0; /* and the request is swallowed */
}

static int clean_up_and_end(void *arg, void **out) {
    struct record *record = arg;
    (void)out;
    int err = heist_sleep(1000);
    record_add(record, "clean-up:%d", heist_sleep(1));
    return err;
}

static void body_may_clean_up_swallow_or_end_TASK_10_TASK_14(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    void *out = NULL;
    heist_task *task = new_task(loop, swallow, &record);
    harness_one_pass(loop);
    assert_int_equal(heist_cancel(task), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, task, &out), 0);
    assert_ptr_equal(out, &record);
    assert_int_equal(heist_future_cancelled(task), 0);
    assert_int_equal(heist_future_state(task), HEIST_DONE);
    assert_string_equal(record_text(&record), "first:1 clean-up:0");
    heist_unref(task);

    record_clear(&record);
    task = new_task(loop, clean_up_and_end, &record);
    harness_one_pass(loop);
    assert_int_equal(heist_cancel(task), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), -ECANCELED);
    assert_string_equal(record_text(&record), "clean-up:0");
    heist_unref(task);
    harness_loop_end(loop);
}

static int cancel_me(void *arg, void **out) {
    struct record *record = arg;
    (void)out;
    record_add(record, "before-sleep");
    int err = heist_sleep(3600);
    if (err == -ECANCELED) record_add(record, "cancel-sleep");
    record_add(record, "after-sleep");
    return err;
}

static int cancel_example(void *arg, void **out) {
    struct record *record = arg;
    heist_task *task = NULL;
    (void)out;
    int err = heist_create_task(cancel_me, record, NULL, &task);
    if (err < 0) return err;
    err = heist_sleep(1);
    if (err < 0) return err;
    heist_cancel(task);
    if (heist_await(task, NULL) == -ECANCELED) record_add(record, "main-saw-it");
    heist_unref(task);
    return 0;
}

static void the_cancel_example_gives_its_four_lines_TASK_11(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    assert_int_equal(harness_run(cancel_example, &record, NULL), 0);
    assert_string_equal(record_text(&record), "before-sleep cancel-sleep after-sleep main-saw-it");
}

static int wait_three_times(void *arg, void **out) {
    struct record *record = arg;
    (void)out;
    for (int i = 0; i < 3; i++) record_add(record, "%d", heist_sleep(10) == -ECANCELED);
    return 0;
}

static void requests_are_counted_and_taken_back_TASK_13(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_task *task = new_task(loop, wait_three_times, &record);
    harness_one_pass(loop);
    assert_int_equal(heist_cancelling(task), 0);
    assert_int_equal(heist_cancel(task), 1);
    assert_int_equal(heist_cancel(task), 1);
    assert_int_equal(heist_cancelling(task), 2);
    assert_int_equal(heist_uncancel(task), 1);
    assert_int_equal(heist_uncancel(task), 0);
    assert_int_equal(heist_uncancel(task), 0); /* never below zero */
    assert_int_equal(heist_cancelling(task), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), 0);
    heist_unref(task);
    harness_loop_end(loop);
}

static int cancel_and_uncancel_oneself(void *arg, void **out) {
    struct record *record = arg;
    heist_task *self = heist_current_task();
    (void)out;
    record_add(record, "%d", heist_cancel(self));
    record_add(record, "%d", heist_uncancel(self));
    record_add(record, "%d", heist_sleep(1)); /* withdrawn before it was delivered */
    record_add(record, "%d", heist_cancel(self));
    record_add(record, "%d", heist_yield() == -ECANCELED); /* the next call that may suspend */
    record_add(record, "%d", heist_sleep(1));
    return 0;
}

static void request_that_was_not_delivered_can_be_withdrawn_TASK_13(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    assert_int_equal(heist_loop_run_coroutine(loop, cancel_and_uncancel_oneself, &record, NULL, NULL), 0);
    assert_string_equal(record_text(&record), "1 0 0 1 1 0");
    harness_loop_end(loop);
}

static void one_request_is_delivered_once_TASK_14(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_task *task = new_task(loop, wait_three_times, &record);
    harness_one_pass(loop);
    assert_int_equal(heist_cancel(task), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), 0);
    assert_string_equal(record_text(&record), "1 0 0");
    heist_unref(task);

    record_clear(&record); /* another request is another delivery */
    task = new_task(loop, wait_three_times, &record);
    harness_one_pass(loop);
    assert_int_equal(heist_cancel(task), 1);
    harness_one_pass(loop);
    assert_int_equal(heist_cancel(task), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), 0);
    assert_string_equal(record_text(&record), "1 1 0");
    heist_unref(task);
    harness_loop_end(loop);
}

static int await_done_while_asked(void *arg, void **out) {
    struct waiting *waiting = arg;
    (void)out;
    heist_cancel(heist_current_task());
    waiting->err = heist_await(waiting->future, NULL);
    int later = heist_sleep(1);
    record_add(waiting->record, "%d:%d", waiting->err == -ECANCELED, later == -ECANCELED);
    return 0;
}

/* A call that may suspend is a cancellation point every time, also when it need not wait. */
static void pending_request_is_delivered_at_the_very_next_call_TASK_08(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct waiting waiting = {.record = &record, .err = 1};
    assert_int_equal(heist_future_new(loop, &waiting.future), 0);
    assert_int_equal(heist_future_set_result(waiting.future, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_coroutine(loop, await_done_while_asked, &waiting, NULL, NULL), 0);
    assert_string_equal(record_text(&record), "1:0");
    heist_unref(waiting.future);
    harness_loop_end(loop);
}

static void cancel_message_reaches_the_waiter_TASK_08_FUT_11(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_exception e = HEIST_EXCEPTION_INIT;
    heist_task *task = new_task(loop, sleep_long, NULL);
    harness_one_pass(loop);
    assert_int_equal(heist_cancel_message(task, "the guest has left"), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), -ECANCELED);
    assert_int_equal(heist_future_exception(task, &e), 0);
    assert_int_equal(e.code, -ECANCELED);
    assert_string_equal(e.message, "the guest has left");
    heist_unref(task);
    harness_loop_end(loop);
}

static void interrupted_program_cleans_up_and_closes_TASK_36_TASK_12(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_task *tasks[4], **list = NULL;
    size_t count = 0;
    int yes = 0, no = 0;
    tasks[0] = new_task(loop, wait_three_times, &record); /* 30 s */
    for (int i = 1; i < 4; i++) tasks[i] = new_task(loop, sleep_long, &record);
    assert_int_equal(heist_loop_call_later(loop, 35, stop_loop, loop, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    record_clear(&record);
    assert_int_equal(heist_all_tasks(loop, &list, &count), 0);
    assert_int_equal(count, 3);
    heist_task_list_free(list, count);
    for (int i = 0; i < 4; i++) {
        if (heist_cancel(tasks[i]) == 1)
            yes++;
        else
            no++;
    }
    assert_int_equal(yes, 3);
    assert_int_equal(no, 1);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "slept:1 slept:1 slept:1");
    for (int i = 0; i < 4; i++) {
        assert_int_equal(heist_future_done(tasks[i]), 1);
        heist_unref(tasks[i]);
    }
    harness_loop_end(loop);
}

static int gather_sleepers(void *arg, void **out) {
    heist_task *tasks[3] = {NULL, NULL, NULL};
    int err = 0;
    (void)out;
    for (int i = 0; i < 3 && err == 0; i++) err = heist_create_task(sleep_long, arg, NULL, &tasks[i]);
    if (err == 0) err = heist_gather(tasks, 3, NULL, 0);
    for (int i = 0; i < 3; i++) heist_unref(tasks[i]);
    return err;
}

static void cancelling_the_outer_task_ends_the_children_TASK_37(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_task *outer = new_task(loop, gather_sleepers, &record);
    harness_one_pass(loop);
    harness_one_pass(loop);
    assert_int_equal(heist_cancel(outer), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, outer, NULL), -ECANCELED);
    assert_string_equal(record_text(&record), "slept:1 slept:1 slept:1");
    heist_unref(outer);
    harness_loop_end(loop);
}

/* ---- on a runtime, from everywhere ---- */

struct storm {
    _Atomic(int) ended, delivered;
};

static int be_cancelled_or_not(void *arg, void **out) {
    struct storm *storm = arg;
    (void)out;
    int err = heist_sleep(0.0001);
    if (err == -ECANCELED) storm->delivered++;
    int again = heist_yield();
    if (again == -ECANCELED) storm->delivered++;
    storm->ended++;
    return err < 0 ? err : again;
}

static void *cancel_all(void *arg) {
    heist_task **tasks = arg;
    for (int i = 0; tasks[i]; i++) heist_cancel(tasks[i]);
    return NULL;
}

static void cancel_races_with_the_end_and_is_delivered_at_most_once_TASK_14(void **state) {
    (void)state;
    enum { COUNT = 400 };
    heist_runtime *rt = harness_runtime(0);
    static struct storm storms[COUNT];
    static heist_task *tasks[COUNT + 1];
    int bad = 0;
    for (int i = 0; i < COUNT; i++) {
        storms[i].ended = storms[i].delivered = 0;
        assert_int_equal(heist_runtime_run_coroutine(rt, be_cancelled_or_not, &storms[i], NULL, &tasks[i]), 0);
    }
    tasks[COUNT] = NULL;
    pthread_t thread = harness_thread(cancel_all, tasks);
    for (int i = 0; i < COUNT; i++) {
        int err = heist_await(tasks[i], NULL);
        int cancelled = heist_future_cancelled(tasks[i]);
        if (err != (cancelled ? -ECANCELED : 0)) bad++;
        if (storms[i].ended > 1 || storms[i].delivered > 1) bad++;
        if (!cancelled && (storms[i].ended != 1 || storms[i].delivered != 0)) bad++;
        if (cancelled && storms[i].ended == 1 && storms[i].delivered != 1) bad++;
    }
    harness_join(thread);
    for (int i = 0; i < COUNT; i++) heist_unref(tasks[i]);
    harness_runtime_end(rt);
    assert_int_equal(bad, 0);
}

static const struct CMUnitTest tests[] = {
    API_TEST(request_is_recorded_and_delivered_where_the_task_waits_TASK_08_TASK_12_TASK_15),
    API_TEST(task_that_never_ran_ends_without_running_TASK_08),
    API_TEST(cancelling_a_waiter_cancels_what_it_awaits_TASK_09),
    API_TEST(await_until_neither_cancels_at_its_deadline_nor_when_cancelled_TASK_09),
    API_TEST(await_until_takes_a_done_future_even_after_its_deadline),
    API_TEST(body_may_clean_up_swallow_or_end_TASK_10_TASK_14),
    API_TEST(the_cancel_example_gives_its_four_lines_TASK_11),
    API_TEST(requests_are_counted_and_taken_back_TASK_13),
    API_TEST(request_that_was_not_delivered_can_be_withdrawn_TASK_13),
    API_TEST(one_request_is_delivered_once_TASK_14),
    API_TEST(pending_request_is_delivered_at_the_very_next_call_TASK_08),
    API_TEST(cancel_message_reaches_the_waiter_TASK_08_FUT_11),
    API_TEST(interrupted_program_cleans_up_and_closes_TASK_36_TASK_12),
    API_TEST(cancelling_the_outer_task_ends_the_children_TASK_37),
    API_TEST(cancel_races_with_the_end_and_is_delivered_at_most_once_TASK_14),
};

int main(void) {
    return HARNESS_MAIN("cancel", tests);
}
