/* TLS against others: the `openssl` tool as client and server, curl as client, and a peer of OpenSSL's own library on a
 * plain thread that does what a friendly one does not: new keys in the middle, a message cut in two, records that were
 * tampered with.  A tool that is not installed skips its tests. */
#include "api/tls_world.h"

#include <heist/tls.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

/* ---- files and children ---- */

static char folder[64];

static const char *path_of(const char *name) {
    static char paths[4][128];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void put_file(const char *name, const char *text, const char *more) {
    FILE *f = fopen(path_of(name), "w");
    MUST(f && fputs(text, f) >= 0 && (!more || fputs(more, f) >= 0) && fclose(f) == 0);
}

static void files_begin(void) {
    strcpy(folder, "/tmp/heist-tls-XXXXXX");
    MUST(mkdtemp(folder));
    put_file("ca.pem", W.ca.pem, NULL);
    put_file("good.pem", W.good.pem, W.good.key_pem);
    put_file("client.pem", W.client.pem, W.client.key_pem);
}

static void files_end(void) {
    static const char *const names[] = {"ca.pem", "good.pem", "client.pem", "keys.log", "out"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) unlink(path_of(names[i]));
    rmdir(folder);
}

static bool there_is(const char *tool) {
    char command[64];
    snprintf(command, sizeof command, "command -v %s >/dev/null 2>&1", tool);
    return system(command) == 0;
}

/* A child whose input is `input` and whose output and errors come back.  On a plain thread. */
struct child {
    char command[768];
    const char *input;
    bool keep_open; /* its input, until it ends */
    char output[16384];
    int status;
};

static void *run_child(void *arg) {
    struct child *c = arg;
    int in[2], back[2];
    posix_spawn_file_actions_t actions;
    pid_t pid;
    char *argv[] = {(char[]){"sh"}, (char[]){"-c"}, c->command, NULL};
    MUST(pipe2(in, O_CLOEXEC) == 0 && pipe2(back, O_CLOEXEC) == 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, back[1], 1);
    posix_spawn_file_actions_adddup2(&actions, back[1], 2);
    MUST(posix_spawn(&pid, "/bin/sh", &actions, NULL, argv, environ) == 0);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(back[1]);
    if (c->input && write(in[1], c->input, strlen(c->input)) < 0) perror("write");
    if (!c->keep_open) close(in[1]);
    size_t got = 0;
    for (;;) {
        ssize_t n = read(back[0], c->output + got, sizeof c->output - 1 - got);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        got += (size_t)n;
        if (got == sizeof c->output - 1) got /= 2; /* the end counts */
    }
    if (c->keep_open) close(in[1]);
    close(back[0]);
    while (waitpid(pid, &c->status, 0) < 0 && errno == EINTR) {
    }
    return NULL;
}

/* ---- a server of ours for one guest of theirs ---- */

struct visit {
    heist_tls_context *ctx;
    const char *command; /* with %d for the port */
    const char *answer;  /* after the first line; NULL: the line itself */
    int guests;
    struct child child;
    int err;
    char line[256], subject[128], reason[256], alpn[32];
    int resumed;
};

static int serve_one(struct visit *v, heist_conn *conn) {
    heist_stream *plain, *s;
    int err = heist_stream_from_conn(conn, NULL, &plain);
    if (err) return err;
    err = heist_tls_wrap(plain, v->ctx, NULL, &s);
    if (err) {
        snprintf(v->reason, sizeof v->reason, "%s", heist_tls_reason());
        heist_stream_abort(plain);
        heist_stream_unref(plain);
        return err;
    }
    (void)heist_stream_get_extra_info(s, HEIST_TLS_INFO_PEER_SUBJECT, v->subject, sizeof v->subject);
    (void)heist_stream_get_extra_info(s, HEIST_TLS_INFO_RESUMED, &v->resumed, sizeof v->resumed);
    (void)heist_stream_get_extra_info(s, HEIST_TLS_INFO_ALPN, v->alpn, sizeof v->alpn);
    char rest[256];
    err = read_line(s, v->line, sizeof v->line);
    if (!err && v->answer) /* a request's head */
        do err = read_line(s, rest, sizeof rest);
        while (!err && *rest && *rest != '\r');
    if (!err) err = v->answer ? write_text(s, v->answer) : write_text(s, v->line);
    if (!err && !v->answer) err = write_text(s, "\n");
    int end = stream_end(&s);
    return err ? err : end;
}

static int visit_main(void *arg, void **out) {
    struct visit *v = arg;
    heist_listener *listener;
    heist_addr addr;
    char text[64];
    (void)out;
    int err = heist_addr_parse("127.0.0.1:0", &addr);
    if (!err) err = heist_listen(&addr, NULL, &listener);
    if (!err) err = heist_listener_addr(listener, &addr);
    if (err) return err;
    heist_addr_format(&addr, text, sizeof text);
    int port = atoi(strrchr(text, ':') + 1);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(v->child.command, sizeof v->child.command, v->command, port);
#pragma GCC diagnostic pop
    pthread_t thread = harness_thread(run_child, &v->child);
    for (int i = 0; i < v->guests && !err; i++) {
        heist_conn *conn;
        err = heist_accept(listener, heist_time() + 120, &conn);
        if (!err) v->err = serve_one(v, conn);
    }
    heist_listener_close(listener);
    harness_join(thread);
    return err;
}

static void visited(struct visit *v, heist_tls_context *ctx, const char *command, const char *input) {
    v->ctx = ctx;
    v->command = command;
    v->child.input = input;
    if (!v->guests) v->guests = 1;
    assert_non_null(ctx);
    assert_int_equal(run_tls(visit_main, v), 0);
    heist_tls_context_unref(ctx);
}

static void openssl_s_client_is_served_STRM_40(void **state) {
    (void)state;
    if (!there_is("openssl")) skip();
    char command[512];
    struct visit v = {.child.keep_open = true};
    heist_tls_options o = HEIST_TLS_OPTIONS_INIT;
    o.ca_file = path_of("ca.pem");
    o.verify = HEIST_TLS_VERIFY_REQUIRED;
    o.alpn = "line/1";
    snprintf(command, sizeof command,
             "exec openssl s_client -connect 127.0.0.1:%%d -servername localhost -verify_hostname localhost "
             "-verify_return_error -CAfile %s -cert %s -alpn line/1 -ign_eof -quiet 2>&1",
             path_of("ca.pem"), path_of("client.pem"));
    visited(&v, server_context(&W.good, &o), command, "an echo, please\n");
    if (v.err) fail_msg("%s: %s\n%s", heist_error_name(v.err), v.reason, v.child.output);
    assert_string_equal(v.line, "an echo, please");
    assert_string_equal(v.subject, "CN=some client");
    assert_string_equal(v.alpn, "line/1");
    assert_non_null(strstr(v.child.output, "an echo, please"));
    assert_int_equal(v.child.status, 0);
}

static void openssl_s_client_that_distrusts_us_goes(void **state) {
    (void)state;
    if (!there_is("openssl")) skip();
    char command[512];
    struct visit v = {0};
    snprintf(command, sizeof command,
             "exec openssl s_client -connect 127.0.0.1:%%d -verify_return_error -CAfile %s -quiet 2>&1",
             path_of("ca.pem"));
    visited(&v, server_context(&W.expired, NULL), command, "not said\n");
    assert_int_equal(v.err, HEIST_ETLS);
    if (!strstr(v.reason, "alert certificate expired")) fail_msg("%s", v.reason);
    assert_true(v.child.status != 0);
}

static void curl_gets_its_page_STRM_40(void **state) {
    (void)state;
    if (!there_is("curl")) skip();
    char command[512];
    struct visit v = {.answer = "HTTP/1.0 200 OK\r\nContent-Length: 11\r\n\r\nhello curl\n"};
    heist_tls_options o = HEIST_TLS_OPTIONS_INIT;
    o.alpn = "http/1.1";
    snprintf(command, sizeof command, "exec curl -sS --noproxy '*' --cacert %s https://127.0.0.1:%%d/page",
             path_of("ca.pem"));
    visited(&v, server_context(&W.good, &o), command, NULL);
    if (v.err || strcmp(v.child.output, "hello curl\n") != 0)
        fail_msg("%s: %s\n%s", heist_error_name(v.err), v.reason, v.child.output);
    assert_true(strncmp(v.line, "GET /page HTTP/1.1", 18) == 0);
    assert_int_equal(v.child.status, 0);
}

static void curl_sees_a_wrong_name(void **state) {
    (void)state;
    if (!there_is("curl")) skip();
    char command[512];
    struct visit v = {.answer = ""};
    snprintf(command, sizeof command, "exec curl -sS --noproxy '*' --cacert %s https://127.0.0.1:%%d/",
             path_of("ca.pem"));
    visited(&v, server_context(&W.other, NULL), command, NULL);
    assert_int_equal(WEXITSTATUS(v.child.status), 60);
}

/* ---- their server ---- */

struct outing {
    heist_tls_context *ctx;
    int port, err, resumed[2];
    char line[128], reason[256];
};

static int outing_main(void *arg, void **out) {
    struct outing *o = arg;
    (void)out;
    for (int i = 0; i < 2 && !o->err; i++) {
        char port[16];
        heist_stream *s;
        heist_tls_stream_options opts = HEIST_TLS_STREAM_OPTIONS_INIT;
        opts.server_hostname = "localhost";
        snprintf(port, sizeof port, "%d", o->port);
        o->err = heist_open_tls_connection("127.0.0.1", port, o->ctx, NULL, &opts, &s);
        if (o->err) {
            snprintf(o->reason, sizeof o->reason, "%s", heist_tls_reason());
            break;
        }
        (void)heist_stream_get_extra_info(s, HEIST_TLS_INFO_RESUMED, &o->resumed[i], sizeof(int));
        o->err = write_text(s, "turn me round\n");
        if (!o->err) o->err = read_line(s, o->line, sizeof o->line);
        int end = stream_end(&s);
        if (!o->err) o->err = end;
    }
    return 0;
}

/* `openssl s_server -rev` says on which port it accepts. */
static pid_t start_server(int *port) {
    int back[2];
    posix_spawn_file_actions_t actions;
    pid_t pid;
    char good[160], text[4096];
    size_t got = 0;
    snprintf(good, sizeof good, "%s", path_of("good.pem"));
    char *argv[] = {(char[]){"openssl"}, (char[]){"s_server"},
                    (char[]){"-accept"}, (char[]){"127.0.0.1:0"},
                    (char[]){"-cert"},   good,
                    (char[]){"-rev"},    NULL};
    MUST(pipe2(back, O_CLOEXEC) == 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, back[1], 1);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    MUST(posix_spawnp(&pid, "openssl", &actions, NULL, argv, environ) == 0);
    posix_spawn_file_actions_destroy(&actions);
    close(back[1]);
    *port = 0;
    while (!*port) {
        ssize_t n = read(back[0], text + got, sizeof text - 1 - got);
        if (n <= 0) break;
        got += (size_t)n;
        text[got] = 0;
        char *at = strstr(text, "ACCEPT 127.0.0.1:");
        if (at && strchr(at, '\n')) *port = atoi(at + 17);
    }
    close(back[0]);
    return pid;
}

static void openssl_s_server_is_visited_and_its_sessions_are_taken_up_STRM_40(void **state) {
    (void)state;
    if (!there_is("openssl")) skip();
    struct outing o = {0};
    pid_t pid = start_server(&o.port);
    heist_tls_options co = HEIST_TLS_OPTIONS_INIT;
    co.keylog_file = path_of("keys.log");
    o.ctx = client_context(&co);
    int err = o.port ? run_tls(outing_main, &o) : -EPROTO;
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
    heist_tls_context_unref(o.ctx);
    assert_int_equal(err, 0);
    if (o.err) fail_msg("%s: %s", heist_error_name(o.err), o.reason);
    assert_string_equal(o.line, "dnuor em nrut");
    assert_int_equal(o.resumed[0], 0);
    assert_int_equal(o.resumed[1], 1);
    char text[64] = "";
    FILE *log = fopen(path_of("keys.log"), "r");
    assert_non_null(log);
    assert_non_null(fgets(text, sizeof text, log));
    fclose(log);
    assert_non_null(strstr(text, "SECRET")); /* e.g. SERVER_HANDSHAKE_TRAFFIC_SECRET */
}

/* ---- a peer that plays with the protocol ---- */

/* OpenSSL over a blocking socket, on a plain thread. */
struct peer {
    int fd;
    SSL_CTX *ctx;
    void (*play)(struct peer *p, SSL *ssl);
    char heard[64];
    int wrong;
    struct gate go;     /* opened by the test */
    _Atomic(bool) sent; /* a part of a message is in our socket */
};

static void *peer_runs(void *arg) {
    struct peer *p = arg;
    SSL *ssl = SSL_new(p->ctx);
    MUST(ssl && SSL_set_fd(ssl, p->fd));
    SSL_set_accept_state(ssl);
    if (SSL_do_handshake(ssl) == 1) p->play(p, ssl);
    else p->wrong = 100;
    SSL_free(ssl);
    ERR_clear_error();
    close(p->fd);
    return NULL;
}

static void peer_begin(struct peer *p, void (*play)(struct peer *, SSL *), int fd) {
    p->fd = fd;
    p->play = play;
    p->go = (struct gate)GATE_INIT;
    p->ctx = SSL_CTX_new(TLS_server_method());
    MUST(p->ctx && SSL_CTX_use_certificate(p->ctx, W.good.x) && SSL_CTX_use_PrivateKey(p->ctx, W.good.key));
}

struct game {
    struct peer peer;
    heist_tls_context *ctx;
    heist_coro_fn ours;
    heist_stream *plain, *s;
    char heard[64];
    int greeted, read, written, end;
};

static int game_main(void *arg, void **out) {
    struct game *g = arg;
    int fds[2];
    heist_tls_stream_options o = HEIST_TLS_STREAM_OPTIONS_INIT;
    void (*play)(struct peer *, SSL *) = g->peer.play;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) return -errno;
    peer_begin(&g->peer, play, fds[1]);
    int err = stream_of(fds[0], &g->plain);
    if (err) return err;
    pthread_t thread = harness_thread(peer_runs, &g->peer);
    o.server_hostname = "localhost";
    o.shutdown_timeout = 60;
    g->greeted = heist_tls_wrap(g->plain, g->ctx, &o, &g->s);
    if (!g->greeted) err = g->ours(g, out);
    gate_open(&g->peer.go);
    if (g->s) g->end = stream_end(&g->s);
    else (void)stream_end(&g->plain);
    harness_join(thread);
    SSL_CTX_free(g->peer.ctx);
    return err;
}

static void play_game(struct game *g, void (*play)(struct peer *, SSL *), heist_coro_fn ours) {
    g->peer.play = play;
    g->ours = ours;
    g->ctx = client_context(NULL);
    assert_int_equal(run_tls(game_main, g), 0);
    heist_tls_context_unref(g->ctx);
    assert_int_equal(g->greeted, 0);
}

static bool peer_line(SSL *ssl, char *buf, size_t size) {
    size_t n = 0;
    while (n + 1 < size && SSL_read(ssl, buf + n, 1) == 1)
        if (buf[n++] == '\n') break;
    buf[n] = 0;
    return n > 0;
}

static void peer_changes_keys(struct peer *p, SSL *ssl) {
    for (int i = 0; i < 20; i++) {
        char text[32], back[32];
        snprintf(text, sizeof text, "under key %d\n", i);
        p->wrong += SSL_key_update(ssl, i % 2 ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED) != 1;
        p->wrong += SSL_write(ssl, text, (int)strlen(text)) != (int)strlen(text);
        p->wrong += !peer_line(ssl, back, sizeof back) || strcmp(back, text) != 0;
    }
    SSL_shutdown(ssl);
    char byte;
    while (SSL_read(ssl, &byte, 1) > 0) {
    }
}

static int echo_lines(void *arg, void **out) {
    struct game *g = arg;
    char *line;
    ptrdiff_t n;
    (void)out;
    while ((n = heist_stream_readline(g->s, &line)) > 0) {
        g->written++;
        int err = heist_stream_write(g->s, line, (size_t)n);
        if (err) return err;
    }
    g->read = (int)n;
    return 0;
}

static void keys_change_in_the_middle(void **state) {
    (void)state;
    struct game g;
    memset(&g, 0, sizeof g);
    play_game(&g, peer_changes_keys, echo_lines);
    assert_int_equal(g.peer.wrong, 0);
    assert_int_equal(g.written, 20);
    assert_int_equal(g.read, 0);
    assert_int_equal(g.end, 0);
}

/* The peer's ticket, which is larger than a record may be here, comes in two: the first part alone.  Our side is then
 * in the middle of a message, and may write only when it has read the rest. */
static void peer_cuts_a_message(struct peer *p, SSL *ssl) {
    unsigned char large[1500], cipher[8192];
    char line[64];
    SSL_SESSION *session = SSL_get_session(ssl);
    memset(large, 7, sizeof large);
    MUST(SSL_SESSION_set1_ticket_appdata(session, large, sizeof large));
    BIO *mem = BIO_new(BIO_s_mem());
    MUST(mem && SSL_set_max_send_fragment(ssl, 512));
    SSL_set0_wbio(ssl, mem);
    MUST(SSL_new_session_ticket(ssl));
    p->wrong += SSL_do_handshake(ssl) != 1;
    int n = BIO_read(mem, cipher, sizeof cipher);
    int first = n > 5 ? 5 + (cipher[3] << 8 | cipher[4]) : 0;
    p->wrong += first <= 5 || first >= n; /* there are two records at least */
    p->wrong += write(p->fd, cipher, (size_t)first) != first;
    p->sent = true;
    gate_wait(&p->go);
    p->wrong += write(p->fd, cipher + first, (size_t)(n - first)) != n - first;
    SSL_set0_wbio(ssl, BIO_new_socket(p->fd, BIO_NOCLOSE));
    p->wrong += !peer_line(ssl, line, sizeof line);
    snprintf(p->heard, sizeof p->heard, "%s", line);
    SSL_shutdown(ssl);
    while (SSL_read(ssl, line, sizeof line) > 0) {
    }
}

static int read_a_byte(void *arg, void **out) {
    struct game *g = arg;
    char byte;
    (void)out;
    g->read = (int)heist_stream_read(g->s, &byte, 1);
    return 0;
}

/* Reads up to where the message breaks off; there is nothing for us in it. */
static int read_to_the_break(struct game *g) {
    char byte;
    int err = 0;
    while (!g->peer.sent && !err) err = heist_sleep(0.001);
    if (!err) err = heist_stream_set_read_deadline(g->s, heist_time() + 0.05);
    if (!err && heist_stream_read(g->s, &byte, 1) != -ETIMEDOUT) err = -EPROTO;
    return err;
}

static int write_in_the_middle(void *arg, void **out) {
    struct game *g = arg;
    (void)out;
    int err = read_to_the_break(g);
    if (!err) err = heist_stream_set_read_deadline(g->s, HEIST_FOREVER);
    if (!err) err = heist_stream_set_write_buffer_limits(g->s, 0, 0);
    if (!err) err = heist_stream_write(g->s, "through\n", 8);
    if (!err && g->written == 1) { /* with a reader that waits at the same time */
        heist_task *t;
        err = heist_create_task(read_a_byte, g, NULL, &t);
        for (int i = 0; i < 20 && !err; i++) err = heist_yield();
        gate_open(&g->peer.go);
        if (!err) err = heist_stream_drain(g->s);
        int other = heist_await(t, NULL);
        heist_unref(t);
        return err ? err : other;
    }
    gate_open(&g->peer.go);
    if (!err) err = heist_stream_drain(g->s);
    if (!err) err = read_a_byte(g, NULL);
    return err;
}

static void writes_wait_for_the_rest_of_a_message(void **state) {
    (void)state;
    for (int with_reader = 0; with_reader < 2; with_reader++) {
        struct game g;
        memset(&g, 0, sizeof g);
        g.written = with_reader;
        play_game(&g, peer_cuts_a_message, write_in_the_middle);
        assert_int_equal(g.peer.wrong, 0);
        assert_string_equal(g.peer.heard, "through\n");
        assert_int_equal(g.read, 0); /* the goodbye */
        assert_int_equal(g.end, 0);
    }
}

static int goodbye_in_the_middle(void *arg, void **out) {
    struct game *g = arg;
    (void)out;
    int err = read_to_the_break(g);
    if (!err) err = heist_stream_set_read_deadline(g->s, HEIST_FOREVER);
    if (!err) err = heist_stream_write(g->s, "through\n", 8);
    if (!err) err = heist_stream_write_eof(g->s);
    gate_open(&g->peer.go);
    if (!err) err = read_a_byte(g, NULL);
    return err;
}
/* Only writes, and only the goodbye, are there to read the rest; what the queue holds before it went out already. */
static int close_in_the_middle(void *arg, void **out) {
    struct game *g = arg;
    (void)out;
    int err = heist_stream_write(g->s, "through\n", 8);
    if (!err) err = heist_stream_drain(g->s);
    if (!err) err = read_to_the_break(g);
    heist_stream_close(g->s);
    gate_open(&g->peer.go);
    return err;
}

static void goodbyes_wait_for_the_rest_of_a_message(void **state) {
    (void)state;
    for (int closes = 0; closes < 2; closes++) {
        struct game g;
        memset(&g, 0, sizeof g);
        play_game(&g, peer_cuts_a_message, closes ? close_in_the_middle : goodbye_in_the_middle);
        assert_int_equal(g.peer.wrong, 0);
        assert_string_equal(g.peer.heard, "through\n");
        assert_int_equal(g.read, 0);
        assert_int_equal(g.end, 0);
    }
}

/* Asks for new keys without end, and reads none of the answers. */
static void peer_asks_for_ever(struct peer *p, SSL *ssl) {
    unsigned char cipher[4096];
    long asked = 0;
    BIO *mem = BIO_new(BIO_s_mem());
    MUST(mem);
    SSL_set0_wbio(ssl, mem);
    for (;; asked++) {
        MUST(SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED) && SSL_do_handshake(ssl) == 1);
        int n = BIO_read(mem, cipher, sizeof cipher);
        if (n <= 0 || send(p->fd, cipher, (size_t)n, MSG_NOSIGNAL) != n) break; /* he has gone */
        if (asked > 2000000) break;
    }
    snprintf(p->heard, sizeof p->heard, "%ld", asked);
}
static int read_what_comes(void *arg, void **out) {
    struct game *g = arg;
    char byte;
    (void)out;
    g->read = (int)heist_stream_read(g->s, &byte, 1);
    heist_stream *below = heist_stream_ref(g->plain);
    heist_stream_abort(g->s);
    int err = heist_stream_wait_closed(below); /* the peer sends, and blocks, until then */
    heist_stream_unref(below);
    return err;
}
static void answers_that_nobody_reads_are_not_kept_without_bound(void **state) {
    (void)state;
    struct game g;
    if (harness_valgrind()) return; /* tens of thousands of new keys */
    memset(&g, 0, sizeof g);
    play_game(&g, peer_asks_for_ever, read_what_comes);
    assert_int_equal(g.read, HEIST_ETLS);
    assert_true(atol(g.peer.heard) < 2000000);
}

static void peer_tampers(struct peer *p, SSL *ssl) {
    unsigned char cipher[4096];
    BIO *mem = BIO_new(BIO_s_mem());
    MUST(mem);
    SSL_set0_wbio(ssl, mem);
    p->wrong += SSL_write(ssl, "trust me", 8) != 8;
    int n = BIO_read(mem, cipher, sizeof cipher);
    cipher[n - 1] ^= 1;
    p->wrong += write(p->fd, cipher, (size_t)n) != n;
    gate_wait(&p->go);
}

static int read_twice(void *arg, void **out) {
    struct game *g = arg;
    (void)out;
    char byte;
    g->read = (int)heist_stream_read(g->s, &byte, 1);
    g->written = heist_stream_write(g->s, "x", 1);
    return 0;
}

static void what_was_tampered_with_is_refused(void **state) {
    (void)state;
    struct game g;
    memset(&g, 0, sizeof g);
    play_game(&g, peer_tampers, read_twice);
    assert_int_equal(g.peer.wrong, 0);
    assert_int_equal(g.read, HEIST_ETLS);
    assert_true(g.written < 0);
}

/* ---- stacks ---- */

/* What reads and writes, opens and closes does so on a small stack: that of the handshake is its own. */
static int on_small_stack(void *arg, void **out) { return game_main(arg, out); }

static int small_main(void *arg, void **out) {
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    heist_task *t;
    (void)out;
    o.stack_bytes = (size_t)32 << 10;
    int err = heist_create_task(on_small_stack, arg, &o, &t);
    if (err) return err;
    err = heist_sleep(0); /* so that it does not run on our stack */
    int other = heist_await(t, NULL);
    heist_unref(t);
    return err ? err : other;
}

static void reading_and_writing_fit_a_stack_of_32_KiB(void **state) {
    (void)state;
    struct game g;
    memset(&g, 0, sizeof g);
    g.peer.play = peer_changes_keys;
    g.ours = echo_lines;
    g.ctx = client_context(NULL);
    assert_int_equal(run_tls(small_main, &g), 0);
    heist_tls_context_unref(g.ctx);
    assert_int_equal(g.greeted, 0);
    assert_int_equal(g.peer.wrong, 0);
    assert_int_equal(g.written, 20);
}

static const struct CMUnitTest tests[] = {
    API_TEST(openssl_s_client_is_served_STRM_40),
    API_TEST(openssl_s_client_that_distrusts_us_goes),
    API_TEST(curl_gets_its_page_STRM_40),
    API_TEST(curl_sees_a_wrong_name),
    API_TEST(openssl_s_server_is_visited_and_its_sessions_are_taken_up_STRM_40),
    API_TEST(keys_change_in_the_middle),
    API_TEST(writes_wait_for_the_rest_of_a_message),
    API_TEST(goodbyes_wait_for_the_rest_of_a_message),
    API_TEST(answers_that_nobody_reads_are_not_kept_without_bound),
    API_TEST(what_was_tampered_with_is_refused),
    API_TEST(reading_and_writing_fit_a_stack_of_32_KiB),
};

int main(void) {
    signal(SIGPIPE, SIG_IGN); /* for the peers on plain threads */
    world_begin();
    files_begin();
    int failed = HARNESS_MAIN("tls_peers", tests);
    files_end();
    world_end();
    return failed;
}
