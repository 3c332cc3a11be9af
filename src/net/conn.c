/* Connections: read and write with deadlines.  See heist/net.h and loop/reg.h. */
#include "net/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <heist/error.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/sys.h"
#include "io/fd.h"
#include "loop/clock.h"
#include "loop/fds.h"
#include "loop/loop.h"

static void dispose(void *owner, int fd) {
    struct heist__feed *f = a_load_acq(&((heist_conn *)owner)->feed); /* acq: pairs with who made it */
    if (f) heist__feed_end(f);
    heist__fd_dispose(owner, fd);
}

int heist__conn_new(int fd, bool is_tcp, heist_conn **out) {
    heist_conn *c = heist__zalloc(sizeof(*c));
    if (!c) return -ENOMEM;
    c->fd = fd;
    c->is_socket = c->is_stream = true;
    c->is_plain = is_tcp;
    c->reg = heist__reg_new(fd, c, dispose);
    if (!c->reg) {
        heist__free(c);
        return -ENOMEM;
    }
    *out = c;
    return 0;
}

void heist__conn_adopt(heist_conn *c, int fd) {
    c->fd = fd;
    heist__reg_adopt(c->reg, fd);
    /* One that is accepted will be waited for: by the loop that accepted it, so that its listener decides who polls,
     * and not who happened to have stolen the task that waits first. */
    heist__fd_settle(c->reg);
}

static int socket_option(int fd, int name) {
    int value = 0;
    socklen_t length = sizeof(value);
    return heist__sys_getsockopt(fd, SOL_SOCKET, name, &value, &length) ? -1 : value;
}

static void find_kind(heist_conn *c, mode_t mode, int flags) {
    c->is_socket = S_ISSOCK(mode);
    c->is_terminal = S_ISCHR(mode) && isatty(c->fd);
    if (c->is_socket) {
        c->is_stream = socket_option(c->fd, SO_TYPE) == SOCK_STREAM;
        c->is_plain = c->is_stream && socket_option(c->fd, SO_PROTOCOL) == IPPROTO_TCP;
    } else {
        c->is_stream = S_ISFIFO(mode);
        c->is_plain = c->is_stream && !(flags & O_DIRECT); /* which has packets */
    }
}

int heist_conn_open(int fd, heist_conn **out) {
    if (!out) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct stat st;
    if (fstat(fd, &st)) return -errno;
    if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISBLK(st.st_mode)) return -EPERM; /* what epoll would say */
    if (heist__fds_owned(fd, true)) return -EBUSY;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK)) return -errno;
    int err = heist__conn_new(fd, false, out);
    if (err) {
        fcntl(fd, F_SETFL, flags);
        return err;
    }
    find_kind(*out, st.st_mode, flags);
    return 0;
}

void heist_conn_close(heist_conn *c) {
    if (c && !heist__forked()) heist__reg_close(c->reg); /* a child's copy is the parent's */
}

bool heist__conn_feeds(void) {
    heist_loop *loop = heist__self()->loop;
    return loop && heist__feed_wanted(loop->home, HEIST__FEED_RECV);
}

/* What the feed brought; else by ourselves (feed.h).  -EAGAIN: wait for an event, for which the feed may have to be
 * armed. */
static ptrdiff_t take(heist_conn *c, void *buf, size_t size) {
    struct heist__feed *f = a_load_acq(&c->feed); /* acq: pairs with who made it */
    if (f) {
        ptrdiff_t n = heist__feed_recv(f, buf, size, c->is_plain);
        if (n != HEIST__FEED_ENDED) return n;
    }
    ptrdiff_t n = heist__sys_recv(c->fd, buf, size, 0);
    if (n == -EAGAIN && c->feeds) heist__fd_feed(c->reg, HEIST__FEED_RECV, &c->feed, &c->feeds);
    return n;
}

static HEIST_NOINLINE ptrdiff_t read_fed(heist_conn *c, void *buf, size_t size, int64_t until) {
    for (;;) {
        int err = heist__reg_begin(c->reg, HEIST__REG_READ, false);
        if (err < 0) return err;
        ptrdiff_t n = take(c, buf, size);
        if (n == -EINTR) continue;
        if (n != -EAGAIN) return n;
        err = heist__fd_wait(c->reg, HEIST__REG_READ, until);
        if (err) return err;
    }
}

ptrdiff_t heist__conn_read_some(heist_conn *c, void *buf, size_t size, int64_t until) {
    bool drained = c->drained;
    if (heist_unlikely(c->feeds)) return read_fed(c, buf, size, until);
    for (;;) {
        int err = heist__reg_begin(c->reg, HEIST__REG_READ, drained);
        if (err < 0) return err;
        if (err) {
            ssize_t n = c->is_socket ? heist__sys_recv(c->fd, buf, size, 0) : heist__sys_read(c->fd, buf, size);
            if (n >= 0) {
                c->drained = c->is_plain && n > 0 && (size_t)n < size;
                return n;
            }
            if (n == -EINTR) continue;
            if (n == -EIO && c->is_terminal) return 0; /* the master of one whose slaves are closed */
            if (n != -EAGAIN) return n;
        }
        err = heist__fd_wait(c->reg, HEIST__REG_READ, until);
        if (err) return err;
        drained = false;
    }
}

ptrdiff_t heist_conn_read(heist_conn *c, void *buf, size_t size, double deadline) {
    int64_t until;
    if (!c || !buf || !size || heist__fd_deadline(deadline, &until)) return -EINVAL;
    int err = heist__fd_entry();
    if (err) return err;
    struct heist__reg *r = c->reg;
    ptrdiff_t n = heist__reg_enter(r);
    if (!n) {
        n = heist__conn_read_some(c, buf, size, until);
        heist__reg_leave(r);
    }
    heist__fd_skipped(); /* after a failure too: who tries again for ever must give way */
    return n;
}

/* A pipe, and sendfile, raise SIGPIPE where a send can be told not to: it is held back, and taken if it came. */
struct held_sigpipe {
    sigset_t before;
    bool pending;
};

static int hold_sigpipe(struct held_sigpipe *h) {
    sigset_t pipe, pending;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    sigpending(&pending);
    h->pending = sigismember(&pending, SIGPIPE);
    return -pthread_sigmask(SIG_BLOCK, &pipe, &h->before);
}

static void release_sigpipe(struct held_sigpipe *h, ssize_t result) {
    if (result == -EPIPE && !h->pending) {
        const struct timespec now = {0, 0};
        sigset_t pipe;
        sigemptyset(&pipe);
        sigaddset(&pipe, SIGPIPE);
        while (sigtimedwait(&pipe, NULL, &now) < 0 && errno == EINTR) {}
    }
    pthread_sigmask(SIG_SETMASK, &h->before, NULL);
}

static ssize_t write_pipe(int fd, const struct iovec *iov, int count) {
    struct held_sigpipe held;
    int err = hold_sigpipe(&held);
    if (err) return err;
    ssize_t n = heist__sys_writev(fd, iov, count);
    release_sigpipe(&held, n);
    return n;
}

ptrdiff_t heist__conn_sendfile_some(heist_conn *c, int fd, off_t offset, size_t count, int64_t until) {
    for (;;) {
        int err = heist__reg_begin(c->reg, HEIST__REG_WRITE, false);
        if (err < 0) return err;
        off_t at = offset;
        struct held_sigpipe held;
        err = hold_sigpipe(&held);
        if (err) return err;
        ssize_t n = heist__sys_sendfile(c->fd, fd, &at, count);
        release_sigpipe(&held, n);
        if (n == -EINTR) continue;
        if (n != -EAGAIN) return n;
        err = heist__fd_wait(c->reg, HEIST__REG_WRITE, until);
        if (err) return err;
    }
}

ptrdiff_t heist__conn_try_write(heist_conn *c, const struct iovec *iov, int count) {
    if (!c->is_socket) return write_pipe(c->fd, iov, count);
    if (count == 1) return heist__sys_send(c->fd, iov->iov_base, iov->iov_len, 0);
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
    return heist__sys_sendmsg(c->fd, &message, 0);
}

ptrdiff_t heist__conn_write_some(heist_conn *c, const struct iovec *iov, int count, int64_t until) {
    for (;;) {
        int err = heist__reg_begin(c->reg, HEIST__REG_WRITE, false);
        if (err < 0) return err;
        ptrdiff_t n = heist__conn_try_write(c, iov, count);
        if (n == -EINTR) continue;
        if (n != -EAGAIN) return n;
        err = heist__fd_wait(c->reg, HEIST__REG_WRITE, until);
        if (err) return err;
    }
}

static int write_all(heist_conn *c, const char *buf, size_t size, int64_t until, size_t *done) {
    while (*done < size) {
        struct iovec rest = {(void *)(uintptr_t)(buf + *done), size - *done};
        ptrdiff_t n = heist__conn_write_some(c, &rest, 1, until);
        if (n < 0) return (int)n;
        *done += (size_t)n;
    }
    return 0;
}

int heist_conn_write(heist_conn *c, const void *buf, size_t size, double deadline, size_t *written) {
    int64_t until;
    if (!c || (!buf && size) || heist__fd_deadline(deadline, &until)) return -EINVAL;
    size_t done = 0;
    int err = heist__fd_entry();
    if (!err) {
        struct heist__reg *r = c->reg;
        err = heist__reg_enter(r);
        if (!err) {
            err = write_all(c, buf, size, until, &done);
            heist__reg_leave(r);
        }
        heist__fd_skipped();
    }
    if (written) *written = done;
    return err;
}

int heist_conn_shutdown(heist_conn *c) {
    if (!c) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED; /* it would end the parent's stream */
    return heist__sys_shutdown(c->fd, SHUT_WR);
}

int heist_conn_fd(const heist_conn *c) { return c ? c->fd : -EINVAL; }

static int name_of(int fd, int (*get)(int, struct sockaddr *, socklen_t *), heist_addr *out) {
    heist_addr addr = {.length = sizeof(addr.storage)};
    if (get(fd, (struct sockaddr *)&addr.storage, &addr.length)) return -errno;
    *out = addr;
    return 0;
}

int heist_conn_peer(heist_conn *c, heist_addr *out) { return c && out ? name_of(c->fd, getpeername, out) : -EINVAL; }
int heist_conn_addr(heist_conn *c, heist_addr *out) { return c && out ? name_of(c->fd, getsockname, out) : -EINVAL; }
int heist__socket_addr(int fd, heist_addr *out) { return name_of(fd, getsockname, out); }

int heist_conn_set_nodelay(heist_conn *c, int on) {
    if (!c) return -EINVAL;
    int value = on != 0;
    return heist__sys_setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof(value));
}
