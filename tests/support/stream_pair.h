/* support/stream_pair.h: a stream with a plain descriptor at the other end, and checks inside of coroutines. */
#ifndef HEIST_TEST_STREAM_PAIR_H
#define HEIST_TEST_STREAM_PAIR_H

#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/harness.h"

/* What a coroutine found wrong; asserted by the body of the test. */
static struct record wrongs = RECORD_INIT;
#define WANT(cond) ((cond) ? (void)0 : record_add(&wrongs, "line %d: %s;", __LINE__, #cond))
#define WANT_CODE(expression, code)                                                                                    \
    do {                                                                                                               \
        long long got_ = (expression), want_ = (code);                                                                 \
        if (got_ != want_)                                                                                             \
            record_add(&wrongs, "line %d: %s is %lld (%s);", __LINE__, #expression, got_,                              \
                       heist_error_name((int)got_));                                                                   \
    } while (0)

static inline int run_on(heist_coro_fn fn, void *arg, int workers) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = workers;
    record_clear(&wrongs);
    int err = heist_run(fn, arg, &opts, NULL);
    assert_string_equal(record_text(&wrongs), "");
    return err;
}

static inline void run_ok(heist_coro_fn fn, void *arg) { assert_int_equal(run_on(fn, arg, harness_workers()), 0); }

/* A stream, and the plain end of its socket pair. */
struct pair {
    heist_stream *s;
    int fd;
};

static inline void unblock(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

static inline int over_fd(int fd, const heist_stream_options *opts, heist_stream **out) {
    heist_conn *c;
    int err = heist_conn_open(fd, &c);
    if (err < 0) return err;
    err = heist_stream_from_conn(c, opts, out);
    if (err < 0) heist_conn_close(c);
    return err;
}

static inline void open_pair(struct pair *p, const heist_stream_options *opts) {
    int fd[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd)) abort();
    unblock(fd[1]);
    p->fd = fd[1];
    if (over_fd(fd[0], opts, &p->s) < 0) abort();
}

/* The end of both; closed by the stream or before. */
static inline void close_pair(struct pair *p) {
    heist_stream_close(p->s);
    heist_stream_unref(p->s);
    if (p->fd >= 0) close(p->fd);
}

static inline void put(int fd, const char *text) { WANT(write(fd, text, strlen(text)) == (ssize_t)strlen(text)); }

/* Over TCP on loopback: reset by the peer is possible. */
static inline void open_tcp(struct pair *p, const heist_stream_options *opts) {
    int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof in;
    if (bind(l, (struct sockaddr *)&in, size) || listen(l, 1) || getsockname(l, (struct sockaddr *)&in, &size)) abort();
    p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(p->fd, (struct sockaddr *)&in, sizeof in)) abort();
    int fd = accept4(l, NULL, NULL, SOCK_CLOEXEC);
    close(l);
    unblock(p->fd);
    if (fd < 0 || over_fd(fd, opts, &p->s) < 0) abort();
}

static inline void reset(struct pair *p) {
    struct linger now = {1, 0};
    setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(p->fd);
    p->fd = -1;
}

#endif
