/* Closable inbox: many threads push, whoever empties it takes the whole list.
 *
 * A stack of intrusive nodes whose head may hold one more value, CLOSED, which
 * is terminal: a push sees it in the same word that it would change, so no
 * push can land after the last drain (a flag beside the head would allow
 * that).  Pushing is lock-free and allocates nothing; taking exchanges the
 * whole list for the empty one and turns it round, oldest first.
 *
 * States of head: NULL (empty) <-> node (newest pushed) ; either -> CLOSED.
 * Nobody leaves CLOSED.
 *
 * Ownership: a pushed node is the inbox's until a take or close returns it,
 * and then the taker's alone.  The pusher reads nothing of the node after the
 * compare-and-swap that publishes it: the taker may have freed it by then.
 * There is no ABA fault: a take removes everything or nothing, and a push that
 * finds the same address at the head again links to what truly stands there.
 *
 * Wake-up: push is a sequentially consistent read-modify-write, so that
 * "push; look at the sleeper's flag" and "set the flag; heist__mpsc_empty"
 * cannot both miss: in the one order of these four steps either the push
 * stands before the sleeper's look, or the flag before the pusher's.
 * PUSHED_FIRST goes to exactly one pusher for each filling of the inbox; only
 * that one needs to look at the flag, for the others' items lie behind its. */
#ifndef HEIST_CONC_MPSC_H
#define HEIST_CONC_MPSC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"
#include "conc/atomic.h"

struct heist__mpsc_node {
    struct heist__mpsc_node *next; /* written by the pusher before it publishes, by the taker after */
};

/* Zeroed memory is an open, empty inbox.  The user aligns it to a cache line. */
struct heist__mpsc {
    _Atomic(struct heist__mpsc_node *) head;
};

enum {
    HEIST__MPSC_CLOSED = -1,      /* refused; the node is still the caller's */
    HEIST__MPSC_PUSHED = 0,       /* behind others */
    HEIST__MPSC_PUSHED_FIRST = 1, /* it was empty: wake the taker if it sleeps */
};

#define HEIST__MPSC_CLOSED_HEAD ((struct heist__mpsc_node *)(uintptr_t)1)

static inline void heist__mpsc_init(struct heist__mpsc *q) {
    atomic_init(&q->head, NULL);
}

/* Pushes the chain first .. last (linked by next, oldest first) as one step:
 * nobody's item comes to stand between.  Any thread. */
int heist__mpsc_push_chain(struct heist__mpsc *q, struct heist__mpsc_node *first, struct heist__mpsc_node *last);

/* Pushes one node.  Any thread; lock-free. */
static inline int heist__mpsc_push(struct heist__mpsc *q, struct heist__mpsc_node *node) {
    /* Acquire pairs with heist__mpsc_close: a refused pusher sees what the
     * closer wrote before it closed. */
    struct heist__mpsc_node *head = a_load_acq(&q->head);
    do {
        if (heist_unlikely(head == HEIST__MPSC_CLOSED_HEAD)) return HEIST__MPSC_CLOSED;
        node->next = head;
    } while (heist_unlikely(!a_cas_sc(&q->head, &head, node)));
    return head ? HEIST__MPSC_PUSHED : HEIST__MPSC_PUSHED_FIRST;
}

/* Everything that was pushed, oldest first, linked by next and ended by NULL;
 * NULL when empty or closed.  One thread, or several: each item to one. */
struct heist__mpsc_node *heist__mpsc_take(struct heist__mpsc *q);

/* Refuses every push from now on and returns what was left, oldest first.
 * Any thread, any number of times; the second finds nothing. */
struct heist__mpsc_node *heist__mpsc_close(struct heist__mpsc *q);

/* Nothing to take (empty or closed)?  Sequentially consistent: this is the
 * second look of a taker that has announced its sleep. */
static inline bool heist__mpsc_empty(struct heist__mpsc *q) {
    struct heist__mpsc_node *head = a_load_sc(&q->head);
    return head == NULL || head == HEIST__MPSC_CLOSED_HEAD;
}

/* The same as a hint, for a poll that may miss a push of this moment.
 * Relaxed: it decides only whether to call take, which orders. */
static inline bool heist__mpsc_looks_empty(struct heist__mpsc *q) {
    struct heist__mpsc_node *head = a_load_rlx(&q->head);
    return head == NULL || head == HEIST__MPSC_CLOSED_HEAD;
}

/* Acquire pairs with heist__mpsc_close, as in push. */
static inline bool heist__mpsc_is_closed(struct heist__mpsc *q) {
    return a_load_acq(&q->head) == HEIST__MPSC_CLOSED_HEAD;
}

#endif
