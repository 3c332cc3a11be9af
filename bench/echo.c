/* echo.c: a TCP echo server on 127.0.0.1, one task for each connection: it reads what is
 * there into 4096 bytes and writes it back.  One listener, as in the rivals' programs; the
 * loop that accepts watches the connections, and the other workers take their tasks when
 * it has more of them than it will soon have done.  Serves until the process is killed. */
#include "common.h"

#include <stdio.h>
#include <stdlib.h>

static int serve(void *arg, void **out) {
    heist_conn *conn = arg;
    char buf[4096];
    int err = 0;
    (void)out;
    while (err == 0) {
        ptrdiff_t got = heist_conn_read(conn, buf, sizeof buf, HEIST_FOREVER);
        if (got <= 0) break;
        err = heist_conn_write(conn, buf, (size_t)got, HEIST_FOREVER, NULL);
    }
    heist_conn_close(conn);
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
        err = heist_accept(listener, HEIST_FOREVER, &conn);
        if (err == 0 && (err = heist_create_task(serve, conn, NULL, NULL)) < 0) heist_conn_close(conn);
        if (err == -ECANCELED || err == HEIST_ECLOSED) break;
        /* Out of descriptors or memory: the connection waits in the backlog. */
        if (err < 0 && heist_sleep(0.01) < 0) break;
    }
    heist_listener_close(listener);
    return err;
}

void bench_echo(const struct bench_args *args) {
    BENCH_CHECK(args->n < 65536);
    bench_run(echo_main, args);
}
