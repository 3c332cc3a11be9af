/* Locks: one at a time, first come first served, between tasks, runtimes and plain threads. */
#include "support/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static heist_task *new_task(heist_loop *loop, heist_coro_fn fn, void *arg) {
    heist_task *task = NULL;
    assert_int_equal(heist_loop_create_task(loop, fn, arg, NULL, &task), 0);
    return task;
}

struct user {
    heist_lock *lock;
    struct record *record;
    const char *word;
    double hold; /* seconds with the lock in hand */
    double deadline;
    int err;
};

/* Acquires, says so, sleeps with the lock in hand, releases. */
static int use(void *arg, void **out) {
    struct user *u = arg;
    (void)out;
    u->err =
        u->deadline > 0 ? heist_lock_acquire_until(u->lock, heist_time() + u->deadline) : heist_lock_acquire(u->lock);
    record_add(u->record, "%s:%d", u->word, u->err);
    if (u->err < 0) return u->err == -ECANCELED ? u->err : 0;
    if (u->hold > 0) (void)heist_sleep(u->hold);
    record_add(u->record, "%s.", u->word);
    return heist_lock_release(u->lock);
}

static void free_lock_is_taken_at_once_and_says_so_SYNC_01(void **state) {
    (void)state;
    heist_lock lock = HEIST_LOCK_INIT, made;
    memset(&made, 0xff, sizeof(made));
    heist_lock_init(&made);
    heist_lock *both[] = {&lock, &made};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(heist_lock_locked(both[i]), 0);
        assert_int_equal(heist_lock_acquire(both[i]), 0); /* a plain thread too */
        assert_int_equal(heist_lock_locked(both[i]), 1);
        assert_int_equal(heist_lock_try_acquire(both[i]), -EAGAIN);
        assert_int_equal(heist_lock_destroy(both[i]), -EBUSY);
        assert_int_equal(heist_lock_release(both[i]), 0);
        assert_int_equal(heist_lock_locked(both[i]), 0);
        assert_int_equal(heist_lock_try_acquire(both[i]), 0);
        assert_int_equal(heist_lock_release(both[i]), 0);
        assert_int_equal(heist_lock_destroy(both[i]), 0);
    }
}

static int say_turn(void *arg, void **out) {
    (void)out;
    record_add(arg, "other");
    return 0;
}

static void held_lock_suspends_the_task_and_not_the_thread_SYNC_02(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_lock lock = HEIST_LOCK_INIT;
    struct user a = {&lock, &record, "a", 1, 0, 1}, b = {&lock, &record, "b", 0, 0, 1};
    heist_task *t[3] = {new_task(loop, use, &a), new_task(loop, use, &b), new_task(loop, say_turn, &record)};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(heist_loop_run_until_complete(loop, t[i], NULL), 0);
        heist_unref(t[i]);
    }
    assert_string_equal(record_text(&record), "a:0 other a. b:0 b.");
    assert_int_equal(heist_lock_locked(&lock), 0);
    harness_loop_end(loop);
}

static void waiters_get_it_in_the_order_of_their_asking_SYNC_03(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_lock lock = HEIST_LOCK_INIT;
    static const char *const words[] = {"a", "b", "c", "d"};
    struct user users[4];
    heist_task *tasks[4];
    assert_int_equal(heist_lock_try_acquire(&lock), 0);
    for (int i = 0; i < 3; i++) {
        users[i] = (struct user){&lock, &record, words[i], 0, 0, 1};
        tasks[i] = new_task(loop, use, &users[i]);
    }
    harness_one_pass(loop);
    assert_int_equal(record_words(&record), 0);
    assert_int_equal(heist_lock_release(&lock), 0);
    /* A newcomer stands behind those who wait, also when it comes between the release and their turn. */
    assert_int_equal(heist_lock_try_acquire(&lock), -EAGAIN);
    assert_int_equal(heist_lock_locked(&lock), 1);
    users[3] = (struct user){&lock, &record, words[3], 0, 0, 1};
    tasks[3] = new_task(loop, use, &users[3]);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(heist_loop_run_until_complete(loop, tasks[i], NULL), 0);
        heist_unref(tasks[i]);
    }
    assert_string_equal(record_text(&record), "a:0 a. b:0 b. c:0 c. d:0 d.");
    harness_loop_end(loop);
}

static void releasing_a_free_lock_is_refused_SYNC_04(void **state) {
    (void)state;
    heist_lock lock = HEIST_LOCK_INIT;
    assert_int_equal(heist_lock_release(&lock), HEIST_ENOTACQUIRED);
    assert_int_equal(heist_lock_acquire(&lock), 0);
    assert_int_equal(heist_lock_release(&lock), 0);
    assert_int_equal(heist_lock_release(&lock), HEIST_ENOTACQUIRED);
    assert_int_equal(heist_lock_locked(&lock), 0);
    assert_string_equal(heist_error_name(HEIST_ENOTACQUIRED), "HEIST_ENOTACQUIRED");
}

static int release_it(void *arg, void **out) {
    (void)out;
    return heist_lock_release(arg);
}

static int acquire_twice(void *arg, void **out) {
    struct user *u = arg;
    heist_task *other;
    (void)out;
    int err = heist_lock_acquire(u->lock);
    if (err < 0) return err;
    record_add(u->record, "%d", heist_lock_acquire_until(u->lock, heist_time() + 1)); /* waits for itself */
    err = heist_create_task(release_it, u->lock, NULL, &other);
    if (err < 0) return err;
    record_add(u->record, "%d", heist_lock_acquire(u->lock)); /* until another task releases it */
    err = heist_await(other, NULL);
    heist_unref(other);
    return err < 0 ? err : heist_lock_release(u->lock);
}

static void anybody_releases_it_and_twice_is_a_wait_for_oneself_SYNC_05(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_lock lock = HEIST_LOCK_INIT;
    struct user u = {&lock, &record, "", 0, 0, 0};
    assert_int_equal(harness_run(acquire_twice, &u, NULL), 0);
    assert_int_equal(record_words(&record), 2);
    char text[32];
    snprintf(text, sizeof(text), "%d 0", -ETIMEDOUT);
    assert_string_equal(record_text(&record), text);
    assert_int_equal(heist_lock_locked(&lock), 0);
}

struct scope {
    heist_lock *lock;
    int answer, held;
};
static int in_scope(void *arg) {
    struct scope *s = arg;
    s->held = heist_lock_locked(s->lock);
    return s->answer;
}

static void with_releases_on_every_way_out_SYNC_06(void **state) {
    (void)state;
    heist_lock lock = HEIST_LOCK_INIT;
    static const int answers[] = {0, 7, -EIO, -ECANCELED};
    for (int i = 0; i < 4; i++) {
        struct scope s = {&lock, answers[i], 0};
        assert_int_equal(heist_lock_with(&lock, in_scope, &s), answers[i]);
        assert_int_equal(s.held, 1);
        assert_int_equal(heist_lock_locked(&lock), 0);
    }
    struct scope s = {&lock, 0, 0};
    assert_int_equal(heist_lock_with(NULL, in_scope, &s), -EINVAL);
    assert_int_equal(heist_lock_with(&lock, NULL, &s), -EINVAL);
    assert_int_equal(s.held, 0);
}

static void cancelled_waiter_leaves_the_queue_and_the_lock_as_it_was_SYNC_07(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_lock lock = HEIST_LOCK_INIT;
    struct user a = {&lock, &record, "a", 0, 0, 1}, b = {&lock, &record, "b", 0, 0, 1};
    assert_int_equal(heist_lock_try_acquire(&lock), 0);
    heist_task *ta = new_task(loop, use, &a), *tb = new_task(loop, use, &b);
    harness_one_pass(loop);
    assert_int_equal(heist_cancel(ta), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, ta, NULL), -ECANCELED);
    assert_int_equal(heist_lock_locked(&lock), 1);
    assert_int_equal(heist_lock_release(&lock), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, tb, NULL), 0);
    assert_int_equal(a.err, -ECANCELED);
    assert_int_equal(b.err, 0);
    assert_int_equal(heist_lock_destroy(&lock), 0);
    heist_unref(ta);
    heist_unref(tb);

    /* Handed over, and cancelled before it ran: it has the lock, and the request is for its next call. */
    record_clear(&record);
    assert_int_equal(heist_lock_try_acquire(&lock), 0);
    ta = new_task(loop, use, &a), tb = new_task(loop, use, &b);
    harness_one_pass(loop);
    assert_int_equal(heist_lock_release(&lock), 0);
    assert_int_equal(heist_cancel(ta), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, ta, NULL), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, tb, NULL), 0);
    assert_string_equal(record_text(&record), "a:0 a. b:0 b.");
    assert_int_equal(heist_lock_locked(&lock), 0);
    heist_unref(ta);
    heist_unref(tb);

    /* A request that stands is delivered also where there is nothing to wait for. */
    ta = new_task(loop, use, &a);
    assert_int_equal(heist_cancel(ta), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, ta, NULL), -ECANCELED);
    assert_int_equal(heist_lock_locked(&lock), 0);
    heist_unref(ta);
    harness_loop_end(loop);
}

static void deadline_ends_the_waiting_and_takes_nothing(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_lock lock = HEIST_LOCK_INIT;
    struct user a = {&lock, &record, "a", 5, 0, 1}, b = {&lock, &record, "b", 0, 2, 1},
                c = {&lock, &record, "c", 0, 9, 1};
    heist_task *t[3] = {new_task(loop, use, &a), new_task(loop, use, &b), new_task(loop, use, &c)};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(heist_loop_run_until_complete(loop, t[i], NULL), 0);
        heist_unref(t[i]);
    }
    assert_int_equal(b.err, -ETIMEDOUT);
    assert_int_equal(c.err, 0);
    assert_int_equal(heist_lock_locked(&lock), 0);
    assert_int_equal(heist_lock_acquire_until(&lock, heist_time() - 1), 0); /* free: the deadline plays no part */
    assert_int_equal(heist_lock_acquire_until(&lock, heist_time() + 0.001), -ETIMEDOUT); /* a plain thread */
    assert_int_equal(heist_lock_release(&lock), 0);
    harness_loop_end(loop);
}

/* ---- exclusion: tasks of two runtimes and plain threads ---- */

enum { TASKS = 8, ROUNDS = 300 };

struct shared {
    heist_lock lock;
    long count; /* plain: the lock orders it */
    int inside;
    _Atomic(int) bad;
};

static void count_up(struct shared *s) {
    for (int i = 0; i < ROUNDS; i++) {
        if (heist_lock_acquire(&s->lock) != 0) {
            s->bad++;
            return;
        }
        if (s->inside++) s->bad++;
        s->count++;
        if (i % 64 == 0) (void)heist_yield(); /* the lock is held across suspensions */
        s->inside--;
        if (heist_lock_release(&s->lock) != 0) s->bad++;
    }
}
static int count_task(void *arg, void **out) {
    (void)out;
    count_up(arg);
    return 0;
}
static void *count_thread(void *arg) {
    count_up(arg);
    return NULL;
}

static void one_at_a_time_between_runtimes_and_threads_SYNC_08_SYNC_09(void **state) {
    (void)state;
    heist_runtime *one = harness_runtime(0), *two = harness_runtime(0);
    struct shared s = {.lock = HEIST_LOCK_INIT};
    heist_task *tasks[TASKS];
    for (int i = 0; i < TASKS; i++)
        assert_int_equal(heist_runtime_run_coroutine(i % 2 ? one : two, count_task, &s, NULL, &tasks[i]), 0);
    pthread_t a = harness_thread(count_thread, &s), b = harness_thread(count_thread, &s);
    for (int i = 0; i < TASKS; i++) {
        assert_int_equal(heist_await(tasks[i], NULL), 0);
        heist_unref(tasks[i]);
    }
    harness_join(a);
    harness_join(b);
    harness_runtime_end(one);
    harness_runtime_end(two);
    assert_int_equal(s.bad, 0);
    assert_int_equal(s.count, (TASKS + 2) * ROUNDS);
    assert_int_equal(heist_lock_destroy(&s.lock), 0);
}

/* ---- the last user frees it ---- */

struct owned {
    heist_lock lock;
    int users; /* the lock */
};

static int drop(void *arg, void **out) {
    struct owned *o = arg;
    (void)out;
    if (heist_lock_acquire(&o->lock) != 0) return -EIO;
    int left = --o->users;
    if (heist_lock_release(&o->lock) != 0) return -EIO;
    if (!left) free(o);
    return 0;
}

static int drop_all(void *arg, void **out) {
    (void)arg, (void)out;
    for (int round = 0; round < 200; round++) {
        enum { USERS = 4 };
        heist_task *t[USERS];
        struct owned *o = calloc(1, sizeof(*o));
        if (!o) return -ENOMEM;
        heist_lock_init(&o->lock);
        o->users = USERS;
        for (int i = 0; i < USERS; i++)
            if (heist_create_task(drop, o, NULL, &t[i]) < 0) abort();
        int err = heist_gather(t, USERS, NULL, 0);
        for (int i = 0; i < USERS; i++) heist_unref(t[i]);
        if (err < 0) return err;
    }
    return 0;
}

static void who_releases_last_may_free_it(void **state) {
    (void)state;
    assert_int_equal(harness_run(drop_all, NULL, NULL), 0);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        API_TEST(free_lock_is_taken_at_once_and_says_so_SYNC_01),
        API_TEST(held_lock_suspends_the_task_and_not_the_thread_SYNC_02),
        API_TEST(waiters_get_it_in_the_order_of_their_asking_SYNC_03),
        API_TEST(releasing_a_free_lock_is_refused_SYNC_04),
        API_TEST(anybody_releases_it_and_twice_is_a_wait_for_oneself_SYNC_05),
        API_TEST(with_releases_on_every_way_out_SYNC_06),
        API_TEST(cancelled_waiter_leaves_the_queue_and_the_lock_as_it_was_SYNC_07),
        API_TEST(deadline_ends_the_waiting_and_takes_nothing),
        API_TEST(one_at_a_time_between_runtimes_and_threads_SYNC_08_SYNC_09),
        API_TEST(who_releases_last_may_free_it),
    };
    return HARNESS_MAIN("lock", tests);
}
