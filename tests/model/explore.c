/* Who goes on: depth first through all decisions, on one thread of the system.
 *
 * The threads of a case are stacks that switch at points; a decision is a number below a
 * bound, and the decisions of an execution determine it.  The next execution repeats them
 * up to the last one that has another outcome left.  Each outcome but the first of a
 * decision at a point costs a preemption (Musuvathi and Qadeer, "Iterative context
 * bounding", 2007); whom to run when the running thread cannot go on is free.
 *
 * Points are only steps on objects that threads contend for: a switch in front of a step
 * that no other thread can tell is the same as one in front of the next step that one can.
 * Which objects they are is found on the way; the search starts anew whenever there is a
 * new one, so that the last pass, the one that is counted, knew them all.
 *
 * What the library keeps per thread of the system is exchanged with the stacks: the
 * program's whole block of thread-local variables. */
#include <errno.h>
#include <inttypes.h>
#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "arch/ctx.h"
#include "conc/parker.h"
#include "conc/self.h"
#include "model/inside.h"

#define STACK_BYTES ((size_t)256 << 10)
#define TLS_MAX 4096
#define DECISIONS_MAX 65536
#define POINTS_MAX 20000

bool model_active;
int model_self = -1;
unsigned model_stale_left;
bool model_blind;
int64_t model_clock_ns;

/* The system's own. */
void *__real_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
int __real_clock_gettime(clockid_t clock, struct timespec *out);

enum state { UNUSED, READY, BLOCKED, DONE };

struct fiber {
    enum state state;
    bool yielded, timed_out;
    bool (*ready)(void *arg);
    void *ready_arg;
    int64_t deadline_ns;
    const char *what;
    void *(*start)(void *arg);
    void (*plain_start)(void);
    void *arg;
    void *sp;
    char *stack;
    char tls[TLS_MAX];
};
static struct fiber fibers[MODEL_THREADS];
static int fiber_count;
static void *main_sp;
static char main_tls[TLS_MAX], fresh_tls[TLS_MAX];
char *model_tls;
size_t model_tls_bytes;

/* ---- decisions ---- */

struct decision {
    unsigned chosen, of;
};
static struct decision decisions[DECISIONS_MAX];
static unsigned decided, recorded;
static unsigned preemptions_left, points;
static bool quiet; /* no points: what comes is of no interest */
static uint64_t executions, all_points;
static const struct model_case *the_case;
static struct model_bounds the_bounds;

unsigned model_decide(unsigned n) {
    if (n < 2) return 0;
    if (decided == DECISIONS_MAX) model_fail("too many decisions in one execution");
    struct decision *d = &decisions[decided];
    if (decided == recorded) {
        *d = (struct decision){0, n};
        recorded++;
    } else if (d->of != n) {
        model_fail("the case is not deterministic: decision %u had %u outcomes and has %u", decided, d->of, n);
    }
    decided++;
    return d->chosen;
}

unsigned model_choose(unsigned n) { return model_self < 0 ? 0 : model_decide(n); }

/* To the next execution: false when all have been. */
static bool next_decisions(void) {
    while (recorded && decisions[recorded - 1].chosen + 1 == decisions[recorded - 1].of) recorded--;
    if (!recorded) return false;
    decisions[recorded - 1].chosen++;
    return true;
}

/* ---- what happened ---- */

struct event {
    const char *name;
    uint64_t a, b;
    int8_t self, kind, order;
    bool stale;
};
#define EVENTS 4096
static struct event events[EVENTS];
static unsigned event_count;

void model_trace(const char *name, int kind, int order, uint64_t a, uint64_t b, bool stale) {
    events[event_count++ % EVENTS] = (struct event){name, a, b, (int8_t)model_self, (int8_t)kind, (int8_t)order, stale};
}

static void print_trace(void) {
    static const char *const orders[] = {"rlx", "acq", "rel", "ar", "sc"};
    unsigned from = event_count > 150 ? event_count - 150 : 0;
    if (event_count > from + EVENTS) from = event_count - EVENTS;
    fprintf(stderr, "the execution%s:\n", from ? " (its end)" : "");
    for (unsigned i = from; i < event_count; i++) {
        const struct event *e = &events[i % EVENTS];
        const char *name = strstr(e->name, "src/");
        fprintf(stderr, "  %*sT%d %s ", e->self * 4, "", e->self, name ? name + 4 : e->name);
        switch (e->kind) {
            case MODEL_LOAD: fprintf(stderr, "load %s = %" PRIx64, orders[e->order], e->a); break;
            case MODEL_STORE: fprintf(stderr, "store %s %" PRIx64, orders[e->order], e->a); break;
            case MODEL_RMW: fprintf(stderr, "rmw %s %" PRIx64 " -> %" PRIx64, orders[e->order], e->a, e->b); break;
            case MODEL_CAS: fprintf(stderr, "cas %s %" PRIx64 " -> %" PRIx64, orders[e->order], e->a, e->b); break;
            case MODEL_CAS_FAILED: fprintf(stderr, "cas %s failed, found %" PRIx64, orders[e->order], e->a); break;
            case MODEL_FENCE: fprintf(stderr, "fence"); break;
            default: fprintf(stderr, "(%" PRIx64 ")", e->a);
        }
        fprintf(stderr, "%s\n", e->stale ? "  STALE" : "");
    }
    fprintf(stderr, "the decisions:");
    for (unsigned i = 0; i < decided; i++)
        if (decisions[i].chosen) fprintf(stderr, " %u:%u", i, decisions[i].chosen);
    fprintf(stderr, "\n");
}

static _Noreturn void failed(const char *text) {
    fflush(stdout);
    fprintf(stderr, "FAILED %s, execution %" PRIu64 ", %s%d: %s\n", the_case ? the_case->name : "?", executions + 1,
            model_self < 0 ? "setup or check " : "T", model_self, text);
    print_trace();
    /* Places of plain accesses are addresses: the program is linked to fixed ones. */
    const char *at = strstr(text, " at 0x");
    if (at && getenv("HEIST_MODEL_LINES")) {
        char command[256], path[200];
        ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
        path[n > 0 ? n : 0] = 0;
        for (; at; at = strstr(at + 1, " at 0x")) {
            snprintf(command, sizeof(command), "addr2line -fsp -e '%s' %.18s >&2", path, at + 4);
            if (system(command)) break;
        }
    }
    _exit(1);
}

void model_fail(const char *format, ...) {
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    failed(text);
}

static void on_signal(int number) {
    failed(number == SIGABRT ? "aborted: an assertion of the library" : "a fault: it used memory that is none of its");
}

/* Each second of processor time: an execution must not last so long. */
static void on_timer(int number) {
    (void)number;
    static uint64_t last = UINT64_MAX;
    if (last == executions) failed("it runs in a circle");
    last = executions;
}

/* ---- fairness ----
 *
 * Threads that spin on what a third one holds could take turns for ever.  Each yield gives
 * those that could have run all the time since the yield before, and did not, precedence
 * over the one that yields, until they have run (Musuvathi and Qadeer, "Fair stateless
 * model checking", 2008). */

static unsigned before[MODEL_THREADS]; /* who goes before this one, while they can go */
static unsigned could[MODEL_THREADS];  /* enabled ever since its last yield */
static unsigned ran[MODEL_THREADS];    /* scheduled since its last yield */

static unsigned enabled_set(void);

static void fair_begin(void) {
    for (int i = 0; i < MODEL_THREADS; i++) {
        before[i] = could[i] = 0;
        ran[i] = ~0u;
    }
}

static void fair_scheduled(int who) {
    unsigned now = enabled_set();
    for (int i = 0; i < fiber_count; i++) {
        before[i] &= ~(1u << who);
        ran[i] |= 1u << who;
        could[i] &= now;
    }
}

static void fair_yield(int who) {
    unsigned now = enabled_set();
    before[who] |= could[who] & now & ~ran[who] & ~(1u << who);
    could[who] = now;
    ran[who] = 0;
}

/* ---- switching ---- */

static void switch_to(int next) {
    int from = model_self;
    if (next == from) return;
    memcpy(from < 0 ? main_tls : fibers[from].tls, model_tls, model_tls_bytes);
    memcpy(model_tls, next < 0 ? main_tls : fibers[next].tls, model_tls_bytes);
    model_self = next;
    if (next >= 0) fair_scheduled(next);
    int kept = errno;
    heist__ctx_switch(from < 0 ? &main_sp : &fibers[from].sp, next < 0 ? main_sp : fibers[next].sp, NULL);
    errno = kept;
}

/* Asked by whoever runs, on behalf of the one that waits: no access of anybody's. */
static bool asks(bool (*ready)(void *arg), void *arg) {
    model_blind = true;
    bool answer = ready && ready(arg);
    model_blind = false;
    return answer;
}

static bool enabled(const struct fiber *f) {
    return f->state == READY || (f->state == BLOCKED && asks(f->ready, f->ready_arg));
}

static unsigned enabled_set(void) {
    unsigned set = 0;
    for (int i = 0; i < fiber_count; i++)
        if (enabled(&fibers[i])) set |= 1u << i;
    return set;
}

/* Who waits with the earliest deadline; -1: nobody. */
static int first_deadline(void) {
    int first = -1;
    for (int i = 0; i < fiber_count && !the_case->no_time; i++)
        if (fibers[i].state == BLOCKED && fibers[i].deadline_ns != INT64_MAX &&
            (first < 0 || fibers[i].deadline_ns < fibers[first].deadline_ns))
            first = i;
    return first;
}

static void let_time_pass(int to) {
    if (fibers[to].deadline_ns > model_clock_ns) model_clock_ns = fibers[to].deadline_ns;
    model_progress();
}

static _Noreturn void nobody_can_go_on(void) {
    char text[400];
    int n = snprintf(text, sizeof(text), "nobody can go on:");
    for (int i = 0; i < fiber_count; i++)
        if (fibers[i].state == BLOCKED)
            n += snprintf(text + n, sizeof(text) - (size_t)n, " T%d waits for %s.", i, fibers[i].what);
    failed(text);
}

/* The others, from the next one on, that may run now. */
static unsigned others(int *list, bool yielded_too) {
    unsigned n = 0, now = enabled_set();
    for (int k = 1; k <= fiber_count; k++) {
        int i = (model_self + k) % fiber_count;
        if (i == model_self || !(now & 1u << i) || before[i] & now) continue;
        if (yielded_too || !fibers[i].yielded) list[n++] = i;
    }
    return n;
}

void model_point(void) {
    if (model_self < 0) return;
    if (++points > POINTS_MAX) failed("it gets nowhere: too many steps");
    if (!preemptions_left || quiet) return;
    int list[MODEL_THREADS];
    unsigned n = others(list, false);
    int timed = first_deadline();
    bool time_may_pass = timed >= 0 && timed != model_self && !enabled(&fibers[timed]);
    unsigned chosen = model_decide(1 + n + time_may_pass);
    if (!chosen) return;
    preemptions_left--;
    if (chosen <= n) {
        switch_to(list[chosen - 1]);
    } else {
        let_time_pass(timed);
        switch_to(timed);
    }
}

/* The running thread does not go on now. */
static void leave(bool may_stay) {
    int list[MODEL_THREADS];
    unsigned n = others(list, false);
    if (n) {
        switch_to(list[model_decide(n)]);
        return;
    }
    int timed = first_deadline();
    if (timed >= 0) {
        let_time_pass(timed);
        if (timed != model_self) switch_to(timed);
        return;
    }
    for (int i = 0; i < fiber_count; i++) fibers[i].yielded = false;
    n = others(list, true);
    if (n) {
        switch_to(list[0]);
        return;
    }
    if (may_stay) return;
    bool all_done = true;
    for (int i = 0; i < fiber_count; i++) all_done &= fibers[i].state == DONE;
    if (!all_done) nobody_can_go_on();
    switch_to(-1);
}

void model_yield(void) {
    if (model_self < 0) return;
    if (++points > POINTS_MAX) failed("it gets nowhere: somebody spins for ever");
    fibers[model_self].yielded = true;
    fair_yield(model_self);
    leave(true);
    fibers[model_self].yielded = false;
}

void model_progress(void) {
    for (int i = 0; i < fiber_count; i++)
        if (i != model_self) fibers[i].yielded = false;
}

bool model_block(bool (*ready)(void *arg), void *arg, int64_t deadline_ns, const char *what) {
    struct fiber *f = &fibers[model_self];
    for (;;) {
        if (asks(ready, arg)) return true;
        if (deadline_ns <= model_clock_ns) return false;
        if (++points > POINTS_MAX) failed("it gets nowhere: too many steps");
        f->state = BLOCKED;
        f->ready = ready;
        f->ready_arg = arg;
        f->deadline_ns = deadline_ns;
        f->what = what;
        leave(false);
        f->state = READY;
    }
}

void model_wait(bool (*ready)(void *arg), void *arg, const char *what) {
    if (model_self < 0) {
        if (!ready(arg)) failed("setup or check would wait for ever");
        return;
    }
    model_block(ready, arg, INT64_MAX, what);
}

int64_t model_now_ns(void) { return model_clock_ns; }

bool model_ended(void *thread_number) { return fibers[(intptr_t)thread_number].state == DONE; }

/* ---- threads ---- */

static void fiber_main(void *payload) {
    (void)payload;
    struct fiber *f = &fibers[model_self];
    /* Not part of the case: the first wait of a thread goes to the pool of parkers. */
    quiet = true;
    heist__parker_get();
    quiet = false;
    if (f->plain_start) f->plain_start();
    else f->start(f->arg);
    f->state = DONE;
    model_progress();
    leave(false);
    __builtin_unreachable();
}

static int fiber_new(void (*plain_start)(void), void *(*start)(void *), void *arg) {
    if (fiber_count == MODEL_THREADS) failed("too many threads");
    struct fiber *f = &fibers[fiber_count];
    if (!f->stack) {
        f->stack = __real_mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (f->stack == MAP_FAILED || mprotect(f->stack, 4096, PROT_NONE)) failed("no memory for a stack");
    }
    f->state = READY;
    f->yielded = false;
    f->deadline_ns = INT64_MAX;
    f->plain_start = plain_start;
    f->start = start;
    f->arg = arg;
    memcpy(f->tls, fresh_tls, model_tls_bytes);
    f->sp = heist__ctx_init(f->stack + STACK_BYTES - 64, fiber_main);
    return fiber_count++;
}

int model_spawn(void *(*start)(void *), void *arg) {
    int parent = model_self, child = fiber_new(NULL, start, arg);
    memory_started(child, parent);
    return child;
}

/* What a thread's end does for it. */
static void clean_up(void) {
    struct heist__self *self = heist__self();
    if (self->registered && heist__self_cleanup) {
        self->registered = false;
        heist__self_cleanup(self);
    }
    heist__parker_pool_release();
}

/* ---- an execution ---- */

static void execute(void) {
    decided = points = event_count = 0;
    preemptions_left = the_bounds.preemptions;
    model_stale_left = the_bounds.stale;
    model_clock_ns = INT64_C(1000000000);
    fiber_count = 0;
    fair_begin();
    model_active = true;
    world_begin();
    memory_begin();
    if (the_case->setup) the_case->setup();
    for (int i = 0; i < 4 && the_case->thread[i]; i++) memory_started(fiber_new(the_case->thread[i], NULL, NULL), -1);
    int list[MODEL_THREADS];
    unsigned n = others(list, false); /* from the main context: the order is 0, 1, … */
    switch_to(list[model_decide(n)]);
    all_points += points;
    if (the_case->check) the_case->check();
    for (int i = 0; i < fiber_count; i++) {
        memcpy(main_tls, model_tls, model_tls_bytes);
        memcpy(model_tls, fibers[i].tls, model_tls_bytes);
        clean_up();
        memcpy(model_tls, main_tls, model_tls_bytes);
    }
    clean_up();
    world_end();
    model_active = false;
}

static double seconds_now(void) {
    struct timespec ts;
    __real_clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void explore(const struct model_case *c, struct model_bounds bounds) {
    double start = seconds_now();
    the_case = c;
    the_bounds = bounds;
    memory_forget();
    unsigned passes = 1;
    recorded = 0;
    executions = all_points = 0;
    bool more = true;
    while (more) {
        execute();
        executions++;
        if (memory_new_contended) {
            memory_new_contended = 0;
            recorded = 0;
            executions = all_points = 0;
            if (++passes > 10000) failed("addresses differ from execution to execution");
            continue;
        }
        more = next_decisions();
    }
    printf("%-44s %11u %6u %11" PRIu64 " %7.1f %7.2f\n", c->name, bounds.preemptions, bounds.stale, executions,
           (double)all_points / (double)executions, seconds_now() - start);
    fflush(stdout);
}

/* ---- the program ---- */

static int find_tls(struct dl_phdr_info *info, size_t size, void *arg) {
    (void)size, (void)arg;
    if (info->dlpi_name[0]) return 0; /* the program itself has no name */
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_TLS) {
            model_tls = info->dlpi_tls_data;
            model_tls_bytes = info->dlpi_phdr[i].p_memsz;
        }
    return 1;
}

static void install(void) {
    dl_iterate_phdr(find_tls, NULL);
    if (!model_tls || model_tls_bytes > TLS_MAX) failed("the thread-local variables are not found");
    memcpy(fresh_tls, model_tls, model_tls_bytes);
    static char signal_stack[64 << 10];
    sigaltstack(&(stack_t){.ss_sp = signal_stack, .ss_size = sizeof(signal_stack)}, NULL);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    for (size_t i = 0; i < sizeof(fatal) / sizeof(fatal[0]); i++) sigaction(fatal[i], &action, NULL);
    action.sa_handler = on_timer;
    sigaction(SIGVTALRM, &action, NULL);
    struct itimerval second = {{2, 0}, {2, 0}};
    setitimer(ITIMER_VIRTUAL, &second, NULL);
    world_install();
}

static bool wanted(int argc, char **argv, const char *name) {
    bool any = false;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-') continue;
        any = true;
        if (strstr(name, argv[i])) return true;
    }
    return !any;
}

int model_main(int argc, char **argv, const struct model_case *cases, size_t count) {
    bool deep = getenv("HEIST_MODEL_DEEP") != NULL;
    int preemptions = -1, stale = -1;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--deep")) deep = true;
        if (!strncmp(argv[i], "--preemptions=", 14)) preemptions = atoi(argv[i] + 14);
        if (!strncmp(argv[i], "--stale=", 8)) stale = atoi(argv[i] + 8);
    }
    install();
    printf("%-44s %11s %6s %11s %7s %7s\n", "case", "preemptions", "stale", "executions", "points", "seconds");
    for (size_t i = 0; i < count; i++) {
        if (!wanted(argc, argv, cases[i].name)) continue;
        struct model_bounds bounds = deep ? cases[i].deep : cases[i].shallow;
        if (preemptions >= 0) bounds.preemptions = (unsigned)preemptions;
        if (stale >= 0) bounds.stale = (unsigned)stale;
        explore(&cases[i], bounds);
    }
    return 0;
}
