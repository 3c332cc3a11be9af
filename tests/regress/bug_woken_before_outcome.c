/* A thread that awaited a future while it was being completed got HEIST_EINVALSTATE.
 *
 * A completion takes the list of those who wait, claims them, and then publishes the
 * outcome.  One that was claimed on its way to sleep went on at once, asked for the result
 * and was told that the future is not done.  It concerned heist_await of plain threads and
 * heist_await_until of tasks.
 *
 * Two sides meet at a counter and go on together, one to wait and one to complete, over and
 * over; a few turns of an empty loop, another number each time, move them against each
 * other. */
#include "regress/workers.h"
#include "support/pace.h"

#include <sched.h>

enum { ROUNDS = 3000 };

struct meeting {
    heist_future *futures[ROUNDS];
    _Atomic(int) waits, completes;
    _Atomic(bool) over; /* the waiting side has played its last round */
    int wrong, failed;
};

static void idle(int turns) {
    for (volatile int i = 0; i < turns; i++) {
    }
}

/* Spins, for a sleeper would never arrive together with the other; but gives its core away where there is one only. */
static void meet(_Atomic(int) *mine, _Atomic(int) *theirs, int round) {
    *mine = round;
    for (int spins = 0; *theirs < round; spins++)
        if (spins > 200) sched_yield();
}

static void *complete(void *arg) {
    struct meeting *meeting = arg;
    for (int i = 0; i < ROUNDS; i++) {
        meet(&meeting->completes, &meeting->waits, i + 1);
        if (meeting->over) break;
        idle(i * 7 % 150);
        if (heist_future_set_result(meeting->futures[i], meeting, NULL) < 0) meeting->failed++;
    }
    return NULL;
}

static void wait_for_all(struct meeting *meeting) {
    struct pace pace = pace_of(ROUNDS, 10, 2);
    for (int i = 0; pace_goes_on(&pace); i++) {
        void *out = NULL;
        meet(&meeting->waits, &meeting->completes, i + 1);
        idle(i * 13 % 150);
        int err = i % 2 ? heist_await(meeting->futures[i], &out)
                        : heist_await_until(meeting->futures[i], heist_time() + 60, &out);
        if (err != 0 || out != meeting) meeting->wrong++;
    }
    meeting->over = true;
    meeting->waits = ROUNDS + 1;
}

static int wait_in_task(void *arg, void **out) {
    (void)out;
    wait_for_all(arg);
    return 0;
}

static struct meeting meeting;

static void prepare(void) {
    meeting.waits = meeting.completes = 0;
    meeting.over = false;
    meeting.wrong = meeting.failed = 0;
    for (int i = 0; i < ROUNDS; i++) assert_int_equal(heist_future_new(NULL, &meeting.futures[i]), 0);
}

static void check(void) {
    for (int i = 0; i < ROUNDS; i++) heist_unref(meeting.futures[i]);
    assert_int_equal(meeting.failed, 0);
    assert_int_equal(meeting.wrong, 0);
}

static void plain_thread_that_was_woken_sees_the_outcome(void **state) {
    (void)state;
    prepare();
    pthread_t thread = harness_thread(complete, &meeting);
    wait_for_all(&meeting);
    harness_join(thread);
    check();
}

static void task_that_was_woken_sees_the_outcome(void **state) {
    (void)state;
    for (EACH_WORKER_COUNT(workers)) {
        heist_runtime *rt = regress_runtime(workers);
        heist_task *task = NULL;
        prepare();
        pthread_t thread = harness_thread(complete, &meeting);
        int err = heist_runtime_run_coroutine(rt, wait_in_task, &meeting, NULL, &task);
        if (err == 0) err = heist_await(task, NULL);
        harness_join(thread);
        heist_unref(task);
        harness_runtime_end(rt);
        assert_int_equal(err, 0);
        check();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(plain_thread_that_was_woken_sees_the_outcome),
        API_TEST(task_that_was_woken_sees_the_outcome),
    };
    return HARNESS_MAIN("bug_woken_before_outcome", tests);
}
