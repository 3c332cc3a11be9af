/* Once: the first one does it, the others wait until it is done. */
#include "support/harness.h"

#include <string.h>

struct shared {
    heist_once once;
    int value; /* plain: written by the one that runs it */
    _Atomic(int) runs, bad, failures;
};

static int initialise(void *arg) {
    struct shared *s = arg;
    s->runs++;
    int err = heist_sleep(0.001); /* it may suspend: the others wait */
    if (err < 0) return err;
    s->value = 42;
    return 0;
}

static void ask(struct shared *s) {
    if (heist_once_call(&s->once, initialise, s) != 0) s->bad++;
    if (s->value != 42 || heist_once_done(&s->once) != 1) s->bad++;
}
static int ask_task(void *arg, void **out) {
    (void)out;
    ask(arg);
    return 0;
}
static void *ask_thread(void *arg) {
    ask(arg);
    return NULL;
}

static void one_runs_it_and_all_see_it_done(void **state) {
    (void)state;
    enum { TASKS = 10 };
    heist_runtime *one = harness_runtime(0), *two = harness_runtime(0);
    struct shared s = {.once = HEIST_ONCE_INIT};
    heist_task *t[TASKS];
    assert_int_equal(heist_once_done(&s.once), 0);
    for (int i = 0; i < TASKS; i++)
        assert_int_equal(heist_runtime_run_coroutine(i % 2 ? one : two, ask_task, &s, NULL, &t[i]), 0);
    pthread_t thread = harness_thread(ask_thread, &s);
    for (int i = 0; i < TASKS; i++) {
        assert_int_equal(heist_await(t[i], NULL), 0);
        heist_unref(t[i]);
    }
    harness_join(thread);
    harness_runtime_end(one);
    harness_runtime_end(two);
    assert_int_equal(s.runs, 1);
    assert_int_equal(s.bad, 0);
    assert_int_equal(heist_once_destroy(&s.once), 0);
}

static int fail_first(void *arg) {
    struct shared *s = arg;
    int run = ++s->runs;
    int err = heist_yield();
    if (err < 0) return err;
    return run <= 2 ? -EIO : 5;
}
static int ask_failing(void *arg, void **out) {
    struct shared *s = arg;
    (void)out;
    int err = heist_once_call(&s->once, fail_first, s);
    if (err == -EIO) s->failures++;
    else if (err != 0) s->bad++;
    return 0;
}

static void a_failure_is_its_callers_and_the_next_one_tries(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    struct shared s = {.bad = 0};
    heist_task *t[5];
    heist_once_init(&s.once);
    for (int i = 0; i < 5; i++) assert_int_equal(heist_loop_create_task(loop, ask_failing, &s, NULL, &t[i]), 0);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(heist_loop_run_until_complete(loop, t[i], NULL), 0);
        heist_unref(t[i]);
    }
    assert_int_equal(s.runs, 3);
    assert_int_equal(s.failures, 2);
    assert_int_equal(s.bad, 0);
    assert_int_equal(heist_once_done(&s.once), 1);
    harness_loop_end(loop);
}

static int ask_code(void *arg, void **out) {
    struct shared *s = arg;
    (void)out;
    return heist_once_call(&s->once, initialise, s);
}
static int ask_until(void *arg, void **out) {
    struct shared *s = arg;
    (void)out;
    return heist_once_call_until(&s->once, initialise, s, heist_time() + 0.0001);
}

static void a_cancelled_initialiser_has_failed_and_a_waiter_may_give_up(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    struct shared s = {.once = HEIST_ONCE_INIT};
    heist_task *runs, *late, *waits, *next;
    assert_int_equal(heist_loop_create_task(loop, ask_code, &s, NULL, &runs), 0);
    assert_int_equal(heist_loop_create_task(loop, ask_until, &s, NULL, &late), 0);
    assert_int_equal(heist_loop_create_task(loop, ask_code, &s, NULL, &waits), 0);
    assert_int_equal(heist_loop_create_task(loop, ask_code, &s, NULL, &next), 0);
    harness_one_pass(loop);
    assert_int_equal(heist_once_destroy(&s.once), -EBUSY);
    assert_int_equal(heist_loop_run_until_complete(loop, late, NULL), -ETIMEDOUT);
    assert_int_equal(heist_cancel(runs), 1);
    assert_int_equal(heist_cancel(waits), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, runs, NULL), -ECANCELED);
    assert_int_equal(heist_loop_run_until_complete(loop, waits, NULL), -ECANCELED);
    assert_int_equal(heist_loop_run_until_complete(loop, next, NULL), 0);
    assert_int_equal(s.runs, 2);
    assert_int_equal(heist_once_done(&s.once), 1);
    heist_unref(runs);
    heist_unref(late);
    heist_unref(waits);
    heist_unref(next);
    harness_loop_end(loop);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        API_TEST(one_runs_it_and_all_see_it_done),
        API_TEST(a_failure_is_its_callers_and_the_next_one_tries),
        API_TEST(a_cancelled_initialiser_has_failed_and_a_waiter_may_give_up),
    };
    return HARNESS_MAIN("once", tests);
}
