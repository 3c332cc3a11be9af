/* heist/rwlock.h: many readers, or one writer.
 *
 * Served in the order of arrival, and readers that stand one behind the other enter
 * together.  A newcomer stands behind those who wait already, so neither readers nor writers
 * are starved; whoever holds it to read and wants it to read once more may therefore wait for
 * a writer that waits for him: do not.  Release happens before the acquire that follows.
 * The object lives in your memory and belongs to no runtime, like a lock (heist/lock.h). */
#ifndef HEIST_RWLOCK_H
#define HEIST_RWLOCK_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

typedef struct heist_rwlock {
    heist_word opaque[8];
} heist_rwlock;

#define HEIST_RWLOCK_INIT {{0}}

/* Makes a free one.  Context: any.  Suspends: never.  Undefined: on one that is in use. */
HEIST_API void heist_rwlock_init(heist_rwlock *lock);
/* A check, not a duty: 0, or -EBUSY when it is held or waited for.  Context: any.  Suspends: never. */
HEIST_API int heist_rwlock_destroy(heist_rwlock *lock);

/* Context: any.  Suspends: may.  Cancelled or timed out, it has taken nothing.  Errors: as heist_lock_acquire. */
HEIST_API int heist_rwlock_acquire_read(heist_rwlock *lock) HEIST_NODISCARD;
HEIST_API int heist_rwlock_acquire_write(heist_rwlock *lock) HEIST_NODISCARD;
HEIST_API int heist_rwlock_acquire_read_until(heist_rwlock *lock, double deadline) HEIST_NODISCARD;
HEIST_API int heist_rwlock_acquire_write_until(heist_rwlock *lock, double deadline) HEIST_NODISCARD;
/* The same at once, or -EAGAIN.  Context: any, callbacks too.  Suspends: never. */
HEIST_API int heist_rwlock_try_acquire_read(heist_rwlock *lock) HEIST_NODISCARD;
HEIST_API int heist_rwlock_try_acquire_write(heist_rwlock *lock) HEIST_NODISCARD;

/* Context: any; anybody may release it.  Suspends: never.  Errors: HEIST_ENOTACQUIRED (nobody reads, or nobody
 * writes). */
HEIST_API int heist_rwlock_release_read(heist_rwlock *lock);
HEIST_API int heist_rwlock_release_write(heist_rwlock *lock);

/* How many read now; 1 while one writes, else 0.  Context: any.  Suspends: never. */
HEIST_API size_t heist_rwlock_readers(heist_rwlock *lock);
HEIST_API int heist_rwlock_writing(heist_rwlock *lock);

HEIST_END_DECLS

#endif
