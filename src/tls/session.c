/* The sessions that a client context keeps, to take up again.
 *
 * A session stands under the name that was verified when it was made: whoever offers it skips the certificate, so it
 * must not serve another name.  Those of TLS 1.3 are used once, as the protocol wants it, and a server gives two at a
 * time; those of 1.2 may be used again.  A short list, the oldest first, under the context's lock.
 *
 * What stands in the list is a copy that no connection holds: two threads never share a session, and nothing rests on
 * the order of its last two references. */
#include <string.h>
#include <time.h>

#include "tls/tls.h"

static void forget(heist_tls_context *ctx, size_t at, bool free_session) {
    OPENSSL_free(ctx->sessions[at].peer);
    if (free_session) SSL_SESSION_free(ctx->sessions[at].session);
    ctx->session_count--;
    memmove(&ctx->sessions[at], &ctx->sessions[at + 1], (ctx->session_count - at) * sizeof(ctx->sessions[0]));
}

static bool is_old(const SSL_SESSION *s) {
    return !SSL_SESSION_is_resumable(s) || (time_t)(SSL_SESSION_get_time(s) + SSL_SESSION_get_timeout(s)) <= time(NULL);
}

/* Called by OpenSSL under a connection's lock, whenever a server has given one. */
int heist__tls_new_session(SSL *ssl, SSL_SESSION *session) {
    struct heist__tls *t = SSL_get_app_data(ssl);
    if (!t || !t->peer) return 0;
    heist_tls_context *ctx = t->ctx;
    char *peer = OPENSSL_strdup(t->peer);
    SSL_SESSION *copy = SSL_SESSION_dup(session);
    if (!peer || !copy) { /* a session less costs time, not truth */
        OPENSSL_free(peer);
        SSL_SESSION_free(copy);
        return 0;
    }
    heist__tls_lock(&ctx->lock);
    if (!ctx->sessions) ctx->sessions = OPENSSL_zalloc(HEIST__TLS_SESSIONS * sizeof(ctx->sessions[0]));
    bool takes = ctx->sessions != NULL;
    if (takes) {
        size_t same = 0, first = 0;
        for (size_t i = ctx->session_count; i-- > 0;)
            if (strcmp(ctx->sessions[i].peer, peer) == 0) same++, first = i;
        if (same >= HEIST__TLS_SESSIONS_OF_ONE) forget(ctx, first, true);
        else if (ctx->session_count == HEIST__TLS_SESSIONS) forget(ctx, 0, true);
        ctx->sessions[ctx->session_count++] = (struct heist__tls_session){peer, copy};
    }
    heist__tls_unlock(&ctx->lock);
    if (!takes) {
        OPENSSL_free(peer);
        SSL_SESSION_free(copy);
    }
    return 0;
}

void heist__tls_offer_session(heist_tls_context *ctx, SSL *ssl, const char *peer) {
    SSL_SESSION *found = NULL;
    heist__tls_lock(&ctx->lock);
    for (size_t i = ctx->session_count; i-- > 0 && !found;) { /* the newest */
        if (strcmp(ctx->sessions[i].peer, peer) != 0) continue;
        SSL_SESSION *s = ctx->sessions[i].session;
        if (is_old(s)) {
            forget(ctx, i, true);
        } else if (SSL_SESSION_get_protocol_version(s) >= TLS1_3_VERSION) {
            found = s;
            forget(ctx, i, false);
        } else {
            found = SSL_SESSION_dup(s);
            if (!found) break;
        }
    }
    heist__tls_unlock(&ctx->lock);
    if (!found) return;
    (void)SSL_set_session(ssl, found); /* refused: a full handshake */
    SSL_SESSION_free(found);
}

int heist_tls_context_sessions(heist_tls_context *ctx) {
    if (!ctx) return 0;
    heist__tls_lock(&ctx->lock);
    int n = (int)ctx->session_count;
    heist__tls_unlock(&ctx->lock);
    return n;
}

void heist_tls_context_drop_sessions(heist_tls_context *ctx) {
    if (!ctx) return;
    heist__tls_lock(&ctx->lock);
    struct heist__tls_session *list = ctx->sessions;
    size_t n = ctx->session_count;
    ctx->sessions = NULL;
    ctx->session_count = 0;
    heist__tls_unlock(&ctx->lock);
    for (size_t i = 0; i < n; i++) {
        OPENSSL_free(list[i].peer);
        SSL_SESSION_free(list[i].session);
    }
    OPENSSL_free(list);
}
