/* Servers: making, starting and closing them.  See server.h.
 *
 * All addresses of a server get the same port: where the system is to choose, it does so for the first, and the others
 * ask for that one.  Should one of them find it taken, all are given back and the system is asked for another. */
#include "net/server.h"

#include <heist/error.h>
#include <heist/loop.h>
#include <heist/runtime.h>
#include <heist/task.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/options.h"
#include "conc/self.h"
#include "io/fd.h"
#include "net/conn.h"
#include "net/listener.h"
#include "net/server_addr.h"
#include "net/stream.h"
#include "sched/sched.h"

#define PORT_TRIES 16
#define FLAGS (HEIST_SERVER_PAUSED | HEIST_SERVER_REUSEPORT | HEIST_SERVER_PINNED | HEIST_SERVER_KEEP_PATH | \
               HEIST_SERVER_KEEPALIVE)

/* ---- references ---- */

heist_server *heist__server_hold(heist_server *s) {
    a_add_rlx(&s->refs, 1); /* rlx: the caller has one */
    return s;
}

heist_server *heist_server_ref(heist_server *s) { return s && !heist__forked() ? heist__server_hold(s) : s; }

static void destroy(heist_server *s) {
    if (s->opts.user_free) heist__destruct(s->opts.user_free, s->user);
    if (s->opts.open_free) heist__destruct(s->opts.open_free, s->opts.open_user);
    heist__free(s->path);
    heist__free(s);
}

void heist__server_drop(heist_server *s) {
    if (a_sub_ar(&s->refs, 1) != 1) return; /* ar: as every last reference */
    /* Nobody accepts, so it never served, or it is closed. */
    if (s->state != HEIST__SERVER_IS_CLOSED) {
        a_store_rlx(&s->refs, 1); /* rlx: nobody else knows it */
        heist_server_close(s);
    }
    destroy(s);
}

void heist_server_unref(heist_server *s) {
    if (s && !heist__forked()) heist__server_drop(s); /* a child's copy is the parent's */
}

void heist__server_less(heist_server *s, bool connection) {
    struct heist__waitnode *ended = NULL, *room = NULL;
    heist__spin_lock(&s->lock);
    if (connection) {
        s->connections--;
        s->departures++;
        room = heist__waitq_claim_all(&s->room, 0);
    } else {
        s->busy--;
    }
    if (heist__server_over(s)) ended = heist__waitq_claim_all(&s->ended, 0);
    heist__spin_unlock(&s->lock);
    heist__waitq_wake_all(room);
    heist__waitq_wake_all(ended);
}

/* ---- making ---- */

static int check(const heist_server_options *o) {
    if (!heist__options_ok(o, sizeof(*o))) return -EINVAL;
    if (!o) return 0;
    if ((o->flags & ~FLAGS) || o->backlog < 0 || (o->open_free && !o->open)) return -EINVAL;
    return heist__stream_options_ok(o->stream) ? 0 : -EINVAL; /* else each connection would fail by them */
}

/* A call that makes a server: where it may be made, and with what. */
static int may_start(heist_serve_fn handler, const heist_server_options *o) {
    if (!handler || check(o)) return -EINVAL;
    struct heist__self *self = heist__self();
    if (!heist__forked() && !self->task && !self->worker) return HEIST_ENOLOOP;
    return heist__fd_entry();
}

static heist_server *make(heist_serve_fn handler, void *user, const heist_server_options *o, size_t sockets) {
    heist_server *s = heist__zalloc(sizeof(*s) + sockets * sizeof(s->sockets[0]));
    if (!s) return NULL;
    a_store_rlx(&s->refs, 1); /* rlx: nobody else knows it */
    s->handler = handler;
    s->user = user;
    s->opts = (heist_server_options)HEIST_SERVER_OPTIONS_INIT;
    if (o) s->opts = *o;
    if (s->opts.stream) {
        s->stream_opts = *s->opts.stream;
        s->opts.stream = &s->stream_opts;
    }
    s->state = HEIST__SERVER_IS_PAUSED;
    s->short_until = INT64_MIN;
    heist__list_init(&s->served);
    return s;
}

/* Of one that nobody has seen: its sockets are closed, the user's arguments stay the user's. */
static void unmake(heist_server *s) {
    for (unsigned i = 0; i < s->count; i++) heist_listener_close(s->sockets[i].listener);
    heist__free(s->path);
    heist__free(s);
}

static in_port_t *port_of(heist_addr *a) {
    if (a->storage.ss_family == AF_INET) return &((struct sockaddr_in *)&a->storage)->sin_port;
    if (a->storage.ss_family == AF_INET6) return &((struct sockaddr_in6 *)&a->storage)->sin6_port;
    return NULL;
}

static int bind_one(heist_server *s, const heist_addr *addr, in_port_t port, unsigned flags) {
    struct heist__server_socket *k = &s->sockets[s->count];
    heist_addr wanted = *addr;
    in_port_t *p = port_of(&wanted);
    if (p && !*p) *p = port;
    int err = heist__listener_bind(&wanted, flags, &k->listener);
    if (!err) {
        err = heist_listener_addr(k->listener, &k->addr);
        if (err) heist_listener_close(k->listener);
    }
    if (err) {
        char text[128] = "";
        heist_addr_format(&wanted, text, sizeof(text));
        return heist_fail(err, "cannot listen on %s: %s", text, heist_strerror(err));
    }
    k->server = s;
    k->worker = -1;
    s->count++;
    return 0;
}

/* The port is the one that the first address got. */
static int bind_all(heist_server *s, const heist_addr *addrs, size_t count, unsigned each, bool optional) {
    in_port_t port = 0;
    int err = 0, missing = 0;
    unsigned flags = HEIST_LISTEN_V6ONLY | (s->opts.flags & HEIST_SERVER_REUSEPORT ? HEIST_LISTEN_REUSEPORT : 0) |
                     (s->opts.flags & HEIST_SERVER_KEEPALIVE ? HEIST_LISTEN_KEEPALIVE : 0);
    for (size_t i = 0; i < count && !err; i++) {
        heist_addr addr = addrs[i];
        unsigned group = port_of(&addr) ? each : 1;
        for (unsigned j = 0; j < group && !err; j++) {
            err = bind_one(s, j ? &s->sockets[s->count - 1].addr : &addr, port, flags);
            if (err) break;
            struct heist__server_socket *k = &s->sockets[s->count - 1];
            k->twin = j > 0;
            if (group > 1) k->worker = (int)j;
            in_port_t *p = port_of(&k->addr);
            if (p && !port) port = *p;
        }
        /* A family that this machine does not have. */
        if (optional && (err == -EAFNOSUPPORT || err == -EADDRNOTAVAIL)) {
            missing = err;
            err = 0;
        }
    }
    return err || s->count ? err : missing;
}

static bool chooses_port(const heist_addr *addrs, size_t count) {
    for (size_t i = 0; i < count; i++) {
        heist_addr a = addrs[i];
        in_port_t *p = port_of(&a);
        if (p && *p) return false;
    }
    return count > 1;
}

static int start(heist_server *s, heist_server **out) {
    if (s->opts.flags & HEIST_SERVER_PAUSED) {
        s->lent = false; /* it cannot fail from here on */
    } else {
        int err = heist_server_start_serving(s);
        if (err) {
            /* Nothing of the user's is freed: the caller still owns it. */
            s->opts.user_free = s->opts.open_free = NULL;
            heist_server_close(s);
            heist__server_drop(s);
            return err;
        }
    }
    if (out) *out = s;
    else heist__server_drop(s);
    return 0;
}

static int start_at(heist_serve_fn handler, void *user, const heist_addr *addrs, size_t count, bool optional,
                    const heist_server_options *o, heist_server **out) {
    unsigned each =
        o && (o->flags & HEIST_SERVER_REUSEPORT) ? (unsigned)heist_runtime_workers(heist__self()->worker->rt) : 1;
    for (int try = 1;; try++) {
        heist_server *s = make(handler, user, o, count * each);
        if (!s) return -ENOMEM;
        int err = bind_all(s, addrs, count, each, optional);
        if (!err) return start(s, out);
        unmake(s);
        if (err != -EADDRINUSE || try == PORT_TRIES || !chooses_port(addrs, count)) return err;
    }
}

int heist_start_server_at(heist_serve_fn handler, void *user, const heist_addr *addrs, size_t count,
                          const heist_server_options *o, heist_server **out) {
    int err = !addrs || !count || count > 1024 ? -EINVAL : may_start(handler, o);
    return err ? err : start_at(handler, user, addrs, count, false, o, out);
}

int heist_start_server(heist_serve_fn handler, void *user, const char *host, const char *port,
                       const heist_server_options *o, heist_server **out) {
    int err = port ? may_start(handler, o) : -EINVAL;
    if (err) return err;
    struct heist__server_addrs found = {0};
    err = heist__server_addresses(host, port, &found);
    if (!err) err = start_at(handler, user, found.at, found.count, found.any, o, out);
    heist__free(found.at);
    return err;
}

int heist_start_unix_server(heist_serve_fn handler, void *user, const char *path, const heist_server_options *o,
                            heist_server **out) {
    int err = path ? may_start(handler, o) : -EINVAL;
    if (err) return err;
    heist_addr addr;
    char text[sizeof(addr.storage)];
    int length = snprintf(text, sizeof(text), "unix:%s", path);
    if (length < 0 || (size_t)length >= sizeof(text)) return -EINVAL;
    if (heist_addr_parse(text, &addr)) return -EINVAL;
    heist_server *s = make(handler, user, o, 1);
    if (!s) return -ENOMEM;
    size_t size = strlen(path) + 1;
    s->path = heist__alloc(size);
    if (!s->path) {
        unmake(s);
        return -ENOMEM;
    }
    memcpy(s->path, path, size);
    err = heist__server_bind_path(&addr, path, s, &s->sockets[0].listener);
    if (err) {
        unmake(s);
        return err;
    }
    s->sockets[0].server = s;
    s->sockets[0].addr = addr;
    s->sockets[0].worker = -1;
    s->count = 1;
    return start(s, out);
}

/* An address: a port, or a name. */
static bool is_bound(heist_addr *a) {
    in_port_t *port = port_of(a);
    return port ? *port != 0 : a->length > sizeof(sa_family_t);
}

int heist_start_server_fd(heist_serve_fn handler, void *user, int fd, const heist_server_options *o,
                          heist_server **out) {
    int err = may_start(handler, o);
    if (err) return err;
    heist_server *s = make(handler, user, o, 1);
    if (!s) return -ENOMEM;
    struct heist__server_socket *k = &s->sockets[0];
    err = heist__listener_take(fd, &k->listener);
    if (!err) {
        err = heist_listener_addr(k->listener, &k->addr);
        if (!err && !is_bound(&k->addr)) err = heist_fail(-EINVAL, "the descriptor %d is not bound to an address", fd);
        if (err) heist__listener_give_back(k->listener);
    }
    if (err) {
        unmake(s);
        return err;
    }
    k->server = s;
    k->worker = -1;
    s->count = 1;
    s->lent = true;
    return start(s, out);
}

/* ---- starting and closing ---- */

static int listen_all(heist_server *s) {
    for (unsigned i = 0; i < s->count; i++) {
        struct heist__server_socket *k = &s->sockets[i];
        int err = heist__listener_begin(k->listener, s->opts.backlog);
        if (!err) continue;
        char text[128] = "";
        heist_addr_format(&k->addr, text, sizeof(text));
        return heist_fail(err, "cannot listen on %s: %s", text, heist_strerror(err));
    }
    return 0;
}

static int start_task(heist_server *s, struct heist__server_socket *k) {
    heist_runtime *rt = heist__self()->worker->rt;
    heist_task_options options = HEIST_TASK_OPTIONS_INIT;
    options.arg_free = heist__server_accept_end;
    heist__server_hold(s);
    heist__spin_lock(&s->lock);
    s->busy++;
    heist__spin_unlock(&s->lock);
    int err;
    if (k->worker >= 0) {
        options.flags = HEIST_TASK_PINNED;
        heist_loop *loop = heist_runtime_loop(rt, k->worker % heist_runtime_workers(rt));
        err = heist_loop_create_task(loop, heist__server_accept, k, &options, NULL);
    } else {
        err = heist_create_task(heist__server_accept, k, &options, NULL);
    }
    if (err) {
        heist__server_less(s, false);
        heist__server_drop(s); /* the caller has one */
    }
    return err;
}

static void stop_all(heist_server *s) {
    heist__server_remove_path(s);
    for (unsigned i = 0; i < s->count; i++)
        (s->lent ? heist__listener_give_back : heist__listener_stop)(s->sockets[i].listener);
}

int heist_server_start_serving(heist_server *s) {
    if (!s) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (!heist__self()->worker) return HEIST_ENOLOOP;
    heist__spin_lock(&s->lock);
    int state = s->state;
    if (state == HEIST__SERVER_IS_PAUSED) {
        s->state = HEIST__SERVER_IS_STARTING;
        s->busy++;
    }
    heist__spin_unlock(&s->lock);
    if (state != HEIST__SERVER_IS_PAUSED) return state == HEIST__SERVER_IS_CLOSED ? HEIST_ECLOSED : 0;

    int err = listen_all(s);
    for (unsigned i = 0; i < s->count && !err; i++) err = start_task(s, &s->sockets[i]);

    struct heist__waitnode *ended = NULL;
    heist__spin_lock(&s->lock);
    if (!err) s->lent = false;
    if (s->state == HEIST__SERVER_IS_STARTING) {
        s->state = err ? HEIST__SERVER_IS_CLOSED : HEIST__SERVER_IS_SERVING;
        if (err) ended = heist__waitq_claim_all(&s->ended, 0);
    }
    bool closed = s->state == HEIST__SERVER_IS_CLOSED;
    struct heist__waitnode *room = heist__waitq_claim_all(&s->room, 0);
    heist__spin_unlock(&s->lock);
    heist__waitq_wake_all(room);
    heist__waitq_wake_all(ended);
    if (closed) stop_all(s);
    heist__server_less(s, false);
    return err;
}

int heist_server_close(heist_server *s) {
    if (!s) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&s->lock);
    int state = s->state;
    bool mine = state != HEIST__SERVER_IS_CLOSED;
    struct heist__waitnode *ended = NULL, *room = NULL;
    if (mine) {
        s->state = HEIST__SERVER_IS_CLOSED;
        s->busy++;
        heist__server_hold(s);
        ended = heist__waitq_claim_all(&s->ended, 0);
        room = heist__waitq_claim_all(&s->room, 0);
    }
    heist__spin_unlock(&s->lock);
    if (!mine) return 0;
    heist__waitq_wake_all(room);
    heist__waitq_wake_all(ended);
    if (state != HEIST__SERVER_IS_STARTING) stop_all(s);
    heist__server_less(s, false);
    heist__server_drop(s);
    return 0;
}

/* ---- asking ---- */

int heist_server_is_serving(heist_server *s) {
    if (!s) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&s->lock);
    int yes = s->state == HEIST__SERVER_IS_SERVING;
    heist__spin_unlock(&s->lock);
    return yes;
}

static bool is_closed(heist_server *s) {
    heist__spin_lock(&s->lock);
    bool yes = s->state == HEIST__SERVER_IS_CLOSED;
    heist__spin_unlock(&s->lock);
    return yes;
}

int heist_server_sockets(heist_server *s, heist_addr *out, size_t room) {
    if (!s || (room && !out)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (is_closed(s)) return 0;
    int count = 0;
    for (unsigned i = 0; i < s->count; i++) {
        if (s->sockets[i].twin) continue;
        if ((size_t)count < room) out[count] = s->sockets[i].addr;
        count++;
    }
    return count;
}

int heist_server_get_stats(heist_server *s, heist_server_stats *out) {
    if (!s || !out || out->size < sizeof(*out)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&s->lock);
    out->sockets = s->state == HEIST__SERVER_IS_CLOSED ? 0 : s->count;
    out->connections = s->connections;
    out->accepted = s->accepted;
    out->failed = s->failed;
    out->shortages = s->shortages;
    out->pauses = s->pauses;
    heist__spin_unlock(&s->lock);
    return 0;
}

int heist_server_close_clients(heist_server *s) {
    if (!s) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    return heist__server_cut(s, HEIST__CUT_CLOSE);
}

int heist_server_abort_clients(heist_server *s) {
    if (!s) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    return heist__server_cut(s, HEIST__CUT_ABORT);
}
