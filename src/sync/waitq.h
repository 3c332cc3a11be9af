/* The one wait queue: first come, first served, cancellable, with deadlines.
 *
 * A list of waiters under the lock of the primitive that owns it.  Rules:
 *   - the waiter links its node and arms under that lock (sched/suspend.h, publish);
 *   - a waker, under the lock, unlinks the first node and claims its park word; with
 *     the claim goes what the waiter waited for.  A lost claim (cancelled, timed out)
 *     means: on to the next one, so that nobody eats what was meant for another;
 *   - the wake itself comes after the unlock, and the node is not touched after it;
 *   - a waiter that ended otherwise takes the lock and unlinks itself, if still linked. */
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
    bool linked;
};

struct heist__waitq {
    struct heist__waitnode *head, *tail;
};

static inline void heist__waitq_link(struct heist__waitq *q, struct heist__waitnode *n) {
    n->next = NULL;
    n->prev = q->tail;
    if (q->tail)
        q->tail->next = n;
    else
        q->head = n;
    q->tail = n;
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
        int claim = heist__park_claim(park, code);
        if (claim == HEIST__CLAIM_LOST) continue;
        *wake = claim == HEIST__CLAIM_WAKE ? park : NULL;
        return true;
    }
    return false;
}

#endif
