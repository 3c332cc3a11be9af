/* A descriptor's readiness as a future: it stands wherever futures do, and leaves nothing behind. */
#include "support/harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void open_pair(int fd[2]) {
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd), 0);
}

static unsigned what(heist_future *f) {
    void *value = NULL;
    return heist_await(f, &value) == 0 ? (unsigned)(uintptr_t)value : 0;
}

static void it_ends_with_what_the_descriptor_is_ready_for(void **state) {
    (void)state;
    int fd[2];
    heist_future *f = NULL;
    heist_runtime *rt = harness_runtime(0);
    heist_loop *loop = heist_runtime_loop(rt, 0);
    open_pair(fd);
    assert_int_equal(heist_ready_future(loop, fd[0], HEIST_READABLE | HEIST_WRITABLE, &f), 0);
    assert_int_equal(what(f), HEIST_WRITABLE);
    heist_unref(f);
    assert_int_equal(heist_ready_future(loop, fd[0], HEIST_READABLE, &f), 0);
    assert_int_equal(heist_future_done(f), 0);
    assert_int_equal(write(fd[1], "x", 1), 1);
    assert_int_equal(what(f), HEIST_READABLE);
    assert_int_equal(heist_future_set_result(f, NULL, NULL), -ENOTSUP);
    heist_unref(f);
    /* What was there is there still, so another is ready at once; and a hang-up counts as readable. */
    assert_int_equal(heist_ready_future(loop, fd[0], HEIST_READABLE, &f), 0);
    assert_int_equal(what(f), HEIST_READABLE);
    heist_unref(f);
    char byte;
    assert_int_equal(read(fd[0], &byte, 1), 1);
    close(fd[1]);
    assert_int_equal(heist_ready_future(loop, fd[0], HEIST_READABLE, &f), 0);
    assert_int_equal(what(f), HEIST_READABLE);
    heist_unref(f);
    close(fd[0]);
    harness_runtime_end(rt);
}

struct mixed {
    int fd[2];
    heist_channel *channel;
    int first, second, third;
};

static int send_later(void *arg, void **out) {
    struct mixed *m = arg;
    (void)out;
    int err = heist_sleep(1);
    if (!err) err = heist_channel_send(m->channel, m);
    if (!err) err = heist_sleep(1);
    if (!err && write(m->fd[1], "x", 1) != 1) err = -EIO;
    return err;
}

/* A channel, a timer and a descriptor, each the first of the three once. */
static int select_over_all(void *arg, void **out) {
    struct mixed *m = arg;
    heist_task *sender = NULL;
    heist_future *ready = NULL, *timer = NULL;
    (void)out;
    int err = heist_ready_future(NULL, m->fd[0], HEIST_READABLE, &ready);
    if (!err) err = heist_sleep_future(NULL, 0.5, NULL, NULL, &timer);
    if (!err) err = heist_create_task(send_later, m, NULL, &sender);
    heist_select_case cases[] = {HEIST_CASE_RECV(m->channel), HEIST_CASE_AWAIT(timer), HEIST_CASE_AWAIT(ready)};
    if (!err) m->first = heist_select(cases, 3);
    cases[1].object = NULL;
    if (!err) m->second = heist_select(cases, 3);
    if (!err) m->third = heist_select(cases, 3);
    if (!err) err = heist_await(sender, NULL);
    heist_unref(sender);
    heist_unref(ready);
    heist_unref(timer);
    return err;
}

static void a_select_takes_channels_timers_and_descriptors(void **state) {
    (void)state;
    struct mixed m = {.first = -1, .second = -1, .third = -1};
    open_pair(m.fd);
    assert_int_equal(heist_channel_new(0, &m.channel), 0);
    assert_int_equal(harness_run(select_over_all, &m, NULL), 0);
    assert_int_equal(m.first, 1);
    assert_int_equal(m.second, 0);
    assert_int_equal(m.third, 2);
    heist_channel_unref(m.channel);
    close(m.fd[0]);
    close(m.fd[1]);
}

static void several_watch_one_descriptor_and_its_owner_may_close_it(void **state) {
    (void)state;
    enum { MANY = 5 };
    int fd[2];
    heist_future *f[MANY] = {NULL};
    heist_runtime *rt = harness_runtime(0);
    open_pair(fd);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(heist_ready_future(heist_runtime_loop(rt, i % heist_runtime_workers(rt)), fd[0],
                                            HEIST_READABLE, &f[i]), 0);
    assert_int_equal(heist_cancel(f[0]), 1);
    assert_int_equal(heist_cancel(f[0]), 0);
    assert_int_equal(heist_await(f[0], NULL), -ECANCELED);
    close(fd[0]); /* the duplicates go on */
    close(fd[1]); /* and hear of the other side's end */
    for (int i = 1; i < MANY; i++) assert_int_equal(what(f[i]), HEIST_READABLE);
    for (int i = 0; i < MANY; i++) heist_unref(f[i]);
    harness_runtime_end(rt);
}

static void one_that_is_dropped_or_closed_under_leaves_nothing(void **state) {
    (void)state;
    int fd[2];
    heist_future *kept = NULL, *dropped = NULL;
    heist_loop *loop = harness_loop();
    open_pair(fd);
    int before = harness_descriptors();
    assert_int_equal(heist_ready_future(loop, fd[0], HEIST_READABLE, &kept), 0);
    assert_int_equal(heist_ready_future(loop, fd[0], HEIST_READABLE, &dropped), 0);
    assert_int_equal(harness_descriptors(), before + 2);
    heist_unref(dropped);
    assert_int_equal(heist_loop_close(loop), 0);
    assert_int_equal(heist_future_result(kept, NULL), HEIST_ECLOSED);
    heist_unref(kept);
    assert_int_equal(heist_ready_future(loop, fd[0], HEIST_READABLE, &kept), HEIST_ECLOSED);
    assert_int_equal(harness_descriptors(), before);
    heist_loop_unref(loop);
    close(fd[0]);
    close(fd[1]);
}

static void a_cancel_races_with_the_event(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    for (int round = 0; round < 200; round++) {
        int fd[2];
        heist_future *f = NULL;
        open_pair(fd);
        assert_int_equal(heist_ready_future(heist_runtime_loop(rt, 0), fd[0], HEIST_READABLE | (round & 1 ? HEIST_WRITABLE : 0),
                                            &f), 0);
        assert_int_equal(write(fd[1], "x", 1), 1);
        int recorded = heist_cancel(f);
        int code = heist_await(f, NULL);
        assert_int_equal(code, recorded ? -ECANCELED : 0);
        heist_unref(f);
        close(fd[0]);
        close(fd[1]);
    }
    harness_runtime_end(rt);
}

static void what_cannot_be_watched_is_refused(void **state) {
    (void)state;
    heist_future *f = NULL;
    heist_loop *loop = harness_loop();
    assert_int_equal(heist_ready_future(loop, -1, HEIST_READABLE, &f), -EBADF);
    assert_int_equal(heist_ready_future(loop, 0, 0, &f), -EINVAL);
    assert_int_equal(heist_ready_future(loop, 0, 4, &f), -EINVAL);
    assert_int_equal(heist_ready_future(loop, 0, HEIST_READABLE, NULL), -EINVAL);
    assert_int_equal(heist_ready_future(NULL, 0, HEIST_READABLE, &f), HEIST_ENOLOOP);
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    assert_true(file >= 0);
    assert_int_equal(heist_ready_future(loop, file, HEIST_READABLE, &f), -EPERM);
    assert_int_equal(heist_ready_future(loop, file, HEIST_READABLE | HEIST_WRITABLE, &f), -EPERM);
    close(file);
    assert_null(f);
    harness_loop_end(loop);
}

static void without_memory_it_is_refused_whole(void **state) {
    (void)state;
    int fd[2];
    heist_loop *loop = harness_loop();
    open_pair(fd);
    int before = harness_descriptors(), refused = 0;
    for (int n = 1; n < 50; n++) {
        heist_future *f = NULL;
        harness_fail_allocation(n, false);
        int err = heist_ready_future(loop, fd[0], HEIST_READABLE | HEIST_WRITABLE, &f);
        bool met = harness_allocations() >= n;
        harness_fail_allocation(0, false);
        if (err) {
            assert_int_equal(err, -ENOMEM);
            assert_null(f);
            refused++;
        } else {
            assert_int_equal(heist_cancel(f), 1);
            heist_unref(f);
        }
        assert_int_equal(harness_descriptors(), before);
        if (!met) break;
    }
    assert_true(refused >= 3);
    close(fd[0]);
    close(fd[1]);
    harness_loop_end(loop);
}

static void the_child_of_a_fork_is_refused(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    int ends[2], answer = 1;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) { /* it tells by a pipe: a detector may have an exit status of its own for what the parent holds */
        heist_future *f = NULL;
        answer = heist_ready_future(loop, 0, HEIST_READABLE, &f);
        _exit(write(ends[1], &answer, sizeof answer) == sizeof answer ? 0 : 1);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &answer, sizeof answer), sizeof answer);
    close(ends[0]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(answer, HEIST_EFORKED);
    harness_loop_end(loop);
}

static const struct CMUnitTest tests[] = {
    API_TEST(it_ends_with_what_the_descriptor_is_ready_for),
    API_TEST(a_select_takes_channels_timers_and_descriptors),
    API_TEST(several_watch_one_descriptor_and_its_owner_may_close_it),
    API_TEST(one_that_is_dropped_or_closed_under_leaves_nothing),
    API_TEST(a_cancel_races_with_the_event),
    API_TEST(what_cannot_be_watched_is_refused),
    API_TEST(without_memory_it_is_refused_whole),
    API_TEST(the_child_of_a_fork_is_refused),
};

int main(void) { return HARNESS_MAIN("ready", tests); }
