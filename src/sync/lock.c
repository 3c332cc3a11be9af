/* The lock: a word for those who come when it is free, a queue for the others.
 *
 * The word:
 *   HELD     somebody has it
 *   QUEUED   the queue is not empty
 *   WOKEN    the first of the queue was taken out of it and woken, to try for itself
 *   HANDOFF  the first of the queue is not to be passed: it tried in vain, or is strict
 * HELD is set by a compare-and-swap of whoever takes the lock, and cleared by a
 * compare-and-swap of whoever releases it.  The queue and the other bits change only under the
 * guard, but for WOKEN, which the woken one clears as it takes the lock.
 *
 *   acquire  0 -> HELD, one step.  With other bits: in passing, if the caller may and
 *            HANDOFF is not set; else under the guard it sets QUEUED, and in the same
 *            step learns whether HELD is set: if so it stands in the queue.
 *   release  HELD -> 0, one step, and nothing is touched after it.  With QUEUED and
 *            without WOKEN: under the guard it hands the lock to the first (HELD stays), or
 *            takes the first out, sets WOKEN and clears HELD, in one step.
 *   woken    tries; when it has the lock it clears WOKEN.  When it finds HELD it stands first
 *            in the queue again, with HANDOFF, in the step that clears WOKEN.
 *
 * No wake-up is lost: whenever HELD is clear, QUEUED is clear or WOKEN is set.  A waiter sets
 * QUEUED only in a word with HELD (its compare-and-swap sees both); a release clears HELD only
 * in a word without QUEUED, or with WOKEN; WOKEN is cleared by one that holds the lock,
 * or in a word with HELD.  So with HELD clear either nobody waits, or somebody is on its way who
 * takes the lock, or finds it HELD.  A waiter that was cancelled only leaves: a bit may go with
 * it, HELD does not change.
 * Order among waiters: the queue; who comes back stands first, and while it was away
 * nobody was taken out.
 * Bound: only those pass that come while WOKEN is set and the woken one is on its way, once for each waiter.
 *
 * Who may pass: tasks of a runtime of several workers, and plain threads.  A strict caller is
 * a task that is pinned, or of a runtime of one worker: it goes behind those who wait, and is handed the
 * lock, which is asyncio's order.
 *
 * Memory order: each acquire is an acquire on the word, each release a release; all steps are
 * read-modify-writes, so that each continues the release sequence of those before it. */
#include "sync/lock.h"

#include <heist/error.h>
#include <heist/inspect.h>
#include <math.h>
#include <stdio.h>

#include "base/sys.h"
#include "conc/parker.h"

#define HELD 1u
#define QUEUED 2u
#define WOKEN 4u
#define HANDOFF 8u
#define CROWD (QUEUED | WOKEN) /* where many come it is mostly this, and HELD */

_Static_assert(sizeof(struct heist__lock) <= sizeof(heist_lock), "the words of heist_lock are too few");

/* A callback stands where a pinned task does. */
static bool may_pass(const struct heist__self *self) {
    const heist_task *t = self->task;
    return !self->worker || (!self->worker->alone && !(t && t->pinned));
}

static bool free_for(uint32_t word, bool pass) { return !word || (pass && !(word & (HELD | HANDOFF))); }

static bool take(struct heist__lock *l, bool pass) {
    uint32_t v = a_load_rlx(&l->word); /* rlx: the exchange decides */
    while (free_for(v, pass))
        if (a_cas_acq(&l->word, &v, v | HELD)) return true; /* acq: pairs with the last release */
    return false;
}

/* What the word says of the queue.  Under the guard. */
static uint32_t queue_bits(struct heist__lock *l) {
    struct heist__waitnode *n = l->queue.head;
    if (!n) return 0;
    struct heist__lockwait *first = heist_container_of(n, struct heist__lockwait, node);
    return first->strict || first->again ? QUEUED | HANDOFF : QUEUED;
}

/* Brings the word in line with the queue.  Under the guard; HELD may come and go meanwhile. */
static void settle(struct heist__lock *l) {
    uint32_t v = a_load_rlx(&l->word), bits = queue_bits(l);               /* rlx: the exchange decides */
    while (!a_cas_ar(&l->word, &v, (v & (HELD | WOKEN)) | bits)) continue; /* ar: goes on with what was released */
}

static void link_first(struct heist__waitq *q, struct heist__waitnode *n) {
    n->prev = NULL;
    n->next = q->head;
    if (q->head) q->head->prev = n;
    else q->tail = n;
    q->head = n;
    n->tag = 0;
    n->linked = true;
}

/* Takes the lock (true), or stands in the queue.  By the waiter, or for it.  Under the guard. */
static bool take_or_link(struct heist__lock *l, struct heist__lockwait *w) {
    uint32_t v = a_load_rlx(&l->word); /* rlx: the exchange decides */
    uint32_t gone = w->again ? WOKEN : 0;
    for (;;) {
        if (w->again ? !(v & HELD) : free_for(v, !w->strict)) {
            if (!a_cas_acq(&l->word, &v, (v & ~gone) | HELD)) continue; /* acq: as take */
            return true;
        }
        /* A lock that is free while somebody is on its way to it (WOKEN): a strict one waits behind. */
        uint32_t bits = QUEUED | (w->again || (w->strict && !l->queue.head) ? HANDOFF : 0);
        if (a_cas_ar(&l->word, &v, (v & ~gone) | bits)) break; /* ar: goes on with what was released */
    }
    if (w->again) link_first(&l->queue, &w->node);
    else heist__waitq_link(&l->queue, &w->node);
    return false;
}

/* The caller holds the lock, and somebody waits (or did): hands it over, or frees it. */
static HEIST_COLD int pass_on(struct heist__lock *l) {
    struct heist__park *wake = NULL;
    heist__spin_lock(&l->guard);
    for (struct heist__waitnode *n; (n = l->queue.head);) {
        uint32_t v = a_load_rlx(&l->word); /* rlx: HELD is the caller's, the rest the guard's */
        struct heist__lockwait *w = heist_container_of(n, struct heist__lockwait, node);
        bool hand = w->strict || w->again;
        if (!hand && (v & WOKEN)) break; /* since the caller looked one was woken */
        heist__waitq_unlink(&l->queue, n);
        struct heist__park *park = n->park;
        w->owns = hand; /* before the claim: then it may be gone */
        if (w->asleep) {
            wake = park;
        } else {
            int claim = heist__waitq_claim_node(n, 0);
            if (claim == HEIST__CLAIM_LOST) continue;
            if (claim == HEIST__CLAIM_WAKE) wake = park;
        }
        uint32_t next = queue_bits(l) | (hand ? HELD | (v & WOKEN) : WOKEN);
        /* ar: what the caller wrote goes with the lock, also when it is freed.  A store would do but for those
         * who release what they do not hold. */
        while (!a_cas_ar(&l->word, &v, next)) continue;
        heist__spin_unlock(&l->guard);
        /* Not touched after this: one that was handed the lock passes the guard, one that was woken will. */
        if (wake) heist__park_wake(wake);
        return 0;
    }
    settle(l); /* with nobody left, or with somebody on its way: the one step below will do */
    heist__spin_unlock(&l->guard);
    return -EAGAIN;
}

static int release_slow(struct heist__lock *l) {
    uint32_t v = a_load_rlx(&l->word); /* rlx: the exchange decides */
    while (v & HELD) {
        if (v == HELD || v == (HELD | CROWD)) a_store_rlx(&l->guess, v & ~HELD); /* rlx: a hint */
        if ((v & (QUEUED | WOKEN)) != QUEUED) {
            if (a_cas_rel(&l->word, &v, v & ~HELD)) return 0; /* rel: as release */
        } else if (pass_on(l) == 0) {
            return 0;
        } else {
            v = a_load_rlx(&l->word); /* rlx: the exchange decides */
        }
    }
    return HEIST_ENOTACQUIRED;
}

int heist__lock_release(struct heist__lock *l) {
    uint32_t guess = a_load_rlx(&l->guess), held = guess | HELD; /* rlx: as acquire */
    /* rel: pairs with take; the last time that the lock is touched */
    if (heist_likely(a_cas_rel(&l->word, &held, guess))) return 0;
    return release_slow(l);
}

static bool publish(struct heist__wait *wait, heist_loop *loop) {
    (void)loop;
    struct heist__lockwait *w = heist_container_of(wait, struct heist__lockwait, wait);
    struct heist__lock *l = w->lock;
    w->node.park = wait->park;
    w->owns = false;
    heist__spin_lock(&l->guard);
    bool taken = take_or_link(l, w);
    heist__spin_unlock(&l->guard);
    if (taken) w->owns = true; /* nobody else knows of it */
    return !taken;
}

static void withdraw(struct heist__wait *wait) {
    struct heist__lockwait *w = heist_container_of(wait, struct heist__lockwait, wait);
    heist__spin_lock(&w->lock->guard);
    heist__waitq_unlink(&w->lock->queue, &w->node);
    settle(w->lock);
    heist__spin_unlock(&w->lock->guard);
}

/* Woken to try: true when it has the lock. */
static bool try_woken(struct heist__lock *l) {
    uint32_t v = a_load_rlx(&l->word); /* rlx: the exchange decides */
    while (!(v & HELD)) {
        /* acq: as take.  WOKEN, which nobody else clears, goes in the same step. */
        if (a_cas_acq(&l->word, &v, (v | HELD) & ~WOKEN)) return true;
    }
    return false;
}

static int acquire_slow(struct heist__lock *l, int64_t deadline_ns, bool strict) {
    struct heist__lockwait w;
    w.lock = l;
    w.strict = strict;
    w.again = false;
    w.asleep = false;
    w.owns = false; /* told by a release that hands it over */
    w.node.linked = false;
    w.wait.deadline_ns = deadline_ns;
    w.wait.publish = publish;
    w.wait.withdraw = withdraw;
    for (;;) {
        int code = heist__wait(&w.wait);
        if (code) return code;
        heist__guard_pass(&l->guard);
        if (w.owns || try_woken(l)) return 0;
        w.again = true;
    }
}

static int acquire(heist_lock *lock, int64_t deadline_ns) {
    struct heist__lock *l = heist__lock_of(lock);
    struct heist__self *self = heist__self();
    int err = heist__embedded_enter(&self);
    if (heist_unlikely(err)) return err;
    /* The exchange without a look at the word, which would have to wait for the exchange of the last release; one
     * that fails costs as much as one that does not.  rlx: a hint, and the exchange decides. */
    uint32_t guess = a_load_rlx(&l->guess);
    bool pass = may_pass(self);
    if (heist_likely(!guess || pass) && heist_likely(a_cas_acq(&l->word, &guess, guess | HELD)))
        return 0; /* acq: pairs with the last release */
    if (take(l, pass)) return 0;
    heist__embedded_waits(self);
    return acquire_slow(l, deadline_ns, !pass);
}

/* ---- for conditions ---- */

/* On the worker's stack. */
static bool commit_shielded(heist_task *t, void *arg) {
    struct heist__lockwait *w = arg;
    struct heist__lock *l = w->lock;
    w->node.park = &t->park; /* idle: cancellers leave their request for the next call */
    heist__spin_lock(&l->guard);
    bool taken = take_or_link(l, w);
    heist__spin_unlock(&l->guard);
    return !taken;
}

void heist__lock_acquire_shielded(struct heist__lock *l) {
    struct heist__self *self = heist__self();
    bool pass = may_pass(self);
    if (take(l, pass)) return;
    struct heist__lockwait w;
    w.lock = l;
    w.strict = w.asleep = true;
    w.again = false;
    if (self->task) {
        heist__suspend(commit_shielded, &w);
        heist__guard_pass(&l->guard);
        return;
    }
    struct heist__parker *parker = heist__parker_get();
    if (!parker) { /* it has none only when it has not waited yet, and then it does not come here */
        while (!take(l, pass)) heist__sys_yield();
        return;
    }
    w.node.park = &w.wait.thread_park;
    w.wait.thread_park.parker = parker;
    heist__parker_prepare(parker);
    heist__spin_lock(&l->guard);
    bool taken = take_or_link(l, &w);
    heist__spin_unlock(&l->guard);
    if (taken) return;
    heist__parker_park(parker, INT64_MAX, 20000); /* as in sched/suspend.c */
    heist__guard_pass(&l->guard);
}

void heist__lock_adopt(struct heist__lock *l, struct heist__lockwait *w) {
    struct heist__park *park = w->node.park;
    w->lock = l;
    w->strict = w->asleep = true;
    w->again = false;
    w->owns = true;
    heist__spin_lock(&l->guard);
    bool taken = take_or_link(l, w); /* free only by a mistake of the users': then it has it at once */
    heist__spin_unlock(&l->guard);
    if (taken) heist__park_wake(park);
}

/* ---- the calls ---- */

void heist_lock_init(heist_lock *lock) {
    if (!lock) return;
    heist_lock fresh = HEIST_LOCK_INIT;
    *lock = fresh;
}

int heist_lock_destroy(heist_lock *lock) {
    if (!lock) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    /* acq: what was done under it is over */
    return a_load_acq(&heist__lock_of(lock)->word) ? -EBUSY : 0;
}

int heist_lock_acquire(heist_lock *lock) {
    if (heist_unlikely(!lock)) return -EINVAL;
    return acquire(lock, INT64_MAX);
}

int heist_lock_acquire_until(heist_lock *lock, double deadline) {
    if (!lock || isnan(deadline)) return -EINVAL;
    return acquire(lock, heist__ns_from_seconds(deadline));
}

int heist_lock_try_acquire(heist_lock *lock) {
    if (!lock) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    return take(heist__lock_of(lock), may_pass(heist__self())) ? 0 : -EAGAIN;
}

int heist_lock_release(heist_lock *lock) {
    if (heist_unlikely(!lock)) return -EINVAL;
    if (heist_unlikely(heist__forked())) return HEIST_EFORKED;
    return heist__lock_release(heist__lock_of(lock));
}

int heist_lock_locked(const heist_lock *lock) {
    if (!lock) return -EINVAL;
    return heist__lock_is_held(heist__lock_of((heist_lock *)(uintptr_t)lock));
}

int heist_lock_with(heist_lock *lock, int (*fn)(void *arg), void *arg) {
    if (!lock || !fn) return -EINVAL;
    int err = acquire(lock, INT64_MAX);
    if (err) return err;
    err = fn(arg);
    heist_lock_release(lock);
    return err;
}

int heist_lock_repr(heist_lock *lock, char *buf, size_t size) {
    if (!lock || (!buf && size)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__lock *l = heist__lock_of(lock);
    heist__spin_lock(&l->guard);
    size_t waiters = heist__waitq_length(&l->queue);
    heist__spin_unlock(&l->guard);
    return snprintf(buf, size, "<Lock %p %s waiters=%zu>", (void *)lock, heist__lock_is_held(l) ? "locked" : "unlocked",
                    waiters);
}
