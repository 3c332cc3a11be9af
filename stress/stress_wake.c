/* stress/stress_wake.c: no wake-up is lost.
 *
 * Law: whoever waits is answered, however long either side has slept before: tasks,
 * pinned tasks and plain threads over channels, futures, sockets and descriptors; both
 * doors; timers, of which none is early.  A task that holds its worker delays nobody
 * else: queued tasks, due timers and ready sockets of tasks are served by another
 * worker.  And an idle runtime is idle.
 * Threads: a plain thread for each side of a cell that is not a task; the workers.
 * Invariant: a side never waits without its slot of the watchdog set, so one lost
 * wake-up ends the program though all other cells go on. */
#include "common.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CELLS 48

enum kind {
    PINGPONG,
    FUTURE,
    DEADLINE,
    DOOR,
    SLEEPER,
    TIMER,
    DESCRIPTOR,
    STREAM,
    GATHER,
    BLOCKER,
    HOLD_TASK,
    HOLD_TIMER,
    HOLD_IO,
    KINDS
};
static const char *const kind_name[KINDS] = {
    "channel ping-pong", "future", "future against deadline", "door", "sleep", "call_later", "descriptor", "stream",
    "gather", "blocker", "held: task", "held: timer", "held: socket",
};

struct cell;
struct side {
    struct cell *cell;
    int slot; /* of the watchdog */
    bool second, plain;
    struct stress_rng rng;
    pthread_t thread;
    heist_task *task;
    _Atomic(bool) ended;
};

struct cell {
    enum kind kind;
    heist_runtime *rt[2];
    heist_channel *to, *back;
    int pair[2];
    heist_conn *conn[2];
    double longest; /* pause, seconds */
    struct side side[2];
};

static struct cell cells[CELLS];
static double round_end;
static _Atomic(uint64_t) exchanges[KINDS];
static _Atomic(int) holders[2]; /* in each runtime; fewer than its workers, so that one is left to help */

static bool more(void) {
    return stress_now() < round_end && stress_going();
}

/* Any caller: a task suspends or holds its worker, a plain thread sleeps. */
static void rest(struct side *s) {
    double longest = s->cell->longest;
    double span = longest * (double)stress_between(&s->rng, 0, 4096) / 4096;
    int err = 0;
    switch (stress_below(&s->rng, 8)) {
    case 0:
    case 1: break;
    case 2: err = heist_yield(); break;
    case 3: stress_spin(span < 5e-5 ? span : 5e-5); break;
    case 4:
        if (span < 0.02) stress_block(span); /* a task holds its worker: the others must not suffer */
        break;
    default: {
        double before = heist_time();
        err = heist_sleep(span);
        double over = heist_time() - before - span;
        stress_check(over >= -1e-8, "a sleep of %.9f s came back %.9f s early", span, -over);
        stress_latency(over);
    }
    }
    stress_check(err == 0, "a pause answered %s", heist_error_name(err));
}

/* The value that travels: when it was handed over. */
struct token {
    double sent;
    uint64_t number;
};

static void arrived(struct cell *c, const struct token *t, uint64_t want) {
    stress_check(t->number == want, "%s: got number %" PRIu64 " instead of %" PRIu64, kind_name[c->kind], t->number,
                 want);
    stress_latency(stress_now() - t->sent);
    s_add(&exchanges[c->kind], 1);
    stress_progress(1);
}

/* ---- the kinds: first side, second side ---- */

static void pingpong(struct side *s) {
    struct cell *c = s->cell;
    struct token mine;
    double idle = 2 * c->longest;
    for (uint64_t i = 0;; i++) {
        if (!s->second) {
            if (!more()) break;
            rest(s);
            mine = (struct token){stress_now(), i};
            stress_wait_begin(s->slot, "channel send", idle);
            int err = heist_channel_send(c->to, &mine);
            stress_wait_end(s->slot);
            stress_check(err == 0, "a send answered %s", heist_error_name(err));
        }
        void *got = NULL;
        stress_wait_begin(s->slot, "channel recv", idle);
        int err = heist_channel_recv(s->second ? c->to : c->back, &got);
        stress_wait_end(s->slot);
        if (err == HEIST_ESHUTDOWN && s->second) break;
        stress_check(err == 0 && got, "a recv answered %s", heist_error_name(err));
        if (err < 0) break;
        arrived(c, got, i);
        if (s->second) {
            rest(s);
            mine = (struct token){stress_now(), i};
            err = heist_channel_send(c->back, &mine);
            stress_check(err == 0, "a send back answered %s", heist_error_name(err));
        }
    }
    if (!s->second) heist_channel_close(c->to);
}

/* The first side waits for what the second sets.  DEADLINE: both at about the same time. */
static void future(struct side *s) {
    struct cell *c = s->cell;
    if (s->second) {
        for (uint64_t i = 0;; i++) {
            void *got = NULL;
            stress_wait_begin(s->slot, "recv of a future", 2 * c->longest);
            int err = heist_channel_recv(c->to, &got);
            stress_wait_end(s->slot);
            if (err == HEIST_ESHUTDOWN) return;
            stress_check(err == 0, "a recv answered %s", heist_error_name(err));
            if (err < 0) return;
            heist_future *f = got;
            rest(s);
            struct token *t = stress_alloc(sizeof *t);
            *t = (struct token){stress_now(), i};
            err = heist_future_set_result(f, t, free);
            stress_check(err == 0, "set_result answered %s", heist_error_name(err));
            heist_unref(f);
        }
    }
    for (uint64_t i = 0; more(); i++) {
        heist_future *f = NULL;
        int err = heist_future_new(NULL, &f);
        stress_check(err == 0, "a future: %s", heist_error_name(err));
        if (err < 0) break;
        err = heist_channel_send(c->to, heist_ref(f));
        stress_check(err == 0, "a send answered %s", heist_error_name(err));
        rest(s);
        void *got = NULL;
        if (c->kind == DEADLINE) {
            double deadline = heist_time() + c->longest * (double)stress_below(&s->rng, 1024) / 1024;
            stress_wait_begin(s->slot, "await_until", c->longest);
            err = heist_await_until(f, deadline, &got);
            stress_wait_end(s->slot);
            if (err == -ETIMEDOUT)
                stress_check(heist_time() >= deadline - 1e-8, "await_until came back %.9f s early",
                             deadline - heist_time());
        }
        if (!got) {
            stress_wait_begin(s->slot, "await", 2 * c->longest);
            err = heist_await(f, &got);
            stress_wait_end(s->slot);
        }
        stress_check(err == 0 && got, "await answered %s", heist_error_name(err));
        if (got) arrived(c, got, i);
        heist_unref(f);
    }
    heist_channel_close(c->to);
}

static int door_body(void *arg, void **out) {
    (void)arg;
    struct token *t = stress_alloc(sizeof *t);
    t->sent = stress_now();
    *out = t;
    return 0;
}

static int door_callback(void *arg) {
    heist_future *f = arg;
    struct token *t = stress_alloc(sizeof *t);
    t->sent = stress_now();
    int err = heist_future_set_result(f, t, free);
    stress_check(err == 0, "set_result from a callback answered %s", heist_error_name(err));
    return 0;
}

static void drop_future(void *arg) {
    heist_unref(arg);
}

/* Submit to a sleeping runtime and wait for the answer.  TIMER: through call_later. */
static void door(struct side *s) {
    struct cell *c = s->cell;
    heist_runtime *rt = c->rt[1];
    while (more()) {
        rest(s);
        int w = (int)stress_below(&s->rng, (uint64_t)heist_runtime_workers(rt));
        heist_loop *loop = heist_runtime_loop(rt, w);
        heist_task_options o = HEIST_TASK_OPTIONS_INIT;
        o.result_free = free;
        heist_call_options call = HEIST_CALL_OPTIONS_INIT;
        call.arg_free = drop_future;
        heist_future *f = NULL;
        double before = stress_now(), when = 0;
        int err;
        unsigned which = (unsigned)stress_below(&s->rng, c->kind == TIMER ? 1 : 5);
        if (which < 3) {
            err = heist_future_new(NULL, &f);
            if (err == 0) {
                heist_ref(f);
                if (c->kind == TIMER) {
                    when = heist_loop_time(loop) + c->longest * (double)stress_below(&s->rng, 1024) / 1024;
                    err = heist_loop_call_at(loop, when, door_callback, f, &call, NULL);
                } else if (which == 0) {
                    err = heist_runtime_call_soon(rt, door_callback, f, &call, NULL);
                } else {
                    err = heist_loop_call_soon_threadsafe(loop, door_callback, f, &call, NULL);
                }
            }
        } else if (which == 3) {
            err = heist_runtime_run_coroutine(rt, door_body, NULL, &o, &f);
        } else {
            o.flags = stress_chance(&s->rng, 50) ? HEIST_TASK_PINNED : 0;
            err = heist_run_coroutine_threadsafe(loop, door_body, NULL, &o, &f);
        }
        stress_check(err == 0, "a submission answered %s", heist_error_name(err));
        if (err < 0) return;
        void *got = NULL;
        stress_wait_begin(s->slot, c->kind == TIMER ? "await of a timer" : "await of a submission", c->longest);
        err = heist_await(f, &got);
        stress_wait_end(s->slot);
        stress_check(err == 0 && got, "await answered %s", heist_error_name(err));
        if (got) {
            struct token *t = got;
            if (when > 0) stress_check(t->sent >= when - 1e-8, "a timer ran %.9f s early", when - t->sent);
            stress_latency(t->sent - (when > 0 ? when : before)); /* there */
            arrived(c, t, 0);                                     /* and back */
        }
        heist_unref(f);
    }
}

static void sleeper(struct side *s) {
    while (more()) {
        double span = s->cell->longest * (double)stress_below(&s->rng, 1024) / 1024;
        double until = heist_time() + span;
        stress_wait_begin(s->slot, "sleep_until", span);
        int err = heist_sleep_until(until);
        stress_wait_end(s->slot);
        double late = heist_time() - until;
        stress_check(err == 0 && late >= -1e-8, "a sleep answered %s, %.9f s late", heist_error_name(err), late);
        stress_latency(late);
        s_add(&exchanges[SLEEPER], 1);
        stress_progress(1);
    }
}

static int readable(void *arg) {
    struct side *s = arg;
    struct token t;
    ssize_t n = read(s->cell->pair[0], &t, sizeof t);
    if (n < 0 && errno == EAGAIN) return 0; /* level or edge: a spurious look is allowed */
    stress_check(n == (ssize_t)sizeof t, "a reader read %zd bytes", n);
    if (n != (ssize_t)sizeof t) return 0;
    struct token *copy = stress_alloc(sizeof *copy);
    *copy = t;
    int err = heist_channel_try_send(s->cell->to, copy);
    stress_check(err == 0, "a reader's try_send answered %s", heist_error_name(err));
    return 0;
}

/* The second side writes to a descriptor, a reader callback passes it on, the first side waits for it. */
static void descriptor(struct side *s) {
    struct cell *c = s->cell;
    heist_loop *loop = heist_runtime_loop(c->rt[1], 0);
    if (s->second) {
        for (;;) {
            void *got = NULL;
            stress_wait_begin(s->slot, "recv of a request to write", 2 * c->longest);
            int err = heist_channel_recv(c->back, &got);
            stress_wait_end(s->slot);
            if (err < 0) return;
            rest(s);
            struct token t = *(struct token *)got;
            t.sent = stress_now();
            ssize_t n = write(c->pair[1], &t, sizeof t);
            stress_check(n == (ssize_t)sizeof t, "a write of a token wrote %zd", n);
        }
    }
    int err = heist_loop_add_reader(loop, c->pair[0], readable, s, NULL);
    stress_check(err == 0, "add_reader answered %s", heist_error_name(err));
    for (uint64_t i = 0; err == 0 && more(); i++) {
        struct token ask = {0, i};
        rest(s);
        err = heist_channel_send(c->back, &ask);
        stress_check(err == 0, "a send answered %s", heist_error_name(err));
        void *got = NULL;
        stress_wait_begin(s->slot, "what a reader callback passes on", 2 * c->longest);
        err = heist_channel_recv(c->to, &got);
        stress_wait_end(s->slot);
        stress_check(err == 0 && got, "a recv answered %s", heist_error_name(err));
        if (got) arrived(c, got, i);
        free(got);
    }
    int gone = heist_loop_remove_reader(loop, c->pair[0]);
    stress_check(gone == 1, "remove_reader answered %d", gone);
    heist_channel_close(c->back);
}

/* A task reads a socket; the other side is a task too, or a plain thread with plain calls. */
static void stream(struct side *s) {
    struct cell *c = s->cell;
    int fd = c->pair[s->second];
    heist_conn *conn = c->conn[s->second];
    for (uint64_t i = 0;; i++) {
        if (!s->second || i) {
            if (!s->second && !more()) break;
            rest(s);
            struct token t = {stress_now(), i - s->second};
            bool sent = s->plain ? write(fd, &t, sizeof t) == (ssize_t)sizeof t
                                 : heist_conn_write(conn, &t, sizeof t, HEIST_FOREVER, NULL) == 0;
            stress_check(sent, "a write to a socket failed");
        }
        struct token t;
        size_t have = 0;
        ptrdiff_t n = 0;
        stress_wait_begin(s->slot, s->plain ? "plain read of a socket" : "read of a socket", 2 * c->longest);
        do {
            n = s->plain ? read(fd, (char *)&t + have, sizeof t - have)
                         : heist_conn_read(conn, (char *)&t + have, sizeof t - have, HEIST_FOREVER);
            if (n > 0) have += (size_t)n;
        } while (have < sizeof t && n > 0);
        stress_wait_end(s->slot);
        if (n == 0 && s->second) break;
        stress_check(have == sizeof t, "a read of a socket answered %td", n);
        if (have < sizeof t) break;
        arrived(c, &t, i);
    }
    if (s->second) return;
    if (s->plain) shutdown(fd, SHUT_WR);
    else heist_conn_shutdown(conn);
}

static int gathered(void *arg, void **out) {
    struct stress_rng rng = {(uint64_t)(uintptr_t)arg};
    if (stress_chance(&rng, 50)) {
        int err = heist_sleep((double)stress_between(&rng, 0, 3000) * 1e-6);
        if (err < 0) return err;
    }
    return door_body(NULL, out);
}

static void gather(struct side *s) {
    struct cell *c = s->cell;
    while (more()) {
        rest(s);
        heist_task *t[8] = {0};
        void *got[8] = {0};
        size_t n = (size_t)stress_between(&s->rng, 1, 8);
        heist_task_options o = HEIST_TASK_OPTIONS_INIT;
        o.result_free = free;
        for (size_t i = 0; i < n; i++) {
            int err = heist_runtime_run_coroutine(c->rt[i & 1], gathered, (void *)(uintptr_t)stress_next(&s->rng), &o,
                                                  &t[i]);
            stress_check(err == 0, "a submission answered %s", heist_error_name(err));
            if (err < 0) n = i;
        }
        stress_wait_begin(s->slot, "gather", 0.003);
        int err = heist_gather(t, n, got, 0);
        stress_wait_end(s->slot);
        stress_check(err == 0, "gather answered %s", heist_error_name(err));
        for (size_t i = 0; i < n; i++) {
            stress_check(got[i] != NULL, "gather gave no result");
            heist_unref(t[i]);
        }
        s_add(&exchanges[GATHER], 1);
        stress_progress(1);
    }
}

/* Holds its worker now and then; whoever else was there must be served by another. */
static void blocker(struct side *s) {
    while (more()) {
        stress_block(s->cell->longest * (double)stress_below(&s->rng, 1024) / 1024);
        int err = heist_sleep(s->cell->longest * (double)stress_below(&s->rng, 4096) / 1024);
        stress_check(err == 0, "a sleep answered %s", heist_error_name(err));
        s_add(&exchanges[BLOCKER], 1);
        stress_progress(1);
    }
}

struct held {
    enum kind kind;
    heist_conn *conn;
    _Atomic(bool) served;
};

static int held_child(void *arg, void **out) {
    (void)out;
    struct held *h = arg;
    int err = 0;
    char byte;
    if (h->kind == HOLD_TIMER) err = heist_sleep(0.002);
    if (h->kind == HOLD_IO && heist_conn_read(h->conn, &byte, 1, HEIST_FOREVER) != 1) err = -EIO;
    stress_check(err == 0, "a held child met %s", heist_error_name(err));
    s_set(&h->served, true);
    return err;
}

/* Makes a child, and does not let go of its worker until the child has run: only another worker can help. */
static void hold(struct side *s) {
    struct cell *c = s->cell;
    heist_runtime *rt = NULL;
    heist_loop *loop;
    if (heist_get_running_loop(&loop) == 0) rt = heist_loop_runtime(loop);
    if (!rt || heist_runtime_workers(rt) < 2) {
        sleeper(s);
        return;
    }
    _Atomic(int) *counter = &holders[rt == c->rt[0] ? 0 : 1];
    while (more()) {
        rest(s);
        if (s_add(counter, 1) >= heist_runtime_workers(rt) - 1) {
            s_add(counter, -1);
            heist_sleep(0.001);
            continue;
        }
        struct held h = {.kind = c->kind, .conn = c->conn[0]};
        heist_task *t = NULL;
        int err = heist_create_task(held_child, &h, NULL, &t);
        stress_check(err == 0, "a child: %s", heist_error_name(err));
        if (err == 0) {
            /* half of the time the child has begun, on this worker or another, and waits there */
            if (stress_chance(&s->rng, 50)) err = heist_sleep(0.0005);
            stress_check(err == 0, "a sleep answered %s", heist_error_name(err));
            double before = stress_now();
            stress_wait_begin(s->slot, kind_name[c->kind], 0.002);
            if (c->kind == HOLD_IO)
                stress_check(write(c->pair[1], "x", 1) == 1, "a write to a socket failed: %s", strerror(errno));
            while (!s_get(&h.served)) stress_block(2e-5);
            stress_wait_end(s->slot);
            stress_latency(stress_now() - before);
            s_add(counter, -1);
            err = heist_await(t, NULL);
            stress_check(err == 0, "await answered %s", heist_error_name(err));
            heist_unref(t);
            s_add(&exchanges[c->kind], 1);
            stress_progress(1);
        } else {
            s_add(counter, -1);
            break;
        }
    }
}

static void play(struct side *s) {
    switch (s->cell->kind) {
    case PINGPONG: pingpong(s); break;
    case FUTURE:
    case DEADLINE: future(s); break;
    case DOOR:
    case TIMER: door(s); break;
    case SLEEPER: sleeper(s); break;
    case DESCRIPTOR: descriptor(s); break;
    case STREAM: stream(s); break;
    case GATHER: gather(s); break;
    case BLOCKER: blocker(s); break;
    default: hold(s); break;
    }
    s_set(&s->ended, true);
}

static int side_body(void *arg, void **out) {
    (void)out;
    play(arg);
    return 0;
}

static void *side_thread(void *arg) {
    play(arg);
    return NULL;
}

/* ---- a round ---- */

static void dump(FILE *to) {
    for (int i = 0; i < CELLS; i++) {
        struct cell *c = &cells[i];
        if (!c->rt[0] || (s_get(&c->side[0].ended) && s_get(&c->side[1].ended))) continue;
        fprintf(to, "  cell %d, %s: sides %s%s and %s%s\n", i, kind_name[c->kind],
                c->side[0].plain ? "thread" : "task", s_get(&c->side[0].ended) ? " (ended)" : "",
                c->side[1].plain ? "thread" : "task", s_get(&c->side[1].ended) ? " (ended)" : "");
    }
}

static bool has_second(enum kind k) {
    return k == PINGPONG || k == FUTURE || k == DEADLINE || k == DESCRIPTOR || k == STREAM;
}

static int adopt_body(void *arg, void **out) { /* a connection is made by a task, on its running loop */
    (void)out;
    struct cell *c = arg;
    for (int i = 0; i < 2; i++) {
        if (c->side[i].plain) continue;
        int err = heist_conn_open(c->pair[i], &c->conn[i]);
        if (err < 0) return err;
    }
    return 0;
}

static void open_cell(struct cell *c, int index, struct stress_rng *rng, heist_runtime *a, heist_runtime *b) {
    memset(c, 0, sizeof *c);
    do c->kind = (enum kind)stress_below(rng, KINDS);
    while (stress_opt.skip && strstr(kind_name[c->kind], stress_opt.skip));
    c->rt[0] = a;
    c->rt[1] = b;
    c->pair[0] = c->pair[1] = -1;
    static const double longest[] = {5e-5, 1e-3, 1e-2, 0.05, 0.2};
    c->longest = longest[stress_below(rng, 5)];
    size_t room = stress_below(rng, 3);
    int err = heist_channel_new(c->kind == DESCRIPTOR ? 1 : room, &c->to);
    if (err == 0) err = heist_channel_new(room, &c->back);
    if (err < 0) stress_die("a channel: %s", heist_strerror(err));
    for (int i = 0; i < 2; i++) {
        struct side *s = &c->side[i];
        s->cell = c;
        s->slot = index * 2 + i;
        s->second = i == 1;
        s->plain = stress_chance(rng, 35) && c->kind < BLOCKER;
        s->rng = stress_stream(rng, (uint64_t)s->slot);
    }
    if (c->kind == STREAM && c->side[0].plain) c->side[1].plain = false;
    bool adopted = c->kind == STREAM || c->kind == HOLD_IO;
    if (c->kind == HOLD_IO) c->side[1].plain = true; /* the write is plain */
    if (c->kind == DESCRIPTOR || adopted) {
        int flags = SOCK_CLOEXEC | (c->kind == DESCRIPTOR ? SOCK_NONBLOCK : 0);
        if (socketpair(AF_UNIX, SOCK_STREAM | flags, 0, c->pair) < 0)
            stress_die("a socket pair: %s", strerror(errno));
    }
    if (adopted) {
        heist_task *t = NULL;
        err = heist_runtime_run_coroutine(a, adopt_body, c, NULL, &t);
        if (err == 0) err = heist_await(t, NULL);
        heist_unref(t);
        if (err < 0) stress_die("a connection: %s", heist_strerror(err));
    }
}

static void start_side(struct side *s, struct stress_rng *rng) {
    if (s->plain) {
        stress_thread(&s->thread, side_thread, s);
        return;
    }
    /* the sides of a stream stand in one runtime: a connection is watched by the loop that made it */
    enum kind kind = s->cell->kind;
    heist_runtime *rt = s->cell->rt[kind == STREAM || kind == HOLD_IO ? 0 : stress_below(rng, 2)];
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    char name[64];
    snprintf(name, sizeof name, "%s/%d", kind_name[kind], s->slot);
    o.name = name;
    int err;
    if (stress_chance(rng, 30)) {
        o.flags = HEIST_TASK_PINNED;
        int w = (int)stress_below(rng, (uint64_t)heist_runtime_workers(rt));
        err = heist_run_coroutine_threadsafe(heist_runtime_loop(rt, w), side_body, s, &o, &s->task);
    } else {
        err = heist_runtime_run_coroutine(rt, side_body, s, &o, &s->task);
    }
    if (err < 0) stress_die("a task: %s", heist_strerror(err));
}

static void end_side(struct side *s) {
    if (s->plain) {
        stress_join(s->thread);
        return;
    }
    int err = heist_await(s->task, NULL);
    stress_check(err == 0, "a task ended with %s", heist_error_name(err));
    heist_unref(s->task);
}

static void close_cell(struct cell *c) {
    for (int i = 0; i < 2; i++) {
        if (c->conn[i]) heist_conn_close(c->conn[i]);
        else if (c->pair[i] >= 0) close(c->pair[i]);
    }
    heist_channel_unref(c->to);
    heist_channel_unref(c->back);
    c->rt[0] = NULL;
}

/* Promise: no thread spins for ever, an idle runtime makes no system call. */
static void idle(struct stress_rng *rng) {
    stress_phase("an idle runtime is idle");
    heist_runtime *rt = stress_runtime("idle", stress_draw_workers(rng), NULL);
    stress_block(0.3);
    double busy[2] = {0, 0};
    uint64_t sleeps[2] = {0, 0};
    int workers = heist_runtime_workers(rt);
    for (int i = 0; i < 2; i++) {
        for (int w = 0; w < workers; w++) {
            heist_worker_stats s = HEIST_WORKER_STATS_INIT;
            int err = heist_runtime_stats(rt, w, &s);
            stress_check(err == 0, "stats answered %s", heist_error_name(err));
            busy[i] += s.busy_seconds;
            sleeps[i] += s.sleeps;
        }
        if (i == 0) stress_block(0.5);
    }
    stress_check(busy[1] - busy[0] < 0.05, "%d idle workers were busy for %.3f of 0.5 s", workers, busy[1] - busy[0]);
    stress_check(sleeps[1] - sleeps[0] <= (uint64_t)workers, "%d idle workers woke up %" PRIu64 " times in 0.5 s",
                 workers, sleeps[1] - sleeps[0]);
    stress_runtime_end(rt);
}

static void one_round(struct stress_rng *rng) {
    if (stress_chance(rng, 10) || stress_round() == 0) idle(rng);
    heist_runtime *a = stress_runtime("wake-a", stress_draw_workers(rng), NULL);
    heist_runtime *b = stress_chance(rng, 40) ? stress_runtime("wake-b", stress_draw_workers(rng), NULL) : a;
    int n = (int)stress_between(rng, 1, CELLS);
    double span = 0.2 + 0.1 * (double)stress_below(rng, 15);
    stress_settings("%d and %d workers, %d cells, %.1f s", heist_runtime_workers(a),
                    a == b ? 0 : heist_runtime_workers(b), n, span);
    stress_phase("waiting for each other");
    for (int i = 0; i < n; i++) open_cell(&cells[i], i, rng, a, b);
    round_end = stress_now() + span;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 2; k++) {
            if (k == 0 || has_second(cells[i].kind)) start_side(&cells[i].side[k], rng);
            else s_set(&cells[i].side[k].ended, true);
        }
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 2; k++)
            if (k == 0 || has_second(cells[i].kind)) end_side(&cells[i].side[k]);
    stress_phase("closing cells");
    for (int i = 0; i < n; i++) close_cell(&cells[i]);
    if (b != a) stress_runtime_end(b);
    stress_runtime_end(a);
}

int main(int argc, char **argv) {
    stress_begin(argc, argv, "wake", "every wait is answered; no timer is early; an idle runtime is idle");
    stress_on_stall(dump);
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    for (int k = 0; k < KINDS; k++) stress_note("%-24s %" PRIu64, kind_name[k], s_get(&exchanges[k]));
    return stress_end();
}
