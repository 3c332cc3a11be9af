/* The inside of the poller on io_uring, for its two files: poller_uring.c and uring_feed.c. */
#ifndef HEIST_LOOP_URING_H
#define HEIST_LOOP_URING_H

#include "base/list.h"
#include "conc/spin.h"
#include "loop/poller_uring.h"
#include "loop/ring.h"

struct heist__uring_node;
struct heist__buffers;

struct heist__uring {
    struct heist__spin lock; /* guards all */
    struct heist__ring ring;
    struct heist__link nodes, due;
    struct heist__uring_node *spare;
    unsigned spares;
    struct heist__uring_node **bucket;
    size_t buckets, live; /* a power of two; the live nodes */
    _Atomic(bool) debts;  /* something is due, or pushed and not handed over */
    _Atomic(int) deep;    /* who waits for long, having seen no debts */
    int wake;             /* the loop's wake-up descriptor, while it is registered; else -1 */

    /* uring_feed.c's */
    struct heist__link feeds;       /* whose requests are out */
    bool feeds_due;                 /* a request to cancel one had no room */
    bool shut;                      /* no request of a feed begins any more */
    struct heist__buffers *buffers; /* NULL before the first feed that needs them */
};

/* User data: 0 of what nobody asks for; an operation's or a feed's address with a tag; else a node's with the request's
 * number in 14 bits. */
#define HEIST__URING_OP ((uint64_t)1 << 63)
#define HEIST__URING_FEED ((uint64_t)1 << 62)

/* All under the lock. */
struct io_uring_sqe *heist__uring_entry(struct heist__uring *u); /* NULL: no room */
void heist__uring_hand_over(struct heist__uring *u);
void heist__uring_owe(struct heist__uring *u); /* there is something to be tried again */
/* The last thing under the lock, wherever debts may have been made, or stay. */
void heist__uring_call_out(struct heist__uring *u);

void heist__feeds_init(struct heist__uring *u);
/* One completion of a feed's request: whether it is an event.  *again: an entry was pushed. */
bool heist__feed_complete(struct heist__uring *u, const struct io_uring_cqe *c, struct heist__poll_event *event,
                          bool *again);
/* What had no room. */
void heist__feeds_settle(struct heist__uring *u);
/* The ring is closed, and nothing is out. */
void heist__feeds_end(struct heist__uring *u);

#endif
