/* heist/once.h: the first one does it, the others wait until it is done.
 *
 * What the function did happens before each call that returns 0.  When it fails, its code goes to the
 * caller that ran it and to nobody else; of those who wait, the next runs its own function.
 * The object lives in your memory and belongs to no runtime, like a lock (heist/lock.h). */
#ifndef HEIST_ONCE_H
#define HEIST_ONCE_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

typedef struct heist_once {
    heist_word opaque[7];
} heist_once;

#define HEIST_ONCE_INIT {{0}}

/* Context: any.  Suspends: never.  Undefined: on one that is in use. */
HEIST_API void heist_once_init(heist_once *once);
/* A check, not a duty: 0, or -EBUSY when somebody runs it or waits.  Context: any.  Suspends: never. */
HEIST_API int heist_once_destroy(heist_once *once);

/* 0: fn, or that of an earlier caller, has returned 0 (or more).  Else what fn returned to this caller, or the code of
 * a wait that ended before it was done: fn was not called then.  fn may suspend; a fn that is cancelled has failed.
 * Context: any.  Suspends: may.  Errors: fn's; else as heist_lock_acquire.
 * Undefined: nothing; but fn that calls the same once waits for itself. */
HEIST_API int heist_once_call(heist_once *once, int (*fn)(void *arg), void *arg);
HEIST_API int heist_once_call_until(heist_once *once, int (*fn)(void *arg), void *arg, double deadline);

/* 1 when it is done; what fn did is seen then.  Context: any, callbacks too.  Suspends: never. */
HEIST_API int heist_once_done(const heist_once *once);

HEIST_END_DECLS

#endif
