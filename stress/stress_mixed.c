/* stress/stress_mixed.c: everything at once, while memory and descriptors run out.
 *
 * Law: where success was reported the sums are right: what was sent on channels was
 * received or is still there, an echo gives back its bytes in their places, callbacks and
 * timers that were accepted run once or are reported as not run, gather adds up; each
 * failure is a code that its call documents, and one that has a cause: a request to
 * cancel, a close, a peer that reset, or something that was short at the time.
 * Everything is freed once, and afterwards no block of the allocator is live.
 * Threads: jobs on the workers of one runtime and on a loop of its own, which do a little
 * of each thing in a drawn order; plain threads that do the same; plain clients of the
 * echo server that are slow or reset their connections; the saboteur.
 * Invariant: what is counted is counted before it is handed over, and the books are read
 * when the runtime, the loop and every thread have ended. */
#include "faults.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define CHANNELS 4
#define MAX_OUTSIDERS 8
#define MAX_CLIENTS 6
#define REGISTER 64
#define LINKS 65536
#define CHUNK 16384
#define JOBS_AT_ONCE 300

enum op {
    SLEEP,
    YIELD,
    SEND,
    RECV,
    TRY,
    CLIENT,
    GATHER,
    CHILD,
    DETACH,
    TIMER,
    SOON,
    CANCEL,
    FUTURE,
    PIPELINE,
    SPIN,
    BLOCK,
    THREAD,
    NAMES,
    OPS
};
static const char *const op_name[OPS] = {"sleep",  "yield", "send", "recv",   "try",    "client", "gather", "child",
                                         "detach", "timer", "soon", "cancel", "future", "pipeline", "spin", "block",
                                         "thread", "names"};

struct job {
    struct stress_rng rng;
    int steps;
    _Atomic(int) asked; /* requests to cancel, counted before they are made */
    int delivered;
    _Atomic(int) ran, ended;
};
/* Who performs an operation: a job, or a plain thread. */
struct actor {
    struct stress_rng rng;
    struct job *job; /* NULL on a plain thread */
    int slot;        /* of the watchdog, on a plain thread */
    bool over;       /* cancelled, and it obeys */
    bool child;      /* a plain callee of a gather: whoever cancels its parent cancels it */
};
struct token {
    uint64_t value;
};
struct tick {
    double when; /* 0: soon */
    _Atomic(int) ran;
};
struct link {
    _Atomic(int) server_failed;
};

static heist_runtime *rt;
static heist_loop *own;
static heist_channel *channels[CHANNELS];
static heist_listener *listeners[2];
static heist_addr addresses[2];
static heist_task *acceptors[2];
static struct link *links; /* by number, which is the first thing a client says */
static struct {
    pthread_mutex_t lock;
    heist_task *task;
    struct job *job;
} registered[REGISTER];
static _Atomic(bool) stop, jobs_stop, closing, driver_stop; /* stop: for plain threads */
static _Atomic(uint64_t) next_link, unserved; /* connections that were closed before their number was read */
static _Atomic(uint64_t) jobs_accepted, jobs_freed, ticks_accepted, ticks_ran, ticks_freed;
static _Atomic(uint64_t) sent_count, sent_sum, received_count, received_sum;
static _Atomic(uint64_t) done_well[OPS], gone_wrong[OPS], all_cancelled, all_bytes, all_resets, all_jobs, all_ticks;

/* ---- codes and their causes ---- */

static bool note_cancelled(struct actor *a) {
    if (a->child) return true;
    struct job *j = a->job;
    if (!j) return false;
    j->delivered++;
    /* relaxed counters: the request was counted before it was made, and the delivery comes after it */
    if (j->delivered > s_get(&j->asked) + (s_get(&closing) ? 1 : 0)) return false;
    s_add(&all_cancelled, 1);
    if (stress_chance(&a->rng, 70)) a->over = true;
    return true;
}

/* 0: true.  A code with a cause, or one of the two that are named: false.  Anything else breaks the law. */
static bool well(struct actor *a, const char *what, int err, int one, int two) {
    if (err == 0) return true;
    if (err == one || err == two || stress_short_of(err)) return false;
    if (err == -ECANCELED && note_cancelled(a)) return false;
    if (err == HEIST_ECLOSED && s_get(&closing)) {
        a->over = true;
        return false;
    }
    stress_fail("%s answered %s in %s without a cause; %s", what, heist_error_name(err),
                a->child ? "a child"
                : a->job ? "a job"
                         : "a plain thread",
                stress_shortages());
    return false;
}

/* Waits for the end of a future, also without the memory that a plain thread waits with. */
static int end_of(struct actor *a, heist_future *f, void **out) {
    for (;;) {
        int err = heist_await(f, out);
        if (heist_future_done(f)) return heist_future_result(f, out);
        if (err == -ECANCELED && a->job) { /* until it has ended, whatever is asked of us */
            well(a, "await", err, 0, 0);
            continue;
        }
        well(a, "await", err, 0, 0);
        if (a->job) well(a, "a yield", heist_yield(), 0, 0);
        else stress_block(0.0002);
    }
}

static double moment(struct actor *a, uint64_t most_us) { return (double)stress_between(&a->rng, 0, most_us) * 1e-6; }

static heist_loop *some_loop(struct actor *a) {
    if (stress_chance(&a->rng, 25)) return own;
    return heist_runtime_loop(rt, (int)stress_below(&a->rng, (uint64_t)heist_runtime_workers(rt)));
}

/* ---- channels ---- */

static void count_received(struct token *t) {
    s_add(&received_count, 1);
    s_add(&received_sum, t->value);
    free(t);
}

static bool send_one(struct actor *a, bool try) {
    heist_channel *c = channels[stress_below(&a->rng, CHANNELS)];
    struct token *t = stress_alloc(sizeof *t);
    uint64_t value = t->value = stress_next(&a->rng) >> 20;
    s_add(&sent_count, 1);
    s_add(&sent_sum, value);
    int err = try ? heist_channel_try_send(c, t) : heist_channel_send_until(c, t, heist_time() + moment(a, 4000));
    if (err < 0) { /* it was not taken */
        s_add(&sent_count, -UINT64_C(1));
        s_add(&sent_sum, -value);
        free(t);
    }
    return well(a, "a send", err, try ? -EAGAIN : -ETIMEDOUT, HEIST_ESHUTDOWN);
}

static bool recv_one(struct actor *a, bool try) {
    heist_channel *c = channels[stress_below(&a->rng, CHANNELS)];
    void *got = NULL;
    int err = try ? heist_channel_try_recv(c, &got) : heist_channel_recv_until(c, &got, heist_time() + moment(a, 4000));
    if (err == 0) count_received(got);
    return well(a, "a recv", err, try ? -EAGAIN : -ETIMEDOUT, HEIST_ESHUTDOWN);
}

/* ---- the echo ---- */

static uint8_t byte_at(uint64_t number, uint64_t at) { return (uint8_t)(stress_mix(number, at / 8) >> (8 * (at % 8))); }

static void fill(uint8_t *bytes, size_t n, uint64_t number, uint64_t at) {
    for (size_t i = 0; i < n; i++) bytes[i] = byte_at(number, at + i);
}

static bool check_bytes(const uint8_t *bytes, size_t n, uint64_t number, uint64_t at) {
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == byte_at(number, at + i)) continue;
        stress_fail("byte %" PRIu64 " of link %" PRIu64 " came back wrong", at + i, number);
        return false;
    }
    s_add(&all_bytes, n);
    return true;
}

/* What a handler serves.  Its destructor closes: a handler that never comes to run has a connection too. */
struct served {
    heist_conn *conn;
    bool known, fails;
    uint64_t number;
};

static void end_served(void *arg) {
    struct served *s = arg;
    if (!s->known) s_add(&unserved, 1);
    else if (s->fails) s_set(&links[s->number].server_failed, 1);
    if (s->fails || !s->known) { /* at once, so that the client learns of it */
        const struct linger at_once = {1, 0};
        setsockopt(heist_conn_fd(s->conn), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
    heist_conn_close(s->conn);
    free(s);
}

static int echo_handler(void *arg, void **out) {
    struct served *s = arg;
    uint8_t *bytes = stress_alloc(CHUNK);
    struct actor a = {.rng = {stress_mix((uint64_t)(uintptr_t)s, (uint64_t)(stress_now() * 1e9))}, .child = true};
    size_t have = 0;
    ptrdiff_t n = 0;
    int err = 0;
    (void)out;
    while (have < sizeof s->number) {
        n = heist_conn_read(s->conn, (char *)&s->number + have, sizeof s->number - have, HEIST_FOREVER);
        if (n <= 0) break;
        have += (size_t)n;
    }
    s->known = have == sizeof s->number;
    if (s->known && s->number >= LINKS) {
        stress_fail("the server read %" PRIu64 " as the number of a link", s->number);
        s->known = false;
    }
    while (s->known && err == 0) {
        if (stress_chance(&a.rng, 10)) err = heist_sleep(moment(&a, 1500)); /* a slow reader */
        if (err == 0) n = heist_conn_read(s->conn, bytes, (size_t)stress_between(&a.rng, 1, CHUNK), HEIST_FOREVER);
        if (err == 0 && n <= 0) break;
        if (err == 0) err = heist_conn_write(s->conn, bytes, (size_t)n, HEIST_FOREVER, NULL);
        stress_progress(1);
    }
    if (err == 0 && n < 0) err = (int)n;
    well(&a, "the echo", err, -ECONNRESET, -EPIPE);
    s->fails = err < 0;
    free(bytes);
    return 0;
}

static int acceptor(void *arg, void **out) {
    int i = (int)(intptr_t)arg;
    (void)out;
    for (uint64_t n = 0;; n++) {
        heist_conn *c = NULL;
        int err = heist_accept(listeners[i], HEIST_FOREVER, &c);
        if (err == -ECANCELED) return err;
        if (err < 0) { /* the connection stays in the backlog */
            stress_check(stress_short_of(err), "accept answered %s; %s", heist_error_name(err), stress_shortages());
            err = heist_sleep(0.0005);
            if (err == -ECANCELED) return err;
            continue;
        }
        struct served *s = stress_alloc(sizeof *s);
        s->conn = c;
        heist_task_options o = HEIST_TASK_OPTIONS_INIT;
        o.flags = n % 5 == 0 ? HEIST_TASK_PINNED : 0;
        o.stack_bytes = 32 * 1024;
        o.arg_free = end_served;
        err = heist_create_task(echo_handler, s, &o, NULL);
        if (err == 0) continue;
        stress_check(stress_short_of(err) || (err == HEIST_ECLOSED && s_get(&closing)), "create_task answered %s",
                     heist_error_name(err));
        end_served(s);
    }
}

static uint64_t new_link(void) {
    uint64_t number = s_add(&next_link, 1);
    return number < LINKS ? number : UINT64_MAX;
}

/* An end that the client did not ask for has a cause on the other side. */
static void check_end(uint64_t number, uint64_t sent, uint64_t back, const char *what) {
    bool cause = s_get(&links[number].server_failed) || s_get(&unserved) || s_get(&closing);
    stress_check(cause,
                 "link %" PRIu64 " ended (%s) with %" PRIu64 " of %" PRIu64 " bytes although its server did not fail",
                 number, what, back, sent);
}

static bool client(struct actor *a) {
    uint64_t number = new_link();
    if (number == UINT64_MAX) return true;
    heist_conn *c = NULL;
    int which = (int)stress_below(&a->rng, 2);
    int err = heist_connect(&addresses[which], heist_time() + 5, &c);
    if (!well(a, "connect", err, -ETIMEDOUT, 0)) return false;
    if (stress_chance(&a->rng, 50)) { /* writes that need many calls of the system */
        const int little = 2048;
        setsockopt(heist_conn_fd(c), SOL_SOCKET, SO_SNDBUF, &little, sizeof little);
    }
    uint64_t total = stress_between(&a->rng, 0, 8 * CHUNK), sent = 0, back = 0;
    bool resets = stress_chance(&a->rng, 15), reset = false;
    uint8_t *bytes = stress_alloc(CHUNK);
    err = heist_conn_write(c, &number, sizeof number, HEIST_FOREVER, NULL);
    while (err == 0 && sent < total) {
        size_t n = (size_t)stress_between(&a->rng, 1, total - sent < CHUNK ? total - sent : CHUNK), written = 0;
        fill(bytes, n, number, sent);
        err = heist_conn_write(c, bytes, n, HEIST_FOREVER, &written);
        sent += written;
        if (err == 0) stress_check(written == n, "a write said 0 with %zu of %zu bytes", written, n);
        if (err == 0 && stress_chance(&a->rng, 10)) err = heist_sleep(moment(a, 2000)); /* a slow reader */
        while (err == 0 && back < sent) {
            ptrdiff_t got = heist_conn_read(c, bytes, (size_t)stress_between(&a->rng, 1, CHUNK), HEIST_FOREVER);
            if (got <= 0) {
                err = got ? (int)got : -ECONNRESET;
                break;
            }
            stress_check((uint64_t)got <= sent - back, "more came back than was sent");
            check_bytes(bytes, (size_t)got, number, back);
            back += (uint64_t)got;
        }
        reset = err == 0 && resets && stress_chance(&a->rng, 30);
        if (reset) break;
    }
    if (reset) {
        const struct linger at_once = {1, 0};
        setsockopt(heist_conn_fd(c), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        s_add(&all_resets, 1);
    } else if (err == 0) {
        err = heist_conn_shutdown(c);
        ptrdiff_t got = err == 0 ? heist_conn_read(c, bytes, 1, HEIST_FOREVER) : 0;
        stress_check(got <= 0, "a byte came after the end");
        if (got < 0) err = (int)got;
    }
    heist_conn_close(c);
    free(bytes);
    bool peer = err == -ECONNRESET || err == -EPIPE || err == -ENOTCONN;
    if (peer) check_end(number, sent, back, heist_error_name(err));
    return well(a, "a client", err, peer ? err : 0, 0);
}

/* The same with plain system calls: a witness from outside, slow, or gone in the middle. */
static void plain_client(struct stress_rng *rng) {
    uint64_t number = new_link();
    if (number == UINT64_MAX) return;
    int which = (int)stress_below(rng, 2);
    const heist_addr *at = &addresses[which];
    int fd = socket(at->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        stress_check(stress_short_of(-errno), "a socket: %s", strerror(errno));
        return;
    }
    const struct timeval patience = {(time_t)stress_opt.stall, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    uint64_t total = stress_between(rng, 0, 4 * CHUNK), sent = 0, back = 0;
    bool resets = stress_chance(rng, 40), broken = false;
    uint8_t bytes[CHUNK];
    if (connect(fd, (const struct sockaddr *)&at->storage, at->length) < 0) stress_die("connect: %s", strerror(errno));
    broken = write(fd, &number, sizeof number) != (ssize_t)sizeof number;
    while (!broken && sent < total) {
        size_t n = (size_t)stress_between(rng, 1, total - sent < CHUNK ? total - sent : CHUNK);
        fill(bytes, n, number, sent);
        ssize_t done = send(fd, bytes, n, MSG_NOSIGNAL);
        if (done <= 0) break;
        sent += (uint64_t)done;
        if (stress_chance(rng, 20)) stress_pause(rng, 0.003);
        while (back < sent && !broken) {
            ssize_t got = recv(fd, bytes, sizeof bytes, 0);
            if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
                stress_fail("a plain client waited %.0f s for its echo", stress_opt.stall);
                broken = true;
            } else if (got <= 0) {
                check_end(number, sent, back, got ? strerror(errno) : "end");
                broken = true;
            } else {
                check_bytes(bytes, (size_t)got, number, back);
                back += (uint64_t)got;
            }
        }
        if (resets && stress_chance(rng, 30)) {
            const struct linger at_once = {1, 0};
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
            s_add(&all_resets, 1);
            break;
        }
    }
    close(fd);
    stress_progress(1);
}

/* ---- tasks of tasks ---- */

static int child_body(void *arg, void **out) {
    uintptr_t n = (uintptr_t)arg;
    struct actor a = {.rng = {n}, .child = true};
    int err = n & 1 ? heist_sleep(moment(&a, 1000)) : n & 2 ? heist_yield() : 0;
    if (!well(&a, "a sleep in a child", err, 0, 0)) return err;
    *out = (void *)(n * n);
    return 0;
}

/* By any of the doors that are open to the caller. */
static int start(struct actor *a, heist_coro_fn fn, void *arg, heist_task_options *o, heist_task **out) {
    if (stress_chance(&a->rng, 30)) o->flags |= HEIST_TASK_PINNED;
    switch (stress_below(&a->rng, a->job ? 4 : 2)) {
    case 0: return heist_run_coroutine_threadsafe(some_loop(a), fn, arg, o, out);
    case 1: return heist_runtime_run_coroutine(rt, fn, arg, o, out);
    default: return heist_create_task(fn, arg, o, out);
    }
}

static bool one_child(struct actor *a) {
    uintptr_t n = (uintptr_t)stress_below(&a->rng, 1000);
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    heist_task *t = NULL;
    void *got = NULL;
    if (!well(a, "create_task", start(a, child_body, (void *)n, &o, &t), 0, 0)) return false;
    int err = end_of(a, t, &got);
    heist_unref(t);
    /* its own end: cancelled with its parent, or short of something */
    stress_check(err == 0 || err == -ECANCELED || stress_short_of(err), "a child ended with %s", heist_error_name(err));
    if (err == 0) stress_check((uintptr_t)got == n * n, "a child gave a wrong result");
    return err == 0;
}

static bool gather_as_future(struct actor *a, heist_task **t, size_t n, uintptr_t base) {
    heist_future *all = NULL;
    void *value = NULL;
    if (!well(a, "gather_future", heist_gather_future(t, n, 0, &all), 0, 0)) return false;
    int err = end_of(a, all, &value);
    for (size_t i = 0; i < n; i++)
        stress_check(heist_future_done(t[i]), "a gather's future ended with %s before all had", heist_error_name(err));
    for (size_t i = 0; err == 0 && i < n; i++)
        stress_check((uintptr_t)((void **)value)[i] == (base + i) * (base + i), "a gather's future gave a wrong value");
    heist_unref(all);
    return well(a, "a gather's future", err, a->job ? 0 : -ECANCELED, 0);
}

static bool wait_for_all(struct actor *a, heist_task **t, size_t n) {
    size_t pending = n;
    for (heist_task **rest = t; pending;) {
        int done = heist_wait(rest, pending, (int)stress_below(&a->rng, 3), moment(a, 2000), &pending);
        if (done < 0) return well(a, "wait", done, 0, 0);
        for (int i = 0; i < done; i++) stress_check(heist_future_done(rest[i]), "wait called a pending task done");
        rest += done;
    }
    return true;
}

static bool take_all(struct actor *a, heist_task **t, size_t n) {
    heist_completions *it = NULL;
    heist_future *f;
    size_t taken = 0;
    int got;
    if (!well(a, "as_completed", heist_as_completed(t, n, HEIST_FOREVER, &it), 0, 0)) return false;
    for (; (got = heist_completions_next(it, &f)) == 1; taken++)
        stress_check(heist_future_done(f), "as_completed gave a pending task");
    stress_check(got < 0 || taken == n, "as_completed ended after %zu of %zu", taken, n);
    heist_completions_free(it);
    return well(a, "as_completed's next", got, 0, 0);
}

static bool gather(struct actor *a) {
    heist_task *t[6];
    void *got[6] = {NULL};
    uintptr_t base = (uintptr_t)stress_below(&a->rng, 1000);
    size_t n = 0, many = (size_t)stress_between(&a->rng, 1, 6);
    for (; n < many; n++) {
        heist_task_options o = HEIST_TASK_OPTIONS_INIT;
        if (!well(a, "create_task", start(a, child_body, (void *)(base + n), &o, &t[n]), 0, 0)) break;
    }
    bool good = false;
    switch (n ? stress_below(&a->rng, 6) : 9) {
    case 0: good = gather_as_future(a, t, n, base); break;
    case 1: good = wait_for_all(a, t, n); break;
    case 2: good = take_all(a, t, n); break;
    case 9: break;
    default: {
        int err = heist_gather(t, n, got, 0);
        bool all = true;
        for (size_t i = 0; i < n; i++) all = all && heist_future_done(t[i]);
        stress_check(all || stress_short_of(err), "gather answered %s before all had ended", heist_error_name(err));
        for (size_t i = 0; err == 0 && i < n; i++)
            stress_check((uintptr_t)got[i] == (base + i) * (base + i), "gather gave a wrong result");
        good = well(a, "gather", err, a->job ? 0 : -ECANCELED, 0); /* a plain thread: a close cancels the children */
    }
    }
    for (size_t i = 0; i < n; i++) {
        end_of(a, t[i], NULL);
        heist_unref(t[i]);
    }
    return good;
}

/* ---- callbacks and timers ---- */

static int run_tick(void *arg) {
    struct tick *t = arg;
    stress_check(s_add(&t->ran, 1) == 0, "a callback ran twice");
    stress_check(heist_time() >= t->when - 1e-8, "a timer was early by %.9f s", t->when - heist_time());
    s_add(&ticks_ran, 1);
    stress_progress(1);
    return 0;
}

static void free_tick(void *arg) {
    s_add(&ticks_freed, 1);
    free(arg);
}

static bool tick(struct actor *a, bool timer) {
    struct tick *t = stress_alloc(sizeof *t);
    heist_call_options o = HEIST_CALL_OPTIONS_INIT;
    heist_handle *handle = NULL;
    heist_loop *loop = some_loop(a);
    bool keep = stress_chance(&a->rng, 40);
    o.arg_free = free_tick;
    s_add(&ticks_accepted, 1);
    int err;
    if (timer) {
        t->when = heist_time() + moment(a, 5000);
        err = heist_loop_call_at(loop, t->when, run_tick, t, &o, keep ? &handle : NULL);
    } else {
        err = stress_chance(&a->rng, 50) ? heist_loop_call_soon_threadsafe(loop, run_tick, t, &o, keep ? &handle : NULL)
                                         : heist_runtime_call_soon(rt, run_tick, t, &o, keep ? &handle : NULL);
    }
    if (err < 0) {
        s_add(&ticks_accepted, -UINT64_C(1));
        free(t);
    }
    if (handle && stress_chance(&a->rng, 50)) {
        int won = heist_handle_cancel(handle);
        stress_check(won == 0 || won == 1, "handle_cancel answered %s", heist_error_name(won));
    }
    heist_handle_unref(handle);
    return well(a, "a callback", err, 0, 0);
}

static int complete(void *arg) {
    heist_future *f = arg;
    int err = heist_future_set_result(f, f, NULL);
    stress_check(err == 0 || err == HEIST_EINVALSTATE, "set_result answered %s", heist_error_name(err));
    return 0;
}

static void drop_future(void *arg) {
    heist_future *f = arg;
    heist_cancel(f); /* of a callback that never ran: nobody else would end it */
    heist_unref(f);
}

static bool future(struct actor *a) {
    heist_future *f = NULL;
    void *got = NULL;
    if (!well(a, "future_new", heist_future_new(stress_chance(&a->rng, 30) ? some_loop(a) : NULL, &f), 0, 0))
        return false;
    heist_call_options o = HEIST_CALL_OPTIONS_INIT;
    o.arg_free = drop_future;
    heist_ref(f);
    bool good =
        well(a, "call_later", heist_loop_call_later(some_loop(a), moment(a, 2000), complete, f, &o, NULL), 0, 0);
    if (!good) heist_unref(f);
    bool until = stress_chance(&a->rng, 50);
    if (good) {
        int err = until ? heist_await_until(f, heist_time() + moment(a, 3000), &got) : heist_await(f, &got);
        if (err == 0) stress_check(got == f, "a future gave a wrong result");
        /* on a plain thread, or when a close drops the callback, cancelled is what the future itself says */
        bool itself = err == -ECANCELED && heist_future_cancelled(f) && s_get(&closing);
        good = well(a, "await", err, until ? -ETIMEDOUT : 0, itself && !a->job ? -ECANCELED : 0);
    }
    heist_unref(f);
    return good;
}

/* ---- elsewhere: on a thread of the default executor, or in a blocking section ---- */

static int elsewhere(void *arg, void **out) {
    ++*(unsigned *)arg;
    *out = arg;
    return 0;
}

static bool on_a_thread(struct actor *a) {
    unsigned n = 0;
    void *got = NULL;
    if (!a->job) {
        heist_future *f = NULL;
        unsigned *count = stress_alloc(sizeof *count);
        heist_job_options o = HEIST_JOB_OPTIONS_INIT;
        o.result_free = free; /* what was the argument */
        int err = heist_loop_run_in_executor(some_loop(a), NULL, elsewhere, count, &o, &f);
        if (err) {
            free(count);
            return well(a, "run_in_executor", err, s_get(&closing) ? HEIST_EEXECSHUTDOWN : 0, 0);
        }
        err = end_of(a, f, &got);
        stress_check(err != 0 || (got == count && *count == 1), "a job on a thread ran %u times", *count);
        heist_unref(f);
        return well(a, "a job on a thread", err, 0, 0);
    }
    if (stress_chance(&a->rng, 50)) {
        stress_check(heist_blocking_begin() == 0, "no blocking section");
        stress_block(moment(a, 300));
        stress_check(heist_blocking_end() == 0, "no end of a blocking section");
        return true;
    }
    int err = heist_to_thread(elsewhere, &n, &got);
    stress_check(err ? n == 0 : n == 1 && got == &n, "to_thread answered %s, and ran %u times", heist_error_name(err), n);
    return well(a, "to_thread", err, 0, 0);
}

/* ---- jobs ---- */

/* A generator that runs ahead behind a stage, to its end or to a break: then its bodies have ended. */
struct numbers {
    uintptr_t n;
    _Atomic(int) begun, ended;
};

static int number_source(heist_generator *self, void *arg, void **out) {
    struct numbers *s = arg;
    int err = 0;
    (void)out;
    s_add(&s->begun, 1);
    for (uintptr_t i = 1; i <= s->n && !err; i++) {
        if (i % 4 == 0) err = heist_yield();
        if (!err) err = heist_generator_yield(self, (void *)i, NULL);
    }
    s_add(&s->ended, 1);
    return err;
}

static int number_stage(heist_generator *self, heist_generator *input, void *arg, void **out) {
    struct numbers *s = arg;
    void *value;
    int err;
    (void)out;
    s_add(&s->begun, 1);
    while (!(err = heist_generator_next(input, &value)))
        if ((err = heist_generator_yield(self, value, NULL))) break;
    s_add(&s->ended, 1);
    return err == HEIST_ESTOP ? 0 : err;
}

static bool pipeline(struct actor *a) {
    struct numbers s = {.n = stress_below(&a->rng, 30)};
    heist_pipeline_options o = HEIST_PIPELINE_OPTIONS_INIT;
    heist_generator *source = NULL, *ahead = NULL, *stage = NULL;
    void *value;
    uintptr_t expected = 1, leave_at = stress_chance(&a->rng, 30) ? 1 + stress_below(&a->rng, 30) : 0;
    o.runtime = rt;
    o.length = stress_below(&a->rng, 4);
    int err = heist_generator_new(number_source, &s, NULL, &source);
    if (!err) err = heist_pipeline_buffer(source, &o, &ahead);
    if (!err) err = heist_pipeline_stage(ahead, number_stage, &s, NULL, &stage);
    if (!err) {
        heist_foreach (value, stage, &err) {
            stress_check((uintptr_t)value == expected, "a pipeline gave a wrong value");
            if (expected++ == leave_at) break;
        }
        stress_check(s_get(&s.begun) == s_get(&s.ended), "a pipeline was left (%s) and a body of it lives",
                     heist_error_name(err));
        if (err == HEIST_ESTOP) stress_check(expected == s.n + 1, "a pipeline gave too few values");
    }
    heist_generator_unref(stage);
    heist_generator_unref(ahead);
    heist_generator_unref(source);
    return err == HEIST_ESTOP || well(a, "a pipeline", err, 0, 0);
}

static int job_body(void *arg, void **out);

static void free_job(void *arg) {
    struct job *j = arg;
    stress_check(s_get(&j->ran) == s_get(&j->ended), "a job was freed under its body");
    s_add(&jobs_freed, 1);
    free(j);
}

static bool detach(struct actor *a) {
    if (s_get(&jobs_accepted) - s_get(&jobs_freed) >= stress_scale(JOBS_AT_ONCE)) return true;
    struct job *j = stress_alloc(sizeof *j);
    j->rng = stress_stream(&a->rng, 7);
    j->steps = (int)stress_between(&a->rng, 1, 60);
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.arg_free = free_job;
    if (stress_chance(&a->rng, 30)) o.name = "job";
    s_add(&jobs_accepted, 1);
    int err = start(a, job_body, j, &o, NULL);
    if (err < 0) {
        s_add(&jobs_accepted, -UINT64_C(1));
        free(j);
    }
    return well(a, "create_task", err, 0, 0);
}

static bool cancel_somebody(struct actor *a) {
    size_t i = (size_t)stress_below(&a->rng, REGISTER);
    int err = 0;
    pthread_mutex_lock(&registered[i].lock);
    if (registered[i].task) {
        s_add(&registered[i].job->asked, 1);
        err = heist_cancel_message(registered[i].task, stress_chance(&a->rng, 50) ? "by somebody" : NULL);
    }
    pthread_mutex_unlock(&registered[i].lock);
    return well(a, "cancel", err > 0 ? 0 : err, 0, 0);
}

static bool names(struct actor *a) {
    heist_task **list = NULL;
    size_t n = 0;
    if (a->job) {
        char name[24], back[24];
        snprintf(name, sizeof name, "job %u", (unsigned)stress_below(&a->rng, 100000));
        int err = heist_task_set_name(heist_current_task(), name);
        if (!well(a, "set_name", err, 0, 0)) return false;
        heist_task_name(heist_current_task(), back, sizeof back);
        stress_check(strcmp(name, back) == 0, "a task has the name of another");
    }
    int err = heist_runtime_all_tasks(rt, &list, &n);
    if (!well(a, "all_tasks", err, 0, 0)) return false;
    for (size_t i = 0; i < n && i < 8; i++) stress_check(heist_future_is_task(list[i]) == 1, "all_tasks gave no task");
    heist_task_list_free(list, n);
    return true;
}

static bool perform(struct actor *a, enum op op) {
    double until;
    int err;
    switch (op) {
    case SLEEP:
        until = heist_time() + moment(a, 5000);
        err = heist_sleep_until(until);
        if (err == 0) {
            double late = heist_time() - until;
            stress_check(late >= -1e-8, "a sleep was early by %.9f s", -late);
            stress_latency(late);
        }
        return well(a, "a sleep", err, 0, 0);
    case YIELD: return well(a, "a yield", heist_yield(), 0, 0);
    case SEND: return send_one(a, false);
    case RECV: return recv_one(a, false);
    case TRY: return stress_chance(&a->rng, 50) ? send_one(a, true) : recv_one(a, true);
    case CLIENT:
        if (a->job) return client(a);
        plain_client(&a->rng);
        return true;
    case GATHER: return gather(a);
    case CHILD: return one_child(a);
    case DETACH: return detach(a);
    case TIMER: return tick(a, true);
    case SOON: return tick(a, false);
    case CANCEL: return cancel_somebody(a);
    case FUTURE: return future(a);
    case PIPELINE: return pipeline(a);
    case SPIN: stress_spin(moment(a, 200)); return true;
    case BLOCK:
        if (stress_chance(&a->rng, 10)) stress_block(moment(a, 5000));
        return true;
    case THREAD: return on_a_thread(a);
    default: return stress_chance(&a->rng, 20) ? names(a) : true;
    }
}

static void perform_one(struct actor *a) {
    enum op op = (enum op)stress_below(&a->rng, OPS);
    if (!a->job) stress_wait_begin(a->slot, op_name[op], 0.1);
    bool good = perform(a, op);
    if (!a->job) stress_wait_end(a->slot);
    s_add(good ? &done_well[op] : &gone_wrong[op], 1);
    stress_progress(1);
}

static int job_body(void *arg, void **out) {
    struct job *j = arg;
    struct actor a = {.rng = stress_stream(&j->rng, 1), .job = j};
    size_t slot = (size_t)stress_below(&a.rng, REGISTER);
    bool mine = false;
    (void)out;
    stress_check(s_add(&j->ran, 1) == 0, "a job ran twice");
    pthread_mutex_lock(&registered[slot].lock);
    if (!registered[slot].task) {
        registered[slot].task = heist_ref(heist_current_task());
        registered[slot].job = j;
        mine = true;
    }
    pthread_mutex_unlock(&registered[slot].lock);
    /* At a close there is no second request, and soon no server: who went on might wait for ever.  The request need
     * not be seen here, for a wait for a child hands it on to the child. */
    for (int i = 0; i < j->steps && !a.over && !s_get(&jobs_stop) && !s_get(&closing); i++) perform_one(&a);
    heist_task *t = NULL;
    if (mine) {
        pthread_mutex_lock(&registered[slot].lock);
        t = registered[slot].task;
        registered[slot].task = NULL;
        registered[slot].job = NULL;
        pthread_mutex_unlock(&registered[slot].lock);
    }
    heist_unref(t);
    s_set(&j->ended, 1);
    return a.over ? -ECANCELED : 0;
}

/* ---- a round ---- */

struct outsider {
    struct actor actor;
    bool client;
    pthread_t thread;
};
static struct outsider outsiders[MAX_OUTSIDERS + MAX_CLIENTS];

static void *outsider_main(void *arg) {
    struct outsider *o = arg;
    while (!s_get(&stop) && stress_going()) {
        if (o->client) {
            plain_client(&o->actor.rng);
            stress_pause(&o->actor.rng, 0.002);
        } else {
            perform_one(&o->actor);
            if (stress_chance(&o->actor.rng, 20)) detach(&o->actor);
        }
    }
    return NULL;
}

static void *driver_main(void *unused) {
    (void)unused;
    while (!s_observe(&driver_stop)) {
        int err = heist_loop_run_forever(own);
        stress_check(err == 0 || stress_short_of(err), "run_forever answered %s", heist_error_name(err));
        if (err < 0) stress_block(0.0005);
    }
    return NULL;
}

static int listen_body(void *arg, void **out) {
    char name[2][64];
    (void)arg;
    (void)out;
    snprintf(name[0], sizeof name[0], "127.0.0.1:0");
    snprintf(name[1], sizeof name[1], "unix:@heist-mixed-%d-%ld", (int)getpid(), stress_round());
    int err = 0;
    for (int i = 0; i < 2 && err == 0; i++) {
        heist_addr at;
        err = heist_addr_parse(name[i], &at);
        if (err == 0) err = heist_listen(&at, NULL, &listeners[i]);
        if (err == 0) err = heist_listener_addr(listeners[i], &addresses[i]);
    }
    return err;
}

static void open_world(struct stress_rng *rng) {
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    heist_task *t = NULL;
    stress_draw_watch(rng, &o);
    rt = stress_runtime("mixed", stress_draw_workers(rng), &o);
    o = (heist_runtime_options)HEIST_RUNTIME_OPTIONS_INIT;
    o.exception_handler = stress_exception;
    int err = heist_loop_new(&o, &own);
    for (int i = 0; i < CHANNELS && err == 0; i++) err = heist_channel_new(stress_below(rng, 20), &channels[i]);
    if (err == 0) err = heist_runtime_run_coroutine(rt, listen_body, NULL, NULL, &t);
    if (err == 0) err = heist_await(t, NULL);
    heist_unref(t);
    for (int i = 0; i < 2 && err == 0; i++)
        err = heist_runtime_run_coroutine(rt, acceptor, (void *)(intptr_t)i, NULL, &acceptors[i]);
    if (err < 0) stress_die("the world of a round: %s", heist_strerror(err));
}

/* With enough of everything: each kind of operation goes well. */
static void all_is_well_again(struct stress_rng *rng) {
    struct actor a = {.rng = stress_stream(rng, 3), .slot = MAX_OUTSIDERS + MAX_CLIENTS};
    stress_phase("enough of everything again");
    for (int op = 0; op < OPS; op++) {
        if (op == SEND || op == RECV || op == TRY) continue; /* nobody may be there any more */
        stress_check(perform(&a, (enum op)op) || op == FUTURE, "'%s' does not work when nothing is short", op_name[op]);
    }
}

static void check_sums(void) {
    stress_phase("sums");
    for (int i = 0; i < CHANNELS; i++) {
        void *got = NULL;
        while (heist_channel_try_recv(channels[i], &got) == 0) count_received(got);
        heist_channel_unref(channels[i]);
    }
    stress_check(s_get(&sent_count) == s_get(&received_count) && s_get(&sent_sum) == s_get(&received_sum),
                 "sent %" PRIu64 " values, received %" PRIu64 "; sums %" PRIu64 " and %" PRIu64, s_get(&sent_count),
                 s_get(&received_count), s_get(&sent_sum), s_get(&received_sum));
    stress_check(s_get(&ticks_accepted) == s_get(&ticks_freed) && s_get(&ticks_ran) <= s_get(&ticks_accepted),
                 "accepted %" PRIu64 " callbacks, freed %" PRIu64 ", ran %" PRIu64, s_get(&ticks_accepted),
                 s_get(&ticks_freed), s_get(&ticks_ran));
    stress_check(s_get(&jobs_accepted) == s_get(&jobs_freed), "accepted %" PRIu64 " jobs, freed %" PRIu64,
                 s_get(&jobs_accepted), s_get(&jobs_freed));
    s_add(&all_jobs, s_get(&jobs_freed));
    s_add(&all_ticks, s_get(&ticks_freed));
    for (int i = 0; i < REGISTER; i++) stress_check(!registered[i].task, "a job ended without its leave");
}

static void one_round(struct stress_rng *rng) {
    _Atomic(uint64_t) *books[] = {&next_link,      &unserved,       &jobs_accepted, &jobs_freed,
                                  &ticks_accepted, &ticks_ran,      &ticks_freed,   &sent_count,
                                  &sent_sum,       &received_count, &received_sum};
    for (size_t i = 0; i < sizeof books / sizeof books[0]; i++) s_set(books[i], 0);
    s_set(&stop, false);
    s_set(&jobs_stop, false);
    s_set(&closing, false);
    s_set(&driver_stop, false);
    memset(links, 0, LINKS * sizeof *links);
    open_world(rng);
    static const unsigned drawn[] = {0, SHORT_OF_MEMORY, SHORT_OF_MEMORY, SHORT_OF_FDS, SHORT_OF_MEMORY | SHORT_OF_FDS};
    unsigned shortages = drawn[stress_below(rng, 5)];
    int threads = stress_draw_threads(rng, MAX_OUTSIDERS), clients = (int)stress_below(rng, MAX_CLIENTS + 1);
    if (threads > MAX_OUTSIDERS) threads = MAX_OUTSIDERS;
    bool early = stress_chance(rng, 40), short_at_close = stress_chance(rng, 50);
    double span = 0.2 + 0.1 * (double)stress_below(rng, 9);
    stress_faults_start(rng, shortages);
    stress_settings("%d workers, %d outsiders, %d plain clients, %.1f s, %s%s%s", heist_runtime_workers(rt), threads,
                    clients, span, stress_shortages(), early ? ", closed in the middle" : "",
                    short_at_close ? ", short to the end" : "");
    stress_phase("everything at once");
    pthread_t driver;
    stress_thread(&driver, driver_main, NULL);
    for (int i = 0; i < threads + clients; i++) {
        outsiders[i] =
            (struct outsider){.actor = {.rng = stress_stream(rng, (uint64_t)i), .slot = i}, .client = i >= threads};
        stress_thread(&outsiders[i].thread, outsider_main, &outsiders[i]);
    }
    stress_block(span);
    if (!short_at_close) stress_faults_stop();
    int slot = MAX_OUTSIDERS + MAX_CLIENTS;
    s_set(&stop, true); /* those outside first: a plain client is served to its end */
    stress_phase("those outside come home");
    for (int i = 0; i < threads + clients; i++) stress_join(outsiders[i].thread);
    if (!early) {
        s_set(&jobs_stop, true);
        stress_phase("waiting for the jobs");
        stress_wait_begin(slot, "the last job", 2);
        while (s_get(&jobs_accepted) != s_get(&jobs_freed)) stress_block(0.0005);
        stress_wait_end(slot);
        if (!short_at_close) {
            stress_faults_forget();
            all_is_well_again(rng);
        }
        stress_wait_begin(slot, "the last job", 2);
        while (s_get(&jobs_accepted) != s_get(&jobs_freed)) stress_block(0.0005);
        stress_wait_end(slot);
    }
    stress_phase("closing");
    s_set(&closing, true);
    int err = heist_runtime_close(rt, HEIST_FOREVER);
    stress_check(err == 0, "close answered %s; %s", heist_error_name(err), stress_shortages());
    s_publish(&driver_stop, true);
    err = heist_loop_stop(own);
    stress_check(err == 0, "stop answered %s", heist_error_name(err));
    stress_join(driver);
    do err = heist_loop_close(own);
    while (err < 0 && stress_short_of(err));
    stress_check(err == 0, "closing a loop answered %s", heist_error_name(err));
    stress_faults_stop();
    stress_faults_forget();
    for (int i = 0; i < 2; i++) {
        err = heist_future_result(acceptors[i], NULL);
        stress_check(err == -ECANCELED, "an acceptor ended with %s", heist_error_name(err));
        heist_unref(acceptors[i]);
        heist_listener_close(listeners[i]);
    }
    check_sums();
    heist_loop_unref(own);
    stress_runtime_end(rt);
    stress_phase("blocks of the allocator");
    /* A close does not wait for the threads of the default executor, whose jobs have ended. */
    for (int i = 0; i < 100000 && stress_blocks_live(); i++) stress_block(0.0001);
    stress_check(stress_blocks_live() == 0, "%" PRId64 " blocks of the allocator are live although nothing is",
                 stress_blocks_live());
}

int main(int argc, char **argv) {
    stress_faults_begin();
    for (int i = 0; i < REGISTER; i++) pthread_mutex_init(&registered[i].lock, NULL);
    links = stress_alloc(LINKS * sizeof *links);
    stress_begin(argc, argv, "mixed", "everything at once and too little of it: sums are right, failures have a cause");
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    for (int i = 0; i < OPS; i++)
        stress_note("%-8s went well %" PRIu64 ", not %" PRIu64, op_name[i], s_get(&done_well[i]),
                    s_get(&gone_wrong[i]));
    stress_note("jobs %" PRIu64 ", callbacks %" PRIu64 ", requests delivered %" PRIu64, s_get(&all_jobs),
                s_get(&all_ticks), s_get(&all_cancelled));
    stress_note("bytes echoed %" PRIu64 ", connections reset %" PRIu64 ", blocks refused %" PRIu64, s_get(&all_bytes),
                s_get(&all_resets), stress_blocks_refused());
    free(links);
    return stress_end();
}
