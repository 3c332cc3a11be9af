/* The inside of a server.
 *
 * One short lock guards all that changes; nothing of the user's and no system call runs under it.
 *
 *   PAUSED ──start──> STARTING ──all listen──> SERVING ──close──> CLOSED
 *      └────────────────close, or a failure ──────────────────────^
 *
 *   sockets[i].listener   set at the making.  Whoever moves the state to CLOSED stops them, outside of the lock, and
 *                         nobody else does; in STARTING it is left to who starts, for he uses them.  A task that
 *                         accepts takes hold of its listener under the lock, and only when the state is SERVING: so it
 *                         has it before the closer comes to it, or not at all.  Until then it waits: a start that
 *                         fails has served nobody.
 *   busy                  tasks that accept, starters and closers on their way.  Each task that was made is counted
 * until its argument is freed, which happens once, ran or not. served                connections, each from before its
 * task is made until that task's argument is freed.
 *
 * The server has ended when it is CLOSED, nobody is busy and no connection is left: who waits for that stands in
 * `ended`.  Tasks that accept wait in `room` for a connection to end.  Both queues are woken as a whole, and each
 * looks again. */
#ifndef HEIST_NET_SERVER_H
#define HEIST_NET_SERVER_H

#include <heist/server.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/list.h"
#include "conc/atomic.h"
#include "conc/spin.h"
#include "sync/waitq.h"

enum { HEIST__SERVER_IS_PAUSED, HEIST__SERVER_IS_STARTING, HEIST__SERVER_IS_SERVING, HEIST__SERVER_IS_CLOSED };

struct heist__server_socket {
    heist_server *server;
    heist_listener *listener;
    heist_addr addr;
    bool twin;  /* one more on the address of the one before */
    int worker; /* who accepts is pinned to the loop of this worker; -1: to none */
};

struct heist_server {
    _Atomic(uint32_t) refs; /* the user's, of each task that accepts, of each connection */
    heist_serve_fn handler;
    void *user;
    heist_server_options opts;
    heist_stream_options stream_opts; /* where opts.stream points to, if anywhere */

    struct heist__spin lock;
    int state;
    bool lent;    /* the descriptor goes back when it cannot be served: until somebody else knows of the server */
    bool forever; /* a task is in serve_forever */
    unsigned busy;
    size_t connections;
    uint64_t departures; /* connections that have ended */
    uint64_t accepted, failed, shortages, pauses;
    int64_t short_until; /* a shortage before this instant is the one that was reported */
    struct heist__link served;
    unsigned doom; /* HEIST__CUT_…: what a drain has asked, also of a connection that is only now on its way here */
    int late;      /* connections that came after it */
    struct heist__waitq ended, room;

    char *path; /* of the Unix socket's file, or NULL */
    dev_t path_dev;
    ino_t path_ino;

    unsigned count;
    struct heist__server_socket sockets[];
};

/* What cut asks of a connection. */
#define HEIST__CUT_CLOSE 1u
#define HEIST__CUT_ABORT 2u
#define HEIST__CUT_CANCEL 4u

struct heist__served {
    struct heist__link link;  /* lock */
    heist_server *server;     /* NULL: no connection, but a mark of somebody who goes through the list */
    heist_conn *conn;         /* its task's: until it has become a stream */
    heist_stream *stream;     /* lock; NULL before */
    heist_task *task;         /* lock; NULL before its first step */
    unsigned cut;             /* lock: what was asked */
    struct sockaddr_in6 peer; /* or a shorter one; for a report, when the socket has forgotten it.  Family 0: none */
};

/* server.c */
heist_server *heist__server_hold(heist_server *s);
void heist__server_drop(heist_server *s);
/* Under the lock: has it ended? */
static inline bool heist__server_over(const heist_server *s) {
    return s->state == HEIST__SERVER_IS_CLOSED && !s->busy && !s->connections;
}
/* Takes one off `busy` or `connections`; wakes who waits for the end. */
void heist__server_less(heist_server *s, bool connection);

/* server_wait.c: waits in the queue unless ready(s, arg) says, under the lock, that there is no need to: 0, or
 * -ETIMEDOUT, -ECANCELED.  Look again afterwards. */
int heist__server_wait(heist_server *s, struct heist__waitq *q, bool (*ready)(const heist_server *s, uint64_t arg),
                       uint64_t arg, int64_t deadline_ns);

/* server_accept.c: the body of a task, and what frees its argument, a socket of the server. */
int heist__server_accept(void *arg, void **out);
void heist__server_accept_end(void *arg);

/* server_conn.c: takes the connection, and the record c, which is filled in here; a failure closes the connection. */
int heist__server_serve(heist_server *s, struct heist__served *c, heist_conn *conn, const heist_addr *peer);
/* Asks it of all connections that are there now: how many. */
int heist__server_cut(heist_server *s, unsigned what);
/* The last word, after the close: also to one that was accepted before it and is not in the list yet.  What `late` was
 * before is in *late. */
int heist__server_cut_off(heist_server *s, int *late);

/* server_unix.c */
int heist__server_bind_path(const heist_addr *addr, const char *path, heist_server *s, heist_listener **out);
void heist__server_remove_path(heist_server *s);

#endif
