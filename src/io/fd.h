/* Waiting for a descriptor, from a task. */
#ifndef HEIST_IO_FD_H
#define HEIST_IO_FD_H

#include <stdint.h>

#include "loop/reg.h"

/* First of all in a call on a descriptor: 0, -ECANCELED, HEIST_ENOTINCORO (not a task), HEIST_EFORKED. */
int heist__fd_entry(void);
/* A call that did not need to wait. */
void heist__fd_skipped(void);

/* Suspends until the direction may be ready: 0; -ETIMEDOUT, -ECANCELED, HEIST_ECLOSED (then r may be gone),
 * -EBUSY, or what the poller said. */
int heist__fd_wait(struct heist__reg *r, int direction, int64_t deadline_ns);

/* From now on the running loop watches it; see heist__reg_settle.  In a task. */
void heist__fd_settle(struct heist__reg *r);

/* A public deadline as an instant: -EINVAL for not-a-number. */
int heist__fd_deadline(double deadline, int64_t *out);

/* What a registration of net/ disposes of: frees the owner, closes the descriptor. */
void heist__fd_dispose(void *owner, int fd);

/* The clock that deadlines are read on, in a task. */
int64_t heist__fd_now(void);

#endif
