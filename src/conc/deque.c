/* Birth, growth and death of the deque's buffers; the protocol is in deque.h. */
#include "conc/deque.h"

#include <errno.h>

#include "base/alloc.h"

/* Uninitialised cells are never read: only indices below bottom are. */
static struct heist__deque_buf *buf_new(int64_t capacity) {
    struct heist__deque_buf *buf = heist__alloc(sizeof(*buf) + (size_t)capacity * sizeof(buf->cell[0]));
    if (!buf) return NULL;
    buf->older = NULL;
    buf->mask = capacity - 1;
    return buf;
}

/* Relaxed or release store of buf by the caller's choice is not offered: it is
 * always a release, which pairs with the load of buf in heist__deque_steal. */
static void use_buf(struct heist__deque *d, struct heist__deque_buf *buf) {
    d->cell = buf->cell;
    d->mask = buf->mask;
    a_store_rel(&d->buf, buf);
}

int heist__deque_init(struct heist__deque *d, unsigned log2_capacity) {
    struct heist__deque_buf *buf = buf_new((int64_t)1 << log2_capacity);
    if (!buf) return -ENOMEM;
    atomic_init(&d->bottom, 0);
    atomic_init(&d->top, 0);
    atomic_init(&d->buf, NULL);
    d->top_seen = 0;
    use_buf(d, buf);
    return 0;
}

void heist__deque_destroy(struct heist__deque *d) {
    struct heist__deque_buf *buf = a_load_rlx(&d->buf); /* no other thread any more */
    while (buf) {
        struct heist__deque_buf *older = buf->older;
        heist__free(buf);
        buf = older;
    }
    a_store_rlx(&d->buf, NULL);
    d->cell = NULL;
}

/* Twice the size.  The old buffer stays behind the new one until destroy: a
 * thief that read its address may still read its cells.  All of them together
 * are no larger than the newest. */
static int grow(struct heist__deque *d, int64_t t, int64_t b) {
    struct heist__deque_buf *old = a_load_rlx(&d->buf); /* our own store */
    struct heist__deque_buf *buf = buf_new((old->mask + 1) * 2);
    if (!buf) return -ENOMEM;
    for (int64_t i = t; i < b; i++) {
        /* Relaxed: our own stores, published with the buffer's address. */
        void *item = a_load_rlx(&old->cell[i & old->mask]);
        atomic_init(&buf->cell[i & buf->mask], item);
    }
    buf->older = old;
    use_buf(d, buf);
    return 0;
}

HEIST_COLD int heist__deque_make_room(struct heist__deque *d) {
    int64_t b = a_load_rlx(&d->bottom); /* our own store */
    /* Acquire pairs with the CAS of the claims: a cell that is about to be
     * written again was read by its thief before (a relaxed reading would let
     * the new value be stored before the thief's load on a weak machine, in
     * the same cell that the thief's winning CAS vouches for). */
    int64_t t = a_load_acq(&d->top);
    d->top_seen = t;
    if (b - t <= d->mask) return 0;
    return grow(d, t, b);
}
