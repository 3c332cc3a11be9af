/* stress/common.c: options, seeds, watchdog, leak law, report.
 *
 * Owns the process-wide books of one stress program.  The watchdog is a plain thread
 * that lives from stress_begin to stress_end and looks four times a second.
 * Invariant: `books` guards the list of runtimes, the texts and the output; counters
 * are relaxed atomics outside it.  Nothing here calls the library while it holds the
 * lock except the watchdog, in its last words. */
#include "common.h"
#include "stacks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define WATCHED_BY "AddressSanitizer"
#elif defined(__SANITIZE_THREAD__)
#define WATCHED_BY "ThreadSanitizer"
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WATCHED_BY "AddressSanitizer"
#elif __has_feature(thread_sanitizer)
#define WATCHED_BY "ThreadSanitizer"
#endif
#endif

#define SHARDS 64
#define BUCKETS 48
#define RUNTIMES 32
#define NOTES 32
#define LAST_WORDS_SECONDS 150 /* more than gdb is given */

struct stress_options stress_opt = {.seconds = 10, .round = -1, .stall = 20};
heist_worker_stats stress_totals = HEIST_WORKER_STATS_INIT;

struct census {
    long threads, fds, mappings, rss_kib;
    size_t heap;
};

static struct {
    pthread_mutex_t books;
    const char *name, *law;
    pthread_t watchdog;
    double begun;
    struct census start, settled;
    long round, rounds;
    char settings[512];
    const char *phase;
    const char *failed_phase;
    char failed_settings[512];
    long failed_round;
    char notes[NOTES][160];
    int note_count;
    struct {
        heist_runtime *rt;
        char label[32];
    } runtimes[RUNTIMES];
    void (*dump)(FILE *);
    int samples;       /* --samples: a descriptor, or -1.  No stream: a forked child would write its buffer again */
    double sampled_at; /* after a round */
} run = {.books = PTHREAD_MUTEX_INITIALIZER, .samples = -1, .phase = "begin", .round = -1, .failed_round = -1};

static const char *provocation; /* --provoke, or NULL */
static _Atomic(int) failures;
static _Atomic(bool) stopping;    /* the watchdog ends */
static _Atomic(bool) interrupted; /* SIGINT, SIGTERM */
static _Atomic(uint64_t) reports;
static struct {
    _Alignas(64) _Atomic(uint64_t) n;
} progress[SHARDS];
static _Atomic(uint64_t) latency[BUCKETS]; /* bucket b: below 2^b ns */
static _Atomic(uint64_t) latency_worst_ns;
static struct {
    _Atomic(uint64_t) since_ns; /* 0: nobody waits */
    _Atomic(const char *) what;
} waits[STRESS_WAITS];

/* ---- clock and generator ---- */

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

double stress_now(void) {
    return (double)now_ns() * 1e-9;
}

uint64_t stress_next(struct stress_rng *r) { /* Steele, Lea, Flood 2014 */
    uint64_t z = (r->s += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t stress_mix(uint64_t a, uint64_t b) {
    struct stress_rng r = {a ^ (b * 0xd6e8feb86659fd93u)};
    stress_next(&r);
    return stress_next(&r);
}

struct stress_rng stress_stream(struct stress_rng *parent, uint64_t index) {
    struct stress_rng r = {stress_mix(stress_next(parent), index)};
    return r;
}

uint64_t stress_below(struct stress_rng *r, uint64_t n) {
    return n < 2 ? 0 : stress_next(r) % n;
}

uint64_t stress_between(struct stress_rng *r, uint64_t lo, uint64_t hi) {
    /* uniform in the number of bits, then within: 1 to 64 gives 1 as often as 33 to 64 */
    uint64_t span = hi - lo + 1;
    int bits = 0;
    while (bits < 63 && (UINT64_C(1) << bits) < span) bits++;
    uint64_t top = UINT64_C(1) << stress_below(r, (uint64_t)bits + 1);
    return lo + stress_below(r, top < span ? top : span);
}

bool stress_chance(struct stress_rng *r, unsigned percent) {
    return stress_below(r, 100) < percent;
}

/* ---- what the process holds ---- */

static long entries_of(const char *dir) {
    DIR *d = opendir(dir);
    if (!d) return -1;
    long n = 0;
    for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
    closedir(d);
    return n - (strcmp(dir, "/proc/self/fd") == 0); /* the descriptor of this very listing */
}

/* Anonymous mappings but for the C library's own: heaps of malloc's arenas (a mapping that starts at a multiple
 * of 64 MiB, and the unused rest of it), and stacks of ended threads, which it keeps for the next (a rw mapping
 * right above a page without access). */
static long anonymous_mappings(bool print) {
    FILE *f = fopen("/proc/self/maps", "re");
    if (!f) return -1;
    char line[PATH_MAX + 128];
    uint64_t arena_end = 0, guard_end = 0;
    long n = 0;
    while (fgets(line, sizeof line, f)) {
        uint64_t lo, hi, inode;
        char perms[8];
        int used = 0;
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %*s %*s %" SCNu64 " %n", &lo, &hi, perms, &inode, &used) < 4)
            continue;
        bool named = used && line[used] == '['; /* [heap], [stack], [vdso]; [anon:…] is a named anonymous mapping */
        if (inode || line[used] == '/' || (named && strncmp(line + used, "[anon", 5) != 0)) continue;
        bool none = strncmp(perms, "---", 3) == 0;
        if (lo % (64u << 20) == 0 && !none && hi - lo <= (64u << 20)) {
            arena_end = hi;
            continue;
        }
        if (none && hi - lo <= 64 * 1024) { /* also right behind an arena */
            guard_end = hi;
            continue;
        }
        if (none && lo == arena_end) continue;
        if (!none && lo == guard_end) continue;
        n++;
        if (print) fprintf(stderr, "mapping: %s", line);
    }
    fclose(f);
    return n;
}

static long rss_kib(void) {
    FILE *f = fopen("/proc/self/statm", "re");
    long size = 0, resident = 0;
    if (f) {
        if (fscanf(f, "%ld %ld", &size, &resident) != 2) resident = 0;
        fclose(f);
    }
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static struct census take_census(void) {
    struct census c;
    c.threads = entries_of("/proc/self/task");
    c.fds = entries_of("/proc/self/fd");
    c.mappings = anonymous_mappings(false);
    c.rss_kib = rss_kib();
#ifdef WATCHED_BY
    c.heap = 0; /* another allocator */
#else
    struct mallinfo2 m = mallinfo2();
    c.heap = m.uordblks + m.hblkhd;
#endif
    return c;
}

struct stress_held stress_held(void) {
    struct stress_held h = {entries_of("/proc/self/task"), entries_of("/proc/self/fd"), anonymous_mappings(false),
                            rss_kib(), 0};
    FILE *f = fopen("/proc/self/status", "re");
    char line[256];
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "VmPTE:", 6) == 0) h.page_tables_kib = strtol(line + 6, NULL, 10);
    if (f) fclose(f);
    return h;
}

/* Threads and descriptors must be back.  A joined thread stands in /proc for a moment longer (the join is answered
 * before the kernel has taken it off the list), hence the second looks. */
static void check_threads_and_descriptors(const struct census *want, long own_threads) {
    long threads = 0, fds = 0;
    for (int i = 0; i < 500; i++) {
        threads = entries_of("/proc/self/task") - own_threads;
        fds = entries_of("/proc/self/fd");
        if (threads == want->threads && fds == want->fds) return;
        if (threads == want->threads && i >= 50) break; /* descriptors have no such reason to be late */
        stress_block(0.01);
    }
    stress_check(threads <= want->threads, "%ld threads are left, %ld at the start", threads, want->threads);
    stress_check(fds == want->fds, "%ld descriptors are open, %ld at the start", fds, want->fds);
}

/* ---- output ---- */

static bool line_shown; /* under books */

static void clear_line(void) {
    if (line_shown) fputs("\r\033[K", stderr);
    line_shown = false;
}

static void print_replay(FILE *to, long round) {
    fprintf(to, "replay: stress_%s --seed %" PRIu64 " --workers %d --threads %d", run.name, stress_opt.seed,
            stress_opt.workers, stress_opt.threads);
    if (round >= 0) fprintf(to, " --round %ld", round);
    if (stress_opt.skip) fprintf(to, " --skip '%s'", stress_opt.skip);
    fputc('\n', to);
}

void stress_settings(const char *format, ...) {
    char text[sizeof run.settings];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pthread_mutex_lock(&run.books);
    memcpy(run.settings, text, sizeof text);
    if (stress_opt.verbose) {
        clear_line();
        fprintf(stderr, "round %ld: %s\n", run.round, text);
    }
    pthread_mutex_unlock(&run.books);
}

void stress_phase(const char *name) {
    pthread_mutex_lock(&run.books);
    run.phase = name;
    pthread_mutex_unlock(&run.books);
}

void stress_fail(const char *format, ...) {
    char text[512]; /* formatted here and written in one go: a task's stack may be small */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    int before = s_add(&failures, 1);
    if (before >= 20) return;
    pthread_mutex_lock(&run.books);
    if (!run.failed_phase) {
        run.failed_phase = run.phase;
        run.failed_round = run.round;
        memcpy(run.failed_settings, run.settings, sizeof run.settings);
    }
    char line[768];
    int n = snprintf(line, sizeof line, "%sBROKEN in phase '%s', round %ld: %s\n", line_shown ? "\r\033[K" : "",
                     run.phase, run.round, text);
    line_shown = false;
    if (write(STDERR_FILENO, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1) < 0) {
        /* nowhere else to say it; the exit status does */
    }
    pthread_mutex_unlock(&run.books);
}

void stress_die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "\nstress_%s cannot go on: ", run.name);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    print_replay(stderr, run.round);
    exit(1);
}

void stress_note(const char *format, ...) {
    va_list args;
    va_start(args, format);
    pthread_mutex_lock(&run.books);
    if (run.note_count < NOTES) vsnprintf(run.notes[run.note_count++], sizeof run.notes[0], format, args);
    pthread_mutex_unlock(&run.books);
    va_end(args);
}

/* ---- liveness ---- */

STRESS_NOINLINE void stress_progress(uint64_t n) {
    static _Atomic(unsigned) next;
    static _Thread_local unsigned mine; /* read afresh in each call: the caller may have moved */
    if (!mine) mine = 1 + s_add(&next, 1) % SHARDS;
    s_add(&progress[mine - 1].n, n);
}

static uint64_t progress_sum(void) {
    uint64_t n = 0;
    for (int i = 0; i < SHARDS; i++) n += s_get(&progress[i].n);
    return n;
}

void stress_latency(double seconds) {
    uint64_t ns = seconds > 0 ? (uint64_t)(seconds * 1e9) : 0;
    int b = 0;
    while (b < BUCKETS - 1 && ns >> b) b++;
    s_add(&latency[b], 1);
    uint64_t worst = s_get(&latency_worst_ns);
    while (ns > worst && !atomic_compare_exchange_weak_explicit(&latency_worst_ns, &worst, ns, memory_order_relaxed,
                                                                memory_order_relaxed)) {}
}

/* The upper bound of the bucket that holds the share; 0 when nothing was measured. */
static double latency_at(double share) {
    uint64_t total = 0, seen = 0;
    for (int b = 0; b < BUCKETS; b++) total += s_get(&latency[b]);
    for (int b = 0; b < BUCKETS && total; b++) {
        seen += s_get(&latency[b]);
        if ((double)seen >= share * (double)total) return (double)(UINT64_C(1) << b) * 1e-9;
    }
    return 0;
}

void stress_wait_begin(int slot, const char *what, double planned_seconds) {
    if (slot < 0 || slot >= STRESS_WAITS) return;
    s_set(&waits[slot].what, what);
    /* release, paired with the watchdog's acquire: it prints the text that belongs to this instant */
    s_publish(&waits[slot].since_ns, now_ns() + (uint64_t)(planned_seconds * 1e9));
}

void stress_wait_end(int slot) {
    if (slot < 0 || slot >= STRESS_WAITS) return;
    s_publish(&waits[slot].since_ns, 0);
}

void stress_on_stall(void (*dump)(FILE *to)) {
    run.dump = dump;
}

static void print_worker_counters(FILE *to, heist_runtime *rt) {
    for (int w = 0; w < heist_runtime_workers(rt); w++) {
        heist_worker_stats s = HEIST_WORKER_STATS_INIT;
        if (heist_runtime_stats(rt, w, &s) < 0) continue;
        fprintf(to,
                "    worker %-2d steps %" PRIu64 " stolen %" PRIu64 " callbacks %" PRIu64 " timers %" PRIu64
                " io %" PRIu64 " inbox %" PRIu64 " sleeps %" PRIu64 " wakeups %" PRIu64 " queue %" PRIu64
                " busy %.2f s\n",
                w, s.steps, s.stolen, s.callbacks, s.timers, s.io_events, s.inbox, s.sleeps, s.wakeups, s.queue,
                s.busy_seconds);
    }
}

static void print_tasks(FILE *to, heist_runtime *rt) {
    heist_task **list = NULL;
    size_t count = 0;
    int err = heist_runtime_all_tasks(rt, &list, &count);
    if (err < 0) {
        fprintf(to, "    all_tasks: %s\n", heist_error_name(err));
        return;
    }
    fprintf(to, "    %zu tasks are not done\n", count);
    for (size_t i = 0; i < count && i < 100; i++) {
        char text[240];
        heist_future_repr(list[i], text, sizeof text);
        fprintf(to, "      %p %s cancelling=%d\n", (void *)list[i], text, heist_cancelling(list[i]));
    }
    alarm(LAST_WORDS_SECONDS);
    stress_stacks_of_tasks(list, count);
    heist_task_list_free(list, count);
}

/* The last words.  Everything is written as soon as it is known, for the library may hang while it is asked; the
 * stacks of the threads come before, for they say where it hangs. */
static _Noreturn void stalled(const char *why) {
    alarm(LAST_WORDS_SECONDS); /* should an answer never come: the default action ends the process */
    setvbuf(stderr, NULL, _IOLBF, 0);
    fprintf(stderr, "\nSTALLED in phase '%s', round %ld: %s\n", run.phase, run.round, why);
    fprintf(stderr, "settings: %s\n", run.settings);
    print_replay(stderr, run.round);
    uint64_t now = now_ns();
    int shown = 0;
    for (int i = 0; i < STRESS_WAITS && shown < 40; i++) {
        uint64_t since = s_observe(&waits[i].since_ns);
        if (!since) continue;
        double late = now > since ? (double)(now - since) * 1e-9 : 0;
        if (late < 1) continue;
        fprintf(stderr, "  wait %d '%s' has been due for %.1f s\n", i, s_get(&waits[i].what), late);
        shown++;
    }
    if (run.dump) run.dump(stderr);
    stress_stacks_of_threads();
    for (int i = 0; i < RUNTIMES; i++) {
        if (!run.runtimes[i].rt) continue;
        alarm(20);
        fprintf(stderr, "  runtime '%s': %d workers, %zu tasks\n", run.runtimes[i].label,
                heist_runtime_workers(run.runtimes[i].rt), heist_runtime_task_count(run.runtimes[i].rt));
        print_worker_counters(stderr, run.runtimes[i].rt);
        print_tasks(stderr, run.runtimes[i].rt);
    }
    alarm(0);
    if (stress_opt.hold) {
        fprintf(stderr, "held for a debugger: pid %d\n", (int)getpid());
        for (;;) pause();
    }
    abort();
}

/* ---- samples: what the process held, for a chart ---- */

static size_t tasks_alive(void) { /* under books */
    size_t tasks = 0;
    for (int i = 0; i < RUNTIMES; i++)
        if (run.runtimes[i].rt) tasks += heist_runtime_task_count(run.runtimes[i].rt);
    return tasks;
}

/* kind: `live`, at any moment, or `round`, when a round has given everything back; those show a drift. */
static void sample(const char *kind) { /* under books */
    struct census c = take_census();
    if (c.fds < 0 || c.rss_kib == 0) return; /* no descriptor to look with: made short on purpose */
    dprintf(run.samples, "%.2f,%s,%ld,%zu,%ld,%ld,%ld,%zu,%" PRIu64 "\n", stress_now() - run.begun, kind, c.rss_kib,
            c.heap / 1024, c.fds, c.threads, c.mappings, tasks_alive(), progress_sum());
}

static void open_samples(const char *path) {
    run.samples = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
    if (run.samples < 0) stress_die("%s: %s", path, strerror(errno));
    dprintf(run.samples, "seconds,kind,rss_kib,heap_kib,descriptors,threads,mappings,tasks,items\n");
}

static void sample_round(void) {
    double now = stress_now();
    if (run.samples < 0 || now - run.sampled_at < 1) return;
    run.sampled_at = now;
    malloc_trim(0); /* what malloc keeps for later is no drift */
    pthread_mutex_lock(&run.books);
    sample("round");
    pthread_mutex_unlock(&run.books);
}

static void show_line(double elapsed, uint64_t items, double rate) {
    size_t tasks = tasks_alive();
    fprintf(stderr, "%s%s %6.1f s  round %ld  %" PRIu64 " items  %.0f/s  %zu tasks  %ld MiB  worst %.2f ms%s",
            line_shown ? "\r\033[K" : "", run.name, elapsed, run.round, items, rate, tasks, rss_kib() / 1024,
            (double)s_get(&latency_worst_ns) * 1e-6, isatty(STDERR_FILENO) ? "" : "\n");
    line_shown = isatty(STDERR_FILENO);
    fflush(stderr);
}

static void *watchdog_main(void *unused) {
    (void)unused;
    bool terminal = isatty(STDERR_FILENO);
    uint64_t last = 0, last_line = 0;
    double moved = stress_now(), line_at = moved, sample_at = moved;
    while (!s_get(&stopping)) {
        stress_block(terminal ? 0.25 : 0.05);
        double now = stress_now();
        uint64_t items = progress_sum();
        if (items != last) {
            last = items;
            moved = now;
        }
        char why[160] = "";
        if (now - moved > stress_opt.stall)
            snprintf(why, sizeof why, "nothing has moved for %.1f s", now - moved);
        uint64_t ns = now_ns();
        for (int i = 0; i < STRESS_WAITS && !why[0]; i++) {
            uint64_t since = s_observe(&waits[i].since_ns);
            if (since && ns > since && (double)(ns - since) * 1e-9 > stress_opt.stall)
                snprintf(why, sizeof why, "wait %d '%s' was not answered", i, s_get(&waits[i].what));
        }
        if (why[0]) {
            pthread_mutex_lock(&run.books);
            clear_line();
            stalled(why); /* does not return */
        }
        if (now - line_at >= (terminal ? 0.25 : 10)) {
            pthread_mutex_lock(&run.books);
            show_line(now - run.begun, items, (double)(items - last_line) / (now - line_at));
            pthread_mutex_unlock(&run.books);
            last_line = items;
            line_at = now;
        }
        if (run.samples >= 0 && now - sample_at >= 1) {
            pthread_mutex_lock(&run.books);
            sample("live");
            pthread_mutex_unlock(&run.books);
            sample_at = now;
        }
    }
    return NULL;
}

/* ---- begin, rounds, end ---- */

static void on_interrupt(int sig) {
    (void)sig;
    s_set(&interrupted, true);
}

static _Noreturn void usage(int status) {
    fprintf(status ? stderr : stdout,
            "stress_%s: %s\n"
            "  --seconds S   begin rounds for S seconds (default 10)\n"
            "  --workers N   workers of each runtime (0, the default: drawn for each round)\n"
            "  --threads N   foreign threads (0, the default: drawn for each round)\n"
            "  --seed N      replays the settings of an earlier run\n"
            "  --round N     only this round of the seed, again and again\n"
            "  --stall S     seconds without progress that count as a stall (default 20)\n"
            "  --hold        wait for a debugger after a stall instead of aborting\n"
            "  --skip TEXT   leave out the kinds of cell whose name has this in it (wake)\n"
            "  --json        one line of JSON at the end, on standard output\n"
            "  --samples F   write to the file F once a second what the process holds, as lines of CSV\n"
            "  --provoke X   do what must be found, in the first round: stall, law, descriptor or memory\n"
            "  --verbose     print the settings of each round\n",
            run.name, run.law);
    exit(status);
}

static double number(const char *option, const char *text) {
    char *end = NULL;
    double v = text ? strtod(text, &end) : 0;
    if (!text || end == text || *end || !isfinite(v) || v < 0) {
        fprintf(stderr, "stress_%s: %s needs a number\n", run.name, option);
        usage(2);
    }
    return v;
}

void stress_begin(int argc, char **argv, const char *name, const char *law) {
    run.name = name;
    run.law = law;
    bool seeded = false;
    const char *samples = NULL;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(a, "--json") == 0) stress_opt.json = true;
        else if (strcmp(a, "--hold") == 0) stress_opt.hold = true;
        else if (strcmp(a, "--verbose") == 0) stress_opt.verbose = true;
        else if (strcmp(a, "--help") == 0) usage(0);
        else if (strcmp(a, "--seconds") == 0) stress_opt.seconds = number(a, v), i++;
        else if (strcmp(a, "--workers") == 0) stress_opt.workers = (int)number(a, v), i++;
        else if (strcmp(a, "--threads") == 0) stress_opt.threads = (int)number(a, v), i++;
        else if (strcmp(a, "--stall") == 0) stress_opt.stall = number(a, v), i++;
        else if (strcmp(a, "--skip") == 0 && v) stress_opt.skip = v, i++;
        else if (strcmp(a, "--samples") == 0 && v) samples = v, i++;
        else if (strcmp(a, "--provoke") == 0 && v) provocation = v, i++;
        else if (strcmp(a, "--round") == 0) stress_opt.round = (long)number(a, v), i++;
        else if (strcmp(a, "--seed") == 0) {
            number(a, v);
            stress_opt.seed = strtoull(v, NULL, 10); /* all 64 bits */
            seeded = true;
            i++;
        } else {
            fprintf(stderr, "stress_%s: unknown option %s\n", name, a);
            usage(2);
        }
    }
    if (!seeded) {
        if (getrandom(&stress_opt.seed, sizeof stress_opt.seed, 0) != (ssize_t)sizeof stress_opt.seed)
            stress_opt.seed = now_ns();
        stress_opt.seed >>= 32; /* short enough to be typed */
    }
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    setvbuf(stdout, NULL, _IOLBF, 0);
    fprintf(stderr, "stress_%s: %s\n", name, law);
    fprintf(stderr, "heist %s, %.0f s, %ld CPUs%s%s\n", heist_version(), stress_opt.seconds,
            sysconf(_SC_NPROCESSORS_ONLN),
#ifdef WATCHED_BY
            ", ", WATCHED_BY
#else
            "", ""
#endif
    );
    print_replay(stderr, stress_opt.round);
    run.begun = stress_now();
    stress_stacks_prime();
    if (samples) open_samples(samples);
    int err = pthread_create(&run.watchdog, NULL, watchdog_main, NULL);
    if (err) stress_die("no thread for the watchdog: %s", strerror(err));
    run.start = take_census(); /* after it: a detector starts a thread of its own with the first */
    run.start.threads--;
}

bool stress_going(void) {
    return !s_get(&interrupted) && s_get(&failures) == 0 && stress_now() - run.begun < stress_opt.seconds;
}

long stress_round(void) {
    return run.round;
}

/* ---- the harness proves itself: what must be found is done ---- */

static STRESS_NOINLINE int provoked_sleep(void *arg, void **out) {
    (void)out;
    int err = heist_await(arg, NULL); /* nobody ever completes it */
    stress_progress(1);
    return err;
}

static void provoke(void) {
    static void *volatile left;
    stress_phase("provoked");
    if (strcmp(provocation, "law") == 0) {
        stress_fail("a law broken on purpose");
    } else if (strcmp(provocation, "descriptor") == 0) {
        if (dup(STDERR_FILENO) < 0) stress_die("dup: %s", strerror(errno));
    } else if (strcmp(provocation, "memory") == 0) {
        left = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        left = mmap(NULL, 1 << 21, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* no neighbour of the first */
        if (left == MAP_FAILED) stress_die("mmap: %s", strerror(errno));
    } else if (strcmp(provocation, "stall") == 0) {
        heist_runtime *rt = stress_runtime("provoked", 2, NULL);
        heist_future *never = NULL;
        heist_task *t = NULL;
        int err = heist_future_new(NULL, &never);
        if (err == 0) err = heist_runtime_run_coroutine(rt, provoked_sleep, never, NULL, &t);
        if (err < 0) stress_die("a task: %s", heist_strerror(err));
        stress_wait_begin(0, "provoked", 0);
        err = heist_await(t, NULL); /* until the watchdog ends the process */
        stress_die("a future that nobody completes answered %s", heist_error_name(err));
    } else {
        stress_die("--provoke knows stall, law, descriptor and memory");
    }
}

bool stress_next_round(struct stress_rng *r) {
    stress_progress(1);
    if (run.rounds > 0) {
        stress_phase("what a round leaves behind");
        check_threads_and_descriptors(&run.start, 1); /* one: the watchdog */
    }
    if (run.rounds == 1) run.settled = take_census();
    if (run.rounds > 0) sample_round();
    /* the first round is run even when --seconds is tiny: a program that did nothing has shown nothing */
    if (run.rounds > 0 && !stress_going()) return false;
    if (s_get(&interrupted)) return false;
    pthread_mutex_lock(&run.books);
    run.round = stress_opt.round >= 0 ? stress_opt.round : run.rounds;
    run.rounds++;
    run.phase = "begin of a round";
    pthread_mutex_unlock(&run.books);
    r->s = stress_mix(stress_opt.seed, (uint64_t)run.round + 1);
    if (provocation && run.rounds == 1) provoke();
    return true;
}

int stress_end(void) {
    double elapsed = stress_now() - run.begun;
    s_set(&stopping, true);
    pthread_join(run.watchdog, NULL);
    stress_phase("what the program leaves behind");
    check_threads_and_descriptors(&run.start, 0);
    struct census end = take_census();
#ifdef WATCHED_BY
    const char *mapping_law = ", not a law under a detector";
#else
    const char *mapping_law = "";
    /* one more: the page that the kernel wipes in a forked child, by which the library knows one; it stays */
    if (end.mappings > run.start.mappings + 1) anonymous_mappings(true);
    stress_check(end.mappings <= run.start.mappings + 1, "%ld anonymous mappings, %ld at the start", end.mappings,
                 run.start.mappings);
    /* malloc keeps a few freed chunks of the two threads that stay marked as in use: well below a megabyte */
    if (run.rounds > 1 && end.heap > run.settled.heap)
        stress_check(end.heap - run.settled.heap < (1u << 20), "%zu KiB of heap in use, %zu after the first round",
                     end.heap / 1024, run.settled.heap / 1024);
#endif
    if (run.samples >= 0) close(run.samples);
    clear_line();
    int failed = s_get(&failures);
    uint64_t items = progress_sum();
    FILE *to = stress_opt.json ? stderr : stdout;
    fprintf(to, "rounds %ld, items %" PRIu64 " in %.1f s: %.0f/s\n", run.rounds, items, elapsed,
            (double)items / elapsed);
    fprintf(to,
            "workers: %" PRIu64 " steps, %" PRIu64 " stolen, %" PRIu64 " callbacks, %" PRIu64 " timers, %" PRIu64
            " io events, %" PRIu64 " through inboxes, %" PRIu64 " sleeps, %" PRIu64 " wake-ups\n",
            stress_totals.steps, stress_totals.stolen, stress_totals.callbacks, stress_totals.timers,
            stress_totals.io_events, stress_totals.inbox, stress_totals.sleeps, stress_totals.wakeups);
    if (s_get(&latency_worst_ns))
        fprintf(to, "latency: half below %.0f us, 99 %% below %.0f us, worst %.0f us\n", latency_at(0.5) * 1e6,
                latency_at(0.99) * 1e6, (double)s_get(&latency_worst_ns) * 1e-3);
    for (int i = 0; i < run.note_count; i++) fprintf(to, "%s\n", run.notes[i]);
    fprintf(to, "failures that reached an exception handler: %" PRIu64 "\n", stress_reports());
    fprintf(to, "memory: RSS %ld KiB at the start, %ld after the first round, %ld at the end; heap in use %+ld KiB\n",
            run.start.rss_kib, run.settled.rss_kib, end.rss_kib,
            run.settled.heap ? ((long)end.heap - (long)run.settled.heap) / 1024 : 0);
    fprintf(to, "left: %ld threads (%ld), %ld descriptors (%ld), %ld anonymous mappings (%ld%s)\n", end.threads,
            run.start.threads, end.fds, run.start.fds, end.mappings, run.start.mappings, mapping_law);
    if (failed) {
        fprintf(to, "settings of the failed round: %s\n", run.failed_settings);
        print_replay(to, run.failed_round);
        fprintf(to, "FAILED stress_%s: %d broken, first in phase '%s'\n", run.name, failed, run.failed_phase);
    } else {
        fprintf(to, "passed stress_%s\n", run.name);
    }
    if (stress_opt.json)
        printf("{\"program\":\"stress_%s\",\"seed\":%" PRIu64 ",\"workers\":%d,\"threads\":%d,\"seconds\":%.1f,"
               "\"rounds\":%ld,\"items\":%" PRIu64 ",\"rate\":%.0f,\"steps\":%" PRIu64 ",\"stolen\":%" PRIu64
               ",\"latency_p50_us\":%.1f,\"latency_p99_us\":%.1f,\"latency_worst_us\":%.1f,\"rss_start_kib\":%ld,"
               "\"rss_end_kib\":%ld,\"threads_left\":%ld,\"descriptors_left\":%ld,\"mappings_left\":%ld,"
               "\"broken\":%d,\"failed_phase\":\"%s\"}\n",
               run.name, stress_opt.seed, stress_opt.workers, stress_opt.threads, elapsed, run.rounds, items,
               (double)items / elapsed, stress_totals.steps, stress_totals.stolen, latency_at(0.5) * 1e6,
               latency_at(0.99) * 1e6, (double)s_get(&latency_worst_ns) * 1e-3, run.start.rss_kib, end.rss_kib,
               end.threads - run.start.threads, end.fds - run.start.fds, end.mappings - run.start.mappings, failed,
               failed ? run.failed_phase : "");
    return failed ? 1 : 0;
}

int stress_draw_workers(struct stress_rng *r) {
    static const int choice[] = {1, 1, 2, 2, 2, 3, 4, 8, 16};
    int drawn = choice[stress_below(r, sizeof choice / sizeof choice[0])]; /* drawn in any case: same stream */
    return stress_opt.workers ? stress_opt.workers : drawn;
}

void stress_draw_watch(struct stress_rng *r, heist_runtime_options *o) {
    bool spare = stress_chance(r, 30), watch = stress_chance(r, 25), stacks = stress_chance(r, 50);
    double after = (double)stress_between(r, 1, 20) * 1e-3;
    int sig = SIGRTMIN + 6 + (int)stress_below(r, 2); /* drawn in any case: same stream */
    if (spare) o->flags |= HEIST_RUNTIME_SPARE_THREAD;
    if (watch) o->stuck_after = after;
    if (watch && stacks) o->stuck_signal = sig;
}

int stress_draw_threads(struct stress_rng *r, int most) {
    int drawn = (int)stress_between(r, 1, (uint64_t)most);
    return stress_opt.threads ? stress_opt.threads : drawn;
}

size_t stress_scale(size_t n) {
#ifdef WATCHED_BY
    n /= 8;
#endif
    return n ? n : 1;
}

/* ---- runtimes and threads ---- */

void stress_exception(heist_loop *loop, const heist_report *report, void *user) {
    (void)loop;
    (void)user;
    s_add(&reports, 1);
    if (stress_opt.verbose)
        fprintf(stderr, "report: %s, %s, %s\n", report->message, heist_error_name(report->code),
                report->name ? report->name : "-");
}

uint64_t stress_reports(void) {
    return s_get(&reports);
}

heist_runtime *stress_runtime(const char *name, int workers, const heist_runtime_options *opts) {
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    if (opts) o = *opts;
    o.workers = workers;
    o.name = name;
    if (!o.exception_handler) o.exception_handler = stress_exception;
    heist_runtime *rt = NULL;
    int err = heist_runtime_new(&o, &rt);
    if (err < 0) stress_die("a runtime of %d workers: %s", workers, heist_strerror(err));
    pthread_mutex_lock(&run.books);
    for (int i = 0; i < RUNTIMES; i++) {
        if (run.runtimes[i].rt) continue;
        run.runtimes[i].rt = heist_runtime_ref(rt);
        snprintf(run.runtimes[i].label, sizeof run.runtimes[i].label, "%s", name);
        break;
    }
    pthread_mutex_unlock(&run.books);
    return rt;
}

void stress_runtime_forget(heist_runtime *rt) {
    pthread_mutex_lock(&run.books);
    heist_runtime *held = NULL;
    for (int i = 0; i < RUNTIMES && !held; i++) {
        if (run.runtimes[i].rt != rt) continue;
        held = rt;
        run.runtimes[i].rt = NULL;
    }
    if (held) {
        for (int w = 0; w < heist_runtime_workers(rt); w++) {
            heist_worker_stats s = HEIST_WORKER_STATS_INIT;
            if (heist_runtime_stats(rt, w, &s) < 0) continue;
            stress_totals.steps += s.steps;
            stress_totals.stolen += s.stolen;
            stress_totals.callbacks += s.callbacks;
            stress_totals.timers += s.timers;
            stress_totals.io_events += s.io_events;
            stress_totals.inbox += s.inbox;
            stress_totals.sleeps += s.sleeps;
            stress_totals.wakeups += s.wakeups;
        }
    }
    pthread_mutex_unlock(&run.books);
    if (held) heist_runtime_unref(held);
}

void stress_runtime_end(heist_runtime *rt) {
    stress_phase("close");
    int err = heist_runtime_close(rt, HEIST_FOREVER);
    stress_check(err == 0, "close without a limit answered %s", heist_error_name(err));
    size_t left = heist_runtime_task_count(rt);
    stress_check(left == 0, "%zu tasks are not done after close", left);
    stress_runtime_forget(rt);
    heist_runtime_unref(rt);
    stress_progress(1);
}

void stress_thread(pthread_t *out, void *(*fn)(void *), void *arg) {
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 1024 * 1024);
    int err = pthread_create(out, &attr, fn, arg);
    pthread_attr_destroy(&attr);
    if (err) stress_die("a thread: %s", strerror(err));
}

void stress_join(pthread_t t) {
    pthread_join(t, NULL);
    stress_progress(1);
}

void stress_block(double seconds) {
    struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&t, &t) < 0 && errno == EINTR) {}
}

void stress_spin(double seconds) {
    double end = stress_now() + seconds;
    while (stress_now() < end) {}
}

void stress_pause(struct stress_rng *r, double max_seconds) {
    switch (stress_below(r, 4)) {
    case 0: break;
    case 1: sched_yield(); break;
    case 2: stress_spin((double)stress_between(r, 1, 20000) * 1e-9); break;
    default: stress_block(max_seconds * (double)stress_between(r, 1, 1024) / 1024); break;
    }
}

void *stress_alloc(size_t bytes) {
    void *p = calloc(1, bytes ? bytes : 1);
    if (!p) stress_die("no memory for %zu bytes", bytes);
    return p;
}
