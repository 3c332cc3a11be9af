/* heist/stream.h: asyncio's reader and writer in one object, over TCP, Unix sockets, pipes, terminals, TLS.
 *
 *     heist_stream *s;
 *     int err = heist_open_connection("example.org", "80", NULL, &s);
 *     if (err < 0) return err;
 *     heist_stream_write(s, request, length);       // queues, never suspends
 *     err = heist_stream_drain(s);                  // waits while too much is queued
 *     char *line;
 *     ptrdiff_t n;
 *     while ((n = heist_stream_readline(s, &line)) > 0) use(line, (size_t)n);
 *     heist_stream_close(s);                        // sends what is queued, then closes
 *     heist_stream_unref(s);
 *
 * Reading is by demand: nothing is read ahead of what a call asks for, beyond one buffer of at most `limit` bytes, so
 * a peer that floods is held back by its own socket.  One task reads at a time (-EBUSY for a second one).  Writing is
 * by anybody: bytes go out in the order of the calls.
 *
 * Every call but unref is made with a reference that stays held during it.  In a forked child each returns
 * HEIST_EFORKED, and close, abort and unref do nothing. */
#ifndef HEIST_STREAM_H
#define HEIST_STREAM_H

#include <heist/base.h>
#include <heist/net.h>
#include <sys/types.h>
#include <sys/uio.h>

HEIST_BEGIN_DECLS

typedef struct heist_stream heist_stream;

typedef struct heist_stream_options {
    size_t size;
    long long limit;     /* the longest line, and the bound of the read buffer; 0: 64 KiB; less is -EINVAL */
    size_t high_water;   /* drain suspends while more than this is unsent; 0: 64 KiB */
    size_t low_water;    /* and until no more than this is; 0: a quarter of high_water */
    size_t stack_bytes;  /* of the task that sends what could not go at once; 0: the runtime's default */
} heist_stream_options;
#define HEIST_STREAM_OPTIONS_INIT {sizeof(heist_stream_options), 0, 0, 0, 0}

/* ---- life ---- */

/* A stream over a connection, which may be a socket, a pipe's end or a terminal (heist_conn_open).
 * Context: any; best in a task or callback, whose loop hears of a stream that was dropped.  Suspends: never.
 * Ownership: *out is one reference; the connection is the stream's on success, and is not to be used any more.
 * Errors: -EINVAL, -ENOMEM, HEIST_ECLOSED. */
HEIST_API int heist_stream_from_conn(heist_conn *c, const heist_stream_options *opts,
                                     heist_stream **out) HEIST_NODISCARD;

/* Context: any.  Suspends: never.  NULL is allowed in unref.  The last unref of a stream that was not closed reports
 * that to the exception handler of the loop that made it, and aborts it. */
HEIST_API heist_stream *heist_stream_ref(heist_stream *s);
HEIST_API void heist_stream_unref(heist_stream *s);

/* Closes when everything that is queued has gone out; idempotent.  From now on reads and writes are HEIST_ECLOSED, for
 * a task that waits in a read too.  A peer that reads nothing holds it up: see heist_stream_set_write_deadline.
 * Context: any.  Suspends: never.  NULL is allowed. */
HEIST_API void heist_stream_close(heist_stream *s);
/* Closes now: what is queued is dropped.  Context: any.  Suspends: never.  NULL is allowed. */
HEIST_API void heist_stream_abort(heist_stream *s);
/* 1 from close or abort on.  Context: any.  Suspends: never. */
HEIST_API int heist_stream_is_closing(heist_stream *s);
/* Waits until it is closed, by whomever.  0, or the code for which not everything queued could be sent.
 * Context: any.  Suspends: may.  Errors: also -ECANCELED, HEIST_ENOTINCORO. */
HEIST_API int heist_stream_wait_closed(heist_stream *s);

/* ---- reading ----
 *
 * Context: task.  Suspends: may.
 * Errors of all: -ECANCELED and -ETIMEDOUT (heist_stream_set_read_deadline): the call took nothing, and nothing is
 * lost; HEIST_ECLOSED; -EBUSY (another task reads); -ENOMEM; HEIST_ENOTINCORO; -EINVAL; or what broke the connection
 * (-ECONNRESET …): then all later reads fail with it too, also when a write was told first. */

/* What is there, at least one byte and at most n: the count; 0 at the end of the stream (and for n = 0, at once).
 * With nothing buffered a large read goes straight into buf.  Suspends: may. */
HEIST_API ptrdiff_t heist_stream_read(heist_stream *s, void *buf, size_t n) HEIST_NODISCARD;

/* Everything up to the end.  HEIST_ELIMIT when it is more than max (0: no bound): nothing is taken then, and the reads
 * above go on with it.  Ownership: *data (followed by a zero byte that is not counted) is the caller's, to be given to
 * heist_stream_data_free.  Suspends: may. */
HEIST_API int heist_stream_read_all(heist_stream *s, size_t max, void **data, size_t *n) HEIST_NODISCARD;
/* Context: any.  Suspends: never. */
HEIST_API void heist_stream_data_free(void *data);

/* Exactly n bytes: 0.  HEIST_EINCOMPLETE at the end before that: then the *got (may be NULL) bytes that came are in
 * buf, and are taken.  What stands in buf after another failure is undefined.  Suspends: may. */
HEIST_API int heist_stream_readexactly(heist_stream *s, void *buf, size_t n, size_t *got) HEIST_NODISCARD;

/* One line with its terminator '\n', its length; at the end what is left, then 0.  HEIST_ELIMIT: the line is longer
 * than the limit; nothing is taken, and heist_stream_read gets at it.
 * Ownership: *line is borrowed from the stream until its next reading call; it is followed by a zero byte that is not
 * counted, and may be written to.  Suspends: may. */
HEIST_API ptrdiff_t heist_stream_readline(heist_stream *s, char **line) HEIST_NODISCARD;
/* For each line to the end.  `n` is a ptrdiff_t of the caller's: 0 after it, or the code that ended it. */
#define heist_foreach_line(s, line, n) for (char *line; ((n) = heist_stream_readline((s), &line)) > 0;)

/* Up to and with the separator: 0, and *size bytes at *data, borrowed as a line is.  HEIST_EINCOMPLETE at the end
 * before that: *data and *size are what was left, and it is taken.  HEIST_ELIMIT: it does not come within the limit;
 * nothing is taken, and *size says how many bytes certainly stand before it.  An empty separator is -EINVAL.
 * Of several separators (each the memory and length of an iovec) the one that ends first counts.  Suspends: may. */
HEIST_API int heist_stream_readuntil(heist_stream *s, const void *separator, size_t length, char **data,
                                     size_t *size) HEIST_NODISCARD;
HEIST_API int heist_stream_readuntil_any(heist_stream *s, const struct iovec *separators, int count, char **data,
                                         size_t *size) HEIST_NODISCARD;

/* 1 when the end was seen and nothing is buffered.  As nothing is read ahead, the end is seen by the read that meets
 * it.  Context: any.  Suspends: never. */
HEIST_API int heist_stream_at_eof(heist_stream *s);
/* How many bytes are buffered; 0 while a task reads.  Context: any.  Suspends: never. */
HEIST_API size_t heist_stream_buffered(heist_stream *s);

/* Reads that begin, or wait, end with -ETIMEDOUT at this instant of heist_time(); HEIST_FOREVER: none, as at the start.
 * Stays until it is set anew.  Context: any.  Suspends: never.  Errors: -EINVAL (not a number). */
HEIST_API int heist_stream_set_read_deadline(heist_stream *s, double when);

/* ---- writing ---- */

/* Sends what the transport takes at once and queues the rest (a copy).
 * Context: any; on a plain thread the rest is sent by the runtime that made the stream.  Suspends: never.
 * Errors: HEIST_ECLOSED; HEIST_EINVALSTATE (after write_eof); -ENOMEM: nothing is queued (if a part had gone out
 * already, the stream's writing has failed); or what broke writing before (-EPIPE, -ECONNRESET …), as from all later
 * calls; HEIST_ENOLOOP (plain thread, and the stream knows no loop). */
HEIST_API int heist_stream_write(heist_stream *s, const void *buf, size_t n);
/* Several buffers as if they were one, by gathered writes. */
HEIST_API int heist_stream_writelines(heist_stream *s, const struct iovec *iov, int count);

/* Waits while too much is unsent.  Several may wait at once.
 * Context: any.  Suspends: may.  Errors: what broke writing; HEIST_ECLOSED; -ECANCELED; -ETIMEDOUT
 * (heist_stream_set_write_deadline), HEIST_ENOTINCORO.  Nothing is lost by either. */
HEIST_API int heist_stream_drain(heist_stream *s);

/* Ends our side when everything queued has gone out: the peer reads the end, and we may go on reading.  Idempotent.
 * Context: any.  Suspends: never.  Errors: as write; -ENOTSUP (can_write_eof is 0). */
HEIST_API int heist_stream_write_eof(heist_stream *s);
HEIST_API int heist_stream_can_write_eof(heist_stream *s);

/* How much is unsent, and the marks for drain (low no larger than high; both 0: drain waits for everything).
 * Context: any.  Suspends: never.  Errors: -EINVAL. */
HEIST_API size_t heist_stream_get_write_buffer_size(heist_stream *s);
HEIST_API int heist_stream_set_write_buffer_limits(heist_stream *s, size_t high, size_t low);

/* Drains that begin, or wait, end with -ETIMEDOUT at this instant; a close gives up then: what is unsent is dropped,
 * and wait_closed returns -ETIMEDOUT.  Stays until it is set anew.
 * Context: any.  Suspends: never.  Errors: -EINVAL (not a number). */
HEIST_API int heist_stream_set_write_deadline(heist_stream *s, double when);

/* Sends `count` bytes (0: to the end) of a file from `offset` (-1: from its position) on, after what is queued: by the
 * system call where the transport can, else by reading on the default executor.  The file's position is then behind
 * what was sent, also after a failure.  *sent (may be NULL) is set on every outcome.
 * Context: task.  Suspends: may.
 * Errors: as drain; those of reading the file; -EINVAL.  After -ECANCELED and -ETIMEDOUT *sent bytes have gone. */
HEIST_API int heist_stream_sendfile(heist_stream *s, int fd, off_t offset, size_t count, size_t *sent);

/* ---- what it is ---- */

/* Keys, and the type that *out has.  A transport may have more, from 100 on (heist/tls.h). */
#define HEIST_INFO_SOCKET 1   /* int: the descriptor, borrowed */
#define HEIST_INFO_PEERNAME 2 /* heist_addr */
#define HEIST_INFO_SOCKNAME 3 /* heist_addr */

/* Context: any.  Suspends: never.  Errors: -ENOENT (the transport does not know the key), -EINVAL (size is not that of
 * the type), HEIST_ECLOSED, those of the system.  *out is untouched then, so that it may hold a default. */
HEIST_API int heist_stream_get_extra_info(heist_stream *s, int key, void *out, size_t size);

/* ---- transports of your own ---- */

/* What a stream stands on.  `self` is the transport's own.  One reader and one writer are inside at a time; a call
 * that says "in a task" may suspend.  A deadline is an instant of heist_time().  NULL members are allowed
 * where it says so. */
typedef struct heist_stream_ops {
    size_t size;
    /* In a task.  At least one byte; 0 at the end; a code.  -ETIMEDOUT and -ECANCELED took nothing. */
    ptrdiff_t (*read)(void *self, void *buf, size_t size, double deadline);
    /* In a task.  Waits until some went out: a count above 0, or a code. */
    ptrdiff_t (*writev)(void *self, const struct iovec *iov, int count, double deadline);
    /* Any context, never suspends: a count above 0, -EAGAIN, or a code.  May be NULL. */
    ptrdiff_t (*try_writev)(void *self, const struct iovec *iov, int count);
    /* Ends our side.  The first in any context, without suspending (-EAGAIN: ask the second); the second in a task.
     * Either may be NULL; both: there is no such thing. */
    int (*try_write_eof)(void *self);
    int (*write_eof)(void *self, double deadline);
    /* In a task: an orderly end, after everything was sent and before close.  May be NULL. */
    int (*finish)(void *self, double deadline);
    /* Any context, never suspends, called once: who waits inside returns soon, with HEIST_ECLOSED, and so does
     * whoever comes in later. */
    void (*close)(void *self);
    /* Called once, after close, when nobody is inside, and nothing is called after it.  Any context. */
    void (*free)(void *self);
    /* Any context.  0, or -ENOENT for a key that it does not know.  May be NULL. */
    int (*info)(void *self, int key, void *out, size_t size);
    /* In a task: some of a file by a system call: a count; 0 at the end of the file; -ENOTSUP: by reading and writing;
     * or a code.  The file's position is left alone.  May be NULL. */
    ptrdiff_t (*sendfile)(void *self, int fd, off_t offset, size_t count, double deadline);
    /* Any context, never suspends: who waits in read (0) or in a writing call (1), or the next who is about to,
     * returns -EINTR and is called again.  May be NULL: deadlines that are set, and a close, are then
     * noticed later. */
    void (*interrupt)(void *self, int writer);
    /* Any context, right after close: the stream on which this one stands, and which that has closed or aborted, or NULL.
     * This one is closed, for wait_closed, when that one is.  May be NULL: there is none. */
    heist_stream *(*below)(void *self);
} heist_stream_ops;
#define HEIST_STREAM_OPS_INIT \
    {sizeof(heist_stream_ops), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL}

/* Context: any.  Suspends: never.  Ownership: *ops is copied; self is the stream's on success (ops.free ends it).
 * Errors: -EINVAL (read, writev, close or free is missing), -ENOMEM. */
HEIST_API int heist_stream_new(const heist_stream_ops *ops, void *self, const heist_stream_options *opts,
                               heist_stream **out) HEIST_NODISCARD;

/* ---- opening ---- */

typedef struct heist_open_options {
    size_t size;
    unsigned flags;                     /* HEIST_OPEN_… */
    int family;                         /* AF_INET, AF_INET6; 0: any */
    const heist_addr *local;            /* bind to this first, its port 0 as a rule; NULL: the system's choice */
    double happy_eyeballs_delay;        /* seconds before the next address is tried beside; 0: one after the other */
    const heist_stream_options *stream; /* NULL: the defaults */
    heist_conn *conn;                   /* an open connection instead of host and port; the stream's on success */
} heist_open_options;
#define HEIST_OPEN_KEEPALIVE 0x1u /* SO_KEEPALIVE */
#define HEIST_OPEN_NAGLE 0x2u     /* leave Nagle's algorithm on; without it TCP_NODELAY is set */
#define HEIST_OPEN_OPTIONS_INIT {sizeof(heist_open_options), 0, 0, NULL, 0, NULL, NULL}

/* Resolves the host, tries each of its addresses until one answers, and gives a stream over it.  The port is a number
 * or the name of a service.  A deadline comes from outside (heist/timeout.h).
 * Context: task.  Suspends: may.  Ownership: *out is one reference.
 * Errors: that of the last attempt when all fail, with a message that names each (heist_fail), -ECONNREFUSED,
 * -EHOSTUNREACH and the like; those of the look-up; -ECANCELED (every attempt is closed); -EINVAL: contradictory
 * arguments, before anything is done: host and conn, neither, no port, a connection that is no stream, a local address
 * of another family than the one asked for; -EADDRNOTAVAIL: no address of the local one's family. */
HEIST_API int heist_open_connection(const char *host, const char *port, const heist_open_options *opts,
                                    heist_stream **out) HEIST_NODISCARD;
/* The same to a Unix socket; "@name" is an abstract one.  local, family and delay must be unset. */
HEIST_API int heist_open_unix_connection(const char *path, const heist_open_options *opts,
                                         heist_stream **out) HEIST_NODISCARD;

HEIST_END_DECLS

#endif
