/* A feed of bytes: a chain of the ring's buffers, and the pool of them that the kernel takes from.  See feed.h.
 *
 * A ring has one pool, a power of two of buffers of SIZE bytes, in memory that is touched when it is first used.
 *
 *   buffer   the kernel's ──a completion names it──> a feed's, in its chain ──read to its end, or dropped──> the
 * kernel's
 *
 * One lock guards the places in which buffers are given to the kernel, which is the only other one that looks there.  A
 * buffer's length and what was read of it belong to the feed's taker once it is in the chain; the link to the next one
 * is written by the ring's reaper, under the feed's lock, as the taker reads it.
 *
 * A request that finds the pool empty ends with -ENOBUFS, before anything has come even.  Its owner reads by himself,
 * and after some of those in a row he goes over to readiness, for good. */
#include "loop/feed.h"

#ifdef __has_include
#if __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#endif
#endif

#ifdef IORING_RECV_MULTISHOT

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/alloc.h"
#include "base/sys.h"
#include "loop/uring_feed.h"

#define COUNT 256 /* a power of two */
#define SIZE ((size_t)8192)
#define GROUP 0

struct buffer {
    uint32_t next; /* in its chain */
    uint32_t at, end;
};

struct heist__buffers {
    struct heist__spin lock; /* guards tail, and the places */
    uint16_t tail;
    uint32_t count;
    struct io_uring_buf *place;
    void *memory; /* the places, then the bytes */
    size_t bytes, skip;
    struct buffer buffer[];
};

static char *bytes_of(struct heist__buffers *b, uint32_t i) { return (char *)b->memory + b->skip + i * SIZE; }

/* The tail that the kernel reads lies in the first place's unused word. */
static void give(struct heist__buffers *b, uint32_t i) {
    heist__spin_lock(&b->lock);
    struct io_uring_buf *place = &b->place[b->tail & (b->count - 1)];
    place->addr = (uint64_t)(uintptr_t)bytes_of(b, i);
    place->len = (uint32_t)SIZE;
    place->bid = (uint16_t)i;
    _Atomic(uint16_t) *tail = (void *)&b->place[0].resv;
    a_store_rel(tail, ++b->tail); /* rel: the place comes first; pairs with the kernel's load */
    heist__spin_unlock(&b->lock);
}

struct heist__buffers *heist__buffers_of(struct heist__uring *u) {
    if (u->buffers) return u->buffers;
    uint32_t count = COUNT;
    struct heist__buffers *b = heist__zalloc(sizeof(*b) + count * sizeof(struct buffer));
    if (!b) return NULL;
    b->count = count;
    b->skip = (count * sizeof(struct io_uring_buf) + 4095) / 4096 * 4096;
    b->bytes = b->skip + count * SIZE;
    b->memory = heist__sys_map_private(b->bytes);
    struct io_uring_buf_reg reg;
    memset(&reg, 0, sizeof(reg));
    reg.ring_addr = (uint64_t)(uintptr_t)b->memory;
    reg.ring_entries = count;
    reg.bgid = GROUP;
    if (!b->memory || heist__sys_uring_register(u->ring.fd, IORING_REGISTER_PBUF_RING, &reg, 1)) {
        if (b->memory) heist__sys_unmap(b->memory, b->bytes);
        heist__free(b);
        return NULL;
    }
    b->place = b->memory;
    heist__spin_init(&b->lock);
    for (uint32_t i = 0; i < count; i++) give(b, i);
    u->buffers = b;
    return b;
}

void heist__buffers_free(struct heist__buffers *b) {
    heist__sys_unmap(b->memory, b->bytes);
    heist__free(b);
}

/* ---- the feed ---- */

void heist__recv_fill(const struct heist__feed *f, struct io_uring_sqe *e) {
    (void)f;
    e->opcode = IORING_OP_RECV;
    e->ioprio = IORING_RECV_MULTISHOT;
    e->flags = IOSQE_BUFFER_SELECT;
    e->buf_group = GROUP;
}

/* Failures of the request, and not of the connection.  (That of a connection is told by the kernel once.) */
static bool is_ours(int error) {
    switch (error) {
        case -ECANCELED:
        case -EAGAIN:
        case -EINTR:
        case -ENOMEM:
        case -ENOBUFS:
        case -EINVAL:
        case -EOPNOTSUPP: return true;
        default: return false;
    }
}

void heist__recv_keep(struct heist__feed *f, const struct io_uring_cqe *c) {
    struct heist__buffers *b = f->ring->buffers;
    if (c->flags & IORING_CQE_F_BUFFER) {
        uint32_t i = c->flags >> IORING_CQE_BUFFER_SHIFT;
        if (c->res > 0 && !f->orphan) {
            b->buffer[i] = (struct buffer){HEIST__NO_BUFFER, 0, (uint32_t)c->res};
            if (f->last == HEIST__NO_BUFFER) f->first = i;
            else b->buffer[f->last].next = i;
            f->last = i;
            f->kept++;
            f->unsure = true;
        } else {
            give(b, i); /* the kernel may name one at the end of the stream */
        }
    }
    /* The end of the stream is not kept: the owner reads it by himself. */
    if (c->res < 0 && !is_ours(c->res)) f->error = c->res;
}

/* The first one is read to its end, or dropped.  Under the feed's lock. */
static uint32_t unchain(struct heist__feed *f) {
    uint32_t i = f->first;
    f->first = f->ring->buffers->buffer[i].next;
    if (f->first == HEIST__NO_BUFFER) f->last = HEIST__NO_BUFFER;
    f->kept--;
    return i;
}

void heist__recv_drop(struct heist__feed *f) {
    while (f->kept) give(f->ring->buffers, unchain(f));
}

ptrdiff_t heist__feed_recv(struct heist__feed *f, void *buf, size_t size, bool joins) {
    struct heist__buffers *b = f->ring->buffers;
    char *to = buf;
    ptrdiff_t code = 0;
    bool look = false;
    for (size_t left = size; left;) {
        heist__spin_lock(&f->lock);
        uint32_t i = f->first;
        if (i == HEIST__NO_BUFFER && left == size) {
            code = f->error ? f->error : f->out ? -EAGAIN : HEIST__FEED_ENDED;
            f->error = 0;
            look = code == -EAGAIN && f->unsure;
            f->unsure = false;
        }
        heist__spin_unlock(&f->lock);
        if (i == HEIST__NO_BUFFER) break;
        struct buffer *from = &b->buffer[i];
        size_t n = from->end - from->at < left ? from->end - from->at : left;
        memcpy(to, bytes_of(b, i) + from->at, n);
        to += n;
        left -= n;
        from->at += (uint32_t)n;
        if (from->at < from->end) break;
        heist__spin_lock(&f->lock);
        (void)unchain(f);
        heist__spin_unlock(&f->lock);
        give(b, i);
        if (!joins) break;
    }
    if (look && heist__sys_look(f->fd, POLLRDHUP) > 0) heist__feed_stop(f); /* feed.h, 6 */
    return code ? code : to - (char *)buf;
}

#endif
