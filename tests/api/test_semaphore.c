/* Semaphores: at most n at a time. */
#include "support/harness.h"

#include <stdatomic.h>
#include <string.h>

struct user {
    heist_semaphore *semaphore;
    struct record *record;
    const char *word;
    double deadline;
    int err;
};

static int take_one(void *arg, void **out) {
    struct user *u = arg;
    (void)out;
    u->err = u->deadline > 0 ? heist_semaphore_acquire_until(u->semaphore, heist_time() + u->deadline)
                             : heist_semaphore_acquire(u->semaphore);
    record_add(u->record, "%s:%d", u->word, u->err);
    return u->err;
}

static heist_task *new_task(heist_loop *loop, heist_coro_fn fn, void *arg) {
    heist_task *task = NULL;
    assert_int_equal(heist_loop_create_task(loop, fn, arg, NULL, &task), 0);
    return task;
}

static void a_permit_is_taken_or_waited_for_and_the_count_may_rise_SYNC_20(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_semaphore semaphore = HEIST_SEMAPHORE_INIT(1);
    struct user a = {&semaphore, &record, "a", 0, 1}, b = {&semaphore, &record, "b", 0, 1};
    heist_task *ta = new_task(loop, take_one, &a), *tb = new_task(loop, take_one, &b);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "a:0");
    assert_int_equal(heist_semaphore_destroy(&semaphore), -EBUSY);
    assert_int_equal(heist_semaphore_release(&semaphore), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, ta, NULL), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, tb, NULL), 0);
    assert_int_equal(heist_semaphore_value(&semaphore), 0);
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(heist_semaphore_release(&semaphore), 0);
        assert_int_equal(heist_semaphore_value(&semaphore), i); /* it began with 1 */
    }
    assert_int_equal(heist_semaphore_acquire(&semaphore), 0); /* a plain thread */
    assert_int_equal(heist_semaphore_value(&semaphore), 2);
    assert_int_equal(heist_semaphore_destroy(&semaphore), 0);
    heist_unref(ta);
    heist_unref(tb);
    harness_loop_end(loop);
}

static void a_negative_start_is_refused_and_zero_is_locked_SYNC_21(void **state) {
    (void)state;
    heist_semaphore semaphore = HEIST_SEMAPHORE_INIT(2);
    assert_int_equal(heist_semaphore_init(&semaphore, -1), -EINVAL);
    assert_int_equal(heist_semaphore_init_bounded(&semaphore, -1), -EINVAL);
    assert_int_equal(heist_semaphore_value(&semaphore), 2);
    assert_int_equal(heist_semaphore_init(&semaphore, 0), 0);
    assert_int_equal(heist_semaphore_locked(&semaphore), 1);
    assert_int_equal(heist_semaphore_try_acquire(&semaphore), -EAGAIN);
    assert_int_equal(heist_semaphore_acquire_until(&semaphore, heist_time() + 0.001), -ETIMEDOUT);
    assert_int_equal(heist_semaphore_release(&semaphore), 0);
    assert_int_equal(heist_semaphore_locked(&semaphore), 0);
    assert_int_equal(heist_semaphore_try_acquire(&semaphore), 0);
    assert_int_equal(heist_semaphore_init(&semaphore, INT64_MAX), 0);
    assert_int_equal(heist_semaphore_release(&semaphore), -EOVERFLOW);
    assert_int_equal(heist_semaphore_value(&semaphore), INT64_MAX);
}

static void waiters_are_served_in_order_and_a_cancelled_one_takes_none_SYNC_22(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_semaphore semaphore = HEIST_SEMAPHORE_INIT(0);
    static const char *const words[] = {"a", "b", "c", "d"};
    struct user u[4];
    heist_task *t[4];
    for (int i = 0; i < 4; i++) {
        u[i] = (struct user){&semaphore, &record, words[i], i == 2 ? 1 : 0, 1};
        t[i] = new_task(loop, take_one, &u[i]);
    }
    harness_one_pass(loop);
    assert_int_equal(heist_cancel(t[0]), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, t[0], NULL), -ECANCELED);
    assert_int_equal(heist_loop_run_until_complete(loop, t[2], NULL), -ETIMEDOUT);
    record_clear(&record);
    for (int i = 0; i < 2; i++) assert_int_equal(heist_semaphore_release(&semaphore), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, t[1], NULL), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, t[3], NULL), 0);
    assert_string_equal(record_text(&record), "b:0 d:0");
    assert_int_equal(heist_semaphore_value(&semaphore), 0);
    for (int i = 0; i < 4; i++) heist_unref(t[i]);
    harness_loop_end(loop);
}

static void locked_when_a_permit_belongs_to_a_waiter_already_SYNC_23(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_semaphore semaphore = HEIST_SEMAPHORE_INIT(0);
    struct user a = {&semaphore, &record, "a", 0, 1};
    heist_task *t = new_task(loop, take_one, &a);
    harness_one_pass(loop);
    assert_int_equal(heist_semaphore_release(&semaphore), 0);
    assert_int_equal(heist_semaphore_locked(&semaphore), 1); /* a has not run yet, and comes first */
    assert_int_equal(heist_semaphore_try_acquire(&semaphore), -EAGAIN);
    assert_int_equal(heist_loop_run_until_complete(loop, t, NULL), 0);
    assert_int_equal(heist_semaphore_release(&semaphore), 0);
    assert_int_equal(heist_semaphore_locked(&semaphore), 0);
    heist_unref(t);
    harness_loop_end(loop);
}

static void bounded_one_refuses_a_release_too_many_SYNC_24(void **state) {
    (void)state;
    heist_semaphore a = HEIST_BOUNDED_SEMAPHORE_INIT(2), b, none;
    memset(&b, 0xff, sizeof(b));
    assert_int_equal(heist_semaphore_init_bounded(&b, 2), 0);
    heist_semaphore *both[] = {&a, &b};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(heist_semaphore_release(both[i]), -EOVERFLOW);
        assert_int_equal(heist_semaphore_value(both[i]), 2);
        assert_int_equal(heist_semaphore_try_acquire(both[i]), 0);
        assert_int_equal(heist_semaphore_release(both[i]), 0);
        assert_int_equal(heist_semaphore_release(both[i]), -EOVERFLOW);
        assert_int_equal(heist_semaphore_value(both[i]), 2);
    }
    assert_int_equal(heist_semaphore_init_bounded(&none, 0), 0);
    assert_int_equal(heist_semaphore_release(&none), -EOVERFLOW);
}

/* ---- tasks of two runtimes and plain threads ---- */

enum { PERMITS = 3, USERS = 10, ROUNDS = 60 };

struct shared {
    heist_semaphore semaphore;
    _Atomic(int) inside, most, bad, entered;
};

static void go_in(struct shared *s) {
    for (int i = 0; i < ROUNDS; i++) {
        if (heist_semaphore_acquire(&s->semaphore)) s->bad++;
        int now = ++s->inside, most = s->most;
        while (now > most && !atomic_compare_exchange_weak(&s->most, &most, now)) continue;
        s->entered++;
        (void)heist_yield();
        s->inside--;
        if (heist_semaphore_release(&s->semaphore)) s->bad++;
    }
}
static int go_in_task(void *arg, void **out) {
    (void)out;
    go_in(arg);
    return 0;
}
static void *go_in_thread(void *arg) {
    go_in(arg);
    return NULL;
}

static void never_more_inside_than_permits_SYNC_25(void **state) {
    (void)state;
    heist_runtime *one = harness_runtime(0), *two = harness_runtime(0);
    struct shared s = {.semaphore = HEIST_BOUNDED_SEMAPHORE_INIT(PERMITS)};
    heist_task *t[USERS];
    for (int i = 0; i < USERS; i++)
        assert_int_equal(heist_runtime_run_coroutine(i % 2 ? one : two, go_in_task, &s, NULL, &t[i]), 0);
    pthread_t a = harness_thread(go_in_thread, &s);
    for (int i = 0; i < USERS; i++) {
        assert_int_equal(heist_await(t[i], NULL), 0);
        heist_unref(t[i]);
    }
    harness_join(a);
    harness_runtime_end(one);
    harness_runtime_end(two);
    assert_int_equal(s.bad, 0);
    assert_int_equal(s.entered, (USERS + 1) * ROUNDS);
    assert_in_range(s.most, 1, PERMITS);
    assert_int_equal(heist_semaphore_value(&s.semaphore), PERMITS);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        API_TEST(a_permit_is_taken_or_waited_for_and_the_count_may_rise_SYNC_20),
        API_TEST(a_negative_start_is_refused_and_zero_is_locked_SYNC_21),
        API_TEST(waiters_are_served_in_order_and_a_cancelled_one_takes_none_SYNC_22),
        API_TEST(locked_when_a_permit_belongs_to_a_waiter_already_SYNC_23),
        API_TEST(bounded_one_refuses_a_release_too_many_SYNC_24),
        API_TEST(never_more_inside_than_permits_SYNC_25),
    };
    return HARNESS_MAIN("semaphore", tests);
}
