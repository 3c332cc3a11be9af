/* Running out of memory: each allocation fails in turn.  The call that needed it says
 * -ENOMEM and nothing else, leaves its out-parameters and the caller's argument alone,
 * and everything stays usable.
 *
 * A scenario is run with the first allocation failing, then the second, and so on,
 * until one run meets no failure at all.  It ends with its own clean-up and a code;
 * the harness sees whether a block, a thread or a descriptor was left behind. */
#include "support/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Scenarios are longer than this by far only if an allocation is repeated for ever. */
#define ALLOCATIONS_MAX 2000

static _Atomic(int) frees, makes;
static void count_free(void *arg) {
    (void)arg;
    frees++;
}

/* The record of a run: codes that are neither 0 nor -ENOMEM are faults. */
static int fault_of(int err) {
    return err == 0 || err == -ENOMEM ? 0 : err;
}

static void fail_each_allocation(int (*scenario)(void), bool all_later) {
    long n = 1;
    for (;; n++) {
        long blocks = harness_blocks();
        int threads = harness_threads(), descriptors = harness_descriptors();
        frees = makes = 0;
        harness_allocations();
        harness_fail_allocation(n, all_later);
        int err = scenario();
        harness_fail_allocation(0, false);
        long asked = harness_allocations();
        if (fault_of(err) != 0) fail_msg("allocation %ld failing: %s", n, heist_error_name(err));
        if (frees != makes) fail_msg("allocation %ld failing: %d arguments, %d freed", n, makes, frees);
        if (harness_blocks() != blocks) fail_msg("allocation %ld failing: %ld blocks left", n, harness_blocks() - blocks);
        assert_int_equal(harness_descriptors(), descriptors);
        for (int i = 0; i < 30000 && harness_threads() > threads; i++) heist_sleep(0.001);
        assert_int_equal(harness_threads(), threads);
        if (asked < n) break; /* nothing failed in this run */
        assert_true(n < ALLOCATIONS_MAX);
    }
    assert_true(n > 1); /* the scenario does allocate */
}

/* Once, and from there on, for memory that is gone usually stays gone for a while. */
static void fail_each_allocation_both_ways(int (*scenario)(void)) {
    fail_each_allocation(scenario, false);
    fail_each_allocation(scenario, true);
}

static int callback(void *arg) {
    (void)arg;
    return 0;
}

static int nothing(void *arg, void **out) {
    (void)arg;
    (void)out;
    return 0;
}

/* ---- loops and callbacks ---- */

static int use_loop(void) {
    heist_loop *loop = NULL;
    heist_handle *handle = NULL;
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    opts.arg_free = count_free;
    int err = heist_loop_new(NULL, &loop);
    if (err < 0) return loop ? -EPROTO : err;
    int first = heist_loop_call_soon(loop, callback, &opts, &opts, NULL);
    makes += first == 0;
    int second = heist_loop_call_later(loop, 0, callback, &opts, &opts, &handle);
    makes += second == 0;
    if ((second == 0) != (handle != NULL)) err = -EPROTO;
    int third = heist_loop_call_later(loop, 1000, callback, &opts, &opts, NULL);
    makes += third == 0;
    int stop = heist_loop_stop(loop), run = heist_loop_run_forever(loop);
    heist_handle_unref(handle);
    int closed = heist_loop_close(loop);
    heist_loop_unref(loop);
    if (err == 0) err = fault_of(first);
    if (err == 0) err = fault_of(second);
    if (err == 0) err = fault_of(third);
    if (err == 0) err = stop;      /* stopping, running */
    if (err == 0) err = run;
    if (err == 0) err = closed;    /* and closing need no memory that could be missing */
    return err;
}

static void loop_and_callbacks_survive_each_failing_allocation(void **state) {
    (void)state;
    fail_each_allocation_both_ways(use_loop);
}

/* ---- tasks, on a loop of their own ---- */

static int sleep_and_await(void *arg, void **out) {
    heist_task *task = NULL;
    heist_future *future = NULL;
    (void)arg;
    (void)out;
    int err = heist_create_task(nothing, NULL, NULL, &task);
    if (err < 0) return err;
    err = heist_await(task, NULL);
    heist_unref(task);
    if (err < 0) return err;
    err = heist_sleep(0);
    if (err < 0) return err;
    err = heist_sleep(0.0001);
    if (err < 0) return err;
    err = heist_future_new(NULL, &future);
    if (err < 0) return err;
    err = heist_await_until(future, heist_time() + 0.0001, NULL);
    heist_unref(future);
    return err == -ETIMEDOUT ? 0 : err;
}

static int use_tasks(void) {
    heist_loop *loop = NULL;
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    heist_task *task = NULL;
    int err = heist_loop_new(NULL, &loop);
    if (err < 0) return err;
    opts.arg_free = count_free;
    opts.name = "a name that is longer than anything kept in place";
    int made = heist_loop_create_task(loop, sleep_and_await, &opts, &opts, &task);
    makes += made == 0;
    if (made == 0) {
        err = heist_task_set_name(task, "another name that is longer than anything kept in place");
        int ran = heist_loop_run_until_complete(loop, task, NULL);
        if (fault_of(err) == 0) err = ran;
        heist_unref(task);
    } else {
        err = made;
    }
    int closed = heist_loop_close(loop);
    heist_loop_unref(loop);
    return fault_of(err) == 0 && closed != 0 ? closed : err;
}

static void tasks_survive_each_failing_allocation(void **state) {
    (void)state;
    fail_each_allocation_both_ways(use_tasks);
}

/* ---- futures ---- */

static void note_done(heist_future *future, void *user) {
    (void)future;
    (void)user;
}

static int use_futures(void) {
    heist_loop *loop = NULL;
    heist_future *future = NULL, *failed = NULL, *cancelled = NULL;
    int err = heist_loop_new(NULL, &loop);
    if (err < 0) return err;
    int made = heist_loop_create_future(loop, &future);
    if (made == 0) {
        for (int i = 0; i < 5; i++) {
            int added = heist_future_add_done_callback(future, note_done, &frees, count_free);
            makes += added == 0;
            if (err == 0) err = fault_of(added);
        }
        int set = heist_future_set_result(future, &makes, NULL);
        if (err == 0) err = fault_of(set);
        if (set == -ENOMEM) heist_cancel(future);
        heist_loop_stop(loop);
        int run = heist_loop_run_forever(loop);
        if (err == 0) err = run;
    } else if (err == 0) {
        err = fault_of(made);
    }
    if (heist_future_new(NULL, &failed) == 0) {
        /* A message that cannot be copied is no reason to lose the failure: either it is set or it is not. */
        int set = heist_future_set_exception(failed, -EPIPE, "a message that is longer than anything kept in place");
        if (set == 0 && heist_future_result(failed, NULL) != -EPIPE) err = -EPROTO;
        if (set != 0 && heist_future_done(failed)) err = -EPROTO;
        if (err == 0) err = fault_of(set);
    }
    if (heist_future_new(NULL, &cancelled) == 0) {
        int asked = heist_cancel_message(cancelled, "a message that is longer than anything kept in place");
        if (asked != 1 && asked != -ENOMEM) err = -EPROTO;
    }
    heist_unref(future);
    heist_unref(failed);
    heist_unref(cancelled);
    int closed = heist_loop_close(loop);
    heist_loop_unref(loop);
    return fault_of(err) == 0 && closed != 0 ? closed : err;
}

static void futures_survive_each_failing_allocation(void **state) {
    (void)state;
    fail_each_allocation_both_ways(use_futures);
}

/* ---- gather, channels ---- */

static int gather_some(void *arg, void **out) {
    heist_task *tasks[20] = {NULL};
    heist_channel *channel = NULL;
    int err = 0, made = 0;
    (void)arg;
    (void)out;
    for (; made < 20; made++) {
        err = heist_create_task(nothing, NULL, NULL, &tasks[made]);
        if (err < 0) break;
    }
    int gathered = heist_gather(tasks, (size_t)made, NULL, 0);
    if (fault_of(err) == 0) err = gathered;
    for (int i = 0; i < made; i++) heist_unref(tasks[i]);
    int opened = heist_channel_new(3, &channel);
    if (opened == 0) {
        void *value = NULL;
        int sent = heist_channel_send(channel, &makes), got = sent == 0 ? heist_channel_recv(channel, &value) : 0;
        if (fault_of(err) == 0) err = sent;
        if (fault_of(err) == 0) err = got;
        heist_channel_unref(channel);
    }
    return fault_of(err) ? err : opened < 0 ? opened : err;
}

static int use_gather(void) {
    heist_loop *loop = NULL;
    int err = heist_loop_new(NULL, &loop);
    if (err < 0) return err;
    err = heist_loop_run_coroutine(loop, gather_some, NULL, NULL, NULL);
    int closed = heist_loop_close(loop);
    heist_loop_unref(loop);
    return fault_of(err) == 0 && closed != 0 ? closed : err;
}

static void gather_and_channels_survive_each_failing_allocation(void **state) {
    (void)state;
    fail_each_allocation_both_ways(use_gather);
}

/* ---- what nests ---- */

static int compose(void *arg, void **out) {
    heist_awaitable coros[3] = {HEIST_CORO(nothing, NULL), HEIST_CORO(nothing, NULL), HEIST_CORO(nothing, NULL)};
    heist_future *f[4] = {NULL, NULL, NULL, NULL}, *nap = NULL, *shield = NULL, *all = NULL, *derived[3];
    heist_completions *it = NULL;
    size_t n = 0, pending;
    (void)arg;
    (void)out;
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    opts.arg_free = count_free;
    for (int i = 0; i < 3; i++) coros[i].arg = &frees;
    size_t passed = 3;
    int err = heist_ensure_futures(NULL, coros, 3, &opts, &passed, f);
    makes += (int)passed;
    n = err == 0 ? 3 : 0;
    if (err == 0) err = heist_sleep_future(NULL, 0.0001, f, NULL, &nap);
    if (err == 0) err = heist_shield(nap, &shield);
    if (err == 0) {
        f[n++] = shield;
        err = heist_gather_future(f, n, 0, &all);
    }
    if (err == 0) err = heist_as_completed(f, n, HEIST_FOREVER, &it);
    if (err == 0) err = heist_wait(f, n, HEIST_FIRST_COMPLETED, HEIST_FOREVER, &pending) >= 0 ? 0 : -ENOMEM;
    if (err == 0) err = heist_wait_for(all, HEIST_FOREVER, NULL);
    derived[0] = nap, derived[1] = shield, derived[2] = all;
    if (err == 0) err = heist_gather(derived, 3, NULL, 0);
    heist_completions_free(it);
    if (all) heist_cancel(all);
    if (nap) heist_cancel(nap);
    heist_unref(nap);
    heist_unref(all);
    if (n < 4) heist_unref(shield);
    for (size_t i = 0; i < n; i++) {
        int ended = heist_await(f[i], NULL); /* 0, -ECANCELED, or -ENOMEM: no stack for it */
        if (fault_of(err) == 0 && ended != -ECANCELED) err = ended;
        heist_unref(f[i]);
    }
    return err;
}

static int use_flow(void) {
    heist_loop *loop = NULL;
    int err = heist_loop_new(NULL, &loop);
    if (err < 0) return err;
    err = heist_loop_run_coroutine(loop, compose, NULL, NULL, NULL);
    int closed = heist_loop_close(loop);
    heist_loop_unref(loop);
    return fault_of(err) == 0 && closed != 0 ? closed : err;
}

static void what_nests_survives_each_failing_allocation(void **state) {
    (void)state;
    fail_each_allocation_both_ways(use_flow);
}

/* ---- runtimes ---- */

static int use_runtime(void) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_runtime *rt = NULL;
    heist_task_options task_opts = HEIST_TASK_OPTIONS_INIT;
    heist_call_options call_opts = HEIST_CALL_OPTIONS_INIT;
    int err;
    opts.workers = harness_workers();
    opts.name = "starved";
    task_opts.arg_free = count_free;
    call_opts.arg_free = count_free;
    err = heist_runtime_new(&opts, &rt);
    if (err < 0) return rt ? -EPROTO : err;
    for (int i = 0; i < 4; i++) {
        heist_task *task = NULL;
        int made = heist_runtime_run_coroutine(rt, nothing, &frees, &task_opts, &task);
        makes += made == 0;
        if (made == 0) {
            int ended = heist_await(task, NULL); /* 0, or -ENOMEM: no stack for it */
            if (fault_of(err) == 0) err = ended;
            heist_unref(task);
        } else if (fault_of(err) == 0) {
            err = made;
        }
        int called = heist_runtime_call_soon(rt, callback, &frees, &call_opts, NULL);
        makes += called == 0;
        if (fault_of(err) == 0) err = called;
        called = heist_loop_call_soon(heist_runtime_loop(rt, 0), callback, &frees, &call_opts, NULL);
        makes += called == 0;
        if (fault_of(err) == 0) err = called;
    }
    int closed = heist_runtime_close(rt, HEIST_FOREVER);
    heist_runtime_unref(rt);
    return fault_of(err) == 0 && closed != 0 ? closed : err;
}

static void runtime_survives_each_failing_allocation(void **state) {
    (void)state;
    fail_each_allocation_both_ways(use_runtime);
}

static int use_run(void) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = harness_workers();
    return heist_run(gather_some, NULL, &opts, NULL);
}

static void run_survives_each_failing_allocation(void **state) {
    (void)state;
    fail_each_allocation_both_ways(use_run);
}

/* ---- sockets ---- */

struct meeting {
    heist_listener *listener;
    heist_conn *conn;
};

static int accept_meeting(void *arg, void **out) {
    struct meeting *meeting = arg;
    (void)out;
    return heist_accept(meeting->listener, HEIST_FOREVER, &meeting->conn);
}

static int meet(void *arg, void **out) {
    struct meeting meeting = {NULL, NULL};
    heist_conn *conn = NULL;
    heist_task *task = NULL;
    heist_addr addr;
    char byte;
    (void)arg;
    (void)out;
    int err = heist_addr_parse("127.0.0.1:0", &addr);
    if (err == 0) err = heist_listen(&addr, NULL, &meeting.listener);
    if (err < 0) return err;
    if (err == 0) err = heist_listener_addr(meeting.listener, &addr);
    if (err == 0) err = heist_create_task(accept_meeting, &meeting, NULL, &task);
    if (err == 0) err = heist_connect(&addr, HEIST_FOREVER, &conn);
    if (err == 0) err = heist_conn_write(conn, "x", 1, HEIST_FOREVER, NULL);
    if (task) {
        if (err < 0) heist_cancel(task);
        int accepted = heist_await(task, NULL);
        if (err == 0) err = accepted;
        heist_unref(task);
    }
    if (err == 0) {
        ptrdiff_t n = heist_conn_read(meeting.conn, &byte, 1, HEIST_FOREVER);
        if (n != 1) err = n < 0 ? (int)n : -EPROTO;
    }
    heist_conn_close(conn);
    heist_conn_close(meeting.conn);
    heist_listener_close(meeting.listener);
    return err;
}

static int use_sockets(void) {
    heist_loop *loop = NULL;
    int err = heist_loop_new(NULL, &loop);
    if (err < 0) return err;
    err = heist_loop_run_coroutine(loop, meet, NULL, NULL, NULL);
    int closed = heist_loop_close(loop);
    heist_loop_unref(loop);
    return fault_of(err) == 0 && closed != 0 ? closed : err;
}

static void sockets_survive_each_failing_allocation(void **state) {
    (void)state;
    fail_each_allocation_both_ways(use_sockets);
}

/* ---- the rest ---- */

static int use_reports(void) {
    struct record record = RECORD_INIT;
    heist_loop *loop = NULL;
    heist_task **list = NULL;
    size_t count = 0;
    heist_report report = HEIST_REPORT_INIT;
    int ends[2];
    int err = heist_loop_new(NULL, &loop);
    if (err < 0) return err;
    if (pipe(ends) < 0) abort();
    report.message = "by hand";
    report.code = -EIO;
    int set = heist_loop_set_exception_handler(loop, record_report, &record);
    if (fault_of(err) == 0) err = set;
    int called = heist_loop_call_exception_handler(loop, &report);
    if (fault_of(err) == 0) err = called;
    int listed = heist_all_tasks(loop, &list, &count);
    if (listed == 0) heist_task_list_free(list, count);
    if (fault_of(err) == 0) err = listed;
    int added = heist_loop_add_reader(loop, ends[0], callback, NULL, NULL);
    if (fault_of(err) == 0) err = added;
    if (added == 0 && heist_loop_remove_reader(loop, ends[0]) != 1) err = -EPROTO;
    heist_loop_stop(loop);
    int run = heist_loop_run_forever(loop);
    if (fault_of(err) == 0) err = run;
    int closed = heist_loop_close(loop);
    heist_loop_unref(loop);
    close(ends[0]);
    close(ends[1]);
    return fault_of(err) == 0 && closed != 0 ? closed : err;
}

static void reports_lists_and_readers_survive_each_failing_allocation(void **state) {
    (void)state;
    fail_each_allocation_both_ways(use_reports);
}

static const struct CMUnitTest tests[] = {
    API_TEST(loop_and_callbacks_survive_each_failing_allocation),
    API_TEST(tasks_survive_each_failing_allocation),
    API_TEST(futures_survive_each_failing_allocation),
    API_TEST(gather_and_channels_survive_each_failing_allocation),
    API_TEST(what_nests_survives_each_failing_allocation),
    API_TEST(runtime_survives_each_failing_allocation),
    API_TEST(run_survives_each_failing_allocation),
    API_TEST(sockets_survive_each_failing_allocation),
    API_TEST(reports_lists_and_readers_survive_each_failing_allocation),
};

int main(void) {
    return HARNESS_MAIN("nomem", tests);
}
