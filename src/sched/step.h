/* One step of a task, in the loop of its worker.
 *
 * Inlined there, and what is rare stands elsewhere (spawn.c): after a switch of stacks the processor's stack of return
 * addresses is another's, so each function between the switch and the loop costs a mispredicted return, and this one
 * cost a fifth of a trip through the scheduler. */
#ifndef HEIST_SCHED_STEP_H
#define HEIST_SCHED_STEP_H

#include "sched/sched.h"

/* The body's last leave. */
#define HEIST__LEFT_FOR_GOOD ((void *)1)

/* The first step gets a stack: false when the task did not come to run. */
bool heist__step_begin(struct heist__worker *w, heist_task *t);
/* The body has returned. */
void heist__step_end(struct heist__worker *w, heist_task *t);
/* In debug mode, or with a monitor: each step is timed and shown. */
void heist__step_watched(struct heist__worker *w, heist_task *t);

static inline __attribute__((always_inline)) void heist__step(struct heist__worker *w, heist_task *t) {
    if (heist_unlikely(!t->coro) && !heist__step_begin(w, t)) return;
    struct heist__self *self = w->self;
    a_store_rlx(&w->tick, a_load_rlx(&w->tick) + 1); /* rlx: a count; only we write it */
    t->budget = HEIST__TASK_BUDGET;
    if (heist_unlikely(a_load_rlx(&w->loop->debug))) { /* rlx: a setting */
        heist__step_watched(w, t);
        return;
    }
    for (;;) {
        self->task = t;
        a_store_rlx(&t->running, 1); /* rlx: for reports */
        void *left = heist__coro_enter(&w->host, t->coro, t);
        t = self->task; /* one that runs in place leaves in its own name, and its awaiter comes back in its own */
        self->task = NULL;
        a_store_rlx(&t->running, 0);
        if (heist_unlikely(left == HEIST__LEFT_FOR_GOOD)) {
            heist__step_end(w, t);
            return;
        }
        if (heist_likely(w->commit(t, w->commit_arg))) return; /* t is published: not ours any more */
    }
}

#endif
