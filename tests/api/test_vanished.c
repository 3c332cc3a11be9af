/* Peers that are gone without a word: no end, no reset, nothing is acknowledged any more, as when a cable is cut.  A
 * filter on the peer's own socket does it here, which throws away all that comes in. */
#include "support/stream_pair.h"

#include <linux/filter.h>
#include <netinet/tcp.h>

static void vanish(int fd) {
    struct sock_filter nothing = {BPF_RET | BPF_K, 0, 0, 0};
    struct sock_fprog program = {1, &nothing};
    WANT(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0);
}

static void set(int fd, int level, int name, int value) {
    WANT(setsockopt(fd, level, name, &value, sizeof value) == 0);
}

/* ---- a server whose peer says nothing ---- */

struct silence {
    heist_event ended;
    int keepalive; /* as the accepted socket has it */
    ptrdiff_t read;
};

static int read_for_ever(heist_stream *s, void *user) {
    struct silence *q = user;
    int fd = -1;
    socklen_t size = sizeof q->keepalive;
    char byte;
    WANT_CODE(heist_stream_get_extra_info(s, HEIST_INFO_SOCKET, &fd, sizeof fd), 0);
    WANT(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &q->keepalive, &size) == 0);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, 1);
    WANT_CODE(heist_stream_write(s, "!", 1), 0);
    q->read = heist_stream_read(s, &byte, 1);
    WANT_CODE(heist_event_set(&q->ended), 0);
    return 0;
}

static int meet_silence(struct silence *q, unsigned flags, bool gone) {
    heist_server_options o = HEIST_SERVER_OPTIONS_INIT;
    heist_server *server;
    heist_addr where;
    heist_conn *c;
    char byte = 0;
    heist_event_init(&q->ended);
    o.flags = flags;
    int err = heist_start_server(read_for_ever, q, "127.0.0.1", "0", &o, &server);
    if (err < 0) return err;
    WANT_CODE(heist_server_sockets(server, &where, 1), 1);
    WANT_CODE(heist_connect(&where, HEIST_FOREVER, &c), 0);
    WANT_CODE(heist_conn_read(c, &byte, 1, HEIST_FOREVER), 1);
    if (gone) vanish(heist_conn_fd(c)); /* it stays open, and its end never arrives */
    else heist_conn_close(c);
    WANT_CODE(heist_event_wait(&q->ended), 0);
    if (gone) heist_conn_close(c);
    WANT_CODE(heist_server_close(server), 0);
    WANT_CODE(heist_server_wait_closed_until(server, HEIST_FOREVER), 0);
    heist_server_unref(server);
    heist_event_destroy(&q->ended);
    return 0;
}

static int probe(void *arg, void **out) {
    (void)arg, (void)out;
    struct silence q = {.read = 99};
    int err = meet_silence(&q, HEIST_SERVER_KEEPALIVE, true);
    WANT(q.keepalive == 1);
    WANT_CODE(q.read, -ETIMEDOUT);
    return err;
}
static void server_that_probes_learns_that_its_peer_is_gone(void **state) {
    (void)state;
    run_ok(probe, NULL);
}

static int do_not_probe(void *arg, void **out) {
    (void)arg, (void)out;
    struct silence q = {.read = 99};
    int err = meet_silence(&q, 0, false);
    WANT(q.keepalive == 0);
    WANT_CODE(q.read, 0);
    return err;
}
static void server_does_not_probe_unless_asked(void **state) {
    (void)state;
    run_ok(do_not_probe, NULL);
}

/* ---- a writer whose peer acknowledges nothing ---- */

#define MUCH ((size_t)8 << 20)

/* What broke the connection is told to a write first; a read must not take it for the end that the peer never sent. */
static int write_into_nothing(void *arg, void **out) {
    const int *want = arg;
    struct pair p;
    int fd = -1;
    char *much = calloc(1, MUCH), byte, *line;
    void *data = NULL;
    size_t n = 0;
    (void)out;
    if (!much) abort();
    open_tcp(&p, NULL);
    WANT_CODE(heist_stream_get_extra_info(p.s, HEIST_INFO_SOCKET, &fd, sizeof fd), 0);
    if (*want == -ETIMEDOUT) {
        set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 100);
        vanish(p.fd);
    }
    put(p.fd, "the beginning of a li");
    WANT_CODE(heist_stream_write(p.s, much, MUCH), 0);
    free(much);
    if (*want == -ECONNRESET) reset(&p);
    WANT_CODE(heist_stream_drain(p.s), *want);
    WANT_CODE(heist_stream_write(p.s, "x", 1), *want);
    ptrdiff_t got = heist_stream_readline(p.s, &line);
    WANT_CODE(got, *want);
    WANT_CODE(heist_stream_read_all(p.s, 0, &data, &n), *want);
    WANT_CODE(heist_stream_at_eof(p.s), 0);
    WANT_CODE(heist_stream_readexactly(p.s, &byte, 1, NULL), *want);
    heist_stream_close(p.s);
    (void)heist_stream_wait_closed(p.s);
    heist_stream_unref(p.s);
    if (p.fd >= 0) reset(&p);
    return 0;
}
static void peer_that_is_gone_is_told_to_the_writer_and_is_no_end_STRM_14(void **state) {
    (void)state;
    int want = -ETIMEDOUT;
    run_ok(write_into_nothing, &want);
}
static void reset_that_a_write_was_told_of_is_no_end_STRM_14(void **state) {
    (void)state;
    int want = -ECONNRESET;
    run_ok(write_into_nothing, &want);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(server_that_probes_learns_that_its_peer_is_gone),
        API_TEST(server_does_not_probe_unless_asked),
        API_TEST(peer_that_is_gone_is_told_to_the_writer_and_is_no_end_STRM_14),
        API_TEST(reset_that_a_write_was_told_of_is_no_end_STRM_14),
    };
    return HARNESS_MAIN("vanished", tests);
}
