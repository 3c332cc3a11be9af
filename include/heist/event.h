/* heist/event.h: a flag to wait for.
 *
 * asyncio's Event: set lets everybody go on who waits, and everybody who comes until clear.
 * Set may be called from any thread.  It happens before each wait that it ends.
 * The object lives in your memory and belongs to no runtime, like a lock (heist/lock.h); one
 * may stand on the stack of the task that waits, for whoever set it does not touch it after the wait. */
#ifndef HEIST_EVENT_H
#define HEIST_EVENT_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

typedef struct heist_event {
    heist_word opaque[6];
} heist_event;

#define HEIST_EVENT_INIT {{0}}

/* Makes one that is not set.  Context: any.  Suspends: never.  Undefined: on one that is in use. */
HEIST_API void heist_event_init(heist_event *event);
/* A check, not a duty: 0, or -EBUSY when somebody waits.  Context: any.  Suspends: never. */
HEIST_API int heist_event_destroy(heist_event *event);

/* Returns 0 when the flag is set, or was set meanwhile, even if it has been cleared again.
 * Context: any.  Suspends: may.  Errors: -ECANCELED, HEIST_ENOTINCORO, -ENOMEM (the first wait of a plain thread),
 * -ETIMEDOUT in the form with a deadline (an instant of heist_time()). */
HEIST_API int heist_event_wait(heist_event *event);
HEIST_API int heist_event_wait_until(heist_event *event, double deadline);

/* Sets the flag and wakes everybody who waits; idempotent.  clear: later waits wait.
 * Context: any, callbacks and foreign threads too.  Suspends: never. */
HEIST_API int heist_event_set(heist_event *event);
HEIST_API int heist_event_clear(heist_event *event);
/* 1 or 0.  A 1 is as good as a wait.  Context: any.  Suspends: never. */
HEIST_API int heist_event_is_set(heist_event *event);

HEIST_END_DECLS

#endif
