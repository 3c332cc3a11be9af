/* What a TLS stream is for the stream above it: read, write, close.  The steps of SSL are taken under the connection's
 * lock, all waiting is done outside it.  See tls.h. */
#include <errno.h>
#include <heist/error.h>
#include <string.h>

#include "tls/tls.h"

/* As much is encrypted at a time; more waits until it has room below. */
#define CHUNK ((size_t)65536)
#define RECORD ((size_t)16384)
/* What a record has beyond its text, at most: header, nonce, a digest, padding. */
#define OVERHEAD ((size_t)384)
/* Beyond that much unsent below, try_writev takes nothing. */
#define HIGH_WATER ((size_t)65536)
/* What is written never makes that much unsent; answers to a peer that asks without end, and reads nothing, do. */
#define ANSWERS_MOST (4 * HIGH_WATER)

/* ---- reading ---- */

/* Sends answers.  Should that fail, the next write says so; but they must not heap up. */
static int give_answers(struct heist__tls *t) {
    (void)heist__tls_flush(t);
    if (heist_stream_get_write_buffer_size(t->below) <= ANSWERS_MOST) return 0;
    heist__tls_lock(&t->lock);
    if (!t->failed) {
        t->failed = HEIST_ETLS;
        (void)BIO_snprintf(t->words, sizeof(t->words), "%s", "the peer asks for answers that it does not read");
    }
    int err = t->failed;
    heist__tls_unlock(&t->lock);
    return err;
}

static ptrdiff_t tls_read(void *self, void *buf, size_t size, double deadline) {
    struct heist__tls *t = self;
    for (;;) {
        size_t n = 0;
        heist__tls_lock(&t->lock);
        int done = t->closed ? HEIST_ECLOSED : t->failed;
        if (!done && !t->goodbye_seen) {
            heist__tls_clear();
            done = heist__tls_outcome(t, SSL_read_ex(t->ssl, buf, size, &n));
        }
        unsigned fills = t->fills;
        bool answer = t->out.end > t->out.start; /* an alert, or the answer to a new key */
        heist__tls_unlock(&t->lock);
        int flood = answer ? give_answers(t) : 0;
        if (flood && done == HEIST__TLS_WANT_READ) done = flood;
        if (done > 0) return (ptrdiff_t)n;
        if (done != HEIST__TLS_WANT_READ) return done ? heist__tls_broken(t, done) : 0;
        int err = heist__tls_fill(t, fills, 0, deadline);
        if (err)
            return err == HEIST_ETRUNCATED ? heist__tls_report(err, "the stream ended without the peer's goodbye")
                                           : err;
    }
}

/* ---- writing ---- */

/* The next piece of up to a record: straight from one buffer, or several small ones put together in `small` (RECORD
 * bytes, or NULL).  `at` is how much of iov has gone. */
static size_t next_piece(const struct iovec *iov, int count, size_t at, unsigned char *small, const void **piece) {
    size_t n = 0;
    for (int i = 0; i < count; i++) {
        if (at >= iov[i].iov_len) {
            at -= iov[i].iov_len;
            continue;
        }
        const char *from = (const char *)iov[i].iov_base + at;
        size_t length = iov[i].iov_len - at;
        at = 0;
        if (n == 0 && (length >= RECORD || i + 1 == count || !small)) {
            *piece = from;
            return length;
        }
        if (length > RECORD - n) length = RECORD - n;
        memcpy(small + n, from, length);
        n += length;
        if (n == RECORD) break;
    }
    *piece = small;
    return n;
}

/* Encrypts up to CHUNK bytes into `out`: a count, 0 when there was nothing to write, HEIST__TLS_WANT_READ, or a code.
 * With lock held. */
static ptrdiff_t encrypt(struct heist__tls *t, const struct iovec *iov, int count) {
    unsigned char *small = count > 1 ? OPENSSL_malloc(RECORD) : NULL;
    size_t total = 0;
    ptrdiff_t err = 0;
    while (total < CHUNK) {
        const void *piece;
        size_t n = next_piece(iov, count, total, small, &piece), written = 0;
        if (!n) break;
        if (n > RECORD) n = RECORD;
        /* The room first: what cannot be put away must not be encrypted. */
        if (!heist__tls_buffer_reserve(&t->out, n + OVERHEAD)) {
            err = -ENOMEM;
            break;
        }
        heist__tls_clear();
        err = heist__tls_outcome(t, SSL_write_ex(t->ssl, piece, n, &written));
        if (err <= 0) break;
        total += written;
    }
    OPENSSL_free(small);
    return total ? (ptrdiff_t)total : err > 0 ? 0 : err;
}

static ptrdiff_t write_step(struct heist__tls *t, const struct iovec *iov, int count, unsigned *fills) {
    heist__tls_lock(&t->lock);
    ptrdiff_t n = t->closed ? HEIST_ECLOSED : t->failed;
    if (!n) n = t->lost;
    if (!n && t->goodbye_sent) n = -EPIPE;
    if (!n) n = encrypt(t, iov, count);
    *fills = t->fills;
    heist__tls_unlock(&t->lock);
    int err = heist__tls_flush(t);
    return err ? err : n;
}

static ptrdiff_t tls_writev(void *self, const struct iovec *iov, int count, double deadline) {
    struct heist__tls *t = self;
    for (;;) {
        unsigned fills;
        int err = heist__tls_drain(t, deadline);
        if (err) return err;
        ptrdiff_t n = write_step(t, iov, count, &fills);
        if (n >= 0) return n;
        if (n != HEIST__TLS_WANT_READ) return heist__tls_broken(t, (int)n);
        /* In the middle of a message of the peer's, which has to be read to its end first. */
        err = heist__tls_fill(t, fills, 1, deadline);
        if (err) return err;
    }
}

static ptrdiff_t tls_try_writev(void *self, const struct iovec *iov, int count) {
    struct heist__tls *t = self;
    unsigned fills;
    if (heist_stream_get_write_buffer_size(t->below) > HIGH_WATER) return -EAGAIN;
    ptrdiff_t n = write_step(t, iov, count, &fills);
    if (n == HEIST__TLS_WANT_READ) return -EAGAIN;
    return n;
}

/* ---- closing ---- */

static void tls_close(void *self) {
    struct heist__tls *t = self;
    heist__tls_lock(&t->lock);
    bool orderly = t->orderly;
    t->closed = true;
    heist__tls_unlock(&t->lock);
    if (orderly) heist_stream_close(t->below); /* nothing is unsent */
    else heist_stream_abort(t->below);
}

static heist_stream *tls_below(void *self) { return ((struct heist__tls *)self)->below; }

static void tls_free(void *self) {
    struct heist__tls *t = self;
    heist_stream *below = t->below;
    heist__tls_end(t);
    heist_stream_unref(below);
}

const heist_stream_ops heist__tls_ops = {
    .size = sizeof(heist_stream_ops),
    .read = tls_read,
    .writev = tls_writev,
    .try_writev = tls_try_writev,
    .try_write_eof = heist__tls_try_write_eof,
    .write_eof = heist__tls_write_eof,
    .finish = heist__tls_finish,
    .close = tls_close,
    .free = tls_free,
    .info = heist__tls_info,
    .interrupt = heist__tls_interrupt,
    .below = tls_below,
};
