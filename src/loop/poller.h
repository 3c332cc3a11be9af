/* The contract of a poller: which descriptors are ready.  Two keep it, chosen when it is opened: poller_epoll.c, and
 * poller_uring.c, which also does operations (reads, writes, opens) for who waits for their completion.
 *
 * Owned by a loop.  Every call may come from any thread at any time between open and
 * close: a worker may wait on the set of another that is stuck, while a third adds a
 * descriptor.  What a backend must keep:
 *   1. A registration is for edges: an event says that the descriptor became ready since
 *      it was last told (or since add or mod, which report a readiness that is there).
 *   2. Each edge is delivered to one waiter, not to several.
 *   3. `data` is opaque and comes back with each event; it may come once more after del
 *      to a waiter that had already taken it, so it must name something type-stable.
 *   4. A wait that a signal ends returns 0 events; a wait never ends early otherwise, nor
 *      later than its timeout allows, up to the rounding that the system forces (upwards).
 *   5. Closing a descriptor without del is the caller's error. */
#ifndef HEIST_LOOP_POLLER_H
#define HEIST_LOOP_POLLER_H

#include <stdbool.h>
#include <stdint.h>

/* What to wait for, and what happened.  ERR and HUP are always reported and need not be asked for. */
#define HEIST__POLL_IN 0x001u
#define HEIST__POLL_PRI 0x002u
#define HEIST__POLL_OUT 0x004u
#define HEIST__POLL_ERR 0x008u
#define HEIST__POLL_HUP 0x010u
#define HEIST__POLL_RDHUP 0x2000u
#define HEIST__POLL_ONESHOT (1u << 30) /* silent after one event until mod */
#define HEIST__POLL_EDGE (1u << 31)

/* The most events that one wait returns. */
#define HEIST__POLL_MAX 128

struct heist__poll_event {
    uint64_t data;   /* of a completion: the address of its struct heist__ring_op */
    uint32_t events; /* of a completion: the result */
    uint32_t completion;
};

struct heist__uring;

/* What goes by feeds (feed.h), and not by readiness, where there is a ring for it. */
#define HEIST__FEED_ACCEPT 1u
#define HEIST__FEED_RECV 2u

struct heist__poller {
    int fd;                     /* -1: closed.  Becomes readable when an event is there to be taken (heist_loop_fd). */
    struct heist__uring *uring; /* NULL: by epoll */
    unsigned feeds;             /* HEIST__FEED_…; birth, by who opened it */
};

/* uring: by io_uring where the kernel allows it, else by epoll all the same.
 * 0, or -EMFILE, -ENFILE, -ENOMEM; then p->fd is -1. */
int heist__poller_open(struct heist__poller *p, bool uring);
/* Idempotent.  No other call may be under way. */
void heist__poller_close(struct heist__poller *p);

/* 0, or -EEXIST (a registration is there), -EPERM (a plain file: always ready), -EBADF, -ENOMEM, -ENOSPC. */
int heist__poller_add(struct heist__poller *p, int fd, uint32_t events, uint64_t data);
/* 0, or -ENOENT (nothing is registered by that number; or it was, and means another file now, where the backend can
 * tell), -EBADF, -ENOMEM. */
int heist__poller_mod(struct heist__poller *p, int fd, uint32_t events, uint64_t data);
/* 0, or -ENOENT, -EBADF. */
int heist__poller_del(struct heist__poller *p, int fd);

/* The number was closed, and may mean another file: what is left of the old one's registration goes, if a backend has
 * not forgotten it by itself. */
void heist__poller_forget(struct heist__poller *p, int fd);

/* Waits for up to max events (at most HEIST__POLL_MAX): timeout_ns 0 looks only, -1 waits for ever.
 * The number of events, 0 when the time is over or a signal came, or a negative code. */
int heist__poller_wait(struct heist__poller *p, struct heist__poll_event *events, int max, int64_t timeout_ns);

#endif
