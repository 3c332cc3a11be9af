/* Listening, accepting, connecting. */
#include <errno.h>
#include <heist/error.h>
#include <heist/net.h>
#include <heist/task.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/macros.h"
#include "base/options.h"
#include "base/sys.h"
#include "conc/self.h"
#include "io/fd.h"
#include "loop/fds.h"
#include "net/conn.h"
#include "net/listener.h"

struct heist_listener {
    struct heist__reg *reg;
    int fd;
    bool is_tcp;
    bool taken; /* the socket was somebody's, who may have it in other processes too */
    bool given; /* the descriptor goes back to him */
    int flags;  /* of one that was taken, as they were */
    bool feeds; /* by a feed, where the loop has such: not of one that was taken, for other processes may accept there */
    _Atomic(struct heist__feed *) feed; /* NULL: not yet; set once, by who accepts */
};

#define DEFAULT_BACKLOG 4096
#define UNIX_RETRY_SECONDS 0.001
#define SELF_TRIES 3

static int open_socket(int family) { return heist__sys_socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); }

static int set_option(int fd, int level, int name, int value) {
    return heist__sys_setsockopt(fd, level, name, &value, sizeof(value));
}

static int set_up_and_bind(int fd, const heist_addr *addr, unsigned flags) {
    int family = addr->storage.ss_family, err = 0;
    if (family != AF_UNIX) {
        err = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
        if (!err && (flags & HEIST_LISTEN_REUSEPORT)) err = set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
        /* What is accepted inherits it.  A failure costs delay, not truth. */
        (void)set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        if (!err && (flags & HEIST_LISTEN_KEEPALIVE)) err = set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    }
    if (!err && family == AF_INET6)
        err = set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, (flags & HEIST_LISTEN_V6ONLY) != 0);
    if (err) return err;
    return heist__sys_bind(fd, (const struct sockaddr *)&addr->storage, addr->length);
}

/* A ring that polled it may keep the file for a moment: nobody shall be let in then. */
static void dispose(void *owner, int fd) {
    heist_listener *l = owner;
    if (!l->taken) (void)heist__sys_shutdown(fd, SHUT_RD);
    struct heist__feed *f = a_load_acq(&l->feed); /* acq: pairs with who made it */
    if (f) heist__feed_end(f);
    if (!l->given) heist__sys_close(fd);
    heist__free(l);
}

int heist__listener_bind(const heist_addr *addr, unsigned flags, heist_listener **out) {
    heist_listener *l = heist__zalloc(sizeof(*l));
    if (!l) return -ENOMEM;
    l->is_tcp = addr->storage.ss_family != AF_UNIX;
    l->feeds = true;
    int err = open_socket(addr->storage.ss_family);
    if (err >= 0) {
        l->fd = err;
        err = set_up_and_bind(l->fd, addr, flags);
        if (!err && !(l->reg = heist__reg_new(l->fd, l, dispose))) err = -ENOMEM;
        if (err) heist__sys_close(l->fd);
    }
    if (err) {
        heist__free(l);
        return err;
    }
    *out = l;
    return 0;
}

int heist__listener_take(int fd, heist_listener **out) {
    int type = 0, family = 0;
    socklen_t size = sizeof(type);
    if (fd < 0) return -EBADF;
    int err = heist__sys_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size);
    if (!err) err = heist__sys_getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size);
    if (err) return err;
    if (type != SOCK_STREAM) return -EPROTOTYPE;
    if (heist__fds_owned(fd, true)) return -EBUSY;
    heist_listener *l = heist__zalloc(sizeof(*l));
    if (!l) return -ENOMEM;
    l->fd = fd;
    l->is_tcp = family != AF_UNIX;
    l->taken = true;
    l->flags = heist__sys_flags(fd);
    err = l->flags < 0 ? l->flags : heist__sys_set_flags(fd, l->flags | O_NONBLOCK);
    if (!err && !(l->reg = heist__reg_new(fd, l, dispose))) {
        (void)heist__sys_set_flags(fd, l->flags);
        err = -ENOMEM;
    }
    if (err) {
        heist__free(l);
        return err;
    }
    if (l->is_tcp) (void)set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    *out = l;
    return 0;
}

void heist__listener_give_back(heist_listener *l) {
    if (heist__forked()) return;
    (void)heist__sys_set_flags(l->fd, l->flags);
    l->given = true;
    heist_listener_close(l);
}

int heist__listener_begin(heist_listener *l, int backlog) {
    return heist__sys_listen(l->fd, backlog ? backlog : DEFAULT_BACKLOG);
}

int heist__listener_hold(heist_listener *l) { return heist__reg_enter(l->reg); }
void heist__listener_leave(heist_listener *l) { heist__reg_leave(l->reg); }

void heist__listener_stop(heist_listener *l) {
    if (heist__forked()) return;
    if (!l->taken) (void)heist__sys_shutdown(l->fd, SHUT_RD); /* it would end all that stand for the socket */
    heist_listener_close(l);
}

int heist_listen(const heist_addr *addr, const heist_listen_options *opts, heist_listener **out) {
    unsigned flags = opts ? opts->flags : 0;
    if (!addr || !out || !heist__options_ok(opts, sizeof(*opts)) ||
        (flags & ~(HEIST_LISTEN_REUSEPORT | HEIST_LISTEN_V6ONLY | HEIST_LISTEN_KEEPALIVE)) ||
        (opts && opts->backlog < 0))
        return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (!heist__self()->worker) return HEIST_ENOLOOP;
    heist_listener *l;
    int err = heist__listener_bind(addr, flags, &l);
    if (err) return err;
    err = heist__listener_begin(l, opts ? opts->backlog : 0);
    if (err) {
        heist_listener_close(l);
        return err;
    }
    *out = l;
    return 0;
}

int heist_listener_addr(heist_listener *l, heist_addr *out) {
    return l && out ? heist__socket_addr(l->fd, out) : -EINVAL;
}

void heist_listener_close(heist_listener *l) {
    if (l && !heist__forked()) heist__reg_close(l->reg); /* a child's copy is the parent's */
}

static int wrap(int fd, bool inet, heist_conn **out) {
    if (inet) set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1); /* a failure costs delay, not truth */
    int err = heist__conn_new(fd, inet, out);
    if (err) heist__sys_close(fd);
    return err;
}

/* A socket of a kind that cannot listen gives EOPNOTSUPP too, for ever. */
static bool listens(int fd) {
    int yes = 0;
    socklen_t size = sizeof(yes);
    return !heist__sys_getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &size) && yes;
}

bool heist__accept_passes(int fd, int error) {
    switch (error) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case ENETUNREACH: return true;
    case EOPNOTSUPP: return listens(fd);
    default: return false;
    }
}

/* As accept itself: who has left meanwhile has no name any more. */
static int name_peer(int fd, heist_addr *peer) {
    if (!peer) return fd;
    peer->length = sizeof(peer->storage);
    if (!heist__sys_getpeername(fd, (struct sockaddr *)&peer->storage, &peer->length)) return fd;
    heist__sys_close(fd);
    return -ECONNABORTED;
}

/* What the feed brought; else by ourselves (feed.h).  -EAGAIN: wait for an event, for which the feed may have to be
 * armed. */
static int take_connection(heist_listener *l, heist_addr *peer) {
    struct heist__feed *f = a_load_acq(&l->feed); /* acq: pairs with who made it */
    if (heist_unlikely(f)) {
        int fd = heist__feed_accept(f);
        if (fd >= 0) return name_peer(fd, peer);
        if (fd == -EAGAIN) return fd;
    }
    struct sockaddr *from = peer ? (struct sockaddr *)&peer->storage : NULL;
    if (peer) peer->length = sizeof(peer->storage);
    int fd = heist__sys_accept(l->fd, from, peer ? &peer->length : NULL); /* non-blocking, close-on-exec */
    if (fd == -EAGAIN && l->feeds) heist__fd_feed(l->reg, HEIST__FEED_ACCEPT, &l->feed, &l->feeds);
    return fd;
}

static int accept_into(heist_listener *l, int64_t until, heist_conn *c, heist_addr *peer) {
    for (;;) {
        int err = heist__reg_begin(l->reg, HEIST__REG_READ, false);
        if (err < 0) return err;
        int fd = take_connection(l, peer);
        if (fd >= 0) {
            heist__conn_adopt(c, fd);
            return 0;
        }
        err = 0;
        if (fd == -EAGAIN)
            err = heist__fd_wait(l->reg, HEIST__REG_READ, until);
        else if (!heist__accept_passes(l->fd, -fd))
            err = fd;
        if (err) return err;
    }
}

/* The memory first: a connection that was taken cannot be put back into the backlog. */
static int accept_one(heist_listener *l, int64_t until, heist_conn **out, heist_addr *peer) {
    heist_conn *c;
    int err = heist__conn_new(-1, l->is_tcp, &c);
    if (err) return err;
    err = accept_into(l, until, c, peer);
    if (err)
        heist_conn_close(c);
    else
        *out = c;
    return err;
}

int heist__accept(heist_listener *l, int64_t until, heist_conn **out, heist_addr *peer) {
    int err = heist__fd_entry();
    if (err) return err;
    struct heist__reg *r = l->reg;
    err = heist__reg_enter(r);
    if (!err) {
        err = accept_one(l, until, out, peer);
        heist__reg_leave(r);
    }
    heist__fd_skipped(); /* a failure too: who tries again for ever must give way */
    return err;
}

int heist_accept(heist_listener *l, double deadline, heist_conn **out) {
    int64_t until;
    if (!l || !out || heist__fd_deadline(deadline, &until)) return -EINVAL;
    return heist__accept(l, until, out, NULL);
}

/* 0 connected, 1 under way, or a code. */
static int start_connect(int fd, const heist_addr *addr, int64_t until) {
    for (;;) {
        int err = heist__sys_connect(fd, (const struct sockaddr *)&addr->storage, addr->length);
        if (!err) return 0;
        if (err == -EINPROGRESS || err == -EINTR) return 1;
        if (err != -EAGAIN || addr->storage.ss_family != AF_UNIX) return err;
        /* A Unix listener's backlog is full, and no event tells when it is not. */
        if (heist__fd_now() >= until) return -ETIMEDOUT;
        err = heist_sleep(UNIX_RETRY_SECONDS);
        if (err) return err;
    }
}

static bool same_end(const struct sockaddr_storage *a, const struct sockaddr_storage *b) {
    if (a->ss_family != b->ss_family) return false;
    if (a->ss_family == AF_INET) {
        const struct sockaddr_in *x = (const void *)a, *y = (const void *)b;
        return x->sin_port == y->sin_port && x->sin_addr.s_addr == y->sin_addr.s_addr;
    }
    const struct sockaddr_in6 *x = (const void *)a, *y = (const void *)b;
    return a->ss_family == AF_INET6 && x->sin6_port == y->sin6_port && x->sin6_scope_id == y->sin6_scope_id &&
           !memcmp(&x->sin6_addr, &y->sin6_addr, sizeof(x->sin6_addr));
}

/* A connection to a port of this machine on which nobody listens, and which the system then chose for our end: TCP allows
 * both ends to call, and here both are one. */
static bool is_with_itself(heist_conn *c) {
    heist_addr ours, theirs;
    return !heist_conn_addr(c, &ours) && !heist_conn_peer(c, &theirs) && same_end(&ours.storage, &theirs.storage);
}

/* The port of our end is the system's choice. */
static bool any_port(const heist_addr *local) {
    if (!local) return true;
    if (local->storage.ss_family == AF_INET) return !((const struct sockaddr_in *)(const void *)&local->storage)->sin_port;
    return local->storage.ss_family == AF_INET6 &&
           !((const struct sockaddr_in6 *)(const void *)&local->storage)->sin6_port;
}

static int connect_once(const heist_addr *addr, const heist_addr *local, int64_t until, heist_conn **out) {
    int family = addr->storage.ss_family;
    int fd = open_socket(family);
    if (fd < 0) return fd;
    heist_conn *c;
    int err = wrap(fd, family != AF_UNIX, &c);
    if (err) return err;
    if (local) err = heist__sys_bind(fd, (const struct sockaddr *)&local->storage, local->length);
    if (!err) err = start_connect(fd, addr, until);
    if (err == 1) {
        int error = 0;
        socklen_t size = sizeof(error);
        err = heist__fd_wait(c->reg, HEIST__REG_WRITE, until);
        if (!err) err = heist__sys_getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (!err) err = -error;
    }
    if (err) {
        heist_conn_close(c);
        return err;
    }
    *out = c;
    return 0;
}

int heist__connect(const heist_addr *addr, const heist_addr *local, int64_t until, heist_conn **out) {
    int family = addr->storage.ss_family;
    bool looks = (family == AF_INET || family == AF_INET6) && any_port(local);
    for (int tries = 0; tries < SELF_TRIES; tries++) {
        heist_conn *c = NULL;
        int err = connect_once(addr, local, until, &c);
        if (err) return err;
        if (heist_likely(!looks || !is_with_itself(c))) {
            *out = c;
            return 0;
        }
        heist_conn_close(c); /* the next has another port, most probably */
    }
    return -ECONNREFUSED; /* as it would have been with any other port */
}

int heist_connect(const heist_addr *addr, double deadline, heist_conn **out) {
    int64_t until;
    if (!addr || !out || heist__fd_deadline(deadline, &until)) return -EINVAL;
    int err = heist__fd_entry();
    if (err) return err;
    err = heist__connect(addr, NULL, until, out);
    heist__fd_skipped();
    return err;
}
