/* The end of a connection: our close_notify, and the peer's.
 *
 * write_eof says ours, and reading goes on.  finish says ours, if nobody did, sees that all has gone out, and then
 * waits for the peer's, up to the shutdown time-out: a socket that is closed while bytes stand in it unread resets the
 * connection, and that would take our last bytes from the peer too.  What the peer still sends meanwhile is read and
 * dropped.  A peer that ends its stream without a goodbye is gone, and there is nobody left to wait for. */
#include <errno.h>
#include <heist/error.h>
#include <heist/runtime.h>

#include "tls/tls.h"

/* In the middle of a message of the peer's: reads on, as far as there is something to read.  What comes behind the
 * message stays for who reads.  0: at its end; HEIST__TLS_WANT_READ; or a code.  With lock held. */
static int end_message(struct heist__tls *t) {
    unsigned char next;
    size_t n;
    if (!SSL_in_init(t->ssl)) return 0;
    int err = heist__tls_outcome(t, SSL_peek_ex(t->ssl, &next, 1, &n));
    if (err == HEIST__TLS_WANT_READ) return SSL_in_init(t->ssl) ? err : 0;
    return err < 0 ? err : 0;
}

/* Ours: 0, HEIST__TLS_WANT_READ (in the middle of a message of the peer's), or a code. */
static int say(struct heist__tls *t, unsigned *fills) {
    heist__tls_lock(&t->lock);
    int err = t->closed ? HEIST_ECLOSED : t->failed ? t->failed : t->lost;
    if (!err && !t->goodbye_sent) {
        heist__tls_clear();
        err = end_message(t);
        if (!err) {
            heist__tls_clear();
            int ret = SSL_shutdown(t->ssl);
            if (ret < 0) err = heist__tls_outcome(t, ret);
            if (err >= 0) t->goodbye_sent = true, err = 0;
        }
    }
    *fills = t->fills;
    heist__tls_unlock(&t->lock);
    int sent = heist__tls_flush(t);
    return err ? err : sent;
}

int heist__tls_try_write_eof(void *self) {
    unsigned fills;
    int err = say(self, &fills);
    return err == HEIST__TLS_WANT_READ ? -EAGAIN : err;
}

int heist__tls_write_eof(void *self, double deadline) {
    struct heist__tls *t = self;
    for (;;) {
        unsigned fills;
        int err = say(t, &fills);
        if (!err) err = heist__tls_drain(t, deadline);
        if (err != HEIST__TLS_WANT_READ) return err;
        err = heist__tls_fill(t, fills, 1, deadline);
        if (err) return err;
    }
}

/* One look for the peer's: 1 it was there, or will not come; 0 or HEIST__TLS_WANT_READ, not yet; or a code. */
static int listen_for_it(struct heist__tls *t, unsigned *fills) {
    unsigned char dropped[512];
    size_t n;
    heist__tls_lock(&t->lock);
    int done = 1;
    if (!t->closed && !t->failed && !t->goodbye_seen) {
        heist__tls_clear();
        done = heist__tls_outcome(t, SSL_read_ex(t->ssl, dropped, sizeof(dropped), &n));
        done = done == HEIST__TLS_WANT_READ ? done : done == 1 ? 0 : 1;
    }
    *fills = t->fills;
    heist__tls_unlock(&t->lock);
    return done;
}

static int wait_for_it(struct heist__tls *t, double deadline) {
    for (;;) {
        unsigned fills;
        int done = listen_for_it(t, &fills);
        if (done > 0) return 0;
        if (heist_time() >= deadline) return -ETIMEDOUT; /* also for a peer that always sends something */
        if (!done) continue;
        int err = heist__tls_fill(t, fills, 1, deadline);
        if (err == HEIST_ETRUNCATED || err == -ECONNRESET) return 0; /* gone, and everything of ours was sent before */
        if (err) return err;
    }
}

int heist__tls_finish(void *self, double deadline) {
    struct heist__tls *t = self;
    double limit = heist_time() + t->shutdown_timeout;
    if (deadline < limit) limit = deadline;
    if (t->finish_by == 0) t->finish_by = limit; /* an interrupted one is called again, and the time goes on */
    if (t->finish_by < limit) limit = t->finish_by;
    int err = heist__tls_write_eof(t, limit);
    if (!err) err = heist_stream_set_write_buffer_limits(t->below, 0, 0);
    if (!err) err = heist__tls_drain(t, limit);
    if (!err) err = wait_for_it(t, limit);
    if (!err) {
        heist__tls_lock(&t->lock);
        t->orderly = true;
        heist__tls_unlock(&t->lock);
    }
    return err;
}
