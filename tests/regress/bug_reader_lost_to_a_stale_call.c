/* A reader of a fresh descriptor was lost when a call on the file that had the number before came to its end.
 *
 * A number is closed while a call on it is about to wait, or waits, and is no longer told: its registration is gone from
 * the poller with the file, but the call does not know.  The number is given to another file, and a reader is added for
 * it on the same loop.  Then the call ends, by its deadline or a cancel, and takes "its" number out of the poller: that
 * of the reader, which was never called again.  Or it asked the poller anew, and the reader's events became its own.
 * Now the poller's answer to add_reader, that the number was new to it, tells that the call's file is past.
 *
 * A plain close makes the state for certain that heist_sock_close left only in a race. */
#include "regress/workers.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

struct scene {
    int fd, old[2], fresh[2];
    _Atomic(bool) called;
    heist_event came;
    double deadline;
    int outcome;
    const char *wrong;
};

#define EXPECT(x)                                                                                                      \
    do {                                                                                                               \
        if (!(x)) return s->wrong = #x, -EPROTO;                                                                       \
    } while (0)

static int receive(void *arg, void **out) {
    struct scene *s = arg;
    char byte;
    (void)out;
    s->outcome = (int)heist_sock_recv(s->fd, &byte, 1, 0, s->deadline);
    return 0;
}

static int on_readable(void *arg) {
    struct scene *s = arg;
    char byte;
    if (read(s->fd, &byte, 1) == 1) heist_event_set(&s->came);
    return 0;
}

static int play(void *arg, void **out) {
    struct scene *s = arg;
    heist_loop *loop;
    heist_task *t;
    (void)out;
    EXPECT(heist_get_running_loop(&loop) == 0);
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, s->old) == 0);
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, s->fresh) == 0);
    s->fd = s->old[0];
    EXPECT(heist_loop_create_task(loop, receive, s, NULL, &t) == 0);
    EXPECT(heist_sleep(0.01) == 0); /* it waits; should it not yet, the test asks nothing of it */
    EXPECT(dup3(s->fresh[0], s->fd, O_CLOEXEC) == s->fd);
    EXPECT(heist_loop_add_reader(loop, s->fd, on_readable, s, NULL) == 0);
    if (s->deadline == HEIST_FOREVER) {
        EXPECT(heist_await(t, NULL) == 0); /* it is told */
        EXPECT(s->outcome == HEIST_ECLOSED);
    } else {
        heist_cancel(t);
        int err = heist_await(t, NULL);
        EXPECT(err == 0 || err == -ECANCELED);
    }
    heist_unref(t);
    for (int i = 0; i < 3; i++) { /* what the reader is there for */
        heist_event_clear(&s->came);
        EXPECT(write(s->fresh[1], "x", 1) == 1);
        EXPECT(heist_event_wait_until(&s->came, heist_time() + 20) == 0);
    }
    EXPECT(heist_loop_remove_reader(loop, s->fd) == 1);
    close(s->fd);
    close(s->old[1]);
    close(s->fresh[0]);
    close(s->fresh[1]);
    return 0;
}

static void run(double deadline, int backend) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    struct scene s = {.deadline = deadline};
    heist_loop *loop;
    heist_task *t;
    opts.backend = backend;
    heist_event_init(&s.came);
    assert_int_equal(heist_loop_new(&opts, &loop), 0);
    assert_int_equal(heist_loop_create_task(loop, play, &s, NULL, &t), 0);
    int err = heist_loop_run_until_complete(loop, t, NULL);
    heist_unref(t);
    if (s.wrong) print_message("not so: %s\n", s.wrong);
    assert_int_equal(err, 0);
    assert_int_equal(heist_loop_close(loop), 0);
    heist_loop_unref(loop);
}

static void a_reader_outlives_a_call_on_the_file_before_that_is_cancelled(void **state) {
    (void)state;
    for (int b = HEIST_BACKEND_EPOLL; b <= HEIST_BACKEND_IO_URING; b++) run(heist_time() + 1000, b);
}

static void a_call_on_the_file_before_learns_that_it_is_closed(void **state) {
    (void)state;
    for (int b = HEIST_BACKEND_EPOLL; b <= HEIST_BACKEND_IO_URING; b++) run(HEIST_FOREVER, b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_outlives_a_call_on_the_file_before_that_is_cancelled),
        cmocka_unit_test(a_call_on_the_file_before_learns_that_it_is_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
