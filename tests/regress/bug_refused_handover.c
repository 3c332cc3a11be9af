/* What the kernel refused to take from one thread was lost on the one that slept.
 *
 * A thread that registers a descriptor with a ring of io_uring in which another one waits hands the request over itself.
 * When the kernel refuses that for want of memory (ENOMEM, EAGAIN, EBUSY), the request stays in the queue, and the next
 * wait hands it over.  But the wait under way was without a limit, and nobody ended it: the descriptor was watched as
 * soon as something else happened to come, or never.  Now who could not hand over writes to the wake-up descriptor.
 *
 * The refusals are made here: this program's `syscall` stands before the C library's. */
#include "regress/workers.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "loop/poller.h"
#include "loop/wake.h"

/* ---- refusals ---- */

static _Thread_local int refuse_all;    /* this thread's: the code */
static _Atomic(unsigned) refuse_one_of; /* everybody's; 0: none */
static _Atomic(unsigned) handed, refused;

static int refusal(long number, long submits) {
    static const int codes[] = {ENOMEM, EAGAIN, EBUSY};
    if (number != SYS_io_uring_enter || !submits) return 0;
    unsigned n = handed++, one_of = refuse_one_of;
    int code = refuse_all ? refuse_all : one_of && n % one_of == 0 ? codes[n / one_of % 3] : 0;
    refused += code != 0;
    return code;
}

/* Takes six arguments where fewer were given; those are looked at by nobody. */
long syscall(long number, ...);
__attribute__((no_sanitize_address)) long syscall(long number, ...) {
    static long (*real)(long, ...);
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    int code = refusal(number, a[1] & 0xffffffff);
    if (code) {
        errno = code;
        return -1;
    }
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "syscall");
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- one poller ---- */

struct waiter {
    struct heist__poller *poller;
    _Atomic(int) waits, got;
};

/* Until the event that is expected, with no limit. */
static void *wait_for_it(void *arg) {
    struct waiter *w = arg;
    for (;;) {
        struct heist__poll_event e[4];
        w->waits++;
        int n = heist__poller_wait(w->poller, e, 4, -1);
        for (int i = 0; i < n; i++)
            if (e[i].data == 77) w->got = 1;
        if (n < 0) w->got = n;
        if (w->got) return NULL;
    }
}

static void who_waits_hands_over_what_another_could_not(void **state) {
    static const int codes[] = {ENOMEM, EAGAIN, EBUSY};
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct heist__poller poller;
        struct heist__wake wake;
        struct waiter w = {.poller = &poller};
        int pair[2];
        pthread_t thread;
        assert_int_equal(heist__poller_open(&poller, true), 0);
        assert_int_equal(heist__wake_open(&wake, &poller), 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
        assert_int_equal(write(pair[1], "x", 1), 1);
        assert_int_equal(pthread_create(&thread, NULL, wait_for_it, &w), 0);
        while (!w.waits) sched_yield();
        for (int k = 0; k < 200; k++) sched_yield(); /* most often it stands in the kernel by now */
        refuse_all = codes[i];
        assert_int_equal(heist__poller_add(&poller, pair[0], HEIST__POLL_IN | HEIST__POLL_EDGE, 77), 0);
        pthread_join(thread, NULL); /* with this thread's refusals */
        refuse_all = 0;
        assert_int_equal(w.got, 1);
        heist__wake_close(&wake, &poller);
        heist__poller_close(&poller);
        close(pair[0]);
        close(pair[1]);
    }
}

/* ---- a runtime ---- */

enum { PAIRS = 24, ROUNDS = 200 };

struct end {
    heist_conn *conn;
    bool first;
};

static int ping(void *arg, void **out) {
    struct end *e = arg;
    char byte = 0;
    (void)out;
    for (int i = 0; i < ROUNDS; i++) {
        if (e->first && heist_conn_write(e->conn, "x", 1, HEIST_FOREVER, NULL)) return -EIO;
        if (heist_conn_read(e->conn, &byte, 1, HEIST_FOREVER) != 1) return -EIO;
        if (!e->first && heist_conn_write(e->conn, "y", 1, HEIST_FOREVER, NULL)) return -EIO;
        if (i % 16 == 15) (void)heist_sleep(0.0001); /* now and then everybody sleeps */
    }
    return 0;
}

static int all_pairs(void *arg, void **out) {
    struct end e[2 * PAIRS];
    heist_task *t[2 * PAIRS];
    int err = 0;
    (void)arg, (void)out;
    for (int i = 0; i < PAIRS; i++) {
        int fd[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd)) return -errno;
        for (int k = 0; k < 2; k++) {
            e[2 * i + k].first = k;
            err = heist_conn_open(fd[k], &e[2 * i + k].conn);
            if (!err) err = heist_create_task(ping, &e[2 * i + k], NULL, &t[2 * i + k]);
            if (err) return err;
        }
    }
    for (int i = 0; i < 2 * PAIRS; i++) {
        int code = heist_await(t[i], NULL);
        if (code) err = code;
        heist_unref(t[i]);
    }
    for (int i = 0; i < 2 * PAIRS; i++) heist_conn_close(e[i].conn);
    return err;
}

static void a_runtime_whose_ring_is_refused_now_and_then_loses_nothing(void **state) {
    (void)state;
    for (EACH_WORKER_COUNT(workers)) {
        heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
        heist_runtime *rt;
        opts.workers = workers;
        opts.backend = HEIST_BACKEND_IO_URING;
        assert_int_equal(heist_runtime_new(&opts, &rt), 0);
        unsigned before = refused;
        refuse_one_of = 3;
        heist_task *t = NULL;
        assert_int_equal(heist_runtime_run_coroutine(rt, all_pairs, NULL, NULL, &t), 0);
        assert_int_equal(heist_await(t, NULL), 0);
        heist_unref(t);
        refuse_one_of = 0;
        assert_true(refused > before);
        assert_int_equal(heist_runtime_close(rt, HEIST_FOREVER), 0);
        heist_runtime_unref(rt);
    }
}

static bool there_is_a_ring(void) {
    struct heist__poller p;
    bool there = heist__poller_open(&p, true) == 0 && p.uring;
    heist__poller_close(&p);
    return there;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_waits_hands_over_what_another_could_not),
        cmocka_unit_test(a_runtime_whose_ring_is_refused_now_and_then_loses_nothing),
    };
    if (!there_is_a_ring()) {
        print_message("the kernel allows no io_uring here\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
