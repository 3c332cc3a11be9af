/* heist/datagram.h: endpoints for datagrams, over UDP (IPv4 and IPv6) and Unix sockets.
 *
 * A datagram comes whole or is cut and says so; it never runs into the next.  Any number of tasks may receive on one
 * endpoint, each datagram going to one of them, and any number may send; those that must wait do so first come, first
 * served.  Cancelled or timed out, a call has taken nothing and sent nothing.
 *
 * An endpoint with a remote address is connected: it receives from that address only, and sends to no other.  On
 * UDP it hears when a datagram was refused there (-ECONNREFUSED, from a later call in either direction).  Such an
 * error is told once, to one caller, and the endpoint goes on.
 *
 * UDP drops datagrams when a receiver is slow.  Unix sockets do not: a sender waits; where the endpoint is not
 * connected it looks again every millisecond, for the system does not tell.
 *
 * The last part is asyncio's DatagramProtocol: functions that a task of the endpoint calls. */
#ifndef HEIST_DATAGRAM_H
#define HEIST_DATAGRAM_H

#include <heist/base.h>
#include <heist/net.h>

HEIST_BEGIN_DECLS

/* Reference counted: every call is made with a reference that stays held. */
typedef struct heist_datagram heist_datagram;

#define HEIST_DATAGRAM_REUSEADDR 0x1u /* several multicast receivers on one port */
#define HEIST_DATAGRAM_REUSEPORT 0x2u /* several endpoints share a port; the system spreads the senders over them */
#define HEIST_DATAGRAM_BROADCAST 0x4u /* may send to broadcast addresses */
#define HEIST_DATAGRAM_V6ONLY 0x8u

typedef struct heist_datagram_options {
    size_t size;
    unsigned flags;        /* HEIST_DATAGRAM_… */
    int send_buffer;       /* bytes that the system keeps; 0: its default */
    int receive_buffer;
    size_t max_received;   /* callbacks: the longest datagram that is delivered; 0: 65536 */
} heist_datagram_options;
#define HEIST_DATAGRAM_OPTIONS_INIT {sizeof(heist_datagram_options), 0, 0, 0, 0}

/* ---- life ---- */

/* Opens an endpoint: bound to `local`, or to an address that the system chooses (NULL; a Unix endpoint then has no
 * name, and nobody can answer it); connected to `remote`, or not (NULL).  At least one of them is needed.  A Unix path
 * must be free, and is left behind by the close (not by an open that fails).
 * Context: any.  Suspends: never.  Ownership: *out is one reference; close, then unref.
 * Errors: -EINVAL (neither address, two families, an unknown flag), -EADDRINUSE and the like, -EMFILE, -ENOMEM. */
HEIST_API int heist_datagram_open(const heist_addr *local, const heist_addr *remote,
                                  const heist_datagram_options *opts, heist_datagram **out) HEIST_NODISCARD;
/* Takes over a datagram socket (made non-blocking).  The same, and -ENOTSOCK, -EPROTOTYPE (not of datagrams), -EBUSY (a
 * call on it is in progress, or it belongs to somebody).  Ownership: fd is the endpoint's on success only. */
HEIST_API int heist_datagram_from_fd(int fd, heist_datagram **out) HEIST_NODISCARD;
/* Closes: whoever waits on it, and every later call, gets HEIST_ECLOSED.  Idempotent; NULL is allowed.
 * Context: any.  Suspends: never. */
HEIST_API void heist_datagram_close(heist_datagram *d);
/* Context: any.  Suspends: never.  NULL is allowed in unref.  The last unref closes. */
HEIST_API heist_datagram *heist_datagram_ref(heist_datagram *d);
HEIST_API void heist_datagram_unref(heist_datagram *d);

/* The descriptor (borrowed), our own address (the port that was chosen for port 0), and the remote one (-ENOTCONN:
 * none).
 * Context: any.  Suspends: never.  Errors: HEIST_ECLOSED. */
HEIST_API int heist_datagram_fd(const heist_datagram *d);
HEIST_API int heist_datagram_addr(heist_datagram *d, heist_addr *out);
HEIST_API int heist_datagram_peer(heist_datagram *d, heist_addr *out);

/* Joins or leaves a multicast group (its port does not matter) on the interface of that index; 0: the system chooses.
 * Context: any.  Suspends: never.  Errors: -EINVAL, -EADDRINUSE (joined before), -EADDRNOTAVAIL, -ENODEV. */
HEIST_API int heist_datagram_join(heist_datagram *d, const heist_addr *group, unsigned interface_index);
HEIST_API int heist_datagram_leave(heist_datagram *d, const heist_addr *group, unsigned interface_index);

/* ---- one at a time ---- */

/* Receives one datagram: its length, which may be 0.  More than `size` means that it was cut: only size bytes of it are
 * in buf, and the rest is gone.  from (may be NULL) gets the sender's address; a Unix sender without a name has length
 * 0 or the family alone.
 * Context: task.  Suspends: may.
 * Errors: -ETIMEDOUT, -ECANCELED, HEIST_ECLOSED (closed meanwhile), -ECONNREFUSED and the like (told, and over),
 * -EINVAL, HEIST_ENOTINCORO. */
HEIST_API ptrdiff_t heist_datagram_recvfrom(heist_datagram *d, void *buf, size_t size, double deadline,
                                            heist_addr *from) HEIST_NODISCARD;
HEIST_API ptrdiff_t heist_datagram_recv(heist_datagram *d, void *buf, size_t size, double deadline) HEIST_NODISCARD;

/* Sends one datagram, whole: 0, or it was not sent.  `to` NULL: the remote address.
 * Context: task.  Suspends: may.
 * Errors: also -EISCONN (the endpoint is connected to another address), -EDESTADDRREQ or -ENOTCONN (to none),
 * -EMSGSIZE, -EACCES (broadcast without the flag), -ENOENT and -ECONNREFUSED (nobody there, on a Unix socket). */
HEIST_API int heist_datagram_sendto(heist_datagram *d, const void *buf, size_t size, const heist_addr *to,
                                    double deadline) HEIST_NODISCARD;
HEIST_API int heist_datagram_send(heist_datagram *d, const void *buf, size_t size, double deadline) HEIST_NODISCARD;

/* The same at once, or -EAGAIN.  Context: any, callbacks too.  Suspends: never. */
HEIST_API ptrdiff_t heist_datagram_try_recvfrom(heist_datagram *d, void *buf, size_t size,
                                                heist_addr *from) HEIST_NODISCARD;
HEIST_API int heist_datagram_try_sendto(heist_datagram *d, const void *buf, size_t size,
                                        const heist_addr *to) HEIST_NODISCARD;

/* ---- many by one system call ---- */

typedef struct heist_packet {
    void *data;      /* receive: where it goes; send: what goes */
    size_t size;     /* receive: the room; send: the length */
    size_t length;   /* received: its length, more than `size` when it was cut */
    heist_addr addr; /* received: the sender; to send: where to, or length 0 for the remote address */
} heist_packet;

/* Receives those that are there, at least one and at most count (and no more than 64 at a time): how many.  Waits for
 * the first only. Sends in order: how many went, at least one; the rest is for the next call, which tells why it
 * stopped, if there was a reason.
 * Suspends: may.  Errors: as for one. */
HEIST_API ptrdiff_t heist_datagram_recv_many(heist_datagram *d, heist_packet *packets, size_t count,
                                             double deadline) HEIST_NODISCARD;
HEIST_API ptrdiff_t heist_datagram_send_many(heist_datagram *d, const heist_packet *packets, size_t count,
                                             double deadline) HEIST_NODISCARD;

/* ---- asyncio's protocol: callbacks ----
 *
 * All of them are called by one task, pinned to the loop that ran the caller of create: never two at once, and each may
 * suspend, which holds up those behind it.  Any may be NULL.  To send, use the calls above; from elsewhere, where
 * nothing may suspend, heist_datagram_try_sendto. */
typedef struct heist_datagram_protocol {
    size_t size;
    void (*connection_made)(void *user, heist_datagram *d); /* first */
    void (*datagram_received)(void *user, heist_datagram *d, const void *data, size_t length, const heist_addr *from);
    /* A refused datagram and the like, and -EMSGSIZE for one longer than max_received.  The endpoint goes on. */
    void (*error_received)(void *user, heist_datagram *d, int code);
    /* Last: 0 after heist_datagram_close, -ECANCELED when the runtime ended the task. */
    void (*connection_lost)(void *user, heist_datagram *d, int code);
} heist_datagram_protocol;
#define HEIST_DATAGRAM_PROTOCOL_INIT {sizeof(heist_datagram_protocol), NULL, NULL, NULL, NULL}

/* asyncio's create_datagram_endpoint: opens an endpoint as heist_datagram_open does, and serves it.  The protocol is
 * copied.
 * Context: task or callback.  Suspends: never; no callback runs within the call.  Ownership: *out is one reference;
 * close, then unref.  The task has one of its own, so an endpoint that is only dropped goes on until its runtime ends.
 * Errors: as heist_datagram_open and heist_create_task. */
HEIST_API int heist_create_datagram_endpoint(const heist_datagram_protocol *protocol, void *user,
                                             const heist_addr *local, const heist_addr *remote,
                                             const heist_datagram_options *opts, heist_datagram **out) HEIST_NODISCARD;

HEIST_END_DECLS

#endif
