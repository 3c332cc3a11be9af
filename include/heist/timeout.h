/* heist/timeout.h: a block of a task that must be left by an instant.
 *
 *     heist_timeout limit = HEIST_TIMEOUT_INIT;
 *     int err = heist_timeout_enter(&limit, 2.5);
 *     if (err < 0) return err;
 *     err = fetch_all(arg);                      // any calls, any depth
 *     return heist_timeout_exit(&limit, err);    // -ETIMEDOUT when it took longer
 *
 * When the instant comes while the task is in the block, the task is asked to cancel:
 * the call in which it waits, or its next one that may suspend, returns -ECANCELED, and
 * what it awaits is cancelled too.  The exit takes that request back and turns
 * -ECANCELED into -ETIMEDOUT, unless somebody else has asked the task to cancel
 * meanwhile: that goes on, once.  Scopes nest; each turns only its own.
 *
 * A scope stands where the caller puts it, on the coroutine's stack as a rule, and
 * belongs to the task that entered it: the calls below are that task's, with the
 * exception of the two questions.  Left once, it is used up.
 *
 * In a generator's body a block may be left by whoever drives the body on, be it another
 * task, a thread, or nobody (the body ends at its yield).  The limit is that of the task
 * that entered, wherever it is meanwhile; the exit then takes it back and passes the code
 * on unchanged. */
#ifndef HEIST_TIMEOUT_H
#define HEIST_TIMEOUT_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

/* The fields are the library's own. */
typedef struct heist_timeout {
    uint64_t heist__own[20];
} heist_timeout;
#define HEIST_TIMEOUT_INIT {{0}}

/* Enters the block: it ends `seconds` from now, or at an instant of heist_time().  HEIST_FOREVER: no limit (until
 * reschedule).  What is not in the future asks at once: the next call that may suspend returns -ECANCELED.
 * Context: task.  Suspends: never.
 * Errors: HEIST_ENOTASK (no task calls), HEIST_EINVALSTATE (entered before), -EINVAL (not a number), -ENOMEM.
 * Undefined: memory that HEIST_TIMEOUT_INIT did not fill; a scope that ends to exist, or moves, before its exit. */
HEIST_API int heist_timeout_enter(heist_timeout *t, double seconds);
HEIST_API int heist_timeout_enter_at(heist_timeout *t, double when);

/* Leaves the block, with the code it ended with; returns the code to go on with: -ETIMEDOUT when the time was up, the
 * block ended with -ECANCELED, and nobody else has asked; else `code`.  No timer is left behind, nor a request that
 * was the scope's own, delivered or not.
 * Context: the task that entered, or whoever drives the generator's body in which it was entered.  Suspends: never; it
 * is no cancellation point.
 * Errors: HEIST_EINVALSTATE (not entered, left before, or another's), -EINVAL. */
HEIST_API int heist_timeout_exit(heist_timeout *t, int code);

/* Another instant, HEIST_FOREVER for none; one that is not in the future asks at once.
 * Context: the task that entered.  Suspends: never.
 * Errors: HEIST_EINVALSTATE (not entered, the time is up already, left, or another's), -EINVAL. */
HEIST_API int heist_timeout_reschedule(heist_timeout *t, double when);

/* The instant at which the block is to end: HEIST_FOREVER for none.  And whether it came while the task was in the
 * block: 1 or 0.  Both are answered after the exit too.
 * Context: the task that entered; after its exit, any that the scope was handed to.  Suspends: never. */
HEIST_API double heist_timeout_when(const heist_timeout *t);
HEIST_API int heist_timeout_expired(const heist_timeout *t);

/* Runs fn(arg, out) in the caller's task as such a block.  Returns what exit would; out (may be NULL) is written only
 * with 0.
 * Context: task.  Suspends: as fn.  Errors: those of enter, then fn's, -ETIMEDOUT. */
HEIST_API int heist_with_timeout(double seconds, heist_coro_fn fn, void *arg, void **out);

/* The earliest instant of the blocks that the caller is in; HEIST_FOREVER for none, and outside a task.  A task made
 * with HEIST_TASK_INHERIT_DEADLINE has it as its own.
 * Context: any.  Suspends: never. */
HEIST_API double heist_current_deadline(void);

HEIST_END_DECLS

#endif
