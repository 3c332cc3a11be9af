/* heist/select.h: waits for the first of several things, and does that one only.
 *
 * The things are sends and receives of channels, puts and gets of queues, futures, receivers
 * of broadcasts and of watches, timers and descriptors, in any mixture.  Exactly one case wins
 * and takes effect; of the others nothing was taken and nothing sent.  When several could go on
 * at once, one of them is drawn.
 *
 *     heist_select_case c[] = {HEIST_CASE_RECV(requests), HEIST_CASE_GET(jobs), HEIST_CASE_AWAIT(stop)};
 *     int won = heist_select_until(c, 3, heist_time() + 1.0);
 *     if (won < 0) return won;                         nobody came within a second
 *     if (won == 0 && c[0].code == 0) answer(c[0].value);
 *
 * (The first result of one task by one other needs no more than a future: it is what others call a oneshot.) */
#ifndef HEIST_SELECT_H
#define HEIST_SELECT_H

#include <heist/base.h>
#include <heist/broadcast.h>
#include <heist/channel.h>
#include <heist/queue.h>
#include <heist/watch.h>
#include <stdint.h>

HEIST_BEGIN_DECLS

#define HEIST_SELECT_SEND 1u    /* heist_channel_send: object is the channel, value what is sent */
#define HEIST_SELECT_RECV 2u    /* heist_channel_recv */
#define HEIST_SELECT_PUT 3u     /* heist_queue_put: object is the queue, value the item */
#define HEIST_SELECT_GET 4u     /* heist_queue_get */
#define HEIST_SELECT_AWAIT 5u   /* the future is done; its result is taken with heist_future_result */
#define HEIST_SELECT_NEXT 6u    /* heist_receiver_recv: object is the receiver */
#define HEIST_SELECT_CHANGED 7u /* heist_watcher_changed: object is the watcher */
#define HEIST_SELECT_AT 8u      /* an instant of heist_time() has come: object points at it, a double */
/* The descriptor is ready, has hung up, or has an error: the next call on it says which.  The object is made of its
 * number by HEIST_CASE_READABLE and HEIST_CASE_WRITABLE; -1 is the case that never wins. */
#define HEIST_SELECT_READABLE 9u
#define HEIST_SELECT_WRITABLE 10u

typedef struct heist_select_case {
    unsigned op;
    int code;     /* out, of the case that won: what its call would have returned: 0, HEIST_ESHUTDOWN, HEIST_ELAGGED,
                   * or, of a descriptor, HEIST_ECLOSED (the loop that polled it was closed) */
    void *object; /* NULL: this case never wins */
    void *value;  /* in: what goes in; out, of the case that won with code 0: what came out */
} heist_select_case;

#define HEIST_CASE_SEND(channel, v) {HEIST_SELECT_SEND, 0, (channel), (v)}
#define HEIST_CASE_RECV(channel) {HEIST_SELECT_RECV, 0, (channel), 0}
#define HEIST_CASE_PUT(queue, item) {HEIST_SELECT_PUT, 0, (queue), (item)}
#define HEIST_CASE_GET(queue) {HEIST_SELECT_GET, 0, (queue), 0}
#define HEIST_CASE_AWAIT(future) {HEIST_SELECT_AWAIT, 0, (future), 0}
#define HEIST_CASE_NEXT(receiver) {HEIST_SELECT_NEXT, 0, (receiver), 0}
#define HEIST_CASE_CHANGED(watcher) {HEIST_SELECT_CHANGED, 0, (watcher), 0}
#define HEIST_CASE_AT(instant) {HEIST_SELECT_AT, 0, (instant), 0} /* a double *, which is read at the beginning */
#define HEIST_CASE_READABLE(fd) {HEIST_SELECT_READABLE, 0, (void *)((intptr_t)(fd) + 1), 0}
#define HEIST_CASE_WRITABLE(fd) {HEIST_SELECT_WRITABLE, 0, (void *)((intptr_t)(fd) + 1), 0}

/* The index of the case that won, 0 to n - 1; the other cases are left as they were.  Without a case that can win it
 * waits for the cancel request or the deadline.
 * Context: any.  Suspends: may.  Ownership: borrows every object during the call; values as in the single calls.
 * Errors: -ECANCELED (it took nothing; futures are not cancelled by it), -ETIMEDOUT, HEIST_ENOTINCORO, -ENOMEM (more
 * than 8 cases, a queue must grow, or the first wait of a plain thread), HEIST_ESELFAWAIT, -EINVAL
 * (an unknown op, more than 65,536 cases, an instant that is no number).  For a descriptor that is not ready at once
 * also those of heist_ready_future: HEIST_ENOLOOP where no loop runs (a plain thread), -EMFILE; -EBADF always. */
HEIST_API int heist_select(heist_select_case *cases, size_t n);
HEIST_API int heist_select_until(heist_select_case *cases, size_t n, double deadline);
/* At once, or -EAGAIN: the form with a default.  Context: any, callbacks too.  Suspends: never. */
HEIST_API int heist_select_try(heist_select_case *cases, size_t n);

HEIST_END_DECLS

#endif
