/* stress/stress_cancel.c: cancelling against completion, at every point.
 *
 * Law: a body ends once or never begins; a request is delivered at most once, and one
 * that is not taken back ends the wait; the call that delivers it took nothing: of
 * channels, queues, sockets and listeners everything that went in came out or is still there;
 * locks, semaphores and read-write locks keep their law and are free at the end; a function
 * in a thread has ended, or never begins, when the call that ran it returns;
 * gather returns when all its children have ended, so do wait_for and the future of a
 * gather; wait, as_completed and shield leave theirs alone; arguments, results and values are
 * freed once; the outcome of a task is what its body returned.
 * Threads: victims on the workers of one runtime; cancellers and completers are plain
 * threads and tasks of a second one.
 * Invariant: a victim's futures, channels and sockets belong to the round and outlive
 * every task, so that a canceller may be as late as it likes. */
#include "common.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_VICTIMS 512
#define CHANNELS 6
#define LISTENERS 3
#define LOCKS 3
#define PERMITS 2
#define STEPS 6
#define ITEMS 200000
#define HELPERS 12
#define CONNECTS 64

enum point { SLEEP, YIELD, AWAIT, AWAIT_UNTIL, AWAIT_TASK, GATHER, SEND, RECV, RECV_UNTIL, ACCEPT, READ, SELF,
             WAIT, COMPLETIONS, WAIT_FOR, SHIELD, GATHER_FUTURE, BLOCK, SECTION, GROUP, LOCK, QUEUE, THREAD, MIXTURE,
             POINTS };
static const char *const point_name[POINTS] = {"sleep",  "yield", "await", "await_until", "await of a task", "gather",
                                               "send",   "recv",  "recv_until", "accept", "read", "own cancel",
                                               "wait", "as_completed", "wait_for", "shield", "gather_future",
                                               "a block with a deadline", "a section", "a group", "a lock and its kin",
                                               "a queue", "to_thread", "select over all kinds"};
#define NOT_ENDED 1

struct victim {
    int index;
    struct stress_rng rng;
    enum point points[STEPS];
    int steps, swallows;
    bool pinned, hurried; /* hurried: cancelled in the very step that made it */
    bool firm;            /* nobody else takes a request back */
    heist_task *task;
    heist_future *future[STEPS];
    heist_conn *conn; /* of its own */
    int peer;         /* the other end, written by completers */
    uint8_t next_byte; /* expected */
    pthread_mutex_t feeding;
    uint64_t fed, eaten;
    _Atomic(int) ran, outcome, arg_freed, result_freed, requests, delivered, moves, at;
};

struct item {
    _Atomic(int) sent, received;
};

static struct victim victims[MAX_VICTIMS];
static int victim_count;
static heist_runtime *rt, *helpers_rt;
static heist_channel *channels[CHANNELS];
static heist_queue *queue;
static struct {
    heist_lock lock;
    heist_condition told; /* of the lock */
    heist_semaphore permits;
    heist_rwlock rwlock;
    int holders;              /* under the lock */
    _Atomic(int) in, readers, writers;
} locks[LOCKS];
static struct item *items;
static _Atomic(uint64_t) next_item;
static struct {
    heist_listener *l;
    struct sockaddr_in addr;
    _Atomic(int) connected, accepted;
    int fds[CONNECTS];
} listeners[LISTENERS];
static _Atomic(bool) helpers_stop, closing;
static _Atomic(uint64_t) values_made, values_freed, children_born, children_died, all_requests, all_delivered;
static _Atomic(uint64_t) delivered_at[POINTS];

static void free_value(void *p) {
    s_add(&values_freed, 1);
    free(p);
}

/* ---- children of AWAIT_TASK and GATHER ---- */

struct child {
    struct stress_rng rng;
    bool swallows;
    _Atomic(int) outcome;
};

static void free_child(void *arg) {
    s_add(&children_died, 1);
    free(arg);
}

static int child_body(void *arg, void **out) {
    struct child *c = arg;
    int err = 0;
    switch (stress_below(&c->rng, 4)) {
    case 0: err = heist_yield(); break;
    case 1: err = heist_sleep((double)stress_between(&c->rng, 0, 3000) * 1e-6); break;
    case 2: err = heist_sleep(3600); break; /* only a cancel ends it */
    default: break;
    }
    stress_check(err == 0 || err == -ECANCELED, "a child's pause answered %s", heist_error_name(err));
    if (err == 0 && stress_chance(&c->rng, 10)) return heist_fail(-EPROTO, "planned");
    if (err < 0 && !c->swallows) return err;
    s_add(&values_made, 1);
    *out = stress_alloc(1);
    return 0;
}

static int make_child(struct stress_rng *rng, heist_task **out) {
    struct child *c = stress_alloc(sizeof *c);
    c->rng = stress_stream(rng, 5);
    c->swallows = stress_chance(rng, 15);
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.arg_free = free_child;
    o.result_free = free_value;
    s_add(&children_born, 1);
    int err = heist_create_task(child_body, c, &o, out);
    if (err < 0) free_child(c);
    return err;
}

/* ---- the points ---- */

static int at_send(struct victim *v) {
    uint64_t n = s_add(&next_item, 1);
    if (n >= ITEMS) return heist_sleep(3600);
    struct item *it = &items[n];
    heist_channel *c = channels[stress_below(&v->rng, CHANNELS)];
    int err;
    if (stress_chance(&v->rng, 30)) { /* or to another one */
        heist_select_case either[] = {HEIST_CASE_SEND(c, it),
                                      HEIST_CASE_SEND(channels[stress_below(&v->rng, CHANNELS)], it)};
        err = heist_select_until(either, 2, stress_chance(&v->rng, 80) ? HEIST_FOREVER : heist_time() + 0.002);
        if (err >= 0) err = either[err].code;
    } else {
        err = stress_chance(&v->rng, 80) ? heist_channel_send(c, it)
                                         : heist_channel_send_until(c, it, heist_time() + 0.002);
    }
    s_set(&it->sent, err == 0);
    return err;
}

static int at_recv(struct victim *v, bool until) {
    heist_channel *c = channels[stress_below(&v->rng, CHANNELS)];
    void *got = NULL;
    double deadline = heist_time() + (double)stress_between(&v->rng, 0, 3000) * 1e-6;
    int err;
    if (stress_chance(&v->rng, 30)) { /* or from another one */
        heist_select_case either[] = {HEIST_CASE_RECV(c), HEIST_CASE_RECV(channels[stress_below(&v->rng, CHANNELS)])};
        err = heist_select_until(either, 2, until ? deadline : HEIST_FOREVER);
        if (err >= 0) {
            got = either[err].value;
            err = either[err].code;
        }
    } else {
        err = until ? heist_channel_recv_until(c, &got, deadline) : heist_channel_recv(c, &got);
    }
    if (err == 0) s_add(&((struct item *)got)->received, 1);
    else stress_check(got == NULL, "a recv that answered %s gave an item", heist_error_name(err));
    return err;
}

static int at_gather(struct victim *v) {
    heist_task *t[6] = {0};
    void *got[6] = {0};
    size_t n = (size_t)stress_between(&v->rng, 1, 6);
    int err = 0;
    for (size_t i = 0; i < n; i++) {
        err = make_child(&v->rng, &t[i]);
        if (err < 0) n = i;
    }
    static const unsigned flags[] = {0, 0, HEIST_GATHER_ALL, HEIST_GATHER_EARLY};
    unsigned flag = flags[stress_below(&v->rng, 4)];
    int answer = n ? heist_gather(t, n, got, flag) : err;
    for (size_t i = 0; i < n; i++) {
        if (flag != HEIST_GATHER_EARLY)
            stress_check(heist_future_done(t[i]), "gather returned %s before a child had ended",
                         heist_error_name(answer));
        while (!heist_future_done(t[i])) { /* EARLY leaves some behind */
            heist_cancel(t[i]);
            heist_await(t[i], NULL);
        }
        heist_unref(t[i]);
    }
    return answer;
}

/* Children for the calls below: how many, or -1 and *err. */
#define FAMILY 6
static int make_family(struct victim *v, heist_task **t, int *err) {
    int n = (int)stress_between(&v->rng, 1, FAMILY);
    for (int i = 0; i < n; i++) {
        *err = make_child(&v->rng, &t[i]);
        if (*err < 0) return i;
    }
    return n;
}

/* Of calls that harm nobody: who was cancelled was cancelled by a close. */
static void check_unharmed(heist_task **t, int n, const char *by) {
    for (int i = 0; i < n; i++)
        if (heist_future_cancelled(t[i])) stress_check(s_get(&closing), "%s cancelled what it waited for", by);
}

static void end_family(heist_task **t, int n) {
    for (int i = 0; i < n; i++) {
        while (!heist_future_done(t[i])) {
            heist_cancel(t[i]);
            heist_await(t[i], NULL);
        }
        heist_unref(t[i]);
    }
}

/* The family may end while the victim is cancelled again and again: what that takes is the family's. */
static int at_wait(struct victim *v) {
    heist_task *t[FAMILY], *before[FAMILY];
    int err = 0, n = make_family(v, t, &err), when = (int)stress_below(&v->rng, 3);
    if (err < 0 || !n) {
        end_family(t, n);
        return err;
    }
    memcpy(before, t, sizeof t);
    size_t pending = 99;
    int done = heist_wait(t, (size_t)n, when, stress_chance(&v->rng, 50) ? HEIST_FOREVER : 0.001, &pending);
    if (done < 0) {
        stress_check(!memcmp(before, t, (size_t)n * sizeof *t), "a wait that answered %s changed the array",
                     heist_error_name(done));
    } else {
        stress_check((size_t)done + pending == (size_t)n, "%d done and %zu pending of %d", done, pending, n);
        for (int i = 0; i < done; i++) stress_check(heist_future_done(t[i]), "wait called a pending task done");
    }
    check_unharmed(t, n, "wait");
    end_family(t, n);
    return done < 0 ? done : 0;
}

static int at_completions(struct victim *v) {
    heist_task *t[FAMILY];
    int err = 0, n = make_family(v, t, &err), taken = 0, got;
    heist_completions *it = NULL;
    if (err == 0) err = heist_as_completed(t, (size_t)n, stress_chance(&v->rng, 50) ? HEIST_FOREVER : 0.001, &it);
    if (err < 0) {
        end_family(t, n);
        return err;
    }
    heist_future *f = NULL;
    while ((got = heist_completions_next(it, &f)) == 1) {
        stress_check(heist_future_done(f), "as_completed gave a pending task");
        taken++;
        f = NULL;
    }
    stress_check(f == NULL, "as_completed answered %s and gave a task", got ? heist_error_name(got) : "the end");
    stress_check(got < 0 || taken == n, "as_completed ended after %d of %d", taken, n);
    check_unharmed(t, n, "as_completed");
    for (int i = 0; i < n; i++) heist_ref(t[i]);
    end_family(t, n);
    while ((err = heist_completions_try_next(it, NULL)) == 1) taken++;
    /* -EAGAIN: an end is on its way to the queue */
    stress_check(err == -EAGAIN ? taken < n : err == 0 && taken == n, "of %d tasks as_completed gave %d", n, taken);
    heist_completions_free(it);
    for (int i = 0; i < n; i++) heist_unref(t[i]);
    return got < 0 ? got : 0;
}

static int at_wait_for(struct victim *v, bool shielded) {
    heist_task *t = NULL;
    heist_future *shield = NULL;
    int err = make_child(&v->rng, &t);
    if (err < 0) return err;
    if (shielded && (err = heist_shield(t, &shield)) < 0) stress_die("a shield: %s", heist_strerror(err));
    double limit = stress_chance(&v->rng, 50) ? HEIST_FOREVER : (double)stress_below(&v->rng, 3000) * 1e-6;
    err = heist_wait_for(shielded ? shield : t, limit, NULL);
    stress_check(heist_future_done(shielded ? shield : t), "wait_for answered %s before the end",
                 heist_error_name(err));
    if (shielded) check_unharmed(&t, 1, "a shield");
    heist_unref(shield);
    end_family(&t, 1);
    return err;
}

/* Tasks, a shield and a sleep, in groups of groups. */
static int at_gather_future(struct victim *v) {
    heist_task *t[FAMILY];
    heist_future *group[FAMILY + 2], *inner = NULL, *outer = NULL;
    int err = 0, n = make_family(v, t, &err);
    if (err < 0) {
        end_family(t, n);
        return err;
    }
    void *value = stress_alloc(1);
    s_add(&values_made, 1);
    err = heist_gather_future(t, (size_t)n, stress_chance(&v->rng, 50) ? HEIST_GATHER_ALL : 0, &inner);
    if (err == 0) err = heist_shield(inner, &group[0]);
    double nap = (double)stress_below(&v->rng, 3000) * 1e-6;
    if (err == 0) err = heist_sleep_future(NULL, nap, value, free_value, &group[1]);
    if (err < 0) stress_die("a future that is derived: %s", heist_strerror(err));
    group[2] = inner;
    err = heist_gather_future(group, 3, stress_chance(&v->rng, 50) ? HEIST_GATHER_ALL : 0, &outer);
    if (err < 0) stress_die("a gather's future: %s", heist_strerror(err));
    heist_unref_all(group, 3);
    err = heist_await(outer, NULL);
    stress_check(heist_future_done(outer), "await answered %s before the gather's end", heist_error_name(err));
    for (int i = 0; i < n; i++)
        stress_check(heist_future_done(t[i]), "a gather's future ended with %s before a child", heist_error_name(err));
    heist_unref(outer);
    end_family(t, n);
    return err;
}

static int at_accept(struct victim *v) {
    int i = (int)stress_below(&v->rng, LISTENERS);
    heist_conn *c = NULL;
    double deadline = stress_chance(&v->rng, 70) ? HEIST_FOREVER : heist_time() + 0.002;
    int err = heist_accept(listeners[i].l, deadline, &c);
    if (err == 0) {
        s_add(&listeners[i].accepted, 1);
        heist_conn_close(c);
    } else {
        stress_check(c == NULL, "an accept that answered %s gave a connection", heist_error_name(err));
    }
    return err == -EBUSY ? heist_yield() : err;
}

static void eat(struct victim *v, const uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        stress_check(bytes[i] == v->next_byte, "byte %" PRIu64 " of a socket is %u instead of %u", v->eaten + i,
                     bytes[i], v->next_byte);
        v->next_byte = (uint8_t)(bytes[i] + 1);
    }
    v->eaten += n;
}

static int at_read(struct victim *v) {
    uint8_t bytes[64];
    double deadline = stress_chance(&v->rng, 70) ? HEIST_FOREVER : heist_time() + 0.002;
    ptrdiff_t n = heist_conn_read(v->conn, bytes, 1 + stress_below(&v->rng, sizeof bytes), deadline);
    if (n <= 0) return n ? (int)n : -EIO;
    eat(v, bytes, (size_t)n);
    return 0;
}

/* What the deadline asked for is not seen outside the block.  (Somebody may take its request back, so the block ends
 * by itself, too.) */
static int at_block(struct victim *v) {
    heist_timeout t = HEIST_TIMEOUT_INIT;
    int err = heist_timeout_enter(&t, (double)stress_between(&v->rng, 0, 3000) * 1e-6);
    if (err < 0) return err;
    if (stress_chance(&v->rng, 30)) heist_timeout_reschedule(&t, heist_time() + 0.001);
    err = stress_chance(&v->rng, 50) ? heist_sleep((double)stress_between(&v->rng, 0, 3000) * 1e-6)
                                     : at_recv(v, true);
    bool up = heist_timeout_expired(&t) == 1;
    int answer = heist_timeout_exit(&t, err);
    stress_check(answer == err || (err == -ECANCELED && answer == -ETIMEDOUT), "a block made %s of %s",
                 heist_error_name(answer), heist_error_name(err));
    stress_check(!up || heist_timeout_expired(&t), "a time was up, and is no more");
    return answer;
}

static int at_section(struct victim *v) {
    int depth = (int)stress_between(&v->rng, 1, 3);
    for (int i = 0; i < depth; i++) stress_check(heist_uncancellable_begin() == 0, "a section did not begin");
    int err = heist_sleep((double)stress_between(&v->rng, 0, 2000) * 1e-6);
    stress_check(err == 0, "a sleep in a section answered %s", heist_error_name(err));
    err = heist_yield();
    stress_check(err == 0, "a yield in a section answered %s", heist_error_name(err));
    for (int i = 0; i < depth; i++) stress_check(heist_uncancellable_end() == 0, "a section did not end");
    return heist_sleep((double)stress_between(&v->rng, 0, 2000) * 1e-6);
}

static int at_group(struct victim *v) {
    heist_group *g = NULL;
    int err = heist_group_new(&g);
    if (err == 0) err = heist_group_enter(g);
    if (err < 0) stress_die("a group: %s", heist_error_name(err));
    heist_task *t[5] = {0};
    size_t n = (size_t)stress_between(&v->rng, 1, 5);
    for (size_t i = 0; i < n; i++) {
        struct child *c = stress_alloc(sizeof *c);
        c->rng = stress_stream(&v->rng, 5);
        c->swallows = stress_chance(&v->rng, 15);
        heist_task_options o = HEIST_TASK_OPTIONS_INIT;
        o.arg_free = free_child;
        o.result_free = free_value;
        s_add(&children_born, 1);
        int made = heist_group_create_task(g, child_body, c, &o, stress_chance(&v->rng, 50) ? &t[i] : NULL);
        if (made < 0) free_child(c);
        stress_check(made == 0 || made == HEIST_ESHUTDOWN || made == HEIST_ECLOSED, "a child: %s",
                     heist_error_name(made));
    }
    if (stress_chance(&v->rng, 50)) err = heist_sleep((double)stress_between(&v->rng, 0, 3000) * 1e-6);
    if (stress_chance(&v->rng, 50)) heist_group_cancel(g); /* some of them sleep for ever */
    err = heist_group_exit(g, err);
    for (size_t i = 0; i < n; i++) {
        if (t[i]) stress_check(heist_future_done(t[i]), "a group was left before a child had ended");
        heist_unref(t[i]);
    }
    heist_group_unref(g);
    return err == HEIST_EGROUP ? -EPROTO : err;
}

static double soon(struct stress_rng *rng) {
    return stress_chance(rng, 50) ? HEIST_FOREVER : heist_time() + (double)stress_below(rng, 2000) * 1e-6;
}

/* In what it has acquired it may be cancelled too: then it goes out first. */
static int at_lock(struct victim *v) {
    int i = (int)stress_below(&v->rng, LOCKS), err;
    switch (stress_below(&v->rng, 5)) {
    case 0:
        err = heist_semaphore_acquire_until(&locks[i].permits, soon(&v->rng));
        if (err < 0) return err;
        stress_check(s_add(&locks[i].in, 1) < PERMITS, "more in a semaphore than its permits");
        err = heist_yield();
        s_add(&locks[i].in, -1);
        heist_semaphore_release(&locks[i].permits);
        return err;
    case 1:
        err = heist_rwlock_acquire_write_until(&locks[i].rwlock, soon(&v->rng));
        if (err < 0) return err;
        stress_check(s_add(&locks[i].writers, 1) == 0 && !s_get(&locks[i].readers), "a writer is not alone");
        err = heist_yield();
        s_add(&locks[i].writers, -1);
        stress_check(heist_rwlock_release_write(&locks[i].rwlock) == 0, "a writer could not go");
        return err;
    case 2:
        err = heist_rwlock_acquire_read_until(&locks[i].rwlock, soon(&v->rng));
        if (err < 0) return err;
        s_add(&locks[i].readers, 1);
        stress_check(!s_get(&locks[i].writers), "somebody reads beside a writer");
        err = heist_yield();
        s_add(&locks[i].readers, -1);
        stress_check(heist_rwlock_release_read(&locks[i].rwlock) == 0, "a reader could not go");
        return err;
    default: break;
    }
    err = heist_lock_acquire_until(&locks[i].lock, soon(&v->rng));
    if (err < 0) return err;
    stress_check(locks[i].holders++ == 0, "two hold a lock");
    if (stress_chance(&v->rng, 50)) {
        heist_condition_notify(&locks[i].told, (int)stress_below(&v->rng, 3));
        err = heist_yield();
    } else {
        locks[i].holders--;
        err = heist_condition_wait_until(&locks[i].told, heist_time() + (double)stress_below(&v->rng, 2000) * 1e-6);
        stress_check(locks[i].holders++ == 0, "a wait for a condition ended without its lock");
    }
    locks[i].holders--;
    stress_check(heist_lock_release(&locks[i].lock) == 0, "a holder could not go");
    return err;
}

static int at_queue(struct victim *v) {
    void *got = NULL;
    if (stress_chance(&v->rng, 50)) {
        int err = heist_queue_get_until(queue, &got, soon(&v->rng));
        if (err == 0) s_add(&((struct item *)got)->received, 1);
        else stress_check(got == NULL, "a get that answered %s gave an item", heist_error_name(err));
        return err;
    }
    uint64_t n = s_add(&next_item, 1);
    if (n >= ITEMS) return heist_sleep(3600);
    int err = heist_queue_put_until(queue, &items[n], soon(&v->rng));
    s_set(&items[n].sent, err == 0);
    return err;
}

struct errand {
    _Atomic(int) state; /* 1: it runs; 2: it has ended */
    int microseconds;
};
static int errand(void *arg, void **out) {
    struct errand *e = arg;
    (void)out;
    stress_check(s_add(&e->state, 1) == 0, "a function began twice");
    usleep((useconds_t)e->microseconds);
    s_set(&e->state, 2);
    return 0;
}
/* Its argument stands in this frame. */
static int at_thread(struct victim *v) {
    struct errand e = {.microseconds = (int)stress_below(&v->rng, 500)};
    int err = heist_to_thread(errand, &e, NULL), state = s_get(&e.state);
    stress_check(state != 1, "to_thread answered %s while the function runs", heist_error_name(err));
    stress_check((err == 0) == (state == 2), "to_thread answered %s, and the function was in state %d",
                 heist_error_name(err), state);
    return err < 0 && err != -ECANCELED && s_get(&closing) ? HEIST_ECLOSED : err;
}

/* A channel, a queue, a future, an instant and a descriptor, of which nothing ever comes. */
static int at_mixture(struct victim *v, heist_future *f) {
    int silent[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, silent) < 0) stress_die("a pair: %s", strerror(errno));
    double when = soon(&v->rng);
    heist_select_case c[] = {HEIST_CASE_RECV(channels[stress_below(&v->rng, CHANNELS)]), HEIST_CASE_GET(queue),
                             HEIST_CASE_AWAIT(f), HEIST_CASE_AT(&when), HEIST_CASE_READABLE(silent[0])};
    int won = heist_select(c, 5), err = won < 0 ? won : c[won].code;
    stress_check(won != 4 || s_get(&closing), "a descriptor on which nothing came is readable");
    if (err == 0 && won < 2) s_add(&((struct item *)c[won].value)->received, 1);
    close(silent[0]);
    close(silent[1]);
    return err;
}

/* One wait.  -ECANCELED is the delivery of a request: nobody else cancels what a victim waits for. */
static int one_wait(struct victim *v, int step) {
    heist_future *f = v->future[step];
    void *got = NULL;
    int err;
    switch (v->points[step]) {
    case SLEEP: return heist_sleep(stress_chance(&v->rng, 50) ? 3600 : (double)stress_below(&v->rng, 3000) * 1e-6);
    case YIELD:
        for (uint64_t i = stress_between(&v->rng, 1, 5000); i; i--)
            if ((err = heist_yield()) < 0) return err;
        return 0;
    case AWAIT:
        err = heist_await(f, &got);
        stress_check(heist_future_done(f), "await answered %s before the future was done", heist_error_name(err));
        stress_check(err != 0 || got, "await gave no value");
        return err;
    case AWAIT_UNTIL:
        err = heist_await_until(f, heist_time() + (stress_chance(&v->rng, 50) ? 3600 : 0.002), &got);
        if (err == 0) stress_check(got != NULL, "await_until gave no value");
        else stress_check(!heist_future_cancelled(f), "await_until cancelled what it waited for");
        return err;
    case AWAIT_TASK: {
        heist_task *t = NULL;
        err = make_child(&v->rng, &t);
        if (err < 0) return err;
        err = heist_await(t, NULL);
        stress_check(heist_future_done(t), "await answered %s before the task had ended", heist_error_name(err));
        heist_unref(t);
        return err;
    }
    case GATHER: return at_gather(v);
    case SEND: return at_send(v);
    case RECV: return at_recv(v, false);
    case RECV_UNTIL: return at_recv(v, true);
    case ACCEPT: return at_accept(v);
    case READ: return at_read(v);
    case WAIT: return at_wait(v);
    case COMPLETIONS: return at_completions(v);
    case WAIT_FOR: return at_wait_for(v, false);
    case SHIELD: return at_wait_for(v, true);
    case GATHER_FUTURE: return at_gather_future(v);
    case BLOCK: return at_block(v);
    case SECTION: return at_section(v);
    case GROUP: return at_group(v);
    case LOCK: return at_lock(v);
    case QUEUE: return at_queue(v);
    case THREAD: return at_thread(v);
    case MIXTURE: return at_mixture(v, f);
    default: /* SELF: a request by the task itself is delivered by the very next call */
        if (heist_cancel(heist_current_task()) == 1) s_add(&v->requests, 1);
        else stress_fail("a running task could not ask for its own cancellation");
        err = stress_chance(&v->rng, 50) ? heist_yield() : heist_sleep(0.001);
        stress_check(err == -ECANCELED, "after its own cancel a task's next call answered %s", heist_error_name(err));
        return err;
    }
}

static int ends(struct victim *v, int code) {
    s_set(&v->outcome, code);
    return code;
}

static int victim_body(void *arg, void **out) {
    struct victim *v = arg;
    int before = s_add(&v->ran, 1);
    stress_check(before == 0, "a body began %d times", before + 1);
    stress_check(s_get(&v->arg_freed) == 0, "a body began after its argument was freed");
    for (int step = 0; step < v->steps; step++) {
        s_set(&v->at, (int)v->points[step]);
        int err = one_wait(v, step);
        s_add(&v->moves, 1);
        stress_progress(1);
        if (err == -ECANCELED) {
            /* close asks children too, and what they answer then looks the same */
            bool certain = !s_get(&closing) || (v->points[step] != AWAIT_TASK && v->points[step] != GATHER &&
                                                v->points[step] < WAIT_FOR);
            s_add(&v->delivered, certain);
            s_add(&delivered_at[v->points[step]], 1);
            if (v->swallows == 0) return ends(v, err);
            v->swallows--;
            int left = heist_uncancel(heist_current_task());
            stress_check(left >= 0, "uncancel answered %d", left);
        } else if (err == HEIST_ECLOSED) {
            stress_check(s_get(&closing), "%s answered HEIST_ECLOSED before close", point_name[v->points[step]]);
            return ends(v, err); /* close has begun: no more children */
        } else {
            stress_check(err == 0 || err == -ETIMEDOUT || err == -EPROTO, "%s answered %s",
                         point_name[v->points[step]], heist_error_name(err));
        }
    }
    s_add(&values_made, 1);
    *out = v;
    return ends(v, 0);
}

static void free_arg(void *arg) {
    struct victim *v = arg;
    int before = s_add(&v->arg_freed, 1);
    stress_check(before == 0, "an argument was freed %d times", before + 1);
    if (s_get(&v->ran)) stress_check(s_get(&v->outcome) != NOT_ENDED, "an argument was freed under its body");
}

static void free_result(void *p) {
    struct victim *v = p;
    int before = s_add(&v->result_freed, 1);
    stress_check(before == 0, "a result was freed %d times", before + 1);
    s_add(&values_freed, 1);
}

/* ---- cancellers and completers ---- */

static int ask(struct victim *v, bool with_message) {
    int got = with_message ? heist_cancel_message(v->task, "stress") : heist_cancel(v->task);
    if (got == 1) s_add(&v->requests, 1);
    stress_check(got == 0 || got == 1, "cancel answered %s", heist_error_name(got));
    if (got == 0) stress_check(heist_future_done(v->task), "cancel answered 0 for a task that is not done");
    return got;
}

static void feed(struct victim *v, struct stress_rng *rng) {
    uint8_t bytes[32];
    size_t n = 1 + stress_below(rng, sizeof bytes);
    pthread_mutex_lock(&v->feeding);
    for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)(v->fed + i);
    ssize_t sent = send(v->peer, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) v->fed += (uint64_t)sent;
    pthread_mutex_unlock(&v->feeding);
}

static void connect_one(int i) {
    int n = s_add(&listeners[i].connected, 1);
    if (n >= CONNECTS) {
        s_add(&listeners[i].connected, -1);
        return;
    }
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&listeners[i].addr, sizeof listeners[i].addr) < 0)
        stress_die("a connection to a listener: %s", strerror(errno));
    listeners[i].fds[n] = fd;
}

/* One random deed; never one that a plain thread alone may do, except connect by a plain thread. */
static void deed(struct stress_rng *rng, bool plain) {
    struct victim *v = &victims[stress_below(rng, (uint64_t)victim_count)];
    heist_channel *c = channels[stress_below(rng, CHANNELS)];
    void *got = NULL;
    switch (stress_below(rng, 12)) {
    case 0:
    case 1:
    case 2: ask(v, false); break;
    case 3: ask(v, true); break;
    case 4:
        if (!v->firm && stress_chance(rng, 10)) heist_uncancel(v->task);
        stress_check(heist_cancelling(v->task) >= 0, "cancelling() is negative");
        break;
    case 5:
    case 6: {
        void *value = stress_alloc(1);
        s_add(&values_made, 1);
        int err = heist_future_set_result(v->future[stress_below(rng, STEPS)], value, free_value);
        stress_check(err == 0 || err == HEIST_EINVALSTATE, "set_result answered %s", heist_error_name(err));
        if (err < 0) free_value(value);
        break;
    }
    case 7: {
        uint64_t n = s_add(&next_item, 1);
        if (n >= ITEMS) break;
        int err = stress_chance(rng, 50) ? heist_channel_try_send(c, &items[n])
                                         : heist_channel_send_until(c, &items[n], heist_time() + 0.001);
        s_set(&items[n].sent, err == 0);
        break;
    }
    case 8:
    case 9: {
        int err = stress_chance(rng, 50) ? heist_channel_try_recv(c, &got)
                                         : heist_channel_recv_until(c, &got, heist_time() + 0.001);
        if (err == 0) s_add(&((struct item *)got)->received, 1);
        break;
    }
    case 10: feed(v, rng); break;
    default:
        if (plain && stress_chance(rng, 20)) connect_one((int)stress_below(rng, LISTENERS));
        break;
    }
}

struct helper {
    struct stress_rng rng;
    bool plain;
    double longest;
    pthread_t thread;
    heist_task *task;
};

static void helper_run(struct helper *h) {
    while (!s_get(&helpers_stop)) {
        deed(&h->rng, h->plain);
        if (h->plain) stress_pause(&h->rng, h->longest);
        else if (stress_chance(&h->rng, 50)) heist_sleep(h->longest * (double)stress_below(&h->rng, 1024) / 1024);
        else heist_yield();
    }
}

static void *helper_thread(void *arg) {
    helper_run(arg);
    return NULL;
}

static int helper_body(void *arg, void **out) {
    (void)out;
    helper_run(arg);
    return 0;
}

/* ---- a round ---- */

static void dump(FILE *to) {
    int shown = 0;
    for (int i = 0; i < victim_count && shown < 30; i++) {
        struct victim *v = &victims[i];
        if (!v->task || heist_future_done(v->task)) continue;
        fprintf(to, "  victim %d at %s: requests %d, delivered %d, moves %d, ran %d\n", i,
                point_name[s_get(&v->at)], s_get(&v->requests), s_get(&v->delivered), s_get(&v->moves), s_get(&v->ran));
        shown++;
    }
}

static int net_body(void *arg, void **out) {
    (void)arg;
    (void)out;
    heist_addr addr;
    int err = heist_addr_parse("127.0.0.1:0", &addr);
    for (int i = 0; i < LISTENERS && err == 0; i++) {
        err = heist_listen(&addr, NULL, &listeners[i].l);
        heist_addr bound;
        if (err == 0) err = heist_listener_addr(listeners[i].l, &bound);
        if (err == 0) memcpy(&listeners[i].addr, &bound.storage, sizeof listeners[i].addr);
    }
    if (err < 0) stress_die("a listener: %s", heist_strerror(err));
    for (int i = 0; i < victim_count; i++) {
        struct victim *v = &victims[i];
        int pair[2];
        bool reads = false;
        for (int s = 0; s < v->steps; s++) reads |= v->points[s] == READ;
        if (!reads) continue;
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
            stress_die("a socket pair: %s", strerror(errno));
        v->peer = pair[1];
        err = heist_conn_open(pair[0], &v->conn);
        if (err < 0) stress_die("a connection: %s", heist_strerror(err));
    }
    return 0;
}

static int start_victim(struct victim *v, bool inside) {
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.arg_free = free_arg;
    o.result_free = free_result;
    o.flags = v->pinned ? HEIST_TASK_PINNED : 0;
    if (inside) return heist_create_task(victim_body, v, &o, &v->task);
    return heist_run_coroutine_threadsafe(heist_runtime_loop(rt, v->index % heist_runtime_workers(rt)), victim_body, v,
                                          &o, &v->task);
}

/* Victims that are made, and sometimes cancelled, in one step of a task. */
static int starter_body(void *arg, void **out) {
    (void)out;
    (void)arg;
    for (int i = 0; i < victim_count; i++) {
        struct victim *v = &victims[i];
        int err = start_victim(v, true);
        if (err < 0) stress_die("a victim: %s", heist_strerror(err));
        if (!v->hurried) continue;
        ask(v, false);
        if (v->pinned) stress_check(s_get(&v->ran) == 0, "a pinned task ran inside its maker's step");
    }
    return 0;
}

static void draw_victim(struct victim *v, int index, struct stress_rng *rng) {
    memset(v, 0, sizeof *v);
    v->index = index;
    v->rng = stress_stream(rng, (uint64_t)index);
    v->steps = (int)stress_between(&v->rng, 1, STEPS);
    v->swallows = stress_chance(&v->rng, 30) ? (int)stress_between(&v->rng, 1, 3) : 0;
    v->pinned = stress_chance(&v->rng, 20);
    v->hurried = stress_chance(&v->rng, 10);
    v->peer = -1;
    v->firm = v->hurried;
    pthread_mutex_init(&v->feeding, NULL);
    s_set(&v->outcome, NOT_ENDED);
    for (int s = 0; s < STEPS; s++) {
        v->points[s] = (enum point)stress_below(&v->rng, POINTS);
        v->firm |= v->points[s] == SELF;
        int err = heist_future_new(NULL, &v->future[s]);
        if (err < 0) stress_die("a future: %s", heist_strerror(err));
    }
}

/* One request at a time, and each must move its victim on. */
static void end_victims(void) {
    stress_phase("every request moves its victim on");
    for (int i = 0; i < victim_count; i++) {
        struct victim *v = &victims[i];
        while (!heist_future_done(v->task)) {
            int moves = s_get(&v->moves);
            if (ask(v, false) == 0) break;
            stress_wait_begin(0, point_name[s_get(&v->at)], 0);
            while (!heist_future_done(v->task) && s_get(&v->moves) == moves)
                heist_await_until(v->task, heist_time() + 0.001, NULL);
            stress_wait_end(0);
        }
        stress_progress(1);
    }
}

static void audit_victim(struct victim *v) {
    int ran = s_get(&v->ran), outcome = s_get(&v->outcome), requests = s_get(&v->requests),
        delivered = s_get(&v->delivered);
    void *value = NULL;
    int got = heist_await(v->task, &value), want = ran ? outcome : -ECANCELED;
    stress_check(outcome != NOT_ENDED || !ran, "a task is done but its body has not ended");
    stress_check(got == want, "a task says %s, its body %s%s", heist_error_name(got), heist_error_name(want),
                 ran ? "" : " (never ran)");
    stress_check(ran || requests, "a task ended without running and without a request");
    stress_check(delivered <= requests, "%d requests were delivered %d times", requests, delivered);
    stress_check(heist_cancel(v->task) == 0, "a task that is done took a request");
    if (v->hurried && v->pinned && ran) {
        /* made and cancelled in one step on one loop: the request came before the first step */
        stress_fail("a task ran although it was cancelled before its first step");
    }
    heist_unref(v->task);
    v->task = NULL;
    s_add(&all_requests, (uint64_t)requests);
    s_add(&all_delivered, (uint64_t)delivered);
}

static void audit_sockets(struct victim *v) {
    if (!v->conn) return;
    uint8_t bytes[256];
    ssize_t n;
    while ((n = recv(heist_conn_fd(v->conn), bytes, sizeof bytes, MSG_DONTWAIT)) > 0) eat(v, bytes, (size_t)n);
    stress_check(v->eaten == v->fed, "%" PRIu64 " bytes went into a socket, %" PRIu64 " came out", v->fed, v->eaten);
    heist_conn_close(v->conn);
    close(v->peer);
}

static int drain_body(void *arg, void **out) {
    (void)arg;
    (void)out;
    for (int i = 0; i < LISTENERS; i++) {
        heist_conn *c = NULL;
        int err;
        while ((err = heist_accept(listeners[i].l, heist_time() + 0.002, &c)) == 0) {
            s_add(&listeners[i].accepted, 1);
            heist_conn_close(c);
        }
        stress_check(err == -ETIMEDOUT, "the last accept answered %s", heist_error_name(err));
        stress_check(s_get(&listeners[i].accepted) == s_get(&listeners[i].connected),
                     "%d connections were made, %d accepted", s_get(&listeners[i].connected),
                     s_get(&listeners[i].accepted));
    }
    return 0;
}

static void one_round(struct stress_rng *rng) {
    rt = stress_runtime("victims", stress_draw_workers(rng), NULL);
    helpers_rt = stress_chance(rng, 50) ? stress_runtime("helpers", stress_draw_workers(rng), NULL) : NULL;
    bool few = stress_chance(rng, 30);
    victim_count = few ? (int)stress_between(rng, 1, 16) : 1 + (int)stress_below(rng, stress_scale(MAX_VICTIMS));
    int threads = stress_draw_threads(rng, HELPERS), tasks = (int)stress_below(rng, HELPERS);
    if (threads > HELPERS) threads = HELPERS;
    bool close_early = stress_chance(rng, 25), inside = stress_chance(rng, 50);
    double span = 0.005 * (double)stress_between(rng, 1, 40);
    double longest = (double)stress_between(rng, 1, 3000) * 1e-6;
    stress_settings("%d and %d workers, %d victims, %d threads and %d tasks against them, %.2f s%s%s",
                    heist_runtime_workers(rt), helpers_rt ? heist_runtime_workers(helpers_rt) : 0, victim_count,
                    threads, tasks, span, close_early ? ", closed early" : "", inside ? ", made inside" : "");

    stress_phase("setting up");
    items = stress_alloc(ITEMS * sizeof *items);
    s_set(&next_item, 0);
    s_set(&closing, false);
    memset(listeners, 0, sizeof listeners);
    for (int i = 0; i < CHANNELS; i++) {
        int err = heist_channel_new(i < 3 ? (size_t)i : stress_between(rng, 1, 64), &channels[i]);
        if (err < 0) stress_die("a channel: %s", heist_strerror(err));
    }
    if (heist_queue_new((long long)stress_below(rng, 5), NULL, &queue) < 0) stress_die("a queue");
    memset(locks, 0, sizeof locks);
    for (int i = 0; i < LOCKS; i++) {
        heist_lock_init(&locks[i].lock);
        heist_rwlock_init(&locks[i].rwlock);
        if (heist_condition_init(&locks[i].told, &locks[i].lock) || heist_semaphore_init(&locks[i].permits, PERMITS))
            stress_die("a condition or semaphore");
    }
    for (int i = 0; i < victim_count; i++) draw_victim(&victims[i], i, rng);
    heist_task *t = NULL;
    int err = heist_runtime_run_coroutine(rt, net_body, NULL, NULL, &t);
    if (err == 0) err = heist_await(t, NULL);
    if (err < 0) stress_die("setting up: %s", heist_strerror(err));
    heist_unref(t);

    stress_phase("victims");
    if (inside) {
        err = heist_run_coroutine_threadsafe(heist_runtime_loop(rt, 0), starter_body, NULL, NULL, &t);
        if (err == 0) err = heist_await(t, NULL);
        if (err < 0) stress_die("the starter: %s", heist_strerror(err));
        heist_unref(t);
    } else {
        for (int i = 0; i < victim_count; i++) {
            victims[i].hurried = false; /* from here another thread may well run it first */
            err = start_victim(&victims[i], false);
            if (err < 0) stress_die("a victim: %s", heist_strerror(err));
        }
    }
    s_set(&helpers_stop, false);
    struct helper helpers[2 * HELPERS];
    int helper_count = threads + tasks;
    for (int i = 0; i < helper_count; i++) {
        struct helper *h = &helpers[i];
        *h = (struct helper){.rng = stress_stream(rng, (uint64_t)i), .plain = i < threads, .longest = longest};
        if (h->plain) {
            stress_thread(&h->thread, helper_thread, h);
        } else {
            err = heist_runtime_run_coroutine(helpers_rt ? helpers_rt : rt, helper_body, h, NULL, &h->task);
            if (err < 0) stress_die("a helper: %s", heist_strerror(err));
        }
    }
    double until = stress_now() + span;
    while (stress_now() < until) {
        stress_block(0.002);
        stress_progress(1); /* time that passes on purpose */
    }
    if (close_early) {
        stress_phase("close with a limit");
        s_set(&closing, true);
        for (int i = 0; i < victim_count; i++) s_add(&victims[i].requests, 1); /* close asks once */
        err = heist_runtime_close(rt, (double)stress_between(rng, 0, 20000) * 1e-6);
        stress_check(err == 0 || err == -ETIMEDOUT, "close answered %s", heist_error_name(err));
    }
    s_set(&helpers_stop, true);
    for (int i = 0; i < helper_count; i++) {
        if (helpers[i].plain) {
            stress_join(helpers[i].thread);
        } else {
            err = heist_await(helpers[i].task, NULL);
            stress_check(err == 0 || (close_early && err == -ECANCELED), "a helper ended with %s",
                         heist_error_name(err));
            heist_unref(helpers[i].task);
        }
    }
    end_victims();
    stress_phase("outcomes");
    for (int i = 0; i < victim_count; i++) audit_victim(&victims[i]);
    if (!close_early) {
        stress_phase("no connection lost");
        err = heist_runtime_run_coroutine(rt, drain_body, NULL, NULL, &t);
        if (err == 0) err = heist_await(t, NULL);
        stress_check(err == 0, "draining the listeners: %s", heist_error_name(err));
        heist_unref(t);
    }
    stress_phase("no byte lost");
    for (int i = 0; i < victim_count; i++) audit_sockets(&victims[i]);
    for (int i = 0; i < LISTENERS; i++) {
        heist_listener_close(listeners[i].l);
        for (int k = 0; k < s_get(&listeners[i].connected); k++) close(listeners[i].fds[k]);
    }
    stress_phase("no item lost");
    for (int i = 0; i < CHANNELS; i++) {
        void *got;
        while (heist_channel_try_recv(channels[i], &got) == 0) s_add(&((struct item *)got)->received, 1);
        heist_channel_unref(channels[i]);
    }
    void *left;
    while (heist_queue_get_nowait(queue, &left) == 0) s_add(&((struct item *)left)->received, 1);
    heist_queue_unref(queue);
    for (int i = 0; i < LOCKS; i++) {
        stress_check(heist_lock_destroy(&locks[i].lock) == 0, "a lock is not free at the end");
        stress_check(heist_condition_destroy(&locks[i].told) == 0, "somebody waits for a condition at the end");
        stress_check(heist_rwlock_destroy(&locks[i].rwlock) == 0, "a read-write lock is not free at the end");
        stress_check(heist_semaphore_value(&locks[i].permits) == PERMITS, "a permit was lost");
    }
    uint64_t used = s_get(&next_item) < ITEMS ? s_get(&next_item) : ITEMS;
    for (uint64_t i = 0; i < used; i++)
        stress_check(s_get(&items[i].sent) == s_get(&items[i].received),
                     "item %" PRIu64 " was sent %d times and received %d times", i, s_get(&items[i].sent),
                     s_get(&items[i].received));
    free(items);
    if (helpers_rt) stress_runtime_end(helpers_rt);
    stress_runtime_end(rt);
    stress_phase("freed once");
    for (int i = 0; i < victim_count; i++) {
        struct victim *v = &victims[i];
        stress_check(s_get(&v->arg_freed) == 1, "an argument was freed %d times", s_get(&v->arg_freed));
        int want = s_get(&v->ran) && s_get(&v->outcome) == 0;
        stress_check(s_get(&v->result_freed) == want, "a result was freed %d times instead of %d",
                     s_get(&v->result_freed), want);
        for (int s = 0; s < STEPS; s++) heist_unref(v->future[s]);
        pthread_mutex_destroy(&v->feeding);
    }
    stress_check(s_get(&values_made) == s_get(&values_freed), "%" PRIu64 " values were made, %" PRIu64 " freed",
                 s_get(&values_made), s_get(&values_freed));
    stress_check(s_get(&children_born) == s_get(&children_died),
                 "%" PRIu64 " arguments of children were made, %" PRIu64 " freed", s_get(&children_born),
                 s_get(&children_died));
}

int main(int argc, char **argv) {
    stress_begin(argc, argv, "cancel", "a request is delivered once and takes nothing; bodies end once; nothing leaks");
    stress_on_stall(dump);
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    stress_note("requests %" PRIu64 ", delivered %" PRIu64, s_get(&all_requests), s_get(&all_delivered));
    for (int p = 0; p < POINTS; p++)
        stress_note("  delivered at %-16s %" PRIu64, point_name[p], s_get(&delivered_at[p]));
    return stress_end();
}
