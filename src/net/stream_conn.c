/* The transport over a connection: sockets, pipes, terminals.
 *
 * The stream counts who is inside; for the connection that is one call, open from the stream's birth to ops.free, which
 * keeps it whole after ops.close has closed its registration and woken who waits. */
#include <string.h>

#include "base/fork.h"
#include "base/sys.h"
#include "io/fd.h"
#include "net/conn.h"
#include "net/stream.h"

static ptrdiff_t conn_read(void *self, void *buf, size_t size, double deadline) {
    return heist__conn_read_some(self, buf, size, heist__ns_from_seconds(deadline));
}

static ptrdiff_t conn_writev(void *self, const struct iovec *iov, int count, double deadline) {
    return heist__conn_write_some(self, iov, count, heist__ns_from_seconds(deadline));
}

/* No look at the registration: a readiness that was seen and is used up here makes the next wait try once more. */
static ptrdiff_t conn_try_writev(void *self, const struct iovec *iov, int count) {
    return heist__conn_try_write(self, iov, count);
}

static int conn_write_eof(void *self) { return heist__sys_shutdown(((heist_conn *)self)->fd, SHUT_WR); }

static void conn_close(void *self) { heist_conn_close(self); }

static void conn_free(void *self) { heist__reg_leave(((heist_conn *)self)->reg); }

static int conn_info(void *self, int key, void *out, size_t size) {
    heist_conn *c = self;
    heist_addr addr;
    int err;
    switch (key) {
        case HEIST_INFO_SOCKET:
            if (size != sizeof(c->fd)) return -EINVAL;
            memcpy(out, &c->fd, size);
            return 0;
        case HEIST_INFO_PEERNAME:
        case HEIST_INFO_SOCKNAME:
            if (!c->is_socket) return -ENOENT;
            if (size != sizeof(addr)) return -EINVAL;
            err = key == HEIST_INFO_PEERNAME ? heist_conn_peer(c, &addr) : heist_conn_addr(c, &addr);
            if (!err) memcpy(out, &addr, size);
            return err;
        default: return -ENOENT;
    }
}

static ptrdiff_t conn_sendfile(void *self, int fd, off_t offset, size_t count, double deadline) {
    ptrdiff_t n = heist__conn_sendfile_some(self, fd, offset, count, heist__ns_from_seconds(deadline));
    /* The file, or the socket, is not of a kind that the call knows. */
    return n == -EINVAL || n == -ENOSYS || n == -ESPIPE || n == -EOVERFLOW ? -ENOTSUP : n;
}

static void conn_interrupt(void *self, int writer) {
    heist__reg_interrupt(((heist_conn *)self)->reg, writer ? HEIST__REG_WRITE : HEIST__REG_READ);
}

int heist_stream_from_conn(heist_conn *c, const heist_stream_options *opts, heist_stream **out) {
    if (!c || !out) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist_stream_ops ops = HEIST_STREAM_OPS_INIT;
    ops.read = conn_read;
    ops.writev = conn_writev;
    ops.try_writev = conn_try_writev;
    ops.close = conn_close;
    ops.free = conn_free;
    ops.info = conn_info;
    ops.interrupt = conn_interrupt;
    if (c->is_socket) {
        ops.try_write_eof = conn_write_eof;
        ops.sendfile = conn_sendfile;
    }
    int err = heist__reg_enter(c->reg);
    if (err) return err;
    err = heist_stream_new(&ops, c, opts, out);
    if (err) heist__reg_leave(c->reg);
    else c->feeds = c->is_socket && c->is_stream && heist__conn_feeds();
    return err;
}
