/* A task waits for an operation of the kernel's.  See ring_call.h and loop/poller_uring.h.
 *
 * The operation stands on the task's stack, and the kernel uses the caller's buffer until it has ended.  So the call
 * leaves in one way only: when the completion has been seen.  A request to cancel ends the wait, not the operation: the
 * kernel is asked to end that, and the task waits again, as often as it takes.
 *
 *   begin ──> OUT ──completion──> DONE, and the call returns
 *              └──request──> the kernel is asked, once ──> OUT
 *   A request may also have ended the wait of a call that is DONE by now.  It has been taken, so it is kept for the
 *   next call.
 *
 * After DONE the one who set it may still be in the guard's section; the call passes the guard before it leaves.
 * An operation that ends cancelled though nobody asked was begun by a thread that is gone: it begins again. */
#include "io/ring_call.h"

#include <errno.h>
#include <fcntl.h>

#ifdef __has_include
#if __has_include(<linux/io_uring.h>)
#define HAVE_URING 1
#endif
#endif

#ifndef HAVE_URING

bool heist__ring_here(void) { return false; }
int64_t heist__ring_read(int fd, void *buf, size_t size, int64_t offset) {
    return (void)fd, (void)buf, (void)size, (void)offset, -ENOSYS;
}
int64_t heist__ring_write(int fd, const void *buf, size_t size, int64_t offset) {
    return (void)fd, (void)buf, (void)size, (void)offset, -ENOSYS;
}
int heist__ring_sync(int fd, bool data_only) { return (void)fd, (void)data_only, -ENOSYS; }
int heist__ring_open_file(const char *path, int flags, unsigned mode) {
    return (void)path, (void)flags, (void)mode, -ENOSYS;
}
int heist__ring_stat(int fd, const char *path, int flags, struct stat *out) {
    return (void)fd, (void)path, (void)flags, (void)out, -ENOSYS;
}

#else

#include <linux/io_uring.h>
#include <string.h>
#include <sys/sysmacros.h>

#ifdef HEIST_VALGRIND
#include <valgrind/memcheck.h>
#else
#define VALGRIND_MAKE_MEM_DEFINED(start, bytes) ((void)0)
#endif

#include "loop/poller_uring.h"
#include "sched/suspend.h"

/* One operation moves at most so much; the kernel's count has 32 bits. */
#define MOST ((size_t)1 << 30)

struct call {
    struct heist__wait wait;
    struct heist__ring_op op;
    const struct io_uring_sqe *entry;
    heist_loop *loop; /* whose ring it is in, one reference; NULL: not begun */
};

/* The ring of where the task is by now.  A loop may have got none when it was made; then another's of the runtime does:
 * the task was on one that has one when it began. */
static heist_loop *ring_from(heist_loop *loop) {
    loop = loop->home;
    heist_runtime *rt = loop->rt;
    for (int i = 0; !loop->poller.uring && i < rt->workers; i++) loop = rt->worker[i]->loop;
    return loop;
}

static bool publish(struct heist__wait *w, heist_loop *loop) {
    struct call *c = heist_container_of(w, struct call, wait);
    if (!c->loop) {
        loop = ring_from(loop);
        c->op.waiter = w->park;
        /* ar: as in loop/reg.c's watch: whoever polls sees the operation whole */
        a_add_ar(&loop->watched, 1);
        w->code = heist__uring_submit(loop->poller.uring, c->entry, &c->op);
        if (w->code) {
            a_sub_rlx(&loop->watched, 1); /* rlx: a count that the owner looks at each turn */
            return false;
        }
        c->loop = heist__loop_hold(loop);
        return true;
    }
    heist__spin_lock(&c->op.guard);
    bool done = c->op.done;
    if (!done) c->op.waiter = w->park;
    heist__spin_unlock(&c->op.guard);
    return !done;
}

static void withdraw(struct heist__wait *w) {
    struct call *c = heist_container_of(w, struct call, wait);
    heist__spin_lock(&c->op.guard);
    c->op.waiter = NULL;
    heist__spin_unlock(&c->op.guard);
}

static bool is_done(struct heist__ring_op *op) {
    heist__spin_lock(&op->guard);
    bool done = op->done;
    heist__spin_unlock(&op->guard);
    return done;
}

/* Once: its result; *asked: it was asked to end. */
static int run_once(const struct io_uring_sqe *entry, bool *asked) {
    struct call c;
    memset(&c.op, 0, sizeof(c.op));
    c.entry = entry;
    c.loop = NULL;
    c.wait.deadline_ns = INT64_MAX;
    c.wait.publish = publish;
    c.wait.withdraw = withdraw;
    for (;;) {
        int err = heist__wait(&c.wait);
        if (!c.loop) return err;
        bool done = is_done(&c.op);
        if (err && !*asked) {
            *asked = true; /* also when the completion came in between: the request has been taken, and must be told */
            if (!done) heist__uring_cancel(c.loop->poller.uring, &c.op);
        }
        if (done) break;
    }
    a_sub_rlx(&c.loop->watched, 1); /* rlx: as above */
    heist__loop_release(c.loop);
    return c.op.result;
}

static int run(const struct io_uring_sqe *entry) {
    struct heist__self *self = heist__self();
    heist_task *t = self->task;
    uint32_t base = heist__cancel_base(t);
    int result = heist__wait_entry(self);
    if (result) return result;
    bool asked = false;
    do result = run_once(entry, &asked);
    while (!asked && (result == -ECANCELED || result == -EINTR));
    if (!asked) return result;
    if (result == -EINTR || result == -ECANCELED) return -ECANCELED; /* the kernel heard it */
    heist__cancel_again(t, base);                                    /* too late: for the next call */
    return result;
}

bool heist__ring_here(void) {
    struct heist__self *self = heist__self();
    return self->task && self->loop->home->poller.uring && !self->loop->clock->virtual_time;
}

int64_t heist__ring_read(int fd, void *buf, size_t size, int64_t offset) {
    struct io_uring_sqe e;
    memset(&e, 0, sizeof(e));
    e.opcode = IORING_OP_READ;
    e.fd = fd;
    e.addr = (uint64_t)(uintptr_t)buf;
    e.len = (uint32_t)(size < MOST ? size : MOST);
    e.off = (uint64_t)offset;
    int n = run(&e);
    if (n > 0) VALGRIND_MAKE_MEM_DEFINED(buf, (size_t)n);
    return n;
}

int64_t heist__ring_write(int fd, const void *buf, size_t size, int64_t offset) {
    struct io_uring_sqe e;
    memset(&e, 0, sizeof(e));
    e.opcode = IORING_OP_WRITE;
    e.fd = fd;
    e.addr = (uint64_t)(uintptr_t)buf;
    e.len = (uint32_t)(size < MOST ? size : MOST);
    e.off = (uint64_t)offset;
    return run(&e);
}

int heist__ring_sync(int fd, bool data_only) {
    struct io_uring_sqe e;
    memset(&e, 0, sizeof(e));
    e.opcode = IORING_OP_FSYNC;
    e.fd = fd;
    e.fsync_flags = data_only ? IORING_FSYNC_DATASYNC : 0;
    return run(&e);
}

int heist__ring_open_file(const char *path, int flags, unsigned mode) {
    struct io_uring_sqe e;
    memset(&e, 0, sizeof(e));
    e.opcode = IORING_OP_OPENAT;
    e.fd = AT_FDCWD;
    e.addr = (uint64_t)(uintptr_t)path;
    e.len = mode;
    e.open_flags = (uint32_t)flags | O_CLOEXEC;
    return run(&e);
}

static struct timespec time_of(const struct statx_timestamp *t) { return (struct timespec){t->tv_sec, t->tv_nsec}; }

/* The kernel knows one operation for all of stat's forms, and it answers in words of its own. */
int heist__ring_stat(int fd, const char *path, int flags, struct stat *out) {
    struct statx x;
    struct io_uring_sqe e;
    memset(&x, 0, sizeof(x));
    memset(&e, 0, sizeof(e));
    e.opcode = IORING_OP_STATX;
    e.fd = fd;
    e.addr = (uint64_t)(uintptr_t)path;
    e.len = STATX_BASIC_STATS;
    e.off = (uint64_t)(uintptr_t)&x;
    e.statx_flags = (uint32_t)flags | AT_NO_AUTOMOUNT; /* as stat itself, which mounts nothing */
    int err = run(&e);
    if (err) return err;
    VALGRIND_MAKE_MEM_DEFINED(&x, sizeof(x));
    memset(out, 0, sizeof(*out));
    out->st_dev = makedev(x.stx_dev_major, x.stx_dev_minor);
    out->st_rdev = makedev(x.stx_rdev_major, x.stx_rdev_minor);
    out->st_ino = x.stx_ino;
    out->st_mode = x.stx_mode;
    out->st_nlink = x.stx_nlink;
    out->st_uid = x.stx_uid;
    out->st_gid = x.stx_gid;
    out->st_size = (off_t)x.stx_size;
    out->st_blksize = (blksize_t)x.stx_blksize;
    out->st_blocks = (blkcnt_t)x.stx_blocks;
    out->st_atim = time_of(&x.stx_atime);
    out->st_mtim = time_of(&x.stx_mtime);
    out->st_ctim = time_of(&x.stx_ctime);
    return 0;
}

#endif
