/* TLS streams, both ends of heist: handshakes and what refuses them, certificates and names, protocols, sessions, the
 * upgrade of a plain stream, ends and their absence, bytes both ways at once, cancelling and deadlines, and running out
 * of memory. */
#include "api/tls_world.h"

#include <fcntl.h>
#include <heist/tls.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

/* ---- greeting and talking ---- */

struct talk {
    struct pair p;
    char heard[2][64];
    char version[16], cipher[64], alpn[32], name[64], subject[128], issuer[128], pem[4096];
    int resumed, other_errors;
    int end;
};

static int answer_line(void *arg, void **out) {
    struct talk *k = arg;
    (void)out;
    int err = read_line(k->p.server.tls, k->heard[0], sizeof k->heard[0]);
    return err ? err : write_text(k->p.server.tls, "pleased to meet you\n");
}

static int talk_once(struct talk *k) {
    heist_task *t;
    int err = heist_create_task(answer_line, k, NULL, &t);
    if (!err) err = write_text(k->p.client.tls, "hello\n");
    if (!err) err = read_line(k->p.client.tls, k->heard[1], sizeof k->heard[1]);
    int other = heist_await(t, NULL);
    heist_unref(t);
    return err ? err : other;
}

static int ask(struct talk *k, int key, char *out, size_t size) {
    return heist_stream_get_extra_info(k->p.client.tls, key, out, size);
}

static int talk_main(void *arg, void **out) {
    struct talk *k = arg;
    (void)out;
    int err = pair_open(&k->p);
    if (!err) err = pair_greet(&k->p);
    if (!err && !k->p.server.err && !k->p.client.err) {
        err = talk_once(k);
        int fd = -1;
        char tiny[2];
        k->other_errors += ask(k, HEIST_TLS_INFO_VERSION, k->version, sizeof k->version) != 0;
        k->other_errors += ask(k, HEIST_TLS_INFO_CIPHER, k->cipher, sizeof k->cipher) != 0;
        k->other_errors += ask(k, HEIST_TLS_INFO_PEER_SUBJECT, k->subject, sizeof k->subject) != 0;
        k->other_errors += ask(k, HEIST_TLS_INFO_PEER_ISSUER, k->issuer, sizeof k->issuer) != 0;
        k->other_errors += ask(k, HEIST_TLS_INFO_PEER_PEM, k->pem, sizeof k->pem) != 0;
        k->other_errors += ask(k, HEIST_TLS_INFO_PEER_SUBJECT, tiny, sizeof tiny) != -ENOBUFS;
        k->other_errors +=
            heist_stream_get_extra_info(k->p.client.tls, HEIST_TLS_INFO_RESUMED, &k->resumed, sizeof k->resumed) != 0;
        k->other_errors +=
            heist_stream_get_extra_info(k->p.client.tls, HEIST_INFO_SOCKET, &fd, sizeof fd) != 0 || fd < 0;
        k->other_errors += heist_stream_get_extra_info(k->p.client.tls, 999, &fd, sizeof fd) != -ENOENT;
        int alpn = ask(k, HEIST_TLS_INFO_ALPN, k->alpn, sizeof k->alpn);
        if (alpn == -ENOENT) snprintf(k->alpn, sizeof k->alpn, "none");
        else k->other_errors += alpn != 0;
        if (heist_stream_get_extra_info(k->p.server.tls, HEIST_TLS_INFO_SERVER_NAME, k->name, sizeof k->name) ==
            -ENOENT)
            snprintf(k->name, sizeof k->name, "none");
    }
    k->end = pair_end(&k->p);
    return err;
}

/* Ends the two contexts too. */
static void talk_run(struct talk *k, heist_tls_context *server, heist_tls_context *client, const char *name) {
    memset(k, 0, sizeof *k);
    pair_init(&k->p, server, client, name);
    int err = run_tls(talk_main, k);
    if (err || k->p.client.err || k->p.server.err)
        print_message("run %s, client %s (%s), server %s (%s)\n", heist_error_name(err),
                      heist_error_name(k->p.client.err), k->p.client.reason, heist_error_name(k->p.server.err),
                      k->p.server.reason);
    assert_int_equal(err, 0);
}
static void talk_and_end(struct talk *k, heist_tls_context *server, heist_tls_context *client, const char *name) {
    assert_non_null(server);
    assert_non_null(client);
    talk_run(k, server, client, name);
    heist_tls_context_unref(server);
    heist_tls_context_unref(client);
}

static void assert_talked(const struct talk *k) {
    assert_int_equal(k->p.client.err, 0);
    assert_int_equal(k->p.server.err, 0);
    assert_string_equal(k->heard[0], "hello");
    assert_string_equal(k->heard[1], "pleased to meet you");
    assert_int_equal(k->other_errors, 0);
    assert_int_equal(k->end, 0);
}

static void lines_go_both_ways_and_the_stream_tells_who_is_there_STRM_40(void **state) {
    (void)state;
    struct talk k;
    heist_tls_options so = HEIST_TLS_OPTIONS_INIT, co = HEIST_TLS_OPTIONS_INIT;
    so.alpn = "other,line/1";
    co.alpn = "line/2,line/1";
    talk_and_end(&k, server_context(&W.good, &so), client_context(&co), "localhost");
    assert_talked(&k);
    assert_string_equal(k.version, "TLSv1.3");
    assert_true(strncmp(k.cipher, "TLS_", 4) == 0);
    assert_string_equal(k.alpn, "line/1");
    assert_string_equal(k.name, "localhost");
    assert_string_equal(k.subject, "CN=localhost");
    assert_string_equal(k.issuer, "CN=test authority");
    assert_string_equal(k.pem, W.good.pem);
    assert_int_equal(k.resumed, 0);
}

static void versions_and_ciphers_are_as_asked(void **state) {
    (void)state;
    struct talk k;
    heist_tls_options so = HEIST_TLS_OPTIONS_INIT, co = HEIST_TLS_OPTIONS_INIT;
    so.max_version = HEIST_TLS_1_2;
    co.ciphers = "ECDHE-ECDSA-CHACHA20-POLY1305";
    talk_and_end(&k, server_context(&W.good, &so), client_context(&co), "localhost");
    assert_talked(&k);
    assert_string_equal(k.version, "TLSv1.2");
    assert_string_equal(k.cipher, "ECDHE-ECDSA-CHACHA20-POLY1305");
    assert_string_equal(k.alpn, "none");
    co = (heist_tls_options)HEIST_TLS_OPTIONS_INIT;
    co.cipher_suites = "TLS_AES_128_GCM_SHA256";
    talk_and_end(&k, server_context(&W.good, NULL), client_context(&co), "localhost");
    assert_talked(&k);
    assert_string_equal(k.cipher, "TLS_AES_128_GCM_SHA256");
    /* Nothing in common. */
    co = (heist_tls_options)HEIST_TLS_OPTIONS_INIT;
    co.min_version = HEIST_TLS_1_3;
    talk_and_end(&k, server_context(&W.good, &so), client_context(&co), "localhost");
    assert_int_equal(k.p.client.err, HEIST_ETLS);
    assert_int_equal(k.p.server.err, HEIST_ETLS);
    assert_non_null(strstr(k.p.server.reason, "protocol"));
    so = (heist_tls_options)HEIST_TLS_OPTIONS_INIT;
    co = so;
    so.alpn = "one";
    co.alpn = "two";
    talk_and_end(&k, server_context(&W.good, &so), client_context(&co), "localhost");
    assert_int_equal(k.p.client.err, HEIST_ETLS);
    assert_non_null(strstr(k.p.client.reason, "no application protocol"));
}

/* ---- whom to believe ---- */

static void refused(const struct cert *c, const char *name, const char *word) {
    struct talk k;
    talk_and_end(&k, server_context(c, NULL), client_context(NULL), name);
    assert_int_equal(k.p.client.err, HEIST_ETLSVERIFY);
    if (!strstr(k.p.client.reason, word)) fail_msg("not '%s' but: %s", word, k.p.client.reason);
    assert_true(k.p.server.err == HEIST_ETLS ||
                k.p.server.err == 0); /* in 1.3 the alert may come behind its handshake */
}

static void certificates_that_do_not_hold_are_refused_with_the_reason_STRM_40(void **state) {
    (void)state;
    refused(&W.expired, "localhost", "expired");
    refused(&W.self_signed, "localhost", "self-signed");
    refused(&W.stranger, "localhost", "unable to get local issuer");
    refused(&W.good, "example.org", "hostname mismatch");
    refused(&W.good, "127.0.0.2", "IP address mismatch");
    refused(&W.other, "a.b.wild.example", "hostname mismatch"); /* a star stands for one label */
}

static void addresses_and_wild_names_are_certified_too(void **state) {
    (void)state;
    struct talk k;
    talk_and_end(&k, server_context(&W.good, NULL), client_context(NULL), "127.0.0.1");
    assert_talked(&k);
    assert_string_equal(k.name, "none"); /* an address is not asked for by name */
    talk_and_end(&k, server_context(&W.other, NULL), client_context(NULL), "shop.wild.example");
    assert_talked(&k);
}

static void what_is_not_checked_was_switched_off(void **state) {
    (void)state;
    struct talk k;
    heist_tls_options co = HEIST_TLS_OPTIONS_INIT;
    co.flags = HEIST_TLS_NO_HOSTNAME_CHECK;
    talk_and_end(&k, server_context(&W.good, NULL), client_context(&co), NULL);
    assert_talked(&k);
    talk_and_end(&k, server_context(&W.good, NULL), client_context(&co), "elsewhere.example");
    assert_talked(&k);
    talk_and_end(&k, server_context(&W.stranger, NULL), client_context(&co), NULL);
    assert_int_equal(k.p.client.err, HEIST_ETLSVERIFY);
    co.flags = 0;
    co.verify = HEIST_TLS_VERIFY_NONE;
    talk_and_end(&k, server_context(&W.expired, NULL), client_context(&co), NULL);
    assert_talked(&k);
    talk_and_end(&k, server_context(&W.good, NULL), client_context(NULL), NULL);
    assert_int_equal(k.p.client.err, -EINVAL); /* whom should it name? */
}

static void servers_ask_for_certificates_of_clients(void **state) {
    (void)state;
    struct talk k;
    heist_tls_options so = HEIST_TLS_OPTIONS_INIT, co = HEIST_TLS_OPTIONS_INIT;
    so.ca_pem = W.ca.pem;
    so.verify = HEIST_TLS_VERIFY_REQUIRED;
    so.max_version = HEIST_TLS_1_2; /* where the client learns of it in the handshake */
    talk_and_end(&k, server_context(&W.good, &so), client_context(NULL), "localhost");
    assert_int_equal(k.p.server.err, HEIST_ETLSVERIFY);
    assert_non_null(strstr(k.p.server.reason, "peer did not return a certificate"));
    assert_int_equal(k.p.client.err, HEIST_ETLS);
    co.cert_pem = W.client.pem;
    co.key_pem = W.client.key_pem;
    so.max_version = 0;
    talk_and_end(&k, server_context(&W.good, &so), client_context(&co), "localhost");
    assert_talked(&k);
    so.verify = HEIST_TLS_VERIFY_OPTIONAL;
    talk_and_end(&k, server_context(&W.good, &so), client_context(NULL), "localhost");
    assert_talked(&k);
    co.cert_pem = W.stranger.pem;
    co.key_pem = W.stranger.key_pem;
    talk_and_end(&k, server_context(&W.good, &so), client_context(&co), "localhost");
    assert_int_equal(k.p.server.err, HEIST_ETLSVERIFY);
}

/* In 1.3 the client has greeted before the server looked: its first read says so. */
static int late_main(void *arg, void **out) {
    struct talk *k = arg;
    char byte;
    (void)out;
    int err = pair_open(&k->p);
    if (!err) err = pair_greet(&k->p);
    if (!err && k->p.client.tls) k->end = (int)heist_stream_read(k->p.client.tls, &byte, 1);
    if (k->p.client.tls) heist_stream_abort(k->p.client.tls);
    (void)pair_end(&k->p);
    return err;
}

static void refused_client_certificate_ends_the_first_read_in_tls_1_3(void **state) {
    (void)state;
    struct talk k;
    heist_tls_options so = HEIST_TLS_OPTIONS_INIT;
    so.ca_pem = W.ca.pem;
    so.verify = HEIST_TLS_VERIFY_REQUIRED;
    heist_tls_context *server = server_context(&W.good, &so), *client = client_context(NULL);
    memset(&k, 0, sizeof k);
    pair_init(&k.p, server, client, "localhost");
    assert_int_equal(run_tls(late_main, &k), 0);
    assert_int_equal(k.p.server.err, HEIST_ETLSVERIFY);
    assert_int_equal(k.p.client.err, 0);
    assert_int_equal(k.end, HEIST_ETLS);
    heist_tls_context_unref(server);
    heist_tls_context_unref(client);
}

/* ---- several names ---- */

static heist_tls_context *by_name(heist_tls_context *ctx, const char *name, void *user) {
    (void)ctx;
    return name && strcmp(name, "asked.wild.example") == 0 ? user : NULL;
}

static void servers_of_several_names_show_the_certificate_asked_for(void **state) {
    (void)state;
    struct talk k;
    heist_tls_options so = HEIST_TLS_OPTIONS_INIT;
    heist_tls_context *other = server_context(&W.other, NULL), *client = client_context(NULL);
    so.sni = by_name;
    so.sni_user = other;
    heist_tls_context *server = server_context(&W.good, &so);
    assert_int_equal(heist_tls_context_add_name(server, "other.example", other), 0);
    assert_int_equal(heist_tls_context_add_name(server, "*.wild.example", other), 0);
    assert_int_equal(heist_tls_context_add_name(server, "Other.Example", other), 0); /* once more */
    static const char *const names[] = {"localhost", "other.example", "shop.wild.example", "asked.wild.example"};
    for (size_t i = 0; i < 4; i++) {
        talk_run(&k, server, client, names[i]);
        assert_talked(&k);
        assert_string_equal(k.name, names[i]);
        assert_string_equal(k.subject, i ? "CN=other" : "CN=localhost");
    }
    assert_int_equal(heist_tls_context_add_name(server, "x", server), -EINVAL);
    assert_int_equal(heist_tls_context_add_name(server, "", other), -EINVAL);
    assert_int_equal(heist_tls_context_add_name(server, "x", client), -EINVAL);
    assert_int_equal(heist_tls_context_add_name(other, "x", server), -EINVAL); /* it has a table */
    heist_tls_context_unref(server);
    heist_tls_context_unref(other);
    heist_tls_context_unref(client);
}

/* ---- sessions ---- */

static void sessions_are_taken_up_again(int version) {
    struct talk k;
    heist_tls_options so = HEIST_TLS_OPTIONS_INIT;
    so.max_version = version;
    heist_tls_context *server = server_context(&W.good, &so), *client = client_context(NULL);
    talk_run(&k, server, client, "localhost");
    assert_talked(&k);
    assert_int_equal(k.resumed, 0);
    assert_true(heist_tls_context_sessions(client) > 0);
    for (int i = 0; i < 3; i++) {
        talk_run(&k, server, client, "localhost");
        assert_talked(&k);
        assert_int_equal(k.resumed, 1);
        assert_string_equal(k.subject, "CN=localhost"); /* a session remembers it */
    }
    talk_run(&k, server, client, "127.0.0.1"); /* another name is another peer, and is verified */
    assert_talked(&k);
    assert_int_equal(k.resumed, 0);
    heist_tls_context_drop_sessions(client);
    assert_int_equal(heist_tls_context_sessions(client), 0);
    talk_run(&k, server, client, "localhost");
    assert_int_equal(k.resumed, 0);
    for (int i = 0; i < 10; i++) talk_run(&k, server, client, "localhost");
    assert_true(heist_tls_context_sessions(client) <= 8); /* four of one peer */
    heist_tls_context_unref(server);
    heist_tls_context_unref(client);
}

static void sessions_are_taken_up_again_in_1_3_STRM_40(void **state) {
    (void)state;
    sessions_are_taken_up_again(HEIST_TLS_1_3);
}
static void sessions_are_taken_up_again_in_1_2(void **state) {
    (void)state;
    sessions_are_taken_up_again(HEIST_TLS_1_2);
}

static void sessions_are_not_kept_when_not_wanted(void **state) {
    (void)state;
    struct talk k;
    heist_tls_options o = HEIST_TLS_OPTIONS_INIT;
    o.flags = HEIST_TLS_NO_RESUMPTION;
    heist_tls_context *server = server_context(&W.good, NULL), *client = client_context(&o);
    for (int i = 0; i < 2; i++) {
        talk_run(&k, server, client, "localhost");
        assert_talked(&k);
        assert_int_equal(k.resumed, 0);
    }
    assert_int_equal(heist_tls_context_sessions(client), 0);
    heist_tls_context_unref(server);
    heist_tls_context_unref(client);
    server = server_context(&W.good, &o);
    client = client_context(NULL);
    for (int i = 0; i < 2; i++) {
        talk_run(&k, server, client, "localhost");
        assert_talked(&k);
        assert_int_equal(k.resumed, 0);
    }
    heist_tls_context_unref(server);
    heist_tls_context_unref(client);
}

/* A session of a name that asks for no certificate opens no door of one that does. */
static void session_of_one_name_is_not_taken_up_by_another(void **state) {
    (void)state;
    struct talk k;
    heist_tls_options strict = HEIST_TLS_OPTIONS_INIT, lax = HEIST_TLS_OPTIONS_INIT;
    strict.ca_pem = W.ca.pem;
    strict.verify = HEIST_TLS_VERIFY_REQUIRED;
    heist_tls_context *guarded = server_context(&W.good, &strict), *open = server_context(&W.other, NULL);
    assert_int_equal(heist_tls_context_add_name(open, "localhost", guarded), 0);
    lax.flags = HEIST_TLS_NO_HOSTNAME_CHECK;
    heist_tls_context *client = client_context(&lax);
    talk_run(&k, open, client, "localhost"); /* none shown */
    assert_int_equal(k.p.server.err, HEIST_ETLSVERIFY);
    talk_run(&k, open, client, "open.wild.example");
    assert_talked(&k);
    assert_true(heist_tls_context_sessions(client) > 0);
    talk_run(&k, open, client, "localhost");
    assert_int_equal(k.p.server.err, HEIST_ETLSVERIFY);
    heist_tls_context_unref(open);
    heist_tls_context_unref(guarded);
    heist_tls_context_unref(client);
}

/* ---- upgrading a plain stream ---- */

struct upgrade {
    struct pair p;
    bool hasty; /* the client greets right behind its request */
    char request[64], said[64], answer[64];
    size_t buffered;
};

/* Until so much lies in the socket that one read takes the request and some of the greeting. */
static int until_much_has_come(heist_stream *s) {
    int fd, there = 0;
    int err = heist_stream_get_extra_info(s, HEIST_INFO_SOCKET, &fd, sizeof fd);
    while (!err && ioctl(fd, FIONREAD, &there) == 0 && there < 100) err = heist_yield();
    return err;
}

static int upgraded_server(void *arg, void **out) {
    struct upgrade *u = arg;
    struct side *s = &u->p.server;
    (void)out;
    int err = u->hasty ? until_much_has_come(s->plain) : 0;
    if (!err) err = read_line(s->plain, u->request, sizeof u->request);
    u->buffered = heist_stream_buffered(s->plain);
    if (!err && !u->hasty) err = heist_stream_write(s->plain, "go ahead\n", 9);
    if (!err) err = heist_tls_wrap(s->plain, s->ctx, &s->opts, &s->tls);
    if (err) return err;
    s->plain = NULL;
    err = read_line(s->tls, u->said, sizeof u->said);
    return err ? err : write_text(s->tls, "safely\n");
}

static int upgrade_main(void *arg, void **out) {
    struct upgrade *u = arg;
    struct side *c = &u->p.client;
    char line[64] = "go ahead";
    heist_task *t;
    (void)out;
    int err = pair_open(&u->p);
    if (!err) err = heist_create_task(upgraded_server, u, NULL, &t);
    if (!err) err = write_text(c->plain, "STARTTLS\n");
    if (!err && !u->hasty) err = read_line(c->plain, line, sizeof line);
    if (!err && strcmp(line, "go ahead") != 0) err = -EPROTO;
    if (!err) err = heist_tls_wrap(c->plain, c->ctx, &c->opts, &c->tls);
    if (err) return err;
    c->plain = NULL;
    err = write_text(c->tls, "a secret\n");
    if (!err) err = read_line(c->tls, u->answer, sizeof u->answer);
    int other = heist_await(t, NULL);
    heist_unref(t);
    if (!err) err = pair_end(&u->p);
    return err ? err : other;
}

static void upgrade(bool hasty) {
    struct upgrade u;
    memset(&u, 0, sizeof u);
    u.hasty = hasty;
    heist_tls_context *server = server_context(&W.good, NULL), *client = client_context(NULL);
    pair_init(&u.p, server, client, "localhost");
    assert_int_equal(run_tls(upgrade_main, &u), 0);
    assert_string_equal(u.request, "STARTTLS");
    assert_string_equal(u.said, "a secret");
    assert_string_equal(u.answer, "safely");
    assert_true(hasty ? u.buffered > 0 : u.buffered == 0);
    heist_tls_context_unref(server);
    heist_tls_context_unref(client);
}

static void plain_stream_becomes_a_tls_stream_STRM_40(void **state) {
    (void)state;
    upgrade(false);
}
static void bytes_read_ahead_belong_to_the_greeting(void **state) {
    (void)state;
    upgrade(true);
}

/* ---- ends, and none ---- */

struct ends {
    struct pair p;
    int what, read, after, waited, task_err;
    char heard[64];
    bool early;
    _Atomic(bool) called;
};

static int greet(struct ends *e) {
    int err = pair_open(&e->p);
    if (!err) err = pair_greet(&e->p);
    return err ? err : e->p.server.err ? e->p.server.err : e->p.client.err;
}

static void run_ends(heist_coro_fn fn, struct ends *e) {
    heist_tls_context *server = server_context(&W.good, NULL), *client = client_context(NULL);
    pair_init(&e->p, server, client, "localhost");
    assert_int_equal(run_tls(fn, e), 0);
    heist_tls_context_unref(server);
    heist_tls_context_unref(client);
}

static int half_close_main(void *arg, void **out) {
    struct ends *e = arg;
    char byte;
    (void)out;
    int err = greet(e);
    if (!err && !heist_stream_can_write_eof(e->p.client.tls)) err = -EPROTO;
    if (!err) err = heist_stream_write(e->p.client.tls, "last words\n", 11);
    if (!err) err = heist_stream_write_eof(e->p.client.tls);
    if (!err) err = read_line(e->p.server.tls, e->heard, sizeof e->heard);
    if (!err) e->read = (int)heist_stream_read(e->p.server.tls, &byte, 1);
    if (!err) err = write_text(e->p.server.tls, "!");
    if (!err) e->after = (int)heist_stream_read(e->p.client.tls, &byte, 1);
    if (!err) err = pair_end(&e->p);
    return err;
}

static void write_eof_says_goodbye_and_reading_goes_on(void **state) {
    (void)state;
    struct ends e = {.read = 7, .after = 7};
    run_ends(half_close_main, &e);
    assert_string_equal(e.heard, "last words");
    assert_int_equal(e.read, 0);
    assert_int_equal(e.after, 1);
}

/* The peer's last bytes arrive, then its stream is cut off or closed in order. */
static int cut_main(void *arg, void **out) {
    struct ends *e = arg;
    char byte;
    (void)out;
    int err = greet(e);
    /* What a socket holds unread when it is closed resets it: the server's tickets are read first. */
    if (!err) err = write_text(e->p.server.tls, "first words\n");
    if (!err) err = read_line(e->p.client.tls, e->heard, sizeof e->heard);
    if (!err) err = write_text(e->p.client.tls, "last words\n");
    if (!err) err = read_line(e->p.server.tls, e->heard, sizeof e->heard);
    if (e->what) heist_stream_close(e->p.client.tls);
    else heist_stream_abort(e->p.client.tls);
    if (!err) e->read = (int)heist_stream_read(e->p.server.tls, &byte, 1);
    if (!err) e->after = (int)heist_stream_read(e->p.server.tls, &byte, 1);
    heist_stream_close(e->p.server.tls);
    if (!err) e->waited = heist_stream_wait_closed(e->p.client.tls);
    (void)pair_end(&e->p);
    return err;
}

static void stream_that_is_cut_off_is_told_from_one_that_ended_STRM_40(void **state) {
    (void)state;
    struct ends cut = {.what = 0}, closed = {.what = 1, .read = 7};
    run_ends(cut_main, &cut);
    assert_string_equal(cut.heard, "last words");
    assert_int_equal(cut.read, HEIST_ETRUNCATED);
    assert_int_equal(cut.after, HEIST_ETRUNCATED); /* for good */
    run_ends(cut_main, &closed);
    assert_int_equal(closed.read, 0);
    assert_int_equal(closed.after, 0);
    assert_int_equal(closed.waited, 0);
}

/* The peer never says goodbye: the close gives up in time. */
static int stubborn_main(void *arg, void **out) {
    struct ends *e = arg;
    (void)out;
    e->p.client.opts.shutdown_timeout = 0.02;
    int err = greet(e);
    heist_stream_close(e->p.client.tls);
    e->waited = heist_stream_wait_closed(e->p.client.tls);
    heist_stream_abort(e->p.server.tls);
    (void)pair_end(&e->p);
    return err;
}

static void close_waits_no_longer_than_shutdown_timeout(void **state) {
    (void)state;
    struct ends e = {0};
    run_ends(stubborn_main, &e);
    assert_int_equal(e.waited, -ETIMEDOUT);
}

static int dropped_main(void *arg, void **out) {
    struct ends *e = arg;
    (void)out;
    int err = greet(e);
    heist_stream_abort(e->p.client.tls);
    heist_stream_abort(e->p.server.tls);
    char byte;
    e->read = (int)heist_stream_read(e->p.client.tls, &byte, 1);
    e->after = heist_stream_write(e->p.client.tls, "x", 1);
    (void)pair_end(&e->p);
    return err;
}

static void aborted_stream_is_closed_for_everybody(void **state) {
    (void)state;
    struct ends e = {0};
    run_ends(dropped_main, &e);
    assert_int_equal(e.read, HEIST_ECLOSED);
    assert_int_equal(e.after, HEIST_ECLOSED);
}

/* The descriptor is closed when wait_closed says so, also while the stream below still has somebody inside. */
static int read_until_cut(void *arg, void **out) {
    char buf[4096];
    ptrdiff_t n;
    (void)out;
    while ((n = heist_stream_read(arg, buf, sizeof buf)) > 0) {}
    return 0;
}

static int abort_main(void *arg, void **out) {
    struct ends *e = arg;
    static const char much[400000];
    (void)out;
    for (int i = 0; i < 40; i++) {
        heist_task *reader, *closer;
        int fd = -1, err = greet(e);
        heist_stream *tls = e->p.client.tls;
        if (!err) err = heist_stream_get_extra_info(tls, HEIST_INFO_SOCKET, &fd, sizeof fd);
        if (!err) err = heist_create_task(read_until_cut, tls, NULL, &reader);
        if (!err) err = heist_stream_write(tls, much, sizeof much); /* more than the socket holds: a task sends it */
        for (int k = 0; k < i % 8; k++) (void)heist_yield();
        if (!err) err = heist_create_task(read_until_cut, e->p.server.tls, NULL, &closer);
        if (err) return err;
        heist_stream_abort(tls);
        (void)heist_stream_wait_closed(tls);
        e->after += fcntl(fd, F_GETFD) >= 0;
        heist_stream_abort(e->p.server.tls);
        (void)heist_await(reader, NULL);
        (void)heist_await(closer, NULL);
        heist_unref(reader);
        heist_unref(closer);
        (void)pair_end(&e->p);
    }
    return 0;
}

static void aborted_stream_is_closed_when_wait_closed_returns(void **state) {
    (void)state;
    struct ends e = {.after = 0};
    run_ends(abort_main, &e);
    assert_int_equal(e.after, 0);
}

/* ---- peers that do not speak TLS ---- */

static int bad_peer_main(void *arg, void **out) {
    struct ends *e = arg;
    struct side *s = e->early ? &e->p.server : &e->p.client;
    heist_stream **peer = e->early ? &e->p.client.plain : &e->p.server.plain;
    (void)out;
    int err = pair_open(&e->p);
    if (err) return err;
    if (e->what == 1) err = write_text(*peer, "HTTP/1.1 400 what do you want?\r\n\r\n");
    if (e->what == 2) (void)stream_end(peer);
    s->opts.handshake_timeout = e->what == 0 ? 0.02 : 60;
    heist_stream *same = s->tls;
    e->read = heist_tls_wrap(s->plain, s->ctx, &s->opts, &s->tls);
    e->after = s->tls == same;
    (void)pair_end(&e->p);
    return err;
}

static void silent_garbling_and_vanishing_peers_end_the_handshake_STRM_40(void **state) {
    (void)state;
    static const int wanted[] = {-ETIMEDOUT, HEIST_ETLS, -ECONNRESET};
    for (int what = 0; what < 3; what++)
        for (int server = 0; server < 2; server++) {
            struct ends e = {.what = what, .early = server};
            run_ends(bad_peer_main, &e);
            if (e.read != wanted[what])
                fail_msg("%d as %s: %s", what, server ? "server" : "client", heist_error_name(e.read));
            assert_int_equal(e.after, 1); /* the out-parameter is as it was */
        }
}

/* ---- both ways at once ---- */

#define BULK ((size_t)10 << 20)

static unsigned char pattern(size_t i, int way) { return (unsigned char)(i * 7 + i / 251 + (size_t)way * 113); }

struct way {
    heist_stream *s;
    int number;
    size_t bytes, got, wrong;
    int err;
};

static int send_all(void *arg, void **out) {
    struct way *w = arg;
    unsigned char block[30011];
    (void)out;
    for (size_t at = 0; at < w->bytes && !w->err;) {
        size_t n = w->bytes - at < sizeof block ? w->bytes - at : sizeof block;
        for (size_t i = 0; i < n; i++) block[i] = pattern(at + i, w->number);
        w->err = heist_stream_write(w->s, block, n);
        if (!w->err) w->err = heist_stream_drain(w->s);
        at += n;
    }
    if (!w->err) w->err = heist_stream_write_eof(w->s);
    return 0;
}

static int receive_all(void *arg, void **out) {
    struct way *w = arg;
    unsigned char block[20000];
    (void)out;
    for (;;) {
        ptrdiff_t n = heist_stream_read(w->s, block, sizeof block);
        if (n <= 0) {
            w->err = (int)n;
            return 0;
        }
        for (ptrdiff_t i = 0; i < n; i++) w->wrong += block[i] != pattern(w->got + (size_t)i, w->number);
        w->got += (size_t)n;
    }
}

struct bulk {
    struct pair p;
    struct way way[4];
};

static int bulk_main(void *arg, void **out) {
    struct bulk *b = arg;
    heist_task *t[4];
    (void)out;
    int err = pair_open(&b->p);
    if (!err) err = pair_greet(&b->p);
    if (err) return err;
    size_t bytes = harness_instrumented() ? BULK / 8 : BULK;
    for (int i = 0; i < 4 && !err; i++) {
        b->way[i] = (struct way){i < 2 ? b->p.client.tls : b->p.server.tls, i == 0 || i == 3, bytes, 0, 0, 0};
        err = heist_create_task(i % 2 ? receive_all : send_all, &b->way[i], NULL, &t[i]);
    }
    if (!err) err = heist_gather(t, 4, NULL, 0);
    for (int i = 0; i < 4; i++) heist_unref(t[i]);
    int end = pair_end(&b->p);
    return err ? err : end;
}

static void ten_megabytes_each_way_at_once_arrive_STRM_40(void **state) {
    (void)state;
    struct bulk b;
    memset(&b, 0, sizeof b);
    heist_tls_context *server = server_context(&W.good, NULL), *client = client_context(NULL);
    pair_init(&b.p, server, client, "localhost");
    assert_int_equal(run_tls(bulk_main, &b), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(b.way[i].err, 0);
        assert_int_equal(b.way[i].wrong, 0);
        if (i % 2) assert_int_equal(b.way[i].got, b.way[i].bytes);
    }
    heist_tls_context_unref(server);
    heist_tls_context_unref(client);
}

/* Many small pieces in one call are put together. */
static int pieces_main(void *arg, void **out) {
    struct ends *e = arg;
    struct iovec iov[64];
    char text[64][17], back[1 + 64 * 16];
    size_t got = 0;
    (void)out;
    int err = greet(e);
    for (int i = 0; i < 64; i++) {
        snprintf(text[i], sizeof text[i], "%016d", i);
        iov[i] = (struct iovec){text[i], i % 5 ? 16 : 0};
    }
    if (!err) err = heist_stream_writelines(e->p.client.tls, iov, 64);
    if (!err) err = heist_stream_write_eof(e->p.client.tls);
    while (!err && got < sizeof back) {
        ptrdiff_t n = heist_stream_read(e->p.server.tls, back + got, sizeof back - got);
        if (n <= 0) {
            err = (int)n;
            break;
        }
        got += (size_t)n;
    }
    e->read = (int)got;
    for (int i = 0, at = 0; i < 64; i++) {
        if (i % 5 == 0) continue;
        e->what += memcmp(back + at, text[i], 16) != 0;
        at += 16;
    }
    int end = pair_end(&e->p);
    return err ? err : end;
}

static void gathered_writes_arrive_in_order(void **state) {
    (void)state;
    struct ends e = {0};
    run_ends(pieces_main, &e);
    assert_int_equal(e.read, 51 * 16);
    assert_int_equal(e.what, 0);
}

/* ---- giving up ---- */

static int greet_for_ever(void *arg, void **out) {
    struct ends *e = arg;
    (void)out;
    return heist_tls_wrap(e->p.client.plain, e->p.client.ctx, &e->p.client.opts, &e->p.client.tls);
}

static int until_bytes(heist_stream *s) {
    int fd, there = 0;
    int err = heist_stream_get_extra_info(s, HEIST_INFO_SOCKET, &fd, sizeof fd);
    while (!err && ioctl(fd, FIONREAD, &there) == 0 && there == 0) err = heist_yield();
    return err;
}

static int cancel_greeting_main(void *arg, void **out) {
    struct ends *e = arg;
    heist_task *t;
    (void)out;
    int err = pair_open(&e->p);
    if (!err) err = heist_create_task(greet_for_ever, e, NULL, &t);
    if (!err) err = until_bytes(e->p.server.plain); /* it has greeted, and waits */
    if (err) return err;
    heist_cancel(t);
    e->task_err = heist_await_until(t, HEIST_FOREVER, NULL);
    heist_unref(t);
    e->early = e->p.client.tls == NULL;
    (void)pair_end(&e->p);
    return 0;
}

static void cancelled_handshake_leaves_the_plain_stream_with_its_owner(void **state) {
    (void)state;
    struct ends e = {0};
    run_ends(cancel_greeting_main, &e);
    assert_int_equal(e.task_err, -ECANCELED);
    assert_true(e.early);
}

static int read_one(void *arg, void **out) {
    struct ends *e = arg;
    char byte;
    (void)out;
    do e->read = (int)heist_stream_read(e->p.server.tls, &byte, 1);
    while (e->read == -EBUSY && heist_yield() == 0); /* it met a probe */
    return e->read < 0 ? e->read : 0;
}

static int cancel_read_main(void *arg, void **out) {
    struct ends *e = arg;
    heist_task *t;
    (void)out;
    int err = greet(e);
    e->read = 7;
    if (!err) err = heist_create_task(read_one, e, NULL, &t);
    if (err) return err;
    for (int i = 0; i < 50; i++)
        if ((err = heist_yield()) != 0) return err;
    heist_cancel(t);
    e->task_err = heist_await_until(t, HEIST_FOREVER, NULL);
    heist_unref(t);
    err = write_text(e->p.client.tls, "hello\n");
    if (!err) err = read_line(e->p.server.tls, e->heard, sizeof e->heard);
    if (!err) e->waited = heist_stream_set_read_deadline(e->p.server.tls, heist_time() + 0.01);
    char byte;
    if (!err) e->after = (int)heist_stream_read(e->p.server.tls, &byte, 1);
    if (!err) err = heist_stream_set_read_deadline(e->p.server.tls, HEIST_FOREVER);
    if (!err) err = write_text(e->p.client.tls, "again\n");
    if (!err) err = read_line(e->p.server.tls, e->heard, sizeof e->heard);
    if (!err) err = pair_end(&e->p);
    return err;
}

static void cancelled_and_late_reads_took_nothing(void **state) {
    (void)state;
    struct ends e = {0};
    run_ends(cancel_read_main, &e);
    assert_int_equal(e.task_err, -ECANCELED);
    assert_int_equal(e.after, -ETIMEDOUT);
    assert_string_equal(e.heard, "again");
}

static int close_reader_main(void *arg, void **out) {
    struct ends *e = arg;
    heist_task *t;
    (void)out;
    int err = greet(e);
    if (!err) err = heist_create_task(read_one, e, NULL, &t);
    if (!err && harness_workers() > 1) err = heist_yield();
    for (int i = 0; i < 50 && !err; i++) err = heist_yield();
    if (err) return err;
    heist_stream_close(e->p.server.tls);
    e->task_err = heist_await_until(t, HEIST_FOREVER, NULL);
    heist_unref(t);
    return pair_end(&e->p);
}

static void close_lets_the_reader_go(void **state) {
    (void)state;
    struct ends e = {0};
    run_ends(close_reader_main, &e);
    assert_int_equal(e.task_err, HEIST_ECLOSED);
}

/* The peer reads nothing: what drain says, and that all arrives in the end. */
#define BEYOND_BUFFERS ((size_t)4 << 20)

static int drain_one(void *arg, void **out) {
    struct ends *e = arg;
    (void)out;
    return heist_stream_drain(e->p.client.tls);
}

static int cancel_drain(struct ends *e) {
    heist_task *t;
    int err = heist_create_task(drain_one, e, NULL, &t);
    for (int i = 0; i < 50 && !err; i++) err = heist_yield();
    if (err) return err;
    heist_cancel(t);
    e->task_err = heist_await_until(t, HEIST_FOREVER, NULL);
    heist_unref(t);
    return 0;
}

static int slow_peer_main(void *arg, void **out) {
    struct ends *e = arg;
    struct way in = {.number = 1};
    heist_task *t;
    (void)out;
    int err = greet(e);
    unsigned char *data = malloc(BEYOND_BUFFERS);
    if (!data) return -ENOMEM;
    for (size_t i = 0; i < BEYOND_BUFFERS; i++) data[i] = pattern(i, 1);
    if (!err) err = heist_stream_write(e->p.client.tls, data, BEYOND_BUFFERS);
    free(data);
    if (!err) err = cancel_drain(e);
    if (!err) err = heist_stream_set_write_deadline(e->p.client.tls, heist_time() + 0.01);
    e->waited = heist_stream_drain(e->p.client.tls);
    if (!err) err = heist_stream_set_write_deadline(e->p.client.tls, HEIST_FOREVER);
    in.s = e->p.server.tls;
    if (!err) err = heist_create_task(receive_all, &in, NULL, &t);
    if (err) return err;
    e->after = heist_stream_drain(e->p.client.tls);
    if (!err) err = heist_stream_write_eof(e->p.client.tls);
    if (!err) err = heist_await(t, NULL);
    heist_unref(t);
    e->read = in.err ? in.err : (int)(in.got == BEYOND_BUFFERS && in.wrong == 0);
    int end = pair_end(&e->p);
    return err ? err : end;
}

static void drain_that_was_given_up_has_lost_nothing(void **state) {
    (void)state;
    struct ends e = {0};
    run_ends(slow_peer_main, &e);
    assert_int_equal(e.task_err, -ECANCELED);
    assert_int_equal(e.waited, -ETIMEDOUT);
    assert_int_equal(e.after, 0);
    assert_int_equal(e.read, 1);
}

/* ---- from the wrong place, and wrongly ---- */

static int call_from_callback(void *arg) {
    struct ends *e = arg;
    e->after = heist_tls_wrap(e->p.client.plain, e->p.client.ctx, &e->p.client.opts, &e->p.client.tls);
    e->called = true;
    return 0;
}

static int misuse_main(void *arg, void **out) {
    struct ends *e = arg;
    heist_tls_stream_options o = HEIST_TLS_STREAM_OPTIONS_INIT;
    heist_stream *s = NULL;
    heist_handle *h;
    heist_loop *loop;
    (void)out;
    int err = pair_open(&e->p);
    if (!err) err = heist_get_running_loop(&loop);
    if (!err) err = heist_loop_call_soon(loop, call_from_callback, e, NULL, &h);
    if (err) return err;
    while (!err && !e->called) err = heist_sleep(0.001);
    heist_handle_unref(h);
    o.server_hostname = "localhost";
    e->what += heist_tls_wrap(NULL, e->p.client.ctx, &o, &s) != -EINVAL;
    e->what += heist_tls_wrap(e->p.client.plain, NULL, &o, &s) != -EINVAL;
    e->what += heist_tls_wrap(e->p.client.plain, e->p.client.ctx, &o, NULL) != -EINVAL;
    e->what += heist_tls_wrap(e->p.client.plain, e->p.client.ctx, NULL, &s) != -EINVAL; /* whom? */
    e->what += heist_tls_wrap(e->p.server.plain, e->p.server.ctx, &o, &s) != -EINVAL;   /* a name of a client's */
    o.server_hostname = "";
    e->what += heist_tls_wrap(e->p.client.plain, e->p.client.ctx, &o, &s) != -EINVAL;
    o.server_hostname = "localhost";
    o.handshake_timeout = -1;
    e->what += heist_tls_wrap(e->p.client.plain, e->p.client.ctx, &o, &s) != -EINVAL;
    o.handshake_timeout = 0;
    o.flags = 1;
    e->what += heist_tls_wrap(e->p.client.plain, e->p.client.ctx, &o, &s) != -EINVAL;
    o.flags = 0;
    o.stack_bytes = 1;
    e->what += heist_tls_wrap(e->p.client.plain, e->p.client.ctx, &o, &s) != -EINVAL;
    e->what += heist_open_tls_connection("localhost", "1", e->p.server.ctx, NULL, NULL, &s) != -EINVAL;
    e->what += s != NULL;
    (void)pair_end(&e->p);
    return err;
}

static void misuse_is_refused(void **state) {
    (void)state;
    struct ends e = {0};
    run_ends(misuse_main, &e);
    assert_int_equal(e.after, HEIST_ENOTINCORO);
    assert_int_equal(e.what, 0);
}

static int fork_main(void *arg, void **out) {
    struct ends *e = arg;
    heist_stream *s = NULL;
    char text[32];
    (void)out;
    int err = greet(e);
    if (err) return err;
    int answer[2];
    char said = 0;
    if (pipe2(answer, O_CLOEXEC) < 0) return -errno;
    pid_t child = fork();
    if (child == 0) {
        int good =
            heist_tls_wrap(e->p.client.tls, e->p.client.ctx, &e->p.client.opts, &s) == HEIST_EFORKED &&
            heist_stream_get_extra_info(e->p.client.tls, HEIST_TLS_INFO_VERSION, text, sizeof text) == HEIST_EFORKED &&
            heist_stream_write(e->p.client.tls, "x", 1) == HEIST_EFORKED && s == NULL;
        (void)!write(answer[1], good ? "y" : "n", 1);
        _exit(0); /* without unwinding: memcheck has a view of its own on the status */
    }
    close(answer[1]);
    if (read(answer[0], &said, 1) != 1) said = '?';
    close(answer[0]);
    e->what = said == 'y';
    while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR) {
    }
    err = write_text(e->p.client.tls, "still here\n");
    if (!err) err = read_line(e->p.server.tls, e->heard, sizeof e->heard);
    int end = pair_end(&e->p);
    return err ? err : end;
}

static void forked_child_gets_a_code_and_the_parent_goes_on(void **state) {
    (void)state;
    struct ends e = {0};
    run_ends(fork_main, &e);
    assert_int_equal(e.what, 1);
    assert_string_equal(e.heard, "still here");
}

static int bad_context(const heist_tls_options *o, bool server) {
    heist_tls_context *ctx = NULL;
    int err = server ? heist_tls_context_new_server(o, &ctx) : heist_tls_context_new_client(o, &ctx);
    assert_null(ctx);
    return err;
}

static void contexts_say_what_is_wrong_with_them(void **state) {
    (void)state;
    heist_tls_options o = HEIST_TLS_OPTIONS_INIT;
    assert_int_equal(bad_context(NULL, true), -EINVAL); /* no certificate */
    o.cert_file = "/nowhere/cert.pem";
    assert_int_equal(bad_context(&o, true), -ENOENT);
    assert_true(strlen(heist_tls_reason()) > 0);
    o.cert_file = NULL;
    o.cert_pem = "this is no certificate";
    assert_int_equal(bad_context(&o, true), HEIST_ETLS);
    o.cert_pem = W.good.pem;
    o.key_pem = W.other.key_pem;
    assert_int_equal(bad_context(&o, true), HEIST_ETLS);
    assert_non_null(strstr(heist_tls_reason(), "mismatch"));
    o.key_pem = NULL; /* it is not in the certificate's text either */
    assert_int_equal(bad_context(&o, true), HEIST_ETLS);
    o.cert_pem = NULL;
    o.key_pem = W.good.key_pem;
    assert_int_equal(bad_context(&o, false), -EINVAL);
    o.key_pem = NULL;
    o.ca_file = "/nowhere/ca.pem";
    assert_int_equal(bad_context(&o, false), -ENOENT);
    o.ca_file = NULL;
    o.ca_pem = "";
    assert_int_equal(bad_context(&o, false), HEIST_ETLS);
    o.ca_pem = W.ca.pem;
    o.ciphers = "NO-SUCH-CIPHER";
    assert_int_equal(bad_context(&o, false), HEIST_ETLS);
    o.ciphers = NULL;
    o.min_version = 0x0301;
    assert_int_equal(bad_context(&o, false), -EINVAL);
    o.min_version = HEIST_TLS_1_3;
    o.max_version = HEIST_TLS_1_2;
    assert_int_equal(bad_context(&o, false), -EINVAL);
    o.min_version = o.max_version = 0;
    o.alpn = "a,,b";
    assert_int_equal(bad_context(&o, false), -EINVAL);
    o.alpn = NULL;
    o.verify = 9;
    assert_int_equal(bad_context(&o, false), -EINVAL);
    o.verify = HEIST_TLS_VERIFY_OPTIONAL; /* a server's */
    assert_int_equal(bad_context(&o, false), -EINVAL);
    o.verify = 0;
    o.flags = 0x80000000u;
    assert_int_equal(bad_context(&o, false), -EINVAL);
    assert_int_equal(heist_tls_context_new_client(NULL, NULL), -EINVAL);
    heist_tls_context_unref(NULL);
    assert_null(heist_tls_context_ref(NULL));
}

static void locked_keys_open_with_their_password_and_nobody_is_asked(void **state) {
    (void)state;
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(
        PEM_write_bio_PrivateKey(bio, W.good.key, EVP_aes_128_cbc(), NULL, 0, NULL, (void *)(uintptr_t) "sesame"), 1);
    char *locked = text_of(bio);
    heist_tls_options o = HEIST_TLS_OPTIONS_INIT;
    heist_tls_context *ctx = NULL;
    o.cert_pem = W.good.pem;
    o.key_pem = locked;
    assert_true(bad_context(&o, true) < 0);
    o.key_password = "mellon";
    assert_true(bad_context(&o, true) < 0);
    o.key_password = "sesame";
    assert_int_equal(heist_tls_context_new_server(&o, &ctx), 0);
    heist_tls_context_unref(ctx);
    free(locked);
}

/* ---- out of memory ---- */

static int nomem_main(void *arg, void **out) {
    struct ends *e = arg;
    (void)out;
    int err = pair_open(&e->p);
    if (err) return err;
    heist_task *t;
    err = heist_create_task(side_greets, &e->p.server, NULL, &t);
    if (err) return err;
    harness_fail_allocation(e->what, false);
    e->read = heist_tls_wrap(e->p.client.plain, e->p.client.ctx, &e->p.client.opts, &e->p.client.tls);
    harness_fail_allocation(0, false);
    if (e->read) heist_stream_abort(e->p.client.plain);
    else e->p.client.plain = NULL;
    err = heist_await(t, NULL);
    heist_unref(t);
    (void)pair_end(&e->p);
    return err;
}

static void wrap_without_memory_is_a_code_and_leaves_nothing(void **state) {
    (void)state;
    int failures = 0, n = 1;
    for (; n < 500; n++) {
        struct ends e = {.what = n};
        run_ends(nomem_main, &e);
        if (e.read == 0 && e.p.server.err == 0) break;
        failures++;
        /* The allocation that failed may have been the other end's. */
        assert_true(e.read == -ENOMEM || e.read == -ECONNRESET || e.p.server.err == -ENOMEM ||
                    e.p.server.err == -ECONNRESET);
    }
    assert_true(failures > 0 && n < 500);
}

/* ---- many ---- */

enum { CLIENTS = 24 };

struct crowd {
    heist_listener *listener;
    heist_addr addr;
    heist_tls_context *server, *client;
    _Atomic(int) served, wrong;
    int rounds;
};

struct guest {
    struct crowd *crowd;
    heist_conn *conn;
};

static int serve_guest(void *arg, void **out) {
    struct guest *g = arg;
    heist_stream *plain = NULL, *s = NULL;
    (void)out;
    int err = heist_stream_from_conn(g->conn, NULL, &plain);
    if (err) heist_conn_close(g->conn);
    if (!err) err = heist_tls_wrap(plain, g->crowd->server, NULL, &s);
    if (err) {
        (void)stream_end(&plain);
    } else {
        char *line;
        ptrdiff_t n;
        while (!err && (n = heist_stream_readline(s, &line)) != 0)
            err = n < 0 ? (int)n : heist_stream_write(s, line, (size_t)n);
        int end = stream_end(&s);
        if (!err) err = end;
    }
    if (err) g->crowd->wrong++;
    g->crowd->served++;
    free(g);
    return 0;
}

static int accept_guests(void *arg, void **out) {
    struct crowd *c = arg;
    (void)out;
    for (;;) {
        heist_conn *conn;
        int err = heist_accept(c->listener, HEIST_FOREVER, &conn);
        if (err == HEIST_ECLOSED) return 0;
        if (err) return err;
        struct guest *g = malloc(sizeof *g);
        if (!g) abort();
        *g = (struct guest){c, conn};
        err = heist_create_task(serve_guest, g, NULL, NULL);
        if (err) return err;
    }
}

static int visit(void *arg, void **out) {
    struct crowd *c = arg;
    heist_stream *plain = NULL, *s = NULL;
    heist_conn *conn;
    heist_tls_stream_options o = HEIST_TLS_STREAM_OPTIONS_INIT;
    (void)out;
    o.server_hostname = "localhost";
    int err = heist_connect(&c->addr, heist_time() + 60, &conn);
    if (err) return err;
    err = heist_stream_from_conn(conn, NULL, &plain);
    if (err) return err;
    err = heist_tls_wrap(plain, c->client, &o, &s);
    for (int i = 0; i < c->rounds && !err; i++) {
        char text[64], back[64];
        snprintf(text, sizeof text, "line %d\n", i);
        err = write_text(s, text);
        if (!err) err = read_line(s, back, sizeof back);
        if (!err && (strlen(back) + 1 != strlen(text) || strncmp(back, text, strlen(back)) != 0)) err = -EPROTO;
    }
    int end = s ? stream_end(&s) : stream_end(&plain);
    return err ? err : end;
}

static int crowd_main(void *arg, void **out) {
    struct crowd *c = arg;
    heist_task *guests[CLIENTS], *acceptor;
    (void)out;
    int err = heist_addr_parse("127.0.0.1:0", &c->addr);
    if (!err) err = heist_listen(&c->addr, NULL, &c->listener);
    if (!err) err = heist_listener_addr(c->listener, &c->addr);
    if (!err) err = heist_create_task(accept_guests, c, NULL, &acceptor);
    for (int i = 0; i < CLIENTS && !err; i++) err = heist_create_task(visit, c, NULL, &guests[i]);
    if (err) return err;
    err = heist_gather(guests, CLIENTS, NULL, 0);
    for (int i = 0; i < CLIENTS; i++) heist_unref(guests[i]);
    heist_listener_close(c->listener);
    int other = heist_await(acceptor, NULL);
    heist_unref(acceptor);
    while (c->served < CLIENTS && !err) err = heist_sleep(0.001);
    return err ? err : other;
}

static void many_connections_share_two_contexts(void **state) {
    (void)state;
    struct crowd c = {.rounds = 20};
    c.server = server_context(&W.good, NULL);
    c.client = client_context(NULL);
    assert_int_equal(run_tls(crowd_main, &c), 0);
    assert_int_equal(c.wrong, 0);
    assert_int_equal(c.served, CLIENTS);
    heist_tls_context_unref(c.server);
    heist_tls_context_unref(c.client);
}

/* ---- servers ---- */

struct served {
    heist_tls_context *server, *client;
    _Atomic(int) greeted;
    char heard[64];
    int refused, misused;
};

static int greet_guest(heist_stream *s, void *user) {
    struct served *d = user;
    char line[64];
    d->greeted++;
    int err = read_line(s, line, sizeof line);
    if (!err) err = heist_stream_write(s, line, strlen(line));
    return err ? err : heist_stream_write(s, " indeed\n", 8);
}

static int visit_server(struct served *d, const char *port, const char *name, char *heard, size_t size) {
    heist_tls_stream_options o = HEIST_TLS_STREAM_OPTIONS_INIT;
    heist_stream *s;
    o.server_hostname = name;
    int err = heist_open_tls_connection("127.0.0.1", port, d->client, NULL, &o, &s);
    if (err) return err;
    err = write_text(s, "good morning\n");
    if (!err) err = read_line(s, heard, size);
    int end = stream_end(&s);
    return err ? err : end;
}

static int served_main(void *arg, void **out) {
    struct served *d = arg;
    heist_server *server = NULL;
    heist_addr addr;
    char text[64], line[64];
    heist_tls_stream_options o = HEIST_TLS_STREAM_OPTIONS_INIT;
    (void)out;
    d->misused += heist_start_tls_server(greet_guest, d, "127.0.0.1", "0", d->client, NULL, NULL, &server) != -EINVAL;
    d->misused += heist_start_tls_server(greet_guest, d, "127.0.0.1", "0", NULL, NULL, NULL, &server) != -EINVAL;
    o.server_hostname = "localhost";
    d->misused += heist_start_tls_server(greet_guest, d, "127.0.0.1", "0", d->server, &o, NULL, &server) != -EINVAL;
    d->misused += heist_start_tls_server(NULL, d, "127.0.0.1", "0", d->server, NULL, NULL, &server) != -EINVAL;
    o.server_hostname = NULL;
    o.handshake_timeout = 30;
    int err = heist_start_tls_server(greet_guest, d, "127.0.0.1", "0", d->server, &o, NULL, &server);
    if (!err && heist_server_sockets(server, &addr, 1) != 1) err = -EPROTO;
    if (err) return err;
    heist_addr_format(&addr, text, sizeof text);
    const char *port = strrchr(text, ':') + 1;
    err = visit_server(d, port, NULL, d->heard, sizeof d->heard); /* its name: the address */
    d->refused = visit_server(d, port, "elsewhere.example", line, sizeof line);
    heist_server_close(server);
    int end = heist_server_wait_closed(server);
    heist_server_unref(server);
    return err ? err : end;
}

static void note_code(heist_loop *loop, const heist_report *report, void *user) {
    (void)loop;
    struct record *r = user;
    record_add(r, "%s", report->code == HEIST_ETLS ? "refused" : report->message);
}

static void servers_greet_before_their_handlers_run_STRM_40(void **state) {
    (void)state;
    struct record reports = RECORD_INIT;
    struct served d = {.server = server_context(&W.good, NULL), .client = client_context(NULL)};
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = harness_workers();
    opts.exception_handler = note_code;
    opts.exception_user = &reports;
    assert_int_equal(heist_run(served_main, &d, &opts, NULL), 0);
    assert_string_equal(d.heard, "good morning indeed");
    assert_int_equal(d.refused, HEIST_ETLSVERIFY);
    assert_int_equal(d.misused, 0);
    assert_true(d.greeted >= 1);
    assert_true(record_words(&reports) <= 1); /* of the one who went away */
    heist_tls_context_unref(d.server);
    heist_tls_context_unref(d.client);
}

static const struct CMUnitTest tests[] = {
    API_TEST(servers_greet_before_their_handlers_run_STRM_40),
    API_TEST(lines_go_both_ways_and_the_stream_tells_who_is_there_STRM_40),
    API_TEST(versions_and_ciphers_are_as_asked),
    API_TEST(certificates_that_do_not_hold_are_refused_with_the_reason_STRM_40),
    API_TEST(addresses_and_wild_names_are_certified_too),
    API_TEST(what_is_not_checked_was_switched_off),
    API_TEST(servers_ask_for_certificates_of_clients),
    API_TEST(refused_client_certificate_ends_the_first_read_in_tls_1_3),
    API_TEST(servers_of_several_names_show_the_certificate_asked_for),
    API_TEST(sessions_are_taken_up_again_in_1_3_STRM_40),
    API_TEST(sessions_are_taken_up_again_in_1_2),
    API_TEST(sessions_are_not_kept_when_not_wanted),
    API_TEST(session_of_one_name_is_not_taken_up_by_another),
    API_TEST(plain_stream_becomes_a_tls_stream_STRM_40),
    API_TEST(bytes_read_ahead_belong_to_the_greeting),
    API_TEST(write_eof_says_goodbye_and_reading_goes_on),
    API_TEST(stream_that_is_cut_off_is_told_from_one_that_ended_STRM_40),
    API_TEST(close_waits_no_longer_than_shutdown_timeout),
    API_TEST(aborted_stream_is_closed_for_everybody),
    API_TEST(aborted_stream_is_closed_when_wait_closed_returns),
    API_TEST(silent_garbling_and_vanishing_peers_end_the_handshake_STRM_40),
    API_TEST(ten_megabytes_each_way_at_once_arrive_STRM_40),
    API_TEST(gathered_writes_arrive_in_order),
    API_TEST(cancelled_handshake_leaves_the_plain_stream_with_its_owner),
    API_TEST(cancelled_and_late_reads_took_nothing),
    API_TEST(close_lets_the_reader_go),
    API_TEST(drain_that_was_given_up_has_lost_nothing),
    API_TEST(misuse_is_refused),
    API_TEST(forked_child_gets_a_code_and_the_parent_goes_on),
    API_TEST(contexts_say_what_is_wrong_with_them),
    API_TEST(locked_keys_open_with_their_password_and_nobody_is_asked),
    API_TEST(wrap_without_memory_is_a_code_and_leaves_nothing),
    API_TEST(many_connections_share_two_contexts),
};

int main(void) {
    world_begin();
    int failed = HARNESS_MAIN("tls", tests);
    world_end();
    return failed;
}
