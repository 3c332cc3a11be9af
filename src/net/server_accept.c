/* The task that accepts at one listening socket.  See server.h.
 *
 * It takes one connection after the other until the backlog is empty, and then waits for the next readiness: one event
 * serves a whole backlog (heist_accept tries before it waits).
 *
 * Full (max_connections): it waits until a connection has ended, and what comes meanwhile stays in the backlog.  With
 * several sockets two tasks may both find the last place free; the one that comes second holds its connection until
 * another place is.
 *
 * Short of something: it is reported, once for each shortage, and tried again after a pause, or when a connection
 * of ours has ended, for that gives descriptors back.  `departures` is read before the try, so that one that ends
 * between the try and the wait is not missed. */
#include <heist/error.h>
#include <heist/loop.h>
#include <heist/task.h>

#include "base/alloc.h"
#include "io/fd.h"
#include "net/listener.h"
#include "net/server.h"

#define PAUSE_NS INT64_C(1000000000)
/* No failure for so long: the shortage is over, and the next one is reported again. */
#define SHORTAGE_NS (3 * PAUSE_NS)
/* So many connections, and it lets the others of its loop in: a pinned task would not do so by itself. */
#define AT_ONCE 64

static bool has_room(const heist_server *s, uint64_t arg) {
    (void)arg;
    return s->state == HEIST__SERVER_IS_CLOSED || !s->opts.max_connections || s->connections < s->opts.max_connections;
}

static bool has_departed(const heist_server *s, uint64_t departures) {
    return s->state == HEIST__SERVER_IS_CLOSED || s->departures != departures;
}

/* 0: there is room; with `take`, it is ours.  HEIST_ECLOSED, -ECANCELED. */
static int wait_for_room(heist_server *s, bool take, uint64_t *departures) {
    bool waited = false;
    for (;;) {
        heist__spin_lock(&s->lock);
        bool closed = s->state == HEIST__SERVER_IS_CLOSED, room = has_room(s, 0);
        if (!closed && room && take) {
            s->connections++;
            s->accepted++;
        }
        if (!room && !waited) s->pauses++;
        *departures = s->departures;
        heist__spin_unlock(&s->lock);
        if (closed) return HEIST_ECLOSED;
        if (room) return 0;
        waited = true;
        int err = heist__server_wait(s, &s->room, has_room, 0, INT64_MAX);
        if (err) return err;
    }
}

/* Is it news?  HEIST_ECLOSED: no failure, the server was closed. */
static int note_shortage(heist_server *s) {
    int64_t now = heist__fd_now();
    heist__spin_lock(&s->lock);
    int result = s->state == HEIST__SERVER_IS_CLOSED ? HEIST_ECLOSED : now >= s->short_until;
    if (result >= 0) {
        s->short_until = now + SHORTAGE_NS;
        s->shortages++;
    }
    heist__spin_unlock(&s->lock);
    return result;
}

static HEIST_NOINLINE int pause_accepting(heist_server *s, const struct heist__server_socket *k, uint64_t departures,
                                          int code) {
    int news = note_shortage(s);
    if (news < 0) return news;
    if (news) {
        char where[128];
        heist_addr_format(&k->addr, where, sizeof(where));
        const char *const extra[] = {"address", where, NULL};
        heist_report report = HEIST_REPORT_INIT;
        report.message = "a server cannot accept connections now";
        report.code = code;
        report.extra = extra;
        heist_loop_call_exception_handler(heist__self()->loop, &report);
    }
    int err = heist__server_wait(s, &s->room, has_departed, departures, heist__fd_now() + PAUSE_NS);
    return err == -ETIMEDOUT ? 0 : err;
}

/* One connection: 0; a code that ends the task; or 1, and *code says what is missing. */
static int accept_one(heist_server *s, heist_listener *l, struct heist__served **spare, uint64_t *departures,
                      int *code) {
    int err = wait_for_room(s, false, departures);
    if (err) return err;
    /* The memory first: a connection that was taken cannot be put back into the backlog. */
    if (!*spare && !(*spare = heist__alloc(sizeof(**spare)))) {
        *code = -ENOMEM;
        return 1;
    }
    heist_conn *conn;
    heist_addr peer;
    err = heist__accept(l, INT64_MAX, &conn, &peer);
    if (err == HEIST_ECLOSED || err == -ECANCELED) return err;
    if (err) {
        *code = err;
        return 1;
    }
    uint64_t unused;
    err = wait_for_room(s, true, &unused);
    if (err) {
        heist_conn_close(conn);
        return err;
    }
    err = heist__server_serve(s, *spare, conn, &peer);
    if (err) {
        ++*departures; /* its own is no reason to try again at once */
        *code = err;
        return err == HEIST_ECLOSED ? err : 1;
    }
    *spare = NULL;
    return 0;
}

static int accept_all(struct heist__server_socket *k, heist_listener *l) {
    heist_server *s = k->server;
    struct heist__served *spare = NULL;
    unsigned turns = 0;
    int err;
    do {
        uint64_t departures = 0;
        int code = 0;
        err = accept_one(s, l, &spare, &departures, &code);
        if (err > 0) err = pause_accepting(s, k, departures, code);
        else if (!err && ++turns % AT_ONCE == 0) err = heist_yield();
    } while (!err);
    heist__free(spare);
    return err;
}

static bool has_started(const heist_server *s, uint64_t arg) {
    (void)arg;
    return s->state != HEIST__SERVER_IS_STARTING;
}

/* 0: it is held; HEIST_ECLOSED, -ECANCELED. */
static int hold_listener(heist_server *s, heist_listener *l) {
    for (;;) {
        heist__spin_lock(&s->lock);
        int state = s->state;
        int err = state == HEIST__SERVER_IS_SERVING ? heist__listener_hold(l) : HEIST_ECLOSED;
        heist__spin_unlock(&s->lock);
        if (state != HEIST__SERVER_IS_STARTING) return err;
        err = heist__server_wait(s, &s->room, has_started, 0, INT64_MAX);
        if (err) return err;
    }
}

int heist__server_accept(void *arg, void **out) {
    (void)out;
    struct heist__server_socket *k = arg;
    heist_listener *l = k->listener;
    int err = hold_listener(k->server, l);
    if (!err) {
        err = accept_all(k, l);
        heist__listener_leave(l);
    }
    return err == -ECANCELED ? err : 0;
}

/* It came to its end, or it was cancelled, perhaps before it began, or had no stack to run on: a server that does not
 * accept at one of its addresses any more would look alive, so it is closed. */
void heist__server_accept_end(void *arg) {
    struct heist__server_socket *k = arg;
    heist_server *s = k->server;
    heist_server_close(s);
    heist__server_less(s, false);
    heist__server_drop(s);
}
