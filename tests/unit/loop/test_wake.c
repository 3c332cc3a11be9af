/* The wake-up descriptor: no signal is lost, nothing is read, a full counter still wakes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/resource.h>

#include "base/sys.h"
#include "conc/atomic.h"
#include "loop/wake.h"

struct fixture {
    struct heist__poller poller;
    struct heist__wake wake;
};

static int open_fixture(void **state) {
    static struct fixture f;
    *state = &f;
    if (heist__poller_open(&f.poller, false) < 0) return -1;
    return heist__wake_open(&f.wake, &f.poller);
}

static int close_fixture(void **state) {
    struct fixture *f = *state;
    heist__wake_close(&f->wake, &f->poller);
    heist__wake_close(&f->wake, &f->poller);
    heist__poller_close(&f->poller);
    return 0;
}

/* Events that a look finds; all must be wake-ups. */
static int woken(struct fixture *f) {
    struct heist__poll_event e[4];
    int got = heist__poller_wait(&f->poller, e, 4, 0);
    for (int i = 0; i < got; i++) assert_true(e[i].data == HEIST__WAKE_DATA);
    return got;
}

static void a_signal_before_the_wait_ends_it(void **state) {
    struct fixture *f = *state;
    assert_int_equal(woken(f), 0);
    heist__wake_signal(&f->wake);
    assert_int_equal(woken(f), 1);
    assert_int_equal(woken(f), 0);
}

static void every_signal_wakes_though_nothing_is_read(void **state) {
    struct fixture *f = *state;
    for (int i = 0; i < 1000; i++) {
        heist__wake_signal(&f->wake);
        assert_int_equal(woken(f), 1);
    }
    heist__wake_signal(&f->wake);
    heist__wake_signal(&f->wake);
    assert_int_equal(woken(f), 1); /* both in one */
    uint64_t content;
    assert_int_equal(heist__sys_read(f->wake.fd, &content, sizeof(content)), sizeof(content));
    assert_int_equal(content, 1002);
}

/* Fills the counter, unless a signaller comes between: then it is refused, and that is fine too. */
static void fill(struct fixture *f) {
    uint64_t content, most = UINT64_MAX - 1;
    ssize_t got = heist__sys_read(f->wake.fd, &content, sizeof(content));
    assert_true(got == (ssize_t)sizeof(content) || got == -EAGAIN);
    got = heist__sys_write(f->wake.fd, &most, sizeof(most));
    assert_true(got == (ssize_t)sizeof(most) || got == -EAGAIN);
}

static void a_full_counter_still_wakes(void **state) {
    struct fixture *f = *state;
    for (int i = 0; i < 10; i++) {
        fill(f);
        woken(f); /* the filling made an edge of its own */
        assert_int_equal(woken(f), 0);
        heist__wake_signal(&f->wake);
        assert_int_equal(woken(f), 1);
    }
}

/* ---- with other threads ---- */

enum { ROUNDS = 5000 };

struct match {
    struct fixture *f;
    _Atomic(int) ball, stop;
    int failures;
};

/* Waits without limit until the ball is ours (odd), and plays it back. */
static void *sleeper(void *arg) {
    struct match *m = arg;
    struct heist__poll_event e[4];
    for (int round = 0; round < ROUNDS; round++) {
        while (a_load_acq(&m->ball) != 2 * round + 1) /* acq: pairs with the release of the other side */
            if (heist__poller_wait(&m->f->poller, e, 4, -1) < 0) m->failures++;
        a_store_rel(&m->ball, 2 * round + 2);
    }
    return NULL;
}

/* Keeps the counter full, so that signals are refused again and again. */
static void *filler(void *arg) {
    struct match *m = arg;
    while (!a_load_acq(&m->stop)) { /* acq: the end, from the test */
        uint64_t most = UINT64_MAX - 1;
        ssize_t wrote = heist__sys_write(m->f->wake.fd, &most, sizeof(most));
        if (wrote != (ssize_t)sizeof(most) && wrote != -EAGAIN) m->failures++;
    }
    return NULL;
}

static void play(struct fixture *f, bool full) {
    struct match m = {.f = f};
    pthread_t sleeps, fills = pthread_self();
    assert_int_equal(pthread_create(&sleeps, NULL, sleeper, &m), 0);
    if (full) assert_int_equal(pthread_create(&fills, NULL, filler, &m), 0);
    for (int round = 0; round < ROUNDS; round++) {
        a_store_rel(&m.ball, 2 * round + 1);
        heist__wake_signal(&f->wake);
        while (a_load_acq(&m.ball) != 2 * round + 2) sched_yield(); /* acq: pairs with the sleeper's release */
    }
    pthread_join(sleeps, NULL);
    a_store_rel(&m.stop, 1);
    if (full) pthread_join(fills, NULL);
    assert_int_equal(m.failures, 0);
}

static void a_sleeper_is_woken_every_time(void **state) { play(*state, false); }

/* A lost wake-up would hang here.  The filler's own edges help the sleeper now and then, but not always. */
static void a_sleeper_is_woken_also_while_the_counter_is_full(void **state) { play(*state, true); }

struct crowd {
    struct fixture *f;
    int signals;
};

static void *signal_often(void *arg) {
    struct crowd *c = arg;
    for (int i = 0; i < c->signals; i++) heist__wake_signal(&c->f->wake);
    return NULL;
}

static void several_signallers_of_a_full_counter_all_end(void **state) {
    struct fixture *f = *state;
    struct crowd c = {f, 2000};
    pthread_t thread[4];
    fill(f);
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&thread[i], NULL, signal_often, &c), 0);
    for (int i = 0; i < 200; i++) fill(f);
    for (int i = 0; i < 4; i++) pthread_join(thread[i], NULL);
    assert_int_equal(woken(f), 1);
}

static void close_gives_the_descriptor_back(void **state) {
    struct fixture *f = *state;
    int fd = f->wake.fd;
    heist__wake_close(&f->wake, NULL); /* the poller may be gone by then */
    assert_int_equal(f->wake.fd, -1);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    assert_int_equal(woken(f), 0);
    assert_int_equal(heist__wake_open(&f->wake, &f->poller), 0);
    heist__wake_signal(&f->wake);
    assert_int_equal(woken(f), 1);
}

static void an_open_that_fails_leaves_nothing(void **state) {
    struct fixture *f = *state;
    struct heist__wake other;
    struct rlimit before, none;
    int next = dup(f->poller.fd);
    assert_true(next >= 0);
    close(next);

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int err = heist__wake_open(&other, &f->poller);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(err, -EMFILE);
    assert_int_equal(other.fd, -1);

    struct heist__poller closed = {.fd = -1};
    assert_int_equal(heist__wake_open(&other, &closed), -EBADF);
    assert_int_equal(other.fd, -1);
    assert_int_equal(fcntl(next, F_GETFD), -1); /* the number that would have leaked */
}

#define WAKE_TEST(f) cmocka_unit_test_setup_teardown(f, open_fixture, close_fixture)

int main(void) {
    const struct CMUnitTest tests[] = {
        WAKE_TEST(a_signal_before_the_wait_ends_it),
        WAKE_TEST(every_signal_wakes_though_nothing_is_read),
        WAKE_TEST(a_full_counter_still_wakes),
        WAKE_TEST(a_sleeper_is_woken_every_time),
        WAKE_TEST(a_sleeper_is_woken_also_while_the_counter_is_full),
        WAKE_TEST(several_signallers_of_a_full_counter_all_end),
        WAKE_TEST(close_gives_the_descriptor_back),
        WAKE_TEST(an_open_that_fails_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
