/* The inside of a connection.
 *
 * `drained` belongs to whoever reads.  A woken waiter touches the connection only
 * when the wait did not end by its close. */
#ifndef HEIST_NET_CONN_H
#define HEIST_NET_CONN_H

#include <heist/net.h>
#include <stdbool.h>
#include <sys/uio.h>

#include "conc/atomic.h"
#include "loop/feed.h"
#include "loop/reg.h"

struct heist_conn {
    struct heist__reg *reg;
    int fd;
    bool is_socket;
    bool is_stream; /* bytes without bounds: a stream socket or a pipe */
    bool is_plain;  /* and a short read ends only where nothing is left: TCP but for urgent data (reg.h), and pipes;
                     * that of a Unix socket also ends where descriptors came along */
    bool is_terminal;
    bool drained; /* the last read took all there was */
    bool feeds;   /* a stream reads it, and nobody else: by a feed, where the loop has such */
    _Atomic(struct heist__feed *) feed; /* NULL: not yet; set once, by who reads */
};

/* A stream socket.  fd -1: a connection that gets its descriptor later, by adopt, before anybody else knows it. */
int heist__conn_new(int fd, bool is_tcp, heist_conn **out);
void heist__conn_adopt(heist_conn *c, int fd);
int heist__socket_addr(int fd, heist_addr *out);

/* heist_connect from a local address (NULL: the system's choice), but for the entry (listener.c). */
int heist__connect(const heist_addr *addr, const heist_addr *local, int64_t until, heist_conn **out);

/* ---- for streams, which hold a call of their own open (heist__reg_enter) as long as they use the connection ---- */

/* As heist_conn_read and a write that may be partial, but for the entry; also -EINTR (heist__reg_interrupt). */
ptrdiff_t heist__conn_read_some(heist_conn *c, void *buf, size_t size, int64_t until);
ptrdiff_t heist__conn_write_some(heist_conn *c, const struct iovec *iov, int count, int64_t until);
/* Of a file, by the system call: a count; 0 at the end of the file; also -EINVAL and the like, where it cannot. */
ptrdiff_t heist__conn_sendfile_some(heist_conn *c, int fd, off_t offset, size_t count, int64_t until);
/* Whether the streams that are made here shall be read by feeds: the running loop says so. */
bool heist__conn_feeds(void);
/* One attempt, in any context: a count, or a code; -EAGAIN, -EINTR. */
ptrdiff_t heist__conn_try_write(heist_conn *c, const struct iovec *iov, int count);

/* An error of the connection that was to be accepted, not of the listener fd: on to the next. */
bool heist__accept_passes(int fd, int error);

#endif
