/* Work-stealing deque of pointers: one owner, any number of thieves.
 *
 * The owner pushes and pops at the bottom, and may take at the top as a thief
 * of itself; thieves take at the top, the oldest first.
 * Source: Chase and Lev, "Dynamic circular work-stealing deque" (2005), in the
 * C11 form of Le, Pop, Cohen and Zappa Nardelli, "Correct and efficient
 * work-stealing for weak memory models" (2013).  Changed: cells are atomic;
 * the orders stand on the operations instead of on fences (the race detectors
 * do not see fences); the owner remembers a lower bound of top; old buffers
 * are kept until destroy, because a slow thief may still read one.
 *
 * Items are the indices top <= i < bottom; index i lies in cell i & mask.
 *
 *   field   written by            read by   guards
 *   bottom  owner                 thieves   the cells and items below it (release / acquire)
 *   top     whoever wins the CAS  all       each index is claimed once
 *   buf     owner, when it grows  thieves   the copied cells (release / acquire)
 *   cells   owner                 thieves   a value read early is dropped when the CAS fails
 *
 * Why each item goes to one taker.  Every claim at the top is a CAS of top
 * from i to i + 1, so index i is claimed there once.  The owner's pop claims
 * without a CAS only when it saw top < b after it had stored bottom = b.  That
 * store and the load of top after it are seq_cst, and so are a thief's loads of
 * top and then bottom.  Suppose a thief claims b all the same: it read top = b
 * and then bottom > b.  The latter is older than the owner's store, so in the
 * one order S of seq_cst steps the thief's load of bottom stands before the
 * store, hence before the owner's load of top; its load of top = b stands
 * before that again, and the CAS that made top = b earlier still: the owner
 * must have read top >= b.  Contradiction.  With top == b both go through the
 * CAS, and one wins.
 *
 * Why a thief's value is right.  Cell i is written again only for an index
 * i + capacity, which the owner stores after it has read top > i; then the
 * thief's CAS from i fails and the value is dropped.  In a retired buffer
 * cell i keeps the item that it held when the buffer was copied. */
#ifndef HEIST_CONC_DEQUE_H
#define HEIST_CONC_DEQUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"
#include "conc/atomic.h"

struct heist__deque_buf {
    struct heist__deque_buf *older; /* retired before this one; owner only */
    int64_t mask;                   /* capacity - 1; fixed */
    _Atomic(void *) cell[];
};

struct heist__deque {
    /* The owner's line.  bottom and buf are read by thieves too. */
    HEIST_ALIGNED(HEIST_CACHE_LINE) _Atomic(int64_t) bottom;
    _Atomic(struct heist__deque_buf *) buf;
    _Atomic(void *) *cell; /* buf->cell, for the owner */
    int64_t mask;          /* buf->mask, for the owner */
    int64_t top_seen;      /* the owner's last reading of top: top >= top_seen always */

    /* The thieves' line. */
    HEIST_ALIGNED(HEIST_CACHE_LINE) _Atomic(int64_t) top;
};

enum {
    HEIST__STEAL_LOST = -1, /* another took it; there may be more */
    HEIST__STEAL_EMPTY = 0,
    HEIST__STEAL_GOT = 1,
};

/* An empty deque with room for 2^log2_capacity items (1 <= log2_capacity <= 40)
 * before it grows.  0, or -ENOMEM. */
int heist__deque_init(struct heist__deque *d, unsigned log2_capacity);

/* Frees the buffers.  No thread uses the deque any more; items left in it are
 * the caller's concern.  Zeroed memory may be destroyed too. */
void heist__deque_destroy(struct heist__deque *d);

/* Makes room for one more; 0, or -ENOMEM and nothing changed.  Owner. */
int heist__deque_make_room(struct heist__deque *d);

/* Adds at the bottom.  Owner.  0, or -ENOMEM and nothing changed. */
static inline int heist__deque_push(struct heist__deque *d, void *item) {
    int64_t b = a_load_rlx(&d->bottom); /* our own last store */
    if (heist_unlikely(b - d->top_seen > d->mask)) {
        int err = heist__deque_make_room(d);
        if (err < 0) return err;
    }
    /* Relaxed: published by the store of bottom, on which it depends. */
    a_store_rlx(&d->cell[b & d->mask], item);
    /* Release pairs with the load of bottom in heist__deque_steal: a thief that
     * sees index b sees its cell, and what the item points at. */
    a_store_rel(&d->bottom, b + 1);
    return 0;
}

/* Takes at the top, the oldest.  Owner, as a thief of itself: tries again after
 * a lost race, so NULL means empty.  Each lost race is another's gain. */
static inline void *heist__deque_pop_top(struct heist__deque *d) {
    int64_t b = a_load_rlx(&d->bottom); /* ours: it does not move meanwhile */
    int64_t t = a_load_rlx(&d->top);    /* checked by the CAS */
    while (t < b) {
        void *item = a_load_rlx(&d->cell[t & d->mask]); /* our own store */
        /* seq_cst as every claim of top: the proof above counts on it. */
        if (heist_likely(a_cas_sc(&d->top, &t, t + 1))) {
            d->top_seen = t + 1;
            return item;
        }
    }
    d->top_seen = t;
    return NULL;
}

/* Is item the newest, as far as the owner knows?  A thief may have it already: heist__deque_pop tells.  Owner. */
static inline bool heist__deque_newest_is(struct heist__deque *d, void *item) {
    int64_t b = a_load_rlx(&d->bottom); /* our own store; so is the cell.  top only rises: an old reading errs
                                         * to true alone */
    return b > a_load_rlx(&d->top) && a_load_rlx(&d->cell[(b - 1) & d->mask]) == item;
}

/* Takes at the bottom, the newest.  Owner.  NULL when empty. */
static inline void *heist__deque_pop(struct heist__deque *d) {
    int64_t b = a_load_rlx(&d->bottom);
    /* Nothing, or one: claimed at the top, where the last one must be claimed
     * anyway, and the store below is saved (10 ns instead of 16).  Top only
     * rises, so an old reading can only make us take the longer way. */
    if (b - a_load_rlx(&d->top) <= 1) return heist__deque_pop_top(d);
    b--;
    a_store_sc(&d->bottom, b);
    int64_t t = a_load_sc(&d->top);
    d->top_seen = t;
    if (heist_likely(t < b)) return a_load_rlx(&d->cell[b & d->mask]); /* our own store */
    void *item = NULL;
    if (t == b) {
        item = a_load_rlx(&d->cell[b & d->mask]);
        if (!a_cas_sc(&d->top, &t, b + 1)) item = NULL; /* a thief was first */
    }
    /* Empty now: bottom goes back up to where top stands.  Release as in push,
     * so that every value of bottom carries what the owner did before. */
    a_store_rel(&d->bottom, b + 1);
    d->top_seen = b + 1;
    return item;
}

/* Takes at the top, the oldest.  Any thread.  GOT sets *out; otherwise *out is
 * untouched. */
static inline int heist__deque_steal(struct heist__deque *d, void **out) {
    int64_t t = a_load_sc(&d->top);
    /* seq_cst for the proof above; as an acquire it pairs with the stores of
     * bottom: the cell, the item and the buffer that held index t are seen. */
    int64_t b = a_load_sc(&d->bottom);
    if (t >= b) return HEIST__STEAL_EMPTY;
    /* Acquire pairs with make_room: a new buffer is seen with its copied cells. */
    struct heist__deque_buf *buf = a_load_acq(&d->buf);
    void *item = a_load_rlx(&buf->cell[t & buf->mask]); /* counts only if the CAS wins */
    if (!a_cas_sc(&d->top, &t, t + 1)) return HEIST__STEAL_LOST;
    *out = item;
    return HEIST__STEAL_GOT;
}

/* The same two ends without a locked operation.
 *
 * Condition: from the creation of the deque, or from a moment that
 * happens-after the last call of any thief, until a moment that happens-before
 * the next, no thread but the owner steals (a runtime of one worker).
 * heist__deque_size from others stays allowed.  Relaxed throughout: one thread
 * reads its own stores; whoever may steal later is ordered by the condition. */
static inline void *heist__deque_pop_alone(struct heist__deque *d) {
    int64_t b = a_load_rlx(&d->bottom);
    if (b <= a_load_rlx(&d->top)) return NULL;
    b--;
    void *item = a_load_rlx(&d->cell[b & d->mask]);
    a_store_rlx(&d->bottom, b);
    return item;
}

static inline void *heist__deque_pop_top_alone(struct heist__deque *d) {
    int64_t t = a_load_rlx(&d->top);
    if (a_load_rlx(&d->bottom) <= t) return NULL;
    void *item = a_load_rlx(&d->cell[t & d->mask]);
    a_store_rlx(&d->top, t + 1);
    d->top_seen = t + 1;
    return item;
}

/* How many items stand in it: exact for the owner while no thief runs, a hint
 * for everybody else.  Relaxed: nothing may be concluded from it. */
static inline size_t heist__deque_size(struct heist__deque *d) {
    int64_t t = a_load_rlx(&d->top);
    int64_t b = a_load_rlx(&d->bottom);
    return b > t ? (size_t)(b - t) : 0;
}

/* Is there anything to steal?  Sequentially consistent: the second look of a
 * thief that has announced its sleep.  It pairs with an owner that pushes and
 * then looks for sleepers behind a seq_cst step of its own (a fence, or a
 * read-modify-write); push alone is only a release. */
static inline bool heist__deque_empty(struct heist__deque *d) {
    int64_t t = a_load_sc(&d->top);
    return a_load_sc(&d->bottom) <= t;
}

#endif
