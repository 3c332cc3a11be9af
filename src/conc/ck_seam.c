/* The calls into Concurrency Kit; see ck_seam.h for the contract and for why
 * this file is built without the race detector.  Nothing here reads what the
 * pointers point at. */
#include "conc/ck_seam.h"

#include <ck_backoff.h>
#include <ck_ring.h>

#include "base/alloc.h"

struct heist__ring {
    struct ck_ring ring;         /* keeps its ends on cache lines of their own */
    struct ck_ring_buffer *cell; /* ring.size of them, in the same block */
};

struct heist__ring *heist__ring_create(size_t min_items) {
    if (min_items == 0 || min_items > (size_t)1 << 30) return NULL;
    /* One cell always stays free: full and empty would look the same. */
    unsigned cells = 2;
    while (cells - 1 < min_items) cells *= 2;
    size_t bytes = sizeof(struct heist__ring) + (size_t)cells * sizeof(struct ck_ring_buffer);
    struct heist__ring *r = heist__aligned_alloc(HEIST_CACHE_LINE, bytes);
    if (!r) return NULL;
    r->cell = (struct ck_ring_buffer *)(r + 1);
    ck_ring_init(&r->ring, cells);
    return r;
}

void heist__ring_destroy(struct heist__ring *r) {
    heist__free(r);
}

size_t heist__ring_capacity(const struct heist__ring *r) {
    return ck_ring_capacity(&r->ring) - 1;
}

size_t heist__ring_size(const struct heist__ring *r) {
    return ck_ring_size(&r->ring);
}

bool heist__ring_ck_enqueue(struct heist__ring *r, void *item) {
    return ck_ring_enqueue_mpmc(&r->ring, r->cell, item);
}

bool heist__ring_ck_dequeue(struct heist__ring *r, void **out) {
    /* Through a variable of our own: a lost race inside may leave the value of
     * another's item behind. */
    void *item;
    if (!ck_ring_dequeue_mpmc(&r->ring, r->cell, &item)) return false;
    *out = item;
    return true;
}

/* Concurrency Kit's exponential count, with limits that suit sections of some
 * tens of nanoseconds: its own start (512) and end (2^20) are 0.2 us and 0.5 ms. */
#define BACKOFF_FIRST 16u
#define BACKOFF_LAST 4096u

void heist__backoff(unsigned *count) {
    heist__sim_spin("backoff", 0);
    if (*count == 0) *count = BACKOFF_FIRST;
    if (*count > BACKOFF_LAST) *count = BACKOFF_LAST;
    ck_backoff_eb(count);
}
