/* What a thread knows about itself: the one reader of thread-local state.
 *
 * A task may go on another thread after any suspension, and a compiler may keep
 * the address of a thread-local over an opaque call.  So nothing here is inlined,
 * and nobody keeps the answer across a suspension.
 *
 * Fields are written by their own thread only. */
#ifndef HEIST_CONC_SELF_H
#define HEIST_CONC_SELF_H

#include <heist/base.h>
#include <stdbool.h>

#include "base/macros.h"

/* A thread's share of a slab's free objects: two batches, see mem/slab.c. */
struct heist__magazine {
    void *current, *spare;
    unsigned current_count;
};

/* clang-format off */
enum {
    HEIST__SLAB_FUTURE, HEIST__SLAB_HANDLE, HEIST__SLAB_TIMED, HEIST__SLAB_LOOP, HEIST__SLAB_REG, HEIST__SLAB_COUNT
};
/* clang-format on */

/* Where the code that runs sets context variables and reads them; see task/context.h.  By whoever runs in it. */
struct heist__vars;
struct heist__scope {
    struct heist__vars *vars; /* an immutable map, shared; NULL: empty */
    uint64_t id;              /* of the tokens made here; 0: none yet */
    struct heist_context *context; /* the object that it is part of, or NULL: nobody else looks */
};

struct heist__self {
    struct heist__worker *worker; /* whose scheduler runs on this thread now, or NULL */
    heist_loop *loop;             /* that worker's loop, or NULL */
    heist_task *task;             /* whose body runs on this thread now, or NULL */
    heist_loop *event_loop;       /* heist_set_event_loop: one reference, or NULL */
    struct heist__magazine magazines[HEIST__SLAB_COUNT];
    struct heist__failure *failure; /* heist_fail in a callback or job */
    struct heist__deeds *deeds;     /* those that wait for the one that runs here, or NULL; see task/derived.h */
    heist_task *flight;             /* whose request is passed on at this moment, or NULL; see task/cancel.c */
    struct heist_executor *executor; /* whose jobs this thread runs, or NULL; flow/executor.c */
    struct heist__worker *away;      /* in a blocking section: `worker`, put aside; sched/blocking.c */
    heist_task *away_task;           /* the same of `task` */
    unsigned away_depth;
    uint64_t next_id, end_id;       /* this thread's block of task numbers */
    bool registered;                /* the destructor of this thread is armed */
    struct heist__scope *scope;     /* of the callback that runs, or what heist_context_run entered; NULL: neither */
    struct heist__scope own, stray; /* the thread's; and what was set on a worker outside of tasks and callbacks */
};

/* The calling thread's own record; never NULL. */
struct heist__self *heist__self(void);

/* Whose body runs on the thread, in a blocking section too; NULL: none. */
static inline heist_task *heist__self_body(const struct heist__self *self) {
    return heist_unlikely(self->away != NULL) ? self->away_task : self->task;
}

/* Runs a destructor of the user's, which suspends nowhere: while it does, no task is current. */
static inline void heist__destruct(heist_free_fn fn, void *ptr) {
    struct heist__self *self = heist__self();
    heist_task *task = self->task;
    self->task = NULL;
    fn(ptr);
    self->task = task;
}

/* Arms the destructor that gives back what this thread holds when it exits.  0 or -ENOMEM/-EAGAIN. */
int heist__self_register(struct heist__self *self);

/* Set by the rooms that hang something on the record; called at thread exit. */
extern void (*heist__self_cleanup)(struct heist__self *self);

#endif
