/* What a stream has to send yet: the queue, its marks, and those who wait between them.  The protocol stands in
 * stream.h. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "net/stream.h"

/* A small piece gets a block with room for more. */
enum { SMALL_ROOM = 4000 };

struct heist__chunk *heist__chunk_new(size_t bytes) {
    size_t room = bytes < SMALL_ROOM ? SMALL_ROOM : bytes;
    if (room > SIZE_MAX / 2) return NULL;
    struct heist__chunk *c = heist__alloc(sizeof(*c) + room);
    if (!c) return NULL;
    c->next = NULL;
    c->start = c->end = 0;
    c->room = room;
    return c;
}

void heist__chunks_free(struct heist__chunk *list) {
    while (list) {
        struct heist__chunk *c = list;
        list = c->next;
        heist__free(c);
    }
}

/* Copies `iov` but for its first `skip` bytes behind what the chunk holds. */
void heist__chunk_fill(struct heist__chunk *c, const struct iovec *iov, int count, size_t skip) {
    for (int i = 0; i < count; i++) {
        size_t n = iov[i].iov_len;
        size_t from = skip < n ? skip : n;
        skip -= from;
        if (n == from) continue;
        memcpy(c->data + c->end, (const char *)iov[i].iov_base + from, n - from);
        c->end += n - from;
    }
}

/* ---- under the lock ---- */

void heist__queue_count(heist_stream *s, size_t bytes) {
    s->queued += bytes;
    if (s->queued > s->high) s->paused = true;
}

void heist__queue_add_last(heist_stream *s, struct heist__chunk *c) {
    if (s->tail) s->tail->next = c;
    else s->head = c;
    s->tail = c;
    heist__queue_count(s, c->end - c->start);
}

void heist__queue_add_first(heist_stream *s, struct heist__chunk *c) {
    c->next = s->head;
    s->head = c;
    if (!s->tail) s->tail = c;
    heist__queue_count(s, c->end - c->start);
}

struct heist__chunk *heist__queue_take_all(heist_stream *s) {
    struct heist__chunk *list = s->head;
    s->head = s->tail = NULL;
    s->queued = 0;
    return list;
}

int heist__queue_gather(const heist_stream *s, struct iovec *iov) {
    int count = 0;
    for (struct heist__chunk *c = s->head; c && count < HEIST__QUEUE_VECTORS; c = c->next)
        iov[count++] = (struct iovec){c->data + c->start, c->end - c->start};
    return count;
}

/* ---- by the pen's holder ---- */

void heist__queue_consume(heist_stream *s, size_t bytes) {
    struct heist__chunk *done = NULL;
    struct heist__waitnode *woken = NULL;
    heist__spin_lock(&s->lock);
    s->queued -= bytes;
    for (struct heist__chunk *c; bytes && (c = s->head) != NULL;) { /* no more was sent than stood there */
        size_t n = c->end - c->start;
        if (bytes < n) {
            c->start += bytes;
            break;
        }
        bytes -= n;
        s->head = c->next;
        if (!s->head) s->tail = NULL;
        c->next = done;
        done = c;
    }
    if (s->paused && s->queued <= s->low) {
        s->paused = false;
        woken = heist__waitq_claim_all(&s->drainers, 0);
    }
    heist__spin_unlock(&s->lock);
    heist__waitq_wake_all(woken);
    heist__chunks_free(done);
}

void heist__stream_fail(heist_stream *s, int code) {
    heist__spin_lock(&s->lock);
    if (!s->error) s->error = code;
    struct heist__chunk *list = heist__queue_take_all(s);
    s->paused = false;
    struct heist__waitnode *drainers = heist__waitq_claim_all(&s->drainers, s->error);
    struct heist__waitnode *penless = heist__waitq_claim_all(&s->penless, s->error);
    heist__spin_unlock(&s->lock);
    heist__waitq_wake_all(drainers);
    heist__waitq_wake_all(penless);
    heist__chunks_free(list);
}

/* ---- drain ---- */

static bool unsent(heist_stream *s) { return s->paused && !s->error && s->state < HEIST__STREAM_SHUT; }

int heist_stream_drain(heist_stream *s) {
    if (!s) return -EINVAL;
    int err = heist__wait_entry(heist__self());
    if (err) return err;
    for (bool waited = false;; waited = true) {
        heist__spin_lock(&s->lock);
        err = s->error ? s->error : s->state >= HEIST__STREAM_SHUT ? HEIST_ECLOSED : 0;
        bool waits = unsent(s);
        double deadline = s->write_deadline;
        heist__spin_unlock(&s->lock);
        if (err || !waits) {
            if (!waited) heist__wait_skipped(heist__self()); /* asked anew: after a wait the thread may be another */
            return err;
        }
        err = heist__stream_wait(s, &s->drainers, unsent, deadline);
        if (err && err != -EINTR) return err;
    }
}

size_t heist_stream_get_write_buffer_size(heist_stream *s) {
    if (!s || heist__forked()) return 0;
    heist__spin_lock(&s->lock);
    size_t queued = s->queued;
    heist__spin_unlock(&s->lock);
    return queued;
}

int heist_stream_set_write_buffer_limits(heist_stream *s, size_t high, size_t low) {
    if (!s || low > high) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__waitnode *woken = NULL;
    heist__spin_lock(&s->lock);
    s->high = high;
    s->low = low;
    if (s->queued > high) s->paused = true;
    if (s->paused && s->queued <= low) {
        s->paused = false;
        woken = heist__waitq_claim_all(&s->drainers, 0);
    }
    heist__spin_unlock(&s->lock);
    heist__waitq_wake_all(woken);
    return 0;
}
