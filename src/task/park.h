/* One wait of one waiter, and who ends it.
 *
 * A waiter (a task, or a plain thread) that can be woken by several parties (the
 * thing it waits for, a deadline, a cancel request) has a park word.  Exactly one
 * party *claims* it, by the one step that also leaves the code of the outcome.
 *
 *   IDLE ──arm──> ARMING ──commit──> PARKED ──claim──> IDLE(code), and the claimer wakes
 *                    └──claim──> IDLE(code): the commit fails, and the waiter goes on by itself
 *
 *   ARMING  the waiter is being published.  The party it waits for may claim it
 *           already, but must not wake it: it is still on its way.  Cancellers and
 *           deadlines may not claim it (a canceller leaves its request pending, and
 *           the commit is followed by a look for it).
 *   PARKED  anybody may claim, and wakes.
 *
 * Lost cancel is impossible: the canceller sets its pending flag, then reads the
 * park word; the commit moves the word to PARKED, then reads the flag; all four are
 * sequentially consistent, so one of them sees the other.
 * Lost wake-up is impossible: a waker finds the waiter only through what published
 * it, which happens after ARMING was stored; a claim before the commit makes the
 * commit fail.
 *
 * After a claim from PARKED the claimer alone may touch the waiter until it wakes it;
 * after the wake nothing of it.  A plain thread's park word may stand on its stack:
 * the thread returns only after it took the one wake of this wait out of its parker,
 * so no waker is under way when the next wait begins. */
#ifndef HEIST_TASK_PARK_H
#define HEIST_TASK_PARK_H

#include <stdint.h>

#include "conc/atomic.h"

struct heist__parker;

/* The low bits of the word; the code stands above them. */
#define HEIST__PARK_IDLE ((int64_t)0)
#define HEIST__PARK_ARMING ((int64_t)1)
#define HEIST__PARK_PARKED ((int64_t)2)
#define HEIST__PARK_STATE ((int64_t)3)

enum { HEIST__CLAIM_LOST, HEIST__CLAIM_EARLY, HEIST__CLAIM_WAKE };

struct heist__park {
    _Atomic(int64_t) state;
    struct heist__parker *parker; /* of the plain thread that waits; NULL: the park word of a task */
};

static inline void heist__park_reset(struct heist__park *p) {
    a_store_rlx(&p->state, HEIST__PARK_IDLE); /* rlx: nobody was told of the waiter */
}

/* By the waiter (a task: on the worker's stack, its own is left), before it is published. */
static inline void heist__park_arm(struct heist__park *p) {
    a_store_rlx(&p->state, HEIST__PARK_ARMING); /* rlx: whatever publishes the waiter releases it */
}

/* By the waiter, after it was published: false when it was claimed meanwhile. */
static inline bool heist__park_commit(struct heist__park *p) {
    int64_t expected = HEIST__PARK_ARMING;
    return a_cas_sc(&p->state, &expected, HEIST__PARK_PARKED);
}

/* The code of the claim that ended the wait.  By the waiter. */
static inline int heist__park_code(struct heist__park *p) {
    return (int)(a_load_acq(&p->state) / 4); /* acq: pairs with the claim */
}

/* By the party that the waiter waits for: LOST, EARLY (no wake), or WAKE (the caller must wake it). */
static inline int heist__park_claim(struct heist__park *p, int code) {
    int64_t found = a_load_acq(&p->state); /* acq: pairs with the cas of another claimer; only a first look */
    while ((found & HEIST__PARK_STATE) != HEIST__PARK_IDLE)
        if (a_cas_sc(&p->state, &found, (int64_t)code * 4 | HEIST__PARK_IDLE))
            return found == HEIST__PARK_PARKED ? HEIST__CLAIM_WAKE : HEIST__CLAIM_EARLY;
    return HEIST__CLAIM_LOST;
}

/* By a canceller or a deadline: true, and the caller must wake it. */
static inline bool heist__park_claim_parked(struct heist__park *p, int code) {
    int64_t expected = HEIST__PARK_PARKED;
    return a_cas_sc(&p->state, &expected, (int64_t)code * 4 | HEIST__PARK_IDLE);
}

/* Ends a claim: makes the task ready, or unparks the thread.  The waiter is not touched afterwards. */
void heist__park_wake(struct heist__park *p);

#endif
