/* What few tasks have, behind one pointer, so that the others pay eight bytes for all of it.
 *
 * Made when it is first needed: at birth, by the task itself, or by whoever names it; it stays until the task's memory
 * goes.  Each field says who reads and writes it. */
#ifndef HEIST_TASK_EXTRA_H
#define HEIST_TASK_EXTRA_H

#include <heist/base.h>
#include <stdbool.h>

#include "conc/spin.h"

struct heist__birth;
struct heist__block;
struct heist__scope;

struct heist__extra {
    struct heist__birth *birth; /* birth: where it was made, in debug mode; see birth.h */
    _Atomic(char *) name; /* its own, or NULL; changed and copied under the name lock (name.c) */

    /* context variables (context.h) */
    _Atomic(heist_context *) context; /* given at birth, else its own, made when first needed; then it stays */
    struct heist__scope *entered;     /* runner: what heist_context_run entered, or NULL */
    bool released;                    /* its claim to `context` has been given back */
    heist_coro_fn fn; /* birth: what it runs, when the context was given: see sched/context.c */
    void *arg;
    heist_free_fn arg_free;

    /* deadlines (sched/timeout.c) */
    struct heist__spin blocks_lock;
    struct heist__block *blocks; /* under that lock: those that it is in, newest first */
    heist_coro_fn timed_fn;      /* birth: the body of one that has its deadline from birth, or NULL */
    int64_t deadline_ns;         /* birth: that deadline */
};

/* Of a task that the caller holds: made if need be.  NULL: no memory.  Any thread. */
struct heist__extra *heist__extra(heist_task *t);
/* What a task has, or NULL.  Any thread. */
struct heist__extra *heist__extra_of(heist_task *t);
/* Its context, made if need be.  NULL: no memory.  Any thread that holds it. */
heist_context *heist__extra_context(heist_task *t);
/* Its own name or NULL, without the lock: for those who report while nothing moves, or on the way to the end. */
const char *heist__extra_name(heist_task *t);
/* Frees it with all that it holds; NULL is allowed. */
void heist__extra_free(struct heist__extra *e);

#endif
