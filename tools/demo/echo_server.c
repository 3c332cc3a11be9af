/* The echo server; echo_server.h has the contract.
 *
 * Threads: start, drain, totals and free on a plain thread; acceptors and connections
 * are unpinned tasks, so any worker runs them.  The list of open connections has a lock
 * of its own, held for a few instructions and never across a suspension.
 * Invariant: a connection is in the list from before its task can run until end_connection,
 * which runs exactly once, as the task's arg_free: its descriptor is open while it is listed,
 * and `totals.open` reaches 0 only after the last descriptor was closed. */
#include "echo_server.h"

#include <heist.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#define CHUNK 4096       /* one page of the task's stack; longer messages take several turns */
#define FULL_PAUSE 0.02  /* out of descriptors: wait for some connection to end */

struct connection {
    struct echo_server *server;
    heist_conn *conn;
    struct connection *prev, *next; /* in the server's list */
    uint64_t bytes_in, bytes_out;   /* written by the task alone */
    int outcome;                    /* 0: the peer ended it */
};

struct acceptor {
    struct echo_server *server;
    heist_listener *listener;
    heist_task *task;
};

struct echo_server {
    heist_runtime *rt;
    heist_addr address;
    int listeners; /* made so far */
    _Atomic(uint64_t) echoes;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t all_ended;
    struct connection *open;
    struct echo_totals totals;
    struct acceptor acceptors[];
};

/* ---- a connection ---- */

static int serve_connection(void *arg, void **out) {
    (void)out;
    struct connection *c = arg;
    char chunk[CHUNK];
    for (;;) {
        ptrdiff_t n = heist_conn_read(c->conn, chunk, sizeof chunk, HEIST_FOREVER);
        if (n <= 0) {
            c->outcome = (int)n;
            break;
        }
        c->bytes_in += (uint64_t)n;
        size_t written = 0;
        c->outcome = heist_conn_write(c->conn, chunk, (size_t)n, HEIST_FOREVER, &written);
        c->bytes_out += written;
        if (c->outcome < 0) break;
        atomic_fetch_add_explicit(&c->server->echoes, 1, memory_order_relaxed);
    }
    return c->outcome == -ECANCELED ? -ECANCELED : 0; /* a peer that vanished is no failure of ours */
}

static void begin_connection(struct connection *c) {
    struct echo_server *s = c->server;
    pthread_mutex_lock(&s->lock);
    c->next = s->open;
    if (c->next) c->next->prev = c;
    s->open = c;
    s->totals.open++;
    s->totals.accepted++;
    pthread_mutex_unlock(&s->lock);
}

/* The task's arg_free: also runs when the task was cancelled before its first step. */
static void end_connection(void *arg) {
    struct connection *c = arg;
    struct echo_server *s = c->server;
    pthread_mutex_lock(&s->lock);
    if (c->prev)
        c->prev->next = c->next;
    else
        s->open = c->next;
    if (c->next) c->next->prev = c->prev;
    s->totals.bytes_in += c->bytes_in;
    s->totals.bytes_out += c->bytes_out;
    s->totals.failures += c->outcome < 0;
    pthread_mutex_unlock(&s->lock);
    heist_conn_close(c->conn);
    pthread_mutex_lock(&s->lock);
    if (--s->totals.open == 0) pthread_cond_broadcast(&s->all_ended);
    pthread_mutex_unlock(&s->lock);
    free(c);
}

/* ---- accepting ---- */

static int serve_one(struct echo_server *s, heist_conn *conn) {
    heist_task_options options = HEIST_TASK_OPTIONS_INIT;
    struct connection *c = calloc(1, sizeof *c);
    if (!c) {
        heist_conn_close(conn);
        return -ENOMEM;
    }
    c->server = s;
    c->conn = conn;
    begin_connection(c);
    options.arg_free = end_connection;
    options.name = "connection";
    int err = heist_create_task(serve_connection, c, &options, NULL);
    if (err < 0) {
        c->outcome = err;
        end_connection(c); /* a call that failed leaves the argument with the caller */
    }
    return err;
}

static int is_shortage(int err) {
    return err == -EMFILE || err == -ENFILE || err == -ENOMEM || err == -EAGAIN || err == -ENOBUFS;
}

static int accept_all(void *arg, void **out) {
    (void)out;
    struct acceptor *a = arg;
    for (;;) {
        heist_conn *conn = NULL;
        int err = heist_accept(a->listener, HEIST_FOREVER, &conn);
        if (err == 0) err = serve_one(a->server, conn);
        if (is_shortage(err)) err = heist_sleep(FULL_PAUSE);
        if (err == -ECONNABORTED) continue; /* the peer went away before it was served */
        if (err == HEIST_ECLOSED) return 0; /* drain */
        if (err < 0) return err;
    }
}

/* ---- listening ---- */

struct listening {
    const heist_addr *where;
    heist_listener *listener;
};

/* Runs pinned on the worker whose poll is to watch the listener. */
static int listen_here(void *arg, void **out) {
    (void)out;
    struct listening *l = arg;
    heist_listen_options options = HEIST_LISTEN_OPTIONS_INIT;
    options.flags = HEIST_LISTEN_REUSEPORT;
    return heist_listen(l->where, &options, &l->listener);
}

static int add_listener(struct echo_server *s, int worker, const heist_addr *where) {
    heist_loop *loop = heist_runtime_loop(s->rt, worker);
    heist_task_options options = HEIST_TASK_OPTIONS_INIT;
    struct listening l = {where, NULL};
    heist_task *task = NULL;
    options.flags = HEIST_TASK_PINNED;
    int err = heist_loop_create_task(loop, listen_here, &l, &options, &task);
    if (err < 0) return err;
    err = heist_await(task, NULL);
    heist_unref(task);
    if (err < 0) return err;
    struct acceptor *a = &s->acceptors[s->listeners];
    a->server = s;
    a->listener = l.listener;
    if (s->listeners == 0) err = heist_listener_addr(l.listener, &s->address);
    options.flags = 0; /* unpinned: a busy worker shall not keep others from accepting */
    options.name = "acceptor";
    if (err == 0) err = heist_loop_create_task(loop, accept_all, a, &options, &a->task);
    if (err < 0)
        heist_listener_close(l.listener);
    else
        s->listeners++;
    return err;
}

int echo_server_start(heist_runtime *rt, const heist_addr *where, struct echo_server **out) {
    int workers = heist_runtime_workers(rt), err = 0;
    struct echo_server *s = calloc(1, sizeof *s + (size_t)workers * sizeof s->acceptors[0]);
    pthread_condattr_t attr;
    if (!s) return -ENOMEM;
    s->rt = rt;
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->all_ended, &attr);
    pthread_condattr_destroy(&attr);
    for (int i = 0; i < workers && err == 0; i++) err = add_listener(s, i, i == 0 ? where : &s->address);
    if (err < 0) {
        if (echo_server_drain(s, 5.0, 1) == 0) echo_server_free(s); /* else it must outlive its connections */
        return err;
    }
    *out = s;
    return 0;
}

/* ---- the rest of its life ---- */

const heist_addr *echo_server_addr(const struct echo_server *s) { return &s->address; }

const _Atomic(uint64_t) *echo_server_echoes(const struct echo_server *s) { return &s->echoes; }

static void stop_accepting(struct echo_server *s) {
    for (int i = 0; i < s->listeners; i++) heist_listener_close(s->acceptors[i].listener);
    for (int i = 0; i < s->listeners; i++) {
        (void)heist_await(s->acceptors[i].task, NULL); /* how it ended matters no more */
        heist_unref(s->acceptors[i].task);
    }
    s->listeners = 0;
}

size_t echo_server_drain(struct echo_server *s, double patience, int hurry) {
    struct timespec until;
    stop_accepting(s);
    clock_gettime(CLOCK_MONOTONIC, &until);
    double when = (double)until.tv_sec + (double)until.tv_nsec / 1e9 + patience;
    until.tv_sec = (time_t)when;
    until.tv_nsec = (long)((when - (double)until.tv_sec) * 1e9);
    pthread_mutex_lock(&s->lock);
    if (hurry)
        for (struct connection *c = s->open; c; c = c->next) shutdown(heist_conn_fd(c->conn), SHUT_RD);
    while (s->totals.open > 0 && pthread_cond_timedwait(&s->all_ended, &s->lock, &until) == 0) {}
    size_t open = s->totals.open;
    pthread_mutex_unlock(&s->lock);
    return open;
}

void echo_server_totals(struct echo_server *s, struct echo_totals *out) {
    pthread_mutex_lock(&s->lock);
    *out = s->totals;
    pthread_mutex_unlock(&s->lock);
}

void echo_server_free(struct echo_server *s) {
    pthread_cond_destroy(&s->all_ended);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
