/* Making a TLS stream of a plain one: the handshake.
 *
 * Where it runs.  Measured with OpenSSL 3.0 on x86-64 over every kind of key and key exchange, a handshake takes up to
 * 13 KiB of stack (RSA of 2048 bits with its vector code; other machines and providers have their own figures), and it
 * runs what the program put in: callbacks, providers that ask a device.  What is sure of a task's default stack is
 * three quarters of 64 KiB, less the frames of the caller.  So a handshake runs in a task of its own with
 * STACK_BYTES of address space, of which only touched pages cost memory, and the caller awaits it: a task that needs
 * more than its awaiter has left never runs on the awaiter's stack.  That costs about a microsecond beside a
 * handshake's many hundred.  Cancelling the caller cancels that task, and its code comes back as the caller's.
 * After the handshake OpenSSL needs 9 KiB to write and 7 KiB to read (renegotiation is off), on the caller's stack. */
#include <errno.h>
#include <heist/error.h>
#include <heist/future.h>
#include <heist/runtime.h>
#include <heist/task.h>
#include <math.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#include "tls/tls.h"

#define STACK_BYTES ((size_t)256 << 10)
#define HANDSHAKE_TIMEOUT 60.0
#define SHUTDOWN_TIMEOUT 30.0
#define HIGH_WATER ((size_t)65536)
#define LOW_WATER ((size_t)16384)

struct handshake {
    struct heist__tls *t;
    double deadline;
};

/* One call of SSL: as heist__tls_outcome. */
static int step(struct heist__tls *t, unsigned *fills) {
    heist__tls_lock(&t->lock);
    int done = t->failed;
    if (!done) {
        heist__tls_clear();
        done = heist__tls_outcome(t, SSL_do_handshake(t->ssl));
    }
    *fills = t->fills;
    heist__tls_unlock(&t->lock);
    return done;
}

static int shake(void *arg, void **out) {
    struct handshake *h = arg;
    struct heist__tls *t = h->t;
    (void)out;
    for (;;) {
        unsigned fills;
        int done = step(t, &fills);
        int err = heist__tls_flush(t); /* after a failure too: the alert */
        if (done < 0 && done != HEIST__TLS_WANT_READ) return done;
        if (done == 0) return -ECONNRESET; /* goodbye in the middle of the greeting */
        if (!err && done > 0) return 0;
        if (!err) err = heist__tls_drain(t, h->deadline);
        if (!err) err = heist__tls_fill(t, fills, 0, h->deadline);
        if (err && err != -EINTR) return err == HEIST_ETRUNCATED || err == -EPIPE ? -ECONNRESET : err;
    }
}

static int run_handshake(struct heist__tls *t, double timeout, size_t stack_bytes) {
    struct handshake h = {t, timeout == HEIST_FOREVER ? HEIST_FOREVER : heist_time() + timeout};
    heist_task_options options = HEIST_TASK_OPTIONS_INIT;
    heist_task *task;
    options.stack_bytes = stack_bytes ? stack_bytes : STACK_BYTES;
    options.name = "TLS handshake";
    int err = heist_create_task(shake, &h, &options, &task);
    if (err) return err;
    err = heist_await(task, NULL);
    heist_unref(task);
    return err;
}

/* Whom the certificate must name, and the name that is asked for. */
static int set_name(struct heist__tls *t, const char *name) {
    if (!name) return t->ctx->check_name ? -EINVAL : 0;
    size_t length = strlen(name);
    if (!length || length > 255) return -EINVAL;
    X509_VERIFY_PARAM *p = SSL_get0_param(t->ssl);
    heist__tls_clear();
    bool address = X509_VERIFY_PARAM_set1_ip_asc(p, name) == 1;
    heist__tls_clear();
    if (!t->ctx->check_name) X509_VERIFY_PARAM_set1_ip(p, NULL, 0);
    bool good = true;
    if (!address) {
        if (name[length - 1] == '.') return -EINVAL; /* certificates name no trailing dot */
        X509_VERIFY_PARAM_set_hostflags(p, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        if (t->ctx->check_name) good = X509_VERIFY_PARAM_set1_host(p, name, 0) == 1;
        good = good && SSL_set_tlsext_host_name(t->ssl, name) == 1; /* addresses are not asked for: RFC 6066 */
    }
    heist__tls_clear();
    if (!good) return -ENOMEM;
    if (t->ctx->flags & HEIST_TLS_NO_RESUMPTION) return 0;
    t->peer = OPENSSL_strdup(name);
    if (!t->peer) return -ENOMEM;
    heist__tls_offer_session(t->ctx, t->ssl, t->peer);
    return 0;
}

static bool seconds_ok(double s) { return !isnan(s) && s >= 0; }

static int check(const heist_stream *plain, const heist_tls_context *ctx, const heist_tls_stream_options *o,
                 heist_stream **out) {
    if (!plain || !ctx || !out) return -EINVAL;
    if (o->size < sizeof(*o) || o->size > 4096 || o->flags) return -EINVAL;
    for (size_t i = sizeof(*o); i < o->size; i++)
        if (((const char *)o)[i]) return -EINVAL; /* an option that we do not know */
    if (!seconds_ok(o->handshake_timeout) || !seconds_ok(o->shutdown_timeout)) return -EINVAL;
    return ctx->server && o->server_hostname ? -EINVAL : 0;
}

static int wrap(heist_stream *plain, heist_tls_context *ctx, const heist_tls_stream_options *o,
                struct heist__tls **out) {
    struct heist__tls *t;
    int err = heist__tls_new(plain, ctx, &t);
    if (err) return err;
    t->shutdown_timeout = o->shutdown_timeout ? o->shutdown_timeout : SHUTDOWN_TIMEOUT;
    if (!ctx->server) err = set_name(t, o->server_hostname);
    if (!err) err = heist_stream_set_write_buffer_limits(plain, HIGH_WATER, LOW_WATER);
    /* Those of its life as a plain stream are over. */
    if (!err) err = heist_stream_set_read_deadline(plain, HEIST_FOREVER);
    if (!err) err = heist_stream_set_write_deadline(plain, HEIST_FOREVER);
    if (!err) err = run_handshake(t, o->handshake_timeout ? o->handshake_timeout : HANDSHAKE_TIMEOUT, o->stack_bytes);
    if (err) {
        const char *words = err == -ECONNRESET ? "the peer went away in the middle of the handshake" : "";
        (void)heist__tls_report(err, t->failed == err ? t->words : words);
        heist__tls_end(t);
        return err;
    }
    *out = t;
    return 0;
}

int heist_tls_wrap(heist_stream *plain, heist_tls_context *ctx, const heist_tls_stream_options *opts,
                   heist_stream **out) {
    heist_tls_stream_options none = HEIST_TLS_STREAM_OPTIONS_INIT;
    const heist_tls_stream_options *o = opts ? opts : &none;
    struct heist__tls *t = NULL;
    int err = check(plain, ctx, o, out);
    if (!err && !heist_current_task()) err = HEIST_ENOTINCORO;
    if (err) return heist__tls_report(err, NULL);
    err = wrap(plain, ctx, o, &t);
    if (err) return err;
    err = heist_stream_new(&heist__tls_ops, t, o->stream, out);
    if (err) heist__tls_end(t);
    return err;
}

int heist_open_tls_connection(const char *host, const char *port, heist_tls_context *ctx,
                              const heist_open_options *open_opts, const heist_tls_stream_options *opts,
                              heist_stream **out) {
    heist_tls_stream_options o = HEIST_TLS_STREAM_OPTIONS_INIT;
    heist_stream *plain;
    if (opts && opts->size != sizeof(o)) return heist__tls_report(-EINVAL, NULL);
    if (opts) o = *opts;
    if (!o.server_hostname) o.server_hostname = host;
    if (!ctx || ctx->server || !out) return heist__tls_report(-EINVAL, NULL);
    int err = heist_open_connection(host, port, open_opts, &plain);
    if (err) return heist__tls_report(err, NULL);
    err = heist_tls_wrap(plain, ctx, &o, out);
    if (err) {
        heist_stream_abort(plain);
        heist_stream_unref(plain);
    }
    return err;
}
