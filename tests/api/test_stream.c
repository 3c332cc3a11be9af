/* Streams over sockets and pipes: reading with and without bounds, the queue of writes, the two ends of closing, errors
 * that stay, deadlines, cancels, and what happens to unsent data.  One side is a stream; the other one is, as a rule, a
 * plain descriptor, so that the library is not its own only witness. */
#include "support/stream_pair.h"

/* ---- reading ---- */

static int read_what_is_there(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    char buf[4096];
    open_pair(&p, NULL);
    put(p.fd, "hello");
    WANT_CODE(heist_stream_read(p.s, buf, sizeof buf), 5);
    WANT(memcmp(buf, "hello", 5) == 0);
    put(p.fd, "worlds");
    WANT_CODE(heist_stream_read(p.s, buf, 4), 4); /* a small read: the rest is buffered */
    WANT_CODE(heist_stream_buffered(p.s), 2);
    WANT_CODE(heist_stream_read(p.s, buf, sizeof buf), 2);
    WANT(memcmp(buf, "ds", 2) == 0);
    put(p.fd, "end");
    close(p.fd);
    p.fd = -1;
    void *data = NULL;
    size_t n = 0;
    WANT_CODE(heist_stream_read_all(p.s, 0, &data, &n), 0);
    WANT(n == 3 && data && strcmp(data, "end") == 0);
    heist_stream_data_free(data);
    WANT_CODE(heist_stream_read(p.s, buf, sizeof buf), 0);
    WANT_CODE(heist_stream_read(p.s, buf, sizeof buf), 0);
    WANT_CODE(heist_stream_read_all(p.s, 0, &data, &n), 0);
    WANT(n == 0);
    heist_stream_data_free(data);
    close_pair(&p);
    return 0;
}
static void a_read_gives_what_is_there_and_zero_at_the_end_STRM_05(void **state) {
    (void)state;
    run_ok(read_what_is_there, NULL);
}

static int read_all_bounded(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    open_pair(&p, NULL);
    put(p.fd, "0123456789");
    void *data = NULL;
    size_t n = 99;
    WANT_CODE(heist_stream_read_all(p.s, 9, &data, &n), HEIST_ELIMIT);
    WANT(!data && n == 99);
    close(p.fd);
    p.fd = -1;
    WANT_CODE(heist_stream_read_all(p.s, 10, &data, &n), 0); /* nothing was lost */
    WANT(n == 10 && memcmp(data, "0123456789", 10) == 0);
    heist_stream_data_free(data);
    close_pair(&p);
    return 0;
}
static void read_all_beyond_its_bound_takes_nothing(void **state) {
    (void)state;
    run_ok(read_all_bounded, NULL);
}

static int read_nothing(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    open_pair(&p, NULL);
    WANT_CODE(heist_stream_read(p.s, NULL, 0), 0);
    WANT_CODE(heist_stream_readexactly(p.s, NULL, 0, NULL), 0);
    WANT_CODE(heist_stream_at_eof(p.s), 0);
    close_pair(&p);
    return 0;
}
static void a_read_of_nothing_returns_at_once_STRM_06(void **state) {
    (void)state;
    run_ok(read_nothing, NULL);
}

static int read_lines(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    char *line = NULL;
    open_pair(&p, NULL);
    put(p.fd, "one\n\ntwo\nrest");
    WANT_CODE(heist_stream_readline(p.s, &line), 4);
    WANT(line && strcmp(line, "one\n") == 0);
    WANT_CODE(heist_stream_readline(p.s, &line), 1);
    WANT(strcmp(line, "\n") == 0);
    WANT_CODE(heist_stream_readline(p.s, &line), 4);
    WANT(strcmp(line, "two\n") == 0);
    close(p.fd);
    p.fd = -1;
    WANT_CODE(heist_stream_readline(p.s, &line), 4);
    WANT(strcmp(line, "rest") == 0);
    line = NULL;
    WANT_CODE(heist_stream_readline(p.s, &line), 0);
    WANT(!line);
    close_pair(&p);
    return 0;
}
static void lines_come_with_their_terminator_STRM_07(void **state) {
    (void)state;
    run_ok(read_lines, NULL);
}

static int feed_slowly(void *arg, void **out) {
    (void)out;
    int fd = *(int *)arg;
    for (const char *c = "slow\nlines come\nin pieces"; *c; c++) {
        WANT(write(fd, c, 1) == 1);
        int err = heist_yield();
        if (err < 0) return err;
    }
    close(fd);
    return 0;
}
static int read_slow_lines(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    char text[64] = "";
    open_pair(&p, NULL);
    heist_task *feeder;
    int err = heist_create_task(feed_slowly, &p.fd, NULL, &feeder);
    if (err < 0) return err;
    ptrdiff_t n;
    heist_foreach_line(p.s, line, n) strcat(strcat(text, line), "|");
    WANT_CODE(n, 0);
    WANT(strcmp(text, "slow\n|lines come\n|in pieces|") == 0);
    err = heist_await(feeder, NULL);
    heist_unref(feeder);
    p.fd = -1;
    close_pair(&p);
    return err;
}
static void lines_are_iterated_to_the_end_STRM_11(void **state) {
    (void)state;
    run_ok(read_slow_lines, NULL);
}

static int read_exactly(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    static char buf[20000], data[20000];
    size_t got = 77;
    for (size_t i = 0; i < sizeof data; i++) data[i] = (char)(i * 7 + i / 251);
    open_pair(&p, NULL);
    put(p.fd, "abcdef");
    WANT_CODE(heist_stream_readexactly(p.s, buf, 4, &got), 0);
    WANT(memcmp(buf, "abcd", 4) == 0 && got == 77);
    WANT(write(p.fd, data, sizeof data) == sizeof data);
    WANT_CODE(heist_stream_readexactly(p.s, buf, 2, NULL), 0);
    WANT(memcmp(buf, "ef", 2) == 0);
    WANT_CODE(heist_stream_readexactly(p.s, buf, sizeof buf, NULL), 0);
    WANT(memcmp(buf, data, sizeof buf) == 0);
    put(p.fd, "partial");
    close(p.fd);
    p.fd = -1;
    WANT_CODE(heist_stream_readexactly(p.s, buf, 100, &got), HEIST_EINCOMPLETE);
    WANT(got == 7 && memcmp(buf, "partial", 7) == 0);
    WANT_CODE(heist_stream_readexactly(p.s, buf, 100, &got), HEIST_EINCOMPLETE);
    WANT(got == 0);
    WANT_CODE(heist_stream_readexactly(p.s, buf, SIZE_MAX, &got), -EINVAL); /* what a negative count becomes */
    close_pair(&p);
    return 0;
}
static void readexactly_gives_all_or_says_what_came_STRM_08(void **state) {
    (void)state;
    run_ok(read_exactly, NULL);
}

static int read_until(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    char *data = NULL;
    size_t n = 0;
    open_pair(&p, NULL);
    put(p.fd, "key: value\r\n\r\nbody-AB");
    WANT_CODE(heist_stream_readuntil(p.s, "\r\n\r\n", 4, &data, &n), 0);
    WANT(n == 14 && strcmp(data, "key: value\r\n\r\n") == 0);
    WANT_CODE(heist_stream_readuntil(p.s, "", 0, &data, &n), -EINVAL);
    struct iovec any[3] = {{(char *)"ABX", 3}, {(char *)"B", 1}, {(char *)"-A", 2}};
    WANT_CODE(heist_stream_readuntil_any(p.s, any, 3, &data, &n), 0); /* the one that ends first */
    WANT(n == 6 && strcmp(data, "body-A") == 0);
    any[2].iov_len = 0;
    WANT_CODE(heist_stream_readuntil_any(p.s, any, 3, &data, &n), -EINVAL);
    WANT_CODE(heist_stream_readuntil_any(p.s, any, 0, &data, &n), -EINVAL);
    put(p.fd, "xyz");
    close(p.fd);
    p.fd = -1;
    WANT_CODE(heist_stream_readuntil(p.s, "##", 2, &data, &n), HEIST_EINCOMPLETE);
    WANT(n == 4 && strcmp(data, "Bxyz") == 0);
    WANT_CODE(heist_stream_readuntil(p.s, "##", 2, &data, &n), HEIST_EINCOMPLETE);
    WANT(n == 0);
    close_pair(&p);
    return 0;
}
static void readuntil_gives_what_stands_before_and_the_separator_STRM_09(void **state) {
    (void)state;
    run_ok(read_until, NULL);
}

static int overrun(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    char *data = NULL, buf[64];
    size_t n = 0;
    heist_stream_options o = HEIST_STREAM_OPTIONS_INIT;
    o.limit = 5;
    open_pair(&p, &o);
    put(p.fd, "12345\n123456\n");
    WANT_CODE(heist_stream_readline(p.s, &data), 6); /* the terminator does not count */
    WANT_CODE(heist_stream_readline(p.s, &data), HEIST_ELIMIT);
    WANT_CODE(heist_stream_readuntil(p.s, "\n", 1, &data, &n), HEIST_ELIMIT);
    WANT(n == 6);
    WANT_CODE(heist_stream_read(p.s, buf, n), 6); /* everything is still there */
    WANT(memcmp(buf, "123456", 6) == 0);
    WANT_CODE(heist_stream_readline(p.s, &data), 1);
    put(p.fd, "aaaaaaa--");
    WANT_CODE(heist_stream_readuntil(p.s, "--", 2, &data, &n), HEIST_ELIMIT);
    WANT(n > 5 && n <= 7);
    WANT_CODE(heist_stream_readexactly(p.s, buf, 9, NULL), 0);
    WANT(memcmp(buf, "aaaaaaa--", 9) == 0);
    close_pair(&p);
    return 0;
}
static void beyond_the_limit_nothing_is_taken(void **state) {
    (void)state;
    run_ok(overrun, NULL);
}

static int see_eof(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    char *line, buf[16];
    open_pair(&p, NULL);
    put(p.fd, "a\nb");
    close(p.fd);
    p.fd = -1;
    WANT_CODE(heist_stream_at_eof(p.s), 0);
    WANT_CODE(heist_stream_readline(p.s, &line), 2);
    WANT_CODE(heist_stream_at_eof(p.s), 0);
    struct iovec never = {(char *)"zz", 2};
    size_t n;
    (void)never;
    WANT_CODE(heist_stream_readuntil(p.s, "b", 1, &line, &n), 0);
    WANT_CODE(heist_stream_at_eof(p.s), 0); /* the end was not met yet */
    WANT_CODE(heist_stream_read(p.s, buf, sizeof buf), 0);
    WANT_CODE(heist_stream_at_eof(p.s), 1);
    close_pair(&p);
    open_pair(&p, NULL);
    put(p.fd, "xy");
    close(p.fd);
    p.fd = -1;
    WANT_CODE(heist_stream_readuntil(p.s, "q", 1, &line, &n),
              HEIST_EINCOMPLETE); /* met the end, and took what was there */
    WANT_CODE(heist_stream_at_eof(p.s), 1);
    close_pair(&p);
    return 0;
}
static void at_eof_needs_the_end_and_an_empty_buffer_STRM_10(void **state) {
    (void)state;
    run_ok(see_eof, NULL);
}

/* A plain thread that sends as fast as it can. */
struct flood {
    int fd;
    size_t bytes, sent;
};
static void *flood(void *arg) {
    struct flood *f = arg;
    static char block[65536];
    int flags = fcntl(f->fd, F_GETFL);
    fcntl(f->fd, F_SETFL, flags & ~O_NONBLOCK);
    memset(block, 'x', sizeof block - 1);
    block[sizeof block - 1] = '\n';
    while (f->sent < f->bytes) {
        ssize_t n = send(f->fd, block, sizeof block, MSG_NOSIGNAL);
        if (n <= 0) break;
        f->sent += (size_t)n;
    }
    shutdown(f->fd, SHUT_WR);
    return NULL;
}

static int under_flood(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    heist_stream_options o = HEIST_STREAM_OPTIONS_INIT;
    o.limit = 65536;
    open_pair(&p, &o);
    struct flood f = {p.fd, 32u << 20, 0};
    pthread_t sender = harness_thread(flood, &f);
    long before = harness_blocks();
    size_t worst = 0, got = 0;
    ptrdiff_t n;
    heist_foreach_line(p.s, line, n) {
        got += (size_t)n;
        size_t held = heist_stream_buffered(p.s);
        if (held > worst) worst = held;
        if (got % (1u << 22) == 0 && heist_yield() < 0) break; /* a slow reader now and then */
    }
    WANT_CODE(n, 0);
    WANT(got == f.bytes);
    WANT(worst <= 65536 + 1);
    WANT(harness_blocks() - before < 16);
    harness_join(sender);
    close_pair(&p);
    return 0;
}
static void a_fast_sender_is_held_back_by_its_socket_STRM_12(void **state) {
    (void)state;
    run_ok(under_flood, NULL);
}

static int bad_options(void *arg, void **out) {
    (void)arg, (void)out;
    int fd[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd)) abort();
    heist_conn *c;
    heist_stream *s = NULL;
    int err = heist_conn_open(fd[0], &c);
    if (err < 0) return err;
    heist_stream_options o = HEIST_STREAM_OPTIONS_INIT;
    o.limit = -1;
    WANT_CODE(heist_stream_from_conn(c, &o, &s), -EINVAL);
    o.limit = 0;
    o.high_water = 10;
    o.low_water = 11;
    WANT_CODE(heist_stream_from_conn(c, &o, &s), -EINVAL);
    o = (heist_stream_options)HEIST_STREAM_OPTIONS_INIT;
    o.size = 1;
    WANT_CODE(heist_stream_from_conn(c, &o, &s), -EINVAL);
    WANT_CODE(heist_stream_from_conn(NULL, NULL, &s), -EINVAL);
    WANT_CODE(heist_stream_from_conn(c, NULL, NULL), -EINVAL);
    WANT(!s);
    char buf[4];
    WANT(write(fd[1], "ok", 2) == 2); /* the connection is still ours, and whole */
    WANT_CODE(heist_conn_read(c, buf, sizeof buf, HEIST_FOREVER), 2);
    heist_conn_close(c);
    close(fd[1]);
    heist_stream_ops ops = HEIST_STREAM_OPS_INIT;
    WANT_CODE(heist_stream_new(&ops, NULL, NULL, &s), -EINVAL);
    WANT_CODE(heist_stream_read(NULL, buf, 1), -EINVAL);
    WANT_CODE(heist_stream_readline(NULL, NULL), -EINVAL);
    WANT_CODE(heist_stream_write(NULL, "", 0), -EINVAL);
    WANT_CODE(heist_stream_drain(NULL), -EINVAL);
    WANT_CODE(heist_stream_wait_closed(NULL), -EINVAL);
    heist_stream_unref(NULL);
    heist_stream_close(NULL);
    heist_stream_abort(NULL);
    return 0;
}
static void a_limit_below_zero_is_refused_STRM_13(void **state) {
    (void)state;
    run_ok(bad_options, NULL);
}

static int reset_by_peer(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    char *line, buf[8];
    open_tcp(&p, NULL);
    put(p.fd, "begun");
    heist_stream_write(p.s, "unread", 6); /* so that the close is a reset, whatever the options */
    reset(&p);
    WANT_CODE(heist_stream_readline(p.s, &line), -ECONNRESET);
    WANT_CODE(heist_stream_read(p.s, buf, sizeof buf), -ECONNRESET);
    WANT_CODE(heist_stream_readexactly(p.s, buf, 1, NULL), -ECONNRESET);
    WANT_CODE(heist_stream_at_eof(p.s), 0);
    close_pair(&p);
    return 0;
}
static int reset_later(void *arg, void **out) {
    (void)out;
    int err = heist_sleep(0.01);
    reset(arg);
    return err;
}
static int reset_while_waiting(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    char buf[8];
    heist_task *t;
    open_tcp(&p, NULL);
    int err = heist_create_task(reset_later, &p, NULL, &t);
    if (err < 0) return err;
    WANT_CODE(heist_stream_read(p.s, buf, sizeof buf), -ECONNRESET);
    WANT_CODE(heist_stream_read(p.s, buf, sizeof buf), -ECONNRESET);
    WANT_CODE(heist_await(t, NULL), 0); /* it writes into p after the close */
    heist_unref(t);
    close_pair(&p);
    return 0;
}
static void a_connection_error_wakes_the_reader_and_stays_STRM_14(void **state) {
    (void)state;
    run_ok(reset_by_peer, NULL);
    run_ok(reset_while_waiting, NULL);
}

/* The peer resets after each number of bytes: what is read is a beginning of what was sent, in whole lines, and then
 * the error, or the end where the kernel has thrown away the rest. */
static int reset_at(void *arg, void **out) {
    static const char text[] = "one\ntwo\nthree\n";
    (void)arg, (void)out;
    for (size_t cut = 0; cut <= sizeof text - 1; cut++) {
        for (int way = 0; way < 3; way++) {
            struct pair p;
            char *line, got[64], buf[4];
            ptrdiff_t n;
            size_t have = 0;
            open_tcp(&p, NULL);
            if (cut) WANT(write(p.fd, text, cut) == (ssize_t)cut);
            if (way == 2) WANT_CODE(heist_stream_read(p.s, buf, 0), 0);
            reset(&p);
            if (way == 0) {
                for (; (n = heist_stream_readline(p.s, &line)) > 0; have += (size_t)n) memcpy(got + have, line, (size_t)n);
            } else if (way == 1) {
                for (; (n = heist_stream_readexactly(p.s, buf, 2, NULL)) == 0; have += 2) memcpy(got + have, buf, 2);
            } else {
                for (; (n = heist_stream_read(p.s, got + have, 4)) > 0; have += (size_t)n) continue;
            }
            WANT_CODE(n, -ECONNRESET);
            WANT(have <= cut && memcmp(got, text, have) == 0);
            WANT(way != 0 || !have || got[have - 1] == '\n');
            WANT_CODE(heist_stream_readline(p.s, &line), n);
            close_pair(&p);
        }
    }
    return 0;
}
static void a_reset_at_any_point_leaves_a_beginning(void **state) {
    (void)state;
    run_ok(reset_at, NULL);
}

static int half_open(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    char *line, buf[16];
    open_tcp(&p, NULL);
    put(p.fd, "bye\n");
    shutdown(p.fd, SHUT_WR); /* it goes on reading */
    WANT_CODE(heist_stream_readline(p.s, &line), 4);
    WANT_CODE(heist_stream_readline(p.s, &line), 0);
    WANT_CODE(heist_stream_write(p.s, "still yours", 11), 0);
    WANT_CODE(heist_stream_drain(p.s), 0);
    heist_stream_close(p.s);
    WANT_CODE(heist_stream_wait_closed(p.s), 0);
    fcntl(p.fd, F_SETFL, 0);
    WANT(read(p.fd, buf, sizeof buf) == 11);
    WANT(read(p.fd, buf, sizeof buf) == 0);
    close_pair(&p);
    return 0;
}
static void a_peer_that_ended_its_side_is_still_written_to(void **state) {
    (void)state;
    run_ok(half_open, NULL);
}

/* Interrupted again and again, and never lost: deadlines are set from another task while this one reads. */
static int poke(void *s, void **out) {
    (void)out;
    for (int i = 0; i < 200; i++) {
        heist_stream_set_read_deadline(s, heist_time() + 1000 + i);
        int err = heist_sleep(i % 3 ? 0 : 0.0001);
        if (err < 0) return err;
    }
    return 0;
}
static int poked_reader(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    char got[64] = "";
    ptrdiff_t n;
    heist_task *poker, *feeder;
    open_pair(&p, NULL);
    if (heist_create_task(poke, p.s, NULL, &poker) < 0 || heist_create_task(feed_slowly, &p.fd, NULL, &feeder) < 0)
        return -ENOMEM;
    heist_foreach_line(p.s, line, n) strcat(got, line);
    WANT_CODE(n, 0);
    WANT(strcmp(got, "slow\nlines come\nin pieces") == 0);
    WANT_CODE(heist_await(poker, NULL), 0);
    WANT_CODE(heist_await(feeder, NULL), 0);
    heist_unref(poker);
    heist_unref(feeder);
    p.fd = -1;
    close_pair(&p);
    return 0;
}
static void a_deadline_that_is_moved_on_disturbs_no_read(void **state) {
    (void)state;
    run_ok(poked_reader, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(a_read_gives_what_is_there_and_zero_at_the_end_STRM_05),
        API_TEST(read_all_beyond_its_bound_takes_nothing),
        API_TEST(a_read_of_nothing_returns_at_once_STRM_06),
        API_TEST(lines_come_with_their_terminator_STRM_07),
        API_TEST(lines_are_iterated_to_the_end_STRM_11),
        API_TEST(readexactly_gives_all_or_says_what_came_STRM_08),
        API_TEST(readuntil_gives_what_stands_before_and_the_separator_STRM_09),
        API_TEST(beyond_the_limit_nothing_is_taken),
        API_TEST(at_eof_needs_the_end_and_an_empty_buffer_STRM_10),
        API_TEST(a_fast_sender_is_held_back_by_its_socket_STRM_12),
        API_TEST(a_limit_below_zero_is_refused_STRM_13),
        API_TEST(a_connection_error_wakes_the_reader_and_stays_STRM_14),
        API_TEST(a_reset_at_any_point_leaves_a_beginning),
        API_TEST(a_peer_that_ended_its_side_is_still_written_to),
        API_TEST(a_deadline_that_is_moved_on_disturbs_no_read),
    };
    return HARNESS_MAIN("stream", tests);
}
