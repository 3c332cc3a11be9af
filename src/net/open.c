/* Opening connections: names, addresses one after the other or staggered, one error for all.
 *
 * Staggered (RFC 8305): the addresses stand in an order in which the families alternate; each has a task of its own,
 * which begins `delay` seconds after the one before it, or as soon as one has failed.  The first that is connected
 * wins.  The opener waits until every task has ended, in an uncancellable section, before it returns: so attempts stand
 * in its frame's memory, and what a late one has still connected is closed. */
#include <heist/error.h>
#include <heist/flow.h>
#include <heist/resolve.h>
#include <heist/stream.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/options.h"
#include "base/sys.h"
#include "io/fd.h"
#include "net/conn.h"
#include "net/stream.h"

/* One address. */
struct attempt {
    heist_addr addr;
    const heist_addr *local;
    heist_task *task; /* NULL: not begun, or ended and seen */
    heist_conn *conn;
    int err;
};

static void try_one(struct attempt *a) {
    if (a->local && a->local->storage.ss_family != a->addr.storage.ss_family)
        a->err = -EADDRNOTAVAIL; /* no local address of this family */
    else a->err = heist__connect(&a->addr, a->local, INT64_MAX, &a->conn);
}

/* ---- one after the other ---- */

static heist_conn *try_in_turn(struct attempt *a, size_t n, int *err) {
    *err = 0;
    for (size_t i = 0; i < n && *err != -ECANCELED; i++) {
        try_one(&a[i]);
        *err = a[i].err;
        if (!*err) return a[i].conn;
    }
    return NULL;
}

/* ---- staggered ---- */

static int attempt_body(void *arg, void **out) {
    (void)out;
    try_one(arg);
    return 0; /* a failure is in the attempt */
}

/* Each family's addresses in their order, the families in turns, the first address's first. */
static void interleave(struct attempt *a, size_t n) {
    for (size_t at = 1; at < n; at++) {
        int before = a[at - 1].addr.storage.ss_family;
        size_t next = at;
        while (next < n && a[next].addr.storage.ss_family == before) next++;
        if (next == n) return; /* one family is left */
        struct attempt moved = a[next];
        memmove(&a[at + 1], &a[at], (next - at) * sizeof(*a));
        a[at] = moved;
    }
}

struct race {
    struct attempt *a;
    heist_future **waiting; /* room for all */
    size_t n, begun, running;
    double delay;
    heist_conn *winner;
};

/* Takes in those that have ended. */
static void look(struct race *r) {
    for (size_t i = 0; i < r->begun; i++) {
        struct attempt *a = &r->a[i];
        if (!a->task || !heist_future_done(a->task)) continue;
        int ended = heist_future_result(a->task, NULL); /* without a stack, or cancelled before its first step */
        if (ended < 0 && !a->conn) a->err = ended;
        heist_unref(a->task);
        a->task = NULL;
        r->running--;
        if (a->conn && !r->winner) {
            r->winner = a->conn;
            a->conn = NULL;
        }
    }
}

static int begin_next(struct race *r) {
    struct attempt *a = &r->a[r->begun];
    int err = heist_create_task(attempt_body, a, NULL, &a->task);
    if (err) {
        a->err = err;
        r->n = r->begun + 1; /* no more */
    } else {
        r->running++;
    }
    r->begun++;
    return err;
}

/* Until one has ended, or `seconds` have passed: 0 or a code. */
static int await_some(struct race *r, double seconds) {
    size_t n = 0;
    for (size_t i = 0; i < r->begun; i++)
        if (r->a[i].task) r->waiting[n++] = r->a[i].task;
    int done = heist_wait(r->waiting, n, HEIST_FIRST_COMPLETED, seconds, NULL);
    return done < 0 ? done : 0;
}

static int run_race(struct race *r) {
    int err = 0;
    bool begin = true;
    while (!r->winner && err != -ECANCELED) {
        if (begin && r->begun < r->n) err = begin_next(r);
        if (!r->running) {
            if (r->begun < r->n) continue;
            break;
        }
        size_t running = r->running;
        err = await_some(r, r->begun < r->n ? r->delay : HEIST_FOREVER);
        if (err && err != -ECANCELED) break;
        look(r);
        size_t failed = running - r->running - (r->winner != NULL);
        begin = failed > 0 || running == r->running; /* or its time has come */
    }
    return err;
}

static void end_race(struct race *r) {
    heist_uncancellable_begin();
    for (size_t i = 0; i < r->begun; i++) {
        if (!r->a[i].task) continue;
        heist_cancel(r->a[i].task);
        while (!heist_future_done(r->a[i].task)) (void)heist_await(r->a[i].task, NULL);
    }
    look(r);
    for (size_t i = 0; i < r->begun; i++) heist_conn_close(r->a[i].conn); /* late ones; NULL is allowed */
    heist_uncancellable_end();
}

static heist_conn *try_staggered(struct attempt *a, size_t n, double delay, int *err) {
    heist_future **waiting = heist__alloc(n * sizeof(heist_future *));
    if (!waiting) {
        *err = -ENOMEM;
        return NULL;
    }
    interleave(a, n);
    struct race r = {.a = a, .waiting = waiting, .n = n, .delay = delay};
    *err = run_race(&r);
    end_race(&r);
    heist__free(waiting);
    if (r.winner && *err == -ECANCELED) { /* it came with the request: nothing was opened */
        heist_conn_close(r.winner);
        return NULL;
    }
    if (!r.winner && !*err) *err = a[r.begun - 1].err;
    return r.winner;
}

/* ---- together ---- */

/* Names each address with its error. */
static int all_failed(const char *host, const char *port, const struct attempt *a, size_t n, int err) {
    char text[512];
    size_t at = 0;
    for (size_t i = 0; i < n && at < sizeof(text); i++) {
        char addr[128];
        heist_addr_format(&a[i].addr, addr, sizeof(addr));
        int m = snprintf(text + at, sizeof(text) - at, "%s%s: %s", i ? "; " : "", addr,
                         a[i].err ? heist_error_name(a[i].err) : "not tried");
        at += m > 0 ? (size_t)m : 0;
    }
    return host ? heist_fail(err, "no connection to %s port %s (%s)", host, port, text)
                : heist_fail(err, "no connection (%s)", text);
}

static bool options_ok(const heist_open_options *o) {
    return !o ||
           (heist__options_ok(o, sizeof(*o)) && !(o->flags & ~(HEIST_OPEN_KEEPALIVE | HEIST_OPEN_NAGLE)) &&
            (o->family == 0 || o->family == AF_INET || o->family == AF_INET6) && !isnan(o->happy_eyeballs_delay) &&
            o->happy_eyeballs_delay >= 0 && !(o->local && o->family && o->local->storage.ss_family != o->family) &&
            heist__stream_options_ok(o->stream));
}

/* A stream over it; on failure the connection is still the caller's. */
static int finish(heist_conn *c, const heist_open_options *opts, heist_stream **out) {
    unsigned flags = opts ? opts->flags : 0;
    if (flags & HEIST_OPEN_KEEPALIVE) {
        int on = 1;
        int err = heist__sys_setsockopt(c->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
        if (err) return err;
    }
    (void)heist_conn_set_nodelay(c, !(flags & HEIST_OPEN_NAGLE)); /* not TCP: there is nothing to set */
    return heist_stream_from_conn(c, opts ? opts->stream : NULL, out);
}

static int connect_all(const char *host, const char *port, const heist_addrinfo_list *list,
                       const heist_open_options *opts, heist_stream **out) {
    struct attempt *a = heist__zalloc(list->count * sizeof(*a));
    if (!a) return -ENOMEM;
    for (size_t i = 0; i < list->count; i++) {
        a[i].addr = list->at[i].addr;
        a[i].local = opts ? opts->local : NULL;
    }
    int err;
    double delay = opts ? opts->happy_eyeballs_delay : 0;
    heist_conn *c =
        delay > 0 && list->count > 1 ? try_staggered(a, list->count, delay, &err) : try_in_turn(a, list->count, &err);
    if (c) {
        err = finish(c, opts, out);
        if (err) heist_conn_close(c);
    } else if (err != -ECANCELED) {
        err = all_failed(host, port, a, list->count, err);
    }
    heist__free(a);
    return err;
}

static int open_host(const char *host, const char *port, const heist_open_options *opts, heist_stream **out) {
    heist_addrinfo_hints hints = HEIST_ADDRINFO_HINTS_INIT;
    hints.family = opts ? opts->family : 0;
    hints.socktype = SOCK_STREAM;
    heist_addrinfo_list *list;
    int err = heist_getaddrinfo(host, port, &hints, HEIST_FOREVER, &list);
    if (err) return err;
    err = connect_all(host, port, list, opts, out);
    heist_freeaddrinfo(list);
    return err;
}

int heist_open_connection(const char *host, const char *port, const heist_open_options *opts, heist_stream **out) {
    if (!out || !options_ok(opts)) return -EINVAL;
    heist_conn *given = opts ? opts->conn : NULL;
    if (given ? (host || port || opts->local || opts->family || !given->is_stream) : (!host || !port || !*port))
        return -EINVAL;
    int err = heist__fd_entry();
    if (err) return err;
    err = given ? finish(given, opts, out) : open_host(host, port, opts, out);
    heist__fd_skipped();
    return err;
}

int heist_open_unix_connection(const char *path, const heist_open_options *opts, heist_stream **out) {
    char text[128];
    heist_addr addr;
    if (!path || !out || !options_ok(opts)) return -EINVAL;
    if (opts && (opts->local || opts->family || opts->happy_eyeballs_delay > 0 || opts->conn)) return -EINVAL;
    int n = snprintf(text, sizeof(text), "unix:%s", path);
    if (n < 0 || (size_t)n >= sizeof(text) || heist_addr_parse(text, &addr)) return -EINVAL;
    int err = heist__fd_entry();
    if (err) return err;
    heist_conn *c;
    err = heist__connect(&addr, NULL, INT64_MAX, &c);
    if (!err) {
        err = finish(c, opts, out);
        if (err) heist_conn_close(c);
    } else if (err != -ECANCELED) {
        err = heist_fail(err, "no connection to %s", path);
    }
    heist__fd_skipped();
    return err;
}
