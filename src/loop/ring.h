/* The memory that io_uring shares with us, and its three system calls; no policy.
 *
 * Two queues: of entries that we submit, and of their completions.  Only the kernel's own words are read without the
 * user's lock.  All calls but `ready`, `overflown` and `wait` are made under one lock of the user's.
 * By the kernel's interface alone, so that no library is needed. */
#ifndef HEIST_LOOP_RING_H
#define HEIST_LOOP_RING_H

#include <linux/io_uring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conc/atomic.h"

struct heist__ring {
    int fd; /* -1: closed */
    uint32_t sq_entries, sq_mask, cq_mask;
    _Atomic(uint32_t) *sq_head, *sq_tail, *sq_flags, *cq_head, *cq_tail;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
    void *rings;
    size_t rings_bytes, sqes_bytes;
};

/* 0, or why there is none: -ENOSYS, -EPERM, -EINVAL (the kernel is too old), -EMFILE, -ENOMEM … */
int heist__ring_open(struct heist__ring *r, unsigned entries, unsigned completions);
void heist__ring_close(struct heist__ring *r);

/* A zeroed entry, to be filled in and pushed; NULL: there is no room. */
struct io_uring_sqe *heist__ring_entry(struct heist__ring *r);
void heist__ring_push(struct heist__ring *r);
/* Hands over what was pushed.  0, or a code; then some of it, or all, waits for the next time. */
int heist__ring_submit(struct heist__ring *r);
/* Some was pushed and not handed over. */
bool heist__ring_owes(struct heist__ring *r);

/* There is a completion. */
static inline bool heist__ring_ready(struct heist__ring *r) {
    /* rlx: only whether to look under the lock.  acq: pairs with the kernel's store of the tail */
    return a_load_rlx(r->cq_head) != a_load_acq(r->cq_tail);
}
/* There are completions that found no room: the kernel puts them in when it is asked to wait. */
static inline bool heist__ring_overflown(struct heist__ring *r) {
    return a_load_rlx(r->sq_flags) & IORING_SQ_CQ_OVERFLOW; /* rlx: a hint, looked at again */
}
/* The oldest completion, copied and taken out; false: there is none. */
bool heist__ring_take(struct heist__ring *r, struct io_uring_cqe *out);

/* Until there is a completion: 0; -ETIME, -EINTR, or a code.  timeout_ns: 0 only lets the kernel put in what had no
 * room, negative waits for ever.  Any thread, without the lock. */
int heist__ring_wait(struct heist__ring *r, int64_t timeout_ns);

#endif
