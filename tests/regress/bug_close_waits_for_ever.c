/* heist_runtime_close did not return, for three reasons.
 *
 * A thread that submits a coroutine counts a task, sees that the runtime closes, takes the
 * task back, and woke nobody: a worker that had counted it meanwhile went to sleep for
 * ever.  Two workers that ended the last two tasks at the same time each missed the end
 * that the other had counted.  And the last worker to acknowledge the close delivers the
 * cancellations: the tasks that this woke on its own loop lay ready beside it while it went
 * to sleep, for it looked for work of others only.
 *
 * The first two want luck, so there are many short rounds; the third happened each time. */
#include "regress/workers.h"
#include "support/pace.h"

#include <sched.h>

/* ---- submissions that are refused ---- */

enum { SUBMITTERS = 2, RACES = 150 };

static int nothing(void *arg, void **out) {
    (void)arg;
    (void)out;
    return 0;
}

struct race {
    heist_runtime *rt;
    _Atomic(int) started, wrong;
};

static void *submit_until_refused(void *arg) {
    struct race *race = arg;
    race->started++;
    for (;;) {
        int err = heist_runtime_run_coroutine(race->rt, nothing, NULL, NULL, NULL);
        if (err == HEIST_ECLOSED) return NULL;
        if (err < 0) race->wrong++;
        while (heist_runtime_task_count(race->rt) > 4) sched_yield(); /* a race, not a flood */
    }
}

static void close_beside_refused_submissions_returns(void **state) {
    (void)state;
    for (EACH_WORKER_COUNT(workers)) {
        for (struct pace pace = pace_of(RACES, 3, 3); pace_goes_on(&pace);) {
            struct race race = {.rt = regress_runtime(workers)};
            pthread_t threads[SUBMITTERS];
            for (int i = 0; i < SUBMITTERS; i++) threads[i] = harness_thread(submit_until_refused, &race);
            while (race.started < SUBMITTERS) sched_yield();
            int err = heist_runtime_close(race.rt, HEIST_FOREVER);
            for (int i = 0; i < SUBMITTERS; i++) harness_join(threads[i]);
            heist_runtime_unref(race.rt);
            assert_int_equal(err, 0);
            assert_int_equal(race.wrong, 0);
        }
    }
}

/* ---- tasks that end together ---- */

static int sleep_long(void *arg, void **out) {
    _Atomic(int) *started = arg;
    (void)out;
    ++*started;
    return heist_sleep(1000);
}

static void tasks_that_end_together_let_the_close_return(void **state) {
    (void)state;
    for (EACH_WORKER_COUNT(workers)) {
        for (struct pace pace = pace_of(RACES, 3, 3); pace_goes_on(&pace);) {
            heist_runtime *rt = regress_runtime(workers);
            _Atomic(int) started = 0;
            for (int i = 0; i < workers; i++)
                assert_int_equal(heist_loop_create_task(heist_runtime_loop(rt, i), sleep_long, &started, NULL, NULL),
                                 0);
            while (started < workers) sched_yield();
            harness_runtime_end(rt);
        }
    }
}

/* ---- tasks that the last acknowledgement wakes ---- */

struct clean {
    heist_future *never;
    _Atomic(int) started, ended;
};

static int clean_up_slowly(void *arg, void **out) {
    struct clean *clean = arg;
    (void)out;
    clean->started++;
    int err = heist_await_until(clean->never, HEIST_FOREVER, NULL);
    for (int i = 0; i < 3; i++) heist_yield();
    clean->ended++;
    return err;
}

static void tasks_woken_by_the_close_itself_are_run(void **state) {
    (void)state;
    for (EACH_WORKER_COUNT(workers)) {
        for (int round = 0; round < 20; round++) {
            heist_runtime *rt = regress_runtime(workers);
            heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
            struct clean clean = {0};
            int tasks = 0;
            assert_int_equal(heist_future_new(NULL, &clean.never), 0);
            for (int i = 0; i < workers; i++) {
                for (int k = 0; k < 4; k++, tasks++) {
                    opts.flags = k < 3 ? HEIST_TASK_PINNED : 0;
                    assert_int_equal(
                        heist_loop_create_task(heist_runtime_loop(rt, i), clean_up_slowly, &clean, &opts, NULL), 0);
                }
            }
            while (clean.started < tasks) sched_yield();
            if (round % 2) heist_sleep(0.001); /* the workers are asleep then, most likely */
            harness_runtime_end(rt);
            heist_unref(clean.never);
            assert_int_equal(clean.ended, tasks);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(close_beside_refused_submissions_returns),
        API_TEST(tasks_that_end_together_let_the_close_return),
        API_TEST(tasks_woken_by_the_close_itself_are_run),
    };
    return HARNESS_MAIN("bug_close_waits_for_ever", tests);
}
