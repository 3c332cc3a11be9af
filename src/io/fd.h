/* Waiting for a descriptor, from a task. */
#ifndef HEIST_IO_FD_H
#define HEIST_IO_FD_H

#include <stdint.h>
#include <sys/socket.h>

#include "conc/atomic.h"
#include "loop/feed.h"
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

/* Before a wait to read, of a descriptor that the caller's own reads alone take from: the feed in *feed has its request
 * out, and is made if there is none; or there is none, now and later, and readiness does it (then *wanted is false). */
void heist__fd_feed(struct heist__reg *r, unsigned kind, _Atomic(struct heist__feed *) *feed, bool *wanted);

/* A public deadline as an instant: -EINVAL for not-a-number. */
int heist__fd_deadline(double deadline, int64_t *out);

/* ---- a descriptor that stays the user's: a guest (loop/fds.h) ---- */

struct heist__call {
    int fd;
    struct heist__reg *guest;
    uint16_t asked[2]; /* see heist__reg_ask */
    int64_t until;
};

/* First of all in a call on such a descriptor, 0; or -EINVAL (the deadline), -EBADF, -EBUSY (it has an owner),
 * HEIST_ECLOSED, -ENOMEM, and as heist__fd_entry.  With 0 an end must follow. */
int heist__call_begin(struct heist__call *c, int fd, double deadline);
/* In debug mode: -EINVAL for a descriptor that would block the worker. */
int heist__call_check(const struct heist__call *c);
/* Suspends until one of the directions (bits 1 << HEIST__REG_…) may be ready: as heist__fd_wait. */
int heist__call_wait(struct heist__call *c, unsigned directions);
/* After a send that found no room: the same, or a moment when room comes without a sign (`to` is a Unix address). */
int heist__call_wait_room(struct heist__call *c, const struct sockaddr *to);
void heist__call_end(struct heist__call *c);

/* A moment's sleep: 0, -ETIMEDOUT, -ECANCELED. */
int heist__fd_pause(int64_t until);
/* A Unix socket can find no room at an address though it is ready to be written: the room is at the other end, and no
 * event tells when it comes. */
bool heist__fd_room_is_far(int fd, const struct sockaddr *to);

/* What a registration of net/ disposes of: frees the owner, closes the descriptor. */
void heist__fd_dispose(void *owner, int fd);

/* The clock that deadlines are read on, in a task. */
int64_t heist__fd_now(void);

#endif
