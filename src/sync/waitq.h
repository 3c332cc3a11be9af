/* The one wait queue: first come, first served, cancellable, with deadlines.
 *
 * A list of waiters under the lock of the primitive that owns it.  Rules:
 *   - the waiter links its node and arms under that lock (sched/suspend.h, publish);
 *   - a waker, under the lock, unlinks the first node and claims its park word; with
 *     the claim goes what the waiter waited for.  A lost claim (cancelled, timed out)
 *     means: on to the next one, so that nobody eats what was meant for another;
 *   - the wake itself comes after the unlock, and the node is not touched after it;
 *   - a waiter that ended otherwise takes the lock and unlinks itself, if still linked.
 *
 * A waiter may stand in several queues at once with one park word (select).  Each of its
 * nodes has a tag, and a claim through a node gives that tag for a code: so the waiter
 * learns which of them won, and reads what it was told out of that node.  The others it
 * unlinks itself, under their locks; a claim through one of them is lost.
 *
 * To wake all that wait now: claim_all under the lock, wake_all after it.  The list goes
 * through the nodes of those who sleep, which stand until each one is woken; those who
 * were claimed on their way go on by themselves, and are not in it. */
#ifndef HEIST_SYNC_WAITQ_H
#define HEIST_SYNC_WAITQ_H

#include <stdbool.h>
#include <stddef.h>

#include "conc/spin.h"
#include "sched/suspend.h"

struct heist__waitnode {
    struct heist__waitnode *next, *prev;
    struct heist__park *park;
    void *value; /* what is handed over, either way */
    int tag;     /* 0, or the code of a claim through this node */
    int result;  /* with a tag: the code that the claimer gave */
    bool linked;
};

struct heist__waitq {
    struct heist__waitnode *head, *tail;
};

/* How many stand in it.  Under the lock; for who wants to see. */
static inline size_t heist__waitq_length(const struct heist__waitq *q) {
    size_t count = 0;
    for (const struct heist__waitnode *n = q->head; n; n = n->next) count++;
    return count;
}

static inline void heist__waitq_link(struct heist__waitq *q, struct heist__waitnode *n) {
    n->next = NULL;
    n->prev = q->tail;
    if (q->tail)
        q->tail->next = n;
    else
        q->head = n;
    q->tail = n;
    n->tag = 0;
    n->linked = true;
}

static inline void heist__waitq_unlink(struct heist__waitq *q, struct heist__waitnode *n) {
    if (!n->linked) return;
    if (n->prev)
        n->prev->next = n->next;
    else
        q->head = n->next;
    if (n->next)
        n->next->prev = n->prev;
    else
        q->tail = n->prev;
    n->linked = false;
}

/* Claims the waiter of a node that was just unlinked.  Under the lock, which keeps the node of a waiter that has
 * ended otherwise: until the claim has won it may be written to. */
static inline int heist__waitq_claim_node(struct heist__waitnode *n, int code) {
    n->result = code;
    return heist__park_claim(n->park, n->tag ? n->tag : code);
}

/* Claims the first waiter that can still be claimed, with `code`; before the claim `give` is put into its
 * node (with take: its node's value is read out).  True: somebody was; *wake is whom to wake after the
 * unlock, or NULL.  Under the lock. */
static inline bool heist__waitq_claim(struct heist__waitq *q, int code, void *give, void **take,
                                      struct heist__park **wake) {
    for (struct heist__waitnode *n; (n = q->head);) {
        heist__waitq_unlink(q, n);
        if (take)
            *take = n->value;
        else
            n->value = give;
        struct heist__park *park = n->park;
        int claim = heist__waitq_claim_node(n, code);
        if (claim == HEIST__CLAIM_LOST) continue;
        *wake = claim == HEIST__CLAIM_WAKE ? park : NULL;
        return true;
    }
    return false;
}

/* Claims everybody, with `code`: those to wake go to *end, and the new end comes back, which the caller makes NULL.
 * Under the lock. */
static inline struct heist__waitnode **heist__waitq_claim_each(struct heist__waitq *q, int code,
                                                               struct heist__waitnode **end) {
    for (struct heist__waitnode *n; (n = q->head);) {
        heist__waitq_unlink(q, n);
        if (heist__waitq_claim_node(n, code) != HEIST__CLAIM_WAKE) continue;
        *end = n;
        end = &n->next;
    }
    return end;
}

/* The same: the list of those to wake. */
static inline struct heist__waitnode *heist__waitq_claim_all(struct heist__waitq *q, int code) {
    struct heist__waitnode *woken = NULL;
    *heist__waitq_claim_each(q, code, &woken) = NULL;
    return woken;
}

/* After the unlock. */
static inline void heist__waitq_wake_all(struct heist__waitnode *woken) {
    while (woken) {
        struct heist__park *park = woken->park;
        woken = woken->next; /* the node is gone with the wake */
        heist__park_wake(park);
    }
}

#endif
