/* Futures by hand: completing, asking, done callbacks, awaiting.  Rows FUT.  Where the
 * order of resumption matters the test has a loop of its own. */
#include "support/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static heist_future *new_future(heist_loop *loop) {
    heist_future *future = NULL;
    assert_int_equal(heist_future_new(loop, &future), 0);
    assert_non_null(future);
    return future;
}

static int values[4];

/* A destructor that counts, for values and for user pointers. */
static _Atomic(int) freed;
static void count_free(void *value) {
    (void)value;
    freed++;
}

/* ---- states ---- */

static void new_future_is_pending_FUT_01(void **state) {
    (void)state;
    heist_future *future = new_future(NULL);
    assert_int_equal(heist_future_state(future), HEIST_PENDING);
    assert_int_equal(heist_future_done(future), 0);
    assert_int_equal(heist_future_cancelled(future), 0);
    assert_int_equal(heist_cancelling(future), 0);
    assert_int_equal(heist_future_is_task(future), 0);
    heist_unref(future);
    heist_unref(NULL);
}

static void set_result_gives_the_value_any_number_of_times_FUT_02(void **state) {
    (void)state;
    heist_future *future = new_future(NULL);
    void *out = NULL;
    freed = 0;
    assert_int_equal(heist_future_set_result(future, &values[1], count_free), 0);
    assert_int_equal(heist_future_state(future), HEIST_DONE);
    for (int i = 0; i < 3; i++) {
        out = NULL;
        assert_int_equal(heist_future_result(future, &out), 0);
        assert_ptr_equal(out, &values[1]);
    }
    assert_int_equal(heist_future_result(future, NULL), 0);
    assert_int_equal(freed, 0);
    heist_unref(future);
    assert_int_equal(freed, 1);
}

static void take_moves_the_value_out_once_FUT_02(void **state) {
    (void)state;
    heist_future *future = new_future(NULL);
    void *out = NULL;
    freed = 0;
    assert_int_equal(heist_future_set_result(future, &values[2], count_free), 0);
    assert_int_equal(heist_future_take(future, &out), 0);
    assert_ptr_equal(out, &values[2]);
    out = NULL;
    assert_int_equal(heist_future_take(future, &out), HEIST_ERESULTTAKEN);
    assert_int_equal(heist_future_result(future, &out), HEIST_ERESULTTAKEN);
    assert_null(out);
    heist_unref(future);
    assert_int_equal(freed, 0); /* the value is the taker's */
}

static void set_exception_gives_code_and_message_FUT_03(void **state) {
    (void)state;
    heist_future *future = new_future(NULL);
    heist_exception e = HEIST_EXCEPTION_INIT;
    void *out = &values[0];
    char message[] = "the line is dead";
    assert_int_equal(heist_future_set_exception(future, -EPIPE, message), 0);
    message[0] = 'X'; /* it was copied */
    assert_int_equal(heist_future_state(future), HEIST_DONE);
    assert_int_equal(heist_future_result(future, &out), -EPIPE);
    assert_ptr_equal(out, &values[0]);
    assert_int_equal(heist_future_exception(future, &e), 0);
    assert_int_equal(e.code, -EPIPE);
    assert_string_equal(e.message, "the line is dead");
    heist_unref(future);
}

static void second_completion_is_refused_and_changes_nothing_FUT_04(void **state) {
    (void)state;
    for (int first = 0; first < 3; first++) {
        heist_future *future = new_future(NULL);
        void *out = NULL;
        freed = 0;
        if (first == 0) assert_int_equal(heist_future_set_result(future, &values[0], NULL), 0);
        if (first == 1) assert_int_equal(heist_future_set_exception(future, -EIO, NULL), 0);
        if (first == 2) assert_int_equal(heist_cancel(future), 1);
        assert_int_equal(heist_future_set_result(future, &values[1], count_free), HEIST_EINVALSTATE);
        assert_int_equal(heist_future_set_exception(future, -EPIPE, "late"), HEIST_EINVALSTATE);
        int expected = first == 0 ? 0 : first == 1 ? -EIO : -ECANCELED;
        assert_int_equal(heist_future_result(future, &out), expected);
        if (first == 0) assert_ptr_equal(out, &values[0]);
        heist_unref(future);
        assert_int_equal(freed, 0); /* the refused value stays the caller's */
    }
}

struct race {
    heist_future *future;
    pthread_barrier_t *start;
    int kind, err;
};

static void *complete_in_race(void *arg) {
    struct race *race = arg;
    pthread_barrier_wait(race->start);
    switch (race->kind) {
    case 0: race->err = heist_future_set_result(race->future, race, NULL); break;
    case 1: race->err = heist_future_set_exception(race->future, -EIO, "raced"); break;
    default: race->err = heist_cancel(race->future) == 1 ? 0 : HEIST_EINVALSTATE; break;
    }
    return NULL;
}

static void exactly_one_completion_wins_a_race_FUT_04_FUT_09_XTH_17(void **state) {
    (void)state;
    enum { THREADS = 6, ROUNDS = 60 };
    for (int round = 0; round < ROUNDS; round++) {
        heist_future *future = new_future(NULL);
        pthread_barrier_t start;
        struct race races[THREADS];
        pthread_t threads[THREADS];
        pthread_barrier_init(&start, NULL, THREADS);
        for (int i = 0; i < THREADS; i++) {
            races[i] = (struct race){future, &start, i % 3, 1};
            threads[i] = harness_thread(complete_in_race, &races[i]);
        }
        for (int i = 0; i < THREADS; i++) harness_join(threads[i]);
        pthread_barrier_destroy(&start);
        int winner = -1, winners = 0;
        for (int i = 0; i < THREADS; i++) {
            if (races[i].err == 0) {
                winner = i;
                winners++;
            } else {
                assert_int_equal(races[i].err, HEIST_EINVALSTATE);
            }
        }
        assert_int_equal(winners, 1);
        void *out = NULL;
        int err = heist_future_result(future, &out);
        if (races[winner].kind == 0) {
            assert_int_equal(err, 0);
            assert_ptr_equal(out, &races[winner]);
        } else {
            assert_int_equal(err, races[winner].kind == 1 ? -EIO : -ECANCELED);
        }
        heist_unref(future);
    }
}

static void pending_future_has_no_outcome_FUT_05(void **state) {
    (void)state;
    heist_future *future = new_future(NULL);
    heist_exception e = HEIST_EXCEPTION_INIT;
    void *out = NULL;
    assert_int_equal(heist_future_result(future, &out), HEIST_EINVALSTATE);
    assert_int_equal(heist_future_take(future, &out), HEIST_EINVALSTATE);
    assert_int_equal(heist_future_exception(future, &e), HEIST_EINVALSTATE);
    assert_null(out);
    heist_unref(future);
}

static void cancelled_future_gives_cancelled_FUT_06(void **state) {
    (void)state;
    heist_future *future = new_future(NULL);
    heist_exception e = HEIST_EXCEPTION_INIT;
    assert_int_equal(heist_cancel(future), 1);
    assert_int_equal(heist_future_result(future, NULL), -ECANCELED);
    assert_int_equal(heist_future_exception(future, &e), 0);
    assert_int_equal(e.code, -ECANCELED);
    assert_non_null(e.message);
    heist_unref(future);

    future = new_future(NULL); /* the code that cancels */
    assert_int_equal(heist_future_set_exception(future, -ECANCELED, NULL), 0);
    assert_int_equal(heist_future_state(future), HEIST_CANCELLED);
    assert_int_equal(heist_future_cancelled(future), 1);
    heist_unref(future);
}

static void value_means_no_exception_FUT_07(void **state) {
    (void)state;
    heist_future *future = new_future(NULL);
    heist_exception e = HEIST_EXCEPTION_INIT;
    assert_int_equal(heist_future_set_result(future, NULL, NULL), 0);
    assert_int_equal(heist_future_exception(future, &e), 0);
    assert_int_equal(e.code, 0);
    assert_non_null(e.message);
    assert_null(e.file);
    heist_unref(future);
}

static void note_done(heist_future *future, void *user) {
    struct mark *mark = user;
    record_add(mark->record, "%s%s", mark->word, heist_future_done(future) ? "" : ":pending");
}

static void cancel_of_a_pending_future_cancels_and_schedules_FUT_08(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct mark done = {&record, "done", loop};
    heist_future *future = new_future(loop);
    assert_int_equal(heist_future_add_done_callback(future, note_done, &done, NULL), 0);
    assert_int_equal(heist_cancel(future), 1);
    assert_int_equal(heist_future_cancelled(future), 1);
    assert_int_equal(heist_future_state(future), HEIST_CANCELLED);
    assert_int_equal(record_words(&record), 0);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "done");
    heist_unref(future);
    harness_loop_end(loop);
}

static void cancel_of_a_done_future_changes_nothing_FUT_09(void **state) {
    (void)state;
    heist_future *future = new_future(NULL);
    assert_int_equal(heist_future_set_result(future, &values[0], NULL), 0);
    assert_int_equal(heist_cancel(future), 0);
    assert_int_equal(heist_future_cancelled(future), 0);
    assert_int_equal(heist_future_result(future, NULL), 0);
    heist_unref(future);
    future = new_future(NULL);
    assert_int_equal(heist_cancel(future), 1);
    assert_int_equal(heist_cancel(future), 0);
    assert_int_equal(heist_cancel_message(future, "again"), 0);
    heist_unref(future);
}

static void done_is_any_end_and_cancelled_is_one_FUT_10(void **state) {
    (void)state;
    static const int cancelled[3] = {0, 0, 1};
    for (int kind = 0; kind < 3; kind++) {
        heist_future *future = new_future(NULL);
        if (kind == 0) assert_int_equal(heist_future_set_result(future, NULL, NULL), 0);
        if (kind == 1) assert_int_equal(heist_future_set_exception(future, -EIO, NULL), 0);
        if (kind == 2) assert_int_equal(heist_cancel(future), 1);
        assert_int_equal(heist_future_done(future), 1);
        assert_int_equal(heist_future_cancelled(future), cancelled[kind]);
        assert_int_equal(heist_future_result(future, NULL), kind == 0 ? 0 : kind == 1 ? -EIO : -ECANCELED);
        heist_unref(future);
    }
}

static void cancel_message_is_found_by_the_waiter_FUT_11(void **state) {
    (void)state;
    heist_future *future = new_future(NULL);
    heist_exception e = HEIST_EXCEPTION_INIT;
    char message[] = "too late";
    assert_int_equal(heist_cancel_message(future, message), 1);
    message[0] = 'X';
    assert_int_equal(heist_future_exception(future, &e), 0);
    assert_int_equal(e.code, -ECANCELED);
    assert_string_equal(e.message, "too late");
    heist_unref(future);
}

/* ---- done callbacks ---- */

struct seen {
    heist_future *future;
    void *value;
    int calls, err;
};

static void look_at_future(heist_future *future, void *user) {
    struct seen *seen = user;
    seen->future = future;
    seen->err = heist_future_result(future, &seen->value);
    seen->calls++;
}

static void done_callback_gets_the_done_future_FUT_12_FUT_19(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_future *future = new_future(loop);
    struct seen seen = {0};
    assert_int_equal(heist_future_add_done_callback(future, look_at_future, &seen, NULL), 0);
    assert_int_equal(heist_future_set_result(future, &values[3], NULL), 0);
    harness_one_pass(loop);
    assert_int_equal(seen.calls, 1);
    assert_ptr_equal(seen.future, future);
    assert_int_equal(seen.err, 0);
    assert_ptr_equal(seen.value, &values[3]);
    heist_unref(future);
    harness_loop_end(loop);
}

struct completer {
    heist_future *future;
    heist_loop *loop;
    struct record *record;
    struct mark *done;
    pthread_t ran_on;
};

static int complete_in_callback(void *arg) {
    struct completer *completer = arg;
    int err = heist_future_set_result(completer->future, NULL, NULL);
    record_add(completer->record, "set:%d", err);
    return err;
}

static void done_callbacks_run_in_a_later_pass_FUT_13(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct mark done = {&record, "done", loop}, other = {&record, "other", loop};
    struct completer completer = {.future = new_future(loop), .loop = loop, .record = &record};
    assert_int_equal(heist_future_add_done_callback(completer.future, note_done, &done, NULL), 0);
    assert_int_equal(heist_loop_call_soon(loop, complete_in_callback, &completer, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &other, NULL, NULL), 0);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "set:0 other");
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "set:0 other done");

    record_clear(&record); /* and one added to a done future too */
    assert_int_equal(heist_future_add_done_callback(completer.future, note_done, &done, NULL), 0);
    assert_int_equal(record_words(&record), 0);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "done");
    heist_unref(completer.future);
    harness_loop_end(loop);
}

static void note_thread_and_stop(heist_future *future, void *user) {
    struct completer *completer = user;
    (void)future;
    completer->ran_on = pthread_self();
    heist_loop_stop(completer->loop);
}

static void *complete_in_thread(void *arg) {
    struct completer *completer = arg;
    int err = heist_future_set_result(completer->future, NULL, NULL);
    record_add(completer->record, "set:%d", err);
    return NULL;
}

static void done_callbacks_run_on_the_futures_loop_not_the_completing_thread_FUT_13(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_real_loop();
    struct completer completer = {.future = new_future(loop), .loop = loop, .record = &record};
    assert_int_equal(heist_future_add_done_callback(completer.future, note_thread_and_stop, &completer, NULL), 0);
    pthread_t thread = harness_thread(complete_in_thread, &completer);
    int err = heist_loop_run_forever(loop);
    harness_join(thread);
    assert_int_equal(err, 0);
    assert_string_equal(record_text(&record), "set:0");
    assert_true(pthread_equal(completer.ran_on, pthread_self()));
    heist_unref(completer.future);
    harness_loop_end(loop);
}

static void done_callbacks_run_in_the_order_of_adding_FUT_14(void **state) {
    (void)state;
    for (int foreign = 0; foreign < 2; foreign++) {
        struct record record = RECORD_INIT;
        heist_loop *loop = harness_loop();
        struct completer completer = {.future = new_future(loop), .loop = loop, .record = &record};
        struct mark a = {&record, "a", loop}, b = {&record, "b", loop}, c = {&record, "c", loop};
        assert_int_equal(heist_future_add_done_callback(completer.future, note_done, &a, NULL), 0);
        assert_int_equal(heist_future_add_done_callback(completer.future, note_done, &b, NULL), 0);
        assert_int_equal(heist_future_add_done_callback(completer.future, note_done, &c, NULL), 0);
        if (foreign)
            harness_join(harness_thread(complete_in_thread, &completer));
        else
            complete_in_thread(&completer);
        harness_one_pass(loop);
        assert_string_equal(record_text(&record), "set:0 a b c");
        heist_unref(completer.future);
        harness_loop_end(loop);
    }
}

static void adding_twice_runs_twice_FUT_15(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_future *future = new_future(loop);
    struct seen seen = {0};
    freed = 0;
    assert_int_equal(heist_future_add_done_callback(future, look_at_future, &seen, count_free), 0);
    assert_int_equal(heist_future_add_done_callback(future, look_at_future, &seen, count_free), 0);
    assert_int_equal(heist_future_set_result(future, NULL, NULL), 0);
    harness_one_pass(loop);
    assert_int_equal(seen.calls, 2);
    assert_int_equal(freed, 2);
    heist_unref(future);
    harness_loop_end(loop);
}

static void remove_takes_every_instance_and_counts_FUT_16_FUT_17(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_future *future = new_future(loop);
    struct seen seen = {0}, other = {0};
    freed = 0;
    assert_int_equal(heist_future_add_done_callback(future, look_at_future, &seen, count_free), 0);
    assert_int_equal(heist_future_add_done_callback(future, look_at_future, &other, count_free), 0);
    assert_int_equal(heist_future_add_done_callback(future, look_at_future, &seen, count_free), 0);
    assert_int_equal(heist_future_remove_done_callback(future, note_done, &seen), 0); /* unknown: FUT-17 */
    assert_int_equal(heist_future_remove_done_callback(future, look_at_future, &seen), 2);
    assert_int_equal(freed, 2);
    assert_int_equal(heist_future_remove_done_callback(future, look_at_future, &seen), 0);
    assert_int_equal(heist_future_set_result(future, NULL, NULL), 0);
    harness_one_pass(loop);
    assert_int_equal(seen.calls, 0);
    assert_int_equal(other.calls, 1);
    assert_int_equal(freed, 3);
    assert_int_equal(heist_future_remove_done_callback(future, look_at_future, &other), 0);
    heist_unref(future);
    harness_loop_end(loop);
}

struct remover {
    struct mark mark;
    struct remover *other;
};

static void remove_both(heist_future *future, void *user) {
    struct remover *remover = user;
    int own = heist_future_remove_done_callback(future, remove_both, remover);
    int other = heist_future_remove_done_callback(future, remove_both, remover->other);
    int again = heist_future_add_done_callback(future, note_done, &remover->mark, NULL);
    record_add(remover->mark.record, "%s:%d:%d:%d", remover->mark.word, own, other, again);
}

static void callbacks_may_remove_themselves_and_others_FUT_18(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_future *future = new_future(loop);
    struct remover a = {{&record, "a", loop}, NULL}, b = {{&record, "b", loop}, &a};
    a.other = &b;
    assert_int_equal(heist_future_add_done_callback(future, remove_both, &a, NULL), 0);
    assert_int_equal(heist_future_add_done_callback(future, remove_both, &b, NULL), 0);
    assert_int_equal(heist_future_set_result(future, NULL, NULL), 0);
    harness_one_pass(loop);
    /* Both were scheduled by the completion, so there was nothing left to remove. */
    assert_string_equal(record_text(&record), "a:0:0:0 b:0:0:0");
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "a:0:0:0 b:0:0:0 a b");
    heist_unref(future);
    harness_loop_end(loop);
}

/* ---- awaiting ---- */

struct waiter {
    struct record *record;
    heist_future *future;
    const char *word;
    void *value;
    int err;
};

static int await_future(void *arg, void **out) {
    struct waiter *waiter = arg;
    (void)out;
    waiter->err = heist_await(waiter->future, &waiter->value);
    if (waiter->record) record_add(waiter->record, "%s:%d", waiter->word, waiter->err);
    return 0;
}

static int end_the_future(void *arg) {
    struct waiter *waiter = arg; /* word says how */
    switch (waiter->word[0]) {
    case 'v': return heist_future_set_result(waiter->future, waiter->value, NULL);
    case 'e': return heist_future_set_exception(waiter->future, -EPIPE, NULL);
    default: return heist_cancel(waiter->future) == 1 ? 0 : -EINVAL;
    }
}

static void await_gives_value_error_or_cancellation_FUT_20(void **state) {
    (void)state;
    static const char *const kinds[] = {"value", "error", "cancel"};
    static const int expected[] = {0, -EPIPE, -ECANCELED};
    for (int i = 0; i < 3; i++) {
        heist_loop *loop = harness_loop();
        heist_future *future = new_future(loop);
        struct waiter waiter = {NULL, future, NULL, NULL, 1};
        struct waiter ender = {NULL, future, kinds[i], &values[1], 0};
        assert_int_equal(heist_loop_call_later(loop, 1, end_the_future, &ender, NULL, NULL), 0);
        assert_int_equal(heist_loop_run_coroutine(loop, await_future, &waiter, NULL, NULL), 0);
        assert_int_equal(waiter.err, expected[i]);
        assert_ptr_equal(waiter.value, i == 0 ? &values[1] : NULL);
        heist_unref(future);
        harness_loop_end(loop);
    }
}

static int make_complete_and_await_on_runtime(void *arg, void **out) {
    int *bad = arg;
    (void)out;
    for (int i = 0; i < 50; i++) {
        heist_future *future = NULL;
        heist_task *task = NULL;
        struct waiter waiter = {NULL, NULL, NULL, NULL, 1};
        if (heist_future_new(NULL, &future) < 0) return -ENOMEM;
        waiter.future = future;
        int err = heist_create_task(await_future, &waiter, NULL, &task);
        if (err < 0) return err;
        if (i % 2) heist_sleep(0.001);
        if (heist_future_set_result(future, &values[i % 4], NULL) < 0) (*bad)++;
        if (heist_await(task, NULL) < 0) (*bad)++;
        if (waiter.err != 0 || waiter.value != &values[i % 4]) (*bad)++;
        heist_unref(task);
        heist_unref(future);
    }
    return 0;
}

static void await_gives_the_value_on_a_runtime_FUT_20(void **state) {
    (void)state;
    int bad = 0;
    assert_int_equal(harness_run(make_complete_and_await_on_runtime, &bad, NULL), 0);
    assert_int_equal(bad, 0);
}

static int await_done_future(void *arg, void **out) {
    struct waiter *waiter = arg;
    heist_loop *loop = NULL;
    struct mark other = {waiter->record, "other", NULL};
    int err = heist_get_running_loop(&loop);
    (void)out;
    if (err < 0) return err;
    /* The callback stands in the queue; nothing may run it while the done future is awaited. */
    err = heist_loop_call_soon(loop, mark_word, &other, NULL, NULL);
    if (err < 0) return err;
    err = heist_await(waiter->future, &waiter->value);
    record_add(waiter->record, "awaited:%d", err);
    err = heist_yield();
    record_add(waiter->record, "yielded:%d", err);
    return err;
}

static void await_of_a_done_future_does_not_give_up_control_FUT_21(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_future *future = new_future(loop);
    struct waiter waiter = {&record, future, NULL, NULL, 1};
    assert_int_equal(heist_future_set_result(future, &values[0], NULL), 0);
    assert_int_equal(heist_loop_run_coroutine(loop, await_done_future, &waiter, NULL, NULL), 0);
    assert_string_equal(record_text(&record), "awaited:0 other yielded:0");
    heist_unref(future);
    harness_loop_end(loop);
}

static void waiters_resume_in_the_order_they_began_FUT_22(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_future *future = new_future(loop);
    static const char *const words[] = {"a", "b", "c", "d"};
    struct waiter waiters[4];
    for (int i = 0; i < 4; i++) {
        waiters[i] = (struct waiter){&record, future, words[i], NULL, 1};
        assert_int_equal(heist_loop_create_task(loop, await_future, &waiters[i], NULL, NULL), 0);
    }
    harness_one_pass(loop);
    assert_int_equal(record_words(&record), 0);
    assert_int_equal(heist_future_set_result(future, &values[2], NULL), 0);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "a:0 b:0 c:0 d:0");
    for (int i = 0; i < 4; i++) assert_ptr_equal(waiters[i].value, &values[2]);
    heist_unref(future);
    harness_loop_end(loop);
}

static int gather_many_waiters(void *arg, void **out) {
    enum { COUNT = 64 };
    int *good = arg;
    struct waiter waiters[COUNT];
    heist_task *tasks[COUNT];
    heist_future *future = NULL;
    int err = heist_future_new(NULL, &future);
    (void)out;
    if (err < 0) return err;
    for (int i = 0; i < COUNT; i++) {
        waiters[i] = (struct waiter){NULL, future, NULL, NULL, 1};
        err = heist_create_task(await_future, &waiters[i], NULL, &tasks[i]);
        if (err < 0) return err;
    }
    err = heist_sleep(1);
    if (err < 0) return err;
    err = heist_future_set_result(future, good, NULL);
    if (err < 0) return err;
    err = heist_gather(tasks, COUNT, NULL, 0);
    for (int i = 0; i < COUNT; i++) {
        *good += waiters[i].err == 0 && waiters[i].value == good;
        heist_unref(tasks[i]);
    }
    heist_unref(future);
    return err;
}

static void all_waiters_of_one_future_resume_on_a_runtime_FUT_22(void **state) {
    (void)state;
    int good = 0;
    assert_int_equal(harness_run(gather_many_waiters, &good, NULL), 0);
    assert_int_equal(good, 64);
}

struct whose {
    heist_future *none;
    heist_loop *running, *of_none;
};

static int make_futures(void *arg) {
    struct whose *whose = arg;
    heist_loop *loop = NULL;
    int err = heist_get_running_loop(&loop);
    if (err < 0) return err;
    whose->running = loop;
    err = heist_future_new(NULL, &whose->none);
    if (err < 0) return err;
    whose->of_none = heist_future_loop(whose->none);
    return 0;
}

static void loop_of_a_future_is_given_else_running_else_none_FUT_23(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_future *given = new_future(loop), *outside = new_future(NULL);
    struct whose whose = {0};
    assert_ptr_equal(heist_future_loop(given), loop);
    assert_null(heist_future_loop(outside));
    assert_int_equal(heist_loop_call_soon(loop, make_futures, &whose, NULL, NULL), 0);
    harness_one_pass(loop);
    assert_ptr_equal(whose.running, loop);
    assert_ptr_equal(whose.of_none, loop);
    heist_unref(given);
    heist_unref(outside);
    heist_unref(whose.none);
    harness_loop_end(loop);
}

struct served {
    heist_loop *loop;
    heist_future *future;
    struct gate running;
};

static int open_running(void *arg) {
    struct served *served = arg;
    gate_open(&served->running);
    return 0;
}

static void *serve_loop(void *arg) {
    struct served *served = arg;
    heist_loop_call_soon(served->loop, open_running, served, NULL, NULL);
    heist_loop_run_forever(served->loop);
    return NULL;
}

/* asyncio refuses a future of another loop; here one call serves any caller. */
static void future_of_another_loop_can_be_awaited_FUT_24(void **state) {
    (void)state;
    heist_loop *own = harness_real_loop(), *other = harness_real_loop();
    struct served served = {other, new_future(other), GATE_INIT};
    struct waiter waiter = {NULL, served.future, NULL, NULL, 1};
    struct waiter ender = {NULL, served.future, "value", &values[1], 0};
    pthread_t thread = harness_thread(serve_loop, &served);
    gate_wait(&served.running);
    assert_int_equal(heist_loop_call_later(other, 0.002, end_the_future, &ender, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_coroutine(own, await_future, &waiter, NULL, NULL), 0);
    assert_int_equal(heist_loop_stop(other), 0);
    harness_join(thread);
    assert_int_equal(waiter.err, 0);
    assert_ptr_equal(waiter.value, &values[1]);
    heist_unref(served.future);
    harness_loop_end(other);
    harness_loop_end(own);
}

static int nothing(void *arg, void **out) {
    (void)arg;
    (void)out;
    return 0;
}

static void task_is_a_future_that_knows_it_is_a_task_FUT_25(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_future *future = new_future(loop);
    heist_task *task = NULL;
    assert_int_equal(heist_loop_create_task(loop, nothing, NULL, NULL, &task), 0);
    assert_int_equal(heist_future_is_task(future), 0);
    assert_int_equal(heist_future_is_task(task), 1);
    heist_unref(future);
    heist_unref(task);
    harness_loop_end(loop);
}

static void printable_form_shows_state_and_outcome_FUT_28(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_future *future = new_future(loop);
    heist_task *task = NULL;
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    char text[256], tiny[8];
    int length = heist_future_repr(future, text, sizeof text);
    assert_int_equal(length, (int)strlen(text));
    assert_non_null(strstr(text, "Future"));
    assert_non_null(strstr(text, "pending"));
    memset(tiny, 'x', sizeof tiny);
    assert_int_equal(heist_future_repr(future, tiny, sizeof tiny), length);
    assert_int_equal(strlen(tiny), sizeof tiny - 1);
    assert_memory_equal(tiny, text, sizeof tiny - 1);
    assert_int_equal(heist_future_repr(future, NULL, 0), length);

    assert_int_equal(heist_future_set_exception(future, -EPIPE, "gone"), 0);
    heist_future_repr(future, text, sizeof text);
    assert_non_null(strstr(text, "finished"));
    assert_true(strstr(text, "EPIPE") || strstr(text, "gone"));
    heist_unref(future);

    future = new_future(loop);
    assert_int_equal(heist_cancel(future), 1);
    heist_future_repr(future, text, sizeof text);
    assert_non_null(strstr(text, "cancelled"));
    heist_unref(future);

    opts.name = "the-writer";
    assert_int_equal(heist_loop_create_task(loop, nothing, NULL, &opts, &task), 0);
    heist_future_repr(task, text, sizeof text);
    assert_non_null(strstr(text, "Task"));
    assert_non_null(strstr(text, "the-writer"));
    assert_non_null(strstr(text, "pending"));
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), 0);
    heist_future_repr(task, text, sizeof text);
    assert_non_null(strstr(text, "finished"));
    heist_unref(task);
    harness_loop_end(loop);
}

struct two_ways {
    struct record *record;
};

static void success_or_failure(heist_future *future, void *user) {
    struct two_ways *ways = user;
    heist_exception e = HEIST_EXCEPTION_INIT;
    void *value = NULL;
    if (heist_future_cancelled(future))
        record_add(ways->record, "neither");
    else if (heist_future_result(future, &value) == 0)
        record_add(ways->record, "success");
    else if (heist_future_exception(future, &e) == 0)
        record_add(ways->record, "failure:%s", e.message);
}

static void done_callback_tells_success_from_failure_FUT_29(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct two_ways ways = {&record};
    heist_future *futures[3];
    for (int i = 0; i < 3; i++) {
        futures[i] = new_future(loop);
        assert_int_equal(heist_future_add_done_callback(futures[i], success_or_failure, &ways, NULL), 0);
    }
    assert_int_equal(heist_future_set_result(futures[0], NULL, NULL), 0);
    assert_int_equal(heist_future_set_exception(futures[1], -EIO, "why"), 0);
    assert_int_equal(heist_cancel(futures[2]), 1);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "success failure:why neither");
    for (int i = 0; i < 3; i++) heist_unref(futures[i]);
    harness_loop_end(loop);
}

static void an_error_must_be_a_negative_code_FUT_30(void **state) {
    (void)state;
    heist_future *future = new_future(NULL);
    heist_exception e = HEIST_EXCEPTION_INIT;
    assert_int_equal(heist_future_set_exception(future, 0, "fine"), -EINVAL);
    assert_int_equal(heist_future_set_exception(future, 7, "fine"), -EINVAL);
    assert_int_equal(heist_future_state(future), HEIST_PENDING);
    assert_int_equal(heist_future_set_exception(future, -EIO, NULL), 0);
    assert_int_equal(heist_future_exception(future, &e), 0);
    assert_int_equal(e.code, -EIO);
    assert_non_null(e.message); /* a code alone has a text too */
    heist_unref(future);
}

static void done_future_lets_go_of_its_callbacks_FUT_31(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_future *future = new_future(loop);
    struct seen seen = {0};
    freed = 0;
    assert_int_equal(heist_future_add_done_callback(future, look_at_future, &seen, count_free), 0);
    long blocks = harness_blocks();
    assert_int_equal(heist_future_set_result(future, NULL, NULL), 0);
    harness_one_pass(loop);
    assert_int_equal(seen.calls, 1);
    assert_int_equal(freed, 1);
    assert_true(harness_blocks() <= blocks);
    heist_unref(future);
    harness_loop_end(loop);
}

static int touch_stack(void *arg, void **out) {
    volatile char page[48 * 1024];
    (void)out;
    for (size_t i = 0; i < sizeof page; i += 1024) page[i] = (char)i;
    *(int *)arg += page[1024];
    return 0;
}

static void finished_task_keeps_no_stack_FUT_31(void **state) {
    (void)state;
    enum { COUNT = 1000 };
    if (harness_instrumented()) skip(); /* resident memory says nothing there */
    heist_loop *loop = harness_loop();
    static heist_task *tasks[COUNT];
    int sum = 0;
    size_t before = harness_resident_bytes();
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(heist_loop_create_task(loop, touch_stack, &sum, NULL, &tasks[i]), 0);
        assert_int_equal(heist_loop_run_until_complete(loop, tasks[i], NULL), 0);
    }
    size_t after = harness_resident_bytes();
    for (int i = 0; i < COUNT; i++) heist_unref(tasks[i]);
    harness_loop_end(loop);
    assert_true(after < before + COUNT * (size_t)16384); /* a third of what the stacks touched */
}

/* ---- destructors ---- */

/* Each is dropped by a task, and finds no task: it could not come back to where it was called from. */
static _Atomic(int) destructors, refused;
static void waits_in_vain(void *arg) {
    (void)arg;
    destructors++;
    refused += heist_sleep(0.001) == HEIST_ENOTINCORO && heist_yield() == HEIST_ENOTINCORO && !heist_current_task();
}
static void never_called(heist_future *f, void *user) { (void)f, (void)user; }
static int never_runs(void *arg) {
    (void)arg;
    return 0;
}
static int gives_its_argument(void *arg, void **out) {
    *out = arg;
    return 0;
}
static int drop_one_of_each(void *arg, void **out) {
    (void)out;
    heist_task *self = heist_current_task();
    heist_future *f = NULL, *shield = NULL, *all = NULL;
    heist_loop *loop = arg;
    /* the value of a future, alone, and as the last thing that others stand on */
    assert_int_equal(heist_future_new(NULL, &f), 0);
    assert_int_equal(heist_future_set_result(f, &destructors, waits_in_vain), 0);
    heist_unref(f);
    assert_int_equal(destructors, 1);
    assert_int_equal(heist_future_new(NULL, &f), 0);
    assert_int_equal(heist_future_set_result(f, &destructors, waits_in_vain), 0);
    assert_int_equal(heist_shield(f, &shield), 0);
    assert_int_equal(heist_gather_future(&shield, 1, 0, &all), 0);
    heist_unref(f);
    heist_unref(shield);
    assert_int_equal(destructors, 1);
    heist_unref(all);
    assert_int_equal(destructors, 2);
    /* a done callback that is removed, or that never comes */
    assert_int_equal(heist_future_new(NULL, &f), 0);
    assert_int_equal(heist_future_add_done_callback(f, never_called, &destructors, waits_in_vain), 0);
    assert_int_equal(heist_future_remove_done_callback(f, never_called, &destructors), 1);
    assert_int_equal(destructors, 3);
    assert_int_equal(heist_future_add_done_callback(f, never_called, &destructors, waits_in_vain), 0);
    heist_unref(f);
    assert_int_equal(destructors, 4);
    /* a handle that is cancelled, a sleep */
    heist_call_options o = HEIST_CALL_OPTIONS_INIT;
    o.arg_free = waits_in_vain;
    heist_handle *handle = NULL;
    assert_int_equal(heist_loop_call_later(loop, 1000, never_runs, &destructors, &o, &handle), 0);
    assert_int_equal(heist_handle_cancel(handle), 1);
    heist_handle_unref(handle);
    assert_int_equal(destructors, 5);
    assert_int_equal(heist_sleep_future(loop, 1000, &destructors, waits_in_vain, &f), 0);
    assert_int_equal(heist_cancel(f), 1);
    heist_unref(f);
    assert_int_equal(destructors, 6);
    /* the result of a task, the items of a queue */
    heist_task_options t = HEIST_TASK_OPTIONS_INIT;
    t.result_free = waits_in_vain;
    assert_int_equal(heist_create_task(gives_its_argument, &destructors, &t, &f), 0);
    assert_int_equal(heist_await(f, NULL), 0);
    heist_unref(f);
    assert_int_equal(destructors, 7);
    heist_queue_options q = HEIST_QUEUE_OPTIONS_INIT;
    q.item_free = waits_in_vain;
    heist_queue *queue = NULL;
    assert_int_equal(heist_queue_new(0, &q, &queue), 0);
    assert_int_equal(heist_queue_put(queue, &destructors), 0);
    heist_queue_unref(queue);
    assert_int_equal(destructors, 8);
    /* what a variable was */
    heist_context_var_options v = HEIST_CONTEXT_VAR_OPTIONS_INIT;
    v.flags = HEIST_CONTEXT_VAR_DEFAULT;
    v.value_free = waits_in_vain;
    heist_context_var *var = NULL;
    assert_int_equal(heist_context_var_new("v", &v, &var), 0);
    heist_context_var_unref(var);
    assert_int_equal(destructors, 9);
    assert_ptr_equal(heist_current_task(), self);
    return heist_yield();
}
static void destructors_have_no_task_and_cannot_suspend(void **state) {
    (void)state;
    destructors = refused = 0;
    heist_loop *loop = harness_loop();
    heist_task *t = NULL;
    assert_int_equal(heist_loop_create_task(loop, drop_one_of_each, loop, NULL, &t), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, t, NULL), 0);
    heist_unref(t);
    assert_int_equal(refused, destructors);
    harness_loop_end(loop);
}

static const struct CMUnitTest tests[] = {
    API_TEST(new_future_is_pending_FUT_01),
    API_TEST(set_result_gives_the_value_any_number_of_times_FUT_02),
    API_TEST(take_moves_the_value_out_once_FUT_02),
    API_TEST(set_exception_gives_code_and_message_FUT_03),
    API_TEST(second_completion_is_refused_and_changes_nothing_FUT_04),
    API_TEST(exactly_one_completion_wins_a_race_FUT_04_FUT_09_XTH_17),
    API_TEST(pending_future_has_no_outcome_FUT_05),
    API_TEST(cancelled_future_gives_cancelled_FUT_06),
    API_TEST(value_means_no_exception_FUT_07),
    API_TEST(cancel_of_a_pending_future_cancels_and_schedules_FUT_08),
    API_TEST(cancel_of_a_done_future_changes_nothing_FUT_09),
    API_TEST(done_is_any_end_and_cancelled_is_one_FUT_10),
    API_TEST(cancel_message_is_found_by_the_waiter_FUT_11),
    API_TEST(done_callback_gets_the_done_future_FUT_12_FUT_19),
    API_TEST(done_callbacks_run_in_a_later_pass_FUT_13),
    API_TEST(done_callbacks_run_on_the_futures_loop_not_the_completing_thread_FUT_13),
    API_TEST(done_callbacks_run_in_the_order_of_adding_FUT_14),
    API_TEST(adding_twice_runs_twice_FUT_15),
    API_TEST(remove_takes_every_instance_and_counts_FUT_16_FUT_17),
    API_TEST(callbacks_may_remove_themselves_and_others_FUT_18),
    API_TEST(await_gives_value_error_or_cancellation_FUT_20),
    API_TEST(await_gives_the_value_on_a_runtime_FUT_20),
    API_TEST(await_of_a_done_future_does_not_give_up_control_FUT_21),
    API_TEST(waiters_resume_in_the_order_they_began_FUT_22),
    API_TEST(all_waiters_of_one_future_resume_on_a_runtime_FUT_22),
    API_TEST(loop_of_a_future_is_given_else_running_else_none_FUT_23),
    API_TEST(future_of_another_loop_can_be_awaited_FUT_24),
    API_TEST(task_is_a_future_that_knows_it_is_a_task_FUT_25),
    API_TEST(printable_form_shows_state_and_outcome_FUT_28),
    API_TEST(done_callback_tells_success_from_failure_FUT_29),
    API_TEST(an_error_must_be_a_negative_code_FUT_30),
    API_TEST(done_future_lets_go_of_its_callbacks_FUT_31),
    API_TEST(finished_task_keeps_no_stack_FUT_31),
    API_TEST(destructors_have_no_task_and_cannot_suspend),
};

int main(void) {
    return HARNESS_MAIN("future", tests);
}
