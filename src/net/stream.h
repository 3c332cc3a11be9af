/* The inside of a stream, and the protocol between its reader, its writers, close and abort.
 *
 * The transport (`ops`, `self`) allows one reader and one writer at a time.  So a stream has two tokens, under its
 * lock:
 *
 *   reading  whoever reads has it, for one call.  The read buffer and what stands beside it is his.
 *   pen      whoever writes has it: a write that tries at once, for its call; the *flusher*, a task that is made when
 *            the transport takes no more, until all is done; a sendfile.
 *
 * and a state that only goes forward:
 *
 *   OPEN ──close──> CLOSING ──the pen's holder, when nothing is left to send──> SHUT ──the last one leaves──> GONE
 *     └──────────────────┴─────────────abort─────────────────────────────────────^
 *
 *   OPEN     reads and writes come in
 *   CLOSING  no more come in; what is queued goes out
 *   SHUT     ops.close was called, or is being called: whoever is inside the transport comes out
 *   GONE     ops.free was called; then wait_closed returns.  A stream that stands on another does not come here before
 *            that one: from its SHUT on it counts as inside itself, until the one below lets it go as it goes
 *
 * Under the lock these hold:
 *   1. Something is queued, or write_eof or close wait for their turn  =>  the pen is taken.  Only its holder takes
 * from the queue, and he gives the pen back (heist__stream_go_on) in the hold of the lock in which he saw nothing left.
 *      So nothing queued is forgotten: who adds to the queue finds the pen free, and takes it, or its holder looks
 * again.
 *   2. The chunks of the queue are freed by the pen's holder alone, also after abort and failure: he may be
 *      sending them at this moment.
 *   3. Nobody enters the transport from SHUT on; `reading`, `pen` and `inside` say who is still there.  Whoever
 *      leaves last in SHUT, seen under the lock, calls ops.free: once, for the state becomes GONE in the same hold.
 *   4. `error` is set once, by the pen's holder; then the queue is empty and stays so.
 *
 * The flusher is a task to which nobody has a reference, with one on the stream.  It may never begin (its runtime
 * closes, no stack is left): the destructor of its argument, which runs all the same, fails what is queued and gives
 * the pen back.  A request to cancel it is the end of what is queued when its runtime closes, and nothing otherwise.  A
 * plain thread makes no task: it posts the making to the loop of the stream, and the job, or its drop, has the pen
 * meanwhile. So a stream with unsent data never outlives its runtime: the flusher is a task like others, the close
 * cancels it, and its end gives the data up. */
#ifndef HEIST_NET_STREAM_H
#define HEIST_NET_STREAM_H

#include <heist/error.h>
#include <heist/stream.h>

#include "conc/atomic.h"
#include "conc/spin.h"
#include "sync/waitq.h"
#include "task/job.h"

/* A piece of the queue: bytes from start to end of data; more may be added up to room. */
struct heist__chunk {
    struct heist__chunk *next;
    size_t start, end, room;
    char data[];
};

enum { HEIST__STREAM_OPEN, HEIST__STREAM_CLOSING, HEIST__STREAM_SHUT, HEIST__STREAM_GONE };

/* What a wait for the pen ends with, when it was handed over. */
#define HEIST__STREAM_HANDED 1

struct heist_stream {
    /* birth */
    struct heist__job job; /* by the pen's holder: the making of a flusher, posted by a plain thread */
    heist_stream_ops ops;
    void *self;
    heist_loop *loop; /* that made it, or NULL; may be gone */
    uint64_t loop_id;
    _Atomic(uint32_t) refs;
    size_t limit, stack_bytes;

    /* the reader's */
    char *buf;
    size_t start, end; /* what is buffered */
    size_t room;       /* one byte less than the block has */
    char cut;          /* what a zero byte behind a line stands for, at start */
    bool is_cut;
    bool eof;
    bool grow;      /* the last fill was to the brim */
    int read_error; /* what broke the connection */

    /* under the lock */
    struct heist__spin lock;
    uint8_t state;
    bool reading, pen;
    bool eof_wanted, eof_done, finished;
    bool paused;     /* more than high was unsent, and not yet low or less */
    bool freed;      /* ops.free has returned */
    bool dropped;    /* the last reference has gone, without a close */
    heist_stream *above; /* stands on this one, and waits inside of itself for its end; with a reference */
    unsigned inside; /* in the transport, beside the two */
    int error;       /* of writing */
    struct heist__chunk *head, *tail;
    size_t queued, high, low;
    double read_deadline, write_deadline;
    struct heist__waitq drainers, closers, penless;
};

/* NULL is. */
bool heist__stream_options_ok(const heist_stream_options *o);

/* Under the lock: nobody is in the transport any more, and its time has come; then the state is GONE, and the
 * caller calls heist__stream_gone after the unlock. */
static inline bool heist__stream_last(heist_stream *s) {
    if (s->state != HEIST__STREAM_SHUT || s->reading || s->pen || s->inside) return false;
    s->state = HEIST__STREAM_GONE;
    return true;
}
void heist__stream_gone(heist_stream *s);

/* A short visit to the transport, beside reader and writer: begun under the lock, in a state before SHUT. */
void heist__stream_leave(heist_stream *s);

/* By the pen's holder, in CLOSING: ops.close. */
void heist__stream_shut(heist_stream *s);

/* A wait in one of the queues of the stream.  waits: under the lock, whether there is something to wait for.
 * The caller has made the entry of a suspending call. */
int heist__stream_wait(heist_stream *s, struct heist__waitq *q, bool (*waits)(heist_stream *s), double deadline);

/* ---- the pen (stream_write.c) ---- */

/* By its holder, who has nothing to send himself: sends what is queued and does what waits for its turn, and gives the
 * pen back, or hands it to a flusher.  0, or the code for which no flusher could be made (what was queued has failed
 * with it).  may_suspend: the holder is a flusher.  tries: how often the queue is tried before a flusher is made. */
int heist__stream_go_on(heist_stream *s, bool may_suspend, int tries);

/* By its holder: writing has failed, for good.  The pen is kept.  (stream_queue.c) */
void heist__stream_fail(heist_stream *s, int code);

/* ---- the queue (stream_queue.c) ---- */

/* Room for as many bytes, and some more; NULL: no memory. */
struct heist__chunk *heist__chunk_new(size_t bytes);
/* Copies `iov` but for its first `skip` bytes behind what the chunk holds. */
void heist__chunk_fill(struct heist__chunk *c, const struct iovec *iov, int count, size_t skip);
/* Frees a list of them. */
void heist__chunks_free(struct heist__chunk *list);

/* Under the lock. */
void heist__queue_count(heist_stream *s, size_t bytes); /* were added to a chunk that is in it */
void heist__queue_add_first(heist_stream *s, struct heist__chunk *c);
void heist__queue_add_last(heist_stream *s, struct heist__chunk *c);
struct heist__chunk *heist__queue_take_all(heist_stream *s);
/* The vectors of one write. */
#define HEIST__QUEUE_VECTORS 32
int heist__queue_gather(const heist_stream *s, struct iovec *iov);

/* By the pen's holder: so many bytes of it have gone. */
void heist__queue_consume(heist_stream *s, size_t bytes);

#endif
