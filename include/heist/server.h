/* heist/server.h: accept connections and run a handler for each.
 *
 * asyncio's start_server and Server.  A server has one or several listening sockets; each has a task that
 * accepts, and each connection has a task that runs the handler with a stream (heist/stream.h).  These tasks
 * belong to the runtime in which the server starts serving; its close cancels them, and with them the server
 * is closed.
 *
 *     static int handler(heist_stream *s, void *user) { ...; return 0; }
 *
 *     heist_server *server;
 *     int err = heist_start_server(handler, NULL, "127.0.0.1", "8080", NULL, &server);
 *     if (err == 0) err = heist_server_serve_forever(server);
 *
 * A connection that the server cannot take now (no descriptors, no memory, max_connections reached) waits in
 * the kernel's backlog; nothing spins, and the server goes on.  What went wrong is reported to the exception
 * handler of the loop. */
#ifndef HEIST_SERVER_H
#define HEIST_SERVER_H

#include <heist/base.h>
#include <heist/net.h>
#include <heist/stream.h>

HEIST_BEGIN_DECLS

typedef struct heist_server heist_server;

/* Runs in a task of its own, unpinned unless asked otherwise.
 *
 * The stream is the server's.  When the handler returns, it is closed: what was written is still sent, and the
 * connection counts until that is done.  A handler that has taken a reference (heist_stream_ref) and returns
 * HEIST_SERVER_KEEP leaves the stream open: the connection is then the holder's, who closes it, and the server forgets
 * it: it counts no more, for max_connections neither.
 * A negative code closes the stream in any case and is reported to the exception handler, with heist_fail's words
 * and the peer's address; not reported is -ECANCELED, nor HEIST_ECLOSED after heist_server_close_clients,
 * _abort_clients or _drain have closed this connection.  The server goes on. */
typedef int (*heist_serve_fn)(heist_stream *stream, void *user);
#define HEIST_SERVER_KEEP 1

/* Makes the stream of an accepted connection, first of all in its task; may suspend (a TLS handshake, say).
 * Ownership: the connection is the function's, which makes it the stream's, or closes it when it fails; the code is
 * then reported. */
typedef int (*heist_server_open_fn)(heist_conn *conn, const heist_stream_options *opts, void *user, heist_stream **out);

#define HEIST_SERVER_PAUSED 0x1u /* bound, but listens only after start_serving or serve_forever */
/* A listening socket for each worker, on an address that others of the same user may share likewise.  The kernel
 * spreads connections over them by lot, and those at the socket of a worker that is held wait until it is free. Without
 * it the worker that accepts begins most handlers, and the others steal some when it falls behind. */
#define HEIST_SERVER_REUSEPORT 0x2u
#define HEIST_SERVER_PINNED 0x4u    /* handlers stay on the loop that accepted */
#define HEIST_SERVER_KEEP_PATH 0x8u /* close leaves the file of a Unix socket */
/* Connections over TCP probe a peer that is silent (SO_KEEPALIVE), and one that is gone without a word ends them with
 * -ETIMEDOUT; without it such a half-open connection stays until something is written to it or a deadline ends the
 * wait.  When the probes begin and how many there are is the system's choice (two hours), or yours: TCP_KEEPIDLE and
 * its kin on the descriptor that heist_stream_get_extra_info gives, or on your own of heist_start_server_fd, where this
 * flag has no effect. */
#define HEIST_SERVER_KEEPALIVE 0x10u

typedef struct heist_server_options {
    size_t size;
    unsigned flags;                     /* HEIST_SERVER_… */
    int backlog;                        /* of each listening socket; 0: 4096, as the system allows */
    size_t max_connections;             /* beyond, accepting pauses until one has ended; 0: no limit */
    size_t stack_bytes;                 /* of the handlers' tasks (heist/task.h); 0: the runtime's */
    const heist_stream_options *stream; /* of each stream; copied; NULL: the defaults */
    heist_free_fn user_free;            /* runs once on user, when the server and its last connection have ended */
    heist_server_open_fn open;          /* NULL: a plain stream */
    void *open_user;
    heist_free_fn open_free; /* as user_free, on open_user */
} heist_server_options;
#define HEIST_SERVER_OPTIONS_INIT                                                                                      \
    { sizeof(heist_server_options), 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL }

/* ---- making ---- */

/* Listens on host and port.  host: NULL or "" for every address of both families, else one or several addresses
 * or names separated by commas ("127.0.0.1,::1", "localhost").  port: a number as text.  With "0" the system
 * chooses a free port, the same for all addresses; heist_server_sockets tells which.
 * Each address has a listening socket (with HEIST_SERVER_REUSEPORT: as many as there are workers).
 * Context: task.  Suspends: may (names).  Ownership: *out (may be NULL) is one reference, ended by unref; a server that
 * serves goes on without one.  On failure user and open_user are still the caller's.
 * Errors: -EINVAL, HEIST_ENOTINCORO, HEIST_ENOLOOP (plain thread), those of looking up names, -EADDRINUSE and the like
 * (heist_fail names the address), -EMFILE, -ENFILE, -ENOMEM, -ECANCELED, HEIST_ECLOSED. */
HEIST_API int heist_start_server(heist_serve_fn handler, void *user, const char *host, const char *port,
                                 const heist_server_options *opts, heist_server **out);
/* The same on these addresses, of any family.  Suspends: never. */
HEIST_API int heist_start_server_at(heist_serve_fn handler, void *user, const heist_addr *addrs, size_t count,
                                    const heist_server_options *opts, heist_server **out);
/* Listens on the path of a Unix socket ("@name": in the abstract space, without a file).  A file that a server left
 * behind is replaced; one on which somebody listens, or that is no socket, is -EADDRINUSE.  At its end the server
 * removes the file, if it is still its own.  HEIST_SERVER_REUSEPORT has no effect here. Context: task.  Suspends:
 * never. */
HEIST_API int heist_start_unix_server(heist_serve_fn handler, void *user, const char *path,
                                      const heist_server_options *opts, heist_server **out);

/* Listens on a stream socket of your own, of any family: bound, perhaps listening already (from a supervisor, or with
 * options of yours).  HEIST_SERVER_REUSEPORT has no effect here, and the file of a Unix socket is left.
 * Context: task.  Suspends: never.  Ownership: fd is the server's on success only; it is then non-blocking, and closed
 * with the server, which leaves other descriptors of the same socket, in other processes too, listening.
 * Errors: also -EBADF, -ENOTSOCK, -EPROTOTYPE (no stream socket), -EINVAL (not bound, or connected), -EBUSY (it belongs
 * to somebody, or a call of heist/socket.h on it is in progress). */
HEIST_API int heist_start_server_fd(heist_serve_fn handler, void *user, int fd, const heist_server_options *opts,
                                    heist_server **out);

/* Context: any.  Suspends: never.  NULL is allowed in unref.  The last unref of a server that never began to serve
 * closes it. */
HEIST_API heist_server *heist_server_ref(heist_server *server);
HEIST_API void heist_server_unref(heist_server *server);

/* ---- serving ---- */

/* Begins to listen and accept, in the caller's runtime; nothing when it does so already.
 * Context: task or callback.  Suspends: never.
 * Errors: HEIST_ECLOSED (the server was closed), HEIST_ENOLOOP, -EADDRINUSE, -ENOMEM: it does not listen. */
HEIST_API int heist_server_start_serving(heist_server *server);
/* The same, and waits: 0 when the server was closed.  A task that is cancelled here closes the server, leaves its
 * connections alone, and gets -ECANCELED.
 * Context: task.  Suspends: may.
 * Errors: as start_serving; HEIST_EINVALSTATE (another one is in this call). */
HEIST_API int heist_server_serve_forever(heist_server *server);
/* 1 between start_serving and close, else 0.  Context: any.  Suspends: never. */
HEIST_API int heist_server_is_serving(heist_server *server);

/* The addresses that it is bound to, with the ports that the system chose, in the order of the making; each once.
 * Writes at most `room` of them and returns how many there are: 0 when it is closed.
 * Context: any.  Suspends: never.  Errors: -EINVAL. */
HEIST_API int heist_server_sockets(heist_server *server, heist_addr *out, size_t room);

typedef struct heist_server_stats {
    size_t size;
    size_t sockets;     /* listening sockets */
    size_t connections; /* open now */
    uint64_t accepted;  /* connections that came to a handler's task */
    uint64_t failed;    /* handlers that ended with a code that was reported */
    uint64_t shortages; /* times that accepting failed for want of something */
    uint64_t pauses;    /* times that accepting waited for max_connections */
} heist_server_stats;
#define HEIST_SERVER_STATS_INIT                                                                                        \
    { sizeof(heist_server_stats), 0, 0, 0, 0, 0, 0 }
/* Context: any.  Suspends: never.  Errors: -EINVAL. */
HEIST_API int heist_server_get_stats(heist_server *server, heist_server_stats *out);

/* ---- ending ---- */

/* Stops listening at once: new connections are refused, and those in the backlog are reset.  Open ones are left
 * alone.  Idempotent.  Context: any.  Suspends: never. */
HEIST_API int heist_server_close(heist_server *server);
/* Waits until it is closed and its last connection has ended.  A handler that calls it waits for itself.
 * Context: any.  Suspends: may.  Errors: -ECANCELED, -ETIMEDOUT, HEIST_ENOTINCORO, -EINVAL. */
HEIST_API int heist_server_wait_closed(heist_server *server);
HEIST_API int heist_server_wait_closed_until(heist_server *server, double deadline);

/* Closes the streams of the connections that are open now; what was written is still sent, and a handler that
 * reads or waits gets HEIST_ECLOSED.  abort: without sending.  Returns how many there were.  The server itself
 * goes on.  Context: any.  Suspends: never. */
HEIST_API int heist_server_close_clients(heist_server *server);
HEIST_API int heist_server_abort_clients(heist_server *server);

/* An orderly end: closes, lets the handlers finish until the deadline (an instant of heist_time()), then cancels
 * those that are left, aborts their streams and waits until they have ended.  Returns how many were cut off: 0 when
 * all came to their own end.
 * Context: any.  Suspends: may.  Errors: -ECANCELED (the server is closed, who was still there is left alone),
 * HEIST_ENOTINCORO, -EINVAL. */
HEIST_API int heist_server_drain(heist_server *server, double deadline);

HEIST_END_DECLS

#endif
