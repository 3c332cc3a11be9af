/* A connection between SSL and the stream below: its birth and end, what a call of SSL meant, and how bytes come and
 * go. The protocol of its locks stands in tls.h.  Nothing here holds a mutex over a suspension. */
#include <errno.h>
#include <heist/error.h>
#include <heist/runtime.h>
#include <openssl/err.h>
#include <string.h>

#include "tls/tls.h"

#define IN_FIRST 4096           /* what an idle connection has for reading */
#define IN_MOST ((size_t)65536) /* and one that brought so much at a time */

int heist__tls_new(heist_stream *below, heist_tls_context *ctx, struct heist__tls **out) {
    struct heist__tls *t = OPENSSL_zalloc(sizeof(*t));
    if (!t) return -ENOMEM;
    (void)pthread_mutex_init(&t->lock, NULL);
    (void)pthread_mutex_init(&t->send, NULL);
    heist_event_init(&t->filled);
    t->below = below;
    t->wanted = IN_FIRST;
    t->until[0] = t->until[1] = HEIST_FOREVER;
    t->ctx = heist_tls_context_ref(ctx);
    if (!heist__tls_enlist(t)) {
        heist__tls_end(t);
        return HEIST_ECLOSED;
    }
    heist__tls_clear();
    heist__tls_lock(&t->lock);
    t->ssl = t->failed ? NULL : SSL_new(ctx->ssl);
    BIO *bio = t->ssl ? heist__tls_bio(t) : NULL;
    if (bio) SSL_set_bio(t->ssl, bio, bio);
    if (!bio || SSL_set_app_data(t->ssl, t) != 1) {
        int err = t->failed ? t->failed : -ENOMEM;
        heist__tls_unlock(&t->lock);
        heist__tls_clear();
        heist__tls_end(t);
        return err;
    }
    if (ctx->server) SSL_set_accept_state(t->ssl);
    else SSL_set_connect_state(t->ssl);
    heist__tls_unlock(&t->lock);
    *out = t;
    return 0;
}

void heist__tls_end(struct heist__tls *t) {
    /* Else OpenSSL marks the session as one that must not be taken up, which another connection may be doing: that
     * a stream was cut off is told by HEIST_ETRUNCATED. */
    if (t->ssl && !t->failed) SSL_set_shutdown(t->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    heist__tls_delist(t);
    heist__tls_clear();
    heist_tls_context_unref(t->chosen);
    heist_tls_context_unref(t->ctx);
    heist__tls_buffer_end(&t->in);
    heist__tls_buffer_end(&t->out);
    heist__tls_buffer_end(&t->going);
    OPENSSL_free(t->peer);
    (void)pthread_mutex_destroy(&t->lock);
    (void)pthread_mutex_destroy(&t->send);
    OPENSSL_free(t);
}

/* ---- what SSL said ---- */

static int fail(struct heist__tls *t) {
    int code = heist__tls_failed(t->words, sizeof(t->words));
    long verify = SSL_get_verify_result(t->ssl);
    if (code == HEIST_ETLSVERIFY && verify != X509_V_OK)
        BIO_snprintf(t->words, sizeof(t->words), "certificate verify failed: %s",
                     X509_verify_cert_error_string(verify));
    t->failed = t->no_memory ? -ENOMEM : code;
    return t->failed;
}

int heist__tls_outcome(struct heist__tls *t, int ret) {
    if (ret > 0) return 1;
    switch (SSL_get_error(t->ssl, ret)) {
        case SSL_ERROR_WANT_READ: heist__tls_clear(); return HEIST__TLS_WANT_READ;
        case SSL_ERROR_ZERO_RETURN:
            t->goodbye_seen = true;
            heist__tls_clear();
            return 0;
        default: return fail(t);
    }
}

int heist__tls_broken(struct heist__tls *t, int code) {
    char words[sizeof(t->words)] = "";
    heist__tls_lock(&t->lock);
    if (t->failed == code) memcpy(words, t->words, sizeof(words));
    heist__tls_unlock(&t->lock);
    return heist__tls_report(code, words);
}

/* ---- down ---- */

int heist__tls_flush(struct heist__tls *t) {
    int err = 0;
    heist__tls_lock(&t->send);
    heist__tls_lock(&t->lock);
    struct heist__tls_buffer taken = t->out;
    t->out = t->going;
    heist__tls_unlock(&t->lock);
    if (taken.end > taken.start) err = heist_stream_write(t->below, taken.data + taken.start, taken.end - taken.start);
    if (err < 0) {
        heist__tls_lock(&t->lock);
        if (!t->lost) t->lost = err == -EAGAIN ? -ENOMEM : err; /* to the stream above that would mean: wait */
        err = t->lost;
        heist__tls_unlock(&t->lock);
    }
    /* An idle connection keeps none of the larger ones. */
    taken.start = taken.end = 0;
    if (taken.room > IN_FIRST) heist__tls_buffer_end(&taken);
    t->going = taken;
    heist__tls_unlock(&t->send);
    return err < 0 ? err : 0;
}

/* A note that was left for `side` is taken: true.  With lock held. */
static bool take_note(struct heist__tls *t, int side) {
    bool left = t->interrupted[side];
    t->interrupted[side] = false;
    return left;
}

/* A time-out of the stream below was no time-out of the caller's: somebody moved the deadline.  With lock held. */
static bool was_moved(struct heist__tls *t, int side, int writer, double deadline) {
    return take_note(t, side) || (t->until[writer] != deadline && heist_time() < deadline);
}

/* Until when the stream below may be read, or drained.  With lock held. */
static int set_until(struct heist__tls *t, int writer, double when) {
    if (t->until[writer] == when) return 0;
    int err = writer ? heist_stream_set_write_deadline(t->below, when) : heist_stream_set_read_deadline(t->below, when);
    if (!err) t->until[writer] = when;
    return err;
}

int heist__tls_drain(struct heist__tls *t, double deadline) {
    int err = 0;
    heist__tls_lock(&t->lock);
    if (t->closed) err = HEIST_ECLOSED;
    else if (take_note(t, 1)) err = -EINTR;
    else err = set_until(t, 1, deadline);
    t->draining = !err;
    heist__tls_unlock(&t->lock);
    if (err) return err;
    err = heist_stream_drain(t->below);
    heist__tls_lock(&t->lock);
    t->draining = false;
    if (err == -ETIMEDOUT && was_moved(t, 1, 1, deadline)) err = -EINTR;
    heist__tls_unlock(&t->lock);
    return err;
}

/* ---- up ---- */

/* By who fills.  Nobody else adds to `in`, and it is empty: see tls.h. */
static int read_below(struct heist__tls *t, int side, double deadline) {
    int err = 0;
    heist__tls_lock(&t->lock);
    if (t->closed) err = HEIST_ECLOSED;
    else if (take_note(t, side)) err = -EINTR;
    else err = set_until(t, 0, deadline);
    if (!err && t->in.room != t->wanted) heist__tls_buffer_end(&t->in);
    if (!err && !heist__tls_buffer_reserve(&t->in, t->wanted)) err = -ENOMEM;
    unsigned char *data = t->in.data;
    size_t room = t->in.room;
    heist__tls_unlock(&t->lock);
    if (err) return err;
    ptrdiff_t n = heist_stream_read(t->below, data, room);
    heist__tls_lock(&t->lock);
    if (n >= 0) {
        t->in.end = (size_t)n;
        t->end_below = n == 0;
        t->fills++;
        /* Much came: more at a time from now on.  Little: an idle connection keeps little. */
        if ((size_t)n == room && room < IN_MOST) t->wanted = 4 * room;
        if ((size_t)n < IN_FIRST / 2) t->wanted = IN_FIRST;
    } else if (n == -ETIMEDOUT && was_moved(t, side, 0, deadline)) {
        n = -EINTR; /* without a note: it was for the other side */
    }
    heist__tls_unlock(&t->lock);
    return n < 0 ? (int)n : 0;
}

/* Somebody reads already.  Forgets what was announced before, under lock; whoever fills then sets it when he is done.
 */
static void stand_by(struct heist__tls *t) {
    t->stands_by = true;
    (void)heist_event_clear(&t->filled);
}

/* Whom the end of a filling, or a note, concerns.  With lock held. */
static void call_stand_by(struct heist__tls *t) {
    if (!t->stands_by) return;
    t->stands_by = false;
    (void)heist_event_set(&t->filled);
}

int heist__tls_fill(struct heist__tls *t, unsigned fills, int side, double deadline) {
    for (;;) {
        heist__tls_lock(&t->lock);
        bool stale = t->fills != fills || t->in.end > t->in.start, mine = !t->filling;
        int err = stale                ? 0
                  : t->end_below       ? HEIST_ETRUNCATED
                  : t->closed          ? HEIST_ECLOSED
                  : take_note(t, side) ? -EINTR
                                       : 0;
        if (!stale && !err) {
            if (mine) t->filling = true;
            else stand_by(t);
        }
        heist__tls_unlock(&t->lock);
        if (stale || err) return err;
        if (!mine) {
            err = heist_event_wait_until(&t->filled, deadline);
            if (err) return err;
            continue;
        }
        err = read_below(t, side, deadline);
        heist__tls_lock(&t->lock);
        t->filling = false;
        call_stand_by(t);
        heist__tls_unlock(&t->lock);
        return err;
    }
}

void heist__tls_interrupt(void *self, int writer) {
    struct heist__tls *t = self;
    heist__tls_lock(&t->lock);
    t->interrupted[writer != 0] = true;
    if (!t->closed) {
        /* Who reads from below may be the writer, in the middle of a message.  Whoever it is, he is called again. */
        (void)set_until(t, 0, 0);
        if (writer && t->draining) (void)set_until(t, 1, 0);
        call_stand_by(t);
    }
    heist__tls_unlock(&t->lock);
}
