/* The inside of a transport.
 *
 * Callbacks hold `turn`, a lock of tasks.  Two tasks call them: the *pump*, which reads, and the *warden*, which is
 * made when a write leaves more than the high-water mark unsent, and tells the protocol to pause and to resume.
 *
 *   made     under the lock: the pump has the turn for connection_made, so that whoever is made now comes after it.  No
 *            warden before that; the pump looks when it has made.
 *   warden   under the lock: 1 from before its task is made until it has found, in one hold of the lock, that no more
 *            than the mark is unsent, or that the connection is over.  A write that passes the mark after that makes
 *            another one; one before is seen by that look.
 *   over     under the lock: the pump has seen the end; no warden is made from then on.  The pump closes the stream
 * first, which ends the warden's wait, and calls connection_lost when `wardens` is zero. */
#ifndef HEIST_NET_PROTOCOL_H
#define HEIST_NET_PROTOCOL_H

#include <heist/event.h>
#include <heist/lock.h>
#include <heist/protocol.h>
#include <heist/waitgroup.h>
#include <stdbool.h>

#include "conc/atomic.h"
#include "conc/spin.h"

struct heist_transport {
    _Atomic(uint32_t) refs;
    heist_stream *stream;
    const heist_protocol *protocol;
    void *self;
    heist_loop *loop; /* where a warden is made for a plain thread; may be gone */
    uint64_t loop_id;

    heist_lock turn;
    heist_waitgroup wardens;
    heist_event flowing; /* set: reading is not paused */

    struct heist__spin lock;
    bool made, warden, over;
    int failure; /* of making a warden */
};

heist_transport *heist__transport_new(heist_stream *stream, const heist_protocol *protocol, void *self);

/* Around a callback; neither can fail, and a request to cancel is held back between them. */
void heist__transport_enter(heist_transport *t);
void heist__transport_leave(heist_transport *t);

/* After a write: is there more unsent than the mark? */
void heist__transport_look(heist_transport *t);

/* The pump: until connection_lost has returned.  In a task. */
int heist__transport_pump(heist_transport *t);

#endif
