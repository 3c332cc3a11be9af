/* Locks and their kin where they cannot wait, with arguments that cannot be, without memory, and in a forked child. */
#include "support/harness.h"

#include <math.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

struct all {
    heist_lock lock;
    heist_rwlock rwlock;
    heist_event event;
    heist_condition condition;
    heist_semaphore semaphore;
    heist_barrier barrier;
    heist_once once;
    heist_waitgroup group;
};
static void make_all(struct all *a) {
    heist_lock_init(&a->lock);
    heist_rwlock_init(&a->rwlock);
    heist_event_init(&a->event);
    assert_int_equal(heist_condition_init(&a->condition, &a->lock), 0);
    assert_int_equal(heist_semaphore_init(&a->semaphore, 1), 0);
    assert_int_equal(heist_barrier_init(&a->barrier, 1), 0);
    heist_once_init(&a->once);
    heist_waitgroup_init(&a->group);
}

static int answer(void *arg) {
    (void)arg;
    return 0;
}

/* Every form that may wait; those with a deadline by turns.  All would succeed at once.  How many gave `code`. */
enum { WAITS = 15 };
static int waits_that_give(struct all *a, int code) {
    double soon = heist_time() + 1;
    int got[WAITS] = {
        heist_lock_acquire(&a->lock),
        heist_lock_acquire_until(&a->lock, soon),
        heist_lock_with(&a->lock, answer, NULL),
        heist_rwlock_acquire_read(&a->rwlock),
        heist_rwlock_acquire_read_until(&a->rwlock, soon),
        heist_rwlock_acquire_write(&a->rwlock),
        heist_rwlock_acquire_write_until(&a->rwlock, soon),
        heist_event_wait(&a->event),
        heist_condition_wait(&a->condition),
        heist_condition_wait_until(&a->condition, soon),
        heist_semaphore_acquire(&a->semaphore),
        heist_semaphore_acquire_until(&a->semaphore, soon),
        heist_barrier_wait(&a->barrier),
        heist_once_call(&a->once, answer, NULL),
        heist_waitgroup_wait(&a->group),
    };
    int n = 0;
    for (int i = 0; i < WAITS; i++) n += got[i] == code;
    return n;
}

struct seen {
    struct all all;
    int waits, tries;
};

static int in_callback(void *arg) {
    struct seen *s = arg;
    struct all *a = &s->all;
    s->waits = waits_that_give(a, HEIST_ENOTINCORO);
    s->tries += heist_lock_try_acquire(&a->lock) == 0;
    s->tries += heist_condition_notify_all(&a->condition) == 0;
    s->tries += heist_lock_release(&a->lock) == 0;
    s->tries += heist_rwlock_try_acquire_read(&a->rwlock) == 0;
    s->tries += heist_rwlock_release_read(&a->rwlock) == 0;
    s->tries += heist_rwlock_try_acquire_write(&a->rwlock) == 0;
    s->tries += heist_rwlock_release_write(&a->rwlock) == 0;
    s->tries += heist_event_set(&a->event) == 0;
    s->tries += heist_event_is_set(&a->event) == 1;
    s->tries += heist_semaphore_try_acquire(&a->semaphore) == 0;
    s->tries += heist_semaphore_release(&a->semaphore) == 0;
    s->tries += heist_once_done(&a->once) == 0;
    s->tries += heist_waitgroup_add(&a->group, 1) == 0;
    s->tries += heist_waitgroup_done(&a->group) == 0;
    return 0;
}

static void callbacks_get_the_try_forms_only(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    struct seen s = {.waits = 0};
    make_all(&s.all);
    assert_int_equal(heist_event_set(&s.all.event), 0);
    assert_int_equal(heist_loop_call_soon(loop, in_callback, &s, NULL, NULL), 0);
    harness_one_pass(loop);
    assert_int_equal(s.waits, WAITS);
    assert_int_equal(s.tries, 14);
    harness_loop_end(loop);
}

/* A request that stands is delivered by each of them, whether it would have to wait or not. */
static int cancelled_at_each(void *arg, void **out) {
    struct seen *s = arg;
    struct all *a = &s->all;
    (void)out;
    heist_task *me = heist_current_task();
    for (int i = 0; i < 8; i++) {
        if (heist_cancel(me) != 1) return -EIO;
        int err = i == 0   ? heist_lock_acquire(&a->lock)
                  : i == 1 ? heist_rwlock_acquire_read(&a->rwlock)
                  : i == 2 ? heist_rwlock_acquire_write(&a->rwlock)
                  : i == 3 ? heist_event_wait(&a->event)
                  : i == 4 ? heist_semaphore_acquire(&a->semaphore)
                  : i == 5 ? heist_barrier_wait(&a->barrier)
                  : i == 6 ? heist_once_call(&a->once, answer, NULL)
                           : heist_waitgroup_wait(&a->group);
        s->waits += err == -ECANCELED;
    }
    /* And each costs some of the budget: a task that only ever takes what is free gives way. */
    return 0;
}

static void each_is_a_cancellation_point_also_when_it_need_not_wait(void **state) {
    (void)state;
    struct seen s = {.waits = 0};
    make_all(&s.all);
    assert_int_equal(heist_event_set(&s.all.event), 0);
    assert_int_equal(harness_run(cancelled_at_each, &s, NULL), 0);
    assert_int_equal(s.waits, 8);
    assert_int_equal(heist_lock_locked(&s.all.lock), 0);
    assert_int_equal(heist_rwlock_readers(&s.all.rwlock), 0);
    assert_int_equal(heist_rwlock_writing(&s.all.rwlock), 0);
    assert_int_equal(heist_semaphore_value(&s.all.semaphore), 1);
    assert_int_equal(heist_once_done(&s.all.once), 0);
}

struct turns {
    heist_lock lock;
    _Atomic(int) stop, passed_while_held;
    long rounds;
};
static int greedy(void *arg, void **out) {
    struct turns *t = arg;
    (void)out;
    for (t->rounds = 0; !t->stop && t->rounds < 100000000; t->rounds++) {
        if (heist_lock_acquire(&t->lock) != 0) return -EIO;
        if (heist_lock_release(&t->lock) != 0) return -EIO;
    }
    return t->stop ? 0 : -ETIMEDOUT;
}
static int modest(void *arg, void **out) {
    struct turns *t = arg;
    (void)out;
    t->passed_while_held = heist_lock_locked(&t->lock);
    t->stop = 1;
    return 0;
}
static int greedy_and_modest(void *arg, void **out) {
    heist_task *t[2];
    (void)out;
    if (heist_create_task(modest, arg, NULL, &t[1]) < 0 || heist_create_task(greedy, arg, NULL, &t[0]) < 0) abort();
    int err = heist_gather(t, 2, NULL, 0);
    heist_unref(t[0]);
    heist_unref(t[1]);
    return err;
}

static void taking_what_is_free_gives_way_now_and_then_with_empty_hands(void **state) {
    (void)state;
    struct turns t = {.lock = HEIST_LOCK_INIT};
    assert_int_equal(harness_run(greedy_and_modest, &t, NULL), 0);
    if (harness_workers() == 1) assert_int_equal(t.passed_while_held, 0);
}

static void bad_arguments_are_refused(void **state) {
    (void)state;
    struct all a;
    make_all(&a);
    heist_lock_init(NULL);
    heist_rwlock_init(NULL);
    heist_event_init(NULL);
    heist_once_init(NULL);
    heist_waitgroup_init(NULL);
    const int refused[] = {
        heist_lock_acquire(NULL),
        heist_lock_acquire_until(NULL, 0),
        heist_lock_acquire_until(&a.lock, NAN),
        heist_lock_try_acquire(NULL),
        heist_lock_release(NULL),
        heist_lock_locked(NULL),
        heist_lock_destroy(NULL),
        heist_rwlock_acquire_read(NULL),
        heist_rwlock_acquire_write(NULL),
        heist_rwlock_acquire_read_until(&a.rwlock, NAN),
        heist_rwlock_acquire_write_until(&a.rwlock, NAN),
        heist_rwlock_try_acquire_read(NULL),
        heist_rwlock_try_acquire_write(NULL),
        heist_rwlock_release_read(NULL),
        heist_rwlock_release_write(NULL),
        heist_rwlock_writing(NULL),
        heist_rwlock_destroy(NULL),
        heist_event_wait(NULL),
        heist_event_wait_until(&a.event, NAN),
        heist_event_set(NULL),
        heist_event_clear(NULL),
        heist_event_is_set(NULL),
        heist_event_destroy(NULL),
        heist_condition_wait(NULL),
        heist_condition_wait_until(&a.condition, NAN),
        heist_condition_wait_for(&a.condition, NULL, NULL),
        heist_condition_wait_for_until(&a.condition, answer, NULL, NAN),
        heist_condition_notify(NULL, 1),
        heist_condition_notify_all(NULL),
        heist_condition_destroy(NULL),
        heist_semaphore_acquire(NULL),
        heist_semaphore_acquire_until(&a.semaphore, NAN),
        heist_semaphore_try_acquire(NULL),
        heist_semaphore_release(NULL),
        heist_semaphore_locked(NULL),
        heist_semaphore_destroy(NULL),
        heist_barrier_wait(NULL),
        heist_barrier_wait_until(&a.barrier, NAN),
        heist_barrier_abort(NULL),
        heist_barrier_reset(NULL),
        heist_barrier_parties(NULL),
        heist_barrier_n_waiting(NULL),
        heist_barrier_broken(NULL),
        heist_barrier_destroy(NULL),
        heist_once_call(NULL, answer, NULL),
        heist_once_call(&a.once, NULL, NULL),
        heist_once_call_until(&a.once, answer, NULL, NAN),
        heist_once_done(NULL),
        heist_once_destroy(NULL),
        heist_waitgroup_add(NULL, 1),
        heist_waitgroup_done(NULL),
        heist_waitgroup_wait(NULL),
        heist_waitgroup_wait_until(&a.group, NAN),
        heist_waitgroup_destroy(NULL),
    };
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        if (refused[i] != -EINVAL) fail_msg("call %zu: %s", i, heist_error_name(refused[i]));
    assert_int_equal(heist_semaphore_value(NULL), -EINVAL);
    assert_int_equal(heist_waitgroup_count(NULL), -EINVAL);
    assert_int_equal(heist_rwlock_readers(NULL), 0);
    assert_int_equal(heist_lock_locked(&a.lock), 0);
}

/* A thread that has not waited before needs memory for its wait, and says so; the lock is as it was. */
struct poor {
    struct all all;
    int err[4], held;
};
static void *wait_poor(void *arg) {
    struct poor *p = arg;
    double soon = heist_time() + 5;
    harness_fail_allocation(1, true);
    p->err[0] = heist_semaphore_acquire_until(&p->all.semaphore, soon);
    p->err[1] = heist_event_wait_until(&p->all.event, soon);
    p->err[2] = heist_condition_wait_until(&p->all.condition, soon);
    p->held = heist_lock_locked(&p->all.lock);
    p->err[3] = heist_lock_acquire_until(&p->all.lock, soon);
    harness_fail_allocation(0, false);
    return NULL;
}

static void a_thread_without_memory_gets_a_code_and_takes_nothing(void **state) {
    (void)state;
    struct poor p;
    make_all(&p.all);
    assert_int_equal(heist_semaphore_try_acquire(&p.all.semaphore), 0);
    assert_int_equal(heist_lock_try_acquire(&p.all.lock), 0);
    harness_join(harness_thread(wait_poor, &p));
    for (int i = 0; i < 4; i++) assert_int_equal(p.err[i], -ENOMEM);
    assert_int_equal(p.held, 1);
    assert_int_equal(heist_semaphore_destroy(&p.all.semaphore), 0);
    assert_int_equal(heist_lock_release(&p.all.lock), 0);
}

static void in_a_child_every_call_says_so(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    struct all a;
    make_all(&a);
    assert_int_equal(heist_lock_try_acquire(&a.lock), 0);
    int ends[2], good = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) { /* it tells by a pipe: memcheck has a view of its own on the status */
        good = waits_that_give(&a, HEIST_EFORKED);
        good += heist_lock_try_acquire(&a.lock) == HEIST_EFORKED;
        good += heist_lock_release(&a.lock) == HEIST_EFORKED;
        good += heist_rwlock_try_acquire_read(&a.rwlock) == HEIST_EFORKED;
        good += heist_rwlock_release_write(&a.rwlock) == HEIST_EFORKED;
        good += heist_event_set(&a.event) == HEIST_EFORKED;
        good += heist_event_clear(&a.event) == HEIST_EFORKED;
        good += heist_condition_notify(&a.condition, 1) == HEIST_EFORKED;
        good += heist_semaphore_release(&a.semaphore) == HEIST_EFORKED;
        good += heist_barrier_abort(&a.barrier) == HEIST_EFORKED;
        good += heist_waitgroup_add(&a.group, 1) == HEIST_EFORKED;
        _exit(write(ends[1], &good, sizeof good) == sizeof good ? 0 : 1);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &good, sizeof good), sizeof good);
    close(ends[0]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(good, WAITS + 10);
    assert_int_equal(heist_lock_release(&a.lock), 0);
    harness_loop_end(loop);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        API_TEST(callbacks_get_the_try_forms_only),
        API_TEST(each_is_a_cancellation_point_also_when_it_need_not_wait),
        API_TEST(taking_what_is_free_gives_way_now_and_then_with_empty_hands),
        API_TEST(bad_arguments_are_refused),
        API_TEST(a_thread_without_memory_gets_a_code_and_takes_nothing),
        API_TEST(in_a_child_every_call_says_so),
    };
    return HARNESS_MAIN("sync_misuse", tests);
}
