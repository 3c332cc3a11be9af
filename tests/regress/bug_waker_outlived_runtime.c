/* A waker used a runtime that the task it had woken had brought to its end.
 *
 * Making a task of another runtime ready, a thread first put the task where a worker would
 * find it, and then looked at that runtime to wake a worker.  The task may have run by then,
 * been the last one, and let its runtime be closed and freed: the waker read freed memory,
 * and could write to a descriptor that had become somebody else's.
 *
 * Each round makes a small runtime whose one task waits for a future, lets a plain thread or
 * a worker of another runtime complete it, and ends the runtime as soon as the task has
 * ended.  The detectors of the sanitizer builds see what plain builds mostly survive. */
#include "regress/workers.h"
#include "support/pace.h"

#include <sched.h>

enum { ROUNDS = 120 };

struct round {
    heist_future *future;
    _Atomic(int) go, completed;
};

static int wait_for_it(void *arg, void **out) {
    struct round *round = arg;
    (void)out;
    round->go = 1;
    return heist_await(round->future, NULL);
}

static int complete_in_task(void *arg, void **out) {
    struct round *round = arg;
    (void)out;
    while (!round->go) {
        int err = heist_yield();
        if (err < 0) return err;
    }
    int err = heist_future_set_result(round->future, NULL, NULL);
    round->completed = 1;
    return err;
}

static void *complete_in_thread(void *arg) {
    struct round *round = arg;
    while (!round->go) sched_yield();
    if (heist_future_set_result(round->future, NULL, NULL) == 0) round->completed = 1;
    return NULL;
}

static void wake_from_outside(int workers, bool from_task, bool pinned, heist_runtime *other) {
    struct round round = {0};
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    heist_runtime *rt = regress_runtime(workers);
    heist_task *task = NULL, *waker = NULL;
    pthread_t thread;
    opts.flags = pinned ? HEIST_TASK_PINNED : 0;
    assert_int_equal(heist_future_new(NULL, &round.future), 0);
    if (from_task) assert_int_equal(heist_runtime_run_coroutine(other, complete_in_task, &round, NULL, &waker), 0);
    else thread = harness_thread(complete_in_thread, &round);
    int err = heist_loop_create_task(heist_runtime_loop(rt, workers - 1), wait_for_it, &round, &opts, &task);
    if (err == 0) err = heist_await(task, NULL);
    heist_unref(task);
    harness_runtime_end(rt);
    if (from_task) {
        if (heist_await(waker, NULL) < 0) err = -EPROTO;
        heist_unref(waker);
    } else {
        harness_join(thread);
    }
    heist_unref(round.future);
    assert_int_equal(err, 0);
    assert_int_equal(round.completed, 1);
}

static void play(bool from_task) {
    for (EACH_WORKER_COUNT(workers)) {
        heist_runtime *other = regress_runtime(workers);
        struct pace pace = pace_of(workers == 8 ? ROUNDS / 4 : ROUNDS, 4, 3);
        while (pace_goes_on(&pace)) wake_from_outside(workers, from_task, pace.played % 2, other);
        harness_runtime_end(other);
    }
}

static void worker_of_another_runtime_may_wake_the_last_task(void **state) {
    (void)state;
    play(true);
}

static void plain_thread_may_wake_the_last_task(void **state) {
    (void)state;
    play(false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(worker_of_another_runtime_may_wake_the_last_task),
        API_TEST(plain_thread_may_wake_the_last_task),
    };
    return HARNESS_MAIN("bug_waker_outlived_runtime", tests);
}
