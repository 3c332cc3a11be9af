/* The narrow waist: the one way for a task to wait.
 *
 * A task leaves its stack; then its worker, on its own stack, runs `commit`, which
 * publishes the task to whoever shall wake it.  So no waker can meet a task that still
 * stands on its stack.  commit returns false when there is nothing to wait for any
 * more: the task goes on at once.  Once it has published the task, commit touches it
 * only where park.h or the type-stable slab allows it. */
#ifndef HEIST_SCHED_SUSPEND_H
#define HEIST_SCHED_SUSPEND_H

#include "conc/self.h"
#include "loop/loop.h"
#include "sched/sched.h"
#include "task/task.h"

/* Debug mode: the thread must not hold a lock that the step took. */
void heist__suspend_check(struct heist__worker *w, heist_task *t);

/* From the body of the current task; returns when it has been resumed, perhaps on another thread.  Inlined, as are its
 * callers where they can be: each return between the switch and the body is a mispredicted one (step.h). */
static inline __attribute__((always_inline)) void heist__suspend(bool (*commit)(heist_task *t, void *arg), void *arg) {
    struct heist__self *self = heist__self();
    struct heist__worker *w = self->worker;
    if (heist_unlikely(w->locks_watch)) heist__suspend_check(w, self->task);
    w->commit = commit;
    w->commit_arg = arg;
    heist__coro_leave(&w->host, self->task->coro, NULL);
    /* Here on another thread, perhaps: self and w are stale. */
}

/* Lets the others run: the current task goes behind them. */
void heist__give_way(struct heist__self *self);

/* Who waits: the current task, or this thread. */
struct heist__wait {
    struct heist__park *park;
    struct heist__park thread_park; /* of a plain thread */
    struct heist__wait_timer timer; /* of a task with a deadline */
    int64_t deadline_ns;            /* INT64_MAX: none */
    bool (*publish)(struct heist__wait *w, heist_loop *loop); /* false: nothing to wait for; sets code */
    void (*withdraw)(struct heist__wait *w); /* after any other outcome than 0: takes back what publish did */
    int code;                       /* the outcome */
};

/* Waits cancellably: the code is 0 (woken by the party), -ECANCELED, -ETIMEDOUT, what the waker gave, or
 * what publish set.  publish runs with the park word armed; while it holds the lock under which the party
 * looks for waiters, or publishes by one atomic step.  A task must have spent its budget and looked at
 * its cancel request before (heist__wait_entry). */
int heist__wait(struct heist__wait *w);

/* Waits cancellably until f is done: 0, -ECANCELED, -ETIMEDOUT, -ENOMEM.  f is left alone.  As for heist__wait, the
 * entry is the caller's business.  (await.c) */
int heist__await_until(heist_future *f, int64_t deadline_ns);

/* The clock of the running loop, or the machine's.  (sleep.c) */
struct heist__clock *heist__clock_here(void);

/* What every call that may suspend does first: 0; -ECANCELED (a request is delivered: the call has taken
 * nothing); HEIST_ENOTINCORO (a callback); HEIST_EFORKED. */
int heist__wait_entry(struct heist__self *self);

/* What every call that did not need to wait does: costs budget, and gives way when it is used up. */
void heist__wait_skipped(struct heist__self *self);

#endif
