/* The lock inside: what condition.c needs of it.  See lock.c. */
#ifndef HEIST_SYNC_LOCK_H
#define HEIST_SYNC_LOCK_H

#include <heist/lock.h>

#include "sync/embedded.h"

struct heist__lock {
    _Atomic(uint32_t) word; /* any thread; see lock.c */
    struct heist__spin guard;
    struct heist__waitq queue; /* guard */
    _Atomic(uint32_t) guess;   /* the holder; a hint: the word without HELD, as it was last found */
};

/* One that waits for a lock, on its stack. */
struct heist__lockwait {
    struct heist__wait wait;
    struct heist__waitnode node;
    struct heist__lock *lock;
    bool owns;   /* it was woken with the lock in hand; else: to try */
    bool again;  /* it was woken to try once, in vain */
    bool strict; /* the lock is handed to it at once */
    bool asleep; /* its park word plays no part: nobody else can wake it */
};

static inline struct heist__lock *heist__lock_of(heist_lock *lock) { return (struct heist__lock *)lock; }

static inline bool heist__lock_is_held(struct heist__lock *l) {
    return a_load_rlx(&l->word) & 1; /* rlx: old is as good as new, unless the caller holds it */
}

/* Waits for the lock whatever comes: no request ends it. */
void heist__lock_acquire_shielded(struct heist__lock *l);

/* Puts a waiter that sleeps, and that the caller has claimed, at the end of the queue: it wakes with the lock. */
void heist__lock_adopt(struct heist__lock *l, struct heist__lockwait *w);

int heist__lock_release(struct heist__lock *l);

#endif
