/* A wait for a state of an object with a short lock and a wait queue: for what is rare enough not to need a publish of
 * its own. */
#ifndef HEIST_SYNC_WAIT_WHILE_H
#define HEIST_SYNC_WAIT_WHILE_H

#include <stdbool.h>
#include <stdint.h>

#include "conc/spin.h"
#include "sync/waitq.h"

/* Waits in `queue` if `waits`, asked under the guard, says so; the asking and the entering are one step, so whoever
 * changes the state under the guard and then claims the queue misses nobody.  Once, not until it says no: a claim is a
 * reason to look.  The object must outlive the call.  0 when there is nothing to wait for, or what the claim said;
 * -ECANCELED, -ETIMEDOUT.  The caller has made the entry of a suspending call. */
int heist__wait_while(struct heist__spin *guard, struct heist__waitq *queue,
                      bool (*waits)(const void *object, uint64_t arg), const void *object, uint64_t arg,
                      int64_t deadline_ns);

#endif
