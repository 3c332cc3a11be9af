/* Both pollers keep the contract: edges, one waiter for each, codes, waits that end when they should. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/sys.h"
#include "conc/atomic.h"
#include "loop/poller.h"
#include "support/pace.h"

struct fixture {
    struct heist__poller poller;
    int pair[2]; /* of connected sockets */
};

static bool uring; /* which of the two */

static int open_fixture(void **state) {
    static struct fixture f;
    *state = &f;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, f.pair) < 0) return -1;
    int err = heist__poller_open(&f.poller, uring);
    return !err && uring != (f.poller.uring != NULL) ? -1 : err;
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
    int plain = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(heist__poller_add(&f->poller, plain, HEIST__POLL_IN, 1), -EPERM);
    assert_int_equal(heist__poller_add(&f->poller, null, HEIST__POLL_IN, 1), -EPERM);
    close(plain);
    close(null);
    struct heist__poller closed = {.fd = -1};
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
    int err = heist__poller_open(&other, uring);
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

static void the_longest_limit_does_not_come_round(void **state) {
    struct fixture *f = *state;
    struct heist__poll_event e[8];
    assert_int_equal(heist__poller_add(&f->poller, f->pair[0], HEIST__POLL_IN | HEIST__POLL_EDGE, 3), 0);
    say(f);
    assert_int_equal(heist__poller_wait(&f->poller, e, 8, INT64_MAX), 1);
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
    /* Until one arrives inside the wait.  Asleep in between: where one thread runs at a time (valgrind) a loop that only
     * yields gets the turn back again and again, and each signal before the wait sends the thread another way round. */
    while (!a_load_acq(&w.done)) {
        pthread_kill(thread, SIGUSR1);
        (void)poll(NULL, 0, 1);
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

/* ---- what only one of them could get wrong ---- */

static void half_an_end_that_nobody_asked_for_is_silent(void **state) {
    struct fixture *f = *state;
    struct heist__poll_event e[8];
    char block[4096] = "";
    while (heist__sys_write(f->pair[0], block, sizeof block) > 0) {}
    shutdown(f->pair[1], SHUT_WR); /* there is an end to read, and no room to write */
    uint32_t once = HEIST__POLL_OUT | HEIST__POLL_ONESHOT;
    assert_int_equal(heist__poller_add(&f->poller, f->pair[0], once, 1), 0);
    for (int i = 0; i < 5; i++) assert_int_equal(heist__poller_wait(&f->poller, e, 8, 1000000), 0);
    assert_int_equal(heist__poller_mod(&f->poller, f->pair[0], once, 2), 0);
    assert_int_equal(heist__poller_wait(&f->poller, e, 8, 1000000), 0);
    while (heist__sys_read(f->pair[1], block, sizeof block) > 0) {}
    assert_int_equal(heist__poller_wait(&f->poller, e, 8, -1), 1);
    assert_int_equal(e[0].data, 2);
    assert_int_equal(e[0].events, HEIST__POLL_OUT);
    assert_int_equal(look(f, e), 0); /* once */
}

struct adder {
    struct fixture *f;
    uint32_t events;
};

static void *add_and_leave(void *arg) {
    struct adder *a = arg;
    return heist__poller_add(&a->f->poller, a->f->pair[0], a->events, 9) ? a : NULL;
}

static void a_registration_outlives_the_thread_that_made_it(void **state) {
    struct fixture *f = *state;
    struct heist__poll_event e[8];
    uint32_t kinds[2] = {HEIST__POLL_IN | HEIST__POLL_EDGE, HEIST__POLL_IN | HEIST__POLL_ONESHOT};
    for (int i = 0; i < 2; i++) {
        struct adder a = {f, kinds[i]};
        pthread_t thread;
        void *failed;
        assert_int_equal(pthread_create(&thread, NULL, add_and_leave, &a), 0);
        assert_int_equal(pthread_join(thread, &failed), 0);
        assert_null(failed);
        assert_int_equal(heist__poller_wait(&f->poller, e, 8, 2000000), 0); /* the thread's end is no event */
        say(f);
        assert_int_equal(heist__poller_wait(&f->poller, e, 8, -1), 1);
        assert_int_equal(e[0].data, 9);
        assert_int_equal(heist__poller_del(&f->poller, f->pair[0]), 0);
        char c;
        assert_int_equal(heist__sys_read(f->pair[0], &c, 1), 1);
    }
}

static void more_edges_than_there_is_room_for_lose_nothing(void **state) {
    struct fixture *f = *state;
    enum { SOURCES = 40, ROUNDS = 300 };
    struct heist__poll_event e[HEIST__POLL_MAX];
    int fd[SOURCES];
    for (int i = 0; i < SOURCES; i++) {
        fd[i] = heist__sys_eventfd(0);
        assert_true(fd[i] >= 0);
        assert_int_equal(heist__poller_add(&f->poller, fd[i], HEIST__POLL_IN | HEIST__POLL_EDGE, (uint64_t)i), 0);
    }
    for (int round = 0; round < 3; round++) {
        bool seen[SOURCES] = {false};
        uint64_t one = 1;
        for (int i = 0; i < ROUNDS * SOURCES; i++)
            assert_int_equal(heist__sys_write(fd[i % SOURCES], &one, sizeof one), (ssize_t)sizeof one);
        for (int got; (got = heist__poller_wait(&f->poller, e, HEIST__POLL_MAX, 1000000)) != 0;) {
            assert_true(got > 0);
            for (int i = 0; i < got; i++) seen[e[i].data] = true;
        }
        for (int i = 0; i < SOURCES; i++) assert_true(seen[i]);
    }
    for (int i = 0; i < SOURCES; i++) {
        assert_int_equal(heist__poller_del(&f->poller, fd[i]), 0);
        close(fd[i]);
    }
}

static void its_own_descriptor_is_readable_when_there_is_an_event(void **state) {
    struct fixture *f = *state;
    struct heist__poll_event e[8];
    struct pollfd p = {f->poller.fd, POLLIN, 0};
    assert_int_equal(heist__poller_add(&f->poller, f->pair[0], HEIST__POLL_IN | HEIST__POLL_EDGE, 1), 0);
    assert_int_equal(look(f, e), 0); /* from here on; who waits may have to be called first */
    assert_int_equal(poll(&p, 1, 0), 0);
    say(f);
    assert_int_equal(poll(&p, 1, -1), 1);
    assert_int_equal(look(f, e), 1);
    assert_int_equal(poll(&p, 1, 0), 0);
}

enum { CHURN_FDS = 24 };

struct churner {
    struct heist__poller *poller;
    _Atomic(int) *stop;
    int fd[CHURN_FDS], wrong;
};

static void *churn(void *arg) {
    struct churner *c = arg;
    for (unsigned i = 0; !a_load_acq(c->stop); i++) { /* acq: pairs with the release of the test */
        int at = (int)(i % CHURN_FDS);
        c->wrong += heist__poller_add(c->poller, c->fd[at], HEIST__POLL_IN | HEIST__POLL_EDGE, (uint64_t)at) != 0;
        if (i % 3 == 0) {
            uint64_t one = 1;
            c->wrong += heist__sys_write(c->fd[at], &one, sizeof one) != (ssize_t)sizeof one;
        }
        uint32_t once = HEIST__POLL_IN | HEIST__POLL_ONESHOT;
        if (i % 5 == 0) c->wrong += heist__poller_mod(c->poller, c->fd[at], once, (uint64_t)at) != 0;
        c->wrong += heist__poller_del(c->poller, c->fd[at]) != 0;
    }
    return NULL;
}

static void registrations_come_and_go_beside_waiters(void **state) {
    struct fixture *f = *state;
    _Atomic(int) taken = 0, stop = 0;
    struct churner churners[2];
    struct taker takers[2];
    pthread_t thread[4];
    int mine = heist__sys_eventfd(0);
    assert_int_equal(heist__poller_add(&f->poller, mine, HEIST__POLL_IN | HEIST__POLL_EDGE, 1000), 0);
    for (int i = 0; i < 2; i++) {
        churners[i] = (struct churner){.poller = &f->poller, .stop = &stop};
        for (int k = 0; k < CHURN_FDS; k++) churners[i].fd[k] = heist__sys_eventfd(0);
        takers[i] = (struct taker){&f->poller, &taken, &stop, 0};
        assert_int_equal(pthread_create(&thread[2 * i], NULL, churn, &churners[i]), 0);
        assert_int_equal(pthread_create(&thread[2 * i + 1], NULL, take_events, &takers[i]), 0);
    }
    struct pace pace = pace_of(300, 5, 3);
    while (pace_goes_on(&pace)) {
        int before = a_load_acq(&taken);
        while (a_load_acq(&taken) < before + 20) sched_yield(); /* acq: as above */
    }
    a_store_rel(&stop, 1);
    for (int i = 0; i < 4; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < CHURN_FDS; k++) close(churners[i].fd[k]);
        assert_int_equal(churners[i].wrong, 0);
        assert_int_equal(takers[i].failures, 0);
    }
    close(mine);
}

static int try_uring(void) {
    struct heist__poller p;
    uring = heist__poller_open(&p, true) == 0 && p.uring;
    heist__poller_close(&p);
    return uring;
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
        POLLER_TEST(the_longest_limit_does_not_come_round),
        POLLER_TEST(a_signal_ends_a_wait_with_nothing),
        POLLER_TEST(a_descriptor_added_during_a_wait_ends_it),
        POLLER_TEST(of_several_waiters_one_gets_the_edge),
        POLLER_TEST(half_an_end_that_nobody_asked_for_is_silent),
        POLLER_TEST(a_registration_outlives_the_thread_that_made_it),
        POLLER_TEST(more_edges_than_there_is_room_for_lose_nothing),
        POLLER_TEST(its_own_descriptor_is_readable_when_there_is_an_event),
        POLLER_TEST(registrations_come_and_go_beside_waiters),
    };
    int failed = cmocka_run_group_tests_name("epoll", tests, NULL, NULL);
    if (try_uring()) /* the kernel allows it */
        failed += cmocka_run_group_tests_name("io_uring", tests, NULL, NULL);
    return failed;
}
