/* Read-write locks: many readers, or one writer. */
#include "support/harness.h"

#include <string.h>

struct user {
    heist_rwlock *lock;
    struct record *record;
    const char *word;
    bool writes;
    double hold, deadline;
    int err;
};

static int use(void *arg, void **out) {
    struct user *u = arg;
    (void)out;
    double until = u->deadline > 0 ? heist_time() + u->deadline : HEIST_FOREVER;
    u->err =
        u->writes ? heist_rwlock_acquire_write_until(u->lock, until) : heist_rwlock_acquire_read_until(u->lock, until);
    record_add(u->record, u->err ? "%s!" : "%s", u->word);
    if (u->err < 0) return u->err == -ECANCELED ? u->err : 0;
    if (u->hold > 0) (void)heist_sleep(u->hold);
    record_add(u->record, "%s.", u->word);
    return u->writes ? heist_rwlock_release_write(u->lock) : heist_rwlock_release_read(u->lock);
}

static heist_task *new_task(heist_loop *loop, heist_coro_fn fn, void *arg) {
    heist_task *task = NULL;
    assert_int_equal(heist_loop_create_task(loop, fn, arg, NULL, &task), 0);
    return task;
}

static void readers_together_and_writers_alone(void **state) {
    (void)state;
    heist_rwlock lock;
    memset(&lock, 0xff, sizeof(lock));
    heist_rwlock_init(&lock);
    assert_int_equal(heist_rwlock_acquire_read(&lock), 0);
    assert_int_equal(heist_rwlock_try_acquire_read(&lock), 0);
    assert_int_equal(heist_rwlock_readers(&lock), 2);
    assert_int_equal(heist_rwlock_try_acquire_write(&lock), -EAGAIN);
    assert_int_equal(heist_rwlock_acquire_write_until(&lock, heist_time() + 0.001), -ETIMEDOUT);
    assert_int_equal(heist_rwlock_release_write(&lock), HEIST_ENOTACQUIRED);
    assert_int_equal(heist_rwlock_destroy(&lock), -EBUSY);
    assert_int_equal(heist_rwlock_release_read(&lock), 0);
    assert_int_equal(heist_rwlock_release_read(&lock), 0);
    assert_int_equal(heist_rwlock_release_read(&lock), HEIST_ENOTACQUIRED);
    assert_int_equal(heist_rwlock_acquire_write(&lock), 0);
    assert_int_equal(heist_rwlock_writing(&lock), 1);
    assert_int_equal(heist_rwlock_try_acquire_read(&lock), -EAGAIN);
    assert_int_equal(heist_rwlock_try_acquire_write(&lock), -EAGAIN);
    assert_int_equal(heist_rwlock_acquire_read_until(&lock, heist_time() + 0.001), -ETIMEDOUT);
    assert_int_equal(heist_rwlock_release_read(&lock), HEIST_ENOTACQUIRED);
    assert_int_equal(heist_rwlock_release_write(&lock), 0);
    assert_int_equal(heist_rwlock_release_write(&lock), HEIST_ENOTACQUIRED);
    assert_int_equal(heist_rwlock_writing(&lock), 0);
    assert_int_equal(heist_rwlock_destroy(&lock), 0);
}

static void served_in_order_and_neighbouring_readers_together(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_rwlock lock = HEIST_RWLOCK_INIT;
    static const char *const words[] = {"r1", "w1", "r2", "r3", "w2", "r4"};
    struct user u[6];
    heist_task *t[6];
    for (int i = 0; i < 6; i++) {
        u[i] = (struct user){&lock, &record, words[i], words[i][0] == 'w', 1, 0, 1};
        t[i] = new_task(loop, use, &u[i]);
    }
    for (int i = 0; i < 6; i++) {
        assert_int_equal(heist_loop_run_until_complete(loop, t[i], NULL), 0);
        heist_unref(t[i]);
    }
    assert_string_equal(record_text(&record), "r1 r1. w1 w1. r2 r3 r2. r3. w2 w2. r4 r4.");
    assert_int_equal(heist_rwlock_destroy(&lock), 0);
    harness_loop_end(loop);
}

/* A writer that gives up lets the readers in that stood behind it. */
static void a_writer_that_leaves_holds_nobody_up(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_rwlock lock = HEIST_RWLOCK_INIT;
    for (int how = 0; how < 2; how++) {
        record_clear(&record);
        struct user w = {&lock, &record, "w", true, 0, how ? 1 : 0, 1}, r = {&lock, &record, "r", false, 0, 0, 1};
        assert_int_equal(heist_rwlock_try_acquire_read(&lock), 0);
        heist_task *tw = new_task(loop, use, &w), *tr = new_task(loop, use, &r);
        harness_one_pass(loop);
        assert_int_equal(record_words(&record), 0);
        if (!how) assert_int_equal(heist_cancel(tw), 1);
        assert_int_equal(heist_loop_run_until_complete(loop, tr, NULL), 0);
        assert_int_equal(heist_loop_run_until_complete(loop, tw, NULL), how ? 0 : -ECANCELED);
        assert_int_equal(w.err, how ? -ETIMEDOUT : -ECANCELED);
        assert_int_equal(heist_rwlock_readers(&lock), 1);
        assert_int_equal(heist_rwlock_release_read(&lock), 0);
        heist_unref(tw);
        heist_unref(tr);
    }
    harness_loop_end(loop);
}

/* ---- tasks of two runtimes and plain threads ---- */

enum { USERS = 8, ROUNDS = 200 };

struct shared {
    heist_rwlock lock;
    long a, b; /* plain, equal outside of a write */
    _Atomic(int) bad;
};
static void use_all(struct shared *s, int number) {
    for (int i = 0; i < ROUNDS; i++) {
        bool write = (i + number) % 4 == 0;
        if (write ? heist_rwlock_acquire_write(&s->lock) : heist_rwlock_acquire_read(&s->lock)) s->bad++;
        if (s->a != s->b) s->bad++;
        if (write) s->a++;
        if (i % 16 == 0) (void)heist_yield();
        if (write) s->b++;
        if (write ? heist_rwlock_release_write(&s->lock) : heist_rwlock_release_read(&s->lock)) s->bad++;
    }
}
static int use_task(void *arg, void **out) {
    (void)out;
    use_all(arg, 1);
    return 0;
}
static void *use_thread(void *arg) {
    use_all(arg, 2);
    return NULL;
}

static void writers_exclude_all_between_runtimes_and_threads(void **state) {
    (void)state;
    heist_runtime *one = harness_runtime(0), *two = harness_runtime(0);
    struct shared s = {.lock = HEIST_RWLOCK_INIT};
    heist_task *t[USERS];
    for (int i = 0; i < USERS; i++)
        assert_int_equal(heist_runtime_run_coroutine(i % 2 ? one : two, use_task, &s, NULL, &t[i]), 0);
    pthread_t a = harness_thread(use_thread, &s), b = harness_thread(use_thread, &s);
    for (int i = 0; i < USERS; i++) {
        assert_int_equal(heist_await(t[i], NULL), 0);
        heist_unref(t[i]);
    }
    harness_join(a);
    harness_join(b);
    harness_runtime_end(one);
    harness_runtime_end(two);
    assert_int_equal(s.bad, 0);
    assert_int_equal(s.a, (USERS + 2) * ROUNDS / 4);
    assert_int_equal(s.b, s.a);
    assert_int_equal(heist_rwlock_destroy(&s.lock), 0);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        API_TEST(readers_together_and_writers_alone),
        API_TEST(served_in_order_and_neighbouring_readers_together),
        API_TEST(a_writer_that_leaves_holds_nobody_up),
        API_TEST(writers_exclude_all_between_runtimes_and_threads),
    };
    return HARNESS_MAIN("rwlock", tests);
}
