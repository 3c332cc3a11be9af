/* Futures that the library itself completes: the outcome of others, a timer.
 *
 * A derived future is a plain future whose record (`arg` points at it) knows what it comes from.  Only the record
 * completes it, and a request to cancel goes to the record, which may pass it on and let the future end later.  The
 * record holds one reference to the future until it completes it; the future keeps the record until its own end.
 *
 * Deeds.  One end leads to the next: a future ends, a hook sees it and ends another, on which a third waits.  Each of
 * these steps is a *deed*.  The first one on a thread runs, and does those that come meanwhile after it, one by one,
 * so a chain of any length, or a tree of any depth, takes the stack of one step.  What a user wrote (a done callback
 * that has no loop) runs with a list of its own: it may suspend and come back elsewhere. */
#ifndef HEIST_TASK_DERIVED_H
#define HEIST_TASK_DERIVED_H

#include "task/task.h"

struct heist__derived {
    /* 1: the request was recorded, the future has ended or will; 0: it was done.  Owns the failure.  The caller
     * holds the future. */
    int (*cancel)(struct heist__derived *d, struct heist__failure *failure);
    /* The future is gone. */
    void (*dispose)(struct heist__derived *d);
};

/* A derived future, pending, with two references: the caller's, and the record's.  (loop.c) */
int heist__derived_new(heist_loop *loop, struct heist__derived *d, heist_future **out);
/* Ends it and drops the record's reference; false when it was done.  Owns the failure. */
bool heist__derived_complete(heist_future *f, uint8_t outcome, int code, void *value, struct heist__failure *failure);
/* Ends it as `from` has ended, the value borrowed; `from` was looked at. */
bool heist__derived_complete_as(heist_future *f, heist_future *from);

/* A copy of a future's failure, or NULL: it has none, or no memory for it. */
struct heist__failure *heist__failure_of(const heist_future *f);

struct heist__deed {
    struct heist__deed *next;
    void (*run)(struct heist__deed *deed); /* may free it */
};

/* Now, or, within a deed, after it.  No lock is held. */
void heist__deed_do(struct heist__deed *deed);

struct heist__deeds {
    struct heist__deed *head, **end;
};

#endif
