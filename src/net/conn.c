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

#include "base/alloc.h"
#include "base/fork.h"
#include "base/sys.h"
#include "io/fd.h"
#include "loop/clock.h"

int heist__conn_new(int fd, heist_conn **out) {
    heist_conn *c = heist__zalloc(sizeof(*c));
    if (!c) return -ENOMEM;
    c->fd = fd;
    c->is_socket = c->is_stream = true;
    c->reg = heist__reg_new(fd, c, heist__fd_dispose);
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

int heist_conn_open(int fd, heist_conn **out) {
    if (!out) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct stat st;
    if (fstat(fd, &st)) return -errno;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK)) return -errno;
    int err = heist__conn_new(fd, out);
    if (err) {
        fcntl(fd, F_SETFL, flags);
        return err;
    }
    int type = 0;
    socklen_t length = sizeof(type);
    (*out)->is_socket = S_ISSOCK(st.st_mode);
    (*out)->is_stream = S_ISFIFO(st.st_mode) ||
                        (S_ISSOCK(st.st_mode) && !heist__sys_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) && type == SOCK_STREAM);
    return 0;
}

void heist_conn_close(heist_conn *c) {
    if (c && !heist__forked()) heist__reg_close(c->reg); /* a child's copy is the parent's */
}

static ptrdiff_t read_some(heist_conn *c, void *buf, size_t size, int64_t until) {
    bool drained = c->drained;
    for (;;) {
        int err = heist__reg_begin(c->reg, HEIST__REG_READ, drained);
        if (err < 0) return err;
        if (err) {
            ssize_t n = c->is_socket ? heist__sys_recv(c->fd, buf, size, 0) : heist__sys_read(c->fd, buf, size);
            if (n >= 0) {
                c->drained = c->is_stream && n > 0 && (size_t)n < size; /* a short read of a stream: nothing is left */
                return n;
            }
            if (n == -EINTR) continue;
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
        n = read_some(c, buf, size, until);
        heist__reg_leave(r);
    }
    heist__fd_skipped(); /* after a failure too: who tries again for ever must give way */
    return n;
}

/* A pipe raises SIGPIPE where a socket can be told not to: it is held back, and taken if it came. */
static ssize_t write_pipe(int fd, const void *buf, size_t size) {
    sigset_t pipe, before, pending;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    sigpending(&pending);
    int err = pthread_sigmask(SIG_BLOCK, &pipe, &before);
    if (err) return -err;
    ssize_t n = heist__sys_write(fd, buf, size);
    if (n == -EPIPE && !sigismember(&pending, SIGPIPE)) {
        const struct timespec now = {0, 0};
        while (sigtimedwait(&pipe, NULL, &now) < 0 && errno == EINTR) {}
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return n;
}

static int write_all(heist_conn *c, const char *buf, size_t size, int64_t until, size_t *done) {
    while (*done < size) {
        int err = heist__reg_begin(c->reg, HEIST__REG_WRITE, false);
        if (err < 0) return err;
        ssize_t n = c->is_socket ? heist__sys_send(c->fd, buf + *done, size - *done, MSG_NOSIGNAL)
                                 : write_pipe(c->fd, buf + *done, size - *done);
        err = 0;
        if (n >= 0)
            *done += (size_t)n;
        else if (n == -EAGAIN)
            err = heist__fd_wait(c->reg, HEIST__REG_WRITE, until);
        else if (n != -EINTR)
            err = (int)n;
        if (err) return err;
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
