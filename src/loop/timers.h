/* The timer store: who is due first.  No clock, no thread, no I/O, no lock and no
 * allocation in it: time is passed in and the nodes are the caller's.
 *
 * Owned by one loop, whose timer lock the caller holds around every call but init.
 * Invariants: timers leave in the order of their deadlines, equal ones in the order of
 * their adding, none before its deadline; a node is in at most one store, and what is
 * removed is no longer touched (nodes stand on stacks: nothing is cancelled lazily).
 *
 * A pairing heap, so that arming can never fail; see timers.c for the shape, the proof
 * of the order among equals, and the figures. */
#ifndef HEIST_LOOP_TIMERS_H
#define HEIST_LOOP_TIMERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Embedded in handles and on the stacks of sleeping tasks.  deadline_ns and kind are for all to read, kind
 * is the caller's own; the rest belongs to the store while the timer is armed. */
struct heist__timer {
    int64_t deadline_ns;
    struct heist__timer *child; /* the first child, NULL: none */
    struct heist__timer *next;  /* the next sibling; of the last sibling the parent; of the root NULL */
    struct heist__timer *prev;  /* the previous sibling; of the first sibling the last */
    bool armed;
    bool last; /* of its siblings */
    uint8_t kind;
};

struct heist__timers {
    struct heist__timer *root; /* the first to leave, NULL: empty */
    size_t count;
};

/* A timer that is in no store. */
static inline void heist__timer_init(struct heist__timer *t, uint8_t kind) {
    *t = (struct heist__timer){.kind = kind};
}

/* Is it in a store?  Under the lock of that store. */
static inline bool heist__timer_armed(const struct heist__timer *t) { return t->armed; }

/* Makes it empty; allocates nothing. */
static inline void heist__timers_init(struct heist__timers *ts) { *ts = (struct heist__timers){NULL, 0}; }

/* Forgets all timers without touching them: their memory may be gone. */
static inline void heist__timers_destroy(struct heist__timers *ts) { heist__timers_init(ts); }

/* Arms an idle timer.  INT64_MAX is a deadline as any other, though it is never due.
 * 0, always: the int leaves room for a store that can run out. */
int heist__timers_add(struct heist__timers *ts, struct heist__timer *t, int64_t deadline_ns);

/* The same for one that was taken out by pop_due and has not been run: among equal deadlines it comes first
 * again.  Several are put back in the reverse of the order in which they left. */
void heist__timers_put_back(struct heist__timers *ts, struct heist__timer *t);

/* Disarms; false when it was not armed. */
bool heist__timers_remove(struct heist__timers *ts, struct heist__timer *t);

/* Takes the first timer out if its deadline is not after now; NULL: none is due. */
struct heist__timer *heist__timers_pop_due(struct heist__timers *ts, int64_t now_ns);

/* The earliest deadline; INT64_MAX when there is none. */
static inline int64_t heist__timers_next(const struct heist__timers *ts) {
    return ts->root ? ts->root->deadline_ns : INT64_MAX;
}

static inline size_t heist__timers_count(const struct heist__timers *ts) { return ts->count; }

#endif
