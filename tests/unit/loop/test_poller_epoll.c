/* The poller keeps its contract: edges, one waiter for each, codes, waits that end when they should. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>

#include "base/sys.h"
#include "conc/atomic.h"
#include "loop/poller.h"
#include "support/pace.h"

struct fixture {
    struct heist__poller poller;
    int pair[2]; /* of connected sockets */
};

static int open_fixture(void **state) {
    static struct fixture f;
    *state = &f;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, f.pair) < 0) return -1;
    return heist__poller_open(&f.poller);
}

static int close_fixture(void **state) {
    struct fixture *f = *state;
    close(f->pair[0]);
    close(f->pair[1]);
    heist__poller_close(&f->poller);
    heist__poller_close(&f->poller); /* once more changes nothing */
    return f->poller.fd == -1 ? 0 : -1;
}

static int look(struct fixture *f, struct heist__poll_event *events) {
    return heist__poller_wait(&f->poller, events, 8, 0);
}

static void say(struct fixture *f) { assert_int_equal(heist__sys_write(f->pair[1], "x", 1), 1); }

static void an_edge_is_told_once(void **state) {
    struct fixture *f = *state;
    struct heist__poll_event e[8];
    uint64_t data = 0xfeedfacecafef00d;
    assert_int_equal(heist__poller_add(&f->poller, f->pair[0], HEIST__POLL_IN | HEIST__POLL_EDGE, data), 0);
    assert_int_equal(look(f, e), 0);
    say(f);
    assert_int_equal(look(f, e), 1);
    assert_true(e[0].data == data);
    assert_int_equal(e[0].events, HEIST__POLL_IN);
    assert_int_equal(look(f, e), 0); /* still readable, but told */
    say(f);
    assert_int_equal(look(f, e), 1); /* a new edge */
}

static void add_and_mod_tell_of_a_readiness_that_is_there(void **state) {
    struct fixture *f = *state;
    struct heist__poll_event e[8];
    say(f);
    assert_int_equal(heist__poller_add(&f->poller, f->pair[0], HEIST__POLL_IN | HEIST__POLL_EDGE, 1), 0);
    assert_int_equal(look(f, e), 1);
    assert_int_equal(heist__poller_mod(&f->poller, f->pair[0],
                                       HEIST__POLL_IN | HEIST__POLL_OUT | HEIST__POLL_EDGE, 2), 0);
    assert_int_equal(look(f, e), 1);
    assert_int_equal(e[0].data, 2);
    assert_int_equal(e[0].events, HEIST__POLL_IN | HEIST__POLL_OUT);
}

static void one_shot_is_silent_until_mod(void **state) {
    struct fixture *f = *state;
    struct heist__poll_event e[8];
    uint32_t once = HEIST__POLL_IN | HEIST__POLL_ONESHOT;
    assert_int_equal(heist__poller_add(&f->poller, f->pair[0], once, 1), 0);
    say(f);
    assert_int_equal(look(f, e), 1);
    say(f);
    assert_int_equal(look(f, e), 0);
    assert_int_equal(heist__poller_mod(&f->poller, f->pair[0], once, 1), 0);
    assert_int_equal(look(f, e), 1);
}

static void after_del_nothing_comes(void **state) {
    struct fixture *f = *state;
    struct heist__poll_event e[8];
    assert_int_equal(heist__poller_add(&f->poller, f->pair[0], HEIST__POLL_IN | HEIST__POLL_EDGE, 1), 0);
    say(f);
    assert_int_equal(heist__poller_del(&f->poller, f->pair[0]), 0);
    assert_int_equal(look(f, e), 0);
}

static void a_lost_peer_is_told_unasked(void **state) {
    struct fixture *f = *state;
    struct heist__poll_event e[8];
    assert_int_equal(heist__poller_add(&f->poller, f->pair[0], HEIST__POLL_EDGE, 1), 0);
    assert_int_equal(look(f, e), 0);
    shutdown(f->pair[1], SHUT_RDWR);
    assert_int_equal(look(f, e), 1);
    assert_true(e[0].events & HEIST__POLL_HUP);
}

static void what_cannot_be_is_a_code(void **state) {
    struct fixture *f = *state;
    struct heist__poll_event e[8];
    int fd = f->pair[0];
    assert_int_equal(heist__poller_mod(&f->poller, fd, HEIST__POLL_IN, 1), -ENOENT);
    assert_int_equal(heist__poller_del(&f->poller, fd), -ENOENT);
    assert_int_equal(heist__poller_add(&f->poller, fd, HEIST__POLL_IN, 1), 0);
    assert_int_equal(heist__poller_add(&f->poller, fd, HEIST__POLL_IN, 1), -EEXIST);
    assert_int_equal(heist__poller_add(&f->poller, 100000, HEIST__POLL_IN, 1), -EBADF);
    struct heist__poller closed = {-1};
    assert_int_equal(heist__poller_wait(&closed, e, 8, 0), -EBADF);
    assert_int_equal(heist__poller_add(&closed, fd, HEIST__POLL_IN, 1), -EBADF);
}

static void without_descriptors_open_is_a_code(void **state) {
    struct fixture *f = *state;
    struct heist__poller other;
    struct rlimit before, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int err = heist__poller_open(&other);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(err, -EMFILE);
    assert_int_equal(other.fd, -1);
    (void)f;
}

static void no_more_than_the_maximum_at_a_time_and_none_lost(void **state) {
    struct fixture *f = *state;
    enum { N = HEIST__POLL_MAX + 7 };
    struct heist__poll_event e[2 * HEIST__POLL_MAX];
    int fd[N];
    bool seen[N] = {false};
    for (int i = 0; i < N; i++) {
        fd[i] = heist__sys_eventfd(1);
        assert_true(fd[i] >= 0);
        assert_int_equal(heist__poller_add(&f->poller, fd[i], HEIST__POLL_IN | HEIST__POLL_EDGE, (uint64_t)i), 0);
    }
    assert_int_equal(heist__poller_wait(&f->poller, e, 3, 0), 3);
    for (int i = 0; i < 3; i++) seen[e[i].data] = true;
    int rest = 0, got;
    while ((got = heist__poller_wait(&f->poller, e, 2 * HEIST__POLL_MAX, 0)) > 0) {
        assert_true(got <= HEIST__POLL_MAX);
        for (int i = 0; i < got; i++) {
            assert_false(seen[e[i].data]);
            seen[e[i].data] = true;
        }
        rest += got;
    }
    assert_int_equal(rest, N - 3);
    for (int i = 0; i < N; i++) close(fd[i]);
}

static void a_wait_is_never_early(void **state) {
    struct fixture *f = *state;
    struct heist__poll_event e[8];
    for (int64_t limit = 1; limit < 3000000; limit = limit * 3 + 7) {
        int64_t start = heist__sys_monotonic_ns();
        assert_int_equal(heist__poller_wait(&f->poller, e, 8, limit), 0);
        assert_true(heist__sys_monotonic_ns() - start >= limit);
    }
}

/* ---- with other threads ---- */

struct waiter {
    struct heist__poller *poller;
    _Atomic(int) done;
    int answer;
    struct heist__poll_event event;
};

static void *wait_for_ever(void *arg) {
    struct waiter *w = arg;
    w->answer = heist__poller_wait(w->poller, &w->event, 1, -1);
    a_store_rel(&w->done, 1); /* pairs with the acquire in the tests: answer and event */
    return NULL;
}

static void on_signal(int number) { (void)number; }

static void a_signal_ends_a_wait_with_nothing(void **state) {
    struct fixture *f = *state;
    struct sigaction action, before;
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    assert_int_equal(sigaction(SIGUSR1, &action, &before), 0);
    struct waiter w = {.poller = &f->poller, .answer = -1};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wait_for_ever, &w), 0);
    while (!a_load_acq(&w.done)) { /* until one arrives inside the wait */
        pthread_kill(thread, SIGUSR1);
        sched_yield();
    }
    pthread_join(thread, NULL);
    assert_int_equal(sigaction(SIGUSR1, &before, NULL), 0);
    assert_int_equal(w.answer, 0);
}

static void a_descriptor_added_during_a_wait_ends_it(void **state) {
    struct fixture *f = *state;
    struct waiter w = {.poller = &f->poller, .answer = -1};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wait_for_ever, &w), 0);
    for (int i = 0; i < 100; i++) sched_yield();
    say(f);
    assert_int_equal(heist__poller_add(&f->poller, f->pair[0], HEIST__POLL_IN | HEIST__POLL_EDGE, 77), 0);
    pthread_join(thread, NULL);
    assert_int_equal(w.answer, 1);
    assert_int_equal(w.event.data, 77);
}

enum { TAKERS = 3, EDGES = 3000 };

struct taker {
    struct heist__poller *poller;
    _Atomic(int) *taken, *stop;
    int failures;
};

static void *take_events(void *arg) {
    struct taker *t = arg;
    struct heist__poll_event e[4];
    while (!a_load_acq(t->stop)) { /* acq: pairs with the release of the test */
        int got = heist__poller_wait(t->poller, e, 4, 1000000);
        if (got < 0) t->failures++;
        else a_add_ar(t->taken, got); /* ar: pairs with the test's acquire, which counts */
    }
    return NULL;
}

static void of_several_waiters_one_gets_the_edge(void **state) {
    struct fixture *f = *state;
    _Atomic(int) taken = 0, stop = 0;
    struct taker takers[TAKERS];
    pthread_t thread[TAKERS];
    int source = heist__sys_eventfd(0);
    assert_true(source >= 0);
    assert_int_equal(heist__poller_add(&f->poller, source, HEIST__POLL_IN | HEIST__POLL_EDGE, 5), 0);
    for (int i = 0; i < TAKERS; i++) {
        takers[i] = (struct taker){&f->poller, &taken, &stop, 0};
        assert_int_equal(pthread_create(&thread[i], NULL, take_events, &takers[i]), 0);
    }
    int wrong = 0;
    struct pace pace = pace_of(EDGES, 10, 3);
    for (int i = 0; pace_goes_on(&pace); i++) {
        uint64_t one = 1;
        wrong += heist__sys_write(source, &one, sizeof(one)) != (ssize_t)sizeof(one);
        while (a_load_acq(&taken) <= i) sched_yield(); /* acq: pairs with the taker's addition */
    }
    a_store_rel(&stop, 1);
    for (int i = 0; i < TAKERS; i++) pthread_join(thread[i], NULL);
    close(source);
    assert_int_equal(wrong, 0);
    assert_int_equal(a_load_acq(&taken), pace.played);
    for (int i = 0; i < TAKERS; i++) assert_int_equal(takers[i].failures, 0);
}

#define POLLER_TEST(f) cmocka_unit_test_setup_teardown(f, open_fixture, close_fixture)

int main(void) {
    const struct CMUnitTest tests[] = {
        POLLER_TEST(an_edge_is_told_once),
        POLLER_TEST(add_and_mod_tell_of_a_readiness_that_is_there),
        POLLER_TEST(one_shot_is_silent_until_mod),
        POLLER_TEST(after_del_nothing_comes),
        POLLER_TEST(a_lost_peer_is_told_unasked),
        POLLER_TEST(what_cannot_be_is_a_code),
        POLLER_TEST(without_descriptors_open_is_a_code),
        POLLER_TEST(no_more_than_the_maximum_at_a_time_and_none_lost),
        POLLER_TEST(a_wait_is_never_early),
        POLLER_TEST(a_signal_ends_a_wait_with_nothing),
        POLLER_TEST(a_descriptor_added_during_a_wait_ends_it),
        POLLER_TEST(of_several_waiters_one_gets_the_edge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
