/* echo_streams: a server and a client over streams.
 *
 *   echo_streams          serves on a port that the system chooses, is its own client for three lines, and ends
 *   echo_streams PORT     serves on that port of loopback until it is interrupted
 *
 * Compare echo_server.c, which does the same with connections, a deadline in each call. */
#include <heist.h>
#include <stdio.h>
#include <string.h>

/* A line at a time; the server closes the stream when this returns, and sends first what was written. */
static int echo(heist_stream *s, void *user) {
    ptrdiff_t n;
    (void)user;
    heist_foreach_line(s, line, n) {
        int err = heist_stream_write(s, line, (size_t)n);
        if (err == 0) err = heist_stream_drain(s); /* a peer that does not read holds up this task, and no memory */
        if (err < 0) return err;
    }
    return (int)n;
}

static int talk(const char *port) {
    static const char *const words[] = {"one line\n", "another line\n", "the last line\n"};
    heist_stream *s;
    char *line;
    ptrdiff_t n;
    int err = heist_open_connection("127.0.0.1", port, NULL, &s);
    if (err < 0) return err;
    for (int i = 0; i < 3 && err == 0; i++) {
        err = heist_stream_write(s, words[i], strlen(words[i]));
        n = err == 0 ? heist_stream_readline(s, &line) : err;
        if (n > 0) printf("echo: %s", line);
        if (n < 0) err = (int)n;
    }
    if (err == 0) err = heist_stream_write_eof(s);
    n = err == 0 ? heist_stream_readline(s, &line) : err;
    if (n == 0) printf("the end\n");
    heist_stream_close(s);
    if (err == 0) err = heist_stream_wait_closed(s);
    heist_stream_unref(s);
    return n < 0 ? (int)n : err;
}

static int serve(void *arg, void **out) {
    const char *port = arg;
    heist_server *server;
    (void)out;
    int err = heist_start_server(echo, NULL, "127.0.0.1", port ? port : "0", NULL, &server);
    if (err < 0) return err;
    if (port) {
        err = heist_server_serve_forever(server);
    } else {
        heist_addr addr;
        char where[64];
        heist_server_sockets(server, &addr, 1);
        heist_addr_format(&addr, where, sizeof where);
        err = talk(strrchr(where, ':') + 1);
    }
    heist_server_close(server);
    heist_server_unref(server);
    return err;
}

int main(int argc, char **argv) {
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    options.flags = HEIST_RUNTIME_SIGINT;
    int err = heist_run(serve, argc > 1 ? argv[1] : NULL, &options, NULL);
    return err < 0 && err != -EINTR;
}
