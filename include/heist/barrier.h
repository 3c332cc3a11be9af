/* heist/barrier.h: wait for each other.
 *
 * asyncio's Barrier: the last of n parties that waits lets all go on, and the next round begins
 * at once: who comes back early waits for the next round's others.  What a party did before its wait happens
 * before what any of them does after it.
 * The object lives in your memory and belongs to no runtime, like a lock (heist/lock.h). */
#ifndef HEIST_BARRIER_H
#define HEIST_BARRIER_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

typedef struct heist_barrier {
    heist_word opaque[7];
} heist_barrier;

/* For n parties, at least 1. */
#define HEIST_BARRIER_INIT(n) {{(uint64_t)(n)}}

/* Context: any.  Suspends: never.  Errors: -EINVAL (fewer than one party).  Undefined: on one that is in use. */
HEIST_API int heist_barrier_init(heist_barrier *barrier, int parties) HEIST_NODISCARD;
/* A check, not a duty: 0, or -EBUSY when somebody waits.  Context: any.  Suspends: never. */
HEIST_API int heist_barrier_destroy(heist_barrier *barrier);

/* Returns when all parties of this round have come: an index from 0 to n-1, each once, in the order of their coming.
 * Context: any.  Suspends: may.  A party that is cancelled or times out leaves the round, and the others wait for
 * another in its place; when that falls together with the coming of the last one, it may have been counted.
 * Errors: HEIST_EBROKEN, -ECANCELED, HEIST_ENOTINCORO, -ENOMEM (the first wait of a plain thread), -ETIMEDOUT in the
 * form with a deadline (an instant of heist_time()). */
HEIST_API int heist_barrier_wait(heist_barrier *barrier);
HEIST_API int heist_barrier_wait_until(heist_barrier *barrier, double deadline);

/* Breaks it: those who wait and those who will get HEIST_EBROKEN, until reset.  Context: any.  Suspends: never. */
HEIST_API int heist_barrier_abort(heist_barrier *barrier);
/* Those who wait get HEIST_EBROKEN; then it is as new.  Context: any.  Suspends: never. */
HEIST_API int heist_barrier_reset(heist_barrier *barrier);

/* Context: any.  Suspends: never. */
HEIST_API int heist_barrier_parties(heist_barrier *barrier);
HEIST_API int heist_barrier_n_waiting(heist_barrier *barrier);
HEIST_API int heist_barrier_broken(heist_barrier *barrier); /* 1 or 0 */

HEIST_END_DECLS

#endif
