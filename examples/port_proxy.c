/* port_proxy: what comes in at one port goes out to another, both ways.
 *
 *   port_proxy PORT TARGET_HOST TARGET_PORT   serves until Ctrl-C
 *   port_proxy                                stands between a server and a client of its own
 *
 * Each direction is a task that reads what is there and waits until the other side has taken it: so a slow reader
 * holds up the writer behind the proxy, and nothing piles up between.  The end of one direction is passed on, and the
 * other goes on (a half-closed connection); a failure of either ends both. */
#include <heist.h>
#include <stdio.h>
#include <string.h>

struct target {
    const char *host, *port;
};

struct direction {
    heist_stream *from, *to;
    size_t bytes;
};

static int copy(void *arg, void **out) {
    struct direction *d = arg;
    char buf[16384];
    ptrdiff_t n;
    int err = 0;
    (void)out;
    while (err == 0 && (n = heist_stream_read(d->from, buf, sizeof buf)) != 0) {
        if (n < 0) return (int)n;
        err = heist_stream_write(d->to, buf, (size_t)n);
        if (err == 0) err = heist_stream_drain(d->to);
        if (err == 0) d->bytes += (size_t)n;
    }
    return err < 0 ? err : heist_stream_write_eof(d->to); /* the end of this direction alone */
}

static int join(heist_stream *client, heist_stream *target) {
    struct direction way[2] = {{client, target, 0}, {target, client, 0}};
    heist_task *t[2] = {NULL, NULL};
    int err = heist_create_task(copy, &way[0], NULL, &t[0]);
    if (err == 0) err = heist_create_task(copy, &way[1], NULL, &t[1]);
    /* Returns when both have ended; the first failure cancels the other. */
    if (err == 0) {
        err = heist_gather(t, 2, NULL, 0);
    } else if (t[0]) {
        heist_cancel(t[0]);
        heist_await(t[0], NULL);
    }
    heist_unref(t[0]);
    heist_unref(t[1]);
    return err == -ECONNRESET || err == -EPIPE ? 0 : err; /* one of them has left */
}

static int serve(heist_stream *client, void *user) {
    const struct target *to = user;
    heist_stream *target;
    int err = heist_open_connection(to->host, to->port, NULL, &target);
    if (err < 0) return err; /* reported, and the client's connection is closed */
    err = join(client, target);
    if (err < 0) heist_stream_abort(target);
    heist_stream_close(target);
    heist_stream_unref(target);
    return err;
}

/* ---- the program as server and client ---- */

/* Counts what comes until the end, and only then answers: it needs both directions, one after the other. */
static int count_bytes(heist_stream *s, void *user) {
    char buf[4096], answer[64];
    size_t total = 0;
    ptrdiff_t n;
    (void)user;
    while ((n = heist_stream_read(s, buf, sizeof buf)) > 0) total += (size_t)n;
    if (n < 0) return (int)n;
    return heist_stream_write(s, answer, (size_t)snprintf(answer, sizeof answer, "%zu bytes came\n", total));
}

static int ask(const char *port, size_t bytes) {
    static const char block[1000];
    heist_stream *s;
    char *line;
    int err = heist_open_connection("127.0.0.1", port, NULL, &s);
    if (err < 0) return err;
    for (size_t left = bytes; left && err == 0;) {
        size_t n = left < sizeof block ? left : sizeof block;
        err = heist_stream_write(s, block, n);
        if (err == 0) err = heist_stream_drain(s);
        left -= n;
    }
    if (err == 0) err = heist_stream_write_eof(s);
    ptrdiff_t n = err < 0 ? err : heist_stream_readline(s, &line);
    if (n > 0) printf("sent %zu, answered: %s", bytes, line);
    heist_stream_close(s);
    heist_stream_unref(s);
    return n > 0 ? 0 : n < 0 ? (int)n : -ECONNRESET;
}

static int port_of(heist_server *server, char *port, size_t size) {
    heist_addr where;
    char text[80];
    if (heist_server_sockets(server, &where, 1) < 1) return -EPROTO;
    heist_addr_format(&where, text, sizeof text);
    snprintf(port, size, "%s", strrchr(text, ':') + 1);
    return 0;
}

static int show(heist_server *proxy, heist_server *behind) {
    char port[8];
    int err = port_of(proxy, port, sizeof port);
    if (err == 0) err = ask(port, 1);
    if (err == 0) err = ask(port, 1000000);
    if (err < 0) return err;
    /* Nobody behind it: the client's connection is closed, and the proxy goes on. */
    heist_server_close(behind);
    err = ask(port, 5);
    printf("with nobody behind it: %s\n", err == -ECONNRESET || err == -EPIPE ? "the connection is closed" : "?");
    return 0;
}

static void say_report(heist_loop *loop, const heist_report *report, void *user) {
    (void)loop, (void)user;
    printf("reported: %s: %s\n", report->message, heist_strerror(report->code));
}

static int main_coro(void *arg, void **out) {
    char **words = arg, port[8];
    struct target to = {words[1] ? words[2] : "127.0.0.1", words[1] ? words[3] : port};
    heist_server *proxy = NULL, *behind = NULL;
    int err = 0;
    (void)out;
    if (!words[1]) {
        err = heist_start_server(count_bytes, NULL, "127.0.0.1", "0", NULL, &behind);
        if (err == 0) err = port_of(behind, port, sizeof port);
    }
    if (err == 0)
        err = heist_start_server(serve, &to, words[1] ? NULL : "127.0.0.1", words[1] ? words[1] : "0", NULL, &proxy);
    if (err == 0) err = words[1] ? heist_server_serve_forever(proxy) : show(proxy, behind);
    heist_uncancellable_begin(); /* `to` stands on this stack: no handler may be left */
    if (proxy) heist_server_drain(proxy, heist_time() + 5);
    if (behind) heist_server_drain(behind, heist_time() + 5);
    heist_uncancellable_end();
    heist_server_unref(proxy);
    heist_server_unref(behind);
    return err;
}

int main(int argc, char **argv) {
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    options.flags = HEIST_RUNTIME_SIGINT;
    if (argc != 1 && argc != 4) return 2;
    if (argc == 1) options.exception_handler = say_report;
    int err = heist_run(main_coro, argv, &options, NULL);
    if (err < 0 && err != -EINTR) fprintf(stderr, "port_proxy: %s\n", heist_strerror(err));
    return err < 0;
}
