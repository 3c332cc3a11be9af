/* stress/stress_shutdown.c: stopped at any moment, by anybody, and nothing is left.
 *
 * Law: a runtime or loop that is closed, dropped without close, stopped in the middle of a
 * run call, or left by the main coroutine of heist_run, ends: each task ends as its body
 * says or never begins, each request to cancel that close makes is delivered once, each
 * wait is answered with one of its codes, each argument, result and argument of a done
 * callback is freed once.  close answers -ETIMEDOUT only while something runs, and then
 * has reported each task that held on throughout; 0 only when nothing is left; and from
 * then on everything is refused.  No thread, descriptor, mapping or byte stays.
 * Threads: the workers; one driver for each loop; submitters and waiters, who hold
 * references; up to four closers for each target.
 * Invariant: `debts` of a target counts what must still be freed.  The last touch of an
 * item is the release that pays its debt; the main thread frees the items after it has
 * seen them all paid. */
#include "common.h"

#include <errno.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define TARGETS 5
#define MAX_SUBMITTERS 12
#define MAX_CLOSERS 4
#define NOT_ENDED 1

enum end { CLOSED, DROPPED, LOOP_CLOSED, LOOP_DROPPED, LEFT, ENDS };
static const char *const end_name[ENDS] = {"runtimes closed", "runtimes dropped", "loops closed", "loops dropped",
                                           "heist_run left"};
enum kind {
    SLEEP,
    NAPS,
    BUSY,
    BLOCK,
    SPAWN,
    RECV,
    SEND,
    RECV_UNTIL,
    SOCKET,
    ACCEPT,
    NEVER,
    CHILD,
    CHILDREN,
    SLOW,
    STUBBORN,
    INSIDE,
    FAILS,
    TASK_KINDS,
    SOON = TASK_KINDS,
    LATER,
    FAR,
    CALL_INSIDE,
    CALL_SPAWN,
    KINDS
};

struct target;
struct item {
    struct target *target;
    enum kind kind;
    bool root; /* nobody but the close cancels it */
    struct stress_rng rng;
    heist_future *future; /* of its submitter */
    heist_handle *handle;
    bool taken;
    int delivered; /* of its body */
    _Atomic(int) accepted, ran, outcome, freed, result_freed, done_added, done_freed;
};

struct target {
    int index;
    enum end end;
    heist_runtime *rt;
    heist_loop *loop; /* a loop of its own */
    heist_loop *door[16];
    int doors, bell; /* bell: an eventfd with a reader */
    struct stress_rng rng, driver_rng;
    struct item *items;
    size_t room;
    _Atomic(size_t) used;
    double life, hold; /* seconds until it is ended; then, until stubborn tasks let go */
    int closers;
    pthread_t killer, driver;
    struct closer {
        struct target *target;
        struct stress_rng rng;
        pthread_t thread;
    } closer[MAX_CLOSERS];
    heist_channel *quiet; /* nobody sends */
    _Atomic(bool) open, closing, closed, released, driver_stop;
    _Atomic(int) holding, reports, drops;
    _Atomic(int64_t) debts;
};
static struct target targets[TARGETS];
static int target_count, submitter_count;
static heist_channel *shared; /* of all targets */
static struct submitter {
    int index;
    struct stress_rng rng;
    size_t quota;
    pthread_t thread;
} submitters[MAX_SUBMITTERS];
static _Atomic(uint64_t) ended_by[ENDS], all_accepted, all_refused, all_timeouts, all_busy, all_unrun;

/* Reports of stubborn tasks that reached this thread. */
static _Thread_local int reported_here;

/* ---- debts ---- */

static void owe(struct target *t) { atomic_fetch_add_explicit(&t->debts, 1, memory_order_relaxed); }

static void pay(struct target *t) { /* release: the last touch of what was owed */
    atomic_fetch_sub_explicit(&t->debts, 1, memory_order_release);
}

static void free_item(void *arg) {
    struct item *it = arg;
    if (s_get(&it->ran)) stress_check(s_get(&it->outcome) != NOT_ENDED, "an argument was freed under its body");
    int before = s_add(&it->freed, 1);
    stress_check(before == 0, "an argument was freed %d times", before + 1);
    stress_progress(1);
    pay(it->target);
}

static void free_result(void *arg) {
    struct item *it = arg;
    int before = s_add(&it->result_freed, 1);
    stress_check(before == 0, "a result was freed %d times", before + 1);
    pay(it->target);
}

static void free_done(void *arg) {
    struct item *it = arg;
    int before = s_add(&it->done_freed, 1);
    stress_check(before == 0, "the argument of a done callback was freed %d times", before + 1);
    pay(it->target);
}

static void on_done(heist_future *f, void *user) {
    (void)user;
    stress_check(heist_future_done(f), "a done callback ran before its future was done");
}

/* ---- submitting ---- */

static int task_body(void *arg, void **out);
static int callback(void *arg);

static struct item *new_item(struct target *t, enum kind kind, struct stress_rng *rng) {
    size_t n = s_get(&t->used);
    do
        if (n >= t->room) return NULL;
    while (!atomic_compare_exchange_weak_explicit(&t->used, &n, n + 1, memory_order_relaxed, memory_order_relaxed));
    struct item *it = &t->items[n];
    it->target = t;
    it->kind = kind;
    it->rng = stress_stream(rng, n);
    return it;
}

enum how { FROM_OUTSIDE, FROM_INSIDE }; /* inside: by a task or callback of the same target */

static int submit(struct item *it, enum how how, bool pinned, heist_future **future, heist_handle **handle) {
    struct target *t = it->target;
    struct stress_rng rng = stress_stream(&it->rng, 9);
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.flags = pinned ? HEIST_TASK_PINNED : 0;
    o.name = it->kind == STUBBORN ? "stubborn" : NULL;
    o.arg_free = free_item;
    o.result_free = free_result;
    heist_call_options call = HEIST_CALL_OPTIONS_INIT;
    call.arg_free = free_item;
    s_set(&it->outcome, NOT_ENDED);
    s_set(&it->accepted, 1);
    owe(t);
    heist_loop *loop = t->doors ? t->door[stress_below(&rng, (uint64_t)t->doors)] : NULL;
    if (how == FROM_INSIDE && heist_get_running_loop(&loop) < 0) stress_fail("no loop runs a body");
    int err;
    if (it->kind < TASK_KINDS) {
        if (how == FROM_INSIDE && stress_chance(&rng, 70)) err = heist_create_task(task_body, it, &o, future);
        else if (t->rt && !pinned && stress_chance(&rng, 50))
            err = heist_runtime_run_coroutine(t->rt, task_body, it, &o, future);
        else err = heist_run_coroutine_threadsafe(loop, task_body, it, &o, future);
    } else if (it->kind == LATER || it->kind == FAR) {
        double delay = it->kind == FAR ? 3600 : (double)stress_between(&rng, 1, 20000) * 1e-6;
        err = heist_loop_call_later(loop, delay, callback, it, &call, handle);
    } else if (t->rt && stress_chance(&rng, 30)) {
        err = heist_runtime_call_soon(t->rt, callback, it, &call, handle);
    } else {
        err = heist_loop_call_soon_threadsafe(loop, callback, it, &call, handle);
    }
    if (err == 0) {
        s_add(&all_accepted, 1);
        return 0;
    }
    stress_check(err == HEIST_ECLOSED && s_observe(&t->closing), "a submission was refused with %s",
                 heist_error_name(err));
    s_set(&it->accepted, 0);
    s_add(&all_refused, 1);
    pay(t);
    return err;
}

static enum kind draw_kind(struct stress_rng *rng) {
    for (;;) {
        enum kind k = (enum kind)stress_below(rng, KINDS);
        if (k == STUBBORN && !stress_chance(rng, 20)) continue;
        if (k == BLOCK && !stress_chance(rng, 20)) continue;
        return k;
    }
}

/* ---- bodies ---- */

/* The only answers of a wait in a body; says whether to go on. */
static bool waited(struct item *it, const char *what, int err, int other) {
    if (err == -ECANCELED) {
        it->delivered++;
        stress_check(!it->root || it->delivered == 1, "a close was delivered %d times to one task", it->delivered);
        stress_check(!it->root || s_observe(&it->target->closing),
                     "a task was cancelled before its runtime was closed");
        return false;
    }
    stress_check(err == 0 || err == other, "%s answered %s", what, heist_error_name(err));
    return err == 0 || err == other;
}

static double moment(struct item *it, uint64_t most_us) { return (double)stress_between(&it->rng, 0, most_us) * 1e-6; }

static void use_socket(struct item *it) {
    int fd[2];
    heist_conn *conn[2] = {NULL, NULL};
    char bytes[64];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) < 0) stress_die("sockets: %s", strerror(errno));
    for (int i = 0; i < 2; i++)
        if (heist_conn_open(fd[i], &conn[i]) < 0) stress_die("a connection");
    for (int n = 0; n < 3; n++) {
        int err = heist_conn_write(conn[0], "shutdown", 8, HEIST_FOREVER, NULL);
        if (!waited(it, "a write", err, 0)) break;
        ptrdiff_t got = heist_conn_read(conn[1], bytes, sizeof bytes, HEIST_FOREVER);
        if (got > 0) stress_check(got <= 8 * (n + 1), "a read gave %td bytes", got);
        else if (!waited(it, "a read", got < 0 ? (int)got : -EIO, 0)) break;
    }
    if (!it->delivered) {
        ptrdiff_t got;
        do got = heist_conn_read(conn[1], bytes, sizeof bytes, HEIST_FOREVER); /* what is left, and then nothing */
        while (got > 0);
        waited(it, "a read", got < 0 ? (int)got : -EIO, 0);
    }
    for (int i = 0; i < 2; i++) heist_conn_close(conn[i]);
}

static void use_listener(struct item *it) {
    heist_addr addr;
    heist_listener *l = NULL;
    heist_conn *c = NULL;
    int err = heist_addr_parse("127.0.0.1:0", &addr);
    if (err == 0) err = heist_listen(&addr, NULL, &l);
    stress_check(err == 0, "listen answered %s", heist_error_name(err));
    if (err < 0) return;
    err = heist_accept(l, stress_chance(&it->rng, 50) ? HEIST_FOREVER : heist_time() + moment(it, 20000), &c);
    waited(it, "accept", err, -ETIMEDOUT);
    heist_conn_close(c);
    heist_listener_close(l);
}

static void use_children(struct item *it, int most) {
    heist_task *child[4] = {NULL};
    void *got[4];
    size_t n = 0;
    static const enum kind kinds[] = {SLEEP, NAPS, FAILS, RECV_UNTIL};
    for (; n < (size_t)most; n++) {
        struct item *c = new_item(it->target, kinds[stress_below(&it->rng, 4)], &it->rng);
        if (!c || submit(c, FROM_INSIDE, false, &child[n], NULL) < 0) break;
    }
    int err = 0;
    if (most == 1 && n) err = heist_await(child[0], &got[0]);
    else if (n) err = heist_gather(child, n, got, stress_chance(&it->rng, 50) ? HEIST_GATHER_ALL : 0);
    for (size_t i = 0; i < n; i++) stress_check(heist_future_done(child[i]), "a wait ended before a child had");
    if (n) waited(it, "the wait for children", err, -EPROTO);
    for (size_t i = 0; i < n; i++) heist_unref(child[i]);
}

/* From within: a close, a run call, a stop of a runtime's loop are refused. */
static void try_inside(struct item *it) {
    struct target *t = it->target;
    heist_loop *loop;
    if (heist_get_running_loop(&loop) < 0) {
        stress_fail("no loop runs a body");
        return;
    }
    int err = heist_loop_run_forever(loop);
    stress_check(err == HEIST_ERUNNING || err == HEIST_ENOTINCORO || err == HEIST_EOTHERRUNNING,
                 "run_forever from within answered %s", heist_error_name(err));
    if (t->loop) {
        err = heist_loop_close(loop);
        stress_check(err == HEIST_ERUNNING || err == HEIST_EOTHERRUNNING, "a loop's close from within answered %s",
                     heist_error_name(err));
    } else {
        err = heist_runtime_close(heist_loop_runtime(loop), 0);
        stress_check(err == -EDEADLK, "a runtime's close from within answered %s", heist_error_name(err));
        err = heist_loop_stop(loop);
        stress_check(err == -ENOTSUP, "a stop of a runtime's loop answered %s", heist_error_name(err));
    }
}

static void live(struct item *it) {
    struct target *t = it->target;
    void *got = NULL;
    heist_future *never = NULL;
    int err;
    switch (it->kind) {
    case SLEEP: waited(it, "a sleep", heist_sleep(stress_chance(&it->rng, 30) ? 3600 : moment(it, 5000)), 0); break;
    case NAPS:
        for (int i = 0; i < 20 && !it->delivered; i++) waited(it, "a nap", heist_sleep(moment(it, 2000)), 0);
        break;
    case BUSY:
        for (int i = 0; i < 20 && !it->delivered; i++) {
            stress_spin(moment(it, 200));
            waited(it, "a yield", heist_yield(), 0);
        }
        break;
    case BLOCK: stress_block(moment(it, 10000)); break;
    case SPAWN:
        while (!it->delivered) {
            struct item *c = new_item(t, draw_kind(&it->rng), &it->rng);
            if (!c) break;
            c->root = c->kind < TASK_KINDS;
            if (submit(c, FROM_INSIDE, stress_chance(&c->rng, 20), NULL, NULL) < 0) break;
            waited(it, "a yield", heist_sleep(moment(it, 500)), 0);
        }
        break;
    case RECV:
        waited(it, "a recv", heist_channel_recv(stress_chance(&it->rng, 50) ? t->quiet : shared, &got),
               HEIST_ESHUTDOWN);
        break;
    case SEND: waited(it, "a send", heist_channel_send(shared, t), HEIST_ESHUTDOWN); break;
    case RECV_UNTIL:
        err = heist_channel_recv_until(t->quiet, &got, heist_time() + moment(it, 5000));
        waited(it, "a recv with a deadline", err, -ETIMEDOUT);
        break;
    case SOCKET: use_socket(it); break;
    case ACCEPT: use_listener(it); break;
    case NEVER:
        err = heist_future_new(NULL, &never);
        stress_check(err == 0 || err == HEIST_ECLOSED, "a future: %s", heist_error_name(err));
        if (err == 0) waited(it, "await of a future", heist_await(never, &got), 0);
        heist_unref(never);
        break;
    case CHILD: use_children(it, 1); break;
    case CHILDREN: use_children(it, 4); break;
    case SLOW:
        waited(it, "a sleep", heist_sleep(3600), 0);
        for (int i = 0; i < 3; i++) waited(it, "a sleep of the clean-up", heist_sleep(moment(it, 5000)), 0);
        break;
    case STUBBORN:
        s_add(&t->holding, 1);
        while (!s_get(&t->released)) waited(it, "a sleep", heist_sleep(0.001), 0);
        s_add(&t->holding, -1);
        break;
    case INSIDE: try_inside(it); break;
    default: break;
    }
}

static int task_body(void *arg, void **out) {
    struct item *it = arg;
    int before = s_add(&it->ran, 1);
    stress_check(before == 0, "a body ran %d times", before + 1);
    stress_check(s_get(&it->freed) == 0, "a body began after its argument was freed");
    live(it);
    stress_progress(1);
    int code = it->kind == FAILS ? -EPROTO : it->delivered && stress_chance(&it->rng, 80) ? -ECANCELED : 0;
    if (code == 0) {
        owe(it->target);
        *out = it;
    }
    s_set(&it->outcome, code);
    return code;
}

static int callback(void *arg) {
    struct item *it = arg;
    int before = s_add(&it->ran, 1);
    stress_check(before == 0, "a callback ran %d times", before + 1);
    stress_check(it->kind != FAR, "a timer of an hour ran");
    if (it->kind == CALL_INSIDE) try_inside(it);
    if (it->kind == CALL_SPAWN) {
        int err = heist_sleep(0);
        stress_check(err == HEIST_ENOTINCORO, "a sleep in a callback answered %s", heist_error_name(err));
        struct item *c = new_item(it->target, draw_kind(&it->rng), &it->rng);
        if (c) {
            c->root = true;
            submit(c, FROM_INSIDE, stress_chance(&c->rng, 20), NULL, NULL);
        }
    }
    s_set(&it->outcome, 0);
    return 0;
}

static int ring(void *arg) {
    struct item *it = arg;
    uint64_t n;
    if (read(it->target->bell, &n, sizeof n) < 0)
        stress_check(errno == EAGAIN, "a read of an eventfd: %s", strerror(errno));
    return 0;
}

static void on_report(heist_loop *loop, const heist_report *report, void *user) {
    struct target *t = user;
    (void)loop;
    s_add(&t->reports, 1);
    if (report->name && strcmp(report->name, "stubborn") == 0) reported_here++;
    if (strcmp(report->message, "a loop was dropped without being closed") == 0) s_add(&t->drops, 1);
    if (stress_opt.verbose) stress_exception(loop, report, NULL);
}

/* ---- those who submit and wait ---- */

static void look_after(struct submitter *s, struct item *it, heist_future *f) {
    it->future = f;
    if (stress_chance(&s->rng, 20)) {
        owe(it->target);
        int err = heist_future_add_done_callback(f, on_done, it, free_done);
        if (err == 0) {
            s_set(&it->done_added, 1);
        } else {
            pay(it->target);
            stress_check(err == HEIST_ECLOSED, "add_done_callback answered %s", heist_error_name(err));
        }
    }
    if (!stress_chance(&s->rng, 5)) return;
    void *got = NULL;
    bool limit = it->kind == SLEEP || stress_chance(&s->rng, 70);
    double until = heist_time() + (double)stress_between(&s->rng, 0, 10000) * 1e-6;
    stress_wait_begin(s->index, "await of a task whose runtime is to end", 2 + it->target->hold + it->target->life);
    int err = limit ? heist_await_until(f, until, &got) : heist_await(f, &got);
    stress_wait_end(s->index);
    if (err == -ETIMEDOUT && limit) {
        stress_check(heist_time() >= until - 1e-8, "await_until gave up early");
        return;
    }
    stress_check(heist_future_done(f), "await answered %s before the future was done", heist_error_name(err));
    stress_check(err == 0 ? got == it : err == -ECANCELED || err == -EPROTO, "await answered %s",
                 heist_error_name(err));
}

static void *submitter_main(void *arg) {
    struct submitter *s = arg;
    bool held[TARGETS];
    unsigned pauses = (unsigned)stress_below(&s->rng, 40);
    for (int i = 0; i < target_count; i++) /* nobody outside holds what is to be dropped */
        held[i] = targets[i].end != DROPPED && targets[i].end != LOOP_DROPPED;
    for (size_t i = 0; i < s->quota; i++) {
        struct target *t = &targets[stress_below(&s->rng, (uint64_t)target_count)];
        if (!held[t->index] || !s_observe(&t->open)) {
            sched_yield();
            continue;
        }
        struct item *it = new_item(t, draw_kind(&s->rng), &s->rng);
        if (!it) continue;
        heist_future *f = NULL;
        heist_handle *handle = NULL;
        bool task = it->kind < TASK_KINDS, keep = stress_chance(&s->rng, 60), closed = s_observe(&t->closed);
        it->root = task;
        int err = submit(it, FROM_OUTSIDE, stress_chance(&s->rng, 25), task && keep ? &f : NULL,
                         !task && keep ? &handle : NULL);
        stress_check(err < 0 || !closed, "a submission was accepted after close had returned");
        if (f) look_after(s, it, f);
        it->handle = handle;
        if (handle && stress_chance(&s->rng, 30)) {
            int got = heist_handle_cancel(handle);
            stress_check(got == 0 || got == 1, "handle_cancel answered %s", heist_error_name(got));
        }
        if (t->bell >= 0 && stress_chance(&s->rng, 5)) {
            const uint64_t one = 1;
            if (write(t->bell, &one, sizeof one) < 0) stress_fail("an eventfd: %s", strerror(errno));
        }
        if (stress_chance(&s->rng, pauses)) stress_pause(&s->rng, 0.001);
    }
    return NULL;
}

/* ---- ends ---- */

static void after_close(struct target *t) {
    heist_task **list = NULL;
    size_t n = 0;
    heist_loop *loop = t->doors ? t->door[0] : t->loop;
    stress_check(s_get(&t->holding) == 0, "close answered 0 while %d tasks held on", s_get(&t->holding));
    stress_check(heist_loop_is_closed(loop) == 1, "a closed loop does not say so");
    int err = heist_loop_call_soon(loop, callback, NULL, NULL, NULL);
    stress_check(err == HEIST_ECLOSED, "a closed loop's call_soon answered %s", heist_error_name(err));
    if (!t->rt) return;
    err = heist_runtime_all_tasks(t->rt, &list, &n);
    stress_check(err == 0 && n == 0, "all_tasks after close: %s, %zu tasks", heist_error_name(err), n);
    heist_task_list_free(list, n);
    stress_check(heist_runtime_task_count(t->rt) == 0, "tasks are left after close");
    err = heist_runtime_close(t->rt, 0);
    stress_check(err == 0, "a second close answered %s", heist_error_name(err));
}

static void close_until_done(struct closer *c) {
    struct target *t = c->target;
    struct stress_rng *rng = &c->rng;
    for (;;) {
        int held = s_get(&t->holding), err;
        if (t->loop) {
            err = heist_loop_close(t->loop);
            if (err == HEIST_ERUNNING) stress_pause(rng, 0.002);
            if (err == -EBUSY) s_add(&all_busy, 1);
            stress_check(err == 0 || err == HEIST_ERUNNING || err == -EBUSY, "a loop's close answered %s",
                         heist_error_name(err));
            if (err == 0) break;
            continue;
        }
        double limit = stress_chance(rng, 40) ? HEIST_FOREVER : (double)stress_between(rng, 0, 5000) * 1e-6;
        reported_here = 0;
        err = heist_runtime_close(t->rt, limit);
        if (err == 0) break;
        stress_check(err == -ETIMEDOUT && limit != HEIST_FOREVER, "close answered %s", heist_error_name(err));
        s_add(&all_timeouts, 1);
        if (!s_get(&t->released))
            stress_check(reported_here >= held, "close reported %d tasks that hold on, %d did throughout",
                         reported_here, held);
        stress_progress(1);
    }
    after_close(t);
}

/* A task of another runtime may close too; it holds up its worker. */
static int close_in_a_task(void *arg, void **out) {
    (void)out;
    close_until_done(arg);
    return 0;
}

static void *closer_main(void *arg) {
    struct closer *c = arg;
    bool as_task = c->target->end == CLOSED && stress_chance(&c->rng, 25);
    stress_pause(&c->rng, 0.01);
    if (as_task) {
        heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
        o.workers = stress_chance(&c->rng, 50) ? 1 : 2;
        int err = heist_run(close_in_a_task, c, &o, NULL);
        stress_check(err == 0, "heist_run answered %s", heist_error_name(err));
    } else {
        close_until_done(c);
    }
    return NULL;
}

/* Waits, then ends its target, in the way of its kind. */
static void *killer_main(void *arg) {
    struct target *t = arg;
    stress_block(t->life);
    if (t->end == LEFT) { /* its main coroutine ends it */
        stress_block(t->hold);
        s_set(&t->released, true);
        stress_join(t->driver);
        after_close(t);
        s_publish(&t->closed, true);
        return NULL;
    }
    if (t->end == CLOSED || t->end == LOOP_CLOSED) {
        s_publish(&t->closing, true);
        for (int i = 0; i < t->closers; i++) {
            t->closer[i].target = t;
            stress_thread(&t->closer[i].thread, closer_main, &t->closer[i]);
        }
    }
    if (t->loop) {
        s_publish(&t->driver_stop, true);
        int err = heist_loop_stop(t->loop);
        stress_check(err == 0 || err == HEIST_ECLOSED, "stop answered %s", heist_error_name(err));
        stress_join(t->driver);
    }
    if (t->end == DROPPED) {
        s_publish(&t->closing, true);
        heist_runtime_unref(t->rt);
    }
    stress_block(t->hold);
    s_set(&t->released, true);
    if (t->end == LOOP_DROPPED) {
        s_publish(&t->closing, true);
        heist_loop_unref(t->loop);
        stress_check(s_get(&t->drops) == 1, "a dropped loop was reported %d times", s_get(&t->drops));
    }
    if (t->end == CLOSED || t->end == LOOP_CLOSED)
        for (int i = 0; i < t->closers; i++) stress_join(t->closer[i].thread);
    s_publish(&t->closed, true);
    return NULL;
}

static void *driver_main(void *arg) {
    struct target *t = arg;
    struct stress_rng *rng = &t->driver_rng;
    while (!s_observe(&t->driver_stop)) {
        heist_future *never = NULL;
        void *got = NULL;
        double timeout = 0;
        int err;
        switch (stress_below(rng, 4)) {
        case 0:
            err = heist_future_new(t->loop, &never);
            if (err == 0) err = heist_loop_run_until_complete(t->loop, never, &got);
            if (err == HEIST_ESTOPPED) err = 0;
            heist_unref(never);
            break;
        case 1:
            for (err = 0; err == 0 && !s_observe(&t->driver_stop);) err = heist_loop_run_once(t->loop, &timeout);
            if (err == 1) err = 0;
            break;
        default: err = heist_loop_run_forever(t->loop); break;
        }
        bool closing = s_observe(&t->closing);
        stress_check(err == 0 || (closing && (err == HEIST_ECLOSED || err == HEIST_ERUNNING)), "a run call answered %s",
                     heist_error_name(err));
        if (err == HEIST_ECLOSED) break;
    }
    return NULL;
}

/* heist_run: what its main coroutine leaves behind is cancelled. */
static int main_coro(void *arg, void **out) {
    struct target *t = arg;
    heist_loop *loop;
    if (heist_get_running_loop(&loop) < 0) return -EIO;
    t->rt = heist_runtime_ref(heist_loop_runtime(loop));
    for (t->doors = 0; t->doors < heist_runtime_workers(t->rt) && t->doors < 16; t->doors++)
        t->door[t->doors] = heist_runtime_loop(t->rt, t->doors);
    s_publish(&t->open, true);
    int err = heist_sleep(t->life);
    stress_check(err == 0, "a sleep of the main coroutine answered %s", heist_error_name(err));
    s_publish(&t->closing, true);
    *out = t;
    return 0;
}

static void *run_main(void *arg) {
    struct target *t = arg;
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    void *out = NULL;
    o.workers = stress_draw_workers(&t->driver_rng);
    stress_draw_watch(&t->driver_rng, &o);
    o.exception_handler = on_report;
    o.exception_user = t;
    int err = heist_run(main_coro, t, &o, &out);
    stress_check(err == 0 && out == t, "heist_run answered %s", heist_error_name(err));
    return NULL;
}

/* ---- a round ---- */

static void open_target(struct target *t, int index, struct stress_rng *rng) {
    memset(t, 0, sizeof *t);
    t->index = index;
    t->bell = -1;
    t->rng = stress_stream(rng, (uint64_t)index);
    t->driver_rng = stress_stream(rng, 1);
    for (int i = 0; i < MAX_CLOSERS; i++) t->closer[i].rng = stress_stream(rng, (uint64_t)i);
    t->end = (enum end)stress_below(rng, ENDS);
    t->closers = (int)stress_between(rng, 1, MAX_CLOSERS);
    t->life = (double)stress_between(rng, 0, 100000) * 1e-6;
    t->hold = (double)stress_between(rng, 0, 50000) * 1e-6;
    if (t->end == LOOP_CLOSED && stress_chance(rng, 1)) t->hold = 5.5; /* longer than a loop's close has patience */
    t->room = stress_scale(3000);
    t->items = stress_alloc(t->room * sizeof *t->items);
    int err = heist_channel_new(stress_below(rng, 3), &t->quiet);
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    o.exception_handler = on_report;
    o.exception_user = t;
    o.workers = stress_draw_workers(rng);
    stress_draw_watch(rng, &o);
    if (err == 0 && (t->end == CLOSED || t->end == DROPPED)) {
        err = heist_runtime_new(&o, &t->rt);
        for (; err == 0 && t->doors < o.workers && t->doors < 16; t->doors++)
            t->door[t->doors] = heist_runtime_loop(t->rt, t->doors);
    } else if (err == 0 && t->end != LEFT) {
        o.workers = 1;
        o.flags = 0;
        o.stuck_after = 0;
        o.stuck_signal = 0;
        err = heist_loop_new(&o, &t->loop);
        t->door[t->doors++] = t->loop;
    }
    if (err < 0) stress_die("a target: %s", heist_strerror(err));
    if (t->doors && stress_chance(rng, 50)) {
        struct item *it = new_item(t, SOON, rng);
        heist_call_options call = HEIST_CALL_OPTIONS_INIT;
        call.arg_free = free_item;
        t->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (t->bell < 0) stress_die("an eventfd: %s", strerror(errno));
        s_set(&it->accepted, 1);
        owe(t);
        err = heist_loop_add_reader(t->door[0], t->bell, ring, it, &call);
        if (err < 0) stress_die("a reader: %s", heist_strerror(err));
    }
    /* A first population, and those who make more from within. */
    for (int i = 0; t->doors && i < 30; i++) {
        struct item *it = new_item(t, i < 3 ? SPAWN : draw_kind(rng), rng);
        it->root = it->kind < TASK_KINDS;
        submit(it, FROM_OUTSIDE, stress_chance(rng, 25), NULL, NULL);
    }
    if (t->end != LEFT) s_publish(&t->open, true);
}

static void start_target(struct target *t) {
    if (t->loop) stress_thread(&t->driver, driver_main, t);
    if (t->end == LEFT) stress_thread(&t->driver, run_main, t);
    stress_thread(&t->killer, killer_main, t);
}

static void check_item(struct item *it) {
    int ran = s_get(&it->ran), outcome = s_get(&it->outcome), want = ran ? outcome : -ECANCELED;
    if (it->handle) heist_handle_unref(it->handle);
    if (!it->future) return;
    void *got = NULL;
    bool take = stress_chance(&it->rng, 20);
    stress_check(heist_future_done(it->future), "a future is pending after its runtime has ended");
    int err = take ? heist_future_take(it->future, &got) : heist_future_result(it->future, &got);
    stress_check(err == want, "a future says %s, its body %s%s", heist_error_name(err), heist_error_name(want),
                 ran ? "" : " (never ran)");
    stress_check(err != 0 || got == it, "a future gave the result of another");
    if (take && err == 0) {
        it->taken = true;
        pay(it->target);
    }
    heist_unref(it->future);
}

static void add_counters(heist_runtime *of) {
    for (int w = 0; w < heist_runtime_workers(of); w++) {
        heist_worker_stats st = HEIST_WORKER_STATS_INIT;
        if (heist_runtime_stats(of, w, &st) < 0) continue;
        stress_totals.steps += st.steps;
        stress_totals.stolen += st.stolen;
        stress_totals.callbacks += st.callbacks;
        stress_totals.timers += st.timers;
        stress_totals.io_events += st.io_events;
        stress_totals.inbox += st.inbox;
        stress_totals.sleeps += st.sleeps;
        stress_totals.wakeups += st.wakeups;
    }
}

/* Ended in every sense; then the books of its items. */
static void settle_target(struct target *t) {
    size_t n = s_get(&t->used);
    stress_wait_begin(MAX_SUBMITTERS + t->index, "the end of the last task of a target", t->hold);
    if (t->end == DROPPED) /* nobody joins its threads */
        for (size_t i = 0; i < n; i++)
            while (s_get(&t->items[i].accepted) && !s_get(&t->items[i].freed)) stress_block(0.0002);
    for (size_t i = 0; i < n; i++) check_item(&t->items[i]);
    if (t->end == CLOSED || t->end == LEFT) {
        add_counters(t->rt);
        heist_runtime_unref(t->rt);
    }
    if (t->end == LOOP_CLOSED) {
        add_counters(heist_loop_runtime(t->loop));
        heist_loop_unref(t->loop);
    }
    while (atomic_load_explicit(&t->debts, memory_order_acquire) > 0) stress_block(0.0002);
    stress_wait_end(MAX_SUBMITTERS + t->index);
    for (size_t i = 0; i < n; i++) {
        struct item *it = &t->items[i];
        int accepted = s_get(&it->accepted), ran = s_get(&it->ran), results;
        results = ran && it->kind < TASK_KINDS && s_get(&it->outcome) == 0 && !it->taken;
        stress_check(s_get(&it->freed) == accepted, "an argument was freed %d times", s_get(&it->freed));
        stress_check(accepted || !ran, "a refused submission ran");
        stress_check(s_get(&it->result_freed) == results, "a result was freed %d times instead of %d",
                     s_get(&it->result_freed), results);
        stress_check(s_get(&it->done_freed) == s_get(&it->done_added), "a done callback's argument was freed %d times",
                     s_get(&it->done_freed));
        if (accepted && !ran) s_add(&all_unrun, 1);
    }
    if (t->bell >= 0) close(t->bell);
    heist_channel_unref(t->quiet);
    free(t->items);
    s_add(&ended_by[t->end], 1);
}

/* A plain thread that has submitted keeps some free objects for its next, and with them the memory they stand in,
 * until it exits or gives one back.  This one lives on. */
static void give_back_what_this_thread_keeps(void) {
    heist_future *f = NULL;
    int err = heist_future_new(NULL, &f);
    stress_check(err == 0, "a future without a loop: %s", heist_error_name(err));
    heist_unref(f);
}

static void *plain_receiver(void *unused) {
    (void)unused;
    for (;;) {
        void *got = NULL;
        int err = heist_channel_recv(shared, &got);
        if (err == HEIST_ESHUTDOWN) return NULL;
        stress_check(err == 0 && got >= (void *)&targets[0] && got < (void *)&targets[TARGETS],
                     "a recv of a plain thread answered %s", heist_error_name(err));
        stress_progress(1);
    }
}

static void dump(FILE *to) {
    for (int i = 0; i < target_count; i++) {
        struct target *t = &targets[i];
        fprintf(to, "  target %d, %s: %zu items, %" PRId64 " debts, %d hold on%s%s%s\n", i, end_name[t->end],
                s_get(&t->used), s_get(&t->debts), s_get(&t->holding), s_get(&t->closing) ? ", closing" : "",
                s_get(&t->released) ? ", released" : "", s_get(&t->closed) ? ", closed" : "");
    }
}

static void one_round(struct stress_rng *rng) {
    target_count = (int)stress_between(rng, 1, TARGETS);
    submitter_count = stress_draw_threads(rng, MAX_SUBMITTERS);
    if (submitter_count > MAX_SUBMITTERS) submitter_count = MAX_SUBMITTERS;
    stress_phase("opening");
    int err = heist_channel_new(stress_below(rng, 3), &shared);
    if (err < 0) stress_die("a channel: %s", heist_strerror(err));
    for (int i = 0; i < target_count; i++) open_target(&targets[i], i, rng);
    char kinds[200] = "";
    for (int i = 0, n = 0; i < target_count; i++)
        n += snprintf(kinds + n, sizeof kinds - (size_t)n, ", %s after %.0f+%.0f ms", end_name[targets[i].end],
                      targets[i].life * 1e3, targets[i].hold * 1e3);
    stress_settings("%d submitters%s", submitter_count, kinds);
    stress_phase("stopping at random");
    pthread_t receiver;
    stress_thread(&receiver, plain_receiver, NULL);
    for (int i = 0; i < target_count; i++) start_target(&targets[i]);
    for (int i = 0; i < submitter_count; i++) {
        struct submitter *s = &submitters[i];
        s->index = i;
        s->rng = stress_stream(rng, (uint64_t)i);
        s->quota = stress_between(&s->rng, 1, stress_scale(6000));
        stress_thread(&s->thread, submitter_main, s);
    }
    for (int i = 0; i < submitter_count; i++) stress_join(submitters[i].thread);
    for (int i = 0; i < target_count; i++) stress_join(targets[i].killer);
    stress_phase("nothing is owed");
    for (int i = 0; i < target_count; i++) settle_target(&targets[i]);
    heist_channel_close(shared);
    stress_join(receiver);
    heist_channel_unref(shared);
    give_back_what_this_thread_keeps();
}

int main(int argc, char **argv) {
    stress_begin(argc, argv, "shutdown", "stopped at any moment: every wait is answered, nothing is left");
    stress_on_stall(dump);
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    for (int i = 0; i < ENDS; i++) stress_note("%-18s %" PRIu64, end_name[i], s_get(&ended_by[i]));
    stress_note("accepted %" PRIu64 ", of these never ran %" PRIu64 "; refused %" PRIu64, s_get(&all_accepted),
                s_get(&all_unrun), s_get(&all_refused));
    stress_note("closes that timed out %" PRIu64 ", closes of a loop that were too busy %" PRIu64, s_get(&all_timeouts),
                s_get(&all_busy));
    return stress_end();
}
