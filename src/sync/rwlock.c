/* Read-write locks: who holds it, and one queue for readers and writers.
 *
 * Under the guard: readers > 0, or writing, or neither.  While the queue is not empty nobody enters
 * past it.  Whenever the lock could be given to the first of the queue, it is, and so on down the queue
 * (admit): after each release, and when a waiter leaves that stood in the others' way. */
#include <heist/error.h>
#include <heist/inspect.h>
#include <heist/rwlock.h>
#include <math.h>
#include <stdio.h>

#include "sync/embedded.h"

struct rwlock {
    size_t readers; /* guard */
    bool writing;   /* guard */
    struct heist__spin guard;
    struct heist__waitq queue; /* guard */
};

_Static_assert(sizeof(struct rwlock) <= sizeof(heist_rwlock), "the words of heist_rwlock are too few");

static struct rwlock *inside(heist_rwlock *lock) { return (struct rwlock *)lock; }

void heist_rwlock_init(heist_rwlock *lock) {
    if (!lock) return;
    heist_rwlock fresh = HEIST_RWLOCK_INIT;
    *lock = fresh;
}

int heist_rwlock_destroy(heist_rwlock *lock) {
    if (!lock) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct rwlock *l = inside(lock);
    heist__spin_lock(&l->guard);
    int err = l->readers || l->writing || l->queue.head ? -EBUSY : 0;
    heist__spin_unlock(&l->guard);
    return err;
}

struct waiting {
    struct heist__embedded_wait as;
    bool writes;
};

/* Under the guard. */
static bool enter(struct rwlock *l, bool writes) {
    if (l->writing || (writes && l->readers)) return false;
    if (writes) l->writing = true;
    else l->readers++;
    return true;
}

/* Lets those in who may; the list of those to wake.  Under the guard. */
static struct heist__waitnode *admit(struct rwlock *l) {
    struct heist__waitnode *woken = NULL, **end = &woken;
    for (struct heist__waitnode *n; (n = l->queue.head);) {
        bool writes = heist_container_of(n, struct waiting, as.node)->writes;
        if (!enter(l, writes)) break;
        heist__waitq_unlink(&l->queue, n);
        int claim = heist__waitq_claim_node(n, 0);
        if (claim == HEIST__CLAIM_LOST) { /* it has given up: nobody has entered */
            if (writes) l->writing = false;
            else l->readers--;
        } else if (claim == HEIST__CLAIM_WAKE) {
            *end = n;
            end = &n->next;
        }
    }
    *end = NULL;
    return woken;
}

static bool try_enter(struct rwlock *l, bool writes) {
    heist__spin_lock(&l->guard);
    bool in = !l->queue.head && enter(l, writes);
    heist__spin_unlock(&l->guard);
    return in;
}

static bool publish(struct heist__wait *wait, heist_loop *loop) {
    (void)loop;
    struct waiting *w = heist_container_of(wait, struct waiting, as.wait);
    struct rwlock *l = heist_container_of(w->as.queue, struct rwlock, queue);
    heist__spin_lock(&l->guard);
    bool in = !l->queue.head && enter(l, w->writes);
    if (!in) {
        heist__embedded_link(&w->as);
    }
    heist__spin_unlock(&l->guard);
    return !in;
}

static void withdraw(struct heist__wait *wait) {
    struct waiting *w = heist_container_of(wait, struct waiting, as.wait);
    struct rwlock *l = heist_container_of(w->as.queue, struct rwlock, queue);
    heist__spin_lock(&l->guard);
    heist__waitq_unlink(&l->queue, &w->as.node);
    struct heist__waitnode *woken = admit(l); /* readers behind a writer that has left */
    heist__spin_unlock(&l->guard);
    heist__waitq_wake_all(woken);
}

static int acquire(struct rwlock *l, bool writes, int64_t deadline_ns) {
    struct heist__self *self = heist__self();
    int err = heist__embedded_enter(&self);
    if (err) return err;
    if (try_enter(l, writes)) return 0;
    heist__embedded_waits(self);
    struct waiting w;
    w.writes = writes;
    heist__embedded_init(&w.as, &l->guard, &l->queue, deadline_ns, publish);
    w.as.wait.withdraw = withdraw;
    err = heist__wait(&w.as.wait);
    if (!err) heist__guard_pass(&l->guard);
    return err;
}

int heist_rwlock_acquire_read(heist_rwlock *lock) {
    if (!lock) return -EINVAL;
    return acquire(inside(lock), false, INT64_MAX);
}

int heist_rwlock_acquire_write(heist_rwlock *lock) {
    if (!lock) return -EINVAL;
    return acquire(inside(lock), true, INT64_MAX);
}

int heist_rwlock_acquire_read_until(heist_rwlock *lock, double deadline) {
    if (!lock || isnan(deadline)) return -EINVAL;
    return acquire(inside(lock), false, heist__ns_from_seconds(deadline));
}

int heist_rwlock_acquire_write_until(heist_rwlock *lock, double deadline) {
    if (!lock || isnan(deadline)) return -EINVAL;
    return acquire(inside(lock), true, heist__ns_from_seconds(deadline));
}

static int try_acquire(heist_rwlock *lock, bool writes) {
    if (!lock) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    return try_enter(inside(lock), writes) ? 0 : -EAGAIN;
}

int heist_rwlock_try_acquire_read(heist_rwlock *lock) { return try_acquire(lock, false); }
int heist_rwlock_try_acquire_write(heist_rwlock *lock) { return try_acquire(lock, true); }

static int release(heist_rwlock *lock, bool writes) {
    if (!lock) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct rwlock *l = inside(lock);
    struct heist__waitnode *woken = NULL;
    int err = 0;
    heist__spin_lock(&l->guard);
    if (writes ? !l->writing : !l->readers) {
        err = HEIST_ENOTACQUIRED;
    } else {
        if (writes) l->writing = false;
        else l->readers--;
        woken = admit(l);
    }
    heist__spin_unlock(&l->guard);
    heist__waitq_wake_all(woken);
    return err;
}

int heist_rwlock_release_read(heist_rwlock *lock) { return release(lock, false); }
int heist_rwlock_release_write(heist_rwlock *lock) { return release(lock, true); }

size_t heist_rwlock_readers(heist_rwlock *lock) {
    if (!lock || heist__forked()) return 0;
    struct rwlock *l = inside(lock);
    heist__spin_lock(&l->guard);
    size_t n = l->readers;
    heist__spin_unlock(&l->guard);
    return n;
}

int heist_rwlock_writing(heist_rwlock *lock) {
    if (!lock) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct rwlock *l = inside(lock);
    heist__spin_lock(&l->guard);
    int writing = l->writing;
    heist__spin_unlock(&l->guard);
    return writing;
}

int heist_rwlock_repr(heist_rwlock *lock, char *buf, size_t size) {
    if (!lock || (!buf && size)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct rwlock *l = inside(lock);
    heist__spin_lock(&l->guard);
    size_t waiters = heist__waitq_length(&l->queue), readers = l->readers;
    bool writing = l->writing;
    heist__spin_unlock(&l->guard);
    return snprintf(buf, size, "<RWLock %p %s readers=%zu waiters=%zu>", (void *)lock,
                    writing   ? "writing"
                    : readers ? "reading"
                              : "unlocked",
                    readers, waiters);
}
