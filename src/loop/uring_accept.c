/* A feed of connections: their descriptors, in a ring of numbers.  See feed.h.
 *
 * They are connections that nobody has asked for yet, as in the backlog, but each has a descriptor.  So no more than
 * HEIST__ACCEPT_MOST are wanted; what a cancelled request had accepted until it heard of that has room all the same.
 * Beyond that room, which only a kernel that goes on regardless can reach, a connection is closed: refused, late. */
#include "loop/feed.h"

#ifdef __has_include
#if __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#endif
#endif

#ifdef IORING_RECV_MULTISHOT

#include <errno.h>
#include <sys/socket.h>

#include "base/sys.h"
#include "loop/uring_feed.h"

void heist__accept_fill(const struct heist__feed *f, struct io_uring_sqe *e) {
    (void)f;
    e->opcode = IORING_OP_ACCEPT;
    e->ioprio = IORING_ACCEPT_MULTISHOT;
    e->accept_flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
}

void heist__accept_keep(struct heist__feed *f, const struct io_uring_cqe *c) {
    if (c->res < 0) return; /* not kept: the owner meets it by a call of his own, if it lasts */
    if (f->orphan || f->kept == HEIST__ACCEPT_ROOM) {
        heist__sys_close(c->res); /* of a connection that nobody has written to: does not wait */
        return;
    }
    f->fds[(f->first + f->kept++) % HEIST__ACCEPT_ROOM] = c->res;
}

void heist__accept_drop(struct heist__feed *f) {
    for (; f->kept; f->kept--, f->first++) heist__sys_close(f->fds[f->first % HEIST__ACCEPT_ROOM]);
}

int heist__feed_accept(struct heist__feed *f) {
    heist__spin_lock(&f->lock);
    int fd = f->out ? -EAGAIN : HEIST__FEED_ENDED;
    if (f->kept) {
        fd = f->fds[f->first % HEIST__ACCEPT_ROOM];
        f->first = (f->first + 1) % HEIST__ACCEPT_ROOM;
        f->kept--;
    }
    heist__spin_unlock(&f->lock);
    return fd;
}

#endif
