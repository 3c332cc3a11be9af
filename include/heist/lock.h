/* heist/lock.h: one at a time.
 *
 * asyncio's Lock: no owner, so any task, thread or callback may release it, and whoever
 * acquires it twice waits for itself.  Release happens before the acquire that follows.
 *
 * A lock lives in your memory, wherever you put it: HEIST_LOCK_INIT or heist_lock_init
 * make it, nothing is allocated and nothing can fail.  It is never copied or moved.  It
 * belongs to no runtime: tasks of several runtimes and plain threads may share one.  Its
 * memory may go as soon as nobody will use it any more: a call that has let you go on does
 * not touch it again.
 *
 * Order.  Waiters are served first come, first served.  On a loop of its own, and on a
 * runtime of one worker, that is all: a lock that is released goes to the first waiter, and
 * newcomers stand behind.  Between the workers of a larger runtime, and for plain threads,
 * handing a lock over to somebody who has yet to be scheduled would make everybody wait for
 * the scheduler each time.  There a release wakes the first waiter, and until that one runs
 * others may take the lock in passing.  The bound: each waiter is woken at most once in
 * vain.  When it then finds the lock taken it is first again, nobody passes it any
 * more, and the next release hands the lock to it. */
#ifndef HEIST_LOCK_H
#define HEIST_LOCK_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

typedef struct heist_lock {
    heist_word opaque[6];
} heist_lock;

#define HEIST_LOCK_INIT {{0}}

/* Makes a free lock.  Context: any.  Suspends: never.  Undefined: on a lock that is in use. */
HEIST_API void heist_lock_init(heist_lock *lock);
/* A check, not a duty: 0, or -EBUSY when it is held or waited for.  There is nothing to give back.
 * Context: any.  Suspends: never. */
HEIST_API int heist_lock_destroy(heist_lock *lock);

/* Waits for the lock and takes it.  Context: any.  Suspends: may.  Cancelled or timed out, it has not taken it.
 * Errors: -ECANCELED, HEIST_ENOTINCORO; -ETIMEDOUT in the form with a deadline (an instant of heist_time());
 * -ENOMEM (the first wait of a plain thread). */
HEIST_API int heist_lock_acquire(heist_lock *lock) HEIST_NODISCARD;
HEIST_API int heist_lock_acquire_until(heist_lock *lock, double deadline) HEIST_NODISCARD;
/* The same at once, or -EAGAIN.  Context: any, callbacks too.  Suspends: never. */
HEIST_API int heist_lock_try_acquire(heist_lock *lock) HEIST_NODISCARD;

/* Frees the lock, or hands it to a waiter.  Context: any.  Suspends: never.  Errors: HEIST_ENOTACQUIRED (it was
 * free). */
HEIST_API int heist_lock_release(heist_lock *lock);

/* 1 while it is held, else 0.  Context: any.  Suspends: never. */
HEIST_API int heist_lock_locked(const heist_lock *lock);

/* asyncio's `async with lock`: acquires, calls fn(arg), releases on every way out of it, and returns what fn returned;
 * or returns what acquire said, and fn was not called.  fn may suspend.  Context: any.  Suspends: may. */
HEIST_API int heist_lock_with(heist_lock *lock, int (*fn)(void *arg), void *arg);

HEIST_END_DECLS

#endif
