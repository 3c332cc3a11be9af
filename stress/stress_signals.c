/* stress/stress_signals.c: storms of signals over everything that waits.
 *
 * Law: a signal ends no wait early and is seen by no caller as EINTR; every ring of the
 * bell that a handler writes to an eventfd is heard by the reader callback; a queued
 * signal is handled once; a write to a peer that is gone answers -EPIPE and raises
 * nothing, and a SIGPIPE that was pending before stays pending; the masks of threads and
 * the dispositions of all signals are afterwards what they were.
 * Handlers run with and without SA_RESTART, on alternative stacks and on the stacks of
 * coroutines: on the workers of heist_run and of a loop of its own, which have the mask
 * of their caller, and on workers of a runtime, where a pinned task lets signals in.
 * They save errno and write to an eventfd, for no call of the library is promised to be
 * safe in a handler.
 * Threads: the workers, plain threads that wait, one or more that send, and one that
 * always lets signals in, so that those for the process find somebody. */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* ThreadSanitizer holds a signal back until the same thread or fiber comes to its next interceptor, and drops a
 * second one that comes meanwhile, and all when the fiber ends first; and it leaves threads with another mask than
 * they had (a program of forty lines without this library shows it).  Under it masks and the number of queued
 * signals are no law. */
#if defined(__SANITIZE_THREAD__)
#define MEDDLES 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MEDDLES 1
#endif
#endif
#ifndef MEDDLES
#define MEDDLES 0
#endif

#define MAX_CELLS 24
#define MAX_STORMS 3
#define MAX_LOOPS 16
#define TARGETS 64
#define ALTERNATIVE ((size_t)64 * 1024)

/* ---- signals, bells and the reader callbacks that hear them ---- */

enum bell { USR1, USR2, ALRM, PROF, CHLD, QUEUED, BELLS };
static const char *const bell_name[BELLS] = {"SIGUSR1", "SIGUSR2", "SIGALRM", "SIGPROF", "SIGCHLD", "SIGRTMIN+3"};
static int signal_of(int bell) {
    static const int numbers[] = {SIGUSR1, SIGUSR2, SIGALRM, SIGPROF, SIGCHLD};
    return bell == QUEUED ? SIGRTMIN + 3 : numbers[bell];
}

static int bell_fd[BELLS];
static _Atomic(uint64_t) rung[BELLS], heard[BELLS], queued, all_rung[BELLS], on_coroutine, on_alternative, pipes_raised;
static _Atomic(bool) stop, driver_stop;
static double round_end;

/* Of the thread, for its handlers. */
static _Thread_local uintptr_t stack_low, stack_high;

static void on_signal(int sig) {
    int kept = errno;
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    for (int i = 0; i < BELLS; i++) {
        if (signal_of(i) != sig) continue;
        const uint64_t one = 1;
        s_add(&rung[i], 1);
        /* There is room for 2^64 - 2.  Not write(): an interceptor of a detector would run other handlers in it. */
        if (syscall(SYS_write, bell_fd[i], &one, sizeof one) != (long)sizeof one) abort();
    }
    stack_t alternative;
    if (syscall(SYS_sigaltstack, NULL, &alternative) == 0 && (alternative.ss_flags & SS_ONSTACK))
        s_add(&on_alternative, 1);
    else if (stack_high && (here < stack_low || here >= stack_high)) s_add(&on_coroutine, 1);
    errno = kept;
}

static void on_pipe(int sig) {
    (void)sig;
    s_add(&pipes_raised, 1);
}

static int hear(void *arg) {
    int i = (int)(intptr_t)arg;
    uint64_t n = 0;
    ssize_t got = read(bell_fd[i], &n, sizeof n);
    if (got == (ssize_t)sizeof n) {
        s_add(&heard[i], n);
        stress_progress(1);
    } else {
        stress_check(got < 0 && (errno == EAGAIN || errno == EINTR), "a reader read %zd of a bell", got);
    }
    return 0;
}

static sigset_t storm_set(void) {
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < BELLS; i++) sigaddset(&set, signal_of(i));
    return set;
}

static void let_signals_in(bool in) {
    sigset_t set = storm_set();
    pthread_sigmask(in ? SIG_UNBLOCK : SIG_BLOCK, &set, NULL);
}

static bool same_mask(const sigset_t *a, const sigset_t *b) {
    for (int sig = 1; sig < NSIG && !MEDDLES; sig++)
        if (sigismember(a, sig) != sigismember(b, sig)) return false;
    return true;
}

/* ---- who is shot at ---- */

static struct {
    pthread_mutex_t lock; /* a target leaves before its thread ends */
    pthread_t thread[TARGETS];
    int count;
} targets = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void join_targets(void) {
    pthread_attr_t attr;
    void *low = NULL;
    size_t bytes = 0;
    if (pthread_getattr_np(pthread_self(), &attr) == 0) {
        pthread_attr_getstack(&attr, &low, &bytes);
        pthread_attr_destroy(&attr);
    }
    stack_low = (uintptr_t)low;
    stack_high = stack_low + bytes;
    pthread_mutex_lock(&targets.lock);
    if (targets.count < TARGETS) targets.thread[targets.count++] = pthread_self();
    pthread_mutex_unlock(&targets.lock);
}

static void leave_targets(void) {
    pthread_mutex_lock(&targets.lock);
    for (int i = 0; i < targets.count; i++) {
        if (!pthread_equal(targets.thread[i], pthread_self())) continue;
        targets.thread[i--] = targets.thread[--targets.count];
    }
    pthread_mutex_unlock(&targets.lock);
}

struct storm {
    struct stress_rng rng;
    double rest;
    bool children;
    pthread_t thread;
};
static struct storm storms[MAX_STORMS];

static _Atomic(uint64_t) spawns_begun, spawns_ended; /* between them a child may hold any descriptor */

static void one_child(void) {
    static char name[] = "true";
    char *arguments[] = {name, NULL};
    pid_t pid;
    int status = 0;
    s_add(&spawns_begun, 1);
    int err = posix_spawnp(&pid, name, NULL, NULL, arguments, environ);
    s_add(&spawns_ended, 1);
    if (err) stress_die("posix_spawn: %s", strerror(err));
    if (waitpid(pid, &status, 0) != pid) stress_die("waitpid: %s", strerror(errno));
}

static void *storm_main(void *arg) {
    struct storm *s = arg;
    double child_at = 0;
    while (!s_get(&stop)) {
        unsigned luck = (unsigned)stress_below(&s->rng, 100);
        if (luck < 30) {
            union sigval value = {.sival_int = 0};
            if (sigqueue(getpid(), signal_of(QUEUED), value) == 0) s_add(&queued, 1);
            else stress_check(errno == EAGAIN, "sigqueue: %s", strerror(errno));
        } else if (luck < 40) {
            kill(getpid(), luck & 1 ? SIGUSR1 : SIGUSR2);
        } else {
            pthread_mutex_lock(&targets.lock);
            if (targets.count) {
                pthread_t at = targets.thread[stress_below(&s->rng, (uint64_t)targets.count)];
                int err = pthread_kill(at, luck & 1 ? SIGUSR1 : SIGUSR2);
                stress_check(err == 0, "pthread_kill: %s", strerror(err));
            }
            pthread_mutex_unlock(&targets.lock);
        }
        if (s->children && stress_now() > child_at) {
            one_child();
            child_at = stress_now() + 0.02;
        }
        if (stress_chance(&s->rng, 70)) stress_pause(&s->rng, s->rest);
    }
    return NULL;
}

static void set_timers(struct stress_rng *rng, bool on) {
    const struct itimerval none = {{0, 0}, {0, 0}};
    suseconds_t us = (suseconds_t)stress_between(rng, 100, 20000);
    const struct itimerval often = {{0, us}, {0, us}};
    bool real = stress_chance(rng, 70), profile = stress_chance(rng, 70);
    setitimer(ITIMER_REAL, on && real ? &often : &none, NULL);
    setitimer(ITIMER_PROF, on && profile ? &often : &none, NULL);
}

/* ---- the cells: waits of every kind, each checked ---- */

enum kind { SLEEPER, CHANNEL, DEADLINE, STREAM, PIPE, CONNECT, BROKEN_SOCKET, BROKEN_PIPE, PENDING_PIPE, DOOR, KINDS };
static const char *const kind_name[KINDS] = {"sleeps",
                                             "channel",
                                             "await with a deadline",
                                             "stream of a socket",
                                             "stream of a pipe",
                                             "accept, connect",
                                             "socket without a peer",
                                             "pipe without a reader",
                                             "pipe with a pending SIGPIPE",
                                             "both doors"};
struct cell {
    int index;
    enum kind kind;
    bool plain[2]; /* a side on a plain thread */
    struct stress_rng rng[2];
    heist_channel *to, *back;
    heist_future *never;
    int fd[2];
    heist_conn *conn[2];
    heist_listener *listener;
    heist_addr addr;
    heist_task *task[2];
    pthread_t thread[2];
};
struct side {
    struct cell *cell;
    int which;
};
static struct cell cells[MAX_CELLS];
static struct side sides[MAX_CELLS][2];
static int cell_count;
static heist_runtime *rt;
static heist_loop *own;
static _Atomic(uint64_t) done_by[KINDS];
static struct {
    pthread_t thread;
    sigset_t mask;
    stack_t before;
    void *alternative;
    bool set;
} on_loop[MAX_LOOPS]; /* per worker of rt; written by its pinned task, then read by all */
static bool masks_known;

static bool more(void) { return stress_now() < round_end && !s_get(&stop); }

static void count(enum kind k) {
    s_add(&done_by[k], 1);
    stress_progress(1);
}

/* A task of the runtime, on whatever worker: its thread's mask is what it was set to. */
static void check_mask(void) {
    heist_loop *loop;
    if (!masks_known || !heist_current_task() || heist_get_running_loop(&loop) < 0) return;
    for (int w = 0; w < heist_runtime_workers(rt) && w < MAX_LOOPS; w++) {
        /* a spare thread runs tasks under the loop of a held worker */
        if (heist_runtime_loop(rt, w) != loop || !pthread_equal(on_loop[w].thread, pthread_self())) continue;
        sigset_t now;
        pthread_sigmask(SIG_BLOCK, NULL, &now);
        stress_check(same_mask(&now, &on_loop[w].mask), "the mask of worker %d has changed", w);
    }
}

static void sleeper(struct cell *c, int which) {
    struct stress_rng *rng = &c->rng[which];
    while (more()) {
        double until = heist_time() + (double)stress_between(rng, 1, 10000) * 1e-6;
        stress_wait_begin(c->index * 2 + which, "sleep_until", 0.01);
        int err = heist_sleep_until(until);
        stress_wait_end(c->index * 2 + which);
        double late = heist_time() - until;
        stress_check(err == 0 && late >= -1e-8, "a sleep answered %s, %.9f s late", heist_error_name(err), late);
        stress_latency(late);
        check_mask();
        count(SLEEPER);
    }
}

static void channel(struct cell *c, int which) {
    uintptr_t n = 1;
    for (;;) {
        void *got = NULL;
        int err = 0;
        if (which == 0) {
            if (!more()) break;
            err = heist_channel_send(c->to, (void *)n);
            stress_check(err == 0, "a send answered %s", heist_error_name(err));
        }
        stress_wait_begin(c->index * 2 + which, "recv", 0.01);
        err = heist_channel_recv(which ? c->to : c->back, &got);
        stress_wait_end(c->index * 2 + which);
        if (err == HEIST_ESHUTDOWN && which) break;
        stress_check(err == 0 && (uintptr_t)got == n, "a recv answered %s, %zu for %zu", heist_error_name(err),
                     (size_t)(uintptr_t)got, (size_t)n);
        if (err) break;
        n++;
        if (which == 0) {
            check_mask();
            count(CHANNEL);
            if (stress_chance(&c->rng[0], 30)) heist_sleep((double)stress_between(&c->rng[0], 1, 3000) * 1e-6);
            continue;
        }
        err = heist_channel_send(c->back, got);
        stress_check(err == 0, "a send answered %s", heist_error_name(err));
    }
    if (which == 0) heist_channel_close(c->to);
}

static void deadline(struct cell *c, int which) {
    struct stress_rng *rng = &c->rng[which];
    while (more()) {
        double until = heist_time() + (double)stress_between(rng, 1, 10000) * 1e-6;
        void *got = NULL;
        bool recv = stress_chance(rng, 50);
        stress_wait_begin(c->index * 2 + which, "a wait with a deadline", 0.01);
        int err = recv ? heist_channel_recv_until(c->to, &got, until) : heist_await_until(c->never, until, &got);
        stress_wait_end(c->index * 2 + which);
        double late = heist_time() - until;
        stress_check(err == -ETIMEDOUT && late >= -1e-8, "a wait with a deadline answered %s, %.9f s late",
                     heist_error_name(err), late);
        check_mask();
        count(DEADLINE);
    }
}

/* A number that rises, through a socket pair or a pipe. */
static void stream(struct cell *c, int which) {
    uint64_t n = 0;
    struct stress_rng *rng = &c->rng[which];
    if (which) {
        uint8_t block[700];
        size_t have = 0;
        for (;;) {
            stress_wait_begin(c->index * 2 + which, "a read", 0.01);
            ptrdiff_t got = heist_conn_read(c->conn[which], block + have, 1 + stress_below(rng, sizeof block - have),
                                            HEIST_FOREVER);
            stress_wait_end(c->index * 2 + which);
            if (got == 0) break;
            stress_check(got > 0, "a read answered %s", heist_error_name((int)got));
            if (got <= 0) break;
            have += (size_t)got;
            size_t at = 0;
            for (uint64_t value; have - at >= sizeof value; at += sizeof value, n++) {
                memcpy(&value, block + at, sizeof value);
                stress_check(value == n, "number %" PRIu64 " of a stream is %" PRIu64, n, value);
                if (value != n) n = value;
            }
            memmove(block, block + at, have - at);
            have -= at;
            check_mask();
            count(c->kind);
        }
        stress_check(have == 0, "a stream ended within a number");
        return;
    }
    uint64_t block[4096];
    while (more()) {
        size_t many = (size_t)stress_between(rng, 1, 4096), written = 0;
        for (size_t i = 0; i < many; i++) block[i] = n++;
        stress_wait_begin(c->index * 2 + which, "a write", 0.01);
        int err = heist_conn_write(c->conn[which], block, many * sizeof *block, HEIST_FOREVER, &written);
        stress_wait_end(c->index * 2 + which);
        stress_check(err == 0 && written == many * sizeof *block, "a write answered %s, %zu of %zu",
                     heist_error_name(err), written, many * sizeof *block);
        if (err) break;
        if (stress_chance(rng, 40)) heist_sleep((double)stress_between(rng, 1, 2000) * 1e-6);
    }
    heist_conn_close(c->conn[which]);
    c->conn[which] = NULL;
}

static void connecting(struct cell *c, int which) {
    for (bool last = false; !last;) {
        heist_conn *conn = NULL;
        char byte = 'x';
        if (!which) last = !more();
        stress_wait_begin(c->index * 2 + which, which ? "accept" : "connect", 0.01);
        int err =
            which ? heist_accept(c->listener, HEIST_FOREVER, &conn) : heist_connect(&c->addr, HEIST_FOREVER, &conn);
        stress_wait_end(c->index * 2 + which);
        stress_check(err == 0, "%s answered %s", which ? "accept" : "connect", heist_error_name(err));
        if (err < 0) break;
        ptrdiff_t got = which ? heist_conn_write(conn, &byte, 1, HEIST_FOREVER, NULL)
                              : heist_conn_read(conn, &byte, 1, HEIST_FOREVER);
        stress_check(got == !which, "a byte over a new connection: %s", heist_error_name((int)got));
        /* the end of the first side comes first: no port is left waiting on the accepting side */
        if (!which && last) heist_conn_write(conn, "l", 1, HEIST_FOREVER, NULL); /* and says that it is the last */
        if (which) last = heist_conn_read(conn, &byte, 1, HEIST_FOREVER) != 0;
        heist_conn_close(conn);
        if (!which) {
            count(CONNECT);
            heist_sleep((double)stress_between(&c->rng[0], 200, 3000) * 1e-6);
        }
    }
}

/* A peer that is gone is a code and no signal.  PENDING_PIPE: a SIGPIPE that waited before waits still. */
static void broken(struct cell *c) {
    while (more()) {
        int fd[2], err;
        heist_conn *conn = NULL;
        bool is_pipe = c->kind != BROKEN_SOCKET, pending = c->kind == PENDING_PIPE;
        sigset_t pipe_set, before, waiting;
        sigemptyset(&pipe_set);
        sigaddset(&pipe_set, SIGPIPE);
        uint64_t ended = s_get(&spawns_ended), begun = s_get(&spawns_begun);
        if (is_pipe ? pipe2(fd, O_CLOEXEC) : socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
            stress_die("a pipe: %s", strerror(errno));
        err = heist_conn_open(fd[1], &conn);
        if (err < 0) stress_die("a connection: %s", heist_strerror(err));
        close(fd[0]);
        if (pending) { /* the task is pinned: this is its thread until the mask is back */
            pthread_sigmask(SIG_BLOCK, &pipe_set, &before);
            pthread_kill(pthread_self(), SIGPIPE);
        }
        for (int i = 0; i < 3; i++) {
            err = heist_conn_write(conn, "x", 1, HEIST_FOREVER, NULL);
            stress_check(err == -EPIPE || (err == 0 && (begun != ended || s_get(&spawns_begun) != begun)),
                         "a write to nobody answered %s", heist_error_name(err));
        }
        if (pending) {
            const struct timespec now = {0, 0};
            sigpending(&waiting);
            stress_check(sigismember(&waiting, SIGPIPE), "a SIGPIPE that was pending before a write is gone");
            while (sigtimedwait(&pipe_set, NULL, &now) < 0 && errno == EINTR) {
            }
            pthread_sigmask(SIG_SETMASK, &before, NULL);
        }
        sigpending(&waiting);
        stress_check(!sigismember(&waiting, SIGPIPE), "a write to nobody left a SIGPIPE pending");
        heist_conn_close(conn);
        check_mask();
        count(c->kind);
        err = heist_sleep((double)stress_between(&c->rng[0], 1, 5000) * 1e-6);
        stress_check(err == 0, "a sleep answered %s", heist_error_name(err));
    }
}

static int twice(void *arg, void **out) {
    *out = (void *)((uintptr_t)arg * 2);
    return (uintptr_t)arg & 1 ? heist_yield() : 0;
}

static int answer(void *arg) { return heist_future_set_result(arg, arg, NULL); }

static void doors(struct cell *c, int which) {
    struct stress_rng *rng = &c->rng[which];
    for (uintptr_t n = 1; more(); n++) {
        heist_future *f = NULL;
        void *got = NULL, *want;
        int err;
        if (stress_chance(rng, 50)) {
            err = heist_run_coroutine_threadsafe(stress_chance(rng, 50) ? own : heist_runtime_loop(rt, 0), twice,
                                                 (void *)n, NULL, &f);
            want = (void *)(2 * n);
        } else {
            err = heist_future_new(NULL, &f);
            if (err == 0) err = heist_loop_call_soon_threadsafe(own, answer, f, NULL, NULL);
            want = f;
        }
        stress_check(err == 0, "a submission answered %s", heist_error_name(err));
        stress_wait_begin(c->index * 2 + which, "await of a submission", 0.01);
        if (err == 0) err = heist_await(f, &got);
        stress_wait_end(c->index * 2 + which);
        stress_check(err == 0 && got == want, "await answered %s", heist_error_name(err));
        heist_unref(f);
        count(DOOR);
        stress_pause(rng, 0.0005);
    }
}

static void play(struct side *s) {
    struct cell *c = s->cell;
    switch (c->kind) {
    case SLEEPER: sleeper(c, s->which); break;
    case CHANNEL: channel(c, s->which); break;
    case DEADLINE: deadline(c, s->which); break;
    case STREAM:
    case PIPE: stream(c, s->which); break;
    case CONNECT: connecting(c, s->which); break;
    case DOOR: doors(c, s->which); break;
    default: broken(c); break;
    }
}

static int side_body(void *arg, void **out) {
    (void)out;
    play(arg);
    return 0;
}

static void *side_thread(void *arg) {
    struct side *s = arg;
    bool in = stress_chance(&s->cell->rng[s->which], 80);
    sigset_t before, after;
    let_signals_in(in);
    pthread_sigmask(SIG_BLOCK, NULL, &before);
    join_targets();
    play(s);
    leave_targets();
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    stress_check(same_mask(&before, &after), "the mask of a plain thread has changed");
    return NULL;
}

/* ---- workers ---- */

struct setting {
    int worker;
    bool in, alternative;
};

/* Pinned: what the user of a runtime may do to the threads of its workers. */
static int set_worker(void *arg, void **out) {
    struct setting *s = arg;
    (void)out;
    if (s->in) let_signals_in(true);
    if (s->alternative) {
        stack_t mine = {.ss_sp = on_loop[s->worker].alternative = stress_alloc(ALTERNATIVE), .ss_size = ALTERNATIVE};
        if (sigaltstack(&mine, &on_loop[s->worker].before)) stress_die("sigaltstack: %s", strerror(errno));
    }
    pthread_sigmask(SIG_BLOCK, NULL, &on_loop[s->worker].mask);
    if (s->in) join_targets();
    on_loop[s->worker].thread = pthread_self();
    on_loop[s->worker].set = true;
    return 0;
}

static int reset_worker(void *arg, void **out) {
    int w = (int)(intptr_t)arg;
    (void)out;
    let_signals_in(false);
    leave_targets();
    if (on_loop[w].alternative) {
        stack_t now;
        if (sigaltstack(NULL, &now)) stress_die("sigaltstack: %s", strerror(errno));
        stress_check(now.ss_sp == on_loop[w].alternative, "the alternative stack of worker %d has changed", w);
        sigaltstack(&on_loop[w].before, NULL);
        free(on_loop[w].alternative);
        on_loop[w].alternative = NULL;
    }
    return 0;
}

static void on_each_worker(heist_coro_fn fn, struct stress_rng *rng) {
    struct setting s[MAX_LOOPS];
    for (int w = 0; w < heist_runtime_workers(rt) && w < MAX_LOOPS; w++) {
        s[w] = (struct setting){w, rng && stress_chance(rng, 75), rng && stress_chance(rng, 40)};
        heist_task_options o = HEIST_TASK_OPTIONS_INIT;
        o.flags = HEIST_TASK_PINNED;
        heist_task *t = NULL;
        int err = heist_run_coroutine_threadsafe(heist_runtime_loop(rt, w), fn,
                                                 rng ? (void *)&s[w] : (void *)(intptr_t)w, &o, &t);
        if (err == 0) err = heist_await(t, NULL);
        if (err < 0) stress_die("a worker's setting: %s", heist_strerror(err));
        heist_unref(t);
    }
}

static void *driver_main(void *arg) {
    struct stress_rng rng = *(struct stress_rng *)arg;
    let_signals_in(true);
    join_targets();
    while (!s_observe(&driver_stop)) {
        int err;
        if (stress_chance(&rng, 30)) {
            double timeout = 0;
            err = heist_loop_run_once(own, &timeout);
            if (err == 1) err = 0;
        } else {
            err = heist_loop_run_forever(own);
        }
        stress_check(err == 0, "a run call answered %s", heist_error_name(err));
        if (err < 0) break;
    }
    leave_targets();
    let_signals_in(false);
    return NULL;
}

/* Always there: signals to the process find somebody. */
static void *catcher_main(void *unused) {
    (void)unused;
    let_signals_in(true);
    join_targets();
    while (!s_observe(&driver_stop)) {
        double until = heist_time() + 0.01;
        int err = heist_sleep_until(until);
        stress_check(err == 0 && heist_time() >= until - 1e-8, "a sleep of a plain thread answered %s, %.9f s late",
                     heist_error_name(err), heist_time() - until);
    }
    leave_targets();
    return NULL;
}

/* heist_run on a plain thread: its worker 0 has the caller's mask, so coroutines are hit where they stand. */
static int main_coro(void *arg, void **out) {
    struct stress_rng *rng = arg;
    while (more()) {
        double until = heist_time() + (double)stress_between(rng, 1, 3000) * 1e-6;
        heist_task *t[4];
        void *got[4] = {0};
        size_t n = 0;
        for (; n < 4; n++)
            if (heist_create_task(twice, (void *)(n + 1), NULL, &t[n]) < 0) break;
        int err = heist_gather(t, n, got, 0);
        stress_check(n == 4 && err == 0, "gather of %zu answered %s", n, heist_error_name(err));
        for (size_t i = 0; i < n; i++) {
            stress_check((uintptr_t)got[i] == 2 * (i + 1), "gather gave a wrong result");
            heist_unref(t[i]);
        }
        err = heist_sleep_until(until);
        stress_check(err == 0 && heist_time() >= until - 1e-8, "a sleep answered %s", heist_error_name(err));
        stress_progress(1);
    }
    *out = rng;
    return 0;
}

struct main_run {
    struct stress_rng rng;
    pthread_t thread;
    int workers;
};

static void *main_run_thread(void *arg) {
    struct main_run *m = arg;
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    sigset_t before, after;
    void *out = NULL;
    o.workers = m->workers;
    o.name = "run";
    o.exception_handler = stress_exception;
    let_signals_in(true);
    pthread_sigmask(SIG_BLOCK, NULL, &before);
    join_targets(); /* this thread, which stays; the main task may run on any worker */
    int err = heist_run(main_coro, &m->rng, &o, &out);
    stress_check(err == 0 && out == &m->rng, "heist_run answered %s", heist_error_name(err));
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    stress_check(same_mask(&before, &after), "heist_run changed the mask of its caller");
    leave_targets();
    let_signals_in(false);
    return NULL;
}

/* ---- a round ---- */

static void install(struct stress_rng *rng, struct sigaction *pipe_action) {
    for (int i = 0; i < BELLS; i++) {
        struct sigaction a = {.sa_handler = on_signal};
        sigemptyset(&a.sa_mask);
        if (stress_chance(rng, 50)) a.sa_flags |= SA_RESTART;
        if (stress_chance(rng, 50)) a.sa_flags |= SA_ONSTACK;
        /* no SA_NODEFER: handlers would nest without bound, and the stack of a coroutine has one */
        if (stress_chance(rng, 30)) a.sa_mask = storm_set();
        if (sigaction(signal_of(i), &a, NULL)) stress_die("sigaction: %s", strerror(errno));
    }
    *pipe_action = (struct sigaction){.sa_handler = SIG_DFL}; /* it would kill */
    if (stress_chance(rng, 50)) pipe_action->sa_handler = on_pipe;
    sigaction(SIGPIPE, pipe_action, NULL);
}

static void take_dispositions(struct sigaction *all) {
    memset(all, 0, NSIG * sizeof *all);
    for (int sig = 1; sig < NSIG; sig++) sigaction(sig, NULL, &all[sig]);
}

/* The C library adds this one to whatever is set, also to a disposition that is only put back. */
#define FLAG_OF_THE_C_LIBRARY 0x04000000

static void check_dispositions(const struct sigaction *before) {
    struct sigaction now[NSIG];
    take_dispositions(now);
    for (int sig = 1; sig < NSIG; sig++)
        stress_check(now[sig].sa_handler == before[sig].sa_handler &&
                         ((now[sig].sa_flags ^ before[sig].sa_flags) & ~FLAG_OF_THE_C_LIBRARY) == 0 &&
                         same_mask(&now[sig].sa_mask, &before[sig].sa_mask),
                     "the disposition of signal %d has changed", sig);
}

static int listen_body(void *arg, void **out) {
    struct cell *c = arg;
    (void)out;
    heist_addr any;
    int err = heist_addr_parse("127.0.0.1:0", &any);
    if (err == 0) err = heist_listen(&any, NULL, &c->listener);
    if (err == 0) err = heist_listener_addr(c->listener, &c->addr);
    return err;
}

static bool has_second(enum kind k) { return k == CHANNEL || k == STREAM || k == PIPE || k == CONNECT; }

static void open_cell(struct cell *c, int index, struct stress_rng *rng) {
    memset(c, 0, sizeof *c);
    c->index = index;
    c->kind = (enum kind)stress_below(rng, KINDS);
    c->fd[0] = c->fd[1] = -1;
    bool tasks_only =
        c->kind == STREAM || c->kind == PIPE || c->kind == CONNECT || (c->kind >= BROKEN_SOCKET && c->kind < DOOR);
    for (int i = 0; i < 2; i++) {
        c->rng[i] = stress_stream(rng, (uint64_t)i);
        c->plain[i] = !tasks_only && stress_chance(rng, 50);
        sides[index][i] = (struct side){c, i};
    }
    size_t room = stress_below(rng, 3);
    int err = heist_channel_new(room, &c->to);
    if (err == 0) err = heist_channel_new(room, &c->back);
    if (err == 0) err = heist_future_new(NULL, &c->never);
    if (err == 0 && c->kind == STREAM && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, c->fd) < 0) err = -errno;
    if (err == 0 && c->kind == PIPE) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) < 0) err = -errno;
        else c->fd[0] = ends[1], c->fd[1] = ends[0]; /* side 0 writes */
    }
    for (int i = 0; i < 2 && err == 0 && c->fd[0] >= 0; i++) err = heist_conn_open(c->fd[i], &c->conn[i]);
    if (err == 0 && c->kind == CONNECT) {
        heist_task *t = NULL;
        err = heist_runtime_run_coroutine(rt, listen_body, c, NULL, &t);
        if (err == 0) err = heist_await(t, NULL);
        heist_unref(t);
    }
    for (int i = 0; i <= has_second(c->kind) && err == 0; i++) {
        heist_task_options o = HEIST_TASK_OPTIONS_INIT;
        o.name = kind_name[c->kind];
        o.stack_bytes = 128 * 1024; /* a block to write, and a handler on top */
        o.flags = stress_chance(rng, 30) || c->kind == PENDING_PIPE ? HEIST_TASK_PINNED : 0;
        heist_loop *loop = heist_runtime_loop(rt, (int)stress_below(rng, (uint64_t)heist_runtime_workers(rt)));
        if (stress_chance(rng, 25)) loop = own;
        if (c->plain[i]) stress_thread(&c->thread[i], side_thread, &sides[index][i]);
        else err = heist_run_coroutine_threadsafe(loop, side_body, &sides[index][i], &o, &c->task[i]);
    }
    if (err < 0) stress_die("a cell: %s", heist_strerror(err));
}

static void close_cell(struct cell *c) {
    for (int i = 0; i <= has_second(c->kind); i++) {
        if (c->plain[i]) {
            stress_join(c->thread[i]);
            continue;
        }
        int err = heist_await(c->task[i], NULL);
        stress_check(err == 0, "a task ended with %s", heist_error_name(err));
        heist_unref(c->task[i]);
    }
    for (int i = 0; i < 2; i++) heist_conn_close(c->conn[i]);
    heist_listener_close(c->listener);
    heist_channel_unref(c->to);
    heist_channel_unref(c->back);
    heist_unref(c->never);
}

static void wait_for_bells(void) {
    stress_phase("every ring is heard");
    for (int i = 0; i < BELLS; i++) {
        stress_wait_begin(2 * MAX_CELLS + i, bell_name[i], 0);
        if (i == QUEUED && !MEDDLES)
            while (s_get(&rung[i]) != s_get(&queued)) stress_block(0.0005);
        while (s_get(&heard[i]) != s_get(&rung[i])) stress_block(0.0005);
        stress_wait_end(2 * MAX_CELLS + i);
        s_add(&all_rung[i], s_get(&rung[i]));
    }
}

static void one_round(struct stress_rng *rng) {
    s_set(&stop, false);
    s_set(&driver_stop, false);
    s_set(&queued, 0);
    s_set(&pipes_raised, 0);
    masks_known = false;
    memset(on_loop, 0, sizeof on_loop);
    for (int i = 0; i < BELLS; i++) {
        s_set(&rung[i], 0);
        s_set(&heard[i], 0);
        bell_fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (bell_fd[i] < 0) stress_die("an eventfd: %s", strerror(errno));
    }
    struct sigaction before[NSIG], pipe_action;
    sigset_t mask_before, mask_after;
    install(rng, &pipe_action);
    take_dispositions(before);
    pthread_sigmask(SIG_BLOCK, NULL, &mask_before);
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    if (stress_chance(rng, 30)) o.flags |= HEIST_RUNTIME_OVERFLOW_HANDLER;
    stress_draw_watch(rng, &o);
    rt = stress_runtime("signals", stress_draw_workers(rng), &o);
    o = (heist_runtime_options)HEIST_RUNTIME_OPTIONS_INIT;
    o.exception_handler = stress_exception;
    int err = heist_loop_new(&o, &own);
    if (err < 0) stress_die("a loop: %s", heist_strerror(err));
    on_each_worker(set_worker, rng);
    masks_known = true;
    cell_count = (int)stress_between(rng, 1, MAX_CELLS);
    int storm_count = stress_draw_threads(rng, MAX_STORMS);
    if (storm_count > MAX_STORMS) storm_count = MAX_STORMS;
    static const double rests[] = {0.00002, 0.0002, 0.002};
    double span = 0.2 + 0.1 * (double)stress_below(rng, 9), rest = rests[stress_below(rng, 3)];
    bool run_too = stress_chance(rng, 50);
    stress_settings("%d workers, %d cells, %d storms with rests of %.0f us, %s%s, %.1f s", heist_runtime_workers(rt),
                    cell_count, storm_count, rest * 1e6, run_too ? "heist_run too, " : "",
                    pipe_action.sa_handler == SIG_DFL ? "SIGPIPE kills" : "SIGPIPE is counted", span);
    stress_phase("waiting under a storm");
    round_end = stress_now() + span;
    for (int i = 0; i < BELLS; i++) {
        heist_loop *loop = stress_chance(rng, 50) ? own : heist_runtime_loop(rt, 0);
        err = heist_loop_add_reader(loop, bell_fd[i], hear, (void *)(intptr_t)i, NULL);
        stress_check(err == 0, "add_reader answered %s", heist_error_name(err));
    }
    pthread_t driver, catcher;
    struct stress_rng driver_rng = stress_stream(rng, 1);
    stress_thread(&driver, driver_main, &driver_rng);
    stress_thread(&catcher, catcher_main, NULL);
    struct main_run main_run = {.rng = stress_stream(rng, 2), .workers = stress_draw_workers(rng)};
    if (run_too) stress_thread(&main_run.thread, main_run_thread, &main_run);
    for (int i = 0; i < storm_count; i++) {
        storms[i].rng = stress_stream(rng, (uint64_t)i);
        storms[i].rest = rest;
        storms[i].children = i == 0 && stress_chance(rng, 50);
        stress_thread(&storms[i].thread, storm_main, &storms[i]);
    }
    set_timers(rng, true);
    for (int i = 0; i < cell_count; i++) open_cell(&cells[i], i, rng);
    for (int i = 0; i < cell_count; i++) close_cell(&cells[i]);
    if (run_too) stress_join(main_run.thread);
    set_timers(rng, false);
    s_set(&stop, true);
    for (int i = 0; i < storm_count; i++) stress_join(storms[i].thread);
    wait_for_bells();
    stress_phase("closing");
    on_each_worker(reset_worker, NULL);
    s_publish(&driver_stop, true);
    err = heist_loop_stop(own);
    stress_check(err == 0, "stop answered %s", heist_error_name(err));
    stress_join(driver);
    stress_join(catcher);
    err = heist_loop_close(own);
    stress_check(err == 0, "closing a loop answered %s", heist_error_name(err));
    heist_loop_unref(own);
    stress_runtime_end(rt);
    stress_phase("masks and dispositions are what they were");
    check_dispositions(before);
    pthread_sigmask(SIG_BLOCK, NULL, &mask_after);
    stress_check(same_mask(&mask_before, &mask_after), "the mask of the main thread has changed");
    stress_check(s_get(&pipes_raised) == 0, "SIGPIPE was raised %" PRIu64 " times", s_get(&pipes_raised));
    for (int i = 0; i < BELLS; i++) close(bell_fd[i]);
}

int main(int argc, char **argv) {
    let_signals_in(false); /* of this thread and, by inheritance, of the watchdog */
    stress_begin(argc, argv, "signals", "no signal ends a wait, is lost, or changes a mask or disposition");
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    for (int i = 0; i < BELLS; i++) stress_note("%-12s handled and heard %" PRIu64, bell_name[i], s_get(&all_rung[i]));
    stress_note("handlers on the stack of a coroutine: %" PRIu64 ", on an alternative stack: %" PRIu64,
                s_get(&on_coroutine), s_get(&on_alternative));
    for (int k = 0; k < KINDS; k++) stress_note("%-28s %" PRIu64, kind_name[k], s_get(&done_by[k]));
    return stress_end();
}
