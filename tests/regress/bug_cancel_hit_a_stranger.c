/* A request to cancel was delivered to a task that nobody had asked to cancel.
 *
 * A task that suspends looks, after it has been published as suspended, whether a request to
 * cancel came meanwhile.  It may have been woken, have ended, and its memory may be another
 * task's by then: the request was put on that one.
 *
 * Tasks are asked to cancel at the moment in which they suspend, and end at once; others
 * that use the same memory right after them are never asked, and must never see a request. */
#include "regress/workers.h"

enum { ROUNDS = 400, VICTIMS = 8 };

struct tally {
    heist_future *never;
    _Atomic(int) strangers_hit, failed;
};

static int victim(void *arg, void **out) {
    struct tally *tally = arg;
    (void)out;
    return heist_await_until(tally->never, heist_time() + 1000, NULL);
}

static int stranger(void *arg, void **out) {
    struct tally *tally = arg;
    (void)out;
    for (int i = 0; i < 3; i++) {
        if (heist_yield() == -ECANCELED || heist_cancelling(heist_current_task()) != 0) {
            tally->strangers_hit++;
            return 0;
        }
    }
    return 0;
}

static int play(void *arg, void **out) {
    struct tally *tally = arg;
    (void)out;
    for (int round = 0; round < ROUNDS; round++) {
        heist_task *victims[VICTIMS], *strangers[VICTIMS];
        for (int i = 0; i < VICTIMS; i++) {
            int err = heist_create_task(victim, tally, NULL, &victims[i]);
            if (err < 0) return err;
        }
        if (round % 2) heist_yield();
        for (int i = 0; i < VICTIMS; i++) {
            heist_cancel(victims[i]);
            heist_unref(victims[i]);
            int err = heist_create_task(stranger, tally, NULL, &strangers[i]);
            if (err < 0) return err;
        }
        for (int i = 0; i < VICTIMS; i++) {
            if (heist_await(strangers[i], NULL) != 0) tally->failed++;
            heist_unref(strangers[i]);
        }
    }
    return 0;
}

static void request_reaches_nobody_else(void **state) {
    (void)state;
    for (EACH_WORKER_COUNT(workers)) {
        heist_runtime *rt = regress_runtime(workers);
        struct tally tally = {0};
        heist_task *tasks[4];
        int bad = 0;
        assert_int_equal(heist_future_new(NULL, &tally.never), 0);
        for (int i = 0; i < 4; i++) assert_int_equal(heist_runtime_run_coroutine(rt, play, &tally, NULL, &tasks[i]), 0);
        for (int i = 0; i < 4; i++) {
            if (heist_await(tasks[i], NULL) != 0) bad++;
            heist_unref(tasks[i]);
        }
        harness_runtime_end(rt);
        heist_unref(tally.never);
        assert_int_equal(bad, 0);
        assert_int_equal(tally.failed, 0);
        assert_int_equal(tally.strangers_hit, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(request_reaches_nobody_else),
    };
    return HARNESS_MAIN("bug_cancel_hit_a_stranger", tests);
}
