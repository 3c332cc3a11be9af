/* Short lock between threads, for a few instructions of work at a time.
 *
 * Any thread; never held across user code, a system call that may block, or a
 * suspension.  Zeroed memory is an unlocked lock.
 * Test and test-and-set: a waiter reads until it sees the lock free, and only
 * then tries to write, so waiters do not fight over the line.  After a bounded
 * number of reads it gives its time slice away (spin.c): with more threads
 * than processors the holder may be the one that is not running.
 * Invariant: word is 1 exactly while one thread is between lock and unlock. */
#ifndef HEIST_CONC_SPIN_H
#define HEIST_CONC_SPIN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/macros.h"
#include "conc/atomic.h"
#include "conc/rank.h"

struct heist__spin {
    _Atomic(uint32_t) word; /* 0 free, 1 held; written by any thread */
#ifdef HEIST_DEBUG_LOCKS
    int rank; /* fixed at init */
#endif
};

/* The contended path: returns with the lock held. */
void heist__spin_lock_slow(struct heist__spin *s);

static inline void heist__spin_init_ranked(struct heist__spin *s, int rank) {
    atomic_init(&s->word, 0);
#ifdef HEIST_DEBUG_LOCKS
    s->rank = rank;
#else
    (void)rank;
#endif
}

static inline void heist__spin_init(struct heist__spin *s) {
    heist__spin_init_ranked(s, HEIST__RANK_NONE);
}

static inline void heist__spin_lock(struct heist__spin *s) {
    heist__rank_push(s->rank, s);
    /* Acquire pairs with the release in heist__spin_unlock: the last holder's
     * writes are seen, and nothing of this section moves before it. */
    if (heist_unlikely(a_xchg_acq(&s->word, 1) != 0)) heist__spin_lock_slow(s);
}

/* Takes the lock when it is free; never waits. */
static inline bool heist__spin_trylock(struct heist__spin *s) {
    /* The read first, so that a failing try does not take the line away from
     * the holder; relaxed, for it decides nothing but whether to try. */
    if (a_load_rlx(&s->word) != 0 || a_xchg_acq(&s->word, 1) != 0) return false;
    heist__rank_push(s->rank, s);
    return true;
}

static inline void heist__spin_unlock(struct heist__spin *s) {
    heist__rank_pop(s->rank, s);
    /* Release pairs with the acquire in lock and trylock. */
    a_store_rel(&s->word, 0);
#ifdef HEIST_SEEDED
    heist__sim_wake(s, 1);
#endif
}

/* A hint for contract checks: somebody holds the lock. */
static inline bool heist__spin_is_held(struct heist__spin *s) {
    return a_load_rlx(&s->word) != 0;
}

#endif
