/* A byte string read as a program of API calls, run in a simulation, against a simple model of what must come out.
 *
 *   byte 0, 1   the seed of the schedule
 *   byte 2      workers (1 to 3), plain threads (0 to 2), an early close, a punctual clock
 *   byte 3      faults: spurious wake-ups, delays, interrupted calls, memory that runs out
 *   then        operations of two bytes, an opcode and its operand; END divides them into up to eight *scripts*
 *
 * Script 0 is run by a first task, the next ones by plain threads; SPAWN runs any of them in a new task.  All
 * work on the same eight slots for futures (tasks among them), eight for handles, and three channels.
 *
 * The model has no schedule.  It keeps, for every object, what was done to it and what was seen of it, and says which
 * pairs of the two may be: each task and callback runs once or is reported as not run, every argument and
 * result is freed once, an await gives what its task returned, a value that was sent is received once or is
 * still there, what was cancelled took nothing, a request that stands ends the next wait, callbacks of one submitter
 * keep their order, no timer is early, and in punctual time none is late; at the end everything is given back.
 * One thread at a time runs, and gives way inside the library only, so the model needs no lock.
 *
 * Waits that would last for ever are ended after the horizon: channels close, futures that somebody waits for
 * are cancelled.  A task awaits, without a deadline, only tasks made after it: who awaits in a circle waits for
 * ever, and that is no fault of the library.
 *
 * LLVMFuzzerTestOneInput is the door for libFuzzer; main.c runs files and draws programs without it. */
#include "fuzz/program.h"

#include <errno.h>
#include <heist.h>
#include <heist/testing.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

enum {
    SLOTS = 8,
    HANDLES = 8,
    CHANNELS = 3,
    SCRIPTS = 8,
    OPS = 96,
    JOBS = 40,
    PLAINS = 40,
    CALLS = 64,
    DONES = 40,
    VALUES = 128,
    WORKERS = 3
};

#define HORIZON 20.0
/* How long a timer may be late in punctual time without faults: the clock goes on by nanoseconds for each step. */
#define LATENESS 0.02

enum op {
    END,
    SPAWN,
    SPAWN_PINNED,
    SUBMIT, /* heist_run_coroutine_threadsafe */
    DETACH, /* spawn without a reference */
    AWAIT,
    AWAIT_UNTIL,
    CANCEL,
    CANCEL_SELF,
    UNCANCEL,
    UNREF,
    COPY,
    TAKE,
    SLEEP,
    YIELD,
    GATHER,
    FUTURE,
    SET,
    SET_ERROR,
    DONE_CALLBACK,
    REMOVE_CALLBACK,
    CALL_SOON,
    CALL_LATER,
    HANDLE_CANCEL,
    HANDLE_UNREF,
    SEND,
    RECV,
    SEND_UNTIL,
    RECV_UNTIL,
    TRY_SEND,
    TRY_RECV,
    CHANNEL_CLOSE,
    RETURN,
    LIST,
    OP_COUNT
};

static const char *const op_name[OP_COUNT] = {
    "END",        "SPAWN",       "SPAWN_PINNED",  "SUBMIT",        "DETACH",    "AWAIT",         "AWAIT_UNTIL",
    "CANCEL",     "CANCEL_SELF", "UNCANCEL",      "UNREF",         "COPY",      "TAKE",          "SLEEP",
    "YIELD",      "GATHER",      "FUTURE",        "SET",           "SET_ERROR", "DONE_CALLBACK", "REMOVE_CALLBACK",
    "CALL_SOON",  "CALL_LATER",  "HANDLE_CANCEL", "HANDLE_UNREF",  "SEND",      "RECV",          "SEND_UNTIL",
    "RECV_UNTIL", "TRY_SEND",    "TRY_RECV",      "CHANNEL_CLOSE", "RETURN",    "LIST"};

struct op_code {
    uint8_t op, arg;
};

/* Who runs a script. */
struct actor {
    struct job *job; /* NULL: a plain thread */
    int id;          /* for the order of callbacks */
    int serial;      /* of its making: it awaits only what is later */
};

/* A task, and what is known of it. */
struct job {
    int serial, script;
    bool accepted, started, ended, pinned;
    int code;
    bool gives; /* its value is `token` */
    int arg_frees, result_frees, taken;
    int asked;            /* cancel was called */
    int requested;        /* and said 1 */
    int delivered;        /* -ECANCELED out of a wait */
    bool maybe_delivered; /* it could have been the outcome of what it awaited */
    bool impure;          /* a request may have gone on to what it awaited, or was taken back */
    bool awaited_by_task; /* so that a request of another may have come on to it */
    heist_loop *pinned_to;
    char token;
};

/* A plain future. */
struct plain {
    heist_future *future;       /* held until the end when somebody waits for it without a deadline */
    int tried[4], frees, taken; /* tried: calls that may complete it, by outcome */
    enum outcome { NOBODY, VALUE, ERROR, CANCELLED } winner, seen; /* by the call that said so; by those who looked */
    bool awaited_by_task;
    char token;
};

/* What a slot holds: one reference, and the model of it. */
struct slot {
    heist_future *future;
    struct job *job;
    struct plain *plain;
};

struct call {
    heist_handle *handle; /* one reference, or NULL */
    int worker, actor, serial;
    double when; /* negative: call_soon */
    uint8_t does;
    bool accepted;
    bool must_run;
    int ran, frees, cancelled;
};

struct done_call {
    heist_future *future;
    int ran, frees, removed;
    bool accepted;
};

struct value {
    int channel;
    bool sent, given_up;
    int received;
};

/* One run. */
static struct {
    struct op_code op[OPS];
    int script_begin[SCRIPTS + 1], scripts;
    int workers, threads;
    bool early_close, punctual, faults, no_memory;
    heist_runtime *rt;
    heist_channel *channel[CHANNELS];
    bool channel_closed[CHANNELS];
    struct slot slot[SLOTS];
    int handle_slot[HANDLES]; /* index of call, or -1 */
    struct job job[JOBS];
    int jobs;
    struct plain plain[PLAINS];
    int plains;
    struct call call[CALLS];
    int calls;
    struct done_call done[DONES];
    int dones;
    struct value value[VALUES];
    int values;
    int last_ran[WORKERS][JOBS + 4]; /* by actor: the last callback of call_soon that ran on this loop */
    bool closing, over;
    double end; /* when the horizon is reached */
} g;

#define check(law, ...) ((law) ? (void)0 : heist_sim_fail(__VA_ARGS__))

bool fuzz_verbose;
#define trace(...)                                                                                                     \
    (fuzz_verbose ? (fprintf(stderr, "%.6f ", heist_time()), fprintf(stderr, __VA_ARGS__), fputc('\n', stderr)) : 0)

static bool no_room(int code) { return g.no_memory && (code == -ENOMEM || code == -EAGAIN || code == -EMFILE); }

/* ---- tasks ---- */

static void run_script(struct actor *a, int script, int *code);

static void job_arg_free(void *arg) {
    struct job *j = arg;
    check(++j->arg_frees == 1, "task %d: its argument is freed %d times", j->serial, j->arg_frees);
    check(!j->started || j->ended, "task %d: its argument is freed under its body", j->serial);
}

static struct job *job_of_token(void *token) {
    for (int i = 0; i < g.jobs; i++)
        if (token == &g.job[i].token) return &g.job[i];
    heist_sim_fail("a result that no task gave");
    return NULL;
}

static void job_result_free(void *value) {
    struct job *j = job_of_token(value);
    check(++j->result_frees == 1, "task %d: its result is freed %d times", j->serial, j->result_frees);
    check(j->taken == 0, "task %d: its result is freed, and was taken", j->serial);
}

static int job_body(void *arg, void **out) {
    struct job *j = arg;
    check(!j->started, "task %d runs twice", j->serial);
    check(j->arg_frees == 0, "task %d runs after its argument was freed", j->serial);
    j->started = true;
    struct actor a = {j, j->serial, j->serial};
    int code = 0;
    run_script(&a, j->script, &code);
    if (j->pinned_to) {
        heist_loop *now = NULL;
        check(heist_get_running_loop(&now) == 0 && now == j->pinned_to, "task %d left its loop", j->serial);
    }
    j->ended = true;
    j->code = code;
    j->gives = code == 0;
    if (code == 0) *out = &j->token;
    return code;
}

/* Guards slots: to take a reference gives way, and meanwhile another could drop the slot's. */
static pthread_mutex_t slots_lock = PTHREAD_MUTEX_INITIALIZER;

/* What the slot holds, with a reference for the caller; empty: all NULL. */
static struct slot grab(int slot) {
    heist_sim_lock(&slots_lock);
    struct slot s = g.slot[slot % SLOTS];
    if (s.future) heist_ref(s.future);
    heist_sim_unlock(&slots_lock);
    return s;
}

/* Puts it there, with its reference. */
static void put(int slot, struct slot s) {
    heist_sim_lock(&slots_lock);
    struct slot old = g.slot[slot % SLOTS];
    g.slot[slot % SLOTS] = s;
    heist_sim_unlock(&slots_lock);
    heist_unref(old.future);
}

/* Somebody will wait for it without a deadline: it is held until the finale. */
static void keep(const struct slot *s) {
    if (!s->plain) return;
    heist_sim_lock(&slots_lock);
    if (!s->plain->future) s->plain->future = heist_ref(s->future);
    heist_sim_unlock(&slots_lock);
}

/* A new task of the script; `loop` NULL: in the caller's runtime.  Into the slot, or detached. */
static void spawn(const struct actor *a, uint8_t arg, heist_loop *loop, bool pinned, bool detached) {
    if (g.jobs == JOBS) return;
    struct job *j = &g.job[g.jobs];
    memset(j, 0, sizeof(*j));
    j->serial = ++g.jobs; /* 1 and up; plain threads are 0 */
    j->script = (arg >> 3) % g.scripts;
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.arg_free = job_arg_free;
    o.result_free = job_result_free;
    o.flags = pinned ? HEIST_TASK_PINNED : 0;
    heist_task *t = NULL;
    int err;
    bool in_task = a->job != NULL;
    if (loop || !in_task) {
        if (!loop) loop = heist_runtime_loop(g.rt, arg % g.workers);
        if (pinned) j->pinned_to = loop;
        err = heist_run_coroutine_threadsafe(loop, job_body, j, &o, detached ? NULL : &t);
    } else {
        err = heist_create_task(job_body, j, &o, detached ? NULL : &t);
    }
    trace("actor %d spawns task %d (script %d): %d", a->id, j->serial, j->script, err);
    if (err) {
        check((err == HEIST_ECLOSED && g.closing) || no_room(err), "create_task: %s", heist_error_name(err));
        check(j->arg_frees == 0 && !j->started, "task %d was refused, and its argument freed", j->serial);
        j->arg_frees = 1; /* still ours */
        return;
    }
    j->accepted = true;
    if (detached) return;
    put(arg, (struct slot){t, j, NULL});
}

/* ---- waiting ---- */

/* Must the wait that begins now be cancelled?  A request was recorded, and nothing can have taken it. */
static bool must_be_cancelled(const struct actor *a) {
    const struct job *j = a->job;
    return j && !j->impure && !j->delivered && !j->maybe_delivered && j->requested > 0;
}

/* After a wait with its own cancellation (all but the plain await that had to wait). */
static void after_wait(const struct actor *a, bool must, int code, const char *what) {
    if (code == -ECANCELED) {
        check(a->job != NULL, "%s: a plain thread was cancelled", what);
        a->job->delivered++;
    }
    if (a->job && a->job->impure) must = false; /* taken back meanwhile */
    check(!must || code == -ECANCELED || no_room(code), "%s: a request stood, and the call returned %s", what,
          code < 0 ? heist_error_name(code) : "0");
}

static double pause_of(uint8_t arg) { return (arg & 7) ? 0.001 * (double)(1 << (arg >> 4)) * (arg & 7) : 0; }

static void check_late(double end, const char *what) {
    double now = heist_time();
    check(now >= end, "%s: early by %g s", what, end - now);
    if (g.punctual && !g.faults) check(now <= end + LATENESS, "%s: late by %g s", what, now - end);
}

/* What a done future gave: code and value are what await, result or take said. */
static void check_outcome(const struct slot *s, int code, void *value, const char *what) {
    if (s->job) {
        struct job *j = s->job;
        if (code == HEIST_ERESULTTAKEN) {
            check(j->taken == 1, "%s: task %d: taken, and nobody took it", what, j->serial);
        } else if (j->started) {
            check(j->ended, "%s: task %d is done, and its body has not ended", what, j->serial);
            check(code == j->code, "%s: task %d returned %d, not %d", what, j->serial, j->code, code);
            check(code || value == &j->token, "%s: task %d: another value", what, j->serial);
        } else {
            check(no_room(code) || (code == -ECANCELED && (j->asked || j->awaited_by_task || g.closing)),
                  "%s: task %d did not run, and gave %s", what, j->serial, heist_error_name(code));
        }
        return;
    }
    struct plain *p = s->plain;
    enum outcome seen = code == 0 || code == HEIST_ERESULTTAKEN ? VALUE : code == -ECANCELED ? CANCELLED : ERROR;
    if (code == HEIST_ERESULTTAKEN) check(p->taken == 1, "%s: taken, and nobody took it", what);
    else if (code == 0) check(value == &p->token, "%s: a future gave another value", what);
    else check(code == -ECANCELED || code == -EPROTO, "%s: a future gave %s", what, heist_error_name(code));
    check(p->tried[seen] || (seen == CANCELLED && p->awaited_by_task), "%s: a future gave what nobody gave it", what);
    check(!p->seen || p->seen == seen, "%s: a future changed its outcome", what);
    p->seen = seen;
}

static void do_await(struct actor *a, uint8_t arg, bool until) {
    struct slot s = grab(arg);
    if (!s.future) return;
    if (s.job && s.job->serial <= a->serial) until = true;
    if (!until) keep(&s);
    if (!until && (g.closing || g.over)) until = true; /* after keep: the finale finds it, or is seen here */
    bool done = heist_future_done(s.future) == 1, must = must_be_cancelled(a);
    double deadline = heist_time() + pause_of(arg);
    void *value = NULL;
    int code;
    if (a->job && !until) {
        if (s.job) s.job->awaited_by_task = true;
        if (s.plain) s.plain->awaited_by_task = true;
        if (!done) a->job->impure = true, must = false;
    }
    trace("actor %d awaits %s%d", a->id, until ? "until, slot " : "slot ", arg % SLOTS);
    code = until ? heist_await_until(s.future, deadline, &value) : heist_await(s.future, &value);
    trace("actor %d awaited slot %d: %d", a->id, arg % SLOTS, code);
    if (code == HEIST_ESELFAWAIT) {
        check(s.job && s.job == a->job, "await: ESELFAWAIT of another");
    } else if (until && code == -ETIMEDOUT) {
        after_wait(a, must, code, "await_until");
        check_late(deadline, "await_until");
    } else if (code == -ECANCELED && a->job) {
        /* Its own request, or the outcome. */
        bool ended = heist_future_done(s.future) == 1;
        check(ended || until, "await returned before the future was done");
        if (ended && heist_future_cancelled(s.future) == 1) {
            a->job->maybe_delivered = true;
            check_outcome(&s, code, NULL, "await");
        } else {
            after_wait(a, must, code, "await");
        }
    } else if (!no_room(code) || heist_future_done(s.future) == 1) {
        after_wait(a, must, code == -ECANCELED ? 0 : code, "await");
        check(heist_future_done(s.future) == 1, "await returned %d before the future was done", code);
        if (code != -ENOMEM || !g.no_memory) check_outcome(&s, code, value, "await");
    }
    heist_unref(s.future);
}

static void do_sleep(struct actor *a, uint8_t arg, bool yield) {
    bool must = must_be_cancelled(a);
    double end = heist_time() + (yield ? 0 : pause_of(arg));
    int code = yield ? heist_yield() : heist_sleep(pause_of(arg));
    trace("actor %d slept: %d", a->id, code);
    check(code == 0 || code == -ECANCELED || no_room(code), "sleep: %s", heist_error_name(code));
    after_wait(a, must, code, "sleep");
    if (code == 0) check_late(end, "sleep");
}

static void do_gather(struct actor *a, uint8_t arg) {
    struct slot s[4];
    heist_future *f[4];
    void *result[4] = {NULL, NULL, NULL, NULL};
    int n = 0;
    for (int i = 0; i < 1 + (arg >> 6); i++) {
        s[n] = grab(arg + i);
        f[n] = s[n].future;
        if (f[n] && s[n].job && s[n].job->serial <= a->serial) {
            heist_unref(f[n]);
            f[n] = NULL;
        }
        if (!f[n]) continue;
        keep(&s[n]);
        if (s[n].job) s[n].job->awaited_by_task = true; /* the first failure cancels the rest, for a plain thread too */
        if (s[n].plain) s[n].plain->awaited_by_task = true;
        n++;
    }
    if (g.closing || g.over) { /* as in await */
        for (int i = 0; i < n; i++) heist_unref(f[i]);
        return;
    }
    bool all = arg & 8;
    if (a->job) a->job->impure = true;
    int code = heist_gather(f, (size_t)n, result, all ? HEIST_GATHER_ALL : 0);
    trace("actor %d gathered %d: %d", a->id, n, code);
    bool entry = code == -ECANCELED && a->job;
    if (!entry && !no_room(code)) {
        int first_failure = 0;
        for (int i = 0; i < n; i++) {
            check(heist_future_done(f[i]) == 1, "gather returned before all had ended");
            void *value = NULL;
            int c = heist_future_result(f[i], &value);
            check_outcome(&s[i], c, value, "gather");
            if (c == 0) check(result[i] == value || c == HEIST_ERESULTTAKEN, "gather: another value");
            if (c && !first_failure) first_failure = c;
        }
        if (code) check(first_failure != 0 && !all, "gather failed, and nobody else did");
    }
    if (entry) a->job->maybe_delivered = true;
    for (int i = 0; i < n; i++) heist_unref(f[i]);
}

/* ---- channels ---- */

static void do_send(const struct actor *a, uint8_t arg, bool until, bool at_once) {
    int c = arg % CHANNELS;
    if (g.values == VALUES || (!until && !at_once && (g.closing || g.over))) return;
    struct value *v = &g.value[g.values++];
    *v = (struct value){.channel = c, .sent = true}; /* a receiver may have it before the call returns */
    double deadline = heist_time() + pause_of(arg);
    bool must = !at_once && must_be_cancelled(a);
    int code = at_once ? heist_channel_try_send(g.channel[c], v)
               : until ? heist_channel_send_until(g.channel[c], v, deadline)
                       : heist_channel_send(g.channel[c], v);
    trace("actor %d sent %d to %d: %d", a->id, (int)(v - g.value), c, code);
    if (code) {
        check(code == -ECANCELED || (code == HEIST_ESHUTDOWN && g.channel_closed[c]) || (until && code == -ETIMEDOUT) ||
                  (at_once && code == -EAGAIN) || no_room(code),
              "send: %s", heist_error_name(code));
        check(!v->received, "a send failed with %s, and its value was received", heist_error_name(code));
        v->sent = false;
        v->given_up = true;
        if (code == -ETIMEDOUT) check_late(deadline, "send_until");
    }
    if (!at_once) after_wait(a, must, code, "send");
}

static void do_recv(const struct actor *a, uint8_t arg, bool until, bool at_once) {
    int c = arg % CHANNELS;
    if (!until && !at_once && (g.closing || g.over)) return;
    void *got = NULL;
    double deadline = heist_time() + pause_of(arg);
    bool must = !at_once && must_be_cancelled(a);
    int code = at_once ? heist_channel_try_recv(g.channel[c], &got)
               : until ? heist_channel_recv_until(g.channel[c], &got, deadline)
                       : heist_channel_recv(g.channel[c], &got);
    trace("actor %d received from %d: %d", a->id, c, code);
    if (code) {
        check(code == -ECANCELED || (code == HEIST_ESHUTDOWN && g.channel_closed[c]) || (until && code == -ETIMEDOUT) ||
                  (at_once && code == -EAGAIN) || no_room(code),
              "recv: %s", heist_error_name(code));
        check(got == NULL, "recv failed with %s, and gave a value", heist_error_name(code));
        if (code == -ETIMEDOUT) check_late(deadline, "recv_until");
    } else {
        struct value *v = got;
        check(v >= g.value && v < g.value + g.values, "recv: a value that nobody sent");
        check(v->channel == c && !v->given_up, "recv: a value that was not sent here");
        check(++v->received == 1, "recv: a value came %d times", v->received);
    }
    if (!at_once) after_wait(a, must, code, "recv");
}

/* ---- futures ---- */

static void plain_free(void *value) {
    struct plain *p = NULL;
    for (int i = 0; i < g.plains; i++)
        if (value == &g.plain[i].token) p = &g.plain[i];
    check(p != NULL, "a value is freed that no future had");
    check(++p->frees == 1 && !p->taken, "a future's value is freed twice, or was taken");
}

static void make_future(struct actor *a, uint8_t arg) {
    if (g.plains == PLAINS) return;
    struct plain *p = &g.plain[g.plains++]; /* taken before the call, which gives way */
    heist_future *f = NULL;
    heist_loop *loop = arg & 16 ? heist_runtime_loop(g.rt, (arg >> 5) % g.workers) : NULL;
    int err = heist_future_new(loop, &f);
    trace("actor %d makes future %d in slot %d: %d", a->id, (int)(p - g.plain), arg % SLOTS, err);
    if (err) {
        check((err == HEIST_ECLOSED && g.closing) || no_room(err), "future_new: %s", heist_error_name(err));
        return;
    }
    put(arg, (struct slot){f, NULL, p});
}

/* A call that may complete p said that it did. */
static void won(struct plain *p, enum outcome outcome) {
    check(!p->winner, "a future was completed twice");
    p->winner = outcome;
    check(!p->seen || p->seen == outcome, "a future had another outcome");
}

static void complete(const struct actor *a, uint8_t arg, bool error) {
    struct slot s = grab(arg);
    if (!s.future) return;
    struct plain *p = s.plain;
    enum outcome outcome = error ? ERROR : VALUE;
    if (p) p->tried[outcome]++;
    int err = error ? heist_future_set_exception(s.future, -EPROTO, arg & 128 ? "on purpose" : NULL)
                    : heist_future_set_result(s.future, p ? &p->token : NULL, p ? plain_free : NULL);
    trace("actor %d completes slot %d: %d", a->id, arg % SLOTS, err);
    if (!p) check(err == -ENOTSUP || (no_room(err) && error), "set of a task: %s", heist_error_name(err));
    else if (err)
        check(err == HEIST_EINVALSTATE
                  ? p->tried[VALUE] + p->tried[ERROR] + p->tried[CANCELLED] > 1 || p->awaited_by_task
                  : no_room(err),
              "set: %s", heist_error_name(err));
    else won(p, outcome);
    if (!err && error) (void)heist_future_result(s.future, NULL); /* looked at: no report */
    heist_unref(s.future);
}

static void do_cancel(const struct actor *a, heist_future *f, struct job *j, struct plain *p, uint8_t arg) {
    heist_ref(f);
    if (p) p->tried[CANCELLED]++;
    if (j) j->asked++;
    int code = heist_cancel_message(f, arg & 128 ? "enough" : NULL);
    trace("actor %d cancels %s %d: %d", a->id, j ? "task" : "future", j ? j->serial : (int)(p - g.plain), code);
    check(code == 0 || code == 1 || no_room(code), "cancel: %s", heist_error_name(code));
    /* A completer of a plain future that won may still be on its way to DONE. */
    if (code == 0 && j) check(heist_future_done(f) == 1, "cancel said 0, and task %d is not done", j->serial);
    if (code == 1 && j) j->requested++;
    if (code == 1 && p) won(p, CANCELLED);
    heist_unref(f);
}

static void do_take(struct actor *a, uint8_t arg) {
    struct slot s = grab(arg);
    if (!s.future) return;
    void *value = NULL;
    bool done = heist_future_done(s.future) == 1;
    int code = heist_future_take(s.future, &value);
    trace("actor %d takes slot %d: %d", a->id, arg % SLOTS, code);
    if (code == HEIST_EINVALSTATE) {
        check(!done, "take: a done future is not done");
    } else {
        if (code == 0) {
            int *taken = s.job ? &s.job->taken : &s.plain->taken;
            check(++*taken == 1, "a result was taken twice");
        }
        check_outcome(&s, code, value, "take");
    }
    heist_unref(s.future);
}

/* ---- callbacks ---- */

static void call_free(void *arg) {
    struct call *c = arg;
    check(++c->frees == 1, "the argument of a callback is freed %d times", c->frees);
}

static const struct actor callback_actor = {NULL, JOBS + 3, 0};
static const struct actor main_actor = {NULL, JOBS + 2, 0};

static int call_run(void *arg) {
    struct call *c = arg;
    check(c->frees == 0, "a callback runs after its argument was freed");
    check(++c->ran == 1, "a callback runs %d times", c->ran);
    check(!c->cancelled, "a callback runs that was cancelled");
    check(heist_current_task() == NULL, "there is a current task in a callback");
    heist_loop *loop = NULL;
    check(heist_get_running_loop(&loop) == 0 && loop == heist_runtime_loop(g.rt, c->worker),
          "a callback runs on another loop");
    if (c->when < 0) {
        int *last = &g.last_ran[c->worker][c->actor];
        check(*last < c->serial, "callbacks of one submitter run out of order");
        *last = c->serial;
    } else {
        check_late(c->when, "call_later");
    }
    trace("callback %d runs", (int)(c - g.call));
    switch (c->does % 6) {
        case 1: complete(&callback_actor, c->does >> 3, false); break;
        case 2: {
            struct slot s = grab(c->does >> 3);
            if (s.future) do_cancel(&callback_actor, s.future, s.job, s.plain, 0);
            heist_unref(s.future);
            break;
        }
        case 3: check(heist_sleep(0) == HEIST_ENOTINCORO, "a callback may suspend"); break;
        case 4: do_send(&callback_actor, c->does >> 3, false, true); break;
        case 5: do_recv(&callback_actor, c->does >> 3, false, true); break;
        default: break;
    }
    return 0;
}

/* The slot's handle is another's now, or nobody's (-1). */
static void put_handle(int slot, int call) {
    heist_sim_lock(&slots_lock);
    int old = g.handle_slot[slot % HANDLES];
    g.handle_slot[slot % HANDLES] = call;
    heist_sim_unlock(&slots_lock);
    if (old >= 0) heist_handle_unref(g.call[old].handle);
}

static void schedule(struct actor *a, uint8_t arg, bool later, uint8_t does) {
    if (g.calls == CALLS) return;
    struct call *c = &g.call[g.calls++];
    *c = (struct call){.worker = (arg >> 3) % g.workers, .actor = a->id, .serial = g.calls, .when = -1, .does = does};
    heist_loop *loop = heist_runtime_loop(g.rt, c->worker);
    heist_call_options o = HEIST_CALL_OPTIONS_INIT;
    o.arg_free = call_free;
    double delay = pause_of(arg);
    if (later) c->when = heist_loop_time(loop) + delay;
    heist_handle *h = NULL, **out = arg & 64 ? NULL : &h;
    int err = later ? heist_loop_call_at(loop, c->when, call_run, c, &o, out)
                    : heist_loop_call_soon(loop, call_run, c, &o, out);
    trace("actor %d schedules callback %d: %d", a->id, (int)(c - g.call), err);
    if (err) {
        check((err == HEIST_ECLOSED && g.closing) || no_room(err), "call_soon: %s", heist_error_name(err));
        check(!c->ran && !c->frees, "a refused callback ran, or its argument was freed");
        return;
    }
    c->accepted = true;
    c->must_run = !g.closing && !g.over && c->when < g.end - LATENESS;
    if (!h) return;
    c->handle = h;
    put_handle(arg, (int)(c - g.call));
}

static void cancel_handle(struct actor *a, uint8_t arg) {
    heist_sim_lock(&slots_lock);
    int i = g.handle_slot[arg % HANDLES];
    heist_handle *h = i < 0 ? NULL : heist_handle_ref(g.call[i].handle);
    heist_sim_unlock(&slots_lock);
    if (!h) return;
    struct call *c = &g.call[i];
    int code = heist_handle_cancel(h);
    trace("actor %d cancels callback %d: %d", a->id, i, code);
    check(code == 0 || code == 1, "handle_cancel: %d", code);
    if (code == 1) {
        check(++c->cancelled == 1, "a handle was cancelled twice");
        check(!c->ran, "a callback ran that was then cancelled");
        check(c->frees == 1, "cancelled, and the argument is not freed");
        check(heist_handle_cancelled(h) == 1, "cancelled, and says that it is not");
    }
    heist_handle_unref(h);
}

static void done_run(heist_future *f, void *user) { /* in the completing thread, when the future has no loop */
    struct done_call *d = user;
    check(heist_future_done(f) == 1, "a done callback runs before its future is done");
    check(f == d->future, "a done callback gets another future");
    check(++d->ran == 1 && !d->frees && !d->removed, "a done callback runs twice, or after its end");
    (void)heist_future_result(f, NULL);
}

static void done_free(void *user) {
    struct done_call *d = user;
    check(++d->frees == 1, "the argument of a done callback is freed twice");
}

static void add_done(uint8_t arg) {
    struct slot s = grab(arg);
    if (!s.future) return;
    if (g.dones == DONES) {
        heist_unref(s.future);
        return;
    }
    struct done_call *d = &g.done[g.dones++];
    *d = (struct done_call){.future = s.future, .accepted = true};
    int err = heist_future_add_done_callback(s.future, done_run, d, done_free);
    if (err) {
        check((err == HEIST_ECLOSED && g.closing) || no_room(err), "add_done_callback: %s", heist_error_name(err));
        check(!d->ran && !d->frees, "a refused done callback ran or was freed");
        d->accepted = false;
    }
    heist_unref(s.future);
}

static void remove_done(uint8_t arg) {
    if (!g.dones) return;
    struct done_call *d = &g.done[(arg >> 3) % g.dones];
    struct slot s = grab(arg);
    if (!s.future || s.future != d->future) {
        heist_unref(s.future);
        return;
    }
    int n = heist_future_remove_done_callback(s.future, done_run, d);
    check(n == 0 || n == 1, "remove_done_callback: %d", n);
    if (n) {
        check(!d->ran && d->frees == 1, "a removed done callback ran, or was not freed");
        d->removed = 1;
    }
    heist_unref(s.future);
}

static void list_tasks(void) {
    heist_task **list = NULL;
    size_t n = 0;
    int err = heist_runtime_all_tasks(g.rt, &list, &n);
    check(err == 0 || no_room(err), "all_tasks: %d", err);
    if (err) return;
    check(n <= (size_t)g.jobs, "more tasks than were made");
    heist_task_list_free(list, n);
}

/* ---- scripts ---- */

static void run_script(struct actor *a, int script, int *code) {
    for (int i = g.script_begin[script]; i < g.script_begin[script + 1] && !g.over; i++) {
        uint8_t arg = g.op[i].arg;
        struct slot s = {NULL, NULL, NULL};
        trace("actor %d: %s %d", a->id, op_name[g.op[i].op], arg);
        switch ((enum op)g.op[i].op) {
            case SPAWN: spawn(a, arg, NULL, false, false); break;
            case SPAWN_PINNED: spawn(a, arg, heist_runtime_loop(g.rt, (arg >> 6) % g.workers), true, false); break;
            case SUBMIT: spawn(a, arg, heist_runtime_loop(g.rt, (arg >> 6) % g.workers), false, false); break;
            case DETACH: spawn(a, arg, NULL, false, true); break;
            case AWAIT: do_await(a, arg, false); break;
            case AWAIT_UNTIL: do_await(a, arg, true); break;
            case CANCEL:
                s = grab(arg);
                if (s.future) do_cancel(a, s.future, s.job, s.plain, arg);
                heist_unref(s.future);
                break;
            case CANCEL_SELF:
                if (a->job) do_cancel(a, heist_current_task(), a->job, NULL, arg);
                break;
            case UNCANCEL:
                s = grab(arg);
                if (s.job) {
                    s.job->impure = true;
                    check(heist_uncancel(s.future) >= 0, "uncancel failed");
                }
                heist_unref(s.future);
                break;
            case UNREF: put(arg, s); break;
            case COPY:
                s = grab(arg);
                if (s.future) put(arg >> 3, s);
                break;
            case TAKE: do_take(a, arg); break;
            case SLEEP: do_sleep(a, arg, false); break;
            case YIELD: do_sleep(a, arg, true); break;
            case GATHER: do_gather(a, arg); break;
            case FUTURE: make_future(a, arg); break;
            case SET: complete(a, arg, false); break;
            case SET_ERROR: complete(a, arg, true); break;
            case DONE_CALLBACK: add_done(arg); break;
            case REMOVE_CALLBACK: remove_done(arg); break;
            case CALL_SOON: schedule(a, arg, false, (uint8_t)(arg * 7 + i)); break;
            case CALL_LATER: schedule(a, arg, true, (uint8_t)(arg * 5 + i)); break;
            case HANDLE_CANCEL: cancel_handle(a, arg); break;
            case HANDLE_UNREF: put_handle(arg, -1); break;
            case SEND: do_send(a, arg, false, false); break;
            case RECV: do_recv(a, arg, false, false); break;
            case SEND_UNTIL: do_send(a, arg, true, false); break;
            case RECV_UNTIL: do_recv(a, arg, true, false); break;
            case TRY_SEND: do_send(a, arg, false, true); break;
            case TRY_RECV: do_recv(a, arg, false, true); break;
            case CHANNEL_CLOSE:
                g.channel_closed[arg % CHANNELS] = true;
                check(heist_channel_close(g.channel[arg % CHANNELS]) == 0, "channel_close failed");
                break;
            case RETURN: *code = arg & 1 ? -EPROTO : 0; return;
            case LIST: list_tasks(); break;
            case END:
            case OP_COUNT: break;
        }
        if (a->job && a->job->delivered && !(i & 1)) { /* every second place of a request ends the task */
            *code = -ECANCELED;
            return;
        }
    }
}

static void plain_thread(void *arg) {
    struct actor *a = arg;
    int code = 0;
    run_script(a, a->id - JOBS, &code);
}

/* ---- one run ---- */

static bool parse(const uint8_t *data, size_t size) {
    if (size < 6) return false;
    memset(&g, 0, sizeof(g));
    g.workers = 1 + data[2] % 3;
    g.threads = (data[2] >> 2) % 3;
    g.early_close = data[2] & 0x20;
    g.punctual = data[2] & 0x40;
    g.faults = data[3] & 0x1f;
    g.no_memory = (data[3] & 0x18) == 0x18;
    for (int i = 0; i < HANDLES; i++) g.handle_slot[i] = -1;
    int n = 0;
    g.scripts = 1;
    for (size_t i = 4; i + 1 < size && n < OPS; i += 2) {
        uint8_t op = data[i] % OP_COUNT;
        if (op == END) {
            if (g.scripts == SCRIPTS) break;
            g.script_begin[g.scripts++] = n;
            continue;
        }
        g.op[n++] = (struct op_code){op, data[i + 1]};
    }
    for (int i = g.scripts; i <= SCRIPTS; i++) g.script_begin[i] = n;
    return n > 0;
}

static void quiet(heist_loop *loop, const heist_report *report, void *user) { (void)loop, (void)report, (void)user; }

/* Ends what would wait for ever. */
static void finale(void) {
    for (int i = 0; i < CHANNELS; i++) {
        g.channel_closed[i] = true;
        check(heist_channel_close(g.channel[i]) == 0, "channel_close failed");
    }
    for (int i = 0; i < g.plains; i++)
        if (g.plain[i].future) do_cancel(&main_actor, g.plain[i].future, NULL, &g.plain[i], 0);
}

/* What must hold when all is over. */
static void judge(void) {
    for (int i = 0; i < g.jobs; i++) {
        struct job *j = &g.job[i];
        if (!j->accepted) continue;
        check(j->arg_frees == 1, "task %d: its argument was not freed", j->serial);
        check(!j->started || j->ended, "task %d began, and did not end", j->serial);
        check(j->result_frees + j->taken == (j->ended && j->gives), "task %d: its result was neither freed nor taken",
              j->serial);
        if (!j->awaited_by_task)
            check(j->delivered <= j->requested + g.closing, "task %d: %d requests, delivered %d times", j->serial,
                  j->requested, j->delivered);
    }
    for (int i = 0; i < g.plains; i++) {
        struct plain *p = &g.plain[i];
        check(p->frees + p->taken == (p->winner == VALUE), "the value of a future was neither freed nor taken");
    }
    for (int i = 0; i < g.calls; i++) {
        struct call *c = &g.call[i];
        if (!c->accepted) continue;
        check(c->frees == 1, "the argument of a callback was not freed");
        check(c->ran + c->cancelled <= 1, "a callback ran and was cancelled");
        /* The horizon is reached in punctual time when nobody can run any more. */
        check(c->ran || c->cancelled || !c->must_run || !g.punctual || g.faults || g.early_close,
              "a callback did not run");
    }
    for (int i = 0; i < g.dones; i++)
        if (g.done[i].accepted) check(g.done[i].frees == 1, "the argument of a done callback was not freed");
    for (int i = 0; i < g.values; i++)
        check(!g.value[i].given_up || !g.value[i].received, "a value was given up, and received");
}

/* Values that were sent and not received are still in the channel. */
static void drain(void) {
    for (int c = 0; c < CHANNELS; c++) {
        void *got = NULL;
        while (heist_channel_try_recv(g.channel[c], &got) == 0) {
            struct value *v = got;
            check(v->sent && v->channel == c && ++v->received == 1, "a value stood twice in a channel");
        }
    }
    for (int i = 0; i < g.values; i++) check(!g.value[i].sent || g.value[i].received == 1, "value %d was lost", i);
}

static int program(void *arg) {
    (void)arg;
    static const size_t capacity[CHANNELS] = {0, 1, 3};
    long blocks = heist__alloc_live();
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    o.workers = g.workers;
    o.exception_handler = quiet;
    int err = heist_runtime_new(&o, &g.rt);
    if (err) {
        check(no_room(err), "runtime_new: %s", heist_error_name(err));
        return 0;
    }
    int made = 0;
    while (made < CHANNELS && heist_channel_new(capacity[made], &g.channel[made]) == 0) made++;
    heist_sim_thread *thread[2] = {NULL, NULL};
    static struct actor actor[2];
    if (made == CHANNELS) {
        g.end = heist_time() + HORIZON;
        spawn(&main_actor, 0, NULL, false, true); /* script 0 */
        for (int i = 0; i < g.threads && i + 1 < g.scripts; i++) {
            actor[i] = (struct actor){NULL, JOBS + i + 1, 0};
            if (heist_sim_thread_start(plain_thread, &actor[i], &thread[i])) thread[i] = NULL;
        }
        heist_sim_pause(g.early_close ? 0.004 : HORIZON);
        if (!g.early_close) {
            g.over = true;
            finale();
        }
    }
    g.closing = true;
    err = heist_runtime_close(g.rt, HEIST_FOREVER);
    check(err == 0, "runtime_close: %s", heist_error_name(err));
    g.over = true;
    if (made == CHANNELS) finale();
    for (int i = 0; i < 2; i++)
        if (thread[i]) heist_sim_thread_join(thread[i]);
    for (int i = 0; i < SLOTS; i++) {
        if (heist_future_done(g.slot[i].future) == 1) (void)heist_future_result(g.slot[i].future, NULL); /* no report */
        put(i, (struct slot){NULL, NULL, NULL});
    }
    for (int i = 0; i < HANDLES; i++) put_handle(i, -1);
    for (int i = 0; i < g.plains; i++) heist_unref(g.plain[i].future);
    if (made == CHANNELS) drain();
    for (int i = 0; i < made; i++) heist_channel_unref(g.channel[i]);
    heist_runtime_unref(g.rt);
    judge();
    if (blocks >= 0) {
        long left = heist__alloc_live() - blocks;
        check(left <= 0, "%ld blocks are left over", left);
        check(heist__alloc_live_maps() <= 0, "%ld mappings are left over", heist__alloc_live_maps());
    }
    return 0;
}

int fuzz_run(const uint8_t *data, size_t size, char *message, size_t room) {
    if (!parse(data, size)) return 0;
    heist_sim_options o = HEIST_SIM_OPTIONS_INIT;
    heist_sim_result r = HEIST_SIM_RESULT_INIT;
    o.seed = (uint64_t)data[0] << 8 | data[1];
    o.workers = g.workers;
    o.max_steps = 2000000;
    if (g.punctual) o.flags |= HEIST_SIM_PUNCTUAL;
    if (data[3] & 1) o.fault[HEIST_SIM_FAULT_SPURIOUS].probability = 0.05;
    if (data[3] & 2) o.fault[HEIST_SIM_FAULT_DELAY].probability = 0.1;
    if (data[3] & 4) o.fault[HEIST_SIM_FAULT_INTERRUPT].probability = 0.1;
    if (g.no_memory) o.fault[HEIST_SIM_FAULT_MEMORY].probability = 0.02;
    int err = heist_sim_run(program, NULL, &o, &r);
    if (err) {
        snprintf(message, room, "heist_sim_run: %d", err);
        return -1;
    }
    if (r.outcome == HEIST_SIM_OK) return 0;
    snprintf(message, room, "%s", r.message[0] ? r.message : "failed without a message");
    return 1;
}

#ifdef FUZZ_LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char message[512];
    int failed = fuzz_run(data, size, message, sizeof(message));
    if (failed > 0) {
        fprintf(stderr, "fuzz: %s\n", message);
        abort();
    }
    return 0;
}
#endif
