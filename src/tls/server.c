/* A server whose connections begin with a handshake: heist_server_options.open, filled in. */
#include <errno.h>
#include <heist/error.h>
#include <string.h>

#include "tls/tls.h"

/* What a server keeps: the open_user of its options. */
struct serving {
    heist_tls_context *ctx;
    heist_tls_stream_options opts;
};

static int open_with(heist_conn *conn, heist_tls_context *ctx, const heist_tls_stream_options *opts,
                     heist_stream **out) {
    heist_stream *plain;
    int err = heist_stream_from_conn(conn, NULL, &plain);
    if (err) {
        heist_conn_close(conn);
        return err;
    }
    err = ctx->server ? heist_tls_wrap(plain, ctx, opts, out) : -EINVAL;
    if (err) {
        heist_stream_abort(plain);
        heist_stream_unref(plain);
    }
    return err;
}

int heist_tls_open(heist_conn *conn, const heist_stream_options *opts, void *ctx, heist_stream **out) {
    heist_tls_stream_options o = HEIST_TLS_STREAM_OPTIONS_INIT;
    if (!conn || !ctx || !out) return -EINVAL;
    o.stream = opts;
    return open_with(conn, ctx, &o, out);
}

static int open_served(heist_conn *conn, const heist_stream_options *opts, void *user, heist_stream **out) {
    struct serving *s = user;
    heist_tls_stream_options o = s->opts;
    o.stream = opts;
    return open_with(conn, s->ctx, &o, out);
}

static void serving_end(void *user) {
    struct serving *s = user;
    heist_tls_context_unref(s->ctx);
    OPENSSL_free(s);
}

int heist_start_tls_server(heist_serve_fn handler, void *user, const char *host, const char *port,
                           heist_tls_context *ctx, const heist_tls_stream_options *tls,
                           const heist_server_options *server_opts, heist_server **out) {
    heist_tls_stream_options none = HEIST_TLS_STREAM_OPTIONS_INIT;
    heist_server_options o = HEIST_SERVER_OPTIONS_INIT;
    if (!ctx || !ctx->server) return -EINVAL;
    if (tls && (tls->size != sizeof(*tls) || tls->flags || tls->server_hostname || tls->stream)) return -EINVAL;
    if (server_opts && (server_opts->size != sizeof(o) || server_opts->open)) return -EINVAL;
    if (server_opts) o = *server_opts;
    struct serving *s = OPENSSL_malloc(sizeof(*s));
    if (!s) return -ENOMEM;
    s->ctx = heist_tls_context_ref(ctx);
    s->opts = tls ? *tls : none;
    o.open = open_served;
    o.open_user = s;
    o.open_free = serving_end;
    int err = heist_start_server(handler, user, host, port, &o, out);
    if (err < 0) serving_end(s);
    return err;
}
