/* stream.c: bytes through a stream over loopback TCP, in one process.
 *
 * stream: one task writes blocks of 64 KiB and drains, another one reads what is there into 256 KiB; `.lines`: it reads
 * lines of 100 bytes.  n: MiB.  echo_streams is a server as echo is, over streams; the load program asks it. */
#include "common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 65536, INTO = 262144, LINE = 100 };

struct pipe {
    size_t bytes;
    heist_stream *in, *out;
    int lines;
    char *block;
};

static int send_all(void *arg, void **out) {
    struct pipe *p = arg;
    (void)out;
    int err = 0;
    for (size_t left = p->bytes; left && err == 0; left -= BLOCK) {
        err = heist_stream_write(p->out, p->block, BLOCK);
        if (err == 0) err = heist_stream_drain(p->out);
    }
    heist_stream_close(p->out);
    return err;
}

static size_t read_blocks(struct pipe *p) {
    char *buf = malloc(INTO);
    BENCH_CHECK(buf);
    size_t got = 0;
    for (ptrdiff_t n; (n = heist_stream_read(p->in, buf, INTO)) != 0; got += (size_t)n)
        BENCH_MUST((int)(n < 0 ? n : 0));
    free(buf);
    return got;
}

static size_t read_lines(struct pipe *p) {
    size_t got = 0;
    ptrdiff_t n;
    heist_foreach_line(p->in, line, n) got += (size_t)n;
    BENCH_MUST((int)n);
    return got;
}

static void connect_both(struct pipe *p) {
    heist_addr addr;
    heist_listener *l;
    heist_conn *a, *b;
    BENCH_MUST(heist_addr_parse("127.0.0.1:0", &addr));
    BENCH_MUST(heist_listen(&addr, NULL, &l));
    BENCH_MUST(heist_listener_addr(l, &addr));
    BENCH_MUST(heist_connect(&addr, HEIST_FOREVER, &a));
    BENCH_MUST(heist_accept(l, HEIST_FOREVER, &b));
    heist_listener_close(l);
    BENCH_MUST(heist_stream_from_conn(a, NULL, &p->out));
    BENCH_MUST(heist_stream_from_conn(b, NULL, &p->in));
}

static int once(struct pipe *p, const char *metric, size_t n) {
    heist_task *sender;
    connect_both(p);
    int64_t start = bench_now_ns();
    BENCH_MUST(heist_create_task(send_all, p, NULL, &sender));
    size_t got = p->lines ? read_lines(p) : read_blocks(p);
    int64_t took = bench_now_ns() - start;
    BENCH_MUST(heist_await(sender, NULL));
    heist_unref(sender);
    BENCH_CHECK(got == p->bytes);
    heist_stream_close(p->in);
    heist_stream_unref(p->in);
    heist_stream_unref(p->out);
    bench_emit(metric, n, (double)got / (double)took, "GB/s");
    return 0;
}

static int stream_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    struct pipe p = {args->n << 20, NULL, NULL, 0, malloc(BLOCK)};
    (void)out;
    BENCH_CHECK(p.block);
    for (size_t i = 0; i < BLOCK; i++) p.block[i] = i % LINE == LINE - 1 ? '\n' : 'x';
    once(&p, "-", args->n);
    p.lines = 1;
    once(&p, "lines", args->n);
    free(p.block);
    return 0;
}

void bench_stream(const struct bench_args *args) { bench_run(stream_main, args); }

/* ---- the server ---- */

static int serve(void *arg, void **out) {
    heist_stream *s = arg;
    char buf[4096];
    int err = 0;
    (void)out;
    while (err == 0) {
        ptrdiff_t got = heist_stream_read(s, buf, sizeof buf);
        if (got <= 0) break;
        err = heist_stream_write(s, buf, (size_t)got);
        if (err == 0) err = heist_stream_drain(s);
    }
    heist_stream_close(s);
    heist_stream_unref(s);
    return 0; /* a connection that breaks is the peer's business */
}

static int echo_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    heist_listener *listener;
    heist_addr address;
    char text[32];
    int err;
    (void)out;
    snprintf(text, sizeof text, "127.0.0.1:%zu", args->n);
    BENCH_MUST(heist_addr_parse(text, &address));
    BENCH_MUST(heist_listen(&address, NULL, &listener));
    for (;;) {
        heist_conn *conn;
        heist_stream *s;
        err = heist_accept(listener, HEIST_FOREVER, &conn);
        if (err == 0 && (err = heist_stream_from_conn(conn, NULL, &s)) < 0) heist_conn_close(conn);
        if (err == 0 && (err = heist_create_task(serve, s, NULL, NULL)) < 0) {
            heist_stream_abort(s);
            heist_stream_unref(s);
        }
        if (err == -ECANCELED || err == HEIST_ECLOSED) break;
        /* Out of descriptors or memory: the connection waits in the backlog. */
        if (err < 0 && heist_sleep(0.01) < 0) break;
    }
    heist_listener_close(listener);
    return err;
}

void bench_echo_streams(const struct bench_args *args) {
    BENCH_CHECK(args->n < 65536);
    bench_run(echo_main, args);
}
