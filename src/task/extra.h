/* What few tasks have, behind one pointer, so that the others pay eight bytes for all of it.
 *
 * Made when it is first needed: at birth, by the task itself, or by whoever names it; it stays until the task's memory
 * goes.  Each field says who reads and writes it. */
#ifndef HEIST_TASK_EXTRA_H
#define HEIST_TASK_EXTRA_H

#include <heist/base.h>

#include "conc/atomic.h"

struct heist__extra {
    _Atomic(char *) name; /* its own, or NULL; changed and copied under the name lock (name.c) */
};

/* Of a task that the caller holds: made if need be.  NULL: no memory.  Any thread. */
struct heist__extra *heist__extra(heist_task *t);
/* What a task has, or NULL.  Any thread. */
struct heist__extra *heist__extra_of(heist_task *t);
/* Its own name or NULL, without the lock: for those who report while nothing moves, or on the way to the end. */
const char *heist__extra_name(heist_task *t);
/* Frees it with all that it holds; NULL is allowed. */
void heist__extra_free(struct heist__extra *e);

#endif
