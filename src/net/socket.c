/* Calls on a socket of the user's: try, and wait when there is nothing to do yet.  See heist/socket.h and loop/fds.h.
 *
 * The first try comes before anybody is told of anything but the table of descriptors; MSG_DONTWAIT makes it a try on
 * a blocking socket too. */
#include <heist/socket.h>

#include <errno.h>
#include <heist/error.h>
#include <heist/resolve.h>
#include <string.h>

#include "base/fork.h"
#include "base/macros.h"
#include "base/sys.h"
#include "io/fd.h"
#include "loop/fds.h"
#include "net/conn.h"

#define READ (1u << HEIST__REG_READ)
#define WRITE (1u << HEIST__REG_WRITE)

static int begin(struct heist__call *c, int fd, double deadline) {
    int err = heist__call_begin(c, fd, deadline);
    if (err) return err;
    err = heist__call_check(c);
    if (err) heist__call_end(c);
    return err;
}

/* Repeats what a try said: 1 when it is to be made again, 0 when it ended with *n, or the code of the wait in *n. */
static bool again(struct heist__call *c, unsigned direction, const struct sockaddr *to, ptrdiff_t *n) {
    if (heist_likely(*n >= 0)) return false;
    if (*n == -EINTR) return true;
    if (*n != -EAGAIN) return false;
    *n = direction == READ ? heist__call_wait(c, READ) : heist__call_wait_room(c, to);
    return *n == 0;
}

/* ---- receiving ---- */

ptrdiff_t heist_sock_recv(int fd, void *buf, size_t size, int flags, double deadline) {
    if (!buf && size) return -EINVAL;
    struct heist__call c;
    ptrdiff_t n = begin(&c, fd, deadline);
    if (n) return n;
    do n = heist__sys_recv(fd, buf, size, flags | MSG_DONTWAIT);
    while (again(&c, READ, NULL, &n));
    heist__call_end(&c);
    return n;
}

ptrdiff_t heist_sock_recvfrom(int fd, void *buf, size_t size, int flags, double deadline, heist_addr *from) {
    if (!buf && size) return -EINVAL;
    struct heist__call c;
    ptrdiff_t n = begin(&c, fd, deadline);
    if (n) return n;
    heist_addr addr;
    do {
        addr.length = sizeof(addr.storage);
        addr.storage.ss_family = AF_UNSPEC; /* a nameless sender's, and of a stream */
        n = heist__sys_recvfrom(fd, buf, size, flags | MSG_DONTWAIT, (struct sockaddr *)&addr.storage, &addr.length);
    } while (again(&c, READ, NULL, &n));
    heist__call_end(&c);
    if (n >= 0 && from) *from = addr;
    return n;
}

ptrdiff_t heist_sock_recvmsg(int fd, struct msghdr *msg, int flags, double deadline) {
    if (!msg) return -EINVAL;
    struct heist__call c;
    ptrdiff_t n = begin(&c, fd, deadline);
    if (n) return n;
    do n = heist__sys_recvmsg(fd, msg, flags | MSG_DONTWAIT);
    while (again(&c, READ, NULL, &n));
    heist__call_end(&c);
    return n;
}

/* ---- sending ---- */

ptrdiff_t heist_sock_send(int fd, const void *buf, size_t size, int flags, double deadline) {
    return heist_sock_sendto(fd, buf, size, flags, NULL, deadline);
}

int heist_sock_sendall(int fd, const void *buf, size_t size, int flags, double deadline, size_t *sent) {
    if (!buf && size) return -EINVAL;
    struct heist__call c;
    size_t done = 0;
    int err = begin(&c, fd, deadline);
    if (!err) {
        while (!err && done < size) {
            ptrdiff_t n = heist__sys_send(fd, (const char *)buf + done, size - done, flags | MSG_DONTWAIT);
            if (n >= 0) done += (size_t)n;
            else if (!again(&c, WRITE, NULL, &n)) err = (int)n;
        }
        heist__call_end(&c);
    }
    if (sent) *sent = done;
    return err;
}

ptrdiff_t heist_sock_sendto(int fd, const void *buf, size_t size, int flags, const heist_addr *to, double deadline) {
    if (!buf && size) return -EINVAL;
    const struct sockaddr *name = to ? (const struct sockaddr *)&to->storage : NULL;
    struct heist__call c;
    ptrdiff_t n = begin(&c, fd, deadline);
    if (n) return n;
    do n = heist__sys_sendto(fd, buf, size, flags | MSG_DONTWAIT, name, to ? to->length : 0);
    while (again(&c, WRITE, name, &n));
    heist__call_end(&c);
    return n;
}

ptrdiff_t heist_sock_sendmsg(int fd, const struct msghdr *msg, int flags, double deadline) {
    if (!msg) return -EINVAL;
    struct heist__call c;
    ptrdiff_t n = begin(&c, fd, deadline);
    if (n) return n;
    do n = heist__sys_sendmsg(fd, msg, flags | MSG_DONTWAIT);
    while (again(&c, WRITE, msg->msg_name, &n));
    heist__call_end(&c);
    return n;
}

/* ---- connections ---- */

int heist_sock_accept(int fd, double deadline, int *out, heist_addr *peer) {
    if (!out) return -EINVAL;
    struct heist__call c;
    ptrdiff_t n = begin(&c, fd, deadline);
    if (n) return (int)n;
    heist_addr addr;
    do {
        do {
            addr.length = sizeof(addr.storage);
            addr.storage.ss_family = AF_UNSPEC;
            n = heist__sys_accept(fd, (struct sockaddr *)&addr.storage, &addr.length);
        } while (n < 0 && heist__accept_passes(fd, (int)-n));
    } while (again(&c, READ, NULL, &n));
    heist__call_end(&c);
    if (n < 0) return (int)n;
    *out = (int)n;
    if (peer) *peer = addr;
    return 0;
}

/* 0 connected, 1 under way, or a code. */
static int start_connect(struct heist__call *c, const heist_addr *addr) {
    for (;;) {
        int err = heist__sys_connect(c->fd, (const struct sockaddr *)&addr->storage, addr->length);
        if (!err) return 0;
        if (err == -EINPROGRESS || err == -EALREADY || err == -EINTR) return 1;
        if (err != -EAGAIN || addr->storage.ss_family != AF_UNIX) return err;
        err = heist__fd_pause(c->until); /* a Unix listener's backlog is full, and no event tells when it is not */
        if (err) return err;
    }
}

static int finish_connect(struct heist__call *c) {
    int error = 0;
    socklen_t size = sizeof(error);
    for (;;) { /* an event can be older than the connect */
        int err = heist__call_wait(c, WRITE);
        if (err) return err;
        err = heist__sys_look(c->fd, POLLOUT);
        if (err < 0) return err;
        if (err) break;
    }
    int err = heist__sys_getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return err ? err : -error;
}

int heist_sock_connect(int fd, const heist_addr *addr, double deadline) {
    if (!addr) return -EINVAL;
    struct heist__call c;
    int err = begin(&c, fd, deadline);
    if (err) return err;
    err = start_connect(&c, addr);
    if (err == 1) err = finish_connect(&c);
    heist__call_end(&c);
    return err;
}

static int get_option(int fd, int name, int *out) {
    socklen_t size = sizeof(*out);
    return heist__sys_getsockopt(fd, SOL_SOCKET, name, out, &size);
}

int heist_sock_connect_host(int fd, const char *host, const char *service, double deadline) {
    heist_addrinfo_hints hints = HEIST_ADDRINFO_HINTS_INIT;
    heist_addrinfo_list *list = NULL;
    int64_t until;
    if (!host || heist__fd_deadline(deadline, &until)) return -EINVAL;
    int err = heist__fd_entry();
    if (err) return err;
    err = get_option(fd, SO_DOMAIN, &hints.family);
    if (!err) err = get_option(fd, SO_TYPE, &hints.socktype);
    if (!err) err = get_option(fd, SO_PROTOCOL, &hints.protocol);
    if (!err) err = heist_getaddrinfo(host, service, &hints, deadline, &list);
    if (!err) {
        err = heist_sock_connect(fd, &list->at[0].addr, deadline);
        heist_freeaddrinfo(list);
    }
    heist__fd_skipped();
    return err;
}

int heist_sock_close(int fd) {
    if (fd < 0) return -EBADF;
    if (heist__forked()) return HEIST_EFORKED; /* the table may be the parent's in the middle of a change */
    return heist__guest_close(fd);
}

/* ---- descriptors ---- */

union control {
    struct cmsghdr header; /* for its alignment */
    char room[CMSG_SPACE(HEIST_SOCK_FDS_MAX * sizeof(int))];
};

ptrdiff_t heist_sock_send_fds(int fd, const void *buf, size_t size, const int *fds, size_t count, double deadline) {
    if (!buf || !size || (!fds && count) || count > HEIST_SOCK_FDS_MAX) return -EINVAL;
    union control control;
    struct iovec data = {(void *)(uintptr_t)buf, size};
    struct msghdr msg = {.msg_iov = &data, .msg_iovlen = 1};
    if (count) {
        memset(&control, 0, sizeof(control));
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *h = CMSG_FIRSTHDR(&msg);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(h), fds, count * sizeof(int));
    }
    return heist_sock_sendmsg(fd, &msg, 0, deadline);
}

/* Keeps as many as there is room for, and closes the others: how many were kept. */
static size_t take_fds(struct msghdr *msg, int *fds, size_t room) {
    size_t kept = 0;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(msg); h; h = CMSG_NXTHDR(msg, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
        size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int one;
            memcpy(&one, CMSG_DATA(h) + i * sizeof(int), sizeof(one));
            if (kept < room) {
                fds[kept++] = one;
            } else { /* the room is rounded up, so one more may come than was asked for */
                heist__sys_close(one);
                msg->msg_flags |= MSG_CTRUNC;
            }
        }
    }
    return kept;
}

ptrdiff_t heist_sock_recv_fds(int fd, void *buf, size_t size, double deadline, int *fds, size_t *count, int *flags) {
    if (!buf || !size || !count || (!fds && *count)) return -EINVAL;
    size_t room = *count < HEIST_SOCK_FDS_MAX ? *count : HEIST_SOCK_FDS_MAX;
    union control control;
    memset(&control, 0, sizeof(control)); /* what the kernel does not write is no message */
    struct iovec data = {buf, size};
    struct msghdr msg = {.msg_iov = &data, .msg_iovlen = 1};
    msg.msg_control = room ? &control : NULL;
    msg.msg_controllen = room ? CMSG_SPACE(room * sizeof(int)) : 0;
    ptrdiff_t n = heist_sock_recvmsg(fd, &msg, 0, deadline);
    if (n < 0) return n;
    *count = room ? take_fds(&msg, fds, room) : 0;
    if (flags) *flags = msg.msg_flags & (MSG_CTRUNC | MSG_TRUNC);
    return n;
}
