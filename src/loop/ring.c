/* The two queues of io_uring.  See ring.h.
 *
 * Orders.  The kernel reads the entries in the system call that hands them over, on this thread; release is for the
 * language.  It writes completions at any time, then stores the tail with release: our load of it is acquire.  Our
 * store of the completions' head is release, so that the kernel fills a place only after it was read. */
#include "loop/ring.h"

#include <linux/time_types.h>
#include <string.h>

#include "base/sys.h"

/* Without these there would be lost completions, no limit to a wait, or an entry for each removal. */
#define NEEDED                                                                                                         \
    (IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_RW_CUR_POS | IORING_FEAT_CQE_SKIP)

int heist__ring_open(struct heist__ring *r, unsigned entries, unsigned completions) {
    struct io_uring_params p;
    memset(&p, 0, sizeof(p));
    memset(r, 0, sizeof(*r));
    r->fd = -1;
    p.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL; /* the last: Linux 5.18 */
    p.cq_entries = completions;
    int fd = heist__sys_uring_setup(entries, &p);
    if (fd < 0) return fd;
    if ((p.features & NEEDED) != NEEDED) {
        heist__sys_close(fd);
        return -ENOSYS;
    }
    size_t sq = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
    size_t cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    r->rings_bytes = sq > cq ? sq : cq;
    r->sqes_bytes = p.sq_entries * sizeof(struct io_uring_sqe);
    r->rings = heist__sys_map_shared(fd, r->rings_bytes, IORING_OFF_SQ_RING);
    void *sqes = r->rings ? heist__sys_map_shared(fd, r->sqes_bytes, IORING_OFF_SQES) : NULL;
    if (!sqes) {
        if (r->rings) heist__sys_unmap(r->rings, r->rings_bytes);
        heist__sys_close(fd);
        return -ENOMEM;
    }
    char *base = r->rings;
    r->sqes = sqes;
    r->cqes = (void *)(base + p.cq_off.cqes);
    r->sq_head = (void *)(base + p.sq_off.head);
    r->sq_tail = (void *)(base + p.sq_off.tail);
    r->sq_flags = (void *)(base + p.sq_off.flags);
    r->cq_head = (void *)(base + p.cq_off.head);
    r->cq_tail = (void *)(base + p.cq_off.tail);
    r->sq_entries = p.sq_entries;
    r->sq_mask = p.sq_entries - 1;
    r->cq_mask = p.cq_entries - 1;
    uint32_t *order = (void *)(base + p.sq_off.array); /* entry i always stands at place i */
    for (uint32_t i = 0; i < p.sq_entries; i++) order[i] = i;
    r->fd = fd;
    return 0;
}

void heist__ring_close(struct heist__ring *r) {
    if (r->fd < 0) return;
    heist__sys_unmap(r->sqes, r->sqes_bytes);
    heist__sys_unmap(r->rings, r->rings_bytes);
    heist__sys_close(r->fd);
    r->fd = -1;
}

static uint32_t waiting(struct heist__ring *r) {
    /* rlx: only we write the tail.  acq: pairs with the kernel's store, which has read the entries */
    return a_load_rlx(r->sq_tail) - a_load_acq(r->sq_head);
}

bool heist__ring_owes(struct heist__ring *r) { return waiting(r) != 0; }

struct io_uring_sqe *heist__ring_entry(struct heist__ring *r) {
    if (waiting(r) == r->sq_entries) return NULL;
    struct io_uring_sqe *e = &r->sqes[a_load_rlx(r->sq_tail) & r->sq_mask]; /* rlx: ours */
    memset(e, 0, sizeof(*e));
    return e;
}

void heist__ring_push(struct heist__ring *r) {
    a_store_rel(r->sq_tail, a_load_rlx(r->sq_tail) + 1); /* rel: the entry comes first; rlx: ours */
}

int heist__ring_submit(struct heist__ring *r) {
    for (uint32_t n; (n = waiting(r));) {
        int done = heist__sys_uring_enter(r->fd, n, 0, 0, NULL, 0);
        if (done == -EINTR) continue;
        if (done <= 0) return done ? done : -EAGAIN;
    }
    return 0;
}

bool heist__ring_take(struct heist__ring *r, struct io_uring_cqe *out) {
    uint32_t head = a_load_rlx(r->cq_head);           /* rlx: written under the lock */
    if (head == a_load_acq(r->cq_tail)) return false; /* acq: pairs with the kernel's store */
    *out = r->cqes[head & r->cq_mask];
    a_store_rel(r->cq_head, head + 1); /* rel: it was read */
    return true;
}

int heist__ring_wait(struct heist__ring *r, int64_t timeout_ns) {
    struct __kernel_timespec limit = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    struct io_uring_getevents_arg arg = {.ts = timeout_ns > 0 ? (uint64_t)(uintptr_t)&limit : 0};
    int rc = heist__sys_uring_enter(r->fd, 0, timeout_ns != 0, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &arg,
                                    sizeof(arg));
    return rc < 0 ? rc : 0;
}
