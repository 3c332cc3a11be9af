/* stress/stress_fork.c: the process forks at any moment, from anywhere.
 *
 * Law: in the child every call that makes, submits, waits or changes answers HEIST_EFORKED,
 * no call hangs, a body or callback that returns ends the child, exec finds no descriptor
 * of the library, and nothing that the child does is seen by the parent, whose tasks,
 * timers, sockets and doors go on as if nothing had happened.  A process that was forked
 * before the library was first used is no child in this sense.
 * Threads: forks come from plain threads, callbacks, tasks (pinned or not), readers, done
 * callbacks and destructors of one runtime and one loop under load; one plain thread
 * waits for the children.
 * Invariant: a child writes to its slot, a page shared with the parent, and to nothing
 * else; it never calls the harness, whose locks it may have inherited in any state. */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define DETECTOR 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define DETECTOR 1
#endif
#endif
#ifndef DETECTOR
#define DETECTOR 0
#endif

#define SLOTS 24
#define MAX_FORKERS 6
#define MAX_PAIRS 12
#define MAX_OUTSIDERS 8
#define WRONGS 32  /* wrong answers that a child can name */
#define WENT_ON 97 /* status of a child that was running the library's loop when it met our code */

enum where { THREAD, CALLBACK, TASK, PINNED, READER, DONE, DESTRUCTOR, WHERES };
static const char *const where_name[WHERES] = {"a plain thread", "a callback",      "a task",      "a pinned task",
                                               "a reader",       "a done callback", "a destructor"};
enum plan { CALLS, RETURN, EXEC, SPAWN, GRANDCHILD, EXIT, PLANS };
static const char *const plan_name[PLANS] = {"calls", "return", "exec", "spawn", "grandchild", "exit"};

/* What child and parent share.  `doing` and `wrong` are literals, at the same address in both. */
struct slot {
    _Atomic(int) taken; /* by a forker */
    _Atomic(pid_t) pid; /* published when the reaper may wait for it */
    enum where where;
    enum plan plan;
    double since;
    _Atomic(const char *) doing, wrong[WRONGS];
    _Atomic(int) wrong_code[WRONGS], wrongs, calls;
};
static struct slot *slots;       /* MAP_SHARED */
static struct slot *child_slot;  /* in a child: its own */
static char inherited_list[512]; /* numbers of the descriptors that survive exec by the caller's own will */

static struct {
    heist_runtime *rt;
    heist_loop *own; /* driven by a thread */
    heist_future *pending, *done;
    heist_task *asleep;
    heist_channel *empty, *full;
    heist_handle *later;
    heist_listener *listener;
    heist_conn *conn;
    heist_addr addr;
} h;
static _Atomic(bool) stop, reaper_stop, driver_stop;
static double round_end;
static _Atomic(uint64_t) forked[WHERES], planned[PLANS], calls_made, unslotted, answers;

/* ---- the child ---- */

static void wrong_answer(const char *call, int code) {
    int n = s_add(&child_slot->wrongs, 1);
    if (n >= WRONGS) return;
    s_set(&child_slot->wrong_code[n], code);
    s_set(&child_slot->wrong[n], call);
}

/* At each place of ours that the library's loop comes to: in a child it must not. */
static void child_guard(void) {
    if (!child_slot) return;
    wrong_answer(s_get(&child_slot->doing), 0);
    _exit(WENT_ON);
}

static int nothing(void *arg, void **out) {
    (void)arg;
    (void)out;
    child_guard();
    return 0;
}

static int nothing_called(void *arg) {
    (void)arg;
    child_guard();
    return 0;
}

static void nothing_done(heist_future *f, void *user) {
    (void)f;
    (void)user;
    child_guard();
}

static void answered(const char *call, long code) {
    s_add(&child_slot->calls, 1);
    if (code != HEIST_EFORKED) wrong_answer(call, (int)code);
}

#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        s_set(&child_slot->doing, #call);                                                                              \
        answered(#call, (long)(call));                                                                                 \
    } while (0)
#define MAY(call)                                                                                                      \
    do {                                                                                                               \
        s_set(&child_slot->doing, #call);                                                                              \
        (void)(call);                                                                                                  \
        s_add(&child_slot->calls, 1);                                                                                  \
    } while (0)

/* One of the doors into the library, in a child.  false: there is no such number. */
static bool one_call(unsigned n) {
    heist_loop *loop = NULL, *any = heist_runtime_loop(h.rt, 0);
    heist_runtime *rt = NULL;
    heist_future *f = NULL, *both[2] = {h.pending, h.asleep};
    heist_task **list = NULL;
    heist_channel *c = NULL;
    heist_conn *conn = NULL;
    heist_listener *l = NULL;
    heist_worker_stats stats = HEIST_WORKER_STATS_INIT;
    heist_report report = HEIST_REPORT_INIT;
    void *got = NULL;
    size_t count = 0;
    double soon = 1;
    char text[80];
    switch (n) {
    /* make */
    case 0: MUST(heist_loop_new(NULL, &loop)); break;
    case 1: MUST(heist_runtime_new(NULL, &rt)); break;
    case 2: MUST(heist_run(nothing, NULL, NULL, NULL)); break;
    case 3: MUST(heist_future_new(NULL, &f)); break;
    case 4: MUST(heist_loop_create_future(h.own, &f)); break;
    case 5: MUST(heist_channel_new(1, &c)); break;
    /* submit */
    case 6: MUST(heist_loop_call_soon(any, nothing_called, NULL, NULL, NULL)); break;
    case 7: MUST(heist_loop_call_soon_threadsafe(h.own, nothing_called, NULL, NULL, NULL)); break;
    case 8: MUST(heist_loop_call_later(any, 0.001, nothing_called, NULL, NULL, NULL)); break;
    case 9: MUST(heist_loop_call_at(h.own, 1, nothing_called, NULL, NULL, NULL)); break;
    case 10: MUST(heist_runtime_call_soon(h.rt, nothing_called, NULL, NULL, NULL)); break;
    case 11: MUST(heist_runtime_run_coroutine(h.rt, nothing, NULL, NULL, &f)); break;
    case 12: MUST(heist_run_coroutine_threadsafe(h.own, nothing, NULL, NULL, &f)); break;
    case 13: MUST(heist_loop_create_task(any, nothing, NULL, NULL, NULL)); break;
    case 14: MUST(heist_create_task(nothing, NULL, NULL, NULL)); break;
    case 15: MUST(heist_loop_add_reader(h.own, 0, nothing_called, NULL, NULL)); break;
    case 16: MUST(heist_loop_add_writer(any, 1, nothing_called, NULL, NULL)); break;
    case 17: MUST(heist_loop_remove_reader(any, 0)); break;
    /* wait */
    case 18: MUST(heist_await(h.pending, &got)); break;
    case 19: MUST(heist_await(h.asleep, &got)); break;
    case 20: MUST(heist_await_until(h.pending, HEIST_FOREVER, &got)); break;
    case 21: MUST(heist_gather(both, 2, NULL, 0)); break;
    case 22: MUST(heist_sleep(3600)); break;
    case 23: MUST(heist_sleep_until(heist_time() + 3600)); break;
    case 24: MUST(heist_yield()); break;
    case 25: MUST(heist_channel_send(h.full, &got)); break;
    case 26: MUST(heist_channel_recv(h.empty, &got)); break;
    case 27: MUST(heist_channel_send_until(h.full, &got, HEIST_FOREVER)); break;
    case 28: MUST(heist_channel_recv_until(h.empty, &got, HEIST_FOREVER)); break;
    case 29: MUST(heist_accept(h.listener, HEIST_FOREVER, &conn)); break;
    case 30: MUST(heist_conn_read(h.conn, text, sizeof text, HEIST_FOREVER)); break;
    case 31: MUST(heist_conn_write(h.conn, text, 1, HEIST_FOREVER, NULL)); break;
    case 32: MUST(heist_connect(&h.addr, HEIST_FOREVER, &conn)); break;
    case 33: MUST(heist_await(h.done, &got)); break;
    /* change */
    case 34: MUST(heist_channel_try_send(h.empty, &got)); break;
    case 35: MUST(heist_channel_try_recv(h.full, &got)); break;
    case 36: MUST(heist_channel_close(h.full)); break;
    case 37: MUST(heist_future_set_result(h.pending, NULL, NULL)); break;
    case 38: MUST(heist_future_set_exception(h.pending, -EIO, "in a child")); break;
    case 39: MUST(heist_cancel(h.pending)); break;
    case 40: MUST(heist_cancel(h.asleep)); break;
    case 41: MUST(heist_cancel_message(h.asleep, "in a child")); break;
    case 42: MUST(heist_future_add_done_callback(h.pending, nothing_done, NULL, NULL)); break;
    case 43: MUST(heist_future_remove_done_callback(h.pending, nothing_done, NULL)); break;
    case 44: MUST(heist_handle_cancel(h.later)); break;
    case 45: MUST(heist_listen(&h.addr, NULL, &l)); break;
    case 46: MUST(heist_conn_shutdown(h.conn)); break;
    /* run, stop, close */
    case 47: MUST(heist_loop_run_forever(h.own)); break;
    case 48: MUST(heist_loop_run_once(h.own, &soon)); break;
    case 49: MUST(heist_loop_run_until_complete(h.own, h.pending, &got)); break;
    case 50: MUST(heist_loop_run_coroutine(h.own, nothing, NULL, NULL, NULL)); break;
    case 51: MUST(heist_loop_stop(h.own)); break;
    case 52: MUST(heist_loop_close(h.own)); break;
    case 53: MUST(heist_runtime_close(h.rt, HEIST_FOREVER)); break;
    case 54: MUST(heist_runtime_all_tasks(h.rt, &list, &count)); break;
    case 55: MUST(heist_all_tasks(h.own, &list, &count)); break;
    /* ask: an answer of any kind, but an answer */
    case 56: MAY(heist_future_done(h.asleep)); break;
    case 57: MAY(heist_future_state(h.asleep)); break;
    case 58: MAY(heist_future_repr(h.asleep, text, sizeof text)); break;
    case 59: MAY(heist_task_name(h.asleep, text, sizeof text)); break;
    case 60: MAY(heist_future_result(h.done, &got)); break;
    case 61: MAY(heist_channel_size(h.full)); break;
    case 62: MAY(heist_loop_is_running(h.own)); break;
    case 63: MAY(heist_loop_is_closed(any)); break;
    case 64: MAY(heist_runtime_task_count(h.rt)); break;
    case 65: MAY(heist_runtime_stats(h.rt, 0, &stats)); break;
    case 66: MAY(heist_get_running_loop(&loop) || heist_get_event_loop(&loop)); break;
    case 67: MAY(heist_current_task() != NULL); break;
    case 68: MAY(heist_time() > 0 && heist_loop_time(h.own) > 0); break;
    case 69: MAY(heist_cancelling(h.asleep)); break;
    case 70: MAY(heist_uncancel(h.asleep)); break;
    case 71: MAY(heist_task_set_name(h.asleep, "in a child")); break;
    case 72: MAY(heist_loop_set_debug(h.own, 1)); break;
    case 73: MAY(heist_loop_set_exception_handler(h.own, stress_exception, NULL)); break;
    case 74: MAY(heist_loop_call_exception_handler(NULL, &report)); break;
    case 75: MAY(heist_set_event_loop(NULL)); break;
    case 76: MAY(heist_handle_cancelled(h.later)); break;
    case 77: MAY(heist_fail(-EIO, "in a %s", "child")); break;
    default: return false;
    }
    return true;
}

/* Give back what the child inherited: the parent's objects are left alone. */
static void give_back(void) {
#define GIVE(call)                                                                                                     \
    do {                                                                                                               \
        s_set(&child_slot->doing, #call);                                                                              \
        call;                                                                                                          \
        s_add(&child_slot->calls, 1);                                                                                  \
    } while (0)
    GIVE(heist_unref(heist_ref(h.pending)));
    GIVE(heist_unref(h.pending));
    GIVE(heist_unref(h.asleep));
    GIVE(heist_unref(h.done));
    GIVE(heist_handle_unref(h.later));
    GIVE(heist_conn_close(h.conn));
    GIVE(heist_listener_close(h.listener));
    GIVE(heist_channel_unref(h.full));
    GIVE(heist_channel_unref(h.empty));
    GIVE(heist_loop_unref(h.own));
    GIVE(heist_runtime_unref(h.rt));
#undef GIVE
}

static void try_everything(struct stress_rng *rng) {
    unsigned n = 0;
    /* from a drawn place on: a call that hangs does not hide the others for ever */
    unsigned first = (unsigned)stress_below(rng, 78);
    for (n = first; one_call(n); n++) {
    }
    for (n = 0; n < first; n++) one_call(n);
    if (stress_chance(rng, 50)) give_back();
}

static void quiet(void) {
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) dup2(fd, STDERR_FILENO);
}

static char *const *exec_arguments(void) {
    static char name[] = "stress_fork", option[] = "--descriptors";
    static char *arguments[] = {name, option, inherited_list, NULL};
    return arguments;
}

/* Returns only for RETURN. */
static void child(struct slot *s, struct stress_rng *rng) {
    child_slot = s;
    alarm(120); /* should the parent be gone */
    switch (s->plan) {
    case RETURN:
        quiet();
        s_set(&s->doing, "returning from the body");
        return;
    case EXEC:
        s_set(&s->doing, "exec");
        execv("/proc/self/exe", exec_arguments());
        wrong_answer("execv", -errno);
        _exit(98);
    case GRANDCHILD: {
        s_set(&s->doing, "fork in the child");
        pid_t pid = fork();
        int status = 0;
        if (pid == 0) {
            try_everything(rng);
            _exit(0);
        }
        s_set(&s->doing, "waiting for the grandchild");
        if (waitpid(pid, &status, 0) != pid || status) _exit(96);
        break;
    }
    case EXIT: s_set(&s->doing, "exit"); exit(0);
    default: break;
    }
    try_everything(rng);
    s_set(&s->doing, "_exit");
    _exit(0);
}

/* ---- the fork ---- */

/* In the parent it comes back; in the child only with RETURN, and then the caller returns at once. */
static void fork_here(struct stress_rng *rng, enum where where) {
    struct slot *s = NULL;
    for (int i = 0; i < SLOTS && !s; i++)
        if (!atomic_exchange_explicit(&slots[i].taken, 1, memory_order_acquire)) s = &slots[i];
    if (!s) {
        s_add(&unslotted, 1);
        return;
    }
    static const enum plan draw[] = {CALLS, CALLS, CALLS, CALLS, RETURN, RETURN, EXEC, SPAWN, GRANDCHILD, EXIT};
    s->plan = draw[stress_below(rng, sizeof draw / sizeof draw[0])];
    if (s->plan == RETURN && where == THREAD) s->plan = CALLS;
    if (s->plan == EXIT && DETECTOR) s->plan = CALLS; /* a detector's own books are no use in a child that exits */
    s->where = where;
    s->since = stress_now();
    s_set(&s->doing, "the fork itself");
    s_set(&s->wrongs, 0);
    s_set(&s->calls, 0);
    struct stress_rng own = stress_stream(rng, 3);
    s_add(&forked[where], 1);
    s_add(&planned[s->plan], 1);
    pid_t pid;
    if (s->plan == SPAWN) {
        s_set(&s->doing, "posix_spawn");
        int err = posix_spawn(&pid, "/proc/self/exe", NULL, NULL, exec_arguments(), NULL);
        if (err) stress_die("posix_spawn: %s", strerror(err));
    } else {
        pid = fork();
        if (pid == 0) {
            child(s, &own);
            return;
        }
        if (pid < 0) stress_die("fork: %s", strerror(errno));
    }
    s_publish(&s->pid, pid);
    stress_progress(1);
}

/* Each wrong answer is told once: they are many children and few mistakes. */
static bool told_before(const char *call) {
    static const char *told[2 * WRONGS];
    for (int i = 0; i < 2 * WRONGS; i++) {
        if (told[i] == call) return true;
        if (told[i]) continue;
        told[i] = call;
        return false;
    }
    return true;
}

static void judge(struct slot *s, int status) {
    const char *doing = s_get(&s->doing), *where = where_name[s->where];
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1, want = s->plan == RETURN ? 1 : 0;
    int wrongs = s_get(&s->wrongs);
    s_add(&calls_made, (uint64_t)s_get(&s->calls));
    for (int i = 0; i < wrongs && i < WRONGS; i++) {
        const char *call = s_get(&s->wrong[i]);
        if (told_before(call)) continue;
        if (code == WENT_ON && i == wrongs - 1)
            stress_fail("a child forked in %s (%s) went on running the loop from %s", where, plan_name[s->plan], call);
        else
            stress_fail("in a child forked in %s (%s): %s answered %s (%d)", where, plan_name[s->plan], call,
                        heist_error_name(s_get(&s->wrong_code[i])), s_get(&s->wrong_code[i]));
    }
    if (wrongs && !WIFSIGNALED(status)) return;
    if (WIFSIGNALED(status))
        stress_fail("a child forked in %s (%s) was ended by signal %d during %s", where, plan_name[s->plan],
                    WTERMSIG(status), doing);
    else if (code != want && (s->plan == EXEC || s->plan == SPAWN))
        stress_fail("a program started from a child of %s (%s) found %d descriptors too many", where,
                    plan_name[s->plan], code);
    else
        stress_check(code == want, "a child forked in %s (%s) ended with status %d instead of %d during %s", where,
                     plan_name[s->plan], code, want, doing);
}

static void *reaper_main(void *unused) {
    (void)unused;
    for (;;) {
        bool last = s_observe(&reaper_stop);
        int alive = 0;
        for (int i = 0; i < SLOTS; i++) {
            struct slot *s = &slots[i];
            pid_t pid = s_observe(&s->pid);
            if (!pid) continue;
            int status = 0;
            pid_t got = waitpid(pid, &status, WNOHANG);
            if (got == pid) {
                judge(s, status);
            } else if (got < 0) {
                stress_die("waitpid: %s", strerror(errno));
            } else if (stress_now() - s->since > stress_opt.stall) {
                stress_fail("a child forked in %s (%s) hangs in %s", where_name[s->where], plan_name[s->plan],
                            s_get(&s->doing));
                kill(pid, SIGKILL);
                waitpid(pid, &status, 0);
            } else {
                alive++;
                continue;
            }
            stress_progress(1);
            s_set(&s->pid, 0);
            atomic_store_explicit(&s->taken, 0, memory_order_release);
        }
        if (last && !alive) return NULL;
        stress_block(0.0005);
    }
}

/* ---- forkers: one chain of forks for each place ---- */

struct forker {
    struct stress_rng rng;
    enum where where;
    int fds[2]; /* READER */
    double rest;
    pthread_t thread;
    heist_task *task;
    _Atomic(int) over;
};
static struct forker forkers[MAX_FORKERS];
static int forker_count;

static bool more(void) {
    child_guard();
    return stress_now() < round_end && !s_get(&stop);
}

static double rest_of(struct forker *f) { return f->rest * (double)stress_between(&f->rng, 1, 1024) / 1024; }

static void *forker_thread(void *arg) {
    struct forker *f = arg;
    while (more()) {
        fork_here(&f->rng, THREAD);
        stress_block(rest_of(f));
    }
    return NULL;
}

static int forker_body(void *arg, void **out) {
    struct forker *f = arg;
    (void)out;
    while (more()) {
        fork_here(&f->rng, f->where);
        if (child_slot) return 0;
        int err = heist_sleep(rest_of(f));
        stress_check(err == 0, "a sleep answered %s", heist_error_name(err));
    }
    return 0;
}

static heist_loop *some_loop(struct stress_rng *rng) {
    if (stress_chance(rng, 30)) return h.own;
    return heist_runtime_loop(h.rt, (int)stress_below(rng, (uint64_t)heist_runtime_workers(h.rt)));
}

static void forker_again(struct forker *f);

static int forker_callback(void *arg) {
    struct forker *f = arg;
    if (f->where == CALLBACK) {
        fork_here(&f->rng, CALLBACK);
        if (child_slot) return 0;
    }
    if (f->where == DONE) {
        child_guard();
        return 0;
    }
    if (f->where == CALLBACK) forker_again(f);
    return 0;
}

static void forker_free(void *arg) {
    struct forker *f = arg;
    if (f->where != DESTRUCTOR) return;
    fork_here(&f->rng, DESTRUCTOR);
    if (child_slot) return;
    forker_again(f);
}

static void forker_done(heist_future *future, void *arg) {
    struct forker *f = arg;
    (void)future;
    fork_here(&f->rng, DONE);
    if (child_slot) return;
    forker_again(f);
}

static int forker_complete(void *arg) {
    child_guard();
    heist_future *f = arg;
    int err = heist_future_set_result(f, NULL, NULL);
    stress_check(err == 0, "set_result answered %s", heist_error_name(err));
    return 0;
}

static void drop_future(void *arg) { heist_unref(arg); }

static int forker_readable(void *arg) {
    struct forker *f = arg;
    char byte;
    if (read(f->fds[0], &byte, 1) != 1) return 0;
    fork_here(&f->rng, READER);
    if (child_slot) return 0;
    forker_again(f);
    return 0;
}

static int forker_write(void *arg) {
    struct forker *f = arg;
    child_guard();
    stress_check(write(f->fds[1], "x", 1) == 1, "a write to a pipe failed: %s", strerror(errno));
    return 0;
}

/* Arms the next fork of a forker that lives in callbacks. */
static void forker_again(struct forker *f) {
    if (!more()) {
        s_publish(&f->over, 1);
        return;
    }
    heist_call_options o = HEIST_CALL_OPTIONS_INIT;
    heist_loop *loop = some_loop(&f->rng);
    double rest = rest_of(f);
    int err;
    if (f->where == DONE) {
        heist_future *future = NULL;
        err = heist_future_new(some_loop(&f->rng), &future);
        if (err == 0) err = heist_future_add_done_callback(future, forker_done, f, NULL);
        o.arg_free = drop_future;
        if (err == 0) err = heist_loop_call_later(loop, rest, forker_complete, future, &o, NULL);
    } else if (f->where == READER) {
        err = heist_loop_call_later(loop, rest, forker_write, f, NULL, NULL);
    } else {
        if (f->where == DESTRUCTOR) o.arg_free = forker_free;
        err = heist_loop_call_later(loop, rest, forker_callback, f, &o, NULL);
    }
    stress_check(err == 0, "a submission answered %s", heist_error_name(err));
    if (err < 0) s_publish(&f->over, 1);
}

static void start_forker(struct forker *f) {
    int err = 0;
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    f->fds[0] = f->fds[1] = -1;
    s_set(&f->over, 0);
    switch (f->where) {
    case THREAD: stress_thread(&f->thread, forker_thread, f); break;
    case PINNED: o.flags = HEIST_TASK_PINNED; /* fall through */
    case TASK: err = heist_run_coroutine_threadsafe(some_loop(&f->rng), forker_body, f, &o, &f->task); break;
    case READER:
        if (pipe2(f->fds, O_CLOEXEC | O_NONBLOCK) < 0) stress_die("a pipe: %s", strerror(errno));
        err = heist_loop_add_reader(heist_runtime_loop(h.rt, 0), f->fds[0], forker_readable, f, NULL);
        if (err == 0) forker_again(f);
        break;
    default: forker_again(f); break;
    }
    if (err < 0) stress_die("a forker in %s: %s", where_name[f->where], heist_strerror(err));
}

static void end_forker(struct forker *f) {
    if (f->where == THREAD) {
        stress_join(f->thread);
    } else if (f->where == TASK || f->where == PINNED) {
        int err = heist_await(f->task, NULL);
        stress_check(err == 0, "a forking task ended with %s", heist_error_name(err));
        heist_unref(f->task);
    } else {
        while (!s_observe(&f->over)) stress_block(0.0005);
    }
    if (f->fds[0] < 0) return;
    int gone = heist_loop_remove_reader(heist_runtime_loop(h.rt, 0), f->fds[0]);
    stress_check(gone == 1, "remove_reader answered %d", gone);
    close(f->fds[0]);
    close(f->fds[1]);
}

/* ---- the load of the parent ---- */

/* Two tasks that pass a number to and fro, over channels or a socket. */
struct pair {
    int index;
    bool socket, pinned;
    heist_channel *to, *back;
    heist_conn *conn[2];
    int fd[2];
    heist_task *task[2];
    struct stress_rng rng;
    uint64_t passed;
};
static struct pair pairs[MAX_PAIRS];
static int pair_count;

static bool pair_send(struct pair *p, int side, uint64_t n) {
    int err = p->socket ? heist_conn_write(p->conn[side], &n, sizeof n, HEIST_FOREVER, NULL)
                        : heist_channel_send(side ? p->back : p->to, (void *)(uintptr_t)(n + 1));
    stress_check(err == 0, "a send answered %s", heist_error_name(err));
    return err == 0;
}

static bool pair_recv(struct pair *p, int side, uint64_t *n) {
    int err = 0;
    stress_wait_begin(p->index * 2 + side, p->socket ? "read of a socket" : "recv of a channel", 0.01);
    if (p->socket) {
        size_t have = 0;
        ptrdiff_t got = 1;
        while (have < sizeof *n && got > 0) {
            got = heist_conn_read(p->conn[side], (char *)n + have, sizeof *n - have, HEIST_FOREVER);
            if (got > 0) have += (size_t)got;
        }
        err = have == sizeof *n ? 0 : have == 0 && got == 0 ? HEIST_ESHUTDOWN : (int)got;
    } else {
        void *value = NULL;
        err = heist_channel_recv(side ? p->to : p->back, &value);
        *n = (uint64_t)(uintptr_t)value - 1;
    }
    stress_wait_end(p->index * 2 + side);
    if (err != HEIST_ESHUTDOWN) stress_check(err == 0, "a receive answered %s", heist_error_name(err));
    return err == 0;
}

static int pair_first(void *arg, void **out) {
    struct pair *p = arg;
    uint64_t n = 0, got;
    (void)out;
    for (; more(); n++) {
        if (!pair_send(p, 0, n) || !pair_recv(p, 0, &got)) break;
        stress_check(got == n + 1, "%" PRIu64 " came back for %" PRIu64, got, n);
        stress_progress(1);
        if (stress_chance(&p->rng, 20)) {
            double until = heist_time() + (double)stress_between(&p->rng, 0, 3000) * 1e-6;
            int err = heist_sleep_until(until);
            stress_check(err == 0 && heist_time() >= until - 1e-8, "a sleep answered %s", heist_error_name(err));
            stress_latency(heist_time() - until);
        }
    }
    p->passed = n;
    if (p->socket) heist_conn_shutdown(p->conn[0]);
    else heist_channel_close(p->to);
    return 0;
}

static int pair_second(void *arg, void **out) {
    struct pair *p = arg;
    uint64_t n = 0, got;
    (void)out;
    for (; pair_recv(p, 1, &got); n++) {
        child_guard();
        stress_check(got == n, "%" PRIu64 " arrived instead of %" PRIu64, got, n);
        if (!pair_send(p, 1, got + 1)) break;
    }
    return 0;
}

static void open_pair(struct pair *p, int index, struct stress_rng *rng) {
    memset(p, 0, sizeof *p);
    p->index = index;
    p->rng = stress_stream(rng, (uint64_t)index);
    p->socket = stress_chance(rng, 50);
    int err = 0;
    if (p->socket) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p->fd) < 0) stress_die("sockets: %s", strerror(errno));
        for (int i = 0; i < 2 && err == 0; i++) err = heist_conn_open(p->fd[i], &p->conn[i]);
    } else {
        size_t room = stress_below(rng, 3);
        err = heist_channel_new(room, &p->to);
        if (err == 0) err = heist_channel_new(room, &p->back);
    }
    for (int i = 0; i < 2 && err == 0; i++) {
        heist_task_options o = HEIST_TASK_OPTIONS_INIT;
        o.flags = stress_chance(rng, 30) ? HEIST_TASK_PINNED : 0;
        heist_loop *loop = p->socket ? heist_runtime_loop(h.rt, 0) : some_loop(rng);
        err = heist_run_coroutine_threadsafe(loop, i ? pair_second : pair_first, p, &o, &p->task[i]);
    }
    if (err < 0) stress_die("a pair of tasks: %s", heist_strerror(err));
}

static void close_pair(struct pair *p) {
    for (int i = 0; i < 2; i++) {
        int err = heist_await(p->task[i], NULL);
        stress_check(err == 0, "a task of the load ended with %s", heist_error_name(err));
        heist_unref(p->task[i]);
    }
    for (int i = 0; i < 2 && p->socket; i++) heist_conn_close(p->conn[i]);
    heist_channel_unref(p->to);
    heist_channel_unref(p->back);
    s_add(&answers, p->passed);
}

struct outsider {
    int index;
    struct stress_rng rng;
    pthread_t thread;
};
static struct outsider outsiders[MAX_OUTSIDERS];
static int outsider_count;

static int square(void *arg, void **out) {
    child_guard();
    uintptr_t n = (uintptr_t)arg;
    if (n & 1) heist_yield();
    *out = (void *)(n * n);
    return 0;
}

static void *outsider_main(void *arg) {
    struct outsider *o = arg;
    for (uintptr_t n = 1; more(); n++) {
        heist_task *t = NULL;
        void *got = NULL;
        int err = heist_run_coroutine_threadsafe(some_loop(&o->rng), square, (void *)n, NULL, &t);
        stress_check(err == 0, "a submission answered %s", heist_error_name(err));
        if (err < 0) break;
        stress_wait_begin(2 * MAX_PAIRS + o->index, "await of a coroutine from a plain thread", 0.01);
        err = heist_await(t, &got);
        stress_wait_end(2 * MAX_PAIRS + o->index);
        stress_check(err == 0 && (uintptr_t)got == n * n, "await answered %s, %zu for %zu squared",
                     heist_error_name(err), (size_t)(uintptr_t)got, (size_t)n);
        heist_unref(t);
        s_add(&answers, 1);
        stress_progress(1);
        stress_pause(&o->rng, 0.0005);
    }
    return NULL;
}

static void *driver_main(void *unused) {
    (void)unused;
    while (!s_observe(&driver_stop)) {
        int err = heist_loop_run_forever(h.own);
        stress_check(err == 0, "run_forever answered %s", heist_error_name(err));
        if (err < 0) break;
    }
    return NULL;
}

/* ---- a round ---- */

static int sleep_long(void *arg, void **out) {
    (void)arg;
    (void)out;
    int err = heist_sleep(3600);
    stress_check(err == -ECANCELED, "a task that a child cannot have cancelled woke up with %s", heist_error_name(err));
    stress_check(s_get(&stop), "a task was cancelled by somebody else than its parent");
    return err;
}

static int far_away(void *arg) {
    (void)arg;
    stress_fail("a timer of an hour ran");
    return 0;
}

static int listen_body(void *arg, void **out) {
    (void)arg;
    (void)out;
    heist_addr any;
    int err = heist_addr_parse("127.0.0.1:0", &any);
    if (err == 0) err = heist_listen(&any, NULL, &h.listener);
    if (err == 0) err = heist_listener_addr(h.listener, &h.addr);
    return err;
}

static int witness; /* the other end of h.conn */

static void open_heritage(struct stress_rng *rng) {
    memset(&h, 0, sizeof h);
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    stress_draw_watch(rng, &o);
    h.rt = stress_runtime("fork", stress_draw_workers(rng), &o);
    o = (heist_runtime_options)HEIST_RUNTIME_OPTIONS_INIT;
    o.exception_handler = stress_exception;
    heist_task *t = NULL;
    int fd[2], err = heist_loop_new(&o, &h.own);
    if (err == 0) err = heist_future_new(NULL, &h.pending);
    if (err == 0) err = heist_future_new(NULL, &h.done);
    if (err == 0) err = heist_future_set_result(h.done, NULL, NULL);
    if (err == 0) err = heist_channel_new(1, &h.empty);
    if (err == 0) err = heist_channel_new(1, &h.full);
    if (err == 0) err = heist_channel_try_send(h.full, &h);
    if (err == 0) err = heist_runtime_run_coroutine(h.rt, sleep_long, NULL, NULL, &h.asleep);
    if (err == 0) err = heist_loop_call_later(heist_runtime_loop(h.rt, 0), 3600, far_away, NULL, NULL, &h.later);
    if (err == 0) err = heist_runtime_run_coroutine(h.rt, listen_body, NULL, NULL, &t);
    if (err == 0) err = heist_await(t, NULL);
    heist_unref(t);
    if (err == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) < 0) err = -errno;
    if (err == 0) err = heist_conn_open(fd[0], &h.conn);
    if (err < 0) stress_die("what is to be inherited: %s", heist_strerror(err));
    witness = fd[1];
}

/* What the children tried to touch is as it was. */
static void check_heritage(void) {
    void *got = NULL;
    char byte;
    stress_phase("what the children left of the parent's objects");
    stress_check(!heist_future_done(h.pending), "a pending future was completed by a child");
    stress_check(!heist_future_done(h.asleep) && heist_cancelling(h.asleep) == 0, "a task was cancelled by a child");
    stress_check(heist_channel_size(h.empty) == 0 && heist_channel_size(h.full) == 1, "a child changed a channel");
    stress_check(heist_channel_try_recv(h.full, &got) == 0 && got == &h, "a child took from a channel");
    stress_check(heist_channel_try_send(h.full, &h) == 0, "a child closed a channel");
    ssize_t n = recv(witness, &byte, 1, MSG_DONTWAIT);
    stress_check(n < 0 && errno == EAGAIN, "a child wrote to or ended a connection");
    stress_check(heist_handle_cancel(h.later) == 1, "a child cancelled a timer");
}

static void close_heritage(void) {
    s_set(&stop, true);
    heist_cancel(h.asleep);
    heist_await(h.asleep, NULL);
    heist_unref(h.asleep);
    heist_unref(h.pending);
    heist_unref(h.done);
    heist_handle_unref(h.later);
    heist_conn_close(h.conn);
    close(witness);
    heist_listener_close(h.listener);
    heist_channel_unref(h.full);
    heist_channel_unref(h.empty);
}

static void one_round(struct stress_rng *rng) {
    s_set(&stop, false);
    s_set(&reaper_stop, false);
    s_set(&driver_stop, false);
    open_heritage(rng);
    pair_count = (int)stress_between(rng, 1, MAX_PAIRS);
    outsider_count = stress_draw_threads(rng, MAX_OUTSIDERS);
    if (outsider_count > MAX_OUTSIDERS) outsider_count = MAX_OUTSIDERS;
    forker_count = (int)stress_between(rng, 1, MAX_FORKERS);
    double span = 0.2 + 0.1 * (double)stress_below(rng, 9);
    static const double rests[] = {0.001, 0.005, 0.03};
    double rest = rests[stress_below(rng, 3)] * (DETECTOR ? 10 : 1);
    stress_settings("%d workers, %d pairs of tasks, %d outsiders, %d forkers every %.0f ms, %.1f s",
                    heist_runtime_workers(h.rt), pair_count, outsider_count, forker_count, rest * 1e3, span);
    stress_phase("forking under load");
    pthread_t reaper, driver;
    stress_thread(&reaper, reaper_main, NULL);
    stress_thread(&driver, driver_main, NULL);
    round_end = stress_now() + span;
    for (int i = 0; i < pair_count; i++) open_pair(&pairs[i], i, rng);
    for (int i = 0; i < outsider_count; i++) {
        outsiders[i].index = i;
        outsiders[i].rng = stress_stream(rng, (uint64_t)i);
        stress_thread(&outsiders[i].thread, outsider_main, &outsiders[i]);
    }
    for (int i = 0; i < forker_count; i++) {
        forkers[i].rng = stress_stream(rng, (uint64_t)i);
        forkers[i].where = (enum where)stress_below(rng, WHERES);
        forkers[i].rest = rest;
        start_forker(&forkers[i]);
    }
    for (int i = 0; i < forker_count; i++) end_forker(&forkers[i]);
    for (int i = 0; i < outsider_count; i++) stress_join(outsiders[i].thread);
    for (int i = 0; i < pair_count; i++) close_pair(&pairs[i]);
    stress_phase("waiting for the children");
    s_publish(&reaper_stop, true);
    stress_join(reaper);
    check_heritage();
    close_heritage();
    s_publish(&driver_stop, true);
    int err = heist_loop_stop(h.own);
    stress_check(err == 0, "stop answered %s", heist_error_name(err));
    stress_join(driver);
    err = heist_loop_close(h.own);
    stress_check(err == 0, "closing a loop answered %s", heist_error_name(err));
    heist_loop_unref(h.own);
    stress_runtime_end(h.rt);
}

/* ---- what must be looked at from another process ---- */

static bool listed(const char *list, int fd) {
    char want[16];
    snprintf(want, sizeof want, ",%d,", fd);
    return strstr(list, want) != NULL;
}

/* After exec: the number of descriptors that are open and that the first caller had not left open. */
static int count_descriptors(const char *list) {
    int found = 0;
    for (int fd = 0; fd < 4096; fd++)
        if (fcntl(fd, F_GETFD) >= 0 && !listed(list, fd)) found++;
    return found < 90 ? found : 90;
}

static void list_inherited(void) {
    size_t n = (size_t)snprintf(inherited_list, sizeof inherited_list, ",");
    for (int fd = 0; fd < 4096 && n < sizeof inherited_list - 16; fd++) {
        int flags = fcntl(fd, F_GETFD);
        if (fd < 3 || (flags >= 0 && !(flags & FD_CLOEXEC)))
            n += (size_t)snprintf(inherited_list + n, sizeof inherited_list - n, "%d,", fd);
    }
}

static int first_use(void *arg, void **out) {
    *out = arg;
    return heist_sleep(0.001);
}

/* Forked before the library was used: the child uses it like anybody else. */
static void forked_before_first_use(void) {
    pid_t pid = fork();
    if (pid == 0) {
        void *out = NULL;
        heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
        o.workers = 2;
        alarm(60);
        int err = heist_run(first_use, &o, &o, &out);
        _exit(err == 0 && out == &o ? 0 : 1);
    }
    int status = -1;
    stress_phase("a child that was forked before the first use");
    stress_check(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0, "it ended with status %d", status);
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--descriptors") == 0) return count_descriptors(argv[2]);
    list_inherited();
    slots = mmap(NULL, SLOTS * sizeof *slots, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (slots == MAP_FAILED) {
        perror("a shared page");
        return 2;
    }
    forked_before_first_use();
    stress_begin(argc, argv, "fork", "in a forked child every call answers HEIST_EFORKED; the parent notices nothing");
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    for (int i = 0; i < WHERES; i++) stress_note("forks in %-16s %" PRIu64, where_name[i], s_get(&forked[i]));
    for (int i = 0; i < PLANS; i++) stress_note("children that %-14s %" PRIu64, plan_name[i], s_get(&planned[i]));
    stress_note("calls in children: %" PRIu64 "; answers to the parent's load meanwhile: %" PRIu64, s_get(&calls_made),
                s_get(&answers));
    return stress_end();
}
