/* Barriers: the parties of a round stand in the queue until the last one comes.
 *
 * Under the guard.  The last one claims all others and gives each its index: those who come next find an
 * empty queue, which is the next round, so nobody waits for a round to drain.  Who was cancelled or timed
 * out takes itself out; one that the last claims too late has been counted and has left. */
#include <heist/barrier.h>
#include <heist/error.h>
#include <heist/inspect.h>
#include <math.h>
#include <stdio.h>

#include "sync/embedded.h"

struct barrier {
    int64_t parties; /* birth */
    int32_t waiting; /* guard; nodes in the queue */
    bool broken;     /* guard; then the queue is empty */
    struct heist__spin guard;
    struct heist__waitq queue; /* guard */
};

_Static_assert(sizeof(struct barrier) <= sizeof(heist_barrier), "the words of heist_barrier are too few");

static struct barrier *inside(heist_barrier *barrier) { return (struct barrier *)barrier; }

int heist_barrier_init(heist_barrier *barrier, int parties) {
    if (!barrier || parties < 1) return -EINVAL;
    heist_barrier fresh = HEIST_BARRIER_INIT(parties);
    *barrier = fresh;
    return 0;
}

int heist_barrier_destroy(heist_barrier *barrier) {
    if (!barrier) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct barrier *b = inside(barrier);
    return heist__embedded_destroy(&b->guard, &b->queue);
}

struct waiting {
    struct heist__embedded_wait as;
    int index;
    bool last; /* it has let the others go, who may end the barrier's memory */
};

/* The last one has come.  Under the guard; the list of those to wake. */
static struct heist__waitnode *release(struct barrier *b) {
    int index = 0;
    for (struct heist__waitnode *n = b->queue.head; n; n = n->next)
        heist_container_of(n, struct waiting, as.node)->index = index++;
    b->waiting = 0;
    return heist__waitq_claim_all(&b->queue, 0);
}

/* An index, HEIST_EBROKEN, or -EAGAIN: waits.  Under the guard. */
static int arrive(struct barrier *b, struct heist__waitnode **woken) {
    if (b->broken) return HEIST_EBROKEN;
    if (b->waiting + 1 < b->parties) return -EAGAIN;
    int index = b->waiting;
    *woken = release(b);
    return index;
}

static bool publish(struct heist__wait *wait, heist_loop *loop) {
    (void)loop;
    struct waiting *w = heist_container_of(wait, struct waiting, as.wait);
    struct barrier *b = heist_container_of(w->as.queue, struct barrier, queue);
    struct heist__waitnode *woken = NULL;
    heist__spin_lock(&b->guard);
    int got = arrive(b, &woken);
    if (got == -EAGAIN) {
        heist__embedded_link(&w->as);
        b->waiting++;
    }
    heist__spin_unlock(&b->guard);
    heist__waitq_wake_all(woken);
    if (got == -EAGAIN) return true;
    w->index = got;
    w->last = true;
    wait->code = got < 0 ? got : 0;
    return false;
}

static void withdraw(struct heist__wait *wait) {
    struct waiting *w = heist_container_of(wait, struct waiting, as.wait);
    struct barrier *b = heist_container_of(w->as.queue, struct barrier, queue);
    heist__spin_lock(&b->guard);
    if (w->as.node.linked) b->waiting--;
    heist__waitq_unlink(&b->queue, &w->as.node);
    heist__spin_unlock(&b->guard);
}

static int wait(struct barrier *b, int64_t deadline_ns) {
    struct heist__self *self = heist__self();
    int err = heist__embedded_enter(&self);
    if (err) return err;
    struct heist__waitnode *woken = NULL;
    heist__spin_lock(&b->guard);
    int got = arrive(b, &woken);
    heist__spin_unlock(&b->guard);
    heist__waitq_wake_all(woken);
    if (got != -EAGAIN) return got;
    heist__embedded_waits(self);
    struct waiting w;
    w.index = 0; /* told by the last to arrive */
    w.last = false;
    heist__embedded_init(&w.as, &b->guard, &b->queue, deadline_ns, publish);
    w.as.wait.withdraw = withdraw;
    err = heist__wait(&w.as.wait);
    if (err) return err;
    if (!w.last) heist__guard_pass(&b->guard);
    return w.index;
}

int heist_barrier_wait(heist_barrier *barrier) {
    if (!barrier) return -EINVAL;
    return wait(inside(barrier), INT64_MAX);
}

int heist_barrier_wait_until(heist_barrier *barrier, double deadline) {
    if (!barrier || isnan(deadline)) return -EINVAL;
    return wait(inside(barrier), heist__ns_from_seconds(deadline));
}

static int turn_away(heist_barrier *barrier, bool broken) {
    if (!barrier) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct barrier *b = inside(barrier);
    heist__spin_lock(&b->guard);
    b->broken = broken;
    b->waiting = 0;
    struct heist__waitnode *woken = heist__waitq_claim_all(&b->queue, HEIST_EBROKEN);
    heist__spin_unlock(&b->guard);
    heist__waitq_wake_all(woken);
    return 0;
}

int heist_barrier_abort(heist_barrier *barrier) { return turn_away(barrier, true); }
int heist_barrier_reset(heist_barrier *barrier) { return turn_away(barrier, false); }

int heist_barrier_parties(heist_barrier *barrier) { return barrier ? (int)inside(barrier)->parties : -EINVAL; }

int heist_barrier_n_waiting(heist_barrier *barrier) {
    if (!barrier) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct barrier *b = inside(barrier);
    heist__spin_lock(&b->guard);
    int n = b->waiting;
    heist__spin_unlock(&b->guard);
    return n;
}

int heist_barrier_broken(heist_barrier *barrier) {
    if (!barrier) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct barrier *b = inside(barrier);
    heist__spin_lock(&b->guard);
    int broken = b->broken;
    heist__spin_unlock(&b->guard);
    return broken;
}

int heist_barrier_repr(heist_barrier *barrier, char *buf, size_t size) {
    if (!barrier || (!buf && size)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct barrier *b = inside(barrier);
    heist__spin_lock(&b->guard);
    int waiting = b->waiting;
    bool broken = b->broken;
    heist__spin_unlock(&b->guard);
    return snprintf(buf, size, "<Barrier %p %s waiters=%d parties=%d>", (void *)barrier, broken ? "broken" : "filling",
                    waiting, (int)b->parties);
}
