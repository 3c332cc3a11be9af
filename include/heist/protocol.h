/* heist/protocol.h: asyncio's transports and protocols: callbacks over a stream.
 *
 * A *protocol* is a structure of callbacks and an object of yours that each gets first.  A *transport* is the other
 * half: what the callbacks write to.  One task reads the stream and calls:
 *
 *     connection_made, once, first
 *     data_received (or get_buffer and buffer_updated), any number of times
 *     eof_received, at most once
 *     connection_lost, exactly once, last, if connection_made was called
 *
 * pause_writing and resume_writing come in pairs, in between.  Never do two callbacks of one connection run at once,
 * and what one wrote the next one sees.  All run in a task, so they may suspend; while one does, the others wait.
 *
 * A callback that returns a negative code has failed: that is reported to the exception handler, the connection is
 * aborted and lost with that code.  -ECANCELED aborts without a report. */
#ifndef HEIST_PROTOCOL_H
#define HEIST_PROTOCOL_H

#include <heist/base.h>
#include <heist/server.h>
#include <heist/stream.h>

HEIST_BEGIN_DECLS

typedef struct heist_transport heist_transport;

/* All but connection_made and connection_lost may be NULL; one of data_received and get_buffer must be there. */
typedef struct heist_protocol {
    size_t size;
    int (*connection_made)(void *self, heist_transport *transport); /* borrowed until connection_lost has returned */
    int (*data_received)(void *self, const void *data, size_t n);   /* data is valid during the call */
    /* The buffered form, instead of data_received: where to read the next bytes (at most *n) to, and how many came.
     * *n = 0 is a failure.  The memory must stay until buffer_updated or connection_lost. */
    int (*get_buffer)(void *self, void **buffer, size_t *n);
    int (*buffer_updated)(void *self, size_t n);
    /* The peer has ended its side.  0, and without this callback: the connection is closed (what was written is still
     * sent).  1: it stays open for writing until the transport is closed. */
    int (*eof_received)(void *self);
    /* code: why; 0 after an orderly end and after close or abort.  -ECANCELED: its task was cancelled. */
    void (*connection_lost)(void *self, int code);
    /* More than the high-water mark is unsent; no more than the low one is.  Soon after the write, not within it. */
    void (*pause_writing)(void *self);
    void (*resume_writing)(void *self);
} heist_protocol;
#define HEIST_PROTOCOL_INIT                                                                                            \
    { sizeof(heist_protocol), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL }

/* ---- connections ---- */

/* Runs the protocol over the stream in the caller's task, until connection_lost has returned; the stream is then
 * closed.  Returns the code that connection_lost got.
 * Context: task.  Suspends: may.  Ownership: the stream stays the caller's; *protocol must outlive the connection.
 * Errors: those of the connection; without any callback: -EINVAL, -ENOMEM, HEIST_ENOTINCORO, -ECANCELED. */
HEIST_API int heist_protocol_run(heist_stream *stream, const heist_protocol *protocol, void *self);

/* The same in a task of its own.  *out (may be NULL) is a reference to the transport; it is usable at once, also before
 * connection_made was called.
 * Context: task or callback.  Suspends: never.  Ownership: the stream passes to the connection, on success.
 * Errors: -EINVAL, -ENOMEM, HEIST_ENOLOOP, HEIST_ECLOSED, those of making a task. */
HEIST_API int heist_protocol_start(heist_stream *stream, const heist_protocol *protocol, void *self,
                                   heist_transport **out);

/* asyncio's create_connection: opens (heist_open_connection), then starts.
 * Context: task.  Suspends: may.  Errors: of both. */
HEIST_API int heist_create_connection(const heist_protocol *protocol, void *self, const char *host, const char *port,
                                      const heist_open_options *opts, heist_transport **out);

/* Makes the protocol of a new connection; in the connection's task.  A negative code refuses it, and is reported. */
typedef int (*heist_protocol_factory)(void *user, const heist_protocol **protocol, void **self);

/* asyncio's create_server: heist_start_server, with a protocol of the factory's for each connection.  opts.user_free
 * runs on user.  Suspends: may.  Context, Errors: as heist_start_server. */
HEIST_API int heist_create_server(heist_protocol_factory factory, void *user, const char *host, const char *port,
                                  const heist_server_options *opts, heist_server **out);

/* ---- transports ----
 *
 * Context: any.  Suspends: never.  With a reference a transport may be used at any time: after connection_lost writes
 * are HEIST_ECLOSED, and close has nothing to do. */

HEIST_API heist_transport *heist_transport_ref(heist_transport *t);
HEIST_API void heist_transport_unref(heist_transport *t); /* NULL is allowed */

/* As those of heist/stream.h.  When there is no memory to tell the protocol to pause, the connection is lost with
 * -ENOMEM. */
HEIST_API int heist_transport_write(heist_transport *t, const void *buf, size_t n);
HEIST_API int heist_transport_writelines(heist_transport *t, const struct iovec *iov, int count);
HEIST_API int heist_transport_write_eof(heist_transport *t);
/* What was written is still sent, then connection_lost; abort: at once. */
HEIST_API int heist_transport_close(heist_transport *t);
HEIST_API int heist_transport_abort(heist_transport *t);
HEIST_API int heist_transport_is_closing(heist_transport *t);

/* Between pause and resume no data and no end is delivered.  A callback of such that runs already goes on.  Idempotent.
 * Errors: -EINVAL. */
HEIST_API int heist_transport_pause_reading(heist_transport *t);
HEIST_API int heist_transport_resume_reading(heist_transport *t);
HEIST_API int heist_transport_is_reading(heist_transport *t);

/* The stream below: for heist_stream_get_extra_info, the marks and the deadlines.  Borrowed. */
HEIST_API heist_stream *heist_transport_stream(heist_transport *t);

HEIST_END_DECLS

#endif
