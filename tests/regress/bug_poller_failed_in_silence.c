/* A loop whose poller failed ran at full speed and said nothing.
 *
 * A program that closes descriptors which are not its own (all above 2, say) can hit that of a loop's poller.  Each wait
 * then returned a code at once, which nobody looked at: the worker went round and round, and tasks that waited on
 * descriptors waited for ever without a word.  Now the exception handler hears of it once, tasks and timers go on, and a
 * worker that has nothing to do sleeps.
 *
 * Here another file is put in the place of the poller's: that no number is free meanwhile keeps the test from closing
 * what is another's. */
#include "regress/workers.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/sys.h"
#include "loop/loop.h"

struct heard {
    _Atomic(int) reports, code;
};

static void hear(heist_loop *loop, const heist_report *report, void *user) {
    struct heard *heard = user;
    (void)loop;
    heard->reports++;
    heard->code = report->code;
}

static int answer(void *arg, void **out) {
    (void)arg, (void)out;
    return heist_sleep(0.002);
}

static int sleeps_and_wakes(void *arg, void **out) {
    (void)arg, (void)out;
    for (int i = 0; i < 10; i++) {
        heist_task *t;
        int err = heist_create_task(answer, NULL, NULL, &t);
        if (!err) err = heist_await(t, NULL);
        if (!err) heist_unref(t);
        if (err) return err;
    }
    return heist_sleep(0.1);
}

/* Returns the copy by which the poller can be given back. */
static int take_away(heist_loop *loop) {
    int copy = fcntl(loop->poller.fd, F_DUPFD_CLOEXEC, 0), null = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_true(copy >= 0 && null >= 0);
    assert_true(dup3(null, loop->poller.fd, O_CLOEXEC) >= 0);
    close(null);
    return copy;
}

static void give_back(heist_loop *loop, int copy) {
    assert_true(dup3(copy, loop->poller.fd, O_CLOEXEC) >= 0);
    close(copy);
}

static uint64_t turns_of(heist_runtime *rt, int workers) {
    uint64_t sum = 0;
    for (int i = 0; i < workers; i++) {
        heist_worker_stats stats = {.size = sizeof(stats)};
        assert_int_equal(heist_runtime_stats(rt, i, &stats), 0);
        sum += stats.sleeps;
    }
    return sum;
}

static void a_runtime_whose_pollers_fail(int workers, int backend) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_runtime *rt;
    struct heard heard[8] = {0};
    int copy[8];
    opts.workers = workers;
    opts.backend = backend;
    assert_int_equal(heist_runtime_new(&opts, &rt), 0);
    for (int i = 0; i < workers; i++) {
        heist_loop *loop = heist_runtime_loop(rt, i);
        assert_int_equal(heist_loop_set_exception_handler(loop, hear, &heard[i]), 0);
        copy[i] = take_away(loop);
    }
    uint64_t before = turns_of(rt, workers);
    for (int round = 0; round < 1 + (workers == 1); round++) {
        heist_task *t;
        assert_int_equal(heist_runtime_run_coroutine(rt, sleeps_and_wakes, NULL, NULL, &t), 0);
        assert_int_equal(heist_await(t, NULL), 0);
        heist_unref(t);
    }
    /* Some for each of the tasks, and few for the time; at full speed there were many times as many in the first tenth
     * of a second. */
    assert_true(turns_of(rt, workers) - before < 5000);
    int told = 0;
    for (int i = 0; i < workers; i++) {
        assert_true(heard[i].reports <= 1);
        if (heard[i].reports) assert_true(heard[i].code < 0);
        told += heard[i].reports;
        give_back(heist_runtime_loop(rt, i), copy[i]);
    }
    assert_true(told > 0);
    assert_int_equal(heist_runtime_close(rt, HEIST_FOREVER), 0);
    heist_runtime_unref(rt);
}

static void a_failing_epoll_is_reported_once_and_the_rest_goes_on(void **state) {
    (void)state;
    for (EACH_WORKER_COUNT(workers)) a_runtime_whose_pollers_fail(workers, HEIST_BACKEND_EPOLL);
}

static void a_failing_ring_is_reported_once_and_the_rest_goes_on(void **state) {
    (void)state;
    for (EACH_WORKER_COUNT(workers)) a_runtime_whose_pollers_fail(workers, HEIST_BACKEND_IO_URING);
}

/* ---- and one that works again ---- */

struct again {
    heist_loop *loop;
    struct heard *heard;
    int copy;
    heist_conn *conn;
};

static int read_one(void *arg, void **out) {
    struct again *a = arg;
    char byte;
    (void)out;
    return heist_conn_read(a->conn, &byte, 1, HEIST_FOREVER) == 1 ? 0 : -EIO;
}

static int comes_back(void *arg, void **out) {
    struct again *a = arg;
    int fd[2];
    (void)out;
    if (pipe2(fd, O_CLOEXEC | O_NONBLOCK)) return -errno;
    int err = heist_conn_open(fd[0], &a->conn);
    heist_task *t;
    if (!err) err = heist_create_task(read_one, a, NULL, &t);
    if (!err) err = heist_sleep(0.01);
    if (err) return err;
    a->copy = take_away(a->loop);
    while (!a->heard->reports)
        if ((err = heist_sleep(0.01))) return err;
    if (write(fd[1], "x", 1) != 1) return -errno;
    if ((err = heist_sleep(0.05))) return err;
    if (heist_future_done(t)) return -EPROTO;
    give_back(a->loop, a->copy);
    err = heist_await(t, NULL);
    heist_unref(t);
    heist_conn_close(a->conn);
    close(fd[1]);
    return err;
}

static void descriptors_are_served_when_the_poller_works_again(void **state) {
    (void)state;
    struct heard heard = {0};
    struct again a = {.heard = &heard};
    assert_int_equal(heist_loop_new(NULL, &a.loop), 0);
    assert_int_equal(heist_loop_set_exception_handler(a.loop, hear, &heard), 0);
    heist_task *t;
    assert_int_equal(heist_loop_create_task(a.loop, comes_back, &a, NULL, &t), 0);
    assert_int_equal(heist_loop_run_until_complete(a.loop, t, NULL), 0);
    heist_unref(t);
    assert_int_equal(heard.reports, 1);
    assert_int_equal(heist_loop_close(a.loop), 0);
    heist_loop_unref(a.loop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failing_epoll_is_reported_once_and_the_rest_goes_on),
        cmocka_unit_test(a_failing_ring_is_reported_once_and_the_rest_goes_on),
        cmocka_unit_test(descriptors_are_served_when_the_poller_works_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
