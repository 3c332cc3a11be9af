/* The poller on io_uring; each as in poller.h.  And operations, which the kernel does meanwhile. */
#ifndef HEIST_LOOP_POLLER_URING_H
#define HEIST_LOOP_POLLER_URING_H

#include "conc/spin.h"
#include "loop/poller.h"
#include "task/park.h"

/* An operation under way.  The kernel uses what it points to until it is done, whatever was asked meanwhile. */
struct heist__ring_op {
    struct heist__spin guard; /* of what follows */
    bool done;
    int result;
    struct heist__park *waiter; /* or NULL: nobody waits at this moment */
};

int heist__uring_open(struct heist__poller *p); /* 0, or why not, and p is as it was */
void heist__uring_close(struct heist__poller *p);
int heist__uring_add(struct heist__uring *u, int fd, uint32_t events, uint64_t data);
int heist__uring_mod(struct heist__uring *u, int fd, uint32_t events, uint64_t data);
int heist__uring_del(struct heist__uring *u, int fd);
void heist__uring_forget(struct heist__uring *u, int fd);
int heist__uring_wait(struct heist__uring *u, struct heist__poll_event *events, int max, int64_t timeout_ns);

/* Begins an operation: 0, or -ENOMEM and the like.  One completion event tells of its end.  Any thread. */
struct io_uring_sqe;
int heist__uring_submit(struct heist__uring *u, const struct io_uring_sqe *from, struct heist__ring_op *op);
/* Asks for its end, which comes as it would otherwise, -ECANCELED perhaps.  Any thread. */
void heist__uring_cancel(struct heist__uring *u, struct heist__ring_op *op);
/* No feed begins from now on, and those that are out are cancelled: true as long as some are; then completions have to
 * be taken.  (feed.h) */
bool heist__uring_shut(struct heist__uring *u);
/* What the loop does with a completion: wakes who waits. */
void heist__ring_op_end(struct heist__ring_op *op, int result);

#endif
