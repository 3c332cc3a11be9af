/* Closing: with a deadline, against submissions from many threads, and what is left
 * afterwards, which is nothing. */
#include "support/harness.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int nothing(void *arg, void **out) {
    (void)arg;
    (void)out;
    return 0;
}

static int sleep_and_note(void *arg, void **out) {
    struct record *record = arg;
    (void)out;
    int err = heist_sleep(1000);
    record_add(record, "%d", err == -ECANCELED);
    return err;
}

static void close_asks_live_tasks_to_cancel_and_waits_for_them(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_runtime *rt = harness_runtime(0);
    heist_task *tasks[5];
    for (int i = 0; i < 5; i++)
        assert_int_equal(heist_runtime_run_coroutine(rt, sleep_and_note, &record, NULL, &tasks[i]), 0);
    heist_sleep(0.002);
    int err = heist_runtime_close(rt, HEIST_FOREVER);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(heist_future_done(tasks[i]), 1);
        assert_int_equal(heist_future_cancelled(tasks[i]), 1);
        heist_unref(tasks[i]);
    }
    int again = heist_runtime_close(rt, 0);
    heist_runtime_unref(rt);
    assert_int_equal(err, 0);
    assert_int_equal(again, 0); /* idempotent */
    assert_true(record_words(&record) <= 5);
    assert_null(strchr(record_text(&record), '0'));
}

static void closed_runtime_refuses_submissions(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_runtime *rt = harness_runtime(0);
    heist_loop *loop = heist_runtime_loop(rt, 0);
    heist_task_options task_opts = HEIST_TASK_OPTIONS_INIT;
    heist_call_options call_opts = HEIST_CALL_OPTIONS_INIT;
    struct mark mark = {&record, "arg", NULL};
    heist_task *task = NULL;
    heist_handle *handle = NULL;
    task_opts.arg_free = mark_free;
    call_opts.arg_free = mark_free;
    assert_int_equal(heist_runtime_close(rt, HEIST_FOREVER), 0);
    assert_int_equal(heist_runtime_run_coroutine(rt, nothing, &mark, &task_opts, &task), HEIST_ECLOSED);
    assert_int_equal(heist_loop_create_task(loop, nothing, &mark, &task_opts, &task), HEIST_ECLOSED);
    assert_int_equal(heist_runtime_call_soon(rt, mark_word, &mark, &call_opts, &handle), HEIST_ECLOSED);
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &mark, &call_opts, &handle), HEIST_ECLOSED);
    assert_int_equal(heist_loop_call_later(loop, 1, mark_word, &mark, &call_opts, &handle), HEIST_ECLOSED);
    assert_int_equal(heist_loop_is_closed(loop), 1);
    assert_int_equal(heist_runtime_task_count(rt), 0);
    assert_null(task);
    assert_null(handle);
    heist_runtime_unref(rt);
    assert_int_equal(record_words(&record), 0);
}

/* ---- with a deadline ---- */

struct stubborn {
    struct gate begun, go_on;
};

static int hold_on(void *arg, void **out) {
    struct stubborn *stubborn = arg;
    (void)out;
    gate_open(&stubborn->begun);
    gate_wait(&stubborn->go_on); /* blocks its worker: no request can be delivered */
    return 0;
}

static void report_names(heist_loop *loop, const heist_report *report, void *user) {
    char name[64] = "";
    (void)loop;
    if (report->future && heist_future_is_task(report->future)) heist_task_name(report->future, name, sizeof name);
    record_add(user, "%s/%s", report->name ? report->name : "", name);
}

static void close_reports_what_still_runs_and_may_be_repeated(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_task_options task_opts = HEIST_TASK_OPTIONS_INIT;
    struct stubborn stubborn = {GATE_INIT, GATE_INIT};
    heist_runtime *rt = NULL;
    heist_task *task = NULL;
    opts.workers = harness_workers();
    opts.exception_handler = report_names;
    opts.exception_user = &record;
    task_opts.name = "stubborn";
    assert_int_equal(heist_runtime_new(&opts, &rt), 0);
    assert_int_equal(heist_runtime_run_coroutine(rt, hold_on, &stubborn, &task_opts, &task), 0);
    gate_wait(&stubborn.begun);
    int first = heist_runtime_close(rt, 0.005), second = heist_runtime_close(rt, 0);
    bool reported = strstr(record_text(&record), "stubborn") != NULL;
    int state_meanwhile = heist_future_done(task);
    int refused = heist_runtime_run_coroutine(rt, nothing, NULL, NULL, NULL);
    gate_open(&stubborn.go_on);
    int last = heist_runtime_close(rt, HEIST_FOREVER);
    int outcome = heist_await(task, NULL);
    heist_unref(task);
    heist_runtime_unref(rt);
    assert_int_equal(first, -ETIMEDOUT);
    assert_int_equal(second, -ETIMEDOUT);
    assert_true(reported);
    assert_int_equal(state_meanwhile, 0);
    assert_int_equal(refused, HEIST_ECLOSED);
    assert_int_equal(last, 0);
    assert_int_equal(outcome, 0); /* its body returned 0: it was never interrupted */
}

static int swallow_and_wait(void *arg, void **out) {
    struct stubborn *stubborn = arg;
    (void)out;
    gate_open(&stubborn->begun);
    int err = heist_sleep(1000);
    if (err != -ECANCELED) return -EPROTO;
    return heist_sleep(0.002); /* asked once, so the clean-up is left alone */
}

static void close_asks_once_and_lets_the_clean_up_finish(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    struct stubborn stubborn = {GATE_INIT, GATE_INIT};
    heist_task *task = NULL;
    assert_int_equal(heist_runtime_run_coroutine(rt, swallow_and_wait, &stubborn, NULL, &task), 0);
    gate_wait(&stubborn.begun);
    int err = heist_runtime_close(rt, HEIST_FOREVER);
    int outcome = heist_await(task, NULL); /* a plain thread, after close */
    heist_unref(task);
    heist_runtime_unref(rt);
    assert_int_equal(err, 0);
    assert_int_equal(outcome, 0);
}

struct own_close {
    heist_runtime *rt;
    int task, callback;
};

static int close_from_callback(void *arg) {
    struct own_close *own = arg;
    own->callback = heist_runtime_close(own->rt, 1);
    return 0;
}

static int close_from_task(void *arg, void **out) {
    struct own_close *own = arg;
    (void)out;
    own->task = heist_runtime_close(own->rt, 1);
    return 0;
}

static void close_from_one_of_its_own_workers_is_a_deadlock_and_refused(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    struct own_close own = {rt, 1, 1};
    heist_task *task = NULL;
    assert_int_equal(heist_runtime_call_soon(rt, close_from_callback, &own, NULL, NULL), 0);
    assert_int_equal(heist_runtime_run_coroutine(rt, close_from_task, &own, NULL, &task), 0);
    int err = heist_await(task, NULL);
    heist_unref(task);
    harness_runtime_end(rt);
    assert_int_equal(err, 0);
    assert_int_equal(own.task, -EDEADLK);
    assert_true(own.callback == -EDEADLK || own.callback == 1); /* 1: closed before it ran */
}

static void bad_timeouts_are_refused(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    assert_int_equal(heist_runtime_close(rt, __builtin_nan("")), -EINVAL);
    assert_int_equal(heist_runtime_close(NULL, 1), -EINVAL);
    heist_task *task = NULL; /* and nothing was closed by that */
    assert_int_equal(heist_runtime_run_coroutine(rt, nothing, NULL, NULL, &task), 0);
    assert_int_equal(heist_await(task, NULL), 0);
    heist_unref(task);
    harness_runtime_end(rt);
}

/* ---- against submissions from many threads ---- */

enum { SUBMITTERS = 64 };

struct tally {
    _Atomic(long) ran, freed;
};

static int run_job(void *arg, void **out) {
    struct tally *tally = arg;
    (void)out;
    tally->ran++;
    return 0;
}

static int run_call(void *arg) {
    struct tally *tally = arg;
    tally->ran++;
    return 0;
}

static void free_job(void *arg) {
    struct tally *tally = arg;
    tally->freed++;
}

struct submitter {
    heist_runtime *rt;
    pthread_barrier_t *start;
    struct tally tally;
    long accepted, bad_code, not_ended;
};

/* Submits until it is refused, or has had its share: through each door, to the runtime and to its loops. */
enum { SHARE = 1000 };

static void *submit_until_closed(void *arg) {
    struct submitter *submitter = arg;
    heist_task_options task_opts = HEIST_TASK_OPTIONS_INIT;
    heist_call_options call_opts = HEIST_CALL_OPTIONS_INIT;
    int workers = heist_runtime_workers(submitter->rt);
    task_opts.arg_free = free_job;
    call_opts.arg_free = free_job;
    pthread_barrier_wait(submitter->start);
    for (int i = 0; i < SHARE; i++) {
        heist_loop *loop = heist_runtime_loop(submitter->rt, i % workers);
        heist_task *task = NULL;
        int err;
        switch (i % 4) {
        case 0: err = heist_runtime_call_soon(submitter->rt, run_call, &submitter->tally, &call_opts, NULL); break;
        case 1: err = heist_loop_call_soon_threadsafe(loop, run_call, &submitter->tally, &call_opts, NULL); break;
        case 2:
            err = heist_runtime_run_coroutine(submitter->rt, run_job, &submitter->tally, &task_opts, &task);
            break;
        default:
            err = heist_run_coroutine_threadsafe(loop, run_job, &submitter->tally, &task_opts, &task);
            break;
        }
        if (err < 0) {
            if (err != HEIST_ECLOSED) submitter->bad_code++;
            break;
        }
        submitter->accepted++;
        if (task) {
            /* Every accepted future ends: with its value, or cancelled by the close. */
            int outcome = heist_await(task, NULL);
            if (outcome != 0 && outcome != -ECANCELED) submitter->not_ended++;
            heist_unref(task);
        }
    }
    return NULL;
}

static void submissions_that_race_with_close_never_hang_and_never_leak(void **state) {
    (void)state;
    static struct submitter submitters[SUBMITTERS];
    pthread_t threads[SUBMITTERS];
    for (int round = 0; round < 5; round++) {
        heist_runtime *rt = harness_runtime(0);
        pthread_barrier_t start;
        pthread_barrier_init(&start, NULL, SUBMITTERS + 1);
        memset(submitters, 0, sizeof submitters);
        for (int i = 0; i < SUBMITTERS; i++) {
            submitters[i].rt = rt;
            submitters[i].start = &start;
            threads[i] = harness_thread(submit_until_closed, &submitters[i]);
        }
        pthread_barrier_wait(&start);
        for (int i = 0; i < round * 20; i++) sched_yield();
        int err = heist_runtime_close(rt, HEIST_FOREVER);
        for (int i = 0; i < SUBMITTERS; i++) harness_join(threads[i]);
        heist_runtime_unref(rt);
        pthread_barrier_destroy(&start);
        assert_int_equal(err, 0);
        for (int i = 0; i < SUBMITTERS; i++) {
            assert_int_equal(submitters[i].bad_code, 0);
            assert_int_equal(submitters[i].not_ended, 0);
            assert_int_equal(submitters[i].tally.freed, submitters[i].accepted); /* exactly once each */
            assert_true(submitters[i].tally.ran <= submitters[i].accepted);
        }
    }
}

struct closer {
    heist_runtime *rt;
    pthread_barrier_t *start;
    int err;
};

static void *close_in_thread(void *arg) {
    struct closer *closer = arg;
    pthread_barrier_wait(closer->start);
    closer->err = heist_runtime_close(closer->rt, HEIST_FOREVER);
    return NULL;
}

static void many_threads_may_close_at_once(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    for (int round = 0; round < 5; round++) {
        heist_runtime *rt = harness_runtime(0);
        struct closer closers[SUBMITTERS];
        pthread_t threads[SUBMITTERS];
        pthread_barrier_t start;
        pthread_barrier_init(&start, NULL, SUBMITTERS);
        for (int i = 0; i < 10; i++)
            assert_int_equal(heist_runtime_run_coroutine(rt, sleep_and_note, &record, NULL, NULL), 0);
        for (int i = 0; i < SUBMITTERS; i++) {
            closers[i] = (struct closer){rt, &start, 1};
            threads[i] = harness_thread(close_in_thread, &closers[i]);
        }
        for (int i = 0; i < SUBMITTERS; i++) harness_join(threads[i]);
        pthread_barrier_destroy(&start);
        heist_runtime_unref(rt);
        for (int i = 0; i < SUBMITTERS; i++) assert_int_equal(closers[i].err, 0);
    }
}

/* ---- the same for a loop of its own ---- */

struct loop_submitter {
    heist_loop *loop;
    struct tally tally;
    long accepted, bad_code;
};

static void *submit_to_loop_until_closed(void *arg) {
    struct loop_submitter *submitter = arg;
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    heist_task_options task_opts = HEIST_TASK_OPTIONS_INIT;
    opts.arg_free = free_job;
    task_opts.arg_free = free_job;
    for (int i = 0; i < SHARE; i++) {
        int err;
        switch (i % 3) {
        case 0:
            err = heist_loop_call_soon_threadsafe(submitter->loop, run_call, &submitter->tally, &opts, NULL);
            break;
        case 1: err = heist_loop_call_later(submitter->loop, 1000, run_call, &submitter->tally, &opts, NULL); break;
        default:
            err = heist_run_coroutine_threadsafe(submitter->loop, run_job, &submitter->tally, &task_opts, NULL);
            break;
        }
        if (err < 0) {
            if (err != HEIST_ECLOSED) submitter->bad_code++;
            return NULL;
        }
        submitter->accepted++;
    }
    return NULL;
}

static void submissions_race_with_the_close_of_a_loop(void **state) {
    (void)state;
    static struct loop_submitter submitters[16];
    pthread_t threads[16];
    for (int round = 0; round < 5; round++) {
        heist_loop *loop = harness_real_loop();
        memset(submitters, 0, sizeof submitters);
        for (int i = 0; i < 16; i++) {
            submitters[i].loop = loop;
            threads[i] = harness_thread(submit_to_loop_until_closed, &submitters[i]);
        }
        if (round % 2) harness_one_pass(loop);
        int err;
        while ((err = heist_loop_close(loop)) == -EBUSY) {} /* many tasks, and a busy machine: once more */
        for (int i = 0; i < 16; i++) harness_join(threads[i]);
        heist_loop_unref(loop);
        assert_int_equal(err, 0);
        for (int i = 0; i < 16; i++) {
            assert_int_equal(submitters[i].bad_code, 0);
            assert_int_equal(submitters[i].tally.freed, submitters[i].accepted);
        }
    }
}

/* ---- what outlives the runtime ---- */

static void futures_handles_and_loops_may_outlive_their_runtime(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    heist_loop *loop = heist_loop_ref(heist_runtime_loop(rt, 0));
    heist_task *task = NULL;
    heist_handle *handle = NULL;
    heist_future *future = NULL;
    assert_int_equal(heist_runtime_run_coroutine(rt, nothing, NULL, NULL, &task), 0);
    assert_int_equal(heist_loop_call_later(loop, 1000, stop_loop, loop, NULL, &handle), 0);
    assert_int_equal(heist_loop_create_future(loop, &future), 0);
    int ended = heist_await(task, NULL);
    harness_runtime_end(rt);
    assert_int_equal(ended, 0);
    assert_int_equal(heist_future_result(task, NULL), 0);
    assert_int_equal(heist_handle_cancelled(handle), 1); /* by the close */
    assert_int_equal(heist_handle_cancel(handle), 0);
    assert_int_equal(heist_future_set_result(future, NULL, NULL), 0); /* a future without a future loop still ends */
    assert_int_equal(heist_loop_call_soon(loop, stop_loop, loop, NULL, NULL), HEIST_ECLOSED);
    assert_int_equal(heist_loop_is_closed(loop), 1);
    heist_unref(task);
    heist_unref(future);
    heist_handle_unref(handle);
    heist_loop_unref(loop);
}

static int count_mappings(void) {
    FILE *file = fopen("/proc/self/maps", "r");
    int lines = 0, c;
    if (!file) return -1;
    while ((c = getc(file)) != EOF) lines += c == '\n';
    fclose(file);
    return lines;
}

static int use_some_stacks(void *arg, void **out) {
    heist_task *tasks[50];
    (void)arg;
    (void)out;
    for (int i = 0; i < 50; i++) {
        int err = heist_create_task(nothing, NULL, NULL, &tasks[i]);
        if (err < 0) return err;
    }
    int err = heist_gather(tasks, 50, NULL, 0);
    for (int i = 0; i < 50; i++) heist_unref(tasks[i]);
    return err;
}

static void mappings_do_not_pile_up_over_many_lives(void **state) {
    (void)state;
    if (harness_instrumented()) skip();
    for (int i = 0; i < 5; i++) assert_int_equal(harness_run(use_some_stacks, NULL, NULL), 0);
    int before = count_mappings();
    for (int i = 0; i < 50; i++) assert_int_equal(harness_run(use_some_stacks, NULL, NULL), 0);
    int after = count_mappings();
    /* The C library keeps some stacks and arenas of ended threads; fifty lives must not leave fifty of anything. */
    assert_true(after < before + 25);
}

static const struct CMUnitTest tests[] = {
    API_TEST(close_asks_live_tasks_to_cancel_and_waits_for_them),
    API_TEST(closed_runtime_refuses_submissions),
    API_TEST(close_reports_what_still_runs_and_may_be_repeated),
    API_TEST(close_asks_once_and_lets_the_clean_up_finish),
    API_TEST(close_from_one_of_its_own_workers_is_a_deadlock_and_refused),
    API_TEST(bad_timeouts_are_refused),
    API_TEST(submissions_that_race_with_close_never_hang_and_never_leak),
    API_TEST(many_threads_may_close_at_once),
    API_TEST(submissions_race_with_the_close_of_a_loop),
    API_TEST(futures_handles_and_loops_may_outlive_their_runtime),
    API_TEST(mappings_do_not_pile_up_over_many_lives),
};

int main(void) {
    return HARNESS_MAIN("shutdown", tests);
}
