/* sendfile over a stream.
 *
 * Waits for the pen, so that everything queued goes first, and keeps it to the end: what others write meanwhile goes
 * behind the file.  By the system call as long as the transport can; else a block at a time is read on the default
 * executor and sent by the same writer's calls, so that both ways give the same bytes and the same count. */
#include <heist/executor.h>
#include <heist/stream.h>
#include <heist/task.h>
#include <math.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/sys.h"
#include "io/fd.h"
#include "net/stream.h"

/* One call's worth: others of this worker are served between two. */
enum { BLOCK = 65536, PART = 1 << 20 };

struct sending {
    heist_stream *s;
    int fd;
    off_t offset;
    size_t left, sent;
    char *block;    /* of the fallback */
    size_t to_read; /* into it */
    bool copies;
};

static bool pen_taken(heist_stream *s) { return s->state == HEIST__STREAM_OPEN && !s->error && s->pen; }

/* 0 with the pen, or a code. */
static int take_pen(heist_stream *s) {
    for (;;) {
        heist__spin_lock(&s->lock);
        int err = s->error                         ? s->error
                  : s->state != HEIST__STREAM_OPEN ? HEIST_ECLOSED
                  : s->eof_wanted                  ? HEIST_EINVALSTATE
                                                   : 0;
        bool waits = s->pen;
        if (!err) s->pen = true;
        double deadline = s->write_deadline;
        heist__spin_unlock(&s->lock);
        if (err || !waits) return err;
        err = heist__stream_wait(s, &s->penless, pen_taken, deadline);
        if (err == HEIST__STREAM_HANDED) return 0;
        if (err && err != -EINTR) return err;
    }
}

static int read_block(void *arg, void **out) {
    struct sending *f = arg;
    (void)out;
    ssize_t n;
    do n = heist__sys_pread(f->fd, f->block, f->to_read, f->offset);
    while (n == -EINTR);
    f->to_read = n > 0 ? (size_t)n : 0;
    return n < 0 ? (int)n : 0;
}

/* 1: some went; 0: the end of the file; or a code. */
static int send_copied(struct sending *f, double deadline) {
    heist_stream *s = f->s;
    if (!f->block && !(f->block = heist__alloc(BLOCK))) return -ENOMEM;
    f->to_read = f->left < BLOCK ? f->left : BLOCK;
    int err = heist_to_thread(read_block, f, NULL);
    if (err || !f->to_read) return err;
    struct iovec iov = {f->block, f->to_read};
    while (iov.iov_len) {
        ptrdiff_t n = s->ops.writev(s->self, &iov, 1, deadline);
        if (n < 0) return (int)n;
        iov.iov_base = (char *)iov.iov_base + n;
        iov.iov_len -= (size_t)n;
        f->sent += (size_t)n;
        f->left -= (size_t)n;
        f->offset += n;
        heist__fd_skipped(); /* a peer that takes everything at once makes nobody wait */
        if (f->left && (err = heist__fd_entry()) != 0) return err;
    }
    return 1;
}

static int send_part(struct sending *f, double deadline) {
    heist_stream *s = f->s;
    if (!f->copies) {
        ptrdiff_t n = s->ops.sendfile
                          ? s->ops.sendfile(s->self, f->fd, f->offset, f->left < PART ? f->left : PART, deadline)
                          : -ENOTSUP;
        if (n > 0) {
            f->sent += (size_t)n;
            f->left -= (size_t)n;
            f->offset += n;
            return 1;
        }
        if (n != -ENOTSUP) return (int)n;
        f->copies = true;
    }
    return send_copied(f, deadline);
}

/* With the pen. */
static int send_all(struct sending *f) {
    heist_stream *s = f->s;
    while (f->left) {
        heist__spin_lock(&s->lock);
        bool open = s->state == HEIST__STREAM_OPEN, ended = s->eof_done;
        double deadline = s->write_deadline;
        heist__spin_unlock(&s->lock);
        if (!open) return HEIST_ECLOSED;
        if (ended) return HEIST_EINVALSTATE; /* while we waited for the pen */
        int err = send_part(f, deadline);
        if (!err) return 0; /* the end of the file */
        if (err < 0 && err != -EINTR) return err;
        if (f->left && (err = heist_yield()) != 0) return err;
    }
    return 0;
}

/* What has broken the connection, and not the call or the file. */
static bool is_broken(int err) {
    return err == -EPIPE || err == -ECONNRESET || err == -ENOTCONN || err == -ECONNABORTED || err == -EHOSTUNREACH ||
           err == -ENETUNREACH || err == -ENETDOWN;
}

int heist_stream_sendfile(heist_stream *s, int fd, off_t offset, size_t count, size_t *sent) {
    if (sent) *sent = 0;
    if (!s || fd < 0 || offset < -1 || count > PTRDIFF_MAX) return -EINVAL;
    int err = heist__fd_entry();
    if (err) return err;
    struct sending f = {.s = s, .fd = fd, .offset = offset, .left = count ? count : PTRDIFF_MAX};
    off_t at = heist__sys_lseek(fd, offset < 0 ? 0 : offset, offset < 0 ? SEEK_CUR : SEEK_SET);
    if (at < 0) err = (int)at;
    f.offset = at;
    if (!err) err = take_pen(s);
    if (!err) {
        err = send_all(&f);
        if (is_broken(err)) heist__stream_fail(s, err);
        (void)heist__stream_go_on(s, false, 1);
    }
    if (at >= 0) {
        off_t end = heist__sys_lseek(fd, f.offset, SEEK_SET);
        if (!err && end < 0) err = (int)end;
    }
    heist__free(f.block);
    heist__fd_skipped();
    if (sent) *sent = f.sent;
    return err;
}
