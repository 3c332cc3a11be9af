/* The simulator; what it does and who may touch what is in sim.h.
 *
 * Its memory comes from calloc and not from base/alloc.h: it is no part of what is
 * simulated, counted or made to fail. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/macros.h"
#include "check/inner.h"

/* What a point costs, and a look of one that spins alone. */
#define POINT_NS 20
#define SPIN_NS 1000
#define NEVER INT64_MAX
/* Points in a row after which a thread gives way as if it span: a loop that waits for another thread without saying
 * so ends on a real machine by the end of its time slice. */
#define SLICE_POINTS 10000
/* Points without a spin after which a thread has left its loop. */
#define CALM_POINTS 8
#define MAX_STEPS_DEFAULT UINT64_C(20000000)

_Atomic(int) heist__sim_on;
struct heist__sim_hooks heist__sim_hooks;
static struct heist__sim *running; /* while heist__sim_on */
static _Thread_local struct heist__sim_thread *mine;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t end_key;
static bool end_key_made;

/* Never inlined, as conc/self.c says. */
HEIST_NOINLINE struct heist__sim_thread *heist__sim_me(void) {
    struct heist__sim_thread *t = mine;
    __asm__ volatile("" : "+r"(t) : : "memory");
    return t;
}

HEIST_NOINLINE int heist__sim_self(void) {
    struct heist__sim_thread *t = heist__sim_me();
    return t ? t->id : -1;
}

uint64_t heist__sim_at(int thread) {
    return thread == HEIST__SIM_NOBODY ? running->start_points : running->thread[thread].points;
}

uint64_t heist__sim_steps(void) { return running->counts.steps; }

uint64_t heist__sim_hash(void) { return running->counts.hash; }

/* ---- the record, the hash, the trace ---- */

static void fold(struct heist__sim *s, uint64_t word) {
    s->counts.hash = (s->counts.hash ^ word) * UINT64_C(0x100000001b3);
}

void heist__sim_note(struct heist__sim *s, int thread, int kind, uint32_t value) {
    uint64_t at = thread == HEIST__SIM_NOBODY ? s->start_points : s->thread[thread].points;
    fold(s, (uint64_t)kind << 40 ^ value);
    struct heist__record *r = s->spec.record;
    if (!r) return;
    if (r->count < r->room) r->list[r->count] = (struct heist__decision){at, (uint8_t)thread, (uint8_t)kind, value};
    r->count++;
}

void heist__sim_trace(struct heist__sim *s, int from, int to, const char *why, const char *file, int line) {
    s->trace[s->traced++ % HEIST__SIM_TRACE] =
        (struct heist__traced){s->counts.steps, s->counts.now_ns, why, file, line, from, to};
}

/* ---- failing ---- */

static HEIST_NORETURN void stand_still(void) {
    struct heist__baton never = {0};
    for (;;) heist__baton_await(&never);
}

static HEIST_NORETURN HEIST_COLD void fail_with(struct heist__sim *s, int outcome, const char *message) {
    s->failed = true;
    struct heist__sim_report *r = s->report;
    r->outcome = outcome;
    snprintf(r->message, sizeof(r->message), "%s", message);
    mine = NULL; /* no points in what follows */
    heist__sim_describe(s, r->text, sizeof(r->text));
    heist__baton_pass(&s->controller);
    stand_still();
}

void heist__sim_snapshot(struct heist__sim_report *r) {
    struct heist__sim *s = running;
    if (!s) return;
    r->counts = s->counts;
    r->counts.now_ns -= HEIST__SIM_START_NS;
    mine = NULL; /* no points in what follows */
    heist__sim_describe(s, r->text, sizeof(r->text));
}

void heist__sim_fail(int outcome, const char *format, ...) {
    char message[256];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    struct heist__sim_thread *t = heist__sim_me();
    if (!t) {
        fprintf(stderr, "heist: a law is broken: %s\n", message);
        abort();
    }
    fail_with(t->sim, outcome, message);
}

/* ---- who can go on ---- */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static bool set_has_events(int epfd) {
    struct pollfd p = {epfd, POLLIN, 0};
    return poll(&p, 1, 0) > 0;
}

static void make_runnable(struct heist__sim *s, struct heist__sim_thread *t) {
    t->state = HEIST__SIM_RUNNABLE;
    t->key = NULL;
    s->quiet = 0; /* a strategy of priorities wants to know */
}

/* Also moves those whose wait is over. */
static bool can_run(struct heist__sim *s, struct heist__sim_thread *t) {
    int64_t now = s->counts.now_ns;
    if (t->state == HEIST__SIM_POLLING && t->polled != s->generation) {
        t->polled = s->generation;
        if (set_has_events(t->epfd)) make_runnable(s, t);
    }
    if ((t->state == HEIST__SIM_WAITING || t->state == HEIST__SIM_POLLING) && t->deadline <= now) {
        t->timed_out = true;
        make_runnable(s, t);
    }
    return t->state == HEIST__SIM_RUNNABLE && t->not_before <= now;
}

static uint64_t able(struct heist__sim *s) {
    uint64_t mask = 0;
    for (int i = 0; i < s->top; i++)
        if (s->thread[i].state != HEIST__SIM_FREE && s->thread[i].state != HEIST__SIM_ENDED &&
            can_run(s, &s->thread[i]))
            mask |= UINT64_C(1) << i;
    return mask;
}

static uint64_t spinning(struct heist__sim *s) {
    if (!s->spinners) return 0;
    uint64_t mask = 0;
    for (int i = 0; i < s->top; i++)
        if (s->thread[i].spinning) mask |= UINT64_C(1) << i;
    return mask;
}

static void stop_spinning(struct heist__sim *s, struct heist__sim_thread *t) {
    if (!t->spinning) return;
    t->spinning = false;
    s->spinners--;
}

/* The earliest instant ahead at which somebody can run. */
static int64_t ahead(struct heist__sim *s) {
    int64_t next = NEVER, now = s->counts.now_ns;
    for (int i = 0; i < s->top; i++) {
        struct heist__sim_thread *t = &s->thread[i];
        if ((t->state == HEIST__SIM_WAITING || t->state == HEIST__SIM_POLLING) && t->deadline > now)
            next = least(next, t->deadline);
        if (t->state == HEIST__SIM_RUNNABLE && t->not_before > now) next = least(next, t->not_before);
    }
    return next;
}

/* Looks at all polls afresh: the program may have done system calls of its own, and the kernel hands over what
 * goes through a TCP socket a little later, sometimes: it is given the longer, the further time would jump. */
static bool polls_have_events(struct heist__sim *s, int64_t to) {
    struct pollfd set[HEIST__SIM_THREADS];
    nfds_t n = 0;
    for (int i = 0; i < s->top; i++)
        if (s->thread[i].state == HEIST__SIM_POLLING) set[n++] = (struct pollfd){s->thread[i].epfd, POLLIN, 0};
    s->generation++;
    int patience_ms = !s->inet ? 0 : to == NEVER || to - s->counts.now_ns > 100000000 ? 100 : 2;
    return n && poll(set, n, patience_ms) > 0;
}

static void jump(struct heist__sim *s, int64_t to) {
    s->counts.now_ns = to;
    s->counts.jumps++;
}

/* The next in the circle of numbers. */
static int after(int id, uint64_t mask) {
    for (int k = 1; k <= HEIST__SIM_THREADS; k++) {
        int i = (id + k) % HEIST__SIM_THREADS;
        if (mask & UINT64_C(1) << i) return i;
    }
    return -1;
}

static HEIST_NORETURN HEIST_COLD void deadlock(struct heist__sim *s) {
    fail_with(s, HEIST__SIM_DEADLOCK, "deadlock: nobody can go on, and no deadline lies ahead");
}

/* Who goes on.  t (NULL: the start) has said what it is: HEIST__SIM_RUNNABLE, waiting or ended. */
static struct heist__sim_thread *decide(struct heist__sim *s, struct heist__sim_thread *t, bool spins) {
    int current = t ? t->id : HEIST__SIM_NOBODY, from = t ? current : HEIST__SIM_THREADS - 1;
    for (bool looked = false;;) {
        uint64_t mask = able(s), calm = mask & ~spinning(s);
        uint64_t own = t ? UINT64_C(1) << current : 0; /* NOLINT: who has the turn has a number */
        bool stays = !spins && mask & own;
        if (stays) calm |= own; /* it may spin, but is in the middle of its look */
        if (spins && calm & ~own) calm &= ~own;
        if (!mask) {
            int64_t next = ahead(s);
            if (!looked && polls_have_events(s, next)) {
                looked = true;
                continue;
            }
            if (next == NEVER) deadlock(s);
            jump(s, next);
            continue;
        }
        uint64_t enabled = calm;
        if (calm) {
            s->lone_spins = 0;
        } else { /* only spinners: round they go, and time with them, ever faster */
            unsigned faster = ++s->lone_spins / 64;
            if (s->lone_spins % 64 == 0 && polls_have_events(s, s->counts.now_ns)) continue;
            s->counts.now_ns += (int64_t)SPIN_NS << (faster < 12 ? faster : 12);
            if (able(s) != mask) continue;
            return &s->thread[after(from, mask)];
        }
        struct heist__choice c = {
            .current = current,
            .stays = stays,
            .spins = spins,
            .may_jump = ahead(s) != NEVER,
            .enabled = enabled,
            .usual = stays ? current : after(from, enabled),
        };
        s->quiet = 0;
        int next = c.usual;
        if (stays || enabled != UINT64_C(1) << c.usual || c.may_jump)
            next = s->spec.strategy->next(s->spec.strategy->self, &c, &s->quiet);
        if (next == HEIST__SIM_JUMP && c.may_jump) {
            heist__sim_note(s, current, HEIST__DECIDE_JUMP, 0);
            jump(s, ahead(s));
            if (t) {
                t->points++;
                heist__sim_trace(s, current, HEIST__SIM_NOBODY, "time jumps", t->file, t->line);
            } else {
                s->start_points++;
            }
            continue;
        }
        if (next < 0 || next >= HEIST__SIM_THREADS || !(enabled & UINT64_C(1) << next))
            fail_with(s, HEIST__SIM_ODD, "the strategy named a thread that cannot run");
        if (next != c.usual) heist__sim_note(s, current, HEIST__DECIDE_NEXT, (uint32_t)next);
        if (stays && next != current) s->counts.preemptions++;
        return &s->thread[next];
    }
}

static void give_turn(struct heist__sim *s, struct heist__sim_thread *from, struct heist__sim_thread *to,
                      const char *why) {
    s->counts.switches++;
    s->slice_end = s->counts.steps + SLICE_POINTS;
    fold(s, (uint64_t)(to->id + 1) << 32);
    heist__sim_trace(s, from ? from->id : HEIST__SIM_NOBODY, to->id, why, from ? from->file : NULL,
                     from ? from->line : 0);
    s->holder = to;
    heist__baton_pass(&to->turn);
}

/* Passes the turn, if another shall have it, and returns when it has come back. */
static void settle(struct heist__sim *s, struct heist__sim_thread *t, bool spins, const char *why) {
    t->deciding = true;
    struct heist__sim_thread *next = decide(s, t, spins);
    t->deciding = false;
    if (next == t) {
        if (spins) s->slice_end = s->counts.steps + SLICE_POINTS;
        return;
    }
    give_turn(s, t, next, why);
    heist__baton_await(&t->turn);
}

static HEIST_NORETURN HEIST_COLD void out_of_steps(struct heist__sim *s) {
    fail_with(s, HEIST__SIM_LIMIT, "more steps than allowed: somebody spins for ever, or the limit is too small");
}

static void count(struct heist__sim *s, struct heist__sim_thread *t, const char *file, int line) {
    t->file = file;
    t->line = line;
    t->points++;
    s->counts.now_ns += POINT_NS;
    fold(s, (uint64_t)t->id << 24 ^ (uint64_t)line);
    if (heist_unlikely(++s->counts.steps >= s->spec.max_steps)) out_of_steps(s);
}

/* In a signal handler of a thread that waits for its turn, or decides: no place for a point. */
static bool out_of_turn(struct heist__sim *s, struct heist__sim_thread *t) { return s->holder != t || t->deciding; }

HEIST_NOINLINE void heist__sim_step(const char *file, int line) {
    struct heist__sim_thread *t = heist__sim_me();
    if (!t) return;
    struct heist__sim *s = t->sim;
    if (heist_unlikely(out_of_turn(s, t))) return;
    count(s, t, file, line);
    if (heist_unlikely(s->spinners)) {
        if (t->calm < CALM_POINTS) {
            t->calm++;
        } else { /* it has moved on: those that looked in vain may find something now */
            for (int i = 0; i < s->top; i++) stop_spinning(s, &s->thread[i]);
        }
    }
    if (heist_unlikely(s->counts.steps >= s->slice_end))
        settle(s, t, true, "has run for long");
    else if (s->quiet)
        s->quiet--;
    else
        settle(s, t, false, "is preempted");
}

HEIST_NOINLINE void heist__sim_spin(const char *file, int line) {
    if (!heist__sim_maybe()) return;
    struct heist__sim_thread *t = heist__sim_me();
    if (!t) return;
    struct heist__sim *s = t->sim;
    if (out_of_turn(s, t)) return;
    count(s, t, file, line);
    t->calm = 0;
    if (!t->spinning) s->spinners++;
    t->spinning = true;
    settle(s, t, true, "spins");
}

/* ---- waiting ---- */

static int wait_as(struct heist__sim *s, struct heist__sim_thread *t, enum heist__sim_state state, int64_t deadline,
                   const char *what) {
    t->points++;
    t->state = state;
    t->deadline = deadline;
    t->timed_out = false;
    t->what = what;
    t->waits_since = s->waits++;
    t->calm = CALM_POINTS;
    stop_spinning(s, t);
    settle(s, t, false, state == HEIST__SIM_POLLING ? "polls" : "waits");
    t->what = NULL;
    t->deadline = NEVER;
    return t->timed_out ? -ETIMEDOUT : 0;
}

HEIST_NOINLINE int heist__sim_wait(const void *key, int64_t deadline_ns, const char *what) {
    struct heist__sim_thread *t = heist__sim_me();
    struct heist__sim *s = t->sim;
    if (heist__sim_fault(t, HEIST__FAULT_SPURIOUS, 1)) return 0;
    t->key = key;
    return wait_as(s, t, HEIST__SIM_WAITING, deadline_ns, what);
}

HEIST_NOINLINE void heist__sim_wake(const void *key, int wakes) {
    if (!heist__sim_maybe()) return;
    struct heist__sim_thread *t = heist__sim_me();
    if (!t) return;
    struct heist__sim *s = t->sim;
    while (wakes-- > 0) {
        struct heist__sim_thread *first = NULL;
        for (int i = 0; i < s->top; i++) {
            struct heist__sim_thread *w = &s->thread[i];
            if (w->state == HEIST__SIM_WAITING && w->key == key && (!first || w->waits_since < first->waits_since))
                first = w;
        }
        if (!first) return;
        make_runnable(s, first);
        uint32_t late = heist__sim_fault(t, HEIST__FAULT_DELAY, 2000);
        first->not_before = late ? s->counts.now_ns + (int64_t)late * 1000 : 0;
    }
}

HEIST_NOINLINE int heist__sim_poll(int epfd, int64_t deadline_ns) {
    struct heist__sim_thread *t = heist__sim_me();
    struct heist__sim *s = t->sim;
    if (heist__sim_fault(t, HEIST__FAULT_INTERRUPT, 1)) return -EINTR;
    t->epfd = epfd;
    t->polled = s->generation;
    uint32_t late = heist__sim_fault(t, HEIST__FAULT_DELAY, 2000);
    int rc = wait_as(s, t, HEIST__SIM_POLLING, deadline_ns, "a descriptor or a wake-up");
    if (late) { /* it has got up, but is slow */
        t->not_before = s->counts.now_ns + (int64_t)late * 1000;
        settle(s, t, false, "is late");
        t->not_before = 0;
    }
    return rc;
}

int64_t heist__sim_now(void) {
    struct heist__sim_thread *t = heist__sim_me();
    return t ? t->sim->counts.now_ns : 0;
}

int heist__sim_cpus(void) {
    struct heist__sim_thread *t = heist__sim_maybe() ? heist__sim_me() : NULL;
    return t ? t->sim->spec.cpus : 0;
}

HEIST_NOINLINE unsigned heist__sim_choose(unsigned n) {
    struct heist__sim_thread *t = heist__sim_maybe() ? heist__sim_me() : NULL;
    if (!t || n < 2) return 0;
    struct heist__sim *s = t->sim;
    t->points++;
    unsigned value = s->spec.strategy->choose(s->spec.strategy->self, n);
    if (value >= n) value = 0;
    if (value) heist__sim_note(s, t->id, HEIST__DECIDE_CHOICE, value);
    return value;
}

void heist__sim_locked(const void *mutex) {
    if (heist__sim_hooks.acquired) heist__sim_hooks.acquired(heist__sim_me()->id, mutex);
}

void heist__sim_unlocking(const void *mutex) {
    if (heist__sim_hooks.released) heist__sim_hooks.released(heist__sim_me()->id, mutex);
}

/* ---- threads ---- */

static void thread_ended(struct heist__sim_thread *t) {
    struct heist__sim *s = t->sim;
    t->points++;
    t->state = HEIST__SIM_ENDED;
    t->joined = false;
    stop_spinning(s, t);
    heist__sim_wake(t, INT32_MAX);
    mine = NULL;
    if (--s->live == 0) {
        heist__baton_pass(&s->controller);
        return;
    }
    give_turn(s, t, decide(s, t, false), "ends");
}

/* The last of the destructors of a thread's own variables: those of the library take locks and free memory, and
 * belong to the simulation.  glibc calls up to four rounds; ours waits for the third. */
static void on_exit_key(void *arg) {
    struct heist__sim_thread *t = arg;
    if (++t->rounds < 3 && pthread_setspecific(end_key, t) == 0) return;
    thread_ended(t);
}

static void make_key(void) { end_key_made = pthread_key_create(&end_key, on_exit_key) == 0; }

static void *made_main(void *arg) {
    struct heist__sim_thread *t = arg;
    heist__baton_await(&t->turn);
    mine = t;
    pthread_setspecific(end_key, t);
    if (!t->start) {
        t->body(t->arg);
        return NULL;
    }
    return t->start(t->arg);
}

/* One that is kept for the next run. */
static void *kept_main(void *arg) {
    struct heist__sim_thread *t = arg;
    for (;;) {
        heist__baton_await(&t->turn);
        if (t->quit) return NULL;
        mine = t;
        t->body(t->arg);
        thread_ended(t);
    }
}

static struct heist__sim_thread *free_thread(struct heist__sim *s) {
    for (int i = 0; i < HEIST__SIM_THREADS; i++)
        if (s->thread[i].state == HEIST__SIM_FREE ||
            (s->thread[i].state == HEIST__SIM_ENDED && s->thread[i].joined && !s->thread[i].kept))
            return &s->thread[i];
    for (int i = 0; i < HEIST__SIM_THREADS; i++) /* ended, and detached or never joined */
        if (s->thread[i].state == HEIST__SIM_ENDED && !s->thread[i].kept) return &s->thread[i];
    return NULL;
}

static void born(struct heist__sim *s, struct heist__sim_thread *t) {
    t->state = HEIST__SIM_RUNNABLE;
    t->joined = t->spinning = t->timed_out = false;
    t->calm = CALM_POINTS;
    t->key = NULL;
    t->deadline = NEVER;
    t->not_before = 0;
    t->what = t->file = NULL;
    t->line = 0;
    t->rounds = 0;
    s->live++;
    s->quiet = 0;
    if (t->id >= s->top) s->top = t->id + 1;
}

int heist__sim_thread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *arg) {
    struct heist__sim_thread *parent = heist__sim_me();
    struct heist__sim *s = parent->sim;
    struct heist__sim_thread *t = free_thread(s);
    if (!t) return -EAGAIN;
    t->start = start;
    t->arg = arg;
    int err = pthread_create(&t->pthread, attributes, made_main, t);
    if (err) return -err;
    born(s, t);
    *thread = t->pthread;
    if (heist__sim_hooks.spawned) heist__sim_hooks.spawned(parent->id, t->id);
    return 0;
}

int heist__sim_thread_join(pthread_t thread, void **result) {
    struct heist__sim_thread *self = heist__sim_me();
    struct heist__sim *s = self->sim;
    heist__sim_step("join", 0);
    for (int i = 0; i < HEIST__SIM_THREADS; i++) {
        struct heist__sim_thread *t = &s->thread[i];
        if (t->state == HEIST__SIM_FREE || (t->state == HEIST__SIM_ENDED && t->joined) ||
            !pthread_equal(t->pthread, thread))
            continue;
        while (t->state != HEIST__SIM_ENDED) heist__sim_wait(t, NEVER, "the end of a thread");
        t->joined = true;
        if (heist__sim_hooks.joined) heist__sim_hooks.joined(self->id, t->id);
        break;
    }
    return -pthread_join(thread, result);
}

/* ---- the controller ---- */

struct heist__sim *heist__sim_open(bool keep) {
    pthread_once(&key_once, make_key);
    if (!end_key_made) return NULL;
    struct heist__sim *s = calloc(1, sizeof(*s));
    if (!s) return NULL;
    s->keep = keep;
    s->registered = calloc(HEIST__SIM_FDS, sizeof(*s->registered));
    if (!s->registered) {
        free(s);
        return NULL;
    }
    for (int i = 0; i < HEIST__SIM_THREADS; i++) {
        s->thread[i].sim = s;
        s->thread[i].id = i;
    }
    return s;
}

void heist__sim_close(struct heist__sim *s) {
    if (!s || s->failed) return; /* threads stand in it */
    for (int i = 0; i < s->kept; i++) {
        s->thread[i].quit = true;
        heist__baton_pass(&s->thread[i].turn);
        pthread_join(s->thread[i].pthread, NULL);
    }
    free(s->registered);
    free(s);
}

static int start_threads(struct heist__sim *s) {
    for (int i = 0; i < s->spec.threads; i++) {
        struct heist__sim_thread *t = &s->thread[i];
        t->body = s->spec.thread[i].body;
        t->arg = s->spec.thread[i].arg;
        t->start = NULL;
        if (i < s->kept) continue;
        t->kept = s->keep;
        int err = pthread_create(&t->pthread, NULL, s->keep ? kept_main : made_main, t);
        if (err) return -err; /* those that were made wait for ever, and cost a stack each */
        if (s->keep) s->kept = i + 1;
    }
    return 0;
}

int heist__sim_run(struct heist__sim *s, const struct heist__sim_spec *spec, struct heist__sim_report *report) {
    if (running || s->failed) return -EBUSY;
    s->spec = *spec;
    if (!s->spec.cpus) s->spec.cpus = 2;
    if (!s->spec.max_steps) s->spec.max_steps = MAX_STEPS_DEFAULT;
    memset(&s->counts, 0, sizeof(s->counts));
    s->counts.now_ns = HEIST__SIM_START_NS;
    s->counts.hash = UINT64_C(0xcbf29ce484222325);
    s->report = report;
    report->outcome = HEIST__SIM_OK;
    report->message[0] = report->text[0] = 0;
    s->live = s->spinners = s->top = 0;
    s->lone_spins = 0;
    s->slice_end = SLICE_POINTS;
    s->quiet = s->generation = s->start_points = s->waits = s->traced = 0;
    s->inet = false;
    for (int i = 0; i < HEIST__SIM_FDS; i++) s->registered[i].epfd = -1;
    for (int i = 0; i < HEIST__SIM_THREADS; i++) {
        s->thread[i].points = 0;
        s->thread[i].state = HEIST__SIM_FREE;
    }

    /* All on one processor: to pass the turn there costs a third of what it costs across two. */
    cpu_set_t before, one;
    CPU_ZERO(&one);
    int cpu = sched_getcpu();
    bool pinned = cpu >= 0 && sched_getaffinity(0, sizeof(before), &before) == 0;
    if (pinned) {
        CPU_SET(cpu, &one);
        pinned = sched_setaffinity(0, sizeof(one), &one) == 0;
    }
    int err = start_threads(s);
    if (!err) {
        running = s;
        heist__sim_on = 1;
        for (int i = 0; i < s->spec.threads; i++) born(s, &s->thread[i]);
        if (heist__sim_hooks.begin) heist__sim_hooks.begin(s->spec.threads);
        give_turn(s, NULL, decide(s, NULL, false), "starts");
        heist__baton_await(&s->controller);
        heist__sim_on = 0;
        running = NULL;
        if (!s->failed) {
            if (heist__sim_hooks.end) heist__sim_hooks.end();
            if (!s->keep)
                for (int i = 0; i < s->spec.threads; i++) pthread_join(s->thread[i].pthread, NULL);
        }
        report->counts = s->counts;
        report->counts.now_ns -= HEIST__SIM_START_NS;
    }
    if (pinned) sched_setaffinity(0, sizeof(before), &before);
    return err;
}
