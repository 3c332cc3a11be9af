/* A runtime of N workers: rows MT, heist_run, options, counters, starting again. */
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

static int give_argument(void *arg, void **out) {
    *out = arg;
    return 0;
}

static int fail_main(void *arg, void **out) {
    (void)arg;
    (void)out;
    return heist_fail(-EPROTO, "main did not work");
}

/* ---- heist_run ---- */

static void run_returns_what_main_returned(void **state) {
    (void)state;
    int value = 1;
    void *out = NULL;
    assert_int_equal(harness_run(give_argument, &value, &out), 0);
    assert_ptr_equal(out, &value);
    out = NULL;
    assert_int_equal(harness_run(fail_main, NULL, &out), -EPROTO);
    assert_null(out);
    assert_int_equal(heist_run(nothing, NULL, NULL, NULL), 0); /* all defaults */
}

static int sleep_long(void *arg, void **out) {
    struct record *record = arg;
    (void)out;
    int err = heist_sleep(1000);
    record_add(record, "%d", err == -ECANCELED);
    return err;
}

static int leave_children_behind(void *arg, void **out) {
    (void)out;
    for (int i = 0; i < 3; i++) {
        int err = heist_create_task(sleep_long, arg, NULL, NULL);
        if (err < 0) return err;
    }
    return heist_sleep(1); /* they are asleep by then */
}

static void run_cancels_what_is_left(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    assert_int_equal(harness_run(leave_children_behind, &record, NULL), 0);
    assert_string_equal(record_text(&record), "1 1 1");
}

struct place {
    pthread_t thread;
    int workers, threads, err;
    heist_runtime *rt;
};

static int look_around(void *arg, void **out) {
    struct place *place = arg;
    heist_loop *loop = NULL;
    (void)out;
    place->thread = pthread_self();
    place->threads = harness_threads();
    place->err = heist_get_running_loop(&loop);
    if (place->err < 0) return place->err;
    place->rt = heist_loop_runtime(loop);
    place->workers = heist_runtime_workers(place->rt);
    return 0;
}

static void one_worker_runs_on_the_callers_thread_alone(void **state) {
    (void)state;
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    struct place place = {.workers = -1};
    int before = harness_threads();
    opts.workers = 1;
    assert_int_equal(heist_run(look_around, &place, &opts, NULL), 0);
    assert_int_equal(place.workers, 1);
    assert_true(pthread_equal(place.thread, pthread_self()));
    assert_int_equal(place.threads, before); /* no hidden thread */
}

static int run_in_a_task(void *arg, void **out) {
    int *err = arg;
    (void)out;
    *err = heist_run(nothing, NULL, NULL, NULL);
    return 0;
}

static void run_inside_a_task_is_refused(void **state) {
    (void)state;
    int err = 1;
    assert_int_equal(harness_run(run_in_a_task, &err, NULL), 0);
    assert_int_equal(err, HEIST_EOTHERRUNNING);
}

/* ---- how many workers ---- */

static void number_of_workers_is_what_was_asked_MT_09(void **state) {
    (void)state;
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    static const int asked[] = {1, 2, 3, 8};
    for (int i = 0; i < 4; i++) {
        heist_runtime *rt = NULL;
        opts.workers = asked[i];
        assert_int_equal(heist_runtime_new(&opts, &rt), 0);
        assert_int_equal(heist_runtime_workers(rt), asked[i]);
        for (int k = 0; k < asked[i]; k++) {
            heist_loop *loop = heist_runtime_loop(rt, k);
            assert_non_null(loop);
            assert_ptr_equal(heist_loop_runtime(loop), rt);
            for (int j = 0; j < k; j++) assert_ptr_not_equal(heist_runtime_loop(rt, j), loop);
        }
        assert_null(heist_runtime_loop(rt, asked[i]));
        assert_null(heist_runtime_loop(rt, -1));
        harness_runtime_end(rt);
    }
    opts.workers = -1;
    heist_runtime *none = NULL;
    assert_int_equal(heist_runtime_new(&opts, &none), -EINVAL);
    assert_null(none);
}

static void default_is_one_worker_for_each_available_processor_MT_09(void **state) {
    (void)state;
    cpu_set_t available, one;
    struct place place = {.workers = -1};
    assert_int_equal(sched_getaffinity(0, sizeof available, &available), 0);
    assert_int_equal(heist_run(look_around, &place, NULL, NULL), 0);
    assert_true(place.workers >= 1 && place.workers <= CPU_COUNT(&available)); /* a quota may lower it */

    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &available)) continue;
        CPU_SET(cpu, &one);
        break;
    }
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    int err = heist_run(look_around, &place, NULL, NULL);
    assert_int_equal(sched_setaffinity(0, sizeof available, &available), 0);
    assert_int_equal(err, 0);
    assert_int_equal(place.workers, 1);
}

/* ---- one worker at a time ---- */

struct exclusive {
    _Atomic(int) inside, together;
    int plain; /* unprotected: a race detector would see two workers in one task */
    heist_task *self;
    int wrong_self;
};

static int be_alone(void *arg, void **out) {
    struct exclusive *exclusive = arg;
    (void)out;
    exclusive->self = heist_current_task();
    for (int i = 0; i < 200; i++) {
        if (++exclusive->inside > 1) exclusive->together++;
        exclusive->plain++;
        if (heist_current_task() != exclusive->self) exclusive->wrong_self++;
        exclusive->inside--;
        int err = i % 16 == 15 ? heist_sleep(0.001) : heist_yield();
        if (err < 0) return err;
    }
    return 0;
}

static int run_exclusives(void *arg, void **out) {
    enum { COUNT = 40 };
    struct exclusive *exclusives = arg;
    heist_task *tasks[COUNT];
    (void)out;
    for (int i = 0; i < COUNT; i++) {
        int err = heist_create_task(be_alone, &exclusives[i], NULL, &tasks[i]);
        if (err < 0) return err;
    }
    int err = heist_gather(tasks, COUNT, NULL, 0);
    for (int i = 0; i < COUNT; i++) heist_unref(tasks[i]);
    return err;
}

static void task_is_run_by_one_worker_at_a_time_and_stays_itself_MT_01_MT_05(void **state) {
    (void)state;
    static struct exclusive exclusives[40];
    memset(exclusives, 0, sizeof exclusives);
    assert_int_equal(harness_run(run_exclusives, exclusives, NULL), 0);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(exclusives[i].together, 0);
        assert_int_equal(exclusives[i].plain, 200);
        assert_int_equal(exclusives[i].wrong_self, 0);
    }
}

/* ---- waking ---- */

struct handoff {
    heist_future *futures[300];
    _Atomic(int) published;
};

static int await_each(void *arg, void **out) {
    struct handoff *handoff = arg;
    (void)out;
    for (int i = 0; i < 300; i++) {
        handoff->published = i + 1; /* from here on the other side may complete it: while we suspend, or before */
        int err = heist_await(handoff->futures[i], NULL);
        if (err < 0) return err;
    }
    return 0;
}

static void *complete_each(void *arg) {
    struct handoff *handoff = arg;
    for (int i = 0; i < 300; i++) {
        while (handoff->published <= i) sched_yield();
        if (heist_future_set_result(handoff->futures[i], NULL, NULL) < 0) abort();
    }
    return NULL;
}

static void wake_up_on_the_way_to_suspending_is_not_lost_MT_02(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    static struct handoff handoff;
    heist_task *task = NULL;
    handoff.published = 0;
    for (int i = 0; i < 300; i++) assert_int_equal(heist_future_new(NULL, &handoff.futures[i]), 0);
    pthread_t thread = harness_thread(complete_each, &handoff);
    int err = heist_runtime_run_coroutine(rt, await_each, &handoff, NULL, &task);
    if (err == 0) err = heist_await(task, NULL);
    harness_join(thread);
    heist_unref(task);
    for (int i = 0; i < 300; i++) heist_unref(handoff.futures[i]);
    harness_runtime_end(rt);
    assert_int_equal(err, 0);
}

static void parked_workers_are_woken_for_new_work_MT_03(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    int bad = 0;
    for (int round = 0; round < 30; round++) {
        heist_task *task = NULL;
        heist_sleep(0.002); /* a plain thread sleeps; the workers go to sleep meanwhile */
        int err = heist_runtime_run_coroutine(rt, nothing, NULL, NULL, &task);
        if (err == 0) err = heist_await(task, NULL);
        if (err < 0) bad++;
        heist_unref(task);
    }
    harness_runtime_end(rt);
    assert_int_equal(bad, 0);
}

/* ---- stealing ---- */

struct rescue {
    struct gate all_ran;
    _Atomic(int) left;
    pthread_t blocked_thread;
    _Atomic(int) same_thread;
};

static int be_rescued(void *arg, void **out) {
    struct rescue *rescue = arg;
    (void)out;
    if (pthread_equal(pthread_self(), rescue->blocked_thread)) rescue->same_thread++;
    if (--rescue->left == 0) gate_open(&rescue->all_ran);
    return 0;
}

/* Creates children into its own worker's deque, then blocks that worker until others have run them. */
static int block_the_worker(void *arg, void **out) {
    struct rescue *rescue = arg;
    (void)out;
    rescue->blocked_thread = pthread_self();
    rescue->left = 20;
    for (int i = 0; i < 20; i++) {
        int err = heist_create_task(be_rescued, rescue, NULL, NULL);
        if (err < 0) return err;
    }
    gate_wait(&rescue->all_ran);
    return 0;
}

static void tasks_of_a_blocked_worker_are_run_by_others_MT_04_LOOP_31(void **state) {
    (void)state;
    if (harness_workers() == 1) skip(); /* one worker has nobody to steal from it: the asyncio behaviour */
    heist_runtime *rt = harness_runtime(0);
    struct rescue rescue = {.all_ran = GATE_INIT};
    heist_task *task = NULL;
    int err = heist_runtime_run_coroutine(rt, block_the_worker, &rescue, NULL, &task);
    if (err == 0) err = heist_await(task, NULL);
    uint64_t stolen = 0;
    for (int i = 0; i < harness_workers(); i++) {
        heist_worker_stats stats = HEIST_WORKER_STATS_INIT;
        if (heist_runtime_stats(rt, i, &stats) == 0) stolen += stats.stolen;
    }
    heist_unref(task);
    harness_runtime_end(rt);
    assert_int_equal(err, 0);
    assert_int_equal(rescue.same_thread, 0);
    assert_true(stolen > 0);
}

struct due {
    struct gate fired;
};

static int sleep_then_open(void *arg, void **out) {
    struct due *due = arg;
    (void)out;
    int err = heist_sleep(0.003);
    gate_open(&due->fired);
    return err;
}

static int sleep_elsewhere_while_blocked(void *arg, void **out) {
    struct due *due = arg;
    (void)out;
    int err = heist_create_task(sleep_then_open, due, NULL, NULL);
    if (err < 0) return err;
    err = heist_yield(); /* it arms its timer, most likely on this worker */
    if (err < 0) return err;
    gate_wait(&due->fired);
    return 0;
}

static void due_timer_of_a_blocked_worker_is_served_by_another_MT_04_MT_07(void **state) {
    (void)state;
    if (harness_workers() == 1) skip();
    heist_runtime *rt = harness_runtime(0);
    int bad = 0;
    for (int i = 0; i < 20; i++) {
        struct due due = {GATE_INIT};
        heist_task *task = NULL;
        int err = heist_runtime_run_coroutine(rt, sleep_elsewhere_while_blocked, &due, NULL, &task);
        if (err == 0) err = heist_await(task, NULL);
        if (err < 0) bad++;
        heist_unref(task);
    }
    harness_runtime_end(rt);
    assert_int_equal(bad, 0);
}

/* ---- pinning ---- */

struct pinned {
    heist_loop *loop;
    pthread_t first;
    int moved, other_loop;
};

static int stay_here(void *arg, void **out) {
    struct pinned *pinned = arg;
    heist_loop *loop = NULL;
    (void)out;
    pinned->first = pthread_self();
    for (int i = 0; i < 100; i++) {
        int err = i % 10 == 9 ? heist_sleep(0.0005) : heist_yield();
        if (err < 0) return err;
        if (!pthread_equal(pthread_self(), pinned->first)) pinned->moved++;
        if (heist_get_running_loop(&loop) < 0 || loop != pinned->loop) pinned->other_loop++;
    }
    return 0;
}

static void pinned_task_never_leaves_its_loop_MT_06(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(HEIST_RUNTIME_VIRTUAL_TIME);
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    struct pinned pinned[16];
    heist_task *tasks[16];
    opts.flags = HEIST_TASK_PINNED;
    for (int i = 0; i < 16; i++) {
        pinned[i] = (struct pinned){.loop = heist_runtime_loop(rt, i % harness_workers())};
        assert_int_equal(heist_loop_create_task(pinned[i].loop, stay_here, &pinned[i], &opts, &tasks[i]), 0);
    }
    int bad = 0;
    for (int i = 0; i < 16; i++) {
        if (heist_await(tasks[i], NULL) != 0) bad++;
        heist_unref(tasks[i]);
    }
    harness_runtime_end(rt);
    assert_int_equal(bad, 0);
    for (int i = 0; i < 16; i++) {
        assert_int_equal(pinned[i].moved, 0);
        assert_int_equal(pinned[i].other_loop, 0);
    }
}

static int pin_from_inside(void *arg, void **out) {
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    struct pinned *pinned = arg;
    heist_task *task = NULL;
    (void)out;
    opts.flags = HEIST_TASK_PINNED;
    int err = heist_get_running_loop(&pinned->loop);
    if (err == 0) err = heist_create_task(stay_here, pinned, &opts, &task);
    if (err < 0) return err;
    if (heist_future_loop(task) != pinned->loop) pinned->other_loop++;
    err = heist_await(task, NULL);
    heist_unref(task);
    return err;
}

static void task_pinned_from_inside_belongs_to_the_running_loop_MT_06(void **state) {
    (void)state;
    struct pinned pinned = {0};
    assert_int_equal(harness_run(pin_from_inside, &pinned, NULL), 0);
    assert_int_equal(pinned.moved, 0);
    assert_int_equal(pinned.other_loop, 0);
}

/* ---- fairness ---- */

struct fair {
    _Atomic(bool) stop;
    _Atomic(long) yields;
    _Atomic(int) timers;
};

static int yield_for_ever(void *arg, void **out) {
    struct fair *fair = arg;
    (void)out;
    while (!fair->stop) {
        int err = heist_yield();
        if (err < 0) return err;
        fair->yields++;
    }
    return 0;
}

static int sleep_ten_times(void *arg, void **out) {
    struct fair *fair = arg;
    (void)out;
    for (int i = 0; i < 10; i++) {
        int err = heist_sleep(0.0005);
        if (err < 0) return err;
        fair->timers++;
    }
    fair->stop = true;
    return 0;
}

static int count_posted(void *arg) {
    struct fair *fair = arg;
    fair->timers++;
    return 0;
}

/* More yielding tasks than workers, and still timers, the injection queue and the inbox are served. */
static void yielding_in_a_tight_loop_starves_nobody_MT_08(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    struct fair fair = {.stop = false};
    enum { YIELDERS = 20 };
    heist_task *tasks[YIELDERS + 1];
    int bad = 0;
    for (int i = 0; i < YIELDERS; i++)
        assert_int_equal(heist_runtime_run_coroutine(rt, yield_for_ever, &fair, NULL, &tasks[i]), 0);
    assert_int_equal(heist_runtime_run_coroutine(rt, sleep_ten_times, &fair, NULL, &tasks[YIELDERS]), 0);
    for (int i = 0; i < harness_workers(); i++)
        assert_int_equal(heist_loop_call_soon(heist_runtime_loop(rt, i), count_posted, &fair, NULL, NULL), 0);
    for (int i = 0; i < YIELDERS + 1; i++) {
        if (heist_await(tasks[i], NULL) != 0) bad++;
        heist_unref(tasks[i]);
    }
    harness_runtime_end(rt);
    assert_int_equal(bad, 0);
    assert_true(fair.timers >= 10);
}

/* ---- shutting down, starting again, several at once ---- */

static int fan_out(void *arg, void **out) {
    long depth = (long)(intptr_t)arg;
    (void)out;
    if (depth == 0) return heist_sleep(1000);
    for (int i = 0; i < 3; i++) {
        int err = heist_create_task(fan_out, (void *)(intptr_t)(depth - 1), NULL, NULL);
        if (err < 0) return err == HEIST_ECLOSED ? 0 : err; /* closed meanwhile, which is the point */
    }
    return heist_yield();
}

static void closing_in_the_middle_of_everything_leaves_nothing_MT_10(void **state) {
    (void)state;
    for (int round = 0; round < 10; round++) {
        heist_runtime *rt = harness_runtime(0);
        for (int i = 0; i < 10; i++)
            assert_int_equal(heist_runtime_run_coroutine(rt, fan_out, (void *)(intptr_t)(round % 5), NULL, NULL), 0);
        if (round % 2) heist_sleep(0.001);
        assert_int_equal(heist_runtime_close(rt, HEIST_FOREVER), 0);
        assert_int_equal(heist_runtime_task_count(rt), 0);
        heist_runtime_unref(rt);
    }
}

static void runtimes_start_and_stop_again_MT_10(void **state) {
    (void)state;
    for (int i = 0; i < 25; i++) {
        int value = i;
        void *out = NULL;
        assert_int_equal(harness_run(give_argument, &value, &out), 0);
        assert_ptr_equal(out, &value);
    }
}

static void several_runtimes_live_side_by_side(void **state) {
    (void)state;
    heist_runtime *rts[3];
    heist_task *tasks[3];
    struct place places[3];
    for (int i = 0; i < 3; i++) {
        places[i] = (struct place){.workers = -1};
        rts[i] = harness_runtime(0);
        assert_int_equal(heist_runtime_run_coroutine(rts[i], look_around, &places[i], NULL, &tasks[i]), 0);
    }
    int bad = 0;
    for (int i = 0; i < 3; i++) {
        if (heist_await(tasks[i], NULL) != 0 || places[i].rt != rts[i]) bad++;
        heist_unref(tasks[i]);
    }
    for (int i = 0; i < 3; i++) harness_runtime_end(rts[i]);
    assert_int_equal(bad, 0);
}

struct outer {
    heist_runtime *rt;
    int err;
    void *value;
};

static int use_another_runtime(void *arg, void **out) {
    struct outer *outer = arg;
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_runtime *inner = NULL;
    heist_task *task = NULL;
    (void)out;
    opts.workers = 1;
    outer->err = heist_runtime_new(&opts, &inner);
    if (outer->err < 0) return outer->err;
    outer->err = heist_runtime_run_coroutine(inner, give_argument, outer, NULL, &task);
    if (outer->err == 0) outer->err = heist_await(task, &outer->value);
    heist_unref(task);
    int err = heist_runtime_close(inner, HEIST_FOREVER); /* a task of another runtime may, and blocks */
    if (outer->err == 0) outer->err = err;
    heist_runtime_unref(inner);
    return 0;
}

static void task_may_make_use_and_close_another_runtime(void **state) {
    (void)state;
    struct outer outer = {.err = 1};
    assert_int_equal(harness_run(use_another_runtime, &outer, NULL), 0);
    assert_int_equal(outer.err, 0);
    assert_ptr_equal(outer.value, &outer);
}

/* ---- what belongs to the workers alone ---- */

static void loop_of_a_runtime_is_run_stopped_and_closed_by_the_runtime_alone(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    heist_loop *loop = heist_runtime_loop(rt, 0);
    int forever = heist_loop_run_forever(loop), stop = heist_loop_stop(loop), close = heist_loop_close(loop);
    int fd = heist_loop_fd(loop), once = heist_loop_run_once(loop, NULL);
    harness_runtime_end(rt);
    assert_int_equal(forever, HEIST_ENOTINCORO);
    assert_int_equal(once, HEIST_ENOTINCORO);
    assert_int_equal(stop, -ENOTSUP);
    assert_int_equal(close, -ENOTSUP);
    assert_int_equal(fd, -ENOTSUP);
}

/* ---- counters ---- */

static int work_a_little(void *arg, void **out) {
    (void)arg;
    (void)out;
    for (int i = 0; i < 10; i++) {
        int err = heist_yield();
        if (err < 0) return err;
    }
    return heist_sleep(0.001);
}

static int count_nothing(void *arg) {
    (void)arg;
    return 0;
}

static void counters_count(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    heist_task *tasks[10];
    heist_worker_stats sum = HEIST_WORKER_STATS_INIT;
    int bad = 0;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(heist_runtime_run_coroutine(rt, work_a_little, NULL, NULL, &tasks[i]), 0);
        assert_int_equal(heist_loop_call_soon(heist_runtime_loop(rt, 0), count_nothing, NULL, NULL, NULL), 0);
    }
    for (int i = 0; i < 10; i++) {
        if (heist_await(tasks[i], NULL) != 0) bad++;
        heist_unref(tasks[i]);
    }
    int closed = heist_runtime_close(rt, HEIST_FOREVER); /* a snapshot of a running worker may be a step behind */
    for (int i = 0; i < harness_workers(); i++) {
        heist_worker_stats stats = HEIST_WORKER_STATS_INIT;
        if (heist_runtime_stats(rt, i, &stats) < 0) bad++;
        sum.steps += stats.steps;
        sum.timers += stats.timers;
        sum.inbox += stats.inbox;
    }
    heist_worker_stats none = HEIST_WORKER_STATS_INIT;
    int outside = heist_runtime_stats(rt, harness_workers(), &none);
    int negative = heist_runtime_stats(rt, -1, &none);
    int nowhere = heist_runtime_stats(rt, 0, NULL);
    heist_runtime_unref(rt);
    assert_int_equal(closed, 0);
    assert_int_equal(bad, 0);
    assert_true(sum.steps >= 100);
    assert_true(sum.timers >= 10);
    assert_true(sum.inbox >= 10);
    assert_int_equal(outside, -EINVAL);
    assert_int_equal(negative, -EINVAL);
    assert_int_equal(nowhere, -EINVAL);
}

/* ---- limits ---- */

static int await_it(void *arg, void **out) {
    return heist_await(arg, out);
}

static void more_than_max_tasks_are_refused(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_task_options task_opts = HEIST_TASK_OPTIONS_INIT;
    struct mark mark = {&record, "arg", NULL};
    heist_runtime *rt = NULL;
    heist_future *future = NULL;
    heist_task *tasks[4], *refused = NULL;
    opts.workers = harness_workers();
    opts.max_tasks = 4;
    assert_int_equal(heist_runtime_new(&opts, &rt), 0);
    assert_int_equal(heist_future_new(NULL, &future), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(heist_runtime_run_coroutine(rt, await_it, future, NULL, &tasks[i]), 0);
    task_opts.arg_free = mark_free;
    assert_int_equal(heist_runtime_run_coroutine(rt, give_argument, &mark, &task_opts, &refused), -EAGAIN);
    assert_null(refused);
    assert_int_equal(record_words(&record), 0);
    assert_int_equal(heist_runtime_task_count(rt), 4);
    assert_int_equal(heist_future_set_result(future, NULL, NULL), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(heist_await(tasks[i], NULL), 0);
        heist_unref(tasks[i]);
    }
    while (heist_runtime_task_count(rt) > 0) sched_yield(); /* the last step of each is not the await's end */
    assert_int_equal(heist_runtime_run_coroutine(rt, nothing, NULL, NULL, &refused), 0);
    assert_int_equal(heist_await(refused, NULL), 0);
    heist_unref(refused);
    heist_unref(future);
    harness_runtime_end(rt);
}

static int hold(void *arg) {
    gate_wait(arg);
    return 0;
}

static void more_than_max_inbox_are_refused(void **state) {
    (void)state;
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_runtime *rt = NULL;
    struct gate gate = GATE_INIT;
    int accepted = 0, refused = 0;
    opts.workers = 1;
    opts.max_inbox = 16;
    assert_int_equal(heist_runtime_new(&opts, &rt), 0);
    heist_loop *loop = heist_runtime_loop(rt, 0);
    assert_int_equal(heist_loop_call_soon_threadsafe(loop, hold, &gate, NULL, NULL), 0);
    for (int i = 0; i < 100; i++) {
        int err = heist_loop_call_soon_threadsafe(loop, count_nothing, NULL, NULL, NULL);
        if (err == 0)
            accepted++;
        else if (err == -EAGAIN)
            refused++;
    }
    gate_open(&gate);
    harness_runtime_end(rt);
    assert_int_equal(accepted + refused, 100);
    /* The holder may have been taken out of the inbox before or after the rest came. */
    assert_true(accepted >= 15 && accepted <= 33);
}

static const struct CMUnitTest tests[] = {
    API_TEST(run_returns_what_main_returned),
    API_TEST(run_cancels_what_is_left),
    API_TEST(one_worker_runs_on_the_callers_thread_alone),
    API_TEST(run_inside_a_task_is_refused),
    API_TEST(number_of_workers_is_what_was_asked_MT_09),
    API_TEST(default_is_one_worker_for_each_available_processor_MT_09),
    API_TEST(task_is_run_by_one_worker_at_a_time_and_stays_itself_MT_01_MT_05),
    API_TEST(wake_up_on_the_way_to_suspending_is_not_lost_MT_02),
    API_TEST(parked_workers_are_woken_for_new_work_MT_03),
    API_TEST(tasks_of_a_blocked_worker_are_run_by_others_MT_04_LOOP_31),
    API_TEST(due_timer_of_a_blocked_worker_is_served_by_another_MT_04_MT_07),
    API_TEST(pinned_task_never_leaves_its_loop_MT_06),
    API_TEST(task_pinned_from_inside_belongs_to_the_running_loop_MT_06),
    API_TEST(yielding_in_a_tight_loop_starves_nobody_MT_08),
    API_TEST(closing_in_the_middle_of_everything_leaves_nothing_MT_10),
    API_TEST(runtimes_start_and_stop_again_MT_10),
    API_TEST(several_runtimes_live_side_by_side),
    API_TEST(task_may_make_use_and_close_another_runtime),
    API_TEST(loop_of_a_runtime_is_run_stopped_and_closed_by_the_runtime_alone),
    API_TEST(counters_count),
    API_TEST(more_than_max_tasks_are_refused),
    API_TEST(more_than_max_inbox_are_refused),
};

int main(void) {
    return HARNESS_MAIN("runtime", tests);
}
