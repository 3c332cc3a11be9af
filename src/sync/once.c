/* Once: a lock, and whether it is done.
 *
 * Whoever holds the lock and finds it not done runs its function.  `done` is set before the release; who finds it
 * set, and the lock free, has nothing to wait for, and the one that ran it touches the object no more.  Who finds it
 * set and the lock held waits for it even beyond its deadline: nobody holds it for long any more. */
#include <heist/error.h>
#include <heist/once.h>
#include <math.h>

#include "sync/lock.h"

struct once {
    struct heist__lock lock;
    _Atomic(uint32_t) done; /* whoever holds the lock */
};

_Static_assert(sizeof(struct once) <= sizeof(heist_once), "the words of heist_once are too few");
_Static_assert(offsetof(struct once, lock) == 0, "the lock is used by its own calls");

static struct once *inside(heist_once *once) { return (struct once *)once; }

/* A heist_lock is larger than what it holds; only the words inside are touched by the calls on it. */
static heist_lock *lock_of(struct once *o) { return (heist_lock *)(void *)&o->lock; }

void heist_once_init(heist_once *once) {
    if (!once) return;
    heist_once fresh = HEIST_ONCE_INIT;
    *once = fresh;
}

int heist_once_destroy(heist_once *once) {
    if (!once) return -EINVAL;
    return heist_lock_destroy(lock_of(inside(once)));
}

static bool is_done(struct once *o) { return a_load_acq(&o->done); } /* acq: pairs with call */

static int call(struct once *o, int (*fn)(void *arg), void *arg, bool timed, double deadline) {
    struct heist__self *self = heist__self();
    /* acq: free after it was done, so the one that ran it has left */
    if (is_done(o) && !a_load_acq(&o->lock.word)) return heist__embedded_enter(&self);
    int err = timed ? heist_lock_acquire_until(lock_of(o), deadline) : heist_lock_acquire(lock_of(o));
    if ((err == -ETIMEDOUT || err == -ENOMEM) && is_done(o)) { /* too late for the lock, not for what was done */
        heist__lock_acquire_shielded(&o->lock);
        err = 0;
    }
    if (err) return err;
    if (!is_done(o)) {
        int code = fn(arg);
        if (code < 0) err = code;
        else a_store_rel(&o->done, 1); /* rel: what fn did is seen by those who find it done */
    }
    heist_lock_release(lock_of(o));
    return err;
}

int heist_once_call(heist_once *once, int (*fn)(void *arg), void *arg) {
    if (!once || !fn) return -EINVAL;
    return call(inside(once), fn, arg, false, 0);
}

int heist_once_call_until(heist_once *once, int (*fn)(void *arg), void *arg, double deadline) {
    if (!once || !fn || isnan(deadline)) return -EINVAL;
    return call(inside(once), fn, arg, true, deadline);
}

int heist_once_done(const heist_once *once) {
    if (!once) return -EINVAL;
    return is_done(inside((heist_once *)(uintptr_t)once));
}
