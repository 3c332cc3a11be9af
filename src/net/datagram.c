/* Datagrams by call.  See heist/datagram.h and net/datagram.h. */
#include "net/datagram.h"

#include <heist/error.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/macros.h"
#include "base/options.h"
#include "base/sys.h"
#include "conc/atomic.h"
#include "io/fd.h"
#include "loop/fds.h"

#define BATCH 64
#define ALL_FLAGS                                                                                                      \
    (HEIST_DATAGRAM_REUSEADDR | HEIST_DATAGRAM_REUSEPORT | HEIST_DATAGRAM_BROADCAST | HEIST_DATAGRAM_V6ONLY)

static const struct sockaddr *name_of(const heist_addr *a) { return a ? (const struct sockaddr *)&a->storage : NULL; }

/* ---- life ---- */

static void drop_share(heist_datagram *d) {
    if (a_sub_ar(&d->shares, 1) == 1) heist__free(d); /* ar: as every last reference */
}

static void dispose(void *owner, int fd) {
    heist__sys_close(fd);
    drop_share(owner);
}

int heist__datagram_new(int fd, heist_datagram **out) {
    heist_datagram *d = heist__zalloc(sizeof(*d));
    if (!d) return -ENOMEM;
    d->fd = fd;
    a_store_rlx(&d->refs, 1); /* rlx, both: nobody else knows it */
    a_store_rlx(&d->shares, 2);
    d->max_received = (size_t)1 << 16;
    for (int i = 0; i < 2; i++) heist_lock_init(&d->turn[i]);
    d->reg = heist__reg_new(fd, d, dispose);
    if (!d->reg) {
        heist__free(d);
        return -ENOMEM;
    }
    *out = d;
    return 0;
}

static int set(int fd, int level, int name, int value) {
    return heist__sys_setsockopt(fd, level, name, &value, sizeof(value));
}

static int set_options(int fd, int family, const heist_datagram_options *o) {
    int err = 0;
    if (o->flags & HEIST_DATAGRAM_REUSEADDR) err = set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (!err && o->flags & HEIST_DATAGRAM_REUSEPORT) err = set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (!err && o->flags & HEIST_DATAGRAM_BROADCAST) err = set(fd, SOL_SOCKET, SO_BROADCAST, 1);
    if (!err && o->send_buffer) err = set(fd, SOL_SOCKET, SO_SNDBUF, o->send_buffer);
    if (!err && o->receive_buffer) err = set(fd, SOL_SOCKET, SO_RCVBUF, o->receive_buffer);
    if (!err && family == AF_INET6) err = set(fd, IPPROTO_IPV6, IPV6_V6ONLY, (o->flags & HEIST_DATAGRAM_V6ONLY) != 0);
    return err;
}

/* The file of a Unix endpoint that came to nothing: the next try would find its address in use. */
static void remove_file(const heist_addr *local) {
    struct sockaddr_un un;
    if (!local || local->storage.ss_family != AF_UNIX) return;
    memcpy(&un, &local->storage, sizeof(un));
    size_t length = local->length - offsetof(struct sockaddr_un, sun_path);
    char path[sizeof(un.sun_path) + 1] = "";
    if (local->length <= sizeof(un)) memcpy(path, un.sun_path, length); /* an abstract name begins with a zero */
    if (*path) (void)heist__sys_unlink(path, 0);
}

/* Connecting datagrams only notes the address: it is done at once, or not at all. */
static int set_up(int fd, int family, const heist_addr *local, const heist_addr *remote,
                  const heist_datagram_options *o, bool *bound) {
    int err = set_options(fd, family, o);
    if (!err && local) err = heist__sys_bind(fd, name_of(local), local->length);
    *bound = !err;
    if (err || !remote) return err;
    do err = heist__sys_connect(fd, name_of(remote), remote->length);
    while (err == -EINTR);
    return err;
}

int heist_datagram_open(const heist_addr *local, const heist_addr *remote, const heist_datagram_options *opts,
                        heist_datagram **out) {
    static const heist_datagram_options none = HEIST_DATAGRAM_OPTIONS_INIT;
    if (!out || (!local && !remote) || !heist__options_ok(opts, sizeof(*opts))) return -EINVAL;
    if (local && remote && local->storage.ss_family != remote->storage.ss_family) return -EINVAL;
    if (!opts) opts = &none;
    if (opts->flags & ~ALL_FLAGS || opts->send_buffer < 0 || opts->receive_buffer < 0) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    int family = AF_UNSPEC; /* neither of them: said above */
    if (local) family = local->storage.ss_family;
    else if (remote) family = remote->storage.ss_family;
    int fd = heist__sys_socket(family, SOCK_DGRAM, 0);
    if (fd < 0) return fd;
    heist_datagram *d;
    bool bound;
    int err = set_up(fd, family, local, remote, opts, &bound);
    if (!err) err = heist__datagram_new(fd, &d);
    if (err) {
        heist__sys_close(fd);
        if (bound) remove_file(local);
        return err;
    }
    if (remote) {
        d->connected = true;
        d->remote = *remote;
    }
    if (opts->max_received) d->max_received = opts->max_received;
    *out = d;
    return 0;
}

int heist_datagram_from_fd(int fd, heist_datagram **out) {
    if (!out) return -EINVAL;
    if (fd < 0) return -EBADF;
    if (heist__forked()) return HEIST_EFORKED;
    int type = 0;
    socklen_t length = sizeof(type);
    int err = heist__sys_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length);
    if (err) return err;
    if (type != SOCK_DGRAM) return -EPROTOTYPE;
    if (heist__fds_owned(fd, true)) return -EBUSY;
    int flags = heist__sys_flags(fd);
    err = flags < 0 ? flags : heist__sys_set_flags(fd, flags | O_NONBLOCK);
    if (err) return err;
    heist_datagram *d;
    err = heist__datagram_new(fd, &d);
    if (err) {
        (void)heist__sys_set_flags(fd, flags);
        return err;
    }
    d->remote.length = sizeof(d->remote.storage);
    d->connected = heist__sys_getpeername(fd, (struct sockaddr *)&d->remote.storage, &d->remote.length) == 0;
    *out = d;
    return 0;
}

void heist_datagram_close(heist_datagram *d) {
    if (!d || heist__forked()) return; /* a child's copy is the parent's */
    heist__spin_lock(&d->lock);
    bool first = !d->closed;
    d->closed = true;
    heist__spin_unlock(&d->lock);
    if (first) heist__reg_close(d->reg);
}

heist_datagram *heist_datagram_ref(heist_datagram *d) {
    if (d) a_add_rlx(&d->refs, 1); /* rlx: the caller holds one */
    return d;
}

void heist_datagram_unref(heist_datagram *d) {
    if (!d || heist__forked() || a_sub_ar(&d->refs, 1) != 1) return; /* ar: as every last reference */
    heist_datagram_close(d);
    drop_share(d);
}

/* The beginning of each use: 0, and *out is to be left; or HEIST_ECLOSED, HEIST_EFORKED. */
static int enter(heist_datagram *d, struct heist__reg **out) {
    if (heist__forked()) return HEIST_EFORKED;
    int err = HEIST_ECLOSED;
    heist__spin_lock(&d->lock);
    if (!d->closed) err = heist__reg_enter(*out = d->reg);
    heist__spin_unlock(&d->lock);
    return err;
}

int heist_datagram_fd(const heist_datagram *d) {
    if (!d) return -EINVAL;
    heist_datagram *mine = (heist_datagram *)(uintptr_t)d;
    heist__spin_lock(&mine->lock);
    int fd = d->closed ? HEIST_ECLOSED : d->fd;
    heist__spin_unlock(&mine->lock);
    return fd;
}

int heist_datagram_addr(heist_datagram *d, heist_addr *out) {
    if (!d || !out) return -EINVAL;
    struct heist__reg *r;
    int err = enter(d, &r);
    if (err) return err;
    heist_addr addr = {.length = sizeof(addr.storage)};
    err = heist__sys_getsockname(d->fd, (struct sockaddr *)&addr.storage, &addr.length);
    heist__reg_leave(r);
    if (!err) *out = addr;
    return err;
}

int heist_datagram_peer(heist_datagram *d, heist_addr *out) {
    if (!d || !out) return -EINVAL;
    if (!d->connected) return -ENOTCONN;
    *out = d->remote;
    return 0;
}

static int change_group(heist_datagram *d, int name, const heist_addr *group, unsigned interface_index) {
    if (!d || !group || group->length > sizeof(struct sockaddr_storage)) return -EINVAL;
    int family = group->storage.ss_family;
    if (family != AF_INET && family != AF_INET6) return -EINVAL;
    struct group_req request = {.gr_interface = interface_index};
    memcpy(&request.gr_group, &group->storage, group->length);
    struct heist__reg *r;
    int err = enter(d, &r);
    if (err) return err;
    err = heist__sys_setsockopt(d->fd, family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6, name, &request, sizeof(request));
    heist__reg_leave(r);
    return err;
}
int heist_datagram_join(heist_datagram *d, const heist_addr *group, unsigned interface_index) {
    return change_group(d, MCAST_JOIN_GROUP, group, interface_index);
}
int heist_datagram_leave(heist_datagram *d, const heist_addr *group, unsigned interface_index) {
    return change_group(d, MCAST_LEAVE_GROUP, group, interface_index);
}

/* ---- the one way to wait ---- */

/* A try: a count, -EAGAIN, or a failure. */
struct try {
    ptrdiff_t (*once)(heist_datagram * d, struct try * t);
    int direction;
    const struct sockaddr *to; /* of a send */
};

static ptrdiff_t once(heist_datagram *d, struct try *t) {
    for (;;) {
        ptrdiff_t n = t->once(d, t);
        if (n != -EINTR) return n;
    }
}

static int wait_more(heist_datagram *d, struct try *t, int64_t until) {
    if (t->direction == HEIST__REG_WRITE && heist__fd_room_is_far(d->fd, t->to)) return heist__fd_pause(until);
    return heist__fd_wait(d->reg, t->direction, until);
}

static ptrdiff_t take_turn(heist_datagram *d, struct try *t, int64_t until, double deadline) {
    ptrdiff_t n = heist_lock_acquire_until(&d->turn[t->direction], deadline);
    if (n) return n;
    for (;;) {
        n = heist__reg_begin(d->reg, t->direction, false);
        if (n >= 0) n = once(d, t);
        if (n != -EAGAIN) break;
        n = wait_more(d, t, until);
        if (n) break;
    }
    heist_lock_release(&d->turn[t->direction]);
    return n;
}

static ptrdiff_t call(heist_datagram *d, struct try *t, double deadline) {
    int64_t until;
    if (heist__fd_deadline(deadline, &until)) return -EINVAL;
    ptrdiff_t n = heist__fd_entry();
    if (n) return n;
    struct heist__reg *r;
    n = enter(d, &r);
    if (!n) {
        n = once(d, t);
        if (n == -EAGAIN) n = take_turn(d, t, until, deadline);
        heist__reg_leave(r);
    }
    heist__fd_skipped(); /* after a failure too: who tries again for ever must give way */
    return n;
}

static ptrdiff_t call_at_once(heist_datagram *d, struct try *t) {
    struct heist__reg *r;
    ptrdiff_t n = enter(d, &r);
    if (n) return n;
    n = once(d, t);
    heist__reg_leave(r);
    return n;
}

/* ---- one ---- */

struct one {
    struct try base;
    void *buf;
    size_t size;
    heist_addr *from, came;
    const heist_addr *to;
};

static ptrdiff_t receive_one(heist_datagram *d, struct try *t) {
    struct one *o = heist_container_of(t, struct one, base);
    /* MSG_TRUNC: the count is the datagram's length, however much of it there was room for. */
    if (!o->from) return heist__sys_recvfrom(d->fd, o->buf, o->size, MSG_TRUNC | MSG_DONTWAIT, NULL, NULL);
    o->came.length = sizeof(o->came.storage);
    o->came.storage.ss_family = AF_UNSPEC; /* a nameless sender's */
    return heist__sys_recvfrom(d->fd, o->buf, o->size, MSG_TRUNC | MSG_DONTWAIT, (struct sockaddr *)&o->came.storage,
                               &o->came.length);
}

static ptrdiff_t send_one(heist_datagram *d, struct try *t) {
    struct one *o = heist_container_of(t, struct one, base);
    ptrdiff_t n = heist__sys_sendto(d->fd, o->buf, o->size, MSG_DONTWAIT, t->to, o->to ? o->to->length : 0);
    return n < 0 ? n : 0;
}

ptrdiff_t heist_datagram_recvfrom(heist_datagram *d, void *buf, size_t size, double deadline, heist_addr *from) {
    if (!d || (!buf && size)) return -EINVAL;
    struct one o = {.base = {receive_one, HEIST__REG_READ, NULL}, .buf = buf, .size = size, .from = from};
    ptrdiff_t n = call(d, &o.base, deadline);
    if (n >= 0 && from) *from = o.came;
    return n;
}

ptrdiff_t heist_datagram_recv(heist_datagram *d, void *buf, size_t size, double deadline) {
    return heist_datagram_recvfrom(d, buf, size, deadline, NULL);
}

ptrdiff_t heist_datagram_try_recvfrom(heist_datagram *d, void *buf, size_t size, heist_addr *from) {
    if (!d || (!buf && size)) return -EINVAL;
    struct one o = {.base = {receive_one, HEIST__REG_READ, NULL}, .buf = buf, .size = size, .from = from};
    ptrdiff_t n = call_at_once(d, &o.base);
    if (n >= 0 && from) *from = o.came;
    return n;
}

static bool same_bytes(const void *a, const void *b, size_t size) { return memcmp(a, b, size) == 0; }

/* The same place to send to. */
static bool same_addr(const heist_addr *a, const heist_addr *b) {
    if (a->storage.ss_family != b->storage.ss_family) return false;
    if (a->storage.ss_family == AF_INET) {
        struct sockaddr_in x, y;
        memcpy(&x, &a->storage, sizeof(x));
        memcpy(&y, &b->storage, sizeof(y));
        return x.sin_port == y.sin_port && x.sin_addr.s_addr == y.sin_addr.s_addr;
    }
    if (a->storage.ss_family == AF_INET6) {
        struct sockaddr_in6 x, y;
        memcpy(&x, &a->storage, sizeof(x));
        memcpy(&y, &b->storage, sizeof(y));
        bool same_scope = !x.sin6_scope_id || !y.sin6_scope_id || x.sin6_scope_id == y.sin6_scope_id;
        return x.sin6_port == y.sin6_port && same_scope && same_bytes(&x.sin6_addr, &y.sin6_addr, sizeof(x.sin6_addr));
    }
    return a->length == b->length && same_bytes(&a->storage, &b->storage, a->length);
}

/* Where a datagram goes: 0, and *to is NULL for the remote address; or -EISCONN. */
static int check_target(const heist_datagram *d, const heist_addr **to) {
    if (!*to || !d->connected) return 0;
    if (!same_addr(*to, &d->remote)) return -EISCONN;
    *to = NULL; /* the system would look the way up anew */
    return 0;
}

static int prepare_send(heist_datagram *d, struct one *o, const void *buf, size_t size, const heist_addr *to) {
    if (!d || (!buf && size)) return -EINVAL;
    int err = check_target(d, &to);
    if (err) return err;
    *o = (struct one){
        .base = {send_one, HEIST__REG_WRITE, name_of(to)}, .buf = (void *)(uintptr_t)buf, .size = size, .to = to};
    return 0;
}

int heist_datagram_sendto(heist_datagram *d, const void *buf, size_t size, const heist_addr *to, double deadline) {
    struct one o;
    int err = prepare_send(d, &o, buf, size, to);
    return err ? err : (int)call(d, &o.base, deadline);
}

int heist_datagram_send(heist_datagram *d, const void *buf, size_t size, double deadline) {
    return heist_datagram_sendto(d, buf, size, NULL, deadline);
}

int heist_datagram_try_sendto(heist_datagram *d, const void *buf, size_t size, const heist_addr *to) {
    struct one o;
    int err = prepare_send(d, &o, buf, size, to);
    return err ? err : (int)call_at_once(d, &o.base);
}

/* ---- many ---- */

struct many {
    struct try base;
    unsigned count;
    struct mmsghdr messages[BATCH];
    struct iovec data[BATCH];
};

static ptrdiff_t receive_many(heist_datagram *d, struct try *t) {
    struct many *m = heist_container_of(t, struct many, base);
    return heist__sys_recvmmsg(d->fd, m->messages, m->count, MSG_TRUNC | MSG_DONTWAIT);
}

static ptrdiff_t send_many(heist_datagram *d, struct try *t) {
    struct many *m = heist_container_of(t, struct many, base);
    return heist__sys_sendmmsg(d->fd, m->messages, m->count, MSG_DONTWAIT);
}

static void put(struct many *m, void *data, size_t size, const heist_addr *addr, socklen_t room) {
    unsigned i = m->count++;
    m->data[i] = (struct iovec){data, size};
    memset(&m->messages[i], 0, sizeof(m->messages[i]));
    m->messages[i].msg_hdr.msg_iov = &m->data[i];
    m->messages[i].msg_hdr.msg_iovlen = 1;
    m->messages[i].msg_hdr.msg_name = (void *)(uintptr_t)name_of(addr);
    m->messages[i].msg_hdr.msg_namelen = room;
}

ptrdiff_t heist_datagram_recv_many(heist_datagram *d, heist_packet *packets, size_t count, double deadline) {
    if (!d || !packets || !count) return -EINVAL;
    struct many m;
    m.base = (struct try){receive_many, HEIST__REG_READ, NULL};
    m.count = 0;
    for (size_t i = 0; i < count && i < BATCH; i++) {
        heist_packet *p = &packets[i];
        if (!p->data && p->size) return -EINVAL;
        put(&m, p->data, p->size, &p->addr, sizeof(p->addr.storage));
    }
    ptrdiff_t n = call(d, &m.base, deadline);
    for (ptrdiff_t i = 0; i < n; i++) {
        packets[i].length = m.messages[i].msg_len;
        packets[i].addr.length = m.messages[i].msg_hdr.msg_namelen;
        if (!packets[i].addr.length) packets[i].addr.storage.ss_family = AF_UNSPEC;
    }
    return n;
}

ptrdiff_t heist_datagram_send_many(heist_datagram *d, const heist_packet *packets, size_t count, double deadline) {
    if (!d || !packets || !count) return -EINVAL;
    struct many m;
    m.count = 0;
    int err = 0;
    for (size_t i = 0; i < count && i < BATCH; i++) {
        const heist_packet *p = &packets[i];
        const heist_addr *to = p->addr.length ? &p->addr : NULL;
        err = !p->data && p->size ? -EINVAL : check_target(d, &to);
        if (err) break; /* those before it go first */
        put(&m, p->data, p->size, to, to ? to->length : 0);
    }
    if (!m.count) return err;
    m.base = (struct try){send_many, HEIST__REG_WRITE, m.messages[0].msg_hdr.msg_name};
    return call(d, &m.base, deadline);
}
