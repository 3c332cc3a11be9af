/* Conditions: a queue of those who wait to be told.
 *
 * wait    links its node, then releases the lock (both when its stack has been left)
 * notify  claims the first nodes; who sleeps is not woken but put into the lock's queue,
 *         claimed as it is: it wakes with the lock in hand, and nothing else can wake it.  Who was claimed on
 *         its way to sleep goes on by itself, and acquires the lock
 * A waiter that was cancelled or timed out takes its node out and acquires the lock, without
 * listening to requests.  The claim decides between the two, so a notification is never
 * with one that gave up.
 * A waiter that could be told stands in the queue before the lock is free: nobody who holds
 * the lock after it can tell too early. */
#include <heist/condition.h>
#include <heist/error.h>
#include <heist/inspect.h>
#include <math.h>
#include <stdio.h>

#include "sync/lock.h"

struct condition {
    heist_lock *lock; /* birth */
    struct heist__spin guard;
    struct heist__waitq queue; /* guard */
};

_Static_assert(sizeof(struct condition) <= sizeof(heist_condition), "the words of heist_condition are too few");
_Static_assert(offsetof(struct condition, lock) == offsetof(heist_condition, lock), "the lock is the users' to read");

static struct condition *inside(heist_condition *condition) { return (struct condition *)condition; }

int heist_condition_init(heist_condition *condition, heist_lock *lock) {
    if (!condition || !lock) return -EINVAL;
    heist_condition fresh = HEIST_CONDITION_INIT(lock);
    *condition = fresh;
    return 0;
}

int heist_condition_destroy(heist_condition *condition) {
    if (!condition) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct condition *c = inside(condition);
    return heist__embedded_destroy(&c->guard, &c->queue);
}

struct waiting {
    struct heist__lockwait as; /* its node stands in the condition's queue first, and then in the lock's */
    struct condition *condition;
    bool released;
};

static bool publish(struct heist__wait *wait, heist_loop *loop) {
    (void)loop;
    struct waiting *w = heist_container_of(wait, struct waiting, as.wait);
    struct condition *c = w->condition;
    w->as.node.park = wait->park;
    w->released = true;
    heist__spin_lock(&c->guard);
    heist__waitq_link(&c->queue, &w->as.node);
    heist__spin_unlock(&c->guard);
    /* From here on it may be claimed, but not woken: the wait is not committed, and w stands. */
    heist__lock_release(heist__lock_of(c->lock));
    return true;
}

static void withdraw(struct heist__wait *wait) {
    struct waiting *w = heist_container_of(wait, struct waiting, as.wait);
    heist__spin_lock(&w->condition->guard);
    heist__waitq_unlink(&w->condition->queue, &w->as.node);
    heist__spin_unlock(&w->condition->guard);
}

static int wait(struct condition *c, int64_t deadline_ns) {
    struct heist__self *self = heist__self();
    struct heist__lock *l = heist__lock_of(c->lock);
    int err = heist__wait_entry(self);
    if (err) return err;
    if (!heist__lock_is_held(l)) return HEIST_ENOTACQUIRED;
    heist__embedded_waits(self);
    struct waiting w;
    w.condition = c;
    w.released = false;
    w.as.owns = false;
    w.as.node.linked = false;
    w.as.wait.deadline_ns = deadline_ns;
    w.as.wait.publish = publish;
    w.as.wait.withdraw = withdraw;
    int code = heist__wait(&w.as.wait);
    if (!w.released) return code; /* it did not come so far */
    if (!code) heist__guard_pass(&c->guard);
    if (w.as.owns) heist__guard_pass(&l->guard);
    else heist__lock_acquire_shielded(l);
    return code;
}

int heist_condition_wait(heist_condition *condition) {
    if (!condition || !condition->lock) return -EINVAL;
    return wait(inside(condition), INT64_MAX);
}

int heist_condition_wait_until(heist_condition *condition, double deadline) {
    if (!condition || !condition->lock || isnan(deadline)) return -EINVAL;
    return wait(inside(condition), heist__ns_from_seconds(deadline));
}

static int wait_for(struct condition *c, int (*predicate)(void *arg), void *arg, int64_t deadline_ns) {
    if (heist__forked()) return HEIST_EFORKED;
    if (!heist__lock_is_held(heist__lock_of(c->lock))) return HEIST_ENOTACQUIRED;
    /* A cancellation point, and no place for a callback, also when there is nothing to wait for. */
    struct heist__self *self = heist__self();
    int err = heist__wait_entry(self);
    if (err) return err;
    for (bool late = false;;) {
        int value = predicate(arg);
        if (value) return value;
        if (late) return -ETIMEDOUT;
        err = wait(c, deadline_ns);
        late = err == -ETIMEDOUT;
        if (err && !late) return err;
    }
}

int heist_condition_wait_for(heist_condition *condition, int (*predicate)(void *arg), void *arg) {
    if (!condition || !condition->lock || !predicate) return -EINVAL;
    return wait_for(inside(condition), predicate, arg, INT64_MAX);
}

int heist_condition_wait_for_until(heist_condition *condition, int (*predicate)(void *arg), void *arg,
                                   double deadline) {
    if (!condition || !condition->lock || !predicate || isnan(deadline)) return -EINVAL;
    return wait_for(inside(condition), predicate, arg, heist__ns_from_seconds(deadline));
}

/* Tells the first that can be told; false: there is none. */
static bool tell_one(struct condition *c) {
    heist__spin_lock(&c->guard);
    for (struct heist__waitnode *n; (n = c->queue.head);) {
        heist__waitq_unlink(&c->queue, n);
        int claim = heist__waitq_claim_node(n, 0);
        if (claim == HEIST__CLAIM_LOST) continue;
        heist__spin_unlock(&c->guard);
        if (claim == HEIST__CLAIM_WAKE) /* it sleeps, and nobody but us can wake it */
            heist__lock_adopt(heist__lock_of(c->lock), heist_container_of(n, struct heist__lockwait, node));
        return true;
    }
    heist__spin_unlock(&c->guard);
    return false;
}

int heist_condition_notify(heist_condition *condition, int n) {
    if (!condition || !condition->lock || n < 0) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct condition *c = inside(condition);
    if (!heist__lock_is_held(heist__lock_of(c->lock))) return HEIST_ENOTACQUIRED;
    int told = 0;
    while (told < n && tell_one(c)) told++;
    return told;
}

int heist_condition_notify_all(heist_condition *condition) { return heist_condition_notify(condition, INT32_MAX); }

int heist_condition_repr(heist_condition *condition, char *buf, size_t size) {
    if (!condition || !condition->lock || (!buf && size)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct condition *c = inside(condition);
    heist__spin_lock(&c->guard);
    size_t waiters = heist__waitq_length(&c->queue);
    heist__spin_unlock(&c->guard);
    return snprintf(buf, size, "<Condition %p %s waiters=%zu>", (void *)condition,
                    heist__lock_is_held(heist__lock_of(c->lock)) ? "locked" : "unlocked", waiters);
}
