/* Crossing threads: the two doors, and awaiting from plain threads.  Rows XTH. */
#include "support/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A loop that runs in a second thread until it is stopped. */
struct server {
    heist_loop *loop;
    pthread_t thread;
    struct gate running;
    int err;
};

static int tell_running(void *arg) {
    gate_open(arg);
    return 0;
}

static void *serve(void *arg) {
    struct server *server = arg;
    server->err = heist_loop_call_soon(server->loop, tell_running, &server->running, NULL, NULL);
    if (server->err == 0) server->err = heist_loop_run_forever(server->loop);
    return NULL;
}

static void server_start(struct server *server, unsigned flags) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    *server = (struct server){.running = GATE_INIT};
    opts.flags = flags;
    assert_int_equal(heist_loop_new(&opts, &server->loop), 0);
    server->thread = harness_thread(serve, server);
    gate_wait(&server->running);
}

static void server_end(struct server *server) {
    assert_int_equal(heist_loop_stop(server->loop), 0);
    harness_join(server->thread);
    assert_int_equal(server->err, 0);
    harness_loop_end(server->loop);
}

static int hold_the_loop(void *arg) {
    gate_wait(arg);
    return 0;
}

static int value_nine = 9;

static int give_argument(void *arg, void **out) {
    *out = arg;
    return 0;
}

static int fail_with_message(void *arg, void **out) {
    (void)arg;
    (void)out;
    return heist_fail(-EPROTO, "the answer is %d", 42);
}

static int await_it(void *arg, void **out) {
    return heist_await(arg, out);
}

static int sleep_seconds(void *arg, void **out) {
    double *seconds = arg;
    (void)out;
    return heist_sleep(*seconds);
}

/* ---- submitting ---- */

static void submitting_does_not_wait_for_the_work_XTH_01(void **state) {
    (void)state;
    struct server server;
    struct gate gate = GATE_INIT;
    heist_task *task = NULL;
    void *out = NULL;
    server_start(&server, 0);
    /* The loop is held, so the submitting call returns although nothing can run. */
    assert_int_equal(heist_loop_call_soon_threadsafe(server.loop, hold_the_loop, &gate, NULL, NULL), 0);
    assert_int_equal(heist_run_coroutine_threadsafe(server.loop, give_argument, &value_nine, NULL, &task), 0);
    assert_int_equal(heist_future_done(task), 0);
    gate_open(&gate);
    assert_int_equal(heist_await(task, &out), 0);
    assert_ptr_equal(out, &value_nine);
    heist_unref(task);
    server_end(&server);
}

static void two_sleepers_take_the_longer_time_XTH_02(void **state) {
    (void)state;
    struct server server;
    struct gate gate = GATE_INIT;
    double six = 6, four = 4;
    heist_task *tasks[2];
    server_start(&server, HEIST_RUNTIME_VIRTUAL_TIME);
    /* Held until both are in, for virtual time does not wait for the second submission. */
    assert_int_equal(heist_loop_call_soon_threadsafe(server.loop, hold_the_loop, &gate, NULL, NULL), 0);
    double start = heist_loop_time(server.loop);
    assert_int_equal(heist_run_coroutine_threadsafe(server.loop, sleep_seconds, &six, NULL, &tasks[0]), 0);
    assert_int_equal(heist_run_coroutine_threadsafe(server.loop, sleep_seconds, &four, NULL, &tasks[1]), 0);
    gate_open(&gate);
    assert_int_equal(heist_await(tasks[0], NULL), 0);
    assert_int_equal(heist_await(tasks[1], NULL), 0);
    double seconds = heist_loop_time(server.loop) - start;
    assert_true(seconds >= 6 && seconds < 6.5); /* not 10 */
    heist_unref(tasks[0]);
    heist_unref(tasks[1]);
    server_end(&server);
}

struct waiting {
    heist_future *future;
    void *value;
    int err;
};

static void *await_in_thread(void *arg) {
    struct waiting *waiting = arg;
    waiting->err = heist_await(waiting->future, &waiting->value);
    return NULL;
}

static void any_thread_may_wait_for_the_future_XTH_03_XTH_05(void **state) {
    (void)state;
    enum { THREADS = 6 };
    struct server server;
    struct gate gate = GATE_INIT;
    struct waiting waiting[THREADS];
    pthread_t threads[THREADS];
    heist_exception e = HEIST_EXCEPTION_INIT;
    heist_task *task = NULL;
    server_start(&server, 0);
    assert_int_equal(heist_loop_call_soon_threadsafe(server.loop, hold_the_loop, &gate, NULL, NULL), 0);
    assert_int_equal(heist_run_coroutine_threadsafe(server.loop, give_argument, &value_nine, NULL, &task), 0);
    for (int i = 0; i < THREADS; i++) {
        waiting[i] = (struct waiting){task, NULL, 1};
        threads[i] = harness_thread(await_in_thread, &waiting[i]);
    }
    gate_open(&gate);
    for (int i = 0; i < THREADS; i++) {
        harness_join(threads[i]);
        assert_int_equal(waiting[i].err, 0);
        assert_ptr_equal(waiting[i].value, &value_nine);
    }
    heist_unref(task);

    assert_int_equal(heist_run_coroutine_threadsafe(server.loop, fail_with_message, NULL, NULL, &task), 0);
    assert_int_equal(heist_await(task, NULL), -EPROTO); /* or the coroutine's error */
    assert_int_equal(heist_future_exception(task, &e), 0);
    assert_string_equal(e.message, "the answer is 42");
    heist_unref(task);
    server_end(&server);
}

static void only_coroutines_are_accepted_and_nothing_is_posted_XTH_04(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    struct server server;
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    struct mark mark = {&record, "arg", NULL};
    heist_task *task = NULL;
    opts.arg_free = mark_free;
    server_start(&server, 0);
    assert_int_equal(heist_run_coroutine_threadsafe(server.loop, NULL, &mark, &opts, &task), -EINVAL);
    assert_int_equal(heist_run_coroutine_threadsafe(NULL, give_argument, &mark, &opts, &task), -EINVAL);
    assert_null(task);
    server_end(&server);
    assert_int_equal(record_words(&record), 0);
}

static void deadline_of_a_plain_thread_leaves_the_coroutine_running_XTH_06(void **state) {
    (void)state;
    struct server server;
    heist_future *future = NULL;
    heist_task *task = NULL;
    void *out = NULL;
    server_start(&server, 0);
    assert_int_equal(heist_future_new(NULL, &future), 0);
    assert_int_equal(heist_run_coroutine_threadsafe(server.loop, await_it, future, NULL, &task), 0);
    double deadline = heist_time() + 0.005;
    assert_int_equal(heist_await_until(task, deadline, &out), -ETIMEDOUT);
    assert_true(heist_time() >= deadline);
    assert_int_equal(heist_await_until(task, heist_time() - 1, &out), -ETIMEDOUT);
    assert_null(out);
    assert_int_equal(heist_future_done(task), 0);
    assert_int_equal(heist_cancelling(task), 0);
    assert_int_equal(heist_future_set_result(future, &value_nine, NULL), 0);
    assert_int_equal(heist_await_until(task, HEIST_FOREVER, &out), 0); /* and it can be asked again */
    assert_ptr_equal(out, &value_nine);
    heist_unref(future);
    heist_unref(task);
    server_end(&server);
}

struct refused {
    heist_future *future;
    int await, until, sleep, yield, gather;
};

static int wait_in_callback(void *arg) {
    struct refused *refused = arg;
    heist_future *const futures[1] = {refused->future};
    refused->await = heist_await(refused->future, NULL);
    refused->until = heist_await_until(refused->future, 0, NULL);
    refused->sleep = heist_sleep(0);
    refused->yield = heist_yield();
    refused->gather = heist_gather(futures, 1, NULL, 0);
    return 0;
}

static void wait_in_done_callback(heist_future *future, void *user) {
    (void)future;
    wait_in_callback(user);
}

/* asyncio deadlocks there; here the code says so, even where nobody would have to wait. */
static void waiting_in_a_callback_is_refused_at_once_XTH_07(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    for (int done = 0; done < 2; done++) {
        struct refused callback = {0}, after = {0};
        assert_int_equal(heist_future_new(loop, &callback.future), 0);
        after.future = callback.future;
        if (done) {
            assert_int_equal(heist_future_set_result(callback.future, NULL, NULL), 0);
            assert_int_equal(heist_future_add_done_callback(callback.future, wait_in_done_callback, &after, NULL), 0);
        }
        assert_int_equal(heist_loop_call_soon(loop, wait_in_callback, &callback, NULL, NULL), 0);
        harness_one_pass(loop);
        assert_int_equal(callback.await, HEIST_ENOTINCORO);
        assert_int_equal(callback.until, HEIST_ENOTINCORO);
        assert_int_equal(callback.sleep, HEIST_ENOTINCORO);
        assert_int_equal(callback.yield, HEIST_ENOTINCORO);
        assert_int_equal(callback.gather, HEIST_ENOTINCORO);
        if (done) assert_int_equal(after.await, HEIST_ENOTINCORO);
        heist_unref(callback.future);
    }
    harness_loop_end(loop);
}

static void closed_loop_gives_the_coroutine_back_XTH_09(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    struct mark mark = {&record, "arg", loop};
    heist_task *task = NULL;
    opts.arg_free = mark_free;
    assert_int_equal(heist_loop_close(loop), 0);
    assert_int_equal(heist_run_coroutine_threadsafe(loop, give_argument, &mark, &opts, &task), HEIST_ECLOSED);
    assert_null(task);
    assert_int_equal(record_words(&record), 0);
    heist_loop_unref(loop);
}

/* ---- one future for loops and threads ---- */

struct ending {
    heist_future *future;
    int kind, err;
};

static void *end_in_thread(void *arg) {
    struct ending *ending = arg;
    if (ending->kind == 0) ending->err = heist_future_set_result(ending->future, &value_nine, NULL);
    if (ending->kind == 1) ending->err = heist_future_set_exception(ending->future, -EPIPE, "gone");
    if (ending->kind == 2) ending->err = heist_cancel(ending->future) == 1 ? 0 : -EINVAL;
    return NULL;
}

static void threads_outcome_reaches_the_waiting_task_XTH_10_XTH_19(void **state) {
    (void)state;
    static const int expected[] = {0, -EPIPE, -ECANCELED};
    for (int kind = 0; kind < 3; kind++) {
        struct server server;
        struct ending ending = {NULL, kind, 1};
        heist_task *task = NULL;
        void *out = NULL;
        server_start(&server, 0);
        assert_int_equal(heist_future_new(NULL, &ending.future), 0); /* of no loop at all */
        assert_int_equal(heist_run_coroutine_threadsafe(server.loop, await_it, ending.future, NULL, &task), 0);
        harness_join(harness_thread(end_in_thread, &ending));
        assert_int_equal(ending.err, 0);
        assert_int_equal(heist_await(task, &out), expected[kind]);
        if (kind == 0) assert_ptr_equal(out, &value_nine);
        heist_unref(task);
        heist_unref(ending.future);
        server_end(&server);
    }
}

struct observed {
    struct gate begun, go_on;
};

static int run_until_told(void *arg, void **out) {
    struct observed *observed = arg;
    (void)out;
    gate_open(&observed->begun);
    gate_wait(&observed->go_on); /* holds the worker, so that the state stays */
    return 0;
}

static void states_seen_from_outside_XTH_13(void **state) {
    (void)state;
    struct server server;
    struct gate gate = GATE_INIT;
    struct observed observed = {GATE_INIT, GATE_INIT};
    heist_task *task = NULL, *never = NULL;
    server_start(&server, 0);
    assert_int_equal(heist_loop_call_soon_threadsafe(server.loop, hold_the_loop, &gate, NULL, NULL), 0);
    assert_int_equal(heist_run_coroutine_threadsafe(server.loop, run_until_told, &observed, NULL, &task), 0);
    assert_int_equal(heist_run_coroutine_threadsafe(server.loop, give_argument, NULL, NULL, &never), 0);
    assert_int_equal(heist_future_state(task), HEIST_PENDING);
    gate_open(&gate);
    gate_wait(&observed.begun);
    assert_int_equal(heist_future_state(task), HEIST_RUNNING);
    assert_int_equal(heist_future_done(task), 0);
    assert_int_equal(heist_cancel(never), 1);
    gate_open(&observed.go_on);
    assert_int_equal(heist_await(task, NULL), 0);
    assert_int_equal(heist_future_state(task), HEIST_DONE);
    assert_int_equal(heist_await(never, NULL), -ECANCELED);
    assert_int_equal(heist_future_state(never), HEIST_CANCELLED);
    heist_unref(task);
    heist_unref(never);
    server_end(&server);
}

static void pending_work_can_be_cancelled_from_a_thread_finished_work_cannot_XTH_14_XTH_15(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    struct server server;
    struct gate gate = GATE_INIT;
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    struct mark mark = {&record, "arg", NULL};
    heist_task *task = NULL;
    void *out = NULL;
    opts.arg_free = mark_free;
    server_start(&server, 0);
    assert_int_equal(heist_loop_call_soon_threadsafe(server.loop, hold_the_loop, &gate, NULL, NULL), 0);
    assert_int_equal(heist_run_coroutine_threadsafe(server.loop, give_argument, &mark, &opts, &task), 0);
    assert_int_equal(heist_cancel(task), 1);
    gate_open(&gate);
    assert_int_equal(heist_await(task, &out), -ECANCELED); /* XTH-15 */
    assert_int_equal(heist_future_result(task, &out), -ECANCELED);
    assert_null(out);
    assert_int_equal(heist_cancel(task), 0);
    heist_unref(task);

    assert_int_equal(heist_run_coroutine_threadsafe(server.loop, give_argument, &value_nine, NULL, &task), 0);
    assert_int_equal(heist_await(task, NULL), 0);
    assert_int_equal(heist_cancel(task), 0);
    assert_int_equal(heist_future_cancelled(task), 0);
    heist_unref(task);
    server_end(&server);
    assert_string_equal(record_text(&record), "free:arg");
}

struct where {
    struct record *record;
    pthread_t thread;
};

static void note_where(heist_future *future, void *user) {
    struct where *where = user;
    record_add(where->record, "%d", heist_future_done(future));
    where->thread = pthread_self();
}

struct own_end {
    heist_future *future;
    pthread_t thread;
    int err;
};

static void *end_and_note_thread(void *arg) {
    struct own_end *end = arg;
    end->thread = pthread_self();
    end->err = heist_future_set_result(end->future, NULL, NULL);
    return NULL;
}

static void callbacks_of_a_future_of_no_loop_run_in_the_completing_thread_XTH_16(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    struct where a = {&record, pthread_self()}, b = {&record, pthread_self()}, late = {&record, pthread_self()};
    struct own_end end = {NULL, pthread_self(), 1};
    assert_int_equal(heist_future_new(NULL, &end.future), 0);
    assert_int_equal(heist_future_add_done_callback(end.future, note_where, &a, NULL), 0);
    assert_int_equal(heist_future_add_done_callback(end.future, note_where, &b, NULL), 0);
    harness_join(harness_thread(end_and_note_thread, &end));
    assert_int_equal(end.err, 0);
    assert_string_equal(record_text(&record), "1 1");
    assert_true(pthread_equal(a.thread, end.thread) && pthread_equal(b.thread, end.thread));
    assert_int_equal(heist_future_add_done_callback(end.future, note_where, &late, NULL), 0);
    assert_string_equal(record_text(&record), "1 1 1"); /* at once: it was done */
    assert_true(pthread_equal(late.thread, pthread_self()));
    heist_unref(end.future);
}

static void a_plain_thread_may_gather_XTH_18(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    heist_task *tasks[3];
    void *results[3] = {NULL, NULL, NULL};
    double little = 0.001;
    int values[3], err;
    for (int i = 0; i < 3; i++)
        assert_int_equal(heist_runtime_run_coroutine(rt, give_argument, &values[i], NULL, &tasks[i]), 0);
    err = heist_gather(tasks, 3, results, 0);
    assert_int_equal(err, 0);
    for (int i = 0; i < 3; i++) assert_ptr_equal(results[i], &values[i]);
    for (int i = 0; i < 3; i++) heist_unref(tasks[i]);

    assert_int_equal(heist_runtime_run_coroutine(rt, sleep_seconds, &little, NULL, &tasks[0]), 0);
    assert_int_equal(heist_runtime_run_coroutine(rt, fail_with_message, NULL, NULL, &tasks[1]), 0);
    assert_int_equal(heist_runtime_run_coroutine(rt, give_argument, &values[2], NULL, &tasks[2]), 0);
    results[1] = results;
    err = heist_gather(tasks, 3, results, HEIST_GATHER_ALL);
    assert_int_equal(err, 0);
    assert_null(results[1]);
    assert_ptr_equal(results[2], &values[2]);
    assert_int_equal(heist_future_result(tasks[1], NULL), -EPROTO);
    for (int i = 0; i < 3; i++) heist_unref(tasks[i]);

    double long_time = 1000;
    assert_int_equal(heist_runtime_run_coroutine(rt, sleep_seconds, &long_time, NULL, &tasks[0]), 0);
    assert_int_equal(heist_runtime_run_coroutine(rt, fail_with_message, NULL, NULL, &tasks[1]), 0);
    err = heist_gather(tasks, 2, NULL, 0);
    assert_int_equal(err, -EPROTO);
    assert_int_equal(heist_future_cancelled(tasks[0]), 1);
    heist_unref(tasks[0]);
    heist_unref(tasks[1]);
    harness_runtime_end(rt);
}

/* The posting style of asyncio still works: changes made on the loop's own thread by posted callbacks. */
struct posted {
    heist_future *future;
};

static int set_result_posted(void *arg) {
    struct posted *posted = arg;
    return heist_future_set_result(posted->future, &value_nine, NULL);
}

static void posting_the_change_works_as_well_as_making_it_XTH_19(void **state) {
    (void)state;
    struct server server;
    struct posted posted = {NULL};
    void *out = NULL;
    server_start(&server, 0);
    assert_int_equal(heist_loop_create_future(server.loop, &posted.future), 0);
    assert_int_equal(heist_loop_call_soon_threadsafe(server.loop, set_result_posted, &posted, NULL, NULL), 0);
    assert_int_equal(heist_await(posted.future, &out), 0);
    assert_ptr_equal(out, &value_nine);
    heist_unref(posted.future);
    server_end(&server);
}

/* ---- many threads at once ---- */

enum { SUBMITTERS = 10, EACH = 200 };

struct submitter {
    heist_runtime *rt;
    heist_loop *loop;
    int numbers[EACH], wrong;
    _Atomic(int) ran[EACH];
};

struct job {
    struct submitter *submitter;
    int number;
};

static int square(void *arg, void **out) {
    struct job *job = arg;
    int err = job->number % 3 ? 0 : heist_yield();
    if (err < 0) return err;
    job->submitter->ran[job->number]++;
    job->submitter->numbers[job->number] = job->number * job->number;
    *out = &job->submitter->numbers[job->number];
    return 0;
}

static void *submit_many(void *arg) {
    struct submitter *submitter = arg;
    heist_task *tasks[EACH];
    struct job jobs[EACH];
    for (int i = 0; i < EACH; i++) {
        jobs[i] = (struct job){submitter, i};
        int err = submitter->loop
                      ? heist_run_coroutine_threadsafe(submitter->loop, square, &jobs[i], NULL, &tasks[i])
                      : heist_runtime_run_coroutine(submitter->rt, square, &jobs[i], NULL, &tasks[i]);
        if (err < 0) abort();
    }
    for (int i = 0; i < EACH; i++) {
        void *out = NULL;
        if (heist_await(tasks[i], &out) != 0 || out != &submitter->numbers[i] || *(int *)out != i * i ||
            submitter->ran[i] != 1)
            submitter->wrong++;
        heist_unref(tasks[i]);
    }
    return NULL;
}

static void many_threads_submit_and_nothing_is_lost_or_doubled_XTH_20(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    static struct submitter submitters[SUBMITTERS];
    pthread_t threads[SUBMITTERS];
    memset(submitters, 0, sizeof submitters);
    for (int i = 0; i < SUBMITTERS; i++) {
        submitters[i].rt = rt;
        if (i % 2) submitters[i].loop = heist_runtime_loop(rt, i % harness_workers());
        threads[i] = harness_thread(submit_many, &submitters[i]);
    }
    for (int i = 0; i < SUBMITTERS; i++) harness_join(threads[i]);
    harness_runtime_end(rt);
    for (int i = 0; i < SUBMITTERS; i++) assert_int_equal(submitters[i].wrong, 0);
}

struct counting {
    _Atomic(long) ran, freed;
};

static int count_call(void *arg) {
    struct counting *counting = arg;
    counting->ran++;
    return 0;
}

static void count_free(void *arg) {
    struct counting *counting = arg;
    counting->freed++;
}

struct caller {
    heist_runtime *rt;
    struct counting *counting;
    int accepted;
};

static void *call_many(void *arg) {
    struct caller *caller = arg;
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    int workers = heist_runtime_workers(caller->rt);
    opts.arg_free = count_free;
    for (int i = 0; i < 1000; i++) {
        heist_loop *loop = heist_runtime_loop(caller->rt, i % workers);
        int err = i % 2 ? heist_runtime_call_soon(caller->rt, count_call, caller->counting, &opts, NULL)
                        : heist_loop_call_soon_threadsafe(loop, count_call, caller->counting, &opts, NULL);
        if (err == 0) caller->accepted++;
    }
    return NULL;
}

static int reach_zero(void *arg, void **out) {
    struct counting *counting = arg;
    (void)out;
    while (counting->freed < 8000) {
        int err = heist_sleep(0.0005);
        if (err < 0) return err;
    }
    return 0;
}

static void many_threads_post_callbacks_and_each_runs_once_XTH_20(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    struct counting counting = {0, 0};
    struct caller callers[8];
    pthread_t threads[8];
    heist_task *task = NULL;
    for (int i = 0; i < 8; i++) {
        callers[i] = (struct caller){rt, &counting, 0};
        threads[i] = harness_thread(call_many, &callers[i]);
    }
    for (int i = 0; i < 8; i++) harness_join(threads[i]);
    for (int i = 0; i < 8; i++) assert_int_equal(callers[i].accepted, 1000);
    assert_int_equal(heist_runtime_run_coroutine(rt, reach_zero, &counting, NULL, &task), 0);
    int err = heist_await(task, NULL);
    heist_unref(task);
    harness_runtime_end(rt);
    assert_int_equal(err, 0);
    assert_int_equal(counting.ran, 8000);
    assert_int_equal(counting.freed, 8000);
}

/* A ping-pong between a plain thread and a task over futures, both asleep in between: no wake-up is lost. */
struct rally {
    heist_future *there[100], *back[100];
};

static int answer(void *arg, void **out) {
    struct rally *rally = arg;
    (void)out;
    for (int i = 0; i < 100; i++) {
        int err = heist_await(rally->there[i], NULL);
        if (err < 0) return err;
        err = heist_future_set_result(rally->back[i], NULL, NULL);
        if (err < 0) return err;
    }
    return 0;
}

static void thread_and_task_answer_each_other_XTH_05_XTH_19(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    static struct rally rally;
    heist_task *task = NULL;
    int err = 0;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(heist_future_new(NULL, &rally.there[i]), 0);
        assert_int_equal(heist_future_new(NULL, &rally.back[i]), 0);
    }
    assert_int_equal(heist_runtime_run_coroutine(rt, answer, &rally, NULL, &task), 0);
    for (int i = 0; i < 100 && err == 0; i++) {
        err = heist_future_set_result(rally.there[i], NULL, NULL);
        if (err == 0) err = heist_await(rally.back[i], NULL);
    }
    int ended = heist_await(task, NULL);
    for (int i = 0; i < 100; i++) {
        heist_unref(rally.there[i]);
        heist_unref(rally.back[i]);
    }
    heist_unref(task);
    harness_runtime_end(rt);
    assert_int_equal(err, 0);
    assert_int_equal(ended, 0);
}

/* ---- runtimes among each other ---- */

static int await_and_pass_on(void *arg, void **out) {
    void *value = NULL;
    int err = heist_await(arg, &value);
    if (err == 0) *out = value;
    return err;
}

static void task_awaits_a_task_of_another_runtime_XTH_10(void **state) {
    (void)state;
    heist_runtime *one = harness_runtime(0), *two = harness_runtime(0);
    heist_future *future = NULL;
    heist_task *near = NULL, *far = NULL;
    void *out = NULL;
    assert_int_equal(heist_future_new(NULL, &future), 0);
    assert_int_equal(heist_runtime_run_coroutine(one, await_and_pass_on, future, NULL, &near), 0);
    assert_int_equal(heist_runtime_run_coroutine(two, await_and_pass_on, near, NULL, &far), 0);
    assert_int_equal(heist_future_set_result(future, &value_nine, NULL), 0);
    int err = heist_await(far, &out);
    heist_unref(near);
    heist_unref(far);
    heist_unref(future);
    harness_runtime_end(one);
    harness_runtime_end(two);
    assert_int_equal(err, 0);
    assert_ptr_equal(out, &value_nine);
}

static const struct CMUnitTest tests[] = {
    API_TEST(submitting_does_not_wait_for_the_work_XTH_01),
    API_TEST(two_sleepers_take_the_longer_time_XTH_02),
    API_TEST(any_thread_may_wait_for_the_future_XTH_03_XTH_05),
    API_TEST(only_coroutines_are_accepted_and_nothing_is_posted_XTH_04),
    API_TEST(deadline_of_a_plain_thread_leaves_the_coroutine_running_XTH_06),
    API_TEST(waiting_in_a_callback_is_refused_at_once_XTH_07),
    API_TEST(closed_loop_gives_the_coroutine_back_XTH_09),
    API_TEST(threads_outcome_reaches_the_waiting_task_XTH_10_XTH_19),
    API_TEST(states_seen_from_outside_XTH_13),
    API_TEST(pending_work_can_be_cancelled_from_a_thread_finished_work_cannot_XTH_14_XTH_15),
    API_TEST(callbacks_of_a_future_of_no_loop_run_in_the_completing_thread_XTH_16),
    API_TEST(a_plain_thread_may_gather_XTH_18),
    API_TEST(posting_the_change_works_as_well_as_making_it_XTH_19),
    API_TEST(many_threads_submit_and_nothing_is_lost_or_doubled_XTH_20),
    API_TEST(many_threads_post_callbacks_and_each_runs_once_XTH_20),
    API_TEST(thread_and_task_answer_each_other_XTH_05_XTH_19),
    API_TEST(task_awaits_a_task_of_another_runtime_XTH_10),
};

int main(void) {
    return HARNESS_MAIN("threads", tests);
}
