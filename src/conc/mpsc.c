/* The inbox's longer paths; states and proof are in mpsc.h. */
#include "conc/mpsc.h"

/* Turns a list round.  The nodes are the caller's alone. */
static struct heist__mpsc_node *reversed(struct heist__mpsc_node *newest) {
    struct heist__mpsc_node *oldest = NULL;
    while (newest) {
        struct heist__mpsc_node *older = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = older;
    }
    return oldest;
}

int heist__mpsc_push_chain(struct heist__mpsc *q, struct heist__mpsc_node *first, struct heist__mpsc_node *last) {
    /* The stack stands newest first; the last of the chain is read here, while
     * the chain is still ours. */
    last->next = NULL;
    struct heist__mpsc_node *newest = reversed(first);
    struct heist__mpsc_node *head = a_load_acq(&q->head); /* as in heist__mpsc_push */
    do {
        if (head == HEIST__MPSC_CLOSED_HEAD) {
            first->next = NULL; /* cut what an earlier round hung below */
            (void)reversed(newest); /* as it was: the chain goes back to the caller */
            return HEIST__MPSC_CLOSED;
        }
        first->next = head; /* first is the oldest, so it stands deepest */
    } while (!a_cas_sc(&q->head, &head, newest));
    return head ? HEIST__MPSC_PUSHED : HEIST__MPSC_PUSHED_FIRST;
}

struct heist__mpsc_node *heist__mpsc_take(struct heist__mpsc *q) {
    /* Relaxed: an old NULL means that a push of this moment waits for the next
     * take; its pusher was told PUSHED_FIRST and sees to the wake. */
    struct heist__mpsc_node *head = a_load_rlx(&q->head);
    do {
        if (head == NULL || head == HEIST__MPSC_CLOSED_HEAD) return NULL;
        /* Acquire pairs with every push whose node is in the list: each push
         * is a read-modify-write, so the one whose value we read continues the
         * release sequences of those below it.  Not a blind exchange, for that
         * would open a closed inbox again. */
    } while (!a_cas_ar(&q->head, &head, NULL));
    return reversed(head);
}

struct heist__mpsc_node *heist__mpsc_close(struct heist__mpsc *q) {
    /* Acquire as in take; release pairs with the loads of the refused. */
    struct heist__mpsc_node *head = a_xchg_sc(&q->head, HEIST__MPSC_CLOSED_HEAD);
    return head == HEIST__MPSC_CLOSED_HEAD ? NULL : reversed(head);
}
