/* heist/condition.h: wait under a lock until somebody says that something has changed.
 *
 * asyncio's Condition, with the lock beside it: give it yours, which several conditions may
 * share.  wait releases the lock and holds it again when it returns, whatever the reason.
 * Waiters are told in the order of their arrival, and those who were told move to
 * the lock's own queue: they go on one at a time, as the lock becomes free.  Who was told
 * can no longer be cancelled or time out: a request is kept for its next suspending
 * call.  So no notification is lost with a waiter that gave up.
 * The object lives in your memory and belongs to no runtime, like a lock (heist/lock.h). */
#ifndef HEIST_CONDITION_H
#define HEIST_CONDITION_H

#include <heist/base.h>
#include <heist/lock.h>

HEIST_BEGIN_DECLS

typedef struct heist_condition {
    heist_lock *lock; /* read it, do not change it */
    heist_word opaque[5];
} heist_condition;

#define HEIST_CONDITION_INIT(lock) {(lock), {0}}

/* Ownership: the lock is borrowed, and stays where it is while the condition is used.  Context: any.
 * Suspends: never.  Errors: -EINVAL (no lock).  Undefined: on one that is in use. */
HEIST_API int heist_condition_init(heist_condition *condition, heist_lock *lock);
/* A check, not a duty: 0, or -EBUSY when somebody waits.  Context: any.  Suspends: never. */
HEIST_API int heist_condition_destroy(heist_condition *condition);

/* Releases the lock, waits to be told, and acquires it again, also when the answer is -ECANCELED or -ETIMEDOUT; so it
 * may return later than its deadline.  It returns 0 only when it was told; whether what you wait for is true, look
 * again.
 * Context: any.  Suspends: always, unless there is an error at once.
 * Errors: HEIST_ENOTACQUIRED (the lock is free), -ECANCELED, -ETIMEDOUT, HEIST_ENOTINCORO, -ENOMEM (the first wait of a
 * plain thread): the lock is as it was. */
HEIST_API int heist_condition_wait(heist_condition *condition) HEIST_NODISCARD;
HEIST_API int heist_condition_wait_until(heist_condition *condition, double deadline) HEIST_NODISCARD;

/* Calls predicate(arg), with the lock held, and waits while it gives 0.  Returns what it gave otherwise (a negative
 * code too), or the code of a wait that failed.  With a deadline the predicate has the last word: -ETIMEDOUT only when
 * it gives 0 then.  The predicate may suspend.
 * Suspends: may.  Context, Errors: as heist_condition_wait. */
HEIST_API int heist_condition_wait_for(heist_condition *condition, int (*predicate)(void *arg), void *arg)
    HEIST_NODISCARD;
HEIST_API int heist_condition_wait_for_until(heist_condition *condition, int (*predicate)(void *arg), void *arg,
                                             double deadline) HEIST_NODISCARD;

/* Tells up to n waiters, or all.  Returns how many were told; with nobody waiting nothing is kept for later.
 * Context: any that holds the lock, callbacks too.  Suspends: never.  Errors: HEIST_ENOTACQUIRED, -EINVAL. */
HEIST_API int heist_condition_notify(heist_condition *condition, int n);
HEIST_API int heist_condition_notify_all(heist_condition *condition);

HEIST_END_DECLS

#endif
