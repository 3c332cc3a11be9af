/* heist/semaphore.h: at most n at a time.
 *
 * asyncio's Semaphore and BoundedSemaphore.  A permit that is released goes to the first
 * waiter, and newcomers stand behind those who wait.  Release happens before the acquire that it lets go on.
 * The object lives in your memory and belongs to no runtime, like a lock (heist/lock.h). */
#ifndef HEIST_SEMAPHORE_H
#define HEIST_SEMAPHORE_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

typedef struct heist_semaphore {
    heist_word opaque[7];
} heist_semaphore;

/* n permits, not negative; bounded: never more than that. */
#define HEIST_SEMAPHORE_INIT(n) {{(uint64_t)(n), 0}}
#define HEIST_BOUNDED_SEMAPHORE_INIT(n) {{(uint64_t)(n), (uint64_t)(n) + 1}}

/* Context: any.  Suspends: never.  Errors: -EINVAL (a negative value).  Undefined: on one that is in use. */
HEIST_API int heist_semaphore_init(heist_semaphore *semaphore, int64_t value) HEIST_NODISCARD;
HEIST_API int heist_semaphore_init_bounded(heist_semaphore *semaphore, int64_t value) HEIST_NODISCARD;
/* A check, not a duty: 0, or -EBUSY when somebody waits.  Context: any.  Suspends: never. */
HEIST_API int heist_semaphore_destroy(heist_semaphore *semaphore);

/* Waits for a permit and takes it.  Context: any.  Suspends: may.  Cancelled or timed out, it took none.
 * Errors: as heist_lock_acquire. */
HEIST_API int heist_semaphore_acquire(heist_semaphore *semaphore) HEIST_NODISCARD;
HEIST_API int heist_semaphore_acquire_until(heist_semaphore *semaphore, double deadline) HEIST_NODISCARD;
/* The same at once, or -EAGAIN.  Context: any, callbacks too.  Suspends: never. */
HEIST_API int heist_semaphore_try_acquire(heist_semaphore *semaphore) HEIST_NODISCARD;

/* Gives a permit, also one that nobody took: the count may rise above its start, except in a bounded one.
 * Context: any.  Suspends: never.  Errors: -EOVERFLOW (a bounded one has all of its permits, or the count is at its
 * end): nothing was changed. */
HEIST_API int heist_semaphore_release(heist_semaphore *semaphore);

/* 1 when an acquire would have to wait now, else 0.  A permit that was handed to a waiter is not free, even
 * before that one runs.  Context: any.  Suspends: never. */
HEIST_API int heist_semaphore_locked(heist_semaphore *semaphore);
/* Permits that are free now.  Context: any.  Suspends: never. */
HEIST_API int64_t heist_semaphore_value(heist_semaphore *semaphore);

HEIST_END_DECLS

#endif
