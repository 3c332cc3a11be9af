/* After a short read a connection waited for an event that had come already.
 *
 * A read that gives less than asked for says of a byte stream that nothing is left, so the
 * next read waits at once instead of trying.  heist_conn_open takes other descriptors too:
 * on those that keep the bounds of messages every read is short, and the next message lay
 * there while its reader waited for an edge that the kernel had reported with the first.
 *
 * The reader waits first, so that the descriptor is watched; then several messages are sent
 * at once. */
#include "regress/workers.h"

#include <sys/socket.h>
#include <unistd.h>

enum { MESSAGES = 5 };

struct reader {
    int type;
    int peer;
    int got;
};

static int send_all(void *arg) {
    struct reader *reader = arg;
    for (int i = 0; i < MESSAGES; i++)
        if (send(reader->peer, "message", (size_t)i + 1, 0) != i + 1) return -EPROTO;
    return 0;
}

static int read_all(void *arg, void **out) {
    struct reader *reader = arg;
    heist_conn *conn = NULL;
    heist_loop *loop = NULL;
    int fd[2];
    (void)out;
    if (socketpair(AF_UNIX, reader->type | SOCK_CLOEXEC, 0, fd) < 0) return -errno;
    reader->peer = fd[1];
    int err = heist_conn_open(fd[0], &conn);
    if (err == 0) err = heist_get_running_loop(&loop);
    if (err == 0) err = heist_loop_call_later(loop, 0.002, send_all, reader, NULL, NULL);
    while (err == 0 && reader->got < MESSAGES) {
        char buf[256];
        ptrdiff_t n = heist_conn_read(conn, buf, sizeof buf, heist_time() + 20);
        if (n == reader->got + 1) reader->got++;
        else err = n < 0 ? (int)n : -EPROTO;
    }
    heist_conn_close(conn);
    close(fd[1]);
    return err;
}

static void read_type(int type) {
    for (EACH_WORKER_COUNT(workers)) {
        heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
        struct reader reader = {.type = type};
        opts.workers = workers;
        assert_int_equal(heist_run(read_all, &reader, &opts, NULL), 0);
        assert_int_equal(reader.got, MESSAGES);
    }
}

static void messages_after_a_short_read_are_read(void **state) {
    (void)state;
    read_type(SOCK_SEQPACKET);
}

static void datagrams_after_a_short_read_are_read(void **state) {
    (void)state;
    read_type(SOCK_DGRAM);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(messages_after_a_short_read_are_read),
        API_TEST(datagrams_after_a_short_read_are_read),
    };
    return HARNESS_MAIN("bug_short_read_left_messages", tests);
}
