/* The inside of a feed: its life is uring_feed.c's, what a completion brings uring_accept.c's and uring_recv.c's. */
#ifndef HEIST_LOOP_URING_FEED_H
#define HEIST_LOOP_URING_FEED_H

#include "loop/feed.h"
#include "loop/uring.h"

#define HEIST__NO_BUFFER UINT32_MAX

struct heist__feed {
    /* birth */
    unsigned kind;
    int fd;
    uint64_t data;
    heist_loop *loop; /* one reference, the owner's */
    struct heist__uring *ring;
    _Atomic(unsigned) *watched; /* the loop's */

    /* under the ring's lock */
    struct heist__link link; /* in its feeds, while a request is out */
    bool cancels;            /* the request shall be cancelled, and the entry had no room yet */
    bool cancelled;          /* and was */

    /* under the lock, within the ring's or alone */
    struct heist__spin lock;
    bool out;                   /* written under both */
    bool refused;               /* written under both: the request will not do here */
    bool orphan;                /* its owner has ended it */
    uint8_t failures;           /* since something came */
    bool unsure;                /* of recv: it brought something since, the kernel may have kept the end to itself */
    int error;                  /* of recv: comes behind what is kept */
    unsigned kept, first, last; /* what is kept; of accept its place in fds, of recv the first and last buffer */
    int fds[];                  /* of accept */
};

/* Under both locks, all four.  What the completion brings is kept; of an orphan it is let go of. */
void heist__accept_keep(struct heist__feed *f, const struct io_uring_cqe *c);
void heist__recv_keep(struct heist__feed *f, const struct io_uring_cqe *c);
void heist__accept_fill(const struct heist__feed *f, struct io_uring_sqe *e);
void heist__recv_fill(const struct heist__feed *f, struct io_uring_sqe *e);
/* From a task, with no lock: the request, if one is out, ends soon. */
void heist__feed_stop(struct heist__feed *f);
/* By the last one that knows it: what is kept is let go of. */
void heist__accept_drop(struct heist__feed *f);
void heist__recv_drop(struct heist__feed *f);

/* It failed so often, and nothing came: it is refused, lest its owner arms it for ever. */
#define HEIST__FEED_FAILURES 8
/* When so much is kept the request is cancelled. */
#define HEIST__ACCEPT_MOST 64
#define HEIST__RECV_MOST 8
/* So many places has an accept's feed: as many as completions fit in, so that a cancelled request finds room for what
 * it had accepted. */
#define HEIST__ACCEPT_ROOM 4096

/* The ring's, made at the first call, under the ring's lock: NULL when it cannot have any. */
struct heist__buffers *heist__buffers_of(struct heist__uring *u);
void heist__buffers_free(struct heist__buffers *b); /* the ring is closed */

#endif
