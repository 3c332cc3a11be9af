/* Servers: starting, serving, limits, running out, and every way to end.  Loopback only. */
#include "support/outcome.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- handlers and clients ---- */

struct counts {
    _Atomic(int) began, ended, cancelled, refused;
    _Atomic(int) gate; /* handlers that wait go on when it is set */
};

static int echo(heist_stream *s, void *user) {
    struct counts *c = user;
    char buf[256];
    ptrdiff_t n;
    c->began++;
    while ((n = heist_stream_read(s, buf, sizeof buf)) > 0) {
        int err = heist_stream_write(s, buf, (size_t)n);
        if (err < 0) return err;
    }
    c->ended++;
    if (n == -ECANCELED) c->cancelled++;
    return (int)n;
}

/* Says one byte, so that the client knows that it is being served, and waits for the gate. */
static int hold(heist_stream *s, void *user) {
    struct counts *c = user;
    c->began++;
    int err = heist_stream_write(s, "x", 1);
    while (err == 0 && !c->gate) err = heist_sleep(0.001);
    c->ended++;
    if (err == -ECANCELED) c->cancelled++;
    return err;
}

static int only_address(heist_server *server, heist_addr *out) {
    int n = heist_server_sockets(server, out, 1);
    return n == 1 ? 0 : n < 0 ? n : -EPROTO;
}

static int start_on(const char *host, heist_serve_fn fn, void *user, const heist_server_options *opts,
                    heist_server **server, heist_addr *where) {
    int err = heist_start_server(fn, user, host, "0", opts, server);
    return err < 0 ? err : heist_server_sockets(*server, where, 1) < 1 ? -EPROTO : 0;
}

static int start_local(heist_serve_fn fn, void *user, const heist_server_options *opts, heist_server **server,
                       heist_addr *where) {
    return start_on("127.0.0.1", fn, user, opts, server, where);
}

/* Connects, sends a word and reads it back; the connection stays open when conn is given. */
static int ask(const heist_addr *where, heist_conn **conn) {
    heist_conn *c;
    char back[4] = "";
    int err = heist_connect(where, LIMIT, &c);
    if (err < 0) return err;
    err = heist_conn_write(c, "word", 4, LIMIT, NULL);
    for (size_t got = 0; err == 0 && got < 4;) {
        ptrdiff_t n = heist_conn_read(c, back + got, 4 - got, LIMIT);
        if (n <= 0) err = n < 0 ? (int)n : -ECONNRESET;
        else got += (size_t)n;
    }
    if (err == 0 && memcmp(back, "word", 4) != 0) err = -EPROTO;
    if (err == 0 && conn) *conn = c;
    else heist_conn_close(c);
    return err;
}

/* Nobody listens there any more.  Of a listener that came from outside a ring may let go a little after the close
 * (runtime.h): then one more is let in, or reset. */
static bool refused(const heist_addr *where) {
    heist_conn *c;
    heist_loop *loop;
    for (;;) {
        int err = heist_connect(where, LIMIT, &c);
        if (err == 0) heist_conn_close(c);
        else if (err != -ECONNRESET) return err == -ECONNREFUSED;
        if (heist_get_running_loop(&loop) || strcmp(heist_loop_backend(loop), "io_uring") || heist_sleep(0.0005))
            return false;
    }
}

/* The end, or a reset: 0. */
static int read_end(heist_conn *c) {
    char byte;
    ptrdiff_t n;
    do n = heist_conn_read(c, &byte, 1, LIMIT);
    while (n > 0);
    return n == 0 || n == -ECONNRESET || n == -EPIPE ? 0 : (int)n;
}

static int read_byte(heist_conn *c) {
    char byte;
    ptrdiff_t n = heist_conn_read(c, &byte, 1, LIMIT);
    return n == 1 ? 0 : n < 0 ? (int)n : -ECONNRESET;
}

static int until(_Atomic(int) *value, int wanted) {
    int err = 0;
    while (err == 0 && *value < wanted) err = heist_sleep(0.001);
    return err;
}

static int finish(heist_server *server) {
    int err = heist_server_close(server);
    if (err == 0) err = heist_server_wait_closed_until(server, LIMIT);
    heist_server_unref(server);
    return err;
}

/* ---- serving ---- */

static bool has_v6(void) {
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    bool yes = fd >= 0 && bind(fd, (struct sockaddr *)&in6, sizeof in6) == 0;
    if (fd >= 0) close(fd);
    return yes;
}

static int many_clients(void *arg, void **out) {
    enum { CLIENTS = 40 };
    struct counts *c = arg;
    heist_server *server;
    heist_addr where;
    heist_conn *open[CLIENTS];
    (void)out;
    int err = start_local(echo, c, NULL, &server, &where);
    if (err < 0) return err;
    WANT(heist_server_is_serving(server) == 1);
    for (int i = 0; i < CLIENTS; i++) {
        err = ask(&where, &open[i]);
        if (err < 0) return err;
    }
    heist_server_stats stats = HEIST_SERVER_STATS_INIT;
    WANT(heist_server_get_stats(server, &stats) == 0);
    WANT(stats.connections == CLIENTS && stats.accepted == CLIENTS && stats.sockets == 1);
    WANT(c->began == CLIENTS && c->ended == 0);
    for (int i = 0; i < CLIENTS; i++) heist_conn_close(open[i]);
    err = finish(server);
    WANT(c->ended == CLIENTS);
    return err;
}

static void each_connection_gets_a_handler_with_a_stream_STRM_23(void **state) {
    (void)state;
    struct counts c = {0};
    must_run(many_clients, &c);
}

/* Says whether Nagle is off at its end. */
static int tell_nodelay(heist_stream *s, void *user) {
    int fd, on = 0;
    socklen_t size = sizeof on;
    (void)user;
    int err = heist_stream_get_extra_info(s, HEIST_INFO_SOCKET, &fd, sizeof fd);
    if (err == 0 && getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &size)) err = -errno;
    return err < 0 ? err : heist_stream_write(s, on ? "y" : "n", 1);
}

static int accepted_nodelay(void *arg, void **out) {
    heist_server *server;
    heist_addr where;
    heist_conn *conn;
    char byte = 0;
    (void)arg, (void)out;
    const char *hosts[] = {"127.0.0.1", "::1"};
    for (int i = 0; i < (has_v6() ? 2 : 1); i++) {
        int err = start_on(hosts[i], tell_nodelay, NULL, NULL, &server, &where);
        if (err < 0) return err;
        WANT(heist_connect(&where, LIMIT, &conn) == 0);
        WANT(heist_conn_read(conn, &byte, 1, LIMIT) == 1 && byte == 'y');
        heist_conn_close(conn);
        WANT(finish(server) == 0);
    }
    return 0;
}

static void accepted_connections_do_without_nagle_STRM_37(void **state) {
    (void)state;
    must_run(accepted_nodelay, NULL);
}

static int reuse_port(void *arg, void **out) {
    struct counts *c = arg;
    heist_server *server;
    heist_addr where;
    heist_server_options opts = HEIST_SERVER_OPTIONS_INIT;
    heist_server_stats stats = HEIST_SERVER_STATS_INIT;
    (void)out;
    opts.flags = HEIST_SERVER_REUSEPORT;
    int err = start_local(echo, c, &opts, &server, &where);
    if (err < 0) return err;
    WANT(heist_server_sockets(server, NULL, 0) == 1); /* one address, as many sockets as workers */
    WANT(heist_server_get_stats(server, &stats) == 0);
    WANT(stats.sockets == (size_t)harness_workers());
    for (int i = 0; i < 100 && err == 0; i++) err = ask(&where, NULL);
    if (err < 0) return err;
    err = finish(server);
    WANT(c->ended == 100);
    return err;
}

static void with_reuseport_each_worker_has_a_socket_of_its_own_STRM_32(void **state) {
    (void)state;
    struct counts c = {0};
    must_run(reuse_port, &c);
}

/* A handler that fails in four ways, by the first byte that it reads. */
static int fail_at_will(heist_stream *s, void *user) {
    char byte = 0;
    (void)user;
    ptrdiff_t n = heist_stream_read(s, &byte, 1);
    if (n < 0) return (int)n;
    if (byte == 'm') return heist_fail(-EBADMSG, "no such word");
    if (byte == 'c') return -ECANCELED;
    if (byte == 'b') return -EBADF;
    return heist_stream_write(s, "ok", 2);
}

static int say(const heist_addr *where, char byte, int wanted) {
    heist_conn *c;
    char back[8];
    int err = heist_connect(where, LIMIT, &c), got = 0;
    if (err < 0) return err;
    err = heist_conn_write(c, &byte, 1, LIMIT, NULL);
    while (err == 0) {
        ptrdiff_t n = heist_conn_read(c, back, sizeof back, LIMIT);
        if (n <= 0) break; /* the server closes in each case */
        got += (int)n;
    }
    heist_conn_close(c);
    return err < 0 ? err : got == wanted ? 0 : -EPROTO;
}

static int failing_handlers(void *arg, void **out) {
    heist_server *server;
    heist_addr where;
    (void)arg, (void)out;
    int err = start_local(fail_at_will, NULL, NULL, &server, &where);
    if (err < 0) return err;
    WANT(say(&where, 'm', 0) == 0);
    WANT(say(&where, 'c', 0) == 0);
    WANT(say(&where, 'b', 0) == 0);
    WANT(say(&where, 'o', 2) == 0); /* it goes on */
    heist_server_stats stats = HEIST_SERVER_STATS_INIT;
    err = finish(heist_server_ref(server));
    WANT(heist_server_get_stats(server, &stats) == 0);
    WANT(stats.failed == 2 && stats.accepted == 4 && stats.connections == 0);
    heist_server_unref(server);
    return err;
}

struct reports {
    struct record record;
    _Atomic(int) handlers, shortages, with_peer, others;
};

static void note_report(heist_loop *loop, const heist_report *r, void *user) {
    struct reports *reports = user;
    (void)loop;
    bool peer = r->extra && !strcmp(r->extra[0], "peer") && !strncmp(r->extra[1], "127.0.0.1:", 10);
    if (!strcmp(r->message, "a connection handler failed")) {
        reports->handlers++;
        reports->with_peer += peer;
        record_add(&reports->record, "%s:%s", heist_error_name(r->code), r->text ? r->text : "-");
    } else if (!strcmp(r->message, "a server cannot accept connections now")) {
        reports->shortages++;
    } else {
        reports->others++;
        record_add(&reports->record, "%s", r->message);
    }
}

static void handlers_failure_is_reported_and_closes_that_connection_alone_STRM_24(void **state) {
    (void)state;
    struct reports reports = {.record = RECORD_INIT};
    must_run_with(failing_handlers, NULL, note_report, &reports);
    assert_string_equal(record_text(&reports.record), "EBADMSG:no such word EBADF:-");
    assert_int_equal(reports.handlers, 2);
    assert_int_equal(reports.with_peer, 2);
    assert_int_equal(reports.others, 0);
}

/* ---- addresses ---- */

static int port_of(const heist_addr *a) {
    return a->storage.ss_family == AF_INET ? ntohs(((const struct sockaddr_in *)(const void *)&a->storage)->sin_port)
                                           : ntohs(((const struct sockaddr_in6 *)(const void *)&a->storage)->sin6_port);
}

static int several_addresses(void *arg, void **out) {
    struct counts *c = arg;
    heist_server *server;
    heist_addr at[4];
    (void)out;
    const char *host = has_v6() ? "127.0.0.1,::1,127.0.0.2" : "127.0.0.1,127.0.0.2,127.0.0.3";
    int err = heist_start_server(echo, c, host, "0", NULL, &server);
    if (err < 0) return err;
    WANT(heist_server_sockets(server, at, 4) == 3);
    for (int i = 0; i < 3; i++) {
        WANT(port_of(&at[i]) > 0 && port_of(&at[i]) == port_of(&at[0]));
        WANT(ask(&at[i], NULL) == 0);
    }
    WANT(heist_server_sockets(server, at, 1) == 3); /* how many there are, whatever the room */
    WANT(finish(server) == 0);
    /* Everywhere, in both families where there are two. */
    err = heist_start_server(echo, c, NULL, "0", NULL, &server);
    if (err < 0) return err;
    int n = heist_server_sockets(server, at, 4);
    WANT(n == (has_v6() ? 2 : 1));
    WANT(n == 1 || port_of(&at[0]) == port_of(&at[1]));
    char text[64];
    snprintf(text, sizeof text, "127.0.0.1:%d", port_of(&at[0]));
    WANT(heist_addr_parse(text, &at[0]) == 0 && ask(&at[0], NULL) == 0);
    if (n == 2) {
        snprintf(text, sizeof text, "[::1]:%d", port_of(&at[1]));
        WANT(heist_addr_parse(text, &at[0]) == 0 && ask(&at[0], NULL) == 0);
    }
    WANT(finish(server) == 0);
    WANT(c->began == 3 + n);
    return 0;
}

static void several_hosts_give_several_sockets_and_one_free_port_STRM_25(void **state) {
    (void)state;
    struct counts c = {0};
    must_run(several_addresses, &c);
}

static int a_name(void *arg, void **out) {
    struct counts *c = arg;
    heist_server *server;
    heist_addr at[8];
    (void)out;
    int err = heist_start_server(echo, c, "localhost", "0", NULL, &server);
    if (err < 0) return err;
    int n = heist_server_sockets(server, at, 8);
    WANT(n >= 1);
    for (int i = 0; i < n; i++) WANT(ask(&at[i], NULL) == 0);
    return finish(server);
}

static void host_may_be_a_name_STRM_25(void **state) {
    (void)state;
    struct counts c = {0};
    must_run(a_name, &c);
}

struct in_use {
    char port[16];
    char text[300];
};

static int start_again(void *arg, void **out) {
    struct in_use *in_use = arg;
    heist_server *server = (heist_server *)1;
    (void)out;
    int err = heist_start_server(echo, NULL, "127.0.0.1", in_use->port, NULL, &server);
    return server == (heist_server *)1 ? err : -EPROTO;
}

static int address_in_use(void *arg, void **out) {
    struct in_use *in_use = arg;
    struct counts c = {0};
    heist_server *server;
    heist_addr where;
    heist_task *t;
    (void)out;
    int err = start_local(echo, &c, NULL, &server, &where);
    if (err < 0) return err;
    snprintf(in_use->port, sizeof in_use->port, "%d", port_of(&where));
    WANT(heist_create_task(start_again, in_use, NULL, &t) == 0);
    WANT(heist_await(t, NULL) == -EADDRINUSE);
    heist_exception e = HEIST_EXCEPTION_INIT;
    WANT(heist_future_exception(t, &e) == 0);
    snprintf(in_use->text, sizeof in_use->text, "%s", e.message);
    heist_unref(t);
    return finish(server);
}

static void address_in_use_is_that_error_and_is_named_STRM_26(void **state) {
    (void)state;
    struct in_use in_use = {{0}, {0}};
    char wanted[64];
    must_run(address_in_use, &in_use);
    snprintf(wanted, sizeof wanted, "127.0.0.1:%s", in_use.port);
    if (!strstr(in_use.text, wanted)) fail_msg("no '%s' in '%s'", wanted, in_use.text);
}

static int bad_arguments(void *arg, void **out) {
    heist_server *server = NULL;
    heist_server_options opts = HEIST_SERVER_OPTIONS_INIT;
    heist_addr addr;
    (void)arg, (void)out;
    WANT(heist_addr_parse("127.0.0.1:0", &addr) == 0);
    WANT(heist_start_server(NULL, NULL, "127.0.0.1", "0", NULL, &server) == -EINVAL);
    WANT(heist_start_server(echo, NULL, "127.0.0.1", NULL, NULL, &server) == -EINVAL);
    WANT(heist_start_server(echo, NULL, "127.0.0.1", "", NULL, &server) == -EINVAL);
    WANT(heist_start_server(echo, NULL, "127.0.0.1", "65536", NULL, &server) < 0);
    WANT(heist_start_server(echo, NULL, "127.0.0.1", "-1", NULL, &server) < 0);
    WANT(heist_start_server(echo, NULL, "127.0.0.1,", "0", NULL, &server) == -EINVAL);
    WANT(heist_start_server(echo, NULL, ",::1", "0", NULL, &server) == -EINVAL);
    WANT(heist_start_server_at(echo, NULL, NULL, 1, NULL, &server) == -EINVAL);
    WANT(heist_start_server_at(echo, NULL, &addr, 0, NULL, &server) == -EINVAL);
    opts.flags = 0x8000;
    WANT(heist_start_server_at(echo, NULL, &addr, 1, &opts, &server) == -EINVAL);
    opts.flags = 0;
    opts.backlog = -1;
    WANT(heist_start_server_at(echo, NULL, &addr, 1, &opts, &server) == -EINVAL);
    opts.backlog = 0;
    opts.size = 3;
    WANT(heist_start_server_at(echo, NULL, &addr, 1, &opts, &server) == -EINVAL);
    opts.size = sizeof opts;
    opts.stack_bytes = 1;
    WANT(heist_start_unix_server(echo, NULL, "", NULL, &server) == -EINVAL);
    WANT(heist_start_unix_server(echo, NULL, NULL, NULL, &server) == -EINVAL);
    WANT(heist_start_unix_server(echo, NULL, "/no/such/folder/socket", NULL, &server) == -ENOENT);
    WANT(server == NULL);
    WANT(heist_server_close(NULL) == -EINVAL && heist_server_wait_closed(NULL) == -EINVAL);
    WANT(heist_server_drain(NULL, 0) == -EINVAL && heist_server_is_serving(NULL) == -EINVAL);
    WANT(heist_server_sockets(NULL, NULL, 0) == -EINVAL && heist_server_start_serving(NULL) == -EINVAL);
    WANT(heist_server_close_clients(NULL) == -EINVAL && heist_server_abort_clients(NULL) == -EINVAL);
    WANT(heist_server_get_stats(NULL, NULL) == -EINVAL && heist_server_serve_forever(NULL) == -EINVAL);
    WANT(heist_start_server_at(echo, NULL, &addr, 1, NULL, &server) == 0);
    WANT(heist_server_sockets(server, NULL, 1) == -EINVAL);
    WANT(heist_server_drain(server, __builtin_nan("")) == -EINVAL);
    WANT(heist_server_wait_closed_until(server, __builtin_nan("")) == -EINVAL);
    heist_server_unref(NULL);
    return finish(server);
}

static void bad_arguments_are_refused(void **state) {
    (void)state;
    must_run(bad_arguments, NULL);
}

/* ---- starting and ending ---- */

static int two_steps(void *arg, void **out) {
    struct counts *c = arg;
    heist_server *server;
    heist_server_options opts = HEIST_SERVER_OPTIONS_INIT;
    heist_addr where;
    heist_conn *conn;
    (void)out;
    opts.flags = HEIST_SERVER_PAUSED;
    int err = start_local(echo, c, &opts, &server, &where);
    if (err < 0) return err;
    WANT(heist_server_is_serving(server) == 0);
    WANT(port_of(&where) > 0); /* bound */
    WANT(heist_connect(&where, LIMIT, &conn) == -ECONNREFUSED);
    WANT(heist_server_start_serving(server) == 0);
    WANT(heist_server_is_serving(server) == 1);
    WANT(heist_server_start_serving(server) == 0); /* again: nothing */
    WANT(ask(&where, NULL) == 0);
    WANT(heist_server_close(server) == 0);
    WANT(heist_server_is_serving(server) == 0);
    WANT(heist_server_start_serving(server) == HEIST_ECLOSED);
    WANT(finish(server) == 0);
    /* One that never serves. */
    err = start_local(echo, c, &opts, &server, &where);
    if (err < 0) return err;
    heist_server_unref(server);
    WANT(heist_connect(&where, LIMIT, &conn) == -ECONNREFUSED);
    return 0;
}

static void paused_server_listens_after_start_serving_STRM_27(void **state) {
    (void)state;
    struct counts c = {0};
    must_run(two_steps, &c);
}

struct forever {
    heist_server *server;
    _Atomic(int) entered;
    int code;
};

static int stay(void *arg, void **out) {
    struct forever *f = arg;
    (void)out;
    f->entered = 1;
    f->code = heist_server_serve_forever(f->server);
    return f->code;
}

static int serve_forever(void *arg, void **out) {
    struct counts *c = arg;
    struct forever f = {0};
    heist_server_options opts = HEIST_SERVER_OPTIONS_INIT;
    heist_addr where;
    heist_conn *conn;
    heist_task *t;
    (void)out;
    opts.flags = HEIST_SERVER_PAUSED;
    /* Closed by somebody else. */
    int err = start_local(echo, c, &opts, &f.server, &where);
    if (err < 0) return err;
    WANT(heist_create_task(stay, &f, NULL, &t) == 0);
    while (heist_server_is_serving(f.server) == 0) WANT(heist_sleep(0.001) == 0);
    WANT(heist_server_serve_forever(f.server) == HEIST_EINVALSTATE);
    WANT(ask(&where, NULL) == 0);
    heist_server_close(f.server);
    WANT(heist_await(t, NULL) == 0);
    heist_unref(t);
    WANT(heist_server_serve_forever(f.server) == HEIST_ECLOSED);
    WANT(finish(f.server) == 0);
    /* Cancelled: it closes, and leaves the connection alone. */
    err = start_local(echo, c, &opts, &f.server, &where);
    if (err < 0) return err;
    WANT(heist_create_task(stay, &f, NULL, &t) == 0);
    while (heist_server_is_serving(f.server) == 0) WANT(heist_sleep(0.001) == 0);
    WANT(ask(&where, &conn) == 0);
    heist_cancel(t);
    WANT(heist_await(t, NULL) == -ECANCELED);
    heist_unref(t);
    WANT(heist_server_is_serving(f.server) == 0);
    WANT(heist_conn_write(conn, "m", 1, LIMIT, NULL) == 0 && read_byte(conn) == 0);
    heist_conn_close(conn);
    return finish(f.server);
}

static void serve_forever_ends_with_the_server_and_is_for_one_STRM_28(void **state) {
    (void)state;
    struct counts c = {0};
    must_run(serve_forever, &c);
}

static int close_leaves(void *arg, void **out) {
    struct counts *c = arg;
    heist_server *server;
    heist_addr where;
    heist_conn *conn, *other;
    (void)out;
    int err = start_local(echo, c, NULL, &server, &where);
    if (err < 0) return err;
    WANT(ask(&where, &conn) == 0);
    WANT(heist_server_close(server) == 0);
    WANT(heist_connect(&where, LIMIT, &other) == -ECONNREFUSED); /* at once */
    WANT(heist_server_sockets(server, NULL, 0) == 0);
    WANT(heist_server_close(server) == 0); /* again: nothing */
    WANT(heist_conn_write(conn, "m", 1, LIMIT, NULL) == 0 && read_byte(conn) == 0);
    WANT(heist_server_wait_closed_until(server, heist_time() + 0.01) == -ETIMEDOUT);
    heist_conn_close(conn);
    WANT(heist_server_wait_closed(server) == 0);
    WANT(c->ended == 1);
    heist_server_unref(server);
    return 0;
}

static void close_stops_listening_at_once_and_leaves_connections_alone_STRM_29(void **state) {
    (void)state;
    struct counts c = {0};
    must_run(close_leaves, &c);
}

static int start_and_close(void *arg, void **out) {
    struct counts *c = arg;
    char host[32]; /* of our own: nobody else takes the port between the two */
    (void)out;
    snprintf(host, sizeof host, "127.4.%d.%d", getpid() >> 8 & 255, getpid() & 255);
    for (int i = 0; i < 50; i++) {
        heist_server *server;
        heist_addr where;
        int err = start_on(host, echo, c, NULL, &server, &where);
        if (err < 0) return err;
        if (i % 3 == 1) WANT(heist_yield() == 0);
        WANT(heist_server_close(server) == 0);
        /* The port is free again, whether or not the one that accepts has come to run. */
        heist_server *next;
        WANT(heist_start_server_at(echo, c, &where, 1, NULL, &next) == 0);
        if (i % 2) WANT(ask(&where, NULL) == 0);
        WANT(finish(next) == 0);
        WANT(finish(server) == 0);
    }
    return 0;
}

static void server_may_be_closed_at_any_moment_and_another_take_its_place_STRM_29(void **state) {
    (void)state;
    struct counts c = {0};
    must_run(start_and_close, &c);
}

/* ---- the open connections ---- */

static int cut_clients(void *arg, void **out) {
    enum { CLIENTS = 70 }; /* more than are asked at a time */
    struct counts *c = arg;
    heist_server *server;
    heist_addr where;
    heist_conn *conn[CLIENTS];
    (void)out;
    for (int round = 0; round < 2; round++) {
        int err = start_local(echo, c, NULL, &server, &where);
        if (err < 0) return err;
        for (int i = 0; i < CLIENTS; i++) {
            err = ask(&where, &conn[i]);
            if (err < 0) return err;
        }
        WANT((round ? heist_server_abort_clients(server) : heist_server_close_clients(server)) == CLIENTS);
        for (int i = 0; i < CLIENTS; i++) {
            WANT(read_end(conn[i]) == 0);
            heist_conn_close(conn[i]);
        }
        WANT(heist_server_is_serving(server) == 1); /* it goes on */
        WANT(ask(&where, NULL) == 0);
        WANT(finish(server) == 0);
    }
    WANT(c->began == 2 * CLIENTS + 2);
    return 0;
}

static void close_clients_and_abort_clients_end_the_open_ones_STRM_30(void **state) {
    (void)state;
    struct counts c = {0};
    struct reports reports = {.record = RECORD_INIT};
    must_run_with(cut_clients, &c, note_report, &reports);
    assert_string_equal(record_text(&reports.record), ""); /* an end that was asked for is no failure */
}

/* Several at once, beside handlers that come and go on all workers. */
struct cutter {
    heist_server *server;
    _Atomic(int) *stop;
    int kind;
};

static int cut_on(void *arg, void **out) {
    struct cutter *k = arg;
    (void)out;
    int err = 0;
    while (!*k->stop && err >= 0) {
        err = k->kind ? heist_server_abort_clients(k->server) : heist_server_close_clients(k->server);
        if (err >= 0) err = heist_yield();
    }
    return err;
}

static int come_and_go(void *arg, void **out) {
    const heist_addr *where = arg;
    (void)out;
    for (int i = 0; i < 30; i++) {
        heist_conn *conn = NULL;
        int err = ask(where, &conn); /* or it was cut */
        if (err < 0 && err != -ECONNRESET && err != -EPIPE) return err;
        if (conn) heist_conn_close(conn);
    }
    return 0;
}

static int cut_in_a_storm(void *arg, void **out) {
    enum { CLIENTS = 8 };
    struct counts *c = arg;
    heist_server *server;
    heist_addr where;
    heist_task *clients[CLIENTS], *cutters[3];
    _Atomic(int) stop = 0;
    struct cutter k[3];
    (void)out;
    int err = start_local(echo, c, NULL, &server, &where);
    if (err < 0) return err;
    for (int i = 0; i < 3; i++) {
        k[i] = (struct cutter){server, &stop, i % 2};
        WANT(heist_create_task(cut_on, &k[i], NULL, &cutters[i]) == 0);
    }
    for (int i = 0; i < CLIENTS; i++) WANT(heist_create_task(come_and_go, &where, NULL, &clients[i]) == 0);
    err = heist_gather(clients, CLIENTS, NULL, 0);
    stop = 1;
    int ended = heist_gather(cutters, 3, NULL, 0);
    for (int i = 0; i < CLIENTS; i++) heist_unref(clients[i]);
    for (int i = 0; i < 3; i++) heist_unref(cutters[i]);
    if (err == 0) err = ended;
    WANT(err == 0);
    return finish(server);
}

static void several_may_cut_while_connections_come_and_go_STRM_30(void **state) {
    (void)state;
    struct counts c = {0};
    must_run(cut_in_a_storm, &c);
}

static int keep_one(heist_stream *s, void *user) {
    _Atomic(uintptr_t) *kept = user;
    *kept = (uintptr_t)heist_stream_ref(s);
    return HEIST_SERVER_KEEP;
}

static int kept_stream(void *arg, void **out) {
    _Atomic(uintptr_t) kept = 0;
    heist_server *server;
    heist_addr where;
    heist_conn *conn;
    char byte;
    (void)arg, (void)out;
    int err = start_local(keep_one, (void *)&kept, NULL, &server, &where);
    if (err < 0) return err;
    WANT(heist_connect(&where, LIMIT, &conn) == 0);
    while (!kept) WANT(heist_sleep(0.001) == 0);
    WANT(finish(server) == 0); /* it does not count any more */
    heist_stream *s = (heist_stream *)kept;
    WANT(heist_stream_write(s, "y", 1) == 0);
    WANT(read_byte(conn) == 0);
    WANT(heist_conn_write(conn, "z", 1, LIMIT, NULL) == 0);
    WANT(heist_stream_read(s, &byte, 1) == 1 && byte == 'z');
    heist_stream_close(s);
    heist_stream_unref(s);
    WANT(read_end(conn) == 0);
    heist_conn_close(conn);
    return 0;
}

static void handler_may_keep_the_stream_STRM_23(void **state) {
    (void)state;
    must_run(kept_stream, NULL);
}

/* What a handler wrote is sent although it does not drain, and although the peer is slow. */
#define BULK (16 * 1024 * 1024) /* more than the kernel buffers */

static int bulk(heist_stream *s, void *user) {
    struct counts *c = user;
    char *block = malloc(BULK);
    if (!block) abort();
    memset(block, 'b', BULK);
    int err = heist_stream_write(s, block, BULK);
    free(block);
    c->ended++;
    return err;
}

static int slow_reader(void *arg, void **out) {
    struct counts *c = arg;
    heist_server *server;
    heist_addr where;
    heist_conn *conn;
    (void)out;
    int err = start_local(bulk, c, NULL, &server, &where);
    if (err < 0) return err;
    WANT(heist_connect(&where, LIMIT, &conn) == 0);
    WANT(until(&c->ended, 1) == 0);
    heist_server_close(server);
    WANT(heist_server_wait_closed_until(server, heist_time() + 0.01) == -ETIMEDOUT); /* it still counts */
    size_t got = 0;
    char buf[16384];
    ptrdiff_t n;
    while ((n = heist_conn_read(conn, buf, sizeof buf, LIMIT)) > 0) got += (size_t)n;
    WANT(n == 0 && got == BULK);
    heist_conn_close(conn);
    return finish(server);
}

static void what_a_handler_wrote_is_sent_after_it_returned(void **state) {
    (void)state;
    struct counts c = {0};
    must_run(slow_reader, &c);
}

static int slow_reader_is_cut(void *arg, void **out) {
    struct counts *c = arg;
    heist_server *server;
    heist_addr where;
    heist_conn *conn;
    (void)out;
    int err = start_local(bulk, c, NULL, &server, &where);
    if (err < 0) return err;
    WANT(heist_connect(&where, LIMIT, &conn) == 0);
    WANT(until(&c->ended, 1) == 0);
    WANT(heist_server_drain(server, heist_time() + 0.01) == 1);
    WANT(finish(server) == 0);
    heist_conn_close(conn);
    return 0;
}

static void peer_that_reads_nothing_does_not_hold_up_a_drain(void **state) {
    (void)state;
    struct counts c = {0};
    must_run(slow_reader_is_cut, &c);
}

/* ---- drain ---- */

static int drained(void *arg, void **out) {
    struct counts *c = arg;
    heist_server *server = arg;
    (void)out;
    (void)server;
    /* All come to their own end. */
    heist_addr where;
    heist_conn *conn[5];
    int err = start_local(hold, c, NULL, &server, &where);
    if (err < 0) return err;
    for (int i = 0; i < 5; i++) WANT(heist_connect(&where, LIMIT, &conn[i]) == 0 && read_byte(conn[i]) == 0);
    c->gate = 1;
    WANT(heist_server_drain(server, LIMIT) == 0);
    WANT(c->ended == 5 && c->cancelled == 0);
    WANT(heist_server_drain(server, LIMIT) == 0); /* again: nothing */
    for (int i = 0; i < 5; i++) heist_conn_close(conn[i]);
    heist_server_unref(server);
    /* Nobody does: all are cancelled, at a deadline that has passed already. */
    c->gate = 0;
    err = start_local(hold, c, NULL, &server, &where);
    if (err < 0) return err;
    for (int i = 0; i < 5; i++) WANT(heist_connect(&where, LIMIT, &conn[i]) == 0 && read_byte(conn[i]) == 0);
    WANT(heist_server_drain(server, 0) == 5);
    WANT(c->ended == 10 && c->cancelled == 5);
    for (int i = 0; i < 5; i++) {
        WANT(read_end(conn[i]) == 0);
        heist_conn_close(conn[i]);
    }
    heist_server_unref(server);
    return 0;
}

static void drain_waits_and_cuts_off_at_its_deadline(void **state) {
    (void)state;
    struct counts c = {0};
    struct reports reports = {.record = RECORD_INIT};
    must_run_with(drained, &c, note_report, &reports);
    assert_string_equal(record_text(&reports.record), "");
}

struct waits {
    heist_server *server;
    _Atomic(int) waiting;
    int kind;
};

static int wait_in(void *arg, void **out) {
    struct waits *w = arg;
    (void)out;
    w->waiting = 1;
    return w->kind ? heist_server_drain(w->server, LIMIT) : heist_server_wait_closed(w->server);
}

static int cancelled_waits(void *arg, void **out) {
    struct counts *c = arg;
    heist_addr where;
    heist_conn *conn;
    (void)out;
    for (int kind = 0; kind < 2; kind++) {
        struct waits w = {NULL, 0, kind};
        heist_task *t;
        int err = start_local(hold, c, NULL, &w.server, &where);
        if (err < 0) return err;
        WANT(heist_connect(&where, LIMIT, &conn) == 0 && read_byte(conn) == 0);
        WANT(heist_create_task(wait_in, &w, NULL, &t) == 0);
        WANT(until(&w.waiting, 1) == 0);
        harness_stands(t); /* a drain that has not begun would leave the server open */
        heist_cancel(t);
        WANT(heist_await(t, NULL) == -ECANCELED);
        heist_unref(t);
        WANT(heist_server_is_serving(w.server) == (kind == 0));
        heist_server_stats stats = HEIST_SERVER_STATS_INIT;
        WANT(heist_server_get_stats(w.server, &stats) == 0 && stats.connections == 1);
        WANT(heist_server_drain(w.server, 0) == 1);
        heist_server_unref(w.server);
        heist_conn_close(conn);
    }
    return 0;
}

static void waiting_for_the_end_can_be_cancelled(void **state) {
    (void)state;
    struct counts c = {0};
    must_run(cancelled_waits, &c);
}

/* ---- limits ---- */

static int at_most_two(void *arg, void **out) {
    enum { CLIENTS = 6 };
    struct counts *c = arg;
    heist_server *server;
    heist_addr where;
    heist_conn *conn[CLIENTS];
    heist_server_options opts = HEIST_SERVER_OPTIONS_INIT;
    heist_server_stats stats = HEIST_SERVER_STATS_INIT;
    (void)out;
    opts.max_connections = 2;
    int err = start_local(hold, c, &opts, &server, &where);
    if (err < 0) return err;
    for (int i = 0; i < CLIENTS; i++) WANT(heist_connect(&where, LIMIT, &conn[i]) == 0); /* the backlog takes them */
    WANT(until(&c->began, 2) == 0);
    do {
        WANT(heist_server_get_stats(server, &stats) == 0);
        WANT(heist_sleep(0.001) == 0);
    } while (stats.pauses == 0);
    WANT(c->began == 2 && stats.connections == 2 && stats.accepted == 2);
    c->gate = 1;
    for (int i = 0; i < CLIENTS; i++) {
        WANT(read_byte(conn[i]) == 0); /* each gets its turn */
        WANT(read_end(conn[i]) == 0);
        heist_conn_close(conn[i]);
    }
    WANT(c->began == CLIENTS);
    return finish(server);
}

static void beyond_max_connections_accepting_pauses_and_resumes(void **state) {
    (void)state;
    struct counts c = {0};
    must_run(at_most_two, &c);
}

struct peak {
    _Atomic(int) now, most, served;
};

static int count_peak(heist_stream *s, void *user) {
    struct peak *p = user;
    int now = ++p->now, most = p->most;
    while (now > most && !atomic_compare_exchange_weak(&p->most, &most, now)) {
    }
    char byte;
    ptrdiff_t n = heist_stream_read(s, &byte, 1);
    p->served++;
    p->now--;
    return n < 0 ? (int)n : 0;
}

static int knock(void *arg, void **out) {
    const heist_addr *where = arg;
    (void)out;
    for (int i = 0; i < 20; i++) {
        heist_conn *conn;
        int err = heist_connect(where, LIMIT, &conn);
        if (err < 0) return err;
        err = heist_conn_write(conn, "k", 1, LIMIT, NULL);
        if (err == 0) err = read_end(conn);
        heist_conn_close(conn);
        if (err < 0) return err;
    }
    return 0;
}

/* Several sockets, each with a task that accepts: together they keep the limit. */
static int limit_over_sockets(void *arg, void **out) {
    enum { CLIENTS = 12 };
    struct peak *p = arg;
    heist_server *server;
    heist_addr at[3];
    heist_task *t[CLIENTS];
    heist_server_options opts = HEIST_SERVER_OPTIONS_INIT;
    (void)out;
    opts.max_connections = 3;
    opts.flags = HEIST_SERVER_REUSEPORT;
    int err = heist_start_server(count_peak, p, "127.0.0.1,127.0.0.2,127.0.0.3", "0", &opts, &server);
    if (err < 0) return err;
    WANT(heist_server_sockets(server, at, 3) == 3);
    for (int i = 0; i < CLIENTS; i++) WANT(heist_create_task(knock, &at[i % 3], NULL, &t[i]) == 0);
    err = heist_gather(t, CLIENTS, NULL, 0);
    for (int i = 0; i < CLIENTS; i++) heist_unref(t[i]);
    WANT(err == 0);
    WANT(finish(server) == 0);
    return 0;
}

static void limit_holds_over_several_sockets(void **state) {
    (void)state;
    struct peak p = {0};
    must_run(limit_over_sockets, &p);
    assert_int_equal(p.served, 240);
    assert_true(p.most <= 3);
}

/* ---- running out ---- */

/* None is left in the whole process, truly: a request of the kernel's that is under way heeds the limit of its
 * beginning. */
static int no_descriptors(void *arg, void **out) {
    enum { CLIENTS = 4, FEW = 256 };
    struct counts *c = arg;
    heist_server *server;
    heist_addr where;
    heist_conn *first, *conn[CLIENTS];
    heist_server_stats stats = HEIST_SERVER_STATS_INIT;
    struct rlimit limit, none;
    int fd[CLIENTS], filler[FEW], fillers = 0;
    (void)out;
    WANT(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    none = limit;
    none.rlim_cur = FEW;
    WANT(setrlimit(RLIMIT_NOFILE, &none) == 0);
    int err = start_local(echo, c, NULL, &server, &where);
    if (err < 0) return err;
    WANT(ask(&where, &first) == 0);
    for (int i = 0; i < CLIENTS; i++) WANT((fd[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
    while ((filler[fillers] = fcntl(fd[0], F_DUPFD_CLOEXEC, 0)) >= 0) fillers++;
    int bad = 0;
    for (int i = 0; i < CLIENTS; i++) bad += connect(fd[i], (struct sockaddr *)&where.storage, where.length) != 0;
    do err = heist_sleep(0.01), heist_server_get_stats(server, &stats);
    while (err == 0 && stats.shortages == 0);
    uint64_t at_first = stats.shortages;
    double began = heist_time();
    if (err == 0) err = heist_sleep(0.05);
    heist_server_get_stats(server, &stats);
    double slept = heist_time() - began; /* on a loaded machine it may be long; it tries about once a second */
    while (fillers > 0) close(filler[--fillers]);
    WANT(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    WANT(err == 0 && bad == 0);
    WANT((double)(stats.shortages - at_first) <= 2 + 2 * slept); /* it does not spin */
    WANT(c->began == 1);
    heist_conn_close(first); /* the end of one of its own: the rest is served at once */
    WANT(until(&c->began, 1 + CLIENTS) == 0);
    for (int i = 0; i < CLIENTS; i++) {
        WANT(heist_conn_open(fd[i], &conn[i]) == 0);
        WANT(heist_conn_write(conn[i], "w", 1, LIMIT, NULL) == 0 && read_byte(conn[i]) == 0);
        heist_conn_close(conn[i]);
    }
    return finish(server);
}

static void out_of_descriptors_is_reported_once_and_tried_again_STRM_31(void **state) {
    (void)state;
    struct counts c = {0};
    struct reports reports = {.record = RECORD_INIT};
    if (harness_valgrind()) skip(); /* it lets the kernel accept, and then closes: nothing stays in the backlog */
    must_run_with(no_descriptors, &c, note_report, &reports);
    assert_int_equal(reports.shortages, 1);
    assert_string_equal(record_text(&reports.record), "");
}

/* Without a connection of its own that could end: after the pause. */
static int descriptors_come_back(void *arg, void **out) {
    struct counts *c = arg;
    heist_server *server;
    heist_addr where;
    heist_server_stats stats = HEIST_SERVER_STATS_INIT;
    struct rlimit limit, none;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), err;
    heist_conn *conn;
    (void)out;
    WANT(fd >= 0);
    WANT(start_local(echo, c, NULL, &server, &where) == 0);
    WANT(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    none = limit;
    none.rlim_cur = 0;
    WANT(setrlimit(RLIMIT_NOFILE, &none) == 0);
    int bad = connect(fd, (struct sockaddr *)&where.storage, where.length);
    do err = heist_sleep(0.01), heist_server_get_stats(server, &stats);
    while (err == 0 && stats.shortages == 0);
    WANT(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    WANT(bad == 0 && err == 0 && c->began == 0);
    WANT(until(&c->began, 1) == 0);
    WANT(heist_conn_open(fd, &conn) == 0);
    heist_conn_close(conn);
    return finish(server);
}

static void after_a_pause_accepting_is_tried_again_STRM_31(void **state) {
    (void)state;
    struct counts c = {0};
    struct reports reports = {.record = RECORD_INIT};
    if (harness_valgrind()) skip();
    must_run_with(descriptors_come_back, &c, note_report, &reports);
    assert_int_equal(reports.shortages, 1);
}

/* One event for a whole backlog: on one loop, all connect while nobody can accept. */
struct backlog {
    heist_addr where;
    int fd[100];
    int bad;
};

static int connect_all(void *arg) {
    struct backlog *b = arg;
    for (int i = 0; i < 100; i++) {
        b->fd[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (b->fd[i] < 0 || connect(b->fd[i], (struct sockaddr *)&b->where.storage, b->where.length)) b->bad++;
    }
    return 0;
}

static int whole_backlog(void *arg, void **out) {
    struct counts *c = arg;
    struct backlog b = {.bad = 0};
    heist_server *server;
    heist_loop *loop;
    (void)out;
    int err = start_local(echo, c, NULL, &server, &b.where);
    if (err < 0) return err;
    WANT(heist_sleep(0.002) == 0); /* who accepts waits by now */
    WANT(heist_get_running_loop(&loop) == 0);
    WANT(heist_loop_call_soon(loop, connect_all, &b, NULL, NULL) == 0);
    WANT(until(&c->began, 100) == 0);
    WANT(b.bad == 0);
    for (int i = 0; i < 100; i++) close(b.fd[i]);
    return finish(server);
}

static void one_readiness_serves_the_whole_backlog_STRM_32(void **state) {
    (void)state;
    struct counts c = {0};
    heist_loop *loop = harness_real_loop();
    struct outcome o = {whole_backlog, &c, ""};
    int err = heist_loop_run_coroutine(loop, watched, &o, NULL, NULL);
    harness_loop_end(loop);
    if (err < 0) fail_msg("%s: %s", heist_error_name(err), o.text);
}

/* ---- Unix sockets ---- */

struct folder {
    char path[108], other[108];
};

static void make_folder(struct folder *f) {
    char name[] = "/tmp/heist_server_XXXXXX";
    if (!mkdtemp(name)) abort();
    snprintf(f->path, sizeof f->path, "%s/s", name);
    snprintf(f->other, sizeof f->other, "%s/o", name);
}

static void remove_folder(struct folder *f) {
    unlink(f->path);
    unlink(f->other);
    *strrchr(f->path, '/') = 0;
    rmdir(f->path);
}

static int unix_paths(void *arg, void **out) {
    struct folder *f = arg;
    struct counts c = {0};
    heist_server *server, *second = NULL;
    heist_addr where;
    struct stat st;
    (void)out;
    int err = heist_start_unix_server(echo, &c, f->path, NULL, &server);
    if (err < 0) return err;
    WANT(only_address(server, &where) == 0 && where.storage.ss_family == AF_UNIX);
    WANT(ask(&where, NULL) == 0);
    WANT(heist_start_unix_server(echo, &c, f->path, NULL, &second) == -EADDRINUSE); /* somebody listens */
    WANT(ask(&where, NULL) == 0);                                                   /* and goes on */
    WANT(finish(server) == 0);
    WANT(stat(f->path, &st) == -1 && errno == ENOENT); /* it was its own: removed */

    /* A stale one: bound, and nobody listens. */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    WANT(fd >= 0 && bind(fd, (struct sockaddr *)&where.storage, where.length) == 0);
    close(fd);
    WANT(stat(f->path, &st) == 0);
    WANT(heist_start_unix_server(echo, &c, f->path, NULL, &server) == 0);
    WANT(ask(&where, NULL) == 0);
    /* Another file has come to its place: it is left alone. */
    WANT(rename(f->path, f->other) == 0);
    fd = open(f->path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    WANT(fd >= 0);
    close(fd);
    WANT(finish(server) == 0);
    WANT(stat(f->path, &st) == 0 && S_ISREG(st.st_mode));
    /* No socket: refused, and left alone. */
    WANT(heist_start_unix_server(echo, &c, f->path, NULL, &second) == -EADDRINUSE);
    WANT(stat(f->path, &st) == 0 && S_ISREG(st.st_mode));
    WANT(second == NULL);
    WANT(unlink(f->path) == 0);

    heist_server_options opts = HEIST_SERVER_OPTIONS_INIT;
    opts.flags = HEIST_SERVER_KEEP_PATH;
    WANT(heist_start_unix_server(echo, &c, f->path, &opts, &server) == 0);
    WANT(finish(server) == 0);
    WANT(stat(f->path, &st) == 0 && S_ISSOCK(st.st_mode));

    char hidden[64];
    snprintf(hidden, sizeof hidden, "@heist test %d", (int)getpid());
    WANT(heist_start_unix_server(echo, &c, hidden, NULL, &server) == 0);
    WANT(heist_start_unix_server(echo, &c, hidden, NULL, &second) == -EADDRINUSE);
    WANT(only_address(server, &where) == 0 && ask(&where, NULL) == 0);
    return finish(server);
}

static void unix_socket_files_are_reused_refused_and_removed_STRM_33(void **state) {
    (void)state;
    struct folder f;
    make_folder(&f);
    struct outcome o = {unix_paths, &f, ""};
    int err = run_real(watched, &o);
    remove_folder(&f);
    if (err < 0) fail_msg("%s: %s", heist_error_name(err), o.text);
}

/* ---- what ends by itself ---- */

static _Atomic(int) user_frees;
static void free_user(void *user) {
    (void)user;
    user_frees++;
}

/* main returns while the server serves, with connections in all states. */
static int leave_it(void *arg, void **out) {
    struct counts *c = arg;
    heist_server_options opts = HEIST_SERVER_OPTIONS_INIT;
    heist_addr where;
    heist_server *server;
    heist_conn *conn, *other;
    (void)out;
    opts.user_free = free_user;
    opts.flags = HEIST_SERVER_REUSEPORT;
    int err = start_local(hold, c, &opts, &server, &where);
    if (err < 0) return err;
    heist_server_unref(server); /* it serves on */
    WANT(heist_connect(&where, LIMIT, &conn) == 0 && read_byte(conn) == 0);
    WANT(heist_connect(&where, LIMIT, &other) == 0);
    heist_conn_close(conn);
    heist_conn_close(other);
    return 0;
}

static void runtimes_close_ends_a_server_that_serves(void **state) {
    (void)state;
    struct counts c = {0};
    user_frees = 0;
    must_run(leave_it, &c);
    assert_int_equal(user_frees, 1);
    assert_int_equal(c.began, c.ended);
}

/* A reference that outlives the runtime answers. */
static int keep_server(void *arg, void **out) {
    heist_server **server = arg;
    heist_addr where;
    (void)out;
    return start_local(echo, NULL, NULL, server, &where);
}

static void server_outlives_its_runtime_as_a_closed_one(void **state) {
    (void)state;
    heist_server *server = NULL;
    must_run(keep_server, &server);
    assert_int_equal(heist_server_is_serving(server), 0);
    assert_int_equal(heist_server_sockets(server, NULL, 0), 0);
    assert_int_equal(heist_server_close(server), 0);
    assert_int_equal(heist_server_wait_closed(server), 0);
    assert_int_equal(heist_server_drain(server, 0), 0);
    assert_int_equal(heist_server_start_serving(server), HEIST_ENOLOOP);
    heist_server_unref(server);
}

/* ---- from elsewhere ---- */

static void plain_thread_cannot_start(void **state) {
    (void)state;
    heist_server *server = NULL;
    heist_addr addr;
    assert_int_equal(heist_addr_parse("127.0.0.1:0", &addr), 0);
    assert_int_equal(heist_start_server(echo, NULL, "127.0.0.1", "0", NULL, &server), HEIST_ENOLOOP);
    assert_int_equal(heist_start_server_at(echo, NULL, &addr, 1, NULL, &server), HEIST_ENOLOOP);
    assert_int_equal(heist_start_unix_server(echo, NULL, "@x", NULL, &server), HEIST_ENOLOOP);
    assert_null(server);
}

struct thread_end {
    heist_server *server;
    struct counts counts;
    _Atomic(int) stop;
};

static int serve_for_thread(void *arg, void **out) {
    struct thread_end *e = arg;
    heist_addr where;
    heist_conn *conn;
    (void)out;
    int err = start_local(hold, &e->counts, NULL, &e->server, &where);
    if (err == 0) err = heist_connect(&where, LIMIT, &conn);
    if (err == 0) err = read_byte(conn);
    if (err < 0) return err;
    heist_server_ref(e->server);
    *out = e->server;
    e->stop = 1;
    err = until(&e->stop, 2);
    heist_conn_close(conn);
    heist_server_unref(e->server);
    return err;
}

static void plain_thread_drains_and_waits(void **state) {
    (void)state;
    struct thread_end e = {.stop = 0};
    heist_runtime *rt = harness_runtime(0);
    heist_task *t;
    assert_int_equal(heist_runtime_run_coroutine(rt, serve_for_thread, &e, NULL, &t), 0);
    while (e.stop != 1 && !heist_future_done(t)) heist_sleep(0.001);
    assert_int_equal(e.stop, 1);
    assert_int_equal(heist_server_wait_closed_until(e.server, heist_time() + 0.005), -ETIMEDOUT);
    assert_int_equal(heist_server_drain(e.server, heist_time() + 0.005), 1);
    assert_int_equal(heist_server_wait_closed(e.server), 0);
    heist_server_unref(e.server);
    e.stop = 2;
    assert_int_equal(heist_await(t, NULL), 0);
    heist_unref(t);
    harness_runtime_end(rt);
}

struct in_callback {
    heist_server *server;
    int start, wait, drain, forever;
    heist_future *done;
};

static int try_all(void *arg) {
    struct in_callback *k = arg;
    heist_server *other = NULL;
    k->start = heist_start_server(echo, NULL, "127.0.0.1", "0", NULL, &other);
    k->wait = heist_server_wait_closed(k->server);
    k->drain = heist_server_drain(k->server, HEIST_FOREVER);
    k->forever = heist_server_serve_forever(k->server);
    return heist_future_set_result(k->done, NULL, NULL);
}

static int from_callback(void *arg, void **out) {
    struct in_callback *k = arg;
    heist_addr where;
    heist_loop *loop;
    (void)out;
    int err = start_local(echo, NULL, NULL, &k->server, &where);
    if (err == 0) err = heist_get_running_loop(&loop);
    if (err == 0) err = heist_future_new(NULL, &k->done);
    if (err == 0) err = heist_loop_call_soon(loop, try_all, k, NULL, NULL);
    if (err == 0) err = heist_await(k->done, NULL);
    heist_unref(k->done);
    WANT(heist_server_is_serving(k->server) == 1); /* nothing was done */
    int end = finish(k->server);
    return err < 0 ? err : end;
}

static void callback_may_not_wait(void **state) {
    (void)state;
    struct in_callback k = {.start = 1};
    must_run(from_callback, &k);
    assert_int_equal(k.start, HEIST_ENOTINCORO);
    assert_int_equal(k.wait, HEIST_ENOTINCORO);
    assert_int_equal(k.drain, HEIST_ENOTINCORO);
    assert_int_equal(k.forever, HEIST_ENOTINCORO);
}

static int fork_child(void *arg, void **out) {
    struct folder *f = arg;
    struct counts c = {0};
    heist_server *server;
    heist_addr where;
    struct stat st;
    (void)out;
    WANT(heist_start_unix_server(echo, &c, f->path, NULL, &server) == 0);
    WANT(only_address(server, &where) == 0);
    /* The answer comes through a pipe, for an observer such as valgrind may change the exit status. */
    int ends[2], wrong = -1;
    WANT(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        wrong = (heist_server_close(server) != HEIST_EFORKED) + (heist_server_is_serving(server) != HEIST_EFORKED) +
                (heist_server_wait_closed(server) != HEIST_EFORKED) + (heist_server_drain(server, 0) != HEIST_EFORKED) +
                (heist_server_abort_clients(server) != HEIST_EFORKED) +
                (heist_server_start_serving(server) != HEIST_EFORKED) +
                (heist_server_sockets(server, NULL, 0) != HEIST_EFORKED);
        heist_server_unref(server);
        _exit(write(ends[1], &wrong, sizeof wrong) == sizeof wrong ? 0 : 1);
    }
    close(ends[1]);
    ssize_t told = read(ends[0], &wrong, sizeof wrong);
    close(ends[0]);
    WANT(child > 0 && waitpid(child, NULL, 0) == child);
    WANT(told == sizeof wrong && wrong == 0);
    WANT(stat(f->path, &st) == 0 && ask(&where, NULL) == 0); /* the parent's serves on */
    return finish(server);
}

static void forked_child_touches_nothing_of_the_server(void **state) {
    (void)state;
    struct folder f;
    make_folder(&f);
    struct outcome o = {fork_child, &f, ""};
    int err = run_real(watched, &o);
    remove_folder(&f);
    if (err < 0) fail_msg("%s: %s", heist_error_name(err), o.text);
}

/* ---- opening ---- */

struct opening {
    _Atomic(int) opened, freed, waiting;
    int mode; /* 0 plain, 1 fails, 2 waits */
};

static int open_it(heist_conn *conn, const heist_stream_options *opts, void *user, heist_stream **out) {
    struct opening *o = user;
    int err = 0;
    if (o->mode == 1) err = heist_fail(-EACCES, "not you");
    if (o->mode == 2) {
        o->waiting = 1;
        err = heist_sleep(3600);
    }
    if (err < 0) {
        heist_conn_close(conn);
        return err;
    }
    o->opened += opts && opts->limit == 77;
    return heist_stream_from_conn(conn, opts, out);
}

static void free_opening(void *user) { ((struct opening *)user)->freed++; }

static int open_hook(void *arg, void **out) {
    struct opening *o = arg;
    struct counts c = {0};
    heist_stream_options stream = HEIST_STREAM_OPTIONS_INIT;
    heist_server_options opts = HEIST_SERVER_OPTIONS_INIT;
    heist_server *server;
    heist_addr where;
    heist_conn *conn;
    (void)out;
    stream.limit = 77;
    opts.stream = &stream;
    opts.open = open_it;
    opts.open_user = o;
    opts.open_free = free_opening;
    int err = start_local(echo, &c, &opts, &server, &where);
    if (err < 0) return err;
    if (o->mode == 0) {
        WANT(ask(&where, NULL) == 0);
        WANT(o->opened == 1);
    } else {
        WANT(heist_connect(&where, LIMIT, &conn) == 0);
        if (o->mode == 2) {
            WANT(until(&o->waiting, 1) == 0);
            WANT(heist_server_abort_clients(server) == 1);
        }
        WANT(read_end(conn) == 0);
        heist_conn_close(conn);
        WANT(c.began == 0);
    }
    return finish(server);
}

static void stream_may_be_made_by_the_user_and_refused(void **state) {
    (void)state;
    struct reports reports = {.record = RECORD_INIT};
    struct opening o = {.mode = 0};
    for (o.mode = 0; o.mode < 3; o.mode++) {
        must_run_with(open_hook, &o, note_report, &reports);
        assert_int_equal(o.freed, o.mode + 1);
    }
    assert_string_equal(record_text(&reports.record), "a connection could not be opened");
}

/* ---- a socket of the user's ---- */

static int stream_socket(int family) { return socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0); }

/* fd must still be ours, blocking, and owned by nobody. */
static bool untouched(int fd) {
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && !(flags & O_NONBLOCK) && heist_fd_wait(fd, HEIST_READABLE, 0) != -EBUSY;
}

static int own_socket(void *arg, void **out) {
    struct counts *c = arg;
    heist_server *server = NULL;
    heist_addr where, told;
    heist_server_options opts = HEIST_SERVER_OPTIONS_INIT;
    (void)out;
    for (int kind = 0; kind < 4; kind++) { /* listening or not; paused or not */
        int fd = stream_socket(AF_INET);
        WANT(heist_addr_parse("127.0.0.1:0", &where) == 0);
        WANT(fd >= 0 && bind(fd, (struct sockaddr *)&where.storage, where.length) == 0);
        WANT(getsockname(fd, (struct sockaddr *)&where.storage, &where.length) == 0);
        if (kind & 1) WANT(listen(fd, 16) == 0);
        opts.flags = kind & 2 ? HEIST_SERVER_PAUSED : 0;
        WANT(heist_start_server_fd(echo, c, fd, &opts, &server) == 0);
        WANT(heist_start_server_fd(echo, c, fd, &opts, NULL) == -EBUSY);
        WANT(heist_server_sockets(server, &told, 1) == 1);
        WANT(told.length == where.length && memcmp(&told.storage, &where.storage, where.length) == 0);
        WANT(heist_server_is_serving(server) == !(kind & 2));
        WANT(heist_server_start_serving(server) == 0);
        WANT(ask(&where, NULL) == 0);
        int other = dup(fd); /* as another process would have it */
        WANT(other >= 0 && finish(server) == 0);
        WANT(fcntl(fd, F_GETFD) == -1); /* closed with its server */
        heist_conn *conn;
        WANT(heist_connect(&where, LIMIT, &conn) == 0);
        heist_conn_close(conn);
        close(other);
        WANT(refused(&where));
    }
    return 0;
}

static int unfit_sockets(void *arg, void **out) {
    struct counts *c = arg;
    heist_server *server = NULL;
    heist_addr where;
    int fd = stream_socket(AF_INET), pair[2], pipes[2];
    (void)out;
    WANT(heist_start_server_fd(NULL, c, fd, NULL, &server) == -EINVAL);
    WANT(heist_start_server_fd(echo, c, fd, NULL, &server) == -EINVAL && untouched(fd)); /* not bound */
    close(fd);
    WANT(heist_start_server_fd(echo, c, -1, NULL, &server) == -EBADF);
    WANT(heist_start_server_fd(echo, c, fd, NULL, &server) == -EBADF);
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    WANT(heist_start_server_fd(echo, c, fd, NULL, &server) == -EPROTOTYPE && untouched(fd));
    close(fd);
    WANT(pipe2(pipes, O_CLOEXEC) == 0);
    WANT(heist_start_server_fd(echo, c, pipes[0], NULL, &server) == -ENOTSOCK && untouched(pipes[0]));
    close(pipes[0]);
    close(pipes[1]);
    WANT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    WANT(heist_start_server_fd(echo, c, pair[0], NULL, &server) == -EINVAL && untouched(pair[0]));
    close(pair[0]);
    close(pair[1]);
    /* One that is bound, and cannot listen any more: only the start finds out, and it comes back. */
    heist_listener *l;
    WANT(heist_addr_parse("127.0.0.1:0", &where) == 0 && heist_listen(&where, NULL, &l) == 0);
    WANT(heist_listener_addr(l, &where) == 0);
    fd = stream_socket(AF_INET);
    WANT(connect(fd, (struct sockaddr *)&where.storage, where.length) == 0);
    WANT(heist_start_server_fd(echo, c, fd, NULL, &server) == -EINVAL && untouched(fd) && !server);
    WANT(write(fd, "x", 1) == 1);
    close(fd);
    heist_listener_close(l);
    return 0;
}

static void server_takes_a_socket_of_the_users_over(void **state) {
    (void)state;
    struct counts c = {0};
    must_run(own_socket, &c);
}

static void unfit_socket_is_refused_and_left_alone(void **state) {
    (void)state;
    struct counts c = {0};
    must_run(unfit_sockets, &c);
}

/* An address that is shared, with whomever and however many workers there are. */
static int shared_address(void *arg, void **out) {
    struct counts *c = arg;
    heist_server *one, *two;
    heist_addr where;
    heist_server_options opts = HEIST_SERVER_OPTIONS_INIT;
    (void)out;
    opts.flags = HEIST_SERVER_REUSEPORT;
    WANT(start_local(echo, c, &opts, &one, &where) == 0);
    WANT(heist_start_server_at(echo, c, &where, 1, &opts, &two) == 0);
    WANT(ask(&where, NULL) == 0);
    WANT(finish(one) == 0);
    WANT(ask(&where, NULL) == 0);
    return finish(two);
}

static void servers_may_share_an_address(void **state) {
    (void)state;
    struct counts c = {0};
    must_run(shared_address, &c);
}

/* ---- without memory ---- */

static int scarce(void *arg, void **out) {
    struct counts *c = arg;
    heist_server *server = NULL;
    heist_addr where;
    (void)out;
    int err = start_local(echo, c, NULL, &server, &where);
    if (err < 0) return server ? -EPROTO : err;
    /* It may lose a connection that it has no memory for, and wait before the next; the client then hears of it. */
    heist_conn *conn;
    err = heist_connect(&where, LIMIT, &conn);
    if (err == 0) {
        char byte;
        heist_conn_write(conn, "w", 1, LIMIT, NULL);
        ptrdiff_t n = heist_conn_read(conn, &byte, 1, heist_time() + 0.05);
        (void)n;
        heist_conn_close(conn);
    }
    heist_server_close(server);
    int end = heist_server_wait_closed(server);
    heist_server_unref(server);
    return end < 0 ? end : err;
}

static void quiet(heist_loop *loop, const heist_report *report, void *user) { (void)loop, (void)report, (void)user; }

static void each_failing_allocation_is_survived(void **state) {
    (void)state;
    struct counts c = {0};
    long n = 1;
    for (;; n++) {
        long blocks = harness_blocks();
        int descriptors = harness_descriptors();
        harness_allocations();
        harness_fail_allocation(n, false);
        int err = run_with(scarce, &c, quiet, NULL);
        harness_fail_allocation(0, false);
        long asked = harness_allocations();
        if (err != 0 && err != -ENOMEM) fail_msg("allocation %ld failing: %s", n, heist_error_name(err));
        if (harness_blocks() != blocks)
            fail_msg("allocation %ld failing: %ld blocks left", n, harness_blocks() - blocks);
        assert_int_equal(harness_descriptors(), descriptors);
        if (asked < n) break;
        assert_true(n < 2000);
    }
    assert_true(n > 5);
}

/* No memory for a connection that was taken already: it is lost, and its end is no reason to take the next at once. */
struct loss {
    double reported, began;
    _Atomic(int) reports, handlers;
};

static void note_loss(heist_loop *loop, const heist_report *report, void *user) {
    struct loss *l = user;
    (void)loop;
    if (strcmp(report->message, "a server cannot accept connections now") != 0) return;
    l->reported = heist_time();
    l->reports++;
}

static int note_handler(heist_stream *s, void *user) {
    struct loss *l = user;
    (void)s;
    l->began = heist_time();
    l->handlers++;
    return 0;
}

static int lose_one(void *arg, void **out) {
    struct loss *l = arg;
    heist_server *server;
    heist_addr where;
    (void)out;
    for (int n = 1, lost = 0; !lost; n++) { /* which allocation is it? */
        heist_server_stats stats = HEIST_SERVER_STATS_INIT;
        l->reports = l->handlers = 0;
        WANT(n < 20 && start_local(note_handler, l, NULL, &server, &where) == 0);
        int first = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int second = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        WANT(first >= 0 && second >= 0);
        harness_fail_allocation(n, false);
        WANT(connect(first, (struct sockaddr *)&where.storage, where.length) == 0);
        int err = 0;
        while (err == 0 && !l->reports && !l->handlers) err = heist_sleep(0.001);
        harness_fail_allocation(0, false);
        WANT(heist_server_get_stats(server, &stats) == 0);
        lost = err == 0 && l->reports && stats.accepted == 1;
        if (lost) { /* or the pause was before it was taken, and is over: then it has its handler, and ends after that */
            char byte;
            while (recv(first, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN) WANT(heist_sleep(0.001) == 0);
            lost = !l->handlers;
        }
        if (lost) {
            WANT(connect(second, (struct sockaddr *)&where.storage, where.length) == 0);
            WANT(until(&l->handlers, 1) == 0);
            WANT(l->began - l->reported >= 0.5);
        }
        close(first);
        close(second);
        WANT(heist_server_drain(server, 0) >= 0);
        heist_server_unref(server);
    }
    return 0;
}

static void loss_of_a_connection_is_followed_by_a_pause_STRM_31(void **state) {
    (void)state;
    struct loss l = {0};
    must_run_with(lose_one, &l, note_loss, &l);
}

static const struct CMUnitTest tests[] = {
    API_TEST(each_connection_gets_a_handler_with_a_stream_STRM_23),
    API_TEST(accepted_connections_do_without_nagle_STRM_37),
    API_TEST(with_reuseport_each_worker_has_a_socket_of_its_own_STRM_32),
    API_TEST(handlers_failure_is_reported_and_closes_that_connection_alone_STRM_24),
    API_TEST(several_hosts_give_several_sockets_and_one_free_port_STRM_25),
    API_TEST(host_may_be_a_name_STRM_25),
    API_TEST(address_in_use_is_that_error_and_is_named_STRM_26),
    API_TEST(bad_arguments_are_refused),
    API_TEST(paused_server_listens_after_start_serving_STRM_27),
    API_TEST(serve_forever_ends_with_the_server_and_is_for_one_STRM_28),
    API_TEST(close_stops_listening_at_once_and_leaves_connections_alone_STRM_29),
    API_TEST(server_may_be_closed_at_any_moment_and_another_take_its_place_STRM_29),
    API_TEST(close_clients_and_abort_clients_end_the_open_ones_STRM_30),
    API_TEST(several_may_cut_while_connections_come_and_go_STRM_30),
    API_TEST(handler_may_keep_the_stream_STRM_23),
    API_TEST(what_a_handler_wrote_is_sent_after_it_returned),
    API_TEST(peer_that_reads_nothing_does_not_hold_up_a_drain),
    API_TEST(drain_waits_and_cuts_off_at_its_deadline),
    API_TEST(waiting_for_the_end_can_be_cancelled),
    API_TEST(beyond_max_connections_accepting_pauses_and_resumes),
    API_TEST(limit_holds_over_several_sockets),
    API_TEST(out_of_descriptors_is_reported_once_and_tried_again_STRM_31),
    API_TEST(after_a_pause_accepting_is_tried_again_STRM_31),
    API_TEST(one_readiness_serves_the_whole_backlog_STRM_32),
    API_TEST(unix_socket_files_are_reused_refused_and_removed_STRM_33),
    API_TEST(runtimes_close_ends_a_server_that_serves),
    API_TEST(server_outlives_its_runtime_as_a_closed_one),
    API_TEST(plain_thread_cannot_start),
    API_TEST(plain_thread_drains_and_waits),
    API_TEST(callback_may_not_wait),
    API_TEST(forked_child_touches_nothing_of_the_server),
    API_TEST(stream_may_be_made_by_the_user_and_refused),
    API_TEST(server_takes_a_socket_of_the_users_over),
    API_TEST(unfit_socket_is_refused_and_left_alone),
    API_TEST(servers_may_share_an_address),
    API_TEST(each_failing_allocation_is_survived),
    API_TEST(loss_of_a_connection_is_followed_by_a_pause_STRM_31),
};

int main(void) { return HARNESS_MAIN("server", tests); }
