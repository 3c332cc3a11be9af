/* Concurrency Kit behind one seam: no file but ck_seam.c includes ck_*.h.
 *
 * Why a seam: Concurrency Kit orders memory by inline assembly, which
 * ThreadSanitizer cannot see, and so it reports correct programs.  ck_seam.c is
 * built without the detector; the inline wrappers below, built with their
 * caller, tell it what happens: each enqueue releases, each dequeue that got
 * something acquires, on the ring's address.
 *
 * heist__ring: bounded ring of pointers, many to many.  Any thread.  Invariant:
 * each pointer that went in comes out once, in the order in which the enqueues
 * took their cells.  Dequeuing is lock-free.  Enqueuing is not: it publishes in
 * the order of the cells, so it spins while an enqueuer that took its cell
 * earlier is interrupted.  Fit for exchanges that are rare or have a processor
 * for each thread; a spin lock, which gives its time slice away, degrades
 * better where threads outnumber processors. */
#ifndef HEIST_CONC_CK_SEAM_H
#define HEIST_CONC_CK_SEAM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/macros.h"
#include "conc/yield_point.h"

#if HEIST_TSAN
#include <sanitizer/tsan_interface.h>
#define heist__race_release(p) __tsan_release(p)
#define heist__race_acquire(p) __tsan_acquire(p)
#else
#define heist__race_release(p) ((void)(p))
#define heist__race_acquire(p) ((void)(p))
#endif

struct heist__ring;

/* A ring that holds at least min_items pointers (1 to 2^30); NULL when there is
 * no memory.  The caller owns it. */
struct heist__ring *heist__ring_create(size_t min_items);

/* No thread uses the ring any more; pointers left in it are the caller's. */
void heist__ring_destroy(struct heist__ring *r);

/* How many pointers it holds when full; how many it holds now, as a hint. */
size_t heist__ring_capacity(const struct heist__ring *r);
size_t heist__ring_size(const struct heist__ring *r);

/* The bare calls; use the two below. */
bool heist__ring_ck_enqueue(struct heist__ring *r, void *item);
bool heist__ring_ck_dequeue(struct heist__ring *r, void **out);

/* false when full; item may not be NULL. */
static inline bool heist__ring_try_enqueue(struct heist__ring *r, void *item) {
    heist__yield_point();
    heist__race_release(r);
    return heist__ring_ck_enqueue(r, item);
}

/* false when empty, and *out is untouched. */
static inline bool heist__ring_try_dequeue(struct heist__ring *r, void **out) {
    heist__yield_point();
    if (!heist__ring_ck_dequeue(r, out)) return false;
    heist__race_acquire(r);
    return true;
}

/* Waits a little, and longer each time that it is called with the same count
 * (0 at first), for a loop that lost a race. */
void heist__backoff(unsigned *count);

#endif
