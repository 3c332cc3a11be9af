/* heist-bench-tls: handshakes and bulk over TLS, on loopback, both ends in this process.  A program of its own, so that
 * the others do not need OpenSSL; it prints what heist-bench prints (../common.h).
 *
 *   heist-bench-tls handshake WORKERS N   N connections, 16 at a time: connect, greet, one byte each way, goodbye.  The
 *                                         main figure is without, `.resumed` with sessions that are taken up again;
 *                                         `.bare` is OpenSSL alone: 16 plain threads that connect, 16 that accept;
 *                                         `cpu`: the processor time that each costs the process, both ends
 *   heist-bench-tls bulk WORKERS N        N MiB through one connection, in writes of 64 KiB; `.bare`: two plain threads
 *
 * Key and certificate are of P-256; TLS 1.3 with the cipher that OpenSSL prefers. */
#include "../common.h"

#include <arpa/inet.h>
#include <heist/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { AT_A_TIME = 16, BLOCK = 65536 };

/* ---- certificate and contexts ---- */

static struct {
    char cert[4096], key[4096];
    heist_tls_context *server, *client, *resuming;
    SSL_CTX *bare_server, *bare_client;
} tls;

static void to_text(BIO *bio, char *buf, int size) {
    int n = BIO_read(bio, buf, size - 1);
    BENCH_CHECK(n > 0);
    buf[n] = 0;
}

static void make_contexts(void) {
    EVP_PKEY *pair = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    BIO *bio = BIO_new(BIO_s_mem());
    BENCH_CHECK(pair && x && bio);
    X509_NAME *name = X509_get_subject_name(x);
    X509_set_version(x, 2);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 86400);
    BENCH_CHECK(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)"localhost", -1, -1, 0));
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:localhost");
    BENCH_CHECK(e && X509_add_ext(x, e, -1) && X509_set_issuer_name(x, name) && X509_set_pubkey(x, pair));
    X509_EXTENSION_free(e);
    BENCH_CHECK(X509_sign(x, pair, EVP_sha256()) > 0);
    BENCH_CHECK(PEM_write_bio_X509(bio, x));
    to_text(bio, tls.cert, sizeof tls.cert);
    BENCH_CHECK(PEM_write_bio_PrivateKey(bio, pair, NULL, NULL, 0, NULL, NULL));
    to_text(bio, tls.key, sizeof tls.key);
    BIO_free(bio);

    heist_tls_options o = HEIST_TLS_OPTIONS_INIT;
    o.ca_pem = tls.cert;
    BENCH_MUST(heist_tls_context_new_client(&o, &tls.resuming));
    o.flags = HEIST_TLS_NO_RESUMPTION;
    BENCH_MUST(heist_tls_context_new_client(&o, &tls.client));
    o = (heist_tls_options)HEIST_TLS_OPTIONS_INIT;
    o.cert_pem = tls.cert;
    o.key_pem = tls.key;
    BENCH_MUST(heist_tls_context_new_server(&o, &tls.server));

    tls.bare_server = SSL_CTX_new(TLS_server_method());
    tls.bare_client = SSL_CTX_new(TLS_client_method());
    BENCH_CHECK(tls.bare_server && tls.bare_client);
    SSL_CTX_set_session_cache_mode(tls.bare_server, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_cache_mode(tls.bare_client, SSL_SESS_CACHE_OFF);
    BENCH_CHECK(SSL_CTX_use_certificate(tls.bare_server, x) == 1 && SSL_CTX_use_PrivateKey(tls.bare_server, pair) == 1);
    BENCH_CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(tls.bare_client), x) == 1);
    SSL_CTX_set_verify(tls.bare_client, SSL_VERIFY_PEER, NULL);
    X509_free(x);
    EVP_PKEY_free(pair);
}

static void end_contexts(void) {
    heist_tls_context_unref(tls.server);
    heist_tls_context_unref(tls.client);
    heist_tls_context_unref(tls.resuming);
    SSL_CTX_free(tls.bare_server);
    SSL_CTX_free(tls.bare_client);
}

/* ---- heist ---- */

struct work {
    const struct bench_args *args;
    heist_tls_context *client;
    char port[16];
    atomic_size_t left;
    atomic_size_t received;
};

static void end_stream(heist_stream *s) {
    heist_stream_close(s);
    BENCH_MUST(heist_stream_wait_closed(s));
    heist_stream_unref(s);
}

static int echo_byte(heist_stream *s, void *user) {
    char byte;
    ptrdiff_t n;
    (void)user;
    while ((n = heist_stream_read(s, &byte, 1)) > 0) BENCH_MUST(heist_stream_write(s, &byte, 1));
    return (int)n;
}

static int drink(heist_stream *s, void *user) {
    struct work *w = user;
    char *buf = malloc(BLOCK);
    ptrdiff_t n;
    BENCH_CHECK(buf != NULL);
    while ((n = heist_stream_read(s, buf, BLOCK)) > 0)
        atomic_fetch_add_explicit(&w->received, (size_t)n, memory_order_relaxed);
    free(buf);
    return (int)n;
}

static heist_stream *visit(struct work *w) {
    heist_tls_stream_options o = HEIST_TLS_STREAM_OPTIONS_INIT;
    heist_stream *s;
    o.server_hostname = "localhost";
    BENCH_MUST(heist_open_tls_connection("127.0.0.1", w->port, w->client, NULL, &o, &s));
    return s;
}

static int visitor(void *arg, void **out) {
    struct work *w = arg;
    (void)out;
    while (atomic_fetch_sub_explicit(&w->left, 1, memory_order_relaxed) - 1 < (size_t)1 << 40) {
        heist_stream *s = visit(w);
        char byte = 'x';
        BENCH_MUST(heist_stream_write(s, &byte, 1));
        BENCH_CHECK(heist_stream_read(s, &byte, 1) == 1 && byte == 'x');
        end_stream(s);
    }
    return 0;
}

static void start(struct work *w, heist_serve_fn serve, heist_server **out) {
    heist_addr where;
    char text[64];
    BENCH_MUST(heist_start_tls_server(serve, w, "127.0.0.1", "0", tls.server, NULL, NULL, out));
    BENCH_CHECK(heist_server_sockets(*out, &where, 1) == 1);
    heist_addr_format(&where, text, sizeof text);
    snprintf(w->port, sizeof w->port, "%.8s", strrchr(text, ':') + 1);
}

static void finish(heist_server *server) {
    heist_server_close(server);
    BENCH_MUST(heist_server_wait_closed(server));
    heist_server_unref(server);
}

/* So many in so many seconds, and the processor time that one cost: on a machine with other work the truer figure. */
static void emit_visits(const char *name, size_t n, double seconds, double cpu) {
    char text[32];
    snprintf(text, sizeof text, *name ? "%s.cpu" : "cpu%s", name);
    bench_emit(*name ? name : "-", n, (double)n / seconds, "/s");
    bench_emit(text, n, cpu / (double)n * 1e6, "us");
}

static void measure_visits(struct work *w, const char *name) {
    heist_task *t[AT_A_TIME];
    double cpu = bench_cpu_seconds();
    atomic_store(&w->left, w->args->n);
    int64_t begun = bench_now_ns();
    for (int i = 0; i < AT_A_TIME; i++) BENCH_MUST(heist_create_task(visitor, w, NULL, &t[i]));
    BENCH_MUST(heist_gather(t, AT_A_TIME, NULL, 0));
    double seconds = (double)(bench_now_ns() - begun) / 1e9;
    for (int i = 0; i < AT_A_TIME; i++) heist_unref(t[i]);
    emit_visits(name, w->args->n, seconds, bench_cpu_seconds() - cpu);
}

static int handshake_main(void *arg, void **out) {
    struct work w = {.args = arg, .client = tls.client};
    heist_server *server;
    (void)out;
    start(&w, echo_byte, &server);
    measure_visits(&w, "");
    w.client = tls.resuming;
    measure_visits(&w, "resumed");
    finish(server);
    return 0;
}

static int bulk_main(void *arg, void **out) {
    struct work w = {.args = arg, .client = tls.client};
    heist_server *server;
    char *block = calloc(1, BLOCK);
    (void)out;
    BENCH_CHECK(block != NULL);
    start(&w, drink, &server);
    heist_stream *s = visit(&w);
    size_t bytes = w.args->n << 20;
    int64_t begun = bench_now_ns();
    for (size_t at = 0; at < bytes; at += BLOCK) {
        BENCH_MUST(heist_stream_write(s, block, BLOCK));
        BENCH_MUST(heist_stream_drain(s));
    }
    end_stream(s); /* the server's goodbye stands behind all that it has read */
    double seconds = (double)(bench_now_ns() - begun) / 1e9;
    finish(server);
    BENCH_CHECK(atomic_load(&w.received) == bytes);
    bench_emit("-", w.args->n, (double)bytes / 1e9 / seconds, "GB/s");
    free(block);
    return 0;
}

/* ---- OpenSSL alone, on blocking sockets ---- */

struct bare {
    int listener;
    struct sockaddr_in where;
    atomic_size_t accepts, visits;
    size_t bytes;
};

static SSL *bare_end(SSL_CTX *ctx, int fd) {
    SSL *ssl = SSL_new(ctx);
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    BENCH_CHECK(ssl && SSL_set_fd(ssl, fd) == 1);
    return ssl;
}

static bool next(atomic_size_t *left) { return atomic_fetch_sub(left, 1) - 1 < (size_t)1 << 40; }

static void *bare_accepts(void *arg) {
    struct bare *b = arg;
    while (next(&b->accepts)) {
        static _Thread_local char buf[BLOCK];
        int n, fd = accept(b->listener, NULL, NULL);
        SSL *ssl = bare_end(tls.bare_server, fd);
        size_t got = 0;
        BENCH_CHECK(SSL_accept(ssl) == 1);
        while ((n = SSL_read(ssl, buf, sizeof buf)) > 0) {
            got += (size_t)n;
            if (!b->bytes) BENCH_CHECK(SSL_write(ssl, buf, n) == n);
        }
        BENCH_CHECK(got == (b->bytes ? b->bytes : 1));
        SSL_shutdown(ssl);
        SSL_free(ssl);
        close(fd);
    }
    return NULL;
}

static void *bare_visits(void *arg) {
    struct bare *b = arg;
    while (next(&b->visits)) {
        static _Thread_local char buf[BLOCK];
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        BENCH_CHECK(connect(fd, (struct sockaddr *)&b->where, sizeof b->where) == 0);
        SSL *ssl = bare_end(tls.bare_client, fd);
        BENCH_CHECK(SSL_connect(ssl) == 1);
        for (size_t at = 0; at < b->bytes; at += BLOCK) BENCH_CHECK(SSL_write(ssl, buf, BLOCK) == BLOCK);
        if (!b->bytes) BENCH_CHECK(SSL_write(ssl, buf, 1) == 1 && SSL_read(ssl, buf, 1) == 1);
        SSL_shutdown(ssl);
        BENCH_CHECK(SSL_read(ssl, buf, sizeof buf) == 0);
        SSL_free(ssl);
        close(fd);
    }
    return NULL;
}

/* Seconds of `count` visits by so many pairs of threads, each with so many bytes (0: one there and back). */
static double bare_seconds(size_t count, int pairs, size_t bytes) {
    struct bare b = {.accepts = count, .visits = count, .bytes = bytes};
    pthread_t t[2 * AT_A_TIME];
    socklen_t size = sizeof b.where;
    b.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    b.where.sin_family = AF_INET;
    b.where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    BENCH_CHECK(b.listener >= 0 && bind(b.listener, (struct sockaddr *)&b.where, sizeof b.where) == 0);
    BENCH_CHECK(listen(b.listener, 128) == 0 && getsockname(b.listener, (struct sockaddr *)&b.where, &size) == 0);
    int64_t begun = bench_now_ns();
    for (int i = 0; i < 2 * pairs; i++)
        BENCH_CHECK(pthread_create(&t[i], NULL, i % 2 ? bare_visits : bare_accepts, &b) == 0);
    for (int i = 0; i < 2 * pairs; i++) pthread_join(t[i], NULL);
    double seconds = (double)(bench_now_ns() - begun) / 1e9;
    close(b.listener);
    return seconds;
}

int main(int argc, char **argv) {
    long workers = argc == 4 ? strtol(argv[2], NULL, 10) : 0;
    long long n = argc == 4 ? strtoll(argv[3], NULL, 10) : -1;
    bool bulk = argc == 4 && !strcmp(argv[1], "bulk");
    if (workers < 1 || workers > 1024 || n < 0 || (!bulk && strcmp(argv[1], "handshake") != 0)) {
        fprintf(stderr, "usage: %s handshake|bulk WORKERS N\n", argv[0]);
        return 2;
    }
    struct bench_args args = {(int)workers, n ? (size_t)n : bulk ? 2048 : 4000};
    make_contexts();
    bench_run(bulk ? bulk_main : handshake_main, &args);
    if (bulk) {
        size_t bytes = args.n << 20;
        bench_emit("bare", args.n, (double)bytes / 1e9 / bare_seconds(1, 1, bytes), "GB/s");
    } else {
        double cpu = bench_cpu_seconds(), seconds = bare_seconds(args.n, AT_A_TIME, 0);
        emit_visits("bare", args.n, seconds, bench_cpu_seconds() - cpu);
    }
    end_contexts();
    printf("M\t%ld\n", bench_status_kib("VmHWM"));
    return 0;
}
