/* Many seeds, each in a child process; then the fewest decisions that still fail.
 *
 * The child writes its record and its report into memory shared with the parent, so that
 * they are there whatever becomes of it.  Shrinking takes out decisions, half of them,
 * then quarters, down to single ones, as long as the run still fails in the same way
 * (the idea is delta debugging; Zeller and Hildebrandt, IEEE TSE 2002); what a shorter run
 * recorded itself takes the place of what it was given, for items that had no effect are
 * not recorded. */
#include <errno.h>
#include <fcntl.h>
#include <heist/testing.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fork.h"
#include "base/macros.h"
#include "check/run.h"

#define RECORD_ROOM (1u << 20)
#define SEEDS_DEFAULT 1000
#define RUN_SECONDS_DEFAULT 60
#define SHRINK_RUNS_DEFAULT 1000
#define SHRINK_SECONDS 60 /* in all: a smaller plan is a comfort */

struct shared {
    volatile int done; /* the child has written run */
    int err;
    struct heist__run run;
};

/* Behind it in the mapping. */
static struct heist__record *record_of(struct shared *m) { return (struct heist__record *)(void *)(m + 1); }

struct search {
    heist_sim_body body;
    void *arg;
    const heist_sim_options *o;
    struct shared *shared;
    heist_sim_result *result;
};

static double seconds_now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* True when the child has ended within the time; else it is killed. */
static bool await_child(pid_t pid, double seconds, int *status) {
    double end = seconds_now() + seconds;
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd >= 0) {
        struct pollfd p = {fd, POLLIN, 0};
        double left = seconds;
        while (left > 0 && poll(&p, 1, (int)(left * 1000) + 1) <= 0) left = end - seconds_now();
        close(fd);
    } else { /* before Linux 5.3 */
        const struct timespec moment = {0, 1000000};
        siginfo_t info = {0};
        while (seconds_now() < end && waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && !info.si_pid)
            nanosleep(&moment, NULL);
    }
    pid_t got = waitpid(pid, status, WNOHANG);
    if (got == pid) return true;
    kill(pid, SIGKILL);
    while (waitpid(pid, status, 0) < 0 && errno == EINTR) continue;
    return false;
}

/* A crash: what stood where goes to the parent, then the signal does what it does. */
static struct shared *crash_report;
static void on_crash(int number) {
    heist__sim_snapshot(&crash_report->run.report);
    signal(number, SIG_DFL);
    raise(number);
}

static HEIST_NORETURN void child(struct search *s, uint64_t seed, const struct heist__plan *plan, bool silent) {
    heist__fork_adopt();
    int null = silent ? open("/dev/null", O_WRONLY | O_CLOEXEC) : -1;
    if (null >= 0) {
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        close(null);
    }
    struct shared *m = crash_report = s->shared;
    static const int crashes[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    for (size_t i = 0; i < HEIST_ARRAY_LEN(crashes); i++) signal(crashes[i], on_crash);
    m->err = plan ? heist__run_body(s->body, s->arg, s->o, &plan->strategy, record_of(m), &m->run)
                  : heist__run_seed(s->body, s->arg, s->o, seed, record_of(m), &m->run);
    fflush(NULL);
    m->done = 1;
    _exit(0);
}

/* One run in a child: of the seed, or of the plan.  0 or a negative code; the outcome is in shared->run. */
static int run_child(struct search *s, uint64_t seed, const struct heist__plan *plan, bool silent) {
    struct shared *m = s->shared;
    m->done = 0;
    m->err = 0;
    record_of(m)->count = 0;
    record_of(m)->room = RECORD_ROOM;
    memset(&m->run, 0, sizeof(m->run));
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) return -errno;
    if (pid == 0) child(s, seed, plan, silent);
    int status = 0;
    bool ended = await_child(pid, s->o->run_seconds > 0 ? s->o->run_seconds : RUN_SECONDS_DEFAULT, &status);
    if (m->done) return m->err;
    struct heist__sim_report *r = &m->run.report;
    r->outcome = ended ? HEIST_SIM_CRASHED : HEIST_SIM_HUNG;
    if (!ended) {
        snprintf(r->message, sizeof(r->message), "no end within the time: a thread blocks in the kernel, or computes");
    } else if (WIFSIGNALED(status)) {
        m->run.code = WTERMSIG(status);
        snprintf(r->message, sizeof(r->message), "killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    } else {
        m->run.code = WEXITSTATUS(status);
        snprintf(r->message, sizeof(r->message), "the process ended with status %d in the middle of the run",
                 m->run.code);
    }
    return 0;
}

/* ---- shrinking ---- */

struct items {
    struct heist__decision *list;
    size_t count;
};

/* Does the plan of these items fail in the same way?  Then *kept becomes what the run recorded. */
static int still_fails(struct search *s, const struct heist__decision *list, size_t count, int outcome,
                       struct items *kept) {
    struct heist__plan plan;
    int err = heist__plan_of_record(&plan, list, count);
    if (err) return err;
    err = run_child(s, 0, &plan, true);
    heist__plan_free(&plan);
    s->result->shrinking++;
    if (err) return err;
    const struct heist__record *r = record_of(s->shared);
    if (s->shared->run.report.outcome != outcome || r->count > r->room) return 0;
    if (r->count <= count) {
        memcpy(kept->list, r->list, r->count * sizeof(*r->list));
        kept->count = r->count;
    } else {
        memmove(kept->list, list, count * sizeof(*list));
        kept->count = count;
    }
    return 1;
}

static int shrink(struct search *s, int outcome, struct items *items) {
    uint64_t limit = s->o->shrink_runs ? s->o->shrink_runs : SHRINK_RUNS_DEFAULT;
    double end = seconds_now() + SHRINK_SECONDS;
    struct heist__decision *part = calloc(items->count + 1, sizeof(*part));
    if (!part) return -ENOMEM;
    int rc = 0;
    for (size_t size = items->count; size && rc >= 0;) {
        bool smaller = false;
        for (size_t from = 0; from < items->count && rc >= 0;) {
            if (s->result->shrinking >= limit || seconds_now() > end) goto out;
            size_t gone = size < items->count - from ? size : items->count - from, rest = items->count - gone;
            memcpy(part, items->list, from * sizeof(*part));
            memcpy(part + from, items->list + from + gone, (rest - from) * sizeof(*part));
            rc = still_fails(s, part, rest, outcome, items);
            if (rc > 0)
                smaller = true; /* the same place again: other items stand there now */
            else
                from += size;
        }
        if (size > items->count) size = items->count;
        if (size == 1 && !smaller) break;
        size = size > 1 ? (size + 1) / 2 : items->count ? 1 : 0;
    }
out:
    free(part);
    return rc < 0 ? rc : 0;
}

/* Taking out one item at a time stops where two belong together, as a detour and the way back from it.  So each
 * item is tried alone, and each pair, with any thread to go on. */
#define RETARGET_ITEMS 8
#define RETARGET_THREADS 8

static int retarget(struct search *s, int outcome, struct items *items) {
    uint64_t limit = s->o->shrink_runs ? s->o->shrink_runs : SHRINK_RUNS_DEFAULT;
    if (items->count < 2 || items->count > RETARGET_ITEMS) return 0;
    struct heist__decision old[RETARGET_ITEMS], one;
    size_t count = items->count;
    memcpy(old, items->list, count * sizeof(*old));
    for (size_t i = 0; i < count; i++) {
        one = old[i];
        if (one.kind != HEIST__DECIDE_NEXT) continue;
        for (uint32_t to = 0; to < RETARGET_THREADS; to++) {
            if (s->result->shrinking >= limit) return 0;
            one.value = to;
            int rc = still_fails(s, &one, 1, outcome, items);
            if (rc) return rc;
        }
    }
    for (size_t i = 0; count > 2 && i < count; i++) {
        for (size_t k = i + 1; k < count; k++) {
            if (s->result->shrinking >= limit) return 0;
            struct heist__decision two[2] = {old[i], old[k]};
            int rc = still_fails(s, two, 2, outcome, items);
            if (rc) return rc;
        }
    }
    return 0;
}

/* ---- the search ---- */

static const char *program(void) {
    return program_invocation_name ? program_invocation_name : "PROGRAM";
}

static void print_failure(struct search *s, const struct heist__run *run, bool replays) {
    const heist_sim_result *r = s->result;
    const char *name = s->o->name ? s->o->name : "", *colon = s->o->name ? ":" : "";
    fprintf(stderr, "heist: %s%s%s\n", name, colon[0] ? ": " : "", run->report.message);
    fprintf(stderr, "  found with seed %llu, after %llu runs; shrunk to %llu decisions in %llu more\n",
            (unsigned long long)r->seed, (unsigned long long)r->runs, (unsigned long long)r->decisions,
            (unsigned long long)r->shrinking);
    if (replays && (r->plan[0] || !r->decisions))
        fprintf(stderr, "  replay: HEIST_SIM_PLAN='%s%s%s' %s\n", name, colon, r->plan, program());
    else
        fprintf(stderr, "  replay: HEIST_SIM_SEED='%s%s%llu' %s\n", name, colon, (unsigned long long)r->seed,
                program());
    if (!replays)
        fprintf(stderr, "  the same decisions did not fail again: something from outside takes part in this run\n");
    fputs(run->report.text, stderr);
}

/* The failing seed's run stands in shared. */
static int report(struct search *s) {
    struct shared *m = s->shared;
    heist_sim_result *r = s->result;
    int outcome = m->run.report.outcome;
    bool kept = record_of(m)->count <= record_of(m)->room;
    struct heist__run *first = malloc(sizeof(*first));
    struct items items = {kept ? calloc(record_of(m)->count + 1, sizeof(*items.list)) : NULL, 0};
    if (!first || (kept && !items.list)) {
        free(first);
        free(items.list);
        return -ENOMEM;
    }
    *first = m->run;
    heist__run_result(first, record_of(m), r);
    bool replays = false;
    int rc = 0;
    if (kept && outcome != HEIST_SIM_HUNG) {
        size_t count = record_of(m)->count;
        struct heist__decision *list = malloc((count + 1) * sizeof(*list));
        rc = list ? 0 : -ENOMEM;
        if (!rc) {
            memcpy(list, record_of(m)->list, count * sizeof(*list));
            rc = still_fails(s, list, count, outcome, &items);
        }
        free(list);
        replays = rc > 0;
        if (replays) {
            do rc = shrink(s, outcome, &items);
            while (rc >= 0 && (rc = retarget(s, outcome, &items)) > 0);
            struct heist__plan plan;
            if (!rc) rc = heist__plan_of_record(&plan, items.list, items.count);
            if (!rc) {
                /* Once more, with its own output. */
                rc = run_child(s, 0, &plan, s->o->flags & HEIST_SIM_QUIET);
                heist__plan_free(&plan);
            }
            replays = !rc && m->run.report.outcome == outcome;
            if (replays) heist__run_result(&m->run, record_of(m), r);
        }
    }
    if (rc >= 0 && !(s->o->flags & HEIST_SIM_QUIET)) print_failure(s, replays ? &m->run : first, replays);
    free(items.list);
    free(first);
    return rc < 0 ? rc : 1;
}

/* What the environment asks this search to replay: NULL when nothing; *other when it asks for another search. */
static const char *asked(const char *variable, const char *name, bool *other) {
    const char *value = getenv(variable);
    if (!value) return NULL;
    const char *colon = strchr(value, ':');
    size_t length = colon ? (size_t)(colon - value) : 0, own = name ? strlen(name) : 0;
    if (length != own || (own && strncmp(value, name, own) != 0)) {
        *other = true;
        return NULL;
    }
    return colon ? colon + 1 : value;
}

static int replay(struct search *s, const char *plan, const char *seed) {
    heist_sim_options o = *s->o;
    o.flags &= ~HEIST_SIM_QUIET;
    o.plan = plan;
    if (seed) o.seed = strtoull(seed, NULL, 0);
    int err = heist_sim_run(s->body, s->arg, &o, s->result);
    if (err) return err;
    fprintf(stderr, "heist: replayed: %s\n", s->result->outcome ? s->result->message : "no failure");
    return s->result->outcome != HEIST_SIM_OK;
}

int heist_sim_search(heist_sim_body body, void *arg, const heist_sim_options *opts, heist_sim_result *result) {
    static const heist_sim_options defaults = HEIST_SIM_OPTIONS_INIT;
    const heist_sim_options *o = opts ? opts : &defaults;
    if (!body || !result || result->size < sizeof(*result) || !heist__sim_options_ok(o)) return -EINVAL;
    memset((char *)result + sizeof(result->size), 0, sizeof(*result) - sizeof(result->size));
    struct search s = {body, arg, o, NULL, result};
    bool other = false;
    const char *plan = asked("HEIST_SIM_PLAN", o->name, &other), *seed = asked("HEIST_SIM_SEED", o->name, &other);
    if (plan || seed) return replay(&s, plan, seed);
    if (other) return 0;

    size_t bytes = sizeof(struct shared) + sizeof(struct heist__record) + RECORD_ROOM * sizeof(struct heist__decision);
    s.shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s.shared == MAP_FAILED) return -ENOMEM;
    uint64_t seeds = o->seeds ? o->seeds : SEEDS_DEFAULT, fault[HEIST__FAULTS] = {0};
    double end = o->seconds > 0 ? seconds_now() + o->seconds : 0;
    int rc = 0;
    for (uint64_t i = 0; i < seeds && !rc; i++) {
        if (end > 0 && seconds_now() > end) break;
        rc = run_child(&s, o->seed + i, NULL, !(o->flags & HEIST_SIM_VERBOSE));
        if (rc) break;
        result->runs++;
        result->seed = o->seed + i;
        result->steps += s.shared->run.report.counts.steps;
        for (int k = 0; k < HEIST__FAULTS; k++) fault[k] += s.shared->run.report.counts.faults[k];
        if (s.shared->run.report.outcome != HEIST_SIM_OK) rc = report(&s);
    }
    for (int k = 0; k < HEIST__FAULTS; k++) result->fault[k] = fault[k];
    munmap(s.shared, bytes);
    return rc;
}
