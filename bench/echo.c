/* echo.c: a TCP echo server on 127.0.0.1, one task for each connection: it reads what is
 * there into 4096 bytes and writes it back.  Each worker has a listener of its own on
 * the one port, and accepts in a task pinned to its loop; the kernel spreads the
 * connections over the listeners.  Serves until the process is killed. */
#include "common.h"

#include <stdio.h>
#include <stdlib.h>

static heist_addr address;

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

static int acceptor(void *arg, void **out) {
    heist_listener *listener;
    heist_listen_options opts = HEIST_LISTEN_OPTIONS_INIT;
    (void)arg;
    (void)out;
    opts.flags = HEIST_LISTEN_REUSEPORT;
    BENCH_MUST(heist_listen(&address, &opts, &listener));
    for (;;) {
        heist_conn *conn;
        int err = heist_accept(listener, HEIST_FOREVER, &conn);
        if (err == 0 && (err = heist_create_task(serve, conn, NULL, NULL)) < 0) heist_conn_close(conn);
        if (err == -ECANCELED || err == HEIST_ECLOSED) break;
        /* Out of descriptors or memory: the connection waits in the backlog. */
        if (err < 0 && heist_sleep(0.01) < 0) break;
    }
    heist_listener_close(listener);
    return 0;
}

static int echo_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    heist_task_options pinned = HEIST_TASK_OPTIONS_INIT;
    heist_task **task = calloc((size_t)args->workers, sizeof *task);
    heist_loop *loop;
    char text[32];
    (void)out;
    BENCH_CHECK(task != NULL);
    snprintf(text, sizeof text, "127.0.0.1:%zu", args->n);
    BENCH_MUST(heist_addr_parse(text, &address));
    BENCH_MUST(heist_get_running_loop(&loop));
    heist_runtime *runtime = heist_loop_runtime(loop);
    pinned.flags = HEIST_TASK_PINNED;
    for (int i = 0; i < args->workers; i++)
        BENCH_MUST(heist_run_coroutine_threadsafe(heist_runtime_loop(runtime, i), acceptor, NULL, &pinned, &task[i]));
    int err = heist_gather(task, (size_t)args->workers, NULL, 0);
    for (int i = 0; i < args->workers; i++) heist_unref(task[i]);
    free(task);
    return err;
}

void bench_echo(const struct bench_args *args) {
    BENCH_CHECK(args->n < 65536);
    bench_run(echo_main, args);
}
