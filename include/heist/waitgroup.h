/* heist/waitgroup.h: wait for a count to be zero.
 *
 * add what is begun, done with each that has ended, wait for the rest.  done happens before each wait
 * that it ends.  It may be used again, also while those who were let go are still on their way.  Add before what is
 * added can end: a wait that finds zero returns at once.
 * The object lives in your memory and belongs to no runtime, like a lock (heist/lock.h). */
#ifndef HEIST_WAITGROUP_H
#define HEIST_WAITGROUP_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

typedef struct heist_waitgroup {
    heist_word opaque[6];
} heist_waitgroup;

#define HEIST_WAITGROUP_INIT {{0}}

/* Context: any.  Suspends: never.  Undefined: on one that is in use. */
HEIST_API void heist_waitgroup_init(heist_waitgroup *group);
/* A check, not a duty: 0, or -EBUSY when the count is not zero or somebody waits.  Context: any.  Suspends: never. */
HEIST_API int heist_waitgroup_destroy(heist_waitgroup *group);

/* Adds n, which may be negative.  done adds -1.  Who brings it to zero wakes everybody who waits.
 * Context: any.  Suspends: never.  Errors: -EINVAL (the count would be negative), -EOVERFLOW: nothing was changed. */
HEIST_API int heist_waitgroup_add(heist_waitgroup *group, int64_t n);
HEIST_API int heist_waitgroup_done(heist_waitgroup *group);

/* Returns 0 when the count is zero, or was zero meanwhile.  Context: any.  Suspends: may.
 * Errors: -ECANCELED, HEIST_ENOTINCORO, -ENOMEM (the first wait of a plain thread), -ETIMEDOUT in the form with a
 * deadline (an instant of heist_time()). */
HEIST_API int heist_waitgroup_wait(heist_waitgroup *group);
HEIST_API int heist_waitgroup_wait_until(heist_waitgroup *group, double deadline);

/* The count now.  Context: any.  Suspends: never. */
HEIST_API int64_t heist_waitgroup_count(heist_waitgroup *group);

HEIST_END_DECLS

#endif
