/* Files: open, close, and the operations on one.  See heist/file.h.
 *
 * Three ways to the disk, the quickest first: what is in memory already is read in place (RWF_NOWAIT never waits for a
 * disk; no more than NOW_MAX at once, for the copy holds the worker); the loop's ring, where it has one; a job. The
 * last two end before the call returns, whatever comes (offload.h, ring_call.h).
 *
 * A call enters, which keeps the file from being closed under it, does its work, and leaves.
 * `close` forbids further calls, and whoever is the last inside closes the descriptor and frees the file.
 *
 *   OPEN ──close──> CLOSED, calls > 0 ──the last leaves──> gone
 *     └──close, calls == 0──> gone
 *
 * The position is the kernel's.  Who uses it holds `turn`, across the suspension.  readline reads ahead into `ahead`,
 * so the kernel stands `end - at` bytes behind the position that the user knows; whoever else moves it goes back first.
 */
#include <heist/error.h>
#include <heist/file.h>
#include <heist/lock.h>
#include <limits.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/sys.h"
#include "conc/spin.h"
#include "io/offload.h"
#include "io/ring_call.h"
#include "sched/suspend.h"

#define AHEAD ((size_t)64 << 10)
#define NOW_MAX ((size_t)128 << 10)

struct heist_file {
    int fd;
    bool regular;            /* a plain file: its reads end */
    struct heist__spin lock; /* guards the next two */
    bool closed;
    unsigned calls;

    heist_lock turn; /* who uses the position; guards what follows */
    char *ahead;     /* NULL before the first line */
    size_t at, end;  /* what was read ahead */
};

/* ---- life ---- */

static int file_new(heist_file **out) {
    heist_file *f = heist__zalloc(sizeof(*f));
    if (!f) return -ENOMEM;
    f->fd = -1;
    heist__spin_init(&f->lock);
    heist_lock_init(&f->turn);
    *out = f;
    return 0;
}

/* Whatever it says, the descriptor is gone. */
static int file_end(heist_file *f) {
    int err = f->fd >= 0 ? heist__sys_close(f->fd) : 0;
    heist__free(f->ahead);
    heist__free(f);
    return err == -EINTR ? 0 : err;
}

static int enter(heist_file *f) {
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&f->lock);
    int err = f->closed ? HEIST_ECLOSED : 0;
    if (!err) f->calls++;
    heist__spin_unlock(&f->lock);
    return err;
}

static void leave(heist_file *f) {
    heist__spin_lock(&f->lock);
    bool last = --f->calls == 0 && f->closed;
    heist__spin_unlock(&f->lock);
    if (last) (void)file_end(f);
}

/* enter, and the turn at the position. */
static int take_turn(heist_file *f) {
    int err = enter(f);
    if (err) return err;
    err = heist_lock_acquire(&f->turn);
    if (!err) {
        heist__spin_lock(&f->lock);
        if (f->closed) err = HEIST_ECLOSED;
        heist__spin_unlock(&f->lock);
        if (err) heist_lock_release(&f->turn);
    }
    if (err) leave(f);
    return err;
}

static void end_turn(heist_file *f) {
    heist_lock_release(&f->turn);
    leave(f);
}

struct opening {
    const char *path;
    int flags, fd;
    mode_t mode;
};

static int open_job(void *arg, void **out) {
    struct opening *o = arg;
    (void)out;
    do o->fd = heist__sys_open(o->path, o->flags, o->mode);
    while (o->fd == -EINTR);
    return o->fd < 0 ? o->fd : 0;
}

static bool is_regular(int fd) {
    struct stat st;
    return heist__sys_fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

int heist_file_open(const char *path, int flags, mode_t mode, heist_file **out) {
    if (!path || !out) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist_file *f; /* first: what was opened must find a place */
    int err = file_new(&f);
    if (err) return err;
    struct opening o = {path, flags, -1, mode};
    if (heist__ring_here()) {
        o.fd = heist__ring_open_file(path, flags, mode);
        err = o.fd < 0 ? o.fd : 0;
    } else {
        err = heist__offload(open_job, &o);
    }
    f->fd = o.fd;
    f->regular = !err && is_regular(o.fd);
    if (err) {
        (void)file_end(f);
        return err;
    }
    *out = f;
    return 0;
}

int heist_file_adopt(int fd, heist_file **out) {
    if (!out) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (fcntl(fd, F_GETFD) < 0) return -EBADF;
    heist_file *f;
    int err = file_new(&f);
    if (err) return err;
    f->fd = fd;
    f->regular = is_regular(fd);
    *out = f;
    return 0;
}

int heist_file_close(heist_file *f) {
    if (!f) return 0;
    if (heist__forked()) return HEIST_EFORKED; /* a child's copy is the parent's */
    heist__spin_lock(&f->lock);
    f->closed = true;
    bool last = f->calls == 0;
    heist__spin_unlock(&f->lock);
    return last ? file_end(f) : 0;
}

int heist_file_fd(const heist_file *f) { return f ? f->fd : -EINVAL; }

/* ---- reading and writing ---- */

#define AT_POSITION INT64_MIN

struct transfer {
    int fd;
    char *to;
    const char *from;
    size_t size, done; /* done also when the code is negative */
    size_t back;       /* by so much the kernel stands behind the position */
    int64_t offset;    /* or AT_POSITION */
};

static int read_job(void *arg, void **out) {
    struct transfer *t = arg;
    ssize_t n;
    (void)out;
    do
        n = t->offset == AT_POSITION ? heist__sys_read(t->fd, t->to, t->size)
                                     : heist__sys_pread(t->fd, t->to, t->size, t->offset);
    while (n == -EINTR);
    if (n < 0) return (int)n;
    t->done = (size_t)n;
    return 0;
}

/* What is in memory, in place: true when that was all, or the end. */
static bool read_now(struct transfer *t) {
    while (t->done < t->size) {
        ssize_t n = heist__sys_pread_now(t->fd, t->to + t->done, t->size - t->done,
                                         t->offset == AT_POSITION ? -1 : t->offset + (int64_t)t->done);
        if (n < 0) return false;
        if (!n) break;
        t->done += (size_t)n;
    }
    return true;
}

/* In a task, of a plain file, without a suspension: 1 done; 0 the rest is on the disk, and t is as it was; or a code.
 */
static int read_in_place(struct transfer *t) {
    struct heist__self *self = heist__self();
    if (!self->task || t->size > NOW_MAX) return 0;
    int err = heist__wait_entry(self);
    if (err) return err;
    if (read_now(t)) {
        heist__wait_skipped(self);
        return 1;
    }
    /* What came was copied for nothing: a call that is cancelled below has taken nothing. */
    if (t->done && t->offset == AT_POSITION) (void)heist__sys_lseek(t->fd, -(int64_t)t->done, SEEK_CUR);
    t->done = 0;
    return 0;
}

static int read_some(heist_file *f, struct transfer *t) {
    if (!f->regular) return heist__offload(read_job, t);
    int now = read_in_place(t);
    if (now) return now < 0 ? now : 0;
    if (!heist__ring_here()) return heist__offload(read_job, t);
    int64_t n = heist__ring_read(t->fd, t->to, t->size, t->offset == AT_POSITION ? -1 : t->offset);
    if (n < 0) return (int)n;
    t->done = (size_t)n;
    return 0;
}

/* One system call, or one operation of the ring. */
static int64_t write_once(struct transfer *t, bool ring) {
    const char *from = t->from + t->done;
    size_t left = t->size - t->done;
    bool here = t->offset == AT_POSITION;
    int64_t at = here ? -1 : t->offset + (int64_t)t->done;
    if (ring) return heist__ring_write(t->fd, from, left, at);
    return here ? heist__sys_write(t->fd, from, left) : heist__sys_pwrite(t->fd, from, left, at);
}

static int write_all(struct transfer *t, bool ring) {
    if (t->back) {
        int64_t at = heist__sys_lseek(t->fd, -(int64_t)t->back, SEEK_CUR);
        if (at < 0) return (int)at;
        t->back = 0;
    }
    while (t->done < t->size) {
        int64_t n = write_once(t, ring);
        if (n == -EINTR) continue;
        if (n < 0) return (int)n;
        if (n == 0) return -EIO; /* no file does, and nobody shall spin on one that does */
        t->done += (size_t)n;
    }
    return 0;
}

static int write_job(void *arg, void **out) {
    (void)out;
    return write_all(arg, false);
}

static int write_some(heist_file *f, struct transfer *t) {
    return f->regular && heist__ring_here() ? write_all(t, true) : heist__offload(write_job, t);
}

/* Under the turn: what was read ahead. */
static size_t from_ahead(heist_file *f, void *buf, size_t size) {
    size_t n = f->end - f->at;
    if (n > size) n = size;
    memcpy(buf, f->ahead + f->at, n);
    f->at += n;
    return n;
}

ptrdiff_t heist_file_read(heist_file *f, void *buf, size_t size) {
    if (!f || !buf || !size || size > PTRDIFF_MAX) return -EINVAL;
    int err = take_turn(f);
    if (err) return err;
    struct transfer t = {.fd = f->fd, .to = buf, .size = size, .offset = AT_POSITION};
    if (f->at < f->end) t.done = from_ahead(f, buf, size);
    else err = read_some(f, &t);
    end_turn(f);
    return err ? err : (ptrdiff_t)t.done;
}

int heist_file_write(heist_file *f, const void *buf, size_t size, size_t *written) {
    if (!f || (!buf && size) || size > PTRDIFF_MAX) return -EINVAL;
    int err = take_turn(f);
    if (err) return err;
    struct transfer t = {.fd = f->fd, .from = buf, .size = size, .back = f->end - f->at, .offset = AT_POSITION};
    size_t back = t.back;
    err = write_some(f, &t);
    if (back && !t.back) f->at = f->end = 0; /* the kernel went back */
    end_turn(f);
    if (written) *written = t.done;
    return err;
}

ptrdiff_t heist_file_pread(heist_file *f, void *buf, size_t size, int64_t offset) {
    if (!f || !buf || !size || size > PTRDIFF_MAX || offset < 0) return -EINVAL;
    int err = enter(f);
    if (err) return err;
    struct transfer t = {.fd = f->fd, .to = buf, .size = size, .offset = offset};
    err = read_some(f, &t);
    leave(f);
    return err ? err : (ptrdiff_t)t.done;
}

int heist_file_pwrite(heist_file *f, const void *buf, size_t size, int64_t offset, size_t *written) {
    if (!f || (!buf && size) || size > PTRDIFF_MAX || offset < 0 || (int64_t)size > INT64_MAX - offset) return -EINVAL;
    int err = enter(f);
    if (err) return err;
    struct transfer t = {.fd = f->fd, .from = buf, .size = size, .offset = offset};
    err = write_some(f, &t);
    leave(f);
    if (written) *written = t.done;
    return err;
}

/* ---- lines ---- */

/* Under the turn: a piece of the line into buf; *ended: the line is whole. */
static size_t piece_of_line(heist_file *f, char *buf, size_t room, bool *ended) {
    char *from = f->ahead + f->at;
    size_t n = f->end - f->at;
    if (n > room) n = room;
    char *newline = n ? memchr(from, '\n', n) : NULL;
    *ended = newline != NULL;
    if (newline) n = (size_t)(newline - from) + 1;
    return from_ahead(f, buf, n);
}

ptrdiff_t heist_file_readline(heist_file *f, char *buf, size_t size) {
    if (!f || !buf || size < 2 || size > PTRDIFF_MAX) return -EINVAL;
    int err = take_turn(f);
    if (err) return err;
    if (!f->ahead && !(f->ahead = heist__alloc(AHEAD))) err = -ENOMEM;
    size_t have = 0;
    for (bool ended = false; !err;) {
        have += piece_of_line(f, buf + have, size - 1 - have, &ended);
        if (ended || have == size - 1) break;
        struct transfer t = {.fd = f->fd, .to = f->ahead, .size = AHEAD, .offset = AT_POSITION};
        err = read_some(f, &t);
        if (err) {
            /* Nothing is lost: what stands in buf goes back to where it came from, which it fits into, or the kernel
             * goes back by so much. */
            if (have <= AHEAD) {
                memcpy(f->ahead, buf, have);
                f->at = 0;
                f->end = have;
            } else {
                (void)heist__sys_lseek(f->fd, -(int64_t)have, SEEK_CUR);
                f->at = f->end = 0;
            }
            break;
        }
        f->at = 0;
        f->end = t.done;
        if (!t.done) break;
    }
    end_turn(f);
    if (err) return err;
    buf[have] = 0;
    return (ptrdiff_t)have;
}

/* ---- the rest ---- */

struct question {
    int fd, what;
    int64_t number; /* an offset or a size; the answer of a seek */
    struct stat *st;
};

static int seek_job(void *arg, void **out) {
    struct question *q = arg;
    (void)out;
    int64_t at = heist__sys_lseek(q->fd, q->number, q->what);
    if (at < 0) return (int)at;
    q->number = at;
    return 0;
}

int heist_file_seek(heist_file *f, int64_t offset, int whence, int64_t *out) {
    if (!f) return -EINVAL;
    int err = take_turn(f);
    if (err) return err;
    int64_t unread = (int64_t)(f->end - f->at);
    struct question q = {.fd = f->fd, .what = whence, .number = offset};
    if (whence == SEEK_CUR && !offset) { /* where is it? */
        err = seek_job(&q, NULL);
        q.number -= unread;
    } else if (whence == SEEK_CUR && __builtin_sub_overflow(offset, unread, &q.number)) {
        err = -EOVERFLOW;
    } else {
        /* To move within a file takes no disk; to find its end, or data, may. */
        err = whence == SEEK_SET || whence == SEEK_CUR ? seek_job(&q, NULL) : heist__offload(seek_job, &q);
        if (!err) f->at = f->end = 0;
    }
    end_turn(f);
    if (!err && out) *out = q.number;
    return err;
}

enum { SYNC, DATASYNC, TRUNCATE, STAT };

static int ask_job(void *arg, void **out) {
    struct question *q = arg;
    int err;
    (void)out;
    do {
        switch (q->what) {
            case TRUNCATE: err = heist__sys_truncate(q->fd, q->number); break;
            case STAT: err = heist__sys_fstat(q->fd, q->st); break;
            default: err = heist__sys_sync(q->fd, q->what == DATASYNC); break;
        }
    } while (err == -EINTR);
    return err;
}

static int ask(heist_file *f, int what, int64_t number, struct stat *st) {
    if (!f) return -EINVAL;
    int err = enter(f);
    if (err) return err;
    struct question q = {f->fd, what, number, st};
    if (what == TRUNCATE || !heist__ring_here()) err = heist__offload(ask_job, &q); /* no such operation before 6.9 */
    else if (what == STAT) err = heist__ring_stat(f->fd, "", AT_EMPTY_PATH, st);
    else err = heist__ring_sync(f->fd, what == DATASYNC);
    leave(f);
    return err;
}

int heist_file_sync(heist_file *f) { return ask(f, SYNC, 0, NULL); }
int heist_file_datasync(heist_file *f) { return ask(f, DATASYNC, 0, NULL); }
int heist_file_truncate(heist_file *f, int64_t size) { return size < 0 ? -EINVAL : ask(f, TRUNCATE, size, NULL); }

int heist_file_stat(heist_file *f, struct stat *out) {
    struct stat st;
    int err = out ? ask(f, STAT, 0, &st) : -EINVAL;
    if (!err) *out = st;
    return err;
}
