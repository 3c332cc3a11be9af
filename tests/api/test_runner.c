/* Running mains: rows RUN, the runner, SIGINT, and how debug mode is chosen. */
#include "support/harness.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static heist_context_var *var;
#define NUMBER(n) ((void *)(intptr_t)(n))

static int nothing(void *arg, void **out) {
    (void)arg;
    (void)out;
    return 0;
}

static int answer(void *arg, void **out) {
    *out = arg;
    return 0;
}

static int fails(void *arg, void **out) {
    (void)arg;
    (void)out;
    return heist_fail(-EPROTO, "main failed");
}

static _Atomic(int) freed;
static void count_free(void *arg) {
    (void)arg;
    freed++;
}

/* Two kinds: N workers on threads of their own, and one loop on the caller's thread. */
static const bool kinds[] = {false, true};

static heist_runner *new_runner(bool alone, heist_runtime_options *runtime) {
    heist_runner *r = NULL;
    heist_runner_options opts = HEIST_RUNNER_OPTIONS_INIT;
    heist_runtime_options defaults = HEIST_RUNTIME_OPTIONS_INIT;
    if (!runtime) runtime = &defaults;
    runtime->flags |= HEIST_RUNTIME_VIRTUAL_TIME;
    runtime->workers = alone ? 1 : harness_workers();
    opts.runtime = runtime;
    if (alone) opts.loop_factory = heist_loop_new;
    assert_int_equal(heist_runner_new(&opts, &r), 0);
    assert_non_null(r);
    return r;
}

static void end_runner(heist_runner *r) {
    assert_int_equal(heist_runner_close(r), 0);
    heist_runner_unref(r);
}

/* ---- one main ---- */

static int gives_its_loop(void *arg, void **out) {
    (void)out;
    heist_loop **loop = arg;
    int err = heist_get_running_loop(loop);
    if (!err) heist_loop_ref(*loop);
    return err;
}

static void run_makes_a_loop_gives_the_value_or_the_error_and_closes_RUN_01(void **state) {
    (void)state;
    int x;
    void *out = NULL;
    heist_loop *loop = NULL;
    assert_int_equal(harness_run(answer, &x, &out), 0);
    assert_ptr_equal(out, &x);
    out = NULL;
    assert_int_equal(harness_run(fails, NULL, &out), -EPROTO);
    assert_null(out);
    assert_int_equal(harness_run(gives_its_loop, &loop, NULL), 0);
    assert_int_equal(heist_loop_is_closed(loop), 1);
    heist_loop_unref(loop);
    for (int k = 0; k < 2; k++) {
        heist_runner *r = new_runner(kinds[k], NULL);
        out = NULL;
        assert_int_equal(heist_runner_run(r, answer, &x, NULL, &out), 0);
        assert_ptr_equal(out, &x);
        out = NULL;
        assert_int_equal(heist_runner_run(r, fails, NULL, NULL, &out), -EPROTO);
        assert_null(out);
        end_runner(r);
    }
}

static void what_is_no_main_is_refused_RUN_02(void **state) {
    (void)state;
    heist_runner *r = NULL;
    heist_loop *loop = NULL;
    heist_context *ctx = NULL;
    heist_runner_options opts = HEIST_RUNNER_OPTIONS_INIT;
    heist_task_options bad = HEIST_TASK_OPTIONS_INIT;
    bad.flags = 0x40000000u;
    assert_int_equal(heist_run(NULL, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_runner_new(NULL, NULL), -EINVAL);
    opts.flags = 1;
    assert_int_equal(heist_runner_new(&opts, &r), -EINVAL);
    opts.size = 4;
    assert_int_equal(heist_runner_new(&opts, &r), -EINVAL);
    assert_null(r);
    assert_int_equal(heist_runner_run(NULL, nothing, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_runner_get_loop(NULL, &loop), -EINVAL);
    assert_int_equal(heist_runner_context(NULL, &ctx), -EINVAL);
    assert_int_equal(heist_runner_close(NULL), -EINVAL);
    heist_runner_unref(NULL);
    r = new_runner(true, NULL);
    assert_int_equal(heist_runner_run(r, NULL, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_runner_run(r, nothing, NULL, &bad, NULL), -EINVAL);
    assert_int_equal(heist_runner_get_loop(r, NULL), -EINVAL);
    assert_int_equal(heist_runner_context(r, NULL), -EINVAL);
    end_runner(r);
}

struct inside {
    heist_runner *runner, *other;
    int run, runner_run, other_run, close, callback_run;
};

static int runs_inside_callback(void *arg) {
    struct inside *in = arg;
    in->callback_run = heist_runner_run(in->runner, answer, in, NULL, NULL);
    return 0;
}

static int runs_inside(void *arg, void **out) {
    struct inside *in = arg;
    heist_loop *loop;
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    (void)out;
    opts.arg_free = count_free;
    in->run = heist_run(nothing, NULL, NULL, NULL);
    if (in->runner) {
        in->runner_run = heist_runner_run(in->runner, answer, in, &opts, NULL);
        in->close = heist_runner_close(in->runner);
    }
    if (in->other) in->other_run = heist_runner_run(in->other, answer, in, &opts, NULL);
    int err = heist_get_running_loop(&loop);
    if (!err && in->runner) err = heist_loop_call_soon(loop, runs_inside_callback, in, NULL, NULL);
    return err ? err : heist_sleep(0.001);
}

static void a_run_where_a_loop_runs_fails_and_starts_nothing_RUN_03_RUN_12(void **state) {
    (void)state;
    freed = 0;
    struct inside in = {NULL, NULL, 0, 0, 0, 0, 0};
    assert_int_equal(harness_run(runs_inside, &in, NULL), 0);
    assert_int_equal(in.run, HEIST_EOTHERRUNNING);
    for (int k = 0; k < 2; k++) {
        in = (struct inside){new_runner(kinds[k], NULL), new_runner(!kinds[k], NULL), 0, 0, 0, 0, 0};
        assert_int_equal(heist_runner_run(in.runner, runs_inside, &in, NULL, NULL), 0);
        assert_int_equal(in.run, HEIST_EOTHERRUNNING);
        assert_int_equal(in.runner_run, HEIST_EOTHERRUNNING);
        assert_int_equal(in.other_run, HEIST_EOTHERRUNNING);
        assert_int_equal(in.callback_run, HEIST_EOTHERRUNNING);
        assert_int_equal(in.close, HEIST_ERUNNING);
        end_runner(in.runner);
        end_runner(in.other);
    }
    assert_int_equal(freed, 0); /* the argument stayed the caller's */
}

struct busy {
    heist_runner *runner;
    struct gate begun, end;
    int err;
};

static int holds_runner(void *arg, void **out) {
    (void)out;
    struct busy *b = arg;
    gate_open(&b->begun);
    gate_wait(&b->end);
    return 0;
}

static void *runs_in_thread(void *arg) {
    struct busy *b = arg;
    b->err = heist_runner_run(b->runner, holds_runner, b, NULL, NULL);
    return NULL;
}

static void one_thread_at_a_time_runs_a_runner(void **state) {
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct busy b = {new_runner(kinds[k], NULL), GATE_INIT, GATE_INIT, -1};
        pthread_t t = harness_thread(runs_in_thread, &b);
        gate_wait(&b.begun);
        assert_int_equal(heist_runner_run(b.runner, nothing, NULL, NULL, NULL), HEIST_ERUNNING);
        assert_int_equal(heist_runner_close(b.runner), HEIST_ERUNNING);
        gate_open(&b.end);
        harness_join(t);
        assert_int_equal(b.err, 0);
        assert_int_equal(heist_runner_run(b.runner, nothing, NULL, NULL, NULL), 0);
        end_runner(b.runner);
    }
}

/* A host whose loop runs already hands work in instead of running it. */
struct host {
    struct gate up;
    heist_loop *loop;
};

static int host_main(void *arg, void **out) {
    (void)out;
    struct host *h = arg;
    int err = heist_get_running_loop(&h->loop);
    gate_open(&h->up);
    heist_future *never;
    if (!err) err = heist_future_new(NULL, &never);
    if (err) return err;
    err = heist_await(never, NULL);
    heist_unref(never);
    return err == -ECANCELED ? 0 : err;
}

static void *runs_host(void *arg) { return harness_run(host_main, arg, NULL) == 0 ? NULL : arg; }

static void work_is_handed_to_a_loop_that_runs_RUN_04(void **state) {
    (void)state;
    struct host h = {GATE_INIT, NULL};
    pthread_t thread = harness_thread(runs_host, &h);
    int x;
    void *out = NULL;
    heist_task *t = NULL, **tasks = NULL;
    size_t n = 0;
    gate_wait(&h.up);
    assert_int_equal(heist_run_coroutine_threadsafe(h.loop, answer, &x, NULL, &t), 0);
    assert_int_equal(heist_await(t, &out), 0);
    assert_ptr_equal(out, &x);
    heist_unref(t);
    assert_int_equal(heist_runtime_all_tasks(heist_loop_runtime(h.loop), &tasks, &n), 0);
    for (size_t i = 0; i < n; i++) heist_cancel(tasks[i]);
    heist_task_list_free(tasks, n);
    harness_join(thread);
}

/* ---- what is left behind ---- */

struct left {
    struct record *record;
    const char *word;
    int code;
};

/* Not a sleep: in virtual time a sleeper does not outlast the moment between two runs. */
static int waits_for_ever(void *arg, void **out) {
    (void)arg;
    (void)out;
    heist_future *never = NULL;
    int err = heist_future_new(NULL, &never);
    if (err) return err;
    err = heist_await(never, NULL);
    heist_unref(never);
    return err;
}

static int lingers(void *arg, void **out) {
    (void)out;
    struct left *l = arg;
    int err = waits_for_ever(NULL, NULL);
    int again = heist_sleep(0.01); /* clean-up may wait */
    record_add(l->record, "%s:%s:%d", l->word, heist_error_name(err), again);
    return l->code ? heist_fail(l->code, "%s", l->word) : err;
}

static int leaves_three(void *arg, void **out) {
    struct left *l = arg;
    heist_task *held;
    (void)out;
    int err = heist_create_task(lingers, &l[0], NULL, NULL);
    if (!err) err = heist_create_task(lingers, &l[1], NULL, NULL);
    if (!err) err = heist_create_task(lingers, &l[2], NULL, &held);
    if (err) return err;
    err = heist_sleep(0.01); /* they have begun */
    heist_unref(held);
    return err;
}

static void what_main_leaves_behind_is_cancelled_and_awaited_and_its_errors_reported_RUN_05_RUN_06(void **state) {
    (void)state;
    for (int k = 0; k < 3; k++) {
        struct record record = RECORD_INIT, reports = RECORD_INIT;
        struct left l[3] = {{&record, "a", 0}, {&record, "b", -EPIPE}, {&record, "c", -EIO}};
        heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
        opts.exception_handler = record_report;
        opts.exception_user = &reports;
        opts.flags = HEIST_RUNTIME_VIRTUAL_TIME;
        opts.workers = harness_workers();
        if (k == 2) {
            assert_int_equal(heist_run(leaves_three, l, &opts, NULL), 0);
        } else {
            heist_runner *r = new_runner(kinds[k], &opts);
            assert_int_equal(heist_runner_run(r, leaves_three, l, NULL, NULL), 0);
            end_runner(r);
        }
        assert_int_equal(record_words(&record), 3);
        assert_non_null(strstr(record_text(&record), "a:ECANCELED:0"));
        assert_non_null(strstr(record_text(&record), "b:ECANCELED:0"));
        assert_non_null(strstr(record_text(&record), "c:ECANCELED:0"));
        assert_int_equal(record_words(&reports), 2);
        assert_non_null(strstr(record_text(&reports), ":b"));
        assert_non_null(strstr(record_text(&reports), ":c"));
    }
}

static int later_callback(void *arg) {
    ++*(_Atomic(int) *)arg;
    return 0;
}

struct order {
    struct record *record;
    struct gate task_ended;
};

static int is_cancelled(void *arg, void **out) {
    struct order *o = arg;
    int err = waits_for_ever(NULL, out);
    heist_yield(); /* clean-up; a sleep would wait for the job, whose time virtual time does not measure */
    record_add(o->record, "task");
    gate_open(&o->task_ended);
    return err;
}

static int job(void *arg, void **out) {
    (void)out;
    struct order *o = arg;
    gate_wait(&o->task_ended); /* it could not end before the tasks have */
    record_add(o->record, "job");
    return 0;
}

static int leaves_a_task_and_a_job(void *arg, void **out) {
    (void)out;
    int err = heist_loop_run_in_executor(NULL, NULL, job, arg, NULL, NULL);
    if (!err) err = heist_create_task(is_cancelled, arg, NULL, NULL);
    return err ? err : heist_yield();
}

static void tasks_end_then_the_default_executor_RUN_07(void **state) {
    (void)state;
    for (int k = 0; k < 3; k++) {
        struct record record = RECORD_INIT;
        struct order o = {&record, GATE_INIT};
        if (k == 2) {
            assert_int_equal(harness_run(leaves_a_task_and_a_job, &o, NULL), 0);
        } else {
            heist_runner *r = new_runner(kinds[k], NULL);
            assert_int_equal(heist_runner_run(r, leaves_a_task_and_a_job, &o, NULL, NULL), 0);
            end_runner(r);
        }
        assert_string_equal(record_text(&record), "task job");
    }
}

static int waits_long(void *arg, void **out) {
    (void)arg;
    (void)out;
    return heist_sleep(10);
}

static int leaves_task_and_timer(void *arg, void **out) {
    (void)out;
    heist_loop *loop;
    heist_task **list;
    size_t n;
    int err = heist_get_running_loop(&loop);
    if (err || (err = heist_runtime_all_tasks(heist_loop_runtime(loop), &list, &n))) return err;
    heist_task_list_free(list, n);
    if (n != 1) return -EPROTO; /* main alone */
    err = heist_loop_call_later(loop, 5, later_callback, arg, NULL, NULL);
    return err ? err : heist_create_task(waits_for_ever, NULL, NULL, NULL);
}

static void two_runs_share_no_tasks_and_no_timers_RUN_14(void **state) {
    (void)state;
    _Atomic(int) called = 0;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(harness_run(leaves_task_and_timer, &called, NULL), 0);
        assert_int_equal(harness_run(waits_long, NULL, NULL), 0);
    }
    assert_int_equal(called, 0);
}

/* ---- several mains ---- */

static int counts(void *arg, void **out) {
    (void)out;
    void *now = NULL;
    int err = heist_context_get(var, &now);
    if (err == HEIST_ENOTSET) err = 0;
    *(int *)arg = (int)(intptr_t)now;
    return err ? err : heist_context_set(var, NUMBER((intptr_t)now + 1), NULL, NULL);
}

static void mains_of_a_runner_share_one_loop_and_one_context_RUN_10(void **state) {
    (void)state;
    assert_int_equal(heist_context_var_new("count", NULL, &var), 0);
    for (int k = 0; k < 2; k++) {
        heist_context_token token = HEIST_CONTEXT_TOKEN_INIT;
        assert_int_equal(heist_context_set(var, NUMBER(40), NULL, &token), 0);
        heist_runner *r = new_runner(kinds[k], NULL);
        assert_int_equal(heist_context_reset(&token), 0);
        heist_loop *loop = NULL;
        heist_context *ctx = NULL, *own = NULL;
        void *value = NULL;
        int seen[4] = {0};
        for (int i = 0; i < 3; i++) assert_int_equal(heist_runner_run(r, counts, &seen[i], NULL, NULL), 0);
        assert_int_equal(seen[0], 40);
        assert_int_equal(seen[1], 41);
        assert_int_equal(seen[2], 42);
        assert_int_equal(heist_context_get(var, NULL), HEIST_ENOTSET); /* not here */
        assert_int_equal(heist_runner_context(r, &ctx), 0);
        assert_int_equal(heist_context_lookup(ctx, var, &value), 0);
        assert_ptr_equal(value, NUMBER(43));
        /* One main in a context of its own. */
        heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
        assert_int_equal(heist_context_new(&own), 0);
        opts.context = own;
        assert_int_equal(heist_runner_run(r, counts, &seen[3], &opts, NULL), 0);
        assert_int_equal(seen[3], 0);
        assert_int_equal(heist_context_lookup(ctx, var, &value), 0);
        assert_ptr_equal(value, NUMBER(43));
        heist_context_unref(own);
        heist_context_unref(ctx);
        if (kinds[k]) {
            heist_loop *again = NULL;
            assert_int_equal(heist_runner_get_loop(r, &loop), 0);
            assert_int_equal(heist_runner_run(r, gives_its_loop, &again, NULL, NULL), 0);
            assert_ptr_equal(loop, again);
            heist_loop_unref(again);
        }
        end_runner(r);
    }
    heist_context_var_unref(var);
}

static int leaves_one(void *arg, void **out) {
    (void)out;
    return heist_create_task(waits_for_ever, NULL, NULL, arg);
}

static int awaits_it(void *arg, void **out) {
    (void)out;
    heist_task *t = arg;
    heist_cancel(t);
    return heist_await(t, NULL) == -ECANCELED ? 0 : -EPROTO;
}

static void a_task_left_behind_is_there_for_the_next_main(void **state) {
    (void)state;
    for (int k = 0; k < 2; k++) {
        heist_runner *r = new_runner(kinds[k], NULL);
        heist_task *t = NULL;
        assert_int_equal(heist_runner_run(r, leaves_one, &t, NULL, NULL), 0);
        assert_int_equal(heist_future_done(t), 0);
        assert_int_equal(heist_runner_run(r, awaits_it, t, NULL, NULL), 0);
        heist_unref(t);
        end_runner(r);
    }
}

static void a_closed_runner_refuses_and_closing_twice_is_harmless_RUN_11(void **state) {
    (void)state;
    for (int k = 0; k < 2; k++) {
        heist_runner *r = new_runner(kinds[k], NULL);
        heist_loop *before = NULL, *between = NULL, *after = NULL;
        heist_context *ctx = NULL;
        assert_int_equal(heist_runner_get_loop(r, &before), 0);
        assert_non_null(before);
        assert_int_equal(heist_runner_run(r, nothing, NULL, NULL, NULL), 0);
        assert_int_equal(heist_runner_get_loop(r, &between), 0);
        assert_ptr_equal(before, between);
        assert_int_equal(heist_runner_close(r), 0);
        assert_int_equal(heist_runner_close(r), 0);
        assert_int_equal(heist_runner_run(r, nothing, NULL, NULL, NULL), HEIST_ECLOSED);
        assert_int_equal(heist_runner_get_loop(r, &after), HEIST_ECLOSED);
        assert_int_equal(heist_runner_context(r, &ctx), HEIST_ECLOSED);
        assert_null(after);
        assert_null(ctx);
        assert_ptr_equal(heist_runner_ref(r), r);
        heist_runner_unref(r);
        heist_runner_unref(r);
    }
}

static int factory_calls, factory_code;
static heist_loop *made;
static int factory(const heist_runtime_options *opts, heist_loop **out) {
    factory_calls++;
    if (factory_code) return factory_code;
    int err = heist_loop_new(opts, out);
    if (!err) made = *out;
    return err;
}

static heist_runtime *wrong_runtime;
static int wrong_factory(const heist_runtime_options *opts, heist_loop **out) {
    (void)opts;
    *out = heist_loop_ref(heist_runtime_loop(wrong_runtime, 0));
    return 0;
}

static void a_factory_may_supply_the_loop_RUN_09(void **state) {
    (void)state;
    heist_runner *r = NULL;
    heist_loop *loop = NULL;
    heist_runner_options opts = HEIST_RUNNER_OPTIONS_INIT;
    opts.loop_factory = factory;
    factory_calls = 0;
    factory_code = -EMFILE;
    assert_int_equal(heist_runner_new(&opts, &r), -EMFILE);
    factory_code = 0;
    assert_int_equal(heist_runner_new(&opts, &r), 0);
    assert_int_equal(factory_calls, 2);
    assert_int_equal(heist_runner_get_loop(r, &loop), 0);
    assert_ptr_equal(loop, made);
    assert_int_equal(heist_runner_run(r, nothing, NULL, NULL, NULL), 0);
    assert_int_equal(factory_calls, 2);
    heist_loop_ref(loop);
    end_runner(r);
    assert_int_equal(heist_loop_is_closed(loop), 1);
    heist_loop_unref(loop);
    /* A worker's loop is run by its worker. */
    wrong_runtime = harness_runtime(0);
    opts.loop_factory = wrong_factory;
    assert_int_equal(heist_runner_new(&opts, &r), -EINVAL);
    harness_runtime_end(wrong_runtime);
}

static int stops_and_sleeps(void *arg, void **out) {
    (void)out;
    int err = heist_loop_stop(arg);
    return err ? err : heist_sleep(1);
}

static void a_main_whose_loop_was_stopped_stays_pending(void **state) {
    (void)state;
    heist_runner *r = new_runner(true, NULL);
    heist_loop *loop = NULL;
    assert_int_equal(heist_runner_get_loop(r, &loop), 0);
    assert_int_equal(heist_runner_run(r, stops_and_sleeps, loop, NULL, NULL), HEIST_ESTOPPED);
    assert_int_equal(heist_runtime_task_count(heist_loop_runtime(loop)), 1);
    assert_int_equal(heist_runner_run(r, waits_long, NULL, NULL, NULL), 0); /* which let the other end */
    assert_int_equal(heist_runtime_task_count(heist_loop_runtime(loop)), 0);
    end_runner(r);
}

static int fatal_callback(void *arg) {
    (void)arg;
    return HEIST_EFATAL;
}

static int meets_a_fatal_callback(void *arg, void **out) {
    (void)arg;
    (void)out;
    heist_loop *loop;
    int err = heist_get_running_loop(&loop);
    if (!err) err = heist_loop_call_soon(loop, fatal_callback, NULL, NULL, NULL);
    return err ? err : heist_sleep(1e6);
}

static void a_fatal_callback_ends_the_run(void **state) {
    (void)state;
    for (int k = 0; k < 2; k++) {
        heist_runner *r = new_runner(kinds[k], NULL);
        assert_int_equal(heist_runner_run(r, meets_a_fatal_callback, NULL, NULL, NULL), HEIST_EFATAL);
        end_runner(r);
    }
}

/* ---- debug mode ---- */

static int tells_debug(void *arg, void **out) {
    (void)out;
    heist_loop *loop;
    int err = heist_get_running_loop(&loop);
    *(int *)arg = err ? err : heist_loop_get_debug(loop);
    return err;
}

static int debug_with(unsigned flags) {
    int seen = -1;
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.flags = flags;
    opts.workers = harness_workers();
    assert_int_equal(heist_run(tells_debug, &seen, &opts, NULL), 0);
    int again = -1;
    for (int k = 0; k < 2; k++) {
        opts.flags = flags;
        heist_runner *r = new_runner(kinds[k], &opts);
        assert_int_equal(heist_runner_run(r, tells_debug, &again, NULL, NULL), 0);
        assert_int_equal(again, seen);
        end_runner(r);
    }
    return seen;
}

static void debug_mode_follows_the_option_else_the_environment_RUN_08_DBG_01(void **state) {
    (void)state;
    unsetenv("HEIST_DEBUG");
    assert_int_equal(debug_with(0), 0);
    assert_int_equal(debug_with(HEIST_RUNTIME_DEBUG), 1);
    setenv("HEIST_DEBUG", "1", 1);
    assert_int_equal(debug_with(0), 1);
    assert_int_equal(debug_with(HEIST_RUNTIME_NO_DEBUG), 0);
    assert_int_equal(debug_with(HEIST_RUNTIME_DEBUG), 1);
    setenv("HEIST_DEBUG", "0", 1);
    assert_int_equal(debug_with(0), 0);
    setenv("HEIST_DEBUG", "", 1);
    assert_int_equal(debug_with(0), 0);
    unsetenv("HEIST_DEBUG");
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.flags = HEIST_RUNTIME_DEBUG | HEIST_RUNTIME_NO_DEBUG;
    assert_int_equal(heist_run(nothing, NULL, &opts, NULL), -EINVAL);
}

static void debug_mode_is_switched_for_all_workers_at_once_DBG_01(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    for (int on = 0; on < 2; on++) {
        assert_int_equal(heist_runtime_set_debug(rt, on), 0);
        for (int i = 0; i < harness_workers(); i++)
            assert_int_equal(heist_loop_get_debug(heist_runtime_loop(rt, i)), on);
    }
    assert_int_equal(heist_runtime_set_debug(NULL, 1), -EINVAL);
    harness_runtime_end(rt);
}

/* ---- SIGINT ---- */

struct interrupted {
    struct gate begun;
    int code, also_cancel, ignore;
};

static int waits_for_signal(void *arg, void **out) {
    (void)out;
    struct interrupted *i = arg;
    heist_future *never = NULL;
    int err = heist_future_new(NULL, &never);
    if (err) return err;
    gate_open(&i->begun);
    i->code = heist_await(never, NULL);
    heist_unref(never);
    if (i->also_cancel) heist_cancel(heist_current_task());
    return i->ignore ? 0 : i->code;
}

static void *raises(void *arg) {
    struct interrupted *i = arg;
    gate_wait(&i->begun);
    raise(SIGINT);
    return NULL;
}

static void (*sigint_handler(void))(int) {
    struct sigaction now;
    return sigaction(SIGINT, NULL, &now) ? NULL : now.sa_handler;
}

static void sigint_cancels_main_and_gives_the_signal_back(void **state) {
    (void)state;
    signal(SIGINT, SIG_DFL);
    for (int k = 0; k < 3; k++) {
        for (int variant = 0; variant < 3; variant++) {
            struct interrupted i = {GATE_INIT, 0, variant == 1, variant == 2};
            heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
            opts.flags = HEIST_RUNTIME_SIGINT;
            opts.workers = harness_workers();
            heist_runner *r = k < 2 ? new_runner(kinds[k], &opts) : NULL;
            pthread_t t = harness_thread(raises, &i);
            int err = r ? heist_runner_run(r, waits_for_signal, &i, NULL, NULL)
                        : heist_run(waits_for_signal, &i, &opts, NULL);
            harness_join(t);
            /* Interrupted; cancelled by somebody else as well; went on. */
            assert_int_equal(err, variant == 0 ? -EINTR : variant == 1 ? -ECANCELED : 0);
            assert_int_equal(i.code, -ECANCELED);
            assert_true(sigint_handler() == SIG_DFL);
            if (r) {
                assert_int_equal(heist_runner_run(r, nothing, NULL, NULL, NULL), 0); /* usable as before */
                end_runner(r);
            }
        }
    }
}

static _Atomic(int) handled;
static void own_handler(int sig) {
    (void)sig;
    handled++;
}

static int opens_gate(void *arg, void **out) {
    (void)out;
    struct interrupted *i = arg;
    gate_open(&i->begun);
    while (!handled) { /* for ever: the harness sees that it hangs */
        int err = heist_sleep(0.001);
        if (err) return err; /* a cancel: then it was not left alone */
    }
    return 0;
}

static void without_being_asked_or_with_a_handler_of_the_programs_own_sigint_is_left_alone(void **state) {
    (void)state;
    struct interrupted i = {GATE_INIT, 0, 0, 0};
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.flags = HEIST_RUNTIME_SIGINT;
    opts.workers = harness_workers();
    handled = 0;
    signal(SIGINT, own_handler);
    pthread_t t = harness_thread(raises, &i);
    assert_int_equal(heist_run(opens_gate, &i, &opts, NULL), 0);
    harness_join(t);
    assert_int_equal(handled, 1);
    assert_true(sigint_handler() == own_handler);
    signal(SIGINT, SIG_DFL);
    opts.flags = 0;
    heist_runner *r = new_runner(false, &opts);
    assert_int_equal(heist_runner_run(r, nothing, NULL, NULL, NULL), 0);
    assert_true(sigint_handler() == SIG_DFL);
    end_runner(r);
    /* What has no main refuses the flag. */
    heist_runtime *rt = NULL;
    heist_loop *loop = NULL;
    opts.flags = HEIST_RUNTIME_SIGINT;
    assert_int_equal(heist_runtime_new(&opts, &rt), -EINVAL);
    opts.workers = 1;
    assert_int_equal(heist_loop_new(&opts, &loop), -EINVAL);
    assert_null(rt);
    assert_null(loop);
}

/* In a process of its own: the second signal ends it as if nobody had handled it. */
static int clings(void *arg, void **out) {
    (void)arg;
    (void)out;
    kill(getpid(), SIGINT); /* to the thread that called heist_run: the other workers block it */
    while (heist_sleep(0.001) == 0) {
    } /* until it is delivered */
    kill(getpid(), SIGINT);
    while (heist_sleep(0.001) != -EINVAL) {
    } /* it clings to life */
    return 0;
}

static int second_signal_scene(void) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.flags = HEIST_RUNTIME_SIGINT;
    opts.workers = harness_workers();
    signal(SIGINT, SIG_DFL);
    return heist_run(clings, NULL, &opts, NULL) ? 3 : 2;
}

static void a_second_sigint_ends_the_process(void **state) {
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        setenv("HEIST_TEST_SCENE", "second", 1);
        char self[4096]; /* the link itself leads to valgrind, under that */
        ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
        if (length > 0) self[length] = 0;
        if (length > 0) execl(self, self, (char *)NULL);
        _exit(4);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGINT);
}

/* ---- memory, fork ---- */

static int use_runner(bool alone) {
    heist_runner_options opts = HEIST_RUNNER_OPTIONS_INIT;
    heist_runtime_options runtime = HEIST_RUNTIME_OPTIONS_INIT;
    heist_runner *r = NULL;
    runtime.workers = 1;
    runtime.flags = HEIST_RUNTIME_SIGINT;
    opts.runtime = &runtime;
    if (alone) opts.loop_factory = heist_loop_new;
    int err = heist_runner_new(&opts, &r);
    if (err) return r ? -EPROTO : err;
    int x;
    void *out = NULL;
    int ran = heist_runner_run(r, answer, &x, NULL, &out);
    if (!ran && out != &x) ran = -EPROTO;
    err = heist_runner_close(r);
    heist_runner_unref(r);
    return ran ? ran : err;
}

static void a_runner_survives_each_failing_allocation(void **state) {
    (void)state;
    signal(SIGINT, SIG_DFL);
    for (int alone = 0; alone < 2; alone++) {
        for (long n = 1;; n++) {
            long blocks = harness_blocks();
            harness_allocations();
            harness_fail_allocation(n, false);
            int err = use_runner(alone);
            harness_fail_allocation(0, false);
            long asked = harness_allocations();
            if (err && err != -ENOMEM) fail_msg("allocation %ld failing: %s", n, heist_error_name(err));
            for (int i = 0; i < 30000 && harness_blocks() != blocks; i++) heist_sleep(0.001);
            assert_int_equal(harness_blocks(), blocks);
            assert_true(sigint_handler() == SIG_DFL);
            if (asked < n) break;
        }
    }
}

static int drops_its_runner(void *arg, void **out) {
    (void)out;
    heist_runner_unref(arg);
    return heist_sleep(1);
}

static void main_may_drop_the_last_reference_of_its_runner(void **state) {
    (void)state;
    heist_runtime_options run = HEIST_RUNTIME_OPTIONS_INIT;
    run.flags = HEIST_RUNTIME_VIRTUAL_TIME;
    heist_runner_options opts = HEIST_RUNNER_OPTIONS_INIT;
    opts.runtime = &run;
    opts.loop_factory = heist_loop_new; /* it is closed where it is dropped, and that is reported */
    heist_runner *r;
    assert_int_equal(heist_runner_new(&opts, &r), 0);
    assert_int_equal(heist_runner_run(r, drops_its_runner, r, NULL, NULL), 0);
}

static void a_child_of_fork_may_not_use_a_runner(void **state) {
    (void)state;
    heist_runner *r = new_runner(false, NULL), *other = NULL;
    heist_loop *loop = NULL;
    heist_context *ctx = NULL;
    int ends[2], told = -1;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        int wrong = heist_runner_run(r, nothing, NULL, NULL, NULL) != HEIST_EFORKED;
        wrong += heist_runner_get_loop(r, &loop) != HEIST_EFORKED;
        wrong += heist_runner_context(r, &ctx) != HEIST_EFORKED;
        wrong += heist_runner_close(r) != HEIST_EFORKED;
        wrong += heist_runner_new(NULL, &other) != HEIST_EFORKED;
        heist_runner_unref(r);
        _exit(write(ends[1], &wrong, sizeof wrong) == sizeof wrong ? 0 : 1);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &told, sizeof told), sizeof told); /* not its status: a detector may have its say */
    close(ends[0]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(told, 0);
    end_runner(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(run_makes_a_loop_gives_the_value_or_the_error_and_closes_RUN_01),
        API_TEST(what_is_no_main_is_refused_RUN_02),
        API_TEST(a_run_where_a_loop_runs_fails_and_starts_nothing_RUN_03_RUN_12),
        API_TEST(one_thread_at_a_time_runs_a_runner),
        API_TEST(work_is_handed_to_a_loop_that_runs_RUN_04),
        API_TEST(what_main_leaves_behind_is_cancelled_and_awaited_and_its_errors_reported_RUN_05_RUN_06),
        API_TEST(tasks_end_then_the_default_executor_RUN_07),
        API_TEST(two_runs_share_no_tasks_and_no_timers_RUN_14),
        API_TEST(mains_of_a_runner_share_one_loop_and_one_context_RUN_10),
        API_TEST(a_task_left_behind_is_there_for_the_next_main),
        API_TEST(a_closed_runner_refuses_and_closing_twice_is_harmless_RUN_11),
        API_TEST(a_factory_may_supply_the_loop_RUN_09),
        API_TEST(a_main_whose_loop_was_stopped_stays_pending),
        API_TEST(a_fatal_callback_ends_the_run),
        API_TEST(debug_mode_follows_the_option_else_the_environment_RUN_08_DBG_01),
        API_TEST(debug_mode_is_switched_for_all_workers_at_once_DBG_01),
        API_TEST(sigint_cancels_main_and_gives_the_signal_back),
        API_TEST(without_being_asked_or_with_a_handler_of_the_programs_own_sigint_is_left_alone),
        API_TEST(a_second_sigint_ends_the_process),
        API_TEST(a_runner_survives_each_failing_allocation),
        API_TEST(main_may_drop_the_last_reference_of_its_runner),
        API_TEST(a_child_of_fork_may_not_use_a_runner),
    };
    const char *scene = getenv("HEIST_TEST_SCENE");
    if (scene && !strcmp(scene, "second")) return second_signal_scene();
    return HARNESS_MAIN("runner", tests);
}
