/* Callbacks, handles and timers: rows CB.  Order and time are exact, so each test has
 * a loop of its own, in virtual time wherever time matters. */
#include "support/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- soon ---- */

static void call_soon_runs_in_order_and_once_CB_01(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct mark a = {&record, "a", loop}, b = {&record, "b", loop}, c = {&record, "c", loop};
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &a, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &b, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &c, NULL, NULL), 0);
    harness_one_pass(loop);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "a b c");
    harness_loop_end(loop);
}

struct nest {
    struct mark outer, inner;
};

static int nest_call(void *arg) {
    struct nest *nest = arg;
    int err = heist_loop_call_soon(nest->inner.loop, mark_word, &nest->inner, NULL, NULL);
    mark_word(&nest->outer);
    return err;
}

static void call_soon_never_runs_inside_the_call_CB_02(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct nest nest = {{&record, "outer", loop}, {&record, "inner", loop}};
    assert_int_equal(heist_loop_call_soon(loop, nest_call, &nest, NULL, NULL), 0);
    assert_int_equal(record_words(&record), 0);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "outer");
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "outer inner");
    harness_loop_end(loop);
}

static void argument_is_freed_once_whether_run_cancelled_or_closed_CB_03(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    struct mark run = {&record, "run", loop}, cancelled = {&record, "cancelled", loop};
    struct mark soon = {&record, "soon", loop}, timer = {&record, "timer", loop};
    heist_handle *handle = NULL;
    opts.arg_free = mark_free;
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &run, &opts, NULL), 0);
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &cancelled, &opts, &handle), 0);
    assert_int_equal(heist_handle_cancel(handle), 1);
    assert_string_equal(record_text(&record), "free:cancelled");
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "free:cancelled run free:run");
    record_clear(&record);
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &soon, &opts, NULL), 0);
    assert_int_equal(heist_loop_call_later(loop, 1, mark_word, &timer, &opts, NULL), 0);
    assert_int_equal(heist_loop_close(loop), 0);
    assert_int_equal(record_words(&record), 2);
    assert_non_null(strstr(record_text(&record), "free:soon"));
    assert_non_null(strstr(record_text(&record), "free:timer"));
    heist_handle_unref(handle);
    heist_loop_unref(loop);
}

/* ---- timers ---- */

struct instant {
    heist_loop *loop;
    double asked, ran;
};

static int note_instant(void *arg) {
    struct instant *instant = arg;
    instant->ran = heist_loop_time(instant->loop);
    return heist_loop_stop(instant->loop);
}

static void call_later_is_never_early_CB_04(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    for (int i = 0; i < 40; i++) {
        double delay = 0.001 + 0.00001 * i; /* fractions of the clock's and the poll's resolution */
        struct instant instant = {loop, heist_loop_time(loop) + delay, 0};
        assert_int_equal(heist_loop_call_later(loop, delay, note_instant, &instant, NULL, NULL), 0);
        assert_int_equal(heist_loop_run_forever(loop), 0);
        assert_true(instant.ran >= instant.asked);
    }
    harness_loop_end(loop);
}

static void virtual_time_jumps_to_the_deadline_exactly_CB_04(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    double start = heist_loop_time(loop);
    struct instant instant = {loop, start + 3600.5, 0};
    assert_int_equal(heist_loop_call_later(loop, 3600.5, note_instant, &instant, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_true(instant.ran >= instant.asked);
    assert_true(instant.ran < instant.asked + 0.000001);
    harness_loop_end(loop);
}

static void zero_and_negative_delays_run_after_what_is_queued_CB_05(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct mark zero = {&record, "zero", loop}, negative = {&record, "negative", loop}, soon = {&record, "soon", loop};
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &soon, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_later(loop, 0, mark_word, &zero, NULL, NULL), 0);
    assert_int_equal(record_words(&record), 0);
    harness_one_pass(loop);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "soon zero");
    assert_int_equal(heist_loop_call_later(loop, -5, mark_word, &negative, NULL, NULL), 0);
    assert_int_equal(record_words(&record), 2);
    harness_one_pass(loop);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "soon zero negative");
    harness_loop_end(loop);
}

static void no_number_is_no_time_CB_06(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    struct mark mark = {&record, "mark", loop};
    heist_handle *handle = NULL;
    opts.arg_free = mark_free;
    assert_int_equal(heist_loop_call_later(loop, NAN, mark_word, &mark, &opts, &handle), -EINVAL);
    assert_int_equal(heist_loop_call_at(loop, NAN, mark_word, &mark, &opts, &handle), -EINVAL);
    assert_null(handle);
    assert_int_equal(record_words(&record), 0); /* the argument is still the caller's */
    harness_loop_end(loop);
}

static void call_at_is_an_instant_of_the_loops_clock_CB_07(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    double start = heist_loop_time(loop);
    struct mark at2 = {&record, "at2", loop}, later1 = {&record, "later1", loop}, later3 = {&record, "later3", loop};
    assert_int_equal(heist_loop_call_later(loop, 3, mark_and_stop, &later3, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_at(loop, start + 2, mark_word, &at2, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_later(loop, 1, mark_word, &later1, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_string_equal(record_text(&record), "later1 at2 later3");
    harness_loop_end(loop);
}

static void timers_run_by_deadline_then_by_making_CB_08(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    static const char *const words[] = {"30", "10a", "20", "10b", "10c", "5"};
    static const double delays[] = {30, 10, 20, 10, 10, 5};
    struct mark marks[6], end = {&record, "end", loop};
    double start = heist_loop_time(loop);
    for (int i = 0; i < 6; i++) {
        marks[i] = (struct mark){&record, words[i], loop};
        assert_int_equal(heist_loop_call_at(loop, start + delays[i], mark_word, &marks[i], NULL, NULL), 0);
    }
    assert_int_equal(heist_loop_call_at(loop, start + 31, mark_and_stop, &end, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_string_equal(record_text(&record), "5 10a 10b 10c 20 30 end");
    harness_loop_end(loop);
}

static void timers_that_are_due_together_keep_their_order_CB_08(void **state) {
    (void)state;
    enum { COUNT = 300 };
    heist_loop *loop = harness_loop();
    struct record record = RECORD_INIT;
    struct mark end = {&record, "end", loop};
    double start = heist_loop_time(loop);
    /* Ten thousandths apart and made in a scattered order: 7 is coprime with the count. */
    heist_handle *handles[COUNT];
    struct mark marks[COUNT];
    char words[COUNT][12];
    for (int i = 0; i < COUNT; i++) {
        int rank = (i * 7) % COUNT;
        snprintf(words[i], sizeof words[i], "%d", rank);
        marks[i] = (struct mark){&record, words[i], loop};
        assert_int_equal(
            heist_loop_call_at(loop, start + 0.0001 * (rank + 1), mark_word, &marks[i], NULL, &handles[i]), 0);
    }
    assert_int_equal(heist_loop_call_later(loop, 1, mark_and_stop, &end, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    char expected[8192] = "";
    for (int i = 0; i < COUNT; i++) {
        char word[16];
        snprintf(word, sizeof word, "%d ", i);
        strcat(expected, word);
        heist_handle_unref(handles[i]);
    }
    strcat(expected, "end");
    assert_string_equal(record_text(&record), expected);
    harness_loop_end(loop);
}

static void handle_keeps_its_instant_CB_09(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct mark mark = {&record, "ran", loop};
    heist_handle *fired = NULL, *cancelled = NULL, *soon = NULL;
    double when = heist_loop_time(loop) + 1.5;
    assert_int_equal(heist_loop_call_at(loop, when, mark_and_stop, &mark, NULL, &fired), 0);
    assert_int_equal(heist_loop_call_at(loop, when + 1, mark_word, &mark, NULL, &cancelled), 0);
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &mark, NULL, &soon), 0);
    assert_true(heist_handle_when(fired) == when);
    assert_true(heist_handle_when(soon) == 0);
    assert_int_equal(heist_handle_cancel(cancelled), 1);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_true(heist_handle_when(fired) == when);
    assert_true(heist_handle_when(cancelled) == when + 1);
    heist_handle_unref(fired);
    heist_handle_unref(cancelled);
    heist_handle_unref(soon);
    harness_loop_end(loop);
}

static void handle_that_never_comes_says_so_CB_09(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_handle *handle = NULL;
    assert_int_equal(heist_loop_call_later(loop, HEIST_FOREVER, stop_loop, loop, NULL, &handle), 0);
    assert_true(heist_handle_when(handle) == HEIST_FOREVER);
    assert_int_equal(heist_handle_cancel(handle), 1);
    heist_handle_unref(handle);
    harness_loop_end(loop);
}

static void cancelled_handle_never_runs_CB_10(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct mark soon = {&record, "soon", loop}, timer = {&record, "timer", loop}, end = {&record, "end", loop};
    heist_handle *a = NULL, *b = NULL, *c = NULL;
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &soon, NULL, &a), 0);
    assert_int_equal(heist_loop_call_later(loop, 1, mark_word, &timer, NULL, &b), 0);
    assert_int_equal(heist_loop_call_later(loop, 2, mark_and_stop, &end, NULL, &c), 0);
    assert_int_equal(heist_handle_cancelled(a), 0);
    assert_int_equal(heist_handle_cancel(a), 1);
    assert_int_equal(heist_handle_cancel(a), 0);
    assert_int_equal(heist_handle_cancelled(a), 1);
    assert_int_equal(heist_handle_cancel(b), 1);
    assert_int_equal(heist_handle_cancelled(b), 1);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_string_equal(record_text(&record), "end");
    assert_int_equal(heist_handle_cancel(c), 0); /* it ran */
    assert_int_equal(heist_handle_cancelled(c), 0);
    heist_handle_unref(a);
    heist_handle_unref(b);
    heist_handle_unref(c);
    harness_loop_end(loop);
}

struct own {
    heist_handle *handle;
    int cancelled;
};

static int cancel_itself(void *arg) {
    struct own *own = arg;
    own->cancelled = heist_handle_cancel(own->handle);
    return 0;
}

static void callback_cannot_cancel_itself_CB_10(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    struct own own = {NULL, -1};
    assert_int_equal(heist_loop_call_soon(loop, cancel_itself, &own, NULL, &own.handle), 0);
    harness_one_pass(loop);
    assert_int_equal(own.cancelled, 0);
    heist_handle_unref(own.handle);
    harness_loop_end(loop);
}

static void cancel_frees_the_argument_at_once_CB_11(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    struct mark timer = {&record, "timer", loop};
    heist_handle *handle = NULL;
    opts.arg_free = mark_free;
    assert_int_equal(heist_loop_call_later(loop, 1000, mark_word, &timer, &opts, &handle), 0);
    assert_int_equal(heist_handle_cancel(handle), 1);
    assert_string_equal(record_text(&record), "free:timer");
    heist_handle_unref(handle);
    harness_loop_end(loop);
    assert_string_equal(record_text(&record), "free:timer");
}

static void releasing_a_handle_does_not_cancel_CB_12(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct mark mark = {&record, "ran", loop}, end = {&record, "end", loop};
    heist_handle *handle = NULL;
    assert_int_equal(heist_loop_call_later(loop, 1, mark_word, &mark, NULL, &handle), 0);
    assert_ptr_equal(heist_handle_ref(handle), handle);
    heist_handle_unref(handle);
    heist_handle_unref(handle);
    assert_int_equal(heist_loop_call_later(loop, 2, mark_and_stop, &end, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_string_equal(record_text(&record), "ran end");
    harness_loop_end(loop);
}

static void timer_beyond_any_poll_interval_fires_on_time_CB_13(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    double year = 365.0 * 86400, start = heist_loop_time(loop);
    struct instant instant = {loop, start + 3 * year, 0};
    heist_handle *never = NULL;
    struct record record = RECORD_INIT;
    struct mark mark = {&record, "never", loop};
    assert_int_equal(heist_loop_call_later(loop, 3 * year, note_instant, &instant, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_later(loop, HEIST_FOREVER, mark_word, &mark, NULL, &never), 0);
    assert_int_equal(heist_loop_call_later(loop, 1e300, mark_word, &mark, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_true(instant.ran >= instant.asked && instant.ran < instant.asked + 1);
    assert_int_equal(record_words(&record), 0);
    assert_int_equal(heist_handle_cancel(never), 1);
    heist_handle_unref(never);
    harness_loop_end(loop);
}

static double thread_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Processor time, not wall time, so a loaded machine does not disturb it: a loop that polled without
 * waiting until its timer is due would use the whole of the wait. */
static void waiting_for_a_timer_costs_no_processor_time_CB_14(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    struct instant instant = {loop, 0, 0};
    assert_int_equal(heist_loop_call_later(loop, 0.01, note_instant, &instant, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0); /* once before, so that code and pages are warm */
    double used = thread_seconds();
    for (int i = 0; i < 10; i++) {
        assert_int_equal(heist_loop_call_later(loop, 0.0307, note_instant, &instant, NULL, NULL), 0);
        assert_int_equal(heist_loop_run_forever(loop), 0);
    }
    used = thread_seconds() - used;
    assert_true(used < 0.1); /* of 0.3 s at least */
    harness_loop_end(loop);
}

/* ---- from other threads ---- */

struct posting {
    heist_loop *loop;
    struct record *record;
    struct gate ready;
    pthread_t ran_on;
    int first, count, err;
};

static int note_thread(void *arg) {
    struct posting *posting = arg;
    posting->ran_on = pthread_self();
    return heist_loop_stop(posting->loop);
}

static void *post_note_thread(void *arg) {
    struct posting *posting = arg;
    gate_wait(&posting->ready);
    posting->err = heist_loop_call_soon_threadsafe(posting->loop, note_thread, posting, NULL, NULL);
    return NULL;
}

static int open_gate(void *arg) {
    gate_open(arg);
    return 0;
}

static void posted_callback_wakes_the_loop_and_runs_on_its_thread_CB_15(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    for (int i = 0; i < 20; i++) {
        struct posting posting = {.loop = loop, .ready = GATE_INIT, .err = 1};
        assert_int_equal(heist_loop_call_soon(loop, open_gate, &posting.ready, NULL, NULL), 0);
        pthread_t thread = harness_thread(post_note_thread, &posting);
        int err = heist_loop_run_forever(loop);
        harness_join(thread);
        assert_int_equal(err, 0);
        assert_int_equal(posting.err, 0);
        assert_true(pthread_equal(posting.ran_on, pthread_self()));
    }
    assert_int_equal(heist_loop_close(loop), 0);
    assert_int_equal(heist_loop_call_soon_threadsafe(loop, open_gate, NULL, NULL, NULL), HEIST_ECLOSED);
    heist_loop_unref(loop);
}

struct blocking {
    struct record *record;
    heist_loop *loop;
    const char *begin, *end;
    bool last;
};

static int block_a_little(void *arg) {
    struct blocking *blocking = arg;
    struct timespec pause = {0, 2000000};
    record_add(blocking->record, "%s", blocking->begin);
    nanosleep(&pause, NULL);
    record_add(blocking->record, "%s", blocking->end);
    return blocking->last ? heist_loop_stop(blocking->loop) : 0;
}

static void *post_blocking_pair(void *arg) {
    struct blocking *pair = arg;
    for (int i = 0; i < 2; i++)
        if (heist_loop_call_soon_threadsafe(pair[i].loop, block_a_little, &pair[i], NULL, NULL) < 0) abort();
    return NULL;
}

static void posted_blocking_functions_run_one_after_the_other_CB_16(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_real_loop();
    struct blocking pair[2] = {{&record, loop, "6:begin", "6:end", false}, {&record, loop, "3:begin", "3:end", true}};
    pthread_t thread = harness_thread(post_blocking_pair, pair);
    int err = heist_loop_run_forever(loop);
    harness_join(thread);
    assert_int_equal(err, 0);
    assert_string_equal(record_text(&record), "6:begin 6:end 3:begin 3:end");
    harness_loop_end(loop);
}

/* Per thread: what each of four posting threads sent arrives in its order. */
enum { POSTERS = 4, POSTS = 500 };

struct poster;
struct post {
    struct poster *poster;
    int number;
};
struct poster {
    heist_loop *loop;
    int next, out_of_order;
    _Atomic(int) *left;
    struct post posts[POSTS];
};

static int take_post(void *arg) {
    struct post *post = arg;
    if (post->number != post->poster->next++) post->poster->out_of_order++;
    if (--*post->poster->left == 0) return heist_loop_stop(post->poster->loop);
    return 0;
}

static void *post_many(void *arg) {
    struct poster *poster = arg;
    for (int i = 0; i < POSTS; i++) {
        poster->posts[i] = (struct post){poster, i};
        if (heist_loop_call_soon_threadsafe(poster->loop, take_post, &poster->posts[i], NULL, NULL) < 0) abort();
    }
    return NULL;
}

static void each_threads_posts_arrive_in_its_order_CB_16(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    static struct poster posters[POSTERS];
    _Atomic(int) left = POSTERS * POSTS;
    pthread_t threads[POSTERS];
    for (int i = 0; i < POSTERS; i++) {
        posters[i] = (struct poster){.loop = loop, .left = &left};
        threads[i] = harness_thread(post_many, &posters[i]);
    }
    int err = heist_loop_run_forever(loop);
    for (int i = 0; i < POSTERS; i++) harness_join(threads[i]);
    assert_int_equal(err, 0);
    for (int i = 0; i < POSTERS; i++) {
        assert_int_equal(posters[i].next, POSTS);
        assert_int_equal(posters[i].out_of_order, 0);
    }
    harness_loop_end(loop);
}

/* Happens-before across threads: a foreign thread's post, then one of the loop's own thread that knows of it. */
struct relay {
    heist_loop *loop;
    struct record *record;
    struct mark foreign, local;
    int err;
};

static void *post_foreign(void *arg) {
    struct relay *relay = arg;
    relay->err = heist_loop_call_soon_threadsafe(relay->loop, mark_word, &relay->foreign, NULL, NULL);
    return NULL;
}

static int post_both(void *arg) {
    struct relay *relay = arg;
    harness_join(harness_thread(post_foreign, relay));
    return heist_loop_call_soon(relay->loop, mark_and_stop, &relay->local, NULL, NULL);
}

static void a_local_submission_does_not_overtake_an_earlier_foreign_one_CB_16(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_real_loop();
    struct relay relay = {loop, &record, {&record, "foreign", loop}, {&record, "local", loop}, 1};
    assert_int_equal(heist_loop_call_soon(loop, post_both, &relay, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_int_equal(relay.err, 0);
    assert_string_equal(record_text(&record), "foreign local");
    harness_loop_end(loop);
}

static int post_to_itself(void *arg) {
    struct mark *mark = arg;
    int err = heist_loop_call_soon_threadsafe(mark->loop, mark_and_stop, mark, NULL, NULL);
    record_add(mark->record, "posted:%d", err);
    return 0;
}

static void posting_from_the_loops_own_thread_is_call_soon_CB_17(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct mark mark = {&record, "ran", loop};
    assert_int_equal(heist_loop_call_soon(loop, post_to_itself, &mark, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_string_equal(record_text(&record), "posted:0 ran");
    harness_loop_end(loop);
}

/* ---- failures ---- */

static int fail_with_text(void *arg) {
    (void)arg;
    return heist_fail(-EPROTO, "line %d is bad", 4);
}

static int fail_plainly(void *arg) {
    (void)arg;
    return -EIO;
}

static void failing_callback_is_reported_and_the_next_one_runs_CB_18(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct mark next = {&record, "next", loop};
    assert_int_equal(heist_loop_set_exception_handler(loop, record_report, &record), 0);
    assert_int_equal(heist_loop_call_soon(loop, fail_with_text, NULL, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_soon(loop, fail_plainly, NULL, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &next, NULL, NULL), 0);
    harness_one_pass(loop);
    harness_one_pass(loop); /* a report may be posted to the loop */
    char expected[128];
    snprintf(expected, sizeof expected, "%d:line 4 is bad", -EPROTO);
    assert_non_null(strstr(record_text(&record), expected));
    snprintf(expected, sizeof expected, "%d", -EIO);
    assert_non_null(strstr(record_text(&record), expected));
    assert_non_null(strstr(record_text(&record), "next"));
    assert_int_equal(record_words(&record), 3);
    harness_loop_end(loop);
}

static int fail_fatally(void *arg) {
    (void)arg;
    return HEIST_EFATAL;
}

static void fatal_callback_leaves_the_run_call_CB_19(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct mark after = {&record, "after", loop};
    assert_int_equal(heist_loop_call_soon(loop, fail_fatally, NULL, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_later(loop, 1, mark_and_stop, &after, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), HEIST_EFATAL);
    assert_int_equal(heist_loop_is_running(loop), 0);
    assert_int_equal(record_words(&record), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0); /* and the loop is as usable as before */
    assert_string_equal(record_text(&record), "after");
    harness_loop_end(loop);
}

struct handler {
    _Atomic(int) inside, together, calls;
    heist_loop *loop, *seen_loop;
    int seen_code;
    bool seen_handle, named;
};

static void handle_report(heist_loop *loop, const heist_report *report, void *user) {
    struct handler *handler = user;
    if (++handler->inside > 1) handler->together++;
    handler->seen_loop = loop;
    handler->seen_code = report->code;
    handler->seen_handle = report->handle != NULL;
    handler->named = report->name && strcmp(report->name, "the-reader") == 0;
    handler->calls++;
    handler->inside--;
}

static void handler_gets_loop_and_report_CB_22(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    struct handler handler = {.loop = loop};
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    opts.name = "the-reader";
    assert_int_equal(heist_loop_set_exception_handler(loop, handle_report, &handler), 0);
    assert_int_equal(heist_loop_call_soon(loop, fail_plainly, NULL, &opts, NULL), 0);
    harness_one_pass(loop);
    harness_one_pass(loop);
    assert_int_equal(handler.calls, 1);
    assert_int_equal(handler.seen_code, -EIO);
    assert_ptr_equal(handler.seen_loop, loop);
    assert_true(handler.named);
    harness_loop_end(loop);
}

/* What the default handler writes to standard error while fn runs. */
static void capture_stderr(char *text, size_t size, void (*fn)(heist_loop *), heist_loop *loop) {
    int ends[2], saved = dup(2);
    assert_int_equal(pipe(ends), 0);
    assert_true(saved >= 0);
    assert_int_equal(dup2(ends[1], 2), 2);
    close(ends[1]);
    fn(loop);
    fflush(stderr);
    assert_int_equal(dup2(saved, 2), 2);
    close(saved);
    size_t length = 0;
    ssize_t n;
    while (length + 1 < size && (n = read(ends[0], text + length, size - 1 - length)) > 0) length += (size_t)n;
    text[length] = 0;
    close(ends[0]);
}

static void fail_with_the_default_handler(heist_loop *loop) {
    struct record unused = RECORD_INIT;
    assert_int_equal(heist_loop_set_exception_handler(loop, record_report, &unused), 0);
    assert_int_equal(heist_loop_set_exception_handler(loop, NULL, NULL), 0); /* null restores the default: CB-22 */
    assert_int_equal(heist_loop_call_soon(loop, fail_with_text, NULL, NULL, NULL), 0);
    harness_one_pass(loop);
    harness_one_pass(loop);
}

static void default_handler_writes_one_record_CB_22_CB_23(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    static char text[8192];
    capture_stderr(text, sizeof text, fail_with_the_default_handler, loop);
    assert_non_null(strstr(text, "line 4 is bad"));
    assert_non_null(strstr(text, "EPROTO"));
    assert_non_null(strstr(text, "test_callbacks.c"));
    harness_loop_end(loop);
}

static void report_by_hand(heist_loop *loop) {
    static const char *const extra[] = {"colour", "green", "weight", "12 kg", NULL};
    heist_report report = HEIST_REPORT_INIT;
    report.message = "the cat is out";
    report.code = -EIO;
    report.extra = extra;
    assert_int_equal(heist_loop_call_exception_handler(loop, &report), 0);
    heist_loop_default_exception_handler(loop, &report);
    harness_one_pass(loop);
    harness_one_pass(loop);
}

static void own_record_keeps_its_unknown_fields_CB_24(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    static char text[8192];
    capture_stderr(text, sizeof text, report_by_hand, loop);
    const char *second = strstr(text, "the cat is out");
    assert_non_null(second);
    second = strstr(second + 1, "the cat is out"); /* once by each of the two calls */
    assert_non_null(second);
    for (const char *part = text; part; part = part == text ? second : NULL) {
        assert_non_null(strstr(part, "colour"));
        assert_non_null(strstr(part, "green"));
        assert_non_null(strstr(part, "weight"));
        assert_non_null(strstr(part, "12 kg"));
    }
    harness_loop_end(loop);
}

struct reporting {
    heist_loop *loop;
    int err;
};

static void *report_many(void *arg) {
    struct reporting *reporting = arg;
    heist_report report = HEIST_REPORT_INIT;
    report.message = "from a thread";
    report.code = -EIO;
    for (int i = 0; i < 50; i++) {
        int err = heist_loop_call_exception_handler(reporting->loop, &report);
        if (err < 0) reporting->err = err;
    }
    return NULL;
}

static void handler_calls_are_serialised_for_each_loop_CB_22(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    heist_loop *loop = heist_runtime_loop(rt, 0);
    struct handler handler = {.loop = loop};
    struct reporting reporting[4];
    pthread_t threads[4];
    assert_int_equal(heist_loop_set_exception_handler(loop, handle_report, &handler), 0);
    for (int i = 0; i < 4; i++) {
        reporting[i] = (struct reporting){loop, 0};
        threads[i] = harness_thread(report_many, &reporting[i]);
    }
    for (int i = 0; i < 4; i++) harness_join(threads[i]);
    harness_runtime_end(rt);
    for (int i = 0; i < 4; i++) assert_int_equal(reporting[i].err, 0);
    assert_int_equal(handler.calls, 200);
    assert_int_equal(handler.together, 0);
}

static void report_again_and_sleep(heist_loop *loop, const heist_report *report, void *user) {
    struct handler *handler = user;
    if (report->code == -EPIPE) {
        handler->together++; /* the inner call */
        return;
    }
    heist_report inner = HEIST_REPORT_INIT;
    inner.message = "from the handler";
    inner.code = -EPIPE;
    assert_int_equal(heist_loop_call_exception_handler(loop, &inner), 0);
    assert_null(heist_current_task());
    handler->seen_code = heist_sleep(0);
    handler->calls++;
}

static int report_in_task(void *arg, void **result) {
    (void)result;
    heist_report report = HEIST_REPORT_INIT;
    report.message = "from a task";
    report.code = -EIO;
    heist_task *me = heist_current_task();
    assert_int_equal(heist_loop_call_exception_handler(arg, &report), 0);
    assert_ptr_equal(heist_current_task(), me);
    return heist_sleep(0);
}

static void handler_may_report_again_and_cannot_suspend_CB_22(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    struct handler handler = {.loop = loop};
    assert_int_equal(heist_loop_set_exception_handler(loop, report_again_and_sleep, &handler), 0);
    heist_task *task = NULL;
    assert_int_equal(heist_loop_create_task(loop, report_in_task, loop, NULL, &task), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), 0);
    heist_unref(task);
    assert_int_equal(handler.calls, 1);
    assert_int_equal(handler.together, 1);
    assert_int_equal(handler.seen_code, HEIST_ENOTINCORO);
    harness_loop_end(loop);
}

/* ---- debug mode ---- */

static int hold_the_worker(void *arg) {
    struct timespec pause = {0, 30000000};
    (void)arg;
    nanosleep(&pause, NULL);
    return 0;
}

static void report_seconds(heist_loop *loop, const heist_report *report, void *user) {
    (void)loop;
    if (report->seconds > 0)
        record_add(user, "slow:%s:%d", report->name ? report->name : "?", report->seconds >= 0.03);
}

static void slow_callback_is_reported_with_name_and_time_in_debug_mode(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_real_loop();
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    opts.name = "holder";
    assert_int_equal(heist_loop_set_exception_handler(loop, report_seconds, &record), 0);
    assert_int_equal(heist_loop_get_debug(loop), 0);
    assert_int_equal(heist_loop_set_debug(loop, 1), 0);
    assert_int_equal(heist_loop_get_debug(loop), 1);
    assert_int_equal(heist_loop_set_slow_callback_duration(loop, 0.02), 0);
    assert_int_equal(heist_loop_call_soon(loop, hold_the_worker, NULL, &opts, NULL), 0);
    harness_one_pass(loop);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "slow:holder:1");
    harness_loop_end(loop);
}

static const struct CMUnitTest tests[] = {
    API_TEST(call_soon_runs_in_order_and_once_CB_01),
    API_TEST(call_soon_never_runs_inside_the_call_CB_02),
    API_TEST(argument_is_freed_once_whether_run_cancelled_or_closed_CB_03),
    API_TEST(call_later_is_never_early_CB_04),
    API_TEST(virtual_time_jumps_to_the_deadline_exactly_CB_04),
    API_TEST(zero_and_negative_delays_run_after_what_is_queued_CB_05),
    API_TEST(no_number_is_no_time_CB_06),
    API_TEST(call_at_is_an_instant_of_the_loops_clock_CB_07),
    API_TEST(timers_run_by_deadline_then_by_making_CB_08),
    API_TEST(timers_that_are_due_together_keep_their_order_CB_08),
    API_TEST(handle_keeps_its_instant_CB_09),
    API_TEST(handle_that_never_comes_says_so_CB_09),
    API_TEST(cancelled_handle_never_runs_CB_10),
    API_TEST(callback_cannot_cancel_itself_CB_10),
    API_TEST(cancel_frees_the_argument_at_once_CB_11),
    API_TEST(releasing_a_handle_does_not_cancel_CB_12),
    API_TEST(timer_beyond_any_poll_interval_fires_on_time_CB_13),
    API_TEST(waiting_for_a_timer_costs_no_processor_time_CB_14),
    API_TEST(posted_callback_wakes_the_loop_and_runs_on_its_thread_CB_15),
    API_TEST(posted_blocking_functions_run_one_after_the_other_CB_16),
    API_TEST(each_threads_posts_arrive_in_its_order_CB_16),
    API_TEST(a_local_submission_does_not_overtake_an_earlier_foreign_one_CB_16),
    API_TEST(posting_from_the_loops_own_thread_is_call_soon_CB_17),
    API_TEST(failing_callback_is_reported_and_the_next_one_runs_CB_18),
    API_TEST(fatal_callback_leaves_the_run_call_CB_19),
    API_TEST(handler_gets_loop_and_report_CB_22),
    API_TEST(default_handler_writes_one_record_CB_22_CB_23),
    API_TEST(own_record_keeps_its_unknown_fields_CB_24),
    API_TEST(handler_calls_are_serialised_for_each_loop_CB_22),
    API_TEST(handler_may_report_again_and_cannot_suspend_CB_22),
    API_TEST(slow_callback_is_reported_with_name_and_time_in_debug_mode),
};

int main(void) {
    return HARNESS_MAIN("callbacks", tests);
}
