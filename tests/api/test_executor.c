/* Executors: jobs on pool threads, the default one of a runtime, and blocking sections.
 *
 * Jobs record or block on gates; nothing here compares the machine's clock.  Where a test
 * waits for a state of the pool it asks for it again and again, for half a minute at most. */
#include "support/harness.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static _Atomic(int) frees, results_freed, ran;

static void count_free(void *arg) {
    (void)arg;
    frees++;
}
static void count_result(void *result) {
    (void)result;
    results_freed++;
}

static heist_executor *pool(int threads) {
    heist_executor_options opts = HEIST_EXECUTOR_OPTIONS_INIT;
    heist_executor *e = NULL;
    opts.max_threads = threads;
    frees = results_freed = ran = 0;
    assert_int_equal(heist_executor_new(&opts, &e), 0);
    assert_non_null(e);
    return e;
}

static void pool_end(heist_executor *e) {
    assert_int_equal(heist_executor_shutdown(e, 0), 0);
    heist_executor_unref(e);
}

static heist_executor_stats stats(heist_executor *e) {
    heist_executor_stats s = HEIST_EXECUTOR_STATS_INIT;
    if (heist_executor_get_stats(e, &s)) abort();
    return s;
}

/* Until the pool is so; aborts with a message after half a minute. */
static void pool_becomes(heist_executor *e, int threads, int idle, int queued, int running) {
    struct timespec moment = {0, 200000};
    heist_executor_stats s = stats(e);
    for (int i = 0; i < 150000; i++, s = stats(e)) {
        if ((threads < 0 || s.threads == threads) && (idle < 0 || s.idle == idle) &&
            (queued < 0 || s.queued == (uint64_t)queued) && (running < 0 || s.running == (uint64_t)running))
            return;
        nanosleep(&moment, NULL);
    }
    fprintf(stderr, "the pool has %d threads, %d idle, %d queued, %d running\n", s.threads, s.idle, (int)s.queued,
            (int)s.running);
    abort();
}

/* ---- jobs ---- */

static int give_back(void *arg, void **out) {
    ran++;
    *out = arg;
    return 0;
}

static int wait_gate(void *arg, void **out) {
    ran++;
    gate_wait(arg);
    *out = arg;
    return 0;
}

static int fails(void *arg, void **out) {
    *out = arg; /* of a failed job: nobody's */
    return heist_fail(-EPROTO, "bad header %d", 7);
}

static heist_future *submit(heist_executor *e, heist_coro_fn fn, void *arg) {
    heist_job_options opts = HEIST_JOB_OPTIONS_INIT;
    heist_future *f = NULL;
    opts.arg_free = count_free;
    opts.result_free = count_result;
    assert_int_equal(heist_executor_submit(e, fn, arg, &opts, &f), 0);
    assert_non_null(f);
    return f;
}

static void *awaited(heist_future *f) {
    void *out = NULL;
    assert_int_equal(heist_await(f, &out), 0);
    heist_unref(f);
    return out;
}

/* ---- the pool ---- */

static int thread_name(void *arg, void **out) {
    (void)out;
    char *name = arg;
    if (heist_current_task() || heist_get_running_loop(&(heist_loop *){NULL}) != HEIST_ENOLOOP) return -EPROTO;
    return -pthread_getname_np(pthread_self(), name, 16);
}

static int run_names(void *arg, void **out) {
    char *names = arg;
    (void)out;
    heist_executor_options opts = HEIST_EXECUTOR_OPTIONS_INIT;
    opts.name = "readers of files";
    heist_executor *e;
    heist_future *f;
    int err = heist_loop_run_in_executor(NULL, NULL, thread_name, names, NULL, &f);
    if (err) return err;
    heist_loop *loop;
    if (heist_get_running_loop(&loop) || heist_future_loop(f) == NULL) return -EPROTO;
    err = heist_await(f, NULL);
    heist_unref(f);
    if (!err) err = heist_executor_new(&opts, &e);
    if (err) return err;
    err = heist_loop_run_in_executor(NULL, e, thread_name, names + 16, NULL, &f);
    if (err) return err;
    err = heist_await(f, NULL);
    heist_unref(f);
    if (!err) err = heist_executor_shutdown(e, 0);
    heist_executor_unref(e);
    return err;
}

static void job_runs_on_a_pool_thread_and_its_result_is_the_futures_EXEC_01(void **state) {
    (void)state;
    char names[32] = "";
    assert_int_equal(harness_run(run_names, names, NULL), 0);
    assert_string_equal(names, "heist-0");
    assert_string_equal(names + 16, "readers o-0");
    heist_executor *e = pool(2);
    int x = 0;
    heist_future *f = submit(e, give_back, &x);
    assert_ptr_equal(awaited(f), &x); /* from a plain thread */
    assert_int_equal(frees, 1);
    pool_end(e);
    assert_int_equal(results_freed, 1); /* with the last reference */
}

static int use_default(void *arg, void **out) {
    (void)out;
    heist_executor **e = arg;
    heist_future *f;
    char name[16] = "", again[16] = "";
    heist_loop *loop;
    int err = heist_get_running_loop(&loop);
    if (!err) err = heist_to_thread(thread_name, name, NULL);
    if (!err) err = heist_loop_run_in_executor(loop, NULL, thread_name, again, NULL, &f);
    if (err) return err;
    err = heist_await(f, NULL);
    heist_unref(f);
    if (err || strncmp(name, again, 6)) return -EPROTO; /* "heist-": one pool */
    if (heist_loop_set_default_executor(loop, NULL) != -EINVAL) return -EPROTO;
    err = heist_loop_set_default_executor(NULL, e[0]);
    if (!err) err = heist_to_thread(give_back, NULL, NULL);
    if (!err && stats(e[0]).done != 1) err = -EPROTO;
    if (!err) err = heist_loop_set_default_executor(loop, e[1]);
    if (!err) err = heist_to_thread(give_back, NULL, NULL);
    return !err && stats(e[1]).done != 1 ? -EPROTO : err;
}

static void default_pool_is_made_on_first_use_and_replaced_EXEC_02(void **state) {
    (void)state;
    heist_executor *e[2] = {pool(1), pool(1)};
    assert_int_equal(harness_run(use_default, e, NULL), 0);
    assert_int_equal(heist_executor_submit(e[0], give_back, NULL, NULL, NULL), 0); /* replaced, not shut down */
    assert_int_equal(heist_executor_submit(e[1], give_back, NULL, NULL, NULL), HEIST_EEXECSHUTDOWN);
    pool_end(e[0]);
    heist_executor_unref(e[1]);
}

static int record_job(void *arg, void **out) {
    (void)out;
    mark_word(arg);
    return 0;
}

struct meeting {
    pthread_mutex_t lock;
    pthread_cond_t all;
    int here, goal;
};

static int meet(void *arg, void **out) {
    struct meeting *m = arg;
    (void)out;
    pthread_mutex_lock(&m->lock);
    if (++m->here == m->goal) pthread_cond_broadcast(&m->all);
    while (m->here < m->goal) pthread_cond_wait(&m->all, &m->lock);
    pthread_mutex_unlock(&m->lock);
    return 0;
}

static void one_thread_runs_in_order_more_run_side_by_side_EXEC_03(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    struct mark marks[20];
    char words[20][12], sentence[80] = "";
    heist_future *f[20];
    heist_executor *e = pool(1);
    for (int i = 0; i < 20; i++) {
        snprintf(words[i], sizeof(words[i]), "%d", i);
        if (i) strcat(sentence, " ");
        strcat(sentence, words[i]);
        marks[i] = (struct mark){&record, words[i], NULL};
        f[i] = submit(e, record_job, &marks[i]);
    }
    assert_int_equal(heist_gather(f, 20, NULL, 0), 0);
    assert_string_equal(record_text(&record), sentence);
    for (int i = 0; i < 20; i++) heist_unref(f[i]);
    assert_int_equal(stats(e).threads, 1);
    assert_int_equal(stats(e).done, 20);
    assert_true(stats(e).longest_wait >= 0);
    pool_end(e);

    struct meeting m = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 4}; /* they meet, or never end */
    e = pool(4);
    for (int i = 0; i < 4; i++) f[i] = submit(e, meet, &m);
    for (int i = 0; i < 4; i++) awaited(f[i]);
    assert_int_equal(stats(e).threads, 4);
    pool_end(e);
    assert_int_equal(frees, 4);
}

static void failure_of_a_job_is_the_futures_EXEC_04(void **state) {
    (void)state;
    heist_executor *e = pool(1);
    int x;
    heist_future *f = submit(e, fails, &x);
    void *out = &x;
    assert_int_equal(heist_await(f, &out), -EPROTO);
    assert_ptr_equal(out, &x);
    heist_exception ex = HEIST_EXCEPTION_INIT;
    assert_int_equal(heist_future_exception(f, &ex), 0);
    assert_int_equal(ex.code, -EPROTO);
    assert_string_equal(ex.message, "bad header 7");
    assert_non_null(strstr(ex.file, "test_executor.c"));
    heist_unref(f);
    assert_int_equal(results_freed, 1); /* before the future was done */
    f = submit(e, give_back, NULL); /* a record of an earlier job is no later one's */
    assert_int_equal(heist_await(f, NULL), 0);
    heist_unref(f);
    pool_end(e);
}

struct ticking {
    struct gate gate;
    int ticks, wanted;
};

static int tick(void *arg, void **out) {
    struct ticking *t = arg;
    (void)out;
    for (int err; t->ticks < t->wanted; t->ticks++)
        if ((err = heist_sleep(0.0005))) return err;
    gate_open(&t->gate); /* the job waits for this */
    return 0;
}

static int job_and_ticker(void *arg, void **out) {
    struct ticking *t = arg;
    heist_future *both[2];
    (void)out;
    int err = heist_loop_run_in_executor(NULL, NULL, wait_gate, &t->gate, NULL, &both[0]);
    if (!err) err = heist_create_task(tick, t, NULL, &both[1]);
    if (!err) err = heist_gather(both, 2, NULL, 0);
    for (int i = 0; i < 2; i++) heist_unref(both[i]);
    return err;
}

static void loop_goes_on_while_jobs_run_EXEC_05(void **state) {
    (void)state;
    struct ticking t = {GATE_INIT, 0, 20};
    heist_loop *loop = harness_real_loop();
    assert_int_equal(heist_loop_run_coroutine(loop, job_and_ticker, &t, NULL, NULL), 0);
    assert_int_equal(t.ticks, 20);
    harness_loop_end(loop);
    heist_runtime *rt = harness_runtime(0);
    heist_task *task;
    t = (struct ticking){GATE_INIT, 0, 20};
    assert_int_equal(heist_runtime_run_coroutine(rt, job_and_ticker, &t, NULL, &task), 0);
    assert_int_equal(heist_await(task, NULL), 0);
    heist_unref(task);
    harness_runtime_end(rt);
}

static int await_it(void *arg, void **out) { return heist_await(arg, out); }

static void cancelling_removes_a_job_that_has_not_begun_EXEC_06(void **state) {
    (void)state;
    struct gate gate = GATE_INIT;
    heist_executor *e = pool(1);
    heist_future *running = submit(e, wait_gate, &gate), *waiting = submit(e, give_back, &gate);
    pool_becomes(e, 1, 0, 1, 1);
    assert_int_equal(heist_cancel(waiting), 1);
    assert_int_equal(frees, 1);
    assert_int_equal(stats(e).queued, 0);
    assert_int_equal(stats(e).cancelled, 1);
    assert_int_equal(heist_await(waiting, NULL), -ECANCELED);
    heist_unref(waiting);

    /* A task that awaits it hands its own request on. */
    heist_loop *loop = harness_real_loop();
    waiting = submit(e, give_back, &gate);
    heist_task *task;
    assert_int_equal(heist_loop_create_task(loop, await_it, waiting, NULL, &task), 0);
    harness_one_pass(loop);
    assert_int_equal(heist_cancel(task), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), -ECANCELED);
    assert_int_equal(frees, 2);
    heist_unref(task);
    heist_unref(waiting);

    /* One that runs goes on; its future is cancelled, its result nobody's. */
    assert_int_equal(heist_cancel(running), 1);
    assert_int_equal(heist_await(running, NULL), -ECANCELED);
    assert_int_equal(stats(e).running, 1);
    assert_int_equal(frees, 2);
    gate_open(&gate);
    heist_unref(running);
    harness_loop_end(loop);
    pool_end(e);
    assert_int_equal(frees, 3);
    assert_int_equal(results_freed, 1);
    assert_int_equal(ran, 1);
}

static void threads_are_reused_and_never_too_many_EXEC_07(void **state) {
    (void)state;
    struct gate gate = GATE_INIT;
    heist_future *f[60];
    heist_executor *e = pool(3);
    assert_int_equal(stats(e).threads, 0); /* made when jobs come */
    for (int i = 0; i < 10; i++) {
        awaited(submit(e, give_back, NULL));
        pool_becomes(e, 1, 1, 0, 0);
    }
    for (int i = 0; i < 60; i++) f[i] = submit(e, wait_gate, &gate);
    pool_becomes(e, 3, 0, 57, 3);
    gate_open(&gate);
    for (int i = 0; i < 60; i++) awaited(f[i]);
    pool_becomes(e, 3, 3, 0, 0);
    assert_int_equal(stats(e).done, 70);
    pool_end(e);

    heist_executor_options opts = HEIST_EXECUTOR_OPTIONS_INIT;
    gate = (struct gate)GATE_INIT;
    assert_int_equal(heist_executor_new(&opts, &e), 0);
    for (int i = 0; i < 60; i++) f[i] = submit(e, wait_gate, &gate);
    assert_true(stats(e).threads >= 5 && stats(e).threads <= 32); /* processors + 4, at most 32 */
    gate_open(&gate);
    for (int i = 0; i < 60; i++) awaited(f[i]);
    pool_end(e);
}

static void idle_thread_ends_after_its_time(void **state) {
    (void)state;
    heist_executor_options opts = HEIST_EXECUTOR_OPTIONS_INIT;
    heist_executor *e;
    opts.idle_seconds = 0.001;
    opts.max_threads = 2;
    assert_int_equal(heist_executor_new(&opts, &e), 0);
    for (int i = 0; i < 5; i++) {
        awaited(submit(e, give_back, NULL));
        awaited(submit(e, give_back, NULL));
        pool_becomes(e, 0, 0, 0, 0);
    }
    for (int i = 0; i < 200; i++) awaited(submit(e, give_back, NULL)); /* while they come and go */
    pool_end(e);
}

static void jobs_are_refused_after_shutdown_EXEC_08(void **state) {
    (void)state;
    heist_executor *e = pool(2);
    heist_future *f = NULL;
    heist_executor_map *m = NULL;
    void *one[1] = {NULL};
    assert_int_equal(heist_executor_shutdown(e, 0), 0); /* of one that never had a thread */
    assert_int_equal(heist_executor_submit(e, give_back, NULL, NULL, &f), HEIST_EEXECSHUTDOWN);
    assert_int_equal(heist_executor_map_new(e, give_back, one, 1, NULL, HEIST_FOREVER, &m), HEIST_EEXECSHUTDOWN);
    assert_null(f);
    assert_null(m);
    assert_int_equal(heist_executor_shutdown(e, HEIST_EXECUTOR_NO_WAIT), 0);
    pool_end(e);
}

static void *open_soon(void *gate) {
    struct timespec moment = {0, 2000000};
    nanosleep(&moment, NULL);
    gate_open(gate);
    return NULL;
}

static void shutdown_waits_for_all_or_cancels_what_waits_EXEC_09(void **state) {
    (void)state;
    struct gate gate = GATE_INIT;
    heist_future *f[8];
    heist_executor *e = pool(2);
    for (int i = 0; i < 8; i++) f[i] = submit(e, wait_gate, &gate);
    pool_becomes(e, 2, 0, 6, 2);
    assert_int_equal(heist_executor_shutdown_until(e, 0, heist_time() + 0.01), -ETIMEDOUT);
    pthread_t opener = harness_thread(open_soon, &gate);
    assert_int_equal(heist_executor_shutdown(e, 0), 0);
    assert_int_equal(stats(e).threads, 0);
    for (int i = 0; i < 8; i++) assert_int_equal(heist_future_done(f[i]), 1);
    harness_join(opener);
    for (int i = 0; i < 8; i++) awaited(f[i]);
    heist_executor_unref(e);
    assert_int_equal(ran, 8);

    gate = (struct gate)GATE_INIT;
    e = pool(2);
    for (int i = 0; i < 8; i++) f[i] = submit(e, wait_gate, &gate);
    pool_becomes(e, 2, 0, 6, 2);
    assert_int_equal(heist_executor_shutdown(e, HEIST_EXECUTOR_NO_WAIT | HEIST_EXECUTOR_CANCEL_QUEUED), 0);
    assert_int_equal(frees, 6);
    for (int i = 2; i < 8; i++) assert_int_equal(heist_await(f[i], NULL), -ECANCELED);
    gate_open(&gate);
    pool_end(e);
    for (int i = 0; i < 2; i++) assert_int_equal(heist_await(f[i], NULL), 0);
    for (int i = 0; i < 8; i++) heist_unref(f[i]);
    assert_int_equal(frees, 8);
    assert_int_equal(ran, 2);
}

static void dropped_pool_runs_what_it_has(void **state) {
    (void)state;
    struct gate gate = GATE_INIT;
    heist_executor *e = pool(1);
    heist_future *f[3];
    for (int i = 0; i < 3; i++) f[i] = submit(e, wait_gate, &gate);
    heist_executor_unref(e);
    gate_open(&gate);
    for (int i = 0; i < 3; i++) awaited(f[i]);
    assert_int_equal(frees, 3);
}

struct starts {
    int fail_from, begun, ended;
    struct gate gate;
    pthread_mutex_t lock;
};

static int start_thread(void *user) {
    struct starts *s = user;
    gate_wait(&s->gate);
    pthread_mutex_lock(&s->lock);
    int n = s->begun++;
    pthread_mutex_unlock(&s->lock);
    return n >= s->fail_from ? -ENODEV : 0;
}
static void end_thread(void *user) {
    struct starts *s = user;
    pthread_mutex_lock(&s->lock);
    s->ended++;
    pthread_mutex_unlock(&s->lock);
}

static heist_executor *starting(struct starts *s, int threads) {
    heist_executor_options opts = HEIST_EXECUTOR_OPTIONS_INIT;
    heist_executor *e = NULL;
    opts.max_threads = threads;
    opts.initializer = start_thread;
    opts.finalizer = end_thread;
    opts.user = s;
    frees = results_freed = ran = 0;
    assert_int_equal(heist_executor_new(&opts, &e), 0);
    return e;
}

static void failing_initializer_breaks_the_pool_EXEC_10(void **state) {
    (void)state;
    struct starts s = {0, 0, 0, GATE_INIT, PTHREAD_MUTEX_INITIALIZER};
    heist_executor *e = starting(&s, 1);
    heist_future *f[3], *none = NULL;
    for (int i = 0; i < 3; i++) f[i] = submit(e, give_back, NULL);
    gate_open(&s.gate);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(heist_await(f[i], NULL), HEIST_EBROKENPOOL);
        heist_exception ex = HEIST_EXCEPTION_INIT;
        assert_int_equal(heist_future_exception(f[i], &ex), 0);
        assert_non_null(strstr(ex.message, "initializer"));
        heist_unref(f[i]);
    }
    assert_int_equal(frees, 3);
    assert_int_equal(heist_executor_submit(e, give_back, NULL, NULL, &none), HEIST_EBROKENPOOL);
    assert_null(none);
    pool_end(e);
    assert_int_equal(ran, 0);
    assert_int_equal(s.ended, 0);
}

static void initializer_and_finalizer_run_on_each_thread(void **state) {
    (void)state;
    struct starts s = {100, 0, 0, GATE_INIT, PTHREAD_MUTEX_INITIALIZER};
    struct meeting m = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 3};
    heist_executor *e = starting(&s, 3);
    heist_future *f[3];
    gate_open(&s.gate);
    for (int i = 0; i < 3; i++) f[i] = submit(e, meet, &m);
    for (int i = 0; i < 3; i++) awaited(f[i]);
    pool_end(e);
    assert_int_equal(s.begun, 3);
    assert_int_equal(s.ended, 3);
}

static int even_fails(void *arg, void **out) {
    ran++;
    int n = *(int *)arg;
    *out = arg;
    return n % 2 ? -EPROTO : 0;
}

static void map_gives_results_in_input_order_EXEC_11(void **state) {
    (void)state;
    struct gate gate = GATE_INIT;
    heist_executor *e = pool(3);
    heist_executor_map *m = NULL;
    heist_job_options opts = HEIST_JOB_OPTIONS_INIT;
    int numbers[6] = {0, 1, 2, 3, 4, 5};
    void *args[6], *out = NULL;
    for (int i = 0; i < 6; i++) args[i] = &numbers[i];
    opts.arg_free = count_free;
    opts.result_free = count_result;
    assert_int_equal(heist_executor_map_new(e, even_fails, args, 6, &opts, HEIST_FOREVER, &m), 0);
    for (int i = 0; i < 6; i++) {
        out = NULL;
        assert_int_equal(heist_executor_map_next(m, &out), i % 2 ? -EPROTO : 1);
        assert_ptr_equal(out, i % 2 ? NULL : &numbers[i]);
    }
    assert_int_equal(heist_executor_map_next(m, &out), 0);
    heist_executor_map_free(m);
    assert_int_equal(frees, 6);
    assert_int_equal(results_freed, 3); /* of those that failed; the others were delivered */

    for (int i = 0; i < 6; i++) args[i] = &gate;
    assert_int_equal(heist_executor_map_new(e, wait_gate, args, 6, &opts, heist_time() + 0.005, &m), 0);
    pool_becomes(e, 3, 0, 3, 3);
    assert_int_equal(heist_executor_map_next(m, &out), -ETIMEDOUT);
    heist_executor_map_free(m); /* the queued are cancelled, the others lose their results */
    assert_int_equal(stats(e).queued, 0);
    assert_int_equal(frees, 9);
    gate_open(&gate);
    assert_int_equal(heist_executor_map_new(e, even_fails, NULL, 0, NULL, HEIST_FOREVER, &m), 0);
    assert_int_equal(heist_executor_map_next(m, &out), 0);
    heist_executor_map_free(m);
    pool_end(e);
    assert_int_equal(frees, 12);
    assert_int_equal(results_freed, 6);
}

struct mapping {
    heist_executor_map *map;
    int err;
    void *out;
};

static int next_of(void *arg, void **out) {
    struct mapping *m = arg;
    (void)out;
    m->err = heist_executor_map_next(m->map, &m->out);
    return m->err < 0 ? m->err : 0;
}

static void cancelled_next_takes_nothing(void **state) {
    (void)state;
    struct gate gate = GATE_INIT;
    heist_executor *e = pool(1);
    void *args[2] = {&gate, &gate};
    struct mapping m = {NULL, 1, NULL};
    heist_loop *loop = harness_real_loop();
    assert_int_equal(heist_executor_map_new(e, wait_gate, args, 2, NULL, HEIST_FOREVER, &m.map), 0);
    heist_task *task;
    assert_int_equal(heist_loop_create_task(loop, next_of, &m, NULL, &task), 0);
    harness_one_pass(loop);
    assert_int_equal(heist_cancel(task), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), -ECANCELED);
    assert_int_equal(m.err, -ECANCELED);
    heist_unref(task);
    gate_open(&gate);
    for (int i = 0; i < 2; i++) assert_int_equal(heist_executor_map_next(m.map, &m.out), 1);
    assert_ptr_equal(m.out, &gate);
    heist_executor_map_free(m.map);
    harness_loop_end(loop);
    pool_end(e);
}

static void queue_has_its_limit(void **state) {
    (void)state;
    struct gate gate = GATE_INIT;
    heist_executor_options opts = HEIST_EXECUTOR_OPTIONS_INIT;
    heist_executor *e;
    heist_executor_map *m = NULL;
    opts.max_threads = 1;
    opts.max_queue = 2;
    frees = ran = 0;
    assert_int_equal(heist_executor_new(&opts, &e), 0);
    void *args[3] = {&gate, &gate, &gate};
    heist_future *f[3] = {submit(e, wait_gate, &gate), NULL, NULL}, *none = NULL;
    pool_becomes(e, 1, 0, 0, 1);
    assert_int_equal(heist_executor_map_new(e, wait_gate, args, 3, NULL, HEIST_FOREVER, &m), -EAGAIN);
    assert_null(m);
    for (int i = 1; i < 3; i++) f[i] = submit(e, wait_gate, &gate);
    assert_int_equal(heist_executor_submit(e, wait_gate, &gate, NULL, &none), -EAGAIN);
    assert_null(none);
    gate_open(&gate);
    for (int i = 0; i < 3; i++) awaited(f[i]);
    pool_end(e);
    assert_int_equal(frees, 3);
    assert_int_equal(ran, 3);
}

/* ---- the default one ---- */

struct ending {
    heist_loop *loop;
    struct gate gate;
    struct record record;
    int codes[8];
    pthread_t opener;
};

static int next_step(void *arg, void **out) {
    struct ending *s = arg;
    (void)out;
    record_add(&s->record, "tick");
    gate_open(&s->gate); /* the loop goes on while the pool is waited for */
    return 0;
}

static int end_pool(void *arg, void **out) {
    struct ending *s = arg;
    heist_future *f;
    (void)out;
    int err = heist_loop_run_in_executor(NULL, NULL, wait_gate, &s->gate, NULL, &f);
    if (!err) err = heist_create_task(next_step, s, NULL, NULL);
    if (err) return err;
    s->codes[0] = heist_loop_shutdown_default_executor(NULL, 60);
    s->codes[1] = heist_future_done(f);
    s->codes[2] = heist_to_thread(give_back, NULL, NULL);
    s->codes[3] = heist_loop_run_in_executor(NULL, NULL, give_back, NULL, NULL, NULL);
    s->codes[4] = heist_loop_shutdown_default_executor(NULL, 60);
    heist_unref(f);
    return 0;
}

static int end_pool_late(void *arg, void **out) {
    struct ending *s = arg;
    heist_future *f;
    (void)out;
    int err = heist_loop_run_in_executor(NULL, NULL, wait_gate, &s->gate, NULL, &f);
    if (err) return err;
    s->codes[0] = heist_loop_shutdown_default_executor(NULL, 0.005);
    gate_open(&s->gate);
    err = heist_await(f, NULL); /* the job has left the gate, which goes with the test */
    heist_unref(f);
    return err;
}

static void shutting_the_default_pool_down_waits_beside_the_loop_EXEC_13(void **state) {
    (void)state;
    struct ending s = {.gate = GATE_INIT, .record = RECORD_INIT};
    heist_loop *loop = harness_real_loop();
    assert_int_equal(heist_loop_run_coroutine(loop, end_pool, &s, NULL, NULL), 0);
    assert_string_equal(record_text(&s.record), "tick");
    assert_int_equal(s.codes[0], 0);
    assert_int_equal(s.codes[1], 1);
    assert_int_equal(s.codes[2], HEIST_EEXECSHUTDOWN);
    assert_int_equal(s.codes[3], HEIST_EEXECSHUTDOWN);
    assert_int_equal(s.codes[4], 0);
    harness_loop_end(loop);

    /* In time, or the exception handler hears of it. */
    struct ending late = {.gate = GATE_INIT, .record = RECORD_INIT};
    loop = NULL;
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.exception_handler = record_report;
    opts.exception_user = &late.record;
    assert_int_equal(heist_loop_new(&opts, &loop), 0);
    assert_int_equal(heist_loop_run_coroutine(loop, end_pool_late, &late, NULL, NULL), 0);
    assert_int_equal(late.codes[0], -ETIMEDOUT);
    assert_int_equal(record_words(&late.record), 1);
    assert_int_equal(heist_loop_close(loop), 0);
    heist_loop_unref(loop);
}

struct moving {
    struct gate gate;
    int code, next, asked;
    void *out;
};

static int move_one(void *arg, void **out) {
    struct moving *m = arg;
    (void)out;
    m->code = heist_to_thread(wait_gate, &m->gate, &m->out);
    m->next = heist_sleep(0);
    return m->next;
}

static int two_results(void *arg, void **out) {
    (void)out;
    int x = 0, n = ran;
    void *result = NULL;
    int err = heist_to_thread(give_back, &x, &result);
    if (err || result != &x || ran != n + 1) return -EPROTO;
    err = heist_to_thread(fails, &x, &result);
    return err == -EPROTO && result == &x ? 0 : arg ? -EPROTO : -EIO;
}

static void to_thread_runs_once_and_gives_the_result_EXEC_14(void **state) {
    (void)state;
    assert_int_equal(harness_run(two_results, NULL, NULL), 0);
    heist_loop *loop = harness_loop();
    assert_int_equal(heist_loop_run_coroutine(loop, two_results, NULL, NULL, NULL), 0);
    harness_loop_end(loop);
    assert_int_equal(heist_to_thread(give_back, NULL, NULL), HEIST_ENOLOOP); /* a plain thread has no runtime */
}

static heist_context_var *var;

static int read_and_set(void *arg, void **out) {
    (void)arg;
    int err = heist_context_get(var, out);
    return err ? err : heist_context_set(var, NULL, NULL, NULL);
}

static int two_contexts(void *arg, void **out) {
    int one = 1;
    void *got = NULL;
    (void)out;
    int err = heist_context_set(var, &one, NULL, NULL);
    if (!err) err = heist_to_thread(read_and_set, NULL, &got);
    if (err || got != &one || heist_context_get(var, &got) || got != &one) return -EPROTO; /* a copy of it */
    heist_future *f;
    err = heist_loop_run_in_executor(NULL, NULL, read_and_set, NULL, NULL, &f);
    if (err) return err;
    err = heist_await(f, NULL);
    heist_unref(f);
    if (err != HEIST_ENOTSET) return -EPROTO;
    if (heist_blocking_begin()) return -EPROTO; /* the task's own, in a section too */
    err = heist_context_get(var, &got);
    if (heist_blocking_end()) return -EPROTO;
    return err || got != &one ? -EPROTO : arg ? -EIO : 0;
}

static void to_thread_carries_the_context_run_in_executor_does_not_CTX_06(void **state) {
    (void)state;
    assert_int_equal(heist_context_var_new("v", NULL, &var), 0);
    assert_int_equal(harness_run(two_contexts, NULL, NULL), 0);
    heist_context_var_unref(var);
}

static void cancelled_to_thread_waits_for_what_runs(void **state) {
    (void)state;
    struct moving a = {GATE_INIT, 1, 1, 0, NULL}, b = {GATE_INIT, 1, 1, 0, NULL};
    heist_loop *loop = harness_real_loop();
    heist_executor *e = pool(1);
    heist_task *t[2];
    assert_int_equal(heist_loop_set_default_executor(loop, e), 0);
    assert_int_equal(heist_loop_create_task(loop, move_one, &a, NULL, &t[0]), 0);
    assert_int_equal(heist_loop_create_task(loop, move_one, &b, NULL, &t[1]), 0);
    harness_one_pass(loop);
    pool_becomes(e, 1, 0, 1, 1);
    for (int i = 0; i < 2; i++) assert_int_equal(heist_cancel(t[i]), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, t[1], NULL), 0); /* it had not begun */
    assert_int_equal(b.code, -ECANCELED);
    assert_null(b.out);
    assert_int_equal(b.next, 0); /* the request was delivered */
    assert_int_equal(heist_future_done(t[0]), 0);
    assert_int_equal(heist_cancel(t[0]), 1); /* twice changes nothing */
    harness_one_pass(loop);
    gate_open(&a.gate);
    assert_int_equal(heist_loop_run_until_complete(loop, t[0], NULL), -ECANCELED);
    assert_int_equal(a.code, 0);
    assert_ptr_equal(a.out, &a.gate);
    assert_int_equal(a.next, -ECANCELED); /* delivered by the next call */
    assert_int_equal(ran, 1);
    for (int i = 0; i < 2; i++) heist_unref(t[i]);
    harness_loop_end(loop);
    pool_end(e);
}

static void told(heist_future *f, void *user) {
    (void)f;
    (void)user;
    abort(); /* its loop is closed */
}

static void close_does_not_wait_for_the_default_pool_LOOP_22(void **state) {
    (void)state;
    struct gate gate = GATE_INIT;
    heist_loop *loop = harness_real_loop();
    heist_job_options opts = HEIST_JOB_OPTIONS_INIT;
    opts.arg_free = count_free;
    frees = ran = 0;
    heist_future *f;
    assert_int_equal(heist_loop_run_in_executor(loop, NULL, wait_gate, &gate, &opts, &f), 0);
    assert_int_equal(heist_future_add_done_callback(f, told, NULL, count_free), 0);
    assert_int_equal(heist_loop_close(loop), 0);
    assert_int_equal(heist_loop_run_in_executor(loop, NULL, give_back, NULL, NULL, NULL), HEIST_ECLOSED);
    heist_loop_unref(loop);
    assert_int_equal(heist_future_done(f), 0);
    gate_open(&gate);
    assert_int_equal(heist_await(f, NULL), 0);
    heist_unref(f);
    for (int i = 0; i < 30000 && frees < 2; i++) heist_sleep(0.001); /* the dropped callback's */
    assert_int_equal(frees, 2);

    gate = (struct gate)GATE_INIT; /* and a runtime's */
    heist_runtime *rt = harness_runtime(0);
    assert_int_equal(heist_loop_run_in_executor(heist_runtime_loop(rt, 0), NULL, wait_gate, &gate, NULL, &f), 0);
    harness_runtime_end(rt);
    assert_int_equal(heist_future_done(f), 0);
    gate_open(&gate);
    assert_int_equal(heist_await(f, NULL), 0);
    heist_unref(f);
}

static int slow_job(void *arg, void **out) {
    (void)out;
    struct timespec moment = {0, 3000000};
    nanosleep(&moment, NULL);
    (*(_Atomic(int) *)arg)++;
    return 0;
}

static int leave_jobs(void *arg, void **out) {
    (void)out;
    for (int i = 0, err; i < 3; i++)
        if ((err = heist_loop_run_in_executor(NULL, NULL, slow_job, arg, NULL, NULL))) return err;
    return 0;
}

static void run_waits_for_the_default_pool_at_its_end(void **state) {
    (void)state;
    _Atomic(int) ended = 0;
    assert_int_equal(harness_run(leave_jobs, &ended, NULL), 0);
    assert_int_equal(ended, 3);
}

static int outwait(void *arg, void **out) {
    (void)out;
    heist_future *f;
    int err = heist_loop_run_in_executor(NULL, NULL, slow_job, arg, NULL, &f);
    if (err) return err;
    double before = heist_time();
    err = heist_await_until(f, before + 1e-6, NULL); /* a moment, but virtual time stands */
    if (!err && heist_time() != before) err = -EPROTO;
    heist_unref(f);
    return err ? err : heist_sleep(1000);
}

static void virtual_time_stands_while_a_job_runs(void **state) {
    (void)state;
    _Atomic(int) ended = 0;
    assert_int_equal(harness_run(outwait, &ended, NULL), 0);
    heist_loop *loop = harness_loop();
    assert_int_equal(heist_loop_run_coroutine(loop, outwait, &ended, NULL, NULL), 0);
    assert_int_equal(ended, 2);
    harness_loop_end(loop);
}

static int ends_pools(void *arg, void **out) {
    (void)arg;
    (void)out;
    heist_executor *e;
    heist_future *f = NULL;
    double before = heist_time();
    int err = heist_executor_new(NULL, &e);
    if (err) return err;
    err = heist_executor_submit(e, give_back, NULL, NULL, &f);
    if (!err) err = heist_await(f, NULL);
    heist_unref(f);
    if (!err) err = heist_executor_shutdown_until(e, 0, before + 5);
    heist_executor_unref(e);
    if (!err) err = heist_to_thread(give_back, NULL, NULL);
    if (!err) err = heist_loop_shutdown_default_executor(NULL, 5);
    return err ? err : heist_time() == before ? 0 : -EPROTO;
}

static void virtual_time_stands_while_threads_without_a_job_end(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(harness_run(ends_pools, NULL, NULL), 0);
        heist_loop *loop = harness_loop();
        assert_int_equal(heist_loop_run_coroutine(loop, ends_pools, NULL, NULL, NULL), 0);
        harness_loop_end(loop);
    }
}

static int looks_at_the_clock(void *arg, void **out) {
    (void)out;
    double before = heist_time();
    for (int i = 0; i < 20; i++) {
        int err = heist_to_thread(give_back, NULL, NULL);
        if (err) return err;
        if (heist_time() != before) ++*(int *)arg;
    }
    return 0;
}

static int sleeps_by_seconds(void *arg, void **out) {
    int err = 0;
    (void)arg;
    (void)out;
    while (!err) err = heist_sleep(1);
    return err;
}

static void virtual_time_stands_for_jobs_of_a_loop_driven_from_outside(void **state) {
    (void)state;
    int moved = 0;
    for (int i = 0; i < (harness_instrumented() ? 5 : 50); i++) {
        heist_loop *loop = harness_loop();
        heist_task *sleeper, *t;
        assert_int_equal(heist_loop_create_task(loop, sleeps_by_seconds, NULL, NULL, &sleeper), 0);
        assert_int_equal(heist_loop_create_task(loop, looks_at_the_clock, &moved, NULL, &t), 0);
        while (!heist_future_done(t)) assert_int_equal(heist_loop_run_once(loop, NULL), 0);
        assert_int_equal(heist_future_result(t, NULL), 0);
        heist_cancel(sleeper);
        heist_unref(t);
        heist_unref(sleeper);
        harness_loop_end(loop);
    }
    assert_int_equal(moved, 0);
}

static int shuts_down(void *arg, void **out) {
    (void)arg;
    (void)out;
    return heist_loop_shutdown_default_executor(NULL, HEIST_FOREVER);
}

static int cancels_the_wait(void *arg, void **out) {
    heist_future *f;
    heist_task *t;
    (void)out;
    int err = heist_loop_run_in_executor(NULL, NULL, wait_gate, arg, NULL, &f);
    if (!err) err = heist_create_task(shuts_down, NULL, NULL, &t);
    if (err) return err;
    for (int i = 0; i < 100; i++) heist_yield();
    heist_cancel(t);
    err = heist_await(t, NULL) == -ECANCELED ? 0 : -EPROTO;
    heist_unref(t);
    if (!err && heist_future_done(f)) err = -EPROTO;
    gate_open(arg);
    if (!err) err = heist_loop_shutdown_default_executor(NULL, HEIST_FOREVER); /* it waits for the job all the same */
    if (!err && !heist_future_done(f)) err = -EPROTO;
    heist_unref(f);
    if (!err && heist_to_thread(give_back, NULL, NULL) != HEIST_EEXECSHUTDOWN) err = -EPROTO;
    return err;
}

static void default_executor_whose_end_nobody_saw_is_waited_for_again(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        struct gate gate = GATE_INIT;
        assert_int_equal(harness_run(cancels_the_wait, &gate, NULL), 0);
    }
}

static int gives_up(void *arg, void **out) {
    (void)out;
    heist_executor *e = pool(1);
    heist_future *f = submit(e, wait_gate, arg);
    double before = heist_time();
    int err = heist_executor_shutdown_until(e, 0, before + 5); /* a job of its own: it does not hold the time */
    if (err == -ETIMEDOUT && heist_time() == before + 5) err = 0;
    gate_open(arg);
    if (!err) err = heist_executor_shutdown(e, 0);
    heist_unref(f);
    heist_executor_unref(e);
    return err;
}

static void virtual_time_goes_on_while_a_pool_of_ones_own_works(void **state) {
    (void)state;
    struct gate gate = GATE_INIT;
    assert_int_equal(harness_run(gives_up, &gate, NULL), 0);
}

/* ---- who may call ---- */

struct calls {
    heist_executor *e;
    int code[8];
    heist_loop *loop;
};

static int in_callback(void *arg) {
    struct calls *c = arg;
    heist_future *f = NULL;
    c->code[0] = heist_executor_submit(c->e, give_back, NULL, NULL, &f);
    c->code[1] = heist_await(f, NULL);
    c->code[2] = heist_to_thread(give_back, NULL, NULL);
    c->code[3] = heist_executor_shutdown(c->e, 0);
    c->code[4] = heist_loop_shutdown_default_executor(c->loop, 1);
    c->code[5] = heist_executor_submit(c->e, give_back, NULL, NULL, NULL); /* so it was not shut down */
    heist_unref(f);
    return heist_loop_stop(c->loop);
}

static void callback_submits_and_never_waits(void **state) {
    (void)state;
    struct calls c = {.e = pool(1), .loop = harness_loop()};
    assert_int_equal(heist_loop_call_soon(c.loop, in_callback, &c, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(c.loop), 0);
    assert_int_equal(c.code[0], 0);
    for (int i = 1; i < 5; i++) assert_int_equal(c.code[i], HEIST_ENOTINCORO);
    assert_int_equal(c.code[5], 0);
    harness_loop_end(c.loop);
    pool_end(c.e);
}

static int in_job(void *arg, void **out) {
    struct calls *c = arg;
    (void)out;
    c->code[0] = heist_executor_shutdown(c->e, 0);
    c->code[1] = heist_executor_submit(c->e, give_back, NULL, NULL, NULL); /* so it was not shut down */
    c->code[2] = heist_executor_shutdown(c->e, HEIST_EXECUTOR_NO_WAIT);
    c->code[3] = heist_executor_submit(c->e, give_back, NULL, NULL, NULL);
    heist_executor_unref(c->e); /* the last one */
    return 0;
}

static void job_cannot_wait_for_its_own_end_but_may_drop_the_pool(void **state) {
    (void)state;
    struct calls c = {.e = pool(1)};
    heist_future *f = submit(c.e, in_job, &c);
    awaited(f);
    assert_int_equal(c.code[0], -EDEADLK);
    assert_int_equal(c.code[1], 0);
    assert_int_equal(c.code[2], 0);
    assert_int_equal(c.code[3], HEIST_EEXECSHUTDOWN);
}

static int wait_for_pool(void *arg, void **out) {
    (void)out;
    return heist_executor_shutdown(arg, 0);
}

static void cancelled_shutdown_stays_shut(void **state) {
    (void)state;
    struct gate gate = GATE_INIT;
    heist_loop *loop = harness_real_loop();
    heist_executor *e = pool(1);
    heist_future *f = submit(e, wait_gate, &gate);
    heist_task *t;
    assert_int_equal(heist_loop_create_task(loop, wait_for_pool, e, NULL, &t), 0);
    harness_one_pass(loop);
    assert_int_equal(heist_cancel(t), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, t, NULL), -ECANCELED);
    heist_unref(t);
    assert_int_equal(heist_executor_submit(e, give_back, NULL, NULL, NULL), HEIST_EEXECSHUTDOWN);
    gate_open(&gate);
    awaited(f);
    assert_int_equal(heist_loop_run_coroutine(loop, wait_for_pool, e, NULL, NULL), 0);
    harness_loop_end(loop);
    pool_end(e);
}

static int many_jobs(void *arg, void **out) {
    (void)out;
    for (int i = 0; i < 40; i++) {
        heist_future *f;
        int err = heist_executor_submit(arg, give_back, NULL, NULL, &f);
        if (!err) err = heist_await(f, NULL);
        heist_unref(f);
        if (err) return err;
    }
    return 0;
}

static void one_pool_serves_runtimes_and_threads(void **state) {
    (void)state;
    heist_executor *e = pool(3);
    heist_runtime *rt[2] = {harness_runtime(0), harness_runtime(0)};
    heist_task *t[8];
    for (int i = 0; i < 8; i++) assert_int_equal(heist_runtime_run_coroutine(rt[i % 2], many_jobs, e, NULL, &t[i]), 0);
    assert_int_equal(many_jobs(e, NULL), 0);
    assert_int_equal(heist_gather(t, 8, NULL, 0), 0);
    for (int i = 0; i < 8; i++) heist_unref(t[i]);
    for (int i = 0; i < 2; i++) harness_runtime_end(rt[i]);
    assert_int_equal(ran, 360);
    pool_end(e);
}

static void bad_input_is_refused(void **state) {
    (void)state;
    heist_executor_options o = HEIST_EXECUTOR_OPTIONS_INIT;
    heist_job_options j = HEIST_JOB_OPTIONS_INIT;
    heist_executor_stats s = HEIST_EXECUTOR_STATS_INIT;
    heist_executor *e = NULL;
    heist_executor_map *m = NULL;
    void *args[1] = {NULL};
    assert_int_equal(heist_executor_new(NULL, NULL), -EINVAL);
    o.flags = 1;
    assert_int_equal(heist_executor_new(&o, &e), -EINVAL);
    o = (heist_executor_options)HEIST_EXECUTOR_OPTIONS_INIT;
    o.max_threads = -1;
    assert_int_equal(heist_executor_new(&o, &e), -EINVAL);
    o.max_threads = 0;
    o.idle_seconds = (double)NAN;
    assert_int_equal(heist_executor_new(&o, &e), -EINVAL);
    o.idle_seconds = 0;
    o.stack_bytes = 100;
    assert_int_equal(heist_executor_new(&o, &e), -EINVAL);
    o.stack_bytes = 0;
    o.idle_seconds = -1;
    assert_int_equal(heist_executor_new(&o, &e), -EINVAL);
    o.size = 4;
    assert_int_equal(heist_executor_new(&o, &e), -EINVAL);
    assert_null(e);
    e = pool(1);
    assert_int_equal(heist_executor_submit(NULL, give_back, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_executor_submit(e, NULL, NULL, NULL, NULL), -EINVAL);
    j.flags = 1;
    assert_int_equal(heist_executor_submit(e, give_back, NULL, &j, NULL), -EINVAL);
    assert_int_equal(heist_executor_map_new(e, give_back, NULL, 1, NULL, HEIST_FOREVER, &m), -EINVAL);
    assert_int_equal(heist_executor_map_new(e, give_back, args, 1, NULL, (double)NAN, &m), -EINVAL);
    assert_int_equal(heist_executor_map_new(e, give_back, args, 1, NULL, HEIST_FOREVER, NULL), -EINVAL);
    assert_int_equal(heist_executor_map_next(NULL, NULL), -EINVAL);
    heist_executor_map_free(NULL);
    heist_executor_unref(NULL);
    assert_null(heist_executor_ref(NULL));
    assert_int_equal(heist_executor_shutdown(NULL, 0), -EINVAL);
    assert_int_equal(heist_executor_shutdown(e, 4), -EINVAL);
    assert_int_equal(heist_executor_shutdown_until(e, 0, (double)NAN), -EINVAL);
    assert_int_equal(heist_executor_get_stats(e, NULL), -EINVAL);
    assert_int_equal(heist_executor_get_stats(NULL, &s), -EINVAL);
    assert_int_equal(heist_loop_run_in_executor(NULL, NULL, give_back, NULL, NULL, NULL), HEIST_ENOLOOP);
    assert_int_equal(heist_loop_set_default_executor(NULL, e), HEIST_ENOLOOP);
    assert_int_equal(heist_loop_shutdown_default_executor(NULL, (double)NAN), -EINVAL);
    assert_int_equal(heist_loop_shutdown_default_executor(NULL, 1), HEIST_ENOLOOP);
    assert_ptr_equal(heist_executor_ref(e), e);
    heist_executor_unref(e);
    pool_end(e);
}

/* ---- what runs out ---- */

static int use_pool(void) {
    heist_executor *e;
    heist_executor_map *m;
    heist_future *f;
    heist_job_options opts = HEIST_JOB_OPTIONS_INIT;
    int three[3] = {1, 2, 3};
    void *args[3] = {&three[0], &three[1], &three[2]};
    opts.arg_free = count_free;
    int made = 0, err = heist_executor_new(NULL, &e);
    if (err) return err;
    frees = 0;
    err = heist_executor_submit(e, give_back, e, &opts, &f);
    if (!err) {
        made++;
        err = heist_await(f, NULL);
        heist_unref(f);
    }
    int second = heist_executor_map_new(e, give_back, args, 3, &opts, HEIST_FOREVER, &m);
    if (!second) {
        made += 3;
        for (int i = 0; i < 3 && second >= 0; i++) second = heist_executor_map_next(m, NULL);
        heist_executor_map_free(m);
    }
    int third = heist_executor_shutdown(e, 0);
    heist_executor_unref(e);
    if (!third && frees != made) return -EPROTO;
    return err < 0 ? err : second < 0 ? second : third;
}

static int use_in_task(void *arg, void **out) {
    (void)arg;
    (void)out;
    return heist_to_thread(give_back, NULL, NULL);
}

static int use_default_pool(void) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = 1;
    return heist_run(use_in_task, NULL, &opts, NULL);
}

/* With the last runtime goes what the library keeps to use again. */
static long settled_blocks(void) {
    harness_loop_end(harness_loop());
    return harness_blocks();
}

static void each_allocation_may_fail(void **state) {
    (void)state;
    int (*const scenarios[])(void) = {use_pool, use_default_pool};
    for (int k = 0; k < 2; k++)
        for (long n = 1;; n++) {
            long blocks = settled_blocks();
            harness_allocations();
            harness_fail_allocation(n, false);
            int err = scenarios[k]();
            harness_fail_allocation(0, false);
            long asked = harness_allocations();
            if (err && err != -ENOMEM) fail_msg("scenario %d, allocation %ld: %s", k, n, heist_error_name(err));
            long left = settled_blocks() - blocks;
            if (left) fail_msg("scenario %d, allocation %ld: %ld blocks left", k, n, left);
            if (asked < n) break;
            assert_true(n < 500);
        }
}

static void child_is_refused(void **state) {
    (void)state;
    int ends[2], told = -1; /* an observer such as valgrind may change the exit status */
    assert_int_equal(pipe(ends), 0);
    heist_executor *e = pool(2);
    awaited(submit(e, give_back, NULL));
    pid_t pid = fork();
    if (pid == 0) {
        heist_executor *other;
        heist_executor_stats s = HEIST_EXECUTOR_STATS_INIT;
        int wrong = heist_executor_submit(e, give_back, NULL, NULL, NULL) != HEIST_EFORKED;
        wrong += heist_executor_shutdown(e, 0) != HEIST_EFORKED;
        wrong += heist_executor_new(NULL, &other) != HEIST_EFORKED;
        wrong += heist_executor_get_stats(e, &s) != HEIST_EFORKED;
        wrong += heist_to_thread(give_back, NULL, NULL) != HEIST_EFORKED;
        wrong += heist_blocking_begin() != HEIST_EFORKED;
        heist_executor_unref(e);
        _exit(write(ends[1], &wrong, sizeof wrong) == sizeof wrong ? 0 : 1);
    }
    int status = -1;
    close(ends[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(read(ends[0], &told, sizeof told), sizeof told);
    close(ends[0]);
    assert_int_equal(told, 0);
    awaited(submit(e, give_back, NULL));
    pool_end(e);
}

/* ---- blocking sections ---- */

struct section {
    struct gate gate;
    heist_runtime *rt;
    int code[10];
};

static int open_it(void *arg, void **out) {
    struct section *s = arg;
    (void)out;
    gate_open(&s->gate);
    return 0;
}

static int open_later(void *arg, void **out) {
    int err = heist_sleep(0.002);
    return err ? err : open_it(arg, out);
}

/* What it waits for stands in its own worker's queue. */
static int block_for(void *arg, heist_coro_fn fn) {
    struct section *s = arg;
    heist_task *t;
    int err = heist_create_task(fn, s, NULL, &t);
    if (!err && fn == open_later) err = heist_yield(); /* it may sleep first, on this worker's timers */
    if (err) return err;
    err = heist_blocking_begin();
    if (err) return err;
    gate_wait(&s->gate);
    err = heist_blocking_end();
    if (!err) err = heist_await(t, NULL);
    heist_unref(t);
    return err;
}
static int block_for_a_task(void *arg, void **out) {
    (void)out;
    return block_for(arg, open_it);
}
static int block_for_a_timer(void *arg, void **out) {
    (void)out;
    return block_for(arg, open_later);
}

static void blocked_worker_hands_its_tasks_and_timers_on(void **state) {
    (void)state;
    bool one = harness_workers() == 1;
    for (int i = 0; i < 20; i++) {
        heist_runtime *rt = harness_runtime(one ? HEIST_RUNTIME_SPARE_THREAD : 0);
        for (int k = 0; k < 2; k++) {
            struct section s = {.gate = GATE_INIT, .rt = rt};
            heist_task *t;
            assert_int_equal(
                heist_runtime_run_coroutine(rt, k ? block_for_a_timer : block_for_a_task, &s, NULL, &t), 0);
            assert_int_equal(heist_await(t, NULL), 0);
            heist_unref(t);
        }
        harness_runtime_end(rt);
    }
    if (!one) { /* in virtual time too: the queue, that is */
        struct section s = {.gate = GATE_INIT};
        assert_int_equal(harness_run(block_for_a_task, &s, NULL), 0);
    }
}

static int empty_main(void *arg, void **out) {
    (void)arg;
    (void)out;
    return 0;
}

static int inside(void *arg, void **out) {
    struct section *s = arg;
    heist_channel *c = NULL;
    heist_task *self = heist_current_task(), *t = NULL;
    heist_loop *loop = NULL, *mine = NULL;
    void *got = NULL;
    (void)out;
    int err = heist_get_running_loop(&mine);
    if (!err) err = heist_channel_new(1, &c);
    if (err) return err;
    s->code[0] = heist_blocking_end();
    int *code = s->code + 1;
    if (heist_blocking_begin() || heist_blocking_begin()) return -EPROTO; /* they nest */
    *code++ = heist_current_task() == NULL && heist_get_running_loop(&loop) == HEIST_ENOLOOP;
    *code++ = heist_run(empty_main, NULL, NULL, NULL);
    *code++ = s->rt ? heist_runtime_close(s->rt, 0) : -EDEADLK;
    if (heist_channel_try_send(c, s)) return -EPROTO;
    *code++ = heist_channel_recv(c, &got); /* would wait in the thread */
    *code++ = heist_create_task(empty_main, NULL, NULL, &t);
    heist_fail(-EPROTO, "from within %d", 5);
    if (heist_blocking_end()) return -EPROTO;
    *code++ = heist_current_task() == NULL;
    if (heist_blocking_end()) return -EPROTO;
    *code++ = heist_current_task() == self && !heist_get_running_loop(&loop) && loop == mine;
    heist_channel_unref(c);
    return got == s ? -EPROTO : -EIO; /* the record is the task's */
}

static void section_is_a_plain_thread_and_ends_as_it_began(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    heist_loop *loop = harness_loop();
    for (int k = 0; k < 2; k++) {
        struct section s = {.gate = GATE_INIT, .rt = k ? NULL : rt};
        heist_task *t;
        assert_int_equal(k ? heist_loop_create_task(loop, inside, &s, NULL, &t)
                           : heist_runtime_run_coroutine(rt, inside, &s, NULL, &t), 0);
        assert_int_equal(k ? heist_loop_run_until_complete(loop, t, NULL) : heist_await(t, NULL), -EPROTO);
        heist_exception ex = HEIST_EXCEPTION_INIT;
        assert_int_equal(heist_future_exception(t, &ex), 0);
        assert_string_equal(ex.message, "from within 5");
        static const int expected[] = {-EINVAL, 1, HEIST_EOTHERRUNNING, -EDEADLK, 0, HEIST_ENOLOOP, 1, 1};
        for (int i = 0; i < 8; i++) assert_int_equal(s.code[i], expected[i]);
        heist_unref(t);
    }
    harness_loop_end(loop);
    harness_runtime_end(rt);
    assert_int_equal(heist_blocking_begin(), 0); /* on a plain thread: nothing */
    assert_int_equal(heist_blocking_end(), 0);
    assert_int_equal(heist_blocking_end(), 0);
}

static int hold_all(void *arg, void **out) {
    (void)out;
    struct meeting *m = arg;
    int err = heist_blocking_begin();
    if (err) return err;
    meet(m, NULL);
    return heist_blocking_end();
}

/* Every worker is in a section, and comes out of it; again and again. */
static void all_workers_may_block_and_go_on(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    int n = harness_workers();
    heist_task *t[8];
    for (int i = 0; i < 50; i++) {
        struct meeting m = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, n};
        for (int k = 0; k < n; k++) assert_int_equal(heist_runtime_run_coroutine(rt, hold_all, &m, NULL, &t[k]), 0);
        for (int k = 0; k < n; k++) {
            assert_int_equal(heist_await(t[k], NULL), 0);
            heist_unref(t[k]);
        }
    }
    harness_runtime_end(rt);
}

static const struct CMUnitTest tests[] = {
    API_TEST(job_runs_on_a_pool_thread_and_its_result_is_the_futures_EXEC_01),
    API_TEST(default_pool_is_made_on_first_use_and_replaced_EXEC_02),
    API_TEST(one_thread_runs_in_order_more_run_side_by_side_EXEC_03),
    API_TEST(failure_of_a_job_is_the_futures_EXEC_04),
    API_TEST(loop_goes_on_while_jobs_run_EXEC_05),
    API_TEST(cancelling_removes_a_job_that_has_not_begun_EXEC_06),
    API_TEST(threads_are_reused_and_never_too_many_EXEC_07),
    API_TEST(idle_thread_ends_after_its_time),
    API_TEST(jobs_are_refused_after_shutdown_EXEC_08),
    API_TEST(shutdown_waits_for_all_or_cancels_what_waits_EXEC_09),
    API_TEST(dropped_pool_runs_what_it_has),
    API_TEST(failing_initializer_breaks_the_pool_EXEC_10),
    API_TEST(initializer_and_finalizer_run_on_each_thread),
    API_TEST(map_gives_results_in_input_order_EXEC_11),
    API_TEST(cancelled_next_takes_nothing),
    API_TEST(queue_has_its_limit),
    API_TEST(shutting_the_default_pool_down_waits_beside_the_loop_EXEC_13),
    API_TEST(to_thread_runs_once_and_gives_the_result_EXEC_14),
    API_TEST(to_thread_carries_the_context_run_in_executor_does_not_CTX_06),
    API_TEST(cancelled_to_thread_waits_for_what_runs),
    API_TEST(close_does_not_wait_for_the_default_pool_LOOP_22),
    API_TEST(run_waits_for_the_default_pool_at_its_end),
    API_TEST(virtual_time_stands_while_a_job_runs),
    API_TEST(virtual_time_stands_while_threads_without_a_job_end),
    API_TEST(virtual_time_goes_on_while_a_pool_of_ones_own_works),
    API_TEST(virtual_time_stands_for_jobs_of_a_loop_driven_from_outside),
    API_TEST(default_executor_whose_end_nobody_saw_is_waited_for_again),
    API_TEST(callback_submits_and_never_waits),
    API_TEST(job_cannot_wait_for_its_own_end_but_may_drop_the_pool),
    API_TEST(cancelled_shutdown_stays_shut),
    API_TEST(one_pool_serves_runtimes_and_threads),
    API_TEST(bad_input_is_refused),
    API_TEST(each_allocation_may_fail),
    API_TEST(child_is_refused),
    API_TEST(blocked_worker_hands_its_tasks_and_timers_on),
    API_TEST(section_is_a_plain_thread_and_ends_as_it_began),
    API_TEST(all_workers_may_block_and_go_on),
};

int main(void) {
    return HARNESS_MAIN("executor", tests);
}
