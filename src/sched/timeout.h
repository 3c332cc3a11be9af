/* Deadlines of blocks.  See timeout.c. */
#ifndef HEIST_SCHED_TIMEOUT_H
#define HEIST_SCHED_TIMEOUT_H

#include "sched/sched.h"

/* The earliest deadline of the blocks that the caller's task is in, by the clock of `rt`; INT64_MAX: none. */
int64_t heist__deadline_inherited(heist_runtime *rt);

/* The body of a task that has a deadline from birth: runs the body in its extra as a block. */
int heist__deadline_body(void *arg, void **out);

#endif
