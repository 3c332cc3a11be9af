/* Conditions: wait under a lock until told. */
#include "support/harness.h"

#include <string.h>

struct side {
    heist_condition *condition;
    struct record *record;
    const char *word;
    double deadline;
    int err, held;
};

static heist_task *new_task(heist_loop *loop, heist_coro_fn fn, void *arg) {
    heist_task *task = NULL;
    assert_int_equal(heist_loop_create_task(loop, fn, arg, NULL, &task), 0);
    return task;
}

static int wait_once(void *arg, void **out) {
    struct side *s = arg;
    (void)out;
    s->err = heist_lock_acquire(s->condition->lock);
    if (s->err < 0) return s->err;
    s->err = s->deadline > 0 ? heist_condition_wait_until(s->condition, heist_time() + s->deadline)
                             : heist_condition_wait(s->condition);
    s->held = heist_lock_locked(s->condition->lock);
    record_add(s->record, "%s:%d", s->word, s->err);
    heist_lock_release(s->condition->lock);
    return s->err;
}

static void without_the_lock_it_is_refused_SYNC_14(void **state) {
    (void)state;
    heist_lock lock = HEIST_LOCK_INIT;
    heist_condition condition;
    assert_int_equal(heist_condition_init(&condition, &lock), 0);
    assert_int_equal(heist_condition_wait(&condition), HEIST_ENOTACQUIRED);
    assert_int_equal(heist_condition_wait_until(&condition, heist_time()), HEIST_ENOTACQUIRED);
    assert_int_equal(heist_condition_notify(&condition, 1), HEIST_ENOTACQUIRED);
    assert_int_equal(heist_condition_notify_all(&condition), HEIST_ENOTACQUIRED);
    assert_int_equal(heist_lock_locked(&lock), 0);
    assert_int_equal(heist_condition_init(&condition, NULL), -EINVAL);
    assert_int_equal(heist_condition_destroy(&condition), 0);
}

static int two_seconds(void *arg, void **out) {
    (void)arg, (void)out;
    return heist_sleep(2);
}

/* The lock is held by the test when the waiter's end comes; it goes on only when it is released. */
static void wait_holds_the_lock_again_whatever_ended_it_SYNC_15(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_lock lock = HEIST_LOCK_INIT;
    heist_condition condition = HEIST_CONDITION_INIT(&lock);
    static const char *const words[] = {"told", "late", "cancelled"};
    static const int ends[] = {0, -ETIMEDOUT, -ECANCELED};
    for (int how = 0; how < 3; how++) {
        record_clear(&record);
        struct side s = {&condition, &record, words[how], how == 1 ? 1 : 0, 1, 0};
        heist_task *t = new_task(loop, wait_once, &s);
        harness_one_pass(loop);
        assert_int_equal(heist_condition_destroy(&condition), -EBUSY);
        assert_int_equal(heist_lock_try_acquire(&lock), 0); /* it was released */
        if (how == 0) assert_int_equal(heist_condition_notify(&condition, 1), 1);
        if (how == 1) {
            heist_task *pause = new_task(loop, two_seconds, NULL);
            assert_int_equal(heist_loop_run_until_complete(loop, pause, NULL), 0);
            heist_unref(pause);
        }
        if (how == 2) assert_int_equal(heist_cancel(t), 1);
        for (int i = 0; i < 3; i++) harness_one_pass(loop);
        assert_int_equal(heist_future_done(t), 0); /* its end has come, and it waits for the lock */
        if (how == 2) {                            /* not even a second request ends that */
            assert_int_equal(heist_cancel(t), 1);
            for (int i = 0; i < 3; i++) harness_one_pass(loop);
            assert_int_equal(heist_future_done(t), 0);
        }
        assert_int_equal(heist_lock_release(&lock), 0);
        assert_int_equal(heist_loop_run_until_complete(loop, t, NULL), ends[how]);
        assert_int_equal(s.err, ends[how]);
        assert_int_equal(s.held, 1);
        assert_int_equal(heist_lock_locked(&lock), 0);
        assert_int_equal(record_words(&record), 1);
        heist_unref(t);
    }
    harness_loop_end(loop);
}
static void notify_tells_the_oldest_and_they_go_on_one_at_a_time_SYNC_16(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_lock lock = HEIST_LOCK_INIT;
    heist_condition condition = HEIST_CONDITION_INIT(&lock);
    static const char *const words[] = {"a", "b", "c", "d", "e"};
    struct side s[5];
    heist_task *t[5];
    for (int i = 0; i < 5; i++) {
        s[i] = (struct side){&condition, &record, words[i], 0, 1, 0};
        t[i] = new_task(loop, wait_once, &s[i]);
    }
    harness_one_pass(loop);
    assert_int_equal(heist_lock_try_acquire(&lock), 0);
    assert_int_equal(heist_condition_notify(&condition, 2), 2);
    harness_one_pass(loop);
    assert_int_equal(record_words(&record), 0); /* the lock is ours */
    assert_int_equal(heist_lock_release(&lock), 0);
    for (int i = 0; i < 4; i++) harness_one_pass(loop);
    assert_string_equal(record_text(&record), "a:0 b:0");
    assert_int_equal(heist_lock_try_acquire(&lock), 0);
    assert_int_equal(heist_condition_notify_all(&condition), 3);
    assert_int_equal(heist_lock_release(&lock), 0);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(heist_loop_run_until_complete(loop, t[i], NULL), 0);
        heist_unref(t[i]);
    }
    assert_string_equal(record_text(&record), "a:0 b:0 c:0 d:0 e:0");
    assert_int_equal(heist_lock_locked(&lock), 0);
    harness_loop_end(loop);
}

static void notify_is_not_kept_for_later_SYNC_17(void **state) {
    (void)state;
    heist_lock lock = HEIST_LOCK_INIT;
    heist_condition condition = HEIST_CONDITION_INIT(&lock);
    assert_int_equal(heist_lock_acquire(&lock), 0);
    assert_int_equal(heist_condition_notify(&condition, 3), 0);
    assert_int_equal(heist_condition_notify_all(&condition), 0);
    assert_int_equal(heist_condition_notify(&condition, 0), 0);
    assert_int_equal(heist_condition_notify(&condition, -1), -EINVAL);
    assert_int_equal(heist_condition_wait_until(&condition, heist_time() + 0.001), -ETIMEDOUT); /* a plain thread */
    assert_int_equal(heist_lock_locked(&lock), 1);
    assert_int_equal(heist_lock_release(&lock), 0);
}

struct stock {
    heist_lock lock;
    heist_condition more;
    int pieces; /* the lock */
    int asked;
};
static int has_three(void *arg) {
    struct stock *s = arg;
    s->asked++;
    return s->pieces >= 3 ? s->pieces : 0;
}
static int fails(void *arg) {
    (void)arg;
    return -EIO;
}
static int await_three(void *arg, void **out) {
    struct stock *s = arg;
    (void)out;
    int err = heist_lock_acquire(&s->lock);
    if (err < 0) return err;
    int got = heist_condition_wait_for(&s->more, has_three, s);
    if (got >= 3) s->pieces -= 3;
    heist_lock_release(&s->lock);
    return got < 0 ? got : got == 3 ? 0 : -EIO;
}
static int bring_one(void *arg, void **out) {
    struct stock *s = arg;
    (void)out;
    int err = heist_lock_acquire(&s->lock);
    if (err < 0) return err;
    s->pieces++;
    heist_condition_notify_all(&s->more);
    return heist_lock_release(&s->lock);
}

static int trade(void *arg, void **out) {
    struct stock *s = arg;
    heist_task *t[4];
    (void)out;
    for (int i = 0; i < 4; i++)
        if (heist_create_task(i ? bring_one : await_three, s, NULL, &t[i]) < 0) return -ENOMEM;
    int err = heist_gather(t, 4, NULL, 0);
    for (int i = 0; i < 4; i++) heist_unref(t[i]);
    return err;
}

static void wait_for_returns_what_the_predicate_gives_SYNC_18(void **state) {
    (void)state;
    struct stock s = {.lock = HEIST_LOCK_INIT, .more = HEIST_CONDITION_INIT(&s.lock)};
    assert_int_equal(harness_run(trade, &s, NULL), 0);
    assert_int_equal(s.pieces, 0);
    assert_true(s.asked >= 1);
    assert_int_equal(heist_condition_wait_for(&s.more, has_three, &s), HEIST_ENOTACQUIRED);
    assert_int_equal(heist_lock_acquire(&s.lock), 0);
    assert_int_equal(heist_condition_wait_for_until(&s.more, has_three, &s, heist_time() + 0.001), -ETIMEDOUT);
    assert_int_equal(heist_condition_wait_for(&s.more, fails, &s), -EIO);
    s.pieces = 5;
    assert_int_equal(heist_condition_wait_for_until(&s.more, has_three, &s, heist_time() - 1), 5);
    assert_int_equal(heist_lock_release(&s.lock), 0);
}

/* ---- a bounded buffer with two conditions on one lock: tasks of two runtimes and plain threads ---- */

enum { PIECES = 150, SIDES = 4, ROOM = 3 };

struct buffer {
    heist_lock lock;
    heist_condition not_full, not_empty;
    int count; /* the lock */
    long in, out;
    _Atomic(int) bad;
};

static void produce(struct buffer *b) {
    for (int i = 0; i < PIECES; i++) {
        if (heist_lock_acquire(&b->lock)) b->bad++;
        while (b->count == ROOM)
            if (heist_condition_wait(&b->not_full)) b->bad++;
        b->count++, b->in++;
        if (heist_condition_notify(&b->not_empty, 1) < 0) b->bad++;
        if (heist_lock_release(&b->lock)) b->bad++;
    }
}
static void consume(struct buffer *b) {
    for (int i = 0; i < PIECES; i++) {
        if (heist_lock_acquire(&b->lock)) b->bad++;
        while (b->count == 0)
            if (heist_condition_wait(&b->not_empty)) b->bad++;
        if (--b->count < 0) b->bad++;
        b->out++;
        if (heist_condition_notify(&b->not_full, 1) < 0) b->bad++;
        if (heist_lock_release(&b->lock)) b->bad++;
    }
}
static int produce_task(void *arg, void **out) {
    (void)out;
    produce(arg);
    return 0;
}
static int consume_task(void *arg, void **out) {
    (void)out;
    consume(arg);
    return 0;
}
static void *produce_thread(void *arg) {
    produce(arg);
    return NULL;
}
static void *consume_thread(void *arg) {
    consume(arg);
    return NULL;
}

static void several_conditions_share_a_lock_between_runtimes_and_threads_SYNC_19(void **state) {
    (void)state;
    heist_runtime *one = harness_runtime(0), *two = harness_runtime(0);
    struct buffer b = {
        .lock = HEIST_LOCK_INIT, .not_full = HEIST_CONDITION_INIT(&b.lock), .not_empty = HEIST_CONDITION_INIT(&b.lock)};
    heist_task *t[2 * SIDES];
    for (int i = 0; i < 2 * SIDES; i++)
        assert_int_equal(
            heist_runtime_run_coroutine(i & 2 ? one : two, i & 1 ? produce_task : consume_task, &b, NULL, &t[i]), 0);
    pthread_t p = harness_thread(produce_thread, &b), c = harness_thread(consume_thread, &b);
    for (int i = 0; i < 2 * SIDES; i++) {
        assert_int_equal(heist_await(t[i], NULL), 0);
        heist_unref(t[i]);
    }
    harness_join(p);
    harness_join(c);
    harness_runtime_end(one);
    harness_runtime_end(two);
    assert_int_equal(b.bad, 0);
    assert_int_equal(b.count, 0);
    assert_int_equal(b.in, (SIDES + 1) * PIECES);
    assert_int_equal(b.out, (SIDES + 1) * PIECES);
    assert_int_equal(heist_condition_destroy(&b.not_full), 0);
    assert_int_equal(heist_lock_destroy(&b.lock), 0);
}

/* Told and then cancelled: the notification was taken, so it returns 0; told after the request: the next one is told.
 */
static void no_notification_is_lost_with_a_cancelled_waiter(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_lock lock = HEIST_LOCK_INIT;
    heist_condition condition = HEIST_CONDITION_INIT(&lock);
    for (int first = 0; first < 2; first++) {
        record_clear(&record);
        struct side a = {&condition, &record, "a", 0, 1, 0}, b = {&condition, &record, "b", 0, 1, 0};
        heist_task *ta = new_task(loop, wait_once, &a), *tb = new_task(loop, wait_once, &b);
        harness_one_pass(loop);
        assert_int_equal(heist_lock_try_acquire(&lock), 0);
        if (first) assert_int_equal(heist_cancel(ta), 1);
        assert_int_equal(heist_condition_notify(&condition, 1), 1);
        if (!first) assert_int_equal(heist_cancel(ta), 1);
        assert_int_equal(heist_lock_release(&lock), 0);
        assert_int_equal(heist_loop_run_until_complete(loop, first ? tb : ta, NULL), 0);
        if (!first) {
            harness_one_pass(loop);
            assert_int_equal(heist_lock_try_acquire(&lock), 0);
            assert_int_equal(heist_condition_notify(&condition, 1), 1);
            assert_int_equal(heist_lock_release(&lock), 0);
        }
        assert_int_equal(heist_loop_run_until_complete(loop, first ? ta : tb, NULL), first ? -ECANCELED : 0);
        assert_int_equal(a.held + b.held, 2);
        heist_unref(ta);
        heist_unref(tb);
    }
    assert_int_equal(heist_lock_locked(&lock), 0);
    harness_loop_end(loop);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        API_TEST(without_the_lock_it_is_refused_SYNC_14),
        API_TEST(wait_holds_the_lock_again_whatever_ended_it_SYNC_15),
        API_TEST(notify_tells_the_oldest_and_they_go_on_one_at_a_time_SYNC_16),
        API_TEST(notify_is_not_kept_for_later_SYNC_17),
        API_TEST(wait_for_returns_what_the_predicate_gives_SYNC_18),
        API_TEST(several_conditions_share_a_lock_between_runtimes_and_threads_SYNC_19),
        API_TEST(no_notification_is_lost_with_a_cancelled_waiter),
    };
    return HARNESS_MAIN("condition", tests);
}
