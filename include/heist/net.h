/* heist/net.h: listen, accept, connect, read and write, with deadlines.
 *
 * Every deadline is an instant of heist_time(), or HEIST_FOREVER.  SIGPIPE is never
 * raised.  One task may read a connection while another writes it; a second reader
 * (writer) at the same time gets -EBUSY. */
#ifndef HEIST_NET_H
#define HEIST_NET_H

#include <heist/base.h>
#include <sys/socket.h>

HEIST_BEGIN_DECLS

/* An IPv4, IPv6 or Unix address. */
typedef struct heist_addr {
    socklen_t length;
    struct sockaddr_storage storage;
} heist_addr;

/* Reads "127.0.0.1:80", "[::1]:80", "*:80" (any, both families), "unix:/path", "unix:@abstract".  No names
 * are looked up.  Context: any.  Suspends: never.  Errors: -EINVAL. */
HEIST_API int heist_addr_parse(const char *text, heist_addr *out) HEIST_NODISCARD;
/* Writes it back in the same form, always terminated; returns the length it would have had. */
HEIST_API int heist_addr_format(const heist_addr *addr, char *buf, size_t size);

typedef struct heist_listener heist_listener;
typedef struct heist_conn heist_conn;

typedef struct heist_listen_options {
    size_t size;
    unsigned flags; /* HEIST_LISTEN_… */
    int backlog;    /* 0: 4096, as the system allows */
} heist_listen_options;
#define HEIST_LISTEN_REUSEPORT 0x1u /* several listeners on one address, one per worker; the kernel balances */
#define HEIST_LISTEN_V6ONLY 0x2u
#define HEIST_LISTEN_KEEPALIVE 0x4u /* what is accepted probes a peer that is silent (SO_KEEPALIVE) */
#define HEIST_LISTEN_OPTIONS_INIT {sizeof(heist_listen_options), 0, 0}

/* Binds and listens.  The descriptor is watched by the caller's running loop.
 * Context: task or callback.  Suspends: never.  Ownership: *out is the caller's, ended by close.
 * Errors: -EINVAL, HEIST_ENOLOOP, -EADDRINUSE and the like, -EMFILE, -ENOMEM. */
HEIST_API int heist_listen(const heist_addr *addr, const heist_listen_options *opts, heist_listener **out)
    HEIST_NODISCARD;
/* The address it is bound to (the port that was chosen for port 0). */
HEIST_API int heist_listener_addr(heist_listener *l, heist_addr *out);
/* Waits for a connection.  Context: task.  Suspends: may.
 * Errors: -ETIMEDOUT, -ECANCELED, HEIST_ECLOSED (closed meanwhile), -EMFILE/-ENFILE/-ENOMEM (the
 * connection stays in the backlog; wait a little and call again), -EBUSY. */
HEIST_API int heist_accept(heist_listener *l, double deadline, heist_conn **out) HEIST_NODISCARD;
/* Stops listening; a task that waits in accept gets HEIST_ECLOSED.  Context: any.  Suspends: never. */
HEIST_API void heist_listener_close(heist_listener *l);

/* Connects.  A port of this machine on which nobody listens is -ECONNREFUSED, also when the system gives our end that very
 * port, and so would connect it to itself.
 * Context: task.  Suspends: may.  Errors: -ECONNREFUSED and the like, -ETIMEDOUT, -ECANCELED. */
HEIST_API int heist_connect(const heist_addr *addr, double deadline, heist_conn **out) HEIST_NODISCARD;
/* Takes over a connected stream socket, pipe end, terminal or other pollable descriptor (made non-blocking).  When the
 * last slave of a terminal is closed, its master reads the end of the stream.
 * Suspends: never.  Ownership: fd is the connection's on success only.
 * Errors: -EINVAL, -EBADF, -EPERM (a file or folder: always ready, so there is nothing to wait for), -EBUSY (another
 * connection's, or a call of heist/socket.h on it is in progress), -ENOMEM. */
HEIST_API int heist_conn_open(int fd, heist_conn **out) HEIST_NODISCARD;

/* Reads what is there, at least one byte: the count; 0 at the end of the stream.
 * Writes all of it: 0, or a failure with *written (may be NULL) bytes gone.
 * Context: task.  Suspends: may.  Errors: -ECANCELED, -ETIMEDOUT (a read then took nothing), -ECONNRESET,
 * -EPIPE, HEIST_ECLOSED (closed by another task meanwhile), -EBUSY, -EINVAL. */
HEIST_API ptrdiff_t heist_conn_read(heist_conn *c, void *buf, size_t size, double deadline) HEIST_NODISCARD;
HEIST_API int heist_conn_write(heist_conn *c, const void *buf, size_t size, double deadline, size_t *written);
/* Ends our side of the stream: the peer reads the end.  Suspends: never. */
HEIST_API int heist_conn_shutdown(heist_conn *c);
/* Closes; tasks that wait on it get HEIST_ECLOSED.  NULL is allowed.  Context: any.  Suspends: never.
 * Undefined: any use after it, except by the calls that it wakes. */
HEIST_API void heist_conn_close(heist_conn *c);
/* The descriptor (borrowed), the peer's and our own address.  Context: any. */
HEIST_API int heist_conn_fd(const heist_conn *c);
HEIST_API int heist_conn_peer(heist_conn *c, heist_addr *out);
HEIST_API int heist_conn_addr(heist_conn *c, heist_addr *out);
/* TCP_NODELAY; on by default for connections that accept and connect made. */
HEIST_API int heist_conn_set_nodelay(heist_conn *c, int on);

HEIST_END_DECLS

#endif
