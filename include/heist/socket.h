/* heist/socket.h: calls on descriptors that are yours.
 *
 * What asyncio has as loop.sock_recv and the like, on any socket; and a wait for any descriptor that can be polled:
 * a timer, an event counter, inotify, a terminal, a process.  The descriptor stays yours: nothing is kept about it
 * between two calls.  A connection (heist/net.h), which is registered once for its life, is faster.
 *
 * Each call tries at once and suspends only when there is nothing to do yet.  Cancelled or timed out, it has taken
 * nothing, nothing watches the descriptor any more, and the next call goes on where it left.  One task may wait to
 * read a descriptor while another waits to write it; a second one in the same direction gets -EBUSY when it would
 * have to wait.  Readers and writers of a loop (heist/loop.h) may watch it as well.
 *
 * Set your descriptors non-blocking.  A blocking one works in all calls but accept and connect, which then block
 * the worker; in debug mode all of them refuse it (-EINVAL).
 *
 * Close with heist_sock_close, from any task or thread: who waits gets HEIST_ECLOSED, and the number is free when they
 * have left.  A plain close() while a call is in progress is an error of the program.  It is found out when the number
 * is used again, by a call here or for a new connection: then who waited for the old file gets HEIST_ECLOSED, and never
 * what was meant for the new one.  Until then he sleeps, and his deadline and his cancel work.
 *
 * For every call, unless it says otherwise:
 * Context: task.  Suspends: may.
 * Errors: -ETIMEDOUT, -ECANCELED, HEIST_ECLOSED (closed meanwhile), -EBADF, -EBUSY (somebody waits in this direction,
 * or the descriptor belongs to a connection, listener or endpoint), -EINVAL, -ENOMEM, HEIST_ENOTINCORO, what the system
 * says (-ECONNRESET, -EPIPE, -ENOTSOCK …; never SIGPIPE); and of the first wait -EMFILE, when a reader or writer
 * watches the descriptor on the same loop. */
#ifndef HEIST_SOCKET_H
#define HEIST_SOCKET_H

#include <heist/flow.h>
#include <heist/net.h>
#include <sys/socket.h>

HEIST_BEGIN_DECLS

/* Waits until fd is readable or writable, whichever is asked for (HEIST_READABLE | HEIST_WRITABLE): what it is, at
 * least one of them.  A hang-up or an error counts as both: the next call on fd says which.  Takes nothing, so another
 * task may be faster.  A plain file is always ready.  Suspends: may. */
HEIST_API int heist_fd_wait(int fd, unsigned events, double deadline) HEIST_NODISCARD;

/* Receives what is there, up to size bytes: the count, 0 at the end of the stream.  asyncio's sock_recv and
 * sock_recv_into. flags: recv's.  Suspends: may. */
HEIST_API ptrdiff_t heist_sock_recv(int fd, void *buf, size_t size, int flags, double deadline) HEIST_NODISCARD;
/* The same with the sender's address; from may be NULL.  With MSG_TRUNC in flags the count is the datagram's own
 * length.
 * Suspends: may. */
HEIST_API ptrdiff_t heist_sock_recvfrom(int fd, void *buf, size_t size, int flags, double deadline,
                                        heist_addr *from) HEIST_NODISCARD;
/* msg is recvmsg's and filled by it; descriptors that come are closed by exec.  Suspends: may. */
HEIST_API ptrdiff_t heist_sock_recvmsg(int fd, struct msghdr *msg, int flags, double deadline) HEIST_NODISCARD;

/* Sends what there is room for: the count, which is at least one byte of a stream, and all of a datagram.
 * Suspends: may. */
HEIST_API ptrdiff_t heist_sock_send(int fd, const void *buf, size_t size, int flags, double deadline) HEIST_NODISCARD;
/* Sends all of it: 0, or a failure with *sent (may be NULL) bytes gone.  Suspends: may. */
HEIST_API int heist_sock_sendall(int fd, const void *buf, size_t size, int flags, double deadline, size_t *sent);
/* To an address; NULL: the one that the socket is connected to.
 * When a Unix datagram finds no room at an address, the call looks again every millisecond, for the system does not
 * tell.
 * Suspends: may. */
HEIST_API ptrdiff_t heist_sock_sendto(int fd, const void *buf, size_t size, int flags, const heist_addr *to,
                                      double deadline) HEIST_NODISCARD;
HEIST_API ptrdiff_t heist_sock_sendmsg(int fd, const struct msghdr *msg, int flags, double deadline) HEIST_NODISCARD;

/* Waits for a connection: 0 and its descriptor, non-blocking and closed by exec, which is the caller's; and the peer's
 * address (peer may be NULL).  Errors: also -EMFILE, -ENFILE (the connection stays in the backlog).  Suspends: may. */
HEIST_API int heist_sock_accept(int fd, double deadline, int *out, heist_addr *peer) HEIST_NODISCARD;
/* Connects.  Cancelled or timed out, the system goes on connecting: call again to wait for it, or close.
 * The socket is yours, and so is its port: one that the system has connected to itself (its end got the port of this
 * machine that it calls, on which nobody listens) stays so.  heist_connect and heist_open_connection refuse that.
 * Errors: also -ECONNREFUSED and the like, -EISCONN.  Suspends: may. */
HEIST_API int heist_sock_connect(int fd, const heist_addr *addr, double deadline) HEIST_NODISCARD;
/* The same to a name and a service, as heist_getaddrinfo (heist/resolve.h) reads them for sockets of this one's kind:
 * the first of the answers.  Errors: also those of heist_getaddrinfo.  Suspends: may. */
HEIST_API int heist_sock_connect_host(int fd, const char *host, const char *service, double deadline) HEIST_NODISCARD;

/* Closes; tasks inside a call on fd get HEIST_ECLOSED, and it is they who close it as they leave.
 * Context: any.  Suspends: never.  Errors: -EBADF, -EBUSY (it belongs to a connection, listener or endpoint: close
 * that), and what close says, after which it is closed all the same. */
HEIST_API int heist_sock_close(int fd);

/* ---- descriptors over a Unix socket ---- */

#define HEIST_SOCK_FDS_MAX 253 /* the most that the system takes at once */

/* Sends size bytes, at least one, and with the first of them count descriptors, which stay the caller's too: the count
 * of bytes that went; the rest of a stream is for heist_sock_sendall.
 * Errors: also -EINVAL (no bytes, or more than HEIST_SOCK_FDS_MAX), -ETOOMANYREFS.  Suspends: may. */
HEIST_API ptrdiff_t heist_sock_send_fds(int fd, const void *buf, size_t size, const int *fds, size_t count,
                                        double deadline) HEIST_NODISCARD;
/* Receives up to size bytes and the descriptors that came with them, closed by exec and the caller's: the count of
 * bytes, 0 at the end.  *count: in, the room in fds; out, how many came.  *flags (may be NULL): MSG_CTRUNC when more
 * came than there was room, or than the process may open: those are closed; MSG_TRUNC when a datagram was cut.
 * Of a stream, take bytes that were sent with descriptors by this call only: others drop what they cannot hold.
 * Suspends: may. */
HEIST_API ptrdiff_t heist_sock_recv_fds(int fd, void *buf, size_t size, double deadline, int *fds, size_t *count,
                                        int *flags) HEIST_NODISCARD;

HEIST_END_DECLS

#endif
