/* What the objects have in common that live in their users' memory: lock, event, semaphore …
 *
 * Entry.  A call that may take something without waiting pays its budget first and gives way
 * before it takes: whoever gives way with a lock in hand makes all others wait.
 *
 * Memory.  Nothing counts who uses such an object, and its memory may go as soon as the user
 * knows that nobody will use it any more: an event on the stack of the one that waits for it is
 * gone with that wait, a lock with the release of the last one that needed it.  So no call
 * touches the object after the step by which it lets another go on.  Where that step is a claim
 * under the object's short lock (the guard), the unlock is still to come: whoever was let
 * go on passes the guard, and so leaves only after it. */
#ifndef HEIST_SYNC_EMBEDDED_H
#define HEIST_SYNC_EMBEDDED_H

#include "base/fork.h"
#include "conc/self.h"
#include "sched/suspend.h"
#include "sync/waitq.h"

/* Instead of heist__wait_entry and, later, heist__wait_skipped.  *self is the caller's record, before and after. */
static inline int heist__embedded_enter(struct heist__self **self) {
    int err = heist__wait_entry(*self);
    if (heist_unlikely(err)) return err;
    heist_task *t = (*self)->task;
    if (!t || t->pinned || heist_likely(--t->budget)) return 0;
    heist__give_way(*self); /* the step that follows renews the budget */
    *self = heist__self();
    return heist__cancel_take((*self)->task) ? -ECANCELED : 0;
}

/* Whoever let this caller go on has left its section after this. */
static inline void heist__guard_pass(struct heist__spin *guard) {
    /* acq: pairs with the unlock of whoever let us go on; that it was locked is seen, for what let us go on was
     * written after it */
    if (heist_likely(!a_load_acq(&guard->word))) return;
    heist__spin_lock(guard);
    heist__spin_unlock(guard);
}

/* One that waits in the queue of such an object. */
struct heist__embedded_wait {
    struct heist__wait wait;
    struct heist__waitnode node;
    struct heist__spin *guard;
    struct heist__waitq *queue; /* guard */
};

/* Under the guard. */
static inline void heist__embedded_link(struct heist__embedded_wait *w) {
    w->node.park = w->wait.park;
    heist__waitq_link(w->queue, &w->node);
}

static inline void heist__embedded_withdraw(struct heist__wait *wait) {
    struct heist__embedded_wait *w = heist_container_of(wait, struct heist__embedded_wait, wait);
    heist__spin_lock(w->guard);
    heist__waitq_unlink(w->queue, &w->node);
    heist__spin_unlock(w->guard);
}

static inline void heist__embedded_init(struct heist__embedded_wait *w, struct heist__spin *guard,
                                        struct heist__waitq *queue, int64_t deadline_ns,
                                        bool (*publish)(struct heist__wait *wait, heist_loop *loop)) {
    w->guard = guard;
    w->queue = queue;
    w->node.linked = false;
    w->wait.deadline_ns = deadline_ns;
    w->wait.publish = publish;
    w->wait.withdraw = heist__embedded_withdraw;
}

/* 0, or -EBUSY: somebody waits. */
static inline int heist__embedded_destroy(struct heist__spin *guard, const struct heist__waitq *queue) {
    heist__spin_lock(guard);
    int err = queue->head ? -EBUSY : 0;
    heist__spin_unlock(guard);
    return err;
}

/* Before a plain thread waits: such an object has no constructor that would have made the page. */
static inline void heist__embedded_waits(const struct heist__self *self) {
    if (!self->task) (void)heist__fork_guard();
}

#endif
