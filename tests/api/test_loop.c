/* The life of a loop: making, running, stopping, closing, and whose loop it is.
 * Rows LOOP of the list of behaviours; the order of a pass is exact, so every test
 * here has a loop of its own. */
#include "support/harness.h"

#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- making, and whose loop it is ---- */

static void new_loops_stand_side_by_side_and_none_is_current_LOOP_01(void **state) {
    (void)state;
    heist_loop *a = harness_loop(), *b = harness_loop(), *seen = NULL;
    assert_ptr_not_equal(a, b);
    assert_int_equal(heist_loop_is_running(a), 0);
    assert_int_equal(heist_loop_is_closed(a), 0);
    assert_int_equal(heist_loop_is_running(b), 0);
    assert_int_equal(heist_loop_is_closed(b), 0);
    assert_int_equal(heist_get_event_loop(&seen), HEIST_ENOLOOP);
    assert_int_equal(heist_get_running_loop(&seen), HEIST_ENOLOOP);
    assert_null(seen);
    harness_loop_end(b);
    harness_loop_end(a);
}

struct who {
    heist_loop *loop, *running, *event;
    int running_err, event_err;
};

static int ask_who(void *arg) {
    struct who *who = arg;
    who->running_err = heist_get_running_loop(&who->running);
    who->event_err = heist_get_event_loop(&who->event);
    return 0;
}

static int ask_who_in_task(void *arg, void **out) {
    (void)out;
    return ask_who(arg);
}

static void running_loop_is_the_one_that_runs_the_caller_LOOP_02(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    struct who callback = {0}, task = {0}, outside = {0};
    assert_int_equal(heist_loop_call_soon(loop, ask_who, &callback, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_coroutine(loop, ask_who_in_task, &task, NULL, NULL), 0);
    assert_int_equal(callback.running_err, 0);
    assert_ptr_equal(callback.running, loop);
    assert_int_equal(task.running_err, 0);
    assert_ptr_equal(task.running, loop);
    ask_who(&outside);
    assert_int_equal(outside.running_err, HEIST_ENOLOOP);
    harness_loop_end(loop);
}

static void event_loop_is_the_running_one_else_the_set_one_else_an_error_LOOP_03(void **state) {
    (void)state;
    heist_loop *loop = harness_loop(), *set = harness_loop();
    struct who inside = {0}, outside = {0}, cleared = {0};
    assert_int_equal(heist_set_event_loop(set), 0);
    assert_int_equal(heist_loop_call_soon(loop, ask_who, &inside, NULL, NULL), 0);
    harness_one_pass(loop);
    ask_who(&outside);
    assert_int_equal(heist_set_event_loop(NULL), 0);
    ask_who(&cleared);
    assert_int_equal(inside.event_err, 0);
    assert_ptr_equal(inside.event, loop);
    assert_int_equal(outside.event_err, 0);
    assert_ptr_equal(outside.event, set);
    assert_int_equal(outside.running_err, HEIST_ENOLOOP);
    assert_int_equal(cleared.event_err, HEIST_ENOLOOP);
    harness_loop_end(set);
    harness_loop_end(loop);
}

static void setting_null_clears_and_drops_the_reference_LOOP_04(void **state) {
    (void)state;
    heist_loop *loop = harness_loop(), *seen = NULL;
    assert_int_equal(heist_set_event_loop(loop), 0);
    assert_int_equal(heist_loop_close(loop), 0);
    heist_loop_unref(loop); /* the thread's own reference is left */
    assert_int_equal(heist_get_event_loop(&seen), 0);
    assert_ptr_equal(seen, loop);
    assert_int_equal(heist_loop_is_closed(seen), 1);
    assert_int_equal(heist_set_event_loop(NULL), 0); /* the teardown would see the block if this leaked */
    assert_int_equal(heist_get_event_loop(&seen), HEIST_ENOLOOP);
}

static void *ask_who_in_thread(void *arg) {
    ask_who(arg);
    return NULL;
}

static void loop_set_in_one_thread_is_unseen_in_another_LOOP_05(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    struct who other = {0};
    assert_int_equal(heist_set_event_loop(loop), 0);
    harness_join(harness_thread(ask_who_in_thread, &other));
    assert_int_equal(heist_set_event_loop(NULL), 0);
    assert_int_equal(other.event_err, HEIST_ENOLOOP);
    harness_loop_end(loop);
}

/* ---- running ---- */

static void run_forever_stops_and_goes_on_with_the_rest_LOOP_06(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct mark first = {&record, "first", loop}, timer = {&record, "timer", loop}, late = {&record, "late", loop};
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &first, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_later(loop, 5, mark_and_stop, &timer, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_later(loop, 6, mark_and_stop, &late, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_string_equal(record_text(&record), "first timer");
    assert_int_equal(heist_loop_is_running(loop), 0);
    assert_int_equal(heist_loop_is_closed(loop), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_string_equal(record_text(&record), "first timer late");
    harness_loop_end(loop);
}

static int give_argument(void *arg, void **out) {
    *out = arg;
    return 0;
}

static int fail_with_eproto(void *arg, void **out) {
    (void)arg;
    (void)out;
    return heist_fail(-EPROTO, "no such %s", "thing");
}

struct completion {
    heist_future *future;
    void *value;
    int err;
};

static int complete(void *arg) {
    struct completion *completion = arg;
    completion->err = heist_future_set_result(completion->future, completion->value, NULL);
    return 0;
}

static void run_until_complete_takes_future_task_and_coroutine_LOOP_07(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    int value = 7;
    void *out = NULL;

    struct completion completion = {NULL, &value, 1};
    assert_int_equal(heist_loop_create_future(loop, &completion.future), 0);
    assert_int_equal(heist_loop_call_later(loop, 1, complete, &completion, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, completion.future, &out), 0);
    assert_ptr_equal(out, &value);
    heist_unref(completion.future);

    heist_task *task = NULL;
    out = NULL;
    assert_int_equal(heist_loop_create_task(loop, give_argument, &value, NULL, &task), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, task, &out), 0);
    assert_ptr_equal(out, &value);
    heist_unref(task);

    out = NULL;
    assert_int_equal(heist_loop_run_coroutine(loop, give_argument, &value, NULL, &out), 0);
    assert_ptr_equal(out, &value);

    out = &value;
    assert_int_equal(heist_loop_run_coroutine(loop, fail_with_eproto, NULL, NULL, &out), -EPROTO);
    assert_ptr_equal(out, &value); /* untouched on failure */
    harness_loop_end(loop);
}

static void run_until_complete_leaves_no_stop_behind_LOOP_08(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct completion completion = {NULL, NULL, 1};
    struct mark end = {&record, "end", loop};
    assert_int_equal(heist_loop_create_future(loop, &completion.future), 0);
    assert_int_equal(heist_loop_call_soon(loop, stop_loop, loop, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, completion.future, NULL), HEIST_ESTOPPED);

    assert_int_equal(heist_loop_call_soon(loop, complete, &completion, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_later(loop, 1, mark_and_stop, &end, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0); /* the future's end no longer stops it */
    assert_int_equal(completion.err, 0);
    assert_string_equal(record_text(&record), "end");
    heist_unref(completion.future);
    harness_loop_end(loop);
}

static void run_until_complete_of_nothing_is_refused_LOOP_09(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    void *out = NULL;
    int value = 1;
    assert_int_equal(heist_loop_run_until_complete(loop, NULL, &out), -EINVAL);
    assert_int_equal(heist_loop_run_coroutine(loop, NULL, NULL, NULL, &out), -EINVAL);
    assert_int_equal(heist_loop_run_coroutine(loop, give_argument, &value, NULL, &out), 0);
    assert_ptr_equal(out, &value);
    harness_loop_end(loop);
}

static int sleep_ten_seconds(void *arg, void **out) {
    int err = heist_sleep(10);
    if (err == 0) *out = arg;
    return err;
}

static void stop_before_the_end_is_reported_and_the_task_lives_LOOP_10(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_task *task = NULL;
    int value = 3;
    void *out = NULL;
    assert_int_equal(heist_loop_create_task(loop, sleep_ten_seconds, &value, NULL, &task), 0);
    assert_int_equal(heist_loop_call_later(loop, 1, stop_loop, loop, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, task, &out), HEIST_ESTOPPED);
    assert_null(out);
    assert_int_equal(heist_future_done(task), 0);
    assert_int_equal(heist_cancelling(task), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, task, &out), 0);
    assert_ptr_equal(out, &value);
    heist_unref(task);
    harness_loop_end(loop);
}

struct nested {
    heist_loop *loop;
    heist_future *future;
    int forever, until, coroutine, once, close;
};

static int run_again(void *arg) {
    struct nested *nested = arg;
    nested->forever = heist_loop_run_forever(nested->loop);
    nested->until = heist_loop_run_until_complete(nested->loop, nested->future, NULL);
    nested->coroutine = heist_loop_run_coroutine(nested->loop, give_argument, NULL, NULL, NULL);
    nested->once = heist_loop_run_once(nested->loop, NULL);
    nested->close = heist_loop_close(nested->loop);
    return 0;
}

static int run_again_in_task(void *arg, void **out) {
    (void)out;
    return run_again(arg);
}

static void running_a_running_loop_is_refused_LOOP_11(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    struct nested callback = {.loop = loop}, task = {.loop = loop};
    assert_int_equal(heist_loop_create_future(loop, &callback.future), 0);
    task.future = callback.future;
    assert_int_equal(heist_loop_call_soon(loop, run_again, &callback, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_coroutine(loop, run_again_in_task, &task, NULL, NULL), 0);
    assert_int_equal(callback.forever, HEIST_ERUNNING);
    assert_int_equal(callback.until, HEIST_ERUNNING);
    assert_int_equal(callback.coroutine, HEIST_ERUNNING);
    assert_int_equal(callback.once, HEIST_ERUNNING);
    assert_int_equal(task.forever, HEIST_ERUNNING);
    assert_int_equal(task.until, HEIST_ERUNNING);
    assert_int_equal(task.coroutine, HEIST_ERUNNING);
    assert_int_equal(task.once, HEIST_ERUNNING);
    heist_unref(callback.future);
    harness_loop_end(loop);
}

static void *run_it_in_thread(void *arg) {
    struct nested *nested = arg;
    nested->forever = heist_loop_run_forever(nested->loop);
    return NULL;
}

/* The other loop runs in a thread of its own while this callback waits, which is allowed. */
static int run_elsewhere(void *arg) {
    harness_join(harness_thread(run_it_in_thread, arg));
    return 0;
}

static void running_another_loop_in_the_same_thread_is_refused_LOOP_12(void **state) {
    (void)state;
    heist_loop *outer = harness_loop(), *inner = harness_loop();
    struct nested here = {.loop = inner}, elsewhere = {.loop = inner, .forever = 1};
    assert_int_equal(heist_loop_create_future(inner, &here.future), 0);
    assert_int_equal(heist_loop_call_soon(outer, run_again, &here, NULL, NULL), 0);
    harness_one_pass(outer);
    assert_int_equal(here.forever, HEIST_EOTHERRUNNING);
    assert_int_equal(here.until, HEIST_EOTHERRUNNING);
    assert_int_equal(here.coroutine, HEIST_EOTHERRUNNING);
    assert_int_equal(here.once, HEIST_EOTHERRUNNING);
    assert_int_equal(here.close, 0); /* it does not run, so closing it from here is fine */
    heist_unref(here.future);
    heist_loop_unref(inner);

    inner = harness_loop();
    elsewhere.loop = inner;
    assert_int_equal(heist_loop_call_soon(inner, stop_loop, inner, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_soon(outer, run_elsewhere, &elsewhere, NULL, NULL), 0);
    harness_one_pass(outer);
    assert_int_equal(elsewhere.forever, 0);
    harness_loop_end(inner);
    harness_loop_end(outer);
}

static int ask_running(void *arg) {
    struct who *who = arg;
    who->running_err = heist_loop_is_running(who->loop);
    return heist_loop_stop(who->loop);
}

static void loop_is_running_between_entry_and_exit_only_LOOP_13(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    struct who inside = {.loop = loop};
    assert_int_equal(heist_loop_is_running(loop), 0);
    assert_int_equal(heist_loop_call_soon(loop, ask_running, &inside, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_int_equal(inside.running_err, 1);
    assert_int_equal(heist_loop_is_running(loop), 0);
    harness_loop_end(loop);
}

struct requeue {
    struct mark mark, next;
};

static int mark_stop_and_queue(void *arg) {
    struct requeue *requeue = arg;
    mark_and_stop(&requeue->mark);
    return heist_loop_call_soon(requeue->mark.loop, mark_word, &requeue->next, NULL, NULL);
}

static void stop_lets_the_pass_end_and_no_more_LOOP_14(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct requeue a = {{&record, "a", loop}, {&record, "next", loop}};
    struct mark b = {&record, "b", loop}, c = {&record, "c", loop};
    assert_int_equal(heist_loop_call_soon(loop, mark_stop_and_queue, &a, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &b, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &c, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_string_equal(record_text(&record), "a b c");
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "a b c next");
    harness_loop_end(loop);
}

static void stop_of_an_idle_loop_makes_the_next_run_one_pass_LOOP_15(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct mark one = {&record, "one", loop};
    assert_int_equal(heist_loop_stop(loop), 0);
    assert_int_equal(heist_loop_stop(loop), 0);
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &one, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_string_equal(record_text(&record), "one");
    harness_loop_end(loop);
}

struct stopper {
    heist_loop *loop;
    struct gate running;
    bool post;
    int err;
};

static int tell_running(void *arg) {
    gate_open(arg);
    return 0;
}

static void *stop_from_outside(void *arg) {
    struct stopper *stopper = arg;
    gate_wait(&stopper->running);
    if (stopper->post)
        stopper->err = heist_loop_call_soon_threadsafe(stopper->loop, stop_loop, stopper->loop, NULL, NULL);
    else
        stopper->err = heist_loop_stop(stopper->loop);
    return NULL;
}

static void stop_from_another_thread_wakes_the_loop_LOOP_16(void **state) {
    (void)state;
    for (int post = 0; post < 2; post++) {
        heist_loop *loop = harness_real_loop();
        struct stopper stopper = {loop, GATE_INIT, post, 1};
        assert_int_equal(heist_loop_call_soon(loop, tell_running, &stopper.running, NULL, NULL), 0);
        pthread_t thread = harness_thread(stop_from_outside, &stopper);
        int err = heist_loop_run_forever(loop); /* nothing else would end it */
        harness_join(thread);
        assert_int_equal(err, 0);
        assert_int_equal(stopper.err, 0);
        harness_loop_end(loop);
    }
}

/* ---- closing ---- */

static void close_of_a_running_loop_changes_nothing_LOOP_17(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct nested nested = {.loop = loop};
    struct mark after = {&record, "after", loop};
    assert_int_equal(heist_loop_create_future(loop, &nested.future), 0);
    assert_int_equal(heist_loop_call_soon(loop, run_again, &nested, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_later(loop, 1, mark_and_stop, &after, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_int_equal(nested.close, HEIST_ERUNNING);
    assert_int_equal(heist_loop_is_closed(loop), 0);
    assert_string_equal(record_text(&record), "after");
    heist_unref(nested.future);
    harness_loop_end(loop);
}

static void *close_in_thread(void *arg) {
    struct nested *nested = arg;
    nested->close = heist_loop_close(nested->loop);
    return NULL;
}

static void close_is_idempotent_from_any_thread_LOOP_18(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    struct mark once = {&record, "once", loop};
    struct nested closers[8];
    pthread_t threads[8];
    opts.arg_free = mark_free;
    assert_int_equal(heist_loop_call_later(loop, 9, mark_word, &once, &opts, NULL), 0);
    for (int i = 0; i < 8; i++) {
        closers[i] = (struct nested){.loop = loop, .close = 1};
        threads[i] = harness_thread(close_in_thread, &closers[i]);
    }
    for (int i = 0; i < 8; i++) harness_join(threads[i]);
    for (int i = 0; i < 8; i++) assert_int_equal(closers[i].close, 0);
    assert_int_equal(heist_loop_close(loop), 0);
    assert_string_equal(record_text(&record), "free:once"); /* and no "once": it was cancelled, once */
    heist_loop_unref(loop);
}

static void closed_loop_refuses_everything_for_ever_LOOP_19_LOOP_20(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_future *future = NULL, *pending = NULL;
    heist_handle *handle = NULL;
    heist_task *task = NULL;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(heist_loop_create_future(loop, &pending), 0);
    assert_int_equal(heist_loop_close(loop), 0);
    assert_int_equal(heist_loop_is_closed(loop), 1);

    assert_int_equal(heist_loop_call_soon(loop, stop_loop, loop, NULL, &handle), HEIST_ECLOSED);
    assert_int_equal(heist_loop_call_soon_threadsafe(loop, stop_loop, loop, NULL, &handle), HEIST_ECLOSED);
    assert_int_equal(heist_loop_call_later(loop, 1, stop_loop, loop, NULL, &handle), HEIST_ECLOSED);
    assert_int_equal(heist_loop_call_at(loop, 1, stop_loop, loop, NULL, &handle), HEIST_ECLOSED);
    assert_int_equal(heist_loop_create_task(loop, give_argument, NULL, NULL, &task), HEIST_ECLOSED);
    assert_int_equal(heist_run_coroutine_threadsafe(loop, give_argument, NULL, NULL, &task), HEIST_ECLOSED);
    assert_int_equal(heist_loop_create_future(loop, &future), HEIST_ECLOSED);
    assert_int_equal(heist_loop_add_reader(loop, ends[0], stop_loop, loop, NULL), HEIST_ECLOSED);
    assert_int_equal(heist_loop_add_writer(loop, ends[1], stop_loop, loop, NULL), HEIST_ECLOSED);
    assert_int_equal(heist_loop_run_forever(loop), HEIST_ECLOSED);
    assert_int_equal(heist_loop_run_until_complete(loop, pending, NULL), HEIST_ECLOSED);
    assert_int_equal(heist_loop_run_coroutine(loop, give_argument, NULL, NULL, NULL), HEIST_ECLOSED);
    assert_int_equal(heist_loop_run_once(loop, NULL), HEIST_ECLOSED);
    assert_int_equal(heist_loop_stop(loop), HEIST_ECLOSED);
    assert_int_equal(heist_loop_fd(loop), HEIST_ECLOSED);
    assert_null(future);
    assert_null(handle);
    assert_null(task);
    assert_int_equal(heist_loop_is_closed(loop), 1);
    heist_unref(pending);
    close(ends[0]);
    close(ends[1]);
    heist_loop_unref(loop);
}

static void closed_loop_still_answers_LOOP_21(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(heist_loop_close(loop), 0);
    assert_int_equal(heist_loop_is_running(loop), 0);
    assert_int_equal(heist_loop_is_closed(loop), 1);
    double before = heist_loop_time(loop);
    double then = heist_loop_time(loop);
    assert_true(before > 0 && then >= before);
    assert_int_equal(heist_loop_remove_reader(loop, ends[0]), 0);
    assert_int_equal(heist_loop_remove_writer(loop, ends[1]), 0);
    assert_int_equal(heist_loop_get_debug(loop), 0);
    close(ends[0]);
    close(ends[1]);
    heist_loop_unref(loop);
}

static void reader_goes_with_its_argument_at_close_LOOP_20(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    struct mark reader = {&record, "reader", loop}, soon = {&record, "soon", loop};
    int ends[2];
    opts.arg_free = mark_free;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(heist_loop_add_reader(loop, ends[0], mark_word, &reader, &opts), 0);
    assert_int_equal(heist_loop_close(loop), 0);
    assert_string_equal(record_text(&record), "free:reader");
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &soon, &opts, NULL), HEIST_ECLOSED);
    assert_string_equal(record_text(&record), "free:reader"); /* a refused argument stays the caller's */
    assert_int_equal(fcntl(ends[0], F_GETFD) >= 0, 1);        /* and so does the descriptor */
    close(ends[0]);
    close(ends[1]);
    heist_loop_unref(loop);
}

static void unclosed_loop_is_reported_and_closed_LOOP_23(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    assert_int_equal(heist_loop_set_exception_handler(loop, record_report, &record), 0);
    heist_loop_unref(loop); /* the teardown sees whether it was closed */
    assert_int_equal(record_words(&record), 1);
}

/* ---- what a loop makes ---- */

static void created_future_is_pending_and_of_that_loop_LOOP_24(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_future *future = NULL;
    assert_int_equal(heist_loop_create_future(loop, &future), 0);
    assert_int_equal(heist_future_state(future), HEIST_PENDING);
    assert_ptr_equal(heist_future_loop(future), loop);
    heist_unref(future);
    harness_loop_end(loop);
}

static int mark_in_task(void *arg, void **out) {
    (void)out;
    return mark_word(arg);
}

static void created_tasks_start_later_in_order_of_creation_LOOP_25(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct mark marks[3] = {{&record, "a", loop}, {&record, "b", loop}, {&record, "c", loop}};
    heist_task *tasks[3];
    for (int i = 0; i < 3; i++) {
        assert_int_equal(heist_loop_create_task(loop, mark_in_task, &marks[i], NULL, &tasks[i]), 0);
        assert_int_equal(heist_future_state(tasks[i]), HEIST_PENDING);
        assert_ptr_equal(heist_future_loop(tasks[i]), loop);
    }
    assert_int_equal(record_words(&record), 0);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "a b c");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(heist_future_state(tasks[i]), HEIST_DONE);
        heist_unref(tasks[i]);
    }
    harness_loop_end(loop);
}

static void time_is_the_monotonic_clock_in_seconds_LOOP_27(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop(), *other = harness_real_loop();
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    double first = heist_loop_time(loop), second = heist_loop_time(other), third = heist_time();
    clock_gettime(CLOCK_MONOTONIC, &b);
    /* A double of seconds since the start of the machine keeps nanoseconds for months, not for ever. */
    assert_true(first >= (double)a.tv_sec + (double)a.tv_nsec * 1e-9 - 1e-6);
    assert_true(second >= first && third >= second);
    assert_true(third <= (double)b.tv_sec + (double)b.tv_nsec * 1e-9 + 1e-6);
    harness_loop_end(other);
    harness_loop_end(loop);
}

/* ---- one pass ---- */

static int requeue_with_word(void *arg) {
    struct mark *mark = arg;
    record_add(mark->record, "%s", mark->word);
    return heist_loop_call_soon(mark->loop, requeue_with_word, mark, NULL, NULL);
}

static void one_pass_runs_what_was_queued_when_it_began_LOOP_29(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct mark again = {&record, "again", loop}, other = {&record, "other", loop};
    double timeout = -1;
    assert_int_equal(heist_loop_call_soon(loop, requeue_with_word, &again, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &other, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_once(loop, &timeout), 0);
    assert_string_equal(record_text(&record), "again other");
    assert_true(timeout == 0);
    assert_int_equal(heist_loop_run_once(loop, &timeout), 0);
    assert_string_equal(record_text(&record), "again other again");
    harness_loop_end(loop);
}

struct spin {
    heist_loop *loop;
    int read_end;
    long passes;
    bool timer, descriptor;
};

static int spin_on(void *arg) {
    struct spin *spin = arg;
    spin->passes++;
    if (spin->timer && spin->descriptor) return heist_loop_stop(spin->loop);
    return heist_loop_call_soon(spin->loop, spin_on, spin, NULL, NULL);
}

static int timer_came(void *arg) {
    struct spin *spin = arg;
    spin->timer = true;
    return 0;
}

static int descriptor_came(void *arg) {
    struct spin *spin = arg;
    char byte;
    if (read(spin->read_end, &byte, 1) != 1) return -EIO;
    spin->descriptor = true;
    heist_loop_remove_reader(spin->loop, spin->read_end);
    return 0;
}

static void callback_that_requeues_itself_starves_nobody_LOOP_30(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    struct spin spin = {.loop = loop, .read_end = ends[0]};
    assert_int_equal(heist_loop_call_soon(loop, spin_on, &spin, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_later(loop, 0.001, timer_came, &spin, NULL, NULL), 0);
    assert_int_equal(heist_loop_add_reader(loop, ends[0], descriptor_came, &spin, NULL), 0);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_int_equal(heist_loop_run_forever(loop), 0); /* ends only when both were served */
    assert_true(spin.timer && spin.descriptor && spin.passes > 0);
    close(ends[0]);
    close(ends[1]);
    harness_loop_end(loop);
}

struct blocker {
    struct record *record;
    heist_loop *loop;
};

static int block_in_task(void *arg, void **out) {
    struct blocker *blocker = arg;
    struct timespec pause = {0, 20000000};
    (void)out;
    record_add(blocker->record, "begin");
    nanosleep(&pause, NULL);
    record_add(blocker->record, "end");
    return 0;
}

static void blocking_call_holds_up_its_loop_LOOP_31(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_real_loop();
    struct blocker blocker = {&record, loop};
    struct mark timer = {&record, "timer", loop}, soon = {&record, "soon", loop};
    assert_int_equal(heist_loop_create_task(loop, block_in_task, &blocker, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &soon, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_later(loop, 0.001, mark_and_stop, &timer, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_string_equal(record_text(&record), "begin end soon timer");
    harness_loop_end(loop);
}

/* ---- descriptors ---- */

struct reading {
    struct record *record;
    heist_loop *loop;
    int fd, left;
};

static int read_one(void *arg) {
    struct reading *reading = arg;
    char byte = 0;
    if (read(reading->fd, &byte, 1) != 1) return -EIO;
    record_add(reading->record, "%c", byte);
    if (--reading->left == 0) {
        record_add(reading->record, "removed:%d", heist_loop_remove_reader(reading->loop, reading->fd));
        return heist_loop_stop(reading->loop);
    }
    return 0;
}

static void reader_runs_until_it_is_removed_LOOP_29_SOCK_01(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_real_loop();
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    struct reading reading = {&record, loop, ends[0], 3};
    assert_int_equal(heist_loop_add_reader(loop, ends[0], read_one, &reading, NULL), 0);
    assert_int_equal(write(ends[1], "abcd", 4), 4); /* one byte a call: the reader must be armed again each time */
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_string_equal(record_text(&record), "a b c removed:1");
    assert_int_equal(heist_loop_remove_reader(loop, ends[0]), 0);
    close(ends[0]);
    close(ends[1]);
    harness_loop_end(loop);
}

static void writer_and_reader_of_one_descriptor_are_apart_LOOP_29_SOCK_02(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_real_loop();
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    struct mark reader = {&record, "reader", loop}, writer = {&record, "writer", loop}, other = {&record, "other", loop};
    opts.arg_free = mark_free;
    assert_int_equal(heist_loop_add_reader(loop, pair[0], mark_word, &reader, &opts), 0);
    assert_int_equal(heist_loop_add_writer(loop, pair[0], mark_word, &other, &opts), 0);
    assert_int_equal(heist_loop_add_writer(loop, pair[0], mark_and_stop, &writer, &opts), 0); /* replaces */
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_int_equal(heist_loop_remove_writer(loop, pair[0]), 1);
    assert_int_equal(heist_loop_remove_writer(loop, pair[0]), 0);
    assert_int_equal(heist_loop_remove_reader(loop, pair[0]), 1);
    assert_string_equal(record_text(&record), "free:other writer free:writer free:reader");
    close(pair[0]);
    close(pair[1]);
    harness_loop_end(loop);
}

static const struct CMUnitTest tests[] = {
    API_TEST(new_loops_stand_side_by_side_and_none_is_current_LOOP_01),
    API_TEST(running_loop_is_the_one_that_runs_the_caller_LOOP_02),
    API_TEST(event_loop_is_the_running_one_else_the_set_one_else_an_error_LOOP_03),
    API_TEST(setting_null_clears_and_drops_the_reference_LOOP_04),
    API_TEST(loop_set_in_one_thread_is_unseen_in_another_LOOP_05),
    API_TEST(run_forever_stops_and_goes_on_with_the_rest_LOOP_06),
    API_TEST(run_until_complete_takes_future_task_and_coroutine_LOOP_07),
    API_TEST(run_until_complete_leaves_no_stop_behind_LOOP_08),
    API_TEST(run_until_complete_of_nothing_is_refused_LOOP_09),
    API_TEST(stop_before_the_end_is_reported_and_the_task_lives_LOOP_10),
    API_TEST(running_a_running_loop_is_refused_LOOP_11),
    API_TEST(running_another_loop_in_the_same_thread_is_refused_LOOP_12),
    API_TEST(loop_is_running_between_entry_and_exit_only_LOOP_13),
    API_TEST(stop_lets_the_pass_end_and_no_more_LOOP_14),
    API_TEST(stop_of_an_idle_loop_makes_the_next_run_one_pass_LOOP_15),
    API_TEST(stop_from_another_thread_wakes_the_loop_LOOP_16),
    API_TEST(close_of_a_running_loop_changes_nothing_LOOP_17),
    API_TEST(close_is_idempotent_from_any_thread_LOOP_18),
    API_TEST(closed_loop_refuses_everything_for_ever_LOOP_19_LOOP_20),
    API_TEST(closed_loop_still_answers_LOOP_21),
    API_TEST(reader_goes_with_its_argument_at_close_LOOP_20),
    API_TEST(unclosed_loop_is_reported_and_closed_LOOP_23),
    API_TEST(created_future_is_pending_and_of_that_loop_LOOP_24),
    API_TEST(created_tasks_start_later_in_order_of_creation_LOOP_25),
    API_TEST(time_is_the_monotonic_clock_in_seconds_LOOP_27),
    API_TEST(one_pass_runs_what_was_queued_when_it_began_LOOP_29),
    API_TEST(callback_that_requeues_itself_starves_nobody_LOOP_30),
    API_TEST(blocking_call_holds_up_its_loop_LOOP_31),
    API_TEST(reader_runs_until_it_is_removed_LOOP_29_SOCK_01),
    API_TEST(writer_and_reader_of_one_descriptor_are_apart_LOOP_29_SOCK_02),
};

int main(void) {
    return HARNESS_MAIN("loop", tests);
}
