/* SIGINT as a request to cancel main: the first cancels, a second one ends the process.
 *
 * Only where it was asked for, only while main runs, and only if nobody else has the signal: the disposition
 * is SIG_DFL before, and is again afterwards. */
#ifndef HEIST_SCHED_SIGINT_H
#define HEIST_SCHED_SIGINT_H

#include <heist/base.h>
#include <stdbool.h>

struct heist__sigint;

/* 0 or -ENOMEM. */
int heist__sigint_make(struct heist__sigint **out);
/* From now on SIGINT is for the target, by a job on the loop, which lives until end; unless the program has the signal
 * itself.  NULL is allowed. */
void heist__sigint_install(struct heist__sigint *s, heist_loop *loop);
/* The task to cancel, made since: at once when there was a signal already.  NULL is allowed for s. */
void heist__sigint_target(struct heist__sigint *s, heist_task *t);
/* No longer, and s is gone.  True when there was a signal.  NULL is allowed. */
bool heist__sigint_end(struct heist__sigint *s);

#endif
