/* Debug mode's trap for a task that suspends or ends while its thread holds a lock.
 *
 * A lock of POSIX threads belongs to the thread that took it; the task may go on in another.
 * Who counts the locks is not our affair: a hook tells (heist/debug.h).  The count is taken
 * when a step begins, so what the thread held before, in the caller of heist_run, is not
 * the task's doing. */
#ifndef HEIST_SCHED_HELD_H
#define HEIST_SCHED_HELD_H

#include "sched/sched.h"

/* For w->locks_watch, as a step begins in debug mode: what is held now, plus one; 0: nobody counts. */
int heist__held_begin(void);

/* While a step of t with a watch runs, or right after it, on the step's thread: reports and aborts when
 * more is held than at its beginning.  `what`: "a task suspends while ..." */
void heist__held_check(struct heist__worker *w, heist_task *t, const char *what);

#endif
