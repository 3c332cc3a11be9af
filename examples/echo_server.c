/* echo_server: a TCP server, a task for each connection, on every core.
 *
 *   echo_server ADDRESS   serves, for example on 127.0.0.1:7000 or [::1]:7000
 *   echo_server           serves on a port that the system chooses, is its own client
 *                         for three lines, and ends */
#include <heist.h>
#include <stdio.h>
#include <string.h>

static void close_conn(void *conn) { heist_conn_close(conn); }

static int echo(void *arg, void **out) {
    heist_conn *conn = arg;
    char buf[4096];
    ptrdiff_t n;
    (void)out;
    /* A peer gets a minute between two messages. */
    while ((n = heist_conn_read(conn, buf, sizeof buf, heist_time() + 60)) > 0) {
        int err = heist_conn_write(conn, buf, (size_t)n, heist_time() + 60, NULL);
        if (err < 0) return err;
    }
    return (int)n; /* 0 at the end of the stream */
}

static int serve(void *arg, void **out) {
    heist_listener *listener = arg;
    heist_task_options options = HEIST_TASK_OPTIONS_INIT;
    (void)out;
    options.arg_free = close_conn; /* runs once, however the task ends */
    for (;;) {
        heist_conn *conn;
        int err = heist_accept(listener, HEIST_FOREVER, &conn);
        if (err == HEIST_ECLOSED) return 0; /* the listener was closed: the orderly end */
        if (err == 0 && heist_create_task(echo, conn, &options, NULL) < 0) heist_conn_close(conn);
        /* Short of something: the connection stays in the backlog until another one ends. */
        if (err == -EMFILE || err == -ENFILE || err == -ENOMEM) err = heist_sleep(0.05);
        if (err < 0 && err != -ECONNABORTED) return err;
    }
}

/* ---- the program as its own client ---- */

static int read_all(heist_conn *conn, char *buf, size_t size) {
    for (size_t got = 0; got < size;) {
        ptrdiff_t n = heist_conn_read(conn, buf + got, size - got, heist_time() + 10);
        if (n <= 0) return n < 0 ? (int)n : -ECONNRESET;
        got += (size_t)n;
    }
    return 0;
}

static int talk(const heist_addr *where) {
    static const char *const lines[] = {"one line\n", "another line\n", "the last line\n"};
    heist_conn *conn;
    int err = heist_connect(where, heist_time() + 10, &conn);
    if (err < 0) return err;
    for (int i = 0; i < 3 && err == 0; i++) {
        char back[64] = "";
        err = heist_conn_write(conn, lines[i], strlen(lines[i]), heist_time() + 10, NULL);
        if (err == 0) err = read_all(conn, back, strlen(lines[i]));
        if (err == 0) printf("came back: %s", back);
    }
    heist_conn_close(conn);
    return err;
}

static int main_coro(void *arg, void **out) {
    const char *address = arg;
    heist_listener *listener;
    heist_task *server;
    heist_addr where;
    (void)out;
    int err = heist_addr_parse(address ? address : "127.0.0.1:0", &where);
    if (err == 0) err = heist_listen(&where, NULL, &listener);
    if (err < 0) return err;
    err = heist_listener_addr(listener, &where);
    if (err == 0) err = heist_create_task(serve, listener, NULL, &server);
    if (err == 0) {
        if (!address) {
            err = talk(&where);
            heist_listener_close(listener);
        }
        int ended = heist_await(server, NULL);
        if (err == 0) err = ended;
        heist_unref(server);
        if (address) heist_listener_close(listener);
    } else {
        heist_listener_close(listener);
    }
    if (err == 0) printf("the server ended\n");
    return err;
}

int main(int argc, char **argv) {
    int err = heist_run(main_coro, argc > 1 ? argv[1] : NULL, NULL, NULL);
    if (err < 0) fprintf(stderr, "echo_server: %s\n", heist_strerror(err));
    return err < 0;
}
