/* A feed: a request of many shots in a loop's ring, and what came of it that nobody has taken yet.  Of a listening
 * socket: connections.  Of a connected one: bytes, which stand in the ring's buffers (uring_recv.c).
 *
 * For who owns a descriptor and all that is read from it (loop/reg.h, heist__reg_feed).  He takes from the feed; when
 * that is empty and its request has ended he tries by himself, and arms the request before he waits.  So whatever ends
 * a request (no descriptor left, no buffer left, the thread that armed it gone, a cancel) is met by a plain call, and
 * has that one's outcome; and a request is out only when somebody has waited since.
 *
 *   request   ENDED ──arm──> OUT ──a completion without MORE──> ENDED
 *                             └──too much is kept, or the owner ends──> cancelled, and still out until it has ended
 *   what came  goes into the feed when its completion is taken out of the ring, in their order, and out of it in that
 *              order.  A taker that is cancelled, or late, has taken nothing.
 *
 *   1 nothing is lost  a completion is taken out once, under the ring's lock, and what it brings is kept in the same
 *                      hold; only a take, or the end, removes it.
 *   2 the order        of bytes: by himself the owner reads only when the feed is empty and its request has ended (one
 *                      look under the feed's lock), so what he reads is behind all that came by it.
 *   3 no wake is lost  the first thing that is kept, and the end of a request, is an event of the registration, which
 *                      comes after it is kept: who found the feed empty and OUT finds the slot READY, or is woken.
 *   4 memory           who ends a feed whose request is out leaves it to the ring, which frees it at the last
 *                      completion, and what comes until then: descriptors are closed, buffers go back.  A loop that
 *                      shuts cancels all, and takes completions until no request is out; then none is armed any more.
 *                      So the kernel writes to no buffer, and opens no descriptor, that nobody has.
 *   5 bounds           a feed that keeps KEEP_MOST has its request cancelled: the rest waits in the socket, as it would
 *                      otherwise; then the owner reads by himself until he waits again.
 *   6 the end          of bytes is not left to the kernel: when data and the end (a FIN, a reset) come close upon each
 *                      other, a request of many shots can tell of the data and then stand for ever (seen on Linux
 *                      6.18, TCP and Unix: as if the wake-up of the end was taken with the data's).  So who finds the
 *                      feed empty and OUT for the first time after it brought something looks at the socket: has it
 *                      ended, the request is cancelled.  An end whose wake-up was taken so had come before that data's
 *                      completion, so the look sees it; a later one wakes the request as anything else.  Either way a
 *                      last completion comes, which is the event (3), and the owner reads the end by himself (2). */
#ifndef HEIST_LOOP_FEED_H
#define HEIST_LOOP_FEED_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <heist/base.h>

#include "loop/poller.h"

struct heist__feed;

/* Nothing is kept, and no request is out. */
#define HEIST__FEED_ENDED INT_MIN

/* Whether the loop shall feed by these (HEIST__FEED_…, poller.h), and can. */
bool heist__feed_wanted(heist_loop *loop, unsigned kind);

/* On a loop of which that was said; keeps it from its end.  `data`: of the registration (heist__reg_feed).  NULL: no
 * memory, or no buffers. */
struct heist__feed *heist__feed_new(heist_loop *loop, unsigned kind, int fd, uint64_t data);
/* When no take is in progress.  Any thread. */
void heist__feed_end(struct heist__feed *f);

/* From a task: the request is out when this has returned 0, or was.  Else there is none, and will not be: the kernel
 * does not know it, there are too few buffers, or the loop is closed. */
int heist__feed_arm(struct heist__feed *f);

/* A descriptor, which is the caller's; or -EAGAIN: an event will come; or HEIST__FEED_ENDED. */
int heist__feed_accept(struct heist__feed *f);
/* By one taker at a time.  A count of bytes; or what broke the connection; or as above.  joins: also of several reads
 * of the kernel's, whose bounds mean nothing. */
ptrdiff_t heist__feed_recv(struct heist__feed *f, void *buf, size_t size, bool joins);

#endif
