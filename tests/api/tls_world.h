/* tls_world.h: what the tests of TLS share: certificates made as the program runs, contexts over them, and two ends of
 * a socket that greet each other. */
#ifndef TLS_WORLD_H
#define TLS_WORLD_H

#include "support/harness.h"

#include <heist/tls.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- certificates ---- */

struct cert {
    X509 *x;
    EVP_PKEY *key;
    char *pem, *key_pem;
};

static inline void must(int good, const char *what) {
    if (good) return;
    fprintf(stderr, "tls_world: %s failed\n", what);
    ERR_print_errors_fp(stderr);
    abort();
}
#define MUST(x) must((x) ? 1 : 0, #x)

static inline char *text_of(BIO *bio) {
    char *data;
    long n = BIO_get_mem_data(bio, &data);
    char *copy = malloc((size_t)n + 1);
    MUST(copy);
    memcpy(copy, data, (size_t)n);
    copy[n] = 0;
    BIO_free(bio);
    return copy;
}

static inline void extend(X509 *x, X509 *issuer, int nid, const char *value) {
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    MUST(e && X509_add_ext(x, e, -1));
    X509_EXTENSION_free(e);
}

/* names: "DNS:localhost,IP:127.0.0.1" or NULL; issuer NULL: self-signed; valid from and to, seconds from now. */
static inline struct cert cert_make(const struct cert *issuer, const char *cn, const char *names, long from, long to) {
    static long serial = 1000;
    struct cert c = {X509_new(), EVP_EC_gen("P-256"), NULL, NULL};
    MUST(c.x && c.key);
    X509_set_version(c.x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(c.x), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(c.x), from);
    X509_gmtime_adj(X509_getm_notAfter(c.x), to);
    X509_NAME *name = X509_get_subject_name(c.x);
    MUST(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1, -1, 0));
    X509_set_issuer_name(c.x, issuer ? X509_get_subject_name(issuer->x) : name);
    X509_set_pubkey(c.x, c.key);
    X509 *by = issuer ? issuer->x : c.x;
    extend(c.x, by, NID_basic_constraints, names ? "critical,CA:FALSE" : "critical,CA:TRUE");
    extend(c.x, by, NID_subject_key_identifier, "hash");
    if (issuer) extend(c.x, by, NID_authority_key_identifier, "keyid");
    if (names && *names) extend(c.x, by, NID_subject_alt_name, names);
    MUST(X509_sign(c.x, issuer ? issuer->key : c.key, EVP_sha256()));
    BIO *bio = BIO_new(BIO_s_mem());
    MUST(PEM_write_bio_X509(bio, c.x));
    c.pem = text_of(bio);
    bio = BIO_new(BIO_s_mem());
    MUST(PEM_write_bio_PrivateKey(bio, c.key, NULL, NULL, 0, NULL, NULL));
    c.key_pem = text_of(bio);
    return c;
}

static inline void cert_end(struct cert *c) {
    X509_free(c->x);
    EVP_PKEY_free(c->key);
    free(c->pem);
    free(c->key_pem);
}

#define DAY 86400L
static struct world { struct cert ca, other_ca, good, other, expired, self_signed, stranger, client; } W;

static inline void world_begin(void) {
    W.ca = cert_make(NULL, "test authority", NULL, -DAY, DAY);
    W.other_ca = cert_make(NULL, "another authority", NULL, -DAY, DAY);
    W.good = cert_make(&W.ca, "localhost", "DNS:localhost,IP:127.0.0.1", -DAY, DAY);
    W.other = cert_make(&W.ca, "other", "DNS:other.example,DNS:*.wild.example", -DAY, DAY);
    W.expired = cert_make(&W.ca, "localhost", "DNS:localhost", -2 * DAY, -DAY);
    W.self_signed = cert_make(NULL, "localhost", "DNS:localhost", -DAY, DAY);
    W.stranger = cert_make(&W.other_ca, "localhost", "DNS:localhost", -DAY, DAY);
    W.client = cert_make(&W.ca, "some client", "email:client@example.org", -DAY, DAY);
}

static inline void world_end(void) {
    struct cert *all[] = {&W.ca, &W.other_ca, &W.good, &W.other, &W.expired, &W.self_signed, &W.stranger, &W.client};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) cert_end(all[i]);
}

/* ---- contexts ---- */

static inline heist_tls_context *server_context(const struct cert *c, const heist_tls_options *more) {
    heist_tls_options o = HEIST_TLS_OPTIONS_INIT;
    heist_tls_context *ctx = NULL;
    if (more) o = *more;
    o.cert_pem = c->pem;
    o.key_pem = c->key_pem;
    int err = heist_tls_context_new_server(&o, &ctx);
    if (err) fprintf(stderr, "server context: %s: %s\n", heist_error_name(err), heist_tls_reason());
    return ctx;
}

static inline heist_tls_context *client_context(const heist_tls_options *more) {
    heist_tls_options o = HEIST_TLS_OPTIONS_INIT;
    heist_tls_context *ctx = NULL;
    if (more) o = *more;
    o.ca_pem = W.ca.pem;
    int err = heist_tls_context_new_client(&o, &ctx);
    if (err) fprintf(stderr, "client context: %s: %s\n", heist_error_name(err), heist_tls_reason());
    return ctx;
}

/* ---- two ends ---- */

struct side {
    heist_stream *plain, *tls; /* one or the other */
    heist_tls_context *ctx;
    heist_tls_stream_options opts;
    int err;
    char reason[256];
};

struct pair {
    struct side server, client;
};

static inline void pair_init(struct pair *p, heist_tls_context *server, heist_tls_context *client, const char *name) {
    memset(p, 0, sizeof *p);
    heist_tls_stream_options o = HEIST_TLS_STREAM_OPTIONS_INIT;
    p->server.opts = p->client.opts = o;
    p->server.ctx = server;
    p->client.ctx = client;
    p->client.opts.server_hostname = name;
}

static inline int stream_of(int fd, heist_stream **out) {
    heist_conn *c;
    int err = heist_conn_open(fd, &c);
    if (err) return err;
    err = heist_stream_from_conn(c, NULL, out);
    if (err) heist_conn_close(c);
    return err;
}

static inline int pair_open(struct pair *p) {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) return -errno;
    int err = stream_of(fds[0], &p->server.plain);
    if (!err) err = stream_of(fds[1], &p->client.plain);
    return err;
}

static int side_greets(void *arg, void **out) {
    struct side *s = arg;
    (void)out;
    s->err = heist_tls_wrap(s->plain, s->ctx, &s->opts, &s->tls);
    if (s->err == 0) s->plain = NULL;
    else snprintf(s->reason, sizeof s->reason, "%s", heist_tls_reason());
    if (s->err) heist_stream_abort(s->plain); /* so that the other end learns of it */
    return 0;
}

/* Both handshakes; what came of them stands in the sides. */
static inline int pair_greet(struct pair *p) {
    heist_task *t[2];
    int err = heist_create_task(side_greets, &p->server, NULL, &t[0]);
    if (!err) err = heist_create_task(side_greets, &p->client, NULL, &t[1]);
    if (err) return err;
    err = heist_gather(t, 2, NULL, 0);
    heist_unref(t[0]);
    heist_unref(t[1]);
    return err;
}

static inline int stream_end(heist_stream **s) {
    int err = 0;
    if (*s) {
        heist_stream_close(*s);
        err = heist_stream_wait_closed(*s);
        heist_stream_unref(*s);
        *s = NULL;
    }
    return err;
}

static int end_side(void *arg, void **out) {
    struct side *s = arg;
    (void)out;
    int err = stream_end(&s->tls), other = stream_end(&s->plain);
    return err ? err : other;
}

/* Both at once: each waits for the other's goodbye. */
static inline int pair_end(struct pair *p) {
    heist_task *t[2];
    int err = heist_create_task(end_side, &p->server, NULL, &t[0]);
    if (!err) err = heist_create_task(end_side, &p->client, NULL, &t[1]);
    if (err) return err;
    err = heist_gather(t, 2, NULL, HEIST_GATHER_ALL);
    int a = heist_future_result(t[0], NULL), b = heist_future_result(t[1], NULL);
    heist_unref(t[0]);
    heist_unref(t[1]);
    return err ? err : a ? a : b;
}

static inline int write_text(heist_stream *s, const char *text) {
    int err = heist_stream_write(s, text, strlen(text));
    return err ? err : heist_stream_drain(s);
}

/* A line without its terminator; "" at the end. */
static inline int read_line(heist_stream *s, char *buf, size_t size) {
    char *line;
    ptrdiff_t n = heist_stream_readline(s, &line);
    if (n < 0) return (int)n;
    snprintf(buf, size, "%.*s", n > 0 ? (int)n - (line[n - 1] == '\n') : 0, n > 0 ? line : "");
    return 0;
}

static inline int run_tls(heist_coro_fn fn, void *arg) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = harness_workers();
    return heist_run(fn, arg, &opts, NULL);
}

#endif
