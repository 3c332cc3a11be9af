/* A server of several names: which context serves a client, and which protocol they speak.
 *
 * The context is chosen when the client's hello has come, before anything of it was acted on: a session that the client
 * offers is then looked at with the chosen context's identity, so that no session of one name opens the door of another
 * that asks for certificates.  Called by OpenSSL in the handshake, under the connection's lock. */
#include <ctype.h>
#include <errno.h>
#include <heist/error.h>
#include <string.h>
#include <strings.h>

#include "tls/tls.h"

#define NAME_MAX_BYTES 255

/* ---- the table ---- */

static heist_tls_context *find(heist_tls_context *ctx, const char *name) {
    for (size_t i = 0; i < ctx->name_count; i++)
        if (strcasecmp(ctx->names[i].name, name) == 0) return ctx->names[i].context;
    return NULL;
}

/* A reference to what serves `name`, the context itself when nothing else does. */
static heist_tls_context *choose(heist_tls_context *ctx, const char *name) {
    heist_tls_context *other = ctx->sni ? ctx->sni(ctx, name, ctx->sni_user) : NULL;
    if (other && other->server) return heist_tls_context_ref(other);
    heist__tls_lock(&ctx->lock);
    other = name ? find(ctx, name) : NULL;
    const char *dot = name ? strchr(name, '.') : NULL;
    if (!other && dot && dot != name) { /* "*" stands for one label */
        char wild[NAME_MAX_BYTES + 2] = "*";
        size_t length = strlen(dot);
        if (length < sizeof(wild) - 1) {
            memcpy(wild + 1, dot, length + 1);
            other = find(ctx, wild);
        }
    }
    if (other) heist_tls_context_ref(other); /* its lock behind ours: a context in a table has no table */
    heist__tls_unlock(&ctx->lock);
    return other ? other : heist_tls_context_ref(ctx);
}

int heist_tls_context_add_name(heist_tls_context *ctx, const char *name, heist_tls_context *other) {
    if (!ctx || !other || ctx == other || !ctx->server || !other->server || !name || !*name ||
        strlen(name) > NAME_MAX_BYTES)
        return -EINVAL;
    heist__tls_lock(&other->lock);
    bool has_table = other->name_count > 0;
    heist__tls_unlock(&other->lock);
    if (has_table) return -EINVAL;
    char *copy = OPENSSL_strdup(name);
    if (!copy) return -ENOMEM;
    heist_tls_context *old = NULL;
    int err = 0;
    heist_tls_context_ref(other);
    heist__tls_lock(&ctx->lock);
    struct heist__tls_name *at = NULL;
    for (size_t i = 0; i < ctx->name_count && !at; i++)
        if (strcasecmp(ctx->names[i].name, name) == 0) at = &ctx->names[i];
    if (at) {
        old = at->context;
        at->context = other;
    } else {
        if (ctx->name_count == ctx->name_room) {
            size_t room = ctx->name_room ? 2 * ctx->name_room : 8;
            struct heist__tls_name *more = OPENSSL_realloc(ctx->names, room * sizeof(*more));
            if (more) {
                ctx->names = more;
                ctx->name_room = room;
            } else {
                err = -ENOMEM;
            }
        }
        if (!err) {
            ctx->names[ctx->name_count++] = (struct heist__tls_name){copy, other};
            copy = NULL;
        }
    }
    heist__tls_unlock(&ctx->lock);
    OPENSSL_free(copy);
    heist_tls_context_unref(err ? other : old);
    return err;
}

void heist__tls_forget_names(heist_tls_context *ctx) {
    for (size_t i = 0; i < ctx->name_count; i++) {
        OPENSSL_free(ctx->names[i].name);
        heist_tls_context_unref(ctx->names[i].context);
    }
    OPENSSL_free(ctx->names);
}

/* ---- the name in a client's hello ---- */

/* RFC 6066: a list of (type, length, name), of which type 0 is a host's.  False: malformed. */
static bool read_name(SSL *ssl, char *name, bool *there) {
    const unsigned char *p;
    size_t left;
    *there = false;
    if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &left)) return true;
    if (left < 5 || (size_t)(p[0] << 8 | p[1]) + 2 != left) return false;
    size_t length = (size_t)(p[3] << 8 | p[4]);
    if (p[2] != TLSEXT_NAMETYPE_host_name || length + 5 > left) return false;
    if (length == 0 || length > NAME_MAX_BYTES || memchr(p + 5, 0, length)) return false;
    memcpy(name, p + 5, length);
    name[length] = 0;
    *there = true;
    return true;
}

int heist__tls_hello(SSL *ssl, int *alert, void *context) {
    heist_tls_context *ctx = context;
    char name[NAME_MAX_BYTES + 1];
    bool there;
    if (!read_name(ssl, name, &there)) {
        *alert = SSL_AD_DECODE_ERROR;
        return SSL_CLIENT_HELLO_ERROR;
    }
    heist_tls_context *other = choose(ctx, there ? name : NULL);
    bool good = true;
    if (other != ctx) {
        good = SSL_set_SSL_CTX(ssl, other->ssl) == other->ssl &&
               SSL_set_session_id_context(ssl, other->id, sizeof(other->id)) == 1;
        SSL_set_verify(ssl, other->verify, NULL);
    }
    /* What its SSL_CTX calls back uses it, and the table may forget it meanwhile: the connection has the reference. */
    struct heist__tls *t = SSL_get_app_data(ssl);
    heist_tls_context_unref(t->chosen);
    t->chosen = other;
    *alert = SSL_AD_INTERNAL_ERROR;
    return good ? SSL_CLIENT_HELLO_SUCCESS : SSL_CLIENT_HELLO_ERROR;
}

/* That there is one has OpenSSL note the name, and tell the client that it was heard. */
int heist__tls_server_name(SSL *ssl, int *alert, void *context) {
    (void)alert, (void)context;
    return SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name) ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

/* ---- protocols ---- */

/* "h2,http/1.1" to length and bytes, one after the other. */
int heist__tls_parse_alpn(const char *text, unsigned char **out, unsigned *length) {
    size_t bytes = strlen(text) + 1;
    if (bytes > 65535) return -EINVAL;
    unsigned char *wire = OPENSSL_malloc(bytes);
    if (!wire) return -ENOMEM;
    size_t at = 0;
    for (const char *p = text;; p++) {
        const char *end = strchr(p, ',');
        size_t n = end ? (size_t)(end - p) : strlen(p);
        if (n == 0 || n > 255) {
            OPENSSL_free(wire);
            return -EINVAL;
        }
        wire[at++] = (unsigned char)n;
        for (size_t i = 0; i < n; i++) wire[at++] = (unsigned char)p[i];
        if (!end) break;
        p = end;
    }
    *out = wire;
    *length = (unsigned)at;
    return 0;
}

int heist__tls_choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_length, const unsigned char *in,
                           unsigned in_length, void *context) {
    heist_tls_context *ctx = context;
    (void)ssl;
    unsigned char *chosen;
    if (SSL_select_next_proto(&chosen, out_length, ctx->alpn, ctx->alpn_length, in, in_length) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL; /* RFC 7301: no_application_protocol */
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}
